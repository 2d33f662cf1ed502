"""The executor as a process, on the real broker: whatever happens to it, every action has one outcome."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable

import httpx2
import pytest
from executor_process import Topics, Worker, eventually
from fake_wecom import Call, FakeWecom, Hang, Slow

from deploy.local.kafka import LocalKafka
from siyu.events import Action, ActionOutcome, ContactEvent
from siyu.events.ids import customer_key

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

WELCOME = "externalcontact/send_welcome_msg"
BILLS = "externalpay/get_bill_list"
Make = Callable[..., Worker]


def now_ms() -> int:
    return int(time.time() * 1000)


def welcome(prefix: str, number: int, **changes: object) -> Action:
    fields: dict[str, object] = {
        "action_id": f"{prefix}-{number}",
        "lane": "welcome",
        "corp_id": ("ww1", "ww2")[number % 2],
        "endpoint": WELCOME,
        "subject": f"ww1|secret-customer-{number}",
        "staff_id": "secret-staff",
        "customer_id": f"secret-customer-{number}",
        "payload": json.dumps({"welcome_code": f"secret-code-{prefix}-{number}"}).encode(),
        "reason": "r@1",
        "caused_by": f"event-{number}",
        "created_ms": now_ms(),
        "not_before_ms": 0,
        "deadline_ms": now_ms() + 120_000,
        "trigger_received_at_ms": now_ms(),
    }
    return Action(**(fields | changes))  # type: ignore[arg-type]


def bills(prefix: str, number: int) -> Action:
    return welcome(prefix, number, lane="sync", endpoint=BILLS, payload=b'{"limit": 10}')


class SingleUseCodes:
    """send_welcome_msg as it is: a code works once."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.used: Counter[str] = Counter()

    def __call__(self, call: Call) -> Slow:
        assert call.body is not None
        code = call.body["welcome_code"]
        self.used[code] += 1
        return Slow(self._random.uniform(0.0, 0.03), {"errcode": 0 if self.used[code] == 1 else 41051})


def by_action(outcomes: list[ActionOutcome]) -> Counter[str]:
    return Counter(outcome.action_id for outcome in outcomes)


async def test_killed_at_random_during_calls_every_action_has_exactly_one_outcome(
    wecom: FakeWecom, worker: Make, topics: Topics
) -> None:
    codes = SingleUseCodes(7)
    wecom.on(WELCOME, codes)
    wecom.on(BILLS, Slow(0.02, {"errcode": 0, "bill_list": []}))
    dice = random.Random(11)
    process = worker("services.executor", wecom.base_url)
    actions = [welcome("kill", number) for number in range(300)] + [bills("kill", number) for number in range(300, 340)]
    topics.send(*actions)
    for _ in range(4):
        process.start()
        before = len(wecom.called(WELCOME))
        await wecom.wait_for_calls(WELCOME, before + dice.randint(1, 60))
        process.kill()
    process.start()
    outcomes = await topics.until_outcomes("kill", len(actions), process.log)
    assert await process.stop() == 0
    assert by_action(outcomes) == Counter({action.action_id: 1 for action in actions})
    assert by_action(topics.outcomes("kill")) == by_action(outcomes), "and none came afterwards"
    assert {outcome.status for outcome in outcomes} <= {"done", "already_done"}
    # Each code was accepted once; what was called twice is what the kills interrupted.
    assert len(codes.used) == 300
    already = [outcome for outcome in outcomes if outcome.status == "already_done"]
    assert len(already) <= sum(count > 1 for count in codes.used.values())
    reads = [outcome for outcome in outcomes if outcome.lane == "sync"]
    assert {(outcome.status, outcome.response) for outcome in reads} == {("done", b'{"errcode": 0, "bill_list": []}')}


