"""The questions that several faces ask (command, HTTP) of the read models: rows, statements, the trial balance.

Rows come as the row types of the models; `as_fields` makes any of them a JSON object. An account's figures at marks
are in `projections.account_report`. This file never writes to a table, never opens a database, and never decides
anything.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar, get_args, get_type_hints

from ledger.amounts import ZERO, Time, exact, nanoseconds, rfc3339
from ledger.states import ALL
from projections.accounts import ACCOUNTS, POSITIONS, AccountRow
from projections.database import Connection
from projections.journal import JOURNAL, TRIAL_BALANCE, JournalLine, TrialBalanceRow
from projections.margin_calls import MARGIN_CALLS, MarginCallRow
from projections.markets import HALTS, HaltRow
from projections.records import APPLIED, RECORDS, RecordLine
from projections.tables import Table

R = TypeVar("R")

# Columns that hold the JSON of a decision's evidence.
_JSON_COLUMNS: Final = frozenset({"issue_evidence", "end_evidence"})
# Names that a hint is searched among: enough for any desk, and no scan of a million accounts.
_HINTED_MAX: Final = 50_000


# --- rows --------------------------------------------------------------------------------------------------------


def select(connection: Connection, table: Table[R], where: Mapping[str, str | int | None] | None = None, *,
           order: Sequence[str] = (), limit: int | None = None) -> Iterator[R]:
    """Rows of a table whose columns have these values (None: whatever they have), in the order of the key."""
    wanted = {column: value for column, value in (where or {}).items() if value is not None}
    names = ", ".join(f'"{column}"' for column in order or table.key)
    statement = (table.select + (" WHERE " if wanted else "") + " AND ".join(f'"{column}" = ?' for column in wanted)
                 + f" ORDER BY {names}" + ("" if limit is None else " LIMIT ?"))
    values = [*wanted.values(), *(() if limit is None else (limit,))]
    for stored in connection.cursor().execute(statement, values):
        yield table.read(stored)


def as_fields(row: Any) -> dict[str, Any]:
    """A row as a JSON object, decimals still exact numbers; times as text, evidence as the object that it is."""
    found = {name: getattr(row, name) for name in _names(row.__class__)}
    for name in _times(row.__class__):
        found[name] = None if found[name] is None else rfc3339(found[name])
    for name in _JSON_COLUMNS.intersection(found):
        found[name] = None if found[name] is None else json.loads(found[name])
    return found


@cache
def _names(row: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(row)) if is_dataclass(row) else tuple(row._fields)


@cache
def _times(row: Any) -> tuple[str, ...]:
    hints = get_type_hints(row, include_extras=True)
    return tuple(name for name, hint in hints.items() if Time in (hint, *get_args(hint)))


def find_account(connection: Connection, account: str) -> AccountRow | None:
    """The row of an account."""
    return next(select(connection, ACCOUNTS, {"account": account}), None)


def like_account(connection: Connection, account: str) -> list[str]:
    """Accounts whose names are near to one that is not there."""
    names = [name for name, in connection.cursor().execute('SELECT "account" FROM view_accounts LIMIT ?',
                                                           (_HINTED_MAX,))]
    return get_close_matches(account, names, n=3)


def margin_calls(connection: Connection, *, account: str | None = None,
                 state: str | None = None) -> Iterator[MarginCallRow]:
    """Calls in the order of their issue."""
    return select(connection, MARGIN_CALLS, {"account": account, "state": state}, order=("issued_position",))


def halts(connection: Connection, account: str) -> Iterator[HaltRow]:
    """The halts in force that concern an account: its own, those of all, and those of what it holds."""
    scopes = {ALL, account, *(row.instrument for row in select(connection, POSITIONS, {"account": account}))}
    return (row for row in select(connection, HALTS) if row.scope in scopes)


def records(connection: Connection, source: str, record: str) -> list[RecordLine]:
    """All outcomes of a record's id, in log order: the first spent it, later ones were conflicts."""
    return list(select(connection, RECORDS, {"source": source, "record_id": record}))


def replays(connection: Connection, source: str, record: str) -> list[RecordLine]:
    """The outcomes of the dead letter's replays (`ID#r1`, `ID#r2` ...), in order."""
    found: list[RecordLine] = []
    for number in count(1):
        rows = records(connection, source, f"{record}#r{number}")
        if not rows:
            return found
        found += rows
    return found


def refusals(connection: Connection, *, outcome: str | None = None, reason: str | None = None,
             source: str | None = None, record_type: str | None = None) -> Iterator[RecordLine]:
    """Records that were rejected or refused, in log order."""
    found = select(connection, RECORDS, {"outcome": outcome, "reason": reason, "source": source, "type": record_type})
    return (row for row in found if row.outcome != APPLIED)


def records_at(connection: Connection, source: str, **place: int) -> list[RecordLine]:
    """The outcomes of what stood at a place of a source: its `line`, or its `partition` and `offset`."""
    return list(select(connection, RECORDS, {"source": source, **place}))


