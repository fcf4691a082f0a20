"""What all commands share: options, faults as one sentence with an exit code, a ledger to read, tables, JSON, CSV.

Figures in tables are rounded for the eye; JSON and CSV have them exact. Answers go to standard output; faults,
notes and progress to standard error. This file never knows what a single command does.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import shlex
import sqlite3
import sys
import traceback
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from decimal import Decimal
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from eventsourcing.persistence import PersistenceError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from infra.embedded import LedgerReader
from infra.embedded import open_reader as open_stored
from infra.store.address import BadAddress, PostgresAddress, ledger_address
from ledger.amounts import exact, nanoseconds, plain, rfc3339
from ledger.clearing_house import ClearingHouse
from ledger.errors import BrokenInvariant, LedgerLocked, LedgerUnreadable
from projections.database import Connection
from projections.figures import brief, brief_ratio
from projections.read_model import ReadModels

DONE: Final = 0
REFUSED: Final = 1
BAD_INPUT: Final = 2
MISMATCH: Final = 3
INTERRUPTED: Final = 130

# A terminal is read by eye; whoever wants all of a million rows wants them in a file.
TABLE_ROWS_MAX: Final = 200
# As many records as can still be compared when each is a column.
UPRIGHT_ROWS_MAX: Final = 4
# Wide enough that no table is ever folded where nobody looks at it.
PIPE_COLUMNS: Final = 10_000
# Beyond the end of any log.
LAST_POSITION: Final = 2**62


# --- faults ------------------------------------------------------------------------------------------------------


class CommandFault(Exception):
    """A command cannot be done: one sentence of what was expected, what came, and what to do next."""

    def __init__(self, message: str, code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.code = code


class Commands(TyperGroup):
    """The group of all commands: turns what may go wrong into a sentence on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. What is no fault of the user's shows its traceback where CLEARING_TRACEBACK is set."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            # Whoever read us has seen enough. What is still buffered must go somewhere when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(DONE) from None
        except KeyboardInterrupt:
            again = ", and the same command goes on from there" if ctx.invoked_subcommand == "ingest" else ""
            complain(f"stopped; whatever was committed stays{again}")
            raise typer.Exit(INTERRUPTED) from None
        except (CommandFault, LedgerLocked, LedgerUnreadable, BrokenInvariant, PersistenceError, sqlite3.Error, OSError,
                EOFError, zlib.error) as fault:
            if os.environ.get("CLEARING_TRACEBACK"):
                traceback.print_exception(fault)
            message, code = _sentence(fault)
            complain(message)
            raise typer.Exit(code) from None
        return result


def _sentence(fault: Exception) -> tuple[str, int]:
    match fault:
        case CommandFault(code=code):
            return str(fault), code
        case LedgerLocked():
            return f"{fault}; wait until it is done, or stop it, and run the same command again", REFUSED
        case LedgerUnreadable():
            return str(fault), BAD_INPUT
        case BrokenInvariant():
            return (f"the ledger contradicts itself: {fault}; `clearing replay --ledger PATH` shows where, and "
                    "CLEARING_TRACEBACK=1 where in the code"), MISMATCH
        case FileNotFoundError() | IsADirectoryError() | NotADirectoryError() | PermissionError():
            return f"{fault.filename or 'input'}: expected a file to open, came: {_reason(fault)}", BAD_INPUT
        case EOFError() | zlib.error() | gzip.BadGzipFile():
            return f"expected an input that can be read to its end, came: {fault}; get the whole file again", BAD_INPUT
        case OSError():
            return f"the system failed: {fault}; what was committed stays, run the same command again", REFUSED
        case _:
            return (f"the store failed: {str(fault).strip()}; what was committed stays: see that the disk has room and "
                    "the file may be written, or that the server answers, and run the same command again"), REFUSED


def _reason(fault: OSError) -> str:
    return (fault.strerror or "nothing").lower()


def complain(message: str) -> None:
    """One fault on standard error."""
    typer.echo(f"Error: {message}", err=True)


def hint(near: Sequence[str], otherwise: str) -> str:
    """What a sentence on a name that is not there ends with: names like it, else where all of them are listed."""
    return f"; did you mean {' or '.join(near)}?" if near else f"; {otherwise}"


def remark(message: str) -> None:
    """Something worth knowing beside the answer, on standard error."""
    typer.echo(message, err=True)


def waiting(message: str) -> AbstractContextManager[object]:
    """A sign of life on standard error while something takes its time; nothing where nobody looks."""
    console = Console(stderr=True)
    return console.status(message) if console.is_terminal else nullcontext()


# --- options -----------------------------------------------------------------------------------------------------


def parse_time(text: str) -> int:
    """A time of the command line, in nanoseconds."""
    try:
        return nanoseconds(text)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None


