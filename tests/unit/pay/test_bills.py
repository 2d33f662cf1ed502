from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.events.ids import payment_event_id
from siyu.pay import BillPageError, BillsRefused, event_key, parse_page
from siyu.pay.bills import UNKNOWN_PAYMENT_TYPE

# The two rows of the fact sheet's appendix A.
COLLECTION: dict[str, Any] = {
    "transaction_id": "4200001",
    "bill_type": 0,
    "trade_state": 3,
    "pay_time": 1605171726,
    "out_trade_no": "T1",
    "external_userid": "wmAAAA01",
    "total_fee": 100,
    "payee_userid": "zhangsan",
    "payment_type": 1,
    "mch_id": "1234567890",
    "remark": "",
    "commodity_list": [{"description": "手机", "amount": 1}],
    "total_refund_fee": 40,
    "refund_list": [
        {
            "out_refund_no": "R1",
            "refund_userid": "zhangsan",
            "refund_comment": "",
            "refund_reqtime": 1605171790,
            "refund_status": 2,
            "refund_fee": 40,
        }
    ],
    "contact_info": {"name": "x", "phone": "x", "address": "x"},
}
REFUND: dict[str, Any] = {
    "transaction_id": "5000001",
    "bill_type": 1,
    "pay_time": 1605171790,
    "out_trade_no": "T1",
    "out_refund_no": "R1",
    "external_userid": "wmAAAA01",
    "total_fee": 100,
    "payee_userid": "lisi",
    "payment_type": 1,
    "mch_id": "1234567890",
    "remark": "",
    "total_refund_fee": 40,
}


def page(*rows: Any, **fields: Any) -> bytes:
    return json.dumps({"errcode": 0, "errmsg": "ok", "bill_list": list(rows), **fields}).encode()


def parse(*rows: Any, **fields: Any) -> Any:
    return parse_page(page(*rows, **fields), corp_id="ww1", received_at_ms=7)


def without(row: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in fields}


def test_a_collection_is_a_payment_in_full_even_when_it_was_refunded_since() -> None:
    (event,) = parse(COLLECTION).events
    assert (event.change, event.order_id, event.refund_id) == ("paid", "T1", "")
    assert (event.amount_fen, event.event_time_ms, event.received_at_ms) == (100, 1605171726000, 7)
    assert (event.customer_id, event.staff_id, event.payment_type) == ("wmAAAA01", "zhangsan", 1)
    assert event.event_id == payment_event_id("ww1", "paid", "T1", "")
    assert event_key(event) == "ww1|wmAAAA01"


def test_a_refund_is_an_event_of_its_own_at_its_own_time_by_whoever_made_it() -> None:
    (event,) = parse(REFUND).events
    assert (event.change, event.order_id, event.refund_id) == ("refunded", "T1", "R1")
    assert (event.amount_fen, event.event_time_ms, event.staff_id) == (40, 1605171790000, "lisi")
    assert event.event_id == payment_event_id("ww1", "refunded", "T1", "R1")


def test_a_refund_row_that_lists_its_refund_is_worth_that_refund() -> None:
    row = REFUND | {"total_refund_fee": 90, "refund_list": [{"out_refund_no": "R0", "refund_fee": 50}]}
    assert parse(row).events[0].amount_fen == 90
    row["refund_list"] = [*row["refund_list"], {"out_refund_no": "R1", "refund_fee": 40}]
    assert parse(row).events[0].amount_fen == 40


def test_the_state_of_a_collection_does_not_change_the_event() -> None:
    finished = without(COLLECTION, "refund_list", "total_refund_fee") | {"trade_state": 1}
    assert parse(finished).events == parse(COLLECTION).events


def test_personal_fields_travel_in_their_envelope_and_only_when_there_are_any() -> None:
    assert set(json.loads(parse(COLLECTION).events[0].personal)) == {"contact_info", "commodity_list"}
    assert json.loads(parse(COLLECTION).events[0].personal)["contact_info"] == {
        "name": "x",
        "phone": "x",
        "address": "x",
    }
    assert parse(REFUND).events[0].personal == b""
    assert json.loads(parse(REFUND | {"remark": "脆"}).events[0].personal) == {"remark": "脆"}


