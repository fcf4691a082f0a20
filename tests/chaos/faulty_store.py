"""The SQLite store over a connection that fails at a chosen statement: the real recorder, with a real file below.

Statements are counted from the opening on: whatever the recorder says to SQLite, BEGIN, COMMIT and ROLLBACK included.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from eventsourcing.sqlite import SQLiteConnection

from infra.embedded import MAPPER, locked
from infra.shard import Shard
from infra.store import sqlite
from infra.store.sqlite import file_uri
from infra.venue import SimulatedVenue
from ledger.clearing_house import ClearingHouse
from projections.book import Book

# Before: the statement never reaches the file. After: it was carried out, and its answer is lost. For good: neither
# this statement nor any after it is carried out, as with a disk that is gone.
Moment = Literal["before", "after", "for good"]


class Fault:
    """At which statement, in which moment; `statements` were said so far, `struck` once it happened."""

    def __init__(self, number: int | None, moment: Moment = "before") -> None:
        self.number, self.moment = number, moment
        self.statements = 0
        self.struck = False

    @contextmanager
    def around(self) -> Iterator[None]:
        """A statement."""
        self.statements += 1
        is_it = self.statements == self.number or (self.struck and self.moment == "for good")
        if is_it and self.moment != "after":
            self.strike()
        yield
        if is_it:
            self.strike()

    def strike(self) -> None:
        """Fail as SQLite does where the disk does."""
        self.struck = True
        raise sqlite3.OperationalError("disk I/O error")


class _Connection(sqlite3.Connection):
    fault: Fault

    def cursor(self, *_: Any) -> Any:
        """A cursor whose statements are counted."""
        return super().cursor(_Cursor)

    def commit(self) -> None:
        with self.fault.around():
            super().commit()

    def rollback(self) -> None:
        with self.fault.around():
            super().rollback()


class _Cursor(sqlite3.Cursor):
    def _around(self) -> Any:
        connection = self.connection
        assert isinstance(connection, _Connection)
        return connection.fault.around()

    def execute(self, *arguments: Any) -> _Cursor:
        with self._around():
            super().execute(*arguments)
        return self

    def executemany(self, *arguments: Any) -> _Cursor:
        with self._around():
            super().executemany(*arguments)
        return self


class Recorder(sqlite.SQLiteRecorder):
    """The real recorder; its file is reached by connections that fail."""

    # What all connections share, since the library makes them as it needs them.
    fault = Fault(None)


class Factory(sqlite.Factory):
    """Named by PERSISTENCE_MODULE as `tests.chaos.faulty_store:Factory`."""

    process_recorder_class = Recorder

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.datastore.pool.close()
        self.datastore.pool = _Pool(db_name=self.datastore.pool.db_name)


class _Pool(sqlite._Pool):
    def _create_connection(self) -> SQLiteConnection:
        made = sqlite3.connect(self.db_name, uri=True, check_same_thread=False, isolation_level=None,
                               factory=_Connection)
        made.fault = Recorder.fault
        try:
            # The settings of the store, which a plain connection of it carries.
            for setting in ("journal_mode=WAL", "synchronous=FULL"):
                made.execute(f"PRAGMA {setting}")
        except sqlite3.Error:
            made.close()
            raise
        made.row_factory = sqlite3.Row
        return SQLiteConnection(sqlite_conn=made, max_age=self.max_age)


@contextmanager
def open_failing(path: Path, fault: Fault) -> Iterator[Shard]:
    """The writer over a ledger file, as `infra.embedded.open_ledger` makes it, that meets a fault."""
    Recorder.fault = fault
    with locked(path):
        house = ClearingHouse({"PERSISTENCE_MODULE": "tests.chaos.faulty_store:Factory", "MAPPER_TOPIC": MAPPER,
                               "SQLITE_DBNAME": file_uri(str(path))}, nominator=Book())
        try:
            shard = Shard(house, venue=SimulatedVenue())
            shard.open()
            yield shard
        finally:
            house.close()
