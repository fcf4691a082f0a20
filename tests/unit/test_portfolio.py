"""Portfolio margin by hand: the house's portfolio rulebook, options that bring their losses, what is refused."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from typing import Any

import pytest

from infra.calculator import answer
from ledger.amounts import ONE, ZERO, exact
from ledger.errors import Rejected
from ledger.risk.holding import Holding
from ledger.risk.margin import evaluate_pool
from ledger.rulebook import Rulebook, read_rulebook, shipped
from tests.golden.engine import UNIT, rules

D = Decimal
MARKS = {"BTC-USD": "50000", "BTC-USDT": "50000", "USDT": "1", "ETH-USD": "2500", "SOL-USD": "100", "DOGE-USD": "0.1"}


def content() -> dict[str, Any]:
    found = shipped("house-portfolio")
    assert found is not None
    return found.model_dump(mode="json", exclude_none=True)


def asked(*positions: tuple[str, str], usd: str = "1000000", rulebook: Any = "house-portfolio") -> dict[str, Any]:
    """The calculator's answer for positions entered at the mark."""
    question = {"rulebook": rulebook, "marks": MARKS, "account": {"collateral": {"USD": usd}, "positions": [
        {"instrument": name, "signed_size": size, "entry_price": MARKS[name]} for name, size in positions]}}
    found: dict[str, Any] = json.loads(answer(json.dumps(question).encode()).model_dump_json())
    return found


@pytest.mark.parametrize(("sentence", "positions", "maintenance"), [
    ("12 % of what is long", [("BTC-USD", "10")], "60000"),
    ("as much of what is short", [("BTC-USD", "-10")], "60000"),
    ("two instruments on one underlying are netted, the least rate of both stays", [
        ("BTC-USD", "10"), ("BTC-USDT", "-10")], "5000"),
    ("what is left of them is scanned", [("BTC-USD", "10"), ("BTC-USDT", "-4")], "36000"),
    ("two underlyings the same way add up", [("BTC-USD", "10"), ("ETH-USD", "100")], "90000"),
    ("opposite ways half of the lesser is taken off each", [("BTC-USD", "10"), ("ETH-USD", "-100")], "60000"),
    ("the greatest credit first, the rest of it for the next", [
        ("BTC-USD", "10"), ("ETH-USD", "-100"), ("SOL-USD", "-1000")], "67200"),
    ("an instrument of no underlying stands alone and offsets nothing", [
        ("BTC-USD", "10"), ("DOGE-USD", "-100000")], "62500"),
    ("a large scan risk counts more, tier by tier", [("BTC-USD", "400")], "2600000"),
])
def test_the_house_portfolio(sentence: str, positions: list[tuple[str, str]], maintenance: str) -> None:
    found = asked(*positions, usd="10000000")

    assert maintenance == found["maintenance_margin"], sentence
    assert D(maintenance) * D("1.3") == D(found["initial_margin"])


def test_a_hedged_portfolio_says_why_it_has_no_liquidation_price() -> None:
    found = asked(("BTC-USD", "1"), usd="1000000")

    assert found["pools"][0]["positions"][0]["liquidation_price"] is None
    assert any("no fall of this mark alone leads to the liquidation line" in row for row in found["explanation"])


def test_a_portfolio_that_is_past_its_line_says_so_instead_of_a_price() -> None:
    found = asked(("BTC-USD", "40"), usd="10000")

    assert "liquidation" == found["status"]
    assert any("is past the liquidation line 1 at the marks as they are" in row for row in found["explanation"])
    assert not any("of this mark alone" in row for row in found["explanation"])


def test_a_portfolio_is_liquidated_at_its_price_and_not_a_cent_before() -> None:
    """100,000 + 10 x (P - 50,000) = 0.12 x 10 x P: P is 45,454.54..."""
    price = D(asked(("BTC-USD", "10"), usd="100000")["pools"][0]["positions"][0]["liquidation_price"])

    assert D("45454.545454545454545455") == price


