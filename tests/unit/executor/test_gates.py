import json
from collections.abc import Callable
from typing import TypedDict

import pytest

from services.executor.control import ControlTable
from services.executor.domain import End
from services.executor.gates import SUPPRESSIONS_FRESH_MS, Gates, Hold
from services.executor.governor import Claim
from services.executor.guard import Breaker, GuardTable
from services.executor.suppression import SuppressionTable
from services.executor.work import Ask
from siyu.actions.control import cancel_record, pause_record, resume_record
from siyu.content import default_folder, load_rules
from siyu.events import Action, ControlRecord, GuardState, Lane, Suppression, codec, schemas_dir
from siyu.events.ids import staff_key
from siyu.guard.rules import load_rules as load_guard_rules

NOW_MS = 1_795_000_000_000
WELCOME, REMARK, MASS = "externalcontact/send_welcome_msg", "externalcontact/remark", "externalcontact/add_msg_template"
RESULTS = "externalcontact/get_groupmsg_send_result"


class Words(TypedDict):
    reason: str
    author: str


WORDS: Words = {"reason": "a wrong text", "author": "li"}
CONTENT = load_rules(default_folder())
GUARD = load_guard_rules(schemas_dir() / "rules" / "guard.yaml")


class Desk:
    """The gates of one shard and the tables behind them."""

    def __init__(self) -> None:
        self.control, self.suppressions, self.guard = ControlTable(), SuppressionTable(), GuardTable(GUARD)
        self.breaker = Breaker(GUARD, self.guard, shard=0, incarnation="i1")
        self.age_ms = 0
        self.wall = NOW_MS
        self.stopped_by: list[str] = []
        self.gates = Gates(
            control=self.control,
            suppressions=self.suppressions,
            guard=self.guard,
            breaker=self.breaker,
            content=CONTENT,
            tables=self,
            wall_ms=lambda: self.wall,
            refused_content=self.stopped_by.append,
        )

    def fresh(self, topic: str, within_ms: int) -> bool:
        assert topic == "suppressions"
        return self.age_ms <= within_ms

    def say(self, record: ControlRecord) -> None:
        self.control.apply(record.id.encode(), codec().encode(record))

    def pause(self, corp_id: str = "", lane: str = "", campaign_id: str = "") -> ControlRecord:
        record = pause_record(corp_id=corp_id, lane=lane, campaign_id=campaign_id, **WORDS, wall_ms=NOW_MS)
        self.say(record)
        return record

    def suppress(self, customer_id: str, active: int = 1) -> None:
        self.suppressions.put(
            Suppression(
                corp_id="ww1",
                customer_id=customer_id,
                active=active,
                reason="asked",
                source="form",
                event_time_ms=NOW_MS + 1 - active,
                written_at_ms=NOW_MS,
            )
        )


@pytest.fixture
def desk() -> Desk:
    return Desk()


def ask(action: Action, endpoint: str = "") -> Ask:
    return Ask(
        key=f"{action.action_id}#call",
        endpoint=endpoint or action.endpoint,
        payload=action.payload,
        lane=action.lane,
        deadline_ms=action.deadline_ms,
        claim=Claim(action.corp_id, "1", endpoint or action.endpoint, action.staff_id, action.customer_id),
        durable=False,
        timeout_ms=4_000,
    )


Make = Callable[..., Action]


def test_nothing_stands_against_an_ordinary_call(desk: Desk, action: Make) -> None:
    given = action()
    assert desk.gates.lane_held("ww1", WELCOME, "welcome", NOW_MS) == 0
    assert desk.gates.campaign_filter("ww1", "bulk") is None
    assert desk.gates.action_refused(given, NOW_MS) is None
    assert desk.gates.ask_held(given, ask(given), NOW_MS) is None
    assert desk.gates.allowance("ww1", "s1", NOW_MS) == 100


