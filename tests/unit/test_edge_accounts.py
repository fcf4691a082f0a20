"""Accounts at the edge of the rules (issue 2): without positions, exactly at a level, turned through zero, crowded."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from infra.shard import Outcome
from ledger.events import (
    AccountOpened,
    AccountSettingsChanged,
    AssetListed,
    ClockMoved,
    CollateralConverted,
    Deposited,
    Event,
    FillPosted,
    FundDrawn,
    FundMoved,
    FundMovementRefused,
    LiquidationCompleted,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginWarned,
    PriceRecorded,
    RecordRejected,
    RulebookPublished,
    ShortfallClaimed,
    ShortfallCovered,
    WarningEnded,
    WithdrawalRefused,
    Withdrawn,
)
from tests.unit.ledger_scenario import Scenario, desk, long_account, rules, time_of


def collateral_desk() -> Scenario:
    """A desk that also holds BTC as collateral, at 10,000 and cut by 5 %."""
    s = desk()
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    return s


def owing(s: Scenario, debt: str, bitcoin: str) -> None:
    """Account A without positions, which owes USD against BTC: the debt is the closing fee of a round trip."""
    s.account("A")
    s.deposit("A", "BTC", bitcoin)
    s.fill("A", "buy", "0.001", "10000")
    s.fill("A", "sell", "0.001", "10000", fee=debt)


# --- no positions ------------------------------------------------------------------------------------------------


def test_an_account_without_positions_and_with_nothing_is_healthy_whatever_the_market_does() -> None:
    """Semantics 3: margin ratio: null when there is no maintenance margin; nothing is decided on it."""
    s = desk()
    s.account("A")
    assert [AccountOpened] == s.kinds

    s.price("BTC-USD", "7500")
    assert [PriceRecorded] == s.kinds
    s.withdraw("A", "USD", "0.01")

    assert ("healthy", None) == (s.status("A"), s.margin("A").ratio)
    assert [WithdrawalRefused] == s.kinds
    assert (Decimal(0), Decimal(0)) == (
        s.told(WithdrawalRefused).withdrawable, s.told(WithdrawalRefused).evidence.margin_equity)


def test_an_account_without_positions_and_with_cash_may_take_all_of_it() -> None:
    """Semantics 3: withdrawable = the lesser of the positive balance and what keeps margin_equity >= initial margin."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "100.01")

    s.withdraw("A", "USD", "100.02")
    assert Decimal("100.01") == s.told(WithdrawalRefused).withdrawable
    s.withdraw("A", "USD", "100.01")

    assert ([Withdrawn], Decimal(0)) == (s.kinds, s.told(Withdrawn).balance)
    assert "healthy" == s.status("A")


def test_an_account_without_positions_that_owes_and_has_nothing_goes_to_the_waterfall_at_once() -> None:
    """Semantics 2, 4: no maintenance margin and negative equity; when no position is left and a balance is negative."""
    s = desk()
    s.fund("4")
    long_account(s, "A", "1000", size="1")

    # Closed at 8,990: a loss of 1,010.
    s.fill("A", "sell", "1", "8990")

    assert [FillPosted, LiquidationStarted, ShortfallClaimed, FundDrawn, ShortfallCovered, LiquidationCompleted] == (
        s.kinds)
    assert ("negative-equity", Decimal(10)) == (s.told(LiquidationStarted).reason, s.told(ShortfallClaimed).amount)
    assert (Decimal(4), Decimal(6)) == (s.told(ShortfallCovered).covered, s.told(ShortfallCovered).uncovered)
    assert (Decimal(0), "healthy") == (s.balance("A"), s.status("A"))


def test_a_debt_that_collateral_covers_is_left_alone() -> None:
    """Semantics 3: margin_equity decides; a debt within haircut collateral is no danger."""
    s = collateral_desk()

    owing(s, "9499.99", "1")

    # 9,500 after the haircut: a cent above the debt.
    assert [FillPosted] == s.kinds
    assert (Decimal("0.01"), "healthy") == (s.margin("A").margin_equity, s.status("A"))


def test_a_debt_at_exactly_the_value_of_the_collateral_is_left_alone() -> None:
    """Semantics 4: `below`: an equity of exactly zero without maintenance margin is not below."""
    s = collateral_desk()

    owing(s, "9500", "1")

    assert [FillPosted] == s.kinds
    assert (Decimal(0), "healthy") == (s.margin("A").margin_equity, s.status("A"))


