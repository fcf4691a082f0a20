"""The account aggregate: one client's pools, positions, calls and liquidations, folded from the stream `account:ID`.

A pool is what is margined together: `cross`, or one isolated position. Balances are the fold of the events' own
postings, so that what the account holds and what the journal says cannot part. `decide_*` are pure and return
events; `evolve` never refuses. This file decides facts; calls and liquidation have files of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from ledger.amounts import ZERO, round_down
from ledger.asset import AssetState
from ledger.commands import (
    AccountKind,
    ChangeSettings,
    MarginMode,
    OpenAccount,
    PlaceOrder,
    PositionMode,
    ReportOrder,
    Side,
)
from ledger.errors import Rejected
from ledger.events import (
    AccountOpened,
    AccountSettingsChanged,
    Cause,
    DepositReversed,
    Event,
    FillPosted,
    FundingItem,
    FundingSettled,
    InterestItem,
    InterestSettled,
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
    MarketSettled,
    OrderReserved,
    PositionSettled,
    ShortfallClaimed,
    TradingSettingsChanged,
    WarningEnded,
    WithdrawalCancelled,
    WithdrawalHeld,
    WithdrawalSettled,
)
from ledger.market import MarketState
from ledger.postings import ACCOUNT, CROSS, Posting, pool_name, postings
from ledger.risk.funding import Accrued, accrued
from ledger.risk.holding import value_of
from ledger.risk.interest import accrued_interest

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


class WorkingOrder(NamedTuple):
    """An open order at the venue, as the venue last told of it."""

    instrument: str
    side: Side
    remaining: Decimal
    price: Decimal
    reduce_only: bool


class Hold(NamedTuple):
    """A withdrawal that has neither settled nor been cancelled."""

    asset: str
    amount: Decimal


class TradingSettings(NamedTuple):
    """What the account chose for an instrument, or for all that have no choice of their own."""

    leverage: Decimal | None = None
    margin_mode: MarginMode | None = None


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
    # Log time of the account's last event: until then all interest is settled.
    touched: int = 0
    # instrument (None: all others) -> what was chosen for it
    settings: Mapping[str | None, TradingSettings] = {}
    # id of the withdrawal -> what is held for it
    holds: Mapping[str, Hold] = {}
    # order id -> the open order
    orders: Mapping[str, WorkingOrder] = {}
    # Deposits that were undone: source and id.
    reversed: frozenset[tuple[str, str]] = frozenset()

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

    def leverage_of(self, instrument: str) -> Decimal | None:
        """The leverage chosen for an instrument, else for all."""
        for place in (instrument, None):
            chosen = self.settings.get(place)
            if chosen is not None and chosen.leverage is not None:
                return chosen.leverage
        return None

    def mode_of(self, instrument: str) -> MarginMode:
        """The margin mode of new positions on an instrument."""
        for place in (instrument, None):
            chosen = self.settings.get(place)
            if chosen is not None and chosen.margin_mode is not None:
                return chosen.margin_mode
        return self.margin_mode

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


def decide_settings(state: AccountState, command: ChangeSettings, stamp: Stamp) -> TradingSettingsChanged:
    """Choose leverage or modes. Rejected: another position mode while positions are open."""
    if command.position_mode not in (None, state.position_mode) and state.positions:
        raise Rejected("immutable", f"position_mode of account {state.account!r} is {state.position_mode!r} and may "
                       f"not change while positions are open, came {command.position_mode!r}", field="position_mode")
    return TradingSettingsChanged(
        time=stamp.time, cause=stamp.cause, account=state.account, instrument=command.instrument,
        leverage=command.leverage, margin_mode=command.margin_mode, position_mode=command.position_mode)


def decide_order(state: AccountState, command: PlaceOrder, stamp: Stamp) -> OrderReserved:
    """Take note of an open order as it now stands: a fact."""
    return OrderReserved(
        time=stamp.time, cause=stamp.cause, account=state.account, order_id=command.order_id,
        instrument=command.instrument, side=command.side, remaining=command.remaining, price=command.price,
        reduce_only=command.reduce_only)


def decide_result(state: AccountState, command: ReportOrder, stamp: Stamp) -> LiquidationResultRecorded:
    """Take note of what the venue says of a liquidation order: a fact."""
    return LiquidationResultRecorded(
        time=stamp.time, cause=stamp.cause, account=state.account, liquidation_order_id=command.liquidation_order_id,
        result=command.result, order_open=state.order(command.liquidation_order_id) is not None)


def accrued_funding(state: AccountState, key: PositionKey, market: MarketState, quantum: Decimal) -> Accrued:
    """What a position has accrued since it last settled."""
    position = state.positions[key]
    return accrued(size=position.size, contract_size=market.contract_size, index_seen=position.funding_index,
                   index_now=market.funding_index, quantum=quantum)


def interest_items(state: AccountState, assets: Mapping[str, AssetState], time: int,
                   pools: Iterable[str] | None = None) -> list[InterestItem]:
    """What the balances of an account have accrued since its last event: debts cost, what is held earns."""
    items = []
    for pool in sorted(state.balances if pools is None else pools, key=str.encode):
        for asset, balance in sorted(state.balances.get(pool, NO_MARGIN).items()):
            listed = assets[asset]
            if not listed.rates:
                continue
            side = 0 if balance < 0 else 1
            rate_seconds = listed.indexes(time)[side] - listed.indexes(state.touched)[side]
            if rate_seconds:
                due = accrued_interest(balance=balance, rate_seconds=rate_seconds, quantum=listed.quantum)
                items.append(InterestItem(pool=pool, asset=asset, balance=balance, rate_seconds=rate_seconds,
                                          payment=due.payment, rounding=due.rounding))
    return items


def decide_settle_interest(state: AccountState, assets: Mapping[str, AssetState],
                           stamp: Stamp) -> InterestSettled | None:
    """Settle what every balance has accrued; None where no index moved since."""
    items = interest_items(state, assets, stamp.time)
    if not items:
        return None
    return InterestSettled(time=stamp.time, cause=stamp.cause, account=state.account, items=items)


def decide_position_settled(state: AccountState, key: PositionKey, market: MarketState, settled: MarketSettled,
                            quantum: Decimal, stamp: Stamp) -> PositionSettled:
    """Settle one position at its market's price: equity is the same before and after, but for rounding at an end.

    Daily: profit is paid and the position stands at the settlement price. Expiry, delisting: it is closed, and an
    isolated pool gives what is left back to the cross pool.
    """
    position = state.positions[key]
    value = value_of(size=position.size, contract_size=market.contract_size, price=settled.price,
                     contract_type=market.contract_type, quantum=quantum)
    profit = value - position.cost
    realised = round_down(profit, quantum)
    rest, ends = profit - realised, settled.kind != "daily"
    pool, asset = pool_name(*key), market.settlement_asset
    left = state.balance(pool, asset) + realised
    return PositionSettled(
        time=stamp.time, cause=stamp.cause, account=state.account, instrument=settled.instrument, kind=settled.kind,
        price=settled.price, mode=key[1], position=key[2],  # type: ignore[arg-type]
        settlement_asset=asset, settled_size=position.size, realised_pnl=realised, rounding=rest if ends else ZERO,
        position_size=ZERO if ends else position.size, position_cost=ZERO if ends else value - rest,
        isolated_margin=-max(ZERO, left) if ends and pool != CROSS else ZERO)


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
                      index_now=index, quantum=assets[market.settlement_asset].quantum)
        items.append(FundingItem(instrument=instrument, margin_mode=mode, position_side=side,  # type: ignore[arg-type]
                                 asset=market.settlement_asset, index=index, payment=due.payment,
                                 rounding=due.rounding))
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
                            event.rulebook, {CROSS: {}}, {}, touched=event.time)
    changed = _CHANGES.get(type(event))
    changes: dict[str, Any] = {} if changed is None else changed(state, event)
    changes["version"], changes["touched"] = state.version + 1, event.time
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


def _on_choice(state: AccountState, event: TradingSettingsChanged) -> dict[str, Any]:
    before = state.settings.get(event.instrument, TradingSettings())
    chosen = TradingSettings(before.leverage if event.leverage is None else event.leverage,
                             event.margin_mode or before.margin_mode)
    changes: dict[str, Any] = {"settings": {**state.settings, event.instrument: chosen}}
    if event.position_mode is not None:
        changes["position_mode"] = event.position_mode
    if event.leverage is not None:
        own = [place for place, row in state.settings.items() if row.leverage is not None]
        changes["positions"] = {
            key: position._replace(leverage=event.leverage)
            if event.instrument == key[0] or (event.instrument is None and key[0] not in own) else position
            for key, position in state.positions.items()}
    return changes


def _on_hold(state: AccountState, event: WithdrawalHeld) -> dict[str, Any]:
    return {"holds": {**state.holds, event.withdrawal: Hold(event.asset, event.amount)}}


def _on_hold_ended(state: AccountState, event: WithdrawalSettled | WithdrawalCancelled) -> dict[str, Any]:
    return {"holds": {name: hold for name, hold in state.holds.items() if name != event.withdrawal}}


def _on_reserved(state: AccountState, event: OrderReserved) -> dict[str, Any]:
    orders = dict(state.orders)
    if event.remaining:
        orders[event.order_id] = WorkingOrder(event.instrument, event.side, event.remaining, event.price,
                                              event.reduce_only)
    else:
        orders.pop(event.order_id, None)
    return {"orders": orders}


def _on_result(state: AccountState, event: LiquidationResultRecorded) -> dict[str, Any]:
    order = state.order(event.liquidation_order_id)
    # What is filled comes as fills; only an order that will have no more of them is closed by what the venue says.
    if order is None or event.result == "filled":
        return {}
    return {"liquidations": _with_order(state, order.pool, order.order_id, None)}


def _on_position_settled(state: AccountState, event: PositionSettled) -> dict[str, Any]:
    key, positions = (event.instrument, event.mode, event.position), dict(state.positions)
    if event.position_size:
        positions[key] = positions[key]._replace(cost=event.position_cost)
    else:
        del positions[key]
    return {"positions": positions}


_CHANGES: dict[type[Event], Any] = {
    TradingSettingsChanged: _on_choice,
    DepositReversed: lambda state, event: {"reversed": state.reversed | {(event.cause.source, event.reverses)}},
    WithdrawalHeld: _on_hold,
    WithdrawalSettled: _on_hold_ended,
    WithdrawalCancelled: _on_hold_ended,
    OrderReserved: _on_reserved,
    LiquidationResultRecorded: _on_result,
    PositionSettled: _on_position_settled,
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
