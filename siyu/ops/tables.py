"""Topics that every process knows whole: each committed record of a few small topics, from the first to the newest,
handed to the table that keeps it, and how long ago a table was last known to be complete.

A table learns of a new record some tens of milliseconds after its commit. It never goes back to knowing less: while
Kafka is away the tables keep what they have, their age grows (:meth:`TopicTables.age_ms`), and whoever must not act on
old knowledge asks :meth:`TopicTables.fresh`. The age is never flattered:

* It counts from before the answer that showed the end of a partition could have been written, so a process that was
  frozen is old when it wakes, not new.
* Behind the last stable offset lies an open transaction with records nobody may read yet. While that offset stands
  still, the age counts from when it was first seen, so a transaction that never ends makes the table old.

No consumer group: every process reads everything, and none waits for another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from siyu.events import CodecError
from siyu.ops import dlq
from siyu.ops.logging import get_logger

Apply = Callable[[bytes, bytes | None], None]
"""Takes a record's key and value; a value of None is a tombstone. What it raises is logged by class, counted, and the
record is left out."""

_POLL_MS = 50
_FETCH_WAIT_MS = 250
"""How long a broker holds an answer back when there is nothing new; so old is a table that is complete."""
_TURN_RECORDS = 1000
"""Applied at a stretch, so that a long topic does not hold up what else the process does."""
_LOOK_EVERY_S = 0.02
_METADATA_EVERY_S = 5.0
_CONNECT_S = 10.0
_REQUEST_TIMEOUT_MS = 5000
_SILENT_S = 10.0
"""A client that brought neither a record nor an answer for so long is replaced: aiokafka never asks the bootstrap
servers again, and a cluster that came back under other addresses is lost to it."""
_RETRY_S = 0.5
_CLOSE_S = 5.0
_MAX_FETCH_BYTES = 9 << 20
"""Above the largest record a topic takes."""


class RecordRefused(ValueError):
    """Base of what a table says of a record it does not take; the message quotes nothing of the record."""


class NotWritten(RuntimeError):
    """Kafka did not acknowledge every record; those that were acknowledged stay. Writing all again is harmless."""

    def __init__(self, topic: str, written: int, total: int, reason: str) -> None:
        super().__init__(
            f"{topic}: {written:,} of {total:,} records acknowledged, then {reason}; write all of it again"
        )
        self.written = written


@dataclass
class _Partition:
    place: TopicPartition
    position: int | None = None
    """Offset of the next record; None: from the beginning."""
    answered: int | None = None
    """The client's stamp of the answer that was looked at last."""
    stable: int = -1
    """End of what may be read, as of that answer."""
    seen_s: float = 0.0
    """Up to this moment nothing is missing in a table that holds all up to ``stable``."""
    heard_s: float = 0.0
    """When the client last brought anything."""
    complete_s: float | None = None
    """When the table was last known to hold all of the partition."""


@dataclass
class _Followed:
    apply: Apply
    only_new: bool = False
    partitions: dict[int, _Partition] = field(default_factory=dict)
    ready: bool = False
    """Was complete once."""
    applied: int = 0
    refused: int = 0


