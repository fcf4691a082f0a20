"""The command, as its users run it: records in files, a ledger on disk, and what each report says of it.

The story (times on 2019-09-24): alice 1000, bob 1000 and carol 1001 USD each buy one BTC at 10,000 from the maker;
alice pays a fee of 2. At 9112 each has lost 888 and must keep 1 %, 91.12, so that 1.3 x 91.12 = 118.456 cures:
  alice  998 - 888 = 110, called for 8.456, that is 8.46; at 9090 she has 88 of 90.9 and is liquidated,
  bob   1000 - 888 = 112, called for 6.46; he brings 100 and has met it,
  carol 1001 - 888 = 113, called for 5.46; at 9090 she has 91 of 90.9, an hour later her call has expired.
The simulated venue sells one BTC at 9090 x (1 - 0.0005) = 9085.455, down to 9085.45: both lose 914.55, so that alice
keeps 83.45 and carol 86.45.
"""

from __future__ import annotations

import csv
import gzip
import inspect
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from threading import Timer
from typing import Any, Final

import pytest
import typer
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from infra.cli import app
from infra.cli_ingest import Tally
from infra.embedded import in_memory, open_ledger
from infra.streams.records import Place, read
from ledger.amounts import exact
from tests.unit.test_calculator import asked, long_btc

Record = dict[str, Any]
DAY: Final = "2019-09-24"
ROOT: Final = Path(__file__).parents[2]


def at(clock: str) -> str:
    return f"{DAY}T{clock}:00Z"


def record(record_type: str, name: str, clock: str, **fields: Any) -> Record:
    return {"type": record_type, "id": name, "time": at(clock), **fields}


def fill(name: str, clock: str, account: str, side: str, size: str = "1", price: str = "10000",
         **fields: Any) -> Record:
    return record("fill", f"{name}-{account}", clock, account=account, trade_id=name, instrument="BTC-USD", side=side,
                  size=size, price=price, **fields)


def price(sequence: int, clock: str, amount: str) -> Record:
    return {"type": "price", "time": at(clock), "instrument": "BTC-USD", "price": amount, "source": "feed",
            "sequence": sequence}


def deposit(name: str, clock: str, account: str, amount: str, asset: str = "USD") -> Record:
    return record("deposit", name, clock, account=account, asset=asset, amount=amount)


OPENING: Final = [
    record("asset", "usd", "00:00", asset="USD", quantum="0.01"),
    record("asset", "btc", "00:00", asset="BTC", quantum="0.00000001", pricing_instrument="BTC-USD"),
    record("instrument", "btc-usd", "00:00", instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
           tick_size="0.01", lot_size="0.001"),
    record("fund-movement", "fund", "00:00", fund="insurance", asset="USD", amount="15", kind="contribution")]

STORY: Final = [
    *OPENING,
    *(record("account", f"open-{name}", "00:01", account=name, margin_mode="cross")
      for name in ("alice", "bob", "carol")),
    record("account", "open-maker", "00:01", account="maker", margin_mode="cross", kind="liquidity-provider"),
    deposit("deposit-alice", "00:02", "alice", "1000"), deposit("deposit-bob", "00:02", "bob", "1000"),
    deposit("deposit-carol", "00:02", "carol", "1001"), deposit("deposit-maker", "00:02", "maker", "100000"),
    price(1, "00:03", "10000"),
    fill("t1", "00:04", "alice", "buy", fee="2"), fill("t1", "00:04", "maker", "sell"),
    fill("t2", "00:04", "bob", "buy"), fill("t2", "00:04", "maker", "sell"),
    fill("t3", "00:04", "carol", "buy"), fill("t3", "00:04", "maker", "sell"),
    record("withdrawal", "out", "00:05", account="maker", asset="USD", amount="99500"),
    record("clock", "six", "00:06"), price(2, "00:06", "9112"),
    deposit("rescue", "00:07", "bob", "100"),
    price(3, "00:08", "9090"),
    deposit("stray", "00:09", "nobody", "5"), fill("t9", "00:09", "alice", "buy", size="0.0005"),
    record("clock", "nine", "00:09"), price(4, "01:05", "9090"), record("clock", "late", "01:06")]


def write(path: Path, records: Iterable[Record | str]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in records))
    return path


