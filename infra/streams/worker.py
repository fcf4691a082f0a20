"""The worker: owns shards as a member of a group, runs their intake and, if wanted, their relays, until told to stop.

A shard is owned with its partition of the accounts topic, the house with that of control. What is lost to another
worker is let go at once; what is gained is opened from its ledger. A fault of Kafka or the store closes the shard and
opens it anew, with growing pauses. This file never reads or decides a record.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final

from eventsourcing.persistence import PersistenceError
from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError

from infra.embedded import LedgerReader
from infra.metrics import Vitals
from infra.shard import Shard
from infra.streams.intake import POLL_MS, Intake, IntakeStopped
from infra.streams.outflow import Fenced, Relay
from infra.streams.parts import HOUSE, ShardId
from infra.streams.topics import ACCOUNTS, BETWEEN_SHARDS, CONTROL, DEFAULT_PREFIX, INPUTS, RECONNECT_MS_MAX, topic_ids
from infra.streams.traces import Traces
from ledger.errors import LedgerLocked

# How often the member looks after its group; records do not wait for it in between.
MEMBER_SECONDS: Final = 0.2
# How often it is looked whether the topics are still those that were read.
TOPICS_SECONDS: Final = 1.0
# Of several shards none has anything to read: looked at again after the first of these, and less often the longer it
# lasts, since every look costs a client about a millisecond.
IDLE_SECONDS: Final = (0.005, 0.04)
# A worker that is not heard of for so long has lost its shards; brokers allow no less by default.
SESSION_MS: Final = 6_000
PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
OpenShard = Callable[[ShardId], AbstractContextManager[Shard]]
OpenReader = Callable[[ShardId], LedgerReader]

log = logging.getLogger(__name__)


class _Owned(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python has no types
    """What the group gives this worker. Callbacks run on the client's thread, so they only take notes."""

    def __init__(self, house_topic: str) -> None:
        self.shards: set[ShardId] = set()
        self._house_topic = house_topic

    def _of(self, places: Any) -> set[ShardId]:
        return {HOUSE if place.topic == self._house_topic else place.partition for place in places}

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.shards |= self._of(assigned)

    def on_partitions_revoked(self, revoked: Any) -> None:
        self.shards -= self._of(revoked)

    def on_partitions_lost(self, lost: Any) -> None:
        self.shards -= self._of(lost)


class _Running:
    """A shard that this worker runs: its ledger, its intake, and a thread with its relay."""

    def __init__(self, worker: Worker, partition: ShardId) -> None:
        self._stack = ExitStack()
        self._stopping = threading.Event()
        woken, self._traces = threading.Event(), Traces()
        try:
            shard = self._stack.enter_context(worker.open_shard(partition))
            if shard.notice is not None:
                log.warning("shard %s: %s", partition, shard.notice)
            self.intake = Intake(shard, worker.bootstrap, partition=partition, prefix=worker.prefix,
                                 group=worker.group, future_tolerance=worker.future_tolerance,
                                 vitals=worker.vitals, traces=self._traces)
            self._stack.callback(self.intake.close)
            self.intake.open()
            if worker.open_reader is not None:
                shard.listeners.append(lambda _: woken.set())
                self._relay(worker, partition, woken)
        except BaseException:
            self.close()
            raise

    def _relay(self, worker: Worker, partition: ShardId, woken: threading.Event) -> None:
        def run() -> None:
            pauses = iter(PAUSES)
            while not self._stopping.is_set():
                reader = worker.read(partition)
                relay = Relay(reader, worker.bootstrap, shard=worker.name_of(partition), prefix=worker.prefix,
                              woken=woken, published=lambda position: self._published(worker, partition, position),
                              traces=self._traces)
                try:
                    relay.open()
                    relay.run(self._stopping.is_set)
                except (Fenced, KafkaError, PersistenceError) as fault:
                    log.warning("relay of shard %s starts anew: %s", partition, fault)
                    worker.count_restart(partition, "relay")
                    self._stopping.wait(next(pauses, PAUSES[-1]))
                except Exception as fault:
                    worker.fail(fault)
                    return
                finally:
                    relay.close()
                    reader.connection.close()

        thread = threading.Thread(target=run, name=f"relay-{partition}", daemon=True)

        def stop() -> None:
            self._stopping.set()
            woken.set()
            thread.join(8)

        self._stack.callback(stop)
        thread.start()

    def _published(self, worker: Worker, partition: ShardId, position: int) -> None:
        if worker.vitals is not None:
            worker.vitals.published(partition, position, self.intake.shard.house.position)

    def close(self) -> None:
        self._stack.close()


