"""Semantics section 2, rule by rule: log time, lateness, deadlines, and the order of what one record causes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import pytest

from infra.shard import Outcome
from infra.venue import SimulatedVenue
from ledger.events import (
    ClockMoved,
    Deposited,
    FillPosted,
    LiquidationOrderCancelled,
    LiquidationOrderPlaced,
    LiquidationStarted,
    MarginCallExpired,
    MarginCallIssued,
    MarginCallMet,
    MarginCallWithdrawn,
    MarginWarned,
    PriceRecorded,
    PriceRejected,
    RecordRejected,
    RulebookPublished,
)
from tests.unit.ledger_scenario import Scenario, desk, long_account, rules, time_of


def called(deposit: str = "11000", account: str = "A", scenario: Scenario | None = None) -> Scenario:
    """A desk on which an account is called at 10:00.

    10 BTC bought at 10,000 and marked at 9,000 lose 10,000 and have a maintenance margin of 900. With a deposit of
    11,000 the equity is 1,000: a ratio of 1.11, between the lines of call (1.25) and liquidation (1).
    """
    s = scenario or desk()
    long_account(s, account, deposit)
    s.price("BTC-USD", "9000")
    assert MarginCallIssued in s.kinds
    return s


# --- log time ----------------------------------------------------------------------------------------------------


def test_log_time_is_the_latest_time_and_never_goes_back() -> None:
    """Semantics 2: log time = the latest time of an account, control or clock record; it never goes back."""
    s = desk()
    s.account("A", at="10:00:00")

    times = []
    for at in ("10:30:00", "10:10:00", "10:45:00", "09:00:00"):
        s.deposit("A", "USD", "1", at=at)
        times.append((s.told(Deposited).time, s.told(Deposited).cause.time))

    expected = [("10:30:00", "10:30:00"), ("10:30:00", "10:10:00"), ("10:45:00", "10:45:00"), ("10:45:00", "09:00:00")]
    assert [(time_of(log), time_of(own)) for log, own in expected] == times


def test_records_are_applied_in_the_order_they_come() -> None:
    """Semantics 2: records are applied in the order they come."""
    s = desk()
    s.account("A")

    # The withdrawal stands before the deposit in the stream, so it is refused although its time is later.
    outcomes = [s.withdraw("A", "USD", "5", at="10:30:00"), s.deposit("A", "USD", "5", at="10:00:00")]

    assert ["refused", "applied"] == [outcome.kind for outcome in outcomes]


@pytest.mark.parametrize("told", [
    pytest.param(lambda s: s.deposit("A", "USD", "1"), id="deposit"),
    pytest.param(lambda s: s.withdraw("A", "USD", "1"), id="withdrawal"),
    pytest.param(lambda s: s.fill("A", "buy", "1", "10000"), id="fill"),
    pytest.param(lambda s: s.account("B"), id="account"),
    pytest.param(lambda s: s.asset("EUR"), id="asset"),
    pytest.param(lambda s: s.instrument("ETH-USD"), id="instrument"),
    pytest.param(lambda s: s.fund("1"), id="fund-movement"),
    pytest.param(lambda s: s.rulebook("house"), id="rulebook"),
    pytest.param(lambda s: s.send("clock"), id="clock"),
])
def test_an_old_time_never_refuses_an_account_or_control_record(told: Callable[[Scenario], Outcome]) -> None:
    """Semantics 2: an old `time` never refuses a deposit, withdrawal, fill, transfer or control record."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "1000")
    s.clock("12:00:00")
    s.price("BTC-USD", "10000")

    s.now = "07:00:00"
    outcome = told(s)

    assert "applied" == outcome.kind
    assert {time_of("12:00:00")} == {event.time for event in s.happened}
    assert time_of("12:00:00") == s.house.log_time


