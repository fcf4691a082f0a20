"""The liquidation ladder: how much of an instrument would be liquidated at each of some prices, all else as it is.

The book's safe ranges say who may stand otherwise at a price, so a rung costs what those cost who are near their
line there; each of them is evaluated exactly, as the ledger would. A rung stands for a market that leaps to its
price: what liquidations do to prices and to the fund, halts and stale marks is not in it. Nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from ledger.account import AccountState
from ledger.amounts import ZERO, divide_down, exact, round_down
from ledger.clearing_house import ClearingHouse
from ledger.events import Cause, PriceRecorded, Recorded
from ledger.market import MarketState
from ledger.nomination import PoolPlace
from ledger.risk.holding import notional_of
from ledger.risk.margin import below, liquidatable
from projections.book import Book

# The steps of a ladder, in percent of the mark.
STEPS: Final = tuple(Decimal(step) for step in (
    -50, -40, -30, -25, -20, -15, -10, -7, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 10, 15, 20, 25, 30, 40, 50))
_HUNDRED: Final = Decimal(100)


class Rung(NamedTuple):
    """One price, and all that would be liquidated there, not only since the rung before.

    Sizes are in contracts, notionals at that price in the settlement asset, an inverse one rounded up to its quantum;
    longs and shorts apart, since a long is sold and a short bought back. `pools` are those that hold the instrument.
    """

    price: Decimal
    move_percent: Decimal
    pools: int
    long_size: Decimal
    long_notional: Decimal
    short_size: Decimal
    short_notional: Decimal
    notional: Decimal


def prices_around(market: MarketState, steps: Iterable[Decimal] = STEPS) -> list[Decimal]:
    """Prices at steps in percent of the mark, each down to its tick, ascending; none without a mark."""
    mark = market.mark
    if mark is None:
        return []
    with exact():
        found = {round_down(mark * (_HUNDRED + step) / _HUNDRED, market.tick_size) if step else mark for step in steps}
    return sorted(price for price in found if price > 0)


def is_liquidated(house: ClearingHouse, state: AccountState, pool: str) -> bool:
    """Whether a pool is liquidated at the marks of now: past its line, or below the stop line once it has begun."""
    margin, thresholds = house.margin(state, pool), house.rules(state).thresholds
    if margin.unpriced or not margin.positions:
        return False
    if pool in state.liquidations or pool in state.due:
        return below(margin, thresholds.stop)
    return liquidatable(margin, thresholds)


class Ladder:
    """The ladder of one instrument over a house that nobody else uses meanwhile. KeyError: no such instrument.

    ValueError where it has no mark. `candidates` counts the pools that were evaluated exactly.
    """

    def __init__(self, house: ClearingHouse, instrument: str) -> None:
        self.house, self.market = house, house.markets[instrument]
        if self.market.mark is None:
            raise ValueError(f"expected an instrument with a mark, {instrument} has none")
        self.mark = self.market.mark
        self.candidates = 0
        self._book = Book()
        with exact():
            self._book.rules_changed(house)
        # The price that the book stands at, and whom it named there.
        self._at, self._named = self.mark, self._book.take()

    def rungs(self, prices: Sequence[Decimal]) -> list[Rung]:
        """The rungs at some prices, in their order."""
        try:
            with exact():
                return [self._rung(price) for price in prices]
        finally:
            self.house.markets[self.market.instrument] = self.market

    def _rung(self, price: Decimal) -> Rung:
        house, market = self.house, self.market
        house.markets[market.instrument] = market._replace(mark=price)
        if price != self._at:
            self._at, self._named = price, self._named_at(price)
        return self.rung_of(self._named, price)

    def _named_at(self, price: Decimal) -> Collection[PoolPlace]:
        house, market = self.house, self.market
        event = PriceRecorded(time=house.log_time, cause=Cause(source="ladder", type="price"), source="ladder",
                              instrument=market.instrument, price=price, kind="mark", mark=price)
        self._book.applied(Recorded(house.position, f"market:{market.instrument}", market.version, event), house)
        # Their states do not move on, so whoever stands beyond a line is named at every further price too.
        return self._book.take()

    def rung_of(self, places: Collection[PoolPlace], price: Decimal) -> Rung:
        """The rung of the pools among some that are liquidated at the mark of now, which is `price`."""
        house, market = self.house, self.market
        pools, long_size, short_size = 0, ZERO, ZERO
        for account, pool in places:
            state = house.accounts[account]
            size = [position.size for key, position in state.positions_of(pool) if key[0] == market.instrument]
            self.candidates += 1
            if size and is_liquidated(house, state, pool):
                pools += 1
                long_size += sum((one for one in size if one > 0), ZERO)
                short_size -= sum((one for one in size if one < 0), ZERO)
        quantum = house.assets[market.settlement_asset].quantum
        long_notional, short_notional = (notional_of(
            size=size, contract_size=market.contract_size, price=price, contract_type=market.contract_type,
            quantum=quantum) for size in (long_size, short_size))
        move = divide_down((price - self.mark) * _HUNDRED, self.mark, Decimal("0.01"))
        return Rung(price, move, pools, long_size, long_notional, short_size, short_notional,
                    long_notional + short_notional)
