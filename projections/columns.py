"""Columns: positions and balances as rows of numbers, and what one row or many are worth at the marks of now.

Columns are floats and only screen; slopes are bounded within the reach of a safe range (`REACH`), outward. Nothing
here knows who holds a row, and nothing here decides.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ledger.amounts import ONE, ZERO
from ledger.clearing_house import ClearingHouse
from ledger.risk.collateral import ValueTiers
from ledger.risk.requirement import Bracket, Brackets
from ledger.rulebook import Rulebook
from projections.safe_range import REACH, Factor, Floats

_Figure = TypeVar("_Figure", float, Floats)

# What counts as the same, relative to the sizes that a pool's figures are made of: floats err by far less.
RELATIVE_TOLERANCE: Final = 1e-9
SECONDS_PER_YEAR: Final = 31_536_000.0
# The column of pools that free rows belong to.
NOBODY: Final = 0
# A product of k factors, each within r of where it stands, moves by at most SPREAD[k] x r, since r is within reach
# and such a bound is convex in r; at most it becomes GROWTH[k] times as large.
GROWTH: Final = [(1 + REACH) ** power for power in range(4)]
SPREAD: Final = [(growth - 1) / REACH for growth in GROWTH]

_ANY: Final = Brackets(variant="brackets:1", brackets=[Bracket(floor=ZERO, initial=ONE, maintenance=ONE)])


class Columns:
    """Rows of equal columns; a row keeps its place while it is held. Each row belongs to a pool.

    `views` are the same cells for one row at a time: an index into an array costs several times as much. A free row
    is all zero and belongs to nobody.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.free: list[int] = []
        self.pool: npt.NDArray[np.int32] = np.zeros(16, dtype=np.int32)
        self.cells: Floats = np.zeros((width, 16))
        self.views = views_of(self.cells)

    def take(self, pool: int) -> int:
        """A row for a pool, all zero."""
        if self.free:
            row = self.free.pop()
        else:
            if self.count == len(self.pool):
                more = max(16, self.count // 4)
                self.pool = np.concatenate([self.pool, np.zeros(more, dtype=np.int32)])
                self.cells = np.concatenate([self.cells, np.zeros((len(self.cells), more))], axis=1)
                self.views = views_of(self.cells)
            row = self.count
            self.count += 1
        self.pool[row] = pool
        return row

    def fill(self, pools: Sequence[int], *columns: Sequence[float]) -> None:
        """Take the first rows of empty columns, all at once: the pools they are of, and their cells by column."""
        self.count = len(pools)
        room = max(16, self.count)
        self.pool = np.zeros(room, dtype=np.int32)
        self.cells = np.zeros((len(self.cells), room))
        self.pool[:self.count] = pools
        for place, column in enumerate(columns):
            self.cells[place, :self.count] = column
        self.views = views_of(self.cells)

    def release(self, row: int) -> None:
        """Give a row back."""
        self.cells[:, row], self.pool[row] = 0.0, NOBODY
        self.free.append(row)


def views_of(cells: Floats) -> list[memoryview[float]]:
    """The columns of cells, for one row at a time."""
    return [cast("memoryview[float]", memoryview(column)) for column in cells]


# Columns of positions (`ARMED`: the mark that the pool's ranges were last set at) and of balances.
SIZE, BASIS, ARMED = range(3)
AMOUNT, SEEN = range(2)


class PositionSlopes(NamedTuple):
    """Positions at their marks, in the valuation asset, and bounds on their maintenance rates within reach."""

    value: Floats
    equity: Floats
    maintenance: Floats
    gross: Floats
    rate_least: Floats
    rate_most: Floats


class Holders(Columns):
    """All positions on one instrument under one rulebook."""

    def __init__(self, instrument: str, rules: Rulebook, factor: Factor) -> None:
        super().__init__(3)
        self.instrument, self.rules, self.factor = instrument, rules, factor
        requirement = rules.requirement(instrument)
        # Other blocks are not screened (`Rulebook.is_screened`): any columns do for them.
        brackets = requirement if isinstance(requirement, Brackets) else _ANY
        self.floors = [float(floor) for floor in brackets.floors]
        self.rates = [float(step[2]) for step in brackets.steps]
        self.deductions = [float(step[3]) for step in brackets.steps]
        # The first bracket ends, for all notionals within reach of less than this.
        self.first_ends = self.floors[1] / (1 + REACH) if len(self.floors) > 1 else np.inf
        self._arrays = np.array(self.floors), np.array(self.rates), np.array(self.deductions)
        self.is_inverse = False
        self.mark = self.funding = self.worth = self.slack = self.contract = self.quantum = 0.0
        # The factors that the settlement asset is valued by; a linear contract without any is simple.
        self.path: tuple[Factor, ...] = ()
        self.is_simple = self.is_priced = True

    def set(self, house: ClearingHouse, factors: tuple[Factor, ...]) -> None:
        """Take over the market as it stands; `factors` value the settlement asset."""
        market = house.markets[self.instrument]
        asset = market.settlement_asset
        self.is_inverse = market.contract_type == "inverse"
        self.mark = float(market.mark or 0)
        self.funding = float(market.funding_index)
        price = _worth(house, self.rules, asset)
        self.worth = price or 0.0
        self.path = factors
        self.is_priced = market.mark is not None and (price is not None or not factors)
        self.is_simple = not factors and not self.is_inverse
        self.contract, self.quantum = float(market.contract_size), float(house.assets[asset].quantum)
        # Funding is rounded by less than a quantum a position; the gross magnitude allows for it.
        self.slack = self.quantum / RELATIVE_TOLERANCE

    def value_of(self, size: _Figure) -> _Figure:
        """Signed value at the mark, in the settlement asset; without a mark an inverse one is worth nothing yet."""
        if self.is_inverse:
            return size * (-1 / self.mark if self.mark else 0.0)
        return size * self.mark

    def rates_around(self, notional: float) -> tuple[int, float, float]:
        """(bracket, least and most maintenance rate within reach) of a notional in the settlement asset."""
        if notional < self.first_ends:
            rate = self.rates[0]
            return 0, rate, rate
        floors, rates = self.floors, self.rates
        return (bisect_right(floors, notional) - 1, rates[bisect_right(floors, notional * (1 - REACH)) - 1],
                rates[bisect_right(floors, notional * (1 + REACH)) - 1])

    def slopes(self, rows: npt.NDArray[np.int64]) -> PositionSlopes:
        """The figures of many positions at once."""
        floors, rates, deductions = self._arrays
        size, basis = self.cells[SIZE].take(rows), self.cells[BASIS].take(rows)
        value, worth = self.value_of(size), self.worth
        notional = np.abs(value)
        step = floors.searchsorted(notional, "right") - 1
        paid = size * self.funding + basis
        return PositionSlopes(
            value * worth, (value - paid) * worth, (notional * rates.take(step) - deductions.take(step)) * worth,
            (notional + np.abs(size) * abs(self.funding) + np.abs(basis) + self.slack) * worth,
            rates.take(floors.searchsorted(notional * (1 - REACH), "right") - 1),
            rates.take(floors.searchsorted(notional * (1 + REACH), "right") - 1))


class BalanceSlopes(NamedTuple):
    """Balances at their prices, in the valuation asset, and bounds on the share of them that is kept within reach."""

    gross: Floats
    value: Floats
    magnitude: Floats
    kept_least: Floats
    kept_most: Floats


class Balances(Columns):
    """All balances of one asset under one rulebook.

    Where the asset bears interest, `SEEN` is the index (of debts or of what is held) at the account's last event.
    """

    def __init__(self, asset: str, rules: Rulebook) -> None:
        super().__init__(2)
        self.asset, self.rules = asset, rules
        block = rules.collateral(asset)
        self.parts = [(float(floor), np.inf if ceiling is None else float(ceiling), float(kept))
                      for floor, ceiling, kept in (block.parts if isinstance(block, ValueTiers) else ())]
        self.floors = [floor for floor, _, _ in self.parts] or [0.0]
        self.shares = [kept for _, _, kept in self.parts] or [1.0]
        # Kept whole, whatever its value.
        self.is_whole = self.shares == [1.0]
        self._arrays = np.array(self.floors), np.array(self.shares)
        self.worth = self.slack = 0.0
        self.path: tuple[Factor, ...] = ()
        self.is_priced = True
        self.bears = False
        self.borrow_index = self.lend_index = 0.0
        # The faster of both rates, a second.
        self.rate = 0.0

    def set(self, house: ClearingHouse, factors: tuple[Factor, ...]) -> None:
        """Take over the asset's price as it stands; `factors` value it."""
        price = _worth(house, self.rules, self.asset)
        self.worth, self.path, self.is_priced = price or 0.0, factors, price is not None or not factors
        self.bears = self.asset in house.bearing
        if self.bears:
            listed = house.assets[self.asset]
            rates = listed.rates[-1]
            self.rate = max(abs(float(rates.borrow_rate)), abs(float(rates.lend_rate))) / SECONDS_PER_YEAR
            # Interest is rounded by less than a quantum a balance.
            self.slack = float(listed.quantum) / RELATIVE_TOLERANCE
            self.set_time(house)

    def set_time(self, house: ClearingHouse) -> None:
        """Take over the interest indexes at log time."""
        self.borrow_index, self.lend_index = map(float, house.assets[self.asset].indexes(house.log_time))

    def gross_of(self, amount: float, seen: float) -> float:
        """The value of one balance before haircuts."""
        if self.bears:
            index = self.borrow_index if amount < 0 else self.lend_index
            amount += amount * (index - seen) / SECONDS_PER_YEAR
        return amount * self.worth

    def value_of(self, gross: float) -> float:
        """The value of one balance after haircuts."""
        if gross <= 0 or self.is_whole:
            return gross
        value = 0.0
        for floor, ceiling, kept in self.parts:
            value += min(max(gross - floor, 0.0), ceiling - floor) * kept
        return value

    def shares_around(self, gross: float) -> tuple[float, float]:
        """The least and the most of one more unit of gross value that is kept, within reach of where it stands."""
        if gross <= 0 or self.is_whole:
            return 1.0, 1.0
        floors, shares = self.floors, self.shares
        return (shares[bisect_right(floors, gross * (1 + REACH)) - 1],
                shares[bisect_right(floors, gross * (1 - REACH)) - 1])

    def slopes(self, rows: npt.NDArray[np.int64]) -> BalanceSlopes:
        """The figures of many balances at once."""
        amount, seen = self.cells[AMOUNT].take(rows), self.cells[SEEN].take(rows)
        magnitude = (np.abs(amount) + self.slack) * self.worth
        if self.bears:
            index = np.where(amount < 0, self.borrow_index, self.lend_index)
            amount = amount + amount * (index - seen) / SECONDS_PER_YEAR
        gross = amount * self.worth
        if self.is_whole:
            whole = np.ones_like(gross)
            return BalanceSlopes(gross, gross, magnitude, whole, whole)
        value = np.minimum(gross, 0.0)
        for floor, ceiling, kept in self.parts:
            value += np.minimum(np.maximum(gross - floor, 0.0), ceiling - floor) * kept
        floors, shares = self._arrays
        least, most = (np.where(gross > 0, shares.take(np.maximum(
            floors.searchsorted(gross * reached, "right") - 1, 0)), 1.0) for reached in (1 + REACH, 1 - REACH))
        return BalanceSlopes(gross, value, magnitude, least, most)


def _worth(house: ClearingHouse, rules: Rulebook, asset: str) -> float | None:
    price: Decimal | None = house.price_of(rules)(asset)
    return None if price is None else float(price)
