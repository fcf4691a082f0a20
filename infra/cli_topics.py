"""The commands on topics: `clearing topics ensure` and `clearing topics list`, and the options of all of Kafka.

This file never reads or writes a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from infra.cli_console import MISMATCH, AsCsv, AsJson, CommandFault, Output, Part, show
from infra.streams.cluster import Cluster
from infra.streams.topics import TopicState, ensure_topics, list_topics

DEFAULT_BOOTSTRAP: Final = "127.0.0.1:9092"

Bootstrap = Annotated[str, typer.Option(
    "--bootstrap", metavar="HOST:PORT", envvar="KAFKA_BOOTSTRAP_SERVERS", show_envvar=False,
    help="The Kafka cluster; may also stand in KAFKA_BOOTSTRAP_SERVERS.")]
Prefix = Annotated[str, typer.Option(
    "--prefix", metavar="TEXT", envvar="CLEARING_TOPIC_PREFIX", show_envvar=False,
    help="What the names of all topics begin with.")]

topics = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Make or list the Kafka topics of the service.\n\n\b\nExample: clearing topics ensure --partitions 4")


@topics.command()
def ensure(
        partitions: Annotated[int, typer.Option(
            "--partitions", metavar="N", min=1, max=1_000, help="How many shards; it can never be changed.")] = 1,
        replicas: Annotated[int, typer.Option(
            "--replicas", metavar="N", min=-1, help="Copies of each partition; -1 is the cluster's default.")] = -1,
        bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, prefix: Prefix = "clearing.", as_json: AsJson = False) -> None:
    """Make the topics that are missing; those that are there stay as they are.

    \b
    Example: clearing topics ensure --partitions 4
    """
    states = ensure_topics(Cluster(bootstrap, prefix), shards=partitions, replicas=replicas)
    _show(states, Output(json=as_json))
    different = [state for state in states if state.differences]
    if different:
        raise CommandFault("; ".join(f"{state.name} {', '.join(state.differences)}" for state in different)
                           + ": topics that stand are never altered; make ones with another --prefix, or alter these "
                             "with your own tools", MISMATCH)


@topics.command("list")
def list_(
        bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, prefix: Prefix = "clearing.", as_json: AsJson = False,
        as_csv: AsCsv = False) -> None:
    """Show the topics, their partitions, and where they are not as they should be.

    \b
    Example: clearing topics list --bootstrap 127.0.0.1:9092
    """
    _show(list_topics(Cluster(bootstrap, prefix)), Output(as_json, as_csv))


def _show(states: Sequence[TopicState], output: Output) -> None:
    rows = [{"topic": state.name, "direction": state.direction, "partitions": state.partitions,
             "state": "differs" if state.differences else "made" if state.created else "there",
             "differences": "; ".join(state.differences), "holds": state.holds} for state in states]
    show(output, [Part("topics", rows, tuple(rows[0]), {
        "topic": "topic", "direction": "direction", "partitions": "partitions", "state": "state",
        "differences": "differences", "holds": "holds"}, "")])