@pytest.mark.parametrize(
    ("scope", "lane", "held"),
    [
        ({}, "welcome", True),
        ({"corp_id": "ww1"}, "welcome", True),
        ({"corp_id": "ww2"}, "welcome", False),
        ({"lane": "welcome"}, "welcome", True),
        ({"lane": "bulk"}, "welcome", False),
        ({"corp_id": "ww1", "lane": "bulk"}, "bulk", True),
    ],
)
def test_a_pause_holds_the_lane_and_calls_of_actions_under_way(
    desk: Desk, action: Make, scope: dict[str, str], lane: Lane, held: bool
) -> None:
    pause = desk.pause(**scope)
    given = action(lane=lane)
    assert (desk.gates.lane_held("ww1", WELCOME, lane, NOW_MS) > NOW_MS) == held
    assert isinstance(desk.gates.ask_held(given, ask(given), NOW_MS), Hold) == held
    desk.say(resume_record(pause, **WORDS, wall_ms=NOW_MS))
    assert desk.gates.lane_held("ww1", WELCOME, lane, NOW_MS) == 0
    assert desk.gates.ask_held(given, ask(given), NOW_MS) is None


def test_a_paused_campaign_holds_its_actions_and_the_lane_goes_on(desk: Desk, action: Make) -> None:
    desk.pause(campaign_id="summer")
    may = desk.gates.campaign_filter("ww1", "bulk")
    assert may is not None
    assert {name: may(name) for name in ("summer", "winter", "")} == {"summer": False, "winter": True, "": True}
    assert desk.gates.lane_held("ww1", REMARK, "bulk", NOW_MS) == 0
    given = action(lane="bulk", endpoint=REMARK, campaign_id="summer")
    assert isinstance(desk.gates.ask_held(given, ask(given), NOW_MS), Hold)


def test_a_pause_ends_by_itself_when_it_says_so(desk: Desk) -> None:
    desk.say(pause_record(corp_id="ww1", **WORDS, wall_ms=NOW_MS, expires_ms=NOW_MS + 1_000))
    assert desk.gates.lane_held("ww1", WELCOME, "welcome", NOW_MS) > 0
    desk.wall = NOW_MS + 1_001
    assert desk.gates.lane_held("ww1", WELCOME, "welcome", NOW_MS + 1_001) == 0


def test_what_became_of_a_send_is_asked_through_a_pause_of_operators(desk: Desk, action: Make) -> None:
    desk.pause(corp_id="ww1")
    given = action(endpoint=MASS, lane="bulk")
    assert isinstance(desk.gates.ask_held(given, ask(given), NOW_MS), Hold)
    assert desk.gates.ask_held(given, ask(given, RESULTS), NOW_MS) is None


def test_a_cancel_is_no_pause(desk: Desk) -> None:
    desk.say(cancel_record(campaign_id="summer", **WORDS, wall_ms=NOW_MS))
    assert desk.gates.campaign_filter("ww1", "bulk") is None


def test_a_suppressed_person_is_not_contacted_at_either_gate_and_may_be_again(desk: Desk, action: Make) -> None:
    given = action()
    end = End("suppressed", "person_suppressed")
    assert desk.gates.ask_held(given, ask(given), NOW_MS) is None
    desk.suppress("c1")
    assert desk.gates.ask_held(given, ask(given), NOW_MS) == end, "also once it is under way"
    assert desk.gates.action_refused(given, NOW_MS) == (end, b"")
    assert desk.gates.action_refused(action(customer_id="c2"), NOW_MS) is None
    assert desk.gates.action_refused(action(corp_id="ww2"), NOW_MS) is None
    desk.suppress("c1", active=0)
    assert desk.gates.action_refused(given, NOW_MS) is None


def test_a_call_that_puts_nothing_before_the_person_is_no_contact(desk: Desk, action: Make) -> None:
    desk.suppress("c1")
    given = action(endpoint=REMARK)
    assert desk.gates.action_refused(given, NOW_MS) is None
    assert desk.gates.ask_held(given, ask(given), NOW_MS) is None


