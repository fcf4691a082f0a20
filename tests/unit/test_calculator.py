"""The margin calculator: contracts section 3 on portfolios reckoned by hand, and every way to ask it wrongly.

The shipped house rulebook: BTC-USD needs 2 % initial and 1 % maintenance margin up to 250,000 of notional, from there
to 1,000,000 3 % less 2,500 and 1.5 % less 1,250; ETH-USD 2 % and 1 % up to 150,000; other instruments 4 % and 2 % up
to 50,000. BTC as collateral loses 5 % up to 1,000,000. Lines: warning 1.5, call 1.25, liquidation below 1.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from infra.calculator import POSITIONS_MAX, REQUEST_BYTES_MAX, BadInput, answer

MISSING = object()


def long_btc(size: str = "1", entry: str = "10000", **fields: Any) -> dict[str, Any]:
    return {"instrument": "BTC-USD", "signed_size": size, "entry_price": entry, **fields}


def question(*positions: dict[str, Any], collateral: dict[str, str] | None = None,
             marks: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "rulebook": "house", "account": {"collateral": collateral or {"USD": "1000"}, "positions": list(positions)},
        "marks": marks or {"BTC-USD": "9500"}, **fields}


def asked(*positions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The answer as a client reads it: JSON."""
    found: dict[str, Any] = json.loads(answer(json.dumps(question(*positions, **fields)).encode()).model_dump_json())
    return found


def faults(document: Any) -> list[str]:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(BadInput) as caught:
        answer(raw)
    return [str(fault) for fault in caught.value.faults]


# --- figures -----------------------------------------------------------------------------------------------------


def test_the_whole_answer_for_one_position() -> None:
    """Every field that the contract names, in its order, and nothing else."""
    found = asked(long_btc())

    # Equity 1000 - 500; margins 2 % and 1 % of 9500; liquidated where p - 9000 = 0.01 p, so at 9000 / 0.99.
    figures = {
        "account_equity": "500", "margin_equity": "500", "collateral_value": "1000", "unrealised_pnl": "-500",
        "initial_margin": "190", "maintenance_margin": "95", "free_collateral": "310", "withdrawable": "310",
        "liabilities": "0", "ltv": "0", "health_factor": None, "margin_ratio": "5.263157894736842105",
        "status": "healthy"}
    position = {
        "instrument": "BTC-USD", "signed_size": "1", "mark": "9500", "notional": "9500", "unrealised_pnl": "-500",
        "initial_margin": "190", "maintenance_margin": "95", "liquidation_price": "9090.909090909090909091",
        "bankruptcy_price": "9000"}
    expected: dict[str, Any] = {
        **figures,
        "exposures": [{"underlying": "BTC", "net_delta": "1", "net_notional": "9500", "gross_notional": "9500"}],
        "pools": [{"pool": "cross", **figures, "positions": [position]}],
        "explanation": [
            "All figures are in USD, under rulebook house 1.",
            "Cross pool: account equity is 500 USD (unrealised PnL -500), margin equity 500 USD.",
            "Cross pool: 190 USD are needed to add risk and 95 USD to keep it, so the margin ratio is 5.2631.",
            "Cross pool: what moved it most since entry is a loss of 500 USD on long 1 BTC-USD; without it the margin "
            "ratio would be 10.5263 at these margins.",
            "Cross pool: healthy; a loss of 357.5 USD at these margins would bring it to the warning line 1.5.",
            "Long 1 BTC-USD: liquidated at a mark of 9090.9091, a fall of 4.31 %, and bankrupt at 9000, all other "
            "marks as they are."]}

    assert expected == found
    assert list(expected) == list(found)
    assert list(expected["pools"][0]) == list(found["pools"][0])


@pytest.mark.parametrize(("mark", "status"), [
    pytest.param("9500", "healthy", id="500 over 95 is above the warning line"),
    pytest.param("9130", "warning", id="130 over 91.3 is below 1.5"),
    pytest.param("9110", "margin-call", id="110 over 91.1 is below 1.25"),
    pytest.param("9080", "liquidation", id="80 over 90.8 is below 1"),
    pytest.param("8990", "bankrupt", id="equity is -10"),
])
def test_the_status_is_that_of_the_lines_of_the_rulebook(mark: str, status: str) -> None:
    found = asked(long_btc(), marks={"BTC-USD": mark})

    assert status == found["status"] == found["pools"][0]["status"]


