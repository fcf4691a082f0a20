"""The way back from an event to the record that it answers: what a repeat is compared with, and what replay feeds.

Every event that answers a record holds all of the record's known fields, so nothing else need be kept. This file
never decides anything.
"""

from __future__ import annotations

from typing import Any

from ledger.between_shards import BETWEEN
from ledger.commands import COMMANDS, Command
from ledger.errors import BrokenInvariant
from ledger.events import Event, RecordRejected, RulebookPublished

# Record fields that the event holds under another name.
_RENAMED: dict[type[Event], dict[str, str]] = {RulebookPublished: {"effective": "requested_effective"}}


def command_of(event: Event) -> Command | None:
    """The command that an event answers; None for decisions and for rejected records."""
    if event.ANSWERS is None or isinstance(event, RecordRejected):
        return None
    kind = COMMANDS.get(event.ANSWERS) or BETWEEN[event.ANSWERS]
    if event.cause.time is None:
        raise BrokenInvariant(f"{event.TOPIC} answers a record without a time")
    renamed = _RENAMED.get(type(event), {})
    fields: dict[str, Any] = {"id": event.cause.id, "time": event.cause.time, "replay_of": event.cause.replay_of}
    known = type(event).model_fields
    for name in kind.model_fields:
        source = renamed.get(name, name)
        if name not in fields and source in known:
            value = getattr(event, source)
            if value is not None:
                fields[name] = value
    return kind(**fields)
