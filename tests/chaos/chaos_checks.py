"""What must hold when everything has come to rest: the audit is clean, and Kafka alone says the same.

Beside the audit, which reads ClickHouse, three statements about the topics: every revision of a row stands in them
once and in its order, the last snapshot of a staff member's day is the sum of its deltas, and nothing is a dead letter.
What the executors did is compared with the platform's own record (see chaos_verdict.py).
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from itertools import pairwise

from chaos_actions import Asked
from chaos_platform import Platform
from chaos_verdict import Acts, judge, read_calls
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from deploy.local.drain import FLOW, DrainTimeout, Patience, wait_group
from siyu.audit import AuditConfig, Report, run_audit
from siyu.audit.bills import read_bills
from siyu.audit.callbacks import read_callbacks
from siyu.audit.kafka import read_topic
from siyu.events import (
    STAFF_COUNTERS,
    ActionOutcome,
    LedgerEntry,
    OrderFact,
    RawCallback,
    RelationshipFact,
    StaffDaySnapshot,
    StaffDelta,
    codec,
)

STREAM_GROUPS = ("journey", "performance", "sink")
ALL_GROUPS = ("planner", "journey", "performance", "executor", "sink")
DEAD_LETTERS = ("dlq.journey", "dlq.performance", "dlq.sink", "dlq.planner", "dlq.executor")


@dataclass
class Topics:
    """Differences that Kafka shows by itself."""

    rows: int = 0
    """Rows with a revision: relationships, orders, staff days."""
    revisions_missing: int = 0
    revisions_repeated: int = 0
    revisions_out_of_order: int = 0
    days_not_their_sum: int = 0
    """Staff days whose last snapshot is not the sum of their deltas."""
    dead_letters: int = 0

    @property
    def clean(self) -> bool:
        return not any(count for name, count in asdict(self).items() if name != "rows")


def wait_until_drained(
    bootstrap: str, groups: Collection[str], timeout_s: float, stop: threading.Event, say: Callable[[str], None]
) -> None:
    """Until every group has read all there is, each after the one before it. Raises DrainTimeout, Stopped."""
    deadline = time.monotonic() + timeout_s
    for group, topics in FLOW:
        if group not in groups:
            continue
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            try:
                wait_group(bootstrap, group, topics, Patience(left_s, stop))
                say(f"{group} has")
                break
            except KafkaException as error:
                # A broker on its way back, or offsets of a transaction that has to time out first.
                if left_s == 0:
                    raise DrainTimeout(f"{group}: {error.args[0].name()} for {timeout_s:.0f} s") from error


def audit(bootstrap: str, clickhouse_url: str) -> Report:
    return run_audit(AuditConfig(bootstrap, clickhouse_url))


def arrived(bootstrap: str, corps: Collection[str]) -> dict[str, int]:
    """What arrived of these corps, by the audit's own names and reading."""
    callbacks = read_callbacks(r for r in read_topic(bootstrap, "callbacks.raw", RawCallback) if r.corp_id in corps)
    bills = read_bills(o for o in read_topic(bootstrap, "action.outcomes", ActionOutcome) if o.corp_id in corps)
    return {
        "deliveries": callbacks.deliveries,
        "events": len(callbacks.contacts),
        "pages": bills.pages,
        "payments": len(bills.payments),
        "refunds": len(bills.refunds),
    }


def check_acts(bootstrap: str, asked: Asked, platform: Platform) -> Acts:
    """Raises SourceError, and OSError when the platform left no record."""
    outcomes = read_topic(bootstrap, "action.outcomes", ActionOutcome)
    entries = read_topic(bootstrap, "action.ledger", LedgerEntry)
    with platform.calls_file.open("rb") as lines:
        return judge(asked, outcomes, entries, read_calls(lines), platform.limits)


class Ends:
    """Follows what is published and remembered about actions, as it becomes known. Never waits for the broker."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                # Nothing is committed under it; the client only insists on a name.
                "group.id": "chaos-ends",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "reconnect.backoff.max.ms": 1_000,
                "log_level": 0,
            }
        )
        topics = ("action.outcomes", "action.ledger")
        described = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign([TopicPartition(name, at, 0) for name in topics for at in described[name].partitions])
        self._decode = codec().decode_as
        self.ended: set[str] = set()
        """Ids with an outcome."""
        self.open: set[str] = set()
        """Ids that the ledger has open."""

    def look(self) -> None:
        """Takes in what has come."""
        while messages := self._consumer.consume(2_000, timeout=0):
            for message in messages:
                value = message.value()
                if message.error() is not None or value is None:
                    continue
                if message.topic() == "action.outcomes":
                    self.ended.add(self._decode(ActionOutcome, value).action_id)
                    continue
                entry = self._decode(LedgerEntry, value)
                (self.open.discard if entry.state == "ended" else self.open.add)(entry.action_id)

    def close(self) -> None:
        self._consumer.close()


def check_topics(bootstrap: str) -> Topics:
    found = Topics()
    revisions: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for fact in read_topic(bootstrap, "relationship.facts", RelationshipFact):
        revisions["relationship", fact.corp_id, fact.staff_id, fact.customer_id].append(fact.revision)
    for order in read_topic(bootstrap, "order.facts", OrderFact):
        revisions["order", order.corp_id, order.customer_id, order.order_id].append(order.revision)
    last: dict[tuple[str, ...], StaffDaySnapshot] = {}
    for day in read_topic(bootstrap, "performance.snapshots", StaffDaySnapshot):
        key = (day.corp_id, day.staff_id, day.day)
        revisions["staff day", *key].append(day.revision)
        if key not in last or last[key].revision < day.revision:
            last[key] = day
    for seen in revisions.values():
        distinct = set(seen)
        found.rows += 1
        found.revisions_missing += max(distinct) - len(distinct)
        found.revisions_repeated += len(seen) - len(distinct)
        found.revisions_out_of_order += sum(later < earlier for earlier, later in pairwise(seen))

    sums: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for delta in read_topic(bootstrap, "staff.deltas", StaffDelta):
        sums[delta.corp_id, delta.staff_id, delta.day].update(delta.counters)
    for cell in sums.keys() | last.keys():
        shown = {name: getattr(last[cell], name) for name in STAFF_COUNTERS} if cell in last else {}
        found.days_not_their_sum += any(sums[cell][name] != shown.get(name) for name in STAFF_COUNTERS)

    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    newest = OffsetSpec.latest()
    asked = {TopicPartition(topic, 0): newest for topic in DEAD_LETTERS}
    found.dead_letters = sum(answer.result().offset for answer in admin.list_offsets(asked).values())
    return found
