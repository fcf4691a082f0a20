"""The relay: publishes what the log of one shard says, each event exactly once and in order (docs/streaming.md).

The log is the outbox. How far it was published is an offset inside the same Kafka transaction as the messages, so
there is no moment between "published" and "noted as published". A copy in our own database tells of an offset that
the cluster has lost. Any fault ends the relay; whoever starts it again reads the position anew. This file never
writes an event, and decides nothing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from infra.embedded import LedgerReader
from infra.store.address import PostgresAddress
from infra.streams.cluster import Cluster
from infra.streams.messages import SILENT, Message, Origin, messages_of
from infra.streams.topics import ACCOUNTS, MARGIN_CALLS, full_name
from ledger.account import AccountState, evolve
from ledger.amounts import exact
from ledger.encoding import decode
from ledger.events import Halted, Recorded, Resumed
from projections.merkle import leaf_hash

# One transaction costs milliseconds, whatever it holds; a few hundred messages spread that thin enough.
MESSAGES_MAX: Final = 500
PAGE: Final = 500
# After this the cluster gives up on a transaction whose relay is gone; readers wait for it that long.
TRANSACTION_SECONDS_MAX: Final = 10
# Committing waits without end while the cluster is away; a relay that is stuck is worth less than one begun anew.
STUCK_SECONDS_MAX: Final = 45
# A position that moved past events that nobody is told of is noted this often, and so is the copy in our database.
NOTE_SECONDS: Final = 1.0
# Where commits cannot wake the relay it looks after this time; at the log's end that is one small query.
LOOK_SECONDS: Final = 0.01
# States of accounts kept between events; others are folded anew from their stream.
ACCOUNTS_KEPT: Final = 100_000


class RelayFault(Exception):
    """The relay cannot go on, or must not; the message says why. `fenced`: another relay took its place."""

    def __init__(self, message: str, *, fenced: bool = False) -> None:
        super().__init__(message)
        self.fenced = fenced


class RelayPlace(NamedTuple):
    """How far a log was published, and the hash of the event there, so that another log is not taken for it."""

    position: int
    leaf: str


def relay_name(cluster: Cluster, shard: int) -> str:
    """The transactional id and the group of a shard's relay: one name, so that one fences the other."""
    prefix = "" if cluster.prefix == "clearing." else cluster.prefix
    return f"{prefix}clearing-relay-{shard}"


