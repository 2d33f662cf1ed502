"""Shards that share a level: together never over it, whatever the topic and crashes do, and hardly anything unused."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.governor import never_binds
from services.executor.leases import Leases, LeaseTimes
from services.executor.levels import LANES, StateError
from siyu.events.types import Lane, QuotaLease
from siyu.limits import Limit, LimitSet, Margins, Sliding

NOW = 1_800_050_000_000
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
API = "externalcontact/mark_tag"
LEVEL = f"ip_api|10.0.0.1|{API}"
WELCOME, BULK = LANES.index("welcome"), LANES.index("bulk")


def ip_limit(id: str, amount: int, length_ms: int, **more: Any) -> Limit:
    values: dict[str, Any] = {
        "scope": "ip_api",
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
    return Limit(id=id, amount=amount, window=Sliding(length_ms), **{**values, **more})


def limit_set(*limits: Limit) -> LimitSet:
    return LimitSet(revision="test", as_of_ms=0, limits=limits, headroom=HEADROOM, margins=MARGINS)


@dataclass(eq=False)
class Call:
    started: int
    start_by: int
    ended: int = 0


@dataclass(eq=False)
class Shard:
    leases: Leases
    reserved: list[Call] = field(default_factory=list)
    running: list[Call] = field(default_factory=list)


class World:
    """Shards, their topic, and every call that reached the platform."""

    def __init__(self, limits: LimitSet, shards: int, times: LeaseTimes, seed: int, *, delay: tuple[int, int]) -> None:
        self.random = random.Random(seed)
        self.limits, self.times, self.delay = limits, times, delay
        self.now = NOW
        self.store: dict[str, bytes] = {}
        self.topic: list[tuple[int, int, int, QuotaLease]] = []
        self.calls: list[Call] = []
        self.per_shard = [0] * shards
        self.numbers = 0
        self.doubled = 0.0
        self.shards = [self.shard(index) for index in range(shards)]

    def shard(self, index: int) -> Shard:
        self.numbers += 1
        leases = Leases(
            self.limits,
            shard=index,
            incarnation=f"{index}-{self.numbers}",
            egress="10.0.0.1",
            shard_of=lambda level: 0,
            corps=("c1", "c2", "c3"),
            times=self.times,
        )
        if index == 0:
            for level, state in self.store.items():
                leases.restore(level, state, self.now)
        return Shard(leases)

    def deliver(self) -> None:
        while self.topic and self.topic[0][0] <= self.now:
            _, _, to, lease = heapq.heappop(self.topic)
            self.shards[to].leases.receive(lease, self.now)

    def cycle(self, index: int) -> None:
        """One transaction of a shard: what was reserved before it starts after it."""
        shard = self.shards[index]
        for lease in shard.leases.outgoing(self.now):
            for _ in range(2 if self.random.random() < self.doubled else 1):
                self.numbers += 1
                at = self.now + self.random.randint(*self.delay)
                heapq.heappush(self.topic, (at, self.numbers, shard.leases.destination(lease), lease))
        for dirty in shard.leases.take_dirty(self.now, self.now):
            self.store[dirty.level] = dirty.state
        for call in shard.reserved:
            if self.now <= call.start_by:
                call.started = self.now
                shard.running.append(call)
                self.calls.append(call)
                self.per_shard[index] += 1
            else:
                shard.leases.give_back(LEVEL, 1, self.now)
        shard.reserved = []

    def take(self, index: int, lane: int = WELCOME) -> bool:
        leases = self.shards[index].leases
        if leases.take(LEVEL, lane, 1, self.now):
            return False
        self.shards[index].reserved.append(Call(0, leases.start_by_ms(LEVEL)))
        return True

    def finish(self, index: int, call: Call) -> None:
        shard = self.shards[index]
        shard.running.remove(call)
        call.ended = min(self.now, call.start_by + self.times.call_timeout_ms)
        shard.leases.finish(LEVEL, 1, self.now)

    def crash(self, index: int) -> None:
        """Its calls may reach the platform until the longest call is over; words it wrote still arrive."""
        for call in self.shards[index].running:
            call.ended = self.now + self.random.randrange(self.times.call_timeout_ms)
            call.ended = min(call.ended, call.start_by + self.times.call_timeout_ms)
        self.shards[index] = self.shard(index)

    def most_in(self, length_ms: int) -> int:
        """The most calls the platform can have counted in any stretch of that length."""
        starts = sorted(call.started for call in self.calls)
        ends = sorted(call.ended or self.now for call in self.calls)
        most = begun = 0
        for ended, begin in enumerate(ends):
            while begun < len(starts) and starts[begun] <= begin + length_ms:
                begun += 1
            most = max(most, begun - ended)
        return most


TIMES = LeaseTimes(life_ms=1_200, start_slack_ms=150, call_timeout_ms=900)
SMALL = (ip_limit("ip_short", 25, 2_000), ip_limit("ip_long", 70, 9_000))


@given(st.integers(0, 1 << 40), st.sampled_from((0, 3, 12)), st.sampled_from((1, 120, 500)))
@settings(max_examples=40, deadline=None)
def test_no_crash_delay_double_or_disorder_exceeds_a_shared_limit(seed: int, crashes: int, slowest: int) -> None:
    """Four shards that want more than there is, and crash ``crashes`` times in a thousand cycles each."""
    world = World(limit_set(*SMALL), 4, TIMES, seed, delay=(1, slowest))
    world.doubled = 0.3
    pick = world.random
    for _ in range(600):
        world.now += pick.choice((5, 20, 60))
        world.deliver()
        for index, shard in enumerate(world.shards):
            for call in list(shard.running):
                if pick.random() < 0.1 or world.now >= call.start_by + TIMES.call_timeout_ms:
                    world.finish(index, call)
            for _ in range(pick.randrange(4)):
                world.take(index, pick.randrange(4))
            world.cycle(index)
            if pick.randrange(1_000) < crashes:
                world.crash(index)
    for index in range(4):
        world.crash(index)
    assert world.calls
    for limit in SMALL:
        assert isinstance(limit.window, Sliding)
        assert world.most_in(limit.window.length_ms) <= limit.amount


def full_demand(world: World, seconds: int, step_ms: int = 20, crashes: tuple[tuple[int, int], ...] = ()) -> None:
    """Every shard would make far more calls than there are; a call takes 30 ms."""
    pending = sorted(crashes)
    begin = world.now
    for at in range(0, seconds * 1_000, step_ms):
        world.now = begin + at
        while pending and pending[0][0] <= at:
            world.crash(pending.pop(0)[1])
        world.deliver()
        for index, shard in enumerate(world.shards):
            for call in [call for call in shard.running if world.now >= call.started + 30]:
                world.finish(index, call)
            for _ in range(12):
                if not world.take(index):
                    break
            world.cycle(index)


def test_twenty_holders_use_all_there_is_and_none_starves() -> None:
    limits = limit_set(ip_limit("ip_minute", 2_000, 60_000))
    world = World(limits, 20, LeaseTimes(), 1, delay=(50, 50))
    full_demand(world, 300)
    assert world.most_in(60_000) <= 2_000
    assert len(world.calls) >= 0.98 * 2_000 * 5
    assert min(world.per_shard) >= 0.7 * len(world.calls) / 20


def test_a_takeover_of_either_side_costs_little_and_exceeds_nothing() -> None:
    limits = limit_set(ip_limit("ip_minute", 1_000, 60_000))
    world = World(limits, 8, LeaseTimes(call_timeout_ms=4_000), 2, delay=(20, 80))
    full_demand(world, 300, crashes=((70_000, 0), (130_000, 3), (190_000, 0), (190_500, 5)))
    assert world.most_in(60_000) <= 1_000
    assert len(world.calls) >= 0.95 * 1_000 * 5


def test_what_nobody_takes_comes_back() -> None:
    world = World(limit_set(ip_limit("ip_minute", 40, 60_000)), 3, LeaseTimes(), 3, delay=(20, 20))
    full_demand(world, 1)
    world.shards[1].leases.take(LEVEL, WELCOME, 1, world.now)
    for _ in range(400):  # nobody calls any more
        world.now += 20
        world.deliver()
        for index in range(3):
            for call in list(world.shards[index].running):
                world.finish(index, call)
            world.cycle(index)
    view = world.shards[0].leases.usage(world.now)[0]
    assert view.in_flight == 0
    assert view.windows[0].used == len(world.calls)


def test_a_shard_that_is_given_away_gives_back_what_it_was_granted() -> None:
    """At once, and not when its grants run out: else every restart would cost budget for a window."""
    world = World(limit_set(ip_limit("ip_minute", 40, 60_000)), 2, LeaseTimes(), 3, delay=(20, 20))

    def used() -> int:
        return world.shards[0].leases.usage(world.now)[0].in_flight

    for _ in range(10):
        world.take(1)
        world.now += 20
        world.deliver()
        for index in range(2):
            world.cycle(index)
    (running, *others) = world.shards[1].running
    granted = used()
    leaving = world.shards[1].leases
    leaving.give_up()
    for word in leaving.outgoing(world.now):
        assert word.kind == "settle"
        world.shards[0].leases.receive(word, world.now)
    assert used() == 1 + len(others) < granted
    assert leaving.take(LEVEL, WELCOME, 1, world.now) > 0, "nothing is left to take"
    # A call under way at that moment ends as ever.
    world.finish(1, running)
    world.now += 1_000
    world.cycle(1)
    world.now += 20
    world.deliver()
    assert used() == len(others)


def test_bulk_leaves_its_headroom_to_welcome() -> None:
    world = World(limit_set(ip_limit("ip_minute", 100, 60_000)), 3, LeaseTimes(), 4, delay=(5, 5))
    taken = {BULK: 0, WELCOME: 0}
    for lane in (BULK, WELCOME):
        for _ in range(300):
            world.now += 20
            world.deliver()
            for index in range(3):
                for call in list(world.shards[index].running):
                    world.finish(index, call)
                taken[lane] += world.take(index, lane)
                world.cycle(index)
    assert taken == {BULK: 80, WELCOME: 20}


def test_who_takes_over_from_a_holder_cannot_use_its_grants() -> None:
    world = World(limit_set(*SMALL), 2, TIMES, 5, delay=(10, 10))
    world.take(1)
    world.cycle(1)
    world.now += 10
    world.deliver()
    world.now += TIMES.grant_every_ms
    world.cycle(0)
    assert any(lease.kind == "grant" for _, _, _, lease in world.topic)
    world.crash(1)
    world.take(1)
    world.cycle(1)  # the successor asks too, with the same number
    world.now += 10
    world.deliver()
    assert not world.take(1)


def test_a_grant_is_never_visible_before_the_state_that_counts_it() -> None:
    world = World(limit_set(*SMALL), 2, TIMES, 6, delay=(10, 10))
    world.take(1)
    world.cycle(1)
    world.now += TIMES.grant_every_ms
    world.deliver()
    owner = world.shards[0].leases
    granted = sum(lease.calls for lease in owner.outgoing(world.now))
    (dirty,) = owner.take_dirty(world.now, world.now)
    successor = World(limit_set(*SMALL), 1, TIMES, 7, delay=(1, 1)).shards[0].leases
    successor.restore(dirty.level, dirty.state, world.now)
    assert successor.usage(world.now)[0].in_flight == granted > 0


def test_an_ask_that_comes_again_after_a_takeover_is_not_granted_again() -> None:
    world = World(limit_set(*SMALL), 2, TIMES, 6, delay=(10, 10))
    world.take(1)
    (ask,) = world.shards[1].leases.outgoing(world.now)
    world.shards[0].leases.receive(ask, world.now)
    world.now += TIMES.grant_every_ms
    world.cycle(0)
    world.crash(0)
    owner = world.shards[0].leases
    before = owner.usage(world.now)[0].in_flight
    owner.receive(ask, world.now)
    assert owner.outgoing(world.now) == []
    assert owner.usage(world.now)[0].in_flight == before > 0


def test_nothing_is_granted_of_a_level_whose_state_cannot_be_read() -> None:
    world = World(limit_set(*SMALL), 2, TIMES, 6, delay=(10, 10))
    world.shards[0].leases.mistrust(LEVEL, world.now + 9_000)
    full_demand(world, 9)
    assert world.calls == []
    full_demand(world, 2)
    assert world.calls


def test_a_faster_clock_has_longer_leases() -> None:
    assert LeaseTimes().scaled(60) == LeaseTimes(180_000, 30_000, 1_200_000, 3_000, 6_000, 60_000, 15_000, 30_000)


@pytest.mark.parametrize("damage", [lambda state: state[:-7], lambda state: state[:9] + b"\x07" + state[10:]])
def test_a_damaged_state_is_refused(damage: Any) -> None:
    world = World(limit_set(*SMALL), 2, TIMES, 6, delay=(10, 10))
    full_demand(world, 1)
    with pytest.raises(StateError, match="damaged"):
        world.shards[0].leases.restore(LEVEL, damage(world.store[LEVEL]), world.now)


def test_a_change_that_makes_an_egress_bind_counts_what_nobody_counted() -> None:
    corp = ip_limit("corp_short", 8, 2_000, scope="corp_api")
    corp_long = ip_limit("corp_long", 23, 9_000, scope="corp_api")
    before = limit_set(corp, corp_long, *SMALL)
    after = limit_set(replace(corp, amount=20), corp_long, *SMALL)
    assert never_binds(before, ("c1", "c2", "c3"), API)
    assert not never_binds(after, ("c1", "c2", "c3"), API)
    world = World(before, 1, TIMES, 8, delay=(1, 1))
    world.shards[0].leases.change(after, world.now)
    full_demand(world, 9)
    assert len(world.calls) <= 70 - 3 * 23
    full_demand(world, 20)
    assert len(world.calls) >= 70


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=3), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_a_level_that_never_binds_cannot_be_reached_by_calls_that_keep_the_corps_limits(
    windows: list[tuple[int, int]], corps: int
) -> None:
    """Every corp makes its calls as early as its own limits allow: the egress's limit holds nevertheless."""
    own = [
        ip_limit(f"corp_{index}", amount, length * 100, scope="corp_api")
        for index, (amount, length) in enumerate(windows)
    ]
    for amount, length in ((60, 1_000), (100, 300), (30, 500)):
        egress = ip_limit("ip", amount, length)
        names = tuple(f"c{index}" for index in range(corps))
        if not never_binds(limit_set(egress, *own), names, API):
            continue
        starts: list[int] = []
        for now in range(0, 3_000, 20):
            while all(
                sum(start >= now - limit.window.length_ms for start in starts) < limit.amount  # type: ignore[union-attr]
                for limit in own
            ):
                starts.append(now)
        most = max(sum(begin <= start <= begin + length for start in starts) for begin in starts)
        assert most * corps <= amount
