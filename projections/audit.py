"""Replay: feed the facts of a log to the same decide code from empty state, and compare everything byte for byte.

A decision that is missing is found as surely as one that is wrong, since each record's events are derived anew and
laid beside the log's. After a difference the log's own events are folded and the comparison goes on, so that one
fault is one line. Beside the events: positions, versions, leaves, root, inbox, source positions, log time and read
models. This file never writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Final, NamedTuple, Protocol

from ledger.amounts import exact, rfc3339
from ledger.between_shards import Part
from ledger.clearing_house import ClearingHouse
from ledger.encoding import decode, encode
from ledger.errors import BrokenInvariant, LedgerUnreadable, Rejected
from ledger.events import Cause, Event, PriceRecorded, PriceRejected, Recorded, RecordRejected
from ledger.facts import command_of
from projections.book import Book
from projections.merkle import Frontier, leaf_hash

# After so many records that differ, the log is not worth deriving further; the root still covers every row.
DIFFERING_RECORDS_MAX: Final = 20
SHOWN_BYTES: Final = 300
PAGE: Final = 5_000


class Row(NamedTuple):
    """A row of the log as stored."""

    position: int
    stream: str
    version: int
    topic: str
    state: bytes


class StoredLedger(Protocol):
    """What replay needs of a ledger: its rows, and the tables that must follow from them."""

    def log_rows(self, after: int, limit: int) -> Sequence[Row]:
        """Rows after a position, in order."""

    def head(self) -> tuple[int, int, bytes] | None:
        """(position, log time, root) as stored."""

    def inbox(self) -> Mapping[tuple[str, str, str], int]:
        """Spent keys, as stored."""

    def source_positions(self) -> Mapping[tuple[str, int], int]:
        """(source, partition) -> next offset, as stored."""

    def leaves(self) -> bytes:
        """Leaf hashes, as stored."""


class Difference(NamedTuple):
    """One thing that does not follow from the facts: where, what kind, what was expected and what came."""

    position: int | None
    kind: str
    expected: str
    came: str


class Report(NamedTuple):
    """What a replay found."""

    events: int
    records: int
    decisions: int
    root: str
    differences: list[Difference]


class _Replay:
    """One pass over a log."""

    def __init__(self, ledger: StoredLedger, until: int | None, part: Part) -> None:
        self.ledger, self.until, self.part = ledger, until, part
        self.house = self._empty_house()
        self.frontier = Frontier()
        self.leaves = bytearray()
        self.differences: list[Difference] = []
        self.inbox: dict[tuple[str, str, str], int] = {}
        self.positions: dict[tuple[str, int], int] = {}
        self.records = self.decisions = self.differing = self.last = 0
        self.log_time = 0
        self.derives = True

    def _empty_house(self) -> ClearingHouse:
        house = ClearingHouse(nominator=Book())
        house.answered, house.part = self._answer_to, self.part
        return house

    def _answer_to(self, source: str, name: str) -> Event | None:
        position = self.inbox.get((source, "id", name))
        rows = [] if position is None else self.ledger.log_rows(position - 1, 1)
        return decode(rows[0].topic, rows[0].state) if rows else None

    def rows(self, after: int = 0) -> Iterator[Row]:
        while page := self.ledger.log_rows(after, PAGE):
            for row in page:
                if self.until is not None and row.position > self.until:
                    return
                yield row
            after = page[-1].position

    def groups(self, progress: Callable[[int], None] | None) -> Iterator[list[tuple[Row, Event]]]:
        """Rows by the record that they go back to. Hashes every row on the way, whatever it holds."""
        group: list[tuple[Row, Event]] = []
        for row in self.rows():
            if row.position != self.last + 1:
                self.differ(row.position, "position", str(self.last + 1), str(row.position))
            self.last = row.position
            leaf = leaf_hash(row.position, row.stream, row.version, row.topic, row.state)
            self.frontier.append(leaf)
            self.leaves += leaf
            if progress is not None and not row.position % PAGE:
                progress(row.position)
            try:
                event = decode(row.topic, row.state)
            except LedgerUnreadable as fault:
                self.differ(row.position, "unreadable", "an event of the catalogue", str(fault))
                self.derives = False
                continue
            if group and group[-1][1].cause != event.cause:
                yield group
                group = []
            group.append((row, event))
        if group:
            yield group

    def differ(self, position: int | None, kind: str, expected: str, came: str) -> None:
        self.differences.append(Difference(position, kind, expected[:SHOWN_BYTES], came[:SHOWN_BYTES]))

    # --- one record ----------------------------------------------------------------------------------------------

    def check(self, group: list[tuple[Row, Event]]) -> None:
        """Derive a record's events anew and lay them beside the log's."""
        outcomes = [(row, event) for row, event in group if event.ANSWERS is not None]
        self.decisions += len(group) - len(outcomes)
        self.records += len(outcomes)
        for row, event in outcomes:
            self._know(row.position, event)
        self.log_time = group[-1][1].time
        if not self.derives:
            return
        try:
            with exact():
                derived = self._derive(outcomes[0][1] if len(outcomes) == 1 else None)
        except Rejected as rejected:
            derived = []
            self.differ(group[0][0].position, "record", f"a record that can be applied ({rejected.message})",
                        group[0][0].topic)
        if len(outcomes) != 1:
            self.differ(group[0][0].position, "record", "one event that answers the record", f"{len(outcomes)} such")
        if not self._compare(group, derived):
            self._fold_instead(group[-1][0].position)

    def _derive(self, outcome: Event | None) -> list[Recorded]:
        if isinstance(outcome, RecordRejected):
            # A rejection is the edge's fact: what a later version could read must not change this one.
            self.house.reject(outcome)
        elif outcome is not None:
            command = command_of(outcome)
            if command is not None:
                self.house.handle(command, outcome.cause)
        derived, self.house.pending = self.house.pending, []
        return derived

    def _compare(self, group: list[tuple[Row, Event]], derived: list[Recorded]) -> bool:
        expected = [Row(r.position, r.originator_id, r.originator_version, r.event.TOPIC, encode(r.event))
                    for r in derived]
        came = [row for row, _ in group]
        if expected == came:
            return True
        matcher = SequenceMatcher(None, [row[1:4:2] for row in expected], [row[1:4:2] for row in came], autojunk=False)
        for tag, low, high, from_, to in matcher.get_opcodes():
            if tag == "equal":
                for wanted, found in zip(expected[low:high], came[from_:to], strict=True):
                    if wanted != found:
                        self._differ_rows(wanted, found)
                continue
            for wanted in expected[low:high]:
                self.differ(wanted.position, "missing", _shown(wanted), "nothing")
            for found in came[from_:to]:
                self.differ(found.position, "unexpected", "nothing", _shown(found))
        return False

    def _differ_rows(self, wanted: Row, found: Row) -> None:
        if wanted[3:] != found[3:]:
            self.differ(found.position, "body", *_around(_shown(wanted), _shown(found)))
        elif wanted.version != found.version:
            self.differ(found.position, "version", str(wanted.version), str(found.version))
        else:
            self.differ(found.position, "position", str(wanted.position), str(found.position))

    def _fold_instead(self, position: int) -> None:
        """Go on from the log's own events, as if they were right."""
        self.differing += 1
        if self.differing >= DIFFERING_RECORDS_MAX:
            self.derives = False
            self.differ(position, "stopped", f"fewer than {DIFFERING_RECORDS_MAX} records that differ",
                        "more; the rest of the log is hashed but not derived")
            return
        self.house = self._empty_house()
        try:
            with exact():
                self.house.load(Recorded(row.position, row.stream, row.version, decode(row.topic, row.state))
                                for row in self.rows() if row.position <= position)
        except (BrokenInvariant, LedgerUnreadable, TypeError, KeyError) as fault:
            self.derives = False
            self.differ(position, "stopped", "events that fold", str(fault))

    # --- what follows from the events ----------------------------------------------------------------------------

    def _know(self, position: int, event: Event) -> None:
        cause = event.cause
        ordinal = cause.line if cause.offset is None else cause.offset
        if ordinal is not None:
            place = (cause.source, cause.partition or 0)
            self.positions[place] = max(self.positions.get(place, 0), ordinal + 1)
        key = _key(cause, event)
        if key is not None:
            self.inbox[key] = position

    def check_tables(self) -> None:
        """Head, leaves, inbox and source positions against what the events say."""
        root = self.frontier.root()
        head = self.ledger.head()
        if self.until is not None and (head is None or self.until < head[0]):
            return
        if head is None:
            if self.last:
                self.differ(None, "head", f"a head at position {self.last}", "none")
        elif head != (self.last, self.log_time, root):
            self.differ(None, "head", f"position {self.last}, log time {rfc3339(self.log_time)}, root {root.hex()}",
                        f"position {head[0]}, log time {rfc3339(head[1])}, root {head[2].hex()}")
        leaves = self.ledger.leaves()
        if leaves != self.leaves:
            first = next((at for at in range(0, max(len(leaves), len(self.leaves)), 32)
                          if leaves[at:at + 32] != self.leaves[at:at + 32]), 0)
            self.differ(first // 32 + 1, "leaf", self.leaves[first:first + 32].hex() or "none",
                        leaves[first:first + 32].hex() or "none")
        stored = self.ledger.inbox()
        for key in sorted(self.inbox.keys() | stored.keys()):
            if self.inbox.get(key) != stored.get(key):
                self.differ(self.inbox.get(key), "inbox", f"{key} at {self.inbox.get(key)}", f"at {stored.get(key)}")
        # Duplicates move a source's position and leave no event, so a stored position may be ahead, never behind.
        moved = self.ledger.source_positions()
        for place in sorted(self.positions):
            if moved.get(place, 0) < self.positions[place]:
                self.differ(None, "source position", f"{place} at least {self.positions[place]}",
                            str(moved.get(place)))


