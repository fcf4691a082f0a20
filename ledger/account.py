"""The account aggregate: one client's pools, positions, calls and liquidations, folded from the stream `account:ID`.

A pool is what is margined together: `cross`, or one isolated position. Balances are the fold of the events' own
postings, so that what the account holds and what the journal says cannot part. `decide_*` are pure and return
events; `evolve` never refuses. This file decides facts; calls and liquidation have files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from ledger.amounts import ZERO, plain, round_down
from ledger.asset import AssetState
from ledger.commands import AccountKind, Deposit, MarginMode, OpenAccount, PositionMode, Side, Withdraw
from ledger.errors import Rejected
from ledger.events import (
    AccountOpened,
    AccountSettingsChanged,
    Cause,
    Deposited,
    Event,
    Evidence,
    FillPosted,
    FundingItem,
    FundingSettled,
    LiquidationCompleted,
    LiquidationOrderCancelled,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginCallSuperseded,
    MarginCallWithdrawn,
    MarginWarned,
    ShortfallClaimed,
    WarningEnded,
    WithdrawalRefused,
    Withdrawn,
)
from ledger.market import MarketState
from ledger.postings import ACCOUNT, CROSS, Posting, pool_name, postings
from ledger.risk.collateral import CollateralBlock, amount_to_release
from ledger.risk.funding import Accrued, accrued
from ledger.risk.margin import PoolMargin

# (instrument, margin mode, position side)
PositionKey = tuple[str, str, str]
NO_MARGIN: Mapping[str, Decimal] = {}


class Stamp(NamedTuple):
    """What every event of a record shares: log time and cause."""

    time: int
    cause: Cause


class Position(NamedTuple):
    """Signed size in contracts, exact cost in the settlement asset, funding index seen, leverage if chosen."""

    size: Decimal
    cost: Decimal
    funding_index: Decimal
    leverage: Decimal | None = None


class OpenCall(NamedTuple):
    """A margin call that has not ended."""

    call_id: str
    deadline: int
    cure_level: Decimal
    position: int


class OpenOrder(NamedTuple):
    """A liquidation order that is open or part-filled."""

    order_id: str
    pool: str
    instrument: str
    position_side: str
    side: Side
    size: Decimal
    filled: Decimal
    limit_price: Decimal
    expires_at: int

    @property
    def remaining(self) -> Decimal:
        """What is still to be filled, in contracts."""
        return self.size - self.filled


class OpenLiquidation(NamedTuple):
    """A liquidation under way: its line, its open orders by id, and whether a loss was claimed."""

    liquidation_id: str
    stop_level: Decimal
    orders: Mapping[str, OpenOrder]
    claimed: bool = False


class AccountState(NamedTuple):
    """All that decisions on an account rest on."""

    account: str
    version: int
    kind: AccountKind
    margin_mode: MarginMode
    position_mode: PositionMode
    member: str | None
    rulebook: str | None
    # pool -> asset -> balance
    balances: Mapping[str, Mapping[str, Decimal]]
    positions: Mapping[PositionKey, Position]
    warned: frozenset[str] = frozenset()
    calls: Mapping[str, OpenCall] = {}
    # Pools whose call expired and whose liquidation has not started (a stale mark holds it back).
    due: frozenset[str] = frozenset()
    liquidations: Mapping[str, OpenLiquidation] = {}
    # What the account owes beyond its balances, by asset, where recourse is full.
    debts: Mapping[str, Decimal] = {}

    @property
    def is_margined(self) -> bool:
        """Whether the account is subject to margin; the house's own and external venues are not."""
        return self.kind in ("client", "liquidity-provider")

    def balance(self, pool: str, asset: str) -> Decimal:
        """The balance of an asset in a pool."""
        return self.balances.get(pool, NO_MARGIN).get(asset, ZERO)

    def pools(self) -> list[str]:
        """Every pool that holds something or is under watch; cross first, then by name."""
        names = {pool_name(*key) for key in self.positions if key[1] != CROSS}
        names.update(self.balances, self.warned, self.calls, self.due, self.liquidations)
        names.discard(CROSS)
        return [CROSS, *sorted(names, key=str.encode)] if names else [CROSS]

    def positions_of(self, pool: str) -> Iterator[tuple[PositionKey, Position]]:
        """The positions that a pool margins."""
        for key, position in self.positions.items():
            if (pool == CROSS) == (key[1] == CROSS) and (pool == CROSS or pool_name(*key) == pool):
                yield key, position

    def order(self, order_id: str | None) -> OpenOrder | None:
        """An open liquidation order of this account, by id."""
        if order_id is not None:
            for liquidation in self.liquidations.values():
                if order_id in liquidation.orders:
                    return liquidation.orders[order_id]
        return None


