"""Laws of the blocks beyond brackets and value tiers, each against a second, naive implementation in fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from ledger.amounts import FINEST, ONE, ZERO, exact
from ledger.risk.closed_form import line_price
from ledger.risk.haircuts import AmountTiers, Buffers, Flat, RootWeight
from ledger.risk.holding import Holding
from ledger.risk.liquidation import price_at_line
from ledger.risk.margin import at_least, evaluate_pool
from ledger.risk.open_orders import OpenOrder, open_loss
from ledger.risk.pool import measured
from ledger.risk.requirement import required
from ledger.risk.roots import root_down, root_up
from ledger.risk.schedule import RiskSteps, SizeLinear, SizeRoot, Tiers
from ledger.risk.solvers import after_trade, largest, maximum_order, maximum_withdrawal, size_to_target
from tests.golden.engine import UNIT, priced, rules
from tests.property.test_margin import decimals, rates

prices = decimals("0.01", "100000", 2)
sizes = decimals("-10000", "10000", 3).filter(bool)
coins = decimals("0", "1000000", 2)
CENT = Decimal("0.01")


@st.composite
def tables(draw: st.DrawFn, shape: str = "marginal") -> dict[str, Any]:
    """Any valid `tiers:1`, floors rising and rates not falling."""
    count = draw(st.integers(1, 4))
    floors = [ZERO, *sorted(draw(st.sets(decimals("0.01", "2000000", 2), min_size=count - 1, max_size=count - 1)))]
    pairs = [sorted(pair) for pair in zip(sorted(draw(st.lists(rates, min_size=count, max_size=count))),
                                          sorted(draw(st.lists(rates, min_size=count, max_size=count))), strict=True)]
    rows = [{"floor": floor, "initial": high, "maintenance": low}
            for floor, (low, high) in zip(floors, pairs, strict=True)]
    return {"variant": "tiers:1", "rates": shape, "edge": draw(st.sampled_from(["floor", "cap"])), "tiers": rows}


def position(size: Decimal, entry: Decimal, mark: Decimal, leverage: Decimal | None = None) -> Holding:
    return Holding("X", "cross", "net", size, size * entry, mark, ZERO, ONE, UNIT, CENT, leverage)


# --- requirements ------------------------------------------------------------------------------------------------


@given(table=tables(), value=coins)
def test_marginal_tiers_are_the_sum_of_their_parts_on_either_edge(table: dict[str, Any], value: Decimal) -> None:
    block = Tiers.model_validate(table)
    with exact():
        initial, maintenance = block.margins(value)
    ends = [*(Fraction(row["floor"]) for row in table["tiers"][1:]), Fraction(10**30)]
    for name, came in (("initial", initial), ("maintenance", maintenance)):
        naive = sum((Fraction(row[name]) * max(Fraction(0), min(Fraction(value), end) - Fraction(row["floor"]))
                     for row, end in zip(table["tiers"], ends, strict=True)), Fraction(0))
        assert naive == Fraction(came)


@given(table=tables("flat"), value=coins)
def test_flat_tiers_take_the_rate_of_the_tier_that_holds_the_whole(table: dict[str, Any], value: Decimal) -> None:
    block = Tiers.model_validate(table)
    rows = [row for row in table["tiers"]
            if (row["floor"] <= value if table["edge"] == "floor" else row["floor"] < value)]
    row = (rows or table["tiers"][:1])[-1]
    with exact():
        assert (value * row["initial"], value * row["maintenance"]) == block.margins(value)


@given(table=tables(), steps=st.lists(coins, min_size=2, max_size=5))
def test_no_tier_ever_requires_less_of_more(table: dict[str, Any], steps: list[Decimal]) -> None:
    for shape in ("marginal", "flat"):
        block = Tiers.model_validate({**table, "rates": shape})
        with exact():
            found = [block.margins(value) for value in sorted(steps)]
        assert found == sorted(found) and [row[1] for row in found] == sorted(row[1] for row in found)


@given(size=sizes, mark=prices, base=rates, slope=rates)
def test_size_linear_and_size_root_are_their_formulas(size: Decimal, mark: Decimal, base: Decimal,
                                                      slope: Decimal) -> None:
    linear = SizeLinear(variant="size-linear:1", initial=base, initial_per_unit=slope, maintenance=base / 2,
                        maintenance_per_unit=slope / 2)
    root = SizeRoot(variant="size-root:1", initial=base, factor=slope, maintenance_fraction=Decimal("0.6"))
    held = position(size, mark, mark)
    with exact():
        _, notional = measured(held)
        one, other = required(linear, held, notional), required(root, held, notional)
        doubled = required(linear, held._replace(size=size * 2), notional * 2)
        expected = notional * min(ONE, base + slope * abs(size))
        rate = min(ONE, max(base, slope * root_up(abs(size))))

        assert expected == one.initial and one.maintenance <= one.initial
        assert doubled.initial >= one.initial * 2
        assert notional * rate == other.initial and notional * rate * Decimal("0.6") == other.maintenance


@given(limit=decimals("1", "1000", 2), step=decimals("1", "500", 2), value=decimals("0", "5000", 2))
def test_risk_steps_count_begun_steps(limit: Decimal, step: Decimal, value: Decimal) -> None:
    block = RiskSteps(variant="risk-steps:1", base_limit=limit, step=step, initial=Decimal("0.01"),
                      maintenance=Decimal("0.004"))
    with exact():
        naive = 0
        while limit + naive * step < value:
            naive += 1
        assert (min(ONE, Decimal("0.01") + naive * Decimal("0.004")),
                min(ONE, Decimal("0.004") * (1 + naive))) == block.rate(value)


@given(value=decimals("0", "1000000000", 8))
def test_roots_enclose_the_root(value: Decimal) -> None:
    with exact():
        low, high = root_down(value), root_up(value)
        assert low * low <= value <= high * high and high - low in (ZERO, FINEST)


# --- collateral --------------------------------------------------------------------------------------------------


BLOCKS = st.one_of(
    st.builds(Flat, variant=st.just("flat:1"), haircut=rates),
    st.builds(Buffers, variant=st.just("buffers:1"), bid=rates, ask=rates),
    st.builds(lambda cut, more: AmountTiers.model_validate({"variant": "amount-tiers:1", "tiers": [
        {"up_to": Decimal(10), "haircut": min(cut, more)}, {"haircut": max(cut, more)}]}), rates, rates),
    st.builds(RootWeight, variant=st.just("root-weight:1"), haircut=rates, factor=rates))


@given(block=BLOCKS, one=decimals("-1000", "1000", 4), other=decimals("-1000", "1000", 4), price=prices)
def test_more_of_an_asset_is_never_worth_less_nor_more_than_its_price(
    block: Flat | Buffers | AmountTiers | RootWeight, one: Decimal, other: Decimal, price: Decimal,
) -> None:
    with exact():
        low, high = sorted((one, other))
        slack = FINEST * 10**9
        assert block.worth(low, price) <= block.worth(high, price) + slack
        assert block.worth(one, price) <= one * price


@given(amount=decimals("0", "1000", 4), price=prices, cuts=st.tuples(rates, rates))
def test_tiers_of_amount_cut_each_part_by_its_own(amount: Decimal, price: Decimal,
                                                  cuts: tuple[Decimal, Decimal]) -> None:
    low, high = sorted(cuts)
    block = AmountTiers.model_validate({"variant": "amount-tiers:1", "tiers": [
        {"up_to": Decimal(10), "haircut": low}, {"haircut": high}]})
    with exact():
        assert (min(amount, Decimal(10)) * (1 - low) + max(amount - 10, ZERO) * (1 - high)) * price == block.worth(
            amount, price)


# --- orders, pools -----------------------------------------------------------------------------------------------


@given(size=sizes, price=prices, mark=prices)
def test_an_order_loses_what_it_is_worse_than_the_mark(size: Decimal, price: Decimal, mark: Decimal) -> None:
    with exact():
        naive = abs(size) * abs(min(ZERO, (mark - price) * (1 if size > 0 else -1)))
        assert naive == open_loss(OpenOrder("X", size, price, mark, ONE, UNIT, CENT))


@given(table=tables(), rows=st.lists(st.tuples(sizes, prices, prices), min_size=1, max_size=4), cash=coins)
def test_a_pool_rule_that_says_nothing_changes_nothing(table: dict[str, Any],
                                                       rows: list[tuple[Decimal, Decimal, Decimal]],
                                                       cash: Decimal) -> None:
    held = [position(*row)._replace(instrument=f"I{number}") for number, row in enumerate(rows)]
    blocks = {row.instrument: table for row in held}
    with exact():
        one = evaluate_pool({UNIT: cash}, held, priced(), rules(blocks))
        other = evaluate_pool({UNIT: cash}, held, priced(), rules(blocks, pool={}))
        turned = evaluate_pool({UNIT: cash}, held[::-1], priced(), rules(blocks, pool={}))

    assert one[:8] == other[:8] == turned[:8] and one.positions == other.positions


@given(table=tables(), rows=st.lists(st.tuples(sizes, prices, prices), min_size=1, max_size=4),
       by=st.sampled_from(["net", "larger-leg"]))
def test_netting_never_requires_more_and_legs_alone_as_much(table: dict[str, Any],
                                                            rows: list[tuple[Decimal, Decimal, Decimal]],
                                                            by: str) -> None:
    held = [position(*row)._replace(instrument=f"I{number}") for number, row in enumerate(rows)]
    blocks = {row.instrument: table for row in held}
    group = {"netting": {"variant": "netting:1", "by": by, "groups": {"g": [row.instrument for row in held]}}}
    with exact():
        gross = evaluate_pool({}, held, priced(), rules(blocks))
        netted = evaluate_pool({}, held, priced(), rules(blocks, pool=group))

    assert netted.maintenance_margin <= gross.maintenance_margin + FINEST * 8
    if len({row.size > 0 for row in held}) == 1:
        assert abs(netted.maintenance_margin - gross.maintenance_margin) <= FINEST * 8


@given(profit=decimals("-1000", "1000", 2), share=rates, cap=coins)
def test_profit_counts_in_part_and_loss_in_full(profit: Decimal, share: Decimal, cap: Decimal) -> None:
    held = [position(ONE, Decimal(2000), Decimal(2000) + profit)]
    with exact():
        weighted = evaluate_pool({}, held, priced(), rules(pool={"profit": {
            "variant": "weighted:1", "maintenance": share, "initial": ZERO}}))
        capped = evaluate_pool({}, held, priced(), rules(pool={"profit": {"variant": "capped:1", "up_to": cap}}))

        assert profit == weighted.account_equity == capped.account_equity
        assert (profit * share if profit > 0 else profit) == weighted.margin_equity
        assert min(profit, ZERO) - weighted.initial_margin == weighted.free
        assert min(profit, cap) == capped.margin_equity


# --- solvers -----------------------------------------------------------------------------------------------------


@given(size=sizes, entry=prices, cash=coins, rate=rates)
def test_the_search_and_the_venues_formula_find_the_same_price(size: Decimal, entry: Decimal, cash: Decimal,
                                                               rate: Decimal) -> None:
    assume(rate < 1)
    book = rules({"X": {"variant": "tiers:1", "tiers": [{"floor": ZERO, "maintenance": rate}]}})
    with exact():
        searched = price_at_line({UNIT: cash}, [position(size, entry, entry)], "X", priced(), book, passed=True)
        formula = line_price(equity=cash, reference=entry, size=size, rate=rate)
        if searched is None or formula is None:
            assert searched is None and (formula is None or not Decimal("1e-12") <= formula <= Decimal("1e12"))
        else:
            assert abs(searched - formula) <= FINEST * 2


@given(table=tables(), cash=coins, held=st.one_of(st.none(), sizes), mark=prices, buy=st.booleans(),
       fee=st.sampled_from([ZERO, Decimal("0.0005")]))
def test_the_largest_order_leaves_initial_margin_and_one_lot_more_does_not(
    table: dict[str, Any], cash: Decimal, held: Decimal | None, mark: Decimal, buy: bool, fee: Decimal,
) -> None:
    book, lot = rules({"X": table}), Decimal("0.001")
    rows = [] if held is None else [position(held, mark, mark)]
    order = OpenOrder("X", ONE if buy else -ONE, mark, mark, ONE, UNIT, CENT)
    with exact():
        found = maximum_order({UNIT: cash}, rows, order, priced(), book, lot_size=lot, fee_rate=fee)

        def free(size: Decimal) -> Decimal:
            after = after_trade({UNIT: cash}, rows, position(ONE, mark, mark), size=size if buy else -size, price=mark,
                                fee_rate=fee)
            return evaluate_pool(*after, priced(), book).free

        closing = max(ZERO, -(held or ZERO) * (1 if buy else -1))
        assert found >= closing and not found % lot
        assert found <= closing or free(found) >= 0
        assert free(found + lot) < 0


@given(table=tables(), cash=coins, size=sizes, entry=prices, mark=prices)
def test_the_largest_withdrawal_leaves_initial_margin_and_one_cent_more_does_not(
    table: dict[str, Any], cash: Decimal, size: Decimal, entry: Decimal, mark: Decimal,
) -> None:
    book, rows = rules({"X": table}), [position(size, entry, mark)]
    with exact():
        found = maximum_withdrawal({UNIT: cash}, rows, UNIT, priced(), book, quantum=CENT)

        def free(amount: Decimal) -> Decimal:
            return evaluate_pool({UNIT: cash - amount}, rows, priced(), book).free

        assert 0 <= found <= cash
        assert free(found) >= 0 or not found
        assert found + CENT > cash or free(found + CENT) < 0


@given(table=tables(), cash=coins, size=sizes, entry=prices, mark=prices,
       target=st.sampled_from([ONE, Decimal("1.3")]))
def test_closing_the_size_found_reaches_the_target_and_a_lot_less_does_not(
    table: dict[str, Any], cash: Decimal, size: Decimal, entry: Decimal, mark: Decimal, target: Decimal,
) -> None:
    book, row, lot = rules({"X": table}), position(size, entry, mark), Decimal("0.001")
    side = 1 if size > 0 else -1
    with exact():
        found = size_to_target({UNIT: cash}, [row], row, priced(), book, target=target, lot_size=lot)

        def reaches(closed: Decimal) -> bool:
            after = after_trade({UNIT: cash}, [row], row, size=-side * closed, price=mark)
            return at_least(evaluate_pool(*after, priced(), book), target)

        if found is None:
            assert not reaches(abs(size))
        else:
            assert reaches(found) and (not found or not reaches(found - lot))


@given(top=st.integers(0, 10**9), first=st.integers(0, 10))
def test_the_search_finds_the_last_that_is_allowed(top: int, first: int) -> None:
    found = largest(lambda size: size <= top, step=ONE, first=Decimal(first))

    assert (Decimal(top) if first <= top else None) == found
