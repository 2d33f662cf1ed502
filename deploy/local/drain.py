"""Waits until everything that has arrived is visible in ClickHouse, stage by stage in the order of the flow.

A stage is done when its group has read all that was in its inputs at the moment the stage before it was done. Ends of
transactions take offsets of their own, which no group ever commits; so what decides is whether a record is left to
read, not whether two numbers are equal.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx2
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.errors import LocalStackError
from deploy.local.stack import StackConfig

__all__ = ["FLOW", "DrainTimeout", "drain", "wait_bills_read", "wait_group"]

FLOW: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("planner", ("contact.events",)),
    ("journey", ("contact.events", "payment.events")),
    ("performance", ("staff.deltas",)),
    ("executor.welcome", ("actions.welcome",)),
    ("sink", ("relationship.facts", "order.facts", "performance.snapshots", "action.outcomes")),
)
"""Consumer groups and what they read, each after the ones whose output it reads."""

BILLS_READ = "siyu_sync_bills_read_through_ms"
POLL_S = 0.25
REQUEST_S = 10.0

Position = tuple[str, int]
"""Topic and partition."""


class DrainTimeout(LocalStackError):
    """Something did not catch up in time; the message says what, and by how much."""


class Stopped(Exception):
    """Asked to stop waiting."""


@dataclass(frozen=True)
class Patience:
    """How long each stage may take, and a way to be interrupted."""

    timeout_s: float
    stop: threading.Event

    def deadline(self) -> float:
        return time.monotonic() + self.timeout_s

    def pause(self) -> None:
        """Raises Stopped."""
        if self.stop.wait(POLL_S):
            raise Stopped


def drain(
    config: StackConfig,
    *,
    corps: tuple[str, ...],
    bills_through_ms: int,
    timeout_s: float,
    stop: threading.Event,
    report: Callable[[str], None],
) -> None:
    """Returns when all is in ClickHouse. Blocks: run it in a thread. Raises DrainTimeout, or Stopped after ``stop``."""
    patience = Patience(timeout_s, stop)
    report("等待账单读完 / waiting until the bills are read")
    wait_bills_read(f"{config.metrics_url('sync')}/metrics", corps, bills_through_ms, patience)
    for group, topics in FLOW:
        report(f"等待 {group} / waiting for {group}")
        wait_group(config.kafka_bootstrap, group, topics, patience)


def wait_bills_read(metrics_url: str, corps: tuple[str, ...], through_ms: int, patience: Patience) -> None:
    """Until sync says of every corp that it has read all bills up to that instant of business time."""
    deadline = patience.deadline()
    while True:
        read = _bills_read(metrics_url)
        behind = {corp: through_ms - read.get(corp, 0) for corp in corps if read.get(corp, 0) < through_ms}
        if not behind:
            return
        if time.monotonic() > deadline:
            listed = ", ".join(
                f"{corp} by {missing / 1000:.0f} s" if corp in read else f"{corp} never read"
                for corp, missing in behind.items()
            )
            raise DrainTimeout(f"账单未读完 / bills are not read within {patience.timeout_s:.0f} s: behind {listed}")
        patience.pause()


def _bills_read(metrics_url: str) -> Mapping[str, float]:
    try:
        text = httpx2.get(metrics_url, timeout=REQUEST_S, trust_env=False).text
    except httpx2.TransportError:
        return {}
    return {
        sample.labels["corp_id"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == BILLS_READ
    }


def wait_group(bootstrap: str, group: str, topics: tuple[str, ...], patience: Patience) -> None:
    """Until the group has committed past every record that is in its inputs now."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    ends = _ends(admin, topics)
    if not ends:
        return
    deadline = patience.deadline()
    while True:
        committed = _committed(admin, group, ends)
        behind = {at: end - committed[at] for at, end in ends.items() if committed[at] < end}
        if behind:
            left = _with_records(bootstrap, {at: (committed[at], ends[at]) for at in behind})
            behind = {at: count for at, count in behind.items() if at in left}
        if not behind:
            return
        if time.monotonic() > deadline:
            listed = ", ".join(f"{topic}[{number}] by {count}" for (topic, number), count in sorted(behind.items()))
            raise DrainTimeout(f"{group} 落后 / {group} has not caught up within {patience.timeout_s:.0f} s: {listed}")
        patience.pause()


def _ends(admin: AdminClient, topics: tuple[str, ...]) -> dict[Position, int]:
    described = admin.list_topics(timeout=REQUEST_S).topics
    everything = [TopicPartition(topic, number) for topic in topics for number in described[topic].partitions]
    newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    futures = admin.list_offsets(dict.fromkeys(everything, newest), request_timeout=REQUEST_S)
    found = {(at.topic, at.partition): future.result().offset for at, future in futures.items()}
    return {at: end for at, end in found.items() if end > 0}


def _committed(admin: AdminClient, group: str, ends: Mapping[Position, int]) -> dict[Position, int]:
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for topic, number in ends])
    try:
        (future,) = admin.list_consumer_group_offsets([asked], request_timeout=REQUEST_S).values()
        answered = future.result().topic_partitions
    except KafkaException as error:
        # A group nobody has joined yet, or one that commits a transaction at this moment.
        if not error.args[0].retriable() and error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
        answered = []
    known = {(at.topic, at.partition): max(at.offset, 0) for at in answered}
    return {at: known.get(at, 0) for at in ends}


def _with_records(bootstrap: str, ranges: Mapping[Position, tuple[int, int]]) -> set[Position]:
    """Partitions with a record (or an open transaction) at or after the first offset and before the second."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "drain.look",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        consumer.assign([TopicPartition(topic, number, start) for (topic, number), (start, _) in ranges.items()])
        undecided, left = set(ranges), set()
        deadline = time.monotonic() + REQUEST_S
        while undecided and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None:
                continue
            topic, number, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None
            assert number is not None
            assert offset is not None
            at, error = (topic, number), message.error()
            if at not in undecided:
                continue
            if error is None:
                # A record behind the end that was asked for has come since and does not matter.
                if offset < ranges[at][1]:
                    left.add(at)
            elif error.code() != KafkaError._PARTITION_EOF:
                continue
            elif offset < ranges[at][1]:
                left.add(at)
            undecided.discard(at)
        return left | undecided
    finally:
        consumer.close()
