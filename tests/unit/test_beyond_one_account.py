"""Blocks that ask for more than one account holds: open interest, deposits of all, averages; by hand and refused."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.calculator import BadInput, answer
from ledger.amounts import FINEST, ONE, ZERO, exact
from ledger.events import RecordRejected
from ledger.risk.haircuts import Flat
from ledger.risk.holding import Holding
from ledger.risk.open_interest import OpenInterestFraction
from ledger.risk.surroundings import PoolScaled, WorsePrice, worth_for_initial
from ledger.rulebook import shipped, shipped_versions
from tests.property.test_margin import decimals
from tests.unit.ledger_scenario import desk, rules

CROWDED = {"variant": "open-interest:1", "initial": "0.05", "maintenance_fraction": "0.6", "lower_cap": "1000000",
           "upper_cap": "3000000"}
SCALED = {"collateral": {"variant": "flat:1", "haircut": "0.1"},
          "scaling": {"variant": "pool-scaled:1", "scale_start": "1000000"}}
WORSE = {"variant": "pool:1", "initial_prices": {"variant": "worse-of-average:1"}}


def book(**changes: Any) -> dict[str, Any]:
    """The house rulebook with rows of its own; a pool, since two of the blocks need one."""
    return rules(**{"pool": {"variant": "pool:1"}, **changes})


def asked(rulebook: dict[str, Any], collateral: dict[str, str], size: str = "0", leverage: str | None = None,
          **more: Any) -> dict[str, Any]:
    held = {"instrument": "X-USD", "signed_size": size, "entry_price": "100", "leverage": leverage}
    question = {"rulebook": rulebook, "marks": {"X-USD": "100", "SOL": "50"}, **more, "account": {
        "collateral": collateral, "positions": [{name: value for name, value in held.items() if value}]
        if size != "0" else []}}
    found: dict[str, Any] = json.loads(answer(json.dumps(question).encode()).model_dump_json())
    return found


def listed(open_interest: str) -> list[dict[str, str]]:
    return [{"instrument": "X-USD", "base": "X", "quote": "USD", "open_interest": open_interest}]


@pytest.mark.parametrize(("open_interest", "leverage", "initial"), [
    ("0", None, "500"),
    ("10000", None, "500"),  # worth 1,000,000: at the lower cap
    ("20000", None, "5250"),  # half-way: 0.05 + 0.95 / 2
    ("30000", None, "10000"),  # at the upper cap nothing is lent
    ("0", "10", "1000"),
    ("20000", "10", "5250"),
])
def test_open_interest_raises_initial_margin_alone(open_interest: str, leverage: str | None, initial: str) -> None:
    """100 contracts at 100: 5 % and three fifths of it, dYdX's rule."""
    found = asked(book(instruments={"X-USD": {"requirement": CROWDED}}), {"USD": "20000"}, "-100", leverage,
                  instruments=listed(open_interest))

    assert (initial, "300") == (found["initial_margin"], found["maintenance_margin"])


@pytest.mark.parametrize(("deposits", "counted"), [
    ("0", "4500"), ("20000", "4500"),  # worth 1,000,000: where the scale starts
    ("40000", "2250"), ("400000", "225"),
])
def test_deposits_of_all_cut_collateral_of_new_risk_alone(deposits: str, counted: str) -> None:
    """100 SOL at 50, a tenth cut; Mango's scaling."""
    found = asked(book(assets={"SOL": SCALED}), {"SOL": "100"}, deposits={"SOL": deposits})

    assert ("4500", counted) == (found["margin_equity"], found["free_collateral"])


def test_a_debt_is_not_scaled() -> None:
    found = asked(book(assets={"SOL": SCALED}), {"USD": "10000", "SOL": "-100"}, deposits={"SOL": "400000"})

    assert ("5000", "5000") == (found["margin_equity"], found["free_collateral"])


@pytest.mark.parametrize(("amount", "average", "equity", "free"), [
    ("100", "40", "15000", "14000"),  # held: the lower
    ("100", "60", "15000", "15000"),
    ("-100", "60", "5000", "4000"),  # owed: the higher
    ("-100", "40", "5000", "5000"),
])
def test_new_risk_goes_by_the_worse_of_mark_and_average(amount: str, average: str, equity: str, free: str) -> None:
    plain = {"SOL": {"collateral": {"variant": "flat:1", "haircut": "0"}}}
    found = asked(book(assets=plain, pool=WORSE), {"USD": "10000", "SOL": amount}, averages={"SOL": average})

    assert (equity, free) == (found["margin_equity"], found["free_collateral"])