def test_a_debt_beyond_haircut_collateral_is_converted_and_nothing_is_claimed() -> None:
    """Semantics 3, 4: margin_equity decides liquidation, account_equity decides loss."""
    s = collateral_desk()
    owing(s, "9400", "1")

    # 9,800 x 0.95 = 9,310 is below the debt, 9,800 is not; 9,400 / (9,800 x 0.995) = 0.9640036919...
    s.price("BTC-USD", "9800")

    assert [PriceRecorded, LiquidationStarted, CollateralConverted, LiquidationCompleted] == s.kinds
    assert (Decimal("0.9640037"), Decimal(9400)) == (
        s.told(CollateralConverted).sold_amount, s.told(CollateralConverted).bought_amount)
    assert (Decimal(0), Decimal("0.0359963"), "closed") == (
        s.balance("A"), s.balance("A", "BTC"), s.told(LiquidationCompleted).outcome)


def test_a_debt_beyond_its_collateral_is_called_while_the_collaterals_mark_is_stale() -> None:
    """Semantics 3, 4: no liquidation starts on a stale mark; without maintenance margin the ratio is null."""
    s = collateral_desk()
    owing(s, "9400", "1")
    s.clock("10:20:00")

    # Another 200 of fee: 9,600 against 9,500.
    s.fill("A", "buy", "0.001", "10000")
    s.fill("A", "sell", "0.001", "10000", fee="200")

    assert [FillPosted, MarginCallIssued] == s.kinds
    call = s.told(MarginCallIssued)
    assert (None, Decimal(100)) == (call.evidence.margin_ratio, call.call_amount)
    s.deposit("A", "USD", "100")
    assert [Deposited, MarginCallMet, WarningEnded] == s.kinds


def test_a_deposit_into_an_account_that_was_brought_to_zero_is_its_own() -> None:
    """Semantics 4: the account ends at zero (`recourse: limited`)."""
    s = desk()
    long_account(s, "A", "1000", size="1")
    s.fill("A", "sell", "1", "8990")

    s.deposit("A", "USD", "5")
    s.withdraw("A", "USD", "5")

    assert [Withdrawn] == s.kinds


# --- exactly at a level ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("equity", "at", "below"), [
    # 10 BTC at 9,000 want 900.
    pytest.param("1350", [], [MarginWarned], id="warning, 1.5"),
    pytest.param("1125", [MarginWarned], [MarginCallIssued], id="call, 1.25"),
    pytest.param("900", [MarginCallIssued], [LiquidationStarted, LiquidationOrderPlaced], id="liquidation, 1"),
])
@pytest.mark.parametrize("how", ["a mark", "a fee", "funding"])
def test_equity_exactly_at_a_level_is_above_it_however_it_got_there(how: str, equity: str, at: list[type[Event]],
                                                                    below: list[type[Event]]) -> None:
    """Semantics 4: each line is crossed below it; a cent decides, whatever moved it."""
    for less, decisions in (("0", at), ("0.01", below)):
        s = desk()
        left = Decimal(equity) - Decimal(less)
        s.account("A")
        if how == "a mark":
            s.deposit("A", "USD", f"{10000 + left}")
            s.fill("A", "buy", "10", "10000")
            s.price("BTC-USD", "9000")
        elif how == "a fee":
            s.price("BTC-USD", "9000")
            s.deposit("A", "USD", f"{left + 50}")
            s.fill("A", "buy", "10", "9000", fee="50")
        else:
            s.price("BTC-USD", "9000")
            s.deposit("A", "USD", f"{left + 900}")
            s.fill("A", "buy", "10", "9000")
            # 10 x 0.01 x 9,000.
            s.funding("BTC-USD", "0.01")
        came = [kind for kind in s.kinds if kind in (
            MarginWarned, MarginCallIssued, LiquidationStarted, LiquidationOrderPlaced)]
        assert decisions == came, less


