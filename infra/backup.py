"""Copies of a ledger file, each proved before it is called one: taken while a writer runs, put back, brought up.

A copy is made under a name of its own, read as a whole (every page, every row against the root, every table that
moves with the log) and only then given its name, so that whatever bears the name is whole. Nothing is overwritten.
This file never changes an event, and knows nothing of servers, which have backups of their own.

Neighbours: `infra.embedded` (opening and locking a ledger), `infra.store.commit` (the format).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from infra.embedded import check_file, locked
from infra.store.commit import FORMAT, require_format
from infra.store.sqlite import connect
from ledger.encoding import decode
from ledger.errors import LedgerUnreadable
from projections.merkle import Frontier, leaf_hash

PAGE: Final = 5_000
# Pages of SQLite copied between two signs of life; the copy is of one moment, however many steps it takes.
PAGES_A_STEP: Final = 4_096

Progress = Callable[[int, int], None]
# An older format -> the next one, and what changes the tables to it, within a transaction of the caller. The log's
# rows stay: what an event of the past means is said by `ledger.events.UPCASTS`. Empty until there is a format 2.
Steps = Mapping[str, tuple[str, Callable[[sqlite3.Connection], None]]]
STEPS: Final[Steps] = {}


class TargetExists(Exception):
    """A file stands where a copy is to go; the message names it."""


class Standing(NamedTuple):
    """Where a ledger ends, computed anew from all its rows; root 64 hex digits, bytes those of the file."""

    position: int
    root: str
    bytes: int


class Upgrade(NamedTuple):
    """The format before and after, where the backup is (None: nothing was to be done), and where the ledger ends."""

    before: str
    after: str
    backup: Path | None
    standing: Standing


def back_up(ledger: Path, target: Path, progress: Progress | None = None) -> Standing:
    """Copy a ledger while it is written or not, and prove the copy. `progress(done, total)` counts pages.

    TargetExists: nothing is overwritten. LedgerUnreadable: what is copied is no sound ledger, or of another format.
    """
    _require_ledger(ledger)
    check_file(ledger)
    with _new_file(target) as partial:
        copied = _copy(ledger, partial, progress)
        standing = prove(partial)
        if (standing.position, standing.root) != copied:
            raise LedgerUnreadable(f"expected the copy to end as {ledger} did, at {copied[0]} with root {copied[1]}, "
                                   f"came {standing.position} with root {standing.root}")
    return standing


def restore(backup: Path, target: Path, progress: Progress | None = None) -> Standing:
    """A ledger from its backup (or from any ledger file), proved before it bears its name; nothing is overwritten."""
    return back_up(backup, target, progress)


def upgrade(ledger: Path, steps: Steps = STEPS, progress: Progress | None = None) -> Upgrade:
    """Bring a ledger of an older format up to this one, with a backup beside it; leave one of this format alone.

    One transaction: after a crash it is of the old format or of the new. LedgerLocked where somebody writes it.
    """
    _require_ledger(ledger)
    with locked(ledger):
        before = format_of(ledger)
        path = _path(before, steps)
        if not path:
            require_format({"format": before})
            return Upgrade(before, before, None, prove(ledger))
        backup = ledger.with_name(f"{ledger.name}.format-{before}.backup")
        with _new_file(backup) as partial:
            copied = _copy(ledger, partial, progress)
            _require_whole(partial)
            if copied != root_of(partial):
                raise LedgerUnreadable(f"the backup of {ledger} does not end where the ledger does; nothing was "
                                       "changed")
        with closing(connect(str(ledger))) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                for step in path:
                    step(connection)
                connection.execute("UPDATE ledger_settings SET value = ? WHERE name = 'format'", (FORMAT,))
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        standing = prove(ledger)
        if (standing.position, standing.root) != copied:
            raise LedgerUnreadable(f"{ledger} does not end where its backup {backup} does; put that back with "
                                   "`clearing restore`")
        return Upgrade(before, FORMAT, backup, standing)


def _path(found: str, steps: Steps) -> list[Callable[[sqlite3.Connection], None]]:
    """The steps from a format to this one; none where there is no way."""
    path = []
    while found != FORMAT:
        if found not in steps:
            return []
        found, step = steps[found]
        path.append(step)
    return path


# --- what a ledger file says of itself ---------------------------------------------------------------------------


def prove(path: Path) -> Standing:
    """Read all of a ledger file: SQLite's own whole check, every event, every table beside the log, the root.

    LedgerUnreadable says what is wrong. This is not `clearing replay`: decisions are not made anew.
    """
    check_file(path)
    _require_whole(path)
    position, root = root_of(path)
    return Standing(position, root, path.stat().st_size)


def format_of(path: Path) -> str:
    """The format that a ledger file says it has; LedgerUnreadable where it is no ledger."""
    try:
        with closing(connect(str(path), read_only=True)) as connection:
            found = connection.execute("SELECT value FROM ledger_settings WHERE name = 'format'").fetchone()
    except sqlite3.Error as fault:
        raise LedgerUnreadable(f"{path}: not a ledger file: {fault}") from fault
    if found is None:
        raise LedgerUnreadable(f"{path}: expected a ledger that says its format, came one that was never opened to "
                               "write")
    return str(found[0])


def root_of(path: Path) -> tuple[int, str]:
    """The end of the log and the root over all its rows, computed anew; LedgerUnreadable unless the tables agree."""
    try:
        with closing(connect(str(path), read_only=True)) as connection:
            connection.execute("BEGIN")
            return _folded(connection, path)
    except sqlite3.Error as fault:
        raise LedgerUnreadable(f"{path}: {fault}") from fault


def _folded(connection: sqlite3.Connection, path: Path) -> tuple[int, str]:
    frontier, log_time, position = Frontier(), 0, 0
    stored = _stored_leaves(connection)
    for position, stream, version, topic, state in connection.execute(
            "SELECT rowid, originator_id, originator_version, topic, CAST(state AS BLOB) FROM stored_events "
            "ORDER BY rowid"):
        if position != frontier.size + 1:
            raise LedgerUnreadable(f"{path}: expected log position {frontier.size + 1}, came {position}")
        leaf = leaf_hash(position, stream, version, topic, state)
        if leaf != next(stored, None):
            raise LedgerUnreadable(f"{path}: the event at log position {position} is not the one that was recorded")
        frontier.append(leaf)
    if next(stored, None) is not None:
        raise LedgerUnreadable(f"{path}: the log ends at {position}, and more was recorded")
    if position:
        topic, state = connection.execute("SELECT topic, CAST(state AS BLOB) FROM stored_events WHERE rowid = ?",
                                          (position,)).fetchone()
        log_time = decode(topic, state).time
    head = connection.execute("SELECT position, log_time, frontier, root FROM ledger_head").fetchone()
    expected = (position, log_time, frontier.to_bytes(), frontier.root())
    if (position if head is None else head != expected):
        raise LedgerUnreadable(f"{path}: the head is not that of the log, which ends at {position} with root "
                               f"{frontier.root().hex()}")
    beyond = connection.execute("SELECT source, record_key FROM inbox WHERE position NOT BETWEEN 1 AND ? LIMIT 1",
                                (position,)).fetchone()
    if beyond is not None:
        raise LedgerUnreadable(f"{path}: the inbox says of {beyond[0]!r} {beyond[1]!r} what the log does not hold")
    return position, frontier.root().hex()


def _stored_leaves(connection: sqlite3.Connection) -> Iterator[bytes]:
    for (hashes,) in connection.execute("SELECT hashes FROM merkle_leaves ORDER BY first_position"):
        for start in range(0, len(hashes), 32):
            yield hashes[start : start + 32]


def _require_whole(path: Path) -> None:
    try:
        with closing(connect(str(path), read_only=True)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.Error as fault:
        raise LedgerUnreadable(f"{path}: the file is damaged: {fault}") from fault
    if found != "ok":
        raise LedgerUnreadable(f"{path}: the file is damaged: {found}")


def _require_ledger(path: Path) -> None:
    if not path.is_file():
        raise LedgerUnreadable(f"expected a ledger file at {path}, there is {'no file' if path.exists() else 'none'}")


# --- copies ------------------------------------------------------------------------------------------------------


def _copy(source: Path, target: Path, progress: Progress | None) -> tuple[int, str]:
    """Copy what stood in a ledger at one moment; where its head said that it ended."""
    try:
        with closing(connect(str(source), read_only=True)) as read, closing(connect(str(target))) as written:
            # Within a transaction all steps copy the same moment; outside, each commit beside us would start it anew.
            read.execute("BEGIN")
            head = read.execute("SELECT position, root FROM ledger_head").fetchone()
            tell = None if progress is None else lambda _, left, total: progress(total - left, total)
            read.backup(written, pages=PAGES_A_STEP, progress=tell)
            # One file and nothing beside it, so that it may be moved and kept anywhere.
            written.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as fault:
        if isinstance(fault, sqlite3.DatabaseError) and not isinstance(fault, sqlite3.OperationalError):
            raise LedgerUnreadable(f"{source}: the file is damaged: {fault}") from fault
        raise
    return (head[0], head[1].hex()) if head else (0, Frontier().root().hex())


@contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """A file to write that gets the target's name at the end, if nothing bears it by then; else it is deleted."""
    for path in (target, Path(f"{target}-wal"), Path(f"{target}-shm"), Path(f"{target}-journal")):
        if path.exists() or path.is_symlink():
            raise TargetExists(f"expected no file at {path}, there is one; nothing is overwritten: name another, or "
                               "move that one away")
    if not target.parent.is_dir():
        raise LedgerUnreadable(f"expected a folder {target.parent}, there is none")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.touch(exist_ok=False)
        yield partial
        _sync(partial)
        try:
            os.link(partial, target)  # unlike renaming, this never replaces
        except FileExistsError:
            raise TargetExists(f"expected no file at {target}, one was made meanwhile") from None
        except OSError:
            if target.exists():
                raise
            partial.rename(target)  # a file system without links
        _sync(target.parent)
    finally:
        for path in (partial, *(Path(f"{partial}-{end}") for end in ("wal", "shm", "journal"))):
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """What was written to a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
