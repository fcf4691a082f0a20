"""The book: all pools in columns, and the nomination of those whose status may have changed.

A mark reprices the columns of its instrument's holders, and of the pools whose collateral or settlement it values,
in one vector pass; pools within a tolerance of a line that matters in their state are nominated. Columns are
floats and only screen: every bound is widened outward, and the ledger decides on exact figures. The book may name
too many pools, never too few (a property test holds it to evaluating everybody). It never writes events.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection
from decimal import Decimal
from typing import Final, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ledger.account import AccountState, Position, PositionKey
from ledger.amounts import ONE, ZERO
from ledger.clearing_house import ClearingHouse
from ledger.events import (
    AssetListed,
    FundingIndexMoved,
    InstrumentListed,
    InterestRateSet,
    MarketSettled,
    PriceRecorded,
    ProvisionalMarkSet,
    Recorded,
)
from ledger.market import MarketState
from ledger.nomination import PoolPlace
from ledger.postings import pool_name
from ledger.risk.collateral import ValueTiers
from ledger.risk.requirement import Bracket, Brackets
from ledger.rulebook import Rulebook

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_Figure = TypeVar("_Figure", float, Floats)

# A figure summed from increments errs by at most 2^-53 of the largest partial sum each time. So a pool is summed from
# its rows whenever its account changes, and all pools are before increments could add up to the tolerance: after so
# many reprices (2^16 x 2^-53 is below 10^-11), and when a mark has moved so far that an error made at the one price
# might weigh at the other.
REPRICES_MAX: Final = 1 << 16
MARK_DRIFT_MAX: Final = 8.0
RELATIVE_TOLERANCE: Final = 1e-9
# Interest moves equity with time. Between two passes over an asset's balances it may drift by this part of them, half
# of the tolerance.
DRIFT_MAX: Final = RELATIVE_TOLERANCE / 2
SECONDS_PER_YEAR: Final = 31_536_000.0
# Bound on notional per maintenance margin that the tolerance allows for (a maintenance rate of 0.1 %).
NOTIONAL_PER_MAINTENANCE: Final = 1_000.0


def _views(cells: Floats) -> list[memoryview[float]]:
    return [cast("memoryview[float]", memoryview(column)) for column in cells]


class Columns:
    """Rows of equal columns; a row keeps its place while it is held. Each row belongs to a pool.

    `views` are the same cells for one row at a time: an index into an array costs several times as much. A free row
    is all zero and belongs to nobody.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.free: list[int] = []
        self.pool: Ints = np.zeros(16, dtype=np.int64)
        self.cells: Floats = np.zeros((width, 16))
        self.views = _views(self.cells)

    def take(self, pool: int) -> int:
        """A row for a pool, all zero."""
        if self.free:
            row = self.free.pop()
        else:
            if self.count == len(self.pool):
                self.pool = np.concatenate([self.pool, np.zeros_like(self.pool)])
                self.cells = np.concatenate([self.cells, np.zeros_like(self.cells)], axis=1)
                self.views = _views(self.cells)
            row = self.count
            self.count += 1
        self.pool[row] = pool
        return row

    def release(self, row: int) -> None:
        """Give a row back."""
        self.cells[:, row], self.pool[row] = 0.0, NOBODY
        self.free.append(row)


# Columns of positions and of balances; the last of each is what the row adds to its pool's gross magnitude.
SIZE, BASIS, EQUITY, MAINTENANCE, POSITION_GROSS = range(5)
AMOUNT, SEEN, VALUE, BALANCE_GROSS = range(4)
# Columns of pools.
POOL_EQUITY, POOL_MAINTENANCE, POOL_GROSS, LOWER, UPPER = range(5)
# The column of pools that free rows belong to.
NOBODY: Final = 0


_ANY: Final = Brackets(variant="brackets:1", brackets=[Bracket(floor=ZERO, initial=ONE, maintenance=ONE)])


