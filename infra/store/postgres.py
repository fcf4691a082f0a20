"""The PostgreSQL store: a schema a shard, one transaction a batch, one connection that holds the shard and commits.

Rows of the log stay ordinary eventsourcing rows, which the stock recorder reads unaltered. Positions are given by the
writer and checked, so there are no gaps whatever is rolled back. Events and inbox go in by binary COPY, and never
through psycopg's pipeline, which can wait for ever once a batch outgrows the socket's buffer. The writer's lock is
an advisory lock of the very connection that commits: when that is lost, so is the lock, and nothing more is written.
The library's own insertion, its function in the database and its table lock are not used; docs/postgres.md has the
reasons. This file never looks into an event.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, Final, LiteralString

import eventsourcing.persistence
import psycopg
from eventsourcing.persistence import IntegrityError, OperationalError, PersistenceError, StoredEvent
from eventsourcing.postgres import (
    BasePostgresFactory,
    ConnectionPool,
    PostgresDatastore,
    PostgresFactory,
    PostgresProcessRecorder,
)
from psycopg import Connection, Cursor
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, TupleRow, dict_row
from psycopg.sql import SQL, Composed, Identifier

from infra.store.commit import Commit, Head, InboxKey, SourcePosition
from ledger.errors import LedgerLocked, LedgerUnreadable

CONNECT_SECONDS_MAX: Final = 10
# A lock that another session holds for longer stops the writer instead of holding up its sources without a word.
LOCK_SECONDS_MAX: Final = 10
# A writer that is frozen in the middle of a commit loses it, and the shard, after so long.
IDLE_SECONDS_MAX: Final = 10
READ_CONNECTIONS_MAX: Final = 5
KEYS_PER_SELECT: Final = 5_000
# A peer that is gone without a word is noticed in about this time, here and at the server, and so its lock is free.
KEEPALIVES: Final = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
                     "tcp_user_timeout": 15_000}
SERVER_KEEPALIVES: Final[LiteralString] = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3")
# The first key of our advisory locks; the second is the schema's own number.
LOCK_CLASS: Final = 0x636C7200
CREATION: Final = 0

# Texts are compared by their bytes, as SQLite does it, whatever the database's own order is.
TABLES: Final[tuple[LiteralString, ...]] = (
    "CREATE TABLE {schema}.ledger_settings (name TEXT COLLATE \"C\" PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE {schema}.ledger_head (id INT PRIMARY KEY CHECK (id = 1), position BIGINT NOT NULL, "
    "log_time BIGINT NOT NULL, frontier BYTEA NOT NULL, root BYTEA NOT NULL)",
    # Hashes of consecutive positions from `first_position` on, 32 bytes each: one row a commit.
    "CREATE TABLE {schema}.merkle_leaves (first_position BIGINT PRIMARY KEY, hashes BYTEA NOT NULL)",
    "CREATE TABLE {schema}.inbox (source TEXT COLLATE \"C\" NOT NULL, kind TEXT COLLATE \"C\" NOT NULL, "
    "record_key TEXT COLLATE \"C\" NOT NULL, position BIGINT NOT NULL, PRIMARY KEY (source, kind, record_key))",
    "CREATE TABLE {schema}.stream_position (source TEXT COLLATE \"C\" NOT NULL, partition INT NOT NULL, "
    "next_offset BIGINT NOT NULL, epoch BIGINT NOT NULL, PRIMARY KEY (source, partition))",
    # The library lets these be missing; a row without them is no event.
    "ALTER TABLE {schema}.stored_events ALTER topic SET NOT NULL, ALTER state SET NOT NULL",
    # Who writes, for people to read: the backend whose lock it is, and the process behind it.
    # How far a relay has published: `infra.streams.outflow` alone writes it.
    "CREATE TABLE {schema}.relay_position (name TEXT PRIMARY KEY, position BIGINT NOT NULL)",
    "CREATE TABLE {schema}.ledger_writer (id INT PRIMARY KEY CHECK (id = 1), backend INT NOT NULL, "
    "holder TEXT NOT NULL)",
)

# Made with the first snapshot: shards of before have none. No part of the log, and never needed.
SNAPSHOTS: Final[LiteralString] = (
    "CREATE TABLE IF NOT EXISTS {schema}.ledger_snapshot (position BIGINT NOT NULL, part INT NOT NULL, "
    "content BYTEA NOT NULL, PRIMARY KEY (position, part))")


@contextmanager
def translated() -> Iterator[None]:
    """Faults of psycopg as those of the library, which every store speaks in."""
    try:
        yield
    except psycopg.Error as fault:
        kinds = (getattr(eventsourcing.persistence, kind.__name__, None) for kind in type(fault).__mro__)
        known = next((kind for kind in kinds if kind is not None), PersistenceError)
        raise known(str(fault)) from fault


def connection_options(dsn: str) -> dict[str, Any]:
    """What a connection is told beside its address, as far as that does not say it itself. BadAddress is libpq's."""
    said = conninfo_to_dict(dsn)
    return {name: value for name, value in {
        **KEEPALIVES, "connect_timeout": CONNECT_SECONDS_MAX, "application_name": f"clearing {os.getpid()}",
        "client_encoding": "UTF8"}.items() if name not in said}


