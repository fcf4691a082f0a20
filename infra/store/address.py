"""Where a ledger is: a file, or a shard of a PostgreSQL server. `postgresql://...?shard=NAME` is the latter.

This file never connects to anything, and never shows a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

SCHEMES: Final = ("postgresql", "postgres")
SHARD: Final = "ledger"
# A schema's name has 63 bytes in PostgreSQL; that of the read models and of the channel is longer than the shard's.
# The stock recorder writes schemas without quotes, so it reads none whose name needs them.
_SHARD_NAME: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,47}").fullmatch


class BadAddress(ValueError):
    """Text that names no ledger; the message says what was expected."""


@dataclass(frozen=True)
class PostgresAddress:
    """A shard of a server: the server's address as libpq takes it, and the schema that holds the shard's log."""

    dsn: str
    shard: str = SHARD

    @property
    def read_schema(self) -> str:
        """The schema of the shard's read models, which can be dropped and built anew."""
        return f"{self.shard}_read"

    @property
    def url(self) -> str:
        """The whole address, password and all: for another process, never for people to see."""
        parts = urlsplit(self.dsn)
        return _joined(parts, parts.netloc, [*parse_qsl(parts.query), ("shard", self.shard)])

    def __str__(self) -> str:
        """The address as it can be typed again, but for the password."""
        parts = urlsplit(self.dsn)
        user, at, place = parts.netloc.rpartition("@")
        query = [(name, value) for name, value in parse_qsl(parts.query) if name != "password"]
        return _joined(parts, f"{user.partition(':')[0]}{at}{place}", [*query, ("shard", self.shard)])

    def __repr__(self) -> str:
        return f"PostgresAddress({str(self)!r})"


def ledger_address(text: str | Path | PostgresAddress) -> Path | PostgresAddress:
    """The ledger that a text names; whatever has no scheme of PostgreSQL is a path. BadAddress: a wrong part."""
    if isinstance(text, PostgresAddress):
        return text
    scheme, _, rest = str(text).partition(":")
    if isinstance(text, Path) or scheme not in SCHEMES or not rest.startswith("//"):
        return Path(text)
    parts = urlsplit(text)
    query = parse_qsl(parts.query, keep_blank_values=True)
    shards = [value for name, value in query if name == "shard"] or [SHARD]
    if len(shards) > 1 or not _SHARD_NAME(shards[0]):
        raise BadAddress("expected one shard of at most 48 lower-case letters, digits and _, such as "
                         f"postgresql://host/database?shard=desk, came shard={' and '.join(map(repr, shards))}")
    left = [(name, value) for name, value in query if name != "shard"]
    return PostgresAddress(_joined(parts, parts.netloc, left), shards[0])


def _joined(parts: SplitResult, place: str, query: list[tuple[str, str]]) -> str:
    """An address of its parts. libpq wants both slashes, also where no host follows."""
    words = urlencode(query, safe="/", quote_via=quote)
    return f"{parts.scheme}://{place}{parts.path}{'?' if words else ''}{words}"
