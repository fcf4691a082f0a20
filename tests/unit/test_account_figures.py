"""Semantics section 3, rule by rule: positions, valuation, both equities, what may leave, funding, isolated margin."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ledger.events import (
    Deposited,
    FillPosted,
    FundDrawn,
    FundingIndexMoved,
    FundingSettled,
    LiquidationCompleted,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallIssued,
    MarginWarned,
    PriceRecorded,
    ProvisionalMarkSet,
    ShortfallClaimed,
    ShortfallCovered,
    WithdrawalRefused,
    Withdrawn,
)
from tests.unit.ledger_scenario import Scenario, desk, long_account, rules, tiers

ISOLATED = "isolated:BTC-USD:net"


def mixed_desk() -> Scenario:
    """A desk that also holds BTC as collateral, valued by BTC-USD at 10,000, and EUR, by EUR-USD at 1.1."""
    s = desk()
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    s.asset("EUR", priced_by="EUR-USD")
    s.instrument("EUR-USD")
    s.price("EUR-USD", "1.1")
    return s


def funded(deposit: str = "100000", scenario: Scenario | None = None, **fields: Any) -> Scenario:
    """A desk and one account with USD."""
    s = scenario or desk()
    s.account("A", **fields)
    s.deposit("A", "USD", deposit)
    return s


# --- pools and positions -----------------------------------------------------------------------------------------


def test_a_position_is_keyed_by_instrument_margin_mode_and_side() -> None:
    """Semantics 3: a position is keyed by (instrument, margin mode, position side)."""
    s = funded()
    s.instrument("ETH-USD")
    s.fill("A", "buy", "1", "10000", margin_mode="cross")
    s.fill("A", "sell", "2", "10000", margin_mode="isolated")
    s.fill("A", "buy", "3", "200", instrument="ETH-USD")

    assert {("BTC-USD", "cross", "net"): Decimal(1), ("BTC-USD", "isolated", "net"): Decimal(-2),
            ("ETH-USD", "cross", "net"): Decimal(3)} == {
        key: position.size for key, position in s.state("A").positions.items()}


def test_hedge_mode_holds_a_long_and_a_short_beside_each_other() -> None:
    """Semantics 3: position side: `net`, or `long` / `short` in hedge mode."""
    s = funded(position_mode="hedge")
    s.fill("A", "buy", "3", "10000", position_side="long")
    s.fill("A", "sell", "2", "10000", position_side="short")
    s.fill("A", "sell", "1", "10010", position_side="long")

    assert Decimal(10) == s.told(FillPosted).realised_pnl
    assert {("BTC-USD", "cross", "long"): Decimal(2), ("BTC-USD", "cross", "short"): Decimal(-2)} == {
        key: position.size for key, position in s.state("A").positions.items()}
    # They do not net: 2 x 20,000 of notional at 1 %.
    assert Decimal(400) == s.margin("A").maintenance_margin


def test_pools_are_cross_and_one_per_isolated_position() -> None:
    """Semantics 3: pools: `cross`, and one per isolated position."""
    s = funded(position_mode="hedge")
    s.fill("A", "buy", "1", "10000", position_side="long", margin_mode="isolated")
    s.fill("A", "sell", "1", "10000", position_side="short", margin_mode="isolated")
    s.fill("A", "buy", "1", "10000", position_side="long", margin_mode="cross")

    assert ["cross", "isolated:BTC-USD:long", "isolated:BTC-USD:short"] == s.state("A").pools()
    # Each isolated pool has its initial margin, 2 % of 10,000; the cross pool has the rest and its own position.
    assert [Decimal(99600), Decimal(200), Decimal(200)] == [
        s.margin("A", pool).account_equity for pool in s.state("A").pools()]
    assert [Decimal(100)] * 3 == [s.margin("A", pool).maintenance_margin for pool in s.state("A").pools()]


def test_notional_is_size_times_contract_size_times_price() -> None:
    """Semantics 3: sizes are in contracts; notional = size x contract size x price."""
    s = funded()
    s.instrument("MINI-USD", contract_size="0.1", lot="1")
    s.price("MINI-USD", "10000")
    s.fill("A", "buy", "7", "9990", instrument="MINI-USD")

    # 7 x 0.1 x 10,000 = 7,000 against a cost of 7 x 0.1 x 9,990 = 6,993; default row: 4 % and 2 %.
    (row,) = s.margin("A").positions
    assert (Decimal(7000), Decimal(7), Decimal(280), Decimal(140)) == (
        row.notional, row.unrealised_pnl, row.initial_margin, row.maintenance_margin)
    assert Decimal(6993) == s.told(FillPosted).position_cost


def test_linear_cost_is_exact() -> None:
    """Semantics 3: linear cost is exact."""
    s = funded()
    for price in ("10000.000000000000000001", "10000.123456789012345678", "9999.999999999999999999"):
        s.fill("A", "buy", "0.001", price)

    # A thousandth of 30,000.123456789012345678.
    assert Decimal("30.000123456789012345678") == s.told(FillPosted).position_cost
    assert Decimal(100000) == s.balance("A")


@pytest.mark.parametrize(("opened", "closed_at", "realised", "cost"), [
    # Cost 300.01 for 3, so 100.00333... each.
    pytest.param("buy", "100", "-0.01", "200", id="a long's loss of 0.00333 is a cent"),
    pytest.param("buy", "110", "9.99", "200", id="a long's profit of 9.99667 is 9.99"),
    pytest.param("sell", "100", "0", "-200.01", id="a short's profit of 0.00333 is nothing"),
    pytest.param("sell", "110", "-10", "-200.01", id="a short's loss of 9.99667 is 10"),
])
def test_a_reducing_fill_realises_rounded_against_the_account_and_the_remainder_stays_in_cost(
        opened: str, closed_at: str, realised: str, cost: str) -> None:
    """Semantics 3: a reducing fill realises proceeds - cost x closed / size, rounded to its quantum against the
    account; the remainder stays in the remaining cost."""
    s = funded()
    for price in ("100", "100", "100.01"):
        s.fill("A", opened, "1", price)

    s.fill("A", "sell" if opened == "buy" else "buy", "1", closed_at)

    event = s.told(FillPosted)
    assert (Decimal(1), Decimal(realised), Decimal(cost), Decimal(0)) == (
        event.closed_size, event.realised_pnl, event.position_cost, event.rounding)
    assert Decimal(100000) + Decimal(realised) == s.balance("A")
    assert -Decimal(realised) == s.held_by("house")
    assert Decimal(0) == s.held_by("house:rounding")


@pytest.mark.parametrize(("side", "opened_at", "closed_at", "realised", "rounding"), [
    pytest.param("buy", "100.001", "100.009", "0", "0.008", id="a profit below the quantum"),
    pytest.param("buy", "100.009", "100.001", "-0.01", "0.002", id="a loss below the quantum"),
    pytest.param("sell", "100.009", "100.001", "0", "0.008", id="a short's profit below the quantum"),
    pytest.param("sell", "100", "101.5", "-1.5", "0", id="nothing to round"),
])
def test_a_full_close_sends_the_remainder_to_house_rounding(side: str, opened_at: str, closed_at: str, realised: str,
                                                           rounding: str) -> None:
    """Semantics 3: at full close it goes to `house:rounding`."""
    s = funded()
    s.fill("A", side, "1", opened_at)

    s.fill("A", "sell" if side == "buy" else "buy", "1", closed_at)

    event = s.told(FillPosted)
    assert (Decimal(realised), Decimal(rounding)) == (event.realised_pnl, event.rounding)
    assert (Decimal(0), Decimal(0)) == (event.position_size, event.position_cost)
    assert Decimal(rounding) == s.held_by("house:rounding")
    assert not s.state("A").positions


def test_what_closing_in_parts_realises_and_rounds_is_the_exact_profit() -> None:
    """Semantics 3: the remainder stays in the remaining cost; at full close it goes to `house:rounding`."""
    s = funded()
    s.fill("A", "buy", "3", "100.001")

    for price in ("100.017", "100.002", "99.999"):
        s.fill("A", "sell", "1", price)

    # Exact: 300.018 - 300.003 = 0.015. In parts, 100.001 each at first: 0.016 -> 0.01, leaving 200.002 - 0.006 =
    # 199.996; 100.002 - 99.998 = 0.004 -> 0, leaving 99.994; 99.999 - 99.994 = 0.005 -> 0 with 0.005 to rounding.
    fills = s.events(FillPosted)[1:]
    assert [Decimal("0.01"), Decimal(0), Decimal(0)] == [event.realised_pnl for event in fills]
    assert [Decimal("199.996"), Decimal("99.994"), Decimal(0)] == [event.position_cost for event in fills]
    assert Decimal("0.005") == s.held_by("house:rounding")


def test_a_flip_is_a_close_and_an_open() -> None:
    """Semantics 3: a flip is a close and an open."""
    s = funded()
    s.fill("A", "buy", "2", "100.001")

    s.fill("A", "sell", "5", "110")

    # Closing 2: 220 - 200.002 = 19.998, so 19.99 and 0.008 of rounding. Opening 3 short at 110.
    event = s.told(FillPosted)
    assert (Decimal(2), Decimal("19.99"), Decimal("0.008")) == (event.closed_size, event.realised_pnl, event.rounding)
    assert (Decimal(-3), Decimal(-330)) == (event.position_size, event.position_cost)


def test_the_house_takes_the_exact_opposite() -> None:
    """Semantics 3, 5: what the account realises and rounding takes stands with the house, and sizes sum to zero."""
    s = funded()
    s.fill("A", "buy", "3", "100.001")
    s.fill("A", "sell", "1", "100.017")
    assert (Decimal("-0.01"), Decimal(0)) == (s.held_by("house"), s.held_by("house:rounding"))
    assert Decimal(-2) == s.house.house.sizes["BTC-USD"]

    s.fill("A", "sell", "2", "100")

    # The whole trip: 300.017 - 300.003 = 0.014, of which the account has 0.01.
    assert Decimal(100000) + Decimal("0.01") - s.balance("A") == 0
    assert (Decimal("-0.014"), Decimal("0.004")) == (s.held_by("house"), s.held_by("house:rounding"))
    assert Decimal(0) == s.house.house.sizes["BTC-USD"]


# --- valuation ---------------------------------------------------------------------------------------------------


def test_an_asset_is_worth_its_balance_at_its_mark() -> None:
    """Semantics 3: an asset is worth balance x its mark."""
    s = mixed_desk()
    s.account("A")
    s.deposit("A", "BTC", "2")
    s.deposit("A", "EUR", "1000")
    s.deposit("A", "USD", "7")

    # 20,000 + 1,100 + 7; after haircuts of 5 % and 3 %: 19,000 + 1,067 + 7.
    assert (Decimal(21107), Decimal(20074)) == (s.margin("A").account_equity, s.margin("A").margin_equity)

    s.price("BTC-USD", "9000")
    assert (Decimal(19107), Decimal(18174)) == (s.margin("A").account_equity, s.margin("A").margin_equity)


def two_hops() -> Scenario:
    """SOL is valued in BTC by SOL-BTC, and BTC in USD; X is valued in SOL only."""
    s = mixed_desk()
    s.asset("SOL", priced_by="SOL-BTC")
    s.instrument("SOL-BTC")
    s.asset("X", priced_by="X-SOL")
    s.instrument("X-SOL")
    s.price("SOL-BTC", "0.01")
    s.price("X-SOL", "3")
    s.account("A")
    return s


def test_a_path_of_two_hops_values_an_asset() -> None:
    """Semantics 3: an asset is worth balance x its mark (path of at most two hops)."""
    s = two_hops()
    s.deposit("A", "SOL", "5")

    # 5 x 0.01 x 10,000 = 500; the default row cuts 20 %.
    assert (Decimal(500), Decimal(400)) == (s.margin("A").account_equity, s.margin("A").margin_equity)
    s.price("BTC-USD", "11000")
    assert Decimal(550) == s.margin("A").account_equity


def test_a_path_of_three_hops_values_nothing() -> None:
    """Semantics 3: path of at most two hops."""
    s = two_hops()
    s.deposit("A", "X", "5")

    assert (Decimal(0), "healthy") == (s.margin("A").account_equity, s.status("A"))


def test_a_mark_decides_on_the_accounts_that_it_values_two_hops_away() -> None:
    """Semantics 2, 3: a pool is judged by every mark of its path."""
    s = two_hops()
    s.deposit("A", "SOL", "25")
    # 25 SOL are worth 2,500, and 2,000 after the haircut: a ratio of 2 on 10 BTC.
    s.fill("A", "buy", "10", "10000")

    # 1,875 x 0.8 = 1,500 on 1,000 stands at the warning line, 1,850 x 0.8 below it.
    s.price("SOL-BTC", "0.0075")
    assert [PriceRecorded] == s.kinds
    s.price("SOL-BTC", "0.0074")

    assert [PriceRecorded, MarginWarned] == s.kinds
    assert {"BTC-USD", "SOL-BTC"} == set(s.told(MarginWarned).evidence.marks)


def test_a_position_that_settles_in_another_asset_is_valued_at_its_mark() -> None:
    """Semantics 3: notional and PnL in the quote (linear, settled in quote); worth balance x its mark."""
    s = two_hops()
    s.deposit("A", "BTC", "1")
    s.fill("A", "buy", "100", "0.009", instrument="SOL-BTC")

    # 100 x 0.01 = 1 BTC of notional; 0.1 BTC of profit; 4 % and 2 % of the default row; all at 10,000.
    (row,) = s.margin("A").positions
    assert (Decimal(10000), Decimal(1000), Decimal(400), Decimal(200)) == (
        row.notional, row.unrealised_pnl, row.initial_margin, row.maintenance_margin)
    assert (Decimal(11000), Decimal(10500)) == (s.margin("A").account_equity, s.margin("A").margin_equity)
    s.fill("A", "sell", "100", "0.010000001", instrument="SOL-BTC")
    # 0.1000001 BTC realised, to its quantum of 10^-8.
    assert (Decimal("0.1000001"), Decimal("1.1000001")) == (s.told(FillPosted).realised_pnl, s.balance("A", "BTC"))


def test_the_path_of_an_asset_is_that_of_its_listing() -> None:
    """Semantics 3: path fixed when listed; contracts: an asset sent again updates what may change."""
    s = mixed_desk()
    s.asset("GOLD")
    s.account("A")
    s.deposit("A", "GOLD", "2")
    assert Decimal(0) == s.margin("A").account_equity

    s.instrument("GOLD-USD")
    s.price("GOLD-USD", "50")
    assert Decimal(0) == s.margin("A").account_equity
    s.asset("GOLD", priced_by="GOLD-USD")
    assert Decimal(100) == s.margin("A").account_equity
    # A pricing instrument of another asset values nothing.
    s.asset("GOLD", priced_by="BTC-USD")
    assert Decimal(0) == s.margin("A").account_equity


def test_an_unpriced_asset_counts_zero_as_collateral() -> None:
    """Semantics 3: without a mark it counts zero as collateral."""
    s = desk()
    s.asset("NEW", priced_by="NEW-USD")
    s.instrument("NEW-USD")
    s.account("A")
    s.deposit("A", "NEW", "1000000")
    s.deposit("A", "USD", "5")

    assert (Decimal(5), Decimal(5), "healthy") == (
        s.margin("A").account_equity, s.margin("A").margin_equity, s.status("A"))
    s.price("NEW-USD", "2")
    # 2,000,000: 100,000 x 0.8 + 900,000 x 0.65 + 1,000,000 x 0.4 = 1,065,000.
    assert (Decimal(2000005), Decimal(1065005)) == (s.margin("A").account_equity, s.margin("A").margin_equity)


def test_an_unpriced_asset_that_is_held_blocks_nothing() -> None:
    """Semantics 3: without a mark it counts zero as collateral; only as a liability it blocks."""
    s = desk()
    s.asset("NEW", priced_by="NEW-USD")
    s.instrument("NEW-USD")
    s.account("A")
    s.deposit("A", "NEW", "1")
    s.deposit("A", "USD", "11000")

    s.withdraw("A", "USD", "100")
    assert [Withdrawn] == s.kinds
    s.withdraw("A", "NEW", "1")
    assert [Withdrawn] == s.kinds

    # Nor does it keep the account from being liquidated: 10,900 - 100 - 10,000 = 800 on 900.
    s.deposit("A", "NEW", "1")
    s.withdraw("A", "USD", "100")
    s.fill("A", "buy", "10", "10000")
    s.price("BTC-USD", "9000")
    assert [PriceRecorded, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    assert {"BTC-USD"} == set(s.told(LiquidationStarted).evidence.marks)


def test_an_unpriced_asset_that_is_owed_makes_the_account_unpriced_and_blocks_withdrawals() -> None:
    """Semantics 3: as a liability it blocks new risk and withdrawals: status `unpriced`, never a silent zero."""
    s = desk()
    s.asset("NEW", priced_by="NEW-USD")
    s.instrument("NEW-USD")
    s.account("A")
    s.deposit("A", "USD", "1000")
    s.fill("A", "buy", "0.001", "10000", fee="3", fee_asset="NEW")
    assert "unpriced" == s.status("A")

    refused = s.withdraw("A", "USD", "1")
    assert ("refused", "unpriced") == (refused.kind, refused.reason)
    assert Decimal(0) == s.told(WithdrawalRefused).withdrawable

    s.price("NEW-USD", "2")
    assert "healthy" == s.status("A")
    assert "applied" == s.withdraw("A", "USD", "1").kind


def test_an_unpriced_account_is_neither_called_nor_liquidated_before_a_mark_comes() -> None:
    """Semantics 3: an asset owed without a mark: status `unpriced`, never a silent zero."""
    s = desk()
    s.asset("NEW", priced_by="NEW-USD")
    s.instrument("NEW-USD")
    s.account("A")
    s.deposit("A", "USD", "10800")
    s.fill("A", "buy", "10", "10000", fee="3", fee_asset="NEW")

    s.price("BTC-USD", "9000")
    assert [PriceRecorded] == s.kinds

    s.price("NEW-USD", "2")
    # 10,800 - 10,000 - 6 = 794 on 900.
    assert [PriceRecorded, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    assert Decimal(794) == s.told(LiquidationStarted).evidence.margin_equity


def test_a_fill_before_any_mark_values_its_instrument_at_the_fill_price() -> None:
    """Semantics 3: a fill before any mark values its instrument at the fill price, marked as such."""
    s = Scenario()
    s.asset("USD")
    s.instrument("BTC-USD")
    s.account("A")
    s.deposit("A", "USD", "1100")

    s.fill("A", "buy", "10", "10000")

    assert [ProvisionalMarkSet, FillPosted, MarginCallIssued] == s.kinds
    assert ("BTC-USD", Decimal(10000)) == (s.told(ProvisionalMarkSet).instrument, s.told(ProvisionalMarkSet).price)
    mark = s.told(MarginCallIssued).evidence.marks["BTC-USD"]
    assert (Decimal(10000), True) == (mark.price, mark.provisional)


def test_a_provisional_mark_gives_way_to_the_first_price() -> None:
    """Semantics 3: a fill before any mark values its instrument at the fill price, marked as such."""
    s = Scenario()
    s.asset("USD")
    s.instrument("BTC-USD")
    s.account("A")
    s.deposit("A", "USD", "1000000")
    s.fill("A", "buy", "10", "10000")
    s.fill("A", "buy", "10", "10500")
    # A second fill finds a mark and sets none.
    assert [FillPosted] == s.kinds
    assert Decimal(10000) == s.house.markets["BTC-USD"].mark

    # 60 % away, and older than the fill: a first price has no predecessor to be judged by.
    s.price("BTC-USD", "4000", at="09:00:00")

    assert [PriceRecorded] == s.kinds
    assert (Decimal(4000), False) == (s.house.markets["BTC-USD"].mark, s.house.markets["BTC-USD"].provisional)


# --- equities and margins ----------------------------------------------------------------------------------------


def test_account_equity_is_uncut_and_margin_equity_is_after_haircuts() -> None:
    """Semantics 3: `account_equity` = balances + unrealised PnL + accrued funding, no haircut; `margin_equity` = the
    same after haircuts."""
    s = mixed_desk()
    s.account("A")
    s.deposit("A", "USD", "1000")
    s.deposit("A", "BTC", "0.1")
    s.fill("A", "buy", "10", "10000")
    s.price("BTC-USD", "9990")
    s.funding("BTC-USD", "0.0002", price="10000")

    s.withdraw("A", "USD", "1000")

    # USD 1,000 less funding 10 x 0.0002 x 10,000 = 20, settled by the withdrawal; BTC 0.1 x 9,990 = 999, after 5 %
    # 949.05; PnL 10 x -10 = -100.
    evidence = s.told(WithdrawalRefused).evidence
    assert (Decimal(1879), Decimal("1829.05"), Decimal("1929.05"), Decimal(-100)) == (
        evidence.account_equity, evidence.margin_equity, evidence.collateral_value, evidence.unrealised_pnl)
    # 99,900 of notional: 1 %. The ratio is given down to 18 places.
    assert (Decimal(1998), Decimal(999)) == (evidence.initial_margin, evidence.maintenance_margin)
    assert Decimal("1.830880880880880880") == evidence.margin_ratio


def test_haircuts_are_marginal_by_value() -> None:
    """Semantics 3: margin_equity is after haircuts (docs/margin.md section 4)."""
    s = mixed_desk()
    s.account("A")
    s.deposit("A", "BTC", "200")

    # 1,000,000 x 0.95 + 1,000,000 x 0.90.
    assert Decimal(1850000) == s.margin("A").margin_equity


def test_a_liability_is_never_haircut() -> None:
    """Semantics 3: liabilities are never haircut."""
    s = mixed_desk()
    s.account("A")
    s.deposit("A", "USD", "20000")
    s.fill("A", "buy", "0.001", "10000", fee="1", fee_asset="BTC")

    assert Decimal(-1) == s.balance("A", "BTC")
    assert (Decimal(10000), Decimal(10000)) == (s.margin("A").account_equity, s.margin("A").margin_equity)
    assert Decimal(10000) == s.margin("A").liabilities


def test_unrealised_profit_is_added_as_it_stands() -> None:
    """Semantics 3: margin_equity = the same after haircuts and profit treatment (`house`: none)."""
    s = mixed_desk()
    s.account("A")
    s.deposit("A", "BTC", "1")
    s.fill("A", "buy", "10", "9000")

    assert (Decimal(20000), Decimal(19500)) == (s.margin("A").account_equity, s.margin("A").margin_equity)


def test_margin_ratio_is_null_without_maintenance_margin() -> None:
    """Semantics 3: margin ratio = margin_equity / maintenance margin; null when there is no maintenance margin."""
    s = funded("5")

    s.withdraw("A", "USD", "6")

    assert s.told(WithdrawalRefused).evidence.margin_ratio is None
    assert Decimal(0) == s.told(WithdrawalRefused).evidence.maintenance_margin


@pytest.mark.parametrize(("size", "initial", "maintenance"), [
    pytest.param("24.999", "4999.8", "2499.9", id="below the edge of 250,000"),
    pytest.param("25", "5000", "2500", id="on the edge"),
    # 250,000 at 2 % and 1 %, then 50,000 at 3 % and 1.5 %.
    pytest.param("30", "6500", "3250", id="above the edge"),
    # 5,000 + 22,500 + 40,000 at 4 %; 2,500 + 11,250 + 20,000 at 2 %.
    pytest.param("200", "67500", "33750", id="in the third bracket"),
])
def test_margins_follow_notional_brackets(size: str, initial: str, maintenance: str) -> None:
    """Semantics 3: initial and maintenance margin as the rulebook's brackets say (docs/margin.md section 3)."""
    s = funded("1000000")
    s.fill("A", "sell", size, "10000")

    assert (Decimal(initial), Decimal(maintenance)) == (
        s.margin("A").initial_margin, s.margin("A").maintenance_margin)


