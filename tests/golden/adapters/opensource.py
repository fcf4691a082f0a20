"""Engines that are not venues: nautilus_trader, exchange-core, TorchTrade."""

from __future__ import annotations

from collections.abc import Mapping

from ledger.amounts import ZERO
from ledger.risk.closed_form import line_price
from ledger.risk.pool import AssetSums
from ledger.risk.requirement import rate_margin
from ledger.risk.sizing import crossed, lot_fee
from tests.golden.engine import UNIT, Case, Computed, number, plain_pool, signed_size
from tests.golden.suite import Adapter


def two_pos_liq(case: Case) -> Computed:
    inputs = case["inputs"]
    return {"liquidation_price": line_price(
        equity=number(inputs["equity"]), reference=number(inputs["mark_price"]), size=signed_size(inputs),
        rate=number(inputs["mmr"]), other=number(inputs["other_maintenance"]))}


def fx_margin(case: Case) -> Computed:
    inputs = case["inputs"]
    return {"margin": rate_margin(size=number(inputs["quantity"]), price=number(inputs["price"]),
                                  rate=number(inputs["rate"]), leverage=number(inputs["leverage"]))}


def fees(case: Case) -> Computed:
    inputs = case["inputs"]
    maker, taker = inputs["maker"], inputs["taker"]
    trade = crossed(number(maker["order"]), number(taker["order"]))
    charged = [lot_fee(trade.filled, number(inputs[name])) for name in ("maker_fee", "taker_fee")]
    after = [plain_pool(AssetSums(UNIT, balance=number(side["deposit"]), loan=fee))
             for side, fee in zip((maker, taker), charged, strict=True)]
    return {"filled": trade.filled, "maker_balance": after[0].account_equity, "taker_balance": after[1].account_equity,
            "fees": sum(charged, ZERO), "clients_total": sum((pool.account_equity for pool in after), ZERO),
            "maker_pending": trade.resting, "open_interest_long": trade.filled, "open_interest_short": trade.filled}


KINDS: Mapping[str, Adapter] = {"fees": fees, "fx_margin": fx_margin, "two_pos_liq": two_pos_liq}
