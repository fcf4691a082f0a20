"""Binance: USD-M and COIN-M futures, multi-assets mode, spot cross and portfolio margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from ledger.amounts import ONE, ZERO
from ledger.risk.borrowing import margin_level, quotient, value_to_sell
from ledger.risk.closed_form import line_price, price_of_value
from ledger.risk.figures import utilisation
from ledger.risk.haircuts import Buffers, Flat
from ledger.risk.holding import Holding
from ledger.risk.liquidation import price_at_line
from ledger.risk.margin import evaluate_pool, liquidatable
from ledger.risk.mark_price import basis_mark, funding_basis
from ledger.risk.open_orders import OpenOrder, OrderRule, open_loss
from ledger.risk.pool import AssetSums, BorrowTiers, PoolRule, measured, spendable, total, weigh
from ledger.risk.schedule import Tiers, next_deduction
from tests.golden.engine import (
    FINE,
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
    tiers,
)
from tests.golden.suite import Adapter

# Liquidation at a margin ratio of 100 %.
AT_OR_BELOW = {"liquidation_when": "at_or_below"}


def _tiers(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return tiers([{"floor": number(row["floor"]), "maintenance": number(row["mmr"]),
                   **({"deduction": number(row["maint_amount"])} if "maint_amount" in row else {})}
                  for row in rows], initial="leverage")


def _position(row: Mapping[str, Any]) -> Holding:
    return holding(row["symbol"], signed_size(row), number(row["entry_price"]), number(row["mark_price"]),
                   leverage=row.get("leverage"))


def _block(row: Mapping[str, Any]) -> dict[str, Any]:
    return _tiers(row["brackets"]) if "brackets" in row else one_tier(row["mmr"], deduction=row.get("maint_amount", 0))


def account_state(case: Case) -> Computed:
    inputs = case["inputs"]
    held = [_position(row) for row in inputs["positions"]]
    book = rules({row["symbol"]: _block(row) for row in inputs["positions"]}, thresholds=AT_OR_BELOW)
    pool = evaluate_pool({UNIT: number(inputs["wallet_balance"])}, held, priced(), book)
    if inputs["margin_mode"] == "cross":
        gone = [row.instrument for row in held] if liquidatable(pool, book.thresholds) else []
    else:
        alone = [evaluate_pool({UNIT: number(row["isolated_margin"])}, [own], priced(), book)
                 for row, own in zip(inputs["positions"], held, strict=True)]
        gone = [own.instrument for own, margin in zip(held, alone, strict=True)
                if liquidatable(margin, book.thresholds)]
    return {"unrealised_pnl": [row.unrealised_pnl for row in pool.positions],
            "notionals": [row.notional for row in pool.positions],
            "initial_margins": [row.initial_margin for row in pool.positions],
            "maintenance_margins": [row.maintenance_margin for row in pool.positions],
            "margin_balance": pool.margin_equity, "initial_margin": pool.initial_margin,
            "maintenance_margin": pool.maintenance_margin, "available_balance": pool.free,
            "margin_ratio": utilisation(pool), "liquidate": gone}


def auto_exchange(case: Case) -> Computed:
    cut = Flat(variant="flat:1", haircut=ONE - number(case["inputs"]["haircut_rate"]))
    return {"collateral_sold_value": value_to_sell(deficit=number(case["inputs"]["deficit"]), haircut=cut)}


def bracket_lookup(case: Case) -> Computed:
    table = Tiers.model_validate(_tiers(case["inputs"]["brackets"]))
    notional = number(case["inputs"]["notional"])
    _, _, rate, deduction = table.steps[table.tier(notional)]
    return {"mmr": rate, "maint_amount": deduction, "maintenance_margin": table.margins(notional)[1]}


def coinm_liq(case: Case) -> Computed:
    inputs = case["inputs"]
    size = number(inputs["contract_value_usd"]) * sign(inputs["side"])
    entry = number(inputs["entry_price"])
    held = holding("COIN", size, entry, entry, contract_type="inverse")
    book = rules({"COIN": _tiers(inputs["brackets"])}, thresholds=AT_OR_BELOW)
    price = price_at_line({UNIT: number(inputs["wallet_balance"])}, [held], "COIN", priced(), book, passed=True)
    if price is None:
        return {"liquidation_price": None}
    table = Tiers.model_validate(_tiers(inputs["brackets"]))
    _, _, rate, deduction = table.steps[table.tier(measured(held._replace(mark=price))[1])]
    return {"liquidation_price": price, "mmr": rate, "maint_amount": deduction}


def coinm_observed(case: Case) -> Computed:
    inputs = case["inputs"]
    held = holding("COIN", signed_size(inputs, "contracts"), number(inputs["entry_price"]),
                   number(inputs["mark_price"]), contract_size=number(inputs["contract_size"]),
                   leverage=inputs["leverage"], contract_type="inverse")
    pool = evaluate_pool({}, [held], priced(), rules({"COIN": _block(inputs)}))
    return {"notional": pool.positions[0].notional, "unrealised_pnl": pool.unrealised_pnl,
            "initial_margin": pool.initial_margin, "maintenance_margin": pool.maintenance_margin}


def cross_single_observed(case: Case) -> Computed:
    inputs = case["inputs"]
    size, notional = signed_size(inputs), number(inputs["notional"])
    mark = price_of_value(value=notional, size=size)
    held = holding("X", size, number(inputs["entry_price"]), mark, leverage=inputs["leverage"])
    rate, deduction = number(inputs["mmr"]), number(inputs["maint_amount"])
    pool = evaluate_pool({}, [held], priced(), rules({"X": _block(inputs)}))
    balance = number(inputs["margin_balance"])
    return {"unrealised_pnl": pool.unrealised_pnl, "initial_margin": pool.initial_margin,
            "maintenance_margin": pool.maintenance_margin,
            "liquidation_price": line_price(equity=balance, reference=mark, size=size, rate=rate, deduction=deduction),
            "margin_ratio": quotient(pool.maintenance_margin, balance)}


def cum_step(case: Case) -> Computed:
    inputs = {name: number(value) for name, value in case["inputs"].items()}
    return {"maint_amount": next_deduction(inputs["prev_cum"], inputs["floor"], inputs["prev_mmr"], inputs["mmr"])}


def cum_table(case: Case) -> Computed:
    rows = [{"floor": row["floor"], "mmr": row["mmr"]} for row in case["inputs"]["brackets"]]
    return {"maint_amounts": [step[3] for step in Tiers.model_validate(_tiers(rows)).steps]}


def haircut(case: Case) -> Computed:
    inputs = case["inputs"]
    block = {"variant": "flat:1", "haircut": ONE - number(inputs["collateral_ratio"])}
    book = rules(assets={"C": {"collateral": block}})
    pool = evaluate_pool({"C": number(inputs["market_value"])}, [], priced({"C": 1}), book)
    return {"collateral_value": pool.collateral_value}


def level(case: Case) -> Computed:
    inputs = case["inputs"]
    assets, liabilities = number(inputs["total_asset_btc"]), number(inputs["total_liability_btc"])
    pool = plain_pool(AssetSums(UNIT, balance=assets, loan=liabilities))
    return {"margin_level": margin_level(assets=assets, liabilities=liabilities),
            "total_net_asset_btc": pool.account_equity}


def mark_basis(case: Case) -> Computed:
    inputs = case["inputs"]
    basis = funding_basis(rate=number(inputs["funding_rate"]), time_left=number(inputs["hours_until_funding"]),
                          interval=number(inputs["funding_interval_hours"]))
    return {"basis": basis, "mark_price": basis_mark(index=number(inputs["index_price"]), basis=basis)}


def multi_assets(case: Case) -> Computed:
    rule = PoolRule.model_validate({"variant": "pool:1", "profit": {"variant": "with-balance:1"},
                                    "requirement_at": "ask"})
    rows = case["inputs"]["assets"]
    indexes = [number(row["index"]) for row in rows]
    blocks = [Buffers(variant="buffers:1", bid=number(row["bid_buffer"]), ask=number(row["ask_buffer"]))
              for row in rows]
    pool = total([
        weigh(AssetSums(row["asset"], balance=number(row["wallet_balance"]), pnl=number(row["unrealised_pnl"]),
                        initial=number(row["initial_margin"]), maintenance=number(row["maintenance_margin"])),
              index, block, rule)
        for row, index, block in zip(rows, indexes, blocks, strict=True)], rule)
    pairs = list(zip(blocks, indexes, strict=True))
    return {"bid_rates": [block.bid_rate(index) for block, index in pairs],
            "ask_rates": [block.ask_rate(index) for block, index in pairs],
            "account_equity": pool.margin_equity, "account_initial_margin": pool.initial_margin,
            "account_maintenance_margin": pool.maintenance_margin, "available_for_order": pool.free,
            "available_for_order_by_asset": [spendable(pool, block, index) for block, index in pairs],
            "margin_ratio": utilisation(pool)}


def order_cost(case: Case) -> Computed:
    inputs = case["inputs"]
    order = OpenOrder("X", signed_size(inputs, "quantity"), number(inputs["order_price"]), number(inputs["mark_price"]),
                      ONE, UNIT, FINE, number(inputs["leverage"]))
    cost = OrderRule(variant="orders:1").cost(order, Tiers.model_validate(one_tier("0.004")))
    return {"initial_margin": cost.initial, "open_loss": open_loss(order), "cost": cost.whole}


def pm_parts(case: Case) -> Computed:
    inputs = case["inputs"]
    coins = [AssetSums(row["coin"], balance=number(row["asset"]), loan=number(row["loan"])) for row in inputs["coins"]]
    plain = Flat(variant="flat:1", haircut=ZERO)
    loans = [weigh(coin, ONE, plain, None, BorrowTiers.model_validate(
        {"variant": "borrow-tiers:1", "tiers": one_tier(row["loan_mmr"])}))
        for coin, row in zip(coins, inputs["coins"], strict=True)]
    futures = evaluate_pool({}, [_position(row) for row in inputs["futures"]], priced(), rules())
    return {"equity_by_coin": [coin.credit for coin in coins], "margin_mm_by_coin": [row.maintenance for row in loans],
            "unrealised_pnl": [row.unrealised_pnl for row in futures.positions]}


def ratio_pair(case: Case) -> Computed:
    inputs = case["inputs"]
    pool = plain_pool(AssetSums(UNIT, balance=number(inputs["account_equity"]),
                                maintenance=number(inputs["account_maint_margin"])))
    return {"uni_mmr": pool.ratio}


def tiered_borrow(case: Case) -> Computed:
    liabilities = case["inputs"]["liabilities"]

    def borrow(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
        floors = [ZERO, *(number(row["cap"]) for row in rows[:-1])]
        return tiers([{"floor": floor, "initial": number(row["imr"]), "maintenance": number(row["mmr"])}
                      for floor, row in zip(floors, rows, strict=True)])

    def pool(block: dict[str, dict[str, Any]]) -> Any:
        assets = {name: {"collateral": {"variant": "flat:1", "haircut": ZERO},
                         "borrow": {"variant": "borrow-tiers:1", "tiers": row}} for name, row in block.items()}
        return evaluate_pool({row["asset"]: -number(row["quantity"]) for row in liabilities}, [],
                             priced({row["asset"]: row["price"] for row in liabilities}), rules(assets=assets))

    whole = pool({row["asset"]: borrow(row["tiers"]) for row in liabilities})
    fast = pool({row["asset"]: one_tier(row["final_mmr"], deduction=row["maint_amount"]) for row in liabilities
                 if "final_mmr" in row})
    return {"initial_margin": whole.initial_margin, "maintenance_margin": whole.maintenance_margin,
            "maintenance_margin_fast": fast.maintenance_margin}


def tiered_collateral(case: Case) -> Computed:
    inputs = case["inputs"]
    rows: list[dict[str, Any]] = [{"up_to": number(row["cap"]), "haircut": ONE - number(row["ratio"])}
                                  for row in inputs["tiers"]]
    block = {"variant": "value-tiers:1", "tiers": [*rows, {"haircut": ONE}]}
    pool = evaluate_pool({"C": number(inputs["quantity"])}, [], priced({"C": inputs["price"]}),
                         rules(assets={"C": {"collateral": block}}))
    return {"collateral_value": pool.collateral_value}


def usdm_liq(case: Case) -> Computed:
    inputs = case["inputs"]
    positions = inputs["positions"]
    if inputs["margin_mode"] == "isolated":
        positions = [row for row in positions if row["symbol"] == inputs["target"]]
    book = rules({row["symbol"]: _block(row) for row in positions}, thresholds=AT_OR_BELOW)
    held = [_position(row) for row in positions]
    wallet = {UNIT: number(inputs["wallet_balance"])}
    return {"liquidation_price": price_at_line(wallet, held, inputs["target"], priced(), book, passed=True)}


def usdm_liq_direct(case: Case) -> Computed:
    inputs = case["inputs"]
    others = plain_pool(AssetSums(UNIT, balance=number(inputs["wallet_balance"]), pnl=number(inputs["upnl_others"]),
                                  maintenance=number(inputs["tmm_others"])))
    return {"liquidation_price": line_price(
        equity=others.margin_equity, reference=number(inputs["entry_price"]), size=signed_size(inputs),
        rate=number(inputs["mmr"]), deduction=number(inputs["maint_amount"]), other=others.maintenance_margin)}


def usdm_iso_lev(case: Case) -> Computed:
    inputs = case["inputs"]
    entry = number(inputs["entry_price"])
    held = holding("X", signed_size(inputs), entry, entry, leverage=inputs["leverage"])
    book = rules({"X": _block(inputs)}, thresholds=AT_OR_BELOW)
    margin = evaluate_pool({}, [held], priced(), book).initial_margin
    return {"liquidation_price": price_at_line({UNIT: margin}, [held], "X", priced(), book, passed=True)}


def bracket_mm(case: Case) -> Computed:
    table = Tiers.model_validate(_tiers(case["inputs"]["brackets"]))
    return {"maintenance_margin": table.margins(number(case["inputs"]["notional"]))[1]}


def _maintenance(row: Mapping[str, Any]) -> Decimal:
    return Tiers.model_validate(_block(row)).margins(number(row["notional"]))[1]


def usdm_mm(case: Case) -> Computed:
    return {"maintenance_margin": _maintenance(case["inputs"])}


def usdm_mm_list(case: Case) -> Computed:
    return {"maintenance_margins": [_maintenance(row) for row in case["inputs"]["positions"]]}


KINDS: Mapping[str, Adapter] = {
    "account_state": account_state, "auto_exchange": auto_exchange, "bracket_lookup": bracket_lookup,
    "bracket_mm": bracket_mm, "coinm_liq": coinm_liq, "coinm_observed": coinm_observed,
    "cross_single_observed": cross_single_observed, "cum_step": cum_step, "cum_table": cum_table, "haircut": haircut,
    "margin_level": level, "mark_basis": mark_basis, "multi_assets": multi_assets, "order_cost": order_cost,
    "pm_parts": pm_parts, "ratio_pair": ratio_pair, "tiered_borrow": tiered_borrow,
    "tiered_collateral": tiered_collateral, "usdm_iso_lev": usdm_iso_lev, "usdm_liq": usdm_liq,
    "usdm_liq_direct": usdm_liq_direct, "usdm_mm": usdm_mm, "usdm_mm_list": usdm_mm_list}
