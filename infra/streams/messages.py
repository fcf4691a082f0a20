"""From one event of the log to the messages that the world gets: which topic, which key, which bytes.

Pure: the same event and the same states before and after it give the same bytes, so that whoever derives them again
after a crash says the same. CloudEvents 1.0, binary mode; fields as contracts section 2 has them. This file never
talks to a broker or a store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from infra.streams.topics import ACCOUNT_STATE, LIQUIDATIONS, MARGIN_CALLS, OUTCOMES, REJECTIONS, Topic
from ledger.account import AccountState
from ledger.amounts import plain, rfc3339
from ledger.events import (
    TOPICS,
    CollateralConverted,
    Event,
    FillPosted,
    FundMovementRefused,
    Halted,
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
    MarginWarned,
    PriceRejected,
    Recorded,
    RecordRejected,
    Resumed,
    ShortfallClaimed,
    ShortfallCovered,
    TransferReceived,
    TransferRefused,
    TransferSent,
    WarningEnded,
    WithdrawalCancelled,
    WithdrawalHeld,
    WithdrawalRefused,
    WithdrawalSettled,
    Withdrawn,
)

STATE_TYPE: Final = "clearing.account-state:1"

Headers = tuple[tuple[str, bytes], ...]


class Message(NamedTuple):
    """One message: the topic it goes to, its key, value and headers."""

    topic: Topic
    key: str
    value: bytes
    headers: Headers


# What each event is told in, beside the account's state; events that are not here are told to nobody.
_TOLD_IN: Final[Mapping[type[Event], Topic]] = {
    MarginWarned: MARGIN_CALLS, WarningEnded: MARGIN_CALLS, MarginCallIssued: MARGIN_CALLS,
    MarginCallMet: MARGIN_CALLS, MarginCallWithdrawn: MARGIN_CALLS, MarginCallExpired: MARGIN_CALLS,
    MarginCallSuperseded: MARGIN_CALLS,
    LiquidationStarted: LIQUIDATIONS, LiquidationOrderPlaced: LIQUIDATIONS, LiquidationOrderCancelled: LIQUIDATIONS,
    LiquidationResultRecorded: LIQUIDATIONS, CollateralConverted: LIQUIDATIONS, ShortfallClaimed: LIQUIDATIONS,
    ShortfallCovered: LIQUIDATIONS, LiquidationCompleted: LIQUIDATIONS, FillPosted: LIQUIDATIONS,
    Withdrawn: OUTCOMES, WithdrawalRefused: OUTCOMES, WithdrawalHeld: OUTCOMES, WithdrawalSettled: OUTCOMES,
    WithdrawalCancelled: OUTCOMES, TransferSent: OUTCOMES, TransferReceived: OUTCOMES, TransferRefused: OUTCOMES,
    IsolatedMarginMoved: OUTCOMES, IsolatedMarginRefused: OUTCOMES, FundMovementRefused: OUTCOMES,
    RecordRejected: REJECTIONS, PriceRejected: REJECTIONS}

# Event topics that can be passed over unread: they touch no account and are told to nobody.
SILENT: Final = frozenset(
    topic for topic, kind in TOPICS.items()
    if kind not in _TOLD_IN and kind not in (Halted, Resumed) and "account" not in kind.model_fields)

# Fields that a reader finds even where the event leaves them out.
_ALWAYS: Final[Mapping[type[Event], tuple[str, ...]]] = {MarginCallIssued: ("call_amount", "margin_ratio")}
_RENAMED: Final[Mapping[type[Event], Mapping[str, str]]] = {
    MarginCallIssued: {"time": "issued_at"}, LiquidationOrderPlaced: {"time": "issued_at"}}


class Origin(NamedTuple):
    """Whose messages they are. What every shard's log holds alike (prices, control) is told by the first shard only."""

    shard: int
    accounts_source: str


def messages_of(origin: Origin, recorded: Recorded, before: AccountState | None, after: AccountState | None,
                halts: frozenset[str] = frozenset(), traceparent: str | None = None) -> list[Message]:
    """The messages of an event, in order. `before` and `after`: its account's states; `halts`: what is halted for it.

    The account's state is told when it changed in what the contract names, never merely by a mark.
    """
    event = recorded.event
    found = []
    topic = _TOLD_IN.get(type(event))
    account = getattr(event, "account", None)
    if topic is not None and _is_told(origin, event, account):
        headers = _headers(origin, recorded, event.TOPIC, _key(event, account), traceparent)
        found.append(Message(topic, _key(event, account), _encoded(_body(recorded)), headers))
    if after is not None and (isinstance(event, (Halted, Resumed)) or before is None or _changed(before, after)):
        headers = _headers(origin, recorded, STATE_TYPE, after.account, traceparent)
        found.append(Message(ACCOUNT_STATE, after.account, _encoded(_state(recorded, after, halts)), headers))
    return found


