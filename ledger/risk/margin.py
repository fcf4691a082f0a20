"""The margin of an account: one pure, exact function that serves decisions, calculator and replay alike.

A pool is what is margined together: the cross pool, or one isolated position. Its margin equity (collateral after
haircuts, less liabilities, plus unrealised PnL and accrued funding) is measured against its margins. Ratios are
compared by cross-multiplication, never divided. This file rounds no figure that a decision rests on but what an
inverse contract divides by its price, and holds no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

from ledger.amounts import ONE, ZERO
from ledger.risk.collateral import ValueTiers
from ledger.risk.figures import PoolMargin, PositionMargin, PriceOf, Rules, Status, Thresholds
from ledger.risk.holding import Holding
from ledger.risk.open_orders import OpenOrder
from ledger.risk.pool import evaluate_whole, measured
from ledger.risk.requirement import Brackets, required, with_leverage
from ledger.risk.surroundings import NOTHING_KNOWN, Surroundings

# Named here by all who ask for margins.
__all__ = [
    "Holding", "MarginAccount", "MarginOrder", "MarginState", "PoolMargin", "PositionMargin", "PriceOf", "Rules",
    "Status", "Thresholds", "above", "at_least", "below", "evaluate", "evaluate_pool", "liquidatable", "status",
    "worst_status"]


def evaluate_pool(balances: Mapping[str, Decimal], holdings: Iterable[Holding], price_of: PriceOf, rules: Rules, *,
                  orders: Iterable[OpenOrder] = (), loans: Mapping[str, Decimal] | None = None,
                  around: Surroundings = NOTHING_KNOWN) -> PoolMargin:
    """The margin of one pool.

    Formula:  account equity = balances + unrealised PnL + accrued funding at marks;
              margin equity  = the same with positive balances after haircuts;
              margins        = sum over positions of their brackets at |size| x contract size x mark, or
                               |size| x contract size / mark of an inverse contract.
              A rulebook with a pool rule puts them together otherwise (`ledger.risk.pool`), and only there open
              orders reserve margin; loans told apart from balances and what is around the account likewise.
    Units:    valuation asset; `price_of(asset)` is what one unit is worth in it, None where unknown. An asset
              without price counts zero when held and makes the pool `unpriced` when owed or settled in.
    Rounding: none but what a division needs: an inverse position's value at its mark (to 18 places, against the
              account) and a chosen leverage's initial margin (to the quantum, up). Source: docs/margin.md.
    """
    if rules.pool is not None or loans:
        return evaluate_whole(balances, holdings, price_of, rules, orders=orders, loans=loans, around=around)
    pnl = funding = initial = maintenance = fees = ZERO
    unpriced: list[str] = []
    positions = []
    for holding in holdings:
        price = price_of(holding.settlement_asset)
        if price is None:
            unpriced.append(holding.settlement_asset)
            continue
        if holding.contract_type == "inverse":
            value, notional = measured(holding)
        else:
            value = holding.size * holding.contract_size * holding.mark
            notional = abs(value)
        position_pnl = value - holding.cost
        requirement = rules.requirement(holding.instrument)
        fee = ZERO
        if type(requirement) is Brackets:
            position_initial, position_maintenance = requirement.margins(notional)
            if holding.leverage is not None:
                position_initial = with_leverage(position_initial, notional, holding.leverage, holding.quantum)
        else:
            position_initial, position_maintenance, fee = required(requirement, holding, notional)
        accrued = holding.accrued
        if price != ONE:
            notional, position_pnl, accrued = notional * price, position_pnl * price, accrued * price
            position_initial, position_maintenance = position_initial * price, position_maintenance * price
            fee *= price
        pnl += position_pnl
        funding += accrued
        initial += position_initial
        maintenance += position_maintenance
        fees += fee
        positions.append(PositionMargin(holding, notional, position_pnl, position_initial, position_maintenance, fee))
    gross = collateral = liabilities = ZERO
    for asset, amount in balances.items():
        if not amount:
            continue
        price = price_of(asset)
        if price is None:
            if amount < 0:
                unpriced.append(asset)
            continue
        value = amount * price
        gross += value
        block = rules.collateral(asset)
        if type(block) is ValueTiers:
            if value > 0:
                collateral += block.value(value)
            else:
                liabilities -= value
        elif value > 0:
            collateral += block.worth(amount, price)
        else:
            liabilities -= block.worth(amount, price)
        if value < 0 and (borrow := rules.borrowing(asset)) is not None:
            more = borrow.margins(-value)
            initial, maintenance = initial + more[0], maintenance + more[1]
    rest = pnl + funding
    return PoolMargin(gross + rest, collateral - liabilities + rest, collateral, liabilities, pnl, funding,
                      initial, maintenance, tuple(unpriced), tuple(positions), None, fees)


def below(pool: PoolMargin, line: Decimal) -> bool:
    """Whether the margin ratio is below a line; without maintenance margin, whether margin equity is negative."""
    return pool.margin_equity < line * pool.maintenance_margin


def at_least(pool: PoolMargin, line: Decimal) -> bool:
    """Whether the margin ratio is at or above a line."""
    return not below(pool, line)


def above(pool: PoolMargin, line: Decimal) -> bool:
    """Whether the margin ratio is above a line; a pool without positions and without debt is above every line."""
    if not pool.maintenance_margin:
        return pool.margin_equity >= 0
    return pool.margin_equity > line * pool.maintenance_margin


def liquidatable(pool: PoolMargin, thresholds: Thresholds) -> bool:
    """Whether the pool is past the liquidation line; a pool with neither positions nor debt never is."""
    if thresholds.liquidation_when == "below" or not pool.maintenance_margin:
        return below(pool, thresholds.liquidation)
    return pool.margin_equity <= thresholds.liquidation * pool.maintenance_margin


def status(pool: PoolMargin, thresholds: Thresholds) -> Status:
    """Where the pool stands by its figures alone (calls and deadlines are the account's, not the figures')."""
    if pool.unpriced:
        return "unpriced"
    if pool.account_equity < 0 and below(pool, thresholds.liquidation):
        return "bankrupt"
    if liquidatable(pool, thresholds):
        return "liquidation"
    if below(pool, thresholds.call):
        return "margin-call"
    return "warning" if below(pool, thresholds.warning) else "healthy"


class MarginOrder:
    """Sort key: worst margin ratio first, by cross-multiplication; no maintenance margin with debt before all."""

    __slots__ = ("equity", "maintenance", "place")

    def __init__(self, pool: PoolMargin, place: tuple[bytes, bool, bytes]) -> None:
        # place: account by bytes, cross before isolated, pool by bytes.
        self.equity, self.maintenance, self.place = pool.margin_equity, pool.maintenance_margin, place

    def _rank(self) -> int:
        if self.maintenance:
            return 1
        return 0 if self.equity < 0 else 2

    def __lt__(self, other: MarginOrder) -> bool:
        if self._rank() != other._rank():
            return self._rank() < other._rank()
        if self._rank() == 1:
            left, right = self.equity * other.maintenance, other.equity * self.maintenance
            if left != right:
                return left < right
        return self.place < other.place


class MarginState(NamedTuple):
    """The margin of a whole account: its pools by name; totals are their sums."""

    pools: Mapping[str, PoolMargin]
    status: Status


_WORST: Sequence[Status] = ("bankrupt", "unpriced", "liquidation", "margin-call", "warning", "healthy")


class MarginAccount(Protocol):
    """What `evaluate` needs of an account: its pools, each with balances and holdings at the current marks."""

    def pools(self) -> Iterable[tuple[str, Mapping[str, Decimal], Iterable[Holding]]]:
        """(name, balances, holdings) of every pool."""


def evaluate(account: MarginAccount, price_of: PriceOf, rules: Rules) -> MarginState:
    """The margin of an account: every pool on its own, since no pool ever pays for another."""
    pools = {name: evaluate_pool(balances, holdings, price_of, rules) for name, balances, holdings in account.pools()}
    return MarginState(pools, worst_status(status(pool, rules.thresholds) for pool in pools.values()))


def worst_status(found: Iterable[Status]) -> Status:
    """The worst of the pools' statuses, which is the account's; healthy without pools."""
    kept = set(found)
    return next((worst for worst in _WORST if worst in kept), "healthy")
