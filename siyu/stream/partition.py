"""One partition number of all inputs: its states, its stream time and the steps over its records.

Everything here is undone by dropping the object: the disk is written only by ``store_committed``, after the
transaction that carries the same changes has committed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Generic, TypedDict

from confluent_kafka import KafkaError, Message

from siyu.stream.deadletter import DeadLetterLimit, NoKey, TooLarge, UndeclaredOutput, headers
from siyu.stream.state import StateCodec
from siyu.stream.store import RESERVED, StateStore
from siyu.stream.types import Context, Processor, Record, S, StreamSettings


class _Absent(Enum):
    """Not looked up yet; None means looked up and not there."""

    ABSENT = 0


_ABSENT: Final = _Absent.ABSENT


class Produced(TypedDict, total=False):
    """A message as ``Producer.produce_batch`` takes it."""

    key: bytes
    value: bytes | None
    callback: Any


@dataclass(frozen=True)
class DeadLetter:
    """The original record and why it was not processed."""

    message: Message
    stage: str
    headers: list[tuple[str, bytes]]


@dataclass
class Batch:
    """What the steps over one partition's share of a batch produced."""

    outputs: dict[str, list[Produced]] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)


class HotStates(Generic[S]):
    """Decoded states in two generations of at most ``limit`` together: what the last generations did not touch goes.

    An LRU order would cost a list operation a record; this costs one dictionary look-up.
    """

    def __init__(self, limit: int) -> None:
        self.young: dict[bytes, S | None] = {}
        self._old: dict[bytes, S | None] = {}
        self._half = max(1, limit // 2)

    def promote(self, keys: set[bytes]) -> list[bytes]:
        """Brings the known ones of ``keys`` into ``young`` and returns the unknown ones."""
        young, old = self.young, self._old
        missing = []
        for key in keys:
            if key not in young:
                state = old.get(key, _ABSENT)
                if state is _ABSENT:
                    missing.append(key)
                else:
                    young[key] = state
        return missing

    def age(self) -> None:
        """Between batches only: forgets the old generation once the young one is full."""
        if len(self.young) >= self._half:
            self._old, self.young = self.young, {}


class Partition(Generic[S]):
    """The work on one partition number."""

    def __init__(
        self,
        number: int,
        processor: Processor[S],
        settings: StreamSettings,
        states: StateCodec[S],
        store: StateStore,
        cache_entries: int,
    ) -> None:
        self.number = number
        self.store = store
        self.positions: dict[str, int] = {}
        """Input topic → next offset to consume."""
        self.stream_time = 0
        self.halted: str | None = None
        """Why this partition consumes nothing more, until a restart."""
        self.cache_hits = 0
        self.cache_misses = 0
        self._processor = processor
        self._max_bytes = settings.max_record_bytes
        self._states = states
        self._hot: HotStates[S] = HotStates(cache_entries)
        self._limit = DeadLetterLimit(settings)
        self._seen = 0
        self._changed: dict[bytes, bytes | None] = {}
        self._changelog_end: int | None = None

    def process(self, messages: list[Message]) -> Batch:
        """Runs the step over each record and remembers changed states.

        When the dead-letter limit is passed, ``halted`` says why and ``messages`` loses what was not processed.
        """
        batch = Batch()
        seen_before = self._seen
        self._load({k for m in messages if (k := m.key()) is not None and k[:1] != RESERVED})
        processor, max_bytes, encode_state = self._processor, self._max_bytes, self._states.encode
        step, decode, encode, declared = (
            processor.step,
            processor.codec.decode,
            processor.codec.encode,
            processor.outputs,
        )
        states, changed, outputs, positions = self._hot.young, self._changed, batch.outputs, self.positions
        ctx = Context(self.stream_time)
        for message in messages:
            topic, offset, stamp = message.topic(), message.offset(), message.timestamp()[1]
            assert topic is not None
            assert offset is not None
            if stamp > ctx.now:
                ctx.now = stamp
            stage = "decode"
            emitted: list[tuple[str, Produced]] = []
            try:
                raw_key, raw_value = message.key(), message.value()
                if raw_key is None:
                    raise NoKey
                key = raw_key.decode()
                # An input's tombstone is a record with no object in it; the step decides what that means.
                value = None if raw_value is None else decode(raw_value)
                record = Record(topic, self.number, offset, stamp, key, value)
                state = states[raw_key]
                stage = "step"
                new = step(key, record, state, ctx)
                stage = "encode"
                if new is not state:
                    stored = None if new is None else encode_state(new)
                    if stored is not None and len(stored) > max_bytes:
                        raise TooLarge
                for out, out_key, out_value in ctx.emitted:
                    if out not in declared:
                        raise UndeclaredOutput
                    data = encode(out_value)
                    if len(data) > max_bytes:
                        raise TooLarge
                    emitted.append((out, {"key": out_key.encode(), "value": data}))
            except Exception as error:  # the rim of the step: a dead letter, or a halt
                self.halted = self._limit.exceeded(self._seen)
                if self.halted is not None:
                    break
                batch.dead.append(DeadLetter(message, stage, headers(message, stage, error, processor.name)))
            else:
                if new is not state:
                    states[raw_key] = new
                    changed[raw_key] = stored
                for out, produced in emitted:
                    outputs.setdefault(out, []).append(produced)
            ctx.emitted.clear()
            self._seen += 1
            positions[topic] = offset + 1
        self.stream_time = ctx.now
        del messages[self._seen - seen_before :]
        return batch

    def _load(self, keys: set[bytes]) -> None:
        """Has every key's state in memory before the steps run: one multi-get instead of a read a record."""
        missing = self._hot.promote(keys)
        self.cache_hits += len(keys) - len(missing)
        self.cache_misses += len(missing)
        if missing:
            young, decode = self._hot.young, self._states.decode
            for key, data in zip(missing, self.store.get_many(missing), strict=True):
                young[key] = None if data is None else decode(data)

    def changelog_records(self) -> list[Produced]:
        """One record a changed key, in the partition's own order; the last one reports where it landed."""
        records: list[Produced] = [{"key": key, "value": value} for key, value in self._changed.items()]
        self._changelog_end = None
        if records:
            records[-1]["callback"] = self._landed
        return records

    def _landed(self, error: KafkaError | None, message: Message) -> None:
        # One partition, one idempotent producer: the last one sent has the highest offset.
        offset = message.offset()
        if error is None and offset is not None:
            self._changelog_end = offset + 1

    def store_committed(self, now_ms: int) -> None:
        """The transaction has committed: the disk may follow."""
        if self._changed:
            assert self._changelog_end is not None, "a committed transaction has delivered all its records"
            self.store.write(self._changed.items(), self._changelog_end, now_ms)
            self._changed.clear()
        self._hot.age()

    def close(self) -> None:
        self.store.close()
