"""Governors of several shards behind one egress: neither a corp's limit nor the egress's is exceeded, whatever happens.

Each shard serves one corp and draws from the egress's level through leases. A dated change makes the egress's limit
unreachable and reachable again while calls are under way.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.governor import Claim, Governor, Path
from services.executor.leases import Leases, LeaseTimes
from siyu.events.types import Lane, QuotaLease
from siyu.limits import Limit, LimitSet, Margins, Sliding

NOW = 1_800_050_000_000
CORPS = ("c0", "c1", "c2")
API = "externalcontact/mark_tag"
START_WITHIN = 300
TIMES = LeaseTimes(life_ms=1_200, start_slack_ms=150, call_timeout_ms=900)
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
LENGTH, EGRESS, MUCH, LITTLE = 2_000, 25, 12, 8


def limit_set(corp: int, as_of_ms: int) -> LimitSet:
    def limit(scope: Any, amount: int) -> Limit:
        return Limit(
            id=scope,
            scope=scope,
            endpoints=(),
            corps=(),
            amount=amount,
            window=Sliding(LENGTH),
            counts="calls",
            block="window",
            paced=False,
            enforce="admit",
            ours=False,
            source="a test",
            confidence="certain",
            note="",
            family=scope,
        )

    limits = (limit("corp_api", corp), limit("ip_api", EGRESS))
    return LimitSet(revision=f"test {corp}", as_of_ms=as_of_ms, limits=limits, headroom=HEADROOM, margins=MARGINS)


@dataclass(eq=False)
class Call:
    path: Path
    start_by: int = 0
    started: int = 0
    ended: int = 0


@dataclass
class Shard:
    governor: Governor
    leases: Leases
    path: Path
    reserved: list[Call] = field(default_factory=list)
    ready: list[Call] = field(default_factory=list)
    running: list[Call] = field(default_factory=list)


class World:
    def __init__(self, seed: int, corp: int, slowest: int) -> None:
        self.random = random.Random(seed)
        self.now, self.corp, self.slowest = NOW, corp, slowest
        self.as_of_ms = 0
        self.stores: list[dict[str, bytes]] = [{} for _ in CORPS]
        self.topic: list[tuple[int, int, int, QuotaLease]] = []
        self.calls: list[tuple[int, Call]] = []
        self.numbers = 0
        self.shards = [self.shard(index) for index in range(len(CORPS))]

    def shard(self, index: int) -> Shard:
        self.numbers += 1
        limits = limit_set(self.corp, self.as_of_ms)
        leases = Leases(
            limits,
            shard=index,
            incarnation=f"{index}-{self.numbers}",
            egress="e",
            shard_of=lambda level: 0,
            corps=CORPS,
            times=TIMES,
        )
        governor = Governor(
            limits,
            egress="e",
            corps=CORPS,
            load=lambda level: None,
            allowance=lambda corp, staff: 100,
            shared=leases,
        )
        for level, state in self.stores[index].items():
            governor.restore(level, state, self.now)
        return Shard(governor, leases, governor.path(Claim(CORPS[index], "1", API)))

    def change(self, corp: int) -> None:
        self.corp, self.as_of_ms = corp, self.now
        for shard in self.shards:
            shard.governor.change(limit_set(corp, self.now), self.now)

    def deliver(self) -> None:
        while self.topic and self.topic[0][0] <= self.now:
            _, _, to, lease = heapq.heappop(self.topic)
            self.shards[to].leases.receive(lease, self.now)

    def turn(self, index: int) -> None:
        shard, pick = self.shards[index], self.random
        for call in list(shard.running):
            if pick.random() < 0.1 or self.now >= call.started + TIMES.call_timeout_ms:
                shard.running.remove(call)
                call.ended = min(self.now, call.started + TIMES.call_timeout_ms)
                shard.governor.finish(call.path, self.now)
        for _ in range(pick.randrange(4)):
            if shard.governor.reserve(shard.path, "welcome", self.now) == 0:
                shard.reserved.append(Call(shard.path, shard.path.start_by_ms))
        for lease in shard.leases.outgoing(self.now):
            self.numbers += 1
            at = self.now + pick.randint(1, self.slowest)
            heapq.heappush(self.topic, (at, self.numbers, shard.leases.destination(lease), lease))
        for dirty in shard.governor.take_dirty(self.now, self.now + START_WITHIN + TIMES.call_timeout_ms):
            self.stores[index][dirty.level] = dirty.state
        for call in shard.reserved:
            call.start_by = min(call.start_by, self.now + START_WITHIN)
        shard.ready += shard.reserved
        shard.reserved = []
        for call in list(shard.ready):
            if self.now > call.start_by:
                shard.ready.remove(call)
                shard.governor.give_back(call.path, self.now)
            elif pick.random() < 0.8 and shard.governor.begin(call.path, "welcome", self.now):
                shard.ready.remove(call)
                call.started = self.now
                shard.running.append(call)
                self.calls.append((index, call))

    def crash(self, index: int) -> None:
        for call in self.shards[index].running:
            call.ended = min(self.now + self.random.randrange(900), call.started + TIMES.call_timeout_ms)
        self.shards[index] = self.shard(index)

    def most(self, calls: list[Call]) -> int:
        spans = [(call.started, call.ended or self.now) for call in calls]
        return max((sum(s <= at + LENGTH and e >= at for s, e in spans) for _, at in spans), default=0)


@given(st.integers(0, 1 << 40), st.sampled_from((0, 6)), st.sampled_from((MUCH, LITTLE)), st.booleans())
@settings(max_examples=25, deadline=None)
def test_neither_a_corp_nor_the_egress_is_exceeded(seed: int, crashes: int, corp: int, changes: bool) -> None:
    world = World(seed, corp, slowest=80)
    for turn in range(500):
        world.now += world.random.choice((5, 20, 60))
        world.deliver()
        for index in range(len(CORPS)):
            world.turn(index)
            if world.random.randrange(1_000) < crashes:
                world.crash(index)
        if changes and turn % 150 == 149:
            world.change(LITTLE if world.corp == MUCH else MUCH)
    for index in range(len(CORPS)):
        world.crash(index)
    assert world.calls
    assert world.most([call for _, call in world.calls]) <= EGRESS
    for index in range(len(CORPS)):
        assert world.most([call for by, call in world.calls if by == index]) <= MUCH
