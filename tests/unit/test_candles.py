"""Candles: what a row of the CSV becomes, in which order, and what is rejected of it."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Container
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from infra.streams import candles
from infra.streams.candles import HEADER, is_candles, read_candles
from infra.streams.records import RECORD_BYTES_MAX, Delivered, Fault, Place, open_input
from ledger.amounts import NANOSECONDS, nanoseconds
from ledger.commands import Command, ListAsset, ListInstrument, MoveClock, RecordPrice

SECOND = NANOSECONDS
MINUTE = nanoseconds("2019-09-24T18:00:00Z")
ROW = "2019-09-24T18:00:00Z,BTC-USD,10059,10061,10058.419189,10059.77797359,1.45813554"


def delivered_of(*rows: str | bytes, list_unknown: bool = False, known: Container[str] = ()) -> list[Delivered]:
    lines = [row if isinstance(row, bytes) else row.encode() for row in (HEADER, *rows)]
    return list(read_candles("day", io.BytesIO(b"\n".join(lines)), list_unknown=list_unknown, known=known))


def commands_of(*rows: str, list_unknown: bool = False, known: Container[str] = ()) -> list[Command]:
    delivered = delivered_of(*rows, list_unknown=list_unknown, known=known)
    assert [] == [record.fault for record in delivered if record.fault]
    assert {None} == {record.raw for record in delivered}
    return [record.command for record in delivered if record.command]


def fault_of(row: str | bytes, *, list_unknown: bool = False) -> Fault:
    [delivered] = delivered_of(row, list_unknown=list_unknown)
    assert delivered.fault is not None
    assert (Place("day", line=2), row if isinstance(row, bytes) else row.encode()) == (delivered.place, delivered.raw)
    return delivered.fault


def row_of(symbol: str = "BTC-USD", time: str = "2019-09-24T18:00:00Z", *, prices: str = "2,4,1,3") -> str:
    return f"{time},{symbol},{prices},7"


def told(commands: list[Command]) -> list[str]:
    """Each command in a few words: symbol, seconds after 18:00 and mark of a price, else the id."""
    return [
        f"{command.instrument} +{(command.time - MINUTE) // SECOND} {command.price}"
        if isinstance(command, RecordPrice) else str(command.id)
        for command in commands]


# --- marks and clocks --------------------------------------------------------------------------------------------


def test_a_row_becomes_four_marks_and_its_minute_one_clock() -> None:
    place = Place("day", line=2)
    texts = ["10059", "10058.419189", "10061", "10059.77797359"]
    marks = [
        RecordPrice(time=MINUTE + n * 15 * SECOND, instrument="BTC-USD", price=Decimal(text), source="csv",
                    sequence=n + 1, kind="mark")
        for n, text in enumerate(texts)]
    clock = MoveClock(id="clock:2019-09-24T18:01:00Z", time=MINUTE + 60 * SECOND)

    expected = [Delivered(place, command, None, None) for command in (*marks, clock)]
    assert expected == delivered_of(ROW)


@pytest.mark.parametrize(("prices", "expected"), [
    pytest.param("10,20,9,15", ["10", "9", "20", "15"], id="the low is nearer to the open"),
    pytest.param("19,20,9,15", ["19", "20", "9", "15"], id="the high is nearer to the open"),
    pytest.param("15,20,10,12", ["15", "10", "20", "12"], id="a tie goes to the low"),
    pytest.param("5,5,5,5", ["5", "5", "5", "5"], id="a flat minute"),
    pytest.param("9,20,9,20", ["9", "9", "20", "20"], id="the open is the low"),
    pytest.param("20,20,9,9", ["20", "20", "9", "9"], id="the open is the high"),
    pytest.param("500000000000.000000000000000002,999999999999,1.000000000000000003,2",
                 ["500000000000.000000000000000002", "999999999999", "1.000000000000000003", "2"],
                 id="the high is nearer by less than 28 digits can tell"),
])
def test_low_and_high_come_the_nearer_to_the_open_first(prices: str, expected: list[str]) -> None:
    commands = commands_of(row_of(prices=prices))

    assert expected == [str(command.price) for command in commands if isinstance(command, RecordPrice)]


def test_the_rows_of_a_minute_are_merged_by_time_then_in_the_order_of_the_file() -> None:
    expected = [
        "ETH-USD +0 2", "BTC-USD +0 20", "ETH-USD +15 1", "BTC-USD +15 10", "ETH-USD +30 4", "BTC-USD +30 40",
        "ETH-USD +45 3", "BTC-USD +45 30", "clock:2019-09-24T18:01:00Z"]
    assert expected == told(commands_of(row_of("ETH-USD"), row_of("BTC-USD", prices="20,40,10,30")))


def test_a_row_within_a_minute_stands_among_the_others_by_its_time() -> None:
    rows = [row_of("ETH-USD", "2019-09-24T18:00:20Z"), row_of("BTC-USD")]

    expected = [
        "BTC-USD +0 2", "BTC-USD +15 1", "ETH-USD +20 2", "BTC-USD +30 4", "ETH-USD +35 1", "BTC-USD +45 3",
        "ETH-USD +50 4", "ETH-USD +65 3", "clock:2019-09-24T18:01:00Z"]
    assert expected == told(commands_of(*rows))


def test_sequence_counts_the_marks_of_a_symbol_over_the_whole_file() -> None:
    commands = commands_of(
        row_of("ETH-USD"), row_of("BTC-USD"), row_of("BTC-USD", "2019-09-24T18:00:10Z"),
        row_of("BTC-USD", "2019-09-24T18:05:00Z"))
    sequences = {
        symbol: [mark.sequence for mark in commands if isinstance(mark, RecordPrice) and mark.instrument == symbol]
        for symbol in ("ETH-USD", "BTC-USD")}

    assert {"ETH-USD": [1, 2, 3, 4], "BTC-USD": [*range(1, 13)]} == sequences


def test_each_minute_with_rows_is_closed_by_one_clock_that_stands_at_its_last_row() -> None:
    delivered = delivered_of(
        row_of("BTC-USD"), row_of("ETH-USD"), row_of("BTC-USD", "2019-09-24T18:01:59.5Z"),
        row_of("BTC-USD", "2019-09-24T19:30:00Z"))
    clocks = [(record.place.line, record.command) for record in delivered if isinstance(record.command, MoveClock)]

    ends = ["2019-09-24T18:01:00Z", "2019-09-24T18:02:00Z", "2019-09-24T19:31:00Z"]
    expected = [MoveClock(id=f"clock:{end}", time=nanoseconds(end)) for end in ends]
    assert list(zip([3, 4, 5], expected, strict=True)) == clocks


def test_a_mark_stands_at_the_line_of_its_row() -> None:
    delivered = delivered_of("", row_of("ETH-USD"), "", row_of("BTC-USD"))

    assert [3, 5, 3, 5, 3, 5, 3, 5, 5] == [record.place.line for record in delivered]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_any_line_end_will_do_and_blank_lines_are_no_rows(end: bytes) -> None:
    content = end.join([HEADER.encode(), ROW.encode(), b"", b" "])

    assert delivered_of(ROW) == list(read_candles("day", io.BytesIO(content)))


def test_a_file_with_a_header_alone_holds_nothing() -> None:
    assert [] == delivered_of()


# --- the header --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("header", "expected"), [
    pytest.param(HEADER.encode(), True, id="the header"),
    pytest.param(HEADER.encode() + b"\r\n", True, id="with its line end"),
    pytest.param(b"time,symbol,price\n", True, id="candles with other columns, which reading then explains"),
    pytest.param(b"\xef\xbb\xbf" + HEADER.encode(), True, id="with a byte order mark, which reading then explains"),
    pytest.param(b'"Time","Symbol"', True, id="quoted and in capitals, which reading then explains"),
    pytest.param(b'{"type":"fill"}', False, id="a record"),
    pytest.param(b"timestamp,symbol", False, id="another table"),
    pytest.param(b"", False, id="nothing"),
    pytest.param(b"\xff\xfe", False, id="no text"),
])
def test_candles_are_known_by_their_first_line(header: bytes, expected: bool) -> None:
    assert expected is is_candles(header)


@pytest.mark.parametrize(("content", "came"), [
    pytest.param(b"", "''", id="an empty file"),
    pytest.param(b"time,symbol,price\n", "'time,symbol,price'", id="other columns"),
    pytest.param(HEADER.upper().encode(), "'TIME,SYMBOL,OPEN,HIGH,LOW,CLOSE,VOLUME'", id="capitals"),
    pytest.param(b"\xef\xbb\xbf" + HEADER.encode(), "'\\ufefftime,symbol,open,high,low,close,volume'",
                 id="a byte order mark"),
    pytest.param(b"\xff\n", "'\ufffd'", id="no UTF-8"),
    pytest.param(b"x" * 100_000, "'" + "x" * 76 + "...", id="a long line"),
])
def test_another_header_makes_the_file_unusable_at_once(content: bytes, came: str) -> None:
    with pytest.raises(ValueError) as raised:
        read_candles("day.csv", io.BytesIO(content))

    assert f"day.csv: expected the header '{HEADER}', came {came}" == str(raised.value)


# --- malformed rows ----------------------------------------------------------------------------------------------


def test_a_volume_may_have_an_exponent_since_it_is_not_used() -> None:
    row = "2019-09-24T18:00:00Z,BTC-USD,2,4,1,3,2e-08"

    assert [None] * 5 == [delivered.fault for delivered in delivered_of(row)]


@pytest.mark.parametrize(("row", "field", "message"), [
    pytest.param("2019-09-24T18:00:00Z,BTC-USD,1,1,1,1", None,
                 f"expected 7 columns ({HEADER}), came 6: '2019-09-24T18:00:00Z,BTC-USD,1,1,1,1'", id="six columns"),
    pytest.param(row_of() + ",", None,
                 f"expected 7 columns ({HEADER}), came 8: '2019-09-24T18:00:00Z,BTC-USD,2,4,1,3,7,'",
                 id="eight columns"),
    pytest.param('2019-09-24T18:00:00Z,"BTC-USD",1,1,1,1,1', None,
                 "expected plain values without quotes, came '2019-09-24T18:00:00Z,\"BTC-USD\",1,1,1,1,1'",
                 id="quotes"),
    pytest.param(row_of(prices="1e3,4,1,3"), "open",
                 "open: expected a plain decimal in a string such as \"12.5\", came '1e3'", id="an exponent"),
    pytest.param(row_of(prices=" 2,4,1,3"), "open",
                 "open: expected a plain decimal in a string such as \"12.5\", came ' 2'", id="a blank"),
    pytest.param(row_of(prices="2,NaN,1,3"), "high",
                 "high: expected a plain decimal in a string such as \"12.5\", came 'NaN'", id="not a number"),
    pytest.param(row_of(prices="2,4,,3"), "low",
                 "low: expected a plain decimal in a string such as \"12.5\", came ''", id="no number"),
    pytest.param(row_of(prices="2,4,1,٣"), "close",
                 "close: expected a plain decimal in a string such as \"12.5\", came '٣'", id="another digit"),
    pytest.param(row_of(prices="2,4,0,3"), "low",
                 "low: expected a number at least 0.000000000001, came 0", id="a zero price"),
    pytest.param(row_of(prices="2,4,-1,3"), "low",
                 "low: expected a number at least 0.000000000001, came -1", id="a negative price"),
    pytest.param(row_of(prices="x,y,z,3"), "open",
                 "open: expected a plain decimal in a string such as \"12.5\", came 'x' (and 2 other faults)",
                 id="three wrong numbers"),
    pytest.param(row_of(prices="2,1,4,3"), "high", "high: expected at least the low, 4, came 1",
                 id="a high below the low"),
    pytest.param(row_of(prices="5,4,1,3"), "open", "open: expected a number from low 1 to high 4, came 5",
                 id="an open above the high"),
    pytest.param(row_of(prices="0.5,4,1,3"), "open", "open: expected a number from low 1 to high 4, came 0.5",
                 id="an open below the low"),
    pytest.param(row_of(prices="2,4,1,4.1"), "close", "close: expected a number from low 1 to high 4, came 4.1",
                 id="a close above the high"),
    pytest.param(row_of(prices="2,4,1,0.9"), "close", "close: expected a number from low 1 to high 4, came 0.9",
                 id="a close below the low"),
    pytest.param("2019-09-24T18:00:00Z,BTC-USD,2,4,1,3,-1", "volume",
                 "volume: expected a number of at least 0, came '-1'",
                 id="a negative volume"),
    pytest.param("2019-09-24T18:00:00Z,BTC-USD,2,4,1,3,", "volume", "volume: expected a number of at least 0, came ''",
                 id="no volume"),
    pytest.param(row_of(""), "symbol", "symbol: expected 1 to 200 characters other than control characters, came ''",
                 id="no symbol"),
    pytest.param(row_of("a\0"), "symbol",
                 "symbol: expected 1 to 200 characters other than control characters, came 'a\\x00'",
                 id="a NUL in the symbol"),
])
def test_a_row_that_is_no_candle_is_malformed_and_keeps_its_time(row: str, field: str | None, message: str) -> None:
    assert Fault("malformed", message, field, None, None, MINUTE) == fault_of(row)


@pytest.mark.parametrize("time", [
    pytest.param("2019-09-24 18:00:00", id="no RFC 3339"),
    pytest.param("2019-09-24T18:00:00+00:00", id="an offset"),
    pytest.param("1569348000", id="a number of seconds"),
    pytest.param("", id="nothing"),
])
def test_a_row_without_a_time_is_malformed(time: str) -> None:
    fault = fault_of(row_of(time=time))

    assert ("malformed", "time", None) == (fault.reason, fault.field, fault.time)
    assert fault.message.startswith("time: expected a time such as 2019-09-24T18:00:00Z")


def test_a_row_whose_minute_ends_after_the_last_time_of_records_is_malformed() -> None:
    fault = fault_of(row_of(time="2261-12-31T23:59:00Z"))

    assert "time: expected a time before 2261-12-31T23:59:00Z, came 2261-12-31T23:59:00Z" == fault.message
    assert "clock:2261-12-31T23:59:00Z" == commands_of(row_of(time="2261-12-31T23:58:59.999Z"))[-1].id


def test_a_row_that_is_no_utf_8_is_malformed() -> None:
    expected = Fault("malformed", "expected UTF-8, came byte 0xff at byte 21", None, None, None, MINUTE)
    assert expected == fault_of(b"2019-09-24T18:00:00Z,\xff,1,1,1,1,1")


def test_a_row_above_64_kib_is_rejected_unread() -> None:
    [delivered, *marks] = delivered_of("x" * 100_000, ROW)

    message = "expected a row of at most 65536 bytes, came 65537 or more"
    expected = (Fault("too-large", message, None, None, None, None), b"x" * (RECORD_BYTES_MAX + 1))
    assert expected == (delivered.fault, delivered.raw)
    assert [3] * 5 == [record.place.line for record in marks]


def test_a_row_of_an_earlier_minute_is_malformed() -> None:
    late = row_of("ETH-USD", "2019-09-24T17:59:59.999999999Z")
    delivered = delivered_of(row_of(), late)

    message = ("time: expected 2019-09-24T18:00:00Z or later, the minute under way, "
               "came 2019-09-24T17:59:59.999999999Z")
    fault = Fault("malformed", message, "time", None, None, MINUTE - 1)
    assert Delivered(Place("day", line=3), None, fault, late.encode()) == delivered[0]
    assert [record.command for record in delivered[1:]] == commands_of(row_of())


def test_a_malformed_row_costs_nothing_but_itself() -> None:
    later = row_of("BTC-USD", "2019-09-24T18:01:00Z")
    delivered = delivered_of(row_of("ETH-USD"), "nonsense", row_of("BTC-USD"), "", "2019-09-24T20:00:00Z,x", later)
    faulty = [record.place.line for record in delivered if record.fault]

    expected = commands_of(row_of("ETH-USD"), row_of("BTC-USD"), later)
    assert [3, 6] == faulty
    assert expected == [record.command for record in delivered if record.command]


def test_the_rows_held_for_a_minute_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candles, "MINUTE_ROWS_MAX", 2)
    rows = [row_of("A"), row_of("B"), row_of("C"), row_of("C", "2019-09-24T18:01:00Z")]
    [fault] = [record.fault for record in delivered_of(*rows) if record.fault]

    message = "time: expected at most 2 rows in one minute, came another of 2019-09-24T18:00:00Z"
    assert Fault("malformed", message, "time", None, None, MINUTE) == fault


# --- listing unknown symbols -------------------------------------------------------------------------------------


def test_without_listing_any_symbol_is_priced() -> None:
    assert {"what ever"} == {mark.instrument for mark in commands_of(row_of("what ever")) if
                             isinstance(mark, RecordPrice)}


def test_an_unknown_symbol_is_listed_before_its_marks() -> None:
    delivered = delivered_of(row_of(time="2019-09-24T18:00:20Z"), list_unknown=True)

    time, small = MINUTE + 20 * SECOND, Decimal("0.00000001")
    listings: list[Command] = [
        ListAsset(id="list:USD", time=time, asset="USD", quantum=Decimal("0.01")),
        ListInstrument(id="list:BTC-USD", time=time, instrument="BTC-USD", base="BTC", quote="USD",
                       contract_type="linear", contract_size=Decimal(1), tick_size=small, lot_size=small),
        ListAsset(id="list:BTC", time=time, asset="BTC", quantum=small, pricing_instrument="BTC-USD")]
    assert [Delivered(Place("day", line=2), listing, None, None) for listing in listings] == delivered[:3]
    assert delivered_of(row_of(time="2019-09-24T18:00:20Z")) == delivered[3:]


def test_each_symbol_and_each_asset_is_listed_once() -> None:
    rows = [row_of("BTC-USD"), row_of("ETH-USD"), row_of("BTC-EUR"), row_of("ETH-BTC"),
            row_of("BTC-USD", "2019-09-24T18:01:00Z")]
    listed = [name for name in told(commands_of(*rows, list_unknown=True)) if name.startswith("list:")]

    expected = [
        "list:USD", "list:BTC-USD", "list:BTC", "list:ETH-USD", "list:ETH", "list:EUR", "list:BTC-EUR",
        "list:ETH-BTC"]
    assert expected == listed


def test_a_listing_comes_after_the_clock_of_the_minute_before() -> None:
    rows = [row_of("BTC-USD"), row_of("ETH-USD", "2019-09-24T18:01:00Z")]
    words = told(commands_of(*rows, list_unknown=True))

    assert ["clock:2019-09-24T18:01:00Z", "list:ETH-USD", "list:ETH", "ETH-USD +60 2"] == words[7:11]


@pytest.mark.parametrize(("known", "expected"), [
    pytest.param({"BTC-USD"}, [], id="the symbol"),
    pytest.param({"USD"}, ["list:BTC-USD", "list:BTC"], id="the quote"),
    pytest.param({"BTC", "USD"}, ["list:BTC-USD"], id="both assets"),
    pytest.param({"ETH-USD"}, ["list:USD", "list:BTC-USD", "list:BTC"], id="another symbol"),
])
def test_what_is_known_is_not_listed(known: set[str], expected: list[str]) -> None:
    words = told(commands_of(row_of(), list_unknown=True, known=known))

    assert expected == [word for word in words if word.startswith("list:")]


def test_a_known_symbol_need_not_be_two_assets() -> None:
    assert commands_of(row_of("XBTUSD")) == commands_of(row_of("XBTUSD"), list_unknown=True, known={"XBTUSD"})


@pytest.mark.parametrize("symbol", [
    "BTCUSD", "BTC-", "-USD", "-", "BTC-USD-PERP", "BTC--USD", "BTC -USD", "BTC-\u00a0USD", "USD-USD",
    "B" * 192 + "-USD",
])
def test_an_unknown_symbol_that_is_not_two_assets_cannot_be_listed(symbol: str) -> None:
    fault = fault_of(row_of(symbol), list_unknown=True)

    assert ("malformed", "symbol", MINUTE) == (fault.reason, fault.field, fault.time)
    assert fault.message.startswith("symbol: expected BASE-QUOTE, two assets, to list it, came '")


def test_the_longest_symbol_that_can_be_listed_has_an_id_of_200_characters() -> None:
    [_, listing, *_] = commands_of(row_of("B" * 191 + "-USD"), list_unknown=True)

    assert 200 == len(listing.id)


# --- real prices -------------------------------------------------------------------------------------------------


def test_real_minutes_read_as_expected(tmp_path: Path) -> None:
    rows = [
        "2019-09-23T00:00:00Z,BTC-USD,10059,10061,10058.419189,10059.77797359,1.45813554",
        "2019-09-23T00:00:00Z,ETH-USD,211.75,211.75,211.25,211.61,657.11742761",
        "2019-09-23T00:01:00Z,BTC-USD,10059.77797359,10070,10059.00664498,10069.36448636,5.55918556",
        "2019-09-23T00:01:00Z,EOS-USD,3.8336,3.8336,3.8318,3.8318,331.04110111"]
    path = tmp_path / "day.csv.gz"
    path.write_bytes(gzip.compress("\r\n".join([HEADER, *rows, ""]).encode()))
    with open_input(str(path)) as stream:
        delivered = list(read_candles("day.csv", stream, list_unknown=True))

    kinds = Counter(type(record.command).__name__ for record in delivered)
    times = [record.command.time for record in delivered if record.command]
    assert {"RecordPrice": 16, "MoveClock": 2, "ListAsset": 4, "ListInstrument": 3} == kinds
    assert all(before <= after for before, after in pairwise(times))
    assert commands_of(*rows, list_unknown=True) == [record.command for record in delivered]
