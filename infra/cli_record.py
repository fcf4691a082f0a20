"""The command that tells what became of one record: its outcome, what it tipped, and what became of it later.

It is found by its id, or, where it has none, by where it stood or by a price's instrument and sequence. This file
never writes an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

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
    PartName,
    View,
    json_line,
    reading,
    show,
)
from infra.cli_reports import fields_of, short, state_of
from ledger.amounts import rfc3339
from ledger.events import Deposited, PriceRecorded, PriceRejected, WithdrawalHeld
from projections import queries
from projections.activity import MOVEMENTS

PAGE: Final = 5_000
# Other events of one record, shown beside its outcome; a record that tips thousands of accounts has more.
WITH_IT_MAX: Final = 500


def record(
        source: Annotated[str, typer.Argument(
            metavar="SOURCE", help="Where it came from: a file's name without .gz, a topic.", show_default=False)],
        name: Annotated[str, typer.Argument(
            metavar="ID", help="Its id; where it has none, its line, PARTITION@OFFSET or INSTRUMENT:SEQUENCE.",
            show_default=False)],
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
                "position": "position", "event": "event", "stream": "stream"}, "It caused no other event."),
            Part("afterwards", _afterwards(view, first), ("position", "time", "what", "by"), {
                "position": "position", "log time": "time", "what": "what", "by": "by"}, "")]
        event = state_of(first["position"], state)
        head = {"source": source, "id": name, "outcome": first["outcome"], "reason": first["reason"],
                "position": first["position"], "topic": topic, "stream": stream, "event": event}
        why = f"\n{first['reason']}: {first['message']}" if first["message"] else ""
        # Of the one outcome that most records have, the title says it all.
        show(Output(as_json, as_csv, part), parts if len(found) > 1 or as_json or as_csv else parts[1:], head=head,
             title=f"Record {name} of {source}: {first['outcome']} at log position {first['position']}, as {topic} in "
                   f"{stream}{why}\n{json_line(event)}")


def _outcomes(view: View, source: str, name: str) -> list[dict[str, Any]]:
    """All outcomes of what is known by this name, in log order."""
    rows = queries.records(view.models, source, name)
    if not rows and _is_number(name):
        rows = queries.records_at(view.models, source, line=int(name))
    if not rows and all(map(_is_number, name.split("@", 1))) and "@" in name:
        partition, offset = map(int, name.split("@"))
        rows = queries.records_at(view.models, source, partition=partition, offset=offset)
    if rows:
        return fields_of(rows)
    # Accepted prices stand in the inbox alone, and those with a sequence not even there.
    seen = view.reader.ask("SELECT position FROM inbox WHERE source = ? AND kind = 'id' AND record_key = ?",
                           (source, name))
    positions = [int(row[0]) for row in seen] or list(_prices_without_id(view, source, name))
    found = [_outcome_at(view, position) for position in positions if position <= view.position]
    if found:
        return found
    raise CommandFault(_unknown_record(view, source, name))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _prices_without_id(view: View, source: str, name: str) -> Iterator[int]:
    """Where prices stand that have but a sequence: the log itself is searched, and only for a name that may be one."""
    if not _is_number(name.rpartition(":")[2]):
        return
    after = 0
    while rows := view.reader.rows(after, PAGE):
        for position, _, _, topic, state in rows:
            if topic in _PRICES:
                event = state_of(position, state)
                cause = event["cause"]
                if cause["source"] == source and name in (
                        str(cause.get("line")), f"{cause.get('partition')}@{cause.get('offset')}",
                        f"{event['instrument']}:{event.get('sequence')}"):
                    yield position
        after = rows[-1][0]


def _outcome_at(view: View, position: int) -> dict[str, Any]:
    """The outcome that stands at a log position, as the read model of records would have it."""
    event: Any = view.reader.select(position - 1, 1)[0].event
    cause = event.cause.model_dump(mode="json")
    rejected = event.TOPIC == PriceRejected.TOPIC
    return {"source": cause["source"], "type": cause["type"], "record_id": cause["id"], "line": cause["line"],
            "partition": cause["partition"], "offset": cause["offset"], "position": position, "topic": event.TOPIC,
            "outcome": "rejected" if rejected else "applied", "reason": event.reason if rejected else None,
            "message": event.message if rejected else None, "time": rfc3339(event.time),
            "record_time": cause["time"], "field": None, "replay_of": cause["replay_of"]}


def _afterwards(view: View, outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """What later records did to what this one left: a hold that ended, a deposit undone, a dead letter replayed."""
    name, rows = outcome["record_id"], []
    if name is None:
        return []
    if outcome["topic"] in _REFERRED:
        account = state_of(outcome["position"], view.reader.rows(outcome["position"] - 1, 1)[0][4])["account"]
        for row in queries.select(view.models, MOVEMENTS, {"account": account, "reference": name}):
            cause = _cause(view, row.position)
            # A deposit is undone by a record of its own source, which alone knows it by that id.
            if row.position > outcome["position"] and row.kind in _REFERRED[outcome["topic"]] and (
                    row.kind != "deposit-reversed" or cause["source"] == outcome["source"]):
                rows.append({"position": row.position, "time": row.time, "what": row.kind, "by": json_line(cause)})
    for replay in queries.replays(view.models, outcome["source"], name):
        rows.append({"position": replay.position, "time": replay.time, "what": f"replayed, {replay.outcome}",
                     "by": replay.record_id})
    return rows


# What a later movement may refer to, by the topic of what it refers to.
_REFERRED: Final = {
    WithdrawalHeld.TOPIC: ("withdrawal-settled", "withdrawal-cancelled"), Deposited.TOPIC: ("deposit-reversed",)}
_PRICES: Final = (PriceRecorded.TOPIC, PriceRejected.TOPIC)


def _cause(view: View, position: int) -> dict[str, Any]:
    cause = state_of(position, view.reader.rows(position - 1, 1)[0][4])["cause"]
    return {name: cause[name] for name in ("source", "id", "line") if name in cause}


def _unknown_record(view: View, source: str, name: str) -> str:
    sources = queries.sources(view.models)
    if source not in sources:
        known = ", ".join(sources[:8]) + (" ..." if len(sources) > 8 else "")
        return f"expected a source that the ledger has records of ({known or 'it has none'}), came {source!r}"
    return (f"expected a record of {source} that the ledger has an outcome of, came {name!r}; a price without an id is "
            "named INSTRUMENT:SEQUENCE")


def _with_it(view: View, position: int) -> list[dict[str, Any]]:
    """The other events of the same record: they stand next to its outcome without a gap."""
    rows = view.reader.rows(max(0, position - 1 - WITH_IT_MAX), 2 * WITH_IT_MAX)
    causes = {row[0]: state_of(row[0], row[4]).get("cause") for row in rows if row[0] <= view.position}
    first = last = position
    while causes.get(first - 1) == causes[position]:
        first -= 1
    while causes.get(last + 1) == causes[position]:
        last += 1
    return [{"position": row[0], "event": short(row[3]), "stream": row[1]}
            for row in rows if first <= row[0] <= last and row[0] != position]
