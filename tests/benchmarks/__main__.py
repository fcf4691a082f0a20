"""`python -m tests.benchmarks`: measures the ledger beside peers and bounds in the same run, prints and writes both.

Ratios beside a peer mean something on a busy machine, the figures themselves only with the load that stands above
them. It never fails for a slow figure: figures are no tests.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks.endurance import cold_start, fill_rearm, hot_account
from tests.benchmarks.figures import Figure, Sample, figure, table
from tests.benchmarks.ingest import ingest
from tests.benchmarks.latency import single_records
from tests.benchmarks.machine import facts, load
from tests.benchmarks.margin import evaluations, liquidation_prices, portfolio_evaluations
from tests.benchmarks.mark import calm_mark
from tests.benchmarks.memory import demo_memory
from tests.benchmarks.population import bytes_per_position, calm_tick, crash_day_tick, funding, gap_tick
from tests.benchmarks.replay import replay
from tests.benchmarks.stage import FULL, QUICK, Stage
from tests.benchmarks.streaming import relay_events, stream_records, takeover, tick_to_call

Measure = Callable[[Stage], Sample]
# Bulk work makes many objects and no cycles, so looking for cycles after every 700 objects costs a tenth of the time.
GC_THRESHOLDS: Final = (100_000, 50, 1_000)
# name -> unit, how to measure a run, most runs (those that take long are run once)
BENCHMARKS: Final[dict[str, tuple[str, Measure, int]]] = {
    **{f"ingest_batch_{size}": ("records/s", partial(ingest, batch_size=size), 100) for size in (1, 10, 100, 1_000)},
    "latency_single_p99": ("s", single_records, 100),
    "replay": ("events/s", replay, 1),
    "calm_mark": ("s", calm_mark, 100),
    "hot_account_slowdown": ("times", hot_account, 1),
    "fill_rearm": ("fills/s", fill_rearm, 100),
    # One population is kept at a time, and what moves its accounts comes last.
    **{f"calm_tick_{name}": ("s", partial(calm_tick, accounts=accounts), 1)
       for name, accounts in (("10k", 10_000), ("100k", 100_000), ("1m", 1_000_000))},
    "bytes_per_position": ("bytes", bytes_per_position, 1),
    "funding_1m": ("s", funding, 1),
    "crash_day_tick_1m": ("s", crash_day_tick, 1),
    "gap_tick_1m": ("s", gap_tick, 1),
    "cold_start_1m": ("s", cold_start, 1),
    **{f"evaluate_{positions}": ("evaluations/s", partial(evaluations, positions=positions), 100)
       for positions in (5, 50)},
    "evaluate_portfolio_50": ("evaluations/s", partial(portfolio_evaluations, positions=50), 100),
    "liquidation_price": ("prices/s", liquidation_prices, 100),
    "demo_memory": ("MB", demo_memory, 1),
    **{f"stream_records_{shards}": ("records/s", partial(stream_records, partitions=shards), 1)
       for shards in (1, 2, 4)},
    "relay_events": ("events/s", relay_events, 1),
    "takeover": ("s", takeover, 1),
    "tick_to_call_p50": ("s", partial(tick_to_call, share=50), 1),
    "tick_to_call_p99": ("s", partial(tick_to_call, share=99), 1),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for."""
    options = _options(arguments)
    names = [name for name in BENCHMARKS if any(fnmatchcase(name, wanted) for wanted in options.only or ["*"])]
    if not names:
        print(f"expected --only with one of {', '.join(BENCHMARKS)}, came {' '.join(options.only)}", file=sys.stderr)
        return 2
    scale = QUICK if options.quick else FULL
    if options.accounts:
        scale = replace(scale, accounts=options.accounts)
    runs = options.runs or (1 if options.quick else 3)
    console = Console()
    gc.set_threshold(*GC_THRESHOLDS)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="clearing-bench-", dir=options.disk) as folder:
        machine = {**facts(Path(folder)), "load_before": load()}
        found = _measure(console, partial(Stage, Path(folder), scale), names, runs)
    machine |= {"load_after": load(), "seconds": round(time.perf_counter() - started, 1)}
    console.print(table(found))
    for name, value in machine.items():
        console.print(f"{name.replace('_', ' ')}: {value}", highlight=False)
    options.json.write_text(json.dumps([{**row.as_json(), "machine": machine} for row in found], indent=1) + "\n",
                            encoding="utf-8")
    console.print(f"written to {options.json}", highlight=False)
    return 0


def _measure(console: Console, stage_of: Callable[[Callable[[str], None]], Stage], names: Sequence[str],
             runs: int) -> list[Figure]:
    found = []
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                  console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(min(runs, BENCHMARKS[name][2]) for name in names))
        name = ""
        with stage_of(lambda what: progress.update(task, description=f"{name}: {what}")) as stage:
            for name in names:
                unit, measure, most = BENCHMARKS[name]
                samples = []
                for _ in range(min(runs, most)):
                    samples.append(measure(stage))
                    progress.advance(task)
                found.append(figure(name, unit, samples))
                progress.console.print(f"{name}: {found[-1].value:,.6g} {unit}", highlight=False)
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(
        "Measure the ledger beside peers and bounds in the same run. Example: python -m tests.benchmarks --quick "
        "--only 'ingest_*'"))
    parser.add_argument("--quick", action="store_true", help="smaller and once: a first look in under 90 s")
    parser.add_argument("--only", metavar="NAME", action="append", help="one benchmark, or a pattern; may be repeated")
    parser.add_argument("--runs", metavar="N", type=_positive, help="runs of each benchmark (3; quick: 1)")
    parser.add_argument("--accounts", metavar="N", type=_positive, help=f"accounts of the book ({FULL.accounts:,})")
    parser.add_argument("--json", metavar="PATH", type=Path, default=Path("bench.json"), help="where to write the "
                        "figures (bench.json)")
    parser.add_argument("--disk", metavar="FOLDER", default="/var/tmp", help="where the ledgers are written for the "
                        "time of the run: a disk, since a file system in memory makes nothing durable (/var/tmp)")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, came {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
