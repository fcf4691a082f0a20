"""An account's figures at marks: its pools, balances, positions, and what its open orders reserve.

They come from a clearing house that the log was folded into, by the ledger's own rules, so that what is shown is
what would be decided. This file never reads a table, and never decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from ledger import account as accounts
from ledger import movement
from ledger.account import AccountState, Stamp
from ledger.amounts import ZERO, exact
from ledger.clearing_house import ClearingHouse
from ledger.events import Cause
from ledger.postings import CROSS
from ledger.risk.margin import PoolMargin
from projections.figures import PoolFigures, Valuation, entry_price, free_collateral, pool_figures, withdrawable_value


class BalanceLine(NamedTuple):
    """A balance of a pool as posted: the interest it has accrued since, its worth at marks with that, and how much of
    it may be taken out now (cross only)."""

    pool: str
    asset: str
    amount: Decimal
    accrued_interest: Decimal
    value: Decimal | None
    withdrawable: Decimal


class PoolLine(NamedTuple):
    """A pool at marks: `status` is what the log says of it, `status_by_marks` what its figures alone say.

    Initial margin includes `reserved_margin`, that of open orders, where the rulebook reserves it.
    """

    pool: str
    status: str
    status_by_marks: str
    account_equity: Decimal
    margin_equity: Decimal
    collateral_value: Decimal
    unrealised_pnl: Decimal
    initial_margin: Decimal
    reserved_margin: Decimal
    maintenance_margin: Decimal
    margin_ratio: Decimal | None
    free_collateral: Decimal
    withdrawable: Decimal
    call_id: str | None
    liquidation_id: str | None


class PositionLine(NamedTuple):
    """A position at its mark; margins, notional and PnL in the valuation asset, funding in the settlement asset."""

    pool: str
    instrument: str
    position_side: str
    contract_type: str
    settlement_asset: str
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


class ReservedLine(NamedTuple):
    """What an account's open orders on an instrument reserve, in its settlement asset.

    None under a rulebook that reserves for all orders of a pool together: the pool's figures then have it.
    """

    account: str
    instrument: str
    orders: int
    settlement_asset: str
    reserved_margin: Decimal | None


class AccountReport(NamedTuple):
    """All that an account has and is worth, at the log position where the house stands.

    `withdrawals_blocked`: why nothing at all may leave the cross pool now, as a refusal would give it; None otherwise.
    """

    account: str
    kind: str
    margin_mode: str
    position_mode: str
    status: str
    rulebook: str
    valuation_asset: str
    withdrawals_blocked: str | None
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
        blocked, free = withdrawable(house, state)
        pools: list[PoolLine] = []
        balances: list[BalanceLine] = []
        positions: list[PositionLine] = []
        for name in state.pools():
            held, posted = house.balances(state, name), state.balances.get(name, {})
            figures = pool_figures(name, held, house.holdings(state, name), valuation, rules)
            pools.append(_pool_line(state, figures, house.margin(state, name), any(free.values())))
            for asset, amount in sorted(held.items()):
                price = valuation.price_of(asset)
                balances.append(BalanceLine(
                    name, asset, posted.get(asset, ZERO), amount - posted.get(asset, ZERO),
                    None if price is None else amount * price, free.get(asset, ZERO) if name == CROSS else ZERO))
            positions += _position_lines(figures)
        return AccountReport(account, state.kind, state.margin_mode, state.position_mode, _status(state, None),
                             f"{rules.name} {rules.version}", rules.valuation_asset, blocked, pools, balances,
                             positions)


def withdrawable(house: ClearingHouse, state: AccountState) -> tuple[str | None, Mapping[str, Decimal]]:
    """Why nothing may leave the cross pool, and how much of each asset would be let out now.

    As `decide_withdraw` has it: what has accrued is settled first, and pools, marks and halts are all asked.
    """
    stamp = Stamp(house.log_time, Cause(source="", type="withdrawal"))
    interest = accounts.decide_settle_interest(state, house.assets, stamp)
    if interest is not None:
        state = accounts.evolve(state, interest)
    funding = accounts.decide_settle_funding(state, house.markets, house.assets, stamp)
    if funding is not None:
        state = accounts.evolve(state, funding)
    rules, held, margin = house.rules(state), state.balances.get(CROSS, {}), house.margin(state)
    refusal = movement.refusal_of(
        state, ZERO, pools=state.pools(), available=ZERO, margin=margin,
        is_stale=any(house.has_stale_mark(state, pool) for pool in state.pools()),
        is_halted=house.is_halted("withdrawals", state.account))
    if refusal is not None:
        return refusal.reason, dict.fromkeys(held, ZERO)
    price_of = house.price_of(rules)
    return None, {asset: movement.withdrawable(balance=amount, price=price_of(asset), tiers=rules.collateral(asset),
                                               margin=margin, quantum=house.assets[asset].quantum)
                  for asset, amount in held.items()}


def reserved(house: ClearingHouse, account: str | None = None) -> list[ReservedLine]:
    """What open orders reserve, by account and instrument: of one account, or of all that have any."""
    states = house.accounts.values() if account is None else filter(None, [house.accounts.get(account)])
    lines = []
    with exact():
        for state in sorted((row for row in states if row.orders), key=lambda row: row.account.encode()):
            needed, rule = house.reserved(state), house.rules(state).pool
            other = None if rule is not None and rule.orders is not None else ZERO
            for instrument in sorted({order.instrument for order in state.orders.values()}):
                count = sum(order.instrument == instrument for order in state.orders.values())
                lines.append(ReservedLine(state.account, instrument, count,
                                          house.markets[instrument].settlement_asset, needed.get(instrument, other)))
    return lines


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


def _pool_line(state: AccountState, figures: PoolFigures, margin: PoolMargin, pays_out: bool) -> PoolLine:
    pool = figures.pool
    call, running = state.calls.get(pool), state.liquidations.get(pool)
    return PoolLine(
        pool=pool, status=_status(state, pool),
        status_by_marks=figures.status if state.is_margined else "not-margined",
        account_equity=margin.account_equity, margin_equity=margin.margin_equity,
        collateral_value=margin.collateral_value, unrealised_pnl=margin.unrealised_pnl,
        initial_margin=margin.initial_margin,
        reserved_margin=margin.initial_margin - figures.margin.initial_margin,
        maintenance_margin=margin.maintenance_margin, margin_ratio=margin.ratio,
        free_collateral=free_collateral(margin),
        withdrawable=withdrawable_value(margin) if pays_out and pool == CROSS else ZERO,
        call_id=None if call is None else call.call_id,
        liquidation_id=None if running is None else running.liquidation_id)


def _position_lines(figures: PoolFigures) -> Iterator[PositionLine]:
    for row in figures.positions:
        holding, margin = row.holding, row.margin
        yield PositionLine(
            pool=figures.pool, instrument=holding.instrument, position_side=holding.position_side,
            contract_type=holding.contract_type, settlement_asset=holding.settlement_asset, size=holding.size,
            entry_price=entry_price(holding), mark=holding.mark, notional=margin and margin.notional,
            unrealised_pnl=margin and margin.unrealised_pnl, accrued_funding=holding.accrued,
            initial_margin=margin and margin.initial_margin, maintenance_margin=margin and margin.maintenance_margin,
            liquidation_price=row.liquidation_price, bankruptcy_price=row.bankruptcy_price,
            leverage=holding.leverage)
