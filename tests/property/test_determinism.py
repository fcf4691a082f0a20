"""One log, whatever the road: batch sizes, stores, restarts, repeats. Byte for byte, with inbox and source positions.

The same lines are heard by a ledger in memory, one at a time; every other way of hearing them must end in the same
rows. Interruptions are orderly here (close, open again); violent ones are in `tests/chaos`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.embedded import in_memory, open_ledger, open_reader
from infra.replay import replay_ledger
from infra.shard import Outcome, Shard
from infra.store.commit import InboxKey, SourcePosition
from infra.streams.records import Delivered, Place, read
from infra.venue import SimulatedVenue
from ledger.clearing_house import ClearingHouse
from projections.audit import replay
from projections.book import Book
from tests.property.records_strategy import (
    MAPPER,
    SOURCE,
    Line,
    MemoryRows,
    Stream,
    delivered,
    lines_of,
    play,
    streams,
)
from tests.shards import new_shard

TIME: Final = "2019-09-24T18:00:00Z"


class Written(NamedTuple):
    """All that a ledger wrote: rows, root, head's log time, leaves, inbox and source positions."""

    rows: list[tuple[int, str, int, str, bytes]]
    root: bytes
    log_time: int | None
    leaves: bytes
    inbox: list[tuple[InboxKey, int]]
    positions: Mapping[tuple[str, int], SourcePosition]


def written(shard: Shard) -> Written:
    rows = [(row.id, str(row.originator_id), row.originator_version, row.topic, row.state)
            for row in shard.store.select_notifications(1, 1_000_000)]
    head = shard.store.head()
    assert head is None or (head.position, head.root) == (len(rows), shard.root)
    return Written(rows, shard.root, None if head is None else head.log_time, shard.store.leaves(),
                   list(shard.store.inbox()), shard.store.source_positions())


# A ledger that can be closed and opened again.
Ledger = Callable[[], AbstractContextManager[Shard]]


def venue_of(stream: Stream) -> SimulatedVenue | None:
    return SimulatedVenue() if stream.venue else None


@contextmanager
def on_sqlite(stream: Stream) -> Iterator[Ledger]:
    with tempfile.TemporaryDirectory() as folder:
        yield lambda: open_ledger(Path(folder) / "ledger.db", venue=venue_of(stream))


@contextmanager
def on_memory(stream: Stream) -> Iterator[Ledger]:
    """Rows stay where they are; states are folded anew each time it is opened, as from a file."""
    rows = in_memory().house.recorder

    def opened() -> AbstractContextManager[Shard]:
        house = ClearingHouse({"PERSISTENCE_MODULE": "infra.store.memory:Factory", "MAPPER_TOPIC": MAPPER},
                              nominator=Book())
        house.recorder = rows
        shard = Shard(house, venue=venue_of(stream))
        shard.open()
        return nullcontext(shard)

    yield opened


STORES: Final = {"memory": on_memory, "SQLite": on_sqlite}


def undisturbed(stream: Stream) -> tuple[list[Line], list[Outcome], Written]:
    shard = in_memory(venue=venue_of(stream))
    said = list(play(stream, shard))
    return [line for line, _ in said], [outcome for _, outcome in said], written(shard)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@settings(max_examples=20)
@given(stream=streams(wild=None))
def test_batch_size_and_store_leave_no_trace(store: str, batch_size: int, stream: Stream) -> None:
    lines, outcomes, expected = undisturbed(stream)
    with STORES[store](stream) as ledger, ledger() as shard:
        assert outcomes == list(shard.ingest(delivered(lines), batch_size=batch_size))
        assert expected == written(shard)


@pytest.mark.parametrize("store", STORES)
@settings(max_examples=20)
@given(stream=streams(wild=None), cuts=st.lists(st.integers(1, 15), min_size=1, max_size=8),
       batch_size=st.sampled_from([1, 3, 7, 1000]), from_start=st.booleans())
def test_restarts_leave_no_trace(store: str, stream: Stream, cuts: list[int], batch_size: int,
                                 from_start: bool) -> None:
    """Closed and opened after any record; the source goes on, or offers everything from the start again."""
    lines, _, expected = undisturbed(stream)
    records = delivered(lines)
    with STORES[store](stream) as ledger:
        end = 0
        while end < len(records):
            start, end = end, end + cuts[end % len(cuts)]
            with ledger() as shard:
                list(shard.ingest(records[0 if from_start else start:end], batch_size=batch_size))
        with ledger() as shard:
            assert expected == written(shard)


@settings(max_examples=12)
@given(stream=streams(wild=None), cuts=st.lists(st.integers(5, 40), min_size=1, max_size=4),
       batch_size=st.sampled_from([1, 7, 1000]), from_start=st.booleans())