class Holders(Columns):
    """All positions on one instrument under one rulebook. Equity and maintenance are what they add to their pools."""

    def __init__(self, instrument: str, rules: Rulebook) -> None:
        super().__init__(5)
        self.instrument, self.rules = instrument, rules
        requirement = rules.requirement(instrument)
        # Other blocks are not screened (`Rulebook.is_screened`): any columns do for them.
        brackets = requirement if isinstance(requirement, Brackets) else _ANY
        self.floors = np.array([float(floor) for floor in brackets.floors])
        self.rates = np.array([float(step[2]) for step in brackets.steps])
        self.deductions = np.array([float(step[3]) for step in brackets.steps])
        self._scalars = (self.floors.tolist(), self.rates.tolist(), self.deductions.tolist())
        self.is_inverse = False
        self.mark = self.funding = self.worth = self.slack = 0.0

    def contribution(self, size: float, basis: float) -> tuple[float, float]:
        """(equity, maintenance margin) of one position: `contributions`, without the price of columns of one row."""
        floors, rates, deductions = self._scalars
        value = self._value(size)
        notional = abs(value)
        step = bisect_right(floors, notional) - 1
        return ((value - size * self.funding - basis) * self.worth,
                (notional * rates[step] - deductions[step]) * self.worth)

    def contributions(self, size: Floats, basis: Floats) -> tuple[Floats, Floats]:
        """(equity, maintenance margin) of positions, in the valuation asset."""
        value = self._value(size)
        notional = np.abs(value)
        step = self.floors.searchsorted(notional, "right") - 1
        maintenance = notional * self.rates.take(step) - self.deductions.take(step)
        return (value - size * self.funding - basis) * self.worth, maintenance * self.worth

    def _value(self, size: _Figure) -> _Figure:
        """Signed value at the mark, of one size or of many; without a mark an inverse one is worth nothing yet."""
        if self.is_inverse:
            return size * (-1 / self.mark if self.mark else 0.0)
        return size * self.mark


class Balances(Columns):
    """All balances of one asset under one rulebook. Value is what they add to their pools, after haircuts.

    Where the asset bears interest, `SEEN` is the index (of debts or of what is held) at the account's last event.
    """

    def __init__(self, asset: str, rules: Rulebook) -> None:
        super().__init__(4)
        self.asset, self.rules = asset, rules
        block = rules.collateral(asset)
        self.parts = [(float(floor), np.inf if ceiling is None else float(ceiling), float(kept))
                      for floor, ceiling, kept in (block.parts if isinstance(block, ValueTiers) else ())]
        self.worth = self.slack = 0.0
        self.bears = False
        self.borrow_index = self.lend_index = 0.0

    def index(self, amount: float) -> float:
        """The index that an amount accrues by, now."""
        return self.borrow_index if amount < 0 else self.lend_index

    def contribution(self, amount: float, seen: float) -> float:
        """Value of one balance: `contributions`, without the price of columns of one row."""
        if self.bears:
            amount += amount * (self.index(amount) - seen) / SECONDS_PER_YEAR
        gross = amount * self.worth
        value = min(gross, 0.0)
        for floor, ceiling, kept in self.parts:
            value += min(max(gross - floor, 0.0), ceiling - floor) * kept
        return value

    def contributions(self, amount: Floats, seen: Floats) -> Floats:
        """Value after haircuts, in the valuation asset."""
        if self.bears:
            index = np.where(amount < 0, self.borrow_index, self.lend_index)
            amount = amount + amount * (index - seen) / SECONDS_PER_YEAR
        gross = amount * self.worth
        value = np.minimum(gross, 0.0)
        for floor, ceiling, kept in self.parts:
            value += np.minimum(np.maximum(gross - floor, 0.0), ceiling - floor) * kept
        return value


class Entry:
    """An account in the book: its state as last seen, the rulebook version its rows stand under, and its rows."""

    __slots__ = ("balances", "pools", "positions", "state", "version")

    def __init__(self, state: AccountState, version: str) -> None:
        self.state, self.version = state, version
        self.pools: dict[str, int] = {}
        # position -> (columns, row); pool -> asset -> (columns, row)
        self.positions: dict[PositionKey, tuple[Holders, int]] = {}
        self.balances: dict[str, dict[str, tuple[Balances, int]]] = {}


