"""The embedded store: one SQLite file a ledger, WAL, synchronous FULL, one transaction a batch.

Rows of the log stay ordinary eventsourcing rows, which the stock recorder reads unaltered. Whatever moves with
them (inbox, source positions, Merkle leaves, head) is in tables of our own and commits with them. This file never
looks into an event.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from eventsourcing.persistence import IntegrityError, ProcessRecorder, StoredEvent
from eventsourcing.sqlite import (
    SQLITE3_DEFAULT_LOCK_TIMEOUT,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
    SQLiteFactory,
    SQLiteProcessRecorder,
)

from infra.store.commit import Commit, Head, InboxKey, SourcePosition

# 64 MiB of page cache, and a checkpoint each 16 MiB of log: inbox ids arrive in random order, so the pages that
# they touch are worth keeping, and rewriting them less often is worth a longer log.
CACHE_KIBIBYTES: Final = 65_536
CHECKPOINT_PAGES: Final = 4_096
# A commit has about thirty statements, a look-up of keys one for each number of keys.
STATEMENTS_KEPT: Final = 96
# Rows go into a table this many at a statement, then half as many, down to one: few statements, all of them kept.
ROWS_PER_INSERT: Final = 512
# SQLite's bound on variables in one statement is 32,766; three a key.
KEYS_PER_SELECT: Final = 500

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS ledger_settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS ledger_head (id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL, "
    "log_time INTEGER NOT NULL, frontier BLOB NOT NULL, root BLOB NOT NULL)",
    # Hashes of consecutive positions from `first_position` on, 32 bytes each: one row a commit.
    "CREATE TABLE IF NOT EXISTS merkle_leaves (first_position INTEGER PRIMARY KEY, hashes BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS inbox (source TEXT NOT NULL, kind TEXT NOT NULL, record_key TEXT NOT NULL, "
    "position INTEGER NOT NULL, PRIMARY KEY (source, kind, record_key)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS stream_position (source TEXT NOT NULL, partition INTEGER NOT NULL, "
    "next_offset INTEGER NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (source, partition)) WITHOUT ROWID",
    # States at one position, so that a start need not fold the whole log; no part of it, and never needed.
    "CREATE TABLE IF NOT EXISTS ledger_snapshot (position INTEGER NOT NULL, part INTEGER NOT NULL, "
    "content BLOB NOT NULL, PRIMARY KEY (position, part))",
    # How far a relay has published: `infra.streams.outflow` alone writes it.
    "CREATE TABLE IF NOT EXISTS relay_position (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
)


def _insert_rows(c: SQLiteCursor, table: str, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows in order, many at a statement: while one runs, the interpreter is free to decide the next batch.

    `executemany` would ask for the interpreter again at every row.
    """
    start, many = 0, ROWS_PER_INSERT
    while start < len(rows):
        while many > len(rows) - start:
            many //= 2
        places = f"({','.join('?' * len(rows[0]))})"
        c.execute(f"INSERT INTO {table} VALUES {','.join([places] * many)}",
                  [value for row in rows[start:start + many] for value in row])
        start += many


class _Pool(SQLiteConnectionPool):
    def _create_connection(self) -> SQLiteConnection:
        # The library's own connection remembers one statement, so that it prepares all of a commit anew each time.
        connection = sqlite3.connect(
            self.db_name, uri=True, check_same_thread=False, isolation_level=None, cached_statements=STATEMENTS_KEPT,
            timeout=self.lock_timeout or SQLITE3_DEFAULT_LOCK_TIMEOUT)
        try:
            for setting in ("journal_mode=WAL", "synchronous=FULL", f"cache_size=-{CACHE_KIBIBYTES}",
                            f"wal_autocheckpoint={CHECKPOINT_PAGES}"):
                connection.execute(f"PRAGMA {setting}")
        except sqlite3.Error:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        return SQLiteConnection(sqlite_conn=connection, max_age=self.max_age)


class _Datastore(SQLiteDatastore):
    def __init__(self, db_name: str, **options: Any) -> None:
        super().__init__(db_name, **options)
        self.pool.close()
        self.pool = _Pool(db_name=db_name, lock_timeout=options.get("lock_timeout"))


