"""What the tests of the service share: records sent by topic, a worker as a process, and what a ledger must hold."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from eventsourcing.persistence import PersistenceError
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from infra.embedded import LedgerReader, open_reader
from infra.replay import replay_ledger
from infra.streams.cluster import Cluster
from infra.streams.intake import Intake, Worker
from infra.streams.messages import Message, Origin, messages_of
from infra.streams.topics import ACCOUNTS, CONTROL, PRICES, TOPICS, Topic, full_name
from ledger.account import AccountState, evolve
from ledger.amounts import exact
from ledger.errors import LedgerUnreadable
from tests.streams.clients import read_all

_ACCOUNT: Final = {"account", "deposit", "withdrawal", "fill"}
_MARKET: Final = {"price", "funding"}


def send_records(cluster: Cluster, lines: Iterable[str]) -> None:
    """Each record to its topic, in order; what is no record goes to accounts."""
    producer = KafkaProducer(bootstrap_servers=cluster.bootstrap, linger_ms=5)
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            row = {"type": "deposit", "account": "nobody"}
        if row["type"] in _ACCOUNT:
            producer.send(full_name(cluster, ACCOUNTS), line.encode(), key=row["account"].encode())
        elif row["type"] in _MARKET:
            producer.send(full_name(cluster, PRICES), line.encode(), key=row["instrument"].encode())
        else:
            producer.send(full_name(cluster, CONTROL), line.encode())
    producer.flush(30)
    producer.close()


def ends(cluster: Cluster) -> dict[tuple[str, int], int]:
    """Where the partitions of the input topics end."""
    consumer = KafkaConsumer(bootstrap_servers=cluster.bootstrap)
    places = [TopicPartition(name, number) for name in (full_name(cluster, topic)
                                                        for topic in (ACCOUNTS, PRICES, CONTROL))
              for number in consumer.partitions_for_topic(name)]
    consumer.assign(places)
    found = {(place.topic, place.partition): offset for place, offset in consumer.end_offsets(places).items()}
    consumer.close()
    return found


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for a state of the world; AssertionError where it does not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def positions(path: Any) -> dict[tuple[str, int], int]:
    """Where a ledger goes on in each partition; nothing where there is no ledger yet."""
    with contextlib.suppress(LedgerUnreadable, PersistenceError, sqlite3.Error), open_reader(path) as reader:
        return {(source, partition): offset for source, partition, offset in reader.ask(
            "SELECT source, partition, next_offset FROM stream_position")}
    return {}


def wait_until_read(cluster: Cluster, paths: Sequence[Any], seconds: float = 60) -> None:
    """Wait until shards have read their partitions of accounts and all of the others, as they end now."""
    wanted = ends(cluster)
    for number, path in enumerate(paths):
        own = {place: end for place, end in wanted.items()
               if end and (place[1] == number or place[0] != full_name(cluster, ACCOUNTS))}
        wait_until(lambda path=path, own=own: own.items() <= positions(path).items(),  # type: ignore[misc]
                   f"{path} to reach {own}", seconds)


def causes(reader: LedgerReader) -> list[tuple[str, int, int]]:
    """(source, partition, offset) of each record that came from Kafka, in the order in which the log took them."""
    seen: dict[tuple[str, int, int], None] = {}
    for recorded in reader.log():
        cause = recorded.event.cause
        if cause.offset is not None:
            seen.setdefault((cause.source, cause.partition or 0, cause.offset))
    return list(seen)


def assert_exactly_once(cluster: Cluster, path: Any, shard: int = 0) -> None:
    """Each record of the shard's partitions is in the log once and in its partition's order, none of them twice.

    And the log is, byte for byte, what these records give when nothing disturbs them.
    """
    with open_reader(path) as reader:
        came = causes(reader)
    by_place: dict[tuple[str, int], list[int]] = {}
    for topic, partition, offset in came:
        by_place.setdefault((topic, partition), []).append(offset)
    wanted = {place: list(range(end)) for place, end in ends(cluster).items()
              if end and (place[1] == shard or place[0] != full_name(cluster, ACCOUNTS))}
    assert wanted == by_place
    assert [] == replay_ledger(path).differences


@contextlib.contextmanager
def running(intake: Intake) -> Iterator[Running]:
    """A worker in a thread of this process, stopped at the end."""
    found = Running(intake)
    found.thread.start()
    try:
        yield found
    finally:
        found.worker.stop()
        found.thread.join(30)


class Running:
    """A worker in a thread, and the fault that ended it."""

    def __init__(self, intake: Intake) -> None:
        self.worker = Worker(intake)
        self.fault: Exception | None = None
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.worker.run()
        except Exception as fault:
            self.fault = fault

    def wait_for_fault(self) -> str:
        """What the worker says when it stops by itself."""
        self.thread.join(60)
        assert self.fault is not None
        return str(self.fault)


@contextlib.contextmanager
def process(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command of the service in a process of its own; killed at the end if it still runs."""
    with log.open("ab") as output:
        child = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "infra.cli", *arguments], stdout=output,
                                 stderr=output, env={**os.environ, "CLEARING_TRACEBACK": "1"})
    try:
        yield child
    finally:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGCONT)
                child.kill()
        child.wait()


def worker(cluster: Cluster, path: Any, log: Path, *more: str) -> contextlib.AbstractContextManager[
        subprocess.Popen[bytes]]:
    """`clearing worker` with the simulated venue."""
    return process("worker", "--ledger", str(path), "--bootstrap", cluster.bootstrap, "--prefix", cluster.prefix,
                   "--venue", "simulated", "--session", "2", *more, log=log)


def relay(cluster: Cluster, path: Any, log: Path, *more: str) -> contextlib.AbstractContextManager[
        subprocess.Popen[bytes]]:
    """`clearing relay`."""
    return process("relay", "--ledger", str(path), "--bootstrap", cluster.bootstrap, "--prefix", cluster.prefix, *more,
                   log=log)


def expected(path: Any, cluster: Cluster, shard: int = 0) -> dict[Topic, list[Message]]:
    """What the log says, derived without a relay."""
    found: dict[Topic, list[Message]] = {topic: [] for topic in TOPICS}
    origin, states = Origin(shard, full_name(cluster, ACCOUNTS)), dict[str, AccountState | None]()
    with open_reader(path) as reader, exact():
        for recorded in reader.log():
            kind, _, name = recorded.originator_id.partition(":")
            before = after = None
            if kind == "account":
                before = states.get(name)
                after = states[name] = evolve(before, recorded.event)
            for message in messages_of(origin, recorded, before, after):
                found[message.topic].append(message)
    return found


def published(cluster: Cluster, topic: Topic, isolation: str = "read_committed") -> list[Any]:
    """All messages of a topic as a reader sees them."""
    return read_all(cluster.bootstrap, full_name(cluster, topic), isolation=isolation)


def assert_all_told_once(path: Any, cluster: Cluster, shard: int = 0) -> None:
    """Whoever reads what is committed sees all that a shard's log says, once and in order."""
    for topic, messages in expected(path, cluster, shard).items():
        if topic.direction == "in":
            continue
        came = [record for record in published(cluster, topic) if record.partition == shard]
        assert [(message.key.encode(), message.value, message.headers) for message in messages] == [
            (record.key, record.value, tuple(record.headers)) for record in came], topic.name
