"""A population of accounts set into a ledger as they stand, and what marks, funding and a gap cost over it.

A million accounts by records would take an hour to open; here their states are put straight into the writer of a
real ledger file, and its book is built over them. What is measured afterwards are records like any other, decided
and committed. The log lacks the accounts' own events, so it cannot be replayed. Figures are no tests.
"""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any, Final

from infra.demo.run import CANDLES
from infra.embedded import open_ledger
from infra.shard import Shard
from infra.streams.candles import read_candles
from infra.streams.records import Place, open_input, read, source_name
from infra.venue import SimulatedVenue
from ledger.amounts import exact
from ledger.commands import RecordPrice
from projections.book import Book
from tests.benchmarks.calm import Ticker, house_of
from tests.benchmarks.figures import Sample
from tests.benchmarks.machine import percentile
from tests.benchmarks.memory import peak_bytes
from tests.benchmarks.mix import INSTRUMENTS
from tests.benchmarks.stage import Stage

SEED: Final = 20_190_924
STEP: Final = Decimal("0.0001")
CALM_TICKS: Final = 400
WARM: Final = 40
GAP: Final = Decimal("0.9")
POSITIONS_EACH: Final = 3
MEMORY_TARGET_BYTES: Final = 400.0


class Population:
    """A ledger file with so many accounts, three positions each on twenty instruments."""

    def __init__(self, folder: Path, accounts: int, tell: Callable[[str], None]) -> None:
        self.accounts = accounts
        self._stack = ExitStack()
        self._folder = Path(tempfile.mkdtemp(dir=folder))
        self.shard: Shard = self._stack.enter_context(
            open_ledger(self._folder / "population.db", venue=SimulatedVenue()))
        # The log does not lead to these states, so nothing of them may be kept.
        self.shard.snapshots.drop()
        self.shard.listeners.clear()
        tell(f"{accounts:,} accounts: making their states")
        with exact():
            house = house_of(accounts, Random(SEED), self.shard)
        gc.collect()
        gc.freeze()
        tell(f"{accounts:,} accounts: building the book")
        before, started = peak_bytes(), time.perf_counter()
        with exact():
            house.nominator.rules_changed(house)
        house.nominator.take()
        self.built_seconds = time.perf_counter() - started
        self.bytes_a_position = (peak_bytes() - before) / (POSITIONS_EACH * accounts)
        book = house.nominator
        if not isinstance(book, Book):
            raise TypeError(f"expected a book, came {type(book).__name__}")
        self.ticker = Ticker(house, book)
        self.line = 10**6
        self.time = datetime(2024, 1, 3, tzinfo=UTC)

    def close(self) -> None:
        """Forget all of it."""
        gc.unfreeze()
        self._stack.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def say(self, record_type: str, **fields: Any) -> float:
        """Seconds of one record in a batch of its own, from bytes to durable."""
        self.line += 1
        self.time += timedelta(milliseconds=1)
        raw = json.dumps({"type": record_type, "id": f"p{self.line}", "time": f"{self.time:%Y-%m-%dT%H:%M:%S.%fZ}",
                          **fields}).encode()
        started = time.perf_counter()
        outcome, = self.shard.apply([read(Place("population", line=self.line), raw)])
        took = time.perf_counter() - started
        if outcome.kind != "applied":
            raise RuntimeError(f"expected {record_type} to be applied, came {outcome}")
        return took


def population(stage: Stage, accounts: int) -> Population:
    """The stage's population of a size; one at a time, the former is forgotten."""
    accounts = min(accounts, stage.scale.population)
    found = stage.kept.get("population")
    if not isinstance(found, Population) or found.accounts != accounts:
        if isinstance(found, Population):
            found.close()
        stage.kept["population"] = None
        found = Population(stage.folder, accounts, stage.tell)
        stage.kept["population"] = found
    return found


