"""Binance: what puts its cases into the engine's types."""

from __future__ import annotations

from collections.abc import Mapping

from tests.golden.suite import NOT_SUPPORTED, Adapter

KINDS: Mapping[str, Adapter] = dict.fromkeys((
    "account_state", "auto_exchange", "bracket_lookup", "bracket_mm", "coinm_liq", "coinm_observed",
    "cross_single_observed", "cum_step", "cum_table", "haircut", "margin_level", "mark_basis", "multi_assets",
    "order_cost", "pm_parts", "ratio_pair", "tiered_borrow", "tiered_collateral", "usdm_iso_lev", "usdm_liq",
    "usdm_liq_direct", "usdm_mm", "usdm_mm_list"), NOT_SUPPORTED)
