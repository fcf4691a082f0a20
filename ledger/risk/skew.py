"""Margins that grow with a position's share of its market's depth, and prices that move with its skew.

Variants `skew-linear:1` (requirement), `size-discount:1` (collateral), `keeper-reward:1` (what a liquidation costs).
The skew is the sum of all signed sizes; the skew scale is how deep a market is said to be. This file knows no
accounts but the one it is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import FINEST, ONE, ZERO, Factor, Fraction, WirePositive, divide_down, divide_up, round_up
from ledger.risk.holding import Holding
from ledger.risk.schedule import Required


class SkewMargins(BaseModel):
    """Margins of a market.

    Formula:  fraction = |size| / skew scale x slope + floor; initial = notional x fraction + least margin a position;
              maintenance = notional x fraction x maintenance scalar + the same least margin.
    Units:    notional and margins in the quote asset. Rounding: the margins up to 18 places.
    Source:   Synthetix v3 perps, `PerpsMarketConfiguration.calculateRequiredMargins`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["skew-linear:1"]
    skew_scale: WirePositive
    slope: Factor
    floor: Factor
    maintenance_scalar: Fraction
    least_margin: Factor = ZERO

    def _of(self, notional: Decimal, units: Decimal) -> Required:
        # The fraction times skew scale, so that no division rounds before the last.
        scaled = notional * (units * self.slope + self.floor * self.skew_scale)
        initial, maintenance = (divide_up(part, self.skew_scale, FINEST) + self.least_margin
                                for part in (scaled, scaled * self.maintenance_scalar))
        return Required(initial, maintenance)

    def initial(self, size: Decimal, price: Decimal) -> Decimal:
        """Initial margin of a signed size."""
        return self._of(abs(size) * price, abs(size)).initial

    def maintenance(self, size: Decimal, price: Decimal) -> Decimal:
        """Maintenance margin of a signed size."""
        return self._of(abs(size) * price, abs(size)).maintenance

    def required(self, holding: Holding, notional: Decimal) -> Required:
        """What a position requires as a block of a rulebook; `notional` is its value at the mark.

        Its size is in units of the base: of an inverse contract its value. A chosen leverage raises initial margin.
        """
        units = notional if holding.contract_type == "inverse" else abs(holding.size) * holding.contract_size
        found = self._of(notional, units)
        if holding.leverage is None:
            return found
        return found._replace(initial=max(found.initial, divide_up(notional, holding.leverage, FINEST)))

    def margins(self, notional: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) at the floor's rate: size is not known from a value."""
        initial = notional * self.floor
        return initial + self.least_margin, initial * self.maintenance_scalar + self.least_margin

    def edges(self, holding: Holding) -> Iterable[Decimal]:
        """None: of a linear contract the rate does not depend on the price, of an inverse one it bends nowhere."""
        return ()


class SizeDiscount(BaseModel):
    """A haircut that grows with the amount of an asset, in line with how deep its market is.

    Formula:  value = amount x price x (1 - clamp(amount / skew scale x scalar, lower, upper)).
    Rounding: the haircut up, the value down, to 18 places. Source: Synthetix v3, collateral discount.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["size-discount:1"]
    skew_scale: WirePositive
    scalar: Factor
    lower: Fraction
    upper: Fraction

    @model_validator(mode="after")
    def _ordered(self) -> SizeDiscount:
        if self.lower > self.upper:
            raise PydanticCustomError("discount", "expected a lower bound not above the upper, came {low} above {high}",
                                      {"low": str(self.lower), "high": str(self.upper)})
        return self

    def haircut(self, amount: Decimal) -> Decimal:
        """The fraction of value that does not count, for an amount >= 0."""
        return min(max(divide_up(amount * self.scalar, self.skew_scale, FINEST), self.lower), self.upper)

    def value(self, amount: Decimal, price: Decimal) -> Decimal:
        """What an amount >= 0 is worth as collateral; withdrawals value it without a haircut."""
        return divide_down(amount * price * (ONE - self.haircut(amount)), ONE, FINEST)


class KeeperReward(BaseModel):
    """What whoever liquidates is paid, reserved beside the margins.

    Formula:  min(max(notional x ratio, least), most, collateral x scaling).
    Rounding: up to 18 places. Source: Synthetix v3, `getPossibleLiquidationReward`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["keeper-reward:1"]
    ratio: Factor
    least: Factor
    most: Factor
    collateral_scaling: Factor

    def reward(self, notional: Decimal, collateral: Decimal) -> Decimal:
        """The reward reserved for positions worth `notional`, backed by `collateral`."""
        wanted = max(round_up(notional * self.ratio, FINEST), self.least)
        return min(wanted, self.most, round_up(collateral * self.collateral_scaling, FINEST))


def fill_price(oracle: Decimal, *, size: Decimal, skew: Decimal, skew_scale: Decimal) -> Decimal:
    """The price of a fill: the mean of the prices before and after it moves the skew.

    Formula:  oracle x (1 + (skew + size / 2) / skew scale).
    Rounding: against the trader, a purchase up and a sale down, to 18 places.
    """
    numerator, denominator = oracle * (2 * skew_scale + 2 * skew + size), 2 * skew_scale
    return (divide_up if size > 0 else divide_down)(numerator, denominator, FINEST)


class SkewPosition(NamedTuple):
    """A signed size with its entry and present price and the margins of its market."""

    market: str
    size: Decimal
    entry_price: Decimal
    price: Decimal
    margins: SkewMargins


class SkewFigures(NamedTuple):
    """The figures of an account; `reward` is what liquidating it would cost."""

    pnl: dict[str, Decimal]
    available: Decimal
    notional: Decimal
    initial: Decimal
    maintenance: Decimal
    reward: Decimal

    @property
    def liquidatable(self) -> bool:
        """Whether maintenance margin with the reward exceeds what is available; equality is healthy."""
        return self.maintenance + self.reward > self.available

    @property
    def required(self) -> Decimal:
        """What must be available to take risk: initial margin with the reward."""
        return self.initial + self.reward

    @property
    def withdrawable(self) -> Decimal:
        """What may leave: available less what is required; negative where something is missing."""
        return self.available - self.required


def skew_figures(collateral: Decimal, debt: Decimal, positions: Iterable[SkewPosition],
                 reward: Decimal = ZERO) -> SkewFigures:
    """Available margin and requirements of an account whose collateral is valued already; profit counts in full."""
    pnl: dict[str, Decimal] = {}
    notional = initial = maintenance = ZERO
    for row in positions:
        pnl[row.market] = pnl.get(row.market, ZERO) + row.size * (row.price - row.entry_price)
        notional += abs(row.size) * row.price
        initial += row.margins.initial(row.size, row.price)
        maintenance += row.margins.maintenance(row.size, row.price)
    return SkewFigures(pnl, collateral + sum(pnl.values(), ZERO) - debt, notional, initial, maintenance, reward)