def _key(cause: Cause, event: Event) -> tuple[str, str, str] | None:
    if isinstance(event, RecordRejected):
        return cause.source, event.known_by, event.key
    if isinstance(event, (PriceRecorded, PriceRejected)) and event.sequence is not None:
        return None
    return None if cause.id is None else (cause.source, "id", cause.id)


def _shown(row: Row) -> str:
    return f"{row.stream} {row.topic} {row.state.decode(errors='replace')}"


def _around(expected: str, came: str) -> tuple[str, str]:
    """Both texts from a little before the first character that differs."""
    same = next((at for at, (left, right) in enumerate(zip(expected, came, strict=False)) if left != right),
                min(len(expected), len(came)))
    start = max(0, same - 60)
    lead = "..." if start else ""
    return lead + expected[start:], lead + came[start:]


def replay(ledger: StoredLedger, *, until: int | None = None, progress: Callable[[int], None] | None = None,
           part: Part = "whole") -> Report:
    """Derive a log anew, up to a position or whole. Differences are listed in log order, tables last.

    `part`: what the ledger keeps, as its settings say.
    """
    run = _Replay(ledger, until, part)
    for group in run.groups(progress):
        run.check(group)
    run.check_tables()
    return Report(run.last, run.records, run.decisions, run.frontier.root().hex(), run.differences)


def compare_rows(name: str, expected: Iterable[tuple[object, ...]],
                 came: Iterable[tuple[object, ...]]) -> list[Difference]:
    """Differences between a rebuilt table of a read model and the stored one, row by row."""
    wanted, found = set(expected), set(came)
    missing = [Difference(None, f"table {name}", str(row)[:SHOWN_BYTES], "nothing") for row in sorted(
        wanted - found, key=repr)]
    return missing + [Difference(None, f"table {name}", "nothing", str(row)[:SHOWN_BYTES]) for row in sorted(
        found - wanted, key=repr)]
