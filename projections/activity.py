"""The read model of what happened to an account: fills, movements of its collateral, and what it was charged.

Fills and movements are lines, one an event; a movement says what its record asked for and whether it was refused.
Charges are totals of fees, funding and interest by where they fell. This file never says how a pool stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from ledger.amounts import ZERO, Time, plain, rfc3339
from ledger.events import (
    CollateralConverted,
    Deposited,
    DepositReversed,
    Event,
    FillPosted,
    FundingSettled,
    InterestSettled,
    IsolatedMarginMoved,
    IsolatedMarginRefused,
    PositionSettled,
    Recorded,
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
from ledger.postings import CROSS, pool_name, postings
from projections.database import Connection
from projections.tables import Postings, ReadModel, Step, Table

FEE: Final = "fee"
FUNDING: Final = "funding"
INTEREST: Final = "interest"
DONE: Final = "done"
HELD: Final = "held"
REFUSED: Final = "refused"


class FillLine(NamedTuple):
    """One side of a trade; PnL in the settlement asset, the fee in its own, flags apart by blanks."""

    position: int
    time: str
    account: str
    trade_id: str
    instrument: str
    side: str
    size: str
    price: str
    margin_mode: str
    position_side: str
    closed_size: str
    realised_pnl: str
    settlement_asset: str
    fee: str
    fee_asset: str
    position_size: str
    liquidity: str | None
    order_id: str | None
    liquidation_order_id: str | None
    flags: str


class SettlementLine(NamedTuple):
    """A position that settled at its market's settlement price, in its settlement asset."""

    position: int
    time: str
    account: str
    instrument: str
    kind: str
    price: str
    margin_mode: str
    position_side: str
    settled_size: str
    realised_pnl: str
    settlement_asset: str
    position_size: str


class MovementLine(NamedTuple):
    """A movement of collateral; `amount` is signed as the account has it.

    `kind`: deposit, deposit-reversed, withdrawal, withdrawal-held, withdrawal-settled (moves nothing of the account's
    any more), withdrawal-cancelled, transfer-sent, transfer-received,
    transfer-returned (another shard turned it away), isolated-margin (into the pool from the cross
    pool, or back; where it was refused, the asset is not told), conversion. `counterpart` is the other account, pool
    or asset; `reference` the id of the transfer, of the withdrawal held, of the deposit undone, or of the liquidation.
    """

    position: int
    line: int
    time: str
    account: str
    pool: str
    kind: str
    outcome: str
    asset: str | None
    amount: str
    counterpart: str | None
    reference: str | None
    reason: str | None


@dataclass(slots=True)
class ChargeRow:
    """Fees, funding or interest of an account: `place` is the instrument that they fell on, of interest the pool.

    `paid` and `received` are not negative; `net` is what the account has of it, below zero where it paid.
    """

    account: str
    kind: str
    place: str
    asset: str
    paid: Decimal
    received: Decimal
    net: Decimal
    times: int
    last_at: Time


FILLS: Final = Table("view_fills", FillLine, key=("position",))
SETTLEMENTS: Final = Table("view_settlements", SettlementLine, key=("position",))
MOVEMENTS: Final = Table("view_movements", MovementLine, key=("position", "line"))
CHARGES: Final = Table("view_charges", ChargeRow, key=("account", "kind", "place", "asset"))


