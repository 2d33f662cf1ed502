"""WeCom's limits: a dated registry, and a limiter that is never above one in any sliding window.

**What is counted.** WeCom counts a call at some instant between our sending it and its answer, which we cannot see.
So a call counts from its admission until its answer *plus* the window: whichever instant WeCom chose, the next call is
admitted only when that instant is certainly out of every window. Windows are closed on both sides, times are monotonic
nanoseconds, so not even two calls exactly one window apart are too many.

**What it costs.** One ring of finish times serves every window of a scope: a window of limit L is free when the
(L - in flight)-th newest finish is older than it. Admission is O(1) and memory is bounded by 8 bytes times the
largest limit of a scope.
"""

from __future__ import annotations

import asyncio
import datetime
import heapq
import itertools
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from siyu.limits import load_registry
from siyu.limits import model as registry_model
from siyu.ops.clock import wall_ms
from siyu.wecom.errors import beijing_midnight_ms

SECOND = 1_000_000_000
AFTER_FINISH = 1 << 62
"""Answer of :meth:`ScopeLimiter.try_admit` when only the end of a call in flight can help."""
_RECOVERY_NS = 60 * SECOND
_SLOW_ONCE_PER_NS = SECOND
_NAMES = {1: "second", 60: "minute", 3600: "hour"}


class LimitsError(ValueError):
    """A limits file that cannot be used; the message names the entry."""


@dataclass(frozen=True)
class Window:
    """At most ``limit`` calls in any ``length_ns``."""

    name: str
    limit: int
    length_ns: int


@dataclass(frozen=True)
class ScopeLimits:
    """What holds for one scope: windows by ascending length, and calls at the same time."""

    windows: tuple[Window, ...]
    concurrency: int


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    scope: Literal["corp_api"]
    effective_from: datetime.date
    source: str
    confidence: str
    window_seconds: int = 0
    limit: int = 0
    concurrency: int = 0


class LimitRegistry:
    """Every version of every limit; answers for any time, so that a past decision can be evaluated again."""

    def __init__(self, versions: dict[str, list[tuple[int, _Entry]]]) -> None:
        self._versions = versions

    def at(self, as_of_ms: int) -> ScopeLimits:
        """Limits of a corp × API scope in force (wall time, epoch ms); before a limit's first version, the first."""
        chosen = [
            next((entry for begins, entry in reversed(versions) if begins <= as_of_ms), versions[0][1])
            for versions in self._versions.values()
        ]
        windows = [
            Window(_NAMES.get(e.window_seconds, f"{e.window_seconds}s"), e.limit, e.window_seconds * SECOND)
            for e in chosen
            if e.window_seconds
        ]
        return ScopeLimits(
            windows=tuple(sorted(windows, key=lambda w: w.length_ns)),
            concurrency=min(e.concurrency for e in chosen if e.concurrency),
        )

    def next_change_ms(self, as_of_ms: int) -> int | None:
        """When the next version begins, or None."""
        later = [b for versions in self._versions.values() for b, _ in versions if b > as_of_ms]
        return min(later, default=None)


