"""Fact sheet 3.10 and 2.6: orders of mini programs, and the only pushes that 对外收款 has."""

import base64
import gzip
import hashlib
import json
import xml.etree.ElementTree as ET
from urllib.parse import parse_qs, urlsplit

import pytest

from simulator.pay import signing
from simulator.pay.times import rfc3339
from simulator.world.miniorders import MiniOrders, order_key
from simulator.world.payers import Payers
from siyu.wecom.crypto import CallbackCrypto

START_S = 1_760_000_000
MCH_ID = "1900000001"
APPID = "wx0000000000000001"
SURE = {"paid_share": 1.0, "refund_abnormal_share": 0.0, "refund_closed_share": 0.0, "rejected_share": 0.0}
UNPAID = {**SURE, "paid_share": 0.0}


@pytest.fixture
def platform_rules(request):
    return {"miniapppay": {**SURE, **getattr(request, "param", {})}}


def asked(pay, number="T00001", **changed):
    return {
        "appid": APPID,
        "mchid": MCH_ID,
        "out_trade_no": number,
        "description": "tea",
        "amount": {"total": 1_000, "currency": "CNY"},
        "payer": {"openid": pay.corp.of(Payers).openid("wmC1", APPID)},
        "attach": "shelf-3",
        **changed,
    }


def back(number="R1", refund=400, **changed):
    amount = {"refund": refund, "total": 1_000, "currency": "CNY"}
    ids = {"appid": APPID, "mchid": MCH_ID, "out_trade_no": "T00001", "out_refund_no": number}
    return {**ids, "reason": "damaged", "amount": amount, **changed}


async def call(pay, path, body):
    return await pay.wecom.post(f"miniapppay/{path}", body)


async def code(pay, path, body):
    return (await call(pay, path, body))["errcode"]


async def pushed(pay):
    """What the app was pushed: the XML's values and the opened resource."""
    await pay.wecom.simulation.deliverer.wait_idle()
    corp, found = pay.wecom.corp, []
    crypto = CallbackCrypto(corp.callback_token, corp.callback_aes_key, corp.corp_id)
    for request in pay.wecom.accepted:
        query = {name: values[0] for name, values in parse_qs(urlsplit(str(request.url)).query).items()}
        encrypt = ET.fromstring(request.content).findtext("Encrypt")
        content = crypto.decrypt(query["msg_signature"], query["timestamp"], query["nonce"], encrypt)
        xml = ET.fromstring(content)
        if xml.findtext("notify_type") is None:
            continue
        plain = signing.unseal(
            base64.b64decode(corp.callback_aes_key + "="),
            xml.findtext("resource/ciphertext"),
            nonce=xml.findtext("resource/nonce"),
            associated=xml.findtext("resource/associated_data"),
        )
        found.append(({child.tag: child.text for child in xml}, json.loads(plain)))
    return found


@pytest.mark.covers(
    "miniapppay/create_order", "miniapppay/get_order", "event:miniapppay/TRANSACTION.SUCCESS", "fact:6.14"
)
async def test_an_order_is_paid_and_pushed_and_stands_in_the_bill_list(pay):
    """2.6: NORMALPAY under the app's own callback AESKey, with openid and not external_userid; the bill has both."""
    answer = await call(pay, "create_order", asked(pay))
    assert (answer["errcode"], answer["prepay_id"][:2]) == (0, "wx")
    assert (await call(pay, "create_order", asked(pay)))["prepay_id"] == answer["prepay_id"]
    query = {"mchid": MCH_ID, "out_trade_no": "T00001"}
    before = await call(pay, "get_order", query)
    assert (before["trade_state"], before["promotion_detail"]) == ("NOTPAY", [])
    pay.wecom.advance(310)
    after = await call(pay, "get_order", query)
    assert (after["trade_state"], after["attach"], after["payer"]) == ("SUCCESS", "shelf-3", asked(pay)["payer"])
    ((head, told),) = await pushed(pay)
    assert (head["notify_type"], head["event_type"]) == ("NORMALPAY", "TRANSACTION.SUCCESS")
    assert (head["resource_type"], head["summary"], len(head["id"])) == ("encrypt-resource", "支付成功", 36)
    assert told["payer"] == asked(pay)["payer"]
    assert "external_userid" not in told
    assert told["amount"]["payer_total"] == 1_000
    listed = await pay.wecom.post(
        "externalpay/get_bill_list", {"begin_time": START_S, "end_time": pay.now_s, "payee_userid": ""}
    )
    row = next(row for row in listed["bill_list"] if row["out_trade_no"] == "T00001")
    assert (row["payment_type"], row["external_userid"], row["mch_id"]) == (15, "wmC1", MCH_ID)
    assert row["miniprogram_info"]["appid"] == APPID
    assert "payee_userid" not in row


