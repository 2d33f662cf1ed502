import random
from collections import Counter

import msgspec
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.executor.membership import Assignor, Standing, assignor_for, hand_out, shard_of, spread
from siyu.ops.clock import wall_ms

LANES = ["actions.bulk", "actions.sync", "actions.urgent", "actions.welcome"]
names = st.sets(st.text("abcdefgh0123456789", min_size=1, max_size=6), min_size=1, max_size=24)


def members(of: set[str] | list[str]) -> dict[str, str]:
    """A member's id is new at every start, its name stays."""
    return {f"id-of-{name}": name for name in of}


def owners(owned: dict[str, list[int]]) -> dict[int, str]:
    return {shard: member for member, shards in owned.items() for shard in shards}


def test_nobody_gets_nothing() -> None:
    assert spread(range(4), {}) == {}


@given(names=names, shards=st.integers(0, 96))
def test_every_shard_has_one_owner_and_nobody_has_more_than_the_average_rounded_up(
    names: set[str], shards: int
) -> None:
    owned = spread(range(shards), members(names))
    assert Counter(shard for mine in owned.values() for shard in mine) == Counter(range(shards))
    assert max(map(len, owned.values())) <= -(-shards // len(names))


@given(names=names, seed=st.integers())
def test_the_order_in_which_they_joined_does_not_matter(names: set[str], seed: int) -> None:
    joined = sorted(names)
    random.Random(seed).shuffle(joined)
    assert spread(range(32), members(joined)) == spread(range(32), members(sorted(names)))


def test_a_member_that_comes_back_under_another_id_has_the_same_shards() -> None:
    before = spread(range(32), {f"a-{n}": f"executor-{n}" for n in range(5)})
    after = spread(range(32), {f"z-{9 - n}": f"executor-{n}" for n in range(5)})
    assert [before[f"a-{n}"] for n in range(5)] == [after[f"z-{9 - n}"] for n in range(5)]


@pytest.mark.parametrize(("shards", "count"), [(32, 20), (32, 4), (64, 20), (96, 8)])
def test_the_loss_of_one_moves_its_shards_and_few_others(shards: int, count: int) -> None:
    everybody = members([f"executor-{number}" for number in range(count)])
    before = owners(spread(range(shards), everybody))
    others = []
    for lost in everybody:
        rest = {member: name for member, name in everybody.items() if member != lost}
        after = owners(spread(range(shards), rest))
        others.append(sum(before[shard] not in (lost, after[shard]) for shard in range(shards)))
    assert sum(others) / count <= shards / 8, "an assignment drawn anew would move nearly all of them"


def test_what_somebody_holds_is_given_to_nobody_else_before_it_is_let_go() -> None:
    before = spread(range(32), {"a": "e1", "b": "e2"})
    joined = {
        "a": Standing("e1", before["a"], 1),
        "b": Standing("e2", before["b"], 1),
        "c": Standing("e3"),
    }
    after = spread(range(32), {"a": "e1", "b": "e2", "c": "e3"})
    given = hand_out(range(32), joined)
    assert {member: set(given[member]) for member in "ab"} == {m: set(before[m]) & set(after[m]) for m in "ab"}
    assert given["c"] == [], "all were held"
    released = {member: Standing(joined[member].name, given[member], 2) for member in joined}
    assert hand_out(range(32), released) == after


def test_who_was_thought_dead_takes_nothing_from_the_rightful_owner() -> None:
    wanted = spread(range(32), {"a": "e1", "b": "e2"})
    everything = list(range(32))
    given = hand_out(range(32), {"a": Standing("e1", everything, 7), "b": Standing("e2", everything, 3)})
    assert given == {"a": wanted["a"], "b": []}
    given = hand_out(range(32), {"a": Standing("e1", everything, 3), "b": Standing("e2", everything, 7)})
    assert given == {"a": [], "b": wanted["b"]}


class GroupOverTime(RuleBasedStateMachine):
    """Members come, go without a word, stand still and come back; rounds are dealt in between. A shard that two work on
    is fenced by its journal; here it must not happen unless one of them was thought dead."""

    SHARDS = range(12)

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[str, Standing] = {}
        self.draining: dict[str, set[int]] = {}
        self.frozen: dict[str, Standing] = {}
        self.number = 0
        self.now_ms = 0

    def deal(self) -> None:
        told = {
            member: Standing(s.name, sorted({*s.holds, *self.draining[member]}), s.dealt_ms)
            for member, s in self.members.items()
        }
        self.now_ms += 1_000
        for member, now_its_own in hand_out(self.SHARDS, told).items():
            before = self.members[member]
            self.draining[member] = (self.draining[member] | set(before.holds)) - set(now_its_own)
            self.members[member] = Standing(before.name, now_its_own, self.now_ms)

    @rule(name=st.sampled_from(["e1", "e2", "e3", "e4"]))
    def joins(self, name: str) -> None:
        if name not in {s.name for s in (*self.members.values(), *self.frozen.values())}:
            self.number += 1
            self.members[f"{name}-{self.number}"], self.draining[f"{name}-{self.number}"] = Standing(name), set()
            self.deal()

    @rule(data=st.data(), frozen=st.booleans())
    def is_gone(self, data: st.DataObject, frozen: bool) -> None:
        if self.members:
            member = data.draw(st.sampled_from(sorted(self.members)))
            standing, draining = self.members.pop(member), self.draining.pop(member)
            if frozen:
                self.frozen[member] = Standing(standing.name, sorted({*standing.holds, *draining}), standing.dealt_ms)
            self.deal()

    @rule(data=st.data())
    def comes_back(self, data: st.DataObject) -> None:
        if self.frozen:
            member = data.draw(st.sampled_from(sorted(self.frozen)))
            self.members[member], self.draining[member] = self.frozen.pop(member), set()
            self.deal()
            # Its journal tells it what it has lost as soon as it writes.
            self.draining[member] = set()

    @rule(data=st.data())
    def has_ended_what_it_gave_up(self, data: st.DataObject) -> None:
        if self.members:
            self.draining[data.draw(st.sampled_from(sorted(self.members)))] = set()
            self.deal()

    @invariant()
    def nobody_is_given_what_another_works_on(self) -> None:
        held = Counter(shard for member, s in self.members.items() for shard in {*s.holds, *self.draining[member]})
        assert not held or max(held.values()) == 1

    def teardown(self) -> None:
        if not self.members:
            return
        for _ in range(2):
            self.draining = {member: set() for member in self.members}
            self.deal()
        held = Counter(shard for standing in self.members.values() for shard in standing.holds)
        assert held == Counter(self.SHARDS), "after two quiet rounds every shard has its owner"


TestGroupOverTime = GroupOverTime.TestCase


class Cluster:
    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(32)) if topic in LANES else None


