"""All that can be asked of the ledger: one frozen model a record type, as contracts section 1 fixes them.

A command is a record that has been read and found well formed; whether it can be applied is decided by the
aggregates. Unknown fields are ignored, known ones are strict. This file never looks at state.
"""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import ONE, Factor, Time, WireAmount, WirePositive, WirePrice

# 1-200 code points, no control characters; never normalised (semantics section 1).
Id = Annotated[str, StringConstraints(pattern=r"^[^\p{Cc}]{1,200}$", strict=True)]

MarginMode = Literal["cross", "isolated"]
PositionMode = Literal["net", "hedge"]
PositionSide = Literal["net", "long", "short"]
Side = Literal["buy", "sell"]
AccountKind = Literal["client", "house", "liquidity-provider", "external-venue"]
PriceKind = Literal["mark", "index", "last", "settlement"]
FundName = Literal["insurance", "default", "house"]
FundMovementKind = Literal["contribution", "withdrawal", "recovery"]
OrderResult = Literal["filled", "expired", "cancelled", "rejected"]
SettlementKind = Literal["daily", "expiry", "delisting"]
HaltedWhat = Literal["liquidations", "new-risk", "withdrawals"]


class Command(BaseModel):
    """What every record has: an identity within its source, and a time."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    TYPE: ClassVar[str]
    # Records of these types move log time; prices and funding move only their market's (semantics section 2).
    MOVES_LOG_TIME: ClassVar[bool] = True

    id: Id
    time: Time
    replay_of: Id | None = None

    def facts(self) -> dict[str, Any]:
        """The known fields as values, without identity: what a repeat of the record is compared by."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ("id", "replay_of")}


class PublishRulebook(Command):
    """`rulebook`: a whole rulebook, or the name of a shipped one, in force from `effective`."""

    TYPE = "rulebook"
    rulebook: Id | dict[str, Any]
    effective: Time | None = None

    def facts(self) -> dict[str, Any]:
        """As of every record; a whole rulebook that reads is compared by what it says, `1.50` as `1.5`."""
        from ledger.errors import Rejected
        from ledger.rulebook import read_rulebook  # which needs this file

        facts = super().facts()
        if isinstance(self.rulebook, dict):
            with suppress(Rejected):  # one that does not read is compared as it came
                facts["rulebook"] = read_rulebook(self.rulebook)
        return facts


class ListAsset(Command):
    """`asset`: a unit of account, its smallest amount, and the instrument whose mark values it."""

    TYPE = "asset"
    asset: Id
    quantum: WirePositive
    pricing_instrument: Id | None = None


class ListInstrument(Command):
    """`instrument`: a contract that can be traded and margined."""

    TYPE = "instrument"
    instrument: Id
    base: Id
    quote: Id
    contract_type: Literal["linear", "inverse", "spot", "option"]
    contract_size: WirePositive = ONE
    tick_size: WirePositive
    lot_size: WirePositive
    underlying: Id | None = None
    expiry: Time | None = None


class OpenAccount(Command):
    """`account`: opens a clearing account, or changes what may change of one."""

    TYPE = "account"
    account: Id
    margin_mode: MarginMode
    position_mode: PositionMode = "net"
    kind: AccountKind = "client"
    member: Id | None = None
    rulebook: Id | None = None


class ChangeSettings(Command):
    """`account-settings`: leverage and modes, of one instrument or of all."""

    TYPE = "account-settings"
    account: Id
    instrument: Id | None = None
    leverage: WirePositive | None = None
    margin_mode: MarginMode | None = None
    position_mode: PositionMode | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> ChangeSettings:
        if self.leverage is None and self.margin_mode is None and self.position_mode is None:
            raise PydanticCustomError("settings", "expected a leverage, margin_mode or position_mode, came none", {})
        if self.position_mode is not None and self.instrument is not None:
            raise PydanticCustomError("settings", "expected no instrument with a position_mode, which is the account's",
                                      {})
        return self


class Deposit(Command):
    """`deposit`: collateral came in."""

    TYPE = "deposit"
    account: Id
    asset: Id
    amount: WirePositive
    reverses: Id | None = None


class Withdraw(Command):
    """`withdrawal`: a wish to take collateral out; refused beyond what is withdrawable."""

    TYPE = "withdrawal"
    account: Id
    asset: Id
    amount: WirePositive
    hold: Annotated[bool, Field(strict=True)] = False


class SettleWithdrawal(Command):
    """`withdrawal-settled`: what a withdrawal with `hold` reserved has gone out."""

    TYPE = "withdrawal-settled"
    account: Id
    withdrawal: Id


class CancelWithdrawal(Command):
    """`withdrawal-cancelled`: what a withdrawal with `hold` reserved is free again."""

    TYPE = "withdrawal-cancelled"
    account: Id
    withdrawal: Id


