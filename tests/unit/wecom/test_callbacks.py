"""Every genuine callback is kept; those we understand are typed; the same meaning always has the same id."""

import contextlib
import itertools
import json
from typing import Any
from xml.sax.saxutils import escape

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.events import ContactEvent, codec
from siyu.wecom.callbacks import (
    BadEnvelope,
    Callback,
    ForbiddenMarkup,
    parse_envelope,
    parse_message,
    type_label,
)

CORP = "wwcorp00000000001"
CREATED = 1_700_000_000
RECEIVED_MS = 1_700_000_007_123
ENVELOPE_MS = 1_700_000_005_000

ADD = {
    "ToUserName": CORP,
    "FromUserName": "sys",
    "CreateTime": str(CREATED),
    "MsgType": "event",
    "Event": "change_external_contact",
    "ChangeType": "add_external_contact",
    "UserID": "zhangsan",
    "ExternalUserID": "wmCustomer01",
    "State": "qr-1",
    "WelcomeCode": "CODE",
}


def xml(fields: dict[str, str], *, cdata: bool = True) -> bytes:
    def text(value: str) -> str:
        return f"<![CDATA[{value}]]>" if cdata else escape(value)

    return ("<xml>" + "".join(f"<{name}>{text(value)}</{name}>" for name, value in fields.items()) + "</xml>").encode()


def parse(message: bytes, corp_id: str = CORP) -> Callback:
    return parse_message(corp_id, message, agent_id="1000002", received_at_ms=RECEIVED_MS, envelope_time_ms=ENVELOPE_MS)


def contact(fields: dict[str, str]) -> ContactEvent:
    event = parse(xml(fields)).contact
    assert event is not None
    return event


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in ADD.items() if name not in names}


@pytest.mark.parametrize(
    ("change_type", "extra", "change"),
    [
        ("add_external_contact", {}, "add"),
        ("add_half_external_contact", {}, "add_half"),
        ("edit_external_contact", {}, "edit"),
        ("del_external_contact", {}, "delete_by_staff"),
        ("del_external_contact", {"Source": "DELETE_BY_TRANSFER"}, "delete_by_transfer"),
        ("del_external_contact", {"Source": "SOMETHING_NEW"}, "delete_by_staff"),
        ("del_follow_user", {}, "delete_by_customer"),
        ("del_follow_user", {"Source": "DELETE_BY_TRANSFER"}, "delete_by_customer"),
        ("transfer_fail", {"FailReason": "customer_refused"}, "transfer_fail"),
        ("msg_audit_approved", {}, "archive_consent"),
    ],
)
def test_every_documented_contact_change_is_typed(change_type: str, extra: dict[str, str], change: str) -> None:
    fields = without("State", "WelcomeCode") | {"ChangeType": change_type} | extra
    callback = parse(xml(fields))
    event = callback.contact
    assert event == ContactEvent(
        event_id=callback.raw.event_id,
        corp_id=CORP,
        change=change,  # type: ignore[arg-type]
        staff_id="zhangsan",
        customer_id="wmCustomer01",
        event_time_ms=CREATED * 1000,
        received_at_ms=RECEIVED_MS,
        state="",
        welcome_code="",
        fail_reason=extra.get("FailReason", ""),
    )
    assert callback.raw.known
    assert callback.key == f"{CORP}|wmCustomer01"


def test_the_raw_record_is_the_message_byte_for_byte() -> None:
    message = xml(ADD)
    raw = parse(message).raw
    assert raw.personal == message
    assert (raw.corp_id, raw.event, raw.change_type) == (CORP, "change_external_contact", "add_external_contact")
    assert (raw.event_time_ms, raw.received_at_ms, raw.agent_id) == (CREATED * 1000, RECEIVED_MS, "1000002")


def test_state_and_welcome_code_travel() -> None:
    event = contact(ADD)
    assert (event.state, event.welcome_code) == ("qr-1", "CODE")


@given(order=st.permutations(list(ADD)), cdata=st.booleans(), noise=st.text("abc<&>]", max_size=5))
def test_order_cdata_and_unknown_elements_do_not_matter(order: list[str], cdata: bool, noise: str) -> None:
    fields = {name: ADD[name] for name in order}
    message = xml(fields, cdata=cdata).replace(b"</xml>", f"<New><UserID>{escape(noise)}</UserID></New></xml>".encode())
    assert parse(message).contact == contact(ADD)


def test_white_space_of_a_pretty_printer_is_not_part_of_a_value() -> None:
    message = xml(ADD, cdata=False).replace(b"<UserID>", b"<UserID>\n  ").replace(b"</UserID>", b"\n</UserID>\n")
    assert parse(message).contact == contact(ADD)


