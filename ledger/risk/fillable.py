"""Closing part of an account at a price: what the part is worth at bankruptcy, the worst price it may be offered at,
how much may be closed at once, and what the insurance fund earns or pays.

Variant `fillable:1`. Losses and equity are shared over positions in proportion to maintenance margin; rounding
favours the insurance fund. This file places no orders and keeps no state.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction as Rational
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from ledger.amounts import FINEST, ZERO, Factor, Fraction, divide_down, divide_up, round_down, round_up
from ledger.risk.quote_account import (
    Change,
    Markets,
    QuoteAccount,
    changed,
    notional,
    position_risk,
    risk,
    settled,
)


class FillableRule(BaseModel):
    """How an account is closed: sizes, the spread offered to takers of its positions, the fund's fee."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["fillable:1"]
    max_fee: Fraction
    bankruptcy_adjustment: Factor
    spread_to_maintenance: Factor
    min_position_notional: Factor
    max_position_portion: Fraction
    max_notional_per_block: Factor


class InvalidSize(ValueError):
    """The size does not oppose the position, or is larger than it."""


class InvalidFill(ValueError):
    """A fill of nothing."""


def _opposed(account: QuoteAccount, market: str, size_change: Decimal) -> Decimal:
    size = account.size(market)
    if size * size_change >= 0 or abs(size_change) > abs(size):
        raise InvalidSize(f"expected a size that reduces the position of {size} in {market}, came {size_change}")
    return size


def bankruptcy_quote(account: QuoteAccount, markets: Markets, market: str, size_change: Decimal) -> Decimal:
    """Quote received (negative: paid) for closing a part so that the account bears its whole share of equity.

    Formula:  - change of notional - equity x |change of maintenance margin| / maintenance margin; both changes
              taken from the position before and after, since neither is linear once rounded.
    Rounding: the share of equity down (towards minus infinity), so the result is rounded up.
    Raises:   InvalidSize where the size does not reduce the position, or nothing requires margin.
    Source:   dYdX v4, `GetBankruptcyPriceInQuoteQuantums`.
    """
    account = settled(account, markets)
    size = _opposed(account, market, size_change)
    row = markets[market]
    total = risk(account, markets)
    if not total.maintenance_margin:
        raise InvalidSize(f"expected a position that requires margin, that in {market} requires none")
    before, after = position_risk(row, size), position_risk(row, size + size_change)
    share = divide_down(total.equity * abs(after.maintenance_margin - before.maintenance_margin),
                        total.maintenance_margin, row.fractions.quantum)
    return before.equity - after.equity - share


def fillable_ratio(account: QuoteAccount, markets: Markets, market: str, size_change: Decimal,
                   rule: FillableRule) -> Rational:
    """The worst price at which a position may be offered, an exact fraction; between oracle and its spread.

    Formula:  (notional - rating x spread x maintenance margin of the position) / size, the rating being
              adjustment x (1 - equity / maintenance margin), held between 0 and 1.
    Source:   dYdX v4, `GetFillablePrice`.
    """
    account = settled(account, markets)
    size = _opposed(account, market, size_change)
    total = risk(account, markets)
    if not total.maintenance_margin:
        raise InvalidSize(f"expected a position that requires margin, that in {market} requires none")
    part = position_risk(markets[market], size)
    rating = Rational(rule.bankruptcy_adjustment) * (1 - Rational(total.equity) / Rational(total.maintenance_margin))
    rating = min(max(rating, Rational(0)), Rational(1))
    spread = Rational(rule.spread_to_maintenance) * Rational(part.maintenance_margin)
    return (Rational(part.equity) - rating * spread) / Rational(size)


def fillable_price(account: QuoteAccount, markets: Markets, market: str, size_change: Decimal,
                   rule: FillableRule) -> Decimal:
    """`fillable_ratio` as a price to 18 places: up for a sale, down for a purchase, never worse for the account."""
    ratio = fillable_ratio(account, markets, market, size_change, rule)
    divide = divide_up if size_change < 0 else divide_down
    return divide(Decimal(ratio.numerator), Decimal(ratio.denominator), FINEST)


