"""Fact sheet 3.15: cash coupons, merchant coupons and gifts after payment."""

import json

import pytest

from simulator.pay.times import rfc3339

START_S = 1_760_000_000
FAVOR = "/v3/marketing/favor"
BUSI = "/v3/marketing/busifavor"
GIFT = "/v3/marketing/paygiftactivity"
APPID = "wx0000000000000001"
DAY_S = 86_400


def batch(pay, number="S1", **changed):
    send = {
        "max_coupons": 100,
        "max_amount": 100_000,
        "max_coupons_per_user": 2,
        "natural_person_limit": False,
        "prevent_api_abuse": False,
    }
    use = {
        "fixed_normal_coupon": {"coupon_amount": 1_000, "transaction_minimum": 5_000},
        "available_merchants": [pay.credentials.mchid],
    }
    body = {
        "stock_name": "repurchase",
        "belong_merchant": pay.credentials.mchid,
        "available_begin_time": rfc3339(START_S),
        "available_end_time": rfc3339(START_S + 30 * DAY_S),
        "stock_use_rule": {**send, **changed.pop("send", {})},
        "coupon_use_rule": {**use, **changed.pop("use", {})},
        "no_cash": True,
        "stock_type": "NORMAL",
        "out_request_no": number,
        "pattern_info": {"description": "once"},
    }
    return {**body, **changed}


async def running(pay, number="S1", **changed):
    stock = (await pay.post(f"{FAVOR}/coupon-stocks", batch(pay, number, **changed)))["stock_id"]
    await pay.post(f"{FAVOR}/stocks/{stock}/start", {"stock_creator_mchid": pay.credentials.mchid})
    return stock


def order(pay, stock, number="C1", **changed):
    mchid = pay.credentials.mchid
    return {"stock_id": stock, "out_request_no": number, "appid": APPID, "stock_creator_mchid": mchid, **changed}


async def sent(pay, stock, number="C1", customer="wmC1"):
    url = f"{FAVOR}/users/{pay.openid(customer)}/coupons"
    return (await pay.post(url, order(pay, stock, number)))["coupon_id"]


@pytest.mark.covers(
    "POST favor/coupon-stocks",
    "POST favor/stocks/start",
    "POST favor/stocks/pause",
    "POST favor/stocks/restart",
    "POST favor/stocks/stop",
    "GET favor/stocks",
    "GET favor/stocks/id",
)
async def test_a_batch_lives_from_creation_to_stop(pay):
    """3.15: unactivated, running, paused, running, stoped; a step that cannot be is refused."""
    mchid = {"stock_creator_mchid": pay.credentials.mchid}
    made = await pay.post(f"{FAVOR}/coupon-stocks", batch(pay))
    assert await pay.post(f"{FAVOR}/coupon-stocks", batch(pay)) == made
    stock = f"{FAVOR}/stocks/{made['stock_id']}"
    query = f"?stock_creator_mchid={pay.credentials.mchid}"
    seen = [(await pay.get(stock + query))["status"]]
    for step in ("start", "pause", "restart", "stop"):
        answer = await pay.post(f"{stock}/{step}", mchid)
        assert answer[f"{step}_time"]
        seen.append((await pay.get(stock + query))["status"])
    assert seen == ["unactivated", "running", "paused", "running", "stoped"]
    assert await pay.refused("POST", f"{stock}/restart", mchid) == (400, "INVALID_REQUEST")
    assert await pay.refused("POST", f"{FAVOR}/stocks/1/start", mchid) == (404, "RESOURCE_NOT_EXISTS")
    listed = await pay.get(f"{FAVOR}/stocks{query}&offset=0&limit=10&status=stoped")
    assert (listed["total_count"], listed["data"][0]["stock_id"]) == (1, made["stock_id"])
    assert (await pay.get(f"{FAVOR}/stocks{query}&status=running"))["total_count"] == 0
    assert await pay.refused("GET", f"{FAVOR}/stocks{query}&limit=11") == (400, "PARAM_ERROR")


