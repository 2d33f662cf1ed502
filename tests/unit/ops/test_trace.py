"""What a trace says about each kind of record, and what it says about records that are not there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from siyu.events import (
    Action,
    ActionOutcome,
    ContactEvent,
    Event,
    OrderFact,
    PaymentEvent,
    RawCallback,
    RelationshipFact,
    StaffDaySnapshot,
    StaffDelta,
)
from siyu.ops.trace import FLOW, Found, Trace, absences, describe, parse_since

NOW = 1_767_225_600_000
"""2026-01-01 00:00 UTC."""
PERSONAL = "wmSomebody"
MONEY = 987_654

PLACES: dict[type[Event], str] = {
    RawCallback: "callbacks.raw",
    ContactEvent: "contact.events",
    PaymentEvent: "payment.events",
    RelationshipFact: "relationship.facts",
    OrderFact: "order.facts",
    StaffDelta: "staff.deltas",
    StaffDaySnapshot: "performance.snapshots",
    Action: "actions.welcome",
    ActionOutcome: "action.outcomes",
}
SAID = {
    "event": "change_external_contact",
    "change_type": "add_external_contact",
    "known": True,
    "change": "add",
    "source": "externalpay",
    "status": "done",
    "credit_rule": "owner",
    "day": "2026-01-01",
    "counters": {"orders": -1, "gross_fen": -MONEY, "adds": 1},
    "lane": "welcome",
    "endpoint": "externalcontact/send_welcome_msg",
    "reason": "welcome.default@1",
    "detail": "ok",
    "revision": 3,
    "errcode": 41051,
    "calls": 2,
    "payment_type": 1,
}


def a(event_type: type[Event], **changes: Any) -> Event:
    """A record whose every text is personal, every number an amount, but for what may be said."""
    values: dict[str, Any] = {}
    for name, kind in zip(event_type.__struct_fields__, msgspec.inspect.type_info(event_type).fields, strict=True):
        match kind.type:
            case msgspec.inspect.StrType() | msgspec.inspect.LiteralType():
                values[name] = PERSONAL
            case msgspec.inspect.IntType():
                values[name] = MONEY
            case msgspec.inspect.BytesType():
                values[name] = PERSONAL.encode()
            case msgspec.inspect.BoolType():
                values[name] = True
            case msgspec.inspect.ListType() as items:
                values[name] = [MONEY if isinstance(items.item_type, msgspec.inspect.IntType) else PERSONAL]
    known = {name: value for name, value in SAID.items() if name in event_type.__struct_fields__}
    return event_type(**{**values, **known, **changes})


def found(event_type: type[Event], offset: int = 0, **changes: Any) -> Found:
    return Found(PLACES[event_type], 1, offset, NOW + offset, PERSONAL.encode(), a(event_type, **changes))


def letter(service: str) -> Found:
    headers = {"origin.topic": "contact.events", "error.class": "ValueError", "attempt": "2", "other": PERSONAL}
    return Found(f"dlq.{service}", 0, 0, NOW, PERSONAL.encode(), None, headers)


@pytest.mark.parametrize("event_type", PLACES)
def test_a_record_is_described_without_whom_it_is_about_and_without_amounts(event_type: type[Event]) -> None:
    shown = json.dumps(Trace("id", NOW, [found(event_type), letter("journey")], []).as_json())
    assert event_type.__name__ in shown
    assert PERSONAL not in shown
    assert str(MONEY) not in shown


def test_what_tells_records_apart_is_described() -> None:
    assert describe(found(RawCallback)) == {
        "callback": "change_external_contact.add_external_contact",
        "unknown_type": False,
    }
    assert describe(found(ContactEvent, welcome_code="")) == {"change": "add", "welcome_code": False}
    assert describe(found(StaffDelta)) == {"day": "2026-01-01", "counters": ["+adds", "-gross_fen", "-orders"]}
    assert describe(found(OrderFact)) == {"revision": 3, "credit": "owner", "paid": True, "refunds": 1}
    outcome = describe(found(ActionOutcome))
    assert outcome == {"status": "done", "detail": "ok", "errcode": 41051, "calls": 2}
    assert describe(letter("journey")) == {
        "origin.topic": "contact.events",
        "error.class": "ValueError",
        "attempt": "2",
    }


def test_further_copies_of_the_event_are_marked() -> None:
    records = [found(RawCallback), found(ContactEvent), found(StaffDelta, 1), found(StaffDelta, 2)]
    again = [found(RawCallback, 3), found(ContactEvent, 4)]
    assert Trace("id", NOW, [*records, *again], []).repeats == again


def why(records: list[Found], to_go: dict[str, int] | None = None, cut: set[str] | None = None) -> dict[str, str]:
    """First missing topic → why."""
    return {absence.topics[0]: absence.why for absence in absences(records, to_go or {}, cut or set())}


WHOLE = [
    found(RawCallback),
    found(ContactEvent),
    found(RelationshipFact),
    found(StaffDelta),
    found(StaffDaySnapshot),
    found(Action),
    found(ActionOutcome),
]


def without(*event_types: type[Event]) -> list[Found]:
    return [record for record in WHOLE if not isinstance(record.record, event_types)]


AFTER_JOURNEY = (RelationshipFact, StaffDelta, StaffDaySnapshot)


def test_nothing_is_missing_of_what_went_all_the_way() -> None:
    assert why(WHOLE) == {}
    payment = [found(PaymentEvent), found(OrderFact), found(StaffDelta), found(StaffDaySnapshot)]
    assert why(payment) == {}
    no_code = [found(ContactEvent, welcome_code=""), *without(ContactEvent, Action, ActionOutcome)]
    assert why(no_code) == {}


@pytest.mark.parametrize(
    ("gone", "topic", "service", "otherwise"),
    [
        (AFTER_JOURNEY, "relationship.facts", "journey", "repeat"),
        ((StaffDaySnapshot,), "performance.snapshots", "performance", "lost"),
        ((Action, ActionOutcome), "actions.welcome", "planner", "repeat"),
        ((ActionOutcome,), "action.outcomes", "executor", "lost"),
    ],
)
def test_what_is_missing_is_waited_for_dead_too_old_or_worth_a_look(
    gone: tuple[type[Event], ...], topic: str, service: str, otherwise: str
) -> None:
    left = without(*gone)
    everything = {"relationship.facts", "order.facts", "staff.deltas", topic}
    assert why(left, {service: 3}, everything) == {topic: "waiting"}
    assert why([*left, letter(service)], {service: 0}) == {}
    assert why(left, {service: 0}, everything) == {topic: "retention"}
    assert why(left, {service: 0}) == {topic: otherwise}


def test_one_snapshot_of_two_deltas_is_not_enough() -> None:
    (absence,) = absences([*WHOLE, found(StaffDelta, 5)], {"performance": 0}, set())
    assert absence.why == "lost"
    assert "1 of 2" in absence.text


def test_an_edit_is_not_expected_to_change_anything() -> None:
    assert why([found(RawCallback), found(ContactEvent, change="edit")])["relationship.facts"] == "no_effect"


def test_a_raw_callback_alone_is_of_an_unknown_type_or_half_written() -> None:
    assert why([found(RawCallback, known=False)]) == {"contact.events": "unknown_type"}
    assert why([found(RawCallback)]) == {"contact.events": "lost"}
    assert why(without(RawCallback)) == {"callbacks.raw": "retention"}


def test_only_topics_there_are_can_be_missing() -> None:
    from siyu.events import schemas_dir
    from siyu.ops.topics import load_topics

    assert set(FLOW) <= set(load_topics(schemas_dir() / "topics.yaml", "local"))


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("90s", NOW - 90_000),
        ("24h", NOW - 86_400_000),
        ("7d", NOW - 7 * 86_400_000),
        ("2025-12-31T23:00:00+00:00", NOW - 3_600_000),
        ("2026-01-01T08:00", NOW),  # Shanghai
        ("2026-01-01", NOW - 8 * 3_600_000),
    ],
)
def test_since_is_a_duration_or_a_time(text: str, ms: int) -> None:
    assert parse_since(text, NOW) == ms
    assert datetime.fromtimestamp(NOW / 1000, UTC).isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize("text", ["", "24", "h", "1w", "-1h", "yesterday", "2026-13-01"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither a duration"):
        parse_since(text, NOW)
