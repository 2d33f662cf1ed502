"""What a service hands to the runtime: a pure step, and the topics, codec and state type it works on.

A step is a function of its arguments alone. It must not mutate the state it was given, because that object is the
cached copy: a step that raises has to leave it as it was. It returns a new state, the same object (unchanged,
nothing is written) or None (deleted, a tombstone is written; its timers go with it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from siyu.stream.tables import GlobalTable

S = TypeVar("S", bound=msgspec.Struct)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One input record, decoded. ``timestamp_ms`` is Kafka's record timestamp, epoch ms UTC."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str
    value: Any


class Timer(msgspec.Struct, frozen=True, gc=False):
    """A timer that has come due: its name and the time it was set to, epoch ms UTC."""

    name: str
    due_ms: int


NO_TIMERS: Mapping[str, int] = MappingProxyType({})
_LAST_MS = 1 << 62


class Context:
    """What a step may do besides returning a state. Build one in a unit test and look at it afterwards."""

    __slots__ = ("_globals", "emitted", "globals_read", "now", "timer_set", "timers")

    def __init__(self, now: int = 0, tables: Mapping[str, GlobalTable] | None = None) -> None:
        self.now = now
        """Stream time, epoch ms: the largest record timestamp seen on this partition so far, never a clock."""
        self.emitted: list[tuple[str, str, Any]] = []
        """(topic, key, value) in the order of ``emit``; becomes part of the transaction if the step returns."""
        self.timers: Mapping[str, int] = NO_TIMERS
        """The key's timers as they stand: name → due, epoch ms. Changed only by set_timer and cancel_timer."""
        self.timer_set = False
        self.globals_read = False
        self._globals: Mapping[str, GlobalTable] = {} if tables is None else tables

    def emit(self, topic: str, key: str, value: Any) -> None:
        """Sends ``value`` to one of the processor's outputs; Kafka stamps it with the time it is produced."""
        self.emitted.append((topic, key, value))

    def set_timer(self, name: str, at: int) -> None:
        """Has ``on_timer`` called once stream time reaches ``at`` (epoch ms); the same name again moves it."""
        if type(at) is not int or not 0 <= at < _LAST_MS or type(name) is not str:
            raise ValueError("a timer needs a name and a time in epoch ms, whole and in range")
        self.timers = {**self.timers, name: at}
        self.timer_set = True

    def cancel_timer(self, name: str) -> None:
        """Forgets the timer; nothing happens when there is none."""
        if name in self.timers:
            self.timers = {other: at for other, at in self.timers.items() if other != name}

    def reset(self) -> None:
        """For the next step of the same batch."""
        self.emitted.clear()
        self.timer_set = self.globals_read = False

    @property
    def globals(self) -> Mapping[str, GlobalTable]:
        """Topic → its table. A step that looks at it has the tables' versions sent along with its outputs."""
        self.globals_read = True
        return self._globals


class Step(Protocol[S]):
    """The rule of one processor: no I/O, clock, random or uuid."""

    def __call__(self, key: str, record: Record, state: S | None, ctx: Context) -> S | None: ...


class OnTimer(Protocol[S]):
    """What a due timer does: the same rules as for a step. The timer is gone unless it is set again."""

    def __call__(self, key: str, timer: Timer, state: S, ctx: Context) -> S | None: ...


class Codec(Protocol):
    """Topic values to objects and back. A module with these two functions is a codec."""

    def decode(self, data: bytes, /) -> Any: ...

    def encode(self, value: Any, /) -> bytes: ...


@dataclass(frozen=True)
class Processor(Generic[S]):
    """One stateful processor. Its name is the consumer group and names the changelog and the state directory."""

    name: str
    inputs: tuple[str, ...]
    """Co-partitioned topics: same key, same partition count; a member always owns the same number of each."""
    outputs: frozenset[str]
    """The only topics the step may emit to."""
    codec: Codec
    step: Step[S]
    state_type: type[S]
    state_version: int
    """1..255. Raise it with every change msgspec cannot read over, and add the upgrade from the version before."""
    dead_letters: str
    """``dlq.<service>``."""
    upgrades: Mapping[int, Callable[[Any], Any]] = field(default_factory=dict)
    """Version n → function from version n's builtin data (dicts, lists) to version n+1's."""
    on_timer: OnTimer[S] | None = None
    globals: tuple[str, ...] = ()
    """Compacted topics, read whole by every member before it starts: ``ctx.globals[topic]``."""

    def __post_init__(self) -> None:
        if not self.inputs or len(set(self.inputs)) != len(self.inputs):
            raise ValueError(f"processor {self.name}: inputs must be distinct topics, at least one")
        if set(self.globals) & {*self.inputs, self.changelog}:
            raise ValueError(f"processor {self.name}: a global topic cannot be an input or the changelog")
        if not 1 <= self.state_version <= 255:
            raise ValueError(f"processor {self.name}: state_version must be 1..255")

    @property
    def changelog(self) -> str:
        return f"{self.name}.changelog"


@dataclass(frozen=True)
class StreamSettings:
    """How one member runs. Times in ms."""

    bootstrap: str
    state_dir: Path
    instance: str = "0"
    """Stable across restarts (StatefulSet ordinal); part of group.instance.id and transactional.id."""
    batch_records: int = 10_000
    """Of one transaction. A fetch takes two batches, of which one is read while the other commits."""
    batch_ms: int = 100
    transaction_timeout_ms: int = 15_000
    """Short: a successor waits this long for a frozen member's open transaction."""
    session_timeout_ms: int = 30_000
    """A restart within it moves no partition (static membership)."""
    max_poll_interval_ms: int = 300_000
    cache_bytes: int = 96 << 20
    """Decoded states kept in memory, over all partitions of this member; sizes are sampled."""
    write_back_ms: int = 1_000
    """Committed states reach the disk at most this much later, many changes of one key as one write."""
    idle_ms: int = 1_000
    """A partition read to its end and silent for this long fires its timers by the wall clock."""
    max_record_bytes: int = 900_000
    """An output or state above it makes its record a dead letter; stays below the broker's message.max.bytes."""
    dead_letter_run: int = 100
    """A partition halts rather than write more dead letters than this in a row …"""
    dead_letter_share: float = 0.1
    dead_letter_window: int = 10_000
    """… or more than this share of the last ``dead_letter_window`` records."""
    stall_ms: int = 60_000
    """``alive()`` is false when the loop has not turned for this long."""
    stop_grace_ms: int = 10_000
    """How long a stop waits for an unreachable broker before it leaves the batch to the next start."""
    kafka: Mapping[str, str] = field(default_factory=dict)
    """Further librdkafka properties for every client: security.protocol, sasl.* …"""

    def __post_init__(self) -> None:
        for name in ("batch_records", "batch_ms", "transaction_timeout_ms", "session_timeout_ms", "cache_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"StreamSettings.{name} must be positive")
        if not 0 < self.dead_letter_share <= 1:
            raise ValueError("StreamSettings.dead_letter_share must be in (0, 1]")
        if not self.instance or "/" in self.instance:
            raise ValueError("StreamSettings.instance must be a name without '/'")