@pytest.mark.parametrize(
    "changed",
    [
        {"available_end_time": rfc3339(START_S + 90 * DAY_S + 1)},
        {"available_begin_time": rfc3339(START_S + 366 * DAY_S), "available_end_time": rfc3339(START_S + 367 * DAY_S)},
        {"available_end_time": rfc3339(START_S)},
        {"available_begin_time": "2026-11-21"},
        {"available_begin_time": 5},
        {"send": {"max_coupons_per_user": 61}},
        {"send": {"max_amount": 99_999}},
        {"send": {"natural_person_limit": "no"}},
        {"use": {"fixed_normal_coupon": {"coupon_amount": 1_000, "transaction_minimum": 1_000}}},
        {"use": {"available_merchants": []}},
        {"use": {"available_merchants": [1]}},
        {"stock_name": ""},
        {"stock_name": "a,b"},
        {"stock_type": "DISCOUNT"},
        {"no_cash": None},
        {"belong_merchant": "1"},
        {"coupon_use_rule": []},
        {"out_request_no": "猜"},
    ],
)
@pytest.mark.covers("POST favor/coupon-stocks")
async def test_a_batch_against_the_rules_is_refused(pay, changed):
    """3.15: window ≤ 90 days, start ≤ 365 days ahead, max_coupons_per_user ≤ 60, and every type."""
    assert await pay.refused("POST", f"{FAVOR}/coupon-stocks", batch(pay, **changed)) == (400, "PARAM_ERROR")


@pytest.mark.covers("POST favor/coupon-stocks")
async def test_sixty_batches_a_minute(pay):
    """3.15: a merchant creates at most 60 batches a minute."""
    for number in range(60):
        await pay.post(f"{FAVOR}/coupon-stocks", batch(pay, f"N{number}"))
    limited = await pay.refused("POST", f"{FAVOR}/coupon-stocks", batch(pay, "N60"))
    assert limited == (429, "FREQUENCY_LIMIT_EXCEED")
    pay.wecom.advance(60)
    await pay.post(f"{FAVOR}/coupon-stocks", batch(pay, "N60"))
    query = f"?stock_creator_mchid={pay.credentials.mchid}"
    pages = [(await pay.get(f"{FAVOR}/stocks{query}&offset={page}&limit=10"))["data"] for page in range(8)]
    assert [len(page) for page in pages] == [10] * 6 + [1, 0]
    assert len({stock["stock_id"] for page in pages for stock in page}) == 61


@pytest.mark.covers("POST favor/users/coupons", "GET favor/users/coupons", "GET favor/users/coupons/id")
async def test_sending_is_idempotent_on_the_request_number(pay):
    """3.15: the same out_request_no gives the same coupon; another person or batch under it is refused."""
    stock = await running(pay)
    url = f"{FAVOR}/users/{pay.openid()}/coupons"
    first = await sent(pay, stock)
    assert await sent(pay, stock) == first
    other = f"{FAVOR}/users/{pay.openid('wmC2')}/coupons"
    assert await pay.refused("POST", other, order(pay, stock)) == (400, "INVALID_REQUEST")
    second = await sent(pay, stock, "C2")
    assert await pay.refused("POST", url, order(pay, stock, "C3")) == (403, "RULE_LIMIT")
    listed = await pay.get(f"{url}?appid={APPID}&stock_id={stock}&status=SENDED")
    assert [coupon["coupon_id"] for coupon in listed["data"]] == [second, first]
    detail = await pay.get(f"{url}/{first}?appid={APPID}")
    assert detail["normal_coupon_information"] == {"coupon_amount": 1_000, "transaction_minimum": 5_000}
    query = f"?stock_creator_mchid={pay.credentials.mchid}"
    assert (await pay.get(f"{FAVOR}/stocks/{stock}{query}"))["distributed_coupons"] == 2
    assert await pay.refused("GET", f"{url}/0?appid={APPID}") == (404, "RESOURCE_NOT_EXISTS")


