"""Replay of the ledger just written: every row hashed and decoded, every decision derived anew and compared.

Beside it, the decoding alone of the stock application's log by the stock mapper. It never writes.
"""

from __future__ import annotations

import time

from infra.replay import replay_ledger
from tests.benchmarks.figures import Sample
from tests.benchmarks.ingest import ingest
from tests.benchmarks.stage import Stage
from tests.benchmarks.stock import StockApplication

PAGE = 5_000


def replay(stage: Stage) -> Sample:
    """Events per second."""
    if not stage.is_written:
        ingest(stage, 1_000)
    stage.tell("replaying the ledger")
    report = replay_ledger(stage.path, progress=lambda position, end: stage.tell(
        f"replaying the ledger, {position:,} of {end:,} events"))
    if report.differences:
        raise RuntimeError(f"expected a ledger that replays, came {report.differences[:3]}")
    stage.tell("decoding the stock application's log")
    return Sample(report.events / report.seconds, {"stock log decode alone": _decode(stage.stock)},
                  {"events": report.events, "records": report.records, "decisions": report.decisions,
                   "seconds": report.seconds})


def _decode(stock: StockApplication) -> float:
    count = after = 0
    started = time.perf_counter()
    while page := stock.recorder.select_notifications(after + 1, PAGE):
        for row in page:
            stock.mapper.to_domain_event(row)
        count += len(page)
        after = page[-1].id
    return count / (time.perf_counter() - started)
