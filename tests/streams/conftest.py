"""A real broker for the tests of this folder: KAFKA_BOOTSTRAP_SERVERS where it is set, else a node of our own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from infra.deploy import broker
from infra.deploy.broker import Broker, NoKafka


@pytest.fixture(scope="session")
def own_broker() -> Iterator[Broker]:
    """A node that the tests may kill, freeze and start again."""
    try:
        with broker.own_broker() as node:
            yield node
    except NoKafka as fault:
        pytest.skip(f"NO BROKER, NOTHING OF KAFKA IS TESTED: {fault}")


@pytest.fixture(scope="session")
def bootstrap(request: pytest.FixtureRequest) -> str:
    """The address of the broker."""
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    return named or str(request.getfixturevalue("own_broker").bootstrap)


@pytest.fixture
def prefix() -> str:
    """A prefix of topics that no other test uses."""
    return f"t{uuid.uuid4().hex[:8]}."
