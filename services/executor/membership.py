"""Which shards this process owns: its place in the group, and an assignment that gives a partition number of every lane
to one member.

A shard moves only when it must: the assignment is rendezvous hashing with a bound, so the loss of one of twenty members
moves its shards and hardly any other. And it moves in two rounds: in the first nobody has it, so that its owner ends
what is under way; when that is done, the owner asks for the second, which gives it to the next. Whoever keeps its
shards works on all the while. What a member owns in truth is decided by the shard's transactional id, not here: a
member that has not noticed its loss can write nothing (see ``journal``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.partitioner import murmur2

from siyu.ops.clock import wall_ms


@lru_cache(4096)
def shard_of(key: str, shards: int) -> int:
    """The partition that murmur2 gives a key: as librdkafka's ``murmur2_random`` and the Java client do."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % shards


def spread(shards: Sequence[int], members: Mapping[str, str]) -> dict[str, list[int]]:
    """Shards by member id; ``members`` gives each member's lasting name.

    Every shard goes to the member that its hash prefers among those that are not full (the average, rounded up). The
    same members get the same shards, in whatever order they joined.
    """
    if not members:
        return {}
    room = -(-len(shards) // len(members))
    owned: dict[str, list[int]] = {member: [] for member in members}
    for shard in shards:
        preferred = sorted(members, key=lambda member: (_weight(members[member], shard), member), reverse=True)
        owner = next(member for member in preferred if len(owned[member]) < room)
        owned[owner].append(shard)
    return owned


def _weight(name: str, shard: int) -> bytes:
    return hashlib.sha256(f"{name}|{shard}".encode()).digest()


class Standing(msgspec.Struct, frozen=True):
    """What a member tells the others."""

    name: str
    """Its lasting name: what it gets depends on it."""
    holds: list[int] = []
    """Shards it works on, or has not ended yet."""
    dealt_ms: int = 0
    """When the round that gave it these was dealt: wall time of who led it, and later than every round before. A member
    that was thought dead tells of an old one."""


def hand_out(shards: Sequence[int], members: Mapping[str, Standing]) -> dict[str, list[int]]:
    """One round: shards by member id. What somebody else still holds goes to nobody."""
    given: dict[str, list[int]] = {}
    for member, wanted in spread(shards, {member: standing.name for member, standing in members.items()}).items():
        given[member] = [shard for shard in wanted if _holders(shard, members) <= {member}]
    return given


def _holders(shard: int, members: Mapping[str, Standing]) -> set[str]:
    """Of several that say so, only those who heard of the newest round can be right."""
    rounds = {member: standing.dealt_ms for member, standing in members.items() if shard in standing.holds}
    return {member for member, dealt_ms in rounds.items() if dealt_ms == max(rounds.values())}


class Assignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """aiokafka's interface to :func:`hand_out`; the methods are of a class, so each member makes its own."""

    name = "siyu-shards"
    version = 0
    lasting_name = ""
    dealt_ms = 0

    @staticmethod
    def held() -> Collection[int]:
        """The shards this member works on or has not ended yet."""
        return ()

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Called in the member that leads this round."""
        topics = sorted({topic for metadata in members.values() for topic in metadata.subscription})
        partitions = {topic: set(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        shards = sorted(set().union(*partitions.values()))
        told = {member: _DECODER.decode(metadata.user_data) for member, metadata in members.items()}
        dealt_ms = max([wall_ms(), *(standing.dealt_ms + 1 for standing in told.values())])
        return {
            member: ConsumerProtocolMemberAssignment(
                cls.version,
                [(topic, [shard for shard in given if shard in partitions[topic]]) for topic in topics],
                str(dealt_ms).encode(),
            )
            for member, given in hand_out(shards, told).items()
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Called at each join."""
        standing = Standing(cls.lasting_name, sorted(cls.held()), cls.dealt_ms)
        return ConsumerProtocolMemberMetadata(cls.version, sorted(topics), msgspec.json.encode(standing))

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Called with what this member was given."""
        cls.dealt_ms = int(assignment.user_data)


_DECODER = msgspec.json.Decoder(Standing)


def assignor_for(member_name: str, holds: Callable[[], Collection[int]]) -> type[Assignor]:
    """The assignor of the member with this lasting name."""

    class OwnAssignor(Assignor):
        lasting_name = member_name
        held = staticmethod(holds)

    return OwnAssignor