@pytest.mark.parametrize(("mark", "cure"), [
    # 110 over 91.1: 1.3 is reached where 110 = 1.3 x 91.1 x what is left.
    pytest.param("9110", "it would be called, since its margin ratio is below 1.25; 8.43 USD of margin equity more "
                 "would cure it.|closing 0.0711813 of long 1 BTC-USD at its mark would cure it too.", id="called"),
    pytest.param("9080", "it would be liquidated, since its margin ratio is past 1, until it stands at 1.3; 38.04 USD "
                 "of margin equity more would bring it there.|closing 0.322264 of long 1 BTC-USD at its mark would "
                 "cure it too.", id="liquidated"),
    pytest.param("8990", "bankrupt: closed at these marks it would leave a loss of 10 USD.|closing even all of long 1 "
                 "BTC-USD at its mark, which costs most, would not cure it.", id="bankrupt"),
])
def test_what_would_cure_is_said(mark: str, cure: str) -> None:
    found = asked(long_btc(), marks={"BTC-USD": mark})["explanation"]

    assert [f"Cross pool: {sentence}" for sentence in cure.split("|")] == found[4:6]


def test_a_size_to_close_is_a_multiple_of_the_lot() -> None:
    instrument = {"instrument": "BTC-USD", "base": "BTC", "quote": "USD", "lot_size": "0.1"}
    found = asked(long_btc(), marks={"BTC-USD": "9080"}, instruments=[instrument])["explanation"]

    assert "Cross pool: closing 0.4 of long 1 BTC-USD at its mark would cure it too." in found


def test_the_position_that_costs_most_is_named_and_what_moved_the_ratio() -> None:
    found = asked(long_btc(), {"instrument": "ETH-USD", "signed_size": "-10", "entry_price": "200"},
                  marks={"BTC-USD": "10100", "ETH-USD": "250"})["explanation"]

    assert ("Cross pool: what moved it most since entry is a loss of 500 USD on short 10 ETH-USD; without it the "
            "margin ratio would be 8.7301 at these margins.") in found
    assert ("Cross pool: long 1 BTC-USD costs most, 101 of the 126 USD that are needed to keep all, 80.16 %.") in found


@pytest.mark.parametrize("mark", ["9110", "9080", "8990"])
def test_nothing_is_withdrawable_where_a_call_would_be_open(mark: str) -> None:
    assert "0" == asked(long_btc(), marks={"BTC-USD": mark})["withdrawable"]


def test_a_liquidation_price_in_the_bracket_of_the_mark() -> None:
    found = asked(long_btc("100"), collateral={"USD": "100000"}, marks={"BTC-USD": "9800"})

    # 980,000 of notional: 29,400 - 2,500 and 14,700 - 1,250. 100 p - 900,000 = 1.5 p - 1,250 at 898,750 / 98.5.
    assert ("26900", "13450") == (found["initial_margin"], found["maintenance_margin"])
    assert "9124.365482233502538072" == found["pools"][0]["positions"][0]["liquidation_price"]


def test_a_liquidation_price_in_another_bracket_than_the_mark() -> None:
    found = asked(long_btc("30"), collateral={"USD": "60000"}, marks={"BTC-USD": "10000"})

    # 300,000 at the mark, but below 250,000 when it falls: 30 p - 240,000 = 0.3 p at 240,000 / 29.7.
    assert "8080.808080808080808081" == found["pools"][0]["positions"][0]["liquidation_price"]


def test_a_short_is_liquidated_above_the_mark() -> None:
    found = asked(long_btc("-1"))["pools"][0]["positions"][0]

    # 1000 + 10,000 - p = 0.01 p at 11,000 / 1.01, rounded towards the mark; zero equity at 11,000.
    assert ("10891.089108910891089108", "11000") == (found["liquidation_price"], found["bankruptcy_price"])


def test_a_long_that_is_paid_for_has_no_liquidation_price() -> None:
    found = asked(long_btc(), collateral={"USD": "20000"})["pools"][0]["positions"][0]

    assert (None, None) == (found["liquidation_price"], found["bankruptcy_price"])


