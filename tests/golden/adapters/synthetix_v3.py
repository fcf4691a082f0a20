"""Synthetix v3 perps: the cases' inputs as positions in skewed markets; every figure comes from `ledger.risk`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ledger.risk.skew import KeeperReward, SkewMargins, SkewPosition, fill_price, skew_figures

Case = Mapping[str, Any]
D = Decimal


def _margins(row: Mapping[str, Any]) -> SkewMargins:
    return SkewMargins(variant="skew-linear:1", skew_scale=D(row["skew_scale"]), slope=D(row["imf_slope"]),
                       floor=D(row["imf_floor"]), maintenance_scalar=D(row["maintenance_scalar"]),
                       least_margin=D(row.get("min_position_margin", "0")))


def _fill(oracle: str, size: str, skew: str, skew_scale: Decimal) -> Decimal:
    return fill_price(D(oracle), size=D(size), skew=D(skew), skew_scale=skew_scale)


def account(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    markets = {row["id"]: _margins(row) for row in inputs["markets"]}
    positions = [SkewPosition(
        row["market"], D(row["size"]), _fill(row["oracle_at_fill"], row["size"], row["skew_before_fill"],
                                             markets[row["market"]].skew_scale),
        D(row["price"]), markets[row["market"]]) for row in inputs["positions"]]
    figures = skew_figures(D(inputs["usd_collateral"]), D(inputs["debt"]), positions,
                           D(inputs.get("liquidation_reward", "0")))
    found = {"pnl": figures.pnl, "available_margin": figures.available, "liquidatable": figures.liquidatable,
             "total_notional": figures.notional, "initial_margin": figures.initial,
             "maintenance_margin": figures.maintenance, "withdrawable": figures.withdrawable}
    return {name: found[name] for name in case["expected"] if name in found}


def filled_at(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"fill_price": _fill(inputs["oracle"], inputs["size"], inputs["skew"], D(inputs["skew_scale"]))}


def order_margin(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    size, price, collateral = D(inputs["size"]), D(inputs["price"]), D(inputs["collateral"])
    rule = KeeperReward(variant="keeper-reward:1", ratio=D(inputs["reward_ratio"]), least=D(inputs["reward_min"]),
                        most=D(inputs["reward_max"]), collateral_scaling=D(inputs["reward_max_scaling"]))
    # An order is judged as the position it would become, entered where it stands.
    position = SkewPosition("order", size, price, price, _margins(inputs))
    reward = rule.reward(skew_figures(collateral, D(0), [position]).notional, collateral)
    figures = skew_figures(collateral, D(0), [position], reward)
    found = {"initial_margin": figures.initial, "maintenance_margin": figures.maintenance, "reward": figures.reward,
             "required_without_order_fee": figures.required}
    return {name: found[name] for name in case["expected"] if name in found}


KINDS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "account": account, "fill_price": filled_at, "order_margin": order_margin}
