"""Closing out a pool: the rule, the limits of its orders, and the prices at which a pool reaches a line.

Variant `full:1`: an order for every position, whole; recovery above the stop line cancels what is left. This file
knows no orders' life and no accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ledger.amounts import FINEST, PRICE_MAX, PRICE_MIN, ZERO, Fraction, divide_down, divide_up
from ledger.risk.crossing import crossing
from ledger.risk.holding import value_of
from ledger.risk.margin import Holding, PoolMargin, PositionMargin, PriceOf, Rules, evaluate_pool


class LiquidationRule(BaseModel):
    """How pools are closed out: sizing, life of an order, the house's fee on converted collateral, recourse."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["full:1"]
    order_expiry_seconds: int = Field(strict=True, gt=0)
    conversion_fee: Fraction
    recourse: Literal["limited", "full"]


class OrderTerms(NamedTuple):
    """What to close: a whole position, at no worse than `limit_price`."""

    holding: Holding
    side: Literal["buy", "sell"]
    size: Decimal
    limit_price: Decimal


def order_terms(pool: PoolMargin, price_of: PriceOf) -> list[OrderTerms]:
    """An order a position, largest maintenance margin first, then instrument and side.

    Formula:  limit = mark - equity x share / (size x contract size), share = the position's part of the pool's
              maintenance margin: filling all at their limits ends the pool at zero.
              A pool that requires nothing shares by value. An inverse position's limit is where its value, in whole
              quanta, falls by its share.
    Rounding: against the position's buyer or seller, to 18 places: a sale up, a purchase down, so that realised
              profit, rounded down, still ends the pool at zero. Held within the bounds of a price.
    """
    if not pool.maintenance_margin:
        # Hedged to nothing, and still in debt: by value instead.
        pool = pool._replace(maintenance_margin=pool.gross_notional, positions=tuple(
            row._replace(maintenance_margin=row.notional) for row in pool.positions))
    rows = sorted(pool.positions, key=lambda row: (-row.maintenance_margin, row.holding.instrument,
                                                   row.holding.position_side))
    return [_terms(row, pool, price_of) for row in rows]


def _terms(row: PositionMargin, pool: PoolMargin, price_of: PriceOf) -> OrderTerms:
    holding = row.holding
    price = price_of(holding.settlement_asset)
    if price is None:
        raise ValueError(f"no price of {holding.settlement_asset}")
    if holding.contract_type == "inverse":
        return _inverse_terms(row, pool, price)
    unit = abs(holding.size) * holding.contract_size * price * pool.maintenance_margin
    share = pool.account_equity * row.maintenance_margin
    if holding.size > 0:
        limit = divide_up(holding.mark * unit - share, unit, FINEST)
        return OrderTerms(holding, "sell", holding.size, min(max(limit, PRICE_MIN), PRICE_MAX))
    limit = divide_down(holding.mark * unit + share, unit, FINEST)
    return OrderTerms(holding, "buy", -holding.size, min(max(limit, PRICE_MIN), PRICE_MAX))


def _inverse_terms(row: PositionMargin, pool: PoolMargin, price: Decimal) -> OrderTerms:
    holding = row.holding
    value = value_of(size=holding.size, contract_size=holding.contract_size, price=holding.mark,
                     contract_type="inverse")
    unit = price * pool.maintenance_margin
    # The least value, in whole quanta, that the closing fill must bring; rounding its value down keeps it.
    least = divide_up(value * unit - pool.account_equity * row.maintenance_margin, unit, holding.quantum)
    contracts = abs(holding.size) * holding.contract_size
    if holding.size > 0:
        limit = divide_up(contracts, -least, FINEST) if least < 0 else PRICE_MAX
        return OrderTerms(holding, "sell", holding.size, min(max(limit, PRICE_MIN), PRICE_MAX))
    limit = divide_down(contracts, least, FINEST) if least > 0 else PRICE_MAX
    return OrderTerms(holding, "buy", -holding.size, min(max(limit, PRICE_MIN), PRICE_MAX))


# --- prices at which a line is reached, for display --------------------------------------------------------------

Repriced = Callable[[Decimal], PoolMargin]


def liquidation_price(repriced: Repriced, *, mark: Decimal, line: Decimal, rising: bool,
                      edges: Iterable[Decimal], curved: bool = False) -> Decimal | None:
    """The price of one instrument at which the pool stands at `line`, all other marks as they are.

    `repriced(price)` is the pool at that price; between two neighbours of `edges` its figures are linear, so the
    crossing is exact within them. Where they are not (`curved`: an inverse contract, a rounded fee), the crossing is
    searched for, to the last place. From the mark upwards (`rising`, the fear of a short) or downwards.
    Rounding: to 18 places towards the mark. None where the line is never reached, or is passed already.
    """
    def headroom(price: Decimal) -> Decimal:
        pool = repriced(price)
        return pool.margin_equity - line * pool.maintenance_margin

    stops = sorted({edge for edge in edges if (edge > mark if rising else 0 < edge < mark)}, reverse=not rising)
    if curved:
        stops = [stop for stop in stops if PRICE_MIN < stop < PRICE_MAX]
        stops.append(PRICE_MAX if rising else PRICE_MIN)
    else:
        stops.append(max([mark, *stops]) * 2 if rising else ZERO)
    start, room = mark, headroom(mark)
    if room < 0:
        return None
    for stop in stops:
        end = headroom(stop)
        if end < 0 and curved:
            return crossing(headroom, near=start, near_value=room, far=stop, far_value=end)
        if end < 0:
            return _crossing(start, room, stop, end, rising)
        start, room = stop, end
    if not rising or curved:
        return None
    beyond = stops[-1] * 2
    end = headroom(beyond)
    return _crossing(start, room, beyond, end, rising) if end < room else None


