"""Fact sheet 3.15: notices as real receivers meet them; the independent library verifies and opens them."""

import asyncio
import base64
import itertools
import json

import pytest

from simulator.pay import signing
from simulator.pay.notify import PAYMENT_RETRY_S

VECTOR_KEY = b"0123456789abcdef0123456789ABCDEF"
VECTOR_CIPHERTEXT = (
    "Ryv5vWslBFkpM4T8cF9x7t0vcc4ASUyxQ9cEIFtZ63EXzfMEM4ZZewi2AAVDYLA0ENvi+mxcnEmhvpnEsGCO7cB5eucQJWT3b9rASw7Ca+mVL/3BEL"
    "k3flBQZV/e+1aIabECWUzax8EdgiSTk/frCHHrN7xNwnQK0Aw/1kPVUUrAXttFGv3YC2+gBn1ZdxYSIselyiWx+cdaEEdLCke7RR/27zQqB8u40pA3"
    "ohmZxR/HXxLlH/x82C8qh+vN52v/k+dhjkkttL99OwhRpO2zRJXpaAlp7AxMJwpbapM0q9DVhKw2xPwCC1SmhhOxx5dmbtbhqT9V06MrfJN0YkLWPs"
    "WUg1dYjxT808dTTE3oubDRxyY9EhDx8k1pkx+KryGdtVNweAsSke8Fpum3HCdgPKFrW7XWib4AyGjw/tDXg3+wZBFUM2XMcnMghm7n9aBr2orqTCDS"
    "hT3VOL2Hnrf1HUXE3FBtzJpO5ACaky8BDcPYVQOEx6m2C0YTFKs4w+ojCP+P+RTQVwA+BGzZeNZa+CbKf59j3wEo7q7NvDMCst4p/EyHmxM="
)
VECTOR_PLAIN = (
    b'{"mchid":"1900000109","appid":"wxd678efh567hg6787","out_trade_no":"T202611200001","transaction_id":'
    b'"4200000000202611200000000001","trade_type":"JSAPI","trade_state":"SUCCESS","trade_state_desc":"OK","bank_type":'
    b'"OTHERS","attach":"","success_time":"2026-11-20T10:34:56+08:00","payer":{"openid":"oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},'
    b'"amount":{"total":100,"payer_total":100,"currency":"CNY","payer_currency":"CNY"}}'
)


@pytest.mark.covers("pay:resource")
def test_the_published_vector_of_the_cipher():
    """3.15: the GCM vector, both ways."""
    sealed = signing.seal(VECTOR_KEY, VECTOR_PLAIN, nonce="uRQLUOVVenok", associated="transaction")
    assert sealed == VECTOR_CIPHERTEXT
    opened = signing.unseal(VECTOR_KEY, VECTOR_CIPHERTEXT, nonce="uRQLUOVVenok", associated="transaction")
    assert opened == VECTOR_PLAIN
    with pytest.raises(ValueError, match="not whole"):
        signing.unseal(VECTOR_KEY, VECTOR_CIPHERTEXT, nonce="uRQLUOVVenok", associated="refund")


@pytest.mark.covers("event:pay/TRANSACTION.SUCCESS", "fact:6.15")
async def test_a_payment_is_told_with_its_payer_and_amount(pay):
    """3.15: TRANSACTION.SUCCESS names order, payer's openid and amounts inside the encrypted resource."""
    transaction_id = pay.paid(amount_fen=990, attach="till-7")
    await pay.pass_time(1)
    (arrived,) = pay.arrived
    assert arrived.url == "http://receiver/pay"
    assert len(arrived.json["id"]) == 36
    assert (arrived.json["event_type"], arrived.json["resource_type"]) == ("TRANSACTION.SUCCESS", "encrypt-resource")
    assert arrived.json["resource"]["algorithm"] == "AEAD_AES_256_GCM"
    assert len(arrived.json["resource"]["nonce"]) == 12
    told = pay.opened(arrived)
    assert (told["mchid"], told["out_trade_no"]) == (pay.credentials.mchid, "T202611200001")
    assert (told["transaction_id"], told["trade_state"], told["attach"]) == (transaction_id, "SUCCESS", "till-7")
    assert told["payer"] == {"openid": pay.openid()}
    assert told["amount"] == {"total": 990, "payer_total": 990, "currency": "CNY", "payer_currency": "CNY"}
    assert told["success_time"] == "2025-10-09T16:53:20+08:00"


