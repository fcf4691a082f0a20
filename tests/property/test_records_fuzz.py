"""Whatever the bytes: reading never raises, answers with a command or a fault, and agrees with the JSON standard."""

from __future__ import annotations

import io
import json
import math
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.streams.candles import HEADER, read_candles
from infra.streams.records import MESSAGE_CHARACTERS_MAX, Delivered, Fault, Place, read, read_lines
from ledger.amounts import nanoseconds, plain, rfc3339
from ledger.commands import COMMANDS, PostFill, RecordPrice
from ledger.errors import REJECTIONS

TIME = "2019-09-24T18:00:00Z"
RULEBOOK: dict[str, Any] = {"name": "x", "assets": {"*": {"haircut": "0.1"}}}
# A record of every type with every field that the type has.
FIELDS: dict[str, dict[str, Any]] = {
    "rulebook": {"rulebook": RULEBOOK, "effective": TIME},
    "asset": {"asset": "BTC", "quantum": "0.00000001", "pricing_instrument": "BTC-USD"},
    "instrument": {"instrument": "B-U", "base": "B", "quote": "U", "contract_type": "inverse",
                   "contract_size": "100", "tick_size": "0.01", "lot_size": "1", "underlying": "B",
                   "expiry": "2026-03-27T08:00:00Z"},
    "account": {"account": "alice", "margin_mode": "isolated", "position_mode": "hedge", "kind": "client",
                "member": "m", "rulebook": "house"},
    "account-settings": {"account": "alice", "instrument": "BTC-USD", "leverage": "12.5",
                         "margin_mode": "isolated", "position_mode": None},
    "deposit": {"account": "é😀", "asset": "USD", "amount": "100", "reverses": "d0"},
    "withdrawal": {"account": 'a"\\', "asset": "USD", "amount": "1", "hold": True},
    "withdrawal-settled": {"account": "alice", "withdrawal": "w1"},
    "withdrawal-cancelled": {"account": "alice", "withdrawal": "w1"},
    "fill": {"account": "alice", "trade_id": "t1", "instrument": "BTC-USD", "side": "buy", "size": "1.5",
             "price": "10058.419189", "fee": "-0.25", "fee_asset": "USD", "liquidity": "maker", "order_id": "o",
             "liquidation_order_id": "order-9", "margin_mode": "cross", "position_side": "long",
             "leverage": "3"},
    "order": {"account": "alice", "order_id": "o1", "instrument": "BTC-USD", "side": "sell", "remaining": "0",
              "price": "9", "reduce_only": True},
    "isolated-margin": {"account": "alice", "instrument": "BTC-USD", "amount": "-5", "position_side": "short"},
    "transfer": {"account": "alice", "to_account": "bob", "asset": "USD", "amount": "7.25"},
    "liquidation-result": {"account": "alice", "liquidation_order_id": "order-9", "result": "expired"},
    "price": {"instrument": "BTC-USD", "price": "10059", "source": "x", "sequence": 7, "kind": "settlement"},
    "funding": {"instrument": "BTC-USD", "rate": "-0.0001", "price": "10000"},
    "interest-rate": {"asset": "USD", "borrow_rate": "0.08", "lend_rate": "0.02"},
    "settlement": {"instrument": "BTC-USD", "price": "10000", "kind": "daily"},
    "fund-movement": {"fund": "insurance", "asset": "USD", "amount": "1", "kind": "recovery", "contributor": "m"},
    "halt": {"scope": "all", "what": "new-risk", "reason": "r", "by": "desk"},
    "resume": {"scope": "alice", "what": "liquidations", "reason": "r", "by": "desk"},
    "clock": {},
}
VALID: list[dict[str, Any]] = [
    {"type": kind, "id": f"{kind}-1", "time": TIME, "replay_of": None, **fields} for kind, fields in FIELDS.items()]
FILL = next(record for record in VALID if record["type"] == "fill")
NAMES = sorted({name for model in COMMANDS.values() for name in model.model_fields} | {"type", "x", ""})

