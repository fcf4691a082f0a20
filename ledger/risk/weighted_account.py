"""Accounts of deposits, debts and positions, each weighted: total collateral against one margin requirement.

Every check (initial, fill, maintenance) has its own weights; a strict check values what the account has at the
lower of price and average and what it owes at the higher. Open orders count as if the worse side filled. Isolated
positions stand apart with collateral of their own. This file holds no state and starts no liquidation.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from ledger.amounts import ONE, ZERO, round_down, round_towards_zero
from ledger.risk.weights import AssetWeights, Check, ProfitWeights, SizeRatios

# Values are held to a millionth of the quote asset; each resting order requires a cent.
VALUE_QUANTUM: Final = Decimal("0.000001")
ORDER_MARGIN: Final = Decimal("0.01")


class Quote(NamedTuple):
    """A price and its short average; a strict check takes the worse of both, any other the price alone."""

    price: Decimal
    average: Decimal | None = None

    @property
    def low(self) -> Decimal:
        """For what the account has."""
        return self.price if self.average is None else min(self.price, self.average)

    @property
    def high(self) -> Decimal:
        """For what the account owes."""
        return self.price if self.average is None else max(self.price, self.average)


class AssetMarket(NamedTuple):
    """An asset that is lent and borrowed: price, five-minute average, weights, deposits of all accounts."""

    price: Decimal
    average: Decimal
    weights: AssetWeights
    deposits: Decimal = ZERO
    valid: bool = True

    def quote(self, strict: bool) -> Quote:
        """The prices a check goes by."""
        return Quote(self.price, self.average if strict else None)


class PerpMarket(NamedTuple):
    """A perpetual market: price, ratios, treatment of profit, kind of contract, funding indexes of both sides."""

    price: Decimal
    ratios: SizeRatios
    profit: ProfitWeights
    contract: Literal["perpetual", "prediction"] = "perpetual"
    funding_long: Decimal = ZERO
    funding_short: Decimal = ZERO
    net_profit_of_all: Decimal = ZERO


class AssetBalance(NamedTuple):
    """A deposit (+) or debt (-), and what resting orders would add to it (bids) or take from it (asks, <= 0)."""

    amount: Decimal
    bids: Decimal = ZERO
    asks: Decimal = ZERO
    orders: int = 0


class PerpPosition(NamedTuple):
    """A signed size with the quote booked to it, its resting orders, its own collateral where isolated."""

    size: Decimal
    quote: Decimal
    bids: Decimal = ZERO
    asks: Decimal = ZERO
    orders: int = 0
    chosen_ratio: Decimal = ZERO
    funding_index: Decimal = ZERO
    isolated: bool = False
    collateral: Decimal = ZERO

    @property
    def has_orders(self) -> bool:
        """Whether anything rests."""
        return bool(self.orders or self.bids or self.asks)

    @property
    def empty(self) -> bool:
        """Whether nothing of it counts."""
        return not (self.size or self.quote or self.has_orders or self.collateral)


class WeightedAccount(NamedTuple):
    """Balances by asset, positions by market, the quote asset, and the margin ratio the account asked for."""

    quote_asset: str
    balances: Mapping[str, AssetBalance]
    positions: Mapping[str, PerpPosition]
    chosen_ratio: Decimal = ZERO


class Conditions(NamedTuple):
    """Which check, at which prices, with which buffer for the end of a liquidation.

    `ignore_invalid` values what is held in an asset without a valid price at nothing; `ratio_override` is a ratio
    that holds whatever the check.
    """

    check: Check
    strict: bool = False
    buffer: Decimal = ZERO
    ignore_invalid: bool = False
    ratio_override: Decimal = ZERO


class Part(NamedTuple):
    """What one balance or position adds: collateral, requirement, and how much debt lies behind the requirement."""

    collateral: Decimal = ZERO
    requirement: Decimal = ZERO
    exposure: Decimal = ZERO
    result: Decimal = ZERO
    liabilities: int = 0


class WeightedMargin(NamedTuple):
    """The figures of a pool: cross, or one isolated position; exact multiples of the value quantum."""

    collateral: Decimal = ZERO
    requirement: Decimal = ZERO
    collateral_buffered: Decimal = ZERO
    requirement_buffered: Decimal = ZERO
    liabilities: int = 0

    @property
    def meets(self) -> bool:
        """Whether the check passes; equality is enough."""
        return self.collateral >= self.requirement

    @property
    def recovered(self) -> bool:
        """Whether a liquidation under way ends: the requirement is met with the buffer."""
        return self.collateral_buffered >= self.requirement_buffered

    @property
    def shortage(self) -> Decimal:
        """How much is missing to end a liquidation."""
        return abs(self.requirement_buffered - self.collateral_buffered)

    def plus(self, part: Part, buffer: Decimal) -> WeightedMargin:
        """With one more part; the buffer adds to what is required and to a negative result."""
        more = round_down(part.exposure * buffer, VALUE_QUANTUM)
        less = round_towards_zero(min(part.result, ZERO) * buffer, VALUE_QUANTUM)
        return WeightedMargin(self.collateral + part.collateral, self.requirement + part.requirement,
                              self.collateral_buffered + part.collateral + less,
                              self.requirement_buffered + part.requirement + more,
                              self.liabilities + part.liabilities)


class AccountMargin(NamedTuple):
    """The cross pool, each isolated position by market, and what each position requires."""

    cross: WeightedMargin
    isolated: Mapping[str, WeightedMargin]
    required: Mapping[str, Decimal]

    @property
    def liabilities(self) -> int:
        """How many debts and positions there are, isolated ones counted too."""
        return self.cross.liabilities + sum(pool.liabilities for pool in self.isolated.values())


def token_value(amount: Decimal, quote: Quote) -> Decimal:
    """Value of a balance: a deposit at the lower price, a debt at the higher, both down to the value quantum.

    Rounding down makes a deposit smaller and a debt larger.
    """
    return round_down(amount * (quote.low if amount > 0 else quote.high), VALUE_QUANTUM)


class _Fill(NamedTuple):
    amount: Decimal
    orders_value: Decimal
    value: Decimal
    weighted: Decimal


def _weighted(market: AssetMarket, check: Check, amount: Decimal, value: Decimal, chosen: Decimal) -> Decimal:
    if not value:
        return ZERO
    weights, size = market.weights, abs(amount)
    pool = token_value(market.deposits, Quote(market.price))
    weight = weights.asset(check, size, pool) if value > 0 else weights.liability(check, size)
    weighted = round_towards_zero(value * weight, VALUE_QUANTUM)
    if not chosen or not weighted:
        return weighted
    # A chosen ratio speaks of initial margin, whatever the check.
    if weighted < 0:
        weight = max(weights.liability("initial", size), ONE + chosen)
    else:
        weight = min(weights.asset("initial", size, pool), max(ZERO, ONE - chosen))
    return round_towards_zero(value * weight, VALUE_QUANTUM)


def _worst_fill(balance: AssetBalance, market: AssetMarket, quote: Quote, check: Check, chosen: Decimal) -> _Fill:
    value = token_value(balance.amount, quote)
    sides: list[tuple[Decimal, _Fill]] = []
    for change in ((balance.asks, balance.bids) if balance.asks or balance.bids else (ZERO,)):
        orders_value = round_down(-change * quote.high, VALUE_QUANTUM)
        amount, after = balance.amount + change, value - orders_value
        # Which side is worse is judged before a chosen ratio counts.
        plain = _weighted(market, check, amount, after, ZERO)
        sides.append((plain + orders_value,
                      _Fill(amount, orders_value, after, _weighted(market, check, amount, after, chosen))))
    return min(sides, key=lambda side: side[0])[1]


def asset_part(balance: AssetBalance, market: AssetMarket, conditions: Conditions, *, is_quote: bool,
               chosen: Decimal = ZERO) -> Part:
    """What a balance adds to the cross pool.

    Formula:  a deposit adds its weighted value, a debt requires its weighted value; the quote asset counts at full
              value and without its orders. With orders the side counts (all bids or all asks filled, at the higher
              price) that leaves less free collateral, asks where both leave the same; what the orders would pay or
              bring counts in full. Each order requires a cent more.
    Rounding: values down, weighted values towards zero, to a millionth.
    Source:   Drift v2, `calculate_margin_requirement_and_total_collateral_and_liability_info`.
    """
    if not balance.amount and not balance.orders:
        return Part()
    quote = market.quote(conditions.strict)
    counts = market.valid or not conditions.ignore_invalid
    if is_quote:
        value = token_value(balance.amount, quote)
        if value >= 0:
            return Part(collateral=value if counts else ZERO)
        return Part(requirement=-value, exposure=-value, liabilities=1)
    fill = _worst_fill(balance, market, quote, conditions.check, chosen)
    collateral, requirement, exposure, liabilities = ZERO, balance.orders * ORDER_MARGIN, ZERO, 0
    if fill.value > 0:
        collateral += fill.weighted
    elif fill.value < 0:
        requirement, exposure, liabilities = requirement - fill.weighted, -fill.value, 1
    elif balance.orders or balance.bids or balance.asks:
        liabilities = 1
    if fill.orders_value > 0:
        collateral += fill.orders_value
    else:
        requirement, exposure = requirement - fill.orders_value, exposure - fill.orders_value
    return Part(collateral if counts else ZERO, requirement, exposure, ZERO, liabilities)


def exposure(size: Decimal, market: PerpMarket) -> Decimal:
    """What can be lost on a size: its notional; of a prediction sold, what is left up to 1. Towards zero."""
    price = max(market.price, ZERO)
    if market.contract == "prediction" and size < 0:
        price = max(ONE - abs(market.price), ZERO)
    return round_down(abs(size) * price, VALUE_QUANTUM)


def unrealised(position: PerpPosition, market: PerpMarket) -> Decimal:
    """Unrealised result with unpaid funding, in the quote asset; value and funding each towards zero."""
    index = market.funding_long if position.size > 0 else market.funding_short
    funding = round_towards_zero((position.funding_index - index) * position.size, VALUE_QUANTUM)
    value = round_towards_zero(position.size * max(market.price, ZERO), VALUE_QUANTUM)
    return value + position.quote + funding


def perp_part(position: PerpPosition, market: PerpMarket, quote: Quote, check: Check, chosen: Decimal) -> Part:
    """What a position adds: its weighted result as collateral, the margin of the worse side of its orders.

    Formula:  requirement = exposure x higher quote price x max(ratio by size, chosen) + a cent an order; of all bids
              filled and all asks filled the larger exposure counts, asks where they are the same.
              result x weight x quote price (lower for profit, higher for loss), capped for initial margin.
    Rounding: towards zero to a millionth after each product.
    Source:   Drift v2, `calculate_perp_position_value_and_pnl`.
    """
    sides = [position.size + position.asks, position.size + position.bids]
    worst = max(sides, key=lambda size: exposure(size, market))
    at_risk = round_down(exposure(worst, market) * quote.high, VALUE_QUANTUM)
    ratio = max(chosen, market.ratios.ratio(check, abs(worst)))
    requirement = round_down(at_risk * ratio, VALUE_QUANTUM) + position.orders * ORDER_MARGIN
    result = unrealised(position, market)
    weight = market.profit.weight(check, result, market.net_profit_of_all)
    weighted = round_towards_zero(result * weight, VALUE_QUANTUM)
    weighted = round_towards_zero(weighted * (quote.low if result > 0 else quote.high), VALUE_QUANTUM)
    if check == "initial" and market.profit.initial_cap is not None:
        weighted = min(weighted, market.profit.initial_cap)
    owes = bool(position.size or position.quote < 0 or position.has_orders)
    return Part(weighted, requirement, at_risk, weighted, int(owes))


def account_margin(account: WeightedAccount, assets: Mapping[str, AssetMarket], perps: Mapping[str, PerpMarket],
                   conditions: Conditions) -> AccountMargin:
    """The margin of the cross pool and of each isolated position.

    A ratio that the account or a position chose raises initial requirements only; an override holds for every check.
    """
    asked = account.chosen_ratio if conditions.check == "initial" else ZERO
    chosen = max(asked, conditions.ratio_override)
    cross = WeightedMargin()
    for asset, balance in account.balances.items():
        part = asset_part(balance, assets[asset], conditions, is_quote=asset == account.quote_asset, chosen=chosen)
        cross = cross.plus(part, conditions.buffer)
    quote = assets[account.quote_asset].quote(conditions.strict)
    isolated: dict[str, WeightedMargin] = {}
    required: dict[str, Decimal] = {}
    for name, position in account.positions.items():
        if position.empty:
            continue
        own = max(chosen, position.chosen_ratio if conditions.check == "initial" else ZERO)
        part = perp_part(position, perps[name], quote, conditions.check, own)
        required[name] = part.requirement
        if position.isolated:
            held = WeightedMargin().plus(Part(collateral=token_value(position.collateral, quote)), ZERO)
            isolated[name] = held.plus(part, conditions.buffer)
        else:
            cross = cross.plus(part, conditions.buffer)
    return AccountMargin(cross, isolated, required)


def account_equity(account: WeightedAccount, assets: Mapping[str, AssetMarket],
                   perps: Mapping[str, PerpMarket]) -> Decimal:
    """What the account is worth without weights: balances and results at plain prices, isolated collateral too."""
    quote = Quote(assets[account.quote_asset].price)
    total = sum((token_value(balance.amount, Quote(assets[asset].price))
                 for asset, balance in account.balances.items()), ZERO)
    for name, position in account.positions.items():
        total += round_towards_zero(unrealised(position, perps[name]) * quote.price, VALUE_QUANTUM)
        total += token_value(position.collateral, quote)
    return total