@pytest.mark.covers("pay:signature", "fact:6.15")
@pytest.mark.parametrize("notify_policy", [{"public_key_share": 1.0}, {"public_key_share": 0.0}], indirect=True)
async def test_the_library_verifies_and_opens_our_notices(pay, library, notify_policy):
    """3.15: RSA-SHA256 over timestamp, nonce and raw body, by the public key or by the platform certificate."""
    by_certificate = notify_policy.public_key_share == 0
    pay.paid()
    await pay.pass_time(1)
    (arrived,) = pay.arrived
    expected = pay.credentials.platform_serial if by_certificate else pay.credentials.public_key_id
    assert arrived.headers["Wechatpay-Serial"] == expected
    opened = await _in_thread(lambda: library(certificates=by_certificate).callback(arrived.headers, arrived.body))
    assert opened["resource"]["out_trade_no"] == "T202611200001"
    changed = arrived.body.replace(b"TRANSACTION", b"TRANSAKTION")
    assert await _in_thread(lambda: library(certificates=by_certificate).callback(arrived.headers, changed)) is None


@pytest.mark.covers("pay:probe", "fact:6.15")
@pytest.mark.parametrize("notify_policy", [{"probe_share": 1.0}], indirect=True)
async def test_a_probe_comes_with_a_signature_that_must_fail(pay, library):
    """3.15: a probe's signature begins with WECHATPAY/SIGNTEST/; the library refuses it, both answers count."""
    pay.answers[:] = [401, 204, 200, 204, None, 204]
    for number in range(3):
        pay.paid(f"T20261120000{number}")
    await pay.pass_time(1)
    probes = [arrived for arrived in pay.arrived if arrived.probe]
    assert len(probes) == 3
    assert all(base64.b64decode(a.headers["Wechatpay-Signature"].split("/", 2)[2] + "==") for a in probes)
    for arrived in pay.arrived:
        opened = await _in_thread(lambda a=arrived: library().callback(a.headers, a.body))
        assert (opened is None) == arrived.probe
    counts = pay.notifier.counts
    assert (counts.probes, counts.probes_refused, counts.probes_taken, counts.probes_unanswered) == (3, 1, 1, 1)
    assert (counts.delivered, counts.attempts) == (3, 3)


@pytest.mark.covers("pay:retry", "fact:6.15")
async def test_a_refused_notice_comes_fifteen_more_times_in_a_day_and_then_never(pay):
    """3.15: 15s/15s/30s/3m/10m/20m/30m/30m/30m/60m/3h/3h/3h/6h/6h, 24 h 4 min together, on the business clock."""
    assert sum(PAYMENT_RETRY_S) == 24 * 3_600 + 4 * 60
    pay.answers[:] = [500] * 20
    began_s, times = pay.now_s, []
    pay.paid()
    while not pay.notifier.idle:
        before = len(pay.arrived)
        due_s = pay.wecom.simulation.schedule.next_s
        pay.wecom.advance(max(0, due_s - pay.now_s))
        await pay.notifier.settle()
        times += [pay.now_s - began_s] * (len(pay.arrived) - before)
    assert [after - before for before, after in itertools.pairwise(times)] == list(PAYMENT_RETRY_S)
    assert len({arrived.body for arrived in pay.arrived}) == 1
    assert len({arrived.headers["Wechatpay-Nonce"] for arrived in pay.arrived}) == 16
    assert (pay.notifier.counts.given_up, pay.notifier.counts.delivered) == (1, 0)


