"""One level of admission (a corp and an API, an app, one staff member …): all its limits together, and what was used.

What a level promises: while ``admitted`` stays at or below the ceiling of a lane and the time before ``valid_until``,
one unit more breaks no limit of the level. Ceilings are a lower bound that only a refresh raises: units that leave a
window in between make them too low, never too high. So the fast path of admission compares two numbers a level.

State for the next owner is as pessimistic as it must be: what was reserved or under way ended, for all the next owner
knows, at the last possible moment.

Times are business time, epoch ms UTC.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import cast, get_args

import msgspec

from services.executor.windows import DAY_MS, History, Span, Unit, next_period, periods_at, span_of
from siyu.events.types import Lane
from siyu.limits import Calendar, Concurrent, Limit, LimitSet, Margins, Scope, Sliding

AFTER_FINISH = -1
"""Asking again makes sense when a call of the level has ended."""
LANES: tuple[Lane, ...] = get_args(Lane)
LANE_INDEX: dict[Lane, int] = {lane: index for index, lane in enumerate(LANES)}
PACED_LANES = tuple(lane in ("bulk", "sync") for lane in LANES)
ALLOWANCE_MS = 500
"""The guard's word is asked for again after so long: its promise is 5 s for a staff member, 60 s for a corp."""
_STALL_MS = 60_000
"""A process may stand still between the last look at the clock and the request. What its successor knows nothing of
ended at the latest of the worst end and now, within this."""
_GUARDED_AGAIN_MS = 5_000
"""Who waits for more allowance asks this often: it comes back in steps of hours and days."""
NEVER = 1 << 62
LEVEL_NAMES = {60_000: "minute", 3_600_000: "hour", DAY_MS: "day"}
PERSONS = "#persons"
"""Ends the key of a level that counts persons."""
_WIDE = (NEVER,) * len(LANES)
_NOTHING = (0,) * len(LANES)
_FULL_RATE = 1000
_INTERNED = 4096

Allowance = Callable[[str, str], int]
Caps = tuple[int, ...]
"""For each lane how much it may fill, whoever used it."""


class StateError(ValueError):
    """A state of a level that cannot be read. Nothing may be admitted on a guess: use an older record of the level, or
    wait for the longest window of the level with it frozen."""


class Rules:
    """The limits of one kind of level, from one change of the registry to the next; its levels share it."""

    __slots__ = (
        "_caps",
        "_interned",
        "_limit_set",
        "bucket_ms",
        "calendar",
        "concurrent",
        "endpoint",
        "guarded",
        "limits",
        "margins",
        "names",
        "scope",
        "sliding",
        "spans",
    )

    def __init__(self, scope: Scope, endpoint: str, limits: Sequence[Limit], limit_set: LimitSet) -> None:
        self.scope = scope
        self.endpoint = endpoint
        """Several endpoints that count together are joined by ``+``."""
        self.limits = tuple(limits)
        self.names = tuple(_name(limit) for limit in limits)
        self.margins: Margins = limit_set.margins
        lengths = sorted({limit.window.length_ms for limit in limits if isinstance(limit.window, Sliding)})
        self.spans: tuple[Span, ...] = tuple(span_of(length) for length in lengths)
        self.bucket_ms = self.spans[0][1] if self.spans else 1
        self.sliding = tuple(
            (at, lengths.index(limit.window.length_ms))
            for at, limit in enumerate(limits)
            if isinstance(limit.window, Sliding)
        )
        """Places among ``limits`` and among ``spans``."""
        self.calendar: tuple[tuple[int, Unit], ...] = tuple(
            (at, limit.window.unit) for at, limit in enumerate(limits) if isinstance(limit.window, Calendar)
        )
        self.concurrent = tuple(at for at, limit in enumerate(limits) if isinstance(limit.window, Concurrent))
        self.guarded = scope in ("corp_api", "staff_api") and any(limit.ours for limit in limits)
        """The guard's allowance shrinks something here."""
        self._limit_set = limit_set
        self._caps: dict[int, tuple[Caps, ...]] = {}
        self._interned: dict[Caps, Caps] = {}

    def caps(self, percent: int) -> tuple[Caps, ...]:
        """For each limit what each lane may fill, while the guard leaves so many percent (0-100) of our paces."""
        percent = min(100, max(0, percent)) if self.guarded else 100
        found = self._caps.get(percent)
        if found is None:
            found = self._caps[percent] = tuple(
                tuple(self._limit_set.allowed(limit, lane, percent) for lane in LANES) for limit in self.limits
            )
        return found

    def intern(self, ceilings: Caps) -> Caps:
        """One tuple for all levels in the same situation: there are many of the small ones."""
        known = self._interned.get(ceilings)
        if known is None:
            known = ceilings
            if len(self._interned) < _INTERNED:
                self._interned[ceilings] = ceilings
        return known


