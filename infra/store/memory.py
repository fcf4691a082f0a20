"""The in-memory store: the library's own, with the same commit as the durable ones. For tests and what-if runs.

It never outlives its process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eventsourcing.persistence import IntegrityError, ProcessRecorder, StoredEvent
from eventsourcing.popo import POPOFactory, POPOProcessRecorder

from infra.store.commit import Commit, Head, InboxKey, SourcePosition


class MemoryRecorder(POPOProcessRecorder):
    """Rows, inbox, positions and leaves in lists and dicts."""

    def __init__(self) -> None:
        super().__init__()
        self._head: Head | None = None
        self._inbox: dict[InboxKey, int] = {}
        self._leaves = bytearray()
        self._positions: dict[tuple[str, int], SourcePosition] = {}
        self._settings: dict[str, str] = {}
        self._snapshots: dict[tuple[int, int], bytes] = {}

    def _assert_uniqueness(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        super()._assert_uniqueness(stored_events, **kwargs)
        commit: Commit = kwargs["commit"]
        if len(self._stored_events) != commit.expected:
            raise IntegrityError(f"expected the log to end at {commit.expected}, it ends at {len(self._stored_events)}")
        end = commit.expected + len(stored_events)
        if end != commit.head.position:
            raise IntegrityError(f"expected the log to end at {commit.head.position}, it ends at {end}")
        for before, after in commit.positions:
            if self._positions.get((after.source, after.partition)) != before:
                raise IntegrityError(f"position of {after.source}[{after.partition}] was moved by another writer")
        spent = {key for key, _ in commit.inbox}
        if len(spent) != len(commit.inbox) or not spent.isdisjoint(self._inbox):
            raise IntegrityError(f"a key of {sorted(spent)} is spent already")

    def _update_table(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        commit: Commit = kwargs["commit"]
        ids = super()._update_table(stored_events, **kwargs)
        self._head = commit.head
        self._leaves += commit.leaves
        self._inbox.update(commit.inbox)
        self._positions.update(((after.source, after.partition), after) for _, after in commit.positions)
        return ids

    def head(self) -> Head | None:
        """Where the log ends."""
        return self._head

    def known(self, keys: Iterable[InboxKey]) -> Mapping[InboxKey, int]:
        """Which keys are spent."""
        return {key: self._inbox[key] for key in keys if key in self._inbox}

    def inbox(self) -> Iterable[tuple[InboxKey, int]]:
        """All spent keys, in order."""
        return sorted(self._inbox.items())

    def leaves(self) -> bytes:
        """All leaf hashes."""
        return bytes(self._leaves)

    def source_positions(self) -> Mapping[tuple[str, int], SourcePosition]:
        """The stored positions."""
        return dict(self._positions)

    def settings(self) -> Mapping[str, str]:
        """The ledger's settings."""
        return dict(self._settings)

    def put_settings(self, settings: Mapping[str, str]) -> None:
        """Write the settings of a new ledger."""
        self._settings.update(settings)

    def snapshots(self) -> Sequence[int]:
        """The positions of whole snapshots."""
        return [position for position, part in self._snapshots if part == 0]

    def snapshot_parts(self, position: int) -> Iterable[bytes]:
        """The parts of a snapshot."""
        return [content for (at, _), content in sorted(self._snapshots.items()) if at == position]

    def put_snapshot_part(self, position: int, part: int, content: bytes) -> None:
        """Write a part of a snapshot."""
        self._snapshots[position, part] = content

    def drop_snapshots(self, *, keep: int | None = None) -> None:
        """Delete all snapshots but one."""
        self._snapshots = {place: content for place, content in self._snapshots.items() if place[0] == keep}

    def close(self) -> None:
        """Nothing to release."""


class Factory(POPOFactory):
    """Named by PERSISTENCE_MODULE as `infra.store.memory:Factory`."""

    def process_recorder(self) -> ProcessRecorder:
        """Our recorder in place of the stock one."""
        return MemoryRecorder()