def sources(connection: Connection) -> list[str]:
    """The sources that records came from, but for those that only ever gave accepted prices."""
    return [name for name, in connection.cursor().execute('SELECT DISTINCT "source" FROM view_records ORDER BY 1')]


# --- the journal -------------------------------------------------------------------------------------------------


class Sum(NamedTuple):
    """What all owners together have of an asset: zero, or the ledger does not balance."""

    asset: str
    total: Decimal


class StatementLine(NamedTuple):
    """A posting to an account, and what the account and the pool have of the asset after it."""

    position: int
    time: str
    topic: str
    pool: str
    asset: str
    amount: Decimal
    balance: Decimal
    pool_balance: Decimal


class StatementBalance(NamedTuple):
    """What an account had of an asset before the first line, what came and went, and what it had after the last.

    Of the whole account what an event moves between its pools is neither a credit nor a debit. Opening + credits +
    debits = closing.
    """

    asset: str
    opening: Decimal
    credits: Decimal
    debits: Decimal
    closing: Decimal


class StatementPool(NamedTuple):
    """The same of one pool, by each posting; opening and closing of all pools sum to those of the account."""

    pool: str
    asset: str
    opening: Decimal
    credits: Decimal
    debits: Decimal
    closing: Decimal


class StatementTotal(NamedTuple):
    """What all events of a type brought the account (+) or took from it (-) in the period; zero is left out."""

    topic: str
    asset: str
    amount: Decimal


class Statement(NamedTuple):
    """An account over a span of log time: from `start` on, before `end`."""

    account: str
    balances: list[StatementBalance]
    pools: list[StatementPool]
    totals: list[StatementTotal]
    lines: list[StatementLine]


def journal(connection: Connection, *, account: str | None = None, asset: str | None = None,
            start: int = 0) -> Iterator[JournalLine]:
    """The postings from a log position on, of one account or asset where named."""
    found = select(connection, JOURNAL, {"account": account, "asset": asset})
    return (line for line in found if line.position >= start)


def trial_balance(connection: Connection) -> tuple[list[TrialBalanceRow], list[Sum]]:
    """What each owner has of each asset, and the sums by asset."""
    rows = list(select(connection, TRIAL_BALANCE, order=("asset", "owner")))
    sums: dict[str, Decimal] = {}
    with exact():
        for row in rows:
            sums[row.asset] = sums.get(row.asset, ZERO) + row.amount
    return rows, [Sum(asset, total) for asset, total in sums.items()]


class _Running:
    """The opening balance of a thing, what came and what went, and what it has."""

    __slots__ = ("credits", "debits", "held", "opening")

    def __init__(self) -> None:
        self.opening = self.credits = self.debits = self.held = ZERO

    def add(self, amount: Decimal, *, is_before: bool) -> Decimal:
        """One amount more, before the period or in it; what is held after it."""
        self.held += amount
        if is_before:
            self.opening = self.held
        elif amount > 0:
            self.credits += amount
        else:
            self.debits += amount
        return self.held

    def figures(self) -> tuple[Decimal, Decimal, Decimal, Decimal]:
        return self.opening, self.credits, self.debits, self.held


def statement(connection: Connection, account: str, *, start: int | None = None,
              end: int | None = None) -> Statement:
    """The postings of an account with log time in [start, end), and its balances before, between and after."""
    # By asset, with an event's postings taken together; by pool and asset, posting by posting.
    whole: defaultdict[str, _Running] = defaultdict(_Running)
    pools: defaultdict[tuple[str, str], _Running] = defaultdict(_Running)
    totals: defaultdict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
    moved: dict[str, Decimal] = {}
    lines = []
    with exact():
        position, is_before = 0, True
        for line in select(connection, JOURNAL, {"account": account}):
            # Times are compared as numbers: as texts, a fraction of a second would come before the whole one.
            time, asset, amount = nanoseconds(line.time), line.asset, Decimal(line.amount)
            if end is not None and time >= end:
                break
            if line.position != position:
                _take(whole, moved, is_before=is_before)
                position, is_before = line.position, start is not None and time < start
            moved[asset] = moved.get(asset, ZERO) + amount
            pool_balance = pools[line.pool, asset].add(amount, is_before=is_before)
            if not is_before:
                totals[line.topic, asset] += amount
                lines.append(StatementLine(line.position, line.time, line.topic, line.pool, asset, amount,
                                           whole[asset].held + moved[asset], pool_balance))
        _take(whole, moved, is_before=is_before)
    return Statement(
        account, [StatementBalance(asset, *row.figures()) for asset, row in sorted(whole.items())],
        [StatementPool(*key, *row.figures()) for key, row in sorted(pools.items())],
        [StatementTotal(*key, amount) for key, amount in sorted(totals.items()) if amount], lines)


def _take(whole: Mapping[str, _Running], moved: dict[str, Decimal], *, is_before: bool) -> None:
    """What an event moved of each asset, once all of its postings are seen."""
    for asset, amount in moved.items():
        whole[asset].add(amount, is_before=is_before)
    moved.clear()
