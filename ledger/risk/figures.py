"""The figures of a pool and of its positions, the lines they are held to, and what they need of a rulebook.

Types only: who computes them is `ledger.risk.margin`. This file holds no state.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import FINEST, ZERO, Factor, WirePositive, divide_down, divide_up
from ledger.risk.collateral import CollateralBlock
from ledger.risk.holding import Holding
from ledger.risk.requirement import RequirementBlock

if TYPE_CHECKING:
    from ledger.risk.pool import BorrowTiers, PoolRule
    from ledger.risk.surroundings import PoolScaled

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

    @property
    def pool(self) -> PoolRule | None: ...

    def collateral(self, asset: str) -> CollateralBlock:
        """The haircuts of an asset."""

    def requirement(self, instrument: str) -> RequirementBlock:
        """The margins of an instrument."""

    def borrowing(self, asset: str) -> BorrowTiers | None:
        """What a borrowed balance of an asset requires, if anything."""

    def scaling(self, asset: str) -> PoolScaled | None:
        """How deposits of all accounts cut an asset as collateral of new risk, if they do."""


class PositionMargin(NamedTuple):
    """One position's share of the figures, in the valuation asset."""

    holding: Holding
    notional: Decimal
    unrealised_pnl: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal
    # Within both margins.
    closing_fee: Decimal = ZERO


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
    # What initial margin is held against, where it is not margin equity.
    initial_equity: Decimal | None = None
    closing_fees: Decimal = ZERO
    # The loss that open orders would make, already taken off both equities.
    order_loss: Decimal = ZERO

    @property
    def ratio(self) -> Decimal | None:
        """Margin equity / maintenance margin, down to 18 places, for display; None without maintenance margin."""
        if not self.maintenance_margin:
            return None
        return divide_down(self.margin_equity, self.maintenance_margin, FINEST)

    @property
    def free(self) -> Decimal:
        """What is left of the equity above initial margin; negative where initial margin is breached."""
        equity = self.margin_equity if self.initial_equity is None else self.initial_equity
        return equity - self.initial_margin

    @property
    def initial_margin_without_fee(self) -> Decimal:
        """Initial margin as venues print it that count the closing fee beside it."""
        return self.initial_margin - self.closing_fees

    @property
    def excess(self) -> Decimal:
        """Equity less both margins, as BitMEX prints it, which keeps position and order margin apart."""
        return self.margin_equity - self.initial_margin - self.maintenance_margin

    @property
    def gross_notional(self) -> Decimal:
        """All positions' notionals added up."""
        return sum((row.notional for row in self.positions), ZERO)

    @property
    def net_value(self) -> Decimal:
        """All positions' notionals, the short ones taken off."""
        return sum((row.notional if row.holding.size > 0 else -row.notional for row in self.positions), ZERO)

    @property
    def equity_per_notional(self) -> Decimal | None:
        """Margin equity / gross notional, down to 18 places: the ratio of an isolated position. None without one."""
        return divide_down(self.margin_equity, self.gross_notional, FINEST) if self.gross_notional else None

    @property
    def maintenance_per_notional(self) -> Decimal | None:
        """Maintenance margin / gross notional, up to 18 places: the rate in force. None without positions."""
        return divide_up(self.maintenance_margin, self.gross_notional, FINEST) if self.gross_notional else None

    @property
    def maintenance_without_fee(self) -> Decimal:
        """Maintenance margin as venues print it that count the closing fee beside it."""
        return self.maintenance_margin - self.closing_fees


def utilisation(pool: PoolMargin) -> Decimal | None:
    """Maintenance margin / margin equity, up to 18 places: the inverse of the ratio, as some venues print it.

    None where margin equity is not above zero.
    """
    return divide_up(pool.maintenance_margin, pool.margin_equity, FINEST) if pool.margin_equity > 0 else None