texts = st.one_of(
    st.text(max_size=20), st.sampled_from([*COMMANDS, TIME, "1", "-0", "1e3", "NaN", "a\0"]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.integers(10**300, 10**310), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)), max_leaves=8)
# An object of JSON as its pairs, so that keys may repeat.
objects = st.lists(st.tuples(st.sampled_from(NAMES) | texts, values), max_size=14)


def spelled(pairs: list[tuple[str, object]], *, ascii_only: bool) -> bytes:
    members = (f"{json.dumps(key, ensure_ascii=ascii_only)}:{json.dumps(value, ensure_ascii=ascii_only)}"
               for key, value in pairs)
    return ("{" + ",".join(members) + "}").encode(errors="surrogatepass")


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A valid record with a few bytes overwritten, cut out, put in or doubled."""
    raw = bytearray(json.dumps(draw(st.sampled_from(VALID)), ensure_ascii=draw(st.booleans())).encode())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(raw)))
        end = draw(st.integers(start, min(len(raw), start + 12)))
        inserted = draw(st.one_of(
            st.just(bytes(raw[start:end]) * 2), st.binary(max_size=4),
            st.sampled_from([b'"', b"\\", b"{", b"}", b"[", b",", b":", b"0", b"\0", b"NaN", b"\\u0000", b"\\ud800"])))
        raw[start:end] = inserted
    return bytes(raw)


@st.composite
def changed_records(draw: st.DrawFn) -> bytes:
    """A valid record in which fields are replaced, left out, added or repeated."""
    pairs = list(draw(st.sampled_from(VALID)).items())
    kept = [pair for pair in pairs if draw(st.integers(0, 9))]
    changed = [(key, draw(values)) if not draw(st.integers(0, 9)) else (key, value) for key, value in kept]
    return spelled(changed + draw(st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=2)),
                   ascii_only=draw(st.booleans()))


anything = st.one_of(
    st.binary(max_size=300), mutations(), changed_records(), st.builds(spelled, objects, ascii_only=st.booleans()),
    st.builds(json.dumps, values).map(str.encode))


def require_answer(delivered: Delivered) -> None:
    """Exactly one of command and fault; the fault says something short, with a reason that is listed."""
    assert (delivered.command is None) is not (delivered.fault is None)
    if delivered.fault:
        assert delivered.fault.message
        assert len(delivered.fault.message) <= MESSAGE_CHARACTERS_MAX + 40
        assert delivered.fault.reason in REJECTIONS
        require_identity(delivered.fault)


def require_identity(fault: Fault) -> None:
    """What is salvaged can be recorded: ids in their grammar, a time that can be written."""
    for identity in (fault.type, fault.id):
        assert identity is None or 1 <= len(identity) <= 200
    assert fault.time is None or nanoseconds(rfc3339(fault.time)) == fault.time


def refuse_constant(text: str) -> None:
    raise ValueError(text)


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("repeated key")
    return dict(pairs)


def finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def standard(raw: bytes) -> object:
    """What Python's own JSON reader makes of the bytes when it is held to the standard; ValueError if nothing."""
    document = json.loads(raw.decode(), object_pairs_hook=unique, parse_constant=refuse_constant, parse_float=finite)
    json.dumps(document, ensure_ascii=False).encode()  # raises UnicodeEncodeError, a ValueError, on lone surrogates
    return document


@settings(deadline=None, max_examples=300)
@given(raw=anything, latest=st.none() | st.integers(0, 2**62))
def test_any_bytes_become_a_command_or_a_fault(raw: bytes, latest: int | None) -> None:
    place = Place("fuzz", 0, 1)
    delivered = read(place, raw, latest=latest)

    require_answer(delivered)
    assert (place, raw) == (delivered.place, delivered.raw)
    assert delivered == read(place, raw, latest=latest)


@settings(deadline=None, max_examples=300)
@given(raw=anything)
def test_a_command_is_only_read_from_json_of_the_standard_with_single_keys(raw: bytes) -> None:
    delivered = read(Place("fuzz"), raw)
    if delivered.command is None:
        return
    document = standard(raw)

    assert isinstance(document, dict)
    assert type(delivered.command).TYPE == document["type"]
    assert (delivered.command.id, rfc3339(delivered.command.time)) == (
        document.get("id"), rfc3339(nanoseconds(document["time"])))


