"""`clearing dlq`: the rejected records of a ledger, listed, shown as they came, and offered again.

A letter is named by the log position of its rejection, which `clearing record SOURCE ID` tells as well. What may be
offered again, and under which id, is said by `infra.dead_letters`.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import typer

from infra.cli_console import (
    REFUSED,
    AsCsv,
    AsJson,
    CommandFault,
    LedgerPath,
    Output,
    Part,
    open_reader,
    print_json,
    show,
    stdout_console,
    waiting,
)
from infra.dead_letters import DeadLetter, NotReplayable, dead_letter, dead_letters, renewed, replay, replay_id
from infra.embedded import LedgerReader, open_ledger
from infra.streams.records import RECORD_BYTES_MAX, open_input
from ledger.amounts import rfc3339

dlq_app = typer.Typer(no_args_is_help=True, help="The dead letters: rejected records, listed, shown, offered again.",
                      context_settings={"help_option_names": ["-h", "--help"]})

Positions = Annotated[list[int], typer.Argument(
    metavar="POSITION...", min=1, help="Log positions of rejections.", show_default=False)]
OfSource = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only of this source.")]
OfReason = Annotated[str | None, typer.Option("--reason", metavar="NAME", help="Only rejected for this reason.")]
_SHOWN: Final = {"position": "log_position", "log time": "time", "source": "source", "line": "line", "id": "id",
                 "type": "type", "reason": "reason", "message": "message", "replayed as": "replayed_as"}


def _row(reader: LedgerReader, letter: DeadLetter) -> dict[str, Any]:
    rejected, cause = letter.rejected, letter.rejected.cause
    new = None if cause.id is None else replay_id(cause.id)
    spent = reader.ask("SELECT position FROM inbox WHERE source = ? AND kind = 'id' AND record_key = ?",
                       (cause.source, new)) if new is not None else []
    try:
        renewed(letter)
        replayable = True
    except NotReplayable:
        replayable = False
    return {"log_position": letter.position, "time": rfc3339(rejected.time), "source": cause.source,
            "partition": cause.partition, "offset": cause.offset, "line": cause.line, "id": cause.id,
            "type": cause.type, "reason": rejected.reason, "field": rejected.field, "message": rejected.message,
            "bytes": rejected.raw_bytes, "sha256": rejected.sha256, "replayable": replayable,
            "replayed_as": new if spent else None, "replayed_at": spent[0][0] if spent else None}


@dlq_app.command("list")
def list_letters(ledger: LedgerPath, source: OfSource = None, reason: OfReason = None, as_json: AsJson = False,
                 as_csv: AsCsv = False) -> None:
    """List the rejected records: why, whether they can be offered again as they are, whether they were.

    \b
    Example: clearing dlq list --ledger desk.db --reason unknown-account
    """
    with open_reader(ledger) as reader, waiting("reading the log"):
        rows = [_row(reader, letter) for letter in dead_letters(reader)
                if source in (None, letter.rejected.cause.source) and reason in (None, letter.rejected.reason)]
    fields = tuple(rows[0]) if rows else ()
    show(Output(as_json, as_csv), [Part("dead_letters", rows, fields, _SHOWN, "No dead letters.")])


def _letter(reader: LedgerReader, position: int) -> DeadLetter:
    found = dead_letter(reader, position)
    if found is None:
        raise CommandFault(f"expected the log position of a rejected record, came {position}; `clearing dlq list` "
                           "lists them")
    return found


@dlq_app.command("show")
def show_letter(position: Annotated[int, typer.Argument(metavar="POSITION", min=1, show_default=False)],
                ledger: LedgerPath, as_json: AsJson = False) -> None:
    """Print a rejected record as it came, byte for byte, so that it can be corrected.

    \b
    Example: clearing dlq show 23 --ledger desk.db
    """
    with open_reader(ledger) as reader:
        letter = _letter(reader, position)
        row = _row(reader, letter)
    if as_json:
        print_json({**row, "raw": letter.rejected.raw, "raw_encoding": letter.rejected.raw_encoding,
                    "whole": letter.is_whole})
        return
    typer.echo(f"{row['source']}: {row['reason']}: {row['message']}", err=True)
    if not letter.is_whole:
        typer.echo(f"Only the first {len(letter.raw)} of its {row['bytes']} bytes are kept.", err=True)
    sys.stdout.buffer.write(letter.raw + b"\n")
    sys.stdout.buffer.flush()


@dlq_app.command("replay")
def replay_letters(
        positions: Positions, ledger: LedgerPath,
        record: Annotated[str | None, typer.Option(
            "--record", metavar="FILE", help="The corrected record to offer instead; - is standard input.")] = None,
        as_json: AsJson = False) -> None:
    """Offer rejected records again, each under a new id that names the old.

    \b
    Example: clearing dlq replay 23 24 --ledger desk.db
    """
    if record is not None and len(positions) != 1:
        raise CommandFault(f"--record: expected one position that the record corrects, came {len(positions)}")
    corrected = None if record is None else _corrected(record)
    rows = []
    with open_reader(ledger) as reader:
        letters = [_letter(reader, position) for position in positions]
    try:
        for letter in letters:  # all or none: what cannot be offered is found before anything is
            renewed(letter, corrected)
    except NotReplayable as fault:
        raise CommandFault(str(fault)) from None
    with open_ledger(ledger) as shard:
        for letter in letters:
            outcome = replay(shard, letter, corrected)
            rows.append({"log_position": letter.position, "source": letter.rejected.cause.source,
                         "id": replay_id(letter.rejected.cause.id or ""), "outcome": outcome.kind,
                         "reason": outcome.reason, "outcome_position": outcome.position})
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            why = f" ({row['reason']})" if row["reason"] else ""
            stdout_console().print(f"{row['log_position']} as {row['id']}: {row['outcome']}{why} at log position "
                                   f"{row['outcome_position']}", soft_wrap=True)
    if any(row["outcome"] in ("rejected", "refused") for row in rows):
        raise CommandFault("expected every record to be applied, not all were: `clearing dlq list` says why", REFUSED)


def _corrected(path: str) -> bytes:
    with open_input(path) as stream:
        raw = stream.read(RECORD_BYTES_MAX + 2)
    return raw.strip(b"\r\n")
