"""Routes about actions: what became of them, and the operators' words: repeat, cancel, settle, pause, resume."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from services.api.routes import Call, Id, Reason, Route, Wire, needs
from siyu.actions.control import Verdict
from siyu.actions.model import ActionDetail, ActionPage, ActionView, ControlView, Pauses
from siyu.actions.store import MOST, Filter
from siyu.events import ActionStatus, Lane

_DAY_MS = 86_400_000
_MOST_MS = 1 << 50

Time = Annotated[int, msgspec.Meta(ge=0, le=_MOST_MS)]
Corp = Annotated[str, msgspec.Meta(max_length=200, description="Corp; needed only when several have the action")]
People = Annotated[bool, msgspec.Meta(description="Name customers instead of their hashes; needs the role operator")]


class ShowQuery(Wire, frozen=True, kw_only=True):
    """Which action, and how it is shown."""

    corp_id: Corp = ""
    people: People = False


class ListQuery(Wire, frozen=True, kw_only=True):
    """Which actions."""

    corp_id: Id = ""
    lane: Lane | None = None
    endpoint: Id = ""
    state: (
        Annotated[
            Literal["open", "waiting", "prepared", "in_doubt", "accepted", "ended"],
            msgspec.Meta(description="open: every state but ended"),
        ]
        | None
    ) = None
    status: ActionStatus | None = None
    campaign_id: Id = ""
    staff_id: Id = ""
    parent_id: Annotated[str, msgspec.Meta(max_length=200, description="Parts of this action only")] = ""
    parts: Annotated[bool, msgspec.Meta(description="Parts of actions too: chunks and persons of a send")] = False
    since_ms: (
        Annotated[
            int,
            msgspec.Meta(
                ge=0, le=_MOST_MS, description="Asked for since then, business time; default: a day ago, open ones ever"
            ),
        ]
        | None
    ) = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 50
    cursor: Annotated[str, msgspec.Meta(max_length=1_000, description="next_cursor of the page before")] = ""
    people: People = False


class RetryBody(Wire, frozen=True, kw_only=True):
    """A repeat."""

    reason: Reason
    deadline_ms: (
        Annotated[
            int,
            msgspec.Meta(ge=0, le=_MOST_MS, description="Business time until which it must have started; 0: none"),
        ]
        | None
    ) = None
    known_not_done: Annotated[
        bool, msgspec.Meta(description="Nobody knew whether it had been carried out; I looked, and it was not")
    ] = False


class ReasonBody(Wire, frozen=True, kw_only=True):
    """Why."""

    reason: Reason


class SettleBody(Wire, frozen=True, kw_only=True):
    """What became of an action in doubt."""

    verdict: Verdict
    reason: Reason


class ScopeBody(Wire, frozen=True, kw_only=True):
    """What is meant: what is in all of those given."""

    corp_id: Id = ""
    lane: Lane | None = None
    campaign_id: Id = ""
    reason: Reason


class PauseBody(ScopeBody, frozen=True, kw_only=True):
    """A pause."""

    everything: Annotated[bool, msgspec.Meta(description="Every action of every corp; then nothing else is given")] = (
        False
    )
    for_seconds: (
        Annotated[int, msgspec.Meta(ge=1, le=366 * 86_400, description="How long; left out: until it is resumed")]
        | None
    ) = None


class ReasonQuery(Wire, frozen=True, kw_only=True):
    """Why."""

    reason: Reason


def _show(call: Call) -> ActionDetail:
    query: ShowQuery = call.query
    if query.people:
        needs(call, "operator")
    return call.world.operations.show(call.path["action_id"], corp_id=query.corp_id, people=query.people)


def _list(call: Call) -> ActionPage:
    query: ListQuery = call.query
    if query.people:
        needs(call, "operator")
    operations = call.world.operations
    since_ms = query.since_ms
    if since_ms is None:
        ever = bool(query.parent_id) or query.state not in (None, "ended")
        since_ms = 0 if ever else max(0, operations.clock.now_ms() - _DAY_MS)
    wanted = Filter(
        corp_id=query.corp_id,
        lane=query.lane or "",
        endpoint=query.endpoint,
        state=query.state or "",
        status=query.status or "",
        campaign_id=query.campaign_id,
        staff_id=query.staff_id,
        parent_id=query.parent_id or (None if query.parts or query.state == "in_doubt" else ""),
        since_ms=since_ms,
    )
    return operations.page(wanted, limit=query.limit, cursor=query.cursor, people=query.people)


def _retry(call: Call) -> ActionView:
    body: RetryBody = call.body
    return call.world.operations.retry(
        call.path["action_id"],
        corp_id=call.query.corp_id,
        author=call.principal.name,
        reason=body.reason,
        deadline_ms=body.deadline_ms,
        known_not_done=body.known_not_done,
    )


def _cancel(call: Call) -> ControlView:
    return call.world.operations.cancel(
        call.path["action_id"], corp_id=call.query.corp_id, author=call.principal.name, reason=call.body.reason
    )


def _cancel_scope(call: Call) -> ControlView:
    body: ScopeBody = call.body
    return call.world.operations.cancel_scope(
        corp_id=body.corp_id,
        lane=body.lane or "",
        campaign_id=body.campaign_id,
        author=call.principal.name,
        reason=body.reason,
    )


def _settle(call: Call) -> ControlView:
    body: SettleBody = call.body
    return call.world.operations.settle(
        call.path["action_id"],
        body.verdict,
        corp_id=call.query.corp_id,
        author=call.principal.name,
        reason=body.reason,
    )


def _pauses(call: Call) -> Pauses:
    return call.world.operations.pauses()


def _pause(call: Call) -> ControlView:
    body: PauseBody = call.body
    return call.world.operations.pause(
        corp_id=body.corp_id,
        lane=body.lane or "",
        campaign_id=body.campaign_id,
        everything=body.everything,
        author=call.principal.name,
        reason=body.reason,
        for_ms=(body.for_seconds or 0) * 1000,
    )


def _resume(call: Call) -> ControlView:
    return call.world.operations.resume(call.path["pause_id"], author=call.principal.name, reason=call.query.reason)


class CorpQuery(Wire, frozen=True, kw_only=True):
    """Whose action."""

    corp_id: Corp = ""


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/actions",
        "listActions",
        "The newest actions that fit, as the ledger and the outcomes know them",
        "reader",
        ActionPage,
        _list,
        query=ListQuery,
        may_forbid=True,
    ),
    Route(
        "GET",
        "/v1/actions/{action_id}",
        "showAction",
        "Everything about one action: state, outcome, admission, parts, who intervened",
        "reader",
        ActionDetail,
        _show,
        query=ShowQuery,
        refusals=(404,),
        may_forbid=True,
    ),
    Route(
        "POST",
        "/v1/actions/{action_id}/retry",
        "retryAction",
        "Repeat an action that ended without being done, as a new action; asking twice makes one",
        "operator",
        ActionView,
        _retry,
        query=CorpQuery,
        body=RetryBody,
        status=202,
        refusals=(404, 409),
    ),
    Route(
        "POST",
        "/v1/actions/{action_id}/cancel",
        "cancelAction",
        "Take one action back before its call",
        "operator",
        ControlView,
        _cancel,
        query=CorpQuery,
        body=ReasonBody,
        status=202,
        refusals=(404, 409),
    ),
    Route(
        "POST",
        "/v1/actions/{action_id}/settle",
        "settleAction",
        "Say what became of an action in doubt, after looking in WeCom",
        "operator",
        ControlView,
        _settle,
        query=CorpQuery,
        body=SettleBody,
        status=202,
        refusals=(404, 409),
    ),
    Route(
        "POST",
        "/v1/cancellations",
        "cancelScope",
        "Take back all of a campaign, now and later, or what a corp or lane has waiting now",
        "operator",
        ControlView,
        _cancel_scope,
        body=ScopeBody,
        status=202,
    ),
    Route("GET", "/v1/pauses", "listPauses", "The pauses in force", "reader", Pauses, _pauses),
    Route(
        "POST",
        "/v1/pauses",
        "pause",
        "Hold back a corp, a lane, a campaign, or what is in all of those given",
        "operator",
        ControlView,
        _pause,
        body=PauseBody,
        status=201,
    ),
    Route(
        "DELETE",
        "/v1/pauses/{pause_id}",
        "resume",
        "Take a pause back",
        "operator",
        ControlView,
        _resume,
        query=ReasonQuery,
        refusals=(404,),
    ),
)
