"""The way into Kafka: a callback is appended raw, then typed, both on all in-sync replicas, or the caller is told no.

Raw goes first, so no typed event ever exists without its raw callback: what a crash leaves half done can be replayed
from ``callbacks.raw``, and the sender, who got no 200, delivers it again under the same event id.

What aiokafka 0.14 does when Kafka is away, and what we do about it (each seen against a real broker, stopped and
killed, see tests/integration/ingest/test_outage.py):

* An idempotent producer retries a batch for ever. What waits is bounded all the same: one open batch per partition
  (a record that does not fit waits in ``send``, holding nothing in Kafka's client), and each caller leaves at its
  deadline. A record whose caller has left may still arrive later: a repeat like any other.
* A batch that fails for good (also one whose partition has no leader for too long) leaves a gap in the partition's
  sequence, after which *every* later batch fails with OutOfOrderSequenceNumber. So the first failure replaces the
  producer: a new one has a new producer id and starts at sequence 0.
* It never asks the bootstrap servers again and only knows the brokers it saw last; a cluster that came back under
  other addresses is lost to it. So a producer that reached nobody for some seconds is replaced too. While there is
  none, callers are told at once instead of waiting for their deadline.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from services.ingest.metrics import IngestMetrics
from siyu.events import codec
from siyu.events.types import Event
from siyu.ops.logging import get_logger
from siyu.wecom.callbacks import Callback

RAW_TOPIC = "callbacks.raw"
CONTACT_TOPIC = "contact.events"
TOPICS = (RAW_TOPIC, CONTACT_TOPIC)

# Also how long a connection to a frozen broker is held before a new one is tried, so no longer than a caller waits.
_REQUEST_TIMEOUT_MS = 3000
_CONNECT_SECONDS = 10.0
_RECONNECT_SECONDS = 0.5
_PROBE_EVERY_SECONDS = 3.0
_PROBE_SECONDS = 4.0
_GIVE_UP_SECONDS = 10.0
_FLUSH_SECONDS = 5.0
# Raw callbacks stay below 1 MiB (base64 of a 1 MiB body); the head of a record adds less than 1 KiB.
_MAX_REQUEST_BYTES = 2 * 1024 * 1024
_BATCH_BYTES = 64 * 1024


class Unavailable(Exception):
    """Kafka did not acknowledge in time. ``reason`` is from a closed set; the sender should try again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Appended(NamedTuple):
    """Where a callback's records stand."""

    offsets: dict[str, int]
    """By ``<topic>-<partition>``."""


