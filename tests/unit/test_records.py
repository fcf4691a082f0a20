"""Records: what is well formed, what is rejected for which reason, and what is salvaged of it."""

from __future__ import annotations

import gzip
import io
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra.streams.records import (
    MESSAGE_CHARACTERS_MAX,
    RECORD_BYTES_MAX,
    Delivered,
    Fault,
    Place,
    open_input,
    read,
    read_lines,
    source_name,
)
from ledger.amounts import nanoseconds
from ledger.commands import (
    COMMANDS,
    CancelWithdrawal,
    ChangeSettings,
    Command,
    Deposit,
    Halt,
    ListAsset,
    ListInstrument,
    MoveClock,
    MoveFund,
    MoveFunding,
    MoveIsolatedMargin,
    OpenAccount,
    PlaceOrder,
    PostFill,
    PublishRulebook,
    RecordPrice,
    ReportOrder,
    Resume,
    SetInterestRate,
    SettleMarket,
    SettleWithdrawal,
    Transfer,
    Withdraw,
)
from ledger.errors import REJECTIONS

PLACE = Place("accounts", 3, 17)
TIME_TEXT = "2019-09-24T18:00:00Z"
TIME = nanoseconds(TIME_TEXT)

FILL: dict[str, Any] = {
    "type": "fill", "id": "f1", "time": TIME_TEXT, "account": "alice", "trade_id": "t1", "instrument": "BTC-USD",
    "side": "buy", "size": "1.5", "price": "10058.419189"}
PRICE: dict[str, Any] = {
    "type": "price", "id": "p1", "time": TIME_TEXT, "instrument": "BTC-USD", "price": "10059", "source": "bitfinex"}
RULEBOOK: dict[str, Any] = {"type": "rulebook", "id": "r1", "time": TIME_TEXT, "rulebook": "house"}
DEPOSIT: dict[str, Any] = {
    "type": "deposit", "id": "d1", "time": TIME_TEXT, "account": "alice", "asset": "USD", "amount": "100"}
WITHDRAWAL: dict[str, Any] = {**DEPOSIT, "type": "withdrawal", "id": "w1"}
INSTRUMENT: dict[str, Any] = {
    "type": "instrument", "id": "i1", "time": TIME_TEXT, "instrument": "BTC-USD", "base": "BTC", "quote": "USD",
    "contract_type": "linear", "tick_size": "0.01", "lot_size": "0.001"}
FUND_MOVEMENT: dict[str, Any] = {
    "type": "fund-movement", "id": "m1", "time": TIME_TEXT, "fund": "insurance", "asset": "USD", "amount": "5",
    "kind": "contribution"}

ID_EXPECTED = "expected 1 to 200 characters other than control characters"


def of_type(kind: str, /, **fields: str) -> dict[str, Any]:
    return {"type": kind, "id": "x", "time": TIME_TEXT, **fields}


def wire(record: object) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


def command_of(raw: bytes, latest: int | None = None) -> Command:
    delivered = read(PLACE, raw, latest=latest)
    assert delivered.fault is None
    assert delivered.command is not None
    return delivered.command


def fault_of(raw: bytes, latest: int | None = None) -> Fault:
    delivered = read(PLACE, raw, latest=latest)
    assert delivered.command is None
    assert delivered.fault is not None
    assert (PLACE, raw) == (delivered.place, delivered.raw)
    assert delivered.fault.reason in REJECTIONS
    return delivered.fault


# --- what is well formed -----------------------------------------------------------------------------------------


def test_a_record_becomes_its_command_with_its_place_and_its_bytes() -> None:
    raw = wire(FILL)

    expected = Delivered(
        PLACE,
        PostFill(id="f1", time=TIME, account="alice", trade_id="t1", instrument="BTC-USD", side="buy",
                 size=Decimal("1.5"), price=Decimal("10058.419189")),
        None,
        raw)
    assert expected == read(PLACE, raw)


