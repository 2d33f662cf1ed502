"""Admission: no call that breaks a limit, and no budget left unused that the limits allow.

A call counts at several levels at once (its corp, app, staff member, customer, message and egress, each per API). It is
admitted at all of them or at none. Admission is exact across processes because a level has one owner at a time, and an
owner starts nothing that the state it wrote does not count.

The machine is pure: no clock, I/O or lock. Times are business time, epoch ms UTC; calendar windows are those of
Asia/Shanghai. Rules: fact sheet 4.1, 4.2; what a refusal freezes: 4.1 ("block length equals the window").
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import msgspec

from services.executor.levels import (
    AFTER_FINISH,
    LANE_INDEX,
    NEVER,
    PERSONS,
    Level,
    LevelView,
    Rules,
    StateError,
    WindowView,
    split_key,
    view_json,
    view_of,
)
from services.executor.windows import DAY_MS, next_period, period_start
from siyu.events.types import Lane, QuotaLease
from siyu.limits import SHARED_SCOPES, Calendar, Concurrent, Limit, LimitSet, Scope, Sliding
from siyu.limits.model import window_order

__all__ = [
    "AFTER_FINISH",
    "Claim",
    "DirtyLevel",
    "Governor",
    "LevelView",
    "Path",
    "SharedLevels",
    "StateError",
    "WindowView",
]

_Kind = tuple[Scope, str, bool]
"""Scope, endpoint (several that count together joined by ``+``) and whether persons are counted."""
_FINISHES_EVERY_MS = 1_000
"""A call that ended need not be written at once: until then the next owner only believes that it ended later."""
_SWEEP = 64
"""So many levels are looked at for being empty with every write."""
_SWEEP_EVERY_MS = 60_000
_LONGEST_CALL_MS = 60_000
_MONTH_BLOCK_MS = 30 * DAY_MS


@dataclass(frozen=True)
class Claim:
    """What a call counts for. Empty: nobody (no staff member, no customer, no message is named)."""

    corp_id: str
    agent_id: str
    endpoint: str
    staff_id: str = ""
    customer_id: str = ""
    message_id: str = ""
    persons: int = 1
    """How many people (or group chats) it names, for limits that count persons."""


class Path:
    """The levels of one claim. May be kept and used for any number of calls."""

    __slots__ = ("claim", "open", "running", "shared", "start_by_ms", "steps", "untaken", "version")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.steps: tuple[tuple[Level, int], ...] = ()
        self.shared: tuple[tuple[str, int], ...] = ()
        """Levels that are shared with other shards, and units there."""
        self.open = 0
        """Calls that were admitted and have not ended."""
        self.running = 0
        """Of them, those that ``Governor.begin`` let start."""
        self.untaken = 0
        """Of the open ones, those that began when nothing had to be taken from shared levels."""
        self.start_by_ms = NEVER
        """Of the call admitted last: business time after which it must not start (give it back)."""
        self.version = -1


@dataclass(frozen=True)
class DirtyLevel:
    """What ``quota.state`` must say of a level before what was admitted may start."""

    level: str
    corp_id: str
    """Empty for a level of an egress."""
    endpoint: str
    state: bytes
    view: bytes
    """JSON, for people."""


class SharedLevels(Protocol):
    """Levels that several shards draw from, each from what its owner granted it."""

    def take(self, level: str, lane: int, units: int, now_ms: int) -> int:
        """0: taken for the lane (its place among ``LANES``); else the business ms at which asking again makes sense."""

    def start_by_ms(self, level: str) -> int:
        """Until when the call that was taken last may start."""

    def finish(self, level: str, units: int, now_ms: int) -> None:
        """The call ended: it counts until now and the window."""

    def give_back(self, level: str, units: int, now_ms: int) -> None:
        """It was certainly never sent."""

    def change(self, limits: LimitSet, now_ms: int) -> None:
        """A dated change."""

    def outgoing(self, now_ms: int) -> list[QuotaLease]:
        """Words to other shards. Asked for before ``take_dirty``, and written in the same transaction: nobody must see
        a grant that the state does not count."""

    def receive(self, lease: QuotaLease, now_ms: int) -> None:
        """A word of another shard."""

    def take_dirty(self, now_ms: int, worst_end_ms: int) -> list[DirtyLevel]:
        """Of the levels this shard owns, what must be written."""

    def restore(self, level: str, state: bytes, now_ms: int) -> None:
        """What the owner before left of a level of an egress. Raises StateError."""

    def mistrust(self, level: str, until_ms: int) -> None:
        """What was used of a level cannot be read: nothing is granted there before ``until_ms``."""

    def usage(self, now_ms: int) -> list[LevelView]:
        """The levels this shard owns."""

    def due_ms(self) -> int:
        """When there is something to do though nothing came in."""


class Governor:
    """All levels of a shard. ``load`` gives the newest committed state of a level, or None; ``allowance`` the percent
    the guard leaves of our own paces to a corp (staff ""), or to one of its staff."""

    def __init__(
        self,
        limits: LimitSet,
        *,
        egress: str,
        corps: Collection[str],
        load: Callable[[str], bytes | None],
        allowance: Callable[[str, str], int],
        shared: SharedLevels | None = None,
    ) -> None:
        self._limits = limits
        self._egress = egress
        self._load = load
        self._allowance = allowance
        self._shared = shared
        self._version = 0
        self._levels: dict[str, Level] = {}
        self._rules: dict[tuple[str, str, str, bool], Rules | None] = {}
        self._kinds: dict[tuple[str, str], tuple[_Kind, ...]] = {}
        self._reachable = Reachable(limits, corps)
        self._reachable_until_ms = 0
        self._now = 0
        self._reserved: set[Path] = set()
        """Paths with reservations that no written state counts."""
        self._urgent: set[Level] = set()
        self._ended: set[Level] = set()
        """Levels whose written state counts more than it must."""
        self._ended_written_ms = 0
        self._sweep: list[Level] = []
        self._swept_ms = 0
        self.narrow = False
        """Of the last refusal of ``reserve``: only one staff member, customer or message is held back."""

    def path(self, claim: Claim) -> Path:
        """The levels a call counts in."""
        path = Path(claim)
        self._lay(path, self._now)
        return path

    def reserve(self, path: Path, lane: Lane, now_ms: int) -> int:
        """0: admitted. Units are reserved in every window of every level, and ``begin`` and ``finish``, or
        ``give_back``, must follow; calls at the same time are not looked at before ``begin``. Else nothing was taken:
        the business ms at which asking again makes sense, or AFTER_FINISH; and ``narrow`` says whether only one staff
        member, customer or message is held back."""
        if path.version != self._version:
            self._lay(path, now_ms)
        index = LANE_INDEX[lane]
        for level, units in path.steps:
            if level.admitted + units > level.ceilings[index] or now_ms >= level.valid_until:
                again = self._consider(path, index, now_ms)
                if again:
                    return again
                break
        if path.shared:
            again = self._take_shared(path, index, now_ms)
            if again:
                self.narrow = False
                return again
        for level, units in path.steps:
            level.admitted += units
        path.open += 1
        self._reserved.add(path)
        return 0

    def begin(self, path: Path, lane: Lane, now_ms: int) -> bool:
        """Whether a reserved call may start now; if so it is under way until ``finish``."""
        now_ms = self._at(now_ms)
        if path.version != self._version:
            self._lay(path, now_ms)
        if now_ms > path.start_by_ms:
            return False
        index = LANE_INDEX[lane]
        for level, _ in path.steps:
            if now_ms >= level.valid_until:
                level.refresh(now_ms, self._allowance)
            if level.running >= level.concurrency[index]:
                return False
            if level.adaptive is not None and now_ms < level.adaptive.frozen_until_ms:
                return False
        for level, _ in path.steps:
            level.running += 1
        path.running += 1
        return True

    def finish(self, path: Path, now_ms: int) -> None:
        """An admitted call was answered, or given up on: it counts until now and the window."""
        now_ms = self._at(now_ms)
        if path.version != self._version:
            self._lay(path, now_ms)
        if path.open < 1:
            raise ValueError(f"a call to {path.claim.endpoint} ends that was not admitted")
        path.open -= 1
        self._stopped(path)
        ended = self._ended
        for level, units in path.steps:
            level.end(units, now_ms)
            ended.add(level)
        if path.shared and self._is_taken(path):
            for key, units in path.shared:
                self._shared.finish(key, units, now_ms)  # type: ignore[union-attr]

    def give_back(self, path: Path, now_ms: int, *, began: bool = False) -> None:
        """An admitted call was certainly never sent: its units are free again. ``began``: ``begin`` had let it
        start."""
        now_ms = self._at(now_ms)
        if path.version != self._version:
            self._lay(path, now_ms)
        if path.open < 1:
            raise ValueError(f"a call to {path.claim.endpoint} is given back that was not admitted")
        path.open -= 1
        if began:
            self._stopped(path)
        for level, units in path.steps:
            level.ended += units
            self._ended.add(level)
        if path.shared and self._is_taken(path):
            for key, units in path.shared:
                self._shared.give_back(key, units, now_ms)  # type: ignore[union-attr]

    def freeze(self, path: Path, now_ms: int, wait_ms: int = 0) -> int:
        """WeCom says a limit is hit. With ``wait_ms`` the message of the call, else its corp's API, rests so long. Else
        which limit is not said (fact sheet 4.1: a block lasts as long as the window): first the one that blocks
        shortest is believed, and when that was not enough, the next; its level gets a lower rate afterwards. Returns
        the end of the freeze."""
        now_ms = self._at(now_ms)
        if path.version != self._version:
            self._lay(path, now_ms)
        if not path.steps:
            return now_ms + wait_ms
        levels = [level for level, _ in path.steps]
        if wait_ms:
            level = next((level for level in levels if level.rules.scope == "message_api"), levels[0])
            adaptive = level.adapt()
            adaptive.frozen_until_ms = max(adaptive.frozen_until_ms, now_ms + wait_ms)
            self._touch(level)
            return adaptive.frozen_until_ms
        ladder = _ladder(levels)
        first = levels[0].adapt()
        frozen = max((level.adaptive.frozen_until_ms for level in levels if level.adaptive), default=0)
        if now_ms < frozen:
            return frozen  # calls in flight together err together
        step = min(first.step, len(ladder) - 1)
        again_soon = frozen > 0 and now_ms - frozen < ladder[step][0]
        first.step = min(step + 1, len(ladder) - 1) if again_soon else 0
        _, level, limit = ladder[first.step]
        adaptive = level.adapt()
        adaptive.frozen_until_ms = _block_end(limit, now_ms, level.rules.margins.edge_ms)
        adaptive.lower(level.rules.margins)
        self._touch(levels[0])
        self._touch(level)
        return adaptive.frozen_until_ms

    def slow(self, path: Path, now_ms: int) -> None:
        """WeCom says too many at the same time: one fewer, once in ``slow_once_per_ms``, since all calls in flight may
        say so together; one more again after each ``slow_recovery_ms`` without it."""
        now_ms = self._at(now_ms)
        if path.version != self._version:
            self._lay(path, now_ms)
        for level, _ in path.steps:
            if level.rules.concurrent:
                adaptive, margins = level.adapt(), level.rules.margins
                if adaptive.slow_at_ms and now_ms - adaptive.slow_at_ms < margins.slow_once_per_ms:
                    continue
                adaptive.recover(now_ms, margins)
                lowest = min(level.rules.limits[at].amount for at in level.rules.concurrent)
                adaptive.slow = min(adaptive.slow + 1, lowest - 1)
                adaptive.slow_at_ms = now_ms
                self._touch(level)

    def change(self, limits: LimitSet, now_ms: int) -> None:
        """Other limits from now on, at every level at once. What was used stays used, so a lowered limit may admit
        nothing for a while, and a raised one admits at once what the history leaves. A limit on something that was not
        counted before counts from now on, calls under way included."""
        now_ms = self._at(now_ms)
        self._limits = limits
        self._version += 1
        self._rules.clear()
        self._reachable.change(limits, now_ms)
        self._reachable_until_ms = self._reachable.changes_at(now_ms)
        self._kinds.clear()
        for key, level in list(self._levels.items()):
            rules = self._rules_of_key(key)
            if rules is not None:
                level.change(rules)
            elif level.in_flight == 0:
                self._forget(level)
        if self._shared is not None:
            self._shared.change(limits, now_ms)

    def take_dirty(
        self, now_ms: int, worst_end_ms: int, orphans_end_ms: int | None = None, every_end: bool = False
    ) -> list[DirtyLevel]:
        """States that must be committed before what was admitted so far may start; every call that is reserved or under
        way must be over by ``worst_end_ms``. Should this owner die, a call it started is over for WeCom by
        ``orphans_end_ms`` (None: no sooner than ``worst_end_ms``): its place among calls at the same time is free then,
        while it counts in its windows as if it had ended at the last moment. ``every_end``: also what only ended, which
        otherwise waits up to a second for company. When the commit fails, this machine has to be thrown away."""
        now_ms = self._at(now_ms)
        levels = {level for path in self._reserved for level, _ in path.steps}
        self._reserved.clear()
        levels |= self._urgent
        self._urgent.clear()
        if every_end or now_ms - self._ended_written_ms >= _FINISHES_EVERY_MS:
            levels |= self._ended
            self._ended.clear()
            self._ended_written_ms = now_ms
        else:
            self._ended -= levels
        dirty = [
            DirtyLevel(
                level.key,
                level.corp_id,
                level.rules.endpoint,
                level.pack(now_ms, worst_end_ms, None, orphans_end_ms),
                # Nobody looks at the level of one person or message that nothing holds back; its state says it all.
                view_json(level, now_ms, self._allowance)
                if level.rules.scope in SHARED_SCOPES or level.adaptive is not None
                else b"",
            )
            for level in levels
        ]
        self._forget_empty(now_ms)
        if self._shared is not None:
            dirty += self._shared.take_dirty(now_ms, worst_end_ms)
        return dirty

    def due_ms(self) -> int:
        """When ``take_dirty`` has something to write though nothing is admitted; a time never reached when nothing."""
        due = self._ended_written_ms + _FINISHES_EVERY_MS if self._ended else NEVER
        return min(due, self._shared.due_ms()) if self._shared is not None else due

    def restore(self, level: str, state: bytes, now_ms: int) -> None:
        """What the owner before left of a level. Raises StateError when it cannot be read, or when the level is in use
        already."""
        now_ms = self._at(now_ms)
        if self._shared is not None and level.startswith("ip_api|"):
            self._shared.restore(level, state, now_ms)
            return
        known = self._levels.get(level)
        if known is not None and known.in_flight:
            raise StateError("the quota state of a level that has calls under way cannot be replaced")
        rules = self._rules_of_key(level)
        if rules is None:
            # No limit of today: kept nevertheless would be a level nobody asks for.
            split_key(level)
            return
        if known is None:
            known = self._levels[level] = Level(level, rules)
        known.unpack(state, now_ms)

    def mistrust(self, level: str, now_ms: int) -> None:
        """What was used of a level cannot be read: nothing is admitted there before its longest window is over."""
        now_ms = self._at(now_ms)
        rules = self._rules_of_key(level)
        if rules is None:
            return
        ends = [now_ms + length for length, _ in rules.spans]
        ends += [next_period(unit, period_start(unit, now_ms)) + rules.margins.edge_ms for _, unit in rules.calendar]
        until_ms = max(ends, default=now_ms)
        if self._shared is not None and level.startswith("ip_api|"):
            self._shared.mistrust(level, until_ms)
            return
        known = self._levels[level] = Level(level, rules)
        known.adapt().frozen_until_ms = until_ms
        self._touch(known)

    def explain(self, path: Path, lane: Lane, now_ms: int) -> bytes:
        """JSON for ``LedgerEntry.admission``: every limit the call counts in, how much of it is used (in flight and
        reserved included), and what the lane may use."""
        index = LANE_INDEX[lane]
        levels = []
        for level, _ in path.steps:
            percent = level.percent(self._allowance)
            levels.append(
                {
                    "level": level.key,
                    "limits": [
                        {
                            "id": use.limit.id,
                            "window": use.window,
                            "used": use.used,
                            "amount": use.limit.amount,
                            "allowed": use.allowed[index],
                            "allowance_percent": percent if use.limit.ours else 100,
                        }
                        for use in level.uses(now_ms, percent)
                    ],
                }
            )
        return _ENCODER.encode({"at_ms": now_ms, "lane": lane, "levels": levels})

    def usage(self, now_ms: int, *, shared_only: bool = False) -> list[LevelView]:
        """Every level that is in memory; ``shared_only``: without those of one person or message."""
        views = [
            view_of(level, now_ms, self._allowance)
            for level in self._levels.values()
            if not shared_only or level.rules.scope in SHARED_SCOPES
        ]
        return views + (self._shared.usage(now_ms) if self._shared is not None else [])

    def __len__(self) -> int:
        """Levels in memory."""
        return len(self._levels)

    def _at(self, now_ms: int) -> int:
        """Time never runs backwards here: what was let go once may have been used since."""
        if now_ms < self._now:
            return self._now
        self._now = now_ms
        if now_ms >= self._reachable_until_ms:
            self._reachable_until_ms = self._reachable.changes_at(now_ms)
            self._kinds.clear()
            self._version += 1
        return now_ms

    @staticmethod
    def _stopped(path: Path) -> None:
        if path.running:
            path.running -= 1
            for level, _ in path.steps:
                level.running -= 1

    def _consider(self, path: Path, lane: int, now_ms: int) -> int:
        """The careful way: 0 when every level has room, else when to ask again."""
        now_ms = self._at(now_ms)
        if any(level.forgotten for level, _ in path.steps):
            self._lay(path, now_ms)
        again, after_finish, narrow = 0, False, True
        for level, units in path.steps:
            if level.admitted + units <= level.ceilings[lane] and now_ms < level.valid_until:
                continue
            level.refresh(now_ms, self._allowance)
            if level.admitted + units > level.ceilings[lane]:
                at = level.again(lane, units, now_ms, self._allowance)
                narrow = narrow and level.rules.scope not in SHARED_SCOPES
                if at == AFTER_FINISH:
                    after_finish = True
                else:
                    again = max(again, at)
        self.narrow = narrow
        return again or (AFTER_FINISH if after_finish else 0)

    def _take_shared(self, path: Path, lane: int, now_ms: int) -> int:
        shared = self._shared
        assert shared is not None
        path.start_by_ms = NEVER
        for at, (key, units) in enumerate(path.shared):
            again = shared.take(key, lane, units, now_ms)
            if again:
                for taken, taken_units in path.shared[:at]:
                    shared.give_back(taken, taken_units, now_ms)
                return again
            path.start_by_ms = min(path.start_by_ms, shared.start_by_ms(key))
        return 0

    @staticmethod
    def _is_taken(path: Path) -> bool:
        """Whether a call that ends has taken from shared levels. The older ones go first: what was taken is held until
        the last has ended."""
        if path.untaken:
            path.untaken -= 1
            return False
        return True

    def _lay(self, path: Path, now_ms: int) -> None:
        """Finds the levels of a path. Calls of it that are under way move with it: they end at the levels that fell
        away, and count at those that are new."""
        claim = path.claim
        steps, shared = [], []
        for scope, endpoint, persons in self._kinds_of(claim.corp_id, claim.endpoint):
            key = _key(scope, claim, endpoint, self._egress, persons)
            if key is None:
                continue
            units = claim.persons if persons else 1
            if scope == "ip_api" and self._shared is not None:
                shared.append((key, units))
            else:
                steps.append((self._levels.get(key) or self._level(key, now_ms), units))
        if path.open:
            kept = {level for level, _ in steps}
            known = {level for level, _ in path.steps}
            for level, units in path.steps:
                if level not in kept:
                    level.end(units * path.open, now_ms)
                    level.running -= path.running
            for level, units in steps:
                if level not in known:
                    level.admitted += units * path.open
                    level.running += path.running
                    self._urgent.add(level)
            if path.shared and not shared:
                assert self._shared is not None
                for key, units in path.shared:
                    if path.open > path.untaken:
                        self._shared.finish(key, units * (path.open - path.untaken), now_ms)
            elif shared and not path.shared:
                path.untaken = path.open
        path.steps, path.shared, path.version = tuple(steps), tuple(shared), self._version

    def _kinds_of(self, corp_id: str, endpoint: str) -> tuple[_Kind, ...]:
        """Where calls of the corp to the endpoint are counted; widest first."""
        kinds = self._kinds.get((corp_id, endpoint))
        if kinds is None:
            found = dict.fromkeys(kind_of(limit, endpoint) for limit in self._limits.of(corp_id, endpoint))
            kinds = self._kinds[corp_id, endpoint] = tuple(
                kind for kind in found if kind[0] != "ip_api" or self._reachable.counted(kind[1], kind[2], self._now)
            )
        return kinds

    def _level(self, key: str, now_ms: int) -> Level:
        rules = self._rules_of_key(key)
        assert rules is not None
        level = Level(key, rules)
        state = self._load(key)
        if state is not None:
            level.unpack(state, now_ms)
        self._levels[key] = level
        return level

    def _rules_of_key(self, key: str) -> Rules | None:
        """None when no limit of today is counted there. Raises StateError."""
        scope, corp_id, label, persons = split_key(key)
        if scope == "ip_api":
            corp_id = ""
        place = (scope, corp_id, label, persons)
        if place not in self._rules:
            self._rules[place] = rules_of(self._limits, scope, corp_id, label, persons)
        return self._rules[place]

    def _touch(self, level: Level) -> None:
        level.valid_until = 0
        self._urgent.add(level)

    def _forget(self, level: Level) -> None:
        level.forgotten = True
        level.valid_until = 0
        self._levels.pop(level.key, None)
        self._urgent.discard(level)
        self._ended.discard(level)

    def _forget_empty(self, now_ms: int) -> None:
        """A level in which nothing is used is made anew when it is asked for. One whose written state says more than is
        so stays until that is written."""
        if not self._sweep:
            if now_ms - self._swept_ms < _SWEEP_EVERY_MS:
                return
            self._swept_ms = now_ms
            self._sweep = list(self._levels.values())
        for _ in range(min(_SWEEP, len(self._sweep))):
            level = self._sweep.pop()
            if level not in self._ended and not level.forgotten and level.is_empty(now_ms):
                self._forget(level)


_ENCODER = msgspec.json.Encoder()


def kind_of(limit: Limit, endpoint: str) -> _Kind:
    """Where a limit is counted for calls of the endpoint: what is named together is counted together. Calls at the same
    time are calls whatever else is counted."""
    label = "+".join(sorted(limit.endpoints)) if len(limit.endpoints) > 1 else endpoint
    return limit.scope, label, limit.counts == "persons" and not isinstance(limit.window, Concurrent)


def rules_of(limits: LimitSet, scope: Scope, corp_id: str, label: str, persons: bool) -> Rules | None:
    """The limits counted at one level; None when there are none."""
    endpoint = label.split("+", 1)[0]
    found = [limit for limit in limits.of(corp_id, endpoint) if kind_of(limit, endpoint) == (scope, label, persons)]
    return Rules(scope, label, found, limits) if found else None


def _key(scope: Scope, claim: Claim, endpoint: str, egress: str, persons: bool) -> str | None:
    match scope:
        case "corp_api":
            owner = claim.corp_id
        case "ip_api":
            owner = egress
        case "app_api":
            owner = f"{claim.corp_id}|{claim.agent_id}"
        case "staff_api":
            if not claim.staff_id:
                return None
            owner = f"{claim.corp_id}|{claim.staff_id}"
        case "customer_api":
            if not claim.customer_id:
                return None
            owner = f"{claim.corp_id}|{claim.customer_id}"
        case "message_api":
            if not claim.message_id:
                return None
            owner = f"{claim.corp_id}|{claim.message_id}"
        case _:
            return None
    return f"{scope}|{owner}|{endpoint}{PERSONS if persons else ''}"


def most_used(limits: LimitSet, corps: Collection[str], limit: Limit, label: str, persons: bool = False) -> int | None:
    """The most that all corps together can use of a limit of the egress, whatever happens; None: there is no bound.

    Proof: let a corp be allowed A calls in any window of length l. An interval of length L is covered by ceil(L / l)
    intervals of length l, so the corp has at most A x ceil(L / l) calls in it; the best of the corp's windows counts.
    All calls of the egress are calls of its corps, so their sum bounds them. The same holds for calls at the same time,
    and a calendar period of the egress is bounded by the same period of every corp. Freezes, headroom and pacing only
    make the sum smaller.
    """
    endpoint = label.split("+", 1)[0]
    most = 0
    for corp_id in corps:
        bounds = [
            own.amount * times
            for own in limits.of(corp_id, endpoint)
            if kind_of(own, endpoint) == ("corp_api", label, persons) and (times := _covered(limit, own))
        ]
        if not bounds:
            return None
        most += min(bounds)
    return most


def never_binds(limits: LimitSet, corps: Collection[str], label: str, persons: bool = False) -> bool:
    """Whether no limit of the egress on the API can be reached, so that nobody needs to count it: whoever keeps the
    corps' limits keeps it too."""
    endpoint = label.split("+", 1)[0]
    for limit in limits.of("", endpoint):
        if kind_of(limit, endpoint) == ("ip_api", label, persons):
            most = most_used(limits, corps, limit, label, persons)
            if most is None or most > limit.amount:
                return False
    return True


