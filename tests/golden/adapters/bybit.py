"""Bybit: the unified trading account, inverse and linear, cross and isolated."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ledger.risk.borrowing import quotient
from ledger.risk.closed_form import bankruptcy_price_of, inverse_cross_price, isolated_bankruptcy_price, to_tick
from ledger.risk.holding import ContractType, Holding, notional_of
from ledger.risk.liquidation import price_at_line
from ledger.risk.margin import evaluate_pool
from ledger.risk.pool import AssetSums
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


def _value(size: Decimal, entry: Decimal, contract_type: ContractType = "linear") -> Decimal:
    return notional_of(size=size, contract_size=Decimal(1), price=entry, contract_type=contract_type)


def inverse_position(case: Case) -> Computed:
    inputs = case["inputs"]
    size, entry = signed_size(inputs, "contracts"), number(inputs["entry_price"])
    held = holding("X", size, entry, number(inputs["mark_price"]), contract_type="inverse")
    pool = evaluate_pool({}, [held], priced(), rules())
    return {"position_value": _value(size, entry, "inverse"), "unrealised_pnl": pool.unrealised_pnl}


def uta_position(case: Case) -> Computed:
    inputs = case["inputs"]
    size, entry = signed_size(inputs), number(inputs["entry_price"])
    held = holding("X", size, entry, number(inputs["mark_price"]), leverage=inputs["leverage"])
    block = one_tier(inputs["mmr"], deduction=inputs.get("mm_deduction", 0), value="entry",
                     closing_fee={"rate": number(inputs["taker_fee"]), "at": "bankruptcy"},
                     quantum=Decimal("0.00000001"))
    pool = evaluate_pool({}, [held], priced(), rules({"X": block}))
    return {"position_value": _value(size, entry), "unrealised_pnl": pool.unrealised_pnl,
            "initial_margin": pool.initial_margin, "maintenance_margin": pool.maintenance_margin}


def uta_rates(case: Case) -> Computed:
    inputs = case["inputs"]
    pool = plain_pool(AssetSums(UNIT, balance=number(inputs["total_wallet_balance"]),
                                pnl=number(inputs["total_perp_upl"]),
                                initial=number(inputs["total_initial_margin"]),
                                maintenance=number(inputs["total_maintenance_margin"])))
    return {"total_margin_balance": pool.margin_equity,
            "account_im_rate": quotient(pool.initial_margin, pool.margin_equity),
            "account_mm_rate": quotient(pool.maintenance_margin, pool.margin_equity),
            "total_available_balance": pool.free}


def inverse_cross(case: Case) -> Computed:
    inputs = case["inputs"]
    size = signed_size(inputs, "contracts")
    found = inverse_cross_price(
        size=size, entry=number(inputs["entry_price"]), balance=number(inputs["account_balance"]),
        order_margin=number(inputs["order_margin"]), rate=number(inputs["mmr"]), fee=number(inputs["taker_fee"]))
    price = found.liquidation
    return {"bankruptcy_price": found.bankruptcy, "liquidation_price": None if price is None else to_tick(
        price, tick=number(inputs["tick"]), long=size > 0)}


def inverse_iso_bust(case: Case) -> Computed:
    inputs = case["inputs"]
    long = sign(inputs["side"]) > 0
    raw = isolated_bankruptcy_price(entry=number(inputs["entry_price"]), leverage=number(inputs["leverage"]),
                                    long=long, contract_type="inverse")
    return {"bankruptcy_price_raw": raw, "bankruptcy_price": to_tick(raw, tick=number(inputs["tick"]), long=long)}


def inverse_im(case: Case) -> Computed:
    inputs = case["inputs"]
    size, entry = number(inputs["contracts"]), number(inputs["entry_price"])
    held = holding("X", size, entry, entry, leverage=inputs["leverage"], contract_type="inverse")
    pool = evaluate_pool({}, [held], priced(), rules({"X": one_tier("0.005", value="entry")}))
    return {"position_value": pool.positions[0].notional, "initial_margin": pool.initial_margin}


def linear_bust(case: Case) -> Computed:
    inputs = case["inputs"]
    account = plain_pool(AssetSums("MARGIN", balance=number(inputs["position_margin"])),
                         AssetSums("WALLET", balance=number(inputs["wallet_balance"])))
    return {"bankruptcy_price": bankruptcy_price_of(
        equity=account.account_equity, reference=number(inputs["entry_price"]), size=signed_size(inputs))}


def _isolated(case: Case) -> Holding:
    inputs = case["inputs"]
    entry = number(inputs["entry_price"])
    return holding("X", signed_size(inputs), entry, entry, leverage=inputs["leverage"])


def linear_iso(case: Case) -> Computed:
    inputs = case["inputs"]
    held = _isolated(case)
    book = rules({"X": one_tier(inputs["mmr"], deduction=inputs["mm_deduction"], value="entry")},
                 thresholds={"liquidation_when": "at_or_below"})
    alone = evaluate_pool({}, [held], priced(), book)
    balances = {UNIT: alone.initial_margin, "EXTRA": number(inputs["extra_margin"])}
    price = price_at_line(balances, [held], "X", priced({"EXTRA": 1}), book, passed=True)
    return {"initial_margin": alone.initial_margin, "maintenance_margin": alone.maintenance_margin,
            "liquidation_price": price}


def linear_value(case: Case) -> Computed:
    inputs = case["inputs"]
    return {"position_value": _value(number(inputs["size"]), number(inputs["entry_price"]))}


KINDS: Mapping[str, Adapter] = {
    "inverse_cross": inverse_cross, "inverse_im": inverse_im, "inverse_iso_bust": inverse_iso_bust,
    "inverse_position": inverse_position, "linear_bust": linear_bust, "linear_iso": linear_iso,
    "linear_value": linear_value, "uta_position": uta_position, "uta_rates": uta_rates}
