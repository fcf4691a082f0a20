"""A connection to PostgreSQL in the manner of `sqlite3`: what readers and read models of every store are written for.

The statements are those of `projections`; each is put into PostgreSQL's words once. Rows are inserted by COPY and
changed in small pipelines, since a pipeline that outgrows the socket's buffer can wait for ever. Texts are compared
by their bytes, as in SQLite. This file never writes outside the read models' schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from infra.store.address import PostgresAddress
from infra.store.postgres import LOCK_CLASS, connection_options, translated

# A pipeline's commands and answers must fit into the buffers of a socket: those of Unix have about 200 KB.
PIPELINED_ROWS_MAX: Final = 200
PIPELINED_CHARACTERS_MAX: Final = 20_000

_INSERT: Final = re.compile(r"INSERT INTO (\w+) \(([^()]*)\) VALUES \([?, ]+\)").fullmatch
# The one statement that asks for the right to write from its start; here that is a lock of the schema's own.
_BEGIN_IMMEDIATE: Final = (f"BEGIN; SELECT pg_advisory_xact_lock({LOCK_CLASS}, "
                           "current_schema()::regnamespace::oid::int4)")


@cache
def in_postgres(statement: str) -> str:
    """A statement in PostgreSQL's words."""
    if statement == "BEGIN IMMEDIATE":
        return _BEGIN_IMMEDIATE
    if statement.startswith("CREATE TABLE"):
        statement = statement.removesuffix(" WITHOUT ROWID").replace(" TEXT", ' TEXT COLLATE "C"')
    return statement.replace("%", "%%").replace("?", "%s")


class PostgresCursor:
    """A cursor in the manner of `sqlite3`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._cursor = connection.cursor()

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> PostgresCursor:
        """Run a statement; with no values, it may be several."""
        with translated():
            self._run(in_postgres(statement), values)
        return self

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> PostgresCursor:
        """Run a statement for each row of values."""
        rows = [_plain(row) for row in values]
        inserts = _INSERT(statement)
        with translated():
            if inserts:
                copied = f"COPY {inserts[1]} ({inserts[2]}) FROM STDIN"
                with self._cursor.copy(sql.SQL(copied)) as copy:
                    for row in rows:
                        copy.write_row(row)
            else:
                for chunk in _chunks(rows):
                    if len(chunk) > 1:
                        self._cursor.executemany(in_postgres(statement), chunk)
                    else:
                        self._run(in_postgres(statement), chunk[0])
        return self

    def _run(self, statement: str, values: Sequence[Any]) -> None:
        # Several statements at once, and the percent signs of none, are only taken where there are no values at all.
        if values:
            self._cursor.execute(statement, _plain(values))
        else:
            self._cursor.execute(statement.replace("%%", "%"))

    def fetchone(self) -> Any:
        """The next row."""
        with translated():
            return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        with translated():
            return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


def _plain(row: Sequence[Any]) -> list[Any]:
    """A row with truth values as the numbers that they are in SQLite."""
    return [int(value) if value is True or value is False else value for value in row]


def _chunks(rows: Sequence[list[Any]]) -> Iterator[list[list[Any]]]:
    """Rows in lots that a pipeline can hold; one that is too large alone is a lot of its own."""
    chunk: list[list[Any]] = []
    characters = 0
    for row in rows:
        size = sum(len(value) for value in row if isinstance(value, str))
        if chunk and (len(chunk) == PIPELINED_ROWS_MAX or characters + size > PIPELINED_CHARACTERS_MAX):
            yield chunk
            chunk, characters = [], 0
        chunk.append(row)
        characters += size
    if chunk:
        yield chunk


class PostgresConnection:
    """A connection in the manner of `sqlite3`, that finds a shard's tables and its read models by their bare names."""

    def __init__(self, address: PostgresAddress) -> None:
        with translated():
            self.connection = psycopg.connect(address.dsn, autocommit=True, **connection_options(address.dsn))
            self.connection.execute(sql.SQL("SET search_path = {}, {}").format(
                sql.Identifier(address.read_schema), sql.Identifier(address.shard)))
            self.connection.execute("SET client_min_messages = warning")

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was begun and has not ended."""
        return self.connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    def cursor(self) -> PostgresCursor:
        """A cursor of its own."""
        return PostgresCursor(self.connection)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()
