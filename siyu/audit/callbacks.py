"""Decrypted callbacks into distinct events: this program's own reading of the XML and its own notion of "the same".

Two deliveries are one event when they say the same thing about the same people at the same second; who delivered them,
to which app and how often does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from siyu.audit.model import Contact
from siyu.events.types import RawCallback

_CHANGE = {
    "add_external_contact": "add",
    "add_half_external_contact": "add_half",
    "edit_external_contact": "edit",
    "del_follow_user": "delete_by_customer",
    "transfer_fail": "transfer_fail",
    "msg_audit_approved": "archive_consent",
}
# Year 10000: later times have no business day and count nowhere.
_LAST_SECOND = 253_402_272_000


@dataclass
class Arrived:
    """What the callbacks of a system said, each thing once."""

    deliveries: int = 0
    contacts: list[Contact] = field(default_factory=list)
    other: int = 0
    """Deliveries of other events and of what is no XML: kept by the system, not part of any figure."""
    contradictions: list[tuple[str, str, str]] = field(default_factory=list)
    """(corp, what, id) where the system's event id does not agree with what the callbacks say."""


def read_callbacks(records: Iterable[RawCallback]) -> Arrived:
    """Every distinct contact event among the raw records."""
    arrived = Arrived()
    seen: dict[tuple[str, ...], Contact] = {}
    said_by_id: dict[str, tuple[str, ...]] = {}
    for record in records:
        arrived.deliveries += 1
        contact = _contact(record)
        if contact is None:
            arrived.other += 1
            continue
        said = (
            contact.corp_id,
            contact.change,
            contact.staff_id,
            contact.customer_id,
            str(contact.time_ms),
            contact.state,
            contact.welcome_code,
        )
        first = seen.setdefault(said, contact)
        if first.event_id != contact.event_id:
            arrived.contradictions.append((contact.corp_id, "one event under two event ids", contact.event_id))
        if said_by_id.setdefault(contact.event_id, said) != said:
            arrived.contradictions.append((contact.corp_id, "two events under one event id", contact.event_id))
    arrived.contacts = list(seen.values())
    return arrived


def _is_time(seconds: str) -> bool:
    return seconds.isdecimal() and 0 < int(seconds) < _LAST_SECOND


def _contact(record: RawCallback) -> Contact | None:
    try:
        root: Element = defusedxml.ElementTree.fromstring(record.personal, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError):
        return None
    text = {child.tag: (child.text or "").strip() for child in root}
    if text.get("Event") != "change_external_contact":
        return None
    change = _CHANGE.get(text.get("ChangeType", ""))
    if text.get("ChangeType") == "del_external_contact":
        change = "delete_by_transfer" if text.get("Source") == "DELETE_BY_TRANSFER" else "delete_by_staff"
    staff_id, customer_id, seconds = text.get("UserID", ""), text.get("ExternalUserID", ""), text.get("CreateTime", "")
    if change is None or not staff_id or not customer_id or not _is_time(seconds):
        return None
    return Contact(
        corp_id=record.corp_id,
        staff_id=staff_id,
        customer_id=customer_id,
        change=change,
        time_ms=int(seconds) * 1000,
        state=text.get("State", ""),
        welcome_code=text.get("WelcomeCode", ""),
        event_id=record.event_id,
    )
