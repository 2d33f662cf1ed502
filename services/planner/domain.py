"""The welcome rule: every welcome code becomes exactly one action, however often its event is delivered.

A code is the event's own proof that a welcome may be sent: the platform leaves it out when the console sends one or
the chat had started. It lives 20 s from the event, so the deadline is the event's time plus that, not our arrival's.
"""

from __future__ import annotations

import msgspec

from services.planner.rules import WelcomeRule
from siyu.events import Action, ContactEvent
from siyu.events.ids import customer_key, stable_id

MEMORY_MS = 24 * 3_600_000
"""Business time for which a code is remembered. The platform repeats a callback within minutes."""
MEMORY_CODES = 64
"""More codes of one customer than that within the memory, and the oldest is forgotten."""


class Planned(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One action that was made."""

    event_time_ms: int
    action_id: str


class CustomerPlan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What has been planned for a customer lately, by event time. Event times at or before ``forgotten_ms`` are
    closed: what came then and is not remembered cannot be told from a repeat, so nothing is made of it."""

    recent: tuple[Planned, ...] = ()
    forgotten_ms: int = 0


def plan(
    state: CustomerPlan | None, event: ContactEvent, rule: WelcomeRule
) -> tuple[CustomerPlan | None, Action | None]:
    """The welcome this event calls for, if any. The same state object comes back when nothing changed."""
    if event.change not in ("add", "add_half") or not event.welcome_code:
        return state, None
    known = state or CustomerPlan()
    action_id = stable_id("welcome", event.corp_id, event.staff_id, event.customer_id, event.welcome_code)
    if event.event_time_ms <= known.forgotten_ms or any(p.action_id == action_id for p in known.recent):
        return state, None

    recent = sorted((*known.recent, Planned(event.event_time_ms, action_id)), key=lambda p: p.event_time_ms)
    forgotten_ms = max(known.forgotten_ms, recent[-1].event_time_ms - MEMORY_MS)
    if len(recent) > MEMORY_CODES:
        forgotten_ms = max(forgotten_ms, recent[-MEMORY_CODES - 1].event_time_ms)
    kept = tuple(p for p in recent if p.event_time_ms > forgotten_ms)

    version = rule.at(event.event_time_ms)
    action = Action(
        action_id=action_id,
        lane="welcome",
        corp_id=event.corp_id,
        endpoint=rule.endpoint,
        subject=customer_key(event.corp_id, event.customer_id),
        staff_id=event.staff_id,
        customer_id=event.customer_id,
        payload=msgspec.json.encode({"welcome_code": event.welcome_code, "text": {"content": version.content}}),
        reason=f"{rule.id}@{version.version}",
        caused_by=event.event_id,
        created_ms=event.event_time_ms,
        not_before_ms=0,
        deadline_ms=event.event_time_ms + rule.ttl_ms,
        trigger_received_at_ms=event.received_at_ms,
    )
    return CustomerPlan(kept, forgotten_ms), action
