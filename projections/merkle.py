"""The Merkle tree over the log (RFC 6962): every event is a leaf, and one root of 32 bytes commits to them all.

With a root in hand, an outsider can check that an event is in the log (inclusion) and that a longer log begins with
a shorter one (consistency) without seeing the rest. Leaves, nodes, roots and proof elements are SHA-256 digests of
32 bytes; leaf indexes count from 0, sizes are numbers of leaves. The writer keeps only a `Frontier`; proofs are made
by the audit, which reads the leaves back. This file never reads the log, signs nothing, and stores nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from struct import Struct
from typing import Final

DIGEST_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()

# 0x00 marks a leaf and 0x01 a node, so that neither can be passed off as the other.
_NODE: Final = b"\x01"
_LEAF_HEAD: Final = Struct(">xQI").pack  # 0x00, position, bytes of the stream name
_LEAF_MIDDLE: Final = Struct(">QI").pack  # version, bytes of the topic
_LENGTH: Final = Struct(">I").pack  # bytes of the state
_SIZE: Final = Struct(">Q")


def leaf_hash(position: int, stream: str, version: int, topic: str, state: bytes) -> bytes:
    """The leaf of one event, 32 bytes: a hash of where it stands in the log and of its state as stored.

    Formula: SHA-256(0x00 | position u64 | stream | version u64 | topic | state), big-endian; stream and topic are
             UTF-8, and each of stream, topic and state is preceded by its length in bytes as u32.
    Raises:  struct.error if a number is negative or does not fit.
    """
    name, kind = stream.encode(), topic.encode()
    return sha256(
        _LEAF_HEAD(position, len(name)) + name + _LEAF_MIDDLE(version, len(kind)) + kind + _LENGTH(len(state)) + state
    ).digest()


class Frontier:
    """The right edge of a growing tree: the roots of its perfect subtrees, largest first, one for each 1 bit of size.

    It is all that is needed to append and to know the root, at most 64 digests for any log.
    """

    __slots__ = ("_peaks", "_size")

    def __init__(self) -> None:
        self._size = 0
        self._peaks: list[bytes] = []

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._size

    def append(self, leaf: bytes) -> None:
        """Take the next leaf (32 bytes); one node hash on average. ValueError if it is not a digest."""
        if len(leaf) != DIGEST_BYTES:
            raise ValueError(f"a leaf must be {DIGEST_BYTES} bytes, was {len(leaf)}")
        size, peaks = self._size, self._peaks
        self._size = size + 1
        # Each trailing 1 bit of the old size is a perfect subtree that the new leaf completes to the next height.
        while size & 1:
            leaf = sha256(_NODE + peaks.pop() + leaf).digest()
            size >>= 1
        peaks.append(leaf)

    def root(self) -> bytes:
        """The RFC 6962 root of all leaves so far, 32 bytes; of none, the SHA-256 of the empty string."""
        if not self._peaks:
            return EMPTY_ROOT
        smaller = reversed(self._peaks)
        root = next(smaller)
        for peak in smaller:
            root = sha256(_NODE + peak + root).digest()
        return root

    def copy(self) -> Frontier:
        """An independent frontier of the same leaves, to try a batch on."""
        twin = Frontier()
        twin._size, twin._peaks = self._size, self._peaks.copy()
        return twin

    def to_bytes(self) -> bytes:
        """Its form in a row: size as u64 big-endian, then the subtree roots, largest first."""
        return _SIZE.pack(self._size) + b"".join(self._peaks)

    @classmethod
    def from_bytes(cls, row: bytes) -> Frontier:
        """The frontier that `to_bytes` wrote; ValueError if the length does not fit the size that it states."""
        if len(row) < _SIZE.size:
            raise ValueError(f"a frontier must be at least {_SIZE.size} bytes, was {len(row)}")
        (size,) = _SIZE.unpack_from(row)
        expected = _SIZE.size + DIGEST_BYTES * size.bit_count()
        if len(row) != expected:
            raise ValueError(f"a frontier of {size} leaves must be {expected} bytes, was {len(row)}")
        frontier = cls()
        frontier._size = size
        frontier._peaks = [bytes(row[at : at + DIGEST_BYTES]) for at in range(_SIZE.size, expected, DIGEST_BYTES)]
        return frontier


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root of a whole list of leaves, in log order; holds one frontier, not the leaves."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


# --- inclusion: this leaf is in the tree of that root ------------------------------------------------------------


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf `index` in the tree of all `leaves`: sibling roots, from the leaf upwards.

    At most ceil(log2(len(leaves))) digests, none for a single leaf. Hashes every leaf once.
    Raises: IndexError if there is no such leaf; a negative index never counts from the end.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf index must be in 0..{len(leaves) - 1}, was {index}")
    start, stop = 0, len(leaves)
    downwards: list[bytes] = []
    while stop - start > 1:
        middle = start + _left_size(stop - start)
        if index < middle:
            downwards.append(_subtree_root(leaves, middle, stop))
            stop = middle
        else:
            downwards.append(_subtree_root(leaves, start, middle))
            start = middle
    return downwards[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that `leaf` stands at `index` in the tree of `size` leaves with this `root`.

    The size is to be trusted like the root, from the same head: RFC 6962 paths do not commit to it. Never raises on
    wrong numbers or lengths; a proof with an element too many, too few or out of place is false.
    """
    if not 0 <= index < size or not _all_digests(leaf, root, *proof):
        return False
    # `node` and `last` are the places of our node and of the row's last one, at the height we have reached.
    node, last = index, size - 1
    reached = leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            reached = sha256(_NODE + sibling + reached).digest()
            # The last node of a row has no sibling where its place is even: it rises until it has one.
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            reached = sha256(_NODE + reached + sibling).digest()
        node >>= 1
        last >>= 1
    return last == 0 and reached == root


