"""The questions that several faces ask (command, HTTP): rows of the read models, and an account's figures at marks.

Rows come as the row types of the models; `as_fields` makes any of them a JSON object. An account's figures come from
a clearing house that the log was folded into, by the ledger's own rules. This file never writes to a table, never
opens a database, and never decides anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar, get_args, get_type_hints

from ledger import account as accounts
from ledger.account import AccountState, Stamp
from ledger.amounts import ZERO, Time, exact, nanoseconds, rfc3339
from ledger.clearing_house import ClearingHouse
from ledger.events import Cause
from ledger.postings import CROSS
from projections.accounts import ACCOUNTS, AccountRow
from projections.database import Connection
from projections.figures import PoolFigures, Valuation, entry_price, free_collateral, pool_figures, withdrawable_value
from projections.journal import JOURNAL, TRIAL_BALANCE, JournalLine, TrialBalanceRow
from projections.margin_calls import MARGIN_CALLS, MarginCallRow
from projections.records import RECORDS, RecordLine
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


def records(connection: Connection, source: str, record: str) -> list[RecordLine]:
    """All outcomes of a record's id, in log order: the first spent it, later ones were conflicts."""
    return list(select(connection, RECORDS, {"source": source, "record_id": record}))


def records_at_line(connection: Connection, source: str, line: int) -> list[RecordLine]:
    """The outcomes of what stood in this line of a source."""
    return list(select(connection, RECORDS, {"source": source, "line": line}))


def sources(connection: Connection) -> list[str]:
    """The sources that records came from, but for those that only ever gave accepted prices."""
    return [name for name, in connection.cursor().execute('SELECT DISTINCT "source" FROM view_records ORDER BY 1')]


# --- the journal -------------------------------------------------------------------------------------------------


class Sum(NamedTuple):
    """What all owners together have of an asset: zero, or the ledger does not balance."""

    asset: str
    total: Decimal


class StatementLine(NamedTuple):
    """A posting to an account, and the account's balance of the asset after it."""

    position: int
    time: str
    topic: str
    pool: str
    asset: str
    amount: Decimal
    balance: Decimal


class StatementBalance(NamedTuple):
    """What an account had of an asset before the first line, what came and went, and what it had after the last."""

    asset: str
    opening: Decimal
    credits: Decimal
    debits: Decimal
    closing: Decimal


class Statement(NamedTuple):
    """An account over a span of log time: from `start` on, before `end`."""

    account: str
    balances: list[StatementBalance]
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


def statement(connection: Connection, account: str, *, start: int | None = None,
              end: int | None = None) -> Statement:
    """The postings of an account with log time in [start, end), and its balances before, between and after.

    What an event moves between pools of the account is in the lines, and neither a credit nor a debit.
    """
    opening: dict[str, Decimal] = {}
    running: dict[str, Decimal] = {}
    # (log position, asset) -> what the event brought the account (+) or took from it (-)
    moved: dict[tuple[int, str], Decimal] = {}
    lines = []
    with exact():
        for line in select(connection, JOURNAL, {"account": account}):
            # Times are compared as numbers: as texts, a fraction of a second would come before the whole one.
            time, asset, amount = nanoseconds(line.time), line.asset, Decimal(line.amount)
            if end is not None and time >= end:
                break
            balance = running[asset] = running.get(asset, ZERO) + amount
            if start is not None and time < start:
                opening[asset] = balance
                continue
            moved[line.position, asset] = moved.get((line.position, asset), ZERO) + amount
            lines.append(StatementLine(line.position, line.time, line.topic, line.pool, asset, amount, balance))
        credited, debited = _sums(moved, 1), _sums(moved, -1)
        balances = [StatementBalance(asset, opening.get(asset, ZERO), credited.get(asset, ZERO),
                                     debited.get(asset, ZERO), running[asset]) for asset in sorted(running)]
    return Statement(account, balances, lines)


def _sums(moved: Mapping[tuple[int, str], Decimal], sign: int) -> dict[str, Decimal]:
    """The amounts of one sign, by asset."""
    sums: dict[str, Decimal] = {}
    for (_, asset), amount in moved.items():
        if amount * sign > 0:
            sums[asset] = sums.get(asset, ZERO) + amount
    return sums


# --- an account's figures at marks -------------------------------------------------------------------------------


class BalanceLine(NamedTuple):
    """A balance of a pool: its worth at marks, and how much of it may be taken out now (cross only)."""

    pool: str
    asset: str
    amount: Decimal
    value: Decimal | None
    withdrawable: Decimal


class PoolLine(NamedTuple):
    """A pool at marks: `status` is what the log says of it, `status_by_marks` what its figures alone say."""

    pool: str
    status: str
    status_by_marks: str
    account_equity: Decimal
    margin_equity: Decimal
    collateral_value: Decimal
    unrealised_pnl: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal
    margin_ratio: Decimal | None
    free_collateral: Decimal
    withdrawable: Decimal
    call_id: str | None
    liquidation_id: str | None


