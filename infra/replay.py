"""Replay of a stored ledger: hands its rows and tables to `projections.audit`, and compares the read models.

It reads within one transaction, so a writer beside it does no harm, and never writes.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from infra.embedded import LedgerReader, open_reader
from infra.store.address import PostgresAddress
from infra.streams.parts import noted_duty
from projections.audit import Difference, Row, compare_rows, replay
from projections.read_model import ALL, ReadModels


class FileReport(NamedTuple):
    """What a replay of a stored ledger found; no differences means that everything follows from the facts."""

    events: int
    records: int
    decisions: int
    root: str
    seconds: float
    differences: list[Difference]


class _Stored:
    """A ledger as replay reads it."""

    def __init__(self, reader: LedgerReader) -> None:
        self.reader = reader

    def log_rows(self, after: int, limit: int) -> Sequence[Row]:
        return [Row(*row) for row in self.reader.rows(after, limit)]

    def head(self) -> tuple[int, int, bytes] | None:
        found: list[tuple[int, int, bytes]] = self.reader.ask("SELECT position, log_time, root FROM ledger_head")
        return found[0] if found else None

    def inbox(self) -> Mapping[tuple[str, str, str], int]:
        return {(source, kind, key): position for source, kind, key, position in self.reader.ask(
            "SELECT source, kind, record_key, position FROM inbox")}

    def source_positions(self) -> Mapping[tuple[str, int], int]:
        return {(source, partition): offset for source, partition, offset in self.reader.ask(
            "SELECT source, partition, next_offset FROM stream_position")}

    def leaves(self) -> bytes:
        return b"".join(row[0] for row in self.reader.ask("SELECT hashes FROM merkle_leaves ORDER BY first_position"))


def replay_ledger(ledger: str | Path | PostgresAddress, until: int | None = None,
                  progress: Callable[[int, int], None] | None = None) -> FileReport:
    """Derive a ledger anew and compare everything. `progress(position, end)` is called now and then.

    LedgerUnreadable where it is no ledger at all.
    """
    started = time.perf_counter()
    with open_reader(ledger) as reader, reader.snapshot():
        end = reader.end()
        last = end if until is None else min(until, end)
        tell = None if progress is None else lambda position: progress(position, last)
        report = replay(_Stored(reader), until=until, progress=tell, part=noted_duty(reader.settings()).part)
        differences = list(report.differences)
        if not differences and last == end:
            differences += _compare_views(reader)
    return FileReport(report.events, report.records, report.decisions, report.root, time.perf_counter() - started,
                      differences)


def _compare_views(reader: LedgerReader) -> list[Difference]:
    """The stored read models against ones rebuilt from the log, each up to the position that it has seen."""
    stored = reader.tables()
    if "view_position" not in stored:
        return []
    positions = dict(reader.ask('SELECT "view", "log_position" FROM view_position'))
    if len(set(positions.values())) > 1:
        return [Difference(None, "table view_position", "one position for all models", str(positions))]
    # What an older version made is made anew by the next report, and is nothing to compare with.
    shapes = dict(reader.ask('SELECT "view", "shape" FROM view_shape')) if "view_shape" in stored else {}
    models = [model for model in ALL if model.NAME in positions and shapes.get(model.NAME) == model.shape()]
    if not models or not all(table.name in stored for model in models for table in model.SHAPES):
        return []
    seen = ReadModels(reader.connection, models)
    rebuilt = ReadModels(sqlite3.connect(":memory:", isolation_level=None), models)
    rebuilt.create()
    rebuilt.catch_up(reader.select, until=max(positions.values()))
    differences = []
    for model in models:
        for table in model.SHAPES:
            differences += compare_rows(table.name, rebuilt.rows(table.name), seen.rows(table.name))
    return differences
