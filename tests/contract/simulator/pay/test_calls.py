"""Fact sheet 3.15: who may call, and what is known of payments and refunds."""

import csv
import io
import time

import pytest

from simulator.pay import signing
from simulator.pay.files import Files, sha1, table

ORDER = "/v3/pay/transactions/out-trade-no/T202611200001"
REFUNDS = "/v3/refund/domestic/refunds"


def asked(number: str = "R1", refund: int = 400, total: int = 10_000, **more):
    amount = {"refund": refund, "total": total, "currency": "CNY"}
    return {"out_trade_no": "T202611200001", "out_refund_no": number, "amount": amount, **more}


@pytest.mark.covers("pay:authorization")
async def test_only_the_merchants_own_fresh_signature_is_taken(pay):
    """3.15: METHOD, URL, timestamp, nonce and body are signed; everything else is 401 SIGN_ERROR."""
    url = f"{ORDER}?mchid={pay.credentials.mchid}"
    pay.paid()
    assert (await pay.call("GET", url))[0] == 200
    other = signing.sign(signing.new_key(), b"x")
    old, long = str(int(time.time()) - 301), str(10**15)
    for changed in (
        {"signature": other},
        {"signature": "!!"},
        {"mchid": "1900000000"},
        {"serial": "5" * 40},
        {"timestamp": old},
        {"timestamp": long},
        {"timestamp": "now"},
    ):
        status, answer = await pay.call("GET", url, **changed)
        assert (status, answer["code"]) == (401, "SIGN_ERROR"), changed
    headers = pay.sign("GET", url, b"")
    assert (await pay.client.get(url + "&x=1", headers=headers)).status_code == 401
    for authorization in ("", "Bearer x", signing.SCHEMA, f"{signing.SCHEMA} mchid=1", f'{signing.SCHEMA} mchid="1"'):
        response = await pay.client.get(url, headers={**headers, "Authorization": authorization})
        assert response.status_code == 401
    body = b'{"a":1}'
    response = await pay.client.post(REFUNDS, content=b'{"a":2}', headers=pay.sign("POST", REFUNDS, body))
    assert response.status_code == 401
    assert response.json()["detail"]["sign_information"]["url"] == REFUNDS


@pytest.mark.covers("GET /v3/certificates", "pay:authorization")
def test_the_library_is_taken_and_fetches_the_platform_certificate(pay, library):
    """3.15: GET /v3/certificates gives the certificate under the APIv3 key; the library starts from it."""
    pay.paid(amount_fen=1_000)
    for certificates in (True, False):
        client = library(certificates=certificates)
        status, answer = client.query(out_trade_no="T202611200001")
        assert (status, '"total":1000' in answer) == (200, True)
        # The library raises when the answer's own signature is wrong.
        status, answer = client.refund(
            out_refund_no=f"R{certificates}",
            out_trade_no="T202611200001",
            amount=asked(refund=100, total=1_000)["amount"],
        )
        assert status == 200, answer
        pay.wecom.clock.ms += 60_000


@pytest.mark.covers("GET /v3/pay/transactions/out-trade-no", "GET /v3/pay/transactions/id")
async def test_a_payment_is_found_by_both_numbers(pay):
    """3.15: after the notices have ended the order can be queried."""
    transaction_id = pay.paid(amount_fen=1_234)
    mchid = pay.credentials.mchid
    by_order = await pay.get(f"{ORDER}?mchid={mchid}")
    by_id = await pay.get(f"/v3/pay/transactions/id/{transaction_id}?mchid={mchid}")
    assert by_order == by_id
    assert (by_order["amount"]["total"], by_order["trade_state"]) == (1_234, "SUCCESS")
    assert await pay.refused("GET", f"/v3/pay/transactions/id/4200?mchid={mchid}") == (404, "ORDER_NOT_EXIST")
    assert await pay.refused("GET", ORDER) == (400, "PARAM_ERROR")
    assert await pay.refused("GET", f"{ORDER}?mchid=1") == (400, "MCH_NOT_EXISTS")


@pytest.mark.covers("POST /v3/refund/domestic/refunds", "GET /v3/refund/domestic/refunds", "event:pay/REFUND.SUCCESS")
async def test_a_refund_takes_its_time_and_is_told(pay):
    """3.15: PROCESSING first, then a notice; the same number again is the same refund."""
    pay.paid()
    made = await pay.post(REFUNDS, asked(reason="damaged"))
    assert (made["status"], made["amount"]["refund"]) == ("PROCESSING", 400)
    assert await pay.post(REFUNDS, asked()) == made
    assert (await pay.get(f"{ORDER}?mchid={pay.credentials.mchid}"))["trade_state"] == "REFUND"
    await pay.pass_time(61)
    ended = await pay.get(f"{REFUNDS}/R1")
    assert (ended["status"], ended["refund_id"]) == ("SUCCESS", made["refund_id"])
    assert [a.json["event_type"] for a in pay.arrived] == ["TRANSACTION.SUCCESS", "REFUND.SUCCESS"]
    assert pay.opened(pay.arrived[1])["refund_id"] == made["refund_id"]
    assert await pay.refused("GET", f"{REFUNDS}/R2") == (404, "RESOURCE_NOT_EXISTS")


