"""What must hold for the streaming service to run: each check says what is, and what to do where it is not so.

Brokers, topics, retention against the ledgers' positions, relays, hanging transactions, the fast checksum. This file
changes nothing, anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition

from infra.embedded import LedgerReader
from infra.streams.parts import ShardId, shards_of
from infra.streams.topics import ACCOUNTS, CONTROL, describe, topics
from ledger.errors import LedgerUnreadable


class Check(NamedTuple):
    """One check: what was looked at, whether it is well, what was found, and what to do."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


class Standing(NamedTuple):
    """Where a shard stands: its log, its relay, and what it has still to read."""

    shard: ShardId
    owner: str | None
    epoch: int
    position: int
    relayed: int
    relay_lag: int
    stream_lag: int | None


def checks(admin: Any, bootstrap: str, prefix: str, open_shard: Callable[[ShardId], LedgerReader]) -> Iterator[Check]:
    """All checks, in the order in which their faults are worth mending."""
    crc = find_spec("crc32c") is not None
    yield Check("crc32c", crc, "installed" if crc else "missing", "" if crc else
                "install the package crc32c: without it the client computes checksums several times slower")
    cluster = admin.describe_cluster()
    yield Check("brokers", bool(cluster["brokers"]), f"{len(cluster['brokers'])} of cluster {cluster['cluster_id']}")
    rows = {row["name"]: len(row["partitions"]) for row in describe(admin, [row.name for row in topics(prefix, 2)])}
    partitions = rows.get(prefix + ACCOUNTS, 0)
    for topic in topics(prefix, max(1, partitions)):
        has = rows.get(topic.name)
        yield Check(topic.name, has == topic.partitions, "missing" if has is None else f"{has} partitions",
                    "" if has == topic.partitions else "clearing topics ensure --partitions N" if has is None else
                    f"expected {topic.partitions}: a keyed topic is never widened, make the topics anew by a prefix")
    hanging = admin.find_hanging_transactions()
    yield Check("transactions", not hanging, f"{len(hanging)} hang", "" if not hanging else "abort them: readers of "
                f"committed messages wait for {', '.join(str(row['transactional_id']) for row in hanging)}")
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        for shard in shards_of(partitions):
            yield from _ledger_checks(consumer, shard, open_shard)
    finally:
        consumer.close()


def _ledger_checks(consumer: Any, shard: ShardId, open_shard: Callable[[ShardId], LedgerReader]) -> Iterator[Check]:
    try:
        reader = open_shard(shard)
    except LedgerUnreadable as fault:
        yield Check(f"shard {shard}", False, str(fault), "a worker that owns the shard makes it")
        return
    with reader:
        owner = reader.owner()
        yield Check(f"shard {shard}", owner is not None, f"written by {owner or 'nobody'}", "" if owner else
                    "start a worker: clearing worker")
        for source, partition, position in _positions(reader):
            place = TopicPartition(source, partition)
            if not consumer.partitions_for_topic(source):
                yield Check(f"shard {shard}: {source}[{partition}]", False, "the topic is gone", "this ledger was fed "
                            "from another cluster or prefix")
                continue
            begin = consumer.beginning_offsets([place])[place]
            end = consumer.end_offsets([place])[place]
            ok = begin <= position <= end or (position == 0 and begin == 0)
            yield Check(f"shard {shard}: {source}[{partition}]", ok, f"at {position} of {begin} to {end}", "" if ok else
                        "retention took what was not read" if position < begin else
                        "the topic was made anew or lost records: this ledger must not read on from it")


def _positions(reader: LedgerReader) -> list[tuple[str, int, int]]:
    rows = reader.ask("SELECT source, partition, next_offset FROM stream_position ORDER BY source, partition")
    return [(str(source), int(partition), int(position)) for source, partition, position in rows
            if str(source).endswith(".v1")]


def standings(admin: Any, bootstrap: str, prefix: str, open_shard: Callable[[ShardId], LedgerReader]) -> list[Standing]:
    """Where every shard stands that has a ledger."""
    rows = {row["name"]: len(row["partitions"]) for row in describe(admin, [prefix + ACCOUNTS, prefix + CONTROL])}
    found = []
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        for shard in shards_of(rows.get(prefix + ACCOUNTS, 0)):
            try:
                reader = open_shard(shard)
            except LedgerUnreadable:
                found.append(Standing(shard, None, 0, 0, 0, 0, None))
                continue
            with reader:
                end = reader.end()
                relayed = int(reader.ask("SELECT COALESCE(MAX(position), 0) FROM relay_position")[0][0])
                epoch = int(reader.ask("SELECT COALESCE(MAX(epoch), 0) FROM stream_position")[0][0])
                places = {TopicPartition(source, partition): position
                          for source, partition, position in _positions(reader)}
                # Asked for first: of a topic that the client has not heard of it knows no end.
                known = {topic: consumer.partitions_for_topic(topic) or () for topic, _ in places}
                there = [place for place in places if place.partition in known[place.topic]]
                ends = consumer.end_offsets(there) if there else {}
                lag = sum(max(0, ends[place] - position) for place, position in places.items() if place in ends)
                found.append(Standing(shard, reader.owner(), epoch, end, relayed, end - relayed, lag))
    finally:
        consumer.close()
    return found
