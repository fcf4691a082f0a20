"""What one commit takes beside the events, and what every store must answer; the contract that stores are held to.

Source positions move by compare-and-set with an epoch, so that a stale worker can do no harm. This file never
touches a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from eventsourcing.persistence import Notification, StoredEvent

from ledger.errors import LedgerUnreadable

# What a ledger's tables and settings look like, as it says of itself; whole numbers that grow by one.
FORMAT: Final = "1"

# (source, kind, key): kind `id` for records that carry one, `at` for those known by their place, `price` for
# sequenced prices of no market, `conflict` for a record whose id other content spent (key: id and hash).
InboxKey = tuple[str, str, str]


class SourcePosition(NamedTuple):
    """The next offset (or line) of a source's partition, and the epoch of whoever moves it."""

    source: str
    partition: int
    next_offset: int
    epoch: int = 0


class Head(NamedTuple):
    """Where the log ends: its last position, log time there, and the Merkle frontier (root included)."""

    position: int
    log_time: int
    frontier: bytes
    root: bytes


def require_format(settings: Mapping[str, str]) -> None:
    """LedgerUnreadable unless the settings are those of a ledger of this format, or of one not yet begun."""
    found = settings.get("format")
    if not settings or found == FORMAT:
        return
    if found is not None and found.isascii() and found.isdigit() and int(found) < int(FORMAT):
        raise LedgerUnreadable(f"expected a ledger of format {FORMAT}, came format {found!r}, which is older; "
                               "`clearing upgrade LEDGER` brings it up and keeps a backup")
    raise LedgerUnreadable(f"expected a ledger of format {FORMAT}, came format {found!r}; a newer version of this "
                           "software wrote it: use that one, or a newer one")


class Commit(NamedTuple):
    """What moves with a batch of events, in one transaction."""

    expected: int
    head: Head
    leaves: bytes
    inbox: Sequence[tuple[InboxKey, int]]
    positions: Sequence[tuple[SourcePosition | None, SourcePosition]]


class Store(Protocol):
    """What the shard needs of a recorder beyond the library's own interface."""

    def insert_events(self, stored_events: Sequence[StoredEvent], *, commit: Commit) -> Sequence[int] | None:
        """One transaction: events, inbox, positions, leaves, head. Refused whole where the log does not continue."""

    def select_notifications(self, start: int | None, limit: int, stop: int | None = None,
                             topics: Sequence[str] = (), *, inclusive_of_start: bool = True) -> Sequence[Notification]:
        """Rows of the log, from `start` on."""

    def head(self) -> Head | None:
        """Where the log ends; None for an empty ledger."""

    def known(self, keys: Iterable[InboxKey]) -> Mapping[InboxKey, int]:
        """Which of the keys are spent, and the log position of their outcome."""

    def inbox(self) -> Iterable[tuple[InboxKey, int]]:
        """All spent keys, in order."""

    def leaves(self) -> bytes:
        """All leaf hashes, concatenated in log order."""

    def source_positions(self) -> Mapping[tuple[str, int], SourcePosition]:
        """The stored positions by (source, partition)."""

    def settings(self) -> Mapping[str, str]:
        """The ledger's own settings, format version among them; empty for a new ledger."""

    def put_settings(self, settings: Mapping[str, str]) -> None:
        """Write the settings of a new ledger."""

    def snapshots(self) -> Sequence[int]:
        """The log positions of whole snapshots: of those that have a part 0, which is written last."""

    def snapshot_parts(self, position: int) -> Iterable[bytes]:
        """The parts of a snapshot, in order."""

    def put_snapshot_part(self, position: int, part: int, content: bytes) -> None:
        """Write a part of a snapshot, durable on its own; one that is there is replaced."""

    def drop_snapshots(self, *, keep: int | None = None) -> None:
        """Delete all snapshots and what is left of unfinished ones, but for the one at a position."""

    def close(self) -> None:
        """Release what the store holds."""
