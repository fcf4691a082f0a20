"""`clearing topics`, `worker` and `relay`: the ledger as a streaming service over Kafka.

Addresses come from options or from KAFKA_BOOTSTRAP_SERVERS. A ledger is named once for all shards, with `{shard}` where
the number of the shard stands. This file reads the command line, starts and stops; it moves no record itself.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Annotated, Any, Final

import typer

from infra.cli_console import REFUSED, AsJson, CommandFault, Output, Part, print_json, remark, show, stdout_console
from infra.embedded import LedgerReader, open_ledger, open_reader
from infra.shard import Shard
from infra.store.address import BadAddress, PostgresAddress, ledger_address
from infra.streams.parts import HOUSE, ShardId
from ledger.errors import LedgerUnreadable

SHARD: Final = "{shard}"
# Intake, relay and the clients' own threads share an interpreter. A transaction hands over ten times, and each time
# waits this long for whoever computes; by default 5 ms.
SWITCH_SECONDS: Final = 0.0005
LEDGER_SECONDS_MAX: Final = 60.0

Bootstrap = Annotated[str, typer.Option(
    "--bootstrap", envvar="KAFKA_BOOTSTRAP_SERVERS", metavar="HOST:PORT,...", help="The Kafka cluster.")]
Prefix = Annotated[str, typer.Option("--prefix", metavar="TEXT", help="What all topics' names begin with.")]
ShardLedgers = Annotated[str, typer.Option(
    "--ledger", metavar="LEDGER", help="A file or postgresql://...?shard=NAME, with {shard} for the shard's number.",
    show_default=False)]
_SERVERS: Final = "localhost:9092"

topics_app = typer.Typer(no_args_is_help=True, help="The topics of the streaming service: make them, list them.",
                         context_settings={"help_option_names": ["-h", "--help"]})


@contextmanager
def _admin(bootstrap: str) -> Iterator[Any]:
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=10_000)
    except (KafkaError, OSError) as fault:
        raise CommandFault(f"expected a Kafka cluster at {bootstrap}, came: {fault!r}; `make kafka` runs one") from None
    try:
        yield admin
    finally:
        admin.close()


@topics_app.command("ensure")
def ensure_topics(
        partitions: Annotated[int, typer.Option("--partitions", metavar="N", min=1, help="Account shards.")],
        replication: Annotated[int, typer.Option("--replication", metavar="N", min=1, help="Replicas of each.")] = 1,
        bootstrap: Bootstrap = _SERVERS, prefix: Prefix = "clearing.") -> None:
    """Make the topics that are missing, and say which.

    \b
    Example: clearing topics ensure --partitions 4
    """
    from infra.streams.topics import TopicDiffers, ensure

    with _admin(bootstrap) as admin:
        try:
            made = ensure(admin, prefix, partitions, replication=replication)
        except TopicDiffers as fault:
            raise CommandFault(str(fault)) from None
    for name in made:
        stdout_console().print(f"made {name}")
    if not made:
        stdout_console().print("all topics are there")


@topics_app.command("list")
def list_topics(bootstrap: Bootstrap = _SERVERS, prefix: Prefix = "clearing.") -> None:
    """The service's topics as one JSON object: name -> partitions and id, null where it is missing.

    \b
    Example: clearing topics list
    """
    from infra.streams.topics import ACCOUNTS, describe, topics

    with _admin(bootstrap) as admin:
        found = {row["name"]: {"partitions": len(row["partitions"]), "topic_id": row["topic_id"]}
                 for row in describe(admin, [topic.name for topic in topics(prefix, 2)])}
    shards = found.get(prefix + ACCOUNTS, {"partitions": 1})["partitions"]
    print_json({topic.name: found.get(topic.name) for topic in topics(prefix, shards)})


# --- worker and relay --------------------------------------------------------------------------------------------


def _address(ledger: str, shard: ShardId) -> Any:
    try:
        return ledger_address(ledger.replace(SHARD, str(shard)))
    except BadAddress as fault:
        raise CommandFault(f"--ledger: {fault}") from None


def _opener(ledger: str) -> Callable[[ShardId], AbstractContextManager[Shard]]:
    def open_shard(shard: ShardId) -> AbstractContextManager[Shard]:
        address = _address(ledger, shard)
        if isinstance(address, PostgresAddress):
            from infra.served import open_shard as open_served

            # The group gave the shard to this worker: whoever still holds its lock is frozen, or about to go.
            return open_served(address, takes_over=True)
        return open_ledger(address)

    return open_shard


def _open_reader(ledger: str, shard: ShardId) -> LedgerReader:
    return open_reader(_address(ledger, shard))


def _reader(ledger: str, shard: ShardId) -> LedgerReader:
    from infra.streams.outflow import wait_for_ledger

    return wait_for_ledger(partial(_open_reader, ledger, shard), LEDGER_SECONDS_MAX)


@contextmanager
def _until_signalled() -> Iterator[Callable[[], bool]]:
    """Whether to stop: at the first SIGTERM or SIGINT; the second ends the process at once."""
    heard: list[int] = []

    def hear(number: int, _: Any) -> None:
        if heard:
            os._exit(1)
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)


def run_worker(
        ledger: ShardLedgers, bootstrap: Bootstrap = _SERVERS, prefix: Prefix = "clearing.",
        group: Annotated[str, typer.Option("--group", metavar="NAME", help="The workers' group.")] = "clearing-workers",
        instance: Annotated[str | None, typer.Option(
            "--instance", metavar="NAME", help="Static membership: this worker's own lasting name.")] = None,
        relay: Annotated[bool, typer.Option("--relay/--no-relay", help="Relay each shard's events as well.")] = True,
        future_tolerance: Annotated[int, typer.Option(
            "--future-tolerance", metavar="SECONDS", min=0,
            help="How far a record's time may lie ahead of the wall clock.")] = 60,
        metrics_port: Annotated[int | None, typer.Option(
            "--metrics-port", metavar="PORT", min=0, max=65_535,
            help="Answer /metrics, /livez and /readyz on this port of this machine; 0: any.")] = None) -> None:
    """Own shards as a member of a group: read their records, keep their ledgers, publish what they decide.

    \b
    Example: clearing worker --ledger 'desk-{shard}.db'
    """
    from infra.metrics import Vitals, serve
    from infra.streams.intake import IntakeStopped
    from infra.streams.outflow import RelayStopped
    from infra.streams.worker import Worker

    _log_to_stderr()
    _check_ledger(ledger)
    sys.setswitchinterval(SWITCH_SECONDS)
    vitals = Vitals()
    worker = Worker(bootstrap, _opener(ledger), prefix=prefix, group=group, instance=instance,
                    open_reader=partial(_reader, ledger) if relay else None,
                    future_tolerance=future_tolerance, vitals=vitals)
    with _until_signalled() as should_stop, ExitStack() as stack:
        if metrics_port is not None:
            remark(f"metrics on http://127.0.0.1:{stack.enter_context(serve(vitals, metrics_port))}/metrics")
        try:
            worker.run(should_stop)
        except (IntakeStopped, RelayStopped, LedgerUnreadable) as fault:
            raise CommandFault(str(fault)) from None
    remark("stopped; every shard was let go in order")


def run_relay(
        ledger: ShardLedgers, shard: Annotated[str, typer.Option(
            "--shard", metavar="N", help="Which: the number of a partition of accounts, or house.")] = "0",
        bootstrap: Bootstrap = _SERVERS, prefix: Prefix = "clearing.") -> None:
    """Publish one shard's events, each exactly once, until stopped; for shards whose workers run with --no-relay.

    \b
    Example: clearing relay --ledger 'desk-{shard}.db' --shard 0
    """
    from kafka.errors import KafkaError

    from infra.streams.outflow import Fenced, Relay, RelayStopped

    _log_to_stderr()
    if shard != HOUSE and not (shard.isascii() and shard.isdigit()):
        raise CommandFault(f"--shard: expected the number of a partition of accounts, or {HOUSE}, came {shard!r}")
    reader = _reader(ledger, HOUSE if shard == HOUSE else int(shard))
    relay = Relay(reader, bootstrap, shard=f"shard-{shard}", prefix=prefix, on_hang=lambda: os._exit(1))
    with _until_signalled() as should_stop:
        try:
            relay.open()
            relay.run(should_stop)
        except RelayStopped as fault:
            raise CommandFault(str(fault)) from None
        except (Fenced, KafkaError) as fault:
            raise CommandFault(f"the relay ended, start it again: {fault}") from None
        finally:
            relay.close()
            reader.connection.close()
    remark(f"stopped at log position {relay.position}")


def _check_ledger(ledger: str) -> None:
    if SHARD not in ledger:
        raise CommandFault(f"--ledger: expected {SHARD} where the shard's number stands, came {ledger!r}")
    _address(ledger, 0)


# --- what holds, and where everything stands ---------------------------------------------------------------------


def doctor(ledger: ShardLedgers, bootstrap: Bootstrap = _SERVERS, prefix: Prefix = "clearing.",
           as_json: AsJson = False) -> None:
    """Check all that the service needs, and say what to do where something is amiss.

    \b
    Example: clearing doctor --ledger 'desk-{shard}.db'
    """
    from infra.streams.checks import checks

    _check_ledger(ledger)
    with _admin(bootstrap) as admin:
        found = [check._asdict() for check in checks(admin, bootstrap, prefix, partial(_open_reader, ledger))]
    shown = [{**row, "state": "ok" if row["ok"] else "AMISS"} for row in found]
    show(Output(json=as_json), [Part("checks", found if as_json else shown, ("name", "ok", "found", "remedy"), {
        "check": "name", "state": "state", "found": "found", "what to do": "remedy"}, "nothing was checked")])
    amiss = [row["name"] for row in found if not row["ok"]]
    if amiss:
        raise CommandFault(f"expected everything to be well, {len(amiss)} of {len(found)} checks are not: "
                           f"{', '.join(map(str, amiss))}", REFUSED)


def status(ledger: ShardLedgers, bootstrap: Bootstrap = _SERVERS, prefix: Prefix = "clearing.",
           as_json: AsJson = False) -> None:
    """Show where every shard stands: owner, epoch, log position, what is still to be read and to be published.

    \b
    Example: clearing status --ledger 'desk-{shard}.db'
    """
    from infra.streams.checks import Standing, standings

    _check_ledger(ledger)
    with _admin(bootstrap) as admin:
        rows = [row._asdict() for row in standings(admin, bootstrap, prefix, partial(_open_reader, ledger))]
    show(Output(json=as_json), [Part("shards", rows, Standing._fields, {
        "shard": "shard", "owner": "owner", "epoch": "epoch", "log position": "position", "to read": "stream_lag",
        "published": "relayed", "to publish": "relay_lag"}, "no shard: there is no accounts topic by this prefix")])
