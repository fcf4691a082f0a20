"""Collateral on the move: deposits, withdrawals and their holds, transfers, margin of isolated positions.

What comes in is a fact; what is to leave a pool is a wish, refused beyond what is free there, with the reason. This
file is pure: it returns events, and evaluates no margin itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import NamedTuple

from ledger.account import AccountState, PositionKey, Stamp
from ledger.amounts import ZERO, plain, round_down
from ledger.commands import (
    CancelWithdrawal,
    Deposit,
    MoveIsolatedMargin,
    SettleWithdrawal,
    Transfer,
    Withdraw,
)
from ledger.errors import Rejected
from ledger.events import (
    Deposited,
    DepositReversed,
    Event,
    Evidence,
    IsolatedMarginMoved,
    IsolatedMarginRefused,
    RefusalReason,
    TransferReceived,
    TransferRefused,
    TransferSent,
    WithdrawalCancelled,
    WithdrawalHeld,
    WithdrawalRefused,
    WithdrawalSettled,
    Withdrawn,
)
from ledger.postings import CROSS, pool_name
from ledger.risk.collateral import CollateralBlock, amount_to_release
from ledger.risk.margin import PoolMargin


def decide_deposit(state: AccountState, command: Deposit, stamp: Stamp) -> Deposited:
    """Collateral came in: a fact."""
    return Deposited(time=stamp.time, cause=stamp.cause, account=state.account, asset=command.asset,
                     amount=command.amount, balance=state.balance(CROSS, command.asset) + command.amount)


def withdrawable(*, balance: Decimal, price: Decimal | None, tiers: CollateralBlock, margin: PoolMargin,
                 quantum: Decimal) -> Decimal:
    """The lesser of the positive balance and what keeps margin equity at or above initial margin.

    Rounding: down to the asset's quantum. Never negative. Calls and stale marks are the caller's to check.
    """
    free = margin.free
    if balance <= 0 or free < 0 or margin.unpriced:
        return ZERO
    if price is None:
        return round_down(balance, quantum)
    return round_down(amount_to_release(tiers, balance=balance, price=price, by=free, quantum=quantum), quantum)


class Refusal(NamedTuple):
    """Why collateral may not leave a pool: a code, the sentence for it, and what may leave."""

    reason: RefusalReason
    sentence: str
    available: Decimal


def refusal_of(state: AccountState, amount: Decimal, *, pools: Iterable[str], available: Decimal,
               margin: PoolMargin, is_stale: bool, is_halted: bool) -> Refusal | None:
    """Why `amount` may not leave a pool that has `available`, None where it may.

    Nothing leaves while a call or liquidation of one of `pools` is open, a mark is stale, or withdrawals are halted.
    """
    watched = list(pools)
    reasons: list[tuple[bool, RefusalReason, str]] = [
        (is_halted, "halted", "withdrawals are halted"),
        (any(pool in state.liquidations or pool in state.due for pool in watched), "liquidation-open",
         "a liquidation is open"),
        (any(pool in state.calls for pool in watched), "call-open", "a margin call is open"),
        (bool(margin.unpriced), "unpriced", f"no mark values {', '.join(sorted(set(margin.unpriced)))}"),
        (is_stale, "stale-mark", "a mark that values the account is stale")]
    for holds, reason, sentence in reasons:
        if holds:
            return Refusal(reason, sentence, ZERO)
    if amount <= available:
        return None
    return Refusal("beyond-withdrawable", "the rest is needed as initial margin or is not there", available)


def _sentence(refusal: Refusal, amount: Decimal, asset: str) -> str:
    return f"expected at most {plain(refusal.available)} {asset}, came {plain(amount)}: {refusal.sentence}"


def decide_withdraw(state: AccountState, command: Withdraw, stamp: Stamp, refusal: Refusal | None,
                    evidence: Callable[[], Evidence]) -> Withdrawn | WithdrawalHeld | WithdrawalRefused:
    """Let collateral out, or hold it for a withdrawal that settles later, or refuse."""
    if refusal is not None:
        return WithdrawalRefused(
            time=stamp.time, cause=stamp.cause, account=state.account, asset=command.asset, amount=command.amount,
            withdrawable=refusal.available, reason=refusal.reason,
            message=_sentence(refusal, command.amount, command.asset), evidence=evidence(), hold=command.hold or None)
    balance = state.balance(CROSS, command.asset) - command.amount
    if command.hold:
        return WithdrawalHeld(time=stamp.time, cause=stamp.cause, account=state.account, asset=command.asset,
                              amount=command.amount, hold=True, withdrawal=command.id, balance=balance)
    return Withdrawn(time=stamp.time, cause=stamp.cause, account=state.account, asset=command.asset,
                     amount=command.amount, balance=balance)


def decide_withdrawal_end(state: AccountState, command: SettleWithdrawal | CancelWithdrawal,
                          stamp: Stamp) -> WithdrawalSettled | WithdrawalCancelled:
    """What was held goes out, or is the account's again. Rejected where nothing is held under that id."""
    hold = state.holds.get(command.withdrawal)
    if hold is None:
        raise Rejected("unknown-withdrawal", f"withdrawal: expected the id of a withdrawal that is held for account "
                       f"{state.account!r}, came {command.withdrawal!r}", field="withdrawal")
    if isinstance(command, SettleWithdrawal):
        return WithdrawalSettled(time=stamp.time, cause=stamp.cause, account=state.account,
                                 withdrawal=command.withdrawal, asset=hold.asset, amount=hold.amount)
    return WithdrawalCancelled(time=stamp.time, cause=stamp.cause, account=state.account,
                               withdrawal=command.withdrawal, asset=hold.asset, amount=hold.amount,
                               balance=state.balance(CROSS, hold.asset) + hold.amount)