def _configure(connection: Connection[Any]) -> None:
    connection.autocommit = True
    connection.execute(SQL("SET idle_in_transaction_session_timeout = {}").format(f"{IDLE_SECONDS_MAX}s"))
    connection.execute(SQL("SET lock_timeout = {}").format(f"{LOCK_SECONDS_MAX}s"))


class _Datastore(PostgresDatastore):
    """The library's datastore, connected by an address instead of by its parts; its pool only ever reads."""

    def __init__(self, dsn: str, schema: str) -> None:
        super().__init__("", "", "", "", "", schema=schema, originator_id_type="text", lock_timeout=LOCK_SECONDS_MAX)
        self.dsn = dsn
        self.writer: Connection[TupleRow] | None = None
        self.pool.close()
        self.pool = ConnectionPool(
            dsn, connection_class=Connection[DictRow], kwargs={**connection_options(dsn), "row_factory": dict_row},
            min_size=1, max_size=READ_CONNECTIONS_MAX, open=False, configure=_configure,
            timeout=CONNECT_SECONDS_MAX)

    def register_type_adapters(self) -> None:
        """None: the types are for the library's insertion."""

    def close(self) -> None:
        """Close the connections, and let go of the shard."""
        if self.writer is not None:
            with suppress(psycopg.Error):
                self.writer.close()
        super().close()


