"""Hypothesis profiles: `default` and `ci` for every run, `soak` (HYPOTHESIS_PROFILE=soak) to search for longer.

And the servers that tests share: a PostgreSQL for the session, started by whoever first asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from infra.deploy.postgres import NoPostgres, a_server
from infra.store.address import PostgresAddress

# Examples are whole ledgers: their time says nothing of a fault, and the first of them is large.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

settings.register_profile("default", max_examples=60, deadline=None, derandomize=False, suppress_health_check=_SLOW)
settings.register_profile("ci", settings.get_profile("default"))
settings.register_profile("soak", settings.get_profile("default"), max_examples=3_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a real server: the one that POSTGRES_DSN names, else one that lives as long as the session."""
    try:
        server = a_server()
        dsn = server.__enter__()
    except NoPostgres as fault:
        pytest.skip(str(fault))
    try:
        yield dsn
    finally:
        server.__exit__(None, None, None)


@pytest.fixture
def shard_address(postgres: str) -> Iterator[PostgresAddress]:
    """A shard of the session's server that only this test uses."""
    from tests.shards import new_shard

    with new_shard(postgres) as address:
        yield address