@pytest.mark.covers("POST favor/users/coupons")
async def test_who_cannot_be_sent_a_coupon(pay):
    """3.15: it needs an openid of a bound appid, a running batch in its time, and budget."""
    stock = await running(pay, send={"max_coupons": 1, "max_amount": 1_000})
    url = f"{FAVOR}/users/{pay.openid()}/coupons"
    foreign = order(pay, stock, appid="wxother")
    assert await pay.refused("POST", url, foreign) == (400, "APPID_MCHID_NOT_MATCH")
    assert await pay.refused("POST", f"{FAVOR}/users/wmC1/coupons", order(pay, stock)) == (400, "PARAM_ERROR")
    assert await pay.refused("POST", url, order(pay, "999")) == (404, "RESOURCE_NOT_EXISTS")
    assert await pay.refused("POST", url, order(pay, stock, coupon_value=5)) == (400, "PARAM_ERROR")
    await sent(pay, stock)
    assert await pay.refused("POST", url, order(pay, stock, "C2")) == (403, "NOT_ENOUGH")
    asleep = (await pay.post(f"{FAVOR}/coupon-stocks", batch(pay, "S2")))["stock_id"]
    assert await pay.refused("POST", url, order(pay, asleep, "C3")) == (403, "REQUEST_BLOCKED")
    later = await running(
        pay,
        "S3",
        available_begin_time=rfc3339(START_S + DAY_S),
        available_end_time=rfc3339(START_S + 2 * DAY_S),
    )
    assert await pay.refused("POST", url, order(pay, later, "C4")) == (403, "REQUEST_BLOCKED")


@pytest.mark.covers("POST favor/callbacks", "GET favor/callbacks", "event:pay/COUPON.USE")
async def test_a_coupon_uses_itself_and_its_use_is_told(pay):
    """3.15: the payment names the coupon in promotion_detail, and COUPON.USE goes to the address that was set."""
    mchid = pay.credentials.mchid
    set_to = {"mchid": mchid, "notify_url": "http://receiver/coupons", "switch": True}
    assert (await pay.post(f"{FAVOR}/callbacks", set_to))["notify_url"] == "http://receiver/coupons"
    assert (await pay.get(f"{FAVOR}/callbacks?mchid={mchid}"))["notify_url"] == "http://receiver/coupons"
    stock = await running(pay)
    coupon = await sent(pay, stock)
    pay.paid("T1", 4_999)
    transaction_id = pay.paid("T2", 5_000)
    pay.paid("T3", 5_000)
    await pay.pass_time(1)
    told = {a.json["event_type"]: pay.opened(a) for a in pay.arrived if a.url.endswith("coupons")}
    assert told["COUPON.USE"]["coupon_id"] == coupon
    assert told["COUPON.USE"]["consume_information"]["transaction_id"] == transaction_id
    payments = {(t := pay.opened(a))["out_trade_no"]: t for a in pay.arrived if a.url.endswith("pay")}
    assert [payments[number]["amount"]["payer_total"] for number in ("T1", "T2", "T3")] == [4_999, 4_000, 5_000]
    (promotion,) = payments["T2"]["promotion_detail"]
    assert (promotion["coupon_id"], promotion["amount"], promotion["type"]) == (coupon, 1_000, "NOCASH")
    url = f"{FAVOR}/users/{pay.openid()}/coupons"
    assert (await pay.get(f"{url}/{coupon}?appid={APPID}"))["status"] == "USED"
    await pay.post(f"{FAVOR}/callbacks", {**set_to, "switch": False})
    await sent(pay, stock, "C2")
    pay.paid("T4", 5_000)
    await pay.pass_time(1)
    assert sum(a.url.endswith("coupons") for a in pay.arrived) == 1


@pytest.mark.covers("POST favor/callbacks")
async def test_a_coupon_notice_comes_every_minute_nine_times(pay):
    """3.15: other notice types use other schedules; coupons': nine times, once a minute."""
    set_to = {"mchid": pay.credentials.mchid, "notify_url": "http://receiver/coupons", "switch": True}
    await pay.post(f"{FAVOR}/callbacks", set_to)
    await sent(pay, await running(pay))
    pay.answers[:] = [204] + [500] * 20
    pay.paid("T1", 5_000)
    await pay.pass_time(600)
    assert [a.url.endswith("coupons") for a in pay.arrived] == [False] + [True] * 9


