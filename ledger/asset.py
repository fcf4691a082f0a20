"""The asset aggregate: a unit of account, its quantum, what values it, and its interest (`asset:ID`).

Interest is an index: the sum of rate x seconds of log time, one for what is owed and one for what is held. This
file knows no accounts.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import ZERO, plain, seconds
from ledger.commands import ListAsset, SetInterestRate
from ledger.errors import BrokenInvariant, Rejected
from ledger.events import AssetListed, Cause, Event, InterestRateSet


class Rates(NamedTuple):
    """Yearly rates from a time on (ns), and both indexes (rate x seconds) at that time."""

    since: int
    borrow_rate: Decimal
    lend_rate: Decimal
    borrow_index: Decimal
    lend_index: Decimal


class AssetState(NamedTuple):
    """An asset as listed, and its rates, oldest first."""

    asset: str
    version: int
    quantum: Decimal
    pricing_instrument: str | None
    rates: tuple[Rates, ...] = ()

    def indexes(self, time: int) -> tuple[Decimal, Decimal]:
        """(borrow index, lend index) at a log time; exact."""
        for row in reversed(self.rates):
            if row.since <= time:
                passed = seconds(time - row.since)
                return row.borrow_index + row.borrow_rate * passed, row.lend_index + row.lend_rate * passed
        return ZERO, ZERO


def decide_list(state: AssetState | None, command: ListAsset, *, used: bool, time: int, cause: Cause) -> AssetListed:
    """List an asset, or change what values it. Rejected: another quantum once the asset is used."""
    if state is not None and used and state.quantum != command.quantum:
        raise Rejected("immutable", f"quantum of {command.asset!r} is {plain(state.quantum)} and may not change once "
                       f"the asset is used, came {plain(command.quantum)}", field="quantum")
    return AssetListed(time=time, cause=cause, asset=command.asset, quantum=command.quantum,
                       pricing_instrument=command.pricing_instrument)


def decide_rates(state: AssetState, command: SetInterestRate, *, time: int, cause: Cause) -> InterestRateSet:
    """Set the rates from log time on; what accrued until then stays in the indexes."""
    borrow, lend = state.indexes(time)
    return InterestRateSet(time=time, cause=cause, asset=command.asset, borrow_rate=command.borrow_rate,
                           lend_rate=command.lend_rate, borrow_index=borrow, lend_index=lend)


def evolve(state: AssetState | None, event: Event) -> AssetState:
    """Fold one event of the asset's stream."""
    if isinstance(event, AssetListed):
        version, rates = (1, ()) if state is None else (state.version + 1, state.rates)
        return AssetState(event.asset, version, event.quantum, event.pricing_instrument, rates)
    if state is None or not isinstance(event, InterestRateSet):
        raise BrokenInvariant(f"{type(event).__name__} does not belong where {state} stands")
    row = Rates(event.time, event.borrow_rate, event.lend_rate, event.borrow_index, event.lend_index)
    return state._replace(version=state.version + 1, rates=(*state.rates, row))
