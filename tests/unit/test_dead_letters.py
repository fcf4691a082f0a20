"""Dead letters: a rejected record is offered again under a new id that names the old, and never mended in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from infra.dead_letters import DeadLetter, NotReplayable, dead_letters, letter_of, renewed, replay, replay_id
from infra.embedded import LedgerReader, open_ledger
from infra.replay import replay_ledger
from ledger.events import RecordRejected
from tests.unit.ledger_scenario import Scenario, desk
from tests.unit.test_cli import OPENING, clearing, deposit, price, record, write

STRAY: Final = deposit("stray", "00:09", "nobody", "5")


@pytest.mark.parametrize(("old", "new"), [
    ("x", "x#r1"), ("x#r1", "x#r2"), ("x#r9", "x#r10"), ("#r1", "#r2"), ("x#r0", "x#r0#r1"), ("x#r1 ", "x#r1 #r1"),
    ("x#r1\n", "x#r1\n#r1"), ("é😀", "é😀#r1")])
def test_a_replay_counts_on_from_the_id_that_it_replays(old: str, new: str) -> None:
    assert new == replay_id(old)


def letters(scenario: Scenario) -> list[DeadLetter]:
    return [letter for recorded in scenario.log if (letter := letter_of(recorded)) is not None]


def test_a_letter_is_applied_once_what_it_wanted_is_there() -> None:
    scenario = desk()
    scenario.deposit("alice", "USD", "100", id="d", note="kept, though unknown")
    scenario.account("alice")
    (letter,) = letters(scenario)
    outcome = replay(scenario.shard, letter)

    assert "applied" == outcome.kind
    assert ("desk", "d#r1", "d") == (scenario.log[-1].event.cause.source, scenario.log[-1].event.cause.id,
                                     scenario.log[-1].event.cause.replay_of)
    assert "duplicate" == replay(scenario.shard, letter).kind
    assert 100 == scenario.balance("alice")


def test_a_replay_that_is_rejected_is_a_letter_of_its_own() -> None:
    scenario = desk()
    scenario.deposit("alice", "USD", "100", id="d")
    assert "rejected" == replay(scenario.shard, letters(scenario)[0]).kind
    scenario.account("alice")
    second = letters(scenario)[1]

    assert ("d#r1", "d") == (second.rejected.cause.id, json.loads(second.raw)["replay_of"])
    assert "applied" == replay(scenario.shard, second).kind
    assert ("d#r2", "d#r1") == (scenario.log[-1].event.cause.id, scenario.log[-1].event.cause.replay_of)


def test_both_sides_of_a_conflict_can_be_had() -> None:
    scenario = desk()
    scenario.account("alice")
    for amount in ("1", "2", "3"):
        scenario.deposit("alice", "USD", amount, id="d")
    two, three = letters(scenario)

    assert ("applied", "rejected") == (replay(scenario.shard, two).kind, replay(scenario.shard, three).kind)
    assert "applied" == replay(scenario.shard, letters(scenario)[-1]).kind
    assert 6 == scenario.balance("alice")


LONG: Final = "x" * 199
NOT_AS_THEY_ARE: Final[dict[str, tuple[Any, str]]] = {
    "no id": (b"this is no JSON", "came one without"),
    "a key twice, of which one would be lost": (
        b'{"type":"deposit","id":"d","time":"2026-01-05T10:00:00Z","account":"a","account":"b","asset":"USD",'
        b'"amount":"1"}', "malformed: account: expected each key once"),
    "a wrong field": ({"type": "deposit", "id": "d", "time": "2026-01-05T10:00:00Z", "account": "a", "asset": "USD",
                       "amount": 1}, "malformed: amount"),
    "a type of another version": ({"type": "trade", "id": "d", "time": "2026-01-05T10:00:00Z"}, "unknown-type"),
    "more than is kept": ({"type": "deposit", "id": "d", "time": "2026-01-05T10:00:00Z", "account": "nobody",
                           "asset": "USD", "amount": "1", "note": "n" * 5_000}, "only 4096 of its"),
    "a price with a sequence": ({"type": "price", "time": "2026-01-05T10:00:00Z", "instrument": "DOGE-USD",
                                 "price": "1", "source": "feed", "sequence": 1}, "overtaken by newer ones"),
    "an id without room": ({"type": "deposit", "id": LONG, "time": "2026-01-05T10:00:00Z", "account": "nobody",
                            "asset": "USD", "amount": "1"}, "leaves room for #r1"),
}


@pytest.mark.parametrize("why", NOT_AS_THEY_ARE)
def test_what_cannot_be_offered_as_it_is_says_why(why: str) -> None:
    told, expected = NOT_AS_THEY_ARE[why]
    scenario = desk()
    scenario.tell(told)
    (letter,) = letters(scenario)
    with pytest.raises(NotReplayable, match=f"log position {letter.position}: ") as found:
        renewed(letter)

    assert expected in str(found.value)


def test_a_corrected_record_is_offered_in_its_place_if_it_can_be_read() -> None:
    scenario = desk()
    scenario.account("a")
    scenario.tell({"type": "deposit", "id": "d", "time": "2026-01-05T10:00:00Z", "account": "a", "asset": "USD",
                   "amount": 1})
    (letter,) = letters(scenario)
    before = scenario.stands()
    with pytest.raises(NotReplayable, match="malformed: amount"):
        replay(scenario.shard, letter, letter.raw)
    assert before == scenario.stands()

    assert "applied" == replay(scenario.shard, letter, letter.raw.replace(b": 1", b': "1"')).kind
    assert ("d#r1", "d") == (scenario.log[-1].event.cause.id, scenario.log[-1].event.cause.replay_of)


# --- the commands ------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Two letters that want an account, one that cannot be read, a price of nobody's."""
    file = write(tmp_path / "desk.jsonl", [
        *OPENING, STRAY, deposit("other", "00:09", "nobody", "7"), "this is not JSON",
        {**price(1, "00:10", "1"), "instrument": "DOGE-USD"}])
    assert clearing("ingest", file, "--ledger", tmp_path / "desk.db").code == 0
    return tmp_path / "desk.db"


