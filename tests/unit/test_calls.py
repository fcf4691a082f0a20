"""Semantics section 4, rule by rule: the lines, warnings, and what becomes of a margin call.

Unless said otherwise an account holds 10 BTC bought at 10,000. Marked at 9,000 they have lost 10,000 and want a
maintenance margin of 900, so that a deposit of 10,000 + 900 x R gives a margin ratio of R. The house's lines are
warning 1.5 (ends above 1.55), call 1.25, cure 1.3, liquidation 1, stop 1.3.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from infra.shard import Outcome
from ledger.events import (
    ClockMoved,
    Deposited,
    Event,
    FillPosted,
    FundingIndexMoved,
    FundingSettled,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginCallSuperseded,
    MarginCallWithdrawn,
    MarginWarned,
    PriceRecorded,
    ProvisionalMarkSet,
    RulebookPublished,
    WarningEnded,
)
from tests.unit.ledger_scenario import Scenario, desk, long_account, rules, tiers, time_of

WARNED = [MarginWarned]
CALLED = [MarginCallIssued]
LIQUIDATED = [LiquidationStarted, LiquidationOrderPlaced]


def fallen(deposit: str, scenario: Scenario | None = None) -> Scenario:
    """A desk on which account A has fallen to a ratio of (deposit - 10,000) / 900."""
    s = scenario or desk()
    long_account(s, "A", deposit)
    s.price("BTC-USD", "9000")
    return s


def called() -> Scenario:
    """Account A is called at an equity of 1,000 on 900, a ratio of 1.11; 170 are missing to 1.3."""
    s = fallen("11000")
    assert [PriceRecorded, MarginCallIssued] == s.kinds
    return s


def many_assets() -> Scenario:
    """A desk with further collateral: EUR at 1.1, cut by 3 %; BTC, cut by 5 %; NEW, which has no mark."""
    s = desk()
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    s.asset("EUR", priced_by="EUR-USD")
    s.instrument("EUR-USD")
    s.price("EUR-USD", "1.1")
    s.asset("NEW", priced_by="NEW-USD")
    s.instrument("NEW-USD")
    return s


# --- the lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deposit", "decisions"), [
    pytest.param("11350", [], id="at the warning line of 1.5"),
    pytest.param("11349.99", WARNED, id="below the warning line"),
    pytest.param("11125", WARNED, id="at the call line of 1.25"),
    pytest.param("11124.99", CALLED, id="below the call line"),
    pytest.param("10900", CALLED, id="at the liquidation line of 1, where equality is healthy"),
    pytest.param("10899.99", LIQUIDATED, id="below the liquidation line"),
    pytest.param("10000", LIQUIDATED, id="at no equity at all"),
    pytest.param("9999.99", LIQUIDATED, id="below zero"),
])
def test_each_line_is_crossed_below_it_and_not_at_it(deposit: str, decisions: list[type[Event]]) -> None:
    """Semantics 4: status lines per rulebook: warning > call > 1 (liquidation; `below`)."""
    s = fallen(deposit)

    assert [PriceRecorded, *decisions] == s.kinds


@pytest.mark.parametrize(("deposit", "decisions"), [
    pytest.param("10900.01", CALLED, id="above the line of 1"),
    pytest.param("10900", LIQUIDATED, id="at the line"),
])
def test_a_rulebook_may_liquidate_at_the_line(deposit: str, decisions: list[type[Event]]) -> None:
    """Semantics 4: status lines per rulebook: 1 (liquidation; `below` or `at_or_below`)."""
    s = desk()
    s.rulebook(rules(thresholds={"liquidation_when": "at_or_below"}))

    fallen(deposit, s)

    assert [PriceRecorded, *decisions] == s.kinds


def test_a_short_crosses_the_lines_when_the_mark_rises() -> None:
    """Semantics 4: the ratio decides, whichever way the mark went."""
    s = desk()
    s.account("A")
    # Short 10 from 10,000: at 11,000 it has lost 10,000 and wants 1,100, of which 1.25 are 1,375.
    s.deposit("A", "USD", "11375")
    s.fill("A", "sell", "10", "10000")

    s.price("BTC-USD", "11000")
    assert [PriceRecorded, MarginWarned] == s.kinds
    s.price("BTC-USD", "11000.01")
    assert [PriceRecorded, MarginCallIssued] == s.kinds


def test_margin_equity_decides_calls_and_not_account_equity() -> None:
    """Semantics 3, 4: margin_equity decides ratio, calls and liquidation."""
    s = many_assets()
    s.account("A")
    # 0.13 BTC are 1,300 at 10,000 but 1,235 after the haircut, on 1,000.
    s.deposit("A", "BTC", "0.13")

    s.fill("A", "buy", "10", "10000")

    assert [FillPosted, MarginCallIssued] == s.kinds
    evidence = s.told(MarginCallIssued).evidence
    assert (Decimal(1300), Decimal(1235), Decimal("1.235")) == (
        evidence.account_equity, evidence.margin_equity, evidence.margin_ratio)


@pytest.mark.parametrize(("kind", "decisions"), [
    pytest.param("client", CALLED, id="client"),
    pytest.param("liquidity-provider", CALLED, id="liquidity provider"),
    pytest.param("house", [], id="house"),
    pytest.param("external-venue", [], id="external venue"),
])
def test_clients_and_liquidity_providers_are_margined(kind: str, decisions: list[type[Event]]) -> None:
    """Semantics 4: `venue:simulated` (kind `external-venue`, not margined)."""
    s = desk()
    long_account(s, "A", "11000", kind=kind)

    s.price("BTC-USD", "9000")

    assert [PriceRecorded, *decisions] == s.kinds


# --- warnings ----------------------------------------------------------------------------------------------------


def test_a_warned_state_ends_only_above_the_warning_line_plus_its_hysteresis() -> None:
    """Semantics 4: a warned state ends only above the warning line plus its hysteresis."""
    s = fallen("11300")
    assert [PriceRecorded, MarginWarned] == s.kinds

    # 1,300 on 900; the warning line is at 1,350, the end of the warning above 1.55 x 900 = 1,395.
    s.deposit("A", "USD", "60")
    assert [Deposited] == s.kinds
    s.deposit("A", "USD", "35")
    assert [Deposited] == s.kinds
    s.deposit("A", "USD", "0.01")
    assert [Deposited, WarningEnded] == s.kinds
    assert Decimal("1395.01") == s.told(WarningEnded).evidence.margin_equity


def test_a_pool_is_warned_once_until_the_warning_ends() -> None:
    """Semantics 4: a warned state ends only above the warning line plus its hysteresis."""
    s = fallen("11300")

    # Down, between the lines, and down again: nothing is said twice.
    for mark in ("8990", "9006", "8990"):
        s.price("BTC-USD", mark)
        assert [PriceRecorded] == s.kinds
    # 1,300 + 100 on 901 is above 1.55; 1,300 - 100 x 0.4 on 899.6 is below 1.5 again.
    s.price("BTC-USD", "9010")
    assert [PriceRecorded, WarningEnded] == s.kinds
    s.price("BTC-USD", "8996")
    assert [PriceRecorded, MarginWarned] == s.kinds


def test_between_the_warning_line_and_its_hysteresis_nobody_is_newly_warned() -> None:
    """Semantics 4: the hysteresis holds a warning, it does not give one."""
    s = fallen("11360")

    # 1,360 on 900 is 1.511.
    assert [PriceRecorded] == s.kinds


def test_a_warning_names_its_level_and_its_evidence() -> None:
    """Semantics 4: status lines per rulebook; design 2: every decision carries its evidence."""
    s = fallen("11300")

    event = s.told(MarginWarned)
    assert ("A", "cross", Decimal("1.5")) == (event.account, event.pool, event.warning_level)
    assert (Decimal(1300), Decimal(900), Decimal("1.444444444444444444")) == (
        event.evidence.margin_equity, event.evidence.maintenance_margin, event.evidence.margin_ratio)


# --- the call ----------------------------------------------------------------------------------------------------


def test_a_call_says_what_is_wanted_until_when_and_on_what_it_rests() -> None:
    """Semantics 4: call: issued when the ratio falls below the call line (contracts 2: its fields)."""
    s = called()

    call = s.told(MarginCallIssued)
    position = s.log[-1].position
    assert ("A", "cross", f"call-{position}", time_of("11:00:00")) == (
        call.account, call.pool, call.call_id, call.deadline)
    assert ("USD", Decimal(170), {"USD": Decimal(170)}) == (call.call_asset, call.call_amount, call.eligible)
    assert (Decimal("1.25"), Decimal("1.3")) == (call.call_level, call.cure_level)
    evidence = call.evidence
    assert (Decimal(1000), Decimal(1000), Decimal(1800), Decimal(900)) == (
        evidence.account_equity, evidence.margin_equity, evidence.initial_margin, evidence.maintenance_margin)
    assert (Decimal(11000), Decimal(-10000)) == (evidence.balances["USD"], evidence.unrealised_pnl)
    assert (Decimal(9000), position - 1) == (
        evidence.marks["BTC-USD"].price, evidence.marks["BTC-USD"].position)
    assert (position - 1, "price") == (evidence.trigger.position, evidence.trigger.type)
    assert ("house", 1) == (evidence.rulebook.name, evidence.rulebook.version)
    for part in ("Account A", "1.1111", "at least 170 USD", "2026-01-05T11:00:00Z"):
        assert part in call.message


def test_a_pool_has_one_open_call() -> None:
    """Semantics 4: one open call per pool."""
    s = called()

    # Worse, better, worse: 990 and 1,100 and 910 on about 900, all below the cure level.
    for mark in ("8999", "9010", "8991"):
        s.price("BTC-USD", mark)
        assert [PriceRecorded] == s.kinds
    s.deposit("A", "USD", "1")
    assert [Deposited] == s.kinds
    assert 1 == len(s.events(MarginCallIssued))


def test_each_pool_has_its_own_call() -> None:
    """Semantics 4: one open call per pool."""
    s = desk()
    s.account("A")
    # An isolated position with its initial margin of 2,000, and the same in the cross pool.
    s.deposit("A", "USD", "4000")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")
    s.fill("A", "buy", "10", "10000", margin_mode="cross")

    # 1,200 on 992 in each.
    s.price("BTC-USD", "9920")

    assert ["cross", "isolated:BTC-USD:net"] == [
        event.pool for event in s.happened if isinstance(event, MarginCallIssued)]


def test_a_fall_below_the_call_line_calls_without_a_warning_and_leaves_the_pool_warned() -> None:
    """Semantics 4: call: issued when the ratio falls below the call line."""
    s = called()

    # Cured at 1.3, but below the end of the warning: no new warning, and its end above 1.55 x 900 = 1,395.
    s.deposit("A", "USD", "170")
    assert [Deposited, MarginCallMet] == s.kinds
    s.deposit("A", "USD", "225")
    assert [Deposited] == s.kinds
    s.deposit("A", "USD", "0.01")
    assert [Deposited, WarningEnded] == s.kinds


# --- call_amount -------------------------------------------------------------------------------------------------

# A at an equity of 1,000 on 900, which wants 170 more: USD as it is; EUR 170 / (1.1 x 0.97) = 159.325...; BTC
# 170 / (9,000 x 0.95) = 0.019883040935...; each rounded up to its quantum.
CURES = {"USD": ("170", "0.01"), "EUR": ("159.33", "0.01"), "BTC": ("0.01988305", "0.00000001")}


@pytest.mark.parametrize("asset", CURES)
def test_depositing_the_call_amount_exactly_cures(asset: str) -> None:
    """Semantics 4: `call_amount` is the smallest amount of the call asset, after haircut, rounded up, that reaches
    the cure level at the call's marks."""
    s = fallen("11000", many_assets())
    amount, _ = CURES[asset]
    assert Decimal(amount) == s.told(MarginCallIssued).eligible[asset]

    s.deposit("A", asset, amount)

    assert [Deposited, MarginCallMet] == s.kinds
    assert s.told(MarginCallMet).evidence.margin_equity >= Decimal(1170)


