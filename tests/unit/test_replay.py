"""Replay finds whatever does not follow from the facts: wrong, missing and invented events, and every table."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from infra.embedded import LedgerReader, open_ledger
from infra.replay import FileReport, replay_ledger
from infra.streams.records import read_lines
from infra.venue import SimulatedVenue
from ledger.errors import LedgerUnreadable

DAY = "2019-09-24T"


def record(kind: str, name: str, time: str, /, **fields: str) -> dict[str, str]:
    return {"type": kind, "id": name, "time": f"{DAY}{time}Z", **fields}


# A is called at 18:02 and meets the call, B is called and expires, C is liquidated at once with a loss that the fund
# covers; D is refused a withdrawal; one record is malformed, one a conflict.
RECORDS: list[dict[str, str]] = [
    record("asset", "a1", "18:00:00", asset="USD", quantum="0.01"),
    record("instrument", "i1", "18:00:00", instrument="BTC-USD", base="BTC", quote="USD", contract_type="linear",
           tick_size="0.01", lot_size="0.0001"),
    record("asset", "a2", "18:00:00", asset="BTC", quantum="0.00000001", pricing_instrument="BTC-USD"),
    record("fund-movement", "m1", "18:00:00", fund="insurance", asset="USD", amount="10000", kind="contribution"),
    *(record("account", f"open{name}", "18:00:00", account=name, margin_mode="cross") for name in "ABCD"),
    record("deposit", "d1", "18:00:00", account="A", asset="USD", amount="1000"),
    record("deposit", "d2", "18:00:00", account="B", asset="USD", amount="995"),
    record("deposit", "d3", "18:00:00", account="C", asset="USD", amount="250"),
    record("deposit", "d4", "18:00:00", account="D", asset="BTC", amount="2"),
    record("price", "p1", "18:00:00", instrument="BTC-USD", price="10000", source="x"),
    record("fill", "f1", "18:00:01", account="A", trade_id="t1", instrument="BTC-USD", side="buy", size="1",
           price="10000", fee="5"),
    record("fill", "f2", "18:00:01", account="B", trade_id="t2", instrument="BTC-USD", side="buy", size="1",
           price="10000"),
    record("fill", "f3", "18:00:01", account="C", trade_id="t3", instrument="BTC-USD", side="buy", size="1",
           price="10000"),
    record("fill", "f4", "18:00:01", account="D", trade_id="t1", instrument="BTC-USD", side="sell", size="1",
           price="10000"),
    record("funding", "u1", "18:00:30", instrument="BTC-USD", rate="0.0001"),
    record("price", "p2", "18:01:00", instrument="BTC-USD", price="9115", source="x"),
    record("deposit", "d5", "18:02:00", account="A", asset="USD", amount="500"),
    record("withdrawal", "w1", "18:02:00", account="D", asset="BTC", amount="3"),
    record("deposit", "d1", "18:02:00", account="A", asset="USD", amount="7"),
    record("deposit", "bad", "18:02:00", account="A", asset="USD", amount="-7"),
    record("clock", "c1", "19:01:00"),
    record("price", "p3", "19:01:10", instrument="BTC-USD", price="9100", source="x"),
    record("clock", "c2", "19:30:00"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with calls, expiry, liquidations, takeover by the fund's account, refusal and rejections."""
    path = tmp_path_factory.mktemp("replay") / "ledger.db"
    lines = b"\n".join(json.dumps(row).encode() for row in RECORDS)
    with open_ledger(path, venue=SimulatedVenue()) as shard:
        list(shard.ingest(read_lines("f", io.BytesIO(lines)), batch_size=5))
        assert shard.is_balanced()
    with LedgerReader(path) as reader:
        reader.read_models()
    return path