@pytest.mark.parametrize(
    ("platform_rules", "status"),
    [
        ({"pay": {"refund_abnormal_share": 1.0}}, "ABNORMAL"),
        ({"pay": {"refund_abnormal_share": 0.0, "refund_closed_share": 1.0}}, "CLOSED"),
    ],
    indirect=["platform_rules"],
)
@pytest.mark.covers("event:pay/REFUND.ABNORMAL", "event:pay/REFUND.CLOSED")
async def test_refunds_may_fail(pay, status):
    """3.15: REFUND.ABNORMAL and REFUND.CLOSED are told like a success; only what is closed can be refunded again."""
    pay.paid()
    await pay.post(REFUNDS, asked("R1", 10_000))
    await pay.pass_time(61)
    assert pay.arrived[-1].json["event_type"] == f"REFUND.{status}"
    assert pay.opened(pay.arrived[-1])["refund_status"] == status
    assert (await pay.get(f"{REFUNDS}/R1"))["status"] == status
    answer = await pay.call("POST", REFUNDS, asked("R2", 1))
    assert answer[0] == (200 if status == "CLOSED" else 403)


@pytest.mark.covers("POST /v3/refund/domestic/refunds")
async def test_refunds_are_limited_by_amount_and_minute(pay):
    """3.15: never more than was paid, one a minute of one order, fifty altogether, within a year."""
    pay.paid()
    await pay.post(REFUNDS, asked("R1", 9_000))
    assert await pay.refused("POST", REFUNDS, asked("R2", 500)) == (429, "FREQUENCY_LIMITED")
    await pay.pass_time(61)
    assert await pay.refused("POST", REFUNDS, asked("R2", 1_001)) == (403, "NOT_ENOUGH")
    assert await pay.refused("POST", REFUNDS, asked("R1", 1)) == (400, "INVALID_REQUEST")
    assert await pay.refused("POST", REFUNDS, asked("R2", 1, total=1)) == (400, "PARAM_ERROR")
    await pay.post(REFUNDS, asked("R2", 1_000))
    pay.wecom.advance(366 * 86_400)
    assert await pay.refused("POST", REFUNDS, asked("R3", 1)) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        b"{",
        b"\xff",
        {"amount": None},
        {**asked(), "out_refund_no": 5},
        {**asked(), "out_refund_no": "no spaces"},
        {**asked(), "out_refund_no": "x" * 65},
        {**asked(), "amount": []},
        {**asked(), "amount": {"refund": "1", "total": 10_000}},
        {**asked(), "amount": {"refund": True, "total": 10_000}},
        {**asked(), "amount": {"refund": 0, "total": 10_000}},
        {**asked(), "amount": {"refund": 1, "total": 10_000, "currency": "USD"}},
        {**asked(), "reason": "\ud800"},
        {**asked(), "reason": {}},
    ],
)
@pytest.mark.covers("POST /v3/refund/domestic/refunds")
async def test_wrong_bodies_are_refused_by_name(pay, body):
    """3.15: a wrong body is a 400 with code and message, never a 500."""
    pay.paid()
    status, answer = await pay.call("POST", REFUNDS, body)
    assert (status, answer["code"]) == (400, "PARAM_ERROR")
    assert answer["message"]


@pytest.mark.covers("pay:unknown")
async def test_other_paths_and_methods_are_refused_and_recorded(pay):
    """3.15: there is no call that charges anybody; what does not exist says so."""
    assert await pay.refused("POST", "/v3/pay/transactions/jsapi", {}) == (404, "NOT_FOUND")
    assert await pay.refused("POST", "/v3/certificates", {}) == (405, "METHOD_NOT_ALLOWED")
    assert [(call.endpoint, call.status) for call in pay.app.calls] == [("unknown", 404), ("unknown", 405)]
    url = f"{ORDER}?mchid={pay.credentials.mchid}"
    headers = {**pay.sign("GET", url, b""), "Accept": ""}
    assert (await pay.client.get(url, headers=headers)).json()["code"] == "PARAM_ERROR"
    headers = {**pay.sign("POST", REFUNDS, b"{}"), "Content-Type": "text/xml"}
    assert (await pay.client.post(REFUNDS, content=b"{}", headers=headers)).json()["code"] == "PARAM_ERROR"


@pytest.mark.covers("GET /v3/billdownload/file")
async def test_an_address_is_good_for_half_a_minute(pay):
    """3.15: the file of a flow, its hash, and an address that grows old."""
    content = table(("a", "b"), [(1, "猜")], (("n", 1),))
    token, _ = pay.corp.of(Files).put(pay.credentials.mchid, content, expires_s=pay.now_s + 30)
    url = f"/v3/billdownload/file?token={token}"
    status, file = await pay.call("GET", url)
    assert (status, file, sha1(file)) == (200, content, sha1(content))
    assert list(csv.reader(io.StringIO(file.decode()))) == [["a", "b"], ["`1", "`猜"], ["n"], ["`1"]]
    pay.wecom.advance(31)
    assert await pay.refused("GET", url) == (403, "NO_AUTH")