@pytest.mark.covers("GET favor/stocks/use-flow", "GET favor/stocks/refund-flow")
async def test_flows_are_files_after_the_batch_has_ended(pay):
    """3.15: use-flow and refund-flow, from ten o'clock on the day after; a whole refund frees the coupon."""
    stock = await running(pay)
    coupon = await sent(pay, stock)
    transaction_id = pay.paid("T1", 5_000)
    pay.merchant.refunded(pay.corp, out_trade_no="T1", amount_fen=5_000, time_s=pay.now_s, out_refund_no="R1")
    url = f"{FAVOR}/users/{pay.openid()}/coupons/{coupon}?appid={APPID}"
    assert (await pay.get(url))["status"] == "SENDED"
    flow = f"{FAVOR}/stocks/{stock}"
    assert await pay.refused("GET", f"{flow}/use-flow") == (403, "REQUEST_BLOCKED")
    await pay.post(f"{flow}/stop", {"stock_creator_mchid": pay.credentials.mchid})
    pay.wecom.advance(2 * DAY_S)
    for name in ("use-flow", "refund-flow"):
        told = await pay.get(f"{flow}/{name}")
        status, file = await pay.call("GET", told["url"].removeprefix("http://pay"))
        assert (status, transaction_id in file.decode(), coupon in file.decode()) == (200, True, True)
    assert (await pay.get(url))["status"] == "SENDED"
    pay.wecom.advance(40 * DAY_S)
    assert (await pay.get(url))["status"] == "EXPIRED"


@pytest.mark.covers("GET favor/stocks/merchants", "GET favor/stocks/items")
async def test_a_batch_names_its_merchants_and_goods(pay):
    """3.15: what a batch is good for can be read."""
    stock = await running(pay, use={"available_items": ["69001", "69002"]})
    query = f"?stock_creator_mchid={pay.credentials.mchid}&offset=0&limit=50"
    assert (await pay.get(f"{FAVOR}/stocks/{stock}/merchants{query}"))["data"] == [pay.credentials.mchid]
    assert (await pay.get(f"{FAVOR}/stocks/{stock}/items{query}"))["data"] == ["69001", "69002"]


@pytest.mark.covers("POST favor/users/coupons", "POST favor/coupon-stocks")
def test_the_library_creates_and_sends(pay, library):
    """3.15: an independent client's calls are taken as they are."""
    client, asked = library(), batch(pay)
    status, answer = client.marketing_favor_stock_create(
        **{name: value for name, value in asked.items() if name != "comment"}
    )
    assert status == 200, answer
    stock = json.loads(answer)["stock_id"]
    assert client.marketing_favor_stock_start(pay.credentials.mchid, stock)[0] == 200
    status, answer = client.marketing_favor_stock_send(stock, pay.openid(), "C1", pay.credentials.mchid)
    coupon = json.loads(answer)["coupon_id"]
    assert client.marketing_favor_coupon_detail(coupon, pay.openid())[0] == 200
    assert client.marketing_favor_user_coupon(pay.openid())[0] == 200
    begin = rfc3339(START_S - DAY_S)
    status, answer = client.marketing_favor_stock_list(pay.credentials.mchid, create_start_time=begin)
    assert json.loads(answer)["total_count"] == 1


def voucher_batch(pay, number="B1", **changed):
    return {
        "stock_name": "gift",
        "belong_merchant": pay.credentials.mchid,
        "goods_name": "all",
        "stock_type": "NORMAL",
        "coupon_use_rule": {
            "coupon_available_time": {
                "available_begin_time": rfc3339(START_S),
                "available_end_time": rfc3339(START_S + 30 * DAY_S),
            },
            "fixed_normal_coupon": {"discount_amount": 500, "transaction_minimum": 1_000},
            "use_method": "OFF_LINE",
        },
        "stock_send_rule": {"max_coupons": 10, "max_coupons_per_user": 1},
        "out_request_no": number,
        "coupon_code_mode": "WECHATPAY_MODE",
        "notify_config": {"notify_appid": APPID},
        **changed,
    }