class Worker:
    """A member of the group `group`; `open_shard` gives the ledger of a partition, `open_reader` one for its relay."""

    def __init__(self, bootstrap: str, open_shard: OpenShard, *, prefix: str, group: str = "clearing-workers",
                 open_reader: OpenReader | None = None, name: str = "shard-{shard}", instance: str | None = None,
                 future_tolerance: int = 60, vitals: Vitals | None = None) -> None:
        self.vitals = vitals
        self.bootstrap, self.open_shard, self.open_reader = bootstrap, open_shard, open_reader
        # Services of other prefixes on the cluster have groups of their own.
        self.prefix, self.instance = prefix, instance
        self.group = group if prefix == DEFAULT_PREFIX else prefix + group
        self.future_tolerance = future_tolerance
        self.running: dict[ShardId, _Running] = {}
        self.fault: Exception | None = None
        self._name = name
        self._retries: dict[ShardId, tuple[float, int]] = {}

    def name_of(self, partition: ShardId) -> str:
        """What a shard is called in messages."""
        return self._name.format(shard=partition)

    def read(self, partition: ShardId) -> LedgerReader:
        """A reader of a shard's ledger for its relay."""
        if self.open_reader is None:
            raise RuntimeError("this worker relays nothing")
        return self.open_reader(partition)

    def count_restart(self, partition: ShardId, what: str) -> None:
        """A shard or its relay starts anew after a fault."""
        if self.vitals is not None:
            self.vitals.restarts.labels(partition, what).inc()

    def fail(self, fault: Exception) -> None:
        """Stop with a fault that starting anew would only meet again."""
        self.fault = fault

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Own and run shards until told to stop; then let them go in order. Raises what stopped a shard for good."""
        owned = _Owned(self.prefix + CONTROL)
        member = KafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=self.group, enable_auto_commit=False,
            auto_offset_reset="latest", session_timeout_ms=SESSION_MS, heartbeat_interval_ms=1_500,
            max_poll_interval_ms=60_000, group_instance_id=self.instance,
            partition_assignment_strategy=[CooperativeStickyAssignor], reconnect_backoff_max_ms=RECONNECT_MS_MAX)
        ended = threading.Event()
        turned, idle = 0.0, IDLE_SECONDS[0]
        try:
            topics = self._topics(member, should_stop)
            threading.Thread(target=self._watch_topics, args=(ended,), name="topics", daemon=True).start()
            member.subscribe(topics, listener=owned)
            while not should_stop() and self.fault is None:
                if time.monotonic() - turned >= MEMBER_SECONDS or not self.running:
                    self._member_turn(member)
                    turned = time.monotonic()
                self._follow(set(owned.shards))
                # One shard waits for its records in its client; several would wait for one another.
                wait_ms = POLL_MS if len(self.running) == 1 else 0
                read = [self._step(partition, wait_ms) for partition in sorted(self.running, key=str)]
                if not self.running:
                    time.sleep(0.05)
                elif not wait_ms:
                    idle = IDLE_SECONDS[0] if any(read) else min(idle * 2, IDLE_SECONDS[1])
                    if not any(read):
                        time.sleep(idle)
                self._tell_vitals()
        finally:
            ended.set()
            for partition in list(self.running):
                self._let_go(partition)
            member.close()
        if self.fault is not None:
            raise self.fault

    def _topics(self, member: Any, should_stop: Callable[[], bool]) -> list[str]:
        """The topics by whose partitions shards are owned, waited for where they are not there yet.

        A member that joins before it knows a topic is given nothing, and may stay so for minutes.
        """
        accounts, is_told = self.prefix + ACCOUNTS, False
        while not should_stop():
            shards = len(member.partitions_for_topic(accounts) or ())
            wanted = [self.prefix + name for name in (*INPUTS, *(BETWEEN_SHARDS if shards > 1 else ()))]
            missing = [name for name in wanted if not member.partitions_for_topic(name)]
            if not missing:
                # Several shards have a house, which goes to whoever owns the one partition of control.
                return [accounts, self.prefix + CONTROL] if shards > 1 else [accounts]
            if not is_told:
                log.warning("waiting for the topics %s; `clearing topics ensure` makes what is missing",
                            ", ".join(missing))
                is_told = True
            self._tell_vitals()
            time.sleep(TOPICS_SECONDS)
        return [accounts]

    def _watch_topics(self, ended: threading.Event) -> None:
        """Look whether a topic is made anew under us: its offsets would mean other records."""
        admin = None
        while not ended.wait(TOPICS_SECONDS):
            try:
                # Made once: one that could not be made keeps its files.
                admin = admin or KafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5_000,
                                                  reconnect_backoff_max_ms=RECONNECT_MS_MAX)
                self._compare(topic_ids(admin, self.prefix))
            except (KafkaError, OSError):
                # While the cluster is away the client leaves the socket of every failed attempt to the collector,
                # which a command that makes few cycles hardly ever runs: there would soon be no more files to open.
                gc.collect()
        if admin is not None:
            admin.close()

    def _compare(self, found: Mapping[str, str]) -> None:
        for running in list(self.running.values()):
            for name, known in running.intake.topic_ids.items():
                if found.get(name, known) != known:
                    self.fail(IntakeStopped(
                        f"expected topic {name} of id {known}, came one of id {found[name]}: it was made anew while it "
                        "was read, and its offsets mean other records"))

    @staticmethod
    def _member_turn(member: Any) -> None:
        # The member only owns: records are read by each shard's own consumer, from the ledger's positions.
        assigned = member.assignment()
        if assigned:
            member.pause(*assigned)
        member.poll(timeout_ms=10)

    def _follow(self, owned: set[ShardId]) -> None:
        for partition in self.running.keys() - owned:
            self._let_go(partition)
        for partition in sorted(owned - self.running.keys(), key=str):
            due, tries = self._retries.get(partition, (0.0, 0))
            if time.monotonic() < due:
                continue
            try:
                self.running[partition] = _Running(self, partition)
                self._retries.pop(partition, None)
                log.info("shard %s is run by this worker", partition)
            except (KafkaError, PersistenceError, LedgerLocked, OSError) as fault:
                self._again(partition, tries, fault)

    def _tell_vitals(self) -> None:
        if self.vitals is not None:
            self.vitals.turn(len(self.running))
            for partition, running in self.running.items():
                self.vitals.stands(partition, running.intake.shard.house.position, running.intake.lags())

    def _step(self, partition: ShardId, wait_ms: int) -> int:
        try:
            return self.running[partition].intake.step(wait_ms)
        except (KafkaError, PersistenceError, OSError) as fault:
            self._let_go(partition)
            self._again(partition, self._retries.get(partition, (0.0, 0))[1], fault)
            return 0

    def _again(self, partition: ShardId, tries: int, fault: Exception) -> None:
        pause = PAUSES[min(tries, len(PAUSES) - 1)]
        self._retries[partition] = (time.monotonic() + pause, tries + 1)
        log.warning("shard %s is tried again in %s s: %s", partition, pause, fault)
        self.count_restart(partition, "shard")

    def _let_go(self, partition: ShardId) -> None:
        self.running.pop(partition).close()
        if self.vitals is not None:
            self.vitals.forget(partition)
        log.info("shard %s was let go", partition)
