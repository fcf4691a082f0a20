"""The server that tests and `make postgres` start: it is real, outlives a crash, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest

from infra.deploy import postgres as deploy
from infra.deploy.postgres import NoPostgres, Server, a_server, temporary_server

GONE_SECONDS_MAX: Final = 30


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    try:
        found = temporary_server()
        opened = found.__enter__()
    except NoPostgres as fault:
        pytest.skip(str(fault))
    try:
        yield opened
    finally:
        found.__exit__(None, None, None)


def asked(dsn: str, question: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(question).fetchone()
        return row and row[0]


def test_server_speaks_utf8_and_sorts_by_bytes(server: Server) -> None:
    assert "UTF8" == asked(server.dsn, "SHOW server_encoding")
    assert "on" == asked(server.dsn, "SHOW fsync")
    assert asked(server.dsn, "SELECT 'B' < 'a' COLLATE \"default\"")


def test_committed_rows_outlive_a_crash_and_uncommitted_ones_do_not(server: Server) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO kept VALUES (2)")
        server.stop("immediate")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    server.start()

    assert 1 == asked(server.dsn, "SELECT sum(n) FROM kept")


def test_server_that_is_named_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://elsewhere/x")
    with a_server() as dsn:
        assert "postgresql://elsewhere/x" == dsn


def test_what_was_looked_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploy, "INSTALLED", ())
    monkeypatch.setattr(deploy, "WHEEL", "no_such_wheel")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoPostgres, match=r"expected POSTGRES_DSN, .+ came none"):
        deploy.find_programs()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_server_goes_with_whoever_started_it_and_takes_its_folder_along(server: Server, how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-m", "infra.deploy.postgres"], text=True,
                          stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        lines = [started.stdout.readline() for _ in range(2)]
        folder = Path(lines[1].partition("host=")[2].strip().strip("'"))
        assert (folder / "cluster" / "postmaster.pid").exists()
        server_id = int((folder / "cluster" / "postmaster.pid").read_text().split()[0])
        started.send_signal(how)
        started.stdout.read()
    end = time.monotonic() + GONE_SECONDS_MAX
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)

    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(server_id, 0)
