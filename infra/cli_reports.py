"""The commands that read: the log as it is, and what the read models and the figures at marks say of it.

Each opens the ledger beside its writer, brings the read models up to the log or to an earlier point, and prints.
Nothing here writes an event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from difflib import get_close_matches
from itertools import islice
from typing import Annotated, Any, Final, Literal

import typer

from infra.cli_console import (
    MISMATCH,
    AsCsv,
    AsJson,
    AtPosition,
    AtTime,
    CommandFault,
    LedgerPath,
    Output,
    Part,
    PartName,
    Point,
    View,
    hint,
    json_line,
    open_reader,
    parse_point,
    parse_time,
    reading,
    remark,
    show,
)
from ledger.amounts import plain
from ledger.events import TOPICS, UPCASTS
from projections import queries
from projections.account_report import BalanceLine, PoolLine, PositionLine, account_report
from projections.accounts import ACCOUNTS, HOLDS, ORDERS, SETTINGS
from projections.activity import CHARGES
from projections.funds import FUND_MOVEMENTS, FUNDS, SHORTFALLS
from projections.margin_calls import MARGIN_CALLS
from projections.markets import HALTS, MARKET_SOURCES, MARKETS

CallState = Literal["open", "met", "withdrawn", "expired", "superseded"]
AccountStatus = Literal["healthy", "warning", "margin-call", "liquidation"]


# --- the log -----------------------------------------------------------------------------------------------------


def events(
        ledger: LedgerPath,
        account: Annotated[str | None, typer.Option("--account", metavar="ID", help="Only this account's.")] = None,
        types: Annotated[list[str] | None, typer.Option(
            "--type", metavar="TOPIC", help="Only events of this type, such as fill-posted; may be repeated.")] = None,
        start: Annotated[Point | None, typer.Option(
            "--from", metavar="N|TIME", parser=parse_point, help="From this log position or time on.")] = None,
        limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=0, help="At most so many.")] = None,
        as_json: Annotated[bool, typer.Option("--json", hidden=True)] = False) -> None:
    """Print the log as JSON lines.

    \b
    Example: clearing events --ledger desk.db --account alice --type margin-call-issued
    """
    wanted = _topics(types or [])
    with open_reader(ledger) as reader:
        first = 1 if start is None else start.first(reader)
        found = _matching(reader.rows, max(1, first), account, wanted)
        for line in islice(found, limit):
            typer.echo(line)


def _topics(names: Sequence[str]) -> frozenset[str]:
    """The topics that are meant, each with or without `clearing.` and version."""
    known = {*TOPICS, *UPCASTS}
    short = {topic: topic.removeprefix("clearing.").partition(":")[0] for topic in known}
    found = set()
    for name in names:
        topics = {topic for topic in known if name in (topic, topic.removeprefix("clearing."), short[topic],
                                                       topic.partition(":")[0])}
        if not topics:
            listed = hint(get_close_matches(name, short.values(), n=3), "docs/events.md lists them")
            raise CommandFault(f"--type: expected an event type such as fill-posted, came {name!r}{listed}")
        found |= topics
    return frozenset(found)


def _matching(select: Any, start: int, account: str | None, topics: frozenset[str]) -> Iterator[str]:
    """The rows from a position on as lines of JSON; the state's fields are those stored, in their order."""
    after, stream_of = start - 1, f"account:{account}"
    while rows := select(after, 5_000):
        for position, stream, version, topic, state in rows:
            if topics and topic not in topics:
                continue
            body = state_of(position, state)
            if account is not None and stream != stream_of and body.get("account") != account:
                continue
            time, cause = body.pop("time", None), body.pop("cause", None)
            yield json_line({"position": position, "topic": topic, "time": time, "stream": stream,
                             "version": version, "cause": cause, "body": body})
        after = rows[-1][0]


