"""The worker: every record of the topics leaves its mark in the log exactly once; what cannot be read stops it."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any, Final

import pytest
from kafka import KafkaProducer, TopicPartition

from infra.embedded import LedgerReader
from infra.streams.cluster import Cluster
from infra.streams.intake import Intake
from infra.streams.topics import ACCOUNTS, CONTROL, PRICES, ensure_topics, full_name
from infra.venue import SimulatedVenue
from ledger.amounts import rfc3339
from ledger.events import ClockMoved, Deposited, MarginCallExpired, RecordRejected
from tests.chaos.test_kill import mixed_records, record
from tests.streams.clients import send
from tests.streams.service import assert_exactly_once, running, send_records, wait_until, wait_until_read, worker

SEED: Final = 20190926
BASICS: Final = (
    record("asset", "usd", 0, asset="USD", quantum="0.01"),
    record("instrument", "i", 0, instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
           tick_size="0.01", lot_size="0.001"),
    record("account", "a", 0, account="A", margin_mode="cross"))


@pytest.fixture
def cluster(bootstrap: str, prefix: str) -> Cluster:
    ensure_topics(Cluster(bootstrap, prefix), shards=1)
    return Cluster(bootstrap, prefix)


def intake(cluster: Cluster, path: Path, **more: Any) -> Intake:
    return Intake(cluster, path / "ledger.db", venue=SimulatedVenue(), session_seconds=2, **more)


def events(path: Path, kind: type[Any]) -> list[Any]:
    if not (path / "ledger.db").exists():
        return []
    with LedgerReader(path / "ledger.db") as reader:
        return [recorded.event for recorded in reader.log() if isinstance(recorded.event, kind)]


def test_records_of_all_topics_reach_the_log_and_the_command_ends_in_order(cluster: Cluster, tmp_path: Path) -> None:
    send_records(cluster, mixed_records(SEED)[:600])
    with worker(cluster, tmp_path / "ledger.db", tmp_path / "log") as child:
        wait_until_read(cluster, [tmp_path / "ledger.db"])
        child.send_signal(signal.SIGTERM)

        assert 0 == child.wait(10), (tmp_path / "log").read_text()
    assert_exactly_once(cluster, tmp_path / "ledger.db")


def test_a_worker_goes_on_where_the_last_one_stopped(cluster: Cluster, tmp_path: Path) -> None:
    lines = mixed_records(SEED)[:300]
    for part in (lines[:150], lines[150:]):
        send_records(cluster, part)
        with running(intake(cluster, tmp_path)):
            wait_until_read(cluster, [tmp_path / "ledger.db"])

    assert_exactly_once(cluster, tmp_path / "ledger.db")


POISON: Final[dict[str, tuple[bytes | None, str | None]]] = {
    "no value": (None, "malformed"),
    "nothing": (b"", "malformed"),
    "no JSON": (b"{", "malformed"),
    "no text": (b"\xff\xfe\x80", "malformed"),
    "a list": (b"[]", "malformed"),
    "deep nesting": (b"[" * 50_000, "malformed"),
    "a number for an amount": (record("deposit", "n", 1, account="A", asset="USD").encode()[:-1] + b',"amount":1}',
                               "malformed"),
    "a key twice": (b'{"type":"clock","type":"clock","id":"k","time":"2019-09-24T00:00:00Z"}', "malformed"),
    "a type of nobody": (record("gift", "g", 1).encode(), "unknown-type"),
    "an account of nobody": (record("deposit", "x", 1, account="B", asset="USD", amount="1").encode(),
                             "unknown-account"),
    "more than a record may have": (b'{"type":"clock","pad":"' + b"x" * 70_000 + b'"}', "too-large"),
    "a spent id with other content": (record("deposit", "good", 1, account="A", asset="USD", amount="2").encode(),
                                      "conflict"),
    "framed by a registry": (b"\0\0\0\0\1" + record("deposit", "f5", 1, account="A", asset="USD", amount="1").encode(),
                             None),
    "framed by a newer registry": (
        b"\1" + bytes(16) + record("deposit", "f17", 1, account="A", asset="USD", amount="1").encode(), None),
    "a structured CloudEvent": (
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":'
        + record("deposit", "ce", 1, account="A", asset="USD", amount="1").encode() + b"}", None),
}


def test_poison_is_recorded_and_the_stream_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    send(cluster.bootstrap, full_name(cluster, CONTROL), [line.encode() for line in BASICS[:2]])
    good = record("deposit", "good", 1, account="A", asset="USD", amount="1").encode()
    last = record("deposit", "last", 1, account="A", asset="USD", amount="1").encode()
    values = [BASICS[2].encode(), good, *(value for value, _ in POISON.values()), last]
    with running(intake(cluster, tmp_path)):
        wait_until((tmp_path / "ledger.db").exists, "a ledger")
        wait_until_read(cluster, [tmp_path / "ledger.db"])
        send(cluster.bootstrap, full_name(cluster, ACCOUNTS), values, key=b"A")
        wait_until_read(cluster, [tmp_path / "ledger.db"])

    rejected = {event.cause.offset: event.reason for event in events(tmp_path, RecordRejected)}
    deposits = {event.cause.offset for event in events(tmp_path, Deposited)}
    for offset, (name, (_, reason)) in enumerate(POISON.items(), 2):
        assert reason == rejected.get(offset), name
        assert (reason is None) == (offset in deposits), name
    assert len(values) - 1 in deposits
    assert_exactly_once(cluster, tmp_path / "ledger.db")


def test_a_record_ahead_of_the_wall_clock_is_rejected_at_intake(cluster: Cluster, tmp_path: Path) -> None:
    ahead = rfc3339(time.time_ns() + 600 * 10**9)
    line = json.dumps({"type": "clock", "id": "c", "time": ahead})
    send(cluster.bootstrap, full_name(cluster, CONTROL), [line.encode()])
    with running(intake(cluster, tmp_path, future_tolerance=300)):
        wait_until_read(cluster, [tmp_path / "ledger.db"])

    assert ["time-ahead"] == [event.reason for event in events(tmp_path, RecordRejected)]
    assert_exactly_once(cluster, tmp_path / "ledger.db")


def test_on_a_quiet_stream_deadlines_pass_by_the_wall_clock_and_not_ahead_of_it(cluster: Cluster,
                                                                              tmp_path: Path) -> None:
    lines = [*BASICS, record("price", "p", 0, instrument="BTC-USD", price="10000", source="x"),
             record("deposit", "d", 0, account="A", asset="USD", amount="1000"),
             record("fill", "f", 0, account="A", trade_id="t", instrument="BTC-USD", side="buy", size="1",
                    price="10000"),
             record("price", "q", 1, instrument="BTC-USD", price="9105", source="x")]
    # All at once: where nothing more comes, the worker lets time pass, and a day of 2019 is over.
    send_records(cluster, lines)
    with running(intake(cluster, tmp_path)):
        wait_until(lambda: bool(events(tmp_path, MarginCallExpired)), "the deadline to pass")

    assert all(event.time <= time.time_ns() for event in events(tmp_path, ClockMoved))
    assert {"clock"} == {event.cause.source for event in events(tmp_path, MarginCallExpired)}
    assert_exactly_once(cluster, tmp_path / "ledger.db")


def test_a_broken_feed_stops_the_worker_after_recording_what_came(cluster: Cluster, tmp_path: Path) -> None:
    send(cluster.bootstrap, full_name(cluster, ACCOUNTS), [b"{"] * 60)
    with running(intake(cluster, tmp_path, breaker=50, batch=10)) as found:
        assert "50 of the last 50 records were rejected" in found.wait_for_fault()

    assert 50 == len(events(tmp_path, RecordRejected))
    with running(intake(cluster, tmp_path, breaker=0)):
        wait_until_read(cluster, [tmp_path / "ledger.db"])
    assert_exactly_once(cluster, tmp_path / "ledger.db")


def test_records_that_retention_took_stop_the_worker(cluster: Cluster, tmp_path: Path) -> None:
    send_records(cluster, BASICS)
    with running(intake(cluster, tmp_path)):
        wait_until_read(cluster, [tmp_path / "ledger.db"])
    send(cluster.bootstrap, full_name(cluster, PRICES), [b"{"] * 20)
    with cluster.admin() as admin:
        admin.delete_records({TopicPartition(full_name(cluster, PRICES), 0): 10})

    with running(intake(cluster, tmp_path)) as found:
        said = found.wait_for_fault()
    assert f"{full_name(cluster, PRICES)}[0]: expected offset 0, the cluster has 10 to 20" in said
    assert "retention has taken" in said


def test_a_new_ledger_is_not_begun_in_the_middle_of_its_records(cluster: Cluster, tmp_path: Path) -> None:
    send(cluster.bootstrap, full_name(cluster, ACCOUNTS), [b"{"] * 20)
    with cluster.admin() as admin:
        admin.delete_records({TopicPartition(full_name(cluster, ACCOUNTS), 0): 10})

    with running(intake(cluster, tmp_path)) as found:
        assert "expected its records from offset 0, the cluster has those from 10" in found.wait_for_fault()


@pytest.mark.parametrize("meanwhile", [True, False], ids=["under a worker", "while no worker ran"])
def test_a_topic_made_anew_stops_the_worker(meanwhile: bool, cluster: Cluster, tmp_path: Path) -> None:
    send_records(cluster, BASICS)
    name = full_name(cluster, CONTROL)

    def make_anew() -> None:
        with cluster.admin() as admin:
            admin.delete_topics([name])
            wait_until(lambda: admin.describe_topics([name])[0]["error_code"] == 3, "the topic to go")
        wait_until(lambda: remade(cluster), "the topic to be made anew")

    with running(intake(cluster, tmp_path)) as found:
        wait_until_read(cluster, [tmp_path / "ledger.db"])
        if meanwhile:
            make_anew()
            assert name in found.wait_for_fault()
    if not meanwhile:
        make_anew()
    with running(intake(cluster, tmp_path)) as found:
        assert "it was made anew" in found.wait_for_fault()
    assert_replayed_to(tmp_path, 3)


def remade(cluster: Cluster) -> bool:
    return all(not state.differences for state in ensure_topics(cluster, shards=1))


def assert_replayed_to(path: Path, count: int) -> None:
    with LedgerReader(path / "ledger.db") as reader:
        assert count <= reader.end()


def test_transactions_upstream_are_read_when_they_are_committed_and_never_when_aborted(cluster: Cluster,
                                                                                     tmp_path: Path) -> None:
    producer = KafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=f"{cluster.prefix}up")
    producer.init_transactions()
    send_records(cluster, BASICS)
    with running(intake(cluster, tmp_path)) as found:
        for number in range(6):
            producer.begin_transaction()
            line = record("deposit", f"d{number}", 1, account="A", asset="USD", amount="1")
            producer.send(full_name(cluster, ACCOUNTS), line.encode(), key=b"A")
            if number % 2:
                producer.abort_transaction()
            else:
                producer.commit_transaction()
        send_records(cluster, [record("deposit", "last", 1, account="A", asset="USD", amount="1")])
        wait_until(lambda: any(event.cause.id == "last" for event in events(tmp_path, Deposited)), "the last deposit")
        assert found.fault is None
    producer.close()

    assert ["d0", "d2", "d4", "last"] == [event.cause.id for event in events(tmp_path, Deposited)]
