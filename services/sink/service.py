"""Facts become rows in ClickHouse: every committed offset stands for rows that ClickHouse has acknowledged, or for a
dead letter that Kafka has.

The order is insert → dead letters → offsets, each awaited. A process that dies in between reads the batch again and
writes the same rows again, which changes nothing (absolute rows, ReplacingMergeTree). While ClickHouse is away the
partitions are paused and the consumer goes on being polled, so the member stays in its group, the memory stays bounded
and nothing is skipped.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from prometheus_client import CollectorRegistry

from services.sink.clickhouse import NotAvailable, RowsRefused, Warehouse
from services.sink.domain import COMPACTED, TOPICS, Table
from services.sink.metrics import SinkMetrics
from services.sink.settings import Settings
from siyu.events import ActionOutcome, CodecError, Event, LedgerEntry, codec
from siyu.ops.clock import wall_ms
from siyu.ops.health import OpsServer
from siyu.ops.lifeline import Lifeline
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.signals import stop_event
from siyu.stream.deadletter import headers

GROUP = "sink"
DEAD_LETTERS = "dlq.sink"
CHUNK = 500
"""Records asked for at a time, so that bytes are counted before many more arrive."""
CHECK_EVERY_S = 5.0
COMMIT_TIMEOUT_S = 10.0
FLUSH_TIMEOUT_S = 30.0
FIRST_RETRY_S = 0.2
LONGEST_RETRY_S = 5.0

_NOT_OURS_ANY_MORE = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}
)


class SinkStopped(Exception):
    """The sink cannot go on and must not skip anything. ``exit_code`` as in sysexits.h."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code


@dataclass
class Batch:
    """Records read and not yet committed."""

    epoch: int
    """Assignment they belong to: a rebalance makes them somebody else's."""
    facts: dict[str, tuple[list[Event], list[Message]]] = field(default_factory=dict)
    """By topic: what could be decoded, and the record of each."""
    undecodable: list[tuple[Message, Exception]] = field(default_factory=list)
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    records: int = 0
    bytes: int = 0
    written: set[str] = field(default_factory=set)
    """Tables that have acknowledged all their rows."""
    refused: dict[tuple[str, int, int], tuple[Message, Exception]] = field(default_factory=dict)
    """By topic, partition and offset: two tables may refuse one record, which makes one dead letter."""
    buried: bool = False
    """The dead letters are in Kafka."""