@pytest.mark.parametrize(("leverage", "initial"), [
    pytest.param("10", "10000", id="10x wants a tenth"),
    pytest.param("100", "2000", id="100x does not go below the rulebook's 2 %"),
    pytest.param("3", "33333.34", id="the quotient is rounded up"),
])
def test_a_chosen_leverage_raises_initial_margin_and_nothing_else(leverage: str, initial: str) -> None:
    """Semantics 3: an isolated position takes initial margin (its leverage, or the rulebook's)."""
    s = funded()
    s.fill("A", "buy", "10", "10000", leverage=leverage)

    assert (Decimal(initial), Decimal(1000)) == (s.margin("A").initial_margin, s.margin("A").maintenance_margin)
    assert Decimal(leverage) == s.told(FillPosted).position_leverage


def test_a_leverage_once_chosen_stays_with_the_position_until_it_is_closed() -> None:
    """Semantics 3: its leverage, or the rulebook's."""
    s = funded()
    s.fill("A", "buy", "10", "10000", leverage="10")
    s.fill("A", "buy", "10", "10000")
    assert Decimal(20000) == s.margin("A").initial_margin

    s.fill("A", "sell", "20", "10000")
    assert s.told(FillPosted).position_leverage is None
    s.fill("A", "buy", "10", "10000")
    assert (None, Decimal(2000)) == (s.told(FillPosted).position_leverage, s.margin("A").initial_margin)


