"""Gifts after payment (fact sheet 3.15): activities, their merchants and goods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulator.pay import fields
from simulator.pay.calls.vouchers import shown_again
from simulator.pay.gifts import Activity, GiftBook
from simulator.pay.routes import Answer, PayCall, Routes, page_of
from simulator.pay.times import rfc3339
from simulator.pay.vouchers import VoucherBook

ROUTES = Routes()

_BASE = "/v3/marketing/paygiftactivity"
_YEAR_S, _QUARTER_S = 365 * 86_400, 90 * 86_400
_PURPOSES = frozenset({"OFF_LINE_PAY", "JUMP_MINI_APP"})
_CONTENTS = {"SINGLE_COUPON": (1, 1), "GIFT_PACKAGE": (3, 5)}
"""How many coupons a gift holds."""
_STATUSES = frozenset(
    {
        "ACT_STATUS_UNKNOWN",
        "CREATE_ACT_STATUS",
        "ONGOING_ACT_STATUS",
        "TERMINATE_ACT_STATUS",
        "STOP_ACT_STATUS",
        "OVER_TIME_ACT_STATUS",
        "CREATE_ACT_FAILED",
    }
)
_MAX_MERCHANTS = 500


@ROUTES.on("POST", f"{_BASE}/unique-threshold-activity")
def create(call: PayCall) -> Answer:
    """Creates an activity: whoever pays enough in its time is given merchant coupons.

    It lasts at most 90 days and ends within a year. Every batch has to be this merchant's.
    """
    base = fields.obj(call.body, "activity_base_info", required=True)
    rule = fields.obj(call.body, "award_send_rule", required=True)
    advanced = fields.obj(call.body, "advanced_setting")
    fields.text(base, "activity_name", required=True, most=10)
    fields.text(base, "activity_second_title", required=True, most=9)
    fields.text(base, "merchant_logo_url", required=True, least=10, most=128)
    purpose = fields.choice(base, "delivery_purpose", _PURPOSES)
    if purpose == "JUMP_MINI_APP":
        fields.text(base, "mini_programs_appid", required=True, most=32)
        fields.text(base, "mini_programs_path", required=True, most=128)
    begin_s, end_s = fields.moment(base, "begin_time"), fields.moment(base, "end_time")
    out_request_no = fields.number_text(base, "out_request_no", most=128)
    minimum_fen = fields.whole(rule, "transaction_amount_minimum", least=1)
    content = fields.choice(rule, "send_content", frozenset(_CONTENTS))
    fields.choice(rule, "award_type", frozenset({"BUSIFAVOR"}))
    least, most = _CONTENTS[content]
    awards = fields.objects(rule, "award_list", least=least, most=most)
    stock_ids = tuple(_award(call, award) for award in awards)
    merchants = _merchants(call, rule)
    goods_tags = tuple(fields.texts(advanced, "goods_tags", most=500, chars=128))
    book = call.corp.of(GiftBook)
    activity = Activity(
        activity_id="",
        creator=call.merchant.mchid,
        out_request_no=out_request_no,
        asked=shown_again(call.body, "activity_base_info", "award_send_rule", "advanced_setting"),
        begin_s=begin_s,
        end_s=end_s,
        minimum_fen=minimum_fen,
        stock_ids=stock_ids,
        merchants=merchants,
        goods_tags=goods_tags,
        created_s=call.now_s,
    )
    if not book.knows(activity.creator, out_request_no) and (
        not begin_s < end_s <= call.now_s + _YEAR_S or end_s - begin_s > _QUARTER_S or end_s <= call.now_s
    ):
        raise fields.wrong("end_time", "is not within 90 days after the begin, within a year, and in the future")
    kept = book.create(activity)
    return {"activity_id": kept.activity_id, "create_time": rfc3339(kept.created_s)}


@ROUTES.on("GET", f"{_BASE}/activities")
def list_activities(call: PayCall) -> Answer:
    """Activities of this merchant, newest first. ``offset`` is the page's number."""
    query = call.query
    offset, limit = fields.page(query, default=20, most=100)
    status = query.get("activity_status", "")
    if status and status not in _STATUSES:
        raise fields.wrong("activity_status", "is no status of an activity")
    if query.get("award_type", "BUSIFAVOR") != "BUSIFAVOR":
        raise fields.wrong("award_type", "is not BUSIFAVOR")
    found = [
        activity
        for activity in call.corp.of(GiftBook).activities.values()
        if activity.creator == call.merchant.mchid
        and query.get("activity_name", "") in activity.asked["activity_base_info"]["activity_name"]
        and status in ("", activity.status(call.now_s))
    ][::-1]
    return {
        "data": [activity.shown(call.now_s) for activity in page_of(found, offset, limit)],
        "total_count": len(found),
        "offset": offset,
        "limit": limit,
    }