class Answer:
    """What a command left: exit code, standard output, standard error."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        assert (0, "") == (self.code, self.err.replace("balanced\n", ""))
        return json.loads(self.out)

    @property
    def lines(self) -> list[Record]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.out)))


def clearing(*words: str | Path, stdin: bytes | None = None) -> Answer:
    result = CliRunner().invoke(app, [str(word) for word in words], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module", autouse=True)
def _command_is_built_once() -> Iterator[None]:
    """As by a process: building it from its annotations takes longer than most commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The ledger of the story, and the summary of its ingestion."""
    folder = tmp_path_factory.mktemp("story")
    ledger = folder / "desk.db"
    file = write(folder / "desk.jsonl", [*STORY, "this is not JSON"])
    answer = clearing("ingest", file, "--ledger", ledger, "--venue", "simulated", "--json")
    assert answer.code == 0
    return ledger, json.loads(answer.out)


@pytest.fixture
def desk(told: tuple[Path, Record]) -> Path:
    return told[0]


@pytest.fixture
def own_desk(told: tuple[Path, Record], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copy(told[0], tmp_path / "own.db"))


def position_of(ledger: Path, topic: str, **fields: str) -> int:
    """The log position of the first event of this type and these fields."""
    rows = clearing("events", "--ledger", ledger, "--type", topic).lines
    return int(next(row["position"] for row in rows if fields.items() <= row["body"].items()))


# --- help --------------------------------------------------------------------------------------------------------

COMMANDS: Final = ("demo", "ingest", "events", "account", "accounts", "calls", "liquidations", "statement",
                   "movements", "charges", "orders", "trades", "journal", "markets", "assets", "halts", "funds",
                   "record", "rejections", "margin", "rulebooks", "rulebook", "replay", "shards", "reconcile",
                   "topics", "worker", "relay", "doctor", "status", "backup", "restore", "upgrade",
                   "snapshot", "ladder", "dlq")


@pytest.mark.parametrize("command", [
    *(name for name in COMMANDS if name not in ("topics", "dlq")), "topics ensure", "topics list", "dlq list",
    "dlq show", "dlq replay"])
def test_every_command_has_a_sentence_and_an_example(command: str) -> None:
    answer = clearing(*command.split(), "--help")
    sentence = " ".join(answer.out.partition("Example:")[0].partition("\n\n")[2].split())

    assert answer.code == 0
    assert sentence.endswith(".") or sentence.endswith("recorded.")
    assert ". " not in sentence
    assert "Example: " in answer.out
    assert f"clearing {command}" in answer.out.partition("Example: ")[2]


def test_the_list_of_commands_is_whole() -> None:
    out = clearing("--help").out.partition("Commands:")[2]

    assert sorted(COMMANDS) == sorted(line.split()[0] for line in out.splitlines() if line.strip())


def test_an_example_of_the_help_can_be_copied(tmp_path: Path) -> None:
    example = clearing("margin", "--help").out.partition("echo '")[2].partition("'")[0]

    assert "healthy" == clearing("margin", "-", stdin=example.encode()).json["status"]


def test_a_command_without_its_ledger_is_bad_usage() -> None:
    answer = clearing("accounts")

    assert (2, "") == (answer.code, answer.out)
    assert "Missing option '--ledger'" in answer.err


def test_the_ledger_may_stand_in_the_environment(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARING_LEDGER", str(desk))

    assert 5 == len(clearing("accounts", "--json").json)


# --- ingest ------------------------------------------------------------------------------------------------------


def test_the_summary_counts_what_this_run_did(told: tuple[Path, Record]) -> None:
    _, summary = told

    # 27 lines and one that is no JSON; refused: the withdrawal; rejected: unknown account, off-lot, no JSON.
    assert {"records": len(STORY) + 1, "applied": len(STORY) - 3, "duplicate": 0, "refused": 1, "rejected": 3,
            "margin_calls": 3, "liquidations": 2, "shortfall": "0", "balanced": True,
            "reasons": {"refused": {"beyond-withdrawable": 1},
                        "rejected": {"unknown-account": 1, "off-lot": 1, "malformed": 1}}}.items() <= summary.items()
    assert summary["events"] == summary["log_position"]
    assert 64 == len(summary["root"])


def test_the_same_file_again_is_all_duplicates(own_desk: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "desk.jsonl", [*STORY, "this is not JSON"])
    before = clearing("ingest", file, "--ledger", own_desk, "--venue", "simulated", "--json").json

    assert (len(STORY) + 1, 0, 0) == (before["duplicate"], before["events"], before["margin_calls"])


def test_rejections_are_shown_with_line_and_reason_and_are_no_failure(tmp_path: Path) -> None:
    strays = [deposit(f"d{n}", "00:01", "nobody", "1") for n in range(6)]
    file = write(tmp_path / "bad.jsonl", [*OPENING, "no JSON", *strays])
    answer = clearing("ingest", file, "--ledger", tmp_path / "x.db")

    assert answer.code == 0
    assert "records       11 (4 applied, 0 duplicate, 0 refused, 7 rejected)" in answer.out
    assert "7 records were rejected, and recorded as such (6 unknown-account, 1 malformed):" in answer.err
    assert "  bad.jsonl:5: malformed: expected well-formed JSON" in answer.err
    assert "  ... and 2 more" in answer.err
    assert f"clearing events --ledger {tmp_path / 'x.db'} --type record-rejected" in answer.err


def test_a_record_ahead_of_the_wall_clock_is_rejected_at_the_edge(tmp_path: Path) -> None:
    ahead = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    file = write(tmp_path / "ahead.jsonl", [{**OPENING[0], "time": ahead}])
    rejected = clearing("ingest", file, "--ledger", tmp_path / "a.db", "--json")
    tolerated = clearing("ingest", file, "--ledger", tmp_path / "b.db", "--json", "--future-tolerance", "7200").json

    assert (0, {"rejected": {"time-ahead": 1}, "refused": {}}) == (rejected.code, json.loads(rejected.out)["reasons"])
    assert 1 == tolerated["applied"]


def test_files_have_sources_of_their_own_unless_one_is_named(tmp_path: Path) -> None:
    first, second = write(tmp_path / "one.jsonl", OPENING[:1]), write(tmp_path / "two.jsonl", OPENING[:1])
    packed = tmp_path / "three.jsonl.gz"
    packed.write_bytes(gzip.compress(first.read_bytes()))

    each = clearing("ingest", first, second, packed, "--ledger", tmp_path / "a.db", "--json").json
    together = clearing("ingest", first, second, "-", "--ledger", tmp_path / "b.db", "--source", "desk", "--json",
                        stdin=packed.read_bytes()).json

    assert (3, 0) == (each["applied"], each["duplicate"])
    assert (1, 2) == (together["applied"], together["duplicate"])
    assert ["one.jsonl", "two.jsonl", "three.jsonl"] == [
        row["cause"]["source"] for row in clearing("events", "--ledger", tmp_path / "a.db").lines]


CANDLES: Final = (
    "time,symbol,open,high,low,close,volume\n"
    "2019-09-24T02:00:00Z,BTC-USD,9090,9091,9080,9085,3\n"
    "2019-09-24T02:00:00Z,ETH-USD,200,201,199,200,5\n")


def test_candles_are_known_by_their_header(desk: Path, tmp_path: Path) -> None:
    file = tmp_path / "candles.csv"
    file.write_text(CANDLES)
    first, second = (Path(shutil.copy(desk, tmp_path / name)) for name in ("first.db", "second.db"))
    unlisted = clearing("ingest", file, "--ledger", first, "--json")
    listed = clearing("ingest", "-", "--ledger", second, "--json", "--list", stdin=CANDLES.encode()).json

    # Four marks a row and a clock; ETH-USD is unknown, or listed with its asset.
    assert (0, 9, 4) == (unlisted.code, json.loads(unlisted.out)["records"], json.loads(unlisted.out)["rejected"])
    assert "--list lists the symbols of a CSV" in unlisted.err
    assert (11, 11) == (listed["records"], listed["applied"])
    assert ["BTC-USD", "ETH-USD"] == [row["instrument"] for row in clearing(
        "markets", "--ledger", second, "--json").json]


def shortfall_records(order_id: str) -> list[Record]:
    """Dora's one BTC is sold at 9880, 120 below her price, with 100 behind it: 20 are missing, the fund has 15."""
    return [fill("t2", "00:06", "dora", "sell", price="9880", liquidation_order_id=order_id),
            fill("t2", "00:06", "maker", "buy", price="9880")]


