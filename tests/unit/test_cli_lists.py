"""What the commands say of a ledger that has every type of record and event: each list, each record, each statement."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from ledger.amounts import exact
from ledger.commands import COMMANDS
from ledger.events import FundingSettled, InterestSettled
from projections import queries
from projections.accounts import BALANCES
from projections.read_model import ReadModels
from tests.unit.ledger_scenario import Scenario, moment, time_of
from tests.unit.test_cli import Answer, _command_is_built_once, clearing
from tests.unit.test_read_model_law import whole_story

__all__ = ["_command_is_built_once"]

D = Decimal
LISTS: Final = ("accounts", "calls", "liquidations", "movements", "charges", "orders", "trades", "journal", "markets",
                "assets", "halts", "funds", "rejections")


@pytest.fixture(scope="module")
def story() -> Scenario:
    return whole_story()


@pytest.fixture(scope="module")
def desk(story: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same records in a ledger file."""
    folder = tmp_path_factory.mktemp("whole")
    file = folder / "desk.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line, _ in story.said))
    answer = clearing("ingest", file, "--ledger", folder / "desk.db", "--source", "desk", "--json")
    assert (0, len(story.log)) == (answer.code, json.loads(answer.out)["log_position"])
    return folder / "desk.db"


@pytest.fixture(scope="module")
def models(story: Scenario) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        found = ReadModels(connection)
        found.create()
        found.catch_up(lambda after, limit: story.log[after:after + limit])
        yield connection


def rows(answer: Answer, *names: str) -> list[tuple[Any, ...]]:
    """Some fields of the rows that a command listed."""
    return [tuple(row[name] for name in names) for row in answer.json]


def of(found: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in found]


# --- every list --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", LISTS)
def test_every_list_prints_tables_json_and_csv_as_of_any_point(desk: Path, command: str) -> None:
    def listed(*words: str) -> Answer:
        answer = clearing(command, "--ledger", desk, *words)
        assert 0 == answer.code, answer.err
        return answer

    def first(found: Any) -> list[Any]:
        return found if isinstance(found, list) else next(row for row in found.values() if isinstance(row, list))

    at_start = listed("--at-position", "0").out
    by_position, by_time = (first(listed(*point, "--json").json) for point in (
        ("--at-position", "60"), ("--at", moment("10:30:00"))))
    at_end = first(listed("--json").json)

    assert len(at_end) == len(listed("--csv").rows) >= len(by_time)
    assert len(by_position) <= len(by_time)
    assert at_start and listed().out not in ("", at_start)


def test_accounts_that_are_not_there_get_a_hint_wherever_one_may_be_named(desk: Path) -> None:
    for command in ("calls", "liquidations", "movements", "charges", "orders", "trades", "journal"):
        answer = clearing(command, "--ledger", desk, "--account", "Z")

        assert (2, "") == (answer.code, answer.out)
        assert "expected an account that is open" in answer.err


def test_the_ledger_is_opened_again_after_reports_and_replay_finds_no_difference(
        desk: Path, story: Scenario, tmp_path: Path) -> None:
    assert 0 == clearing("accounts", "--ledger", desk).code
    file = tmp_path / "again.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line, _ in story.said))
    again = clearing("ingest", file, "--ledger", desk, "--source", "desk", "--json")

    assert (0, len(story.said), 0) == (
        again.code, json.loads(again.out)["duplicate"], json.loads(again.out)["events"])
    assert [] == clearing("replay", "--ledger", desk, "--json").json["differences"]


# --- one record --------------------------------------------------------------------------------------------------


def test_the_story_has_every_type_of_record(story: Scenario) -> None:
    assert {*COMMANDS} == {json.loads(line)["type"] for line, _ in story.said}


def test_every_record_is_found_by_its_id_with_its_outcome(story: Scenario, desk: Path) -> None:
    """One of each type and outcome by the command, as its sender would ask."""
    asked = set()
    for line, outcome in story.said:
        record = json.loads(line)
        if "id" in record and (record["type"], outcome.kind) not in asked:
            asked.add((record["type"], outcome.kind))
            found = clearing("record", "desk", record["id"], "--ledger", desk, "--json").json

            assert (outcome.kind, outcome.reason, outcome.position) == (
                found["outcome"], found["reason"], found["position"]), record
            assert record["type"] == found["outcomes"][0]["type"]
    assert {kind for kind, _ in asked} == {*COMMANDS}
    assert {("transfer", "refused"), ("isolated-margin", "refused"), ("withdrawal", "refused"),
            ("fund-movement", "refused"), ("price", "rejected"), ("deposit", "rejected")} <= asked


