"""The read model of margin calls and liquidations: each call, liquidation and order with its end and its evidence.

Evidence is kept as the event's own JSON, so that whoever reads a call sees the marks and figures that made it. A
liquidation across instruments may fill and fall short in several assets: `view_liquidation_totals` has them all.
This file never issues, ends or judges anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from ledger.amounts import FINEST, ZERO, Time, divide_down
from ledger.errors import BrokenInvariant
from ledger.events import (
    Event,
    Evidence,
    FillPosted,
    InstrumentListed,
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
    Recorded,
    ShortfallClaimed,
)
from ledger.postings import postings
from projections.database import Connection
from projections.tables import Postings, ReadModel, Step, Table

CallEnded = MarginCallMet | MarginCallWithdrawn | MarginCallExpired | MarginCallSuperseded

OPEN: Final = "open"
PART_FILLED: Final = "part-filled"
FILLED: Final = "filled"
EXPIRED: Final = "expired"
CANCELLED: Final = "cancelled"
RUNNING: Final = "running"
CALL_ENDS: Final[dict[type[Event], str]] = {
    MarginCallMet: "met", MarginCallWithdrawn: "withdrawn", MarginCallExpired: EXPIRED,
    MarginCallSuperseded: "superseded"}


@dataclass(slots=True)
class MarginCallRow:
    """A margin call from issue to end; `margin_ratio` is that at issue."""

    call_id: str
    account: str
    pool: str
    issued_at: Time
    issued_position: int
    deadline: Time
    call_asset: str
    call_amount: Decimal | None
    cure_level: Decimal
    margin_ratio: Decimal | None
    state: str
    ended_at: Time | None
    ended_position: int | None
    issue_evidence: str
    end_evidence: str | None
    message: str


@dataclass(slots=True)
class LiquidationRow:
    """A liquidation; its notional and shortfall in their one asset, or without figure and asset when in several."""

    liquidation_id: str
    account: str
    pool: str
    reason: str
    started_at: Time
    started_position: int
    state: str
    completed_at: Time | None
    orders: int
    fills: int
    notional_filled: Decimal | None
    notional_asset: str | None
    shortfall_amount: Decimal | None
    shortfall_asset: str | None


@dataclass(slots=True)
class LiquidationTotalRow:
    """What one liquidation filled, as notional, and fell short of, in one asset."""

    liquidation_id: str
    asset: str
    notional_filled: Decimal
    shortfall: Decimal


@dataclass(slots=True)
class LiquidationOrderRow:
    """An order of a liquidation; `reason` is why it was cancelled. A fill flagged `order-closed` is none of its own.

    `result` is the last that the venue said of it; what it reports as filled is so only by the fills that come.
    """

    order_id: str
    liquidation_id: str
    account: str
    pool: str
    instrument: str
    position_side: str
    side: str
    size: Decimal
    filled: Decimal
    limit_price: Decimal
    state: str
    reason: str | None
    placed_at: Time
    expires_at: Time
    closed_at: Time | None
    result: str | None
    result_at: Time | None


@dataclass(slots=True)
class ContractRow:
    """What makes a size a notional: the kind and size of an instrument's contract."""

    instrument: str
    contract_type: str
    contract_size: Decimal


MARGIN_CALLS: Final = Table("view_margin_calls", MarginCallRow, key=("call_id",))
LIQUIDATIONS: Final = Table("view_liquidations", LiquidationRow, key=("liquidation_id",))
LIQUIDATION_TOTALS: Final = Table("view_liquidation_totals", LiquidationTotalRow, key=("liquidation_id", "asset"))
LIQUIDATION_ORDERS: Final = Table("view_liquidation_orders", LiquidationOrderRow, key=("order_id",))
CONTRACTS: Final = Table("view_contracts", ContractRow, key=("instrument",))


