"""Safe ranges: between which prices of an instrument a pool's status cannot change, kept sorted by their ends.

A factor is the mark of one instrument. The two ends of all ranges of a factor are two edges; a mark that lies within
the innermost ends leaves nobody's range, which costs two comparisons. Entries of a pool that was armed anew are dead
and skipped when met; recent entries lie in a small heap and are merged into sorted arrays when it grows, so that
memory stays bounded by what is alive. This file knows no accounts, no rules and no exact figures.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# How far a mark may move, as a part of it, before every pool on it is looked at anew: slopes are bounded within.
REACH: Final = 0.5
# A range may be wide of the truth by this part of the mark for the rounding of its ends; a narrower one is empty.
FINENESS: Final = 1e-11
# What a range is shortened by for the rounding of slopes, as a part of it.
SHORTENING: Final = 1e-9
# A range shrinks by so many times what its instrument's funding index moved (see `Factor.offset`).
FUNDING_SHIFT: Final = 2.0
# From here on, in marks, the rounding of ends that moved by funding would weigh; all are armed anew.
OFFSET_MAX: Final = 64.0

# A token names a pool (low bits) and how often it was armed (high bits).
TOKEN_STEP: Final = 1 << 32
TOKEN_POOL: Final = TOKEN_STEP - 1

# The heap of recent entries is merged from this length on, and a part of the array's.
HEAP_MIN: Final = 512
HEAP_PART: Final = 16


class Edge:
    """One end of all ranges of one factor: entries (key, token), left by all whose key is above a level.

    Lower ends have themselves as key and the mark as level; upper ends both negated.
    """

    __slots__ = ("bound", "count", "heap", "keys", "tokens")

    def __init__(self) -> None:
        # The innermost key, of the living and of the dead.
        self.bound = -math.inf
        # (-key, token): the innermost first.
        self.heap: list[tuple[float, int]] = []
        # Ascending; only the first `count` count.
        self.keys: Floats = np.zeros(0)
        self.tokens: Ints = np.zeros(0, dtype=np.int64)
        self.count = 0

    def __len__(self) -> int:
        return self.count + len(self.heap)

    def leave(self, level: float) -> list[int]:
        """Take out all entries whose key is above a level; their tokens, some of them dead."""
        found = []
        heap, below = self.heap, -level
        while heap and heap[0][0] < below:
            found.append(heappop(heap)[1])
        if self.count and self.keys[self.count - 1] > level:
            left = int(self.keys[:self.count].searchsorted(level, "right"))
            found += self.tokens[left:self.count].tolist()
            self.count = left
        self._bound()
        return found

    def push(self, key: float, token: int, current: Ints) -> None:
        """Put one entry in. `current`: pool -> its living token."""
        heappush(self.heap, (-key, token))
        if key > self.bound:
            self.bound = key
        if self.is_full():
            self.merge_recent(current)

    def is_full(self) -> bool:
        """Whether the heap has grown so far that it pays to merge it."""
        return len(self.heap) > HEAP_MIN + self.count // HEAP_PART

    def merge(self, current: Ints, keys: Floats, tokens: Ints) -> None:
        """Merge the heap and more entries into the arrays, and drop the dead. `current`: pool -> its living token."""
        recent = len(self.heap)
        if recent:
            keys = np.concatenate([keys, np.fromiter((-key for key, _ in self.heap), np.float64, recent)])
            tokens = np.concatenate([tokens, np.fromiter((token for _, token in self.heap), np.int64, recent)])
            self.heap.clear()
        kept = current[tokens & TOKEN_POOL] == tokens
        keys, tokens = keys[kept], tokens[kept]
        order = keys.argsort()
        keys, tokens = keys[order], tokens[order]
        old_keys, old_tokens = self.keys[:self.count], self.tokens[:self.count]
        if self.count:
            kept = current[old_tokens & TOKEN_POOL] == old_tokens
            old_keys, old_tokens = old_keys[kept], old_tokens[kept]
            places = old_keys.searchsorted(keys)
            keys, tokens = np.insert(old_keys, places, keys), np.insert(old_tokens, places, tokens)
        self.keys, self.tokens, self.count = keys, tokens, len(keys)
        self._bound()

    def merge_recent(self, current: Ints) -> None:
        """Merge the heap alone."""
        self.merge(current, np.zeros(0), np.zeros(0, dtype=np.int64))

    def _bound(self) -> None:
        self.bound = float(self.keys[self.count - 1]) if self.count else -math.inf
        if self.heap and -self.heap[0][0] > self.bound:
            self.bound = -self.heap[0][0]


class Factor:
    """The mark of one instrument, and the ends of the ranges in it.

    `offset` is how far all ranges have shrunk at either end by moves of the funding index: an end that is armed now
    is written with the offset of now, and compared with the one of then.
    """

    __slots__ = ("funding", "high", "is_inverse", "low", "mark", "offset")

    def __init__(self) -> None:
        self.low, self.high = Edge(), Edge()
        self.mark = self.funding = self.offset = 0.0
        self.is_inverse = False

    def move(self, mark: float, funding: float) -> list[int]:
        """Move to a mark and funding index; the tokens whose range was left, some of them dead or twice."""
        if funding != self.funding:
            moved = FUNDING_SHIFT * abs(funding - self.funding) * (1 + SHORTENING)
            if self.is_inverse:
                # The index is in base; ranges are in quote, and were armed at a mark within reach of the last.
                moved *= (self.mark * (1 + REACH)) ** 2
            self.offset += moved
            self.funding = funding
        self.mark = mark
        low, high = self.low, self.high
        if not self.offset <= OFFSET_MAX * mark:
            self.offset = 0.0
            return low.leave(-math.inf) + high.leave(-math.inf)
        level = mark - self.offset
        found = low.leave(level) if low.bound > level else []
        level = -mark - self.offset
        if high.bound > level:
            found += high.leave(level)
        return found
