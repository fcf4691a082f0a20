"""Snapshots: the states at one position of the log in the store, so that a start need not fold the whole of it.

A snapshot stands beside the log and is no part of it: it may be deleted at any time, and audit never reads it. It is
taken only where everything fits: its version and the code's, the hash of each part, its place in the log and the
Merkle root there, which the rows after it must lead to the root of the head. Otherwise the log is folded from the
start, and why is said. It is written between batches, a part at a time, and at a clean close. This file decides and
records nothing.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from eventsourcing.persistence import PersistenceError

from infra.store.commit import Head
from ledger.accounts import KeptAccount
from ledger.errors import LedgerUnreadable
from ledger.events import Recorded
from ledger.snapshot import (
    ACCOUNTS_A_PART,
    code_fingerprint,
    encode_accounts,
    encode_head,
    pack,
    restore_states,
    unpack,
)
from projections.merkle import Frontier

if TYPE_CHECKING:
    from infra.shard import Shard

# Grows by one whenever the first part's fields or their meaning change.
FORMAT: Final = 1
# A snapshot is begun after so many events, and so many for each account: it costs about 50 us an account, which is
# then less than 10 us an event, and a start folds little more than these.
EVERY_EVENTS: Final = 250_000
EVERY_EVENTS_AN_ACCOUNT: Final = 5
# At a clean close one is written where it saves folding so many events: a fifth of a second.
CLOSE_EVENTS: Final = 10_000
# Below this position rows that a snapshot stands for are hashed at open all the same, at some 14 us each.
HASHED_EVENTS_MAX: Final = 200_000


class Snapshots:
    """The snapshots of one writer: `restore` at open, `follow` after each commit, `close` at the end."""

    def __init__(self, shard: Shard, *, every: int = EVERY_EVENTS) -> None:
        self._shard = shard
        self._every = every
        # The position of the last whole snapshot, 0 where there is none.
        self.position = 0
        # Where one was begun last.
        self._tried = 0
        self._is_wanted = True
        # The snapshot being written: its first part, the accounts still to be written, and the hashes of parts.
        self._head: dict[str, Any] = {}
        self._rest: Iterator[KeptAccount] | None = None
        self._hashes: list[str] = []

    # --- reading -------------------------------------------------------------------------------------------------

    def restore(self, head: Head) -> Frontier | None:
        """Put the states where the newest snapshot stands; the frontier there. None: there is none.

        LedgerUnreadable, with nothing changed, where it does not fit; the message says why.
        """
        store = self._shard.store
        positions = store.snapshots()
        if not positions:
            return None
        position = max(positions)
        if position > head.position:
            raise LedgerUnreadable(f"the snapshot stands at log position {position}, the log ends at {head.position}")
        parts = iter(store.snapshot_parts(position))
        found = _header(next(parts, b""))
        if (found["format"], found["position"]) != (FORMAT, position):
            raise LedgerUnreadable(f"expected a snapshot of format {FORMAT} at log position {position}, came format "
                                   f"{found['format']} at {found['position']}")
        if found["code"] != code_fingerprint():
            raise LedgerUnreadable("another version of this software wrote the snapshot")
        frontier = Frontier.from_bytes(bytes.fromhex(found["frontier"]))
        if frontier.size != position or (position == head.position and frontier.to_bytes() != head.frontier):
            raise LedgerUnreadable("the snapshot is of another log: its frontier is not that of the head")
        with collector_paused():
            restore_states(self._shard.house, _checked(parts, found["parts"]))
        if self._shard.house.position != position:
            raise LedgerUnreadable(f"expected states at log position {position}, came {self._shard.house.position}")
        self._shard.unlisted = {(source, counter) for source, counter in found["unlisted"]}
        self.position = self._tried = position
        return frontier

    # --- writing -------------------------------------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether one is to be begun after the next commit that the states have not run ahead of."""
        house = self._shard.house
        every = self._every + EVERY_EVENTS_AN_ACCOUNT * len(house.accounts)
        return self._rest is None and house.position - self._tried >= every

    def follow(self, committed: Sequence[Recorded]) -> None:
        """After a commit: begin a snapshot where it is time, or write one more part of the one begun.

        A store that takes none stops no writer; it is tried again as many events later.
        """
        try:
            if self._rest is not None:
                self._step()
            elif self.is_due and self._shard.frontier.size == self._shard.house.position:
                self._begin()
        except PersistenceError:
            self._rest = None

    def take(self) -> int:
        """Write a snapshot of the states as they stand, whole; its position."""
        if self._rest is None or self._head["position"] != self._shard.house.position:
            self._begin()
        while self._rest is not None:
            self._step()
        return self.position

    def drop(self) -> None:
        """Delete what there is; the close writes no new one."""
        self._shard.store.drop_snapshots()
        self.position, self._rest, self._is_wanted = 0, None, False

    def close(self) -> None:
        """At a clean close: leave a snapshot where the next start would fold much without it."""
        if not self._is_wanted:
            return
        if self._shard.house.position - self.position >= CLOSE_EVENTS:
            self.take()

    def _begin(self) -> None:
        shard = self._shard
        house, frontier = shard.house, shard.frontier
        self._tried = house.position
        self._head = {
            "format": FORMAT, "position": house.position, "code": code_fingerprint(),
            "frontier": frontier.to_bytes().hex(), "unlisted": sorted(shard.unlisted)}
        self._rest = iter(house.accounts.kept())
        self._hashes = []
        shard.store.drop_snapshots(keep=self.position)
        self._put(encode_head(house))

    def _step(self) -> None:
        part = list(islice(self._rest or (), ACCOUNTS_A_PART))
        if part:
            self._put(encode_accounts(part))
            return
        position = self._head["position"]
        store = self._shard.store
        store.put_snapshot_part(position, 0, pack(json.dumps({**self._head, "parts": self._hashes}).encode()))
        store.drop_snapshots(keep=position)
        self.position, self._rest = position, None

    def _put(self, content: bytes) -> None:
        packed = pack(content)
        self._hashes.append(packed[:32].hex())
        self._shard.store.put_snapshot_part(self._head["position"], len(self._hashes), packed)


def _header(stored: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(unpack(stored))
        if not all(name in found for name in ("format", "position", "code", "frontier", "unlisted", "parts")):
            raise ValueError("fields are missing")
    except ValueError as fault:
        raise LedgerUnreadable(f"expected the first part of a snapshot, came {fault}") from fault
    return found


def _checked(parts: Iterator[bytes], hashes: Sequence[str]) -> Iterator[bytes]:
    """The contents of parts, each with the hash that the first one names, and none missing or more."""
    count = 0
    for count, stored in enumerate(parts, 1):
        if count > len(hashes) or stored[:32].hex() != hashes[count - 1]:
            raise LedgerUnreadable(f"part {count} of the snapshot is not the one that it names")
        yield unpack(stored)
    if count != len(hashes):
        raise LedgerUnreadable(f"expected {len(hashes)} parts of a snapshot, came {count}")


@contextmanager
def collector_paused() -> Iterator[None]:
    """Many objects that stay are made meanwhile: to look for garbage among them would cost more than to make them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
