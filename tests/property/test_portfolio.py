"""Laws of portfolio margin, and a second, naive implementation in fractions that revalues every position each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from ledger.amounts import FINEST, ONE, ZERO, exact
from ledger.risk.holding import ContractType, Holding, cost_of, notional_of
from ledger.risk.liquidation import order_terms, price_at_line
from ledger.risk.margin import at_least, evaluate_pool
from ledger.risk.portfolio import Offsets
from ledger.risk.scenario import Scenarios
from ledger.rulebook import Rulebook
from tests.golden.engine import UNIT, rules
from tests.property.test_margin import decimals

UNDERLYINGS: Final = ("A", "B", "C")
# What one unit of each settlement asset is worth; the inverse contract of B settles in coin.
PRICES: Final = {UNIT: ONE, "COIN": Decimal("120.5")}
CENT: Final = Decimal("0.01")

shifts = st.integers(1, 400).map(lambda number: Decimal(number).scaleb(-3))
sizes = decimals("-1000", "1000", 2).filter(bool)
marks = decimals("0.5", "20000", 2)
rates = decimals("0", "1", 2)


class Instrument(NamedTuple):
    """An instrument of the tests: what it is on, how it settles, and whether it brings losses of its own."""

    name: str
    underlying: str
    contract_type: ContractType = "linear"
    asset: str = UNIT
    has_losses: bool = False


INSTRUMENTS: Final = (
    Instrument("A-PERP", "A"), Instrument("A-DATED", "A", asset="COIN"), Instrument("A-CALL", "A", has_losses=True),
    Instrument("A-PUT", "A", has_losses=True), Instrument("B-PERP", "B"), Instrument("B-COIN", "B", "inverse", "COIN"),
    Instrument("C-PERP", "C"), Instrument("OTHER", ""))


class Case(NamedTuple):
    """A rulebook of grids and offsets, as it was written down and as it was read."""

    written: Mapping[str, Mapping[str, Any]]
    credits: Mapping[str, Mapping[str, Decimal]]
    rules: Rulebook


@st.composite
def grids(draw: st.DrawFn) -> dict[str, Any]:
    """Any grid of shifts: price, and for those with losses of their own volatility; extremes; sizes."""
    falls, rises = (sorted(draw(st.sets(shifts, min_size=1, max_size=3))) for _ in range(2))
    prices = [*(-row for row in reversed(falls)), *draw(st.sampled_from([[], [ZERO]])), *rises]
    grid: dict[str, Any] = {
        "variant": "scenarios:1", "prices": prices, "volatilities": draw(st.sampled_from([
            [ZERO], [Decimal("-0.2"), Decimal("0.3")]])),
        "extremes": draw(st.sampled_from([[], [{"price": Decimal("-0.5"), "counted": Decimal("0.35")},
                                               {"price": Decimal("0.9"), "counted": Decimal("0.7")}]])),
        "minimum": draw(st.sampled_from([ZERO, Decimal("0.001"), Decimal("0.02")])),
        "initial_multiple": draw(decimals("1", "2", 1))}
    if draw(st.booleans()):
        grid["sizes"] = [{"up_to": draw(decimals("1", "100000", 2)), "multiplier": ONE},
                         {"multiplier": draw(decimals("1", "4", 1))}]
    return grid


def count_of(grid: Mapping[str, Any]) -> int:
    return len(grid["prices"]) * len(grid["volatilities"]) + len(grid["extremes"])


@st.composite
def cases(draw: st.DrawFn, *, sized: bool = True, options: bool = True) -> Case:
    """A rulebook: a grid an underlying, losses of the options, and a matrix of credits."""
    written: dict[str, dict[str, Any]] = {}
    grid_of = {name: draw(grids()) for name in (*UNDERLYINGS, "")}
    for row in INSTRUMENTS:
        block = dict(grid_of[row.underlying])
        if not sized:
            block.pop("sizes", None)
        if row.underlying:
            block["underlying"] = row.underlying
        if row.has_losses and options:
            block["losses"] = draw(st.lists(decimals("-500", "500", 1), min_size=count_of(block),
                                            max_size=count_of(block)))
        written[row.name] = block
    matrix = {"A": {"B": draw(rates), "C": draw(rates)}, "C": {"B": draw(rates)}}
    return Case(written, matrix, read(written, matrix))


def read(written: Mapping[str, Mapping[str, Any]], matrix: Mapping[str, Mapping[str, Decimal]] | None) -> Rulebook:
    portfolio: dict[str, Any] = {"variant": "portfolio:1"}
    if matrix is not None:
        portfolio["offsets"] = {"variant": "offsets:1", "credits": matrix}
    return rules(written, pool={"portfolio": portfolio})


@st.composite
def books(draw: st.DrawFn, names: Sequence[str] = tuple(row.name for row in INSTRUMENTS)) -> list[Holding]:
    """Some positions, hedge sides among them."""
    found = []
    for row in INSTRUMENTS:
        for side in ("long", "short"):
            if row.name in names and draw(st.booleans()):
                size = abs(draw(sizes)) * (1 if side == "long" else -1)
                found.append(position(row, size, draw(marks), side))
    return found


def position(row: Instrument, size: Decimal, mark: Decimal, side: str = "net") -> Holding:
    with exact():
        cost = cost_of(size=size, contract_size=ONE, price=mark, contract_type=row.contract_type)
    return Holding(row.name, "cross", side, size, cost, mark, ZERO, ONE, row.asset, CENT, None, row.contract_type)


def needed(held: Sequence[Holding], rules: Rulebook) -> tuple[Decimal, Decimal]:
    with exact():
        pool = evaluate_pool({}, held, PRICES.get, rules)
        assert pool.initial_margin == sum((row.initial_margin for row in pool.positions), ZERO)
        assert pool.maintenance_margin == sum((row.maintenance_margin for row in pool.positions), ZERO)
    return pool.initial_margin, pool.maintenance_margin


# --- a second implementation -------------------------------------------------------------------------------------


def naive(held: Sequence[Holding], case: Case) -> tuple[Fraction, Fraction]:
    """Every position revalued in every scenario, pair after pair of the matrix; (initial, maintenance)."""
    underlying_of = {row.name: row.underlying or row.name for row in INSTRUMENTS}
    names: list[str] = sorted({underlying_of[row.instrument] for row in held})
    down: dict[str, Fraction] = {}
    up: dict[str, Fraction] = {}
    gross: dict[str, Fraction] = {}
    grid_of: dict[str, Mapping[str, Any]] = {}
    for name in names:
        rows = [row for row in held if underlying_of[row.instrument] == name]
        grid = grid_of[name] = case.written[rows[0].instrument]
        places = [(Fraction(price), Fraction(1)) for price in grid["prices"] for _ in grid["volatilities"]]
        places += [(Fraction(row["price"]), Fraction(row["counted"])) for row in grid["extremes"]]
        totals = []
        for index, (shift, counted) in enumerate(places):
            lost = Fraction(0)
            for row in rows:
                lost += loss_of(row, case.written[row.instrument], index, shift)
            totals.append(lost * counted)
        down[name] = max([Fraction(0), *(total for total, place in zip(totals, places, strict=True) if place[0] <= 0)])
        up[name] = max([Fraction(0), *(total for total, place in zip(totals, places, strict=True) if place[0] >= 0)])
        gross[name] = sum((value_of(row) for row in rows), Fraction(0))
    risk = {name: max(down[name], up[name]) for name in names}
    free = {name: abs(down[name] - up[name]) for name in names}
    pairs = [(Fraction(credit), min(first, second), max(first, second))
             for first, row in case.credits.items() for second, credit in row.items()]
    for credit, first, second in sorted(pairs, key=lambda row: (-row[0], row[1], row[2])):
        if first in free and second in free and (down[first] - up[first]) * (down[second] - up[second]) < 0:
            used = min(free[first], free[second])
            for name in (first, second):
                risk[name] -= credit * used
                free[name] -= used
    initial = maintenance = Fraction(0)
    for name in names:
        charge, floor, rest = Fraction(0), Fraction(0), risk[name]
        for tier in grid_of[name].get("sizes", [{"multiplier": ONE}]):
            end = Fraction(tier["up_to"]) if "up_to" in tier else max(floor, rest)
            charge += max(Fraction(0), min(rest, end) - floor) * Fraction(tier["multiplier"])
            floor = end
        charge = max(charge, Fraction(grid_of[name]["minimum"]) * gross[name])
        maintenance += charge
        initial += charge * Fraction(grid_of[name]["initial_multiple"])
    return initial, maintenance


def value_of(row: Holding) -> Fraction:
    with exact():
        value = notional_of(size=row.size, contract_size=ONE, price=row.mark, contract_type=row.contract_type)
    return Fraction(value) * Fraction(PRICES[row.settlement_asset])


def loss_of(row: Holding, block: Mapping[str, Any], index: int, shift: Fraction) -> Fraction:
    if "losses" in block:
        return Fraction(row.size) * Fraction(block["losses"][index]) * Fraction(PRICES[row.settlement_asset])
    return -value_of(row) * shift if row.size > 0 else value_of(row) * shift


@given(case=cases(), held=books())
def test_a_portfolio_requires_what_revaluing_each_position_says(case: Case, held: list[Holding]) -> None:
    assert naive(held, case) == tuple(map(Fraction, needed(held, case.rules)))


# --- laws --------------------------------------------------------------------------------------------------------


@given(case=cases(), held=books(), data=st.data())
def test_the_order_of_positions_does_not_matter(case: Case, held: list[Holding], data: st.DataObject) -> None:
    other = data.draw(st.permutations(held))
    with exact():
        pools = [evaluate_pool({}, rows, PRICES.get, case.rules) for rows in (held, other)]

    assert pools[0][:9] == pools[1][:9]
    assert sorted(pools[0].positions) == sorted(pools[1].positions)


@given(case=cases(sized=False), held=books(), factor=st.sampled_from([2, 7, 1000]))
def test_a_portfolio_twice_as_large_requires_twice_as_much(case: Case, held: list[Holding], factor: int) -> None:
    linear = [row for row in held if row.contract_type == "linear"]
    before = needed(linear, case.rules)

    assert tuple(factor * part for part in before) == needed([row._replace(
        size=row.size * factor, cost=row.cost * factor) for row in linear], case.rules)


@given(case=cases(), held=books())
def test_larger_tables_of_sizes_never_require_less(case: Case, held: list[Holding]) -> None:
    plain = {name: {key: value for key, value in block.items() if key != "sizes"}
             for name, block in case.written.items()}

    assert needed(held, read(plain, case.credits)) <= needed(held, case.rules)


@given(case=cases(), held=books())
def test_offsets_never_raise_a_requirement_nor_take_off_more_than_the_directional_part(
        case: Case, held: list[Holding]) -> None:
    alone = needed(held, read(case.written, None))
    nothing = {first: dict.fromkeys(row, ZERO) for first, row in case.credits.items()}
    found = needed(held, case.rules)

    assert alone == needed(held, read(case.written, nothing))
    assert found[0] <= alone[0] and ZERO <= found[1] <= alone[1]


@given(case=cases(sized=False), size=sizes, mark=marks, other_size=sizes, other_mark=marks)
def test_a_full_credit_leaves_the_difference_of_two_opposite_underlyings(
        case: Case, size: Decimal, mark: Decimal, other_size: Decimal, other_mark: Decimal) -> None:
    bare = {name: {**block, "minimum": ZERO} for name, block in case.written.items()}
    rows = [position(INSTRUMENTS[0], abs(size), mark), position(INSTRUMENTS[4], -abs(other_size), other_mark)]
    one, other = (needed([row], read(bare, None))[1] for row in rows)

    assert abs(one - other) == needed(rows, read(bare, {"A": {"B": ONE}}))[1]


@given(case=cases(sized=False), held=books())
def test_together_never_requires_more_than_each_position_alone(case: Case, held: list[Holding]) -> None:
    together = needed(held, case.rules)[1]

    assert together <= sum((needed([row], case.rules)[1] for row in held), ZERO)


@given(case=cases(options=False), held=books(), more=decimals("0.01", "1000", 2))
def test_more_of_the_same_direction_never_requires_less(case: Case, held: list[Holding], more: Decimal) -> None:
    """Within one underlying; elsewhere the same trade may be a hedge."""
    rows = [row for row in held if row.instrument in ("A-PERP", "A-DATED", "A-CALL")]
    rows = [row for row in rows if row.size > 0] or [position(INSTRUMENTS[0], ONE, Decimal(100), "long")]
    grown = [rows[0]._replace(size=rows[0].size + more), *rows[1:]]

    assert needed(rows, case.rules) <= needed(grown, case.rules)


@given(case=cases(), held=books(), price=shifts)
def test_one_more_scenario_never_requires_less(case: Case, held: list[Holding], price: Decimal) -> None:
    rows = [row for row in held if row.instrument in ("B-PERP", "B-COIN")]
    block = case.written["B-PERP"]
    wider = {**block, "prices": sorted({*block["prices"], -price}), "extremes": []}
    same = {**block, "extremes": []}
    before, after = ({**case.written, "B-PERP": {**grid, "underlying": "B"}, "B-COIN": {**grid, "underlying": "B"}}
                     for grid in (same, wider))

    assert needed(rows, read(before, None)) <= needed(rows, read(after, None))


@given(case=cases())
def test_a_straddle_is_no_hedge_of_anything(case: Case) -> None:
    """What loses alike both ways has no directional part, so that nothing offsets it."""
    offsets = Offsets(variant="offsets:1", credits={"A": {"B": ONE}})
    with exact():
        assert {"A": ZERO, "B": ZERO} == offsets.taken_off({"A": ZERO, "B": Decimal(50)})


# --- solvers -----------------------------------------------------------------------------------------------------


@given(case=cases(), held=books(("A-PERP", "B-PERP", "B-COIN", "C-PERP")), size=sizes, mark=marks,
       share=decimals("0", "1", 3))
def test_at_its_liquidation_price_a_portfolio_stands_on_the_line(
        case: Case, held: list[Holding], size: Decimal, mark: Decimal, share: Decimal) -> None:
    """Beside whatever hedges it; the cash is lost before the price has halved or doubled."""
    rows = [position(INSTRUMENTS[0], size, mark, "net"), *(row for row in held if row.instrument != "A-PERP")]
    with exact():
        cash = needed(rows, case.rules)[1] + abs(size) * mark * share / 2
        price = price_at_line({UNIT: cash}, rows, "A-PERP", PRICES.get, case.rules)
        if price is None:
            return
        away = price + (FINEST if size < 0 else -FINEST)
        here, past = (evaluate_pool({UNIT: cash}, [rows[0]._replace(mark=at), *rows[1:]], PRICES.get, case.rules)
                      for at in (price, away))
        assert at_least(here, ONE) and not at_least(past, ONE)


@given(case=cases(), size=sizes.filter(lambda size: size < 0), mark=marks)
def test_a_short_of_a_portfolio_always_has_a_liquidation_price(case: Case, size: Decimal, mark: Decimal) -> None:
    with exact():
        rows = [position(INSTRUMENTS[0], size, mark)]
        cash = needed(rows, case.rules)[1] * 2
        assert price_at_line({UNIT: cash}, rows, "A-PERP", PRICES.get, case.rules) is not None


@given(case=cases(options=False), size=sizes, mark=marks, cash=decimals("-1000", "0", 2).filter(bool))
def test_a_portfolio_hedged_to_nothing_is_closed_by_value(case: Case, size: Decimal, mark: Decimal,
                                                          cash: Decimal) -> None:
    bare = {name: {**block, "minimum": ZERO} for name, block in case.written.items()}
    pair = [position(INSTRUMENTS[0], abs(size), mark, "long"), position(INSTRUMENTS[0], -abs(size), mark, "short")]
    with exact():
        pool = evaluate_pool({UNIT: cash}, pair, PRICES.get, read(bare, None))
        orders = order_terms(pool, PRICES.get)

    assert ZERO == pool.maintenance_margin
    assert {"sell", "buy"} == {order.side for order in orders}


@given(grid=grids(), net=decimals("-100000", "100000", 2))
def test_the_reach_of_a_grid_is_its_worst_scenario(grid: dict[str, Any], net: Decimal) -> None:
    block = Scenarios.model_validate(grid)
    with exact():
        assert block.scan(net) == block.scan(net, [(ZERO, [ZERO] * len(block.scenarios))])
