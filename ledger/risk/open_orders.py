"""What open orders reserve: initial margin at their price, and the loss that filling them at once would make.

Source: Binance's cost to open a position (initial margin + open loss), BitMEX's gap to the fair price
(docs/margin.md). This file knows no accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from ledger.amounts import ONE, ZERO, Fraction
from ledger.risk.holding import ContractType, Holding, notional_of, value_of
from ledger.risk.requirement import RequirementBlock, required


class OpenOrder(NamedTuple):
    """An open order as margin sees it: signed remaining size in contracts, positive to buy."""

    instrument: str
    size: Decimal
    price: Decimal
    mark: Decimal
    contract_size: Decimal
    settlement_asset: str
    quantum: Decimal
    leverage: Decimal | None = None
    contract_type: ContractType = "linear"
    reduce_only: bool = False

    def as_holding(self) -> Holding:
        """The position that filling it whole at its price would open, valued at that price."""
        value = value_of(size=self.size, contract_size=self.contract_size, price=self.price,
                         contract_type=self.contract_type)
        return Holding(self.instrument, "cross", "net", self.size, value, self.price, ZERO, self.contract_size,
                       self.settlement_asset, self.quantum, self.leverage, self.contract_type)


class Reserved(NamedTuple):
    """What orders reserve, in the settlement asset."""

    initial: Decimal
    loss: Decimal

    @property
    def whole(self) -> Decimal:
        """The cost to open: initial margin and loss together."""
        return self.initial + self.loss


class OrderRule(BaseModel):
    """What is reserved for open orders.

    Formula:  initial = the requirement of the order's value at its price (`gross`: each order; `worse-side`: the
              greater of the buying and the selling side of an instrument), plus value x fee rate;
              loss = |size| x contract size x the distance by which the price is worse than the mark (`open_loss`).
    Orders that only reduce reserve nothing.   Rounding: what is divided, up to 18 places.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["orders:1"]
    sides: Literal["gross", "worse-side"] = "gross"
    open_loss: bool = True
    fee_rate: Fraction = ZERO

    def reserved(self, orders: Sequence[OpenOrder], holdings: Sequence[Holding],
                 requirement: Callable[[str], RequirementBlock]) -> Mapping[str, Reserved]:
        """What the orders reserve, by settlement asset."""
        sides: dict[tuple[str, str, bool], Reserved] = {}
        for order in orders:
            if not order.reduce_only:
                cost = self.cost(order, requirement(order.instrument))
                key = (order.settlement_asset, order.instrument, order.size > 0)
                before = sides.get(key, Reserved(ZERO, ZERO))
                sides[key] = Reserved(before.initial + cost.initial, before.loss + cost.loss)
        found: dict[str, Reserved] = {}
        for asset, instrument in sorted({(asset, instrument) for asset, instrument, _ in sides}):
            pair = [sides.get((asset, instrument, bought), Reserved(ZERO, ZERO)) for bought in (True, False)]
            if self.sides == "worse-side":
                pair = [max(pair, key=sum)]
            before = found.get(asset, Reserved(ZERO, ZERO))
            found[asset] = Reserved(sum((row.initial for row in pair), before.initial),
                                    sum((row.loss for row in pair), before.loss))
        return found

    def cost(self, order: OpenOrder, requirement: RequirementBlock) -> Reserved:
        """What one order reserves alone."""
        value = notional_of(size=order.size, contract_size=order.contract_size, price=order.price,
                            contract_type=order.contract_type)
        initial = required(requirement, order.as_holding(), value).initial + value * self.fee_rate
        return Reserved(initial, open_loss(order) if self.open_loss else ZERO)


def open_loss(order: OpenOrder) -> Decimal:
    """What filling an order at its price would lose at the mark, >= 0, in the settlement asset.

    Formula: max(0, value at the price - value at the mark), |size| x |min(0, side x (mark - price))| when linear.
    """
    at_price, at_mark = (value_of(size=order.size, contract_size=order.contract_size, price=price,
                                  contract_type=order.contract_type) for price in (order.price, order.mark))
    return max(ZERO, at_price - at_mark)


def market_order_price(*, side: Literal["buy", "sell"], last: Decimal, mark: Decimal, bid_or_ask: Decimal,
                       buffer: Decimal) -> Decimal:
    """The price that a market order's cost assumes: for a sale the highest of last x (1 + buffer), mark and bid.

    For a purchase best ask x (1 + buffer). Source: Binance, cost to open a position; buffer 0.05 % or 0.15 %.
    """
    return bid_or_ask * (ONE + buffer) if side == "buy" else max(last * (ONE + buffer), mark, bid_or_ask)


def crossing_gap(*, size: Decimal, price: Decimal, mark: Decimal) -> Decimal:
    """The whole distance between price and mark, times the size: what BitMEX adds where an order crosses the mark."""
    return abs(size) * abs(price - mark)
