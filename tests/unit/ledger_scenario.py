"""A ledger in memory, told record by record: what the tests of the rules are written in.

Every record goes the real way, as the bytes of one line through `infra.streams.records.read` to the shard. Each
telling returns the record's outcome; `happened` are the events that it left, `events` and `last` look back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

from infra.embedded import in_memory
from infra.shard import Outcome
from infra.streams.records import Delivered, Place, read
from infra.venue import SimulatedVenue
from ledger.account import AccountState
from ledger.amounts import exact, nanoseconds
from ledger.clearing_house import ClearingHouse
from ledger.events import Event, Recorded
from ledger.postings import CROSS
from ledger.risk.margin import PoolMargin, Status, status

DAY: Final = "2026-01-05"
HOUSE_RULEBOOK: Final = Path(__file__).parents[2] / "ledger" / "rulebooks" / "house-1.json"
SomeEvent = TypeVar("SomeEvent", bound=Event)


def moment(at: str) -> str:
    """A time of the scenario's day (`10:00:00`), or a whole time left as it is."""
    return at if "T" in at else f"{DAY}T{at}Z"


def time_of(at: str) -> int:
    """The same in nanoseconds."""
    return nanoseconds(moment(at))


def rules(name: str = "desk", version: int = 1, **changes: Any) -> dict[str, Any]:
    """The shipped house rulebook under another name, with changed parts: `thresholds={"stop": "1.25"}`."""
    content: dict[str, Any] = json.loads(HOUSE_RULEBOOK.read_text("utf-8"))
    content.update(name=name, version=version)
    for part, change in changes.items():
        content[part] = {**content.get(part, {}), **change} if isinstance(change, Mapping) else change
    return content


def tiers(*haircuts: str | tuple[str, str]) -> dict[str, Any]:
    """A collateral row: `tiers(("1000", "0.1"), "0.5")` cuts the first 1,000 of value by 10 %, the rest by half."""
    rows = [{"haircut": row} if isinstance(row, str) else {"up_to": row[0], "haircut": row[1]} for row in haircuts]
    return {"collateral": {"variant": "value-tiers:1", "tiers": rows}}