class SQLiteRecorder(SQLiteProcessRecorder):
    """Bulk insertion, and the tables that move with the log."""

    def construct_create_table_statements(self) -> list[str]:
        """The library's tables, then ours."""
        return [*super().construct_create_table_statements(), *TABLES]

    def _insert_events(self, c: SQLiteCursor, stored_events: Sequence[StoredEvent],
                       **kwargs: Any) -> Sequence[int] | None:
        commit: Commit = kwargs["commit"]
        first = commit.expected + 1
        # The library begins transactions as readers. One that has read cannot wait for the read models' writer beside
        # it ("database is locked" at once), so the first statement asks for the right to write, and waits for it.
        c.execute("UPDATE ledger_head SET id = id WHERE 0")
        c.execute("SELECT COALESCE(MAX(rowid), 0) FROM stored_events")
        end = c.fetchone()[0]
        if end != commit.expected:
            raise IntegrityError(f"expected the log to end at {commit.expected}, it ends at {end}")
        _insert_rows(c, self.events_table_name,
                     [(s.originator_id, s.originator_version, s.topic, s.state) for s in stored_events])
        c.execute("SELECT COALESCE(MAX(rowid), 0) FROM stored_events")
        end = c.fetchone()[0]
        if end != commit.head.position:
            raise IntegrityError(f"expected the log to end at {commit.head.position}, it ends at {end}")
        _insert_rows(c, "inbox", [(*key, position) for key, position in commit.inbox])
        if stored_events:
            c.execute("INSERT INTO merkle_leaves VALUES (?,?)", (first, commit.leaves))
        for before, after in commit.positions:
            self._move(c, before, after)
        head = commit.head
        c.execute("INSERT OR REPLACE INTO ledger_head VALUES (1,?,?,?,?)",
                  (head.position, head.log_time, head.frontier, head.root))
        return range(first, end + 1)

    @staticmethod
    def _move(c: SQLiteCursor, before: SourcePosition | None, after: SourcePosition) -> None:
        if before is None:
            c.execute("INSERT INTO stream_position VALUES (?,?,?,?)", tuple(after))
            return
        c.execute("UPDATE stream_position SET next_offset=?, epoch=? WHERE source=? AND partition=? AND next_offset=? "
                  "AND epoch=?", (after.next_offset, after.epoch, after.source, after.partition, before.next_offset,
                                  before.epoch))
        c.execute("SELECT changes()")
        if c.fetchone()[0] != 1:
            raise IntegrityError(f"position of {after.source}[{after.partition}] was moved by another writer")

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        with self.datastore.transaction(commit=False) as c:
            c.execute(statement, values)
            return [tuple(row) for row in c.fetchall()]

    def head(self) -> Head | None:
        """Where the log ends."""
        rows = self._rows("SELECT position, log_time, frontier, root FROM ledger_head")
        return Head(*rows[0]) if rows else None

    def known(self, keys: Iterable[InboxKey]) -> Mapping[InboxKey, int]:
        """Which keys are spent."""
        found: dict[InboxKey, int] = {}
        remaining = iter(keys)
        with self.datastore.transaction(commit=False) as c:
            while chunk := list(islice(remaining, KEYS_PER_SELECT)):
                # Joined in this order, each key is one search of the primary key; `IN (VALUES ...)` scans the inbox.
                c.execute(f"WITH wanted (s, k, r) AS (VALUES {','.join(['(?,?,?)'] * len(chunk))}) "
                          "SELECT source, kind, record_key, position FROM wanted CROSS JOIN inbox "
                          "ON source = s AND kind = k AND record_key = r", [part for key in chunk for part in key])
                found.update(((row[0], row[1], row[2]), row[3]) for row in c.fetchall())
        return found

    def inbox(self) -> Iterable[tuple[InboxKey, int]]:
        """All spent keys, in order."""
        rows = self._rows("SELECT source, kind, record_key, position FROM inbox ORDER BY source, kind, record_key")
        return [((source, kind, key), position) for source, kind, key, position in rows]

    def leaves(self) -> bytes:
        """All leaf hashes."""
        rows = self._rows("SELECT first_position, hashes FROM merkle_leaves ORDER BY first_position")
        return b"".join(hashes for _, hashes in rows)

    def source_positions(self) -> Mapping[tuple[str, int], SourcePosition]:
        """The stored positions."""
        rows = self._rows("SELECT source, partition, next_offset, epoch FROM stream_position")
        return {(row[0], row[1]): SourcePosition(*row) for row in rows}

    def settings(self) -> Mapping[str, str]:
        """The ledger's settings."""
        return dict(self._rows("SELECT name, value FROM ledger_settings"))

    def put_settings(self, settings: Mapping[str, str]) -> None:
        """Write the settings of a new ledger."""
        with self.datastore.transaction(commit=True) as c:
            c.executemany("INSERT OR REPLACE INTO ledger_settings VALUES (?,?)", list(settings.items()))

    def snapshots(self) -> Sequence[int]:
        """The positions of whole snapshots."""
        return [position for position, in self._rows("SELECT position FROM ledger_snapshot WHERE part = 0")]

    def snapshot_parts(self, position: int) -> Iterable[bytes]:
        """The parts of a snapshot."""
        rows = self._rows("SELECT part FROM ledger_snapshot WHERE position = ? ORDER BY part", (position,))
        for part, in rows:
            for content, in self._rows("SELECT content FROM ledger_snapshot WHERE position = ? AND part = ?",
                                       (position, part)):
                yield bytes(content)

    def put_snapshot_part(self, position: int, part: int, content: bytes) -> None:
        """Write a part of a snapshot."""
        with self.datastore.transaction(commit=True) as c:
            c.execute("INSERT OR REPLACE INTO ledger_snapshot VALUES (?,?,?)", (position, part, content))

    def drop_snapshots(self, *, keep: int | None = None) -> None:
        """Delete all snapshots but one."""
        with self.datastore.transaction(commit=True) as c:
            c.execute("DELETE FROM ledger_snapshot WHERE position IS NOT ?", (keep,))

    def close(self) -> None:
        """Close the connections."""
        self.datastore.close()


class Factory(SQLiteFactory):
    """Named by PERSISTENCE_MODULE as `infra.store.sqlite:Factory`."""

    process_recorder_class = SQLiteRecorder

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.datastore.close()
        self.datastore = _Datastore(db_name=str(self.env.get(self.SQLITE_DBNAME)), originator_id_type="text")

    def process_recorder(self) -> ProcessRecorder:
        """The recorder over its tables. Where they cannot be made, no connection keeps the file locked."""
        try:
            return super().process_recorder()
        except BaseException:
            self.datastore.close()
            raise


def file_uri(path: str) -> str:
    """The database name of a file, safe for paths with any characters."""
    return f"file:{quote(path)}"


def connect(path: str, *, read_only: bool = False) -> sqlite3.Connection:
    """A plain connection for read models and queries."""
    return sqlite3.connect(f"{file_uri(path)}?mode=ro" if read_only else file_uri(path), uri=True,
                           isolation_level=None)