class Relay:
    """Publishes one shard's log. `start`, then `step` again and again, or `run`."""

    def __init__(self, cluster: Cluster, reader: LedgerReader, shard: int) -> None:
        self.cluster, self.reader, self.shard = cluster, reader, shard
        self.name = relay_name(cluster, shard)
        self.position = 0
        # Messages published and transactions committed by this relay.
        self.messages = self.transactions = 0
        # When the loop last turned, for whoever watches over it.
        self.turned = time.monotonic()
        self._origin = Origin(shard, full_name(cluster, ACCOUNTS))
        self._noted = self._copied = RelayPlace(0, "")
        self._noted_at = self._copied_at = 0.0
        self._states: dict[str, AccountState | None] = {}
        self._halts: dict[str, frozenset[str]] = {}
        self._producer: Any = None
        self._last_leaf = ""
        self._table = _own_table(reader)

    # --- start and end -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the place of any earlier relay of this shard, and find out how far it came.

        RelayFault: the cluster lost the position, or the log is not the one that was published.
        """
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        try:
            self._producer = KafkaProducer(
                **self.cluster.options(), transactional_id=self.name, linger_ms=5, batch_size=131_072,
                transaction_timeout_ms=TRANSACTION_SECONDS_MAX * 1_000, allow_auto_create_topics=False)
            # First fence the others and settle what they left, then ask for the position.
            self._producer.init_transactions()
            committed = self._committed()
        except (KafkaError, OSError) as fault:
            self.close()
            raise RelayFault(f"expected a Kafka cluster at {self.cluster.bootstrap} for transactions of {self.name}, "
                             f"came {fault!r}") from fault
        self._create_table()
        self._check(committed)
        self._noted = self._copied = committed or RelayPlace(0, "")
        self.position, self._last_leaf = self._noted
        with exact():
            for recorded in self.reader.stream("halts", self.position):
                self._fold_halt(recorded)
        self._noted_at = self._copied_at = time.monotonic()

    def _committed(self) -> RelayPlace | None:
        from kafka import KafkaConsumer
        from kafka.errors import GroupIdNotFoundError

        consumer = KafkaConsumer(**self.cluster.options(), group_id=self.name, enable_auto_commit=False,
                                 isolation_level="read_committed")
        try:
            found = consumer.committed(self._carrier(), metadata=True, timeout_ms=30_000)
        except GroupIdNotFoundError:
            return None
        finally:
            consumer.close()
        return None if found is None else RelayPlace(int(found.offset), str(found.metadata or ""))

    def _carrier(self) -> Any:
        from kafka import TopicPartition

        return TopicPartition(full_name(self.cluster, MARGIN_CALLS), self.shard)

    def _check(self, committed: RelayPlace | None) -> None:
        own = self._copy()
        if own is not None and (committed is None or committed.position < own.position):
            came = "none" if committed is None else f"position {committed.position}"
            raise RelayFault(
                f"expected the cluster to hold the position of {self.name}, at least {own.position}, came {came}: its "
                "group offsets expired or were reset, and to go on would publish events again; `clearing relay --reset "
                f"{own.position}` goes on from where our own database says")
        if committed is None or committed.position == 0:
            return
        end = self.reader.end()
        if committed.position > end:
            raise RelayFault(
                f"expected a log of at least {committed.position} events, which were published, came one of {end}: the "
                "ledger was restored from an older backup. Restore a newer one, or let the worker read the same "
                "records again from Kafka until the log is as long")
        leaf = _leaf(self.reader.rows(committed.position - 1, 1)[0])
        if committed.leaf and committed.leaf != leaf:
            raise RelayFault(
                f"expected at log position {committed.position} the event that was published, hash {committed.leaf}, "
                f"came {leaf}: this is another ledger, or one that was restored and went another way")

    def close(self) -> None:
        """Give up the producer; what was not committed is aborted by the next relay or by the cluster."""
        if self._producer is not None:
            self._producer.close(timeout=2)
            self._producer = None

    def reset(self, position: int) -> None:
        """Set the position where it is lost: events up to it count as published."""
        self._create_table()
        end = self.reader.end()
        if not 0 <= position <= end:
            raise RelayFault(f"--reset: expected a log position of at most {end}, came {position}")
        leaf = _leaf(self.reader.rows(position - 1, 1)[0]) if position else ""
        with self.cluster.admin() as admin:
            from kafka import OffsetAndMetadata

            admin.alter_group_offsets(self.name, {self._carrier(): OffsetAndMetadata(position, leaf, -1)})
        self._put_copy(RelayPlace(position, leaf))

    # --- publishing ----------------------------------------------------------------------------------------------

    def step(self) -> int:
        """Publish the next events, if there are any; how many log positions it moved."""
        before = self.position
        messages: list[Message] = []
        with exact():
            while len(messages) < MESSAGES_MAX:
                rows = self.reader.rows(self.position, PAGE)
                for row in rows:
                    messages += self._messages(row)
                if rows:
                    self.position, self._last_leaf = rows[-1][0], _leaf(rows[-1])
                if len(rows) < PAGE:
                    break
        now = time.monotonic()
        if messages or (self.position > self._noted.position and now - self._noted_at >= NOTE_SECONDS):
            self._publish(messages)
        if self._copied != self._noted and now - self._copied_at >= NOTE_SECONDS:
            self._put_copy(self._noted)
        self.turned = time.monotonic()
        return self.position - before

    def run(self, *, stopped: Callable[[], bool], woken: threading.Event | None = None) -> None:
        """Publish until told to stop. `woken` is set by whoever commits in this process."""
        while not stopped():
            if self.step() == 0:
                if woken is None:
                    time.sleep(LOOK_SECONDS)
                else:
                    woken.wait(NOTE_SECONDS)
                    woken.clear()
        if self.position > self._noted.position:
            self._publish([])
        self._put_copy(self._noted)

    def _publish(self, messages: Iterable[Message]) -> None:
        from kafka import OffsetAndMetadata
        from kafka.errors import KafkaError

        producer, place = self._producer, RelayPlace(self.position, self._last_leaf)
        try:
            producer.begin_transaction()
            sent = 0
            for message in messages:
                producer.send(full_name(self.cluster, message.topic), message.value, key=message.key.encode(),
                              headers=list(message.headers), partition=self.shard)
                sent += 1
            producer.send_offsets_to_transaction(
                {self._carrier(): OffsetAndMetadata(place.position, place.leaf, -1)}, self.name)
            producer.commit_transaction()
        except (KafkaError, OSError, AssertionError) as fault:
            raise _fault(self.name, fault) from fault
        self._noted, self._noted_at = place, time.monotonic()
        self.messages += sent
        self.transactions += 1

    def _messages(self, row: tuple[int, str, int, str, bytes]) -> list[Message]:
        position, stream, version, topic, state = row
        if topic in SILENT:
            return []
        recorded = Recorded(position, stream, version, decode(topic, state))
        if stream == "halts":
            return self._halted(recorded)
        if not stream.startswith("account:"):
            return messages_of(self._origin, recorded, None, None)
        account = stream.removeprefix("account:")
        before = self._state(account, position - 1)
        after = evolve(before, recorded.event)
        self._states[account] = after
        return messages_of(self._origin, recorded, before, after, self._halts.get(account, frozenset()))

    def _halted(self, recorded: Recorded) -> list[Message]:
        """A halt of one account changes what is told of it; those of all and of instruments are not told account by
        account."""
        scope = self._fold_halt(recorded)
        state = self._state(scope, recorded.position)
        return messages_of(self._origin, recorded, state, state, self._halts.get(scope, frozenset()))

    def _fold_halt(self, recorded: Recorded) -> str:
        event = recorded.event
        if not isinstance(event, (Halted, Resumed)):
            return ""
        halted = self._halts.get(event.scope, frozenset())
        self._halts[event.scope] = halted | {event.what} if isinstance(event, Halted) else halted - {event.what}
        return event.scope

    def _state(self, account: str, position: int) -> AccountState | None:
        """The account's state at a log position; folded from its stream where it is not at hand."""
        if account not in self._states:
            if len(self._states) >= ACCOUNTS_KEPT:
                self._states.clear()
            state = None
            for recorded in self.reader.stream(f"account:{account}", position):
                state = evolve(state, recorded.event)
            self._states[account] = state
        return self._states[account]

    # --- the copy in our own database ----------------------------------------------------------------------------

    def _create_table(self) -> None:
        self.reader.ask_nothing(f"CREATE TABLE IF NOT EXISTS {self._table} (relay TEXT PRIMARY KEY, position BIGINT "
                                "NOT NULL, leaf TEXT NOT NULL)")

    def _copy(self) -> RelayPlace | None:
        rows = self.reader.ask(f"SELECT position, leaf FROM {self._table} WHERE relay = ?", (self.name,))
        return RelayPlace(*rows[0]) if rows else None

    def _put_copy(self, place: RelayPlace) -> None:
        """Note how far the cluster has confirmed; later than it did, never before."""
        self.reader.ask_nothing(
            f"INSERT INTO {self._table} (relay, position, leaf) VALUES (?, ?, ?) "
            "ON CONFLICT (relay) DO UPDATE SET position = excluded.position, leaf = excluded.leaf",
            (self.name, place.position, place.leaf))
        self._copied, self._copied_at = place, time.monotonic()


