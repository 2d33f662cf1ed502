"""Ledger entries, outcomes and actions as the executor and the planner would write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from siyu.events import Action, ActionOutcome, LedgerEntry
from siyu.ops.clock import wall_ms
from siyu.wecom.endpoints import quota_scope

TAG = "externalcontact/mark_tag"
SEND = "externalcontact/add_msg_template"


def entry(corp_id: str, action_id: str, state: str = "waiting", **fields: Any) -> LedgerEntry:
    whole = LedgerEntry(
        action_id=action_id,
        parent_id="",
        lane="bulk",
        corp_id=corp_id,
        endpoint=SEND,
        subject=corp_id,
        staff_id="s1",
        customer_id="",
        campaign_id="spring",
        reason="spring@1",
        caused_by="e1",
        state=state,  # type: ignore[arg-type]
        status="",
        detail="",
        errcode=0,
        calls=0,
        message_id="",
        created_ms=wall_ms() - 10_000,
        not_before_ms=0,
        deadline_ms=0,
        due_ms=0,
        updated_at_ms=wall_ms(),
        admitted_at_ms=0,
        limits_revision="",
        admission=b"",
        memory=b"",
    )
    return msgspec.structs.replace(whole, **fields)


def outcome(corp_id: str, action_id: str, status: str = "failed", **fields: Any) -> ActionOutcome:
    whole = ActionOutcome(
        action_id=action_id,
        lane="bulk",
        corp_id=corp_id,
        endpoint=TAG,
        subject=f"{corp_id}|wmPerson",
        staff_id="s1",
        customer_id="wmPerson",
        status=status,  # type: ignore[arg-type]
        errcode=0,
        detail="ok" if status == "done" else "permission",
        calls=1,
        reason="tags@1",
        caused_by="e1",
        created_ms=wall_ms() - 10_000,
        deadline_ms=0,
        trigger_received_at_ms=0,
        finished_at_ms=wall_ms(),
        request=b'{"userid":"s1","external_userid":"wmPerson"}',
        response=b"",
        campaign_id="spring",
    )
    return msgspec.structs.replace(whole, **fields)


def action(corp_id: str, action_id: str, **fields: Any) -> Action:
    whole = Action(
        action_id=action_id,
        lane="bulk",
        corp_id=corp_id,
        endpoint=TAG,
        subject=f"{corp_id}|wmPerson",
        staff_id="s1",
        customer_id="wmPerson",
        payload=b"{}",
        reason="tags@1",
        caused_by="e1",
        created_ms=wall_ms(),
        not_before_ms=0,
        deadline_ms=0,
        trigger_received_at_ms=0,
        campaign_id="spring",
    )
    return msgspec.structs.replace(whole, **fields)


def scope(one: Action) -> str:
    """Its key."""
    return quota_scope(one.corp_id, one.endpoint)


def ids(views: Iterable[Any]) -> list[str]:
    """Of what is shown."""
    return [view.action_id for view in views]