def test_a_flip_leaves_the_old_positions_leverage_behind() -> None:
    """Semantics 3: a flip is a close and an open."""
    s = funded()
    s.fill("A", "buy", "10", "10000", leverage="10")

    s.fill("A", "sell", "20", "10000")

    assert (Decimal(-10), None) == (s.told(FillPosted).position_size, s.told(FillPosted).position_leverage)


def test_a_quantum_is_used_as_soon_as_something_settles_in_it() -> None:
    """Contracts 1: quantum ... rejected once used; also where nothing was posted in it yet."""
    s = desk()
    s.account("A")
    s.fill("A", "buy", "10", "10000")

    outcome = s.asset("USD", quantum="0.1")

    assert ("rejected", "immutable") == (outcome.kind, outcome.reason)


# --- withdrawable ------------------------------------------------------------------------------------------------


def test_withdrawable_is_what_keeps_margin_equity_at_initial_margin() -> None:
    """Semantics 3: withdrawable = the lesser of the positive balance and what keeps margin_equity >= initial margin."""
    s = desk()
    long_account(s, "A", "3000")

    refused = s.withdraw("A", "USD", "1000.01")
    assert ("refused", "beyond-withdrawable") == (refused.kind, refused.reason)
    assert Decimal(1000) == s.told(WithdrawalRefused).withdrawable
    assert Decimal(3000) == s.balance("A")

    s.withdraw("A", "USD", "1000")
    assert [Withdrawn] == s.kinds
    assert Decimal(2000) == s.told(Withdrawn).balance == s.margin("A").initial_margin


