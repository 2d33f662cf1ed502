# ruff: noqa: F811 (fixtures of the simulator's own tests)
"""Actions under way against the simulator over HTTP: sends harvested to the truth of its world, calls in doubt settled
by its own lists, and no death that makes anything twice."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from services.executor.work import Ask
from simulator.world.groups import Groups
from simulator.world.mass import MassBook
from simulator.world.moments import MomentBook
from simulator.world.transfers import Transfers
from siyu.events import Action, ActionOutcome

from ...unit.executor.model_platform import (
    CARRIED_OUT,
    DAY,
    FINE,
    HOUR,
    LOST,
    TIMINGS,
    Shard,
    a_send,
    an_action,
    changed,
    check_outcomes,
    of_chunks,
    of_people,
    of_send,
)
from ..simulator.conftest import CORP_ID, platform_rules, sim_settings, wecom  # noqa: F401  (fixtures)
from ..simulator.messages.conftest import IDLE, PROMPT, Shop, shop  # noqa: F401  (fixtures)

prompt = pytest.mark.parametrize("platform_rules", [PROMPT], indirect=True)
idle = pytest.mark.parametrize("platform_rules", [IDLE], indirect=True)
BOTH = [f"wmC{number}" for number in range(21, 31)]
"""Customers of s1 and s2; wmC30 has deleted s1."""
NEAR = changed(TIMINGS, sends={"people_a_step": 4, "ids_a_record": 6}, harvest={"page": 3})


class Simulated:
    """The platform of a shard that runs in a thread of its own: calls go to the loop the simulator lives in."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.loop = asyncio.get_running_loop()

    @property
    def now_ms(self) -> int:
        return self.shop.wecom.clock.ms

    @now_ms.setter
    def now_ms(self, at_ms: int) -> None:
        async def move() -> None:
            self.shop.advance((at_ms - self.now_ms) / 1000)

        asyncio.run_coroutine_threadsafe(move(), self.loop).result()

    def carry_out(self, endpoint: str, payload: bytes) -> tuple[int, bytes]:
        async def call() -> dict[str, Any]:
            return await self.shop.wecom.post(endpoint, content=payload)

        answer = asyncio.run_coroutine_threadsafe(call(), self.loop).result()
        return answer["errcode"], json.dumps(answer).encode()


def shard_for(
    shop: Shop,
    action: Action,
    *,
    fate: Callable[[Ask], str | int] = lambda ask: FINE,
    dies_at: tuple[int, ...] = (),
) -> Shard:
    now_ms = shop.wecom.clock.ms
    fields = {name: getattr(action, name) for name in action.__struct_fields__}
    there = Action(**(fields | {"corp_id": CORP_ID, "created_ms": now_ms, "subject": f"{CORP_ID}|s1"}))
    platform: Any = Simulated(shop)
    return Shard(there, platform, fate=fate, dies_at=dies_at, order=Random(1), timings=NEAR)


async def run(shard: Shard, days: float = 60) -> list[ActionOutcome]:
    outcomes = await asyncio.to_thread(shard.run, shard.now_ms + int(days * DAY))
    check_outcomes(outcomes)
    return outcomes


def first_call(fate: str) -> Callable[[Ask], str | int]:
    left = [fate]
    return lambda ask: left.pop() if ask.key.endswith("#call") and left else FINE


def truth(shop: Shop) -> dict[str, int]:
    """Status of everybody in any message of the corp; nobody is in two."""
    found: Counter[str] = Counter()
    statuses: dict[str, int] = {}
    for message in shop.world.of(MassBook).messages.values():
        for task in message.tasks.values():
            for target, status in zip(task.targets, task.statuses or bytes(len(task.targets)), strict=True):
                found[target] += 1
                statuses[target] = status
    assert not [target for target, times in found.items() if times > 1]
    return statuses


DETAIL = {0: "unconfirmed", 1: "delivered", 2: "not_a_friend", 3: "cap_reached"}


