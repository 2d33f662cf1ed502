"""What the platform says in a callback: the plaintext XML of fact sheet 2.1 and the envelope of 1.3. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.world import ContactChange
from siyu.wecom.crypto import SealedMessage

_CHANGE_TYPES: dict[str, str] = {
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
    """A callback that changes no relationship: fields after the common head, in order."""

    time_s: int
    corp_id: str
    fields: tuple[tuple[str, str], ...]


def contact_message(event: ContactChange, welcome_code: str) -> bytes:
    """The plaintext of a contact change. ``State`` and ``WelcomeCode`` are absent when empty."""
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
    return _message(event.corp_id, event.time_s, fields)


def other_message(event: OtherEvent) -> bytes:
    """The plaintext of any other event."""
    return _message(event.corp_id, event.time_s, list(event.fields))


def envelope(corp_id: str, agent_id: str, sealed: SealedMessage, *, agent_first: bool) -> bytes:
    """The body of the POST. Official samples show both orders of AgentID and Encrypt, so both are sent."""
    agent = f"<AgentID><![CDATA[{agent_id}]]></AgentID>"
    encrypt = f"<Encrypt><![CDATA[{sealed.encrypt}]]></Encrypt>"
    inner = agent + encrypt if agent_first else encrypt + agent
    return f"<xml><ToUserName><![CDATA[{corp_id}]]></ToUserName>{inner}</xml>".encode()


def _message(corp_id: str, time_s: int, fields: list[tuple[str, str]]) -> bytes:
    head = (
        f"<xml><ToUserName><![CDATA[{corp_id}]]></ToUserName><FromUserName><![CDATA[sys]]></FromUserName>"
        f"<CreateTime>{time_s}</CreateTime><MsgType><![CDATA[event]]></MsgType>"
    )
    return (head + "".join(f"<{name}><![CDATA[{value}]]></{name}>" for name, value in fields) + "</xml>").encode()
