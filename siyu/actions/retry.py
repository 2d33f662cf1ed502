"""Whether an action that has ended may be repeated, and the action that repeats it. Pure.

A repeat is an action of its own: its id follows from the id of the first and the number of the repeat, so asking twice
for one repeat makes one action; ``caused_by`` names the first. Nothing is repeated that WeCom has accepted, in whole or
in part, or of which nobody knows.
"""

from __future__ import annotations

from siyu.actions.errors import Invalid, Refused
from siyu.actions.model import SENT, ActionView
from siyu.events import Action, ActionOutcome
from siyu.events.ids import stable_id
from siyu.wecom.endpoints import ENDPOINTS

UNKNOWN = "outcome_unknown"
"""``detail`` of an end where a call may have been carried out."""
MOST_REPEATS = 20
"""Whoever has repeated one action so often should look at its cause."""


def repeat_id(action_id: str, number: int) -> str:
    """Id of the ``number``-th repeat, from 1."""
    return stable_id("retry", action_id, number)


def check_repeatable(view: ActionView, *, known_not_done: bool = False) -> None:
    """Raises Refused. ``known_not_done``: a person has looked at what nobody knew, and it was not carried out."""
    if view.state != "ended":
        raise Refused("not_ended", f"it is {view.state}: an action is repeated once it has ended")
    if view.status in SENT:
        raise Refused("already_done", "WeCom has accepted it; a repeat would do it twice")
    endpoint = ENDPOINTS.get(view.endpoint)
    if endpoint is None:
        raise Refused("endpoint_not_allowed", "its endpoint is none that this system may call")
    if view.detail == UNKNOWN and not endpoint.repeat_safe and not known_not_done:
        raise Refused(
            "outcome_unknown",
            "nobody knows whether WeCom carried it out: look there first, and if it did not, say so with the repeat",
        )


def next_number(repeats: list[ActionView | None]) -> int:
    """The number of the next repeat, given what is known of the first ones (None: nothing). Raises Refused.

    A repeat nothing is known of has not been asked for, or is on its way: then asking again makes no second action.
    """
    for number, repeat in enumerate(repeats, 1):
        if repeat is None:
            return number
        if repeat.state != "ended":
            raise Refused("repeat_under_way", f"its repeat {repeat.action_id} is {repeat.state}")
        if repeat.status in SENT:
            raise Refused("already_done", f"its repeat {repeat.action_id} was accepted")
        if repeat.detail == UNKNOWN:
            raise Refused("outcome_unknown", f"repeat {repeat.action_id}, of which nobody knows whether it was done")
    raise Refused("too_many_repeats", f"it has been repeated {len(repeats)} times; look at the reason of its end")


def make_repeat(outcome: ActionOutcome, number: int, *, now_ms: int, deadline_ms: int | None = None) -> Action:
    """The action that repeats this one. ``now_ms`` business time; ``deadline_ms`` None: as long as the first had.

    A code that can be used once (a welcome code, fact sheet 3.4) lives as long as it did before: the first deadline
    stays. Raises Refused and Invalid.
    """
    if not outcome.request:
        raise Refused("no_request", "a part of an action has no request of its own: ask for a new action")
    once = ENDPOINTS[outcome.endpoint].repeat == "once"
    if once and not outcome.deadline_ms:
        raise Refused("code_expired", "nobody knows how long its code lives")
    if once and now_ms >= outcome.deadline_ms:
        raise Refused("code_expired", "the platform's code has expired (a welcome's lives 20 s); a repeat would fail")
    if deadline_ms is None:
        span = outcome.deadline_ms - outcome.created_ms
        deadline_ms = outcome.deadline_ms if once or not outcome.deadline_ms else now_ms + max(span, 0)
    if deadline_ms and deadline_ms <= now_ms:
        raise Invalid("deadline", "a deadline must lie later than now")
    if once and not 0 < deadline_ms <= outcome.deadline_ms:
        raise Invalid("deadline", "the code does not live longer than the first deadline")
    return Action(
        action_id=repeat_id(outcome.action_id, number),
        lane=outcome.lane,
        corp_id=outcome.corp_id,
        endpoint=outcome.endpoint,
        subject=outcome.subject,
        staff_id=outcome.staff_id,
        customer_id=outcome.customer_id,
        payload=outcome.request,
        reason=outcome.reason,
        caused_by=outcome.action_id,
        created_ms=now_ms,
        not_before_ms=0,
        deadline_ms=deadline_ms,
        trigger_received_at_ms=0,
        campaign_id=outcome.campaign_id,
    )


def queued_view(action: Action, customer: str, appended_ms: int) -> ActionView:
    """An action nothing has been done about yet. ``appended_ms``: wall time at which Kafka got it."""
    return ActionView(
        action_id=action.action_id,
        corp_id=action.corp_id,
        lane=action.lane,
        endpoint=action.endpoint,
        state="queued",
        status=None,
        detail="",
        errcode=0,
        calls=0,
        staff_id=action.staff_id,
        customer=customer,
        campaign_id=action.campaign_id,
        reason=action.reason,
        caused_by=action.caused_by,
        parent_id="",
        message_id="",
        created_ms=action.created_ms,
        not_before_ms=action.not_before_ms or None,
        deadline_ms=action.deadline_ms or None,
        due_ms=None,
        updated_at_ms=appended_ms,
    )
