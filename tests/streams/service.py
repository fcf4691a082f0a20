"""What the tests of the service share: records sent by topic, a worker as a process, and what a ledger must hold."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from kafka import KafkaProducer

from infra.embedded import LedgerReader, open_reader
from infra.replay import replay_ledger
from infra.streams.cluster import Cluster
from infra.streams.topics import ACCOUNTS, CONTROL, PRICES, full_name
from ledger.errors import LedgerUnreadable

_ACCOUNT: Final = {"account", "deposit", "withdrawal", "fill"}
_MARKET: Final = {"price", "funding"}


def send_records(cluster: Cluster, lines: Iterable[str], partitions: int = 1) -> None:
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


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for a state of the world; AssertionError where it does not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def position(path: Any, source: str, partition: int = 0) -> int:
    """The next offset that a ledger wants to read."""
    with contextlib.suppress(LedgerUnreadable), open_reader(path) as reader:
        rows = reader.ask("SELECT next_offset FROM stream_position WHERE source = ? AND partition = ?",
                          (source, partition))
        return int(rows[0][0]) if rows else 0
    return 0


def causes(reader: LedgerReader) -> list[tuple[str, int, int]]:
    """(source, partition, offset) of each record that came from Kafka, in the order in which the log took them."""
    seen: dict[tuple[str, int, int], None] = {}
    for recorded in reader.log():
        cause = recorded.event.cause
        if cause.offset is not None:
            seen.setdefault((cause.source, cause.partition or 0, cause.offset))
    return list(seen)


def assert_replayable(path: Path) -> None:
    """The log is what its records give when nothing disturbs them, byte for byte."""
    assert [] == replay_ledger(path).differences


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