@pytest.mark.covers(
    "POST busifavor/stocks",
    "GET busifavor/stocks/id",
    "POST busifavor/callbacks",
    "GET busifavor/callbacks",
    "GET busifavor/users/coupons",
    "POST busifavor/coupons/use",
    "POST busifavor/coupons/return",
    "POST busifavor/coupons/deactivate",
    "event:pay/COUPON.SEND",
)
async def test_a_merchant_coupon_is_taken_used_and_given_back(pay):
    """3.15: taken on a page (there is no sending call), told by COUPON.SEND, used at the till by its code."""
    await pay.post(f"{BUSI}/callbacks", {"notify_url": "http://receiver/vouchers"})
    assert (await pay.get(f"{BUSI}/callbacks"))["notify_url"] == "http://receiver/vouchers"
    stock = (await pay.post(f"{BUSI}/stocks", voucher_batch(pay)))["stock_id"]
    url = f"{BUSI}/users/{pay.openid()}/coupons"
    assert await pay.refused("POST", url, {}) == (405, "METHOD_NOT_ALLOWED")
    taken = {"stock_id": stock, "openid": pay.openid(), "appid": APPID, "time_s": pay.now_s}
    voucher = pay.merchant.take_voucher(pay.corp, **taken)
    assert pay.merchant.take_voucher(pay.corp, **taken) is None
    await pay.pass_time(1)
    told = pay.opened(pay.arrived[-1])
    assert (pay.arrived[-1].json["event_type"], told["coupon_code"]) == ("COUPON.SEND", voucher.code)
    assert told["openid"] == pay.openid()
    (held,) = (await pay.get(f"{url}?appid={APPID}&coupon_state=SENDED"))["data"]
    assert held["coupon_code"] == voucher.code
    use = {"coupon_code": voucher.code, "use_time": rfc3339(pay.now_s), "use_request_no": "U1", "appid": APPID}
    used = await pay.post(f"{BUSI}/coupons/use", use)
    assert await pay.post(f"{BUSI}/coupons/use", use) == used
    again = {**use, "use_request_no": "U2"}
    assert await pay.refused("POST", f"{BUSI}/coupons/use", again) == (400, "RESOURCE_ALREADY_EXISTS")
    back = {"coupon_code": voucher.code, "stock_id": stock, "return_request_no": "B1"}
    await pay.post(f"{BUSI}/coupons/return", back)
    gone = {"coupon_code": voucher.code, "stock_id": stock, "deactivate_request_no": "D1"}
    await pay.post(f"{BUSI}/coupons/deactivate", gone)
    detail = await pay.get(f"{url}/{voucher.code}/appids/{APPID}")
    assert detail["coupon_state"] == "DEACTIVATED"
    assert await pay.refused("POST", f"{BUSI}/coupons/use", again) == (400, "INVALID_REQUEST")
    assert (await pay.get(f"{BUSI}/stocks/{stock}"))["send_count_information"]["total_send_num"] == 1


@pytest.mark.covers("POST busifavor/stocks/couponcodes")
async def test_uploaded_codes_are_given_out_in_order(pay):
    """3.15: couponcodes takes the merchant's own codes, once each."""
    asked = voucher_batch(pay, coupon_code_mode="MERCHANT_UPLOAD")
    stock = (await pay.post(f"{BUSI}/stocks", asked))["stock_id"]
    url = f"{BUSI}/stocks/{stock}/couponcodes"
    answer = await pay.post(url, {"upload_request_no": "U1", "coupon_code_list": ["A1", "A2"]})
    assert (answer["success_count"], answer["fail_count"]) == (2, 0)
    answer = await pay.post(url, {"upload_request_no": "U2", "coupon_code_list": ["A2"]})
    assert (answer["success_count"], answer["fail_codes"][0]["coupon_code"]) == (0, "A2")
    openids = [pay.openid("wmC1"), pay.openid("wmC2"), "o" + "x" * 27]
    taken = [
        pay.merchant.take_voucher(pay.corp, stock_id=stock, openid=openid, appid=APPID, time_s=pay.now_s)
        for openid in openids
    ]
    assert [voucher and voucher.code for voucher in taken] == ["A1", "A2", None]


@pytest.mark.parametrize(
    "changed",
    [
        {"stock_name": "x" * 22},
        {"stock_type": "GIFT"},
        {"coupon_code_mode": 1},
        {"coupon_use_rule": {}},
        {"stock_send_rule": {"max_coupons": 0, "max_coupons_per_user": 1}},
        {"custom_entrance": []},
        {"display_pattern_info": {"description": "\ud800"}},
        {"display_pattern_info": {"description": float("nan")}},
    ],
)
@pytest.mark.covers("POST busifavor/stocks")
async def test_a_merchant_batch_against_the_rules_is_refused(pay, changed):
    """3.15: a wrong batch is a 400, never a 500."""
    assert await pay.refused("POST", f"{BUSI}/stocks", voucher_batch(pay, **changed)) == (400, "PARAM_ERROR")


