"""The streaming service as an AsyncAPI 3 document, written out from the models: docs/asyncapi.json.

`python -m infra.streams.asyncapi` writes it, `--check` compares with what is committed and ends with 3 where a client
could notice. Nothing at run time reads what it writes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from infra.streams import messages, topics
from ledger.commands import COMMANDS, Command
from ledger.events import Event, Evidence

FILE: Final = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json"
MISMATCH: Final = 3
INPUTS: Final = {
    topics.ACCOUNTS: ("account", "account-settings", "deposit", "withdrawal", "withdrawal-settled",
                      "withdrawal-cancelled", "fill", "order", "isolated-margin", "transfer", "liquidation-result"),
    topics.PRICES: ("price", "funding", "settlement"),
    topics.CONTROL: ("rulebook", "asset", "instrument", "interest-rate", "fund-movement", "halt", "resume", "clock")}
OUTPUTS: Final[dict[str, tuple[type[Event], ...]]] = {
    topics.MARGIN_CALLS: messages.CALLS, topics.LIQUIDATIONS: messages.LIQUIDATION_STEPS,
    topics.OUTCOMES: messages.OUTCOMES, topics.REJECTIONS: messages.REJECTIONS}
_TEXT: Final = {"type": "string"}
_HEADERS: Final = {"type": "object", "properties": {
    name: _TEXT for name in ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject",
                             "content-type", "traceparent")}}


def document() -> dict[str, Any]:
    """The whole document."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, kinds in INPUTS.items():
        channels[name] = _channel(name, {kind: _record(COMMANDS[kind]) for kind in kinds})
        operations[f"receive-{name}"] = {"action": "receive", "channel": {"$ref": f"#/channels/{name}"}}
    for name, events in OUTPUTS.items():
        channels[name] = _channel(name, {_name(event): _message(event) for event in events})
        operations[f"send-{name}"] = {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
    channels[topics.ACCOUNT_STATE] = _channel(topics.ACCOUNT_STATE, {"account-state": {
        "headers": _HEADERS, "payload": {"type": "object", "required": ["account", "log_position", "event"],
                                         "properties": {name: {} for name in _STATE_FIELDS}}}})
    operations[f"send-{topics.ACCOUNT_STATE}"] = {
        "action": "send", "channel": {"$ref": f"#/channels/{topics.ACCOUNT_STATE}"}}
    return {"asyncapi": "3.0.0",
            "info": {"title": "Clearing ledger", "version": "1.0.0", "license": {"name": "Apache-2.0"},
                     "description": "Records in, decisions out. Amounts are decimal strings, times RFC 3339 in Z."},
            "defaultContentType": "application/json", "channels": channels, "operations": operations}


_STATE_FIELDS: Final = ("log_position", "event", "account", "version", "kind", "margin_mode", "position_mode",
                        "status", "balances", "positions", "calls", "liquidations", "holds", "debts")


def _channel(name: str, found: dict[str, Any]) -> dict[str, Any]:
    policy = "compact" if name == topics.ACCOUNT_STATE else "delete"
    return {"address": topics.DEFAULT_PREFIX + name, "messages": found,
            "bindings": {"kafka": {"topicConfiguration": {"cleanup.policy": [policy]}, "bindingVersion": "0.5.0"}}}


def _record(kind: type[Command]) -> dict[str, Any]:
    schema = kind.model_json_schema()
    schema["properties"] = {"type": {"const": kind.TYPE}, **schema["properties"]}
    schema["required"] = ["type", *schema.get("required", [])]
    return {"payload": schema}


def _message(event: type[Event]) -> dict[str, Any]:
    """The payload of `messages`: position and event, the event's fields, its evidence at the same level."""
    schema = event.model_json_schema()
    fields = {name: rule for name, rule in schema["properties"].items() if name not in ("cause", "evidence", "time")}
    if "evidence" in event.model_fields:
        evidence = Evidence.model_json_schema()
        fields |= evidence["properties"]
        schema.setdefault("$defs", {}).update(evidence.get("$defs", {}))
    schema["properties"] = {"log_position": {"type": "integer"}, "event": {"const": _name(event)}, **fields}
    schema["required"] = ["log_position", "event", *(name for name in schema.get("required", []) if name in fields)]
    # Readers ignore what a later version adds.
    schema["additionalProperties"] = True
    return {"headers": _HEADERS, "payload": schema}


def _name(event: type[Event]) -> str:
    return event.TOPIC.partition(":")[0].removeprefix("clearing.")


def text() -> str:
    """The document as it is committed."""
    return json.dumps(document(), indent=1) + "\n"


def breaking(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What a client of the old document could stumble over: lost channels, messages or fields, new required ones in."""
    found = []
    for name, channel in old["channels"].items():
        now = new["channels"].get(name)
        if now is None or now["address"] != channel["address"]:
            found.append(f"{name}: the channel is gone")
            continue
        for kind, message in channel["messages"].items():
            there = now["messages"].get(kind)
            if there is None:
                found.append(f"{name}: the message {kind} is gone")
                continue
            before, after = message["payload"], there["payload"]
            found += [f"{name}: {kind}.{field} is gone" for field in before["properties"]
                      if field not in after["properties"]]
            if name in INPUTS:
                found += [f"{name}: {kind}.{field} is required now" for field in after["required"]
                          if field not in before["required"]]
            else:
                found += [f"{name}: {kind}.{field} may be absent now" for field in before["required"]
                          if field not in after["required"]]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Write the document, or with `--check` compare; 3 where it differs."""
    parser = argparse.ArgumentParser(prog="python -m infra.streams.asyncapi", description="Write docs/asyncapi.json.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 3 where it differs")
    options = parser.parse_args(arguments)
    committed = FILE.read_text("utf-8") if FILE.exists() else ""
    if options.check:
        if committed != text():
            print("docs/asyncapi.json differs from the models; `make docs` writes it anew", file=sys.stderr)
            return MISMATCH
        return 0
    if committed:
        print(*(breaking(json.loads(committed), document()) or ["nothing that a client could stumble over"]), sep="\n")
    FILE.write_text(text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
