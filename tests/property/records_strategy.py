"""Streams of records that keep a small clearing house busy: Hypothesis strategies, and the player that speaks them.

A stream is a list of steps. A step is a plain value, drawn without any ledger; only when it is played does it look
at the house, so that trades are large enough to hurt, orders that are filled exist, and a deposit may cure a call to
the quantum. What was played is a list of lines, which other tests feed to other ledgers. Neighbours:
`test_ledger_machine` (laws after every event), `test_determinism` (the same lines, other ways).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

from hypothesis import strategies as st

from infra.shard import Outcome, Shard
from infra.store.commit import InboxKey
from infra.streams.records import Delivered, Place, read
from infra.venue import SimulatedVenue
from ledger import account as accounts
from ledger.account import AccountState, OpenOrder
from ledger.amounts import (
    NANOSECONDS,
    PRICE_MAX,
    PRICE_MIN,
    divide_down,
    exact,
    nanoseconds,
    plain,
    rfc3339,
    round_down,
)
from ledger.clearing_house import ClearingHouse
from ledger.nomination import Nominator
from ledger.postings import CROSS
from ledger.rulebook import shipped
from projections.audit import Row
from projections.book import Book

MAPPER: Final = "infra.store.mapper:EventMapper"
SOURCE: Final = "records.jsonl"
START: Final = nanoseconds("2019-09-24T18:00:00Z")
FINE: Final = Decimal("0.000001")
ACCOUNTS: Final = ("ann", "bob", "cy", "é-dora", "eve")
ASSETS: Final = {"USD": "0.01", "BTC": "0.00000001", "ETH": "0.0001"}
# instrument -> (base, quote, contract size, lot size, first price)
INSTRUMENTS: Final = {
    "BTC-USD": ("BTC", "USD", "1", "0.001", "10000"),
    "ETH-BTC": ("ETH", "BTC", "1", "0.01", "0.02"),
    "SOL-USD": ("SOL", "USD", "10", "1", "20"),
}
PRICED_BY: Final = {"BTC": "BTC-USD", "ETH": "ETH-BTC"}

Record = dict[str, Any]
Line = bytes


def rulebook(name: str, version: int = 1, **changed: Any) -> Record:
    """The shipped rulebook under another name, with other blocks."""
    found = shipped("house", 1)
    if found is None:
        raise LookupError("the house rulebook is shipped")
    return {**found.model_dump(mode="json", exclude_none=True), "name": name, "version": version, **changed}


# Calls that expire soon, brackets that bite at small notionals, marks that grow stale soon.
BRISK: Final = rulebook(
    "brisk", calls={"variant": "deadline:1", "deadline_seconds": 60, "asset": "USD"},
    liquidation={"variant": "full:1", "order_expiry_seconds": 20, "conversion_fee": "0.01", "recourse": "limited"},
    oracle={"variant": "last:1", "max_age_seconds": 120, "max_step": "0.25"},
    instruments={"*": {"requirement": {"variant": "brackets:1", "brackets": [
        {"floor": "0", "initial": "0.05", "maintenance": "0.025"},
        {"floor": "1", "initial": "0.06", "maintenance": "0.03"},
        {"floor": "2000", "initial": "0.1", "maintenance": "0.06"},
        {"floor": "20000", "initial": "0.2", "maintenance": "0.15"}]}}},
    assets={"*": {"collateral": {"variant": "value-tiers:1", "tiers": [
        {"up_to": "1000", "haircut": "0.05"}, {"up_to": "5000", "haircut": "0.25"}, {"haircut": "1"}]}},
            "USD": {"collateral": {"variant": "value-tiers:1", "tiers": [{"haircut": "0"}]}}})
# Equality is past the line, who loses more than there is owes it, and calls are stated in BTC.
STERN: Final = rulebook(
    "stern", thresholds={"variant": "ratio-lines:1", "warning": "2", "warning_hysteresis": "0", "call": "1.5",
                         "cure": "1.5", "liquidation": "1", "liquidation_when": "at_or_below", "stop": "1.5"},
    calls={"variant": "deadline:1", "deadline_seconds": 600, "asset": "BTC"},
    liquidation={"variant": "full:1", "order_expiry_seconds": 60, "conversion_fee": "0", "recourse": "full"})
BRISKER: Final = rulebook(
    "brisk", 2, calls={"variant": "deadline:1", "deadline_seconds": 30, "asset": "ETH"},
    liquidation={"variant": "full:1", "order_expiry_seconds": 5, "conversion_fee": "0.02", "recourse": "full"},
    oracle={"variant": "last:1", "max_age_seconds": 60, "max_step": "0.5"})
# Everything is valued in BTC, in which USD has no price: dollars count nothing, and who owes them is unpriced.
COIN: Final = rulebook("coin", valuation_asset="BTC", calls={
    "variant": "deadline:1", "deadline_seconds": 60, "asset": "BTC"})
RULEBOOKS: Final[tuple[str | Record, ...]] = ("house", BRISK, STERN, BRISKER, COIN)


# --- playing -----------------------------------------------------------------------------------------------------


def memory_ledger(nominator: Nominator, *, venue: SimulatedVenue | None = None) -> Shard:
    """An empty ledger in memory, under a nominator of the caller's choice."""
    house = ClearingHouse({"PERSISTENCE_MODULE": "infra.store.memory:Factory", "MAPPER_TOPIC": MAPPER},
                          nominator=nominator)
    shard = Shard(house, venue=venue)
    shard.open()
    return shard