@pytest.mark.parametrize(("told", "moves"), [
    pytest.param(lambda s: s.deposit("A", "USD", "1"), True, id="deposit"),
    pytest.param(lambda s: s.withdraw("A", "USD", "1"), True, id="withdrawal"),
    pytest.param(lambda s: s.fill("A", "buy", "1", "10000"), True, id="fill"),
    pytest.param(lambda s: s.account("B"), True, id="account"),
    pytest.param(lambda s: s.asset("EUR"), True, id="asset"),
    pytest.param(lambda s: s.instrument("ETH-USD"), True, id="instrument"),
    pytest.param(lambda s: s.fund("1"), True, id="fund-movement"),
    pytest.param(lambda s: s.rulebook("house"), True, id="rulebook"),
    pytest.param(lambda s: s.send("clock"), True, id="clock"),
    pytest.param(lambda s: s.withdraw("A", "USD", "5000"), True, id="refused withdrawal"),
    pytest.param(lambda s: s.price("BTC-USD", "10000"), False, id="price"),
    pytest.param(lambda s: s.funding("BTC-USD", "0.0001"), False, id="funding"),
    pytest.param(lambda s: s.deposit("nobody", "USD", "1"), False, id="rejected record"),
])
def test_log_time_moves_with_account_control_and_clock_records_only(told: Callable[[Scenario], Outcome],
                                                                    moves: bool) -> None:
    """Semantics 2: log time = the latest time of an account, control or clock record. A price moves only its
    market's time."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "1000")

    s.now = "10:10:00"
    told(s)

    assert time_of("10:10:00" if moves else "10:00:00") == s.house.log_time == s.happened[0].time


def test_an_old_fill_is_posted_and_flagged_late() -> None:
    """Semantics 2, 4: an old `time` never refuses a fill; it is posted and flagged `late`."""
    s = desk()
    s.account("A")
    s.deposit("A", "USD", "100000")
    s.clock("10:30:00")

    s.fill("A", "buy", "1", "10000", at="10:29:59")
    late = s.told(FillPosted)
    s.fill("A", "buy", "1", "10000", at="10:30:00")

    assert ["late"] == late.flags
    assert [] == s.told(FillPosted).flags
    assert Decimal(2) == s.told(FillPosted).position_size


# --- prices ------------------------------------------------------------------------------------------------------


def test_a_price_moves_its_markets_time_only() -> None:
    """Semantics 2: a price moves only its market's time."""
    s = desk()
    s.instrument("ETH-USD")

    s.price("BTC-USD", "10001", at="11:00:00")

    assert (time_of("11:00:00"), 0) == (s.house.markets["BTC-USD"].mark_time, s.house.markets["ETH-USD"].mark_time)
    assert time_of("10:00:00") == s.told(PriceRecorded).time == s.house.log_time
    assert time_of("11:00:00") == s.told(PriceRecorded).cause.time


def test_a_price_older_than_the_last_accepted_of_its_source_is_late() -> None:
    """Semantics 2: older than the market's last accepted price of that source, it is rejected `late`."""
    s = desk()
    s.instrument("ETH-USD")
    s.price("BTC-USD", "10001", at="10:05:00")

    outcomes = [
        s.price("BTC-USD", "10002", at="10:04:59.999999999"),
        s.price("BTC-USD", "10003", at="10:05:00"),
        s.price("BTC-USD", "10004", at="10:04:00", source="second"),
        s.price("ETH-USD", "200", at="10:04:00")]

    assert [("rejected", "late"), ("applied", None), ("applied", None), ("applied", None)] == [
        (outcome.kind, outcome.reason) for outcome in outcomes]
    # The mark is the last accepted price, and the market's time does not go back with the second source.
    market = s.house.markets["BTC-USD"]
    assert (Decimal("10003.5"), time_of("10:05:00")) == (market.mark, market.mark_time)


def test_a_rejected_price_is_not_what_lateness_is_measured_by() -> None:
    """Semantics 2: older than the market's last *accepted* price of that source."""
    s = desk()
    s.price("BTC-USD", "99999", at="10:10:00")
    assert ("step", [PriceRejected]) == (s.told(PriceRejected).reason, s.kinds)

    outcome = s.price("BTC-USD", "10001", at="10:09:00")

    assert "applied" == outcome.kind


def test_a_price_that_is_no_mark_leaves_the_mark_and_its_time() -> None:
    """Semantics 2: mark age = log time - the market's time; only a mark is a mark."""
    s = desk()

    for kind in ("index", "last", "settlement"):
        s.price("BTC-USD", "10500", at="10:10:00", kind=kind)

    market = s.house.markets["BTC-USD"]
    assert (Decimal(10000), time_of("10:00:00")) == (market.mark, market.mark_time)


