"""The order in which records of several partitions come to a shard: as they were sent, as far as that can be known.

Each partition keeps its own order. Between partitions the earlier time stamp goes first, and nothing goes while a
partition that has more to give has nothing at hand: so a worker that was away for an hour meets deposits and prices
in the order of that hour, and not all of one before all of the other. What comes of it is recorded, and the log alone
is what replay follows. This file never reads a record's content, a clock or a topic.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Arrivals(Generic[Item]):
    """Queues of one shard, one a partition. `ranks`: which topic goes first at the same time stamp."""

    def __init__(self, places: Iterable[Place], ranks: Mapping[str, int]) -> None:
        self._queues: dict[Place, deque[tuple[int, int, Item]]] = {place: deque() for place in places}
        self._ranks = ranks
        # The latest time stamp of each partition: one that goes back counts as this, so that its order is kept.
        self._latest: dict[Place, int] = {}
        # Where each partition's next item comes from: one beyond the last that was put.
        self.ends: dict[Place, int] = {}

    @property
    def places(self) -> Sequence[Place]:
        """The partitions."""
        return list(self._queues)

    def start(self, place: Place, offset: int) -> None:
        """Where a partition begins; what is in its queue is forgotten."""
        self._queues[place].clear()
        self.ends[place] = offset

    def put(self, place: Place, offset: int, timestamp: int, item: Item) -> bool:
        """Take an item, unless it is one that was put before; whether it was taken."""
        if offset < self.ends[place]:
            return False
        self.ends[place] = offset + 1
        latest = self._latest[place] = max(timestamp, self._latest.get(place, timestamp))
        self._queues[place].append((latest, offset, item))
        return True

    def waiting(self, place: Place) -> int:
        """How many items of a partition wait."""
        return len(self._queues[place])

    def first(self, place: Place) -> int | None:
        """The offset of the first item of a partition that waits."""
        queue = self._queues[place]
        return queue[0][1] if queue else None

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def held_back_by(self, has_more: Callable[[Place], bool]) -> list[Place]:
        """The partitions that have nothing at hand and have more to give."""
        return [place for place, queue in self._queues.items() if not queue and has_more(place)]

    def take(self, limit: int, has_more: Callable[[Place], bool]) -> list[Item]:
        """At most `limit` items in order; fewer where a partition runs out that has more to give."""
        if self.held_back_by(has_more):
            return []
        heap = [self._head(place) for place, queue in self._queues.items() if queue]
        heapq.heapify(heap)
        found: list[Item] = []
        while heap and len(found) < limit:
            place = heapq.heappop(heap)[-1]
            queue = self._queues[place]
            found.append(queue.popleft()[2])
            if queue:
                heapq.heappush(heap, self._head(place))
            elif has_more(place):
                break
        return found

    def _head(self, place: Place) -> tuple[int, int, str, int, Place]:
        return (self._queues[place][0][0], self._ranks.get(place.topic, 0), *place, place)
