"""Taking partitions over: what the group says is committed, the states that belong to it, and where fetching begins.

Two of the three rules that make it right while the last owner may still be alive (the first is the loop's):

2. the committed offsets first and stable, then the changelog's end, then the restore (``Takeover.ask``);
3. a restore ends at the high watermark read uncommitted (``Takeover.changelog_bounds``).

docs/engine.md has the argument in full.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from siyu.stream import clients
from siyu.stream.changelog import READ_COMMITTED, READ_UNCOMMITTED, Bounds, Restore, Topics, log_bounds
from siyu.stream.errors import InputLost
from siyu.stream.metrics import StreamMetrics
from siyu.stream.partition import Partition, wall_ms
from siyu.stream.state import StateCodec
from siyu.stream.store import StateStore, topology
from siyu.stream.types import Processor, S, StreamSettings

T = TypeVar("T")
CALL_SECONDS = 2.0
TELL_SECONDS = 5.0
"""How often what takes long says how far it is."""
Committed = dict[tuple[str, int], tuple[int, int]]
"""(input topic, partition) → (committed offset, stream time), where there is one."""


class Waiting(Protocol):
    """Calls until it succeeds, and raises when the assignment has changed or a stop came meanwhile."""

    def __call__(self, what: str, call: Callable[[], T], /) -> T: ...


class Takeover(Generic[S]):
    """One member's way to its partitions, for one assignment."""

    def __init__(
        self,
        processor: Processor[S],
        settings: StreamSettings,
        topics: Topics,
        admin: AdminClient,
        consumer: Consumer,
        metrics: StreamMetrics,
        reached: Callable[[str], None],
        waiting: Waiting,
        idle: Callable[[], None],
    ) -> None:
        """``idle`` lets the group's callbacks run; it raises as ``waiting`` does."""
        self.processor = processor
        self.settings = settings
        self.admin = admin
        self.consumer = consumer
        self.reached = reached
        self.waiting = waiting
        self._topics = topics
        self._metrics = metrics
        self._idle = idle
        self._log = structlog.get_logger().bind(processor=processor.name, instance=settings.instance)

    def run(self, owned: list[int], partitions: dict[int, Partition[S]]) -> None:
        """Opens, restores and positions the owned partitions; ``partitions`` has each as soon as its store is open."""
        began = time.monotonic()
        self._metrics.restoring.set(len(owned))
        committed, bounds = self.ask(owned)
        states = StateCodec(self.processor)
        for number in owned:
            partition = self.waiting("open store", partial(self._open, number, states, len(owned)))
            partitions[number] = partition
            for (topic, p), (offset, stream_time) in committed.items():
                if p == number:
                    partition.positions[topic] = offset
                    partition.stream_time = max(partition.stream_time, stream_time)
        self.reached("stores open")
        self._restore(partitions, bounds)
        self.reached("restored")
        if self.processor.on_timer is None and any(next(p.store.timers(0), None) for p in partitions.values()):
            self._log.warning("timers_without_on_timer", detail="they stay in their states and never fire")
        for topic in self.processor.inputs:
            fresh = [number for number in owned if topic not in partitions[number].positions]
            if fresh:
                starts = self.waiting("input start", partial(log_bounds, self.admin, topic, fresh, READ_COMMITTED))
                for number in fresh:
                    self._begin_input(partitions[number], topic, starts[number][0])
        seconds = time.monotonic() - began
        self._metrics.restoring.set(0)
        self._metrics.restore_seconds.observe(seconds)
        self._log.info("partitions_taken_over", partitions=owned, seconds=round(seconds, 3))

    def ask(self, owned: list[int]) -> tuple[Committed, Bounds]:
        """Committed offsets and the changelog's bounds, in this order (rule 2).

        What commits after the first answer was sent by a member whose offsets the group no longer takes.
        """
        committed = self.waiting("committed offsets", partial(self.committed, owned))
        self.reached("offsets asked")
        bounds = self.waiting("changelog end", partial(self.changelog_bounds, owned))
        self.reached("end asked")
        return committed, bounds

    def changelog_bounds(self, owned: list[int]) -> Bounds:
        """Log start and end of the owned partitions' changelog, the end read uncommitted (rule 3)."""
        return log_bounds(self.admin, self.processor.changelog, owned, READ_UNCOMMITTED)

    def committed(self, owned: list[int]) -> Committed:
        """The consumer reads committed, so this waits for offsets of a transaction that is still open (rule 2)."""
        asked = [TopicPartition(topic, number) for topic in self.processor.inputs for number in owned]
        found = {}
        for tp in self.consumer.committed(asked, timeout=CALL_SECONDS):
            if tp.error is not None:
                raise KafkaException(tp.error)
            if tp.offset >= 0:
                stream_time = tp.metadata or ""
                found[tp.topic, tp.partition] = (tp.offset, int(stream_time) if stream_time.isdigit() else 0)
        return found

    def _open(self, number: int, states: StateCodec[S], owned: int) -> Partition[S]:
        settings = self.settings
        store = StateStore(settings.state_dir / self.processor.name / settings.instance / f"p{number}")
        try:
            if not store.adopt(topology(self.processor, self._topics.changelog_id), self.processor):
                self._rebuilt(number, "the changelog was created anew")
        except BaseException:
            store.close()
            raise
        return Partition(number, self.processor, settings, states, store, owned)

    def _restore(self, partitions: dict[int, Partition[S]], bounds: Bounds) -> None:
        consumer = Consumer(clients.restorer(self.processor, self.settings), logger=logging.getLogger("siyu.kafka"))
        try:
            restore = Restore(
                consumer,
                self.processor.changelog,
                {number: p.store for number, p in partitions.items()},
                bounds,
                delete_retention_ms=self._topics.delete_retention_ms,
                now_ms=wall_ms(),
            )
            told = time.monotonic()
            while restore.missing:
                if time.monotonic() - told > TELL_SECONDS:
                    told = time.monotonic()
                    self._log.info("restoring", partitions=sorted(restore.missing), records=restore.left())
                self._metrics.restored.inc(restore.step())
                self._metrics.restoring.set(len(restore.missing))
                self._metrics.restore_left.set(restore.left())
                self.reached("restoring")
                self._idle()
        finally:
            consumer.close()
        for number, reason in restore.rebuilt.items():
            self._rebuilt(number, reason)

    def _rebuilt(self, number: int, reason: str) -> None:
        self._log.warning("store_rebuilt", partition=number, reason=reason)
        self._metrics.rebuilt.inc()

    def _begin_input(self, partition: Partition[S], topic: str, start: int) -> None:
        """An input without a committed offset is read from its start, which with states there would count twice."""
        if not partition.positions and not partition.store.is_empty():
            raise InputLost(
                f"processor {self.processor.name}: partition {partition.number} has states but no committed offsets "
                "(group deleted, or away for longer than offsets.retention.minutes); set the group's offsets, or start "
                "over with an empty changelog"
            )
        partition.positions[topic] = start


def starting_offsets(partitions: dict[int, Partition[Any]]) -> list[TopicPartition]:
    """Where fetching goes on."""
    return [
        TopicPartition(topic, number, offset)
        for number, partition in partitions.items()
        for topic, offset in partition.positions.items()
    ]
