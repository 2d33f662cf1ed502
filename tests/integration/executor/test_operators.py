"""What people say while actions wait: pauses, cancels, verdicts, suppressions; and tokens that WeCom refuses."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import TypedDict

import pytest
from crew import (
    APP_MESSAGE,
    CORPS,
    REMARK,
    WELCOME,
    Crew,
    Platform,
    SingleUseCodes,
    action,
    crew_on,
    now_ms,
    once_each,
    remark,
)
from executor_process import Topics
from fake_wecom import Call, Drop, Slow

from deploy.local.kafka import LocalKafka
from services.executor.membership import shard_of
from services.executor.suppression import suppression_key
from siyu.actions.control import TOPIC, cancel_record, pause_record, resume_record, settle_record
from siyu.events import Action, ActionOutcome, ControlRecord, LedgerEntry, Suppression, codec
from siyu.wecom.endpoints import quota_scope

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


class Words(TypedDict):
    reason: str
    author: str


WORDS: Words = {"reason": "a wrong text", "author": "li"}
Together = tuple[Platform, Crew]


@pytest.fixture(scope="module")
def together(own_kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    with crew_on(own_kafka.bootstrap, tmp_path_factory.mktemp("crew")) as both:
        both[1].start("e1", "e2")
        yield both


def say(topics: Topics, *records: ControlRecord) -> None:
    for record in records:
        topics.send_event(TOPIC, record.id, record)


async def told(topics: Topics, crew: Crew, *actions: Action) -> dict[str, ActionOutcome]:
    """The outcomes of these actions, once all have one."""
    wanted = {given.action_id for given in actions}
    deadline = time.monotonic() + 60
    while True:
        found = [o for o in await asyncio.to_thread(topics.outcomes, "") if o.action_id in wanted]
        if {outcome.action_id for outcome in found} == wanted:
            assert once_each(found, list(actions))
            return {outcome.action_id: outcome for outcome in found}
        assert time.monotonic() < deadline, crew.log()
        await asyncio.sleep(0.1)


async def until_followed(topics: Topics, crew: Crew, platform: Platform, corp_id: str) -> None:
    """Until an action that comes after a word is called: tables are read many times a second, so what comes after it
    by some rounds of the lanes comes after the word."""
    probe = remark(f"probe-{time.monotonic_ns()}", corp_id=corp_id)
    await asyncio.sleep(1.0)
    topics.send(probe)
    await told(topics, crew, probe)


@pytest.mark.parametrize(
    ("scope", "held", "free"),
    [
        (
            {"corp_id": "ww1"},
            [remark("pc-1", corp_id="ww1"), remark("pc-2", corp_id="ww1", lane="bulk", campaign_id="x")],
            [remark("pc-3", corp_id="ww2")],
        ),
        (
            {"lane": "bulk"},
            [remark("pl-1", corp_id="ww1", lane="bulk"), remark("pl-2", corp_id="ww2", lane="bulk")],
            [remark("pl-3", corp_id="ww1"), remark("pl-4", corp_id="ww2")],
        ),
        (
            {"campaign_id": "summer"},
            [remark("ps-1", lane="bulk", campaign_id="summer"), remark("ps-2", corp_id="ww2", campaign_id="summer")],
            [remark("ps-3", lane="bulk", campaign_id="winter"), remark("ps-4", lane="bulk")],
        ),
    ],
    ids=["corp", "lane", "campaign"],
)
async def test_a_pause_holds_what_it_covers_and_nothing_else_until_it_is_taken_back(
    together: Together, topics: Topics, scope: dict[str, str], held: list[Action], free: list[Action]
) -> None:
    platform, crew = together
    await crew.working()
    pause = pause_record(
        corp_id=scope.get("corp_id", ""),
        lane=scope.get("lane", ""),
        campaign_id=scope.get("campaign_id", ""),
        **WORDS,
        wall_ms=now_ms(),
    )
    say(topics, pause)
    await until_followed(topics, crew, platform, "ww3")
    topics.send(*held, *free)
    assert {outcome.status for outcome in (await told(topics, crew, *free)).values()} == {"done"}
    await until_followed(topics, crew, platform, "ww3")
    assert not {given.customer_id for given in held} & set(platform.customers(REMARK))
    say(topics, resume_record(pause, **WORDS, wall_ms=now_ms()))
    assert {outcome.status for outcome in (await told(topics, crew, *held)).values()} == {"done"}
    assert {given.customer_id for given in held} <= set(platform.customers(REMARK))


async def test_what_is_cancelled_while_it_waits_ends_without_a_call(together: Together, topics: Topics) -> None:
    platform, crew = together
    await crew.working()
    pause = pause_record(corp_id="ww4", **WORDS, wall_ms=now_ms())
    say(topics, pause)
    await until_followed(topics, crew, platform, "ww3")
    single = [remark(f"cancel-{n}", corp_id="ww4") for n in range(3)]
    campaign = [remark(f"cancel-c{n}", corp_id="ww4", lane="bulk", campaign_id="gone") for n in range(3)]
    other = [remark("cancel-other", corp_id="ww4", lane="bulk", campaign_id="stays")]
    topics.send(*single, *campaign, *other)
    await until_followed(topics, crew, platform, "ww3")
    say(
        topics,
        cancel_record(action_id="cancel-1", **WORDS, wall_ms=now_ms()),
        cancel_record(campaign_id="gone", **WORDS, wall_ms=now_ms()),
    )
    await until_followed(topics, crew, platform, "ww3")
    say(topics, resume_record(pause, **WORDS, wall_ms=now_ms()))
    found = await told(topics, crew, *single, *campaign, *other)
    gone = {"cancel-1", "cancel-c0", "cancel-c1", "cancel-c2"}
    assert {name for name, outcome in found.items() if outcome.status == "cancelled"} == gone
    assert {(found[name].detail, found[name].calls) for name in gone} == {("operator_cancelled", 0)}
    assert {outcome.status for name, outcome in found.items() if name not in gone} == {"done"}
    assert not {f"customer-{name}" for name in gone} & set(platform.customers(REMARK))


async def test_a_cancelled_campaign_ends_where_nothing_is_taken_up_and_before_its_day(
    together: Together, topics: Topics
) -> None:
    """Operators see at once that it is over, although the corp is paused or the day is not there yet."""
    platform, crew = together
    await crew.working()
    pause = pause_record(corp_id="ww6", **WORDS, wall_ms=now_ms())
    say(topics, pause)
    await until_followed(topics, crew, platform, "ww3")
    tomorrow = now_ms() + 86_400_000

    def of(campaign: str, name: str, **changes: object) -> Action:
        return remark(name, corp_id="ww6", lane="bulk", campaign_id=campaign, **changes)

    gone = [of("off", f"off-{n}", staff_id=f"s{n % 3}") for n in range(120)]
    gone += [of("off", f"off-later-{n}", not_before_ms=tomorrow) for n in range(3)]
    alone = of("on", "off-alone", not_before_ms=tomorrow)
    stays = [of("on", "on-1"), of("on", "on-later", not_before_ms=tomorrow), of("", "on-2", reason="off")]
    topics.send(*gone, alone, *stays)
    await until_followed(topics, crew, platform, "ww3")
    say(
        topics,
        cancel_record(campaign_id="off", **WORDS, wall_ms=now_ms()),
        cancel_record(action_id="off-alone", **WORDS, wall_ms=now_ms()),
    )
    found = await told(topics, crew, *gone, alone)
    assert {(outcome.status, outcome.detail, outcome.calls) for outcome in found.values()} == {
        ("cancelled", "operator_cancelled", 0)
    }
    assert not await asyncio.to_thread(topics.outcomes, "on-")
    say(topics, resume_record(pause, **WORDS, wall_ms=now_ms()))
    assert {outcome.status for outcome in (await told(topics, crew, stays[0], stays[2])).values()} == {"done"}
    # All that a corp has waiting, on whichever day.
    say(topics, cancel_record(corp_id="ww6", **WORDS, wall_ms=now_ms()))
    assert (await told(topics, crew, stays[1]))["on-later"].status == "cancelled"


async def test_a_corp_whose_thousands_end_without_a_call_holds_up_no_other_of_its_shard(
    together: Together, topics: Topics
) -> None:
    _, crew = together
    await crew.working()
    # Two corps whose calls of this API have the same owner.
    owned: dict[int, list[str]] = {}
    for corp in CORPS:
        owned.setdefault(shard_of(quota_scope(corp, REMARK), 4), []).append(corp)
    stopped, other = next(corps for corps in owned.values() if len(corps) > 1)[:2]
    pauses = [pause_record(corp_id=corp, **WORDS, wall_ms=now_ms()) for corp in (stopped, other)]
    say(topics, *pauses, cancel_record(campaign_id="thousands", **WORDS, wall_ms=now_ms() + 600_000))
    await asyncio.sleep(2.0)
    thousands = [remark(f"many-{n}", corp_id=stopped, lane="bulk", campaign_id="thousands") for n in range(20_000)]
    few = [remark(f"few-{n}", corp_id=other, lane="bulk", campaign_id="few") for n in range(10)]
    topics.send(*thousands, *few)
    await asyncio.sleep(3.0)
    say(topics, resume_record(pauses[0], **WORDS, wall_ms=now_ms()))
    await asyncio.sleep(1.0)
    say(topics, resume_record(pauses[1], **WORDS, wall_ms=now_ms()))
    found = await told(topics, crew, *thousands, *few)
    assert {outcome.status for name, outcome in found.items() if name.startswith("many-")} == {"cancelled"}
    assert {outcome.status for name, outcome in found.items() if name.startswith("few-")} == {"done"}
    last_of_few = max(found[given.action_id].finished_at_ms for given in few)
    still_to_end = sum(found[given.action_id].finished_at_ms > last_of_few for given in thousands)
    assert still_to_end > len(thousands) // 4, "served while the others end, not afterwards"


async def test_a_person_suppressed_after_the_action_was_enqueued_is_not_called(
    together: Together, topics: Topics
) -> None:
    platform, crew = together
    await crew.working()
    codes = SingleUseCodes(1)
    platform.on(WELCOME, codes)
    pause = pause_record(corp_id="ww5", **WORDS, wall_ms=now_ms())
    say(topics, pause)
    await until_followed(topics, crew, platform, "ww3")
    waiting = [action(f"supp-{n}", corp_id="ww5", customer_id=f"person-{n}") for n in range(4)]
    # Its tag may still be set: nothing is put before the person by that.
    quiet = remark("supp-tag", corp_id="ww5", customer_id="person-1")
    topics.send(*waiting, quiet)
    await until_followed(topics, crew, platform, "ww3")
    word = Suppression(
        corp_id="ww5",
        customer_id="person-1",
        active=1,
        reason="asked",
        source="form",
        event_time_ms=now_ms(),
        written_at_ms=now_ms(),
    )
    topics.send_raw("suppressions", suppression_key(word), codec().encode(word))
    await until_followed(topics, crew, platform, "ww3")
    say(topics, resume_record(pause, **WORDS, wall_ms=now_ms()))
    found = await told(topics, crew, *waiting, quiet)
    assert {name: (o.status, o.detail) for name, o in found.items() if o.status != "done"} == {
        "supp-1": ("suppressed", "person_suppressed")
    }
    assert found["supp-1"].calls == 0
    assert "code-supp-1" not in codes.used
    assert len(codes.used) == 3


async def test_a_person_settles_what_no_endpoint_can_tell(together: Together, topics: Topics) -> None:
    """A message of an app that got no answer is not repeated until somebody has looked."""
    platform, crew = together
    await crew.working()
    lost = True

    def answer(call: Call) -> dict[str, object] | Drop:
        return Drop() if lost else {"errcode": 0, "msgid": "m"}

    platform.on(APP_MESSAGE, answer)
    bodies = {name: json.dumps({"touser": name, "msgtype": "text", "agentid": 1}).encode() for name in ("made", "not")}
    messages = [
        action(f"doubt-{name}", lane="urgent", corp_id="ww6", endpoint=APP_MESSAGE, payload=body, customer_id="")
        for name, body in bodies.items()
    ]
    topics.send(*messages)

    def in_doubt() -> bool:
        entries = [codec().decode_as(LedgerEntry, m.value()) for m in topics.read("action.ledger") if m.value()]
        newest = {entry.action_id: entry.state for entry in entries if entry.action_id.startswith("doubt-")}
        return newest == {"doubt-made": "in_doubt", "doubt-not": "in_doubt"}

    deadline = time.monotonic() + 60
    while not await asyncio.to_thread(in_doubt):
        assert time.monotonic() < deadline, crew.log()
    lost = False
    await until_followed(topics, crew, platform, "ww3")
    assert len(platform.called(APP_MESSAGE)) == 2
    # Its next owner waits for the same word.
    for name in ("e1", "e2"):
        crew.members[name].kill()
        crew.start(name)
    await until_followed(topics, crew, platform, "ww3")
    say(
        topics,
        settle_record(action_id="doubt-made", verdict="done", **WORDS, wall_ms=now_ms()),
        settle_record(action_id="doubt-not", verdict="not_done", **WORDS, wall_ms=now_ms()),
    )
    found = await told(topics, crew, *messages)
    assert (found["doubt-made"].status, found["doubt-made"].detail) == ("done", "settled_by_person")
    assert (found["doubt-not"].status, found["doubt-not"].calls) == ("done", 2)
    assert [call.body["touser"] for call in platform.called(APP_MESSAGE)[2:] if call.body] == ["not"]


async def test_a_refused_token_is_renewed_once_however_many_calls_of_several_processes_were_refused(
    together: Together, topics: Topics
) -> None:
    platform, crew = together
    await crew.working()
    platform.on(REMARK, Slow(0.05, {"errcode": 0}))
    codes = SingleUseCodes(2, 0.05, 0.05)
    platform.on(WELCOME, codes)
    first = [remark("token-first", corp_id="ww7")]
    topics.send(*first)
    await told(topics, crew, *first)
    renewed = len([call for call in platform.called("gettoken") if call.query["corpid"] == "ww7"])
    platform.valid.clear()
    calls = [remark(f"token-r{n}", corp_id="ww7") for n in range(30)]
    calls += [action(f"token-w{n}", corp_id="ww7") for n in range(30)]
    topics.send(*calls)
    found = await told(topics, crew, *calls)
    assert {outcome.status for outcome in found.values()} == {"done"}
    mine = [c for c in platform.called("gettoken") if c.query["corpid"] == "ww7"]
    assert len(mine) == renewed + 1