def test_collateral_is_cut_and_moves_with_its_own_mark() -> None:
    found = asked(long_btc("2"), {"instrument": "ETH-USD", "signed_size": "-10", "entry_price": "200"},
                  collateral={"USD": "5000", "BTC": "0.5"}, marks={"BTC-USD": "8000", "ETH-USD": "190"})

    # 5000 + 4000 - 4000 + 100; of the 4000 in BTC 3800 count. Margins 320 + 38 and 160 + 19.
    assert ("5100", "4900", "8800") == (found["account_equity"], found["margin_equity"], found["collateral_value"])
    assert ("358", "179", "4542") == (found["initial_margin"], found["maintenance_margin"], found["withdrawable"])
    btc, eth = found["pools"][0]["positions"]
    # 0.475 p + 2 p - 14,900 = 0.02 p + 19 at 14,919 / 2.455; zero equity where 2.5 p = 14,900.
    assert ("6076.985743380855397149", "5960") == (btc["liquidation_price"], btc["bankruptcy_price"])
    # 4800 + 2000 - 10 p = 160 + 0.1 p at 6640 / 10.1; zero equity where 10 p = 5000 + 2000.
    assert ("657.425742574257425742", "700") == (eth["liquidation_price"], eth["bankruptcy_price"])
    assert "0.5 BTC are worth 4000 and count 3800 as collateral, after a haircut of 5 %." in found["explanation"]


def test_debt_is_never_cut_and_gives_ltv_and_health_factor() -> None:
    found = asked(collateral={"USD": "-500", "BTC": "1"}, marks={"BTC-USD": "8000"})

    # 7600 of collateral after 5 %, against 500: 500 / 7600 rounded up, and 7600 / 500.
    assert ("7500", "7100", "500") == (found["account_equity"], found["margin_equity"], found["liabilities"])
    assert ("0.065789473684210527", "15.2") == (found["ltv"], found["health_factor"])
    assert (None, "healthy", "0") == (found["margin_ratio"], found["status"], found["maintenance_margin"])


def test_an_asset_is_valued_by_its_own_mark_before_that_of_its_pair() -> None:
    found = asked(collateral={"BTC": "1"}, marks={"BTC": "7000", "BTC-USD": "8000"})

    assert "7000" == found["account_equity"]


def test_collateral_without_a_mark_counts_nothing_and_is_named() -> None:
    found = asked(collateral={"USD": "100", "XYZ": "5"})

    assert ("100", "healthy") == (found["account_equity"], found["status"])
    assert ("5 XYZ count for nothing, since no mark values XYZ; marks.XYZ or marks.XYZ-USD would."
            in found["explanation"])


def test_a_debt_without_a_mark_is_unpriced_and_nothing_may_leave() -> None:
    found = asked(collateral={"USD": "100", "XYZ": "-5"})

    assert ("unpriced", "0") == (found["status"], found["withdrawable"])


def test_a_position_that_settles_in_an_asset_without_a_mark_is_unpriced() -> None:
    found = asked({"instrument": "ETH-USDT", "signed_size": "1", "entry_price": "200"}, marks={"ETH-USDT": "190"})
    priced = asked({"instrument": "ETH-USDT", "signed_size": "1", "entry_price": "200"},
                   marks={"ETH-USDT": "190", "USDT": "0.5"})

    assert "unpriced" == found["status"]
    assert found["pools"][0]["positions"][0]["notional"] is None
    assert ("-5", "95") == (priced["unrealised_pnl"], priced["pools"][0]["positions"][0]["notional"])


def test_an_isolated_position_is_a_pool_of_its_own() -> None:
    found = asked(long_btc(), long_btc(entry="9600", margin_mode="isolated", isolated_margin="300"))

    cross, isolated = found["pools"]
    assert ("cross", "500") == (cross["pool"], cross["account_equity"])
    # 300 - 100; liquidated where 300 + p - 9600 = 0.01 p.
    assert ("isolated:BTC-USD:net", "200") == (isolated["pool"], isolated["account_equity"])
    assert "9393.939393939393939394" == isolated["positions"][0]["liquidation_price"]
    assert "9300" == isolated["positions"][0]["bankruptcy_price"]
    assert ("700", "380", "310") == (found["account_equity"], found["initial_margin"], found["withdrawable"])
    assert [{"underlying": "BTC", "net_delta": "2", "net_notional": "19000", "gross_notional": "19000"}] == (
        found["exposures"])


def test_the_worst_pool_gives_the_status() -> None:
    found = asked(long_btc(), long_btc(entry="9600", margin_mode="isolated", isolated_margin="190"))

    # 190 - 100 = 90 of 95.
    assert ["healthy", "liquidation"] == [pool["status"] for pool in found["pools"]]
    assert "liquidation" == found["status"]