@pytest.mark.parametrize("nobody", [{}, {"external_userid": ""}, {"external_userid": None}])
def test_a_payment_of_an_unknown_customer_is_kept_under_its_order(nobody: dict[str, Any]) -> None:
    for row in (COLLECTION, REFUND):
        (event,) = parse(without(row, "external_userid") | nobody).events
        assert event.customer_id == ""
        assert event_key(event) == "ww1|~T1"


def test_a_payment_that_nobody_collected_names_nobody() -> None:
    (event,) = parse(without(COLLECTION, "payee_userid", "payment_type")).events
    assert (event.staff_id, event.payment_type) == ("", UNKNOWN_PAYMENT_TYPE)


@pytest.mark.parametrize(
    ("row", "reason", "field"),
    [
        (without(COLLECTION, "bill_type"), "missing_field", "bill_type"),
        (without(COLLECTION, "trade_state"), "missing_field", "trade_state"),
        (without(COLLECTION, "out_trade_no"), "missing_field", "out_trade_no"),
        (without(COLLECTION, "total_fee"), "missing_field", "total_fee"),
        (without(COLLECTION, "pay_time"), "missing_field", "pay_time"),
        (without(REFUND, "out_refund_no"), "missing_field", "out_refund_no"),
        (without(REFUND, "total_refund_fee"), "missing_field", "total_refund_fee"),
        (COLLECTION | {"total_fee": 0}, "out_of_range", "total_fee"),
        (COLLECTION | {"pay_time": -5}, "out_of_range", "pay_time"),
        (REFUND | {"total_refund_fee": 1 << 60}, "out_of_range", "total_refund_fee"),
        (COLLECTION | {"pay_time": 1605171726000}, "out_of_range", "pay_time"),
        (COLLECTION | {"bill_type": 7}, "unknown_bill_type", "bill_type"),
        (COLLECTION | {"trade_state": 2}, "unknown_trade_state", "trade_state"),
        (COLLECTION | {"total_fee": "100"}, "not_a_bill", ""),
        (COLLECTION | {"total_fee": True}, "not_a_bill", ""),
        (COLLECTION | {"total_fee": 1.5}, "not_a_bill", ""),
        ("T1", "not_a_bill", ""),
        (None, "not_a_bill", ""),
    ],
)
def test_a_row_that_cannot_be_an_event_is_reported_and_the_others_are_read(row: Any, reason: str, field: str) -> None:
    read = parse(REFUND, row, COLLECTION)
    assert len(read.events) == 2
    ((problem),) = read.problems
    assert (problem.reason, problem.field) == (reason, field)
    assert problem.identity == parse(row).problems[0].identity


def test_only_a_missing_cursor_ends_the_list() -> None:
    assert parse(next_cursor="C2").next_cursor == "C2"
    assert parse(COLLECTION).next_cursor == ""
    assert parse(next_cursor="").next_cursor == ""
    assert parse_page(b'{"errcode":0,"next_cursor":"C2"}', corp_id="ww1", received_at_ms=7).next_cursor == "C2"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"<html>", b'{"bill_list":[]}', b'{"errcode":0,"bill_list":{}}', b"\xff"]
)
def test_an_answer_that_is_no_page_is_an_error(body: bytes) -> None:
    with pytest.raises(BillPageError):
        parse_page(body, corp_id="ww1", received_at_ms=7)


def test_an_error_code_is_told_apart() -> None:
    with pytest.raises(BillsRefused) as refused:
        parse_page(
            b'{"errcode":50100,"errmsg":"invalid cursor, from ip: 203.0.113.9"}', corp_id="ww1", received_at_ms=7
        )
    assert refused.value.errcode == 50100


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    try:
        parse_page(body, corp_id="ww1", received_at_ms=7)
    except BillPageError:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
)


@given(
    st.lists(st.dictionaries(st.sampled_from([*sorted(COLLECTION), "out_refund_no"]), JSON, max_size=10), max_size=3)
)
def test_every_row_of_a_page_comes_out_as_an_event_or_a_problem(rows: list[Any]) -> None:
    rows = [COLLECTION | row for row in rows]
    read = parse(*rows)
    assert len(read.events) + len(read.problems) == len(rows)
    assert all(event.amount_fen > 0 and event.order_id for event in read.events)


@given(st.text(alphabet="abcdef", min_size=6, max_size=12))
def test_a_problem_never_quotes_the_row(secret: str) -> None:
    read = parse(COLLECTION | {"total_fee": secret, "payee_userid": secret})
    assert secret not in f"{read.problems[0].reason} {read.problems[0].field}"
