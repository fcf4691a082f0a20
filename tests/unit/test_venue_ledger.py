"""A ledger under a venue's rulebook: the book nominates by blocks that it cannot bound, and orders reserve margin."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ledger.events import LiquidationStarted, MarginCallIssued, MarginWarned, WithdrawalRefused
from tests.unit.ledger_scenario import Scenario


def under(name: str, *, asset: str = "USDT", instrument: str = "BTC-USDT", **terms: str) -> Scenario:
    """A ledger under a shipped rulebook, one account with 2,000 of the asset."""
    s = Scenario()
    s.rulebook(name)
    s.asset(asset)
    s.instrument(instrument, **terms)
    s.account("A")
    s.deposit("A", asset, "2000")
    s.price(instrument, "10000")
    return s


def test_a_fall_is_judged_at_each_mark_under_blocks_that_are_not_screened() -> None:
    """1 BTC of 10,000 on 2,000: maintenance 0.4 % of the mark, liquidated at or below 8,032.1285."""
    s = under("binance-usdm")
    s.fill("A", "buy", "1", "10000", instrument="BTC-USDT")
    for mark in ("8500", "8041", "8039", "8033"):
        s.price("BTC-USDT", mark)

    assert [MarginWarned, MarginCallIssued] == [type(event) for event in (s.last(MarginWarned),
                                                                          s.last(MarginCallIssued))]
    assert not s.events(LiquidationStarted)

    s.price("BTC-USDT", "8032")

    assert 1 == len(s.events(LiquidationStarted))


def test_open_orders_reserve_margin_and_what_filling_them_loses() -> None:
    """1 BTC at 10,100, 100 above the mark: 10,100 / 125 of the first tier, and the 100."""
    s = under("binance-usdm")
    before = s.margin("A")
    s.send("order", account="A", order_id="o", instrument="BTC-USDT", side="buy", remaining="1", price="10100")
    after = s.margin("A")

    assert before.free == Decimal(2000)
    assert before.free - after.free == Decimal("10100") / 125 + 100
    assert after.order_loss == 100

    s.withdraw("A", "USDT", "1900")

    assert 1 == len(s.events(WithdrawalRefused))


@pytest.mark.parametrize(("name", "asset", "instrument"), [
    ("binance-usdm-multi", "USDT", "BTC-USDT"), ("bybit-uta", "USDT", "BTC-USDT"),
    ("okx-multi-currency", "USDT", "BTC-USDT"), ("hyperliquid", "USDC", "BTC-USDC")])
def test_a_ledger_runs_down_to_liquidation_under_every_linear_venue(name: str, asset: str, instrument: str) -> None:
    s = under(name, asset=asset, instrument=instrument)
    if asset != s.house.rules().valuation_asset:
        valued = f"{asset}-{s.house.rules().valuation_asset}"
        s.asset(s.house.rules().valuation_asset)
        s.instrument(valued)
        s.asset(asset, priced_by=valued)
        s.price(valued, "1")
    s.fill("A", "buy", "1", "10000", instrument=instrument)
    for mark in ("9500", "9000", "8500", "8250", "8000"):
        s.price(instrument, mark)

    assert 1 == len(s.events(LiquidationStarted))
