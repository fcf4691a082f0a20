"""States as what JSON can say and back, by their own declared types.

Decimals are plain texts, one a value; mappings are lists of pairs in the order that the log gave them, since some
decisions follow that order; sets are sorted; named tuples are rows. This file knows no state in particular.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from ledger.amounts import plain
from ledger.encoding import decode, encode
from ledger.events import Event
from ledger.rulebook import Rulebook

# (to JSON, from JSON, what an empty list stands for; None: nothing of its own)
Codec = tuple[Callable[[Any], Any], Callable[[Any], Any], Any]
_PLAIN: Final = (int, str, bool, types.NoneType)


def _same(value: Any) -> Any:
    return value


_IDENTITY: Final[Codec] = _same, _same, None


@cache
def codec(kind: Any) -> Codec:
    """How values of a declared type are written and read. TypeError for a type that no state has."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind in _PLAIN or origin is Literal:
        return _IDENTITY
    if kind is Decimal:
        return plain, Decimal, None
    if kind is Rulebook:
        return (lambda value: value.model_dump(mode="json", exclude_none=True),
                lambda value: Rulebook.model_validate_json(json.dumps(value)), None)
    if isinstance(kind, type) and issubclass(kind, Event):
        return (lambda value: [value.TOPIC, encode(value).decode()], lambda value: decode(value[0], value[1].encode()),
                None)
    if origin in (Union, types.UnionType):
        return _optional(kind, parts)
    if origin in (dict, Mapping):
        # Mappings in states are never changed in place but for the outermost, which are read as their own.
        return *_mapping(*map(codec, parts)), {} if origin is Mapping else None
    if origin in (set, frozenset):
        write, back, _ = codec(parts[0])
        return (lambda value: sorted(map(write, value)), lambda value: origin(map(back, value)),
                frozenset() if origin is frozenset else None)
    if origin in (tuple, list) and (origin is list or parts[1:] == (...,)):
        write, back, _ = codec(parts[0])
        return (lambda value: [write(one) for one in value], lambda value: origin(map(back, value)),
                () if origin is tuple else None)
    if origin is tuple:
        return *_row(tuple, [codec(part) for part in parts]), None
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return *_row(getattr(kind, "_make"), [codec(hints[field]) for field in getattr(kind, "_fields")]), None  # noqa: B009
    raise TypeError(f"expected a type that states are made of, came {kind!r}")


def _optional(kind: Any, parts: tuple[Any, ...]) -> Codec:
    codecs = [codec(part) for part in parts if part is not types.NoneType]
    if all(one == _IDENTITY for one in codecs):
        return _IDENTITY
    if len(codecs) != 1:
        raise TypeError(f"expected one type or None, came {kind!r}")
    write, back, _ = codecs[0]
    return (lambda value: None if value is None else write(value),
            lambda value: None if value is None else back(value), None)


def _mapping(key: Codec, item: Codec) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    (write_key, read_key, _), (write, back, _) = key, item
    if key == _IDENTITY:
        return (lambda value: [[name, write(one)] for name, one in value.items()],
                lambda value: {name: back(one) for name, one in value})
    return (lambda value: [[write_key(name), write(one)] for name, one in value.items()],
            lambda value: {read_key(name): back(one) for name, one in value})


def _row(make: Callable[[Any], Any], codecs: list[Codec]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Only columns that are not themselves in JSON are looked at; most of those are empty or None."""
    count = len(codecs)
    busy = [(at, *one) for at, one in enumerate(codecs) if one != _IDENTITY]
    if not busy:
        return list, make

    def write_row(value: Any) -> list[Any]:
        row = list(value)
        for at, write, _, empty in busy:
            one = row[at]
            if one is not None:
                row[at] = write(one) if one or empty is None else []
        return row

    def read_row(row: list[Any]) -> Any:
        if len(row) != count:
            raise ValueError(f"expected {count} columns, came {len(row)}")
        for at, _, back, empty in busy:
            one = row[at]
            if one is not None:
                row[at] = back(one) if one or empty is None else empty
        return make(row)

    return write_row, read_row