@pytest.mark.parametrize(("deposit", "flags"), [
    pytest.param("2000", [], id="at initial margin"),
    pytest.param("1999.99", ["initial-margin-breached"], id="a cent below"),
])
def test_equity_exactly_at_initial_margin_is_enough(deposit: str, flags: list[str]) -> None:
    """Semantics 3, 4: margin_equity >= initial margin; below it a fill is flagged."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", deposit)

    s.fill("A", "buy", "10", "10000")

    assert flags == s.told(FillPosted).flags
    s.withdraw("A", "USD", "0.01")
    assert Decimal(0) == s.told(WithdrawalRefused).withdrawable


# --- through zero ------------------------------------------------------------------------------------------------


def test_a_position_turned_through_zero_is_margined_as_what_it_became() -> None:
    """Semantics 3: a flip is a close and an open."""
    s = desk()
    long_account(s, "A", "5000")

    # Closing 10 at 10,050 brings 500; 20 are opened short at 10,050.
    s.fill("A", "sell", "30", "10050")

    event = s.told(FillPosted)
    assert (Decimal(10), Decimal(500), Decimal(-20), Decimal(-201000)) == (
        event.closed_size, event.realised_pnl, event.position_size, event.position_cost)
    assert {"net"} == {key[2] for key in s.state("A").positions}
    # Marked at 10,000 the short has won 1,000: 6,500 on 2,000.
    assert (Decimal(6500), Decimal(2000)) == (s.margin("A").margin_equity, s.margin("A").maintenance_margin)
    # The market's rise is now its loss: at 10,250 it stands at 5,500 - 4,000 = 1,500 on 2,050.
    s.price("BTC-USD", "10250")
    assert [PriceRecorded, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    assert "buy" == s.told(LiquidationOrderPlaced).side


def test_a_position_closed_to_exactly_zero_is_no_position() -> None:
    """Semantics 3: at full close the remainder goes to `house:rounding`, and nothing of the position is left."""
    s = desk()
    long_account(s, "A", "5000", size="0.003")

    for _ in range(3):
        s.fill("A", "sell", "0.001", "10000.004")

    assert not s.state("A").positions
    assert (None, "healthy") == (s.margin("A").ratio, s.status("A"))
    # 0.000012 of profit, none of it a cent.
    assert (Decimal(5000), Decimal("0.000012")) == (s.balance("A"), s.held_by("house:rounding"))


def test_a_position_turned_twice_by_one_size_each_is_where_it_was() -> None:
    """Semantics 3, 5: a flip is a close and an open; sizes sum to zero."""
    s = desk()
    long_account(s, "A", "50000")

    s.fill("A", "sell", "20", "10000")
    s.fill("A", "buy", "20", "10000")

    assert (Decimal(10), Decimal(100000)) == (s.told(FillPosted).position_size, s.told(FillPosted).position_cost)
    assert (Decimal(50000), Decimal(-10)) == (s.balance("A"), s.house.house.sizes["BTC-USD"])


# --- crowded -----------------------------------------------------------------------------------------------------


def crowded() -> Scenario:
    """One account with four positions on BTC-USD: long and short, each cross and isolated."""
    s = desk()
    s.account("A", position_mode="hedge")
    s.deposit("A", "USD", "20000")
    for mode, side, size in (("cross", "long", "20"), ("cross", "short", "5"),
                             ("isolated", "long", "10"), ("isolated", "short", "10")):
        s.fill("A", "buy" if side == "long" else "sell", size, "10000", margin_mode=mode, position_side=side)
    return s


def test_many_positions_in_one_market_are_margined_each_in_its_pool() -> None:
    """Semantics 3: a position is keyed by (instrument, margin mode, position side); pools: cross, and one per isolated
    position."""
    s = crowded()
    s.price("BTC-USD", "9990")

    # Cross: 20,000 - 2 x 2,000, 20 x -10 and 5 x 10, on 25 x 9,990 at 1 %. Isolated: 2,000 -/+ 100 on 999.
    figures = {pool: (s.margin("A", pool).margin_equity, s.margin("A", pool).maintenance_margin)
               for pool in s.state("A").pools()}
    assert {"cross": (Decimal(15850), Decimal("2497.5")),
            "isolated:BTC-USD:long": (Decimal(1900), Decimal(999)),
            "isolated:BTC-USD:short": (Decimal(2100), Decimal(999))} == figures


def test_one_mark_may_liquidate_some_positions_of_a_market_and_leave_the_others() -> None:
    """Semantics 3, 4: a pool never pays for another, and each is decided on by itself."""
    s = crowded()

    # The isolated long: 2,000 - 1,500 = 500 on 985. The others win or can afford it.
    s.price("BTC-USD", "9850")

    assert [PriceRecorded, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    placed = s.told(LiquidationOrderPlaced)
    assert ("isolated:BTC-USD:long", "long", "sell", Decimal(10)) == (
        placed.pool, placed.position_side, placed.side, placed.size)
    # The fill of the order finds its own position, although it names none.
    s.fill("A", "sell", "10", f"{placed.limit_price:f}", liquidation_order_id=placed.order_id)
    assert ("isolated", "long", Decimal(0)) == (
        s.told(FillPosted).mode, s.told(FillPosted).position, s.told(FillPosted).position_size)
    assert 3 == len(s.state("A").positions)


def test_a_fill_that_does_not_say_which_of_two_positions_takes_the_accounts_mode() -> None:
    """Semantics 3: position keys; contracts 1: the account's margin mode is the default."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "20000")
    s.fill("A", "buy", "1", "10000", margin_mode="isolated")
    # The only position there is takes it, then there are two and the account's mode decides.
    s.fill("A", "buy", "1", "10000")
    assert "isolated" == s.told(FillPosted).mode
    s.fill("A", "buy", "1", "10000", margin_mode="cross")
    s.fill("A", "buy", "1", "10000")

    assert ("cross", Decimal(2)) == (s.told(FillPosted).mode, s.told(FillPosted).position_size)