# --- decide ------------------------------------------------------------------------------------------------------


def decide_open(state: AccountState | None, command: OpenAccount,
                stamp: Stamp) -> AccountOpened | AccountSettingsChanged:
    """Open an account, or change what may change of it. Rejected: position mode or kind with positions open."""
    terms: dict[str, Any] = {
        "time": stamp.time, "cause": stamp.cause, "account": command.account, "margin_mode": command.margin_mode,
        "position_mode": command.position_mode, "kind": command.kind, "member": command.member,
        "rulebook": command.rulebook}
    if state is None:
        return AccountOpened(**terms)
    if state.positions:
        for field in ("position_mode", "kind"):
            if getattr(state, field) != getattr(command, field):
                raise Rejected("immutable", f"{field} of account {command.account!r} is {getattr(state, field)!r} and "
                               f"may not change while positions are open, came {getattr(command, field)!r}",
                               field=field)
    return AccountSettingsChanged(**terms)


def decide_deposit(state: AccountState, command: Deposit, stamp: Stamp) -> Deposited:
    """Collateral came in: a fact."""
    return Deposited(time=stamp.time, cause=stamp.cause, account=state.account, asset=command.asset,
                     amount=command.amount, balance=state.balance(CROSS, command.asset) + command.amount)


def withdrawable(*, balance: Decimal, price: Decimal | None, tiers: CollateralBlock, margin: PoolMargin,
                 quantum: Decimal) -> Decimal:
    """The lesser of the positive balance and what keeps margin equity at or above initial margin.

    Rounding: down to the asset's quantum. Never negative. Calls and stale marks are the caller's to check.
    """
    free = margin.margin_equity - margin.initial_margin
    if balance <= 0 or free < 0 or margin.unpriced:
        return ZERO
    if price is None:
        return round_down(balance, quantum)
    return round_down(amount_to_release(tiers, balance=balance, price=price, by=free, quantum=quantum), quantum)


def decide_withdraw(state: AccountState, command: Withdraw, stamp: Stamp, *, available: Decimal, margin: PoolMargin,
                    is_stale: bool, evidence: Callable[[], Evidence]) -> Withdrawn | WithdrawalRefused:
    """Let collateral out, up to what is withdrawable; nothing while a call or liquidation is open or a mark stale."""
    reasons: list[tuple[bool, Any, str]] = [
        (bool(state.liquidations or state.due), "liquidation-open", "a liquidation is open"),
        (bool(state.calls), "call-open", "a margin call is open"),
        (bool(margin.unpriced), "unpriced", f"no mark values {', '.join(sorted(set(margin.unpriced)))}"),
        (is_stale, "stale-mark", "a mark that values the account is stale"),
        (True, "beyond-withdrawable", "the rest is needed as initial margin or is not there")]
    _, reason, sentence = next(row for row in reasons if row[0])
    if reason != "beyond-withdrawable":
        available = ZERO
    if command.amount <= available:
        return Withdrawn(time=stamp.time, cause=stamp.cause, account=state.account, asset=command.asset,
                         amount=command.amount, balance=state.balance(CROSS, command.asset) - command.amount)
    return WithdrawalRefused(
        time=stamp.time, cause=stamp.cause, account=state.account, asset=command.asset, amount=command.amount,
        withdrawable=available, reason=reason, evidence=evidence(),
        message=f"expected at most {plain(available)} {command.asset}, came {plain(command.amount)}: {sentence}")


