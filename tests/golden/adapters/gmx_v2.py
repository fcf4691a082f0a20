"""GMX v2: the cases' inputs as positions against a pool; every figure comes from `ledger.risk`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ledger.risk.pool_position import PoolPosition, PoolRequirement, pool_pnl, remaining_collateral

Case = Mapping[str, Any]
D = Decimal


def liquidatable(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    position = PoolPosition(D(inputs["collateral_amount"]), D(inputs["size_usd"]), D(inputs["entry_price"]),
                            inputs["side"])
    price = D(inputs["index_price"])
    remaining = remaining_collateral(
        position, collateral_price=D(inputs["collateral_price"]), price=price, fees=D(inputs["fees_usd"]),
        impact=D(inputs["price_impact_usd"]))
    rule = PoolRequirement(variant="pool-counterparty:1", least_collateral=D(inputs["min_collateral_usd"]),
                           fraction=D(inputs["min_collateral_factor"]))
    found = {"liquidatable": rule.liquidatable(remaining, position.size), "remaining_collateral_usd": remaining,
             "pnl_usd": pool_pnl(position, price)}
    return {name: found[name] for name in case["expected"] if name in found}


KINDS: dict[str, Callable[[Case], Mapping[str, Any]]] = {"liquidatable": liquidatable}
