"""All that can have happened: one catalogue of frozen models, each with an explicit, versioned TOPIC.

Facts answer records (`ANSWERS` names the record type); decisions are the ledger's own, and carry their evidence.
An event's state in the log is the compact JSON of its fields in declared order, absent fields left out. A change
of an event is a new TOPIC version with an entry in `UPCASTS`; the committed schema (docs/events.json) holds us to
it. This file never decides anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict

from ledger.amounts import Number, Time
from ledger.commands import (
    AccountKind,
    FundMovementKind,
    FundName,
    HaltedWhat,
    MarginMode,
    OrderResult,
    PositionMode,
    PositionSide,
    PriceKind,
    SettlementKind,
    Side,
)

_set: Final = object.__setattr__


class _Frozen(BaseModel):
    """What we build ourselves is typed when it is written, so only what is read back from a log is validated."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    # Every field in declared order, absent ones as None or their default; one that is required and was not given
    # is undefined, which nothing can encode.
    _blank: ClassVar[dict[str, Any]] = {}
    # What pydantic keeps of a model beside its values, one for all of a class: nothing tells absent from given here.
    _given: ClassVar[set[str]] = set()

    if not TYPE_CHECKING:

        @classmethod
        def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
            cls._blank = {name: field.default for name, field in cls.model_fields.items()}
            cls._given = set(cls.model_fields)

        def __init__(self, /, **fields: Any) -> None:
            blank = self._blank
            values = {**blank, **fields}
            if len(values) != len(blank):
                raise TypeError(f"{type(self).__name__} has no field {sorted(fields.keys() - blank.keys())}")
            _set(self, "__dict__", values)
            _set(self, "__pydantic_fields_set__", self._given)
            _set(self, "__pydantic_extra__", None)
            _set(self, "__pydantic_private__", None)

        # As of a model without an `__init__` of its own: the validator fills in what it has read, and asks nothing.
        __init__.__pydantic_base_init__ = True


class Cause(_Frozen):
    """The record that an event goes back to: its identity, its time, and where it stood."""

    source: str
    type: str
    id: str | None = None
    time: Time | None = None
    partition: int | None = None
    offset: int | None = None
    line: int | None = None
    replay_of: str | None = None


class Event(_Frozen):
    """What every event has: log time when it was recorded, and its cause."""

    TOPIC: ClassVar[str]
    # The record type that this event is the outcome of; None for the ledger's own decisions.
    ANSWERS: ClassVar[str | None] = None

    time: Time
    cause: Cause


# --- evidence ----------------------------------------------------------------------------------------------------


class MarkEvidence(_Frozen):
    """A mark that a decision used: its price, the log position that recorded it, and its age in seconds."""

    price: Number
    position: int
    age_seconds: Number
    provisional: bool | None = None


class PositionEvidence(_Frozen):
    """One position as the decision saw it; margins and PnL in the valuation asset."""

    instrument: str
    margin_mode: MarginMode
    position_side: PositionSide
    size: Number
    cost: Number
    notional: Number
    unrealised_pnl: Number
    initial_margin: Number
    maintenance_margin: Number


class Trigger(_Frozen):
    """The record that tipped a decision: the log position of its outcome, and its type."""

    position: int
    type: str


class RulebookVersion(_Frozen):
    name: str
    version: int


class Evidence(_Frozen):
    """All that a decision on a pool rests on: figures in the valuation asset, marks, positions, rulebook version."""

    account_equity: Number
    margin_equity: Number
    collateral_value: Number
    unrealised_pnl: Number
    initial_margin: Number
    maintenance_margin: Number
    margin_ratio: Number | None = None
    balances: dict[str, Number]
    marks: dict[str, MarkEvidence]
    positions: list[PositionEvidence]
    rulebook: RulebookVersion
    trigger: Trigger


# --- intake and clock --------------------------------------------------------------------------------------------


class RecordRejected(Event):
    """A record that cannot be applied, kept with its first 4 KiB and the hash of the whole.

    `known_by` and `key` are what a repeat is recognised by: the id of the cause, or the place where the record
    stood, a price's sequence, or id and hash of a record that met a spent id.
    """

    TOPIC = "clearing.record-rejected:1"
    ANSWERS = "*"

    known_by: Literal["id", "at", "price", "conflict"]
    key: str

    reason: str
    message: str
    field: str | None = None
    raw: str
    raw_encoding: Literal["utf-8", "base64"]
    raw_bytes: int
    sha256: str


