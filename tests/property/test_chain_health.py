"""Laws of health, skewed markets, pool positions and takeovers, against plain second versions in fractions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ledger.amounts import FINEST, ONE, ZERO, exact
from ledger.risk.health import (
    HealthAccount,
    HealthKind,
    HealthPerp,
    HealthToken,
    HealthWeights,
    Prices,
    SpotOrders,
    amount_given,
    amount_taken,
    effective_balances,
    health,
)
from ledger.risk.health_liquidation import (
    NotLiquidatable,
    PerpTerms,
    exchange_tokens,
    settle_or_bankrupt,
    take_over_perp,
)
from ledger.risk.pool_position import PoolPosition, PoolRequirement, pool_pnl, remaining_collateral
from ledger.risk.skew import KeeperReward, SizeDiscount, SkewMargins, SkewPosition, fill_price, skew_figures
from ledger.risk.socialisation import deposit_index_delta, funding_index_delta
from ledger.risk.takeover import TakeoverRule, TakeoverTerms, take_over
from ledger.risk.weighted_account import (
    AssetBalance,
    AssetMarket,
    Conditions,
    PerpMarket,
    PerpPosition,
    WeightedAccount,
    account_margin,
)
from ledger.risk.weights import AssetWeights, ProfitWeights, SizeRatios

KINDS: Final[list[HealthKind]] = ["init", "liq_end", "maint"]


@pytest.fixture(autouse=True, scope="module")
def _exactly() -> Iterator[None]:
    """What a test itself computes is as exact as what it checks."""
    with exact():
        yield


def _decimals(low: int, high: int, places: int) -> st.SearchStrategy[Decimal]:
    return st.integers(low, high).map(lambda units: Decimal(units).scaleb(-places))


PRICES = _decimals(1, 10**6, 3)
AMOUNTS = _decimals(-(10**9), 10**9, 4)
HELD = _decimals(0, 10**9, 4)
STARTS = st.one_of(st.none(), _decimals(1, 10**9, 2))


@st.composite
def weights(draw: st.DrawFn, *, scaled: bool = True) -> HealthWeights:
    low, high = sorted(draw(st.tuples(_decimals(1, 100, 2), _decimals(1, 100, 2))))
    less, more = sorted(draw(st.tuples(_decimals(100, 200, 2), _decimals(100, 200, 2))))
    return HealthWeights(variant="pool-scaled:1", initial_asset=low, maintenance_asset=high, initial_liability=more,
                         maintenance_liability=less, deposit_scale_start=draw(STARTS) if scaled else None,
                         borrow_scale_start=draw(STARTS) if scaled else None)


PAIRS = st.builds(Prices, PRICES, PRICES)


@st.composite
def perps(draw: st.DrawFn, token: str = "T") -> HealthPerp:
    low, high = sorted(draw(st.tuples(_decimals(0, 100, 2), _decimals(0, 100, 2))))
    return HealthPerp(token, draw(PAIRS), draw(weights(scaled=False)), low, high, draw(AMOUNTS), draw(AMOUNTS),
                      draw(HELD), draw(HELD), draw(AMOUNTS))


@st.composite
def accounts(draw: st.DrawFn, *, orders: bool = True) -> HealthAccount:
    tokens = {name: HealthToken(draw(PAIRS), draw(weights()), draw(AMOUNTS), draw(HELD), draw(HELD))
              for name in ("T", "B", "Q")}
    spot = [SpotOrders(*draw(st.sampled_from([("B", "Q"), ("B", "T"), ("T", "Q")])), draw(HELD), draw(HELD),
                       draw(st.one_of(st.none(), PRICES)), draw(st.one_of(st.none(), PRICES)))
            for _ in range(draw(st.integers(0, 2)) if orders else 0)]
    return HealthAccount(tokens, spot, {"P": draw(perps()), "R": draw(perps("B"))})


# --- health -------------------------------------------------------------------------------------------------------


def _plain_health(account: HealthAccount, kind: HealthKind) -> Fraction:
    """Health in fractions, straight from the definition."""
    strict = kind == "init"

    def asset(prices: Prices) -> Fraction:
        return Fraction(min(prices) if strict else prices.oracle)

    def owed(prices: Prices) -> Fraction:
        return Fraction(max(prices) if strict else prices.oracle)

    def weight(rule: HealthWeights, deposits: Fraction, borrows: Fraction) -> tuple[Fraction, Fraction]:
        if kind == "maint":
            return Fraction(rule.maintenance_asset), Fraction(rule.maintenance_liability)
        held, debt = Fraction(rule.initial_asset), Fraction(rule.initial_liability)
        if strict and rule.deposit_scale_start is not None and deposits > rule.deposit_scale_start:
            held *= Fraction(rule.deposit_scale_start) / deposits
        if strict and rule.borrow_scale_start is not None and borrows > rule.borrow_scale_start:
            debt *= borrows / Fraction(rule.borrow_scale_start)
        return held, debt

    balances = {name: Fraction(token.balance) for name, token in account.tokens.items()}
    for perp in account.perps.values():
        held, debt = weight(perp.weights, Fraction(0), Fraction(0))
        worst = min(
            (base * (held * asset(perp.prices) if base >= 0 else debt * owed(perp.prices)) - Fraction(change) * price
             for base, change, price in (
                (Fraction(perp.base + perp.bids), perp.bids, owed(perp.prices)),
                (Fraction(perp.base - perp.asks), -perp.asks, asset(perp.prices)))))
        result = Fraction(perp.quote - perp.unpaid_funding) + worst
        share = perp.maintenance_result_weight if kind == "maint" else perp.initial_result_weight
        balances[perp.settle_token] += result * Fraction(share) if result > 0 else result
    worth: dict[str, tuple[Fraction, Fraction]] = {}
    for name, token in account.tokens.items():
        high = Fraction(max(token.prices))
        held, debt = weight(token.weights, Fraction(token.deposits) * high, Fraction(token.borrows) * high)
        worth[name] = held * asset(token.prices), debt * owed(token.prices)
    total = sum((amount * worth[name][amount < 0] for name, amount in balances.items()), Fraction(0))
    turned = []
    for row in account.orders:
        base, quote = account.tokens[row.base].prices, account.tokens[row.quote].prices
        bought = Fraction(row.reserved_quote) * asset(quote) / owed(base)
        if row.highest_bid:
            bought = min(bought, Fraction(row.reserved_quote) / Fraction(row.highest_bid))
        sold = Fraction(row.reserved_base) * asset(base) / owed(quote)
        if row.lowest_ask:
            sold = min(sold, Fraction(row.reserved_base) * Fraction(row.lowest_ask))
        turned.append((row, Fraction(row.reserved_base) + bought, Fraction(row.reserved_quote) + sold))
    most = dict.fromkeys(account.tokens, Fraction(0))
    for row, as_base, as_quote in turned:
        most[row.base] += as_base
        most[row.quote] += as_quote
    for row, as_base, as_quote in turned:
        effects = []
        for name, reserved in ((row.base, as_base), (row.quote, as_quote)):
            top = balances[name]  # what stands before anything reserved comes in
            held = min(max(top + most[name], Fraction(0)), reserved)
            effects.append(held * worth[name][0] + (reserved - held) * worth[name][1])
        if as_base and as_quote:
            total += min(effects)
    return total


@given(accounts(), st.sampled_from(KINDS))
def test_health_is_its_definition(account: HealthAccount, kind: HealthKind) -> None:
    with exact():
        found = health(account, kind)

    # Scaled weights and conversions round to 18 places, against the account; what they multiply is bounded.
    plain = _plain_health(account, kind)
    assert plain - Fraction(1, 10**6) <= Fraction(found) <= plain + Fraction(1, 10**6)


@given(accounts(orders=False))
def test_a_liquidation_ends_above_the_line_where_it_begins(account: HealthAccount) -> None:
    with exact():
        init, end, maint = (health(account, kind) for kind in KINDS)

    assert init <= end <= maint


@given(AMOUNTS, AMOUNTS, _decimals(1, 10**6, 4), _decimals(0, 10**6, 4))
def test_amounts_taken_and_given_bring_health_to_zero(total: Decimal, balance: Decimal, asset_price: Decimal,
                                                      more: Decimal) -> None:
    liability_price = asset_price + more

    def value(amount: Decimal) -> Decimal:
        return amount * (asset_price if amount >= 0 else liability_price)

    with exact():
        taken = amount_taken(total, balance, asset_price=asset_price, liability_price=liability_price)
        given_ = amount_given(total, balance, asset_price=asset_price, liability_price=liability_price)
        after_taking = total + value(balance - taken) - value(balance)
        after_giving = total + value(balance + given_) - value(balance)
        dust = FINEST * liability_price

    if total > 0:
        assert 0 <= after_taking <= dust
        assert given_ == 0
    elif total < 0:
        assert 0 <= after_giving <= dust
        assert taken == 0


# --- liquidation by health ----------------------------------------------------------------------------------------


def _after_takeover(account: HealthAccount, base: Decimal, quote: Decimal, settle: Decimal) -> HealthAccount:
    perp = account.perps["P"]
    token = account.tokens[perp.settle_token]
    return account._replace(
        perps={**account.perps, "P": perp._replace(base=perp.base + base, quote=perp.quote + quote)},
        tokens={**account.tokens, perp.settle_token: token._replace(balance=token.balance + settle)})


@given(accounts(orders=False), HELD, HELD, _decimals(0, 100, 2), _decimals(1, 10**4, 3))
def test_a_takeover_of_a_perpetual_never_lowers_health(account: HealthAccount, base: Decimal, result: Decimal,
                                                       fee: Decimal, lot: Decimal) -> None:
    quiet = {name: perp._replace(bids=ZERO, asks=ZERO) for name, perp in account.perps.items()}
    account = account._replace(perps=quiet)
    perp = quiet["P"]
    wanted = base if perp.base > 0 else -base
    with exact():
        before = health(account, "liq_end")
        try:
            change = take_over_perp(account, "P", PerpTerms(wanted, result, result_fee=fee, lot=lot))
        except NotLiquidatable:
            return
        after = health(_after_takeover(account, *change), "liq_end")

    if before >= 0:
        assert change == (ZERO, ZERO, ZERO)
    assert change.base * perp.base <= 0
    assert abs(change.base) <= min(abs(perp.base), base)
    assert abs(change.base) % lot == 0
    assert 0 <= change.settle_token <= result
    assert after >= before - Decimal("0.000001")


@given(accounts(orders=False), HELD, _decimals(100, 150, 2))
def test_an_exchange_of_tokens_moves_no_more_than_there_is(account: HealthAccount, most: Decimal,
                                                           factor: Decimal) -> None:
    with exact():
        balances = effective_balances(account, "liq_end")
        before = health(account, "liq_end")
        try:
            moved = exchange_tokens(account, "T", "Q", most=most, fee_factor=factor)
        except NotLiquidatable:
            assert min(most, -account.tokens["Q"].balance, -balances["Q"]) <= 0 or min(
                account.tokens["T"].balance, balances["T"]) <= 0
            return
        tokens = {**account.tokens,
                  "T": account.tokens["T"]._replace(balance=account.tokens["T"].balance - moved.given),
                  "Q": account.tokens["Q"]._replace(balance=account.tokens["Q"].balance + moved.repaid)}
        after = health(account._replace(tokens=tokens), "liq_end")
        freed = account.tokens["Q"].price("liq_end", owed=True) - (
            account.tokens["Q"].prices.oracle * factor * account.tokens["T"].weights.asset("liq_end"))

    assert 0 <= moved.repaid <= min(most, -account.tokens["Q"].balance, -balances["Q"])
    assert moved.given <= min(account.tokens["T"].balance, balances["T"])
    if before >= 0:
        assert moved == (ZERO, ZERO)
    elif freed > 0:
        assert after >= before - Decimal("0.000001")
        assert after <= Decimal("0.000001")


@given(accounts(orders=False), HELD, HELD, _decimals(0, 10**6, 0), PRICES)
def test_a_bankruptcy_asks_collateral_then_the_fund_then_all(account: HealthAccount, limit: Decimal, most: Decimal,
                                                             fund: Decimal, fund_price: Decimal) -> None:
    perp = account.perps["P"]._replace(base=ZERO, bids=ZERO, asks=ZERO, unpaid_funding=ZERO)
    assume(perp.quote < 0)
    account = account._replace(perps={**account.perps, "P": perp})
    with exact():
        end = settle_or_bankrupt(account, "P", settle_limit=limit, most=most, fund=fund, fund_price=fund_price)

    assert min(end) >= 0
    assert end.settled <= min(most, limit)
    assert end.settled + end.fund_covered + end.socialised <= -perp.quote
    assert end.fund_paid <= fund
    assert end.fund_covered <= most
    if end.socialised:
        assert end.fund_paid == fund
    assert end.fund_covered * account.tokens["T"].prices.oracle <= end.fund_paid * fund_price


def test_a_result_that_is_not_negative_is_no_bankruptcy() -> None:
    flat = HealthWeights(variant="pool-scaled:1", initial_asset=ONE, initial_liability=ONE, maintenance_asset=ONE,
                         maintenance_liability=ONE)
    account = HealthAccount({"T": HealthToken(Prices(ONE, ONE), flat, ZERO)}, (),
                            {"P": HealthPerp("T", Prices(ONE, ONE), flat, ONE, ONE, ZERO, ZERO)})
    with exact(), pytest.raises(NotLiquidatable, match="expected a negative result in P, came 0"):
        settle_or_bankrupt(account, "P", settle_limit=ONE, most=ONE, fund=ONE, fund_price=ONE)


def test_what_weighs_nothing_brings_no_health() -> None:
    with pytest.raises(ValueError, match="no amount raises health to zero"):
        amount_given(-ONE, ZERO, asset_price=ZERO, liability_price=ONE)
    with pytest.raises(ValueError, match="any amount may leave"):
        amount_taken(ONE, ZERO, asset_price=ONE, liability_price=ZERO)


def test_a_takeover_of_the_other_side_or_beyond_the_fee_is_refused() -> None:
    flat = HealthWeights(variant="pool-scaled:1", initial_asset=ONE, initial_liability=ONE, maintenance_asset=ONE,
                         maintenance_liability=ONE)
    account = HealthAccount({"T": HealthToken(Prices(ONE, ONE), flat, ZERO)}, (),
                            {"P": HealthPerp("T", Prices(ONE, ONE), flat, ONE, ONE, ONE, -ONE)})

    with pytest.raises(NotLiquidatable, match="expected a size with the sign of the position 1, came -1"):
        take_over_perp(account, "P", PerpTerms(-ONE, ONE))
    with pytest.raises(NotLiquidatable, match="expected weights of P beyond its fee"):
        take_over_perp(account, "P", PerpTerms(ONE, ONE))


# --- losses shared by an index ------------------------------------------------------------------------------------


@given(_decimals(-(10**12), 0, 6), HELD, HELD)
def test_an_index_recovers_the_loss_and_less_than_a_quantum_a_unit_more(loss: Decimal, longs: Decimal,
                                                                        shorts: Decimal) -> None:
    assume(longs + shorts > 0)
    with exact():
        paid = funding_index_delta(loss, long_size=longs, short_size=-shorts) * (longs + shorts)

        assert -loss <= paid < -loss + Decimal("0.000001") * (longs + shorts)


@given(HELD, HELD, _decimals(10**10, 10**12, 10))
def test_a_deposit_index_falls_by_the_debt(debt: Decimal, deposits: Decimal, index: Decimal) -> None:
    with exact():
        delta = deposit_index_delta(debt, deposits=deposits, index=index)

        assert delta == 0 if not deposits else delta * deposits >= index * debt


def test_a_loss_that_nobody_can_bear_is_refused() -> None:
    with exact(), pytest.raises(ValueError, match="expected open positions that can bear the loss"):
        funding_index_delta(-ONE, long_size=ZERO, short_size=ZERO)


# --- takeover of a position in a weighted account ------------------------------------------------------------------

WHOLE: Final = AssetWeights(variant="sqrt-size:1", initial_asset=ONE, maintenance_asset=ONE, initial_liability=ONE,
                            maintenance_liability=ONE)


@given(_decimals(-(10**6), 10**6, 2), _decimals(-(10**7), 10**7, 6), _decimals(0, 10**8, 6), _decimals(1, 10**6, 2),
       _decimals(0, 200, 4), st.integers(0, 200), st.booleans())
def test_a_takeover_gives_away_no_more_than_the_position_and_keeps_the_sum(
        size: Decimal, quote: Decimal, deposit: Decimal, most: Decimal, buffer: Decimal, elapsed: int,
        isolated: bool) -> None:
    rows = {"USDC": AssetMarket(ONE, ONE, WHOLE)}
    perp = PerpMarket(Decimal(100), SizeRatios(variant="sqrt-size:1", initial=Decimal("0.1"),
                                               maintenance=Decimal("0.05")),
                      ProfitWeights(variant="capped-profit:1", initial=ONE, maintenance=ONE))
    position = PerpPosition(size, quote, ONE, -ONE, 2, isolated=isolated, collateral=deposit if isolated else ZERO)
    account = WeightedAccount("USDC", {"USDC": AssetBalance(ZERO if isolated else deposit)}, {"P": position})
    terms = TakeoverTerms(most, Decimal("0.01"), Decimal("0.01"), Decimal("0.01"), Decimal("0.1"), 150, elapsed)
    with exact():
        before = account_margin(account, rows, {"P": perp}, Conditions("maintenance", buffer=buffer))
        after = take_over(account, rows, {"P": perp}, "P", buffer=buffer, terms=terms)
    pool = before.isolated.get("P", before.cross)
    left = after.account.positions["P"]

    if pool.meets:
        assert after == (account, ZERO, ZERO, ZERO)
    else:
        assert left.orders == 0
    assert left.size + after.size == size
    assert left.quote + after.quote + after.fund_fee == quote
    assert after.size * size >= 0
    assert abs(after.size) <= min(abs(size), most)
    # The liquidator pays no more than the oracle price, less its fee.
    assert -after.quote <= after.size * perp.price


def test_cancelling_orders_can_be_all_that_a_liquidation_needs() -> None:
    """Drift v2: 10 orders of 100 each at 100 require 500 and 0.1; without them 5 and the buffer are met by 6."""
    rows = {"USDC": AssetMarket(ONE, ONE, WHOLE)}
    perp = PerpMarket(Decimal(100), SizeRatios(variant="sqrt-size:1", initial=Decimal("0.1"),
                                               maintenance=Decimal("0.05")),
                      ProfitWeights(variant="capped-profit:1", initial=ONE, maintenance=ONE))
    position = PerpPosition(ONE, Decimal(-100), Decimal(100), ZERO, 10)
    account = WeightedAccount("USDC", {"USDC": AssetBalance(Decimal(6))}, {"P": position})
    rule = TakeoverRule(variant="takeover:1", buffer=Decimal("0.01"), liquidator_fee=Decimal("0.01"),
                        highest_fund_fee=Decimal("0.01"), step=Decimal("0.01"), first_share=Decimal("0.1"),
                        duration_slots=150)
    after = take_over(account, rows, {"P": perp}, "P", buffer=rule.buffer, terms=rule.terms(ONE, 0))

    assert (ZERO, ZERO, ZERO) == after[1:]
    assert after.account.positions == {"P": PerpPosition(ONE, Decimal(-100))}


# --- skewed markets -----------------------------------------------------------------------------------------------

SKEWS = st.builds(lambda scale, slope, floor, scalar, least: SkewMargins(
    variant="skew-linear:1", skew_scale=scale, slope=slope, floor=floor, maintenance_scalar=scalar, least_margin=least),
    _decimals(1, 10**9, 2), _decimals(0, 300, 2), _decimals(0, 100, 3), _decimals(0, 100, 2), HELD)


@given(SKEWS, AMOUNTS, HELD, PRICES)
def test_skew_margins_are_their_formula_and_grow_with_size(rule: SkewMargins, size: Decimal, more: Decimal,
                                                           price: Decimal) -> None:
    with exact():
        initial, maintenance = rule.initial(size, price), rule.maintenance(size, price)
        larger = rule.initial(abs(size) + more, price)
    share = abs(Fraction(size)) / Fraction(rule.skew_scale) * Fraction(rule.slope) + Fraction(rule.floor)
    plain = abs(Fraction(size)) * Fraction(price) * share

    assert 0 <= Fraction(initial - rule.least_margin) - plain < Fraction(FINEST)
    assert 0 <= Fraction(maintenance - rule.least_margin) - plain * Fraction(rule.maintenance_scalar) < Fraction(FINEST)
    assert maintenance <= initial <= larger


@given(PRICES, AMOUNTS, AMOUNTS, _decimals(10**6, 10**9, 2))
def test_a_fill_taken_back_costs_nothing_but_rounding(oracle: Decimal, size: Decimal, skew: Decimal,
                                                      scale: Decimal) -> None:
    with exact():
        there = fill_price(oracle, size=size, skew=skew, skew_scale=scale)
        back = fill_price(oracle, size=-size, skew=skew + size, skew_scale=scale)
        less = fill_price(oracle, size=size / 2, skew=skew, skew_scale=scale)

    if size > 0:
        assert 0 <= there - back <= FINEST
        assert less <= there
    elif size < 0:
        assert 0 <= back - there <= FINEST
        assert there <= less


@given(_decimals(1, 10**9, 2), HELD, _decimals(0, 100, 2), _decimals(0, 100, 2), _decimals(0, 500, 2), HELD, PRICES)
def test_a_size_discount_stays_within_its_bounds(scale: Decimal, amount: Decimal, one: Decimal, other: Decimal,
                                                 scalar: Decimal, more: Decimal, price: Decimal) -> None:
    rule = SizeDiscount(variant="size-discount:1", skew_scale=scale, scalar=scalar, lower=min(one, other),
                        upper=max(one, other))
    with exact():
        haircut, larger = rule.haircut(amount), rule.haircut(amount + more)
        value = rule.value(amount, price)

        assert rule.lower <= haircut <= larger <= rule.upper
        assert 0 <= amount * price * (ONE - haircut) - value < FINEST


@given(HELD, HELD, HELD, HELD, _decimals(0, 1_000, 3), _decimals(0, 10**4, 1))
def test_a_reward_keeps_to_its_caps(notional: Decimal, collateral: Decimal, least: Decimal, most: Decimal,
                                    ratio: Decimal, scaling: Decimal) -> None:
    rule = KeeperReward(variant="keeper-reward:1", ratio=ratio, least=least, most=most, collateral_scaling=scaling)
    with exact():
        reward = rule.reward(notional, collateral)

        assert reward == min(max(notional * ratio, least), most, collateral * scaling)


@pytest.mark.parametrize(("available", "liquidatable"), [("15", False), ("14.999999", True), ("15.000001", False)])
def test_equality_is_healthy_with_the_reward_counted(available: str, liquidatable: bool) -> None:
    margins = SkewMargins(variant="skew-linear:1", skew_scale=Decimal(1000), slope=ZERO, floor=Decimal("0.1"),
                          maintenance_scalar=ONE)
    with exact():
        figures = skew_figures(Decimal(available), ZERO,
                               [SkewPosition("M", ONE, Decimal(100), Decimal(100), margins)], reward=Decimal(5))

    assert liquidatable == figures.liquidatable
    assert figures.withdrawable == Decimal(available) - 15


# --- positions against a pool -------------------------------------------------------------------------------------


@given(HELD, HELD, PRICES, PRICES, _decimals(0, 10**5, 3), st.sampled_from(["long", "short"]), HELD, AMOUNTS)
def test_a_worse_price_or_impact_never_helps(collateral: Decimal, size: Decimal, entry: Decimal, price: Decimal,
                                             move: Decimal, side: str, fees: Decimal, impact: Decimal) -> None:
    position = PoolPosition(collateral, size, entry, "long" if side == "long" else "short")
    with exact():
        worse = max(price - move, ZERO) if side == "long" else price + move
        now = remaining_collateral(position, collateral_price=ONE, price=price, fees=fees, impact=impact)
        then = remaining_collateral(position, collateral_price=ONE, price=worse, fees=fees, impact=impact)
        pnl = pool_pnl(position, price)
    sign = 1 if side == "long" else -1
    plain = sign * (Fraction(size) * Fraction(price) / Fraction(entry) - Fraction(size))

    assert then <= now
    assert 0 <= plain - Fraction(pnl) <= Fraction(FINEST) * Fraction(price)
    assert now == collateral + pnl - fees + min(impact, ZERO)


@pytest.mark.parametrize(("remaining", "expected"), [
    ("10", False), ("9.999999", True), ("5", True), ("0", True), ("-1", True)])
def test_a_pool_position_falls_below_not_at_its_lines(remaining: str, expected: bool) -> None:
    rules: Mapping[str, PoolRequirement] = {
        name: PoolRequirement(variant="pool-counterparty:1", least_collateral=Decimal(least), fraction=Decimal(share))
        for name, least, share in (("fraction", "1", "0.01"), ("least", "10", "0"))}

    for rule in rules.values():
        assert expected == rule.liquidatable(Decimal(remaining), Decimal(1000))