@pytest.mark.parametrize("endpoint", [WELCOME, MASS])
def test_nobody_is_contacted_while_the_suppressions_may_be_old(desk: Desk, action: Make, endpoint: str) -> None:
    given = action(endpoint=endpoint)
    desk.age_ms = SUPPRESSIONS_FRESH_MS
    assert desk.gates.ask_held(given, ask(given), NOW_MS) is None
    desk.age_ms = SUPPRESSIONS_FRESH_MS + 1
    held = desk.gates.ask_held(given, ask(given), NOW_MS)
    assert isinstance(held, Hold)
    assert held.until_ms > NOW_MS
    other = action(endpoint=REMARK)
    assert desk.gates.ask_held(other, ask(other), NOW_MS) is None
    assert SUPPRESSIONS_FRESH_MS <= 5_000, "a withdrawal stops the call within five seconds"


def test_a_text_the_rules_block_ends_the_action_and_says_where_but_never_what(desk: Desk, action: Make) -> None:
    text = "转发到朋友圈即可领取红包"
    given = action(payload=json.dumps({"welcome_code": "w", "text": {"content": text}}).encode())
    refused = desk.gates.action_refused(given, NOW_MS)
    assert refused is not None
    end, evidence = refused
    assert end == End("blocked", "content_blocked")
    told = json.loads(evidence)["content"]
    assert {finding["rule"] for finding in told} == set(desk.stopped_by) != set()
    assert all(0 <= finding["span"][0] < finding["span"][1] for finding in told)
    assert text not in evidence.decode()


def test_what_the_guard_stopped_is_blocked_and_its_pace_shrinks(desk: Desk, action: Make) -> None:
    state = GuardState(
        corp_id="ww1",
        staff_id="s1",
        standing="stopped",
        step=0,
        until_ms=0,
        allowance_percent=0,
        risk_milli=1_000,
        reason="complaints",
        lift_requested_by="",
        revision=1,
        updated_ms=NOW_MS,
    )
    assert desk.guard.apply(staff_key("ww1", "s1").encode(), codec().encode(state))
    given = action()
    refused = desk.gates.action_refused(given, NOW_MS)
    assert refused is not None
    assert refused[0].status == "blocked"
    held = desk.gates.ask_held(given, ask(given), NOW_MS)
    assert isinstance(held, End)
    assert held.status == "blocked"
    assert desk.gates.action_refused(action(staff_id="s2"), NOW_MS) is None
    assert desk.gates.allowance("ww1", "s1", NOW_MS) < 100


def test_an_api_that_fails_again_and_again_rests_and_then_one_call_tries(desk: Desk, action: Make) -> None:
    given = action()
    asked = ask(given)
    for _ in range(200):
        desk.gates.answered(given, asked, None, NOW_MS)
    until_ms = desk.gates.lane_held("ww1", WELCOME, "welcome", NOW_MS)
    assert until_ms > NOW_MS
    assert desk.gates.ask_held(given, asked, NOW_MS) == Hold(until_ms)
    assert desk.gates.lane_held("ww2", WELCOME, "welcome", NOW_MS) == 0
    assert desk.gates.lane_held("ww1", REMARK, "welcome", NOW_MS) == 0
    assert desk.gates.ask_held(given, asked, until_ms) is None
    desk.gates.calling(asked, until_ms)
    assert isinstance(desk.gates.ask_held(given, asked, until_ms), Hold), "while the one call tries"
    desk.gates.answered(given, asked, 0, until_ms + 100)
    assert desk.gates.ask_held(given, asked, until_ms + 100) is None


def test_what_was_written_to_people_is_told_once_when_its_minute_is_over(desk: Desk, action: Make) -> None:
    given = action(campaign_id="summer")
    for _ in range(3):
        desk.gates.answered(given, ask(given), 0, NOW_MS)
    desk.gates.answered(given, ask(given), 41051, NOW_MS)  # it touched nobody
    assert not desk.gates.urgent
    assert not desk.gates.due(NOW_MS)
    later_ms = NOW_MS + 60_000
    assert desk.gates.due(later_ms)
    signals = desk.gates.signals(later_ms)
    assert sum(signal.count for signal in signals if signal.staff_id == "s1") == 3
    assert not desk.gates.due(later_ms)
    assert desk.gates.signals(later_ms) == []


def test_the_reads_of_a_person_count_as_no_touch(desk: Desk, action: Make) -> None:
    given = action(endpoint=REMARK)
    desk.gates.answered(given, ask(given), 0, NOW_MS)
    assert desk.gates.signals(NOW_MS + 60_000) == []