class ClockMoved(Event):
    """Log time moved by a clock record."""

    TOPIC = "clearing.clock-moved:1"
    ANSWERS = "clock"


# --- rulebook, assets, markets -----------------------------------------------------------------------------------


class RulebookPublished(Event):
    """A rulebook, whole, in force from `effective`; what was decided before keeps the version it names."""

    TOPIC = "clearing.rulebook-published:1"
    ANSWERS = "rulebook"

    name: str
    version: int
    effective: Time
    # As the record gave them: a name of a shipped rulebook or a whole one, and the wish for a time.
    rulebook: str | dict[str, Any]
    requested_effective: Time | None = None
    content: dict[str, Any]


class AssetListed(Event):
    """An asset was listed, or listed again with a change that is allowed."""

    TOPIC = "clearing.asset-listed:1"
    ANSWERS = "asset"

    asset: str
    quantum: Number
    pricing_instrument: str | None = None


class InterestRateSet(Event):
    """Rates of an asset from log time on; the indexes are the sums of rate x seconds until then."""

    TOPIC = "clearing.interest-rate-set:1"
    ANSWERS = "interest-rate"

    asset: str
    borrow_rate: Number
    lend_rate: Number
    borrow_index: Number
    lend_index: Number


class InstrumentListed(Event):
    """An instrument was listed, or listed again with a change that is allowed."""

    TOPIC = "clearing.instrument-listed:1"
    ANSWERS = "instrument"

    instrument: str
    base: str
    quote: str
    contract_type: Literal["linear", "inverse", "spot", "option"]
    contract_size: Number
    tick_size: Number
    lot_size: Number
    underlying: str | None = None
    expiry: Time | None = None


class PriceRecorded(Event):
    """A price was accepted; of kind `mark` it moves the instrument's mark: to `mark`, or where absent to itself."""

    TOPIC = "clearing.price-recorded:1"
    ANSWERS = "price"

    instrument: str
    price: Number
    source: str
    sequence: int | None = None
    kind: PriceKind
    # The first sequence that never came, where this one does not follow the last.
    gap_from: int | None = None
    # The median of the fresh sources, where it is not this price.
    mark: Number | None = None


class PriceRejected(Event):
    """A price that the market did not take: `late`, `step` (too far from the mark), `settled` (the contract ended)."""

    TOPIC = "clearing.price-rejected:1"
    ANSWERS = "price"

    instrument: str
    price: Number
    source: str
    sequence: int | None = None
    kind: PriceKind
    gap_from: int | None = None
    reason: Literal["late", "step", "settled"]
    message: str


class ProvisionalMarkSet(Event):
    """A fill came before any mark: its price values the instrument until a mark comes."""

    TOPIC = "clearing.provisional-mark-set:1"

    instrument: str
    price: Number


class FundingIndexMoved(Event):
    """Funding of one instrument: index += rate x price, in quote per unit of base; positions settle when touched.

    Of an inverse contract, index += rate / price, in base per unit of quote.
    """

    TOPIC = "clearing.funding-index-moved:1"
    ANSWERS = "funding"

    instrument: str
    rate: Number
    price: Number | None = None
    mark_price: Number
    index_before: Number
    index_after: Number


class MarketSettled(Event):
    """Positions settle at a price, which is the mark from here on: `daily` pays profit, the others end the contract."""

    TOPIC = "clearing.market-settled:1"
    ANSWERS = "settlement"

    instrument: str
    price: Number
    kind: SettlementKind


class Halted(Event):
    """Liquidations, new risk or withdrawals stop in a scope: `all`, an instrument or an account."""

    TOPIC = "clearing.halted:1"
    ANSWERS = "halt"

    scope: str
    what: HaltedWhat
    reason: str
    by: str


class Resumed(Event):
    """What was halted in a scope goes on."""

    TOPIC = "clearing.resumed:1"
    ANSWERS = "resume"

    scope: str
    what: HaltedWhat
    reason: str
    by: str


# --- account facts -----------------------------------------------------------------------------------------------


class AccountOpened(Event):
    """A clearing account was opened."""

    TOPIC = "clearing.account-opened:1"
    ANSWERS = "account"

    account: str
    margin_mode: MarginMode
    position_mode: PositionMode
    kind: AccountKind
    member: str | None = None
    rulebook: str | None = None