class Point(NamedTuple):
    """A place in the log as the command line names it: a log position or a log time."""

    position: int | None
    time: int | None

    def last(self, reader: LedgerReader) -> int:
        """The last log position up to this point, itself included."""
        return reader.position_at(self.time) if self.time is not None else self.position or 0

    def first(self, reader: LedgerReader) -> int:
        """The first log position from this point on."""
        return reader.position_at(self.time - 1) + 1 if self.time is not None else self.position or 0


def parse_point(text: str) -> Point:
    """A log position or a time."""
    if text.isascii() and text.isdigit() and len(text) < 19:
        return Point(int(text), None)
    try:
        return Point(None, nanoseconds(text))
    except ValueError:
        raise typer.BadParameter(
            f"expected a log position such as 120, or a time such as 2019-09-24T18:00:00Z, came {text!r}") from None


def parse_ledger(text: str) -> Path | PostgresAddress:
    """A ledger of the command line: a file, or a shard of a server."""
    try:
        found = ledger_address(text)
    except BadAddress as fault:
        raise typer.BadParameter(str(fault)) from None
    if isinstance(found, PostgresAddress) and find_spec("psycopg") is None:
        raise typer.BadParameter("a ledger in PostgreSQL needs psycopg: pip install 'clearing-ledger[postgres]'")
    return found


Ledger = Path | PostgresAddress
# Any, because typer takes no unions: it is what the parser gives.
LedgerPath = Annotated[Any, typer.Option(
    "--ledger", metavar="PATH", envvar="CLEARING_LEDGER", show_envvar=False, parser=parse_ledger,
    help="The ledger: a file, or postgresql://HOST/DATABASE?shard=NAME; may also stand in CLEARING_LEDGER.")]
AtTime = Annotated[int | None, typer.Option(
    "--at", metavar="TIME", parser=parse_time, help="As it was at this log time.")]
