"""The golden archive opens, replays and roots as on the day it was made, and holds every event of the catalogue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from infra.backup import prove
from infra.embedded import in_memory, open_ledger
from infra.replay import replay_ledger
from ledger.between_shards import BETWEEN
from ledger.commands import COMMANDS
from ledger.events import EVENTS
from tests.golden.archive import FOLDER, RECORDS, Line, ingest, lines, stored_lines, stored_root, unpack
from tests.unit.test_cli import clearing


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return unpack(tmp_path / "ledger.db")


def sized(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def leaf(line: Line) -> bytes:
    """Semantics 6, written down once more and apart from `projections.merkle`."""
    return hashlib.sha256(b"\0" + line.position.to_bytes(8, "big") + sized(line.stream.encode())
                          + line.version.to_bytes(8, "big") + sized(line.topic.encode())
                          + sized(line.state.encode())).digest()


def tree(leaves: Sequence[bytes]) -> bytes:
    """The tree head of RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree(leaves[:split]) + tree(leaves[split:])).digest()


def test_every_event_of_the_catalogue_happens_in_the_archive() -> None:
    found = {line.topic for line in stored_lines()}

    # One ledger that keeps the whole sends itself nothing; tests/unit/test_between_shards.py has what several send.
    assert [] == [event.__name__ for event in EVENTS if event.TOPIC not in found and event.ANSWERS not in BETWEEN]


def test_every_type_of_record_is_applied_in_the_archive() -> None:
    rejected = {json.loads(line.state)["cause"]["type"] for line in stored_lines() if "-rejected" in line.topic}
    applied = {json.loads(line.state)["cause"]["type"] for line in stored_lines() if "-rejected" not in line.topic}

    assert set(COMMANDS) <= applied
    assert {"deposit", "price", "unknown"} <= rejected


def test_the_log_of_the_archive_has_the_root_that_is_written_down() -> None:
    stored = stored_lines()

    assert list(range(1, len(stored) + 1)) == [line.position for line in stored]
    assert stored_root() == (len(stored), tree([leaf(line) for line in stored]).hex())


def test_the_archive_opens_with_its_root(ledger: Path) -> None:
    assert stored_root() == prove(ledger)[:2]
    assert stored_lines() == lines(ledger)
    with open_ledger(ledger) as shard:
        assert stored_root() == (shard.house.position, shard.root.hex())
        assert shard.is_balanced()


def test_the_archive_follows_from_its_facts_byte_for_byte(ledger: Path) -> None:
    report = replay_ledger(ledger)

    assert [] == report.differences
    assert stored_root() == (report.events, report.root)


@pytest.mark.parametrize("batch", [1, 7, 1_000])
def test_the_records_of_the_archive_make_its_log_again(batch: int, tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.db") as shard:
        ingest(shard, batch=batch)
    in_process = in_memory()
    ingest(in_process, batch=batch)

    assert stored_lines() == lines(tmp_path / "ledger.db")
    assert stored_root() == (in_process.house.position, in_process.root.hex())


def test_the_records_of_the_archive_are_all_repeats_to_it(ledger: Path) -> None:
    with open_ledger(ledger) as shard:
        ingest(shard)
        assert stored_root() == (shard.house.position, shard.root.hex())


def test_the_archive_goes_on(ledger: Path, tmp_path: Path) -> None:
    """A ledger of then takes the records of now, and still follows from its facts."""
    more = tmp_path / "more.jsonl"
    more.write_text('{"type": "deposit", "id": "later", "time": "2026-02-01T00:00:00Z", "account": "maker", '
                    '"asset": "USD", "amount": "1"}\n')
    told = clearing("ingest", more, "--ledger", ledger, "--json").json

    assert (1, True) == (told["applied"], told["balanced"])
    assert told["log_position"] > stored_root()[0]
    assert [] == replay_ledger(ledger).differences


@pytest.mark.parametrize("report", [
    ("accounts",), ("account", "alice"), ("account", "jürgen é😀"), ("calls",), ("statement", "carol"), ("journal",),
    ("markets",), ("funds",), ("record", "desk.jsonl", "hold-1"), ("events",)])
def test_the_archive_can_be_read(ledger: Path, report: tuple[str, ...]) -> None:
    answer = clearing(*report, "--ledger", ledger)

    assert (0, "") == (answer.code, answer.err)
    assert answer.out


def test_the_archive_is_made_by_clearing_ingest(tmp_path: Path) -> None:
    for name, has_venue in RECORDS.items():
        words = ("--venue", "simulated") if has_venue else ()
        answer = clearing("ingest", FOLDER / name, "--ledger", tmp_path / "ledger.db", "--json", *words)
        assert answer.code == 0

    assert stored_root() == prove(tmp_path / "ledger.db")[:2]