@pytest.mark.parametrize(("record", "expected"), [
    pytest.param(RULEBOOK, PublishRulebook, id="a rulebook by name"),
    pytest.param({**RULEBOOK, "rulebook": {"name": "house", "assets": [{"a": "1"}, {"a": "2"}]}}, PublishRulebook,
                 id="a whole rulebook, whose objects each have the same keys"),
    pytest.param({"type": "asset", "id": "a", "time": TIME_TEXT, "asset": "USD", "quantum": "0.01"}, ListAsset,
                 id="an asset"),
    pytest.param(INSTRUMENT, ListInstrument, id="a linear instrument"),
    pytest.param({"type": "account", "id": "a", "time": TIME_TEXT, "account": "alice", "margin_mode": "cross"},
                 OpenAccount, id="an account"),
    pytest.param(DEPOSIT, Deposit, id="a deposit"),
    pytest.param({**DEPOSIT, "reverses": None}, Deposit, id="a deposit that reverses nothing"),
    pytest.param(WITHDRAWAL, Withdraw, id="a withdrawal"),
    pytest.param({**WITHDRAWAL, "hold": False}, Withdraw, id="a withdrawal without hold"),
    pytest.param(FILL, PostFill, id="a fill"),
    pytest.param(PRICE, RecordPrice, id="a price with an id"),
    pytest.param({k: v for k, v in {**PRICE, "sequence": 0}.items() if k != "id"}, RecordPrice,
                 id="a price with a sequence and no id"),
    pytest.param({"type": "funding", "id": "x", "time": TIME_TEXT, "instrument": "B", "rate": "-0.0001"}, MoveFunding,
                 id="funding"),
    pytest.param(FUND_MOVEMENT, MoveFund, id="a fund movement"),
    pytest.param({"type": "clock", "id": "c", "time": TIME_TEXT}, MoveClock, id="a clock"),
    pytest.param(of_type("account-settings", account="a", leverage="5"), ChangeSettings, id="settings"),
    pytest.param({**DEPOSIT, "reverses": "d0"}, Deposit, id="a deposit that reverses"),
    pytest.param({**WITHDRAWAL, "hold": True}, Withdraw, id="a withdrawal on hold"),
    pytest.param({**INSTRUMENT, "contract_type": "inverse"}, ListInstrument, id="an inverse instrument"),
    pytest.param(of_type("withdrawal-settled", account="a", withdrawal="w"), SettleWithdrawal, id="a settled one"),
    pytest.param(of_type("withdrawal-cancelled", account="a", withdrawal="w"), CancelWithdrawal, id="a cancelled one"),
    pytest.param(of_type("order", account="a", order_id="o", instrument="B", side="buy", remaining="0", price="1"),
                 PlaceOrder, id="an order"),
    pytest.param(of_type("isolated-margin", account="a", instrument="B", amount="-1"), MoveIsolatedMargin,
                 id="isolated margin"),
    pytest.param(of_type("transfer", account="a", to_account="b", asset="USD", amount="1"), Transfer, id="a transfer"),
    pytest.param(of_type("liquidation-result", account="a", liquidation_order_id="o", result="expired"), ReportOrder,
                 id="a result"),
    pytest.param(of_type("interest-rate", asset="USD", borrow_rate="0.1", lend_rate="-0.01"), SetInterestRate,
                 id="rates"),
    pytest.param(of_type("settlement", instrument="B", price="1", kind="expiry"), SettleMarket, id="a settlement"),
    pytest.param(of_type("halt", scope="all", what="liquidations", reason="r", by="b"), Halt, id="a halt"),
    pytest.param(of_type("resume", scope="all", what="new-risk", reason="r", by="b"), Resume, id="a resume"),
])
def test_every_type_of_this_version_is_read(record: dict[str, Any], expected: type[Command]) -> None:
    assert expected is type(command_of(wire(record)))


def test_every_type_of_this_version_has_a_row_above() -> None:
    marks = test_every_type_of_this_version_is_read.pytestmark
    rows = {row.values[1] for mark in marks for row in mark.args[1]}

    assert set(COMMANDS.values()) == rows


@pytest.mark.parametrize("kind", ["mark", "index", "last", "settlement"])
def test_a_price_of_any_kind_is_kept_as_it_is(kind: str) -> None:
    command = command_of(wire({**PRICE, "kind": kind}))

    assert isinstance(command, RecordPrice)
    assert kind == command.kind


@pytest.mark.parametrize("field", [
    pytest.param({"venue": "x"}, id="a text"),
    pytest.param({"venue": 1.5}, id="a JSON number"),
    pytest.param({"venue": {"name": "x", "places": [1, {"a": None}]}}, id="an object with lists"),
    pytest.param({"venue": 'a "quoted" \\ text'}, id="a text with escapes"),
    pytest.param({"": True}, id="a field without a name"),
])
def test_an_unknown_future_field_is_ignored(field: dict[str, Any]) -> None:
    assert command_of(wire(FILL)) == command_of(wire({**FILL, **field}))


@pytest.mark.parametrize(("text", "expected"), [
    pytest.param("0.1", Decimal("0.1"), id="a fraction"),
    pytest.param("1.50", Decimal("1.50"), id="trailing zeros"),
    pytest.param("999999999999999999", Decimal("999999999999999999"), id="the greatest whole amount"),
    pytest.param("0.000000000000000001", Decimal("1E-18"), id="18 places"),
])
def test_a_decimal_is_read_exactly(text: str, expected: Decimal) -> None:
    command = command_of(wire({**DEPOSIT, "amount": text}))

    assert isinstance(command, Deposit)
    assert expected.as_tuple() == command.amount.as_tuple()


