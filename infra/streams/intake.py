"""Intake: records from Kafka into a shard's ledger, each applied once, positions in the ledger's own database.

One shard is one partition of the accounts topic and all of prices and control, or the house. Partitions are claimed
under a new epoch, read from where the ledger stands, and moved in the commit of the records. Offsets of the group are
committed afterwards, for those who watch lag; they are never read. What no model accepts is recorded as rejected; what
Kafka or the store does not answer is tried again by starting anew from the last commit, never dead-lettered. This file
never decides what becomes of a record.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError
from pydantic_core import from_json, to_json

from infra.metrics import Vitals
from infra.shard import Shard
from infra.streams.arrivals import Arrivals
from infra.streams.arrivals import Place as Source
from infra.streams.parts import Duty, ShardId, duty_of, read_between
from infra.streams.records import Delivered, Place, read
from infra.streams.topics import ACCOUNTS, BETWEEN_SHARDS, CONTROL, INPUTS, PRICES, RECONNECT_MS_MAX, topic_ids
from infra.streams.traces import Traces
from ledger.amounts import NANOSECONDS
from ledger.commands import MoveClock

RECORDS_PER_BATCH: Final = 1_000
POLL_MS: Final = 100
# Of so many last records so many rejected: the stream is not what this ledger is for, and a human looks first.
BREAKER_WINDOW: Final = 1_000
BREAKER_REJECTED: Final = 900
# How often the ends of the partitions are asked for, to tell the lag.
ENDS_SECONDS: Final = 1.0
# Records of one partition that wait for those of others before it is paused, and below which it is resumed.
WAITING_MAX: Final = 10_000
WAITING_LOW: Final = 2_000
# A partition that promises more and gives nothing (a transaction left open upstream) holds the others back this long.
HELD_BACK_SECONDS_MAX: Final = 1.0
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

    def __init__(self, shard: Shard, bootstrap: str, *, partition: ShardId, prefix: str, group: str,
                 future_tolerance: int = 60, batch: int = RECORDS_PER_BATCH, vitals: Vitals | None = None,
                 wall_clock: Callable[[], int] = time.time_ns, traces: Traces | None = None) -> None:
        self.shard, self.partition, self.prefix, self.batch = shard, partition, prefix, batch
        self.group = f"{group}-positions-{partition}"
        self.applied = 0
        self.vitals = vitals
        # partition -> next offset to read, and the end of the partition when last asked
        self.positions: dict[TopicPartition, int] = {}
        self.ends: dict[TopicPartition, int] = {}
        # name -> id of the topics read, which one that is made anew does not keep
        self.topic_ids: Mapping[str, str] = {}
        self._bootstrap, self._wall_clock = bootstrap, wall_clock
        self._tolerance = future_tolerance * NANOSECONDS
        self._recent: deque[bool] = deque(maxlen=BREAKER_WINDOW)
        self._asked = self._noted = 0.0
        # Positions beyond markers and aborted records, which the ledger has still to note.
        self._followed: dict[TopicPartition, int] = {}
        self._arrivals: Arrivals[Any] = Arrivals((), {})
        self._held_back_since: float | None = None
        self._piled: set[TopicPartition] = set()
        # A moment by the wall clock, and where the partitions ended after it: once read so far, time may pass.
        self._moment: tuple[int, Mapping[TopicPartition, int]] | None = None
        self._consumer: Any = None
        self._duty = Duty()
        self._traces = traces or Traces()

    def open(self) -> None:
        """Claim the shard's partitions and read control up to its present end, so that accounts find their markets.

        IntakeStopped where a stored position lies outside of what the topic holds.
        """
        self._consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap, group_id=self.group, enable_auto_commit=False,
            auto_offset_reset="none", isolation_level="read_committed", max_poll_records=self.batch,
            fetch_max_wait_ms=POLL_MS, reconnect_backoff_max_ms=RECONNECT_MS_MAX)
        places = self._places()
        self._consumer.assign(places)
        self._arrivals = Arrivals([Source(*place) for place in places],
                                  {self.prefix + name: rank for rank, name in enumerate((*INPUTS[::-1],
                                                                                         *BETWEEN_SHARDS))})
        self._identify()
        claimed = self.shard.claim((place.topic, place.partition) for place in places)
        begin, self.ends = self._bounds(self._consumer.beginning_offsets), self._bounds(self._consumer.end_offsets)
        for place in places:
            position = claimed[place.topic, place.partition]
            if position > self.ends[place]:
                raise IntakeStopped(
                    f"{place.topic}[{place.partition}]: expected an end of at least {position}, where this ledger "
                    f"stands, it ends at {self.ends[place]}: the topic was made anew or lost records; this ledger must "
                    "not read on from it")
            if position < begin[place]:
                # Prices of the past are marks that others replaced; an account without its first records is another.
                if position or place.topic != self.prefix + PRICES:
                    raise IntakeStopped(
                        f"{place.topic}[{place.partition}]: expected records from {position} on, the topic begins at "
                        f"{begin[place]}: retention removed what this ledger has not read")
                position = begin[place]
            self.positions[place] = position
            self._arrivals.start(Source(*place), position)
            self._consumer.seek(place, position)
        self._read_control_first(places)

    def _places(self) -> list[TopicPartition]:
        """The partitions that this shard reads, once it is known what it keeps."""
        counts = {name: len(self._consumer.partitions_for_topic(self.prefix + name) or ()) for name in INPUTS}
        if counts[ACCOUNTS] > 1:
            counts.update((name, len(self._consumer.partitions_for_topic(self.prefix + name) or ()))
                          for name in BETWEEN_SHARDS)
        for name, count in counts.items():
            wanted = counts[ACCOUNTS] if name in BETWEEN_SHARDS else 1
            if count < wanted:
                raise IntakeStopped(f"expected the topic {self.prefix + name} with at least {wanted} partitions, it "
                                    f"has {count}; `clearing topics ensure` makes what is missing")
        self._duty = duty_of(self.partition, counts[ACCOUNTS])
        self.shard.keep(self._duty.part, self._duty.settings())
        return [TopicPartition(self.prefix + name, number) for name, number in self._duty.places(counts)]

    def _identify(self) -> None:
        """Note the ids of the topics with the ledger; IntakeStopped where one is not that which its log was read from.

        A topic that was made anew has other records at the same offsets, and no client tells.
        """
        admin = KafkaAdminClient(bootstrap_servers=self._bootstrap, reconnect_backoff_max_ms=RECONNECT_MS_MAX)
        try:
            self.topic_ids = topic_ids(admin, self.prefix)
        finally:
            admin.close()
        noted = self.shard.store.settings()
        ids = {f"kafka topic {name}": found for name, found in self.topic_ids.items()}
        for setting, found in ids.items():
            if noted.get(setting, found) != found:
                raise IntakeStopped(f"expected {setting.removeprefix('kafka ')} of id {noted[setting]}, which this "
                                    f"ledger was read from, came one of id {found}: it was made anew, and its offsets "
                                    "mean other records; this ledger must not read on from it")
        self.shard.store.put_settings({setting: found for setting, found in ids.items() if setting not in noted})

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

    def step(self, wait_ms: int = POLL_MS) -> int:
        """Poll once, apply and commit what came; the number of records. KafkaError: start anew."""
        polled = self._consumer.poll(timeout_ms=0 if self._can_go_on() else wait_ms, max_records=self.batch)
        for place, found in polled.items():
            for row in found:
                self._arrivals.put(Source(*place), row.offset, row.timestamp, row)
        rows = self._arrivals.take(self.batch, self._patient())
        self._limit()
        ahead = self._wall_clock() + self._tolerance
        came = [self._read(row, ahead) for row in rows]
        batch = [delivered for delivered in came if self._duty.concerns(delivered)]
        passed = [delivered.place for delivered in came] if len(batch) < len(came) else []
        batch += self._clock()
        if not batch and not passed:
            # Aborted transactions and markers move a partition's end without a record.
            self._follow_markers()
            return 0
        started = time.perf_counter()
        outcomes = self.shard.apply(batch, passed=passed)
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

    def _read(self, row: Any, latest: int) -> Delivered:
        place = Place(row.topic, row.partition, row.offset)
        if row.headers:
            self._traces.note(row.topic, row.partition, row.offset, row.headers)
        if row.topic.removeprefix(self.prefix) in BETWEEN_SHARDS:
            return read_between(place, row.value or b"")
        return read(place, unframed(row.value, {name: value for name, value in row.headers or ()}), latest=latest)

    def _bounds(self, ask: Callable[[list[TopicPartition]], dict[TopicPartition, int]]) -> dict[TopicPartition, int]:
        """An offset of each partition. KafkaError where the client knows none, which it says by a KeyError."""
        places = [TopicPartition(*source) for source in self._arrivals.places]
        try:
            return ask(places)
        except KeyError as unknown:
            raise KafkaError(f"expected the bounds of {unknown}, the cluster did not tell") from unknown

    def lags(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> records between the ledger's position and the partition's end when last asked."""
        return {(place.topic, place.partition): max(0, self.ends[place] - position)
                for place, position in self.positions.items()}

    def _follow_markers(self) -> None:
        for place, position in self.positions.items():
            if not self._arrivals.waiting(Source(*place)):
                followed = max(position, self._position(place) or 0)
                if followed > position:
                    self.positions[place] = self._followed[place] = followed
        # The ledger follows, too, though not at once: whoever asks it shall not wait for what is no record.
        if self._followed and time.monotonic() - self._noted >= ENDS_SECONDS:
            self.shard.apply([], passed=[Place(place.topic, place.partition, offset - 1)
                                         for place, offset in self._followed.items()])
            self._followed, self._noted = {}, time.monotonic()

    def _position(self, place: TopicPartition) -> int | None:
        """What the client reads next. Asked without a limit, it waits for ever where it knows nothing."""
        found: int | None = self._consumer.position(place, timeout_ms=1)
        return found

    # --- the order of partitions ---------------------------------------------------------------------------------

    def _has_more(self, source: Source) -> bool:
        """Whether a partition holds records that were not given to us yet, as of its last answer."""
        place = TopicPartition(*source)
        if place in self._consumer.paused():
            return False
        end, position = self._consumer.highwater(place), self._position(place)
        return end is None or position is None or position < end

    def _can_go_on(self) -> bool:
        return bool(len(self._arrivals)) and not self._arrivals.held_back_by(self._has_more)

    def _patient(self) -> Callable[[Source], bool]:
        """Wait for partitions that have more to give, but not for ever."""
        if not len(self._arrivals) or not self._arrivals.held_back_by(self._has_more):
            self._held_back_since = None
            return self._has_more
        now = time.monotonic()
        if self._held_back_since is None:
            self._held_back_since = now
        return self._has_more if now - self._held_back_since < HELD_BACK_SECONDS_MAX else lambda _: False

    def _limit(self) -> None:
        """Pause partitions whose records pile up, and resume them when they do not."""
        paused = self._consumer.paused()
        for place in self.positions:
            waiting = self._arrivals.waiting(Source(*place))
            if waiting > WAITING_MAX and place not in paused:
                self._consumer.pause(place)
                self._piled.add(place)
            elif waiting < WAITING_LOW and place in self._piled:
                self._consumer.resume(place)
                self._piled.remove(place)

    # --- time ----------------------------------------------------------------------------------------------------

    def _clock(self) -> list[Delivered]:
        """A clock record, where a deadline has passed by the wall clock and all that was sent before has been read.

        The wall clock is read first, the ends of the partitions after it: whatever stands before those ends stands
        before the clock record, however much comes meanwhile.
        """
        now, house = self._wall_clock(), self.shard.house
        is_due = self._moment is None and bool(house.timers) and house.log_time < now >= house.timers[0][0]
        # To ask for the ends takes a turn with the cluster, which a record that just came would have to wait for.
        if is_due or time.monotonic() - self._asked >= ENDS_SECONDS:
            self.ends, self._asked = self._bounds(self._consumer.end_offsets), time.monotonic()
        if is_due:
            self._moment = now, self.ends
        if self._moment is None or not all(self._is_taken(place, end) for place, end in self._moment[1].items()):
            return []
        (moment, _), self._moment = self._moment, None
        return [Delivered(Place(CLOCK_SOURCE), MoveClock(id=f"{moment}", time=moment), None, None)]

    def _is_taken(self, place: TopicPartition, end: int) -> bool:
        first, position = self._arrivals.first(Source(*place)), self._position(place)
        return position is not None and position >= end and (first is None or first >= end)

    def _watch(self, rejected: list[bool]) -> None:
        self._recent.extend(rejected)
        if sum(self._recent) >= BREAKER_REJECTED:
            raise IntakeStopped(f"{sum(self._recent)} of the last {len(self._recent)} records were rejected (recorded, "
                                "nothing lost); look at `clearing events --type record-rejected`, then start again")
