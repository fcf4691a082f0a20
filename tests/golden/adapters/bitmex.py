"""BitMEX: inverse contracts, stepped risk limits, funding, auto-deleveraging by rank."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ledger.amounts import ONE
from ledger.risk.holding import nearest_value
from ledger.risk.margin import evaluate_pool
from ledger.risk.pool import AssetSums
from ledger.risk.ranking import Candidate, lights, ranked, reductions
from ledger.risk.requirement import rate_margin
from ledger.risk.schedule import RiskSteps, Tiers
from ledger.risk.sizing import funding_payment
from tests.golden.engine import (
    UNIT,
    Case,
    Computed,
    holding,
    number,
    one_tier,
    plain_pool,
    priced,
    rules,
    sign,
    signed_size,
)
from tests.golden.suite import Adapter


def margin_fields(case: Case) -> Computed:
    inputs = case["inputs"]
    pool = plain_pool(AssetSums(UNIT, balance=number(inputs["wallet_balance"]), pnl=number(inputs["unrealised_pnl"]),
                                initial=number(inputs["init_margin"]), maintenance=number(inputs["maint_margin"])))
    return {"margin_balance": pool.margin_equity, "excess_margin": pool.excess}


def adl_alloc(case: Case) -> Computed:
    inputs = case["inputs"]
    side = "longs" if "longs" in inputs else "shorts"
    queue = ranked(Candidate(row["account"], number(row["quantity"]), number(row["score"])) for row in inputs[side])
    given = reductions(queue, number(inputs["liquidated_size"]))
    return {"order": [row.account for row in queue], "percentile_bucket": lights(queue),
            "closed": {row.account: row.closed for row in given},
            "remaining": {row.account: row.remaining for row in given if row.remaining},
            "price": number(inputs["bankruptcy_price"])}


def funding(case: Case) -> Computed:
    inputs = case["inputs"]
    return {"cashflow": funding_payment(value=number(inputs["value"]), rate=number(inputs["rate"]),
                                        long=sign(inputs["side"]) > 0)}


def inverse_margin(case: Case) -> Computed:
    inputs = case["inputs"]
    return {"margin": rate_margin(size=number(inputs["contracts"]), price=number(inputs["price"]),
                                  rate=number(inputs["rate"]), leverage=number(inputs["leverage"]),
                                  contract_type="inverse")}


def inverse_pnl(case: Case) -> Computed:
    inputs = case["inputs"]
    held = holding("X", signed_size(inputs, "contracts"), number(inputs["entry_price"]), number(inputs["price"]),
                   contract_type="inverse")
    return {"pnl": evaluate_pool({}, [held], priced(), rules()).unrealised_pnl}


def pos_value(case: Case) -> Computed:
    inputs = case["inputs"]
    value = nearest_value(size=signed_size(inputs, "contracts"), contract_size=Decimal(10) ** 8,
                          price=number(inputs["mark_price"]), contract_type="inverse", quantum=ONE)
    pool = plain_pool(AssetSums("VALUE", balance=value), AssetSums("COST", loan=number(inputs["current_cost"])))
    return {"mark_value": value, "unrealised_pnl": pool.account_equity}


def mm_value(case: Case) -> Computed:
    inputs = case["inputs"]
    return {"maintenance_margin": Tiers.model_validate(one_tier(inputs["mm"])).margins(number(inputs["value"]))[1]}


def risk_steps(case: Case) -> Computed:
    inputs = case["inputs"]
    block = RiskSteps(variant="risk-steps:1", base_limit=number(inputs["base_limit"]), step=number(inputs["step"]),
                      initial=number(inputs["base_im"]), maintenance=number(inputs["base_mm"]))
    rates = [block.rate(number(cap)) for cap in inputs["position_caps"]]
    return {"mm": [maintenance for _, maintenance in rates], "im": [initial for initial, _ in rates]}


KINDS: Mapping[str, Adapter] = {
    "adl_alloc": adl_alloc, "funding": funding, "inverse_margin": inverse_margin, "inverse_pnl": inverse_pnl,
    "margin_fields": margin_fields, "mm_value": mm_value, "pos_value": pos_value, "risk_steps": risk_steps}
