"""The changelog is the truth: this brings a store to exactly what the changelog says, whoever wrote it last.

A restore ends at the high watermark read *uncommitted*, while its records are read *committed*. A frozen member's open
transaction holds the last stable offset back, and its successor may already have committed behind it: ending at the
stable offset would miss those commits. Reaching the watermark means waiting until the open transaction has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from siyu.stream.errors import TopologyError
from siyu.stream.store import StateStore
from siyu.stream.types import Processor

READ_COMMITTED, READ_UNCOMMITTED = IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED
_REQUEST_SECONDS = 5.0
_SLICE_RECORDS = 20_000
_SLICE_SECONDS = 0.1


@dataclass(frozen=True)
class Topics:
    """What the broker says about the processor's topics at start."""

    partitions: int
    changelog_id: str
    """Changes when the changelog is deleted and created again."""
    delete_retention_ms: int
    """A store unused for longer may miss deletions, since the tombstones may be gone."""


def inspect_topics(admin: AdminClient, processor: Processor[Any]) -> Topics:
    """Checks that all topics exist, inputs and changelog are co-partitioned, changelog and globals are compacted.

    Raises TopologyError saying what to change, KafkaException when the broker cannot be asked.
    """
    existing = admin.list_topics(timeout=_REQUEST_SECONDS).topics
    needed = [
        *processor.inputs,
        processor.changelog,
        *sorted(processor.outputs),
        processor.dead_letters,
        *processor.globals,
    ]
    missing = [topic for topic in needed if topic not in existing]
    if missing:
        raise TopologyError(
            f"processor {processor.name}: missing topics: {', '.join(missing)}; run `siyu topics apply`"
        )
    counts = {topic: len(existing[topic].partitions) for topic in (*processor.inputs, processor.changelog)}
    if len(set(counts.values())) != 1:
        raise TopologyError(
            f"processor {processor.name}: inputs and changelog need the same number of partitions, have "
            + ", ".join(f"{topic}: {count}" for topic, count in counts.items())
        )
    kept = [processor.changelog, *processor.globals]
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in kept]
    answers = admin.describe_configs(resources, request_timeout=_REQUEST_SECONDS)
    configs = {resource.name: answer.result() for resource, answer in answers.items()}
    for topic in kept:
        if (policy := configs[topic]["cleanup.policy"].value) != "compact":
            raise TopologyError(
                f"{topic}: cleanup.policy is {policy}; it must be compact, or states and global values get lost"
            )
    described = admin.describe_topics(TopicCollection([processor.changelog]), request_timeout=_REQUEST_SECONDS)
    return Topics(
        partitions=counts[processor.changelog],
        changelog_id=str(described[processor.changelog].result().topic_id),
        delete_retention_ms=int(configs[processor.changelog]["delete.retention.ms"].value),
    )


Bounds = dict[int, tuple[int, int]]
"""Partition → (log start, log end)."""


def log_bounds(admin: AdminClient, topic: str, partitions: list[int], isolation: IsolationLevel) -> Bounds:
    """Where the log begins and ends; read committed it ends at the first transaction that is still open."""

    # The question carries the leader's epoch as this client knows it; after a broker's restart that is an old one.
    admin.list_topics(topic, timeout=_REQUEST_SECONDS)

    def ask(spec: OffsetSpec) -> dict[int, int]:
        request = {TopicPartition(topic, p): spec for p in partitions}
        answers = admin.list_offsets(request, isolation_level=isolation, request_timeout=_REQUEST_SECONDS)
        return {tp.partition: future.result().offset for tp, future in answers.items()}

    starts, ends = ask(OffsetSpec.earliest()), ask(OffsetSpec.latest())  # type: ignore[no-untyped-call]
    return {p: (starts[p], ends[p]) for p in partitions}


class Restore:
    """Replays the changelog into the stores of newly assigned partitions, a slice at a time.

    Must be created after the committed input offsets were read, stable: then no changelog record that belongs to them
    can appear behind the watermarks taken here.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        stores: dict[int, StateStore],
        bounds: Bounds,
        *,
        delete_retention_ms: int,
        now_ms: int,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._stores = stores
        self._now_ms = now_ms
        self.rebuilt: dict[int, str] = {}
        """Partition → why its store was started from scratch."""
        self.missing: dict[int, int] = {}
        """Partition → the watermark it still has to reach."""
        for partition, store in stores.items():
            start, end = bounds[partition]
            reason = self._unusable(store, start, end, delete_retention_ms)
            if reason:
                self.rebuilt[partition] = reason
                store.wipe()
            if store.position < end:
                self.missing[partition] = end
        self._assign()

    def _unusable(self, store: StateStore, start: int, end: int, delete_retention_ms: int) -> str | None:
        if store.position == 0:
            return None
        if store.position < start:
            return "its position is no longer in the changelog"
        if store.position > end:
            return "it is ahead of the changelog"
        if self._now_ms - store.used_ms > delete_retention_ms:
            return "it was unused for longer than the changelog keeps tombstones"
        return None

    def _assign(self) -> None:
        self._consumer.assign(
            [TopicPartition(self._topic, p, self._stores[p].position or OFFSET_BEGINNING) for p in sorted(self.missing)]
        )

    def left(self) -> int:
        """Offsets still to pass, over all partitions."""
        return sum(end - self._stores[partition].position for partition, end in self.missing.items())

    def step(self) -> int:
        """Applies the next slice; ``missing`` is empty when all is restored. Returns the records applied."""
        changes: dict[int, list[tuple[bytes, bytes | None]]] = {}
        reached: dict[int, int] = {}
        for message in self._consumer.consume(_SLICE_RECORDS, _SLICE_SECONDS):
            partition, offset, error = message.partition(), message.offset(), message.error()
            assert partition is not None
            assert offset is not None
            if error is None:
                key = message.key()
                assert key is not None
                changes.setdefault(partition, []).append((key, message.value()))
                reached[partition] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # Where the fetch stands, markers and aborted records passed: the only way to see those are behind us.
                reached[partition] = max(offset, reached.get(partition, 0))
            elif error.code() == KafkaError._AUTO_OFFSET_RESET and partition in self.missing:
                # Compaction moved the log's start past our position since we looked.
                self.rebuilt[partition] = "its position is no longer in the changelog"
                self._stores[partition].wipe()
                changes.pop(partition, None)
                reached.pop(partition, None)
                self._assign()
                break
        for partition, position in reached.items():
            store = self._stores[partition]
            if position > store.position:
                store.write(changes.get(partition, ()), position, self._now_ms)
            if position >= self.missing.get(partition, 0) and self.missing.pop(partition, None) is not None:
                self._consumer.pause([TopicPartition(self._topic, partition)])
        return sum(map(len, changes.values()))
