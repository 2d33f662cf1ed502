"""One shard: everything that happens to the actions of its partition, decided by one owner and made durable in cycles.

A cycle picks asks in the order of lanes, turns and deadlines; asks the gates and the governor; and commits in one
transaction what was reserved, what is about to be made, what ended, and how far the lanes are done with. Only then do
the reserved calls start. So, wherever the process dies:

* no call leaves whose units a successor does not know to be used;
* no call that makes something leaves that a successor does not know about;
* every action has one outcome, whose record, offset and ledger entry are one.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from services.executor.closing import asked_to_end
from services.executor.domain import End
from services.executor.gates import Hold
from services.executor.governor import Governor
from services.executor.journal import LEDGER, QUOTA, Journal, Lost, Message
from services.executor.leases import Leases, LeaseTimes
from services.executor.levels import StateError
from services.executor.membership import shard_of
from services.executor.offsets import OffsetTracker
from services.executor.pending import LARGEST_BYTES, Pending
from services.executor.process import Process
from services.executor.site import LANES, LaneState, Site, Staged, Timeouts
from services.executor.token_calls import TokenCalls
from services.executor.token_table import TOPIC as TOKENS
from services.executor.token_table import key_of
from services.executor.unreadable import LARGEST_FIELDS_BYTES, dead_letter, in_its_place
from services.executor.work import (
    Ask,
    Effects,
    LedgerDamaged,
    Work,
    begin,
    entry_of,
    is_open,
    is_send,
    outcome_of,
    restore,
)
from siyu.events import (
    Action,
    CodecError,
    ControlRecord,
    Lane,
    LedgerEntry,
    QuotaLease,
    QuotaState,
)
from siyu.events.ids import stable_id, staff_key
from siyu.ops.clock import wall_ms
from siyu.ops.logging import get_logger
from siyu.wecom.client import Answer, NotSent
from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN, quota_scope

START_WITHIN_SECONDS = 1.0
"""A reserved call that has not started by then is given back: a successor counts on nothing starting later."""
_COMMIT_WITHIN_SECONDS = 2.0
"""What a commit took longer starts nothing: its reservations were reckoned with no more than that."""
_ORPHAN_SECONDS = 1.5
"""A call whose caller died is over for WeCom within this after its start: until then a successor counts it as being
under way. It counts in its windows for as long as its caller would have waited."""
_GATHER_SECONDS = 0.03
"""Outcomes without anything that waits for the commit are gathered for so long."""
_IDLE_SECONDS = 0.25
_PARK_MS = 15 * 60_000
"""An action whose time is further away than this waits in the ledger instead of holding its partition's offset."""
_MOST_STAGED = 512
_MOST_WAITING_RECORDS = 2_000
_SHARES_A_LOOK = 2_000
_SWEEP_SECONDS = 30.0
_SWEEP_ACTIONS = 1_000
_TABLES_RETRY_MS = 250
_TOKENS_FRESH_MS = 5_000
_BLOCKED_AGAIN_MS = 5_000
_MOST_ENDED = 50
"""Actions of one corp × endpoint that end in one turn without a call. Thousands of them (a stopped corp, a cancelled
campaign) hold up nobody: the shard's other corps have their part of every turn, and the process's other shards three
quarters of the time."""
_PARKED_A_TURN = 200
_AFTER_FINISH_MS = 20
"""A lane that waits for a call to end is asked again this often, besides at every end."""
GUARD_SIGNALS = "guard.signals"
LEASES = "quota.leases"

State = Literal["opening", "running", "quiet", "lost", "failed", "closed"]


class _Input:
    """One lane's partition."""

    __slots__ = ("committed", "partition", "tracker")

    def __init__(self, partition: TopicPartition, offset: int) -> None:
        self.partition = partition
        self.tracker = OffsetTracker(offset)
        self.committed = offset


class _Open:
    """An action under way and where it came from."""

    __slots__ = ("appended_ms", "asked", "due_ms", "origin", "source", "work")

    def __init__(self, work: Work, origin: str, source: tuple[Lane, int] | None, appended_ms: int) -> None:
        self.work = work
        self.origin = origin
        self.source = source
        """Lane and offset that are not done with yet."""
        self.appended_ms = appended_ms
        """The broker's time of its record."""
        self.due_ms = 0
        """When it is looked at again; other notes about it are stale."""
        self.asked: set[str] = set()
        """Keys of asks that wait, are staged or under way."""


@dataclass(frozen=True)
class Figures:
    """For the gauges."""

    waiting: dict[Lane, int]
    under_way: int
    in_doubt: int
    in_flight: int