class Reachable:
    """Which limits of the egress have to be counted. One that the corps' limits cannot reach need not; but calls that
    were made under wider limits of the corps count for a window more, and what held before an owner began is known only
    when the limits of today have held for a window."""

    def __init__(self, limits: LimitSet, corps: Collection[str]) -> None:
        self._corps = tuple(corps)
        self._limits = limits
        self._past: list[tuple[LimitSet, int]] = []
        """What held before, and until when calls made under it count."""
        self._known_from_ms = limits.as_of_ms + _longest_ms(limits) if limits.as_of_ms else 0

    def change(self, limits: LimitSet, now_ms: int) -> None:
        self._past.append((self._limits, now_ms + _longest_ms(self._limits)))
        self._past = [(before, until) for before, until in self._past if until > now_ms]
        self._limits = limits

    def counted(self, label: str, persons: bool, now_ms: int) -> bool:
        """Whether the limits of the egress on the API may be reached."""
        if now_ms < self._known_from_ms:
            return True
        sets = (self._limits, *(before for before, until in self._past if until > now_ms))
        return not all(never_binds(limits, self._corps, label, persons) for limits in sets)

    def changes_at(self, now_ms: int) -> int:
        """When something that is counted need no longer be."""
        ends = (self._known_from_ms, *(until for _, until in self._past))
        return min((end for end in ends if end > now_ms), default=NEVER)


