"""What the adapters build the engine's types with: rulebooks of a few blocks, holdings. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from ledger.amounts import ONE, ZERO
from ledger.risk.haircuts import Flat
from ledger.risk.holding import ContractType, Holding, cost_of
from ledger.risk.margin import PoolMargin, PriceOf
from ledger.risk.pool import AssetSums, total, weigh
from ledger.rulebook import Rulebook, shipped

Case = Mapping[str, Any]
Computed = dict[str, Any]
FINE: Final = Decimal(10) ** -18
# What a case has that names no asset of its own.
UNIT: Final = "UNIT"


def number(value: Any) -> Decimal:
    """A figure of a case."""
    return Decimal(str(value))


def sign(side: str) -> int:
    """+1 of a long or a purchase, -1 of a short or a sale."""
    return {"long": 1, "buy": 1, "bid": 1, "short": -1, "sell": -1, "ask": -1}[side.lower()]


def signed_size(row: Mapping[str, Any], key: str = "size") -> Decimal:
    """The size of a row, negative when short; already signed where the row names no side."""
    size = number(row[key])
    return size if "side" not in row else abs(size) * sign(row["side"])


def rules(instruments: Mapping[str, Mapping[str, Any]] | None = None,
          assets: Mapping[str, Mapping[str, Any]] | None = None, *, pool: Mapping[str, Any] | None = None,
          thresholds: Mapping[str, Any] | None = None, valuation_asset: str = UNIT) -> Rulebook:
    """The house rulebook with other blocks: requirement by instrument, asset rows; what is not named is not cut."""
    house = shipped("house", 1)
    if house is None:
        raise LookupError("expected the house rulebook")
    whole = house.model_dump(exclude_none=True)
    whole |= {
        "name": "vector", "valuation_asset": valuation_asset,
        "assets": {"*": {"collateral": {"variant": "flat:1", "haircut": ZERO}}, **(assets or {})},
        "instruments": {"*": {"requirement": house.instruments["*"].requirement.model_dump()},
                        **{name: {"requirement": block} for name, block in (instruments or {}).items()}}}
    whole["thresholds"] |= thresholds or {}
    if pool is not None:
        whole["pool"] = {"variant": "pool:1", **pool}
    return Rulebook.model_validate(whole)


def tiers(rows: Iterable[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    """A `tiers:1` block; rows with `floor` and the rates."""
    return {"variant": "tiers:1", "tiers": list(rows), **fields}


def one_tier(maintenance: Any, *, deduction: Any = None, **fields: Any) -> dict[str, Any]:
    """A `tiers:1` block of one maintenance rate, its deduction as published."""
    row: dict[str, Any] = {"floor": ZERO, "maintenance": number(maintenance)}
    if deduction is not None:
        row["deduction"] = number(deduction)
    return tiers([row], initial="leverage", **fields)


def holding(instrument: str, size: Decimal, entry: Decimal, mark: Decimal, *, leverage: Any = None,
            contract_size: Decimal = ONE, contract_type: ContractType = "linear", asset: str = UNIT,
            accrued: Decimal = ZERO) -> Holding:
    """A position entered at a price."""
    cost = cost_of(size=size, contract_size=contract_size, price=entry, contract_type=contract_type)
    return Holding(instrument, "cross", "net", size, cost, mark, accrued, contract_size, asset, FINE,
                   None if leverage is None else number(leverage), contract_type)


def priced(prices: Mapping[str, Any] | None = None) -> PriceOf:
    """What one unit of each asset is worth; the unit itself 1."""
    return {UNIT: ONE, **{name: number(price) for name, price in (prices or {}).items()}}.get


def plain_pool(*sums: AssetSums, price: Decimal = ONE) -> PoolMargin:
    """A pool of printed totals: nothing is cut, every asset at one price."""
    return total([weigh(row, price, Flat(variant="flat:1", haircut=ZERO)) for row in sums])