class Shard:
    """Owned by this process from :meth:`open` until :attr:`state` is lost or closed."""

    def __init__(self, index: int, process: Process) -> None:
        self.index = index
        self.state: State = "opening"
        self._process = process
        self._log = get_logger().bind(shard=index, instance=process.instance)
        self._journal = Journal(
            index,
            bootstrap=process.bootstrap,
            incarnation=f"{process.incarnation}.{next(_serial)}",
            codec=process.codec,
        )
        self._inputs: dict[Lane, _Input] = {}
        self._sites: dict[tuple[str, str], Site] = {}
        self._open: dict[str, _Open] = {}
        self._due: list[tuple[int, int, str]] = []
        self._later: list[tuple[int, int, Lane, int]] = []
        """Actions whose time comes within minutes: due, number, lane, offset."""
        self.pending = Pending(index, process.codec, process.disk)
        self._calls: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._committing: Pending | None = None
        self._last_words = False
        """The next owner is to be told what ended, so that it counts none of it as being under way."""
        self._parked: Iterator[tuple[str, bytes]] = iter(())
        """Entries of the ledger that are still to be searched for cancelled ones."""
        self._ended_now = 0
        self._turns = 0
        self._swept = time.monotonic()
        self._numbers = itertools.count()
        self._changes = process.control.subscribe()
        limits = process.limits.current(process.clock.now_ms())
        self._revision = limits.revision
        self._limits = limits
        self._lanes_index = {lane: index for index, lane in enumerate(LANES)}
        self._levels: dict[str, bytes] = {}
        self.timeouts = Timeouts()
        self._silence: Callable[[], None] = lambda: None
        self._gates = process.gates(index, self._journal.incarnation)
        self._shared = Leases(
            limits,
            shard=index,
            incarnation=self._journal.incarnation,
            egress=process.egress,
            shard_of=lambda level: shard_of(level, process.shards),
            corps=process.corps.keys(),
            times=LeaseTimes().scaled(process.clock.pace()),
        )
        self.governor = Governor(
            limits,
            egress=process.egress,
            corps=process.corps.keys(),
            load=self._levels.get,
            allowance=lambda corp_id, staff_id: self._gates.allowance(corp_id, staff_id, process.clock.now_ms()),
            shared=self._shared,
        )
        owned = [
            corp
            for corp in process.corps.values()
            if shard_of(quota_scope(corp.corp_id, GETTOKEN), process.shards) == index
        ]
        self._token_calls = TokenCalls(self, process, owned) if owned else None

    @property
    def running(self) -> bool:
        """Whether calls may start."""
        return self.state == "running"

    def wake(self) -> None:
        """Has the next turn come at once."""
        self._wake.set()

    def fail(self) -> None:
        """A bug: ends the process, visibly, and its supervisor starts it again from what is durable."""
        if self.state in ("running", "quiet"):
            self.state = "failed"
        self._wake.set()

    # -- taking over and leaving --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Takes over: fences the former owner, reads its quotas and open actions. Raises KafkaError."""
        started = time.monotonic()
        await self._journal.open()
        now_ms = self._process.clock.now_ms()
        await self._journal.restore(lambda state: self._restore_level(state, now_ms))
        await self._restore_ledger(now_ms)
        self._log.info(
            "shard_opened",
            seconds=round(time.monotonic() - started, 3),
            count=len(self._open),
        )

    def begin(self, offsets: dict[Lane, tuple[TopicPartition, int]]) -> None:
        """Starts working from these offsets."""
        self._inputs = {lane: _Input(partition, offset) for lane, (partition, offset) in offsets.items()}
        self.state = "running"
        self._runner = asyncio.create_task(self._run(), name=f"shard-{self.index}")
        if self._token_calls is not None:
            self._token_calls.begin()
        self._silence = self._process.tokens.listen(self._wake.set)

    def next_offsets(self) -> dict[TopicPartition, int]:
        """Where reading goes on."""
        return {lane.partition: lane.tracker.next for lane in self._inputs.values()}

    async def quiesce(self, seconds: float) -> None:
        """Starts no more calls, waits for those under way, commits what ended."""
        if self.state != "running":
            return
        self.state = "quiet"
        deadline = time.monotonic() + seconds
        self._wake.set()
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds * 0.7)
        self._last_words = True
        self._wake.set()
        # Four things change it, and it is rare: looked at until it is so.
        while self._unsaid() and time.monotonic() < deadline and self._alive():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if self._calls or self.pending:
            self._log.warning("drain_incomplete", calls=len(self._calls), limit_seconds=seconds)

    def _unsaid(self) -> bool:
        return bool(self.pending) or self._committing is not None or self._last_words

    async def close(self) -> None:
        """Lets go. What is not committed is the next owner's to find out."""
        if self.state == "closed":
            return
        self.state = "closed"
        self._wake.set()
        if self._token_calls is not None:
            await self._token_calls.close()
        if self._runner is not None:
            await asyncio.gather(self._runner, return_exceptions=True)
        for call in list(self._calls):
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self._journal.close()
        self._silence()
        self._process.control.unsubscribe(self._changes)
        self._process.disk.drop_spool(self.index)

    def _alive(self) -> bool:
        return self._runner is not None and not self._runner.done()

    def _restore_level(self, state: QuotaState, now_ms: int) -> None:
        try:
            self.governor.restore(state.level, state.state, now_ms)
        except StateError as error:
            self._process.metrics.damaged.inc()
            self._log.error("quota_state_damaged", endpoint=state.endpoint, error_detail=str(error))
            self.governor.mistrust(state.level, now_ms)
        else:
            self._levels[state.level] = state.state

    async def _restore_ledger(self, now_ms: int) -> None:
        disk, codec = self._process.disk, self._process.codec
        known = disk.position(self.index)
        start = known[1] if known is not None and known[0] == self._process.ledger_id else 0
        if known is not None and not start:
            disk.forget(self.index)
        batch = disk.batch(self.index, self._process.ledger_id)

        def apply(record: ConsumerRecord) -> None:
            action_id = record.key.decode()
            if record.value is None:
                batch.delete(action_id, 0)
            else:
                entry = codec.decode_as(LedgerEntry, record.value)
                if entry.message_id:
                    batch.made(entry.corp_id, entry.message_id)
                batch.put(action_id, record.value, entry.updated_at_ms if entry.state == "ended" else 0)

        batch.next_offset = await self._journal.read(LEDGER, start, apply)
        batch.write()
        grouped: dict[str, list[LedgerEntry]] = {}
        for _, value in disk.open_entries(self.index):
            entry = codec.decode_as(LedgerEntry, value)
            if is_open(entry):
                grouped.setdefault(self._root_of(entry), []).append(entry)
        for root, entries in grouped.items():
            self._restore_action(root, entries, now_ms)

    @staticmethod
    def _root_of(entry: LedgerEntry) -> str:
        return entry.parent_id or entry.action_id

    def _restore_action(self, root: str, entries: list[LedgerEntry], now_ms: int) -> None:
        first = next((entry for entry in entries if entry.action_id == root), entries[0])
        if first.state == "waiting":
            heapq.heappush(self._due, (max(first.due_ms, 1), next(self._numbers), root))
            return
        try:
            work = restore(entries, self._process.around, now_ms)
        except LedgerDamaged as error:
            # It stays in the ledger as it is: nothing about it may be repeated before a person has looked.
            self._process.metrics.damaged.inc()
            self._log.error("ledger_entry_damaged", action_id=root, error_detail=str(error))
            return
        self._open[root] = _Open(work, first.origin, None, first.updated_at_ms)
        self._look(root, now_ms)

    # -- taking in ----------------------------------------------------------------------------------------------

    def full(self, lane: Lane) -> bool:
        """Whether the lane's partition should be read no further for now."""
        found = self._inputs.get(lane)
        return (
            found is None
            or self.state != "running"
            or found.tracker.span >= self._process.most_of_a_shard
            or len(self.pending.messages) >= _MOST_WAITING_RECORDS
        )

    def roomy(self, lane: Lane) -> bool:
        """Whether a full lane has room again."""
        found = self._inputs.get(lane)
        return (
            found is not None
            and self.state == "running"
            and found.tracker.span <= self._process.most_of_a_shard * 3 // 4
        )

    def take(self, lane: Lane, record: ConsumerRecord) -> None:
        """One record of a lane: it waits from now on, or ends at once."""
        taken = self._inputs.get(lane)
        if taken is None or not taken.tracker.taken(record.offset):
            return
        try:
            action = self._process.codec.decode_as(Action, record.value)
            if len(record.value) - len(action.payload) > LARGEST_FIELDS_BYTES:
                raise CodecError("an action's fields are longer than any id or reason")
        except CodecError as error:
            self._dead_letter(lane, record, error)
            return
        if len(record.value) > LARGEST_BYTES:
            action = msgspec.structs.replace(action, payload=b"")
            if not self._known_before(lane, record.offset, action):
                self._refuse(lane, record.offset, action, End("rejected", "payload_too_large"))
            self._wake.set()
            return
        if shard_of(quota_scope(action.corp_id, action.endpoint), self._process.shards) != self.index:
            self._reroute(lane, record, action)
            return
        number = record.offset
        kept = _STAMP.pack(record.timestamp) + record.value
        self._process.disk.spool(self.index, self._lanes_index[lane], number, kept)
        now_ms = self._process.clock.now_ms()
        contradictory = action.lane != lane or 0 < action.deadline_ms < action.not_before_ms
        if action.not_before_ms > now_ms and not contradictory:
            self._wait(lane, number, action, record.timestamp, now_ms)
        else:
            self._enqueue(lane, number, action)
        self._wake.set()

    def _enqueue(self, lane: Lane, number: int, action: Action) -> None:
        campaign, staff = (action.campaign_id or action.reason, action.staff_id) if lane == "bulk" else ("", "")
        cost = max(1, len(action.payload) // 400_000) if is_send(action) else 1
        state = self._site(action.corp_id, action.endpoint).lane(lane)
        state.backlog.push(number, action.deadline_ms, campaign, staff, cost)

    def _wait(self, lane: Lane, number: int, action: Action, appended_ms: int, now_ms: int) -> None:
        """Minutes in memory, longer in the ledger."""
        if action.not_before_ms - now_ms <= _PARK_MS or (0 < action.deadline_ms <= now_ms):
            heapq.heappush(self._later, (action.not_before_ms, next(self._numbers), lane, number))
            return
        if self._known_before(lane, number, action):
            return
        if self._cancelled(action, appended_ms):
            self._refuse(lane, number, action, End("cancelled", "operator_cancelled"))
            return
        entry = entry_of(
            action, "waiting", wall_ms(), due_ms=action.not_before_ms, memory=self._process.codec.encode(action)
        )
        self.pending.enter(msgspec.structs.replace(entry, origin=self._origin(lane, number)))
        self._finish_source(lane, number)
        heapq.heappush(self._due, (action.not_before_ms, next(self._numbers), action.action_id))

    def _site(self, corp_id: str, endpoint: str) -> Site:
        key = (corp_id, endpoint)
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = Site(corp_id, endpoint)
        return site

    def _origin(self, lane: Lane, number: int) -> str:
        return f"{lane}/{self.index}/{number}"

    def _finish_source(self, lane: Lane, number: int) -> None:
        self._process.disk.unspool(self.index, self._lanes_index[lane], number)
        self._inputs[lane].tracker.done(number)

    def _dead_letter(self, lane: Lane, record: ConsumerRecord, error: CodecError) -> None:
        """What cannot be read has no outcome of its own but one under its place, and is kept with its origin."""
        self._process.metrics.dead_letters.labels(lane).inc()
        self._log.error(
            "dead_letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            error=type(error).__name__,
        )
        self.pending.messages.append(dead_letter(record, error))
        unread = in_its_place(record, lane, self._process.corps)
        self.pending.publish(outcome_of(unread, End("rejected", "malformed"), wall_ms()))
        self._inputs[lane].tracker.done(record.offset)
        self._wake.set()

    def _reroute(self, lane: Lane, record: ConsumerRecord, action: Action) -> None:
        """Its key is not its scope's, so it lies with the wrong owner: sent on, once, in our transaction."""
        scope = quota_scope(action.corp_id, action.endpoint)
        self._process.metrics.rerouted.labels(lane).inc()
        partition = shard_of(scope, self._process.shards)
        self.pending.messages.append(
            Message(record.topic, scope.encode(), record.value, partition, tuple(record.headers or ()))
        )
        self._inputs[lane].tracker.done(record.offset)
        self._wake.set()

    def told(self, lease: QuotaLease) -> None:
        """A word of another shard about a level they share."""
        if self.state in ("running", "quiet"):
            self._shared.receive(lease, self._process.clock.now_ms())
            self._wake.set()

    # -- the cycle ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while self.state in ("running", "quiet"):
                now_ms = self._process.clock.now_ms()
                if self.state == "running":
                    began = time.monotonic()
                    if self._turn(now_ms):
                        await asyncio.sleep(3 * (time.monotonic() - began))
                        self._wake.set()
                else:
                    self._unstage(now_ms)
                if self._commit_is_due(now_ms):
                    await self._commit()
                    continue
                await self._pause()
        except Lost:
            if self.state == "closed":
                return  # let go already: that somebody else has it is as it should be
            self.state = "lost"
            self._process.metrics.lost.inc()
            self._log.warning("shard_lost")
        except asyncio.CancelledError:
            if asked_to_end():
                raise
            # A request of a client that was thrown away: nobody would notice that the shard does nothing any more.
            if self.state != "closed":
                self.state = "failed"
            self._log.error("shard_failed", exc_info=True)
        except Exception:
            # The rim: a bug ends the process, visibly, and its supervisor starts it again from what is durable.
            if self.state != "closed":
                self.state = "failed"
            self._log.error("shard_failed", exc_info=True)

    def _turn(self, now_ms: int) -> bool:
        """Whether some corp × endpoint has more to end than its part of a turn."""
        limits = self._process.limits.current(now_ms)
        if limits is not self._limits:
            self._limits = limits
            self._revision = limits.revision
            self.governor.change(limits, now_ms)
            for site in self._sites.values():
                for state in site.lanes.values():
                    state.again_ms = 0
        for record in self._changes.drain():
            self._controlled(record, now_ms)
        self._search_parked()
        while self._later and self._later[0][0] <= now_ms:
            _, _, lane, number = heapq.heappop(self._later)
            action, _ = self._spooled(lane, number)
            self._enqueue(lane, number, action)
        # What a large send tells of its people comes in portions, each a transaction of its own.
        while self._due and self._due[0][0] <= now_ms and len(self.pending.messages) < _MOST_WAITING_RECORDS:
            due_ms, _, action_id = heapq.heappop(self._due)
            self._on_time(action_id, due_ms, now_ms)
        if self._token_calls is not None:
            self._token_calls.grant(now_ms)
        sites = list(self._sites.values())
        # What a transaction holds is bounded: whoever stands first this time stands last the next.
        self._turns += 1
        first = self._turns % len(sites) if sites else 0
        more = False
        for site in sites[first:] + sites[:first]:
            self._ended_now = 0
            self._serve(site, now_ms)
            more |= self._ended_now >= _MOST_ENDED
            self._start(site)
        if time.monotonic() - self._swept > _SWEEP_SECONDS:
            self._sweep()
        return more

    def _commit_is_due(self, now_ms: int) -> bool:
        pending = self.pending
        if self.state == "quiet":
            # Nothing that could wait: the next owner is waiting for it.
            return bool(pending) or self._last_words
        if not pending and not self._offsets() and not self._gates.due(now_ms) and self.governor.due_ms() > now_ms:
            return False
        if pending.staged or pending.permits or pending.written or self._gates.urgent:
            return True
        if not pending.since:
            pending.since = time.monotonic()
        return time.monotonic() - pending.since >= _GATHER_SECONDS

    async def _pause(self) -> None:
        wait = _IDLE_SECONDS
        if self.pending or self._offsets():
            wait = _GATHER_SECONDS
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), wait)
        except TimeoutError:
            return
        # Whatever woke us rarely comes alone: one turn of the loop gathers the rest.
        await asyncio.sleep(0)

    def _offsets(self) -> dict[TopicPartition, int]:
        return {lane.partition: lane.tracker.low for lane in self._inputs.values() if lane.tracker.low > lane.committed}

    async def _commit(self) -> None:
        started = time.monotonic()
        process = self._process
        pending, self.pending = self.pending, Pending(self.index, process.codec, process.disk)
        offsets = self._offsets()
        stamp = wall_ms()
        if self._last_words:
            # What is staged now is given back after this transaction, and told in one more.
            self._last_words = bool(pending.staged or pending.permits)
            self._shared.give_up()
        self._tell(pending, process.clock.now_ms(), stamp)
        self._committing = pending
        try:
            next_ledger = await self._journal.commit(pending.messages, offsets, stamp)
        finally:
            self._committing = None
        took = time.monotonic() - started
        process.metrics.commits.observe(took)
        for lane in self._inputs.values():
            if lane.partition in offsets:
                lane.committed = offsets[lane.partition]
        pending.keep(process.ledger_id, next_ledger or None)
        for outcome in pending.outcomes:
            process.metrics.ended(outcome, process.log_events)
        # Counted from where the successor's reckoning begins, however long the disk took. After a commit that took
        # longer than a successor was told to allow for, nothing of it may start.
        start_by = min(time.monotonic(), started + _COMMIT_WITHIN_SECONDS) + START_WITHIN_SECONDS
        self._committed(pending, start_by if took <= _COMMIT_WITHIN_SECONDS else 0.0)

    def _tell(self, pending: Pending, now_ms: int, stamp: int) -> None:
        """Adds what the shard has to say besides about its actions: quotas, leases, signals for the guard."""
        process = self._process
        for word in self._shared.outgoing(now_ms):
            partition = self._shared.destination(word)
            value = process.codec.encode(msgspec.structs.replace(word, written_at_ms=stamp))
            pending.messages.append(Message(LEASES, word.level.encode(), value, partition))
        ahead_ms = (_COMMIT_WITHIN_SECONDS + START_WITHIN_SECONDS) * 1000 + self.timeouts.longest_ms
        worst_end_ms = now_ms + int(ahead_ms * process.clock.pace())
        orphans_ms = (_COMMIT_WITHIN_SECONDS + START_WITHIN_SECONDS + _ORPHAN_SECONDS) * 1000
        orphans_end_ms = now_ms + int(orphans_ms * process.clock.pace())
        every_end = self.state == "quiet"
        for level in self.governor.take_dirty(now_ms, worst_end_ms, min(worst_end_ms, orphans_end_ms), every_end):
            self._levels[level.level] = level.state
            state = QuotaState(
                level=level.level,
                corp_id=level.corp_id,
                endpoint=level.endpoint,
                shard=self.index,
                state=level.state,
                view=level.view,
                updated_at_ms=stamp,
            )
            pending.messages.append(Message(QUOTA, level.level.encode(), process.codec.encode(state), self.index))
        for signal in self._gates.signals(now_ms):
            key = staff_key(signal.corp_id, signal.staff_id).encode()
            pending.messages.append(Message(GUARD_SIGNALS, key, process.codec.encode(signal)))

    def _committed(self, pending: Pending, start_by: float) -> None:
        """What was reserved may start until then (monotonic seconds)."""
        sites = set()
        for staged in pending.staged:
            site = self._site(staged.ask.claim.corp_id, staged.ask.endpoint)
            site.staged -= 1
            sites.add(site)
            staged.start_by = start_by
            site.lane(staged.lane).ready.append(staged)
        if self._token_calls is not None:
            for permit in pending.permits:
                self._token_calls.reserved(permit, start_by)
            self._token_calls.grant(self._process.clock.now_ms())
        for written in pending.written:
            if not written.done():
                written.set_result(None)
        for site in sites:
            site.committed()
            self._start(site)

    # -- choosing -----------------------------------------------------------------------------------------------

    def _serve(self, site: Site, now_ms: int) -> None:
        """Reserves what may go next at one corp × endpoint."""
        room = site.room()
        for lane in LANES:
            state = site.lanes.get(lane)
            if state is None:
                continue
            if state.backlog and time.monotonic() - state.looked >= _IDLE_SECONDS:
                self._expire(site, lane, state, now_ms)
            self._end_recalled(lane, state)
            state.release(now_ms)
            while room > 0 and now_ms >= state.again_ms and len(self.pending.staged) < _MOST_STAGED:
                picked = self._pick(site, lane, state, now_ms)
                if picked is None:
                    break
                if self._reserve(site, lane, state, *picked, now_ms):
                    room -= 1
        if site.idle:
            self._sites.pop((site.corp_id, site.endpoint), None)

    def _pick(self, site: Site, lane: Lane, state: LaneState, now_ms: int) -> tuple[Work, Ask] | None:
        """The next ask of the lane, of an action under way or of a new one."""
        gates = self._gates
        while True:
            while state.asks:
                _, _, work, ask = heapq.heappop(state.asks)
                opened = self._open.get(self._root(work))
                if opened is not None and ask.key in opened.asked:
                    return work, ask
            # What ends without a call is told before more is taken up.
            if not state.backlog or state.crowded or len(self.pending.messages) >= _MOST_WAITING_RECORDS:
                return None
            if self._ended_now >= _MOST_ENDED:
                return None
            again_ms = gates.lane_held(site.corp_id, site.endpoint, lane, now_ms)
            if again_ms:
                state.again_ms = again_ms
                return None
            waiting = state.backlog.pop(gates.campaign_filter(site.corp_id, lane) if lane == "bulk" else None)
            if waiting is None:
                state.again_ms = now_ms + _TABLES_RETRY_MS
                return None
            self._bring(lane, waiting.number, now_ms)

    def _reserve(self, site: Site, lane: Lane, state: LaneState, work: Work, ask: Ask, now_ms: int) -> bool:
        held = self._gates.ask_held(work.action, ask, now_ms)
        if held is not None:
            self._follow_gate(lane, state, work, ask, held, now_ms)
            return False
        path = self.governor.path(ask.claim)
        again_ms = self.governor.reserve(path, lane, now_ms)
        if again_ms:
            if self.governor.narrow:
                state.hold(again_ms if again_ms > 0 else now_ms + _AFTER_FINISH_MS, next(self._numbers), work, ask)
            else:
                state.put(next(self._numbers), work, ask)
                state.again_ms = again_ms if again_ms > 0 else now_ms + _AFTER_FINISH_MS
            return False
        admission = self.governor.explain(path, lane, now_ms)
        outgoing = work.going_out(ask, now_ms, admission, self._revision)
        if outgoing is None:
            self.governor.give_back(path, now_ms)
            self._opened(work).asked.discard(ask.key)
            self._after(work, work.past(now_ms, wall_ms()), now_ms)
            return False
        if ask.durable:
            self._write_records(work)
        site.staged += 1
        self.timeouts.add(outgoing.timeout_ms)
        self.pending.staged.append(Staged(work, outgoing, path, lane))
        return True

    def _bring(self, lane: Lane, number: int, now_ms: int) -> None:
        """A waiting action becomes one under way, or ends."""
        action, appended_ms = self._spooled(lane, number)
        if self._known_before(lane, number, action):
            return
        if action.lane != lane or 0 < action.deadline_ms < action.not_before_ms:
            self._refuse(lane, number, action, End("rejected", "contradictory"))
        elif self._cancelled(action, appended_ms):
            self._refuse(lane, number, action, End("cancelled", "operator_cancelled"))
        else:
            self._begin(action, self._origin(lane, number), (lane, number), appended_ms, now_ms)

    def _end_recalled(self, lane: Lane, state: LaneState) -> None:
        """A portion of what a cancel took out of the backlog; what it does not mean (it came later) waits again."""
        for _ in range(min(_MOST_ENDED, len(state.recalled))):
            number = state.recalled.popleft()
            action, appended_ms = self._spooled(lane, number)
            if self._known_before(lane, number, action):
                continue
            if self._cancelled(action, appended_ms):
                self._refuse(lane, number, action, End("cancelled", "operator_cancelled"))
            else:
                self._enqueue(lane, number, action)
        if state.recalled:
            self._wake.set()

    def _cancelled(self, action: Action, appended_ms: int) -> bool:
        word = self._process.control.cancelled(
            action.action_id,
            corp_id=action.corp_id,
            lane=action.lane,
            campaign_id=action.campaign_id,
            appended_ms=appended_ms,
        )
        return word is not None

    def _begin(
        self, action: Action, origin: str, source: tuple[Lane, int] | None, appended_ms: int, now_ms: int
    ) -> None:
        if 0 < action.deadline_ms < now_ms:
            self._end_unbegun(action, End("expired", "deadline_passed"), origin, source)
            return
        if action.corp_id not in self._process.corps:
            self._end_unbegun(action, End("rejected", "corp_unknown"), origin, source)
            return
        begun = begin(action, self._process.around, now_ms)
        if isinstance(begun, End):
            self._end_unbegun(action, begun, origin, source)
            return
        refused = self._gates.action_refused(action, now_ms)
        if refused is not None:
            self._end_unbegun(action, refused[0], origin, source, refused[1])
            return
        self._open[action.action_id] = _Open(begun, origin, source, appended_ms)
        self._write_records(begun)
        self._look(action.action_id, now_ms)

    def _refuse(self, lane: Lane, number: int, action: Action, end: End) -> None:
        self._end_unbegun(action, end, self._origin(lane, number), (lane, number))

    def _end_unbegun(
        self, action: Action, end: End, origin: str, source: tuple[Lane, int] | None, evidence: bytes = b""
    ) -> None:
        stamp = wall_ms()
        self._ended_now += 1
        entry = entry_of(action, "ended", stamp, end=end, admission=evidence)
        self.pending.enter(msgspec.structs.replace(entry, origin=origin))
        self.pending.publish(outcome_of(action, end, stamp))
        if source is not None:
            self._finish_source(*source)

    def _known_before(self, lane: Lane, number: int, action: Action) -> bool:
        """Whether the action is under way or has ended: read again after a crash, or sent twice."""
        opened = self._open.get(action.action_id)
        origin = self._origin(lane, number)
        if opened is not None:
            if opened.origin == origin:
                self._finish_source(lane, number)
                return True
            self._repeat(lane, number, action, opened.work.action)
            return True
        value = self._entry(action.action_id)
        if value is None:
            return False
        entry = self._process.codec.decode_as(LedgerEntry, value)
        if entry.origin == origin:
            self._finish_source(lane, number)
        else:
            self._repeat(lane, number, action, entry)
        return True

    def _entry(self, action_id: str) -> bytes | None:
        """What the ledger says of an action, with what this transaction and the next add."""
        for pending in (self.pending, self._committing):
            if pending is not None and (entry := pending.entered(action_id)) is not None:
                return entry
        return self._process.disk.entry(self.index, action_id)

    def _repeat(self, lane: Lane, number: int, action: Action, first: Action | LedgerEntry) -> None:
        """The same action id once more. The action's own outcome stays the only one; the record's says what it was."""
        same = all(
            getattr(action, name) == getattr(first, name)
            for name in (
                "lane",
                "corp_id",
                "endpoint",
                "subject",
                "staff_id",
                "customer_id",
                "campaign_id",
                "deadline_ms",
            )
        )
        origin = self._origin(lane, number)
        repeat_id = stable_id("repeat", action.action_id, origin)
        if self._entry(repeat_id) is None:
            end = End("rejected", "duplicate" if same else "contradictory")
            stamp = wall_ms()
            changes = {"action_id": repeat_id, "parent_id": action.action_id}
            entry = entry_of(action, "ended", stamp, action_id=repeat_id, parent_id=action.action_id, end=end)
            self.pending.enter(msgspec.structs.replace(entry, origin=origin))
            self.pending.publish(outcome_of(action, end, stamp, changes=changes))
        self._finish_source(lane, number)

    def _expire(self, site: Site, lane: Lane, state: LaneState, now_ms: int) -> None:
        late = state.backlog.expired(now_ms, _SHARES_A_LOOK, _MOST_ENDED)
        if len(late) < _MOST_ENDED:
            state.looked = time.monotonic()
        for waiting in late:
            action, _ = self._spooled(lane, waiting.number)
            if not self._known_before(lane, waiting.number, action):
                self._refuse(lane, waiting.number, action, End("expired", "deadline_passed"))

    def _spooled(self, lane: Lane, number: int) -> tuple[Action, int]:
        """A waiting action, and the broker's time of its record."""
        kept = self._process.disk.spooled(self.index, self._lanes_index[lane], number)
        return self._process.codec.decode_as(Action, kept[_STAMP.size :]), _STAMP.unpack_from(kept)[0]

    def _follow_gate(self, lane: Lane, state: LaneState, work: Work, ask: Ask, held: End | Hold, now_ms: int) -> None:
        if isinstance(held, Hold):
            state.hold(held.until_ms, next(self._numbers), work, ask)
            return
        effects = work.stop(held.status, held.detail, now_ms, wall_ms())
        if not work.ended:
            # What is in doubt or half done cannot end yet, and wants the same call again: not before a while.
            state.hold(now_ms + _BLOCKED_AGAIN_MS, next(self._numbers), work, ask)
        self._after(work, effects, now_ms)

    # -- actions under way --------------------------------------------------------------------------------------

    @staticmethod
    def _root(work: Work) -> str:
        return work.action.action_id

    def _opened(self, work: Work) -> _Open:
        return self._open[work.action.action_id]

    def _look(self, action_id: str, now_ms: int) -> None:
        """Queues what an action wants to call now, and notes when to look again."""
        opened = self._open.get(action_id)
        if opened is None:
            return
        work = opened.work
        for ask in work.asks(now_ms):
            if ask.key not in opened.asked:
                opened.asked.add(ask.key)
                self._site(ask.claim.corp_id, ask.endpoint).lane(ask.lane).put(next(self._numbers), work, ask)
        due_ms = work.due_ms()
        if due_ms != opened.due_ms:
            opened.due_ms = due_ms
            if not due_ms:
                return
            heapq.heappush(self._due, (due_ms, next(self._numbers), action_id))

    def _on_time(self, action_id: str, due_ms: int, now_ms: int) -> None:
        opened = self._open.get(action_id)
        if opened is not None:
            if opened.due_ms != due_ms:
                return
            opened.due_ms = 0
            self._after(opened.work, opened.work.past(now_ms, wall_ms()), now_ms)
            return
        value = self._entry(action_id)
        if value is None:
            return
        entry = self._process.codec.decode_as(LedgerEntry, value)
        if entry.state == "waiting":
            action = self._process.codec.decode_as(Action, entry.memory)
            if self._cancelled(action, entry.updated_at_ms):
                self._end_unbegun(action, End("cancelled", "operator_cancelled"), entry.origin, None)
            else:
                self._begin(action, entry.origin, None, entry.updated_at_ms, now_ms)

    def _after(self, work: Work, effects: Effects, now_ms: int) -> None:
        """Makes the effects of one step part of the next transaction."""
        action_id = self._root(work)
        opened = self._open[action_id]
        for outcome in effects.outcomes:
            self.pending.publish(outcome)
        self._write_records(work)
        if work.ended:
            del self._open[action_id]
            if opened.source is not None:
                self._finish_source(*opened.source)
        else:
            self._look(action_id, now_ms)
        self._wake.set()

    def _write_records(self, work: Work) -> None:
        opened = self._opened(work)
        for entry in work.records(wall_ms()):
            self.pending.enter(msgspec.structs.replace(entry, origin=opened.origin))
        if work.kept and opened.source is not None:
            self._finish_source(*opened.source)
            opened.source = None

    def _controlled(self, record: ControlRecord, now_ms: int) -> None:
        """An operator's word: about one action, or about all of a corp, lane or campaign."""
        if record.kind == "settle" and record.active:
            self._settled(record, now_ms)
        elif record.kind == "cancel" and record.active:
            named = [self._open[record.action_id]] if record.action_id in self._open else []
            for opened in named if record.action_id else list(self._open.values()):
                if self._cancelled(opened.work.action, opened.appended_ms):
                    effects = opened.work.stop("cancelled", "operator_cancelled", now_ms, wall_ms())
                    self._after(opened.work, effects, now_ms)
            self._recall(record)

    def _recall(self, cancel: ControlRecord) -> None:
        """Has what waits and is meant by a cancel end in the turns that follow, also where nothing is taken up for now.
        A single action in a lane is left to its turn: it is not worth a search through all that wait."""
        self._parked = self._process.disk.open_entries(self.index)
        if cancel.action_id:
            return
        for site in self._sites.values():
            for lane, state in site.lanes.items():
                # Only the bulk lane is kept by campaign.
                searched = lane == "bulk" or not cancel.campaign_id
                if searched and cancel.corp_id in ("", site.corp_id) and cancel.lane in ("", lane):
                    state.recall(cancel.campaign_id)

    def _search_parked(self) -> None:
        """Ends what waits in the ledger for its day and was cancelled: a portion of what a cancel has to look at."""
        portion = list(itertools.islice(self._parked, _PARKED_A_TURN))
        for action_id, _ in portion:
            # Newer than the search, which began some turns ago.
            value = self._entry(action_id) if action_id not in self._open else None
            entry = self._process.codec.decode_as(LedgerEntry, value) if value is not None else None
            if entry is None or entry.state != "waiting":
                continue
            action = self._process.codec.decode_as(Action, entry.memory)
            if self._cancelled(action, entry.updated_at_ms):
                self._end_unbegun(action, End("cancelled", "operator_cancelled"), entry.origin, None)
        if portion:
            self._wake.set()

    def _settled(self, record: ControlRecord, now_ms: int) -> None:
        """A person's verdict on what is in doubt: an action, or one chunk of a send. Verdicts stay in their topic for a
        month, so one that is older than what the ledger says now was about an earlier doubt."""
        value = self._process.disk.entry(self.index, record.action_id)
        entry = self._process.codec.decode_as(LedgerEntry, value) if value else None
        if entry is None or record.written_at_ms < entry.updated_at_ms:
            return
        root = entry.parent_id or record.action_id
        opened = self._open.get(root)
        if opened is not None and record.verdict in ("done", "not_done"):
            verdict: Literal["done", "not_done"] = "done" if record.verdict == "done" else "not_done"
            part = record.action_id if record.action_id != root else ""
            self._after(opened.work, opened.work.settle_by_person(verdict, now_ms, wall_ms(), part), now_ms)

    def _sweep(self) -> None:
        """Forgets actions that ended long ago, so that ledger and disk stay bounded."""
        disk = self._process.disk
        over = disk.ended_before(self.index, wall_ms() - self._process.keep_ended_ms, _SWEEP_ACTIONS)
        # A day's actions of a busy API are millions: while there are more, again soon.
        self._swept = time.monotonic() - (_SWEEP_SECONDS - 1 if len(over) == _SWEEP_ACTIONS else 0)
        for action_id, ended_at_ms in over:
            value = disk.entry(self.index, action_id)
            entry = self._process.codec.decode_as(LedgerEntry, value) if value else None
            if entry is None or is_open(entry) or entry.updated_at_ms != ended_at_ms:
                # Another owner forgot it, and it may have begun anew since.
                disk.unmark(self.index, action_id, ended_at_ms)
                continue
            self.pending.forget(action_id, ended_at_ms)

    # -- calling ------------------------------------------------------------------------------------------------

    def _start(self, site: Site) -> None:
        """Starts reserved calls as far as calls at the same time are allowed."""
        if self.state != "running":
            return
        now_ms = self._process.clock.now_ms()
        behind: list[Staged] = []
        while (staged := site.pop_ready()) is not None:
            if time.monotonic() > staged.start_by:
                self._unsend(staged, now_ms)
                continue
            record = _record_of(staged.ask)
            if record is not None and record in site.busy:
                behind.append(staged)
                continue
            token = self._process.tokens.current(staged.ask.claim.corp_id, wall_ms())
            if token is None or not self.governor.begin(staged.path, staged.lane, now_ms):
                behind.append(staged)
                break
            if record is not None:
                site.busy.add(record)
            self._gates.calling(staged.ask, now_ms)
            site.started()
            call = asyncio.create_task(self._call(site, staged, token))
            self._calls.add(call)
            call.add_done_callback(self._call_ended)
        for staged in reversed(behind):
            site.lane(staged.lane).ready.appendleft(staged)

    def _call_ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and call.exception() is not None and self.state in ("running", "quiet"):
            # The rim: a bug ends the process, visibly, and its supervisor starts it again from what is durable.
            self._log.error("call_failed_inside", exc_info=call.exception())
            self.state = "failed"

    async def _call(self, site: Site, staged: Staged, token: str) -> None:
        process, ask, work = self._process, staged.ask, staged.work

        def may_start() -> bool:
            in_time = time.monotonic() <= staged.start_by and process.clock.now_ms() <= staged.path.start_by_ms
            return in_time and self.state == "running"

        try:
            result = await process.client.call(
                ENDPOINTS[ask.endpoint], token, ask.payload, ask.timeout_ms / 1000, may_start
            )
        except BaseException:
            site.running -= 1
            site.busy.discard(_record_of(ask))
            raise
        site.running -= 1
        now_ms = process.clock.now_ms()
        if isinstance(result, NotSent) and result.reason == "too_late":
            self.governor.give_back(staged.path, now_ms, began=True)
            site.busy.discard(_record_of(ask))
            self._requeue(staged, now_ms)
            return
        self.timeouts.remove(ask.timeout_ms)
        self.governor.finish(staged.path, now_ms)
        process.observe(ask.endpoint, result)
        site.busy.discard(_record_of(ask))
        if self._root(work) not in self._open:
            return  # a person settled it while its query was out
        self._opened(work).asked.discard(ask.key)
        effects = work.answered(ask, result, now_ms, wall_ms(), process.random.random())
        if effects.verdict is not None:
            verdict = effects.verdict
            if verdict.freeze:
                self.governor.freeze(staged.path, now_ms, verdict.freeze_ms)
            if verdict.slow:
                self.governor.slow(staged.path, now_ms)
            if verdict.renew_token:
                self._token_refused(ask.claim.corp_id, token)
        if isinstance(result, Answer):
            self._gates.answered(work.action, ask, result.errcode, now_ms)
        elif not isinstance(result, NotSent):
            self._gates.answered(work.action, ask, None, now_ms)
        self._after(work, effects, now_ms)
        self._start(site)

    def _unsend(self, staged: Staged, now_ms: int) -> None:
        """Reserved and not started in time: the units return, the ask waits again."""
        self.governor.give_back(staged.path, now_ms)
        self._requeue(staged, now_ms)

    def _requeue(self, staged: Staged, now_ms: int) -> None:
        opened = self._open.get(self._root(staged.work))
        if opened is None:
            return
        self.timeouts.remove(staged.ask.timeout_ms)
        opened.asked.discard(staged.ask.key)
        staged.work.not_sent(staged.ask, now_ms)
        self._write_records(staged.work)
        self._look(self._root(staged.work), now_ms)
        self._wake.set()

    def _unstage(self, now_ms: int) -> None:
        """While quiet nothing starts: what was reserved returns."""
        for site in self._sites.values():
            while (staged := site.pop_ready()) is not None:
                self._unsend(staged, now_ms)

    # -- tokens -------------------------------------------------------------------------------------------------

    def _token_refused(self, corp_id: str, token: str) -> None:
        process = self._process
        record = process.tokens.refused(corp_id, token, wall_ms=wall_ms(), nonce=process.nonce())
        if record is not None:
            self.pending.messages.append(Message(TOKENS, key_of(record), process.codec.encode(record)))

    # -- figures ------------------------------------------------------------------------------------------------

    def figures(self) -> Figures:
        """For the gauges."""
        waiting = dict.fromkeys(LANES, 0)
        for site in self._sites.values():
            for lane, state in site.lanes.items():
                waiting[lane] += state.waiting()
        in_doubt = sum(getattr(opened.work, "in_doubt", False) for opened in self._open.values())
        return Figures(waiting, len(self._open), in_doubt, len(self._calls))


def _record_of(ask: Ask) -> tuple[str, str] | None:
    """What WeCom lets one caller change at a time (45035, fact sheet 4.2): a staff member's customer, or, where one is
    handed over, all of the staff member's."""
    if ENDPOINTS[ask.endpoint].effect == "read" or not ask.claim.staff_id:
        return None
    if ask.endpoint.endswith("transfer_customer"):
        return ask.claim.staff_id, ""
    return (ask.claim.staff_id, ask.claim.customer_id) if ask.claim.customer_id else None


_serial = itertools.count()
_STAMP = struct.Struct(">q")
"""Before a spooled action: the broker's time of its record, epoch ms."""


def lanes_of(partitions: Iterable[TopicPartition]) -> dict[int, dict[Lane, TopicPartition]]:
    """Assigned partitions by shard and lane."""
    found: dict[int, dict[Lane, TopicPartition]] = {}
    by_topic = {f"actions.{lane}": lane for lane in LANES}
    for partition in partitions:
        found.setdefault(partition.partition, {})[by_topic[partition.topic]] = partition
    return found