@pytest.mark.parametrize("asset", CURES)
def test_one_quantum_less_than_the_call_amount_does_not_cure(asset: str) -> None:
    """Semantics 4: `call_amount` is the *smallest* amount that reaches the cure level."""
    s = fallen("11000", many_assets())
    amount, quantum = (Decimal(text) for text in CURES[asset])

    s.deposit("A", asset, f"{amount - quantum:f}")
    assert [Deposited] == s.kinds
    s.deposit("A", asset, f"{quantum:f}")
    assert [Deposited, MarginCallMet] == s.kinds


def test_the_call_amount_is_that_of_the_call_asset_among_the_eligible() -> None:
    """Semantics 4: `call_amount` is of the call asset; contracts 2: `eligible` ({asset: amount that alone cures})."""
    s = fallen("11000", many_assets())

    call = s.told(MarginCallIssued)
    assert ("USD", Decimal(170)) == (call.call_asset, call.call_amount)
    assert {asset: Decimal(amount) for asset, (amount, _) in CURES.items()} == call.eligible


def test_an_asset_without_a_mark_or_cut_whole_is_not_eligible() -> None:
    """Semantics 3, 4: without a mark it counts zero as collateral, so that no amount of it cures."""
    s = many_assets()
    s.rulebook(rules(assets={"EUR": tiers(("100", "0.5"), "1")}))

    fallen("11000", s)

    # EUR is worth at most 50 after haircuts, NEW has no mark.
    assert {"USD", "BTC"} == set(s.told(MarginCallIssued).eligible)


