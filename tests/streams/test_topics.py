"""Topics: made where they are missing, told of where they differ, never altered."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from infra.cli import app
from infra.streams.cluster import Cluster, ClusterFault
from infra.streams.topics import ensure_topics, list_topics, shards_of
from tests.streams.clients import create_topic


def test_topics_are_made_once_with_a_partition_a_shard(bootstrap: str, prefix: str) -> None:
    cluster = Cluster(bootstrap, prefix)

    first = ensure_topics(cluster, shards=3)
    again = ensure_topics(cluster, shards=3)

    assert all(state.created and not state.differences for state in first)
    assert not any(state.created or state.differences for state in again)
    assert {"accounts.v1": 3, "prices.v1": 1, "control.v1": 1, "margin-calls.v1": 3, "liquidations.v1": 3,
            "account-state.v1": 3, "outcomes.v1": 3, "rejections.v1": 3} == {
                state.name.removeprefix(prefix): state.partitions for state in again}
    with cluster.admin() as admin:
        assert 3 == shards_of(admin, cluster)


def test_another_number_of_shards_is_told_of_and_changes_nothing(bootstrap: str, prefix: str) -> None:
    ensure_topics(Cluster(bootstrap, prefix), shards=1)

    found = CliRunner().invoke(app, ["topics", "ensure", "--partitions", "2", "--bootstrap", bootstrap, "--prefix",
                                     prefix, "--json"])

    assert 3 == found.exit_code
    assert f"{prefix}accounts.v1 partitions: expected 2, has 1" in found.stderr
    assert {1} == {state.partitions for state in list_topics(Cluster(bootstrap, prefix))}


def test_a_topic_with_other_settings_is_told_of(bootstrap: str, prefix: str) -> None:
    create_topic(bootstrap, f"{prefix}account-state.v1", 1)

    found = {state.name: state for state in ensure_topics(Cluster(bootstrap, prefix), shards=1)}

    assert ("cleanup.policy: expected compact, is delete",) == found[f"{prefix}account-state.v1"].differences


def test_the_list_shows_what_is_missing(bootstrap: str, prefix: str) -> None:
    found = CliRunner().invoke(app, ["topics", "list", "--bootstrap", bootstrap, "--prefix", prefix, "--json"])

    assert {"is not there"} == {row["differences"] for row in json.loads(found.stdout)}


def test_without_topics_the_sentence_says_what_makes_them(bootstrap: str, prefix: str) -> None:
    cluster = Cluster(bootstrap, prefix)
    with cluster.admin() as admin, pytest.raises(ClusterFault, match="clearing topics ensure"):
        shards_of(admin, cluster)