def fund_delta(account: QuoteAccount, markets: Markets, market: str, *, size_change: Decimal, price: Decimal,
               rule: FillableRule) -> Decimal:
    """What the insurance fund earns (+) or pays (-) when a part is closed at a price.

    Formula:  d = quote of the fill - bankruptcy quote; d where it is not positive, else the lesser of d and the
              greatest fee, |quote| x rate.
    Rounding: the quote of the fill towards zero, the fee down, to the quote quantum.
    Raises:   InvalidFill for a fill of nothing, InvalidSize as `bankruptcy_quote`.
    Source:   dYdX v4, `GetLiquidationInsuranceFundDelta`.
    """
    if not size_change:
        raise InvalidFill("expected a fill above zero, came 0")
    quantum = markets[market].fractions.quantum
    quote = notional(-size_change, price, quantum)
    gain = quote - bankruptcy_quote(account, markets, market, size_change)
    return gain if gain <= 0 else min(round_down(abs(quote) * rule.max_fee, quantum), gain)


class NotionalBounds(NamedTuple):
    """How much of a position may be closed at once, in the quote asset."""

    least: Decimal
    most: Decimal


def notional_bounds(account: QuoteAccount, markets: Markets, market: str, rule: FillableRule) -> NotionalBounds:
    """The least and the most notional of a position to close at once; the portion is rounded down."""
    row = markets[market]
    value = abs(notional(account.size(market), row.mark, row.fractions.quantum))
    least = min(rule.min_position_notional, value)
    return NotionalBounds(least, max(least, round_down(value * rule.max_position_portion, row.fractions.quantum)))


def closing_size(account: QuoteAccount, markets: Markets, market: str, *, step: Decimal,
                 rule: FillableRule, spent: Decimal = ZERO) -> Decimal:
    """The signed size to close now: the whole position where the bounds cover it or it is at most a step.

    Formula:  min(most of the position, what is left of the account's limit after `spent`) / mark, held between one
              step and the whole.
    Rounding: down to the step. Raises: InvalidSize where there is no position.
    Source:   dYdX v4, `GetLiquidatablePositionSizeDelta`.
    """
    size, row = account.size(market), markets[market]
    if not size:
        raise InvalidSize(f"expected a position in {market}, there is none")
    most = min(notional_bounds(account, markets, market, rule).most, max(ZERO, rule.max_notional_per_block - spent))
    value = abs(notional(size, row.mark, row.fractions.quantum))
    if value <= most or abs(size) <= step:
        return -size
    amount = min(max(divide_down(most, row.mark, step), step), abs(size))
    return -amount if size > 0 else amount


class Closed(NamedTuple):
    """Both accounts after a fill of a position that is being closed out, and what the fund earned or paid."""

    account: QuoteAccount
    maker: QuoteAccount
    fund_delta: Decimal


def close_against(account: QuoteAccount, maker: QuoteAccount, markets: Markets, market: str, *, size_change: Decimal,
                  price: Decimal, maker_fee: Decimal, taker_fee: Decimal, rule: FillableRule) -> Closed:
    """One fill at the maker's price: the account pays the fund instead of a fee, the maker pays its own fee.

    The fund's part follows from the account's state before this fill, so that several fills each see their own.
    Rounding: quote of the fill towards zero, fees up (a rebate down), to the quote quantum.
    """
    account, maker = settled(account, markets), settled(maker, markets)
    quantum = markets[market].fractions.quantum
    delta = fund_delta(account, markets, market, size_change=size_change, price=price, rule=rule)
    quote = notional(-size_change, price, quantum)
    paid, taken = round_up(abs(quote) * maker_fee, quantum), round_up(abs(quote) * taker_fee, quantum)
    return Closed(changed(account, Change(quote - delta - taken, ((market, size_change),)), markets),
                  changed(maker, Change(-quote - paid, ((market, -size_change),)), markets), delta)

