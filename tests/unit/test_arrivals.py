"""The order in which records of several partitions come to a shard: a law, and the cases by name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infra.streams.arrivals import Arrivals, Place

P, A = Place("prices", 0), Place("accounts", 0)
RANKS = {"control": 0, "prices": 1, "accounts": 2}


def arrivals(*rows: tuple[Place, int, int]) -> Arrivals[tuple[Place, int]]:
    """(place, offset, timestamp) each, put in this order."""
    found: Arrivals[tuple[Place, int]] = Arrivals([P, A], RANKS)
    for place in (P, A):
        found.start(place, 0)
    for place, offset, timestamp in rows:
        found.put(place, offset, timestamp, (place, offset))
    return found


def test_the_earlier_time_stamp_goes_first_and_of_equal_ones_the_lower_rank() -> None:
    found = arrivals((A, 0, 5), (A, 1, 7), (P, 0, 5), (P, 1, 6))

    assert [(P, 0), (A, 0), (P, 1), (A, 1)] == found.take(10, lambda _: False)


def test_a_time_stamp_that_goes_back_does_not_change_the_order_of_its_partition() -> None:
    found = arrivals((A, 0, 9), (A, 1, 1), (P, 0, 5))

    assert [(P, 0), (A, 0), (A, 1)] == found.take(10, lambda _: False)


def test_nothing_goes_while_a_partition_with_more_to_give_has_nothing_at_hand() -> None:
    found = arrivals((P, 0, 1), (P, 1, 2))

    assert [] == found.take(10, lambda place: place == A)
    assert [(P, 0), (P, 1)] == found.take(10, lambda _: False)


def test_it_stops_where_a_partition_runs_out_that_has_more_to_give() -> None:
    found = arrivals((A, 0, 1), (P, 0, 2))

    assert [(A, 0)] == found.take(10, lambda place: place == A)


def test_what_was_put_before_is_passed_over() -> None:
    found = arrivals((A, 0, 1), (A, 1, 1))

    assert not found.put(A, 1, 1, (A, 1))
    assert 2 == len(found)
    assert 0 == found.first(A)


@given(st.lists(st.tuples(st.sampled_from([P, A]), st.integers(0, 5), st.integers(1, 3))), st.integers(1, 4))
def test_whatever_comes_each_partition_is_given_whole_and_in_its_own_order(
        rows: list[tuple[Place, int, int]], limit: int) -> None:
    found, offsets, given_ = arrivals(), {P: 0, A: 0}, list[tuple[Place, int]]()
    for place, timestamp, step in rows:
        offsets[place] += step  # compaction and markers leave gaps
        found.put(place, offsets[place], timestamp, (place, offsets[place]))
        given_ += found.take(limit, lambda _: False)
    while batch := found.take(limit, lambda _: False):
        given_ += batch

    for place in (P, A):
        mine = [offset for where, offset in given_ if where == place]
        assert mine == sorted(set(mine))
        assert len(mine) == sum(where == place for where, _, _ in rows)