@pytest.mark.parametrize(("held", "amount"), [
    # 170 are 100 x 0.9 and 80 more at 0.5, so 160: 260 gross at 9,000.
    pytest.param("0", "0.02888889", id="from nothing, across the tier"),
    # 0.02 BTC are 180 gross, 90 + 40 = 130 after haircuts, all of them in the upper tier from here: 340 gross.
    pytest.param("0.02", "0.03777778", id="from within the upper tier"),
])
def test_the_call_amount_counts_haircut_tiers_from_the_balance_that_is_there(held: str, amount: str) -> None:
    """Semantics 4: the smallest amount, after haircut, that reaches the cure level."""
    s = many_assets()
    s.rulebook(rules(assets={"BTC": tiers(("100", "0.1"), "0.5")}, calls={"asset": "BTC"}))
    s.account("A")
    equity = Decimal(11000)
    if Decimal(held):
        s.deposit("A", "BTC", held)
        equity -= 130
    s.deposit("A", "USD", str(equity))
    s.fill("A", "buy", "10", "10000")
    s.price("BTC-USD", "9000")
    call = s.told(MarginCallIssued)
    assert (Decimal(1000), "BTC", Decimal(amount)) == (call.evidence.margin_equity, call.call_asset, call.call_amount)

    s.deposit("A", "BTC", f"{Decimal(amount) - Decimal('0.00000001'):f}")
    assert [Deposited] == s.kinds
    s.deposit("A", "BTC", "0.00000001")
    assert [Deposited, MarginCallMet] == s.kinds