class AccountSettingsChanged(Event):
    """What may change of an account was changed."""

    TOPIC = "clearing.account-settings-changed:1"
    ANSWERS = "account"

    account: str
    margin_mode: MarginMode
    position_mode: PositionMode
    kind: AccountKind
    member: str | None = None
    rulebook: str | None = None


class TradingSettingsChanged(Event):
    """Leverage or modes were chosen, for one instrument or (none named) for all that have no choice of their own."""

    TOPIC = "clearing.trading-settings-changed:1"
    ANSWERS = "account-settings"

    account: str
    instrument: str | None = None
    leverage: Number | None = None
    margin_mode: MarginMode | None = None
    position_mode: PositionMode | None = None


class Deposited(Event):
    """Collateral came in. Postings: account +, custody -."""

    TOPIC = "clearing.deposited:1"
    ANSWERS = "deposit"

    account: str
    asset: str
    amount: Number
    balance: Number


class DepositReversed(Event):
    """A deposit was undone, also where equity turns negative. Postings: account -, custody +."""

    TOPIC = "clearing.deposit-reversed:1"
    ANSWERS = "deposit"

    account: str
    asset: str
    amount: Number
    reverses: str
    balance: Number


class Withdrawn(Event):
    """Collateral went out. Postings: account -, custody +."""

    TOPIC = "clearing.withdrawn:1"
    ANSWERS = "withdrawal"

    account: str
    asset: str
    amount: Number
    balance: Number


RefusalReason = Literal[
    "beyond-withdrawable", "call-open", "liquidation-open", "stale-mark", "unpriced", "halted"]


class WithdrawalRefused(Event):
    """A withdrawal beyond what is withdrawable, with that amount, the reason and the evidence."""

    TOPIC = "clearing.withdrawal-refused:1"
    ANSWERS = "withdrawal"

    account: str
    asset: str
    amount: Number
    withdrawable: Number
    reason: RefusalReason
    message: str
    evidence: Evidence
    # Present where the record asked for a hold.
    hold: bool | None = None


class WithdrawalHeld(Event):
    """A withdrawal is reserved until it settles or is cancelled. Postings: account -, withheld +."""

    TOPIC = "clearing.withdrawal-held:1"
    ANSWERS = "withdrawal"

    account: str
    asset: str
    amount: Number
    hold: Literal[True]
    # The withdrawal's id, by which its end names it.
    withdrawal: str
    balance: Number


class WithdrawalSettled(Event):
    """What was held has gone out. Postings: withheld -, custody +."""

    TOPIC = "clearing.withdrawal-settled:1"
    ANSWERS = "withdrawal-settled"

    account: str
    withdrawal: str
    asset: str
    amount: Number


class WithdrawalCancelled(Event):
    """What was held is the account's again. Postings: withheld -, account +."""

    TOPIC = "clearing.withdrawal-cancelled:1"
    ANSWERS = "withdrawal-cancelled"

    account: str
    withdrawal: str
    asset: str
    amount: Number
    balance: Number


class TransferSent(Event):
    """Collateral left for another account, by way of the in-transit account. Postings: account -, in-transit +."""

    TOPIC = "clearing.transfer-sent:1"
    ANSWERS = "transfer"

    account: str
    to_account: str
    asset: str
    amount: Number
    transfer_id: str
    balance: Number


class TransferReceived(Event):
    """The other side of a transfer. Postings: in-transit -, account +."""

    TOPIC = "clearing.transfer-received:1"

    account: str
    from_account: str
    asset: str
    amount: Number
    transfer_id: str
    balance: Number


class TransferArrived(Event):
    """Collateral came from another shard's account. `TransferReceived`, which follows, carries the postings."""

    TOPIC = "clearing.transfer-arrived:1"
    ANSWERS = "transfer-arrival"

    account: str
    from_account: str
    from_shard: int
    asset: str
    amount: Number
    transfer_id: str


class TransferTurnedAway(Event):
    """Collateral came from another shard for an account, or in an asset, that is unknown here; it goes back."""

    TOPIC = "clearing.transfer-turned-away:1"
    ANSWERS = "transfer-arrival"

    account: str
    from_account: str
    from_shard: int
    asset: str
    amount: Number
    transfer_id: str
    reason: Literal["unknown-account", "unknown-asset"]