def test_unrealised_profit_lets_no_more_out_than_the_balance() -> None:
    """Semantics 3: withdrawable = the lesser of the positive balance and ..."""
    s = desk()
    long_account(s, "A", "2500")
    # Equity 22,500 on an initial margin of 2,400.
    s.price("BTC-USD", "12000")

    s.withdraw("A", "USD", "2500.01")
    assert Decimal(2500) == s.told(WithdrawalRefused).withdrawable
    s.withdraw("A", "USD", "2500")
    assert [Withdrawn] == s.kinds


def test_of_an_asset_that_is_owed_nothing_is_withdrawable() -> None:
    """Semantics 3: withdrawable = the lesser of the positive balance and ..."""
    s = mixed_desk()
    s.account("A")
    s.deposit("A", "BTC", "5")
    s.fill("A", "buy", "0.001", "10000", fee="100")

    s.withdraw("A", "USD", "0.01")

    assert Decimal(0) == s.told(WithdrawalRefused).withdrawable


def test_nothing_is_withdrawable_below_initial_margin() -> None:
    """Semantics 3: what keeps margin_equity >= initial margin."""
    s = desk()
    # 1,900 on an initial margin of 2,000: flagged, not called (1.9 is above the warning line).
    long_account(s, "A", "1900")

    s.withdraw("A", "USD", "0.01")

    assert ("beyond-withdrawable", Decimal(0)) == (
        s.told(WithdrawalRefused).reason, s.told(WithdrawalRefused).withdrawable)


