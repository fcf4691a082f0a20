"""The commands over several ledgers: where each stands and who writes it, and whether together they are one.

A shard is a ledger: a file, or a schema of a server. Nothing here writes an event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from infra.cli_console import (
    MISMATCH,
    AsCsv,
    AsJson,
    CommandFault,
    Output,
    Part,
    PartName,
    open_reader,
    parse_ledger,
    show,
    waiting,
)
from infra.embedded import LedgerReader
from infra.store.address import PostgresAddress
from infra.streams.parts import noted_duty
from ledger.amounts import rfc3339
from projections import queries, reconciliation
from projections.reconciliation import (
    AssetSum,
    Difference,
    FundTotal,
    Ledger,
    MarketLine,
    OpenTrade,
    OwnerTotal,
    Stream,
)

PAGE: Final = 5_000

# A list, so not from the environment: typer would split it at each space.
LedgerPaths = Annotated[list[Any], typer.Option(
    "--ledger", metavar="PATH", parser=parse_ledger,
    help="A ledger: a file, or postgresql://HOST/DATABASE?shard=NAME; to be repeated.")]


def shards(ledger: LedgerPaths, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """Show where ledgers stand: who writes each, its last log position and the root there.

    \b
    Example: clearing shards --ledger desk.db --ledger 'postgresql://db/clearing?shard=accounts_0'
    """
    rows = []
    for path in _distinct(ledger):
        with open_reader(path) as reader:
            rows.append(_state(str(path), reader))
    show(Output(as_json, as_csv), [Part("shards", rows, tuple(rows[0]), {
        "shard": "shard", "owner": "owner", "epoch": "epoch", "log position": "log_position", "log time": "log_time",
        "root": "root"}, "")])


def _distinct(ledgers: Sequence[Any]) -> list[Any]:
    repeated = [str(ledger) for ledger, count in Counter(ledgers).items() if count > 1]
    if repeated:
        raise CommandFault(f"--ledger: expected each ledger once, came {repeated[0]} more often")
    return list(ledgers)


def _names(ledgers: Sequence[Path | PostgresAddress]) -> list[str]:
    """The ledgers by their last names, where those tell them apart."""
    short = [ledger.shard if isinstance(ledger, PostgresAddress) else ledger.name for ledger in ledgers]
    return short if len(set(short)) == len(short) else [str(ledger) for ledger in ledgers]


def _state(name: str, reader: LedgerReader) -> dict[str, Any]:
    """One row: what the head says, not what was computed anew; `clearing replay` does that."""
    head = reader.ask("SELECT position, log_time, root FROM ledger_head")
    position, log_time, root = head[0] if head else (0, 0, None)
    epochs = reader.ask("SELECT MAX(epoch) FROM stream_position")
    return {"shard": name, "owner": reader.owner(), "epoch": epochs[0][0], "log_position": position,
            "log_time": rfc3339(log_time) if position else None, "root": root.hex() if root else None}


def reconcile(ledger: LedgerPaths, as_json: AsJson = False, as_csv: AsCsv = False, part: PartName = None) -> None:
    """Hold ledgers against each other: trades, balances, funds, decisions on prices.

    \b
    Example: clearing reconcile --ledger desk-0.db --ledger desk-1.db
    """
    paths = _distinct(ledger)
    if len(paths) < 2:
        raise CommandFault("--ledger: expected at least two ledgers to hold against each other, came one")
    with ExitStack() as stack, waiting("reconciling"):
        readers = [stack.enter_context(open_reader(path)) for path in paths]
        models = [reader.read_models() for reader in readers]
        names = _names(paths)
        keeps = [noted_duty(reader.settings()).part for reader in readers]
        found = reconciliation.reconcile([Ledger(*each) for each in zip(names, models, map(_streams, readers), keeps,
                                                                        strict=True)])
        rows = [_state(name, reader) for name, reader in zip(names, readers, strict=True)]
    parts = [
        Part("differences", _fields(found.differences), Difference._fields, {
            "kind": "kind", "of": "subject", "expected": "expected", "came": "came"}, "Nothing differs."),
        Part("ledgers", rows, tuple(rows[0]), {"ledger": "shard", "log position": "log_position",
                                               "log time": "log_time"}, ""),
        Part("open_trades", _fields(found.trades), OpenTrade._fields, {
            "trade": "trade_id", "instrument": "instrument", "bought": "bought", "sold": "sold",
            "in": "ledgers"}, ""),
        Part("owners", _fields(found.owners), OwnerTotal._fields, {
            "asset": "asset", "owner": "owner", "over all ledgers": "total"}, ""),
        Part("sums", _fields(found.sums), AssetSum._fields, {"asset": "asset", "sum of all owners": "total"}, ""),
        Part("funds", _fields(found.funds), FundTotal._fields, {
            "fund": "fund", "asset": "asset", "balance": "balance", "by the journals": "by_journal"}, ""),
        Part("markets", _fields(found.markets), MarketLine._fields, {
            "instrument": "instrument", "prices": "prices", "accepted": "accepted", "rejected": "rejected",
            "behind": "behind", "differing": "differing"}, "")]
    show(Output(as_json, as_csv, part), parts, head={"same": not found.differences})
    if found.differences:
        raise CommandFault(f"expected {len(paths)} ledgers that agree, {len(found.differences)} "
                           f"{'thing differs' if len(found.differences) == 1 else 'things differ'}", MISMATCH)


def _fields(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [queries.as_fields(row) for row in rows]


def _streams(reader: LedgerReader) -> Stream:
    """How a ledger's streams are read, page by page."""
    def stream(name: str) -> Iterator[tuple[int, str, bytes]]:
        after = 0
        while rows := reader.ask("SELECT originator_version, topic, state FROM stored_events WHERE originator_id = ? "
                                 "AND originator_version > ? ORDER BY originator_version LIMIT ?",
                                 (name, after, PAGE)):
            yield from rows
            after = rows[-1][0]

    return stream