class Book:
    """The nominator of a clearing house: see the file's own words."""

    def __init__(self) -> None:
        self._reset()
        self._nominated: dict[PoolPlace, None] = {}

    def _reset(self) -> None:
        self._places: list[PoolPlace] = [("", "")]
        self._free: list[int] = []
        # A line that does not matter is nan, which no comparison meets.
        self._pools: Floats = np.zeros((5, 16))
        self._views = _views(self._pools)
        self._always: npt.NDArray[np.bool_] = np.zeros(16, dtype=np.bool_)
        self._holders: dict[str, dict[str, Holders]] = {}
        self._balances: dict[str, dict[str, Balances]] = {}
        self._entries: dict[str, Entry] = {}
        self._rules: dict[str, Rulebook] = {}
        # rulebook version -> its lines: warning, warning end, call, liquidation
        self._lines: dict[str, tuple[float, float, float, float]] = {}
        # instrument -> (asset that its mark values, rulebook version, instruments that settle in the asset)
        self._priced: dict[str, list[tuple[str, str, list[str]]]] = {}
        self._dirty: dict[str, None] = {}
        self._mark_times: dict[str, int] = {}
        # instrument -> the mark and funding index that its holders' columns stand at
        self._moved: dict[str, tuple[Decimal | None, Decimal]] = {}
        # instrument -> its magnitude when all pools were last summed
        self._anchors: dict[str, float] = {}
        self._reprices = 0
        # asset -> (log time of its last pass, nanoseconds until the next is due)
        self._accrued: dict[str, tuple[int, float]] = {}

    # --- the nominator -------------------------------------------------------------------------------------------

    def applied(self, recorded: Recorded, house: ClearingHouse) -> None:
        """Follow one event: reprice what a market's event moves, note whose account changed."""
        event = recorded.event
        stream = recorded.originator_id
        if stream.startswith("account:"):
            self._house = house
            self._dirty[stream[8:]] = None
        elif isinstance(event, PriceRecorded):
            if event.kind == "mark":
                self._flush(house)
                self._price(event.instrument, house)
        elif isinstance(event, (ProvisionalMarkSet, FundingIndexMoved, MarketSettled)):
            self._flush(house)
            self._price(event.instrument, house)
        elif isinstance(event, (InstrumentListed, AssetListed, InterestRateSet)):
            # Listing may change the path that values an asset; rates, what its balances drift by.
            self.rules_changed(house)

    def rules_changed(self, house: ClearingHouse) -> None:
        """Build everything anew and nominate every pool."""
        self._reset()
        self._house = house
        for instrument, market in house.markets.items():
            self._mark_times[instrument] = market.mark_time
            self._anchors[instrument] = _magnitude(market)
        for account in house.accounts:
            self._dirty[account] = None
        self._flush(house)
        self._nominated.update(dict.fromkeys(self.places()))

    def take(self) -> Collection[PoolPlace]:
        """The pools nominated since last asked."""
        if self._dirty:
            self._flush(self._house)
        if self._accrued:
            self._accrue(self._house)
        found, self._nominated = self._nominated, {}
        return found

    def places(self) -> set[PoolPlace]:
        """All pools that the book keeps."""
        return {(account, pool) for account, entry in self._entries.items() for pool in entry.pools}

    def figures(self, account: str, pool: str) -> tuple[float, float]:
        """(margin equity, maintenance margin) as the columns have them, for comparison."""
        index = self._entries[account].pools[pool]
        return float(self._pools[POOL_EQUITY, index]), float(self._pools[POOL_MAINTENANCE, index])

    # --- interest ------------------------------------------------------------------------------------------------

    def _accrue(self, house: ClearingHouse) -> None:
        """Bring the balances of assets that bear interest up to log time, where they may have drifted."""
        for asset, (last, period) in self._accrued.items():
            if house.log_time - last >= period:
                for balances in self._balances.get(asset, {}).values():
                    self._reprice_balances(balances, house, False)
                self._accrued[asset] = _next_pass(house, asset)

    # --- marks ---------------------------------------------------------------------------------------------------

    def _price(self, instrument: str, house: ClearingHouse) -> None:
        market = house.markets[instrument]
        before = self._mark_times.get(instrument, 0)
        was_stale = house.rules().oracle.is_stale(mark_time=before, now=house.log_time)
        self._mark_times[instrument] = market.mark_time
        moved = (market.mark, market.funding_index)
        if self._moved.get(instrument) == moved and not was_stale:
            return
        self._moved[instrument] = moved
        self._reprices += 1
        anchor, magnitude = self._anchors[instrument], _magnitude(market)
        if not anchor / MARK_DRIFT_MAX <= magnitude <= anchor * MARK_DRIFT_MAX:
            # The rows first, the sums from them; what is screened on the way may only be too much.
            self._reprice(instrument, house, was_stale)
            self._sum_anew(house)
        elif self._reprices >= REPRICES_MAX:
            self._sum_anew(house)
        self._reprice(instrument, house, was_stale)

    def _reprice(self, instrument: str, house: ClearingHouse, was_stale: bool) -> None:
        for holders in self._holders.get(instrument, {}).values():
            self._reprice_holders(holders, house, was_stale)
        if instrument not in self._priced:
            self._priced[instrument] = [
                (asset, version, [name for name, market in house.markets.items()
                                  if market.settlement_asset == asset])
                for asset in house.assets for version, rules in self._rules.items()
                if instrument in house.path_of(rules.valuation_asset, asset)]
        for asset, version, settling in self._priced[instrument]:
            balances = self._balances.get(asset, {}).get(version)
            if balances is not None:
                self._reprice_balances(balances, house, was_stale)
            for name in settling:
                settled = self._holders.get(name, {}).get(version)
                if settled is not None:
                    self._reprice_holders(settled, house, was_stale)

    def _reprice_balances(self, balances: Balances, house: ClearingHouse, everybody: bool) -> None:
        self._set_worth(balances, house)
        count = balances.count
        if not count:
            return
        value = balances.contributions(balances.cells[AMOUNT, :count], balances.cells[SEEN, :count])
        pools = balances.pool[:count]
        # A pool has one balance of an asset, so the increments do not meet.
        self._pools[POOL_EQUITY, pools] += value - balances.cells[VALUE, :count]
        balances.cells[VALUE, :count] = value
        self._screen(pools, everybody)

    @staticmethod
    def _set_worth(balances: Balances, house: ClearingHouse) -> None:
        balances.worth = _worth(house, balances.rules, balances.asset)
        if balances.asset in house.bearing:
            listed = house.assets[balances.asset]
            balances.bears = True
            balances.borrow_index, balances.lend_index = map(float, listed.indexes(house.log_time))
            # Interest is rounded by less than a quantum a balance.
            balances.slack = float(listed.quantum) / RELATIVE_TOLERANCE

    def _reprice_holders(self, holders: Holders, house: ClearingHouse, everybody: bool) -> None:
        self._set_mark(holders, house)
        count = holders.count
        if not count:
            return
        cells, pools = holders.cells, holders.pool[:count]
        equity, maintenance = holders.contributions(cells[SIZE, :count], cells[BASIS, :count])
        # A pool may hold an instrument twice (hedge mode), so increments are added one by one.
        np.add.at(self._pools[POOL_EQUITY], pools, equity - cells[EQUITY, :count])
        np.add.at(self._pools[POOL_MAINTENANCE], pools, maintenance - cells[MAINTENANCE, :count])
        cells[EQUITY, :count], cells[MAINTENANCE, :count] = equity, maintenance
        self._screen(pools, everybody)

    @staticmethod
    def _set_mark(holders: Holders, house: ClearingHouse) -> None:
        market = house.markets[holders.instrument]
        asset = market.settlement_asset
        holders.is_inverse = market.contract_type == "inverse"
        holders.mark = float(market.mark or 0)
        holders.funding = float(market.funding_index)
        holders.worth = _worth(house, holders.rules, asset)
        # Funding is rounded by less than a quantum a position; the gross magnitude allows for it.
        holders.slack = float(house.assets[asset].quantum) / RELATIVE_TOLERANCE

    def _screen(self, pools: Ints, everybody: bool) -> None:
        if everybody:
            hits = pools
        else:
            # `take` is several times faster than an index over two axes, and what it gives is ours to compute in.
            equity, maintenance, tolerance, lower, upper = self._pools.take(pools, axis=1)
            tolerance += np.abs(equity)
            tolerance += NOTIONAL_PER_MAINTENANCE * maintenance
            tolerance *= RELATIVE_TOLERANCE
            lower *= maintenance
            lower += tolerance
            upper *= maintenance
            upper -= tolerance
            hits = pools[(equity < lower) | (equity >= upper) | self._always.take(pools)]
        for index in hits.tolist():
            if index != NOBODY:
                self._nominated[self._places[index]] = None

    def _sum_anew(self, house: ClearingHouse) -> None:
        """All pools from all rows, and their gross magnitude at the marks of now."""
        self._reprices = 0
        self._anchors = {instrument: _magnitude(market) for instrument, market in house.markets.items()}
        self._pools[:3] = 0.0
        for tables in self._holders.values():
            for holders in tables.values():
                rows = holders.cells[:, :holders.count]
                rows[POSITION_GROSS] = (np.abs(rows[BASIS]) + holders.slack) * holders.worth
                for total, column in ((POOL_EQUITY, EQUITY), (POOL_MAINTENANCE, MAINTENANCE),
                                      (POOL_GROSS, POSITION_GROSS)):
                    np.add.at(self._pools[total], holders.pool[:holders.count], rows[column])
        for tables_of_balances in self._balances.values():
            for balances in tables_of_balances.values():
                rows = balances.cells[:, :balances.count]
                rows[BALANCE_GROSS] = (np.abs(rows[AMOUNT]) + balances.slack) * balances.worth
                for total, column in ((POOL_EQUITY, VALUE), (POOL_GROSS, BALANCE_GROSS)):
                    np.add.at(self._pools[total], balances.pool[:balances.count], rows[column])

    def _sum_pool(self, entry: Entry, pool: str) -> None:
        """One pool from its rows, so that no error outlives what it came from."""
        equity = maintenance = gross = 0.0
        for key, (holders, row) in entry.positions.items():
            if pool_name(*key) == pool:
                views = holders.views
                equity += views[EQUITY][row]
                maintenance += views[MAINTENANCE][row]
                gross += views[POSITION_GROSS][row]
        for balances, row in entry.balances.get(pool, _NONE).values():
            views = balances.views
            equity += views[VALUE][row]
            gross += views[BALANCE_GROSS][row]
        views, index = self._views, entry.pools[pool]
        views[POOL_EQUITY][index], views[POOL_MAINTENANCE][index], views[POOL_GROSS][index] = equity, maintenance, gross

    # --- accounts ------------------------------------------------------------------------------------------------

    def _flush(self, house: ClearingHouse) -> None:
        for account in self._dirty:
            self._sync(house.accounts[account], house)
        self._dirty.clear()

    def _sync(self, state: AccountState, house: ClearingHouse) -> None:
        """Bring an account's rows up to its state, and screen its pools."""
        rules = house.rules(state)
        version = _version(rules)
        entry = self._entries.get(state.account)
        if entry is not None and (entry.version != version or not state.is_margined):
            self._forget(entry)
            entry = None
        if not state.is_margined:
            return
        if entry is None:
            entry = self._enter(state, version, rules)
            old = None
        else:
            old, entry.state = entry.state, state
        if old is None or not _has_same_pools(old, state):
            names = state.pools()
            for pool in names:
                if pool not in entry.pools:
                    entry.pools[pool] = self._place((state.account, pool))
        else:
            names = None
        moved = False
        if old is None or old.positions is not state.positions:
            self._sync_positions(entry, old, state, house)
            moved = True
        if old is None or old.balances is not state.balances or (self._accrued and old.touched != state.touched):
            self._sync_balances(entry, state, house)
            moved = True
        if names is not None:
            for pool in entry.pools.keys() - names:
                self._release((state.account, pool), entry.pools.pop(pool))
        for pool, index in entry.pools.items():
            if moved:
                self._sum_pool(entry, pool)
            self._set_lines(state, pool, index, version)

    def _enter(self, state: AccountState, version: str, rules: Rulebook) -> Entry:
        if version not in self._rules:
            self._rules[version] = rules
            lines = rules.thresholds
            self._lines[version] = (float(lines.warning), float(lines.warning_end), float(lines.call),
                                    float(lines.liquidation))
            self._priced.clear()
        entry = self._entries[state.account] = Entry(state, version)
        return entry

    def _place(self, place: PoolPlace) -> int:
        if self._free:
            index = self._free.pop()
            self._places[index] = place
        else:
            index = len(self._places)
            self._places.append(place)
            if index == self._pools.shape[1]:
                self._pools = np.concatenate([self._pools, np.zeros_like(self._pools)], axis=1)
                self._views = _views(self._pools)
                self._always = np.concatenate([self._always, np.zeros_like(self._always)])
        self._pools[:, index] = 0.0
        return index

    def _release(self, place: PoolPlace, index: int) -> None:
        self._always[index] = False
        self._free.append(index)
        self._nominated.pop(place, None)

    def _forget(self, entry: Entry) -> None:
        """Take an account out of the book."""
        for holders, row in entry.positions.values():
            holders.release(row)
        for held in entry.balances.values():
            for balances, row in held.values():
                balances.release(row)
        for pool, index in entry.pools.items():
            self._release((entry.state.account, pool), index)
        del self._entries[entry.state.account]

    def _sync_positions(self, entry: Entry, old: AccountState | None, state: AccountState,
                        house: ClearingHouse) -> None:
        before = _NO_POSITIONS if old is None else old.positions
        for key, position in state.positions.items():
            if before.get(key) is not position:
                self._set_position(entry, key, position, house)
        if len(entry.positions) != len(state.positions):
            for key in [key for key in entry.positions if key not in state.positions]:
                holders, row = entry.positions.pop(key)
                holders.release(row)

    def _set_position(self, entry: Entry, key: PositionKey, position: Position, house: ClearingHouse) -> None:
        found = entry.positions.get(key)
        if found is None:
            tables = self._holders.setdefault(key[0], {})
            holders = tables.get(entry.version)
            if holders is None:
                holders = tables[entry.version] = Holders(key[0], self._rules[entry.version])
                self._set_mark(holders, house)
            row = holders.take(entry.pools[pool_name(*key)])
            entry.positions[key] = (holders, row)
        else:
            holders, row = found
        exact_size = position.size * house.markets[key[0]].contract_size
        size, basis = float(exact_size), float(position.cost - exact_size * position.funding_index)
        views = holders.views
        views[SIZE][row], views[BASIS][row] = size, basis
        views[EQUITY][row], views[MAINTENANCE][row] = holders.contribution(size, basis)
        views[POSITION_GROSS][row] = (abs(basis) + holders.slack) * holders.worth

    def _sync_balances(self, entry: Entry, state: AccountState, house: ClearingHouse) -> None:
        for pool, held in state.balances.items():
            known = entry.balances.get(pool)
            if known is None:
                known = entry.balances[pool] = {}
            for asset, amount in held.items():
                found = known.get(asset)
                if found is None:
                    balances = self._balances_of(asset, entry.version, house)
                    found = known[asset] = (balances, balances.take(entry.pools[pool]))
                balances, row = found
                views, figure = balances.views, float(amount)
                if views[AMOUNT][row] != figure or balances.bears:
                    seen = float(house.assets[asset].indexes(state.touched)[0 if figure < 0 else 1]) if (
                        balances.bears) else 0.0
                    views[AMOUNT][row], views[SEEN][row] = figure, seen
                    views[VALUE][row] = balances.contribution(figure, seen)
                    views[BALANCE_GROSS][row] = (abs(figure) + balances.slack) * balances.worth
            if len(known) != len(held):
                for asset in [asset for asset in known if asset not in held]:
                    balances, row = known.pop(asset)
                    balances.release(row)
        if len(entry.balances) != len(state.balances):
            for pool in [pool for pool in entry.balances if pool not in state.balances]:
                for balances, row in entry.balances.pop(pool).values():
                    balances.release(row)

    def _balances_of(self, asset: str, version: str, house: ClearingHouse) -> Balances:
        tables = self._balances.setdefault(asset, {})
        balances = tables.get(version)
        if balances is None:
            balances = tables[version] = Balances(asset, self._rules[version])
            self._set_worth(balances, house)
            if balances.bears:
                self._accrued.setdefault(asset, _next_pass(house, asset))
        return balances

    def _set_lines(self, state: AccountState, pool: str, index: int, version: str) -> None:
        """The two lines that matter in the pool's state: below the lower or at the upper it is nominated."""
        lower, warning_end, call_line, liquidation = self._lines[version]
        upper, always = math.nan, not self._rules[version].is_screened
        if pool in state.warned or pool in state.due or state.liquidations or state.calls:
            call, running = state.calls.get(pool), state.liquidations.get(pool)
            if running is not None:
                lower, upper = 0.0, float(running.stop_level)
            elif call is not None:
                lower, upper = liquidation, float(call.cure_level)
            elif pool in state.warned:
                lower, upper = call_line, warning_end
            always = always or pool in state.due or running is not None
        views = self._views
        views[LOWER][index], views[UPPER][index] = lower, upper
        if always or self._always[index]:
            self._always[index] = always
        # `_screen`, without the price of columns of one row.
        equity, maintenance = views[POOL_EQUITY][index], views[POOL_MAINTENANCE][index]
        tolerance = RELATIVE_TOLERANCE * (abs(equity) + NOTIONAL_PER_MAINTENANCE * maintenance
                                          + views[POOL_GROSS][index])
        if always or equity < lower * maintenance + tolerance or equity >= upper * maintenance - tolerance:
            self._nominated[self._places[index]] = None