class Scenario:
    """A ledger to which records are told. `now` is the time of the next record that names none."""

    def __init__(self, *, venue: SimulatedVenue | None = None, source: str = "desk") -> None:
        self.shard = in_memory(venue=venue)
        self.source = source
        self.now = "10:00:00"
        self.line = 0
        self.log: list[Recorded] = []
        # The lines that were told, and what became of each.
        self.said: list[tuple[bytes, Outcome]] = []
        self.happened: list[Event] = []
        self.shard.listeners.append(self._listen)

    def _listen(self, recorded: Sequence[Recorded]) -> None:
        self.log.extend(recorded)

    # --- telling -------------------------------------------------------------------------------------------------

    def tell(self, record: Mapping[str, Any] | bytes, *, place: Place | None = None, latest: str | None = None) -> (
            Outcome):
        """One record, as fields or as the very bytes, on the next line of the source or at another place."""
        return self.tell_batch([record], place=place, latest=latest)[0]

    def tell_batch(self, records: Sequence[Mapping[str, Any] | bytes], *, place: Place | None = None,
                   latest: str | None = None) -> list[Outcome]:
        """Several records that are committed together."""
        batch: list[Delivered] = []
        lines: list[bytes] = []
        for record in records:
            self.line += 1
            raw = record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()
            lines.append(raw)
            stood = place or Place(self.source, None, None, self.line)
            batch.append(read(stood, raw, latest=None if latest is None else time_of(latest)))
        before = len(self.log)
        outcomes = self.shard.apply(batch)
        self.said += zip(lines, outcomes, strict=True)
        self.happened = [recorded.event for recorded in self.log[before:]]
        # Conservation is everybody's rule (semantics 5), so that no test passes without it.
        assert self.shard.is_balanced(), self.house.house.imbalances()
        return outcomes

    def record(self, kind: str, /, *, at: str | None = None, id: str | None = None, **fields: Any) -> dict[str, Any]:
        """The fields of a record; without `id` one of its own, without `at` the scenario's time."""
        if at is not None:
            self.now = at
        named = f"{kind}-{self.line + 1}" if id is None and fields.get("sequence") is None else id
        written = {"type": kind, "id": named, "time": moment(self.now), **fields}
        return {name: value for name, value in written.items() if value is not None}

    def send(self, kind: str, /, **fields: Any) -> Outcome:
        """A record of any type."""
        return self.tell(self.record(kind, **fields))

    def asset(self, asset: str, *, quantum: str = "0.01", priced_by: str | None = None, **fields: Any) -> Outcome:
        """List an asset."""
        return self.send("asset", asset=asset, quantum=quantum, pricing_instrument=priced_by, **fields)

    def instrument(self, instrument: str, *, lot: str = "0.001", tick: str = "0.01", contract_size: str | None = None,
                   **fields: Any) -> Outcome:
        """List a linear instrument, named BASE-QUOTE."""
        traded, _, quote = instrument.partition("-")
        return self.send("instrument", **{
            "instrument": instrument, "base": traded, "quote": quote, "contract_type": "linear",
            "contract_size": contract_size, "tick_size": tick, "lot_size": lot, **fields})

    def account(self, account: str, *, margin_mode: str = "cross", **fields: Any) -> Outcome:
        """Open an account, or change it."""
        return self.send("account", account=account, margin_mode=margin_mode, **fields)

    def deposit(self, account: str, asset: str, amount: str, **fields: Any) -> Outcome:
        """Collateral in."""
        return self.send("deposit", account=account, asset=asset, amount=amount, **fields)

    def withdraw(self, account: str, asset: str, amount: str, **fields: Any) -> Outcome:
        """Collateral out, if the rules let it go."""
        return self.send("withdrawal", account=account, asset=asset, amount=amount, **fields)

    def fill(self, account: str, side: str, size: str, price: str, *, instrument: str = "BTC-USD",
             **fields: Any) -> Outcome:
        """One side of a trade."""
        return self.send("fill", **{
            "account": account, "trade_id": f"trade-{self.line + 1}", "instrument": instrument, "side": side,
            "size": size, "price": price, **fields})

    def price(self, instrument: str, price: str, *, source: str = "feed", **fields: Any) -> Outcome:
        """A price, by default a mark."""
        return self.send("price", instrument=instrument, price=price, source=source, **fields)

    def funding(self, instrument: str, rate: str, **fields: Any) -> Outcome:
        """Funding of an instrument."""
        return self.send("funding", instrument=instrument, rate=rate, **fields)

    def fund(self, amount: str, *, asset: str = "USD", kind: str = "contribution", fund: str = "insurance",
             **fields: Any) -> Outcome:
        """Money into a fund, or out of it."""
        return self.send("fund-movement", fund=fund, asset=asset, amount=amount, kind=kind, **fields)

    def clock(self, at: str, **fields: Any) -> Outcome:
        """Time passes."""
        return self.send("clock", at=at, **fields)

    def rulebook(self, content: str | dict[str, Any], **fields: Any) -> Outcome:
        """Publish a rulebook."""
        return self.send("rulebook", rulebook=content, **fields)

    # --- looking back --------------------------------------------------------------------------------------------

    @property
    def house(self) -> ClearingHouse:
        """The clearing house behind the shard."""
        return self.shard.house

    @property
    def kinds(self) -> list[type[Event]]:
        """The types of the events that the last record left, in order."""
        return [type(event) for event in self.happened]

    def events(self, kind: type[SomeEvent]) -> list[SomeEvent]:
        """All events of a type, in log order."""
        return [recorded.event for recorded in self.log if isinstance(recorded.event, kind)]

    def last(self, kind: type[SomeEvent]) -> SomeEvent:
        """The latest event of a type."""
        return self.events(kind)[-1]

    def told(self, kind: type[SomeEvent]) -> SomeEvent:
        """The one event of a type that the last record left."""
        (found,) = [event for event in self.happened if isinstance(event, kind)]
        return found

    def state(self, account: str) -> AccountState:
        """An account as it stands."""
        return self.house.accounts[account]

    def margin(self, account: str, pool: str = CROSS) -> PoolMargin:
        """The exact figures of a pool."""
        with exact():
            return self.house.margin(self.state(account), pool)

    def status(self, account: str, pool: str = CROSS) -> Status:
        """Where a pool stands by its figures."""
        return status(self.margin(account, pool), self.house.rules(self.state(account)).thresholds)

    def balance(self, account: str, asset: str = "USD", pool: str = CROSS) -> Decimal:
        """A balance of an account."""
        return self.state(account).balance(pool, asset)

    def held_by(self, owner: str, asset: str = "USD") -> Decimal:
        """What stands with the house, the fees, custody, rounding, a shortfall or a fund."""
        return self.house.house.balance(owner, asset)

    def stands(self) -> tuple[Any, ...]:
        """All that records may change, as a value: for what must leave no trace."""
        house = self.house
        return (house.log_time, dict(house.accounts), dict(house.markets), dict(house.assets), dict(house.funds),
                house.rulebooks, dict(house.house.balances), dict(house.house.sizes), dict(house.open_orders))


def desk(*, venue: SimulatedVenue | None = None) -> Scenario:
    """A ledger with USD and BTC-USD at 10,000, under the shipped house rulebook.

    A position of 10 BTC has a notional of 100,000 and so, in the first bracket, an initial margin of 2 %, 2,000,
    and a maintenance margin of 1 %, 1,000.
    """
    scenario = Scenario(venue=venue)
    scenario.asset("USD")
    scenario.instrument("BTC-USD")
    scenario.price("BTC-USD", "10000")
    return scenario


def long_account(scenario: Scenario, account: str, deposit: str, *, size: str = "10", price: str = "10000",
                 **fields: Any) -> None:
    """An account that paid in USD and bought BTC."""
    scenario.account(account, **fields)
    scenario.deposit(account, "USD", deposit)
    scenario.fill(account, "buy", size, price)