def test_a_price_without_id_is_found_by_line_and_by_sequence(story: Scenario, desk: Path) -> None:
    line, (raw, outcome) = next((number, row) for number, row in enumerate(story.said, 1)
                                if json.loads(row[0]).get("sequence") == 5)
    by_line = clearing("record", "desk", str(line), "--ledger", desk, "--json").json
    by_sequence = clearing("record", "desk", "ETH-USD:5", "--ledger", desk, "--json").json
    rejected = clearing("record", "desk", "ETH-USD:3", "--ledger", desk, "--json").json

    assert by_line == {**by_sequence, "id": str(line)}
    assert ("applied", outcome.position, "5") == (
        by_line["outcome"], by_line["position"], str(by_line["event"]["sequence"]))
    assert ("rejected", "step") == (rejected["outcome"], rejected["reason"])
    assert json.loads(raw)["price"] == by_line["event"]["price"]


def test_a_record_tells_how_what_it_left_ended(desk: Path) -> None:
    settled, cancelled, open_one, undone = (
        clearing("record", "desk", name, "--ledger", desk, "--json").json["afterwards"]
        for name in ("w1", "w2", "w3", "in-2"))

    assert (["withdrawal-settled"], ["withdrawal-cancelled"], [], ["deposit-reversed"]) == tuple(
        [row["what"] for row in found] for found in (settled, cancelled, open_one, undone))
    assert "back" == json.loads(undone[0]["by"])["id"]


def test_a_dead_letter_that_was_replayed_tells_of_it(tmp_path: Path) -> None:
    s = Scenario()
    s.deposit("A", "USD", "5", id="d")
    s.asset("USD")
    s.account("A")
    s.send("deposit", id="d#r1", replay_of="d", account="A", asset="USD", amount="5")
    file = tmp_path / "desk.jsonl"
    file.write_bytes(b"".join(line + b"\n" for line, _ in s.said))
    assert 0 == clearing("ingest", file, "--ledger", tmp_path / "x.db").code

    found = clearing("record", "desk.jsonl", "d", "--ledger", tmp_path / "x.db", "--json").json

    assert "rejected" == found["outcome"]
    assert [("replayed, applied", "d#r1")] == of(found["afterwards"], "what", "by")


# --- statements --------------------------------------------------------------------------------------------------

CUTS: Final = tuple(map(time_of, ("10:30:00", "10:42:00", "11:45:00")))
PERIODS: Final = ((None, None), (None, CUTS[0]), (CUTS[0], CUTS[1]), (CUTS[1], CUTS[2]), (CUTS[2], None))


def test_a_statement_of_any_account_and_period_agrees_with_its_lines(
        story: Scenario, models: sqlite3.Connection) -> None:
    for account in story.house.accounts:
        for start, end in PERIODS:
            found = queries.statement(models, account, start=start, end=end)
            with exact():
                for row in found.balances:
                    assert row.closing == row.opening + row.credits + row.debits
                    assert row.credits >= 0 >= row.debits
                    mine = [pool for pool in found.pools if pool.asset == row.asset]
                    assert (row.opening, row.closing) == (sum(pool.opening for pool in mine),
                                                          sum(pool.closing for pool in mine))
                    lines = [line for line in found.lines if line.asset == row.asset]
                    assert row.closing - row.opening == sum(line.amount for line in lines) == sum(
                        total.amount for total in found.totals if total.asset == row.asset)
                    assert not lines or lines[-1].balance == row.closing
                for pool in found.pools:
                    assert pool.closing == pool.opening + pool.credits + pool.debits
                    of_pool = [line for line in found.lines if (line.pool, line.asset) == (pool.pool, pool.asset)]
                    assert pool.closing - pool.opening == sum(line.amount for line in of_pool)
                    assert not of_pool or of_pool[-1].pool_balance == pool.closing