@pytest.mark.parametrize(("text", "expected"), [
    pytest.param("1970-01-01T00:00:00.000000001Z", 1, id="one nanosecond"),
    pytest.param("2019-09-24T18:00:00.5Z", TIME + 500_000_000, id="one fractional digit"),
    pytest.param("2019-09-24T18:00:00.123456789Z", TIME + 123_456_789, id="nine fractional digits"),
    pytest.param("2020-02-29T00:00:00Z", nanoseconds("2020-02-29T00:00:00Z"), id="a leap day"),
])
def test_a_time_is_held_to_the_nanosecond(text: str, expected: int) -> None:
    assert expected == command_of(wire({**FILL, "time": text})).time


@pytest.mark.parametrize("identity", [
    pytest.param("a" * 200, id="200 characters"),
    pytest.param("😀" * 200, id="200 code points of four bytes"),
    pytest.param("e\u0301", id="a combining accent, which is not normalised"),
    pytest.param(" ", id="a blank"),
    pytest.param("\u2028", id="a line separator, which is no control character"),
    pytest.param("0", id="a digit"),
])
def test_an_id_is_any_text_of_1_to_200_code_points(identity: str) -> None:
    assert identity == command_of(wire({**FILL, "id": identity})).id


def test_an_escaped_text_is_the_text_that_it_spells() -> None:
    raw = wire(FILL).replace(b'"f1"', rb'"\u0066\u0031\ud83d\ude00\/"')

    assert "f1😀/" == command_of(raw).id


def test_blanks_of_json_around_a_record_are_no_part_of_it() -> None:
    assert command_of(wire(FILL)) == command_of(b" \t\r\n" + wire(FILL) + b"\r\n")


# --- what is malformed -------------------------------------------------------------------------------------------

NUMBERS_REJECTED = [
    pytest.param("NaN", id="not a number"),
    pytest.param("Infinity", id="infinity"),
    pytest.param("1e3", id="an exponent"),
    pytest.param("1E-3", id="a negative exponent"),
    pytest.param("1" + "0" * 40, id="10^40"),
    pytest.param("1000000000000000000", id="10^18, the first amount too large"),
    pytest.param("1_000", id="underscores"),
    pytest.param("1,000", id="a thousands separator"),
    pytest.param(" 1", id="a blank before"),
    pytest.param("1 ", id="a blank after"),
    pytest.param("1\n", id="a line end after"),
    pytest.param("", id="nothing"),
    pytest.param("٣", id="an Arabic-Indic digit"),
    pytest.param("1٣", id="an Arabic-Indic digit after another"),
    pytest.param("１", id="a full-width digit"),
    pytest.param("²", id="a superscript digit"),
    pytest.param("01", id="a leading zero"),
    pytest.param("00", id="two zeros"),
    pytest.param("-0", id="minus zero, which is not above zero"),
    pytest.param("-1", id="a negative amount"),
    pytest.param("0", id="zero"),
    pytest.param("+1", id="a plus"),
    pytest.param("--1", id="two minuses"),
    pytest.param("\u22121", id="a typographic minus"),
    pytest.param(".5", id="no digit before the point"),
    pytest.param("1.", id="no digit after the point"),
    pytest.param("1.2.3", id="two points"),
    pytest.param("0x10", id="a hexadecimal number"),
    pytest.param("1." + "1" * 19, id="19 places"),
    pytest.param("1\0", id="a NUL after"),
    pytest.param(1, id="a bare JSON integer"),
    pytest.param(1.5, id="a bare JSON number"),
    pytest.param(True, id="true"),
    pytest.param(None, id="null"),
    pytest.param(["1"], id="a list"),
    pytest.param({"value": "1"}, id="an object"),
]


@pytest.mark.parametrize("value", NUMBERS_REJECTED)
def test_an_amount_that_is_no_plain_decimal_within_its_bounds_is_malformed(value: object) -> None:
    fault = fault_of(wire({**DEPOSIT, "amount": value}))

    assert ("malformed", "amount", "deposit", "d1", TIME) == (
        fault.reason, fault.field, fault.type, fault.id, fault.time)
    assert fault.message.startswith("amount: expected ")


@pytest.mark.parametrize("value", [
    pytest.param("0", id="a zero price"),
    pytest.param("-1", id="a negative price"),
    pytest.param("0.0000000000001", id="a price below 10^-12"),
    pytest.param("1000000000000.1", id="a price above 10^12"),
    pytest.param("1e3", id="a price with an exponent"),
    pytest.param(10059, id="a bare JSON number"),
])
def test_a_price_outside_of_its_bounds_is_malformed(value: object) -> None:
    fault = fault_of(wire({**PRICE, "price": value}))

    assert ("malformed", "price") == (fault.reason, fault.field)


