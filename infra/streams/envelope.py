"""What may be wrapped around a record in Kafka, and taking it off: Confluent framing, structured CloudEvents.

What does not look like either is given on as it came, for `infra.streams.records` to judge. This file never judges
a record, and never raises on any bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from pydantic_core import from_json, to_json

from infra.streams.records import RECORD_BYTES_MAX

# A schema id of 4 bytes behind a zero; newer registries put one of 16 bytes behind a one.
_FRAMES: Final = {0: 5, 1: 17}
_STRUCTURED: Final = b"application/cloudevents+json"
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}").fullmatch

Headers = Sequence[tuple[str, bytes | None]]


def record_of(value: bytes | None, headers: Headers = ()) -> bytes:
    """The bytes of the record that a message carries; of a message without a value, none."""
    if value is None:
        return b""
    if value and value[0] in _FRAMES:
        # JSON begins with neither byte, so nothing is taken for a frame that is none.
        value = value[_FRAMES[value[0]]:]
    if len(value) <= RECORD_BYTES_MAX and _is_structured(value, headers):
        return _data_of(value)
    return value


def _is_structured(value: bytes, headers: Headers) -> bool:
    return b'"specversion"' in value or any(
        name.lower() == "content-type" and (kind or b"").startswith(_STRUCTURED) for name, kind in headers)


def _data_of(value: bytes) -> bytes:
    """The data of a structured CloudEvent; the whole where it is none, or where a key stands twice in it."""
    try:
        event = from_json(value, allow_inf_nan=False)
        if not isinstance(event, dict) or "specversion" not in event or not isinstance(event.get("data"), dict):
            return value
        json.loads(value, object_pairs_hook=_single_keys)
        return to_json(event["data"])
    except ValueError:
        return value


def _single_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def traceparent_of(headers: Headers) -> str | None:
    """The W3C trace context that a message carries, None where there is none that is well formed."""
    for name, value in headers:
        if name.lower() == "traceparent" and value is not None and _TRACEPARENT(value):
            return value.decode()
    return None
