"""OKX: multi-currency margin, swaps and futures, tiers, portfolio margin's scaled charge."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ledger.amounts import ONE
from ledger.risk.figures import PoolMargin
from ledger.risk.holding import Holding
from ledger.risk.liquidation import price_at_line
from ledger.risk.margin import evaluate_pool, liquidatable
from ledger.risk.pool import Weighed, total
from ledger.risk.requirement import required
from ledger.risk.scenario import ChargeTier, scaled_charge, worst_charge
from ledger.risk.schedule import Tiers
from ledger.risk.sizing import gross_size, settle, size_to_close, tier_number
from tests.golden.engine import UNIT, Case, Computed, holding, number, one_tier, priced, rules, signed_size
from tests.golden.suite import Adapter


def _block(inputs: Mapping[str, Any], fee: str | None = None) -> dict[str, Any]:
    closing = {} if fee is None else {"closing_fee": {"rate": number(inputs[fee]), "at": "mark"}}
    return one_tier(inputs["mmr"], **closing)


def multi_ccy_account(case: Case) -> Computed:
    inputs = case["inputs"]
    notional = number(inputs["notional_usd"])
    need = required(Tiers.model_validate(_block(inputs, "liquidation_fee_rate")),
                    holding("X", notional, ONE, ONE, leverage=inputs["leverage"]), notional)
    rows = [Weighed(row["ccy"], number(row["eq_usd"]), number(row["dis_eq"])) for row in inputs["currencies"]]
    pool = total([*rows, Weighed("X", Decimal(0), Decimal(0), initial=need.initial, maintenance=need.maintenance,
                                 closing_fee=need.closing_fee)])
    return {"adjusted_equity": pool.margin_equity, "total_equity": pool.account_equity,
            "initial_margin": pool.initial_margin_without_fee, "maintenance_margin": pool.maintenance_without_fee,
            "margin_ratio": pool.ratio}


def _evaluated(case: Case, held: Holding, balance: Any = 0, fee: str | None = None) -> PoolMargin:
    return evaluate_pool({UNIT: number(balance)}, [held], priced(), rules({"X": _block(case["inputs"], fee)}))


def cross_position(case: Case) -> Computed:
    inputs = case["inputs"]
    held = holding("X", signed_size(inputs, "contracts"), number(inputs["entry_price"]), number(inputs["mark_price"]),
                   contract_size=number(inputs["contract_size"]), leverage=inputs["leverage"])
    pool = _evaluated(case, held)
    return {"unrealised_pnl": pool.unrealised_pnl, "initial_margin": pool.initial_margin,
            "maintenance_margin": pool.maintenance_margin}


def tier(case: Case) -> Computed:
    inputs = case["inputs"]
    whole = gross_size(map(number, inputs["positions"]))
    return {"total": whole, "tier": tier_number(whole, first=number(inputs["tier1_max"]), step=number(inputs["step"]))}


def settlement(case: Case) -> Computed:
    inputs = case["inputs"]
    before = total([Weighed(UNIT, number(inputs["balance"]), number(inputs["balance"]), pnl=number(inputs["upl"])),
                    Weighed("RPL", number(inputs["rpl"]), number(inputs["rpl"]))])
    after = settle(balance=number(inputs["balance"]), realised_pnl=number(inputs["rpl"]),
                   unrealised_pnl=number(inputs["upl"]))
    return {"equity_before": before.account_equity, "balance_after": after.balance, "upl_after": after.unrealised_pnl,
            "rpl_after": Decimal(0), "equity_after": after.equity}


def discount(case: Case) -> Computed:
    inputs = case["inputs"]
    rows: list[dict[str, Any]] = [{"up_to": number(row["cap"]), "haircut": ONE - number(row["rate"])}
                                  for row in inputs["tiers"]]
    block = {"variant": "amount-tiers:1", "tiers": [*rows, {"haircut": ONE}]}
    pool = evaluate_pool({"C": number(inputs["equity"])}, [], priced({"C": inputs["price"]}),
                         rules(assets={"C": {"collateral": block}}))
    return {"adjusted_equity": pool.margin_equity}


def partial_qty(case: Case) -> Computed:
    inputs = case["inputs"]
    return {"close": size_to_close(number(inputs["position"]), most=number(inputs["target_tier_max"]))}


def initial_margin(case: Case) -> Computed:
    inputs = case["inputs"]
    price = number(inputs["price"])
    held = holding("X", number(inputs["contracts"]), price, price, contract_size=number(inputs["face_value"]),
                   leverage=inputs["leverage"])
    return {"initial_margin": evaluate_pool({}, [held], priced(), rules({"X": one_tier("0.005")})).initial_margin}


def iso_with_fee(case: Case) -> Computed:
    inputs = case["inputs"]
    entry = number(inputs["entry_price"])
    held = holding("X", signed_size(inputs), entry, entry, leverage=inputs["leverage"])
    margin = _evaluated(case, held).initial_margin
    book = rules({"X": _block(inputs, "taker_fee")})
    return {"liquidation_price": price_at_line({UNIT: margin}, [held], "X", priced(), book, passed=True)}


def margin_ratio(case: Case) -> Computed:
    inputs = case["inputs"]
    held = holding("X", signed_size(inputs, "contracts"), number(inputs["entry_price"]), number(inputs["mark_price"]),
                   contract_size=number(inputs["face_value"]))
    pool = _evaluated(case, held, inputs["fixed_margin"], "liquidation_fee_rate")
    return {"unrealised_pnl": pool.unrealised_pnl, "margin_ratio": pool.equity_per_notional,
            "threshold": pool.maintenance_per_notional, "liquidate": liquidatable(pool, rules().thresholds)}


def pnl(case: Case) -> Computed:
    inputs = case["inputs"]
    held = holding("X", signed_size(inputs, "contracts"), number(inputs["reference_price"]), number(inputs["price"]),
                   contract_size=number(inputs["face_value"]))
    return {"pnl": evaluate_pool({}, [held], priced(), rules()).unrealised_pnl}


def pm_mr7(case: Case) -> Computed:
    inputs = case["inputs"]
    base, raw = number(inputs["mr"]), number(inputs["mr7_raw"])
    scaled = scaled_charge(raw, [ChargeTier(number(row["cap"]), number(row["multiplier"])) for row in inputs["tiers"]])
    return {"mr7_adj": scaled, "mmr_before": worst_charge(base, raw), "mmr_after": worst_charge(base, scaled)}


KINDS: Mapping[str, Adapter] = {
    "cross_position": cross_position, "discount": discount, "initial_margin": initial_margin,
    "iso_with_fee": iso_with_fee, "margin_ratio": margin_ratio, "multi_ccy_account": multi_ccy_account,
    "partial_qty": partial_qty, "pm_mr7": pm_mr7, "pnl": pnl, "settlement": settlement, "tier_number": tier}