def _name(limit: Limit) -> str:
    match limit.window:
        case Sliding(length_ms):
            return LEVEL_NAMES.get(length_ms, str(length_ms))
        case Calendar(unit):
            return unit
        case _:
            return "concurrency"


class Adaptive:
    """What the platform's refusals taught; only levels that met one have it."""

    __slots__ = ("frozen_until_ms", "rate", "rate_next_ms", "slow", "slow_at_ms", "step")

    def __init__(self) -> None:
        self.frozen_until_ms = 0
        self.step = 0
        """How far freezes have climbed from the shortest window."""
        self.rate = _FULL_RATE
        """Thousandths of its sliding windows that the level uses."""
        self.rate_next_ms = 0
        self.slow = 0
        """Calls at the same time fewer than the limit."""
        self.slow_at_ms = 0

    def recover(self, now_ms: int, margins: Margins) -> None:
        """Takes the steps back up that are due."""
        while self.rate < _FULL_RATE and now_ms >= self.rate_next_ms:
            self.rate = min(_FULL_RATE, self.rate + max(1, round(margins.rate_step * _FULL_RATE)))
            self.rate_next_ms += margins.rate_step_ms
        while self.slow and now_ms - self.slow_at_ms >= margins.slow_recovery_ms:
            self.slow -= 1
            self.slow_at_ms += margins.slow_recovery_ms

    def lower(self, margins: Margins) -> None:
        """The rate after a limit error; it comes back in steps after the freeze."""
        lowered = max(round(margins.rate_floor * _FULL_RATE), round(self.rate * margins.rate_after_error), 1)
        self.rate = min(self.rate, lowered)
        self.rate_next_ms = self.frozen_until_ms + margins.rate_step_ms

    def changes_at(self, margins: Margins) -> int:
        """When it will allow more by itself."""
        at = NEVER
        if self.rate < _FULL_RATE:
            at = self.rate_next_ms
        if self.slow:
            at = min(at, self.slow_at_ms + margins.slow_recovery_ms)
        return at


class LimitUse(msgspec.Struct, frozen=True, gc=False):
    """One limit of a level at one moment."""

    limit: Limit
    window: str
    """``minute``, ``hour``, ``day``, ``month``, ``concurrency``, or the length in ms."""
    used: int
    """In flight and reserved included; near a calendar edge of the period that begins."""
    allowed: Caps
    """By lane, in the order of ``LANES``; what paces and errors leave now."""


class WindowView(msgspec.Struct, frozen=True):
    id: str
    window: str
    used: int
    amount: int
    lanes: dict[Lane, int]
    """What each lane may fill now."""
    frozen_until_ms: int
    rate_percent: int


class LevelView(msgspec.Struct, frozen=True):
    """A level for people."""

    level: str
    corp_id: str
    endpoint: str
    windows: tuple[WindowView, ...]
    in_flight: int


def view_of(level: Level, now_ms: int, allowance: Allowance) -> LevelView:
    """A level for people, as it is now."""
    adaptive = level.adaptive
    frozen = adaptive.frozen_until_ms if adaptive is not None and adaptive.frozen_until_ms > now_ms else 0
    rate = adaptive.rate // 10 if adaptive is not None else 100
    windows = tuple(
        WindowView(
            use.limit.id,
            use.window,
            use.used,
            use.limit.amount,
            dict(zip(LANES, use.allowed, strict=True)),
            frozen,
            rate if isinstance(use.limit.window, Sliding) else 100,
        )
        for use in level.uses(now_ms, level.percent(allowance))
    )
    return LevelView(level.key, level.corp_id, level.rules.endpoint, windows, level.in_flight)


def view_json(level: Level, now_ms: int, allowance: Allowance) -> bytes:
    """``QuotaState.view``."""
    view = view_of(level, now_ms, allowance)
    return _ENCODER.encode({"windows": view.windows, "in_flight": view.in_flight})


