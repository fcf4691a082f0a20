"""The reference of records, events and rejections, written out from the models: docs/events.md and docs/events.json.

`python -m infra.reference` writes both; `--check` compares instead and ends with 3 where they differ. The committed
schema is what holds an event to its TOPIC: a field that changes shows up here as a difference. This file never
decides what an event is (`ledger.events` does), and nothing at run time reads what it writes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from functools import cache
from inspect import cleandoc
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ledger.between_shards import BETWEEN
from ledger.commands import COMMANDS, Command
from ledger.errors import REJECTIONS
from ledger.events import EVENTS, TOPICS, UPCASTS, Event

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
SCHEMA_FILE: Final = "events.json"
PAGE_FILE: Final = "events.md"
MISMATCH: Final = 3
# A summary is to be read at a glance; the whole difference is one `git diff` away.
DIFF_LINES_MAX: Final = 20

INTRODUCTION: Final = """\
# Records, events and rejections

Written from the models by `make docs`; do not edit.
The same as JSON schemas, topic by topic: [events.json](events.json).

A **record** comes in and asks for something. An **event** is what has happened: a *fact* is the outcome of a record,
a *decision* is the ledger's own and carries what it rests on. A record that cannot be applied becomes a **rejection**,
itself a fact.

In the log an event is the compact JSON of its fields in the order below; absent fields are left out.
Its topic ends in a version: an event that changes gets a new one, and the old one stays readable for ever.

| type | in JSON |
| --- | --- |
| decimal | a string with an exact decimal: `"12.5"` |
| time | a string, RFC 3339 in `Z`, at most nanoseconds: `"2019-09-24T18:00:00Z"` |
| text, id | a string; an id has 1 to 200 characters, none of them a control character |
| integer, boolean | a number without a point; `true` or `false` |
| list of X, map to X | an array; an object whose values are X |
| object | any JSON object |
"""


class _Schema(GenerateJsonSchema):
    """JSON schemas as the log is: no nulls, since absent fields are left out, and no titles that repeat names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if "default" in schema and schema["default"] is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


@cache
def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model as read; its fields in declared order, all other keys sorted."""
    return model.model_json_schema(schema_generator=_Schema)


def event_schemas() -> dict[str, dict[str, Any]]:
    """Topic -> JSON schema of the event's state, sorted by topic."""
    return {topic: schema_of(TOPICS[topic]) for topic in sorted(TOPICS)}


# --- the JSON file -----------------------------------------------------------------------------------------------


def schema_text() -> str:
    """All of docs/events.json. The order of fields counts: it is the order of the bytes in the log."""
    return json.dumps(event_schemas(), indent=2, ensure_ascii=False) + "\n"


# --- the page ----------------------------------------------------------------------------------------------------


def page_text() -> str:
    """All of docs/events.md."""
    blocks = [INTRODUCTION, *_records(), *_rejections(), *_catalogue(), *_sections(), *_parts(), *_past()]
    return "\n".join(blocks)


def _records() -> Iterator[str]:
    yield "## Records\n"
    yield "Every record has `type`, `id` (a `price` with `sequence` may go without) and `time`; and further:\n"
    yield _records_of(COMMANDS)
    yield "The shards of one service send each other, by topics of the service's own:\n"
    yield _records_of(BETWEEN)


def _records_of(kinds: Mapping[str, type[Command]]) -> str:
    rows = []
    for kind, command in kinds.items():
        fields = schema_of(command)
        names = [name for name in fields["properties"] if name not in Command.model_fields]
        required = [f"`{name}`" for name in names if name in fields["required"]]
        optional = [f"`{name}`" for name in names if name not in fields["required"]]
        outcomes = [_link(event.__name__) for event in EVENTS if event.ANSWERS == kind]
        asks = _doc(command).removeprefix(f"`{kind}`: ")
        rows.append([f"`{kind}`", asks, ", ".join(required), ", ".join(optional), ", ".join(outcomes)])
    return _table(["type", "asks", "fields", "optional", "outcome"], rows)


def _rejections() -> Iterator[str]:
    yield "## Rejections\n"
    yield f"The `reason` of a {_link('RecordRejected')}; the codes are stable.\n"
    yield _table(["reason", "meaning"], [[f"`{reason}`", meaning] for reason, meaning in REJECTIONS.items()])


def _catalogue() -> Iterator[str]:
    yield "## Events\n"
    rows = [[_link(event.__name__), f"`{event.TOPIC}`", _nature(event)] for event in EVENTS]
    yield _table(["event", "topic", "what it is"], rows)
    yield f"Every event begins with these fields; `cause` is a {_link('Cause')}.\n"
    yield _fields(schema_of(Event))


def _sections() -> Iterator[str]:
    for event in EVENTS:
        yield f"### {event.__name__}\n"
        yield f"`{event.TOPIC}` - {_nature(event)}.\n"
        yield _doc(event) + "\n"
        own = _fields(schema_of(event), leaving_out=set(Event.model_fields))
        if own:
            yield own


def _parts() -> Iterator[str]:
    yield "## Parts\n"
    yield "What events are made of.\n"
    parts: dict[str, dict[str, Any]] = {}
    for event in EVENTS:
        parts.update(schema_of(event).get("$defs", {}))
    for name in sorted(parts):
        yield f"### {name}\n"
        if description := parts[name].get("description"):
            yield description + "\n"
        yield _fields(parts[name])


