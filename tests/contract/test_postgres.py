"""What a ledger in PostgreSQL promises beyond the contract of all stores: its lock, its rows, what is refused at open.

The counterpart of the second part of `test_stores`, which is about files.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import psycopg
import pytest
from eventsourcing.persistence import IntegrityError, OperationalError, PersistenceError, ProcessRecorder, StoredEvent
from eventsourcing.postgres import PostgresDatastore, PostgresProcessRecorder
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from infra.cli import app
from infra.embedded import LedgerReader, in_memory, open_ledger, open_reader
from infra.replay import replay_ledger
from infra.served import open_shard
from infra.shard import Shard
from infra.store.address import BadAddress, PostgresAddress, ledger_address
from infra.store.commit import Commit, Head
from infra.store.postgres import PostgresRecorder
from infra.store.postgres_reading import PostgresConnection, in_postgres
from infra.venue import SimulatedVenue
from ledger.errors import LedgerLocked, LedgerUnreadable
from projections.read_model import ALL, ReadModels
from tests.chaos.test_kill import mixed_records
from tests.contract.test_stores import BUSY, flipped, require_stock_reads
from tests.property.records_strategy import delivered, lines_of
from tests.shards import new_shard

# --- addresses ---------------------------------------------------------------------------------------------------

ADDRESSES: Final = {
    "postgresql://host/db": ("postgresql://host/db", "ledger"),
    "postgresql://u:p@host:5/db?shard=desk_1": ("postgresql://u:p@host:5/db", "desk_1"),
    "postgres://@/db?host=/run/pg&shard=desk": ("postgres://@/db?host=/run/pg", "desk"),
    "postgresql:///db?shard=a&sslmode=require": ("postgresql:///db?sslmode=require", "a"),
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_address_is_that_of_the_server_and_a_shard(text: str) -> None:
    dsn, shard = ADDRESSES[text]

    assert PostgresAddress(dsn, shard) == ledger_address(text) == ledger_address(PostgresAddress(dsn, shard).url)


@pytest.mark.parametrize("text", ["desk.db", "/a/b", "postgres.db", "postgresql", "postgresql:desk", "C://x"])
def test_everything_else_is_a_path(text: str) -> None:
    assert Path(text) == ledger_address(text)


@pytest.mark.parametrize("shard", ["", "Desk", "a-b", "pg_desk", "a b", "1a", "a" * 49, "a%00", "a&shard=b", "é"])
def test_bad_shard_is_refused_with_what_was_expected(shard: str) -> None:
    with pytest.raises(BadAddress, match="expected one shard of at most 48 lower-case letters"):
        ledger_address(f"postgresql://host/db?shard={shard}")


def test_address_is_shown_without_its_password() -> None:
    for text in ("postgresql://u:secret@host/db?shard=desk", "postgresql://u@host/db?password=secret&shard=desk"):
        address = ledger_address(text)
        assert isinstance(address, PostgresAddress)
        assert "postgresql://u@host/db?shard=desk" == str(address)
        assert "secret" not in repr(address)
        assert address == ledger_address(address.url)


# --- a ledger ----------------------------------------------------------------------------------------------------


def fill(address: PostgresAddress) -> tuple[int, bytes]:
    """A small ledger with a bit of everything; (events, root)."""
    with open_ledger(address, venue=SimulatedVenue()) as shard:
        list(shard.ingest(delivered(lines_of(BUSY)), batch_size=5))
        return shard.house.position, shard.root


@pytest.fixture
def ledger(shard_address: PostgresAddress) -> PostgresAddress:
    fill(shard_address)
    return shard_address


def change(address: PostgresAddress, statement: str, *values: object) -> None:
    with psycopg.connect(address.dsn, autocommit=True) as connection:
        connection.execute(f"SET search_path = {address.shard}")
        connection.execute(statement, values)


def ask(address: PostgresAddress, statement: str) -> Any:
    with psycopg.connect(address.dsn, autocommit=True) as connection:
        connection.execute(f"SET search_path = {address.shard}")
        row = connection.execute(statement).fetchone()
        return row and row[0]


def recorder(shard: Shard) -> PostgresRecorder:
    assert isinstance(shard.store, PostgresRecorder)
    return shard.store


def rows_in(where: Path | PostgresAddress) -> list[tuple[int, str, int, str, bytes]]:
    with open_reader(where) as reader:
        return reader.rows(0, 10_000)


def test_log_is_that_of_the_other_stores(ledger: PostgresAddress, tmp_path: Path) -> None:
    memory = in_memory(venue=SimulatedVenue())
    list(memory.ingest(delivered(lines_of(BUSY)), batch_size=1_000))
    with open_ledger(tmp_path / "ledger.db", venue=SimulatedVenue()) as file:
        list(file.ingest(delivered(lines_of(BUSY)), batch_size=3))
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        assert memory.root == file.root == shard.root
        assert list(memory.store.inbox()) == list(shard.store.inbox())
        assert memory.store.leaves() == shard.store.leaves()
        assert memory.store.source_positions() == shard.store.source_positions()
        assert memory.store.head() == shard.store.head()
    assert rows_in(tmp_path / "ledger.db") == rows_in(ledger)


def test_large_batches_are_decided_while_others_are_committed(shard_address: PostgresAddress) -> None:
    # Each batch twice, so that the second time asks for keys of what is being committed.
    lines = [line.encode() for line in mixed_records(5)]
    records = [line for start in range(0, len(lines), 500) for line in lines[start:start + 500] * 2]
    memory = in_memory(venue=SimulatedVenue())
    list(memory.ingest(delivered(records), batch_size=len(records)))
    with open_ledger(shard_address, venue=SimulatedVenue()) as shard:
        outcomes = list(shard.ingest(delivered(records), batch_size=500))

        assert memory.root == shard.root
        assert memory.house.position == shard.frontier.size == shard.house.position
        assert 1_000 < sum(outcome.kind == "duplicate" for outcome in outcomes)


def stock_recorder(address: PostgresAddress) -> tuple[PostgresDatastore, ProcessRecorder]:
    """The library's own, as somebody else would open it."""
    parts = {**{"dbname": "", "host": "", "port": "", "user": "", "password": ""}, **conninfo_to_dict(address.dsn)}
    datastore = PostgresDatastore(**{name: str(parts[name]) for name in (  # type: ignore[arg-type]
        "dbname", "host", "port", "user", "password")}, schema=address.shard, originator_id_type="text")
    return datastore, PostgresProcessRecorder(datastore, events_table_name="stored_events",
                                              tracking_table_name="tracking")