def _crossing(start: Decimal, room: Decimal, stop: Decimal, end: Decimal, rising: bool) -> Decimal | None:
    numerator, denominator = start * (room - end) + (stop - start) * room, room - end
    price = divide_down(numerator, denominator, FINEST) if rising else divide_up(numerator, denominator, FINEST)
    return price if PRICE_MIN <= price <= PRICE_MAX else None


def bankruptcy_price(repriced: Repriced, *, mark: Decimal, curved: bool = False) -> Decimal | None:
    """The price of one instrument at which the pool's account equity is zero, all other marks as they are.

    Account equity is linear in one mark, but for that of an inverse contract (`curved`). Rounding: to 18 places,
    down; a curved one towards the mark. None where no price above zero does it.
    """
    here, twice = repriced(mark).account_equity, repriced(mark * 2).account_equity
    slope = twice - here
    if not slope:
        return None
    if curved:
        return _curved_bankruptcy(repriced, mark, here, rising=(slope > 0) == (here < 0))
    numerator = mark * slope - here * mark
    price = divide_down(numerator if slope > 0 else -numerator, abs(slope), FINEST)
    return price if PRICE_MIN <= price <= PRICE_MAX else None


def _curved_bankruptcy(repriced: Repriced, mark: Decimal, here: Decimal, *, rising: bool) -> Decimal | None:
    sign = -1 if here < 0 else 1

    def left(price: Decimal) -> Decimal:
        return sign * repriced(price).account_equity

    far = PRICE_MAX if rising else PRICE_MIN
    end = left(far)
    return crossing(left, near=mark, near_value=abs(here), far=far, far_value=end) if end < 0 else None


def repriced_pool(balances: Mapping[str, Decimal], holdings: Iterable[Holding], instrument: str,
                  price_at: Callable[[Decimal], PriceOf], rules: Rules) -> Repriced:
    """The pool as a function of one instrument's price; `price_at(price)` gives the asset prices that follow."""
    kept = list(holdings)

    def at(price: Decimal) -> PoolMargin:
        moved = [row._replace(mark=price) if row.instrument == instrument else row for row in kept]
        return evaluate_pool(balances, moved, price_at(price), rules)

    return at


def slope_edges(balances: Mapping[str, Decimal], holdings: Iterable[Holding], instrument: str,
                value_per_price: Callable[[str], Decimal], rules: Rules) -> set[Decimal]:
    """The prices of an instrument at which a bracket or a haircut tier of the pool begins, rounded down.

    `value_per_price(asset)` is what one unit of the asset is worth per unit of the price (zero where it does not
    depend on it).
    """
    edges: set[Decimal] = set()
    for row in holdings:
        if row.instrument == instrument:
            edges.update(rules.requirement(instrument).edges(row))
    for asset, amount in balances.items():
        per_price = value_per_price(asset)
        if per_price:
            edges.update(rules.collateral(asset).edges(amount * per_price))
    return edges


def price_at_line(balances: Mapping[str, Decimal], holdings: Iterable[Holding], instrument: str, price_of: PriceOf,
                  rules: Rules, *, line: Decimal | None = None, passed: bool = False) -> Decimal | None:
    """The price of an instrument at which its pool stands at a line (the liquidation line unless one is given).

    For pools whose assets are not valued by that instrument's mark; else `liquidation_price` with `repriced_pool`.
    Rounding: 18 places, towards the mark. None where the line is never reached, or is passed already; with `passed`
    then the price at which the pool would stand on it again, as venues' formulas give it.
    """
    kept = list(holdings)
    held = next((row for row in kept if row.instrument == instrument), None)
    if held is None:
        return None
    repriced = repriced_pool(balances, kept, instrument, lambda price: price_of, rules)
    edges = slope_edges(balances, kept, instrument, lambda asset: ZERO, rules)
    at = rules.thresholds.liquidation if line is None else line
    found = liquidation_price(repriced, mark=held.mark, line=at, rising=held.size < 0, edges=edges, curved=True)
    if found is not None or not passed:
        return found

    def headroom(price: Decimal) -> Decimal:
        pool = repriced(price)
        return pool.margin_equity - at * pool.maintenance_margin

    far = PRICE_MAX if held.size > 0 else PRICE_MIN
    here, there = headroom(held.mark), headroom(far)
    if here >= 0 or there < 0:
        return None
    return crossing(headroom, near=far, near_value=there, far=held.mark, far_value=here)