@pytest.mark.parametrize(("mark_at", "age"), [
    pytest.param("10:00:00", "0", id="as old as log time"),
    pytest.param("09:58:30.5", "89.5", id="older than log time"),
    pytest.param("10:05:00", "0", id="ahead of log time: not below zero"),
])
def test_mark_age_is_log_time_less_the_markets_time_not_below_zero(mark_at: str, age: str) -> None:
    """Semantics 2: mark age = log time - the market's time, not below zero."""
    s = Scenario()
    s.asset("USD", at="09:58:00")
    s.instrument("BTC-USD")
    s.price("BTC-USD", "9000", at=mark_at)
    s.account("A", at="10:00:00")
    s.deposit("A", "USD", "1000")
    # Bought at the mark, 10 BTC have a maintenance margin of 900: a ratio of 1.11.
    s.fill("A", "buy", "10", "9000")

    assert Decimal(age) == s.told(MarginCallIssued).evidence.marks["BTC-USD"].age_seconds


# --- deadlines ---------------------------------------------------------------------------------------------------


def test_a_deposit_that_stands_before_the_deadline_meets_the_call_even_if_prices_ran_ahead() -> None:
    """Semantics 2: deadlines run on log time, so a deposit that stands before the deadline in its stream meets the
    call even if prices ran ahead."""
    s = called()
    assert time_of("11:00:00") == s.last(MarginCallIssued).deadline
    s.price("BTC-USD", "9000", at="11:30:00")
    assert [PriceRecorded] == s.kinds

    # 170 lifts the equity of 1,000 to 1,170 = 1.3 x 900.
    s.deposit("A", "USD", "170", at="10:59:59.999999999")

    assert [Deposited, MarginCallMet] == s.kinds
    s.clock("11:00:00")
    assert [ClockMoved] == s.kinds


def test_a_deposit_at_the_deadline_is_too_late() -> None:
    """Semantics 2: timers due (deadline <= log time), judged on the state before the record, then the record."""
    s = called()
    s.price("BTC-USD", "9000", at="11:00:00")

    s.deposit("A", "USD", "170", at="11:00:00")

    # Expired and liquidated before the deposit is applied; the deposit then reaches the stop line of 1.3.
    assert [MarginCallExpired, LiquidationStarted, LiquidationOrderPlaced, Deposited] == s.kinds[:4]
    assert Decimal(1000) == s.told(MarginCallExpired).evidence.margin_equity


@pytest.mark.parametrize("at", ["11:00:00", "13:00:00"])
def test_a_price_expires_no_call_however_late_it_is(at: str) -> None:
    """Semantics 2: deadlines run on log time, and a price does not move it."""
    s = called()

    s.price("BTC-USD", "9000", at=at)

    assert [PriceRecorded] == s.kinds


def test_a_clock_record_lets_deadlines_pass_on_a_quiet_stream() -> None:
    """Semantics 2: log time moves with clock records, and timers due are judged before the record itself."""
    s = called()
    s.price("BTC-USD", "9000", at="11:00:00")

    s.clock("10:59:59.999999999")
    assert [ClockMoved] == s.kinds

    s.clock("11:00:00")
    assert [MarginCallExpired, LiquidationStarted, LiquidationOrderPlaced, ClockMoved] == s.kinds
    assert {time_of("11:00:00")} == {event.time for event in s.happened}


def test_timers_due_come_by_deadline() -> None:
    """Semantics 2: timers due (deadline <= log time), by deadline then id."""
    s = desk()
    # B is called at 10:00 and A at 10:10, so B's deadline is the earlier one, although A's name comes first.
    called("11000", "B", s)
    s.clock("10:10:00")
    s.account("A")
    s.deposit("A", "USD", "1000")
    s.fill("A", "buy", "10", "9000")
    assert MarginCallIssued in s.kinds
    s.price("BTC-USD", "9000", at="12:00:00")

    s.clock("12:00:00")

    expired = [event for event in s.happened if isinstance(event, MarginCallExpired)]
    assert ["B", "A"] == [event.account for event in expired]
    # Each timer is judged to its end before the next.
    assert [MarginCallExpired, LiquidationStarted, LiquidationOrderPlaced] * 2 == s.kinds[:6]
    assert ClockMoved is s.kinds[6]


def test_timers_of_one_deadline_come_by_id() -> None:
    """Semantics 2: timers due, by deadline then id; ids are texts."""
    s = desk()
    for account, deposit in (("A", "11000"), ("Z", "11100")):
        long_account(s, account, deposit)
    # Both are called by one price, the worse one first; its id is call-99, and the other's call-100.
    while s.house.position < 97:
        s.clock("10:00:00")
    s.price("BTC-USD", "9000")
    assert [("A", "call-99"), ("Z", "call-100")] == [
        (event.account, event.call_id) for event in s.happened if isinstance(event, MarginCallIssued)]
    s.price("BTC-USD", "9000", at="11:00:00")

    s.clock("11:00:00")

    assert ["call-100", "call-99"] == [event.call_id for event in s.happened if isinstance(event, MarginCallExpired)]