class TransferReturned(Event):
    """Collateral that another shard turned away is the sender's again. Postings: in-transit -, account +."""

    TOPIC = "clearing.transfer-returned:1"
    ANSWERS = "transfer-return"

    account: str
    to_account: str
    asset: str
    amount: Number
    transfer_id: str
    reason: Literal["unknown-account", "unknown-asset"]
    balance: Number


class TransferRefused(Event):
    """A transfer beyond what is withdrawable, with that amount, the reason and the evidence."""

    TOPIC = "clearing.transfer-refused:1"
    ANSWERS = "transfer"

    account: str
    to_account: str
    asset: str
    amount: Number
    withdrawable: Number
    reason: RefusalReason
    message: str
    evidence: Evidence


class IsolatedMarginMoved(Event):
    """Margin moved from the cross pool into an isolated position (+) or back (-)."""

    TOPIC = "clearing.isolated-margin-moved:1"
    ANSWERS = "isolated-margin"

    account: str
    instrument: str
    amount: Number
    # As the record gave it; the position stands below.
    position_side: PositionSide | None = None
    position: PositionSide
    asset: str
    balance: Number


class IsolatedMarginRefused(Event):
    """Margin of an isolated position beyond what is free where it is to come from."""

    TOPIC = "clearing.isolated-margin-refused:1"
    ANSWERS = "isolated-margin"

    account: str
    instrument: str
    amount: Number
    position_side: PositionSide | None = None
    withdrawable: Number
    reason: RefusalReason
    message: str
    evidence: Evidence


class OrderReserved(Event):
    """An open order as it now stands at the venue; remaining 0: it is gone."""

    TOPIC = "clearing.order-reserved:1"
    ANSWERS = "order"

    account: str
    order_id: str
    instrument: str
    side: Side
    remaining: Number
    price: Number
    reduce_only: bool


class LiquidationResultRecorded(Event):
    """What the venue says of a liquidation order; `order_open` tells whether it was still open here."""

    TOPIC = "clearing.liquidation-result-recorded:1"
    ANSWERS = "liquidation-result"

    account: str
    liquidation_order_id: str
    result: OrderResult
    order_open: bool


FillFlag = Literal["initial-margin-breached", "late", "order-closed", "order-exceeded", "margin-short", "during-halt",
                   "leg-exceeded", "after-settlement"]


class FillPosted(Event):
    """One side of a trade against the house.

    Postings, in the settlement asset: pool + realised_pnl; house - (realised_pnl + rounding); house:rounding +
    rounding; in the fee asset: payer - fee, fees + fee; margin moved between the cross pool and an isolated one.
    `position_size` and `position_cost` are those after the fill; a flip closes and opens at the same price.
    """

    TOPIC = "clearing.fill-posted:1"
    ANSWERS = "fill"

    account: str
    trade_id: str
    instrument: str
    side: Side
    size: Number
    price: Number
    fee: Number
    fee_asset: str | None = None
    liquidity: Literal["maker", "taker"] | None = None
    order_id: str | None = None
    liquidation_order_id: str | None = None
    # As the record gave them; the position that took the fill stands below.
    margin_mode: MarginMode | None = None
    position_side: PositionSide | None = None
    leverage: Number | None = None
    # What it did.
    mode: MarginMode
    position: PositionSide
    settlement_asset: str
    charged_asset: str
    closed_size: Number
    realised_pnl: Number
    rounding: Number
    position_size: Number
    position_cost: Number
    position_leverage: Number | None = None
    funding_index: Number
    # Into the isolated pool (+) from the cross pool, or back (-).
    isolated_margin: Number
    flags: list[FillFlag]


class FundingItem(_Frozen):
    """Accrued funding of one position: `payment` to the pool (paid rounded up, received down), the rest to rounding."""

    instrument: str
    margin_mode: MarginMode
    position_side: PositionSide
    asset: str
    index: Number
    payment: Number
    rounding: Number


class FundingSettled(Event):
    """Accrued funding of the account's positions was paid or received, before its next event."""

    TOPIC = "clearing.funding-settled:1"

    account: str
    items: list[FundingItem]