class PostgresRecorder(PostgresProcessRecorder):
    """Bulk insertion, the tables that move with the log, and the writer's lock."""

    datastore: _Datastore

    def __init__(self, datastore: _Datastore, **names: str) -> None:
        super().__init__(datastore, **names)
        self.schema = datastore.schema
        # Shards share a database, and channels are the database's.
        self.channel_name = f"{self.schema}_events"
        self._is_locked = False
        self._begin = self._sql(
            "INSERT INTO {schema}.ledger_head AS h VALUES (1, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET "
            "position = EXCLUDED.position, log_time = EXCLUDED.log_time, frontier = EXCLUDED.frontier, "
            "root = EXCLUDED.root WHERE h.position = %s RETURNING "
            "(SELECT COALESCE(MAX(notification_id), 0) FROM {schema}.stored_events)")
        self._copy_events = self._sql(
            "COPY {schema}.stored_events (originator_id, originator_version, topic, state, notification_id) "
            "FROM STDIN (FORMAT BINARY)")
        self._copy_inbox = self._sql("COPY {schema}.inbox (source, kind, record_key, position) "
                                     "FROM STDIN (FORMAT BINARY)")
        self._insert_leaves = self._sql("INSERT INTO {schema}.merkle_leaves VALUES (%s, %s) "
                                        "RETURNING pg_notify(%s, %s)")
        self._insert_position = self._sql("INSERT INTO {schema}.stream_position VALUES (%s, %s, %s, %s)")
        self._update_position = self._sql(
            "UPDATE {schema}.stream_position SET next_offset = %s, epoch = %s WHERE source = %s AND partition = %s "
            "AND next_offset = %s AND epoch = %s")

        self._known = self._sql(
            "SELECT source, kind, record_key, position FROM unnest(%s::text[], %s::text[], %s::text[]) "
            "AS wanted (s, k, r) JOIN {schema}.inbox ON source = s AND kind = k AND record_key = r")

    def _sql(self, statement: LiteralString) -> Composed:
        return SQL(statement).format(schema=Identifier(self.schema))

    # --- tables --------------------------------------------------------------------------------------------------

    def create_table(self) -> None:
        """Make schema and tables where there are none. LedgerUnreadable where the schema is somebody else's."""
        with translated(), self._writer().transaction(), self._writer().cursor(row_factory=dict_row) as c:
            # Two processes may come at once; the second waits for the first and finds all done.
            c.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, CREATION))
            c.execute("SELECT current_setting('server_encoding') AS encoding, "
                      "to_regnamespace(quote_ident(%(schema)s)) IS NOT NULL AS has_schema, "
                      "ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = "
                      "to_regnamespace(quote_ident(%(schema)s)) AND relkind IN ('r', 'p', 'v', 'm')) AS tables",
                      {"schema": self.schema})
            found = c.fetchone()
            if found is None or found["encoding"] != "UTF8":
                raise LedgerUnreadable("expected a database in UTF8, since ids may hold any character, came "
                                       f"{found and found['encoding']}")
            if "ledger_settings" in found["tables"]:
                return
            if found["tables"]:
                raise LedgerUnreadable(f"schema {self.schema}: expected a ledger or nothing, came the tables "
                                       f"{', '.join(sorted(found['tables'])[:5])}; name another shard")
            if not found["has_schema"]:
                c.execute(self._sql("CREATE SCHEMA {schema}"))
            for statement in self.sql_create_statements:
                # The library's own insertion is not for us: its function would drop what moves with the events.
                if not statement.as_string().startswith(("CREATE TYPE", "CREATE OR REPLACE FUNCTION")):
                    c.execute(statement)
            for table in TABLES:
                c.execute(self._sql(table))

    # --- the writer ----------------------------------------------------------------------------------------------

    def lock(self, *, takes_over: bool = False) -> None:
        """Hold the shard as long as the writer's connection lives; the server lets go of it when the process dies.

        LedgerLocked names whoever holds it. `takes_over` ends the connection of the holder first, which can then
        commit nothing more: for a worker that owns the shard now and knows that the other does not.
        """
        with translated():
            connection = self._writer()
            number = self._number(connection)
            held = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (LOCK_CLASS, number)).fetchone() == (True,)
            if not held and takes_over:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, %s) FROM pg_locks WHERE locktype = 'advisory' AND granted "
                    "AND classid = %s::oid AND objid = %s::int4::oid AND database = "
                    "(SELECT oid FROM pg_database WHERE datname = current_database())",
                    (LOCK_SECONDS_MAX * 1_000, LOCK_CLASS, number))
                held = connection.execute("SELECT pg_try_advisory_lock(%s, %s)",
                                          (LOCK_CLASS, number)).fetchone() == (True,)
            if not held:
                raise LedgerLocked(f"shard {self.schema} is being written by {self._holder(connection, number)}; "
                                   "expected one writer")
            self._is_locked = True
            started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            connection.execute(
                self._sql("INSERT INTO {schema}.ledger_writer VALUES (1, %s, %s) ON CONFLICT (id) DO UPDATE SET "
                          "backend = EXCLUDED.backend, holder = EXCLUDED.holder"),
                (connection.info.backend_pid, f"process {os.getpid()} on {os.uname().nodename} since {started}"))

    def owner(self) -> str | None:
        """Who holds the shard now; None where nobody does."""
        with self.datastore.get_connection() as connection:
            return owner(connection, self.schema)

    def _holder(self, connection: Connection[TupleRow], number: int) -> str:
        return owner(connection, self.schema) or "another process"

    def _number(self, connection: Connection[TupleRow]) -> int:
        row = connection.execute("SELECT to_regnamespace(quote_ident(%s))::oid::int4", (self.schema,)).fetchone()
        if row is None or row[0] is None:
            raise LedgerUnreadable(f"expected a schema {self.schema}, there is none")
        return int(row[0])

    def _writer(self) -> Connection[TupleRow]:
        """The one connection that writes; once it held the lock, never another."""
        if self.datastore.writer is None or self.datastore.writer.closed:
            if self._is_locked:
                raise OperationalError("the connection that held the shard is lost, and the shard with it; open the "
                                       "ledger again to go on from its last commit")
            connection = psycopg.connect(self.datastore.dsn, **connection_options(self.datastore.dsn))
            _configure(connection)
            connection.execute(SERVER_KEEPALIVES)
            # Whatever stronger the server is set to stays.
            connection.execute("SELECT set_config('synchronous_commit', 'on', false) "
                               "WHERE current_setting('synchronous_commit') = 'off'")
            self.datastore.writer = connection
        return self.datastore.writer

    # --- commits -------------------------------------------------------------------------------------------------

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """One transaction, never tried again: whoever lost the answer to a commit opens the ledger anew to see."""
        commit: Commit = kwargs["commit"]
        end = commit.expected + len(stored_events)
        if end != commit.head.position:
            raise IntegrityError(f"expected the log to end at {commit.head.position}, it ends at {end}")
        with translated():
            connection = self._writer()
            with connection.transaction(), connection.cursor() as c:
                self._insert(c, stored_events, commit)
        return range(commit.expected + 1, end + 1)

    def _insert(self, c: Cursor[TupleRow], stored_events: Sequence[StoredEvent], commit: Commit) -> None:
        head = commit.head
        # The head comes first: its row is what two writers that slipped past the lock wait for.
        row = c.execute(self._begin, (*head, commit.expected)).fetchone()
        if row is None or row[0] != commit.expected:
            raise IntegrityError(f"expected the log to end at {commit.expected}, it ends at "
                                 f"{'another position' if row is None else row[0]}")
        if stored_events:
            with c.copy(self._copy_events) as copy:
                copy.set_types(("text", "int8", "text", "bytea", "int8"))
                for position, event in enumerate(stored_events, commit.expected + 1):
                    copy.write_row((event.originator_id, event.originator_version, event.topic, event.state, position))
        if commit.inbox:
            with c.copy(self._copy_inbox) as copy:
                copy.set_types(("text", "text", "text", "int8"))
                for key, position in commit.inbox:
                    copy.write_row((*key, position))
        if stored_events:
            c.execute(self._insert_leaves, (commit.expected + 1, commit.leaves, self.channel_name, str(head.position)))
        for before, after in commit.positions:
            self._move(c, before, after)

    def _move(self, c: Cursor[TupleRow], before: SourcePosition | None, after: SourcePosition) -> None:
        if before is None:
            c.execute(self._insert_position, tuple(after))
            return
        c.execute(self._update_position, (after.next_offset, after.epoch, after.source, after.partition,
                                          before.next_offset, before.epoch))
        if c.rowcount != 1:
            raise IntegrityError(f"position of {after.source}[{after.partition}] was moved by another writer")

    # --- what is stored ------------------------------------------------------------------------------------------

    def _rows(self, statement: LiteralString, values: Sequence[object] = ()) -> list[Any]:
        with self.datastore.get_connection() as connection:
            return [tuple(row.values()) for row in connection.execute(self._sql(statement), values).fetchall()]

    def head(self) -> Head | None:
        """Where the log ends."""
        rows = self._rows("SELECT position, log_time, frontier, root FROM {schema}.ledger_head")
        return Head(*rows[0]) if rows else None

    def known(self, keys: Iterable[InboxKey]) -> Mapping[InboxKey, int]:
        """Which keys are spent; asked where it is written, so that a writer whose connection is lost stops at once.

        Beside a commit in another thread it waits while rows are copied, and may see them: the writer knows them too.
        """
        found: dict[InboxKey, int] = {}
        remaining = iter(keys)
        with translated():
            while chunk := list(islice(remaining, KEYS_PER_SELECT)):
                columns = [list(column) for column in zip(*chunk, strict=True)]
                found.update(((row[0], row[1], row[2]), row[3])
                             for row in self._writer().execute(self._known, columns))
        return found

    def inbox(self) -> Iterable[tuple[InboxKey, int]]:
        """All spent keys, in order."""
        rows = self._rows("SELECT source, kind, record_key, position FROM {schema}.inbox "
                          "ORDER BY source, kind, record_key")
        return [((source, kind, key), position) for source, kind, key, position in rows]

    def leaves(self) -> bytes:
        """All leaf hashes."""
        rows = self._rows("SELECT hashes FROM {schema}.merkle_leaves ORDER BY first_position")
        return b"".join(hashes for hashes, in rows)

    def source_positions(self) -> Mapping[tuple[str, int], SourcePosition]:
        """The stored positions."""
        rows = self._rows("SELECT source, partition, next_offset, epoch FROM {schema}.stream_position")
        return {(row[0], row[1]): SourcePosition(*row) for row in rows}

    def settings(self) -> Mapping[str, str]:
        """The ledger's settings."""
        return dict(self._rows("SELECT name, value FROM {schema}.ledger_settings"))

    def put_settings(self, settings: Mapping[str, str]) -> None:
        """Write the settings of a new ledger."""
        with translated(), self._writer().transaction():
            for row in settings.items():
                self._writer().execute(self._sql(
                    "INSERT INTO {schema}.ledger_settings VALUES (%s, %s) "
                    "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"), row)

    def _has_snapshots(self) -> bool:
        return bool(self._rows("SELECT 1 AS found WHERE to_regclass(format('%%I.ledger_snapshot', %s::text)) "
                               "IS NOT NULL", (self.schema,)))

    def snapshots(self) -> Sequence[int]:
        """The positions of whole snapshots; a shard of before has no table of them yet."""
        if not self._has_snapshots():
            return []
        return [position for position, in self._rows("SELECT position FROM {schema}.ledger_snapshot WHERE part = 0")]

    def snapshot_parts(self, position: int) -> Iterable[bytes]:
        """The parts of a snapshot."""
        rows = self._rows("SELECT part FROM {schema}.ledger_snapshot WHERE position = %s ORDER BY part", (position,))
        for part, in rows:
            for content, in self._rows("SELECT content FROM {schema}.ledger_snapshot WHERE position = %s AND "
                                       "part = %s", (position, part)):
                yield bytes(content)

    def put_snapshot_part(self, position: int, part: int, content: bytes) -> None:
        """Write a part of a snapshot."""
        with translated(), self._writer().transaction():
            self._writer().execute(self._sql(
                "INSERT INTO {schema}.ledger_snapshot VALUES (%s, %s, %s) "
                "ON CONFLICT (position, part) DO UPDATE SET content = EXCLUDED.content"), (position, part, content))

    def drop_snapshots(self, *, keep: int | None = None) -> None:
        """Delete all snapshots but one; make their table where there is none."""
        with translated(), self._writer().transaction():
            self._writer().execute(self._sql(SNAPSHOTS))
            self._writer().execute(self._sql("DELETE FROM {schema}.ledger_snapshot "
                                             "WHERE position IS DISTINCT FROM %s"), (keep,))

    def close(self) -> None:
        """Close the connections, and let go of the shard."""
        self.datastore.close()