def accrued_funding(state: AccountState, key: PositionKey, market: MarketState, quantum: Decimal) -> Accrued:
    """What a position has accrued since it last settled."""
    position = state.positions[key]
    return accrued(size=position.size, contract_size=market.contract_size, index_seen=position.funding_index,
                   index_now=market.funding_index, quantum=quantum)


def decide_settle_funding(state: AccountState, markets: Mapping[str, MarketState], assets: Mapping[str, AssetState],
                          stamp: Stamp) -> FundingSettled | None:
    """Settle what every position has accrued; None where no index moved since."""
    items = []
    for key in sorted(state.positions):
        instrument, mode, side = key
        market, position = markets[instrument], state.positions[key]
        index = market.funding_index
        if index is position.funding_index or index == position.funding_index:
            continue
        due = accrued(size=position.size, contract_size=market.contract_size, index_seen=position.funding_index,
                      index_now=index, quantum=assets[market.quote].quantum)
        items.append(FundingItem(instrument=instrument, margin_mode=mode, position_side=side,  # type: ignore[arg-type]
                                 asset=market.quote, index=index, payment=due.payment, rounding=due.rounding))
    if not items:
        return None
    return FundingSettled(time=stamp.time, cause=stamp.cause, account=state.account, items=items)


# --- evolve ------------------------------------------------------------------------------------------------------


def evolve(state: AccountState | None, event: Event, lines: list[Posting] | None = None) -> AccountState:
    """Fold one event of the account's stream. `lines` are the event's postings, where the caller has them already."""
    if state is None:
        if not isinstance(event, AccountOpened):
            raise TypeError(f"an account's first event is AccountOpened, came {type(event).__name__}")
        return AccountState(event.account, 1, event.kind, event.margin_mode, event.position_mode, event.member,
                            event.rulebook, {CROSS: {}}, {})
    changed = _CHANGES.get(type(event))
    changes: dict[str, Any] = {} if changed is None else changed(state, event)
    changes["version"] = state.version + 1
    if lines is None:
        lines = postings(event)
    if lines:
        changes["balances"] = _balances(state.balances, lines)
    # As `_replace` does, at half its price.
    return AccountState(*map(changes.get, AccountState._fields, state))


def _balances(balances: Mapping[str, Mapping[str, Decimal]],
              lines: list[Posting]) -> Mapping[str, Mapping[str, Decimal]]:
    after: dict[str, Mapping[str, Decimal]] = dict(balances)
    touched: dict[str, dict[str, Decimal]] = {}
    for owner, asset, amount, _, pool in lines:
        if owner == ACCOUNT:
            held = touched.get(pool)
            if held is None:
                after[pool] = touched[pool] = held = dict(after.get(pool, NO_MARGIN))
            balance = held.get(asset, ZERO) + amount
            if balance:
                held[asset] = balance
            else:
                held.pop(asset, None)
    for pool, held in touched.items():
        if not held and pool != CROSS:
            del after[pool]
    return after


def _on_settings(state: AccountState, event: AccountSettingsChanged) -> dict[str, Any]:
    return {"kind": event.kind, "margin_mode": event.margin_mode, "position_mode": event.position_mode,
            "member": event.member, "rulebook": event.rulebook}


def _on_fill(state: AccountState, event: FillPosted) -> dict[str, Any]:
    key = (event.instrument, event.mode, event.position)
    positions = dict(state.positions)
    if event.position_size:
        positions[key] = Position(event.position_size, event.position_cost, event.funding_index,
                                  event.position_leverage)
    else:
        positions.pop(key, None)
    changes: dict[str, Any] = {"positions": positions}
    order = state.order(event.liquidation_order_id)
    if order is not None and "order-closed" not in event.flags:
        filled = order.filled + event.size
        changes["liquidations"] = _with_order(
            state, order.pool, order.order_id, None if filled >= order.size else order._replace(filled=filled))
    return changes