def test_a_period_opens_on_what_the_one_before_closed_on_and_the_last_on_the_balances(
        story: Scenario, models: sqlite3.Connection) -> None:
    for account in story.house.accounts:
        closed: dict[tuple[str, str], Decimal] = {}
        for start, end in PERIODS[1:]:
            found = queries.statement(models, account, start=start, end=end)
            opened = {(row.pool, row.asset): row.opening for row in found.pools}

            assert {key: amount for key, amount in closed.items() if amount} == {
                key: amount for key, amount in opened.items() if amount}
            closed = {(row.pool, row.asset): row.closing for row in found.pools}
        assert closed == {(row.pool, row.asset): row.amount
                          for row in queries.select(models, BALANCES, {"account": account})}


def test_a_statement_prints_balances_by_asset_and_by_pool(desk: Path) -> None:
    found = clearing("statement", "B", "--ledger", desk, "--to", moment("10:30:00"), "--json").json

    # 2 % of 10,000 went into the isolated pool with the fill, 50 more, and 20 came back; a fee in BTC is owed.
    assert [("cross", "BTC", "-0.0001"), ("cross", "USD", "2770"), ("isolated:BTC-USD:net", "USD", "230")] == of(
        found["pools"], "pool", "asset", "closing")
    assert [("BTC", "-0.0001"), ("USD", "3000")] == of(found["balances"], "asset", "closing")
    assert {"deposited", "fill-posted"} == {row["event"] for row in found["totals"]}
    assert "POOLS" in clearing("statement", "B", "--ledger", desk).out


# --- lists by their content --------------------------------------------------------------------------------------


def test_open_orders_show_what_they_reserve(desk: Path, story: Scenario) -> None:
    found = clearing("orders", "--ledger", desk, "--json").json
    mine = clearing("orders", "--ledger", desk, "--account", "A", "--json").json
    with exact():
        needed = story.house.reserved(story.state("A"))

    assert [("A", "o1", "buy", "0.5", "9600", False), ("H", "o3", "sell", "1", "9900", True)] == of(
        found["orders"], "account", "order_id", "side", "remaining", "price", "reduce_only")
    # Half a BTC at 9,600 at the leverage of 5 chosen for all, for 20 was for this instrument: 4,800 / 20.
    assert [("A", "BTC-USD", "240", "USD")] == of(
        mine["reserved"], "account", "instrument", "reserved_margin", "settlement_asset")
    assert {"BTC-USD": D(240)} == needed


def test_an_account_shows_orders_holds_settings_charges_and_halts(desk: Path) -> None:
    found = clearing("account", "A", "--ledger", desk, "--json").json
    halted = clearing("account", "A", "--ledger", desk, "--at", moment("10:30:00"), "--at-position", "80", "--json")

    assert [("o1", "0.5")] == of(found["orders"], "order_id", "remaining")
    assert [("w3", "30")] == of(found["holds"], "withdrawal", "amount")
    assert [(None, "5", None), ("BTC-USD", "20", "cross")] == of(
        found["settings"], "instrument", "leverage", "margin_mode")
    assert {"fee", "funding", "interest"} == {row["kind"] for row in found["charges"]}
    assert "240" == found["pools"][0]["reserved_margin"]
    assert 2 == halted.code


def test_what_may_be_withdrawn_is_told_with_why_not(desk: Path, story: Scenario) -> None:
    position = next(row.position for row in story.log if type(row.event).__name__ == "Halted")
    found = clearing("account", "A", "--ledger", desk, "--at-position", str(position), "--json").json

    assert "halted" == found["withdrawals_blocked"]
    assert {"0"} == {row["withdrawable"] for row in found["balances"]}
    assert [("A", "withdrawals", "review")] == of(found["halts"], "scope", "what", "reason")


def test_accrued_interest_counts_before_it_is_settled(desk: Path) -> None:
    found = clearing("account", "M", "--ledger", desk, "--json").json
    usd = next(row for row in found["balances"] if row["asset"] == "USD")

    assert D(usd["accrued_interest"]) > 0
    assert D(usd["value"]) == D(usd["amount"]) + D(usd["accrued_interest"])


