"""The simulated venue: fills liquidation orders at a price that is a pure function of order and mark.

Formula:  sale = mark x (1 - slippage - impact x size), purchase = mark x (1 + ...), to the tick against the
account; where that is worse than the order's limit, the fund's account takes the order over at the limit. Both
sides are records of their own, of source `venue:simulated` and ids `<order>:<n>`. It keeps no state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from ledger.account import OpenOrder
from ledger.amounts import ONE, ZERO, round_down, round_up
from ledger.clearing_house import ClearingHouse
from ledger.commands import AccountKind, Command, OpenAccount, PostFill

SOURCE: Final = "venue:simulated"
VENUE_ACCOUNT: Final = "venue:simulated"
FUND_ACCOUNT: Final = "fund:insurance"
_KINDS: dict[str, AccountKind] = {VENUE_ACCOUNT: "external-venue", FUND_ACCOUNT: "house"}


class SimulatedVenue(NamedTuple):
    """How deep the simulated market is: `slippage` of any order, `impact` per contract.

    Contracts differ in worth, so `impacts` may give an instrument its own.
    """

    slippage: Decimal = Decimal("0.0005")
    impact: Decimal = ZERO
    impacts: Mapping[str, Decimal] = {}

    def serve(self, house: ClearingHouse) -> Iterator[Command]:
        """The records that answer the oldest open liquidation order; none where no order is open."""
        for order_id, (account, _) in house.open_orders.items():
            order = house.accounts[account].order(order_id)
            market = house.markets[order.instrument] if order is not None else None
            if order is not None and market is not None and market.mark is not None:
                yield from self._fill(house, account, order, market.mark)
                return

    def _fill(self, house: ClearingHouse, account: str, order: OpenOrder, mark: Decimal) -> Iterator[Command]:
        market = house.markets[order.instrument]
        depth = self.slippage + self.impacts.get(order.instrument, self.impact) * order.remaining
        counterparty = VENUE_ACCOUNT
        if order.side == "sell":
            price = round_down(mark * (ONE - depth), market.tick_size)
            if price <= 0 or price < order.limit_price:
                price, counterparty = order.limit_price, FUND_ACCOUNT
        else:
            price = round_up(mark * (ONE + depth), market.tick_size)
            if price > order.limit_price:
                price, counterparty = order.limit_price, FUND_ACCOUNT
        time = house.log_time
        if counterparty not in house.accounts:
            yield OpenAccount(id=f"account:{counterparty}", time=time, account=counterparty, margin_mode="cross",
                              kind=_KINDS[counterparty])
        # An order is filled whole, so its first fill is its last.
        trade = f"{order.order_id}:1"
        yield PostFill(id=trade, time=time, account=account, trade_id=trade, instrument=order.instrument,
                       side=order.side, size=order.remaining, price=price,
                       liquidation_order_id=order.order_id)
        yield PostFill(id=f"{trade}:venue", time=time, account=counterparty, trade_id=trade,
                       instrument=order.instrument, side="buy" if order.side == "sell" else "sell",
                       size=order.remaining, price=price, margin_mode="cross")