def test_an_isolated_position_without_margin_has_its_initial_margin_at_entry() -> None:
    found = asked(long_btc(margin_mode="isolated", leverage="10"))

    # 10,000 / 10 = 1000 beside it, and 500 lost.
    assert "500" == found["pools"][1]["account_equity"]
    assert any("taken as its initial margin at the entry price, 1000 USD" in row for row in found["explanation"])


def test_leverage_raises_initial_margin_only() -> None:
    found = asked(long_btc(leverage="3"))

    # 9500 / 3, rounded up.
    assert ("3166.66666667", "95") == (found["initial_margin"], found["maintenance_margin"])


def test_the_two_sides_of_a_hedge_are_margined_each_and_lose_together() -> None:
    found = asked(long_btc("2", position_side="long"), long_btc("-1", position_side="short"))

    # 19,000 and 9,500 of notional; one BTC net at 500 lost.
    assert ("-500", "570") == (found["unrealised_pnl"], found["initial_margin"])
    assert {"underlying": "BTC", "net_delta": "1", "net_notional": "9500", "gross_notional": "28500"} == (
        found["exposures"][0])
    # p - 9000 = 0.03 p at 9000 / 0.97, whichever side it is asked of; a short has nothing to fear from a fall.
    assert ["9278.350515463917525774", None] == [
        row["liquidation_price"] for row in found["pools"][0]["positions"]]


def test_a_described_instrument_has_its_own_quote_contract_size_and_underlying() -> None:
    instrument = {"instrument": "XBTEUR", "base": "XBT", "quote": "EUR", "contract_type": "linear",
                  "contract_size": "0.1", "underlying": "BTC", "tick_size": "0.5", "lot_size": "1"}
    found = asked({"instrument": "XBTEUR", "signed_size": "10", "entry_price": "9000"}, instruments=[instrument],
                  marks={"XBTEUR": "8800", "EUR-USD": "1.1"})

    # One BTC in all: 8800 x 1.1 of notional, -200 x 1.1 lost; 4 % and 2 % of instruments without a row.
    position = found["pools"][0]["positions"][0]
    assert ("9680", "-220") == (position["notional"], position["unrealised_pnl"])
    assert ("387.2", "193.6") == (position["initial_margin"], position["maintenance_margin"])
    assert ("BTC", "1") == (found["exposures"][0]["underlying"], found["exposures"][0]["net_delta"])


@pytest.mark.parametrize("portfolio", [
    pytest.param([long_btc()], id="a long"),
    pytest.param([long_btc("-8")], id="a short beyond what is held"),
    pytest.param([long_btc("26.9"), {"instrument": "ETH-USD", "signed_size": "-300", "entry_price": "190"}],
                 id="a long near a bracket's floor, beside a short"),
])
def test_at_its_liquidation_price_a_pool_stands_on_the_line(portfolio: list[dict[str, Any]]) -> None:
    marks, collateral = {"BTC-USD": "9500", "ETH-USD": "190"}, {"USD": "1000", "BTC": "4"}
    price = asked(*portfolio, marks=marks, collateral=collateral)["pools"][0]["positions"][0]["liquidation_price"]
    found = asked(*portfolio, marks={**marks, "BTC-USD": price}, collateral=collateral)

    assert Decimal(1) <= Decimal(found["margin_ratio"]) < Decimal("1.000000000001")


def test_a_whole_rulebook_may_be_given() -> None:
    rulebook = house_rulebook()
    rulebook["instruments"]["*"]["requirement"]["brackets"] = [{"floor": "0", "initial": "0.5", "maintenance": "0.25"}]
    del rulebook["instruments"]["BTC-USD"]
    found = asked(long_btc(), rulebook=rulebook)

    assert ("4750", "2375", "liquidation") == (
        found["initial_margin"], found["maintenance_margin"], found["status"])


def test_what_is_not_known_is_ignored_and_said() -> None:
    found = asked(long_btc(levrage="3"), comment="tea time")

    assert "190" == found["initial_margin"]
    assert "Fields that are not known were ignored: 'comment', 'account.positions[0].levrage'." in found["explanation"]


def test_open_orders_reserve_nothing_under_a_rulebook_without_such_a_rule() -> None:
    document = question(long_btc())
    document["rulebook"] = {name: row for name, row in house_rulebook().items() if name != "orders"}
    document["account"]["orders"] = [{"instrument": "BTC-USD", "side": "buy", "remaining": "1", "price": "9000"}]
    found = json.loads(answer(json.dumps(document).encode()).model_dump_json())

    assert "190" == found["initial_margin"]
    assert "Open orders reserve no margin under rulebook house 1." in found["explanation"]


