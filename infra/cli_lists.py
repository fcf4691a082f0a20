"""The commands that list one kind of thing over all accounts: orders, liquidations, trades, charges, rejections ...

Each reads the read models as they stood at a point of the log. Nothing here writes an event.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, Final, Literal

import typer

from infra.cli_console import (
    AsCsv,
    AsJson,
    AtPosition,
    AtTime,
    LedgerPath,
    Output,
    Part,
    PartName,
    View,
    reading,
    show,
)
from infra.cli_reports import CHARGE_COLUMNS, HALT_COLUMNS, HOLD_COLUMNS, ORDER_COLUMNS, fields_of, require_account
from projections import queries
from projections.account_report import ReservedLine, reserved
from projections.accounts import HOLDS, ORDERS
from projections.activity import CHARGES, FILLS, MOVEMENTS
from projections.margin_calls import LIQUIDATION_ORDERS, LIQUIDATION_TOTALS, LIQUIDATIONS
from projections.markets import ASSETS, HALT_LINES, HALTS
from projections.records import RECORDS
from projections.tables import Table
from projections.trades import OPEN_TRADES

LiquidationState = Literal["running", "recovered", "closed", "shortfall"]
ChargeKind = Literal["fee", "funding", "interest"]
Unfulfilled = Literal["rejected", "refused"]
Account = Annotated[str | None, typer.Option("--account", metavar="ID", help="Only this account's.")]
Instrument = Annotated[str | None, typer.Option("--instrument", metavar="ID", help="Only of this instrument.")]

_AMOUNTS: Final = ("size", "price", "closed_size", "realised_pnl", "fee", "position_size", "amount")


def _rows(view: View, table: Table[Any], where: dict[str, Any] | None = None, *, output: Output,
          order: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Rows of a table as objects, the amounts of lines as numbers; of a terminal's table no more than it shows."""
    rows = fields_of(islice(queries.select(view.models, table, where, order=order), output.rows_max))
    return [_with_numbers(row) for row in rows]


def _with_numbers(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: Decimal(row[name]) for name in _AMOUNTS if isinstance(row.get(name), str)}


def _check(view: View, account: str | None) -> None:
    if account is not None:
        require_account(view, account)


def orders(
        ledger: LedgerPath, account: Account = None, instrument: Instrument = None, at: AtTime = None,
        at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False,
        part: PartName = None) -> None:
    """List the open orders, and the margin that they reserve.

    \b
    Example: clearing orders --ledger desk.db --account alice
    """
    with reading(ledger, at, at_position) as view:
        _check(view, account)
        output = Output(as_json, as_csv, part)
        rows = _rows(view, ORDERS, {"account": account, "instrument": instrument}, output=output)
        for row in rows:
            row["reduce_only"] = bool(row["reduce_only"])
        kept = [row for row in reserved(view.house, account) if instrument in (None, row.instrument)]
        show(output, [
            Part("orders", rows, ORDERS.columns, {"account": "account", **ORDER_COLUMNS}, "No open orders."),
            Part("reserved", fields_of(kept), ReservedLine._fields, {
                "account": "account", "instrument": "instrument", "orders": "orders",
                "reserved margin": "reserved_margin", "asset": "settlement_asset"}, "")], head=view.place())


