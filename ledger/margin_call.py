"""Decisions on a pool that is not being liquidated: warn, call, and how a call ends (semantics section 4).

One open call a pool. A call ends met (a record of the account restored the cure level), withdrawn (the market
did), expired (its deadline passed) or superseded (below the liquidation line before that). Nobody is liquidated
because of a call that was met. This file is pure: it returns events, one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Final

from ledger.account import AccountState, OpenCall, Stamp
from ledger.amounts import NANOSECONDS, plain, rfc3339, round_down
from ledger.events import (
    Event,
    Evidence,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginCallSuperseded,
    MarginCallWithdrawn,
    MarginWarned,
    WarningEnded,
)
from ledger.postings import CROSS
from ledger.risk.collateral import amount_to_raise
from ledger.risk.margin import PoolMargin, PriceOf, above, at_least, below
from ledger.rulebook import Rulebook

# Ratios in sentences, rounded down, so that one below a level never reads as the level.
SHOWN: Final = Decimal("0.0001")


@dataclass(frozen=True, eq=False)
class Standing:
    """A pool as it stands when it is decided on: its figures, its rules, and the next position in the log."""

    account: AccountState
    pool: str
    margin: PoolMargin
    rules: Rulebook
    price_of: PriceOf
    # What the pool may be cured in: asset -> quantum.
    curable: Mapping[str, Decimal]
    evidence_of: Callable[[], Evidence]
    stamp: Stamp
    next_position: int

    @cached_property
    def evidence(self) -> Evidence:
        """All that a decision rests on; gathered only when there is a decision to record."""
        return self.evidence_of()


def decide_expiry(standing: Standing, call: OpenCall) -> MarginCallExpired:
    """The deadline passed unmet."""
    return MarginCallExpired(time=standing.stamp.time, cause=standing.stamp.cause, account=standing.account.account,
                             pool=standing.pool, call_id=call.call_id, evidence=standing.evidence)


def decide_call(standing: Standing, *, own: bool) -> list[Event]:
    """What becomes of a pool above the liquidation line (or held back from liquidation by a stale mark).

    `own`: a record of the account itself brought it here, so a cured call is met, else withdrawn.
    """
    state, pool, margin, lines = standing.account, standing.pool, standing.margin, standing.rules.thresholds
    call = state.calls.get(pool)
    if call is not None:
        if at_least(margin, call.cure_level):
            ending = MarginCallMet if own else MarginCallWithdrawn
            return [ending(time=standing.stamp.time, cause=standing.stamp.cause, account=state.account, pool=pool,
                           call_id=call.call_id, evidence=standing.evidence)]
        return []
    if below(margin, lines.call) and pool not in state.due:
        return [_issue(standing)]
    if pool in state.warned:
        if above(margin, lines.warning_end):
            return [WarningEnded(time=standing.stamp.time, cause=standing.stamp.cause, account=state.account,
                                 pool=pool, evidence=standing.evidence)]
    elif below(margin, lines.warning):
        return [MarginWarned(time=standing.stamp.time, cause=standing.stamp.cause, account=state.account, pool=pool,
                             warning_level=lines.warning, evidence=standing.evidence)]
    return []


def supersede(standing: Standing, call: OpenCall) -> MarginCallSuperseded:
    """The ratio fell below the liquidation line before the deadline."""
    return MarginCallSuperseded(time=standing.stamp.time, cause=standing.stamp.cause,
                                account=standing.account.account, pool=standing.pool, call_id=call.call_id,
                                evidence=standing.evidence)


def amounts_to_cure(standing: Standing) -> dict[str, Decimal]:
    """asset -> the least amount of it that alone lifts the pool to the cure level at these marks, rounded up."""
    missing = standing.rules.thresholds.cure * standing.margin.maintenance_margin - standing.margin.margin_equity
    found = {}
    for asset, quantum in sorted(standing.curable.items()):
        price = standing.price_of(asset)
        if price is None:
            continue
        balance = standing.account.balance(standing.pool, asset)
        amount = amount_to_raise(standing.rules.collateral(asset), balance=balance, price=price, by=missing,
                                 quantum=quantum)
        if amount is not None:
            found[asset] = amount
    return found


def _issue(standing: Standing) -> MarginCallIssued:
    rules, margin, pool, time = standing.rules, standing.margin, standing.pool, standing.stamp.time
    eligible = amounts_to_cure(standing)
    asset = rules.calls.asset if pool == CROSS or rules.calls.asset in eligible else next(iter(standing.curable))
    amount = eligible.get(asset)
    deadline = time + rules.calls.deadline_seconds * NANOSECONDS
    ratio = margin.ratio
    wanted = f"add at least {plain(amount)} {asset}" if amount is not None else "add collateral or reduce risk"
    shown = "negative" if ratio is None else plain(round_down(ratio, SHOWN))
    consequence = f"liquidated up to a margin ratio of {plain(rules.thresholds.stop)}"
    message = (f"Account {standing.account.account}, pool {pool}: the margin ratio is {shown}, below the call level "
               f"{plain(rules.thresholds.call)}; {wanted} by {rfc3339(deadline)} to restore "
               f"{plain(rules.thresholds.cure)}, else it is {consequence}.")
    return MarginCallIssued(
        time=time, cause=standing.stamp.cause, account=standing.account.account, pool=pool,
        call_id=f"call-{standing.next_position}", deadline=deadline, call_asset=asset, call_amount=amount,
        eligible=eligible, call_level=rules.thresholds.call, cure_level=rules.thresholds.cure,
        consequence=consequence, message=message, evidence=standing.evidence)