@pytest.mark.parametrize(("owed", "deposit", "amount"), [
    # 50 EUR are 55 USD and lift by as much; the other 115 take 115 / (1.1 x 0.97) = 107.779...
    pytest.param("50", "11055", "157.78", id="a debt that is paid back whole"),
    # Of 1,000 EUR owed 170 / 1.1 = 154.545... are paid back.
    pytest.param("1000", "12100", "154.55", id="a debt that remains"),
])
def test_the_call_amount_pays_a_debt_of_its_asset_first_which_is_not_cut(owed: str, deposit: str,
                                                                        amount: str) -> None:
    """Semantics 3, 4: liabilities are never haircut; what pays them back is not either."""
    s = many_assets()
    s.account("A")
    s.deposit("A", "USD", deposit)
    # The fee is owed, so that the equity is 1,000 at 9,000 again.
    s.fill("A", "buy", "10", "10000", fee=owed, fee_asset="EUR")
    s.price("BTC-USD", "9000")

    assert Decimal(amount) == s.told(MarginCallIssued).eligible["EUR"]
    s.deposit("A", "EUR", f"{Decimal(amount) - Decimal('0.01')}")
    assert [Deposited] == s.kinds
    s.deposit("A", "EUR", "0.01")
    assert [Deposited, MarginCallMet] == s.kinds


