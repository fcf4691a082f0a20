"""Weights of assets, liabilities and profit: by kind of check, by the square root of size, by how full a pool is.

Variants `sqrt-size:1` and `capped-profit:1`. A weight is a fraction of value; an asset's falls and a liability's
rises with size, and no size ever makes either better than its own table says. This file knows no accounts.
"""

from __future__ import annotations

from decimal import Decimal
from math import isqrt
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import ONE, ZERO, Factor, divide_down, round_down

Check = Literal["initial", "fill", "maintenance"]

WEIGHT_QUANTUM: Final = Decimal("0.0001")
FACTOR_QUANTUM: Final = Decimal("0.000001")
SIZE_QUANTUM: Final = Decimal("0.000000001")
# The root is taken of the size in tenths of a billionth, so that it comes out in hundred-thousandths.
_ROOT_QUANTUM: Final = Decimal("0.00001")
_FIFTH: Final = Decimal(5)
_DISCOUNT_NUMERATOR: Final = Decimal("1.1")


def size_root(size: Decimal) -> Decimal:
    """The square root of a size >= 0, down to five places: the integer root of 10 x size (in 1e-9) + 1."""
    whole = int(size.scaleb(9))
    return isqrt(whole * 10 + 1) * _ROOT_QUANTUM


def size_premium(base: Decimal, factor: Decimal, size: Decimal) -> Decimal:
    """A liability's weight (or a margin ratio) at a size: max(base, 0.8 x base + factor x root of size).

    Rounding: a fifth of the base down, and the product down, each to four places. Source: Drift v2.
    """
    if not factor:
        return base
    reduced = base - divide_down(base, _FIFTH, WEIGHT_QUANTUM)
    return max(base, reduced + round_down(size_root(size) * factor, WEIGHT_QUANTUM))


def size_discount(base: Decimal, factor: Decimal, size: Decimal) -> Decimal:
    """An asset's weight at a size: min(base, 1.1 / (1 + factor x root of size)).

    Rounding: the product down to six places, the quotient down to four. Source: Drift v2.
    """
    if not factor:
        return base
    scaled = ONE + round_down(size_root(size) * factor, FACTOR_QUANTUM)
    return min(base, divide_down(_DISCOUNT_NUMERATOR, scaled, WEIGHT_QUANTUM))


def by_check(check: Check, initial: Decimal, maintenance: Decimal) -> Decimal:
    """The figure of a check: initial, maintenance, or for a fill their mean, down to four places."""
    if check == "fill":
        return divide_down(initial + maintenance, Decimal(2), WEIGHT_QUANTUM)
    return initial if check == "initial" else maintenance


class AssetWeights(BaseModel):
    """What deposits of an asset are worth as collateral and what debts in it require, as fractions of value.

    Formula:  asset = min(table, 1.1 / (1 + factor x root of size)); liability = max(table, 0.8 x table + factor x
              root of size); once deposits of all accounts are worth at least `scale_start`, the initial asset weight
              is table x scale start / worth of deposits (0 turns that off).
    Rounding: down to four places. Source: Drift v2, `get_asset_weight`, `get_liability_weight`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["sqrt-size:1"]
    initial_asset: Factor
    maintenance_asset: Factor
    initial_liability: Factor
    maintenance_liability: Factor
    size_factor: Factor = ZERO
    scale_start: Factor = ZERO

    def initial_scaled(self, pool_value: Decimal) -> Decimal:
        """The initial asset weight when all deposits together are worth `pool_value`, before size counts."""
        if not self.scale_start or pool_value < self.scale_start:
            return self.initial_asset
        return divide_down(self.initial_asset * self.scale_start, pool_value, WEIGHT_QUANTUM)

    def asset(self, check: Check, size: Decimal, pool_value: Decimal = ZERO) -> Decimal:
        """The weight of a deposit of a size >= 0."""
        base = by_check(check, self.initial_scaled(pool_value), self.maintenance_asset)
        return size_discount(base, self.size_factor, size)

    def liability(self, check: Check, size: Decimal) -> Decimal:
        """The weight of a debt of a size >= 0."""
        return size_premium(by_check(check, self.initial_liability, self.maintenance_liability), self.size_factor, size)


class SizeRatios(BaseModel):
    """Margin ratios of a market, growing with the root of size.

    Formula:  max(table, 0.8 x table + factor x root of size). Rounding: down to four places.
    Source:   Drift v2, `get_margin_ratio`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["sqrt-size:1"]
    initial: Factor
    maintenance: Factor
    size_factor: Factor = ZERO

    @model_validator(mode="after")
    def _ordered(self) -> SizeRatios:
        if self.maintenance > self.initial:
            raise PydanticCustomError("ratios", "expected a maintenance ratio not above the initial, came {low} above "
                                      "{high}", {"low": str(self.maintenance), "high": str(self.initial)})
        return self

    def ratio(self, check: Check, size: Decimal) -> Decimal:
        """The ratio of a size >= 0."""
        return size_premium(by_check(check, self.initial, self.maintenance), self.size_factor, size)


class ProfitWeights(BaseModel):
    """What unrealised profit is worth as collateral; a loss always counts in full.

    Formula:  initial and fill: min(table, 1.1 / (1 + factor x root of profit)), the table cut by imbalance bound /
              net profit of all accounts where that exceeds the bound; maintenance: the table.
              For initial margin the weighted profit of one position is capped.
    Rounding: weights down to four places. Source: Drift v2, `get_unrealized_asset_weight`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["capped-profit:1"]
    initial: Factor
    maintenance: Factor
    size_factor: Factor = ZERO
    max_imbalance: Factor = ZERO
    initial_cap: Factor | None = None

    def weight(self, check: Check, profit: Decimal, net_profit_of_all: Decimal = ZERO) -> Decimal:
        """The weight of an unrealised result; 1 where it is no profit."""
        if profit <= 0:
            return ONE
        if check == "maintenance":
            return self.maintenance
        base = self.initial
        if self.max_imbalance and net_profit_of_all > self.max_imbalance:
            base = divide_down(base * self.max_imbalance, net_profit_of_all, WEIGHT_QUANTUM)
        return size_discount(base, self.size_factor, profit) if base else ZERO
