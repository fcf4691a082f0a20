"""The asset aggregate: a unit of account, its quantum, and the instrument whose mark values it (`asset:ID`)."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from ledger.amounts import plain
from ledger.commands import ListAsset
from ledger.errors import Rejected
from ledger.events import AssetListed, Cause


class AssetState(NamedTuple):
    """An asset as listed."""

    asset: str
    version: int
    quantum: Decimal
    pricing_instrument: str | None


def decide_list(state: AssetState | None, command: ListAsset, *, used: bool, time: int, cause: Cause) -> AssetListed:
    """List an asset, or change what values it. Rejected: another quantum once the asset is used."""
    if state is not None and used and state.quantum != command.quantum:
        raise Rejected("immutable", f"quantum of {command.asset!r} is {plain(state.quantum)} and may not change once "
                       f"the asset is used, came {plain(command.quantum)}", field="quantum")
    return AssetListed(time=time, cause=cause, asset=command.asset, quantum=command.quantum,
                       pricing_instrument=command.pricing_instrument)


def evolve(state: AssetState | None, event: AssetListed) -> AssetState:
    """Fold a listing."""
    version = 1 if state is None else state.version + 1
    return AssetState(event.asset, version, event.quantum, event.pricing_instrument)