def owner(connection: Connection[Any], schema: str) -> str | None:
    """Whose backend holds the advisory lock of a shard, and which process that is, as far as it has said so."""
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as c:
        row = c.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s::oid AND objid = "
            "to_regnamespace(quote_ident(%s))::oid AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())", (LOCK_CLASS, schema)).fetchone()
        if row is None:
            return None
        said = c.execute(SQL("SELECT holder FROM {}.ledger_writer WHERE backend = %s").format(Identifier(schema)),
                         row).fetchone()
        return str(said[0]) if said else f"backend {row[0]} of the server"


class Factory(PostgresFactory):
    """Named by PERSISTENCE_MODULE as `infra.store.postgres:Factory`; POSTGRES_DSN and POSTGRES_SCHEMA say where."""

    def __init__(self, env: Any) -> None:
        # The library's own wants each part of an address as a variable.
        super(BasePostgresFactory, self).__init__(env)
        with translated():
            self.datastore = _Datastore(str(self.env.get("POSTGRES_DSN")), str(self.env.get("POSTGRES_SCHEMA")))

    def process_recorder(self) -> PostgresRecorder:
        """Our recorder, over tables that are named alike in every store."""
        datastore: Any = self.datastore
        recorder = PostgresRecorder(datastore, events_table_name="stored_events",
                                    tracking_table_name="tracking")
        recorder.create_table()
        return recorder
