"""Reads topics from a time or their beginning to the end they have now: nothing committed is skipped, or it raises.

For people who look something up. It joins no group and commits nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

Progress = Callable[[str, int, int], None]
"""(what is being read, records done, records in all)"""
Place = tuple[str, int]
"""Topic and partition."""

_REQUEST_SECONDS = 5.0
# An open transaction does not hold us back (we end where it begins), so silence means a broker that is away.
_SILENCE_SECONDS = 20.0
# What a group's coordinator says while it starts.
_SETTLING = frozenset(
    {KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR}
)
_SLICE_RECORDS = 10_000
_SLICE_SECONDS = 0.05


class ScanError(RuntimeError):
    """Kafka does not answer, or a topic is missing."""


@dataclass
class _Span:
    """What is left to read of one partition."""

    position: int
    end: int


class Scanner:
    """A view of one cluster. Use it as a context manager."""

    def __init__(self, bootstrap: str, progress: Progress = lambda *_: None) -> None:
        """Raises ScanError when the cluster does not answer."""
        common: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 0}
        self._bootstrap = bootstrap
        self._progress = progress
        self._admin = AdminClient(common)
        try:
            topics = self._admin.list_topics(timeout=_REQUEST_SECONDS).topics
        except KafkaException as error:
            raise ScanError(f"Kafka at {bootstrap} does not answer: {error.args[0].str()}") from None
        self.partitions: dict[str, int] = {name: len(topic.partitions) for name, topic in topics.items()}
        """Topic → number of its partitions, of all topics there are."""
        self.cut: set[str] = set()
        """Topics whose records from before the time asked for may be gone: retention has passed it."""
        self._consumer = Consumer(
            {
                **common,
                "group.id": "siyu-scan",  # nothing is committed under it; the client insists on a name
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                # By default a full queue makes the client look away for a second.
                "fetch.queue.backoff.ms": 20,
            }
        )
        self._open: dict[Place, _Span] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._consumer.close()

    def read_since(self, what: str, places: Mapping[Place, int]) -> Iterator[Message]:
        """The committed records of each partition from a time on (epoch ms), in the partition's order.

        ``leave`` ends a partition early. Raises ScanError.
        """
        asked = [TopicPartition(*place, from_ms) for place, from_ms in places.items()]
        with self._explained(what):
            bounds = self.bounds(places)
            spans = {}
            for found in self._consumer.offsets_for_times(asked, timeout=_REQUEST_SECONDS):
                start, end = bounds[found.topic, found.partition]
                if 0 < start == found.offset:
                    self.cut.add(found.topic)
                if found.offset >= 0:  # else every record is older
                    spans[found.topic, found.partition] = _Span(found.offset, end)
            for message in self._messages(what, spans):
                # Their times need not ascend: behind the first that is new enough there may be older ones.
                if message.timestamp()[1] >= places[message.topic(), message.partition()]:  # type: ignore[index]
                    yield message

    def read_from(self, what: str, place: Place, offset: int) -> Iterator[Message]:
        """The committed records of one partition from an offset on. Raises ScanError."""
        with self._explained(what):
            _, end = self.bounds([place])[place]
            yield from self._messages(what, {place: _Span(offset, end)})

    def read_topic(self, topic: str) -> Iterator[Message]:
        """Every committed record there is of a topic, one partition after the other. Raises ScanError."""
        for number in range(self.partitions[topic]):
            yield from self.read_from(f"{topic} partition {number}", (topic, number), 0)

    def leave(self, place: Place) -> None:
        """Reads no more of a partition."""
        if self._open.pop(place, None) is not None:
            self._consumer.pause([TopicPartition(*place)])

    def _messages(self, what: str, spans: dict[Place, _Span]) -> Iterator[Message]:
        self._open = {place: span for place, span in spans.items() if span.position < span.end}
        self._consumer.assign([TopicPartition(*place, span.position) for place, span in self._open.items()])
        total = sum(span.end - span.position for span in self._open.values())
        heard = time.monotonic()
        while self._open:
            self._progress(what, total - sum(span.end - span.position for span in self._open.values()), total)
            messages = self._consumer.consume(_SLICE_RECORDS, _SLICE_SECONDS)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_SECONDS:
                topic, partition = next(iter(self._open))
                raise ScanError(f"Kafka at {self._bootstrap}: {topic} partition {partition} does not answer")
            for message in messages:
                place, offset, error = (message.topic(), message.partition()), message.offset(), message.error()
                span = self._open.get(place)  # type: ignore[arg-type]
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if error.fatal() or not error.retriable():
                        raise KafkaException(error)
                    continue
                if span is None or offset is None:
                    continue
                if error is None and offset < span.end:
                    span.position = offset + 1
                    yield message
                # An end that is seen before the one that was asked for is an older answer: more is to come.
                if offset + (error is None) >= span.end:
                    self.leave(place)  # type: ignore[arg-type]
        self._progress(what, total, total)

    def bounds(self, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
        """(first offset there is, the one behind the last committed record). Raises ScanError."""

        def ask(spec: OffsetSpec) -> dict[Place, int]:
            answers = self._admin.list_offsets(
                {TopicPartition(*place): spec for place in places},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_REQUEST_SECONDS,
            )
            return {(tp.topic, tp.partition): answer.result().offset for tp, answer in answers.items()}

        with self._explained("offsets"):
            starts, ends = ask(OffsetSpec.earliest()), ask(OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return {place: (starts[place], ends[place]) for place in starts}

    def committed(self, group: str, place: Place) -> int:
        """The offset a consumer group goes on at; 0 when it has committed none. Raises ScanError."""
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(*place)])
        deadline = time.monotonic() + _SILENCE_SECONDS
        with self._explained(f"group {group}"):
            while True:
                answer = self._admin.list_consumer_group_offsets([asked], request_timeout=_REQUEST_SECONDS)[group]
                try:
                    offset: int = answer.result().topic_partitions[0].offset
                except KafkaException as error:
                    if error.args[0].code() not in _SETTLING or time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
                else:
                    return max(0, offset)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise ScanError(f"Kafka at {self._bootstrap}: {what}: {error.args[0].str()}") from None
