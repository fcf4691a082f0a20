"""The shard: the single writer of one log. One record at a time, one transaction a batch.

It knows what was seen before (inbox and sequences), asks the clearing house to decide, lets the simulated venue
answer, and commits events, inbox, source positions and Merkle leaves together. What is not committed never
happened: after a crash the same records are offered again and the log continues byte for byte. Of many batches, one
is committed in a thread of its own while the next is decided; outcomes are given when they are durable. It never
decides.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, cast

from eventsourcing.persistence import Notification, PersistenceError, StoredEvent
from pydantic_core import to_json

from infra.snapshots import HASHED_EVENTS_MAX, Snapshots, collector_paused
from infra.store.commit import FORMAT, Commit, Head, InboxKey, SourcePosition, Store, require_format
from infra.streams.records import Delivered, Fault, Place, read
from infra.venue import SOURCE as VENUE_SOURCE
from infra.venue import SimulatedVenue
from ledger.amounts import exact
from ledger.between_shards import Part
from ledger.clearing_house import ClearingHouse
from ledger.commands import Command, RecordPrice
from ledger.encoding import decode
from ledger.errors import BrokenInvariant, LedgerUnreadable, Rejected
from ledger.events import (
    Cause,
    Event,
    FundMovementRefused,
    IsolatedMarginRefused,
    PriceRejected,
    Recorded,
    RecordRejected,
    TransferRefused,
    TransferTurnedAway,
    WithdrawalRefused,
)
from ledger.facts import command_of
from ledger.market import is_repeated
from ledger.states import States
from projections.merkle import Frontier, leaf_hash

RAW_KEPT: Final = 4_096
PAGE: Final = 5_000
# Batches from this size on are committed beside the next; for smaller ones handing over costs more than it saves.
IN_FLIGHT_MIN: Final = 100

OutcomeKind = Literal["applied", "duplicate", "refused", "rejected"]


class Outcome(NamedTuple):
    """What became of one record: the kind, the log position of its outcome, and why where it was not applied."""

    kind: OutcomeKind
    position: int
    reason: str | None = None


def outcome_of(recorded: Recorded) -> Outcome:
    """The outcome that an event stands for."""
    event = recorded.event
    kind = _NOT_APPLIED.get(type(event))
    if kind is None:
        return Outcome("applied", recorded.position)
    reason = "beyond-fund" if isinstance(event, FundMovementRefused) else cast(Any, event).reason
    return Outcome(kind, recorded.position, reason)


_NOT_APPLIED: Final[Mapping[type[Event], OutcomeKind]] = {
    RecordRejected: "rejected", PriceRejected: "rejected", WithdrawalRefused: "refused", TransferRefused: "refused",
    IsolatedMarginRefused: "refused", FundMovementRefused: "refused", TransferTurnedAway: "refused"}


class Flight(NamedTuple):
    """A batch on its way to the store: `committed` returns when it is there, or raises; the rest as of `Shard`."""

    committed: Callable[[], object]
    events: Sequence[Recorded]
    keys: Mapping[InboxKey, int]
    frontier: Frontier


class Shard:
    """The writer. Open it over a store, offer it batches, close it."""

    def __init__(self, house: ClearingHouse, *, venue: SimulatedVenue | None = None) -> None:
        self.house = house
        self.venue = venue
        self.store = cast(Store, house.recorder)
        house.answered = self._answer_to
        # Over all committed events.
        self.frontier = Frontier()
        self._flight: Flight | None = None
        # Events that were committed, in log order; whoever wants to follow appends a function.
        self.listeners: list[Callable[[Sequence[Recorded]], None]] = []
        self._keys: dict[InboxKey, int] = {}
        # What the store said of the keys that it was asked for at the batch's start.
        self._known: dict[InboxKey, int | None] = {}
        self._positions: dict[tuple[str, int], SourcePosition] = {}
        self._moved: dict[tuple[str, int], int] = {}
        # Counters of sequenced prices, some of which came before their instrument was listed: see `_counter`.
        self.unlisted: set[tuple[str, str]] = set()
        self.snapshots = Snapshots(self)
        # Why the whole log was folded at open though there is a snapshot; None where it was not.
        self.notice: str | None = None
        # States run ahead of the store within a batch; a fault in between leaves them unusable.
        self._failed = False

    # --- opening -------------------------------------------------------------------------------------------------

    def open(self, progress: Callable[[int], None] | None = None) -> None:
        """Fold the stored log, checking every row against the stored root. LedgerUnreadable where they differ."""
        settings = self.store.settings()
        if not settings:
            self.store.put_settings({"format": FORMAT, "default_rulebook": "house:1"})
        require_format(settings)
        self.house.part = cast(Part, settings.get("part", "whole"))
        head = self.store.head()
        if head is None or not self._open_from_snapshot(head, progress):
            self._fold(head, progress)
        self._positions = dict(self.store.source_positions())
        self.listeners.append(self.snapshots.follow)

    def _open_from_snapshot(self, head: Head, progress: Callable[[int], None] | None) -> bool:
        """Whether a snapshot and the rows after it led to the head; if not, all is as before, and `notice` says why."""
        try:
            frontier = self.snapshots.restore(head)
            if frontier is None:
                return False
            if frontier.size <= HASHED_EVENTS_MAX:
                for _ in self._rows_of_log(0, frontier.size):
                    pass
                if self.frontier.to_bytes() != frontier.to_bytes():
                    raise LedgerUnreadable("the rows before it do not lead to its root")
            self.frontier = frontier
            self._fold(head, progress)
        except (LedgerUnreadable, ArithmeticError, LookupError, TypeError, ValueError) as fault:
            self.notice = f"the snapshot is left aside and the whole log read: {fault}"
            States.__init__(self.house)
            self.frontier, self.unlisted, self.snapshots = Frontier(), set(), Snapshots(self)
            return False
        return True

    def _fold(self, head: Head | None, progress: Callable[[int], None] | None) -> None:
        """Fold the log from where the states stand, checking every row against the head."""
        try:
            with exact(), collector_paused():
                self.house.load(self._log(), progress)
        except (BrokenInvariant, ArithmeticError, LookupError, TypeError, ValueError) as fault:
            raise LedgerUnreadable(f"log position {self.frontier.size} does not follow from those before it: {fault}; "
                                   "`clearing replay` finds what differs") from fault
        if head is None:
            if self.house.position:
                raise LedgerUnreadable(f"the log holds {self.house.position} events and no head")
            return
        if (head.position, head.root) != (self.house.position, self.frontier.root()):
            raise LedgerUnreadable(
                f"expected {head.position} events with root {head.root.hex()}, came {self.house.position} with root "
                f"{self.frontier.root().hex()}; `clearing replay` finds where they differ")
        if (head.log_time, head.frontier) != (self.house.log_time, self.frontier.to_bytes()):
            raise LedgerUnreadable("the head's log time or frontier is not that of the log; `clearing replay` finds "
                                   "what differs")

    def _log(self) -> Iterator[Recorded]:
        for row, stream, state in self._rows_of_log(self.house.position):
            event = decode(row.topic, state)
            if isinstance(event, RecordRejected) and event.known_by == "price":
                self.unlisted.add(_counter((event.cause.source, event.known_by, event.key)))
            yield Recorded(row.id, stream, row.originator_version, event)

    def _rows_of_log(self, after: int, until: int | None = None) -> Iterator[tuple[Notification, str, bytes]]:
        """Rows with their stream and state, each appended to the frontier on the way."""
        while rows := self.store.select_notifications(after + 1, PAGE, until):
            for row in rows:
                stream = str(row.originator_id)
                if not isinstance(row.state, bytes):
                    raise LedgerUnreadable(f"log position {row.id}: expected state in bytes, came text; "
                                           "`clearing replay` finds what differs")
                self.frontier.append(leaf_hash(row.id, stream, row.originator_version, row.topic, row.state))
                yield row, stream, row.state
            after = rows[-1].id

    def close(self) -> None:
        """After a clean run: leave a snapshot for the next start. A store that takes none costs only that start."""
        if not self._failed:
            with suppress(PersistenceError):
                self.snapshots.close()

    @property
    def root(self) -> bytes:
        """The Merkle root over all committed events."""
        return self.frontier.root()

    def keep(self, part: Part, settings: Mapping[str, str]) -> None:
        """Be the ledger of a part of a service. LedgerUnreadable where it has kept another one so far."""
        if part == self.house.part:
            return
        if self.house.position:
            raise LedgerUnreadable(f"expected a ledger that keeps the part {part!r} of a service, this one keeps "
                                   f"{self.house.part!r}: it belongs to a service with another number of shards")
        self.store.put_settings(settings)
        self.house.part = part

    # --- sources -------------------------------------------------------------------------------------------------

    def claim(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Take over partitions of sources under a new epoch; the next offset to read of each, 0 of one never read.

        Whoever claimed them before can no longer move their positions.
        """
        self._land()
        moves = []
        for source, partition in sorted(partitions):
            before = self._positions.get((source, partition))
            moves.append((before, SourcePosition(source, partition, 0, 1) if before is None
                          else before._replace(epoch=before.epoch + 1)))
        head = Head(self.house.position, self.house.log_time, self.frontier.to_bytes(), self.frontier.root())
        self.store.insert_events([], commit=Commit(self.house.position, head, b"", [], moves))
        self._positions.update({(after.source, after.partition): after for _, after in moves})
        return {(after.source, after.partition): after.next_offset for _, after in moves}

    # --- batches -------------------------------------------------------------------------------------------------

    def ingest(self, records: Iterable[Delivered], *, batch_size: int = 1_000) -> Iterator[Outcome]:
        """Apply records in batches, each committed whole before its outcomes are given.

        While a large batch is being committed, the next one is decided, and its outcomes are given a batch later.
        Whoever stops early has what was decided committed.
        """
        source = iter(records)
        with ThreadPoolExecutor(1, "commit") as thread:
            outcomes: list[Outcome] = []
            try:
                while batch := list(islice(source, batch_size)):
                    before, outcomes = outcomes, self._decide_batch(batch)
                    self._commit(thread if len(batch) >= IN_FLIGHT_MIN else None)
                    if self.snapshots.is_due:
                        self._land()
                    yield from before
                    if self._flight is None:
                        before, outcomes = outcomes, []
                        yield from before
            finally:
                self._land()
            yield from outcomes

    def apply(self, batch: Sequence[Delivered], *, passed: Iterable[Place] = ()) -> list[Outcome]:
        """Apply one batch and commit it; the outcomes are durable when this returns.

        `passed`: places of records that are none of this ledger's business, which its positions move over.
        """
        outcomes = self._decide_batch(batch, passed)
        self._commit()
        return outcomes

    def _decide_batch(self, batch: Sequence[Delivered], passed: Iterable[Place] = ()) -> list[Outcome]:
        if self._failed:
            raise BrokenInvariant("the writer stopped after a fault; open the ledger again to go on from its last "
                                  "commit")
        self._failed = True
        # The keys of sequenced prices are looked up only when one is rejected.
        self._known = dict.fromkeys(key for row in batch if (key := _key(row)) is not None and key[1] != "price")
        self._known.update(self.store.known(self._known))
        with exact():
            self._serve()
            outcomes = [self._apply(delivered) for delivered in batch]
        for place in passed:
            self._pass(place)
        return outcomes

    def _apply(self, delivered: Delivered) -> Outcome:
        self._pass(delivered.place)
        outcome = self._decide(delivered)
        self._serve()
        return outcome

    def _pass(self, place: Place) -> None:
        ordinal = place.line if place.offset is None else place.offset
        if ordinal is not None:
            partition = (place.source, place.partition or 0)
            self._moved[partition] = max(self._moved.get(partition, 0), ordinal + 1)

    def _serve(self) -> None:
        """Let the venue answer open orders, one order at a time, until none is left."""
        if self.venue is None or not self.house.open_orders:
            return
        while commands := list(self.venue.serve(self.house)):
            for command in commands:
                self._decide(Delivered(Place(VENUE_SOURCE), command, None, None))

    def _decide(self, delivered: Delivered) -> Outcome:
        command, fault, place = delivered.command, delivered.fault, delivered.place
        if command is None:
            if fault is None:
                raise BrokenInvariant("a delivery holds a command or a fault")
            return self._reject(delivered, fault)
        if isinstance(command, RecordPrice) and command.sequence is not None:
            market = self.house.markets.get(command.instrument)
            if market is not None and is_repeated(market, command, place.source):
                return Outcome("duplicate", market.mark_position)
            if market is not None and self.unlisted:
                # It may have been rejected before the instrument was listed, and then stays so.
                key = cast(InboxKey, _key(delivered))
                seen = self._position_of(key) if _counter(key) in self.unlisted else None
                if seen is not None:
                    return self._repeated(delivered, seen)
        else:
            seen = self._position_of((place.source, "id", command.id))
            if seen is not None:
                return self._repeated(delivered, seen)
        try:
            outcome = self.house.handle(command, _cause(place, command))
        except Rejected as rejected:
            fault = Fault(rejected.reason, rejected.message, rejected.field, command.TYPE, command.id, command.time)
            return self._reject(delivered, fault)
        if not (isinstance(command, RecordPrice) and command.sequence is not None):
            self._keys[place.source, "id", command.id] = outcome.position
        return outcome_of(outcome)

    # --- repeats and rejections ----------------------------------------------------------------------------------

    def _position_of(self, key: InboxKey) -> int | None:
        """Where the outcome of a spent key stands; None where nothing spent it."""
        found = self._keys.get(key)
        if found is None and self._flight is not None:
            found = self._flight.keys.get(key)
        if found is None:
            found = self._known[key] if key in self._known else self.store.known([key]).get(key)
        return found

    def _reject(self, delivered: Delivered, fault: Fault) -> Outcome:
        """Record a rejection, unless this very record was rejected before."""
        key = _key(delivered)
        if key is None:
            raise BrokenInvariant("a rejected record has an identity")
        seen = self._position_of(key)
        if seen is not None:
            return self._repeated(delivered, seen)
        return self._record_rejection(delivered, fault, key)

    def _repeated(self, delivered: Delivered, position: int) -> Outcome:
        """A repeat of a spent id: equal facts are a duplicate, others a conflict, itself recorded once."""
        recorded = self._recorded(position)
        if _is_same(recorded.event, delivered):
            return Outcome("duplicate", position)
        raw = _raw(delivered)
        kind, name, time = _identity(delivered)
        spent = _key(delivered)
        key = (delivered.place.source, "conflict", f"{spent and spent[2]}\x1f{hashlib.sha256(raw).hexdigest()}")
        seen = self._position_of(key)
        if seen is not None:
            return Outcome("duplicate", seen)
        message = f"id: {name or 'this place'!r} was spent at log position {position} by a record with other content"
        return self._record_rejection(delivered, Fault("conflict", message, "id", kind, name, time), key)

    def _record_rejection(self, delivered: Delivered, fault: Fault, key: InboxKey) -> Outcome:
        place, raw = delivered.place, _raw(delivered)
        kept = raw[:RAW_KEPT]
        try:
            text, encoding = kept.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(kept).decode(), "base64"
        cause = Cause(source=place.source, type=fault.type or "unknown", id=fault.id, time=fault.time,
                      partition=place.partition, offset=place.offset, line=place.line)
        recorded = self.house.reject(RecordRejected(
            time=self.house.log_time, cause=cause, reason=fault.reason, message=fault.message, field=fault.field,
            known_by=cast(Any, key[1]), key=key[2], raw=text, raw_encoding=cast(Any, encoding), raw_bytes=len(raw),
            sha256=hashlib.sha256(raw).hexdigest()))
        self._keys[key] = recorded.position
        if key[1] == "price":
            self.unlisted.add(_counter(key))
        return Outcome("rejected", recorded.position, fault.reason)

    def _answer_to(self, source: str, name: str) -> Event | None:
        position = self._position_of((source, "id", name))
        return None if position is None else self._recorded(position).event

    def _recorded(self, position: int) -> Recorded:
        for events in (self.house.pending, () if self._flight is None else self._flight.events):
            if events and position >= events[0].position:
                return events[position - events[0].position]
        row = self.store.select_notifications(position, 1)[0]
        return Recorded(row.id, str(row.originator_id), row.originator_version, decode(row.topic, row.state))

    # --- committing ----------------------------------------------------------------------------------------------

    def _commit(self, thread: Executor | None = None) -> None:
        """Commit what was decided; where a thread is given, in it, once what it wrote before has landed."""
        pending = self.house.pending
        if not pending and not self._moved:
            self._failed = False
            self._land()
            return
        rows: list[StoredEvent] = []
        leaves = bytearray()
        frontier = (self.frontier if self._flight is None else self._flight.frontier).copy()
        to_row = self.house.mapper.to_stored_event
        for recorded in pending:
            row = to_row(cast(Any, recorded))
            leaf = leaf_hash(recorded.position, recorded.originator_id, row.originator_version, row.topic, row.state)
            frontier.append(leaf)
            leaves += leaf
            rows.append(row)
        head = Head(self.house.position, self.house.log_time, frontier.to_bytes(), frontier.root())
        moves = []
        for place, next_offset in self._moved.items():
            before = self._positions.get(place)
            if before is None or next_offset > before.next_offset:
                moves.append((before, SourcePosition(*place, next_offset, before.epoch if before else 0)))
        commit = Commit(self.house.position - len(pending), head, bytes(leaves), list(self._keys.items()), moves)
        self._land()
        insert = partial(self.store.insert_events, rows, commit=commit)
        self._flight = Flight(insert if thread is None else thread.submit(insert).result, pending, self._keys, frontier)
        self._positions.update({(after.source, after.partition): after for _, after in moves})
        self._keys, self._moved, self.house.pending = {}, {}, []
        self._failed = False
        if thread is None:
            self._land()

    def _land(self) -> None:
        """Wait for the batch that is being committed, if any; then it is so, and whoever listens is told."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        has_failed, self._failed = self._failed, True
        flight.committed()
        self.frontier = flight.frontier
        for listener in self.listeners:
            listener(flight.events)
        self._failed = has_failed

    def is_balanced(self) -> bool:
        """Whether, per asset, all pools of all accounts and all that stands against them sum to exactly zero."""
        with exact():
            sums: dict[str, Decimal] = {}
            for state in self.house.accounts.values():
                for held in state.balances.values():
                    for asset, amount in held.items():
                        sums[asset] = sums.get(asset, Decimal(0)) + amount
            for (owner, asset), amount in self.house.house.balances.items():
                if owner != "account":
                    sums[asset] = sums.get(asset, Decimal(0)) + amount
            return not any(sums.values())


# --- identity ----------------------------------------------------------------------------------------------------


def _identity(delivered: Delivered) -> tuple[str | None, str | None, int | None]:
    """(type, id, time) as far as they could be read."""
    if delivered.command is not None:
        return delivered.command.TYPE, delivered.command.id, delivered.command.time
    if delivered.fault is not None:
        return delivered.fault.type, delivered.fault.id, delivered.fault.time
    return None, None, None


def _key(delivered: Delivered) -> InboxKey | None:
    """What a record is known by in the inbox: its id, its price sequence, or else where it stood."""
    place, command = delivered.place, delivered.command
    if isinstance(command, RecordPrice) and command.sequence is not None:
        return place.source, "price", f"{command.instrument}\x1f{command.source}\x1f{command.sequence}"
    _, name, _ = _identity(delivered)
    if name is not None:
        return place.source, "id", name
    ordinal = place.line if place.offset is None else place.offset
    return None if ordinal is None else (place.source, "at", f"{place.partition or 0}:{ordinal}")


def _counter(key: InboxKey) -> tuple[str, str]:
    """Which counter a sequenced price belongs to: delivery source, and instrument with price source."""
    return key[0], key[2].rpartition("\x1f")[0]


def _cause(place: Place, command: Command) -> Cause:
    return Cause(source=place.source, type=command.TYPE, id=command.id, time=command.time, partition=place.partition,
                 offset=place.offset, line=place.line, replay_of=command.replay_of)


def _raw(delivered: Delivered) -> bytes:
    if delivered.raw is not None:
        return delivered.raw
    if delivered.command is None:
        return b""
    fields = delivered.command.model_dump(mode="json", exclude_none=True)
    return to_json({"type": delivered.command.TYPE, **fields})


def _is_same(event: Event, delivered: Delivered) -> bool:
    """Whether a repeat says what the recorded outcome says: known fields as values, else the same bytes."""
    command = delivered.command
    if isinstance(event, RecordRejected):
        if hashlib.sha256(_raw(delivered)).hexdigest() == event.sha256:
            return True
        if command is None or event.raw_bytes > RAW_KEPT:
            return False
        kept = event.raw.encode() if event.raw_encoding == "utf-8" else base64.b64decode(event.raw)
        earlier = read(Place(event.cause.source), kept).command
    else:
        earlier = command_of(event)
    if earlier is None or command is None:
        return False
    return type(earlier) is type(command) and earlier.facts() == command.facts()
