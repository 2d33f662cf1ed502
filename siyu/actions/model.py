"""What there is to show, as types: the command line prints them, the API answers with them and describes them from
here.

Times: ``*_ms`` epoch milliseconds UTC, absent (null) where there is none. ``created_ms``, ``not_before_ms``,
``deadline_ms``, ``due_ms``, ``admitted_at_ms`` and ``frozen_until_ms`` are business time, the others wall time.
A customer is a short hash, the same for the same customer, unless somebody who may asked for people.
"""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import msgspec

from siyu.events import ActionStatus, Lane

State = Literal["queued", "waiting", "prepared", "in_doubt", "accepted", "ended"]
"""``queued``: in its lane, nothing has been done about it yet. The others are the ledger's."""
OPEN_STATES: tuple[str, ...] = ("waiting", "prepared", "in_doubt", "accepted")
STATUSES: tuple[str, ...] = get_args(ActionStatus)
SENT: frozenset[str] = frozenset({"done", "already_done"})


class Shown(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that is shown."""


class ActionView(Shown, frozen=True, kw_only=True):
    """One action as it stands."""

    action_id: str
    corp_id: str
    lane: Lane
    endpoint: str
    state: State
    status: ActionStatus | None
    """How it ended."""
    detail: str
    """Machine-readable reason, from a closed set."""
    errcode: int
    """Last errcode of WeCom; 0 when it accepted or was not called."""
    calls: int
    """HTTP calls made for it."""
    staff_id: str
    customer: str
    """Short hash of the customer, or the id when people were asked for; empty: it concerns none."""
    campaign_id: str
    reason: str
    """Rule id and version that asked for it."""
    caused_by: str
    """Event id, id of the work item, or the action it repeats."""
    parent_id: str
    """The action this is a part of; empty: it is whole."""
    message_id: str
    """WeCom's id of what the call made."""
    created_ms: int
    not_before_ms: int | None
    deadline_ms: int | None
    due_ms: int | None
    """When it is looked at again, while it is open."""
    updated_at_ms: int
    """Since when it stands like this."""


class AdmittedLimit(Shown, frozen=True, kw_only=True):
    """One limit at the moment of admission."""

    id: str
    window: str
    used: int
    amount: int
    allowed: int
    """What the lane may fill of it."""
    allowance_percent: int


class AdmittedLevel(Shown, frozen=True, kw_only=True):
    """One level of limits at the moment of admission."""

    level: str
    limits: list[AdmittedLimit]


class Admission(Shown, frozen=True, kw_only=True):
    """Why the governor let it go: every level had room."""

    at_ms: int | None
    """Business time."""
    lane: str
    limits_revision: str
    levels: list[AdmittedLevel]


class Count(Shown, frozen=True, kw_only=True):
    """For so many it ended like this."""

    status: ActionStatus
    detail: str
    count: int


class Parts(Shown, frozen=True, kw_only=True):
    """What an action fell into: the chunks of a large send and the persons in them."""

    chunks: list[ActionView]
    """At most :data:`CHUNKS_SHOWN`, newest first."""
    chunk_count: int
    repeated_records: int
    """Further records that brought the same action, each with an end of its own: none led to a call."""
    people: list[Count]
    """Persons (or group chats) by how it ended for them; those it has not ended for are not counted yet."""


CHUNKS_SHOWN = 200


class ControlView(Shown, frozen=True, kw_only=True):
    """A word of an operator that is in force, or that ended something."""

    id: str
    kind: Literal["pause", "cancel", "settle"]
    corp_id: str
    """Empty: every corp; so with lane and campaign_id."""
    lane: str
    campaign_id: str
    action_id: str
    verdict: str
    reason: str
    author: str
    expires_ms: int | None
    """None: until it is taken back."""
    written_at_ms: int


class ActionDetail(Shown, frozen=True, kw_only=True):
    """Everything about one action."""

    action: ActionView
    admission: Admission | None
    """None: it was never admitted, or ended in one step and was not in the ledger."""
    parts: Parts
    controls: list[ControlView]
    """Who paused, cancelled or settled it."""
    repeats: list[ActionView]
    """Actions made to repeat it, oldest first."""


class ActionPage(Shown, frozen=True, kw_only=True):
    """Some actions, newest first."""

    actions: list[ActionView]
    next_cursor: str | None
    """Give it back to read on; None: there are no more."""


class QuotaWindow(Shown, frozen=True, kw_only=True):
    """One limit of one level, as it was used at ``updated_at_ms``."""

    id: str
    window: str
    used: int
    amount: int
    lanes: dict[str, int]
    """What each lane may fill of it."""
    frozen_until_ms: int | None
    """Business time; None: not frozen."""
    rate_percent: int
    """Of the full rate, after limit errors."""


class QuotaLevel(Shown, frozen=True, kw_only=True):
    """What has been used of the limits of one level."""

    level: str
    corp_id: str
    endpoint: str
    shard: int
    windows: list[QuotaWindow]
    in_flight: int
    updated_at_ms: int


class QuotaList(Shown, frozen=True, kw_only=True):
    """The levels, by name."""

    levels: list[QuotaLevel]
    left_out: int
    """Levels of single persons and messages that are not frozen, unless all were asked for."""
    at_ms: int
    """Wall time of the answer; a level's age is this less its ``updated_at_ms``."""


class Pauses(Shown, frozen=True, kw_only=True):
    """The pauses in force."""

    pauses: list[ControlView]


def hashed(customer_id: str) -> str:
    """``#`` and 12 hex digits: tells two customers apart and names neither. Empty stays empty."""
    return f"#{hashlib.sha256(customer_id.encode()).hexdigest()[:12]}" if customer_id else ""
