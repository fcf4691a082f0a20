"""What the cluster and those before us may do to the service: each is met, or stops it with a sentence."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from infra.deploy.broker import own_broker
from infra.embedded import LedgerReader, open_ledger
from infra.replay import replay_ledger
from infra.streams.intake import Intake, IntakeStopped
from infra.streams.outflow import Relay, RelayStopped
from infra.streams.topics import ACCOUNTS, CONTROL, PRICES, ensure
from infra.streams.worker import Worker
from ledger.errors import LedgerUnreadable
from ledger.events import Deposited, MarginCallExpired, MarginCallIssued
from tests.streams.clients import Cluster, wait_until
from tests.streams.test_service import (
    opening,
    record,
    require_published_exactly,
    stream,
    wait_for_quiet,
    worker,
)


def dated(row: dict[str, Any], ago: timedelta) -> dict[str, Any]:
    return {**row, "time": f"{datetime.now(UTC) - ago:%Y-%m-%dT%H:%M:%SZ}"}


@contextmanager
def intake(cluster: Cluster, path: Path) -> Iterator[Intake]:
    """One shard's intake, opened."""
    with open_ledger(path) as shard:
        found = Intake(shard, cluster.bootstrap, partition=0, prefix=cluster.prefix, group="tests")
        try:
            found.open()
            yield found
        finally:
            found.close()


def read_all(cluster: Cluster, path: Path) -> None:
    """Everything that was sent is applied."""
    with intake(cluster, path) as found:
        while any(found.lags().values()):
            found.step()


def events(path: Path, *kinds: type[Any]) -> list[Any]:
    # A file that is being made is no ledger yet.
    with suppress(LedgerUnreadable), LedgerReader(path) as reader:
        return [recorded.event for recorded in reader.log() if isinstance(recorded.event, kinds)]
    return []


@contextmanager
def running(cluster: Cluster, path: Path) -> Iterator[list[Exception]]:
    """A worker in a thread; what ended it, if something did."""
    stopping, faults = threading.Event(), list[Exception]()
    made = Worker(cluster.bootstrap, lambda _: open_ledger(path), prefix=cluster.prefix)

    def run() -> None:
        try:
            made.run(stopping.is_set)
        except Exception as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield faults
    finally:
        stopping.set()
        thread.join(30)


def end_of(path: Path) -> int:
    return len(events(path, object))


# --- time --------------------------------------------------------------------------------------------------------


def test_deadlines_pass_while_prices_never_pause(cluster: Cluster, tmp_path: Path) -> None:
    """A live market leaves no quiet moment; a call's deadline passes by the wall clock all the same."""
    path, ago = tmp_path / "ledger.db", timedelta(hours=2)
    cluster.send_all(dated(row, ago) for row in opening())
    cluster.send_all([dated(record("price", "p2", instrument="BTC-USD", price="9000", source="feed"), ago)])
    stopping = threading.Event()

    def tick() -> None:
        number = 0
        while not stopping.wait(0.02):
            number += 1
            cluster.send(record("price", f"q{number}", instrument="BTC-USD", price="9000", source="other"))

    ticking = threading.Thread(target=tick)
    with intake(cluster, path) as found:
        ticking.start()
        try:
            deadline = time.monotonic() + 20
            while not events(path, MarginCallExpired):
                assert time.monotonic() < deadline, "the deadline never passed"
                for _ in range(20):
                    found.step()
        finally:
            stopping.set()
            ticking.join()

    assert 1 == len(events(path, MarginCallIssued))
    assert ["clock"] == [event.cause.source for event in events(path, MarginCallExpired)]
    assert [] == replay_ledger(path).differences


def test_after_an_outage_records_come_in_the_order_in_which_they_were_sent(cluster: Cluster, tmp_path: Path) -> None:
    """Of two partitions with more than a poll holds, neither runs ahead: prices of noon do not meet cash of ten."""
    path, rounds, each = tmp_path / "ledger.db", 6, 700
    cluster.send_all(opening())
    for number in range(rounds):
        cluster.send_all(record("price", f"p{number}-{n}", instrument="BTC-USD", price="10000", source="feed")
                         for n in range(each))
        time.sleep(0.002)
        cluster.send_all([record("deposit", f"d{number}", account="A", asset="USD", amount="1")])
        time.sleep(0.002)
    read_all(cluster, path)

    with LedgerReader(path) as reader:
        order = [recorded.event.cause.id for recorded in reader.log() if recorded.event.cause.id != recorded.event.cause
                 .source]
    places = {name: at for at, name in enumerate(order)}
    for number in range(rounds):
        assert places[f"p{number}-{each - 1}"] < places[f"d{number}"]
        if number + 1 < rounds:
            assert places[f"d{number}"] < places[f"p{number + 1}-0"]


# --- topics and offsets ------------------------------------------------------------------------------------------


def make_anew(cluster: Cluster, topic: str) -> None:
    name = cluster.prefix + topic
    cluster.admin.delete_topics([name])
    wait_until(lambda: name not in cluster.admin.list_topics(), "the topic is gone")
    ensure(cluster.admin, cluster.prefix, cluster.partitions)


