"""The streaming service on a real broker: records in, events out, a tick to its margin call, a worker to its successor.

Workers are processes of their own over ledger files; clocks start when records stand in Kafka. Beside the rate stands
the same records' from a file, in the same run. It never measures the broker's own start.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from infra.deploy.broker import a_broker
from infra.embedded import LedgerReader, open_ledger
from infra.streams.messages import messages
from infra.streams.topics import ACCOUNTS, CONTROL, MARGIN_CALLS, PRICES, ensure
from infra.streams.worker import SESSION_MS
from ledger.amounts import exact
from ledger.errors import LedgerUnreadable
from ledger.states import States
from tests.benchmarks.figures import Sample
from tests.benchmarks.machine import percentile
from tests.benchmarks.mix import Mix
from tests.benchmarks.stage import Stage

ACCOUNTS_OF_MIX = 500
RECORDS = 10_000
CALLED = 150
WAIT_SECONDS = 120.0
_CONTROL = {"rulebook", "asset", "instrument", "fund-movement", "clock"}
_PRICES = {"price", "funding"}


@cache
def _bootstrap() -> str:
    """One broker for all figures of a run; it ends with the process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(a_broker())


@contextmanager
def _service(partitions: int) -> Iterator[tuple[str, Any]]:
    """(prefix, producer) of topics of their own."""
    from kafka import KafkaAdminClient, KafkaProducer

    prefix = f"b{uuid.uuid4().hex[:8]}."
    admin = KafkaAdminClient(bootstrap_servers=_bootstrap())
    ensure(admin, prefix, partitions)
    producer = KafkaProducer(bootstrap_servers=_bootstrap(), linger_ms=0)
    try:
        yield prefix, producer
    finally:
        producer.close()
        admin.close()


@contextmanager
def _worker(prefix: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "worker", "--bootstrap", _bootstrap(), "--prefix", prefix, "--ledger",
         str(folder / "desk-{shard}.db"), "--group", prefix], stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _send(producer: Any, prefix: str, raw: bytes) -> None:
    record = json.loads(raw)
    kind = record["type"]
    topic = CONTROL if kind in _CONTROL else PRICES if kind in _PRICES else ACCOUNTS
    producer.send(prefix + topic, raw, key=str(record.get("account") or record.get("instrument") or kind).encode())


def _read(folder: Path, partitions: int) -> int:
    """Offsets of the accounts' partitions that the ledgers have moved over."""
    total = 0
    for shard in range(partitions):
        try:
            with LedgerReader(folder / f"desk-{shard}.db") as reader:
                total += int(reader.ask("SELECT COALESCE(SUM(next_offset), 0) FROM stream_position "
                                        "WHERE source LIKE '%accounts.v1'")[0][0])
        except LedgerUnreadable:
            continue
    return total


