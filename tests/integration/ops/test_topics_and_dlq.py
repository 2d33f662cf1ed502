"""`siyu topics apply` and the dead letter tools on the real broker."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from siyu.ops import dlq
from siyu.ops.topics import Cluster, Topic, TopicsError

pytestmark = pytest.mark.integration


def _topics(prefix: str, *, retention: str = "600000") -> dict[str, Topic]:
    names = (f"{prefix}.events", f"dlq.{prefix}")
    config = {"cleanup.policy": "delete", "retention.ms": retention, "max.message.bytes": "1048576"}
    return {name: Topic(name, "customer", 2, 1, config) for name in names}


def test_apply_creates_then_finds_nothing_to_do_then_grows_and_refuses_to_shrink(kafka) -> None:
    prefix = f"t{uuid.uuid4().hex[:8]}"
    cluster = Cluster(kafka.bootstrap)
    wanted = _topics(prefix)
    cluster.apply(cluster.difference(wanted), wanted)
    assert cluster.difference(wanted) == []
    cluster.apply([c for c in cluster.difference(wanted) if c.kind == "create"], wanted)

    longer = _topics(prefix, retention="700000")
    assert {c.kind for c in cluster.difference(longer)} == {"config"}
    cluster.apply(cluster.difference(longer), longer)
    assert cluster.difference(longer) == []
    assert {c.kind for c in cluster.difference(wanted)} == {"refused"}
    cluster.apply(cluster.difference(wanted), wanted)
    assert cluster.difference(longer) == []


def test_a_broker_that_does_not_answer_is_a_clear_error() -> None:
    with pytest.raises(TopicsError, match="does not answer"):
        Cluster("127.0.0.1:1", timeout_seconds=1).difference(_topics("x"))


def test_a_dead_letter_is_listed_and_goes_back_to_its_origin_with_its_attempt(kafka) -> None:
    service = f"s{uuid.uuid4().hex[:8]}"
    wanted = _topics(service)
    cluster = Cluster(kafka.bootstrap)
    cluster.apply(cluster.difference(wanted), wanted)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    headers: list[tuple[str, str | bytes | None]] = [
        ("origin.topic", f"{service}.events"),
        ("error.class", "ValueError"),
        ("attempt", "2"),
    ]
    producer.produce(f"dlq.{service}", key=b"k", value=b"\x00original", headers=headers)
    producer.produce(f"dlq.{service}", key=b"k2", value=b"nowhere")
    assert producer.flush(10) == 0

    assert service in dlq.services(kafka.bootstrap)
    letters = list(dlq.read(kafka.bootstrap, service))
    assert sorted(letter.key for letter in letters) == [b"k", b"k2"]
    (whole,) = [letter for letter in letters if letter.key == b"k"]
    with pytest.raises(dlq.DeadLettersError, match="does not name its origin"):
        dlq.replay(kafka.bootstrap, letters)

    already = _all(kafka.bootstrap, f"{service}.events")
    assert dlq.replay(kafka.bootstrap, [whole]) == 1
    came_back = _all(kafka.bootstrap, f"{service}.events")[len(already) :]
    assert came_back == [(b"k", b"\x00original", b"2")]

    with pytest.raises(dlq.DeadLettersError, match="no topic"):
        list(dlq.read(kafka.bootstrap, "nobody"))


def test_only_committed_dead_letters_are_read_and_an_open_transaction_does_not_hold_them_back(
    kafka, topic_factory, unique_name
) -> None:
    service = topic_factory("dlq.s").removeprefix(dlq.PREFIX)
    config = {"bootstrap.servers": kafka.bootstrap, "transactional.id": unique_name("letters")}
    producer = Producer(config)
    producer.init_transactions(30)
    for key, end in (
        (b"committed", producer.commit_transaction),
        (b"aborted", producer.abort_transaction),
        (b"open", producer.flush),
    ):
        producer.begin_transaction()
        for partition in range(4):
            producer.produce(dlq.PREFIX + service, key=key, value=b"", partition=partition)
        end(30)
    letters = [(letter.partition, letter.key) for letter in dlq.read(kafka.bootstrap, service)]
    producer.abort_transaction(30)
    assert letters == [(partition, b"committed") for partition in range(4)]


def _all(bootstrap: str, topic: str) -> list[tuple[bytes, bytes, bytes]]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    found = []
    try:
        for partition in (0, 1):
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            consumer.assign([TopicPartition(topic, partition, 0)])
            while consumer.position([TopicPartition(topic, partition)])[0].offset < high:
                message = consumer.poll(5)
                if message is None:
                    if high == 0:
                        break
                    continue
                found.append((message.key(), message.value(), dict(message.headers() or [])["attempt"]))
    finally:
        consumer.close()
    return found
