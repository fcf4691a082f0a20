"""Arming: how far the marks under a pool may move before its status can change, and its ranges set to that.

A pool's headroom to the lines of its state is shared out over its factors: all may move by the same part r of their
marks, at once and in the worst direction, and no line is reached. Every slope is bounded over the whole reach and
every bound is widened outward (docs/decisions: safe ranges). Two roads, one pool or many in vectors, hold the same
bounds. This file nominates by number; it decides nothing and knows no events.
"""

from __future__ import annotations

import math
from heapq import heappush
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from ledger.account import PositionKey
from projections.columns import (
    ARMED,
    GROWTH,
    RELATIVE_TOLERANCE,
    SPREAD,
    Balances,
    Holders,
    views_of,
)
from projections.headroom_together import NOTIONAL_PER_MAINTENANCE, TIME_PART, TOLERANCES, Together
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

# Pools armed together in vectors at most, so that the columns on the way stay small.
TOGETHER_MAX: Final = 1 << 18

# The part of its headroom that a pool keeps back where it can, for small changes of its rows (`Pools.absorb`).
KEPT_BACK: Final = 0.25
# What changes may add to the tolerance, as a part of the notional that changed: more than a thousand tolerances.
TOLERANCE_ADDED: Final = 1e-5

# Rows of `Pools.lines`: the two lines, how far marks may move, and the headroom kept back (below zero: none).
LOWER, UPPER, RADIUS, SLACK = range(4)
NONE_KEPT: Final = -1.0
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
        self.lines: Floats = np.zeros((4, 16))
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
            self.lines = np.concatenate([self.lines, np.zeros((4, more))], axis=1)
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
        self.views[SLACK][index] = NONE_KEPT
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
                sizes, bases, _ = holders.views
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
        absorbs = True
        sides: list[tuple[Factor, bool]] = []
        holders_of, balances_of = self.holders[pool.version], self.balances[pool.version]
        for asset, row in pool.balances.items():
            balances = balances_of[asset]
            if balances.path or balances.bears:
                return None
            amount = balances.views[0][row]
            value = amount * balances.worth
            gross += abs(value) + balances.slack * balances.worth
            if balances.is_whole:
                equity += value
            else:
                equity, absorbs = equity + balances.value_of(value), False
        for (instrument, _, side), row in pool.positions.items():
            holders = holders_of[instrument]
            if not holders.is_simple or side != "net":
                return None
            sizes, bases, marks = holders.views
            size = sizes[row]
            marks[row] = holders.mark
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
                absorbs = False
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
            spent = room * (1 - KEPT_BACK) if absorbs else room
            radius = (REACH if spent >= risk * REACH else spent / risk) * (1 - SHORTENING) - FINENESS
        if not radius > FINENESS:
            for factor, _ in sides:
                factor.low.push(math.inf, token, self.tokens)
            return True
        if absorbs:
            self.views[RADIUS][pool.index], self.views[SLACK][pool.index] = radius, room - risk * radius
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

    def absorb(self, pool: Pool, cost: float) -> bool:
        """Whether the headroom that a pool kept back covers a loss of equity; if so it is taken from it."""
        slack = self.views[SLACK]
        if not slack[pool.index] > cost:
            return False
        slack[pool.index] -= cost
        return True

    def absorb_fill(self, pool: Pool, row: int, holders: Holders, *, after: float, change: float, price: float,
                    fee: float) -> bool:
        """`absorb` of a fill that leaves a position on its side and in the first bracket, wherever marks go meanwhile.

        Sizes in contracts, signed; price and fee in the settlement asset. Within the ranges the position's loss
        differs by at most |change| x |mark - price| and the margin on what was added; on the side where it gains,
        what is left of it gains more than what was closed would have.
        """
        before, armed = after - change, holders.views[ARMED][row]
        if not before * after > 0 or not abs(after) * holders.contract * armed < holders.first_ends:
            return False
        moved, reach = abs(change) * holders.contract, self.views[RADIUS][pool.index] * armed
        cost = moved * (reach + abs(price - armed) + TOLERANCE_ADDED * armed) + max(fee, 0.0) + holders.quantum
        if abs(after) > abs(before):
            cost += self.views[LOWER][pool.index] * holders.rates[0] * moved * (armed + reach)
        return self.absorb(pool, cost)

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
        together.lower, together.upper = self.lines[:UPPER + 1, indexes]
        self.lines[SLACK, indexes] = NONE_KEPT
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



def _view(tokens: Ints) -> memoryview[int]:
    return cast("memoryview[int]", memoryview(cast("bytes", tokens)))