def test_timers_are_judged_on_the_state_before_the_record() -> None:
    """Semantics 2: timers due are judged on the state before the record."""
    s = called()
    s.price("BTC-USD", "9000", at="11:00:00")

    # The fill would close the position and end all danger; the call expires on the position before it.
    s.fill("A", "sell", "10", "9000", at="11:00:01")

    assert [MarginCallExpired, LiquidationStarted, LiquidationOrderPlaced, FillPosted, LiquidationOrderCancelled] == (
        s.kinds[:5])
    assert Decimal(900) == s.told(MarginCallExpired).evidence.maintenance_margin


# --- the order of decisions --------------------------------------------------------------------------------------


def test_nominated_pools_are_decided_worst_margin_ratio_first() -> None:
    """Semantics 2: nominated pools, worst margin ratio first."""
    s = desk()
    for account, deposit in (("A", "11120"), ("B", "10950"), ("C", "11050"), ("D", "10850")):
        s.account(account)
        s.deposit(account, "USD", deposit)
        s.fill(account, "buy", "10", "10000")

    # At 9,000 the equities are 1,120, 950, 1,050 and 850 on 900 each: only D stands below 1.
    s.price("BTC-USD", "9000")

    order = [event.account for event in s.happened if isinstance(event, (MarginCallIssued, LiquidationStarted))]
    assert ["D", "B", "C", "A"] == order


def test_the_smaller_equity_is_not_the_worse_ratio() -> None:
    """Semantics 2: worst margin ratio first, not the smallest equity."""
    s = desk()
    # At 9,000: small has 110 on 90 (1.22), large has 1,000 on 900 (1.11).
    for account, deposit, size in (("small", "1110", "1"), ("large", "11000", "10")):
        s.account(account)
        s.deposit(account, "USD", deposit)
        s.fill(account, "buy", size, "10000")

    s.price("BTC-USD", "9000")

    assert ["large", "small"] == [event.account for event in s.happened if isinstance(event, MarginCallIssued)]


def test_margin_ratios_are_compared_by_cross_multiplication() -> None:
    """Semantics 2: worst margin ratio first by cross-multiplication."""
    s = Scenario()
    s.asset("USD", quantum="0.000000000000000001")
    s.instrument("BTC-USD")
    s.price("BTC-USD", "10000")
    # 10^-18 of equity on a maintenance margin of 900: ratios that differ by about 10^-21, the same to 18 places.
    for account, deposit in (("A", "11000.000000000000000001"), ("B", "11000")):
        s.account(account)
        s.deposit(account, "USD", deposit)
        s.fill(account, "buy", "10", "10000")

    s.price("BTC-USD", "9000")

    calls = [event for event in s.happened if isinstance(event, MarginCallIssued)]
    assert calls[0].evidence.margin_ratio == calls[1].evidence.margin_ratio
    assert ["B", "A"] == [call.account for call in calls]


def test_equal_ratios_are_decided_by_account_id_in_utf_8_bytes() -> None:
    """Semantics 2: then account id and pool by UTF-8 bytes."""
    s = desk()
    # 0x5a, 0x61, 0xc3a9, 0xefbfbd, 0xf09f9880: UTF-16 would sort the last two the other way round.
    names = ["Z", "a", "\u00e9", "\ufffd", "\U0001f600"]
    for account in reversed(names):
        s.account(account)
        s.deposit(account, "USD", "11000")
        s.fill(account, "buy", "10", "10000")

    s.price("BTC-USD", "9000")

    assert names == [event.account for event in s.happened if isinstance(event, MarginCallIssued)]


