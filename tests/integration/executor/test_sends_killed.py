"""Messages to many people, the executor killed again and again meanwhile: each person is in exactly one request that
WeCom accepted, and has one outcome; so has each chunk and each send.

WeCom has no key that would make a repeat harmless, so what was interrupted is found out by asking. Business time runs a
hundred times as fast: the executor waits minutes before it believes a listing that names nothing.
"""

import asyncio
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crew import MASS, Crew, Platform, action, crew_on, limits_folder
from executor_process import Topics
from fake_wecom import Call, Drop, Slow

from deploy.local.kafka import LocalKafka
from siyu.events import Action, ActionOutcome
from siyu.ops.clock import FileClock, write_segments

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PEOPLE, A_CALL, PACE = 25, 10, 100
LIST, TASKS, RESULTS = (
    f"externalcontact/{name}" for name in ("get_groupmsg_list_v2", "get_groupmsg_task", "get_groupmsg_send_result")
)


class MassMessages:
    """add_msg_template and the three calls that tell what became of it. Some calls are lost before WeCom has taken
    them, some answers after. Staff have sent each message by the time anybody asks."""

    def __init__(self, clock: FileClock, seed: int) -> None:
        self._clock = clock
        self._dice = random.Random(seed)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self.taken: dict[str, dict[str, Any]] = {}
        self.lost = 0

    def on(self, platform: Platform) -> None:
        platform.on(MASS, self.send)
        platform.on(LIST, self.list)
        platform.on(TASKS, self.tasks)
        platform.on(RESULTS, self.results)

    def send(self, call: Call) -> Slow | Drop:
        assert call.body is not None
        fate = self._dice.random()
        if fate < 0.15:
            self.lost += 1
            return Drop()
        with self._lock:
            msgid = f"msg{next(self._numbers)}"
            self.taken[msgid] = call.body | {"create_time": self._clock.now_ms() // 1000}
        if fate < 0.3:
            self.lost += 1
            return Drop()
        return Slow(self._dice.uniform(0, 0.15), {"errcode": 0, "msgid": msgid, "fail_list": []})

    def list(self, call: Call) -> dict[str, Any]:
        assert call.body is not None
        listed = [
            {"msgid": msgid, "create_time": body["create_time"], "text": body["text"], "create_type": 0}
            for msgid, body in self.taken.items()
            if call.body["start_time"] <= body["create_time"] <= call.body["end_time"]
        ]
        return {"errcode": 0, "group_msg_list": listed, "next_cursor": ""}

    def tasks(self, call: Call) -> dict[str, Any]:
        assert call.body is not None
        body = self.taken[call.body["msgid"]]
        return {"errcode": 0, "task_list": [{"userid": body["sender"], "status": 2, "send_time": 1}], "next_cursor": ""}

    def results(self, call: Call) -> dict[str, Any]:
        assert call.body is not None
        body = self.taken[call.body["msgid"]]
        rows = [{"external_userid": who, "userid": body["sender"], "status": 1} for who in body["external_userid"]]
        return {"errcode": 0, "send_list": rows, "next_cursor": ""}


def send(number: int, now_ms: int) -> Action:
    people = [f"p{number}-{place}" for place in range(PEOPLE)]
    body = {"external_userid": people, "sender": f"s{number % 3}", "text": {"content": f"news {number % 4}"}}
    return action(
        f"send-{number}",
        lane="urgent",
        corp_id=f"ww{number % 2 + 1}",
        subject=f"ww{number % 2 + 1}",
        endpoint=MASS,
        staff_id=f"s{number % 3}",
        customer_id="",
        payload=json.dumps(body).encode(),
        campaign_id=f"c{number}",
        created_ms=now_ms,
    )


@pytest.fixture
def together(own_kafka: LocalKafka, tmp_path: Path) -> Iterator[tuple[Platform, Crew, FileClock]]:
    wall_ms = time.time_ns() // 1_000_000
    clock = tmp_path / "clock.json"
    write_segments(clock, [{"wall_ms": wall_ms - 1, "business_ms": wall_ms, "rate": PACE}])
    limits = limits_folder(tmp_path, mass_message_customers={"amount": A_CALL})
    settings = {"SIYU_CLOCK_FILE": str(clock), "SIYU_LIMITS": str(limits)}
    with crew_on(own_kafka.bootstrap, tmp_path, **settings) as (platform, crew):
        yield platform, crew, FileClock(clock)


def whole(outcomes: list[ActionOutcome], parent_id: str) -> list[ActionOutcome]:
    return [outcome for outcome in outcomes if outcome.parent_id == parent_id]


async def test_each_person_is_in_one_accepted_request_and_everything_has_one_outcome(
    together: tuple[Platform, Crew, FileClock], topics: Topics
) -> None:
    platform, crew, clock = together
    messages = MassMessages(clock, 3)
    messages.on(platform)
    sends = [send(number, clock.now_ms()) for number in range(8)]
    crew.start("e1", "e2")
    await crew.working()
    topics.send(*sends)
    dice = random.Random(8)
    for kill in range(8):
        # At the first call, in its midst, between calls, while its results come in: wherever it happens to be.
        await asyncio.sleep(dice.uniform(0.05, 1.2))
        name = ("e1", "e2")[kill % 2]
        crew.members[name].kill()
        crew.start(name)
    deadline = time.monotonic() + 100
    while True:
        outcomes = await asyncio.to_thread(topics.outcomes, "")
        people = [outcome for outcome in outcomes if outcome.customer_id]
        done = {outcome.action_id for outcome in outcomes} >= {given.action_id for given in sends}
        if done and len(people) >= PEOPLE * len(sends):
            break
        assert time.monotonic() < deadline, f"{len(outcomes)} outcomes, {len(people)} of people\n{crew.log()[-4000:]}"
        await asyncio.sleep(0.5)

    asked_for = Counter(f"p{number}-{place}" for number in range(len(sends)) for place in range(PEOPLE))
    accepted = Counter(who for body in messages.taken.values() for who in body["external_userid"])
    assert accepted == asked_for, "each in exactly one request that was accepted"
    assert max(len(body["external_userid"]) for body in messages.taken.values()) <= A_CALL
    assert messages.lost > 0
    assert len(platform.called(MASS)) > len(messages.taken)

    outcomes = topics.outcomes("")
    assert set(Counter(outcome.action_id for outcome in outcomes).values()) == {1}
    by_id = {outcome.action_id: outcome for outcome in outcomes}
    told: Counter[str] = Counter()
    for given in sends:
        assert by_id[given.action_id].status == "done"
        chunks = whole(outcomes, given.action_id)
        assert {chunk.status for chunk in chunks} == {"done"}
        for chunk in chunks:
            members = whole(outcomes, chunk.action_id)
            assert {person.status for person in members} == {"done"}
            assert {p.customer_id for p in members} == set(messages.taken[chunk.message_id]["external_userid"])
            told.update(person.customer_id for person in members)
    assert told == asked_for
