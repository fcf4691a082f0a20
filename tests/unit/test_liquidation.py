"""Semantics section 4, rule by rule: how a pool is closed out, what a loss does, and the simulated venue.

Unless said otherwise an account holds 10 BTC bought at 10,000. Marked at 9,000 they have lost 10,000 and want a
maintenance margin of 900; a deposit of 10,800 leaves an equity of 800, below the liquidation line of 1 x 900. The
stop line is 1.3 x 900 = 1,170. The order's limit is 9,000 - 800 / 10 = 8,920, where equity is zero.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from infra.venue import SimulatedVenue
from ledger.events import (
    AccountOpened,
    ClockMoved,
    CollateralConverted,
    Deposited,
    Event,
    FillPosted,
    FundDrawn,
    FundingSettled,
    LiquidationCompleted,
    LiquidationOrderCancelled,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallSuperseded,
    MarginWarned,
    PriceRecorded,
    ShortfallClaimed,
    ShortfallCovered,
)
from tests.unit.ledger_scenario import Scenario, desk, long_account, rules, time_of

ENDED = [FillPosted, LiquidationCompleted]


def started(deposit: str = "10800", scenario: Scenario | None = None, **fields: Any) -> Scenario:
    """Account A is being liquidated: 10 BTC at 9,000, with an equity of (deposit - 10,000)."""
    s = scenario or desk()
    long_account(s, "A", deposit, **fields)
    s.price("BTC-USD", "9000")
    assert LiquidationStarted in s.kinds
    return s


def order(s: Scenario) -> LiquidationOrderPlaced:
    """The order that was placed last."""
    return s.last(LiquidationOrderPlaced)


def fill_order(s: Scenario, price: str | None = None, size: str | None = None, *,
               named: LiquidationOrderPlaced | None = None, **fields: Any) -> None:
    """A fill of an order, by default the last one, whole, at its limit."""
    placed = named or order(s)
    s.fill(placed.account, placed.side, size or f"{placed.size:f}", price or f"{placed.limit_price:f}",
           instrument=placed.instrument, liquidation_order_id=placed.order_id, **fields)


def fill_all_at_their_limits(s: Scenario, account: str) -> int:
    """Fill open orders, the first of them first, until none is open; how many it took."""
    for count in range(100):
        running = s.state(account).liquidations.get("cross")
        if running is None or not running.orders:
            return count
        placed = next(iter(running.orders.values()))
        s.fill(account, placed.side, f"{placed.remaining:f}", f"{placed.limit_price:f}", instrument=placed.instrument,
               liquidation_order_id=placed.order_id,
               position_side=None if placed.position_side == "net" else placed.position_side)
    raise AssertionError("the liquidation does not end")


def fills_of(s: Scenario, account: str) -> list[FillPosted]:
    """The fills of an account that the last record left."""
    return [event for event in s.happened if isinstance(event, FillPosted) and event.account == account]


def many_assets() -> Scenario:
    """A desk with EUR at 1.1, cut by 3 %, and BTC, cut by 5 %, as further collateral."""
    s = desk()
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    s.asset("EUR", priced_by="EUR-USD")
    s.instrument("EUR-USD")
    s.price("EUR-USD", "1.1")
    return s


def two_positions(deposit: str) -> Scenario:
    """Account A is being liquidated with 10 BTC at 9,000 and 150 ETH at 200: maintenance margins of 900 and 300."""
    s = desk()
    s.instrument("ETH-USD")
    s.price("ETH-USD", "200")
    s.account("A")
    s.deposit("A", "USD", deposit)
    s.fill("A", "buy", "10", "10000")
    s.fill("A", "buy", "150", "200", instrument="ETH-USD")
    s.price("BTC-USD", "9000")
    return s


# --- the start ---------------------------------------------------------------------------------------------------


def test_liquidation_is_started_and_orders_are_placed() -> None:
    """Semantics 4: liquidation: started, orders placed, fills, completed."""
    s = started()

    assert [PriceRecorded, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    begun, placed = s.told(LiquidationStarted), s.told(LiquidationOrderPlaced)
    assert ("A", "cross", "below-liquidation-line", Decimal("1.3")) == (
        begun.account, begun.pool, begun.reason, begun.stop_level)
    assert (Decimal(800), Decimal(900)) == (begun.evidence.margin_equity, begun.evidence.maintenance_margin)
    assert (begun.liquidation_id, f"order-{s.log[-1].position}") == (placed.liquidation_id, placed.order_id)
    assert ("BTC-USD", "net", "sell", Decimal(10)) == (
        placed.instrument, placed.position_side, placed.side, placed.size)
    assert time_of("10:01:00") == placed.expires_at

    fill_order(s)
    assert ENDED == s.kinds
    assert ("closed", begun.liquidation_id) == (
        s.told(LiquidationCompleted).outcome, s.told(LiquidationCompleted).liquidation_id)


def test_liquidation_of_an_expired_call_runs_up_to_the_stop_line_even_above_1() -> None:
    """Semantics 4: *expired* (deadline passed: liquidation starts up to the stop line even above 1)."""
    s = desk()
    long_account(s, "A", "11000")
    s.price("BTC-USD", "9000")
    s.price("BTC-USD", "9000", at="11:00:00")
    s.clock("11:00:00")
    assert "call-expired" == s.told(LiquidationStarted).reason

    # 1,000 on 900; selling 1 at the mark leaves 810, selling 1 more 720, and another 1,000 / 1.3 = 769.2.
    fill_order(s, "9000", "1")
    assert [FillPosted, LiquidationOrderCancelled, LiquidationOrderPlaced] == s.kinds
    fill_order(s, "9000", "1")

    assert [FillPosted, LiquidationOrderCancelled, LiquidationCompleted] == s.kinds
    assert ("recovered", "recovered") == (
        s.told(LiquidationOrderCancelled).reason, s.told(LiquidationCompleted).outcome)
    assert Decimal(8) == s.state("A").positions["BTC-USD", "cross", "net"].size


def test_liquidation_orders_close_whole_positions_largest_maintenance_margin_first() -> None:
    """Semantics 4: orders placed: one for each open position."""
    s = desk()
    s.instrument("ETH-USD")
    s.price("ETH-USD", "200")
    s.account("A")
    s.deposit("A", "USD", "10600")
    s.fill("A", "sell", "150", "200", instrument="ETH-USD")
    s.fill("A", "buy", "10", "10000")

    s.price("BTC-USD", "9000")

    placed = [event for event in s.happened if isinstance(event, LiquidationOrderPlaced)]
    # Maintenance margins of 900 and 300.
    assert [("BTC-USD", "sell", Decimal(10)), ("ETH-USD", "buy", Decimal(150))] == [
        (event.instrument, event.side, event.size) for event in placed]


# --- limit prices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "mark", "deposit", "limit"), [
    # Equity 800: 9,000 - 80.
    pytest.param("buy", "9000", "10800", "8920", id="a long sells down to where nothing is left"),
    # Short 10 from 10,000 at 11,000: equity 500, 11,000 + 50.
    pytest.param("sell", "11000", "10500", "11050", id="a short buys up to it"),
    # Equity -500: 9,000 + 50.
    pytest.param("buy", "9000", "9500", "9050", id="below zero the limit is better than the mark"),
    pytest.param("sell", "11000", "9500", "10950", id="a short below zero"),
    # Equity 0.
    pytest.param("buy", "9000", "10000", "9000", id="without equity it is the mark"),
])
def test_the_limit_price_is_where_equity_is_zero(side: str, mark: str, deposit: str, limit: str) -> None:
    """Semantics 4: filling all at their limits ends at exactly zero."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", deposit)
    s.fill("A", side, "10", "10000")

    s.price("BTC-USD", mark)

    assert Decimal(limit) == order(s).limit_price