@settings(deadline=None, max_examples=200)
@given(document=st.dictionaries(texts, values, max_size=6), ascii_only=st.booleans())
def test_an_object_of_the_standard_is_never_called_broken(document: dict[str, object], ascii_only: bool) -> None:
    raw = json.dumps({**document, "type": "trade"}, ensure_ascii=ascii_only).encode()
    try:
        standard(raw)
    except ValueError:
        return  # NaN and infinities, which Python writes
    fault = read(Place("fuzz"), raw).fault

    assert fault is not None
    assert "unknown-type" == fault.reason


@settings(deadline=None, max_examples=150)
@given(pairs=objects, nesting=st.lists(st.sampled_from(["list", "object"]), max_size=4), ascii_only=st.booleans())
def test_a_repeated_key_is_found_wherever_it_stands(pairs: list[tuple[str, object]], nesting: list[str],
                                                    ascii_only: bool) -> None:
    inner = spelled([*pairs, ("twice", 1), ("twice", 2)], ascii_only=ascii_only)
    for kind in nesting:
        inner = b"[" + inner + b"]" if kind == "list" else b'{"y":' + inner + b"}"
    raw = b'{"x":' + inner + b"," + json.dumps(FILL).encode()[1:]
    fault = read(Place("fuzz"), raw).fault

    assert fault is not None
    assert "malformed" == fault.reason


def test_every_field_of_every_type_is_fuzzed() -> None:
    assert {kind: set(model.model_fields) | {"type"} for kind, model in COMMANDS.items()} == {
        record["type"]: set(record) for record in VALID}
    assert all(read(Place("fuzz"), json.dumps(record).encode()).command for record in VALID)


def require_sentence(fault: Fault, field: str) -> None:
    """What was expected, what came, and at which field (or one of those that it must agree with)."""
    assert fault.reason in ("malformed", "unknown-type", "not-supported")
    assert "expected" in fault.message
    assert "came" in fault.message
    assert fault.field is None or fault.message.startswith(f"{fault.field}: ")
    # A rule that binds several fields names none, or one of them.
    assert fault.field == field or fault.field is None or fault.field.split(".")[0] == field


@settings(deadline=None, max_examples=400)
@given(record=st.sampled_from(VALID), data=st.data())
def test_one_wrong_field_is_named_with_what_was_expected_and_what_came(record: dict[str, Any],
                                                                       data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(record)))
    value = data.draw(values)
    delivered = read(Place("fuzz"), json.dumps({**record, field: value}).encode())

    if field == "type" and isinstance(value, str) and value in COMMANDS:
        # Another type's record by its own word: held to that type's fields, whichever of them it lacks.
        if delivered.fault is not None and delivered.fault.field is not None:
            require_sentence(delivered.fault, delivered.fault.field.split(".")[0])
            assert delivered.fault.field.split(".")[0] in {*COMMANDS[value].model_fields, *record}
    elif delivered.fault is not None:
        require_sentence(delivered.fault, field)
    elif field != "type":
        # Nothing is taken that is not what came, but for what the contract lets be left out.
        taken = json.loads(delivered.command.model_dump_json())[field]  # type: ignore[union-attr]
        assert value is None or taken == value or (taken, True) == (plain_of(value), isinstance(value, str))


def plain_of(value: object) -> object:
    """Decimals and times are read as values: `1.0` as `1`, `00Z` with its nanoseconds."""
    for normal in (lambda: plain(Decimal(str(value))), lambda: rfc3339(nanoseconds(str(value))),
                   lambda: nanoseconds(str(value))):
        with suppress(ArithmeticError, ValueError):
            return normal()
    return value


