"""What grows with a ledger's age: the cost of one hot account, the start from a snapshot; and fills that arm anew.

Beside them, in the same run: the stock application on the same records, the whole log folded, every account
evaluated exactly. Figures are no tests.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from infra.embedded import in_memory, open_ledger
from infra.streams.records import Place, read
from infra.venue import SimulatedVenue
from ledger.amounts import exact
from ledger.clearing_house import ClearingHouse
from ledger.events import Recorded
from ledger.nomination import PoolPlace
from ledger.snapshot import hash_of_states
from tests.benchmarks.figures import Sample
from tests.benchmarks.mix import START, Mix
from tests.benchmarks.stage import Stage, require_applied
from tests.benchmarks.stock import stock_application

BATCH: Final = 1_000
# Fills that are timed at either age.
TIMED: Final = 1_000
STOCK_AGES: Final = (300, 3_000)


def _hot(count: int, start: int = 0) -> Iterator[bytes]:
    """Fills of one account, to and fro."""
    for number in range(start, start + count):
        yield json.dumps({"type": "fill", "id": f"h{number}", "time": f"{START:%Y-%m-%dT%H:%M:%SZ}", "account": "hot",
                          "trade_id": f"t{number}", "instrument": "BTC-USD", "side": "buy" if number % 2 else "sell",
                          "size": "0.001", "price": "10000", "fee": "0", "liquidity": "maker"}).encode()


def _hot_opening() -> Iterator[bytes]:
    for fields in ({"type": "asset", "asset": "USD", "quantum": "0.01"},
                   {"type": "instrument", "instrument": "BTC-USD", "base": "BTC", "quote": "USD",
                    "contract_type": "linear", "tick_size": "0.0001", "lot_size": "0.001"},
                   {"type": "price", "instrument": "BTC-USD", "price": "10000", "source": "a", "sequence": 1},
                   {"type": "account", "account": "hot", "margin_mode": "cross"},
                   {"type": "deposit", "account": "hot", "asset": "USD", "amount": "1000000"}):
        yield json.dumps({"id": f"o-{fields['type']}", "time": f"{START:%Y-%m-%dT%H:%M:%SZ}", **fields}).encode()


def hot_account(stage: Stage) -> Sample:
    """How many times as long a fill of one account takes at its last event as at its thousandth; durable, by batch."""
    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    total = stage.scale.hot_events
    with open_ledger(folder / "hot.db") as shard:
        shard.snapshots.drop()
        require_applied(shard.ingest(stage.deliver(_hot_opening())))
        costs = []
        for start in range(0, total, BATCH):
            if not start % 50_000:
                stage.tell(f"one account, event {start:,} of {total:,}")
            records = list(stage.deliver(_hot(BATCH, start)))
            started = time.perf_counter()
            shard.apply(records)
            costs.append((time.perf_counter() - started) / BATCH)
    shutil.rmtree(folder, ignore_errors=True)
    early, late = sorted(costs[1:11])[5 if len(costs) > 10 else 0], sorted(costs[-10:])[5 if len(costs) > 10 else 0]
    return Sample(late / early, {"stock eventsourcing app, 3,000 events": _stock_slowdown(stage)},
                  {"events": total, "us a fill, early": early * 1e6, "us a fill, late": late * 1e6})


def _stock_slowdown(stage: Stage) -> float:
    stage.tell("the stock application, one account")
    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    with stock_application(folder / "stock.db", 1) as stock:
        stock.set_up(_hot_opening())
        costs, done = [], 0
        for age in STOCK_AGES:
            stock.ingest(_hot(age - 100 - done, done))
            started = time.perf_counter()
            stock.ingest(_hot(100, age - 100))
            costs.append(time.perf_counter() - started)
            done = age
    shutil.rmtree(folder, ignore_errors=True)
    return costs[1] / costs[0]


def cold_start(stage: Stage) -> Sample:
    """Seconds from opening a ledger to the first new decision, from a snapshot; beside it, the whole log folded."""
    folder = Path(tempfile.mkdtemp(dir=stage.folder))
    path, scale = folder / "cold.db", stage.scale
    mix = Mix(scale.cold_accounts)
    with open_ledger(path, venue=SimulatedVenue()) as shard:
        records = stage.deliver(_until(mix, scale.cold_events))
        for done, outcome in enumerate(shard.ingest(records, batch_size=BATCH)):
            if outcome.kind in ("rejected", "duplicate"):
                raise RuntimeError(f"expected every record of the mix to be applied or refused, came {outcome}")
            if not done % 20_000:
                stage.tell(f"writing a ledger, {shard.house.position:,} of {scale.cold_events:,} events")
        stage.tell("writing the snapshot")
        started = time.perf_counter()
        shard.snapshots.take()
        written, wanted = time.perf_counter() - started, hash_of_states(shard.house)
        events = shard.house.position
    stage.tell("starting from the snapshot")
    took = _start(path, mix, wanted)
    stage.tell("starting by folding the whole log")
    whole = _start(path, mix, None)
    shutil.rmtree(folder, ignore_errors=True)
    return Sample(took, {"the whole log folded": whole}, {
        "events": events, "accounts": scale.cold_accounts, "seconds to write the snapshot": written})


def _until(mix: Mix, events: int) -> Iterator[bytes]:
    count = 0
    for raw in mix.opening():
        count += 1
        yield raw
    while count < events:
        yield from mix.take(BATCH)
        count += BATCH


def _start(path: Path, mix: Mix, wanted: str | None) -> float:
    """Seconds to open the ledger and apply one more fill, durably; the states must be those wanted."""
    record = next(raw for raw in iter(lambda: mix.take(1)[0], b"") if b'"type":"fill"' in raw)
    started = time.perf_counter()
    with open_ledger(path, venue=SimulatedVenue()) as shard:
        took = time.perf_counter() - started
        if wanted is not None and hash_of_states(shard.house) != wanted:
            raise RuntimeError("expected the states that the writer left, came others")
        started = time.perf_counter()
        shard.apply([read(Place("cold", line=shard.house.position), record)])
        took += time.perf_counter() - started
        shard.snapshots.drop()  # the next start folds the whole log
    return took


class _Own:
    """Names the pools of whoever an event is of, to be evaluated exactly: what there is without an index."""

    def __init__(self) -> None:
        self._places: dict[PoolPlace, None] = {}

    def applied(self, recorded: Recorded, house: ClearingHouse) -> None:
        """Name the account's pools."""
        if recorded.originator_id.startswith("account:"):
            name = recorded.originator_id[8:]
            self._places.update({(name, pool): None for pool in house.accounts[name].pools()})

    def rules_changed(self, house: ClearingHouse) -> None:
        """Nothing is kept."""

    def take(self) -> Collection[PoolPlace]:
        """Those named since last asked."""
        found, self._places = self._places, {}
        return found


def fill_rearm(stage: Stage) -> Sample:
    """Fills a second from decoded to decided, each arming its account's ranges anew, without store."""
    shard = in_memory(venue=SimulatedVenue())
    mix, count = Mix(stage.scale.accounts), stage.scale.records[1_000]
    stage.tell(f"setting up {stage.scale.accounts:,} accounts in memory")
    require_applied(shard.ingest(stage.deliver(mix.opening())))
    house, book = shard.house, shard.house.nominator
    rates = []
    for nominator in (book, _Own()):
        house.nominator = nominator
        fills = [one for one in stage.deliver(mix.take(2 * count)) if one.command and one.command.TYPE == "fill"]
        stage.tell(f"{len(fills):,} fills")
        started = time.perf_counter()
        with exact():
            for delivered in fills:
                shard._decide(delivered)
        rates.append(len(fills) / (time.perf_counter() - started))
        house.pending.clear()
        shard._keys.clear()
    return Sample(rates[0], {"each account evaluated exactly, no index": rates[1]}, {"accounts": stage.scale.accounts})