def test_a_hundred_positions_are_one_pool() -> None:
    """Semantics 3: `cross` is one pool for all positions but isolated ones."""
    s = desk()
    names = [f"N{number:02}-USD" for number in range(100)]
    for name in names:
        s.instrument(name)
    s.account("A")
    s.deposit("A", "USD", "100000")
    for number, name in enumerate(names):
        s.fill("A", "buy" if number % 2 else "sell", "1", "100", instrument=name)

    # Default row: 2 % of 100 each.
    assert (Decimal(200), Decimal(100000)) == (s.margin("A").maintenance_margin, s.margin("A").margin_equity)
    assert 100 == len(s.margin("A").positions)


@pytest.mark.parametrize(("fields", "reason"), [
    pytest.param({"side": "buy"}, "wrong-side", id="no side given"),
    pytest.param({"side": "buy", "position_side": "net"}, "wrong-side", id="net"),
])
def test_in_hedge_mode_a_fill_names_its_side(fields: dict[str, Any], reason: str) -> None:
    """Semantics 3: position side: `long` / `short` in hedge mode, which hold what they say."""
    s = crowded()
    before = s.stands()

    outcome = s.fill("A", **{"size": "1", "price": "10000", "margin_mode": "cross", **fields})

    assert ("rejected", reason, [RecordRejected]) == (outcome.kind, outcome.reason, s.kinds)
    assert before == s.stands()


@pytest.mark.parametrize(("side", "size", "position_side", "left"), [
    pytest.param("sell", "20.001", "long", "-0.001", id="more of a long sold than there is"),
    pytest.param("buy", "5.001", "short", "0.001", id="more of a short bought than there is"),
])
def test_in_hedge_mode_a_fill_beyond_its_leg_is_posted_and_flagged(side: str, size: str, position_side: str,
                                                                   left: str) -> None:
    """Semantics 4: facts are never refused; only malformed records, unknown names and off-lot sizes are rejected."""
    s = crowded()

    outcome = s.fill("A", size=size, price="10000", margin_mode="cross", side=side, position_side=position_side)

    event = s.last(FillPosted)
    assert "applied" == outcome.kind
    assert "leg-exceeded" in event.flags
    assert Decimal(left) == event.position_size


# --- called ------------------------------------------------------------------------------------------------------


def called() -> Scenario:
    """A stands at 1,000 on 900 and is called: 170 are missing."""
    s = desk()
    long_account(s, "A", "11000")
    s.price("BTC-USD", "9000")
    assert MarginCallIssued in s.kinds
    return s


def test_a_deposit_cures_a_call() -> None:
    """Semantics 4: *met* (a record of the account restores the cure level)."""
    s = called()

    s.deposit("A", "USD", "100")
    assert [Deposited] == s.kinds
    s.deposit("A", "USD", "70")

    assert [Deposited, MarginCallMet] == s.kinds
    assert Decimal(1170) == s.told(MarginCallMet).evidence.margin_equity


def test_a_deposit_far_above_the_call_ends_the_warning_too() -> None:
    """Semantics 4: a warned state ends only above the warning line plus its hysteresis."""
    s = called()

    s.deposit("A", "USD", "10000")

    assert [Deposited, MarginCallMet, WarningEnded] == s.kinds


