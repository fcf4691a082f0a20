"""All that can be refused, and what must never happen.

Three kinds only. `Rejected`: the record cannot be applied whoever asks (malformed, unknown, off-lot); it is
recorded in the intake stream and the stream goes on. `Refused`: a wish that the rules deny; it becomes an event
of its own. `BrokenInvariant`: our own fault; it stops the writer and is never caught.
"""

from __future__ import annotations

from typing import Final

# Stable reason codes of rejections; docs/events.md lists them.
REJECTIONS: Final = {
    "malformed": "the record is not well formed",
    "too-large": "the record is above 64 KiB",
    "unknown-type": "no record of this type exists",
    "not-supported": "this version does not apply records of this type or with this field",
    "time-ahead": "the record's time lies too far ahead of the wall clock",
    "conflict": "the id was spent by a record with other content",
    "unknown-account": "the account was never opened",
    "unknown-asset": "the asset was never listed",
    "unknown-instrument": "the instrument was never listed",
    "unknown-rulebook": "no such rulebook is published or shipped",
    "off-lot": "the size is not a multiple of the lot size",
    "immutable": "the field may not change any more",
    "rulebook": "the rulebook is not well formed",
    "no-mark": "the instrument has neither mark nor given price",
    "unknown-scope": "a halt names neither `all` nor an instrument nor an account that is known",
    "unknown-deposit": "no such deposit of the account, or it was undone before",
    "unknown-withdrawal": "no withdrawal of this id is held for the account",
    "withdrawal-held": "a withdrawal of this id, from another source, is held for the account",
    "unknown-claim": "no such claim of this shard is open",
    "no-position": "the account has no such isolated position",
    "wrong-side": "the position side does not fit the account's position mode",
}


class Rejected(Exception):
    """A record that cannot be applied: a stable code, and a sentence with field, expectation and what came."""

    def __init__(self, reason: str, message: str, *, field: str | None = None) -> None:
        if reason not in REJECTIONS:
            raise BrokenInvariant(f"no such rejection: {reason}")
        super().__init__(message)
        self.reason, self.message, self.field = reason, message, field


class BrokenInvariant(Exception):
    """The ledger contradicts itself. The writer stops; nothing is written after it."""


class LedgerLocked(Exception):
    """Another writer holds the ledger; the message names it."""


class LedgerUnreadable(Exception):
    """The ledger at hand cannot be opened: not a ledger, a newer format, or failed integrity."""