class InterestItem(_Frozen):
    """Accrued interest of one balance: rate x seconds since it was last settled, and what that comes to (ACT/365)."""

    pool: str
    asset: str
    balance: Number
    rate_seconds: Number
    payment: Number
    rounding: Number


class InterestSettled(Event):
    """Accrued interest of the account's balances was paid or received, before its next event."""

    TOPIC = "clearing.interest-settled:1"

    account: str
    items: list[InterestItem]


class PositionSettled(Event):
    """A position settled at its market's settlement price: profit paid, and the position closed at the contract's end.

    Postings as of a fill that closes: pool + realised_pnl, house the opposite, the remainder to house:rounding;
    `isolated_margin` is what an isolated pool gives back to the cross pool (negative).
    """

    TOPIC = "clearing.position-settled:1"

    account: str
    instrument: str
    kind: SettlementKind
    price: Number
    mode: MarginMode
    position: PositionSide
    settlement_asset: str
    settled_size: Number
    realised_pnl: Number
    rounding: Number
    position_size: Number
    position_cost: Number
    isolated_margin: Number


# --- account decisions -------------------------------------------------------------------------------------------


class MarginWarned(Event):
    """The pool's margin ratio fell below the warning line."""

    TOPIC = "clearing.margin-warned:1"

    account: str
    pool: str
    warning_level: Number
    evidence: Evidence


class WarningEnded(Event):
    """The pool's margin ratio rose above the warning line and its hysteresis."""

    TOPIC = "clearing.warning-ended:1"

    account: str
    pool: str
    evidence: Evidence


class MarginCallIssued(Event):
    """The pool's margin ratio fell below the call line: a demand with a deadline."""

    TOPIC = "clearing.margin-call-issued:1"

    account: str
    pool: str
    call_id: str
    deadline: Time
    call_asset: str
    call_amount: Number | None = None
    eligible: dict[str, Number]
    call_level: Number
    cure_level: Number
    consequence: str
    message: str
    evidence: Evidence


class _CallEnded(Event):
    account: str
    pool: str
    call_id: str
    evidence: Evidence


class MarginCallMet(_CallEnded):
    """A record of the account restored the cure level."""

    TOPIC = "clearing.margin-call-met:1"


class MarginCallWithdrawn(_CallEnded):
    """The market restored the cure level."""

    TOPIC = "clearing.margin-call-withdrawn:1"


class MarginCallExpired(_CallEnded):
    """The deadline passed unmet: the pool is liquidated up to the stop line."""

    TOPIC = "clearing.margin-call-expired:1"


class MarginCallSuperseded(_CallEnded):
    """The margin ratio fell below the liquidation line before the deadline."""

    TOPIC = "clearing.margin-call-superseded:1"


class LiquidationStarted(Event):
    """The pool is being closed out until it stands at the stop line."""

    TOPIC = "clearing.liquidation-started:1"

    account: str
    pool: str
    liquidation_id: str
    reason: Literal["below-liquidation-line", "call-expired", "negative-equity"]
    stop_level: Number
    evidence: Evidence


class LiquidationOrderPlaced(Event):
    """An order to close a position, no worse than `limit_price`: at which the pool's equity is shared out exactly."""

    TOPIC = "clearing.liquidation-order-placed:1"

    account: str
    pool: str
    liquidation_id: str
    order_id: str
    instrument: str
    position_side: PositionSide
    side: Side
    size: Number
    limit_price: Number
    expires_at: Time
    evidence: Evidence


class LiquidationOrderCancelled(Event):
    """An order is open no more: `expired`, `recovered`, `repriced` (another follows) or `position-changed`."""

    TOPIC = "clearing.liquidation-order-cancelled:1"

    account: str
    pool: str
    liquidation_id: str
    order_id: str
    reason: Literal["expired", "recovered", "repriced", "position-changed"]
    filled: Number


class CollateralConverted(Event):
    """Collateral sold to the house for an asset owed, at mark less the conversion fee."""

    TOPIC = "clearing.collateral-converted:1"

    account: str
    pool: str
    liquidation_id: str
    sold_asset: str
    sold_amount: Number
    bought_asset: str
    bought_amount: Number
    price: Number
    fee_rate: Number
    evidence: Evidence


class ShortfallClaimed(Event):
    """A loss beyond the pool's whole equity leaves the account. Postings: pool +, shortfall -."""

    TOPIC = "clearing.shortfall-claimed:1"

    account: str
    pool: str
    liquidation_id: str
    claim_id: str
    asset: str
    amount: Number
    recourse: Literal["limited", "full"]
    evidence: Evidence