@prompt
async def test_everybody_ends_as_the_world_says(shop: Shop) -> None:
    people = [*BOTH, "wmC11", "wmNobody"]
    shard = shard_for(shop, a_send(people))
    shard.suppressed = {"wmC22"}
    outcomes = await run(shard)
    world = truth(shop)
    details = {person: outcome.detail for person, outcome in of_people(outcomes).items()}
    assert set(details) == set(people)
    assert details.pop("wmC22") == "person_suppressed"
    assert details.pop("wmC11") == "not_sendable"
    assert details.pop("wmNobody") == "not_sendable"
    assert details == {person: DETAIL[status] for person, status in world.items()}
    assert details["wmC30"] == "not_a_friend"
    assert {chunk.message_id for chunk in of_chunks(outcomes) if chunk.status == "done"} == set(
        shop.world.of(MassBook).messages
    )
    assert of_send(outcomes).status == "done"


@prompt
async def test_without_a_sender_each_result_names_who_sent_it(shop: Shop) -> None:
    outcomes = await run(shard_for(shop, a_send(["wmC1", "wmC2", "wmC11", "wmC12"], sender="")))
    assert {person: outcome.staff_id for person, outcome in of_people(outcomes).items()} == {
        "wmC1": "s1",
        "wmC2": "s1",
        "wmC11": "s2",
        "wmC12": "s2",
    }


@prompt
@pytest.mark.parametrize("fate", [LOST, CARRIED_OUT])
async def test_a_chunk_in_doubt_is_settled_by_the_simulators_list(shop: Shop, fate: str) -> None:
    await shop.call("add_msg_template", sender="s1", external_userid=["wmC1"], text={"content": "hello"})
    outcomes = await run(shard_for(shop, a_send(BOTH), fate=first_call(fate)))
    assert set(truth(shop)) == {*BOTH, "wmC1"}
    assert Counter(chunk.detail for chunk in of_chunks(outcomes))["settled_made"] == (fate == CARRIED_OUT)
    assert set(of_people(outcomes)) == set(BOTH)


@prompt
@pytest.mark.parametrize("fate", [FINE, LOST, CARRIED_OUT])
@pytest.mark.parametrize("point", range(1, 73, 6))
async def test_killed_anywhere_nobody_is_in_two_messages(shop: Shop, fate: str, point: int) -> None:
    shard = shard_for(shop, a_send(BOTH), fate=first_call(fate), dies_at=(point, point + 20))
    outcomes = await run(shard)
    assert shard.deaths >= 1
    world = truth(shop)
    assert set(world) == set(BOTH)
    details = {person: outcome.detail for person, outcome in of_people(outcomes).items()}
    assert details == {person: DETAIL[status] for person, status in world.items()}


@idle
async def test_a_reminder_moves_staff_who_had_not_sent_it(shop: Shop) -> None:
    shard = shard_for(shop, a_send(BOTH[:3], siyu={"remind_after_ms": [HOUR]}))
    outcomes = await run(shard)
    assert {outcome.detail for outcome in of_people(outcomes).values()} == {"delivered"}
    assert sum(ask.key.endswith("#remind") for ask in shard.asked) == 1


@idle
async def test_what_nobody_sends_is_unconfirmed_in_the_end(shop: Shop) -> None:
    until_ms = shop.wecom.clock.ms + 2 * DAY
    outcomes = await run(shard_for(shop, a_send(BOTH[:3], siyu={"harvest_until_ms": until_ms})))
    assert {outcome.detail for outcome in of_people(outcomes).values()} == {"unconfirmed"}
    assert set(truth(shop).values()) == {0}