class MoveIsolatedMargin(Command):
    """`isolated-margin`: a wish to move margin into (+) or out of (-) an isolated position."""

    TYPE = "isolated-margin"
    account: Id
    instrument: Id
    amount: WireAmount
    # Which of two, where a hedge account holds both sides isolated.
    position_side: PositionSide | None = None

    @model_validator(mode="after")
    def _moves_something(self) -> MoveIsolatedMargin:
        if not self.amount:
            raise PydanticCustomError("amount", "expected an amount other than 0", {})
        return self


class Transfer(Command):
    """`transfer`: a wish to move collateral to another account; refused beyond what is withdrawable."""

    TYPE = "transfer"
    account: Id
    to_account: Id
    asset: Id
    amount: WirePositive

    @model_validator(mode="after")
    def _goes_elsewhere(self) -> Transfer:
        if self.to_account == self.account:
            raise PydanticCustomError("to_account", "expected another account than the sender", {})
        return self


class PlaceOrder(Command):
    """`order`: the open order as it now stands; its margin is reserved where the rulebook says so."""

    TYPE = "order"
    account: Id
    order_id: Id
    instrument: Id
    side: Side
    remaining: Factor
    price: WirePrice
    reduce_only: Annotated[bool, Field(strict=True)] = False


class PostFill(Command):
    """`fill`: one side of a trade, posted against the house. A fact: never refused for margin."""

    TYPE = "fill"
    account: Id
    trade_id: Id
    instrument: Id
    side: Side
    size: WirePositive
    price: WirePrice
    fee: WireAmount = Decimal(0)
    fee_asset: Id | None = None
    liquidity: Literal["maker", "taker"] | None = None
    order_id: Id | None = None
    liquidation_order_id: Id | None = None
    margin_mode: MarginMode | None = None
    position_side: PositionSide | None = None
    leverage: WirePositive | None = None


class RecordPrice(Command):
    """`price`: one price of one instrument from one source; with `sequence` it may go without an id."""

    TYPE = "price"
    MOVES_LOG_TIME = False
    id: Id | None = None  # type: ignore[assignment]
    instrument: Id
    price: WirePrice
    source: Id
    sequence: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = None
    kind: PriceKind = "mark"

    @model_validator(mode="after")
    def _has_identity(self) -> RecordPrice:
        if self.id is None and self.sequence is None:
            raise PydanticCustomError("identity", "expected an id or a sequence, came neither")
        return self


class MoveFunding(Command):
    """`funding`: longs pay `rate` of notional at `price` (else the mark) to shorts; one index move, whoever holds."""

    TYPE = "funding"
    MOVES_LOG_TIME = False
    instrument: Id
    rate: WireAmount
    price: WirePrice | None = None


class SetInterestRate(Command):
    """`interest-rate`: what an asset owed costs and an asset held earns, per year, from log time on."""

    TYPE = "interest-rate"
    asset: Id
    borrow_rate: WireAmount
    lend_rate: WireAmount


class SettleMarket(Command):
    """`settlement`: positions settle at a price: profit paid daily, or the contract's end."""

    TYPE = "settlement"
    MOVES_LOG_TIME = False
    instrument: Id
    price: WirePrice
    kind: SettlementKind


class ReportOrder(Command):
    """`liquidation-result`: what became of a liquidation order; its fills come as fills."""

    TYPE = "liquidation-result"
    account: Id
    liquidation_order_id: Id
    result: OrderResult


class Halt(Command):
    """`halt`: liquidations, new risk or withdrawals stop, for all, an instrument or an account."""

    TYPE = "halt"
    scope: Id
    what: HaltedWhat
    reason: Id
    by: Id


class Resume(Command):
    """`resume`: what a halt of the same scope stopped goes on."""

    TYPE = "resume"
    scope: Id
    what: HaltedWhat
    reason: Id
    by: Id


class MoveFund(Command):
    """`fund-movement`: money into or out of a fund."""

    TYPE = "fund-movement"
    fund: FundName
    asset: Id
    amount: WirePositive
    kind: FundMovementKind
    contributor: Id | None = None


class MoveClock(Command):
    """`clock`: log time moves, so that deadlines pass on a quiet stream."""

    TYPE = "clock"


COMMANDS: dict[str, type[Command]] = {
    kind.TYPE: kind
    for kind in (PublishRulebook, ListAsset, ListInstrument, OpenAccount, ChangeSettings, Deposit, Withdraw,
                 SettleWithdrawal, CancelWithdrawal, PostFill, PlaceOrder, MoveIsolatedMargin, Transfer, ReportOrder,
                 RecordPrice, MoveFunding, SetInterestRate, SettleMarket, MoveFund, Halt, Resume, MoveClock)
}