class ShortfallClaimReceived(Event):
    """The house's ledger took note of an account shard's claim; what its fund draws follows."""

    TOPIC = "clearing.shortfall-claim-received:1"
    ANSWERS = "shortfall-claim"

    account: str
    claim_id: str
    asset: str
    amount: Number


class ShortfallAnswered(Event):
    """The house answered a claim of this shard. `ShortfallCovered`, which follows, carries the postings."""

    TOPIC = "clearing.shortfall-answered:1"
    ANSWERS = "shortfall-answer"

    account: str
    claim_id: str
    asset: str
    claimed: Number
    fund: FundName
    covered: Number


class ShortfallCovered(Event):
    """What the funds paid of a claim. Postings: shortfall +, fund -; `uncovered` stays open in `shortfall`."""

    TOPIC = "clearing.shortfall-covered:1"

    account: str
    claim_id: str
    asset: str
    claimed: Number
    fund: FundName
    covered: Number
    uncovered: Number


class LiquidationCompleted(Event):
    """The liquidation ended: `recovered` above the stop line, `closed` with nothing owed, or with a `shortfall`."""

    TOPIC = "clearing.liquidation-completed:1"

    account: str
    pool: str
    liquidation_id: str
    outcome: Literal["recovered", "closed", "shortfall"]
    evidence: Evidence


# --- funds -------------------------------------------------------------------------------------------------------


class FundMoved(Event):
    """Money into or out of a fund. Postings: fund +/-, custody -/+."""

    TOPIC = "clearing.fund-moved:1"
    ANSWERS = "fund-movement"

    fund: FundName
    asset: str
    amount: Number
    kind: FundMovementKind
    contributor: str | None = None
    before: Number
    after: Number


class FundMovementRefused(Event):
    """A withdrawal beyond what the fund holds."""

    TOPIC = "clearing.fund-movement-refused:1"
    ANSWERS = "fund-movement"

    fund: FundName
    asset: str
    amount: Number
    kind: FundMovementKind
    contributor: str | None = None
    available: Number
    message: str


class FundDrawn(Event):
    """The fund's side of a covered shortfall: a reference with before and after; the account's event posts it."""

    TOPIC = "clearing.fund-drawn:1"

    fund: FundName
    asset: str
    account: str
    claim_id: str
    claimed: Number
    amount: Number
    before: Number
    after: Number


EVENTS: tuple[type[Event], ...] = (
    RecordRejected, ClockMoved, RulebookPublished, AssetListed, InterestRateSet, InstrumentListed, PriceRecorded,
    PriceRejected, ProvisionalMarkSet, FundingIndexMoved, MarketSettled, Halted, Resumed, AccountOpened,
    AccountSettingsChanged, TradingSettingsChanged, Deposited, DepositReversed, Withdrawn, WithdrawalRefused,
    WithdrawalHeld, WithdrawalSettled, WithdrawalCancelled, TransferSent, TransferReceived, TransferRefused,
    IsolatedMarginMoved, IsolatedMarginRefused, OrderReserved, LiquidationResultRecorded, FillPosted, FundingSettled,
    InterestSettled, PositionSettled, MarginWarned, WarningEnded, MarginCallIssued, MarginCallMet,
    MarginCallWithdrawn, MarginCallExpired, MarginCallSuperseded, LiquidationStarted, LiquidationOrderPlaced,
    LiquidationOrderCancelled, CollateralConverted, ShortfallClaimed, ShortfallCovered, LiquidationCompleted,
    FundMoved, FundMovementRefused, FundDrawn, TransferArrived, TransferTurnedAway, TransferReturned,
    ShortfallClaimReceived, ShortfallAnswered)
TOPICS: dict[str, type[Event]] = {event.TOPIC: event for event in EVENTS}

# Topics of the past -> how their JSON object becomes that of the next version. Empty until an event changes.
UPCASTS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {}

class Recorded:
    """An event where it stands in the log: position, stream and version in that stream."""

    __slots__ = ("event", "originator_id", "originator_version", "position")

    def __init__(self, position: int, stream: str, version: int, event: Event) -> None:
        self.position, self.originator_id, self.originator_version, self.event = position, stream, version, event