def liquidations(
        ledger: LedgerPath, account: Account = None,
        state: Annotated[LiquidationState | None, typer.Option(
            "--state", help="Only liquidations in this state.")] = None,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False,
        part: PartName = None) -> None:
    """List the liquidations, their orders, what these filled, and what fell short.

    \b
    Example: clearing liquidations --ledger desk.db --state running
    """
    with reading(ledger, at, at_position) as view:
        _check(view, account)
        output = Output(as_json, as_csv, part)
        rows = _rows(view, LIQUIDATIONS, {"account": account, "state": state}, output=output,
                     order=("started_position",))
        meant = {row["liquidation_id"] for row in rows}

        def of_these(found: Iterable[dict[str, Any]], name: str = "liquidation_id") -> list[dict[str, Any]]:
            return [row for row in found if row[name] in meant]

        everything = Output(json=True)
        show(output, [
            Part("liquidations", rows, LIQUIDATIONS.columns, {
                "liquidation": "liquidation_id", "account": "account", "pool": "pool", "reason": "reason",
                "started": "started_at", "state": "state", "completed": "completed_at", "orders": "orders",
                "fills": "fills", "notional": "notional_filled", "of": "notional_asset",
                "shortfall": "shortfall_amount", "in": "shortfall_asset"}, "No liquidations."),
            Part("orders", of_these(_rows(view, LIQUIDATION_ORDERS, {"account": account}, output=everything,
                                          order=("placed_at", "order_id"))),
                 LIQUIDATION_ORDERS.columns, {
                     "order": "order_id", "liquidation": "liquidation_id", "instrument": "instrument", "side": "side",
                     "size": "size", "filled": "filled", "limit price": "limit_price", "placed": "placed_at",
                     "state": "state", "reason": "reason", "venue says": "result"}, ""),
            Part("totals", of_these(_rows(view, LIQUIDATION_TOTALS, output=everything)), LIQUIDATION_TOTALS.columns, {
                "liquidation": "liquidation_id", "asset": "asset", "notional": "notional_filled",
                "shortfall": "shortfall"}, ""),
            Part("conversions", of_these(_rows(view, MOVEMENTS, {"kind": "conversion", "account": account},
                                               output=everything), "reference"), MOVEMENTS.columns, {
                "position": "position", "time": "time", "liquidation": "reference", "asset": "asset",
                "amount": "amount"}, "")], head=view.place())


