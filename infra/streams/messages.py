"""What goes out for each event: messages with topic, key, CloudEvents headers and a JSON value, as contracts fix them.

A pure function of the event, where it stands, and the account as it is after it. Amounts are decimal strings, times
RFC 3339. An account's state goes out whenever an event of the account changes it, never merely for a mark. This file
sends nothing and reads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from infra.streams import topics
from ledger.account import AccountState
from ledger.amounts import plain, rfc3339
from ledger.events import (
    Event,
    FundMovementRefused,
    IsolatedMarginMoved,
    IsolatedMarginRefused,
    LiquidationCompleted,
    LiquidationOrderCancelled,
    LiquidationOrderPlaced,
    LiquidationResultRecorded,
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginCallSuperseded,
    MarginCallWithdrawn,
    PriceRejected,
    Recorded,
    RecordRejected,
    ShortfallAnswered,
    TransferArrived,
    TransferReceived,
    TransferRefused,
    TransferReturned,
    TransferSent,
    WithdrawalCancelled,
    WithdrawalHeld,
    WithdrawalRefused,
    WithdrawalSettled,
    Withdrawn,
)

CALLS: Final = (MarginCallIssued, MarginCallMet, MarginCallWithdrawn, MarginCallExpired, MarginCallSuperseded)
LIQUIDATION_STEPS: Final = (LiquidationStarted, LiquidationOrderPlaced, LiquidationOrderCancelled, LiquidationCompleted)
_REFUSALS: Final = (WithdrawalRefused, TransferRefused, IsolatedMarginRefused, FundMovementRefused)
OUTCOMES: Final = (*_REFUSALS, Withdrawn, WithdrawalHeld, WithdrawalSettled, WithdrawalCancelled, TransferSent,
                    TransferReceived, TransferReturned, IsolatedMarginMoved)
REJECTIONS: Final = (RecordRejected, PriceRejected)
# Events of an account's stream after which it stands as before.
_UNCHANGED: Final = (*_REFUSALS, LiquidationResultRecorded, ShortfallAnswered, TransferArrived)


class Message(NamedTuple):
    """One message: topic without prefix, key, headers, value in bytes."""

    topic: str
    key: str
    headers: list[tuple[str, bytes]]
    value: bytes
    # None: by the key.
    partition: int | None = None


def messages(recorded: Recorded, shard: str, state: AccountState | None) -> Iterator[Message]:
    """What an event sends out, in order; `state` is the account of its stream after it, None in other streams."""
    event = recorded.event
    if isinstance(event, CALLS):
        yield message_of(topics.MARGIN_CALLS, recorded, shard, event.account, _call(event))
    elif isinstance(event, LIQUIDATION_STEPS):
        yield message_of(topics.LIQUIDATIONS, recorded, shard, event.account, _flat(event))
    elif isinstance(event, OUTCOMES):
        key = event.fund if isinstance(event, FundMovementRefused) else event.account
        refused = isinstance(event, (*_REFUSALS, TransferReturned))
        yield message_of(topics.OUTCOMES, recorded, shard, key, {
            "record": _record(event), "outcome": "refused" if refused else "applied", **_flat(event)})
    elif isinstance(event, REJECTIONS):
        yield message_of(topics.REJECTIONS, recorded, shard, event.cause.id or event.cause.source,
                       {"record": _record(event), "outcome": "rejected", **_flat(event)})
    if state is not None and not isinstance(event, _UNCHANGED):
        yield message_of(topics.ACCOUNT_STATE, recorded, shard, state.account, account_state(state, recorded.position))


def message_of(topic: str, recorded: Recorded, shard: str, key: str, value: Mapping[str, Any], *,
               partition: int | None = None) -> Message:
    """One message of an event: its CloudEvents headers, and the value behind its log position and name."""
    event = recorded.event
    headers = {"ce_specversion": "1.0", "ce_id": f"{shard}:{recorded.position}", "ce_type": event.TOPIC,
               "ce_source": f"/clearing/{shard}", "ce_time": rfc3339(event.time), "ce_subject": key,
               "content-type": "application/json"}
    body = {"log_position": recorded.position, "event": event.TOPIC.partition(":")[0].removeprefix("clearing."),
            **value}
    return Message(topic, key, [(name, text.encode()) for name, text in headers.items()], to_json(body), partition)


def _record(event: Event) -> dict[str, Any]:
    return event.cause.model_dump(mode="json", exclude_none=True)


def _flat(event: Event) -> dict[str, Any]:
    """The event's fields, its evidence among them at the same level."""
    fields = event.model_dump(mode="json", exclude_none=True, exclude={"cause", "evidence", "time"})
    evidence = vars(event).get("evidence")
    if evidence is not None:
        fields.update(evidence.model_dump(mode="json", exclude_none=True))
    return fields


def _call(event: Any) -> dict[str, Any]:
    if isinstance(event, MarginCallIssued):
        return {"issued_at": rfc3339(event.time), **_flat(event)}
    return {"ended_at": rfc3339(event.time), **_flat(event)}


def account_state(state: AccountState, position: int) -> dict[str, Any]:
    """An account as it stands at a log position: balances, positions, calls, liquidations, holds, debts."""
    return {
        "account": state.account, "version": state.version, "log_position": position, "kind": state.kind,
        "margin_mode": state.margin_mode, "position_mode": state.position_mode,
        "status": ("liquidation" if state.liquidations or state.due else "margin-call" if state.calls
                   else "warning" if state.warned else "healthy"),
        "balances": {pool: {asset: plain(amount) for asset, amount in sorted(held.items())}
                     for pool, held in sorted(state.balances.items())},
        "positions": [{"instrument": key[0], "margin_mode": key[1], "position_side": key[2],
                       "signed_size": plain(row.size), "cost": plain(row.cost),
                       **({} if row.leverage is None else {"leverage": plain(row.leverage)})}
                      for key, row in sorted(state.positions.items())],
        "calls": [{"pool": pool, "call_id": call.call_id, "deadline": rfc3339(call.deadline)}
                  for pool, call in sorted(state.calls.items())],
        "liquidations": [{"pool": pool, "liquidation_id": row.liquidation_id, "orders": list(row.orders)}
                         for pool, row in sorted(state.liquidations.items())],
        "holds": {name: {"asset": hold.asset, "amount": plain(hold.amount)}
                  for name, hold in sorted(state.holds.items())},
        "debts": {asset: plain(amount) for asset, amount in sorted(state.debts.items())}}
