"""Cash coupons (fact sheet 3.15): batches from creation to stop, sending, queries, flows and where notices go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from simulator.pay import fields
from simulator.pay.coupons import CouponBook, Stock
from simulator.pay.errors import PayError
from simulator.pay.files import PATH, Files, sha1, table, yuan
from simulator.pay.routes import Answer, PayCall, Routes, page_of
from simulator.pay.times import parse_rfc3339, rfc3339
from simulator.world.days import DAY_S, day_start

ROUTES = Routes()

_LIMIT = "FREQUENCY_LIMIT_EXCEED"
_FLOW_READY_S = 10 * 3_600
"""After midnight: flows can be fetched from ten o'clock on the day after the batch ended."""
_STATUSES = frozenset({"unactivated", "audit", "running", "stoped", "paused"})


@ROUTES.on("POST", "/v3/marketing/favor/coupon-stocks")
def create(call: PayCall) -> Answer:
    """Creates a batch, not yet activated.

    The window lasts at most 90 days and begins at most 365 days ahead; the budget is exactly coupons times value; a
    coupon is worth less than the payment it needs.
    """
    body, rules, mchid = call.body, call.rules, call.merchant.mchid
    call.limit(f"stocks|{mchid}", rules.stocks_per_minute, 60, code=_LIMIT)
    call.limit("stocks", rules.stocks_per_minute_overall, 60, code=_LIMIT)
    name = fields.text(body, "stock_name", required=True, most=20)
    if any(letter in "_,;|" for letter in name):
        raise fields.wrong("stock_name", "holds letters that are not allowed")
    if fields.text(body, "belong_merchant", required=True, most=20) != mchid:
        raise fields.wrong("belong_merchant", "is not the merchant that creates the batch")
    begin_s, end_s = fields.moment(body, "available_begin_time"), fields.moment(body, "available_end_time")
    out_request_no = fields.number_text(body, "out_request_no", most=128)
    fields.choice(body, "stock_type", frozenset({"NORMAL"}))
    no_cash = fields.flag(body, "no_cash")
    send = fields.obj(body, "stock_use_rule", required=True)
    use = fields.obj(body, "coupon_use_rule", required=True)
    fixed = fields.obj(use, "fixed_normal_coupon", required=True)
    available = fields.obj(use, "coupon_available_time")
    pattern = fields.obj(body, "pattern_info")
    stock = Stock(
        stock_id="",
        creator=mchid,
        out_request_no=out_request_no,
        name=name,
        comment=fields.text(body, "comment", most=60),
        begin_s=begin_s,
        end_s=end_s,
        max_coupons=fields.whole(send, "max_coupons", least=1, most=10_000_000),
        max_amount_fen=fields.whole(send, "max_amount", least=1),
        max_amount_by_day_fen=fields.whole(send, "max_amount_by_day", default=0),
        per_user=fields.whole(send, "max_coupons_per_user", least=1, most=rules.coupons_per_user),
        amount_fen=fields.whole(fixed, "coupon_amount", least=1, most=100_000_000),
        minimum_fen=fields.whole(fixed, "transaction_minimum", least=1, most=1_000_000_000),
        merchants=tuple(fields.texts(use, "available_merchants", required=True, most=50, chars=20)),
        items=tuple(fields.texts(use, "available_items", most=500, chars=128)),
        goods_tags=tuple(fields.texts(use, "goods_tag", most=50, chars=128)),
        no_cash=no_cash,
        description=fields.text(pattern, "description", most=3_000),
        after_receive_minutes=fields.whole(available, "available_time_after_receive", default=0, most=1_000_000),
        second_day=fields.flag(available, "second_day_available", default=False),
        combine_use=fields.flag(use, "combine_use", default=False),
        natural_person_limit=fields.flag(send, "natural_person_limit"),
        prevent_api_abuse=fields.flag(send, "prevent_api_abuse"),
        created_s=call.now_s,
    )
    if stock.max_amount_fen != stock.max_coupons * stock.amount_fen:
        raise fields.wrong("max_amount", "is not max_coupons times coupon_amount")
    if stock.minimum_fen <= stock.amount_fen:
        raise fields.wrong("transaction_minimum", "is not above coupon_amount")
    book = call.corp.of(CouponBook)
    if not book.knows(mchid, out_request_no):  # a repeated request is answered as before, however late
        _check_time(call, stock)
    kept = book.create(stock)
    return {"stock_id": kept.stock_id, "create_time": rfc3339(kept.created_s)}