def stream_records(stage: Stage, partitions: int) -> Sample:
    """Records of accounts a second from Kafka to durable events, over so many shards, each in a worker of its own."""
    mix = Mix(ACCOUNTS_OF_MIX)
    records = [*mix.opening(), *mix.take(RECORDS)]
    wanted = sum(b'"account":' in raw for raw in records)
    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    with _service(partitions) as (prefix, producer):
        stage.tell(f"sending {len(records):,} records")
        for raw in records:
            _send(producer, prefix, raw)
        producer.flush()
        stage.tell(f"workers over {partitions} partitions")
        with _worker(prefix, folder), _more(partitions - 1, prefix, folder):
            first = _until(folder, partitions, wanted // 5)
            started = time.perf_counter()
            done = _until(folder, partitions, wanted)
            rate = (done - first) / (time.perf_counter() - started)
    shutil.rmtree(folder, ignore_errors=True)
    return Sample(rate, {"the same from a file, one writer": _from_file(stage, records)},
                  {"records": wanted, "partitions": partitions})


@contextmanager
def _more(count: int, prefix: str, folder: Path) -> Iterator[None]:
    if not count:
        yield
        return
    with _worker(prefix, folder), _more(count - 1, prefix, folder):
        yield


def _until(folder: Path, partitions: int, count: int) -> int:
    deadline = time.monotonic() + WAIT_SECONDS
    while (read := _read(folder, partitions)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"expected {count} records within {WAIT_SECONDS} s, came {read}")
        time.sleep(0.05)
    return read


def _from_file(stage: Stage, records: list[bytes]) -> float:
    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    with open_ledger(folder / "file.db") as shard:
        started = time.perf_counter()
        for _ in shard.ingest(stage.deliver(records)):
            pass
        seconds = time.perf_counter() - started
    shutil.rmtree(folder, ignore_errors=True)
    return len(records) / seconds


def relay_events(stage: Stage) -> Sample:
    """Events of a log a second that go out in transactions; beside it the same messages sent without any."""
    from kafka import KafkaProducer

    from infra.streams.outflow import Relay

    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    mix = Mix(ACCOUNTS_OF_MIX)
    stage.tell("making a log")
    with open_ledger(folder / "file.db") as shard:
        for _ in shard.ingest(stage.deliver([*mix.opening(), *mix.take(RECORDS)])):
            pass
    with _service(1) as (prefix, _), LedgerReader(folder / "file.db") as reader:
        end = reader.end()
        relay = Relay(reader, _bootstrap(), shard="shard-0", prefix=prefix)
        relay.open()
        stage.tell(f"relaying {end:,} events")
        started = time.perf_counter()
        while relay.position < end:
            relay.step()
        rate = end / (time.perf_counter() - started)
        sent = relay.sent
        relay.close()
        found = list(_messages(reader))
        producer = KafkaProducer(bootstrap_servers=_bootstrap(), linger_ms=5, batch_size=131_072)
        started = time.perf_counter()
        for topic, key, value, headers in found:
            producer.send(prefix + topic, value, key=key.encode(), headers=headers)
        producer.flush()
        plainly = end / (time.perf_counter() - started)
        producer.close()
    shutil.rmtree(folder, ignore_errors=True)
    return Sample(rate, {"the same messages, made before and sent without transactions": plainly},
                  {"events": end, "messages": sent})


def _messages(reader: LedgerReader) -> Iterator[tuple[str, str, bytes, list[tuple[str, bytes]]]]:
    states = States()
    with exact():
        for recorded in reader.log():
            states.fold(recorded)
            kind, _, account = recorded.originator_id.partition(":")
            for message in messages(recorded, "shard-0", states.accounts.get(account) if kind == "account" else None):
                yield message.topic, message.key, message.value, message.headers


def takeover(stage: Stage) -> Sample:
    """Seconds from SIGKILL of a worker to the first event that its successor commits; prices never pause."""
    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    stopped = threading.Event()
    with _service(1) as (prefix, producer), _worker(prefix, folder) as first, _worker(prefix, folder) as second:
        for raw in _opening():
            _send(producer, prefix, raw)
        producer.flush()
        _until(folder, 1, 3 * CALLED)

        def tick() -> None:
            number = 0
            while not stopped.wait(0.02):
                number += 1
                _send(producer, prefix, _record("price", f"tick-{number}", instrument="BTC-USD", source="feed",
                                                price=f"{10_000 + number % 7}"))

        ticking = threading.Thread(target=tick)
        ticking.start()
        try:
            # Both have joined by then, and the group has settled.
            time.sleep(8)
            stage.tell("killing the worker that owns the shard")
            with LedgerReader(folder / "desk-0.db") as reader:
                owner = reader.owner() or ""
                victim = first if f"process {first.pid} " in owner else second
                started = time.perf_counter()
                victim.kill()
                victim.wait()
                before, deadline = reader.end(), started + WAIT_SECONDS
                while reader.end() <= before:
                    if time.perf_counter() > deadline:
                        raise RuntimeError(f"expected a successor within {WAIT_SECONDS} s")
                    time.sleep(0.01)
                seconds = time.perf_counter() - started
        finally:
            stopped.set()
            ticking.join()
    shutil.rmtree(folder, ignore_errors=True)
    return Sample(seconds, {"the session of a worker, after which its group gives it up": SESSION_MS / 1_000})


def tick_to_call(stage: Stage, share: int) -> Sample:
    """Seconds from a price handed to Kafka to its margin call read as committed; a percentile of the calls."""
    from kafka import KafkaConsumer, TopicPartition

    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    sent: dict[str, float] = {}
    took: dict[str, float] = {}
    with _service(1) as (prefix, producer), _worker(prefix, folder):
        for raw in _opening():
            _send(producer, prefix, raw)
        producer.flush()
        _until(folder, 1, 3 * CALLED)
        consumer = KafkaConsumer(bootstrap_servers=_bootstrap(), isolation_level="read_committed",
                                 enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=5)
        place = TopicPartition(prefix + MARGIN_CALLS, 0)
        consumer.assign([place])
        stopped = threading.Event()

        def listen() -> None:
            while not stopped.is_set():
                for rows in consumer.poll(timeout_ms=20).values():
                    now = time.perf_counter()
                    for row in rows:
                        took.setdefault(json.loads(row.value)["account"], now)

        listener = threading.Thread(target=listen)
        listener.start()
        stage.tell(f"{CALLED} ticks, each calls one account")
        for number in range(CALLED):
            # The line of account n: 10 x (mark - 10,000) + deposit = 1.25 x 0.1 x mark.
            sent[f"A{number:03}"] = time.perf_counter()
            _send(producer, prefix, _record("price", f"tick-{number}", instrument="BTC-USD", source="feed",
                                            price=f"{9_950 - number}"))
            time.sleep(0.02)
        time.sleep(2)
        stopped.set()
        listener.join()
        consumer.close()
    shutil.rmtree(folder, ignore_errors=True)
    times = [took[account] - moment for account, moment in sent.items() if account in took]
    if len(times) < CALLED // 2:
        raise RuntimeError(f"expected a call for each of {CALLED} ticks, came {len(times)}")
    return Sample(percentile(times, share), {}, {"calls": len(times), "ticks/s": 50})


def _opening() -> Iterator[bytes]:
    """Accounts that are called one after the other as the mark falls by one a tick."""
    yield _record("asset", "usd", asset="USD", quantum="0.01")
    yield _record("instrument", "btc", instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
                  tick_size="0.01", lot_size="0.001")
    yield _record("price", "start", instrument="BTC-USD", source="feed", price="10000")
    for number in range(CALLED):
        name, mark = f"A{number:03}", 9_950 - number
        # Long 10 at 10,000: below the call line (1.25 x 1 % of notional) from this mark on.
        amount = 10 * (10_000 - mark) + 0.125 * mark - 0.05
        yield _record("account", f"o-{name}", account=name, margin_mode="cross")
        yield _record("deposit", f"d-{name}", account=name, asset="USD", amount=f"{amount:.2f}")
        yield _record("fill", f"f-{name}", account=name, trade_id=f"t-{name}", instrument="BTC-USD", side="buy",
                      size="10", price="10000")


def _record(kind: str, name: str, **fields: str) -> bytes:
    return json.dumps({"type": kind, "id": name, "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **fields}).encode()