@pytest.mark.parametrize(("changes", "collateral", "size", "expected"), [
    ({"instruments": {"X-USD": {"requirement": CROWDED}}}, {"USD": "1"}, "1",
     "instruments: expected the open_interest of X-USD"),
    ({"assets": {"SOL": SCALED}}, {"SOL": "1"}, "0", "deposits.SOL: expected the deposits of SOL of all accounts"),
    ({"pool": WORSE}, {"SOL": "1"}, "0", "averages.SOL: expected the average of SOL"),
    ({"assets": {"SOL": SCALED}, "pool": None}, {"SOL": "1"}, "0",
     "expected a `pool` where assets.SOL has a `scaling`"),
    ({"instruments": {"X-USD": {"requirement": {**CROWDED, "lower_cap": "9000000"}}}}, {}, "0",
     "a lower cap not above"),
])
def test_what_is_missing_is_named(changes: dict[str, Any], collateral: dict[str, str], size: str,
                                  expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        asked(book(**changes), collateral, size)

    assert expected in str(caught.value)


@pytest.mark.parametrize(("changes", "path"), [
    ({"instruments": {"X-USD": {"requirement": CROWDED}}}, "rulebook.instruments.X-USD.requirement"),
    ({"assets": {"SOL": SCALED}}, "rulebook.assets.SOL.scaling"),
    ({"pool": WORSE}, "rulebook.pool.initial_prices"),
])
def test_no_ledger_runs_under_what_it_cannot_know(changes: dict[str, Any], path: str) -> None:
    s = desk()
    outcome = s.rulebook(book(**changes))

    assert ("rejected", "rulebook", path) == (outcome.kind, outcome.reason, s.told(RecordRejected).field)


def test_what_is_shipped_needs_one_account_alone() -> None:
    assert [()] == list({found.beyond_one_account for place in shipped_versions()
                         if (found := shipped(*place)) is not None})


# --- laws --------------------------------------------------------------------------------------------------------


@given(amount=decimals("-1000", "1000", 2), mark=decimals("0.01", "1000", 2), average=decimals("0.01", "1000", 2),
       deposits=decimals("0", "1000000", 2), start=decimals("1", "1000000", 2))
def test_new_risk_is_never_judged_more_kindly_than_what_there_is(
        amount: Decimal, mark: Decimal, average: Decimal, deposits: Decimal, start: Decimal) -> None:
    block = Flat(variant="flat:1", haircut=Decimal("0.1"))
    with exact():
        worth = worth_for_initial(
            amount, mark, block, average=average, prices=WorsePrice(variant="worse-of-average:1"), deposits=deposits,
            scaling=PoolScaled(variant="pool-scaled:1", scale_start=start))

        assert worth <= block.worth(amount, mark)
    price = Fraction(min(mark, average) if amount > 0 else max(mark, average))
    value = Fraction(deposits) * price
    share = min(Fraction(1), Fraction(start) / value) if value else Fraction(1)
    naive = Fraction(amount) * price * (share * Fraction(9, 10) if amount > 0 else 1)
    # The share is rounded down to 18 places.
    assert 0 <= naive - Fraction(worth) <= abs(Fraction(amount)) * price / 10**18


@given(size=decimals("-10000", "10000", 2).filter(bool), mark=decimals("0.01", "100000", 2),
       crowds=st.lists(st.integers(0, 10**7).map(Decimal), min_size=2, max_size=4))
def test_a_larger_crowd_never_asks_for_less_and_never_liquidates(size: Decimal, mark: Decimal,
                                                                crowds: list[Decimal]) -> None:
    block = OpenInterestFraction.model_validate_json(json.dumps(CROWDED))
    held = Holding("X-USD", "cross", "net", size, size * mark, mark, ZERO, ONE, "USD", FINEST, None)
    with exact():
        found = [block.required(held._replace(open_interest=crowd), abs(size) * mark) for crowd in sorted(crowds)]

    assert [row.initial for row in found] == sorted(row.initial for row in found)
    assert 1 == len({row.maintenance for row in found})
    assert all(row.maintenance <= row.initial for row in found)
