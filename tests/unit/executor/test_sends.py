"""Sends to many: who is in which call, what is known of everybody afterwards, and that no death changes either."""

import json
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.domain import End
from services.executor.work import Ask, LedgerDamaged, begin, restore
from siyu.events import Action
from siyu.wecom.client import Unknown

from .model_platform import (
    CARRIED_OUT,
    DAY,
    FATES,
    FINE,
    HOUR,
    LATE,
    LOST,
    MINUTE,
    NOT_SENT,
    NOW,
    TIMINGS,
    Platform,
    Shard,
    a_send,
    an_action,
    changed,
    check_outcomes,
    of_chunks,
    of_people,
    of_send,
    people_in,
)

PEOPLE = [f"c{number}" for number in range(11)]
SMALL = changed(TIMINGS, sends={"people_a_step": 3, "ids_a_record": 5})


class Prompt(Platform):
    """Staff confirm as soon as the tasks can be read."""

    def _get_groupmsg_task(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = super()._get_groupmsg_task(body)
        message = self._of(body)
        for staff in list(message.rows):
            self.confirm(message.msgid, staff)
        return {**answer, "task_list": [{**t, "status": 2} for t in answer["task_list"]]}


def mixed(person: str) -> int:
    """Result 1, 2 or 3 by the person's number."""
    return int(person.lstrip("cg")) % 3 + 1


def check_send(shard: Shard, people: list[str]) -> None:
    """R7: nobody twice, everybody's end known, one outcome for everything."""
    outcomes, platform = shard.outcomes, shard.platform
    check_outcomes(outcomes)
    accepted = people_in(platform)
    assert not [person for person, times in accepted.items() if times > 1]
    parts = of_people(outcomes)
    assert set(parts) == set(people)
    assert Counter(o.action_id for o in outcomes)["a1"] == 1
    chunks = {o.action_id for o in of_chunks(outcomes)}
    assert {o.parent_id for o in parts.values()} == chunks
    assert all(entry.state == "ended" and not entry.memory for entry in shard.ledger.values())


@pytest.mark.parametrize(
    ("payload", "end"),
    [
        ({"external_userid": []}, End("rejected", "no_recipients")),
        ({"external_userid": None}, End("rejected", "no_recipients")),
        ({"external_userid": "c1"}, End("rejected", "payload_malformed")),
        ({"external_userid": ["c1", 7]}, End("rejected", "payload_malformed")),
        ({"external_userid": ["c1", ""]}, End("rejected", "payload_malformed")),
        ({"external_userid": ["c" * 129]}, End("rejected", "payload_malformed")),
        ({"external_userid": [f"c{n}" for n in range(150_001)]}, End("rejected", "too_many_recipients")),
        ({"chat_id_list": ["g1"]}, End("rejected", "contradictory")),
        ({"chat_type": "group"}, End("rejected", "contradictory")),
        (
            {"chat_type": "group", "external_userid": [], "chat_id_list": ["g1"], "sender": ""},
            End("rejected", "contradictory"),
        ),
        ({"chat_type": "both"}, End("rejected", "payload_malformed")),
        ({"sender": 3}, End("rejected", "payload_malformed")),
        ({"tag_filter": {"group_list": [{"tag_list": ["t"]}]}}, End("rejected", "contradictory")),
        ({"text": {"content": "好" * 1334}}, End("rejected", "payload_too_large")),
        ({"text": {}}, End("rejected", "payload_malformed")),
        ({"text": "hello"}, End("rejected", "payload_malformed")),
        ({"attachments": [{"msgtype": "image"}] * 10}, End("rejected", "payload_too_large")),
        ({"attachments": ["image"]}, End("rejected", "payload_malformed")),
        ({"siyu": {"remind": 1}}, End("rejected", "options_malformed")),
        ({"siyu": {"remind_after_ms": [-1]}}, End("rejected", "options_malformed")),
        ({"siyu": {"remind_after_ms": [1] * 13}}, End("rejected", "options_malformed")),
        ({"siyu": {"harvest_until_ms": -1}}, End("rejected", "options_malformed")),
        ({"siyu": []}, End("rejected", "options_malformed")),
    ],
)
def test_a_send_that_contradicts_itself_is_refused_with_a_reason(payload: dict[str, Any], end: End) -> None:
    shard = Shard(a_send(PEOPLE, **payload), Platform())
    assert begin(shard.source, shard.around, NOW) == end


@pytest.mark.parametrize("payload", [b"{", b"[]", b"\xff"])
def test_a_send_that_is_no_object_is_refused(payload: bytes) -> None:
    shard = Shard(an_action(payload=payload), Platform())
    assert begin(shard.source, shard.around, NOW) == End("rejected", "payload_malformed")


def test_people_are_cut_into_calls_in_their_order_and_doubles_count_once() -> None:
    platform = Prompt()
    shard = Shard(a_send([*PEOPLE, "c3", "c0"]), platform, timings=SMALL)
    shard.run()
    check_send(shard, PEOPLE)
    sent = sorted([list(message.rows["s1"]) for message in platform.messages], key=lambda ids: int(ids[0][1:]))
    assert sent == [PEOPLE[0:4], PEOPLE[4:8], PEOPLE[8:11]]
    assert sorted(o.message_id for o in of_chunks(shard.outcomes)) == ["msg0", "msg1", "msg2"]
    assert (of_send(shard.outcomes).status, of_send(shard.outcomes).detail) == ("done", "ok")


def test_every_result_is_told_once_and_as_what_it_is() -> None:
    platform = Prompt(decide=mixed, strangers=frozenset({"c5"}))
    shard = Shard(a_send(PEOPLE), platform, timings=SMALL)
    shard.suppressed = {"c2"}
    shard.run()
    check_send(shard, PEOPLE)
    ends = {1: ("done", "delivered"), 2: ("failed", "not_a_friend"), 3: ("failed", "cap_reached")}
    for person, outcome in of_people(shard.outcomes).items():
        expected = ends[mixed(person)]
        if person == "c5":
            expected = ("rejected", "not_sendable")
        if person == "c2":
            expected = ("suppressed", "person_suppressed")
        assert (outcome.status, outcome.detail) == expected, person
        assert (outcome.staff_id, outcome.subject) == ("s1", f"ww1|{person}")
    assert "c2" not in people_in(platform)


def test_whoever_is_suppressed_while_the_send_waits_is_taken_out_as_it_leaves() -> None:
    platform = Prompt()
    shard = Shard(a_send(PEOPLE[:4]), platform, timings=SMALL)
    work = begin(shard.source, shard.around, NOW)
    assert not isinstance(work, End)
    (ask,) = work.asks(NOW)
    assert ask.claim.persons == 4
    shard.suppressed = {"c1"}
    leaving = work.going_out(ask, NOW + 1, b"{}", "rev")
    assert leaving is not None
    assert json.loads(leaving.payload)["external_userid"] == ["c0", "c2", "c3"]
    assert leaving.claim.persons == 3


def test_if_everybody_is_suppressed_nothing_leaves() -> None:
    shard = Shard(a_send(PEOPLE), Prompt(), timings=SMALL)
    shard.suppressed = set(PEOPLE)
    shard.run()
    check_send(shard, PEOPLE)
    assert not shard.asked
    assert {o.status for o in shard.outcomes} == {"suppressed"}


def test_groups_are_sent_to_as_people_are() -> None:
    groups = [f"g{number}" for number in range(6)]
    platform = Prompt(decide=lambda group: 1 if group != "g4" else 2)
    action = a_send([], chat_type="group", external_userid=[], chat_id_list=groups)
    shard = Shard(action, platform, timings=SMALL)
    shard.run()
    check_outcomes(shard.outcomes)
    parts = [o for o in shard.outcomes if o.parent_id not in ("", "a1")]
    assert Counter((o.status, o.detail) for o in parts) == {("done", "delivered"): 5, ("expired", "unconfirmed"): 1}
    assert people_in(platform) == Counter(groups)


def test_without_a_sender_it_is_recorded_that_wecom_chose() -> None:
    platform = Prompt(owner=lambda person: "s1" if mixed(person) == 1 else "s2")
    shard = Shard(a_send(PEOPLE, sender=""), platform, timings=SMALL)
    shard.turn()
    assert shard.ledger["a1"].detail == "no_sender"
    shard.run()
    check_send(shard, PEOPLE)
    assert of_send(shard.outcomes).detail == "no_sender"
    assert {o.customer_id: o.staff_id for o in of_people(shard.outcomes).values()} == {
        person: "s1" if mixed(person) == 1 else "s2" for person in PEOPLE
    }


def test_a_chunk_has_the_size_of_the_day_on_which_it_leaves() -> None:
    """The limit shrinks while half of the send waits."""
    platform = Prompt()
    shard = Shard(a_send([f"c{n}" for n in range(30)]), platform, timings=changed(SMALL, sends={"chunks_at_once": 1}))
    shard.limits.amount = 10
    while not platform.messages:
        shard.turn()
    shard.limits.amount = 4
    shard.run()
    check_send(shard, [f"c{n}" for n in range(30)])
    assert [len(message.rows["s1"]) for message in platform.messages] == [10, 4, 4, 4, 4, 4]


def test_a_chunk_that_was_cut_off_and_waits_is_cut_again() -> None:
    platform = Prompt()
    shard = Shard(a_send([f"c{n}" for n in range(20)]), platform, timings=SMALL)
    shard.limits.amount = 10
    work = shard._at_hand()
    assert work is not None
    first = work.asks(NOW)
    assert len(first) == 2
    shard.limits.amount = 3
    assert work.going_out(first[0], NOW, b"{}", "rev") is None
    shard._keep(work)
    shard.commit()
    shard.die()
    shard.run()
    check_send(shard, [f"c{n}" for n in range(20)])
    assert max(len(message.rows["s1"]) for message in platform.messages) == 3


def test_a_message_nobody_can_get_is_refused_with_everybody_in_it() -> None:
    shard = Shard(a_send(PEOPLE), Prompt(strangers=frozenset(PEOPLE)), timings=SMALL)
    shard.run()
    check_send(shard, PEOPLE)
    assert {(o.status, o.detail) for o in of_people(shard.outcomes).values()} == {("rejected", "not_sendable")}
    assert of_send(shard.outcomes).status == "rejected"


def test_a_chunk_that_wecom_refuses_does_not_stop_the_others() -> None:
    calls = iter([FINE, 40058, FINE])
    shard = Shard(
        a_send(PEOPLE),
        Prompt(),
        fate=lambda ask: next(calls) if ask.key.endswith("#call") else FINE,
        timings=changed(SMALL, sends={"chunks_at_once": 1}),
    )
    shard.run()
    check_send(shard, PEOPLE)
    assert of_send(shard.outcomes).detail == "partly_sent"
    assert Counter(o.detail for o in of_people(shard.outcomes).values()) == {"delivered": 7, "call_failed": 4}


def test_a_send_that_cannot_leave_in_time_expires_with_everybody() -> None:
    shard = Shard(
        a_send(PEOPLE, action={"deadline_ms": NOW + MINUTE}), Platform(), fate=lambda ask: NOT_SENT, timings=SMALL
    )
    shard.run()
    check_send(shard, PEOPLE)
    assert {(o.status, o.detail) for o in shard.outcomes} == {("expired", "deadline_passed")}


def test_whoever_is_not_sent_to_by_the_horizon_is_unconfirmed() -> None:
    until_ms = NOW + 3 * HOUR
    shard = Shard(a_send(PEOPLE[:4], siyu={"harvest_until_ms": until_ms}), Platform(), timings=SMALL)
    shard.run()
    check_send(shard, PEOPLE[:4])
    assert {(o.status, o.detail) for o in of_people(shard.outcomes).values()} == {("expired", "unconfirmed")}
    assert of_send(shard.outcomes).status == "done"
    assert until_ms <= shard.now_ms <= until_ms + HOUR


def test_a_staff_member_who_sends_late_is_noticed_late() -> None:
    platform = Platform()
    shard = Shard(a_send(PEOPLE[:3], sender="", text={"content": "x"}), platform, timings=SMALL)
    shard.run(until_ms=NOW + DAY)
    assert not of_people(shard.outcomes)
    platform.confirm("msg0", "s1")
    shard.run()
    check_send(shard, PEOPLE[:3])
    assert {o.detail for o in of_people(shard.outcomes).values()} == {"delivered"}


def test_staff_are_reminded_at_the_times_asked_for_while_they_have_not_sent_it() -> None:
    platform = Platform()
    times = [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]
    shard = Shard(a_send(PEOPLE[:2], siyu={"remind_after_ms": times}), platform, timings=SMALL)
    shard.run(until_ms=NOW + 2 * HOUR + 30 * MINUTE)
    assert platform.messages[0].reminded == 2
    platform.confirm("msg0", "s1")
    shard.run()
    assert platform.messages[0].reminded == 2
    reminders = [ask for ask in shard.asked if ask.key.endswith("#remind")]
    assert all(ask.durable and ask.claim.message_id == "msg0" for ask in reminders)


def test_three_reminders_of_a_message_in_a_day_are_all() -> None:
    platform = Platform()
    times = [n * HOUR for n in range(1, 7)]
    shard = Shard(a_send(PEOPLE[:2], siyu={"remind_after_ms": times}), platform, timings=SMALL)
    shard.run(until_ms=NOW + DAY)
    assert sum(ask.key.endswith("#remind") for ask in shard.asked) == 3


def test_when_wecom_says_that_a_message_was_reminded_of_enough_it_is_left_at_that() -> None:
    platform = Platform()
    shard = Shard(a_send(PEOPLE[:2], siyu={"remind_after_ms": [HOUR, 2 * HOUR]}), platform, timings=SMALL)
    while not platform.messages:
        shard.turn()
    platform.messages[0].reminded = 3
    shard.run()
    assert sum(ask.key.endswith("#remind") for ask in shard.asked) == 1
    check_send(shard, PEOPLE[:2])


def test_a_reminder_without_an_answer_counts_as_made() -> None:
    platform = Platform()
    shard = Shard(
        a_send(PEOPLE[:2], siyu={"remind_after_ms": [HOUR]}),
        platform,
        fate=lambda ask: CARRIED_OUT if ask.key.endswith("#remind") else FINE,
        timings=SMALL,
    )
    shard.run()
    assert platform.messages[0].reminded == 1


def test_no_death_repeats_a_reminder() -> None:
    def one(dies: set[int]) -> Shard:
        shard = Shard(
            a_send(PEOPLE[:2], siyu={"remind_after_ms": [HOUR], "harvest_until_ms": NOW + 2 * HOUR}),
            Platform(),
            dies_at=dies,
            timings=SMALL,
        )
        shard.run()
        return shard

    for point in range(1, one(set()).points + 1):
        shard = one({point})
        check_send(shard, PEOPLE[:2])
        assert shard.platform.messages[0].reminded <= 1


@pytest.mark.parametrize("fate", FATES)
def test_in_doubt_is_settled_by_asking_whatever_became_of_the_call(fate: str) -> None:
    left = [fate]
    platform = Prompt(strangers=frozenset({"c1"}))
    shard = Shard(
        a_send(PEOPLE),
        platform,
        fate=lambda ask: left.pop() if ask.key.endswith("#call") and left else FINE,
        timings=SMALL,
    )
    shard.run()
    check_send(shard, PEOPLE)
    assert len(platform.messages) == 3
    assert set(people_in(platform)) == set(PEOPLE) - {"c1"}
    assert of_people(shard.outcomes)["c1"].detail == "not_sendable"
    settled = Counter(o.detail for o in of_chunks(shard.outcomes))
    assert settled["settled_made"] == (fate in (CARRIED_OUT, LATE))


def test_several_in_doubt_of_the_same_content_are_told_apart_by_their_people() -> None:
    left = [CARRIED_OUT, LOST, CARRIED_OUT]
    platform = Prompt()
    other = a_send(["d1", "d2"])
    platform.carry_out(other.endpoint, other.payload)
    shard = Shard(
        a_send(PEOPLE),
        platform,
        fate=lambda ask: left.pop() if ask.key.endswith("#call") and left else FINE,
        timings=SMALL,
    )
    shard.run()
    check_outcomes(shard.outcomes)
    assert people_in(platform) == Counter([*PEOPLE, "d1", "d2"])
    for chunk in of_chunks(shard.outcomes):
        message = next(m for m in platform.messages if m.msgid == chunk.message_id)
        told = {o.customer_id for o in of_people(shard.outcomes).values() if o.parent_id == chunk.action_id}
        assert set(message.rows["s1"]) == told


def test_what_staff_made_themselves_is_not_taken_for_ours() -> None:
    platform = Prompt()
    theirs = a_send(PEOPLE[:4])
    platform.carry_out(theirs.endpoint, theirs.payload)
    platform.messages[0].creator = "s1"
    left = [LOST]
    shard = Shard(
        a_send(PEOPLE[:4]),
        platform,
        fate=lambda ask: left.pop() if ask.key.endswith("#call") and left else FINE,
        timings=SMALL,
    )
    shard.run()
    assert [o.message_id for o in of_chunks(shard.outcomes)] == ["msg1"]


def test_while_one_chunk_is_in_doubt_no_other_leaves() -> None:
    timings = changed(SMALL, sends={"chunks_at_once": 2})
    platform, left = Prompt(), [LOST]
    order: list[str] = []

    def fate(ask: Ask) -> str:
        order.append(ask.key.rpartition("#")[2])
        return left.pop() if ask.key.endswith("#call") and left else FINE

    shard = Shard(a_send(PEOPLE), platform, fate=fate, timings=timings)
    shard.run()
    check_send(shard, PEOPLE)
    doubt = order.index("settle")
    assert order[:doubt].count("call") == 2, "the two that left together"
    last = max(n for n, what in enumerate(order) if what == "settle")
    assert "call" not in order[doubt:last]


def test_a_chunk_that_waits_for_another_try_waits_for_the_one_in_doubt_as_well() -> None:
    fates = [LOST, NOT_SENT]
    order: list[str] = []

    def fate(ask: Ask) -> str:
        order.append(ask.key.rpartition("#")[2])
        return fates.pop() if ask.key.endswith("#call") and fates else FINE

    shard = Shard(a_send(PEOPLE[:8]), Prompt(), fate=fate, timings=SMALL)
    shard.run()
    check_send(shard, PEOPLE[:8])
    assert order[:4] == ["call", "call", "settle", "settle"]


def test_an_ask_that_waited_in_a_queue_does_not_leave_once_something_has_changed() -> None:
    """Two chunks are queued; the first is in doubt by the time the second is admitted."""
    shard = Shard(a_send(PEOPLE[:8]), Platform(), timings=SMALL)
    work = shard._at_hand()
    assert work is not None
    first, second = work.asks(NOW)
    out = work.going_out(first, NOW, b"{}", "rev")
    assert out is not None
    work.answered(out, Unknown("timeout", 20.0), NOW + 1, NOW + 1, 0.0)
    assert work.in_doubt == 1
    assert work.going_out(second, NOW + 2, b"{}", "rev") is None
    work.stop("blocked", "campaign_stopped", NOW + 3, NOW + 3)
    assert work.going_out(second, NOW + 4, b"{}", "rev") is None


def test_time_on_its_way_follows_the_pace_of_the_world() -> None:
    """At a thousand times the pace, a call may leave and arrive hours of business time after its admission."""
    shard = Shard(a_send(PEOPLE[:4]), Platform(), timings=SMALL)
    shard.around = replace(shard.around, pace=lambda: 1_000.0)
    work = begin(shard.source, shard.around, NOW)
    assert not isinstance(work, End)
    (ask,) = work.asks(NOW)
    work.going_out(ask, NOW, b"{}", "rev")
    successor = restore(work.records(NOW), shard.around, NOW + 1_000)
    (query,) = successor.asks(NOW + 1_000)
    left_until_s = (NOW + 23_000 * 1_000) // 1000
    assert json.loads(query.payload)["end_time"] == left_until_s + 300


@pytest.mark.parametrize("fate", [FINE, CARRIED_OUT, LOST])
def test_a_hundred_thousand_people_and_a_death_here_and_there(fate: str) -> None:
    people = [f"wm{number:030}" for number in range(100_000)]
    left = [fate]
    shard = Shard(
        a_send(people),
        Prompt(page=1_000),
        fate=lambda ask: left.pop() if ask.key.endswith("#call") and left else FINE,
        dies_at=[2, 9, 30, 77, 150, 290, 400],
    )
    shard.limits.amount = 10_000
    shard.run()
    check_send(shard, people)
    assert shard.deaths == 7
    assert people_in(shard.platform) == Counter(people)
    assert [len(message.rows["s1"]) for message in shard.platform.messages] == [10_000] * 10


def test_a_person_settles_a_chunk() -> None:
    for verdict, detail in (("done", "outcome_unknown"), ("not_done", "delivered")):
        fates = {"call": [LOST], "settle": [48001] * 9}
        shard = Shard(
            a_send(PEOPLE[:3]),
            Prompt(),
            fate=lambda ask, fates=fates: (fates.get(ask.key.rpartition("#")[2]) or [FINE]).pop(),
            timings=SMALL,
        )
        while not any(ask.key.endswith("#settle") for ask in shard.asked):
            shard.turn()
        assert shard.work is not None
        shard.tell(shard.work.settle_by_person(verdict, shard.now_ms, shard.now_ms))
        shard.run()
        check_send(shard, PEOPLE[:3])
        assert {o.detail for o in of_people(shard.outcomes).values()} == {detail}


def test_if_nobody_can_tell_everybody_ends_as_unknown_and_nothing_is_repeated() -> None:
    platform = Platform()
    shard = Shard(
        a_send(PEOPLE[:3]),
        platform,
        fate=lambda ask: CARRIED_OUT if ask.key.endswith("#call") else 48001,
        timings=SMALL,
    )
    shard.run()
    check_send(shard, PEOPLE[:3])
    assert len(platform.messages) == 1
    assert {(o.status, o.detail) for o in shard.outcomes} == {("failed", "outcome_unknown")}


def cancelled(shard: Shard) -> None:
    work = shard._at_hand()
    assert work is not None
    shard.tell(work.stop("cancelled", "operator_cancelled", shard.now_ms, shard.now_ms))


def test_cancelling_stops_what_has_not_left_and_what_staff_have_not_sent() -> None:
    timings = changed(SMALL, sends={"chunks_at_once": 1})
    platform = Platform(owner=lambda person: "s1" if person in ("c0", "c1") else "s2")
    shard = Shard(a_send(PEOPLE, sender=""), platform, timings=timings)
    while len(platform.messages) < 2:
        shard.turn()
    platform.confirm("msg0", "s1")
    cancelled(shard)
    shard.run()
    check_send(shard, PEOPLE)
    details = {person: o.detail for person, o in of_people(shard.outcomes).items()}
    assert [details[p] for p in ("c0", "c1")] == ["delivered", "delivered"]
    assert [details[p] for p in PEOPLE[2:8]] == ["unconfirmed"] * 6
    assert [details[p] for p in PEOPLE[8:]] == ["operator_cancelled"] * 3
    assert [message.cancelled for message in platform.messages] == [True, True]


@pytest.mark.parametrize("status", ["blocked", "suppressed"])
def test_what_is_blocked_later_keeps_the_results_of_what_has_left(status: Any) -> None:
    timings = changed(SMALL, sends={"chunks_at_once": 1})
    platform = Prompt()
    shard = Shard(a_send(PEOPLE), platform, timings=timings)
    while not platform.messages:
        shard.turn()
    assert shard.work is not None
    shard.tell(shard.work.stop(status, "campaign_stopped", shard.now_ms, shard.now_ms))
    shard.run()
    check_send(shard, PEOPLE)
    assert Counter(o.detail for o in of_people(shard.outcomes).values()) == {"delivered": 4, "campaign_stopped": 7}
    assert not platform.messages[0].cancelled


def test_cancelling_at_any_moment_and_dying_at_any_moment() -> None:
    def one(cancel_at: int, dies: set[int]) -> Shard:
        platform = Platform()
        shard = Shard(a_send(PEOPLE[:6]), platform, dies_at=dies, timings=SMALL)
        for _ in range(cancel_at):
            try_turn(shard)
        if not shard.outcomes or not any(o.action_id == "a1" for o in shard.outcomes):
            try:
                cancelled(shard)
            except Exception:
                shard.die()
        shard.run()
        return shard

    for cancel_at in range(1, 7):
        for point in range(1, one(cancel_at, set()).points + 1, 3):
            check_send(one(cancel_at, {point}), PEOPLE[:6])


def try_turn(shard: Shard) -> None:
    from .model_platform import Died

    try:
        shard.turn()
    except Died:
        shard.die()


@pytest.mark.parametrize("fate", FATES)
def test_killed_at_every_step_each_person_is_in_exactly_one_accepted_request(fate: str) -> None:
    """R7: kill at every step of a send."""

    def one(dies: set[int]) -> Shard:
        left = [fate]
        platform = Prompt(decide=mixed, strangers=frozenset({"c5"}))
        shard = Shard(
            a_send(PEOPLE),
            platform,
            fate=lambda ask: left.pop() if ask.key.endswith("#call") and left else FINE,
            dies_at=dies,
            timings=SMALL,
        )
        shard.suppressed = {"c2"}
        shard.run()
        return shard

    quiet = one(set())
    for point in range(1, quiet.points + 1):
        shard = one({point})
        assert shard.deaths == 1
        check_send(shard, PEOPLE)
        assert people_in(shard.platform) == Counter(set(PEOPLE) - {"c2", "c5"})
        expected = {p: (o.status, o.detail) for p, o in of_people(quiet.outcomes).items()}
        assert {p: (o.status, o.detail) for p, o in of_people(shard.outcomes).items()} == expected


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dies=st.sets(st.integers(1, 120), max_size=8),
    count=st.integers(1, 14),
    sender=st.booleans(),
    prompt=st.booleans(),
)
def test_any_fate_of_any_call_and_any_death(seed: int, dies: set[int], count: int, sender: bool, prompt: bool) -> None:
    chance = Random(seed)
    people = [f"c{n}" for n in range(count)]
    trouble, seen = chance.randrange(25), 0
    refusals = False

    def fate(ask: Ask) -> str | int:
        nonlocal seen, refusals
        seen += 1
        if seen > trouble:
            return FINE
        drawn = chance.choice([*FATES, LATE, LOST, 45009, 40014, 45033, 6000, 41063])
        refusals = refusals or isinstance(drawn, int)
        return drawn

    kind = Prompt if prompt else Platform
    platform = kind(
        decide=mixed,
        strangers=frozenset(p for p in people if chance.random() < 0.2),
        owner=lambda person: "s1" if mixed(person) == 1 else "s2",
        shown_after_ms=chance.randrange(60_000),
    )
    action = a_send(
        people, sender="s1" if sender else "", siyu={"remind_after_ms": [HOUR], "harvest_until_ms": NOW + 5 * HOUR}
    )
    shard = Shard(action, platform, fate=fate, dies_at=dies, order=chance, timings=SMALL)
    shard.suppressed = {p for p in people if chance.random() < 0.1}
    shard.run()
    check_send(shard, people)
    for person, outcome in of_people(shard.outcomes).items():
        if outcome.status == "done":
            assert any(rows.get(person) == 1 for m in platform.messages for rows in m.rows.values())
        if outcome.status in ("suppressed", "rejected"):
            assert person not in people_in(platform)
    if not refusals:
        expected = set(people) - shard.suppressed - platform.strangers
        assert people_in(platform) == Counter(expected)


