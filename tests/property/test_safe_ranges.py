"""Nobody is missed: after whatever happens to a crowd, no pool is left on which a decision is due.

The law is the exact one: every pool of every account is evaluated and decided on, without book or index. Both roads
are held to it, one pool at a time and many in vectors.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.safe_range import HEAP_MIN, TOKEN_STEP, Edge, Factor
from tests.property.crowd import NAMES, PLAIN, Crowd

ONE_BY_ONE: Final = 10**9

_instruments = st.sampled_from(NAMES)
_leaps = st.sampled_from(["0.999", "1.001", "0.99", "1.01", "0.97", "1.03", "0.9", "1.1", "0.8", "1.25", "0.5", "2",
                          "0.1", "10", "0.0001", "100000"])
_steps = st.lists(st.one_of(
    st.tuples(st.just("tick"), _instruments, _leaps),
    st.tuples(st.just("creep"), _instruments, st.integers(1, 12), st.sampled_from([1e-9, 1e-6, 1e-4, 1e-3, 0.01])),
    st.tuples(st.just("trade"), st.sampled_from([1, 5, 40, 200])),
    st.tuples(st.just("wait"), st.sampled_from([1, 10, 61, 400, 4000, 10**6])),
    st.tuples(st.just("say"), st.just("funding"), _instruments, st.sampled_from(
        ["0.0001", "-0.0003", "0.01", "-0.02", "0.3"])),
    st.tuples(st.just("say"), st.just("interest-rate"), st.sampled_from(["USD", "BTC"]), st.sampled_from(
        ["0", "0.05", "2"]))), min_size=3, max_size=14)


@pytest.mark.parametrize("vector_min", [0, ONE_BY_ONE])
@given(seed=st.integers(0, 2**32), steps=_steps, accounts=st.sampled_from([3, 12, 30]), ageing=st.booleans())
@settings(max_examples=20)
def test_nobody_is_missed(vector_min: int, seed: int, steps: list[tuple[object, ...]], accounts: int,
                          ageing: bool) -> None:
    crowd = Crowd(seed, accounts, vector_min=vector_min, ageing=ageing)
    crowd.require_none_missed()
    for step in steps:
        match step:
            case ("tick", str(instrument), str(factor)):
                crowd.tick(instrument, factor)
            case ("creep", str(instrument), int(ticks), float(width)):
                crowd.creep(instrument, ticks, width)
            case ("trade", int(count)):
                crowd.trade(count)
            case ("wait", int(seconds)):
                crowd.wait(seconds)
            case ("say", "funding", str(instrument), str(rate)):
                crowd.say("funding", instrument=instrument, rate=rate)
            case ("say", "interest-rate", str(asset), str(rate)):
                crowd.say("interest-rate", asset=asset, borrow_rate=rate, lend_rate="0.01")
        crowd.require_none_missed()


def test_nobody_is_missed_after_thousands_of_fills_between_two_marks() -> None:
    crowd = Crowd(7, 40, vector_min=ONE_BY_ONE)
    crowd.trade(3_000)
    crowd.require_none_missed()
    for factor in ("1.0005", "0.98", "0.9", "1.3"):
        for instrument in NAMES:
            crowd.tick(instrument, factor)
            crowd.require_none_missed()


@given(seed=st.integers(0, 2**32), vector_min=st.sampled_from([0, ONE_BY_ONE]), steps=st.lists(st.tuples(
    st.integers(1, 60), st.sampled_from(PLAIN), st.integers(0, 10),
    st.sampled_from([1e-4, 1e-3, 0.01, 0.05]), st.sampled_from([None, None, "0.0005", "-0.02"])),
    min_size=2, max_size=10))
@settings(max_examples=40)
def test_nobody_is_missed_whose_ranges_small_changes_left_as_they_stood(
        seed: int, vector_min: int, steps: list[tuple[int, str, int, float, str | None]]) -> None:
    crowd = Crowd(seed, 12, vector_min=vector_min, plain=True)
    for count, instrument, ticks, width, rate in steps:
        crowd.trade_a_little(count)
        crowd.require_none_missed()
        if rate is not None:
            crowd.say("funding", instrument=instrument, rate=rate)
            crowd.require_none_missed()
        crowd.creep(instrument, ticks, width)


def test_most_small_changes_leave_ranges_as_they_stand() -> None:
    crowd = Crowd(3, 40, vector_min=ONE_BY_ONE, plain=True)
    absorbed: list[bool] = []
    crowd.shard.listeners.append(lambda committed: absorbed.extend(
        recorded.originator_id.removeprefix("account:") in crowd.book.behind for recorded in committed
        if recorded.event.ANSWERS == "fill"))
    crowd.trade_a_little(400)

    assert len(absorbed) / 2 < sum(absorbed)


# --- edges -------------------------------------------------------------------------------------------------------

_keys = st.floats(-1e6, 1e6)


@given(rounds=st.lists(st.tuples(st.lists(_keys, max_size=40), st.lists(_keys, max_size=40), _keys), max_size=6))
def test_an_edge_gives_back_what_was_put_in_above_a_level(rounds: list[tuple[list[float], list[float], float]]) -> None:
    edge, expected = Edge(), set[tuple[float, int]]()
    current = np.arange(1_000, dtype=np.int64)
    used = 0
    for recent, many, level in rounds:
        came = [(key, used + place) for place, key in enumerate(recent + many)]
        used += len(came)
        expected.update(came)
        edge.merge(current, np.array(many, dtype=np.float64), np.array([token for _, token in came[len(recent):]],
                                                                       dtype=np.int64))
        for key, token in came[:len(recent)]:
            edge.push(key, token, current)
        left = {token for key, token in expected if key > level}

        assert max([key for key, _ in expected], default=-np.inf) == edge.bound
        assert left == set(edge.leave(level))
        expected = {row for row in expected if row[0] <= level}
        assert len(expected) == len(edge)


def test_an_edge_forgets_the_dead_when_it_merges() -> None:
    edge, current = Edge(), np.arange(4, dtype=np.int64)
    for _ in range(100 * HEAP_MIN):
        current[1] += TOKEN_STEP
        edge.merge(current, np.array([1.0]), current[1:2])

    assert 1 == len(edge)


@pytest.mark.parametrize("is_inverse", [False, True])
def test_ranges_shrink_by_what_funding_moved_and_widen_again_for_who_is_armed_later(is_inverse: bool) -> None:
    factor = Factor()
    factor.is_inverse, factor.mark = is_inverse, 1.0
    factor.low.merge(np.arange(3, dtype=np.int64), np.array([0.5, 0.99]), np.array([1, 2], dtype=np.int64))

    assert [2] == factor.move(1.0, -0.1)
    factor.low.merge(np.arange(3, dtype=np.int64), np.array([0.99 - factor.offset]), np.array([2], dtype=np.int64))
    assert [] == factor.move(1.0, -0.1)
    assert [1, 2] == sorted(factor.move(1.0, 100.0))
    assert 0.0 == factor.offset
