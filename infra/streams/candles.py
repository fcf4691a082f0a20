"""Candles: the rows of a CSV of 1-minute candles, read as the price records that contracts section 1 makes of them.

A row becomes four marks, a minute is closed by one clock. This file never uses the volume, never interpolates a
minute that has no row, and never asks the ledger: what is listed already comes in as `known`.

Neighbours: `infra.streams.records` (the same outcome for JSON), `ledger.commands` (what is built here).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterator
from decimal import Decimal
from typing import BinaryIO, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.streams.records import (
    RECORD_BYTES_MAX,
    Delivered,
    Fault,
    Place,
    numbered_lines,
    readable_time,
    rejection,
    shown,
)
from ledger.amounts import EXACT, NANOSECONDS, Time, WirePrice, nanoseconds, plain, rfc3339
from ledger.commands import Command, Id, ListAsset, ListInstrument, MoveClock, RecordPrice
from ledger.errors import Rejected

# The rows of one minute are held until it ends. No venue lists as many symbols; a file in which time stands still
# would otherwise be held whole.
MINUTE_ROWS_MAX: Final = 100_000
# The marks of a row and the clock of its minute must still be times that a record may have.
TIME_LIMIT: Final = nanoseconds("2261-12-31T23:59:00Z")

_VOLUME: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?").fullmatch

MARK_STEP: Final = 15 * NANOSECONDS
MINUTE: Final = 60 * NANOSECONDS

QUOTE_QUANTUM: Final = Decimal("0.01")
LISTED_QUANTUM: Final = Decimal("0.00000001")

# Two names of assets; 195 characters leave room for the id `list:<symbol>`.
_LISTABLE: Final = re.compile(r"(?=.{3,195}\Z)([^\s-]+)-([^\s-]+)", re.DOTALL).fullmatch


class Candle(BaseModel):
    """One row, each value in the grammar of records; its fields are the columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    time: Time
    symbol: Id
    open: WirePrice
    high: WirePrice
    low: WirePrice
    close: WirePrice
    # Not used, so its form is looser: venues write small volumes with an exponent.
    volume: str

    def marks(self) -> tuple[Decimal, Decimal, Decimal, Decimal]:
        """Open, then low and high, the nearer to the open first (ties: low), then close."""
        if EXACT.subtract(self.open, self.low) <= EXACT.subtract(self.high, self.open):
            return self.open, self.low, self.high, self.close
        return self.open, self.high, self.low, self.close


COLUMNS: Final = tuple(Candle.model_fields)
HEADER: Final = ",".join(COLUMNS)


def is_candles(header: bytes) -> bool:
    """Whether a file's first line looks like the header of candles; `read_candles` then says what is amiss with it."""
    return header.removeprefix(b"\xef\xbb\xbf").replace(b'"', b"").strip().lower().startswith(b"time,")


def read_candles(source: str, stream: BinaryIO, *, list_unknown: bool = False,
                 known: Container[str] = ()) -> Iterator[Delivered]:
    """The marks of a CSV of candles, minute by minute, each minute closed by a clock.

    With `list_unknown` a symbol BASE-QUOTE that is not in `known` is listed before its first marks, with those of
    its assets that are not in `known`; any other symbol that is not in `known` is a malformed row. A malformed
    row is delivered with its fault when it is met, and the stream goes on.

    Raises ValueError at once if the header is another one.
    """
    lines = numbered_lines(stream)
    _, header = next(lines, (0, b""))
    if header != HEADER.encode():
        raise ValueError(f"{source}: expected the header {HEADER!r}, came {shown(header.decode(errors='replace'))}")
    return _Reader(source, _Listing(known) if list_unknown else None).deliver(lines)


class _Row(NamedTuple):
    """A well-formed row, and where it stood."""

    line: int
    candle: Candle


class _Listing:
    """What must be listed before a symbol's first marks; each asset and each instrument once."""

    def __init__(self, known: Container[str]) -> None:
        self._known = known
        self._listed: set[str] = set()

    def of(self, candle: Candle) -> Iterator[Command]:
        """The quote asset, the instrument, the asset it trades; Rejected if the symbol is not BASE-QUOTE."""
        symbol, time = candle.symbol, candle.time
        if not self._is_new(symbol):
            return
        match = _LISTABLE(symbol)
        if match is None or match[1] == match[2]:
            raise Rejected("malformed", f"symbol: expected BASE-QUOTE, two assets, to list it, came {shown(symbol)}",
                           field="symbol")
        asset, quote = match.groups()
        if self._is_new(quote):
            yield ListAsset(id=f"list:{quote}", time=time, asset=quote, quantum=QUOTE_QUANTUM)
        yield ListInstrument(
            id=f"list:{symbol}", time=time, instrument=symbol, base=asset, quote=quote, contract_type="linear",
            tick_size=LISTED_QUANTUM, lot_size=LISTED_QUANTUM)
        if self._is_new(asset):
            yield ListAsset(
                id=f"list:{asset}", time=time, asset=asset, quantum=LISTED_QUANTUM, pricing_instrument=symbol)
        self._listed.update((quote, symbol, asset))

    def _is_new(self, name: str) -> bool:
        return name not in self._listed and name not in self._known


