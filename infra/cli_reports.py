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
from projections.accounts import ACCOUNTS
from projections.funds import FUND_MOVEMENTS, FUNDS, SHORTFALLS
from projections.margin_calls import MARGIN_CALLS
from projections.markets import MARKETS

CallState = Literal["open", "met", "withdrawn", "expired", "superseded"]
AccountStatus = Literal["healthy", "warning", "margin-call", "liquidation"]
# Other events of one record, shown beside its outcome; a record that tips thousands of accounts has more.
WITH_IT_MAX: Final = 500


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
            near = get_close_matches(name, short.values(), n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else "; docs/events.md lists them"
            raise CommandFault(f"--type: expected an event type such as fill-posted, came {name!r}{hint}")
        found |= topics
    return frozenset(found)


def _matching(select: Any, start: int, account: str | None, topics: frozenset[str]) -> Iterator[str]:
    """The rows from a position on as lines of JSON; the state's fields are those stored, in their order."""
    after, stream_of = start - 1, f"account:{account}"
    while rows := select(after, 5_000):
        for position, stream, version, topic, state in rows:
            if topics and topic not in topics:
                continue
            body = _state(position, state)
            if account is not None and stream != stream_of and body.get("account") != account:
                continue
            time, cause = body.pop("time", None), body.pop("cause", None)
            yield json_line({"position": position, "topic": topic, "time": time, "stream": stream,
                             "version": version, "cause": cause, "body": body})
        after = rows[-1][0]


def _state(position: int, state: bytes) -> dict[str, Any]:
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
        rows = _fields(islice(queries.select(view.models, ACCOUNTS, {"status": status}), output.rows_max))
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
        _require_account(view, account)
        report = queries.account_report(view.house, account)
        if report is None:
            raise CommandFault(f"account {account!r} is in the read models and not in the log; `clearing replay` shows "
                               "where they differ", MISMATCH)
        calls = [call for call in _calls(view, account) if call["state"] == "open"]
        unit = report.valuation_asset
        parts = [
            Part("pools", _fields(report.pools), queries.PoolLine._fields, {
                "pool": "pool", "status": "status", "by marks": "status_by_marks",
                f"account equity {unit}": "account_equity", "margin equity": "margin_equity", "IM": "initial_margin",
                "MM": "maintenance_margin", "ratio": "margin_ratio", "free collateral": "free_collateral",
                "withdrawable": "withdrawable", "call": "call_id", "liquidation": "liquidation_id"}, "No pools."),
            Part("balances", _fields(report.balances), queries.BalanceLine._fields, {
                "pool": "pool", "asset": "asset", "amount": "amount", f"worth {unit}": "value",
                "withdrawable": "withdrawable"}, "No balances."),
            Part("positions", _fields(report.positions), queries.PositionLine._fields, {
                "instrument": "instrument", "side": "position_side", "size": "size", "entry": "entry_price",
                "mark": "mark", f"notional {unit}": "notional", "unrealised PnL": "unrealised_pnl",
                "IM": "initial_margin", "MM": "maintenance_margin", "liquidation price": "liquidation_price",
                "bankruptcy price": "bankruptcy_price", "pool": "pool"}, "No positions."),
            Part("open_calls", calls, MARGIN_CALLS.columns, _CALL_COLUMNS, "")]
        head = {name: getattr(report, name) for name in (
            "account", "kind", "margin_mode", "position_mode", "status", "rulebook", "valuation_asset")}
        title = (f"Account {account}: {report.kind}, {report.margin_mode} margin, {report.position_mode} positions, "
                 f"rulebook {report.rulebook}; {report.status} {_place(view)}")
        show(Output(as_json, as_csv, part), parts, head={**head, **view.place()}, title=title)


def _require_account(view: View, name: str) -> None:
    if queries.find_account(view.models, name) is None:
        near = queries.like_account(view.models, name)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `clearing accounts` lists them"
        raise CommandFault(f"expected an account that is open {_place(view)}, came {name!r}{hint}")


def _place(view: View) -> str:
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
            _require_account(view, account)
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
    """Print an account's statement: opening balance, every posting, closing balance.

    \b
    Example: clearing statement alice --ledger desk.db --from 2019-09-24T00:00:00Z --to 2019-09-25T00:00:00Z
    """
    if start is not None and end is not None and start >= end:
        raise CommandFault("expected --from before --to; what happened at --to belongs to the next statement")
    with reading(ledger, at, at_position) as view:
        _require_account(view, account)
        found = queries.statement(view.models, account, start=start, end=end)
        lines = _fields(found.lines)
        for line in lines:
            line["event"] = _short(line["topic"])
        parts = [
            Part("lines", lines, (*queries.StatementLine._fields, "event"), {
                "position": "position", "time": "time", "event": "event", "pool": "pool", "asset": "asset",
                "amount": "amount", "balance": "balance"}, "No postings."),
            Part("balances", _fields(found.balances), queries.StatementBalance._fields, {
                "asset": "asset", "opening": "opening", "credits": "credits", "debits": "debits",
                "closing": "closing"}, "No balances.")]
        show(Output(as_json, as_csv, part), parts, head={"account": account, **view.place()},
             title=f"Statement of account {account} {_place(view)}")


def _short(topic: str) -> str:
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
            _require_account(view, account)
        output, first = Output(as_json, as_csv, part), 0 if start is None else start.first(view.reader)
        postings = _fields(islice(queries.journal(view.models, account=account, asset=asset, start=first),
                                  output.rows_max if limit is None else limit))
        for line in postings:
            line["amount"] = Decimal(line["amount"])
            line["event"] = _short(line["topic"])
        owners, sums = queries.trial_balance(view.models)
        open_sums = [row for row in sums if row.total]
        parts = [
            Part("postings", postings, tuple(postings[0]) if postings else _JOURNAL_FIELDS, {
                "position": "position", "time": "time", "event": "event", "owner": "owner", "account": "account",
                "pool": "pool", "asset": "asset", "amount": "amount"}, "No postings."),
            Part("trial_balance", _fields(owners), ("owner", "asset", "amount"), {
                "owner": "owner", "asset": "asset", "amount": "amount"}, "No balances."),
            Part("sums", _fields(sums), queries.Sum._fields, {"asset": "asset", "sum of all owners": "total"}, "")]
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
            as_csv: AsCsv = False) -> None:
    """List the instruments, their marks and what was traded.

    \b
    Example: clearing markets --ledger desk.db
    """
    with reading(ledger, at, at_position) as view:
        rows = _fields(queries.select(view.models, MARKETS))
        for row in rows:
            row["provisional"] = bool(row["provisional"])
        show(Output(as_json, as_csv), [Part("markets", rows, MARKETS.columns, {
            "instrument": "instrument", "mark": "mark_price", "mark time": "mark_time", "source": "mark_source",
            "provisional": "provisional", "funding index": "funding_index", "open interest": "open_interest",
            "volume": "volume", "fills": "fills", "prices": "prices_accepted", "late": "rejected_late",
            "step": "rejected_step"}, "No instruments.")])


