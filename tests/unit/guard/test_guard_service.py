"""What the guard's step does beside the judgement: keys, timers, topics, and what it says and does not say."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.guard.domain import Account
from services.guard.metrics import GuardMetrics
from services.guard.service import AUDIT, MOST_AHEAD_MS, REVIEW, SIGNALS, STATE, Desk, processor
from services.guard.settings import Settings
from siyu.events import Event, GuardSignal, GuardState, StaffDelta, schemas_dir
from siyu.events.business_time import business_day
from siyu.guard.rules import load_rules
from siyu.stream import Context, Record, Timer

NOON = 1_790_049_600_000
DAY = 86_400_000
KEY = "ww1|mei"
BOOK = load_rules(schemas_dir() / "rules" / "guard.yaml")


def ban(at: int = NOON, signal_id: str = "b") -> GuardSignal:
    return GuardSignal(signal_id, "ww1", "mei", "ban", 1, "", "", 0, "test", "", "", at, 0)


def record(value: Event, topic: str = SIGNALS) -> Record:
    return Record(topic, 0, 7, NOON, KEY, value)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def desk(registry: CollectorRegistry, *, moved: bool = False) -> Desk:
    return Desk(BOOK, GuardMetrics(registry), log_events=True, moved=moved)


def states(ctx: Context) -> list[GuardState]:
    return [value for topic, _, value in ctx.emitted if topic == STATE]


def test_a_ban_leads_to_a_state_an_audit_and_a_sign_for_the_corp(registry: CollectorRegistry) -> None:
    ctx = Context(NOON)
    desk(registry).step(KEY, record(ban()), None, ctx)
    assert [(topic, key) for topic, key, _ in ctx.emitted] == [(STATE, KEY), (AUDIT, KEY), (SIGNALS, "ww1|")]
    assert states(ctx)[0].standing == "cooling"
    assert ctx.timers[REVIEW] == NOON + DAY


def test_the_timer_ends_the_cool_down_and_looks_again_until_all_is_clear(registry: CollectorRegistry) -> None:
    guard, ctx = desk(registry), Context(NOON)
    account = guard.step(KEY, record(ban()), None, ctx)
    seen = []
    while ctx.timers:
        due = ctx.timers[REVIEW]
        ctx = Context(due)
        assert account is not None
        account = guard.on_timer(KEY, Timer(REVIEW, due), account, ctx)
        seen += [state.standing for state in states(ctx)]
    assert seen[0] == "watched"
    assert seen[-1] == "clear"
    assert account is not None
    assert account.published.step == 0


def test_where_business_time_is_moved_a_timer_waits_as_long_as_business_time_would(registry: CollectorRegistry) -> None:
    guard, ctx = desk(registry, moved=True), Context(NOON + 400 * DAY)
    account = guard.step(KEY, record(ban()), None, ctx)
    assert ctx.timers[REVIEW] == NOON + 401 * DAY
    assert account is not None
    later = Context(NOON + 401 * DAY)
    guard.on_timer(KEY, Timer(REVIEW, NOON + 401 * DAY), account, later)
    assert states(later)[0].updated_ms == NOON + DAY
    assert states(later)[0].standing == "watched"


def test_an_old_ban_that_is_over_cools_nobody_today(registry: CollectorRegistry) -> None:
    ctx = Context(NOON)
    desk(registry).step(KEY, record(ban(NOON - 10 * DAY)), None, ctx)
    assert [state.standing for state in states(ctx)] == ["clear"]


@pytest.mark.parametrize(
    "wrong",
    [
        record(GuardSignal("b", "ww2", "mei", "ban", 1, "", "", 0, "", "", "", NOON, 0)),
        record(StaffDelta("ww1", "other", business_day(NOON), {"adds": 1}, NOON, NOON, "e"), "staff.deltas"),
        record(GuardState("ww1", "mei", "clear", 0, 0, 100, 0, "", "", 1, NOON)),
        record(ban(NOON + MOST_AHEAD_MS + 1)),
    ],
)
def test_a_record_of_another_key_type_or_time_is_a_dead_letter(registry: CollectorRegistry, wrong: Record) -> None:
    ctx = Context(NOON)
    with pytest.raises(ValueError) as refused:
        desk(registry).step(KEY, wrong, None, ctx)
    assert "mei" not in str(refused.value)
    assert not ctx.emitted


def test_a_repeat_and_what_does_not_concern_it_write_nothing(registry: CollectorRegistry) -> None:
    guard = desk(registry)
    account = guard.step(KEY, record(ban()), None, Context(NOON))
    for value, topic in (
        (ban(), SIGNALS),
        (StaffDelta("ww1", "mei", business_day(NOON), {"orders": 1}, NOON, NOON, "e"), "staff.deltas"),
    ):
        ctx = Context(NOON)
        assert guard.step(KEY, record(value, topic), account, ctx) is account
        assert not ctx.emitted
        assert not ctx.timers


def test_many_signs_do_not_move_the_timer_with_each(registry: CollectorRegistry) -> None:
    guard, ctx = desk(registry), Context(NOON)
    account: Account | None = None
    moved = 0
    for n in range(20):
        ctx.timer_set = False
        sign = GuardSignal(f"c{n}", "ww1", "mei", "complaint", 1, "", "", 0, "", "", "", NOON + n, 0)
        account = guard.step(KEY, record(sign), account, ctx)
        moved += ctx.timer_set
    assert moved <= 2


def test_metrics_name_kinds_and_decisions_and_nobody(registry: CollectorRegistry) -> None:
    desk(registry).step(KEY, record(ban()), None, Context(NOON))
    text = generate_latest(registry).decode()
    assert 'siyu_guard_inputs_total{kind="ban",result="applied"} 1.0' in text
    assert 'siyu_guard_decisions_total{level="staff",what="cooled"} 1.0' in text
    assert 'siyu_guard_tells_total{kind="staff_banned"} 1.0' in text
    assert "mei" not in text
    assert "ww1" not in text


def test_the_processor_is_declared_with_what_the_topics_file_declares(registry: CollectorRegistry) -> None:
    built = processor(Settings.model_construct(), registry)
    assert built.changelog == "guard.changelog"
    assert built.inputs == ("staff.deltas", "guard.signals")
