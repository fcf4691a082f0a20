"""`clearing ingest`: records of files into an embedded ledger, with progress and a summary of what this run did.

Every input that can be looked at beforehand is, so that a misspelt name makes no empty ledger and a wrong file no
thousand rejections. This file never decides what becomes of a record: the shard does.
"""

from __future__ import annotations

import shlex
import sqlite3
import stat
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from infra.cli_console import (
    MISMATCH,
    AsJson,
    CommandFault,
    Ledger,
    LedgerPath,
    print_json,
    remark,
    stdout_console,
    waiting,
)
from infra.embedded import open_ledger
from infra.shard import Shard
from infra.store.address import PostgresAddress
from infra.streams.candles import HEADER, is_candles, read_candles
from infra.streams.records import Delivered, open_input, read_lines, source_name
from infra.venue import SimulatedVenue
from ledger.amounts import NANOSECONDS, ZERO, exact, plain
from ledger.clearing_house import ClearingHouse
from ledger.errors import LedgerUnreadable
from ledger.events import (
    LiquidationStarted,
    MarginCallIssued,
    PriceRejected,
    Recorded,
    RecordRejected,
    ShortfallClaimed,
)

REJECTIONS_SHOWN_MAX: Final = 5
_HEAD_BYTES: Final = 512
_STANDARD_INPUT: Final = "-"


def ingest(
        files: Annotated[list[str], typer.Argument(
            metavar="FILE...", help="JSON lines, or a CSV of candles; gzipped or not; - is standard input.",
            show_default=False)],
        ledger: LedgerPath,
        source: Annotated[str | None, typer.Option(
            "--source", metavar="NAME", help="Whose records they are, instead of each file's name.")] = None,
        list_unknown: Annotated[bool, typer.Option(
            "--list", help="List the unknown symbols of a CSV as linear BASE-QUOTE.")] = False,
        venue: Annotated[Literal["simulated"] | None, typer.Option(
            "--venue", help="Who fills liquidation orders; without, they wait for fill records.")] = None,
        batch: Annotated[int, typer.Option(
            "--batch", metavar="N", min=1, max=100_000, help="Records a commit.")] = 1_000,
        future_tolerance: Annotated[int, typer.Option(
            "--future-tolerance", metavar="SECONDS", min=0,
            help="How far a record's time may lie ahead of the wall clock.")] = 60,
        as_json: AsJson = False) -> None:
    """Feed records into a ledger, made where there is none.

    \b
    Example: clearing ingest records.jsonl prices.csv.gz --ledger desk.db --list --venue simulated
    """
    if files.count(_STANDARD_INPUT) > 1:
        raise CommandFault("expected - but once, since standard input can be read only once")
    inputs = [_Input(file, source or source_name(file)) for file in files]
    for found in inputs:
        _check(found.path)
    started = time.perf_counter()
    with _writer(ledger, SimulatedVenue() if venue else None) as shard:
        tally = Tally()
        shard.listeners.append(tally.follow)
        fault = _feed(shard, inputs, tally, batch=batch, list_unknown=list_unknown, tolerance=future_tolerance)
        summary = {**tally.summary(shard), "seconds": round(time.perf_counter() - started, 3)}
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary, ledger)
    _tell_rejected(tally, ledger, list_unknown=list_unknown)
    if not summary["balanced"]:
        raise CommandFault("expected every asset to sum to zero over all owners, it does not; `clearing journal "
                           f"--ledger {shlex.quote(str(ledger))}` shows which", MISMATCH)
    if fault is not None:
        raise fault


@contextmanager
def _writer(ledger: Ledger, venue: SimulatedVenue | None) -> Iterator[Shard]:
    with ExitStack() as stack:
        try:
            with waiting("opening the ledger"):
                shard = stack.enter_context(open_ledger(ledger, venue=venue))
            if shard.notice is not None:
                remark(shard.notice)
        except LedgerUnreadable as fault:
            if not isinstance(fault.__cause__, sqlite3.Error) and (
                    isinstance(ledger, PostgresAddress) or ledger.parent.is_dir()):
                raise
            raise CommandFault(f"{fault}; name a ledger, or a new file for one, with --ledger") from None
        yield shard


# --- inputs ------------------------------------------------------------------------------------------------------


class _Input(NamedTuple):
    """What is to be read, and the source that its records belong to."""

    path: str
    source: str


