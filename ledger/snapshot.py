"""All states at one position of the log as bytes, and back: compact JSON by the states' own declared types.

Decimals are plain texts, one a value; mappings are lists of pairs in the order that the log gave them, since some
decisions follow that order; sets are sorted. The same log gives the same bytes, folded or decided. A snapshot is
never needed: the log says it all. Accounts stand in parts of a thousand, so that they can be written between batches
and never lie in memory twice. This file never reads a log or a clock.
"""

from __future__ import annotations

import hashlib
import json
import types
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from ledger.account import AccountState
from ledger.amounts import plain
from ledger.asset import AssetState
from ledger.commands import HaltedWhat
from ledger.encoding import decode, encode
from ledger.errors import LedgerUnreadable
from ledger.events import Event, ShortfallClaimed
from ledger.insurance_fund import FundState
from ledger.market import MarketState
from ledger.nomination import PoolPlace
from ledger.rulebook import Rulebook, RulebookState
from ledger.states import States

# Grows by one whenever the states' fields or their meaning change.
FORMAT: Final = 1

# Accounts in one part of a snapshot.
ACCOUNTS_A_PART: Final = 1_000

# (to JSON, from JSON, what an empty list stands for; None: nothing of its own)
Codec = tuple[Callable[[Any], Any], Callable[[Any], Any], Any]
_PLAIN: Final = (int, str, bool, types.NoneType)


def _same(value: Any) -> Any:
    return value


_IDENTITY: Final[Codec] = _same, _same, None


@cache
def _codec(kind: Any) -> Codec:
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
        return *_mapping(*map(_codec, parts)), {} if origin is Mapping else None
    if origin in (set, frozenset):
        write, back, _ = _codec(parts[0])
        return (lambda value: sorted(map(write, value)), lambda value: origin(map(back, value)),
                frozenset() if origin is frozenset else None)
    if origin in (tuple, list) and (origin is list or parts[1:] == (...,)):
        write, back, _ = _codec(parts[0])
        return (lambda value: [write(one) for one in value], lambda value: origin(map(back, value)),
                () if origin is tuple else None)
    if origin is tuple:
        return *_row(tuple, [_codec(part) for part in parts]), None
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return *_row(getattr(kind, "_make"), [_codec(hints[field]) for field in getattr(kind, "_fields")]), None  # noqa: B009
    raise TypeError(f"expected a type that states are made of, came {kind!r}")


def _optional(kind: Any, parts: tuple[Any, ...]) -> Codec:
    codecs = [_codec(part) for part in parts if part is not types.NoneType]
    if all(codec == _IDENTITY for codec in codecs):
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
    busy = [(at, *codec) for at, codec in enumerate(codecs) if codec != _IDENTITY]
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


_FIELDS: Final[dict[str, Any]] = {
    "position": int,
    "log_time": int,
    "versions": dict[str, int],
    "markets": dict[str, MarketState],
    "assets": dict[str, AssetState],
    "funds": dict[tuple[str, str], FundState],
    "rulebooks": RulebookState,
    "halts": set[tuple[str, HaltedWhat]],
    "open_orders": dict[str, PoolPlace],
    "claims": dict[str, ShortfallClaimed],
    "bearing": set[str],
    "timers": list[tuple[int, str, str, str]],
}
_HOUSE: Final[dict[str, Any]] = {"balances": dict[tuple[str, str], Decimal], "sizes": dict[str, Decimal]}


_ACCOUNT: Final = _codec(AccountState)
# What of the states follows from the rest, or lasts for one record only.
DERIVED: Final = frozenset({"trigger", "_rules", "_rules_until", "_paths"})
KEPT: Final = frozenset({*_FIELDS, "accounts", "house"})


def encode_head(states: States) -> bytes:
    """The first part: all states but the accounts, which must not have moved on when those are encoded."""
    found = {field: _codec(kind)[0](getattr(states, field)) for field, kind in _FIELDS.items()}
    # Timers that are over were judged; a fold still holds them, the writer does not.
    found["timers"] = sorted(row for row in found["timers"] if row[0] > states.log_time)
    found["house"] = {field: _codec(kind)[0](getattr(states.house, field)) for field, kind in _HOUSE.items()}
    return _json({"format": FORMAT, **found})


def encode_accounts(accounts: Iterable[AccountState]) -> bytes:
    """A further part: some accounts, in the order of their opening."""
    write = _ACCOUNT[0]
    return _json([write(state) for state in accounts])


def encode_states(states: States) -> Iterator[bytes]:
    """All parts, not compressed: the same log gives the same."""
    yield encode_head(states)
    accounts = iter(states.accounts.values())
    while part := list(islice(accounts, ACCOUNTS_A_PART)):
        yield encode_accounts(part)


def hash_of_states(states: States) -> str:
    """SHA-256 over the canonical bytes, in hex: equal where the states are."""
    found = hashlib.sha256()
    for part in encode_states(states):
        found.update(part)
    return found.hexdigest()


def restore_states(states: States, parts: Iterable[bytes]) -> None:
    """Put empty states where `encode_states` stood. LedgerUnreadable, with nothing changed, for other content."""
    contents = iter(parts)
    accounts: dict[str, AccountState] = {}
    back = _ACCOUNT[1]
    try:
        found = json.loads(next(contents, b"null"))
        if found["format"] != FORMAT:
            raise LedgerUnreadable(f"expected a snapshot of format {FORMAT}, came {found['format']!r}")
        rows = {field: _codec(kind)[1](found[field]) for field, kind in _FIELDS.items()}
        house = {field: _codec(kind)[1](found["house"][field]) for field, kind in _HOUSE.items()}
        for content in contents:
            for row in json.loads(content):
                accounts[row[0]] = back(row)
    except (ArithmeticError, LookupError, TypeError, ValueError) as fault:
        raise LedgerUnreadable(f"expected a snapshot of the states, came {fault!r}") from fault
    for field, value in rows.items():
        setattr(states, field, value)
    for field, value in house.items():
        setattr(states.house, field, value)
    states.accounts = accounts
    # As a fold leaves them: to be looked up anew.
    states._paths.clear()
    states.forget_rules()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@cache
def code_fingerprint() -> str:
    """SHA-256 of all that folds a log: the sources and rulebooks of this package. Other code may fold otherwise."""
    folder = Path(__file__).parent
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".json")):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def pack(content: bytes) -> bytes:
    """Content as stored: its SHA-256 (32 bytes), then the content under zlib."""
    return hashlib.sha256(content).digest() + zlib.compress(content, 1)


def unpack(stored: bytes) -> bytes:
    """The content that `pack` took. LedgerUnreadable where its hash is another, or it is damaged."""
    try:
        content = zlib.decompress(stored[32:])
    except zlib.error as fault:
        raise LedgerUnreadable(f"expected a packed snapshot, came {fault}") from fault
    if hashlib.sha256(content).digest() != stored[:32]:
        raise LedgerUnreadable("expected a snapshot with the hash that it states, came another")
    return content
