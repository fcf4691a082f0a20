"""A ledger and its readers: one SQLite file, or one shard of a PostgreSQL server, with one writer.

Opening takes the writer's lock (a second writer is refused with the name of the first), lets SQLite check the file
and the shard check the log against its root. Readers need no lock. What is a server's is in `infra.served`. This
file never decides or records anything.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from eventsourcing.persistence import PersistenceError

from infra.shard import Shard
from infra.store.address import PostgresAddress, ledger_address
from infra.store.commit import require_format
from infra.store.sqlite import connect, file_uri
from infra.venue import SimulatedVenue
from ledger.clearing_house import ClearingHouse
from ledger.encoding import decode
from ledger.errors import LedgerLocked, LedgerUnreadable
from ledger.events import Recorded
from projections.book import Book
from projections.database import Connection
from projections.read_model import ReadModels

MAPPER: Final = "infra.store.mapper:EventMapper"
# Above this size SQLite's own check would take minutes; the shard's check of rows against the root remains.
QUICK_CHECK_BYTES: Final = 256 * 1024 * 1024


def in_memory(*, venue: SimulatedVenue | None = None) -> Shard:
    """A ledger that lives as long as its process."""
    house = ClearingHouse({"PERSISTENCE_MODULE": "infra.store.memory:Factory", "MAPPER_TOPIC": MAPPER},
                          nominator=Book())
    shard = Shard(house, venue=venue)
    shard.open()
    return shard


@contextmanager
def open_ledger(ledger: str | Path | PostgresAddress, *, venue: SimulatedVenue | None = None,
                progress: Callable[[int], None] | None = None) -> Iterator[Shard]:
    """The writer over a ledger file or a shard of a server, made where there is none.

    LedgerLocked names the writer that holds it; LedgerUnreadable says what of the ledger cannot be read.
    """
    path = ledger_address(ledger)
    if isinstance(path, PostgresAddress):
        from infra.served import open_shard

        with open_shard(path, venue=venue, progress=progress) as shard:
            yield shard
        return
    if not path.parent.is_dir():
        raise LedgerUnreadable(f"expected a folder {path.parent}, there is none")
    with locked(path):
        if path.exists() and path.stat().st_size:
            check_file(path, may_be_empty=True)
        try:
            house = ClearingHouse({"PERSISTENCE_MODULE": "infra.store.sqlite:Factory", "MAPPER_TOPIC": MAPPER,
                                   "SQLITE_DBNAME": file_uri(str(path))}, nominator=Book())
        except (PersistenceError, sqlite3.Error) as fault:
            raise LedgerUnreadable(f"{path}: {fault}") from fault
        try:
            shard = Shard(house, venue=venue)
            shard.open(progress)
            yield shard
            shard.close()
        finally:
            house.close()


def check_file(path: Path, *, may_be_empty: bool = False) -> None:
    """LedgerUnreadable unless a file is a sound database with a ledger of this format.

    An empty database is what a writer leaves that died as it made one; whoever writes may go on with it.
    """
    try:
        connection = connect(str(path), read_only=True)
        try:
            if may_be_empty and not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                return
            require_format(dict(connection.execute("SELECT name, value FROM ledger_settings")))
            if path.stat().st_size <= QUICK_CHECK_BYTES:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    raise LedgerUnreadable(f"the file is damaged: {found}")
        finally:
            connection.close()
    except sqlite3.Error as fault:
        raise LedgerUnreadable(f"{path}: not a ledger file: {fault}") from fault
    except LedgerUnreadable as fault:
        raise LedgerUnreadable(f"{path}: {fault}") from None


def lock_of(path: Path) -> Path:
    """The file that is locked while a ledger is written; one and the same by whatever link the ledger is named."""
    return Path(f"{path.resolve()}.lock")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the ledger's lock while writing; the kernel lets go of it when the process dies, however it dies."""
    lock = lock_of(path)
    descriptor, is_new = _locked(path, lock)
    try:
        os.ftruncate(descriptor, 0)
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename} since {started}\n".encode(), 0)
        yield
    except LedgerUnreadable:
        if is_new:  # nothing that is no ledger is left with a lock beside it
            lock.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _locked(path: Path, lock: Path) -> tuple[int, bool]:
    """The locked file's descriptor, and whether it was made for this. LedgerLocked names who holds it."""
    while True:
        is_new = not lock.exists()
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A lock that was deleted meanwhile guards nothing: the next one to come would make another.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    return descriptor, is_new
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise LedgerLocked(f"{path} is being written by {holder}; expected one writer") from None
        os.close(descriptor)


