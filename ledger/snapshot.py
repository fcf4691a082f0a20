"""All states at one position of the log as bytes, and back (`ledger.state_codec`).

The same log gives the same bytes, folded or decided. A snapshot is never needed: the log says it all. Accounts stand
in parts of a thousand, so that they can be written between batches and never lie in memory twice: their ids in one
line, then a line each, which is read when the account is first asked for. This file never reads a log or a clock.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json, to_json

from ledger.accounts import Accounts, KeptAccount, row_of
from ledger.asset import AssetState
from ledger.commands import HaltedWhat
from ledger.errors import LedgerUnreadable
from ledger.events import ShortfallClaimed
from ledger.insurance_fund import FundState
from ledger.market import MarketState
from ledger.nomination import PoolPlace
from ledger.rulebook import RulebookState
from ledger.state_codec import codec
from ledger.states import States

# Grows by one whenever the states' fields or their meaning change.
FORMAT: Final = 2

# Accounts in one part of a snapshot.
ACCOUNTS_A_PART: Final = 1_000

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

# What of the states follows from the rest, or lasts for one record only.
DERIVED: Final = frozenset({"trigger", "_rules", "_rules_until", "_paths"})
KEPT: Final = frozenset({*_FIELDS, "accounts", "house"})


def encode_head(states: States) -> bytes:
    """The first part: all states but the accounts, which must not have moved on when those are encoded."""
    found = {field: codec(kind)[0](getattr(states, field)) for field, kind in _FIELDS.items()}
    # Timers that are over were judged; a fold still holds them, the writer does not.
    found["timers"] = sorted(row for row in found["timers"] if row[0] > states.log_time)
    found["house"] = {field: codec(kind)[0](getattr(states.house, field)) for field, kind in _HOUSE.items()}
    return to_json({"format": FORMAT, **found})


def encode_accounts(accounts: Iterable[KeptAccount]) -> bytes:
    """A further part: some accounts, in the order of their opening."""
    names, rows = [], []
    for name, kept in accounts:
        names.append(name)
        rows.append(kept if isinstance(kept, bytes) else row_of(kept))
    return b"\n".join([to_json(names), *rows])


def encode_states(states: States) -> Iterator[bytes]:
    """All parts, not compressed: the same log gives the same."""
    yield encode_head(states)
    accounts = iter(states.accounts.kept())
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
    accounts = Accounts()
    try:
        found = from_json(next(contents, b"null"))
        if found["format"] != FORMAT:
            raise LedgerUnreadable(f"expected a snapshot of format {FORMAT}, came {found['format']!r}")
        rows = {field: codec(kind)[1](found[field]) for field, kind in _FIELDS.items()}
        house = {field: codec(kind)[1](found["house"][field]) for field, kind in _HOUSE.items()}
        for content in contents:
            names, *kept = content.split(b"\n")
            for name, row in zip(from_json(names), kept, strict=True):
                accounts.keep(name, row)
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
