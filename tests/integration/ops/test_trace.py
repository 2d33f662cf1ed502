"""`siyu trace` on the real broker: one event among others, through every topic it passes, and what is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.cimpl import murmur2
from typer.testing import CliRunner, Result

from deploy.local.kafka import LocalKafka
from services.journey import domain as journey
from services.performance import domain as performance
from services.planner import domain as planner
from services.planner.rules import load_welcome_rule
from siyu.cli import app
from siyu.events import (
    ActionOutcome,
    ContactEvent,
    Event,
    OrderFact,
    PaymentEvent,
    RawCallback,
    RelationshipFact,
    codec,
    schemas_dir,
)
from siyu.events.ids import contact_event_id, customer_key, payment_event_id, staff_key
from siyu.ops.topics import Cluster, load_topics
from siyu.wecom.endpoints import quota_scope

pytestmark = pytest.mark.integration

PARTITIONS = 4
HOUR_MS = 3_600_000


@dataclass
class Corp:
    """One corp and what happens in it: records as the services write them, from the services' own rules."""

    bootstrap: str
    corp_id: str
    now_ms: int
    states: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": self.bootstrap, "partitioner": "murmur2_random"})

    def write(self, topic: str, key: str, value: Event | bytes, *, headers: dict[str, str] | None = None) -> None:
        """Each record some milliseconds later than the one before."""
        self.now_ms += 7
        data = value if isinstance(value, bytes) else codec().encode(value)
        sent: list[tuple[str, str | bytes | None]] = list((headers or {}).items())
        self._producer.produce(topic, data, key, timestamp=self.now_ms, headers=sent)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def contact(self, change: str, staff: str, customer: str, *, code: str = "") -> ContactEvent:
        return ContactEvent(
            event_id=contact_event_id(self.corp_id, change, staff, customer, self.now_ms, "", code),
            corp_id=self.corp_id,
            change=change,
            staff_id=staff,
            customer_id=customer,
            event_time_ms=self.now_ms,
            received_at_ms=self.now_ms,
            state="",
            welcome_code=code,
            fail_reason="",
        )

    def payment(self, customer: str, order: str, *, staff: str = "") -> PaymentEvent:
        return PaymentEvent(
            event_id=payment_event_id(self.corp_id, "paid", order, ""),
            corp_id=self.corp_id,
            change="paid",
            customer_id=customer,
            order_id=order,
            refund_id="",
            staff_id=staff,
            amount_fen=123_456,
            event_time_ms=self.now_ms,
            received_at_ms=self.now_ms,
            source="externalpay",
            payment_type=1,
            personal=b"",
        )

    def raw(self, event_id: str, *, known: bool = True) -> RawCallback:
        return RawCallback(
            event_id=event_id,
            corp_id=self.corp_id,
            agent_id="1",
            event="change_external_contact",
            change_type="add_external_contact",
            event_time_ms=self.now_ms,
            received_at_ms=self.now_ms,
            known=known,
            personal=b"<xml/>",
        )

    def arrives(self, event: ContactEvent | PaymentEvent) -> str:
        """What ingest or sync writes. Gives the event's key."""
        key = customer_key(self.corp_id, event.customer_id)
        if isinstance(event, ContactEvent):
            self.write("callbacks.raw", key, self.raw(event.event_id))
            self.write("contact.events", key, event)
        else:
            self.write("payment.events", key, event)
        return key

    def is_applied(self, event: ContactEvent | PaymentEvent) -> None:
        """What journey and performance write about it."""
        key = customer_key(self.corp_id, event.customer_id)
        self.states[key], outputs = journey.apply(self.states.get(key), event)
        deltas = []
        for output in outputs:
            if isinstance(output, RelationshipFact):
                self.write("relationship.facts", key, output)
            elif isinstance(output, OrderFact):
                self.write("order.facts", key, output)
            else:
                deltas.append(output)
                self.write("staff.deltas", staff_key(self.corp_id, output.staff_id), output)
        for delta in deltas:
            staff = staff_key(self.corp_id, delta.staff_id)
            self.states[staff], snapshot = performance.apply(self.states.get(staff), delta)
            self.write("performance.snapshots", staff, snapshot)

    def is_welcomed(self, event: ContactEvent) -> None:
        """What planner and executor write about it."""
        _, action = planner.plan(None, event, load_welcome_rule(schemas_dir() / "rules" / "welcome.yaml"))
        assert action is not None
        self.write("actions.welcome", quota_scope(self.corp_id, action.endpoint), action)
        shared = {f: getattr(action, f) for f in ActionOutcome.__struct_fields__ if hasattr(action, f)}
        ended = {"status": "done", "errcode": 0, "detail": "ok", "calls": 1, "finished_at_ms": self.now_ms}
        outcome = ActionOutcome(**shared, **ended, request=b"", response=b"")
        self.write("action.outcomes", action.subject, outcome)