def _check_time(call: PayCall, stock: Stock) -> None:
    if stock.end_s <= stock.begin_s or stock.end_s - stock.begin_s > call.rules.stock_window_s:
        raise fields.wrong("available_end_time", "is not within 90 days after the begin")
    if stock.end_s <= call.now_s:
        raise fields.wrong("available_end_time", "is past")
    if stock.begin_s - call.now_s > call.rules.stock_ahead_s:
        raise fields.wrong("available_begin_time", "is more than 365 days ahead")


def _move(call: PayCall, step: Literal["start", "pause", "restart", "stop"]) -> Answer:
    creator = fields.text(call.body, "stock_creator_mchid", required=True, most=20)
    stock = call.corp.of(CouponBook).stock_of(call.path["stock_id"], creator)
    call.own_mchid(creator)
    call.corp.of(CouponBook).move(stock, step, call.now_s)
    return {f"{step}_time": rfc3339(call.now_s), "stock_id": stock.stock_id}


@ROUTES.on("POST", "/v3/marketing/favor/stocks/{stock_id}/start")
def start(call: PayCall) -> Answer:
    """Activates a batch: from now on it can be sent, in its time."""
    return _move(call, "start")


@ROUTES.on("POST", "/v3/marketing/favor/stocks/{stock_id}/pause")
def pause(call: PayCall) -> Answer:
    """No more is sent; what was sent can be used."""
    return _move(call, "pause")


@ROUTES.on("POST", "/v3/marketing/favor/stocks/{stock_id}/restart")
def restart(call: PayCall) -> Answer:
    """Ends a pause."""
    return _move(call, "restart")


@ROUTES.on("POST", "/v3/marketing/favor/stocks/{stock_id}/stop")
def stop(call: PayCall) -> Answer:
    """Ends a batch for good; what was sent can be used."""
    return _move(call, "stop")


@ROUTES.on("POST", "/v3/marketing/favor/users/{openid}/coupons")
def send(call: PayCall) -> Answer:
    """Gives one person a coupon. The same ``out_request_no`` again gives the same one."""
    body, rules = call.body, call.rules
    call.limit(f"send|{call.merchant.mchid}", rules.sends_per_second, 1, code=_LIMIT)
    stock_id = fields.text(body, "stock_id", required=True, most=20)
    out_request_no = fields.number_text(body, "out_request_no", most=128)
    appid = fields.text(body, "appid", required=True, most=128)
    creator = fields.text(body, "stock_creator_mchid", required=True, most=20)
    # Meant for batches without a fixed value, of which there are none: the interface takes no other.
    for name in ("coupon_value", "coupon_minimum"):
        if body.get(name) is not None:
            fields.whole(body, name, least=1)
            raise fields.wrong(name, "is for batches without a fixed value")
    openid = fields.openid(call.path["openid"])
    call.own_appid(appid)
    call.own_mchid(creator)
    book = call.corp.of(CouponBook)
    coupon = book.send(
        book.stock_of(stock_id, creator),
        openid=openid,
        appid=appid,
        sender=call.merchant.mchid,
        out_request_no=out_request_no,
        now_s=call.now_s,
    )
    return {"coupon_id": coupon.coupon_id}


