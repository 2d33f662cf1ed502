"""One partition number of all inputs: its states, its stream time, its timers and the steps over its records.

Everything here is undone by dropping the object: the disk is written only by ``write_back``, with what ``committed``
was told of after the transaction that carries the same changes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypedDict

from confluent_kafka import KafkaError, Message

from siyu.stream.cache import HotStates
from siyu.stream.deadletter import (
    DeadLetterLimit,
    NoKey,
    TooLarge,
    UndeclaredOutput,
    UnusableTimer,
    headers,
    timer_headers,
)
from siyu.stream.state import StateCodec
from siyu.stream.store import StateStore
from siyu.stream.tables import GlobalTable
from siyu.stream.timers import DueTimers
from siyu.stream.types import NO_TIMERS, Context, Processor, Record, S, StreamSettings, Timer


class Produced(TypedDict, total=False):
    """A message as ``Producer.produce_batch`` takes it."""

    key: bytes
    value: bytes | None
    callback: Any


@dataclass(frozen=True)
class DeadLetter:
    """The original key and value, why they were not processed, and where they are from."""

    key: bytes | None
    value: bytes | None
    stage: str
    headers: list[tuple[str, bytes]]


class Unreadable(Record, frozen=True, gc=False):
    """Stands for a record that could not be decoded."""

    letter: DeadLetter


@dataclass
class Batch:
    """What the steps over one partition's share of a batch produced."""

    outputs: dict[str, list[Produced]]
    """Every declared output → its messages, in order."""
    inputs: dict[str, int]
    """Input topic → records processed."""
    records: int = 0
    timers: int = 0
    beside_globals: list[tuple[str, Produced, bool]] = field(default_factory=list)
    """(topic, message, whether the step looked at a table): all outputs of a processor with globals, in order."""
    dead: list[DeadLetter] = field(default_factory=list)


def wall_ms() -> int:
    """The machine's clock, epoch ms: for what is measured and kept about the work, never handed to a step."""
    return time.time_ns() // 1_000_000


_NOT_THERE: Final = (None, NO_TIMERS)
_TIMER_SLICE = 500
_SLICE = 250
"""Records that are decoded and then stepped over together: as many as the processor's own cache has room for."""


