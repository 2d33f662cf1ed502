"""Single actions: what is repeated, what is settled first, and what each ends as, through any death."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.domain import End
from services.executor.work import LedgerDamaged, Verdict, begin, restore
from siyu.events import Action, ActionOutcome
from siyu.wecom.client import Answer

from .model_platform import (
    CARRIED_OUT,
    DAY,
    FATES,
    FINE,
    LATE,
    LOST,
    NOT_SENT,
    NOW,
    Died,
    Platform,
    Shard,
    an_action,
    check_outcomes,
)

X = "externalcontact/"


def make(endpoint: str, payload: dict[str, Any], **changes: Any) -> Action:
    return an_action(endpoint=endpoint, payload=json.dumps(payload).encode(), **changes)


def welcome(**changes: Any) -> Action:
    return make(X + "send_welcome_msg", {"welcome_code": "w"}, lane="welcome", deadline_ms=NOW + 20_000, **changes)


WAY = make(X + "add_contact_way", {"type": 2, "scene": 2, "state": "qr-7", "remark": "door", "user": ["s1", "s2"]})
TAGS = make(X + "add_corp_tag", {"group_name": "level", "tag": [{"name": "gold"}, {"name": "silver"}]})
MOMENT = make(
    X + "add_moment_task",
    {"text": {"content": "new"}, "visible_range": {"sender_list": {"user_list": ["s1", "s2", "s3", "s4"]}}},
)
TRANSFER = make(
    X + "transfer_customer",
    {"handover_userid": "s1", "takeover_userid": "s2", "external_userid": ["c1", "c2", "c3", "c4", "c5"]},
)
GROUPS = make(X + "groupchat/onjob_transfer", {"chat_id_list": ["g1", "g2"], "new_owner": "s2"})
CREATING = {"way": WAY, "tags": TAGS, "moment": MOMENT, "transfer": TRANSFER, "groups": GROUPS}


def made(platform: Platform, action: Action) -> int:
    """How many times something was made."""
    name = action.endpoint.removeprefix(X)
    return {
        "add_contact_way": len(platform.ways),
        "add_moment_task": len(platform.moments),
        "add_corp_tag": platform.calls[action.endpoint],
        "transfer_customer": platform.calls[action.endpoint],
        "groupchat/onjob_transfer": platform.calls[action.endpoint],
    }[name]


def whole(outcomes: list[ActionOutcome]) -> ActionOutcome:
    (found,) = [o for o in outcomes if o.action_id == "a1"]
    return found


def fates(*given: str | int) -> Callable[[Any], str | int]:
    """Of the calls of the action itself; whatever comes after these is fine."""
    left = list(given)
    return lambda ask: left.pop(0) if ask.key.endswith("#call") and left else FINE


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"endpoint": X + "delete_friend"}, End("rejected", "endpoint_not_allowed")),
        ({"endpoint": "gettoken"}, End("rejected", "endpoint_not_allowed")),
        ({"payload": b"[1]"}, End("rejected", "payload_malformed")),
        ({"payload": b"{"}, End("rejected", "payload_malformed")),
        ({"payload": b"\xff"}, End("rejected", "payload_malformed")),
        ({"payload": b" " * 6_291_457}, End("rejected", "payload_too_large")),
        ({"not_before_ms": NOW + 30_000}, End("rejected", "contradictory")),
    ],
)
def test_bad_input_ends_at_once_with_a_reason(changes: dict[str, Any], end: End) -> None:
    action = welcome()
    for name, value in changes.items():
        action = type(action)(**{f: getattr(action, f) for f in action.__struct_fields__} | {name: value})
    shard = Shard(action, Platform())
    assert begin(action, shard.around, NOW) == end
    (outcome,) = shard.run()
    assert (outcome.status, outcome.detail) == (end.status, end.detail)
    assert not shard.asked


def test_a_welcome_is_sent_once_and_leaves_a_small_record() -> None:
    shard = Shard(welcome(), Platform())
    (outcome,) = shard.run()
    assert (outcome.status, outcome.detail, outcome.calls) == ("done", "ok", 1)
    entry = shard.ledger["a1"]
    assert (entry.state, entry.status, entry.memory) == ("ended", "done", b"")
    assert (entry.limits_revision, entry.admission, entry.admitted_at_ms) == ("rev", b"{}", NOW)


def test_a_welcome_whose_answer_was_lost_is_repeated_and_already_used_means_done() -> None:
    shard = Shard(welcome(), Platform(), fate=fates(CARRIED_OUT))
    (outcome,) = shard.run()
    assert (outcome.status, outcome.detail, outcome.calls) == ("already_done", "already_welcomed", 2)


def test_a_welcome_that_may_have_gone_never_expires() -> None:
    shard = Shard(welcome(), Platform(), fate=lambda ask: LOST)
    (outcome,) = shard.run()
    assert (outcome.status, outcome.detail) == ("failed", "outcome_unknown")
    shard = Shard(welcome(), Platform(), fate=lambda ask: NOT_SENT)
    (outcome,) = shard.run()
    assert (outcome.status, outcome.detail) == ("expired", "deadline_passed")
    assert outcome.calls == 0


def test_a_welcome_is_not_called_after_its_deadline() -> None:
    platform = Platform(now_ms=NOW + 20_001)
    (outcome,) = Shard(welcome(), platform).run()
    assert (outcome.status, outcome.detail) == ("expired", "deadline_passed")
    assert not platform.calls


def test_a_death_with_a_welcome_out_is_a_doubt_that_outlives_the_deadline() -> None:
    shard = Shard(welcome(), Platform())
    points = [n for n in range(1, 30) if _state_when_dying(welcome(), n) == "prepared"]
    assert points, "the call is out at some of them"
    for point in points:
        platform = Platform()
        shard = Shard(welcome(), platform, dies_at={point})
        while not shard.deaths:
            try:
                shard.turn()
            except Died:
                shard.die()
        platform.now_ms = NOW + 60_000
        outcomes = shard.run()
        assert (outcomes[0].status, outcomes[0].detail) == ("failed", "outcome_unknown")


def _state_when_dying(action: Action, point: int) -> str:
    shard = Shard(action, Platform(), dies_at={point})
    for _ in range(20):
        try:
            if not shard.turn():
                return ""
        except Died:
            return shard.ledger["a1"].state if "a1" in shard.ledger else ""
    return ""


def test_what_sets_or_reads_keeps_nothing_but_its_end() -> None:
    for action in (
        make(X + "mark_tag", {"userid": "s1", "external_userid": "c1", "add_tag": ["t"]}),
        make(X + "get", {"external_userid": "c1"}),
    ):
        shard = Shard(action, Platform(), fate=fates(LOST, CARRIED_OUT))
        (outcome,) = shard.run()
        assert (outcome.status, outcome.calls) == ("done", 3)
        assert [entry.state for entry in shard.ledger.values()] == ["ended"]
        assert not any(ask.durable for ask in shard.asked)
        assert bool(outcome.response) == (action.endpoint == X + "get")


@pytest.mark.parametrize("name", CREATING)
@pytest.mark.parametrize("fate", FATES)
def test_what_is_made_is_made_once_whatever_becomes_of_the_answer(name: str, fate: str) -> None:
    action, platform = CREATING[name], Platform()
    shard = Shard(action, platform, fate=fates(fate))
    outcomes = shard.run()
    check_outcomes(outcomes)
    assert whole(outcomes).status == "done"
    assert whole(outcomes).detail == ("settled_made" if fate in (CARRIED_OUT, LATE) else "ok")
    assert made(platform, action) == 1


@pytest.mark.parametrize("name", CREATING)
@pytest.mark.parametrize("fate", [FINE, LOST, CARRIED_OUT, LATE])
def test_what_is_made_is_made_once_wherever_the_process_dies(name: str, fate: str) -> None:
    quiet = Shard(CREATING[name], Platform(), fate=fates(fate))
    quiet.run()
    for point in range(1, quiet.points + 1):
        platform = Platform()
        shard = Shard(CREATING[name], platform, fate=fates(fate), dies_at={point})
        outcomes = shard.run()
        check_outcomes(outcomes)
        assert shard.deaths == 1
        assert whole(outcomes).status == "done"
        assert made(platform, CREATING[name]) == 1


def test_settling_waits_until_a_listing_can_tell() -> None:
    """A call that arrives a minute late is found, not repeated."""
    platform = Platform()
    shard = Shard(WAY, platform, fate=fates(LATE))
    shard.run()
    assert len(platform.ways) == 1
    assert shard.now_ms >= NOW + 120_000


def test_a_way_of_another_call_is_not_taken_for_ours() -> None:
    platform = Platform()
    platform.carry_out(WAY.endpoint, WAY.payload)
    shard = Shard(WAY, platform, fate=fates(LOST))
    known = shard.around.known_message
    shard.around = type(shard.around)(
        **{**shard.around.__dict__, "known_message": lambda corp, made: made == "way0" or known(corp, made)}
    )
    outcomes = shard.run()
    assert len(platform.ways) == 2
    assert whole(outcomes).message_id == "way1"


def test_a_query_that_fails_is_never_taken_for_not_found() -> None:
    platform = Platform()
    answers = iter([LOST, 48001, -1, 45009, 40014, NOT_SENT, LOST, 50001] * 3)

    def fate(ask: Any) -> str | int:
        if ask.key.endswith("#call"):
            return CARRIED_OUT
        return next(answers, FINE)

    shard = Shard(WAY, platform, fate=fate)
    outcomes = shard.run()
    assert whole(outcomes).detail == "settled_made"
    assert len(platform.ways) == 1


def test_if_no_query_ever_answers_the_outcome_stays_unknown_and_nothing_is_repeated() -> None:
    platform = Platform()
    shard = Shard(WAY, platform, fate=lambda ask: CARRIED_OUT if ask.key.endswith("#call") else 50001)
    outcomes = shard.run()
    assert (whole(outcomes).status, whole(outcomes).detail) == ("failed", "outcome_unknown")
    assert len(platform.ways) == 1
    assert shard.now_ms >= NOW + DAY


@pytest.mark.parametrize(
    ("verdict", "status", "detail", "sent"),
    [("done", "done", "settled_by_person", 1), ("not_done", "done", "ok", 2)],
)
def test_a_person_settles_what_no_query_can_tell(verdict: Any, status: str, detail: str, sent: int) -> None:
    action = make("message/send", {"touser": "s1|s2", "msgtype": "text"}, lane="urgent")
    platform = Platform()
    shard = Shard(action, platform, fate=fates(CARRIED_OUT))
    for _ in range(3):
        shard.turn()
        if shard.asked:
            break
    assert shard.ledger["a1"].state == "in_doubt"
    assert shard.asked[0].claim.persons == 2
    shard.die()  # and the successor knows it, too
    shard.turn()
    assert shard.work is not None
    shard.tell(shard.work.settle_by_person(verdict, shard.now_ms, shard.now_ms))
    outcomes = shard.run()
    assert (whole(outcomes).status, whole(outcomes).detail) == (status, detail)
    assert len(platform.apps) == sent


@pytest.mark.parametrize("endpoint", ["message/send", X + "remind_groupmsg_send"])
def test_what_nobody_settles_ends_as_unknown_at_the_horizon(endpoint: str) -> None:
    shard = Shard(make(endpoint, {"msgid": "msg0", "touser": "s1"}), Platform(), fate=fates(LOST))
    (outcome,) = shard.run()
    assert (outcome.status, outcome.detail) == ("failed", "outcome_unknown")
    assert len(shard.asked) == 1


def test_each_customer_of_a_transfer_has_an_outcome() -> None:
    platform = Platform(strangers=frozenset({"c2"}))
    outcomes = Shard(TRANSFER, platform).run()
    parts = {o.customer_id: (o.status, o.detail, o.errcode) for o in outcomes if o.parent_id == "a1"}
    assert parts == {
        customer: ("rejected", "refused", 40129) if customer == "c2" else ("done", "ok", 0)
        for customer in ("c1", "c2", "c3", "c4", "c5")
    }
    outcomes = Shard(TRANSFER, Platform(strangers=frozenset({"c2"})), fate=fates(CARRIED_OUT)).run()
    parts2 = {o.customer_id: (o.status, o.detail) for o in outcomes if o.parent_id == "a1"}
    assert parts2.pop("c2") == ("rejected", "not_taken")
    assert set(parts2.values()) == {("done", "settled_made")}


def test_answers_tell_the_governor_and_the_tokens_what_to_do() -> None:
    shard = Shard(welcome(), Platform())
    verdicts = []
    for code, *_ in ([40014], [45009], [45033]):
        work = begin(welcome(), shard.around, NOW)
        assert not isinstance(work, End)
        (ask,) = work.asks(NOW)
        out = work.going_out(ask, NOW, b"", "")
        assert out is not None
        verdicts.append(work.answered(out, Answer(code, b"{}", 0.1), NOW + 1, NOW, 0.0).verdict)
    token, freeze, slow = verdicts
    assert token == Verdict(renew_token=True, errcode=40014)
    assert freeze == Verdict(freeze=True, errcode=45009)
    assert slow == Verdict(slow=True, errcode=45033)


@pytest.mark.parametrize("detail", ["operator_cancelled"])
def test_what_is_stopped_before_it_leaves_makes_no_call(detail: str) -> None:
    shard = Shard(WAY, Platform())
    work = begin(WAY, shard.around, NOW)
    assert not isinstance(work, End)
    (outcome,) = work.stop("cancelled", detail, NOW, NOW).outcomes
    assert (outcome.status, outcome.detail, outcome.calls) == ("cancelled", detail, 0)
    assert work.ended
    assert work.asks(NOW) == []


def test_what_is_stopped_while_in_doubt_is_settled_first() -> None:
    for fate, status in ((CARRIED_OUT, "done"), (LOST, "cancelled")):
        platform = Platform()
        shard = Shard(WAY, platform, fate=fates(fate))
        while not shard.asked:
            shard.turn()
        assert shard.work is not None
        shard.tell(shard.work.stop("cancelled", "operator_cancelled", shard.now_ms, shard.now_ms))
        assert not shard.outcomes
        shard.die()
        outcomes = shard.run()
        assert whole(outcomes).status == status
        assert len(platform.ways) == (fate == CARRIED_OUT)


def test_an_action_without_a_deadline_is_held_only_as_long_as_its_lane_says() -> None:
    action = make(X + "get", {"external_userid": "c1"}, lane="sync")
    (outcome,) = Shard(action, Platform(), fate=lambda ask: NOT_SENT).run()
    assert (outcome.status, outcome.detail) == ("expired", "held_too_long")


def test_a_damaged_record_is_named_and_never_repeated() -> None:
    shard = Shard(WAY, Platform(), fate=fates(LOST))
    while not shard.asked:
        shard.turn()
    entry = shard.ledger["a1"]
    broken = type(entry)(**{f: getattr(entry, f) for f in entry.__struct_fields__} | {"memory": b"\x00"})
    with pytest.raises(LedgerDamaged, match="a1"):
        restore([broken], shard.around, NOW)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted([*CREATING, "welcome"])),
    seed=st.integers(0, 2**32),
    dies=st.sets(st.integers(1, 60), max_size=6),
)
def test_any_fate_of_any_call_and_any_death(name: str, seed: int, dies: set[int]) -> None:
    chance = Random(seed)
    trouble = chance.randrange(12)
    count = 0

    def fate(ask: Any) -> str | int:
        nonlocal count
        count += 1
        if count > trouble:
            return FINE
        return chance.choice([*FATES, 45009, -1, 40014, 45033, 6000])

    action, platform = {**CREATING, "welcome": welcome()}[name], Platform(shown_after_ms=chance.randrange(60_000))
    shard = Shard(action, platform, fate=fate, dies_at=dies, order=chance)
    outcomes = shard.run()
    check_outcomes(outcomes)
    outcome = whole(outcomes)
    if name == "welcome":
        if outcome.status in ("done", "already_done"):
            assert platform.welcomed
        if outcome.status == "expired":
            assert not platform.welcomed
        return
    if outcome.status == "done":
        assert made(platform, action) == 1
    else:
        assert outcome.detail in ("retries_used_up", "token_refused"), outcome.detail
        assert made(platform, action) == 0
