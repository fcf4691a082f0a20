"""Death in the middle of work: SIGKILL anywhere in a commit, a full disk, a commit that fails.

Another process ingests; whatever it acknowledged before it died must stand in the log, and the same records offered
again from the start must end in the log of an undisturbed run. Beside `test_kill` (kills at random times) the kills
here fall on chosen statements of a commit, and the size of the batches changes from life to life.
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import pytest
from eventsourcing.persistence import PersistenceError

from infra.embedded import open_ledger
from infra.replay import replay_ledger
from infra.shard import Shard
from infra.store.sqlite import SQLiteRecorder, file_uri
from infra.streams.records import read_lines
from infra.venue import SimulatedVenue
from ledger.encoding import decode
from ledger.errors import BrokenInvariant
from tests.property.records_strategy import (
    INSTRUMENTS,
    MUMBLED,
    Cures,
    Deposits,
    Funding,
    ListsAsset,
    ListsInstrument,
    Mumbles,
    Opens,
    Prices,
    SaysAgain,
    Step,
    Stream,
    Trades,
    Withdraws,
    lines_of,
)

SEED: Final = 20190924
STEPS: Final = 2_000
SOURCE: Final = "records"
# Where in its nth commit a life ends: before the transaction, with everything inserted, and committed but unsaid.
MOMENTS: Final = ("before", "inserted", "committed")


def steps(dice: Random) -> Iterator[Step]:
    """What a small house goes through in a day: mostly prices and trades, with calls, liquidations and nonsense."""
    for asset, quantum in (("USD", "0.01"), ("BTC", "0.00000001"), ("ETH", "0.0001")):
        yield ListsAsset(asset, quantum, True)
    for instrument in INSTRUMENTS:
        yield ListsInstrument(instrument)
        yield Prices(instrument, "1", "a", None, 0, 0, 0)
    for number in range(30):
        yield Opens(f"account {number}", "cross", "hedge" if number % 10 == 9 else "net", "client", None)
        yield Deposits(number, dice.choice(["USD", "USD", "BTC"]), "1000" if number % 3 else "0.2")
    for _ in range(STEPS):
        account, instrument = dice.randrange(30), dice.choice([*INSTRUMENTS])
        possible: list[tuple[int, Step]] = [
            (45, Prices(instrument, dice.choice(["0.99", "0.995", "1", "1.005", "1.01", "0.97", "1.03"]), "a", None,
                        dice.choice([0, 0, 0, None]), 0, dice.choice([0, 1, 2]))),
            (35, Trades(account, instrument, dice.choice(["buy", "sell"]), dice.choice(["1.3", "2", "5", "-1"]), "1",
                        dice.choice([None, "0.1"]), None, dice.choice([None, None, "isolated"]), None, None, 0, 1)),
            (5, Deposits(account, "USD", "50")), (4, Withdraws(account, "USD", "0.1", 0, 0)),
            (2, Funding(instrument, "0.0001", None)), (3, Mumbles(dice.choice(MUMBLED))),
            (3, SaysAgain(dice.randrange(50), dice.choice(["same", "changed"]))), (3, Cures(0, 0, 0, 0))]
        yield dice.choices([step for _, step in possible], [weight for weight, _ in possible])[0]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    lines = lines_of(Stream(list(steps(Random(SEED))), venue=True))
    path.write_bytes(b"\n".join(line.replace(b"\n", b" ") for line in lines) + b"\n")
    return path


def ingest(shard: Shard, records: Path, batch_size: int) -> None:
    with records.open("rb") as stream:
        for _ in shard.ingest(read_lines(SOURCE, stream), batch_size=batch_size):
            pass


@pytest.fixture(scope="module")
def undisturbed(records: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with open_ledger(tmp_path_factory.mktemp("undisturbed") / "ledger.db", venue=SimulatedVenue()) as shard:
        ingest(shard, records, 500)
        topics = {row.topic for row in shard.store.select_notifications(1, 100_000)}
        assert {f"clearing.{name}:1" for name in (
            "margin-call-issued", "margin-call-met", "liquidation-completed", "funding-settled", "record-rejected",
            "withdrawn", "withdrawal-refused")} <= topics
        return shard.root


# --- the life of a child -----------------------------------------------------------------------------------------


def live(records: str, ledger: str, batch_size: int, commits: int, moment: str) -> None:
    """Ingest, say of each outcome where it stands, and die by SIGKILL in the given commit."""
    done = 0
    insert = SQLiteRecorder._insert_events

    def die(now: str) -> None:
        if done == commits and moment == now:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(self: SQLiteRecorder, *arguments: Any, **named: Any) -> Any:
        nonlocal done
        done += 1
        die("before")
        found = insert(self, *arguments, **named)
        die("inserted")
        return found

    SQLiteRecorder._insert_events = watched  # type: ignore[method-assign]
    with open_ledger(ledger, venue=SimulatedVenue()) as shard, open(records, "rb") as stream:
        shard.listeners.append(lambda _: die("committed"))
        delivered = read_lines(SOURCE, stream)
        while batch := list(islice(delivered, batch_size)):
            for row, outcome in zip(batch, shard.apply(batch), strict=True):
                print(row.place.line, outcome.kind, outcome.position, flush=False)
            sys.stdout.flush()
    print("end", flush=True)


class Said(NamedTuple):
    """An outcome that a child acknowledged."""

    kind: str
    position: int


def child(records: Path, ledger: Path, *, batch_size: int, commits: int, moment: str) -> tuple[dict[int, Said], bool]:
    """What the child acknowledged, by line, and whether it came to the end."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.test_sigkill", str(records), str(ledger), str(batch_size), str(commits),
         moment], stdout=subprocess.PIPE, check=False, cwd=Path(__file__).parents[2])
    said = [line.split() for line in done.stdout.decode().splitlines()]
    ended = ["end"] in said
    assert done.returncode == (0 if ended else -signal.SIGKILL)
    return {int(words[0]): Said(words[1], int(words[2])) for words in said if words != ["end"]}, ended