def test_limits_share_account_equity_in_proportion_to_maintenance_margin() -> None:
    """Semantics 4: an order's `limit_price` shares account_equity over the open positions in proportion to their
    maintenance margin."""
    s = desk()
    s.instrument("ETH-USD")
    s.price("ETH-USD", "200")
    s.account("A")
    s.deposit("A", "USD", "10600")
    s.fill("A", "buy", "10", "10000")
    s.fill("A", "sell", "150", "200", instrument="ETH-USD")

    # Equity 600 on 900 + 300: 450 for BTC, 450 / 10 below its mark; 150 for ETH, 150 / 150 above its mark.
    s.price("BTC-USD", "9000")

    assert {"BTC-USD": Decimal(8955), "ETH-USD": Decimal(201)} == {
        event.instrument: event.limit_price for event in s.happened if isinstance(event, LiquidationOrderPlaced)}


def test_limits_share_account_equity_and_not_margin_equity() -> None:
    """Semantics 3, 4: account_equity decides bankruptcy and loss."""
    s = many_assets()
    s.account("A")
    # 0.9 BTC at 9,000 are 8,100, and 7,695 after haircut: 10,600 - 10,000 + ... in USD 2,600.
    s.deposit("A", "USD", "2600")
    s.deposit("A", "BTC", "0.9")
    s.fill("A", "buy", "10", "10000")

    s.price("BTC-USD", "9000")

    # Account equity 2,600 + 8,100 - 10,000 = 700; margin equity 295 on 900.
    assert (Decimal(700), Decimal(295)) == (
        order(s).evidence.account_equity, order(s).evidence.margin_equity)
    assert Decimal(8930) == order(s).limit_price


# (instrument, side, size, price bought at, mark when liquidated); sizes and prices as awkward as they come.
AWKWARD = {
    "one long": [("BTC-USD", "buy", "1.237", "10000", "9000.01")],
    "one short": [("BTC-USD", "sell", "0.777", "9999.99", "11111.11")],
    "a third of a contract at a third of a price": [("ETH-USD", "buy", "33.333", "200.333333333333333333", "180.1")],
    "long and short": [("BTC-USD", "buy", "1.237", "10000", "9000.01"),
                       ("ETH-USD", "sell", "17.013", "200", "200.37")],
    "three, of which one wins": [("BTC-USD", "buy", "3.001", "10000.000000000000000001", "8999.99"),
                                 ("ETH-USD", "sell", "7.007", "199.99", "188.88"),
                                 ("SOL-USD", "buy", "333.331", "20.123456789", "19.0000001")],
    "across brackets": [("BTC-USD", "sell", "123.457", "10000", "10799.99"),
                        ("SOL-USD", "buy", "9999.999", "20", "19.5")],
}


@pytest.mark.parametrize("lacking", ["0.07", "0.5", "1.2"])
@pytest.mark.parametrize("positions", AWKWARD.values(), ids=AWKWARD)
def test_filling_all_orders_at_their_limits_ends_at_exactly_zero(positions: list[tuple[str, str, str, str, str]],
                                                                lacking: str) -> None:
    """Semantics 4: so that filling all at their limits ends at exactly zero; recomputed after each fill."""
    s = desk()
    for instrument, opened in (("ETH-USD", "200"), ("SOL-USD", "20")):
        s.instrument(instrument)
        s.price(instrument, opened)
    profit, maintenance = figures_by_hand(positions)
    # At the last marks the account is to have (1 - lacking) of its maintenance margin; what it has beyond is a fee.
    left = (maintenance * (1 - Decimal(lacking)) - profit).quantize(Decimal("0.01"))
    s.account("A")
    s.deposit("A", "USD", "1000000")
    for number, (instrument, side, size, price, _) in enumerate(positions, start=1):
        fee = f"{1000000 - left:f}" if number == len(positions) else None
        s.fill("A", side, size, price, instrument=instrument, fee=fee)
    for instrument, _, _, _, mark in positions:
        s.price(instrument, mark)
    assert s.state("A").liquidations

    fills = fill_all_at_their_limits(s, "A")

    assert fills >= 1
    assert (Decimal(0), {}) == (s.balance("A"), dict(s.state("A").positions))
    assert not s.events(ShortfallClaimed)
    assert "closed" == s.last(LiquidationCompleted).outcome


def figures_by_hand(positions: list[tuple[str, str, str, str, str]]) -> tuple[Decimal, Decimal]:
    """(unrealised PnL, maintenance margin) of positions at their last marks, bracket by bracket."""
    profit = maintenance = Decimal(0)
    # (floor, rate) of each bracket that these tests reach; the last one has no end.
    brackets = {"BTC-USD": [("0", "0.01"), ("250000", "0.015"), ("1000000", "0.02"), ("5000000", "0.04")],
                "ETH-USD": [("0", "0.01"), ("150000", "0.015")],
                "SOL-USD": [("0", "0.02"), ("50000", "0.025"), ("250000", "0.05"), ("1000000", "0.1")]}
    for instrument, side, size, price, mark in positions:
        signed = Decimal(size) if side == "buy" else -Decimal(size)
        profit += signed * (Decimal(mark) - Decimal(price))
        notional = abs(signed) * Decimal(mark)
        floors = [Decimal(floor) for floor, _ in brackets[instrument]]
        for (_, rate), floor, ceiling in zip(brackets[instrument], floors, [*floors[1:], notional], strict=True):
            maintenance += max(Decimal(0), min(notional, ceiling) - floor) * Decimal(rate)
    return profit, maintenance


def test_filling_all_at_their_limits_ends_at_zero_in_hedge_mode() -> None:
    """Semantics 4: filling all at their limits ends at exactly zero, a long and a short of one market included."""
    s = desk()
    s.account("A", position_mode="hedge")
    s.deposit("A", "USD", "7200.01")
    s.fill("A", "buy", "10.001", "10000", position_side="long")
    s.fill("A", "sell", "3.003", "9999.99", position_side="short")

    # 7,200.01 - 10.001 x 1,000 + 3.003 x 999.99 = 201.98 on (90,009 + 27,027) x 1 %.
    s.price("BTC-USD", "9000")
    assert ["long", "short"] == [row.position_side for row in s.happened if isinstance(row, LiquidationOrderPlaced)]
    fill_all_at_their_limits(s, "A")

    assert (Decimal(0), {}) == (s.balance("A"), dict(s.state("A").positions))
    assert "closed" == s.last(LiquidationCompleted).outcome