def activity(pay, stock, **changed):
    return {
        "activity_base_info": {
            "activity_name": "autumn",
            "activity_second_title": "gift",
            "merchant_logo_url": "https://images.example/logo",
            "begin_time": rfc3339(START_S),
            "end_time": rfc3339(START_S + 20 * DAY_S),
            "out_request_no": "A1",
            "delivery_purpose": "OFF_LINE_PAY",
            **changed.pop("base", {}),
        },
        "award_send_rule": {
            "transaction_amount_minimum": 3_000,
            "send_content": "SINGLE_COUPON",
            "award_type": "BUSIFAVOR",
            "award_list": [{"stock_id": stock, "original_image_url": "https://images.example/1"}],
            "merchant_option": "IN_SEVICE_MERCHANT",
            **changed.pop("rule", {}),
        },
        **changed,
    }


@pytest.mark.covers(
    "POST paygiftactivity/unique-threshold-activity",
    "GET paygiftactivity/activities",
    "GET paygiftactivity/activities/id",
    "GET paygiftactivity/activities/merchants",
    "GET paygiftactivity/activities/goods",
    "POST paygiftactivity/activities/merchants/add",
    "POST paygiftactivity/activities/merchants/delete",
    "POST paygiftactivity/activities/terminate",
)
async def test_a_gift_follows_a_large_payment_and_only_its_coupon_tells_of_it(pay):
    """3.15: a platform-side rule; nobody triggers it and nobody sees a grant but by the coupon's notice."""
    await pay.post(f"{BUSI}/callbacks", {"notify_url": "http://receiver/vouchers"})
    stock = (await pay.post(f"{BUSI}/stocks", voucher_batch(pay)))["stock_id"]
    made = await pay.post(f"{GIFT}/unique-threshold-activity", activity(pay, stock))
    assert await pay.post(f"{GIFT}/unique-threshold-activity", activity(pay, stock)) == made
    pay.paid("T1", 2_999)
    pay.paid("T2", 3_000)
    pay.paid("T3", 3_000)
    await pay.pass_time(1)
    assert sum(a.json["event_type"] == "COUPON.SEND" for a in pay.arrived) == 1
    url = f"{GIFT}/activities/{made['activity_id']}"
    assert (await pay.get(url))["activity_status"] == "ONGOING_ACT_STATUS"
    assert (await pay.get(f"{GIFT}/activities?activity_name=aut&offset=0&limit=20"))["total_count"] == 1
    assert (await pay.get(f"{url}/goods"))["total_count"] == 0
    mchid = pay.credentials.mchid
    await pay.post(f"{url}/merchants/delete", {"delete_request_no": "D1", "merchant_id_list": [mchid]})
    assert (await pay.get(f"{url}/merchants"))["data"] == []
    pay.paid("T4", 3_000, openid=pay.openid("wmC2"))
    await pay.post(f"{url}/merchants/add", {"add_request_no": "D1", "merchant_id_list": [mchid]})
    assert (await pay.get(f"{url}/merchants"))["data"][0]["mchid"] == mchid
    await pay.post(f"{url}/terminate", {})
    pay.paid("T5", 3_000, openid=pay.openid("wmC2"))
    await pay.pass_time(1)
    assert sum(a.json["event_type"] == "COUPON.SEND" for a in pay.arrived) == 1
    assert (await pay.get(url))["activity_status"] == "TERMINATE_ACT_STATUS"
    add = {"add_request_no": "D2", "merchant_id_list": [mchid]}
    assert await pay.refused("POST", f"{url}/merchants/add", add) == (400, "PARAM_ERROR")


@pytest.mark.parametrize(
    ("base", "rule"),
    [
        ({"activity_name": "x" * 11}, {}),
        ({"end_time": rfc3339(START_S + 91 * DAY_S)}, {}),
        ({"delivery_purpose": "JUMP_MINI_APP"}, {}),
        ({}, {"award_list": []}),
        ({}, {"award_list": [1]}),
        ({}, {"send_content": "GIFT_PACKAGE"}),
        ({}, {"merchant_option": "MANUAL_INPUT_MERCHANT", "merchant_id_list": ["1"]}),
        ({}, {"transaction_amount_minimum": "3000"}),
    ],
)
@pytest.mark.covers("POST paygiftactivity/unique-threshold-activity")
async def test_an_activity_against_the_rules_is_refused(pay, base, rule):
    """3.15: at most 90 days, one coupon or three to five, merchants that exist."""
    stock = (await pay.post(f"{BUSI}/stocks", voucher_batch(pay)))["stock_id"]
    wrong = activity(pay, stock, base=base, rule=rule)
    assert await pay.refused("POST", f"{GIFT}/unique-threshold-activity", wrong) == (400, "PARAM_ERROR")
