"""What may be said to a small clearing house: plain steps, which look at the house only when they speak.

So trades are large enough to hurt, orders that are filled exist, and a deposit may cure a call to the quantum.
`records_strategy` draws them; `record_steps_of_accounts` holds those that only move what an account already has.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

from ledger import movement
from ledger.account import AccountState, OpenOrder
from ledger.amounts import (
    NANOSECONDS,
    PRICE_MAX,
    PRICE_MIN,
    divide_down,
    nanoseconds,
    plain,
    rfc3339,
    round_down,
)
from ledger.clearing_house import ClearingHouse
from ledger.postings import CROSS
from ledger.rulebook import shipped

START: Final = nanoseconds("2019-09-24T18:00:00Z")
FINE: Final = Decimal("0.000001")
ACCOUNTS: Final = ("ann", "bob", "cy", "é-dora", "eve")
ASSETS: Final = {"USD": "0.01", "BTC": "0.00000001", "ETH": "0.0001"}
# instrument -> (base, quote, contract size, lot size, first price, contract type)
INSTRUMENTS: Final = {
    "BTC-USD": ("BTC", "USD", "1", "0.001", "10000", "linear"),
    "ETH-BTC": ("ETH", "BTC", "1", "0.01", "0.02", "linear"),
    "SOL-USD": ("SOL", "USD", "10", "1", "20", "linear"),
    "BTC-INVERSE": ("BTC", "USD", "100", "1", "10000", "inverse"),
    "ETH-INVERSE": ("ETH", "BTC", "1", "0.001", "0.02", "inverse"),
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
    oracle={"variant": "median:1", "max_age_seconds": 120, "max_step": "0.25"}, orders={"variant": "initial-margin:1"},
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
    liquidation={"variant": "full:1", "order_expiry_seconds": 60, "conversion_fee": "0", "recourse": "full"},
    orders={"variant": "initial-margin:1"})
BRISKER: Final = rulebook(
    "brisk", 2, calls={"variant": "deadline:1", "deadline_seconds": 30, "asset": "ETH"},
    liquidation={"variant": "full:1", "order_expiry_seconds": 5, "conversion_fee": "0.02", "recourse": "full"},
    oracle={"variant": "last:1", "max_age_seconds": 60, "max_step": "0.5"})
# Everything is valued in BTC, in which USD has no price: dollars count nothing, and who owes them is unpriced.
COIN: Final = rulebook("coin", valuation_asset="BTC", calls={
    "variant": "deadline:1", "deadline_seconds": 60, "asset": "BTC"},
    oracle={"variant": "median:1", "max_age_seconds": 600, "max_step": "0.5"})
RULEBOOKS: Final[tuple[str | Record, ...]] = ("house", BRISK, STERN, BRISKER, COIN)


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

    @staticmethod
    def held_asset(state: AccountState) -> str:
        """An asset that the account has, if it has any."""
        return next((asset for asset, amount in state.balances[CROSS].items() if amount > 0 and asset in ASSETS), "USD")

    def amount_of(self, state: AccountState, pool: str, asset: str, part: str | None, beyond: int) -> Decimal:
        """A part of a pool's balance, or what is just withdrawable and `beyond` quanta more; never none."""
        balance, quantum, house = state.balance(pool, asset), Decimal(ASSETS[asset]), self.house
        if part is not None:
            amount = round_down(balance * Decimal(part), quantum)
        else:
            rules = house.rules(state)
            amount = quantum * beyond + movement.withdrawable(
                balance=balance, price=house.price_of(rules)(asset), margin=house.margin(state, pool),
                tiers=rules.collateral(asset), quantum=quantum)
        return amount if 0 < amount < 10**18 else quantum

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
    contract_type: str | None = None

    def say(self, scene: Scene) -> Record | Line | None:
        base, quote, contract_size, lot_size, _, contract_type = INSTRUMENTS[self.instrument]
        return scene.record("instrument", instrument=self.instrument, base=base, quote=quote,
                           contract_type=self.contract_type or contract_type,
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
    hold: bool | None = None

    def say(self, scene: Scene) -> Record | Line | None:
        state = scene.account(self.account)
        asset = scene.held_asset(state) if self.asset == "held" else self.asset
        amount = scene.amount_of(state, CROSS, asset, self.part, self.beyond)
        return scene.record("withdrawal", late=self.late, account=state.account, asset=asset,
                           amount=plain(amount), hold=self.hold)


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
    # The leg of a hedge account that takes it, else the one that it opens.
    leg: str | None = None

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
            position_side = position_side and (self.leg or position_side)
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
        if market is None or market.mark is None:
            return Decimal(1)
        worth = house.price_of(rules)(market.settlement_asset)
        if worth is None:
            return Decimal(1)
        equity = max(house.margin(state).margin_equity, Decimal(1))
        # The maintenance rate of a notional of that order.
        notional = divide_down(equity * 20, worth, FINE) + FINE
        rate = divide_down(rules.requirement(self.instrument).margins(notional)[1], notional, FINE) + FINE
        if market.contract_type == "inverse":
            return divide_down(equity * market.mark, ratio * rate * worth * market.contract_size, FINE)
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
