"""Laws of the Merkle tree over logs of any content, size and split."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import assume, given
from hypothesis import strategies as st

from projections.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

U64 = st.integers(min_value=0, max_value=2**64 - 1)
RECORDS = st.tuples(U64, st.text(max_size=20), U64, st.text(max_size=20), st.binary(max_size=60))
SIZES = st.integers(min_value=1, max_value=700)
DIGESTS = st.binary(min_size=32, max_size=32)


def log(size: int) -> list[bytes]:
    return [leaf_hash(position, "account:A1", position, "clearing.test:1", b"{}") for position in range(size)]


@given(RECORDS, RECORDS)
def test_different_events_have_different_leaves(
    one: tuple[int, str, int, str, bytes], other: tuple[int, str, int, str, bytes],
) -> None:
    assert (leaf_hash(*one) == leaf_hash(*other)) == (one == other)


@given(st.lists(DIGESTS, max_size=200), st.data())
def test_root_does_not_depend_on_where_the_writer_stopped(leaves: list[bytes], data: st.DataObject) -> None:
    stops = data.draw(st.sets(st.integers(min_value=0, max_value=len(leaves))))
    frontier = Frontier()
    for at, leaf in enumerate(leaves):
        if at in stops:
            frontier = Frontier.from_bytes(frontier.to_bytes())
        frontier.append(leaf)

    assert root_of(leaves) == frontier.root()


@given(st.binary(max_size=400))
def test_only_rows_that_a_frontier_wrote_are_read(row: bytes) -> None:
    try:
        frontier = Frontier.from_bytes(row)
    except ValueError:
        return

    assert row == frontier.to_bytes()


@given(SIZES, st.data())
def test_any_leaf_can_be_proved_and_no_other_in_its_place(size: int, data: st.DataObject) -> None:
    leaves = log(size)
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    elsewhere = data.draw(st.integers(min_value=0, max_value=size - 1))
    proof, root = inclusion_proof(leaves, index), root_of(leaves)

    assert len(proof) <= (size - 1).bit_length()
    assert verify_inclusion(leaves[index], index, size, proof, root)
    assert verify_inclusion(leaves[index], elsewhere, size, proof, root) == (index == elsewhere)
    assert verify_inclusion(leaves[elsewhere], index, size, proof, root) == (index == elsewhere)


@given(SIZES, st.data())
def test_any_prefix_can_be_proved_and_no_rewritten_one(size: int, data: st.DataObject) -> None:
    leaves = log(size)
    old = data.draw(st.integers(min_value=1, max_value=size))
    rewritten = data.draw(st.integers(min_value=0, max_value=old - 1))
    history = leaves[:old]
    history[rewritten] = sha256(history[rewritten]).digest()
    proof, root = consistency_proof(leaves, old, size), root_of(leaves)

    assert len(proof) <= (size - 1).bit_length() + 1
    assert verify_consistency(old, size, root_of(leaves[:old]), root, proof)
    assert not verify_consistency(old, size, root_of(history), root, proof)
    assert not verify_consistency(old, size, root_of(history), root, consistency_proof(
        history + leaves[old:], old, size))


@given(U64, U64, DIGESTS, DIGESTS, st.lists(st.binary(max_size=33), max_size=70))
def test_verifying_noise_is_false_and_ends(one: int, other: int, leaf: bytes, root: bytes, proof: list[bytes]) -> None:
    assume(leaf != root)

    assert not verify_inclusion(leaf, one, other, proof, root)
    assert not verify_consistency(one, other, leaf, root, proof) or one == 0
