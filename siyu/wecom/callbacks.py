"""Callbacks as types: whatever is genuine becomes a RawCallback, and a ContactEvent too when it is one we understand.

Elements are found by name, never by position, with or without CDATA; unknown ones are ignored. A genuine message is
never refused for being new: an unknown Event, an unknown ChangeType or a contact event without its required fields is
kept raw with ``known=False``. Only markup that no genuine callback holds (DOCTYPE, entities) is refused, and an
envelope without ciphertext. Field names and meanings: fact sheet 1.3 and 2.

Refusals extend the tree of :mod:`siyu.wecom.crypto`:

    Refused
    ├── BadEnvelope       bad_envelope        neither XML nor JSON, or no Encrypt in it
    └── ForbiddenMarkup   forbidden_markup    DOCTYPE, entities, external references
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from xml.etree.ElementTree import ParseError

import msgspec
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from siyu.events.ids import contact_event_id, customer_key, raw_event_id
from siyu.events.types import ContactChange, ContactEvent, RawCallback
from siyu.wecom.crypto import Refused

# An envelope has three elements; more than this is somebody trying to make an unauthenticated parse expensive.
_ENVELOPE_ELEMENTS = 64
# Seconds since 1970 in ten digits: 2001 to 2286. Anything else is no time of a callback.
_CREATE_TIME = re.compile(r"[1-9][0-9]{9}")
_AGENT_ID = re.compile(r"[0-9]{1,20}")

_CONTACT = "change_external_contact"
_CONTACT_CHANGES: dict[str, ContactChange] = {
    "add_external_contact": "add",
    "add_half_external_contact": "add_half",
    "edit_external_contact": "edit",
    "del_external_contact": "delete_by_staff",
    "del_follow_user": "delete_by_customer",
    "transfer_fail": "transfer_fail",
    "msg_audit_approved": "archive_consent",
}
_BY_TRANSFER = "DELETE_BY_TRANSFER"

# Event → its ChangeTypes, for the closed set of labels; an empty set where an event has no ChangeType (fact sheet 2).
_DOCUMENTED: dict[str, frozenset[str]] = {
    _CONTACT: frozenset(_CONTACT_CHANGES),
    "change_external_chat": frozenset({"create", "update", "dismiss"}),
    "change_external_tag": frozenset({"create", "update", "delete", "shuffle"}),
    "customer_acquisition": frozenset(
        {
            "balance_low",
            "balance_exhausted",
            "balance_increased",
            "quota_expire_soon",
            "link_unavailable",
            "delete_link",
            "open_profile",
            "friend_request",
            "customer_start_chat",
            "message_from_customer",
        }
    ),
    "change_contact": frozenset(
        {"create_user", "update_user", "delete_user", "create_party", "update_party", "delete_party", "update_tag"}
    ),
    "msgaudit_notify": frozenset(),
    "kf_msg_or_event": frozenset(),
    "kf_account_auth_change": frozenset(),
    "template_card_event": frozenset(),
    "template_card_menu_event": frozenset(),
    "subscribe": frozenset(),
    "unsubscribe": frozenset(),
    "inactive_alert": frozenset(),
    "close_inactive_agent": frozenset(),
    "reopen_inactive_agent": frozenset(),
    "low_active_alert": frozenset(),
    "low_active": frozenset(),
    "active_restored": frozenset(),
}

# The fields we read, by their XML names; JSON bodies carry the same names in lower case.
_NAMES = frozenset(
    {
        "AgentID",
        "ChangeType",
        "CreateTime",
        "Encrypt",
        "Event",
        "ExternalUserID",
        "FailReason",
        "Source",
        "State",
        "UserID",
        "WelcomeCode",
    }
)
_FROM_LOWER = {name.lower(): name for name in _NAMES}


class BadEnvelope(Refused):
    """The outer body is neither XML nor JSON, or holds no ciphertext."""

    reason = "bad_envelope"


class ForbiddenMarkup(Refused):
    """DOCTYPE, entities or external references, outside or inside: no genuine callback holds them."""

    reason = "forbidden_markup"


class Envelope(NamedTuple):
    """The outer body. Only ``encrypted`` is covered by the signature."""

    encrypted: str
    agent_id: str
    """Digits, or empty."""


class Callback(NamedTuple):
    """What one genuine message becomes."""

    key: str
    """Kafka key of both records: the customer key of a contact event, else the corp id."""
    raw: RawCallback
    contact: ContactEvent | None


def parse_envelope(body: bytes) -> Envelope:
    """The outer XML or JSON body. Raises BadEnvelope or ForbiddenMarkup."""
    fields = _fields(body, _ENVELOPE_ELEMENTS)
    if fields is None or not fields.get("Encrypt"):
        raise BadEnvelope
    return Envelope(fields["Encrypt"], _agent_id(fields))


def parse_message(
    corp_id: str, message: bytes, *, agent_id: str, received_at_ms: int, envelope_time_ms: int
) -> Callback:
    """Types a decrypted message.

    ``agent_id`` is the envelope's, used when the message names none; ``envelope_time_ms`` stands in for a CreateTime
    that is missing or unreadable. Raises ForbiddenMarkup and nothing else.
    """
    fields = _fields(message, None) or {}
    event, change_type = fields.get("Event", ""), fields.get("ChangeType", "")
    created = fields.get("CreateTime", "")
    created_ms = int(created) * 1000 if _CREATE_TIME.fullmatch(created) else None
    contact = None
    if event == _CONTACT and created_ms is not None:
        contact = _contact_event(corp_id, fields, created_ms, received_at_ms)
    raw = RawCallback(
        event_id=raw_event_id(corp_id, message) if contact is None else contact.event_id,
        corp_id=corp_id,
        agent_id=_agent_id(fields) or agent_id,
        event=event,
        change_type=change_type,
        event_time_ms=envelope_time_ms if created_ms is None else created_ms,
        received_at_ms=received_at_ms,
        known=contact is not None,
        personal=message,
    )
    key = corp_id if contact is None else customer_key(corp_id, contact.customer_id)
    return Callback(key, raw, contact)


def type_label(raw: RawCallback) -> str:
    """Event and ChangeType from a closed set, fit for a metric label or a log line.

    Documented types by name (``change_external_contact.add_external_contact``); ``<event>.other`` for a new ChangeType;
    ``other`` for a new Event; ``none`` for a message without one (plain messages, unreadable ones).
    """
    if not raw.event:
        return "none"
    changes = _DOCUMENTED.get(raw.event)
    if changes is None:
        return "other"
    if not changes:
        return raw.event
    return f"{raw.event}.{raw.change_type if raw.change_type in changes else 'other'}"


def _contact_event(
    corp_id: str, fields: dict[str, str], event_time_ms: int, received_at_ms: int
) -> ContactEvent | None:
    change = _CONTACT_CHANGES.get(fields.get("ChangeType", ""))
    staff_id, customer_id = fields.get("UserID"), fields.get("ExternalUserID")
    if change is None or not staff_id or not customer_id:
        return None
    if change == "delete_by_staff" and fields.get("Source") == _BY_TRANSFER:
        change = "delete_by_transfer"
    state, welcome_code = fields.get("State", ""), fields.get("WelcomeCode", "")
    return ContactEvent(
        event_id=contact_event_id(corp_id, change, staff_id, customer_id, event_time_ms, state, welcome_code),
        corp_id=corp_id,
        change=change,
        staff_id=staff_id,
        customer_id=customer_id,
        event_time_ms=event_time_ms,
        received_at_ms=received_at_ms,
        state=state,
        welcome_code=welcome_code,
        fail_reason=fields.get("FailReason", ""),
    )


def _agent_id(fields: dict[str, str]) -> str:
    agent_id = fields.get("AgentID", "")
    return agent_id if _AGENT_ID.fullmatch(agent_id) else ""


def _fields(text: bytes, max_elements: int | None) -> dict[str, str] | None:
    """The fields we read, by XML name; None when the text is neither XML nor a JSON object."""
    if text.lstrip()[:1] == b"{":
        return _json_fields(text)
    target = _TopLevel(max_elements)
    parser = DefusedXMLParser(target=target, forbid_dtd=True)
    try:
        parser.feed(text)
        parser.close()
    except DefusedXmlException:
        raise ForbiddenMarkup from None
    except (ParseError, ValueError, LookupError):  # ValueError, LookupError: encodings expat or Python do not know
        return None
    return target.fields


def _json_fields(text: bytes) -> dict[str, str] | None:
    try:
        decoded = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: not UTF-8
        return None
    return {
        _FROM_LOWER[name.lower()]: str(value).strip()
        for name, value in decoded.items()
        if name.lower() in _FROM_LOWER and isinstance(value, str | int) and not isinstance(value, bool)
    }


class _TopLevel:
    """Parser target that keeps the text of the root's children and builds no tree."""

    def __init__(self, max_elements: int | None) -> None:
        self.fields: dict[str, str] = {}
        self._elements_left = max_elements
        self._depth = 0
        self._text: list[str] = []

    def start(self, _: str, __: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 2:
            self._text.clear()
        if self._elements_left is not None:
            self._elements_left -= 1
            if self._elements_left < 0:
                raise ValueError("too many elements")

    def data(self, text: str) -> None:
        if self._depth == 2:
            self._text.append(text)

    def end(self, tag: str) -> None:
        if self._depth == 2 and tag in _NAMES:
            self.fields.setdefault(tag, "".join(self._text).strip())
        self._depth -= 1
