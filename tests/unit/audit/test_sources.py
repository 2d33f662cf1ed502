"""What arrived, read once more: callbacks into distinct events, pages of bills into distinct payments and refunds."""

import json

import pytest

from siyu.audit.bills import read_bills
from siyu.audit.callbacks import read_callbacks
from siyu.audit.errors import SourceError
from siyu.events.types import ActionOutcome, RawCallback


def callback(event_id: str = "e1", **elements: str) -> RawCallback:
    fields = {
        "ToUserName": "ww1",
        "FromUserName": "sys",
        "CreateTime": "1772330400",
        "MsgType": "event",
        "Event": "change_external_contact",
        "ChangeType": "add_external_contact",
        "UserID": "s1",
        "ExternalUserID": "c1",
        **elements,
    }
    xml = "".join(f"<{name}><![CDATA[{text}]]></{name}>" for name, text in fields.items())
    return raw(f"<xml>{xml}</xml>".encode(), event_id)


def raw(personal: bytes, event_id: str = "e1") -> RawCallback:
    return RawCallback(
        event_id=event_id,
        corp_id="ww1",
        agent_id="1000002",
        event="",
        change_type="",
        event_time_ms=0,
        received_at_ms=0,
        known=True,
        personal=personal,
    )


def page(*bills: dict, status: str = "done", endpoint: str = "externalpay/get_bill_list") -> ActionOutcome:
    return outcome(json.dumps({"errcode": 0, "bill_list": list(bills)}).encode(), status, endpoint)


def outcome(response: bytes, status: str, endpoint: str) -> ActionOutcome:
    return ActionOutcome(
        action_id="a1",
        lane="sync",
        corp_id="ww1",
        endpoint=endpoint,
        subject="ww1",
        staff_id="",
        customer_id="",
        status=status,
        errcode=0,
        detail="",
        calls=1,
        reason="",
        caused_by="",
        created_ms=0,
        deadline_ms=0,
        trigger_received_at_ms=0,
        finished_at_ms=0,
        request=b"",
        response=response,
    )


PAID = {
    "bill_type": 0,
    "trade_state": 1,
    "pay_time": 1772330400,
    "out_trade_no": "T1",
    "external_userid": "c1",
    "total_fee": 1200,
    "payee_userid": "s1",
    "payment_type": 1,
}
REFUNDED = {
    "bill_type": 1,
    "pay_time": 1772330500,
    "out_trade_no": "T1",
    "out_refund_no": "R1",
    "external_userid": "c1",
    "total_fee": 1200,
    "payee_userid": "s2",
    "total_refund_fee": 200,
}


def test_repeats_are_one_event_and_same_second_customers_are_two():
    arrived = read_callbacks([callback(), callback(), callback("e2", ExternalUserID="c2")])
    assert arrived.deliveries == 3
    assert sorted(c.customer_id for c in arrived.contacts) == ["c1", "c2"]
    assert not arrived.contradictions


def test_a_transfer_is_told_by_its_source():
    changes = [
        c.change
        for c in read_callbacks(
            [
                callback("e1", ChangeType="del_external_contact"),
                callback("e2", ChangeType="del_external_contact", Source="DELETE_BY_TRANSFER"),
                callback("e3", ChangeType="del_follow_user"),
            ]
        ).contacts
    ]
    assert changes == ["delete_by_staff", "delete_by_transfer", "delete_by_customer"]


@pytest.mark.parametrize(
    "personal",
    [
        b"not xml",
        b'{"json": 1}',
        b"",
        b'<!DOCTYPE x [<!ENTITY e "v">]><xml><Event>&e;</Event></xml>',
        b"<xml><Event>change_external_chat</Event></xml>",
    ],
)
def test_what_is_no_contact_event_is_counted_and_left_alone(personal):
    arrived = read_callbacks([raw(personal)])
    assert (arrived.deliveries, arrived.other, arrived.contacts) == (1, 1, [])


def test_event_ids_that_contradict_the_callbacks_are_named():
    two_ids = read_callbacks([callback("e1"), callback("e2")])
    assert [what for _, what, _ in two_ids.contradictions] == ["one event under two event ids"]
    one_id = read_callbacks([callback("e1"), callback("e1", ExternalUserID="c2")])
    assert [what for _, what, _ in one_id.contradictions] == ["two events under one event id"]


def test_bills_are_distinct_by_their_numbers_over_overlapping_pages():
    bills = read_bills([page(PAID), page({**PAID, "trade_state": 3}, REFUNDED), page(REFUNDED)])
    assert bills.pages == 3
    (payment,) = bills.payments.values()
    assert (payment.amount_fen, payment.collector_id, payment.time_ms) == (1200, "s1", 1772330400000)
    (refund,) = bills.refunds.values()
    assert (refund.amount_fen, refund.staff_id, refund.order_id) == (200, "s2", "T1")
    assert not bills.contradictions


def test_pages_that_disagree_about_money_are_named():
    bills = read_bills([page(PAID), page({**PAID, "total_fee": 1})])
    assert [what for _, what, _ in bills.contradictions] == ["two pages disagree on a payment"]


def test_failed_reads_and_other_calls_are_no_pages():
    bills = read_bills([page(PAID, status="failed"), page(PAID, endpoint="externalcontact/send_welcome_msg")])
    assert (bills.pages, bills.payments) == (0, {})


@pytest.mark.parametrize(
    "row",
    [
        {**PAID, "total_fee": 0},
        {**PAID, "trade_state": 2},
        {**PAID, "out_trade_no": ""},
        {**PAID, "bill_type": 7},
        {**REFUNDED, "total_refund_fee": -1},
        {"bill_type": 0},
        "text",
    ],
)
def test_a_row_that_is_no_complete_bill_is_counted_and_left_alone(row):
    bills = read_bills([page(row), page(row, PAID)])
    assert len(bills.no_bills) == 1
    assert len(bills.payments) == 1


@pytest.mark.parametrize("response", [b"", b"[1]", b'"text"', b'{"bill_list": 3}'])
def test_a_broken_page_stops_the_audit_without_quoting_it(response):
    with pytest.raises(SourceError, match="action a1"):
        read_bills([outcome(response, "done", "externalpay/get_bill_list")])