def funds(ledger: LedgerPath, at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False,
          as_csv: AsCsv = False, part: PartName = None) -> None:
    """Show the funds, their movements, and the shortfalls they were asked to bear.

    \b
    Example: clearing funds --ledger desk.db
    """
    with reading(ledger, at, at_position) as view:
        movements = _fields(queries.select(view.models, FUND_MOVEMENTS))
        for row in movements:
            row.update({name: Decimal(row[name]) for name in ("amount", "before", "after")})
        parts = [
            Part("funds", _fields(queries.select(view.models, FUNDS)), FUNDS.columns, {
                "fund": "fund", "asset": "asset", "balance": "balance", "contributed": "contributed",
                "recovered": "recovered", "drawn": "drawn", "withdrawn": "withdrawn"}, "No fund holds anything."),
            Part("movements", movements, FUND_MOVEMENTS.columns, {
                "position": "position", "time": "time", "fund": "fund", "kind": "kind", "asset": "asset",
                "amount": "amount", "after": "after", "account": "account", "claim": "claim_id"}, ""),
            Part("shortfalls", _fields(queries.select(view.models, SHORTFALLS, order=("position",))),
                 SHORTFALLS.columns, {
                "claim": "claim_id", "account": "account", "pool": "pool", "time": "time", "asset": "asset",
                "amount": "amount", "covered": "covered", "uncovered": "uncovered"}, "No shortfalls.")]
        show(Output(as_json, as_csv, part), parts, head=view.place())


