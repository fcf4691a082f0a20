"""The Merkle tree against published vectors, and against a second reading of RFC 6962 in full."""

from __future__ import annotations

import struct
from hashlib import sha256
from itertools import pairwise

import pytest

from projections.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

# The reference inputs and results of the Certificate Transparency log (its merkle_tree_test and merkle_verifier_test).
CT_INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_LEAVES = [sha256(b"\x00" + bytes.fromhex(text)).digest() for text in CT_INPUTS]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_INCLUSION = [
    (0, 1, []),
    (0, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
    (5, 8, ["bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (1, 5, ["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"]),
]
CT_CONSISTENCY = [
    (1, 1, []),
    (1, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
    (6, 8, ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
    (2, 5, ["5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"]),
]

LEAVES = [leaf_hash(position, "account:A1", position, "clearing.test:1", b"{}") for position in range(131)]
SIZES_PROVED = 33


def recursive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + recursive_root(leaves[:split]) + recursive_root(leaves[split:])).digest()


ROOTS = [recursive_root(LEAVES[:size]) for size in range(len(LEAVES) + 1)]


def test_roots_are_those_of_the_reference_log() -> None:
    assert CT_ROOTS == [root_of(CT_LEAVES[:size]).hex() for size in range(9)]


@pytest.mark.parametrize(("index", "size", "expected"), CT_INCLUSION)
def test_inclusion_proofs_are_those_of_the_reference_log(index: int, size: int, expected: list[str]) -> None:
    proof = inclusion_proof(CT_LEAVES[:size], index)

    assert expected == [element.hex() for element in proof]
    assert verify_inclusion(CT_LEAVES[index], index, size, proof, bytes.fromhex(CT_ROOTS[size]))


@pytest.mark.parametrize(("old", "new", "expected"), CT_CONSISTENCY)
def test_consistency_proofs_are_those_of_the_reference_log(old: int, new: int, expected: list[str]) -> None:
    proof = consistency_proof(CT_LEAVES, old, new)

    assert expected == [element.hex() for element in proof]
    assert verify_consistency(old, new, bytes.fromhex(CT_ROOTS[old]), bytes.fromhex(CT_ROOTS[new]), proof)


def test_leaf_is_the_hash_of_the_documented_bytes() -> None:
    spelled_out = bytes.fromhex(
        "00"  # a leaf
        "0000000000000102"  # position 258
        "0000000b" "6163636f756e743ac3a931"  # account:é1
        "0000000000000003"  # version 3
        "00000014" "636c656172696e672e6465706f73697465643a31"  # clearing.deposited:1
        "00000007" "7b2261223a317d")  # {"a":1}

    leaf = leaf_hash(258, "account:é1", 3, "clearing.deposited:1", b'{"a":1}')

    assert sha256(spelled_out).digest() == leaf
    assert "30fa53e5bc98b109d69468f7b51e8d2c88283f17513c62070ebdafb80163abba" == leaf.hex()


def test_leaf_cannot_be_shifted_between_its_fields() -> None:
    assert leaf_hash(1, "ab", 1, "c", b"") != leaf_hash(1, "a", 1, "bc", b"")
    assert leaf_hash(1, "a", 1, "bc", b"") != leaf_hash(1, "a", 1, "b", b"c")
    assert leaf_hash(1, "a", 2, "b", b"") != leaf_hash(2, "a", 1, "b", b"")


@pytest.mark.parametrize(("position", "version"), [(-1, 0), (0, -1), (2**64, 0), (0, 2**64)])
def test_leaf_refuses_numbers_outside_u64(position: int, version: int) -> None:
    with pytest.raises(struct.error):
        leaf_hash(position, "a", version, "b", b"")


def test_frontier_equals_the_recursive_definition_at_every_size() -> None:
    frontier = Frontier()
    for size, root in enumerate(ROOTS):
        assert (size, root) == (frontier.size, frontier.root())
        if size < len(LEAVES):
            frontier.append(LEAVES[size])


def test_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert sha256(b"").digest() == EMPTY_ROOT == Frontier().root() == root_of([])


def test_frontier_restored_from_its_row_goes_on_alike_at_every_size() -> None:
    frontier = Frontier()
    for leaf in LEAVES:
        restored = Frontier.from_bytes(frontier.to_bytes())
        restored.append(leaf)
        frontier.append(leaf)

        assert (frontier.size, frontier.root(), frontier.to_bytes()) == (
            restored.size, restored.root(), restored.to_bytes())


def test_row_of_a_frontier_is_its_size_and_one_digest_for_each_bit_of_it() -> None:
    frontier = Frontier()
    for leaf in LEAVES[:5]:
        frontier.append(leaf)

    assert bytes.fromhex("0000000000000005") + ROOTS[4] + LEAVES[4] == frontier.to_bytes()


@pytest.mark.parametrize("row", [
    b"", bytes(7), bytes(9), bytes(8) + bytes(32), (3).to_bytes(8, "big") + bytes(32),
    (2).to_bytes(8, "big") + bytes(64), (2).to_bytes(8, "big") + bytes(31), (2).to_bytes(8, "little") + bytes(31)])
def test_row_whose_length_does_not_fit_its_size_is_refused(row: bytes) -> None:
    with pytest.raises(ValueError, match="must be"):
        Frontier.from_bytes(row)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_what_is_no_digest_is_not_appended(length: int) -> None:
    frontier = Frontier()
    with pytest.raises(ValueError, match="must be 32 bytes"):
        frontier.append(bytes(length))

    assert (0, EMPTY_ROOT) == (frontier.size, frontier.root())


def test_copy_of_a_frontier_lives_its_own_life() -> None:
    frontier = Frontier()
    for leaf in LEAVES[:7]:
        frontier.append(leaf)
    twin = frontier.copy()
    twin.append(LEAVES[7])

    assert (7, ROOTS[7]) == (frontier.size, frontier.root())
    assert (8, ROOTS[8]) == (twin.size, twin.root())


# --- every proof up to 33 leaves, and every way to spoil it -------------------------------------------------------


def flipped(digest: bytes) -> list[bytes]:
    """The digest with each of its bits turned over in turn."""
    number = int.from_bytes(digest, "big")
    return [(number ^ 1 << bit).to_bytes(len(digest), "big") for bit in range(8 * len(digest))]


def spoiled(proof: list[bytes]) -> list[list[bytes]]:
    """The proof with one element dropped, doubled, cut, added, replaced or exchanged with its neighbour."""
    proofs = []
    for at, element in enumerate(proof):
        for instead in ([], [element, element], [element[:-1]], [b""], [bytes(32)], [LEAVES[-1]]):
            proofs.append([*proof[:at], *instead, *proof[at + 1 :]])
    for at, (one, other) in enumerate(pairwise(proof)):
        proofs.append([*proof[:at], other, one, *proof[at + 2 :]])
    for added in (bytes(32), EMPTY_ROOT, LEAVES[-1]):
        proofs.extend([[added, *proof], [*proof, added]])
    return proofs


def test_every_inclusion_proof_verifies_and_only_there() -> None:
    for size in range(1, SIZES_PROVED + 1):
        for index in range(size):
            proof = inclusion_proof(LEAVES[:size], index)

            assert verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size]), (index, size)
            assert [index] == [
                at for at in range(-1, size + 1) if verify_inclusion(LEAVES[index], at, size, proof, ROOTS[size])]
            assert [index] == [
                at for at in range(size) if verify_inclusion(LEAVES[at], index, size, proof, ROOTS[size])]
            assert [size] == [
                at for at in range(len(ROOTS)) if verify_inclusion(LEAVES[index], index, size, proof, ROOTS[at])]


def test_every_spoiled_inclusion_proof_fails() -> None:
    for size in range(1, SIZES_PROVED + 1):
        for index in range(size):
            leaf, root = LEAVES[index], ROOTS[size]
            proof = inclusion_proof(LEAVES[:size], index)
            for other in spoiled(proof):
                assert not verify_inclusion(leaf, index, size, other, root), (index, size)
            assert not verify_inclusion(leaf[:-1], index, size, proof, root)
            assert not verify_inclusion(leaf, index, size, proof, root + b"\x00")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 21, 32, 33])
