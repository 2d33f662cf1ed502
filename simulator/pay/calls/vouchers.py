"""Merchant coupons (fact sheet 3.15): batches, codes, what people hold, use at the till, and where notices go.

There is no call that sends one: people take them on the merchant's pages.
"""

from __future__ import annotations

from typing import Any

from simulator.pay import fields
from simulator.pay.calls.coupons import notice_url
from simulator.pay.errors import PayError
from simulator.pay.routes import Answer, PayCall, Routes, page_of
from simulator.pay.times import rfc3339
from simulator.pay.vouchers import Voucher, VoucherBook, VoucherStock

ROUTES = Routes()

_CODE_MODES = frozenset({"WECHATPAY_MODE", "MERCHANT_API", "MERCHANT_UPLOAD"})
_USE_METHODS = frozenset({"OFF_LINE", "MINI_PROGRAMS", "PAYMENT_CODE", "SELF_CONSUME"})
_RULE_OF_TYPE = {"NORMAL": "fixed_normal_coupon", "DISCOUNT": "discount_coupon", "EXCHANGE": "exchange_coupon"}
_MAX_CODES = 200


@ROUTES.on("POST", "/v3/marketing/busifavor/stocks")
def create(call: PayCall) -> Answer:
    """Creates a batch; it can be taken at once, in its time."""
    body = call.body
    out_request_no = fields.number_text(body, "out_request_no", most=128)
    belong = fields.text(body, "belong_merchant", required=True, least=8, most=15)
    call.own_mchid(belong)
    fields.text(body, "stock_name", required=True, most=21)
    fields.text(body, "goods_name", required=True, most=15)
    fields.text(body, "comment", most=20)
    kind = fields.choice(body, "stock_type", frozenset(_RULE_OF_TYPE))
    code_mode = fields.choice(body, "coupon_code_mode", _CODE_MODES)
    use = fields.obj(body, "coupon_use_rule", required=True)
    fields.choice(use, "use_method", _USE_METHODS)
    _check_worth(fields.obj(use, _RULE_OF_TYPE[kind], required=True), kind)
    available = fields.obj(use, "coupon_available_time", required=True)
    begin_s, end_s = fields.moment(available, "available_begin_time"), fields.moment(available, "available_end_time")
    send = fields.obj(body, "stock_send_rule", required=True)
    if end_s <= begin_s or end_s <= call.now_s:
        raise fields.wrong("available_end_time", "is not after the begin and in the future")
    for name in ("custom_entrance", "display_pattern_info", "notify_config"):
        fields.obj(body, name)
    stock = call.corp.of(VoucherBook).create(
        VoucherStock(
            stock_id="",
            creator=call.merchant.mchid,
            belong=belong,
            out_request_no=out_request_no,
            asked=_encodable(body),
            begin_s=begin_s,
            end_s=end_s,
            max_coupons=fields.whole(send, "max_coupons", least=1, most=1_000_000_000),
            per_user=fields.whole(send, "max_coupons_per_user", least=1, most=100),
            by_day=fields.whole(send, "max_coupons_by_day", default=0),
            code_mode=code_mode,
            created_s=call.now_s,
        )
    )
    return {"stock_id": stock.stock_id, "create_time": rfc3339(stock.created_s)}


@ROUTES.on("GET", "/v3/marketing/busifavor/stocks/{stock_id}")
def detail(call: PayCall) -> Answer:
    """One batch."""
    return call.corp.of(VoucherBook).stock_of(call.path["stock_id"], call.merchant.mchid).shown(call.now_s)


@ROUTES.on("POST", "/v3/marketing/busifavor/stocks/{stock_id}/couponcodes")
def upload_codes(call: PayCall) -> Answer:
    """Codes that the merchant made, at most 200 a call."""
    request = fields.number_text(call.body, "upload_request_no", most=128)
    codes = fields.texts(call.body, "coupon_code_list", required=True, most=_MAX_CODES, chars=32)
    book = call.corp.of(VoucherBook)
    return book.upload(book.stock_of(call.path["stock_id"], call.merchant.mchid), request, codes, call.now_s)


@ROUTES.on("GET", "/v3/marketing/busifavor/users/{openid}/coupons")
def user_coupons(call: PayCall) -> Answer:
    """Coupons of one person, newest first; only of this merchant's batches."""
    query, mchid = call.query, call.merchant.mchid
    appid = query.get("appid", "")
    openid = fields.openid(call.path["openid"])
    call.own_appid(appid)
    offset, limit = fields.page(query, default=20, most=50)
    found = [
        voucher
        for voucher in call.corp.of(VoucherBook).vouchers_of(openid, appid)
        if query.get("stock_id", "") in ("", voucher.stock.stock_id)
        and query.get("coupon_state", "") in ("", voucher.state(call.now_s))
        and query.get("creator_merchant", "") in ("", voucher.stock.creator)
        and query.get("belong_merchant", "") in ("", voucher.stock.belong)
        and query.get("sender_merchant", "") in ("", voucher.stock.creator)
        and mchid in (voucher.stock.creator, voucher.stock.belong)
    ]
    return {
        "data": [voucher.shown(call.now_s) for voucher in page_of(found, offset, limit)],
        "total_count": len(found),
        "limit": limit,
        "offset": offset,
    }


@ROUTES.on("GET", "/v3/marketing/busifavor/users/{openid}/coupons/{coupon_code}/appids/{appid}")
def coupon_detail(call: PayCall) -> Answer:
    """One coupon of one person."""
    call.own_appid(call.path["appid"])
    voucher = _voucher(call, call.path["coupon_code"])
    if (voucher.openid, voucher.appid) != (call.path["openid"], call.path["appid"]):
        raise PayError("RESOURCE_NOT_EXISTS", "this person has no such coupon")
    return voucher.shown(call.now_s)