def test_charges_are_the_sums_of_what_the_log_settled(desk: Path, story: Scenario) -> None:
    paid: dict[tuple[str, str, str, str], Decimal] = {}
    for event in story.events(FundingSettled):
        for item in event.items:
            key = (event.account, "funding", item.instrument, item.asset)
            paid[key] = paid.get(key, D(0)) + item.payment
    for accrued in story.events(InterestSettled):
        for row in accrued.items:
            key = (accrued.account, "interest", row.pool, row.asset)
            paid[key] = paid.get(key, D(0)) + row.payment
    found = clearing("charges", "--ledger", desk, "--json").json
    fees = clearing("charges", "--ledger", desk, "--kind", "fee", "--json")

    assert paid == {(row["account"], row["kind"], row["place"], row["asset"]): D(row["net"]) for row in found
                    if row["kind"] != "fee"}
    assert all(D(row["net"]) == D(row["received"]) - D(row["paid"]) for row in found)
    assert {("A", "BTC-USD", "USD", "2", "0"), ("A", "BTC-USD-I", "BTC", "0.00001", "0"),
            ("B", "BTC-USD", "BTC", "0.0001", "0"), ("M", "BTC-USD", "USD", "0", "0.5")} == {
        *rows(fees, "account", "place", "asset", "paid", "received")}


def test_movements_show_holds_transfers_and_refusals(desk: Path) -> None:
    found = clearing("movements", "--ledger", desk, "--account", "A", "--json").json
    received = clearing("movements", "--ledger", desk, "--account", "C", "--kind", "transfer-received", "--json").json

    assert [
        ("deposit", "done", "10000", None), ("deposit", "done", "500", None), ("deposit-reversed", "done", "-500",
                                                                              "in-2"),
        ("deposit", "done", "1", None), ("withdrawal-held", "held", "-100", "w1"),
        ("withdrawal-held", "held", "-40", "w2"), ("withdrawal-held", "held", "-30", "w3"),
        ("withdrawal", "done", "-5", None), ("withdrawal", "refused", "-500000", None),
        ("withdrawal-settled", "done", "0", "w1"), ("withdrawal-cancelled", "done", "40", "w2"),
    ] == of(found["movements"], "kind", "outcome", "amount", "reference")[:11]
    assert [("done", "-7", "C", None), ("refused", "-70000", "C", "beyond-withdrawable")] == [
        row[1:] for row in of(found["movements"], "kind", "outcome", "amount", "counterpart", "reason")
        if row[0] == "transfer-sent"]
    assert [("7", "A")] == of(received["movements"], "amount", "counterpart")
    assert [("A", "w3", "30")] == of(found["holds"], "account", "withdrawal", "amount")


def test_margin_moved_between_pools_is_a_movement(desk: Path) -> None:
    found = clearing("movements", "--ledger", desk, "--account", "B", "--kind", "isolated-margin", "--json").json

    assert [("isolated:BTC-USD:net", "50", "done"), ("isolated:BTC-USD:net", "-20", "done"),
            ("isolated:BTC-USD", "-100000", "refused")] == of(found["movements"], "pool", "amount", "outcome")


def test_trades_list_fills_or_what_is_unmatched(desk: Path) -> None:
    trade = clearing("trades", "--ledger", desk, "--trade", "t1", "--json")
    unmatched = clearing("trades", "--ledger", desk, "--unmatched", "--json").json
    mine = clearing("trades", "--ledger", desk, "--unmatched", "--account", "M", "--json").json

    assert [("A", "buy", "1", "2"), ("M", "sell", "1", "-0.5")] == rows(trade, "account", "side", "size", "fee")
    assert "t1" not in {row["trade_id"] for row in unmatched}
    assert all(row["bought"] != row["sold"] for row in unmatched)
    assert [("0", "10")] == of(mine, "bought", "sold")


def test_an_inverse_contract_is_in_its_base(desk: Path) -> None:
    position = clearing("account", "A", "--ledger", desk, "--json").json["positions"]
    inverse = next(row for row in position if row["instrument"] == "BTC-USD-I")
    market = next(row for row in clearing("markets", "--ledger", desk, "--json").json
                  if row["instrument"] == "BTC-USD-I")

    # Bought at 10,000 and settled daily at 10,003: what it now costs is its value at that, up to the quantum.
    assert ("inverse", "BTC", "10", "BTC") == (
        inverse["contract_type"], inverse["settlement_asset"], inverse["size"], market["settlement_asset"])
    assert abs(D(inverse["entry_price"]) - D(10003)) < D("0.01")
    # Ten contracts of 100 USD are 1,000 USD, whatever the price.
    assert abs(D(inverse["notional"]) - D(1000)) < D("0.5")