@pytest.mark.parametrize("literal", [
    pytest.param(b"NaN", id="not a number"),
    pytest.param(b"Infinity", id="infinity"),
    pytest.param(b"-Infinity", id="minus infinity"),
    pytest.param(b"1e400", id="a number beyond a double"),
    pytest.param(b"-1e400", id="a negative number beyond a double"),
    pytest.param(b"9" * 5000, id="an integer of 5000 digits"),
    pytest.param(b"01", id="a leading zero"),
    pytest.param(b"+1", id="a plus"),
    pytest.param(b".5", id="no digit before the point"),
    pytest.param(b"1.", id="no digit after the point"),
    pytest.param(b"0x10", id="a hexadecimal number"),
    pytest.param(b"1_000", id="underscores"),
    pytest.param(b"True", id="a word of Python"),
    pytest.param(b"undefined", id="a word of JavaScript"),
    pytest.param(b"'x'", id="single quotes"),
    pytest.param(b'"\t"', id="a raw control character in a text"),
    pytest.param(b'"\\x41"', id="an escape that JSON does not have"),
    pytest.param(b'"\\ud800"', id="a lone high surrogate"),
    pytest.param(b'"\\udc00"', id="a lone low surrogate"),
    pytest.param(b'"\\udc00\\ud800"', id="surrogates in the wrong order"),
    pytest.param(b'"\\ud800\\u0041"', id="a high surrogate before a letter"),
    pytest.param(b"[" * 60_000, id="60,000 open lists"),
    pytest.param(b"[" * 500 + b"]" * 500, id="500 nested lists"),
    pytest.param(b'{"a":' * 500 + b"1" + b"}" * 500, id="500 nested objects"),
])
def test_what_is_no_json_is_malformed_even_in_an_unknown_field(literal: bytes) -> None:
    fault = fault_of(b'{"x":' + literal + b"," + wire(FILL)[1:])

    assert ("malformed", None) == (fault.reason, fault.field)
    assert fault.message.startswith("expected well-formed JSON, came broken JSON: ")


@pytest.mark.parametrize(("raw", "expected"), [
    pytest.param(b"", "expected a JSON object, came an empty record", id="nothing"),
    pytest.param(b" \n", "expected a JSON object, came an empty record", id="blanks"),
    pytest.param(b"\xef\xbb\xbf" + wire(FILL), "expected UTF-8 without a byte order mark, came a byte order mark",
                 id="a byte order mark"),
    pytest.param(json.dumps(FILL).encode("utf-16"), "expected UTF-8 without a byte order mark, came a byte order mark",
                 id="UTF-16"),
    pytest.param('{"id":"é"}'.encode("latin-1"), "expected UTF-8, came byte 0xe9 at byte 7", id="Latin-1"),
    pytest.param(b'{"id":"\xed\xa0\x80"}', "expected UTF-8, came byte 0xed at byte 7", id="a surrogate in UTF-8"),
    pytest.param(b'{"id":"\xc0\x80"}', "expected UTF-8, came byte 0xc0 at byte 7", id="an overlong NUL"),
    pytest.param(b"[1]", "expected a JSON object, came [1]", id="a list"),
    pytest.param(b'"fill"', "expected a JSON object, came 'fill'", id="a text"),
    pytest.param(b"null", "expected a JSON object, came null", id="null"),
    pytest.param(b"true", "expected a JSON object, came true", id="true"),
])
def test_what_is_no_json_object_in_utf_8_says_what_came(raw: bytes, expected: str) -> None:
    assert Fault("malformed", expected, None, None, None, None) == fault_of(raw)


@pytest.mark.parametrize("raw", [
    pytest.param(wire(FILL)[:-1], id="cut off"),
    pytest.param(wire(FILL) + wire(FILL), id="two records"),
    pytest.param(wire(FILL)[:-1] + b",}", id="a trailing comma"),
    pytest.param(wire(FILL) + b"// fill", id="a comment"),
    pytest.param(wire(FILL) + b"\0", id="a NUL after"),
    pytest.param(b"\x0c" + wire(FILL), id="a form feed before"),
    pytest.param("\u00a0".encode() + wire(FILL), id="a no-break space before"),
    pytest.param(wire(FILL).replace(b'"', b"'"), id="single quotes"),
    pytest.param(b"time,symbol,open", id="a CSV"),
])
def test_broken_json_is_malformed(raw: bytes) -> None:
    fault = fault_of(raw)

    assert ("malformed", None, None, None, None) == (fault.reason, fault.field, fault.type, fault.id, fault.time)
    assert fault.message.startswith("expected well-formed JSON, came broken JSON: ")