def test_a_server_leaves_no_trace_either(postgres: str, stream: Stream, cuts: list[int], batch_size: int,
                                         from_start: bool) -> None:
    """Batch sizes, restarts and repeats at once, since each example makes a shard on a real PostgreSQL."""
    lines, outcomes, expected = undisturbed(stream)
    records = delivered(lines)
    with new_shard(postgres) as address:
        end = 0
        while end < len(records):
            start, end = end, end + cuts[end % len(cuts)]
            with open_ledger(address, venue=venue_of(stream)) as shard:
                list(shard.ingest(records[0 if from_start else start:end], batch_size=batch_size))
        with open_ledger(address, venue=venue_of(stream)) as shard:
            require_duplicates(shard, records, outcomes, batch_size)
            assert expected == written(shard)
        with open_reader(address) as reader:
            reader.read_models()
        report = replay_ledger(address)

    assert [] == report.differences
    assert expected.root.hex() == report.root


@pytest.mark.parametrize("store", STORES)
@settings(max_examples=20)
@given(stream=streams(wild=None), batch_size=st.sampled_from([1, 7, 1000]), reopens=st.booleans())
def test_offering_all_records_again_from_the_start_leaves_no_event(store: str, stream: Stream, batch_size: int,
                                                                   reopens: bool) -> None:
    lines, outcomes, expected = undisturbed(stream)
    with STORES[store](stream) as ledger:
        with ledger() as shard:
            list(shard.ingest(delivered(lines), batch_size=batch_size))
            if not reopens:
                require_duplicates(shard, delivered(lines), outcomes, batch_size)
        with ledger() as shard:
            require_duplicates(shard, delivered(lines), outcomes, batch_size)
            assert expected == written(shard)


def require_duplicates(shard: Shard, records: Sequence[Delivered], before: Sequence[Outcome], batch_size: int) -> None:
    """Every record is known, and those with an inbox row answer with the position of their first outcome."""
    again = list(shard.ingest(records, batch_size=batch_size))
    assert {"duplicate"} == {outcome.kind for outcome in again}
    for record, first, now in zip(records, before, again, strict=True):
        if first.kind != "duplicate" and getattr(record.command, "sequence", None) is None:
            assert first.position == now.position


@given(stream=streams(wild=None))
def test_replay_derives_every_event_of_any_stream(stream: Stream) -> None:
    shard = in_memory(venue=venue_of(stream))
    list(play(stream, shard))
    report = replay(MemoryRows(shard))

    assert [] == report.differences
    assert shard.root.hex() == report.root


@settings(max_examples=5)
@given(stream=streams())
def test_replay_of_a_file_finds_no_difference(stream: Stream) -> None:
    lines, _, expected = undisturbed(stream)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        with open_ledger(path, venue=venue_of(stream)) as shard:
            list(shard.ingest(delivered(lines), batch_size=7))
        report = replay_ledger(path)

    assert [] == report.differences
    assert expected.root.hex() == report.root


@settings(max_examples=10)
@given(stream=streams())
def test_playing_a_stream_twice_says_the_same_lines(stream: Stream) -> None:
    assert lines_of(stream) == lines_of(stream)


# --- found by search, or by reading ------------------------------------------------------------------------------


def lines(*records: dict[str, object]) -> list[Delivered]:
    return delivered([json.dumps({"id": f"r{number}", "time": TIME, **record}).encode()
                      for number, record in enumerate(records)])


def price(sequence: int, instrument: str = "X-USD") -> dict[str, object]:
    return {"type": "price", "id": None, "instrument": instrument, "price": "1", "source": "a", "sequence": sequence}


LISTING: Final[list[dict[str, object]]] = [
    {"type": "asset", "asset": "USD", "quantum": "0.01"},
    {"type": "instrument", "instrument": "X-USD", "base": "X", "quote": "USD", "contract_type": "linear",
     "tick_size": "0.01", "lot_size": "1"}]


@pytest.mark.parametrize("sequences", [(7,), (7, 8), (8, 7), (7, 3)], ids=str)
@pytest.mark.parametrize("listed_after", [0, 1, 2])
def test_price_of_no_market_stays_rejected_once_the_market_is_listed(sequences: tuple[int, ...],
                                                                     listed_after: int) -> None:
    """A sequence is spent by its first outcome, also by a rejection before its instrument was listed."""
    prices = [price(sequence) for sequence in sequences]
    records = lines(*prices[:listed_after], *LISTING, *prices[listed_after:])
    shard = in_memory()
    list(shard.ingest(records))
    before = written(shard)

    assert {"duplicate"} == {outcome.kind for outcome in shard.ingest(records, batch_size=1)}
    assert before == written(shard)


def test_each_place_has_a_conflict_of_its_own() -> None:
    """Two lines without an id are changed to the same bytes: each is a conflict, each leaves an event."""
    shard = in_memory()

    def offer(*texts: bytes) -> list[tuple[str, str | None]]:
        found = shard.ingest([read(Place(SOURCE, line=number), text) for number, text in enumerate(texts, 1)])
        return [(outcome.kind, outcome.reason) for outcome in found]

    assert [("rejected", "malformed")] * 2 == offer(b"one", b"two")
    assert [("rejected", "conflict")] * 2 == offer(b"three", b"three")
    assert [("duplicate", None)] * 2 == offer(b"three", b"three")
