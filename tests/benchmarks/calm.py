"""`python -m tests.benchmarks.calm [ACCOUNTS ...]`: what a mark costs a book of so many accounts, without a ledger.

Three positions an account on twenty instruments. A tick is timed from the event to the nominated pools: one step of
the price up and down again (calm), a walk of 0.01 % a tick, and a leap of 10 %. Beside it, valuing all holders of the
instrument and comparing them with their line in vectors. Figures are no tests.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from decimal import Decimal
from random import Random
from statistics import mean, median
from typing import Final

import numpy as np

from infra.embedded import in_memory
from infra.shard import Shard
from infra.streams.records import Place, read
from ledger.account import AccountState, Position
from ledger.amounts import exact
from ledger.clearing_house import ClearingHouse
from ledger.events import Cause, FundingIndexMoved, PriceRecorded, Recorded
from projections.book import Book
from projections.headroom import LOWER
from tests.benchmarks.machine import load, percentile
from tests.benchmarks.memory import peak_bytes
from tests.benchmarks.mix import INSTRUMENTS

TICKS: Final = 400
WARM: Final = 40


def house_of(accounts: int, random: Random, shard: Shard | None = None) -> ClearingHouse:
    """A house (new, or that of an empty ledger) whose accounts stand above the warning line, most of them well."""
    if shard is None:
        shard = in_memory()
    house = shard.house
    records = [{"type": "asset", "asset": "USD", "quantum": "0.01"}]
    for place, name in enumerate(INSTRUMENTS):
        records += [{"type": "instrument", "instrument": name, "base": name.removesuffix("-USD"), "quote": "USD",
                     "contract_type": "linear", "tick_size": "0.0001", "lot_size": "0.001"},
                    {"type": "price", "instrument": name, "price": f"{10_000 / (1 + place) ** 1.5:.4f}", "source": "a"}]
    shard.apply([read(Place("calm", line=line), json.dumps(
        {"id": str(line), "time": "2024-01-02T00:00:00Z", **record}).encode()) for line, record in enumerate(records)])
    for number in range(accounts):
        notional = random.lognormvariate(9.0, 1.2)
        positions = {}
        for name in random.sample(INSTRUMENTS, 3):
            mark = float(house.markets[name].mark or 1)
            size = Decimal(f"{max(0.001, notional / mark):.3f}") * random.choice((1, -1))
            positions[name, "cross", "net"] = Position(size, size * (house.markets[name].mark or 1), Decimal(0))
        name = f"A{number}"
        state = AccountState(name, 1, "client", "cross", "net", None, None, {}, positions)
        house.accounts[name] = state
        needed = house.margin(state).maintenance_margin * Decimal("1.5")
        cash = needed + Decimal(f"{3 * notional * random.expovariate(5):.2f}") + 1
        house.accounts[name] = state._replace(balances={"cross": {"USD": cash}})
    return house


class Ticker:
    """Marks said straight to the book."""

    def __init__(self, house: ClearingHouse, book: Book) -> None:
        self.house, self.book = house, book
        self.cause = Cause(source="calm", type="price")

    def mark(self, instrument: str, price: Decimal) -> tuple[float, int]:
        """(seconds, pools nominated) of one mark."""
        market = self.house.markets[instrument]
        self.house.markets[instrument] = market._replace(mark=price)
        event = PriceRecorded(time=market.mark_time, cause=self.cause, instrument=instrument, price=price,
                              source="a", kind="mark", mark=price)
        return self._say(Recorded(1, f"market:{instrument}", 1, event))

    def funding(self, instrument: str, part: Decimal) -> tuple[float, int]:
        """(seconds, pools nominated) of one move of a funding index by a part of the mark."""
        market = self.house.markets[instrument]
        index = market.funding_index + (market.mark or 1) * part
        self.house.markets[instrument] = market._replace(funding_index=index)
        event = FundingIndexMoved(
            time=market.mark_time, cause=self.cause, instrument=instrument, rate=part, price=None,
            mark_price=market.mark or Decimal(1), index_before=market.funding_index, index_after=index)
        return self._say(Recorded(1, f"market:{instrument}", 1, event))

    def _say(self, recorded: Recorded) -> tuple[float, int]:
        started = time.perf_counter()
        self.book.applied(recorded, self.house)
        found = self.book.take()
        return time.perf_counter() - started, len(found)

    def rescan(self, instrument: str) -> float:
        """Seconds to value all holders of an instrument in vectors and compare each with its line."""
        pools = self.book._pools
        started = time.perf_counter()
        for tables in pools.holders.values():
            holders = tables[instrument]
            slopes = holders.slopes(np.arange(holders.count))
            owners = holders.pool[:holders.count]
            np.flatnonzero(slopes.equity < pools.lines[LOWER].take(owners) * slopes.maintenance)
        return time.perf_counter() - started


def measure(accounts: int) -> None:
    """Print the figures of one size."""
    random = Random(20_190_924)
    with exact():
        house = house_of(accounts, random)
    gc.collect()
    gc.freeze()
    before, book = peak_bytes(), Book()
    started = time.perf_counter()
    book.rules_changed(house)
    took = time.perf_counter() - started
    grown = peak_bytes() - before
    book.take()
    ticker, step = Ticker(house, book), Decimal("0.0001")
    calm, walk = [], []
    for turn in range(TICKS + WARM):
        instrument = INSTRUMENTS[turn % len(INSTRUMENTS)]
        price = house.markets[instrument].mark or step
        calm.append(ticker.mark(instrument, price + (step if turn // len(INSTRUMENTS) % 2 else -step))[0])
    for turn in range(10 * TICKS):
        instrument = INSTRUMENTS[turn % len(INSTRUMENTS)]
        price = house.markets[instrument].mark or step
        walk.append(ticker.mark(instrument, round(price * Decimal(1 + random.gauss(0, 0.0001)), 8))[0])
    calm, walk = calm[WARM:], walk[WARM:]
    rescans = [ticker.rescan(name) for name in INSTRUMENTS]
    funding = [ticker.funding(name, Decimal("0.0001"))[0] for name in INSTRUMENTS]
    leap, nominated = ticker.mark("BTC-USD", round((house.markets["BTC-USD"].mark or step) * Decimal("0.9"), 8))
    print(f"{accounts:>9,} accounts: calm tick {median(calm) * 1e6:.1f} us (mean {mean(calm) * 1e6:.1f}), "
          f"walk of 0.01 % {median(walk) * 1e6:.1f} us (mean {mean(walk) * 1e6:.1f}, p99 "
          f"{percentile(walk, 99) * 1e6:.0f}); rescan {median(rescans) * 1e6:.0f} us; funding "
          f"{median(funding) * 1e6:.0f} us; fall of 10 % {leap * 1e3:.1f} ms, {nominated:,} nominated; built in "
          f"{took:.1f} s, peak {grown / 3 / accounts:.0f} bytes a position; load {load()}", flush=True)
    gc.unfreeze()


if __name__ == "__main__":
    gc.set_threshold(100_000, 50, 1_000)
    for count in map(int, sys.argv[1:] or ("10000", "100000")):
        measure(count)