def _check(path: str) -> None:
    """Look at a file before the ledger is opened; what can be read but once is looked at when it is read."""
    if path != _STANDARD_INPUT:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            with open_input(path) as stream:
                _is_candles(path, stream)


def _is_candles(path: str, stream: BinaryIO) -> bool:
    """Whether the rows are candles; CommandFault where the input can be neither candles nor JSON lines."""
    try:
        head = stream.peek(_HEAD_BYTES)  # type: ignore[attr-defined] # open_input gives buffered readers
    except (OSError, EOFError, zlib.error) as fault:
        raise CommandFault(f"{path}: expected a readable file, came: {fault}") from None
    line = head.split(b"\n", 1)[0].rstrip(b"\r")
    if head.startswith(b"SQLite format 3\0"):
        raise CommandFault(f"{path}: expected records, came a database; the ledger goes behind --ledger")
    looks = is_candles(line)
    if (looks or path.removesuffix(".gz").endswith(".csv")) and line != HEADER.encode():
        raise CommandFault(f"{path}: expected a CSV of candles with the header {HEADER!r}, came "
                           f"{line.decode(errors='replace')[:120]!r}")
    return looks


class _Listed:
    """The assets and instruments that the ledger knows by now."""

    def __init__(self, house: ClearingHouse) -> None:
        self._house = house

    def __contains__(self, name: object) -> bool:
        return name in self._house.markets or name in self._house.assets


def _records(found: _Input, house: ClearingHouse, *, list_unknown: bool, tolerance: int) -> Iterator[Delivered]:
    with open_input(found.path) as stream:
        if _is_candles(found.path, stream):
            yield from read_candles(found.source, stream, list_unknown=list_unknown, known=_Listed(house))
        else:
            ahead = tolerance * NANOSECONDS
            yield from read_lines(found.source, stream, latest=lambda: time.time_ns() + ahead)


class _Guarded:
    """Records up to where their input can no longer be read: what came before it is still to be applied."""

    def __init__(self, found: _Input, records: Iterator[Delivered]) -> None:
        self._found, self._records = found, records
        self.fault: CommandFault | None = None

    def __iter__(self) -> Iterator[Delivered]:
        line: int | None = None
        try:
            for delivered in self._records:
                line = delivered.place.line
                yield delivered
        except (OSError, EOFError, zlib.error) as wrong:
            where = "" if line is None else f" after line {line}"
            self.fault = CommandFault(
                f"{self._found.path}: expected to read it to its end, came{where}: {wrong}; all before it is applied: "
                "get the whole file and run the same command again")


def _feed(shard: Shard, inputs: Sequence[_Input], tally: Tally, *, batch: int, list_unknown: bool,
          tolerance: int) -> CommandFault | None:
    """All inputs, one after the other; the fault of the first that cannot be read to its end."""
    with _progress(tally) as tell:
        for found in inputs:
            tell(found.path)
            guarded = _Guarded(found, _records(found, shard.house, list_unknown=list_unknown, tolerance=tolerance))
            for outcome in shard.ingest(guarded, batch_size=batch):
                tally.outcomes[outcome.kind] += 1
                if outcome.reason is not None and outcome.kind in tally.reasons:
                    tally.reasons[outcome.kind][outcome.reason] += 1
            if guarded.fault is not None:
                return guarded.fault
    return None


# --- what the run did --------------------------------------------------------------------------------------------


class Rejection(NamedTuple):
    """A rejected record, as it is shown."""

    source: str
    line: int | None
    reason: str
    message: str


