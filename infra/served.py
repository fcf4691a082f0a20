"""A shard of a PostgreSQL server: its one writer, and readers beside it. `infra.embedded` comes here by the address.

The log is in the shard's schema, the read models in one beside it. A server that cannot be reached is a failing
store, and no unreadable ledger. This file never decides or records anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, cast

import psycopg.errors
from eventsourcing.persistence import InterfaceError, OperationalError, PersistenceError
from psycopg.sql import SQL, Identifier

from infra.embedded import MAPPER, LedgerReader
from infra.shard import Shard
from infra.store.address import PostgresAddress
from infra.store.postgres import CREATION, LOCK_CLASS, PostgresRecorder, owner, translated
from infra.store.postgres_reading import PostgresConnection
from infra.venue import SimulatedVenue
from ledger.clearing_house import ClearingHouse
from ledger.errors import LedgerUnreadable
from projections.book import Book
from projections.database import Connection

# Beyond the end of any log.
LAST_POSITION: Final = 2**62
# Whoever may not write, on this server or in this role, reads all the same.
_MAY_NOT_WRITE: Final = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)


@contextmanager
def open_shard(address: PostgresAddress, *, venue: SimulatedVenue | None = None,
               progress: Callable[[int], None] | None = None, takes_over: bool = False) -> Iterator[Shard]:
    """The writer over a shard, made where there is none.

    LedgerLocked names the writer that holds it, unless `takes_over`, which ends that one's connection and so its
    writing. LedgerUnreadable says what of the shard cannot be read; OperationalError that the server is away.
    """
    try:
        house = ClearingHouse({"PERSISTENCE_MODULE": "infra.store.postgres:Factory", "MAPPER_TOPIC": MAPPER,
                               "POSTGRES_DSN": address.dsn, "POSTGRES_SCHEMA": address.shard}, nominator=Book())
    except (OperationalError, InterfaceError):
        raise
    except PersistenceError as fault:
        raise LedgerUnreadable(f"{address}: {fault}") from fault
    try:
        cast(PostgresRecorder, house.recorder).lock(takes_over=takes_over)
        shard = Shard(house, venue=venue)
        shard.open(progress)
        yield shard
        shard.close()
    finally:
        house.close()


class ShardReader(LedgerReader):
    """Reads a shard beside its writer: the log, and the read models brought up to it."""

    ROWS = ("SELECT notification_id, originator_id, originator_version, topic, state FROM stored_events "
            "WHERE notification_id > ? ORDER BY notification_id LIMIT ?")
    END = "SELECT COALESCE(MAX(notification_id), 0) FROM stored_events"
    TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid)"
    SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

    connection: PostgresConnection

    def __init__(self, address: PostgresAddress) -> None:
        self.address = address
        self.path = address
        self.connection = PostgresConnection(address)
        found = self.ask("SELECT to_regclass(quote_ident(?) || '.ledger_settings')", (address.shard,))
        if found == [(None,)]:
            self.connection.close()
            raise LedgerUnreadable(f"expected a ledger at {address}, there is none")

    def owner(self) -> str | None:
        """Who writes the shard now; None where nobody does."""
        with translated():
            return owner(self.connection.connection, self.address.shard)

    def read_models(self, *, until: int | None = None,
                    progress: Callable[[int], None] | None = None) -> Connection:
        """A connection whose `view_` tables stand at the end of the log, or were rebuilt up to a position.

        For whoever may not write, and for a server that takes no writes, they are built in memory.
        """
        if until is None:
            try:
                self._create_schema()
                return super().read_models(progress=progress)
            except PersistenceError as fault:
                if not isinstance(fault.__cause__, _MAY_NOT_WRITE):
                    raise
        return super().read_models(until=LAST_POSITION if until is None else until, progress=progress)

    def _create_schema(self) -> None:
        with translated():
            connection = self.connection.connection
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, CREATION))
                row = connection.execute("SELECT to_regnamespace(quote_ident(%s)) IS NULL",
                                         (self.address.read_schema,)).fetchone()
                if row == (True,):
                    connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(self.address.read_schema)))