@idle
async def test_cancelled_is_cancelled_at_the_platform_too(shop: Shop) -> None:
    shard = shard_for(shop, a_send(BOTH[:3]))
    await run(shard, days=0.05)
    assert shard.work is not None
    shard.tell(shard.work.stop("cancelled", "operator_cancelled", shard.now_ms, shard.now_ms))
    outcomes = await run(shard)
    assert {outcome.detail for outcome in of_people(outcomes).values()} == {"unconfirmed"}
    assert all(message.cancelled for message in shop.world.of(MassBook).messages.values())


@prompt
@pytest.mark.parametrize("fate", [FINE, LOST, CARRIED_OUT])
async def test_groups_too(shop: Shop, fate: str) -> None:
    groups = [shop.group(), shop.group(), shop.group(owner="s2")]
    action = a_send([], chat_type="group", external_userid=[], chat_id_list=groups)
    outcomes = await run(shard_for(shop, action, fate=first_call(fate)))
    parts = [outcome for outcome in outcomes if outcome.parent_id not in ("", "a1")]
    assert len(parts) == 3
    assert set(truth(shop)) == set(groups[:2])
    assert Counter(outcome.status for outcome in parts)["done"] == 2


def single(name: str, **payload: Any) -> Action:
    return an_action(endpoint=f"externalcontact/{name}", payload=json.dumps(payload).encode(), lane="urgent")


@pytest.mark.parametrize("fate", [FINE, LOST, CARRIED_OUT])
class TestWhatIsMadeOnce:
    async def test_a_contact_way(self, shop: Shop, fate: str) -> None:
        before = len(await ways(shop))
        action = single("add_contact_way", type=2, scene=2, state="qr-9", remark="door", user=["s1", "s2"])
        (outcome,) = await run(shard_for(shop, action, fate=first_call(fate)))
        made = await ways(shop)
        assert outcome.status == "done"
        assert len(made) == before + 1
        assert outcome.message_id in made

    async def test_tags(self, shop: Shop, fate: str) -> None:
        action = single("add_corp_tag", group_name="level", tag=[{"name": "gold"}, {"name": "silver"}])
        (outcome,) = await run(shard_for(shop, action, fate=first_call(fate)))
        groups = (await shop.call("get_corp_tag_list"))["tag_group"]
        assert [(g["group_id"], [t["name"] for t in g["tag"]]) for g in groups if g["group_name"] == "level"] == [
            (outcome.message_id, ["gold", "silver"])
        ]

    async def test_a_moment(self, shop: Shop, fate: str) -> None:
        senders = {"sender_list": {"user_list": ["s1", "s2"]}}
        action = single("add_moment_task", text={"content": "new"}, visible_range=senders)
        (outcome,) = await run(shard_for(shop, action, fate=first_call(fate)))
        assert outcome.status == "done"
        shop.advance(600)
        assert len(shop.world.of(MomentBook).moments) == 1

    async def test_a_transfer(self, shop: Shop, fate: str) -> None:
        action = single(
            "transfer_customer", handover_userid="s1", takeover_userid="s3", external_userid=["wmC1", "wmC2", "wmC11"]
        )
        outcomes = await run(shard_for(shop, action, fate=first_call(fate)))
        parts = {outcome.customer_id: outcome.status for outcome in outcomes if outcome.parent_id}
        assert parts == {"wmC1": "done", "wmC2": "done", "wmC11": "rejected"}
        assert len(shop.world.of(Transfers).results("on_job", "s1", "s3")) == 2

    async def test_a_group_of_somebody_at_work(self, shop: Shop, fate: str) -> None:
        chat_id = shop.group()
        action = single("groupchat/onjob_transfer", chat_id_list=[chat_id], new_owner="s2")
        outcomes = await run(shard_for(shop, action, fate=first_call(fate)))
        assert {outcome.status for outcome in outcomes} == {"done"}
        group = shop.world.of(Groups).get(chat_id)
        assert group is not None
        assert group.now.owner == "s2"


async def ways(shop: Shop) -> list[str]:
    listed = await shop.call("list_contact_way", limit=1_000)
    return [way["config_id"] for way in listed["contact_way"]]
