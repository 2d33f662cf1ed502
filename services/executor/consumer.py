"""One lane: actions in, each performed, its outcome and its offset committed in one transaction.

So a consumed action has exactly one published outcome, whenever the process dies. What can happen twice is the *call*:
a process that dies after WeCom's answer and before the commit leaves the action to be called again by its successor.
Only repeat-safe endpoints get that far (see ``domain.refusal``).

A producer's transactional.id and a consumer's group.instance.id belong to the instance: a restarted process replaces
its predecessor at once, ends its open transaction before asking for offsets, and a zombie's commits fail.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced
from aiokafka.structs import ConsumerRecord

from services.executor.lanes import Lane
from services.executor.metrics import ExecutorMetrics
from services.executor.performer import Abandoned, Performer, Ticket, internal_error
from services.executor.window import DeadLetter, Entry, PartitionWindow, Result
from siyu.events import Action, Codec, CodecError
from siyu.ops import dlq
from siyu.ops.logging import get_logger

OUTCOMES = "action.outcomes"
DEAD_LETTERS = "dlq.executor"

_POLL_MS = 50
_COMMIT_EVERY_SECONDS = 0.1
"""A transaction costs the broker the same for one outcome as for hundreds; a call that waits for it is none."""
_COMMIT_RECORDS = 500
_COMMIT_BYTES = 16 << 20
_MAX_RECORD_BYTES = 8 << 20
_TRANSACTION_TIMEOUT_SECONDS = 15
"""Short: a successor waits this long for a frozen process's open transaction."""
_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_CALLS_SHARE = 0.7
"""Of the grace period, for calls under way; the rest is for committing."""


class Fenced(Exception):
    """Another process runs as this instance: this one is the zombie and must end."""

    exit_code = 75


class LaneConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Runs one lane until stopped. ``outcomes`` and ``dead_letters`` are topics."""

    def __init__(
        self,
        lane: Lane,
        performer: Performer,
        *,
        bootstrap: str,
        instance: str,
        codec: Codec,
        metrics: ExecutorMetrics,
        session_timeout_ms: int,
        stop_grace_seconds: float,
        log_events: bool,
    ) -> None:
        self.lane = lane
        self._performer = performer
        self._bootstrap = bootstrap
        self._member = f"executor-{instance}-{lane.name}"
        self._codec = codec
        self._metrics = metrics
        self._session_timeout_ms = session_timeout_ms
        self._grace = stop_grace_seconds
        self._log_events = log_events
        self._log = get_logger().bind(lane=lane.name, instance=instance)
        self._windows: dict[TopicPartition, PartitionWindow] = {}
        self._paused: set[TopicPartition] = set()
        self._committing = asyncio.Lock()
        self._commit_due = 0.0
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._assigned = False
        self._kafka_fails = False
        self._transaction_open = False

    def ready(self) -> bool:
        """Assigned, and Kafka took the last transaction."""
        return self._assigned and not self._kafka_fails

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``. Raises Fenced."""
        try:
            # The producer first: it ends the transaction a predecessor left open, and only then are offsets asked for.
            if not await self._until(stop, self._start_producer) or not await self._until(stop, self._start_consumer):
                return
            while not stop.is_set():
                try:
                    await self._turn()
                except KafkaError as error:
                    # What reading raises is not transient: aiokafka has given up. A new consumer starts clean.
                    self._kafka_fails = True
                    self._log.warning("kafka_read_failed", error=type(error).__name__, retry_in_seconds=_RETRY_SECONDS)
                    await self._drain(list(self._windows))
                    await self._close(self._consumer)
                    if not await self._until(stop, self._start_consumer):
                        break
            await self._drain(list(self._windows))
        finally:
            for window in self._windows.values():
                window.abort()
            await self._close(self._consumer)
            await self._close(self._producer)

    async def _turn(self) -> None:
        assert self._consumer is not None
        self._balance()
        room = [self.lane.window - len(window) for tp, window in self._windows.items() if tp not in self._paused]
        batches = await self._consumer.getmany(
            timeout_ms=_POLL_MS, max_records=max(1, min(room, default=self.lane.window))
        )
        self._kafka_fails = False
        for partition, records in batches.items():
            window = self._windows.setdefault(partition, PartitionWindow())
            for record in records:
                ticket = Ticket()
                window.take(Entry(record.offset, ticket, asyncio.create_task(self._perform(record, ticket))))
                self._metrics.in_flight.labels(self.lane.name).inc()
        if time.monotonic() >= self._commit_due:
            await self._commit()
            self._commit_due = time.monotonic() + _COMMIT_EVERY_SECONDS

    def _balance(self) -> None:
        """A full window takes no more; half empty it does again (pausing throws away what was fetched ahead)."""
        assert self._consumer is not None
        full = {tp for tp, window in self._windows.items() if len(window) >= self.lane.window}
        roomy = {tp for tp in self._paused if len(self._windows.get(tp, ())) <= self.lane.window // 2}
        if full - self._paused:
            self._consumer.pause(*(full - self._paused))
        if roomy:
            self._consumer.resume(*roomy)
        self._paused = (self._paused | full) - roomy

    async def _perform(self, record: ConsumerRecord, ticket: Ticket) -> Result | None:
        try:
            action = self._codec.decode_as(Action, record.value)
        except CodecError as error:
            self._log.error(
                "dead_letter",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                error=type(error).__name__,
            )
            return DeadLetter(record.key, record.value, self._headers(record, error))
        try:
            return await self._performer.perform(action, self.lane.patience, ticket)
        except Abandoned:
            return None
        except Exception:
            # The rim: a bug must end this action, visibly, and not the lane.
            self._log.error("action_failed_inside", action_id=action.action_id, exc_info=True)
            return internal_error(action)

    def _headers(self, record: ConsumerRecord, error: BaseException) -> list[tuple[str, bytes]]:
        return dlq.headers(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            stage="decode",
            error=error,
            processor="executor",
            earlier=record.headers or (),
        )

    # -- committing ---------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        """Publishes every finished prefix with its offsets: all of it, or, when the process dies, none."""
        async with self._committing:
            batch = self._collect()
            if not batch:
                return
            started = time.monotonic()
            if self._transaction_open:
                await self._replace_producer()  # a drain gave up in the middle of one, and its records with it
            while True:
                began = time.monotonic()
                try:
                    self._transaction_open = True
                    await self._transact(batch)
                    self._transaction_open = False
                    break
                except KafkaError as error:
                    self._kafka_fails = True
                    self._metrics.commit_retries.labels(self.lane.name).inc()
                    self._log.warning("commit_failed", error=type(error).__name__, retry_in_seconds=_RETRY_SECONDS)
                    fenced = isinstance(error, ProducerFenced | InvalidProducerEpoch)
                    if fenced and time.monotonic() - began < _TRANSACTION_TIMEOUT_SECONDS:
                        raise Fenced(f"another process writes as {self._member}") from None
                    # Fenced after the timeout: the broker was away for so long that it gave our transaction up itself.
                await self._replace_producer()
                if await self._committed_after_all(batch):
                    break
            self._kafka_fails = False
            self._metrics.commits.labels(self.lane.name).observe(time.monotonic() - started)
            for partition, finished in batch.items():
                self._windows[partition].committed(len(finished))
                for _, result in finished:
                    self._account(result)

    def _collect(self) -> dict[TopicPartition, list[tuple[Entry, Result]]]:
        batch: dict[TopicPartition, list[tuple[Entry, Result]]] = {}
        records = size = 0
        for partition, window in self._windows.items():
            for entry, result in window.finished():
                if records >= _COMMIT_RECORDS or size >= _COMMIT_BYTES:
                    return batch
                batch.setdefault(partition, []).append((entry, result))
                records += 1
                size += len(result.value or b"") if isinstance(result, DeadLetter) else len(result.response)
        return batch

    async def _transact(self, batch: dict[TopicPartition, list[tuple[Entry, Result]]]) -> None:
        assert self._producer is not None
        await self._producer.begin_transaction()
        sent = []
        for finished in batch.values():
            for _, result in finished:
                if isinstance(result, DeadLetter):
                    sent.append(
                        await self._producer.send(
                            DEAD_LETTERS, key=result.key, value=result.value, headers=result.headers
                        )
                    )
                else:
                    subject = result.subject or result.corp_id
                    sent.append(
                        await self._producer.send(OUTCOMES, key=subject.encode(), value=self._codec.encode(result))
                    )
        await asyncio.gather(*sent)
        offsets = {partition: finished[-1][0].offset + 1 for partition, finished in batch.items()}
        await self._producer.send_offsets_to_transaction(offsets, self.lane.group)
        await self._producer.commit_transaction()

    async def _replace_producer(self) -> None:
        """A new producer settles whatever transaction the old one left: commits what had been decided, else aborts."""
        while True:
            try:
                await self._close(self._producer)
                await asyncio.sleep(_RETRY_SECONDS)
                await self._start_producer()
                self._transaction_open = False
                return
            except KafkaError as error:
                self._log.warning("kafka_unreachable", error=type(error).__name__, retry_in_seconds=_RETRY_SECONDS)

    async def _committed_after_all(self, batch: dict[TopicPartition, list[tuple[Entry, Result]]]) -> bool:
        """How the transaction ended whose end we did not hear: the offsets were part of it."""
        assert self._consumer is not None
        partition, finished = next(iter(batch.items()))
        while True:
            try:
                committed = await self._consumer.committed(partition)
                return committed is not None and committed > finished[-1][0].offset
            except KafkaError as error:
                self._log.warning("kafka_unreachable", error=type(error).__name__, retry_in_seconds=_RETRY_SECONDS)
                await asyncio.sleep(_RETRY_SECONDS)

    def _account(self, result: Result) -> None:
        name = self.lane.name
        self._metrics.in_flight.labels(name).dec()
        if isinstance(result, DeadLetter):
            self._metrics.dead_letters.labels(name).inc()
            return
        self._metrics.actions.labels(name, result.status, result.detail).inc()
        if name == "welcome" and result.status == "done" and result.trigger_received_at_ms:
            waited_ms = result.finished_at_ms - result.trigger_received_at_ms
            self._metrics.welcome_seconds.observe(max(0, waited_ms) / 1000)
        if self._log_events or result.status == "failed":
            self._log.info(
                "action_ended",
                action_id=result.action_id,
                event_id=result.caused_by,
                corp_id=result.corp_id,
                endpoint=result.endpoint,
                status=result.status,
                detail=result.detail,
                errcode=result.errcode,
                calls=result.calls,
            )

    # -- rebalances, start and end ------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Kafka waits for this before another member gets the partitions."""
        self._assigned = False
        await self._drain(list(revoked))
        self._paused.clear()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._assigned = True
        self._log.info("partitions_assigned", partitions=sorted(tp.partition for tp in assigned))

    async def _drain(self, partitions: list[TopicPartition]) -> None:
        """Ends what is under way, commits what is finished, forgets the rest: its offsets stay uncommitted."""
        windows = [self._windows[tp] for tp in partitions if tp in self._windows]
        for window in windows:
            window.stop()
        tasks = [task for window in windows for task in window.tasks()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._grace * _CALLS_SHARE)
        try:
            async with asyncio.timeout(self._grace * (1 - _CALLS_SHARE)):
                await self._commit_all()
        except TimeoutError:
            self._log.warning("drain_incomplete", count=sum(len(w) for w in windows), limit=self._grace)
        for partition in partitions:
            window = self._windows.pop(partition, PartitionWindow())
            window.abort()
            self._metrics.in_flight.labels(self.lane.name).dec(len(window))

    async def _commit_all(self) -> None:
        while self._collect():
            await self._commit()

    async def _start_producer(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._member,
            transactional_id=self._member,
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_SECONDS * 1000,
            enable_idempotence=True,
            compression_type="lz4",
            max_request_size=_MAX_RECORD_BYTES,
        )
        try:
            await producer.start()
        except BaseException:
            await self._close(producer)
            raise
        self._producer = producer

    async def _start_consumer(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._member,
            group_id=self.lane.group,
            group_instance_id=self._member,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=self._session_timeout_ms // 10,
            rebalance_timeout_ms=int(self._grace * 1000) + 30_000,
            # The loop turns every 50 ms; only a commit against a broker that is away takes longer.
            max_poll_interval_ms=300_000,
        )
        consumer.subscribe([self.lane.topic], listener=self)
        try:
            await consumer.start()
        except BaseException:
            await self._close(consumer)
            raise
        self._consumer = consumer

    async def _until(self, stop: asyncio.Event, step: Callable[[], Any]) -> bool:
        """Repeats ``step`` until Kafka answers. False when ``stop`` came first."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while True:
                attempt = asyncio.ensure_future(step())
                await asyncio.wait({attempt, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not attempt.done():
                    attempt.cancel()
                    await asyncio.wait({attempt})
                    return False
                try:
                    attempt.result()
                    return True
                except KafkaError as error:
                    self._log.warning("kafka_unreachable", error=type(error).__name__, retry_in_seconds=_RETRY_SECONDS)
                await asyncio.wait({stopped}, timeout=_RETRY_SECONDS)
                if stopped.done():
                    return False
        finally:
            stopped.cancel()

    async def _close(self, client: AIOKafkaConsumer | AIOKafkaProducer | None) -> None:
        """Closes a client; one whose broker is away is left behind after a while."""
        if client is None:
            return
        try:
            await asyncio.wait_for(client.stop(), _CLOSE_SECONDS)
        except (KafkaError, TimeoutError) as error:
            self._log.warning("kafka_close_incomplete", error=type(error).__name__)