@pytest.fixture
def short_desk(tmp_path: Path) -> tuple[Path, Record]:
    """A ledger in which a liquidation filled by a record leaves a loss; the summary of the last ingestion."""
    ledger = tmp_path / "short.db"
    opened = [record("account", f"open-{name}", "00:01", account=name, margin_mode="cross")
              for name in ("dora", "maker")]
    first = write(tmp_path / "first.jsonl", [
        *OPENING, *opened, deposit("d1", "00:02", "dora", "100"), deposit("d2", "00:02", "maker", "50000"),
        price(1, "00:03", "10000"), fill("t1", "00:04", "dora", "buy"), fill("t1", "00:04", "maker", "sell"),
        record("clock", "five", "00:05"), price(2, "00:05", "9880")])
    assert clearing("ingest", first, "--ledger", ledger).code == 0
    orders = clearing("events", "--ledger", ledger, "--type", "liquidation-order-placed").lines
    second = write(tmp_path / "second.jsonl", shortfall_records(orders[-1]["body"]["order_id"]))
    return ledger, clearing("ingest", second, "--ledger", ledger, "--json").json


def test_a_shortfall_is_summed_and_the_fund_pays_what_it_holds(short_desk: tuple[Path, Record]) -> None:
    ledger, summary = short_desk
    funds = clearing("funds", "--ledger", ledger, "--json").json

    assert ("20", "USD", {"USD": "20"}, 0) == (summary["shortfall"], summary["shortfall_asset"],
                                               summary["shortfall_by_asset"], summary["liquidations"])
    assert ("0", "15", "15") == tuple(funds["funds"][0][name] for name in ("balance", "contributed", "drawn"))
    assert [("contribution", "15"), ("draw", "-15")] == [(row["kind"], row["amount"]) for row in funds["movements"]]
    assert [("dora", "20", "15", "5")] == [
        (row["account"], row["amount"], row["covered"], row["uncovered"]) for row in funds["shortfalls"]]


def test_shortfalls_in_several_assets_are_valued_at_marks() -> None:
    shard = in_memory()
    shard.apply([read(Place("desk", line=line), json.dumps(row).encode())
                 for line, row in enumerate([*OPENING, price(1, "00:03", "8000")])])
    tally = Tally()
    tally.shortfalls = {"USD": Decimal(10), "BTC": Decimal("0.5")}
    with exact():
        summary = tally.summary(shard)

    assert ("4010", "USD", {"BTC": "0.5", "USD": "10"}) == (
        summary["shortfall"], summary["shortfall_asset"], summary["shortfall_by_asset"])