@pytest.mark.parametrize(
    ("changed", "errcode"),
    [
        ({"appid": "wxother"}, 40035),
        ({"appid": None}, 40058),
        ({"mchid": "1"}, 60238),
        ({"mchid": 1}, 40035),
        ({"out_trade_no": "T1"}, 40035),
        ({"out_trade_no": "T 0000001"}, 40035),
        ({"description": ""}, 40058),
        ({"description": "x" * 128}, 40035),
        ({"amount": None}, 40058),
        ({"amount": {"total": 0}}, 60240),
        ({"amount": {"total": 5_000_001}}, 60240),
        ({"amount": {"total": 1.5}}, 40035),
        ({"amount": {"total": 1, "currency": "USD"}}, 40035),
        ({"payer": {}}, 40058),
        ({"payer": "o"}, 40035),
        ({"time_expire": "soon"}, 40035),
        ({"time_expire": rfc3339(START_S - 1)}, 40035),
        ({"attach": "\ud800"}, 40035),
    ],
)
@pytest.mark.covers("miniapppay/create_order")
async def test_wrong_orders_have_their_code(pay, changed, errcode):
    """3.10: every field of create_order is checked."""
    assert await code(pay, "create_order", asked(pay, **changed)) == errcode


@pytest.mark.parametrize("platform_rules", [UNPAID], indirect=True)
@pytest.mark.covers("miniapppay/close_order", "miniapppay/create_order", "miniapppay/get_order")
async def test_an_order_that_is_closed_or_too_old_cannot_be_paid(pay):
    """3.10: close_order, time_expire, and a number that is used once."""
    ids = {"mchid": MCH_ID, "out_trade_no": "T00001"}
    assert await code(pay, "get_order", ids) == 720501
    await call(pay, "create_order", asked(pay))
    assert await code(pay, "create_order", asked(pay, description="coffee")) == 60236
    assert await code(pay, "close_order", ids) == 0
    assert await code(pay, "close_order", ids) == 0
    assert (await call(pay, "get_order", ids))["trade_state"] == "CLOSED"
    assert await code(pay, "create_order", asked(pay)) == 60239
    orders = pay.corp.of(MiniOrders)
    assert not orders.pay(orders.order(MCH_ID, "T00001"), pay.now_s)
    await call(pay, "create_order", asked(pay, "T00002", time_expire=rfc3339(START_S + 60)))
    pay.wecom.advance(61)
    assert (await call(pay, "get_order", {**ids, "out_trade_no": "T00002"}))["trade_state"] == "CLOSED"
    assert not orders.pay(orders.order(MCH_ID, "T00002"), pay.now_s)
    await call(pay, "create_order", asked(pay, "T00003"))
    assert orders.pay(orders.order(MCH_ID, "T00003"), pay.now_s)
    assert await code(pay, "close_order", {**ids, "out_trade_no": "T00003"}) == 60236
    assert await code(pay, "create_order", asked(pay, "T00003")) == 60236


@pytest.mark.parametrize("platform_rules", [UNPAID], indirect=True)
@pytest.mark.covers("miniapppay/get_sign")
async def test_a_payment_signature_is_of_the_prepay_id(pay):
    """3.10: get_sign gives an RSA signature for a prepay_id of the last two hours."""
    prepay_id = (await call(pay, "create_order", asked(pay)))["prepay_id"]
    body = {"appid": APPID, "prepay_id": prepay_id, "nonce": "n1", "timestamp": START_S, "sign_type": "RSA"}
    answer = await call(pay, "get_sign", body)
    message = signing.lines(APPID, str(START_S), "n1", f"prepay_id={prepay_id}")
    assert signing.verify(order_key().public_key(), message, answer["pay_sign"])
    for wrong, errcode in (
        ({"prepay_id": "wx1"}, 40035),
        ({"nonce": "n-1"}, 40035),
        ({"nonce": None}, 40058),
        ({"timestamp": "1"}, 40035),
        ({"sign_type": "MD5"}, 40035),
    ):
        assert await code(pay, "get_sign", {**body, **wrong}) == errcode
    pay.wecom.advance(7_201)
    pay.wecom._token = ""
    assert await code(pay, "get_sign", body) == 40035


