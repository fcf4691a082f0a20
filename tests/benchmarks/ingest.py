"""Durable ingest of the mix: bytes parsed, decided, and committed to SQLite with Merkle leaves and inbox.

Beside it, on the same records: the stock application with one save a record, the same with one save a batch, and as
a bound the bare rows (the events and inbox rows just written, inserted again with executemany). It never counts the
setting up of the book.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from infra.store.sqlite import CACHE_KIBIBYTES, CHECKPOINT_PAGES, connect
from ledger.encoding import decode
from ledger.postings import postings
from tests.benchmarks.figures import Sample
from tests.benchmarks.stage import Stage, require_applied
from tests.benchmarks.tigerbeetle import ADDRESS, transfers


class _Written(NamedTuple):
    """Rows that a run left in the ledger, batch by batch, and the postings in them."""

    events: list[list[tuple[str, int, str, bytes]]]
    inbox: list[list[tuple[str, str, str, int]]]
    postings: int


def ingest(stage: Stage, batch_size: int) -> Sample:
    """Records per second at a batch size."""
    shard = stage.shard
    count = stage.scale.records[batch_size]
    records = stage.mix.take(count)
    stage.tell(f"ingesting {count:,} records in batches of {batch_size}")
    ends = [shard.house.position]
    shard.listeners.append(lambda committed: ends.append(committed[-1].position) if committed else None)
    started = time.perf_counter()
    outcomes = list(shard.ingest(stage.deliver(records), batch_size=batch_size))
    seconds = time.perf_counter() - started
    shard.listeners.pop()
    require_applied(outcomes)
    stage.is_written = True
    written = _written(stage.path, ends)
    beside = _stock(stage, records, batch_size)
    if address := os.environ.get(ADDRESS):
        stage.tell(f"TigerBeetle in batches of {batch_size}")
        beside["TigerBeetle through its Python client"] = transfers(address, batch_size, count)
    stage.tell(f"bare rows in batches of {batch_size}")
    beside["raw SQLite rows"] = count / _bare_rows(stage.folder / "rows.sqlite", written)
    return Sample(count / seconds, beside, {
        "records": count, "accounts": stage.scale.accounts,
        "positions": sum(len(state.positions) for state in shard.house.accounts.values()),
        "events/record": (ends[-1] - ends[0]) / count, "postings/s": written.postings / seconds,
        "file MiB": stage.path.stat().st_size / 2**20, "us/record": seconds / count * 1e6})


def _stock(stage: Stage, records: Sequence[bytes], batch_size: int) -> dict[str, float]:
    """Records per second of the stock application, on parts of the same records."""
    stock, count = stage.stock, stage.scale.stock_records
    first, rest = records[:count], records[count:count + max(2 * batch_size, count)]
    stage.tell("the stock application, one save a record")
    started = time.perf_counter()
    stock.ingest(first)
    found = {"stock eventsourcing app": len(first) / (time.perf_counter() - started)}
    if batch_size > 1:
        stage.tell(f"the stock application, one save a batch of {batch_size}")
        started = time.perf_counter()
        stock.ingest_batches(rest, batch_size)
        found["stock app, one save a batch"] = len(rest) / (time.perf_counter() - started)
    return found


def _written(path: Path, ends: list[int]) -> _Written:
    connection = connect(str(path), read_only=True)
    try:
        events = [connection.execute(
            "SELECT originator_id, originator_version, topic, state FROM stored_events WHERE rowid > ? AND rowid <= ? "
            "ORDER BY rowid", pair).fetchall() for pair in pairwise(ends)]
        spent = sorted(connection.execute(
            "SELECT position, source, kind, record_key FROM inbox WHERE position > ? AND position <= ?",
            (ends[0], ends[-1])).fetchall())
    finally:
        connection.close()
    inbox: list[list[tuple[str, str, str, int]]] = [[] for _ in events]
    batch = 0
    for position, source, kind, key in spent:
        while position > ends[batch + 1]:
            batch += 1
        inbox[batch].append((source, kind, key, position))
    return _Written(events, inbox, sum(
        len(postings(decode(topic, state))) for rows in events for _, _, topic, state in rows))


def _bare_rows(path: Path, written: _Written) -> float:
    """Seconds to insert the rows anew into a file of their own, a transaction a batch, WAL and FULL."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in (
                "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", f"PRAGMA cache_size=-{CACHE_KIBIBYTES}",
                f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}",
                "CREATE TABLE events (stream TEXT, version INTEGER, topic TEXT, state BLOB, "
                "PRIMARY KEY (stream, version))",
                "CREATE TABLE inbox (source TEXT, kind TEXT, record_key TEXT, position INTEGER, "
                "PRIMARY KEY (source, kind, record_key)) WITHOUT ROWID"):
            connection.execute(statement)
        started = time.perf_counter()
        for rows, keys in zip(written.events, written.inbox, strict=True):
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO events VALUES (?,?,?,?)", rows)
            connection.executemany("INSERT INTO inbox VALUES (?,?,?,?)", keys)
            connection.execute("COMMIT")
        return time.perf_counter() - started
    finally:
        connection.close()
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()
