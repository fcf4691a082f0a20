"""The read models together: they follow the log in pages, each of which moves all rows and positions or none.

A position row says how far a model has seen the log, and moves in the same transaction as the model's tables, so
that what is read is always the fold of exactly the events up to it. Positions that do not follow on each other stop
the fold. This file never writes an event, and never writes to a table that is not a read model's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ledger.amounts import exact
from ledger.errors import BrokenInvariant
from ledger.events import Event, Recorded
from ledger.postings import Posting, postings
from projections.accounts import Accounts
from projections.activity import Activity
from projections.database import Connection
from projections.funds import Funds
from projections.journal import Journal
from projections.margin_calls import MarginCalls
from projections.markets import Markets
from projections.records import Records
from projections.tables import ReadModel
from projections.trades import Trades

__all__ = ["ALL", "PAGE_EVENTS_MAX", "ReadModel", "ReadModels"]

ALL: Final[tuple[type[ReadModel], ...]] = (
    Accounts, Activity, MarginCalls, Markets, Funds, Journal, Records, Trades)

# A page is one transaction: long enough to spread the cost of its commit, short enough not to hold up a writer.
PAGE_EVENTS_MAX: Final = 2_000

Select = Callable[[int, int], Sequence[Recorded]]


class _SharedPostings:
    """The postings of an event, computed once while the models look at it one after the other."""

    def __init__(self) -> None:
        self._event: Event | None = None
        self._postings: list[Posting] = []

    def __call__(self, event: Event) -> list[Posting]:
        if event is not self._event:
            self._event, self._postings = event, postings(event)
        return self._postings


class ReadModels:
    """Read models over one connection, which may be the ledger's own file or a database in memory."""

    def __init__(self, connection: Connection, models: Sequence[type[ReadModel]] = ALL) -> None:
        self._connection, self._types = connection, tuple(models)
        self._tables = {table.name: table for model in self._types for table in model.SHAPES}
        # The positions that the rows held in memory belong to.
        self._positions: dict[str, int] = {}
        self._models: list[ReadModel] = []
        self._indexed = False

    def create(self) -> None:
        """Make the tables that are not there yet; models that are new, or were of another shape, start at the start."""
        with self._transaction():
            self._create()

    def drop(self) -> None:
        """Empty the models, in whatever shape their tables were: the next catch-up builds them from the first event."""
        with self._transaction():
            cursor = self._connection.cursor()
            for name in self._tables:
                cursor.execute(f"DROP TABLE IF EXISTS {name}")
            self._create()
            cursor.executemany('UPDATE view_position SET "log_position" = 0 WHERE "view" = ?',
                               [(model.NAME,) for model in self._types])
        self._models, self._indexed = [], False

    def position(self) -> int:
        """The log position up to which every model has seen the log."""
        return min(self._stored_positions().values())

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """All rows of a table as stored, in the order of its key."""
        return self._connection.cursor().execute(self._tables[table].select_all).fetchall()

    def catch_up(self, select: Select, *, until: int | None = None,
                 progress: Callable[[int], None] | None = None) -> int:
        """Fold what the log holds beyond the models' positions, at most up to `until`; the position reached.

        `select(after, limit)` gives the events after a position, in order and without gaps, none at the log's end.
        """
        has_folded = False
        with exact():
            while True:
                after = self._resume()
                limit = PAGE_EVENTS_MAX if until is None else min(PAGE_EVENTS_MAX, until - after)
                page = select(after, limit) if limit > 0 else ()
                if not page:
                    if has_folded:
                        self._index()
                    return after
                _check_consecutive(page, after=after, limit=limit)
                if self._fold(page):
                    has_folded = True
                    if progress is not None:
                        progress(page[-1].position)

    def _resume(self) -> int:
        """The lowest position, with models whose rows in memory are those of the stored positions."""
        positions = self._stored_positions()
        if not self._models or positions != self._positions:
            shared = _SharedPostings()
            self._models = [model(self._connection, shared) for model in self._types]
            self._positions = positions
        return min(positions.values())

    def _fold(self, page: Sequence[Recorded]) -> bool:
        """One page into all models and their tables; False when another projector has moved them meanwhile.

        Events are folded before the transaction begins, so that a writer in the same file waits for the rows only.
        """
        end = page[-1].position
        moved = {name: max(position, end) for name, position in self._positions.items()}
        # Whatever goes wrong, the rows in memory are beyond those stored: the next page starts from the stored ones.
        models, self._models = self._models, []
        try:
            self._apply(models, page)
        except BrokenInvariant:
            if self._stored_positions() != self._positions:
                return False
            raise
        with self._transaction():
            if self._stored_positions() != self._positions:
                return False
            for model in models:
                model.flush(self._connection)
            self._connection.cursor().executemany(
                'UPDATE view_position SET "log_position" = ? WHERE "view" = ?',
                [(position, name) for name, position in moved.items()])
        self._models, self._positions = models, moved
        return True

    def _apply(self, models: Sequence[ReadModel], page: Sequence[Recorded]) -> None:
        seen = [(self._positions[model.NAME], model.apply) for model in models]
        for recorded in page:
            position = recorded.position
            for stored, apply in seen:
                if position > stored:
                    apply(recorded)

    def _index(self) -> None:
        """Make the indexes that are not there yet: at the log's end, since one sort costs less than many inserts."""
        if not self._indexed:
            with self._transaction():
                cursor = self._connection.cursor()
                for table in self._tables.values():
                    for index in table.indexes:
                        cursor.execute(index)
            self._indexed = True

    def _create(self) -> None:
        cursor = self._connection.cursor()
        cursor.execute('CREATE TABLE IF NOT EXISTS view_position ("view" TEXT NOT NULL, '
                       '"log_position" BIGINT NOT NULL, PRIMARY KEY ("view"))')
        cursor.execute('CREATE TABLE IF NOT EXISTS view_shape ("view" TEXT NOT NULL, "shape" TEXT NOT NULL, '
                       'PRIMARY KEY ("view"))')
        shapes = dict(cursor.execute('SELECT "view", "shape" FROM view_shape'))
        for model in self._types:
            if shapes.get(model.NAME) != model.shape():
                for name in model.TABLES:
                    cursor.execute(f"DROP TABLE IF EXISTS {name}")
                for kept in ("view_position", "view_shape"):
                    cursor.execute(f'DELETE FROM {kept} WHERE "view" = ?', (model.NAME,))
                cursor.execute('INSERT INTO view_shape ("view", "shape") VALUES (?, ?)', (model.NAME, model.shape()))
        for table in self._tables.values():
            cursor.execute(table.create)
        cursor.executemany(
            'INSERT INTO view_position ("view", "log_position") VALUES (?, 0) ON CONFLICT ("view") DO NOTHING',
            [(model.NAME,) for model in self._types])

    def _stored_positions(self) -> dict[str, int]:
        stored = dict(self._connection.cursor().execute('SELECT "view", "log_position" FROM view_position'))
        return {model.NAME: stored.get(model.NAME, 0) for model in self._types}

    @contextmanager
    def _transaction(self) -> Generator[None]:
        """A transaction that holds the right to write from its start, so that what it reads stays true."""
        cursor = self._connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            yield
            cursor.execute("COMMIT")
        except BaseException:
            # A full disk may have ended it already.
            if self._connection.in_transaction:
                cursor.execute("ROLLBACK")
            raise


def _check_consecutive(page: Sequence[Recorded], *, after: int, limit: int) -> None:
    if len(page) > limit:
        raise BrokenInvariant(f"expected at most {limit} events after log position {after}, came {len(page)}")
    for expected, recorded in enumerate(page, start=after + 1):
        if recorded.position != expected:
            raise BrokenInvariant(f"expected log position {expected}, came {recorded.position}: events are missing")
