"""Records of markets, assets and the house: inverse contracts, settlement, interest, halts, several price sources."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ledger.events import (
    FillPosted,
    FundingSettled,
    Halted,
    InterestRateSet,
    InterestSettled,
    LiquidationOrderCancelled,
    LiquidationStarted,
    MarginCallIssued,
    MarginCallSuperseded,
    MarketSettled,
    PositionSettled,
    PriceRecorded,
    PriceRejected,
    Resumed,
    WithdrawalRefused,
)
from tests.unit.ledger_scenario import Scenario, desk, long_account

D = Decimal
YEAR = "2027-01-05T10:00:00Z"


# --- inverse contracts -------------------------------------------------------------------------------------------


def coin_desk() -> Scenario:
    """USD, BTC at 10,000, and BTC-PERP: an inverse contract of 100 USD, settled in BTC."""
    s = desk()
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    s.instrument("BTC-PERP", base="BTC", quote="USD", contract_type="inverse", contract_size="100", lot="1")
    s.price("BTC-PERP", "10000")
    s.account("A")
    s.deposit("A", "BTC", "1")
    return s


def test_the_notional_of_an_inverse_contract_is_size_times_contract_size_over_price_in_base() -> None:
    """Semantics 3: notional = size x contract size / price (inverse, settled in base)."""
    s = coin_desk()

    s.fill("A", "buy", "100", "10000", instrument="BTC-PERP")

    (row,) = s.margin("A").positions
    assert (D(10000), D(0)) == (row.notional, row.unrealised_pnl)
    assert D(-1) == s.state("A").positions["BTC-PERP", "cross", "net"].cost
    s.price("BTC-PERP", "12500")
    (row,) = s.margin("A").positions
    # 100 x 100 x (1 / 10,000 - 1 / 12,500) = 0.2 BTC, at 10,000.
    assert D(2000) == row.unrealised_pnl


def test_inverse_cost_is_rounded_to_the_quantum_against_the_account() -> None:
    """Semantics 3: inverse cost is rounded per fill to the quantum against the account, the house the opposite."""
    s = coin_desk()

    s.fill("A", "buy", "1", "30000", instrument="BTC-PERP")
    assert D("-0.00333333") == s.state("A").positions["BTC-PERP", "cross", "net"].cost
    s.fill("A", "sell", "2", "30000", instrument="BTC-PERP")

    assert D("0.00333334") == s.state("A").positions["BTC-PERP", "cross", "net"].cost
    # Bought and sold at one price: one quantum is lost to rounding, and the house has it.
    assert (D("0.99999999"), D("0.00000001")) == (s.balance("A", "BTC"), s.held_by("house", "BTC"))


def test_profit_of_an_inverse_contract_is_paid_in_base() -> None:
    """Semantics 3: inverse, settled in base."""
    s = coin_desk()
    s.fill("A", "sell", "100", "10000", instrument="BTC-PERP")

    s.fill("A", "buy", "100", "8000", instrument="BTC-PERP")

    assert (D("0.25"), "BTC") == (s.told(FillPosted).realised_pnl, s.told(FillPosted).settlement_asset)
    assert D("1.25") == s.balance("A", "BTC")


def test_funding_of_an_inverse_contract_is_paid_in_base() -> None:
    """Semantics 3: funding is a cumulative index; inverse: rate / price, in base per unit of quote."""
    s = coin_desk()
    s.fill("A", "buy", "100", "10000", instrument="BTC-PERP")

    s.funding("BTC-PERP", "0.001")
    s.deposit("A", "BTC", "1")

    (item,) = s.told(FundingSettled).items
    assert ("BTC", D("-0.001")) == (item.asset, item.payment)


def test_an_inverse_position_is_liquidated_at_limits_that_end_the_account_at_zero() -> None:
    """Semantics 4: filling all at their limits ends at exactly zero."""
    s = coin_desk()
    s.fill("A", "buy", "1000", "10000", instrument="BTC-PERP")
    s.price("BTC-PERP", "9100")
    assert LiquidationStarted in s.kinds
    (order,) = s.state("A").liquidations["cross"].orders.values()

    s.fill("A", "sell", "1000", str(order.limit_price), instrument="BTC-PERP", liquidation_order_id=order.order_id)

    assert D(0) == s.balance("A", "BTC")


# --- settlement --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_a_daily_settlement_pays_profit_and_leaves_equity_as_it_is(side: str) -> None:
    """Contracts 1: `settlement`: `daily`: equity unchanged, conservation kept."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "20000")
    s.fill("A", side, "3", "10000.005")
    s.price("BTC-USD", "10100")
    before = s.margin("A").account_equity

    s.send("settlement", instrument="BTC-USD", price="10100", kind="daily")

    assert [MarketSettled, PositionSettled] == s.kinds[:2]
    assert before == s.margin("A").account_equity
    settled = s.told(PositionSettled)
    assert abs(settled.realised_pnl) > 299
    assert D(3) == abs(s.state("A").positions["BTC-USD", "cross", "net"].size)
    assert abs(s.margin("A").unrealised_pnl) < D("0.01")


