"""Several ledgers as one: what `clearing shards` tells, and what `clearing reconcile` finds, on files and servers."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.embedded import open_ledger
from infra.store.address import PostgresAddress
from infra.streams.records import Delivered, Place, read
from tests.shards import new_shard

Record = dict[str, Any]
Ledger = Path | PostgresAddress

LISTING: Final[list[Record]] = [
    {"type": "asset", "id": "usd", "asset": "USD", "quantum": "0.01"},
    {"type": "instrument", "id": "x", "instrument": "X-USD", "base": "X", "quote": "USD", "contract_type": "linear",
     "tick_size": "0.01", "lot_size": "1"}]


def price(sequence: int, value: str) -> Record:
    return {"type": "price", "instrument": "X-USD", "price": value, "source": "a", "sequence": sequence}


def named_price(name: str, value: str) -> Record:
    return {"type": "price", "id": name, "instrument": "X-USD", "price": value, "source": "b"}


def client(name: str) -> list[Record]:
    return [{"type": "account", "id": f"open {name}", "account": name, "margin_mode": "cross"},
            {"type": "deposit", "id": f"pay {name}", "account": name, "asset": "USD", "amount": "1000"}]


def fill(name: str, side: str, trade: str = "t1", size: str = "2") -> Record:
    return {"type": "fill", "id": f"{trade} {side}", "account": name, "trade_id": trade, "instrument": "X-USD",
            "side": side, "size": size, "price": "100", "fee": "0.5"}


# The third is a step too far and rejected: by every ledger.
PRICES: Final = [price(1, "100"), price(2, "101"), price(3, "1000"), price(4, "102"), named_price("p", "101.5")]
FUND: Final[Record] = {"type": "fund-movement", "id": "m", "fund": "insurance", "asset": "USD", "amount": "50",
                       "kind": "contribution"}
ANN: Final = [*LISTING, *client("ann"), FUND, *PRICES, fill("ann", "buy")]
BOB: Final = [*LISTING, *client("bob"), *PRICES, fill("bob", "sell")]


def ingest(ledger: Ledger, records: list[Record]) -> None:
    with open_ledger(ledger) as shard:
        list(shard.ingest(delivered(records)))


def delivered(records: list[Record]) -> Iterator[Delivered]:
    for number, record in enumerate(records, 1):
        yield read(Place("topic", line=number), json.dumps({"time": "2019-09-24T18:00:00Z", **record}).encode())


@pytest.fixture(params=["files", "a server", "one of each"])
def ledgers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Ledger, Ledger]]:
    """Two ledgers that do not exist yet."""
    with ExitStack() as stack:
        def shard() -> PostgresAddress:
            return stack.enter_context(new_shard(request.getfixturevalue("postgres")))

        first: Ledger = tmp_path / "ann.db" if request.param != "a server" else shard()
        yield first, (tmp_path / "bob.db" if request.param == "files" else shard())


class Answer(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def clearing(command: str, *ledgers: Ledger | str, options: tuple[str, ...] = ()) -> Answer:
    words = [word for ledger in ledgers for word in (
        "--ledger", ledger.url if isinstance(ledger, PostgresAddress) else str(ledger))]
    result = CliRunner().invoke(app, [command, *words, *options])
    return Answer(result.exit_code, result.stdout, result.stderr)


def reconciled(*ledgers: Ledger) -> Any:
    answer = clearing("reconcile", *ledgers, options=("--json",))
    assert answer.code == (3 if answer.json["differences"] else 0), answer.err
    assert answer.json["same"] == (not answer.json["differences"])
    return answer.json


# --- shards ------------------------------------------------------------------------------------------------------


def test_shards_tell_where_each_stands_and_who_writes_it(ledgers: tuple[Ledger, Ledger]) -> None:
    first, second = ledgers
    ingest(first, ANN)
    with open_ledger(second) as shard:
        list(shard.ingest(delivered(BOB)))
        rows = clearing("shards", first, second, options=("--json",)).json

        assert rows[0]["owner"] is None
        assert f"process {os.getpid()} on {os.uname().nodename} since 2" in rows[1]["owner"]
        assert (shard.house.position, shard.root.hex()) == (rows[1]["log_position"], rows[1]["root"])
        assert "2019-09-24T18:00:00Z" == rows[1]["log_time"]
    assert clearing("shards", first, second, options=("--json",)).json[1]["owner"] is None


def test_a_ledger_before_its_first_event_stands_at_nothing(ledgers: tuple[Ledger, Ledger]) -> None:
    ingest(ledgers[1], [])
    row, = clearing("shards", ledgers[1], options=("--json",)).json

    assert (0, None, None, None) == (row["log_position"], row["log_time"], row["root"], row["epoch"])


def test_a_ledger_that_is_not_there_is_bad_input(ledgers: tuple[Ledger, Ledger]) -> None:
    ingest(ledgers[0], ANN)
    for command in ("shards", "reconcile"):
        answer = clearing(command, *ledgers)

        assert (2, "") == (answer.code, answer.out)
        assert "expected a ledger at" in answer.err


# --- ledgers that agree ------------------------------------------------------------------------------------------


def test_two_halves_of_one_trade_make_one_book(ledgers: tuple[Ledger, Ledger]) -> None:
    ingest(ledgers[0], ANN)
    ingest(ledgers[1], BOB)
    found = reconciled(*ledgers)

    assert [] == found["differences"]
    assert [] == found["open_trades"]
    assert [{"asset": "USD", "total": "0"}] == found["sums"]
    assert {"account": "1999", "custody": "-2050", "fees": "1", "fund:insurance": "50"} == {
        row["owner"]: row["total"] for row in found["owners"] if row["total"] != "0"}
    assert [{"fund": "insurance", "asset": "USD", "balance": "50", "by_journal": "50"}] == found["funds"]
    assert [{"instrument": "X-USD", "prices": 5, "accepted": 4, "rejected": 1, "behind": 0,
             "differing": 0}] == found["markets"]


def test_a_ledger_that_has_not_seen_the_last_prices_is_behind_and_does_not_differ(
        ledgers: tuple[Ledger, Ledger]) -> None:
    ingest(ledgers[0], ANN)
    ingest(ledgers[1], [*LISTING, *client("bob"), *PRICES[:2], fill("bob", "sell")])
    found = reconciled(*ledgers)

    assert [] == found["differences"]
    assert [3] == [row["behind"] for row in found["markets"]]


# --- ledgers that do not -----------------------------------------------------------------------------------------

DIFFERING: Final[dict[str, tuple[list[Record], list[tuple[str, str, str]]]]] = {
    "the other side of a trade never came": (
        BOB[:-1], [("trade", "t1 of X-USD", "2 bought and 0 sold")]),
    "the other side is smaller": (
        [*BOB[:-1], fill("bob", "sell", size="1")], [("trade", "t1 of X-USD", "2 bought and 1 sold")]),
    "the other side is of another trade": (
        [*BOB[:-1], fill("bob", "sell", trade="t2")],
        [("trade", "t1 of X-USD", "2 bought and 0 sold"), ("trade", "t2 of X-USD", "0 bought and 2 sold")]),
    "both sides bought": (
        [*BOB[:-1], fill("bob", "buy")], [("trade", "t1 of X-USD", "4 bought and 0 sold")]),
    "a price left out": (
        [record for record in BOB if record != PRICES[1]], [("mark", "sequence 2 of a", "nothing in")]),
    "another price under the same sequence": (
        [price(2, "100.5") if record == PRICES[1] else record for record in BOB],
        [("mark", "sequence 2 of a", "accepted mark 100.5 in")]),
    "a price accepted that the other rejected": (
        [price(3, "101.2") if record == PRICES[2] else record for record in BOB],
        [("mark", "sequence 3 of a", "accepted mark 101.2 in")]),
    "a price that nobody else saw, and not the last that they did": (
        [named_price("q", "101.5") if record == PRICES[4] else record for record in BOB],
        [("mark", "id p of b", "nothing in"), ("mark", "id q of b", "accepted mark 101.5 to the mark 101.75 in")]),
    "prices in another order": (
        # The mark is the median of both sources, so it took another way, too.
        [*BOB[:-3], PRICES[4], PRICES[3], BOB[-1]],
        [("mark", "sequence 4 of a", "accepted mark 102 to the mark 101.75 in"),
         ("mark", "id p of b", "accepted mark 101.5 to the mark 101.25 in"),
         ("mark", "sequence 4 of a", "in another order")]),
    "an instrument that the other does not list": (
        [LISTING[0], *client("bob")],
        [("trade", "t1 of X-USD", "2 bought and 0 sold"), ("instrument", "X-USD", "not listed there")]),
}


@pytest.mark.parametrize("why", DIFFERING)
def test_whatever_differs_is_found_and_named(ledgers: tuple[Ledger, Ledger], why: str) -> None:
    records, expected = DIFFERING[why]
    ingest(ledgers[0], ANN)
    ingest(ledgers[1], records)
    found = reconciled(*ledgers)["differences"]

    assert len(expected) == len(found)
    for (kind, subject, came), row in zip(expected, found, strict=True):
        assert kind == row["kind"]
        assert subject in row["subject"]
        assert came in row["came"]
    # Said the other way round, it is as much that differs.
    assert [kind for kind, _, _ in expected] == [row["kind"] for row in reconciled(*ledgers[::-1])["differences"]]


def tamper(ledger: Ledger, statement: str) -> None:
    if isinstance(ledger, PostgresAddress):
        with psycopg.connect(ledger.dsn, autocommit=True) as connection:
            connection.execute(f"SET search_path = {ledger.read_schema}")
            connection.execute(statement)
    else:
        file = sqlite3.connect(ledger)
        with file:
            file.execute(statement)
        file.close()


TAMPERED: Final[dict[str, tuple[str, list[tuple[str, str, str]]]]] = {
    "a balance": ("UPDATE view_trial_balance SET amount = '1000.49' WHERE owner = 'account'",
                  [("balance", "USD in", "0.99"), ("balance", "USD over all ledgers", "0.99")]),
    "a transfer that never arrived": (
        "INSERT INTO view_trial_balance VALUES ('in-transit', 'USD', '5'), ('fees:x', 'USD', '-5')",
        [("transfer", "USD over all ledgers", "5")]),
    "a fund": ("UPDATE view_funds SET balance = '51'", [("fund", "insurance in USD", "51")]),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_money_that_was_made_up_is_found(ledgers: tuple[Ledger, Ledger], what: str) -> None:
    statement, expected = TAMPERED[what]
    ingest(ledgers[0], ANN)
    ingest(ledgers[1], BOB)
    assert reconciled(*ledgers)["same"]
    tamper(ledgers[0], statement)
    found = reconciled(*ledgers)["differences"]

    assert [kind for kind, _, _ in expected] == [row["kind"] for row in found]
    for (_, subject, came), row in zip(expected, found, strict=True):
        assert subject in row["subject"]
        assert came == row["came"]


def test_three_ledgers_are_held_against_each_other(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.db" for name in ("ann", "bob", "eve")]
    for path, records in zip(paths, (ANN, [*BOB[:-1], fill("bob", "sell", size="1")], [
            *LISTING, *client("eve"), *PRICES[:4], fill("eve", "sell", size="1")]), strict=True):
        ingest(path, records)
    found = reconciled(*paths)

    assert [] == found["differences"]
    assert [1] == [row["behind"] for row in found["markets"]]
    assert ["ann.db", "bob.db", "eve.db"] == [row["shard"] for row in found["ledgers"]]


# --- the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("choose", "expected"), [
    (lambda path: (path,), "expected at least two ledgers"),
    (lambda path: (path, path), "expected each ledger once"),
    (lambda path: (path, "postgresql://host/db?shard=No"), "expected one shard of at most 48"),
], ids=["one", "twice", "a bad shard"])
def test_a_wrong_choice_says_what_was_expected(tmp_path: Path, choose: Callable[[Path], tuple[Ledger | str, ...]],
                                               expected: str) -> None:
    ingest(tmp_path / "ann.db", ANN)
    answer = clearing("reconcile", *choose(tmp_path / "ann.db"))

    assert (2, "") == (answer.code, answer.out)
    assert expected in " ".join(answer.err.replace("│", " ").split())


def test_the_table_says_that_nothing_differs(tmp_path: Path) -> None:
    ingest(tmp_path / "ann.db", ANN)
    ingest(tmp_path / "bob.db", BOB)
    answer = clearing("reconcile", tmp_path / "ann.db", tmp_path / "bob.db")

    assert 0 == answer.code
    assert "Nothing differs." in answer.out


def test_the_demo_keeps_to_files() -> None:
    answer = clearing("demo", "postgresql://host/db?shard=demo")

    assert 2 == answer.code
    assert "the demo keeps its ledger in a file" in answer.err
