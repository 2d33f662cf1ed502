"""Which shards this process owns: one consumer over all lanes, and an assignment that gives a partition number of every
lane to one member.

A shard moves only when it must: the assignment is rendezvous hashing with a bound, so the loss of one of twenty members
moves its shards and hardly any other. What a member owns in truth is decided by the shard's transactional id, not here:
a member that has not noticed its loss can write nothing (see ``journal``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.partitioner import murmur2


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


def assignor_for(member_name: str) -> type[AbstractPartitionAssignor]:
    """The assignor of the member with this lasting name."""

    class ShardAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
        name = "siyu-shards"
        version = 0
        lasting_name = member_name.encode()

        @classmethod
        def assign(
            cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            topics = sorted({topic for metadata in members.values() for topic in metadata.subscription})
            partitions = {topic: set(cluster.partitions_for_topic(topic) or ()) for topic in topics}
            shards = sorted(set().union(*partitions.values()))
            names = {member: bytes(metadata.user_data or b"").decode() for member, metadata in members.items()}
            return {
                member: ConsumerProtocolMemberAssignment(
                    cls.version,
                    [(topic, [shard for shard in owned if shard in partitions[topic]]) for topic in topics],
                    b"",
                )
                for member, owned in spread(shards, names).items()
            }

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            return ConsumerProtocolMemberMetadata(cls.version, sorted(topics), cls.lasting_name)

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            """Nothing to remember: the hash does."""

    return ShardAssignor