@given(
    staff=st.text("abcé张三<>&\"'", min_size=1, max_size=8),
    customer=st.text("wm01<&", min_size=1, max_size=8),
    state=st.text("qr-渠道&<", max_size=8),
    cdata=st.booleans(),
)
def test_values_survive_whatever_characters_they_hold(staff: str, customer: str, state: str, cdata: bool) -> None:
    event = parse(xml(ADD | {"UserID": staff, "ExternalUserID": customer, "State": state}, cdata=cdata)).contact
    assert event is not None
    assert (event.staff_id, event.customer_id, event.state) == (staff, customer, state)


@pytest.mark.parametrize("field", ["UserID", "ExternalUserID", "CreateTime"])
@pytest.mark.parametrize("value", [None, "", "   "])
def test_a_contact_event_without_a_required_field_is_kept_raw(field: str, value: str | None) -> None:
    callback = parse(xml(without(field) if value is None else ADD | {field: value}))
    assert callback.contact is None
    assert not callback.raw.known
    assert callback.key == CORP


@pytest.mark.parametrize("created", ["", "0", "-1", "1e9", "17000000000", "170000000", "+170000000", "٣٤٠٠٠٠٠٠٠٠"])
def test_an_unreadable_create_time_falls_back_to_the_envelopes(created: str) -> None:
    callback = parse(xml(ADD | {"CreateTime": created}))
    assert callback.contact is None
    assert callback.raw.event_time_ms == ENVELOPE_MS


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"Event": "change_external_contact", "ChangeType": "merge_external_contact"}, "change_external_contact.other"),
        ({"Event": "change_external_contact"}, "change_external_contact.other"),
        ({"Event": "change_external_chat", "ChangeType": "dismiss"}, "change_external_chat.dismiss"),
        ({"Event": "customer_acquisition", "ChangeType": "link_unavailable"}, "customer_acquisition.link_unavailable"),
        ({"Event": "customer_acquisition", "ChangeType": "tomorrow"}, "customer_acquisition.other"),
        ({"Event": "kf_msg_or_event"}, "kf_msg_or_event"),
        ({"Event": "kf_msg_or_event", "ChangeType": "whatever"}, "kf_msg_or_event"),
        ({"Event": "an_event_of_next_year"}, "other"),
        ({"MsgType": "text", "Content": "hello"}, "none"),
    ],
)
def test_what_is_not_typed_is_kept_raw_under_a_bounded_label(fields: dict[str, str], label: str) -> None:
    message = xml({"ToUserName": CORP, "CreateTime": str(CREATED)} | fields)
    callback = parse(message)
    assert callback.contact is None
    assert callback.key == CORP
    assert not callback.raw.known
    assert (callback.raw.event, callback.raw.change_type) == (fields.get("Event", ""), fields.get("ChangeType", ""))
    assert callback.raw.event_time_ms == CREATED * 1000
    assert callback.raw.personal == message
    assert type_label(callback.raw) == label


@given(message=st.binary(max_size=80))
def test_any_genuine_message_is_kept_whatever_it_is(message: bytes) -> None:
    callback = parse(message)
    assert callback.raw.personal == message
    assert codec().decode(codec().encode(callback.raw)) == callback.raw


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_any_genuine_json_is_kept_whatever_it_is(value: Any) -> None:
    message = json.dumps(dict.fromkeys(["event", "createtime", "userid", "externaluserid", "agentid"], value)).encode()
    callback = parse(message)
    assert codec().decode(codec().encode(callback.raw)) == callback.raw


def test_a_json_message_reads_like_the_xml_one() -> None:
    message = json.dumps({name.lower(): value for name, value in ADD.items()} | {"createtime": CREATED}).encode()
    assert parse(message).contact == contact(ADD)


def test_the_messages_own_agent_id_wins_over_the_envelopes() -> None:
    assert parse(xml(ADD | {"AgentID": "7"})).raw.agent_id == "7"
    assert parse(xml(ADD | {"AgentID": "not a number"})).raw.agent_id == "1000002"


def test_a_repeat_has_the_same_id_whatever_wraps_it() -> None:
    once = parse(xml(ADD))
    again = parse_message(
        CORP,
        xml(dict(reversed(ADD.items())), cdata=False),
        agent_id="2",
        received_at_ms=RECEIVED_MS + 9,
        envelope_time_ms=ENVELOPE_MS + 9,
    )
    assert once.raw.event_id == again.raw.event_id == contact(ADD).event_id


def test_a_repeat_of_an_unknown_event_has_the_same_id() -> None:
    message = xml({"Event": "new", "CreateTime": "x"})
    again = parse_message(CORP, message, agent_id="", received_at_ms=1, envelope_time_ms=2)
    assert parse(message).raw.event_id == again.raw.event_id