def require_acknowledged(ledger: Path, acknowledged: dict[int, Said]) -> None:
    """Each acknowledged outcome stands where it was said to stand, and goes back to its line."""
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        rows = {row.id: row for row in shard.store.select_notifications(1, 100_000)}
        assert shard.is_balanced()
    for line, said in acknowledged.items():
        assert said.position in rows, f"line {line} was {said.kind} at {said.position} and is lost"
        event = decode(rows[said.position].topic, rows[said.position].state)
        assert said.kind == "duplicate" or line == event.cause.line


def test_killed_in_a_commit_nothing_is_lost_and_nothing_is_there_twice(records: Path, undisturbed: bytes,
                                                                      tmp_path: Path) -> None:
    dice, ledger = Random(SEED), tmp_path / "ledger.db"
    acknowledged: dict[int, Said] = {}
    lives = [(moment, size) for size in (1, 40, 300) for moment in MOMENTS]
    dice.shuffle(lives)
    for moment, size in lives:
        said, ended = child(records, ledger, batch_size=size, commits=dice.randint(1, 600 // size), moment=moment)
        assert not ended
        # What was acknowledged once is a repeat for ever.
        assert all(said[line].kind == "duplicate" for line in acknowledged.keys() & said.keys())
        acknowledged = {**said, **acknowledged}
        require_acknowledged(ledger, acknowledged)
    said, ended = child(records, ledger, batch_size=500, commits=-1, moment="never")

    assert ended
    assert all(said[line].kind == "duplicate" for line in acknowledged)
    require_acknowledged(ledger, said)
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        assert undisturbed == shard.root
    assert [] == replay_ledger(ledger).differences


# --- a store that fails ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(records: Path) -> Path:
    path = records.with_name("few.jsonl")
    path.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:700]))
    return path


