"""Trace context: the `traceparent` of a record goes on with the messages that it causes.

It is kept in memory between a shard's intake and its relay, never in the log, whose bytes follow from records alone:
what was not published when a worker died goes out without it, and so does all that a relay of its own publishes. This
file never makes a trace up, and drops what has not the form of the W3C's recommendation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ledger.events import Cause

HEADER: Final = "traceparent"
# Of so many last records the context is kept; a relay that is further behind sends the older ones without.
KEPT_MAX: Final = 100_000
_CONTEXT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


class Traces:
    """The trace contexts of a shard's last records, by where each stood. One thread notes, another asks."""

    def __init__(self, kept: int = KEPT_MAX) -> None:
        self._kept = kept
        self._found: dict[tuple[str, int, int], bytes] = {}

    def note(self, topic: str, partition: int, offset: int, headers: Iterable[tuple[str, bytes | None]]) -> None:
        """Keep the trace context of a record, if its headers have one."""
        for name, value in headers:
            if name == HEADER and value is not None and _CONTEXT(value):
                self._found[topic, partition, offset] = value
                if len(self._found) > self._kept:
                    del self._found[next(iter(self._found))]

    def of(self, cause: Cause) -> list[tuple[str, bytes]]:
        """The headers that go with whatever a record caused."""
        if not self._found or cause.partition is None or cause.offset is None:
            return []
        found = self._found.get((cause.source, cause.partition, cause.offset))
        return [] if found is None else [(HEADER, found)]
