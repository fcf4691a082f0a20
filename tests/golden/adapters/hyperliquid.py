"""Hyperliquid: cross and isolated accounts, as of 2023 and now."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ledger.amounts import ZERO
from ledger.risk.closed_form import line_price, price_of_value, return_on_equity
from ledger.risk.holding import notional_of
from ledger.risk.margin import evaluate_pool
from ledger.risk.pool import AssetSums
from ledger.risk.requirement import required
from ledger.risk.schedule import TierRow, Tiers
from tests.golden.engine import UNIT, Case, Computed, holding, number, plain_pool, priced, rules, signed_size, tiers
from tests.golden.suite import Adapter


def _block(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Maintenance is half of the initial margin at the greatest leverage."""
    return tiers([{"floor": ZERO, "max_leverage": number(inputs["max_leverage"])}], initial="leverage")


def _rate(inputs: Mapping[str, Any]) -> Decimal:
    return Tiers.model_validate(_block(inputs)).steps[0][2]


def iso_state(case: Case) -> Computed:
    inputs = case["inputs"]
    size, entry, value = signed_size(inputs), number(inputs["entry_price"]), number(inputs["position_value"])
    mark = price_of_value(value=value, size=size)
    held = holding("X", size, entry, mark, leverage=inputs["leverage"])
    pnl = evaluate_pool({}, [held], priced(), rules({"X": _block(inputs)})).unrealised_pnl
    # What the position cost is paid already: raw_usd is the cash that is left beside it.
    paid = held._replace(cost=ZERO)
    alone = evaluate_pool({UNIT: number(inputs["raw_usd"])}, [paid], priced(), rules({"X": _block(inputs)}))
    whole = plain_pool(AssetSums(UNIT, balance=number(inputs["cross_account_value"])),
                       AssetSums("ISOLATED", balance=alone.account_equity))
    raw = plain_pool(AssetSums(UNIT, balance=number(inputs["cross_account_value"])),
                     AssetSums("RAW", balance=number(inputs["raw_usd"])))
    return {"margin_used": alone.account_equity, "unrealised_pnl": pnl,
            "return_on_equity": return_on_equity(pnl=pnl, value=held.cost, leverage=number(inputs["leverage"])),
            "liquidation_price": line_price(equity=alone.account_equity, reference=mark, size=size,
                                            rate=_rate(inputs)),
            "total_account_value": whole.account_equity, "total_raw_usd": raw.account_equity}


def cross_state_2023(case: Case) -> Computed:
    inputs = case["inputs"]
    held = [holding(row["coin"], signed_size(row), number(row["entry_price"]), price_of_value(
        value=number(row["position_value"]), size=number(row["size"])), leverage=inputs["leverage"])
        for row in inputs["positions"]]
    book = rules({row.instrument: _block(inputs) for row in held})
    pool = evaluate_pool({}, held, priced(), book)
    value = number(inputs["account_value"])
    account = plain_pool(AssetSums(UNIT, balance=value, initial=pool.initial_margin))
    raw = plain_pool(AssetSums(UNIT, balance=value), AssetSums("POSITIONS", loan=pool.net_value))
    return {"total_notional": pool.gross_notional, "total_margin_used": pool.initial_margin,
            "total_raw_usd": raw.account_equity, "withdrawable": account.free,
            "margin_used": [row.initial_margin for row in pool.positions],
            "unrealised_pnl": [row.unrealised_pnl for row in pool.positions],
            # The rule of that date held the requirement at its value at the mark.
            "liquidation_price": [line_price(equity=value, reference=row.mark, size=row.size,
                                             other=pool.maintenance_margin) for row in held]}


def single_liq(case: Case) -> Computed:
    inputs = case["inputs"]
    return {"liquidation_price": line_price(
        equity=number(inputs["collateral"]), reference=number(inputs["entry_price"]), size=signed_size(inputs),
        rate=_rate(inputs))}


def im_mm(case: Case) -> Computed:
    inputs = case["inputs"]
    notional = number(inputs["notional"])
    held = holding("X", notional, Decimal(1), Decimal(1), leverage=inputs["leverage"])
    need = required(Tiers.model_validate(_block(inputs)), held, notional_of(
        size=notional, contract_size=Decimal(1), price=Decimal(1)))
    return {"initial_margin": need.initial, "maintenance_margin": need.maintenance}


def mm_rate(case: Case) -> Computed:
    return {"maintenance_rates": [TierRow(floor=ZERO, max_leverage=number(leverage)).rates[1]
                                  for leverage in case["inputs"]["max_leverages"]]}


KINDS: Mapping[str, Adapter] = {
    "cross_state_2023": cross_state_2023, "im_mm": im_mm, "iso_state": iso_state, "mm_rate": mm_rate,
    "single_liq": single_liq}