def decide_reversal(state: AccountState, command: Deposit, original: Event | None, stamp: Stamp) -> DepositReversed:
    """Undo a deposit: a fact, also where equity turns negative.

    `original` is the event of the deposit that the record names, from the same source. Rejected: no such deposit of
    this account, asset and amount, or undone before.
    """
    reverses = command.reverses or ""
    if not isinstance(original, Deposited) or original.account != state.account:
        raise Rejected("unknown-deposit", f"reverses: expected the id of a deposit to account {state.account!r}, came "
                       f"{reverses!r}", field="reverses")
    if (stamp.cause.source, reverses) in state.reversed:
        raise Rejected("unknown-deposit", f"reverses: expected a deposit that was not undone before, came "
                       f"{reverses!r}", field="reverses")
    if (original.asset, original.amount) != (command.asset, command.amount):
        raise Rejected("unknown-deposit", f"amount: expected {plain(original.amount)} {original.asset}, as deposit "
                       f"{reverses!r} brought, came {plain(command.amount)} {command.asset}", field="amount")
    return DepositReversed(time=stamp.time, cause=stamp.cause, account=state.account, asset=command.asset,
                           amount=command.amount, reverses=reverses,
                           balance=state.balance(CROSS, command.asset) - command.amount)


def decide_transfer(state: AccountState, command: Transfer, stamp: Stamp, refusal: Refusal | None,
                    evidence: Callable[[], Evidence]) -> TransferSent | TransferRefused:
    """Send collateral on its way to another account, or refuse as a withdrawal would be."""
    if refusal is not None:
        return TransferRefused(
            time=stamp.time, cause=stamp.cause, account=state.account, to_account=command.to_account,
            asset=command.asset, amount=command.amount, withdrawable=refusal.available, reason=refusal.reason,
            message=_sentence(refusal, command.amount, command.asset), evidence=evidence())
    return TransferSent(time=stamp.time, cause=stamp.cause, account=state.account, to_account=command.to_account,
                        asset=command.asset, amount=command.amount, transfer_id=command.id,
                        balance=state.balance(CROSS, command.asset) - command.amount)


def receive(state: AccountState, sent: TransferSent, stamp: Stamp) -> TransferReceived:
    """The receiver's side of a transfer."""
    return TransferReceived(time=stamp.time, cause=stamp.cause, account=state.account, from_account=sent.account,
                            asset=sent.asset, amount=sent.amount, transfer_id=sent.transfer_id,
                            balance=state.balance(CROSS, sent.asset) + sent.amount)


def isolated_key(state: AccountState, command: MoveIsolatedMargin) -> PositionKey:
    """The isolated position that a move of margin means. Rejected where there is none, or one of two is not named."""
    keys = [key for key in state.positions if key[0] == command.instrument and key[1] != CROSS
            and command.position_side in (None, key[2])]
    if len(keys) == 1:
        return keys[0]
    if keys:
        raise Rejected("no-position", "position_side: expected long or short, since the account holds both, came none",
                       field="position_side")
    raise Rejected("no-position", f"instrument: expected an isolated position of account {state.account!r}, came "
                   f"{command.instrument!r}", field="instrument")


def decide_isolated_margin(state: AccountState, command: MoveIsolatedMargin, stamp: Stamp, *, asset: str,
                           refusal: Refusal | None,
                           evidence: Callable[[], Evidence]) -> IsolatedMarginMoved | IsolatedMarginRefused:
    """Move margin into an isolated position or out of it, or refuse where it is not free."""
    key = isolated_key(state, command)
    if refusal is not None:
        return IsolatedMarginRefused(
            time=stamp.time, cause=stamp.cause, account=state.account, instrument=command.instrument,
            amount=command.amount, position_side=command.position_side, withdrawable=refusal.available,
            reason=refusal.reason, message=_sentence(refusal, abs(command.amount), asset), evidence=evidence())
    return IsolatedMarginMoved(
        time=stamp.time, cause=stamp.cause, account=state.account, instrument=command.instrument,
        amount=command.amount, position_side=command.position_side, position=key[2],  # type: ignore[arg-type]
        asset=asset, balance=state.balance(pool_name(*key), asset) + command.amount)