class EventLog:
    """Appends callbacks to Kafka. :meth:`run` keeps it connected; until then and in between it is unavailable."""

    def __init__(self, bootstrap: str, *, client_id: str, metrics: IngestMetrics) -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._metrics = metrics
        self._log = get_logger()
        self._producer: AIOKafkaProducer | None = None
        self._given_up: asyncio.Future[str] | None = None
        self._problem: str | None = "kafka not connected yet"
        self._stalled_since: float | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    def problem(self) -> str | None:
        """None while Kafka answers, else what is wrong; safe to ask from any thread."""
        return self._problem

    async def append(self, callback: Callback, *, deadline: float) -> Appended:
        """Returns once every record is acknowledged; raises Unavailable at ``deadline`` (loop time) at the latest."""
        producer = self._producer
        if producer is None:
            raise Unavailable("kafka_down")
        key = callback.key.encode()
        records: list[tuple[str, Event]] = [(RAW_TOPIC, callback.raw)]
        if callback.contact is not None:
            records.append((CONTACT_TOPIC, callback.contact))
        offsets = {}
        try:
            async with asyncio.timeout_at(deadline):
                for topic, event in records:
                    written = await producer.send_and_wait(topic, codec().encode(event), key=key)
                    offsets[f"{written.topic}-{written.partition}"] = written.offset
        except (TimeoutError, KafkaTimeoutError):
            self._note_stall(producer)
            raise Unavailable("kafka_slow") from None
        except KafkaError as error:
            self._give_up(producer, type(error).__name__)
            raise Unavailable("kafka_failed") from None
        self._stalled_since = None
        return Appended(offsets)

    async def run(self) -> None:
        """Connects, watches and replaces producers until cancelled; then flushes what is under way."""
        try:
            while True:
                producer = await self._connect()
                self._given_up = asyncio.get_running_loop().create_future()
                self._stalled_since = None
                self._producer = producer
                self._report(None)
                reason = await self._watch(producer, self._given_up)
                self._producer = None
                self._report(f"kafka lost: {reason}")
                self._metrics.producers_replaced.labels(reason).inc()
                task = asyncio.create_task(self._retire(producer))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
        finally:
            last, self._producer = self._producer, None
            self._problem = "stopping"
            await asyncio.gather(*self._retiring, *([self._retire(last)] if last is not None else []))

    async def _connect(self) -> AIOKafkaProducer:
        while True:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                compression_type="lz4",
                max_batch_size=_BATCH_BYTES,
                max_request_size=_MAX_REQUEST_BYTES,
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
            )
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await producer.start()
                    for topic in TOPICS:
                        await producer.partitions_for(topic)
            except (KafkaError, OSError, TimeoutError) as error:
                self._report(f"kafka not reachable: {type(error).__name__}")
                await self._retire(producer)
            except BaseException:
                await self._retire(producer)
                raise
            else:
                return producer
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _watch(self, producer: AIOKafkaProducer, given_up: asyncio.Future[str]) -> str:
        """Returns why the producer has to be replaced."""
        silent_since: float | None = None
        while True:
            await asyncio.wait([given_up], timeout=_PROBE_EVERY_SECONDS)
            if given_up.done():
                return given_up.result()
            if await _answers(producer):
                silent_since = None
                self._report(None)
                continue
            now = time.monotonic()
            silent_since = now if silent_since is None else silent_since
            self._report("kafka does not answer")
            if now - silent_since >= _GIVE_UP_SECONDS:
                return "unreachable"

    async def _retire(self, producer: AIOKafkaProducer) -> None:
        """Lets a producer deliver what it still holds for some seconds, then closes it come what may."""
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await producer.flush()
                await producer.stop()
        except Exception as error:  # rim of a client that is thrown away; TimeoutError: Kafka takes nothing from it
            self._log.warning("producer_dropped", error=type(error).__name__)
            await self._drop(producer)

    async def _drop(self, producer: AIOKafkaProducer) -> None:
        """Closes a producer with what it holds; the callers of all of it have been told no.

        There is no public way: ``stop()`` waits until every batch is delivered, which may be never.
        """
        parts: Any = producer
        parts._closed = True
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await parts._sender.close()
                await producer.client.close()
        except Exception as error:  # rim of a client that is thrown away: whatever it says changes nothing
            self._log.warning("producer_closed_with_error", error=type(error).__name__)

    def _note_stall(self, producer: AIOKafkaProducer) -> None:
        if producer is self._producer:
            now = time.monotonic()
            if self._stalled_since is None:
                self._stalled_since = now
            elif now - self._stalled_since >= _GIVE_UP_SECONDS:
                self._give_up(producer, "stalled")

    def _give_up(self, producer: AIOKafkaProducer, reason: str) -> None:
        if producer is self._producer and self._given_up is not None and not self._given_up.done():
            self._given_up.set_result(reason)

    def _report(self, problem: str | None) -> None:
        self._metrics.kafka_connected.set(problem is None)
        if problem != self._problem:
            self._problem = problem
            if problem is None:
                self._log.info("kafka_connected")
            else:
                self._log.warning("kafka_unavailable", detail=problem)


async def _answers(producer: AIOKafkaProducer) -> bool:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            return bool(await producer.client.force_metadata_update())
    except TimeoutError:
        return False
