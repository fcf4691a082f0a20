"""Records: bytes of a file, a topic or a post become a validated command, or a fault that says why not.

The grammar is that of semantics section 1 and contracts section 1: one JSON object in UTF-8, of at most 64 KiB,
each key once, decimals in strings. This file never looks at state, never writes, and never raises on what the
bytes of a record hold; whether a command can be applied is decided by the ledger.

Neighbours: `ledger.commands` (the models that validate), `infra.streams.candles` (rows of a CSV as records).
"""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from ledger.amounts import nanoseconds, rfc3339
from ledger.commands import COMMANDS, Command, ListInstrument
from ledger.errors import Rejected

# A record above this is rejected unread, so that no delivery costs more memory or time than this (semantics section 1).
RECORD_BYTES_MAX: Final = 64 * 1024
# What came is quoted in a message up to this many characters: enough to recognise it in its source.
SHOWN_CHARACTERS_MAX: Final = 80
# A whole message; only the sentences that the models themselves phrase can reach it.
MESSAGE_CHARACTERS_MAX: Final = 400
# The rest of a line that is too long is skipped in pieces of this size.
_SKIPPED_BYTES: Final = 64 * 1024

_GZIP_MAGIC: Final = b"\x1f\x8b"
_JSON_BLANKS: Final = b" \t\r\n"
_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
# Types of JSON values that can neither hold keys nor be out of a double's range.
_PLAIN: Final = frozenset({str, int, bool, type(None)})

_VALIDATORS: Final[Mapping[str, Callable[..., Command]]] = {
    name: model.__pydantic_validator__.validate_json for name, model in COMMANDS.items()}
# The grammar of ids, for what is salvaged of a record that no model accepts.
_ID: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,200}").fullmatch


class Place(NamedTuple):
    """Where a record stood in its delivery."""

    source: str
    partition: int | None = None
    offset: int | None = None
    line: int | None = None


class Fault(NamedTuple):
    """Why a record is rejected, and what of its identity could be read."""

    reason: str
    message: str
    field: str | None
    type: str | None
    id: str | None
    time: int | None


class Delivered(NamedTuple):
    """A record as it came: exactly one of command and fault; `raw` is None when our own code built it."""

    place: Place
    command: Command | None
    fault: Fault | None
    raw: bytes | None


# --- one record --------------------------------------------------------------------------------------------------


def read(place: Place, raw: bytes, *, latest: int | None = None) -> Delivered:
    """The command that the bytes hold, or the fault; never raises on any bytes.

    Guards in order: too-large, malformed (JSON, keys, type), unknown-type, malformed (fields),
    not-supported (fields), time-ahead (later than `latest`, in nanoseconds: wall clock and tolerance).
    """
    record: dict[str, Any] = {}
    try:
        record = _parse(raw)
        _require_single_keys(raw, record)
        command = _validate(raw, record)
        if type(command) is ListInstrument:
            _require_applied_fields(command)
        if latest is not None and command.time > latest:
            raise Rejected("time-ahead", f"time: expected at most {rfc3339(latest)} (wall clock and tolerance), "
                                         f"came {rfc3339(command.time)}", field="time")
    except Rejected as rejected:
        return Delivered(place, None, _fault(rejected, record), raw)
    return Delivered(place, command, None, raw)


def _parse(raw: bytes) -> dict[str, Any]:
    if len(raw) > RECORD_BYTES_MAX:
        raise Rejected("too-large", f"expected a record of at most {RECORD_BYTES_MAX} bytes, came {len(raw)} or more")
    try:
        record = from_json(raw, allow_inf_nan=False, cache_strings="keys")
    except ValueError as wrong:
        raise Rejected("malformed", _unreadable(raw, wrong)) from None
    if type(record) is not dict:
        raise Rejected("malformed", f"expected a JSON object, came {shown(record)}")
    return record


def _unreadable(raw: bytes, wrong: ValueError) -> str:
    """Why bytes are no JSON, in the words of whoever wrote them: encoding first, then grammar."""
    if not raw.strip(_JSON_BLANKS):
        return "expected a JSON object, came an empty record"
    if raw.startswith(_BYTE_ORDER_MARKS):
        return "expected UTF-8 without a byte order mark, came a byte order mark"
    try:
        raw.decode()
    except UnicodeDecodeError as undecodable:
        return f"expected UTF-8, came byte 0x{raw[undecodable.start]:02x} at byte {undecodable.start}"
    return f"expected well-formed JSON, came broken JSON: {wrong}"


