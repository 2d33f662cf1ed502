"""A shard's durable side: everything it decides becomes true in one transaction, exactly once, or it is no longer ours.

Ownership is the newest epoch of the transactional id ``executor-<shard>``: whoever opens the journal last owns the
shard, and every write of an earlier owner fails. Each transaction carries a marker with the owner's incarnation and a
running number. After a commit whose end was not heard, the tail of ``quota.state`` answers: our marker means it
counted, none means it is to be sent again, and somebody else's means that the shard was theirs in between and that what
we hold in memory is no longer true.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, InvalidProducerEpoch, KafkaError, ProducerFenced
from aiokafka.structs import ConsumerRecord

from services.executor.closing import close_client
from services.executor.metadata_pace import pace_metadata
from siyu.events import Codec, QuotaState
from siyu.ops.logging import get_logger

LEDGER = "action.ledger"
QUOTA = "quota.state"
GROUP = "executor"

_MARKER = "~marker"
_MAX_RECORD_BYTES = 8 << 20
TRANSACTION_TIMEOUT_SECONDS = 15
"""Short: a successor waits this long for a frozen owner's open transaction."""
_RETRY_SECONDS = 0.5
_CLOSE_SECONDS = 3.0
_READ_MS = 200


class Lost(Exception):
    """The shard belongs to another process now; what this one holds in memory is no longer true."""


class Message(NamedTuple):
    """One record to write. ``partition`` None: by murmur2 of the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class Journal:
    """Of one shard. ``open`` first; not for several tasks at a time."""

    def __init__(self, shard: int, *, bootstrap: str, incarnation: str, codec: Codec) -> None:
        self.shard = shard
        self.incarnation = incarnation
        self._bootstrap = bootstrap
        self._codec = codec
        self._producer: AIOKafkaProducer | None = None
        self._number = 0
        self._marker_at = 0
        self._log = get_logger().bind(shard=shard)
        self.retries = 0
        """Transactions that had to be looked into or sent again."""

    async def open(self) -> None:
        """Takes the shard over: ends its former owner's open transaction. Raises KafkaError when Kafka is away."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=f"executor-{self.shard}",
            transactional_id=f"executor-{self.shard}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_SECONDS * 1000,
            enable_idempotence=True,
            compression_type="lz4",
            max_request_size=_MAX_RECORD_BYTES,
        )
        pace_metadata(producer)
        try:
            await producer.start()
        except BaseException:
            await self._close(producer)
            raise
        self._producer = producer

    async def read(self, topic: str, start: int, apply: Callable[[ConsumerRecord], None]) -> int:
        """Hands every committed record of this shard's partition from offset ``start`` on to ``apply``; the offset
        after the last one. After :meth:`open` nobody else writes meanwhile."""
        partition = TopicPartition(topic, self.shard)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=f"executor-{self.shard}-restore",
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=_MAX_RECORD_BYTES,
            # The end is often a transaction marker, which a fetch does not hand out: asked again at once.
            fetch_max_wait_ms=10,
        )
        try:
            await consumer.start()
            consumer.assign([partition])
            first = (await consumer.beginning_offsets([partition]))[partition]
            end: int = (await consumer.end_offsets([partition]))[partition]
            position: int = max(start, first)
            consumer.seek(partition, position)
            while position < end:
                for records in (await consumer.getmany(timeout_ms=_READ_MS, max_records=5_000)).values():
                    for record in records:
                        apply(record)
                # The position moves past transaction markers too; a record's offset does not.
                position = await consumer.position(partition)
            return position
        finally:
            await self._close(consumer)

    async def restore(self, apply: Callable[[QuotaState], None]) -> None:
        """Hands the newest state of every level to ``apply``."""
        newest: dict[bytes, bytes | None] = {}

        def collect(record: ConsumerRecord) -> None:
            newest[record.key] = record.value

        self._marker_at = await self.read(QUOTA, 0, collect)
        for value in newest.values():
            if value is not None:
                state = self._codec.decode_as(QuotaState, value)
                if state.level != _MARKER:
                    apply(state)

    async def commit(self, messages: Sequence[Message], offsets: Mapping[TopicPartition, int], wall_ms: int) -> int:
        """All of it, exactly once. The offset after the last ledger record, 0 when there was none. Raises Lost."""
        self._number += 1
        marker = Message(QUOTA, _MARKER.encode(), self._marker(wall_ms), self.shard)
        while True:
            try:
                return await self._transact([*messages, marker], offsets)
            except (ProducerFenced, InvalidProducerEpoch, IllegalOperation):
                # The last: the client heard in the background that it is fenced, in the midst of our transaction.
                raise Lost(f"shard {self.shard} has another owner") from None
            except KafkaError as error:
                self.retries += 1
                self._log.warning("commit_failed", error=type(error).__name__, retry_in_seconds=_RETRY_SECONDS)
            if await self._counted_after_all():
                return 0

    async def _transact(self, messages: Sequence[Message], offsets: Mapping[TopicPartition, int]) -> int:
        assert self._producer is not None
        await self._producer.begin_transaction()
        sent = [
            await self._producer.send(m.topic, key=m.key, value=m.value, partition=m.partition, headers=m.headers)
            for m in messages
        ]
        results = await asyncio.gather(*sent)
        if offsets:
            await self._producer.send_offsets_to_transaction(dict(offsets), GROUP)
        await self._producer.commit_transaction()
        self._marker_at = results[-1].offset + 1
        return max((r.offset + 1 for r in results if r.topic == LEDGER), default=0)

    async def _counted_after_all(self) -> bool:
        """How the transaction ended whose end we did not hear. Raises Lost when somebody else wrote since."""
        expected = f"{self.incarnation}:{self._number}"
        found: list[str] = []

        def collect(record: ConsumerRecord) -> None:
            if record.key == _MARKER.encode() and record.value is not None:
                found.append(self._codec.decode_as(QuotaState, record.value).state.decode())

        async def read_on() -> None:
            self._marker_at = await self.read(QUOTA, self._marker_at, collect)
            if any(not marker.startswith(f"{self.incarnation}:") for marker in found):
                raise Lost(f"shard {self.shard} had another owner meanwhile")

        while True:
            try:
                await self.close()
                await asyncio.sleep(_RETRY_SECONDS)
                # Once before the epoch is raised, which would take the shard from an owner who has it rightfully.
                await read_on()
                await self.open()
                await read_on()
            except KafkaError as error:
                self._log.warning("kafka_unreachable", error=type(error).__name__, retry_in_seconds=_RETRY_SECONDS)
                continue
            return expected in found

    def _marker(self, wall_ms: int) -> bytes:
        state = f"{self.incarnation}:{self._number}".encode()
        return self._codec.encode(
            QuotaState(
                level=_MARKER, corp_id="", endpoint="", shard=self.shard, state=state, view=b"", updated_at_ms=wall_ms
            )
        )

    async def close(self) -> None:
        """Leaves the shard to whoever opens it next; an open transaction is theirs to end."""
        await self._close(self._producer)
        self._producer = None

    async def _close(self, client: AIOKafkaConsumer | AIOKafkaProducer | None) -> None:
        if client is None:
            return
        started = time.monotonic()
        problem = await close_client(client, _CLOSE_SECONDS)
        if problem is not None:
            self._log.warning("kafka_close_incomplete", error=problem, seconds=round(time.monotonic() - started, 1))