async def test_a_stop_finishes_what_is_under_way_and_leaves_the_rest_untouched(
    wecom: FakeWecom, worker: Make, topics: Topics
) -> None:
    codes = SingleUseCodes(3)
    wecom.on(WELCOME, codes)
    process = worker("services.executor", wecom.base_url)
    actions = [welcome("stop", number) for number in range(200)]
    topics.send(*actions)
    for _ in range(2):
        process.start()
        await wecom.wait_for_calls(WELCOME, len(wecom.called(WELCOME)) + 20)
        assert await process.stop() == 0
    assert 0 < len(topics.outcomes("stop")) < 200
    process.start()
    outcomes = await topics.until_outcomes("stop", 200, process.log)
    assert await process.stop() == 0
    assert by_action(outcomes) == Counter({action.action_id: 1 for action in actions})
    assert {outcome.status for outcome in outcomes} <= {"done", "already_done"}


async def test_bad_and_late_actions_end_without_a_call_and_nothing_gets_stuck(
    wecom: FakeWecom, worker: Make, topics: Topics
) -> None:
    late = welcome("bad", 2, deadline_ms=now_ms() - 1)
    unknown = welcome("bad", 4, endpoint="externalcontact/del_external_contact")
    nobody = welcome("bad", 6, endpoint="externalcontact/add_msg_template")
    garbled = welcome("bad", 8, payload=b"{")
    good = welcome("bad", 10)
    topics.send(late)
    key = f"ww1|{WELCOME}".encode()
    for poison in (b"\x00\x00\x00\x00\x63junk", b"", b"no avro at all"):
        topics.send_raw("actions.welcome", key, poison)
    topics.send_raw("actions.welcome", key, None)
    topics.send(unknown, nobody, garbled, good)
    process = worker("services.executor", wecom.base_url)
    process.start()
    outcomes = await topics.until_outcomes("bad", 5, process.log)
    assert await process.stop() == 0
    # The token of an earlier test may still be in the topic; then the good one is called again with a new one.
    assert {o.action_id: (o.status, o.detail, min(o.calls, 1)) for o in outcomes} == {
        late.action_id: ("expired", "deadline_passed", 0),
        unknown.action_id: ("rejected", "endpoint_not_allowed", 0),
        nobody.action_id: ("rejected", "no_recipients", 0),
        garbled.action_id: ("rejected", "payload_malformed", 0),
        good.action_id: ("done", "ok", 1),
    }
    assert {call.body["welcome_code"] for call in wecom.called(WELCOME) if call.body} == {"secret-code-bad-10"}
    letters = [message for message in topics.read("dlq.executor") if message.key() == key]
    assert sorted(letter.value() or b"-" for letter in letters) == sorted(
        [b"\x00\x00\x00\x00\x63junk", b"-", b"no avro at all", b"-"]
    )
    for letter in letters:
        headers = dict(letter.headers() or [])
        assert headers["origin.topic"] == b"actions.welcome"
        assert headers["error.class"] == b"CodecError"
        assert headers["attempt"] == b"1"
        assert int(headers["origin.partition"]) >= 0
        assert int(headers["origin.offset"]) >= 0


async def test_no_personal_field_reaches_the_log_and_the_event_id_does(
    wecom: FakeWecom, worker: Make, topics: Topics
) -> None:
    process = worker("services.executor", wecom.base_url)
    topics.send(welcome("log", 0), welcome("log", 1, payload=b"{"))
    process.start()
    await topics.until_outcomes("log", 2, process.log)
    ops = f"http://127.0.0.1:{process.lines('service_started')[0]['port']}"
    assert [httpx2.get(ops + path, trust_env=False).status_code for path in ("/livez", "/readyz")] == [200, 200]
    scope = f'corp_id="ww1",endpoint="{WELCOME}",limit="corp_api_minute"'
    metrics = ""

    def reported() -> bool:
        nonlocal metrics
        metrics = httpx2.get(f"{ops}/metrics", trust_env=False).text
        return f"siyu_executor_quota_limit{{{scope}}} 10000.0" in metrics

    await eventually(reported, process.log)
    assert f"siyu_executor_quota_used{{{scope}}}" in metrics
    assert 'siyu_executor_actions_total{detail="payload_malformed",lane="welcome",status="rejected"} 1.0' in metrics
    assert "secret-" not in metrics
    assert await process.stop() == 0
    assert {(line["action_id"], line["event_id"]) for line in process.lines("action_ended")} == {
        ("log-0", "event-0"),
        ("log-1", "event-1"),
    }
    assert "secret-" not in process.log()
    assert "token-1" not in process.log()