@pytest.mark.covers("miniapppay/refund", "miniapppay/get_refund_detail", "event:miniapppay/REFUND.SUCCESS")
async def test_a_refund_is_accepted_then_through_and_pushed(pay):
    """2.6: REFUND.SUCCESS; the refund is a row of its own in the bill list."""
    await call(pay, "create_order", asked(pay))
    assert await code(pay, "refund", back()) == 60236
    pay.wecom.advance(310)
    answer = await call(pay, "refund", back())
    assert (answer["errcode"], answer["out_refund_no"]) == (0, "R1")
    detail = {"mchid": MCH_ID, "out_refund_no": "R1"}
    assert (await call(pay, "get_refund_detail", detail))["status"] == "PROCESSING"
    pay.wecom.advance(65)
    after = await call(pay, "get_refund_detail", detail)
    assert (after["status"], after["refund_id"], after["amount"]["refund"]) == ("SUCCESS", answer["refund_id"], 400)
    head, told = (await pushed(pay))[-1]
    assert (head["notify_type"], head["event_type"], told["refund_status"]) == ("REFUND", "REFUND.SUCCESS", "SUCCESS")
    assert told["amount"] == {"total": 1_000, "refund": 400, "payer_total": 1_000, "payer_refund": 400}
    listed = await pay.wecom.post("externalpay/get_bill_list", {"begin_time": START_S, "end_time": pay.now_s})
    rows = [row for row in listed["bill_list"] if row["out_trade_no"] == "T00001"]
    assert [(row["bill_type"], row["total_refund_fee"]) for row in rows] == [(0, 400), (1, 400)]
    assert await code(pay, "get_refund_detail", {**detail, "out_refund_no": "R2"}) == 60243


@pytest.mark.covers("miniapppay/refund")
async def test_one_refund_a_minute_of_one_order(pay):
    """3.10: refund: 1 per order per minute; never more than was paid."""
    await call(pay, "create_order", asked(pay))
    pay.wecom.advance(310)
    assert await code(pay, "refund", back("R1")) == 0
    assert await code(pay, "refund", back("R2")) == 45009
    pay.wecom.advance(61)
    assert await code(pay, "refund", back("R2", 601)) == 60240
    pay.wecom.advance(61)
    assert await code(pay, "refund", back("R1")) == 0
    for wrong, errcode in (
        ({"out_trade_no": "T99999"}, 720501),
        ({"amount": {"refund": 1, "total": 999}}, 40035),
        ({"amount": {"refund": 0, "total": 1_000}}, 60240),
        ({"amount": None}, 40058),
        ({"out_refund_no": "a b"}, 40035),
        ({"reason": "x" * 81}, 40035),
        ({"mchid": "2"}, 60238),
    ):
        assert await code(pay, "refund", back("R3", **wrong)) == errcode
    pay.wecom.advance(61)
    assert await code(pay, "refund", back("R1", 1)) == 60236


@pytest.mark.parametrize(
    ("platform_rules", "state"),
    [
        ({"refund_abnormal_share": 1.0}, "ABNORMAL"),
        ({"refund_closed_share": 1.0}, "CLOSED"),
    ],
    indirect=["platform_rules"],
)
@pytest.mark.covers("event:miniapppay/REFUND.ABNORMAL", "event:miniapppay/REFUND.CLOSED")
async def test_refunds_that_fail_are_pushed_too(pay, state):
    """2.6: REFUND.ABNORMAL and REFUND.CLOSED; no bill row comes of them."""
    await call(pay, "create_order", asked(pay))
    pay.wecom.advance(310)
    await call(pay, "refund", back())
    pay.wecom.advance(65)
    head, told = (await pushed(pay))[-1]
    assert (head["event_type"], told["refund_status"]) == (f"REFUND.{state}", state)
    listed = await pay.wecom.post("externalpay/get_bill_list", {"begin_time": START_S, "end_time": pay.now_s})
    assert [row["bill_type"] for row in listed["bill_list"] if row["out_trade_no"] == "T00001"] == [0]