def joining(name: str, *holds: int) -> ConsumerProtocolMemberMetadata:
    return assignor_for(name, lambda: holds).metadata(LANES)


def test_partition_p_of_every_lane_goes_to_one_member() -> None:
    joined = {f"id-{name}": joining(name) for name in ("e0", "e1", "e2", "e3", "e4")}
    assigned = assignor_for("e0", tuple).assign(Cluster(), joined)
    places: dict[int, set[str]] = {}
    held: Counter[tuple[str, int]] = Counter()
    for member, assignment in assigned.items():
        for topic, partitions in assignment.assignment:
            for partition in partitions:
                places.setdefault(partition, set()).add(member)
                held[topic, partition] += 1
    assert set(places) == set(range(32))
    assert all(len(who) == 1 for who in places.values())
    assert held == Counter({(topic, partition): 1 for topic in LANES for partition in range(32)})


def test_every_member_comes_to_the_same_assignment() -> None:
    joined = {"id-e0": joining("e0", 1, 2, 3), "id-e1": joining("e1", 4), "id-e2": joining("e2")}
    answers = [
        {
            member: (assignment.assignment, assignment.user_data)
            for member, assignment in assignor_for(leader, tuple).assign(Cluster(), joined).items()
        }
        for leader in ("e0", "e1", "e2")
    ]
    assert answers[0] == answers[1] == answers[2]


def test_a_member_tells_the_others_its_lasting_name_and_what_it_holds_since_which_round() -> None:
    holds = {9, 3}
    first, other = assignor_for("executor-7", lambda: holds), assignor_for("executor-8", set)

    def tells(assignor: type[Assignor]) -> Standing:
        return msgspec.json.decode(assignor.metadata(LANES).user_data, type=Standing)

    assert tells(first) == Standing("executor-7", [3, 9], 0)
    began_ms = wall_ms()
    assigned = other.assign(Cluster(), {"id-7": first.metadata(LANES), "id-8": other.metadata(LANES)})
    first.on_assignment(assigned["id-7"])
    holds.add(4)
    dealt_ms = tells(first).dealt_ms
    assert tells(first) == Standing("executor-7", [3, 4, 9], dealt_ms)
    assert began_ms <= dealt_ms <= wall_ms()
    assert tells(other).dealt_ms == 0
    first.dealt_ms = later_ms = dealt_ms + 86_400_000
    assigned = other.assign(Cluster(), {"id-7": first.metadata(LANES), "id-8": other.metadata(LANES)})
    assert int(assigned["id-8"].user_data) == later_ms + 1, "also where a clock was wrong"


def test_a_shard_is_what_kafka_clients_take_for_the_key() -> None:
    # Known answers of the Java client's murmur2, on which librdkafka's murmur2_random agrees.
    known = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    for key, value in known.items():
        assert shard_of(key, 1 << 20) == (value & 0x7FFFFFFF) % (1 << 20)


@given(key=st.text(), shards=st.integers(1, 64))
def test_every_key_has_a_shard(key: str, shards: int) -> None:
    assert 0 <= shard_of(key, shards) < shards
