"""The book: all pools in columns, and the nomination of those whose status may have changed.

For every pool it keeps a safe range of each mark under it. A mark costs two comparisons where it leaves nobody's
range; pools whose range was left are valued anew and armed at the marks of now, and nominated where they stand at a
line. Columns are floats and only screen: every bound is widened outward, and the ledger decides on exact figures. The
book may name too many pools, never too few (property tests hold it to evaluating everybody). It never writes events.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import Final

import numpy as np

from ledger.account import AccountState, Position, PositionKey
from ledger.amounts import NANOSECONDS
from ledger.clearing_house import ClearingHouse
from ledger.events import (
    AssetListed,
    Deposited,
    Event,
    FillPosted,
    FundingIndexMoved,
    FundingSettled,
    InstrumentListed,
    InterestRateSet,
    MarketSettled,
    PriceRecorded,
    ProvisionalMarkSet,
    Recorded,
    Withdrawn,
)
from ledger.nomination import PoolPlace
from ledger.postings import CROSS, pool_name
from ledger.rulebook import Rulebook
from projections.columns import AMOUNT, BASIS, RELATIVE_TOLERANCE, SEEN, SIZE, Balances, Holders
from projections.headroom import LOWER, UPPER, Pool, Pools
from projections.headroom_together import NOTIONAL_PER_MAINTENANCE
from projections.safe_range import TOKEN_POOL, Factor

__all__ = ["NOTIONAL_PER_MAINTENANCE", "RELATIVE_TOLERANCE", "Book"]

# Pools are armed in vectors where they are more than these and a part of all rows, which a pass has to look at.
VECTOR_MIN: Final = 48
VECTOR_ROWS: Final = 2_000
# States that are remembered to be compared with.
SYNCED_MAX: Final = 4_096


class Entry:
    """An account in the book: the rulebook version its rows stand under, and its pools."""

    __slots__ = ("pools", "version")

    def __init__(self, version: str) -> None:
        self.version = version
        self.pools: tuple[Pool, ...] = ()

    def pool(self, name: str) -> Pool | None:
        """One of its pools, the cross pool first."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        return None