def trades(
        ledger: LedgerPath, account: Account = None, instrument: Instrument = None,
        trade: Annotated[str | None, typer.Option("--trade", metavar="ID", help="Only of this trade.")] = None,
        unmatched: Annotated[bool, typer.Option(
            "--unmatched", help="Only trades of which not as much was sold as bought.")] = False,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the fills, or with `--unmatched` the trades whose two sides have not both come.

    \b
    Example: clearing trades --ledger desk.db --unmatched
    """
    with reading(ledger, at, at_position) as view:
        _check(view, account)
        output = Output(as_json, as_csv)
        where = {"trade_id": trade, "instrument": instrument}
        if unmatched:
            sides = None if account is None else {row.trade_id for row in queries.select(
                view.models, FILLS, {"account": account, **where})}
            rows = [row for row in _rows(view, OPEN_TRADES, where, output=Output(json=True))
                    if sides is None or row["trade_id"] in sides]
            show(output, [Part("trades", rows, OPEN_TRADES.columns, {
                "trade": "trade_id", "instrument": "instrument", "bought": "bought", "sold": "sold"},
                "Every trade has both of its sides.")])
            return
        rows = _rows(view, FILLS, {"account": account, **where}, output=output)
        show(output, [Part("fills", rows, FILLS.columns, {
            "position": "position", "time": "time", "account": "account", "trade": "trade_id",
            "instrument": "instrument", "side": "side", "size": "size", "price": "price", "mode": "margin_mode",
            "leg": "position_side", "realised PnL": "realised_pnl", "in": "settlement_asset", "fee": "fee",
            "fee in": "fee_asset", "flags": "flags"}, "No fills.")])


def movements(
        ledger: LedgerPath, account: Account = None,
        kind: Annotated[str | None, typer.Option(
            "--kind", metavar="KIND", help="Only of this kind: deposit, withdrawal-held, transfer-sent ...")] = None,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False,
        part: PartName = None) -> None:
    """List deposits, withdrawals, holds, transfers and margin moved, also those refused, and what is held now.

    \b
    Example: clearing movements --ledger desk.db --account alice
    """
    with reading(ledger, at, at_position) as view:
        _check(view, account)
        output = Output(as_json, as_csv, part)
        rows = _rows(view, MOVEMENTS, {"account": account, "kind": kind}, output=output)
        held = _rows(view, HOLDS, {"account": account}, output=output)
        show(output, [
            Part("movements", rows, MOVEMENTS.columns, {
                "position": "position", "time": "time", "account": "account", "kind": "kind", "outcome": "outcome",
                "pool": "pool", "asset": "asset", "amount": "amount", "from or to": "counterpart",
                "reference": "reference", "reason": "reason"}, "No movements."),
            Part("holds", held, HOLDS.columns, {"account": "account", **HOLD_COLUMNS}, "")], head=view.place())


def charges(
        ledger: LedgerPath, account: Account = None,
        kind: Annotated[ChargeKind | None, typer.Option("--kind", help="Only fees, funding or interest.")] = None,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the fees, funding and interest that accounts have paid and received, by asset.

    \b
    Example: clearing charges --ledger desk.db --kind funding
    """
    with reading(ledger, at, at_position) as view:
        _check(view, account)
        output = Output(as_json, as_csv)
        rows = _rows(view, CHARGES, {"account": account, "kind": kind}, output=output)
        show(output, [Part("charges", rows, CHARGES.columns, {"account": "account", **CHARGE_COLUMNS},
                           "Nothing was paid or received.")])


def halts(ledger: LedgerPath, at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False,
          as_csv: AsCsv = False, part: PartName = None) -> None:
    """Show what is halted now, and every halt and resumption so far.

    \b
    Example: clearing halts --ledger desk.db --at 2019-09-24T18:00:00Z
    """
    with reading(ledger, at, at_position) as view:
        output = Output(as_json, as_csv, part)
        show(output, [
            Part("in_force", _rows(view, HALTS, output=output), HALTS.columns, HALT_COLUMNS, "Nothing is halted."),
            Part("history", _rows(view, HALT_LINES, output=output), HALT_LINES.columns, {
                "position": "position", "time": "time", "action": "action", "scope": "scope", "what": "what",
                "by": "by", "reason": "reason"}, "")], head=view.place())


def assets(ledger: LedgerPath, at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False,
           as_csv: AsCsv = False) -> None:
    """List the assets, what values them, and their interest rates.

    \b
    Example: clearing assets --ledger desk.db
    """
    with reading(ledger, at, at_position) as view:
        output = Output(as_json, as_csv)
        show(output, [Part("assets", _rows(view, ASSETS, output=output), ASSETS.columns, {
            "asset": "asset", "quantum": "quantum", "priced by": "pricing_instrument", "borrow rate": "borrow_rate",
            "lend rate": "lend_rate", "since": "rates_since"}, "No assets.")])


def rejections(
        ledger: LedgerPath,
        outcome: Annotated[Unfulfilled | None, typer.Option(
            "--outcome", help="Only rejected (could not be applied) or refused (the rules said no).")] = None,
        reason: Annotated[str | None, typer.Option("--reason", metavar="CODE", help="Only for this reason.")] = None,
        source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only of this source.")] = None,
        record_type: Annotated[str | None, typer.Option(
            "--type", metavar="TYPE", help="Only records of this type.")] = None,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the records that were rejected or refused, with place, reason and field.

    \b
    Example: clearing rejections --ledger desk.db --reason unknown-account
    """
    with reading(ledger, at, at_position) as view:
        output = Output(as_json, as_csv)
        found = queries.refusals(view.models, outcome=outcome, reason=reason, source=source, record_type=record_type)
        rows = fields_of(islice(found, output.rows_max))
        show(output, [Part("rejections", rows, RECORDS.columns, {
            "position": "position", "time": "time", "outcome": "outcome", "source": "source", "line": "line",
            "id": "record_id", "type": "type", "reason": "reason", "field": "field", "message": "message"},
            "Nothing was rejected or refused.")])
