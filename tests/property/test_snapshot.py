"""A snapshot stands for the fold of the log: same bytes from the writer and from a fold, and the log goes on alike.

One that does not fit is left aside, with a word about why, and the whole log is folded.
"""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from infra import shard as shards
from infra.shard import Shard
from infra.snapshots import Snapshots
from infra.venue import SimulatedVenue
from ledger.amounts import ZERO, exact
from ledger.clearing_house import ClearingHouse
from ledger.encoding import decode
from ledger.errors import LedgerUnreadable
from ledger.events import Cause, Evidence, Recorded, RulebookVersion, ShortfallClaimed, Trigger
from ledger.snapshot import DERIVED, KEPT, encode_states, hash_of_states, pack, restore_states, unpack
from ledger.states import States
from projections.book import Book
from tests.chaos.test_kill import mixed_records
from tests.property.records_strategy import MAPPER, Stream, delivered, lines_of, memory_ledger, streams

CUT = 250


def opened_over(store: Any, *, venue: bool = False) -> Shard:
    """A writer opened over the rows of another."""
    house = ClearingHouse({"PERSISTENCE_MODULE": "infra.store.memory:Factory", "MAPPER_TOPIC": MAPPER},
                          nominator=Book())
    house.recorder = store
    shard = Shard(house, venue=SimulatedVenue() if venue else None)
    shard.open()
    return shard


def folded(shard: Shard) -> States:
    """The states that a fold of a writer's log alone gives."""
    states = States()
    with exact():
        for row in shard.store.select_notifications(1, 1_000_000):
            states.fold(Recorded(row.id, str(row.originator_id), row.originator_version,
                                 decode(row.topic, row.state)))
    return states


@settings(max_examples=5, phases=[Phase.generate], deadline=None)
@given(stream=streams(wild=None), share=st.integers(0, 10), further=st.integers(0, 10))
def test_the_log_goes_on_alike_from_a_snapshot_at_any_position(stream: Stream, share: int, further: int) -> None:
    records = delivered(lines_of(stream))
    cut = len(records) * share // 10
    until = cut + (len(records) - cut) * further // 10
    whole = memory_ledger(Book(), venue=SimulatedVenue() if stream.venue else None)
    list(whole.ingest(records, batch_size=7))
    first = memory_ledger(Book(), venue=SimulatedVenue() if stream.venue else None)
    list(first.ingest(records[:cut], batch_size=7))
    first.snapshots.take()
    list(first.ingest(records[cut:until], batch_size=7))
    assert hash_of_states(folded(first)) == hash_of_states(first.house)
    second = opened_over(first.store, venue=stream.venue)
    assert second.notice is None
    assert second.snapshots.position == first.snapshots.position
    assert hash_of_states(second.house) == hash_of_states(first.house)
    assert (second.root, second.unlisted) == (first.root, first.unlisted)
    list(second.ingest(records[until:], batch_size=7))
    assert second.root == whole.root
    assert hash_of_states(second.house) == hash_of_states(whole.house)