def open_nobody(ledger: Path) -> None:
    file = write(ledger.with_name("more.jsonl"), [record("account", "open", "00:11", account="nobody",
                                                         margin_mode="cross")])
    assert clearing("ingest", file, "--ledger", ledger).code == 0


def test_letters_are_listed_with_what_can_be_done(ledger: Path) -> None:
    rows = clearing("dlq", "list", "--ledger", ledger, "--json").json

    assert [("stray", True), ("other", True), (None, False), (None, False)] == [
        (row["id"], row["replayable"]) for row in rows]
    assert {"unknown-account", "malformed", "unknown-instrument"} == {row["reason"] for row in rows}
    only = clearing("dlq", "list", "--ledger", ledger, "--reason", "malformed", "--csv").rows
    assert ["desk.jsonl"] == [row["source"] for row in only]
    assert [] == clearing("dlq", "list", "--ledger", ledger, "--source", "nobody", "--json").json
    assert "No dead letters." in clearing("dlq", "list", "--ledger", ledger, "--source", "nobody").out


def test_a_letter_is_shown_as_it_came(ledger: Path) -> None:
    stray, *_ = clearing("dlq", "list", "--ledger", ledger, "--json").json
    answer = clearing("dlq", "show", str(stray["log_position"]), "--ledger", ledger)

    assert (0, STRAY) == (answer.code, json.loads(answer.out))
    assert "unknown-account" in answer.err
    assert clearing("dlq", "show", "1", "--ledger", ledger).code == 2
    assert "expected the log position of a rejected record, came 999" in clearing(
        "dlq", "show", "999", "--ledger", ledger).err


def test_letters_are_offered_again(ledger: Path) -> None:
    positions = [str(row["log_position"]) for row in clearing("dlq", "list", "--ledger", ledger, "--json").json]
    early = clearing("dlq", "replay", positions[0], "--ledger", ledger)
    assert (1, True) == (early.code, "as stray#r1: rejected (unknown-account)" in early.out)
    open_nobody(ledger)
    again = clearing("dlq", "replay", positions[1], "--ledger", ledger, "--json").json
    assert [("other#r1", "applied")] == [(row["id"], row["outcome"]) for row in again]
    last = [row["log_position"] for row in clearing("dlq", "list", "--ledger", ledger, "--json").json][-1]
    assert "as stray#r2: applied" in clearing("dlq", "replay", str(last), "--ledger", ledger).out

    assert "12" == clearing("account", "nobody", "--ledger", ledger, "--json").json["balances"][0]["amount"]
    told = clearing("dlq", "list", "--ledger", ledger, "--json").json
    assert ["stray#r1", "other#r1", None, None, "stray#r2"] == [row["replayed_as"] for row in told]
    assert [] == replay_ledger(ledger).differences


def test_all_are_offered_or_none(ledger: Path) -> None:
    open_nobody(ledger)
    with LedgerReader(ledger) as reader:
        end, positions = reader.end(), [letter.position for letter in dead_letters(reader)]
    answer = clearing("dlq", "replay", *map(str, positions), "--ledger", ledger)

    assert (2, "") == (answer.code, answer.out)
    assert "give a corrected one" in answer.err or "came one without" in answer.err
    with LedgerReader(ledger) as reader:
        assert end == reader.end()


def test_a_corrected_record_comes_from_a_file(ledger: Path, tmp_path: Path) -> None:
    open_nobody(ledger)
    stray = clearing("dlq", "list", "--ledger", ledger, "--json").json[0]
    file = write(tmp_path / "corrected.json", [{**STRAY, "amount": "50"}])
    answer = clearing("dlq", "replay", str(stray["log_position"]), "--record", file, "--ledger", ledger)

    assert (0, True) == (answer.code, "as stray#r1: applied" in answer.out)
    with open_ledger(ledger) as shard:
        assert 50 == shard.house.accounts["nobody"].balance("cross", "USD")
    two = clearing("dlq", "replay", "1", "2", "--record", file, "--ledger", ledger)
    assert (2, True) == (two.code, "expected one position" in two.err)


def test_only_rejections_are_letters() -> None:
    scenario = desk()
    scenario.account("alice")
    scenario.withdraw("alice", "USD", "100")

    assert [] == letters(scenario)
    assert not any(isinstance(recorded.event, RecordRejected) for recorded in scenario.log)