@pytest.mark.parametrize(("extra", "expected"), [
    pytest.param(b'"size":"2"', "size", id="a known field, another value"),
    pytest.param(b'"size":"1.5"', "size", id="a known field, the same value"),
    pytest.param(b'"x":1,"x":1', "x", id="an unknown field"),
    pytest.param(b'"x":{"a":[1,2]},"x":1', "x", id="an unknown field, first an object"),
    pytest.param(b'"x":1,"x":[]', "x", id="an unknown field, then a list"),
    pytest.param(b'"x":"a","x":1,"x":2', "x", id="thrice"),
    pytest.param(b'"x":{"y":1,"y":2}', "x.y", id="in a nested object"),
    pytest.param(b'"x":[0,{"y":{"z":1,"z":2}}]', "x.1.y.z", id="in an object in a list"),
    pytest.param(rb'"siz\u0065":"2"', "size", id="spelled with an escape"),
    pytest.param(rb'"\u0073ize":"2"', "size", id="spelled with an escape first"),
    pytest.param(rb'"x":{"y":1,"\u0079":2}', "x.y", id="nested and spelled with an escape"),
    pytest.param(rb'"a\"b":1,"a\"b":1', 'a"b', id="with a quote in its name"),
    pytest.param(rb'"\u0000":1,"\u0000":1', "\\x00", id="with a control character in its name"),
    pytest.param(b'"":1,"":2', "", id="without a name"),
])
def test_a_key_that_stands_twice_in_one_object_is_malformed(extra: bytes, expected: str) -> None:
    fault = fault_of(wire(FILL)[:-1] + b"," + extra + b"}")

    assert Fault("malformed", f"{expected}: expected each key once in its object, came it again", expected,
                 "fill", "f1", TIME) == fault


def test_a_repeated_key_inside_a_rulebook_is_malformed() -> None:
    fault = fault_of(wire(RULEBOOK).replace(b'"house"', b'{"assets":{"BTC":{"haircut":"0.1","haircut":"0"}}}'))

    assert ("malformed", "rulebook.assets.BTC.haircut") == (fault.reason, fault.field)


def test_several_repeated_keys_name_the_first_and_the_number_of_others() -> None:
    fault = fault_of(wire(FILL)[:-1] + b',"x":{"y":1,"y":2},"size":"2","side":"buy"}')

    assert "side: expected each key once in its object, came it again (and 2 other faults)" == fault.message


@pytest.mark.parametrize(("field", "expected"), [
    pytest.param("id", ("fill", None, TIME), id="the id"),
    pytest.param("type", (None, "f1", TIME), id="the type"),
    pytest.param("time", ("fill", "f1", None), id="the time"),
])
def test_an_identity_that_stands_twice_is_not_salvaged(field: str,
                                                       expected: tuple[str | None, str | None, int | None]) -> None:
    fault = fault_of(wire(FILL)[:-1] + b"," + wire({field: FILL[field]})[1:])

    assert expected == (fault.type, fault.id, fault.time)


@pytest.mark.parametrize("value", [
    pytest.param("", id="empty"),
    pytest.param("a" * 201, id="201 characters"),
    pytest.param("a\0", id="a NUL"),
    pytest.param("\n", id="a line end"),
    pytest.param("a\n", id="a line end after"),
    pytest.param("\x7f", id="a delete"),
    pytest.param("\x85", id="a control character of Latin-1"),
])
def test_an_id_that_is_no_id_is_malformed_and_not_salvaged(value: str) -> None:
    fault = fault_of(wire({**FILL, "id": value}))

    assert ("malformed", "id", None) == (fault.reason, fault.field, fault.id)
    assert fault.message.startswith(f"id: {ID_EXPECTED}, came ")
    assert fault.message.isprintable()


@pytest.mark.parametrize("value", [
    pytest.param("2019-09-24T18:00:00+00:00", id="an offset of zero"),
    pytest.param("2019-09-24T20:00:00+02:00", id="an offset"),
    pytest.param("2019-09-24T18:00:00", id="no zone"),
    pytest.param("2019-09-24T18:00:00z", id="a small z"),
    pytest.param("2019-09-24t18:00:00Z", id="a small t"),
    pytest.param("2019-09-24 18:00:00Z", id="a blank for the T"),
    pytest.param("2019-09-24T18:00:00.1234567890Z", id="ten fractional digits"),
    pytest.param("2019-09-24T18:00:00.Z", id="a point without digits"),
    pytest.param("2019-09-24T18:00:00,5Z", id="a comma for the point"),
    pytest.param("2016-12-31T23:59:60Z", id="a leap second"),
    pytest.param("2019-09-24T24:00:00Z", id="hour 24"),
    pytest.param("2019-02-29T00:00:00Z", id="a day that does not exist"),
    pytest.param("0000-01-01T00:00:00Z", id="the year zero"),
    pytest.param("+12019-09-24T18:00:00Z", id="a year of five digits"),
    pytest.param("2019-09-24T18:00Z", id="no seconds"),
    pytest.param("2019-09-24", id="a day"),
    pytest.param("٢٠١٩-09-24T18:00:00Z", id="Arabic-Indic digits"),
    pytest.param(" 2019-09-24T18:00:00Z", id="a blank before"),
    pytest.param("2019-09-24T18:00:00Z\n", id="a line end after"),
    pytest.param("", id="empty"),
    pytest.param(1569348000, id="a number of seconds"),
    pytest.param(TIME, id="a number of nanoseconds"),
    pytest.param(1569348000.5, id="a fraction of seconds"),
    pytest.param(True, id="true"),
    pytest.param(None, id="null"),
])
def test_a_time_that_is_not_rfc_3339_in_z_is_malformed_and_not_salvaged(value: object) -> None:
    fault = fault_of(wire({**FILL, "time": value}))

    assert ("malformed", "time", "f1", None) == (fault.reason, fault.field, fault.id, fault.time)
    assert fault.message.startswith("time: expected ")


