"""Global tables: compacted topics that every member reads whole before it starts, and follows between batches.

A batch sees one version of every table. What a step derives from one carries its version, so that a decision can be
traced to the rules it was made by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from siyu.stream import clients
from siyu.stream.changelog import READ_COMMITTED, log_bounds
from siyu.stream.metrics import StreamMetrics
from siyu.stream.types import Processor, StreamSettings

_SLICE_RECORDS = 20_000


class GlobalTable(dict[str, Any]):
    """Key → decoded value, as of ``version``."""

    def __init__(self, partitions: int) -> None:
        super().__init__()
        self.positions = [0] * partitions

    @property
    def version(self) -> str:
        """The next offset of each partition: two tables of one version are the same."""
        return ",".join(map(str, self.positions))


class GlobalTables:
    """The tables of one member, kept up to date by one consumer outside the group."""

    def __init__(
        self, processor: Processor[Any], settings: StreamSettings, admin: AdminClient, metrics: StreamMetrics
    ) -> None:
        """Raises KafkaException when the broker cannot be asked."""
        self._decode = processor.codec.decode
        self._metrics = metrics
        self._log = structlog.get_logger().bind(processor=processor.name, instance=settings.instance)
        self.tables: dict[str, GlobalTable] = {}
        self._missing: dict[tuple[str, int], int] = {}
        existing = admin.list_topics(timeout=5.0).topics
        for topic in processor.globals:
            partitions = sorted(existing[topic].partitions)
            self.tables[topic] = GlobalTable(len(partitions))
            bounds = log_bounds(admin, topic, partitions, READ_COMMITTED)
            self._missing |= {(topic, p): end for p, (start, end) in bounds.items() if start < end}
        self._consumer = Consumer(
            {**clients.restorer(processor, settings), "auto.offset.reset": "earliest"},
            logger=logging.getLogger("siyu.kafka"),
        )
        self._consumer.assign(
            [TopicPartition(topic, p, 0) for topic, table in self.tables.items() for p in range(len(table.positions))]
        )

    def load(self, idle: Callable[[], None]) -> None:
        """Reads on until everything that was there at the beginning has been applied."""
        while self._missing:
            self.follow(0.1)
            idle()

    def follow(self, seconds: float = 0.0) -> None:
        """Applies what has come since. Between batches only."""
        for message in self._consumer.consume(_SLICE_RECORDS, seconds):
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert partition is not None
            assert offset is not None
            error = message.error()
            if error is None:
                self._apply(self.tables[topic], message)
                offset += 1
            elif error.code() != error._PARTITION_EOF:
                if error.fatal():
                    raise KafkaException(error)
                continue
            positions = self.tables[topic].positions
            positions[partition] = max(positions[partition], offset)
            if offset >= self._missing.get((topic, partition), 0):
                self._missing.pop((topic, partition), None)

    def _apply(self, table: GlobalTable, message: Message) -> None:
        key, value = message.key(), message.value()
        try:
            if key is None:
                raise ValueError("a global record without a key")
            name = key.decode()
            if value is None:
                table.pop(name, None)
            else:
                table[name] = self._decode(value)
        except Exception as error:  # the rim of the codec: the last good value stays
            self._metrics.global_refused()
            self._log.error(
                "global_refused",
                topic=message.topic(),
                partition=message.partition(),
                offset=message.offset(),
                error=type(error).__name__,
            )

    def version_header(self) -> list[tuple[str, bytes]]:
        """What tells later by which versions an output was made."""
        return [(f"globals.{topic}", table.version.encode()) for topic, table in self.tables.items()]

    def close(self) -> None:
        self._consumer.close()
