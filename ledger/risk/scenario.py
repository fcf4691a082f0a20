"""Portfolio margin: positions on one underlying, revalued together under a grid of shifts; the worst is required.

Block `scenarios:1`. A linear contract, and an inverse one whose profit moves with its own underlying, loses its
signed value times the fall, so that such positions are netted before any scenario is looked at; what else there is
(an option) brings its own losses, one a scenario, as clearing houses publish them. Charges that grow by tier are
here too. Nothing is rounded and nothing is approximated. This file knows no accounts and no offsets
(`ledger.risk.portfolio`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import ONE, ZERO, Fraction, WireAmount, WirePositive
from ledger.risk.holding import Holding
from ledger.risk.schedule import Required

# A rulebook with more scenarios an underlying than this is a mistake, and would cost as much at each mark.
SCENARIOS_MAX = 1_000


class ChargeTier(NamedTuple):
    """The part of a raw charge up to `up_to` (None: all that is left) counts `multiplier` times."""

    up_to: Decimal | None
    multiplier: Decimal


def scaled_charge(raw: Decimal, tiers: Iterable[ChargeTier]) -> Decimal:
    """A minimum charge scaled marginally by tier; beyond the last tier at its multiplier. Source: OKX MR7."""
    total = floor = ZERO
    last: Decimal | None = None
    for tier in tiers:
        last = tier.multiplier
        if tier.up_to is None or raw <= tier.up_to:
            return total + max(ZERO, raw - floor) * tier.multiplier
        total += (tier.up_to - floor) * tier.multiplier
        floor = tier.up_to
    return total + (raw - floor) * last if last is not None else raw


def worst_charge(*charges: Decimal) -> Decimal:
    """The greatest of the charges, not below zero."""
    return max(ZERO, *charges)


# --- the block ---------------------------------------------------------------------------------------------------


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Extreme(_Block):
    """A move beyond the grid that counts in part: SPAN's double move counts 35 %."""

    price: WireAmount
    counted: Fraction


class SizeTier(_Block):
    """The part of an underlying's scan risk up to `up_to` (valuation asset) counts `multiplier` times."""

    up_to: WirePositive | None = None
    multiplier: WirePositive


class Scenario(NamedTuple):
    """Shifts as fractions of price and of volatility, and the part of the loss that counts."""

    price: Decimal
    volatility: Decimal
    counted: Decimal


class ScanRisk(NamedTuple):
    """The greatest counted loss under scenarios where the underlying falls, and where it rises; neither below zero.

    A scenario that leaves the price where it is belongs to both.
    """

    fall: Decimal
    rise: Decimal

    @property
    def worst(self) -> Decimal:
        """The scan risk: the worse of both ways."""
        return max(self.fall, self.rise)


