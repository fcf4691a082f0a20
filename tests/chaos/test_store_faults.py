"""Whatever fails, wherever: each statement to SQLite once, each page that is not to be had, each byte cut off.

A small ledger is written while one thing fails. What was acknowledged stands, what stands is the beginning of the log
of an undisturbed run (never half a batch), and the next start goes on from the same records to the same root.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import pytest
from eventsourcing.persistence import PersistenceError

from infra.backup import prove
from infra.embedded import open_ledger
from infra.replay import replay_ledger
from infra.shard import Shard
from infra.streams.records import Delivered, read_lines
from infra.venue import SimulatedVenue
from ledger.errors import BrokenInvariant, LedgerUnreadable
from tests.chaos.faulty_store import Fault, Moment, open_failing
from tests.golden.archive import FOLDER, Line, lines

BATCH: Final = 25
PAGE: Final = 4_096
# A frame of SQLite's write-ahead log: a header and a page.
FRAME: Final = 24 + PAGE


def stream() -> Iterator[Delivered]:
    """The records of the golden archive's desk, which the venue fills here."""
    with (FOLDER / "desk.jsonl").open("rb") as opened:
        yield from read_lines("desk.jsonl", opened)


class Undisturbed(NamedTuple):
    """A run that nothing disturbed: its log, where each batch ended, its root."""

    log: list[Line]
    ends: list[int]
    root: str


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    ledger, ends = tmp_path_factory.mktemp("undisturbed") / "ledger.db", [0]
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        shard.listeners.append(lambda _: ends.append(shard.frontier.size))
        list(shard.ingest(stream(), batch_size=BATCH))
        root = shard.root.hex()
    return Undisturbed(lines(ledger), ends, root)


def feed(shard: Shard, acknowledged: list[int]) -> None:
    """All records from the first; where the log ended each time that a batch was acknowledged."""
    records = stream()
    while batch := list(islice(records, BATCH)):
        shard.apply(batch)
        acknowledged.append(shard.house.position)


def require_recovery(ledger: Path, undisturbed: Undisturbed, acknowledged: int, *, replays: bool = False) -> int:
    """What stands is a beginning of whole batches with all that was acknowledged; the next start goes on. Its end."""
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        stands = shard.house.position
        assert stands >= acknowledged
        assert stands in undisturbed.ends
        assert undisturbed.log[:stands] == lines(ledger)
        feed(shard, [])
        assert undisturbed.root == shard.root.hex()
        assert shard.is_balanced()
    assert undisturbed.log == lines(ledger)
    if replays:
        assert [] == replay_ledger(ledger).differences
    return stands


# --- statements --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after", "for good"])
def test_whichever_statement_fails_nothing_acknowledged_is_lost_and_the_next_start_goes_on(
        undisturbed: Undisturbed, tmp_path: Path, moment: Moment) -> None:
    """Semantics 7: a failing store stops the writer and loses nothing that was acknowledged. Every n-th statement."""
    number, stood = 0, set()
    while True:
        number += 1
        fault, ledger, acknowledged = Fault(number, moment), tmp_path / f"{number}.db", list[int]()
        with suppress(PersistenceError, sqlite3.Error), open_failing(ledger, fault) as shard:
            try:
                feed(shard, acknowledged)
            except (PersistenceError, sqlite3.Error):
                # The states ran ahead of the store: this writer writes no more.
                with pytest.raises(BrokenInvariant, match="open the ledger again"):
                    feed(shard, acknowledged)
                raise
        if fault.statements < number:
            break
        said = max(acknowledged, default=0)
        stood.add(require_recovery(ledger, undisturbed, said, replays=number % 10 == 0))
        ledger.unlink()

    # The faults fell into the whole run: before the first batch, between all, and after the last was committed.
    assert number > 50
    assert set(undisturbed.ends[:-1]) <= stood


