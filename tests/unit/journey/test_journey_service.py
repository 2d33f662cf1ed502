"""The step sends every output where it belongs, refuses what is not its own, and logs no one's name."""

import json

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from services.journey.metrics import JourneyMetrics
from services.journey.service import build_step, key_of, processor
from services.journey.settings import Settings
from siyu.events import ContactEvent, PaymentEvent, RelationshipFact, schemas_dir
from siyu.ops.logging import configure_logging
from siyu.ops.topics import load_topics
from siyu.stream import Context, Record

ADD = ContactEvent(
    event_id="e-add",
    corp_id="ww1",
    change="add",
    staff_id="staff-zhang",
    customer_id="wm-li",
    event_time_ms=1_767_240_000_000,
    received_at_ms=1_767_240_000_500,
    state="door-code",
    welcome_code="welcome-code",
    fail_reason="",
)
PAID = PaymentEvent(
    event_id="e-paid",
    corp_id="ww1",
    change="paid",
    customer_id="wm-li",
    order_id="o1",
    refund_id="",
    staff_id="",
    amount_fen=100,
    event_time_ms=1_767_240_001_000,
    received_at_ms=1_767_240_001_500,
    source="externalpay",
    payment_type=1,
    personal=b"{}",
)


def record(value: object, offset: int = 0) -> Record:
    return Record("contact.events", 3, offset, 1_767_240_002_000, "", value)


def test_facts_go_by_customer_and_deltas_by_staff_member() -> None:
    registry = CollectorRegistry()
    step = build_step(JourneyMetrics(registry), log_events=False)
    ctx = Context()
    state = step("ww1|wm-li", record(PAID), None, ctx)
    state = step("ww1|wm-li", record(ADD), state, ctx)
    assert [(topic, key) for topic, key, _ in ctx.emitted] == [
        ("order.facts", "ww1|wm-li"),
        ("staff.deltas", "ww1|"),
        ("relationship.facts", "ww1|wm-li"),
        ("order.facts", "ww1|wm-li"),
        ("staff.deltas", "ww1|"),
        ("staff.deltas", "ww1|staff-zhang"),
    ]
    assert {topic for topic, _, _ in ctx.emitted} == processor(Settings(), CollectorRegistry()).outputs
    assert step("ww1|wm-li", record(ADD), state, ctx) is state
    assert registry.get_sample_value("siyu_journey_events_total", {"change": "add", "result": "duplicate"}) == 1


def test_an_owner_found_late_is_counted_as_a_recredited_order() -> None:
    registry = CollectorRegistry()
    step = build_step(JourneyMetrics(registry), log_events=False)
    state = step("ww1|wm-li", record(PAID), None, Context())
    step("ww1|wm-li", record(ADD), state, Context())
    assert registry.get_sample_value("siyu_journey_recredited_orders_total") == 1


@pytest.mark.parametrize("value", [ADD, PAID, None, RelationshipFact])
def test_a_record_under_a_foreign_key_or_of_another_kind_is_refused(value: object) -> None:
    step = build_step(JourneyMetrics(CollectorRegistry()), log_events=False)
    ctx = Context()
    with pytest.raises(ValueError) as refused:
        step("ww1|wm-wang", record(value), None, ctx)
    assert "wm-" not in str(refused.value)
    assert ctx.emitted == []


def test_a_payment_of_nobody_known_travels_under_its_order() -> None:
    unknown = msgspec.structs.replace(PAID, customer_id="")
    assert key_of(unknown) == "ww1|~o1"


def test_a_log_line_follows_the_event_and_names_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("journey")
    step = build_step(JourneyMetrics(CollectorRegistry()), log_events=True)
    state = step("ww1|wm-li", record(ADD, 41), None, Context())
    step("ww1|wm-li", record(ADD, 42), state, Context())
    out = capsys.readouterr().out
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["event_id"], line["duplicate"], line["offset"]) for line in lines] == [
        ("e-add", False, 41),
        ("e-add", True, 42),
    ]
    for value in ("wm-li", "staff-zhang", "welcome-code", "door-code"):
        assert value not in out


def test_its_topics_are_declared() -> None:
    declared = load_topics(schemas_dir() / "topics.yaml", "local")
    p = processor(Settings(), CollectorRegistry())
    assert {*p.inputs, *p.outputs, p.changelog, p.dead_letters} <= declared.keys()
