"""The topics that records come in by and messages go out by: names, partitions, settings, and how they are made.

All carry a prefix. `accounts` is keyed by account and has one partition a shard; `prices` is keyed by instrument;
`control` has one partition, so that all shards see one order. This file never sends or reads a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

DEFAULT_PREFIX: Final = "clearing."
ACCOUNTS: Final = "accounts.v1"
PRICES: Final = "prices.v1"
CONTROL: Final = "control.v1"
MARGIN_CALLS: Final = "margin-calls.v1"
LIQUIDATIONS: Final = "liquidations.v1"
ACCOUNT_STATE: Final = "account-state.v1"
OUTCOMES: Final = "outcomes.v1"
REJECTIONS: Final = "rejections.v1"
INPUTS: Final = (ACCOUNTS, PRICES, CONTROL)
CLAIMS: Final = "shortfall-claims.v1"
ANSWERS: Final = "shortfall-answers.v1"
TRANSFERS: Final = "transfers.v1"
# What shards send each other, where there are several; of clients none writes to them.
BETWEEN_SHARDS: Final = (CLAIMS, ANSWERS, TRANSFERS)
OUTPUTS: Final = (MARGIN_CALLS, LIQUIDATIONS, ACCOUNT_STATE, OUTCOMES, REJECTIONS)
# How long a client of ours waits at most before it looks for the cluster again; its own bound is half a minute.
RECONNECT_MS_MAX: Final = 1_000
_KEPT_FOR_EVER: Final = {"cleanup.policy": "delete", "retention.ms": "-1"}
_KEPT_A_MONTH: Final = {"cleanup.policy": "delete", "retention.ms": str(30 * 86_400_000)}
_COMPACTED: Final = {"cleanup.policy": "compact"}


class Topic(NamedTuple):
    """A topic as it should be."""

    name: str
    partitions: int
    settings: Mapping[str, str]


class TopicDiffers(Exception):
    """A topic is not as the service needs it; the message says what was expected and what is there."""


def topics(prefix: str, partitions: int) -> list[Topic]:
    """All topics of a service with so many account shards. Inputs are what a ledger is replayed from: kept for ever."""
    def settings(name: str) -> Mapping[str, str]:
        if name in INPUTS or name in BETWEEN_SHARDS:
            return _KEPT_FOR_EVER
        return _COMPACTED if name == ACCOUNT_STATE else _KEPT_A_MONTH

    names = (*INPUTS, *OUTPUTS, *(BETWEEN_SHARDS if partitions > 1 else ()))
    return [Topic(prefix + name, 1 if name == CONTROL else partitions, settings(name)) for name in names]


def ensure(admin: Any, prefix: str, partitions: int, *, replication: int = 1) -> list[str]:
    """Make the topics that are missing and give their names. TopicDiffers where one has other partitions.

    Partitions are never added to a topic that is there: keys would move to other shards.
    """
    wanted = topics(prefix, partitions)
    known = {row["name"]: row for row in describe(admin, [topic.name for topic in wanted])}
    for topic in wanted:
        row = known.get(topic.name)
        if row is not None and len(row["partitions"]) != topic.partitions:
            raise TopicDiffers(f"{topic.name}: expected {topic.partitions} partitions, it has "
                               f"{len(row['partitions'])}; a keyed topic is never widened, make one of a new prefix")
    missing = [topic for topic in wanted if topic.name not in known]
    if missing:
        admin.create_topics({topic.name: {
            "num_partitions": topic.partitions, "replication_factor": replication, "configs": dict(topic.settings)}
            for topic in missing}, wait_for_metadata=True)
    return [topic.name for topic in missing]


def describe(admin: Any, names: list[str]) -> list[dict[str, Any]]:
    """What the cluster says of those topics that there are: name, topic_id, partitions."""
    there = set(admin.list_topics())
    wanted = [name for name in names if name in there]
    rows: list[dict[str, Any]] = admin.describe_topics(wanted) if wanted else []
    return rows


def topic_ids(admin: Any, prefix: str) -> dict[str, str]:
    """The ids of the topics that records come in by: name -> id, which a topic that is made anew does not keep."""
    return {row["name"]: str(row["topic_id"])
            for row in describe(admin, [prefix + name for name in (*INPUTS, *BETWEEN_SHARDS)])}
