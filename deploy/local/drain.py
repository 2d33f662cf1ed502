"""Waits until everything that has arrived is visible in ClickHouse, stage by stage in the order of the flow.

A stage is done when its group has read all that was in its inputs at the moment the stage before it was done. Ends of
transactions take offsets of their own, which no group ever commits; so what decides is whether a record is left to
read, not whether two numbers are equal.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.errors import LocalStackError
from deploy.local.stack import StackConfig

__all__ = ["FLOW", "DrainTimeout", "drain", "wait_bills_read", "wait_group"]

FLOW: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("planner", ("contact.events",)),
    ("journey", ("contact.events", "payment.events")),
    ("performance", ("staff.deltas",)),
    ("guard", ("staff.deltas", "guard.signals")),
    ("executor", ("actions.welcome", "actions.urgent", "actions.bulk")),
    ("sink", ("relationship.facts", "order.facts", "performance.snapshots", "action.outcomes", "action.ledger")),
)
"""Consumer groups and what they read, each after the ones whose output it reads."""

BILLS_READ = "siyu_sync_bills_read_through_ms"
POLL_S = 0.25
REQUEST_S = 10.0

PASSING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
)
"""Answers of a broker that has just created a topic, elects a leader, or commits a transaction."""

T = TypeVar("T")

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
    # It only asks and looks, under the group's name; it never becomes a member.
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        admin = AdminClient({"bootstrap.servers": bootstrap})
        ends = _asked(lambda: _ends(admin, topics), patience)
        deadline = patience.deadline()
        while ends:
            committed = _asked(lambda: _committed(consumer, ends), patience)
            behind = {at: end - committed[at] for at, end in ends.items() if committed[at] < end}
            if behind:
                left = _with_records(consumer, {at: (committed[at], ends[at]) for at in behind})
                behind = {at: count for at, count in behind.items() if at in left}
            if not behind:
                return
            if time.monotonic() > deadline:
                listed = ", ".join(f"{topic}[{number}] by {count}" for (topic, number), count in sorted(behind.items()))
                raise DrainTimeout(
                    f"{group} 落后 / {group} has not caught up within {patience.timeout_s:.0f} s: {listed}"
                )
            patience.pause()
    finally:
        consumer.close()


def _asked(ask: Callable[[], T], patience: Patience) -> T:
    """Asks again while the broker is only on its way, up to 10 s. Raises KafkaException."""
    deadline = time.monotonic() + REQUEST_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in PASSING or time.monotonic() > deadline:
                raise
        patience.pause()


def _ends(admin: AdminClient, topics: tuple[str, ...]) -> dict[Position, int]:
    described = admin.list_topics(timeout=REQUEST_S).topics
    everything = [TopicPartition(topic, number) for topic in topics for number in described[topic].partitions]
    newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    futures = admin.list_offsets(dict.fromkeys(everything, newest), request_timeout=REQUEST_S)
    found = {(at.topic, at.partition): future.result().offset for at, future in futures.items()}
    return {at: end for at, end in found.items() if end > 0}


def _committed(consumer: Consumer, ends: Mapping[Position, int]) -> dict[Position, int]:
    # Not AdminClient.list_consumer_group_offsets: confluent-kafka 2.16 dies of SIGSEGV in it while a coordinator loads.
    answered = consumer.committed([TopicPartition(topic, number) for topic, number in ends], timeout=REQUEST_S)
    for at in answered:
        if at.error is not None:
            raise KafkaException(at.error)
    # Below zero: nothing committed yet.
    return {(at.topic, at.partition): max(at.offset, 0) for at in answered}


def _with_records(consumer: Consumer, ranges: Mapping[Position, tuple[int, int]]) -> set[Position]:
    """Partitions with a record (or an open transaction) at or after the first offset and before the second."""
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
        if at not in undecided or (error is not None and error.code() != KafkaError._PARTITION_EOF):
            continue
        # The next record, or the next offset when there is none; behind the end that was asked for it does not matter.
        if offset < ranges[at][1]:
            left.add(at)
        undecided.discard(at)
    consumer.unassign()
    return left | undecided
