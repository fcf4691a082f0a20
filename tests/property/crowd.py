"""A crowd of accounts under a book, pushed about, and held to looking at everybody exactly: is any decision missed?

Unlike the streams of `records_strategy` it has many accounts and long ways between marks: a crowd that trades and
pays in and out for thousands of records, funding, interest, marks that creep and marks that leap. Run as a script it
goes on for as long as it is told (`python -m tests.property.crowd SEED STEPS`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Any, Final

from infra.streams.records import Place, read
from ledger.amounts import NANOSECONDS, exact, plain, rfc3339, round_down
from ledger.nomination import PoolPlace
from ledger.rulebook import named
from projections.book import Book
from tests.property.record_steps import BRISK, COIN, START, STERN, rulebook
from tests.property.records_strategy import memory_ledger

# Any step is taken, marks never age by themselves; nothing is lost of the blocks.
_CALM: Final[dict[str, Any]] = {"variant": "last:1", "max_age_seconds": 10**9, "max_step": "1000000000"}
_AGEING: Final[dict[str, Any]] = {"variant": "last:1", "max_age_seconds": 300, "max_step": "1000000000"}


def _content(text: str) -> dict[str, Any]:
    found = named(text)
    if found is None:
        raise LookupError(f"expected a shipped rulebook, came {text}")
    return found.model_dump(mode="json", exclude_none=True)


_TOGETHER: Final[dict[str, Any]] = {"variant": "scenarios:1", "prices": ["-0.15", "-0.05", "0", "0.05", "0.15"],
                                    "minimum": "0.005", "initial_multiple": "1.5"}
# Not screened: everything on BTC is revalued together, inverse contracts too, and offset by what is on SOL.
PORTFOLIO: Final = rulebook(
    "portfolio", oracle=_CALM, instruments={
        "BTC-USD": {"requirement": {**_TOGETHER, "underlying": "BTC"}},
        "BTC-COIN": {"requirement": {**_TOGETHER, "underlying": "BTC"}},
        "SOL-USD": {"requirement": {**_TOGETHER, "underlying": "SOL"}}, "*": {"requirement": _TOGETHER}},
    pool={"variant": "pool:1", "portfolio": {"variant": "portfolio:1", "offsets": {
        "variant": "offsets:1", "credits": {"BTC": {"SOL": "0.8"}}}}})
# The house's second version under another name: fees in the margins, buffers, loans, weighted profit, netting.
BEST: Final[dict[str, Any]] = {**_content("house-2"), "name": "best", "oracle": _CALM}
RULEBOOKS: Final = [
    rulebook("plain", oracle=_CALM), {**BRISK, "oracle": _CALM}, {**STERN, "oracle": _CALM},
    {**COIN, "oracle": _CALM}, PORTFOLIO, BEST]
ASSETS: Final = {"USD": ("0.01", None), "BTC": ("0.00000001", "BTC-USD"), "ETH": ("0.0001", "ETH-BTC")}
# instrument -> (base, quote, contract type, lot, first price)
INSTRUMENTS: Final = {
    "BTC-USD": ("BTC", "USD", "linear", "0.001", "10000"), "ETH-BTC": ("ETH", "BTC", "linear", "0.01", "0.02"),
    "SOL-USD": ("SOL", "USD", "linear", "1", "20"), "BTC-COIN": ("BTC", "USD", "inverse", "1", "10000")}
NAMES: Final = tuple(INSTRUMENTS)
PLAIN: Final = ("BTC-USD", "SOL-USD")


class Crowd:
    """A ledger in memory with accounts of all sorts, most of them with positions. `seed` decides everything.

    `plain`: all accounts have cross margin in dollars and net positions on dollar contracts, mostly changed by little.
    """

    def __init__(self, seed: int, accounts: int, *, vector_min: int, ageing: bool = False, plain: bool = False) -> None:
        self.random = Random(seed)
        self.plain = plain
        self.book = Book(vector_min=vector_min)
        self.shard = memory_ledger(self.book)
        self.house = self.shard.house
        self.time = START
        self.said = 0
        for rules in RULEBOOKS:
            self.say("rulebook", rulebook={**rules, "oracle": _AGEING} if ageing else rules)
        for asset, (quantum, priced_by) in ASSETS.items():
            self.say("asset", asset=asset, quantum=quantum, pricing_instrument=priced_by)
        for name, (base, quote, kind, lot, price) in INSTRUMENTS.items():
            self.say("instrument", instrument=name, base=base, quote=quote, contract_type=kind, tick_size="0.000001",
                     lot_size=lot)
            self.say("price", instrument=name, price=price, source="a")
        self.say("fund-movement", fund="insurance", asset="USD", amount="100000", kind="contribution")
        self.names = [f"a{number}" for number in range(accounts)]
        for name in self.names:
            if plain:
                self.say("account", account=name, margin_mode="cross", rulebook="plain")
            else:
                self.say("account", account=name, margin_mode=self.random.choice(["cross", "cross", "isolated"]),
                         position_mode=self.random.choice(["net", "net", "hedge"]),
                         rulebook=self.random.choice([None, "plain", "brisk", "stern", "coin", "portfolio", "best"]))
            for _ in range(self.random.randrange(1, 3)):
                self.pay(name)
        self.trade(3 * accounts)

    def say(self, record_type: str, /, **fields: Any) -> None:
        """Say one record."""
        self.said += 1
        record = {"type": record_type, "id": f"r{self.said}", "time": rfc3339(self.time),
                  **{name: value for name, value in fields.items() if value is not None}}
        raw = json.dumps(record).encode()
        self.shard.apply([read(Place("crowd", line=self.said), raw)])

    def pay(self, name: str) -> None:
        """Pay something in."""
        asset = "USD" if self.plain else self.random.choice(["USD", "USD", "BTC", "ETH"])
        unit = {"USD": 1000, "BTC": 0.1, "ETH": 5}[asset]
        self.say("deposit", account=name, asset=asset, amount=f"{unit * self.random.uniform(0.1, 3):.4f}")

    def trade(self, count: int) -> None:
        """Fills of everybody, large enough to hurt now and then, and money in and out."""
        for _ in range(count):
            name = self.random.choice(self.names)
            if self.random.random() < 0.1:
                self.pay(name)
                continue
            state = self.house.accounts[name]
            instrument = self.random.choice(PLAIN if self.plain else NAMES)
            market = self.house.markets[instrument]
            mark = float(market.mark or INSTRUMENTS[instrument][4])
            unit = 1.0 if market.contract_type == "inverse" else mark
            if market.quote == "BTC":
                unit *= float(self.house.markets["BTC-USD"].mark or 1)
            lots = int(self.random.choice([100, 1000, 1000, 5000, 20000]) / unit / float(market.lot_size))
            price = mark * self.random.choice([1, 1, 0.999, 1.01])
            side = self.random.choice(["buy", "sell"])
            self.say("fill", account=name, trade_id=f"t{self.said}", instrument=instrument, side=side,
                     size=f"{min(max(lots, 1), 10**12) * float(market.lot_size):.3f}", price=f"{max(price, 1e-6):.6f}",
                     position_side=None if state.position_mode == "net" else "long" if side == "buy" else "short")

    def trade_a_little(self, count: int) -> None:
        """Fills of a part of a position or less, at, near and far from the mark; fees; a little money in and out."""
        for _ in range(count):
            name = self.random.choice(self.names)
            chance = self.random.random()
            if chance < 0.2:
                self.say("deposit" if chance < 0.1 else "withdrawal", account=name, asset="USD",
                         amount=f"{self.random.uniform(0.01, 30):.2f}")
                continue
            held = list(self.house.accounts[name].positions.items())
            if not held or chance < 0.22:
                instrument, lots = self.random.choice(PLAIN), self.random.randrange(1, 200)
            else:
                (instrument, _, _), position = self.random.choice(held)
                lot = self.house.markets[instrument].lot_size
                lots = max(1, int(abs(position.size) / lot * self.random.choice([1, 3, 10, 40])) // 100)
            market = self.house.markets[instrument]
            price = float(market.mark or 1) * self.random.choice([1, 1, 0.9998, 1.0003, 0.99, 1.01, 0.9, 1.1])
            self.say("fill", account=name, trade_id=f"t{self.said}", instrument=instrument,
                     side=self.random.choice(["buy", "sell"]), size=plain(lots * market.lot_size), price=f"{price:.6f}",
                     fee=self.random.choice(["0", "0.05", "2", "-0.03"]))

    def tick(self, instrument: str, factor: str) -> None:
        """Move a mark by a factor."""
        market = self.house.markets[instrument]
        with exact():
            price = round_down((market.mark or Decimal(1)) * Decimal(factor), Decimal("0.000000000001"))
            price = min(max(price, Decimal("0.000000000001")), Decimal(10**12))
        self.say("price", instrument=instrument, price=plain(price), source="a")

    def creep(self, instrument: str, ticks: int, width: float) -> None:
        """Many small steps of a mark."""
        for _ in range(ticks):
            self.tick(instrument, f"{1 + self.random.gauss(0, width):.9f}")
            self.require_none_missed()

    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.time += seconds * NANOSECONDS
        self.say("clock")

    def missed(self) -> Sequence[PoolPlace]:
        """The pools on which a decision is due: all of them, looked at exactly one by one."""
        house = self.house
        house._own = ()
        with exact():
            return [(state.account, pool) for state in house.accounts.values() if state.is_margined
                    for pool in state.pools() if house._next_events(state.account, pool)]

    def require_none_missed(self) -> None:
        """Nobody is missed."""
        assert [] == self.missed()

    def step(self) -> None:
        """Something at random, as the script goes on."""
        chance = self.random.random()
        instrument = self.random.choice(NAMES)
        if chance < 0.5:
            self.creep(instrument, self.random.randrange(1, 30), self.random.choice([1e-6, 1e-4, 1e-3, 0.01]))
        elif chance < 0.7:
            self.trade(self.random.randrange(1, 300))
        elif chance < 0.8:
            self.tick(instrument, self.random.choice(["0.9", "1.1", "0.7", "1.4", "0.5", "2"]))
        elif chance < 0.87:
            self.say("funding", instrument=instrument, rate=f"{self.random.gauss(0, 0.003):.9f}")
        elif chance < 0.95:
            self.wait(self.random.choice([1, 10, 100, 4000]))
        elif chance < 0.97:
            self.say("interest-rate", asset=self.random.choice(["USD", "BTC"]), lend_rate="0.01",
                     borrow_rate=self.random.choice(["0.1", "1", "0"]))
        else:
            # Back towards where it came from, so that the crowd lives.
            first, mark = float(INSTRUMENTS[instrument][4]), float(self.house.markets[instrument].mark or 1)
            self.tick(instrument, f"{first / mark:.9f}")
            for name in self.random.sample(self.names, len(self.names) // 4):
                self.pay(name)
        self.require_none_missed()


if __name__ == "__main__":
    crowd = Crowd(int(sys.argv[1]), 150, vector_min=48 if int(sys.argv[1]) % 2 else 0, ageing=int(sys.argv[1]) % 3 == 0)
    for _ in range(int(sys.argv[2])):
        crowd.step()
    print(f"{crowd.said:,} records, {crowd.house.position:,} events, nobody missed")