@pytest.mark.covers("miniapppay/get_bill")
async def test_a_days_bill_is_a_file_behind_an_address(pay):
    """3.10: get_bill; the file is fetched with the header it names, within half a minute."""
    await call(pay, "create_order", asked(pay))
    pay.wecom.advance(310)
    day = rfc3339(START_S)[:10]
    body = {"bill_date": day, "mchid": MCH_ID}
    assert await code(pay, "get_bill", body) == 40035
    pay.wecom.advance(2 * 86_400)
    pay.wecom._token = ""
    for packed in ({}, {"tar_type": "GZIP"}):
        answer = await call(pay, "get_bill", {**body, "bill_type": "SUCCESS", **packed})
        url = answer["download_url"].removeprefix("https://api.mch.weixin.qq.com")
        name, _, value = answer["auth"].partition(": ")
        response = await pay.client.get(url, headers={name: value})
        content = gzip.decompress(response.content) if packed else response.content
        assert (response.status_code, b"T00001" in content) == (200, True)
        assert (answer["hash_type"], answer["hash_value"]) == ("SHA1", hashlib.sha1(content).hexdigest())
        assert (await pay.client.get(url, headers={name: value[:-1]})).status_code == 403
    pay.wecom.advance(31)
    assert (await pay.client.get(url, headers={name: value})).status_code == 403
    for wrong in ({"bill_date": "2025-13-01"}, {"bill_date": "2025-01-01"}, {"bill_type": "X"}, {"tar_type": "ZIP"}):
        assert await code(pay, "get_bill", {**body, **wrong}) == 40035


@pytest.mark.parametrize("platform_rules", [UNPAID], indirect=True)
@pytest.mark.covers("event:miniapppay/TRANSACTION.SUCCESS")
async def test_an_app_that_takes_json_is_told_as_json(pay):
    """2.6: 对外收款 apps may ask for JSON (callback_format=json): the notice has the same names."""
    await call(pay, "create_order", asked(pay))
    orders, told = pay.corp.of(MiniOrders), []
    order = orders.order(MCH_ID, "T00001")
    order.as_json = True
    pay.corp._send = told.append
    orders.pay(order, pay.now_s)
    notice = json.loads(told[0].content)
    assert (notice["notify_type"], notice["event_type"]) == ("NORMALPAY", "TRANSACTION.SUCCESS")
    assert set(notice["resource"]) == {"algorithm", "ciphertext", "associated_data", "nonce"}
    assert (told[0].event, told[0].only_agent) == ("miniapppay", "1000002")