class Partition(Generic[S]):
    """The work on one partition number."""

    def __init__(
        self,
        number: int,
        processor: Processor[S],
        settings: StreamSettings,
        states: StateCodec[S],
        store: StateStore,
        share: int = 1,
    ) -> None:
        """``share``: how many partitions divide the member's cache, and the timers that one batch fires."""
        self.number = number
        self.store = store
        self.positions: dict[str, int] = {}
        """Input topic → next offset to consume."""
        self.ends: dict[str, int] = {}
        """Input topic → the end of the log when it was last reached."""
        self.stream_time = 0
        self.halted: str | None = None
        """Why this partition consumes nothing more, until a restart."""
        self.cache_hits = 0
        self.cache_misses = 0
        self.inbox: list[Message] = []
        """Fetched, in order."""
        self._read: list[tuple[bytes, Record, Message]] = []
        """Decoded, their states in memory."""
        self._processor = processor
        self._settings = settings
        self._states = states
        self._hot: HotStates[S] = HotStates(settings.cache_bytes // share)
        self._timers = DueTimers(store, in_use=processor.on_timer is not None)
        self._most_timers = max(1, settings.batch_records // share)
        self._limit = DeadLetterLimit(settings)
        self._seen = 0
        self._quiet_since = time.monotonic()
        self._changed: dict[bytes, bytes | None] = {}
        self._unwritten: dict[bytes, bytes | None] = {}
        """Committed, and not on disk yet."""
        self._spent: list[tuple[int, bytes]] = []
        """Timer entries the disk may forget, likewise."""
        self._landed_end: int | None = None
        self._committed_end = 0
        self._written_at = time.monotonic()

    # -- records --------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Records that were fetched and are not processed."""
        return len(self.inbox) + len(self._read)

    def read(self) -> bool:
        """Decodes the next few records and has their states in memory; changes nothing else. False: there are none."""
        messages = self.inbox[:_SLICE]
        if not messages:
            return False
        del self.inbox[:_SLICE]
        decode, number, read, hot = self._processor.codec.decode, self.number, self._read, self._hot.young
        cold, unreadable = set(), 0
        for message in messages:
            topic, offset, stamp = message.topic(), message.offset(), message.timestamp()[1]
            assert topic is not None
            assert offset is not None
            raw_key, raw_value = message.key(), message.value()
            try:
                if raw_key is None:
                    raise NoKey
                # An input's tombstone is a record with no object in it; the step decides what that means.
                value = None if raw_value is None else decode(raw_value)
                record = Record(topic, number, offset, stamp, raw_key.decode(), value)
            except Exception as error:  # the rim of the codec: a dead letter when its turn comes
                letter = self._letter(message, "decode", error)
                read.append((b"", Unreadable(topic, number, offset, stamp, "", None, letter), message))
                unreadable += 1
                continue
            if raw_key not in hot:
                cold.add(raw_key)
            read.append((raw_key, record, message))
        self.cache_hits += len(messages) - unreadable - len(cold)
        self._load(cold)
        return True

    def _letter(self, message: Message, stage: str, error: Exception) -> DeadLetter:
        return DeadLetter(message.key(), message.value(), stage, headers(message, stage, error, self._processor.name))

    # -- steps ----------------------------------------------------------------------------------------------------

    def process(self, count: int, tables: Mapping[str, GlobalTable] | None = None, tick_ms: int = 0) -> Batch:
        """Runs the steps over up to ``count`` records, and due timers before the record that makes them due.

        ``tick_ms``: timers due then fire although no record says so. When the dead-letter limit is passed, ``halted``
        says why, and the record that passed it and those after it are not processed.
        """
        if self._hot.age():
            self._hot.promote({raw_key for raw_key, *_ in self._read})
        batch = Batch({topic: [] for topic in self._processor.outputs}, dict.fromkeys(self.positions, 0))
        ctx = Context(self.stream_time, tables)
        if count:
            self._quiet_since = time.monotonic()
        while batch.records < count and (self._read or self.read()):
            if not self._step(count - batch.records, ctx, batch):
                break
        else:
            # Those that the last record set to a time already passed, and those of a silent partition.
            if self.due(until_ms := max(ctx.now, tick_ms)):
                self._fire(until_ms, ctx, batch)
        self.stream_time = ctx.now
        if self.halted:
            self.inbox, self._read = [], []
        return batch

    def _step(self, count: int, ctx: Context, batch: Batch) -> bool:
        """Runs the steps over up to ``count`` of the read records; False when timers or a halt come first."""
        todo = self._read[:count]
        step, states, positions, timers_due = self._processor.step, self._hot.young, self.positions, self._timers
        now, done = ctx.now, 0
        for raw_key, record, message in todo:
            if record.timestamp_ms > now:
                now = record.timestamp_ms
            if now >= timers_due.next_ms and not self._fire(now, ctx, batch):
                break
            ctx.now = now
            letter = None
            if isinstance(record, Unreadable):
                letter = record.letter
            else:
                state, timers = states[raw_key]
                ctx.timers = timers
                stage = "step"
                try:
                    new = step(record.key, record, state, ctx)
                    stage = "encode"
                    if new is not state or ctx.emitted or ctx.timers is not timers:
                        changed = new is not state or ctx.timers is not timers
                        self._accept(raw_key, record.key, new, timers, changed, ctx, batch)
                    elif ctx.globals_read:
                        ctx.reset()
                except Exception as error:  # the rim of the step: a dead letter, or a halt
                    letter = self._letter(message, stage, error)
                    ctx.reset()
            if letter is not None:
                if self._halts():
                    break
                batch.dead.append(letter)
            self._seen += 1
            done += 1
            positions[record.topic] = record.offset + 1
        batch.records += done
        topics = [record.topic for _, record, _ in todo[:done]]
        for topic in positions:
            batch.inputs[topic] = batch.inputs.get(topic, 0) + topics.count(topic)
        del self._read[:done]
        return done == len(todo)

    def _accept(
        self,
        raw_key: bytes,
        key: str,
        new: S | None,
        timers: Mapping[str, int],
        changed: bool,
        ctx: Context,
        batch: Batch,
    ) -> None:
        """Takes what a step returned and did, ``timers`` being those it began with: all of it or, raising, nothing."""
        processor, max_bytes = self._processor, self._settings.max_record_bytes
        if changed:
            if ctx.timer_set and (new is None or processor.on_timer is None):
                raise UnusableTimer
            if new is None:
                ctx.timers, stored = NO_TIMERS, None
            else:
                stored = self._states.encode(new, ctx.timers)
                if len(stored) > max_bytes:
                    raise TooLarge
        accepted: list[tuple[str, Produced]] = []
        encode = processor.codec.encode
        for topic, out_key, value in ctx.emitted:
            if topic not in batch.outputs:
                raise UndeclaredOutput
            data = encode(value)
            if len(data) > max_bytes:
                raise TooLarge
            accepted.append((topic, {"key": raw_key if out_key is key else out_key.encode(), "value": data}))
        if changed:
            if ctx.timers is not timers:
                self._timers.set([at for name, at in ctx.timers.items() if timers.get(name) != at], raw_key)
                self._timers.drop([at for name, at in timers.items() if ctx.timers.get(name) != at], raw_key)
            self._hot.young[raw_key] = (new, ctx.timers)
            self._changed[raw_key] = stored
        if processor.globals:
            batch.beside_globals += [(topic, produced, ctx.globals_read) for topic, produced in accepted]
        else:
            outputs = batch.outputs
            for topic, produced in accepted:
                outputs[topic].append(produced)
        ctx.reset()

    def _halts(self) -> bool:
        self.halted = self.halted or self._limit.exceeded(self._seen)
        return self.halted is not None

    # -- timers ---------------------------------------------------------------------------------------------------

    def due(self, now_ms: int) -> bool:
        """Whether a timer may be due at ``now_ms``."""
        return self._timers.due(now_ms)

    def overdue_ms(self, now_ms: int) -> int:
        """For how long the first timer has been due."""
        return max(0, now_ms - self._timers.next_ms) if self._timers.next_ms else 0

    def hush(self) -> None:
        """Silence counts from now: for as long as nobody fetched, nobody can tell."""
        self._quiet_since = time.monotonic()

    def tick_ms(self, now_ms: int) -> int:
        """Up to when the wall clock may fire timers: 0 unless all there was is processed and nothing comes."""
        idle_ms = self._settings.idle_ms
        if self.waiting or (time.monotonic() - self._quiet_since) * 1000 < idle_ms:
            return 0
        caught_up = all(self.ends.get(topic, -1) >= position for topic, position in self.positions.items())
        return now_ms - idle_ms if caught_up else 0

    def _fire(self, until_ms: int, ctx: Context, batch: Batch) -> bool:
        """Fires what is due, in order of due time; False when a batch's worth was reached first, or at a halt."""
        timers = self._timers
        while entries := timers.take(until_ms, min(_TIMER_SLICE, self._most_timers - batch.timers)):
            self._load({key for _, key in entries})
            for position, (due_ms, raw_key) in enumerate(entries):
                standing = self._hot.young[raw_key][1]
                for name in sorted(name for name, at in standing.items() if at == due_ms):
                    if not self._fire_one(raw_key, Timer(name, due_ms), ctx, batch):
                        timers.give_back(entries[position:])
                        return False
                later = position + 1
                if later < len(entries) and timers.precedes(entries[later]):
                    timers.give_back(entries[later:])  # what this one has set comes before them
                    break
        return not timers.due(until_ms)

    def _fire_one(self, raw_key: bytes, timer: Timer, ctx: Context, batch: Batch) -> bool:
        """False when the partition halts instead."""
        state, standing = self._hot.young[raw_key]
        if state is None or standing.get(timer.name) != timer.due_ms:
            return True  # an earlier timer of this key has moved or cancelled it
        on_timer = self._processor.on_timer
        assert on_timer is not None
        ctx.now = max(ctx.now, timer.due_ms)
        left = {name: at for name, at in standing.items() if name != timer.name}
        ctx.timers = left
        key = raw_key.decode()
        try:
            new = on_timer(key, timer, state, ctx)
            self._accept(raw_key, key, new, left, True, ctx, batch)
        except Exception as error:  # the rim of the step: a dead letter, or a halt
            if self._halts():
                return False
            ctx.reset()
            ctx.timers = left
            self._accept(raw_key, key, state, left, True, ctx, batch)
            letter = timer_headers(timer, self.number, error, self._processor.name)
            batch.dead.append(DeadLetter(raw_key, None, "timer", letter))
        self._seen += 1
        batch.timers += 1
        return True

    # -- states ---------------------------------------------------------------------------------------------------

    def _load(self, keys: Collection[bytes]) -> None:
        """Has every key's state in memory before the steps run: one multi-get instead of a read a record."""
        hot, unwritten = self._hot, self._unwritten
        missing = hot.promote(keys)
        self.cache_hits += len(keys) - len(missing)
        self.cache_misses += len(missing)
        if not missing:
            return
        young, decode = hot.young, self._states.decode
        if unwritten:
            for key in [key for key in missing if key in unwritten]:
                data = unwritten[key]
                young[key] = _NOT_THERE if data is None else decode(data)
            missing = [key for key in missing if key not in young]
        for key, data in zip(missing, self.store.get_many(missing), strict=True):
            young[key] = _NOT_THERE if data is None else decode(data)
        if missing:
            hot.weigh(missing[0])

    def changelog_records(self) -> list[Produced]:
        """One record a changed key, in the partition's own order; the last one reports where it landed."""
        records: list[Produced] = [{"key": key, "value": value} for key, value in self._changed.items()]
        self._landed_end = None
        if records:
            records[-1]["callback"] = self._landed
        return records

    def _landed(self, error: KafkaError | None, message: Message) -> None:
        # One partition, one idempotent producer: the last one sent has the highest offset.
        offset = message.offset()
        if error is None and offset is not None:
            self._landed_end = offset + 1

    def committed(self) -> None:
        """The transaction has committed: the disk may follow."""
        if self._changed:
            assert self._landed_end is not None, "a committed transaction has delivered all its records"
            self._committed_end = self._landed_end
            self._hot.weigh(next(iter(self._changed)))
            self._unwritten.update(self._changed)
            self._changed.clear()
        self._spent += self._timers.committed()

    def write_back(self, *, now: bool = False) -> bool:
        """Brings the disk to the last commit, if it is time; whether it did. Between batches only."""
        if not now and (time.monotonic() - self._written_at) * 1000 < self._settings.write_back_ms:
            return False
        self._written_at = time.monotonic()
        if not self._unwritten:
            return False
        self.store.write(self._unwritten.items(), self._committed_end, wall_ms(), self._spent)
        self._unwritten.clear()
        self._spent.clear()
        self._timers.written()
        return True

    def close(self) -> None:
        """Writes what is committed and releases the store; what is not committed was never there."""
        try:
            self.write_back(now=True)
        finally:
            self.store.close()