@pytest.mark.parametrize(("record", "field", "message"), [
    pytest.param({**FILL, "side": "hold"}, "side", "side: expected 'buy' or 'sell', came 'hold'", id="a side"),
    pytest.param({**FILL, "side": None}, "side", "side: expected 'buy' or 'sell', came null", id="null for a side"),
    pytest.param({**FILL, "account": 7}, "account", "account: expected a string, came 7", id="a number for a text"),
    pytest.param({**FILL, "account": ""}, "account", f"account: {ID_EXPECTED}, came ''", id="an empty account"),
    pytest.param({k: v for k, v in FILL.items() if k != "id"}, "id", "id: expected a value, came nothing", id="no id"),
    pytest.param({k: v for k, v in FILL.items() if k not in ("size", "side", "price")}, "side",
                 "side: expected a value, came nothing (and 2 other faults)", id="three fields missing"),
    pytest.param({**FILL, "side": "x", "size": 1}, "side",
                 "side: expected 'buy' or 'sell', came 'x' (and 1 other fault)", id="two fields wrong"),
    pytest.param({**FILL, "size": 1.5}, "size",
                 "size: expected a JSON string with an exact decimal, came float 1.5", id="a bare number"),
    pytest.param({**FILL, "size": "-3"}, "size", "size: expected a number above 0, came -3", id="a negative size"),
    pytest.param({**FILL, "fee_asset": {"a": [1]}}, "fee_asset",
                 "fee_asset: expected a string, came {'a': [1]}", id="an object for a text"),
    pytest.param({**FILL, "fee_asset": ["x" * 100]}, "fee_asset",
                 "fee_asset: expected a string, came ['" + "x" * 75 + "...", id="something long, shortened"),
    pytest.param({k: v for k, v in PRICE.items() if k != "id"}, None,
                 "expected an id or a sequence, came neither", id="a price with neither id nor sequence"),
    pytest.param({**PRICE, "sequence": -1}, "sequence",
                 "sequence: expected a number of at least 0, came -1", id="a negative sequence"),
    pytest.param({**PRICE, "sequence": 2**63}, "sequence",
                 f"sequence: expected a number below {2**63}, came {2**63}", id="a sequence above 64 bits"),
    pytest.param({**PRICE, "sequence": "1"}, "sequence",
                 "sequence: expected a whole number, came '1'", id="a sequence in a text"),
    pytest.param({**PRICE, "sequence": 1.0}, "sequence",
                 "sequence: expected a whole number, came 1.0", id="a sequence with a point"),
    pytest.param({**PRICE, "sequence": True}, "sequence",
                 "sequence: expected a whole number, came true", id="true for a sequence"),
    pytest.param({**PRICE, "kind": "mid"}, "kind",
                 "kind: expected 'mark', 'index', 'last' or 'settlement', came 'mid'", id="a kind of price"),
    pytest.param({**WITHDRAWAL, "hold": "yes"}, "hold",
                 "hold: expected true or false, came 'yes'", id="a word for true"),
    pytest.param({**WITHDRAWAL, "hold": 0}, "hold", "hold: expected true or false, came 0", id="zero for false"),
    pytest.param({**RULEBOOK, "rulebook": 5}, "rulebook",
                 "rulebook: expected a string or an object, came 5", id="a number for a rulebook"),
    pytest.param({**FUND_MOVEMENT, "fund": "pension"}, "fund",
                 "fund: expected 'insurance', 'default' or 'house', came 'pension'", id="an unknown fund"),
    pytest.param({"id": "f1"}, "type", "type: expected a record type such as 'fill', came nothing", id="no type"),
    pytest.param({**FILL, "type": 1}, "type", "type: expected a record type such as 'fill', came 1",
                 id="a number for a type"),
    pytest.param({**FILL, "type": ["fill"]}, "type", "type: expected a record type such as 'fill', came ['fill']",
                 id="a list for a type"),
    pytest.param({**FILL, "type": None}, "type", "type: expected a record type such as 'fill', came null",
                 id="null for a type"),
])
def test_a_fault_names_the_field_what_was_expected_and_what_came(record: dict[str, Any], field: str | None,
                                                                 message: str) -> None:
    fault = fault_of(wire(record))

    assert ("malformed", field, message) == (fault.reason, fault.field, fault.message)


