"""Drift v2: the cases' inputs as weighted accounts and markets; every figure comes from `ledger.risk`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ledger.risk.shortage import (
    Leg,
    asset_for_debt,
    closing_size_for,
    debt_for_asset,
    debt_to_repay,
    exchange_fund_fee,
    liquidator_fee_after,
    perp_fund_fee,
    share_to_liquidate,
)
from ledger.risk.socialisation import deposit_index_delta, funding_index_delta
from ledger.risk.takeover import TakeoverTerms, take_over
from ledger.risk.weighted_account import (
    AssetBalance,
    AssetMarket,
    Conditions,
    PerpMarket,
    PerpPosition,
    Quote,
    WeightedAccount,
    account_equity,
    account_margin,
    perp_part,
    token_value,
)
from ledger.risk.weights import AssetWeights, ProfitWeights, SizeRatios

Case = Mapping[str, Any]
D = Decimal
QUOTE_ASSET = "0"
# The venue's own cap of weighted profit for initial margin, a constant of its program.
INITIAL_PROFIT_CAP = D(100)


def _weights(row: Mapping[str, Any]) -> AssetWeights:
    return AssetWeights(
        variant="sqrt-size:1", initial_asset=D(row["initial_asset_weight"]),
        maintenance_asset=D(row["maintenance_asset_weight"]), initial_liability=D(row["initial_liability_weight"]),
        maintenance_liability=D(row["maintenance_liability_weight"]), size_factor=D(row["imf_factor"]),
        scale_start=D(row["scale_start"]))


def _assets(inputs: Mapping[str, Any]) -> dict[str, AssetMarket]:
    invalid = {str(market) for market in inputs.get("invalid_oracle_spot_markets", ())}
    return {str(row["id"]): AssetMarket(D(row["price"]), D(row["twap_5min"]), _weights(row), D(row["total_deposits"]),
                                        str(row["id"]) not in invalid) for row in inputs["spot_markets"]}


def _perp_market(row: Mapping[str, Any]) -> PerpMarket:
    return PerpMarket(
        D(row["price"]),
        SizeRatios(variant="sqrt-size:1", initial=D(row["margin_ratio_initial"]),
                   maintenance=D(row["margin_ratio_maintenance"]), size_factor=D(row["imf_factor"])),
        ProfitWeights(variant="capped-profit:1", initial=D(row["upnl_initial_weight"]),
                      maintenance=D(row["upnl_maintenance_weight"]), size_factor=D(row["upnl_imf_factor"]),
                      initial_cap=INITIAL_PROFIT_CAP),
        row.get("contract_type", "perpetual"), D(row["funding_index_long"]), D(row["funding_index_short"]))


def _perp_markets(inputs: Mapping[str, Any]) -> dict[str, PerpMarket]:
    return {str(row["id"]): _perp_market(row) for row in inputs["perp_markets"]}


def _position(row: Mapping[str, Any]) -> PerpPosition:
    return PerpPosition(D(row["size"]), D(row["quote"]), D(row["open_bids"]), D(row["open_asks"]), row["open_orders"],
                        D(row.get("max_margin_ratio", "0")), D(row.get("funding_index", "0")),
                        bool(row.get("isolated", False)), D(row.get("isolated_collateral", "0")))


def _account(inputs: Mapping[str, Any]) -> WeightedAccount:
    return WeightedAccount(
        QUOTE_ASSET,
        {str(row["market"]): AssetBalance(D(row["amount"]), D(row["open_bids"]), D(row["open_asks"]),
                                          row["open_orders"]) for row in inputs["spot"]},
        {str(row["market"]): _position(row) for row in inputs["perps"]}, D(inputs["max_margin_ratio"]))


def _leg(inputs: Mapping[str, Any], name: str) -> Leg:
    return Leg(D(inputs[f"{name}_price"]), inputs[f"{name}_decimals"], D(inputs[f"{name}_multiplier"]))


def account_margin_figures(case: Case) -> Mapping[str, Any]:
    inputs, asked = case["inputs"], case["inputs"]["context"]
    figures = account_margin(
        _account(inputs), _assets(inputs), _perp_markets(inputs),
        Conditions(asked["type"], asked["strict"], D(asked["buffer"]), asked["ignore_invalid_deposit_oracles"],
                   D(asked["margin_ratio_override"])))
    pools = {"": figures.cross} | {f"isolated_{name}_": pool for name, pool in figures.isolated.items()}
    found: dict[str, Any] = {}
    for prefix, pool in pools.items():
        found |= {f"{prefix}margin_requirement": pool.requirement, f"{prefix}total_collateral": pool.collateral,
                  f"{prefix}margin_requirement_plus_buffer": pool.requirement_buffered,
                  f"{prefix}total_collateral_plus_buffer": pool.collateral_buffered}
    found["num_liabilities"] = figures.liabilities
    return {name: found[name] for name in case["expected"] if name in found}


def user_equity(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"equity": account_equity(_account(inputs), _assets(inputs), _perp_markets(inputs))}


def position_margin(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    part = perp_part(_position(inputs["position"]), _perp_market(inputs["perp_market"]),
                     Quote(D(inputs["quote_price"])), inputs["type"], D(inputs["custom_margin_ratio"]))
    found = {"weighted_pnl": part.collateral, "margin_requirement": part.requirement}
    return {name: found[name] for name in case["expected"] if name in found}


def spot_weight(case: Case) -> Mapping[str, Any]:
    inputs, market = case["inputs"], case["inputs"]["market"]
    weights, size = _weights(market), D(inputs["size"])
    if inputs["side"] == "liability":
        return {"weight": weights.liability(inputs["type"], size)}
    pool = token_value(D(market["total_deposits"]), Quote(D(inputs["price"])))
    return {"weight": weights.asset(inputs["type"], size, pool)}


def asset_transfer(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"asset_transfer": asset_for_debt(D(inputs["liability_transfer"]), held=D(inputs["asset_amount"]),
                                             asset=_leg(inputs, "asset"), debt=_leg(inputs, "liability"))}


def liability_from_asset(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"liability_transfer": debt_for_asset(D(inputs["asset_amount"]), asset=_leg(inputs, "asset"),
                                                 debt=_leg(inputs, "liability"))}


def liability_transfer(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    amount = debt_to_repay(
        D(inputs["margin_shortage"]), asset_weight=D(inputs["asset_weight"]),
        asset_multiplier=D(inputs["asset_multiplier"]), debt_weight=D(inputs["liability_weight"]),
        debt=_leg(inputs, "liability"), fund_fee=D(inputs["if_fee"]))
    return {"liability_transfer": "unlimited" if amount is None else amount}


def liquidation_fee(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"fee": liquidator_fee_after(inputs["slot"] - inputs["last_active_slot"], first=D(inputs["base_fee"]),
                                        highest=D(inputs["max_fee"]))}


def max_pct_to_liquidate(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"pct": share_to_liquidate(
        D(inputs["margin_shortage"]), freed=D(inputs["margin_freed_already"]),
        elapsed=inputs["slot"] - inputs["last_active_slot"], duration=inputs["duration_slots"],
        first=D(inputs["initial_pct"]))}


def perp_close_size(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    size = closing_size_for(
        D(inputs["margin_shortage"]), ratio=D(inputs["margin_ratio"]), liquidator_fee=D(inputs["liquidator_fee"]),
        fund_fee=D(inputs["if_fee"]), price=D(inputs["price"]), quote_price=D(inputs["quote_price"]))
    return {"base_size": "unlimited" if size is None else size}


def perp_if_fee(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"if_fee": perp_fund_fee(
        D(inputs["margin_shortage"]), size=D(inputs["size"]), ratio=D(inputs["margin_ratio"]),
        liquidator_fee=D(inputs["liquidator_fee"]), price=D(inputs["price"]), quote_price=D(inputs["quote_price"]),
        highest=D(inputs["max_if_fee"]))}


def spot_if_fee(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"if_fee": exchange_fund_fee(
        D(inputs["margin_shortage"]), amount=D(inputs["amount"]), asset_weight=D(inputs["asset_weight"]),
        asset_multiplier=D(inputs["asset_multiplier"]), debt_weight=D(inputs["liability_weight"]),
        debt=_leg(inputs, "liability"), highest=D(inputs["max_if_fee"]))}


def socialize_perp_loss(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"funding_index_delta": funding_index_delta(D(inputs["loss"]), long_size=D(inputs["long_size"]),
                                                       short_size=D(inputs["short_size"]))}


def socialize_spot_loss(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    return {"index_delta": deposit_index_delta(D(inputs["borrow"]), deposits=D(inputs["total_deposits"]),
                                               index=D(inputs["deposit_index"]))}


def perp_liquidation(case: Case) -> Mapping[str, Any]:
    inputs, asked = case["inputs"], case["inputs"]["liquidation"]
    market = str(asked["market"])
    after = take_over(
        _account(inputs), _assets(inputs), _perp_markets(inputs), market, buffer=D(inputs["context"]["buffer"]),
        terms=TakeoverTerms(D(asked["max_base"]), D(asked["liquidator_fee"]), D(asked["max_if_fee"]),
                            D(asked["step"]), D(asked["initial_pct"]), asked["duration_slots"],
                            asked["slots_elapsed"]))
    position = after.account.positions[market]
    found = {"user_size": position.size, "user_quote": position.quote, "user_open_orders": position.orders,
             "liquidator_size": after.size, "liquidator_quote": after.quote, "insurance_fee": after.fund_fee}
    return {name: found[name] for name in case["expected"] if name in found}


KINDS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "account_margin": account_margin_figures, "user_equity": user_equity, "position_margin": position_margin,
    "spot_weight": spot_weight, "asset_transfer": asset_transfer, "liability_from_asset": liability_from_asset,
    "liability_transfer": liability_transfer, "liquidation_fee": liquidation_fee,
    "max_pct_to_liquidate": max_pct_to_liquidate, "perp_close_size": perp_close_size, "perp_if_fee": perp_if_fee,
    "spot_if_fee": spot_if_fee, "socialize_perp_loss": socialize_perp_loss, "socialize_spot_loss": socialize_spot_loss,
    "perp_liquidation": perp_liquidation}