_NONE: Final[dict[str, tuple[Balances, int]]] = {}
_NO_POSITIONS: Final[dict[PositionKey, Position]] = {}


def _has_same_pools(old: AccountState, state: AccountState) -> bool:
    """Whether two states have the same pools for sure: what `AccountState.pools` looks at has not changed."""
    return (old.warned is state.warned and old.calls is state.calls and old.due is state.due
            and old.liquidations is state.liquidations and old.positions.keys() == state.positions.keys()
            and old.balances.keys() == state.balances.keys())


def _version(rules: Rulebook) -> str:
    return f"{rules.name}:{rules.version}"


def _magnitude(market: MarketState) -> float:
    """How large the numbers are that a position's value is made of, a contract."""
    mark = float(market.mark or 0)
    if market.contract_type == "inverse" and mark:
        mark = 1 / mark
    return mark + abs(float(market.funding_index))


def _next_pass(house: ClearingHouse, asset: str) -> tuple[int, float]:
    """Log time, and for how many nanoseconds from then on an asset's balances drift by less than they may."""
    rates = house.assets[asset].rates[-1]
    fastest = max(abs(float(rates.borrow_rate)), abs(float(rates.lend_rate)))
    return house.log_time, DRIFT_MAX * SECONDS_PER_YEAR * 1e9 / fastest if fastest else math.inf


def _worth(house: ClearingHouse, rules: Rulebook, asset: str) -> float:
    price = house.price_of(rules)(asset)
    return 0.0 if price is None else float(price)