def test_filling_at_the_limit_ends_at_zero_where_a_position_settles_in_another_asset() -> None:
    """Semantics 3, 4: filling all at their limits ends at exactly zero, in the asset that the position settles in."""
    s = many_assets()
    s.instrument("SOL-BTC")
    s.price("SOL-BTC", "0.01")
    s.account("A")
    s.deposit("A", "BTC", "0.30700001")
    s.fill("A", "sell", "777", "0.01", instrument="SOL-BTC")

    # 0.30700001 BTC are 2,916.50 after haircut, less a loss of 777 x 0.0002 = 0.1554 BTC; on 2 % of 7.9254 BTC,
    # 1,585.08.
    s.price("SOL-BTC", "0.0102")
    assert LiquidationStarted in s.kinds
    fill_all_at_their_limits(s, "A")

    assert (Decimal(0), {}) == (s.balance("A", "BTC"), dict(s.state("A").positions))
    assert "closed" == s.last(LiquidationCompleted).outcome


def test_limits_are_recomputed_after_each_fill() -> None:
    """Semantics 4: recomputed after each fill."""
    s = two_positions("10600")
    bitcoin, ether = [event for event in s.happened if isinstance(event, LiquidationOrderPlaced)]
    assert (Decimal(8955), Decimal(199)) == (bitcoin.limit_price, ether.limit_price)

    # 5 better than the limit: 600 - 400 = 200 are left for ETH, 200 / 150 below its mark, rounded up to 18 places.
    fill_order(s, "8960", named=bitcoin)

    assert [FillPosted, LiquidationOrderCancelled, LiquidationOrderPlaced] == s.kinds
    cancelled = s.told(LiquidationOrderCancelled)
    assert (ether.order_id, "repriced") == (cancelled.order_id, cancelled.reason)
    assert Decimal("198.666666666666666667") == order(s).limit_price


def test_marks_alone_do_not_move_the_limits() -> None:
    """Semantics 4: recomputed after each fill (docs/decisions: marks alone do not move the quotes, expiry does)."""
    s = two_positions("10600")

    # 150 less of equity, and other shares of it.
    s.price("ETH-USD", "199")

    assert [PriceRecorded] == s.kinds
    assert [Decimal(8955), Decimal(199)] == [event.limit_price for event in s.events(LiquidationOrderPlaced)]


# --- the life of an order ----------------------------------------------------------------------------------------


def test_a_part_fill_at_the_limit_leaves_the_order_part_filled() -> None:
    """Semantics 4: order states: open, part-filled, filled, expired, cancelled."""
    s = started()

    # At the limit the rest is worth what it was: 10,800 - 4 x 1,080 = 6,480, less 6,000, is 6 x 80.
    fill_order(s, size="4")
    assert [FillPosted] == s.kinds
    assert (Decimal(4), Decimal(6)) == (
        s.state("A").liquidations["cross"].orders[order(s).order_id].filled,
        s.state("A").liquidations["cross"].orders[order(s).order_id].remaining)

    fill_order(s, size="6")
    assert ENDED == s.kinds
    assert ([], Decimal(0)) == (s.told(FillPosted).flags, s.balance("A"))


def test_a_part_fill_off_the_limit_is_quoted_anew_for_the_rest() -> None:
    """Semantics 4: recomputed after each fill."""
    s = started()

    # 4 at 8,960: 800 - 160 = 640 are left for 6, on 540: 9,000 - 640 / 6.
    fill_order(s, "8960", "4")

    assert [FillPosted, LiquidationOrderCancelled, LiquidationOrderPlaced] == s.kinds
    cancelled = s.told(LiquidationOrderCancelled)
    assert ("repriced", Decimal(4)) == (cancelled.reason, cancelled.filled)
    assert (Decimal(6), Decimal("8893.333333333333333334")) == (order(s).size, order(s).limit_price)


@pytest.mark.parametrize("change", [
    pytest.param({}, id="an order that is filled"),
    pytest.param({"liquidation_order_id": "order-0"}, id="an order that never was"),
])
def test_a_fill_that_names_a_closed_order_is_posted_and_flagged(change: dict[str, Any]) -> None:
    """Semantics 4: a fill that names a closed order or exceeds its size is still posted, and flagged."""
    s = started()
    fill_order(s)
    closed = order(s).order_id

    s.fill("A", "sell", "1", "9000", **{"liquidation_order_id": closed, **change})

    assert FillPosted is s.kinds[0]
    assert ["order-closed"] == s.told(FillPosted).flags
    assert Decimal(-1) == s.told(FillPosted).position_size


def test_a_fill_that_does_not_fit_the_order_it_names_is_posted_and_flagged() -> None:
    """Semantics 4: facts are never refused; a fill of another side or instrument does not fill the order."""
    s = started()
    s.instrument("ETH-USD")

    s.fill("A", "buy", "1", "9000", liquidation_order_id=order(s).order_id)
    assert ["order-closed"] == s.told(FillPosted).flags
    s.fill("A", "sell", "1", "200", instrument="ETH-USD", liquidation_order_id=order(s).order_id)
    assert ["order-closed"] == s.told(FillPosted).flags


def test_a_fill_that_names_another_accounts_order_is_posted_and_flagged() -> None:
    """Semantics 4: a fill that names a closed order is still posted, and flagged; another's is none of this account."""
    s = started()
    long_account(s, "B", "100000")

    s.fill("B", "sell", "1", "9000", liquidation_order_id=order(s).order_id)

    assert [FillPosted] == s.kinds
    assert ("B", ["order-closed"]) == (s.told(FillPosted).account, s.told(FillPosted).flags)
    assert Decimal(0) == s.state("A").liquidations["cross"].orders[order(s).order_id].filled


def test_a_fill_beyond_the_orders_size_is_posted_and_flagged() -> None:
    """Semantics 4: a fill that exceeds its size is still posted, and flagged."""
    s = started()
    placed = order(s)

    # 12 of 10 at the limit: nothing is left, and 2 are short without any equity.
    fill_order(s, size="12")

    event = s.told(FillPosted)
    assert (["order-exceeded"], Decimal(10), Decimal(-2)) == (event.flags, event.closed_size, event.position_size)
    # The liquidation goes on with what there is now.
    assert [FillPosted, LiquidationOrderPlaced] == s.kinds
    assert ("buy", Decimal(2), placed.liquidation_id) == (order(s).side, order(s).size, order(s).liquidation_id)


def test_a_fill_beyond_what_is_left_of_the_order_is_posted_and_flagged() -> None:
    """Semantics 4: a fill that exceeds its size is still posted, and flagged: what a part fill left of it."""
    s = started()
    fill_order(s, size="4")

    fill_order(s, size="7")

    assert (["order-exceeded"], Decimal(-1)) == (s.told(FillPosted).flags, s.told(FillPosted).position_size)


def test_an_order_expires_and_is_quoted_again() -> None:
    """Semantics 4: expiry cancels and, still below the stop line, quotes again."""
    s = started()
    first = order(s)
    # 100 less for each of 10: equity 700.
    s.price("BTC-USD", "8990")

    s.clock("10:00:59.999999999")
    assert [ClockMoved] == s.kinds
    s.clock("10:01:00")

    assert [LiquidationOrderCancelled, LiquidationOrderPlaced, ClockMoved] == s.kinds
    assert (first.order_id, "expired", Decimal(0)) == (
        s.told(LiquidationOrderCancelled).order_id, s.told(LiquidationOrderCancelled).reason,
        s.told(LiquidationOrderCancelled).filled)
    # Now at the mark of 8,990: 8,990 - 70.
    assert (Decimal(8920), time_of("10:02:00"), first.liquidation_id) == (
        order(s).limit_price, order(s).expires_at, order(s).liquidation_id)
    assert first.order_id != order(s).order_id