def delivered(lines: Sequence[Line], *, source: str = SOURCE) -> list[Delivered]:
    """Lines as a file delivers them."""
    return [read(Place(source, line=number), raw) for number, raw in enumerate(lines, 1)]


class MemoryRows:
    """A ledger in memory as replay reads one."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard

    def log_rows(self, after: int, limit: int) -> Sequence[Row]:
        return [Row(row.id, str(row.originator_id), row.originator_version, row.topic, row.state)
                for row in self.shard.store.select_notifications(after + 1, limit)]

    def head(self) -> tuple[int, int, bytes] | None:
        head = self.shard.store.head()
        return None if head is None else (head.position, head.log_time, head.root)

    def inbox(self) -> Mapping[InboxKey, int]:
        return dict(self.shard.store.inbox())

    def source_positions(self) -> Mapping[tuple[str, int], int]:
        return {place: position.next_offset for place, position in self.shard.store.source_positions().items()}

    def leaves(self) -> bytes:
        return self.shard.store.leaves()


class Scene:
    """What a step may look at when it speaks: the house as it stands, the time, and what was said before."""

    def __init__(self, house: ClearingHouse) -> None:
        self.house = house
        self.time = START
        self.said: list[Line] = []
        self.sequences: dict[tuple[str, str], int] = {}

    def record(self, record_type: str, /, *, late: int = 0, **fields: Any) -> Record:
        """A record of this moment (or `late` seconds before it); absent fields are left out."""
        return {"type": record_type, "id": f"r{len(self.said)}", "time": rfc3339(self.time - late * NANOSECONDS),
                **{name: value for name, value in fields.items() if value is not None}}

    def account(self, index: int) -> AccountState:
        """One of the accounts that are open."""
        states = list(self.house.accounts.values())
        return states[index % len(states)]

    def mark(self, instrument: str) -> Decimal:
        """The mark, or the price that the instrument starts from."""
        market = self.house.markets.get(instrument)
        return Decimal(INSTRUMENTS[instrument][4]) if market is None or market.mark is None else market.mark

    def orders(self) -> list[tuple[AccountState, OpenOrder]]:
        """The open liquidation orders, oldest first."""
        found = []
        for order_id, (account, _) in self.house.open_orders.items():
            order = self.house.accounts[account].order(order_id)
            if order is not None:
                found.append((self.house.accounts[account], order))
        return found


class Step(Protocol):
    """One thing that happens; it says one record or more, or bytes that are none."""

    def say(self, scene: Scene) -> Record | Line | None: ...


class Stream(NamedTuple):
    """Steps, and whether the simulated venue answers liquidation orders."""

    steps: Sequence[Step]
    venue: bool


def play(stream: Stream, shard: Shard) -> Iterator[tuple[Line, Outcome]]:
    """Speak a stream to a ledger line by line, each in a batch of its own."""
    scene = Scene(shard.house)
    for step in stream.steps:
        with exact():
            said = step.say(scene)
        if said is not None:
            raw = said if isinstance(said, bytes) else json.dumps(said, ensure_ascii=False).encode()
            scene.said.append(raw)
            outcome = shard.apply([read(Place(SOURCE, line=len(scene.said)), raw)])[0]
            yield raw, outcome


def lines_of(stream: Stream) -> list[Line]:
    """The lines of a stream, as a ledger of our own would hear them."""
    return [line for line, _ in play(stream, memory_ledger(Book(), venue=SimulatedVenue() if stream.venue else None))]


# --- steps -------------------------------------------------------------------------------------------------------


class Waits(NamedTuple):
    """Time passes without a word."""

    seconds: int

    def say(self, scene: Scene) -> Record | Line | None:
        scene.time += self.seconds * NANOSECONDS
        return None


class Clock(NamedTuple):
    seconds: int

    def say(self, scene: Scene) -> Record | Line | None:
        scene.time += self.seconds * NANOSECONDS
        return scene.record("clock")


class Publishes(NamedTuple):
    rules: int
    effective_in: int | None

    def say(self, scene: Scene) -> Record | Line | None:
        effective = None if self.effective_in is None else rfc3339(scene.time + self.effective_in * NANOSECONDS)
        return scene.record("rulebook", rulebook=RULEBOOKS[self.rules], effective=effective)


class ListsAsset(NamedTuple):
    asset: str
    quantum: str
    priced: bool

    def say(self, scene: Scene) -> Record | Line | None:
        return scene.record("asset", asset=self.asset, quantum=self.quantum,
                           pricing_instrument=PRICED_BY.get(self.asset) if self.priced else None)


class ListsInstrument(NamedTuple):
    instrument: str
    contract_size: str | None = None

    def say(self, scene: Scene) -> Record | Line | None:
        base, quote, contract_size, lot_size, _ = INSTRUMENTS[self.instrument]
        return scene.record("instrument", instrument=self.instrument, base=base, quote=quote, contract_type="linear",
                           contract_size=self.contract_size or contract_size, tick_size="0.000001", lot_size=lot_size)


class Opens(NamedTuple):
    account: str
    margin_mode: str
    position_mode: str
    kind: str
    rulebook: str | None

    def say(self, scene: Scene) -> Record | Line | None:
        return scene.record("account", account=self.account, margin_mode=self.margin_mode,
                           position_mode=self.position_mode, kind=self.kind, rulebook=self.rulebook)


class Deposits(NamedTuple):
    account: int
    asset: str
    amount: str

    def say(self, scene: Scene) -> Record | Line | None:
        return scene.record("deposit", account=scene.account(self.account).account, asset=self.asset,
                           amount=self.amount)


class Withdraws(NamedTuple):
    """A part of the balance, or what is just withdrawable and `beyond` quanta more."""

    account: int
    asset: str
    part: str | None
    beyond: int
    late: int

    def say(self, scene: Scene) -> Record | Line | None:
        state = scene.account(self.account)
        balance, quantum = state.balance(CROSS, self.asset), Decimal(ASSETS[self.asset])
        if self.part is not None:
            amount = round_down(balance * Decimal(self.part), quantum)
        else:
            house = scene.house
            amount = quantum * self.beyond + accounts.withdrawable(
                balance=balance, price=house.price_of(house.rules(state))(self.asset), margin=house.margin(state),
                tiers=house.rules(state).collateral(self.asset), quantum=quantum)
        return scene.record("withdrawal", late=self.late, account=state.account, asset=self.asset,
                           amount=plain(amount if 0 < amount < 10**18 else quantum))


class Trades(NamedTuple):
    """A fill that takes the pool's margin ratio to about `ratio`, or (negative) that part of a position back.

    `ratio` is what it would be of an account without other positions, on cross margin.
    """

    account: int
    instrument: str
    side: str
    ratio: str
    off: str
    fee: str | None
    fee_asset: str | None
    margin_mode: str | None
    leverage: str | None
    order_id: str | None
    late: int
    seconds: int

    def say(self, scene: Scene) -> Record | Line | None:
        scene.time += self.seconds * NANOSECONDS
        state = scene.account(self.account)
        position_side = None if state.position_mode == "net" else "long" if self.side == "buy" else "short"
        side, ratio = self.side, Decimal(self.ratio)
        lot = Decimal(INSTRUMENTS[self.instrument][3])
        held = {key: position.size for key, position in state.positions.items() if key[0] == self.instrument}
        mode = self.margin_mode
        if ratio < 0 and held:
            key, size = next(iter(held.items()))
            mode = key[1]
            side = "sell" if size > 0 else "buy"
            position_side = None if key[2] == "net" else key[2]
            wanted = abs(size) * -ratio
        else:
            wanted = self._affordable(scene, state, abs(ratio))
        size = max(lot, round_down(min(wanted, Decimal(10) ** 17), lot))
        price = min(max(round_down(scene.mark(self.instrument) * Decimal(self.off), FINE), PRICE_MIN), PRICE_MAX)
        return scene.record(
            "fill", late=self.late, account=state.account, trade_id=f"t{len(scene.said)}",
            instrument=self.instrument, side=side, size=plain(size), price=plain(price), fee=self.fee,
            fee_asset=self.fee_asset, margin_mode=mode, leverage=self.leverage,
            liquidation_order_id=self.order_id, position_side=position_side)

    def _affordable(self, scene: Scene, state: AccountState, ratio: Decimal) -> Decimal:
        house, market = scene.house, scene.house.markets.get(self.instrument)
        rules = house.rules(state)
        worth = house.price_of(rules)(INSTRUMENTS[self.instrument][1])
        if market is None or market.mark is None or worth is None:
            return Decimal(1)
        equity = max(house.margin(state).margin_equity, Decimal(1))
        # The maintenance rate of a notional of that order.
        notional = divide_down(equity * 20, worth, FINE) + FINE
        rate = divide_down(rules.requirement(self.instrument).margins(notional)[1], notional, FINE) + FINE
        return divide_down(equity, ratio * rate * market.mark * worth * market.contract_size, FINE)


class FillsOrder(NamedTuple):
    """A part of an open liquidation order comes back filled, at its limit or off the mark."""

    order: int
    part: str
    off: str | None
    late: int
    position_side: str | None
    seconds: int

    def say(self, scene: Scene) -> Record | Line | None:
        orders = scene.orders()
        scene.time += self.seconds * NANOSECONDS
        if not orders:
            return None
        state, order = orders[self.order % len(orders)]
        lot = Decimal(INSTRUMENTS[order.instrument][3])
        size = max(lot, round_down(order.remaining * Decimal(self.part), lot))
        price = order.limit_price if self.off is None else min(max(round_down(
            scene.mark(order.instrument) * Decimal(self.off), FINE), PRICE_MIN), PRICE_MAX)
        side = order.position_side if self.position_side == "its own" else self.position_side
        return scene.record("fill", late=self.late, account=state.account, trade_id=f"t{len(scene.said)}",
                           instrument=order.instrument, side=order.side, size=plain(size), price=plain(price),
                           liquidation_order_id=order.order_id, position_side=side)


class Cures(NamedTuple):
    """A deposit of what an open call asks for, or `beyond` quanta more than that."""

    call: int
    beyond: int
    late: int
    seconds: int

    def say(self, scene: Scene) -> Record | Line | None:
        scene.time += self.seconds * NANOSECONDS
        called = [state for state in scene.house.accounts.values() if CROSS in state.calls]
        if not called:
            return None
        state = called[self.call % len(called)]
        house = scene.house
        lines = house.rules(state).thresholds
        margin = house.margin(state)
        missing = lines.cure * margin.maintenance_margin - margin.margin_equity
        amount = max(Decimal("0.01"), round_down(missing, Decimal("0.01")) + Decimal("0.01") * (1 + self.beyond))
        return scene.record("deposit", late=self.late, account=state.account, asset="USD",
                           amount=plain(min(amount, Decimal(10) ** 17)))


class Prices(NamedTuple):
    """A price, a factor from the mark; with the next sequence of its source, one that is `skip` off it, or an id."""

    instrument: str
    factor: str
    source: str
    kind: str | None
    skip: int | None
    late: int
    seconds: int

    def say(self, scene: Scene) -> Record | Line | None:
        scene.time += self.seconds * NANOSECONDS
        price = min(max(round_down(scene.mark(self.instrument) * Decimal(self.factor), FINE), PRICE_MIN), PRICE_MAX)
        record = scene.record("price", late=self.late, instrument=self.instrument, price=plain(price),
                              source=self.source, kind=self.kind)
        if self.skip is not None:
            place = self.instrument, self.source
            record["sequence"] = max(0, scene.sequences.get(place, 0) + 1 + self.skip)
            scene.sequences[place] = max(record["sequence"], scene.sequences.get(place, 0))
            del record["id"]
        return record


class Funding(NamedTuple):
    instrument: str
    rate: str
    at: str | None

    def say(self, scene: Scene) -> Record | Line | None:
        price = None if self.at is None else plain(max(PRICE_MIN, round_down(
            scene.mark(self.instrument) * Decimal(self.at), FINE)))
        return scene.record("funding", instrument=self.instrument, rate=self.rate, price=price)


class MovesFund(NamedTuple):
    fund: str
    asset: str
    amount: str
    kind: str

    def say(self, scene: Scene) -> Record | Line | None:
        return scene.record("fund-movement", fund=self.fund, asset=self.asset, amount=self.amount, kind=self.kind)


class SaysAgain(NamedTuple):
    """An earlier line once more: as it was, with other blanks, or with other content under the same id."""

    back: int
    how: str

    def say(self, scene: Scene) -> Record | Line | None:
        if not scene.said:
            return None
        raw = scene.said[-1 - self.back % len(scene.said)]
        try:
            record = json.loads(raw)
        except ValueError:
            record = None
        if self.how == "same" or not isinstance(record, dict):
            return raw
        if self.how == "spaced":
            return json.dumps(dict(reversed(record.items())), indent=1, ensure_ascii=True).encode()
        if self.how == "unknown field":
            return {**record, "shoe_size": "44"}
        changed = {name: f"{value}1" for name, value in record.items() if name in (
            "amount", "size", "quantum", "rate", "rulebook", "account") and isinstance(value, str)}
        return {**record, **changed, "time": rfc3339(scene.time)}


class Mumbles(NamedTuple):
    """Something that is no record, or none that can be applied."""

    text: str

    def say(self, scene: Scene) -> Record | Line | None:
        return self.text.replace("$ID", f"r{len(scene.said)}").replace("$TIME", rfc3339(scene.time)).encode(
            errors="surrogateescape")


MUMBLED: Final = (
    "", "null", "[]", "12", "{", "{\"type\":\"fill\"}", "\udcff\udcfe", "{\"type\":\"clock\",\"id\":\"$ID\"}",
    "{\"type\":\"clock\",\"id\":\"$ID\",\"time\":\"yesterday\"}",
    "{\"type\":\"clock\",\"id\":\"$ID\",\"id\":\"$ID\",\"time\":\"$TIME\"}",
    "{\"type\":\"halt\",\"id\":\"$ID\",\"time\":\"$TIME\",\"scope\":\"all\"}",
    "{\"type\":\"trade\",\"id\":\"$ID\",\"time\":\"$TIME\"}",
    "{\"type\":\"deposit\",\"id\":\"$ID\",\"time\":\"$TIME\",\"account\":\"nobody\",\"asset\":\"USD\",\"amount\":\"1\"}",
    "{\"type\":\"deposit\",\"id\":\"$ID\",\"time\":\"$TIME\",\"account\":\"ann\",\"asset\":\"XAU\",\"amount\":\"1\"}",
    "{\"type\":\"deposit\",\"id\":\"$ID\",\"time\":\"$TIME\",\"account\":\"ann\",\"asset\":\"USD\",\"amount\":\"1e3\"}",
    "{\"type\":\"deposit\",\"id\":\"$ID\",\"time\":\"$TIME\",\"account\":\"ann\",\"asset\":\"USD\",\"amount\":-1}",
    "{\"type\":\"fill\",\"id\":\"$ID\",\"time\":\"$TIME\",\"account\":\"ann\",\"trade_id\":\"t\",\"side\":\"buy\","
    "\"instrument\":\"BTC-USD\",\"size\":\"0.0001\",\"price\":\"10000\"}",
    "{\"type\":\"fill\",\"id\":\"$ID\",\"time\":\"$TIME\",\"account\":\"ann\",\"trade_id\":\"t\",\"side\":\"buy\","
    "\"instrument\":\"BTC-USD\",\"size\":\"1\",\"price\":\"0\"}",
    "{\"type\":\"price\",\"time\":\"$TIME\",\"instrument\":\"DOGE-USD\",\"price\":\"1\",\"source\":\"x\",\"sequence\":3}",
    "{\"type\":\"funding\",\"id\":\"$ID\",\"time\":\"$TIME\",\"instrument\":\"DOGE-USD\",\"rate\":\"1\"}",
    "{\"type\":\"account\",\"id\":\"$ID\",\"time\":\"$TIME\",\"account\":\"x\",\"margin_mode\":\"cross\","
    "\"rulebook\":\"none\"}",
    "{\"type\":\"rulebook\",\"id\":\"$ID\",\"time\":\"$TIME\",\"rulebook\":{\"name\":\"x\"}}",
    "{\"type\":\"withdrawal\",\"id\":\"$ID\",\"time\":\"$TIME\",\"account\":\"ann\",\"asset\":\"USD\",\"amount\":\"1\","
    "\"hold\":true}",
)


# --- strategies --------------------------------------------------------------------------------------------------

_seconds = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 1, 10, 10, 31, 61, 121, 301, 901, 3601])
_late = st.sampled_from([0, 0, 0, 0, 0, 0, 0, 5, 100, 4000])
_account = st.integers(0, 4)
_instrument = st.sampled_from(sorted(INSTRUMENTS))
_asset = st.sampled_from(sorted(ASSETS))
_factors = st.sampled_from(["1", "0.9999", "1.0001", "0.999", "1.001", "0.997", "1.003", "0.995", "1.005", "0.99",
                            "1.01", "0.98", "1.02", "0.95", "1.05", "0.9", "1.1", "0.8", "1.24", "0.75", "1.3", "0.5"])
_wild_factors = st.sampled_from(["0.000001", "0.01", "100", "1000000", "0", "1000000000000"])
_amounts = st.sampled_from(["0.01", "1", "50", "300", "1000", "2500.55", "20000"])
_wild_amounts = st.sampled_from(["0.000000000000000001", "999999999999999999.999999999999999999",
                                 "100000000000000000", "123456789012.123456789012345678"])
_held = {"USD": st.sampled_from(["20", "100", "1000", "1000", "5000.25"]),
         "BTC": st.sampled_from(["0.001", "0.05", "0.2", "1.23456789"]),
         "ETH": st.sampled_from(["0.5", "5", "40.1234"])}

_publishes = st.builds(Publishes, st.sampled_from([0, 1, 1, 2, 2, 3, 4]), st.sampled_from([None, None, -10, 100, 1000]))
_opens = st.builds(
    Opens, st.sampled_from(ACCOUNTS), st.sampled_from(["cross", "cross", "isolated"]),
    st.sampled_from(["net", "net", "hedge"]),
    st.sampled_from(["client"] * 6 + ["liquidity-provider", "external-venue", "house"]),
    st.sampled_from([None] * 8 + ["house", "house", "brisk", "stern", "coin"]))
_relists = st.one_of(
    st.builds(ListsAsset, _asset, st.sampled_from(["0.01", "0.0001", "0.00000001"]), st.booleans()),
    st.builds(ListsInstrument, _instrument, st.sampled_from([None, None, "5"])))
_withdraws = st.builds(Withdraws, _account, _asset, st.sampled_from([None, None, "0.1", "0.5", "1", "2"]),
                       st.sampled_from([0, 0, 1, -1]), _late)
_fills_order = st.builds(
    FillsOrder, st.integers(0, 3), st.sampled_from(["1", "1", "0.5", "0.1", "2"]),
    st.sampled_from([None, "1", "1", "0.98", "1.02", "0.7", "1.4"]), _late,
    st.sampled_from([None, None, None, "its own", "net", "long", "short"]), st.sampled_from([0] * 8 + [6, 21, 61]))
_cures = st.builds(Cures, st.integers(0, 3), st.sampled_from([-1, 0, 0, 0, 1, 1000]), _late,
                   st.sampled_from([0, 0, 0, 10, 61]))
_funding = st.builds(Funding, _instrument, st.sampled_from(["0.0001", "-0.0003", "0.01", "-0.02", "0", "0.0333333"]),
                     st.sampled_from([None, None, "1", "1.01"]))
_moves_fund = st.builds(
    MovesFund, st.sampled_from(["insurance", "insurance", "default", "house"]), _asset, _amounts,
    st.sampled_from(["contribution", "withdrawal", "withdrawal", "recovery"]))
_says_again = st.builds(SaysAgain, st.integers(0, 40),
                        st.sampled_from(["same", "same", "spaced", "unknown field", "changed"]))
_mumbles = st.builds(Mumbles, st.sampled_from(MUMBLED))


def _trades(factors: st.SearchStrategy[str], *, wild: bool) -> st.SearchStrategy[Trades]:
    fees = ["0.5", "-0.25", "0.001", "3"]
    return st.builds(
        Trades, _account, _instrument, st.sampled_from(["buy", "sell"]),
        st.sampled_from(["0.8", "1.1", "1.15", "1.2", "1.3", "1.4", "1.52", "1.6", "2", "3", "10", "-1", "-0.5", "-2"]
                        + (["0.00001", "0.00000000000001"] if wild else [])),
        st.one_of(st.just("1"), factors) if wild else st.sampled_from(["1", "1", "1", "1.002", "0.998", "0.95", "1.1"]),
        st.sampled_from([None, None, *fees]), st.sampled_from([None, None, None, *ASSETS]),
        st.sampled_from([None, None, "cross", "isolated"]), st.sampled_from([None, None, "3", "20", "7.5"]),
        st.sampled_from([None] * 8 + ["order-1", "order-77", "order-unknown"]), _late, _seconds)


def _prices(factors: st.SearchStrategy[str]) -> st.SearchStrategy[Prices]:
    return st.builds(Prices, _instrument, factors, st.sampled_from(["a", "a", "a", "b"]),
                     st.sampled_from([None] * 7 + ["mark", "index"]),
                     st.sampled_from([None, 0, 0, 0, 1, 5, -1, -3]), _late, _seconds)


def _steps(*, wild: bool) -> st.SearchStrategy[Step]:
    factors = st.one_of(_factors, _factors, _wild_factors) if wild else _factors
    amounts = st.one_of(_amounts, _wild_amounts) if wild else _amounts
    deposits = st.builds(Deposits, _account, _asset, amounts)
    trades, prices = _trades(factors, wild=wild), _prices(factors)
    weighted: list[tuple[int, st.SearchStrategy[Any]]] = [
        (6, trades), (9, prices), (4, _fills_order), (4, _cures), (2, deposits), (2, _withdraws), (2, _funding),
        (1, _moves_fund), (1, st.builds(Clock, _seconds)), (1, _says_again), (1, _mumbles), (1, _opens),
        (1, st.one_of(_publishes, _relists))]
    return st.sampled_from([one for weight, one in weighted for _ in range(weight)]).flatmap(lambda one: one)


@st.composite
def openings(draw: st.DrawFn) -> list[Step]:
    """What a stream begins with: mostly everything that it needs, now and then too little or in another order."""
    steps: list[Step] = []
    if draw(st.integers(0, 3)):
        steps.append(draw(_publishes))
    steps += [ListsAsset(asset, quantum, True) for asset, quantum in ASSETS.items()]
    listed = [ListsInstrument(name) for name in INSTRUMENTS]
    steps += listed if draw(st.integers(0, 7)) else listed[:draw(st.integers(1, 2))]
    marked = [Prices(name, "1", "a", None, 0, 0, 0) for name in INSTRUMENTS]
    steps += marked if draw(st.integers(0, 7)) else marked[1:]
    if draw(st.booleans()):
        steps.append(MovesFund("insurance", "USD", draw(_amounts), "contribution"))
    for name in ACCOUNTS[:draw(st.integers(2, 5))]:
        opened = draw(_opens)
        # The first is opened for sure: there is always somebody to trade.
        steps.append(opened._replace(account=name, rulebook=opened.rulebook if name != ACCOUNTS[0] else None))
    for account in range(5):
        asset = draw(st.sampled_from(["USD", "USD", "BTC", "ETH"]))
        steps.append(Deposits(account, asset, draw(_held[asset])))
    # Some stand near a line from the start.
    steps += draw(st.lists(_trades(_factors, wild=False), max_size=3))
    return steps


@st.composite
def streams(draw: st.DrawFn, *, steps_max: int = 40, wild: bool | None = False) -> Stream:
    """A stream of an opening and up to `steps_max` steps; `wild` ones also hold amounts and prices at the bounds."""
    is_wild = draw(st.sampled_from([False, False, False, True])) if wild is None else wild
    steps = draw(openings())
    steps += draw(st.lists(_steps(wild=is_wild), min_size=min(10, steps_max), max_size=steps_max))
    return Stream(steps, draw(st.booleans()))


__all__ = ["MAPPER", "SOURCE", "Line", "MemoryRows", "Record", "Scene", "Step", "Stream", "delivered", "lines_of",
           "memory_ledger", "play", "rulebook", "streams"]
