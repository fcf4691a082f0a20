"""The Kafka cluster as the ledger knows it: its address, its credentials, who it is, and faults in words.

Credentials come from the environment (KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME,
KAFKA_SASL_PASSWORD, KAFKA_SSL_CAFILE), so that no command line shows them. This file never reads or writes a record.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

BOOTSTRAP_SECONDS_MAX: Final = 30
_CREDENTIALS: Final = {
    "KAFKA_SECURITY_PROTOCOL": "security_protocol", "KAFKA_SASL_MECHANISM": "sasl_mechanism",
    "KAFKA_SASL_USERNAME": "sasl_plain_username", "KAFKA_SASL_PASSWORD": "sasl_plain_password",
    "KAFKA_SSL_CAFILE": "ssl_cafile"}


class ClusterFault(Exception):
    """The cluster cannot be used as it is: one sentence of what was expected and what came."""


class TopicFacts:
    """What the cluster says of a topic: its id, which a topic made anew does not keep, and its partitions."""

    __slots__ = ("id", "name", "partitions", "replicas")

    def __init__(self, name: str, topic_id: str, partitions: int, replicas: int) -> None:
        self.name, self.id, self.partitions, self.replicas = name, topic_id, partitions, replicas


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is, and what the names of this ledger's topics begin with."""

    bootstrap: str
    prefix: str = "clearing."

    def options(self) -> dict[str, Any]:
        """What every client of the cluster is made with."""
        given = {option: os.environ[name] for name, option in _CREDENTIALS.items() if os.environ.get(name)}
        # A cluster that is back is found within a second, not within the client's own half a minute.
        return {"bootstrap_servers": self.bootstrap.split(","), "reconnect_backoff_max_ms": 1_000, **given}

    @contextmanager
    def admin(self) -> Iterator[Any]:
        """An admin client. ClusterFault where nobody answers, or where the client is not installed."""
        require_client()
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        try:
            client = KafkaAdminClient(**self.options(), bootstrap_timeout_ms=BOOTSTRAP_SECONDS_MAX * 1_000)
        except (KafkaError, OSError, ValueError) as fault:
            raise ClusterFault(f"expected a Kafka broker at {self.bootstrap}, none answers: {fault}; `make kafka` "
                               "runs one, --bootstrap or KAFKA_BOOTSTRAP_SERVERS names another") from None
        try:
            yield client
        except KafkaError as fault:
            raise ClusterFault(f"the Kafka cluster at {self.bootstrap} refused: {fault}") from fault
        finally:
            client.close()


def require_client() -> None:
    """ClusterFault where kafka-python is not installed."""
    if find_spec("kafka") is None:
        raise ClusterFault("expected the Kafka client, it is not installed: pip install 'clearing-ledger[kafka]'")


def cluster_id(admin: Any) -> str:
    """The cluster's own name, which no other cluster has."""
    return str(admin.describe_cluster()["cluster_id"])


def facts_of(admin: Any, names: Iterable[str]) -> Mapping[str, TopicFacts]:
    """Those of the named topics that exist, by name."""
    return {row["name"]: TopicFacts(row["name"], str(row["topic_id"]), len(row["partitions"]),
                                    min((len(part["replica_nodes"]) for part in row["partitions"]), default=0))
            for row in admin.describe_topics(list(names)) if row["error_code"] == 0}
