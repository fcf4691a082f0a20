"""Records of an account beyond cash and fills: settings, undone deposits, holds, transfers, margin, orders, results."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ledger.events import (
    DepositReversed,
    FillPosted,
    IsolatedMarginMoved,
    IsolatedMarginRefused,
    LiquidationOrderPlaced,
    LiquidationResultRecorded,
    MarginCallIssued,
    MarginCallMet,
    OrderReserved,
    TradingSettingsChanged,
    TransferReceived,
    TransferRefused,
    TransferSent,
    WithdrawalCancelled,
    WithdrawalHeld,
    WithdrawalRefused,
    WithdrawalSettled,
)
from tests.unit.ledger_scenario import Scenario, desk, long_account, rules

D = Decimal


def called() -> Scenario:
    """A is long 10 BTC from 10,000 with 11,000 paid in; at 9,000 it stands at 1,000 of 900 and is called."""
    s = desk()
    long_account(s, "A", "11000")
    s.price("BTC-USD", "9000")
    assert MarginCallIssued in s.kinds
    return s


# --- account-settings --------------------------------------------------------------------------------------------


def test_a_chosen_leverage_counts_for_positions_that_are_open_and_for_those_to_come() -> None:
    """Contracts 1: `account-settings`: leverage, of an instrument or of all."""
    s = desk()
    long_account(s, "A", "50000")
    assert D(2000) == s.margin("A").initial_margin

    s.send("account-settings", account="A", instrument="BTC-USD", leverage="10")
    assert [TradingSettingsChanged] == s.kinds
    assert D(10000) == s.margin("A").initial_margin
    s.fill("A", "buy", "1", "10000")
    assert D(11000) == s.margin("A").initial_margin
    s.fill("A", "sell", "11", "10000")
    s.fill("A", "buy", "1", "10000")
    assert D(1000) == s.margin("A").initial_margin


def test_the_choice_for_an_instrument_goes_before_that_for_all() -> None:
    """Contracts 1: `account-settings`: without `instrument` for all that have no choice of their own."""
    s = desk()
    s.instrument("ETH-USD")
    s.price("ETH-USD", "100")
    s.account("A")
    s.deposit("A", "USD", "100000")
    s.send("account-settings", account="A", instrument="BTC-USD", leverage="20")
    s.send("account-settings", account="A", leverage="5", margin_mode="isolated")

    s.fill("A", "buy", "1", "10000")
    s.fill("A", "buy", "10", "100", instrument="ETH-USD")

    assert {"BTC-USD": D(20), "ETH-USD": D(5)} == {key[0]: row.leverage for key, row in s.state("A").positions.items()}
    assert {"isolated"} == {key[1] for key in s.state("A").positions}


def test_a_fill_that_names_leverage_and_mode_goes_before_the_settings() -> None:
    """Contracts 1: `fill`: `margin_mode`, `leverage` of its own."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "100000")
    s.send("account-settings", account="A", leverage="5", margin_mode="isolated")

    s.fill("A", "buy", "1", "10000", margin_mode="cross", leverage="4")

    assert {("BTC-USD", "cross", "net"): D(4)} == {key: row.leverage for key, row in s.state("A").positions.items()}


def test_a_position_mode_is_chosen_while_no_position_is_open() -> None:
    """Contracts 1: `account-settings`: `position_mode`."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "100000")

    s.send("account-settings", account="A", position_mode="hedge")
    s.fill("A", "buy", "1", "10000", position_side="long")
    s.fill("A", "sell", "1", "10000", position_side="short")

    assert ["long", "short"] == sorted(key[2] for key in s.state("A").positions)


# --- deposits that are undone ------------------------------------------------------------------------------------


def test_an_undone_deposit_is_a_fact_even_if_equity_turns_negative() -> None:
    """Contracts 1: `deposit`: `reverses`: a fact even if equity turns negative."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "11000", id="in")
    s.fill("A", "buy", "10", "10000")
    s.price("BTC-USD", "9900")

    outcome = s.deposit("A", "USD", "11000", reverses="in")

    assert "applied" == outcome.kind
    assert DepositReversed in s.kinds
    assert D(-1000) == s.margin("A").account_equity
    assert s.state("A").liquidations


@pytest.mark.parametrize("fields", [
    pytest.param({"amount": "10"}, id="another amount"),
    pytest.param({"asset": "BTC"}, id="another asset"),
    pytest.param({"account": "B"}, id="another account"),
    pytest.param({"reverses": "out"}, id="a withdrawal"),
    pytest.param({"reverses": "never"}, id="no record at all"),
    pytest.param({"id": "self", "reverses": "self"}, id="itself"),
])
def test_only_a_deposit_of_the_account_can_be_undone(fields: dict[str, str]) -> None:
    """Contracts 1: `deposit`: `reverses`: id of the deposit that it undoes."""
    s = desk()
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    s.account("A")
    s.account("B")
    s.deposit("A", "USD", "100", id="in")
    s.withdraw("A", "USD", "20", id="out")
    before = s.stands()

    outcome = s.send("deposit", **{"account": "A", "asset": "USD", "amount": "100", "reverses": "in", **fields})

    assert ("rejected", "unknown-deposit") == (outcome.kind, outcome.reason)
    assert before == s.stands()


