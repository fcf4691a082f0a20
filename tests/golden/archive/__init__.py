"""The golden archive: a small ledger in which every event of the catalogue happens, kept for ever.

`desk.jsonl` and `market.jsonl` are the records, the second with the simulated venue. `ledger.db.gz` is the ledger file
that they made, `log.jsonl` its log for people and their diffs, `root.txt` where it ended. Later versions open, replay
and root it the same. What changes a byte of it needs a new variant or an upcast, not a new archive: this one is only
written anew (`python -m tests.golden.archive --write`) while no ledger exists that relies on it, and CHANGELOG.md then
says why. An event that joins the catalogue joins by records at the end of `market.jsonl`.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from infra.embedded import LedgerReader, open_ledger
from infra.shard import Shard
from infra.streams.records import open_input, read_lines, source_name
from infra.venue import SimulatedVenue

FOLDER: Final = Path(__file__).parent
LEDGER: Final = FOLDER / "ledger.db.gz"
LOG: Final = FOLDER / "log.jsonl"
ROOT: Final = FOLDER / "root.txt"
# The record files in their order, and whether the simulated venue fills while they come.
RECORDS: Final = {"desk.jsonl": False, "market.jsonl": True}


class Line(NamedTuple):
    """A row of the log as stored; the state is text in UTF-8."""

    position: int
    stream: str
    version: int
    topic: str
    state: str


def ingest(shard: Shard, *, batch: int = 1_000) -> None:
    """Feed all records of the archive, as `clearing ingest` does."""
    for name, has_venue in RECORDS.items():
        shard.venue = SimulatedVenue() if has_venue else None
        with open_input(str(FOLDER / name)) as stream:
            for _ in shard.ingest(read_lines(source_name(name), stream), batch_size=batch):
                pass


def lines(ledger: Path) -> list[Line]:
    """The log of a ledger file."""
    with LedgerReader(ledger) as reader:
        return [Line(position, stream, version, topic, state.decode())
                for position, stream, version, topic, state in reader.rows(0, 1_000_000)]


def stored_lines() -> list[Line]:
    """The log of the archive, as committed."""
    return [Line(*json.loads(line)) for line in LOG.read_text("utf-8").splitlines()]


def stored_root() -> tuple[int, str]:
    """The last log position and the root, as committed."""
    position, root = ROOT.read_text("utf-8").split()
    return int(position), root


def unpack(target: Path) -> Path:
    """The archive's ledger file, to be opened."""
    target.write_bytes(gzip.decompress(LEDGER.read_bytes()))
    return target


def write(folder: Path) -> tuple[int, str]:
    """Make the archive anew from its records, by way of a ledger in a folder; where it ends."""
    ledger = folder / "ledger.db"
    with open_ledger(ledger) as shard:
        ingest(shard)
        end = (shard.house.position, shard.root.hex())
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("VACUUM")
    LOG.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines(ledger)), "utf-8")
    LEDGER.write_bytes(gzip.compress(ledger.read_bytes(), 9, mtime=0))
    ROOT.write_text(f"{end[0]} {end[1]}\n", "utf-8")
    return end
