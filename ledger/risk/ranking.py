"""Auto-deleveraging by rank: who is asked first, how far up the queue an account stands, and who gives how much.

Source: BitMEX and Binance (docs/margin.md). This file knows amounts only; which event records what is elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import FINEST, ONE, ZERO, divide_down, divide_up


class Candidate(NamedTuple):
    """A position on the other side, its size (> 0) and its score: the higher, the sooner it is reduced."""

    account: str
    size: Decimal
    score: Decimal


class Reduction(NamedTuple):
    """What one account gives, and what it keeps."""

    account: str
    closed: Decimal
    remaining: Decimal


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The queue: highest score first, then account by bytes."""
    return sorted(candidates, key=lambda row: (-row.score, row.account.encode()))


def lights(queue: Sequence[Candidate], *, step: Decimal = Decimal(20)) -> list[Decimal]:
    """For each of the queue the percentile it stands in, itself included, up to a multiple of `step` percent."""
    whole = sum((row.size for row in queue), ZERO)
    found, so_far = [], ZERO
    for row in queue:
        so_far += row.size
        found.append(divide_up(so_far * 100, whole * step, ONE) * step)
    return found


def reductions(queue: Iterable[Candidate], size: Decimal) -> list[Reduction]:
    """Who gives how much, from the head of the queue, until `size` is filled; those who give nothing are left out."""
    found, left = [], size
    for row in queue:
        closed = min(row.size, left)
        if closed > 0:
            found.append(Reduction(row.account, closed, row.size - closed))
            left -= closed
    return found


def leveraged_score(*, pnl_share: Decimal, leverage: Decimal) -> Decimal:
    """BitMEX: profit share x effective leverage of a winner, profit share / leverage of a loser; down, 18 places."""
    return pnl_share * leverage if pnl_share >= 0 else divide_down(pnl_share, leverage, FINEST)