def test_the_call_amount_is_rounded_up_where_the_cure_level_is_awkward() -> None:
    """Semantics 4: rounded up."""
    s = desk()
    # 1.237 BTC at 9,000.01: 11,133.01237 of notional, 1.3 x 111.3301237 = 144.72916081 wanted. Cost 12,370, a loss
    # of 1,236.98763. Of 1,360 there are 123.01237 left, so 21.71679081 are missing.
    long_account(s, "A", "1360", size="1.237")

    s.price("BTC-USD", "9000.01")

    assert Decimal("21.72") == s.told(MarginCallIssued).call_amount
    s.deposit("A", "USD", "21.71")
    assert [Deposited] == s.kinds
    s.deposit("A", "USD", "0.01")
    assert [Deposited, MarginCallMet] == s.kinds


def test_accrued_funding_counts_in_the_call_amount_and_its_settling_does_not_change_it() -> None:
    """Semantics 3, 4: accrual counts in equity; settling it changes none."""
    s = desk()
    long_account(s, "A", "11070")
    # 10 x 0.0000771 x 10,000 = 7.71 are owed when the call comes, so that 11,070 leave 1,062.29.
    s.funding("BTC-USD", "0.0000771")

    s.price("BTC-USD", "9000")
    assert [PriceRecorded, FundingSettled, MarginCallIssued] == s.kinds
    assert Decimal("107.71") == s.told(MarginCallIssued).call_amount

    s.deposit("A", "USD", "107.71")
    assert [Deposited, MarginCallMet] == s.kinds


def test_an_isolated_pool_is_called_in_its_settlement_asset() -> None:
    """Semantics 3, 4: each pool is called by itself, and only what it can hold cures it."""
    s = many_assets()
    s.account("A")
    s.deposit("A", "USD", "50000")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")

    # 2,000 - 800 = 1,200 on 992, which wants 1,289.6.
    s.price("BTC-USD", "9920")
    call = s.told(MarginCallIssued)
    assert ("USD", {"USD": Decimal("89.6")}) == (call.call_asset, call.eligible)

    # The cross pool never pays for it.
    s.deposit("A", "USD", "1000")
    assert [Deposited] == s.kinds


def test_an_isolated_pool_that_settles_in_another_asset_is_called_in_that() -> None:
    """Semantics 3, 4: `call_amount` is of an asset that the pool can hold."""
    s = many_assets()
    s.instrument("SOL-BTC")
    s.price("SOL-BTC", "0.01")
    s.account("A")
    s.deposit("A", "BTC", "2")
    # 1 BTC of notional: 4 % and 2 % of the default row, so 0.04 BTC of margin.
    s.fill("A", "buy", "100", "0.01", instrument="SOL-BTC", margin_mode="isolated")

    # 0.04 are 0.038 after the haircut, less 0.015 is 0.023 on 0.0197, a ratio of 1.17; 0.02561 are wanted, so
    # 0.00261 / 0.95 = 0.002747368...
    s.price("SOL-BTC", "0.00985")

    call = s.told(MarginCallIssued)
    assert ("isolated:SOL-BTC:net", "BTC", Decimal("0.00274737")) == (call.pool, call.call_asset, call.call_amount)
    assert {"BTC": Decimal("0.00274737")} == call.eligible