class Tally:
    """Counts of one run: outcomes of its records, and what the ledger decided in its course."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = {"refused": Counter(), "rejected": Counter()}
        self.events = self.margin_calls = self.liquidations = 0
        self.shortfalls: dict[str, Decimal] = {}
        self.rejections: list[Rejection] = []
        self.told: Callable[[], None] | None = None

    def follow(self, committed: Sequence[Recorded]) -> None:
        """Count the events of a commit."""
        self.events += len(committed)
        for recorded in committed:
            event = recorded.event
            match event:
                case MarginCallIssued():
                    self.margin_calls += 1
                case LiquidationStarted():
                    self.liquidations += 1
                case ShortfallClaimed():
                    with exact():
                        self.shortfalls[event.asset] = self.shortfalls.get(event.asset, ZERO) + event.amount
                case RecordRejected() | PriceRejected() if len(self.rejections) < REJECTIONS_SHOWN_MAX:
                    cause = event.cause
                    self.rejections.append(Rejection(cause.source, cause.line, event.reason, event.message))
        if self.told is not None:
            self.told()

    def summary(self, shard: Shard) -> dict[str, Any]:
        """What contracts section 4 wants told; counts are of this run."""
        shortfall, asset = self._shortfall(shard.house)
        return {
            "records": self.outcomes.total(), "events": self.events,
            **{kind: self.outcomes[kind] for kind in ("applied", "duplicate", "refused", "rejected")},
            "margin_calls": self.margin_calls, "liquidations": self.liquidations, "shortfall": plain(shortfall),
            "shortfall_asset": asset,
            "shortfall_by_asset": {name: plain(amount) for name, amount in sorted(self.shortfalls.items())},
            "reasons": self.reasons, "log_position": shard.house.position,
            "root": shard.root.hex(), "balanced": shard.is_balanced()}

    def _shortfall(self, house: ClearingHouse) -> tuple[Decimal, str]:
        """All that was claimed: in its asset, or, when in several, valued at marks in the valuation asset."""
        if len(self.shortfalls) == 1:
            asset, amount = next(iter(self.shortfalls.items()))
            return amount, asset
        rules = house.rules()
        price_of = house.price_of(rules)
        with exact():
            # A loss was settled in an asset whose mark counted then, so that it has one still.
            return sum((amount * (price_of(asset) or ZERO) for asset, amount in self.shortfalls.items()),
                       ZERO), rules.valuation_asset


def _progress(tally: Tally) -> AbstractContextManager[Callable[[str], None]]:
    console = Console(stderr=True)
    return _live(tally, console) if console.is_terminal else nullcontext(lambda _: None)


@contextmanager
def _live(tally: Tally, console: Console) -> Iterator[Callable[[str], None]]:
    """A line that says how far it is: called with the file at hand."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed} records"),
               TextColumn("{task.fields[rate]}/s"), TextColumn("{task.fields[calls]} calls"),
               TextColumn("{task.fields[liquidations]} liquidations"), TimeElapsedColumn())
    started = time.perf_counter()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, rate=0, calls=0, liquidations=0)

        def tell() -> None:
            records = tally.outcomes.total()
            progress.update(task, completed=records, rate=int(records / (time.perf_counter() - started)),
                            calls=tally.margin_calls, liquidations=tally.liquidations)

        tally.told = tell
        yield lambda path: progress.update(task, description=Path(path).name)


def _print_summary(summary: dict[str, Any], ledger: Ledger) -> None:
    console = stdout_console()
    rate = int(summary["records"] / summary["seconds"]) if summary["seconds"] else summary["records"]
    outcomes = ", ".join(f"{summary[kind]} {kind}" for kind in ("applied", "duplicate", "refused", "rejected"))
    rows = {
        "records": f"{summary['records']} ({outcomes})",
        "events": f"{summary['events']} in {summary['seconds']} s ({rate} records/s)",
        "margin calls": summary["margin_calls"], "liquidations": summary["liquidations"],
        "shortfall": f"{summary['shortfall']} {summary['shortfall_asset']}",
        "ledger": f"{ledger}, log position {summary['log_position']}, "
                  f"{'balanced' if summary['balanced'] else 'NOT BALANCED'}",
        "root": summary["root"]}
    for name, value in rows.items():
        console.print(f"{name:13} {value}", soft_wrap=True)


def _tell_rejected(tally: Tally, ledger: Ledger, *, list_unknown: bool) -> None:
    """The first rejected records and how to see the rest; that refusals happened shows in the summary."""
    rejected, reasons = tally.outcomes["rejected"], tally.reasons["rejected"]
    if not rejected:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    remark(f"{rejected} {'record was' if rejected == 1 else 'records were'} rejected, and recorded as such ({counts}):")
    for row in tally.rejections:
        place = row.source if row.line is None else f"{row.source}:{row.line}"
        remark(f"  {place}: {row.reason}: {row.message}")
    if rejected > len(tally.rejections):
        remark(f"  ... and {rejected - len(tally.rejections)} more")
    remark(f"See them all: clearing events --ledger {shlex.quote(str(ledger))} --type record-rejected "
           "--type price-rejected")
    if reasons["unknown-instrument"] and not list_unknown:
        remark("--list lists the symbols of a CSV that the ledger does not know, before their first prices; those that "
               "were rejected stay so.")
