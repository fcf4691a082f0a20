"""A position as margin sees it, and what it is worth at a price: linear contracts in quote, inverse ones in base.

The value of a position is signed so that profit is always value - cost: a linear long is worth +size x price and
cost +size x entry; an inverse long is worth -size / price and cost -size / entry. This file knows no accounts.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, NamedTuple

from ledger.amounts import FINEST, divide_down, divide_up

ContractType = Literal["linear", "inverse", "spot", "option"]


class Holding(NamedTuple):
    """One position as margin sees it: signed size in contracts, cost and accrued funding in the settlement asset.

    The settlement asset is the quote of a linear contract and the base of an inverse one, whose cost is negative
    when long (`value_of`).
    """

    instrument: str
    margin_mode: str
    position_side: str
    size: Decimal
    cost: Decimal
    mark: Decimal
    accrued: Decimal
    contract_size: Decimal
    settlement_asset: str
    quantum: Decimal
    leverage: Decimal | None
    contract_type: ContractType = "linear"
    # All accounts' contracts on the instrument, one side; None where it is not known.
    open_interest: Decimal | None = None


def value_of(*, size: Decimal, contract_size: Decimal, price: Decimal, contract_type: ContractType = "linear",
             quantum: Decimal = FINEST) -> Decimal:
    """The signed value of a position at a price; what it cost, at the price of its fill.

    Formula:  linear  size x contract size x price;  inverse  -size x contract size / price.
    Units:    settlement asset: quote, or base of an inverse contract.
    Rounding: linear none; inverse down to `quantum`, which is against the account for a value at the mark or at
              a closing fill, long or short. A cost is rounded the other way (`cost_of`).
    Source:   semantics section 3.
    """
    if contract_type == "inverse":
        return divide_down(-size * contract_size, price, quantum)
    return size * contract_size * price


def cost_of(*, size: Decimal, contract_size: Decimal, price: Decimal, contract_type: ContractType = "linear",
            quantum: Decimal = FINEST) -> Decimal:
    """What a fill that opens costs: its value, an inverse one rounded up to `quantum`, against the account."""
    if contract_type == "inverse":
        return divide_up(-size * contract_size, price, quantum)
    return size * contract_size * price


def notional_of(*, size: Decimal, contract_size: Decimal, price: Decimal, contract_type: ContractType = "linear",
                quantum: Decimal = FINEST) -> Decimal:
    """The size of a position's value, never negative. Rounding: an inverse one up, as requirements are."""
    if contract_type == "inverse":
        return divide_up(abs(size) * contract_size, price, quantum)
    return abs(size * contract_size * price)


def nearest_value(*, size: Decimal, contract_size: Decimal, price: Decimal, contract_type: ContractType = "linear",
                  quantum: Decimal = FINEST) -> Decimal:
    """The value as venues print it that round to the nearest quantum, halves away from zero. Source: BitMEX."""
    if contract_type == "inverse":
        half = divide_down(abs(size) * contract_size * 2 + price * quantum, price * 2, quantum)
        return -half if size > 0 else half
    return size * contract_size * price
