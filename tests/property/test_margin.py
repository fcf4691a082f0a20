"""Laws of the formulas of margin, over any valid table: each against its own definition, worked out plainly.

Amounts are decimals of the wire's grammar, tables are whatever the models admit. No ledger is needed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ledger.amounts import (
    FINEST,
    ONE,
    ZERO,
    divide_down,
    divide_up,
    exact,
    is_multiple,
    plain,
    round_down,
    round_up,
)
from ledger.movement import withdrawable
from ledger.risk.collateral import ValueTiers, amount_to_raise, amount_to_release
from ledger.risk.funding import accrued
from ledger.risk.liquidation import (
    bankruptcy_price,
    liquidation_price,
    order_terms,
    repriced_pool,
    slope_edges,
)
from ledger.risk.margin import (
    Holding,
    MarginOrder,
    PoolMargin,
    PriceOf,
    Thresholds,
    above,
    at_least,
    below,
    evaluate_pool,
    liquidatable,
)
from ledger.risk.pnl import close
from ledger.risk.requirement import Brackets, with_leverage
from ledger.risk.waterfall import conversion

LINES: Final = Thresholds.model_validate({
    "variant": "ratio-lines:1", "warning": Decimal("1.5"), "warning_hysteresis": Decimal("0.05"),
    "call": Decimal("1.25"), "cure": Decimal("1.3"), "liquidation": ONE, "liquidation_when": "below",
    "stop": Decimal("1.3")})
QUANTA: Final = [Decimal(text) for text in ("1", "0.01", "0.00000001", "0.05", "7", "0.000000000000000001")]

quanta = st.sampled_from(QUANTA)


def decimals(low: str, high: str, places: int = 8) -> st.SearchStrategy[Decimal]:
    """Decimals of every magnitude between two bounds, round ones among them."""
    unit = Decimal(1).scaleb(-places)
    first, last = int(Decimal(low) / unit), int(Decimal(high) / unit)
    anywhere = st.integers(first, last).map(lambda number: number * unit)
    near = max(first, -10_000)
    small = st.integers(near, min(last, near + 20_000)).map(lambda number: number * unit)
    return st.one_of(anywhere, small, st.integers(int(Decimal(low)) + 1, int(Decimal(high))).map(Decimal))


prices = decimals("0.00000001", "1000000")
sizes = decimals("0.00000001", "1000000")
signed = decimals("-1000000", "1000000")
rates = st.integers(1, 10**6).map(lambda number: Decimal(number).scaleb(-6))


@st.composite
def brackets(draw: st.DrawFn) -> Brackets:
    """Any valid table: floors rise, rates do not fall, 0 < maintenance <= initial <= 1."""
    count = draw(st.integers(1, 5))
    floors = [ZERO, *sorted(draw(st.sets(decimals("0.00000001", "2000000").filter(bool), min_size=count - 1,
                                         max_size=count - 1)))]
    initial = sorted(draw(st.lists(rates, min_size=count, max_size=count)))
    maintenance = sorted(draw(st.lists(rates, min_size=count, max_size=count)))
    rows = [{"floor": floor, "initial": max(high, low), "maintenance": min(high, low)}
            for floor, high, low in zip(floors, initial, maintenance, strict=True)]
    return Brackets.model_validate({"variant": "brackets:1", "brackets": rows})


@st.composite
def value_tiers(draw: st.DrawFn) -> ValueTiers:
    """Any valid haircuts: tiers rise, cuts do not fall, from nothing to everything."""
    count = draw(st.integers(1, 4))
    ends = sorted(draw(st.sets(decimals("0.00000001", "2000000").filter(bool), min_size=count - 1,
                               max_size=count - 1)))
    cuts = sorted(draw(st.lists(st.one_of(st.sampled_from([ZERO, ONE]), rates), min_size=count, max_size=count)))
    rows: list[dict[str, Any]] = [{"haircut": cut} for cut in cuts]
    for row, end in zip(rows, ends, strict=False):
        row["up_to"] = end
    return ValueTiers.model_validate({"variant": "value-tiers:1", "tiers": rows})


class Table(NamedTuple):
    """A rulebook of one table of each kind."""

    thresholds: Thresholds
    tiers: ValueTiers
    rows: Brackets
    pool: None = None

    def borrowing(self, asset: str) -> None:
        return None

    def scaling(self, asset: str) -> None:
        return None

    def collateral(self, asset: str) -> ValueTiers:
        return self.tiers

    def requirement(self, instrument: str) -> Brackets:
        return self.rows


tables = st.builds(Table, st.just(LINES), value_tiers(), brackets())


def holding(instrument: str, size: Decimal, cost: Decimal, mark: Decimal, *, asset: str = "USD",
            contract_size: Decimal = ONE, funding: Decimal = ZERO, leverage: Decimal | None = None) -> Holding:
    return Holding(instrument, "cross", "net", size, cost, mark, funding, contract_size, asset, Decimal("0.01"),
                   leverage)


@st.composite
def holdings(draw: st.DrawFn, *, settled_in: Sequence[str] = ("USD", "BTC"),
             at_least_one: bool = True) -> list[Holding]:
    """A few positions, long and short, near enough to their cost to be interesting."""
    count = draw(st.integers(int(at_least_one), 4))
    found = []
    for number in range(count):
        size, mark = draw(signed.filter(bool)), draw(prices)
        contract_size = draw(st.sampled_from([ONE, Decimal(10), Decimal("0.1")]))
        off = draw(st.sampled_from(["1", "0.99", "1.01", "0.5", "1.7"]))
        found.append(holding(
            f"I{number}", size, size * contract_size * mark * Decimal(off), mark, contract_size=contract_size,
            asset=draw(st.sampled_from(settled_in)), funding=draw(st.sampled_from([ZERO, Decimal("0.01"), -ONE])),
            leverage=draw(st.sampled_from([None, Decimal(3), Decimal("7.5")]))))
    return found


def price_of(price: Decimal) -> PriceOf:
    return {"USD": ONE, "BTC": price}.get


balances = st.dictionaries(st.sampled_from(["USD", "BTC"]), signed.map(lambda amount: round_down(
    amount, Decimal("0.01"))), max_size=2)


# --- rounding points, against fractions --------------------------------------------------------------------------


def plainly(function: Callable[[Fraction], int], value: Fraction, quantum: Decimal) -> Decimal:
    """The rounding by its definition: whole quanta of a fraction."""
    return function(value / Fraction(quantum)) * quantum


@given(value=signed, quantum=quanta)
def test_rounding_is_to_the_next_multiple_in_its_direction(value: Decimal, quantum: Decimal) -> None:
    with exact():
        assert plainly(math.floor, Fraction(value), quantum) == round_down(value, quantum)
        assert plainly(math.ceil, Fraction(value), quantum) == round_up(value, quantum)
        assert (Fraction(value) % Fraction(quantum) == 0) == is_multiple(value, quantum)


@given(numerator=signed, denominator=sizes, quantum=quanta)
def test_division_is_exact_but_for_its_one_rounding(numerator: Decimal, denominator: Decimal,
                                                    quantum: Decimal) -> None:
    quotient = Fraction(numerator) / Fraction(denominator)
    with exact():
        assert plainly(math.floor, quotient, quantum) == divide_down(numerator, denominator, quantum)
        assert plainly(math.ceil, quotient, quantum) == divide_up(numerator, denominator, quantum)


@given(value=st.decimals(allow_nan=False, allow_infinity=False, min_value=-10**30, max_value=10**30))
def test_the_one_text_of_a_number_reads_back_as_its_value(value: Decimal) -> None:
    text = plain(value)

    assert value == Decimal(text)
    assert text == plain(Decimal(text))
    assert not set(text) & set("Ee+")


# --- requirement -------------------------------------------------------------------------------------------------


def marginal(table: Brackets, notional: Decimal) -> tuple[Decimal, Decimal]:
    """The requirement by its definition: each bracket's rates on the part of the notional that lies in it."""
    initial = maintenance = ZERO
    ends = [*table.floors[1:], None]
    for row, end in zip(table.brackets, ends, strict=True):
        part = max(ZERO, (notional if end is None else min(notional, end)) - row.floor)
        initial, maintenance = initial + part * row.initial, maintenance + part * row.maintenance
    return initial, maintenance


