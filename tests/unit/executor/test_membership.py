import random
from collections import Counter

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from services.executor.membership import assignor_for, shard_of, spread

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


def test_partition_p_of_every_lane_goes_to_one_member() -> None:
    class Cluster:
        def partitions_for_topic(self, topic: str) -> set[int] | None:
            return set(range(32)) if topic in LANES else None

    joined = {
        f"id-{name}": ConsumerProtocolMemberMetadata(0, LANES, name.encode()) for name in ("e0", "e1", "e2", "e3", "e4")
    }
    assigned = assignor_for("e0").assign(Cluster(), joined)
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
    class Cluster:
        def partitions_for_topic(self, topic: str) -> set[int]:
            return set(range(8))

    joined = {f"id-{name}": ConsumerProtocolMemberMetadata(0, LANES, name.encode()) for name in ("e0", "e1", "e2")}
    answers = [
        {member: assignment.assignment for member, assignment in assignor_for(leader).assign(Cluster(), joined).items()}
        for leader in ("e0", "e1", "e2")
    ]
    assert answers[0] == answers[1] == answers[2]


def test_a_member_tells_the_others_its_lasting_name() -> None:
    metadata = assignor_for("executor-7").metadata(LANES)
    assert (metadata.user_data, sorted(metadata.subscription)) == (b"executor-7", LANES)


def test_a_shard_is_what_kafka_clients_take_for_the_key() -> None:
    # Known answers of the Java client's murmur2, on which librdkafka's murmur2_random agrees.
    known = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    for key, value in known.items():
        assert shard_of(key, 1 << 20) == (value & 0x7FFFFFFF) % (1 << 20)


@given(key=st.text(), shards=st.integers(1, 64))
def test_every_key_has_a_shard(key: str, shards: int) -> None:
    assert 0 <= shard_of(key, shards) < shards
