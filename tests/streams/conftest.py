"""A real Kafka for the session, and topics that only one test uses."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from infra.deploy.broker import NoKafka, a_broker
from tests.streams.clients import Cluster


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The bootstrap servers of KAFKA_BOOTSTRAP_SERVERS, else of a broker that lives as long as the session."""
    broker = a_broker()
    try:
        bootstrap = broker.__enter__()
    except NoKafka as fault:
        pytest.skip(f"no Kafka: {fault}")
    try:
        yield bootstrap
    finally:
        broker.__exit__(None, None, None)


@pytest.fixture
def cluster(kafka: str) -> Iterator[Cluster]:
    """A service's topics with one shard, under a prefix of its own."""
    with Cluster(kafka, f"t{uuid.uuid4().hex[:8]}.", partitions=1) as made:
        yield made