@given(table=brackets(), notional=st.one_of(decimals("0", "3000000"), st.just(ZERO)))
def test_requirement_is_the_sum_of_its_marginal_parts(table: Brackets, notional: Decimal) -> None:
    with exact():
        for at in [notional, *table.floors]:
            assert marginal(table, at) == table.margins(at)


@given(table=brackets(), notionals=st.lists(decimals("0", "3000000"), min_size=2, max_size=6))
def test_requirement_never_falls_as_notional_grows(table: Brackets, notionals: list[Decimal]) -> None:
    with exact():
        required = [table.margins(notional) for notional in sorted([*notionals, *table.floors])]

    assert [row[0] for row in required] == sorted(row[0] for row in required)
    assert [row[1] for row in required] == sorted(row[1] for row in required)


@given(table=brackets(), below_edge=decimals("0.00000001", "1"))
def test_requirement_is_continuous_at_every_edge(table: Brackets, below_edge: Decimal) -> None:
    with exact():
        for floor in table.floors[1:]:
            step = min(below_edge, floor)
            initial, maintenance = (high - low for high, low in zip(
                table.margins(floor), table.margins(floor - step), strict=True))

            assert 0 < maintenance <= step
            assert 0 < initial <= step


@given(table=brackets(), notional=decimals("0", "3000000"))
def test_maintenance_is_never_above_initial_nor_initial_above_the_notional(table: Brackets, notional: Decimal) -> None:
    with exact():
        initial, maintenance = table.margins(notional)

    assert 0 <= maintenance <= initial <= notional