def test_a_deposit_is_undone_once() -> None:
    """Contracts 1: `deposit`: `reverses`."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "100", id="in")

    first = s.deposit("A", "USD", "100", reverses="in", id="undo")
    repeated = s.deposit("A", "USD", "100", reverses="in", id="undo")
    again = s.deposit("A", "USD", "100", reverses="in", id="undo-2")

    assert ("applied", "duplicate", "rejected") == (first.kind, repeated.kind, again.kind)
    assert D(0) == s.balance("A")


# --- withdrawals on hold -----------------------------------------------------------------------------------------


def test_what_is_held_for_a_withdrawal_leaves_the_account_at_once_and_custody_when_it_settles() -> None:
    """Contracts 1: `withdrawal`: `hold`: reserved until `withdrawal-settled` or `withdrawal-cancelled`."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "100")

    s.withdraw("A", "USD", "40", hold=True, id="w1")
    assert [WithdrawalHeld] == s.kinds
    assert (D(60), D(40), D(-100)) == (s.balance("A"), s.held_by("withheld"), s.held_by("custody"))

    s.send("withdrawal-settled", account="A", withdrawal="w1")
    assert [WithdrawalSettled] == s.kinds
    assert (D(60), D(0), D(-60)) == (s.balance("A"), s.held_by("withheld"), s.held_by("custody"))
    assert {} == s.state("A").holds


def test_a_cancelled_withdrawal_is_the_accounts_again() -> None:
    """Contracts 1: `withdrawal-cancelled`."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "100")
    s.withdraw("A", "USD", "40", hold=True, id="w1")

    s.send("withdrawal-cancelled", account="A", withdrawal="w1")
    late = s.send("withdrawal-settled", account="A", withdrawal="w1")

    assert (D(100), D(0)) == (s.balance("A"), s.held_by("withheld"))
    assert ("rejected", "unknown-withdrawal") == (late.kind, late.reason)
    assert 1 == len(s.events(WithdrawalCancelled))


def test_a_hold_is_refused_like_any_withdrawal_and_its_repeat_is_a_duplicate() -> None:
    """Contracts 1: `withdrawal`: refused beyond what is withdrawable, with that amount."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "100")

    first = s.withdraw("A", "USD", "100.01", hold=True, id="w1")
    again = s.withdraw("A", "USD", "100.01", hold=True, id="w1")
    without = s.withdraw("A", "USD", "100.01", id="w1")

    assert ("refused", "duplicate", "rejected") == (first.kind, again.kind, without.kind)
    assert D(100) == s.last(WithdrawalRefused).withdrawable


# --- transfers ---------------------------------------------------------------------------------------------------


def test_a_transfer_goes_through_the_in_transit_account_and_meets_the_receivers_call() -> None:
    """Contracts 1: `transfer`; Semantics 4: *met* (a record of the account restores the cure level)."""
    s = called()
    s.account("B")
    s.deposit("B", "USD", "1000")

    s.send("transfer", account="B", to_account="A", asset="USD", amount="500")

    assert [TransferSent, TransferReceived, MarginCallMet] == s.kinds[:3]
    assert (D(500), D(11500), D(0)) == (s.balance("B"), s.balance("A"), s.held_by("in-transit"))


def test_a_transfer_is_refused_beyond_what_is_withdrawable() -> None:
    """Semantics 3: withdrawable: zero while a call is open."""
    s = called()
    s.account("B")

    outcome = s.send("transfer", account="A", to_account="B", asset="USD", amount="1")

    refused = s.told(TransferRefused)
    assert ("refused", "call-open", D(0)) == (outcome.kind, refused.reason, refused.withdrawable)
    assert D(0) == s.balance("B")


# --- isolated margin ---------------------------------------------------------------------------------------------


def isolated() -> Scenario:
    """A holds 1 BTC isolated from 10,000 with 200 of margin, and 800 beside it."""
    s = desk()
    s.account("A", margin_mode="isolated")
    s.deposit("A", "USD", "1000")
    s.fill("A", "buy", "1", "10000")
    assert (D(800), D(200)) == (s.balance("A"), s.balance("A", pool="isolated:BTC-USD:net"))
    return s


def test_isolated_margin_moves_in_and_out_as_far_as_it_is_free() -> None:
    """Contracts 1: `isolated-margin`: into (+) or out of (-) an isolated position."""
    s = isolated()

    s.send("isolated-margin", account="A", instrument="BTC-USD", amount="300")
    assert [IsolatedMarginMoved] == s.kinds
    assert (D(500), D(500)) == (s.balance("A"), s.balance("A", pool="isolated:BTC-USD:net"))

    refused = s.send("isolated-margin", account="A", instrument="BTC-USD", amount="-300.01")
    assert ("refused", D(300)) == (refused.kind, s.told(IsolatedMarginRefused).withdrawable)
    s.send("isolated-margin", account="A", instrument="BTC-USD", amount="-300")
    beyond = s.send("isolated-margin", account="A", instrument="BTC-USD", amount="800.01")

    assert ("refused", D(800)) == (beyond.kind, s.told(IsolatedMarginRefused).withdrawable)