@pytest.mark.parametrize("raw", [
    pytest.param(wire(FILL).replace(b'"f1"', b"7" * 4300), id="an integer of 4300 digits for an id"),
    pytest.param(wire(FILL).replace(b'"%s"' % TIME_TEXT.encode(), b"7" * 4300), id="and for a time"),
    pytest.param(wire(FILL).replace(b'"1.5"', b"7" * 4300), id="and for an amount"),
    pytest.param(wire(PRICE)[:-1] + b',"sequence":' + b"7" * 4300 + b"}", id="and for a sequence"),
    pytest.param(wire({**FILL, "type": "x" * 60_000}), id="a type of 60,000 characters"),
    pytest.param(b'{"' + b"x" * 30_000 + b'":1,"' + b"x" * 30_000 + b'":2}', id="repeated keys of 30,000 characters"),
    pytest.param(wire({**FILL, "size": {"a": ["x"] * 10_000}}), id="10,000 texts for a size"),
])
def test_a_message_stays_short_whatever_came(raw: bytes) -> None:
    fault = fault_of(raw)

    assert len(fault.message) <= MESSAGE_CHARACTERS_MAX
    assert len(fault.field or "") <= 80


# --- what this version does not apply ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trade", "Fill", "fill ", "", "é", "clearing.fill-posted:1"])
def test_a_type_that_the_contract_does_not_have_is_unknown(name: str) -> None:
    fault = fault_of(wire({**FILL, "type": name}))

    message = f"type: expected a record type such as 'fill', came {name!r}"
    assert Fault("unknown-type", message, "type", name or None, "f1", TIME) == fault


@pytest.mark.parametrize(("record", "field", "message"), [
    pytest.param({**INSTRUMENT, "contract_type": "spot"}, "contract_type",
                 "contract_type: expected 'linear' or 'inverse' in this version, came 'spot'", id="a spot contract"),
    pytest.param({**INSTRUMENT, "contract_type": "option"}, "contract_type",
                 "contract_type: expected 'linear' or 'inverse' in this version, came 'option'", id="an option"),
])
def test_a_field_that_this_version_does_not_apply_is_not_supported(record: dict[str, Any], field: str,
                                                                   message: str) -> None:
    assert Fault("not-supported", message, field, record["type"], record["id"], TIME) == fault_of(wire(record))


@pytest.mark.parametrize("record", [
    pytest.param({**DEPOSIT, "reverses": "d0", "amount": "-1"}, id="a deposit that reverses"),
    pytest.param({**INSTRUMENT, "contract_type": "future"}, id="a contract type that nobody knows"),
])
def test_a_malformed_record_is_malformed_before_it_is_not_supported(record: dict[str, Any]) -> None:
    assert "malformed" == fault_of(wire(record)).reason


# --- time ahead --------------------------------------------------------------------------------------------------


def test_a_record_at_the_latest_acceptable_time_is_read() -> None:
    assert TIME == command_of(wire(FILL), latest=TIME).time


def test_a_record_after_the_latest_acceptable_time_is_ahead_and_keeps_its_identity() -> None:
    message = (f"time: expected at most 2019-09-24T17:59:59.999999999Z (wall clock and tolerance), came {TIME_TEXT}")

    expected = Fault("time-ahead", message, "time", "fill", "f1", TIME)
    assert expected == fault_of(wire(FILL), latest=TIME - 1)


def test_a_malformed_record_is_malformed_before_it_is_ahead() -> None:
    assert "malformed" == fault_of(wire({**FILL, "size": "0"}), latest=0).reason


# --- too large ---------------------------------------------------------------------------------------------------


def of_size(size: int) -> bytes:
    raw = wire(FILL)
    return raw + b" " * (size - len(raw))


def test_a_record_of_64_kib_is_read() -> None:
    assert command_of(wire(FILL)) == command_of(of_size(RECORD_BYTES_MAX))


def test_a_record_above_64_kib_is_rejected_unread() -> None:
    message = "expected a record of at most 65536 bytes, came 65537 or more"

    assert Fault("too-large", message, None, None, None, None) == fault_of(of_size(RECORD_BYTES_MAX + 1))


# --- files of lines ----------------------------------------------------------------------------------------------


def lines_of(content: bytes, latest: Callable[[], int] | None = None) -> list[Delivered]:
    return list(read_lines("day", io.BytesIO(content), latest=latest))