async def image(pay, content=b"\xff\xd8\xff\xe0" + b"x" * 100):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="media"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + content
        + b"\r\n--b--\r\n"
    )
    response = await pay.wecom.client.post(
        "/cgi-bin/miniapppay/upload_image",
        params={"access_token": await pay.wecom.token()},
        content=body,
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    return response.json()


def application(media, number="A1", **changed):
    return {
        "out_request_no": number,
        "organization_type": 0,
        "business_license_info": {
            "business_license_copy_open_wx_pay_media_id": media,
            "business_license_number": "91440300MA5F00001X",
            "merchant_name": "示例零售有限公司",
            "legal_person": "王芳",
            "company_address": "示例路1号",
        },
        "merchant_short_name": "示例门店",
        "id_card_info": {
            "id_card_copy_open_wx_pay_media_id": media,
            "id_card_national_open_wx_pay_media_id": media,
            "id_card_name": "王芳",
            "id_card_number": "110101199001010000",
            "id_card_valid_time_begin": "2020-01-01",
            "id_card_valid_time": "2040-01-01",
        },
        "contact_info": {"contact_type": "65", "mobile_phone": "13800000000", "contact_email": "a@b.example"},
        "account_info": {
            "account_bank": "招商银行",
            "account_name": "示例零售有限公司",
            "bank_address_code": "440300",
            "account_number": "6225000000000000",
        },
        "sales_scene_info": {"type": 1},
        "business_id": 1,
        "userid": "s1",
        **changed,
    }


@pytest.mark.covers("miniapppay/apply_mch", "miniapppay/get_applyment_status", "miniapppay/upload_image")
async def test_a_merchant_number_is_applied_for_and_bound(pay):
    """3.10: upload_image, apply_mch, get_applyment_status; what comes of it can take orders."""
    media = (await image(pay))["open_wx_pay_media_id"]
    status = {"out_request_no": "A1"}
    assert await code(pay, "get_applyment_status", status) == 40035
    assert await code(pay, "apply_mch", application(media)) == 0
    assert await code(pay, "apply_mch", application(media)) == 40035
    before = await call(pay, "get_applyment_status", status)
    assert (before["apply_state"], before["status"]["applyment_state"]) == (1, "AUDITING")
    pay.wecom.advance(3 * 86_400 + 1)
    pay.wecom._token = ""
    after = await call(pay, "get_applyment_status", status)
    assert (after["apply_state"], after["real_sign_state"], after["status"]["applyment_state"]) == (2, 2, "FINISH")
    number = after["status"]["sub_mchid"]
    assert (await pay.wecom.post("externalpay/getmerchant", {"mch_id": number}))["bind_status"] == 2
    assert await code(pay, "create_order", asked(pay, mchid=number)) == 0


@pytest.mark.parametrize("platform_rules", [{"rejected_share": 1.0}], indirect=True)
@pytest.mark.covers("miniapppay/apply_mch", "miniapppay/get_applyment_status")
async def test_a_refused_application_says_why_and_may_be_sent_again(pay):
    """3.10: apply_state 4 with a reject_reason."""
    media = (await image(pay))["open_wx_pay_media_id"]
    await call(pay, "apply_mch", application(media))
    pay.wecom.advance(3 * 86_400 + 1)
    pay.wecom._token = ""
    after = await call(pay, "get_applyment_status", {"out_request_no": "A1"})
    assert (after["apply_state"], bool(after["reject_reason"]), len(after["status"]["audit_detail"])) == (4, True, 1)
    assert await code(pay, "apply_mch", application(media)) == 0


@pytest.mark.parametrize("platform_rules", [{"applications_per_user": 1}], indirect=True)
@pytest.mark.covers("miniapppay/apply_mch", "miniapppay/upload_image")
async def test_wrong_applications_have_their_code(pay):
    """3.10: required fields, images of this app, limits by staff member."""
    media = (await image(pay))["open_wx_pay_media_id"]
    for changed, errcode in (
        ({"out_request_no": ""}, 40058),
        ({"out_request_no": "猜"}, 40035),
        ({"organization_type": 9}, 40035),
        ({"business_license_info": None}, 40058),
        ({"id_card_info": []}, 40035),
        ({"userid": "nobody"}, 60111),
        ({"owner": False}, 40058),
        ({"owner": "no"}, 40035),
    ):
        assert await code(pay, "apply_mch", application(media, **changed)) == errcode, changed
    assert await code(pay, "apply_mch", application("unknown")) == 40007
    assert await code(pay, "apply_mch", application(media)) == 0
    assert await code(pay, "apply_mch", application(media, "A2")) == 45024
    assert (await image(pay, b"plain text"))["errcode"] == 40004
    assert (await image(pay, b"\xff\xd8\xff" + b"x" * (2 << 20)))["errcode"] == 45001
    pay.wecom.advance(31 * 86_400)
    pay.wecom._token = ""
    assert await code(pay, "apply_mch", application(media, "A3", userid="s2")) == 40007


@pytest.mark.parametrize("platform_rules", [{"open": False}], indirect=True)
@pytest.mark.covers("miniapppay/create_order", "miniapppay/get_order")
async def test_only_corps_that_were_let_in_can_use_it(pay):
    """3.10: only grey-listed corps can use it."""
    for path in ("create_order", "get_order", "close_order", "get_sign", "refund", "get_refund_detail", "get_bill"):
        assert await code(pay, path, asked(pay)) == 48002