def test_every_bit_of_an_inclusion_proof_counts(size: int) -> None:
    for index in {0, size // 2, size - 1}:
        leaf, root = LEAVES[index], ROOTS[size]
        proof = inclusion_proof(LEAVES[:size], index)
        assert not any(verify_inclusion(other, index, size, proof, root) for other in flipped(leaf))
        assert not any(verify_inclusion(leaf, index, size, proof, other) for other in flipped(root))
        for at, element in enumerate(proof):
            assert not any(
                verify_inclusion(leaf, index, size, [*proof[:at], other, *proof[at + 1 :]], root)
                for other in flipped(element))


def test_every_consistency_proof_verifies_and_only_there() -> None:
    for new in range(SIZES_PROVED + 1):
        for old in range(new + 1):
            proof = consistency_proof(LEAVES, old, new)

            assert verify_consistency(old, new, ROOTS[old], ROOTS[new], proof), (old, new)
            if not old:
                continue  # any tree extends the empty one
            assert [old] == [
                at for at in range(len(ROOTS)) if verify_consistency(old, new, ROOTS[at], ROOTS[new], proof)]
            assert [new] == [
                at for at in range(len(ROOTS)) if verify_consistency(old, new, ROOTS[old], ROOTS[at], proof)]


def test_every_spoiled_consistency_proof_fails() -> None:
    for new in range(1, SIZES_PROVED + 1):
        for old in range(new + 1):
            for other in spoiled(consistency_proof(LEAVES, old, new)):
                assert not verify_consistency(old, new, ROOTS[old], ROOTS[new], other), (old, new)


@pytest.mark.parametrize(("old", "new"), [(1, 2), (1, 33), (3, 7), (4, 8), (6, 8), (7, 7), (8, 33), (13, 21), (32, 33)])
def test_every_bit_of_a_consistency_proof_counts(old: int, new: int) -> None:
    proof = consistency_proof(LEAVES, old, new)
    assert not any(verify_consistency(old, new, other, ROOTS[new], proof) for other in flipped(ROOTS[old]))
    assert not any(verify_consistency(old, new, ROOTS[old], other, proof) for other in flipped(ROOTS[new]))
    for at, element in enumerate(proof):
        assert not any(
            verify_consistency(old, new, ROOTS[old], ROOTS[new], [*proof[:at], other, *proof[at + 1 :]])
            for other in flipped(element))


def test_an_empty_old_tree_must_have_the_empty_root() -> None:
    assert verify_consistency(0, 5, EMPTY_ROOT, ROOTS[5], [])
    assert not verify_consistency(0, 5, ROOTS[1], ROOTS[5], [])
    assert not verify_consistency(0, 0, EMPTY_ROOT, ROOTS[1], [])


def test_a_log_never_shrinks() -> None:
    assert not verify_consistency(5, 3, ROOTS[5], ROOTS[3], consistency_proof(LEAVES, 3, 5))
    assert not verify_consistency(-1, 3, ROOTS[1], ROOTS[3], [])


@pytest.mark.parametrize("index", [-1, 3, 4])
def test_there_is_no_proof_for_a_leaf_outside_the_tree(index: int) -> None:
    with pytest.raises(IndexError, match=r"must be in 0\.\.2"):
        inclusion_proof(LEAVES[:3], index)


@pytest.mark.parametrize(("old", "new"), [(-1, 2), (3, 2), (1, 4)])
def test_there_is_no_consistency_proof_between_sizes_out_of_order(old: int, new: int) -> None:
    with pytest.raises(ValueError, match="sizes must satisfy"):
        consistency_proof(LEAVES[:3], old, new)