def calm_tick(stage: Stage, accounts: int) -> Sample:
    """Seconds a mark that moves one step up or down, from the event to the nominated: the median."""
    found = population(stage, accounts)
    stage.tell("marking")
    house, times = found.ticker.house, []
    with exact():
        for turn in range(CALM_TICKS + WARM):
            instrument = INSTRUMENTS[turn % len(INSTRUMENTS)]
            up = turn // len(INSTRUMENTS) % 2
            times.append(found.ticker.mark(instrument, (house.markets[instrument].mark or STEP)
                                           + (STEP if up else -STEP))[0])
        rescans = [found.ticker.rescan(name) for name in INSTRUMENTS]
    times = times[WARM:]
    return Sample(median(times), {"all holders in vectors": median(rescans)}, {
        "mean": mean(times), "p99": percentile(times, 99), "accounts": found.accounts,
        "positions": POSITIONS_EACH * found.accounts})


def funding(stage: Stage) -> Sample:
    """Seconds of a funding record of 0.01 %, from the event to the nominated: the median over instruments."""
    found = population(stage, 1_000_000)
    stage.tell("funding")
    with exact():
        times = [found.ticker.funding(name, Decimal("0.0001")) for name in INSTRUMENTS]
        rescans = [found.ticker.rescan(name) for name in INSTRUMENTS]
    return Sample(median(took for took, _ in times), {"all holders in vectors": median(rescans)}, {
        "most": max(took for took, _ in times), "nominated": sum(count for _, count in times),
        "accounts": found.accounts})


def bytes_per_position(stage: Stage) -> Sample:
    """Bytes of book and index a position: the growth of the process's peak while they are built."""
    found = population(stage, 1_000_000)
    return Sample(found.bytes_a_position, {"the design's target": MEMORY_TARGET_BYTES}, {
        "accounts": found.accounts, "seconds to build": found.built_seconds})


def crash_day_tick(stage: Stage) -> Sample:
    """Seconds a tick over 24 September 2019 as it went, each decided and durable: the mean.

    The demo's minute prices in proportion, those of each of its symbols for the instruments in turn; calls and
    liquidations included. Marks beyond the step limit are rejected as always.
    """
    found = population(stage, 1_000_000)
    house = found.shard.house
    starts = {name: house.markets[name].mark or STEP for name in INSTRUMENTS}
    times, before = [], house.position
    for turn, (instrument, part) in enumerate(islice(_crash_day(), stage.scale.crash_ticks)):
        if not turn % 100:
            stage.tell(f"the crash day, tick {turn:,}")
        price = f"{starts[instrument] * part:.4f}"
        times.append(found.say("price", instrument=instrument, source="a", price=price))
    rescans = [found.ticker.rescan(name) for name in INSTRUMENTS]
    return Sample(mean(times), {"all holders in vectors": median(rescans)}, {
        "median": median(times), "p99": percentile(times, 99), "most": max(times), "ticks": len(times),
        "events": house.position - before, "accounts": found.accounts})


def _crash_day() -> Iterator[tuple[str, Decimal]]:
    """(instrument, part of its first price) of the fall's eight hours, minute by minute."""
    first: dict[str, Decimal] = {}
    names: dict[str, list[str]] = {}
    with open_input(str(CANDLES)) as stream:
        for delivered in read_candles(source_name(str(CANDLES)), stream):
            command = delivered.command
            if not isinstance(command, RecordPrice) or not FALL[0] <= command.time // 10**9 < FALL[1]:
                continue
            if command.instrument not in first:
                first[command.instrument] = command.price
                names[command.instrument] = [INSTRUMENTS[len(first) - 1]] if len(first) <= len(INSTRUMENTS) else []
            for name in names[command.instrument]:
                yield name, command.price / first[command.instrument]


FALL: Final = tuple(int(datetime(2019, 9, 24, hour, tzinfo=UTC).timestamp()) for hour in (14, 22))


def gap_tick(stage: Stage) -> Sample:
    """Seconds of one mark 10 % lower, from bytes to durable, with all calls and liquidations that it causes."""
    found = population(stage, 1_000_000)
    house = found.shard.house
    stage.tell("a fall of 10 %")
    before, calls = house.position, sum(len(state.calls) for state in house.accounts.values())
    mark = house.markets[INSTRUMENTS[0]].mark or STEP
    rescan = found.ticker.rescan(INSTRUMENTS[0])
    took = found.say("price", instrument=INSTRUMENTS[0], source="a", price=f"{mark * GAP:.4f}")
    called = sum(len(state.calls) for state in house.accounts.values()) - calls
    return Sample(took, {"all holders in vectors, no decisions": rescan}, {
        "events": house.position - before, "calls more open": called, "accounts": found.accounts})
