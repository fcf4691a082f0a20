"""Dead letters: rejected records, and how one is offered again, under a new id that names the old.

The log keeps each with its reason; a replay is a record of its own, `<old>#r1` with `replay_of` (and `#r2` for that
one's), so that offering a letter twice is a duplicate. What could not be read is not mended here: whoever knows what
was meant gives the corrected record. This file never decides what becomes of a record: the shard does.

Neighbours: `infra.streams.records` (what can be read), `infra.shard` (what is applied), `infra.cli_dead_letters`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from infra.embedded import LedgerReader
from infra.shard import Outcome, Shard
from infra.streams.records import Place, read
from ledger.encoding import decode
from ledger.events import Recorded, RecordRejected

PAGE: Final = 5_000
ID_CHARACTERS_MAX: Final = 200
_REPLAYED: Final = re.compile(r"#r([1-9][0-9]{0,8})\Z")


class NotReplayable(Exception):
    """A letter cannot be offered again; the message says why, and what to do instead."""


class DeadLetter(NamedTuple):
    """A rejected record: where its rejection stands in the log, whose it was, why, and what is kept of its bytes."""

    position: int
    rejected: RecordRejected

    @property
    def raw(self) -> bytes:
        """The record as it came; only its first 4 KiB where it was longer."""
        kept = self.rejected.raw
        return kept.encode() if self.rejected.raw_encoding == "utf-8" else base64.b64decode(kept)

    @property
    def is_whole(self) -> bool:
        """Whether all of the record is kept."""
        return len(self.raw) == self.rejected.raw_bytes


def letter_of(recorded: Recorded) -> DeadLetter | None:
    """The letter that an event stands for, None for any but a rejection."""
    return DeadLetter(recorded.position, recorded.event) if isinstance(recorded.event, RecordRejected) else None


def dead_letters(reader: LedgerReader, *, after: int = 0) -> Iterator[DeadLetter]:
    """The rejected records of a ledger, in log order. Rejected prices are none: newer ones have come."""
    while rows := reader.rows(after, PAGE):
        for position, stream, version, topic, state in rows:
            if topic == RecordRejected.TOPIC:
                letter = letter_of(Recorded(position, stream, version, decode(topic, state)))
                if letter is not None:
                    yield letter
        after = rows[-1][0]


def dead_letter(reader: LedgerReader, position: int) -> DeadLetter | None:
    """The letter whose rejection stands at a log position; None where something else does."""
    found = reader.select(position - 1, 1) if position > 0 else ()
    return letter_of(found[0]) if found and found[0].position == position else None


def replay_id(name: str) -> str:
    """The id under which a record is offered again: `x` as `x#r1`, `x#r1` as `x#r2`."""
    found = _REPLAYED.search(name)
    return f"{name}#r1" if found is None else f"{name[: found.start()]}#r{int(found[1]) + 1}"


def renewed(letter: DeadLetter, corrected: bytes | None = None) -> bytes:
    """The record to offer: the letter's own bytes, or the corrected ones, with the new id and `replay_of`.

    NotReplayable where nothing can be offered: without an id, kept in part only, unreadable, or a sequenced price.
    """
    rejected = letter.rejected
    name = rejected.cause.id
    if rejected.known_by == "price":
        raise NotReplayable(f"log position {letter.position}: a price with a sequence is not offered again: it was "
                            "overtaken by newer ones")
    if name is None:
        raise NotReplayable(f"log position {letter.position}: expected a record with an id that its replay can name, "
                            "came one without; send the corrected record with an id of its own")
    if corrected is None and not letter.is_whole:
        raise NotReplayable(f"log position {letter.position}: expected a whole record, only {len(letter.raw)} of its "
                            f"{rejected.raw_bytes} bytes are kept; give the whole one")
    raw = letter.raw if corrected is None else corrected
    delivered = read(Place(rejected.cause.source), raw)
    if delivered.fault is not None:
        raise NotReplayable(f"log position {letter.position}: expected a record that can be read, came "
                            f"{delivered.fault.reason}: {delivered.fault.message}; give a corrected one")
    new = replay_id(name)
    if len(new) > ID_CHARACTERS_MAX:
        raise NotReplayable(f"log position {letter.position}: expected an id that leaves room for #r1 within "
                            f"{ID_CHARACTERS_MAX} characters, came one of {len(name)}")
    # Read above, so that each key stands once, and what is written anew is what was read.
    return json.dumps({**json.loads(raw), "id": new, "replay_of": name}, ensure_ascii=False,
                      separators=(",", ":")).encode()


def replay(shard: Shard, letter: DeadLetter, corrected: bytes | None = None) -> Outcome:
    """Offer a letter again to the ledger that rejected it, under its own source; committed when this returns."""
    return shard.apply([read(Place(letter.rejected.cause.source), renewed(letter, corrected))])[0]
