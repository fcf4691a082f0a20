"""Headroom of many pools together: the sums that ranges follow from, in vectors (`projections.headroom`).

The same bounds as for one pool. Places count the pools at hand. This file keeps nothing and nominates nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from projections.columns import GROWTH, RELATIVE_TOLERANCE, SPREAD, Balances, Columns, Holders
from projections.safe_range import FINENESS, FUNDING_SHIFT, REACH, SHORTENING, Factor, Floats, Ints

# Bound on notional per maintenance margin that the tolerance allows for (a maintenance rate of 0.1 %).
NOTIONAL_PER_MAINTENANCE: Final = 1_000.0
# Headroom below so many tolerances is none: what floats err by where a pool is armed, and at most 2.25 times the
# rounding of funding and interest where its ranges end.
TOLERANCES: Final = 4.0
# The part of its headroom that a pool with balances that bear interest leaves to time.
TIME_PART: Final = 0.25


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
