"""Health: one number for an account of tokens, spot orders and perpetuals; below zero it is in trouble.

What settles in a token is added to its balance before the sum is weighted, so that gains and losses in one token
net in full. Three kinds: `init` to take risk, `maint` to keep it, `liq_end` to be let go by a liquidation; since
`init` weights are harder than `maint`, a liquidation that began does not stop at the line where it began. This file
holds no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ledger.amounts import FINEST, ZERO, Factor, divide_down, divide_up

HealthKind = Literal["init", "maint", "liq_end"]


class Prices(NamedTuple):
    """The oracle's price and one that follows it slowly; `init` goes by the worse of both."""

    oracle: Decimal
    stable: Decimal

    def asset(self, kind: HealthKind) -> Decimal:
        """For what is held."""
        return min(self.oracle, self.stable) if kind == "init" else self.oracle

    def liability(self, kind: HealthKind) -> Decimal:
        """For what is owed."""
        return max(self.oracle, self.stable) if kind == "init" else self.oracle


class HealthWeights(BaseModel):
    """Weights of a token or of the base of a perpetual; `init` ones can be scaled by the pool of all accounts.

    Formula:  asset weight x scale start / worth of deposits above `deposit_scale_start`; liability weight x worth of
              borrows / scale start above `borrow_scale_start`. Without a start nothing is scaled; a deposit start
              of 0 leaves no weight. The scaled weights are those of `init` alone.
    Rounding: assets down, liabilities up, to 18 places. Source: Mango v4, `scaled_init_asset_weight`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["pool-scaled:1"]
    initial_asset: Factor
    initial_liability: Factor
    maintenance_asset: Factor
    maintenance_liability: Factor
    deposit_scale_start: Factor | None = None
    borrow_scale_start: Factor | None = None

    @model_validator(mode="after")
    def _whole(self) -> HealthWeights:
        if self.initial_asset > self.maintenance_asset or self.initial_liability < self.maintenance_liability:
            raise PydanticCustomError("weights", "expected initial weights not softer than those of maintenance", {})
        if self.borrow_scale_start == 0:
            raise PydanticCustomError("weights", "expected a borrow scale start above 0, came 0", {})
        return self

    def asset(self, kind: HealthKind, deposits_value: Decimal = ZERO) -> Decimal:
        """The weight of what is held, all deposits together being worth `deposits_value`."""
        if kind == "maint":
            return self.maintenance_asset
        start = self.deposit_scale_start
        if kind == "liq_end" or start is None or deposits_value <= start:
            return self.initial_asset
        return divide_down(self.initial_asset * start, deposits_value, FINEST)

    def liability(self, kind: HealthKind, borrows_value: Decimal = ZERO) -> Decimal:
        """The weight of what is owed, all borrows together being worth `borrows_value`."""
        if kind == "maint":
            return self.maintenance_liability
        start = self.borrow_scale_start
        if kind == "liq_end" or start is None or borrows_value <= start:
            return self.initial_liability
        return divide_up(self.initial_liability * borrows_value, start, FINEST)


class HealthToken(NamedTuple):
    """A token: prices, weights, the account's balance, and deposits (with those that resting orders may bring) and
    borrows of all accounts."""

    prices: Prices
    weights: HealthWeights
    balance: Decimal
    deposits: Decimal = ZERO
    borrows: Decimal = ZERO

    def price(self, kind: HealthKind, *, owed: bool) -> Decimal:
        """Price times weight of one unit, held or owed.

        Both pools are valued at the higher of the two prices, the deposits too: the program builds its figures so.
        """
        high = self.prices.liability("init")
        if owed:
            return self.weights.liability(kind, self.borrows * high) * self.prices.liability(kind)
        return self.weights.asset(kind, self.deposits * high) * self.prices.asset(kind)

    def contribution(self, kind: HealthKind, balance: Decimal) -> Decimal:
        """What a balance of the token adds to health."""
        return balance * self.price(kind, owed=balance < 0)


class SpotOrders(NamedTuple):
    """What an account has reserved in one spot market, and the limits that bound its conversion (None: the oracle)."""

    base: str
    quote: str
    reserved_base: Decimal
    reserved_quote: Decimal
    lowest_ask: Decimal | None = None
    highest_bid: Decimal | None = None


class HealthPerp(NamedTuple):
    """A perpetual position: settle token, prices and weights of its base, weights of a positive result, size and
    quote, sizes of resting bids and asks (both >= 0), funding not yet paid."""

    settle_token: str
    prices: Prices
    weights: HealthWeights
    initial_result_weight: Decimal
    maintenance_result_weight: Decimal
    base: Decimal
    quote: Decimal
    bids: Decimal = ZERO
    asks: Decimal = ZERO
    unpaid_funding: Decimal = ZERO

    def result_weight(self, kind: HealthKind) -> Decimal:
        """The weight of a positive result; 0 means that it counts only once settled."""
        return self.maintenance_result_weight if kind == "maint" else self.initial_result_weight

    def unweighted(self, kind: HealthKind) -> Decimal:
        """The result in the settle token by which all bids or all asks filled, whichever is worse, would count.

        Base is weighted, bids pay the higher price and asks get the lower; the result as a whole is not weighted.
        """
        def filled(change: Decimal, price: Decimal) -> Decimal:
            base = self.base + change
            if base < 0:
                held = base * self.weights.liability(kind) * self.prices.liability(kind)
            else:
                held = base * self.weights.asset(kind) * self.prices.asset(kind)
            return held - change * price

        worst = min(filled(self.bids, self.prices.liability(kind)), filled(-self.asks, self.prices.asset(kind)))
        return self.quote - self.unpaid_funding + worst

    def result(self, kind: HealthKind) -> Decimal:
        """The unweighted result, a positive one times its weight."""
        unweighted = self.unweighted(kind)
        return unweighted * self.result_weight(kind) if unweighted > 0 else unweighted


class HealthAccount(NamedTuple):
    """An account as health sees it: tokens by name, spot orders, perpetual positions by market."""

    tokens: Mapping[str, HealthToken]
    orders: Sequence[SpotOrders] = ()
    perps: Mapping[str, HealthPerp] = {}


def effective_balances(account: HealthAccount, kind: HealthKind, *, without_losses: bool = False) -> dict[str, Decimal]:
    """Balances with what would settle in them; `without_losses` leaves negative results out."""
    balances = {name: token.balance for name, token in account.tokens.items()}
    for perp in account.perps.values():
        result = perp.result(kind)
        if result > 0 or not without_losses:
            balances[perp.settle_token] += result
    return balances


def _converted(orders: SpotOrders, account: HealthAccount, kind: HealthKind) -> tuple[Decimal, Decimal]:
    base, quote = account.tokens[orders.base].prices, account.tokens[orders.quote].prices
    bought = divide_down(orders.reserved_quote * quote.asset(kind), base.liability(kind), FINEST)
    if orders.highest_bid:
        bought = min(bought, divide_down(orders.reserved_quote, orders.highest_bid, FINEST))
    sold = divide_down(orders.reserved_base * base.asset(kind), quote.liability(kind), FINEST)
    if orders.lowest_ask:
        sold = min(sold, orders.reserved_base * orders.lowest_ask)
    return orders.reserved_base + bought, orders.reserved_quote + sold


def _effect(token: HealthToken, balance: Decimal, reserved: Decimal, kind: HealthKind) -> Decimal:
    # The reserved part counts as if it came last, where it is worth least.
    held = min(max(balance, ZERO), reserved)
    return held * token.price(kind, owed=False) + (reserved - held) * token.price(kind, owed=True)


def health(account: HealthAccount, kind: HealthKind, *, without_losses: bool = False) -> Decimal:
    """The health of an account, in the currency of the prices.

    Formula:  sum over tokens of (balance + results that settle in it) x price x weight; plus, for each spot market,
              the smaller effect of everything reserved turning into base or into quote, every other market taken to
              have turned the worst way. `init`: scaled weights and the worse of both prices; `liq_end`: initial
              weights unscaled; `maint`: maintenance weights; both at the oracle's price.
    Rounding: none but those of scaled weights and conversions, against the account, to 18 places.
    Source:   Mango v4, `HealthCache`.
    """
    balances = effective_balances(account, kind, without_losses=without_losses)
    total = sum((token.contribution(kind, balances[name]) for name, token in account.tokens.items()), ZERO)
    converted = [(orders, *_converted(orders, account, kind)) for orders in account.orders]
    reserved = dict.fromkeys(account.tokens, ZERO)
    for orders, as_base, as_quote in converted:
        reserved[orders.base] += as_base
        reserved[orders.quote] += as_quote
    for orders, as_base, as_quote in converted:
        if as_base and as_quote:
            total += min(_effect(account.tokens[name], balances[name] + reserved[name], amount, kind)
                         for name, amount in ((orders.base, as_base), (orders.quote, as_quote)))
    return total


def amount_taken(total: Decimal, balance: Decimal, *, asset_price: Decimal, liability_price: Decimal) -> Decimal:
    """How much of a token may leave before health falls to zero; 0 where it is not positive.

    Prices are weighted. Rounding: down to 18 places. Raises: ValueError where a debt in the token weighs nothing.
    Source: Mango v4, `spot_amount_taken_for_health_zero`.
    """
    if total <= 0:
        return ZERO
    if not liability_price:
        raise ValueError("expected a weighted price of debts above 0, came 0: any amount may leave")
    if balance <= 0:
        return divide_down(total, liability_price, FINEST)
    if asset_price and total <= balance * asset_price:
        return divide_down(total, asset_price, FINEST)
    return balance + divide_down(total - balance * asset_price, liability_price, FINEST)


def amount_given(total: Decimal, balance: Decimal, *, asset_price: Decimal, liability_price: Decimal) -> Decimal:
    """How much of a token must come before health rises to zero; 0 where it is not negative.

    Prices are weighted. Rounding: up to 18 places. Raises: ValueError where no amount does it, since what is held of
    the token weighs nothing.
    """
    if total >= 0:
        return ZERO
    if balance < 0 and -total <= -balance * liability_price:
        return divide_up(-total, liability_price, FINEST)
    if not asset_price:
        raise ValueError("expected a weighted price of balances above 0, came 0: no amount raises health to zero")
    if balance >= 0:
        return divide_up(-total, asset_price, FINEST)
    return -balance + divide_up(-total + balance * liability_price, asset_price, FINEST)
