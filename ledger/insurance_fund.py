"""The fund aggregate: money that stands behind losses, one stream a fund and asset (`fund:NAME:ASSET`).

Every movement carries the amount before and after. What a draw posts stands on the account's event; the fund's is
a reference that must agree with it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import ZERO, plain
from ledger.commands import MoveFund
from ledger.errors import BrokenInvariant
from ledger.events import (
    Cause,
    Event,
    FundDrawn,
    FundMoved,
    FundMovementRefused,
    ShortfallClaimed,
    ShortfallClaimReceived,
)


class FundState(NamedTuple):
    """What a fund holds of an asset."""

    fund: str
    asset: str
    version: int = 0
    balance: Decimal = ZERO


def decide_move(state: FundState, command: MoveFund, *, time: int, cause: Cause) -> FundMoved | FundMovementRefused:
    """Pay into a fund or out of it; refused beyond what it holds."""
    if command.kind == "withdrawal" and command.amount > state.balance:
        return FundMovementRefused(
            time=time, cause=cause, fund=command.fund, asset=command.asset, amount=command.amount, kind=command.kind,
            contributor=command.contributor, available=state.balance,
            message=f"expected at most {plain(state.balance)} {command.asset}, came {plain(command.amount)}")
    change = -command.amount if command.kind == "withdrawal" else command.amount
    return FundMoved(time=time, cause=cause, fund=command.fund, asset=command.asset, amount=command.amount,
                     kind=command.kind, contributor=command.contributor, before=state.balance,
                     after=state.balance + change)


def decide_cover(state: FundState, claim: ShortfallClaimed | ShortfallClaimReceived, *, time: int,
                 cause: Cause) -> FundDrawn:
    """Pay a claim as far as the fund reaches (possibly nothing)."""
    amount = max(ZERO, min(claim.amount, state.balance))
    return FundDrawn(time=time, cause=cause, fund="insurance", asset=claim.asset, account=claim.account,
                     claim_id=claim.claim_id, claimed=claim.amount, amount=amount, before=state.balance,
                     after=state.balance - amount)


def evolve(state: FundState, event: Event) -> FundState:
    """Fold one event of the fund's stream."""
    match event:
        case FundMoved() | FundDrawn():
            return state._replace(version=state.version + 1, balance=event.after)
        case FundMovementRefused():
            return state._replace(version=state.version + 1)
        case _:
            raise BrokenInvariant(f"{type(event).__name__} does not belong to a fund")