_ENCODER = msgspec.json.Encoder()
_STATE = struct.Struct("<2sBBHqqqqIHqHq?Hq")
_MAGIC = b"QS"
_VERSION = 1
_PERIOD = struct.Struct("<Bqq")
_GHOST = struct.Struct("<qq")
_CHECKSUM = struct.Struct("<I")
_UNITS: tuple[Unit, ...] = ("day", "month")


class Level:
    """See the module. ``admitted`` and ``ended`` are changed by the governor alone."""

    __slots__ = (
        "adaptive",
        "admitted",
        "ceilings",
        "concurrency",
        "ended",
        "forgotten",
        "ghosts",
        "history",
        "key",
        "periods",
        "rules",
        "running",
        "valid_until",
    )

    def __init__(self, key: str, rules: Rules) -> None:
        self.key = key
        self.rules = rules
        self.admitted = 0
        """Units admitted since the last refresh, and those in flight then."""
        self.ended = 0
        """Of them, how many have ended or were given back: the others are reserved or in flight."""
        self.ceilings: Caps = _NOTHING
        self.concurrency: Caps = _WIDE
        self.valid_until = 0
        self.history: History | None = None
        self.periods: dict[tuple[Unit, int], int] | None = None
        """Used of calendar periods that are not over, by unit and beginning."""
        self.adaptive: Adaptive | None = None
        self.ghosts: list[tuple[int, int]] | None = None
        """Calls of an owner that is gone, by the time until which they may still be under way."""
        self.running = 0
        """Calls under way that ``Governor.begin`` let start."""
        self.forgotten = False

    @property
    def in_flight(self) -> int:
        """Units reserved or on their way."""
        return self.admitted - self.ended

    @property
    def corp_id(self) -> str:
        return "" if self.rules.scope == "ip_api" else self.key.split("|", 2)[1]

    def percent(self, allowance: Allowance) -> int:
        """What the guard leaves of our paces here, percent."""
        if not self.rules.guarded:
            return 100
        parts = self.key.split("|")
        allowed = allowance(parts[1], "")
        if self.rules.scope == "staff_api":
            allowed = min(allowed, allowance(parts[1], parts[2]))
        return min(100, max(0, allowed))

    def refresh(self, now_ms: int, allowance: Allowance) -> None:
        """Computes ceilings anew."""
        rules, adaptive = self.rules, self.adaptive
        self.admitted -= self.ended
        self.ended = 0
        caps = rules.caps(self.percent(allowance) if rules.guarded else 100)
        until = now_ms + ALLOWANCE_MS if rules.guarded else NEVER
        if adaptive is not None:
            if now_ms < adaptive.frozen_until_ms:
                self.ceilings, self.valid_until = _NOTHING, adaptive.frozen_until_ms
                return
            adaptive.recover(now_ms, rules.margins)
            until = min(until, adaptive.changes_at(rules.margins))
        free: list[Caps] = []
        if rules.sliding:
            history = self.history
            if history is not None:
                used = history.used(now_ms, rules.spans)
                if not history.entries:
                    self.history = None
            for at, span in rules.sliding:
                cap = caps[at]
                if adaptive is not None and adaptive.rate < _FULL_RATE:
                    cap = tuple(lowered(c, adaptive.rate, _FULL_RATE) for c in cap)
                if history is not None and used[span]:
                    taken = used[span]
                    cap = (cap[0] - taken, cap[1] - taken, cap[2] - taken, cap[3] - taken)
                free.append(cap)
        for at, unit in rules.calendar:
            starts, changes = periods_at(unit, now_ms, rules.margins.edge_ms)
            until = min(until, changes)
            self._drop_periods(unit, starts[0])
            for start in starts:
                taken = self.periods.get((unit, start), 0) if self.periods else 0
                free.append(tuple(cap - taken for cap in self._paced(at, unit, start, caps[at], now_ms)))
        if not free:
            self.ceilings = _WIDE
        elif len(free) == 1:
            self.ceilings = free[0]
        else:
            self.ceilings = tuple(map(min, *free))
        if rules.guarded and 0 in (at_once := caps_at_once(rules, caps)):
            self.ceilings = tuple(c if many else 0 for c, many in zip(self.ceilings, at_once, strict=True))
        if self.ceilings[0] <= _INTERNED:
            self.ceilings = rules.intern(self.ceilings)
        self.concurrency = self._concurrency(caps, now_ms)
        if self.ghosts:
            until = min(until, min(end for end, _ in self.ghosts))
        self.valid_until = until

    def again(self, lane: int, units: int, now_ms: int, allowance: Allowance) -> int:
        """Of a level that was just refreshed and has no room: when asking again makes sense, or AFTER_FINISH."""
        rules, adaptive = self.rules, self.adaptive
        if adaptive is not None and now_ms < adaptive.frozen_until_ms:
            return adaptive.frozen_until_ms
        in_flight = self.in_flight
        percent = self.percent(allowance)
        caps = rules.caps(percent)
        at_last, after_finish = 0, False
        if not caps_at_once(rules, caps)[lane]:
            at_last = now_ms + DAY_MS  # the guard allows no call at all
        used = self.history.used(now_ms, rules.spans) if self.history is not None else ()
        for at, span in rules.sliding:
            cap = caps[at][lane]
            if adaptive is not None:
                cap = lowered(cap, adaptive.rate, _FULL_RATE)
            missing = in_flight + units + (used[span] if used else 0) - cap
            if missing > 0:
                freed = self.history.freed_at(missing, span, rules.spans, now_ms) if self.history is not None else 0
                if freed:
                    at_last = max(at_last, freed)
                elif in_flight:
                    after_finish = True
                else:  # more units than the lane may have at once: until a change, or until its deadline ends it
                    at_last = max(at_last, now_ms + rules.spans[span][0])
        for at, unit in rules.calendar:
            starts, changes = periods_at(unit, now_ms, rules.margins.edge_ms)
            for start in starts:
                taken = self.periods.get((unit, start), 0) if self.periods else 0
                need = in_flight + units + taken
                if need > self._paced(at, unit, start, caps[at], now_ms)[lane]:
                    over = next_period(unit, start) + rules.margins.edge_ms if start == starts[-1] else changes
                    at_last = max(at_last, self._paced_at(at, unit, start, caps[at][lane], lane, need, over, now_ms))
        if not at_last:
            return AFTER_FINISH if after_finish else now_ms + 1
        if adaptive is not None:
            at_last = min(at_last, adaptive.changes_at(rules.margins))
        if percent < 100:
            at_last = min(at_last, now_ms + _GUARDED_AGAIN_MS)
        return max(now_ms + 1, at_last)

    def end(self, units: int, now_ms: int) -> None:
        """Units ended now: counted until now and the window."""
        self.ended += units
        self.count(units, now_ms, now_ms)

    def count(self, units: int, since_ms: int, ended_ms: int) -> None:
        """Units that WeCom counted at some instant from ``since_ms`` to ``ended_ms``."""
        rules = self.rules
        if rules.spans:
            if self.history is None:
                self.history = History()
            self.history.add(ended_ms, units, rules.bucket_ms)
        for unit in {unit for _, unit in rules.calendar} if rules.calendar else ():
            if self.periods is None:
                self.periods = {}
            edge = rules.margins.edge_ms
            starts = {*periods_at(unit, since_ms, edge)[0], *periods_at(unit, ended_ms, edge)[0]}
            for start in starts:
                self.periods[unit, start] = self.periods.get((unit, start), 0) + units

    def change(self, rules: Rules) -> None:
        """Other limits from now on; what was used stays used."""
        if rules.spans != self.rules.spans and self.history is not None:
            self.history.rebuild()
        self.rules = rules
        self.valid_until = 0

    def is_empty(self, now_ms: int) -> bool:
        """Nothing is known here that a new level would not know."""
        if self.admitted != self.ended or self.adaptive is not None:
            return False
        if self.ghosts and any(end > now_ms for end, _ in self.ghosts):
            return False
        if self.periods and any(
            next_period(unit, start) + self.rules.margins.edge_ms > now_ms for unit, start in self.periods
        ):
            return False
        if self.history is not None:
            self.history.used(now_ms, self.rules.spans)
            if self.history.entries:
                return False
            self.history = None
        return True

    def adapt(self) -> Adaptive:
        if self.adaptive is None:
            self.adaptive = Adaptive()
        return self.adaptive

    def uses(self, now_ms: int, percent: int) -> list[LimitUse]:
        """Every limit, for people and for the ledger, while the guard leaves so many percent of our paces."""
        rules, adaptive = self.rules, self.adaptive
        caps = rules.caps(percent)
        if adaptive is not None:
            adaptive.recover(now_ms, rules.margins)
        in_flight = self.admitted - self.ended
        used = self.history.used(now_ms, rules.spans) if self.history is not None else None
        span = 0
        found = []
        for at, limit in enumerate(rules.limits):
            window, cap, count = limit.window, caps[at], in_flight
            if isinstance(window, Sliding):
                if used is not None:
                    count += used[rules.sliding[span][1]]
                span += 1
                if adaptive is not None and adaptive.rate < _FULL_RATE:
                    cap = tuple(lowered(c, adaptive.rate, _FULL_RATE) for c in cap)
            elif isinstance(window, Calendar):
                start = periods_at(window.unit, now_ms, rules.margins.edge_ms)[0][-1]
                cap = self._paced(at, window.unit, start, cap, now_ms)
                count += self.periods.get((window.unit, start), 0) if self.periods else 0
            else:
                count = self.running
            if isinstance(window, Concurrent) and adaptive is not None and adaptive.slow:
                cap = tuple(lowered(c, limit.amount - adaptive.slow, limit.amount) for c in cap)
            found.append(LimitUse(limit, rules.names[at], count, cap))
        return found

    def pack(
        self, now_ms: int, worst_end_ms: int, pending: int | None = None, orphans_end_ms: int | None = None
    ) -> bytes:
        """The state for the next owner: everything reserved or in flight may have ended as late as ``worst_end_ms``,
        and is no longer under way at WeCom after ``orphans_end_ms`` (None: ``worst_end_ms``) when its owner is gone.
        ``pending``: so many units only, since the others are written elsewhere."""
        adaptive = self.adaptive
        periods = self.periods or {}
        ghosts = self.ghosts or ()
        history = self.history.pack() if self.history is not None else b""
        packed = b"".join(
            (
                _STATE.pack(
                    _MAGIC,
                    _VERSION,
                    len(periods),
                    len(ghosts),
                    now_ms,
                    worst_end_ms,
                    worst_end_ms if orphans_end_ms is None else orphans_end_ms,
                    self.admitted - self.ended if pending is None else pending,
                    len(history),
                    adaptive.step if adaptive else 0,
                    adaptive.frozen_until_ms if adaptive else 0,
                    adaptive.rate if adaptive else _FULL_RATE,
                    adaptive.rate_next_ms if adaptive else 0,
                    adaptive is not None,
                    adaptive.slow if adaptive else 0,
                    adaptive.slow_at_ms if adaptive else 0,
                ),
                *(_PERIOD.pack(_UNITS.index(unit), start, used) for (unit, start), used in periods.items()),
                *(_GHOST.pack(end, units) for end, units in ghosts),
                history,
            )
        )
        return packed + _CHECKSUM.pack(zlib.crc32(packed))

    def unpack(self, state: bytes, now_ms: int) -> None:
        """Takes over what the owner before left. Raises StateError."""
        try:
            self._unpack(state, now_ms)
        except (struct.error, ValueError) as error:
            raise StateError(f"the quota state of {self.rules.scope} {self.rules.endpoint}: {error}") from None

    def _unpack(self, state: bytes, now_ms: int) -> None:
        body, checksum = state[: -_CHECKSUM.size], state[-_CHECKSUM.size :]
        if state[:2] != _MAGIC or zlib.crc32(body) != _CHECKSUM.unpack(checksum)[0]:
            raise ValueError("damaged, its checksum does not fit")
        if state[2] != _VERSION:
            raise ValueError(f"has version {state[2]}, this executor reads {_VERSION}")
        head = _STATE.unpack_from(body)
        (
            _,
            _,
            periods,
            ghosts,
            at_ms,
            worst_end_ms,
            orphans_end_ms,
            pending,
            size,
            step,
            frozen,
            rate,
            rate_next,
            *rest,
        ) = head
        adapted, slow, slow_at = rest
        ghosts_begin = _STATE.size + periods * _PERIOD.size
        begin = ghosts_begin + ghosts * _GHOST.size
        if len(body) != begin + size:
            raise ValueError(f"has {len(body)} bytes instead of {begin + size}")
        self.history = None
        if size:
            self.history = History()
            self.history.unpack(body[begin:])
        self.periods = None
        for offset in range(_STATE.size, ghosts_begin, _PERIOD.size):
            unit, start, used = _PERIOD.unpack_from(body, offset)
            if unit >= len(_UNITS):
                raise ValueError("names a period it does not know")
            if self.periods is None:
                self.periods = {}
            self.periods[_UNITS[unit], start] = used
        self.adaptive = None
        if adapted:
            self.adaptive = Adaptive()
            self.adaptive.step, self.adaptive.frozen_until_ms = step, frozen
            self.adaptive.rate, self.adaptive.rate_next_ms = rate, rate_next
            self.adaptive.slow, self.adaptive.slow_at_ms = slow, slow_at
        self.ghosts = list(_GHOST.iter_unpack(body[ghosts_begin:begin])) or None
        self.admitted = self.ended = 0
        self.valid_until = 0
        if pending:
            # Sent by an owner that is gone: nobody will say when these ended.
            worst_end_ms = max(worst_end_ms, min(now_ms, worst_end_ms + _STALL_MS))
            self.count(pending, at_ms, worst_end_ms)
            self.ghosts = [*(self.ghosts or ()), (orphans_end_ms + 1, pending)]

    def _concurrency(self, caps: tuple[Caps, ...], now_ms: int) -> Caps:
        found = _WIDE
        for at in self.rules.concurrent:
            cap, amount = caps[at], self.rules.limits[at].amount
            if self.adaptive is not None and self.adaptive.slow:
                cap = tuple(lowered(c, amount - self.adaptive.slow, amount) for c in cap)
            found = cap if found is _WIDE else tuple(map(min, found, cap))
        if self.ghosts:
            self.ghosts = [ghost for ghost in self.ghosts if ghost[0] > now_ms] or None
            # However much was reserved: no owner had more under way than the limit.
            most = min((self.rules.limits[at].amount for at in self.rules.concurrent), default=0)
            haunted = min(most, sum(units for _, units in self.ghosts or ()))
            found = tuple(cap - haunted for cap in found)
        return found

    def _drop_periods(self, unit: Unit, first: int) -> None:
        if self.periods:
            for key in [key for key in self.periods if key[0] == unit and key[1] < first]:
                del self.periods[key]

    def _paced(self, at: int, unit: Unit, start: int, cap: Caps, now_ms: int) -> Caps:
        """What lanes may have used of a period by now: a paced one is spread for who can wait. It may run ahead by
        ``edge_ms``, and by one unit."""
        if not self.rules.limits[at].paced:
            return cap
        length = next_period(unit, start) - start
        elapsed = min(length, max(0, now_ms + self.rules.margins.edge_ms - start))
        return tuple(
            min(c, max(1, c * elapsed // length)) if paced else c for c, paced in zip(cap, PACED_LANES, strict=True)
        )

    def _paced_at(self, at: int, unit: Unit, start: int, cap: int, lane: int, need: int, over: int, now_ms: int) -> int:
        """When ``need`` units of the period are in the pace; ``over`` when never."""
        if not self.rules.limits[at].paced or not PACED_LANES[lane] or need > cap:
            return over
        length = next_period(unit, start) - start
        return min(over, start + -(-need * length // cap) - self.rules.margins.edge_ms)


def caps_at_once(rules: Rules, caps: tuple[Caps, ...]) -> Caps:
    """Calls at the same time, by lane, as the limits and the guard have it."""
    found = [caps[at] for at in rules.concurrent]
    return tuple(map(min, *found)) if len(found) > 1 else found[0] if found else _WIDE


def lowered(cap: int, part: int, whole: int) -> int:
    """``cap`` as far as it is lowered; never to nothing, unless it was."""
    return max(1, cap * max(0, part) // whole) if cap else 0


def split_key(key: str) -> tuple[Scope, str, str, bool]:
    """Scope, corp (of ``ip_api``: the egress), endpoint and whether it counts persons. Raises StateError."""
    counts_persons = key.endswith(PERSONS)
    parts = key.removesuffix(PERSONS).split("|")
    if len(parts) < 3 or parts[0] not in get_args(Scope):
        raise StateError("a key of quota.state that is not a level: scope|corp|…|endpoint is needed")
    return cast(Scope, parts[0]), parts[1], parts[-1], counts_persons
