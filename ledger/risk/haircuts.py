"""What collateral is worth beyond `value-tiers:1`: flat, by tiers of amount, with bid and ask buffers, by its root.

Each block takes an amount of either sign and a price, and answers the weighed value: credits valued low, debts in
full or above. The way back, from a value to an amount, is searched for on the asset's quanta. This file knows no
accounts and no marks.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import FINEST, ONE, ZERO, Factor, Fraction, WirePositive, divide_down
from ledger.risk.roots import root_up


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Flat(_Block):
    """One haircut for all of a positive balance; liabilities in full. Rounding: none."""

    variant: Literal["flat:1"]
    haircut: Fraction

    def worth(self, amount: Decimal, price: Decimal) -> Decimal:
        """The weighed value of an amount of either sign."""
        return amount * price * (ONE - self.haircut) if amount > 0 else amount * price

    def edges(self, amount: Decimal) -> list[Decimal]:
        """The prices at which the weighed value bends."""
        return []


class Buffers(_Block):
    """Bid and ask buffers: credits at index x (1 - bid), debts and requirements at index x (1 + ask).

    Formula:  min(amount x bid rate, amount x ask rate).   Source: Binance multi-assets mode (docs/margin.md).
    """

    variant: Literal["buffers:1"]
    bid: Fraction
    ask: Fraction

    def worth(self, amount: Decimal, price: Decimal) -> Decimal:
        """The weighed value of an amount of either sign."""
        return amount * (self.bid_rate(price) if amount > 0 else self.ask_rate(price))

    def bid_rate(self, price: Decimal) -> Decimal:
        """What a credit of one unit is worth."""
        return price * (ONE - self.bid)

    def ask_rate(self, price: Decimal) -> Decimal:
        """What a debt, or a requirement, of one unit is worth."""
        return price * (ONE + self.ask)

    def edges(self, amount: Decimal) -> list[Decimal]:
        """The prices at which the weighed value bends."""
        return []


class AmountTier(_Block):
    """One marginal tier: the part of an asset's amount up to `up_to` is cut by `haircut`."""

    up_to: WirePositive | None = None
    haircut: Fraction


class AmountTiers(_Block):
    """Marginal haircuts by amount, whatever the price. Rounding: none. Source: Bybit, OKX (docs/margin.md)."""

    variant: Literal["amount-tiers:1"]
    tiers: list[AmountTier]

    @model_validator(mode="after")
    def _whole(self) -> AmountTiers:
        if not self.tiers:
            raise PydanticCustomError("tiers", "expected at least one tier, came none", {})
        floor = ZERO
        for index, tier in enumerate(self.tiers):
            if (tier.up_to is None) != (index == len(self.tiers) - 1):
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
    def _parts(self) -> list[tuple[Decimal, Decimal | None, Decimal]]:
        floors = [ZERO, *(tier.up_to for tier in self.tiers[:-1] if tier.up_to is not None)]
        return [(floor, tier.up_to, ONE - tier.haircut) for floor, tier in zip(floors, self.tiers, strict=True)]

    def worth(self, amount: Decimal, price: Decimal) -> Decimal:
        """The weighed value of an amount of either sign."""
        if amount <= 0:
            return amount * price
        kept = ZERO
        for floor, ceiling, share in self._parts:
            if ceiling is None or amount <= ceiling:
                return (kept + (amount - floor) * share) * price
            kept += (ceiling - floor) * share
        return kept * price

    def edges(self, amount: Decimal) -> list[Decimal]:
        """None: the weighed value is linear in the price."""
        return []


class RootWeight(_Block):
    """A weight that falls with the square root of the amount.

    Formula:  weight = min(1 - haircut, 1.1 / (1 + factor x sqrt(amount))).
    Rounding: the root up, the quotient down, to 18 places.   Source: FTX's collateral weight (docs/margin.md).
    """

    variant: Literal["root-weight:1"]
    haircut: Fraction
    factor: Factor

    def worth(self, amount: Decimal, price: Decimal) -> Decimal:
        """The weighed value of an amount of either sign."""
        if amount <= 0:
            return amount * price
        weight = divide_down(Decimal("1.1"), ONE + self.factor * root_up(amount), FINEST)
        return amount * price * min(ONE - self.haircut, weight)

    def edges(self, amount: Decimal) -> list[Decimal]:
        """None: the weight does not depend on the price."""
        return []


Haircuts = Annotated[Flat | Buffers | AmountTiers | RootWeight, Field(discriminator="variant")]
