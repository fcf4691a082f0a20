"""How much: the tier a size stands in, what to close to reach one, what a settlement or a fee moves.

This file knows amounts only.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import ONE, ZERO, divide_up


class Crossed(NamedTuple):
    """A resting order met by one that fills at once or not at all: what is filled, and what keeps resting."""

    filled: Decimal
    resting: Decimal


def gross_size(sizes: Iterable[Decimal]) -> Decimal:
    """All expiries of one underlying together, long and short added up. Source: OKX tiers."""
    return sum((abs(size) for size in sizes), ZERO)


def tier_number(size: Decimal, *, first: Decimal, step: Decimal) -> int:
    """The tier that holds a size where the first ends at `first` and each further one is `step` wide; from 1."""
    return 1 + max(0, int(divide_up(size - first, step, ONE)))


def size_to_close(size: Decimal, *, most: Decimal) -> Decimal:
    """What must be closed of |size| so that at most `most` is left: closing down to a tier. Not below zero."""
    return max(ZERO, abs(size) - most)


def crossed(resting: Decimal, coming: Decimal) -> Crossed:
    """What two orders trade, and what the resting one keeps."""
    filled = min(resting, coming)
    return Crossed(filled, resting - filled)


def lot_fee(lots: Decimal, fee_per_lot: Decimal) -> Decimal:
    """A fee charged by the lot. Source: exchange-core's margin fees."""
    return lots * fee_per_lot


class Settled(NamedTuple):
    """A balance after a periodic settlement, the profit left open, and the equity, which has not changed."""

    balance: Decimal
    unrealised_pnl: Decimal
    equity: Decimal


def settle(*, balance: Decimal, realised_pnl: Decimal, unrealised_pnl: Decimal) -> Settled:
    """A periodic settlement: all profit joins the balance, and positions start anew at the settlement price."""
    whole = balance + realised_pnl + unrealised_pnl
    return Settled(whole, ZERO, whole)


def funding_payment(*, value: Decimal, rate: Decimal, long: bool) -> Decimal:
    """What a position receives (+) or pays (-): longs pay when the rate is positive."""
    return -value * rate if long else value * rate
