"""Events to bytes and back: the compact JSON of an event's fields in declared order, absent fields left out.

These bytes are what the log stores and what its Merkle leaves hash. Topics are looked up in the catalogue, never
imported from a row's text; older versions pass through the upcast table. This file never touches a database.
"""

from __future__ import annotations

import json

from pydantic import ValidationError

from ledger.errors import LedgerUnreadable
from ledger.events import TOPICS, UPCASTS, Event


def encode(event: Event) -> bytes:
    """The state bytes of an event, as stored and hashed."""
    return type(event).__pydantic_serializer__.to_json(event, exclude_none=True)


def decode(topic: str, state: bytes) -> Event:
    """The event of a row. LedgerUnreadable names a topic that is not in the catalogue, or the field at fault."""
    upcast = UPCASTS.get(topic)
    while upcast is not None:
        topic, change = upcast
        state = json.dumps(change(json.loads(state))).encode()
        upcast = UPCASTS.get(topic)
    kind = TOPICS.get(topic)
    if kind is None:
        raise LedgerUnreadable(f"expected an event topic of this version, came {topic!r}")
    try:
        event: Event = kind.__pydantic_validator__.validate_json(state)
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        raise LedgerUnreadable(f"{topic}: {path}: {first['msg']}") from None
    return event