# --- how it ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("told", "ended"), [
    pytest.param(lambda s: s.deposit("A", "USD", "170"), MarginCallMet, id="a deposit: met"),
    # Selling 3 at 9,000 leaves 1,000 on 630.
    pytest.param(lambda s: s.fill("A", "sell", "3", "9000"), MarginCallMet, id="a fill of its own: met"),
    # 1,200 on 902.
    pytest.param(lambda s: s.price("BTC-USD", "9020"), MarginCallWithdrawn, id="a mark: withdrawn"),
    # Longs receive 10 x 0.003 x 9,000 = 270.
    pytest.param(lambda s: s.funding("BTC-USD", "-0.003"), MarginCallWithdrawn, id="funding: withdrawn"),
])
def test_a_call_is_met_by_a_record_of_the_account_and_withdrawn_by_a_mark(told: Callable[[Scenario], Outcome],
                                                                         ended: type[Event]) -> None:
    """Semantics 4: it ends: *met* (a record of the account restores the cure level), *withdrawn* (a mark does)."""
    s = called()
    call = s.told(MarginCallIssued)

    told(s)

    ends = (MarginCallMet, MarginCallWithdrawn, MarginCallExpired, MarginCallSuperseded)
    found = [event for event in s.happened if isinstance(event, ends)]
    assert [(ended, call.call_id)] == [(type(event), event.call_id) for event in found]
    assert not s.state("A").calls


def test_a_record_of_another_account_meets_no_call() -> None:
    """Semantics 4: met: a record of *the account* restores the cure level."""
    s = called()
    s.account("B")

    s.deposit("B", "USD", "100000")

    assert [Deposited] == s.kinds
    assert s.state("A").calls


def test_a_mark_that_another_accounts_fill_sets_withdraws_a_call() -> None:
    """Semantics 3, 4: a fill before any mark values its instrument; *withdrawn* (a mark does), since it is no record
    of the account."""
    s = many_assets()
    s.account("A")
    s.deposit("A", "NEW", "100")
    s.deposit("A", "USD", "11000")
    s.fill("A", "buy", "10", "10000")
    s.price("BTC-USD", "9000")
    assert [PriceRecorded, MarginCallIssued] == s.kinds
    s.account("B")
    s.deposit("B", "USD", "1000")

    # 100 NEW at 5 are 500, and 400 after the haircut of the default row.
    s.fill("B", "buy", "1", "5", instrument="NEW-USD")

    assert [ProvisionalMarkSet, FillPosted, MarginCallWithdrawn, WarningEnded] == s.kinds


@pytest.mark.parametrize(("amount", "decisions"), [
    pytest.param("169.99", [], id="below the cure level"),
    pytest.param("170", [MarginCallMet], id="at the cure level"),
])
def test_the_cure_level_is_reached_at_equality(amount: str, decisions: list[type[Event]]) -> None:
    """Semantics 4: the amount that *reaches* the cure level."""
    s = called()

    s.deposit("A", "USD", amount)

    assert [Deposited, *decisions] == s.kinds


def test_a_rulebook_publication_that_cures_withdraws() -> None:
    """Semantics 4: not a record of the account, so the call is withdrawn."""
    s = called()
    brackets = {"variant": "brackets:1", "brackets": [{"floor": "0", "initial": "0.01", "maintenance": "0.005"}]}

    # Half the maintenance margin: 1,000 on 450.
    s.rulebook(rules(instruments={"BTC-USD": {"requirement": brackets}}))

    assert [RulebookPublished, MarginCallWithdrawn, WarningEnded] == s.kinds


