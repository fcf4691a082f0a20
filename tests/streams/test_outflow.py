"""The relay: every event that is to be told is read exactly once and in order, whatever happens to relays."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from infra.embedded import LedgerReader, open_ledger
from infra.streams.cluster import Cluster
from infra.streams.outflow import Relay, RelayFault
from infra.streams.records import read_lines
from infra.streams.topics import ACCOUNT_STATE, TOPICS, ensure_topics
from infra.venue import SimulatedVenue
from ledger.amounts import exact, plain
from ledger.clearing_house import ClearingHouse
from tests.chaos.test_kill import mixed_records
from tests.streams.service import assert_all_told_once, expected, published

SEED: Final = 20190925
RECORDS: Final = 1_200


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    path.write_text("\n".join(mixed_records(SEED)[:RECORDS]) + "\n")
    return path


@pytest.fixture(scope="module")
def ledger(records: Path) -> Path:
    """A ledger of some thousands of events, with calls and liquidations."""
    path = records.parent / "ledger.db"
    ingest(path, records)
    return path


@pytest.fixture
def copy(ledger: Path, tmp_path: Path) -> Path:
    """The same ledger in a file that one test has to itself."""
    target = sqlite3.connect(tmp_path / "ledger.db")
    source = sqlite3.connect(ledger)
    source.backup(target)
    source.close()
    target.close()
    return tmp_path / "ledger.db"


@pytest.fixture
def cluster(bootstrap: str, prefix: str) -> Cluster:
    ensure_topics(Cluster(bootstrap, prefix), shards=1)
    return Cluster(bootstrap, prefix)


def ingest(path: Path, records: Path, until: int | None = None) -> None:
    with open_ledger(path, venue=SimulatedVenue()) as shard, records.open("rb") as stream:
        for count, _ in enumerate(shard.ingest(read_lines("records", stream), batch_size=50), 1):
            if count == until:
                break


def relay_to_the_end(path: Path, cluster: Cluster) -> Relay:
    with LedgerReader(path) as reader:
        relay = Relay(cluster, reader, 0)
        relay.start()
        while relay.step():
            pass
        relay.run(stopped=lambda: True)
        relay.close()
    return relay


def test_what_the_log_says_is_told_once_and_in_order(copy: Path, cluster: Cluster) -> None:
    relay = relay_to_the_end(copy, cluster)

    assert_all_told_once(copy, cluster)
    told = expected(copy, cluster)
    assert all(told[topic] for topic in TOPICS if topic.direction == "out")
    assert relay.messages == sum(map(len, told.values()))

    again = relay_to_the_end(copy, cluster)

    assert (0, relay.position) == (again.messages, again.position)
    assert_all_told_once(copy, cluster)


def test_the_state_told_last_is_the_account_as_the_ledger_has_it(copy: Path, cluster: Cluster) -> None:
    relay_to_the_end(copy, cluster)
    last = {record.key.decode(): json.loads(record.value)
            for record in published(cluster, ACCOUNT_STATE)}

    house = ClearingHouse()
    with LedgerReader(copy) as reader, exact():
        house.load(reader.log())
    assert set(house.accounts) == set(last)
    for name, state in house.accounts.items():
        told = {pool["pool"]: pool["balances"] for pool in last[name]["pools"]}
        assert {pool: {asset: plain(amount) for asset, amount in held.items()}
                for pool, held in state.balances.items()} == {pool: told[pool] for pool in state.balances}
        assert len(state.positions) == sum(len(pool["positions"]) for pool in last[name]["pools"])


CHILD: Final = """
import sys
from infra.embedded import LedgerReader
from infra.streams import outflow
from infra.streams.cluster import Cluster
outflow.MESSAGES_MAX = outflow.PAGE = 40
with LedgerReader(sys.argv[1]) as reader:
    relay = outflow.Relay(Cluster(sys.argv[2], sys.argv[3]), reader, 0)
    try:
        relay.start()
        print("started", flush=True)
        while relay.step():
            pass
        relay.run(stopped=lambda: True)
    except outflow.RelayFault as fault:
        print("fenced" if fault.fenced else f"fault {fault}", flush=True)
        sys.exit(3)
print("done", flush=True)
"""


KILLS: Final = 5


def relay_process(path: Path, cluster: Cluster) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", CHILD, str(path), cluster.bootstrap,
                              cluster.prefix], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert "started" == child.stdout.readline().strip()
    return child


def test_killed_and_frozen_relays_tell_everything_once(copy: Path, cluster: Cluster) -> None:
    dice, frozen, stopped = random.Random(SEED), list[subprocess.Popen[str]](), 0
    try:
        for number in range(KILLS):
            child = relay_process(copy, cluster)
            time.sleep(dice.uniform(0.05, 0.6))
            stopped += child.poll() is None
            if number in (1, 3):
                child.send_signal(signal.SIGSTOP)
                frozen.append(child)
            else:
                child.kill()
                child.communicate()
        last = relay_process(copy, cluster)
        assert "done" == last.communicate(timeout=60)[0].strip()
        for child in frozen:
            child.send_signal(signal.SIGCONT)
        answers = [child.communicate(timeout=60)[0].strip() for child in frozen]
    finally:
        for child in frozen:
            child.kill()

    assert stopped >= 3
    assert {"fenced"} == set(answers)
    assert_all_told_once(copy, cluster)


def test_of_two_relays_the_later_one_stays(copy: Path, cluster: Cluster) -> None:
    with LedgerReader(copy) as one, LedgerReader(copy) as other:
        first, second = Relay(cluster, one, 0), Relay(cluster, other, 0)
        first.start()
        first.step()
        second.start()

        with pytest.raises(RelayFault, match="another relay took over") as fault:
            first.step()
            first.position -= 1
            first.run(stopped=lambda: True)
        assert fault.value.fenced
        while second.step():
            pass
        second.close()
        first.close()
    assert_all_told_once(copy, cluster)


def test_a_log_older_than_what_was_published_is_refused(copy: Path, cluster: Cluster, records: Path,
                                                        tmp_path: Path) -> None:
    relay_to_the_end(copy, cluster)
    ingest(tmp_path / "older.db", records, until=500)

    with pytest.raises(RelayFault, match="restored from an older backup"):
        relay_to_the_end(tmp_path / "older.db", cluster)


def test_a_log_that_went_another_way_is_refused(copy: Path, cluster: Cluster, tmp_path: Path) -> None:
    relay_to_the_end(copy, cluster)
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(mixed_records(SEED + 1)[:RECORDS]) + "\n")
    ingest(tmp_path / "other.db", other)
    with LedgerReader(copy) as reader:
        more = tmp_path / "more.jsonl"
        more.write_text("\n".join(f'{{"type":"clock","id":"x{n}","time":"2019-09-25T00:00:00Z"}}'
                                  for n in range(reader.end())))
    ingest(tmp_path / "other.db", more)

    with pytest.raises(RelayFault, match="went another way"):
        relay_to_the_end(tmp_path / "other.db", cluster)


def test_a_position_that_the_cluster_lost_stops_the_relay_until_it_is_reset(copy: Path, cluster: Cluster) -> None:
    relay = relay_to_the_end(copy, cluster)
    deadline = time.monotonic() + 10
    with cluster.admin() as admin:
        while True:
            try:
                admin.delete_groups([relay.name])
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    with pytest.raises(RelayFault, match=f"clearing relay --reset {relay.position}"):
        relay_to_the_end(copy, cluster)
    with LedgerReader(copy) as reader:
        Relay(cluster, reader, 0).reset(relay.position)
    relay_to_the_end(copy, cluster)

    assert_all_told_once(copy, cluster)