class Book:
    """The nominator of a clearing house: see the file's own words.

    `vector_min`: above how many pools, and a part of all rows, they are armed in vectors.
    """

    def __init__(self, *, vector_min: int = VECTOR_MIN) -> None:
        self._vector_min = vector_min
        self._reset()
        self._nominated: dict[PoolPlace, None] = {}

    def _reset(self) -> None:
        self._pools = Pools()
        self._entries: dict[str, Entry] = {}
        # Each key of a position once, for all who hold one there.
        self._keys: dict[PositionKey, PositionKey] = {}
        # States that rows stand for, of some accounts of late: what has not changed since need not be written again.
        self._synced: dict[str, AccountState] = {}
        self._rules: dict[str, Rulebook] = {}
        # rulebook version -> its lines: warning, warning end, call, liquidation
        self._lines: dict[str, tuple[float, float, float, float]] = {}
        # instrument -> the columns that its market or its mark is part of
        self._priced: dict[str, list[Holders | Balances]] = {}
        self._dirty: dict[str, None] = {}
        # Accounts whose rows are behind their states, by what the headroom kept back covers.
        self.behind: dict[str, None] = {}
        # Pools to be armed, by number: their range was left, or their rows changed.
        self._left: dict[int, None] = {}
        self._mark_times: dict[str, int] = {}
        # instrument -> the mark and funding index last seen
        self._moved: dict[str, tuple[Decimal | None, Decimal]] = {}
        # Columns of assets that bear interest, and the log time that they stand at.
        self._bearing: list[Balances] = []
        self._accrued = -1

    # --- the nominator -------------------------------------------------------------------------------------------

    def applied(self, recorded: Recorded, house: ClearingHouse) -> None:
        """Follow one event: whose range a market's event left, whose account changed."""
        event = recorded.event
        stream = recorded.originator_id
        if stream.startswith("account:"):
            self._house = house
            account = stream[8:]
            if account not in self._dirty:
                if self._is_absorbed(account, event):
                    self.behind[account] = None
                else:
                    self._dirty[account] = None
        elif isinstance(event, PriceRecorded):
            if event.kind == "mark":
                self._price(event.instrument, house)
        elif isinstance(event, (ProvisionalMarkSet, FundingIndexMoved, MarketSettled)):
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
        self._enter_all(house)
        if self._bearing:
            self._accrue(house)
        self._arm_pools(range(1, len(self._pools.members)))
        self._left.clear()
        self._nominated = {
            (account, pool.name): None for account, entry in self._entries.items() for pool in entry.pools}

    def take(self) -> Collection[PoolPlace]:
        """The pools nominated since last asked."""
        if self._dirty or self._left or self._bearing:
            self._arm(self._house)
        found, self._nominated = self._nominated, {}
        return found

    def places(self) -> set[PoolPlace]:
        """All pools that the book keeps."""
        return {(account, pool.name) for account, entry in self._entries.items() for pool in entry.pools}

    def figures(self, account: str, pool: str) -> tuple[float, float]:
        """(margin equity, maintenance margin) as the columns have them, for comparison. KeyError: no such pool."""
        if account in self.behind:
            self._sync(self._house.accounts[account], self._house)
        found = self._entries[account].pool(pool)
        if found is None:
            raise KeyError(pool)
        return self._pools.figures(found)

    # --- marks and time ------------------------------------------------------------------------------------------

    def _price(self, instrument: str, house: ClearingHouse) -> None:
        self._house = house
        market = house.markets[instrument]
        before = self._mark_times.get(instrument, 0)
        self._mark_times[instrument] = market.mark_time
        moved = (market.mark, market.funding_index)
        # Where a mark was stale, who waits for a fresh one stands at a line, and is armed with an empty range.
        if self._moved.get(instrument) == moved and not (
                house.rules().oracle.is_stale(mark_time=before, now=house.log_time)):
            return
        self._moved[instrument] = moved
        for columns in self._columns_priced_by(instrument, house):
            self._set(columns, house)
        factor = self._pools.factors.get(instrument)
        if factor is not None:
            self._leave(factor.move(float(market.mark or 0), float(market.funding_index)))

    def _columns_priced_by(self, instrument: str, house: ClearingHouse) -> list[Holders | Balances]:
        found = self._priced.get(instrument)
        if found is None:
            found = self._priced[instrument] = []
            for version, tables in self._pools.holders.items():
                valuation = self._rules[version].valuation_asset
                found += [holders for name, holders in tables.items() if name == instrument
                          or instrument in house.path_of(valuation, house.markets[name].settlement_asset)]
            for version, tables_of_balances in self._pools.balances.items():
                valuation = self._rules[version].valuation_asset
                found += [balances for asset, balances in tables_of_balances.items()
                          if instrument in house.path_of(valuation, asset)]
        return found

    def _set(self, columns: Holders | Balances, house: ClearingHouse) -> None:
        asset = (columns.asset if isinstance(columns, Balances)
                 else house.markets[columns.instrument].settlement_asset)
        path = house.path_of(columns.rules.valuation_asset, asset)
        columns.set(house, tuple(self._factor(name, house) for name in path))

    def _factor(self, instrument: str, house: ClearingHouse) -> Factor:
        factor = self._pools.factors.get(instrument)
        if factor is None:
            factor = self._pools.factors[instrument] = Factor()
            market = house.markets[instrument]
            factor.mark, factor.funding = float(market.mark or 0), float(market.funding_index)
            factor.is_inverse = market.contract_type == "inverse"
            self._moved[instrument] = (market.mark, market.funding_index)
        return factor

    def _leave(self, tokens: list[int]) -> None:
        if len(tokens) > VECTOR_MIN:
            came = np.array(tokens, dtype=np.int64)
            pools = came & TOKEN_POOL
            self._left.update(dict.fromkeys(pools[self._pools.tokens[pools] == came].tolist()))
            return
        current = self._pools.tokens
        for token in tokens:
            if current[token & TOKEN_POOL] == token:
                self._left[token & TOKEN_POOL] = None

    def _accrue(self, house: ClearingHouse) -> None:
        """Bring the balances that bear interest up to log time, and find the pools that it may have moved."""
        if house.log_time == self._accrued:
            return
        self._accrued = house.log_time
        for balances in self._bearing:
            balances.set_time(house)
        pools = self._pools
        pools.now = house.log_time / NANOSECONDS
        if pools.time.bound > -pools.now:
            self._leave(pools.time.leave(-pools.now))

    def _arm(self, house: ClearingHouse) -> None:
        """Arm all pools whose range was left or whose rows changed, and nominate those that stand at a line."""
        if self._bearing:
            self._accrue(house)
        for account in self._dirty:
            self._sync(house.accounts[account], house)
        self._dirty.clear()
        pools, left = self._pools, self._left
        if self.behind:
            for index in list(left):
                member = pools.members[index]
                if member is not None and member.account in self.behind:
                    self._sync(house.accounts[member.account], house)
        if not left:
            return
        self._nominate(self._arm_pools([index for index in left if pools.members[index] is not None]))
        left.clear()

    def _arm_pools(self, indexes: Sequence[int]) -> list[int]:
        """Arm pools, in vectors where they are many; those that stand at a line."""
        pools = self._pools
        if len(indexes) > self._vector_min and len(indexes) > self._vector_min + pools.rows() // VECTOR_ROWS:
            at_a_line: list[int] = pools.arm_many(np.fromiter(indexes, np.int64, len(indexes))).tolist()
            return at_a_line
        return [index for index in indexes if (pool := pools.members[index]) is not None and pools.arm(pool)]

    def _nominate(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            pool = self._pools.members[index]
            if pool is not None:
                self._nominated[pool.account, pool.name] = None

    # --- accounts ------------------------------------------------------------------------------------------------

    def _is_absorbed(self, account: str, event: Event) -> bool:
        """Whether an account's ranges hold after an event all the same, so that its rows may stay behind.

        Of accounts with the cross pool alone; the headroom kept back pays for what the event may cost.
        """
        entry = self._entries.get(account)
        if entry is None or len(entry.pools) != 1:
            return False
        pool, pools = entry.pools[0], self._pools
        if type(event) is FillPosted:
            row = pool.positions.get((event.instrument, event.mode, event.position))
            if row is None or event.position != "net" or event.charged_asset != event.settlement_asset:
                return False
            change = float(event.size)
            return event.liquidation_order_id is None and pools.absorb_fill(
                pool, row, pools.holders[entry.version][event.instrument], after=float(event.position_size),
                change=change if event.side == "buy" else -change, price=float(event.price), fee=float(event.fee))
        if type(event) is FundingSettled:
            return pools.absorb(pool, sum(abs(float(item.rounding)) for item in event.items))
        if type(event) is Deposited or type(event) is Withdrawn:
            if event.asset not in pool.balances:
                return False
            balances = pools.balances[entry.version][event.asset]
            lost = float(event.amount) * balances.worth if type(event) is Withdrawn else 0.0
            return not balances.path and pools.absorb(pool, lost)
        return False

    def _sync(self, state: AccountState, house: ClearingHouse) -> None:
        """Bring an account's rows up to its state; its pools are to be armed."""
        self.behind.pop(state.account, None)
        rules = house.rules(state)
        version = _version(rules)
        entry = self._entries.get(state.account)
        if entry is not None and (entry.version != version or not state.is_margined):
            self._forget(state.account, entry)
            entry = None
        if not state.is_margined:
            return
        if entry is None:
            entry = self._enter(state.account, version, rules)
        old = self._synced.get(state.account)
        if old is None and len(self._synced) >= SYNCED_MAX:
            self._synced.clear()
        self._synced[state.account] = state
        names = None
        if old is None or not _has_same_pools(old, state):
            names = state.pools()
            added = [self._pools.add(state.account, name, version) for name in names if entry.pool(name) is None]
            if added:
                entry.pools = tuple(sorted((*entry.pools, *added), key=lambda pool: pool.name != CROSS))
        if old is None or old.positions is not state.positions:
            self._sync_positions(entry, old, state, house)
        if old is None or old.balances is not state.balances or (self._bearing and old.touched != state.touched):
            self._sync_balances(entry, state, house)
        if names is not None and len(entry.pools) != len(names):
            for pool in entry.pools:
                if pool.name not in names:
                    self._drop(pool)
            entry.pools = tuple(pool for pool in entry.pools if pool.name in names)
        for pool in entry.pools:
            self._set_lines(state, pool)
            self._left[pool.index] = None

    def _enter(self, account: str, version: str, rules: Rulebook) -> Entry:
        if version not in self._rules:
            self._rules[version] = rules
            lines = rules.thresholds
            self._lines[version] = (float(lines.warning), float(lines.warning_end), float(lines.call),
                                    float(lines.liquidation))
            self._pools.holders[version], self._pools.balances[version] = {}, {}
        entry = self._entries[account] = Entry(version)
        return entry

    def _enter_all(self, house: ClearingHouse) -> None:
        """Enter every account of an empty book as `_sync` would one by one, rows written column by column."""
        filled: defaultdict[Holders | Balances, tuple[array[int], array[float], array[float]]] = defaultdict(
            lambda: (array("i"), array("d"), array("d")))
        versions: dict[str | None, tuple[str, Rulebook]] = {}
        for name, state in house.accounts.items():
            if not state.is_margined:
                continue
            known = versions.get(state.rulebook)
            if known is None:
                rules = house.rules(state)
                known = versions[state.rulebook] = _version(rules), rules
            version, rules = known
            # By the name that the mapping holds: a state that was only read now brings another of its own.
            entry = self._enter(name, version, rules)
            # The cross pool comes first.
            entry.pools = tuple(self._pools.add(name, pool_of, version) for pool_of in state.pools())
            holders_of, balances_of = self._pools.holders[version], self._pools.balances[version]
            for key, position in state.positions.items():
                pool = entry.pool(CROSS if key[1] == CROSS else pool_name(*key))
                if pool is None:
                    continue
                holders = holders_of.get(key[0]) or self._holders_of(key[0], version, house)
                pools, sizes, bases = filled[holders]
                pool.positions[self._keys.setdefault(key, key)] = len(pools)
                pools.append(pool.index)
                exact_size, index = position.size * house.markets[key[0]].contract_size, position.funding_index
                sizes.append(float(exact_size))
                bases.append(float(position.cost - exact_size * index if index else position.cost))
            for pool in entry.pools:
                for asset, amount in state.balances.get(pool.name, _NO_BALANCES).items():
                    balances = balances_of.get(asset) or self._balances_of(asset, version, house)
                    pools, amounts, seen = filled[balances]
                    pool.balances[balances.asset] = len(pools)
                    pools.append(pool.index)
                    amounts.append(float(amount))
                    seen.append(self._seen(balances, state, amounts[-1], house))
                self._set_lines(state, pool)
        for columns, rows in filled.items():
            columns.fill(*rows)

    def _drop(self, pool: Pool) -> None:
        self._pools.drop(pool)
        self._nominated.pop((pool.account, pool.name), None)

    def _forget(self, account: str, entry: Entry) -> None:
        """Take an account out of the book."""
        for pool in entry.pools:
            for key, row in pool.positions.items():
                self._pools.holders[entry.version][key[0]].release(row)
            for asset, row in pool.balances.items():
                self._pools.balances[entry.version][asset].release(row)
            self._drop(pool)
        del self._entries[account]
        self._synced.pop(account, None)

    def _sync_positions(self, entry: Entry, old: AccountState | None, state: AccountState,
                        house: ClearingHouse) -> None:
        before = _NO_POSITIONS if old is None else old.positions
        after = state.positions
        for key, position in after.items():
            if before.get(key) is not position:
                pool = entry.pool(pool_name(*key))
                if pool is not None:
                    self._set_position(pool, key, position, house)
        if sum(len(pool.positions) for pool in entry.pools) != len(after):
            for pool in entry.pools:
                for key in [key for key in pool.positions if key not in after]:
                    self._pools.holders[entry.version][key[0]].release(pool.positions.pop(key))

    def _set_position(self, pool: Pool, key: PositionKey, position: Position, house: ClearingHouse) -> None:
        holders = (self._pools.holders[pool.version].get(key[0])
                   or self._holders_of(key[0], pool.version, house))
        row = pool.positions.get(key)
        if row is None:
            row = pool.positions[self._keys.setdefault(key, key)] = holders.take(pool.index)
        exact_size = position.size * house.markets[key[0]].contract_size
        views = holders.views
        views[SIZE][row], views[BASIS][row] = float(exact_size), float(
            position.cost - exact_size * position.funding_index)

    def _sync_balances(self, entry: Entry, state: AccountState, house: ClearingHouse) -> None:
        for pool in entry.pools:
            held, known = state.balances.get(pool.name, _NO_BALANCES), pool.balances
            for asset, amount in held.items():
                row = known.get(asset)
                balances = self._pools.balances[entry.version].get(asset)
                if balances is None:
                    balances = self._balances_of(asset, entry.version, house)
                if row is None:
                    row = known[balances.asset] = balances.take(pool.index)
                figure = balances.views[AMOUNT][row] = float(amount)
                if balances.bears:
                    balances.views[SEEN][row] = self._seen(balances, state, figure, house)
            if len(known) != len(held):
                for asset in [asset for asset in known if asset not in held]:
                    self._pools.balances[entry.version][asset].release(known.pop(asset))

    @staticmethod
    def _seen(balances: Balances, state: AccountState, amount: float, house: ClearingHouse) -> float:
        """The interest index at the account's last event; 0 where the asset bears none."""
        if not balances.bears:
            return 0.0
        return float(house.assets[balances.asset].indexes(state.touched)[0 if amount < 0 else 1])

    def _holders_of(self, instrument: str, version: str, house: ClearingHouse) -> Holders:
        holders = self._pools.holders[version][instrument] = Holders(
            instrument, self._rules[version], self._factor(instrument, house))
        self._set(holders, house)
        self._priced.clear()
        return holders

    def _balances_of(self, asset: str, version: str, house: ClearingHouse) -> Balances:
        balances = self._pools.balances[version][asset] = Balances(asset, self._rules[version])
        self._set(balances, house)
        self._priced.clear()
        if balances.bears:
            self._bearing.append(balances)
            self._pools.now = house.log_time / NANOSECONDS
        return balances

    def _set_lines(self, state: AccountState, pool: Pool) -> None:
        """The two lines that matter in the pool's state: below the lower or at the upper it is nominated."""
        name, index = pool.name, pool.index
        lower, warning_end, call_line, liquidation = self._lines[pool.version]
        upper, always = math.nan, not self._rules[pool.version].is_screened
        if name in state.warned or name in state.due or state.liquidations or state.calls:
            call, running = state.calls.get(name), state.liquidations.get(name)
            if running is not None:
                lower, upper = 0.0, float(running.stop_level)
            elif call is not None:
                lower, upper = liquidation, float(call.cure_level)
            elif name in state.warned:
                lower, upper = call_line, warning_end
            always = always or name in state.due or running is not None
        views = self._pools.views
        views[LOWER][index], views[UPPER][index] = lower, upper
        if always or self._pools.always[index]:
            self._pools.always[index] = always


_NO_POSITIONS: Final[dict[PositionKey, Position]] = {}
_NO_BALANCES: Final[dict[str, Decimal]] = {}


def _has_same_pools(old: AccountState, state: AccountState) -> bool:
    """Whether two states have the same pools for sure: what `AccountState.pools` looks at has not changed."""
    return (old.warned is state.warned and old.calls is state.calls and old.due is state.due
            and old.liquidations is state.liquidations and old.positions.keys() == state.positions.keys()
            and old.balances.keys() == state.balances.keys())


def _version(rules: Rulebook) -> str:
    return f"{rules.name}:{rules.version}"