def test_a_withdrawal_while_called_is_refused_and_leaves_the_call_open() -> None:
    """Semantics 3: withdrawable: zero while a call or liquidation is open."""
    s = called()

    outcome = s.withdraw("A", "USD", "0.01")

    assert ("refused", "call-open", [WithdrawalRefused]) == (outcome.kind, outcome.reason, s.kinds)
    assert list(s.state("A").calls) == ["cross"]
    # Nor does it keep the call from being met, or from expiring.
    s.price("BTC-USD", "9000", at="11:00:00")
    s.withdraw("A", "USD", "0.01", at="11:00:00")
    assert [MarginCallExpired, LiquidationStarted, LiquidationOrderPlaced, WithdrawalRefused] == s.kinds
    assert "liquidation-open" == s.told(WithdrawalRefused).reason


def test_a_withdrawal_is_let_go_again_once_the_call_is_met() -> None:
    """Semantics 3: zero *while* a call is open."""
    s = called()
    s.deposit("A", "USD", "1000")
    assert [Deposited, MarginCallMet, WarningEnded] == s.kinds

    # 2,000 on an initial margin of 1,800.
    s.withdraw("A", "USD", "200")

    assert [Withdrawn] == s.kinds


# --- opened twice ------------------------------------------------------------------------------------------------


def test_an_account_opened_twice_with_one_id_is_a_duplicate() -> None:
    """Semantics 1: equal = duplicate, a no-op that leaves no event."""
    s = desk()
    s.account("A", id="open")

    outcome = s.account("A", id="open")

    assert ("duplicate", []) == (outcome.kind, s.happened)


def test_an_account_opened_again_with_a_new_id_changes_what_may_change() -> None:
    """Contracts 1: sending `account` again (a new id) updates what may change."""
    s = desk()
    long_account(s, "A", "5000")

    s.account("A", margin_mode="isolated", member="M")

    assert [AccountSettingsChanged] == s.kinds
    state = s.state("A")
    assert ("isolated", "M", Decimal(5000), Decimal(10)) == (
        state.margin_mode, state.member, s.balance("A"), state.positions["BTC-USD", "cross", "net"].size)


@pytest.mark.parametrize(("change", "field"), [
    pytest.param({"position_mode": "hedge"}, "position_mode", id="position mode"),
    pytest.param({"kind": "house"}, "kind", id="kind"),
])
def test_what_positions_rest_on_does_not_change_while_they_are_open(change: dict[str, Any], field: str) -> None:
    """Contracts 1: sending `account` again updates what *may* change."""
    s = desk()
    long_account(s, "A", "5000")

    rejected = s.account("A", **change)
    assert ("rejected", "immutable", field) == (rejected.kind, rejected.reason, s.told(RecordRejected).field)
    s.fill("A", "sell", "10", "10000")
    assert "applied" == s.account("A", **change).kind


def test_an_asset_listed_again_may_change_what_values_it_and_is_judged_by_it_at_once() -> None:
    """Contracts 1: sending `asset` again updates what may change."""
    s = collateral_desk()
    s.account("A")
    s.deposit("A", "BTC", "0.2")
    s.fill("A", "buy", "10", "10000")
    assert Decimal(1900) == s.margin("A").margin_equity

    # Without a pricing instrument the collateral counts zero.
    s.asset("BTC", quantum="0.00000001")

    assert [AssetListed, LiquidationStarted, LiquidationOrderPlaced] == s.kinds


def test_a_fund_pays_out_to_the_last_cent_and_not_beyond() -> None:
    """Contracts 1: `fund-movement`; issue 2: every refusal is recorded with its reason."""
    s = desk()
    s.fund("100")

    refused = s.fund("100.01", kind="withdrawal")
    assert ("refused", "beyond-fund", Decimal(100)) == (
        refused.kind, refused.reason, s.told(FundMovementRefused).available)
    s.fund("100", kind="withdrawal")

    assert ([FundMoved], Decimal(100), Decimal(0)) == (s.kinds, s.told(FundMoved).before, s.told(FundMoved).after)


# --- rulebooks ---------------------------------------------------------------------------------------------------


def three_accounts() -> Scenario:
    """A, B and C hold 10 BTC each with 4,000, 3,000 and 5,000 on 1,000, and a stricter rulebook comes at 10:30."""
    s = desk()
    for account, deposit in (("A", "4000"), ("B", "3000"), ("C", "5000")):
        long_account(s, account, deposit)
    s.account("bystander")
    s.rulebook(rules(thresholds={"warning": "6", "call": "4.5", "cure": "5", "stop": "5", "liquidation": "1"}),
               effective="2026-01-05T10:30:00Z")
    assert [RulebookPublished] == s.kinds
    return s


