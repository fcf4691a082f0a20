"""The topics of the service: their names, partitions and settings, and making those that are missing.

Partitions of keyed topics never change: a shard is a partition of `accounts`, and an account never moves. Topics
that stand and differ are told of, not altered. This file never writes a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from infra.streams.cluster import Cluster, ClusterFault, TopicFacts, facts_of

DAY_MS: Final = 24 * 3_600_000

Direction = Literal["in", "out"]


class Topic(NamedTuple):
    """A topic by its name without prefix. `per_shard`: as many partitions as there are shards, else one."""

    name: str
    direction: Direction
    per_shard: bool
    configs: tuple[tuple[str, str], ...]
    holds: str


_KEPT: Final = (("cleanup.policy", "delete"), ("retention.ms", "-1"))
_WEEK: Final = (("cleanup.policy", "delete"), ("retention.ms", str(7 * DAY_MS)))
_MONTH: Final = (("cleanup.policy", "delete"), ("retention.ms", str(30 * DAY_MS)))

# Accounts and control are what a ledger is derived from anew, so they are kept for ever. Prices are not compacted:
# shards read at their own pace, and must all see the same marks.
ACCOUNTS: Final = Topic("accounts.v1", "in", True, _KEPT,
                        "accounts, deposits, withdrawals, fills, orders (key: account)")
PRICES: Final = Topic("prices.v1", "in", False, _WEEK, "prices, funding, settlements (key: instrument)")
CONTROL: Final = Topic("control.v1", "in", False, _KEPT, "rulebooks, assets, instruments, rates, funds, halts, clocks")
MARGIN_CALLS: Final = Topic("margin-calls.v1", "out", True, _MONTH,
                            "warnings, margin calls and how they ended (key: account)")
LIQUIDATIONS: Final = Topic("liquidations.v1", "out", True, _MONTH,
                            "liquidations and their orders (key: account)")
ACCOUNT_STATE: Final = Topic("account-state.v1", "out", True, (("cleanup.policy", "compact"),),
                             "each account's balances, positions and status (key: account)")
OUTCOMES: Final = Topic("outcomes.v1", "out", True, _MONTH,
                        "answers to withdrawals and transfers, and every refusal (key: account)")
REJECTIONS: Final = Topic("rejections.v1", "out", True, _KEPT,
                          "records that could not be applied: the dead letters (key: source)")

TOPICS: Final = (ACCOUNTS, PRICES, CONTROL, MARGIN_CALLS, LIQUIDATIONS, ACCOUNT_STATE, OUTCOMES, REJECTIONS)


class TopicState(NamedTuple):
    """A topic as it was wanted and as it is; `differences` in words, empty where all is as it should be."""

    name: str
    direction: Direction
    partitions: int | None
    holds: str
    created: bool
    differences: tuple[str, ...]


def full_name(cluster: Cluster, topic: Topic) -> str:
    """The topic's name in the cluster."""
    return f"{cluster.prefix}{topic.name}"


def shards_of(admin: Any, cluster: Cluster) -> int:
    """How many shards there are: the partitions of `accounts`. ClusterFault where an input topic is missing."""
    inputs = [full_name(cluster, topic) for topic in TOPICS]
    found = facts_of(admin, inputs)
    missing = [name for name in inputs if name not in found]
    if missing:
        raise ClusterFault(f"expected the topics of this ledger, {', '.join(missing)} "
                           f"{'is' if len(missing) == 1 else 'are'} not there; `clearing topics ensure` makes them")
    return found[full_name(cluster, ACCOUNTS)].partitions


def ensure_topics(cluster: Cluster, *, shards: int, replicas: int = -1) -> list[TopicState]:
    """Make the topics that are missing; those that stand stay as they are. `replicas` -1: the broker's default."""
    with cluster.admin() as admin:
        found = _described(admin, cluster)
        missing = {full_name(cluster, topic): {"num_partitions": shards if topic.per_shard else 1,
                                               "replication_factor": replicas, "configs": dict(topic.configs)}
                   for topic in TOPICS if full_name(cluster, topic) not in found}
        if missing:
            admin.create_topics(missing, wait_for_metadata=True)
        return _states(_described(admin, cluster), cluster, shards=shards, created=frozenset(missing))


def list_topics(cluster: Cluster) -> list[TopicState]:
    """The topics as they are; partitions None where one is missing."""
    with cluster.admin() as admin:
        found = _described(admin, cluster)
        accounts = found.get(full_name(cluster, ACCOUNTS))
        return _states(found, cluster, shards=accounts[0].partitions if accounts else None, created=frozenset())


def _described(admin: Any, cluster: Cluster) -> dict[str, tuple[TopicFacts, Mapping[str, str]]]:
    from kafka.admin import ConfigResource, ConfigResourceType

    facts = facts_of(admin, [full_name(cluster, topic) for topic in TOPICS])
    if not facts:
        return {}
    wanted = sorted({setting for topic in TOPICS for setting, _ in topic.configs})
    configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in facts],
                                     config_filter="all")["topic"]
    return {name: (row, {setting: entry["value"] for setting, entry in configs[name].items()})
            for name, row in facts.items()}


def _states(found: Mapping[str, tuple[TopicFacts, Mapping[str, str]]], cluster: Cluster, *, shards: int | None,
            created: frozenset[str]) -> list[TopicState]:
    states = []
    for topic in TOPICS:
        name = full_name(cluster, topic)
        if name not in found:
            states.append(TopicState(name, topic.direction, None, topic.holds, False, ("is not there",)))
            continue
        facts, configs = found[name]
        differences = [f"{setting}: expected {value}, is {configs.get(setting)}"
                       for setting, value in topic.configs if configs.get(setting) != value]
        wanted = shards if topic.per_shard else None
        if wanted is not None and facts.partitions != wanted:
            differences.append(f"partitions: expected {wanted}, has {facts.partitions}")
        if topic is CONTROL and facts.partitions != 1:
            differences.append(f"partitions: expected 1, has {facts.partitions}")
        states.append(TopicState(name, topic.direction, facts.partitions, topic.holds, name in created,
                                 tuple(differences)))
    return states
