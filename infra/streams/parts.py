"""What each shard of a service keeps, reads and tells: the accounts of one partition, or what is global to them all.

With one partition of accounts a ledger keeps the whole. With more, funds and claims on them are the house's, a shard
of its own, and shards send each other records by topics of the service's own. Whatever all of them read alike is told
outside by one of them. This file is pure: it neither sends nor reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, cast

from pydantic import ValidationError
from pydantic_core import from_json

from infra.streams.messages import Message, message_of
from infra.streams.records import Delivered, Fault, Place, read, rejection
from infra.streams.topics import ACCOUNTS, ANSWERS, CLAIMS, CONTROL, PRICES, TRANSFERS
from ledger.amounts import plain, rfc3339
from ledger.between_shards import BETWEEN, ClaimShortfall, Part, TakeBackTransfer, TakeTransfer, answer_record
from ledger.between_shards import claim_record as of_claim
from ledger.commands import ListAsset, MoveFund
from ledger.errors import Rejected
from ledger.events import (
    FundDrawn,
    PriceRejected,
    Recorded,
    RecordRejected,
    ShortfallClaimed,
    TransferSent,
    TransferTurnedAway,
)

HOUSE: Final[Literal["house"]] = "house"
# The number of a partition of accounts, or the house.
ShardId = int | Literal["house"]
_PARTS: Final = ("whole", "accounts", HOUSE)
# Types of records that only the house applies, though all shards may see them.
_OF_HOUSE: Final = (MoveFund.TYPE, ClaimShortfall.TYPE)


class Duty(NamedTuple):
    """What a ledger keeps, and which of those that keep the like it is."""

    part: Part = "whole"
    shard: ShardId = 0

    def settings(self) -> dict[str, str]:
        """As the ledger notes it."""
        return {"part": self.part, "shard": str(self.shard)}

    def places(self, partitions_of: Mapping[str, int]) -> list[tuple[str, int]]:
        """(topic, partition) of all that the shard reads, the rarest first; `partitions_of`: how many a topic has."""
        def all_of(topic: str) -> list[tuple[str, int]]:
            return [(topic, number) for number in range(partitions_of[topic])]

        if self.shard == HOUSE:
            return [*all_of(CONTROL), *all_of(CLAIMS)]
        between = [(ANSWERS, self.shard), (TRANSFERS, self.shard)] if self.part == "accounts" else []
        return [*all_of(CONTROL), *all_of(PRICES), *between, (ACCOUNTS, self.shard)]

    def concerns(self, delivered: Delivered) -> bool:
        """Whether a record that the shard reads is its business; what is not leaves no trace in its log."""
        command, fault = delivered.command, delivered.fault
        if self.part == "accounts":
            # A fund is one for all shards: what each would add to its own was paid in once.
            return type(command) is not MoveFund
        if self.part == HOUSE:
            return type(command) in (ListAsset, MoveFund, ClaimShortfall) or (
                fault is not None and fault.type in (None, *_OF_HOUSE))
        return True

    def tells(self, recorded: Recorded, prefix: str) -> bool:
        """Whether this shard is the one to tell of an event outside: of prices and control the first, once for all."""
        event = recorded.event
        if self.part == "whole" or not isinstance(event, (RecordRejected, PriceRejected)):
            return True
        if event.cause.source == prefix + CONTROL and self.shard != HOUSE and event.cause.type == MoveFund.TYPE:
            return False
        if self.part == HOUSE:
            return event.cause.source != prefix + CONTROL or event.cause.type == MoveFund.TYPE
        return self.shard == 0 or event.cause.source not in (prefix + PRICES, prefix + CONTROL)


def shards_of(partitions: int) -> list[ShardId]:
    """All shards of a service with so many partitions of accounts."""
    return [*range(partitions), *([HOUSE] if partitions > 1 else [])]


def duty_of(shard: ShardId, partitions: int) -> Duty:
    """What a shard keeps in a service with so many partitions of accounts."""
    return Duty(HOUSE, HOUSE) if shard == HOUSE else Duty("accounts" if partitions > 1 else "whole", shard)


def noted_duty(settings: Mapping[str, str]) -> Duty:
    """What a ledger keeps, by its own settings."""
    part, shard = settings.get("part", "whole"), settings.get("shard", "0")
    if part not in _PARTS:
        raise ValueError(f"expected a ledger that keeps one of {', '.join(_PARTS)}, came {part!r}")
    return Duty(cast(Part, part), HOUSE if shard == HOUSE else int(shard))


def read_between(place: Place, raw: bytes) -> Delivered:
    """A record that one shard sent another, or the fault. No client's record is one, and none is too late or early."""
    plainly = read(place, raw)
    if plainly.fault is not None and plainly.fault.reason != "unknown-type":
        return plainly
    record = from_json(raw)
    kind = BETWEEN.get(record["type"])
    try:
        if kind is None:
            raise Rejected("unknown-type", f"type: expected a record that shards send each other ({', '.join(BETWEEN)})"
                           f", came {record['type']!r}", field="type")
        return Delivered(place, kind.model_validate_json(raw, strict=True), None, raw)
    except ValidationError as invalid:
        rejected = rejection(invalid, record)
    except Rejected as unknown:
        rejected = unknown
    known: Any = plainly.fault or plainly.command
    told = record["type"] if plainly.fault is None else plainly.fault.type
    return Delivered(place, None, Fault(rejected.reason, rejected.message, rejected.field, told, known.id, known.time),
                     raw)


def between(recorded: Recorded, duty: Duty, shard: str, is_here: Callable[[str], bool]) -> Iterator[Message]:
    """What an event asks of another shard. `is_here`: whether this shard keeps an account."""
    event = recorded.event
    if duty.part == "whole":
        return
    fields: dict[str, object]
    to: int | None = None
    match event:
        case ShortfallClaimed() if duty.shard != HOUSE:
            topic, key, to, fields = CLAIMS, event.account, duty.shard, of_claim(event)
        case FundDrawn():
            # The partition that a claim came by is the number of the shard that claimed.
            topic, key, to, fields = ANSWERS, event.account, event.cause.partition, answer_record(event)
        case TransferSent() if not is_here(event.to_account):
            # By its key, as the receiver's own records come to its shard.
            topic, key = TRANSFERS, event.to_account
            fields = {"type": TakeTransfer.TYPE, "account": event.to_account, "from_account": event.account,
                      "from_shard": duty.shard, "asset": event.asset, "amount": event.amount,
                      "transfer_id": event.transfer_id}
        case TransferTurnedAway():
            topic, key, to = TRANSFERS, event.from_account, event.from_shard
            fields = {"type": TakeBackTransfer.TYPE, "account": event.from_account, "to_account": event.account,
                      "asset": event.asset, "amount": event.amount, "transfer_id": event.transfer_id,
                      "reason": event.reason}
        case _:
            return
    record = {"id": f"{shard}:{recorded.position}", "time": rfc3339(event.time), **fields}
    yield message_of(topic, recorded, shard, key, {
        name: value if isinstance(value, (str, int)) else plain(cast(Any, value)) for name, value in record.items()},
        partition=to)
