"""The relay: a ledger's events become messages, each exactly once and in log order for readers of committed ones.

Its position goes in the same Kafka transaction as the messages (as an offset of the group `clearing-relay-SHARD`), and
also beside the ledger, since a group's offsets expire. It starts only where both agree with the log. Whatever a
transactional call answers but success ends the relay: it is started again and reads its position anew. This file
never writes to the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import GroupIdNotFoundError, KafkaError

from infra.embedded import LedgerReader
from infra.streams.messages import Message, messages
from infra.streams.parts import Duty, between, noted_duty
from infra.streams.topics import DEFAULT_PREFIX, MARGIN_CALLS, RECONNECT_MS_MAX
from infra.streams.traces import Traces
from ledger.amounts import exact
from ledger.encoding import decode
from ledger.events import Recorded
from ledger.states import States
from projections.merkle import leaf_hash

EVENTS_PER_TRANSACTION: Final = 200
# Events that say nothing to anybody (most marks) need no transaction, which takes five round trips; so long, the
# relay's position stays behind, and a new start looks at them again.
SILENT_SECONDS_MAX: Final = 1.0
SILENT_EVENTS_MAX: Final = 5_000
# An empty look at the log is repeated after this, unless a commit wakes the relay before.
IDLE_SECONDS: Final = 0.02
# A broker that is still closing the last transaction answers "concurrent transactions"; by default the client would
# sleep a tenth of a second on that.
RETRY_MS: Final = 5
TRANSACTION_TIMEOUT_MS: Final = 10_000
# The client's transactional calls wait without end; a relay that hangs in one is of no use.
CALL_SECONDS_MAX: Final = 30.0

log = logging.getLogger(__name__)


class RelayStopped(Exception):
    """The relay cannot go on from here; the message says what stands against it and what to do."""


class Fenced(Exception):
    """Another relay of the same shard took over, or the transaction failed; a new start reads the position anew."""


def relay_name(prefix: str, shard: str) -> str:
    """The transactional id and group of a shard's relay: its service's own, where a cluster carries several."""
    return f"{'' if prefix == DEFAULT_PREFIX else prefix}clearing-relay-{shard}"


class Relay:
    """One shard's relay over its ledger's reader."""

    def __init__(self, reader: LedgerReader, bootstrap: str, *, shard: str, prefix: str,
                 woken: threading.Event | None = None, published: Callable[[int], None] | None = None,
                 on_hang: Callable[[], None] | None = None, traces: Traces | None = None) -> None:
        self.reader, self.shard, self.prefix = reader, shard, prefix
        self.name = relay_name(prefix, shard)
        self.states = States()
        self.position = 0
        self.sent = 0
        self._woken = woken or threading.Event()
        self._on_hang, self._tell = on_hang, published
        self._carrier = TopicPartition(prefix + MARGIN_CALLS, 0)
        self._bootstrap = bootstrap
        self._producer: Any = None
        self._duty: Duty | None = None
        self._traces = traces or Traces()
        # The log position that Kafka has, and when a transaction last moved it.
        self._confirmed, self._confirmed_at = 0, 0.0

    def open(self) -> None:
        """Fence older relays, then read where they ended. RelayStopped where log, Kafka and our table disagree."""
        self._producer = KafkaProducer(
            bootstrap_servers=self._bootstrap, transactional_id=self.name, linger_ms=0, batch_size=131_072,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS, retry_backoff_ms=RETRY_MS,
            reconnect_backoff_max_ms=RECONNECT_MS_MAX)
        with self._watched():
            self._producer.init_transactions()
        committed, noted, end = self._published(), self._noted(), self.reader.end()
        published, leaf = (None, "") if committed is None else committed
        if published is None and noted is not None:
            raise RelayStopped(f"expected a committed offset of group {self.name}, there is none, and {noted} events "
                               "were published: it expired, or the topics were made anew; compare, then set it with "
                               f"kafka-consumer-groups --group {self.name} --reset-offsets --to-offset {noted}")
        start = published or 0
        if noted is not None and start < noted:
            raise RelayStopped(f"expected the group {self.name} at {noted} or later, it stands at {start}: Kafka lost "
                               "what it had confirmed; readers have seen more than it says")
        if start > end:
            raise RelayStopped(f"expected a log of at least {start} events, it has {end}: the ledger was restored from "
                               "an older backup, and its messages went further")
        # The event's hash goes with the offset: a log that is as long again need not be the same.
        if start and leaf and leaf != (came := _leaf(self.reader.rows(start - 1, 1)[0])):
            raise RelayStopped(f"expected at log position {start} the event that was published, hash {leaf}, came "
                               f"{came}: this is another ledger, or one that was restored and went another way")
        with exact():
            for recorded in self.reader.log(0, start):
                self.states.fold(recorded)
        self.position = self._confirmed = start
        self._confirmed_at = time.monotonic()

    def close(self) -> None:
        """End the producer; what is under way is aborted."""
        if self._producer is not None:
            self._producer.close(timeout=2)

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Relay until told to stop, or until something ends it."""
        while not should_stop():
            # Cleared before looking, so that what is committed meanwhile is looked at next.
            self._woken.clear()
            if not self.step():
                self._woken.wait(IDLE_SECONDS)

    def step(self) -> int:
        """Publish what the next events say in one transaction; how many events they were."""
        stored = self.reader.rows(self.position, EVENTS_PER_TRANSACTION)
        if not stored:
            if self.position > self._confirmed and self._is_due():
                self._publish([], self.reader.rows(self.position - 1, 1)[0])
            return 0
        rows = [Recorded(position, stream, version, decode(topic, state))
                for position, stream, version, topic, state in stored]
        said = list(self._messages(rows))
        if said or self._is_due():
            self._publish(said, stored[-1])
        self.position = rows[-1].position
        return len(rows)

    def _is_due(self) -> bool:
        return (time.monotonic() - self._confirmed_at >= SILENT_SECONDS_MAX
                or self.position - self._confirmed >= SILENT_EVENTS_MAX)

    def _publish(self, said: list[tuple[Message, list[tuple[str, bytes]]]],
                 last: tuple[int, str, int, str, bytes]) -> None:
        """One transaction: messages, and the position of the last event that they go back to."""
        position = last[0]
        with self._watched():
            try:
                self._producer.begin_transaction()
                for message, trace in said:
                    # A topic and a key decide the partition, so that an account's messages stay in order.
                    self._producer.send(self.prefix + message.topic, message.value, key=message.key.encode(),
                                        headers=[*message.headers, *trace], partition=message.partition)
                self._producer.send_offsets_to_transaction(
                    {self._carrier: OffsetAndMetadata(position, _leaf(last), -1)}, self.name)
                self._producer.commit_transaction()
            except KafkaError as fault:
                raise Fenced(f"{self.name} at {self._confirmed}: {fault!r}") from fault
        self.sent += len(said)
        self._confirmed, self._confirmed_at = position, time.monotonic()
        self.reader.connection.cursor().execute(
            "INSERT INTO relay_position VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET position = excluded.position",
            (self.name, position))
        if self._tell is not None:
            self._tell(position)

    def _messages(self, rows: list[Recorded]) -> Iterator[tuple[Message, list[tuple[str, bytes]]]]:
        """Each message, and the headers of its trace."""
        if self._duty is None:
            # Not sooner: a ledger notes what it keeps before its first event, not before it can be opened.
            self._duty = noted_duty(self.reader.settings())
        with exact():
            for recorded in rows:
                self.states.fold(recorded)
                trace = self._traces.of(recorded.event.cause)
                kind, _, account = recorded.originator_id.partition(":")
                if self._duty.tells(recorded, self.prefix):
                    for message in messages(recorded, self.shard,
                                            self.states.accounts.get(account) if kind == "account" else None):
                        yield message, trace
                for message in between(recorded, self._duty, self.shard, self.states.accounts.__contains__):
                    yield message, trace

    def _published(self) -> tuple[int, str] | None:
        """How far the cluster says that the log was published, and the hash of the event there."""
        consumer = KafkaConsumer(bootstrap_servers=self._bootstrap, group_id=self.name, enable_auto_commit=False,
                                 isolation_level="read_committed")
        try:
            found = consumer.committed(self._carrier, metadata=True)
        except GroupIdNotFoundError:
            found = None
        finally:
            consumer.close()
        return None if found is None else (int(found.offset), str(found.metadata or ""))

    def _noted(self) -> int | None:
        rows = self.reader.ask("SELECT position FROM relay_position WHERE name = ?", (self.name,))
        return int(rows[0][0]) if rows else None

    def _watched(self) -> _Watch:
        return _Watch(self._on_hang)


def _leaf(row: tuple[int, str, int, str, bytes]) -> str:
    return leaf_hash(*row).hex()


class _Watch:
    """Calls `on_hang` if what runs under it takes too long; without one, nothing."""

    def __init__(self, on_hang: Callable[[], None] | None) -> None:
        self._timer = None if on_hang is None else threading.Timer(CALL_SECONDS_MAX, on_hang)

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


def wait_for_ledger(open_reader: Callable[[], LedgerReader], seconds: float) -> LedgerReader:
    """The reader of a ledger that its worker may be about to make."""
    from ledger.errors import LedgerUnreadable

    deadline = time.monotonic() + seconds
    while True:
        try:
            return open_reader()
        except LedgerUnreadable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