class LedgerReader:
    """Reads a ledger file beside its writer: the log, and the read models brought up to it."""

    ROWS = ("SELECT rowid, originator_id, originator_version, topic, CAST(state AS BLOB) FROM stored_events "
            "WHERE rowid > ? ORDER BY rowid LIMIT ?")
    END = "SELECT COALESCE(MAX(rowid), 0) FROM stored_events"
    TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
    SNAPSHOT = "BEGIN"

    # In the manner of `sqlite3`, whatever the store.
    connection: Connection

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.exists():
            raise LedgerUnreadable(f"expected a ledger at {path}, there is none")
        check_file(path)
        self.path: Path | PostgresAddress = path
        self.connection = connect(str(path))

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def rows(self, after: int, limit: int) -> list[tuple[int, str, int, str, bytes]]:
        """(position, stream, version, topic, state) of the log's rows after a position, as stored."""
        return self.connection.cursor().execute(self.ROWS, (after, limit)).fetchall()

    def select(self, after: int, limit: int) -> Sequence[Recorded]:
        """The log's events after a position."""
        return [Recorded(position, stream, version, decode(topic, state))
                for position, stream, version, topic, state in self.rows(after, limit)]

    def log(self, after: int = 0, until: int | None = None) -> Iterator[Recorded]:
        """The log's events, page by page."""
        while page := self.select(after, 5_000):
            for recorded in page:
                if until is not None and recorded.position > until:
                    return
                yield recorded
            after = page[-1].position

    def owner(self) -> str | None:
        """Who writes the ledger now; None where nobody does."""
        with suppress(FileNotFoundError), lock_of(Path(str(self.path))).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read(200).strip() or "another process"
        return None

    def end(self) -> int:
        """The log's last position."""
        return int(self.ask(self.END)[0][0])

    def settings(self) -> dict[str, str]:
        """What the ledger notes of itself."""
        return dict(self.ask("SELECT name, value FROM ledger_settings"))

    def tables(self) -> set[str]:
        """The tables that there are."""
        return {row[0] for row in self.ask(self.TABLES)}

    def ask(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows that a statement selects, of tables that are named alike in every store."""
        return self.connection.cursor().execute(statement, values).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Whatever is read meanwhile is of one moment."""
        self.connection.cursor().execute(self.SNAPSHOT)
        try:
            yield
        finally:
            self.connection.cursor().execute("ROLLBACK")

    def position_at(self, time: int) -> int:
        """The last position recorded at or before a log time."""
        low, high = 0, self.end()
        while low < high:  # log time never goes back
            middle = (low + high + 1) // 2
            if self.select(middle - 1, 1)[0].event.time <= time:
                low = middle
            else:
                high = middle - 1
        return low

    def read_models(self, *, until: int | None = None,
                    progress: Callable[[int], None] | None = None) -> Connection:
        """A connection whose `view_` tables stand at the end of the log, or were rebuilt up to a position."""
        connection = self.connection if until is None else sqlite3.connect(":memory:", isolation_level=None)
        models = ReadModels(connection)
        models.create()
        models.catch_up(self.select, until=until, progress=progress)
        return connection


def open_reader(ledger: str | Path | PostgresAddress) -> LedgerReader:
    """The reader of a ledger file or of a shard of a server. LedgerUnreadable where there is none."""
    address = ledger_address(ledger)
    if isinstance(address, PostgresAddress):
        from infra.served import ShardReader

        return ShardReader(address)
    return LedgerReader(address)