@pytest.mark.parametrize(("orders", "initial"), [
    ([("buy", "1", "9000")], "370"),  # 2 % of 9,500 and of 9,000
    ([("sell", "1", "9000")], "190"),  # it would only close
    ([("sell", "3", "10000")], "400"),  # past closing two are sold: 2 % of 20,000
    ([("buy", "1", "9000"), ("sell", "3", "10000")], "400"),  # the costlier side
    ([("buy", "1", "9000"), ("buy", "1", "8000")], "530"),
])
def test_open_orders_reserve_what_the_ledger_reserves(orders: list[tuple[str, str, str]], initial: str) -> None:
    document = question(long_btc())
    document["account"]["orders"] = [{"instrument": "BTC-USD", "side": side, "remaining": size, "price": price}
                                     for side, size, price in orders]
    found = json.loads(answer(json.dumps(document).encode()).model_dump_json())

    assert (initial, "95") == (found["initial_margin"], found["maintenance_margin"])
    assert initial == found["pools"][0]["initial_margin"]
    assert str(500 - int(initial)) == found["free_collateral"]
    assert f"Cross pool: {initial} USD are needed to add risk" in " ".join(found["explanation"])


# --- bad input ---------------------------------------------------------------------------------------------------


def house_rulebook() -> dict[str, Any]:
    from ledger.rulebook import shipped

    rulebook = shipped("house")
    assert rulebook is not None
    found: dict[str, Any] = rulebook.model_dump(mode="json", exclude_none=True)
    return found


def changed(path: str, value: Any) -> dict[str, Any]:
    """A sound question with one field changed, or gone."""
    document = question(long_btc())
    *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    place: Any = document
    for part in above:
        place = place[part]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return document


@pytest.mark.parametrize(("path", "value", "expected"), [
    ("rulebook", MISSING, "rulebook: expected a value, came nothing"),
    ("rulebook", "binance", "rulebook: expected the name of a shipped rulebook such as 'house', or a whole rulebook, "
                            "came 'binance'"),
    ("rulebook", 7, "rulebook: expected the name of a shipped rulebook such as 'house', or a whole rulebook, came 7"),
    ("account", MISSING, "account: expected a value, came nothing"),
    ("account", "alice", "account: expected an object, came 'alice'"),
    ("account/collateral", [], "account.collateral: expected an object, came []"),
    ("account/collateral/USD", 1000, "account.collateral.USD: expected a JSON string with an exact decimal, came int "
                                     "1000"),
    ("account/collateral/USD", "1e3", "account.collateral.USD: expected a plain decimal in a string such as \"12.5\", "
                                      "came '1e3'"),
    ("account/positions", {}, "account.positions: expected a list, came {}"),
    ("account/positions/0/signed_size", MISSING, "account.positions[0].signed_size: expected a value, came nothing"),
    ("account/positions/0/signed_size", 1.5, "account.positions[0].signed_size: expected a JSON string with an exact "
                                             "decimal, came float 1.5"),
    ("account/positions/0/signed_size", "0", "account.positions[0].signed_size: expected a size other than 0, came 0"),
    ("account/positions/0/entry_price", "0", "account.positions[0].entry_price: expected a number at least "
                                             "0.000000000001, came 0"),
    ("account/positions/0/margin_mode", "portfolio", "account.positions[0].margin_mode: expected 'cross' or "
                                                     "'isolated', came 'portfolio'"),
    ("account/positions/0/isolated_margin", "5", "account.positions[0].isolated_margin: expected none for a cross "
                                                 "position, came 5"),
    ("account/positions/0/leverage", "0", "account.positions[0].leverage: expected a number above 0, came 0"),
    ("account/positions/0/instrument", "", "account.positions[0].instrument: expected 1 to 200 characters other than "
                                           "control characters, came ''"),
    ("marks", MISSING, "marks: expected a value, came nothing"),
    ("marks/BTC-USD", MISSING, "marks.BTC-USD: expected the mark of BTC-USD, which is held, came nothing"),
    ("marks/BTC-USD", "-1", "marks.BTC-USD: expected a number at least 0.000000000001, came -1"),
    ("marks/BTC-USD", None, "marks.BTC-USD: expected a JSON string with an exact decimal, came NoneType None"),
    ("instruments", [{"instrument": "BTC-USD"}], "instruments[0].base: expected a value, came nothing"),
])
def test_a_fault_names_its_path_and_what_was_expected(path: str, value: Any, expected: str) -> None:
    assert expected == faults(changed(path, value))[0]


