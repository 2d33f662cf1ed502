"""Reads the lanes and gives each record to its shard; gives shards to this process and takes them away as the group
says.

At a rebalance every shard pauses: no new calls, those under way end, what ended is committed. Then a shard that stays
goes on as if nothing had been, one that moves is let go, and a new one is taken over. Kafka waits for the pause, so a
shard that moves is quiet before its next owner begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError

from services.executor.closing import asked_to_end, close_client
from services.executor.journal import GROUP
from services.executor.membership import assignor_for
from services.executor.metrics import ExecutorMetrics
from services.executor.shard import Shard, lanes_of
from services.executor.site import LANES
from siyu.events import Lane
from siyu.ops.logging import get_logger

_POLL_MS = 20
_MOST_RECORDS = 1_000
_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_QUIET_SECONDS = 3.0
"""How long a rebalance waits for calls under way: a takeover has to be over within five seconds."""


class Fenced(Exception):
    """Another process works on a shard the group says is ours: this one was away too long, or has a namesake."""

    exit_code = 75


class Intake(ConsumerRebalanceListener):  # type: ignore[misc]
    """The process's place in the group ``executor``."""

    def __init__(
        self,
        make_shard: Callable[[int], Shard],
        metrics: ExecutorMetrics,
        *,
        owned: Callable[[int], None],
        bootstrap: str,
        instance: str,
        session_timeout_ms: int,
        stop_grace_seconds: float,
    ) -> None:
        self._make_shard = make_shard
        self._metrics = metrics
        self._owned = owned
        self._bootstrap = bootstrap
        self._instance = instance
        self._session_timeout_ms = session_timeout_ms
        self._grace = stop_grace_seconds
        self._log = get_logger().bind(instance=instance)
        self._consumer: AIOKafkaConsumer | None = None
        self._shards: dict[int, Shard] = {}
        self._partitions: dict[int, dict[Lane, TopicPartition]] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._paused: set[TopicPartition] = set()
        self._assigned = False
        self._kafka_fails = False

    @property
    def shards(self) -> dict[int, Shard]:
        """Those this process works on."""
        return self._shards

    def problem(self) -> str | None:
        """What keeps this process from working; None: nothing."""
        if not self._assigned:
            return "no assignment yet"
        if self._kafka_fails:
            return "Kafka does not answer"
        opening = [shard.index for shard in self._shards.values() if shard.state == "opening"]
        return f"opening {len(opening)} shards" if opening else None

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``. Raises Fenced."""
        try:
            while not stop.is_set():
                try:
                    if self._consumer is None:
                        await self._start()
                    await self._turn()
                except (KafkaError, asyncio.CancelledError) as error:
                    if isinstance(error, asyncio.CancelledError) and asked_to_end():
                        raise
                    # What reading raises is not transient: aiokafka has given up. A new consumer starts clean.
                    self._kafka_fails = True
                    self._log.warning("kafka_read_failed", error=type(error).__name__, retry_in_seconds=_RETRY_SECONDS)
                    await self._drop_consumer()
                    await _wait(stop, _RETRY_SECONDS)
        finally:
            for opening in self._opening.values():
                opening.cancel()
            await asyncio.gather(*self._opening.values(), return_exceptions=True)
            shards = list(self._shards.values())
            await asyncio.gather(*(shard.quiesce(self._grace * 0.7) for shard in shards))
            await asyncio.gather(*(shard.close() for shard in shards))
            await asyncio.gather(*self._leaving, return_exceptions=True)
            await self._drop_consumer()

    async def _turn(self) -> None:
        assert self._consumer is not None
        self._balance()
        batches = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MOST_RECORDS)
        self._kafka_fails = False
        for partition, records in batches.items():
            shard = self._shards.get(partition.partition)
            lane = partition.topic.removeprefix("actions.")
            if shard is None or shard.state != "running":
                continue  # it is read from where the shard says once that is open
            for record in records:
                shard.take(lane, record)
        for opening in [task for task in self._opening.values() if task.done()]:
            opening.result()
        self._opening = {index: task for index, task in self._opening.items() if not task.done()}
        for shard in self._shards.values():
            # At a rebalance the next owner may begin before we hear that there is one.
            if shard.state == "lost" and self._assigned:
                raise Fenced(f"shard {shard.index} has another owner")
            if shard.state == "failed":
                raise RuntimeError(f"shard {shard.index} failed")

    def _balance(self) -> None:
        """A full lane of a shard is read no further; with room again it is."""
        assert self._consumer is not None
        full, roomy = set(), set()
        for index, lanes in self._partitions.items():
            shard = self._shards.get(index)
            for lane, partition in lanes.items():
                if shard is None or shard.state != "running":
                    continue
                if partition not in self._paused and shard.full(lane):
                    full.add(partition)
                elif partition in self._paused and shard.roomy(lane):
                    roomy.add(partition)
        if full:
            self._consumer.pause(*full)
        for partition in roomy:
            # Pausing threw away what had been fetched ahead, and the position with it.
            self._consumer.seek(partition, self._shards[partition.partition].next_offsets()[partition])
            self._consumer.resume(partition)
        self._paused = (self._paused | full) - roomy

    # -- rebalances ---------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Every shard pauses; Kafka waits for this."""
        self._assigned = False
        if revoked:
            await asyncio.gather(*(shard.quiesce(_QUIET_SECONDS) for shard in self._shards.values()))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Shards that stay go on, those that are gone are let go, new ones are taken over."""
        assert self._consumer is not None
        partitions = list(assigned)
        if partitions:
            self._consumer.pause(*partitions)
        self._paused = set(partitions)
        self._partitions = lanes_of(partitions)
        for index in [index for index in self._shards if index not in self._partitions]:
            opening = self._opening.pop(index, None)
            if opening is not None:
                opening.cancel()
            self._let_go(self._shards.pop(index))
        for index in self._partitions:
            shard = self._shards.get(index)
            if shard is not None and shard.state == "lost":
                self._let_go(shard)
                shard = None
            if shard is None:
                shard = self._shards[index] = self._make_shard(index)
                self._opening[index] = asyncio.create_task(self._open(shard))
            elif shard.state in ("running", "quiet"):
                self._go_on(shard)
                shard.resume()
        self._assigned = True
        self._metrics.shards.set(len(self._shards))
        self._owned(len(self._shards))
        self._log.info("partitions_assigned", partitions=sorted(self._partitions))

    def _let_go(self, shard: Shard) -> None:
        leaving = asyncio.create_task(shard.close())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def _open(self, shard: Shard) -> None:
        """Takes a shard over, again and again while Kafka is away."""
        started = time.monotonic()
        while True:
            try:
                await shard.open()
                lanes = self._partitions[shard.index]
                offsets = {lane: (partition, await self._committed(partition)) for lane, partition in lanes.items()}
                break
            except (KafkaError, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and asked_to_end():
                    raise
                self._log.warning("shard_open_failed", shard=shard.index, error=type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)
        shard.begin(offsets)
        self._go_on(shard)
        self._metrics.takeover_seconds.observe(time.monotonic() - started)

    async def _committed(self, partition: TopicPartition) -> int:
        """Where the last owner was done. Asked after the shard was taken over, so that nobody can commit any more."""
        if self._consumer is None:
            raise KafkaConnectionError("no consumer now")
        committed = await self._consumer.committed(partition)
        if committed is None:
            committed = (await self._consumer.beginning_offsets([partition]))[partition]
        return int(committed)

    def _go_on(self, shard: Shard) -> None:
        if self._consumer is None:
            return
        mine = self._consumer.assignment()
        for partition, offset in shard.next_offsets().items():
            if partition in mine:
                self._consumer.seek(partition, offset)
                self._consumer.resume(partition)
                self._paused.discard(partition)

    # -- the client ---------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=f"executor-{self._instance}",
            group_id=GROUP,
            group_instance_id=f"executor-{self._instance}",
            partition_assignment_strategy=(assignor_for(self._instance),),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=max(500, self._session_timeout_ms // 10),
            rebalance_timeout_ms=int(max(self._grace, _QUIET_SECONDS) * 1000) + 10_000,
            max_poll_interval_ms=300_000,
            fetch_max_wait_ms=100,
        )
        consumer.subscribe([f"actions.{lane}" for lane in LANES], listener=self)
        self._consumer = consumer
        try:
            await consumer.start()
        except BaseException:
            await self._drop_consumer()
            raise

    async def _drop_consumer(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._assigned = False
        if consumer is None:
            return
        problem = await close_client(consumer, _CLOSE_SECONDS)
        if problem is not None:
            self._log.warning("kafka_close_incomplete", error=problem)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        pass
