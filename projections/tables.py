"""The tables that read models keep: a row type each, the SQL that follows from it, and the rows as they now stand.

A row type is the schema: its fields are the columns, in order; a `Decimal` is stored as plain text, a `Time` as RFC
3339, and each comes back as it was. `Rows` holds the current rows of a table, read from it when first asked for and
written back a page at a time; `Lines` only ever appends. The SQL is that which SQLite and PostgreSQL share, but for
one word. This file never looks into an event beyond its type, and never opens or ends a transaction:
`projections.read_model` does.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from hashlib import sha256
from operator import attrgetter
from types import NoneType
from typing import Any, ClassVar, Final, Generic, TypeVar, get_args, get_type_hints

from ledger.amounts import Time, nanoseconds, plain, rfc3339
from ledger.errors import BrokenInvariant
from ledger.events import Event, Recorded
from ledger.postings import Posting, postings
from projections.database import Connection

R = TypeVar("R")
Key = tuple[str | int, ...]
# What a read model does with one type of event.
Step = Callable[[Recorded, Any], None]
# The postings of an event, where several models ask for those of the same event one after the other.
Postings = Callable[[Event], Sequence[Posting]]

# sqlite3 asks its adapters about every None, and without one of its own that takes several times as long as to bind
# a text. This one holds for the whole process and changes nothing that is stored.
sqlite3.register_adapter(NoneType, lambda nothing: nothing)

# What a line of a growing table holds, column by column: as stored, so decimals and times are texts already.
Line = tuple[str | int | None, ...]

# SQLite keeps the rows themselves in the order of the key, instead of the key in an index beside them: a fifth less
# work a row. It is the one word here that PostgreSQL does without.
_IN_KEY_ORDER: Final = " WITHOUT ROWID"
# BIGINT is an integer of 64 bits on both stores; log positions and sequences outgrow PostgreSQL's INTEGER.
_SQL_TYPES: Final[dict[Any, str]] = {str: "TEXT", Decimal: "TEXT", Time: "TEXT", int: "BIGINT"}
# What is stored in another form than it is computed with: how it is written, and how it is read.
_FORMS: Final[dict[Any, tuple[Callable[[Any], str], Callable[[str], Any]]]] = {
    Decimal: (plain, Decimal), Time: (rfc3339, nanoseconds)}


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _matched(names: Sequence[str], separator: str) -> str:
    return separator.join(f'"{name}" = ?' for name in names)


class Table(Generic[R]):
    """One table: its name, its row type, the fields that are its key, and further indexes by their columns."""

    def __init__(self, name: str, row: type[R], *, key: tuple[str, ...], indexes: tuple[tuple[str, ...], ...] = ()
                 ) -> None:
        if not name.startswith("view_"):
            raise BrokenInvariant(f"the name of a read model's table starts with view_, came {name}")
        self.name, self.row, self.key = name, row, key
        hints = get_type_hints(row, include_extras=True)
        kinds = {column: _kind(hint) for column, hint in hints.items()}
        self.columns = tuple(field.name for field in fields(row)) if is_dataclass(row) else tuple(hints)
        self.values = tuple(column for column in self.columns if column not in key)
        self._forms = {column: _FORMS[kind] for column, (kind, _) in kinds.items() if kind in _FORMS}
        # The key's columns come first: of a table kept in key order whose key stands elsewhere, SQLite's own check
        # (3.40) takes one column for another, and finds damage where there is none.
        self.create = (f"CREATE TABLE IF NOT EXISTS {name} ("
                       + ", ".join(f'"{column}" {_sql_type(*kinds[column])}' for column in (*key, *self.values))
                       + f", PRIMARY KEY ({_quoted(key)})){_IN_KEY_ORDER}")
        self.indexes = tuple(
            f"CREATE INDEX IF NOT EXISTS {name}_by_{'_'.join(index)} ON {name} ({_quoted(index)})" for index in indexes)
        where = _matched(key, " AND ")
        self.select = f"SELECT {_quoted(self.columns)} FROM {name}"
        self.select_one = f"{self.select} WHERE {where}"
        self.select_all = f"{self.select} ORDER BY {_quoted(key)}"
        self.select_keys = f'SELECT {_quoted(key)} FROM {name} WHERE "{key[0]}" = ?'
        self.insert = (f"INSERT INTO {name} ({_quoted(self.columns)}) "
                       f"VALUES ({', '.join('?' for _ in self.columns)})")
        self.update = f"UPDATE {name} SET {_matched(self.values, ', ')} WHERE {where}"
        self.delete = f"DELETE FROM {name} WHERE {where}"

    def read(self, stored: Sequence[Any]) -> R:
        """A row as it stands in the table, as its row type."""
        forms = self._forms
        return self.row(*[forms[column][1](value) if column in forms and value is not None else value
                          for column, value in zip(self.columns, stored, strict=True)])

    def writer(self, columns: tuple[str, ...]) -> Callable[[R], list[Any]]:
        """What turns a row into what is stored, in the order of `columns`."""
        take = attrgetter(*columns)
        forms = [(index, self._forms[column][0]) for index, column in enumerate(columns) if column in self._forms]

        def write(row: R) -> list[Any]:
            stored = list(take(row))
            for index, form in forms:
                value = stored[index]
                if value is not None:
                    stored[index] = form(value)
            return stored

        return write


def _kind(hint: Any) -> tuple[Any, bool]:
    """The kind of value that a field holds, and whether it may hold none."""
    options = (hint,) if hint in _SQL_TYPES else get_args(hint)
    kind, = (option for option in options if option is not NoneType)
    return kind, NoneType in options


def _sql_type(kind: Any, is_optional: bool) -> str:
    return _SQL_TYPES[kind] + ("" if is_optional else " NOT NULL")


class Rows(Generic[R]):
    """The current rows of one table by key: loaded when first asked for, changed here, written when flushed.

    A table that was empty when first asked for is known whole, so that a build from zero never looks for rows.
    """

    def __init__(self, connection: Connection, table: Table[R]) -> None:
        self._connection, self.table = connection, table
        self._insertable = table.writer(table.columns)
        self._updatable = table.writer(table.values + table.key)
        self._rows: dict[Key, R | None] = {}
        self._added: dict[Key, R] = {}
        self._changed: dict[Key, R] = {}
        self._removed: dict[Key, None] = {}
        self._whole: bool | None = None

    def find(self, key: Key) -> R | None:
        """The row of this key as it now stands, or None; whoever changes it says so with `change`."""
        try:
            return self._rows[key]
        except KeyError:
            return None if self._whole else self._load(key)

    def add(self, key: Key, row: R) -> R:
        """A row whose key has none."""
        self._rows[key] = self._added[key] = row
        return row

    def change(self, key: Key, row: R) -> None:
        """The row of this key has been changed."""
        if key not in self._added:
            self._changed[key] = row

    def remove(self, key: Key) -> None:
        """The row of this key goes."""
        if self._added.pop(key, None) is None:
            self._changed.pop(key, None)
            self._removed[key] = None
        if key in self._removed and not self._whole:
            # The table has the row until the flush, and must not be asked for it before.
            self._rows[key] = None
        else:
            del self._rows[key]

    def stored_keys(self, first: str) -> list[Key]:
        """The keys whose first field is this, as they were when last flushed."""
        if self._is_whole():
            return []
        return [tuple(key) for key in self._connection.cursor().execute(self.table.select_keys, (first,))]

    def flush(self, connection: Connection) -> None:
        """Write what has changed since the last flush: removals, then additions, then changes."""
        cursor = connection.cursor()
        if self._removed:
            cursor.executemany(self.table.delete, list(self._removed))
            for key in self._removed:
                if self._rows.get(key) is None:
                    self._rows.pop(key, None)
            self._removed.clear()
        if self._added:
            cursor.executemany(self.table.insert, [self._insertable(row) for row in self._added.values()])
            self._added.clear()
        if self._changed:
            cursor.executemany(self.table.update, [self._updatable(row) for row in self._changed.values()])
            self._changed.clear()

    def _load(self, key: Key) -> R | None:
        if self._is_whole():
            return None
        stored = self._connection.cursor().execute(self.table.select_one, key).fetchone()
        row = self._rows[key] = None if stored is None else self.table.read(stored)
        return row

    def _is_whole(self) -> bool:
        """Whether the table was empty when first asked for, so that all of its rows are here."""
        if self._whole is None:
            self._whole = self._connection.cursor().execute(
                f"SELECT 1 FROM {self.table.name} LIMIT 1").fetchone() is None
        return self._whole


class Lines:
    """The lines of a table that only grows, each a bare tuple in the order of the row type's fields.

    Bare, because a named one takes five times as long to make, and there are several an event.
    """

    def __init__(self, table: Table[Any]) -> None:
        self.table = table
        self._lines: list[Line] = []
        self.append = self._lines.append

    def flush(self, connection: Connection) -> None:
        """Write the lines appended since the last flush."""
        if self._lines:
            connection.cursor().executemany(self.table.insert, self._lines)
            self._lines.clear()


class ReadModel(ABC):
    """A fold of the log into tables: buffers what each event changes, and writes it a page at a time.

    A model reads its own tables only, so that it can be built anew by itself. Its constructor reads nothing.
    """

    # Its position in the log stands under this name.
    NAME: ClassVar[str]
    SHAPES: ClassVar[tuple[Table[Any], ...]]
    # Table name -> the statement that creates it.
    TABLES: ClassVar[Mapping[str, str]]
    # Counted up when the same tables are filled in another way, so that stored ones are built anew.
    VERSION: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        cls.TABLES = {table.name: table.create for table in cls.SHAPES}

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        self._connection = connection
        self._postings = postings
        self._kept: list[Rows[Any] | Lines] = []
        self._steps = self.steps()

    @classmethod
    def shape(cls) -> str:
        """What the model's tables are made of; stored beside them, so that those of an older make are known."""
        indexes = [index for table in cls.SHAPES for index in table.indexes]
        return sha256("\n".join((str(cls.VERSION), *cls.TABLES.values(), *indexes)).encode()).hexdigest()[:16]

    @abstractmethod
    def steps(self) -> Mapping[type[Event], Step]:
        """What the model does with which type of event; it is blind to all others."""

    def rows(self, table: Table[R]) -> Rows[R]:
        """The rows of one of the model's tables, flushed with the model."""
        kept = Rows(self._connection, table)
        self._kept.append(kept)
        return kept

    def lines(self, table: Table[Any]) -> Lines:
        """The growing lines of one of the model's tables, flushed with the model."""
        kept = Lines(table)
        self._kept.append(kept)
        return kept

    def apply(self, recorded: Recorded) -> None:
        """Buffer what the event changes."""
        event = recorded.event
        step = self._steps.get(type(event))
        if step is not None:
            step(recorded, event)

    def flush(self, connection: Connection) -> None:
        """Write what is buffered, in the transaction that the connection has open."""
        for kept in self._kept:
            kept.flush(connection)