async def test_a_configuration_that_cannot_be_used_is_refused_by_name(worker: Make) -> None:
    process = worker("services.executor", SIYU_CORPS="/nowhere/corps.yaml")
    process.start()
    assert await process.ended() == 78
    assert "set SIYU_CORPS" in process.lines("configuration_refused")[0]["error_detail"]


async def test_a_stuck_bill_page_does_not_hold_a_welcome(wecom: FakeWecom, worker: Make, topics: Topics) -> None:
    stuck = Hang()
    wecom.on(BILLS, stuck)
    process = worker("services.executor", wecom.base_url)
    topics.send(bills("lane", 1))
    process.start()
    await wecom.wait_for_calls(BILLS, 1)
    topics.send(welcome("lane", 2))
    (outcome,) = await topics.until_outcomes("lane", 1, process.log)
    assert (outcome.action_id, outcome.status) == ("lane-2", "done")
    stuck.released.set()
    await topics.until_outcomes("lane", 2, process.log)
    assert await process.stop() == 0


async def test_the_broker_going_away_loses_and_repeats_nothing(
    wecom: FakeWecom, worker: Make, topics: Topics, own_kafka: LocalKafka
) -> None:
    codes = SingleUseCodes(5)
    wecom.on(WELCOME, codes)
    process = worker("services.executor", wecom.base_url)
    actions = [welcome("broker", number) for number in range(300)]
    topics.send(*actions)
    process.start()
    await wecom.wait_for_calls(WELCOME, 50)
    await asyncio.to_thread(own_kafka.stop)
    await asyncio.sleep(3)
    own_kafka.start()  # not in a thread: the broker ends with the thread that started it
    await asyncio.to_thread(own_kafka.wait_ready)
    outcomes = await topics.until_outcomes("broker", 300, process.log)
    assert await process.stop() == 0
    assert by_action(outcomes) == Counter({action.action_id: 1 for action in actions})
    assert {outcome.status for outcome in outcomes} <= {"done", "already_done"}


async def test_an_add_becomes_a_welcome(wecom: FakeWecom, worker: Make, topics: Topics) -> None:
    """contact.events → planner → actions.welcome → executor → WeCom → action.outcomes."""
    codes = SingleUseCodes(1)
    wecom.on(WELCOME, codes)
    executor, planner = worker("services.executor", wecom.base_url), worker("services.planner")
    executor.start()
    planner.start()
    await executor.until_log("shard_opened", 4)
    stamp = now_ms()
    for number in range(40):
        event = ContactEvent(
            event_id=f"add-{number}",
            corp_id="ww1",
            change="add",
            staff_id="s1",
            customer_id=f"new{number % 20}",
            event_time_ms=stamp,
            received_at_ms=stamp,
            state="",
            welcome_code=f"code{number % 20}",
            fail_reason="",
        )
        topics.send_event("contact.events", customer_key("ww1", event.customer_id), event)
    await eventually(lambda: len(codes.used) == 20, lambda: planner.log() + executor.log())
    await executor.until_log("action_ended", 20)
    assert await planner.stop() == 0
    assert await executor.stop() == 0
    assert codes.used == Counter({f"code{number}": 1 for number in range(20)})
    assert {line["status"] for line in executor.lines("action_ended")} == {"done"}
    planned = {line["action_id"]: line["event_id"] for line in planner.lines("action_planned")}
    assert {line["action_id"]: line["event_id"] for line in executor.lines("action_ended")} == planned