def _fields(rows: Iterable[Any]) -> list[dict[str, Any]]:
    return [queries.as_fields(row) for row in rows]


# --- one record --------------------------------------------------------------------------------------------------


def record(
        source: Annotated[str, typer.Argument(
            metavar="SOURCE", help="Where it came from: a file's name without .gz, a topic.", show_default=False)],
        name: Annotated[str, typer.Argument(
            metavar="ID", help="Its id; the number of its line where it has none.", show_default=False)],
        ledger: LedgerPath, at: AtTime = None, at_position: AtPosition = None, as_json: AsJson = False,
        as_csv: AsCsv = False, part: PartName = None) -> None:
    """Tell what became of a record.

    \b
    Example: clearing record records.jsonl fill-17 --ledger desk.db
    """
    with reading(ledger, at, at_position) as view:
        found = _outcomes(view, source, name)
        first = found[0]
        _, stream, _, topic, state = view.reader.rows(first["position"] - 1, 1)[0]
        parts = [
            Part("outcomes", found, tuple(first), {
                "position": "position", "log time": "time", "outcome": "outcome", "reason": "reason", "line": "line",
                "message": "message"}, ""),
            Part("with_it", _with_it(view, first["position"]), ("position", "event", "stream"), {
                "position": "position", "event": "event", "stream": "stream"}, "It caused no other event.")]
        event = _state(first["position"], state)
        head = {"source": source, "id": name, "outcome": first["outcome"], "reason": first["reason"],
                "position": first["position"], "topic": topic, "stream": stream, "event": event}
        why = f"\n{first['reason']}: {first['message']}" if first["message"] else ""
        # Of the one outcome that most records have, the title says it all.
        show(Output(as_json, as_csv, part), parts if len(found) > 1 or as_json or as_csv else parts[1:], head=head,
             title=f"Record {name} of {source}: {first['outcome']} at log position {first['position']}, as {topic} in "
                   f"{stream}{why}\n{json_line(event)}")


def _outcomes(view: View, source: str, name: str) -> list[dict[str, Any]]:
    rows = queries.records(view.models, source, name)
    if not rows and name.isascii() and name.isdigit() and len(name) < 19:
        rows = queries.records_at_line(view.models, source, int(name))
    if rows:
        return _fields(rows)
    # Accepted prices stand in the inbox alone.
    seen = view.reader.ask("SELECT position FROM inbox WHERE source = ? AND kind = 'id' AND record_key = ?",
                           (source, name))
    if seen and seen[0][0] <= view.position:
        position = int(seen[0][0])
        event = view.reader.select(position - 1, 1)[0].event
        cause = event.cause.model_dump(mode="json")
        return [{"source": source, "type": cause["type"], "record_id": name, "line": cause["line"],
                 "partition": cause["partition"], "offset": cause["offset"], "position": position,
                 "topic": event.TOPIC, "outcome": "applied", "reason": None, "message": None,
                 "time": json.loads(event.model_dump_json())["time"], "record_time": cause["time"]}]
    raise CommandFault(_unknown_record(view, source, name))


def _unknown_record(view: View, source: str, name: str) -> str:
    sources = queries.sources(view.models)
    if source not in sources:
        known = ", ".join(sources[:8]) + (" ..." if len(sources) > 8 else "")
        return f"expected a source that the ledger has records of ({known or 'it has none'}), came {source!r}"
    return (f"expected a record of {source} that the ledger has an outcome of, came {name!r}; a price with a sequence "
            "stands in `clearing events --type price-recorded`, by its instrument")


def _with_it(view: View, position: int) -> list[dict[str, Any]]:
    """The other events of the same record: they stand next to its outcome without a gap."""
    rows = view.reader.rows(max(0, position - 1 - WITH_IT_MAX), 2 * WITH_IT_MAX)
    causes = {row[0]: _state(row[0], row[4]).get("cause") for row in rows if row[0] <= view.position}
    first = last = position
    while causes.get(first - 1) == causes[position]:
        first -= 1
    while causes.get(last + 1) == causes[position]:
        last += 1
    return [{"position": row[0], "event": _short(row[3]), "stream": row[1]}
            for row in rows if first <= row[0] <= last and row[0] != position]
