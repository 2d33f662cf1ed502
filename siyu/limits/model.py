"""What the platform allows, as dated values: for every moment exactly one answer, and the same one for ever.

Nothing here reads a clock or a file. A registry is validated before it exists (``siyu.limits.loading``), so every
registry can be asked. Times are business time, epoch ms UTC; calendar windows are days and months in Asia/Shanghai.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar, get_args

from siyu.events.types import Lane

Scope = Literal[
    "corp_api",  # a corp and a single API, over all apps of the corp
    "ip_api",  # a source address and a single API, over all corps that call from it
    "app_api",  # one app of a corp and a single API
    "staff_api",  # one staff member of a corp and a single API
    "customer_api",  # one customer of a corp and a single API
    "message_api",  # one mass message (``msgid``) and a single API
    "request",  # one request: how many ids may stand in one of its lists
]
"""Whose calls are counted together. A limit that names several endpoints counts those together; one that names none
counts every endpoint by itself."""

SHARED_SCOPES: frozenset[Scope] = frozenset({"corp_api", "ip_api", "app_api"})
"""Scopes in which lanes compete, so that a lane may fill only its headroom. The others belong to one person or message
and are often so small (three reminders) that a share of them would be a different limit."""

Counts = Literal["calls", "persons"]
"""``persons``: a call counts once for everybody (or every group chat) it names."""

Block = Literal[
    "window",  # for as long as the window is (fact sheet 4.1)
    "day",  # until the natural day ends
    "days_30",  # 30 days
    "silent",  # nobody is told; the excess is dropped
    "none",  # this request only
]
"""What the platform does about the call past the limit."""

Enforce = Literal[
    "admit",  # the governor lets nothing past it
    "observe",  # shown and documented: the platform applies it afterwards, or it is advice
]


@dataclass(frozen=True)
class Sliding:
    """Any stretch of this length."""

    length_ms: int

    def __str__(self) -> str:
        for unit, unit_ms in _UNITS:
            # A day stands for one of the calendar, so a few of them are hours here.
            if self.length_ms % unit_ms == 0 and (unit != "d" or self.length_ms > 3 * unit_ms):
                return f"sliding {self.length_ms // unit_ms} {unit}"
        return f"sliding {self.length_ms} ms"


@dataclass(frozen=True)
class Calendar:
    """A natural day or month in Asia/Shanghai."""

    unit: Literal["day", "month"]

    def __str__(self) -> str:
        return f"calendar {self.unit}"


@dataclass(frozen=True)
class Concurrent:
    """At the same time."""

    def __str__(self) -> str:
        return "concurrent"


@dataclass(frozen=True)
class PerRequest:
    """In one request."""

    def __str__(self) -> str:
        return "request"


Window = Sliding | Calendar | Concurrent | PerRequest
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


class LimitsError(ValueError):
    """Limits that cannot be used; the message names file, line and field (or the place in a JSON document)."""


@dataclass(frozen=True)
class Limit:
    """One version of one limit."""

    id: str
    """Names the counter: all versions of an id have the same scope and the same window."""
    scope: Scope
    endpoints: tuple[str, ...]
    """Empty: every endpoint, each by itself. Named ones are counted together."""
    corps: tuple[str, ...]
    """Empty: every corp, each by itself."""
    amount: int
    window: Window
    counts: Counts
    block: Block
    paced: bool
    """A calendar quota that is spread over its window."""
    enforce: Enforce
    ours: bool
    """A pace of ours, a design choice that the guard may shrink; not a limit of the platform."""
    source: str
    confidence: str
    note: str
    family: str
    """Of the limits of one family at most one holds for a call: the most specific."""
    but_not: tuple[str, ...] = ()
    """Endpoints that do not count, when ``endpoints`` is empty."""
    outside: bool = False
    """Documented for endpoints or callers this system has not got: never admitted by."""
    field: str = ""
    """Scope request: the list whose entries are counted."""
    primary: bool = True
    """Scope request: this list is what a large call is cut by."""

    @property
    def rank(self) -> int:
        """How specific it is. An endpoint weighs more than a corp: what a corp was granted for calls in general does
        not lift what is special about one call."""
        return 2 * bool(self.endpoints) + bool(self.corps)

    def covers(self, corp_id: str, endpoint: str) -> bool:
        """Whether calls of the corp to the endpoint are what it is about."""
        return (
            (not self.corps or corp_id in self.corps)
            and (not self.endpoints or endpoint in self.endpoints)
            and endpoint not in self.but_not
        )


@dataclass(frozen=True)
class Margins:
    """What we keep away from the platform's edge, and how we come back after it refused."""

    edge_ms: int
    """A call this near a calendar midnight counts on both sides of it: the platform's clock is not ours."""
    rate_after_error: float
    """A limit error multiplies the rate of its scope by this."""
    rate_step: float
    """The rate comes back in steps of this share of the full rate …"""
    rate_step_ms: int
    """… one after each such time without a limit error."""
    rate_floor: float
    """However many errors: never below this share."""
    slow_once_per_ms: int
    """A concurrency error takes one call at the same time away, once in such a time: calls in flight err together."""
    slow_recovery_ms: int
    """One comes back after each such time without one."""


