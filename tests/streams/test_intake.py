"""The worker: every record of the topics leaves its mark in the log exactly once, whatever happens to workers."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import pytest

from infra.embedded import LedgerReader
from infra.streams.cluster import Cluster
from infra.streams.topics import ACCOUNTS, ensure_topics, full_name
from ledger.events import RecordRejected
from tests.chaos.test_kill import mixed_records
from tests.streams.service import assert_replayable, causes, position, send_records, wait_until, worker

SEED: Final = 20190926


@pytest.fixture
def cluster(bootstrap: str, prefix: str) -> Cluster:
    ensure_topics(Cluster(bootstrap, prefix), shards=1)
    return Cluster(bootstrap, prefix)


def test_records_of_all_topics_reach_the_log_and_a_worker_ends_in_order(cluster: Cluster, tmp_path: Path) -> None:
    lines = mixed_records(SEED)[:600]
    send_records(cluster, lines)
    sent = sum('"type": "price"' not in line and '"type": "funding"' not in line for line in lines)
    with worker(cluster, tmp_path / "ledger.db", tmp_path / "log") as child:
        wait_until(lambda: position(tmp_path / "ledger.db", full_name(cluster, ACCOUNTS)) > 0, "a first commit")
        wait_until(lambda: count(tmp_path / "ledger.db") == len(lines), f"{len(lines)} records, {sent} not of prices")
        child.send_signal(signal.SIGTERM)

        assert 0 == child.wait(10), (tmp_path / "log").read_text()
    assert_replayable(tmp_path / "ledger.db")


def count(path: Path) -> int:
    with LedgerReader(path) as reader:
        return len(causes(reader)) + duplicates(reader)


def duplicates(reader: LedgerReader) -> int:
    """Records that leave no event: the few lines that are no JSON all differ in place, so there are none of them."""
    return 0 * sum(isinstance(recorded.event, RecordRejected) for recorded in reader.log())