class Activity(ReadModel):
    """Folds fills, settlements, movements of collateral and charges into the tables of this file."""

    NAME = "activity"
    SHAPES = (FILLS, SETTLEMENTS, MOVEMENTS, CHARGES)

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        super().__init__(connection, postings)
        self._fills = self.lines(FILLS)
        self._settlements = self.lines(SETTLEMENTS)
        self._movements = self.lines(MOVEMENTS)
        self._charges = self.rows(CHARGES)

    def steps(self) -> Mapping[type[Event], Step]:
        """Whatever moves collateral by a record, trades, or charges."""
        return {
            FillPosted: self._filled, PositionSettled: self._settled, FundingSettled: self._funding,
            InterestSettled: self._interest, CollateralConverted: self._converted,
            Deposited: lambda recorded, event: self._move(recorded, "deposit", event.amount),
            DepositReversed: lambda recorded, event: self._move(
                recorded, "deposit-reversed", -event.amount, reference=event.reverses),
            Withdrawn: lambda recorded, event: self._move(recorded, "withdrawal", -event.amount),
            WithdrawalHeld: lambda recorded, event: self._move(
                recorded, "withdrawal-held", -event.amount, outcome=HELD, reference=event.withdrawal),
            WithdrawalSettled: lambda recorded, event: self._move(
                recorded, "withdrawal-settled", ZERO, reference=event.withdrawal),
            WithdrawalCancelled: lambda recorded, event: self._move(
                recorded, "withdrawal-cancelled", event.amount, reference=event.withdrawal),
            TransferSent: lambda recorded, event: self._move(
                recorded, "transfer-sent", -event.amount, counterpart=event.to_account, reference=event.transfer_id),
            TransferReceived: lambda recorded, event: self._move(
                recorded, "transfer-received", event.amount, counterpart=event.from_account,
                reference=event.transfer_id),
            TransferReturned: lambda recorded, event: self._move(
                recorded, "transfer-returned", event.amount, counterpart=event.to_account,
                reference=event.transfer_id),
            WithdrawalRefused: lambda recorded, event: self._move(
                recorded, "withdrawal-held" if event.hold else "withdrawal", -event.amount, outcome=REFUSED),
            TransferRefused: lambda recorded, event: self._move(
                recorded, "transfer-sent", -event.amount, outcome=REFUSED, counterpart=event.to_account,
                reference=event.cause.id),
            IsolatedMarginMoved: self._isolated, IsolatedMarginRefused: self._isolated_refused}

    def _filled(self, recorded: Recorded, event: FillPosted) -> None:
        self._fills.append((
            recorded.position, rfc3339(event.time), event.account, event.trade_id, event.instrument, event.side,
            plain(event.size), plain(event.price), event.mode, event.position, plain(event.closed_size),
            plain(event.realised_pnl), event.settlement_asset, plain(event.fee), event.charged_asset,
            plain(event.position_size), event.liquidity, event.order_id, event.liquidation_order_id,
            " ".join(event.flags)))
        if event.fee:
            self._charge(event, FEE, event.instrument, event.charged_asset, -event.fee)

    def _settled(self, recorded: Recorded, event: PositionSettled) -> None:
        self._settlements.append((
            recorded.position, rfc3339(event.time), event.account, event.instrument, event.kind, plain(event.price),
            event.mode, event.position, plain(event.settled_size), plain(event.realised_pnl), event.settlement_asset,
            plain(event.position_size)))

    def _funding(self, recorded: Recorded, event: FundingSettled) -> None:
        for item in event.items:
            self._charge(event, FUNDING, item.instrument, item.asset, item.payment)

    def _interest(self, recorded: Recorded, event: InterestSettled) -> None:
        for item in event.items:
            self._charge(event, INTEREST, item.pool, item.asset, item.payment)

    def _converted(self, recorded: Recorded, event: CollateralConverted) -> None:
        sold, bought = event.sold_asset, event.bought_asset
        self._line(recorded, "conversion", -event.sold_amount, sold, pool=event.pool, counterpart=bought,
                   reference=event.liquidation_id)
        self._line(recorded, "conversion", event.bought_amount, bought, pool=event.pool, counterpart=sold,
                   reference=event.liquidation_id, line=2)

    def _isolated(self, recorded: Recorded, event: IsolatedMarginMoved) -> None:
        self._move(recorded, "isolated-margin", event.amount, counterpart=CROSS,
                   pool=pool_name(event.instrument, "isolated", event.position))

    def _isolated_refused(self, recorded: Recorded, event: IsolatedMarginRefused) -> None:
        # The event names neither the settlement asset nor, where the record did not, the side.
        side = f":{event.position_side}" if event.position_side else ""
        self._line(recorded, "isolated-margin", event.amount, None, outcome=REFUSED, counterpart=CROSS,
                   pool=f"isolated:{event.instrument}{side}")

    def _move(self, recorded: Recorded, kind: str, amount: Decimal, **fields: Any) -> None:
        event: Any = recorded.event
        self._line(recorded, kind, amount, event.asset, **fields)

    def _line(self, recorded: Recorded, kind: str, amount: Decimal, asset: str | None, *, outcome: str = DONE,
              pool: str = CROSS, counterpart: str | None = None, reference: str | None = None, line: int = 1) -> None:
        event: Any = recorded.event
        reason = event.reason if outcome == REFUSED else None
        self._movements.append((
            recorded.position, line, rfc3339(event.time), event.account, pool, kind, outcome, asset, plain(amount),
            counterpart, reference, reason))

    def _charge(self, event: Any, kind: str, place: str, asset: str, amount: Decimal) -> None:
        key = (event.account, kind, place, asset)
        row = self._charges.find(key)
        if row is None:
            row = self._charges.add(key, ChargeRow(*key, ZERO, ZERO, ZERO, 0, event.time))
        else:
            self._charges.change(key, row)
        if amount < 0:
            row.paid -= amount
        else:
            row.received += amount
        row.net += amount
        row.times += 1
        row.last_at = event.time
