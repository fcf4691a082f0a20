"""The life of a ledger file: copied while it is written, put back, brought up, never half and never over another."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from infra import backup
from infra.backup import Standing, TargetExists, back_up, prove, restore, upgrade
from infra.embedded import LedgerReader, open_ledger
from infra.replay import replay_ledger
from infra.store.commit import FORMAT
from infra.streams.records import read_lines
from infra.venue import SimulatedVenue
from ledger.errors import LedgerLocked, LedgerUnreadable
from tests.chaos.test_kill import mixed_records
from tests.unit.test_cli import clearing

SEED: Final = 7
RECORDS: Final = 300


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "records"
    path.write_text("\n".join(mixed_records(SEED)[:RECORDS]) + "\n")
    return path


def ingest(ledger: Path, records: Path, lines: int | None = None) -> Standing:
    """Ingest the first lines of the records; where the ledger then ends."""
    with open_ledger(ledger, venue=SimulatedVenue()) as shard, records.open("rb") as stream:
        for delivered in read_lines("records", stream):
            if lines is None or (delivered.place.line or 0) <= lines:
                shard.apply([delivered])
        return Standing(shard.house.position, shard.root.hex(), 0)


@pytest.fixture(scope="module")
def stored(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of half the records."""
    ledger = tmp_path_factory.mktemp("stored") / "desk.db"
    ingest(ledger, records, RECORDS // 2)
    return ledger


@pytest.fixture
def desk(stored: Path, tmp_path: Path) -> Path:
    """A ledger that a test may change."""
    return Path(shutil.copy(stored, tmp_path / "desk.db"))


def change(ledger: Path, statement: str) -> None:
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute(statement)


def files(folder: Path) -> list[str]:
    """What is in a folder, but for what SQLite keeps beside a ledger that was read."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("desk.db-wal", "desk.db-shm"))


# --- backup and restore ------------------------------------------------------------------------------------------


def test_a_backup_is_one_file_that_ends_where_the_ledger_did(desk: Path, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "monday.db"
    target.parent.mkdir()
    standing = back_up(desk, target)

    assert ["monday.db"] == files(target.parent)
    assert standing == prove(target)
    assert standing[:2] == prove(desk)[:2]
    assert [] == replay_ledger(target).differences


# The child writes record after record, and says so, until its input ends.
WRITER: Final = """
import sys
from infra.embedded import open_ledger
from infra.streams.records import read_lines
from infra.venue import SimulatedVenue
with open_ledger(sys.argv[2], venue=SimulatedVenue()) as shard, open(sys.argv[1], "rb") as stream:
    for delivered in read_lines("records", stream):
        shard.apply([delivered])
        print(shard.house.position, shard.root.hex(), flush=True)
"""


def test_a_backup_taken_while_a_writer_commits_is_of_one_moment_and_goes_on_to_the_same_root(
        records: Path, tmp_path: Path) -> None:
    """Semantics 7: backup is possible while it runs. Each copy is a ledger that the writer had committed."""
    ledger, committed, copies = tmp_path / "desk.db", {}, []
    with subprocess.Popen([sys.executable, "-c", WRITER, str(records), str(ledger)], stdout=subprocess.PIPE,
                          text=True) as writer:
        assert writer.stdout is not None
        for number, line in enumerate(writer.stdout):
            position, root = line.split()
            committed[int(position)] = root
            if number % 100 == 50:
                copies.append(back_up(ledger, tmp_path / f"copy-{number}.db"))
    assert writer.returncode == 0

    assert len(copies) >= 3
    assert [copy.root for copy in copies] == [committed[copy.position] for copy in copies]
    # The pipe between writer and test holds lines back, so that copies may be of any later commit, but not the last.
    restored = tmp_path / "restored.db"
    restore(tmp_path / "copy-50.db", restored)
    assert ingest(restored, records)[:2] == prove(ledger)[:2]


def test_a_copy_of_many_steps_is_of_the_moment_when_it_began(desk: Path, records: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer commits between the steps of a copy: the copy neither starts anew nor has any of it."""
    monkeypatch.setattr(backup, "PAGES_A_STEP", 16)
    before = prove(desk)
    told: list[tuple[int, int]] = []

    def write_beside(done: int, total: int) -> None:
        if not told:
            ingest(desk, records)
        told.append((done, total))

    assert before[:2] == back_up(desk, tmp_path / "copy.db", write_beside)[:2]
    assert len(told) > 2
    assert prove(desk).position > before.position


def test_a_restored_backup_goes_on_from_the_same_records_to_the_same_root(desk: Path, records: Path,
                                                                         tmp_path: Path) -> None:
    copy, back = tmp_path / "copy.db", tmp_path / "back.db"
    taken = back_up(desk, copy)
    after = ingest(desk, records)

    assert taken[:2] == restore(copy, back)[:2]
    assert after == ingest(back, records)
    assert [] == replay_ledger(back).differences


@pytest.mark.parametrize("beside", ["", "-wal", "-shm", "-journal"])
def test_nothing_is_overwritten(desk: Path, tmp_path: Path, beside: str) -> None:
    taken = tmp_path / f"copy.db{beside}"
    taken.write_bytes(b"mine")
    with pytest.raises(TargetExists, match="nothing is overwritten"):
        back_up(desk, tmp_path / "copy.db")
    with pytest.raises(TargetExists, match="nothing is overwritten"):
        restore(desk, tmp_path / "copy.db")

    assert taken.read_bytes() == b"mine"
    assert sorted({"desk.db", taken.name}) == files(tmp_path)


DAMAGE: Final = {
    "an event was changed": "UPDATE stored_events SET state = replace(CAST(state AS TEXT), '1', '2') WHERE rowid = 30",
    "an event is missing": "DELETE FROM stored_events WHERE rowid = 30",
    "the last event is missing": "DELETE FROM stored_events WHERE rowid = (SELECT MAX(rowid) FROM stored_events)",
    "a leaf was changed": "UPDATE merkle_leaves SET hashes = zeroblob(length(hashes)) WHERE first_position = 30",
    "leaves are missing": "DELETE FROM merkle_leaves WHERE first_position > 100",
    "the head has another root": "UPDATE ledger_head SET root = zeroblob(32)",
    "the head has another time": "UPDATE ledger_head SET log_time = log_time + 1",
    "there is no head": "DELETE FROM ledger_head",
    "the inbox knows more than the log": "INSERT INTO inbox VALUES ('records', 'id', 'never', 100000)",
}


@pytest.mark.parametrize("why", DAMAGE)
def test_a_damaged_ledger_gives_no_backup_and_a_damaged_backup_no_ledger(desk: Path, tmp_path: Path, why: str) -> None:
    change(desk, DAMAGE[why])
    target = tmp_path / "copies" / "copy.db"
    target.parent.mkdir()
    with pytest.raises(LedgerUnreadable):
        back_up(desk, target)
    with pytest.raises(LedgerUnreadable):
        restore(desk, target)

    assert [] == files(target.parent)


def test_a_damaged_page_is_found_wherever_it_is(desk: Path, tmp_path: Path) -> None:
    """One page after the other is made useless: no copy is given out as whole."""
    whole = desk.read_bytes()
    page = int.from_bytes(whole[16:18], "big")
    for number in range(1, len(whole) // page):
        desk.write_bytes(whole[: number * page] + bytes([0xA5]) * page + whole[(number + 1) * page :])
        try:
            standing = back_up(desk, tmp_path / f"copy-{number}.db")
        except (LedgerUnreadable, sqlite3.Error):
            continue
        # A page of the read models or a free one: what is recorded is not touched by it.
        assert standing == prove(tmp_path / f"copy-{number}.db")


def test_half_a_file_is_no_ledger(desk: Path, tmp_path: Path) -> None:
    whole = desk.read_bytes()
    for length in (0, 1, 100, len(whole) // 3, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        desk.write_bytes(whole[:length])
        with pytest.raises(LedgerUnreadable):
            restore(desk, tmp_path / "back.db")

    assert ["desk.db"] == files(tmp_path)


# --- formats -----------------------------------------------------------------------------------------------------


def test_a_ledger_of_this_format_needs_no_upgrade(desk: Path) -> None:
    before = desk.read_bytes()
    done = upgrade(desk)

    assert (FORMAT, FORMAT, None) == done[:3]
    assert prove(desk) == done.standing
    assert before == desk.read_bytes()


def test_a_newer_format_is_refused_by_all_that_open_a_ledger(desk: Path, tmp_path: Path) -> None:
    """Semantics 7: a newer format is refused, by readers as well, which would show it wrongly."""
    change(desk, "UPDATE ledger_settings SET value = '2' WHERE name = 'format'")
    for open_it in (lambda: upgrade(desk), lambda: back_up(desk, tmp_path / "copy.db"), lambda: prove(desk),
                    lambda: LedgerReader(desk), lambda: ingest(desk, desk)):
        with pytest.raises(LedgerUnreadable, match="expected a ledger of format 1, came format '2'; a newer version"):
            open_it()
    assert {"desk.db", "desk.db.lock"} >= set(files(tmp_path))


def rename_heads(connection: sqlite3.Connection) -> None:
    """What a step might do: the format before kept one more column."""
    connection.execute("ALTER TABLE ledger_head DROP COLUMN worn")


STEPS: Final = {"0": (FORMAT, rename_heads)}


def older(desk: Path) -> None:
    """As a version of format 0 would have left it."""
    change(desk, "ALTER TABLE ledger_head ADD COLUMN worn TEXT")
    change(desk, "UPDATE ledger_settings SET value = '0' WHERE name = 'format'")


def test_an_older_format_is_refused_until_it_is_brought_up_and_the_old_file_is_kept(desk: Path,
                                                                                   records: Path) -> None:
    whole = prove(desk)
    older(desk)
    with pytest.raises(LedgerUnreadable, match="came format '0', which is older; `clearing upgrade LEDGER`"):
        ingest(desk, records)
    done = upgrade(desk, STEPS)

    kept = desk.with_name("desk.db.format-0.backup")
    assert ("0", FORMAT, kept) == done[:3]
    assert whole[:2] == done.standing[:2]
    assert ("0", whole[:2]) == (backup.format_of(kept), backup.root_of(kept))
    assert ingest(desk, records).position > whole.position
    assert [] == replay_ledger(desk).differences


def test_an_upgrade_that_fails_leaves_the_old_format_as_it_was(desk: Path) -> None:
    older(desk)

    def fails(connection: sqlite3.Connection) -> None:
        rename_heads(connection)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        upgrade(desk, {"0": (FORMAT, fails)})
    assert "0" == backup.format_of(desk)
    # The backup that was made stands; the next try is told of it instead of writing over it.
    with pytest.raises(TargetExists):
        upgrade(desk, STEPS)
    desk.with_name("desk.db.format-0.backup").unlink()
    assert FORMAT == upgrade(desk, STEPS).after


def test_a_ledger_that_is_being_written_is_not_upgraded(desk: Path) -> None:
    with open_ledger(desk), pytest.raises(LedgerLocked, match=f"being written by process {os.getpid()}"):
        upgrade(desk)


# --- the lock ----------------------------------------------------------------------------------------------------


def test_no_lock_is_left_beside_what_is_no_ledger(tmp_path: Path) -> None:
    stray = tmp_path / "letter.txt"
    stray.write_text("Dear all,\n")
    for path in (stray, tmp_path):
        with pytest.raises(LedgerUnreadable), open_ledger(path):
            pass

    assert ["letter.txt"] == files(tmp_path)
    assert not Path(f"{tmp_path}.lock").exists()


def test_a_lock_that_was_there_stays(desk: Path) -> None:
    lock = Path(f"{desk}.lock")
    lock.touch()
    change(desk, "DROP TABLE ledger_settings")
    with pytest.raises(LedgerUnreadable), open_ledger(desk):
        pass

    assert lock.exists()


def test_a_ledger_has_one_writer_by_whatever_name_it_is_opened(desk: Path) -> None:
    link = desk.with_name("link.db")
    link.symlink_to(desk)
    with open_ledger(desk), pytest.raises(LedgerLocked), open_ledger(link):
        pass


def test_a_lock_deleted_under_its_writer_is_not_taken_for_the_next_ones(desk: Path) -> None:
    """A second writer that holds a file which is gone would let in a third."""
    lock = Path(f"{desk}.lock")
    with open_ledger(desk):
        lock.unlink()
        with open_ledger(desk), pytest.raises(LedgerLocked), open_ledger(desk):
            pass


# --- the commands ------------------------------------------------------------------------------------------------


def test_the_commands_print_position_and_root(desk: Path, tmp_path: Path) -> None:
    copy, back = tmp_path / "copy.db", tmp_path / "back.db"
    made = clearing("backup", desk, copy, "--json").json
    put_back = clearing("restore", copy, back)

    assert prove(desk)[:2] == (made["log_position"], made["root"])
    assert (0, "") == (put_back.code, put_back.err)
    assert f"log position {made['log_position']}, root {made['root']}" in put_back.out
    said = clearing("upgrade", back)
    assert f"is of format {FORMAT}: nothing is to be done" in said.out
    assert {"format_before": FORMAT, "format": FORMAT, "log_position": made["log_position"], "root": made["root"],
            "backup": None} == json.loads(clearing("upgrade", back, "--json").out)


def test_the_commands_say_what_they_do_not_do(desk: Path, tmp_path: Path) -> None:
    stray = tmp_path / "stray.db"
    stray.write_bytes(b"no database at all")
    for words, code, expected in (
            (("backup", desk, stray), 1, "nothing is overwritten"),
            (("restore", desk, stray), 1, "nothing is overwritten"),
            (("backup", tmp_path / "none.db", tmp_path / "new.db"), 2, "expected a ledger file at"),
            (("backup", stray, tmp_path / "new.db"), 2, "not a ledger file"),
            (("restore", stray, tmp_path / "new.db"), 2, "not a ledger file"),
            (("upgrade", stray), 2, "not a ledger file"),
            (("backup", desk, tmp_path / "no" / "new.db"), 2, "expected a folder"),
            (("backup", "postgresql://localhost/x", tmp_path / "new.db"), 2, "pg_dump")):
        answer = clearing(*words)
        assert (code, "") == (answer.code, answer.out), words
        assert expected in answer.err
        assert "Traceback" not in answer.err
    assert ["desk.db", "stray.db"] == files(tmp_path)