@dataclass(frozen=True)
class LimitSet:
    """What is in force from one change of the registry to the next."""

    revision: str
    """Of the registry's content."""
    as_of_ms: int
    """Since when exactly this holds; 0: since ever."""
    limits: tuple[Limit, ...]
    """By id."""
    headroom: Mapping[Lane, float]
    """Share of a shared limit a lane may fill."""
    margins: Margins
    _cache: dict[tuple[str, str], tuple[Limit, ...]] = field(default_factory=dict, compare=False, repr=False)

    def of(self, corp_id: str, endpoint: str) -> tuple[Limit, ...]:
        """What a call of the corp to the endpoint is admitted by: the most specific of each family, narrow windows
        first inside a scope. Neither limits of one request nor those that are only observed."""
        found = self._cache.get((corp_id, endpoint))
        if found is None:
            counted = [
                limit
                for limit in self.documented(corp_id, endpoint)
                if limit.enforce == "admit" and limit.scope != "request"
            ]
            counted.sort(key=lambda limit: (_SCOPES.index(limit.scope), window_order(limit.window), limit.id))
            found = self._cache[corp_id, endpoint] = tuple(counted)
        return found

    def documented(self, corp_id: str, endpoint: str) -> tuple[Limit, ...]:
        """Everything that is known to hold for the call, observed limits and those of one request included."""
        chosen: dict[str, Limit] = {}
        for limit in self.limits:
            if not limit.outside and limit.covers(corp_id, endpoint):
                known = chosen.get(limit.family)
                if known is None or limit.rank > known.rank:
                    chosen[limit.family] = limit
        return tuple(chosen.values())

    def request_limit(self, corp_id: str, endpoint: str, field: str = "") -> int | None:
        """How many ids one request may name in the list ``field``, or in the list that a large call is cut by; None
        when nothing is known about it."""
        amounts = [
            limit.amount
            for limit in self.documented(corp_id, endpoint)
            if limit.scope == "request"
            and limit.enforce == "admit"
            and (limit.field == field if field else limit.primary)
        ]
        return min(amounts, default=None)

    def allowed(self, limit: Limit, lane: Lane, allowance_percent: int = 100) -> int:
        """What of a limit a lane may fill while the guard leaves so many percent of our paces. A limit keeps at least
        one unit unless the allowance is 0: a share of a small limit must not become a ban."""
        amount = limit.amount
        if limit.scope in SHARED_SCOPES:
            # In thousandths and integers: 0.8 x 10 is 8 on every machine.
            amount = max(1, amount * round(self.headroom[lane] * 1000) // 1000)
        if limit.ours:
            amount = max(1, amount * allowance_percent // 100) if allowance_percent > 0 else 0
        return amount


_SCOPES: tuple[Scope, ...] = get_args(Scope)


def window_order(window: Window) -> int:
    """Sorts windows by length; the length of a month is its shortest."""
    match window:
        case PerRequest():
            return -1
        case Concurrent():
            return 0
        case Sliding(length_ms):
            return length_ms
        case Calendar("day"):
            return 86_400_000
        case Calendar():
            return 28 * 86_400_000


V = TypeVar("V")


@dataclass(frozen=True)
class Version(Generic[V]):
    """A value and the stretch of time in which it holds, begin included and end not."""

    begins_ms: int
    ends_ms: int | None
    """None: until the next version of it begins, or for ever."""
    value: V


def _in_force(versions: Sequence[Version[V]], at_ms: int) -> V | None:
    """Versions stand by ascending begin. One that began replaces those before it, also when it has ended since."""
    begun = bisect_right(versions, at_ms, key=lambda version: version.begins_ms)
    if not begun:
        return None
    newest = versions[begun - 1]
    return newest.value if newest.ends_ms is None or at_ms < newest.ends_ms else None


class LimitRegistry:
    """Every version of every limit. What is in force is a step function of time; ``siyu.limits.loading`` makes it."""

    def __init__(
        self,
        *,
        revision: str,
        limits: Mapping[str, Sequence[Version[Limit]]],
        headroom: Sequence[Version[Mapping[Lane, float]]],
        margins: Sequence[Version[Margins]],
        content: bytes,
    ) -> None:
        self.revision = revision
        """The same for the same content, however it is spread over files."""
        self.limits = MappingProxyType(dict(limits))
        """Versions by id, by ascending begin."""
        self.headroom = tuple(headroom)
        self.margins = tuple(margins)
        self._content = content
        dated: list[Version[Any]] = [v for versions in limits.values() for v in versions]
        dated += [*headroom, *margins]
        changes = {v.begins_ms for v in dated} | {v.ends_ms for v in dated if v.ends_ms is not None}
        self.changes_ms: tuple[int, ...] = tuple(sorted(changes))
        """Every moment at which something changes."""
        self._sets: dict[int, LimitSet] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitRegistry) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def at(self, as_of_ms: int) -> LimitSet:
        """What is in force at a moment of business time. Before the first headroom and margins, those are the first
        ones, for there is no admission without any."""
        step = bisect_right(self.changes_ms, as_of_ms)
        found = self._sets.get(step)
        if found is None:
            begins_ms = self.changes_ms[step - 1] if step else 0
            at_ms = begins_ms if step else as_of_ms
            in_force = (_in_force(versions, at_ms) for _, versions in sorted(self.limits.items()))
            found = self._sets[step] = LimitSet(
                revision=self.revision,
                as_of_ms=begins_ms,
                limits=tuple(limit for limit in in_force if limit is not None),
                headroom=_in_force(self.headroom, at_ms) or self.headroom[0].value,
                margins=_in_force(self.margins, at_ms) or self.margins[0].value,
            )
        return found

    def next_change_ms(self, as_of_ms: int) -> int | None:
        """The first moment after this one at which something changes, or None."""
        step = bisect_right(self.changes_ms, as_of_ms)
        return self.changes_ms[step] if step < len(self.changes_ms) else None

    def to_json(self) -> bytes:
        """The whole registry, canonical: equal registries have equal bytes."""
        return self._content
