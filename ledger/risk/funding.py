"""Funding by index: one number a market; what a position has accrued follows from where it last settled.

The index is quote per unit of base, cumulative. Longs pay when it rises. This file knows no accounts.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import ZERO, round_down


class Accrued(NamedTuple):
    """To the pool (+) or from it (-), and what rounding leaves for `house:rounding` (>= 0)."""

    payment: Decimal
    rounding: Decimal


NOTHING = Accrued(ZERO, ZERO)


def accrued(*, size: Decimal, contract_size: Decimal, index_seen: Decimal, index_now: Decimal,
            quantum: Decimal) -> Accrued:
    """Funding since the position last settled: paid rounded up, received rounded down, to `quantum`.

    Settling changes no equity, since equity counts exactly this payment. Source: semantics section 3.
    """
    if index_now == index_seen:
        return NOTHING
    owed = (index_seen - index_now) * size * contract_size
    payment = round_down(owed, quantum)
    return Accrued(payment, owed - payment)
