"""Reads the lanes and gives each record to its shard; gives shards to this process and takes them away as the group
says.

Two consumers: one keeps the process's place in the group and reads nothing; the other reads what the shards say they
want next, and never joins. So a rebalance stops nobody who keeps their shards, however long it waits for a member
that is dead. A shard that moves ends its calls first and is given to its next owner after that (see ``membership``).
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

_TOPICS = [f"actions.{lane}" for lane in LANES]
_POLL_MS = 20
_MOST_RECORDS = 1_000
_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_QUIET_SECONDS = 3.0
"""How long a shard that moves waits for its calls under way: a takeover has to be over within five seconds."""
_POLL_MEMBER_SECONDS = 1.0
_HEARTBEAT_MS = 300
"""A member hears of a rebalance with its next heartbeat, and the others wait for it."""


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
        self._member: AIOKafkaConsumer | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._shards: dict[int, Shard] = {}
        self._partitions: dict[int, dict[Lane, TopicPartition]] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}
        self._reading: dict[int, Shard] = {}
        """What the reader is set to."""
        self._paused: set[TopicPartition] = set()
        self._assigned = False
        self._kafka_fails = False
        self._ask_again = False
        """The group has to deal out anew: we have let go of something."""
        self._poll: asyncio.Task[None] | None = None

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
        """Until ``stop``."""
        try:
            while not stop.is_set():
                reading = False
                try:
                    await self._keep_place()
                    reading = True
                    await self._read()
                    self._kafka_fails = False
                except (KafkaError, asyncio.CancelledError) as error:
                    if isinstance(error, asyncio.CancelledError) and asked_to_end():
                        raise
                    # What a consumer raises is not transient: aiokafka has given up. New ones start clean.
                    self._kafka_fails = True
                    self._log.warning("kafka_read_failed", error=type(error).__name__, retry_in_seconds=_RETRY_SECONDS)
                    # Our place in the group is not lost by what is wrong with a lane.
                    await self._drop_consumers(member=not reading)
                    await _wait(stop, _RETRY_SECONDS)
                self._look_after()
        finally:
            for opening in self._opening.values():
                opening.cancel()
            await asyncio.gather(*self._opening.values(), return_exceptions=True)
            shards = list(self._shards.values())
            await asyncio.gather(*(shard.quiesce(self._grace * 0.7) for shard in shards))
            await asyncio.gather(*(shard.close() for shard in shards), return_exceptions=True)
            await asyncio.gather(*self._leaving.values(), return_exceptions=True)
            # Only now: who leaves the group gives its shards to others at once.
            await self._drop_consumers()

    def _look_after(self) -> None:
        for opening in [task for task in self._opening.values() if task.done()]:
            opening.result()
        self._opening = {index: task for index, task in self._opening.items() if not task.done()}
        for index, shard in list(self._shards.items()):
            if shard.state == "failed":
                raise RuntimeError(f"shard {index} failed")
            if shard.state == "lost":
                # We were away too long, and another has it. The group says whose it is to be from here on.
                self._let_go(index)

    # -- reading ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        assert self._reader is not None
        self._aim()
        if not self._reading:
            await asyncio.sleep(_POLL_MS / 1000)
            return
        self._balance()
        batches = await self._reader.getmany(timeout_ms=_POLL_MS, max_records=_MOST_RECORDS)
        for partition, records in batches.items():
            shard = self._shards.get(partition.partition)
            if shard is None or shard.state != "running":
                continue  # it is read from where the shard says once that is open
            lane = partition.topic.removeprefix("actions.")
            for record in records:
                shard.take(lane, record)

    def _aim(self) -> None:
        """Sets the reader to the shards that work, each from where it wants to go on."""
        assert self._reader is not None
        running = {index: shard for index, shard in self._shards.items() if shard.state == "running"}
        if running == self._reading:
            return
        offsets = {partition: at for shard in running.values() for partition, at in shard.next_offsets().items()}
        self._reader.assign(list(offsets))
        for partition, offset in offsets.items():
            self._reader.seek(partition, offset)
        self._reading, self._paused = running, set()

    def _balance(self) -> None:
        """A full lane of a shard is read no further; with room again it is."""
        assert self._reader is not None
        full, roomy = set(), set()
        for index, shard in self._reading.items():
            for lane, partition in self._partitions.get(index, {}).items():
                if partition not in self._paused and shard.full(lane):
                    full.add(partition)
                elif partition in self._paused and shard.roomy(lane):
                    roomy.add(partition)
        if full:
            self._reader.pause(*full)
        for partition in roomy:
            # Pausing threw away what had been fetched ahead, and the position with it.
            self._reader.seek(partition, self._reading[partition.partition].next_offsets()[partition])
            self._reader.resume(partition)
        self._paused = (self._paused | full) - roomy

    # -- the group ----------------------------------------------------------------------------------------------

    def held(self) -> set[int]:
        """The shards nobody else may begin with: those we work on, and those we have not ended yet."""
        return {*self._shards, *self._leaving}

    async def _keep_place(self) -> None:
        if self._reader is None:
            self._reader = await self._start_reader()
        if self._member is None:
            self._member = await self._join()
            self._poll = asyncio.create_task(_polled(self._member))
        if self._ask_again and not self._leaving:
            self._ask_again = False
            self._member.subscribe(_TOPICS, listener=self)
        if self._poll is not None and self._poll.done():
            self._poll.result()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """A round begins: nothing of ours changes before it has ended."""

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Shards that stay go on, those that are gone are let go, new ones are taken over."""
        if self._member is None:
            return  # it is being thrown away
        partitions = list(assigned)
        if partitions:
            self._member.pause(*partitions)
        self._partitions |= lanes_of(partitions)
        given = set(lanes_of(partitions))
        for index in [index for index in self._shards if index not in given]:
            self._let_go(index)
        for index in given - set(self._shards):
            shard = self._shards[index] = self._make_shard(index)
            self._opening[index] = asyncio.create_task(self._open(shard, self._leaving.get(index)))
        self._assigned = True
        self._metrics.shards.set(len(self._shards))
        self._owned(len(self._shards))
        self._log.info("partitions_assigned", partitions=sorted(given))

    def _let_go(self, index: int) -> None:
        """Ends what is under way; when that is done, the group may give the shard to its next owner."""
        shard = self._shards.pop(index)
        opening = self._opening.pop(index, None)
        earlier = self._leaving.get(index)

        async def leave() -> None:
            if opening is not None:
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
            if earlier is not None:
                await asyncio.gather(earlier, return_exceptions=True)
            await shard.quiesce(_QUIET_SECONDS)
            await shard.close()

        def left(task: asyncio.Task[None]) -> None:
            if self._leaving.get(index) is task:
                del self._leaving[index]
            self._ask_again = True

        self._leaving[index] = leaving = asyncio.create_task(leave())
        leaving.add_done_callback(left)

    async def _open(self, shard: Shard, leaving: asyncio.Task[None] | None) -> None:
        """Takes a shard over, again and again while Kafka is away."""
        if leaving is not None:
            await asyncio.gather(leaving, return_exceptions=True)
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
        self._metrics.takeover_seconds.observe(time.monotonic() - started)

    async def _committed(self, partition: TopicPartition) -> int:
        """Where the last owner was done. Asked after the shard was taken over, so that nobody can commit any more."""
        # The reader's own connection: on that of the member the answer would come behind that to its join, which waits
        # for those who are dead.
        if self._reader is None:
            raise KafkaConnectionError("no consumer now")
        committed = await self._reader.committed(partition)
        if committed is None:
            committed = (await self._reader.beginning_offsets([partition]))[partition]
        return int(committed)

    # -- the clients --------------------------------------------------------------------------------------------

    async def _join(self) -> AIOKafkaConsumer:
        member = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=f"executor-{self._instance}",
            group_id=GROUP,
            partition_assignment_strategy=(assignor_for(self._instance, self.held),),
            enable_auto_commit=False,
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=min(_HEARTBEAT_MS, self._session_timeout_ms // 10),
            rebalance_timeout_ms=max(10_000, self._session_timeout_ms),
            max_poll_interval_ms=300_000,
        )
        member.subscribe(_TOPICS, listener=self)
        # Before it has started it may already call back.
        self._member = member
        return await self._started(member)

    async def _start_reader(self) -> AIOKafkaConsumer:
        self._reading = {}
        return await self._started(
            AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                client_id=f"executor-{self._instance}-reader",
                # To ask for offsets; it never joins.
                group_id=GROUP,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=100,
            )
        )

    async def _started(self, consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
        try:
            await consumer.start()
        except BaseException:
            await self._close(consumer)
            raise
        return consumer

    async def _drop_consumers(self, *, member: bool = True) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await self._close(reader)
        if not member:
            return
        if self._poll is not None:
            self._poll.cancel()
            await asyncio.gather(self._poll, return_exceptions=True)
            self._poll = None
        place, self._member = self._member, None
        self._assigned = False
        if place is not None:
            await self._close(place)

    async def _close(self, consumer: AIOKafkaConsumer) -> None:
        problem = await close_client(consumer, _CLOSE_SECONDS)
        if problem is not None:
            self._log.warning("kafka_close_incomplete", error=problem)


async def _polled(member: AIOKafkaConsumer) -> None:
    """Reads nothing, but hears what went wrong, and keeps the client from thinking that nobody is there. In a task of
    its own: during a rebalance it waits for the end."""
    while True:
        await member.getmany(timeout_ms=0)
        await asyncio.sleep(_POLL_MEMBER_SECONDS)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        pass