def test_equal_ratios_of_one_account_are_decided_cross_first_then_pool_by_bytes() -> None:
    """Semantics 2: then account id and pool by UTF-8 bytes, cross first."""
    s = desk()
    s.instrument("AAA-USD")
    s.price("AAA-USD", "10000")
    brackets = rules()["instruments"]["BTC-USD"]
    s.rulebook(rules(instruments={"*": brackets}))
    for account in ("B", "A"):
        s.account(account)
        # Three positions of 10 at 10,000: each pool has its initial margin of 2,000 on a maintenance margin of 1,000.
        s.deposit(account, "USD", "6000")
        s.fill(account, "buy", "10", "10000", margin_mode="isolated")
        s.fill(account, "buy", "10", "10000", margin_mode="isolated", instrument="AAA-USD")
        s.fill(account, "buy", "10", "10000", margin_mode="cross", instrument="AAA-USD")

    # All stand at a ratio of 2, and are called together once the call line is 3.
    s.rulebook(rules(version=2, instruments={"*": brackets},
                     thresholds={"warning": "4", "call": "3", "cure": "3", "stop": "3"}))

    assert [(account, pool) for account in ("A", "B")
            for pool in ("cross", "isolated:AAA-USD:net", "isolated:BTC-USD:net")] == [
        (event.account, event.pool) for event in s.happened if isinstance(event, MarginCallIssued)]


def owing_account(s: Scenario, account: str, debt: str) -> None:
    """An account without positions that owes USD against 1 BTC, worth 9,500 after the haircut of 5 %."""
    s.account(account)
    s.deposit(account, "BTC", "1")
    # What it owes is the fee of one side of a round trip at one price.
    s.fill(account, "buy", "0.001", "10000", fee=debt)
    s.fill(account, "sell", "0.001", "10000")


def test_negative_equity_without_maintenance_margin_comes_before_all() -> None:
    """Semantics 2: no maintenance margin and negative equity come before all."""
    s = Scenario()
    s.asset("USD")
    s.instrument("BTC-USD")
    s.asset("BTC", quantum="0.00000001", priced_by="BTC-USD")
    s.price("BTC-USD", "10000")
    # A: 2,500 - 10,000 = -7,500 on 900 at 9,000, a ratio of -8.3. N owes 9,000 against 1 BTC: 9,000 x 0.95 = 8,550.
    long_account(s, "A", "2500")
    owing_account(s, "N", "9000")
    assert (Decimal(-9000), Decimal(0)) == (s.balance("N"), s.margin("N").maintenance_margin)

    s.price("BTC-USD", "9000")

    started = [(event.account, event.reason) for event in s.happened if isinstance(event, LiquidationStarted)]
    assert [("N", "negative-equity"), ("A", "below-liquidation-line")] == started


def test_the_record_itself_comes_before_what_it_causes() -> None:
    """Semantics 2: (3) the record itself; (4) nominated pools."""
    s = desk()
    long_account(s, "A", "11000")

    s.price("BTC-USD", "9000")

    assert [PriceRecorded, MarginCallIssued] == s.kinds
    assert [s.log[-2].position, "price"] == list(s.told(MarginCallIssued).evidence.trigger.model_dump().values())


def test_the_venues_fills_come_after_all_decisions_as_records_of_their_own() -> None:
    """Semantics 2: (5) the simulated venue's fills for orders just placed, as records of their own."""
    s = desk(venue=SimulatedVenue())
    for account in ("A", "B"):
        s.account(account)
        s.deposit(account, "USD", "10800")
        s.fill(account, "buy", "10", "10000")
    # A third one is only called; that too stands before the first fill.
    s.account("C")
    s.deposit("C", "USD", "11000")
    s.fill("C", "buy", "10", "10000")

    s.price("BTC-USD", "9000")

    decided = [PriceRecorded, LiquidationStarted, LiquidationOrderPlaced, LiquidationStarted, LiquidationOrderPlaced,
               MarginCallIssued]
    assert decided == s.kinds[:6]
    assert {"desk"} == {event.cause.source for event in s.happened[:6]}
    assert {"venue:simulated"} == {event.cause.source for event in s.happened[6:]}
    fills = [event.account for event in s.happened if isinstance(event, FillPosted)]
    assert ["A", "venue:simulated", "B", "venue:simulated"] == fills


def test_decisions_go_on_until_nothing_is_nominated() -> None:
    """Semantics 2: (6) again from 4 until nothing is nominated."""
    s = desk(venue=SimulatedVenue())
    s.fund("100000")
    long_account(s, "A", "10800")

    s.price("BTC-USD", "9000")

    assert not s.state("A").positions
    assert not s.state("A").liquidations
    assert not s.house.open_orders
    s.clock("10:00:01")
    assert [ClockMoved] == s.kinds


# --- intake and positions ----------------------------------------------------------------------------------------


