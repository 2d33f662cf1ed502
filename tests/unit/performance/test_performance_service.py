"""The step sends the day under the staff member's key, refuses what is not its own, and logs no one's name."""

import json

import pytest
from prometheus_client import CollectorRegistry

from services.performance.service import build_step, processor
from services.performance.settings import Settings
from siyu.events import StaffDelta, schemas_dir
from siyu.ops.logging import configure_logging
from siyu.ops.topics import load_topics
from siyu.stream import Context, Record

DELTA = StaffDelta(
    corp_id="ww1",
    staff_id="staff-zhang",
    day="2026-01-01",
    counters={"orders": 1, "gross_fen": 100},
    event_time_ms=1_767_240_000_000,
    received_at_ms=1_767_240_000_500,
    caused_by="e-paid",
)


def record(value: object) -> Record:
    return Record("staff.deltas", 2, 7, 1_767_240_002_000, "", value)


def test_a_delta_becomes_the_day_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("performance")
    step, ctx = build_step(log_events=True), Context()
    state = step("ww1|staff-zhang", record(DELTA), None, ctx)
    step("ww1|staff-zhang", record(DELTA), state, ctx)
    assert [(topic, key, s.orders, s.revision) for topic, key, s in ctx.emitted] == [
        ("performance.snapshots", "ww1|staff-zhang", 1, 1),
        ("performance.snapshots", "ww1|staff-zhang", 2, 2),
    ]
    out = capsys.readouterr().out
    assert [json.loads(line)["event_id"] for line in out.splitlines()] == ["e-paid", "e-paid"]
    assert "staff-zhang" not in out


@pytest.mark.parametrize("value", [DELTA, None])
def test_a_record_under_a_foreign_key_or_of_another_kind_is_refused(value: object) -> None:
    ctx = Context()
    with pytest.raises(ValueError) as refused:
        build_step(log_events=False)("ww1|staff-wang", record(value), None, ctx)
    assert "staff-" not in str(refused.value)
    assert ctx.emitted == []


def test_its_topics_are_declared() -> None:
    declared = load_topics(schemas_dir() / "topics.yaml", "local")
    p = processor(Settings(), CollectorRegistry())
    assert {*p.inputs, *p.outputs, p.changelog, p.dead_letters} <= declared.keys()