@pytest.fixture(scope="module")
def undisturbed_few(few: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with open_ledger(tmp_path_factory.mktemp("few") / "ledger.db", venue=SimulatedVenue()) as shard:
        ingest(shard, few, 500)
        return shard.root


def require_recovery(few: Path, ledger: Path, undisturbed_few: bytes, committed: int) -> None:
    """What was committed is there, no more and no less; the next start goes on to the log of an undisturbed run."""
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        assert committed == shard.house.position
        ingest(shard, few, 100)
        assert undisturbed_few == shard.root
    assert [] == replay_ledger(ledger).differences


def stopped_by(few: Path, ledger: Path, words: str, *, pages: int | None = None) -> int:
    """Ingest until the store fails, as it must, in these words; the last position that was acknowledged."""
    committed = 0
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        committed = shard.house.position
        if pages is not None:
            limit(shard, pages)

        def note(_: object) -> None:
            nonlocal committed
            committed = shard.frontier.size

        shard.listeners.append(note)
        with pytest.raises(PersistenceError, match=words):
            ingest(shard, few, 20)
        # The states of this writer ran ahead of the store: it writes no more.
        with pytest.raises(BrokenInvariant, match="open the ledger again"):
            ingest(shard, few, 20)
    return committed


def limit(shard: Shard, pages: int) -> None:
    """No more room than so many pages, on the connection that writes."""
    assert isinstance(shard.store, SQLiteRecorder)
    with shard.store.datastore.transaction(commit=True) as cursor:
        cursor.execute(f"PRAGMA max_page_count = {pages}")


def test_no_room_in_the_file_stops_the_writer_and_loses_nothing(few: Path, undisturbed_few: bytes,
                                                                tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    first = stopped_by(few, ledger, "full", pages=60)
    second = stopped_by(few, ledger, "full", pages=150)

    assert 0 < first < second
    require_recovery(few, ledger, undisturbed_few, second)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own; skips where mounting one is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)],
                             stderr=subprocess.DEVNULL, check=False) if os.geteuid() == 0 else None
    if mounted is None or mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_stops_the_writer_and_loses_nothing(few: Path, undisturbed_few: bytes, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1500k") as disk:
        ledger = disk / "ledger.db"
        committed = stopped_by(few, ledger, "full|disk I/O")
        assert committed > 0
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        require_recovery(few, ledger, undisturbed_few, committed)


def test_file_that_may_not_grow_stops_the_writer_and_loses_nothing(few: Path, undisturbed_few: bytes,
                                                                   tmp_path: Path) -> None:
    """Writes fail in the operating system: beyond the limit of a process on the size of its files."""
    ledger = tmp_path / "ledger.db"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, hard))
    try:
        committed = stopped_by(few, ledger, "full|disk I/O")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert committed > 0
    require_recovery(few, ledger, undisturbed_few, committed)


@pytest.mark.parametrize("table", ["stored_events", "inbox", "merkle_leaves", "stream_position", "ledger_head"])
def test_commit_that_fails_half_way_leaves_nothing_behind(few: Path, undisturbed_few: bytes, tmp_path: Path,
                                                          table: str) -> None:
    """A row of one of the tables cannot be written: none of the batch is."""
    ledger = tmp_path / "ledger.db"
    with open_ledger(ledger, venue=SimulatedVenue()) as shard, few.open("rb") as stream:
        delivered = read_lines(SOURCE, stream)
        shard.apply([next(delivered) for _ in range(300)])
    change(ledger, f"CREATE TRIGGER worn BEFORE {'UPDATE' if table == 'stream_position' else 'INSERT'} ON {table} "
                   "BEGIN SELECT RAISE(ABORT, 'worn out'); END")
    committed = stopped_by(few, ledger, "worn out")
    change(ledger, "DROP TRIGGER worn")
    require_recovery(few, ledger, undisturbed_few, committed)


def change(ledger: Path, statement: str) -> None:
    connection = sqlite3.connect(file_uri(str(ledger)), uri=True)
    connection.execute(statement)
    connection.close()


if __name__ == "__main__":
    live(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
