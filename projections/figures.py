"""The figures of a pool as a reader wants them: margins, status, and the prices at which it would be liquidated.

What the calculator answers for a portfolio that somebody made up, and what a report says of an account, is the same
computation over `ledger.risk`. Prices here are for display: decisions are taken on margins alone. This file never
reads a log, a table or a clock, and never records anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from functools import partial
from typing import Final, NamedTuple

from ledger.amounts import FINEST, ONE, ZERO, divide_down, divide_up, plain
from ledger.risk.collateral import ValueTiers
from ledger.risk.liquidation import bankruptcy_price, liquidation_price, repriced_pool, slope_edges
from ledger.risk.margin import Holding, PoolMargin, PositionMargin, PriceOf, Rules, Status, evaluate_pool, status
from ledger.risk.open_orders import OpenOrder
from ledger.risk.requirement import Brackets
from ledger.risk.surroundings import NOTHING_KNOWN, Surroundings


class Valuation:
    """What one unit of an asset is worth in the valuation asset: the product of the marks on the asset's path."""

    def __init__(self, marks: Mapping[str, Decimal], path_of: Callable[[str], Sequence[str] | None]) -> None:
        """`path_of(asset)` names marks; empty for the valuation asset itself, None where nothing values the asset."""
        self._marks, self._path_of = marks, path_of

    def price_of(self, asset: str) -> Decimal | None:
        """The worth of one unit at the marks."""
        return self._worth(asset, self._marks)

    def repriced(self, name: str, price: Decimal) -> PriceOf:
        """The worth of one unit of any asset, were this one mark another."""
        marks = {**self._marks, name: price}
        return lambda asset: self._worth(asset, marks)

    def per_price(self, name: str, asset: str) -> Decimal:
        """The worth of one unit of an asset per unit of this mark; zero where it does not depend on it."""
        if name not in (self._path_of(asset) or ()):
            return ZERO
        return self.repriced(name, ONE)(asset) or ZERO

    def _worth(self, asset: str, marks: Mapping[str, Decimal]) -> Decimal | None:
        path = self._path_of(asset)
        if path is None:
            return None
        worth = ONE
        for name in path:
            mark = marks.get(name)
            if mark is None:
                return None
            worth *= mark
        return worth


class PositionFigures(NamedTuple):
    """A position, its share of the margins (None where its settlement asset has no price), and its two prices."""

    holding: Holding
    margin: PositionMargin | None
    liquidation_price: Decimal | None
    bankruptcy_price: Decimal | None


class PoolFigures(NamedTuple):
    """A pool, its margin and status by its figures alone, and its positions."""

    pool: str
    margin: PoolMargin
    status: Status
    positions: tuple[PositionFigures, ...]


def pool_figures(pool: str, balances: Mapping[str, Decimal], holdings: Iterable[Holding], valuation: Valuation,
                 rules: Rules, orders: Iterable[OpenOrder] = (), around: Surroundings = NOTHING_KNOWN, *,
                 with_prices: bool = True) -> PoolFigures:
    """The figures of one pool; exact but for the prices, which are rounded to 18 places (`ledger.risk.liquidation`).

    Open orders count in the margins, not in the prices: they are cancelled before anything is liquidated.
    Either price is that of the position's instrument alone, all other marks as they are; None where there is none,
    and for all without `with_prices`, which saves most of the time.
    """
    kept = list(holdings)
    margin = evaluate_pool(balances, kept, valuation.price_of, rules, orders=orders, around=around)
    shares = {row.holding[:3]: row for row in margin.positions}
    rows = []
    for holding in kept:
        share = shares.get(holding[:3])
        # What a price would do to an equity that is not known whole cannot be said.
        is_asked = with_prices and not margin.unpriced
        prices = _prices(balances, kept, holding, valuation, rules) if is_asked else (None, None)
        rows.append(PositionFigures(holding, share, *prices))
    return PoolFigures(pool, margin, status(margin, rules.thresholds), tuple(rows))


def _prices(balances: Mapping[str, Decimal], holdings: Sequence[Holding], holding: Holding, valuation: Valuation,
            rules: Rules) -> tuple[Decimal | None, Decimal | None]:
    """The liquidation price and the bankruptcy price of one position within its pool."""
    instrument = holding.instrument
    repriced = repriced_pool(balances, holdings, instrument, partial(valuation.repriced, instrument), rules)
    edges = slope_edges(balances, holdings, instrument, partial(valuation.per_price, instrument), rules)
    curved = (holding.contract_type == "inverse" or rules.pool is not None
              or not isinstance(rules.requirement(instrument), Brackets)
              or not all(isinstance(rules.collateral(asset), ValueTiers) for asset in balances))
    liquidation = liquidation_price(repriced, mark=holding.mark, line=rules.thresholds.liquidation,
                                    rising=holding.size < 0, edges=edges, curved=curved)
    return liquidation, bankruptcy_price(repriced, mark=holding.mark, curved=curved)


# --- figures that follow from margins ----------------------------------------------------------------------------


def free_collateral(margin: PoolMargin) -> Decimal:
    """Margin equity beyond initial margin; negative where initial margin is breached."""
    return margin.free


def withdrawable_value(margin: PoolMargin) -> Decimal:
    """What could leave a cross pool, as value: the lesser of free collateral and collateral value, not below zero."""
    if margin.unpriced:
        return ZERO
    return max(ZERO, min(free_collateral(margin), margin.collateral_value))


def ratio(numerator: Decimal, denominator: Decimal) -> Decimal | None:
    """A quotient for display, rounded down to 18 places; None where the denominator is zero."""
    return divide_down(numerator, denominator, FINEST) if denominator else None


def loan_to_value(*, liabilities: Decimal, collateral_value: Decimal) -> Decimal | None:
    """Liabilities / collateral value after haircuts, rounded up to 18 places; None for debt without collateral."""
    if not liabilities:
        return ZERO
    return divide_up(liabilities, collateral_value, FINEST) if collateral_value else None


def entry_price(holding: Holding) -> Decimal:
    """The average price that a position was opened at: cost / (size x contract size), down to 18 places.

    Of an inverse position size x contract size / -cost.
    """
    sign = 1 if holding.size > 0 else -1
    if holding.contract_type == "inverse":
        return divide_down(sign * holding.size * holding.contract_size, -sign * holding.cost, FINEST)
    return divide_down(sign * holding.cost, sign * holding.size * holding.contract_size, FINEST)


# --- figures for the eye -----------------------------------------------------------------------------------------

_DISPLAY: Final = Context(prec=300)
_PLACES: Final = 4
_DIGITS: Final = 6


def brief(value: Decimal, *, rounding: str = ROUND_HALF_EVEN) -> str:
    """A figure as people read it: to four places, a small one to six digits. Never for a figure that is reckoned on."""
    if value.as_tuple().exponent >= -_PLACES:  # type: ignore[operator] # our figures are finite
        return plain(value)
    places = _PLACES if value.adjusted() >= 0 else max(_PLACES, _DIGITS - 1 - value.adjusted())
    return plain(value.quantize(ONE.scaleb(-places), rounding, _DISPLAY))


def brief_ratio(value: Decimal) -> str:
    """A margin ratio for the eye, rounded down, so that what is below a line never looks as if it stood on it."""
    return plain(value.quantize(ONE.scaleb(-_PLACES), ROUND_FLOOR, _DISPLAY))
