"""The read model of the funds: what each holds, every movement of it, and the losses that they were asked to bear.

A draw is told twice in the log: the account's `ShortfallCovered` carries the postings, the fund's `FundDrawn` the
balance before and after. Balances here follow the fund's own events. This file never posts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from ledger.amounts import ZERO, Time, plain, rfc3339
from ledger.errors import BrokenInvariant
from ledger.events import Event, FundDrawn, FundMoved, Recorded, ShortfallClaimed, ShortfallCovered
from ledger.postings import postings
from projections.database import Connection
from projections.tables import Postings, ReadModel, Step, Table

DRAW: Final = "draw"


@dataclass(slots=True)
class FundRow:
    """What a fund holds of an asset, and how it came to it."""

    fund: str
    asset: str
    balance: Decimal
    contributed: Decimal
    withdrawn: Decimal
    drawn: Decimal
    recovered: Decimal


class FundMovementLine(NamedTuple):
    """A movement of a fund; `amount` is signed, `kind` is that of the record or `draw`."""

    position: int
    time: str
    fund: str
    asset: str
    kind: str
    amount: str
    before: str
    after: str
    account: str | None
    claim_id: str | None
    contributor: str | None


@dataclass(slots=True)
class ShortfallRow:
    """A loss beyond the whole equity of a pool, and how much of it the funds have covered.

    `recourse`: with `full` the account still owes it, with `limited` it does not.
    """

    claim_id: str
    account: str
    pool: str
    asset: str
    amount: Decimal
    covered: Decimal
    uncovered: Decimal
    time: Time
    position: int
    recourse: str


FUNDS: Final = Table("view_funds", FundRow, key=("fund", "asset"))
FUND_MOVEMENTS: Final = Table("view_fund_movements", FundMovementLine, key=("position",))
SHORTFALLS: Final = Table("view_shortfalls", ShortfallRow, key=("claim_id",))


class Funds(ReadModel):
    """Folds the funds' events and the claims on them into the three tables of this file."""

    NAME = "funds"
    SHAPES = (FUNDS, FUND_MOVEMENTS, SHORTFALLS)

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        super().__init__(connection, postings)
        self._funds = self.rows(FUNDS)
        self._movements = self.lines(FUND_MOVEMENTS)
        self._shortfalls = self.rows(SHORTFALLS)

    def steps(self) -> Mapping[type[Event], Step]:
        """Movements and draws of the funds; claims and their cover."""
        return {FundMoved: self._moved, FundDrawn: self._drawn, ShortfallClaimed: self._claimed,
                ShortfallCovered: self._covered}

    def _moved(self, recorded: Recorded, event: FundMoved) -> None:
        fund = self._fund(recorded, event)
        match event.kind:
            case "contribution":
                fund.contributed += event.amount
            case "recovery":
                fund.recovered += event.amount
            case "withdrawal":
                fund.withdrawn += event.amount
        amount = -event.amount if event.kind == "withdrawal" else event.amount
        self._movements.append((
            recorded.position, rfc3339(event.time), event.fund, event.asset, event.kind, plain(amount),
            plain(event.before), plain(event.after), None, None, event.contributor))

    def _drawn(self, recorded: Recorded, event: FundDrawn) -> None:
        self._fund(recorded, event).drawn += event.amount
        self._movements.append((
            recorded.position, rfc3339(event.time), event.fund, event.asset, DRAW, plain(-event.amount),
            plain(event.before), plain(event.after), event.account, event.claim_id, None))

    def _fund(self, recorded: Recorded, event: FundMoved | FundDrawn) -> FundRow:
        """The fund's row, brought from the balance before to that after."""
        key = (event.fund, event.asset)
        fund = self._funds.find(key)
        if fund is None:
            fund = self._funds.add(key, FundRow(*key, ZERO, ZERO, ZERO, ZERO, ZERO))
        if event.before != fund.balance:
            raise BrokenInvariant(
                f"log position {recorded.position}: fund {event.fund} held {plain(fund.balance)} {event.asset}, "
                f"its event says {plain(event.before)}")
        fund.balance = event.after
        self._funds.change(key, fund)
        return fund

    def _claimed(self, recorded: Recorded, event: ShortfallClaimed) -> None:
        key = (event.claim_id,)
        if self._shortfalls.find(key) is not None:
            raise BrokenInvariant(f"log position {recorded.position}: shortfall {event.claim_id} is claimed twice")
        self._shortfalls.add(key, ShortfallRow(
            claim_id=event.claim_id, account=event.account, pool=event.pool, asset=event.asset, amount=event.amount,
            covered=ZERO, uncovered=event.amount, time=event.time, position=recorded.position,
            recourse=event.recourse))

    def _covered(self, recorded: Recorded, event: ShortfallCovered) -> None:
        key = (event.claim_id,)
        shortfall = self._shortfalls.find(key)
        if shortfall is None:
            raise BrokenInvariant(f"log position {recorded.position}: shortfall {event.claim_id} was never claimed")
        shortfall.covered += event.covered
        shortfall.uncovered = shortfall.amount - shortfall.covered
        self._shortfalls.change(key, shortfall)
