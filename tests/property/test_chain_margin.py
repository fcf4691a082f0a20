"""Laws of the margin of on-chain systems with quote accounts and weighted accounts, against plain second versions.

The second versions count in whole quanta with Python's integers and fractions, as the chains do.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor, isqrt
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ledger.amounts import ONE, ZERO, exact
from ledger.risk.deleveraging import NotDeleverable, deleverage
from ledger.risk.fillable import (
    FillableRule,
    InvalidSize,
    bankruptcy_quote,
    close_against,
    closing_size,
    fillable_ratio,
    fund_delta,
    notional_bounds,
)
from ledger.risk.open_interest import OpenInterestFraction
from ledger.risk.quote_account import (
    Change,
    QuoteAccount,
    QuoteMarket,
    QuotePosition,
    changed,
    check_changes,
    risk,
    settled,
)
from ledger.risk.shortage import closing_size_for, share_to_liquidate
from ledger.risk.transition import Risk, compare_risk, transition, without_worsening
from ledger.risk.weighted_account import (
    AssetBalance,
    AssetMarket,
    Conditions,
    PerpMarket,
    PerpPosition,
    Quote,
    WeightedAccount,
    account_equity,
    account_margin,
    perp_part,
)
from ledger.risk.weights import AssetWeights, Check, ProfitWeights, SizeRatios, size_root

MICRO: Final = 10**6
CHECKS: Final[list[Check]] = ["initial", "fill", "maintenance"]


@pytest.fixture(autouse=True, scope="module")
def _exactly() -> Iterator[None]:
    """What a test itself computes is as exact as what it checks."""
    with exact():
        yield


def _decimals(low: int, high: int, places: int) -> st.SearchStrategy[Decimal]:
    return st.integers(low, high).map(lambda units: Decimal(units).scaleb(-places))


FRACTIONS = _decimals(1, MICRO, 6)
PRICES = _decimals(1, 10**11, 6)
SIZES = st.one_of(_decimals(-(10**15), -1, 9), _decimals(1, 10**15, 9))
BALANCES = _decimals(-(10**13), 10**13, 6)


@st.composite
def fractions(draw: st.DrawFn) -> OpenInterestFraction:
    low, span = draw(_decimals(0, 10**13, 6)), draw(_decimals(0, 10**13, 6))
    upper = draw(st.sampled_from([ZERO, low + span]))
    initial, maintenance = draw(FRACTIONS), draw(FRACTIONS)
    return OpenInterestFraction(variant="open-interest:1", initial=initial, maintenance_fraction=maintenance,
                                lower_cap=min(low, upper), upper_cap=upper)


@st.composite
def markets(draw: st.DrawFn) -> dict[str, QuoteMarket]:
    names = ["A", "B", "C"][:draw(st.integers(1, 3))]
    return {name: QuoteMarket(name, draw(PRICES), draw(fractions()), draw(_decimals(0, 10**13, 9)),
                              draw(_decimals(-(10**6), 10**6, 6))) for name in names}


@st.composite
def accounts(draw: st.DrawFn, rows: dict[str, QuoteMarket]) -> QuoteAccount:
    return QuoteAccount(draw(BALANCES), tuple(
        QuotePosition(name, draw(SIZES), draw(st.sampled_from([ZERO, Decimal("-1.000001"), Decimal(7)])),
                      draw(_decimals(-(10**6), 10**6, 6))) for name in rows))


@st.composite
def books(draw: st.DrawFn) -> tuple[dict[str, QuoteMarket], QuoteAccount]:
    rows = draw(markets())
    return rows, draw(accounts(rows))


RULES = st.builds(
    FillableRule, variant=st.just("fillable:1"), max_fee=FRACTIONS, bankruptcy_adjustment=_decimals(0, 3 * MICRO, 6),
    spread_to_maintenance=FRACTIONS, min_position_notional=_decimals(1, 10**9, 6), max_position_portion=FRACTIONS,
    max_notional_per_block=_decimals(1, 10**13, 6))


def _raw(value: Decimal, places: int = 6) -> int:
    return int(value.scaleb(places))


# --- margins scaled by open interest ------------------------------------------------------------------------------


@given(fractions(), _decimals(0, 10**15, 6), _decimals(0, 3 * 10**13, 6))
def test_scaled_margins_are_those_of_whole_millionths(rule: OpenInterestFraction, notional: Decimal,
                                                      open_notional: Decimal) -> None:
    base, held, crowd = _raw(rule.initial), _raw(notional), _raw(open_notional)
    low, high = _raw(rule.lower_cap), _raw(rule.upper_cap)
    if high and crowd >= high:
        effective = MICRO
    elif not high or crowd <= low:
        effective = base
    else:
        effective = floor(Fraction(base) + Fraction(MICRO - base) * (crowd - low) / (high - low))
    unscaled = ceil(Fraction(held * base, MICRO))

    with exact():
        margins = rule.margins(notional, open_notional)

    assert ceil(Fraction(held * effective, MICRO)) == _raw(margins.initial)
    assert ceil(Fraction(unscaled * _raw(rule.maintenance_fraction), MICRO)) == _raw(margins.maintenance)


@given(fractions(), _decimals(0, 10**15, 6), _decimals(0, 10**13, 6), _decimals(0, 10**13, 6), FRACTIONS)
def test_open_interest_and_choice_raise_initial_margin_only(rule: OpenInterestFraction, notional: Decimal,
                                                            crowd: Decimal, more: Decimal, chosen: Decimal) -> None:
    with exact():
        before, after = rule.margins(notional, crowd), rule.margins(notional, crowd + more)
        asked = rule.margins(notional, crowd, chosen)
        larger = rule.margins(notional + more, crowd)

    assert before.maintenance <= before.initial <= after.initial
    assert before.initial <= asked.initial
    assert before.maintenance == after.maintenance == asked.maintenance
    assert larger.initial >= before.initial
    assert larger.maintenance >= before.maintenance


# --- risk that may not worsen -------------------------------------------------------------------------------------

RISKS = st.builds(lambda equity, more, maintenance: Risk(equity, maintenance + more, maintenance),
                  _decimals(-50, 50, 0), _decimals(0, 10, 0), _decimals(0, 20, 0))


@given(RISKS, RISKS)
def test_riskier_is_the_lower_ratio_and_one_order(first: Risk, second: Risk) -> None:
    with exact():
        order, reverse = compare_risk(first, second), compare_risk(second, first)

    assert order == -reverse
    if first.maintenance_margin and second.maintenance_margin:
        left = Fraction(first.equity) / Fraction(first.maintenance_margin)
        right = Fraction(second.equity) / Fraction(second.maintenance_margin)
        assert (left < right) == (order == 1) or left == right


@given(RISKS, RISKS)
def test_a_change_that_passes_ends_safe_or_no_riskier(before: Risk, after: Risk) -> None:
    with exact():
        verdict = transition(before, after)
        order = compare_risk(after, before)

    if verdict == "success" and not after.meets_initial:
        assert after.maintenance_margin <= before.maintenance_margin
        assert order <= 0
    if verdict != "success":
        assert not after.meets_initial
        assert (verdict == "newly_undercollateralized") == before.meets_initial


@pytest.mark.parametrize(("before", "after", "expected"), [
    # Without maintenance margin on either side only more equity passes.
    (("-2", "0", "0"), ("-1", "0", "0"), "success"),
    (("-1", "0", "0"), ("-1", "0", "0"), "still_undercollateralized"),
    # Closing everything while equity stays negative does not pass: the ratio has no meaning any more.
    (("-1", "2", "1"), ("-1", "0", "0"), "still_undercollateralized"),
    # Same ratio and same margin pass; a higher margin never does, not even with a better ratio.
    (("5", "20", "10"), ("5", "20", "10"), "success"),
    (("5", "20", "10"), ("10.9", "22", "11"), "still_undercollateralized"),
    (("5", "20", "10"), ("2.5", "10", "5"), "success"),
    (("5", "20", "10"), ("2.499999", "10", "5"), "still_undercollateralized"),
    (("20", "20", "10"), ("4", "20", "10"), "newly_undercollateralized"),
])
def test_without_worsening_at_its_edges(before: tuple[str, str, str], after: tuple[str, str, str],
                                        expected: str) -> None:
    with exact():
        assert expected == without_worsening(Risk(*map(Decimal, before)), Risk(*map(Decimal, after)))


# --- bankruptcy, fillable price, fund -----------------------------------------------------------------------------


@given(books())
def test_closing_every_position_at_its_bankruptcy_value_ends_at_zero(
        book: tuple[dict[str, QuoteMarket], QuoteAccount]) -> None:
    rows, account = book
    with exact():
        account = settled(account, rows)
        for row in account.positions:
            # Quote booked to a position stays with the account; here it moves to the balance so that all is closed.
            account = changed(account, Change(row.quote), rows)._replace(positions=tuple(
                other._replace(quote=ZERO) if other.market == row.market else other for other in account.positions))
        assume(risk(account, rows).maintenance_margin > 0)
        for row in account.positions:
            if not risk(account, rows).maintenance_margin:
                break
            quote = bankruptcy_quote(account, rows, row.market, -row.size)
            account = changed(account, Change(quote, ((row.market, -row.size),)), rows)

    if not account.positions:
        assert account.balance == 0


@given(books(), RULES)
def test_the_fillable_price_lies_between_oracle_and_spread(book: tuple[dict[str, QuoteMarket], QuoteAccount],
                                                           rule: FillableRule) -> None:
    rows, account = book
    with exact():
        total = risk(settled(account, rows), rows)
        assume(total.maintenance_margin > 0)
        row = account.positions[0]
        ratio = fillable_ratio(account, rows, row.market, -row.size, rule)
        margins = rows[row.market].fractions
        mark = rows[row.market].mark

    # Rounded notional is off by less than a quantum, so the price by less than a quantum over the size.
    slack = Fraction(1, MICRO) / abs(Fraction(row.size))
    widest = (Fraction(margins.initial) * Fraction(margins.maintenance_fraction) * Fraction(mark) + 2 * slack
              ) * Fraction(rule.spread_to_maintenance)
    assert abs(ratio - Fraction(mark)) <= widest + slack
    if total.equity >= total.maintenance_margin:
        assert abs(ratio - Fraction(mark)) <= slack


@given(books(), RULES, PRICES)
def test_the_fund_takes_no_more_than_its_fee_and_leaves_no_debt(
        book: tuple[dict[str, QuoteMarket], QuoteAccount], rule: FillableRule, price: Decimal) -> None:
    rows, account = book
    account = QuoteAccount(account.balance, (account.positions[0]._replace(quote=ZERO),))
    row = account.positions[0]
    with exact():
        assume(risk(settled(account, rows), rows).maintenance_margin > 0)
        delta = fund_delta(account, rows, row.market, size_change=-row.size, price=price, rule=rule)
        maker = QuoteAccount(Decimal(10) ** 9, ())
        after = close_against(account, maker, rows, row.market, size_change=-row.size, price=price, maker_fee=ZERO,
                              taker_fee=ZERO, rule=rule)
        before = settled(account, rows).balance + maker.balance

    assert after.fund_delta == delta
    assert after.account.positions == ()
    assert before == after.account.balance + after.maker.balance + delta
    assert after.account.balance == 0 if delta < 0 else after.account.balance >= 0
    assert delta <= abs(row.size) * price * rule.max_fee


@given(books(), RULES, st.sampled_from(["1", "0.001", "0.000000001"]), _decimals(0, 10**13, 6))
def test_a_closing_size_reduces_and_keeps_to_its_limits(book: tuple[dict[str, QuoteMarket], QuoteAccount],
                                                        rule: FillableRule, step: str, spent: Decimal) -> None:
    rows, account = book
    row, lot = account.positions[0], Decimal(step)
    with exact():
        size = closing_size(account, rows, row.market, step=lot, rule=rule, spent=spent)
        bounds = notional_bounds(account, rows, row.market, rule)

    assert size * row.size < 0
    assert abs(size) <= abs(row.size)
    assert bounds.least <= bounds.most
    if abs(size) < abs(row.size):
        limit = min(bounds.most, max(ZERO, rule.max_notional_per_block - spent))
        assert abs(size) == lot or abs(size) * rows[row.market].mark <= limit


@given(books(), st.data())
def test_deleveraging_moves_quote_and_size_and_makes_none(book: tuple[dict[str, QuoteMarket], QuoteAccount],
                                                          data: st.DataObject) -> None:
    rows, account = book
    row = account.positions[0]
    other = QuoteAccount(data.draw(BALANCES), (QuotePosition(row.market, -row.size, ZERO,
                                                             rows[row.market].funding_index),))
    account = settled(account, rows)
    with exact():
        assume(risk(account, rows).maintenance_margin > 0)
        try:
            after = deleverage(account, other, rows, row.market, size_change=-row.size, price="bankruptcy")
        except NotDeleverable:
            return

    assert account.balance + other.balance == after.account.balance + after.counterparty.balance
    assert after.account.size(row.market) == after.counterparty.size(row.market) == 0


def test_isolation_fails_a_batch_before_any_margin_is_looked_at() -> None:
    plain = OpenInterestFraction(variant="open-interest:1", initial=Decimal("0.2"), maintenance_fraction=Decimal("0.5"))
    rows = {"A": QuoteMarket("A", ONE, plain), "B": QuoteMarket("B", ONE, plain, isolated=True)}
    poor, mixed = QuoteAccount(Decimal(-5)), QuoteAccount(Decimal(9), (QuotePosition("A", ONE),))
    with exact():
        verdicts = check_changes([(poor, Change(ZERO, (("A", ONE),))), (mixed, Change(ZERO, (("B", ONE),)))], rows,
                                 match=False)

    assert ("success", "violates_isolated") == verdicts


def test_what_requires_no_margin_has_no_bankruptcy_value_and_what_is_not_there_no_size() -> None:
    free = OpenInterestFraction(variant="open-interest:1", initial=ZERO, maintenance_fraction=ZERO)
    rows, account = {"A": QuoteMarket("A", ONE, free)}, QuoteAccount(ONE, (QuotePosition("A", ONE),))
    rule = FillableRule(variant="fillable:1", max_fee=ZERO, bankruptcy_adjustment=ONE, spread_to_maintenance=ONE,
                        min_position_notional=ONE, max_position_portion=ONE, max_notional_per_block=ONE)

    with pytest.raises(InvalidSize, match="that in A requires none"):
        bankruptcy_quote(account, rows, "A", -ONE)
    with pytest.raises(InvalidSize, match="that in A requires none"):
        fillable_ratio(account, rows, "A", -ONE, rule)
    with pytest.raises(InvalidSize, match="expected a position in A, there is none"):
        closing_size(QuoteAccount(ONE), rows, "A", step=ONE, rule=rule)


def test_a_size_that_does_not_reduce_is_refused() -> None:
    plain = OpenInterestFraction(variant="open-interest:1", initial=Decimal("0.2"), maintenance_fraction=Decimal("0.5"))
    rows = {"A": QuoteMarket("A", ONE, plain)}
    for size in ("1", "-2", "0"):
        with exact(), pytest.raises(InvalidSize, match="expected a size that reduces"):
            bankruptcy_quote(QuoteAccount(ONE, (QuotePosition("A", ONE),)), rows, "A", Decimal(size))


# --- weights by the root of size ----------------------------------------------------------------------------------

WEIGHTS = st.builds(
    lambda low, high, over, least, factor, start: AssetWeights(
        variant="sqrt-size:1", initial_asset=min(low, high), maintenance_asset=max(low, high),
        initial_liability=ONE + over + least, maintenance_liability=ONE + least, size_factor=factor, scale_start=start),
    _decimals(0, 10**4, 4), _decimals(0, 10**4, 4), _decimals(0, 10**4, 4), _decimals(0, 10**4, 4),
    st.one_of(st.just(ZERO), _decimals(1, MICRO, 6)), st.one_of(st.just(ZERO), _decimals(1, 10**12, 6)))
AMOUNTS = _decimals(0, 10**15, 9)


def _raw_discount(size: int, factor: int, weight: int) -> int:
    if not factor:
        return weight
    root = isqrt(size * 10 + 1)
    return min(weight, (MICRO + MICRO // 10) * 10_000 // (MICRO + root * factor // 100_000))


def _raw_premium(size: int, factor: int, weight: int) -> int:
    if not factor:
        return weight
    root = isqrt(size * 10 + 1)
    return max(weight, weight - weight // 5 + root * factor // (100_000 * MICRO // 10_000))


@given(WEIGHTS, AMOUNTS, AMOUNTS, st.sampled_from(CHECKS))
def test_weights_are_those_of_whole_quanta_and_never_soften_with_size(rule: AssetWeights, size: Decimal, more: Decimal,
                                                                      check: Check) -> None:
    asset = {"initial": _raw(rule.initial_asset, 4), "maintenance": _raw(rule.maintenance_asset, 4)}
    debt = {"initial": _raw(rule.initial_liability, 4), "maintenance": _raw(rule.maintenance_liability, 4)}
    for table in (asset, debt):
        table["fill"] = (table["initial"] + table["maintenance"]) // 2
    factor = _raw(rule.size_factor)

    with exact():
        held, owed = rule.asset(check, size), rule.liability(check, size)
        held_more, owed_more = rule.asset(check, size + more), rule.liability(check, size + more)

    assert _raw_discount(_raw(size, 9), factor, asset[check]) == _raw(held, 4)
    assert _raw_premium(_raw(size, 9), factor, debt[check]) == _raw(owed, 4)
    assert held_more <= held
    assert owed_more >= owed


@given(WEIGHTS, _decimals(0, 10**13, 6), _decimals(0, 10**13, 6))
def test_a_fuller_pool_never_raises_the_initial_weight(rule: AssetWeights, pool: Decimal, more: Decimal) -> None:
    with exact():
        weight, fuller = rule.initial_scaled(pool), rule.initial_scaled(pool + more)

    assert fuller <= weight <= rule.initial_asset


@given(AMOUNTS)
def test_the_root_is_the_root_from_below(size: Decimal) -> None:
    with exact():
        root = size_root(size)
        step = Decimal("0.00001")

        # The program adds one tenth of a billionth before it takes the root.
        assert root * root <= size + Decimal("0.0000000001") < (root + step) * (root + step)


# --- weighted accounts --------------------------------------------------------------------------------------------

PERPS = st.builds(
    lambda price, low, high, factor, worth: PerpMarket(
        price,
        SizeRatios(variant="sqrt-size:1", initial=max(low, high), maintenance=min(low, high), size_factor=factor),
        ProfitWeights(variant="capped-profit:1", initial=worth, maintenance=ONE, initial_cap=Decimal(100))),
    PRICES, _decimals(1, 10**4, 4), _decimals(1, 10**4, 4), st.one_of(st.just(ZERO), _decimals(1, 10**5, 6)),
    _decimals(0, 10**4, 4))
POSITIONS = st.builds(lambda size, quote, bids, asks, orders: PerpPosition(size, quote, bids, -asks, orders),
                      SIZES, BALANCES, _decimals(0, 10**12, 9), _decimals(0, 10**12, 9), st.integers(0, 9))
QUOTES = st.builds(Quote, _decimals(900_000, 1_100_000, 6), _decimals(900_000, 1_100_000, 6))


def _raw_perp(position: PerpPosition, market: PerpMarket, quote: Quote, check: Check) -> tuple[int, int]:
    """(weighted result, requirement) in millionths, counted as the program counts them."""
    price, size = _raw(market.price), _raw(position.size, 9)
    sides = [size + _raw(position.asks, 9), size + _raw(position.bids, 9)]
    worst = sides[0] if abs(sides[0]) * price // 10**9 >= abs(sides[1]) * price // 10**9 else sides[1]
    table = {"initial": _raw(market.ratios.initial, 4), "maintenance": _raw(market.ratios.maintenance, 4)}
    table["fill"] = (table["initial"] + table["maintenance"]) // 2
    ratio = _raw_premium(abs(worst), _raw(market.ratios.size_factor), table[check])
    value = abs(worst) * price // 10**9 * _raw(quote.high) // MICRO
    requirement = value * ratio // 10_000 + position.orders * 10_000
    pnl = (1 if size > 0 else -1) * (abs(size) * price // 10**9) + _raw(position.quote)
    if pnl > 0:
        weight = 10_000 if check == "maintenance" else _raw(market.profit.initial, 4)
        weighted = pnl * weight // 10_000 * _raw(quote.low) // MICRO
    else:
        weighted = -(-pnl * _raw(quote.high) // MICRO)
    return min(weighted, 100 * MICRO) if check == "initial" else weighted, requirement


@given(POSITIONS, PERPS, QUOTES, st.sampled_from(CHECKS))
def test_a_position_counts_as_in_whole_quanta(position: PerpPosition, market: PerpMarket, quote: Quote,
                                              check: Check) -> None:
    with exact():
        part = perp_part(position, market, quote, check, ZERO)

    assert _raw_perp(position, market, quote, check) == (_raw(part.collateral), _raw(part.requirement))


@given(POSITIONS, PERPS, QUOTES, st.sampled_from(CHECKS), FRACTIONS)
def test_orders_average_and_choice_never_help(position: PerpPosition, market: PerpMarket, quote: Quote, check: Check,
                                              chosen: Decimal) -> None:
    quiet = position._replace(bids=ZERO, asks=ZERO, orders=0)
    with exact():
        part = perp_part(position, market, quote, check, ZERO)
        without = perp_part(quiet, market, quote, check, ZERO)
        loose = perp_part(position, market, Quote(quote.price), check, ZERO)
        asked = perp_part(position, market, quote, check, chosen)

    assert part.requirement >= without.requirement
    assert part.requirement >= loose.requirement
    assert part.collateral <= loose.collateral
    assert asked.requirement >= part.requirement


@st.composite
def weighted(draw: st.DrawFn) -> tuple[WeightedAccount, dict[str, AssetMarket], dict[str, PerpMarket]]:
    whole = AssetWeights(variant="sqrt-size:1", initial_asset=ONE, maintenance_asset=ONE, initial_liability=ONE,
                         maintenance_liability=ONE)
    rows = {"USDC": AssetMarket(*draw(st.tuples(PRICES, PRICES)), whole),
            "SOL": AssetMarket(*draw(st.tuples(PRICES, PRICES)), draw(WEIGHTS), draw(AMOUNTS))}
    account = WeightedAccount("USDC", {
        "USDC": AssetBalance(draw(BALANCES)),
        "SOL": AssetBalance(draw(SIZES), draw(AMOUNTS), -draw(AMOUNTS), draw(st.integers(0, 3)))},
        {"P": draw(POSITIONS), "Q": draw(POSITIONS)._replace(isolated=True, collateral=draw(AMOUNTS))})
    return account, rows, {"P": draw(PERPS), "Q": draw(PERPS)}


@given(weighted(), st.sampled_from(CHECKS), _decimals(0, 1_000, 4))
def test_strict_is_never_better_and_the_buffer_only_asks_for_more(
        book: tuple[WeightedAccount, dict[str, AssetMarket], dict[str, PerpMarket]], check: Check,
        buffer: Decimal) -> None:
    account, rows, perps = book
    bare = account._replace(balances={name: row._replace(bids=ZERO, asks=ZERO, orders=0)
                                      for name, row in account.balances.items()})
    with exact():
        plain = account_margin(bare, rows, perps, Conditions(check, buffer=buffer))
        strict = account_margin(bare, rows, perps, Conditions(check, strict=True, buffer=buffer))
        full = account_margin(account, rows, perps, Conditions(check, buffer=buffer))

    for pool in (full.cross, plain.cross, *full.isolated.values()):
        assert pool.requirement <= pool.requirement_buffered
        assert pool.collateral_buffered <= pool.collateral
        assert pool.meets or not pool.recovered
    for loose, tight in ((plain.cross, strict.cross), (plain.isolated["Q"], strict.isolated["Q"])):
        assert tight.collateral <= loose.collateral
        assert tight.requirement >= loose.requirement


@given(weighted())
def test_weights_never_add_to_what_an_account_is_worth(
        book: tuple[WeightedAccount, dict[str, AssetMarket], dict[str, PerpMarket]]) -> None:
    account, rows, perps = book
    bare = account._replace(balances={name: row._replace(bids=ZERO, asks=ZERO, orders=0)
                                      for name, row in account.balances.items()})
    with exact():
        figures = account_margin(bare, rows, perps, Conditions("maintenance"))
        pools = [figures.cross, *figures.isolated.values()]
        total = sum((pool.collateral for pool in pools), ZERO)
        debts = sum((-min(ZERO, row.amount) * rows[name].price for name, row in bare.balances.items()), ZERO)
        equity = account_equity(bare, rows, perps)

    # Debts are no collateral but a requirement; four values are rounded by less than a millionth each.
    assert total - debts <= equity + Decimal("0.000008")


@given(_decimals(1, 10**12, 6), _decimals(1, 10**4, 4), _decimals(0, 10**5, 6), _decimals(0, 10**4, 6), PRICES,
       _decimals(900_000, 1_100_000, 6))
def test_closing_the_size_found_frees_the_shortage_and_no_more(shortage: Decimal, ratio: Decimal, fee: Decimal,
                                                               fund_fee: Decimal, price: Decimal,
                                                               quote_price: Decimal) -> None:
    with exact():
        size = closing_size_for(shortage, ratio=ratio, liquidator_fee=fee, fund_fee=fund_fee, price=price,
                                quote_price=quote_price)
    value = _raw(price) * _raw(quote_price) // MICRO
    freed = value * (_raw(ratio) - _raw(fee)) // MICRO - _raw(price) * _raw(fund_fee) // MICRO
    if ratio <= fee or freed <= 0:
        assert size is None
    else:
        assert size is not None
        assert _raw(shortage) * 10**9 // freed == _raw(size, 9)


@given(_decimals(1, 10**12, 6), _decimals(0, 10**12, 6), st.integers(0, 300), st.integers(0, 200),
       _decimals(0, 10**4, 4), st.integers(0, 100))
def test_the_share_to_liquidate_grows_with_time_up_to_all(shortage: Decimal, freed: Decimal, elapsed: int,
                                                          duration: int, first: Decimal, later: int) -> None:
    with exact():
        share = share_to_liquidate(shortage, freed=freed, elapsed=elapsed, duration=duration, first=first)
        then = share_to_liquidate(shortage, freed=freed, elapsed=elapsed + later, duration=duration, first=first)

    assert 0 <= share <= then <= 1
    if shortage < 50 or elapsed >= duration:
        assert share == 1


# --- single cases ---------------------------------------------------------------------------------------------------


def test_profit_weighs_less_where_all_accounts_have_won_too_much() -> None:
    """Drift v2: 0.8 x 1,000 / 4,000 once net profit exceeds the bound of 1,000; a maintenance check does not ask."""
    rule = ProfitWeights(variant="capped-profit:1", initial=Decimal("0.8"), maintenance=Decimal("0.9"),
                         max_imbalance=Decimal(1_000))
    profit = Decimal(5)

    assert Decimal("0.2") == rule.weight("initial", profit, Decimal(4_000))
    assert Decimal("0.8") == rule.weight("fill", profit, Decimal(1_000))
    assert Decimal("0.9") == rule.weight("maintenance", profit, Decimal(4_000))
    assert ONE == rule.weight("initial", -profit, Decimal(4_000))


def test_a_chosen_ratio_cuts_deposits_and_raises_debts_of_other_assets() -> None:
    """Drift v2: at a ratio of 0.5 a deposit weighs at most 0.5 and a debt at least 1.5, at 3 a deposit nothing."""
    whole = AssetWeights(variant="sqrt-size:1", initial_asset=ONE, maintenance_asset=ONE, initial_liability=ONE,
                         maintenance_liability=ONE)
    sol = AssetWeights(variant="sqrt-size:1", initial_asset=Decimal("0.8"), maintenance_asset=Decimal("0.9"),
                       initial_liability=Decimal("1.2"), maintenance_liability=Decimal("1.1"))
    rows = {"USDC": AssetMarket(ONE, ONE, whole), "SOL": AssetMarket(Decimal(100), Decimal(100), sol)}

    def figures(amount: int, ratio: str, check: Check) -> tuple[Decimal, Decimal]:
        account = WeightedAccount("USDC", {"SOL": AssetBalance(Decimal(amount))}, {}, Decimal(ratio))
        cross = account_margin(account, rows, {}, Conditions(check)).cross
        return cross.collateral, cross.requirement

    assert (Decimal(50), ZERO) == figures(1, "0.5", "initial")
    assert (ZERO, Decimal(150)) == figures(-1, "0.5", "initial")
    assert (ZERO, ZERO) == figures(1, "3", "initial")
    assert (Decimal(90), ZERO) == figures(1, "3", "maintenance")


def test_a_prediction_sold_can_lose_what_is_left_to_one() -> None:
    """Drift v2: a prediction at 0.75 risks 0.75 bought and 0.25 sold."""
    market = PerpMarket(Decimal("0.75"), SizeRatios(variant="sqrt-size:1", initial=ONE, maintenance=ONE),
                        ProfitWeights(variant="capped-profit:1", initial=ZERO, maintenance=ONE), "prediction")

    for size, expected in ((ONE, "0.75"), (-ONE, "0.25")):
        part = perp_part(PerpPosition(size, ZERO), market, Quote(ONE), "initial", ZERO)
        assert Decimal(expected) == part.requirement


def test_isolated_positions_count_as_liabilities_of_the_account() -> None:
    whole = AssetWeights(variant="sqrt-size:1", initial_asset=ONE, maintenance_asset=ONE, initial_liability=ONE,
                         maintenance_liability=ONE)
    market = PerpMarket(ONE, SizeRatios(variant="sqrt-size:1", initial=ONE, maintenance=ONE),
                        ProfitWeights(variant="capped-profit:1", initial=ZERO, maintenance=ONE))
    account = WeightedAccount("USDC", {"USDC": AssetBalance(-ONE)},
                              {"P": PerpPosition(ONE, ZERO), "Q": PerpPosition(ONE, ZERO, isolated=True)})
    figures = account_margin(account, {"USDC": AssetMarket(ONE, ONE, whole)}, {"P": market, "Q": market},
                             Conditions("initial"))

    assert (3, 2, 1) == (figures.liabilities, figures.cross.liabilities, figures.isolated["Q"].liabilities)
