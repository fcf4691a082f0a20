"""Requirements beyond `brackets:1`: by tiers of value or contracts, by size, by its root, by steps of risk limit.

Each block takes a position and answers initial margin, maintenance margin and the closing fee that is part of both,
in the settlement asset. Leverage that the account chose counts where the block says so. A block is data with a
versioned variant; a formula that changes is a new variant. This file knows no accounts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import FINEST, ONE, ZERO, Factor, Fraction, WirePositive, divide_down, divide_up
from ledger.risk.holding import Holding
from ledger.risk.roots import root_up


class Required(NamedTuple):
    """What one position requires, in the settlement asset; the closing fee is within both margins."""

    initial: Decimal
    maintenance: Decimal
    closing_fee: Decimal = ZERO


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClosingFee(_Block):
    """What closing would cost, as a part of both margins: a rate of the value at the mark, at entry, or at bankruptcy.

    The bankruptcy price of a position alone on its initial margin: entry x (1 -/+ 1 / leverage) when linear,
    entry x leverage / (leverage +/- 1) when inverse; without a leverage that of the block's initial rate.
    """

    rate: Fraction
    at: Literal["mark", "entry", "bankruptcy"]


class TierRow(_Block):
    """From `floor` on (value in the settlement asset, or contracts). What is left out follows from `max_leverage`.

    initial = 1 / max_leverage, maintenance = half of it. `deduction` is the venue's own maintenance amount, where it
    is to be taken as published instead of by the recursion.
    """

    floor: Factor
    initial: Fraction | None = None
    maintenance: Fraction | None = None
    max_leverage: WirePositive | None = None
    deduction: Factor | None = None

    @property
    def rates(self) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) rate, to 18 places, up."""
        leverage = self.max_leverage
        top = ONE if leverage is None else divide_up(ONE, leverage, FINEST)
        half = top if leverage is None else divide_up(ONE, leverage * 2, FINEST)
        return (top if self.initial is None else self.initial,
                half if self.maintenance is None else self.maintenance)