def _require_single_keys(raw: bytes, record: dict[str, Any]) -> None:
    """Reject a key that stands twice in one object, at any depth, and numbers beyond a double.

    Each key and each text has at least two quotes. If those that survived in `record` account for all quotes of
    the record, then no key was overwritten and none is nested; else the slow way tells.
    """
    types = list(map(type, record.values()))
    texts = types.count(str)
    quotes = 2 * (len(types) + texts)
    if raw.count(b'"') == quotes and (texts == len(types) or _PLAIN.issuperset(types)):
        return
    try:
        pairs = json.loads(raw.decode(), object_pairs_hook=_Pairs, parse_float=_finite)
    except ValueError as wrong:
        raise Rejected("malformed", f"expected well-formed JSON, came broken JSON: {wrong}") from None
    repeated = _repeated_keys(pairs)
    if not repeated:
        return
    for path in repeated:
        if len(path) == 1:
            # Which of its values was meant cannot be known, so that none identifies the record.
            record.pop(path[0], None)
    field = _dotted(repeated[0])
    others = _others(len(repeated) - 1)
    raise Rejected("malformed", f"{field}: expected each key once in its object, came it again{others}", field=field)


class _Pairs(list[tuple[str, object]]):
    """An object of JSON with all its keys, also the repeated ones."""


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"number out of range: {text[:SHOWN_CHARACTERS_MAX]}")
    return number


def _repeated_keys(document: object) -> list[tuple[str, ...]]:
    """The paths of all keys that stand more than once in their object, the shallow ones first."""
    repeated: list[tuple[str, ...]] = []
    queue: list[tuple[tuple[str, ...], object]] = [((), document)]
    for path, value in queue:  # grows as it is walked: breadth first, and no recursion to exhaust
        if isinstance(value, _Pairs):
            counts = Counter(key for key, _ in value)
            repeated.extend((*path, key) for key, count in counts.items() if count > 1)
            queue.extend(((*path, key), inner) for key, inner in value if type(inner) in (_Pairs, list))
        elif type(value) is list:
            queue.extend(((*path, str(n)), inner) for n, inner in enumerate(value) if type(inner) in (_Pairs, list))
    return repeated


def _validate(raw: bytes, record: dict[str, Any]) -> Command:
    kind = record.get("type")
    if type(kind) is not str:
        raise Rejected("malformed", f"type: expected a record type such as 'fill', came "
                                    f"{shown(kind) if 'type' in record else 'nothing'}", field="type")
    validate = _VALIDATORS.get(kind)
    if validate is None:
        raise Rejected("unknown-type", f"type: expected a record type such as 'fill', came {shown(kind)}", field="type")
    try:
        return validate(raw, strict=True)
    except ValidationError as invalid:
        raise rejection(invalid, record) from None


def _require_applied_fields(command: ListInstrument) -> None:
    """Reject what the contract knows and this version would value wrongly."""
    if command.contract_type not in ("linear", "inverse"):
        raise Rejected("not-supported", "contract_type: expected 'linear' or 'inverse' in this version, came "
                                        f"{command.contract_type!r}", field="contract_type")


def _fault(rejected: Rejected, record: Mapping[str, Any]) -> Fault:
    return Fault(rejected.reason, rejected.message, rejected.field,
                 _readable_id(record.get("type")), _readable_id(record.get("id")), readable_time(record.get("time")))


def _readable_id(value: object) -> str | None:
    return value if isinstance(value, str) and _ID(value) else None


def readable_time(value: object) -> int | None:
    """The time in nanoseconds where the text is one, else None."""
    try:
        return nanoseconds(value) if isinstance(value, str) else None
    except ValueError:
        return None