@pytest.mark.covers("pay:retry")
@pytest.mark.parametrize("answer", [200, 204])
async def test_an_accepted_notice_does_not_come_again(pay, answer):
    """3.15: 200 and 204 are success; anything else, and no answer, is not."""
    pay.answers[:] = [201, 302, None, answer]
    pay.paid()
    await pay.pass_time(120)
    assert len(pay.arrived) == 4
    assert (pay.notifier.counts.delivered, pay.notifier.counts.waiting, pay.notifier.idle) == (1, 0, True)


@pytest.mark.covers("pay:duplicates", "fact:6.15")
@pytest.mark.parametrize("notify_policy", [{"duplicate_share": 0.5, "shuffle_s": 5}], indirect=True)
async def test_notices_come_twice_and_out_of_order_by_seeded_shares(pay):
    """3.15: duplicates and reordering are normal; a copy has the id of its notice."""
    for number in range(40):
        pay.paid(f"T2026{number:08d}")
        await pay.pass_time(1)
    await pay.pass_time(60)
    ids = [arrived.json["id"] for arrived in pay.arrived]
    assert len(set(ids)) == 40
    assert 48 <= len(ids) <= 72
    first = [pay.opened(pay.arrived[ids.index(i)])["out_trade_no"] for i in dict.fromkeys(ids)]
    assert first != sorted(first)
    assert pay.notifier.counts.duplicates == len(ids) - 40


@pytest.mark.covers("event:pay/REFUND.SUCCESS")
async def test_a_refund_is_told_when_it_is_through(pay):
    """3.15: REFUND.SUCCESS names both numbers, its status and four amounts."""
    pay.paid(amount_fen=1_000)
    pay.merchant.refunded(
        pay.corp, out_trade_no="T202611200001", amount_fen=400, time_s=pay.now_s, out_refund_no="R1", reason="damaged"
    )
    await pay.pass_time(1)
    told = pay.opened(pay.arrived[-1])
    assert pay.arrived[-1].json["event_type"] == "REFUND.SUCCESS"
    assert (told["out_refund_no"], told["refund_status"]) == ("R1", "SUCCESS")
    assert told["amount"] == {"total": 1_000, "refund": 400, "payer_total": 1_000, "payer_refund": 400}
    assert told["success_time"]


def test_the_till_refuses_what_cannot_be(pay):
    """3.15: an appid that is not bound, an order paid twice, a refund of more than is left."""
    pay.paid("T1")
    for wrong in (
        {"out_trade_no": "T1"},
        {"out_trade_no": "T2", "appid": "wxother"},
        {"out_trade_no": "T2", "openid": ""},
    ):
        with pytest.raises(ValueError, match=r"paid already|not bound|needs external_userid"):
            pay.merchant.paid(pay.corp, **{"amount_fen": 1, "time_s": pay.now_s, "openid": "o", **wrong})
    with pytest.raises(ValueError, match="are left"):
        pay.merchant.refunded(pay.corp, out_trade_no="T1", amount_fen=10_001, time_s=pay.now_s, out_refund_no="R")


async def _in_thread(function):
    return await asyncio.to_thread(function)


def test_headers_are_read_whatever_their_body(pay):
    """3.15: what is signed are the bytes on the wire, not JSON written again."""
    body = json.dumps({"a": "猜"}, ensure_ascii=True).encode()
    headers = signed(pay, body)
    public = pay.app.keys.public_key.public_key()
    lines = signing.lines(headers["Wechatpay-Timestamp"], headers["Wechatpay-Nonce"], body)
    assert signing.verify(public, lines, headers["Wechatpay-Signature"])
    other = signing.lines(headers["Wechatpay-Timestamp"], headers["Wechatpay-Nonce"], body + b" ")
    assert not signing.verify(public, other, headers["Wechatpay-Signature"])


def signed(pay, body):
    key, serial = pay.app.keys.signer(public_key=True)
    return signing.signed_headers(key, serial, body, timestamp=1, nonce="n")
