"""Mini programs that collect through WeCom (fact sheet 3.10): orders, refunds, bills, and new merchant numbers.

Codes: the sheet names none for this family but those of 对外收款; an order that does not exist is 720501, as reports of
users have it. A merchant number that is not bound is 60238, a number used for something else 60236, an amount out of
range 60240, an order that can no longer be paid 60239, a refund that does not exist 60243.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from simulator.callbacks import wants_json
from simulator.pay import signing
from simulator.pay.files import PATH
from simulator.pay.times import parse_day, parse_rfc3339, rfc3339
from simulator.platform import fields
from simulator.platform.api.bills import allowed
from simulator.platform.api.media import sent_file
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.bills import COLLECTION, REFUND
from simulator.world.days import DAY_S, day_start
from simulator.world.funds import ReceivingMerchants
from simulator.world.miniorders import Application, MiniOrder, MiniOrders, MiniRefund, order_key

API = Api()

_ORDER_NO = re.compile(r"[0-9A-Za-z_\-|*@]{6,32}")
_REFUND_NO = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}")
_NONCE = re.compile(r"[0-9A-Za-z]{1,32}")
_REQUEST_NO = re.compile(r"[0-9A-Za-z_\-]{1,32}")
_BILL_TYPES = {"ALL": (COLLECTION, REFUND), "SUCCESS": (COLLECTION,), "REFUND": (REFUND,)}
_IMAGE_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")
_IMAGE_LEAST_BYTES = 5
_UPLOAD_LIMIT = 8 << 20


@API.post("miniapppay/create_order")
def create_order(call: Call) -> Answer:
    """Orders for a payer's openid; the same request again gives the same prepay_id.

    A number that was paid, or used for another order, is 60236; of a closed order 60239.
    """
    orders, body = _orders(call), call.body
    appid = _appid(orders, body)
    mch_id = _mch_id(call)
    number = _match(body, "out_trade_no", _ORDER_NO)
    description = fields.text(body, "description", required=True, max_chars=127)
    attach = fields.text(body, "attach", max_chars=128)
    fields.text(body, "scenekey", max_bytes=128)
    amount_fen = _amount(fields.obj(body, "amount", required=True), "total", orders.rules.amount_most_fen)
    openid = fields.text(fields.obj(body, "payer", required=True), "openid", required=True, max_bytes=128)
    expires_s = call.now_s + orders.rules.order_s
    if until := fields.text(body, "time_expire", max_chars=64):
        given = parse_rfc3339(until)
        if given is None or given <= call.now_s:
            raise ApiError(40035)
        expires_s = given
    asked = (appid, amount_fen, openid, description, attach)
    known = orders.order(mch_id, number)
    if known is not None:
        state = known.state_at(call.now_s)
        if state == "CLOSED":
            raise ApiError(60239)
        if state != "NOTPAY" or known.asked != asked:
            raise ApiError(60236)
        return {"prepay_id": known.prepay_id}
    order = orders.add(
        MiniOrder(
            mch_id=mch_id,
            appid=appid,
            agent_id=call.app.agent_id,
            aes_key=base64.b64decode(call.app.callback_aes_key + "=") if call.app.callback_aes_key else b"",
            as_json=wants_json(call.app.callback_url),
            out_trade_no=number,
            description=description,
            amount_fen=amount_fen,
            openid=openid,
            attach=attach,
            asked=asked,
            created_s=call.now_s,
            expires_s=expires_s,
        )
    )
    return {"prepay_id": order.prepay_id}


@API.post("miniapppay/get_order", promotion_detail=[])
def get_order(call: Call) -> Answer:
    """An order made through this interface; others of the same merchant number are not found."""
    return {**_order(call).shown(call.now_s), "promotion_detail": []}


@API.post("miniapppay/close_order")
def close_order(call: Call) -> Answer:
    """An order nobody has paid can be paid no more; closing it again is fine. Paid: 60236."""
    order = _order(call)
    if order.state_at(call.now_s) not in ("NOTPAY", "CLOSED"):
        raise ApiError(60236)
    _orders(call).close(order)
    return {}


@API.post("miniapppay/get_sign")
def get_sign(call: Call) -> Answer:
    """What the mini program needs to call up the payment; for a prepay_id of the last two hours."""
    orders, body = _orders(call), call.body
    appid = _appid(orders, body)
    order = orders.by_prepay(fields.text(body, "prepay_id", required=True, max_chars=128))
    nonce = _match(body, "nonce", _NONCE)
    timestamp = fields.whole(body, "timestamp", least=0, most=1 << 33)
    if fields.text(body, "sign_type", max_chars=32) not in ("", "RSA"):
        raise ApiError(40035)
    if order is None or order.appid != appid or call.now_s - order.created_s > orders.rules.order_s:
        raise ApiError(40035)
    message = signing.lines(appid, str(timestamp), nonce, f"prepay_id={order.prepay_id}")
    return {"pay_sign": signing.sign(order_key(), message)}


@API.post("miniapppay/refund")
def refund(call: Call) -> Answer:
    """Asks for a refund, at most once a minute for one order and 150 times a second altogether (45009).

    The same out_refund_no again shows the refund as it stands, and counts, too. How it ends is told later.
    """
    orders, body = _orders(call), call.body
    _appid(orders, body)
    order = _order(call)
    number = _match(body, "out_refund_no", _REFUND_NO)
    reason = fields.text(body, "reason", max_chars=80)
    fields.text(body, "funds_account", max_chars=32)
    amount = fields.obj(body, "amount", required=True)
    refund_fen = _amount(amount, "refund", orders.rules.amount_most_fen)
    if _amount(amount, "total", orders.rules.amount_most_fen) != order.amount_fen:
        raise ApiError(40035)
    if not orders.count_refund(call.clock_s):
        raise ApiError(45009)
    if order.refund_asked_s and call.now_s - order.refund_asked_s < orders.rules.refund_per_order_s:
        raise ApiError(45009)
    order.refund_asked_s = call.now_s
    known = orders.refund(order.mch_id, number)
    if known is not None:
        if known[0] is not order or known[1].amount_fen != refund_fen:
            raise ApiError(60236)
        return _refund_told(order, known[1])
    if not order.paid_s:
        raise ApiError(60236)
    if call.now_s - order.paid_s > orders.rules.refund_within_s:
        raise ApiError(40035)
    if len(order.refunds) >= orders.rules.refunds_per_order or refund_fen > order.amount_fen - order.gone_fen:
        raise ApiError(60240)
    made = orders.add_refund(order, out_refund_no=number, amount_fen=refund_fen, reason=reason, now_s=call.now_s)
    return _refund_told(order, made)


@API.post("miniapppay/get_refund_detail")
def get_refund_detail(call: Call) -> Answer:
    """How a refund stands: PROCESSING, SUCCESS, CLOSED or ABNORMAL."""
    orders, mch_id = _orders(call), _mch_id(call)
    found = orders.refund(mch_id, _match(call.body, "out_refund_no", _REFUND_NO))
    if found is None:
        raise ApiError(60243)
    order, made = found
    return order.refund_shown(made)


@API.post("miniapppay/get_bill")
def get_bill(call: Call) -> Answer:
    """Address of a day's bill, good for 30 s with the header in ``auth``.

    From ten o'clock on the next day, for three months; another day is 40035.
    """
    orders, mch_id = _orders(call), _mch_id(call)
    day_s = parse_day(fields.text(call.body, "bill_date", required=True, max_chars=10))
    kind = fields.text(call.body, "bill_type", max_chars=32) or "ALL"
    packed = fields.text(call.body, "tar_type", max_chars=32)
    rules = orders.rules
    if day_s is None or kind not in _BILL_TYPES or packed not in ("", "GZIP"):
        raise ApiError(40035)
    if call.now_s < day_s + DAY_S + rules.bill_ready_s or day_start(call.now_s) - day_s > rules.bill_days * DAY_S:
        raise ApiError(40035)
    token, auth, digest = orders.bill_file(mch_id, day_s, _BILL_TYPES[kind], call.now_s, packed=packed == "GZIP")
    address = f"{rules.download_base}{PATH}?token={token}"
    return {"download_url": address, "hash_type": "SHA1", "hash_value": digest, "auth": auth}


_APPLICATION: dict[str, dict[str, int]] = {
    # Section → its texts and their longest length; names that end in _media_id are ids of uploaded images.
    "business_license_info": {
        "business_license_copy_open_wx_pay_media_id": 64,
        "business_license_number": 18,
        "merchant_name": 128,
        "legal_person": 100,
        "company_address": 128,
    },
    "id_card_info": {
        "id_card_copy_open_wx_pay_media_id": 64,
        "id_card_national_open_wx_pay_media_id": 64,
        "id_card_name": 100,
        "id_card_number": 18,
        "id_card_valid_time_begin": 10,
        "id_card_valid_time": 10,
    },
    "contact_info": {"contact_type": 8, "mobile_phone": 20, "contact_email": 64},
    "account_info": {"account_bank": 64, "account_name": 64, "bank_address_code": 64, "account_number": 64},
    "sales_scene_info": {},
}


@API.post("miniapppay/apply_mch")
def apply_mch(call: Call) -> Answer:
    """Asks for a merchant number. Reviewed within days; a refused request may be sent again under its number.

    Images have to be this app's own (40007). At most 200 requests for one staff member and 2000 for a corp (45024).
    """
    orders, body = _orders(call), call.body
    number = _match(body, "out_request_no", _REQUEST_NO)
    fields.whole(body, "organization_type", least=0, most=3)
    name = fields.text(body, "merchant_short_name", required=True, max_chars=21)
    userid = fields.text(body, "userid", required=True, max_bytes=64)
    fields.whole(body, "business_id", least=1, most=100)
    for section, texts in _APPLICATION.items():
        part = fields.obj(body, section, required=True)
        for key, longest in texts.items():
            value = fields.text(part, key, required=True, max_chars=longest)
            if key.endswith("_media_id") and not orders.has_image(call.app.agent_id, value, call.now_s):
                raise ApiError(40007)
    if not fields.flag(body, "owner", default=True):
        fields.obj(body, "ubo_info", required=True)
    if userid not in call.corp.people.staff:
        raise ApiError(60111)
    known = orders.application(number, call.app.agent_id)
    if orders.has_application(number) and (known is None or known.state != "REJECTED"):
        raise ApiError(40035)
    if known is None and not orders.may_apply(userid):
        raise ApiError(45024)
    orders.apply(Application(number, call.app.agent_id, userid, name, call.now_s))
    return {}


@API.post("miniapppay/get_applyment_status")
def get_applyment_status(call: Call) -> Answer:
    """How a request for a merchant number stands; only the app that sent it is told (40035)."""
    orders = _orders(call)
    found = orders.application(_match(call.body, "out_request_no", _REQUEST_NO), call.app.agent_id)
    if found is None:
        raise ApiError(40035)
    return found.shown()


@API.post("miniapppay/upload_image", upload=True, body_limit=_UPLOAD_LIMIT)
def upload_image(call: Call) -> Answer:
    """An image of 5 bytes to 2 MB (JPG, PNG, BMP) for a request; its id is good for 30 days."""
    orders = _orders(call)
    sent = sent_file(call)
    if not _IMAGE_LEAST_BYTES <= len(sent.content) <= orders.rules.image_bytes:
        raise ApiError(45001)
    if not sent.content.startswith(_IMAGE_HEADS):
        raise ApiError(40004)
    return {"open_wx_pay_media_id": orders.add_image(call.app.agent_id, sent.content, call.now_s)}


def _orders(call: Call) -> MiniOrders:
    """The corp's orders, for an app that may. Raises ApiError 48002."""
    allowed(call)
    orders = call.corp.of(MiniOrders)
    if not orders.rules.open:
        raise ApiError(48002)
    return orders