def test_an_order_that_expires_is_quoted_anew_alone_before_the_record_is_applied() -> None:
    """Semantics 2, 4: timers are judged on the state before the record; expiry cancels and quotes again."""
    s = started("10675")
    s.instrument("ETH-USD", at="10:00:30")
    s.price("ETH-USD", "200")
    # Equity 675 on 900. 225 ETH bought at 198.50 add 337.50 of profit and 450 of maintenance margin, so that BTC's
    # share stays 675 of 1,012.50 and its order stands; that of ETH is half a minute younger.
    s.fill("A", "buy", "225", "198.5", instrument="ETH-USD")
    assert [FillPosted, LiquidationOrderPlaced] == s.kinds
    # The mark alone moves neither limit, though both would be others by now.
    s.price("ETH-USD", "199")

    s.deposit("A", "USD", "1", at="10:01:00")

    told = [(type(event), getattr(event, "reason", getattr(event, "instrument", ""))) for event in s.happened]
    assert [(LiquidationOrderCancelled, "expired"), (LiquidationOrderPlaced, "BTC-USD"), (Deposited, "")] == told[:3]
    assert [(LiquidationOrderCancelled, "repriced")] * 2 == told[3:5]
    assert [(LiquidationOrderPlaced, "BTC-USD"), (LiquidationOrderPlaced, "ETH-USD")] == told[5:]


def test_a_fill_of_an_expired_order_is_posted_and_flagged() -> None:
    """Semantics 4: facts are never refused for expiry: a fill is posted and flagged."""
    s = started()
    expired = order(s)
    s.clock("10:01:00")

    fill_order(s, size="4", named=expired)

    assert ["order-closed"] == s.told(FillPosted).flags
    # The order that took its place no longer fits the position.
    assert [FillPosted, LiquidationOrderCancelled, LiquidationOrderPlaced] == s.kinds
    assert ("position-changed", Decimal(6)) == (s.told(LiquidationOrderCancelled).reason, order(s).size)


@pytest.mark.parametrize(("mark", "decisions"), [
    # With 10,775.20 the equity at 9,040 is 1,175.20 = 1.3 x 904.
    pytest.param("9039.99", [], id="below the stop line"),
    pytest.param("9040", [LiquidationOrderCancelled, LiquidationCompleted, MarginWarned], id="at the stop line"),
])
def test_a_recovery_of_the_market_cancels(mark: str, decisions: list[type[Event]]) -> None:
    """Semantics 4: a stop line for liquidation under way; recovery cancels."""
    s = started("10775.2")

    s.price("BTC-USD", mark)

    # What is left at the stop line stands below the warning line, and is warned as anybody would be.
    assert [PriceRecorded, *decisions] == s.kinds


@pytest.mark.parametrize(("amount", "decisions"), [
    # 800 + 370 = 1,170 = 1.3 x 900.
    pytest.param("370", [LiquidationOrderCancelled, LiquidationCompleted, MarginWarned], id="at the stop line"),
    pytest.param("369.99", [LiquidationOrderCancelled, LiquidationOrderPlaced], id="below the stop line"),
])
def test_a_deposit_in_the_middle_rescues_from_the_stop_line_on(amount: str, decisions: list[type[Event]]) -> None:
    """Semantics 4: a stop line for liquidation under way; recovery cancels."""
    s = started()

    s.deposit("A", "USD", amount)

    assert [Deposited, *decisions] == s.kinds


def test_a_rescue_leaves_the_position_and_the_account_as_any_other() -> None:
    """Semantics 4: recovery cancels."""
    s = started()
    s.deposit("A", "USD", "370")
    assert ("recovered", "recovered") == (
        s.told(LiquidationOrderCancelled).reason, s.told(LiquidationCompleted).outcome)

    # 1,170 - 50 on 899.5 is 1.245: called as any other, and the deposit met no call.
    s.price("BTC-USD", "8995")
    assert [PriceRecorded, MarginCallIssued] == s.kinds
    assert Decimal(10) == s.state("A").positions["BTC-USD", "cross", "net"].size


def test_a_deposit_that_does_not_rescue_moves_the_limits() -> None:
    """Semantics 4: filling all at their limits ends at exactly zero, the deposit included."""
    s = started()

    s.deposit("A", "USD", "100")

    assert [Deposited, LiquidationOrderCancelled, LiquidationOrderPlaced] == s.kinds
    # 9,000 - 900 / 10.
    assert ("repriced", Decimal(8910)) == (s.told(LiquidationOrderCancelled).reason, order(s).limit_price)
    fill_order(s)
    assert Decimal(0) == s.balance("A")


def test_own_fills_meanwhile_change_the_orders() -> None:
    """Semantics 4: a fill of the account itself is posted, and the orders follow the position."""
    s = started("10600")

    # 4 at 10 below the mark: 560 are left for 6, on 540.
    s.fill("A", "sell", "4", "8990")

    assert [FillPosted, LiquidationOrderCancelled, LiquidationOrderPlaced] == s.kinds
    assert ([], "position-changed") == (s.told(FillPosted).flags, s.told(LiquidationOrderCancelled).reason)
    # 9,000 - 560 / 6.
    assert (Decimal(6), Decimal("8906.666666666666666667")) == (order(s).size, order(s).limit_price)


def test_an_own_fill_that_recovers_the_account_ends_the_liquidation() -> None:
    """Semantics 4: recovery cancels."""
    s = started()

    # 5 at the mark: 800 on 450.
    s.fill("A", "sell", "5", "9000")

    assert [FillPosted, LiquidationOrderCancelled, LiquidationCompleted] == s.kinds
    assert "recovered" == s.told(LiquidationCompleted).outcome


def test_an_own_fill_that_closes_everything_ends_the_liquidation() -> None:
    """Semantics 4: liquidation: started, orders placed, fills, completed."""
    s = started()

    s.fill("A", "sell", "10", "8990")

    assert [FillPosted, LiquidationOrderCancelled, LiquidationCompleted] == s.kinds
    assert ("closed", Decimal(700)) == (s.told(LiquidationCompleted).outcome, s.balance("A"))


def test_an_own_fill_that_turns_the_position_turns_the_order() -> None:
    """Semantics 4: orders follow the open positions."""
    s = started("10100")

    # Sold 30 of 10 at the mark: 20 short with an equity of 100 on 1,800.
    s.fill("A", "sell", "30", "9000")

    assert ["initial-margin-breached"] == s.told(FillPosted).flags
    assert ("position-changed", "buy", Decimal(20), Decimal(9005)) == (
        s.told(LiquidationOrderCancelled).reason, order(s).side, order(s).size, order(s).limit_price)