AtPosition = Annotated[int | None, typer.Option(
    "--at-position", metavar="N", min=0, help="As it was after this log position.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
PartName = Annotated[str | None, typer.Option(
    "--part", metavar="NAME", help="Which of the tables, for --csv: it prints the first unless told.")]


# --- a ledger to read --------------------------------------------------------------------------------------------


@contextmanager
def open_reader(ledger: Ledger) -> Iterator[LedgerReader]:
    """A ledger to be read; where there is none, the sentence says how to make one."""
    if isinstance(ledger, Path) and not ledger.exists():
        raise CommandFault(_none_at(ledger))
    try:
        reader = open_stored(ledger)
    except LedgerUnreadable as fault:
        if isinstance(ledger, PostgresAddress):
            raise CommandFault(_none_at(ledger)) from None
        raise CommandFault(f"{fault}; expected a file that `clearing ingest` or `clearing demo` made") from None
    with reader:
        yield reader


def _none_at(ledger: Ledger) -> str:
    return (f"expected a ledger at {ledger}, there is none; `clearing ingest FILE --ledger {shlex.quote(str(ledger))}` "
            "makes one")


class View:
    """A ledger as it stood at one log position: its read models, and a clearing house folded up to there."""

    def __init__(self, reader: LedgerReader, models: Connection) -> None:
        self.reader, self.models = reader, models
        self.position = ReadModels(models).position()

    @cached_property
    def house(self) -> ClearingHouse:
        """The states at the position; made when first asked for, since all of the log is folded."""
        house = ClearingHouse()
        with waiting("folding the log"), exact():
            house.load(self.reader.log(until=self.position))
        return house

    @property
    def time(self) -> str:
        """Log time at the position; empty before the first event."""
        rows = self.reader.select(self.position - 1, 1) if self.position else ()
        return rfc3339(rows[0].event.time) if rows else ""

    def place(self) -> dict[str, Any]:
        """Where this stands, for the head of a report."""
        return {"log_position": self.position, "log_time": self.time or None}


@contextmanager
def reading(ledger: Ledger, at: int | None, at_position: int | None) -> Iterator[View]:
    """A ledger at the end of its log, or at an earlier point of it."""
    if at is not None and at_position is not None:
        raise CommandFault("expected --at or --at-position, came both; leave one out")
    with open_reader(ledger) as reader:
        with waiting("reading the log"):
            until = at_position if at is None else reader.position_at(at)
            models = _read_models(reader, until)
        view = View(reader, models)
        if until is not None and until > view.position:
            raise CommandFault(f"--at-position: expected at most {view.position}, where the log of {ledger} ends, came "
                               f"{until}")
        yield view


def _read_models(reader: LedgerReader, until: int | None) -> Connection:
    """The read models; those of a ledger that may not be written to are built in memory, as for an earlier point."""
    try:
        return reader.read_models(until=until)
    except sqlite3.OperationalError as fault:
        if fault.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            raise
        return reader.read_models(until=LAST_POSITION)


# --- answers -----------------------------------------------------------------------------------------------------


class Output(NamedTuple):
    """How an answer is wanted: a table unless told otherwise."""

    json: bool = False
    csv: bool = False
    part: str | None = None

    @property
    def rows_max(self) -> int | None:
        """As many rows as are worth fetching: for a table one more than it shows, else all."""
        return None if self.json or self.csv else TABLE_ROWS_MAX + 1


class Part(NamedTuple):
    """One table of an answer: its rows, the fields that they have, and which of them a table shows by what heading."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    fields: Sequence[str]
    shown: Mapping[str, str]
    # Said instead of an empty table.
    empty: str


_STYLES: Final = {
    "healthy": "green", "applied": "green", "met": "green", "withdrawn": "green", "recovered": "green",
    "warning": "yellow", "open": "yellow", "running": "yellow", "refused": "yellow", "unpriced": "magenta",
    "margin-call": "dark_orange", "expired": "red", "superseded": "red", "liquidation": "red", "rejected": "red",
    "shortfall": "red", "bankrupt": "bold red"}


def show(output: Output, parts: Sequence[Part], *, head: Mapping[str, Any] | None = None, title: str = "") -> None:
    """Print an answer. As JSON one object with `head` and the parts by name; a list of rows where there is no head."""
    if output.json and output.csv:
        raise CommandFault("expected --json or --csv, came both; leave one out")
    if output.part is not None and not output.csv:
        raise CommandFault("--part says which table --csv prints; add --csv, or leave --part out")
    if output.json:
        answer: object = parts[0].rows if head is None else {**head, **{part.name: part.rows for part in parts}}
        print_json(answer)
    elif output.csv:
        _print_csv(_chosen(output, parts))
    else:
        _print_tables(parts, title)


def print_json(answer: object) -> None:
    """A JSON document on standard output; exact numbers as plain strings."""
    typer.echo(json.dumps(answer, default=_jsonable, ensure_ascii=False, indent=2))


def json_line(answer: object) -> str:
    """A JSON document as one line."""
    return json.dumps(answer, default=_jsonable, ensure_ascii=False, separators=(",", ":"))


def _jsonable(value: object) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    raise TypeError(f"no JSON of {type(value).__name__}")


def _chosen(output: Output, parts: Sequence[Part]) -> Part:
    names = [part.name for part in parts]
    if output.part is None:
        if len(names) > 1:
            remark(f"This is {names[0]}; --part {' or --part '.join(names[1:])} prints the rest.")
        return parts[0]
    if output.part not in names:
        raise CommandFault(f"--part: expected {' or '.join(names)}, came {output.part!r}")
    return parts[names.index(output.part)]


def _print_csv(part: Part) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(part.fields)
    for row in part.rows:
        writer.writerow([_cell(row[field]) for field in part.fields])


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case Decimal():
            return plain(value)
        case dict() | list():
            return json_line(value)
    return value


def stdout_console(width: int | None = None) -> Console:
    """Standard output for tables: nothing in them is markup; as wide as the terminal, where it is one."""
    if not sys.stdout.isatty():
        width = PIPE_COLUMNS
    return Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)


def _print_tables(parts: Sequence[Part], title: str) -> None:
    console = stdout_console()
    if title:
        console.print(title, soft_wrap=True)
    for part in parts:
        if not part.rows and not part.empty:
            continue
        if title or part is not parts[0]:
            console.print()
        if part.rows:
            _print_table(console, part, is_named=len(parts) > 1)
        else:
            console.print(part.empty, soft_wrap=True)


def _print_table(console: Console, part: Part, *, is_named: bool) -> None:
    """One table; where it is wider than the terminal, few rows stand upright, and many are not folded either."""
    name = part.name.replace("_", " ")
    if is_named:
        console.print(name.upper(), style="bold")
    rows = part.rows[:TABLE_ROWS_MAX]
    table = _lying(part, rows)
    if len(rows) <= UPRIGHT_ROWS_MAX and not _fits(console, table):
        table = _upright(part, rows)
    # What still does not fit is left to the terminal to wrap: a figure broken in two is no figure.
    (console if _fits(console, table) else stdout_console(PIPE_COLUMNS)).print(table)
    if len(rows) < len(part.rows):
        remark(f"Only the first {len(rows)} {name} are shown; --json or --csv prints all.")


def _fits(console: Console, table: Table) -> bool:
    unbounded = console.options.update(width=PIPE_COLUMNS)
    return console.measure(table, options=unbounded).maximum <= console.width


def _lying(part: Part, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, field in part.shown.items():
        figures = all(row[field] is None or isinstance(row[field], (Decimal, int)) for row in rows)
        table.add_column(heading, justify="right" if figures else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_text(field, row[field]) for field in part.shown.values()))
    return table


def _upright(part: Part, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for _ in range(len(rows) + 1):
        table.add_column(no_wrap=True)
    for heading, field in part.shown.items():
        table.add_row(heading, *(_text(field, row[field]) for row in rows))
    return table


def _text(field: str, value: Any) -> Text:
    match value:
        case None | "":
            return Text("-", style="dim")
        case bool():
            return Text("yes" if value else "no")
        case Decimal():
            return Text(brief_ratio(value) if field.endswith("ratio") else brief(value))
    shown = str(value)
    return Text(shown, style=_STYLES.get(shown, ""))