class Scenarios(_Block):
    """What positions on one underlying require together.

    Formula:  loss of a scenario = counted x (- net value x price shift + sum of size x own loss in that scenario);
              scan risk = the greatest loss over prices x volatilities and the extremes, not below zero;
              maintenance = max(scan risk, scaled by `sizes`; minimum x gross value); initial = initial multiple x it.
              Net value: signed values at the mark of all positions without losses of their own. Own losses: of one
              long contract, in the settlement asset, in the order prices x volatilities (volatility inner), extremes.
    Units:    shifts and rates are fractions; values and margins in the valuation asset, where several assets settle.
    Rounding: none.
    Leverage: what the account chose does not count.
    Source:   CME SPAN's scan risk and extreme moves; OKX and Deribit portfolio margin (docs/margin.md).
    """

    variant: Literal["scenarios:1"]
    # What is revalued together; left out, the instrument stands alone.
    underlying: str | None = None
    prices: list[WireAmount]
    volatilities: list[WireAmount] = [ZERO]
    extremes: list[Extreme] = []
    minimum: Fraction
    initial_multiple: WirePositive = ONE
    sizes: list[SizeTier] | None = None
    losses: list[WireAmount] | None = Field(default=None)

    @model_validator(mode="after")
    def _whole(self) -> Scenarios:
        prices, volatilities = self.prices, self.volatilities
        if not prices or not prices[0] < 0 < prices[-1] or any(not low < high for low, high in pairwise(prices)):
            raise PydanticCustomError("prices", "expected ascending price shifts from below 0 to above it", {})
        if prices[0] <= -1:
            raise PydanticCustomError("prices", "expected a fall of less than the whole price, came {came}",
                                      {"came": str(prices[0])})
        if not volatilities or any(not low < high for low, high in pairwise(volatilities)):
            raise PydanticCustomError("volatilities", "expected ascending volatility shifts, at least one", {})
        for index, row in enumerate(self.extremes):
            if not (-1 <= row.price < prices[0] or row.price > prices[-1]):
                raise PydanticCustomError("extremes", "expected a move beyond the grid, not below -1, in extreme "
                                          "{index}", {"index": index})
        if self.initial_multiple < 1:
            raise PydanticCustomError("multiple", "expected an initial multiple of at least 1, came {came}",
                                      {"came": str(self.initial_multiple)})
        count = len(self.scenarios)
        if count > SCENARIOS_MAX:
            raise PydanticCustomError("scenarios", "expected at most {most} scenarios, came {count}",
                                      {"most": SCENARIOS_MAX, "count": count})
        if self.losses is not None and len(self.losses) != count:
            raise PydanticCustomError("losses", "expected a loss for each of {count} scenarios, came {came}",
                                      {"count": count, "came": len(self.losses)})
        self._check_sizes(self.sizes or [])
        return self

    @staticmethod
    def _check_sizes(sizes: Sequence[SizeTier]) -> None:
        floor, multiplier = ZERO, ONE
        for index, row in enumerate(sizes):
            if (row.up_to is None) != (index == len(sizes) - 1):
                raise PydanticCustomError("sizes", "expected every tier but the last to end (`up_to`), tier {index} "
                                          "does not fit", {"index": index})
            if row.multiplier < multiplier or (row.up_to is not None and row.up_to <= floor):
                raise PydanticCustomError("sizes", "expected `up_to` to rise and multipliers from 1 on not to fall, "
                                          "tier {index} does not fit", {"index": index})
            floor, multiplier = row.up_to or floor, row.multiplier

    @cached_property
    def scenarios(self) -> tuple[Scenario, ...]:
        """All scenarios in the order that losses are given in."""
        grid = [Scenario(price, volatility, ONE) for price in self.prices for volatility in self.volatilities]
        return (*grid, *(Scenario(row.price, ZERO, row.counted) for row in self.extremes))

    @cached_property
    def reach(self) -> ScanRisk:
        """The greatest counted shift either way: what net value of 1 loses as it falls, and one of -1 as it rises."""
        return ScanRisk(max(-row.price * row.counted for row in self.scenarios),
                        max(row.price * row.counted for row in self.scenarios))

    @cached_property
    def grid(self) -> tuple[object, ...]:
        """What positions that are revalued together must have in common."""
        return self.scenarios, self.minimum, self.initial_multiple, tuple(self.sizes or ())

    @cached_property
    def _tiers(self) -> tuple[ChargeTier, ...]:
        return tuple(ChargeTier(row.up_to, row.multiplier) for row in self.sizes or ())

    def scan(self, net: Decimal, own: Iterable[tuple[Decimal, Sequence[Decimal]]] = ()) -> ScanRisk:
        """The scan risk of a net value and of sizes with losses of their own, in the same asset.

        Without own losses the worst scenario is known beforehand (`reach`), whatever the number of scenarios.
        """
        rows = list(own)
        if not rows:
            reach = self.reach
            return ScanRisk(max(ZERO, net * reach.fall), max(ZERO, -net * reach.rise))
        # One column a scenario: the losses of all positions in it.
        columns = zip(*(losses for _, losses in rows), strict=True)
        sizes = [size for size, _ in rows]
        fall = rise = ZERO
        for scenario, column in zip(self.scenarios, columns, strict=True):
            loss = -net * scenario.price
            for size, one in zip(sizes, column, strict=True):
                loss += size * one
            loss *= scenario.counted
            if scenario.price <= 0 and loss > fall:
                fall = loss
            if scenario.price >= 0 and loss > rise:
                rise = loss
        return ScanRisk(fall, rise)

    def charge(self, risk: Decimal, gross: Decimal) -> Decimal:
        """Maintenance margin of a scan risk (>= 0) and the gross value that it comes from."""
        return max(scaled_charge(risk, self._tiers), self.minimum * gross)

    def margins(self, notional: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) margin of a value that stands alone, the way it loses more; own losses not counted."""
        maintenance = self.charge(notional * self.reach.worst, notional)
        return maintenance * self.initial_multiple, maintenance

    def required(self, holding: Holding, notional: Decimal) -> Required:
        """What a position requires alone; with others on its underlying `ledger.risk.portfolio` says it."""
        risk = (self.scan(notional if holding.size > 0 else -notional) if self.losses is None
                else self.scan(ZERO, [(holding.size, self.losses)]))
        maintenance = self.charge(risk.worst, notional)
        return Required(maintenance * self.initial_multiple, maintenance)

    def edges(self, holding: Holding) -> Iterable[Decimal]:
        """None: where a portfolio's requirement bends depends on all its positions, and is searched for."""
        return ()
