"""Shards of their own on a real PostgreSQL server, for tests: made by whoever opens them, dropped afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.sql import SQL, Identifier

from infra.store.address import PostgresAddress


@contextmanager
def new_shard(dsn: str, name: str | None = None) -> Iterator[PostgresAddress]:
    """The address of a shard that nobody else uses."""
    address = PostgresAddress(dsn, name or f"test_{uuid.uuid4().hex[:16]}")
    try:
        yield address
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for schema in (address.shard, address.read_schema):
                connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