def test_a_call_expires_at_its_deadline_and_liquidation_starts_even_above_1() -> None:
    """Semantics 4: *expired* (deadline passed: liquidation starts up to the stop line even above 1)."""
    s = called()
    call = s.told(MarginCallIssued)
    # 1,010 on 900.1.
    s.price("BTC-USD", "9001", at="11:00:00")

    s.clock("11:00:00")

    assert [MarginCallExpired, LiquidationStarted, LiquidationOrderPlaced, ClockMoved] == s.kinds
    assert call.call_id == s.told(MarginCallExpired).call_id
    started = s.told(LiquidationStarted)
    assert ("call-expired", Decimal("1.3")) == (started.reason, started.stop_level)
    assert s.told(MarginCallExpired).evidence.margin_equity > s.told(MarginCallExpired).evidence.maintenance_margin
    assert (call_position(call.call_id), "deadline") == (
        started.evidence.trigger.position, started.evidence.trigger.type)


def test_funding_is_settled_before_a_call_expires() -> None:
    """Semantics 3: accrual is settled on the account's next event, a deadline's own included."""
    s = called()
    # 10 x 0.001 x 9,000 = 90 are owed, which leaves 910 on 900.
    s.funding("BTC-USD", "0.001")
    assert [FundingIndexMoved] == s.kinds
    s.price("BTC-USD", "9000", at="11:00:00")

    s.clock("11:00:00")

    assert [FundingSettled, MarginCallExpired, LiquidationStarted, LiquidationOrderPlaced, ClockMoved] == s.kinds
    assert Decimal(10910) == s.told(MarginCallExpired).evidence.balances["USD"]


def call_position(call_id: str) -> int:
    """The log position that a call is named after."""
    return int(call_id.removeprefix("call-"))


