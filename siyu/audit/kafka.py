"""A topic from its first record to its last committed one: nothing skipped, or an error."""

from __future__ import annotations

import time
import uuid
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from siyu.audit.errors import SourceError
from siyu.events.codec import CodecError, codec
from siyu.events.types import Event

E = TypeVar("E", bound=Event)

_REQUEST_TIMEOUT_S = 15.0
# An open transaction holds the end back until it ends or is aborted, at most some 15 s (design §6).
_NO_PROGRESS_S = 30.0
_BATCH_S = 0.05


def read_topic(bootstrap: str, topic: str, record_type: type[E]) -> list[E]:
    """Every record that is committed now, in order of partition and offset. Raises SourceError."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            # Nothing is committed under it; the client only insists on a name.
            "group.id": f"audit-{uuid.uuid4().hex}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
    )
    try:
        return _read(consumer, topic, record_type)
    except KafkaException as error:
        raise SourceError(
            f"Kafka at {bootstrap}: topic {topic} cannot be read: {error.args[0].str()}. Is SIYU_KAFKA_BOOTSTRAP right?"
        ) from None
    finally:
        consumer.close()


def _read(consumer: Consumer, topic: str, record_type: type[E]) -> list[E]:
    described = consumer.list_topics(topic, timeout=_REQUEST_TIMEOUT_S).topics[topic]
    if described.error is not None:
        raise KafkaException(described.error)
    ends: dict[int, int] = {}
    for partition in described.partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_REQUEST_TIMEOUT_S)
        if low > 0:
            raise SourceError(
                f"{topic}[{partition}]: the first {low} records are gone by retention; "
                "a full recomputation is no longer possible from this topic"
            )
        if high > 0:
            ends[partition] = high
    records: list[E] = []
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    progress = time.monotonic()
    while ends:
        for message in consumer.consume(2000, timeout=_BATCH_S):
            progress = time.monotonic()
            error = message.error()
            partition, offset = message.partition(), message.offset()
            if partition is None or offset is None:
                raise SourceError(f"{topic}: a record without a place")
            if error is None:
                try:
                    record = codec().decode_as(record_type, message.value())
                except CodecError as broken:
                    raise SourceError(f"{topic}[{partition}]@{offset}: {broken}") from None
                records.append(record)
                reached = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                reached = offset
            else:
                raise KafkaException(error)
            if reached >= ends.get(partition, reached + 1):
                del ends[partition]
        if time.monotonic() - progress > _NO_PROGRESS_S:
            raise SourceError(
                f"{topic}: partitions {sorted(ends)} do not come to their end; "
                "a transaction may be open, or the broker does not answer"
            )
    return records