def _own_table(reader: LedgerReader) -> str:
    """The table's name; on a server with its schema, since the read models' comes first and may be dropped."""
    if isinstance(reader.path, PostgresAddress):
        return f'"{reader.path.shard}".relay_position'
    return "relay_position"


def _leaf(row: tuple[int, str, int, str, bytes]) -> str:
    return leaf_hash(*row).hex()


def _fault(name: str, fault: BaseException) -> RelayFault:
    words = f"{fault!r}"
    if "Fenced" in words or "InvalidProducerEpoch" in words:
        return RelayFault(f"{name}: another relay took over, or the cluster gave up on our transaction after "
                          f"{TRANSACTION_SECONDS_MAX} s; this one published nothing since", fenced=True)
    return RelayFault(f"{name}: the cluster failed: {words}; started again, the relay goes on where it stopped")


def watch(relay: Relay) -> threading.Thread:
    """End the process when the relay is stuck in a call that waits without end."""

    def look() -> None:
        while time.monotonic() - relay.turned < STUCK_SECONDS_MAX:
            time.sleep(1)
        sys.stderr.write(f"Error: {relay.name} did not turn for {STUCK_SECONDS_MAX} s and ends; started again, it goes "
                         "on where it stopped\n")
        sys.stderr.flush()
        os._exit(1)

    relay.turned = time.monotonic()
    thread = threading.Thread(target=look, name="relay-watch", daemon=True)
    thread.start()
    return thread
