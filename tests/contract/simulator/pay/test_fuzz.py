"""Whatever arrives is refused or done: never a 500 of WeChat Pay, never a -1 of WeCom's money calls."""

import random
import runpy
import sys
from pathlib import Path

import pytest

from simulator.pay.times import rfc3339

# What spoils requests is a module of the folder above, which is no package.
sys.path.append(str(Path(__file__).parents[1]))

from spoiling import written

HERE = Path(__file__).parent
COUPONS = runpy.run_path(str(HERE / "test_coupons.py"))
MINI = runpy.run_path(str(HERE / "test_miniapppay.py"))
START_S = 1_760_000_000


@pytest.mark.covers("pay:bad-input")
async def test_mutations_of_signed_calls(pay):
    """3.15: a wrong body, path or query is a 4xx with a code."""
    rng = random.Random(1)
    pay.paid("T00001", 100_000)
    stock = await COUPONS["running"](pay)
    busi = (await pay.post("/v3/marketing/busifavor/stocks", COUPONS["voucher_batch"](pay)))["stock_id"]
    gift = "/v3/marketing/paygiftactivity"
    valid = [
        ("/v3/marketing/favor/coupon-stocks", COUPONS["batch"](pay, "Z")),
        (f"/v3/marketing/favor/stocks/{stock}/pause", {"stock_creator_mchid": pay.credentials.mchid}),
        (f"/v3/marketing/favor/users/{pay.openid()}/coupons", COUPONS["order"](pay, stock)),
        ("/v3/marketing/favor/callbacks", {"mchid": pay.credentials.mchid, "notify_url": "http://a.example/b"}),
        ("/v3/marketing/busifavor/stocks", COUPONS["voucher_batch"](pay, "Z")),
        (f"/v3/marketing/busifavor/stocks/{busi}/couponcodes", {"upload_request_no": "1", "coupon_code_list": ["a"]}),
        (
            "/v3/marketing/busifavor/coupons/use",
            {"coupon_code": "1", "use_time": rfc3339(START_S), "use_request_no": "1", "appid": "wx0000000000000001"},
        ),
        (f"{gift}/unique-threshold-activity", COUPONS["activity"](pay, busi)),
        (
            "/v3/refund/domestic/refunds",
            {"out_trade_no": "T00001", "out_refund_no": "R", "amount": {"refund": 1, "total": 100_000}},
        ),
    ]
    for number in range(3_000):
        url, body = rng.choice(valid)
        pay.wecom.clock.ms += 2_000  # so that no limit of a minute stands before the reading of the body
        status, answer = await pay.call("POST", url, written(rng, body, broken=0.2))
        assert status in (200, 400, 403, 404, 429), (number, url, answer)
    queries = [
        "offset=x",
        "limit=-1",
        "limit=99999999999999999",
        "status=%ff",
        "appid=&a",
        "create_start_time=1",
        "=&=",
    ]
    for url in (
        "/v3/marketing/favor/stocks",
        f"/v3/marketing/favor/stocks/{stock}",
        f"/v3/marketing/favor/users/{pay.openid()}/coupons",
        "/v3/marketing/favor/users/%00%ff/coupons",
        f"/v3/marketing/busifavor/users/{pay.openid()}/coupons",
        f"{gift}/activities",
        f"{gift}/activities/%2e%2e/merchants",
        "/v3/pay/transactions/id/%E7%8C%9C",
        "/v3/billdownload/file",
    ):
        for query in queries:
            status, answer = await pay.call("GET", f"{url}?{query}")
            assert status in (200, 400, 403, 404), (url, query, answer)
    await pay.notifier.close()


@pytest.mark.parametrize("platform_rules", [{"miniapppay": MINI["SURE"]}], indirect=True)
@pytest.mark.covers("externalpay/get_fund_flow", "miniapppay/create_order", "miniapppay/refund", "miniapppay/apply_mch")
async def test_mutations_of_money_calls(pay):
    """3.10: every wrong field has an errcode of its own, and none is -1."""
    rng = random.Random(2)
    await MINI["call"](pay, "create_order", MINI["asked"](pay))
    pay.wecom.advance(310)
    media = (await MINI["image"](pay))["open_wx_pay_media_id"]
    window = {"begin_time": START_S, "end_time": START_S + 100, "mch_id": "1900000001", "cursor": "", "limit": 10}
    scope = {"mch_id": "1900000001", "allow_use_scope": {"user": ["s1"], "partyid": [1], "tagid": [1]}}
    ids = {"mchid": "1900000001", "out_trade_no": "T00001", "out_refund_no": "R1"}
    valid = [
        ("externalpay/get_fund_flow", window),
        ("externalpay/get_payment_info", {"payment_id": "pay1"}),
        ("externalpay/getmerchant", {"mch_id": "1900000001"}),
        ("externalpay/set_mch_use_scope", scope),
        ("miniapppay/create_order", MINI["asked"](pay, "T00002")),
        ("miniapppay/get_order", ids),
        ("miniapppay/close_order", ids),
        ("miniapppay/refund", MINI["back"]()),
        ("miniapppay/get_refund_detail", ids),
        ("miniapppay/get_bill", {"bill_date": "2025-10-08", "mchid": "1900000001"}),
        ("miniapppay/get_sign", {"appid": "wx0000000000000001", "prepay_id": "w", "nonce": "n", "timestamp": 1}),
        ("miniapppay/apply_mch", MINI["application"](media, "Z")),
        ("miniapppay/get_applyment_status", {"out_request_no": "Z"}),
    ]
    for number in range(3_000):
        path, body = rng.choice(valid)
        answer = await pay.wecom.post(path, content=written(rng, body, broken=0.2))
        assert answer["errcode"] != -1, (number, path)
