"""The real broker as a benchmark needs it: optimising compiler on, topics on demand, millions of records in quickly."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports

PARTITIONS = 4
_CHUNK = 10_000
_TIMEOUT_S = 30.0
COMPACTED = {"cleanup.policy": "compact"}
KEPT = {"retention.ms": "-1"}
"""Records carry the time of their event, which may be long ago."""
_QUIET = {"log_level": 0}
"""What goes wrong is raised; that the broker goes away at the end is no news."""
READER = {"enable.auto.commit": False, "isolation.level": "read_committed", "auto.offset.reset": "earliest"}


@contextmanager
def broker() -> Iterator[LocalKafka]:
    """A broker of its own in a temporary folder, gone afterwards."""
    (port,) = free_ports(1)
    with (
        tempfile.TemporaryDirectory(prefix="siyu-benchmark-kafka-") as folder,
        LocalKafka(Path(folder), port, full_compiler=True) as kafka,
    ):
        yield kafka


class Cluster:
    """Topics, their records and the offsets of groups, over one admin client."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, **_QUIET})

    def create(self, topics: Mapping[str, Mapping[str, str]], partitions: int = PARTITIONS) -> None:
        """Name → configuration; returns when the broker leads every partition of them."""
        new = [NewTopic(name, partitions, 1, config=dict(config)) for name, config in topics.items()]
        for created in self._admin.create_topics(new).values():
            created.result(_TIMEOUT_S)
        deadline = time.monotonic() + _TIMEOUT_S
        while any(len(self._admin.list_topics(name).topics[name].partitions) < partitions for name in topics):
            if time.monotonic() > deadline:
                raise TimeoutError(f"topics not created within {_TIMEOUT_S:.0f} s")
            time.sleep(0.02)

    def topics(self, part: str) -> list[str]:
        """Topics with this in their names."""
        return [name for name in self._admin.list_topics(timeout=_TIMEOUT_S).topics if part in name]

    def delete(self, names: Sequence[str]) -> None:
        for deleted in self._admin.delete_topics(names).values() if names else ():
            deleted.result(_TIMEOUT_S)

    def fill(self, records: Iterable[tuple[str, bytes, bytes, int]]) -> None:
        """(topic, key, value, timestamp in ms) in order, each acknowledged when this returns."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                **_QUIET,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 20,
                "batch.size": 500_000,
                "enable.idempotence": True,
                "queue.buffering.max.messages": 500_000,
            }
        )
        # One by one: produce_batch takes no timestamps (confluent-kafka 2.16).
        for number, (topic, key, value, time_ms) in enumerate(records):
            producer.produce(topic, value, key, timestamp=time_ms)
            if number % _CHUNK == 0:
                while len(producer) > 10 * _CHUNK:
                    producer.poll(0.05)
                producer.poll(0)
        if producer.flush(_TIMEOUT_S):
            raise TimeoutError(f"records not acknowledged within {_TIMEOUT_S:.0f} s")

    def ends(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """(topic, partition) → offset after the last record."""
        with _reader(self.bootstrap) as reader:
            return {
                (topic, number): reader.get_watermark_offsets(TopicPartition(topic, number), timeout=_TIMEOUT_S)[1]
                for topic in topics
                for number in self._admin.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions
            }

    def committed(self, group: str, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """What the group has committed for good, 0 where nothing: offsets of an open transaction do not count."""
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(*partition) for partition in partitions])
        future = self._admin.list_consumer_group_offsets([asked], require_stable=True)[group]
        try:
            found = future.result(_TIMEOUT_S).topic_partitions
        except KafkaException as error:
            if error.args[0].retriable() or error.args[0].code() == KafkaError.UNSTABLE_OFFSET_COMMIT:
                return dict.fromkeys(((tp.topic, tp.partition) for tp in asked.topic_partitions), 0)
            raise
        return {(tp.topic, tp.partition): max(0, tp.offset) for tp in found}

    def read(self, topic: str) -> Iterator[tuple[bytes, bytes | None]]:
        """(key, value) of every committed record, in order within a partition."""
        with _reader(self.bootstrap) as reader:
            numbers = self._admin.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions
            reader.assign([TopicPartition(topic, number, 0) for number in numbers])
            # By number: a partition that grows meanwhile ends more than once.
            open_partitions = set(numbers)
            while open_partitions:
                for message in reader.consume(_CHUNK, 0.2):
                    error = message.error()
                    if error is None:
                        yield message.key() or b"", message.value()
                    elif error.code() == KafkaError._PARTITION_EOF:
                        open_partitions.discard(message.partition())
                    else:
                        raise KafkaException(error)


@contextmanager
def _reader(bootstrap: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "benchmark.reader",
            "enable.partition.eof": True,
            **READER,
            **_QUIET,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()