@pytest.mark.parametrize(("size", "withdrawable"), [
    # 2 BTC are 20,000: 10,000 x 0.9 + 10,000 x 0.5 = 14,000 after haircuts.
    # 50 BTC of position want 5,000 + 7,500 = 12,500; that is left at a gross value of 10,000 + 3,500 / 0.5 = 17,000.
    pytest.param("50", "0.3", id="within the upper tier, exact"),
    # 10 BTC want 2,000: left at 2,000 / 0.9 = 2,222.22, so 1.7777777777 of the 2 BTC may go, rounded down.
    pytest.param("10", "1.77777777", id="into the lower tier, rounded down"),
])
def test_withdrawable_is_after_haircut_tiers_rounded_down(size: str, withdrawable: str) -> None:
    """Semantics 3: what keeps margin_equity >= initial margin after haircut tiers, rounded down."""
    s = mixed_desk()
    s.rulebook(rules(assets={"BTC": tiers(("10000", "0.1"), "0.5")}))
    s.account("A")
    s.deposit("A", "BTC", "2")
    s.fill("A", "buy", size, "10000")

    s.withdraw("A", "BTC", str(Decimal(withdrawable) + Decimal("0.00000001")))
    assert Decimal(withdrawable) == s.told(WithdrawalRefused).withdrawable
    s.withdraw("A", "BTC", withdrawable)

    assert [Withdrawn] == s.kinds
    assert s.margin("A").margin_equity >= s.margin("A").initial_margin