class _Replace(Exception):
    """The client has to be replaced; the reason is from a closed set."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TopicTables:
    """Follows topics for one process. One event loop; the questions may be asked from any thread."""

    def __init__(
        self,
        bootstrap: str,
        client_id: str,
        *,
        refused: Callable[[str], None] = lambda topic: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``refused(topic)`` is told of every record that could not be applied: a metric's hook."""
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._refused = refused
        self._monotonic = monotonic
        self._topics: dict[str, _Followed] = {}
        self._all_ready = asyncio.Event()
        self._problem: str | None = "not connected yet"
        self._log = get_logger()

    def follow(self, topic: str, apply: Apply, *, only_new: bool = False) -> None:
        """Before :meth:`run`: hands every record of ``topic`` to ``apply``, in the order of its partition. Records may
        come again after a new connection: a table must bear that. ``only_new``: from the end a partition has when it is
        first seen, for words that are of no use to whoever was not there."""
        if topic in self._topics:
            raise ValueError(f"{topic} is followed already")
        self._topics[topic] = _Followed(apply, only_new)

    def ready(self) -> bool:
        """Whether every table was complete once: all that had been committed when this process began is known."""
        return all(followed.ready for followed in self._topics.values())

    async def caught_up(self) -> None:
        """Returns once :meth:`ready`."""
        if not self.ready():
            await self._all_ready.wait()

    def problem(self) -> str | None:
        """None while Kafka answers, else what is wrong."""
        return self._problem

    def age_ms(self, topic: str) -> int | None:
        """How long ago (wall time) the table was last known to hold every committed record; None: never yet."""
        followed = self._topics[topic]
        known = [partition.complete_s for partition in list(followed.partitions.values())]
        complete = [at for at in known if at is not None]
        if not followed.ready or len(complete) < len(known):
            return None
        return max(0, int((self._monotonic() - min(complete)) * 1000))

    def fresh(self, topic: str, within_ms: int) -> bool:
        """Whether :meth:`age_ms` is known and at most ``within_ms``."""
        age = self.age_ms(topic)
        return age is not None and age <= within_ms

    def lag(self, topic: str) -> int:
        """Offsets between what was applied and the end that was seen last; 0 when nothing was seen."""
        partitions = list(self._topics[topic].partitions.values())
        return sum(max(0, p.stable - (p.position or 0)) for p in partitions)

    def applied(self, topic: str) -> int:
        """Records handed to the table without an error, repeats included."""
        return self._topics[topic].applied

    def refusals(self, topic: str) -> int:
        """Records that could not be applied."""
        return self._topics[topic].refused

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``: reads, and replaces its client for as long as it takes when Kafka is away."""
        while not stop.is_set():
            consumer: AIOKafkaConsumer | None = None
            try:
                consumer = self._client()
                await self._follow_with(consumer, stop)
            except _Replace as replace:
                self._report(replace.reason)
            except (KafkaError, OSError, TimeoutError) as error:
                self._report(type(error).__name__)
            except Exception as error:  # the rim: whatever a client died of, a process must not go on without tables
                self._report(type(error).__name__)
                self._log.error("table_client_failed_inside", exc_info=error)
            finally:
                if consumer is not None:
                    await self._close(consumer)
            await _until(stop, _RETRY_S)

    # -- one client -----------------------------------------------------------------------------------------------

    def _client(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            max_partition_fetch_bytes=_MAX_FETCH_BYTES,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=int(_METADATA_EVERY_S * 1000),
        )

    async def _follow_with(self, consumer: AIOKafkaConsumer, stop: asyncio.Event) -> None:
        async with asyncio.timeout(_CONNECT_S):
            await consumer.start()
            there = await self._there(consumer)
        assigned = await self._assign(consumer, there)
        looked = self._monotonic()
        # Beside the reading: whoever knows the topics may be away while those who have the records are not.
        asking: asyncio.Task[list[TopicPartition]] | None = None
        ask_due = looked + _METADATA_EVERY_S
        try:
            while not stop.is_set():
                if assigned:
                    records = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_TURN_RECORDS)
                else:
                    records = {}
                    await _until(stop, _RETRY_S)
                for partition, batch in records.items():
                    self._take(partition, batch)
                now = self._monotonic()
                if records or now - looked >= _LOOK_EVERY_S:
                    async with asyncio.timeout(_SILENT_S):
                        await self._look(consumer, assigned, looked)
                    looked = now
                if asking is not None and asking.done():
                    known = not asking.cancelled() and asking.exception() is None
                    if known and asking.result() != there:
                        there = asking.result()
                        assigned = await self._assign(consumer, there)
                    asking = None
                if asking is None and now >= ask_due:
                    asking = asyncio.create_task(self._there(consumer))
                    ask_due = now + _METADATA_EVERY_S
                await asyncio.sleep(0)
        finally:
            if asking is not None:
                asking.cancel()
                await _ended(asking)

    async def _there(self, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
        """The partitions of the followed topics that there are now."""
        parts: Any = consumer  # the public ways answer from memory, and only for topics that were asked for before
        cluster = await parts._client.fetch_all_metadata()
        return [
            TopicPartition(topic, number)
            for topic in self._topics
            for number in sorted(cluster.partitions_for_topic(topic) or ())
        ]

    async def _assign(self, consumer: AIOKafkaConsumer, there: list[TopicPartition]) -> list[_Partition]:
        missing = sorted(set(self._topics) - {partition.topic for partition in there})
        self._report(f"no topic {', '.join(missing)}" if missing else None)
        if there:
            consumer.assign(there)
        assigned = []
        for place in there:
            state = self._topics[place.topic].partitions.setdefault(place.partition, _Partition(place))
            state.answered, state.heard_s = None, self._monotonic()
            if state.position is not None:
                consumer.seek(place, state.position)
            elif self._topics[place.topic].only_new:
                async with asyncio.timeout(_CONNECT_S):
                    await consumer.seek_to_end(place)
            assigned.append(state)
        return assigned

    def _take(self, partition: TopicPartition, records: list[ConsumerRecord]) -> None:
        followed = self._topics[partition.topic]
        for record in records:
            try:
                followed.apply(record.key or b"", record.value)
                followed.applied += 1
            except Exception as error:  # the rim: one record must not end the table
                followed.refused += 1
                self._refused(record.topic)
                known = isinstance(error, RecordRefused | CodecError)
                self._log.error(
                    "table_record_refused",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    error=type(error).__name__,
                    detail=dlq.place(error),
                    error_detail=str(error) if known else None,
                )

    async def _look(self, consumer: AIOKafkaConsumer, assigned: list[_Partition], looked: float) -> None:
        """Takes down how far each partition is. An answer that was not there at ``looked`` was written after it, or
        lay unread for less than a turn. Raises _Replace when a partition has been silent for too long."""
        now = self._monotonic()
        for state in assigned:
            answered = consumer.last_poll_timestamp(state.place)
            stable = consumer.last_stable_offset(state.place)
            if answered is not None and stable is not None:
                position = await consumer.position(state.place)
                if position != state.position or answered != state.answered:
                    state.heard_s = now
                state.position = position
                if answered != state.answered:
                    if stable != state.stable or stable >= (consumer.highwater(state.place) or 0):
                        state.seen_s = looked
                    state.answered, state.stable = answered, stable
                if position >= stable:
                    state.complete_s = state.seen_s
            if now - state.heard_s >= _SILENT_S:
                raise _Replace("silent")
        for followed in self._topics.values():
            states = list(followed.partitions.values())
            if not followed.ready and states and all(state.complete_s is not None for state in states):
                followed.ready = True
        if self.ready():
            self._all_ready.set()

    async def _close(self, consumer: AIOKafkaConsumer) -> None:
        """Throws a client away. aiokafka awaits requests that it has just cancelled, and their CancelledError would end
        whoever waits for it, with connections left open: so it ends in a task of its own, and then its connections."""
        parts: Any = consumer
        if not await _ended(asyncio.create_task(consumer.stop())):
            self._log.warning("table_client_dropped")
            await _ended(asyncio.create_task(parts._client.close()))

    def _report(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            if problem is None:
                self._log.info("tables_connected")
            else:
                self._log.warning("tables_behind", detail=problem, retry_in_seconds=_RETRY_S)


async def append(
    bootstrap: str,
    topic: str,
    records: Iterable[tuple[bytes, bytes | None]],
    *,
    total: int = 0,
    progress: Callable[[int], None] = lambda written: None,
    timeout_seconds: float = 30.0,
) -> int:
    """Writes records (key, value) durably and in their order per key, for people's tools; returns how many.

    ``progress`` is told how many have been acknowledged on all in-sync replicas. Raises NotWritten when an
    acknowledgement takes longer than ``timeout_seconds`` (wall time).
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        linger_ms=5,
    )
    written = 0
    try:
        async with asyncio.timeout(timeout_seconds):
            await producer.start()
        under_way: list[asyncio.Future[Any]] = []

        async def settle() -> None:
            nonlocal written
            async with asyncio.timeout(timeout_seconds):
                await asyncio.gather(*under_way)
            written += len(under_way)
            under_way.clear()
            progress(written)

        for key, value in records:
            async with asyncio.timeout(timeout_seconds):
                under_way.append(await producer.send(topic, key=key, value=value))
            if len(under_way) >= _TURN_RECORDS:
                await settle()
        await settle()
    except (KafkaError, OSError, TimeoutError) as error:
        raise NotWritten(topic, written, max(total, written), type(error).__name__) from None
    finally:
        await _stop(producer)
    return written


async def _stop(producer: AIOKafkaProducer) -> None:
    """Stops a producer; one whose broker is away would flush for ever, so it is dropped with what it holds."""
    if not await _ended(asyncio.create_task(producer.stop())):
        parts: Any = producer
        parts._closed = True
        await _ended(asyncio.create_task(parts._sender.close()))
        await _ended(asyncio.create_task(producer.client.close()))


async def _ended(task: asyncio.Task[Any]) -> bool:
    """Whether it ended well, and within the time for closing; what did not is cancelled."""
    try:
        await asyncio.wait({task}, timeout=_CLOSE_S)
    finally:
        task.cancel()
    return task.done() and not task.cancelled() and task.exception() is None


async def _until(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