# --- faults in words ---------------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """What came, as one printable line that is short enough for a message."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return _shortened(repr(value), SHOWN_CHARACTERS_MAX)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def rejection(invalid: ValidationError, record: Mapping[str, Any]) -> Rejected:
    """What a model found wrong with a record, in one sentence: the first field, and the number of others."""
    errors: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for error in invalid.errors(include_url=False):
        errors.setdefault(_path(error["loc"], record), []).append(error)
    path, found = next(iter(errors.items()))
    field = _dotted(path) or None
    sentence = f"{field}: {_sentence(found)}" if field else _sentence(found)
    return Rejected("malformed", _shortened(sentence, MESSAGE_CHARACTERS_MAX) + _others(len(errors) - 1), field=field)


def _path(location: tuple[int | str, ...], record: Mapping[str, Any]) -> tuple[str, ...]:
    """The part of pydantic's location that stands in the record; what follows names members of a union."""
    path: list[str] = []
    value: object = record
    for part in location:
        if not isinstance(value, Mapping):
            break
        path.append(str(part))
        value = value.get(part)
    return tuple(path)


def _dotted(path: tuple[str, ...]) -> str:
    """The path as a printable line; ordinary names stand as they are."""
    return _shortened(repr(".".join(path))[1:-1], SHOWN_CHARACTERS_MAX)


def _sentence(errors: list[ErrorDetails]) -> str:
    """What was expected and what came; our own models say it themselves."""
    first = errors[0]
    if first["msg"].startswith("expected "):
        return first["msg"]
    came = "nothing" if first["type"] == "missing" else shown(first["input"])
    return f"expected {' or '.join(map(_expectation, errors))}, came {came}"


def _expectation(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "a value"
        case "literal_error":
            return str(context["expected"])
        case "string_type":
            return "a string"
        case "string_pattern_mismatch":
            return "1 to 200 characters other than control characters"
        case "int_type" | "int_parsing_size":
            return "a whole number"
        case "greater_than_equal":
            return f"a number of at least {context['ge']}"
        case "less_than":
            return f"a number below {context['lt']}"
        case "bool_type":
            return "true or false"
        case "dict_type":
            return "an object"
    return f"what the contract says ({error['msg']})"


def _others(count: int) -> str:
    return f" (and {count} other {'fault' if count == 1 else 'faults'})" if count else ""


# --- many records ------------------------------------------------------------------------------------------------


def read_lines(source: str, stream: BinaryIO, *, latest: Callable[[], int] | None = None) -> Iterator[Delivered]:
    """The records of a file of JSON lines; blank lines are no records, but count as lines.

    Raises what reading the stream raises (a broken gzip: EOFError, OSError or zlib.error), never for a record.
    """
    for line, raw in numbered_lines(stream):
        if raw.strip(_JSON_BLANKS):
            yield read(Place(source, None, None, line), raw, latest=latest() if latest else None)


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each line's number from 1, and its bytes without the line end; of a line above 64 KiB the first 64 KiB + 1."""
    number = 0
    while line := stream.readline(RECORD_BYTES_MAX + 2):  # a line of full size may end in two bytes, CR and LF
        number += 1
        if line.endswith(b"\n"):
            yield number, line[: -2 if line.endswith(b"\r\n") else -1]
        else:
            yield number, line[: RECORD_BYTES_MAX + 1]
            _skip_line(stream)


def _skip_line(stream: BinaryIO) -> None:
    while (piece := stream.readline(_SKIPPED_BYTES)) and not piece.endswith(b"\n"):
        pass


# --- where bytes come from ---------------------------------------------------------------------------------------


def open_input(path: str) -> BinaryIO:
    """The bytes of a file, or of standard input for `-`; unpacked where they begin like gzip."""
    stream = _standard_input() if path == "-" else io.BufferedReader(io.FileIO(path))
    packed = stream.peek(2).startswith(_GZIP_MAGIC)
    return io.BufferedReader(_Unpacked(stream), _SKIPPED_BYTES) if packed else stream


def _standard_input() -> io.BufferedReader:
    stream = sys.stdin.buffer
    return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stream))


class _Unpacked(gzip.GzipFile):
    """A gzip stream that closes the file below when it is closed."""

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__(fileobj=packed, mode="rb")
        self._packed = packed

    def close(self) -> None:
        super().close()
        self._packed.close()


def source_name(path: str) -> str:
    """The source that a file's records belong to: its base name without `.gz`; `stdin` for `-`."""
    name = Path(path).name
    return "stdin" if path == "-" else name.removesuffix(".gz") or name
