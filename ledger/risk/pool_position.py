"""A position alone with its collateral, against a pool of liquidity: no other position helps it or is hurt by it.

Variant `pool-counterparty:1`. Profit counts until the position is closed, a better price impact never does. This
file closes nothing.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from ledger.amounts import FINEST, ZERO, Factor, Fraction, divide_down, divide_up


class PoolRequirement(BaseModel):
    """What must remain of a position's collateral: an amount, and a fraction of its size in the quote asset.

    Source: GMX v2, `isPositionLiquidatable`. The fraction for opening is another, higher one (`opening_fraction`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["pool-counterparty:1"]
    least_collateral: Factor
    fraction: Fraction
    opening_fraction: Fraction | None = None

    def liquidatable(self, remaining: Decimal, size: Decimal) -> bool:
        """Whether what remains is nothing, below the least amount, or below the fraction of size (below, not at)."""
        return remaining <= 0 or remaining < self.least_collateral or remaining < size * self.fraction


class PoolPosition(NamedTuple):
    """Collateral of a token, size in the quote asset at entry, entry price, side."""

    collateral: Decimal
    size: Decimal
    entry_price: Decimal
    side: Literal["long", "short"]


def pool_pnl(position: PoolPosition, price: Decimal) -> Decimal:
    """Unrealised result: tokens x price against the size at entry.

    Rounding: tokens of a long down, of a short up, to 18 places; the result is exact from there.
    """
    if position.side == "long":
        return divide_down(position.size, position.entry_price, FINEST) * price - position.size
    return position.size - divide_up(position.size, position.entry_price, FINEST) * price


def remaining_collateral(position: PoolPosition, *, collateral_price: Decimal, price: Decimal, fees: Decimal,
                         impact: Decimal) -> Decimal:
    """What would be left of the collateral if the position were closed now.

    Formula:  collateral x price + result + min(price impact, 0) - fees. The collateral's price is the lower of the
              oracle's pair, the index price that worse for the side.
    """
    return position.collateral * collateral_price + pool_pnl(position, price) + min(impact, ZERO) - fees
