"""Margin levels of borrowed money: assets over liabilities, and what has to be sold for a deficit.

Source: Binance spot cross margin and multi-assets mode (docs/margin.md). This file knows no accounts.
"""

from __future__ import annotations

from decimal import Decimal

from ledger.amounts import FINEST, ZERO, divide_down, divide_up
from ledger.risk.haircuts import Flat


def margin_level(*, assets: Decimal, liabilities: Decimal, interest: Decimal = ZERO) -> Decimal | None:
    """Assets / (liabilities + interest), down to 18 places; None without liabilities."""
    return quotient(assets, liabilities + interest)


def quotient(numerator: Decimal, denominator: Decimal) -> Decimal | None:
    """A ratio of two printed totals, down to 18 places; None where the denominator is not above zero."""
    return divide_down(numerator, denominator, FINEST) if denominator > 0 else None


def value_to_sell(*, deficit: Decimal, haircut: Flat, quantum: Decimal = FINEST) -> Decimal:
    """The value of collateral whose sale covers a deficit after haircut; up to `quantum`."""
    return divide_up(deficit, haircut.worth(Decimal(1), Decimal(1)), quantum)


def interest(*, loan: Decimal, hours: Decimal, hourly_rate: Decimal, quantum: Decimal) -> Decimal:
    """What a loan costs for whole hours begun; up to `quantum`."""
    return divide_up(loan * hours * hourly_rate, Decimal(1), quantum)