@given(table=brackets(), size=sizes, more=sizes, mark=prices)
def test_maintenance_margin_never_falls_as_size_grows(table: Brackets, size: Decimal, more: Decimal,
                                                      mark: Decimal) -> None:
    rules = Table(LINES, ValueTiers.model_validate({"variant": "value-tiers:1", "tiers": [{"haircut": ZERO}]}), table)
    with exact():
        for side in (1, -1):
            smaller, larger = (evaluate_pool({}, [holding("I", side * contracts, ZERO, mark)], price_of(ONE), rules)
                               for contracts in (size, size + more))

            assert smaller.maintenance_margin <= larger.maintenance_margin
            assert smaller.initial_margin <= larger.initial_margin


@given(table=brackets(), notional=decimals("0.01", "3000000"), leverage=decimals("0.00000001", "200").filter(bool),
       quantum=quanta)
def test_a_chosen_leverage_only_raises_initial_margin(table: Brackets, notional: Decimal, leverage: Decimal,
                                                      quantum: Decimal) -> None:
    with exact():
        initial = table.margins(notional)[0]
        chosen = with_leverage(initial, notional, leverage, quantum)

        assert initial <= chosen
        assert notional <= chosen * leverage
        assert chosen == initial or (chosen - quantum) * leverage < notional


# --- collateral --------------------------------------------------------------------------------------------------


@given(tiers=value_tiers(), one=decimals("0", "3000000"), other=decimals("0", "3000000"))
def test_value_after_haircut_rises_bends_down_and_never_exceeds_gross(tiers: ValueTiers, one: Decimal,
                                                                      other: Decimal) -> None:
    low, high = sorted((one, other))
    with exact():
        middle = (low + high) * Decimal("0.5")

        assert 0 <= tiers.value(low) <= tiers.value(high) <= high
        assert tiers.value(high) - tiers.value(low) <= high - low
        assert tiers.value(low) + tiers.value(high) <= 2 * tiers.value(middle)
        assert tiers.value(low + high) <= tiers.value(low) + tiers.value(high)


@given(tiers=value_tiers(), gross=decimals("-3000000", "3000000"))
def test_haircuts_cut_each_part_by_its_tier_and_liabilities_never(tiers: ValueTiers, gross: Decimal) -> None:
    with exact():
        kept = ZERO
        for floor, ceiling, share in tiers.parts:
            kept += max(ZERO, (gross if ceiling is None else min(gross, ceiling)) - floor) * share

        assert (kept if gross > 0 else gross) == tiers.signed(gross)


@given(tiers=value_tiers(), balance=signed, price=prices, by=decimals("0.00000001", "3000000").filter(bool),
       quantum=quanta)
