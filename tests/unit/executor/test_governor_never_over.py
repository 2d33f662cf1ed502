"""Whatever happens, no limit is exceeded in any window: random lives of a shard against an exact oracle.

A life is a series of admissions, answers, refusals of the platform, dated changes, commits and crashes. The oracle
knows nothing of buckets: it keeps when each call started and ended, and the platform may have counted it at any instant
between.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.governor import AFTER_FINISH, Claim, Governor, Path
from services.executor.windows import next_period, period_start
from siyu.events.types import Lane
from siyu.limits import Calendar, Concurrent, Limit, LimitSet, Margins, Scope, Sliding

MIDNIGHT = 1_800_028_800_000  # 2027-01-16 00:00 in Shanghai
MARGINS = Margins(
    edge_ms=400,
    rate_after_error=0.5,
    rate_step=0.1,
    rate_step_ms=3_000,
    rate_floor=0.1,
    slow_once_per_ms=1_000,
    slow_recovery_ms=5_000,
)
HEADROOM: dict[Lane, float] = {"welcome": 1.0, "urgent": 0.95, "bulk": 0.8, "sync": 0.8}
LANES: tuple[Lane, ...] = ("welcome", "urgent", "bulk", "sync")
START_WITHIN, CALL_TIMEOUT = 300, 700


def limit(id: str, scope: Scope, amount: int, window: object, **more: object) -> Limit:
    values: dict[str, object] = {
        "endpoints": (),
        "corps": (),
        "counts": "calls",
        "block": "window",
        "paced": False,
        "enforce": "admit",
        "ours": False,
        "source": "a test",
        "confidence": "certain",
        "note": "",
        "family": id,
    }
    return Limit(id=id, scope=scope, amount=amount, window=window, **{**values, **more})  # type: ignore[arg-type]


def limit_set(*limits: Limit) -> LimitSet:
    return LimitSet(revision="test", as_of_ms=0, limits=limits, headroom=HEADROOM, margins=MARGINS)


LIMITS = (
    limit("corp_short", "corp_api", 9, Sliding(2_000)),
    limit("corp_long", "corp_api", 20, Sliding(9_000)),
    limit("corp_day", "corp_api", 45, Calendar("day")),
    limit("corp_at_once", "corp_api", 4, Concurrent(), block="none"),
    limit("app_persons", "app_api", 60, Sliding(5_000), counts="persons"),
    limit("app_month", "app_api", 150, Calendar("month"), counts="persons", paced=False),
    limit("staff_pace", "staff_api", 3, Sliding(1_500), ours=True),
    limit("customer", "customer_api", 2, Sliding(7_000)),
    limit("ip_short", "ip_api", 11, Sliding(2_000)),
)


@dataclass(eq=False)
class Call:
    claim: Claim
    path: Path
    lane: Lane
    reserved: int
    number: int
    start_by: int = 0
    started: int = 0
    ended: int = 0


def owner_of(scope: str, claim: Claim) -> tuple[str, ...]:
    return {
        "corp_api": (claim.corp_id,),
        "ip_api": (),
        "app_api": (claim.corp_id, claim.agent_id),
        "staff_api": (claim.corp_id, claim.staff_id),
        "customer_api": (claim.corp_id, claim.customer_id),
    }[scope]


def assert_never_over(
    calls: list[Call], limits: tuple[Limit, ...], since: int = 0, margin: int = MARGINS.edge_ms
) -> None:
    for one in limits:
        counted: dict[tuple[str, ...], list[tuple[int, int, int]]] = defaultdict(list)
        for call in calls:
            units = call.claim.persons if one.counts == "persons" else 1
            counted[owner_of(one.scope, call.claim)].append((call.started, call.ended, units))
        for known in counted.values():
            assert max(used_at_most(known, one, since, margin), default=0) <= one.amount, one.id


def used_at_most(calls: list[tuple[int, int, int]], one: Limit, since: int, margin: int) -> list[int]:
    """For every stretch of the limit's length that may hold most calls: how many the platform may have counted."""
    match one.window:
        case Sliding(length):
            return [
                sum(units for start, end, units in calls if end >= begin and start <= begin + length)
                for _, begin, _ in calls
                if begin >= since
            ]
        case Concurrent():
            return [sum(units for start, end, units in calls if start <= at < end) for at, _, _ in calls]
        case Calendar(unit):
            periods = {period_start(unit, end + edge) for _, end, _ in calls for edge in (-margin, margin)}
            return [
                sum(
                    units
                    for start, end, units in calls
                    if end + margin >= begin and start - margin < next_period(unit, begin)
                )
                for begin in periods
            ]
        case _:
            raise AssertionError


