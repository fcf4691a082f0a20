"""Profit and loss of linear positions: what closing realises, and where its remainder goes.

Linear cost is exact: size x contract size x price, summed. This file rounds only realised profit, against the
account. It knows no accounts and no marks.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import ZERO, divide_down


class Closed(NamedTuple):
    """What a reducing fill did: profit to the pool, remainder to `house:rounding`, and the cost that stays."""

    realised_pnl: Decimal
    rounding: Decimal
    cost: Decimal


def close(*, size: Decimal, cost: Decimal, closed: Decimal, value: Decimal, quantum: Decimal) -> Closed:
    """Close `closed` (same sign as `size`, no larger) of a position for `value` = closed x contract size x price.

    Formula:  realised = value - cost x closed / size, down to `quantum`; the remainder stays in the remaining
              cost, and at full close goes to `house:rounding`.
    Units:    settlement asset. Source: semantics section 3.
    """
    realised = divide_down(value * size - cost * closed if size > 0 else cost * closed - value * size,
                           abs(size), quantum)
    left = cost - value + realised
    if closed == size:
        return Closed(realised, -left, ZERO)
    return Closed(realised, ZERO, left)