@ROUTES.on("GET", f"{_BASE}/activities/{{activity_id}}")
def detail(call: PayCall) -> Answer:
    """One activity."""
    return _activity(call).shown(call.now_s)


@ROUTES.on("GET", f"{_BASE}/activities/{{activity_id}}/merchants")
def merchants(call: PayCall) -> Answer:
    """Merchants whose payments count."""
    activity = _activity(call)
    return _listed(call, activity, [{"mchid": mchid, "merchant_name": f"商户{mchid}"} for mchid in activity.merchants])


@ROUTES.on("GET", f"{_BASE}/activities/{{activity_id}}/goods")
def goods(call: PayCall) -> Answer:
    """Goods an activity is limited to: activities by amount have none."""
    return _listed(call, _activity(call), [])


@ROUTES.on("POST", f"{_BASE}/activities/{{activity_id}}/merchants/add")
def add_merchants(call: PayCall) -> Answer:
    """More merchants. The same ``add_request_no`` again changes nothing."""
    activity = _activity(call)
    request = fields.number_text(call.body, "add_request_no", most=128)
    chosen = _named(call)
    if f"add|{request}" not in activity.requests:
        _still_open(call, activity)
        activity.requests.add(f"add|{request}")
        activity.merchants.extend(mchid for mchid in chosen if mchid not in activity.merchants)
    return _changed(call, activity)


@ROUTES.on("POST", f"{_BASE}/activities/{{activity_id}}/merchants/delete")
def delete_merchants(call: PayCall) -> Answer:
    """Fewer merchants. The same ``delete_request_no`` again changes nothing."""
    activity = _activity(call)
    request = fields.number_text(call.body, "delete_request_no", most=128)
    chosen = _named(call)
    if f"delete|{request}" not in activity.requests:
        _still_open(call, activity)
        activity.requests.add(f"delete|{request}")
        activity.merchants = [mchid for mchid in activity.merchants if mchid not in chosen]
    return _changed(call, activity)


@ROUTES.on("POST", f"{_BASE}/activities/{{activity_id}}/terminate")
def terminate(call: PayCall) -> Answer:
    """Ends an activity for good."""
    activity = _activity(call)
    if not activity.terminated_s:
        _still_open(call, activity)
        activity.terminated_s = call.now_s
    return {"terminate_time": rfc3339(activity.terminated_s), "activity_id": activity.activity_id}


def _award(call: PayCall, award: dict[str, Any]) -> str:
    stock_id = fields.text(award, "stock_id", required=True, most=20)
    fields.text(award, "original_image_url", required=True, most=128)
    fields.text(award, "thumbnail_url", most=128)
    call.corp.of(VoucherBook).stock_of(stock_id, call.merchant.mchid)
    return stock_id


def _merchants(call: PayCall, rule: dict[str, Any]) -> list[str]:
    option = fields.choice(rule, "merchant_option", frozenset({"IN_SEVICE_MERCHANT", "MANUAL_INPUT_MERCHANT"}))
    if option == "IN_SEVICE_MERCHANT":  # the platform's spelling: all that this merchant serves, itself
        return [call.merchant.mchid]
    return _known(call, fields.texts(rule, "merchant_id_list", required=True, most=_MAX_MERCHANTS, chars=15))


def _named(call: PayCall) -> list[str]:
    return _known(call, fields.texts(call.body, "merchant_id_list", required=True, most=_MAX_MERCHANTS, chars=15))


def _known(call: PayCall, mchids: list[str]) -> list[str]:
    for mchid in mchids:
        if mchid not in call.merchants:
            raise fields.wrong("merchant_id_list", "names a merchant that does not exist")
    return mchids


def _activity(call: PayCall) -> Activity:
    return call.corp.of(GiftBook).activity_of(call.path["activity_id"], call.merchant.mchid)


def _still_open(call: PayCall, activity: Activity) -> None:
    if activity.status(call.now_s) not in ("CREATE_ACT_STATUS", "ONGOING_ACT_STATUS"):
        raise fields.wrong("activity_id", "the activity is over")


def _changed(call: PayCall, activity: Activity) -> Answer:
    return {"activity_id": activity.activity_id, "update_time": rfc3339(call.now_s)}


def _listed(call: PayCall, activity: Activity, items: Sequence[dict[str, Any]]) -> Answer:
    offset, limit = fields.page(call.query, default=20, most=100)
    return {
        "data": list(page_of(items, offset, limit)),
        "total_count": len(items),
        "offset": offset,
        "limit": limit,
        "activity_id": activity.activity_id,
    }
