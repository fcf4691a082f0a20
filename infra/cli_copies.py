"""`clearing backup`, `restore`, `upgrade`, `snapshot`: a ledger copied while it is written, put back, brought up.

What a copy must prove before it is one is in `infra.backup`; this file reads the command line, calls, and prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from infra import backup as copies
from infra.cli_console import (
    REFUSED,
    AsJson,
    CommandFault,
    LedgerPath,
    open_reader,
    parse_ledger,
    print_json,
    remark,
    stdout_console,
    waiting,
)
from infra.embedded import open_ledger
from infra.store.address import PostgresAddress

# A file, or the address of a server, which gets its own answer.
LedgerFile = Annotated[Any, typer.Argument(
    metavar="LEDGER", parser=parse_ledger, help="The ledger file; it may be written meanwhile.", show_default=False)]
BackupFile = Annotated[Path, typer.Argument(
    metavar="BACKUP", help="What `clearing backup` made, or any ledger file.", show_default=False)]
TargetFile = Annotated[Path, typer.Argument(metavar="TARGET", help="A new file.", show_default=False)]


def backup(ledger: LedgerFile, target: TargetFile, as_json: AsJson = False) -> None:
    """Copy a ledger while it is written, and prove the copy.

    \b
    Example: clearing backup desk.db desk-monday.db
    """
    source = _file(ledger, "pg_dump --schema NAME")
    with _refusing(), _bar("copying") as tell:
        standing = copies.back_up(source, target, tell)
    _print(standing, target, as_json)


def restore(backup: BackupFile, target: TargetFile, as_json: AsJson = False) -> None:
    """Make a ledger of its backup, proved first; nothing is overwritten.

    \b
    Example: clearing restore desk-monday.db desk.db
    """
    with _refusing(), _bar("copying") as tell:
        standing = copies.restore(backup, target, tell)
    _print(standing, target, as_json)


def upgrade(ledger: LedgerFile, as_json: AsJson = False) -> None:
    """Bring a ledger of an older format up to this one and keep a backup.

    \b
    Example: clearing upgrade desk.db
    """
    source = _file(ledger, "a newer version of this software on a copy of the schema")
    with _refusing(), waiting("reading the ledger"):
        done = copies.upgrade(source)
    if as_json:
        print_json({"format_before": done.before, "format": done.after, "log_position": done.standing.position,
                    "root": done.standing.root, "backup": None if done.backup is None else str(done.backup)})
        return
    said = (f"{source} is of format {done.after}: nothing is to be done" if done.backup is None else
            f"{source} was of format {done.before} and is now of format {done.after}; its backup is {done.backup}")
    console = stdout_console()
    console.print(said, soft_wrap=True)
    console.print(f"log position {done.standing.position}, root {done.standing.root}", soft_wrap=True)


def snapshot(
        ledger: LedgerPath,
        drop: Annotated[bool, typer.Option("--drop", help="Delete the snapshot instead; nothing is lost.")] = False,
        as_json: AsJson = False) -> None:
    """Write the states beside the log, so that the next start need not read all of it.

    \b
    Example: clearing snapshot --ledger desk.db
    """
    with open_reader(ledger), waiting("opening the ledger"):  # what is no ledger is not made one
        pass
    with waiting("opening the ledger"), open_ledger(ledger) as shard:
        if shard.notice is not None:
            remark(shard.notice)
        if drop:
            shard.snapshots.drop()
        else:
            shard.snapshots.take()
        found = {"log_position": shard.house.position, "snapshot_position": shard.snapshots.position or None,
                 "root": shard.root.hex()}
        if as_json:
            print_json(found)
        else:
            what = "no snapshot" if drop else f"snapshot at log position {found['snapshot_position']}"
            stdout_console().print(f"{what}, root {found['root']}", soft_wrap=True)


def _file(ledger: Any, instead: str) -> Path:
    if isinstance(ledger, PostgresAddress):
        raise CommandFault(f"expected a ledger file, came {ledger}; on a server use {instead}")
    return Path(ledger)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except copies.TargetExists as fault:
        raise CommandFault(str(fault), REFUSED) from None


@contextmanager
def _bar(what: str) -> Iterator[copies.Progress | None]:
    """Progress on standard error, where somebody looks at it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(TextColumn(what), BarColumn(), TextColumn("{task.percentage:.0f} %"), console=console,
                  transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _print(standing: copies.Standing, target: Path, as_json: bool) -> None:
    if as_json:
        print_json({"file": str(target), "log_position": standing.position, "root": standing.root,
                    "bytes": standing.bytes})
        return
    console = stdout_console()
    console.print(f"{target}: {standing.bytes} bytes, read back and proved", soft_wrap=True)
    console.print(f"log position {standing.position}, root {standing.root}", soft_wrap=True)
