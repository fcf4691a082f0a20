"""The little of a database connection that read models and queries use, in the manner of `sqlite3`.

A connection to SQLite is one as it is. A connection to another store is wrapped by whoever opens it, and takes the
statements of `projections` as they stand: those that SQLite and PostgreSQL share, with `?` for each value, and the
few words of `projections.tables` and `projections.read_model` that are SQLite's own. This file never runs anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Cursor(Protocol):
    """Runs statements, and gives their rows as tuples."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement; the rows that it selects are then this cursor's."""

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Cursor:
        """Run one statement for each row of values."""

    def fetchone(self) -> Any:
        """The next row; None after the last."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """The rows that are left, one by one."""


class Connection(Protocol):
    """A connection without transactions but those that are begun by a statement."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was begun and has not ended."""

    def cursor(self) -> Cursor:
        """A cursor of its own."""

    def close(self) -> None:
        """End the connection, and with it a transaction that was not committed."""
