"""The order of loss: collateral is converted first, then the funds pay, and what is left stays open.

This file knows amounts only; which event records what is the aggregates' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import FINEST, ONE, divide_down, divide_up
from ledger.risk.margin import PriceOf


class Conversion(NamedTuple):
    """Collateral to sell to the house for an asset owed: amounts, and the mark of one in the other, to 18 places."""

    sold_asset: str
    sold_amount: Decimal
    bought_asset: str
    bought_amount: Decimal
    price: Decimal


def largest_debt(balances: Mapping[str, Decimal], price_of: PriceOf) -> str | None:
    """The asset owed whose debt is worth most, then by name; None where nothing priced is owed."""
    debts = [(-amount * price, asset) for asset, amount in balances.items()
             if amount < 0 and (price := price_of(asset)) is not None]
    return min(debts, key=lambda debt: (-debt[0], debt[1]))[1] if debts else None


def conversion(balances: Mapping[str, Decimal], debt: str, price_of: PriceOf, quantum_of: Mapping[str, Decimal],
               fee: Decimal) -> Conversion | None:
    """The next sale of collateral for a debt: the asset worth most first, as much of it as the debt needs.

    Formula:  bought = sold x price x (1 - fee), price = mark of the sold over mark of the bought.
    Rounding: sold up to its quantum (never above the balance), bought down to its quantum; against the account.
    None where no other asset is worth at least one quantum of the asset owed.
    """
    debt_price = price_of(debt)
    if debt_price is None or fee >= ONE:
        return None
    priced = [(amount * price, asset) for asset, amount in balances.items()
              if amount > 0 and asset != debt and (price := price_of(asset)) is not None]
    for _, asset in sorted(priced, key=lambda row: (-row[0], row[1])):
        price = price_of(asset)
        if price is None:
            continue
        needed = divide_up(-balances[debt] * debt_price, price * (ONE - fee), quantum_of[asset])
        sold = min(needed, balances[asset])
        bought = divide_down(sold * price * (ONE - fee), debt_price, quantum_of[debt])
        if bought > 0:
            return Conversion(asset, sold, debt, bought, divide_down(price, debt_price, FINEST))
    return None
