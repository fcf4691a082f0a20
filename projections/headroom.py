"""Arming: how far the marks under a pool may move before its status can change, and its ranges set to that.

A pool's headroom to the lines of its state is shared out over its factors: all may move by the same part r of their
marks, at once and in the worst direction, and no line is reached. Every slope is bounded over the whole reach and
every bound is widened outward (docs/decisions: safe ranges). Two roads, one pool or many in vectors, hold the same
bounds. This file nominates by number; it decides nothing and knows no events.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heappush
from typing import Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ledger.account import PositionKey
from projections.columns import (
    GROWTH,
    RELATIVE_TOLERANCE,
    SPREAD,
    Balances,
    Columns,
    Holders,
    views_of,
)
from projections.safe_range import (
    FINENESS,
    FUNDING_SHIFT,
    HEAP_MIN,
    REACH,
    SHORTENING,
    TOKEN_STEP,
    Edge,
    Factor,
    Floats,
    Ints,
)

# Bound on notional per maintenance margin that the tolerance allows for (a maintenance rate of 0.1 %).
NOTIONAL_PER_MAINTENANCE: Final = 1_000.0
# Headroom below so many tolerances is none: what floats err by where a pool is armed, and at most 2.25 times the
# rounding of funding and interest where its ranges end.
TOLERANCES: Final = 4.0
# The part of its headroom that a pool with balances that bear interest leaves to time.
TIME_PART: Final = 0.25
# Pools armed together in vectors at most, so that the columns on the way stay small.
TOGETHER_MAX: Final = 1 << 18

LOWER, UPPER = range(2)
_LEVEL: Final = (0.0, 0.0, 0.0, 0.0, 0.0, False)


class Pool:
    """What the book knows of one pool: its rows. `version` is the rulebook's that they stand under."""

    __slots__ = ("account", "balances", "index", "name", "positions", "version")

    def __init__(self, account: str, name: str, version: str, index: int) -> None:
        self.account, self.name, self.version, self.index = account, name, version, index
        # position -> its row in the instrument's columns; asset -> its row in the asset's
        self.positions: dict[PositionKey, int] = {}
        self.balances: dict[str, int] = {}