def test_what_counts_nothing_may_leave() -> None:
    """Semantics 3: what keeps margin_equity >= initial margin after haircut tiers: value that is cut whole is free."""
    s = mixed_desk()
    s.rulebook(rules(assets={"BTC": tiers(("10000", "0.5"), "1")}))
    s.account("A")
    # 1.5 BTC: 10,000 x 0.5 + 5,000 x 0 = 5,000, the initial margin of 25 BTC of position; half a BTC counts nothing.
    s.deposit("A", "BTC", "1.5")
    s.fill("A", "buy", "25", "10000")

    s.withdraw("A", "BTC", "0.50000001")
    assert Decimal("0.5") == s.told(WithdrawalRefused).withdrawable
    s.withdraw("A", "BTC", "0.5")
    assert [Withdrawn] == s.kinds


def test_an_asset_without_a_quantum_left_over_leaves_in_whole_quanta() -> None:
    """Semantics 3: withdrawable is rounded down."""
    s = funded("1.009")

    s.withdraw("A", "USD", "1.009")

    assert Decimal(1) == s.told(WithdrawalRefused).withdrawable


def test_nothing_is_withdrawable_while_a_call_is_open() -> None:
    """Semantics 3: zero while a call or liquidation is open."""
    s = desk()
    s.rulebook(rules(thresholds={"warning": "5", "call": "4", "cure": "5", "stop": "5"}))
    # 3,500 on 1,000 is called at the line of 4, although 1,500 are above initial margin.
    long_account(s, "A", "3500")
    assert MarginCallIssued in s.kinds

    refused = s.withdraw("A", "USD", "0.01")

    assert ("refused", "call-open") == (refused.kind, refused.reason)
    assert Decimal(0) == s.told(WithdrawalRefused).withdrawable


def test_nothing_is_withdrawable_while_a_liquidation_is_open() -> None:
    """Semantics 3: zero while a call or liquidation is open."""
    s = desk()
    long_account(s, "A", "10800")
    s.price("BTC-USD", "9000")
    assert LiquidationStarted in s.kinds

    refused = s.withdraw("A", "USD", "0.01")

    assert ("refused", "liquidation-open", Decimal(0)) == (
        refused.kind, refused.reason, s.told(WithdrawalRefused).withdrawable)


def test_nothing_is_withdrawable_while_a_liquidation_of_an_isolated_pool_is_open() -> None:
    """Semantics 3: zero while a call or liquidation is open: the account's, whichever pool."""
    s = funded()
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")
    # 2,000 - 1,500 = 500 on 985.
    s.price("BTC-USD", "9850")
    assert [ISOLATED] == [event.pool for event in s.events(LiquidationStarted)]

    refused = s.withdraw("A", "USD", "1")

    assert ("refused", "liquidation-open") == (refused.kind, refused.reason)


@pytest.mark.parametrize(("at", "outcome"), [
    pytest.param("10:15:00", ("applied", None), id="at the maximum age"),
    pytest.param("10:15:00.000000001", ("refused", "stale-mark"), id="past the maximum age of 900 s"),
])
@pytest.mark.parametrize("held", ["a position", "collateral", "an isolated position"])
def test_nothing_is_withdrawable_while_a_mark_that_values_the_account_is_stale(
        held: str, at: str, outcome: tuple[str, str | None]) -> None:
    """Semantics 3: zero while a mark that values the account is stale."""
    s = mixed_desk()
    s.account("A")
    s.deposit("A", "USD", "50000")
    if held == "collateral":
        s.deposit("A", "BTC", "1")
    else:
        s.fill("A", "buy", "1", "10000", margin_mode="isolated" if "isolated" in held else "cross")

    came = s.withdraw("A", "USD", "1", at=at)

    assert outcome == (came.kind, came.reason)


def test_a_stale_mark_that_values_nothing_of_the_account_is_no_matter() -> None:
    """Semantics 3: zero while a mark *that values the account* is stale."""
    s = funded()

    assert "applied" == s.withdraw("A", "USD", "1", at="18:00:00").kind


# --- funding -----------------------------------------------------------------------------------------------------


def test_funding_writes_one_market_event_with_an_exact_index() -> None:
    """Semantics 3: `funding` writes one market event: index += rate x price, exact."""
    s = desk()
    long_account(s, "A", "3000")
    long_account(s, "B", "3000")
    s.price("BTC-USD", "10000.123456789012345678")

    s.funding("BTC-USD", "0.000012345678901234")
    assert [FundingIndexMoved] == s.kinds
    s.funding("BTC-USD", "-0.0001", price="9999.5")
    assert [FundingIndexMoved] == s.kinds

    first, second = s.events(FundingIndexMoved)
    # 0.000012345678901234 x 10,000.123456789012345678, all 36 places of it.
    index = Decimal("0.123458313170215323813554032028766652")
    assert (Decimal(0), index, Decimal("10000.123456789012345678")) == (
        first.index_before, first.index_after, first.mark_price)
    assert (index, Decimal("-0.876491686829784676186445967971233348"), Decimal("9999.5")) == (
        second.index_before, second.index_after, second.price)


def test_accrued_funding_counts_in_equity() -> None:
    """Semantics 3: accrual counts in equity."""
    s = desk()
    s.account("long")
    s.deposit("long", "USD", "5000")
    s.fill("long", "buy", "10", "10000")
    s.account("short")
    s.deposit("short", "USD", "5000")
    s.fill("short", "sell", "10", "10000")

    # Longs pay 10 x 0.001 x 10,000.
    s.funding("BTC-USD", "0.001")

    for account, equity in (("long", 4900), ("short", 5100)):
        assert (Decimal(equity), Decimal(equity)) == (
            s.margin(account).account_equity, s.margin(account).margin_equity)
        assert Decimal(5000) == s.balance(account)


def test_funding_alone_can_call_an_account() -> None:
    """Semantics 3, 4: accrual counts in equity, which decides calls."""
    s = desk()
    # 1,300 on 1,000, of which funding takes 100: below the call line of 1.25.
    long_account(s, "A", "1300")

    s.funding("BTC-USD", "0.001")

    assert [FundingIndexMoved, FundingSettled, MarginCallIssued] == s.kinds
    assert Decimal(1200) == s.told(MarginCallIssued).evidence.margin_equity