@settings(deadline=None, max_examples=200)
@given(record=st.sampled_from(VALID), data=st.data())
def test_a_missing_field_is_named_or_may_be_missing(record: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(record)))
    null = read(Place("fuzz"), json.dumps({**record, field: None}).encode())
    missing = read(Place("fuzz"), json.dumps({name: value for name, value in record.items() if name != field}).encode())

    for found in (null.fault, missing.fault):
        if found is not None:
            require_sentence(found, field)
    model = COMMANDS[record["type"]]
    if field != "type" and model.model_fields[field].is_required():
        assert missing.fault is not None


@settings(deadline=None, max_examples=150)
@given(size=st.decimals("0.000000001", "999999999999", places=9), time=st.integers(0, 2**62), identity=st.text(
    st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=200), ascii_only=st.booleans())
def test_a_valid_fill_is_read_exactly(size: Any, time: int, identity: str, ascii_only: bool) -> None:
    record = {**FILL, "id": identity, "time": rfc3339(time), "size": plain(size)}
    command = read(Place("fuzz"), json.dumps(record, ensure_ascii=ascii_only).encode()).command

    assert isinstance(command, PostFill)
    assert (identity, time, size) == (command.id, command.time, command.size)


@settings(deadline=None, max_examples=150)
@given(lines=st.lists(anything.map(lambda raw: raw.replace(b"\n", b" ")), max_size=6), end=st.sampled_from(
    [b"\n", b"\r\n"]))
def test_each_line_of_a_file_is_answered_as_if_it_stood_alone(lines: list[bytes], end: bytes) -> None:
    lines = [line.rstrip(b"\r") for line in lines]
    expected = [read(Place("fuzz", line=n), raw) for n, raw in enumerate(lines, 1) if raw.strip(b" \t\r\n")]

    assert expected == list(read_lines("fuzz", io.BytesIO(end.join([*lines, b""]))))


def require_place(record: Delivered, content: bytes) -> None:
    """A rejected row says where it stood, what was expected and what came; its bytes are those of that line."""
    assert "fuzz" == record.place.source
    if record.fault is not None:
        line = record.place.line
        assert line is not None
        assert "expected" in record.fault.message
        assert "came" in record.fault.message
        assert (record.raw or b"").removesuffix(b"\r") == content.split(b"\n")[line - 1].removesuffix(b"\r")


CELLS = st.one_of(
    st.sampled_from(["1", "2", "3", "1e3", "-1", "0", "", "NaN", "BTC-USD", "ETH-USD", "XBT", TIME,
                     "2019-09-24T18:00:30.5Z", "2019-09-24T18:01:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"]),
    st.text(max_size=5))
ROWS = st.one_of(
    st.binary(max_size=60),
    st.lists(CELLS, min_size=6, max_size=8).map(",".join).map(lambda row: row.encode()),
    st.builds(
        "{},{},2,4,1,3,{}".format,
        st.integers(0, 253402300799 * 10**9).map(rfc3339)
        | st.sampled_from([TIME, "2019-09-24T18:00:30Z", "2019-09-24T18:01:00Z", "2019-09-24T18:02:00Z"]),
        st.sampled_from(["BTC-USD", "ETH-USD", "ETH-BTC", "XBT"]), CELLS).map(str.encode))


@pytest.mark.parametrize("list_unknown", [False, True])
@settings(deadline=None, max_examples=200)
@given(rows=st.lists(ROWS, max_size=8))
def test_any_rows_of_candles_become_commands_or_faults_in_a_sound_order(list_unknown: bool, rows: list[bytes]) -> None:
    content = b"\n".join([HEADER.encode(), *rows])
    delivered = list(read_candles("fuzz", io.BytesIO(content), list_unknown=list_unknown))
    sequences: dict[str, int] = {}

    for record in delivered:
        require_answer(record)
        require_place(record, content)
        assert (record.raw is None) is (record.fault is None)
        if isinstance(record.command, RecordPrice):
            assert sequences.get(record.command.instrument, 0) + 1 == record.command.sequence
            sequences[record.command.instrument] = record.command.sequence
        if record.command:
            rfc3339(record.command.time)
    lists = [record.command.id for record in delivered if record.command and record.command.id]
    assert len(set(lists)) == len(lists)
