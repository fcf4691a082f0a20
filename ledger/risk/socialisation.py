"""Losses that no collateral and no fund covers, shared by an index: one number moves and all pay their part.

Variant `index:1`. The index moves by at least the loss: rounding is against those who share it. This file moves
no money.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from ledger.amounts import ZERO, divide_up
from ledger.risk.weighted_account import VALUE_QUANTUM

INDEX_QUANTUM: Final = Decimal("0.0000000001")


def funding_index_delta(loss: Decimal, *, long_size: Decimal, short_size: Decimal) -> Decimal:
    """How far both funding indexes of a market move so that every open unit pays its part of a loss.

    Formula:  |loss| / (|long| + |short|). Rounding: up to a millionth.
    Raises:   ValueError where nothing is open. Source: Drift v2, perpetual bankruptcy.
    """
    total = abs(long_size) + abs(short_size)
    if not total:
        raise ValueError("expected open positions that can bear the loss, there are none")
    return divide_up(abs(loss), total, VALUE_QUANTUM)


def deposit_index_delta(debt: Decimal, *, deposits: Decimal, index: Decimal) -> Decimal:
    """How far the deposit index of an asset falls so that its depositors bear a debt; 0 without deposits.

    Formula:  index x debt / deposits. Rounding: up to a ten-billionth. Source: Drift v2, borrow bankruptcy.
    """
    return divide_up(index * debt, deposits, INDEX_QUANTUM) if deposits else ZERO
