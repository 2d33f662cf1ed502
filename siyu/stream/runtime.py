"""Exactly once: a step's outputs, its states and the input offsets become visible together or not at all.

One loop in one thread. Each batch is one Kafka transaction; the disk follows the commit and is only a cache of the
changelog. Commits wait in a second thread, while the first reads what comes next. Three rules make a takeover by
another member right; the first is kept here, in ``_conclude``, the others in ``takeover.py``:

1. flush, then send the offsets, then commit.

No transaction is open while partitions are handed over: rebalance callbacks run inside ``consume``, between batches.
docs/engine.md has the argument in full.
"""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY, CollectorRegistry

from siyu.ops.lifeline import Lifeline
from siyu.stream import clients
from siyu.stream.changelog import Topics, inspect_topics
from siyu.stream.clients import CORRUPT, FENCING, TRANSIENT, UNANSWERED
from siyu.stream.errors import CutOff, InputLost, StreamError, TopologyError
from siyu.stream.metrics import StreamMetrics
from siyu.stream.partition import Batch, DeadLetter, Partition, Produced, wall_ms
from siyu.stream.store import StoreLocked
from siyu.stream.tables import GlobalTables
from siyu.stream.takeover import CALL_SECONDS, TELL_SECONDS, Takeover, starting_offsets
from siyu.stream.types import Processor, S, StreamSettings

T = TypeVar("T")

_READY_SECONDS = 10.0
_PRODUCE_CHUNK = 10_000
# A batch makes tens of thousands of objects that are gone after the next one, beside millions that stay, all without
# cycles: Python's own thresholds (700, 10, 10) would look through all of them again and again.
_GC_THRESHOLDS = (50_000, 20, 20)


class _AbortTransactionError(Exception):
    """The transaction cannot commit; abort it and repeat the batch from the committed offsets."""


class _SupersededError(Exception):
    """The assignment changed, or a stop came, while partitions were being taken over."""


