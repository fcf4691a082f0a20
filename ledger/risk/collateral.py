"""What collateral is worth after haircuts, and the way back: how much of an asset is worth a given value.

A block is data with a versioned variant (`value-tiers:1`); a formula that changes is a new variant. Positive
balances are cut, liabilities never are. This file knows no accounts and no marks.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import AMOUNT_LIMIT, FINEST, ONE, ZERO, Fraction, WirePositive, divide_down, divide_up
from ledger.risk.haircuts import Haircuts


class Tier(BaseModel):
    """One marginal tier: the part of an asset's value up to `up_to` (valuation asset) is cut by `haircut`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    up_to: WirePositive | None = None
    haircut: Fraction


class ValueTiers(BaseModel):
    """Marginal haircuts by value: each tier cuts only the part of the value that lies in it.

    Formula:  value(v) = sum over tiers of (part of v in the tier) x (1 - haircut); v in the valuation asset.
    Rounding: none; products are exact.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["value-tiers:1"]
    tiers: list[Tier]

    @model_validator(mode="after")
    def _whole(self) -> ValueTiers:
        if not self.tiers:
            raise PydanticCustomError("tiers", "expected at least one tier, came none", {})
        floor = ZERO
        for index, tier in enumerate(self.tiers):
            last = index == len(self.tiers) - 1
            if (tier.up_to is None) != last:
                raise PydanticCustomError("tiers", "expected every tier but the last to end (`up_to`), tier {index} "
                                          "does not fit", {"index": index})
            if tier.up_to is not None and tier.up_to <= floor:
                raise PydanticCustomError("tiers", "expected ascending `up_to`, tier {index} does not rise",
                                          {"index": index})
            if index and tier.haircut < self.tiers[index - 1].haircut:
                raise PydanticCustomError("tiers", "expected haircuts that do not fall, tier {index} does",
                                          {"index": index})
            floor = tier.up_to or floor
        return self

    @cached_property
    def parts(self) -> tuple[tuple[Decimal, Decimal | None, Decimal], ...]:
        """(floor, ceiling or None, share kept) of each tier, ascending."""
        floors = [ZERO, *(tier.up_to for tier in self.tiers[:-1] if tier.up_to is not None)]
        return tuple((floor, tier.up_to, ONE - tier.haircut) for floor, tier in zip(floors, self.tiers, strict=True))

    def value(self, gross: Decimal) -> Decimal:
        """Value after haircut of a gross value >= 0, both in the valuation asset; exact."""
        total = ZERO
        for floor, ceiling, kept in self.parts:
            if ceiling is None or gross <= ceiling:
                return total + (gross - floor) * kept
            total += (ceiling - floor) * kept
        return total

    def worth(self, amount: Decimal, price: Decimal) -> Decimal:
        """The weighed value of an amount of either sign, as every collateral block answers it."""
        return self.signed(amount * price)

    def edges(self, amount: Decimal) -> list[Decimal]:
        """The prices at which the weighed value of an amount bends, rounded down to 18 places."""
        return [divide_down(floor, amount, FINEST) for floor, _, _ in self.parts if floor] if amount > 0 else []

    def signed(self, gross: Decimal) -> Decimal:
        """Value of a balance of either sign: positive cut, negative in full."""
        return self.value(gross) if gross > 0 else gross


CollateralBlock = ValueTiers | Haircuts


def amount_to_raise(tiers: CollateralBlock, *, balance: Decimal, price: Decimal, by: Decimal,
                    quantum: Decimal) -> Decimal | None:
    """The least amount of an asset whose arrival raises the pool's margin equity by at least `by` (> 0).

    Rounding: up to the asset's quantum. None where no amount does (the last tiers are cut whole).
    """
    if not isinstance(tiers, ValueTiers):
        wanted = tiers.worth(balance, price) + by
        return _least(lambda amount: tiers.worth(balance + amount, price) >= wanted, quantum)
    gross = balance * price
    target = tiers.signed(gross) + by
    if target <= 0:
        return divide_up(by, price, quantum)
    needed: Decimal | None = None
    for floor, ceiling, kept in tiers.parts:
        at_floor = tiers.value(floor)
        at_ceiling = None if ceiling is None else tiers.value(ceiling)
        if kept and (at_ceiling is None or target <= at_ceiling):
            # gross value wanted = floor + (target - at_floor) / kept; amount = that / price - balance.
            numerator = (floor - gross) * kept + (target - at_floor)
            needed = divide_up(numerator, kept * price, quantum)
            break
    return needed


def amount_to_release(tiers: CollateralBlock, *, balance: Decimal, price: Decimal, by: Decimal,
                      quantum: Decimal) -> Decimal:
    """The most of a positive balance that can leave while margin equity falls by at most `by` (>= 0).

    Rounding: down to the asset's quantum. Never above the balance.
    """
    if not isinstance(tiers, ValueTiers):
        left = tiers.worth(balance, price) - by
        over = _least(lambda amount: amount > balance or tiers.worth(balance - amount, price) < left, quantum)
        return balance if over is None else max(ZERO, min(balance, over - quantum))
    gross = balance * price
    target = tiers.value(gross) - by
    if target <= 0:
        return balance
    for floor, ceiling, kept in tiers.parts:
        at_floor = tiers.value(floor)
        at_ceiling = None if ceiling is None else tiers.value(ceiling)
        if kept and (at_ceiling is None or target <= at_ceiling):
            numerator = (gross - floor) * kept - (target - at_floor)
            return max(ZERO, min(balance, divide_down(numerator, kept * price, quantum)))
    return ZERO


def _least(enough: Callable[[Decimal], bool], quantum: Decimal) -> Decimal | None:
    """The least whole number of quanta that is enough, where more never is less so; None below 10^18."""
    low, high = 0, 1
    while not enough(high * quantum):
        low, high = high, high * 2
        if high * quantum > AMOUNT_LIMIT:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle * quantum) else (middle, high)
    return high * quantum