class Tiers(_Block):
    """Tiers of value or contracts, marginal (with deductions) or at the rate of the tier that holds the whole.

    Formula:  maintenance = value x rate - deduction (marginal), value x rate of its tier (flat);
              initial = value / leverage where `initial` is `leverage` and one was chosen, else likewise by rate
              (`greater`: the greater of both);
              deduction(n) = deduction(n-1) + floor(n) x (rate(n) - rate(n-1)).
    Edge:     `floor`: what lies on a floor belongs to the tier that begins there; `cap`: to the one that ends there.
    Units:    settlement asset; the value is the one at the mark, or at entry (`value`).
    Rounding: what is divided (leverage), and fees, up to 18 places; with `quantum`, both margins up to it.
    Source:   Binance (`cum`), Bybit, OKX, Hyperliquid margin tiers (docs/margin.md).
    """

    variant: Literal["tiers:1"]
    tiers: list[TierRow]
    measure: Literal["value", "contracts"] = "value"
    rates: Literal["marginal", "flat"] = "marginal"
    edge: Literal["floor", "cap"] = "floor"
    value: Literal["mark", "entry"] = "mark"
    initial: Literal["rate", "leverage", "greater"] = "rate"
    closing_fee: ClosingFee | None = None
    quantum: WirePositive | None = None

    @model_validator(mode="after")
    def _whole(self) -> Tiers:
        if not self.tiers or self.tiers[0].floor != 0:
            raise PydanticCustomError("tiers", "expected a first tier with floor 0", {})
        previous = self.tiers[0]
        for index, row in enumerate(self.tiers):
            initial, maintenance = row.rates
            if not 0 < maintenance <= initial:
                raise PydanticCustomError("tiers", "expected 0 < maintenance <= initial in tier {index}",
                                          {"index": index})
            if index and not (row.floor > previous.floor and initial >= previous.rates[0]
                              and maintenance >= previous.rates[1]):
                raise PydanticCustomError("tiers", "expected floors to rise and rates not to fall, tier {index} does "
                                          "not fit", {"index": index})
            previous = row
        if self.rates == "marginal" and self.measure == "contracts" and len(self.tiers) > 1:
            raise PydanticCustomError("tiers", "expected flat rates of tiers by contracts", {})
        return self

    @cached_property
    def floors(self) -> list[Decimal]:
        """The floors, ascending, in the units of `measure`."""
        return [row.floor for row in self.tiers]

    @cached_property
    def steps(self) -> list[tuple[Decimal, Decimal, Decimal, Decimal]]:
        """(initial rate, its deduction, maintenance rate, its deduction) of each tier."""
        initial = maintenance = ZERO
        steps: list[tuple[Decimal, Decimal, Decimal, Decimal]] = []
        previous = self.tiers[0].rates
        for row in self.tiers:
            rates = row.rates
            if self.rates == "marginal":
                initial = next_deduction(initial, row.floor, previous[0], rates[0])
                maintenance = next_deduction(maintenance, row.floor, previous[1], rates[1])
            if row.deduction is not None:
                maintenance = row.deduction
            steps.append((rates[0], initial, rates[1], maintenance))
            previous = rates
        return steps

    def tier(self, measured: Decimal) -> int:
        """The index of the tier that holds a value, or a number of contracts, >= 0."""
        find = bisect_right if self.edge == "floor" else bisect_left
        return max(find(self.floors, measured) - 1, 0)

    def margins(self, notional: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) of a value by rate alone, the value being what tiers go by; exact."""
        initial, initial_deduction, maintenance, deduction = self.steps[self.tier(notional)]
        return notional * initial - initial_deduction, notional * maintenance - deduction

    def required(self, holding: Holding, notional: Decimal) -> Required:
        """What a position requires; `notional` is its value at the mark."""
        value = notional if self.value == "mark" else abs(holding.cost)
        measured = value if self.measure == "value" else abs(holding.size)
        rate, initial_deduction, maintenance_rate, deduction = self.steps[self.tier(measured)]
        initial = value * rate - initial_deduction
        if self.initial != "rate" and holding.leverage is not None:
            chosen = divide_up(value, holding.leverage, FINEST)
            initial = chosen if self.initial == "leverage" else max(initial, chosen)
        fee = ZERO if self.closing_fee is None else _closing_fee(self.closing_fee, holding, notional, rate)
        initial, maintenance = initial + fee, value * maintenance_rate - deduction + fee
        if self.quantum is not None:
            initial = divide_up(initial, ONE, self.quantum)
            maintenance = divide_up(maintenance, ONE, self.quantum)
        return Required(initial, maintenance, fee)

    def edges(self, holding: Holding) -> Iterable[Decimal]:
        """The prices at which a tier of a position begins, and the finest steps beside them where it jumps there."""
        if self.value == "mark" and self.measure == "value":
            yield from edges_of(holding, self.floors, jumps=self.rates == "flat")


def _closing_fee(fee: ClosingFee, holding: Holding, notional: Decimal, initial_rate: Decimal) -> Decimal:
    if fee.at == "mark":
        return notional * fee.rate
    value = abs(holding.cost)
    if fee.at == "entry":
        return value * fee.rate
    # Value at bankruptcy = value at entry x (1 -/+ 1 / leverage), of an inverse contract (1 +/- 1 / leverage).
    long = holding.size > 0
    part = value * initial_rate if holding.leverage is None else divide_up(value, holding.leverage, FINEST)
    at_bankruptcy = value - part if long == (holding.contract_type != "inverse") else value + part
    return at_bankruptcy * fee.rate


def next_deduction(previous: Decimal, floor: Decimal, rate_before: Decimal, rate: Decimal) -> Decimal:
    """The deduction of a tier from that of the one before, so that the requirement is continuous at its floor."""
    return previous + floor * (rate - rate_before)


def edges_of(holding: Holding, floors: Iterable[Decimal], *, jumps: bool = False) -> Iterable[Decimal]:
    """The prices at which a position's value at the mark reaches each floor, rounded down to 18 places."""
    unit = abs(holding.size) * holding.contract_size
    for floor in floors:
        if floor:
            price = (divide_down(unit, floor, FINEST) if holding.contract_type == "inverse"
                     else divide_down(floor, unit, FINEST))
            yield price
            if jumps:
                yield from (price - FINEST, price + FINEST)


class SizeLinear(_Block):
    """A rate that rises in proportion to the size, so that margin is quadratic in it.

    Formula:  rate = base + per_unit x units, at most 1; margin = value at the mark x rate. Units are |size| x
              contract size of a linear contract; of an inverse one, its value at the mark (units of the base).
    Rounding: none.   Source: Deribit futures: 2 % + 0.005 % per BTC (docs/margin.md).
    """

    variant: Literal["size-linear:1"]
    initial: Fraction
    initial_per_unit: Fraction
    maintenance: Fraction
    maintenance_per_unit: Fraction

    @model_validator(mode="after")
    def _whole(self) -> SizeLinear:
        if not (0 < self.maintenance <= self.initial and self.maintenance_per_unit <= self.initial_per_unit):
            raise PydanticCustomError("rates", "expected 0 < maintenance <= initial, and so per unit", {})
        return self

    def rate(self, units: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) rate of a size in units of the base."""
        return (min(ONE, self.initial + self.initial_per_unit * units),
                min(ONE, self.maintenance + self.maintenance_per_unit * units))

    def margins(self, notional: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) of an inverse contract's value, which is its size in units of the base."""
        initial, maintenance = self.rate(notional)
        return notional * initial, notional * maintenance

    def required(self, holding: Holding, notional: Decimal) -> Required:
        """What a position requires; `notional` is its value at the mark."""
        units = notional if holding.contract_type == "inverse" else abs(holding.size) * holding.contract_size
        initial, maintenance = self.rate(units)
        if holding.leverage is not None:
            return Required(max(notional * initial, divide_up(notional, holding.leverage, FINEST)),
                            notional * maintenance)
        return Required(notional * initial, notional * maintenance)

    def edges(self, holding: Holding) -> Iterable[Decimal]:
        """The prices at which a rate reaches 1, of an inverse contract."""
        if holding.contract_type == "inverse":
            tops = [divide_down(ONE - base, slope, FINEST) for base, slope in (
                (self.initial, self.initial_per_unit), (self.maintenance, self.maintenance_per_unit)) if slope]
            yield from edges_of(holding, tops)


