"""The commands that stream: `clearing worker` reads Kafka into shards, `clearing relay` publishes their logs.

Both run until SIGTERM or Ctrl-C, finish what is under way and end with 0; a second signal ends them at once. This
file never reads or writes a record itself.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from infra.cli_console import MISMATCH, REFUSED, CommandFault, LedgerPath, open_reader, remark
from infra.cli_topics import DEFAULT_BOOTSTRAP, Bootstrap, Prefix
from infra.store.address import shard_address
from infra.streams.cluster import Cluster
from infra.streams.topics import shards_of

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

Venue = Annotated[str | None, typer.Option(
    "--venue", metavar="simulated", help="Who fills liquidation orders; without it they wait for fill records.")]


def worker(
        ledger: LedgerPath, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, prefix: Prefix = "clearing.",
        venue: Venue = None,
        batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Records a commit, at most.")] = 1_000,
        future_tolerance: Annotated[int, typer.Option(
            "--future-tolerance", metavar="SECONDS", min=0,
            help="How far a record may be ahead of the wall clock.")] = 60,
        breaker: Annotated[int, typer.Option(
            "--breaker", metavar="N", min=0,
            help="Stop when more than half of the last N records were rejected; 0 never stops.")] = 1_000,
        instance: Annotated[str | None, typer.Option(
            "--instance", metavar="NAME", envvar="CLEARING_INSTANCE", show_envvar=False,
            help="A lasting name of this worker: after a restart it keeps its shards without a rebalance.")] = None,
        session: Annotated[float, typer.Option(
            "--session", metavar="SECONDS", min=1, help="A worker silent for this long is replaced.")] = 6.0) -> None:
    """Read records from Kafka into the ledger, each exactly once.

    \b
    Example: clearing worker --ledger desk.db --venue simulated
    """
    from infra.streams.intake import Intake, IntakeStopped, Worker
    from infra.streams.lane import FeedBroken
    from infra.venue import SimulatedVenue

    if venue not in (None, "simulated"):
        raise CommandFault(f"--venue: expected simulated, came {venue!r}")
    _log_to_stderr()
    running = Worker(Intake(
        Cluster(bootstrap, prefix), ledger, venue=SimulatedVenue() if venue else None, batch=batch,
        future_tolerance=future_tolerance, breaker=breaker, instance=instance, session_seconds=session))
    _stop_on_signal(running.stop)
    try:
        running.run()
    except (IntakeStopped, FeedBroken) as fault:
        raise CommandFault(str(fault), REFUSED) from None


def relay(
        ledger: LedgerPath, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, prefix: Prefix = "clearing.",
        shard: Annotated[int, typer.Option("--shard", metavar="N", min=0, help="Which shard's log.")] = 0,
        reset: Annotated[int | None, typer.Option(
            "--reset", metavar="POSITION", min=0,
            help="Set the lost position: events up to it count as published. Then nothing is run.")] = None) -> None:
    """Publish a shard's log to Kafka, each event exactly once and in order.

    \b
    Example: clearing relay --ledger desk.db
    """
    from infra.streams.outflow import Relay, RelayFault, watch

    cluster = Cluster(bootstrap, prefix)
    with cluster.admin() as admin:
        count = shards_of(admin, cluster)
    if shard >= count:
        raise CommandFault(f"--shard: expected a shard below {count}, the partitions of accounts, came {shard}")
    _log_to_stderr()
    with open_reader(shard_address(ledger, shard, count)) as reader:
        running = Relay(cluster, reader, shard)
        try:
            if reset is not None:
                running.reset(reset)
                remark(f"{running.name} goes on after log position {reset}")
                return
            stopped = threading.Event()
            _stop_on_signal(stopped.set)
            running.start()
            watch(running)
            remark(f"{running.name} goes on after log position {running.position}")
            running.run(stopped=stopped.is_set)
        except RelayFault as fault:
            raise CommandFault(str(fault), REFUSED if fault.fenced else MISMATCH) from None
        finally:
            running.close()


def _log_to_stderr() -> None:
    logging.basicConfig(level=os.environ.get("CLEARING_LOG", "INFO"), format=_FORMAT)
    # The client tells of every connection; what matters of it comes as a fault.
    logging.getLogger("kafka").setLevel(os.environ.get("CLEARING_LOG_KAFKA", "ERROR"))


def _stop_on_signal(stop: Callable[[], None]) -> None:
    """The first signal asks to stop, the second does not ask."""

    def told(number: int, _: Any) -> None:
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, lambda *_: os._exit(128 + number))
        stop()

    signal.signal(signal.SIGINT, told)
    signal.signal(signal.SIGTERM, told)