def test_different_meanings_have_different_ids() -> None:
    variants = [
        ADD,
        ADD | {"UserID": "lisi"},
        ADD | {"ExternalUserID": "wmCustomer02"},
        ADD | {"CreateTime": str(CREATED + 1)},
        ADD | {"State": "qr-2"},
        ADD | {"WelcomeCode": "CODE2"},
        ADD | {"ChangeType": "add_half_external_contact"},
        ADD | {"ChangeType": "unknown"},
        {"Event": "new"},
    ]
    ids = [parse(xml(fields)).raw.event_id for fields in variants]
    ids += [parse(xml(fields), "wwother").raw.event_id for fields in variants]
    assert len(set(ids)) == len(ids)


def test_two_customers_who_scan_one_code_in_the_same_second_are_two_events() -> None:
    fifty = [contact(ADD | {"ExternalUserID": f"wm{number:02}"}).event_id for number in range(50)]
    assert len(set(fifty)) == 50


OUTER = {"ToUserName": CORP, "AgentID": "1000002", "Encrypt": "BASE64=="}


@pytest.mark.parametrize("order", list(itertools.permutations(OUTER)), ids="-".join)
@pytest.mark.parametrize("cdata", [True, False])
def test_an_envelope_in_any_order(order: tuple[str, ...], cdata: bool) -> None:
    assert parse_envelope(xml({name: OUTER[name] for name in order}, cdata=cdata)) == ("BASE64==", "1000002")


@pytest.mark.parametrize("agent_id", [None, "", "abc", "9" * 21])
def test_an_envelope_without_a_usable_agent_id(agent_id: str | None) -> None:
    fields = {"Encrypt": "BASE64=="} | ({} if agent_id is None else {"AgentID": agent_id})
    assert parse_envelope(xml(fields)) == ("BASE64==", "")


@pytest.mark.parametrize("agent_id", [1000002, "1000002"])
def test_a_json_envelope(agent_id: int | str) -> None:
    body = msgspec.json.encode({"tousername": CORP, "encrypt": "BASE64==", "agentid": agent_id, "new": {"a": [1]}})
    assert parse_envelope(b" \r\n" + body) == ("BASE64==", "1000002")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"hello",
        b"<xml>",
        b"<xml></xml>",
        b"<xml><Encrypt></Encrypt></xml>",
        b"<xml><Encrypt>A</Encrypt></xml><xml/>",
        b"<xml><Deeper><Encrypt>A</Encrypt></Deeper></xml>",
        b"<xml><Encrypt>&undeclared;</Encrypt></xml>",
        b"<?xml version='1.0' encoding='no-such'?><xml><Encrypt>A</Encrypt></xml>",
        b"<xml><Encrypt>\xff\xfe</Encrypt></xml>",
        b"<xml>" + b"<a/>" * 100 + b"<Encrypt>A</Encrypt></xml>",
        b"<a>" * 100_000,
        b"{",
        b"{}",
        b"[]",
        b'{"encrypt": null}',
        b'{"encrypt": true}',
        b'{"encrypt": ["A"]}',
        b'{"encrypt": "\xff"}',
        b'{"a":' + b"[" * 100_000,
    ],
    ids=range(21),
)
def test_a_broken_envelope_is_refused(body: bytes) -> None:
    with pytest.raises(BadEnvelope):
        parse_envelope(body)


MARKUP = [
    b"<!DOCTYPE xml><xml><Encrypt>A</Encrypt></xml>",
    b'<!DOCTYPE xml SYSTEM "http://127.0.0.1/x.dtd"><xml><Encrypt>A</Encrypt></xml>',
    b'<!DOCTYPE xml [<!ENTITY a "b">]><xml><Encrypt>&a;</Encrypt></xml>',
    b'<!DOCTYPE xml [<!ENTITY a SYSTEM "file:///etc/hostname">]><xml><Encrypt>&a;</Encrypt></xml>',
    b'<?xml version="1.0"?>\n<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>',
]


@pytest.mark.parametrize("body", MARKUP)
def test_a_doctype_is_refused_outside_and_inside(body: bytes) -> None:
    with pytest.raises(ForbiddenMarkup):
        parse_envelope(body)
    with pytest.raises(ForbiddenMarkup):
        parse(body)


@given(body=st.binary(max_size=60) | st.text("<>/xmlEncryptA&;![]", max_size=60).map(str.encode))
def test_no_envelope_crashes_the_parser(body: bytes) -> None:
    with contextlib.suppress(BadEnvelope, ForbiddenMarkup):
        assert parse_envelope(body).encrypted