class Pools:
    """All pools by number: their lines, their tokens, and the columns that their rows lie in.

    A pool is nominated at its lower line and below, and at its upper line and above. An upper line that does not
    matter is nan, which no comparison meets. `always`: at every tick, whatever its figures.
    """

    def __init__(self) -> None:
        self.members: list[Pool | None] = [None]
        self.free: list[int] = []
        self.lines: Floats = np.zeros((2, 16))
        self.views = views_of(self.lines)
        self.always: npt.NDArray[np.bool_] = np.zeros(16, dtype=np.bool_)
        self.tokens: Ints = np.arange(16, dtype=np.int64)
        self._token_view = _view(self.tokens)
        # rulebook version -> instrument, asset -> its columns
        self.holders: dict[str, dict[str, Holders]] = {}
        self.balances: dict[str, dict[str, Balances]] = {}
        self.factors: dict[str, Factor] = {}
        # Deadlines of pools that interest moves, in seconds of log time.
        self.time = Edge()
        self.now = 0.0

    def add(self, account: str, name: str, version: str) -> Pool:
        """A pool without rows."""
        if self.free:
            pool = Pool(account, name, version, self.free.pop())
            self.members[pool.index] = pool
            return pool
        pool = Pool(account, name, version, len(self.members))
        self.members.append(pool)
        if pool.index == len(self.tokens):
            more = max(16, pool.index // 4)
            self.lines = np.concatenate([self.lines, np.zeros((2, more))], axis=1)
            self.views = views_of(self.lines)
            self.always = np.concatenate([self.always, np.zeros(more, dtype=np.bool_)])
            self.tokens = np.concatenate([self.tokens, np.arange(pool.index, pool.index + more, dtype=np.int64)])
            self._token_view = _view(self.tokens)
        return pool

    def drop(self, pool: Pool) -> None:
        """Forget a pool whose rows are given back; its ranges are dead."""
        self.members[pool.index] = None
        self.tokens[pool.index] += TOKEN_STEP
        self.always[pool.index] = False
        self.free.append(pool.index)

    def rows(self) -> int:
        """How many positions and balances there are room for."""
        return (sum(table.count for tables in self.holders.values() for table in tables.values())
                + sum(table.count for tables in self.balances.values() for table in tables.values()))

    def figures(self, pool: Pool) -> tuple[float, float]:
        """(margin equity, maintenance margin) of a pool at the marks of now."""
        equity = maintenance = 0.0
        holders, balances = self.holders.get(pool.version, {}), self.balances.get(pool.version, {})
        for key, row in pool.positions.items():
            slopes = holders[key[0]].slopes(np.array([row], dtype=np.int64))
            equity, maintenance = equity + float(slopes.equity[0]), maintenance + float(slopes.maintenance[0])
        for asset, row in pool.balances.items():
            equity += float(balances[asset].slopes(np.array([row], dtype=np.int64)).value[0])
        return equity, maintenance

    # --- one pool ------------------------------------------------------------------------------------------------

    def arm(self, pool: Pool) -> bool:
        """Set the ranges of a pool to what its figures allow now; whether it is to be nominated.

        What is summed for each factor: the most that the room to either line shrinks by when the mark rises, and
        when it falls, by a part of it; and the notional that funding is paid on.
        """
        index = pool.index
        lower, upper = self.views[LOWER][index], self.views[UPPER][index]
        has_upper = upper == upper
        if not has_upper and not self.always[index]:
            armed = self._arm_plain(pool, lower)
            if armed is not None:
                return armed
        equity = maintenance = gross = spread_equity = spread_maintenance = drift = 0.0
        slopes: dict[Factor, tuple[float, float, float, float, float, bool]] = {}
        is_safe, is_forced = not self.always[index], False
        if pool.positions:
            holders_of = self.holders[pool.version]
            for key, row in pool.positions.items():
                holders = holders_of[key[0]]
                sizes, bases = holders.views
                size = sizes[row]
                paid = size * holders.funding + bases[row]
                value = holders.value_of(size) if holders.is_inverse else size * holders.mark
                notional = -value if value < 0 else value
                step, least, most = holders.rates_around(notional)
                margin = notional * holders.rates[step] - holders.deductions[step]
                gross += (notional + abs(paid) + abs(size * holders.funding) + holders.slack) * holders.worth
                factor = holders.factor
                if holders.is_simple:
                    equity += value - paid
                    maintenance += margin
                    rise, fall = lower * most * notional - value, value - lower * least * notional
                    rise_upper = fall_upper = 0.0
                    if has_upper:
                        rise_upper, fall_upper = value - upper * least * notional, upper * most * notional - value
                    forced = False
                else:
                    worth, power = holders.worth, len(holders.path)
                    equity += (value - paid) * worth
                    maintenance += margin * worth
                    notional *= worth
                    spread_equity += notional * SPREAD[power + 1] + abs(paid) * worth * SPREAD[power]
                    spread_maintenance += most * notional * GROWTH[power] + margin * worth * SPREAD[power]
                    # Funding is reserved for as a move of the instrument's own mark.
                    notional *= GROWTH[power]
                    rise = fall = rise_upper = fall_upper = notional / FUNDING_SHIFT
                    is_safe &= holders.is_priced
                    forced = is_forced = True
                    for other in holders.path:
                        slopes[other] = (*slopes.get(other, _LEVEL)[:5], True)
                known = slopes.get(factor)
                if known is None:
                    slopes[factor] = (rise, fall, rise_upper, fall_upper, notional, forced)
                else:
                    slopes[factor] = (rise + known[0], fall + known[1], rise_upper + known[2], fall_upper + known[3],
                                      notional + known[4], forced or known[5])
        if pool.balances:
            balances_of = self.balances[pool.version]
            for asset, row in pool.balances.items():
                balances = balances_of[asset]
                amounts, seen = balances.views
                amount = amounts[row]
                value = balances.gross_of(amount, seen[row])
                path = balances.path
                gross += (abs(amount) + balances.slack) * balances.worth
                equity += balances.value_of(value)
                if balances.bears:
                    drift += abs(value) * GROWTH[len(path)] * balances.rate
                if not path:
                    continue
                is_safe &= balances.is_priced
                if len(path) == 1:
                    least, most = balances.shares_around(value)
                    factor, known = path[0], slopes.get(path[0], _LEVEL)
                    rise, fall = -least * value, most * value
                    slopes[factor] = (known[0] + rise, known[1] + fall, known[2] + fall, known[3] + rise,
                                      known[4], known[5])
                else:
                    spread_equity += abs(value) * SPREAD[2]
                    is_forced = True
                    for other in path:
                        slopes[other] = (*slopes.get(other, _LEVEL)[:5], True)
        tolerance = TOLERANCES * RELATIVE_TOLERANCE * (abs(equity) + NOTIONAL_PER_MAINTENANCE * maintenance + gross)
        room, risk = equity - lower * maintenance - tolerance, spread_equity + lower * spread_maintenance
        room_upper = risk_upper = 0.0
        if has_upper:
            room_upper = upper * maintenance - equity - tolerance
            risk_upper = spread_equity + upper * spread_maintenance
        for rise, fall, rise_upper, fall_upper, paying, _ in slopes.values():
            reserved = paying / FUNDING_SHIFT
            risk += max(rise, fall, reserved)
            if has_upper:
                risk_upper += max(rise_upper, fall_upper, reserved)
        token = self._token_view[index] = self._token_view[index] + TOKEN_STEP
        if drift:
            nearest = min(room, room_upper) if has_upper else room
            is_safe &= self._arm_time(nearest, drift, token, is_safe)
            room *= 1 - TIME_PART
            room_upper *= 1 - TIME_PART
        radius = REACH
        is_safe = is_safe and room > 0.0 and (not has_upper or room_upper > 0.0)
        if is_safe:
            if room < risk * radius:
                radius = room / risk
            if has_upper and room_upper < risk_upper * radius:
                radius = room_upper / risk_upper
            radius -= radius * SHORTENING + FINENESS
            is_safe = radius > FINENESS
        if not is_safe:
            for factor in slopes:
                factor.low.push(math.inf, token, self.tokens)
            return True
        fallen = 1 / (1 + radius) if is_forced else 1 - radius
        for factor, (rise, fall, rise_upper, fall_upper, paying, forced) in slopes.items():
            low, high, offset = factor.mark * fallen, factor.mark * (1 + radius), factor.offset
            if not forced:
                free = -paying / FUNDING_SHIFT
                if fall <= free and (not has_upper or fall_upper <= free):
                    low = factor.mark * (1 - REACH)
                if rise <= free and (not has_upper or rise_upper <= free):
                    high = factor.mark * (1 + REACH)
            # `Edge.push`, without the price of a call.
            edge, end = factor.low, low - offset
            heappush(edge.heap, (-end, token))
            if end > edge.bound:
                edge.bound = end
            if len(edge.heap) > HEAP_MIN and edge.is_full():
                edge.merge_recent(self.tokens)
            edge, end = factor.high, -high - offset
            heappush(edge.heap, (-end, token))
            if end > edge.bound:
                edge.bound = end
            if len(edge.heap) > HEAP_MIN and edge.is_full():
                edge.merge_recent(self.tokens)
        return False

    def _arm_plain(self, pool: Pool, lower: float) -> bool | None:
        """`arm` of the most common pool, without sums by factor; None where it is another.

        One line, linear positions on different instruments settled in the valuation asset, balances in it.
        """
        equity = maintenance = gross = risk = 0.0
        sides: list[tuple[Factor, bool]] = []
        holders_of, balances_of = self.holders[pool.version], self.balances[pool.version]
        for asset, row in pool.balances.items():
            balances = balances_of[asset]
            if balances.path or balances.bears:
                return None
            amount = balances.views[0][row]
            value = amount * balances.worth
            gross += abs(value) + balances.slack * balances.worth
            equity += value if balances.is_whole else balances.value_of(value)
        for (instrument, _, side), row in pool.positions.items():
            holders = holders_of[instrument]
            if not holders.is_simple or side != "net":
                return None
            sizes, bases = holders.views
            size = sizes[row]
            value, funding = size * holders.mark, size * holders.funding
            paid = funding + bases[row]
            notional = abs(value)
            equity += value - paid
            gross += notional + abs(paid) + abs(funding) + holders.slack
            if notional < holders.first_ends:
                margin = holders.rates[0] * notional
                maintenance += margin
                change = value - lower * margin
                worst = -change if value < 0.0 else change
                most = lower * margin
            else:
                step, least, most = holders.rates_around(notional)
                maintenance += notional * holders.rates[step] - holders.deductions[step]
                least, most = lower * least * notional, lower * most * notional
                worst = most - value if value < 0.0 else value - least
            # The other side is free where it gains at least what funding may take (`FUNDING_SHIFT`), else another road.
            reserved = notional / FUNDING_SHIFT
            if most > notional - reserved:
                return None
            risk += worst if worst > reserved else reserved
            sides.append((holders.factor, value < 0.0))
        room = equity - lower * maintenance - TOLERANCES * RELATIVE_TOLERANCE * (
            abs(equity) + NOTIONAL_PER_MAINTENANCE * maintenance + gross)
        token = self._token_view[pool.index] = self._token_view[pool.index] + TOKEN_STEP
        radius = 0.0
        if room > 0.0:
            radius = (REACH if room >= risk * REACH else room / risk) * (1 - SHORTENING) - FINENESS
        if not radius > FINENESS:
            for factor, _ in sides:
                factor.low.push(math.inf, token, self.tokens)
            return True
        tokens = self.tokens
        for factor, is_short in sides:
            mark, offset = factor.mark, factor.offset
            # `Edge.push`, without the price of a call.
            edge, end = factor.low, mark * (1 - (REACH if is_short else radius)) - offset
            heap = edge.heap
            heappush(heap, (-end, token))
            if end > edge.bound:
                edge.bound = end
            if len(heap) > HEAP_MIN and edge.is_full():
                edge.merge_recent(tokens)
            edge, end = factor.high, -mark * (1 + (radius if is_short else REACH)) - offset
            heap = edge.heap
            heappush(heap, (-end, token))
            if end > edge.bound:
                edge.bound = end
            if len(heap) > HEAP_MIN and edge.is_full():
                edge.merge_recent(tokens)
        return False

    def _arm_time(self, room: float, drift: float, token: int, is_safe: bool) -> bool:
        """Until when interest may eat its part of the headroom; whether it may at all."""
        is_safe = is_safe and room > 0.0
        # The clock of floats is good to a quarter of a microsecond.
        deadline = self.now + TIME_PART * room / drift * (1 - SHORTENING) - 1e-6 if is_safe else -math.inf
        self.time.push(-deadline, token, self.tokens)
        return is_safe


    # --- many pools ----------------------------------------------------------------------------------------------

    def arm_many(self, indexes: Ints) -> Ints:
        """Set the ranges of many pools, each given once, in vectors; those that are to be nominated."""
        parts = [self._arm_together(indexes[start:start + TOGETHER_MAX])
                 for start in range(0, len(indexes), TOGETHER_MAX)]
        return np.concatenate(parts) if parts else indexes

    def _arm_together(self, indexes: Ints) -> Ints:
        together = Together(len(indexes))
        place = np.full(len(self.tokens), -1, dtype=np.int32)
        place[indexes] = np.arange(len(indexes), dtype=np.int32)
        together.lower, together.upper = self.lines[:, indexes]
        together.is_safe = ~self.always[indexes]
        for tables in self.holders.values():
            for holders in tables.values():
                together.add_holders(holders, place)
        for tables_of_balances in self.balances.values():
            for balances in tables_of_balances.values():
                together.add_balances(balances, place)
        together.close()
        tokens = self.tokens[indexes] + TOKEN_STEP
        self.tokens[indexes] = tokens
        moved = np.flatnonzero(together.drift)
        if len(moved):
            self.time.merge(self.tokens, -together.deadlines(moved, self.now), tokens[moved])
        for factor, places, low, high in together.ranges():
            factor.low.merge(self.tokens, low - factor.offset, tokens[places])
            safe = together.is_safe[places]
            factor.high.merge(self.tokens, -high[safe] - factor.offset, tokens[places[safe]])
        return indexes[~together.is_safe]


class Slopes(NamedTuple):
    """What rows of one factor add to the slopes of their pools, as in `Pools.arm`; places are among the pools armed."""

    places: Ints
    rise: Floats
    fall: Floats
    rise_upper: Floats
    fall_upper: Floats
    paying: Floats
    forced: bool


class Together:
    """The sums of `Pools.arm` for many pools at once."""

    def __init__(self, count: int) -> None:
        self.lower: Floats = np.zeros(count)
        self.upper: Floats = np.zeros(count)
        self.is_safe: npt.NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
        self.is_forced: npt.NDArray[np.bool_] = np.zeros(count, dtype=np.bool_)
        (self.equity, self.maintenance, self.gross, self.spread_equity, self.spread_maintenance,
         self.drift) = np.zeros((6, count))
        self.radius: Floats = np.zeros(count)
        self.room: Floats = np.zeros(count)
        self._slopes: dict[Factor, list[Slopes]] = {}
        self._sides: list[tuple[Factor, Ints, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]] = []

    def add_holders(self, holders: Holders, place: npt.NDArray[np.int32]) -> None:
        """Add the positions of pools that have a place."""
        rows, places = _rows_of(holders, place)
        if not len(rows):
            return
        slopes = holders.slopes(rows)
        np.add.at(self.equity, places, slopes.equity)
        np.add.at(self.maintenance, places, slopes.maintenance)
        np.add.at(self.gross, places, slopes.gross)
        lower, upper, value = self.lower[places], self.upper[places], slopes.value
        notional = np.abs(value)
        least, most = slopes.rate_least * notional, slopes.rate_most * notional
        if holders.is_simple:
            self._add(holders.factor, Slopes(places, lower * most - value, value - lower * least,
                                             value - upper * least, upper * most - value, notional, False))
            return
        power = len(holders.path)
        np.add.at(self.spread_equity, places, notional * SPREAD[power + 1]
                  + np.abs(slopes.value - slopes.equity) * SPREAD[power])
        np.add.at(self.spread_maintenance, places, most * GROWTH[power] + slopes.maintenance * SPREAD[power])
        paying = notional * GROWTH[power]
        reserved = paying / FUNDING_SHIFT
        self._add(holders.factor, Slopes(places, reserved, reserved, reserved, reserved, paying, True))
        self._force(holders.path, places, holders.is_priced)

    def add_balances(self, balances: Balances, place: npt.NDArray[np.int32]) -> None:
        """Add the balances of pools that have a place."""
        rows, places = _rows_of(balances, place)
        if not len(rows):
            return
        slopes, path = balances.slopes(rows), balances.path
        # A pool has one balance of an asset, so they do not meet.
        self.equity[places] += slopes.value
        self.gross[places] += slopes.magnitude
        if balances.bears:
            self.drift[places] += np.abs(slopes.gross) * GROWTH[len(path)] * balances.rate
        if len(path) == 1:
            rise, fall = -slopes.kept_least * slopes.gross, slopes.kept_most * slopes.gross
            self._add(path[0], Slopes(places, rise, fall, fall, rise, np.zeros_like(rise), False))
            if not balances.is_priced:
                self.is_safe[places] = False
        elif path:
            self.spread_equity[places] += np.abs(slopes.gross) * SPREAD[2]
            self._force(path, places, balances.is_priced)

    def _add(self, factor: Factor, slopes: Slopes) -> None:
        self._slopes.setdefault(factor, []).append(slopes)

    def _force(self, path: tuple[Factor, ...], places: Ints, is_priced: bool) -> None:
        self.is_forced[places] = True
        if not is_priced:
            self.is_safe[places] = False
        level = np.zeros(len(places))
        for factor in path:
            self._add(factor, Slopes(places, level, level, level, level, level, True))

    def close(self) -> None:
        """Work out by how much the marks of each pool may move, once all rows are added."""
        lower, upper, maintenance = self.lower, self.upper, self.maintenance
        tolerance = TOLERANCES * RELATIVE_TOLERANCE * (
            np.abs(self.equity) + NOTIONAL_PER_MAINTENANCE * maintenance + self.gross)
        has_upper = ~np.isnan(upper)
        room = self.equity - lower * maintenance - tolerance
        room_upper = np.where(has_upper, upper * maintenance - self.equity - tolerance, np.inf)
        risk = self.spread_equity + lower * self.spread_maintenance
        risk_upper = np.where(has_upper, self.spread_equity + upper * self.spread_maintenance, 0.0)
        for factor, slopes in self._slopes.items():
            places, at = np.unique(np.concatenate([row.places for row in slopes]), return_inverse=True)
            rise, fall, rise_upper, fall_upper, paying = (
                np.bincount(at, np.concatenate([row[column] for row in slopes]), len(places)) for column in range(1, 6))
            reserved = paying / FUNDING_SHIFT
            bounded = has_upper[places]
            risk[places] += np.maximum(np.maximum(rise, fall), reserved)
            risk_upper[places] += np.where(bounded, np.maximum(np.maximum(rise_upper, fall_upper), reserved), 0.0)
            held = np.bincount(at, np.concatenate([np.full(len(row.places), float(row.forced)) for row in slopes]),
                               len(places)) > 0
            self._sides.append((factor, places, ~held & (fall <= -reserved) & (~bounded | (fall_upper <= -reserved)),
                                ~held & (rise <= -reserved) & (~bounded | (rise_upper <= -reserved))))
        self.room = np.minimum(room, room_upper)
        left = np.where(self.drift > 0, 1 - TIME_PART, 1.0)
        radius = np.full(len(room), REACH)
        for of, to in ((room * left, risk), (room_upper * left, risk_upper)):
            near = (of > 0.0) & (of < to * radius)
            radius[near] = of[near] / to[near]
        radius -= radius * SHORTENING + FINENESS
        self.radius = radius
        self.is_safe &= (self.room > 0.0) & (radius > FINENESS)

    def deadlines(self, places: Ints, now: float) -> Floats:
        """Until when interest may eat its part of the headroom, in seconds of log time."""
        room = self.room[places]
        return np.where(self.is_safe[places],
                        now + TIME_PART * room / self.drift[places] * (1 - SHORTENING) - 1e-6, -np.inf)

    def ranges(self) -> Iterator[tuple[Factor, Ints, Floats, Floats]]:
        """(factor, places, low ends, high ends) of all ranges; without end below where a pool is not safe."""
        for factor, places, low_free, high_free in self._sides:
            radius = self.radius[places]
            fallen = np.where(self.is_forced[places], 1 / (1 + radius), 1 - radius)
            low = np.where(low_free, 1 - REACH, fallen) * factor.mark
            high = (1 + np.where(high_free, REACH, radius)) * factor.mark
            yield factor, places, np.where(self.is_safe[places], low, np.inf), high


def _rows_of(columns: Columns, place: npt.NDArray[np.int32]) -> tuple[Ints, Ints]:
    """(rows, places) of the rows whose pool has a place."""
    places = place.take(columns.pool[:columns.count])
    rows = np.flatnonzero(places >= 0)
    return rows, places[rows].astype(np.int64)



def _view(tokens: Ints) -> memoryview[int]:
    return cast("memoryview[int]", memoryview(cast("bytes", tokens)))
