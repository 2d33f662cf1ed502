"""What may be repeated, and what a repeat is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.actions import retry
from siyu.actions.errors import Invalid, Refused
from siyu.actions.model import STATUSES, ActionView
from siyu.events import ActionOutcome

NOW = 1_790_913_600_000
SEND, WELCOME, TAG = (f"externalcontact/{name}" for name in ("add_msg_template", "send_welcome_msg", "mark_tag"))


def outcome(**fields: Any) -> ActionOutcome:
    whole = ActionOutcome(
        action_id="a1",
        lane="bulk",
        corp_id="ww1",
        endpoint=TAG,
        subject="ww1|wm1",
        staff_id="s1",
        customer_id="wm1",
        status="failed",
        errcode=60011,
        detail="permission",
        calls=1,
        reason="tags@1",
        caused_by="e1",
        created_ms=NOW - 3_600_000,
        deadline_ms=NOW - 1_800_000,
        trigger_received_at_ms=NOW,
        finished_at_ms=NOW,
        request=b'{"userid":"s1"}',
        response=b"",
        campaign_id="c1",
    )
    return msgspec.structs.replace(whole, **fields)


def view(**fields: Any) -> ActionView:
    whole = ActionView(
        action_id="a1",
        corp_id="ww1",
        lane="bulk",
        endpoint=TAG,
        state="ended",
        status="failed",
        detail="permission",
        errcode=60011,
        calls=1,
        staff_id="s1",
        customer="#1",
        campaign_id="c1",
        reason="tags@1",
        caused_by="e1",
        parent_id="",
        message_id="",
        created_ms=NOW,
        not_before_ms=None,
        deadline_ms=None,
        due_ms=None,
        updated_at_ms=NOW,
    )
    return msgspec.structs.replace(whole, **fields)


def refusal(*args: Any, **fields: Any) -> str:
    with pytest.raises(Refused) as refused:
        retry.check_repeatable(view(**fields), *args)
    return refused.value.code


@pytest.mark.parametrize("status", STATUSES)
def test_what_wecom_accepted_is_never_repeated_and_everything_else_may_be(status: str) -> None:
    if status in ("done", "already_done"):
        assert refusal(status=status) == "already_done"
    else:
        retry.check_repeatable(view(status=status))


@pytest.mark.parametrize("state", ["queued", "waiting", "prepared", "in_doubt", "accepted"])
def test_what_has_not_ended_is_not_repeated(state: str) -> None:
    assert refusal(state=state, status=None) == "not_ended"


def test_of_what_nobody_knows_only_calls_that_may_come_twice_are_repeated() -> None:
    assert refusal(endpoint=SEND, detail=retry.UNKNOWN) == "outcome_unknown"
    retry.check_repeatable(view(endpoint=SEND, detail=retry.UNKNOWN), known_not_done=True)
    retry.check_repeatable(view(endpoint=TAG, detail=retry.UNKNOWN))


def test_an_endpoint_that_may_not_be_called_is_not_called_by_a_repeat() -> None:
    assert refusal(endpoint="externalcontact/delete_customer") == "endpoint_not_allowed"


def test_asking_twice_makes_one_repeat_until_that_one_has_ended() -> None:
    assert retry.next_number([None]) == 1
    assert retry.next_number([view(status="failed"), None]) == 2
    for repeat, code in (
        (view(state="waiting", status=None), "repeat_under_way"),
        (view(status="done"), "already_done"),
        (view(detail=retry.UNKNOWN), "outcome_unknown"),
    ):
        with pytest.raises(Refused) as refused:
            retry.next_number([repeat, None])
        assert refused.value.code == code
    with pytest.raises(Refused) as refused:
        retry.next_number([view()] * retry.MOST_REPEATS)
    assert refused.value.code == "too_many_repeats"


@given(st.integers(1, 20), st.integers(1, 20))
def test_each_repeat_has_an_id_of_its_own_which_is_always_the_same(one: int, other: int) -> None:
    made = [retry.make_repeat(outcome(), number, now_ms=NOW + number).action_id for number in (one, other)]
    assert (made[0] == made[1]) == (one == other)
    assert "a1" not in made


def test_a_repeat_asks_for_the_same_and_names_what_it_repeats() -> None:
    first = outcome()
    action = retry.make_repeat(first, 1, now_ms=NOW)
    assert action.caused_by == "a1"
    assert action.payload == first.request
    same = ("lane", "corp_id", "endpoint", "subject", "staff_id", "customer_id", "reason", "campaign_id")
    assert all(getattr(action, name) == getattr(first, name) for name in same)
    assert action.created_ms == NOW


def test_a_repeat_has_as_long_as_the_first_had_unless_somebody_says_otherwise() -> None:
    assert retry.make_repeat(outcome(), 1, now_ms=NOW).deadline_ms == NOW + 1_800_000
    assert retry.make_repeat(outcome(deadline_ms=0), 1, now_ms=NOW).deadline_ms == 0
    assert retry.make_repeat(outcome(), 1, now_ms=NOW, deadline_ms=NOW + 5).deadline_ms == NOW + 5
    with pytest.raises(Invalid):
        retry.make_repeat(outcome(), 1, now_ms=NOW, deadline_ms=NOW)


@given(st.integers(0, 40_000))
def test_a_welcome_is_repeated_only_while_its_code_lives(later_ms: int) -> None:
    added_ms = NOW
    first = outcome(endpoint=WELCOME, lane="welcome", created_ms=added_ms, deadline_ms=added_ms + 20_000)
    if later_ms < 20_000:
        assert retry.make_repeat(first, 1, now_ms=added_ms + later_ms).deadline_ms == added_ms + 20_000
    else:
        with pytest.raises(Refused) as refused:
            retry.make_repeat(first, 1, now_ms=added_ms + later_ms)
        assert refused.value.code == "code_expired"


def test_a_new_deadline_makes_no_code_live_longer() -> None:
    first = outcome(endpoint=WELCOME, created_ms=NOW, deadline_ms=NOW + 20_000)
    for deadline_ms in (NOW + 20_001, 0):
        with pytest.raises(Invalid):
            retry.make_repeat(first, 1, now_ms=NOW, deadline_ms=deadline_ms)
    with pytest.raises(Refused):
        retry.make_repeat(outcome(endpoint=WELCOME, deadline_ms=0), 1, now_ms=NOW)


def test_a_part_without_a_request_of_its_own_is_not_repeated() -> None:
    with pytest.raises(Refused) as refused:
        retry.make_repeat(outcome(request=b""), 1, now_ms=NOW)
    assert refused.value.code == "no_request"
