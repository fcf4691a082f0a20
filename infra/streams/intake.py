"""Intake: records from Kafka into a shard's ledger, each applied once, positions in the ledger's own database.

One shard is one partition of the accounts topic and all of prices and control. Partitions are claimed under a new
epoch, read from where the ledger stands, and moved in the commit of the records. Offsets of the group are committed
afterwards, for those who watch lag; they are never read. What no model accepts is recorded as rejected; what Kafka or
the store does not answer is tried again by starting anew from the last commit, never dead-lettered. This file never
decides what becomes of a record.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError
from pydantic_core import from_json, to_json

from infra.metrics import Vitals
from infra.shard import Shard
from infra.streams.records import Delivered, Place, read
from infra.streams.topics import ACCOUNTS, CONTROL, INPUTS, PRICES
from ledger.amounts import NANOSECONDS
from ledger.commands import MoveClock, MoveFund

RECORDS_PER_BATCH: Final = 1_000
POLL_MS: Final = 100
# Of so many last records so many rejected: the stream is not what this ledger is for, and a human looks first.
BREAKER_WINDOW: Final = 1_000
BREAKER_REJECTED: Final = 900
# How often the ends of the partitions are asked for, to tell the lag.
ENDS_SECONDS: Final = 1.0
CLOCK_SOURCE: Final = "clock"
_CONFLUENT_MAGIC: Final = 0
_CONFLUENT_HEADER_BYTES: Final = 5
_STRUCTURED: Final = b"application/cloudevents+json"

log = logging.getLogger(__name__)


class IntakeStopped(Exception):
    """Intake cannot go on by itself; the message says what stands against it and what to do."""


def unframed(value: bytes | None, headers: Mapping[str, bytes]) -> bytes:
    """A message's record: its value, without a schema registry's frame, or the `data` of a structured CloudEvent.

    What is no such thing is given back as it is, to be rejected with its bytes.
    """
    raw = value or b""
    if len(raw) > _CONFLUENT_HEADER_BYTES and raw[0] == _CONFLUENT_MAGIC and raw[_CONFLUENT_HEADER_BYTES:][:1] == b"{":
        raw = raw[_CONFLUENT_HEADER_BYTES:]
    if headers.get("content-type", b"").split(b";")[0].strip() == _STRUCTURED:
        with suppress(ValueError):
            envelope = from_json(raw)
            if isinstance(envelope, dict) and isinstance(envelope.get("data"), dict):
                # The text of `data` as it stood: a number must not pass through a float.
                return _data_of(raw) or to_json(envelope["data"])
    return raw


def _data_of(raw: bytes) -> bytes | None:
    """The very bytes of the member `data` of a JSON object, None where they are not found plainly."""
    text, decoder = raw.decode(), json.JSONDecoder(parse_float=str, parse_int=str)
    at = text.find('"data"')
    while at >= 0:
        start = text.find("{", at)
        if start < 0:
            return None
        if text[at + 6:start].strip() == ":":
            with suppress(ValueError):
                _, end = decoder.raw_decode(text, start)
                return text[start:end].encode()
        at = text.find('"data"', at + 1)
    return None


class Intake:
    """One shard's consumers. Open it, step it, close it; after any fault a new one goes on from the last commit."""

    def __init__(self, shard: Shard, bootstrap: str, *, partition: int, prefix: str, group: str,
                 future_tolerance: int = 60, batch: int = RECORDS_PER_BATCH, vitals: Vitals | None = None,
                 wall_clock: Callable[[], int] = time.time_ns) -> None:
        self.shard, self.partition, self.prefix, self.batch = shard, partition, prefix, batch
        self.group = f"{group}-positions-{partition}"
        self.applied = 0
        self.vitals = vitals
        # partition -> next offset to read, and the end of the partition when last asked
        self.positions: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}
        self._bootstrap, self._wall_clock = bootstrap, wall_clock
        self._tolerance = future_tolerance * NANOSECONDS
        self._recent: deque[bool] = deque(maxlen=BREAKER_WINDOW)
        self._asked = 0.0
        self._consumer: Any = None

    def open(self) -> None:
        """Claim the shard's partitions and read control up to its present end, so that accounts find their markets.

        IntakeStopped where a stored position lies outside of what the topic holds.
        """
        self._consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap, group_id=self.group, enable_auto_commit=False,
            auto_offset_reset="none", isolation_level="read_committed", max_poll_records=self.batch,
            fetch_max_wait_ms=POLL_MS)
        places = [TopicPartition(self.prefix + ACCOUNTS, self.partition)]
        for name in (PRICES, CONTROL):
            numbers = self._consumer.partitions_for_topic(self.prefix + name)
            if not numbers:
                raise IntakeStopped(f"expected the topic {self.prefix + name}, there is none; `clearing topics ensure` "
                                    "makes what is missing")
            places += [TopicPartition(self.prefix + name, number) for number in sorted(numbers)]
        self._consumer.assign(places)
        claimed = self.shard.claim((place.topic, place.partition) for place in places)
        begin, self.ends = self._consumer.beginning_offsets(places), self._consumer.end_offsets(places)
        for place in places:
            position = claimed[place.topic, place.partition]
            if position > self.ends[place]:
                raise IntakeStopped(
                    f"{place.topic}[{place.partition}]: expected an end of at least {position}, where this ledger "
                    f"stands, it ends at {self.ends[place]}: the topic was made anew or lost records; this ledger must "
                    "not read on from it")
            if position < begin[place]:
                if position:
                    raise IntakeStopped(
                        f"{place.topic}[{place.partition}]: expected records from {position} on, the topic begins at "
                        f"{begin[place]}: retention removed what this ledger has not read")
                position = begin[place]
            self.positions[place] = position
            self._consumer.seek(place, position)
        self._read_control_first(places)

    def _read_control_first(self, places: list[TopicPartition]) -> None:
        control = [place for place in places if place.topic == self.prefix + CONTROL]
        others = [place for place in places if place not in control]
        self._consumer.pause(*others)
        while any(self.positions[place] < self.ends[place] for place in control):
            self.step()
        self._consumer.resume(*others)

    def close(self) -> None:
        """Leave the consumer; what was polled and not applied is read again."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def step(self) -> int:
        """Poll once, apply and commit what came; the number of records. KafkaError: start anew."""
        polled = self._consumer.poll(timeout_ms=POLL_MS, max_records=self.batch)
        rows = [row for rows in polled.values() for row in rows]
        # In the order that their senders' clocks say, as far as one poll goes; within a partition always its own.
        latest: dict[TopicPartition, int] = {}
        keyed = []
        for row in rows:
            place = TopicPartition(row.topic, row.partition)
            moment = latest[place] = max(latest.get(place, 0), row.timestamp)
            keyed.append(((moment, INPUTS[::-1].index(row.topic.removeprefix(self.prefix)), row.partition, row.offset),
                          row))
        keyed.sort(key=lambda pair: pair[0])
        ahead = self._wall_clock() + self._tolerance
        batch = [read(Place(row.topic, row.partition, row.offset),
                      unframed(row.value, {name: value for name, value in row.headers or ()}), latest=ahead)
                 for _, row in keyed]
        # A fund is one for all shards, and shard 0 keeps it: what others would add to theirs was paid in once.
        batch = [delivered for delivered in batch if not self.partition or type(delivered.command) is not MoveFund]
        batch += self._clock(len(rows))
        if not batch:
            # Aborted transactions and markers move a partition's end without a record.
            self._follow_markers()
            return 0
        started = time.perf_counter()
        outcomes = self.shard.apply(batch)
        if self.vitals is not None:
            self.vitals.batch_seconds.labels(self.partition).observe(time.perf_counter() - started)
            for kind, count in Counter(outcome.kind for outcome in outcomes).items():
                self.vitals.records.labels(self.partition, kind).inc(count)
        self.applied += len(rows)
        for row in rows:
            place = TopicPartition(row.topic, row.partition)
            self.positions[place] = max(self.positions[place], row.offset + 1)
        self._watch([outcome.kind == "rejected" for outcome in outcomes])
        if rows:
            with suppress(KafkaError):
                self._consumer.commit_async({place: OffsetAndMetadata(offset, "", -1)
                                             for place, offset in self.positions.items()})
        return len(rows)

    def lags(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> records between the ledger's position and the partition's end when last asked."""
        return {(place.topic, place.partition): max(0, self.ends[place] - position)
                for place, position in self.positions.items()}

    def _follow_markers(self) -> None:
        for place in self.positions:
            self.positions[place] = max(self.positions[place], self._consumer.position(place))

    def _clock(self, polled: int) -> list[Delivered]:
        """A clock record, where every partition is read to its end and a deadline has passed by the wall clock."""
        now, timers = self._wall_clock(), self.shard.house.timers
        is_due = not polled and bool(timers) and self.shard.house.log_time < now >= timers[0][0]
        # To ask for the ends takes a turn with the cluster, which a record that just came would have to wait for.
        if is_due or time.monotonic() - self._asked >= ENDS_SECONDS:
            self.ends, self._asked = self._consumer.end_offsets(list(self.positions)), time.monotonic()
        if not is_due or any(self._consumer.position(place) < end for place, end in self.ends.items()):
            return []
        return [Delivered(Place(CLOCK_SOURCE), MoveClock(id=f"{now}", time=now), None, None)]

    def _watch(self, rejected: list[bool]) -> None:
        self._recent.extend(rejected)
        if sum(self._recent) >= BREAKER_REJECTED:
            raise IntakeStopped(f"{sum(self._recent)} of the last {len(self._recent)} records were rejected (recorded, "
                                "nothing lost); look at `clearing events --type record-rejected`, then start again")