class MarginCalls(ReadModel):
    """Folds calls, liquidations, their orders and fills into the tables of this file."""

    NAME = "margin_calls"
    SHAPES = (MARGIN_CALLS, LIQUIDATIONS, LIQUIDATION_TOTALS, LIQUIDATION_ORDERS, CONTRACTS)

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        super().__init__(connection, postings)
        self._calls = self.rows(MARGIN_CALLS)
        self._liquidations = self.rows(LIQUIDATIONS)
        self._totals = self.rows(LIQUIDATION_TOTALS)
        self._orders = self.rows(LIQUIDATION_ORDERS)
        self._contracts = self.rows(CONTRACTS)

    def steps(self) -> Mapping[type[Event], Step]:
        """The decisions on pools, and the fills that answer their orders."""
        return dict.fromkeys(CALL_ENDS, self._call_ended) | {
            InstrumentListed: self._instrument_listed,
            MarginCallIssued: self._call_issued,
            LiquidationStarted: self._liquidation_started,
            LiquidationOrderPlaced: self._order_placed,
            LiquidationOrderCancelled: self._order_cancelled,
            LiquidationResultRecorded: self._result_recorded,
            FillPosted: self._filled,
            ShortfallClaimed: self._shortfall_claimed,
            LiquidationCompleted: self._liquidation_completed}

    def _instrument_listed(self, recorded: Recorded, event: InstrumentListed) -> None:
        key = (event.instrument,)
        contract = self._contracts.find(key)
        if contract is None:
            self._contracts.add(key, ContractRow(event.instrument, event.contract_type, event.contract_size))
        else:
            contract.contract_type, contract.contract_size = event.contract_type, event.contract_size
            self._contracts.change(key, contract)

    def _call_issued(self, recorded: Recorded, event: MarginCallIssued) -> None:
        key = (event.call_id,)
        if self._calls.find(key) is not None:
            raise BrokenInvariant(f"log position {recorded.position}: call {event.call_id} is issued twice")
        self._calls.add(key, MarginCallRow(
            call_id=event.call_id, account=event.account, pool=event.pool, issued_at=event.time,
            issued_position=recorded.position, deadline=event.deadline, call_asset=event.call_asset,
            call_amount=event.call_amount, cure_level=event.cure_level, margin_ratio=event.evidence.margin_ratio,
            state=OPEN, ended_at=None, ended_position=None, issue_evidence=_json(event.evidence), end_evidence=None,
            message=event.message))

    def _call_ended(self, recorded: Recorded, event: CallEnded) -> None:
        call = self._calls.find((event.call_id,))
        if call is None or call.state != OPEN:
            raise BrokenInvariant(f"log position {recorded.position}: call {event.call_id} ends but is not open")
        call.state = CALL_ENDS[type(event)]
        call.ended_at, call.ended_position = event.time, recorded.position
        call.end_evidence = _json(event.evidence)
        self._calls.change((event.call_id,), call)

    def _liquidation_started(self, recorded: Recorded, event: LiquidationStarted) -> None:
        key = (event.liquidation_id,)
        if self._liquidations.find(key) is not None:
            raise BrokenInvariant(
                f"log position {recorded.position}: liquidation {event.liquidation_id} is started twice")
        self._liquidations.add(key, LiquidationRow(
            liquidation_id=event.liquidation_id, account=event.account, pool=event.pool, reason=event.reason,
            started_at=event.time, started_position=recorded.position, state=RUNNING, completed_at=None,
            orders=0, fills=0, notional_filled=ZERO, notional_asset=None, shortfall_amount=ZERO,
            shortfall_asset=None))

    def _order_placed(self, recorded: Recorded, event: LiquidationOrderPlaced) -> None:
        self._liquidation(recorded, event.liquidation_id).orders += 1
        key = (event.order_id,)
        if self._orders.find(key) is not None:
            raise BrokenInvariant(f"log position {recorded.position}: order {event.order_id} is placed twice")
        self._orders.add(key, LiquidationOrderRow(
            order_id=event.order_id, liquidation_id=event.liquidation_id, account=event.account, pool=event.pool,
            instrument=event.instrument, position_side=event.position_side, side=event.side, size=event.size,
            filled=ZERO, limit_price=event.limit_price, state=OPEN, reason=None, placed_at=event.time,
            expires_at=event.expires_at, closed_at=None, result=None, result_at=None))

    def _order_cancelled(self, recorded: Recorded, event: LiquidationOrderCancelled) -> None:
        order = self._order(recorded, event.order_id)
        order.state = EXPIRED if event.reason == "expired" else CANCELLED
        order.reason, order.filled, order.closed_at = event.reason, event.filled, event.time

    def _result_recorded(self, recorded: Recorded, event: LiquidationResultRecorded) -> None:
        order = (self._order(recorded, event.liquidation_order_id) if event.order_open
                 else self._orders.find((event.liquidation_order_id,)))
        # The venue may speak of an order that this ledger never placed, or placed for another account.
        if order is None or order.account != event.account:
            return
        order.result, order.result_at = event.result, event.time
        if event.order_open and event.result != FILLED:
            order.state, order.closed_at = event.result, event.time
        self._orders.change((order.order_id,), order)

    def _filled(self, recorded: Recorded, event: FillPosted) -> None:
        # A fill may name what it likes; the ledger flags one that names no open order of its account.
        if event.liquidation_order_id is None or "order-closed" in event.flags:
            return
        order = self._order(recorded, event.liquidation_order_id)
        order.filled += event.size
        whole = order.filled >= order.size
        order.state, order.closed_at = (FILLED, event.time) if whole else (PART_FILLED, None)
        liquidation = self._liquidation(recorded, order.liquidation_id)
        liquidation.fills += 1
        asset, notional = event.settlement_asset, self._notional(recorded, event)
        liquidation.notional_filled, liquidation.notional_asset = _with(
            liquidation.notional_filled, liquidation.notional_asset, notional, asset)
        self._total(order.liquidation_id, asset).notional_filled += notional

    def _shortfall_claimed(self, recorded: Recorded, event: ShortfallClaimed) -> None:
        liquidation = self._liquidation(recorded, event.liquidation_id)
        liquidation.shortfall_amount, liquidation.shortfall_asset = _with(
            liquidation.shortfall_amount, liquidation.shortfall_asset, event.amount, event.asset)
        self._total(event.liquidation_id, event.asset).shortfall += event.amount

    def _liquidation_completed(self, recorded: Recorded, event: LiquidationCompleted) -> None:
        liquidation = self._liquidation(recorded, event.liquidation_id)
        liquidation.state, liquidation.completed_at = event.outcome, event.time

    def _liquidation(self, recorded: Recorded, liquidation_id: str) -> LiquidationRow:
        """The row of the liquidation, which is about to change."""
        key = (liquidation_id,)
        liquidation = self._liquidations.find(key)
        if liquidation is None:
            raise BrokenInvariant(f"log position {recorded.position}: liquidation {liquidation_id} never started")
        self._liquidations.change(key, liquidation)
        return liquidation

    def _order(self, recorded: Recorded, order_id: str) -> LiquidationOrderRow:
        """The row of an order that is open, and about to change."""
        order = self._orders.find((order_id,))
        if order is None or order.state not in (OPEN, PART_FILLED):
            raise BrokenInvariant(f"log position {recorded.position}: expected order {order_id} to be open, "
                                  f"it {'was never placed' if order is None else f'is {order.state}'}")
        self._orders.change((order_id,), order)
        return order

    def _total(self, liquidation_id: str, asset: str) -> LiquidationTotalRow:
        """The liquidation's row of this asset, which is about to change."""
        key = (liquidation_id, asset)
        total = self._totals.find(key)
        if total is None:
            return self._totals.add(key, LiquidationTotalRow(*key, ZERO, ZERO))
        self._totals.change(key, total)
        return total

    def _notional(self, recorded: Recorded, event: FillPosted) -> Decimal:
        """The notional of a fill at its price, in the settlement asset; inverse: rounded down to the finest place."""
        contract = self._contracts.find((event.instrument,))
        if contract is None:
            raise BrokenInvariant(f"log position {recorded.position}: instrument {event.instrument} was never listed")
        if contract.contract_type == "inverse":
            return divide_down(event.size * contract.contract_size, event.price, FINEST)
        return event.size * contract.contract_size * event.price


def _with(total: Decimal | None, of: str | None, amount: Decimal, asset: str) -> tuple[Decimal | None, str | None]:
    """A total and its asset with one amount more; neither when amounts in several assets came together."""
    if total is None:
        return None, None
    if of is None:
        return amount, asset
    return (total + amount, of) if of == asset else (None, None)


def _json(evidence: Evidence) -> str:
    return evidence.model_dump_json(exclude_none=True)