def test_a_record_too_far_ahead_of_the_wall_clock_is_a_recorded_rejection() -> None:
    """Semantics 2: intake rejects a record whose time lies further ahead of the wall clock than `future_tolerance`;
    the rejection is recorded, so replay takes it as a fact."""
    s = desk()
    s.account("A")
    ahead = s.record("deposit", id="ahead", account="A", asset="USD", amount="1", at="10:01:00.000000001")
    latest = "10:01:00"

    first = s.tell(ahead, latest=latest)
    at_the_tolerance = s.tell({**ahead, "id": "on-time", "time": "2026-01-05T10:01:00Z"}, latest=latest)
    # When the wall clock has caught up, the id is spent all the same.
    again = s.tell(ahead, latest="12:00:00")

    assert ("rejected", "time-ahead") == (first.kind, first.reason)
    assert "applied" == at_the_tolerance.kind
    assert Outcome("duplicate", first.position) == again


def test_a_clock_without_a_tolerance_moves_log_time_as_far_as_it_says() -> None:
    """Semantics 2: the wall clock is the edge's business, not the ledger's."""
    s = desk()

    s.send("clock", at="2099-01-01T00:00:00Z")

    assert [ClockMoved] == s.kinds
    assert time_of("2099-01-01T00:00:00Z") == s.house.log_time


def test_positions_in_the_log_are_1_2_3_without_gaps() -> None:
    """Semantics 2: positions in the log are 1, 2, 3 ... without gaps on every store."""
    s = desk(venue=SimulatedVenue())
    long_account(s, "A", "10800")
    s.tell(b"{broken")
    s.withdraw("A", "USD", "99999")
    s.price("BTC-USD", "9000", sequence=1)
    s.price("BTC-USD", "9000", sequence=1)
    s.clock("11:00:00")

    assert list(range(1, len(s.log) + 1)) == [recorded.position for recorded in s.log]
    seen: Counter[str] = Counter()
    for recorded in s.log:
        seen[recorded.originator_id] += 1
        assert seen[recorded.originator_id] == recorded.originator_version
    stored = s.shard.store.select_notifications(1, 1_000)
    assert [(recorded.position, recorded.originator_id) for recorded in s.log] == [
        (row.id, row.originator_id) for row in stored]


def test_a_rejection_takes_a_position_like_any_event() -> None:
    """Semantics 2: positions in the log are 1, 2, 3 ... without gaps."""
    s = desk()
    position = s.house.position

    outcomes = [s.tell(b"{"), s.clock("10:00:00"), s.tell(b"}")]

    assert [position + 1, position + 2, position + 3] == [outcome.position for outcome in outcomes]
    assert [RecordRejected, ClockMoved, RecordRejected] == [type(row.event) for row in s.log[-3:]]


# --- rulebooks in time -------------------------------------------------------------------------------------------


def test_a_rulebook_is_in_force_from_its_effective_time_on_log_time() -> None:
    """Semantics 2, 6: each decision names its rulebook version, that which is in force at log time."""
    s = desk()
    # A warning line of 5 in place of 1.5: A, with 3,000 on a maintenance margin of 1,000, is warned by it.
    long_account(s, "A", "3000")
    s.rulebook(rules(thresholds={"warning": "5"}), effective="2026-01-05T10:30:00Z")
    assert [RulebookPublished] == s.kinds

    s.price("BTC-USD", "10000", at="10:30:00")
    assert [PriceRecorded] == s.kinds
    s.clock("10:29:59.999999999")
    assert [ClockMoved] == s.kinds
    s.clock("10:30:00")
    assert [ClockMoved, MarginWarned] == s.kinds
    assert ("desk", 1) == (s.told(MarginWarned).evidence.rulebook.name, s.told(MarginWarned).evidence.rulebook.version)


def test_a_rulebook_effective_in_the_past_is_in_force_at_once_and_rewrites_nothing() -> None:
    """Semantics 2, 6: log time never goes back, so nothing is decided anew before it."""
    s = desk()
    long_account(s, "A", "3000")
    s.clock("10:30:00")

    s.rulebook(rules(thresholds={"warning": "5"}), effective="2026-01-05T10:00:00Z")

    assert [RulebookPublished, MarginWarned] == s.kinds
    assert time_of("10:30:00") == s.told(RulebookPublished).effective == s.told(MarginWarned).time


def test_a_withdrawn_call_is_a_marks_doing_whatever_the_deadline() -> None:
    """Semantics 2: a mark that runs ahead of log time decides with the log time there is."""
    s = called()

    s.price("BTC-USD", "9900", at="12:00:00")

    assert [PriceRecorded, MarginCallWithdrawn] == s.kinds[:2]
    assert time_of("10:00:00") == s.told(MarginCallWithdrawn).time
