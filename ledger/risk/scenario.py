"""Portfolio margin: charges by scenario, and charges that grow by tier."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import ZERO


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
