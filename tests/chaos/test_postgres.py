"""Death in the middle of work on PostgreSQL: of the writer, of the server, of the one backend that commits.

As in `test_kill` and `test_sigkill`: whatever was acknowledged must stand in the log, and the same records offered
again from the start must end in the log of an undisturbed run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final

import psycopg
import pytest

from infra.deploy.postgres import NoPostgres, Server, temporary_server
from infra.embedded import open_ledger
from infra.replay import replay_ledger
from infra.shard import Shard
from infra.store.address import PostgresAddress
from infra.store.postgres import PostgresRecorder
from infra.streams.records import read_lines
from infra.venue import SimulatedVenue
from ledger.errors import LedgerLocked
from tests.chaos.test_kill import mixed_records

SEED: Final = 20190924
RECORDS: Final = 1_500
SOURCE: Final = "records"
MOMENTS: Final = ("before", "inserted", "committed")
LOCK_SECONDS_MAX: Final = 30


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    path.write_text("\n".join(mixed_records(SEED)[:RECORDS]) + "\n")
    return path


@pytest.fixture(scope="module")
def undisturbed(records: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The root of a run on SQLite that nothing disturbed."""
    with open_ledger(tmp_path_factory.mktemp("undisturbed") / "ledger.db", venue=SimulatedVenue()) as shard:
        with records.open("rb") as stream:
            list(shard.ingest(read_lines(SOURCE, stream)))
        return shard.root


@contextmanager
def opened(ledger: PostgresAddress) -> Iterator[Shard]:
    """The writer, as soon as the server has noticed that the last one is dead."""
    end = time.monotonic() + LOCK_SECONDS_MAX
    while True:
        try:
            found = open_ledger(ledger, venue=SimulatedVenue())
            shard = found.__enter__()
            break
        except LedgerLocked:
            assert time.monotonic() < end, "the lock of a dead writer is still held"
            time.sleep(0.02)
    try:
        yield shard
    finally:
        found.__exit__(None, None, None)


# --- the life of a child -----------------------------------------------------------------------------------------


def live(records: str, ledger: str, batch_size: int, commits: int, moment: str) -> None:
    """Ingest, say after each commit how far the log is, and die by SIGKILL in the given commit."""
    done = 0
    insert = PostgresRecorder._insert

    def die(now: str) -> None:
        if done == commits and moment == now:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(self: PostgresRecorder, *arguments: Any) -> None:
        nonlocal done
        done += 1
        die("before")
        insert(self, *arguments)
        die("inserted")

    PostgresRecorder._insert = watched  # type: ignore[method-assign, assignment]
    with open_ledger(ledger, venue=SimulatedVenue()) as shard, open(records, "rb") as stream:
        shard.listeners.append(lambda _: die("committed"))
        delivered = read_lines(SOURCE, stream)
        while batch := list(islice(delivered, batch_size)):
            shard.apply(batch)
            print(shard.house.position, flush=True)
    print("end", flush=True)


def child(records: Path, ledger: PostgresAddress, *, batch_size: int, commits: int = -1, moment: str = "never",
          disturb: Callable[[], None] | None = None) -> tuple[int, bool]:
    """The last position that a child acknowledged, and whether it came to the end."""
    with subprocess.Popen([sys.executable, "-m", "tests.chaos.test_postgres", str(records), ledger.url,
                           str(batch_size), str(commits), moment], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, cwd=Path(__file__).parents[2]) as life:
        assert life.stdout is not None
        said = [life.stdout.readline().strip()]
        if disturb is not None:
            disturb()
        rest, faults = life.communicate(timeout=120)
    words = [*said, *rest.split()]
    ended = "end" in words
    assert ended or life.returncode == -signal.SIGKILL or "OperationalError" in faults, faults
    return max((int(word) for word in words if word.isdigit()), default=0), ended


def require(records: Path, ledger: PostgresAddress, undisturbed: bytes) -> None:
    """Offered once more to its end, the log is that of an undisturbed run, and all follows from the facts."""
    with opened(ledger) as shard, records.open("rb") as stream:
        list(shard.ingest(read_lines(SOURCE, stream), batch_size=100))
        assert undisturbed == shard.root
        assert shard.is_balanced()
    assert [] == replay_ledger(ledger).differences