def _with_order(state: AccountState, pool: str, order_id: str, order: OpenOrder | None) -> Mapping[str, Any]:
    liquidation = state.liquidations[pool]
    orders = dict(liquidation.orders)
    if order is None:
        orders.pop(order_id, None)
    else:
        orders[order_id] = order
    return {**state.liquidations, pool: liquidation._replace(orders=orders)}


def _on_funding(state: AccountState, event: FundingSettled) -> dict[str, Any]:
    positions = dict(state.positions)
    for item in event.items:
        key = (item.instrument, item.margin_mode, item.position_side)
        positions[key] = positions[key]._replace(funding_index=item.index)
    return {"positions": positions}


def _on_call(state: AccountState, event: MarginCallIssued) -> dict[str, Any]:
    call = OpenCall(event.call_id, event.deadline, event.cure_level, int(event.call_id.rpartition("-")[2]))
    # A called pool counts as warned: the call says more than a warning would.
    return {"calls": {**state.calls, event.pool: call}, "warned": state.warned | {event.pool}}


def _on_call_ended(state: AccountState, event: Any) -> dict[str, Any]:
    calls = {pool: call for pool, call in state.calls.items() if pool != event.pool}
    return {"calls": calls, "due": state.due | {event.pool}} if type(event) is MarginCallExpired else {"calls": calls}


def _on_liquidation(state: AccountState, event: LiquidationStarted) -> dict[str, Any]:
    started = OpenLiquidation(event.liquidation_id, event.stop_level, {})
    return {"liquidations": {**state.liquidations, event.pool: started}, "due": state.due - {event.pool}}


def _on_order(state: AccountState, event: LiquidationOrderPlaced) -> dict[str, Any]:
    order = OpenOrder(event.order_id, event.pool, event.instrument, event.position_side, event.side, event.size, ZERO,
                      event.limit_price, event.expires_at)
    return {"liquidations": _with_order(state, event.pool, event.order_id, order)}


def _on_order_cancelled(state: AccountState, event: LiquidationOrderCancelled) -> dict[str, Any]:
    return {"liquidations": _with_order(state, event.pool, event.order_id, None)}


def _on_claim(state: AccountState, event: ShortfallClaimed) -> dict[str, Any]:
    claimed = state.liquidations[event.pool]._replace(claimed=True)
    changes: dict[str, Any] = {"liquidations": {**state.liquidations, event.pool: claimed}}
    if event.recourse == "full":
        changes["debts"] = {**state.debts, event.asset: state.debts.get(event.asset, ZERO) + event.amount}
    return changes


def _on_completed(state: AccountState, event: LiquidationCompleted) -> dict[str, Any]:
    return {"liquidations": {pool: row for pool, row in state.liquidations.items() if pool != event.pool}}


_CHANGES: dict[type[Event], Any] = {
    AccountSettingsChanged: _on_settings,
    FillPosted: _on_fill,
    FundingSettled: _on_funding,
    MarginWarned: lambda state, event: {"warned": state.warned | {event.pool}},
    WarningEnded: lambda state, event: {"warned": state.warned - {event.pool}},
    MarginCallIssued: _on_call,
    MarginCallMet: _on_call_ended,
    MarginCallWithdrawn: _on_call_ended,
    MarginCallExpired: _on_call_ended,
    MarginCallSuperseded: _on_call_ended,
    LiquidationStarted: _on_liquidation,
    LiquidationOrderPlaced: _on_order,
    LiquidationOrderCancelled: _on_order_cancelled,
    ShortfallClaimed: _on_claim,
    LiquidationCompleted: _on_completed,
}