def test_a_damaged_list_is_named_and_nothing_leaves() -> None:
    shard = Shard(a_send(PEOPLE), Platform(), timings=SMALL)
    shard.turn()
    entries = [entry for entry in shard.ledger.values() if not entry.action_id.endswith("#body1")]
    with pytest.raises(LedgerDamaged, match="2 of 3 records"):
        restore(entries, shard.around, NOW)


def test_the_records_of_a_send_stay_small_but_for_its_list() -> None:
    people = [f"wm{number:030}" for number in range(2_000)]
    shard = Shard(a_send(people), Prompt(page=500), timings=changed(SMALL, sends={"ids_a_record": 1_000}))
    shard.limits.amount = 1_000
    sizes: Counter[str] = Counter()
    while shard.turn():
        for entry in shard.ledger.values():
            kind = "body" if "#body" in entry.action_id else "rest"
            sizes[kind] = max(sizes[kind], len(entry.memory))
    assert sizes["body"] > 30_000
    assert sizes["rest"] < 3_000


def test_the_payload_leaves_without_options_of_ours() -> None:
    shard = Shard(a_send(PEOPLE[:2], siyu={"remind_after_ms": []}), Prompt(), timings=SMALL)
    shard.run()
    (sent,) = [ask for ask in shard.asked if ask.key.endswith("#call")]
    assert json.loads(sent.payload) == {
        "chat_type": "single",
        "sender": "s1",
        "text": {"content": "hello"},
        "external_userid": ["c0", "c1"],
    }
    assert (sent.claim.staff_id, sent.claim.persons, sent.lane, sent.durable) == ("s1", 2, "bulk", True)


def test_a_send_is_an_action_like_any_other() -> None:
    shard = Shard(a_send(PEOPLE), Prompt(), timings=SMALL)
    work = begin(shard.source, shard.around, NOW)
    assert not isinstance(work, End)
    assert isinstance(work.action, Action)
    assert b"external_userid" not in work.action.payload
    assert work.kept
