"""The stage: one ledger and one stock application, set up with the same book, that the benchmarks share.

Both are set up before any clock starts and grow with what is measured on them. It never measures anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from infra.embedded import in_memory, open_ledger
from infra.shard import Outcome, Shard
from infra.streams.records import Delivered, Place, read
from infra.venue import SimulatedVenue
from tests.benchmarks.mix import Mix
from tests.benchmarks.stock import StockApplication, stock_application

SOURCE: Final = "bench"
SETUP_BATCH: Final = 1_000


@dataclass(frozen=True)
class Scale:
    """How much is measured: accounts of the book, records a run by batch size, single records, marks."""

    accounts: int
    records: dict[int, int]
    stock_records: int
    singles: int
    marks: int
    demo_accounts: int
    # Accounts of the largest population, ticks of the crash day, events of a hot account, and of a cold start.
    population: int = 1_000_000
    crash_ticks: int = 5_000
    hot_events: int = 1_000_000
    cold_accounts: int = 100_000
    cold_events: int = 1_000_000


FULL: Final = Scale(10_000, {1: 1_000, 10: 3_000, 100: 10_000, 1_000: 20_000}, 1_000, 2_000, 500, 2_000)
QUICK: Final = Scale(2_000, {1: 300, 10: 1_000, 100: 2_000, 1_000: 5_000}, 300, 300, 200, 200,
                      population=20_000, crash_ticks=500, hot_events=20_000, cold_accounts=2_000, cold_events=20_000)


class Stage:
    """Built piece by piece as benchmarks ask for it; `tell` shows what is being done."""

    def __init__(self, folder: Path, scale: Scale, tell: Callable[[str], None]) -> None:
        self.folder, self.scale, self.tell = folder, scale, tell
        self.path = folder / "bench.ledger"
        self.mix = Mix(scale.accounts)
        self._opening: list[bytes] = []
        self._shard: Shard | None = None
        self._memory_shard: Shard | None = None
        self._stock: StockApplication | None = None
        self._line = 0
        # What benchmarks of one file share.
        self.kept: dict[str, object] = {}
        # Whether an ingest was measured, so that there is a log worth replaying.
        self.is_written = False
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def opening(self) -> list[bytes]:
        """The records that set up the book."""
        if not self._opening:
            self._opening = list(self.mix.opening())
        return self._opening

    @property
    def shard(self) -> Shard:
        """The writer over the ledger file, its book set up."""
        if self._shard is None:
            self.tell(f"setting up a ledger of {self.scale.accounts:,} accounts")
            shard = self._stack.enter_context(open_ledger(self.path, venue=SimulatedVenue()))
            self._fill(shard)
            self._shard = shard
        return self._shard

    @property
    def stock(self) -> StockApplication:
        """The stock application, its book set up."""
        if self._stock is None:
            self.tell(f"setting up a stock application of {self.scale.accounts:,} accounts")
            self._stock = self._stack.enter_context(stock_application(self.folder / "stock.db", self.scale.accounts))
            self._stock.set_up(self.opening)
        return self._stock

    @property
    def memory_shard(self) -> Shard:
        """A ledger in memory, its book set up, for what is measured without a store."""
        if self._memory_shard is None:
            self.tell(f"setting up {self.scale.accounts:,} accounts in memory")
            shard = in_memory(venue=SimulatedVenue())
            self._fill(shard)
            self._memory_shard = shard
        return self._memory_shard

    def deliver(self, records: Iterable[bytes]) -> Iterator[Delivered]:
        """Records as a file's lines deliver them: parsed one by one."""
        for raw in records:
            self._line += 1
            yield read(Place(SOURCE, line=self._line), raw)

    def fresh_id(self) -> str:
        """An id that no record of the mix has."""
        self._line += 1
        return f"{SOURCE}-{self._line}"

    def _fill(self, shard: Shard) -> None:
        require_applied(shard.ingest(self.deliver(self.opening), batch_size=SETUP_BATCH))


def require_applied(outcomes: Iterable[Outcome]) -> None:
    """The mix holds nothing that a ledger rejects; a figure over rejections would mean nothing."""
    counts = Counter((outcome.kind, outcome.reason) for outcome in outcomes)
    if any(kind in ("rejected", "duplicate") for kind, _ in counts):
        raise RuntimeError(f"expected every record of the mix to be applied or refused, came {dict(counts)}")
