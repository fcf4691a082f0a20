"""Deleveraging: a bankrupt account's position is closed against an account on the other side, without a market.

Variant `counterparty:1`. The other side gets the bankrupt account's bankruptcy value and keeps what it won above it.
This file chooses no counterparties and keeps no state.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, NamedTuple

from ledger.risk.fillable import InvalidSize, bankruptcy_quote
from ledger.risk.quote_account import (
    Change,
    Markets,
    QuoteAccount,
    changed,
    check_changes,
    notional,
    risk,
    settled,
)

DeleveragingPrice = Literal["bankruptcy", "oracle"]


class Deleveraged(NamedTuple):
    """Both accounts afterwards."""

    account: QuoteAccount
    counterparty: QuoteAccount


class NotDeleverable(ValueError):
    """The trade would leave one of the two riskier than it may be."""


def deleveraging_price(account: QuoteAccount, markets: Markets, *, final_settlement: bool) -> DeleveragingPrice | None:
    """At what price an account may be deleveraged: bankruptcy where equity is negative, oracle where its market is
    being settled for good, else not at all."""
    if risk(settled(account, markets), markets).equity < 0:
        return "bankruptcy"
    return "oracle" if final_settlement else None


def deleverage(account: QuoteAccount, counterparty: QuoteAccount, markets: Markets, market: str, *,
               size_change: Decimal, price: DeleveragingPrice) -> Deleveraged:
    """Close `size_change` of the account's position against the counterparty's.

    Both trade the same quote; then both must pass `check_changes` as any match must, which fails where the two
    bankruptcy prices do not overlap.
    Raises:  InvalidSize where the size does not reduce both positions, NotDeleverable where a check fails.
    Source:  dYdX v4, `ProcessDeleveraging`.
    """
    account, counterparty = settled(account, markets), settled(counterparty, markets)
    own, other = account.size(market), counterparty.size(market)
    if own * size_change >= 0 or abs(size_change) > abs(own):
        raise InvalidSize(f"expected a size that reduces the position of {own} in {market}, came {size_change}")
    if other * size_change <= 0 or abs(size_change) > abs(other):
        raise InvalidSize(f"expected a size within the counterparty's {other} in {market}, came {size_change}")
    if price == "oracle":
        quote = notional(-size_change, markets[market].mark, markets[market].fractions.quantum)
    else:
        quote = bankruptcy_quote(account, markets, market, size_change)
    sides = [(account, Change(quote, ((market, size_change),))),
             (counterparty, Change(-quote, ((market, -size_change),)))]
    verdicts = check_changes(sides, markets, match=True)
    if any(verdict != "success" for verdict in verdicts):
        raise NotDeleverable(f"expected both sides to be no riskier after it, came {', '.join(verdicts)}")
    return Deleveraged(*(changed(side, change, markets) for side, change in sides))
