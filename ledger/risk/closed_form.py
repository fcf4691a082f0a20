"""The venues' own formulas for one position: where it is liquidated or bankrupt, given all that stands beside it.

They hold within one bracket and are what venues print; `ledger.risk.liquidation` finds the same price for any pool,
across brackets and haircuts, and a test holds each to the other. This file knows no rulebook.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import FINEST, ONE, ZERO, divide_down, divide_up, round_down, round_up
from ledger.risk.holding import ContractType


def line_price(*, equity: Decimal, reference: Decimal, size: Decimal, rate: Decimal = ZERO, deduction: Decimal = ZERO,
               other: Decimal = ZERO, contract_type: ContractType = "linear") -> Decimal | None:
    """The price at which equity meets the maintenance margin, all else as it is; None where no positive price does.

    Formula:  linear   equity + size x (P - reference) = rate x |size| x P - deduction + other;
              inverse  equity + size x (1 / reference - 1 / P) = rate x |size| / P - deduction + other.
    `equity` is the account's at the reference price (an entry: without this position's PnL; a mark: with it), `size`
    is signed and in units of the value (contracts x contract size), `other` what the other positions require, or
    this one at a fixed value. With no rate, deduction and other: the bankruptcy price.
    Rounding: to 18 places against the trader, up for a long and down for a short.
    Source:   Binance USD-M and COIN-M liquidation price, Bybit, OKX, Hyperliquid (docs/margin.md).
    """
    fixed = equity + deduction - other
    if contract_type == "inverse":
        numerator, denominator = (size + rate * abs(size)) * reference, fixed * reference + size
    else:
        numerator, denominator = size * reference - fixed, size - rate * abs(size)
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    if not denominator or numerator <= 0:
        return None
    return (divide_up if size > 0 else divide_down)(numerator, denominator, FINEST)


def bankruptcy_price_of(*, equity: Decimal, reference: Decimal, size: Decimal, closing_rate: Decimal = ZERO,
                        contract_type: ContractType = "linear") -> Decimal | None:
    """The price at which equity, less the fee for closing there, is zero; None where no positive price does.

    Source: Bybit inverse contracts: (1 +/- fee) x Q / (Q / entry +/- balance); BitMEX.
    """
    return line_price(equity=equity, reference=reference, size=size, rate=closing_rate, contract_type=contract_type)


def isolated_bankruptcy_price(*, entry: Decimal, leverage: Decimal, long: bool,
                              contract_type: ContractType = "linear") -> Decimal:
    """The price at which a position's own initial margin (value / leverage) is lost, to 18 places.

    Formula:  linear entry x (1 -/+ 1 / leverage); inverse entry x leverage / (leverage +/- 1); upper sign long.
    Rounding: against the trader. A short of leverage 1, inverse, has none: ValueError.
    """
    side = ONE if long else -ONE
    round_price = divide_up if long else divide_down
    if contract_type == "inverse":
        if leverage + side <= 0:
            raise ValueError("expected a leverage above 1 of an inverse short, which is never bankrupt otherwise")
        return round_price(entry * leverage, leverage + side, FINEST)
    return round_price(entry * (leverage - side), leverage, FINEST)


def to_tick(price: Decimal, *, tick: Decimal, long: bool) -> Decimal:
    """A liquidation or bankruptcy price on the tick, against the trader: up for a long, down for a short."""
    return round_up(price, tick) if long else round_down(price, tick)


def price_of_value(*, value: Decimal, size: Decimal, contract_size: Decimal = ONE) -> Decimal:
    """The price that a linear position of |size| contracts is valued at, to 18 places; what venues print as value."""
    return divide_down(abs(value), abs(size) * contract_size, FINEST)


def return_on_equity(*, pnl: Decimal, value: Decimal, leverage: Decimal) -> Decimal:
    """Profit in proportion to the initial margin value / leverage, down to 18 places."""
    return divide_down(pnl * leverage, abs(value), FINEST)


class InverseCross(NamedTuple):
    """The two prices of an inverse contract that alone stands against a balance."""

    bankruptcy: Decimal | None
    liquidation: Decimal | None


def inverse_cross_price(*, size: Decimal, entry: Decimal, balance: Decimal, order_margin: Decimal, rate: Decimal,
                        fee: Decimal) -> InverseCross:
    """Bankruptcy and liquidation price of an inverse contract in cross, maintenance at entry value, fee to close.

    Formula:  bankruptcy = (1 +/- fee) x Q / (Q / entry +/- free), free = balance - order margin;
              Q x (1 / entry - 1 / LP) = -(free - Q / entry x rate - Q x fee / bankruptcy) of a long.
    Units:    `size` in signed contracts of one unit of quote, amounts in the base.
    Rounding: 18 places against the trader.   Source: Bybit help centre, liquidation price of inverse contracts.
    """
    free = balance - order_margin
    bankruptcy = bankruptcy_price_of(equity=free, reference=entry, size=size, closing_rate=fee,
                                     contract_type="inverse")
    maintenance = divide_up(abs(size) * rate, entry, FINEST)
    closing = ZERO if bankruptcy is None else divide_up(abs(size) * fee, bankruptcy, FINEST)
    return InverseCross(bankruptcy, line_price(equity=free, reference=entry, size=size, other=maintenance + closing,
                                               contract_type="inverse"))
