"""The broker of the tests is a real one: it keeps its data through SIGKILL, and fences producers."""

from __future__ import annotations

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from infra.deploy.broker import Broker
from tests.streams.clients import create_topic


def test_what_was_acknowledged_is_there_after_the_broker_was_killed(own_broker: Broker, prefix: str) -> None:
    create_topic(own_broker.bootstrap, f"{prefix}kept", 1)
    producer = KafkaProducer(bootstrap_servers=own_broker.bootstrap)
    producer.send(f"{prefix}kept", b"1").get(10)
    producer.close()
    own_broker.kill()
    own_broker.start()
    place = TopicPartition(f"{prefix}kept", 0)
    consumer = KafkaConsumer(bootstrap_servers=own_broker.bootstrap, auto_offset_reset="earliest")
    consumer.assign([place])
    found = consumer.poll(timeout_ms=10_000)
    consumer.close()

    assert [b"1"] == [record.value for record in found[place]]


def test_a_second_producer_of_a_transactional_id_fences_the_first(bootstrap: str, prefix: str) -> None:
    create_topic(bootstrap, f"{prefix}fenced", 1)
    first, second = (KafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{prefix}id") for _ in range(2))
    first.init_transactions()
    first.begin_transaction()
    second.init_transactions()

    with pytest.raises(KafkaError):
        first.send(f"{prefix}fenced", b"stale").get(10)
        first.commit_transaction()
    first.close(timeout=1)
    second.close()
