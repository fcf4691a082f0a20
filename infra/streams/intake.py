"""The worker: reads the topics into shards, each record exactly once (docs/streaming.md has the protocol).

Two consumers: a member of the group on `accounts`, whose partitions are the shards, and a reader of all prices and
control. Offsets live in the ledger and move with the events; those of the group are for tools that show lag. A shard
is claimed when its partition is assigned, so that whoever had it before can commit nothing more. This file decides
nothing of a record, and retries whatever is not the record's fault.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eventsourcing.persistence import PersistenceError

from infra.shard import Outcome
from infra.store.address import PostgresAddress, shard_address
from infra.streams.arrivals import Place
from infra.streams.cluster import Cluster, ClusterFault, cluster_id, facts_of
from infra.streams.envelope import record_of
from infra.streams.lane import Lane
from infra.streams.records import Delivered, read
from infra.streams.records import Place as RecordPlace
from infra.streams.topics import ACCOUNTS, CONTROL, PRICES, full_name, shards_of
from infra.venue import SimulatedVenue
from ledger.amounts import NANOSECONDS
from ledger.errors import LedgerLocked

log = logging.getLogger("clearing.worker")

GROUP: Final = "clearing-worker"
# A worker that is gone is replaced after this; the broker's own floor is 6 s unless told otherwise.
SESSION_SECONDS: Final = 6
# Opening a large ledger takes minutes, in which nothing is polled; heartbeats go on meanwhile.
POLL_INTERVAL_SECONDS_MAX: Final = 900
# Records that may wait per partition before it is paused, and below which it is resumed.
WAITING_MAX: Final = 10_000
WAITING_LOW: Final = 2_000
POLL_RECORDS_MAX: Final = 2_000
# At the end of all partitions the worker waits this long for the next record of each consumer, in turn.
IDLE_MS: Final = 10
# Whatever is not the record's fault is tried again, first after this, at last after that.
RETRY_SECONDS: Final = 0.5
RETRY_SECONDS_MAX: Final = 15.0
CHECK_SECONDS: Final = 1.0


class IntakeStopped(Exception):
    """The worker must not go on; the message says what was expected, what came, and what to do."""


@dataclass(frozen=True)
class Intake:
    """How a worker works. `future_tolerance` in seconds; `breaker`: of how many last records most may be rejected."""

    cluster: Cluster
    ledger: Path | PostgresAddress
    venue: SimulatedVenue | None = None
    batch: int = 1_000
    future_tolerance: int = 60
    breaker: int = 1_000
    instance: str | None = None
    group: str = GROUP
    session_seconds: float = SESSION_SECONDS


class Worker:
    """Reads until told to stop. `lanes`: the shards that are ours, by number."""

    def __init__(self, intake: Intake) -> None:
        self.intake, self.cluster = intake, intake.cluster
        self.lanes: dict[int, Lane] = {}
        self.listeners: list[Callable[[int, list[Outcome]], None]] = []
        self.turned = time.monotonic()
        self.rebalances = 0
        names = [full_name(self.cluster, topic) for topic in (CONTROL, ACCOUNTS, PRICES)]
        self._ranks = {name: rank for rank, name in enumerate(names)}
        self._control, self._accounts, self._prices = names
        self._stopped = threading.Event()
        self._made_anew: str | None = None
        self._identities: Mapping[str, str] = {}
        self._shards = 0
        self._common: list[Place] = []
        self._members: Any = None
        self._reader: Any = None
        # Partitions as the group gave them, taken up by the loop: True where they are fresh.
        self._assigned: dict[int, bool] = {}
        self._retry: dict[int, tuple[float, float]] = {}
        # By shard: a moment by the wall clock, and where the partitions ended after it.
        self._moments: dict[int, tuple[int, Mapping[Place, int]]] = {}
        self._now = 0
        self._committed_at = self._clock_at = 0.0

    # --- the loop ------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Finish the batch under way and leave; may be called from a signal handler or another thread."""
        self._stopped.set()

    def run(self) -> None:
        """Work until `stop`. IntakeStopped, FeedBroken, ClusterFault: what must be mended first."""
        try:
            self._start()
            while not self._stopped.is_set():
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        self.turned = time.monotonic()
        if self._made_anew is not None:
            raise IntakeStopped(self._made_anew)
        found = self._poll(self._reader, 0 if self._has_waiting() else IDLE_MS)
        self._poll(self._members, 0 if found or self._has_waiting() else IDLE_MS)
        self._settle_assignment()
        for lane in list(self.lanes.values()):
            if lane.is_open:
                self._guarded(lane, self._apply)
        self._balance()
        self._commit_for_tools()
        self._move_clocks()

    def _has_waiting(self) -> bool:
        return any(lane.is_open and len(lane.arrivals) for lane in self.lanes.values())

    def _apply(self, lane: Lane) -> None:
        outcomes = lane.apply(self.intake.batch, self._has_more)
        if outcomes:
            self._retry.pop(lane.number, None)
            for listener in self.listeners:
                listener(lane.number, outcomes)

    def _guarded(self, lane: Lane, work: Callable[[Lane], None]) -> None:
        """Run something on a lane; where its store fails, close it and try again later from what was committed."""
        from kafka.errors import KafkaError, LogTruncationError

        try:
            work(lane)
        except LogTruncationError as fault:
            raise IntakeStopped(_truncated(fault)) from None
        except (PersistenceError, LedgerLocked, sqlite3.Error, KafkaError, OSError) as fault:
            _, wait = self._retry.get(lane.number, (0.0, RETRY_SECONDS / 2))
            wait = min(2 * wait, RETRY_SECONDS_MAX)
            self._retry[lane.number] = (time.monotonic() + wait, wait)
            log.warning("shard %d: %s; tried again in %.1f s", lane.number, fault, wait)
            lane.close()

    # --- start and end -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        from kafka import KafkaConsumer, TopicPartition
        from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

        with self.cluster.admin() as admin:
            self._shards = shards_of(admin, self.cluster)
            found = facts_of(admin, self._ranks)
            self._identities = {"kafka cluster": cluster_id(admin),
                                **{f"kafka topic {name}": row.id for name, row in found.items()}}
        self._common = [Place(name, number) for name in (self._control, self._prices)
                        for number in range(found[name].partitions)]
        options = {**self.cluster.options(), "enable_auto_commit": False, "auto_offset_reset": "none",
                   "isolation_level": "read_committed", "max_poll_records": POLL_RECORDS_MAX,
                   "allow_auto_create_topics": False}
        self._reader = KafkaConsumer(**options)
        self._reader.assign([TopicPartition(*place) for place in self._common])
        for place in self._common:
            # Until a shard says where it wants to read from.
            self._reader.seek(TopicPartition(*place), 0)
            self._reader.pause(TopicPartition(*place))
        self._members = KafkaConsumer(
            **options, group_id=self._group(), group_instance_id=self.intake.instance,
            session_timeout_ms=int(self.intake.session_seconds * 1_000),
            heartbeat_interval_ms=int(self.intake.session_seconds * 1_000 / 3),
            max_poll_interval_ms=POLL_INTERVAL_SECONDS_MAX * 1_000,
            partition_assignment_strategy=(CooperativeStickyAssignor,))

        # Asked for first: a member that joins before it knows the topic is given nothing, and may stay so for minutes.
        self._members.partitions_for_topic(self._accounts)
        self._members.subscribe([self._accounts], listener=_listener(self._on_assigned, self._on_revoked))
        threading.Thread(target=self._watch_topics, name="topics", daemon=True).start()

    def _group(self) -> str:
        prefix = "" if self.cluster.prefix == "clearing." else self.cluster.prefix
        return f"{prefix}{self.intake.group}"

    def _close(self) -> None:
        self._stopped.set()
        for lane in self.lanes.values():
            lane.close()
        self.lanes.clear()
        if self._members is not None:
            self._members.close(autocommit=False, timeout_ms=3_000)
        if self._reader is not None:
            self._reader.close(autocommit=False, timeout_ms=1_000)

    def _watch_topics(self) -> None:
        """Look whether a topic was made anew under us: its offsets would mean other records."""
        wanted = {name.removeprefix("kafka topic "): value for name, value in self._identities.items()
                  if name.startswith("kafka topic ")}
        while not self._stopped.wait(CHECK_SECONDS):
            try:
                with self.cluster.admin() as admin:
                    while not self._stopped.wait(CHECK_SECONDS):
                        for name, row in facts_of(admin, wanted).items():
                            if row.id != wanted[name]:
                                self._made_anew = (
                                    f"{name}: expected the topic of id {wanted[name]}, came one of id {row.id}: it was "
                                    "made anew while we read it, and its offsets mean other records")
            except ClusterFault as fault:
                log.warning("%s", fault)

    # --- shards come and go --------------------------------------------------------------------------------------

    def _on_assigned(self, assigned: Iterable[Any]) -> None:
        for place in assigned:
            # A position must be known before the client looks for one; the ledger says later where to read from.
            self._members.seek(place, 0)
            self._members.pause(place)
            self._assigned[place.partition] = True

    def _on_revoked(self, revoked: Iterable[Any]) -> None:
        for place in revoked:
            self._assigned[place.partition] = False

    def _settle_assignment(self) -> None:
        changed, self._assigned = self._assigned, {}
        if changed:
            self.rebalances += 1
        for number, is_ours in changed.items():
            lane = self.lanes.pop(number, None)
            if lane is not None:
                lane.close()
                log.info("shard %d: given up", number)
            self._retry.pop(number, None)
            self._moments.pop(number, None)
            if is_ours:
                self.lanes[number] = Lane(
                    number, shard_address(self.intake.ledger, number, self._shards), venue=self.intake.venue,
                    breaker=self.intake.breaker)
                self._guarded(self.lanes[number], self._open_fresh)
        now = time.monotonic()
        for number, (due, _) in list(self._retry.items()):
            if number in self.lanes and not self.lanes[number].is_open and now >= due:
                # The group may have given the shard to another meanwhile; only a fresh assignment ends a writer.
                self._guarded(self.lanes[number], self._open)

    def _open_fresh(self, lane: Lane) -> None:
        self._open(lane, takes_over=True)

    def _open(self, lane: Lane, *, takes_over: bool = False) -> None:
        from kafka import TopicPartition

        places = [Place(self._accounts, lane.number), *self._common]
        starts = self._bounds("beginning_offsets", places)
        lane.open(starts, self._ranks, self._identities, whole=(self._control, self._accounts),
                  takes_over=takes_over)
        accounts = TopicPartition(*places[0])
        self._members.seek(accounts, lane.arrivals.ends[places[0]])
        self._members.resume(accounts)
        for place in self._common:
            found = TopicPartition(*place)
            wanted = lane.arrivals.ends[place]
            others = [other for other in self.lanes.values() if other.is_open and other is not lane]
            # Shards that are further pass over what they have seen.
            position = _position(self._reader, found)
            if not others or position is None or position > wanted:
                self._reader.seek(found, wanted)
            self._reader.resume(found)
        log.info("shard %d: log position %d, accounts from offset %d", lane.number, lane.shard.house.position,
                 lane.arrivals.ends[places[0]])

    # --- reading -------------------------------------------------------------------------------------------------

    def _poll(self, consumer: Any, wait_ms: int) -> int:
        from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError

        try:
            polled = consumer.poll(timeout_ms=wait_ms)
        except OffsetOutOfRangeError as fault:
            raise IntakeStopped(self._out_of_range(consumer, fault)) from None
        except LogTruncationError as fault:
            raise IntakeStopped(_truncated(fault)) from None
        except KafkaError as fault:
            if not getattr(fault, "retriable", False):
                raise IntakeStopped(f"the Kafka cluster at {self.cluster.bootstrap} refused: {fault!r}") from fault
            log.warning("%r; tried again", fault)
            self._stopped.wait(RETRY_SECONDS)
            return 0
        count = 0
        latest = time.time_ns() + self.intake.future_tolerance * NANOSECONDS
        for place, records in polled.items():
            count += len(records)
            self._deliver(Place(place.topic, place.partition), records, latest)
        return count

    def _deliver(self, place: Place, records: Iterable[Any], latest: int) -> None:
        lanes = ([self.lanes[place.partition]] if place.topic == self._accounts and place.partition in self.lanes
                 else list(self.lanes.values()) if place.topic != self._accounts else [])
        lanes = [lane for lane in lanes if lane.is_open]
        for record in records:
            wanting = [lane for lane in lanes if record.offset >= lane.arrivals.ends[place]]
            if wanting:
                delivered = _read(record, latest)
                for lane in wanting:
                    lane.arrivals.put(place, record.offset, record.timestamp, delivered)

    def _out_of_range(self, consumer: Any, fault: Any) -> str:
        sentences = []
        for place, offset in fault.args[0].items():
            first = consumer.beginning_offsets([place])[place]
            end = consumer.end_offsets([place])[place]
            why = ("retention has taken what was not read yet" if offset < first
                   else "the topic is shorter than what was read of it, so it was made anew or lost what it held")
            sentences.append(f"{place.topic}[{place.partition}]: expected offset {offset}, the cluster has {first} to "
                             f"{end}: {why}")
        return ("; ".join(sentences) + ". Nothing is passed over in silence: bring the records back, or see "
                "docs/streaming.md, section 'A gap in the input'")

    def _has_more(self, place: Place) -> bool:
        """Whether a partition holds records that were not given to us yet, as of its last answer."""
        from kafka import TopicPartition

        consumer, found = self._consumer_of(place), TopicPartition(*place)
        if found not in consumer.assignment():
            return False
        end, position = consumer.highwater(found), _position(consumer, found)
        return end is None or position is None or position < end

    def _consumer_of(self, place: Place) -> Any:
        return self._members if place.topic == self._accounts else self._reader

    def _bounds(self, ask: str, places: Iterable[Place]) -> dict[Place, int]:
        """Where partitions begin or end; each consumer answers only for its own."""
        from kafka import TopicPartition

        found: dict[Place, int] = {}
        for consumer in (self._members, self._reader):
            own = [TopicPartition(*place) for place in places if self._consumer_of(place) is consumer]
            if own:
                found.update((Place(*place), offset) for place, offset in getattr(consumer, ask)(own, 5_000).items())
        return found

    def _balance(self) -> None:
        """Pause partitions whose records pile up, and resume them when they do not."""
        from kafka import TopicPartition

        opened = [lane for lane in self.lanes.values() if lane.is_open]
        for lane in opened:
            self._limit(self._members, TopicPartition(self._accounts, lane.number),
                        lane.arrivals.waiting(Place(self._accounts, lane.number)))
        for place in self._common:
            self._limit(self._reader, TopicPartition(*place),
                        max((lane.arrivals.waiting(place) for lane in opened), default=WAITING_MAX + 1))

    @staticmethod
    def _limit(consumer: Any, place: Any, waiting: int) -> None:
        if place not in consumer.assignment():
            return
        paused = place in consumer.paused()
        if waiting > WAITING_MAX and not paused:
            consumer.pause(place)
        elif waiting < WAITING_LOW and paused:
            consumer.resume(place)

    def _commit_for_tools(self) -> None:
        """Tell the group how far we are, for whoever looks at lag; nothing here ever reads it."""
        from kafka import OffsetAndMetadata, TopicPartition

        now = time.monotonic()
        if now - self._committed_at < CHECK_SECONDS:
            return
        self._committed_at = now
        offsets = {}
        for lane in self.lanes.values():
            if lane.is_open:
                place = TopicPartition(self._accounts, lane.number)
                if place in self._members.assignment():
                    offsets[place] = OffsetAndMetadata(lane.shard.next_offsets()[tuple(place)], "", -1)
        if offsets:
            self._members.commit_async(offsets)

    # --- time ----------------------------------------------------------------------------------------------------

    def _move_clocks(self) -> None:
        """Let time pass in shards whose deadlines are due, once they have caught up.

        The wall clock is read first, the ends of the partitions after it. When all before those ends is applied,
        whatever was sent before that moment stands before the clock record.
        """
        from kafka.errors import KafkaError

        for lane in self.lanes.values():
            moment = self._moments.get(lane.number)
            if moment is not None and lane.is_open and self._has_caught_up(lane, moment[1]):
                self._now = moment[0]
                self._guarded(lane, self._clock)
                del self._moments[lane.number]
        if time.monotonic() - self._clock_at < CHECK_SECONDS:
            return
        self._clock_at, now = time.monotonic(), time.time_ns()
        wanting = [lane for lane in self.lanes.values() if lane.is_open and lane.wants_clock(now)
                   and lane.number not in self._moments]
        if not wanting:
            return
        try:
            found = self._bounds("end_offsets", {place for lane in wanting for place in lane.arrivals.places})
        except KafkaError as fault:
            log.warning("no clock: %r", fault)
            return
        for lane in wanting:
            self._moments[lane.number] = (now, {place: found[place] for place in lane.arrivals.places})

    def _has_caught_up(self, lane: Lane, ends: Mapping[Place, int]) -> bool:
        return lane.has_applied(ends) and all(self._is_read_up_to(place, end) for place, end in ends.items())

    def _is_read_up_to(self, place: Place, end: int) -> bool:
        from kafka import TopicPartition

        consumer, found = self._consumer_of(place), TopicPartition(*place)
        position = _position(consumer, found) if found in consumer.assignment() else None
        return position is not None and position >= end

    def _clock(self, lane: Lane) -> None:
        lane.move_clock(self._now)


def _truncated(fault: Exception) -> str:
    return (f"the cluster lost records that were read already: {fault}. Either it was made anew, or a broker that had "
            "not all of it became its leader; see docs/streaming.md, section 'A gap in the input'")


def _position(consumer: Any, place: Any) -> int | None:
    """What a partition goes on from. Asked without a limit, the client waits for ever where there is nothing."""
    position: int | None = consumer.position(place, timeout_ms=1)
    return position


def _listener(assigned: Callable[[Iterable[Any]], None], revoked: Callable[[Iterable[Any]], None]) -> Any:
    """Called by the client's own thread while the loop waits in `poll`; the loop does the work after it."""
    from kafka import ConsumerRebalanceListener

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, places: Iterable[Any]) -> None:
            assigned(places)

        def on_partitions_revoked(self, places: Iterable[Any]) -> None:
            revoked(places)

        def on_partitions_lost(self, places: Iterable[Any]) -> None:
            revoked(places)

    return Listener()


def _read(record: Any, latest: int) -> Delivered:
    return read(RecordPlace(record.topic, record.partition, record.offset), record_of(record.value, record.headers),
                latest=latest)
