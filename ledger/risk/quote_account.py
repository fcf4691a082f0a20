"""Accounts with one quote asset: its balance and positions in several markets, their risk, and changes to it.

Entry prices are not part of it: equity never needs them. Marks are those of the oracle, the same for every action.
This file holds no state; every function gives a new account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from ledger.amounts import ZERO, round_down, round_towards_zero
from ledger.risk.open_interest import OpenInterestFraction
from ledger.risk.transition import Risk, Verdict, transition

UpdateVerdict = Verdict | Literal["violates_isolated"]


class QuoteMarket(NamedTuple):
    """One market: mark and open interest now, its fractions, its funding index, whether it stands alone."""

    name: str
    mark: Decimal
    fractions: OpenInterestFraction
    open_interest: Decimal = ZERO
    funding_index: Decimal = ZERO
    isolated: bool = False


class QuotePosition(NamedTuple):
    """A signed size with the quote booked to it, and the funding index when it last settled."""

    market: str
    size: Decimal
    quote: Decimal = ZERO
    funding_index: Decimal = ZERO


class QuoteAccount(NamedTuple):
    """A balance in the quote asset (of either sign) and at most one position a market."""

    balance: Decimal
    positions: tuple[QuotePosition, ...] = ()

    def size(self, market: str) -> Decimal:
        """The signed size held in a market; zero where none is."""
        return next((row.size for row in self.positions if row.market == market), ZERO)


class Change(NamedTuple):
    """A wish: quote to add, and signed sizes to add by market (a market may be named more than once)."""

    quote: Decimal
    sizes: tuple[tuple[str, Decimal], ...] = ()


Markets = Mapping[str, QuoteMarket]


def notional(size: Decimal, mark: Decimal, quantum: Decimal) -> Decimal:
    """Signed value of a size, truncated towards zero to the quote quantum."""
    return round_towards_zero(size * mark, quantum)


def position_risk(market: QuoteMarket, size: Decimal, quote: Decimal = ZERO, chosen: Decimal = ZERO) -> Risk:
    """What one position adds to equity and margins; see `OpenInterestFraction` for the formula."""
    quantum = market.fractions.quantum
    value = notional(size, market.mark, quantum)
    open_notional = notional(market.open_interest, market.mark, quantum)
    margins = market.fractions.margins(abs(value), open_notional, chosen)
    return Risk(value + quote, margins.initial, margins.maintenance)


def funding_credit(*, size: Decimal, index_seen: Decimal, index_now: Decimal) -> Decimal:
    """What a position receives since it last settled, unrounded: (index seen - index now) x size."""
    return (index_seen - index_now) * size


def settled(account: QuoteAccount, markets: Markets) -> QuoteAccount:
    """The account after funding: the credits of all positions summed, then rounded once, down."""
    rows = account.positions
    if not rows:
        return account
    credit = sum((funding_credit(size=row.size, index_seen=row.funding_index,
                                 index_now=markets[row.market].funding_index) for row in rows), ZERO)
    quantum = min(markets[row.market].fractions.quantum for row in rows)
    fresh = tuple(row._replace(funding_index=markets[row.market].funding_index) for row in rows)
    return QuoteAccount(account.balance + round_down(credit, quantum), fresh)


def changed(account: QuoteAccount, change: Change, markets: Markets) -> QuoteAccount:
    """A settled account after a change; a position without size and without quote is gone."""
    rows = {row.market: row for row in account.positions}
    for market, size in change.sizes:
        row = rows.get(market) or QuotePosition(market, ZERO, ZERO, markets[market].funding_index)
        rows[market] = row._replace(size=row.size + size)
    kept = tuple(row for row in rows.values() if row.size or row.quote)
    return QuoteAccount(account.balance + change.quote, kept)


def risk(account: QuoteAccount, markets: Markets, chosen: Mapping[str, Decimal] | None = None) -> Risk:
    """Equity and margins of a settled account: margins add up, gains and losses net through equity.

    `chosen` is the initial fraction the account asked for, by market.
    """
    equity, initial, maintenance = account.balance, ZERO, ZERO
    for row in account.positions:
        part = position_risk(markets[row.market], row.size, row.quote, (chosen or {}).get(row.market, ZERO))
        equity, initial, maintenance = (equity + part.equity, initial + part.initial_margin,
                                        maintenance + part.maintenance_margin)
    return Risk(equity, initial, maintenance)


def keeps_isolation(account: QuoteAccount, change: Change, markets: Markets) -> bool:
    """Whether a change leaves an isolated market alone in its account; one without sizes always does."""
    if not change.sizes:
        return True
    touched = next((market for market, _ in change.sizes if markets[market].isolated), None)
    held = next((row.market for row in account.positions if markets[row.market].isolated), None)
    if touched is None:
        return held is None
    if held is None and account.positions:
        return False
    return len(change.sizes) == 1 and held in (None, touched)


def open_interest_change(trades: Iterable[tuple[QuoteAccount, Change]], market: str) -> Decimal:
    """By how much the trades change open interest, the sum of long sizes."""
    total = ZERO
    for account, change in trades:
        before = account.size(market)
        after = before + sum((size for name, size in change.sizes if name == market), ZERO)
        total += max(after, ZERO) - max(before, ZERO)
    return total


def check_changes(changes: Sequence[tuple[QuoteAccount, Change]], markets: Markets, *,
                  match: bool) -> tuple[UpdateVerdict, ...]:
    """What becomes of each change, each judged alone against the state before all of them.

    Guards in order: isolation of every change (a fault fails the batch before any margin is looked at), then
    `transition`. Of a match the open interest after it counts in the state after, that before it in the state before.
    Funding is settled first. Source: dYdX v4, `internalCanUpdateSubaccounts`.
    """
    rows = [(settled(account, markets), change) for account, change in changes]
    kept = [keeps_isolation(account, change, markets) for account, change in rows]
    if not all(kept):
        return tuple("success" if fine else "violates_isolated" for fine in kept)
    later = dict(markets)
    if match:
        for name in {name for _, change in rows for name, _ in change.sizes}:
            delta = open_interest_change(rows, name)
            later[name] = later[name]._replace(open_interest=max(ZERO, later[name].open_interest + delta))
    return tuple(transition(risk(account, markets), risk(changed(account, change, later), later))
                 for account, change in rows)
