"""What a callback says and how it is wrapped: the XML of each event and the envelope (fact sheet 1.3, 2). Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from simulator.world.relations import Change, ContactChange
from siyu.wecom.crypto import SealedMessage

Fields = Sequence[tuple[str, str]]
"""Elements behind the head, in order. The value of those in ``_READY`` is XML already: elements, or CDATA."""

_READY = frozenset({"EventKey", "MemChangeList", "SelectedItems"})

_CHANGE_TYPES: dict[Change, str] = {
    "add": "add_external_contact",
    "add_half": "add_half_external_contact",
    "edit": "edit_external_contact",
    "delete_by_customer": "del_follow_user",
    "delete_by_staff": "del_external_contact",
    "delete_by_transfer": "del_external_contact",
    "transfer_fail": "transfer_fail",
    "archive_consent": "msg_audit_approved",
}


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """A planned event that changes no relationship."""

    time_s: int
    corp_id: str
    fields: tuple[tuple[str, str], ...]


def contact_fields(event: ContactChange, welcome_code: str) -> list[tuple[str, str]]:
    """A contact change. ``State`` and ``WelcomeCode`` are absent when empty."""
    fields = [("Event", "change_external_contact"), ("ChangeType", _CHANGE_TYPES[event.change])]
    if event.fail_reason:
        fields.append(("FailReason", event.fail_reason))
    fields += [("UserID", event.staff_id), ("ExternalUserID", event.customer_id)]
    if event.change == "delete_by_transfer":
        fields.append(("Source", "DELETE_BY_TRANSFER"))
    if event.state:
        fields.append(("State", event.state))
    if welcome_code:
        fields.append(("WelcomeCode", welcome_code))
    return fields


def message(corp_id: str, time_s: int, fields: Fields, *, sender: str | None = "sys") -> bytes:
    """The plaintext of an event."""
    who = "" if sender is None else f"<FromUserName><![CDATA[{sender}]]></FromUserName>"
    inner = "".join(
        f"<{name}>{value}</{name}>" if name in _READY else f"<{name}><![CDATA[{_legal(value)}]]></{name}>"
        for name, value in fields
    )
    return (
        f"<xml><ToUserName><![CDATA[{corp_id}]]></ToUserName>{who}"
        f"<CreateTime>{time_s}</CreateTime><MsgType><![CDATA[event]]></MsgType>{inner}</xml>"
    ).encode()


def _legal(value: str) -> str:
    """A value as CDATA can hold it: a State may be any text that a caller or a link's channel made up."""
    if value.isprintable() and "]]>" not in value:
        return value
    legal = "".join(c for c in value if c in "\t\n" or (c >= " " and not "\ufffe" <= c <= "\uffff"))
    return legal.replace("]]>", "]]]]><![CDATA[>")


def envelope(corp_id: str, agent_id: str, sealed: SealedMessage, *, agent_first: bool) -> bytes:
    """The body of the POST. Official samples show both orders of AgentID and Encrypt, so both are sent."""
    agent = f"<AgentID><![CDATA[{agent_id}]]></AgentID>"
    encrypt = f"<Encrypt><![CDATA[{sealed.encrypt}]]></Encrypt>"
    inner = agent + encrypt if agent_first else encrypt + agent
    return f"<xml><ToUserName><![CDATA[{corp_id}]]></ToUserName>{inner}</xml>".encode()


def json_envelope(corp_id: str, agent_id: str, sealed: SealedMessage, *, agent_first: bool) -> bytes:
    """The same in JSON, keys in lower case (fact sheet 1.3): what is inside the ciphertext stays XML."""
    fields = {"agentid": agent_id, "encrypt": sealed.encrypt}
    names = ("agentid", "encrypt") if agent_first else ("encrypt", "agentid")
    return json.dumps({"tousername": corp_id, **{name: fields[name] for name in names}}).encode()


def wants_json(callback_url: str) -> bool:
    """Whether the configured URL asks for JSON envelopes, as an app of 对外收款 may (fact sheet 1.3)."""
    return parse_qs(urlsplit(callback_url).query).get("callback_format", [""])[-1] == "json"