# --- consistency: the tree of that root begins with the tree of this one -----------------------------------------


def consistency_proof(leaves: Sequence[bytes], old_size: int, new_size: int) -> list[bytes]:
    """The nodes that show that the tree of `leaves[:new_size]` extends the tree of `leaves[:old_size]`.

    At most ceil(log2(new_size)) + 1 digests; none where the sizes are equal or the old tree is empty. Hashes every
    leaf once. Raises: ValueError unless 0 <= old_size <= new_size <= len(leaves).
    """
    if not 0 <= old_size <= new_size <= len(leaves):
        raise ValueError(f"sizes must satisfy 0 <= old <= new <= {len(leaves)}, were old {old_size}, new {new_size}")
    if old_size in (0, new_size):
        return []
    start, stop = 0, new_size
    downwards: list[bytes] = []
    # Follow the right edge of the old tree down the new one, until they share a whole subtree.
    while stop != old_size:
        middle = start + _left_size(stop - start)
        if old_size <= middle:
            downwards.append(_subtree_root(leaves, middle, stop))
            stop = middle
        else:
            downwards.append(_subtree_root(leaves, start, middle))
            start = middle
    # The verifier knows the shared subtree where it is the whole old tree.
    if start:
        downwards.append(_subtree_root(leaves, start, stop))
    return downwards[::-1]


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree of `new_size` leaves and `new_root` begins with the old tree.

    Any tree extends the empty one, by the empty proof. Never raises on wrong numbers or lengths; a proof with an
    element too many, too few or out of place is false.
    """
    if not 0 <= old_size <= new_size or not _all_digests(old_root, new_root, *proof):
        return False
    if old_size == new_size:
        return not proof and old_root == new_root
    if old_size == 0:
        return not proof and old_root == EMPTY_ROOT
    # Start at the largest perfect subtree that ends the old tree; where it is the whole of it, its root is known.
    rises = (old_size & -old_size).bit_length() - 1
    node, last = (old_size - 1) >> rises, (new_size - 1) >> rises
    path = list(proof) if node else [old_root, *proof]
    if not path:
        return False
    old_reached = new_reached = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old_reached = sha256(_NODE + sibling + old_reached).digest()
            new_reached = sha256(_NODE + sibling + new_reached).digest()
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            new_reached = sha256(_NODE + new_reached + sibling).digest()
        node >>= 1
        last >>= 1
    return last == 0 and old_reached == old_root and new_reached == new_root


def _left_size(size: int) -> int:
    """Leaves of the left subtree: the largest power of two below `size` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def _subtree_root(leaves: Sequence[bytes], start: int, stop: int) -> bytes:
    return root_of(leaves[at] for at in range(start, stop))


def _all_digests(*digests: bytes) -> bool:
    return all(len(digest) == DIGEST_BYTES for digest in digests)
