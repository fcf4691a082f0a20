"""What stands around the ledger in the tests of streaming: a venue that sends, a reader, worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from infra.streams.topics import ACCOUNTS, CONTROL, PRICES, ensure

# Long: it is reached only where something is wrong.
WAIT_SECONDS = 150.0
_CONTROL = {"rulebook", "asset", "instrument", "interest-rate", "fund-movement", "halt", "resume", "clock"}
_PRICES = {"price", "funding", "settlement"}


class Cluster:
    """One service's topics on a real cluster, and clients for them."""

    def __init__(self, bootstrap: str, prefix: str, *, partitions: int) -> None:
        self.bootstrap, self.prefix, self.partitions = bootstrap, prefix, partitions
        self.producer: Any = None

    def __enter__(self) -> Cluster:
        self.admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        ensure(self.admin, self.prefix, self.partitions)
        self.producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5)
        return self

    def __exit__(self, *_: object) -> None:
        self.producer.close(timeout=2)
        self.admin.close()

    def send(self, record: Mapping[str, Any]) -> None:
        """A record to the topic of its type, keyed as contracts section 2 says."""
        kind = record["type"]
        if kind in _CONTROL:
            self.send_raw(CONTROL, json.dumps(record).encode(), key=kind)
        elif kind in _PRICES:
            self.send_raw(PRICES, json.dumps(record).encode(), key=record["instrument"])
        else:
            self.send_raw(ACCOUNTS, json.dumps(record).encode(), key=record["account"])

    def send_raw(self, topic: str, value: bytes, *, key: str = "", headers: Iterable[tuple[str, bytes]] = ()) -> None:
        """Any bytes to any topic."""
        self.producer.send(self.prefix + topic, value, key=key.encode(), headers=list(headers))

    def send_all(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Records, confirmed by the cluster when this returns."""
        for record in records:
            self.send(record)
        self.producer.flush(WAIT_SECONDS)

    def read(self, *topics: str, until: Callable[[list[Any]], bool]) -> list[Any]:
        """What a reader of committed messages sees from the beginning, until it is enough; fails after a while."""
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, isolation_level="read_committed",
                                 enable_auto_commit=False, auto_offset_reset="earliest")
        places = [TopicPartition(self.prefix + topic, number) for topic in topics
                  for number in consumer.partitions_for_topic(self.prefix + topic) or ()]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        found: list[Any] = []
        deadline = time.monotonic() + WAIT_SECONDS
        try:
            while not until(found):
                if time.monotonic() > deadline:
                    raise AssertionError(f"after {WAIT_SECONDS} s there are {len(found)} messages: {found[-3:]}")
                for rows in consumer.poll(timeout_ms=200).values():
                    found += rows
        finally:
            consumer.close()
        return found


def value_of(message: Any) -> dict[str, Any]:
    """A message's value."""
    found: dict[str, Any] = json.loads(message.value)
    return found


def position_of(message: Any) -> int:
    """The log position in a message's id."""
    return int(dict(message.headers)["ce_id"].decode().rpartition(":")[2])


class Process:
    """`clearing worker` or `clearing relay` as a process of its own."""

    def __init__(self, cluster: Cluster, command: str, *arguments: str, log: Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.cli", command, "--bootstrap", cluster.bootstrap, "--prefix",
                 cluster.prefix, *arguments], stdout=out, stderr=out, env={**os.environ, "PYTHONUNBUFFERED": "1"})

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Stop where it stands."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; the exit code. Killed, and failed, if it does not end within 15 s."""
        self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"expected an end within 15 s: {self.log.read_text()[-2000:]}") from None


def wait_until(holds: Callable[[], bool], what: str, *, log: Path | None = None) -> None:
    """Wait for something to hold; fails after a while with the end of a log."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {WAIT_SECONDS} s not yet: {what}\n"
                                 f"{log.read_text()[-3000:] if log is not None and log.exists() else ''}")
        time.sleep(0.05)