def _past() -> Iterator[str]:
    if UPCASTS:
        yield "## Past versions\n"
        yield "No longer written; read as the version that follows.\n"
        yield _table(["topic", "read as"], [[f"`{old}`", f"`{new}`"] for old, (new, _) in sorted(UPCASTS.items())])


def _nature(event: type[Event]) -> str:
    match event.ANSWERS:
        case None:
            return "decision"
        case "*":
            return "fact, from records that cannot be applied"
        case kind:
            return f"fact, from `{kind}` records"


def _fields(schema: dict[str, Any], *, leaving_out: set[str] | None = None) -> str:
    required = schema.get("required", [])
    rows = [[f"`{name}`", type_name(rule), "" if name in required else "yes"]
            for name, rule in schema.get("properties", {}).items() if name not in (leaving_out or ())]
    return _table(["field", "type", "optional"], rows) if rows else ""


def type_name(rule: dict[str, Any]) -> str:
    """The JSON schema of one field in the words of the page; ValueError for a schema that it has no words for."""
    match rule:
        case {"anyOf": [*options]}:
            return " or ".join(type_name(option) for option in options)
        case {"$ref": str(reference)}:
            return _link(reference.rsplit("/", 1)[1])
        case {"enum": [*values]}:
            return ", ".join(f"`{value}`" for value in values)
        case {"const": value}:
            return f"`{value}`"
        case {"type": "array", "items": {"enum": _} as item}:
            return f"list of any of {type_name(item)}"
        case {"type": "array", "items": dict(item)}:
            return f"list of {type_name(item)}"
        case {"type": "object", "additionalProperties": dict(item)}:
            return f"map to {type_name(item)}"
        case {"type": "object"}:
            return "object"
        case {"type": "string", "format": "date-time"}:
            return "time"
        case {"type": "string", "pattern": str(pattern)}:
            return "decimal" if pattern.startswith("^-?") else "id"
        case {"type": "string"}:
            return "text"
        case {"type": "integer" | "boolean" as plain}:
            return str(plain)
        case _:
            raise ValueError(f"expected a schema that the page has words for, was {json.dumps(rule)}")


def _doc(model: type[BaseModel]) -> str:
    return cleandoc(model.__doc__ or "")


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("\n", " ") for cell in line) + " |\n" for line in lines)


# --- what differs ------------------------------------------------------------------------------------------------


def differences(docs: Path = DOCS) -> list[str]:
    """How the files in `docs` differ from the models, a line each; empty where they agree."""
    committed = _read(docs / SCHEMA_FILE)
    found = []
    if committed != schema_text():
        found += _schema_differences(committed) or [f"{SCHEMA_FILE}: written in another form"]
    page = _read(docs / PAGE_FILE)
    if page != page_text():
        changes = unified_diff(page.splitlines(), page_text().splitlines(), PAGE_FILE, "models", n=0, lineterm="")
        lines = [line[:160] for line in changes]
        found += [f"{PAGE_FILE}: differs", *(f"  {line}" for line in islice(lines, DIFF_LINES_MAX))]
        if len(lines) > DIFF_LINES_MAX:
            found.append(f"  and {len(lines) - DIFF_LINES_MAX} lines more")
    return found


def _schema_differences(committed: str) -> list[str]:
    try:
        old = json.loads(committed) if committed else {}
    except json.JSONDecodeError as fault:
        return [f"{SCHEMA_FILE}: expected JSON, came {fault}"]
    new = event_schemas()
    found = [f"{topic}: is in {SCHEMA_FILE}, but no event has this topic any more" for topic in old if topic not in new]
    for topic, schema in new.items():
        if topic not in old:
            found.append(f"{topic}: a new event")
        elif json.dumps(schema) != json.dumps(old[topic]):
            changes = _field_changes(_shape(old[topic]), _shape(schema))
            found.append(f"{topic}: {'; '.join(changes) or 'wording only'}")
    return found


def _field_changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    changes = [f"{name} removed" for name in old if name not in new]
    changes += [f"{name} added" for name in new if name not in old]
    changes += [f"{name} changed" for name in new if name in old and old[name] != new[name]]
    if [name for name in old if name in new] != [name for name in new if name in old]:
        changes.append("fields in another order")
    return changes


def _shape(schema: dict[str, Any]) -> dict[str, str]:
    """Field (of a part: `Part.field`) -> all that counts of it; descriptions do not."""
    shape = {}
    for part, model in [("", schema), *schema.get("$defs", {}).items()]:
        prefix = f"{part}." if part else ""
        for key, rule in model.items():
            if key not in ("properties", "description", "required", "$defs"):
                shape[f"{prefix}({key})"] = json.dumps(rule, sort_keys=True)
        for name, rule in model.get("properties", {}).items():
            counted = {key: value for key, value in rule.items() if key != "description"}
            shape[prefix + name] = json.dumps([counted, name in model.get("required", [])], sort_keys=True)
    return shape


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


# --- the command -------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Write both files, or with `--check` print how they differ and answer 3; 0 where all is well."""
    parser = argparse.ArgumentParser(prog="python -m infra.reference", description="Write docs/events.md and .json.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 3 where the files differ")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of the two files")
    options = parser.parse_args(arguments)
    found = differences(options.docs)
    if options.check:
        if found:
            print("The reference differs from the models; `make docs` writes it anew:", *found, sep="\n",
                  file=sys.stderr)
        return MISMATCH if found else 0
    options.docs.mkdir(parents=True, exist_ok=True)
    (options.docs / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
    (options.docs / PAGE_FILE).write_text(page_text(), encoding="utf-8")
    print(*(found or ["nothing to change"]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