@pytest.fixture
def corp(kafka: LocalKafka, unique_name: Callable[[str], str]) -> Corp:
    """A corp of this test's own, an hour ago, in the topics as declared."""
    wanted = load_topics(schemas_dir() / "topics.yaml", "local")
    cluster = Cluster(kafka.bootstrap)
    cluster.apply(cluster.difference(wanted), wanted)
    return Corp(kafka.bootstrap, unique_name("ww"), time.time_ns() // 1_000_000 - HOUR_MS)


@pytest.fixture
def siyu(kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`siyu trace …`"""
    monkeypatch.setenv("SIYU_KAFKA_BOOTSTRAP", kafka.bootstrap)
    runner = CliRunner()
    return lambda *args: runner.invoke(app, ["trace", *args])


def traced(siyu: Callable[..., Result], event_id: str, *options: str) -> dict[str, Any]:
    result = siyu(event_id, "--json", *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def kinds(found: dict[str, Any]) -> list[str]:
    return [record["type"] for record in found["records"]]


def others(corp: Corp, count: int) -> None:
    """Events of other customers, before and after."""
    for number in range(count):
        event = corp.contact("add", f"staff-{number % 5}", f"other-{corp.now_ms}-{number}", code=f"c{corp.now_ms}")
        corp.arrives(event)
        corp.is_applied(event)
        corp.is_welcomed(event)


def test_a_contact_event_is_followed_from_callback_to_welcome_and_snapshot(corp: Corp, siyu) -> None:
    others(corp, 20)
    event = corp.contact("add", "staff-of-trace", "customer-of-trace", code="code-of-trace")
    begin_ms = corp.now_ms
    key = corp.arrives(event)
    corp.is_applied(event)
    corp.is_welcomed(event)
    corp.arrives(event)  # the platform repeats it
    others(corp, 20)
    corp.flush()

    found = traced(siyu, event.event_id)
    assert kinds(found) == [
        "RawCallback",
        "ContactEvent",
        "RelationshipFact",
        "StaffDelta",
        "StaffDaySnapshot",
        "Action",
        "ActionOutcome",
        "RawCallback",
        "ContactEvent",
    ]
    assert found["absent"] == []
    records = found["records"]
    assert [record["again"] for record in records] == [False] * 7 + [True] * 2
    assert [record["after_ms"] for record in records] == [7 * number for number in range(9)]
    partition = murmur2(key.encode(), PARTITIONS)
    assert {record["partition"] for record in records if record["topic"] == "contact.events"} == {partition}
    consumer = Consumer({"bootstrap.servers": corp.bootstrap, "group.id": "trace-test"})
    consumer.assign([TopicPartition("contact.events", partition, records[1]["offset"])])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert message.timestamp()[1] == begin_ms + 14
    assert codec().decode(message.value()) == event

    table = siyu(event.event_id)
    assert table.exit_code == 0
    assert "not there" not in table.output
    for word in ("revision 1", "status friend", "counters +adds", "status done", "again", str(records[1]["offset"])):
        assert word in table.output
    for text in (table.output, json.dumps(found)):
        assert "of-trace" not in text
        assert corp.corp_id not in text


def test_a_late_event_is_seen_to_take_credit_from_one_staff_member_to_another(corp: Corp, siyu) -> None:
    first = corp.contact("add", "staff-a", "customer")
    corp.now_ms += 5_000
    late = corp.contact("add", "staff-b", "customer")
    corp.now_ms += 5_000
    order = corp.payment("customer", "order")
    for event in (first, order, late):
        corp.arrives(event)
        corp.is_applied(event)
    corp.flush()

    found = traced(siyu, late.event_id)
    assert kinds(found)[2:] == [
        "RelationshipFact",
        "OrderFact",
        "StaffDelta",
        "StaffDelta",
        "StaffDaySnapshot",
        "StaffDaySnapshot",
    ]
    counters = [record["what"]["counters"] for record in found["records"] if record["type"] == "StaffDelta"]
    assert counters == [["-gross_fen", "-orders"], ["+adds", "+gross_fen", "+orders"]]
    paid = traced(siyu, order.event_id)
    assert kinds(paid) == ["PaymentEvent", "OrderFact", "StaffDelta", "StaffDaySnapshot"]
    assert paid["absent"] == []
    assert "123456" not in json.dumps([found, paid])


def test_what_nobody_has_taken_yet_is_waited_for_and_what_changed_nothing_is_not(corp: Corp, siyu) -> None:
    event = corp.contact("add", "staff", "customer", code="code")
    key = corp.arrives(event)
    corp.flush()
    found = traced(siyu, event.event_id)
    (_, contact) = found["records"]
    assert [(absence["topics"][0], absence["why"]) for absence in found["absent"]] == [
        ("relationship.facts", "waiting"),
        ("actions.welcome", "waiting"),
    ]
    assert f"{contact['offset'] + 1:,} records to go" in found["absent"][0]["text"]

    for group in ("journey", "planner"):
        consumer = Consumer({"bootstrap.servers": corp.bootstrap, "group.id": group})
        behind = TopicPartition("contact.events", murmur2(key.encode(), PARTITIONS), contact["offset"] + 1)
        consumer.commit(offsets=[behind], asynchronous=False)
        consumer.close()
    after = siyu(event.event_id)
    assert after.exit_code == 0
    assert "journey changed nothing" in after.output
    assert "planner made no action" in after.output


def test_a_dead_letter_is_found_by_where_it_came_from(corp: Corp, siyu) -> None:
    event = corp.contact("add", "staff", "customer")
    corp.arrives(event)
    corp.flush()
    (_, contact) = traced(siyu, event.event_id)["records"]
    origin = {
        "origin.topic": "contact.events",
        "origin.partition": str(contact["partition"]),
        "origin.offset": str(contact["offset"]),
        "error.class": "KeyError",
        "attempt": "1",
    }
    corp.write("dlq.journey", "some key", b"", headers=origin)  # the original was too large to be repeated
    corp.write("dlq.sink", "some key", codec().encode(event), headers={"error.class": "Refused"})
    corp.write("dlq.journey", "some key", b"another", headers={**origin, "origin.offset": "999999"})
    corp.flush()
    found = traced(siyu, event.event_id)
    letters = [record for record in found["records"] if record["type"] == "dead letter"]
    assert [(letter["topic"], letter["what"]["error.class"]) for letter in letters] == [
        ("dlq.journey", "KeyError"),
        ("dlq.sink", "Refused"),
    ]
    assert [absence["topics"] for absence in found["absent"]] == []


def test_a_callback_of_an_unknown_type_ends_in_the_raw_topic(corp: Corp, siyu, unique_name) -> None:
    event_id = unique_name("raw")
    corp.write("callbacks.raw", corp.corp_id, corp.raw(event_id, known=False))
    corp.flush()
    found = traced(siyu, event_id)
    assert kinds(found) == ["RawCallback"]
    assert [absence["why"] for absence in found["absent"]] == ["unknown_type"]


def test_an_event_before_the_time_asked_for_is_not_found(corp: Corp, siyu) -> None:
    event = corp.contact("edit", "staff", "customer")
    corp.arrives(event)
    corp.flush()
    assert siyu(event.event_id, "--since", "2h").exit_code == 0
    late = siyu(event.event_id, "--since", "30m")
    assert late.exit_code == 1
    assert "--since" in late.stderr
    assert late.stdout == ""
    nothing = siyu(event.event_id, "--since", "30m", "--json")
    assert nothing.exit_code == 1
    assert json.loads(nothing.stdout)["records"] == []
    assert siyu(event.event_id, "--since", "lately").exit_code == 2
    away = siyu(event.event_id, "--kafka-bootstrap", "127.0.0.1:1")
    assert away.exit_code == 2
    assert "does not answer" in away.stderr