def test_amount_to_raise_is_the_least_that_does_it(tiers: ValueTiers, balance: Decimal, price: Decimal, by: Decimal,
                                                   quantum: Decimal) -> None:
    with exact():
        def gain(amount: Decimal) -> Decimal:
            return tiers.signed((balance + amount) * price) - tiers.signed(balance * price)

        amount = amount_to_raise(tiers, balance=balance, price=price, by=by, quantum=quantum)
        if amount is None:
            assert tiers.parts[-1][2] == 0
            assert gain(Decimal(10) ** 30) < by
        else:
            assert is_multiple(amount, quantum)
            assert gain(amount) >= by
            assert gain(amount - quantum) < by


@given(tiers=value_tiers(), balance=sizes, price=prices, by=decimals("0", "3000000"), quantum=quanta)
def test_amount_to_release_is_the_most_that_does_it(tiers: ValueTiers, balance: Decimal, price: Decimal, by: Decimal,
                                                    quantum: Decimal) -> None:
    with exact():
        def loss(amount: Decimal) -> Decimal:
            return tiers.value(balance * price) - tiers.value((balance - amount) * price)

        amount = amount_to_release(tiers, balance=balance, price=price, by=by, quantum=quantum)

        assert 0 <= amount <= balance
        assert loss(amount) <= by
        assert amount + quantum > balance or loss(amount + quantum) > by


@given(table=tables, held=balances, rows=holdings(at_least_one=False), asset=st.sampled_from(["USD", "BTC"]),
       price=prices, quantum=quanta)
def test_withdrawable_leaves_initial_margin_and_not_a_quantum_more(
    table: Table, held: dict[str, Decimal], rows: list[Holding], asset: str, price: Decimal, quantum: Decimal,
) -> None:
    with exact():
        def at(amount: Decimal) -> PoolMargin:
            return evaluate_pool({**held, asset: held.get(asset, ZERO) - amount}, rows, price_of(price), table)

        margin = at(ZERO)
        amount = withdrawable(balance=held.get(asset, ZERO), price=price_of(price)(asset), tiers=table.tiers,
                              margin=margin, quantum=quantum)

        assert amount >= 0
        assert is_multiple(amount, quantum)
        assert not amount or at(amount).margin_equity >= margin.initial_margin
        assert (amount + quantum > held.get(asset, ZERO)
                or at(amount + quantum).margin_equity < margin.initial_margin)


@given(held=balances, debt=decimals("0.01", "1000000", 2), price=prices, fee=st.sampled_from(
    [ZERO, Decimal("0.005"), Decimal("0.5")]), quantum=st.sampled_from(QUANTA[:3]))
def test_conversion_sells_what_the_debt_needs_and_no_quantum_more(
    held: dict[str, Decimal], debt: Decimal, price: Decimal, fee: Decimal, quantum: Decimal,
) -> None:
    quantum_of = {"USD": Decimal("0.01"), "BTC": quantum}
    with exact():
        balance = round_up(abs(held.get("BTC", ZERO)), quantum)
        sale = conversion({"USD": -debt, "BTC": balance}, "USD", price_of(price), quantum_of, fee)
        if sale is None:
            # No whole quantum of the debt can be had for all that there is, or for the least that the debt needs.
            assert balance * price * (1 - fee) < Decimal("0.01")
            return

        assert 0 < sale.sold_amount <= balance
        assert sale.bought_amount <= sale.sold_amount * price * (1 - fee)
        assert sale.sold_amount * price * (1 - fee) - sale.bought_amount < Decimal("0.01")
        assert sale.sold_amount == balance or sale.bought_amount >= debt
        assert (sale.sold_amount - quantum) * price * (1 - fee) < debt


# --- pools -------------------------------------------------------------------------------------------------------


@given(table=tables, held=balances, rows=holdings(), price=prices, data=st.data())
def test_figures_do_not_depend_on_the_order_of_positions(table: Table, held: dict[str, Decimal], rows: list[Holding],
                                                         price: Decimal, data: st.DataObject) -> None:
    with exact():
        expected = evaluate_pool(held, rows, price_of(price), table)
        turned = evaluate_pool(dict(reversed(held.items())), data.draw(st.permutations(rows)), price_of(price), table)

        assert expected[:9] == turned[:9]
        assert sorted(expected.positions) == sorted(turned.positions)


