"""The command `clearing`: its entry point, and the commands that run something rather than read a ledger.

Exit codes: 0 done, 1 refused, 2 usage or bad input, 3 mismatch found. Faults are one sentence on standard error
(`infra.cli_console`). This file never computes a figure: it reads the command line, calls, and prints.

Neighbours: `infra.cli_ingest` and `infra.cli_reports` hold the other commands.
"""

from __future__ import annotations

import fcntl
import gc
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from infra import (
    cli_copies,
    cli_dead_letters,
    cli_ladder,
    cli_lists,
    cli_margin,
    cli_record,
    cli_reports,
    cli_shards,
    cli_streams,
)
from infra.cli_console import (
    MISMATCH,
    AsJson,
    CommandFault,
    Commands,
    LedgerPath,
    Point,
    open_reader,
    parse_point,
    print_json,
    stdout_console,
)
from infra.cli_ingest import ingest
from infra.embedded import LedgerReader, lock_of
from infra.store.address import SCHEMES
from ledger.errors import LedgerLocked, LedgerUnreadable

DEMO_LEDGER: Final = Path("demo-ledger.db")
DIFFERENCES_SHOWN_MAX: Final = 20

app = typer.Typer(
    name="clearing", cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    help="An event-sourced clearing ledger: margin, calls, liquidations, proofs. Start with `clearing demo`.")


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"clearing {version('clearing-ledger')}")
        except PackageNotFoundError:
            typer.echo("clearing, not installed: run from its sources")
        raise typer.Exit


@app.callback()
def _options(_: Annotated[bool, typer.Option(
        "--version", callback=_print_version, is_eager=True, help="Print the version.")] = False) -> None:
    """What stands before any command."""


# --- demo --------------------------------------------------------------------------------------------------------


@app.command()
def demo(
        accounts: Annotated[int, typer.Option("--accounts", metavar="N", min=1, help="How many accounts.")] = 2_000,
        seed: Annotated[int, typer.Option("--seed", metavar="N", help="What the dice start from.")] = 20190924,
        ledger: Annotated[Path, typer.Option(
            "--ledger", metavar="PATH", help="The ledger file to make.")] = DEMO_LEDGER,
        fresh: Annotated[bool, typer.Option("--fresh", help="Delete the ledger that is there first.")] = False) -> None:
    """Run a whole ledger in one process on real prices.

    \b
    Example: clearing demo --accounts 500 --fresh
    """
    # As a path, two slashes have become one.
    if str(ledger).startswith(tuple(f"{scheme}:/" for scheme in SCHEMES)):
        raise CommandFault(f"--ledger: expected a file to make, came {ledger}; the demo keeps its ledger in a file")
    if ledger.exists():
        if not fresh:
            raise CommandFault(f"expected no file at {ledger}, there is one; pass --fresh to delete it first, or "
                               "--ledger with another name")
        _discard(ledger)
    from infra.demo.run import run_demo

    run_demo(ledger, accounts=accounts, seed=seed, console=Console())


def _discard(ledger: Path) -> None:
    """Delete a ledger and what SQLite and the writer keep beside it; nothing that is no ledger, none being written."""
    try:
        LedgerReader(ledger).connection.close()
    except LedgerUnreadable as fault:
        raise CommandFault(f"--fresh deletes ledgers only: {fault}; delete {ledger} yourself, or pass --ledger with "
                           "another name") from None
    lock = lock_of(ledger)
    with suppress(FileNotFoundError), lock.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerLocked(f"{ledger} is being written by {held.read(200).strip() or 'another process'}; expected "
                               "nobody to write it") from None
    for path in (ledger, Path(f"{ledger}-wal"), Path(f"{ledger}-shm"), lock):
        path.unlink(missing_ok=True)


# --- ingest, reports ---------------------------------------------------------------------------------------------

app.command()(ingest)
for _report in (
        cli_reports.events, cli_reports.account, cli_reports.accounts, cli_reports.calls, cli_lists.liquidations,
        cli_reports.statement, cli_lists.movements, cli_lists.charges, cli_lists.orders, cli_lists.trades,
        cli_reports.journal, cli_reports.markets, cli_lists.assets, cli_lists.halts, cli_reports.funds,
        cli_ladder.ladder, cli_record.record, cli_lists.rejections, cli_shards.shards, cli_shards.reconcile,
        cli_copies.backup, cli_copies.restore, cli_copies.upgrade, cli_copies.snapshot):
    app.command()(_report)
app.add_typer(cli_dead_letters.dlq_app, name="dlq")
app.add_typer(cli_streams.topics_app, name="topics")
app.command("worker")(cli_streams.run_worker)
app.command("relay")(cli_streams.run_relay)
app.command()(cli_streams.doctor)
app.command()(cli_streams.status)


# --- margin, rulebooks -------------------------------------------------------------------------------------------

for _calculation in (cli_margin.margin, cli_margin.rulebooks, cli_margin.rulebook):
    app.command()(_calculation)


# --- replay ------------------------------------------------------------------------------------------------------


@app.command()
def replay(
        ledger: LedgerPath,
        until: Annotated[Point | None, typer.Option(
            "--until", metavar="N|TIME", parser=parse_point, help="Up to this log position or time.")] = None,
        as_json: AsJson = False) -> None:
    """Decide everything anew from the facts, and compare.

    \b
    Example: clearing replay --ledger desk.db
    """
    from infra.replay import replay_ledger

    with open_reader(ledger) as reader:
        last = None if until is None else until.last(reader)
    with _bar() as tell:
        report = replay_ledger(ledger, until=last, progress=tell)
    differences = [{"position": row.position, "kind": row.kind, "expected": row.expected, "came": row.came}
                   for row in report.differences]
    if as_json:
        print_json({"events": report.events, "records": report.records, "decisions": report.decisions,
                    "root": report.root, "seconds": round(report.seconds, 3), "differences": differences})
    else:
        console = stdout_console()
        rate = int(report.events / report.seconds) if report.seconds else report.events
        console.print(f"{report.events} events replayed in {report.seconds:.2f} s ({rate} events/s): "
                      f"{report.records} records, {report.decisions} decisions", soft_wrap=True)
        console.print(f"root {report.root}", soft_wrap=True)
        for row in differences[:DIFFERENCES_SHOWN_MAX]:
            place = "" if row["position"] is None else f"log position {row['position']}: "
            console.print(f"{place}{row['kind']}: expected {row['expected']}, came {row['came']}", soft_wrap=True)
        if not differences:
            console.print("Everything follows from the facts, byte for byte.", soft_wrap=True)
    if differences:
        shown = "" if len(differences) <= DIFFERENCES_SHOWN_MAX or as_json else "; --json prints all"
        raise CommandFault(f"expected nothing to differ, {len(differences)} "
                           f"{'thing does' if len(differences) == 1 else 'things do'}{shown}", MISMATCH)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """Progress on standard error, where somebody looks at it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("replaying"), BarColumn(), TaskProgressColumn(), TextColumn("{task.completed} events"),
               TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda position, end: progress.update(task, completed=position, total=end)


def main() -> None:
    """The entry point of the command."""
    # A ledger makes many objects and no cycles; looking for cycles after every 700 costs a tenth of the time.
    gc.set_threshold(100_000, 50, 1_000)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Ids may hold characters that a terminal cannot show; an escape is better than no answer.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="clearing")


if __name__ == "__main__":
    main()