def test_each_line_is_one_record_whatever_the_line_end() -> None:
    raw = wire(FILL)

    expected = [read(Place("day", line=1), raw), read(Place("day", line=2), raw), read(Place("day", line=3), raw)]
    assert expected == lines_of(raw + b"\n" + raw + b"\r\n" + raw)


def test_blank_lines_are_no_records_but_count_as_lines() -> None:
    raw = wire(FILL)

    assert [2, 5] == [delivered.place.line for delivered in lines_of(b"\n" + raw + b"\n \t\r\n\r\n" + raw + b"\n\n")]


def test_a_malformed_line_does_not_stop_the_file() -> None:
    delivered = lines_of(b"{\n" + wire(FILL) + b"\n\xff\n")

    assert [True, False, True] == [record.fault is not None for record in delivered]
    assert [b"{", wire(FILL), b"\xff"] == [record.raw for record in delivered]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_line_of_64_kib_is_read_and_its_line_end_is_not_counted(end: bytes) -> None:
    [delivered] = lines_of(of_size(RECORD_BYTES_MAX) + end)

    assert (None, of_size(RECORD_BYTES_MAX)) == (delivered.fault, delivered.raw)


@pytest.mark.parametrize("excess", [1, 2, 3, 70_000, 200_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_above_64_kib_is_rejected_with_its_beginning_and_the_next_is_read(excess: int, end: bytes) -> None:
    long, following = lines_of(of_size(RECORD_BYTES_MAX + excess) + end + wire(FILL))

    assert long.fault is not None
    assert ("too-large", 1) == (long.fault.reason, long.place.line)
    assert of_size(RECORD_BYTES_MAX + 1) == long.raw
    assert read(Place("day", line=2), wire(FILL)) == following


def test_a_last_line_above_64_kib_is_rejected_once() -> None:
    assert ["too-large"] == [line.fault.reason for line in lines_of(of_size(RECORD_BYTES_MAX * 3)) if line.fault]


def test_no_more_of_a_line_is_asked_for_than_its_limit() -> None:
    class Endless(io.BytesIO):
        asked_max = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 < size
            self.asked_max = max(self.asked_max, size)
            return super().readline(size)

    stream = Endless(b" " * 1_000_000)
    list(read_lines("day", stream))

    assert stream.asked_max <= RECORD_BYTES_MAX + 2


def test_the_latest_acceptable_time_is_asked_for_each_line() -> None:
    clock = iter([TIME - 1, TIME])
    ahead, due = lines_of(wire(FILL) + b"\n" + wire(FILL), latest=lambda: next(clock))

    assert ahead.fault is not None
    assert ("time-ahead", None) == (ahead.fault.reason, due.fault)


# --- where bytes come from ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [
    pytest.param(b"one\ntwo\n", id="text"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"\x1f", id="half of the magic of gzip"),
])
def test_a_plain_file_is_opened_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "day.gz").write_bytes(content)

    with open_input(str(tmp_path / "day.gz")) as stream:
        assert content == stream.read()


def test_a_gzipped_file_is_unpacked_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "day.jsonl").write_bytes(gzip.compress(b"one\n" * 50_000) + gzip.compress(b"two\n"))

    with open_input(str(tmp_path / "day.jsonl")) as stream:
        assert [b"one\n"] * 50_000 + [b"two\n"] == list(stream)


def test_closing_an_unpacked_file_closes_the_file_below(tmp_path: Path) -> None:
    (tmp_path / "day").write_bytes(gzip.compress(b"one\n"))
    stream = open_input(str(tmp_path / "day"))
    stream.close()

    with pytest.raises(ValueError, match="closed"):
        stream.read()


@pytest.mark.parametrize("pack", [pytest.param(bytes, id="plain"), pytest.param(gzip.compress, id="gzipped")])
@pytest.mark.parametrize("buffered", [io.BytesIO, lambda content: io.BufferedReader(io.BytesIO(content))],
                         ids=["a buffer of bytes", "a buffered reader"])
def test_a_minus_is_standard_input(monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes],
                                   buffered: Callable[[bytes], io.BytesIO]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffered(pack(b"one\n"))))

    with open_input("-") as stream:
        assert b"one\n" == stream.read()


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_input(str(tmp_path / "none"))


def test_a_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_input(str(tmp_path))


@pytest.mark.parametrize(("path", "expected"), [
    ("-", "stdin"),
    ("day.jsonl", "day.jsonl"),
    ("/tmp/in/day.csv.gz", "day.csv"),
    ("in/day.gz.gz", "day.gz"),
    ("in/.gz", ".gz"),
])
def test_a_source_is_named_by_the_file_without_gz(path: str, expected: str) -> None:
    assert expected == source_name(path)
