"""What the shards of one service send each other: claims on the funds and their answers, transfers and their return.

A service with several account shards keeps what is global in a ledger of its own, the house's. An account shard
whose client owes more than it has claims from it, and applies the answer; a transfer to an account that another shard
keeps arrives there, or is turned away and comes back. These are records like any other, known by the log position
that they came from, but no client may send them: they are read from topics of the service's own. This file is pure.
"""

from __future__ import annotations

from typing import Any, Literal

from ledger.account import AccountState, Stamp
from ledger.amounts import Factor, WirePositive
from ledger.commands import Command, FundName, Id
from ledger.errors import Rejected
from ledger.events import (
    FundDrawn,
    ShortfallAnswered,
    ShortfallClaimed,
    ShortfallClaimReceived,
    ShortfallCovered,
    TransferArrived,
    TransferReceived,
    TransferReturned,
    TransferTurnedAway,
)
from ledger.postings import CROSS

# What a ledger keeps: all there is, the accounts of one shard, or what is global to all of them.
Part = Literal["whole", "accounts", "house"]


class ClaimShortfall(Command):
    """`shortfall-claim`: an account shard asks the house for what a client cannot pay."""

    TYPE = "shortfall-claim"
    account: Id
    claim_id: Id
    asset: Id
    amount: WirePositive


class AnswerShortfall(Command):
    """`shortfall-answer`: what the house's fund pays of a claim, possibly nothing."""

    TYPE = "shortfall-answer"
    # No shard's clock moves another's: a deposit that stands before a deadline in its stream still meets it.
    MOVES_LOG_TIME = False
    account: Id
    claim_id: Id
    asset: Id
    claimed: WirePositive
    fund: FundName
    covered: Factor


class TakeTransfer(Command):
    """`transfer-arrival`: collateral that another shard's account sent to one of this shard."""

    TYPE = "transfer-arrival"
    MOVES_LOG_TIME = False
    account: Id
    from_account: Id
    from_shard: int
    asset: Id
    amount: WirePositive
    transfer_id: Id


class TakeBackTransfer(Command):
    """`transfer-return`: collateral that was turned away where it was sent."""

    TYPE = "transfer-return"
    MOVES_LOG_TIME = False
    account: Id
    to_account: Id
    asset: Id
    amount: WirePositive
    transfer_id: Id
    reason: Literal["unknown-account", "unknown-asset"]


BETWEEN: dict[str, type[Command]] = {kind.TYPE: kind for kind in (
    ClaimShortfall, AnswerShortfall, TakeTransfer, TakeBackTransfer)}
# Who applies which.
APPLIED_BY: dict[type[Command], Part] = {
    ClaimShortfall: "house", AnswerShortfall: "accounts", TakeTransfer: "accounts", TakeBackTransfer: "accounts"}


def require_part(part: Part, command: Command) -> None:
    """Rejected where another part of the service applies such records."""
    if part != APPLIED_BY[type(command)]:
        raise Rejected("not-supported", f"type: expected a record that a ledger of the part {part!r} applies, came "
                       f"{command.TYPE!r}", field="type")


# --- shortfalls --------------------------------------------------------------------------------------------------


def receive_claim(command: ClaimShortfall, stamp: Stamp) -> ShortfallClaimReceived:
    """The house takes note of a claim: a fact."""
    return ShortfallClaimReceived(time=stamp.time, cause=stamp.cause, account=command.account,
                                  claim_id=command.claim_id, asset=command.asset, amount=command.amount)


def require_open_claim(claim: ShortfallClaimed | None, command: AnswerShortfall) -> None:
    """Rejected unless the answer is to a claim of this shard that has none yet, and pays no more than was claimed."""
    asked = None if claim is None else (claim.account, claim.asset, claim.amount)
    if asked != (command.account, command.asset, command.claimed):
        raise Rejected("unknown-claim", f"claim_id: expected an open claim of {command.claimed} {command.asset} for "
                       f"account {command.account!r}, came {command.claim_id!r}", field="claim_id")
    if command.covered > command.claimed:
        raise Rejected("unknown-claim", f"covered: expected at most what was claimed, {command.claimed}, came "
                       f"{command.covered}", field="covered")


def answer_claim(command: AnswerShortfall, stamp: Stamp) -> tuple[ShortfallAnswered, ShortfallCovered]:
    """The house's answer, and what it moves: as if the fund stood in this log."""
    fields: dict[str, Any] = {
        "time": stamp.time, "cause": stamp.cause, "account": command.account, "claim_id": command.claim_id,
        "asset": command.asset, "claimed": command.claimed, "fund": command.fund, "covered": command.covered}
    return ShortfallAnswered(**fields), ShortfallCovered(**fields, uncovered=command.claimed - command.covered)


def claim_record(claim: ShortfallClaimed) -> dict[str, object]:
    """The fields of the record that takes a claim to the house."""
    return {"type": ClaimShortfall.TYPE, "account": claim.account, "claim_id": claim.claim_id, "asset": claim.asset,
            "amount": claim.amount}


def answer_record(drawn: FundDrawn) -> dict[str, object]:
    """The fields of the record that takes a fund's answer to the shard that claimed."""
    return {"type": AnswerShortfall.TYPE, "account": drawn.account, "claim_id": drawn.claim_id, "asset": drawn.asset,
            "claimed": drawn.claimed, "fund": drawn.fund, "covered": drawn.amount}


# --- transfers ---------------------------------------------------------------------------------------------------


def take_transfer(state: AccountState | None, command: TakeTransfer, stamp: Stamp, *,
                  is_listed: bool) -> tuple[TransferArrived, TransferReceived] | TransferTurnedAway:
    """Collateral arrives from another shard: the account's from now on, or turned away where there is no such place."""
    fields: dict[str, Any] = {
        "time": stamp.time, "cause": stamp.cause, "account": command.account, "from_account": command.from_account,
        "asset": command.asset, "amount": command.amount, "transfer_id": command.transfer_id}
    if state is None or not is_listed:
        return TransferTurnedAway(**fields, from_shard=command.from_shard,
                                  reason="unknown-account" if state is None else "unknown-asset")
    return (TransferArrived(**fields, from_shard=command.from_shard),
            TransferReceived(**fields, balance=state.balance(CROSS, command.asset) + command.amount))


def take_back(state: AccountState, command: TakeBackTransfer, stamp: Stamp) -> TransferReturned:
    """Collateral that was turned away is the sender's again."""
    return TransferReturned(time=stamp.time, cause=stamp.cause, account=state.account, to_account=command.to_account,
                            asset=command.asset, amount=command.amount, transfer_id=command.transfer_id,
                            reason=command.reason, balance=state.balance(CROSS, command.asset) + command.amount)
