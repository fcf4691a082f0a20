"""Laws of inverse contracts: value, profit and notional in base, prices at which a line is reached, orders' limits."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import assume, example, given
from hypothesis import strategies as st

from ledger.amounts import FINEST, ONE, ZERO, exact
from ledger.risk.collateral import ValueTiers
from ledger.risk.holding import Holding, cost_of, notional_of, value_of
from ledger.risk.liquidation import bankruptcy_price, liquidation_price, order_terms, repriced_pool, slope_edges
from ledger.risk.margin import PriceOf, evaluate_pool
from ledger.risk.requirement import Brackets
from tests.property.test_margin import LINES, Table, brackets, decimals

SATOSHI = Decimal("0.00000001")
WHOLE = ValueTiers.model_validate({"variant": "value-tiers:1", "tiers": [{"haircut": ZERO}]})

contracts = decimals("-10000000", "10000000", 0).filter(bool)
prices = decimals("0.01", "1000000", 2)
coins = decimals("0", "100000", 8)


def inverse(size: Decimal, entry: Decimal, mark: Decimal, contract_size: Decimal = ONE) -> Holding:
    cost = cost_of(size=size, contract_size=contract_size, price=entry, contract_type="inverse", quantum=SATOSHI)
    return Holding("BTC-USD-INV", "cross", "net", size, cost, mark, ZERO, contract_size, "BTC", SATOSHI, None,
                   "inverse")


def in_coin(price: Decimal) -> PriceOf:
    return {"BTC": price}.get


@given(size=contracts, entry=prices, mark=prices)
def test_profit_is_that_of_the_reciprocals_and_rounding_takes_less_than_a_quantum(size: Decimal, entry: Decimal,
                                                                                  mark: Decimal) -> None:
    with exact():
        pool = evaluate_pool({}, [inverse(size, entry, mark)], in_coin(ONE), Table(LINES, WHOLE, FLAT))
        plain = Fraction(size) * (1 / Fraction(entry) - 1 / Fraction(mark))

    assert 0 <= plain - Fraction(pool.unrealised_pnl) < Fraction(SATOSHI) + Fraction(FINEST)


@given(size=contracts, price=prices, quantum=st.sampled_from([SATOSHI, FINEST, Decimal("0.01")]))
def test_values_round_against_the_account_and_requirements_up(size: Decimal, price: Decimal, quantum: Decimal) -> None:
    with exact():
        true = -Fraction(size) / Fraction(price)
        value, cost = (Fraction(of(size=size, contract_size=ONE, price=price, contract_type="inverse",
                                   quantum=quantum)) for of in (value_of, cost_of))
        notional = Fraction(notional_of(size=size, contract_size=ONE, price=price, contract_type="inverse",
                                        quantum=quantum))

    assert true - Fraction(quantum) < value <= true <= cost < true + Fraction(quantum)
    assert abs(true) <= notional < abs(true) + Fraction(quantum)


FLAT = Brackets.model_validate({"variant": "brackets:1", "brackets": [
    {"floor": ZERO, "initial": Decimal("0.02"), "maintenance": Decimal("0.01")}]})


@given(table=brackets(), size=contracts, entry=prices, mark=prices, held=coins, own=st.booleans(),
       line=st.sampled_from([ONE, Decimal("1.25")]))
def test_at_the_liquidation_price_the_pool_is_on_the_line_and_a_step_beyond_below(
    table: Brackets, size: Decimal, entry: Decimal, mark: Decimal, held: Decimal, own: bool, line: Decimal,
) -> None:
    """Valued in the coin itself, or in dollars by the instrument's own mark (`own`)."""
    rules, row = Table(LINES, WHOLE, table), inverse(size, entry, mark)
    with exact():
        def price_at(price: Decimal) -> PriceOf:
            return in_coin(price if own else ONE)

        repriced = repriced_pool({"BTC": held}, [row], row.instrument, price_at, rules)
        edges = slope_edges({"BTC": held}, [row], row.instrument, lambda asset: ONE if own else ZERO, rules)
        found = liquidation_price(repriced, mark=mark, line=line, rising=size < 0, edges=edges, curved=True)

        def room(price: Decimal) -> Decimal:
            pool = repriced(price)
            return pool.margin_equity - line * pool.maintenance_margin

        if room(mark) < 0:
            assert found is None
        elif found is not None:
            assert room(found) >= 0 > room(found + (FINEST if size < 0 else -FINEST))
            assert found >= mark if size < 0 else found <= mark
        else:
            far = Decimal(10) ** 12 if size < 0 else Decimal("0.000000000001")
            assert all(room(mark + (far - mark) * share) >= 0 for share in (Decimal("0.01"), Decimal("0.5"), ONE))


@given(size=contracts, entry=prices, mark=prices, held=coins)
def test_at_the_bankruptcy_price_account_equity_turns(size: Decimal, entry: Decimal, mark: Decimal,
                                                      held: Decimal) -> None:
    rules, row = Table(LINES, WHOLE, FLAT), inverse(size, entry, mark)
    with exact():
        repriced = repriced_pool({"BTC": held}, [row], row.instrument, lambda price: in_coin(ONE), rules)
        found = bankruptcy_price(repriced, mark=mark, curved=True)
        if found is not None:
            around = [repriced(max(found + step, FINEST)).account_equity for step in (-FINEST, ZERO, FINEST)]
            assert min(around) <= 0 <= max(around)


# A limit so low that a satoshi is less than its last place.
@example(rows=[(Decimal(1), Decimal("0.01"), Decimal("0.01")), (Decimal(1735), Decimal("0.01"), Decimal(204))],
         held=Decimal(0))
@given(rows=st.lists(st.tuples(contracts, prices, prices), min_size=1, max_size=4), held=coins)
def test_closing_all_at_the_limits_never_ends_below_zero(rows: list[tuple[Decimal, Decimal, Decimal]],
                                                         held: Decimal) -> None:
    """Each closing fill's value is rounded down to the satoshi, as a posted fill's is.

    What is left beyond is less than a satoshi an order, and what the last place of its limit is worth.
    """
    positions = [inverse(*row)._replace(instrument=f"I{number}") for number, row in enumerate(rows)]
    with exact():
        pool = evaluate_pool({"BTC": held}, positions, in_coin(ONE), Table(LINES, WHOLE, FLAT))
        terms = order_terms(pool, in_coin(ONE))
        assume(pool.account_equity >= 0)
        assume(all(Decimal("0.000000000001") < term.limit_price < 10**12 for term in terms))
        left, most = held, Fraction(SATOSHI) * (len(terms) + 1)
        for term in terms:
            limit = Fraction(term.limit_price)
            most += Fraction(term.size * FINEST) / (limit * (limit - Fraction(FINEST)))
            value = value_of(size=term.holding.size, contract_size=ONE, price=term.limit_price,
                             contract_type="inverse", quantum=SATOSHI)
            left += value - term.holding.cost

        assert 0 <= left < most