@pytest.fixture
def ledger(written: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    copy = tmp_path / "ledger.db"
    source = sqlite3.connect(written)
    target = sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()
    return copy


def tamper(path: Path, *statements: str) -> FileReport:
    connection = sqlite3.connect(path)
    for statement in statements:
        assert connection.execute(statement).rowcount > 0, statement
    connection.commit()
    connection.close()
    return replay_ledger(path)


def kinds(report: FileReport) -> set[str]:
    return {difference.kind for difference in report.differences}


def topics(path: Path) -> set[str]:
    with LedgerReader(path) as reader:
        return {topic.partition(".")[2].partition(":")[0] for _, _, _, topic, _ in reader.rows(0, 10_000)}


def test_the_ledger_at_hand_holds_every_kind_of_decision_that_these_records_bring(written: Path) -> None:
    assert {"margin-call-issued", "margin-call-met", "margin-call-expired", "liquidation-started",
            "liquidation-order-placed", "liquidation-completed", "funding-settled", "withdrawal-refused",
            "record-rejected"} <= topics(written)


def test_what_follows_from_the_facts_compares_clean(written: Path) -> None:
    report = replay_ledger(written)

    assert [] == report.differences
    # Rejections answer records too, and the venue's fills and accounts are records of its own.
    assert report.events == report.records + report.decisions


def test_replay_up_to_a_position_looks_no_further(ledger: Path) -> None:
    tamper(ledger, "UPDATE stored_events SET state = replace(state, 'call-expired', 'negative-equity') "
                   "WHERE topic LIKE '%liquidation-started%'")

    assert [] == replay_ledger(ledger, until=15).differences


TAMPERINGS: list[tuple[str, str]] = [
    ("body", "UPDATE stored_events SET state = replace(state, '\"call_level\":\"1.25\"', '\"call_level\":\"1.26\"') "
             "WHERE topic LIKE '%call-issued%'"),
    ("body", "UPDATE stored_events SET state = replace(state, '\"withdrawable\":\"', '\"withdrawable\":\"1') "
             "WHERE topic LIKE '%withdrawal-refused%'"),
    ("unreadable", "UPDATE stored_events SET state = substr(state, 2) WHERE rowid = 9"),
    ("unreadable", "UPDATE stored_events SET topic = 'clearing.unheard-of:1' WHERE rowid = 9"),
    ("inbox", "DELETE FROM inbox WHERE record_key = 'd2'"),
    ("inbox", "UPDATE inbox SET position = position + 1 WHERE record_key = 'd2'"),
    ("inbox", "INSERT INTO inbox VALUES ('f', 'id', 'never-came', 3)"),
    ("leaf", "UPDATE merkle_leaves SET hashes = zeroblob(length(hashes)) WHERE first_position > 5"),
    ("head", "UPDATE ledger_head SET root = zeroblob(32)"),
    ("head", "UPDATE ledger_head SET log_time = log_time + 1"),
    ("source position", "UPDATE stream_position SET next_offset = 2"),
    ("table view_balances", "UPDATE view_balances SET amount = '1' WHERE account = 'A' AND asset = 'USD'"),
    ("table view_margin_calls", "DELETE FROM view_margin_calls"),
]


@pytest.mark.parametrize(("kind", "statement"), TAMPERINGS, ids=[f"{k}: {s[:60]}" for k, s in TAMPERINGS])
def test_whatever_is_altered_is_found(kind: str, statement: str, ledger: Path) -> None:
    assert kind in kinds(tamper(ledger, statement))


def renumber(path: Path, position: int) -> None:
    """Take one event out of the log and close the gap in positions and versions, as a careful forger would."""
    connection = sqlite3.connect(path)
    stream, version = connection.execute(
        "SELECT originator_id, originator_version FROM stored_events WHERE rowid = ?", (position,)).fetchone()
    connection.execute("DELETE FROM stored_events WHERE rowid = ?", (position,))
    connection.execute("UPDATE stored_events SET originator_version = originator_version - 1 WHERE originator_id = ? "
                       "AND originator_version > ?", (stream, version))
    last = connection.execute("SELECT MAX(rowid) FROM stored_events").fetchone()[0]
    for later in range(position + 1, last + 1):
        connection.execute("UPDATE stored_events SET rowid = ? WHERE rowid = ?", (later - 1, later))
    connection.commit()
    connection.close()


def position_of(path: Path, topic: str) -> int:
    with LedgerReader(path) as reader:
        return next(row[0] for row in reader.rows(0, 10_000) if topic in row[3])


@pytest.mark.parametrize("topic", ["margin-call-issued", "margin-call-met", "liquidation-completed", "funding-settled"])
def test_a_missing_decision_is_found_as_surely_as_a_wrong_one(topic: str, ledger: Path) -> None:
    position = position_of(ledger, topic)
    renumber(ledger, position)

    report = replay_ledger(ledger)

    assert ("missing", position) in {(found.kind, found.position) for found in report.differences}


def test_an_invented_decision_is_found(ledger: Path) -> None:
    report = tamper(ledger, """
        INSERT INTO stored_events (rowid, originator_id, originator_version, topic, state)
        SELECT (SELECT MAX(rowid) + 1 FROM stored_events), 'account:D',
               (SELECT MAX(originator_version) + 1 FROM stored_events WHERE originator_id = 'account:D'),
               topic, replace(state, '"account":"A"', '"account":"D"')
        FROM stored_events WHERE topic LIKE '%call-met%' LIMIT 1""")

    assert {"unexpected", "record"} & kinds(report)


def test_corrupting_one_byte_of_any_row_changes_the_root_and_is_found(written: Path, tmp_path: Path) -> None:
    clean = replay_ledger(written)
    for position in range(1, clean.events + 1, 5):
        copy = tmp_path / f"{position}.db"
        shutil.copy(written, copy)
        report = tamper(copy, f"UPDATE stored_events SET state = CAST(substr(state, 1, 20) || 'Z' || substr(state, 22) "
                              f"AS BLOB) WHERE rowid = {position}")

        assert clean.root != report.root
        assert report.differences


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be read as one " * 20)

    with pytest.raises(LedgerUnreadable, match=r"notes\.txt"):
        replay_ledger(path)


def test_opening_refuses_a_log_that_does_not_match_its_root(ledger: Path) -> None:
    tamper(ledger, "UPDATE stored_events SET state = CAST(replace(state, '\"amount\":\"1000\"', '\"amount\":\"9000\"') "
                   "AS BLOB) WHERE topic LIKE '%deposited%'")

    with pytest.raises(LedgerUnreadable, match="root"), open_ledger(ledger):
        pass
