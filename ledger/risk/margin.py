"""The margin of an account: one pure, exact function that serves decisions, calculator and replay alike.

A pool is what is margined together: the cross pool, or one isolated position. Its margin equity (collateral after
haircuts, less liabilities, plus unrealised PnL and accrued funding) is measured against its margins. Ratios are
compared by cross-multiplication, never divided. This file rounds no figure that a decision rests on but what an
inverse contract divides by its price, and holds no state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import FINEST, ONE, ZERO, Factor, WirePositive, divide_down
from ledger.risk.collateral import ValueTiers
from ledger.risk.holding import Holding as Holding  # noqa: PLC0414 # named here by all who ask for margins
from ledger.risk.holding import notional_of, value_of
from ledger.risk.requirement import Brackets, with_leverage

Status = Literal["healthy", "warning", "margin-call", "liquidation", "bankrupt", "unpriced"]
PriceOf = Callable[[str], Decimal | None]


class Thresholds(BaseModel):
    """The lines of the margin ratio: warning > call > liquidation, the level that cures, the line that stops.

    Variant `ratio-lines:1`. The liquidation line itself is `below` (equality is healthy) or `at_or_below`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["ratio-lines:1"]
    warning: WirePositive
    warning_hysteresis: Factor
    call: WirePositive
    cure: WirePositive
    liquidation: WirePositive
    liquidation_when: Literal["below", "at_or_below"]
    stop: WirePositive

    @model_validator(mode="after")
    def _ordered(self) -> Thresholds:
        if not self.warning > self.call > self.liquidation:
            raise PydanticCustomError("lines", "expected warning > call > liquidation", {})
        if not (self.cure >= self.call and self.stop >= self.call):
            raise PydanticCustomError("lines", "expected cure and stop not below the call line", {})
        return self

    @property
    def warning_end(self) -> Decimal:
        """The ratio above which a warning ends."""
        return self.warning + self.warning_hysteresis


class Rules(Protocol):
    """What margin needs of a rulebook."""

    @property
    def thresholds(self) -> Thresholds: ...

    def collateral(self, asset: str) -> ValueTiers:
        """The haircuts of an asset."""

    def requirement(self, instrument: str) -> Brackets:
        """The margins of an instrument."""


class PositionMargin(NamedTuple):
    """One position's share of the figures, in the valuation asset."""

    holding: Holding
    notional: Decimal
    unrealised_pnl: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal


class PoolMargin(NamedTuple):
    """The figures of one pool, in the valuation asset; exact."""

    account_equity: Decimal
    margin_equity: Decimal
    collateral_value: Decimal
    liabilities: Decimal
    unrealised_pnl: Decimal
    accrued: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal
    unpriced: tuple[str, ...]
    positions: tuple[PositionMargin, ...]

    @property
    def ratio(self) -> Decimal | None:
        """Margin equity / maintenance margin, down to 18 places, for display; None without maintenance margin."""
        if not self.maintenance_margin:
            return None
        return divide_down(self.margin_equity, self.maintenance_margin, FINEST)


def evaluate_pool(balances: Mapping[str, Decimal], holdings: Iterable[Holding], price_of: PriceOf,
                  rules: Rules) -> PoolMargin:
    """The margin of one pool.

    Formula:  account equity = balances + unrealised PnL + accrued funding at marks;
              margin equity  = the same with positive balances after haircuts;
              margins        = sum over positions of their brackets at |size| x contract size x mark, or
                               |size| x contract size / mark of an inverse contract.
    Units:    valuation asset; `price_of(asset)` is what one unit is worth in it, None where unknown. An asset
              without price counts zero when held and makes the pool `unpriced` when owed or settled in.
    Rounding: none but what a division needs: an inverse position's value at its mark (to 18 places, against the
              account) and a chosen leverage's initial margin (to the quantum, up). Source: docs/margin.md.
    """
    pnl = funding = initial = maintenance = ZERO
    unpriced: list[str] = []
    positions = []
    for holding in holdings:
        price = price_of(holding.settlement_asset)
        if price is None:
            unpriced.append(holding.settlement_asset)
            continue
        if holding.contract_type == "inverse":
            value, notional = _inverse(holding)
        else:
            value = holding.size * holding.contract_size * holding.mark
            notional = abs(value)
        position_pnl = value - holding.cost
        position_initial, position_maintenance = rules.requirement(holding.instrument).margins(notional)
        if holding.leverage is not None:
            position_initial = with_leverage(position_initial, notional, holding.leverage, holding.quantum)
        accrued = holding.accrued
        if price != ONE:
            notional, position_pnl, accrued = notional * price, position_pnl * price, accrued * price
            position_initial, position_maintenance = position_initial * price, position_maintenance * price
        pnl += position_pnl
        funding += accrued
        initial += position_initial
        maintenance += position_maintenance
        positions.append(PositionMargin(holding, notional, position_pnl, position_initial, position_maintenance))
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
        if value > 0:
            collateral += rules.collateral(asset).value(value)
        else:
            liabilities -= value
    rest = pnl + funding
    return PoolMargin(gross + rest, collateral - liabilities + rest, collateral, liabilities, pnl, funding,
                      initial, maintenance, tuple(unpriced), tuple(positions))


def _inverse(holding: Holding) -> tuple[Decimal, Decimal]:
    """(value, notional) at the mark of an inverse position, to 18 places: the one down, the other up."""
    size, contract_size, mark = holding.size, holding.contract_size, holding.mark
    return (value_of(size=size, contract_size=contract_size, price=mark, contract_type="inverse"),
            notional_of(size=size, contract_size=contract_size, price=mark, contract_type="inverse"))


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
    found = {status(pool, rules.thresholds) for pool in pools.values()}
    return MarginState(pools, next((worst for worst in _WORST if worst in found), "healthy"))