@settings(max_examples=3, phases=[Phase.generate], deadline=None)
@given(stream=streams(wild=None), every=st.integers(1, 60))
def test_snapshots_written_between_batches_are_of_one_position(stream: Stream, every: int) -> None:
    records = delivered(lines_of(stream))
    whole = memory_ledger(Book(), venue=SimulatedVenue() if stream.venue else None)
    whole.listeners.clear()
    list(whole.ingest(records, batch_size=3))
    shard = memory_ledger(Book(), venue=SimulatedVenue() if stream.venue else None)
    shard.snapshots = Snapshots(shard, every=every)
    shard.listeners[:] = [shard.snapshots.follow]
    for record in records:
        shard.apply([record])
        twin = opened_over(shard.store, venue=stream.venue) if record.place.line in (len(records) // 2, 20) else None
        assert twin is None or hash_of_states(twin.house) == hash_of_states(shard.house)
    assert shard.root == whole.root
    assert len(shard.store.snapshots()) <= 1


@cache
def records() -> tuple[bytes, ...]:
    return tuple(line.encode() for line in mixed_records(7)[:400])


def with_snapshot() -> Shard:
    """A ledger that went on for a while after its snapshot."""
    shard = memory_ledger(Book())
    came = delivered(records())
    list(shard.ingest(came[:CUT], batch_size=100))
    shard.snapshots.take()
    list(shard.ingest(came[CUT:], batch_size=100))
    return shard


def require_left_aside(shard: Shard, why: str) -> None:
    twin = opened_over(shard.store)
    assert twin.notice is not None
    assert why in twin.notice
    assert hash_of_states(twin.house) == hash_of_states(shard.house)
    assert twin.root == shard.root
    twin.snapshots.take()  # what comes next is whole again
    third = opened_over(shard.store)
    assert third.notice is None
    assert hash_of_states(third.house) == hash_of_states(shard.house)


def changed_header(shard: Shard, **fields: Any) -> None:
    position, = shard.store.snapshots()
    header = json.loads(unpack(next(iter(shard.store.snapshot_parts(position)))))
    shard.store.put_snapshot_part(position, 0, pack(json.dumps({**header, **fields}).encode()))


@settings(max_examples=10, deadline=None)
@given(part=st.integers(0, 2), at=st.integers(0, 100_000))
def test_a_changed_byte_is_left_aside(part: int, at: int) -> None:
    shard = with_snapshot()
    position, = shard.store.snapshots()
    stored = bytearray(list(shard.store.snapshot_parts(position))[part])
    stored[at % len(stored)] ^= 0xFF
    shard.store.put_snapshot_part(position, part, bytes(stored))
    require_left_aside(shard, "the snapshot is left aside")


@pytest.mark.parametrize(("fields", "why"), [
    ({"code": "0" * 64}, "another version of this software wrote the snapshot"),
    ({"format": 0}, "expected a snapshot of format"),
    ({"parts": []}, "is not the one that it names"),
    ({"frontier": "00"}, "a frontier must be"),
])
def test_another_version_is_left_aside(fields: dict[str, Any], why: str) -> None:
    shard = with_snapshot()
    changed_header(shard, **fields)
    require_left_aside(shard, why)


def test_a_missing_part_is_left_aside() -> None:
    shard = with_snapshot()
    store: Any = shard.store
    position, = store.snapshots()
    del store._snapshots[position, 2]
    require_left_aside(shard, "expected 2 parts of a snapshot, came 1")


def moved(from_: Shard, to: Shard) -> None:
    position, = from_.store.snapshots()
    for part, content in enumerate(from_.store.snapshot_parts(position)):
        to.store.put_snapshot_part(position, part, content)


def test_a_snapshot_ahead_of_the_log_is_left_aside() -> None:
    shard = memory_ledger(Book())
    list(shard.ingest(delivered(records()[:CUT // 2]), batch_size=100))
    moved(with_snapshot(), shard)
    require_left_aside(shard, "the log ends at")


@pytest.mark.parametrize("hashed", [0, 1_000_000], ids=["by the root alone", "by the rows too"])
def test_a_snapshot_of_another_log_is_left_aside(hashed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "HASHED_EVENTS_MAX", hashed)
    shard = memory_ledger(Book())
    list(shard.ingest(delivered(mixed_other()), batch_size=100))
    moved(with_snapshot(), shard)
    require_left_aside(shard, "does not follow" if hashed == 0 else "rows before it")


def mixed_other() -> list[bytes]:
    return [line.encode() for line in mixed_records(8)[:400]]


def test_a_row_that_a_snapshot_stands_for_cannot_change_unseen() -> None:
    shard = with_snapshot()
    rows: Any = shard.store
    row = rows._stored_events[10]
    assert b"1" in row.state
    rows._stored_events[10] = type(row)(row.originator_id, row.originator_version, row.topic,
                                        row.state.replace(b"1", b"2", 1))
    with pytest.raises(LedgerUnreadable, match=r"`clearing replay` finds"):
        opened_over(shard.store)


def test_all_of_the_states_is_kept_or_derived() -> None:
    assert {*vars(States())} == KEPT | DERIVED


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(at: int, bit: int) -> None:
    content = b"".join(encode_states(States()))
    stored = bytearray(pack(content))
    stored[at % len(stored)] ^= 1 << bit
    with suppress(LedgerUnreadable):
        assert unpack(bytes(stored)) == content  # a bit of the compression's own that changes nothing


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format":0}', b'{"format":1,"position":1}'])
def test_other_content_changes_nothing(content: bytes) -> None:
    states = States()
    with pytest.raises(LedgerUnreadable):
        restore_states(states, [content])
    assert list(encode_states(states)) == list(encode_states(States()))


def test_an_unanswered_claim_comes_back() -> None:
    states, back = States(), States()
    states.claims["claim-7"] = ShortfallClaimed(
        time=5, cause=Cause(source="a", type="price"), account="a", pool="cross", asset="USD", amount=Decimal("1.5"),
        claim_id="claim-7", liquidation_id="liquidation-3", recourse="limited", evidence=Evidence(
            account_equity=ZERO, margin_equity=ZERO, collateral_value=ZERO, unrealised_pnl=ZERO, initial_margin=ZERO,
            maintenance_margin=ZERO, margin_ratio=None, balances={"USD": ZERO}, marks={}, positions=[],
            rulebook=RulebookVersion(name="house", version=1), trigger=Trigger(position=1, type="price")))

    restore_states(back, encode_states(states))

    assert states.claims == back.claims