class _BaseLimits(LimitRegistry):
    def __init__(self, registry: registry_model.LimitRegistry) -> None:
        super().__init__({})
        self._registry = registry

    def at(self, as_of_ms: int) -> ScopeLimits:
        base = [
            limit
            for limit in self._registry.at(as_of_ms).limits
            if limit.scope == "corp_api" and not limit.endpoints and not limit.outside and limit.enforce == "admit"
        ]
        windows = [
            Window(_NAMES[limit.window.length_ms // 1000], limit.amount, limit.window.length_ms * 1_000_000)
            for limit in base
            if isinstance(limit.window, registry_model.Sliding)
        ]
        return ScopeLimits(
            windows=tuple(sorted(windows, key=lambda w: w.length_ns)),
            concurrency=min(limit.amount for limit in base if isinstance(limit.window, registry_model.Concurrent)),
        )

    def next_change_ms(self, as_of_ms: int) -> int | None:
        return self._registry.next_change_ms(as_of_ms)


def load_limits(folder: Path) -> LimitRegistry:
    """Reads every ``*.yaml`` of the folder. Raises LimitsError naming file and entry.

    The folder of the dated registry is read by ``siyu.limits``; this module takes from it what it knows of, the limits
    of every call of a corp, until the executor that needs it is gone.
    """
    if (folder / "margins.yaml").exists():
        return _BaseLimits(load_registry(folder))
    versions: dict[str, list[tuple[int, _Entry]]] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
            entries = msgspec.convert(raw, type=dict[Literal["limits"], list[_Entry]]).get("limits", [])
        except yaml.YAMLError as error:
            raise LimitsError(f"limits {path}: not YAML: {error}") from None
        except msgspec.ValidationError as error:
            raise LimitsError(f"limits {path}: {error}") from None
        for entry in entries:
            _check(path, entry)
            versions.setdefault(entry.id, []).append((beijing_midnight_ms(entry.effective_from), entry))
    for name, dated in versions.items():
        dated.sort(key=lambda item: item[0])
        for (begins, first), (again, second) in itertools.pairwise(dated):
            if begins == again:
                raise LimitsError(f"limits {folder}: {name} has two versions from {first.effective_from}")
            if first.window_seconds != second.window_seconds:
                raise LimitsError(f"limits {folder}: {name} changes its window; give it another id")
    newest = [dated[-1][1] for dated in versions.values()]
    if not any(e.window_seconds for e in newest) or not any(e.concurrency for e in newest):
        raise LimitsError(f"limits {folder}: needs at least one window and one concurrency")
    return LimitRegistry(versions)


def _check(path: Path, entry: _Entry) -> None:
    windowed = entry.window_seconds > 0 and entry.limit > 0 and entry.concurrency == 0
    concurrent = entry.window_seconds == 0 and entry.limit == 0 and entry.concurrency > 0
    if not (windowed or concurrent):
        raise LimitsError(f"limits {path}: {entry.id} needs window_seconds and limit, or concurrency, positive")


class _Finishes:
    """The newest finish times, oldest overwritten; grows to ``capacity`` and no further."""

    __slots__ = ("_capacity", "_head", "_times")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._times = array("q")
        self._head = 0  # where the next one goes once the ring is full

    def append(self, at: int) -> None:
        if len(self._times) < self._capacity:
            self._times.append(at)
        else:
            self._times[self._head] = at
            self._head += 1
            if self._head == self._capacity:
                self._head = 0

    def nth_newest(self, n: int) -> int | None:
        """The n-th newest, n from 1; None when there are fewer."""
        size = len(self._times)
        if n > size:
            return None
        index = self._head - n
        return self._times[index if index >= 0 else index + size]

    def count_from(self, at: int) -> int:
        """How many are at ``at`` or later."""
        size = len(self._times)
        older = bisect_left(range(size), at, key=lambda i: self._times[(self._head + i) % size])
        return size - older

    def grow(self, capacity: int) -> None:
        """Room for more; never less, for a lowered limit may be raised again while its calls still count."""
        self._times = self._times[self._head :] + self._times[: self._head]
        self._head = 0
        self._capacity = max(self._capacity, capacity)


class ScopeLimiter:
    """The limits of one scope, as a value machine: time is passed in (monotonic ns) and never runs backwards.

    ``try_admit`` and ``finish`` belong in pairs. A frozen scope admits nothing until its time.
    """

    __slots__ = (
        "_finishes",
        "_freeze_level",
        "_limits",
        "_slowed_ns",
        "concurrency",
        "frozen_until_ns",
        "in_flight",
    )

    def __init__(self, limits: ScopeLimits) -> None:
        self._limits = limits
        self._finishes = _Finishes(max(w.limit for w in limits.windows))
        self._freeze_level = 0
        self._slowed_ns: int | None = None
        self.concurrency = limits.concurrency
        """Calls allowed at the same time now; below the limit after ``slow``."""
        self.frozen_until_ns = 0
        self.in_flight = 0

    def try_admit(self, now_ns: int) -> int:
        """0: admitted, call now. Else not admitted: the instant at which asking again makes sense, or AFTER_FINISH."""
        if now_ns < self.frozen_until_ns:
            return self.frozen_until_ns
        if self._slowed_ns is not None and now_ns - self._slowed_ns >= _RECOVERY_NS:
            self.concurrency += 1
            self._slowed_ns = now_ns if self.concurrency < self._limits.concurrency else None
        in_flight = self.in_flight
        if in_flight >= self.concurrency:
            return AFTER_FINISH
        again = 0
        for window in self._limits.windows:
            free_after = window.limit - in_flight
            if free_after <= 0:
                return AFTER_FINISH
            blocking = self._finishes.nth_newest(free_after)
            if blocking is not None and now_ns - blocking <= window.length_ns:
                again = max(again, blocking + window.length_ns + 1)
        if again == 0:
            self.in_flight = in_flight + 1
        return again

    def finish(self, now_ns: int) -> None:
        """The call ended, answered or not: WeCom may have counted it until now."""
        self.in_flight -= 1
        self._finishes.append(now_ns)

    def freeze(self, now_ns: int) -> int:
        """WeCom says the frequency limit is hit. Blocks last as long as the window, but which one is not said: first
        the shortest is waited for, and when that was not enough, the next. Returns the end of the freeze."""
        if now_ns < self.frozen_until_ns:
            return self.frozen_until_ns
        windows = self._limits.windows
        soon_again = self.frozen_until_ns and now_ns - self.frozen_until_ns < windows[self._freeze_level].length_ns
        self._freeze_level = min(self._freeze_level + 1, len(windows) - 1) if soon_again else 0
        self.frozen_until_ns = now_ns + windows[self._freeze_level].length_ns
        return self.frozen_until_ns

    def freeze_until(self, until_ns: int) -> None:
        """Nothing is admitted before ``until_ns``."""
        self.frozen_until_ns = max(self.frozen_until_ns, until_ns)

    def slow(self, now_ns: int) -> None:
        """WeCom says too many at the same time. One step down per second at most, since all calls in flight may say
        so together; one step up again after every minute without it."""
        if self._slowed_ns is not None and now_ns - self._slowed_ns < _SLOW_ONCE_PER_NS:
            return
        self.concurrency = max(1, self.concurrency - 1)
        self._slowed_ns = now_ns

    def used(self, window: Window, now_ns: int) -> int:
        """Calls that count against the window at this instant."""
        return self.in_flight + self._finishes.count_from(now_ns - window.length_ns)

    def usage(self, now_ns: int) -> list[tuple[Window, int]]:
        """Each window and how much of it is used."""
        return [(window, self.used(window, now_ns)) for window in self._limits.windows]

    def change(self, limits: ScopeLimits) -> None:
        """New limits from now on; what was used stays used."""
        self._finishes.grow(max(w.limit for w in limits.windows))
        if self._slowed_ns is None or self.concurrency >= limits.concurrency:
            self.concurrency, self._slowed_ns = limits.concurrency, None
        self._freeze_level = min(self._freeze_level, len(limits.windows) - 1)
        self._limits = limits


class _Waiter:
    __slots__ = ("future", "wanted")

    def __init__(self, future: asyncio.Future[bool], wanted: Callable[[], bool]) -> None:
        self.future = future
        self.wanted = wanted


class _Scope:
    __slots__ = ("core", "pump", "waiting", "wake")

    def __init__(self, limits: ScopeLimits) -> None:
        self.core = ScopeLimiter(limits)
        self.waiting: list[tuple[int, int, _Waiter]] = []
        self.wake = asyncio.Event()
        self.pump: asyncio.Task[None] | None = None


class Limiter:
    """All scopes of a process. Who waits longest is not served first: who must be served soonest is."""

    RECHECK_SECONDS = 0.1
    """How often waiting callers are asked whether they still want in (business time may run at any speed)."""

    def __init__(
        self,
        registry: LimitRegistry,
        *,
        wall: Callable[[], int] = wall_ms,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._registry = registry
        self._wall = wall
        self._monotonic_ns = monotonic_ns
        self._limits = registry.at(wall())
        self._next_change_ms = registry.next_change_ms(wall())
        self._scopes: dict[str, _Scope] = {}
        self._sequence = itertools.count()

    async def enter(self, scope: str, order: int, wanted: Callable[[], bool]) -> bool:
        """Waits until a call may be made in the scope; smaller ``order`` goes first. False when ``wanted`` said no.

        After True, :meth:`leave` must follow whatever happens.
        """
        entry = self._scope(scope)
        if not entry.waiting and wanted() and entry.core.try_admit(self._monotonic_ns()) == 0:
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        heapq.heappush(entry.waiting, (order, next(self._sequence), _Waiter(future, wanted)))
        entry.wake.set()
        if entry.pump is None or entry.pump.done():
            entry.pump = asyncio.create_task(self._pump(entry))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                self.leave(scope)  # admitted in the same turn of the loop: the slot must not be lost
            raise

    def leave(self, scope: str) -> None:
        """The call is over."""
        entry = self._scopes[scope]
        entry.core.finish(self._monotonic_ns())
        entry.wake.set()

    def freeze(self, scope: str, wait_ms: int) -> None:
        """Nothing more in this scope: for ``wait_ms``, or when 0 until its window ends."""
        core, now = self._scope(scope).core, self._monotonic_ns()
        if wait_ms:
            core.freeze_until(now + wait_ms * 1_000_000)
        else:
            core.freeze(now)

    def slow(self, scope: str) -> None:
        """Fewer at the same time in this scope."""
        self._scope(scope).core.slow(self._monotonic_ns())

    def usage(self) -> dict[str, list[tuple[Window, int]]]:
        """Used and limit of every scope seen so far."""
        now = self._monotonic_ns()
        return {name: entry.core.usage(now) for name, entry in self._scopes.items()}

    def _scope(self, name: str) -> _Scope:
        self._apply_changes()
        found = self._scopes.get(name)
        if found is None:
            found = self._scopes[name] = _Scope(self._limits)
        return found

    def _apply_changes(self) -> None:
        if self._next_change_ms is None or self._wall() < self._next_change_ms:
            return
        now = self._wall()
        self._limits = self._registry.at(now)
        self._next_change_ms = self._registry.next_change_ms(now)
        for entry in self._scopes.values():
            entry.core.change(self._limits)

    async def _pump(self, entry: _Scope) -> None:
        next_scan = 0
        while entry.waiting:
            entry.wake.clear()
            self._apply_changes()
            now = self._monotonic_ns()
            if now >= next_scan:
                # Everybody who gave up goes, wherever in the queue: an expired action must not wait for a slot.
                next_scan = now + int(self.RECHECK_SECONDS * SECOND)
                entry.waiting[:] = [item for item in entry.waiting if self._still_waits(item[2])]
                heapq.heapify(entry.waiting)
            again = 0
            while entry.waiting:
                waiter = entry.waiting[0][2]
                if self._still_waits(waiter):
                    again = entry.core.try_admit(now)
                    if again:
                        break
                    waiter.future.set_result(True)
                heapq.heappop(entry.waiting)
            if not entry.waiting:
                return
            pause = min(self.RECHECK_SECONDS, max(0.0, (again - self._monotonic_ns()) / SECOND))
            try:
                await asyncio.wait_for(entry.wake.wait(), pause)
            except TimeoutError:
                pass

    @staticmethod
    def _still_waits(waiter: _Waiter) -> bool:
        if waiter.future.done():
            return False
        if not waiter.wanted():
            waiter.future.set_result(False)
            return False
        return True
