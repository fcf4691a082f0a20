"""While a batch is being committed the next one is decided: what is given, what is known, what stands if it ends early.

The store is a file that another connection keeps from being written for as long as a test needs.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventsourcing.persistence import PersistenceError

from infra import shard as shards
from infra.embedded import LedgerReader, open_ledger
from infra.replay import replay_ledger
from infra.shard import Shard
from infra.store.sqlite import connect
from infra.streams.records import Delivered, Place, read
from ledger.errors import BrokenInvariant

BATCH = 4


def fund(number: int, amount: str = "1") -> bytes:
    """A record that leaves one event."""
    return json.dumps({"type": "fund-movement", "id": f"f{number}", "time": "2024-01-02T00:00:00Z", "fund": "insurance",
                       "asset": "USD", "amount": amount, "kind": "contribution"}).encode()


ASSET = json.dumps({"type": "asset", "id": "usd", "time": "2024-01-02T00:00:00Z", "asset": "USD",
                    "quantum": "0.01"}).encode()


def delivered(records: list[bytes]) -> Iterator[Delivered]:
    return (read(Place("f", line=line), raw) for line, raw in enumerate(records, 1))


@pytest.fixture
def shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shard]:
    monkeypatch.setattr(shards, "IN_FLIGHT_MIN", 1)
    with open_ledger(tmp_path / "ledger.db") as opened:
        opened.apply(list(delivered([ASSET])))
        yield opened


@pytest.fixture
def held(tmp_path: Path, shard: Shard) -> Iterator[sqlite3.Connection]:
    """The right to write the file: until it is rolled back, every commit waits."""
    connection = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def test_next_batch_is_decided_while_one_is_committed_and_outcomes_wait_until_it_is(
        shard: Shard, held: sqlite3.Connection) -> None:
    given: list[str] = []

    def let_go_once_decided() -> None:
        while shard.house.position < 1 + 2 * BATCH:
            time.sleep(0.001)
        seen.extend([shard.frontier.size, len(given)])
        held.execute("ROLLBACK")

    seen: list[int] = []
    other = threading.Thread(target=let_go_once_decided)
    other.start()
    for outcome in shard.ingest(delivered([fund(number) for number in range(3 * BATCH)]), batch_size=BATCH):
        assert outcome.position <= shard.frontier.size
        given.append(outcome.kind)
    other.join()

    assert [1, 0] == seen
    assert ["applied"] * 3 * BATCH == given
    assert 1 + 3 * BATCH == shard.frontier.size == shard.house.position


def test_outcomes_of_small_batches_are_given_before_the_next_is_read(
        shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "IN_FLIGHT_MIN", BATCH + 1)
    given: list[int] = []

    def asked() -> Iterator[Delivered]:
        for number, record in enumerate(delivered([fund(number) for number in range(2 * BATCH)])):
            assert number % BATCH or number == len(given)
            yield record

    for outcome in shard.ingest(asked(), batch_size=BATCH):
        given.append(outcome.position)

    assert list(range(2, 2 + 2 * BATCH)) == given


def test_repeats_of_what_is_being_committed_are_duplicates_and_conflicts(
        tmp_path: Path, shard: Shard, held: sqlite3.Connection) -> None:
    repeats = [fund(0), fund(1, "2"), fund(1, "2"), fund(9)]

    def let_go_once_decided() -> None:
        while shard.house.position < 1 + BATCH + 2:  # the conflict and the last record
            time.sleep(0.001)
        held.execute("ROLLBACK")

    other = threading.Thread(target=let_go_once_decided)
    other.start()
    outcomes = list(shard.ingest(delivered([*(fund(number) for number in range(BATCH)), *repeats]), batch_size=BATCH))
    other.join()

    assert ["duplicate", "rejected", "duplicate", "applied"] == [outcome.kind for outcome in outcomes[BATCH:]]
    assert (2, "conflict", outcomes[BATCH + 1].position) == (
        outcomes[BATCH].position, outcomes[BATCH + 1].reason, outcomes[BATCH + 2].position)
    assert [] == replay_ledger(tmp_path / "ledger.db").differences


def test_outcomes_wait_for_their_commit_though_the_next_batch_has_nothing_to_write(
        shard: Shard, held: sqlite3.Connection) -> None:
    """Records of our own code have no place in a source, so that repeats of them move nothing."""
    records = [read(Place("f"), fund(number)) for number in range(BATCH)]
    other = threading.Timer(0.3, held.execute, ["ROLLBACK"])
    other.start()
    for outcome in shard.ingest(records * 3, batch_size=BATCH):
        assert outcome.position <= shard.frontier.size
    other.join()

    assert 1 + BATCH == shard.frontier.size


def test_a_commit_that_fails_gives_no_outcomes_and_stops_the_writer(shard: Shard, tmp_path: Path) -> None:
    def break_the_store(_: object) -> None:
        connection = connect(str(tmp_path / "ledger.db"))
        connection.execute("DROP TABLE merkle_leaves")
        connection.close()

    given = []
    shard.listeners.append(break_the_store)
    with pytest.raises(PersistenceError, match="merkle_leaves"):
        for outcome in shard.ingest(delivered([fund(number) for number in range(3 * BATCH)]), batch_size=BATCH):
            given.append(outcome.position)

    assert [2, 3, 4, 5] == given
    assert 1 + BATCH == shard.frontier.size
    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert 1 + BATCH == reader.end()
    with pytest.raises(BrokenInvariant, match="open the ledger again"):
        shard.apply([])


def test_whoever_stops_early_has_all_that_was_decided_committed(shard: Shard, tmp_path: Path) -> None:
    outcomes = shard.ingest(delivered([fund(number) for number in range(3 * BATCH)]), batch_size=BATCH)
    assert 2 == next(outcomes).position
    outcomes.close()  # type: ignore[attr-defined]

    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert 1 + 2 * BATCH == reader.end() == shard.frontier.size == shard.house.position
    assert ["duplicate"] * BATCH == [
        outcome.kind for outcome in shard.apply(list(delivered([fund(number) for number in range(BATCH)])))]


def test_input_that_breaks_off_leaves_the_batches_before_it_committed(shard: Shard, tmp_path: Path) -> None:
    def broken() -> Iterator[Delivered]:
        yield from delivered([fund(number) for number in range(BATCH)])
        raise EOFError("the file ends in the middle")

    with pytest.raises(EOFError):
        list(shard.ingest(broken(), batch_size=BATCH))

    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert 1 + BATCH == reader.end() == shard.frontier.size
    assert ["applied"] == [outcome.kind for outcome in shard.apply(list(delivered([fund(99)])))]
