"""Draining on the real broker: done means that no record is left to read, whatever takes up offsets."""

import threading
import uuid
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client import CollectorRegistry, Gauge

from deploy.local.drain import DrainTimeout, Patience, Stopped, wait_bills_read, wait_group
from deploy.local.kafka import LocalKafka
from siyu.ops.health import OpsServer

pytestmark = pytest.mark.integration

AT_ONCE = Patience(0.0, threading.Event())
LONG = Patience(60.0, threading.Event())


def produce(kafka: LocalKafka, topic: str, count: int, *, commit: bool = True) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": f"drain-{uuid.uuid4().hex}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(count):
        producer.produce(topic, f"{number}", partition=0)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def commit(kafka: LocalKafka, group: str, topic: str, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, offset)])
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def test_what_is_left_is_told_by_topic_and_number(kafka: LocalKafka, topic_factory: Callable[..., str]) -> None:
    topic = topic_factory("drain", partitions=2)
    group = f"g-{topic}"
    wait_group(kafka.bootstrap, group, (topic,), AT_ONCE)
    produce(kafka, topic, 5)
    with pytest.raises(DrainTimeout, match=rf"{group} .*{topic}\[0\] by 6"):
        wait_group(kafka.bootstrap, group, (topic,), AT_ONCE)
    commit(kafka, group, topic, 3)
    with pytest.raises(DrainTimeout, match=rf"{topic}\[0\] by 3"):
        wait_group(kafka.bootstrap, group, (topic,), AT_ONCE)


def test_ends_of_transactions_and_aborted_records_are_nothing_to_wait_for(
    kafka: LocalKafka, topic_factory: Callable[..., str]
) -> None:
    topic = topic_factory("drain", partitions=2)
    group = f"g-{topic}"
    produce(kafka, topic, 5)
    commit(kafka, group, topic, 5)
    wait_group(kafka.bootstrap, group, (topic,), AT_ONCE)
    produce(kafka, topic, 4, commit=False)
    wait_group(kafka.bootstrap, group, (topic,), AT_ONCE)


def test_it_waits_for_the_group_and_can_be_interrupted(kafka: LocalKafka, topic_factory: Callable[..., str]) -> None:
    topic = topic_factory("drain", partitions=1)
    group = f"g-{topic}"
    produce(kafka, topic, 1)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Stopped):
        wait_group(kafka.bootstrap, group, (topic,), Patience(60.0, stopped))
    later = threading.Timer(0.5, commit, (kafka, group, topic, 1))
    later.start()
    wait_group(kafka.bootstrap, group, (topic,), LONG)
    later.join()


def test_bills_are_read_when_every_corp_says_so() -> None:
    registry = CollectorRegistry()
    read = Gauge("siyu_sync_bills_read_through_ms", "Read", ["corp_id"], registry=registry)
    server = OpsServer("127.0.0.1", 0, registry=registry, live=lambda: None, ready=lambda: None)
    url = f"http://127.0.0.1:{server.port}/metrics"
    try:
        read.labels("ww1").set(9_000)
        with pytest.raises(DrainTimeout, match="ww2 never read"):
            wait_bills_read(url, ("ww1", "ww2"), 9_000, AT_ONCE)
        read.labels("ww2").set(4_000)
        with pytest.raises(DrainTimeout, match="ww2 by 5 s"):
            wait_bills_read(url, ("ww1", "ww2"), 9_000, AT_ONCE)
        read.labels("ww2").set(9_000)
        wait_bills_read(url, ("ww1", "ww2"), 9_000, AT_ONCE)
    finally:
        server.close()
    with pytest.raises(DrainTimeout, match="never read"):
        wait_bills_read(url, ("ww1",), 1, AT_ONCE)