class Life:
    """A shard: what is reserved starts after the next commit, and a crash leaves calls under way."""

    def __init__(self, limits: LimitSet, seed: int, begin: int, *, allowance: int = 100) -> None:
        self.random = random.Random(seed)
        self.now = begin
        self.limits = limits
        self.store: dict[str, bytes] = {}
        self.reserved: list[Call] = []
        self.ready: list[Call] = []
        self.running: list[Call] = []
        self.ended: list[Call] = []
        self.allowance = allowance
        self.admitted = 0
        self.start()

    def start(self) -> None:
        self.governor = Governor(
            self.limits,
            egress="10.0.0.1",
            corps=("c1", "c2"),
            load=self.store.get,
            allowance=lambda corp, staff: self.allowance,
        )
        for level, state in self.store.items():
            self.governor.restore(level, state, self.now)
        self.paths: dict[Claim, Path] = {}

    def claim(self) -> Claim:
        pick = self.random.choice
        return Claim(pick(("c1", "c1", "c2")), "1", "tag", pick("ab"), pick("xyz"), "", pick((1, 1, 1, 7, 20)))

    def reserve(self) -> None:
        claim, lane = self.claim(), self.random.choice(LANES)
        path = self.paths.setdefault(claim, self.governor.path(claim))
        again = self.governor.reserve(path, lane, self.now)
        assert again in (0, AFTER_FINISH) or again > self.now
        if again == 0:
            self.admitted += 1
            self.reserved.append(Call(claim, path, lane, self.now, self.admitted))

    def commit(self) -> None:
        for dirty in self.governor.take_dirty(self.now, self.now + START_WITHIN + CALL_TIMEOUT):
            self.store[dirty.level] = dirty.state
        for call in self.reserved:
            call.start_by = self.now + START_WITHIN
        self.ready += self.reserved
        self.reserved = []

    def begin(self) -> None:
        for call in list(self.ready):
            if self.governor.begin(call.path, call.lane, self.now):
                self.ready.remove(call)
                call.started = self.now
                self.running.append(call)

    def answer(self) -> None:
        if self.running:
            call = self.running.pop(self.random.randrange(len(self.running)))
            self.end(call)

    def end(self, call: Call) -> None:
        call.ended = self.now
        self.ended.append(call)
        self.governor.finish(call.path, self.now)

    def give_back(self) -> None:
        if self.reserved:
            self.governor.give_back(self.reserved.pop().path, self.now)

    def crash(self) -> None:
        """What was committed may still reach the platform, what runs may end much later; what was not never starts."""
        self.begin()
        for call in self.running:
            call.ended = min(call.started + CALL_TIMEOUT, self.now + self.random.randrange(1_500))
            self.ended.append(call)
        self.reserved, self.ready, self.running = [], [], []
        self.start()

    def freeze(self) -> None:
        path = self.governor.path(self.claim())
        assert self.governor.freeze(path, self.now, self.random.choice((0, 0, 900))) > self.now

    def slow(self) -> None:
        self.governor.slow(self.governor.path(self.claim()), self.now)

    def wait(self, ms: int) -> None:
        """The time passes in which every call ends in time."""
        until = self.now + ms
        due = [(call.started + CALL_TIMEOUT, True, call) for call in self.running]
        due += [(call.start_by, False, call) for call in self.ready]
        for last, runs, call in sorted(due, key=lambda item: item[0]):
            if last < until:
                self.now = max(self.now, last)
                if runs:
                    self.running.remove(call)
                    self.end(call)
                else:
                    self.ready.remove(call)
                    self.governor.give_back(call.path, self.now)
        self.now = until

    def step(self, what: int) -> None:
        match what:
            case 0:
                self.answer()
            case 1:
                self.commit()
                self.begin()
            case 2:
                self.wait(self.random.choice((1, 7, 40, 180, 700, 2_500)))
            case 3:
                self.give_back()
            case 4:
                self.crash()
            case 5:
                self.freeze()
            case 6:
                self.slow()
            case 7:
                self.allowance = self.random.choice((100, 100, 60, 0))
            case _:
                self.reserve()


