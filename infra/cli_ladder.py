"""`clearing ladder`: how much of an instrument would be liquidated at each price, from the index of safe ranges.

It folds the log up to a point and prices nothing anew but who is near a line. Nothing here writes an event.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Annotated

import typer

from infra.cli_console import (
    AsCsv,
    AsJson,
    AtPosition,
    AtTime,
    CommandFault,
    LedgerPath,
    Output,
    Part,
    hint,
    reading,
    show,
    waiting,
)
from infra.cli_reports import fields_of, place_of
from ledger.amounts import PRICE_MAX, PRICE_MIN
from projections.ladder import Ladder, Rung, prices_around


def _price(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = Decimal("NaN")
    if not (found.is_finite() and PRICE_MIN <= found <= PRICE_MAX):
        raise typer.BadParameter(f"expected a price such as 8500.5, came {text!r}")
    return found


def ladder(
        instrument: Annotated[str, typer.Argument(metavar="INSTRUMENT", help="Whose price moves.",
                                                  show_default=False)],
        ledger: LedgerPath,
        prices: Annotated[list[Decimal] | None, typer.Option(
            "--price", metavar="PRICE", parser=_price,
            help="At this price; may be repeated. Unless told, from -50 to +50 % of the mark.")] = None,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List how much of an instrument would be liquidated at each price, were its mark there and all else as it is.

    \b
    Example: clearing ladder BTC-USD --ledger desk.db --price 9000 --price 8000
    """
    with reading(ledger, at, at_position) as view:
        house = view.house
        market = house.markets.get(instrument)
        if market is None:
            listed = hint(get_close_matches(instrument, house.markets, n=3), "`clearing markets` lists them")
            raise CommandFault(f"expected an instrument that is listed {place_of(view)}, came {instrument!r}{listed}")
        if market.mark is None:
            raise CommandFault(f"expected an instrument with a mark {place_of(view)}, {instrument} has none")
        with waiting("arming the ranges"):
            rungs = Ladder(house, instrument).rungs(sorted(set(prices)) if prices else prices_around(market))
        show(Output(as_json, as_csv), [Part("rungs", fields_of(rungs), Rung._fields, {
            "price": "price", "move %": "move_percent", "pools": "pools", "longs sold": "long_size",
            "notional sold": "long_notional", "shorts bought": "short_size", "notional bought": "short_notional",
            "notional": "notional"}, "No prices.")],
            head={"instrument": instrument, "mark": market.mark, "settlement_asset": market.settlement_asset,
                  **view.place()})