def test_stock_recorder_reads_every_row_unaltered(ledger: PostgresAddress) -> None:
    datastore, stock = stock_recorder(ledger)
    try:
        require_stock_reads(stock, rows_in(ledger))
    finally:
        datastore.close()


def test_positions_stay_without_gaps_whatever_is_rolled_back(ledger: PostgresAddress) -> None:
    with open_ledger(ledger, venue=SimulatedVenue()) as shard:
        end = shard.house.position
        _, taken, version, topic, _ = rows_in(ledger)[-1]
        for _ in range(3):
            with pytest.raises(IntegrityError):
                shard.store.insert_events([StoredEvent(taken, version, topic, b"{}")], commit=Commit(
                    end, Head(end + 1, 0, b"", b""), b"", [], []))
        more = [line.replace(b'"id":"', b'"id":"again ') for line in lines_of(BUSY)]
        list(shard.ingest(delivered(more, source="another"), batch_size=4))

        assert list(range(1, shard.house.position + 1)) == [row[0] for row in rows_in(ledger)]
        assert shard.house.position > end


def test_commits_reach_the_disk_before_they_are_acknowledged(shard_address: PostgresAddress) -> None:
    name = psycopg.conninfo.conninfo_to_dict(shard_address.dsn).get("dbname", "postgres")
    change(shard_address, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    try:
        with open_ledger(shard_address) as shard:
            assert ("on",) == recorder(shard)._writer().execute("SHOW synchronous_commit").fetchone()
    finally:
        change(shard_address, f'ALTER DATABASE "{name}" RESET synchronous_commit')


@pytest.mark.parametrize("megabytes", [3, 40])
def test_a_batch_beyond_any_socket_buffer_is_committed(shard_address: PostgresAddress, megabytes: int) -> None:
    """The library's own insertion waits for ever here, from 1.2 MB a batch on a Unix socket."""
    count = megabytes * 50
    with open_ledger(shard_address) as shard:
        done: list[object] = []

        def insert() -> None:
            done.append(shard.store.insert_events(
                [StoredEvent("big", number, "clearing.clock-moved:1", b"x" * 20_000) for number in range(1, count + 1)],
                commit=Commit(0, Head(count, 0, b"", b""), b"l" * 32 * count,
                              [(("s", "id", f"{number}" * 40), number) for number in range(1, count + 1)], [])))

        writer = threading.Thread(target=insert, daemon=True)
        writer.start()
        writer.join(120)

        assert [range(1, count + 1)] == done


def test_subscriber_is_woken_by_a_commit_of_its_own_shard(postgres: str, shard_address: PostgresAddress) -> None:
    with new_shard(postgres) as other, open_ledger(other) as unheard, open_ledger(shard_address) as shard:
        with recorder(shard).subscribe(gt=0) as subscription:
            list(unheard.ingest(delivered(lines_of(BUSY)[:2])))
            list(shard.ingest(delivered(lines_of(BUSY)[:3])))
            heard = [next(subscription).id for _ in range(shard.house.position)]

        assert list(range(1, shard.house.position + 1)) == heard
        assert recorder(shard).channel_name != recorder(unheard).channel_name


# --- one writer --------------------------------------------------------------------------------------------------

CHILD: Final = """
import sys, time
from infra.embedded import open_ledger
with open_ledger(sys.argv[1]) as shard:
    print("open", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(ledger: PostgresAddress) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the shard."""
    with subprocess.Popen([sys.executable, "-c", CHILD, ledger.url], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert "open\n" == child.stdout.readline()
        yield child
        child.send_signal(signal.SIGCONT)
        child.kill()


def test_second_writer_is_refused_with_the_name_of_the_first(ledger: PostgresAddress,
                                                             holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LedgerLocked, match=f"process {holder.pid} on .+ since 2"), open_ledger(ledger):
        pass


def test_lock_goes_with_the_process_however_it_dies(ledger: PostgresAddress, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    for _ in range(200):
        try:
            with open_ledger(ledger) as shard:
                assert shard.house.position == len(rows_in(ledger))
            return
        except LedgerLocked:
            signal.sigtimedwait([], 0.05)
    pytest.fail("the server still holds the lock of a process that is dead")


def test_lock_of_one_shard_is_none_of_another(postgres: str, ledger: PostgresAddress) -> None:
    with new_shard(postgres) as other, open_ledger(ledger), open_ledger(other) as shard:
        assert f"process {os.getpid()} on {os.uname().nodename}" in (recorder(shard).owner() or "")
    with open_reader(ledger):
        pass


def test_frozen_writer_that_is_replaced_can_do_no_more_harm(ledger: PostgresAddress) -> None:
    """The successor ends the connection; whatever the frozen one does when it wakes fails."""
    lines = lines_of(BUSY)
    with open_ledger(ledger, venue=SimulatedVenue()) as frozen:
        end = frozen.house.position
        with open_shard(ledger, venue=SimulatedVenue(), takes_over=True) as successor:
            with pytest.raises(PersistenceError):
                list(frozen.ingest(delivered(lines[:1], source="frozen")))
            with pytest.raises(OperationalError, match="is lost, and the shard with it"):
                recorder(frozen).put_settings({"format": "9"})
            list(successor.ingest(delivered(lines[:1], source="successor")))

            assert successor.house.position > end
            assert not [key for key, _ in successor.store.inbox() if key[0] == "frozen"]


def test_process_that_is_frozen_is_replaced_and_wakes_to_an_error(ledger: PostgresAddress,
                                                                  holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(LedgerLocked, match=f"process {holder.pid} on"), open_ledger(ledger):
        pass
    with open_shard(ledger, venue=SimulatedVenue(), takes_over=True) as successor:
        list(successor.ingest(delivered(lines_of(BUSY)[:1], source="successor")))
        holder.send_signal(signal.SIGCONT)
        with pytest.raises(LedgerLocked, match=f"process {os.getpid()} on"), open_ledger(ledger):
            pass

        assert successor.house.position == len(rows_in(ledger))


def test_a_writer_whose_lock_is_lost_never_takes_another_connection(ledger: PostgresAddress) -> None:
    with open_ledger(ledger) as shard:
        writer = recorder(shard)._writer().info.backend_pid
        change(ledger, f"SELECT pg_terminate_backend({writer})")
        for _ in range(2):
            with pytest.raises(OperationalError):
                recorder(shard).put_settings({"format": "9"})
        # Reading goes on: it needs no lock.
        assert {"format": "1", "default_rulebook": "house:1"} == dict(shard.store.settings())


def test_a_writer_that_slipped_past_the_lock_cannot_commit(ledger: PostgresAddress) -> None:
    with open_ledger(ledger) as shard:
        recorder(shard)._writer().execute("SELECT pg_advisory_unlock_all()")
        with open_ledger(ledger) as other:
            list(other.ingest(delivered(lines_of(BUSY)[:1], source="another")))
        before = rows_in(ledger)
        with pytest.raises(IntegrityError, match="expected the log to end at"):
            list(shard.ingest(delivered(lines_of(BUSY)[:1], source="a third")))

        assert before == rows_in(ledger)


def test_lock_that_somebody_else_holds_stops_the_writer_in_words(ledger: PostgresAddress) -> None:
    with open_ledger(ledger) as shard, psycopg.connect(ledger.dsn) as rude:
        recorder(shard)._writer().execute("SET lock_timeout = '100ms'")
        rude.execute(f"LOCK TABLE {ledger.shard}.stored_events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(OperationalError, match="lock timeout"):
            list(shard.ingest(delivered(lines_of(BUSY)[:1], source="another")))
        rude.rollback()
    with open_ledger(ledger) as shard:
        assert [] == [key for key, _ in shard.store.inbox() if key[0] == "another"]


def test_every_session_of_the_writer_has_a_lock_timeout(ledger: PostgresAddress) -> None:
    with open_ledger(ledger) as shard:
        assert ("10s",) == recorder(shard)._writer().execute("SHOW lock_timeout").fetchone()


def test_processes_that_make_the_same_shard_at_once_agree(shard_address: PostgresAddress) -> None:
    faults: list[Exception] = []
    opened: list[int] = []

    def open_it() -> None:
        try:
            with open_ledger(shard_address) as shard:
                opened.append(shard.house.position)
        except LedgerLocked:
            pass
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == faults
    assert opened
    assert {0} == set(opened)


# --- what is refused at open -------------------------------------------------------------------------------------


def test_schema_of_somebody_else_is_refused_and_left_as_it_is(shard_address: PostgresAddress) -> None:
    with psycopg.connect(shard_address.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {shard_address.shard}")
        connection.execute(f"CREATE TABLE {shard_address.shard}.invoices (n int)")
    with pytest.raises(LedgerUnreadable, match="expected a ledger or nothing, came the tables invoices"), (
            open_ledger(shard_address)):
        pass
    with pytest.raises(LedgerUnreadable, match="there is none"), open_reader(shard_address):
        pass
    assert 1 == ask(shard_address, "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = "
                                   f"'{shard_address.shard}'::regnamespace")


def test_server_that_does_not_answer_is_a_failing_store() -> None:
    address = PostgresAddress("postgresql://nobody@/none?host=/nowhere")
    with pytest.raises(OperationalError, match="/nowhere"), open_ledger(address):
        pass
    with pytest.raises(OperationalError, match="/nowhere"), open_reader(address):
        pass


def test_newer_format_is_refused(ledger: PostgresAddress) -> None:
    change(ledger, "UPDATE ledger_settings SET value = '2' WHERE name = 'format'")
    with pytest.raises(LedgerUnreadable, match="expected a ledger of format 1, came format '2'; a newer version"), (
            open_ledger(ledger)):
        pass


TAMPERED: Final[dict[str, str]] = {
    "last row gone": "DELETE FROM stored_events WHERE notification_id = (SELECT MAX(notification_id) "
                     "FROM stored_events)",
    "a row gone": "DELETE FROM stored_events WHERE notification_id = 5",
    "all rows gone": "DELETE FROM stored_events",
    "a row more": "INSERT INTO stored_events SELECT originator_id, 1000, topic, state, notification_id + 1000 "
                  "FROM stored_events WHERE notification_id = 5",
    "state empty": "UPDATE stored_events SET state = '' WHERE notification_id = 5",
    "unknown topic": "UPDATE stored_events SET topic = 'clearing.alien-landed:1' WHERE notification_id = 7",
    "stream of another": "UPDATE stored_events SET originator_id = 'clock', originator_version = 999 "
                         "WHERE notification_id = 5",
    "root": "UPDATE ledger_head SET root = repeat('x', 32)::bytea",
    "position": "UPDATE ledger_head SET position = position + 1",
    "log time": "UPDATE ledger_head SET log_time = log_time + 1",
    "frontier": "UPDATE ledger_head SET frontier = repeat('x', 8)::bytea",
    "no head": "DELETE FROM ledger_head",
}


@pytest.mark.parametrize("what", TAMPERED)
def test_whatever_was_changed_is_noticed_at_open(ledger: PostgresAddress, what: str) -> None:
    change(ledger, TAMPERED[what])
    with pytest.raises(LedgerUnreadable), open_ledger(ledger):
        pass


@pytest.mark.parametrize("column", ["topic", "state", "originator_id"])
def test_row_without_one_of_its_parts_is_refused_by_the_server(ledger: PostgresAddress, column: str) -> None:
    with pytest.raises(psycopg.errors.NotNullViolation):
        change(ledger, f"UPDATE stored_events SET {column} = NULL WHERE notification_id = 5")


@pytest.mark.parametrize("seed", range(6))
def test_one_changed_byte_of_any_row_is_noticed(ledger: PostgresAddress, seed: int) -> None:
    dice = Random(seed)
    position, _, _, _, state = dice.choice(rows_in(ledger))
    change(ledger, "UPDATE stored_events SET state = %s WHERE notification_id = %s",
           flipped(state, dice.randrange(len(state)), dice.randrange(7)), position)
    with pytest.raises(LedgerUnreadable), open_ledger(ledger):
        pass
    assert replay_ledger(ledger).differences


# --- reading -----------------------------------------------------------------------------------------------------


def views(reader: LedgerReader) -> dict[str, list[tuple[Any, ...]]]:
    models = ReadModels(reader.read_models())
    return {table.name: models.rows(table.name) for model in ALL for table in model.SHAPES}


def test_read_models_are_those_of_a_file(ledger: PostgresAddress, tmp_path: Path) -> None:
    with open_ledger(tmp_path / "ledger.db", venue=SimulatedVenue()) as shard:
        list(shard.ingest(delivered(lines_of(BUSY)), batch_size=5))
    with open_reader(tmp_path / "ledger.db") as file, open_reader(ledger) as server:
        expected = views(file)
        assert expected == views(server)
        assert all(expected[name] for name in ("view_accounts", "view_journal", "view_records", "view_pools"))


def test_read_models_follow_a_writer_and_replay_compares_them(ledger: PostgresAddress) -> None:
    with open_reader(ledger) as reader:
        before = views(reader)
        more = [line.replace(b'"id":"', b'"id":"again ') for line in lines_of(BUSY)]
        with open_ledger(ledger, venue=SimulatedVenue()) as shard:
            list(shard.ingest(delivered(more, source="another")))
        assert before != views(reader)
    assert [] == replay_ledger(ledger).differences
    change(ledger, f"UPDATE {ledger.read_schema}.view_trial_balance SET amount = '1' WHERE owner = 'custody'")
    assert {"table view_trial_balance"} == {row.kind for row in replay_ledger(ledger).differences}


def test_read_models_are_in_a_schema_of_their_own_that_may_be_dropped(ledger: PostgresAddress) -> None:
    with open_reader(ledger) as reader:
        before = views(reader)
    change(ledger, f"DROP SCHEMA {ledger.read_schema} CASCADE")
    with open_reader(ledger) as reader:
        assert before == views(reader)
    assert 0 == ask(ledger, "SELECT count(*) FROM pg_class WHERE relname LIKE 'view_%' AND relnamespace = "
                            f"'{ledger.shard}'::regnamespace")


def test_whoever_may_only_read_gets_the_same_answers(ledger: PostgresAddress) -> None:
    with open_reader(ledger) as reader:
        expected = views(reader)
    read_only = PostgresAddress(f"{ledger.dsn}{'&' if '?' in ledger.dsn else '?'}"
                                "options=-c%20default_transaction_read_only%3Don", ledger.shard)
    with open_reader(read_only) as reader:
        assert expected == views(reader)


def test_reader_sees_one_moment_within_a_snapshot(ledger: PostgresAddress) -> None:
    with open_reader(ledger) as reader, reader.snapshot():
        end = reader.end()
        with open_ledger(ledger) as shard:
            list(shard.ingest(delivered(lines_of(BUSY)[:1], source="another")))
        assert end == reader.end()


# --- the command line --------------------------------------------------------------------------------------------

COMMANDS: Final = ("accounts", "calls", "journal", "markets", "funds", "events", "account ann", "statement ann",
                   "record records.jsonl r5", "accounts --at-position 9", "journal --from 2019-09-24T18:00:00Z",
                   "account nobody", "record records.jsonl nothing")


def clearing(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, words)
    return result.exit_code, result.stdout, result.stderr


def test_commands_answer_as_on_a_file(shard_address: PostgresAddress, tmp_path: Path) -> None:
    records, file = tmp_path / "records.jsonl", str(tmp_path / "ledger.db")
    records.write_bytes(b"\n".join(line.replace(b"\n", b" ") for line in lines_of(BUSY)) + b"\n")
    summaries = []
    for ledger in (file, shard_address.url):
        code, out, _ = clearing("ingest", str(records), "--ledger", ledger, "--venue", "simulated", "--json")
        summaries.append({**json.loads(out), "seconds": None})

        assert 0 == code
    assert summaries[0] == summaries[1]
    for command in COMMANDS:
        for how in ("--json", ""):
            words = [*command.split(), *filter(None, [how])]

            assert clearing(*words, "--ledger", file) == clearing(*words, "--ledger", shard_address.url), words
    answers = [{**json.loads(clearing("replay", "--ledger", ledger, "--json")[1]), "seconds": None}
               for ledger in (file, shard_address.url)]
    assert answers[0] == answers[1]
    assert [] == answers[0]["differences"]


def test_there_is_no_shard_yet(shard_address: PostgresAddress) -> None:
    code, out, err = clearing("accounts", "--ledger", shard_address.url)

    assert (2, "") == (code, out)
    assert f"expected a ledger at {shard_address}, there is none; `clearing ingest FILE --ledger '" in err


@pytest.mark.parametrize("command", [["accounts"], ["ingest", "-"], ["replay"]], ids=lambda words: words[0])
def test_a_server_that_is_away_is_said_so_without_its_password(command: list[str]) -> None:
    code, _, err = clearing(*command, "--ledger", "postgresql://u:secret@/none?host=/nowhere&shard=desk")

    assert 1 == code
    assert "Error: the store failed: connection" in err
    assert "or that the server answers" in err
    assert "secret" not in err


STATEMENTS: Final[Sequence[tuple[str, str]]] = [
    ("SELECT '100%' WHERE a = ?", "SELECT '100%%' WHERE a = %s"),
    ('CREATE TABLE IF NOT EXISTS v ("a" TEXT NOT NULL, PRIMARY KEY ("a")) WITHOUT ROWID',
     'CREATE TABLE IF NOT EXISTS v ("a" TEXT COLLATE "C" NOT NULL, PRIMARY KEY ("a"))'),
]


@pytest.mark.parametrize(("ours", "theirs"), STATEMENTS)
def test_statement_is_put_into_the_words_of_postgresql(ours: str, theirs: str) -> None:
    assert theirs == in_postgres(ours)


def test_rows_of_any_size_are_changed_without_waiting_for_ever(ledger: PostgresAddress) -> None:
    connection = PostgresConnection(ledger)
    cursor = connection.cursor()
    cursor.execute('CREATE TABLE wide ("n" BIGINT NOT NULL, "text" TEXT, "flag" BIGINT)')
    cursor.executemany('INSERT INTO wide ("n", "text", "flag") VALUES (?, ?, ?)',
                       [(number, None, number % 2 == 0) for number in range(3_000)])
    texts = [("é%?\t\n\\N" * (300_000 if number == 7 else 40), number) for number in range(3_000)]
    worker = threading.Thread(target=lambda: cursor.executemany('UPDATE wide SET "text" = ? WHERE "n" = ?', texts),
                              daemon=True)
    worker.start()
    worker.join(120)

    assert not worker.is_alive()
    assert texts == cursor.execute('SELECT "text", "n" FROM wide ORDER BY "n"').fetchall()
    assert [(1_500,)] == cursor.execute('SELECT COUNT(*) FROM wide WHERE "flag" = ?', (True,)).fetchall()
    connection.close()