@pytest.mark.parametrize(("side", "payment", "rounding"), [
    # 0.333 contracts at an index of 1 owe or earn 0.333.
    pytest.param("buy", "-0.34", "0.007", id="paid is rounded up"),
    pytest.param("sell", "0.33", "0.003", id="received is rounded down"),
])
def test_funding_is_settled_on_the_accounts_next_event(side: str, payment: str, rounding: str) -> None:
    """Semantics 3: accrual is settled on the account's next event: paid rounded up, received rounded down, the rest
    to `house:rounding`."""
    s = funded("1000")
    s.fill("A", side, "0.333", "10000")
    s.funding("BTC-USD", "0.0001")
    equity = s.margin("A").account_equity
    assert Decimal(1000) + Decimal(payment) == equity

    s.deposit("A", "USD", "1")

    assert [FundingSettled, Deposited] == s.kinds
    (item,) = s.told(FundingSettled).items
    assert (Decimal(payment), Decimal(rounding), Decimal(1)) == (item.payment, item.rounding, item.index)
    assert Decimal(1000) + Decimal(payment) == s.told(Deposited).balance - 1
    assert Decimal(rounding) == s.held_by("house:rounding")
    assert -Decimal(payment) - Decimal(rounding) == s.held_by("house")
    assert equity + 1 == s.margin("A").account_equity
    s.deposit("A", "USD", "1")
    assert [Deposited] == s.kinds


@pytest.mark.parametrize("told", [
    pytest.param(lambda s: s.deposit("A", "USD", "1"), id="deposit"),
    pytest.param(lambda s: s.withdraw("A", "USD", "1"), id="withdrawal"),
    pytest.param(lambda s: s.withdraw("A", "USD", "99999"), id="refused withdrawal"),
    pytest.param(lambda s: s.fill("A", "buy", "1", "10000"), id="fill"),
    pytest.param(lambda s: s.account("A"), id="account"),
    pytest.param(lambda s: s.price("BTC-USD", "9850"), id="price that calls it"),
])
def test_settling_comes_before_any_event_of_the_account(told: Any) -> None:
    """Semantics 3: settled on the account's next event."""
    s = desk()
    long_account(s, "A", "2600")
    s.funding("BTC-USD", "0.0001")

    told(s)

    of_account = [recorded.event for recorded in s.log[-len(s.happened):]
                  if recorded.originator_id == "account:A"]
    assert isinstance(of_account[0], FundingSettled)
    assert len(of_account) > 1


def test_a_fill_after_funding_accrues_from_where_the_index_stands() -> None:
    """Semantics 3: funding is a cumulative index; a position has accrued what it moved since."""
    s = funded()
    s.fill("A", "buy", "1", "10000")
    s.funding("BTC-USD", "0.0001")
    s.fill("A", "buy", "1", "10000")
    s.funding("BTC-USD", "0.0001")

    # 1 for the first contract, then 1 for each of two.
    assert Decimal(99997) == s.margin("A").account_equity


def test_funding_of_an_isolated_position_is_its_pools_own() -> None:
    """Semantics 3: pools: what an isolated position accrues never comes from the cross pool."""
    s = funded()
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")
    s.funding("BTC-USD", "0.001")

    s.deposit("A", "USD", "1")

    assert (Decimal(98001), Decimal(1900)) == (s.balance("A"), s.balance("A", pool=ISOLATED))


def test_funding_accrues_on_contract_size() -> None:
    """Semantics 3: index += rate x price; what accrues is per unit of the underlying."""
    s = funded()
    s.instrument("MINI-USD", contract_size="0.1", lot="1")
    s.price("MINI-USD", "10000")
    s.fill("A", "buy", "7", "10000", instrument="MINI-USD")

    s.funding("MINI-USD", "0.0001")

    assert Decimal("99999.3") == s.margin("A").account_equity


# --- isolated margin ---------------------------------------------------------------------------------------------


def test_an_isolated_position_takes_initial_margin_plus_fee_from_the_cross_pool() -> None:
    """Semantics 3: an isolated position takes initial margin at the fill price plus fee from the cross pool's
    settlement asset."""
    s = funded("5000")

    # At the fill price, 9,900, not at the mark: 99,000 x 2 %.
    s.fill("A", "buy", "10", "9900", margin_mode="isolated", fee="7")

    event = s.told(FillPosted)
    assert (Decimal(1987), []) == (event.isolated_margin, event.flags)
    assert (Decimal(3013), Decimal(1980), Decimal(7)) == (
        s.balance("A"), s.balance("A", pool=ISOLATED), s.held_by("fees"))


def test_an_isolated_position_takes_margin_by_its_leverage() -> None:
    """Semantics 3: initial margin at the fill price (its leverage, or the rulebook's)."""
    s = funded("50000")

    s.fill("A", "buy", "10", "10000", margin_mode="isolated", leverage="10")
    assert Decimal(10000) == s.told(FillPosted).isolated_margin
    s.fill("A", "buy", "5", "10000")
    assert (Decimal(5000), "isolated") == (s.told(FillPosted).isolated_margin, s.told(FillPosted).mode)


def test_with_too_little_an_isolated_position_takes_what_there_is_and_says_so() -> None:
    """Semantics 3: with too little there is what there is, recorded."""
    s = funded("1500")

    s.fill("A", "buy", "10", "10000", margin_mode="isolated", fee="7")

    event = s.told(FillPosted)
    assert (Decimal(1500), ["margin-short", "initial-margin-breached"]) == (event.isolated_margin, event.flags)
    assert (Decimal(0), Decimal(1493)) == (s.balance("A"), s.balance("A", pool=ISOLATED))