@given(table=tables, held=balances, rows=holdings(), price=prices)
def test_figures_add_up(table: Table, held: dict[str, Decimal], rows: list[Holding], price: Decimal) -> None:
    with exact():
        pool = evaluate_pool(held, rows, price_of(price), table)
        worth = {"USD": ONE, "BTC": price}
        gross = sum((amount * worth[asset] for asset, amount in held.items()), ZERO)

        assert gross + pool.unrealised_pnl + pool.accrued == pool.account_equity
        assert (pool.collateral_value - pool.liabilities + pool.unrealised_pnl + pool.accrued) == pool.margin_equity
        assert pool.margin_equity <= pool.account_equity
        assert 0 < pool.maintenance_margin <= pool.initial_margin
        assert sum((row.maintenance_margin for row in pool.positions), ZERO) == pool.maintenance_margin
        assert sum((row.unrealised_pnl for row in pool.positions), ZERO) == pool.unrealised_pnl


@given(table=tables, held=balances, row=holdings(settled_in=["USD"]), price=prices, worse=prices)
def test_worse_prices_never_help(table: Table, held: dict[str, Decimal], row: list[Holding], price: Decimal,
                                 worse: Decimal) -> None:
    """Of one position: equity falls, and who is past the liquidation line does not come back by it."""
    first = row[0]
    low, high = sorted((price, worse))
    start, end = (high, low) if first.size > 0 else (low, high)
    with exact():
        before, after = (evaluate_pool(held, [first._replace(mark=mark)], price_of(ONE), table)
                         for mark in (start, end))

        assert after.account_equity <= before.account_equity
        assert after.margin_equity <= before.margin_equity
        assert below(after, ONE) or not below(before, ONE)
        if first.size < 0:
            assert after.maintenance_margin >= before.maintenance_margin


@given(table=tables, held=balances, rows=holdings(at_least_one=False), price=prices, worse=prices)
def test_collateral_worth_less_never_helps(table: Table, held: dict[str, Decimal], rows: list[Holding],
                                           price: Decimal, worse: Decimal) -> None:
    low, high = sorted((price, worse))
    held = {asset: abs(amount) for asset, amount in held.items()}
    rows = [row._replace(settlement_asset="USD") for row in rows]
    with exact():
        before, after = (evaluate_pool(held, rows, price_of(at), table) for at in (high, low))

        assert after.account_equity <= before.account_equity
        assert after.margin_equity <= before.margin_equity
        assert (after.initial_margin, after.maintenance_margin) == (before.initial_margin, before.maintenance_margin)


@given(table=tables, held=balances, rows=holdings(at_least_one=False), price=prices,
       line=st.sampled_from(["1", "1.25", "1.3", "1.5"]).map(Decimal))
def test_lines_split_pools_into_below_and_not(table: Table, held: dict[str, Decimal], rows: list[Holding],
                                              price: Decimal, line: Decimal) -> None:
    with exact():
        pool = evaluate_pool(held, rows, price_of(price), table)

        assert below(pool, line) is not at_least(pool, line)
        assert not (above(pool, line) and below(pool, line))
        assert liquidatable(pool, LINES) is below(pool, ONE)
        if pool.maintenance_margin:
            ratio = Fraction(pool.margin_equity) / Fraction(pool.maintenance_margin)

            assert (ratio < Fraction(line)) is below(pool, line)
            assert (ratio > Fraction(line)) is above(pool, line)
            assert pool.ratio is not None
            assert 0 <= ratio - Fraction(pool.ratio) < Fraction(FINEST)


@given(table=tables, pools=st.lists(st.tuples(balances, holdings(at_least_one=False)), min_size=2, max_size=6),
       price=prices)
def test_worst_margin_ratio_comes_first(table: Table, pools: list[tuple[dict[str, Decimal], list[Holding]]],
                                        price: Decimal) -> None:
    with exact():
        found = [evaluate_pool(held, rows, price_of(price), table) for held, rows in pools]
        order = sorted(range(len(found)),
                       key=lambda index: MarginOrder(found[index], (str(index).encode(), False, b"")))

    def rank(pool: PoolMargin) -> tuple[int, Fraction]:
        if not pool.maintenance_margin:
            return (0 if pool.margin_equity < 0 else 2), Fraction(0)
        return 1, Fraction(pool.margin_equity) / Fraction(pool.maintenance_margin)

    assert sorted(range(len(found)), key=lambda index: (rank(found[index]), str(index).encode())) == order


# --- profit and funding ------------------------------------------------------------------------------------------


