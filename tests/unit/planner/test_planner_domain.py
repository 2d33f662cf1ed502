from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.planner.domain import MEMORY_CODES, MEMORY_MS, CustomerPlan, plan
from services.planner.rules import RuleError, WelcomeRule, WelcomeVersion, load_welcome_rule
from siyu.events import Action, ContactEvent, schemas_dir

RULE = WelcomeRule(
    "welcome.default",
    "externalcontact/send_welcome_msg",
    20_000,
    (WelcomeVersion("a", 0, "早上好"), WelcomeVersion("b", 50_000_000_000, "new")),
)
START = 100_000_000_000


def event(**changes: object) -> ContactEvent:
    fields: dict[str, object] = {
        "event_id": "e1",
        "corp_id": "ww1",
        "change": "add",
        "staff_id": "s1",
        "customer_id": "c1",
        "event_time_ms": START,
        "received_at_ms": START + 700,
        "state": "",
        "welcome_code": "code",
        "fail_reason": "",
    }
    return ContactEvent(**(fields | changes))  # type: ignore[arg-type]


def test_a_new_customer_with_a_code_gets_one_welcome() -> None:
    state, action = plan(None, event(), RULE)
    assert action is not None
    assert msgspec.json.decode(action.payload) == {"welcome_code": "code", "text": {"content": "new"}}
    assert (action.lane, action.endpoint) == ("welcome", "externalcontact/send_welcome_msg")
    assert (action.subject, action.staff_id, action.customer_id) == ("ww1|c1", "s1", "c1")
    assert (action.created_ms, action.deadline_ms, action.not_before_ms) == (START, START + 20_000, 0)
    assert action.trigger_received_at_ms == START + 700
    assert (action.reason, action.caused_by) == ("welcome.default@b", "e1")
    again, nothing = plan(state, event(event_id="other", received_at_ms=START + 9_000), RULE)
    assert nothing is None
    assert again is state


@pytest.mark.parametrize(
    "changes",
    [
        {"welcome_code": ""},
        {"change": "delete_by_customer"},
        {"change": "delete_by_staff"},
        {"change": "edit"},
        {"change": "transfer_fail"},
    ],
)
def test_nothing_else_does(changes: dict[str, object]) -> None:
    state = plan(None, event(event_time_ms=START - 1, welcome_code="earlier"), RULE)[0]
    assert plan(None, event(**changes), RULE) == (None, None)
    new, action = plan(state, event(**changes), RULE)
    assert new is state
    assert action is None


def test_a_half_add_does() -> None:
    assert plan(None, event(change="add_half"), RULE)[1] is not None


def test_the_wording_of_the_events_time_is_used() -> None:
    action = plan(None, event(event_time_ms=49_999_999_999), RULE)[1]
    assert action is not None
    assert action.reason == "welcome.default@a"


def test_the_same_intent_has_the_same_id_and_another_has_another() -> None:
    def action_id(**changes: object) -> str:
        action = plan(None, event(**changes), RULE)[1]
        assert action is not None
        return action.action_id

    assert action_id(received_at_ms=1, event_id="x") == action_id()
    others = [{"corp_id": "ww2"}, {"staff_id": "s2"}, {"customer_id": "c2"}, {"welcome_code": "d"}]
    assert len({action_id(), *(action_id(**change) for change in others)}) == 5


deliveries = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 3 * MEMORY_MS // 3_600_000), st.sampled_from(["s1", "s2"])),
    max_size=150,
)


@given(deliveries)
def test_no_code_ever_makes_two_actions_and_the_state_stays_small(codes: list[tuple[int, int, str]]) -> None:
    """Any order, any repeats, over three times the memory."""
    state: CustomerPlan | None = None
    made: list[Action] = []
    for code, hour, staff in codes:
        # A code belongs to one event: its time is part of what it is.
        before = msgspec.json.encode(state)
        old = state
        state, action = plan(
            state,
            event(welcome_code=f"{code}.{hour}", staff_id=staff, event_time_ms=START + hour * 3_600_000 + code),
            RULE,
        )
        assert msgspec.json.encode(old) == before, "a step never changes the state it was given"
        if action is not None:
            made.append(action)
        else:
            assert state is old
        if state is not None:
            assert len(state.recent) <= MEMORY_CODES
    assert len({a.action_id for a in made}) == len(made)


def test_within_the_memory_the_order_of_arrival_does_not_matter() -> None:
    events = [event(welcome_code=f"w{i}", event_time_ms=START + i * 60_000) for i in range(20)]
    for order in (events, events[::-1], events[::2] + events[1::2]):
        state, ids = None, set()
        for item in order + order:
            state, action = plan(state, item, RULE)
            if action is not None:
                ids.add(action.action_id)
        assert len(ids) == 20


def test_the_rule_of_this_checkout() -> None:
    rule = load_welcome_rule(schemas_dir() / "rules" / "welcome.yaml")
    assert rule.ttl_ms == 20_000
    assert rule.at(1_290_000_000_000).content == rule.versions[0].content
    assert "您好" in rule.versions[0].content
    assert "Hello" in rule.versions[0].content


GOOD = """
id: welcome.default
endpoint: {endpoint}
ttl_ms: {ttl}
versions:
  - {{version: "1", effective_from: 2026-01-01, source: s, text: {{zh: "{zh}", en: ""}}}}
  - {{version: "{second}", effective_from: {day}, source: s, text: {{zh: "b", en: "c"}}}}
"""
FINE = {"endpoint": "externalcontact/send_welcome_msg", "ttl": 20000, "zh": "好", "second": "2", "day": "2026-02-01"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": "externalcontact/hello"}, "unknown endpoint"),
        ({"ttl": 0}, "positive ttl_ms"),
        ({"ttl": "soon"}, "Expected `int`"),
        ({"zh": ""}, "0 bytes"),
        ({"zh": "好" * 1334}, "4002 bytes"),
        ({"day": "2026-01-01"}, "ascending"),
        ({"second": "1"}, "one name"),
    ],
)
def test_an_unusable_rule_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "welcome.yaml"
    path.write_text(GOOD.format(**FINE))
    assert len(load_welcome_rule(path).versions) == 2
    path.write_text(GOOD.format(**(FINE | changes)))
    with pytest.raises(RuleError, match=message):
        load_welcome_rule(path)
