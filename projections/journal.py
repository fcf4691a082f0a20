"""The double-entry journal: a line for every posting of every event, and what each owner holds by them.

All pools of all accounts stand together under the owner `account` in the trial balance; `view_balances` has them one
by one. Each event balances by itself, or the fold stops. This file never takes a posting from anywhere but
`ledger.postings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from ledger.amounts import ZERO, exact, plain, rfc3339
from ledger.errors import BrokenInvariant
from ledger.events import EVENTS, Event, Recorded
from ledger.postings import postings
from projections.database import Connection
from projections.tables import Postings, ReadModel, Step, Table


class JournalLine(NamedTuple):
    """One posting; `time` is log time, `account` and `pool` are empty but for the owner `account`."""

    position: int
    line: int
    time: str
    topic: str
    stream: str
    owner: str
    account: str
    pool: str
    asset: str
    amount: str


@dataclass(slots=True)
class TrialBalanceRow:
    """What an owner holds of an asset by the journal."""

    owner: str
    asset: str
    amount: Decimal


JOURNAL: Final = Table("view_journal", JournalLine, key=("position", "line"))
TRIAL_BALANCE: Final = Table("view_trial_balance", TrialBalanceRow, key=("owner", "asset"))


class Journal(ReadModel):
    """Folds the postings of all events into the journal and its trial balance."""

    NAME = "journal"
    SHAPES = (JOURNAL, TRIAL_BALANCE)

    def __init__(self, connection: Connection, postings: Postings = postings) -> None:
        super().__init__(connection, postings)
        self._journal = self.lines(JOURNAL)
        self._trial_balance = self.rows(TRIAL_BALANCE)
        # (owner, asset) -> what has moved since the last flush.
        self._moved: dict[tuple[str, str], Decimal] = {}

    def steps(self) -> Mapping[type[Event], Step]:
        """Whatever has postings is in the journal."""
        return dict.fromkeys(EVENTS, self._posted)

    def _posted(self, recorded: Recorded, event: Event) -> None:
        lines = self._postings(event)
        if not lines:
            return
        position, time, topic, stream = recorded.position, rfc3339(event.time), event.TOPIC, recorded.originator_id
        append, moved = self._journal.append, self._moved
        sums: dict[str, Decimal] = {}
        for number, (owner, asset, amount, account, pool) in enumerate(lines, start=1):
            append((position, number, time, topic, stream, owner, account, pool, asset, plain(amount)))
            sums[asset] = sums.get(asset, ZERO) + amount
            moved[owner, asset] = moved.get((owner, asset), ZERO) + amount
        if any(sums.values()):
            left = ", ".join(f"{plain(amount)} {asset}" for asset, amount in sums.items() if amount)
            raise BrokenInvariant(
                f"log position {position}: the postings of {topic} in {stream} sum to {left}, expected zero")

    def flush(self, connection: Connection) -> None:
        """Bring the trial balance up to the lines, and write both."""
        for key, amount in self._moved.items():
            row = self._trial_balance.find(key)
            if row is None:
                self._trial_balance.add(key, TrialBalanceRow(*key, amount))
            else:
                row.amount += amount
                self._trial_balance.change(key, row)
        self._moved.clear()
        super().flush(connection)


def imbalances(connection: Connection) -> list[tuple[str, Decimal]]:
    """The assets whose trial balance does not sum to zero, and by how much; empty when the ledger balances."""
    sums: dict[str, Decimal] = {}
    with exact():
        for asset, amount in connection.cursor().execute('SELECT "asset", "amount" FROM view_trial_balance'):
            sums[asset] = sums.get(asset, ZERO) + Decimal(amount)
    return [(asset, amount) for asset, amount in sorted(sums.items()) if amount]
