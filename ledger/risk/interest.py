"""Interest by index: what a balance has accrued follows from rate x seconds since it was last settled.

Simple interest, ACT/365 on log time: what is owed pays the borrow rate, what is held earns the lend rate. This file
knows no accounts.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from ledger.amounts import FINEST, divide_down, round_down
from ledger.risk.funding import Accrued

SECONDS_PER_YEAR: Final = Decimal(365 * 86_400)


def accrued_interest(*, balance: Decimal, rate_seconds: Decimal, quantum: Decimal) -> Accrued:
    """Interest of a balance over `rate_seconds` (the index now less the index when last settled).

    Formula:  balance x rate_seconds / 31,536,000, to 18 places, down.
    Rounding: the payment to `quantum`: paid rounded up, received rounded down; the rest to `house:rounding`.
    Source:   semantics section 3.
    """
    owed = divide_down(balance * rate_seconds, SECONDS_PER_YEAR, FINEST)
    payment = round_down(owed, quantum)
    return Accrued(payment, owed - payment)