def test_a_second_fault_on_the_way_back_does_no_harm_either(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Faults upon faults, at random statements, until one life comes to its end."""
    dice, ledger, said, struck = Random(20190924), tmp_path / "ledger.db", 0, 0
    for _ in range(40):
        fault = Fault(dice.randint(1, 120), dice.choice(["before", "after", "for good"]))
        acknowledged: list[int] = []
        with suppress(PersistenceError, sqlite3.Error), open_failing(ledger, fault) as shard:
            assert said <= shard.house.position
            feed(shard, acknowledged)
        said = max([said, *acknowledged])
        struck += fault.struck

    assert struck > 10
    require_recovery(ledger, undisturbed, said, replays=True)


# --- room --------------------------------------------------------------------------------------------------------


def test_whichever_page_is_not_to_be_had_nothing_acknowledged_is_lost(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """A file that may have so many pages and no more, for each number of pages."""
    pages, stood = 0, set()
    while True:
        ledger, acknowledged = tmp_path / f"{pages}.db", list[int]()
        with open_ledger(ledger, venue=SimulatedVenue()) as shard:
            with shard.store.datastore.transaction(commit=True) as cursor:  # type: ignore[attr-defined]
                cursor.execute("PRAGMA page_count")
                pages = max(pages, cursor.fetchone()[0])
                cursor.execute(f"PRAGMA max_page_count = {pages}")
            try:
                feed(shard, acknowledged)
                break
            except PersistenceError as fault:
                assert "full" in str(fault)
        said = max(acknowledged, default=0)
        assert said == require_recovery(ledger, undisturbed, said)
        stood.add(said)
        pages += 1

    assert len(stood) > 2


# --- bytes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    """A ledger as a power cut finds it, all of its log still in the WAL; and the WAL's size after each batch."""
    folder = tmp_path_factory.mktemp("torn")
    ledger, sizes = folder / "ledger.db", []
    wal = Path(f"{ledger}-wal")
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        shard.listeners.append(lambda _: sizes.append((shard.frontier.size, wal.stat().st_size)))
        feed(shard, [])
        for path in (ledger, wal):
            shutil.copy(path, folder / f"kept{path.name.removeprefix('ledger')}")
    return folder / "kept.db", sizes


def put_down(kept: Path, folder: Path, wal: bytes) -> Path:
    """The ledger file with another WAL beside it."""
    ledger = folder / "ledger.db"
    for path in folder.iterdir():
        path.unlink()
    shutil.copy(kept, ledger)
    Path(f"{ledger}-wal").write_bytes(wal)
    return ledger


def test_wherever_the_wal_is_cut_off_whole_batches_stand_and_the_log_goes_on(
        undisturbed: Undisturbed, torn: tuple[Path, list[tuple[int, int]]], tmp_path: Path) -> None:
    """A short write: the file ends in the middle of a frame, or between two. No half batch comes back."""
    kept, sizes = torn
    whole = Path(f"{kept}-wal").read_bytes()
    # Before the ledger's tables are there, what is left is an empty file, which is no fault.
    for number, end in enumerate(range(sizes[0][1], len(whole), FRAME)):
        for cut in (end, end + (24, FRAME - 1)[number % 2]):
            ledger = put_down(kept, tmp_path, whole[:cut])
            durable = max((position for position, size in sizes if size <= cut), default=0)
            assert durable == require_recovery(ledger, undisturbed, durable)


@pytest.mark.parametrize("seed", range(25))
def test_a_torn_frame_and_all_after_it_never_happened(undisturbed: Undisturbed,
                                                      torn: tuple[Path, list[tuple[int, int]]], tmp_path: Path,
                                                      seed: int) -> None:
    """Bytes of the WAL that came down as something else: its checksums end it there."""
    kept, sizes = torn
    dice, whole = Random(seed), bytearray(Path(f"{kept}-wal").read_bytes())
    at = dice.randrange(sizes[0][1], len(whole))
    whole[at] ^= dice.randint(1, 255)
    durable = max((position for position, size in sizes if size <= at), default=0)

    assert durable == require_recovery(put_down(kept, tmp_path, bytes(whole)), undisturbed, durable)


def test_a_file_cut_off_at_any_page_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """What was checkpointed and is gone cannot be gone on from without a word: the backup is."""
    ledger = tmp_path / "ledger.db"
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        feed(shard, [])
    whole = ledger.read_bytes()
    for end in range(PAGE, len(whole), PAGE):
        for cut in (end, end - 100):
            ledger.write_bytes(whole[:cut])
            with pytest.raises(LedgerUnreadable), open_ledger(ledger):
                pass
            assert whole[:cut] == ledger.read_bytes()
    ledger.write_bytes(whole)
    assert prove(ledger).position > 0
