"""The read model of records: what became of each, found by its source and id or by where it stood.

One row for the event that was a record's outcome: applied, refused (a wish that the rules deny) or rejected (it
could not be applied). Accepted prices are left out, since they are most of a log and stand in the markets. This file
never sees a duplicate: those leave no event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from ledger.amounts import rfc3339
from ledger.events import (
    EVENTS,
    Event,
    FundMovementRefused,
    IsolatedMarginRefused,
    PriceRecorded,
    PriceRejected,
    Recorded,
    RecordRejected,
    TransferRefused,
    WithdrawalRefused,
)
from ledger.postings import postings
from projections.database import Connection
from projections.tables import Postings, ReadModel, Step, Table

APPLIED: Final = "applied"
REFUSED: Final = "refused"
REJECTED: Final = "rejected"
# A refused movement has but one possible reason, so its event does not say it.
BEYOND_FUND: Final = "beyond-fund"


class RecordLine(NamedTuple):
    """A record and its outcome; `time` is log time at the outcome, `record_time` what the record said.

    `field` is the one at fault of a record that was rejected for one; `replay_of` the id of the dead letter that the
    record tries again.
    """

    source: str
    type: str
    record_id: str | None
    line: int | None
    partition: int | None
    offset: int | None
    position: int
    topic: str
    outcome: str
    reason: str | None
    message: str | None
    time: str
    record_time: str | None
    field: str | None
    replay_of: str | None


RECORDS: Final = Table("view_records", RecordLine, key=("position",), indexes=(("source", "record_id"),))

OUTCOMES: Final = tuple(event for event in EVENTS if event.ANSWERS is not None and event is not PriceRecorded)


class Records(ReadModel):
    """Folds the events that answer records into one row a record."""

    NAME = "records"
    SHAPES = (RECORDS,)

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        super().__init__(connection, postings)
        self._records = self.lines(RECORDS)

    def steps(self) -> Mapping[type[Event], Step]:
        """The events that answer a record, but for accepted prices."""
        return dict.fromkeys(OUTCOMES, self._applied) | {
            RecordRejected: self._rejected, PriceRejected: self._rejected, WithdrawalRefused: self._refused,
            TransferRefused: self._refused, IsolatedMarginRefused: self._refused,
            FundMovementRefused: self._fund_movement_refused}

    def _applied(self, recorded: Recorded, event: Event) -> None:
        self._note(recorded, APPLIED, None, None)

    def _rejected(self, recorded: Recorded, event: RecordRejected | PriceRejected) -> None:
        field = event.field if isinstance(event, RecordRejected) else None
        self._note(recorded, REJECTED, event.reason, event.message, field)

    def _refused(self, recorded: Recorded, event: WithdrawalRefused | TransferRefused | IsolatedMarginRefused) -> None:
        self._note(recorded, REFUSED, event.reason, event.message)

    def _fund_movement_refused(self, recorded: Recorded, event: FundMovementRefused) -> None:
        self._note(recorded, REFUSED, BEYOND_FUND, event.message)

    def _note(self, recorded: Recorded, outcome: str, reason: str | None, message: str | None,
              field: str | None = None) -> None:
        event = recorded.event
        cause = event.cause
        self._records.append((
            cause.source, cause.type, cause.id, cause.line, cause.partition, cause.offset, recorded.position,
            event.TOPIC, outcome, reason, message, rfc3339(event.time),
            None if cause.time is None else rfc3339(cause.time), field, cause.replay_of))