def test_a_position_must_be_of_an_instrument_that_is_known_or_can_be_guessed() -> None:
    document = question({"instrument": "XBTUSD", "signed_size": "1", "entry_price": "1"}, marks={"XBTUSD": "1"})

    assert ["account.positions[0].instrument: expected an instrument of `instruments`, or a linear BASE-QUOTE, came "
            "'XBTUSD'"] == faults(document)


def test_a_side_must_fit_its_size() -> None:
    assert ["account.positions[0].signed_size: expected a negative size of a short position, came 1"] == faults(
        question(long_btc(position_side="short")))


def test_a_position_may_stand_but_once() -> None:
    assert ["account.positions[1]: expected one cross position net in BTC-USD, came another"] == faults(
        question(long_btc(), long_btc()))


def test_what_cannot_be_calculated_is_refused_where_it_is_held() -> None:
    inverse = {"instrument": "BTC-USD", "base": "BTC", "quote": "USD", "contract_type": "option", "lot_size": "0.3"}

    assert ["instruments[0].contract_type: expected 'linear' or 'inverse' in this version, came 'option'",
            "account.positions[0].signed_size: expected a multiple of the lot size 0.3, came 1"] == faults(
        question(long_btc(), instruments=[inverse]))
    assert asked(collateral={"USD": "1"}, instruments=[inverse])["status"] == "healthy"


def test_an_inverse_contract_settles_in_its_base() -> None:
    """10,000 contracts of 1 USD at 8,000 are 1.25 BTC; at 10,000 they have made 0.25 BTC, worth 2,500 USD."""
    terms = {"instrument": "BTC-USD", "base": "BTC", "quote": "USD", "contract_type": "inverse"}
    found = asked({"instrument": "BTC-USD", "signed_size": "10000", "entry_price": "8000"},
                  collateral={"BTC": "0.5"}, marks={"BTC-USD": "10000"}, instruments=[terms])

    assert ("2500", "7500", "1") == (found["unrealised_pnl"], found["account_equity"],
                                     found["exposures"][0]["net_delta"])


def test_all_faults_are_told_at_once() -> None:
    document = question(long_btc("x"), long_btc("1", "y"))

    assert ["account.positions[0].signed_size", "account.positions[1].entry_price"] == [
        fault.partition(": ")[0] for fault in faults(document)]


def test_a_fault_inside_a_rulebook_names_its_path() -> None:
    rulebook = house_rulebook()
    rulebook["thresholds"]["call"] = "2"
    del rulebook["liquidation"]

    assert ["rulebook.thresholds: expected warning > call > liquidation",
            "rulebook.liquidation: expected a value, came nothing"] == faults(question(rulebook=rulebook))


@pytest.mark.parametrize(("raw", "expected"), [
    pytest.param(b"", "expected one JSON object, came no well-formed JSON", id="nothing"),
    pytest.param(b"{", "expected one JSON object, came no well-formed JSON", id="half an object"),
    pytest.param(b"[1]", "expected one JSON object, came [1]", id="a list"),
    pytest.param(b"\xff\xfe{\x00}\x00", "expected one JSON object, came no well-formed JSON", id="not UTF-8"),
    pytest.param(b"[" * 5_000, "expected one JSON object, came no well-formed JSON", id="depth without end"),
    pytest.param(b'{"marks": {"A": "1", "A": "2"}}', "expected one JSON object, came no well-formed JSON: the key 'A' "
                                                     "stands twice in one object", id="a key twice"),
    pytest.param(b" " * (REQUEST_BYTES_MAX + 1), "expected at most 1048576 bytes", id="too large"),
])
def test_bytes_that_are_no_question_are_told_apart(raw: bytes, expected: str) -> None:
    found = faults(raw)

    assert 1 == len(found)
    assert found[0].startswith(expected)


def test_positions_are_bounded() -> None:
    positions = [long_btc() for _ in range(POSITIONS_MAX + 1)]

    assert [f"account.positions: expected at most {POSITIONS_MAX} items"] == [
        fault.partition(", came")[0] for fault in faults(question(*positions))]