def test_markets_show_their_sources_and_what_settled(desk: Path) -> None:
    found = {row["instrument"]: row for row in clearing("markets", "--ledger", desk, "--at", moment("10:30:00"),
                                                        "--json").json}
    btc, january = found["BTC-USD"], found["BTC-JAN"]
    sources = clearing("markets", "--ledger", desk, "--csv", "--part", "sources").rows

    assert [("feed", "10000", "mark"), ("other", "10010", "mark"), ("slow", "10002", "mark"),
            ("third", "10020", "index")] == of(
        btc["sources"], "source", "last_price", "last_kind")
    # A daily settlement is the mark until a price comes; an end is it for good.
    assert ("10003.33", "daily", False, None) == tuple(
        btc[name] for name in ("mark_price", "settlement_kind", "settled", "mark_source"))
    assert ("10003.33", "expiry", True, 1) == tuple(
        january[name] for name in ("mark_price", "settlement_kind", "settled", "rejected_settled"))
    assert ("0", "0.1") != (january["open_interest"], "")
    assert {"feed", "other", "slow", "third"} == {row["source"] for row in sources if row["instrument"] == "BTC-USD"}


def test_a_mark_that_is_the_median_of_sources_says_so(desk: Path, story: Scenario) -> None:
    position = next(row.position for row in story.log if getattr(row.event, "mark", None) is not None)
    market = next(row for row in clearing("markets", "--ledger", desk, "--at-position", str(position), "--json").json
                  if row["instrument"] == "BTC-USD")

    assert ("10005", True, "other") == (market["mark_price"], market["is_median"], market["mark_source"])


def test_assets_show_their_rates(desk: Path) -> None:
    assert [("BTC", "0.1", "0.01"), ("USD", "0.2", "0.02")] == rows(
        clearing("assets", "--ledger", desk, "--json"), "asset", "borrow_rate", "lend_rate")


def test_halts_in_force_and_their_history(desk: Path, story: Scenario) -> None:
    found = clearing("halts", "--ledger", desk, "--json").json

    assert [("BTC-JAN", "new-risk")] == of(found["in_force"], "scope", "what")
    assert [("A", "halt", "review"), ("A", "halt", "still"), ("BTC-JAN", "halt", "end"), ("A", "resume", "done"),
            ("SOL-USD", "halt", "odd prices"), ("SOL-USD", "resume", "true")] == of(
        found["history"], "scope", "action", "reason")
    assert len(story.house.halts) == len(found["in_force"])


def test_liquidations_show_orders_results_and_conversions(desk: Path) -> None:
    found = clearing("liquidations", "--ledger", desk, "--json").json
    mine = clearing("liquidations", "--ledger", desk, "--account", "J", "--json").json
    running = clearing("liquidations", "--ledger", desk, "--state", "running", "--json").json

    assert {"E", "F", "G", "J"} <= {row["account"] for row in found["liquidations"]}
    assert ["rejected", "filled", "filled"] == [row["result"] for row in found["orders"] if row["result"]]
    assert "rejected" in {row["state"] for row in found["orders"]}
    assert [("J", "shortfall")] == of(mine["liquidations"], "account", "state")
    assert ["BTC", "USD"] == [row["asset"] for row in mine["conversions"]]
    assert [] == running["liquidations"] == running["orders"]


def test_rejections_are_filtered_by_outcome_reason_and_type(desk: Path, story: Scenario) -> None:
    everything = clearing("rejections", "--ledger", desk, "--json").json
    refused = clearing("rejections", "--ledger", desk, "--outcome", "refused", "--json")
    stray = clearing("rejections", "--ledger", desk, "--reason", "unknown-account", "--csv").rows
    prices = clearing("rejections", "--ledger", desk, "--type", "price", "--json")

    assert [outcome.position for _, outcome in story.said if outcome.kind in ("refused", "rejected")] == [
        row["position"] for row in everything]
    assert {"withdrawal", "transfer", "isolated-margin", "fund-movement"} == {kind for kind, in rows(refused, "type")}
    assert [("deposit", "account")] == [(row["type"], row["field"]) for row in stray]
    assert {"late", "step", "settled"} == {reason for reason, in rows(prices, "reason")}