class Runtime(Generic[S]):
    """Runs one processor as one member of its consumer group.

    ``alive`` and ``ready`` may be called from any thread, everything else belongs to the thread of ``run``.
    """

    def __init__(
        self, processor: Processor[S], settings: StreamSettings, *, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self.processor = processor
        self.settings = settings
        self.metrics = StreamMetrics(registry, processor.name)
        self._log = structlog.get_logger().bind(processor=processor.name, instance=settings.instance)
        self._client_logger = logging.getLogger("siyu.kafka")
        self._stop = threading.Event()
        self._stop_seen: float | None = None
        self._turned = time.monotonic()
        self._fetched = 0.0
        """When the last fetch ended, less the CPU time this thread has had."""
        self._connected = False
        self._failure: StreamError | None = None
        self._group: Any = None
        self._owned: list[int] = []
        self._assignment = 0
        """Counts rebalances, so that work begun under an older assignment can notice."""
        self._taken_over = False
        self._partitions: dict[int, Partition[S]] = {}
        self._transaction_open = False
        self._aborts_in_a_row = 0
        self._housekeeping_due = 0.0
        self._globals: GlobalTables | None = None
        self._committer = ThreadPoolExecutor(1, "siyu-commit")
        self._lifeline = Lifeline(clients.common(settings))
        self._topics: Topics
        self._admin: AdminClient
        self._consumer: Consumer
        self._producer: Producer

    def alive(self) -> bool:
        """The loop turns; waiting for a broker is turning.

        One call cannot be bounded: send_offsets_to_transaction (librdkafka 2.16) returns only when the group's
        coordinator is back if it went away in the middle of it. Longer than ``stall_ms``, a restart does no harm.
        """
        return self._since_turn() < self.settings.stall_ms / 1000

    def ready(self) -> bool:
        """Connected, turning, assigned, restored, and no partition halted."""
        turning = self._since_turn() < _READY_SECONDS
        return self._connected and turning and self._taken_over and not self.halted()

    def _since_turn(self) -> float:
        return time.monotonic() - self._turned

    def halted(self) -> dict[int, str]:
        """Partition → why it consumes nothing more."""
        return {number: p.halted for number, p in list(self._partitions.items()) if p.halted}

    def run(self, stop: threading.Event) -> None:
        """Processes until ``stop`` is set, then finishes the batch and returns. Raises StreamError."""
        self._stop = stop
        gc.set_threshold(*_GC_THRESHOLDS)
        try:
            self._start()
            while not stop.is_set():
                self._turn()
        except _SupersededError:
            pass  # stopped before the first assignment was complete
        finally:
            self._close()

    # -- start and end ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._admin = AdminClient(clients.common(self.settings), logger=self._client_logger)
        self._topics = self._persist("inspect topics", lambda: inspect_topics(self._admin, self.processor))
        # Before joining the group, so that a zombie of this instance can commit nothing more.
        self._open_producer()
        self._consumer = Consumer(
            {**clients.consumer(self.processor, self.settings), "error_cb": self._on_error}, logger=self._client_logger
        )
        if self.processor.globals:
            self._globals = self._persist(
                "inspect globals",
                lambda: GlobalTables(self.processor, self.settings, self._admin, self.metrics),
            )
            self._globals.load(self._look_for_stop)
        self._consumer.subscribe(
            list(self.processor.inputs), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )
        self._log.info("processor_started")

    def _open_producer(self) -> None:
        """A producer whose predecessors are fenced and whose predecessor's open transaction has ended."""
        self._producer = Producer(
            {**clients.producer(self.processor, self.settings), "error_cb": self._on_error}, logger=self._client_logger
        )
        self._persist("init transactions", lambda: self._producer.init_transactions(CALL_SECONDS * 5))

    def _close(self) -> None:
        # A commit on its way gets what a stop would give it, and the consumer is left alone until then.
        self._stop = threading.Event()
        self._stop.set()
        self._committer.shutdown()
        if hasattr(self, "_consumer"):
            self._consumer.close()
        self._release()
        if self._transaction_open:
            try:
                self._producer.abort_transaction(CALL_SECONDS)
            except KafkaException as error:
                # It ends by its timeout, or by the next start's init_transactions.
                self._log.warning("transaction_left_open", error=error.args[0].name())
        if self._globals is not None:
            self._globals.close()
        self._connected = False
        self._log.info("processor_stopped")

    def _reached(self, point: str) -> None:
        """Does nothing. Tests stop, freeze or break a process here, between any two steps of the loop."""

    # -- callbacks, all in the loop's thread --------------------------------------------------------------------

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._connected = False
        if error.fatal():
            self._failure = self._stopping(error)
        self._log.warning("kafka_error", error=error.name(), error_detail=error.str())

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        self._assignment += 1
        # Taken here and used for every batch of this assignment: asked for later, it might already be that of a
        # newer generation, and the broker would accept offsets of partitions that are no longer ours.
        self._group = consumer.consumer_group_metadata()
        numbers = {
            topic: sorted(tp.partition for tp in assigned if tp.topic == topic) for topic in self.processor.inputs
        }
        self._owned = numbers[self.processor.inputs[0]]
        if any(owned != self._owned for owned in numbers.values()):
            self._failure = TopologyError(
                f"processor {self.processor.name}: assignment is not co-partitioned: {numbers}; "
                "all members of the group must run the same inputs"
            )
        # Nothing is fetched before the states are restored.
        consumer.assign([])
        # A member without partitions has nothing to restore: it stands by.
        self._taken_over = self._connected = not self._owned
        self.metrics.assigned.set(len(self._owned))
        self._log.info("partitions_assigned", partitions=self._owned)

    def _on_revoke(self, consumer: Consumer, _revoked: list[TopicPartition]) -> None:
        self._assignment += 1
        self._release()
        self._log.info("partitions_revoked", partitions=self._owned)
        self._owned = []
        self.metrics.assigned.set(0)
        consumer.unassign()

    def _release(self) -> None:
        """Closes the stores; what is decoded in memory goes with them."""
        self._taken_over = False
        partitions, self._partitions = self._partitions, {}
        for partition in partitions.values():
            partition.close()
        self.metrics.released()

    # -- the loop -----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._turned = time.monotonic()
        if self._owned and not self._taken_over:
            try:
                self._take_over()
            except _SupersededError:
                self._release()
                return
        assignment = self._assignment
        waiting = sum(p.waiting for p in self._partitions.values())
        # Up to two batches: the second is read while the first commits. Callbacks must run, room or not.
        room = max(1, 2 * self.settings.batch_records - waiting)
        self._sort(self._consumer.consume(room, 0 if waiting else self.settings.batch_ms / 1000))
        self._mind_the_gap()
        self._reached("fetched")
        if self._failure is not None:
            raise self._failure
        self._keep_house()
        if assignment != self._assignment:
            return  # what an assignment that is gone fetched is fetched again from the committed offsets
        if work := self._work():
            try:
                self._transact(work)
            except _AbortTransactionError as error:
                self._abort(error)
        self._write_back()
        self._reached("stored")

    def _mind_the_gap(self) -> None:
        """After a stop between two fetches (frozen, or a commit that waited) an empty fetch does not mean silence.

        Work is no stop: librdkafka fetches on meanwhile.
        """
        last, self._fetched = self._fetched, time.monotonic() - time.thread_time()
        if (self._fetched - last) * 1000 > self.settings.idle_ms / 2:
            for partition in self._partitions.values():
                partition.hush()

    def _sort(self, fetched: list[Message]) -> None:
        """Messages to their partitions, in order; errors are dealt with."""
        inboxes = {number: p.inbox for number, p in self._partitions.items() if not p.halted}
        for message in fetched:
            error = message.error()
            if error is not None:
                self._on_fetch_error(error, message)
            elif (inbox := inboxes.get(message.partition())) is not None:  # type: ignore[arg-type]
                inbox.append(message)

    def _work(self) -> dict[int, int]:
        """Partition number → how many records the next batch takes of it: 0 where only timers are due."""
        waiting = sum(p.waiting for p in self._partitions.values())
        share = min(1.0, self.settings.batch_records / waiting) if waiting else 0.0
        return {
            number: math.ceil(p.waiting * share)
            for number, p in self._partitions.items()
            if p.waiting or (not p.halted and p.due(max(p.stream_time, self._tick_ms(p))))
        }

    def _tick_ms(self, partition: Partition[S]) -> int:
        """Up to when the wall clock fires this partition's timers; 0 while records of it may wait anywhere."""
        if (tick_ms := partition.tick_ms(wall_ms())) and any(
            # Behind other partitions' in the client: the log goes on behind the end that was reached.
            self._consumer.get_watermark_offsets(TopicPartition(topic, partition.number), cached=True)[1] > end
            for topic, end in partition.ends.items()
        ):
            return 0
        return tick_ms

    def _on_fetch_error(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if (partition := self._partitions.get(message.partition())) is not None:  # type: ignore[arg-type]
                partition.ends[message.topic()] = message.offset()  # type: ignore[index,assignment]
            return
        if error.fatal() or error.code() in FENCING or error.code() == KafkaError._FATAL:
            raise self._stopping(error)
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise InputLost(
                f"processor {self.processor.name}: {message.topic()} partition {message.partition()} no longer holds "
                "the committed offset, records would be skipped; decide where to go on, then set the group's offset"
            )
        if error.code() in CORRUPT:
            raise StreamError(
                f"{message.topic()} partition {message.partition()} at {message.offset()}: {error.name()}, "
                "going on would skip records"
            )
        self._log.warning("fetch_error", topic=message.topic(), partition=message.partition(), error=error.name())

    def _transact(self, work: dict[int, int]) -> None:
        """One batch: steps, outputs and changelog, offsets, commit."""
        self._in_transaction("begin", self._producer.begin_transaction)
        self._transaction_open = True
        self._reached("began")
        if self._globals is not None:
            self._globals.follow()
        tables = self._globals.tables if self._globals is not None else None
        batches: dict[int, Batch] = {}
        step_seconds = 0.0
        for number, count in work.items():
            start = time.perf_counter()
            partition = self._partitions[number]
            batches[number] = partition.process(count, tables, 0 if count else self._tick_ms(partition))
            step_seconds += time.perf_counter() - start
            # At once, so that librdkafka compresses and sends it while the next partition's steps run.
            self._produce(batches[number], partition)
        self._reached("produced")
        commit_seconds = self._commit_while_reading(batches)
        for number in batches:
            self._partitions[number].committed()
        self._aborts_in_a_row = 0
        self._connected = True
        self.metrics.step_seconds.observe(step_seconds)
        self.metrics.commit_seconds.observe(commit_seconds)
        self._count(batches)
        for number in batches:
            if reason := self._partitions[number].halted:
                self._halt(number, reason)

    def _commit_while_reading(self, batches: Iterable[int]) -> float:
        """Commits, in a thread of its own if there is something to read meanwhile; the seconds it took.

        The consumer is left alone until the commit has ended one way or the other.
        """
        if not any(partition.waiting for partition in self._partitions.values()):
            return self._conclude(batches)
        concluding = self._committer.submit(self._conclude, batches)
        try:
            for partition in self._partitions.values():
                while not concluding.done() and partition.read():
                    pass
            return concluding.result()
        finally:
            del concluding  # it holds what was raised, which holds this frame and all the partitions

    def _conclude(self, batches: Iterable[int]) -> float:
        """Flush, offsets, commit; how long it took, in seconds."""
        began = time.perf_counter()
        # Rule 1. After the flush no changelog record of this transaction can still appear, so whoever reads these
        # offsets as committed also finds every changelog record below the watermark.
        self._flush()
        self._reached("flushed")
        self._send_offsets(batches)
        self._reached("offsets sent")
        self._commit()
        self._transaction_open = False
        self._reached("committed")
        return time.perf_counter() - began

    def _produce(self, batch: Batch, partition: Partition[S]) -> None:
        for topic, records in batch.outputs.items():
            self._produce_many(topic, records)
        versions = self._globals.version_header() if self._globals is not None else []
        for topic, record, looked in batch.beside_globals:
            self._produce_one(topic, record["value"], record["key"], versions if looked else [])
        self._produce_many(self.processor.changelog, partition.changelog_records(), partition.number)
        for dead in batch.dead:
            self._produce_dead(dead)

    def _produce_dead(self, dead: DeadLetter) -> None:
        value, headers = dead.value, dead.headers
        if value is not None and len(value) > self.settings.max_record_bytes:
            # It still lies at its origin; without this the partition could never pass it.
            headers, value = [*headers, ("value.omitted_bytes", str(len(value)).encode())], None
        self._produce_one(self.processor.dead_letters, value, dead.key, headers)
        told = {name: text.decode(errors="replace") for name, text in headers}
        self._log.warning(
            "dead_letter",
            topic=told["origin.topic"],
            partition=int(told["origin.partition"]),
            offset=int(told["origin.offset"]),
            error=told["error.class"],
            detail=told["error.place"],
        )

    def _produce_one(
        self, topic: str, value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        self._make_room()
        self._producer.produce(topic, value, key, headers=headers)  # type: ignore[arg-type]

    def _make_room(self) -> None:
        while len(self._producer) > clients.QUEUE_RECORDS // 2:
            self._turned = time.monotonic()
            self._producer.poll(0.1)

    def _produce_many(self, topic: str, records: list[Produced], partition: int = -1) -> None:
        for start in range(0, len(records), _PRODUCE_CHUNK):
            self._make_room()
            chunk: list[Any] = records[start : start + _PRODUCE_CHUNK]
            if self._producer.produce_batch(topic, chunk, partition=partition) != len(chunk):
                # Repeated whole: filling up later would change the order of records of one key.
                error = next(record["_error"] for record in chunk if "_error" in record)
                raise _AbortTransactionError(f"produce to {topic}: {error}")

    def _flush(self) -> None:
        while self._producer.flush(CALL_SECONDS) > 0:
            self._between_calls("flush", None)

    def _send_offsets(self, work: Iterable[int]) -> None:
        offsets = [
            # The stream time travels with the offset, so that it survives a lost disk and never runs backwards.
            TopicPartition(topic, number, offset, metadata=str(self._partitions[number].stream_time))
            for number in work
            for topic, offset in self._partitions[number].positions.items()
        ]
        self._in_transaction(
            "send offsets",
            lambda: self._producer.send_offsets_to_transaction(offsets, self._group, CALL_SECONDS),
        )

    def _commit(self) -> None:
        self._in_transaction("commit", lambda: self._producer.commit_transaction(CALL_SECONDS))

    def _write_back(self) -> None:
        began = time.perf_counter()
        if sum(partition.write_back() for partition in self._partitions.values()):
            self.metrics.store_seconds.observe(time.perf_counter() - began)

    def _abort(self, reason: _AbortTransactionError) -> None:
        """Undoes the batch everywhere: broker, memory, position. The disk never had it."""
        self._aborts_in_a_row += 1
        self.metrics.aborts.inc()
        self._log.warning("transaction_aborted", error_detail=str(reason), attempt=self._aborts_in_a_row)
        self._in_transaction("abort", lambda: self._producer.abort_transaction(CALL_SECONDS))
        self._transaction_open = False
        # librdkafka (2.16) may keep a gap in its sequence numbers after refused records, and then flush in vain until
        # the transaction's timeout; a new producer starts clean.
        self._open_producer()
        self._release()
        self._consumer.assign([])
        # The next turn takes the same partitions over again, from what the broker says is committed.
        self._stop.wait(min(5.0, 0.1 * 2 ** min(self._aborts_in_a_row, 6)))

    def _halt(self, number: int, reason: str) -> None:
        self._consumer.pause([TopicPartition(topic, number) for topic in self.processor.inputs])
        self.metrics.halted(number, True)
        self._log.error("partition_halted", partition=number, reason=reason, offsets=self._partitions[number].positions)

    # -- taking partitions over ---------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Has the owned partitions restored and starts fetching. Raises _SupersededError."""
        self._takeover(self._assignment).run(self._owned, self._partitions)
        self._consumer.assign(starting_offsets(self._partitions))
        self._connected = self._taken_over = True
        self._reached("assigned")

    def _takeover(self, assignment: int) -> Takeover[S]:
        def idle() -> None:
            self._idle(assignment)

        return Takeover(
            self.processor,
            self.settings,
            self._topics,
            self._admin,
            self._consumer,
            self.metrics,
            self._reached,
            lambda what, call: self._persist(what, call, idle),
            idle,
        )

    # -- waiting ------------------------------------------------------------------------------------------------

    def _look_for_stop(self) -> None:
        self._turned = time.monotonic()
        if self._failure is not None:
            raise self._failure
        if self._stop.is_set():
            raise _SupersededError

    def _idle(self, assignment: int) -> None:
        """Lets the group's callbacks run while nothing is being fetched. Raises _SupersededError."""
        for message in self._consumer.consume(100, 0):
            if (error := message.error()) is not None:
                self._on_fetch_error(error, message)
        self._look_for_stop()
        if assignment != self._assignment:
            raise _SupersededError

    def _persist(self, what: str, call: Callable[[], T], between: Callable[[], None] | None = None) -> T:
        """Calls until it succeeds: waits for brokers and locks, reports, never gives up but for a stop."""
        while True:
            self._turned = time.monotonic()
            try:
                result = call()
                self._lifeline.holds()
                return result
            except (KafkaException, StoreLocked) as raised:
                if isinstance(raised, KafkaException):
                    error: KafkaError = raised.args[0]
                    if error.fatal() or error.code() in FENCING:
                        raise self._stopping(error) from raised
                    if not error.retriable() and error.code() not in TRANSIENT:
                        raise StreamError(f"processor {self.processor.name}: {what}: {error}") from raised
                    self._check_lifeline(error)
                self._connected = False
                self._log.warning("waiting", reason=what, error_detail=str(raised))
            if between is not None:
                between()
            if self._stop.wait(0.2):
                raise _SupersededError

    def _in_transaction(self, what: str, call: Callable[[], object]) -> None:
        """A producer call that librdkafka lets us repeat while it is retriable."""
        while True:
            self._turned = time.monotonic()
            try:
                call()
                self._lifeline.holds()
                return
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                if error.fatal() or error.code() in FENCING:
                    raise self._stopping(error) from raised
                if error.txn_requires_abort():
                    raise _AbortTransactionError(f"{what}: {error.name()}") from raised
                if not error.retriable():
                    raise StreamError(f"processor {self.processor.name}: {what}: {error}") from raised
                self._between_calls(what, error)
                self._check_lifeline(error)

    def _check_lifeline(self, error: KafkaError) -> None:
        """After a call nobody answered. Raises CutOff when somebody would have."""
        if error.code() in UNANSWERED and self._lifeline.is_cut():
            raise CutOff(
                f"processor {self.processor.name}: the brokers answer others and not us ({error.name()}): "
                "a supervised restart is safe"
            )

    def _between_calls(self, what: str, error: KafkaError | None) -> None:
        self._turned = now = time.monotonic()
        self._connected = False
        self._log.warning("waiting", reason=what, error=error.name() if error else "unacknowledged")
        if self._stop.is_set():
            self._stop_seen = self._stop_seen or now
            if now - self._stop_seen > self.settings.stop_grace_ms / 1000:
                raise StreamError(
                    f"processor {self.processor.name}: stopped while {what} waits for the broker; "
                    "the batch is left to the next start"
                )

    def _stopping(self, error: KafkaError) -> StreamError:
        return clients.ending(error, clients.member(self.processor, self.settings))

    # -- reporting ----------------------------------------------------------------------------------------------

    def _count(self, batches: dict[int, Batch]) -> None:
        metrics = self.metrics
        metrics.batches.inc()
        metrics.batch_records.observe(sum(batch.records for batch in batches.values()))
        now_ms = wall_ms()
        for number, batch in batches.items():
            partition = self._partitions[number]
            metrics.event_lag(number, max(0, now_ms - partition.stream_time) / 1000)
            metrics.cache_hits.inc(partition.cache_hits)
            metrics.cache_misses.inc(partition.cache_misses)
            partition.cache_hits = partition.cache_misses = 0
            metrics.timers_fired.inc(batch.timers)
            for topic, count in batch.inputs.items():
                metrics.records_in(topic, count)
            for topic, records in batch.outputs.items():
                metrics.records_out(topic, len(records))
            for topic, count in Counter(topic for topic, *_ in batch.beside_globals).items():
                metrics.records_out(topic, count)
            for dead in batch.dead:
                metrics.dead_letter(dead.stage)

    def _probe(self) -> None:
        """Asks the group's coordinator: who has lost it would stand by for ever, as if all were quiet."""
        try:
            self._consumer.committed([TopicPartition(self.processor.inputs[0], self._owned[0])], timeout=1.0)
            self._lifeline.holds()
        except KafkaException as raised:
            self._check_lifeline(raised.args[0])

    def _keep_house(self) -> None:
        """Every few seconds: lag and sizes, whether the broker answers, and a sign of life in idle stores."""
        now = time.monotonic()
        if now < self._housekeeping_due:
            return
        self._housekeeping_due = now + TELL_SECONDS
        if not self._connected:
            try:
                self._admin.list_topics(timeout=1.0)
                self._connected = True
            except KafkaException as raised:
                self._check_lifeline(raised.args[0])
                return
        if not self._taken_over:
            return
        if self._owned and self._lifeline.quiet_s > TELL_SECONDS:
            self._probe()
        for number, partition in self._partitions.items():
            partition.store.keep(wall_ms())
            self.metrics.state(number, *partition.store.size(), partition.overdue_ms(wall_ms()) / 1000)
            for topic, position in partition.positions.items():
                _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
                if high >= 0:
                    self.metrics.lag(topic, number, max(0, high - position))