def test_an_option_brings_its_own_losses_and_volatility() -> None:
    """A call covered by what it is on: 2 long against 1 written, four scenarios and one extreme that counts half."""
    grid = {"variant": "scenarios:1", "underlying": "X", "prices": [D("-0.1"), D("0.1")],
            "volatilities": [D("-0.2"), D("0.2")], "extremes": [{"price": D("0.5"), "counted": D("0.5")}],
            "minimum": ZERO}
    book = rules({"X-PERP": grid, "X-CALL": {**grid, "losses": [D(4), D(2), D(-6), D(-11), D(-45)]}},
                 pool={"portfolio": {"variant": "portfolio:1"}})
    future = Holding("X-PERP", "cross", "net", D(2), D(200), D(100), ZERO, ONE, UNIT, D("0.01"), None)
    call = Holding("X-CALL", "cross", "net", D(-1), D(-8), D(8), ZERO, ONE, UNIT, D("0.01"), None)

    def required(*held: Holding) -> Decimal:
        with exact():
            return evaluate_pool({}, held, {UNIT: ONE}.get, book).maintenance_margin

    assert D(20) == required(future)
    assert D("22.5") == required(call)  # the extreme: half of 45, against 11 within the grid
    assert D(18) == required(future, call)  # a fall with volatility up: 20 - 2


# --- what is refused ---------------------------------------------------------------------------------------------

ROW = ("instruments", "BTC-USD", "requirement")


@pytest.mark.parametrize(("path", "value", "expected"), [
    ((*ROW, "prices"), ["0.1", "0.2"], "from below 0 to above it"),
    ((*ROW, "prices"), ["-0.1", "0.2", "0.1"], "ascending price shifts"),
    ((*ROW, "prices"), ["-1", "1"], "less than the whole price"),
    ((*ROW, "prices"), [-0.1, 0.1], "string"),
    ((*ROW, "volatilities"), [], "at least one"),
    ((*ROW, "extremes"), [{"price": "0.1", "counted": "0.35"}], "a move beyond the grid"),
    ((*ROW, "extremes", 0, "counted"), "1.5", "at most 1"),
    ((*ROW, "minimum"), "-0.1", "at least 0"),
    ((*ROW, "initial_multiple"), "0.9", "at least 1"),
    ((*ROW, "losses"), ["1"], "a loss for each of 9 scenarios, came 1"),
    ((*ROW, "sizes"), [{"up_to": "1", "multiplier": "2"}, {"multiplier": "1"}], "multipliers from 1 on not to fall"),
    ((*ROW, "sizes"), [{"multiplier": "1"}, {"multiplier": "2"}], "to end (`up_to`), tier 0"),
    ((*ROW, "underlying"), "ETH", "one grid, minimum, multiple and sizes for underlying ETH"),
    ((*ROW, "variant"), "scenarios:2", "scenarios:1"),
    (("pool", "portfolio"), None, "expected `pool.portfolio` where instruments.BTC-USD.requirement"),
    (("pool", "portfolio", "offsets", "credits", "BTC", "ETH"), "1.1", "at most 1"),
    (("pool", "portfolio", "offsets", "credits", "ETH", "BTC"), "0.1", "each pair of two underlyings once"),
    (("pool", "portfolio", "offsets", "credits", "BTC", "BTC"), "0.1", "each pair of two underlyings once"),
    (("pool", "portfolio", "offsets", "credits", "BTC", "GOLD"), "0.1", "name underlyings of instruments, came GOLD"),
])
def test_a_malformed_portfolio_is_refused(path: tuple[str | int, ...], value: Any, expected: str) -> None:
    changed = copy.deepcopy(content())
    place: Any = changed
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value

    with pytest.raises(Rejected) as caught:
        read_rulebook(changed)

    assert expected in str(caught.value)
    assert str(caught.value).startswith("rulebook")


def test_a_fault_within_a_row_names_its_path() -> None:
    changed = content()
    changed["instruments"]["BTC-USD"]["requirement"]["prices"] = ["1"]

    with pytest.raises(Rejected) as caught:
        read_rulebook(changed)

    assert "rulebook.instruments.BTC-USD.requirement.scenarios:1" == caught.value.field


def test_a_portfolio_is_judged_at_every_mark() -> None:
    found = shipped("house-portfolio")

    assert isinstance(found, Rulebook) and not found.is_screened