@given(size=signed.filter(bool), cost=signed, parts=st.lists(st.tuples(rates, prices), max_size=4), last=prices,
       quantum=quanta)
def test_closing_realises_all_that_was_made_and_rounding_takes_less_than_a_quantum(
    size: Decimal, cost: Decimal, parts: list[tuple[Decimal, Decimal]], last: Decimal, quantum: Decimal,
) -> None:
    with exact():
        left, cost_left, paid, realised = size, cost, ZERO, ZERO
        for share, price in [*parts, (ONE, last)]:
            closed = left if share == 1 else round_down(abs(left) * share, FINEST).copy_sign(left)
            if not closed:
                continue
            part = close(size=left, cost=cost_left, closed=closed, value=closed * price, quantum=quantum)
            paid += closed * price
            realised += part.realised_pnl
            left, cost_left = left - closed, part.cost

            assert is_multiple(part.realised_pnl, quantum)
            assert 0 <= part.rounding < quantum
            if not left:
                assert paid - cost == realised + part.rounding
                return


@given(size=signed, seen=signed, now=signed, quantum=quanta)
def test_funding_is_paid_rounded_up_and_received_rounded_down(size: Decimal, seen: Decimal, now: Decimal,
                                                              quantum: Decimal) -> None:
    with exact():
        long, short = (accrued(size=contracts, contract_size=ONE, index_seen=seen, index_now=now, quantum=quantum)
                       for contracts in (size, -size))

        assert (seen - now) * size == long.payment + long.rounding
        assert 0 <= long.rounding < quantum
        assert is_multiple(long.payment, quantum)
        assert long.payment + short.payment <= 0


# --- liquidation -------------------------------------------------------------------------------------------------


@given(table=tables, cash=decimals("-1000000", "1000000", 2), rows=holdings(settled_in=["USD"]))
@example(table=Table(LINES, ValueTiers.model_validate({"variant": "value-tiers:1", "tiers": [{"haircut": ZERO}]}),
                     Brackets.model_validate({"variant": "brackets:1", "brackets": [
                         {"floor": ZERO, "initial": Decimal("0.1"), "maintenance": Decimal("0.05")}]})),
         cash=Decimal("10.01"), rows=[holding("I0", Decimal(3), Decimal(300), Decimal(90)),
                                      holding("I1", Decimal(-7), Decimal(-70), Decimal(11))])
def test_filling_orders_at_their_limits_one_by_one_ends_the_pool_at_zero(table: Table, cash: Decimal,
                                                                         rows: list[Holding]) -> None:
    """Quoted anew after each fill, as the ledger does: nothing is owed, and what is left is the last limit's step.

    Only where limits lie within the bounds of a price; beyond them there is nothing to share out.
    """
    quantum = Decimal("0.01")
    with exact():
        # Accrued funding is settled by the first event of the account.
        cash += sum((row.accrued for row in rows), ZERO)
        rows = [row._replace(accrued=ZERO) for row in rows]
        left = list(rows)
        while left:
            pool = evaluate_pool({"USD": cash}, left, price_of(ONE), table)
            terms = order_terms(pool, price_of(ONE))

            assert max(row.maintenance_margin for row in pool.positions) == next(
                row.maintenance_margin for row in pool.positions if row.holding == terms[0].holding)
            assert {term.holding.instrument for term in terms} == {row.instrument for row in left}
            first = terms[0]
            assume(Decimal("0.000000000001") < first.limit_price < 10**12)
            size, unit = first.holding.size, first.holding.contract_size
            assert ("sell" if size > 0 else "buy", abs(size)) == (first.side, first.size)
            part = close(size=size, cost=first.holding.cost, closed=size, value=size * unit * first.limit_price,
                         quantum=quantum)
            cash += part.realised_pnl
            left.remove(first.holding)

        assert 0 <= cash
        assert cash <= round_up(abs(size) * unit * FINEST, quantum)


@given(table=tables, held=balances, rows=holdings(), price=prices)
def test_filling_all_orders_at_their_limits_shares_the_whole_equity(
    table: Table, held: dict[str, Decimal], rows: list[Holding], price: Decimal,
) -> None:
    """All at once and before any rounding of profit: the pool ends at zero, but for the 18th place of each limit."""
    with exact():
        pool = evaluate_pool(held, rows, price_of(price), table)
        equity = pool.account_equity
        rest = ZERO
        for term in order_terms(pool, price_of(price)):
            assume(Decimal("0.000000000001") < term.limit_price < 10**12)
            row, worth = term.holding, price_of(price)(term.holding.settlement_asset) or ZERO
            equity += row.size * row.contract_size * (term.limit_price - row.mark) * worth
            rest += abs(row.size) * row.contract_size * FINEST * worth

        assert 0 <= equity < rest


