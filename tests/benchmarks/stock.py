"""The peer: a plain eventsourcing 9.5 application on a SQLite file, written as the library's documentation does.

An Account aggregate (deposits, withdrawals, fills that change balances and positions), a Market aggregate (marks,
funding), a Fund and a Clock; aggregate cache and snapshots on, records parsed with json.loads, one save a record. It
does less than the ledger: no margin, no calls, no inbox, no Merkle log. It never touches the ledger's code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate, event

SNAPSHOT_EACH: Final = 100
# The setup saves so many aggregates at once; it is not measured.
SETUP_SAVE: Final = 500
ZERO: Final = Decimal(0)
Records = Iterable[bytes]


class Account(Aggregate):
    """Balances by asset; sizes and costs by instrument."""

    @event("Opened")
    def __init__(self, name: str) -> None:
        self.name = name
        self.balances: dict[str, Decimal] = {}
        self.sizes: dict[str, Decimal] = {}
        self.costs: dict[str, Decimal] = {}

    @staticmethod
    def create_id(name: str) -> UUID:
        return uuid5(NAMESPACE_URL, f"account:{name}")

    @event("Deposited")
    def deposit(self, record_id: str, time: str, asset: str, amount: Decimal) -> None:
        self.balances[asset] = self.balances.get(asset, ZERO) + amount

    @event("Withdrawn")
    def withdraw(self, record_id: str, time: str, asset: str, amount: Decimal) -> None:
        self.balances[asset] = self.balances.get(asset, ZERO) - amount

    @event("Filled")
    def fill(self, record_id: str, time: str, trade_id: str, instrument: str, side: str, size: Decimal,
             price: Decimal, fee: Decimal, liquidity: str) -> None:
        signed = size if side == "buy" else -size
        held, cost = self.sizes.get(instrument, ZERO), self.costs.get(instrument, ZERO)
        if held and (held > 0) != (signed > 0):
            closed = -signed if abs(signed) <= abs(held) else held
            part = cost * closed / held
            self.balances["USD"] = self.balances.get("USD", ZERO) + closed * price - part
            cost, opened = cost - part, signed + closed
        else:
            opened = signed
        self.balances["USD"] = self.balances.get("USD", ZERO) - fee
        self.sizes[instrument] = held + signed
        self.costs[instrument] = cost + opened * price


class Market(Aggregate):
    """The mark and the funding index of an instrument."""

    @event("Listed")
    def __init__(self, name: str) -> None:
        self.name = name
        self.mark_price = ZERO
        self.sequence = 0
        self.funding_index = ZERO

    @staticmethod
    def create_id(name: str) -> UUID:
        return uuid5(NAMESPACE_URL, f"market:{name}")

    @event("Marked")
    def mark(self, time: str, price: Decimal, source: str, sequence: int) -> None:
        self.mark_price, self.sequence = price, sequence

    @event("Funded")
    def fund(self, record_id: str, time: str, rate: Decimal) -> None:
        self.funding_index += rate * self.mark_price


class Fund(Aggregate):
    """Money of a fund, by asset."""

    @event("Founded")
    def __init__(self, name: str) -> None:
        self.name = name
        self.balances: dict[str, Decimal] = {}

    @staticmethod
    def create_id(name: str) -> UUID:
        return uuid5(NAMESPACE_URL, f"fund:{name}")

    @event("Moved")
    def move(self, record_id: str, time: str, asset: str, amount: Decimal) -> None:
        self.balances[asset] = self.balances.get(asset, ZERO) + amount


class Clock(Aggregate):
    """Log time."""

    @event("Started")
    def __init__(self) -> None:
        self.time = ""

    @staticmethod
    def create_id() -> UUID:
        return uuid5(NAMESPACE_URL, "clock")

    @event("Ticked")
    def tick(self, record_id: str, time: str) -> None:
        self.time = time


class StockApplication(Application[UUID]):
    """One save a record; or, for a batch, one save of all aggregates that the batch touched."""

    snapshotting_intervals: ClassVar[dict[Any, int]] = dict.fromkeys((Account, Market, Fund, Clock), SNAPSHOT_EACH)

    def ingest(self, records: Records) -> None:
        """Parse, apply and save record by record."""
        for raw in records:
            self.save(self._applied(json.loads(raw), {}))

    def ingest_batches(self, records: Sequence[bytes], batch_size: int) -> None:
        """Parse and apply record by record, save batch by batch."""
        for start in range(0, len(records), batch_size):
            touched: dict[UUID, Any] = {}
            for raw in records[start:start + batch_size]:
                self._applied(json.loads(raw), touched)
            self.save(*touched.values())

    def set_up(self, records: Records) -> None:
        """Apply records and save all aggregates at the end, many at once."""
        touched: dict[UUID, Any] = {Clock.create_id(): Clock(), Fund.create_id("insurance"): Fund("insurance")}
        for raw in records:
            self._applied(json.loads(raw), touched, new=True)
        found = list(touched.values())
        for start in range(0, len(found), SETUP_SAVE):
            self.save(*found[start:start + SETUP_SAVE])

    def _applied(self, record: dict[str, Any], touched: dict[UUID, Any], *, new: bool = False) -> Any:
        """The aggregate of a record, the record applied to it."""
        kind = record["type"]
        match kind:
            case "account":
                made: Any = Account(record["account"])
                touched[made.id] = made
                return made
            case "instrument":
                made = Market(record["instrument"])
                touched[made.id] = made
                return made
            case "asset":
                return None
            case "price" | "funding":
                identity = Market.create_id(record["instrument"])
            case "fund-movement":
                identity = Fund.create_id(record["fund"])
            case "clock":
                identity = Clock.create_id()
            case _:
                identity = Account.create_id(record["account"])
        found = touched.get(identity)
        if found is None:
            if new:
                raise AggregateNotFoundError(identity)
            found = touched[identity] = self.repository.get(identity)
        _apply(found, kind, record)
        return found


def _apply(found: Any, kind: str, record: dict[str, Any]) -> None:
    time = record["time"]
    match kind:
        case "fill":
            found.fill(record["id"], time, record["trade_id"], record["instrument"], record["side"],
                       Decimal(record["size"]), Decimal(record["price"]), Decimal(record["fee"]), record["liquidity"])
        case "price":
            found.mark(time, Decimal(record["price"]), record["source"], record["sequence"])
        case "deposit":
            found.deposit(record["id"], time, record["asset"], Decimal(record["amount"]))
        case "withdrawal":
            found.withdraw(record["id"], time, record["asset"], Decimal(record["amount"]))
        case "funding":
            found.fund(record["id"], time, Decimal(record["rate"]))
        case "fund-movement":
            found.move(record["id"], time, record["asset"], Decimal(record["amount"]))
        case "clock":
            found.tick(record["id"], time)


@contextmanager
def stock_application(path: Path, accounts: int) -> Iterator[StockApplication]:
    """The application over a file; the cache holds every aggregate, and skips look-ups since there is one writer."""
    application = StockApplication({
        "PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": f"file:{quote(str(path))}",
        "AGGREGATE_CACHE_MAXSIZE": str(2 * accounts + 1_000), "AGGREGATE_CACHE_FASTFORWARD": "n"})
    try:
        yield application
    finally:
        application.close()
