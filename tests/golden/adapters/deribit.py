"""Deribit: rates linear in size, and the cross collateral account in dollars."""

from __future__ import annotations

from collections.abc import Mapping

from ledger.risk.haircuts import Flat
from ledger.risk.pool import AssetSums, spendable
from ledger.risk.schedule import SizeLinear
from tests.golden.engine import UNIT, Case, Computed, number, plain_pool
from tests.golden.suite import Adapter


def usd_conv(case: Case) -> Computed:
    inputs = case["inputs"]
    index = number(inputs["index"])
    pool = plain_pool(AssetSums(UNIT, balance=number(inputs["margin_balance"]),
                                initial=number(inputs["initial_margin"])), price=index)
    return {"total_initial_margin_usd": pool.initial_margin, "total_margin_balance_usd": pool.margin_equity,
            "available_funds": spendable(pool, Flat(variant="flat:1", haircut=number(0)), index)}


def im_linear(case: Case) -> Computed:
    inputs = case["inputs"]
    base, slope, size = (number(inputs[name]) for name in ("base", "per_btc", "size_btc"))
    block = SizeLinear(variant="size-linear:1", initial=base, initial_per_unit=slope, maintenance=base,
                       maintenance_per_unit=slope)
    return {"rate": block.rate(size)[0], "initial_margin": block.margins(size)[0],
            "maintenance_margin": block.margins(size)[1]}


KINDS: Mapping[str, Adapter] = {"im_linear": im_linear, "usd_conv": usd_conv}
