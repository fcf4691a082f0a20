"""Mark prices that are pure functions of what the venue publishes: index and funding basis, and medians.

This file keeps no series: averages over time come in as figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from ledger.amounts import FINEST, ONE, divide_down


def funding_basis(*, rate: Decimal, time_left: Decimal, interval: Decimal) -> Decimal:
    """The part of the funding rate that is still to come: rate x time left / interval, down to 18 places."""
    return divide_down(rate * time_left, interval, FINEST)


def basis_mark(*, index: Decimal, basis: Decimal) -> Decimal:
    """The mark that lies the funding basis above the index. Source: BitMEX fair price, Binance price 1."""
    return index * (ONE + basis)


def median(prices: Sequence[Decimal]) -> Decimal:
    """The middle price; of an even number the mean of the two in the middle. Source: Binance, Bybit, Hyperliquid."""
    if not prices:
        raise ValueError("expected at least one price, came none")
    ranked = sorted(prices)
    half = len(ranked) // 2
    return ranked[half] if len(ranked) % 2 else (ranked[half - 1] + ranked[half]) / 2