def test_a_topic_made_anew_is_known_though_it_holds_as_many_records(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    cluster.send_all(opening())
    read_all(cluster, path)
    make_anew(cluster, ACCOUNTS)
    cluster.send_all(record("deposit", f"n{number}", account="A", asset="USD", amount="1") for number in range(9))

    with pytest.raises(IntakeStopped, match=rf"{cluster.prefix}{ACCOUNTS}.*made anew"), intake(cluster, path):
        pass
    assert 1 == len(events(path, Deposited))


def test_a_topic_made_anew_under_a_worker_stops_it(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    cluster.send_all(opening())
    with running(cluster, path) as faults:
        wait_until(lambda: end_of(path) >= 6, "the opening is applied")
        make_anew(cluster, CONTROL)
        wait_until(lambda: bool(faults), "the worker stops")

    assert isinstance(faults[0], IntakeStopped)
    assert "made anew" in str(faults[0])


def test_a_new_ledger_does_not_begin_in_the_middle_of_its_accounts(cluster: Cluster, tmp_path: Path) -> None:
    cluster.send_all(opening())
    cluster.admin.delete_records({TopicPartition(cluster.prefix + ACCOUNTS, 0): 2})

    with pytest.raises(IntakeStopped, match="begins at 2"), intake(cluster, tmp_path / "ledger.db"):
        pass


def test_prices_that_retention_took_from_a_new_ledger_are_not_missed(cluster: Cluster, tmp_path: Path) -> None:
    cluster.send_all(opening())
    cluster.admin.delete_records({TopicPartition(cluster.prefix + PRICES, 0): 1})

    read_all(cluster, tmp_path / "ledger.db")
    assert 1 == len(events(tmp_path / "ledger.db", Deposited))


def test_upstream_transactions_are_read_when_committed_and_never_when_aborted(cluster: Cluster,
                                                                            tmp_path: Path) -> None:
    from kafka import KafkaProducer

    path = tmp_path / "ledger.db"
    cluster.send_all(opening())
    producer = KafkaProducer(bootstrap_servers=cluster.bootstrap, transactional_id=f"{cluster.prefix}venue")
    producer.init_transactions()
    for number in range(6):
        producer.begin_transaction()
        producer.send(cluster.prefix + ACCOUNTS, json.dumps(
            record("deposit", f"t{number}", account="A", asset="USD", amount="1")).encode(), key=b"A")
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()
    read_all(cluster, path)

    assert ["d1", "t0", "t2", "t4"] == [event.cause.id for event in events(path, Deposited)]


# --- relays ------------------------------------------------------------------------------------------------------


@contextmanager
def relaying(cluster: Cluster, path: Path) -> Iterator[Relay]:
    with LedgerReader(path) as reader:
        relay = Relay(reader, cluster.bootstrap, shard="shard-0", prefix=cluster.prefix)
        try:
            relay.open()
            yield relay
        finally:
            relay.close()


def relay_all(cluster: Cluster, path: Path) -> None:
    with relaying(cluster, path) as relay:
        while relay.step():
            pass


def test_a_restored_ledger_that_went_another_way_is_not_published_on(cluster: Cluster, tmp_path: Path) -> None:
    """Restored, and then longer again than what was published, but with other events at those positions."""
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    cluster.send_all(opening())
    read_all(cluster, first)
    relay_all(cluster, first)
    with open_ledger(second) as shard:
        from infra.streams.records import Place, read

        rows = [*opening()[:3], record("account", "o2", account="B", margin_mode="cross"), *opening()[3:]]
        shard.apply([read(Place("other", 0, at), json.dumps(row).encode()) for at, row in enumerate(rows)])
        assert shard.house.position >= end_of(first)

    with pytest.raises(RelayStopped, match="went another way"):
        relay_all(cluster, second)
    require_published_exactly(cluster, first)


def test_relays_of_two_services_on_one_cluster_leave_each_other_alone(kafka: str, tmp_path: Path) -> None:
    with Cluster(kafka, f"{tmp_path.name[-8:]}one.", partitions=1) as one, Cluster(
            kafka, f"{tmp_path.name[-8:]}two.", partitions=1) as other:
        for cluster in (one, other):
            cluster.send_all(stream(60))
            read_all(cluster, tmp_path / f"{cluster.prefix}db")
        with relaying(one, tmp_path / f"{one.prefix}db") as first, relaying(
                other, tmp_path / f"{other.prefix}db") as second:
            while first.step() + second.step():
                pass
        for cluster in (one, other):
            require_published_exactly(cluster, tmp_path / f"{cluster.prefix}db")


# --- the broker --------------------------------------------------------------------------------------------------


def test_a_broker_killed_and_frozen_under_the_service_is_waited_for(tmp_path: Path) -> None:
    """No client of this process lives through the outage: each leaves its sockets to the collector, as warnings."""
    rows = stream(300)
    with own_broker() as broker:
        def send(part: list[dict[str, Any]]) -> None:
            with Cluster(broker.bootstrap, "away.", partitions=1) as cluster:
                cluster.send_all(part)

        send(rows[:100])
        cluster = Cluster(broker.bootstrap, "away.", partitions=1)
        process = worker(cluster, tmp_path)
        try:
            wait_for_quiet(cluster, tmp_path, 100)
            broker.kill()
            time.sleep(2)
            broker.start()
            send(rows[100:200])
            broker.freeze()
            time.sleep(3)
            broker.thaw()
            send(rows[200:])
            wait_for_quiet(cluster, tmp_path, len(rows))
            assert 0 == process.stop()
        finally:
            process.kill()
        require_published_exactly(cluster, tmp_path / "desk-0.db")
    assert [] == replay_ledger(tmp_path / "desk-0.db").differences