def _appid(orders: MiniOrders, body: fields.Body) -> str:
    appid = fields.text(body, "appid", required=True, max_bytes=32)
    if appid not in orders.rules.appids:
        raise ApiError(40035)
    return appid


def _mch_id(call: Call) -> str:
    mch_id = fields.text(call.body, "mchid", required=True, max_bytes=32)
    if not call.corp.of(ReceivingMerchants).bound(mch_id):
        raise ApiError(60238)
    return mch_id


def _order(call: Call) -> MiniOrder:
    orders, mch_id = _orders(call), _mch_id(call)
    order = orders.order(mch_id, _match(call.body, "out_trade_no", _ORDER_NO))
    if order is None:
        raise ApiError(720501)
    return order


def _match(body: fields.Body, name: str, pattern: re.Pattern[str]) -> str:
    value = fields.text(body, name, required=True)
    if not pattern.fullmatch(value):
        raise ApiError(40035)
    return value


def _amount(amount: fields.Body, name: str, most: int) -> int:
    if fields.text(amount, "currency") not in ("", "CNY"):
        raise ApiError(40035)
    return fields.whole(amount, name, least=1, most=most, code=60240)


def _refund_told(order: MiniOrder, made: MiniRefund) -> dict[str, Any]:
    return {
        "refund_id": made.refund_id,
        "out_refund_no": made.out_refund_no,
        "create_time": rfc3339(made.created_s),
        "amount": order.refund_shown(made)["amount"],
    }