class _Reader:
    """One pass over a file: the rows of the minute under way, and how many marks each symbol has had."""

    def __init__(self, source: str, listing: _Listing | None) -> None:
        self._source = source
        self._listing = listing
        self._rows: list[_Row] = []
        # Until a row has come, any time may come.
        self._minute: int | None = None
        self._sequences: defaultdict[str, int] = defaultdict(int)

    def deliver(self, lines: Iterator[tuple[int, bytes]]) -> Iterator[Delivered]:
        for line, raw in lines:
            if not raw.strip():
                continue
            try:
                candle = _candle(raw)
                minute = candle.time - candle.time % MINUTE
                self._require_order(candle, minute)
                listings = list(self._listing.of(candle)) if self._listing else []
            except Rejected as rejected:
                yield Delivered(Place(self._source, line=line), None, _fault(rejected, raw), raw)
                continue
            if minute != self._minute:
                yield from self._close_minute()
                self._minute = minute
            for command in listings:
                yield self._built(line, command)
            self._rows.append(_Row(line, candle))
        yield from self._close_minute()

    def _require_order(self, candle: Candle, minute: int) -> None:
        if self._minute is None or minute > self._minute:
            return
        if minute < self._minute:
            raise Rejected("malformed", f"time: expected {rfc3339(self._minute)} or later, the minute under way, "
                                        f"came {rfc3339(candle.time)}", field="time")
        if len(self._rows) >= MINUTE_ROWS_MAX:
            raise Rejected("malformed", f"time: expected at most {MINUTE_ROWS_MAX} rows in one minute, came another "
                                        f"of {rfc3339(minute)}", field="time")

    def _close_minute(self) -> Iterator[Delivered]:
        """The marks of the minute's rows by time, then in the order of the file; then the clock of its end."""
        if self._minute is None:
            return
        marks = [
            (row.candle.time + step * MARK_STEP, row, mark_price)
            for row in self._rows
            for step, mark_price in enumerate(row.candle.marks())
        ]
        marks.sort(key=lambda mark: mark[0])  # stable: the file's order among equals
        for time, row, mark_price in marks:
            yield self._built(row.line, self._mark(row.candle.symbol, time, mark_price))
        end = self._minute + MINUTE
        yield self._built(self._rows[-1].line, MoveClock(id=f"clock:{rfc3339(end)}", time=end))
        self._rows.clear()

    def _mark(self, symbol: str, time: int, mark_price: Decimal) -> RecordPrice:
        self._sequences[symbol] += 1
        return RecordPrice(
            time=time, instrument=symbol, price=mark_price, source="csv", sequence=self._sequences[symbol])

    def _built(self, line: int, command: Command) -> Delivered:
        return Delivered(Place(self._source, line=line), command, None, None)


def _candle(raw: bytes) -> Candle:
    """The candle of a row; Rejected says which column is wrong."""
    cells = _cells(raw)
    row = dict(zip(COLUMNS, cells, strict=True))
    try:
        candle = Candle.model_validate(row)
    except ValidationError as invalid:
        raise rejection(invalid, row) from None
    _require_sound(candle)
    return candle


def _cells(raw: bytes) -> list[str]:
    if len(raw) > RECORD_BYTES_MAX:
        raise Rejected("too-large", f"expected a row of at most {RECORD_BYTES_MAX} bytes, came {len(raw)} or more")
    try:
        text = raw.decode()
    except UnicodeDecodeError as wrong:
        raise Rejected(
            "malformed", f"expected UTF-8, came byte 0x{raw[wrong.start]:02x} at byte {wrong.start}") from None
    cells = text.split(",")
    if len(cells) != len(COLUMNS):
        raise Rejected("malformed", f"expected {len(COLUMNS)} columns ({HEADER}), came {len(cells)}: {shown(text)}")
    if '"' in text:
        raise Rejected("malformed", f"expected plain values without quotes, came {shown(text)}")
    return cells


def _require_sound(candle: Candle) -> None:
    """Reject what no market did: a high below the low, an open or close outside of both, a negative volume."""
    if candle.time >= TIME_LIMIT:
        raise _unsound("time", f"a time before {rfc3339(TIME_LIMIT)}", rfc3339(candle.time))
    if candle.high < candle.low:
        raise _unsound("high", f"at least the low, {plain(candle.low)}", plain(candle.high))
    for column, value in (("open", candle.open), ("close", candle.close)):
        if not candle.low <= value <= candle.high:
            raise _unsound(column, f"a number from low {plain(candle.low)} to high {plain(candle.high)}", plain(value))
    if not _VOLUME(candle.volume):
        raise _unsound("volume", "a number of at least 0", shown(candle.volume))


def _unsound(column: str, expected: str, came: str) -> Rejected:
    return Rejected("malformed", f"{column}: expected {expected}, came {came}", field=column)


def _fault(rejected: Rejected, raw: bytes) -> Fault:
    """The fault of a row: it has neither type nor id; its time where that can be read."""
    time = readable_time(raw[:64].split(b",", 1)[0].decode(errors="replace"))
    return Fault(rejected.reason, rejected.message, rejected.field, None, None, time)
