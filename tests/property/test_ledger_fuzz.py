"""Whatever records come, in any order: the ledger goes on, balances, and can say of each what became of it.

The base is a ledger in which accounts, positions, orders and holds exist; upon it come records of every type whose
fields are those of other records, boundary amounts, or nonsense. No crash, no silent acceptance: each record leaves an
event or is a duplicate, and each rejection names what was expected and where it came from.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.embedded import in_memory
from infra.shard import Shard
from infra.streams.records import Place, read
from infra.venue import SimulatedVenue
from ledger.events import RecordRejected
from projections.audit import Row, replay
from tests.golden.archive import FOLDER
from tests.property.test_records_fuzz import VALID, mutations

# Up to here the desk has opened everything and holds positions; then the market falls.
OPENED = 92
DESK = [line for line in (FOLDER / "desk.jsonl").read_bytes().splitlines() if line.strip()]


@cache
def known() -> dict[str, list[Any]]:
    """For each field, the values that records of the desk have there, and that the examples of each type have."""
    found: dict[str, list[Any]] = {}
    for raw in DESK:
        try:
            record = json.loads(raw)
        except ValueError:
            continue
        for name, value in record.items():
            if name != "rulebook" or isinstance(value, str):
                found.setdefault(name, []).append(value)
    for record in VALID:
        for name, value in record.items():
            found.setdefault(name, []).append(value)
    return found


AMOUNTS = st.sampled_from(["0.001", "0.01", "1", "10", "1000", "250000", "-1", "0.000000000000000001",
                           "999999999999999999", "0", "-0.5", "100.25", "1e3", ""])
NUMBERS = {"amount", "size", "price", "fee", "remaining", "rate", "borrow_rate", "lend_rate", "leverage", "quantum",
           "contract_size", "tick_size", "lot_size"}
SECONDS = st.integers(0, 4 * 3_600).map(
    lambda after: f"2026-01-05T{10 + after // 3600:02d}:{after // 60 % 60:02d}:{after % 60:02d}Z")


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A record of any type whose fields other records of the desk have, mostly; ids repeat now and then."""
    example = draw(st.sampled_from(VALID))
    record: dict[str, Any] = {"type": example["type"], "id": f"fuzz-{draw(st.integers(0, 12))}", "time": draw(SECONDS)}
    for name in example:
        if name in ("type", "time", "replay_of") or (name == "id" and draw(st.integers(0, 9))):
            continue
        if name == "sequence":
            record[name] = draw(st.integers(0, 30))
        elif name in NUMBERS and draw(st.booleans()):
            record[name] = draw(AMOUNTS)
        elif draw(st.integers(0, 6)):
            record[name] = draw(st.sampled_from(known()[name]))
    return json.dumps({name: value for name, value in record.items() if value is not None},
                      ensure_ascii=draw(st.booleans())).encode()


STREAMS = st.lists(records() | records() | records() | mutations() | st.sampled_from(DESK), min_size=1, max_size=25)


def opened() -> Shard:
    shard = in_memory(venue=SimulatedVenue())
    shard.apply([read(Place("desk.jsonl", line=number), raw) for number, raw in enumerate(DESK[:OPENED], 1)])
    return shard


class _Stored:
    """A ledger in memory, as replay reads one."""

    def __init__(self, shard: Shard) -> None:
        self.store = shard.store

    def log_rows(self, after: int, limit: int) -> list[Row]:
        return [Row(row.id, str(row.originator_id), row.originator_version, row.topic, bytes(row.state))
                for row in self.store.select_notifications(after + 1, limit)]

    def head(self) -> tuple[int, int, bytes] | None:
        head = self.store.head()
        return None if head is None else (head.position, head.log_time, head.root)

    def inbox(self) -> dict[tuple[str, str, str], int]:
        return dict(self.store.inbox())

    def source_positions(self) -> dict[tuple[str, int], int]:
        return {place: found.next_offset for place, found in self.store.source_positions().items()}

    def leaves(self) -> bytes:
        return self.store.leaves()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(stream=STREAMS, batch=st.integers(1, 30))
def test_no_records_stop_the_stream_or_lose_money_or_go_unexplained(stream: list[bytes], batch: int) -> None:
    shard = opened()
    delivered = [read(Place("fuzz", line=number), raw) for number, raw in enumerate(stream, 1)]
    outcomes = list(shard.ingest(delivered, batch_size=batch))

    assert len(delivered) == len(outcomes)
    assert shard.is_balanced()
    for row, outcome in zip(delivered, outcomes, strict=True):
        event = shard._recorded(outcome.position).event
        assert outcome.kind == "duplicate" or event.cause.line == row.place.line
        assert row.fault is None or outcome.kind in ("rejected", "duplicate")
        if isinstance(event, RecordRejected) and outcome.kind == "rejected":
            assert (event.reason, "fuzz") == (outcome.reason, event.cause.source)
            assert event.message
            assert event.field is None or event.field in event.message or event.reason == "conflict"
    again = list(shard.ingest(delivered, batch_size=batch))
    assert {"duplicate"} == {outcome.kind for outcome in again}
    assert [] == list(replay(_Stored(shard)).differences)
