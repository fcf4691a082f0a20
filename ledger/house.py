"""The house: the other side of every trade, and whatever else stands against the accounts.

It has no stream of its own: house, fees, custody, rounding, shortfall and the funds' money are folds of other
streams' postings, and the house's sizes are folds of the fills. This file never decides anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from ledger.amounts import ZERO
from ledger.events import FillPosted, PositionSettled
from ledger.postings import ACCOUNT, Posting


class House:
    """Balances of all owners but single accounts, which stand here as one owner `account`; sizes of the house."""

    def __init__(self) -> None:
        self.balances: dict[tuple[str, str], Decimal] = {}
        self.sizes: dict[str, Decimal] = {}

    def post(self, lines: Iterable[Posting]) -> None:
        """Fold an event's postings."""
        balances = self.balances
        for owner, asset, amount, _, _ in lines:
            balances[owner, asset] = balances.get((owner, asset), ZERO) + amount

    def trade(self, event: FillPosted) -> None:
        """Fold the house's side of a fill: the opposite size."""
        signed = event.size if event.side == "sell" else -event.size
        self.sizes[event.instrument] = self.sizes.get(event.instrument, ZERO) + signed

    def settle(self, event: PositionSettled) -> None:
        """Fold the house's side of a position that its contract's end closed."""
        closed = event.settled_size - event.position_size
        self.sizes[event.instrument] = self.sizes.get(event.instrument, ZERO) + closed

    def balance(self, owner: str, asset: str) -> Decimal:
        """What an owner has of an asset."""
        return self.balances.get((owner, asset), ZERO)

    def uses(self, asset: str) -> bool:
        """Whether the asset was ever posted."""
        return (ACCOUNT, asset) in self.balances or any(held == asset for _, held in self.balances)

    def imbalances(self) -> dict[str, Decimal]:
        """Assets whose balances do not sum to zero over all owners; empty unless an invariant is broken."""
        sums: dict[str, Decimal] = {}
        for (_, asset), amount in self.balances.items():
            sums[asset] = sums.get(asset, ZERO) + amount
        return {asset: total for asset, total in sums.items() if total}
