"""Routes about limits: what is allowed at a moment, and what has been used."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from services.api.actions import People
from services.api.routes import Call, Id, Route, Wire, needs
from siyu.actions.errors import Invalid
from siyu.actions.model import QuotaList
from siyu.events.business_time import SHANGHAI
from siyu.limits import Limit

_MOST_MS = 1 << 50


class LimitView(Wire, frozen=True, kw_only=True):
    """One limit as it holds."""

    id: str
    scope: str
    endpoints: Annotated[list[str], msgspec.Meta(description="Empty: every endpoint, each by itself")]
    corps: Annotated[list[str], msgspec.Meta(description="Empty: every corp, each by itself")]
    amount: int
    window: str
    counts: str
    block: str
    paced: bool
    enforce: str
    ours: bool
    source: str
    confidence: str
    note: str


class LimitsAnswer(Wire, frozen=True, kw_only=True):
    """What is in force at a moment of business time."""

    revision: str
    at_ms: int
    since_ms: int
    next_change_ms: int | None
    headroom: Annotated[dict[str, float], msgspec.Meta(description="Share of a shared limit that a lane may fill")]
    limits: list[LimitView]


class LimitsQuery(Wire, frozen=True, kw_only=True):
    """When, and for whom."""

    at: Annotated[
        str,
        msgspec.Meta(
            max_length=40, description="Epoch ms, or ISO 8601 (Asia/Shanghai unless it says otherwise); left out: now"
        ),
    ] = ""
    corp_id: Id = ""
    endpoint: Id = ""


class QuotaQuery(Wire, frozen=True, kw_only=True):
    """Which levels."""

    corp_id: Id = ""
    endpoint: Id = ""
    everything: Annotated[
        bool, msgspec.Meta(description="Levels of single staff members, customers and messages too, frozen or not")
    ] = False
    people: People = False


def _quota(call: Call) -> QuotaList:
    query: QuotaQuery = call.query
    if query.people:
        needs(call, "operator")
    return call.world.operations.quota(
        corp_id=query.corp_id, endpoint=query.endpoint, everything=query.everything, people=query.people
    )


def _limits(call: Call) -> LimitsAnswer:
    query: LimitsQuery = call.query
    at_ms = moment_ms(query.at) if query.at else call.world.operations.clock.now_ms()
    registry = call.world.limits()
    in_force = registry.at(at_ms)
    limits = in_force.documented(query.corp_id, query.endpoint) if query.endpoint else in_force.limits
    return LimitsAnswer(
        revision=in_force.revision,
        at_ms=at_ms,
        since_ms=in_force.as_of_ms,
        next_change_ms=registry.next_change_ms(at_ms),
        headroom={str(lane): share for lane, share in in_force.headroom.items()},
        limits=[
            limit_view(limit)
            for limit in limits
            if not query.corp_id or not limit.corps or query.corp_id in limit.corps
        ],
    )


def moment_ms(text: str) -> int:
    """Epoch ms of what a query says. Raises Invalid."""
    try:
        if text.isascii() and text.isdecimal():
            at_ms = int(text)
        else:
            # A plus sign that was not written as %2B arrives as a space.
            at = datetime.fromisoformat(text.replace(" ", "+"))
            at_ms = int((at if at.tzinfo else at.replace(tzinfo=SHANGHAI)).timestamp() * 1000)
    except (ValueError, OverflowError):
        at_ms = -1
    if not 0 <= at_ms <= _MOST_MS:
        raise Invalid("at", "a time is epoch ms or ISO 8601, such as 2026-03-01T12:00")
    return at_ms


def limit_view(limit: Limit) -> LimitView:
    """As people see it."""
    return LimitView(
        id=limit.id,
        scope=limit.scope,
        endpoints=list(limit.endpoints),
        corps=list(limit.corps),
        amount=limit.amount,
        window=str(limit.window),
        counts=limit.counts,
        block=limit.block,
        paced=limit.paced,
        enforce=limit.enforce,
        ours=limit.ours,
        source=limit.source,
        confidence=limit.confidence,
        note=limit.note,
    )


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/quota",
        "showQuota",
        "What has been used of the limits: by level and lane, what is frozen until when",
        "reader",
        QuotaList,
        _quota,
        query=QuotaQuery,
        refusals=(409,),
        may_forbid=True,
    ),
    Route(
        "GET",
        "/v1/limits",
        "showLimits",
        "What is allowed at a moment, with its sources",
        "reader",
        LimitsAnswer,
        _limits,
        query=LimitsQuery,
    ),
)
