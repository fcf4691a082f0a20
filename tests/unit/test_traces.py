"""Trace contexts between intake and relay: what is kept, for how long, and for whom."""

from __future__ import annotations

import pytest

from infra.streams.traces import HEADER, Traces
from ledger.events import Cause

CONTEXT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def cause(offset: int | None, partition: int | None = 0, source: str = "prices.v1") -> Cause:
    return Cause(source=source, type="price", partition=partition, offset=offset)


def test_a_records_context_goes_with_what_it_caused_and_nothing_else() -> None:
    traces = Traces()
    traces.note("prices.v1", 0, 7, [("other", b"x"), (HEADER, CONTEXT)])

    assert [(HEADER, CONTEXT)] == traces.of(cause(7))
    assert [] == traces.of(cause(8)) == traces.of(cause(7, 1)) == traces.of(cause(7, source="accounts.v1"))
    assert [] == traces.of(cause(None)) == traces.of(cause(7, None))


@pytest.mark.parametrize("value", [b"", b"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", CONTEXT + b"\n",
                                   CONTEXT[:-1], b"\xff" * 55, None])
def test_what_is_no_context_is_not_carried(value: bytes | None) -> None:
    traces = Traces()
    traces.note("prices.v1", 0, 7, [(HEADER, value)])

    assert [] == traces.of(cause(7))


def test_the_oldest_contexts_are_forgotten_first() -> None:
    traces = Traces(kept=2)
    for offset in range(3):
        traces.note("prices.v1", 0, offset, [(HEADER, CONTEXT)])

    assert [False, True, True] == [bool(traces.of(cause(offset))) for offset in range(3)]