def test_margin_moved_in_meets_the_call_of_an_isolated_position() -> None:
    """Semantics 4: *met*: a record of the account restores the cure level."""
    s = isolated()
    s.price("BTC-USD", "9920")
    assert MarginCallIssued in s.kinds

    s.send("isolated-margin", account="A", instrument="BTC-USD", amount="100")

    assert [IsolatedMarginMoved, MarginCallMet] == s.kinds[:2]


# --- orders ------------------------------------------------------------------------------------------------------


def reserving() -> Scenario:
    """A has 1,000 and no position, under the house rulebook: open orders reserve initial margin (2 %)."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "1000")
    return s


def order(s: Scenario, remaining: str, **fields: Any) -> None:
    s.send("order", **{"account": "A", "order_id": "o1", "instrument": "BTC-USD", "side": "buy",
                       "remaining": remaining, "price": "9000", **fields})


def test_an_open_order_reserves_its_margin_until_it_is_gone() -> None:
    """Contracts 1: `order`: the open order as it now stands; its margin is reserved where the rulebook says so."""
    s = reserving()

    order(s, "2")
    assert [OrderReserved] == s.kinds
    assert D(360) == s.margin("A").initial_margin
    assert D(0) == s.margin("A").maintenance_margin
    assert "refused" == s.withdraw("A", "USD", "640.01").kind
    order(s, "1")
    assert D(180) == s.margin("A").initial_margin
    order(s, "0")
    assert (D(0), {}) == (s.margin("A").initial_margin, s.state("A").orders)


@pytest.mark.parametrize(("orders", "expected"), [
    pytest.param([("o1", "buy", "1", False), ("o2", "sell", "3", False)], "540", id="the costlier side counts"),
    pytest.param([("o1", "buy", "1", True)], "0", id="reduce-only orders need none"),
])
def test_of_both_sides_the_one_that_needs_more_is_reserved(orders: list[tuple[str, str, str, bool]],
                                                           expected: str) -> None:
    """Contracts 1: `order`: `reduce_only`."""
    s = reserving()

    for name, side, remaining, reduce_only in orders:
        order(s, remaining, order_id=name, side=side, reduce_only=reduce_only)

    assert D(expected) == s.margin("A").initial_margin


def test_an_order_that_would_close_reserves_only_what_it_opens_beyond() -> None:
    """Contracts 1: `order`."""
    s = reserving()
    s.fill("A", "buy", "2", "10000")
    held = s.margin("A").initial_margin

    order(s, "2", side="sell")
    assert held == s.margin("A").initial_margin
    order(s, "5", side="sell")
    assert D(540) == s.margin("A").initial_margin


def test_without_the_rule_an_open_order_reserves_nothing() -> None:
    """Contracts 1: `order`: where the rulebook says so."""
    s = desk()
    content = rules()
    del content["orders"]
    s.rulebook(content)
    s.account("A")
    order(s, "2")

    assert D(0) == s.margin("A").initial_margin


# --- what the venue says of liquidation orders -------------------------------------------------------------------


def liquidating() -> tuple[Scenario, str]:
    """A is being liquidated; its order is open."""
    s = desk()
    long_account(s, "A", "11000")
    s.price("BTC-USD", "8950")
    return s, s.told(LiquidationOrderPlaced).order_id


@pytest.mark.parametrize("result", ["expired", "cancelled", "rejected"])
def test_an_order_that_the_venue_gave_back_is_closed_and_quoted_again(result: str) -> None:
    """Semantics 4: expiry cancels and, still below the stop line, quotes again."""
    s, first = liquidating()

    s.send("liquidation-result", account="A", liquidation_order_id=first, result=result)

    assert [LiquidationResultRecorded, LiquidationOrderPlaced] == s.kinds
    assert s.told(LiquidationResultRecorded).order_open
    assert {s.told(LiquidationOrderPlaced).order_id} == set(s.house.open_orders)
    s.fill("A", "sell", "10", "8950", liquidation_order_id=first)
    assert "order-closed" in s.told(FillPosted).flags


def test_an_order_said_to_be_filled_waits_for_its_fills() -> None:
    """Contracts 1: `liquidation-result`; Semantics 4: order states: open, part-filled, filled."""
    s, first = liquidating()

    s.send("liquidation-result", account="A", liquidation_order_id=first, result="filled")
    assert [LiquidationResultRecorded] == s.kinds
    s.fill("A", "sell", "10", "8950", liquidation_order_id=first)

    assert [] == s.told(FillPosted).flags
    assert {} == s.state("A").positions


def test_a_result_of_an_order_that_is_closed_is_recorded_and_changes_nothing() -> None:
    """Semantics 4: facts are never refused."""
    s, _ = liquidating()

    outcome = s.send("liquidation-result", account="A", liquidation_order_id="order-1", result="cancelled")

    assert ("applied", False) == (outcome.kind, s.told(LiquidationResultRecorded).order_open)