class PositionLine(NamedTuple):
    """A position at its mark; margins, notional and PnL in the valuation asset."""

    pool: str
    instrument: str
    position_side: str
    size: Decimal
    entry_price: Decimal
    mark: Decimal
    notional: Decimal | None
    unrealised_pnl: Decimal | None
    accrued_funding: Decimal
    initial_margin: Decimal | None
    maintenance_margin: Decimal | None
    liquidation_price: Decimal | None
    bankruptcy_price: Decimal | None
    leverage: Decimal | None


class AccountReport(NamedTuple):
    """All that an account has and is worth, at the log position where the house stands."""

    account: str
    kind: str
    margin_mode: str
    position_mode: str
    status: str
    rulebook: str
    valuation_asset: str
    pools: list[PoolLine]
    balances: list[BalanceLine]
    positions: list[PositionLine]


def account_report(house: ClearingHouse, account: str) -> AccountReport | None:
    """The figures of an account at the marks of the log's end; None where there is no such account."""
    state = house.accounts.get(account)
    if state is None:
        return None
    with exact():
        rules = house.rules(state)
        valuation = _valuation(house, rules.valuation_asset)
        free = withdrawable(house, state)
        pools: list[PoolLine] = []
        balances: list[BalanceLine] = []
        positions: list[PositionLine] = []
        for name in state.pools():
            held = state.balances.get(name, {})
            figures = pool_figures(name, held, house.holdings(state, name), valuation, rules)
            pools.append(_pool_line(state, figures, any(free.values())))
            for asset, amount in sorted(held.items()):
                price = valuation.price_of(asset)
                balances.append(BalanceLine(name, asset, amount, None if price is None else amount * price,
                                            free.get(asset, ZERO) if name == CROSS else ZERO))
            positions += _position_lines(figures)
        return AccountReport(account, state.kind, state.margin_mode, state.position_mode, _status(state, None),
                             f"{rules.name} {rules.version}", rules.valuation_asset, pools, balances, positions)


def withdrawable(house: ClearingHouse, state: AccountState) -> dict[str, Decimal]:
    """How much of each asset would be let out now, as `decide_withdraw` does it: what accrued is settled first."""
    stamp = Stamp(house.log_time, Cause(source="", type="withdrawal"))
    settled = accounts.decide_settle_funding(state, house.markets, house.assets, stamp)
    if settled is not None:
        state = accounts.evolve(state, settled)
    rules, held = house.rules(state), state.balances.get(CROSS, {})
    margin = house.margin(state)
    is_stale = any(house.is_blocked(state, pool) for pool in state.pools())
    if state.calls or state.liquidations or state.due or margin.unpriced or is_stale:
        return dict.fromkeys(held, ZERO)
    price_of = house.price_of(rules)
    return {asset: accounts.withdrawable(balance=amount, price=price_of(asset), tiers=rules.collateral(asset),
                                         margin=margin, quantum=house.assets[asset].quantum)
            for asset, amount in held.items()}


def _valuation(house: ClearingHouse, asset: str) -> Valuation:
    marks = {name: market.mark for name, market in house.markets.items() if market.mark is not None}
    return Valuation(marks, lambda held: () if held == asset else house.path_of(asset, held) or None)


def _status(state: AccountState, pool: str | None) -> str:
    """What stands open on a pool, or on any pool; the same words as `view_pools`."""
    for status, places in (("liquidation", {*state.liquidations, *state.due}), ("margin-call", set(state.calls)),
                           ("warning", set(state.warned))):
        if places if pool is None else pool in places:
            return status
    return "healthy"


def _pool_line(state: AccountState, figures: PoolFigures, pays_out: bool) -> PoolLine:
    pool, margin = figures.pool, figures.margin
    call, running = state.calls.get(pool), state.liquidations.get(pool)
    return PoolLine(
        pool=pool, status=_status(state, pool),
        status_by_marks=figures.status if state.is_margined else "not-margined",
        account_equity=margin.account_equity, margin_equity=margin.margin_equity,
        collateral_value=margin.collateral_value, unrealised_pnl=margin.unrealised_pnl,
        initial_margin=margin.initial_margin, maintenance_margin=margin.maintenance_margin,
        margin_ratio=margin.ratio, free_collateral=free_collateral(margin),
        withdrawable=withdrawable_value(margin) if pays_out and pool == CROSS else ZERO,
        call_id=None if call is None else call.call_id,
        liquidation_id=None if running is None else running.liquidation_id)


def _position_lines(figures: PoolFigures) -> Iterator[PositionLine]:
    for row in figures.positions:
        holding, margin = row.holding, row.margin
        yield PositionLine(
            pool=figures.pool, instrument=holding.instrument, position_side=holding.position_side, size=holding.size,
            entry_price=entry_price(holding), mark=holding.mark, notional=margin and margin.notional,
            unrealised_pnl=margin and margin.unrealised_pnl, accrued_funding=holding.accrued,
            initial_margin=margin and margin.initial_margin, maintenance_margin=margin and margin.maintenance_margin,
            liquidation_price=row.liquidation_price, bankruptcy_price=row.bankruptcy_price,
            leverage=holding.leverage)