def test_a_call_is_superseded_below_the_liquidation_line() -> None:
    """Semantics 4: *superseded* (ratio below the liquidation line: liquidation at once)."""
    s = called()
    call = s.told(MarginCallIssued)

    # 890 on 898.9.
    s.price("BTC-USD", "8989")

    assert [PriceRecorded, MarginCallSuperseded, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    assert call.call_id == s.told(MarginCallSuperseded).call_id
    assert "below-liquidation-line" == s.told(LiquidationStarted).reason


def test_a_superseded_call_does_not_expire() -> None:
    """Semantics 4: a call has one end."""
    s = called()
    s.price("BTC-USD", "8989")

    s.clock("11:30:00")

    assert not s.events(MarginCallExpired)


@pytest.mark.parametrize(("told", "fallen_to"), [
    # Below the call line again, and above 1: 1,120 on 899.5; 7 left at 8,000 - 7,280 = 720 on 627.2; 950 on 899.5.
    pytest.param(lambda s: s.deposit("A", "USD", "170"), "8995", id="met by a deposit"),
    pytest.param(lambda s: s.fill("A", "sell", "3", "9000"), "8960", id="met by a fill"),
    pytest.param(lambda s: s.price("BTC-USD", "9020"), "8995", id="withdrawn by a mark"),
])
def test_nobody_is_liquidated_because_of_a_call_that_was_met(told: Callable[[Scenario], Outcome],
                                                             fallen_to: str) -> None:
    """Semantics 4: Law: nobody is liquidated because of a call that was met."""
    s = called()
    told(s)
    # A minute before the old deadline the account falls and is called anew; the old deadline means nothing to it.
    s.clock("10:59:00")
    s.price("BTC-USD", fallen_to, at="10:59:00")
    assert [PriceRecorded, MarginCallIssued] == s.kinds

    s.clock("11:00:00")
    assert [ClockMoved] == s.kinds
    s.clock("11:58:59")
    assert [ClockMoved] == s.kinds
    assert not s.events(LiquidationStarted)
    assert not s.events(MarginCallExpired)


def test_after_a_call_was_met_a_further_fall_is_a_new_call_with_its_own_deadline() -> None:
    """Semantics 4: call: issued when the ratio falls below the call line; it ends met."""
    s = called()
    first = s.told(MarginCallIssued)
    s.deposit("A", "USD", "170")
    s.clock("10:30:00")

    # 1,170 - 60 on 899.4: 1.234.
    s.price("BTC-USD", "8994", at="10:30:00")

    assert [PriceRecorded, MarginCallIssued] == s.kinds
    second = s.told(MarginCallIssued)
    assert (time_of("11:00:00"), time_of("11:30:00")) == (first.deadline, second.deadline)
    assert first.call_id != second.call_id


def test_the_deadline_is_the_rulebooks_counted_from_log_time() -> None:
    """Semantics 2, 4: deadlines run on log time."""
    s = desk()
    s.rulebook(rules(calls={"deadline_seconds": 90}))
    long_account(s, "A", "11000")

    # The price is ahead of log time, which stands at 10:00.
    s.price("BTC-USD", "9000", at="10:07:00")

    assert time_of("10:01:30") == s.told(MarginCallIssued).deadline


def test_a_call_keeps_the_cure_level_that_it_was_issued_with() -> None:
    """Semantics 4: met = a record restores the cure level, which the call states."""
    s = called()
    s.rulebook(rules(thresholds={"cure": "2", "stop": "2"}))
    assert [RulebookPublished] == s.kinds

    s.deposit("A", "USD", "170")

    assert [Deposited, MarginCallMet] == s.kinds


def test_the_end_of_a_call_carries_the_state_that_ended_it() -> None:
    """Contracts 2: met, withdrawn, expired and superseded carry `call_id` and the state that ended it."""
    s = called()
    s.deposit("A", "USD", "300", at="10:05:00")

    met = s.told(MarginCallMet)
    assert (Decimal(1300), Decimal(900), Decimal("1.444444444444444444")) == (
        met.evidence.margin_equity, met.evidence.maintenance_margin, met.evidence.margin_ratio)
    assert (Decimal(11300), time_of("10:05:00")) == (met.evidence.balances["USD"], met.time)


def test_funding_is_settled_before_a_call_ends() -> None:
    """Semantics 3: accrual is settled on the account's next event."""
    s = called()

    # Funding of 270 to the account restores the cure level, and is settled with the event that says so.
    s.funding("BTC-USD", "-0.003")

    assert [FundingIndexMoved, FundingSettled, MarginCallWithdrawn] == s.kinds[:3]


def test_a_flip_may_meet_a_call() -> None:
    """Semantics 3, 4: a flip is a close and an open, and a record of the account."""
    s = called()

    # Closing 10 and opening 2 short at the mark leaves 1,000 on 180.
    s.fill("A", "sell", "12", "9000")

    assert [FillPosted, MarginCallMet, WarningEnded] == s.kinds
    assert Decimal(-2) == s.told(FillPosted).position_size


def test_an_account_is_called_by_the_fill_that_opens_too_much() -> None:
    """Semantics 4: facts are never refused for margin; the call comes with the fill."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "1200")

    s.fill("A", "buy", "10", "10000")

    assert [FillPosted, MarginCallIssued] == s.kinds
    assert ["initial-margin-breached"] == s.told(FillPosted).flags
    assert "fill" == s.told(MarginCallIssued).evidence.trigger.type


def told_twice(records: list[dict[str, Any]]) -> list[str]:
    """The whole log that records leave, as text."""
    s = Scenario()
    s.tell_batch(records)
    return [f"{recorded.position} {recorded.originator_id} {recorded.event.model_dump_json()}" for recorded in s.log]


def test_a_call_depends_on_the_records_alone() -> None:
    """Semantics 6: the same records in the same order give the same events."""
    writing = Scenario()
    records = [
        writing.record("asset", id="1", asset="USD", quantum="0.01"),
        writing.record("instrument", id="2", instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
                       tick_size="0.01", lot_size="0.001"),
        writing.record("account", id="3", account="A", margin_mode="cross"),
        writing.record("deposit", id="4", account="A", asset="USD", amount="11000"),
        writing.record("fill", id="5", account="A", trade_id="t", instrument="BTC-USD", side="buy", size="10",
                       price="10000"),
        writing.record("price", id="6", instrument="BTC-USD", price="9000", source="feed")]

    once = told_twice(records)
    assert told_twice(records) == once
    assert any("call-" in line for line in once)