def test_what_came_before_a_broken_end_is_applied(tmp_path: Path) -> None:
    packed = gzip.compress("".join(f"{json.dumps(row)}\n" for row in OPENING * 400).encode(), compresslevel=0)
    file = tmp_path / "cut.jsonl.gz"
    file.write_bytes(packed[: len(packed) // 2])
    answer = clearing("ingest", file, "--ledger", tmp_path / "x.db", "--json")

    assert answer.code == 2
    assert 4 == json.loads(answer.out)["applied"]
    assert "cut.jsonl.gz: expected to read it to its end, came after line" in answer.err


def test_a_misspelt_file_makes_no_ledger(tmp_path: Path) -> None:
    answer = clearing("ingest", tmp_path / "nothing.jsonl", "--ledger", tmp_path / "x.db")

    assert (2, []) == (answer.code, list(tmp_path.iterdir()))
    assert "nothing.jsonl: expected a file to open, came: no such file or directory" in answer.err


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("rows.csv", b"date,symbol,price\n", "expected a CSV of candles with the header"),
    ("rows.txt", b"time,symbol,open\n", "expected a CSV of candles with the header"),
    ("desk.db", b"SQLite format 3\0more", "expected records, came a database; the ledger goes behind --ledger"),
    ("cut.gz", b"\x1f\x8bno", "expected a readable file, came: "),
])
def test_a_wrong_file_is_told_before_anything_is_recorded(tmp_path: Path, name: str, content: bytes,
                                                          expected: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    answer = clearing("ingest", file, "--ledger", tmp_path / "x.db")

    assert 2 == answer.code
    assert expected in answer.err
    assert not (tmp_path / "x.db").exists()


def test_a_second_writer_is_refused_with_the_name_of_the_first(own_desk: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "more.jsonl", [record("clock", "x", "02:00")])
    with open_ledger(own_desk):
        answer = clearing("ingest", file, "--ledger", own_desk)
        read = clearing("accounts", "--ledger", own_desk)

    assert 1 == answer.code
    assert "is being written by process" in answer.err
    assert 0 == read.code


def test_a_writer_waits_for_the_read_models_beside_it(own_desk: Path) -> None:
    """A transaction that begins as a reader is locked out at once by whoever commits before it writes."""
    report = sqlite3.connect(own_desk, isolation_level=None, check_same_thread=False)
    with open_ledger(own_desk) as shard:
        assert clearing("markets", "--ledger", own_desk).code == 0
        report.execute("BEGIN IMMEDIATE")
        report.execute("UPDATE view_position SET log_position = log_position")
        done = Timer(0.2, report.execute, ("COMMIT",))
        done.start()
        outcomes = shard.apply([read(Place("clocks", line=1), json.dumps(record("clock", "c", "02:00")).encode())])
        done.join()
    report.close()

    assert ["applied"] == [outcome.kind for outcome in outcomes]


def test_standard_input_is_read_but_once(tmp_path: Path) -> None:
    answer = clearing("ingest", "-", "-", "--ledger", tmp_path / "x.db", stdin=b"")

    assert 2 == answer.code
    assert "expected - but once" in answer.err


# --- the log -----------------------------------------------------------------------------------------------------


def test_events_are_lines_of_json_with_time_and_cause_beside_the_body(desk: Path) -> None:
    answer = clearing("events", "--ledger", desk, "--account", "bob", "--type", "deposited")

    first, second = answer.lines
    assert ["position", "topic", "time", "stream", "version", "cause", "body"] == list(first)
    assert ("clearing.deposited:1", at("00:02"), "account:bob", 2) == (
        first["topic"], first["time"], first["stream"], first["version"])
    assert {"source": "desk.jsonl", "type": "deposit", "id": "deposit-bob", "time": at("00:02"), "line": 10} == (
        first["cause"])
    assert {"account": "bob", "asset": "USD", "amount": "100", "balance": "1100"} == second["body"]


@pytest.mark.parametrize("name", ["margin-call-met", "clearing.margin-call-met", "margin-call-met:1",
                                  "clearing.margin-call-met:1"])
def test_a_type_may_be_named_with_or_without_prefix_and_version(desk: Path, name: str) -> None:
    assert ["bob"] == [row["body"]["account"] for row in clearing("events", "--ledger", desk, "--type", name).lines]


def test_events_start_at_a_position_or_a_time(desk: Path) -> None:
    from_position = clearing("events", "--ledger", desk, "--from", "5", "--limit", "2").lines
    from_time = clearing("events", "--ledger", desk, "--from", at("00:02"), "--limit", "1").lines

    assert [5, 6] == [row["position"] for row in from_position]
    assert "deposit-alice" == from_time[0]["cause"]["id"]


def test_an_unknown_type_of_event_gets_a_hint(desk: Path) -> None:
    answer = clearing("events", "--ledger", desk, "--type", "margin-call-isued")

    assert 2 == answer.code
    assert "did you mean margin-call-issued" in answer.err


# --- reports -----------------------------------------------------------------------------------------------------


def test_an_account_shows_its_figures_at_marks(desk: Path) -> None:
    position = position_of(desk, "margin-call-issued", account="alice")
    found = clearing("account", "alice", "--ledger", desk, "--at-position", str(position), "--json").json

    assert (position, "margin-call", "USD", "house 1") == (
        found["log_position"], found["status"], found["valuation_asset"], found["rulebook"])
    # 110 of equity; 2 % and 1 % of 9112. Nothing may leave while the call is open.
    assert {"pool": "cross", "status": "margin-call", "status_by_marks": "margin-call", "account_equity": "110",
            "margin_equity": "110", "unrealised_pnl": "-888", "initial_margin": "182.24", "maintenance_margin": "91.12",
            "margin_ratio": "1.207199297629499561", "free_collateral": "-72.24", "withdrawable": "0",
            "call_id": f"call-{position}", "liquidation_id": None}.items() <= found["pools"][0].items()
    assert [{"pool": "cross", "asset": "USD", "amount": "998", "accrued_interest": "0", "value": "998",
             "withdrawable": "0"}] == found["balances"]
    # 998 + p - 10,000 = 0.01 p at 9002 / 0.99; zero equity at 9002.
    assert {"instrument": "BTC-USD", "size": "1", "entry_price": "10000", "mark": "9112", "notional": "9112",
            "unrealised_pnl": "-888", "liquidation_price": "9092.929292929292929293",
            "bankruptcy_price": "9002"}.items() <= found["positions"][0].items()
    assert ["8.46"] == [call["call_amount"] for call in found["open_calls"]]


def test_an_account_and_the_calculator_agree(desk: Path) -> None:
    position = position_of(desk, "margin-call-issued", account="alice")
    report = clearing("account", "alice", "--ledger", desk, "--at-position", str(position), "--json").json
    answer = asked(long_btc(), collateral={"USD": "998"}, marks={"BTC-USD": "9112"})

    for name in ("account_equity", "margin_equity", "initial_margin", "maintenance_margin", "margin_ratio",
                 "free_collateral", "withdrawable"):
        assert answer["pools"][0][name] == report["pools"][0][name]
    assert answer["pools"][0]["positions"][0]["liquidation_price"] == report["positions"][0]["liquidation_price"]


def test_withdrawable_is_what_the_ledger_itself_would_let_out(desk: Path) -> None:
    refused = clearing("events", "--ledger", desk, "--type", "withdrawal-refused").lines[0]
    report = clearing("account", "maker", "--ledger", desk, "--at-position", str(refused["position"]), "--json").json

    # 100,000 less 2 % of 30,000.
    assert "99400" == refused["body"]["withdrawable"] == report["balances"][0]["withdrawable"]


def test_an_account_at_an_earlier_time_has_what_it_had_then(desk: Path) -> None:
    early = clearing("account", "alice", "--ledger", desk, "--at", at("00:02"), "--json").json
    late = clearing("account", "alice", "--ledger", desk, "--json").json

    assert (["1000"], []) == ([row["amount"] for row in early["balances"]], early["positions"])
    assert (["83.45"], []) == ([row["amount"] for row in late["balances"]], late["positions"])


def test_an_account_as_a_table_is_for_the_eye(desk: Path) -> None:
    position = position_of(desk, "margin-call-issued", account="alice")
    out = clearing("account", "alice", "--ledger", desk, "--at-position", str(position)).out

    assert out.startswith(f"Account alice: client, cross margin, net positions, rulebook house 1; margin-call at log "
                          f"position {position}")
    assert "1.2071" in out and "1.20719" not in out
    assert "9092.9293" in out


def test_an_unknown_account_gets_a_hint(desk: Path) -> None:
    answer = clearing("account", "alcie", "--ledger", desk)

    assert (2, "") == (answer.code, answer.out)
    assert "came 'alcie'; did you mean alice?" in answer.err


def test_accounts_are_listed_and_filtered(desk: Path) -> None:
    found = clearing("accounts", "--ledger", desk, "--json").json
    position = position_of(desk, "margin-call-issued", account="bob")
    called = clearing("accounts", "--ledger", desk, "--status", "margin-call", "--at-position", str(position), "--csv")

    assert ["alice", "bob", "carol", "maker", "venue:simulated"] == [row["account"] for row in found]
    assert {"status": "healthy", "fills": 2, "opened_at": at("00:01")}.items() <= found[0].items()
    assert ["alice", "bob"] == [row["account"] for row in called.rows]


def test_calls_say_why_and_how_they_ended(desk: Path) -> None:
    found = clearing("calls", "--ledger", desk, "--json").json
    met = clearing("calls", "--ledger", desk, "--state", "met", "--csv").rows

    assert [("alice", "superseded", "8.46"), ("bob", "met", "6.46"), ("carol", "expired", "5.46")] == [
        (row["account"], row["state"], row["call_amount"]) for row in found]
    assert (at("00:06"), at("01:06"), at("01:06"), "BTC-USD 9112") == tuple(
        found[2][name] for name in ("issued_at", "deadline", "ended_at", "marks"))
    assert "113" == found[2]["issue_evidence"]["account_equity"]
    assert ["bob"] == [row["account"] for row in met]
    assert ["carol"] == [row["account"] for row in clearing(
        "calls", "--ledger", desk, "--account", "carol", "--json").json]
    assert "No margin calls." in clearing("calls", "--ledger", desk, "--state", "open").out


def test_a_statement_opens_and_closes_on_what_the_lines_explain(desk: Path) -> None:
    found = clearing("statement", "alice", "--ledger", desk, "--json").json

    assert [("deposited", "1000", "1000"), ("fill-posted", "-2", "998"), ("fill-posted", "-914.55", "83.45")] == [
        (row["event"], row["amount"], row["balance"]) for row in found["lines"]]
    assert [{"asset": "USD", "opening": "0", "credits": "1000", "debits": "-916.55", "closing": "83.45"}] == (
        found["balances"])


def test_a_statement_ends_where_the_next_begins(desk: Path) -> None:
    cut = at("00:04")
    before = clearing("statement", "alice", "--ledger", desk, "--to", cut, "--json").json
    after = clearing("statement", "alice", "--ledger", desk, "--from", cut, "--json").json

    assert ("0", "1000") == (before["balances"][0]["opening"], before["balances"][0]["closing"])
    assert ("1000", "83.45") == (after["balances"][0]["opening"], after["balances"][0]["closing"])
    assert (1, 2) == (len(before["lines"]), len(after["lines"]))


def test_what_moves_between_pools_is_no_credit(tmp_path: Path) -> None:
    ledger = tmp_path / "iso.db"
    file = write(tmp_path / "iso.jsonl", [
        *OPENING, record("account", "open", "00:01", account="ida", margin_mode="isolated"),
        deposit("d", "00:02", "ida", "1000"), price(1, "00:03", "10000"), fill("t", "00:04", "ida", "buy", fee="2")])
    assert clearing("ingest", file, "--ledger", ledger).code == 0
    found = clearing("statement", "ida", "--ledger", ledger, "--json").json

    # 2 % of 10,000 and the fee go to the isolated pool.
    assert [("cross", "1000"), ("cross", "-202"), ("isolated:BTC-USD:net", "202"), ("isolated:BTC-USD:net", "-2")] == [
        (row["pool"], row["amount"]) for row in found["lines"]]
    assert [{"asset": "USD", "opening": "0", "credits": "1000", "debits": "-2", "closing": "998"}] == found["balances"]


def test_the_journal_ends_with_the_trial_balance(desk: Path) -> None:
    answer = clearing("journal", "--ledger", desk)
    found = clearing("journal", "--ledger", desk, "--json").json
    held = {row["owner"]: row["amount"] for row in found["trial_balance"]}

    # 103,101 paid in by the accounts and 15 by the fund; 2 in fees; the house has what the accounts lost: 2 x 914.55.
    assert {"custody": "-103116", "fees": "2", "fund:insurance": "15", "house": "1829.1", "account": "101269.9"} == held
    assert ([{"asset": "USD", "total": "0"}], True) == (found["sums"], found["balanced"])
    assert answer.out.endswith("Balanced: every asset sums to exactly zero over all owners.\n")


def test_the_journal_is_filtered_and_its_balance_is_not(desk: Path) -> None:
    answer = clearing("journal", "--ledger", desk, "--account", "alice", "--csv")
    found = clearing("journal", "--ledger", desk, "--asset", "USD", "--from", at("00:04"), "--limit", "1",
                     "--json").json

    assert ["1000", "-2", "-914.55"] == [row["amount"] for row in answer.rows]
    assert "balanced" in answer.err
    assert ["-2"] == [row["amount"] for row in found["postings"]]
    assert [] == clearing("journal", "--ledger", desk, "--asset", "BTC", "--json").json["postings"]


def test_a_journal_that_does_not_balance_is_a_mismatch(own_desk: Path) -> None:
    assert clearing("journal", "--ledger", own_desk).code == 0
    with sqlite3.connect(own_desk) as connection:
        connection.execute("UPDATE view_trial_balance SET amount = '3' WHERE owner = 'fees'")
    connection.close()
    answer = clearing("journal", "--ledger", own_desk)

    assert 3 == answer.code
    assert "expected every asset to sum to zero over all owners, came 1 USD" in answer.err


def test_markets_show_their_marks(desk: Path) -> None:
    found = clearing("markets", "--ledger", desk, "--json").json

    # Three lots bought by accounts, two of them sold to the venue; each fill counts by its own side.
    assert {"instrument": "BTC-USD", "mark_price": "9090", "mark_time": at("01:05"), "mark_source": "feed",
            "provisional": False, "prices_accepted": 4, "fills": 10, "open_interest": "3"}.items() <= found[0].items()


def test_a_record_tells_what_became_of_it(desk: Path) -> None:
    applied = clearing("record", "desk.jsonl", "deposit-bob", "--ledger", desk, "--json").json
    refused = clearing("record", "desk.jsonl", "out", "--ledger", desk, "--json").json
    rejected = clearing("record", "desk.jsonl", "stray", "--ledger", desk)
    by_line = clearing("record", "desk.jsonl", str(len(STORY) + 1), "--ledger", desk, "--json").json

    assert ("applied", None, "clearing.deposited:1", "account:bob") == tuple(
        applied[name] for name in ("outcome", "reason", "topic", "stream"))
    assert ("refused", "beyond-withdrawable", "99400") == (
        refused["outcome"], refused["reason"], refused["event"]["withdrawable"])
    assert "rejected at log position" in rejected.out
    assert "unknown-account: account: expected an opened account, came 'nobody'" in rejected.out
    assert ("rejected", "malformed") == (by_line["outcome"], by_line["reason"])


def test_a_record_shows_the_decisions_that_it_tipped(desk: Path) -> None:
    met = clearing("record", "desk.jsonl", "rescue", "--ledger", desk, "--json").json

    assert ["margin-call-met", "warning-ended"] == [row["event"] for row in met["with_it"]]


def test_a_price_with_an_id_is_found_although_reports_leave_prices_out(own_desk: Path, tmp_path: Path) -> None:
    quote = record("price", "quote-1", "02:00", instrument="BTC-USD", price="9095", source="other")
    assert clearing("ingest", write(tmp_path / "quotes.jsonl", [quote]), "--ledger", own_desk).code == 0
    found = clearing("record", "quotes.jsonl", "quote-1", "--ledger", own_desk, "--json").json

    assert ("applied", "clearing.price-recorded:1") == (found["outcome"], found["topic"])


@pytest.mark.parametrize(("source", "name", "expected"), [
    ("desk.jsonl", "nothing", "expected a record of desk.jsonl that the ledger has an outcome of, came 'nothing'"),
    ("disk.jsonl", "x", "expected a source that the ledger has records of (desk.jsonl, venue:simulated), came "
                        "'disk.jsonl'"),
])
def test_an_unknown_record_gets_a_hint(desk: Path, source: str, name: str, expected: str) -> None:
    answer = clearing("record", source, name, "--ledger", desk)

    assert 2 == answer.code
    assert expected in answer.err


def test_csv_prints_the_table_that_is_asked_for(desk: Path) -> None:
    first = clearing("account", "maker", "--ledger", desk, "--csv")
    second = clearing("account", "maker", "--ledger", desk, "--csv", "--part", "positions")
    wrong = clearing("account", "maker", "--ledger", desk, "--csv", "--part", "tables")

    assert ["cross"] == [row["pool"] for row in first.rows]
    assert "--part positions" in first.err
    assert ["-3"] == [row["size"] for row in second.rows]
    assert (2, "") == (wrong.code, wrong.out)
    assert ("expected pools or balances or positions or open_calls or orders or holds or settings or charges or halts, "
            "came 'tables'") in wrong.err


@pytest.mark.parametrize(("words", "expected"), [
    (["--at", "yesterday"], "expected a time such as 2019-09-24T18:00:00Z"),
    (["--at", at("00:01"), "--at-position", "3"], "expected --at or --at-position, came both"),
    (["--at-position", "9999"], "--at-position: expected at most"),
    (["--json", "--csv"], "expected --json or --csv, came both"),
])
def test_a_wrong_option_says_what_was_expected(desk: Path, words: list[str], expected: str) -> None:
    answer = clearing("accounts", "--ledger", desk, *words)

    assert (2, "") == (answer.code, answer.out)
    assert expected in answer.err


def test_before_the_first_event_there_is_nothing(desk: Path) -> None:
    assert [] == clearing("accounts", "--ledger", desk, "--at", "2000-01-01T00:00:00Z", "--json").json


@pytest.mark.parametrize("command", [
    ["accounts"], ["calls"], ["events"], ["journal"], ["markets"], ["funds"], ["replay"], ["account", "alice"],
    ["statement", "alice"], ["record", "a", "b"]])
def test_no_ledger_and_no_ledger_file_are_told_apart(tmp_path: Path, command: list[str]) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("dear diary\n" * 100)
    missing = clearing(*command, "--ledger", tmp_path / "gone.db")
    wrong = clearing(*command, "--ledger", other)

    assert (2, 2) == (missing.code, wrong.code)
    assert "there is none; `clearing ingest FILE --ledger" in missing.err
    assert "not a ledger file" in wrong.err
    assert not (tmp_path / "gone.db").exists()


def test_a_log_with_a_hole_is_a_mismatch(tmp_path: Path) -> None:
    ledger = tmp_path / "hole.db"
    assert clearing("ingest", write(tmp_path / "x.jsonl", OPENING), "--ledger", ledger).code == 0
    with sqlite3.connect(ledger) as connection:
        connection.execute("DELETE FROM stored_events WHERE rowid = 2")
        connection.execute("UPDATE stored_events SET state = CAST('no JSON' AS BLOB) WHERE rowid = 3")
    connection.close()
    report, log = clearing("accounts", "--ledger", ledger), clearing("events", "--ledger", ledger, "--from", "3")

    assert (2, 3) == (report.code, log.code)
    assert "clearing.instrument-listed:1: " in report.err
    assert "log position 3: expected the JSON of an event, came: Expecting value" in log.err


# --- replay, margin, demo ----------------------------------------------------------------------------------------


def test_replay_finds_that_everything_follows_from_the_facts(told: tuple[Path, Record]) -> None:
    ledger, summary = told
    found = clearing("replay", "--ledger", ledger, "--json").json
    part = clearing("replay", "--ledger", ledger, "--until", at("00:05"), "--json").json

    assert (summary["root"], summary["events"], []) == (found["root"], found["events"], found["differences"])
    assert position_of(ledger, "withdrawal-refused") == part["events"]


def test_replay_lists_what_differs_and_ends_with_three(own_desk: Path) -> None:
    with sqlite3.connect(own_desk) as connection:
        connection.execute("DELETE FROM inbox WHERE record_key = 'rescue'")
    connection.close()
    answer = clearing("replay", "--ledger", own_desk)

    assert 3 == answer.code
    assert "inbox" in answer.out
    assert "expected nothing to differ, 1 thing does" in answer.err


def test_margin_draws_a_grid_and_asks_what_if(tmp_path: Path) -> None:
    file = tmp_path / "portfolio.json"
    file.write_text(json.dumps({"rulebook": "house", "marks": {"BTC-USD": "9500"}, "account": {
        "collateral": {"USD": "1000"},
        "positions": [{"instrument": "BTC-USD", "signed_size": "1", "entry_price": "10000"}]}}))

    assert "bankrupt" == clearing("margin", file, "--what-if", "BTC-USD=-10%").json["status"]
    assert ["-50", "bankrupt"] == [clearing("margin", file, "--grid").json[0][key] for key in ("move", "status")]
    assert "free collateral" in clearing("margin", file, "--grid", "--table").out
    assert "expected a move" in clearing("margin", file, "--what-if", "BTC-USD").err


@pytest.mark.parametrize(("suffix", "opening"), [(".png", b"\x89PNG\r\n"), (".svg", b"<?xml")])
def test_margin_draws_a_picture_beside_the_grid(tmp_path: Path, suffix: str, opening: bytes) -> None:
    file, picture = tmp_path / "portfolio.json", tmp_path / f"grid{suffix}"
    file.write_text(json.dumps({"rulebook": "house", "marks": {"BTC-USD": "9500"}, "account": {
        "collateral": {"USD": "1000"},
        "positions": [{"instrument": "BTC-USD", "signed_size": "1", "entry_price": "10000"}]}}))
    told = clearing("margin", file, "--grid", "--plot", picture, "--mark", "BTC-USD")
    drawn = picture.read_bytes()
    picture.unlink()
    alone = clearing("margin", file, "--plot", picture, "--mark", "BTC-USD")

    assert "bankrupt" == json.loads(told.out)[0]["status"]
    assert (0, f"Drawn into {picture}.\n") == (told.code, told.err)
    assert drawn.startswith(opening)
    assert ("", drawn) == (alone.out, picture.read_bytes())


def test_margin_says_why_it_cannot_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "portfolio.json"
    file.write_text(json.dumps({"rulebook": "house", "marks": {}, "account": {"collateral": {}, "positions": []}}))

    assert "expected a file name that ends in .png or .svg, came x.gif" in clearing(
        "margin", file, "--plot", "x.gif").err
    assert "expected to write" in clearing("margin", file, "--plot", tmp_path / "none" / "x.png").err
    assert "--plot or --what-if, came both" in clearing("margin", file, "--plot", "x.png", "--what-if", "*=1%").err
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'clearing-ledger[plot]'" in clearing("margin", file, "--plot", tmp_path / "x.png").err


def test_rulebooks_are_listed_and_printed_whole() -> None:
    kinds = {row["name"]: row["kind"] for row in clearing("rulebooks", "--json").json}
    assert ("rulebook", "protocol") == (kinds["house"], kinds["dydx-v4"])
    assert "dydx-v4" == clearing("rulebook", "dydx-v4").json["name"]
    names = [row["name"] for row in clearing("rulebooks", "--json").json]

    assert {"house", "binance-usdm", "okx-multi-currency"} <= set(names)
    assert "binance-usdm" == clearing("rulebook", "binance-usdm").json["name"]
    assert "expected one of" in clearing("rulebook", "no-such").err


def test_margin_answers_in_json_with_the_fields_of_the_contract(tmp_path: Path) -> None:
    question = {"rulebook": "house", "marks": {"BTC-USD": "9500"},
                "account": {"collateral": {"USD": "1000"}, "positions": [long_btc()]}}
    file = write(tmp_path / "portfolio.json", [question])

    assert asked(long_btc()) == clearing("margin", file).json == clearing(
        "margin", "-", stdin=json.dumps(question).encode()).json
    assert "9090.9091" in clearing("margin", file, "--table").out


def test_margin_names_every_field_at_fault(tmp_path: Path) -> None:
    question = {"rulebook": "house", "marks": {}, "account": {"collateral": {"USD": 5}, "positions": [long_btc("x")]}}
    answer = clearing("margin", write(tmp_path / "portfolio.json", [question]))

    assert (2, "") == (answer.code, answer.out)
    assert ["account.collateral.USD", "account.positions[0].signed_size"] == [
        line.split(": ")[2] for line in answer.err.splitlines()]


def test_margin_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(gzip.compress(b"{}" * 1_000)[:20])
    missing, broken = clearing("margin", "/nowhere/portfolio.json"), clearing("margin", cut)

    assert (2, 2) == (missing.code, broken.code)
    assert "/nowhere/portfolio.json: expected a file to open" in missing.err
    assert "expected an input that can be read to its end" in broken.err


def test_the_demo_overwrites_nothing_unless_told(own_desk: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("dear ledger")
    existing = clearing("demo", "--ledger", own_desk)
    foreign = clearing("demo", "--ledger", letter, "--fresh")
    with open_ledger(own_desk):
        written = clearing("demo", "--ledger", own_desk, "--fresh")

    assert (2, 2, 1) == (existing.code, foreign.code, written.code)
    assert "pass --fresh to delete it first, or --ledger with another name" in existing.err
    assert "--fresh deletes ledgers only" in foreign.err
    assert "is being written by process" in written.err
    assert letter.exists() and own_desk.exists()


def test_the_demo_is_called_as_it_wants_to_be() -> None:
    from infra.demo.run import run_demo

    inspect.signature(run_demo).bind(Path("demo.db"), accounts=1, seed=1, console=Console())


# --- as a process ------------------------------------------------------------------------------------------------


def processes(*words: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-W", "error", "-m", "infra.cli", *map(str, words)], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_whoever_stops_reading_gets_no_traceback(desk: Path) -> None:
    with processes("events", "--ledger", desk) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()

        assert (0, b"") == (process.wait(), err)


def test_tables_of_a_terminal_are_never_folded(desk: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    from infra.cli_console import Output, Part, show

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    rows = [{"name": f"a-long-name-of-an-account-{n}", "amount": Decimal("123456789.12345678")} for n in range(5)]
    part = Part("rows", rows, ("name", "amount"), {"name": "name", "amount": "amount"}, "")
    show(Output(), [part])
    lying = capsys.readouterr().out
    show(Output(), [part._replace(rows=rows[:2])])
    upright = capsys.readouterr().out

    assert all(f"a-long-name-of-an-account-{n}  123456789.1235" in lying for n in range(5))
    assert ["name", "amount"] == [line.split()[0] for line in upright.splitlines()]


def test_the_version_is_told() -> None:
    assert clearing("--version").out.startswith("clearing")


def test_commands_are_registered_once() -> None:
    names = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    names += [str(group.name) for group in app.registered_groups]

    assert sorted(COMMANDS) == sorted(names)
    assert isinstance(app, typer.Typer)
