"""One shard at work in a worker: its ledger, the records that wait for it, and how its last records fared.

A fault of the store closes the lane; it is opened again from what was committed. This file knows nothing of clients
of Kafka: it takes records that were read, and says where it wants to be read from.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from infra.embedded import open_ledger
from infra.shard import Outcome, Shard
from infra.store.address import PostgresAddress
from infra.streams.arrivals import Arrivals, Place
from infra.streams.cluster import ClusterFault
from infra.streams.records import Delivered
from infra.streams.records import Place as RecordPlace
from infra.venue import SimulatedVenue
from ledger.amounts import rfc3339
from ledger.commands import MoveClock

CLOCK_SOURCE: Final = "clock"
# Deadlines pass with a clock record at once; where none is due, one says now and then that time has moved.
CLOCK_SECONDS: Final = 60
# A partition that promises more and gives nothing (a transaction left open upstream) holds the others back this long.
HELD_BACK_SECONDS_MAX: Final = 1.0
# Rejections of prices that are late or too far off are a market's business, and no sign of a broken feed.
_OF_MARKETS: Final = frozenset({"late", "step"})


class FeedBroken(Exception):
    """Most of the last records were rejected: the feed is broken, and to go on would dead-letter all of it."""


class Lane:
    """One shard. Opened once its partitions are ours, closed when they are not, or when the store fails."""

    def __init__(self, number: int, address: Path | PostgresAddress, *, venue: SimulatedVenue | None,
                 breaker: int) -> None:
        self.number, self.address, self.venue = number, address, venue
        self.outcomes: Counter[str] = Counter()
        self.arrivals: Arrivals[Delivered] = Arrivals((), {})
        self.applied_at = 0.0
        self._breaker = breaker
        self._last: deque[bool] = deque(maxlen=breaker or 1)
        self._stack = ExitStack()
        self._shard: Shard | None = None
        self._held_back_since: float | None = None

    @property
    def shard(self) -> Shard:
        """The open ledger."""
        if self._shard is None:
            raise ClusterFault(f"shard {self.number} is not open")
        return self._shard

    @property
    def is_open(self) -> bool:
        """Whether records can be applied."""
        return self._shard is not None

    # --- opening -------------------------------------------------------------------------------------------------

    def open(self, starts: Mapping[Place, int], ranks: Mapping[str, int], identities: Mapping[str, str], *,
             whole: Collection[str], takes_over: bool) -> None:
        """Open the ledger and claim the partitions. `starts`: where each begins that was never read.

        `identities`: names of settings and what they must be, such as the ids of topics; noted where they are new.
        `whole`: topics that a new ledger must read from their first record. ClusterFault where an identity differs,
        since the log was read from something else that had the same name, or where first records are gone.
        """
        with ExitStack() as stack:
            shard = stack.enter_context(open_ledger(self.address, venue=self.venue, takes_over=takes_over))
            noted = shard.store.settings()
            for name, value in identities.items():
                if noted.get(name, value) != value:
                    raise ClusterFault(
                        f"{self.address}: expected {name.replace('kafka ', 'the ')} {noted[name]}, which its log was "
                        f"read from, came {value}: it was made anew, and its offsets mean other records. Give the "
                        "topics another prefix, or begin another ledger")
            shard.store.put_settings({name: value for name, value in identities.items() if name not in noted})
            self._require_whole(shard, starts, whole)
            claimed = shard.claim({(place.topic, place.partition): start for place, start in starts.items()})
            self.arrivals = Arrivals(starts, ranks)
            for place in starts:
                self.arrivals.start(place, claimed[place.topic, place.partition])
            self._stack, self._shard = stack.pop_all(), shard
        self._held_back_since = None

    @staticmethod
    def _require_whole(shard: Shard, starts: Mapping[Place, int], whole: Collection[str]) -> None:
        known = shard.next_offsets()
        for place, start in starts.items():
            if start and place.topic in whole and (place.topic, place.partition) not in known:
                raise ClusterFault(
                    f"{place.topic}[{place.partition}]: a new ledger expected its records from offset 0, the cluster "
                    f"has those from {start}: retention has taken the rest. Restore a ledger that read them, or bring "
                    "them back")

    def close(self) -> None:
        """Let go of the ledger; what waits in the queues is read again by whoever comes next."""
        self._shard = None
        self._stack.close()
        self._stack = ExitStack()

    # --- records -------------------------------------------------------------------------------------------------

    def apply(self, limit: int, has_more: Callable[[Place], bool]) -> list[Outcome]:
        """Apply the next records in order and commit them together. FeedBroken after the commit."""
        batch = self.arrivals.take(limit, self._patient(has_more))
        if not batch:
            return []
        outcomes = self.shard.apply(batch)
        self.applied_at = time.monotonic()
        self._note(outcomes)
        return outcomes

    def _patient(self, has_more: Callable[[Place], bool]) -> Callable[[Place], bool]:
        """Wait for partitions that have more to give, but not for ever."""
        if not self.arrivals or not self.arrivals.held_back_by(has_more):
            self._held_back_since = None
            return has_more
        now = time.monotonic()
        if self._held_back_since is None:
            self._held_back_since = now
        return has_more if now - self._held_back_since < HELD_BACK_SECONDS_MAX else lambda place: False

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes.update(outcome.kind for outcome in outcomes)
        if not self._breaker:
            return
        self._last.extend(outcome.kind == "rejected" and outcome.reason not in _OF_MARKETS for outcome in outcomes)
        if len(self._last) == self._breaker and 2 * sum(self._last) > self._breaker:
            reasons = Counter(outcome.reason for outcome in outcomes if outcome.kind == "rejected")
            raise FeedBroken(
                f"shard {self.number}: {sum(self._last)} of the last {self._breaker} records were rejected, most for "
                f"{', '.join(str(reason) for reason, _ in reasons.most_common(3))}. They are recorded, and `clearing "
                "dlq list` shows them; mend what sends them, then start again, or start with --breaker 0")

    # --- time ----------------------------------------------------------------------------------------------------

    def wants_clock(self, now: int) -> bool:
        """Whether a deadline has passed by the wall clock, or log time has stood still for long."""
        house = self.shard.house
        if now <= house.log_time or not house.position:
            return False
        return bool(house.timers and house.timers[0][0] <= now) or now - house.log_time >= CLOCK_SECONDS * 10**9

    def has_applied(self, ends: Mapping[Place, int]) -> bool:
        """Whether nothing waits that stands before these offsets."""
        return all((first := self.arrivals.first(place)) is None or first >= end for place, end in ends.items())

    def move_clock(self, now: int) -> None:
        """Record that time has moved: everything sent before `now` has been applied."""
        text = rfc3339(now)
        self.shard.apply([Delivered(RecordPlace(CLOCK_SOURCE), MoveClock(id=text, time=now), None, None)])
        self.outcomes["clock"] += 1
