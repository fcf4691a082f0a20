"""The shipped rulebooks: each reads, reprints as itself, names its sources and gives a venue's own figures."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra.calculator import BadInput, answer
from infra.margin_plot import Span, spans
from infra.what_if import Move, fine_grid, grid, read_move, what_if
from ledger.errors import Rejected
from ledger.rulebook import Rulebook, named, read_rulebook, shipped, shipped_names, shipped_versions

VENUES = ["binance-coinm", "binance-pm", "binance-usdm", "binance-usdm-multi", "bitmex", "bybit-uta", "deribit",
          "hyperliquid", "okx-multi-currency"]
INVERSE = {"instrument": "XBTUSD", "base": "XBT", "quote": "USD", "contract_type": "inverse"}
PERPETUAL = {"instrument": "BTCUSDT", "base": "BTC", "quote": "USDT"}


def book(name: str, version: int | None = None) -> Rulebook:
    found = shipped(name.removesuffix(f"-{version}"), version)
    assert found is not None
    return found


def named_book(text: str) -> Rulebook:
    found = named(text)
    assert found is not None
    return found


def asked(name: str | dict[str, Any], positions: list[dict[str, str]], collateral: dict[str, str],
          marks: dict[str, str], instruments: list[dict[str, str]],
          orders: list[dict[str, str]] | None = None) -> dict[str, Any]:
    question = {"rulebook": name, "instruments": instruments, "marks": marks,
                "account": {"collateral": collateral, "positions": positions, "orders": orders or []}}
    found: dict[str, Any] = json.loads(answer(json.dumps(question).encode()).model_dump_json())
    return found


@pytest.mark.parametrize(("name", "version"), shipped_versions())
def test_a_rulebook_reads_and_reprints_as_itself(name: str, version: int) -> None:
    content = book(name, version).model_dump(mode="json", exclude_none=True)

    assert book(name, version) == read_rulebook(content)


@pytest.mark.parametrize("name", VENUES)
def test_a_venues_rulebook_is_listed_and_names_its_sources(name: str) -> None:
    assert name in shipped_names()
    assert any("Formulas" in note for note in book(name).notes or ())


def test_binance_gives_the_figures_of_its_own_example() -> None:
    """109.488 BTC at 31,967.27 in the table of 2024-10: 3,500,032.45776 x 1 % - 11,450 and / 20 of initial margin."""
    found = asked("binance-usdm", [{"instrument": "BTCUSDT", "signed_size": "109.488", "entry_price": "32481.980",
                                    "leverage": "20"}], {"USDT": "1535443.01"}, {"BTCUSDT": "31967.27"}, [PERPETUAL])

    assert ("23550.3245776", "175001.622888", "-56354.56848") == (
        found["maintenance_margin"], found["initial_margin"], found["unrealised_pnl"])


def test_bybit_gives_the_margins_of_a_live_position() -> None:
    """ccxt 15622, under `*`, whose first tier is 1 %: to the last digit."""
    found = asked("bybit-uta", [{"instrument": "LTCUSDT", "signed_size": "1.1", "entry_price": "63.64125",
                                 "leverage": "10"}], {"USDT": "100"}, {"LTCUSDT": "68.93", "USDT": "1"},
                  [{"instrument": "LTCUSDT", "base": "LTC", "quote": "USDT"}])

    assert ("7.03519017", "0.73470642") == (found["initial_margin"], found["maintenance_margin"])


def test_deribit_takes_its_example_of_25_btc() -> None:
    """25 BTC of an inverse contract at 10,000: 2 % + 25 x 0.005 % of 25 BTC, in dollars at 10,000."""
    found = asked("deribit", [{"instrument": "BTC-PERPETUAL", "signed_size": "250000", "entry_price": "10000"}],
                  {"BTC": "1"}, {"BTC-PERPETUAL": "10000", "BTC": "10000"},
                  [{**INVERSE, "instrument": "BTC-PERPETUAL", "base": "BTC"}])

    assert "5312.5" == found["initial_margin"]


def test_bitmex_steps_its_risk_limit() -> None:
    """2,900,000 contracts at 10,000 are 290 XBT: one step, 0.8 % and 1.4 %, and 0.075 % to close."""
    found = asked("bitmex", [{"instrument": "XBTUSD", "signed_size": "2900000", "entry_price": "10000"}],
                  {"XBT": "10"}, {"XBTUSD": "10000"}, [INVERSE])

    assert ("2.5375", "4.2775") == (found["maintenance_margin"], found["initial_margin"])


def test_hyperliquid_halves_the_margin_at_greatest_leverage() -> None:
    found = asked("hyperliquid", [{"instrument": "ETH", "signed_size": "10", "entry_price": "1000"}],
                  {"USDC": "1000"}, {"ETH": "1000"}, [{"instrument": "ETH", "base": "ETH", "quote": "USDC"}])

    assert ("400", "200") == (found["initial_margin"], found["maintenance_margin"])


def test_multi_assets_values_credits_low_and_requirements_at_the_ask() -> None:
    found = asked("binance-usdm-multi", [{"instrument": "BTCUSDT", "signed_size": "1", "entry_price": "10000",
                                          "leverage": "10"}], {"BTC": "1"},
                  {"BTCUSDT": "10000", "BTC": "10000", "USDT": "1"}, [PERPETUAL])

    assert ("9500", "1000.1") == (found["margin_equity"], found["initial_margin"])


def test_open_orders_reserve_margin_and_the_loss_of_filling_them() -> None:
    """1 BTC at 9,253.30, mark 9,259.84, 20x: 462.665, and nothing lost; 10 above the mark another 10."""
    def free(price: str) -> str:
        order = {"instrument": "BTCUSDT", "side": "buy", "remaining": "1", "price": price, "leverage": "20"}
        found = asked("binance-usdm", [], {"USDT": "1000"}, {"BTCUSDT": "9259.84"}, [PERPETUAL], [order])
        assert "1000" == found["account_equity"]
        return str(found["free_collateral"])

    assert ("537.335", "526.508") == (free("9253.30"), free("9269.84"))


# --- the house's second version ----------------------------------------------------------------------------------

BTC = {"instrument": "BTC-USD", "signed_size": "10", "entry_price": "50000"}


def house(positions: list[dict[str, str]], collateral: dict[str, str], mark: str = "50000") -> dict[str, Any]:
    return asked("house-2", positions, collateral, {"BTC-USD": mark, "USDT": "1"}, [])


def test_the_default_stays_the_first_version_until_another_is_named() -> None:
    assert (1, 2, 2) == (book("house").version, book("house-2", 2).version, named_book("house-2").version)
    assert [None, None, None] == [named("house-3"), named("-2"), named("house-two")]
    assert ("house", 2) in shipped_versions() and shipped_names().count("house") == 1


@pytest.mark.parametrize(("sentence", "positions", "collateral", "mark", "initial", "maintenance", "free"), [
    ("marginal tiers, and what closing costs in both margins",
     [BTC], {"USD": "100000"}, "50000", "12750", "6500", "87250"),
    ("a chosen leverage raises initial margin",
     [{**BTC, "leverage": "20"}], {"USD": "100000"}, "50000", "25250", "6500", "74750"),
    ("and never lowers it", [{**BTC, "leverage": "100"}], {"USD": "100000"}, "50000", "12750", "6500", "87250"),
    ("four fifths of a profit count for new risk", [BTC], {"USD": "100000"}, "51000", "13055", "6655", "94945"),
    ("of a loss all", [BTC], {"USD": "100000"}, "49000", "12445", "6345", "77555"),
    ("a loan is owed at its ask value, and half as much again must stand behind it",
     [], {"USD": "100000", "USDT": "-10000"}, "50000", "5012.5", "500", "84962.5"),
    ("both sides of a hedge need what the larger needs",
     [{**BTC, "position_side": "long"}, {**BTC, "signed_size": "-10", "position_side": "short"}],
     {"USD": "100000"}, "50000", "12750", "6500", "87250"),
])
def test_the_house_takes_the_best_of_each(sentence: str, positions: list[dict[str, str]], collateral: dict[str, str],
                                          mark: str, initial: str, maintenance: str, free: str) -> None:
    found = house(positions, collateral, mark)

    assert (initial, maintenance, free) == (
        found["initial_margin"], found["maintenance_margin"], found["free_collateral"]), sentence


def test_nothing_may_leave_that_a_loan_needs_behind_it() -> None:
    """15,037.5 must stay where 10,025 are owed: ratio 1.5."""
    found = house([], {"USD": "20000", "USDT": "-10000"})

    assert Decimal("20000") - Decimal("10025") * Decimal("1.5") == Decimal(found["withdrawable"])


# --- blocks of protocols in rulebooks ----------------------------------------------------------------------------


@pytest.mark.parametrize(("contract", "mark", "leverage", "initial", "maintenance"), [
    ("linear", "200", None, "1140", "810"),  # 100 x 200 x (100 / 1000 x 0.5 + 0.005) + 40; seven tenths
    ("linear", "200", "10", "2000", "810"),
    ("inverse", "50", None, "40.012", "40.0084"),  # 100 / 50 = 2 of the base: 2 x (2 / 1000 x 0.5 + 0.005) + 40
])
def test_skew_linear_margins_grow_with_the_share_of_depth(contract: str, mark: str, leverage: str | None, initial: str,
                                                          maintenance: str) -> None:
    block = {"variant": "skew-linear:1", "skew_scale": "1000", "slope": "0.5", "floor": "0.005",
             "maintenance_scalar": "0.7", "least_margin": "40"}
    content = book("house").model_dump(mode="json", exclude_none=True)
    content["instruments"]["X"] = {"requirement": block}
    held = {"instrument": "X", "signed_size": "-100", "entry_price": mark, "leverage": leverage}
    found = asked(content, [{name: value for name, value in held.items() if value}], {"USD": "1", "BTC": "1"},
                  {"X": mark, "BTC": "1"}, [{"instrument": "X", "base": "BTC", "quote": "USD",
                                             "contract_type": contract}])

    assert (initial, maintenance) == (found["initial_margin"], found["maintenance_margin"])


@pytest.mark.parametrize(("path", "value", "expected"), [
    (("pool", "borrowing"), {"variant": "collateral-ratio:1", "minimum": "0.9"}, "a minimum of at least 1"),
    (("pool", "borrowing"), {"variant": "collateral-ratio:1"}, "Field required"),
    (("instruments", "*", "requirement", "tiers", 1, "floor"), "0", "floors to rise"),
    (("instruments", "*", "requirement", "tiers", 0, "floor"), "1", "a first tier with floor 0"),
    (("instruments", "*", "requirement", "tiers", 1, "maintenance"), "0.001", "rates not to fall"),
    (("instruments", "*", "requirement", "tiers", 0, "maintenance"), "0.9", "maintenance <= initial"),
    (("instruments", "*", "requirement", "variant"), "tiers:9", "tiers:1"),
    (("assets", "USDT", "collateral", "haircut"), "1.1", "at most 1"),
    (("assets", "USDT", "collateral", "haircut"), 0.1, "string"),
    (("thresholds", "warning"), "1", "warning > call > liquidation"),
    (("pool", "orders", "variant"), "orders:2", "orders:1"),
    (("made-up",), "1", "Extra inputs"),
])
def test_a_malformed_rulebook_is_refused_with_the_path_of_the_fault(path: tuple[str | int, ...], value: Any,
                                                                    expected: str) -> None:
    content = book("binance-usdm").model_dump(mode="json", exclude_none=True)
    place: Any = content
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value

    with pytest.raises(Rejected) as caught:
        read_rulebook(content)

    assert expected in str(caught.value)
    assert str(path[0]) in str(caught.value)


# --- what if -----------------------------------------------------------------------------------------------------


QUESTION = json.dumps({
    "rulebook": "house", "marks": {"BTC-USD": "9500"},
    "account": {"collateral": {"USD": "1000"}, "positions": [
        {"instrument": "BTC-USD", "signed_size": "1", "entry_price": "10000"}]}}).encode()


def test_a_moved_mark_is_asked_of_the_calculator() -> None:
    found = what_if(QUESTION, [read_move("BTC-USD=-10%")])

    assert (Decimal("-1450"), "bankrupt") == (found.unrealised_pnl, found.status)


def test_a_grid_runs_over_every_mark() -> None:
    rows = grid(QUESTION)

    assert "bankrupt" == rows[0]["status"]
    assert "healthy" == rows[-1]["status"]
    assert [row["margin_equity"] for row in rows] == sorted(row["margin_equity"] for row in rows)


def test_a_fine_grid_divides_the_steps_where_the_status_changes() -> None:
    steps = [Decimal(step) for step in (-50, 0, 50)]
    rows = fine_grid(QUESTION, "*", steps, 5)
    found = [(row["move"], row["status"]) for row in rows]

    assert [("-50", "bankrupt"), ("-40", "bankrupt")] == found[:2]
    assert next((row["move"], row["status"]) for row in grid(QUESTION)) == found[0]
    assert ["-50", "-40", "-30", "-20", "-10", "0", "50"] == [move for move, _ in found]
    assert [Span("bankrupt", -50.0, -5.0), Span("healthy", -5.0, 50.0)] == spans(rows)


@pytest.mark.parametrize("text", ["BTC-USD", "BTC-USD=10", "=10%", "BTC-USD=ten%", "BTC-USD=-100%"])
def test_a_move_that_is_none_says_what_was_expected(text: str) -> None:
    with pytest.raises(BadInput, match="expected"):
        read_move(text)


def test_a_move_of_an_unknown_mark_is_refused() -> None:
    with pytest.raises(BadInput, match="expected a mark of ETH-USD"):
        what_if(QUESTION, [Move("ETH-USD", Decimal(1))])


def test_the_rulebooks_of_the_folder_are_those_that_are_shipped() -> None:
    folder = Path(__file__).parents[2] / "ledger" / "rulebooks"

    assert {f"{name}-{version}.json" for name, version in shipped_versions()} == {
        path.name for path in folder.iterdir() if path.is_file()}