@ROUTES.on("GET", "/v3/marketing/favor/stocks")
def list_stocks(call: PayCall) -> Answer:
    """Batches of a creator, newest first. ``offset`` is the page's number, ``limit`` at most 10."""
    creator = _creator(call)
    offset, limit = fields.page(call.query, default=10, most=10)
    begin_s, end_s = _query_moment(call, "create_start_time", 0), _query_moment(call, "create_end_time", 1 << 60)
    status = call.query.get("status", "")
    if status and status not in _STATUSES:
        raise fields.wrong("status", "is no status of a batch")
    found = [
        stock
        for stock in call.corp.of(CouponBook).stocks.values()
        if stock.creator == creator and begin_s <= stock.created_s <= end_s and status in ("", stock.status)
    ][::-1]
    return {
        "total_count": len(found),
        "data": [stock.shown() for stock in page_of(found, offset, limit)],
        "limit": limit,
        "offset": offset,
    }


@ROUTES.on("GET", "/v3/marketing/favor/stocks/{stock_id}")
def stock_detail(call: PayCall) -> Answer:
    """One batch."""
    return _stock(call).shown()


@ROUTES.on("GET", "/v3/marketing/favor/stocks/{stock_id}/merchants")
def stock_merchants(call: PayCall) -> Answer:
    """Merchants whose payments a batch's coupons can be used for."""
    return _listed(call, _stock(call).merchants, most=50)


@ROUTES.on("GET", "/v3/marketing/favor/stocks/{stock_id}/items")
def stock_items(call: PayCall) -> Answer:
    """Goods a batch is limited to."""
    return _listed(call, _stock(call).items, most=100)


@ROUTES.on("GET", "/v3/marketing/favor/users/{openid}/coupons")
def user_coupons(call: PayCall) -> Answer:
    """Coupons of one person, newest first; only those of batches this merchant made, sent or can take."""
    query = call.query
    appid = query.get("appid", "")
    openid = fields.openid(call.path["openid"])
    call.own_appid(appid)
    offset, limit = fields.page(query, default=20, most=20)
    status = query.get("status", "")
    if status not in ("", "SENDED", "USED"):
        raise fields.wrong("status", "is no status of a coupon that can be asked for")
    found = [
        coupon
        for coupon in call.corp.of(CouponBook).coupons_of(openid, appid)
        if query.get("stock_id", "") in ("", coupon.stock.stock_id)
        and query.get("creator_mchid", "") in ("", coupon.stock.creator)
        and query.get("sender_mchid", "") in ("", coupon.sender)
        and (query.get("available_mchid", "") in ("", *coupon.stock.merchants))
        and status in ("", coupon.status(call.now_s))
        and call.merchant.mchid in (coupon.stock.creator, coupon.sender, *coupon.stock.merchants)
    ]
    return {
        "data": [coupon.shown(call.now_s) for coupon in page_of(found, offset, limit)],
        "total_count": len(found),
        "limit": limit,
        "offset": offset,
    }


@ROUTES.on("GET", "/v3/marketing/favor/users/{openid}/coupons/{coupon_id}")
def coupon_detail(call: PayCall) -> Answer:
    """One coupon of one person, for the merchant who made or sent it."""
    appid = call.query.get("appid", "")
    openid = fields.openid(call.path["openid"])
    call.own_appid(appid)
    coupon = call.corp.of(CouponBook).coupon_of(call.path["coupon_id"], openid, appid)
    if call.merchant.mchid not in (coupon.stock.creator, coupon.sender):
        raise PayError("RESOURCE_NOT_EXISTS", "this person has no such coupon")
    return coupon.shown(call.now_s)


@ROUTES.on("GET", "/v3/marketing/favor/stocks/{stock_id}/use-flow")
def use_flow(call: PayCall) -> Answer:
    """Address of the file of all uses; from ten o'clock on the day after the batch ended."""
    stock = _ended(call)
    rows = [
        (
            stock.stock_id,
            use.coupon.coupon_id,
            "代金券",
            yuan(stock.amount_fen),
            yuan(use.transaction.amount_fen),
            rfc3339(use.time_s),
            use.transaction.mchid,
            use.transaction.transaction_id,
        )
        for use in stock.used
    ]
    head = ("批次id", "优惠id", "优惠类型", "优惠金额（元）", "订单总金额（元）", "交易时间", "消费商户号", "支付单号")
    return _flow(call, head, rows)