TICK: Final = Decimal("0.0000000000000001")


def line_of(data: st.DataObject) -> Decimal:
    return data.draw(st.sampled_from([ONE, Decimal("1.25"), Decimal("0.5")]))


@given(table=tables, held=balances, rows=holdings(settled_in=["USD"]), data=st.data())
def test_at_the_liquidation_price_the_pool_is_on_the_line_and_a_tick_beyond_it_is_below(
    table: Table, held: dict[str, Decimal], rows: list[Holding], data: st.DataObject,
) -> None:
    first = rows[0]
    values_btc = data.draw(st.booleans())
    worth = data.draw(prices)
    line, rising = line_of(data), first.size < 0
    with exact():
        def price_at(price: Decimal) -> PriceOf:
            return price_of(price if values_btc else worth)

        repriced = repriced_pool(held, rows, first.instrument, price_at, table)
        edges = slope_edges(held, rows, first.instrument, lambda asset: ONE if (
            values_btc and asset == "BTC") else ZERO, table)
        found = liquidation_price(repriced, mark=first.mark, line=line, rising=rising, edges=edges)

        def room(price: Decimal) -> Decimal:
            pool = repriced(price)
            return pool.margin_equity - line * pool.maintenance_margin

        if room(first.mark) < 0:
            assert found is None
        elif found is not None:
            beyond = TICK if rising else -TICK
            assert room(found - beyond) >= 0 or (found - first.mark) * beyond <= 0 or abs(room(found)) <= TICK * 10**9
            assert room(found + beyond) < 0
            assert (found >= first.mark) if rising else (found <= first.mark)
        else:
            far = Decimal(10) ** 12 if rising else Decimal("0.000000000001")
            for share in ("0.0001", "0.01", "0.5", "0.9", "1"):
                between = first.mark + (far - first.mark) * Decimal(share)
                assert room(between) >= 0, f"at {between}"


@given(table=tables, held=balances, rows=holdings(settled_in=["USD"]), worth=prices)
def test_at_the_bankruptcy_price_account_equity_is_zero(table: Table, held: dict[str, Decimal], rows: list[Holding],
                                                        worth: Decimal) -> None:
    first = rows[0]
    with exact():
        repriced = repriced_pool(held, rows, first.instrument, lambda price: price_of(worth), table)
        found = bankruptcy_price(repriced, mark=first.mark)
        if found is None:
            for price in (Decimal("0.000000000001"), Decimal(10) ** 12):
                assert (repriced(price).account_equity > 0) == (repriced(first.mark).account_equity > 0) or (
                    not repriced(first.mark).account_equity)
            return
        values = [repriced(price).account_equity for price in (found, found + FINEST)]

        assert min(values) <= 0 <= max(values)


@pytest.mark.parametrize("size", [Decimal(1), Decimal(-1)], ids=["long", "short"])
def test_liquidation_price_of_a_position_alone_is_the_textbook_one(size: Decimal) -> None:
    """(cost - cash) / (1 - rate) of a long, (cash - cost) / (1 + rate) of a short, of one contract."""
    rules = Table(LINES, ValueTiers.model_validate({"variant": "value-tiers:1", "tiers": [{"haircut": ZERO}]}),
                  Brackets.model_validate({"variant": "brackets:1", "brackets": [
                      {"floor": ZERO, "initial": Decimal("0.1"), "maintenance": Decimal("0.05")}]}))
    row = holding("I", size, size * 100, Decimal(100))
    with exact():
        found = liquidation_price(repriced_pool({"USD": Decimal(20)}, [row], "I", lambda price: price_of(ONE), rules),
                                  mark=Decimal(100), line=ONE, rising=size < 0, edges=[])
        expected = divide_up(Decimal(80), Decimal("0.95"), FINEST) if size > 0 else divide_down(
            Decimal(120), Decimal("1.05"), FINEST)

    assert expected == found