def _is_told(origin: Origin, event: Event, account: str | None) -> bool:
    if isinstance(event, FillPosted):
        return event.liquidation_order_id is not None
    if account is None:
        return origin.shard == 0 or event.cause.source == origin.accounts_source
    return True


def _key(event: Event, account: str | None) -> str:
    if account is not None:
        return account
    if isinstance(event, FundMovementRefused):
        return f"fund:{event.fund}"
    return event.cause.source


# --- bodies ------------------------------------------------------------------------------------------------------


def _body(recorded: Recorded) -> dict[str, Any]:
    """The event's own fields, its evidence beside them, and where it stands."""
    event = recorded.event
    fields = event.model_dump(mode="json", exclude_none=True)
    evidence = fields.pop("evidence", {})
    for name, other in _RENAMED.get(type(event), {"time": "log_time"}).items():
        fields[other] = fields.pop(name)
    for name in _ALWAYS.get(type(event), ()):
        if name not in fields and name not in evidence:
            fields[name] = None
    return {"type": short_name(event.TOPIC), "log_position": recorded.position, **fields, **evidence}


def short_name(topic: str) -> str:
    """An event's topic without its domain and version."""
    return topic.removeprefix("clearing.").partition(":")[0]


def _changed(before: AccountState, after: AccountState) -> bool:
    return before._replace(version=0, touched=0, orders={}, reversed=frozenset()) != after._replace(
        version=0, touched=0, orders={}, reversed=frozenset())


def _state(recorded: Recorded, state: AccountState, halts: frozenset[str]) -> dict[str, Any]:
    pools = [_pool(state, pool) for pool in state.pools()]
    return {
        "type": "account-state", "log_position": recorded.position, "log_time": rfc3339(recorded.event.time),
        "account": state.account, "version": state.version, "kind": state.kind, "member": state.member,
        "rulebook": state.rulebook, "margin_mode": state.margin_mode, "position_mode": state.position_mode,
        "status": min((row["status"] for row in pools), key=_WORST.index), "pools": pools,
        "holds": {name: {"asset": hold.asset, "amount": plain(hold.amount)} for name, hold in state.holds.items()},
        "debts": {asset: plain(amount) for asset, amount in sorted(state.debts.items())},
        "halts": sorted(halts)}


_WORST: Final = ("liquidation", "margin-call", "warning", "healthy")


def _pool(state: AccountState, pool: str) -> dict[str, Any]:
    call, liquidation = state.calls.get(pool), state.liquidations.get(pool)
    if liquidation is not None or pool in state.due:
        status = "liquidation"
    elif call is not None:
        status = "margin-call"
    else:
        status = "warning" if pool in state.warned else "healthy"
    return {
        "pool": pool, "status": status,
        "balances": {asset: plain(amount) for asset, amount in sorted(state.balances.get(pool, {}).items())},
        "positions": [
            {"instrument": key[0], "margin_mode": key[1], "position_side": key[2], "size": plain(position.size),
             "cost": plain(position.cost),
             "leverage": None if position.leverage is None else plain(position.leverage)}
            for key, position in sorted(state.positions_of(pool))],
        "call_id": None if call is None else call.call_id,
        "deadline": None if call is None else rfc3339(call.deadline),
        "liquidation_id": None if liquidation is None else liquidation.liquidation_id}


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


# --- headers -----------------------------------------------------------------------------------------------------


def event_id(shard: int, position: int) -> str:
    """The id of an event's message: shard and log position; within a shard it only grows."""
    return f"{shard}:{position}"


def _headers(origin: Origin, recorded: Recorded, kind: str, subject: str, traceparent: str | None) -> Headers:
    ident = event_id(origin.shard, recorded.position)
    headers = [
        ("ce_specversion", b"1.0"), ("ce_id", ident.encode()), ("ce_type", kind.encode()),
        ("ce_source", f"/clearing/shards/{origin.shard}".encode()),
        ("ce_time", rfc3339(recorded.event.time).encode()), ("ce_subject", subject.encode()),
        ("content-type", b"application/json")]
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    return tuple(headers)