@pytest.mark.parametrize("kind", ["expiry", "delisting"])
def test_at_the_contracts_end_positions_are_closed_at_its_price(kind: str) -> None:
    """Contracts 1: `settlement`: `expiry`, `delisting`."""
    s = desk()
    long_account(s, "A", "20000")
    long_account(s, "B", "1000", margin_mode="isolated", size="1")
    s.account("C")
    s.deposit("C", "USD", "20000")
    s.fill("C", "sell", "11", "10000")

    s.send("settlement", instrument="BTC-USD", price="10050", kind=kind)

    assert (D(20500), D(1050), D(19450)) == (s.balance("A"), s.balance("B"), s.balance("C"))
    assert all(not s.state(name).positions for name in "ABC")
    assert D(0) == s.house.house.sizes["BTC-USD"]
    assert ["A", "B", "C"] == [event.account for event in s.events(PositionSettled)]


def test_a_settled_contract_takes_no_price_and_a_late_fill_is_posted_and_flagged() -> None:
    """Semantics 4: facts are never refused for lateness or expiry."""
    s = desk()
    s.account("A")
    s.send("settlement", instrument="BTC-USD", price="10000", kind="expiry")

    price = s.price("BTC-USD", "10100")
    again = s.send("settlement", instrument="BTC-USD", price="10000", kind="expiry")
    s.fill("A", "buy", "1", "10000")

    assert ("rejected", "settled") == (price.kind, s.events(PriceRejected)[-1].reason)
    assert ("rejected", "immutable") == (again.kind, again.reason)
    assert "after-settlement" in s.told(FillPosted).flags


def test_a_settlement_cancels_the_liquidation_orders_of_its_contract() -> None:
    """Semantics 4: life of a liquidation: no position is left."""
    s = desk()
    long_account(s, "A", "11000")
    s.price("BTC-USD", "8950")
    assert s.house.open_orders

    s.send("settlement", instrument="BTC-USD", price="8950", kind="delisting")

    assert LiquidationOrderCancelled in s.kinds
    assert ({}, {}) == (s.house.open_orders, dict(s.state("A").liquidations))
    assert D(500) == s.balance("A")


# --- interest ----------------------------------------------------------------------------------------------------


def test_interest_runs_by_index_on_log_time_and_is_settled_before_the_accounts_next_event() -> None:
    """Semantics 3: interest is ACT/365 on log time; paid rounded up, received rounded down, the rest to rounding."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "1000")
    s.send("interest-rate", asset="USD", borrow_rate="0.2", lend_rate="0.05")
    assert [InterestRateSet] == s.kinds

    s.clock(YEAR)
    assert D(1050) == s.margin("A").account_equity
    assert D(1000) == s.balance("A")
    s.deposit("A", "USD", "1")

    (item,) = s.told(InterestSettled).items
    assert ("cross", D(1000), D(50)) == (item.pool, item.balance, item.payment)
    assert (D(1051), D(-50)) == (s.balance("A"), s.held_by("house"))


def test_what_is_owed_costs_the_borrow_rate_rounded_up() -> None:
    """Semantics 3: paid rounded up."""
    s = desk()
    # A client without positions would be closed out for what it owes, so the account is not margined.
    s.account("H", kind="house")
    s.fill("H", "buy", "0.001", "10000", fee="10")
    s.send("interest-rate", asset="USD", borrow_rate="0.2", lend_rate="0")

    s.clock("2026-01-06T10:00:00Z")
    s.deposit("H", "USD", "1")

    # 10 x 0.2 / 365 = 0.00547...
    (item,) = s.told(InterestSettled).items
    assert D("-0.01") == item.payment
    assert D("-9.01") == s.balance("H")
    assert 0 < item.rounding < D("0.01")


def test_a_change_of_rates_leaves_what_accrued_before() -> None:
    """Semantics 3: cumulative indexes."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "36500")
    s.send("interest-rate", asset="USD", borrow_rate="0", lend_rate="0.1")
    s.clock("2026-01-06T10:00:00Z")
    s.send("interest-rate", asset="USD", borrow_rate="0", lend_rate="0.3")
    s.clock("2026-01-07T10:00:00Z")

    assert D(36500) + 10 + 30 == s.margin("A").account_equity


def test_interest_alone_may_call_an_account() -> None:
    """Semantics 3: accrual counts in equity; design 7: time is a factor too."""
    s = desk()
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    long_account(s, "A", "1300", size="10")
    s.withdraw("A", "USD", "0.01")
    s.send("interest-rate", asset="USD", borrow_rate="0", lend_rate="-0.5")

    s.clock("2026-02-20T10:00:00Z")

    # Marks are stale by then, which holds back a liquidation but no call.
    assert MarginCallIssued in s.kinds


