"""A calm mark: one price that moves nobody over a line, from decoded to decided, without commit.

Beside it, what venues do: evaluating every holder of the instrument exactly. It never touches a disk.
"""

from __future__ import annotations

import time
from decimal import Decimal
from itertools import cycle, islice
from statistics import median

from infra.shard import Shard
from ledger.amounts import exact
from ledger.commands import RecordPrice
from ledger.events import Cause
from tests.benchmarks.figures import Sample
from tests.benchmarks.machine import percentile
from tests.benchmarks.mix import INSTRUMENTS
from tests.benchmarks.stage import SOURCE, Stage

TICK = Decimal("0.0001")


def calm_mark(stage: Stage) -> Sample:
    """Seconds a mark, the median over marks of all instruments in turn."""
    house = stage.memory_shard.house
    stage.tell("marking")
    times, decisions = [], 0
    with exact():
        for turn, instrument in enumerate(islice(cycle(INSTRUMENTS), stage.scale.marks)):
            market = house.markets[instrument]
            # Up a tick and down again, from a source of its own so that no sequence is spent.
            price = (market.mark or TICK) + (TICK if turn // len(INSTRUMENTS) % 2 else -TICK)
            command = RecordPrice(id=stage.fresh_id(), time=market.mark_time + 1, instrument=instrument,
                                  price=price, source="calm")
            cause = Cause(source=SOURCE, type=command.TYPE, id=command.id, time=command.time)
            started = time.perf_counter()
            house.handle(command, cause)
            times.append(time.perf_counter() - started)
            decisions += len(house.pending) - 1
            house.pending.clear()
        stage.tell("evaluating all holders of every instrument")
        rescans, holders = zip(*(_rescan(stage.memory_shard, instrument) for instrument in INSTRUMENTS), strict=True)
    return Sample(median(times), {"exact re-evaluation of all holders": median(rescans)},
                  {"p99": percentile(times, 99), "marks": len(times), "decisions": decisions,
                   "accounts": stage.scale.accounts, "holders": median(holders)})


def _rescan(shard: Shard, instrument: str) -> tuple[float, int]:
    """Seconds to evaluate every holder of an instrument, and how many there are."""
    house = shard.house
    holders = [state for state in house.accounts.values()
               if any(key[0] == instrument for key in state.positions)]
    started = time.perf_counter()
    for state in holders:
        house.margin(state)
    return time.perf_counter() - started, len(holders)