def test_a_position_opened_meanwhile_gets_an_order() -> None:
    """Semantics 4: shares account_equity over the open positions."""
    s = started()
    s.instrument("ETH-USD")
    s.price("ETH-USD", "200")

    s.fill("A", "buy", "150", "200", instrument="ETH-USD")

    # 800 on 900 + 300: 600 for BTC, 200 for ETH.
    assert ["initial-margin-breached"] == s.told(FillPosted).flags
    assert {"BTC-USD": Decimal(8940), "ETH-USD": Decimal(200) - Decimal("1.333333333333333333")} == {
        event.instrument: event.limit_price for event in s.happened if isinstance(event, LiquidationOrderPlaced)}


def test_funding_is_settled_before_the_liquidation_starts() -> None:
    """Semantics 3, 4: account_equity counts accrued funding, settled on the account's next event."""
    s = desk()
    long_account(s, "A", "11000")
    # 10 x 0.002 x 10,000 = 200.
    s.funding("BTC-USD", "0.002")

    s.price("BTC-USD", "9000")

    assert [PriceRecorded, FundingSettled, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    assert (Decimal(800), Decimal(8920)) == (order(s).evidence.account_equity, order(s).limit_price)


# --- isolated pools ----------------------------------------------------------------------------------------------


def test_an_isolated_pool_is_liquidated_alone() -> None:
    """Semantics 3, 4: a pool never pays for another, and is closed out by itself."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "50000")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")
    s.fill("A", "buy", "10", "10000", margin_mode="cross")

    # The isolated pool: 2,000 - 1,500 = 500 on 985.
    s.price("BTC-USD", "9850")
    assert ["isolated:BTC-USD:net"] == [event.pool for event in s.events(LiquidationOrderPlaced)]
    assert Decimal(9800) == order(s).limit_price
    s.fill("A", "sell", "10", "9820", liquidation_order_id=order(s).order_id)

    # 2,000 - 1,800 = 200 are left and go back to the cross pool, whose position stands.
    assert (ENDED, Decimal(-200), "isolated") == (
        s.kinds[:2], s.told(FillPosted).isolated_margin, s.told(FillPosted).mode)
    assert (Decimal(48200), ["cross"]) == (s.balance("A"), s.state("A").pools())
    assert Decimal(10) == s.state("A").positions["BTC-USD", "cross", "net"].size


def test_a_loss_of_an_isolated_liquidation_never_touches_the_cross_pool() -> None:
    """Semantics 3: a loss beyond it goes to the waterfall, never to the cross pool."""
    s = desk()
    s.fund("10000")
    s.account("A")
    s.deposit("A", "USD", "50000")
    s.fill("A", "buy", "10", "10000", margin_mode="isolated")
    s.price("BTC-USD", "9850")

    fill_order(s, "9700")

    assert [FillPosted, ShortfallClaimed, FundDrawn, ShortfallCovered, LiquidationCompleted] == s.kinds
    assert (Decimal(1000), "isolated:BTC-USD:net") == (s.told(ShortfallClaimed).amount, s.told(ShortfallClaimed).pool)
    assert (Decimal(48000), Decimal(9000)) == (s.balance("A"), s.held_by("fund:insurance"))


# --- stale marks -------------------------------------------------------------------------------------------------


def endangered_on_a_stale_mark() -> Scenario:
    """Two accounts fall below the liquidation line by a fee each, while their mark is twenty minutes old."""
    s = desk()
    for account, deposit in (("A", "2000"), ("B", "2000")):
        s.account(account)
        s.deposit(account, "USD", deposit)
        s.fill(account, "buy", "10", "10000")
    s.clock("10:20:00")
    s.fill("A", "buy", "0.001", "10000", fee="1300")
    s.fill("B", "buy", "0.001", "10000", fee="1500")
    return s


def test_no_liquidation_starts_on_a_stale_mark() -> None:
    """Semantics 4: no liquidation *starts* on a stale mark."""
    s = endangered_on_a_stale_mark()

    # About 700 and 500 on 1,000: called, since that is below the call line too, and not more.
    assert [FillPosted, MarginCallIssued] == s.kinds
    assert not s.events(LiquidationStarted)
    assert Decimal(1200) == s.told(MarginCallIssued).evidence.marks["BTC-USD"].age_seconds


def test_after_a_stale_mark_there_is_one_re_evaluation_pass_in_order() -> None:
    """Semantics 4: after either, one re-evaluation pass in order."""
    s = endangered_on_a_stale_mark()

    s.price("BTC-USD", "10000", at="10:20:00")

    assert [PriceRecorded] + [MarginCallSuperseded, LiquidationStarted, LiquidationOrderPlaced] * 2 == s.kinds
    assert ["B", "A"] == [event.account for event in s.happened if isinstance(event, LiquidationStarted)]


def test_a_fresh_mark_that_heals_starts_nothing() -> None:
    """Semantics 4: no liquidation starts on a stale mark; what the fresh one says, holds."""
    s = endangered_on_a_stale_mark()

    # 100 more for each of 10: about 1,700 and 1,500 on 1,010.
    s.price("BTC-USD", "10100", at="10:20:00")

    assert not s.events(LiquidationStarted)


@pytest.mark.parametrize(("at", "decisions"), [
    pytest.param("10:15:00", [LiquidationStarted, LiquidationOrderPlaced], id="at the maximum age of 900 s"),
    pytest.param("10:15:00.000000001", [MarginCallIssued], id="past it"),
])
def test_a_mark_is_stale_past_the_maximum_age(at: str, decisions: list[type[Event]]) -> None:
    """Semantics 2, 4: mark age = log time - the market's time; no liquidation starts on a stale mark."""
    s = desk()
    long_account(s, "A", "2000")

    s.fill("A", "buy", "0.001", "10000", fee="1300", at=at)

    assert [FillPosted, *decisions] == s.kinds


def test_a_call_that_expires_on_a_stale_mark_is_liquidated_at_the_next_fresh_one() -> None:
    """Semantics 4: expired: liquidation starts up to the stop line; but none starts on a stale mark."""
    s = desk()
    long_account(s, "A", "11000")
    s.price("BTC-USD", "9000")

    s.clock("11:00:00")
    assert [MarginCallExpired, ClockMoved] == s.kinds
    refused = s.withdraw("A", "USD", "1")
    assert "liquidation-open" == refused.reason

    s.price("BTC-USD", "9001", at="11:00:00")
    assert [PriceRecorded, LiquidationStarted, LiquidationOrderPlaced] == s.kinds
    assert "call-expired" == s.told(LiquidationStarted).reason


def test_a_stale_mark_of_collateral_holds_a_liquidation_back() -> None:
    """Semantics 3, 4: a stale mark: any that values the pool."""
    s = many_assets()
    s.account("A")
    s.deposit("A", "EUR", "100")
    s.deposit("A", "USD", "10700")
    s.fill("A", "buy", "10", "10000")
    s.clock("10:20:00")

    # 700 + 106.7 on 900; BTC-USD is fresh, EUR-USD is not.
    s.price("BTC-USD", "9000", at="10:20:00")
    assert [PriceRecorded, MarginCallIssued] == s.kinds

    s.price("EUR-USD", "1.1", at="10:20:00")
    assert [PriceRecorded, MarginCallSuperseded, LiquidationStarted, LiquidationOrderPlaced] == s.kinds


def test_a_stale_mark_of_another_market_holds_nothing_back() -> None:
    """Semantics 4: no liquidation starts on a stale mark of its own."""
    s = many_assets()
    long_account(s, "A", "10800")
    s.clock("10:20:00")

    s.price("BTC-USD", "9000", at="10:20:00")

    assert [PriceRecorded, LiquidationStarted, LiquidationOrderPlaced] == s.kinds


def test_a_liquidation_under_way_goes_on_while_its_mark_is_stale() -> None:
    """Semantics 4: no liquidation *starts* on a stale mark."""
    s = started()

    s.clock("10:30:00")
    assert [LiquidationOrderCancelled, LiquidationOrderPlaced, ClockMoved] == s.kinds
    fill_order(s)
    assert ENDED == s.kinds


# --- conversion and loss -----------------------------------------------------------------------------------------


def converted(fund: str | None = None, recourse: str | None = None) -> Scenario:
    """A is closed at its limit and owes 3,020 USD against 0.2 BTC and 1,000 EUR.

    At 9,600: USD 1,000, EUR 1,100 (1,067 after haircut), BTC 1,920 (1,824), PnL -4,000: account equity 20, margin
    equity -109 on 960. Limit 9,600 - 20 / 10 = 9,598, where 10 BTC realise -4,020.
    """
    s = many_assets()
    if recourse is not None:
        s.rulebook(rules(liquidation={"recourse": recourse}))
    if fund is not None:
        s.fund(fund)
    s.account("A")
    for asset, amount in (("USD", "1000"), ("EUR", "1000"), ("BTC", "0.2")):
        s.deposit("A", asset, amount)
    s.fill("A", "buy", "10", "10000")
    s.price("BTC-USD", "9600")
    assert Decimal(9598) == order(s).limit_price
    fill_order(s)
    return s


def test_collateral_is_converted_largest_first() -> None:
    """Semantics 4: the account's other assets are first converted with the house at mark less the rulebook's
    conversion fee, largest first, as much as the debt needs."""
    s = converted()

    first, second = [event for event in s.happened if isinstance(event, CollateralConverted)]
    # 0.2 x 9,600 x 0.995 = 1,910.40; the other 1,109.60 would take 1,013.8 EUR, so all 1,000 go: 1,100 x 0.995.
    assert ("BTC", Decimal("0.2"), "USD", Decimal("1910.4")) == (
        first.sold_asset, first.sold_amount, first.bought_asset, first.bought_amount)
    assert ("EUR", Decimal(1000), "USD", Decimal("1094.5")) == (
        second.sold_asset, second.sold_amount, second.bought_asset, second.bought_amount)
    assert [(Decimal(9600), Decimal("0.005")), (Decimal("1.1"), Decimal("0.005"))] == [
        (event.price, event.fee_rate) for event in (first, second)]
    assert (Decimal("0.2"), Decimal(1000)) == (s.held_by("house", "BTC"), s.held_by("house", "EUR"))


def test_only_what_is_then_still_negative_is_claimed() -> None:
    """Semantics 4: only what is then still negative leaves as `shortfall claimed`."""
    s = converted()

    # 3,020 - 1,910.40 - 1,094.50: the conversion fees.
    assert Decimal("15.1") == s.told(ShortfallClaimed).amount
    kinds = [FillPosted, CollateralConverted, CollateralConverted, ShortfallClaimed, FundDrawn, ShortfallCovered,
             LiquidationCompleted]
    assert kinds == s.kinds[:7]
    assert (Decimal(0), Decimal(0), Decimal(0)) == (s.balance("A"), s.balance("A", "EUR"), s.balance("A", "BTC"))


def test_only_as_much_is_converted_as_the_debt_needs() -> None:
    """Semantics 4: as much as the debt needs."""
    s = many_assets()
    s.account("A")
    s.deposit("A", "EUR", "100")
    s.deposit("A", "BTC", "1")
    s.fill("A", "buy", "20", "10000")
    # PnL -8,000; BTC 9,600, after haircut 9,120; EUR 106.7: 1,226.7 on 1,920. Sold at the mark, 8,000 USD are owed.
    s.price("BTC-USD", "9600")

    fill_order(s, "9600")

    # 8,000 / (9,600 x 0.995) = 0.837520938..., rounded up; it brings 8,000.0000188, rounded down.
    event = s.told(CollateralConverted)
    assert ("BTC", Decimal("0.83752094"), Decimal(8000)) == (event.sold_asset, event.sold_amount, event.bought_amount)
    assert (Decimal(0), Decimal("0.16247906"), Decimal(100)) == (
        s.balance("A"), s.balance("A", "BTC"), s.balance("A", "EUR"))
    assert "closed" == s.told(LiquidationCompleted).outcome
    assert not s.events(ShortfallClaimed)


def test_nothing_is_converted_while_a_position_is_left() -> None:
    """Semantics 4: when no position is left and a balance is negative."""
    s = many_assets()
    s.account("A")
    s.deposit("A", "BTC", "0.45")
    s.fill("A", "buy", "10", "10000")
    # 0.45 x 9,600 = 4,320, after haircut 4,104; PnL -4,000: 104 on 960.
    s.price("BTC-USD", "9600")

    fill_order(s, size="4")

    # The debt of 4 x 432 stands until the rest is closed too.
    assert not s.events(CollateralConverted)
    assert Decimal(-1728) == s.balance("A")


def test_an_asset_without_a_mark_is_not_converted() -> None:
    """Semantics 3, 4: converted at mark; without a mark it counts zero."""
    s = desk()
    s.asset("NEW", priced_by="NEW-USD")
    s.instrument("NEW-USD")
    s.account("A")
    s.deposit("A", "NEW", "1000")
    s.deposit("A", "USD", "10000")
    s.fill("A", "buy", "10", "10000")
    s.price("BTC-USD", "8990")

    fill_order(s, "8990")

    assert Decimal(100) == s.told(ShortfallClaimed).amount
    assert Decimal(1000) == s.balance("A", "NEW")


def test_debts_in_several_assets_are_claimed_one_by_one_the_largest_first() -> None:
    """Semantics 4: only what is then still negative leaves as `shortfall claimed`, asset by asset."""
    s = many_assets()
    s.fund("30", asset="EUR")
    s.account("A")
    s.deposit("A", "USD", "10800")
    s.fill("A", "buy", "10", "10000", fee="40", fee_asset="EUR")
    s.price("BTC-USD", "9000")

    # 10,000 lost at 9,000 and 200 more: USD 10,800 - 11,000 = -200; 40 EUR are 44 USD.
    fill_order(s, "8900")

    assert [("USD", Decimal(200)), ("EUR", Decimal(40))] == [
        (event.asset, event.amount) for event in s.happened if isinstance(event, ShortfallClaimed)]
    assert [("USD", Decimal(0)), ("EUR", Decimal(30))] == [
        (event.asset, event.covered) for event in s.happened if isinstance(event, ShortfallCovered)]
    assert [LiquidationCompleted] == s.kinds[-1:]


def lost(fund: str | None, recourse: str = "limited") -> Scenario:
    """A is sold out at 8,900 and loses 11,000 of 10,800: 200 are owed."""
    s = desk()
    s.rulebook(rules(liquidation={"recourse": recourse}))
    if fund is not None:
        s.fund(fund)
    started(scenario=s)
    fill_order(s, "8900")
    return s


@pytest.mark.parametrize(("fund", "covered"), [
    pytest.param("1000", "200", id="covered"),
    pytest.param("200", "200", id="covered to the last cent"),
    pytest.param("150", "150", id="covered in part"),
    pytest.param(None, "0", id="not covered, since the fund is empty"),
])
def test_a_shortfall_is_claimed_and_answered_by_the_fund(fund: str | None, covered: str) -> None:
    """Semantics 4: `shortfall claimed`, answered by events of the funds (`shortfall covered` ...) in their own
    streams, also where both are in one log."""
    s = lost(fund)

    assert [FillPosted, ShortfallClaimed, FundDrawn, ShortfallCovered, LiquidationCompleted] == s.kinds[:5]
    claim, drawn, cover = s.told(ShortfallClaimed), s.told(FundDrawn), s.told(ShortfallCovered)
    assert ("USD", Decimal(200), "cross") == (claim.asset, claim.amount, claim.pool)
    before = Decimal(fund or 0)
    assert (claim.claim_id, Decimal(200), Decimal(covered), before, before - Decimal(covered)) == (
        drawn.claim_id, drawn.claimed, drawn.amount, drawn.before, drawn.after)
    assert (claim.claim_id, Decimal(covered), Decimal(200) - Decimal(covered), "insurance") == (
        cover.claim_id, cover.covered, cover.uncovered, cover.fund)
    streams = {type(row.event): row.originator_id for row in s.log[-len(s.happened):]}
    assert ("account:A", "fund:insurance:USD") == (streams[ShortfallClaimed], streams[FundDrawn])
    assert "shortfall" == s.told(LiquidationCompleted).outcome
    # What nobody covered stays open.
    assert Decimal(covered) - 200 == s.held_by("shortfall")
    assert before - Decimal(covered) == s.held_by("fund:insurance")


@pytest.mark.parametrize(("recourse", "debts"), [
    pytest.param("limited", {}, id="limited: nothing is owed"),
    pytest.param("full", {"USD": Decimal(200)}, id="full: the account owes"),
])
def test_the_account_ends_at_zero_or_owes(recourse: str, debts: dict[str, Decimal]) -> None:
    """Semantics 4: the account ends at zero (`recourse: limited`) or owes (`full`)."""
    s = lost("1000", recourse)

    assert recourse == s.told(ShortfallClaimed).recourse
    assert debts == s.state("A").debts
    assert Decimal(0) == s.balance("A")


def test_a_loss_is_claimed_once() -> None:
    """Semantics 4: only what is then still negative leaves as `shortfall claimed`."""
    s = lost(None)

    s.clock("12:00:00")
    s.price("BTC-USD", "8000", at="12:00:00")

    assert 1 == len(s.events(ShortfallClaimed))
    assert "healthy" == s.status("A")


def test_losses_of_one_record_draw_on_the_fund_in_order() -> None:
    """Semantics 2, 4: worst margin ratio first, so that who comes first is a rule and not chance."""
    s = Scenario()
    s.asset("USD")
    s.instrument("BTC-USD")
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    s.price("BTC-USD", "10000")
    s.fund("500")
    for account in ("B", "A"):
        s.account(account)
        s.deposit(account, "BTC", "1")
        s.fill(account, "buy", "0.001", "10000", fee="9000")
        s.fill(account, "sell", "0.001", "10000")

    # Each owes 9,000 against 1 BTC, worth 8,800 x 0.995 = 8,756 to the house: 244 are lost by each.
    s.price("BTC-USD", "8800")

    drawn = [event for event in s.happened if isinstance(event, FundDrawn)]
    assert [("A", Decimal(244), Decimal(256)), ("B", Decimal(244), Decimal(12))] == [
        (event.account, event.amount, event.after) for event in drawn]


# --- facts -------------------------------------------------------------------------------------------------------


def test_facts_are_never_refused_for_margin() -> None:
    """Semantics 4: facts are never refused for margin: a fill is posted and flagged (`initial margin breached`)."""
    s = desk()
    s.account("A")

    outcome = s.fill("A", "buy", "10", "10000")

    assert ("applied", ["initial-margin-breached"]) == (outcome.kind, s.told(FillPosted).flags)


def test_a_fill_that_reduces_is_not_flagged_for_margin() -> None:
    """Semantics 4: flagged where a fill adds risk beyond initial margin."""
    s = started()

    s.fill("A", "sell", "1", "9000")

    assert [] == s.told(FillPosted).flags


def test_facts_are_never_refused_during_a_liquidation() -> None:
    """Semantics 4: facts are never refused: deposits and fills of an account in liquidation are posted."""
    s = started()

    outcomes = [s.deposit("A", "USD", "1"), s.fill("A", "buy", "1", "9000"), s.account("A", member="M")]

    assert ["applied"] * 3 == [outcome.kind for outcome in outcomes]


def test_a_late_fill_of_a_liquidation_order_is_posted_with_both_flags() -> None:
    """Semantics 4: facts are never refused for lateness or expiry."""
    s = started()
    expired = order(s)
    s.clock("10:05:00")

    fill_order(s, named=expired, at="10:00:30")

    assert ["late", "order-closed"] == s.told(FillPosted).flags


# --- the simulated venue -----------------------------------------------------------------------------------------


def venue(slippage: str = "0", impact: str = "0") -> SimulatedVenue:
    """A venue of this depth."""
    return SimulatedVenue(slippage=Decimal(slippage), impact=Decimal(impact))


@pytest.mark.parametrize(("side", "mark", "deposit", "price"), [
    # 9,000 x (1 - 0.001).
    pytest.param("buy", "9000", "10800", "8991", id="a sale below the mark"),
    # 11,000 x (1 + 0.001), for an account with 800 on 1,100: the limit is 11,080.
    pytest.param("sell", "11000", "10800", "11011", id="a purchase above the mark"),
    # 9,000.05 x 0.999 = 8,991.04995, to the tick of 0.01 against the account.
    pytest.param("buy", "9000.05", "10799.5", "8991.04", id="to the tick, against the account"),
])
def test_the_venue_fills_at_the_mark_less_its_slippage(side: str, mark: str, deposit: str, price: str) -> None:
    """Semantics 4: price = mark x (1 -/+ slippage -/+ impact x size)."""
    s = desk(venue=venue("0.001"))
    s.account("A")
    s.deposit("A", "USD", deposit)
    s.fill("A", side, "10", "10000")

    s.price("BTC-USD", mark)

    fills = [event for event in s.happened if isinstance(event, FillPosted)]
    assert {Decimal(price)} == {event.price for event in fills}
    assert ["A", "venue:simulated"] == [event.account for event in fills]


def test_the_venues_impact_is_of_size() -> None:
    """Semantics 4: price = mark x (1 -/+ slippage -/+ impact x size); section 3: sizes are in contracts."""
    s = desk(venue=venue("0", "0.0001"))

    started(scenario=s)

    # 9,000 x (1 - 0.0001 x 10).
    assert [Decimal(8991)] * 2 == [event.price for event in s.happened if isinstance(event, FillPosted)]


def test_where_the_venue_is_worse_than_the_limit_the_funds_account_takes_over_at_the_limit() -> None:
    """Semantics 4: nothing where worse than the limit (then the fund's account takes over at the limit)."""
    # 9,000 x (1 - 0.01) = 8,910 is below the limit of 8,920.
    s = started(scenario=desk(venue=venue("0.01")))

    fills = [event for event in s.happened if isinstance(event, FillPosted)]
    assert [("A", "sell", Decimal(8920)), ("fund:insurance", "buy", Decimal(8920))] == [
        (event.account, event.side, event.price) for event in fills]
    assert Decimal(0) == s.balance("A")
    assert not s.events(ShortfallClaimed)
    assert ("house", Decimal(10)) == (
        s.state("fund:insurance").kind, s.state("fund:insurance").positions["BTC-USD", "cross", "net"].size)


@pytest.mark.parametrize(("side", "mark", "deposit"), [
    # An equity of 90: the limit is 9,000 - 9 = 8,991 = 9,000 x 0.999.
    pytest.param("buy", "9000", "10090", id="a sale"),
    # An equity of 110: the limit is 11,000 + 11 = 11,000 x 1.001.
    pytest.param("sell", "11000", "10110", id="a purchase"),
])
def test_the_venue_fills_at_the_limit_where_its_price_is_the_limit(side: str, mark: str, deposit: str) -> None:
    """Semantics 4: nothing where *worse* than the limit."""
    s = desk(venue=venue("0.001"))
    s.account("A")
    s.deposit("A", "USD", deposit)
    s.fill("A", side, "10", "10000")

    s.price("BTC-USD", mark)

    assert ["A", "venue:simulated"] == [event.account for event in s.happened if isinstance(event, FillPosted)]
    assert Decimal(0) == s.balance("A")


def test_a_bankrupt_account_is_taken_over_at_a_limit_better_than_the_mark() -> None:
    """Semantics 4: filling all at their limits ends at exactly zero: the fund's account bears what is beyond."""
    s = started("9500", scenario=desk(venue=venue("0.001")))

    # Equity -500: 9,050.
    assert [Decimal(9050)] == [event.price for event in fills_of(s, "fund:insurance")]
    assert Decimal(0) == s.balance("A")
    # The fund's account has lost 500 at the mark.
    assert Decimal(-500) == s.margin("fund:insurance").account_equity


def test_the_venues_fills_are_records_of_their_own_with_ids_of_the_order() -> None:
    """Semantics 4: its fills come next in order, ids `<order>:<n>`, both sides posted."""
    s = started(scenario=desk(venue=venue("0.001")))

    placed = order(s)
    own, other = [event for event in s.happened if isinstance(event, FillPosted)]
    assert ("venue:simulated", "fill", f"{placed.order_id}:1") == (
        own.cause.source, own.cause.type, own.cause.id)
    assert (None, None, None) == (own.cause.partition, own.cause.offset, own.cause.line)
    assert own.trade_id == other.trade_id
    assert own.cause.id != other.cause.id
    assert (placed.order_id, None) == (own.liquidation_order_id, other.liquidation_order_id)
    assert ("sell", "buy", Decimal(10), Decimal(10)) == (own.side, other.side, own.size, other.size)
    assert time_of("10:00:00") == own.time


def test_the_venues_account_is_opened_once_and_is_not_margined() -> None:
    """Semantics 4: the account `venue:simulated` (kind `external-venue`, not margined)."""
    s = started(scenario=desk(venue=venue("0.001")))
    long_account(s, "B", "1300", price="9000")
    # It holds 10 bought at 8,991 and nothing else.
    s.price("BTC-USD", "8900")
    assert "B" in [event.account for event in s.happened if isinstance(event, LiquidationStarted)]

    opened = [event for event in s.events(AccountOpened) if event.account == "venue:simulated"]
    assert ["external-venue"] == [event.kind for event in opened]
    decided = (MarginWarned, MarginCallIssued, LiquidationStarted)
    assert "venue:simulated" not in [row.event.account for row in s.log if isinstance(row.event, decided)]


def test_sizes_of_both_sides_sum_to_zero() -> None:
    """Semantics 5: per instrument the sizes including the house's sum to zero, and the house's size is zero once both
    sides of every trade have come."""
    s = desk(venue=venue("0.001"))
    s.account("maker", kind="external-venue")
    s.fill("maker", "sell", "10", "10000")
    started(scenario=s)

    assert not s.state("A").positions
    assert [Decimal(-10), Decimal(10), Decimal(0)] == [
        s.state("maker").positions["BTC-USD", "cross", "net"].size,
        s.state("venue:simulated").positions["BTC-USD", "cross", "net"].size, s.house.house.sizes["BTC-USD"]]


def test_the_venue_fills_the_orders_of_a_hedging_account() -> None:
    """Semantics 3, 4: a fill of an order goes to the position that the order closes, whatever its side."""
    s = desk(venue=venue("0.001"))
    s.account("A", position_mode="hedge")
    s.deposit("A", "USD", "10800")
    s.fill("A", "buy", "10", "10000", position_side="long")
    s.fill("A", "sell", "1", "10000", position_side="short")

    # 10,800 - 11,890 + 1,189 = 99 on 881.1 + 88.11. The long's limit is 8,811 - 90 / 10 = 8,802, the venue's price
    # 8,802.18; then 10.80 are left on 88.11 and the short is bought at 8,819.82, where 1.98 are left.
    s.price("BTC-USD", "8811")

    assert [("long", Decimal("8802.18")), ("short", Decimal("8819.82"))] == [
        (event.position, event.price) for event in fills_of(s, "A")]
    assert (Decimal("1.98"), {}) == (s.balance("A"), dict(s.state("A").positions))


def test_on_start_open_orders_without_fills_are_served_before_the_next_record() -> None:
    """Semantics 4: on start, open orders without fills are served before the next record."""
    s = started()
    assert not s.events(FillPosted)[1:]
    s.shard.venue = venue("0.001")

    s.clock("10:00:01")

    assert [AccountOpened, FillPosted, LiquidationCompleted] == s.kinds[:3]
    assert ClockMoved is s.kinds[-1]
    assert {"venue:simulated"} == {event.cause.source for event in s.happened[:-1]}


def test_the_venue_serves_every_order_of_a_portfolio() -> None:
    """Semantics 4: the simulated venue is a pure function asked after each record."""
    logs = []
    for _ in range(2):
        s = desk(venue=venue("0.0005"))
        s.instrument("ETH-USD")
        s.price("ETH-USD", "200")
        s.account("A")
        s.deposit("A", "USD", "10200")
        s.fill("A", "buy", "10", "10000")
        s.fill("A", "sell", "150", "200", instrument="ETH-USD")
        s.price("BTC-USD", "9000")
        logs.append([event.model_dump_json() for event in s.happened])
        # 10,200 - 10,000 = 200 on 1,200. BTC at 9,000 - 4.50; ETH at 200.10, to the tick.
        assert not s.state("A").positions
        assert [("BTC-USD", Decimal("8995.5")), ("ETH-USD", Decimal("200.1"))] == [
            (event.instrument, event.price) for event in fills_of(s, "A")]
        # 200 - 45 - 15.
        assert Decimal(140) == s.balance("A")
    assert logs[0] == logs[1]