# --- halts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["all", "BTC-USD", "A"])
def test_no_liquidation_starts_during_a_halt_and_resuming_judges_once_in_order(scope: str) -> None:
    """Semantics 4: no liquidation starts during a halt of liquidations; after it, one re-evaluation pass in order."""
    s = desk()
    long_account(s, "A", "11000")
    s.send("halt", scope=scope, what="liquidations", reason="feed trouble", by="risk")
    assert [Halted] == s.kinds
    s.price("BTC-USD", "8950")
    assert LiquidationStarted not in s.kinds
    assert MarginCallIssued in s.kinds

    s.send("resume", scope=scope, what="liquidations", reason="feed is back", by="risk")

    assert [Resumed, MarginCallSuperseded, LiquidationStarted] == s.kinds[:3]


def test_a_halt_of_another_scope_holds_nothing_back() -> None:
    """Contracts 1: `halt`: `scope`: `all`, an instrument or an account."""
    s = desk()
    s.account("B")
    long_account(s, "A", "11000")
    s.send("halt", scope="B", what="liquidations", reason="x", by="risk")
    s.send("halt", scope="A", what="withdrawals", reason="x", by="risk")

    s.price("BTC-USD", "8950")

    assert LiquidationStarted in s.kinds


def test_a_halt_of_new_risk_flags_what_adds_to_it() -> None:
    """Semantics 4: facts are never refused for a halt: a fill is posted and flagged (`during halt`)."""
    s = desk()
    long_account(s, "A", "11000", size="1")
    s.send("halt", scope="BTC-USD", what="new-risk", reason="x", by="risk")

    s.fill("A", "buy", "1", "10000")
    assert ["during-halt"] == s.told(FillPosted).flags
    s.fill("A", "sell", "1", "10000")
    assert [] == s.told(FillPosted).flags


@pytest.mark.parametrize("scope", ["all", "A"])
def test_a_halt_of_withdrawals_refuses_withdrawals_and_transfers(scope: str) -> None:
    """Contracts 1: `halt`: `what`: `withdrawals`."""
    s = desk()
    s.account("A")
    s.account("B")
    s.deposit("A", "USD", "10")
    s.send("halt", scope=scope, what="withdrawals", reason="x", by="risk")

    refused = s.withdraw("A", "USD", "1")
    assert ("refused", "halted") == (refused.kind, s.told(WithdrawalRefused).reason)
    assert "refused" == s.send("transfer", account="A", to_account="B", asset="USD", amount="1").kind
    s.send("resume", scope=scope, what="withdrawals", reason="x", by="risk")
    assert "applied" == s.withdraw("A", "USD", "1").kind


def test_a_halt_of_withdrawals_lets_margin_into_an_isolated_position_and_none_out() -> None:
    """Contracts 1: `halt`: `withdrawals`: what stays in the account is none."""
    s = desk()
    s.account("A", margin_mode="isolated")
    s.deposit("A", "USD", "1000")
    s.fill("A", "buy", "1", "10000")
    s.send("halt", scope="all", what="withdrawals", reason="x", by="risk")

    into = s.send("isolated-margin", account="A", instrument="BTC-USD", amount="100")
    out = s.send("isolated-margin", account="A", instrument="BTC-USD", amount="-100")

    assert ("applied", "refused", "halted") == (into.kind, out.kind, out.reason)


# --- several sources of one price --------------------------------------------------------------------------------


def test_the_mark_is_the_median_of_the_fresh_sources() -> None:
    """Contracts 1: `price`: `source`: the mark is the median of the fresh sources by the house rulebook."""
    s = desk()
    s.price("BTC-USD", "10010", source="b")
    assert D(10005) == s.house.markets["BTC-USD"].mark
    s.price("BTC-USD", "11000", source="c")
    assert D(10010) == s.house.markets["BTC-USD"].mark
    assert (D(11000), D(10010)) == (s.told(PriceRecorded).price, s.told(PriceRecorded).mark)

    s.price("BTC-USD", "10020", source="b", at="10:15:01")

    # The two others are older than the rule's 900 seconds.
    assert D(10020) == s.house.markets["BTC-USD"].mark
    assert s.told(PriceRecorded).mark is None


def test_one_source_far_off_moves_the_mark_no_further_than_the_others_stand() -> None:
    """Contracts 1: `price`: a source that deviates is outvoted, one beyond the step is rejected."""
    s = desk()
    s.price("BTC-USD", "10001", source="b")
    s.price("BTC-USD", "10002", source="c")

    s.price("BTC-USD", "8000", source="b")
    assert D(10000) == s.house.markets["BTC-USD"].mark
    beyond = s.price("BTC-USD", "7000", source="c")

    assert ("rejected", "step") == (beyond.kind, beyond.reason)
    assert D(10000) == s.house.markets["BTC-USD"].mark
