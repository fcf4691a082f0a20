"""Mango v4: the cases' inputs as accounts with health; every figure comes from `ledger.risk`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ledger.amounts import ONE, ZERO
from ledger.risk.health import (
    HealthAccount,
    HealthPerp,
    HealthToken,
    HealthWeights,
    Prices,
    SpotOrders,
    health,
)
from ledger.risk.health_liquidation import (
    NotLiquidatable,
    PerpTerms,
    exchange_tokens,
    settle_or_bankrupt,
    take_over_perp,
)

Case = Mapping[str, Any]
D = Decimal
# Amounts are native units; the program's last step stops at half a unit below zero.
SLACK = D("0.5")


def _optional(row: Mapping[str, Any], name: str) -> Decimal | None:
    return None if row.get(name) is None else D(row[name])


def _weights(weights: Mapping[str, Any], row: Mapping[str, Any]) -> HealthWeights:
    return HealthWeights(
        variant="pool-scaled:1", initial_asset=D(weights["init_asset"]), initial_liability=D(weights["init_liab"]),
        maintenance_asset=D(weights["maint_asset"]), maintenance_liability=D(weights["maint_liab"]),
        deposit_scale_start=_optional(row, "deposit_scale_start"),
        borrow_scale_start=_optional(row, "borrow_scale_start"))


def _flat(asset: Decimal, liability: Decimal) -> HealthWeights:
    return HealthWeights(variant="pool-scaled:1", initial_asset=asset, initial_liability=liability,
                         maintenance_asset=asset, maintenance_liability=liability)


def _token(row: Mapping[str, Any]) -> HealthToken:
    deposits = D(row.get("total_deposits", "0")) + D(row.get("potential_deposits_from_orders", "0"))
    return HealthToken(Prices(D(row["price"]), D(row["stable_price"])), _weights(row["weights"], row),
                       D(row["balance"]), deposits, D(row.get("total_borrows", "0")))


def _perp(row: Mapping[str, Any]) -> HealthPerp:
    return HealthPerp(
        str(row["settle_token"]), Prices(D(row["price"]), D(row["stable_price"])), _weights(row["base_weights"], {}),
        D(row["pnl_weight_init"]), D(row["pnl_weight_maint"]), D(row["base"]), D(row["quote"]), D(row["open_bids"]),
        D(row["open_asks"]), D(row["unpaid_funding"]))


def _orders(row: Mapping[str, Any]) -> SpotOrders:
    return SpotOrders(str(row["base_token"]), str(row["quote_token"]), D(row["reserved_base"]),
                      D(row["reserved_quote"]), _optional(row, "lowest_ask"), _optional(row, "highest_bid"))


def health_figure(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    account = HealthAccount({str(row["id"]): _token(row) for row in inputs["tokens"]},
                            [_orders(row) for row in inputs["spot_orders"]],
                            {str(row["id"]): _perp(row) for row in inputs["perps"]})
    return {"health": health(account, inputs["type"])}


def perp_liquidation(case: Case) -> Mapping[str, Any]:
    inputs, row = case["inputs"], case["inputs"]["perp"]
    perp, market = _perp(row), str(row["id"])
    account = HealthAccount({str(token["id"]): _token(token) for token in inputs["tokens"]}, (), {market: perp})
    change = take_over_perp(account, market, PerpTerms(D(inputs["max_base"]), D(inputs["max_pnl"]),
                                                       result_fee=D(inputs["positive_pnl_fee"]), slack=SLACK))
    return {"settle_token": account.tokens[perp.settle_token].balance + change.settle_token,
            "base": perp.base + change.base, "quote": perp.quote + change.quote,
            "liquidator_base_change": -change.base, "liquidator_quote_change": -change.quote,
            "liquidator_settle_token_change": -change.settle_token}


def _result(token: str, quote: str, weight: str) -> HealthPerp:
    # A position without base, so that only its quote counts.
    return HealthPerp(token, Prices(ONE, ONE), _flat(ONE, ONE), D(weight), D(weight), ZERO, D(quote))


def token_liquidation(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    price, debt_weight = D(inputs["prices"]), D(inputs["liab_init_liab_weight"])
    prices = Prices(price, price)
    account = HealthAccount(
        {"asset": HealthToken(prices, _flat(D(inputs["asset_weight"]), debt_weight), D(inputs["asset_token"])),
         "debt": HealthToken(prices, _flat(D(inputs["liab_asset_weight"]), debt_weight), D(inputs["liab_token"])),
         "other": HealthToken(prices, _flat(ONE, ONE), D(inputs["other_token"]))}, (),
        {"a": _result("asset", inputs["asset_perp_pnl"], inputs["perp_pnl_weight"]),
         "d": _result("debt", inputs["liab_perp_pnl"], inputs["perp_pnl_weight"])})
    try:
        moved = exchange_tokens(account, "asset", "debt", most=D(inputs["max_liab_transfer"]),
                                fee_factor=ONE + D(inputs["fees"]))
    except NotLiquidatable:
        return {"accepted": False}
    return {"accepted": True, "asset_token": account.tokens["asset"].balance - moved.given,
            "liab_token": account.tokens["debt"].balance + moved.repaid}


def bankruptcy(case: Case) -> Mapping[str, Any]:
    inputs = case["inputs"]
    price, weight = D(inputs["settle_price"]), D(inputs["settle_weight"])
    # The source sets the liability weight as far above 1 as the asset weight lies below.
    account = HealthAccount(
        {"settle": HealthToken(Prices(price, price), _flat(weight, 2 - weight), D(inputs["settle_token"])),
         "other": HealthToken(Prices(ONE, ONE), _flat(ONE, ONE), D(inputs["other_token"]))}, (),
        {"perp": _result("settle", inputs["perp_quote"], "0")})
    try:
        end = settle_or_bankrupt(account, "perp", settle_limit=D(inputs["settle_limit"]),
                                 most=D(inputs["max_transfer"]), fund=D(inputs["insurance_fund"]),
                                 fund_price=D(inputs["insurance_price"]))
    except NotLiquidatable:
        return {"accepted": False}
    return {"accepted": True, "liqee_settle_token": account.tokens["settle"].balance - end.settled,
            "liqee_perp_quote": account.perps["perp"].quote + end.settled + end.fund_covered + end.socialised,
            "liqor_settle_token": end.settled, "liqor_perp_quote": -end.settled - end.fund_covered,
            "liqor_insurance": end.fund_paid, "socialized_loss": end.socialised}


KINDS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "health": health_figure, "perp_liquidation": perp_liquidation, "token_liquidation": token_liquidation,
    "bankruptcy": bankruptcy}