class Sink:
    """The loop. One thread; :meth:`live` and :meth:`ready` may be asked from another."""

    def __init__(self, settings: Settings, metrics: SinkMetrics, stop: threading.Event) -> None:
        self._settings = settings
        self._metrics = metrics
        self._stop = stop
        self._log = get_logger()
        self._decode = codec().decode_as
        self._warehouse = Warehouse(
            settings.clickhouse_url,
            user=settings.clickhouse_user,
            password=settings.clickhouse_password,
            database=settings.clickhouse_database,
            timeout_s=settings.clickhouse_timeout_seconds,
        )
        common: dict[str, Any] = {
            "bootstrap.servers": settings.kafka_bootstrap,
            "client.id": f"siyu-sink-{settings.instance}",
            # As in siyu.stream: with librdkafka's "rebootstrap" (2.16) a call can wait for ever for a broker that went
            # away and has long been back. A commit seems to have, in one chaos run.
            "metadata.recovery.strategy": "none",
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 0,
        }
        self._lifeline = Lifeline(common)
        self._producer = Producer(
            {
                **common,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "message.max.bytes": 8 << 20,
            }
        )
        self._consumer = Consumer(
            {
                **common,
                "group.id": GROUP,
                # A restart under the same name takes its partitions back at once, without a rebalance.
                "group.instance.id": f"{GROUP}-{settings.instance}",
                "session.timeout.ms": 30_000,
                "max.poll.interval.ms": 300_000,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                # A committed offset that retention has removed means lost facts: that must stop us, not be skipped.
                "auto.offset.reset": "error",
                "topic.metadata.refresh.interval.ms": 5_000,
                "fetch.message.max.bytes": 2 << 20,
                "queued.max.messages.kbytes": 32 << 10,
                "statistics.interval.ms": 2_000,
                "stats_cb": self._on_statistics,
            }
        )
        self._epoch = 0
        self._assigned: list[TopicPartition] | None = None
        self._ahead: list[Message] = []
        self._turned_at = time.monotonic()
        self._checked_at = 0.0
        self._broker_up = False
        self._topics_missing = False
        self._waiting_for: str | None = "not connected yet"
        """Why ClickHouse (or Kafka, for dead letters and offsets) is waited for; None: all is well."""

    def run(self) -> None:
        """Until the stop event. Raises SinkStopped."""
        self._consumer.subscribe(list(TOPICS), on_assign=self._on_assign, on_revoke=self._on_revoke)
        try:
            while not self._stop.is_set():
                batch = self._collect()
                if batch.records:
                    self._write(batch)
                elif time.monotonic() - self._checked_at > CHECK_EVERY_S:
                    self._check_idle()
        finally:
            self._consumer.close()
            self._warehouse.close()

    def live(self) -> str | None:
        """The loop turns, if need be while it waits for an insert."""
        still = time.monotonic() - self._turned_at
        limit = self._settings.clickhouse_timeout_seconds + 60
        return None if still < limit else f"loop stands still for {still:.0f} s"

    def ready(self) -> str | None:
        """Connected to both ends, and nothing waits."""
        if not self._broker_up:
            return "kafka: no broker answers"
        if self._topics_missing:
            return "kafka: topics are missing, see siyu topics apply"
        if self._assigned is None:
            return "kafka: no partitions assigned yet"
        return None if self._waiting_for is None else f"waiting: {self._waiting_for}"

    # Reading

    def _collect(self) -> Batch:
        """What arrives within the linger time, up to a full batch; empty when nothing does.

        While records are there for the taking the batch grows beyond that time: catching up goes in full batches.
        """
        batch = Batch(self._epoch)
        settings = self._settings
        until = time.monotonic() + settings.sink_linger_ms / 1000
        more = True
        while batch.records < settings.sink_batch_rows and batch.bytes < settings.sink_batch_bytes:
            self._turned_at = now = time.monotonic()
            if now > until and not more:
                break
            messages, self._ahead = self._ahead, []
            wanted = min(CHUNK, settings.sink_batch_rows - batch.records)
            arrived = self._consumer.consume(wanted, max(0.0, until - now))
            more = len(arrived) == wanted
            messages += arrived
            if batch.epoch != self._epoch:
                # Revoked while we waited: whoever has the partitions now reads these records again.
                batch = Batch(self._epoch)
            for message in messages:
                self._add(batch, message)
        return batch

    def _add(self, batch: Batch, message: Message) -> None:
        error = message.error()
        if error is not None:
            self._on_error(error)
            return
        topic, partition, offset, value = message.topic(), message.partition(), message.offset(), message.value()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        self._topics_missing = False
        if value is None and topic in COMPACTED:
            self._metrics.skipped.labels(topic).inc()
        else:
            try:
                fact = self._decode(TOPICS[topic][0].fact, value)
            except CodecError as unreadable:
                batch.undecodable.append((message, unreadable))
            else:
                if any(table.is_row(fact) for table in TOPICS[topic]):
                    facts, messages = batch.facts.setdefault(topic, ([], []))
                    facts.append(fact)
                    messages.append(message)
                else:
                    self._metrics.skipped.labels(topic).inc()
        batch.positions[topic, partition] = offset + 1
        batch.records += 1
        batch.bytes += len(value or b"")

    def _on_error(self, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:
            raise SinkStopped("input_lost", 78)
        # A fatal error that a fetch brings is called _FATAL and does not say that it is fatal; nothing comes after it.
        if error.fatal() or code in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
            raise SinkStopped("fenced", 75)
        self._topics_missing = self._topics_missing or code == KafkaError.UNKNOWN_TOPIC_OR_PART
        self._log.warning("kafka_error", error=error.name())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Places only, without the leader epochs that came with the offsets: a client that has to validate one against a
        # leader that changes just then has been seen to read that partition no further.
        committed = [
            TopicPartition(found.topic, found.partition, found.offset if found.offset >= 0 else OFFSET_BEGINNING)
            for found in self._committed(consumer, partitions)
        ]
        consumer.assign(committed)
        self._assigned = committed
        self._log.info("partitions_assigned", partitions=len(committed))

    def _committed(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        attempt = 0
        while not self._stop.is_set():
            self._turned_at = time.monotonic()
            try:
                return consumer.committed(partitions, timeout=5)
            except KafkaException as error:
                self._check_lifeline()
                attempt += 1
                self._log.warning("committed_offsets_unknown", attempt=attempt, error=error.args[0].name())
                self._stop.wait(_backoff(attempt))
        return []

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._epoch += 1
        self._ahead.clear()
        self._metrics.lag.clear()
        self._log.info("partitions_revoked", partitions=len(partitions))

    def _on_statistics(self, text: str) -> None:
        statistics = json.loads(text)
        self._broker_up = any(
            broker["state"] == "UP" and broker["nodeid"] >= 0 for broker in statistics["brokers"].values()
        )
        for topic, described in statistics["topics"].items():
            lags = [p["consumer_lag"] for number, p in described["partitions"].items() if number != "-1"]
            if topic in TOPICS and lags:
                self._metrics.lag.labels(topic).set(sum(lag for lag in lags if lag > 0))

    # Writing

    def _write(self, batch: Batch) -> None:
        """Until the batch is committed, or no longer ours, or we are asked to stop; the latter two lose nothing."""
        attempt = 0
        while True:
            try:
                self._insert(batch)
                self._bury(batch)
                self._commit(batch)
            except NotAvailable as error:
                if error.reason == "kafka":
                    self._check_lifeline()
                attempt += 1
                wait_s = _backoff(attempt)
                self._waiting_for = error.reason
                self._metrics.waiting.set(1)
                self._metrics.retries.labels(error.reason).inc()
                self._log.warning(
                    "batch_waits", reason=error.reason, attempt=attempt, records=batch.records, retry_in_seconds=wait_s
                )
                if not self._wait(wait_s, batch):
                    return
            else:
                self._lifeline.holds()
                break
        if attempt:
            self._resume()
            self._log.info("batch_written_after_waiting", attempt=attempt + 1, records=batch.records)
        self._waiting_for = None
        self._metrics.waiting.set(0)

    def _insert(self, batch: Batch) -> None:
        for topic, (facts, messages) in batch.facts.items():
            for table in TOPICS[topic]:
                if table.name in batch.written:
                    continue
                refused: list[tuple[Message, Exception]] = []
                newest = table.newest(facts)
                try:
                    self._insert_rows(table, newest)
                    self._metrics.superseded.labels(table.name).inc(len(facts) - len(newest))
                except RowsRefused:
                    # All of them now: the newest row of a key may be the bad one, and then the one before it counts.
                    room = self._settings.sink_dead_letter_limit - len(batch.undecodable)
                    self._bisect(table, facts, messages, refused, room)
                batch.written.add(table.name)
                for message, error in refused:
                    batch.refused[_identity(message)] = (message, error)
                self._report(table, facts)

    def _insert_rows(self, table: Table, facts: Sequence[Event]) -> None:
        self._turned_at = began = time.monotonic()
        self._warehouse.insert(table, facts)
        self._checked_at = time.monotonic()
        self._metrics.insert_seconds.labels(table.name).observe(self._checked_at - began)
        self._metrics.batch_rows.labels(table.name).observe(len(facts))
        self._metrics.rows.labels(table.name).inc(len(facts))

    def _bisect(
        self,
        table: Table,
        facts: Sequence[Event],
        messages: Sequence[Message],
        refused: list[tuple[Message, Exception]],
        room: int,
    ) -> None:
        """Writes every row that ClickHouse takes; the others end in ``refused``."""
        try:
            self._insert_rows(table, facts)
        except RowsRefused as error:
            if len(facts) == 1:
                refused.append((messages[0], error))
                if len(refused) > room:
                    raise SinkStopped("too_many_dead_letters", 78) from error
                return
            middle = len(facts) // 2
            self._bisect(table, facts[:middle], messages[:middle], refused, room)
            self._bisect(table, facts[middle:], messages[middle:], refused, room)

    def _bury(self, batch: Batch) -> None:
        """Dead letters are in Kafka before the offsets say that the records are done."""
        if batch.buried:
            return
        dead: list[tuple[Message, str, BaseException]] = []
        dead += [(message, "decode", unreadable) for message, unreadable in batch.undecodable]
        dead += [(message, "insert", refusal.__cause__ or refusal) for message, refusal in batch.refused.values()]
        if len(dead) > self._settings.sink_dead_letter_limit:
            raise SinkStopped("too_many_dead_letters", 78)
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        for message, stage, error in dead:
            self._producer.produce(
                DEAD_LETTERS,
                key=message.key(),
                value=message.value(),
                headers=dict(headers(message, stage, error, GROUP)),
                on_delivery=delivered,
            )
        if dead and (self._producer.flush(FLUSH_TIMEOUT_S) or failed):
            self._producer.purge()
            raise NotAvailable("kafka")
        batch.buried = True
        for message, stage, error in dead:
            self._metrics.dead_letters.labels(message.topic(), stage).inc()
            self._log.error(
                "dead_letter",
                topic=message.topic(),
                partition=message.partition(),
                offset=message.offset(),
                reason=stage,
                error=type(error).__name__,
            )

    def _commit(self, batch: Batch) -> None:
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in batch.positions.items()]
        try:
            for committed in self._consumer.commit(offsets=offsets, asynchronous=False) or []:
                if committed.error is not None:
                    raise KafkaException(committed.error)
        except KafkaException as error:
            code = error.args[0].code()
            if error.args[0].fatal() or code in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
                raise SinkStopped("fenced", 75) from error
            if code not in _NOT_OURS_ANY_MORE:
                raise NotAvailable("kafka") from error
            # The rows are in; whoever reads the records next writes them once more, which changes nothing.
            self._log.info("commit_after_rebalance", records=batch.records)
            return
        for topic, (facts, _) in batch.facts.items():
            self._metrics.records.labels(topic).inc(len(facts))

    def _report(self, table: Table, facts: Sequence[Event]) -> None:
        """The rows can be queried from now on."""
        now = wall_ms()
        arrived = [ms for ms in map(table.arrived_ms, facts) if ms > 0]
        self._metrics.freshness.observe(table.name, (max(0, now - ms) for ms in arrived))
        if not (self._settings.log_events and table.told):
            return
        for fact in facts:
            self._log.info(
                "queryable",
                table=table.name,
                corp_id=fact.corp_id,  # type: ignore[attr-defined]
                event_id=fact.caused_by,  # type: ignore[attr-defined]
                milliseconds=now - table.arrived_ms(fact),
                **({"action_id": fact.action_id} if isinstance(fact, ActionOutcome | LedgerEntry) else {}),
            )

    # Waiting

    def _wait(self, seconds: float, batch: Batch) -> bool:
        """Keeps the membership alive meanwhile. False when the batch is no longer ours, or we are to stop."""
        until = time.monotonic() + seconds
        if self._assigned:
            self._consumer.pause(self._assigned)
        while (now := time.monotonic()) < until and not self._stop.is_set() and batch.epoch == self._epoch:
            self._turned_at = now
            message = self._consumer.poll(min(0.2, until - now))
            if message is not None:
                # Fetched before the pause: next in line after the batch.
                self._ahead.append(message)
        if batch.epoch != self._epoch:
            self._resume()
            return False
        return not self._stop.is_set()

    def _resume(self) -> None:
        if self._assigned:
            self._consumer.resume(self._assigned)

    def _check_lifeline(self) -> None:
        """After a call to Kafka that failed. Raises SinkStopped when others are answered: a restart is the way out."""
        if self._lifeline.is_cut():
            raise SinkStopped("cut_off", 75)

    def _check_idle(self) -> None:
        self._checked_at = time.monotonic()
        try:
            # Of the group's coordinator: a client that has lost it would stand by for ever, as if all were quiet.
            self._consumer.committed([TopicPartition(next(iter(TOPICS)), 0)], timeout=1.0)
            self._lifeline.holds()
        except KafkaException:
            self._check_lifeline()
        try:
            self._warehouse.check()
            self._waiting_for = None
        except NotAvailable as error:
            self._waiting_for = error.reason


def _backoff(attempt: int) -> float:
    return min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** (attempt - 1))


def _identity(message: Message) -> tuple[str, int, int]:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return topic, partition, offset


def main() -> int:
    """Runs until SIGTERM or SIGINT; returns the exit status."""
    settings = Settings()
    configure_logging(GROUP, settings.log_level)
    log = get_logger()
    log.info("starting", settings=settings.redacted())
    registry = CollectorRegistry()
    sink = Sink(settings, SinkMetrics(registry), stop_event())
    server = OpsServer(
        settings.metrics_host, settings.metrics_port, registry=registry, live=sink.live, ready=sink.ready
    )
    try:
        sink.run()
    except SinkStopped as error:
        log.critical("stopped", reason=error.reason, error=type(error.__cause__ or error).__name__)
        return error.exit_code
    finally:
        server.close()
    log.info("stopped", reason="asked_to")
    return 0