def _longest_ms(limits: LimitSet) -> int:
    """The longest window of an egress, and the longest that a call or a stalled process takes."""
    windows = (limit.window for limit in limits.limits if limit.scope == "ip_api")
    lengths = (32 * DAY_MS if isinstance(window, Calendar) else window_order(window) for window in windows)
    return max(lengths, default=0) + _LONGEST_CALL_MS


def _covered(whole: Limit, part: Limit) -> int:
    """How many windows of ``part`` cover one of ``whole``; 0: none do."""
    if isinstance(whole.window, Sliding) and isinstance(part.window, Sliding):
        return -(-whole.window.length_ms // part.window.length_ms)
    return int(whole.window == part.window)


def _ladder(levels: list[Level]) -> list[tuple[int, Level, Limit]]:
    """What may have been hit, by how long it blocks. An egress or a person's own limit is not suspected while the corp
    or the app has one: too many others would rest for it, or it is not what answers 45009."""

    def rungs(scopes: Collection[Scope]) -> list[tuple[int, Level, Limit]]:
        return [
            (_block_ms(limit), level, limit)
            for level in levels
            if not scopes or level.rules.scope in scopes
            for limit in level.rules.limits
            if limit.block not in ("silent", "none") and not isinstance(limit.window, Concurrent)
        ]

    found = rungs(("corp_api", "app_api")) or rungs(())
    if not found:
        found = [(60_000, levels[0], limit) for limit in levels[0].rules.limits]
    found.sort(key=lambda rung: rung[0])
    return [next(same) for _, same in itertools.groupby(found, key=lambda rung: rung[0])]


def _block_ms(limit: Limit) -> int:
    if limit.block == "days_30" or limit.window == Calendar("month"):
        return _MONTH_BLOCK_MS
    if limit.block == "day" or not isinstance(limit.window, Sliding):
        return DAY_MS
    return limit.window.length_ms


def _block_end(limit: Limit, now_ms: int, edge_ms: int) -> int:
    if limit.block == "day" or (limit.block == "window" and limit.window == Calendar("day")):
        return next_period("day", period_start("day", now_ms)) + edge_ms
    return now_ms + _block_ms(limit)