def test_killed_in_a_commit_nothing_is_lost_and_nothing_is_there_twice(records: Path, undisturbed: bytes,
                                                                      shard_address: PostgresAddress) -> None:
    dice = Random(SEED)
    lives = [(moment, size) for size in (1, 60) for moment in MOMENTS]
    dice.shuffle(lives)
    for moment, size in lives:
        with opened(shard_address):
            pass
        durable, ended = child(records, shard_address, batch_size=size, commits=dice.randint(1, 600 // size),
                               moment=moment)
        assert not ended
        with opened(shard_address) as shard:
            assert shard.house.position >= durable
    require(records, shard_address, undisturbed)


def test_killed_at_random_moments_the_log_is_that_of_an_undisturbed_run(records: Path, undisturbed: bytes,
                                                                       shard_address: PostgresAddress) -> None:
    dice, interrupted = Random(SEED), 0
    for _ in range(4):
        with opened(shard_address):
            pass
        with subprocess.Popen([sys.executable, "-m", "tests.chaos.test_postgres", str(records), shard_address.url, "7",
                               "-1", "never"], stdout=subprocess.PIPE, text=True,
                              cwd=Path(__file__).parents[2]) as life:
            assert life.stdout is not None
            said = life.stdout.readline()
            time.sleep(dice.uniform(0, 0.6))
            life.send_signal(signal.SIGKILL)
            words = [said.strip(), *life.stdout.read().split()]
        interrupted += "end" not in words
        with opened(shard_address) as shard:
            assert shard.house.position >= max(int(word) for word in words if word.isdigit())
    assert interrupted > 0
    require(records, shard_address, undisturbed)


# --- the server dies ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this module's own, to be crashed."""
    try:
        found = temporary_server()
        started = found.__enter__()
    except NoPostgres as fault:
        pytest.skip(str(fault))
    try:
        yield started
    finally:
        found.__exit__(None, None, None)


def test_server_that_crashes_stops_the_writer_and_keeps_what_was_acknowledged(records: Path, undisturbed: bytes,
                                                                             server: Server) -> None:
    dice, ledger, interrupted = Random(SEED), PostgresAddress(server.dsn, "crashed"), 0
    for _ in range(4):
        pause = dice.uniform(0, 0.5)

        def crash(pause: float = pause) -> None:
            time.sleep(pause)
            server.stop("immediate")

        durable, ended = child(records, ledger, batch_size=dice.choice([1, 7, 50]), disturb=crash)
        interrupted += not ended
        server.start()
        with opened(ledger) as shard:
            assert shard.house.position >= durable
    assert interrupted > 0
    require(records, ledger, undisturbed)


def test_backend_that_is_killed_takes_its_writer_along_and_nothing_else(records: Path, undisturbed: bytes,
                                                                       server: Server) -> None:
    """SIGKILL of one backend makes the server throw out all others and recover; the writer must not go on unaware."""
    dice, ledger, interrupted = Random(SEED + 1), PostgresAddress(server.dsn, "shot"), 0
    for _ in range(3):
        pause = dice.uniform(0, 0.4)

        def shoot(pause: float = pause) -> None:
            time.sleep(pause)
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                for backend, in connection.execute("SELECT backend FROM shot.ledger_writer").fetchall():
                    try:
                        os.kill(backend, signal.SIGKILL)
                    except ProcessLookupError:
                        continue

        durable, ended = child(records, ledger, batch_size=7, disturb=shoot)
        interrupted += not ended
        wait_for(server)
        with opened(ledger) as shard:
            assert shard.house.position >= durable
    assert interrupted > 0
    require(records, ledger, undisturbed)


def wait_for(server: Server) -> None:
    """Until the server has recovered and takes connections again."""
    end = time.monotonic() + LOCK_SECONDS_MAX
    while True:
        try:
            psycopg.connect(server.dsn).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < end
            time.sleep(0.05)


if __name__ == "__main__":
    live(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
