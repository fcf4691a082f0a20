"""The whole service on a real broker: in, through the ledger, and out again, while everything is killed.

Whoever reads what is committed sees each output once and in order; each input is in the log once; the log is that of
an undisturbed run over the order that it recorded.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from infra.deploy.broker import Broker
from infra.streams.cluster import Cluster
from infra.streams.outflow import relay_name
from infra.streams.topics import ensure_topics
from tests.chaos.test_kill import mixed_records
from tests.streams.service import (
    assert_all_told_once,
    assert_exactly_once,
    positions,
    relay,
    send_records,
    wait_until,
    wait_until_read,
    worker,
)

SEED: Final = 20190927
PARTS: Final = 10


@pytest.fixture
def cluster(bootstrap: str, prefix: str) -> Cluster:
    ensure_topics(Cluster(bootstrap, prefix), shards=1)
    return Cluster(bootstrap, prefix)


def parts(lines: list[str], count: int = PARTS) -> list[list[str]]:
    size = -(-len(lines) // count)
    return [lines[start:start + size] for start in range(0, len(lines), size)]


def wait_until_told(cluster: Cluster, path: Path, shard: int = 0, seconds: float = 60) -> None:
    """Wait until the relay has told all that the log says; the worker must have stopped."""
    from kafka import KafkaConsumer, TopicPartition

    from infra.embedded import open_reader

    with open_reader(path) as reader:
        end = reader.end()
    consumer = KafkaConsumer(bootstrap_servers=cluster.bootstrap, group_id=relay_name(cluster, shard),
                             isolation_level="read_committed", enable_auto_commit=False)
    place = TopicPartition(f"{cluster.prefix}margin-calls.v1", shard)
    try:
        wait_until(lambda: consumer.committed(place, timeout_ms=20_000) == end, f"the relay to reach {end}", seconds)
    finally:
        consumer.close()


def test_workers_and_relays_killed_at_random_moments_lose_and_double_nothing(cluster: Cluster, tmp_path: Path) -> None:
    dice, ledger, log = random.Random(SEED), tmp_path / "ledger.db", tmp_path / "log"
    lines = parts(mixed_records(SEED))
    send_records(cluster, lines[0])
    with worker(cluster, ledger, log):
        wait_until(lambda: bool(positions(ledger)), "a ledger")
    killed = 0
    for part in lines[1:-1]:
        with worker(cluster, ledger, log, "--batch", str(dice.choice([1, 20, 200]))) as one, relay(
                cluster, ledger, log) as other:
            send_records(cluster, part)
            time.sleep(dice.uniform(0.8, 2.5))
            killed += (one.poll() is None) + (other.poll() is None)
    assert killed >= PARTS

    send_records(cluster, lines[-1])
    with relay(cluster, ledger, log) as other:
        with worker(cluster, ledger, log) as one:
            wait_until_read(cluster, [ledger])
            one.send_signal(signal.SIGTERM)
            assert 0 == one.wait(10), log.read_text()
        wait_until_told(cluster, ledger)
        other.send_signal(signal.SIGTERM)
        assert 0 == other.wait(10), log.read_text()

    assert_exactly_once(cluster, ledger)
    assert_all_told_once(ledger, cluster)


def test_a_broker_killed_or_frozen_for_a_while_is_waited_for(own_broker: Broker, prefix: str, tmp_path: Path) -> None:
    cluster, ledger, log = Cluster(own_broker.bootstrap, prefix), tmp_path / "ledger.db", tmp_path / "log"
    ensure_topics(cluster, shards=1)
    lines = parts(mixed_records(SEED + 1)[:900], 3)
    with worker(cluster, ledger, log) as one:
        send_records(cluster, lines[0])
        wait_until_read(cluster, [ledger])
        with relay(cluster, ledger, log) as other:
            own_broker.kill()
            time.sleep(2)
            own_broker.start()
            send_records(cluster, lines[1])
            own_broker.freeze()
            time.sleep(4)
            own_broker.thaw()
            send_records(cluster, lines[2])
            wait_until_read(cluster, [ledger])
            one.send_signal(signal.SIGTERM)
            assert 0 == one.wait(10), log.read_text()
            other.kill()
    with relay(cluster, ledger, log):
        wait_until_told(cluster, ledger)

    assert_exactly_once(cluster, ledger)
    assert_all_told_once(ledger, cluster)