def test_with_nothing_an_isolated_position_is_posted_all_the_same() -> None:
    """Semantics 3, 4: with too little there is what there is; facts are never refused for margin."""
    s = desk()
    s.account("A")

    s.fill("A", "buy", "10", "10000", margin_mode="isolated")

    # Without any margin it stands below the liquidation line at once.
    assert [FillPosted, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    assert (Decimal(0), ISOLATED) == (s.told(FillPosted).isolated_margin, s.told(LiquidationStarted).pool)


def test_a_debt_of_the_cross_pool_gives_no_isolated_margin() -> None:
    """Semantics 3: from the cross pool's settlement asset: what there is, and a debt is nothing."""
    s = mixed_desk()
    s.account("A")
    s.deposit("A", "BTC", "5")
    s.fill("A", "buy", "0.001", "10000", fee="100")

    s.fill("A", "buy", "1", "10000", margin_mode="isolated")

    assert (Decimal(0), Decimal(-100)) == (s.told(FillPosted).isolated_margin, s.balance("A"))


def test_closing_an_isolated_position_returns_what_is_left() -> None:
    """Semantics 3: closing returns what is left."""
    s = funded("5000")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")

    s.fill("A", "sell", "10", "10100", fee="3")

    # 2,000 + 1,000 - 3.
    assert (Decimal(-2997), Decimal(1000)) == (s.told(FillPosted).isolated_margin, s.told(FillPosted).realised_pnl)
    assert (Decimal(5997), ["cross"]) == (s.balance("A"), s.state("A").pools())


def test_reducing_an_isolated_position_leaves_its_margin_where_it_is() -> None:
    """Semantics 3: *closing* returns what is left."""
    s = funded("5000")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")

    s.fill("A", "sell", "4", "10100")

    assert Decimal(0) == s.told(FillPosted).isolated_margin
    assert (Decimal(3000), Decimal(2400)) == (s.balance("A"), s.balance("A", pool=ISOLATED))


def test_a_flip_of_an_isolated_position_takes_the_margin_of_the_new_one() -> None:
    """Semantics 3: a flip is a close and an open; an isolated position takes initial margin at the fill price."""
    s = funded("5000")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")

    s.fill("A", "sell", "14", "10050")

    # 2,000 and the profit of 500 come back; 4 x 10,050 x 2 % = 804 are taken.
    assert Decimal(-1696) == s.told(FillPosted).isolated_margin
    assert (Decimal(4696), Decimal(804)) == (s.balance("A"), s.balance("A", pool=ISOLATED))


def test_a_loss_beyond_isolated_margin_goes_to_the_waterfall_and_never_to_the_cross_pool() -> None:
    """Semantics 3: a loss beyond it goes to the waterfall, never to the cross pool."""
    s = funded("5000")
    s.fund("600")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")

    s.fill("A", "sell", "10", "9700")

    # A loss of 3,000 on a margin of 2,000: 1,000 are claimed, and 600 of them covered.
    assert [FillPosted, LiquidationStarted, ShortfallClaimed, FundDrawn, ShortfallCovered, LiquidationCompleted] == (
        s.kinds)
    assert (ISOLATED, "negative-equity") == (s.told(LiquidationStarted).pool, s.told(LiquidationStarted).reason)
    assert Decimal(1000) == s.told(ShortfallClaimed).amount
    assert (Decimal(600), Decimal(400)) == (s.told(ShortfallCovered).covered, s.told(ShortfallCovered).uncovered)
    assert (Decimal(3000), Decimal(0)) == (s.balance("A"), s.balance("A", pool=ISOLATED))


def test_a_flip_with_a_loss_beyond_isolated_margin_never_touches_the_cross_pool() -> None:
    """Semantics 3: a flip is a close and an open; a loss beyond it goes to the waterfall, never to the cross pool."""
    s = funded("5000")
    s.fund("1000")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")

    # The close loses 3,000 on a margin of 2,000; the open of 1 at 9,700 wants 194, which would go to that loss.
    s.fill("A", "sell", "11", "9700")

    assert [FillPosted, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    event = s.told(FillPosted)
    assert (Decimal(0), ["margin-short", "initial-margin-breached"]) == (event.isolated_margin, event.flags)
    assert (Decimal(3000), Decimal(-1000)) == (s.balance("A"), s.balance("A", pool=ISOLATED))
    # Closed at the price it was opened at, exactly the loss of the first close is claimed and covered.
    s.fill("A", "buy", "1", "9700", liquidation_order_id=s.last(LiquidationOrderPlaced).order_id)
    assert (Decimal(1000), Decimal(0)) == (s.told(ShortfallCovered).covered, s.told(ShortfallCovered).uncovered)
    assert Decimal(3000) == s.balance("A")


def test_an_isolated_loss_shows_in_no_other_pool() -> None:
    """Semantics 3: pools: `cross`, and one per isolated position."""
    s = funded("5000")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")
    s.price("BTC-USD", "9000")

    assert (Decimal(3000), Decimal(-8000)) == (
        s.margin("A").account_equity, s.margin("A", ISOLATED).account_equity)
    assert [ISOLATED] == [event.pool for event in s.events(LiquidationStarted)]


def test_a_fee_in_another_asset_comes_from_the_cross_pool() -> None:
    """Semantics 3: an isolated pool holds the settlement asset; other fees are the account's."""
    s = mixed_desk()
    funded("5000", s)
    s.deposit("A", "EUR", "10")

    s.fill("A", "buy", "10", "10000", margin_mode="isolated", fee="4", fee_asset="EUR")

    assert (Decimal(2000), Decimal(2000), Decimal(6)) == (
        s.told(FillPosted).isolated_margin, s.balance("A", pool=ISOLATED), s.balance("A", "EUR"))
    assert Decimal(4) == s.held_by("fees", "EUR")


def test_a_rebate_is_a_negative_fee() -> None:
    """Contracts 1: `fee`? (may be negative); semantics 5: it comes from the fees."""
    s = funded("5000")

    s.fill("A", "buy", "1", "10000", fee="-0.5")

    assert (Decimal("5000.5"), Decimal("-0.5")) == (s.balance("A"), s.held_by("fees"))


def test_the_accounts_margin_mode_is_the_default_of_new_positions() -> None:
    """Contracts 1: `margin_mode`: `cross` or `isolated` (default for new positions)."""
    s = funded("5000", margin_mode="isolated")

    s.fill("A", "buy", "1", "10000")
    s.account("A", margin_mode="cross")
    s.fill("A", "buy", "1", "10000")

    # The second fill finds the isolated position and adds to it.
    assert ["isolated", "isolated"] == [event.mode for event in s.events(FillPosted)]
    s.fill("A", "sell", "2", "10000")
    s.fill("A", "buy", "1", "10000")
    assert "cross" == s.told(FillPosted).mode
