"""What the tests of this folder do with a broker beside the code they test: make topics, send, read all."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition


def create_topic(bootstrap: str, name: str, partitions: int) -> None:
    """A topic that is ready when this returns."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics({name: {"num_partitions": partitions, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()


def send(bootstrap: str, topic: str, values: Iterable[bytes | None], *, key: bytes | None = None,
         partition: int | None = None, headers: list[tuple[str, bytes]] | None = None) -> None:
    """Send values and wait until they are acknowledged."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    for value in values:
        producer.send(topic, value, key=key, partition=partition, headers=headers or [])
    producer.flush(30)
    producer.close()


def read_all(bootstrap: str, topic: str, *, isolation: str = "read_committed", seconds: float = 30) -> list[Any]:
    """All records of a topic up to its end as it is now, by partition and offset."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level=isolation, enable_auto_commit=False,
                             auto_offset_reset="earliest")
    places = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(places)
    ends = consumer.end_offsets(places)
    consumer.seek_to_beginning()
    found: list[Any] = []
    deadline = time.monotonic() + seconds
    while any(consumer.position(place) < ends[place] for place in places):
        for records in consumer.poll(timeout_ms=200).values():
            found += records
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic}: still short of {ends} after {seconds} s")
    consumer.close()
    return sorted(found, key=lambda record: (record.partition, record.offset))