class SizeRoot(_Block):
    """A rate that rises with the square root of the size, never below a base rate.

    Formula:  rate = max(base, factor x sqrt(|size| x contract size)), at most 1; margin = value at the mark x rate;
              maintenance factor and base are the initial ones x `maintenance_fraction`.
    Rounding: the root up to 18 places.   Source: FTX's margin fraction, and its kin (docs/margin.md).
    """

    variant: Literal["size-root:1"]
    initial: Fraction
    factor: Factor
    maintenance_fraction: Fraction

    @model_validator(mode="after")
    def _whole(self) -> SizeRoot:
        if not (self.initial > 0 and self.maintenance_fraction > 0):
            raise PydanticCustomError("rates", "expected initial and maintenance_fraction above 0", {})
        return self

    def required(self, holding: Holding, notional: Decimal) -> Required:
        """What a position requires; `notional` is its value at the mark."""
        rate = min(ONE, max(self.initial, self.factor * root_up(abs(holding.size) * holding.contract_size)))
        initial = notional * rate
        if holding.leverage is not None:
            initial = max(initial, divide_up(notional, holding.leverage, FINEST))
        return Required(initial, notional * rate * self.maintenance_fraction)

    def margins(self, notional: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) at the base rates: size is not known from a value."""
        return notional * self.initial, notional * self.initial * self.maintenance_fraction

    def edges(self, holding: Holding) -> Iterable[Decimal]:
        """None: the rate does not depend on the price."""
        return ()


class RiskSteps(_Block):
    """Stepped risk limits: for each step by which the value exceeds the base limit, both rates rise.

    Formula:  steps = ceil((value - base_limit) / step), not below 0; maintenance rate = base x (1 + steps);
              initial rate = base initial + steps x base maintenance; margin = value x rate (plus the closing fee).
    Units:    settlement asset. Rounding: none.   Source: BitMEX dynamic risk limits (docs/margin.md).
    """

    variant: Literal["risk-steps:1"]
    base_limit: WirePositive
    step: WirePositive
    initial: Fraction
    maintenance: Fraction
    value: Literal["mark", "entry"] = "mark"
    closing_fee: ClosingFee | None = None

    @model_validator(mode="after")
    def _whole(self) -> RiskSteps:
        if not 0 < self.maintenance <= self.initial:
            raise PydanticCustomError("rates", "expected 0 < maintenance <= initial", {})
        return self

    def steps(self, value: Decimal) -> Decimal:
        """By how many steps a value, or a risk limit, exceeds the base limit."""
        return max(ZERO, divide_up(value - self.base_limit, self.step, ONE))

    def rate(self, value: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) rate of a value."""
        steps = self.steps(value)
        return min(ONE, self.initial + steps * self.maintenance), min(ONE, self.maintenance * (1 + steps))

    def margins(self, notional: Decimal) -> tuple[Decimal, Decimal]:
        """(initial, maintenance) margin of a value, without fee."""
        initial, maintenance = self.rate(notional)
        return notional * initial, notional * maintenance

    def required(self, holding: Holding, notional: Decimal) -> Required:
        """What a position requires; `notional` is its value at the mark."""
        value = notional if self.value == "mark" else abs(holding.cost)
        rate, maintenance_rate = self.rate(value)
        initial, maintenance = value * rate, value * maintenance_rate
        if holding.leverage is not None:
            initial = max(initial, divide_up(value, holding.leverage, FINEST))
        fee = ZERO if self.closing_fee is None else _closing_fee(self.closing_fee, holding, notional, rate)
        return Required(initial + fee, maintenance + fee, fee)

    def edges(self, holding: Holding) -> Iterable[Decimal]:
        """The prices at which a step begins, as far as the rates rise."""
        if self.value == "mark":
            count = int(divide_up(ONE - self.maintenance, self.maintenance, ONE))
            floors = (self.base_limit + self.step * number for number in range(min(count, _STEPS_MAX) + 1))
            yield from edges_of(holding, floors, jumps=True)


# A search for a price looks at the edge of every step; who has more steps than this has a table instead.
_STEPS_MAX = 1_000

Schedule = Annotated[Tiers | SizeLinear | SizeRoot | RiskSteps, Field(discriminator="variant")]