@ROUTES.on("GET", "/v3/marketing/favor/stocks/{stock_id}/refund-flow")
def refund_flow(call: PayCall) -> Answer:
    """Address of the file of all refunds of payments a coupon was used for."""
    stock = _ended(call)
    rows = [
        (
            stock.stock_id,
            use.coupon.coupon_id,
            yuan(refund.amount_fen - refund.payer_fen),
            yuan(refund.amount_fen),
            rfc3339(refund.ended_s),
            use.transaction.mchid,
            use.transaction.transaction_id,
            refund.refund_id,
        )
        for use, refund in stock.returned
    ]
    head = (
        "批次id",
        "优惠id",
        "优惠退款金额（元）",
        "订单退款金额（元）",
        "退款时间",
        "消费商户号",
        "支付单号",
        "退款单号",
    )
    return _flow(call, head, rows)


@ROUTES.on("POST", "/v3/marketing/favor/callbacks")
def set_callback(call: PayCall) -> Answer:
    """Where COUPON.USE notices go. The platform asks for https; a simulator takes http, too."""
    call.own_mchid(fields.text(call.body, "mchid", required=True, most=20))
    url = notice_url(call)
    call.corp.of(CouponBook).set_callback(call.merchant.mchid, url, fields.flag(call.body, "switch", default=True))
    return {"update_time": rfc3339(call.now_s), "notify_url": url}


@ROUTES.on("GET", "/v3/marketing/favor/callbacks")
def get_callback(call: PayCall) -> Answer:
    """The address that was set."""
    mchid = call.query.get("mchid", "")
    if not mchid:
        raise fields.wrong("mchid", "is required")
    call.own_mchid(mchid)
    url = call.corp.of(CouponBook).callback(mchid)
    if not url:
        raise PayError("RESOURCE_NOT_EXISTS", "no address was set")
    return {"notify_url": url, "mchid": mchid}


def notice_url(call: PayCall) -> str:
    """The ``notify_url`` of a body: an absolute http(s) address without a query."""
    url = fields.text(call.body, "notify_url", required=True, least=10, most=256)
    if not url.startswith(("https://", "http://")) or "?" in url or not url.isprintable() or " " in url:
        raise fields.wrong("notify_url", "is no address without a query")
    return url


def _creator(call: PayCall) -> str:
    creator = call.query.get("stock_creator_mchid", "")
    if not creator:
        raise fields.wrong("stock_creator_mchid", "is required")
    call.own_mchid(creator)
    return creator


def _stock(call: PayCall) -> Stock:
    return call.corp.of(CouponBook).stock_of(call.path["stock_id"], _creator(call))


def _ended(call: PayCall) -> Stock:
    stock = call.corp.of(CouponBook).stock_of(call.path["stock_id"], call.merchant.mchid)
    ended_s = stock.stopped_s or stock.end_s
    if call.now_s < day_start(ended_s) + DAY_S + _FLOW_READY_S:
        raise PayError("REQUEST_BLOCKED", "the flow is ready at ten o'clock on the day after the batch ended")
    return stock


def _flow(call: PayCall, head: Sequence[str], rows: Sequence[Sequence[object]]) -> Answer:
    content = table(head, rows, (("总条数", len(rows)),))
    token, _ = call.corp.of(Files).put(call.merchant.mchid, content, expires_s=call.now_s + call.rules.file_s)
    return {"url": f"{call.base_url}{PATH}?token={token}", "hash_value": sha1(content), "hash_type": "SHA1"}


def _listed(call: PayCall, items: Sequence[str], *, most: int) -> Answer:
    offset, limit = fields.page(call.query, default=most, most=most)
    return {
        "total_count": len(items),
        "data": list(page_of(items, offset, limit)),
        "limit": limit,
        "offset": offset,
        "stock_id": call.path["stock_id"],
    }


def _query_moment(call: PayCall, name: str, default: int) -> int:
    value = call.query.get(name, "")
    if not value:
        return default
    # Libraries leave the plus sign of a zone as it is, which a query reads as a space.
    parsed = parse_rfc3339(value.replace(" ", "+"))
    if parsed is None:
        raise fields.wrong(name, "is no RFC 3339 time with its zone")
    return parsed
