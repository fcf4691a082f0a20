"""Who is to be decided on: the interface between the book, which screens, and the ledger, which decides.

Projections nominate, the ledger decides. This file decides nothing; its own nominator names everybody, and is what
every cleverer one is held to.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from ledger.events import Recorded

if TYPE_CHECKING:
    from ledger.clearing_house import ClearingHouse

# (account, pool)
PoolPlace = tuple[str, str]


class Nominator(Protocol):
    """Says which pools may have crossed a line. It may name too many, never too few."""

    def applied(self, recorded: Recorded, house: ClearingHouse) -> None:
        """An event was recorded and folded."""

    def rules_changed(self, house: ClearingHouse) -> None:
        """Another rulebook came into force: every pool may stand elsewhere."""

    def take(self) -> Collection[PoolPlace]:
        """(account, pool) nominated since last asked, each once."""


class Everybody:
    """The naive nominator: after every event, every pool of every margined account. The book is held to it."""

    def __init__(self) -> None:
        self._places: list[PoolPlace] = []

    def applied(self, recorded: Recorded, house: ClearingHouse) -> None:
        """Name everybody."""
        self.rules_changed(house)

    def rules_changed(self, house: ClearingHouse) -> None:
        """Name everybody."""
        self._places = [(state.account, pool) for state in house.accounts.values() if state.is_margined
                        for pool in state.pools()]

    def take(self) -> Collection[PoolPlace]:
        """Everybody, once after something happened."""
        places, self._places = self._places, []
        return places