@ROUTES.on("POST", "/v3/marketing/busifavor/coupons/use")
def use(call: PayCall) -> Answer:
    """The merchant's till took a coupon. The same ``use_request_no`` again says the same."""
    body = call.body
    call.own_appid(fields.text(body, "appid", required=True, most=32))
    fields.moment(body, "use_time")
    request = fields.number_text(body, "use_request_no", most=32)
    voucher = _changed(call)
    openid = fields.text(body, "openid", most=128)
    if openid and openid != voucher.openid:
        raise PayError("RESOURCE_NOT_EXISTS", "this person has no such coupon")
    if not (voucher.used_s and voucher.use_request == request):
        state = voucher.state(call.now_s)
        if state == "USED":
            raise PayError("RESOURCE_ALREADY_EXISTS", "the coupon was used by another request")
        if state != "SENDED" or call.now_s < voucher.stock.begin_s:
            raise PayError("INVALID_REQUEST", f"the coupon is {state} or not yet good")
        voucher.used_s, voucher.use_request = call.now_s, request
    return {
        "stock_id": voucher.stock.stock_id,
        "openid": voucher.openid,
        "wechatpay_use_time": rfc3339(voucher.used_s),
    }


@ROUTES.on("POST", "/v3/marketing/busifavor/coupons/return")
def give_back(call: PayCall) -> Answer:
    """A coupon that was used is good again. The same ``return_request_no`` again says the same."""
    request = fields.number_text(call.body, "return_request_no", most=128)
    voucher = _changed(call)
    if request not in voucher.returned:
        if voucher.state(call.now_s) != "USED":
            raise PayError("INVALID_REQUEST", "the coupon was not used")
        voucher.used_s, voucher.use_request = 0, ""
        voucher.returned[request] = call.now_s
    return {"wechatpay_return_time": rfc3339(voucher.returned[request])}


@ROUTES.on("POST", "/v3/marketing/busifavor/coupons/deactivate")
def deactivate(call: PayCall) -> Answer:
    """A coupon that was not used is good no longer."""
    request = fields.number_text(call.body, "deactivate_request_no", most=128)
    fields.text(call.body, "deactivate_reason", most=64)
    voucher = _changed(call)
    if not (voucher.deactivated_s and voucher.deactivate_request == request):
        if voucher.state(call.now_s) != "SENDED":
            raise PayError("INVALID_REQUEST", f"the coupon is {voucher.state(call.now_s)}")
        voucher.deactivated_s, voucher.deactivate_request = call.now_s, request
    return {"wechatpay_deactivate_time": rfc3339(voucher.deactivated_s)}


@ROUTES.on("POST", "/v3/marketing/busifavor/callbacks")
def set_callback(call: PayCall) -> Answer:
    """Where COUPON.SEND notices of this merchant's batches go."""
    call.own_mchid(fields.text(call.body, "mchid", most=15))
    url = notice_url(call)
    call.corp.of(VoucherBook).set_callback(call.merchant.mchid, url)
    return {"update_time": rfc3339(call.now_s), "notify_url": url, "mchid": call.merchant.mchid}


@ROUTES.on("GET", "/v3/marketing/busifavor/callbacks")
def get_callback(call: PayCall) -> Answer:
    """The address that was set."""
    call.own_mchid(call.query.get("mchid", ""))
    url = call.corp.of(VoucherBook).callback_url(call.merchant.mchid)
    if not url:
        raise PayError("RESOURCE_NOT_EXISTS", "no address was set")
    return {"notify_url": url, "mchid": call.merchant.mchid}


def _check_worth(rule: dict[str, Any], kind: str) -> None:
    if kind == "NORMAL":
        fields.whole(rule, "discount_amount", least=1)
    elif kind == "DISCOUNT":
        fields.whole(rule, "discount_percent", least=1, most=99)
    else:
        fields.whole(rule, "exchange_price", least=0)
    fields.whole(rule, "transaction_minimum", least=0)


def _voucher(call: PayCall, code: str) -> Voucher:
    voucher = call.corp.of(VoucherBook).by_code(code)
    if call.merchant.mchid not in (voucher.stock.creator, voucher.stock.belong):
        raise PayError("RESOURCE_NOT_EXISTS", "no such coupon of this merchant")
    return voucher


def _changed(call: PayCall) -> Voucher:
    """The coupon a body names; ``stock_id``, when given, has to be its batch."""
    voucher = _voucher(call, fields.text(call.body, "coupon_code", required=True, most=32))
    if fields.text(call.body, "stock_id", most=20) not in ("", voucher.stock.stock_id):
        raise PayError("RESOURCE_NOT_EXISTS", "no such coupon of this batch")
    return voucher


def _encodable(body: dict[str, Any]) -> dict[str, Any]:
    """The request, to be shown again."""
    _check_text(body, depth=0)
    return body


def _check_text(value: object, *, depth: int) -> None:
    # What is shown again has to be text that can be written: JSON can spell half of a surrogate pair, and NaN.
    if depth > 10:
        raise PayError("PARAM_ERROR", "the body is nested too deeply")
    if isinstance(value, str):
        fields.text({"body": value}, "body")
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name, depth=depth + 1)
            _check_text(item, depth=depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth=depth + 1)
    elif isinstance(value, float) and not abs(value) < float("inf"):
        raise PayError("PARAM_ERROR", "the body holds what is no number")
    elif isinstance(value, int) and abs(value) > 1 << 63:
        raise PayError("PARAM_ERROR", "the body holds a number that is too large")


def shown_again(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """Parts of a request that its detail repeats."""
    return _encodable({name: body.get(name) for name in names})