def state_of(position: int, state: bytes) -> dict[str, Any]:
    """The JSON object of a row; what cannot be read was not written by a ledger."""
    try:
        found = json.loads(state)
    except ValueError as fault:
        raise CommandFault(f"log position {position}: expected the JSON of an event, came: {fault}; `clearing replay` "
                           "finds what differs", MISMATCH) from None
    if not isinstance(found, dict):
        raise CommandFault(f"log position {position}: expected a JSON object, came {type(found).__name__}; `clearing "
                           "replay` finds what differs", MISMATCH)
    return found


# --- accounts ----------------------------------------------------------------------------------------------------


def accounts(
        ledger: LedgerPath,
        status: Annotated[AccountStatus | None, typer.Option("--status", help="Only accounts of this status.")] = None,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List the accounts and where they stand.

    \b
    Example: clearing accounts --ledger desk.db --status margin-call
    """
    with reading(ledger, at, at_position) as view:
        output = Output(as_json, as_csv)
        rows = fields_of(islice(queries.select(view.models, ACCOUNTS, {"status": status}), output.rows_max))
        show(output, [Part("accounts", rows, ACCOUNTS.columns, {
            "account": "account", "kind": "kind", "status": "status", "margin": "margin_mode", "fills": "fills",
            "last event": "last_event_at", "log position": "log_position"}, "No accounts.")])


def account(
        account: Annotated[str, typer.Argument(metavar="ID", help="The account.", show_default=False)],
        ledger: LedgerPath, at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False,
        as_csv: AsCsv = False, part: PartName = None) -> None:
    """Show an account: its pools, balances and positions at marks.

    \b
    Example: clearing account alice --ledger desk.db --at 2019-09-24T18:00:00Z
    """
    with reading(ledger, at, at_position) as view:
        require_account(view, account)
        report = account_report(view.house, account)
        if report is None:
            raise CommandFault(f"account {account!r} is in the read models and not in the log; `clearing replay` shows "
                               "where they differ", MISMATCH)
        calls = [call for call in _calls(view, account) if call["state"] == "open"]
        unit = report.valuation_asset
        parts = [
            Part("pools", fields_of(report.pools), PoolLine._fields, {
                "pool": "pool", "status": "status", "by marks": "status_by_marks",
                f"account equity {unit}": "account_equity", "margin equity": "margin_equity", "IM": "initial_margin",
                "of orders": "reserved_margin", "MM": "maintenance_margin", "ratio": "margin_ratio",
                "free collateral": "free_collateral", "withdrawable": "withdrawable", "call": "call_id",
                "liquidation": "liquidation_id"}, "No pools."),
            Part("balances", fields_of(report.balances), BalanceLine._fields, {
                "pool": "pool", "asset": "asset", "amount": "amount", "interest": "accrued_interest",
                f"worth {unit}": "value", "withdrawable": "withdrawable"}, "No balances."),
            Part("positions", fields_of(report.positions), PositionLine._fields, {
                "instrument": "instrument", "side": "position_side", "size": "size", "entry": "entry_price",
                "mark": "mark", f"notional {unit}": "notional", "unrealised PnL": "unrealised_pnl",
                "funding": "accrued_funding", "IM": "initial_margin", "MM": "maintenance_margin",
                "liquidation price": "liquidation_price", "bankruptcy price": "bankruptcy_price",
                "settled in": "settlement_asset", "pool": "pool"}, "No positions."),
            Part("open_calls", calls, MARGIN_CALLS.columns, _CALL_COLUMNS, ""),
            *_account_parts(view, account)]
        head = {name: getattr(report, name) for name in (
            "account", "kind", "margin_mode", "position_mode", "status", "rulebook", "valuation_asset",
            "withdrawals_blocked")}
        title = (f"Account {account}: {report.kind}, {report.margin_mode} margin, {report.position_mode} positions, "
                 f"rulebook {report.rulebook}; {report.status} {place_of(view)}")
        show(Output(as_json, as_csv, part), parts, head={**head, **view.place()}, title=title)


def _account_parts(view: View, account: str) -> list[Part]:
    """What an account has beside what its margin is made of; a table without rows is left out for the eye."""
    of = {"account": account}
    settings = fields_of(queries.select(view.models, SETTINGS, of))
    for row in settings:
        row["instrument"] = row["instrument"] or None
    return [
        Part("orders", fields_of(queries.select(view.models, ORDERS, of)), ORDERS.columns, ORDER_COLUMNS, ""),
        Part("holds", fields_of(queries.select(view.models, HOLDS, of)), HOLDS.columns, HOLD_COLUMNS, ""),
        Part("settings", settings, SETTINGS.columns, {
            "instrument": "instrument", "leverage": "leverage", "margin": "margin_mode"}, ""),
        Part("charges", fields_of(queries.select(view.models, CHARGES, of)), CHARGES.columns, CHARGE_COLUMNS, ""),
        Part("halts", fields_of(queries.halts(view.models, account)), HALTS.columns, HALT_COLUMNS, "")]


ORDER_COLUMNS: Final = {
    "order": "order_id", "instrument": "instrument", "side": "side", "remaining": "remaining", "price": "price",
    "reduce only": "reduce_only", "last told": "last_at"}
HOLD_COLUMNS: Final = {"withdrawal": "withdrawal", "asset": "asset", "amount": "amount", "held": "held_at"}
CHARGE_COLUMNS: Final = {
    "kind": "kind", "of": "place", "asset": "asset", "paid": "paid", "received": "received", "net": "net",
    "times": "times", "last": "last_at"}
HALT_COLUMNS: Final = {
    "scope": "scope", "what": "what", "since": "since", "by": "by", "reason": "reason"}


def require_account(view: View, name: str) -> None:
    if queries.find_account(view.models, name) is None:
        listed = hint(queries.like_account(view.models, name), "`clearing accounts` lists them")
        raise CommandFault(f"expected an account that is open {place_of(view)}, came {name!r}{listed}")


def place_of(view: View) -> str:
    return f"at log position {view.position}" + (f", log time {view.time}" if view.position else "")


def calls(
        ledger: LedgerPath,
        state: Annotated[CallState | None, typer.Option("--state", help="Only calls in this state.")] = None,
        account: Annotated[str | None, typer.Option("--account", metavar="ID", help="Only this account's.")] = None,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List margin calls, and why each was issued.

    \b
    Example: clearing calls --ledger desk.db --state open
    """
    with reading(ledger, at, at_position) as view:
        if account is not None:
            require_account(view, account)
        rows = list(_calls(view, account, state))
        show(Output(as_json, as_csv), [Part("calls", rows, (*MARGIN_CALLS.columns, "marks"), {
            "account": "account", **_CALL_COLUMNS, "state": "state", "ended": "ended_at"}, "No margin calls.")])


_CALL_COLUMNS: Final = {
    "call": "call_id", "pool": "pool", "issued": "issued_at", "deadline": "deadline", "amount": "call_amount",
    "asset": "call_asset", "ratio": "margin_ratio", "cured at": "cure_level", "at marks": "marks"}


def _calls(view: View, account: str | None, state: str | None = None) -> Iterator[dict[str, Any]]:
    """Calls with the marks that made them in one text, beside the whole evidence."""
    for call in queries.margin_calls(view.models, account=account, state=state):
        fields = queries.as_fields(call)
        marks = fields["issue_evidence"]["marks"]
        yield {**fields, "marks": ", ".join(f"{name} {mark['price']}" for name, mark in marks.items())}


def statement(
        account: Annotated[str, typer.Argument(metavar="ID", help="The account.", show_default=False)],
        ledger: LedgerPath,
        start: Annotated[int | None, typer.Option(
            "--from", metavar="TIME", parser=parse_time, help="From this log time on.")] = None,
        end: Annotated[int | None, typer.Option(
            "--to", metavar="TIME", parser=parse_time, help="Before this log time.")] = None,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False,
        part: PartName = None) -> None:
    """Print an account's statement: opening balance, every posting, closing balance, by asset and by pool.

    \b
    Example: clearing statement alice --ledger desk.db --from 2019-09-24T00:00:00Z --to 2019-09-25T00:00:00Z
    """
    if start is not None and end is not None and start >= end:
        raise CommandFault("expected --from before --to; what happened at --to belongs to the next statement")
    with reading(ledger, at, at_position) as view:
        require_account(view, account)
        found = queries.statement(view.models, account, start=start, end=end)
        lines, totals = fields_of(found.lines), fields_of(found.totals)
        for line in (*lines, *totals):
            line["event"] = short(line["topic"])
        parts = [
            Part("lines", lines, (*queries.StatementLine._fields, "event"), {
                "position": "position", "time": "time", "event": "event", "pool": "pool", "asset": "asset",
                "amount": "amount", "in the pool": "pool_balance", "balance": "balance"}, "No postings."),
            Part("balances", fields_of(found.balances), queries.StatementBalance._fields, {
                "asset": "asset", "opening": "opening", "credits": "credits", "debits": "debits",
                "closing": "closing"}, "No balances."),
            Part("pools", fields_of(found.pools), queries.StatementPool._fields, {
                "pool": "pool", "asset": "asset", "opening": "opening", "credits": "credits", "debits": "debits",
                "closing": "closing"}, ""),
            Part("totals", totals, (*queries.StatementTotal._fields, "event"), {
                "event": "event", "asset": "asset", "amount": "amount"}, "")]
        show(Output(as_json, as_csv, part), parts, head={"account": account, **view.place()},
             title=f"Statement of account {account} {place_of(view)}")


def short(topic: str) -> str:
    return topic.removeprefix("clearing.").partition(":")[0]


# --- the journal, markets, funds ---------------------------------------------------------------------------------


def journal(
        ledger: LedgerPath,
        account: Annotated[str | None, typer.Option("--account", metavar="ID", help="Only this account's.")] = None,
        asset: Annotated[str | None, typer.Option("--asset", metavar="ASSET", help="Only this asset.")] = None,
        start: Annotated[Point | None, typer.Option(
            "--from", metavar="N|TIME", parser=parse_point, help="From this log position or time on.")] = None,
        limit: Annotated[int | None, typer.Option(
            "--limit", metavar="N", min=0, help="At most so many postings.")] = None,
        at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False, as_csv: AsCsv = False,
        part: PartName = None) -> None:
    """Print the double-entry journal, and whether it balances.

    \b
    Example: clearing journal --ledger desk.db --asset USD --limit 20
    """
    with reading(ledger, at, at_position) as view:
        if account is not None:
            require_account(view, account)
        output, first = Output(as_json, as_csv, part), 0 if start is None else start.first(view.reader)
        postings = fields_of(islice(queries.journal(view.models, account=account, asset=asset, start=first),
                                  output.rows_max if limit is None else limit))
        for line in postings:
            line["amount"] = Decimal(line["amount"])
            line["event"] = short(line["topic"])
        owners, sums = queries.trial_balance(view.models)
        open_sums = [row for row in sums if row.total]
        parts = [
            Part("postings", postings, tuple(postings[0]) if postings else _JOURNAL_FIELDS, {
                "position": "position", "time": "time", "event": "event", "owner": "owner", "account": "account",
                "pool": "pool", "asset": "asset", "amount": "amount"}, "No postings."),
            Part("trial_balance", fields_of(owners), ("owner", "asset", "amount"), {
                "owner": "owner", "asset": "asset", "amount": "amount"}, "No balances."),
            Part("sums", fields_of(sums), queries.Sum._fields, {"asset": "asset", "sum of all owners": "total"}, "")]
        show(output, parts, head={**view.place(), "balanced": not open_sums})
        _judge_balance(open_sums, as_table=not (as_json or as_csv))


_JOURNAL_FIELDS: Final = ("position", "line", "time", "topic", "stream", "owner", "account", "pool", "asset", "amount",
                          "event")


def _judge_balance(open_sums: Sequence[queries.Sum], *, as_table: bool) -> None:
    if open_sums:
        left = ", ".join(f"{plain(row.total)} {row.asset}" for row in open_sums)
        raise CommandFault(f"expected every asset to sum to zero over all owners, came {left}; `clearing replay` "
                           "finds the event", MISMATCH)
    if as_table:
        typer.echo("\nBalanced: every asset sums to exactly zero over all owners.")
    else:
        remark("balanced")


def markets(ledger: LedgerPath, at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False,
            as_csv: AsCsv = False, part: PartName = None) -> None:
    """List the instruments, their marks, the sources of these, and what was traded.

    \b
    Example: clearing markets --ledger desk.db
    """
    with reading(ledger, at, at_position) as view:
        sources = fields_of(queries.select(view.models, MARKET_SOURCES))
        rows = fields_of(queries.select(view.models, MARKETS))
        for row in rows:
            row.update({name: bool(row[name]) for name in ("is_median", "provisional", "settled")})
            row["sources"] = [source for source in sources if source["instrument"] == row["instrument"]]
        parts = [
            Part("markets", rows, (*MARKETS.columns, "sources"), {
                "instrument": "instrument", "mark": "mark_price", "mark time": "mark_time", "source": "mark_source",
                "median": "is_median", "provisional": "provisional", "settled": "settled",
                "funding index": "funding_index", "open interest": "open_interest", "volume": "volume",
                "fills": "fills", "prices": "prices_accepted", "late": "rejected_late", "step": "rejected_step"},
                "No instruments."),
            Part("sources", sources, MARKET_SOURCES.columns, {
                "instrument": "instrument", "source": "source", "last price": "last_price", "kind": "last_kind",
                "time": "last_time", "last mark": "mark_price", "sequence": "sequence", "accepted": "accepted",
                "rejected": "rejected", "gaps": "gaps"}, "")]
        show(Output(as_json, as_csv, part), parts)


def funds(ledger: LedgerPath, at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False,
          as_csv: AsCsv = False, part: PartName = None) -> None:
    """Show the funds, their movements, and the shortfalls they were asked to bear.

    \b
    Example: clearing funds --ledger desk.db
    """
    with reading(ledger, at, at_position) as view:
        movements = fields_of(queries.select(view.models, FUND_MOVEMENTS))
        for row in movements:
            row.update({name: Decimal(row[name]) for name in ("amount", "before", "after")})
        parts = [
            Part("funds", fields_of(queries.select(view.models, FUNDS)), FUNDS.columns, {
                "fund": "fund", "asset": "asset", "balance": "balance", "contributed": "contributed",
                "recovered": "recovered", "drawn": "drawn", "withdrawn": "withdrawn"}, "No fund holds anything."),
            Part("movements", movements, FUND_MOVEMENTS.columns, {
                "position": "position", "time": "time", "fund": "fund", "kind": "kind", "asset": "asset",
                "amount": "amount", "after": "after", "account": "account", "claim": "claim_id"}, ""),
            Part("shortfalls", fields_of(queries.select(view.models, SHORTFALLS, order=("position",))),
                 SHORTFALLS.columns, {
                "claim": "claim_id", "account": "account", "pool": "pool", "time": "time", "asset": "asset",
                "amount": "amount", "covered": "covered", "uncovered": "uncovered",
                "recourse": "recourse"}, "No shortfalls.")]
        show(Output(as_json, as_csv, part), parts, head=view.place())


def fields_of(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [queries.as_fields(row) for row in rows]