@pytest.mark.parametrize("told", [
    pytest.param(lambda s: s.clock("10:30:00"), id="a clock"),
    pytest.param(lambda s: s.deposit("bystander", "USD", "1", at="10:31:00"), id="a deposit of somebody else"),
    pytest.param(lambda s: s.fund("1", at="12:00:00"), id="a movement of a fund"),
])
def test_a_rulebook_with_a_later_effective_time_re_judges_everybody_then(told: Callable[[Scenario], Outcome]) -> None:
    """Semantics 2: rulebook content by effective time; issue 2: everybody is judged anew when it comes into force."""
    s = three_accounts()
    s.clock("10:29:59.999999999")
    assert [ClockMoved] == s.kinds

    told(s)

    # Worst ratio first: 3 and 4 are called below 4.5, 5 is warned below 6.
    decided = [(type(event), event.account) for event in s.happened[1:]
               if isinstance(event, (MarginCallIssued, MarginWarned))]
    assert [(MarginCallIssued, "B"), (MarginCallIssued, "A"), (MarginWarned, "C")] == decided
    assert 4 == len(s.happened)
    assert {"desk"} == {event.evidence.rulebook.name for event in s.events(MarginCallIssued)}
    # Cured at 5: B lacks 2,000.
    assert [Decimal(2000), Decimal(1000)] == [event.call_amount for event in s.events(MarginCallIssued)]


def test_a_price_alone_does_not_bring_a_rulebook_into_force() -> None:
    """Semantics 2: in force at log time, which a price does not move."""
    s = three_accounts()

    s.price("BTC-USD", "10000", at="11:00:00")

    assert [PriceRecorded] == s.kinds


def test_a_withdrawal_at_the_effective_time_is_judged_by_the_new_rulebook() -> None:
    """Semantics 2: (1) log time moves; (3) the record itself."""
    s = desk()
    long_account(s, "A", "4000")
    brackets = {"variant": "brackets:1", "brackets": [{"floor": "0", "initial": "0.035", "maintenance": "0.01"}]}
    s.rulebook(rules(instruments={"BTC-USD": {"requirement": brackets}}), effective="2026-01-05T10:10:00Z")

    s.withdraw("A", "USD", "4000", at="10:09:59")
    assert Decimal(2000) == s.told(WithdrawalRefused).withdrawable
    s.withdraw("A", "USD", "4000", at="10:10:00")

    assert Decimal(500) == s.told(WithdrawalRefused).withdrawable
    assert "desk" == s.told(WithdrawalRefused).evidence.rulebook.name


def test_an_account_may_be_judged_by_a_rulebook_of_its_own() -> None:
    """Contracts 1: `account`: `rulebook`?"""
    s = desk()
    s.rulebook(rules("strict", thresholds={"warning": "6", "call": "4.5", "cure": "5", "stop": "5"}))
    s.rulebook("house")
    long_account(s, "A", "4000", rulebook="strict")
    assert [FillPosted, MarginCallIssued] == s.kinds
    assert "strict" == s.told(MarginCallIssued).evidence.rulebook.name

    long_account(s, "B", "4000")
    assert [FillPosted] == s.kinds


def test_a_rulebook_for_some_does_not_touch_the_others() -> None:
    """Semantics 6: each decision names its rulebook version."""
    s = desk()
    s.rulebook(rules("strict"))
    s.rulebook("house")
    long_account(s, "A", "4000", rulebook="strict")
    long_account(s, "B", "4000")

    # The next version of it is in force for all until the general one is published after it.
    s.rulebook(rules("strict", 2, thresholds={"warning": "6", "call": "4.5", "cure": "5", "stop": "5"}),
               effective="2026-01-05T10:30:00Z")
    s.tell({**s.record("rulebook", rulebook="house"), "effective": "2026-01-05T10:30:00Z"})
    s.clock("10:30:00")

    assert [("A", "strict", 2)] == [
        (event.account, event.evidence.rulebook.name, event.evidence.rulebook.version)
        for event in s.happened if isinstance(event, MarginCallIssued)]
    assert time_of("10:30:00") == s.told(MarginCallIssued).time