STEPS = (0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8, 8)


@given(st.integers(0, 1 << 40), st.integers(60, 900), st.sampled_from((-3_600_000, -3_000, -500, 0, 200)))
@settings(max_examples=150, deadline=None)
def test_no_life_of_a_shard_exceeds_a_limit(seed: int, steps: int, before_midnight: int) -> None:
    life = Life(limit_set(*LIMITS), seed, MIDNIGHT + before_midnight)
    for _ in range(steps):
        life.step(life.random.choice(STEPS))
    life.crash()
    assert_never_over(life.ended, LIMITS)


@pytest.mark.parametrize("seed", range(6))
def test_a_long_life_without_refusals_exceeds_nothing_and_keeps_calling(seed: int) -> None:
    life = Life(limit_set(*LIMITS[:2], *LIMITS[3:5]), seed, MIDNIGHT + 50_000_000)
    steps = tuple(step for step in STEPS if step not in (4, 5, 6, 7))
    for _ in range(8_000):
        life.step(life.random.choice(steps))
    life.crash()
    assert_never_over(life.ended, LIMITS[:2] + LIMITS[3:5])
    seconds = (life.now - MIDNIGHT - 50_000_000) / 1000
    assert life.admitted > 0.3 * 20 / 9 * seconds  # lanes, persons and waits take their part


@given(st.integers(0, 1 << 40), st.integers(100, 600))
@settings(max_examples=80, deadline=None)
def test_a_dated_change_holds_from_its_moment_and_forgets_nothing(seed: int, steps: int) -> None:
    life = Life(limit_set(*LIMITS), seed, MIDNIGHT + 40_000_000)
    epochs: list[tuple[int, tuple[Limit, ...]]] = [(life.now, LIMITS)]
    for _ in range(steps):
        if life.random.random() < 0.02:
            changed = tuple(replace(one, amount=max(1, one.amount + life.random.randrange(-4, 5))) for one in LIMITS)
            life.limits = limit_set(*changed)
            life.governor.change(life.limits, life.now)
            epochs.append((life.now, changed))
        life.step(life.random.choice(STEPS))
    life.crash()
    # Every reservation is judged by what held then, with all that was reserved before it and may still count.
    for (since, limits), (until, _) in zip(epochs, [*epochs[1:], (1 << 60, ())], strict=True):
        for call in life.ended:
            if since < call.reserved < until:
                for one in limits:
                    assert units_before(life.ended, one, call) <= one.amount, one.id


def units_before(calls: list[Call], one: Limit, call: Call) -> int:
    """What may count against a sliding limit when a call is reserved, the call included."""
    if not isinstance(one.window, Sliding):
        return 0
    return sum(
        other.claim.persons if one.counts == "persons" else 1
        for other in calls
        if other.number <= call.number
        and other.ended >= call.reserved - one.window.length_ms
        and owner_of(one.scope, other.claim) == owner_of(one.scope, call.claim)
    )
