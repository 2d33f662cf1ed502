"""Fact sheet 1.3–1.5: what arrives at the receiver, opened by a second implementation that shares nothing with ours."""

import asyncio
import base64
import hashlib
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import httpx2
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from simulator.delivery import Deliverer, DeliveryPolicy
from simulator.metrics import SimulatorMetrics
from siyu.ops.corps import Corp

CORP = Corp(
    corp_id="wx5823bf96d3bd56c7",
    agent_id="1000002",
    secret="s",
    callback_token="QDG6eK",
    callback_aes_key="jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C",
)


def opened(request: httpx2.Request) -> bytes:
    """The message, after every check a receiver has to make."""
    outer = ElementTree.fromstring(request.content)
    assert outer.findtext("ToUserName") == CORP.corp_id
    assert outer.findtext("AgentID") == "1000002"
    encrypted = outer.findtext("Encrypt") or ""
    query = request.url.params
    signed = "".join(sorted([CORP.callback_token, query["timestamp"], query["nonce"], encrypted]))
    assert hashlib.sha1(signed.encode()).hexdigest() == query["msg_signature"]
    key = base64.b64decode(CORP.callback_aes_key + "=")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    padded = decryptor.update(base64.b64decode(encrypted)) + decryptor.finalize()
    assert len(padded) % 32 == 0
    assert 1 <= padded[-1] <= 32
    plain = padded[: -padded[-1]]
    (length,) = struct.unpack(">I", plain[16:20])
    assert plain[20 + length :] == CORP.corp_id.encode()
    return plain[20 : 20 + length]


async def delivered(
    messages: list[bytes], *, statuses: list[int], receive: Callable[..., Any] | None = None, **policy: float
) -> tuple[Deliverer, list[httpx2.Request]]:
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(statuses[min(len(requests), len(statuses)) - 1])

    made = {"shuffle_s": 0.0, "duplicate_share": 0.0, "retry_s": (0.01, 0.01), "duplicate_within_s": 0.01, **policy}
    deliverer = Deliverer(
        base_url="http://receiver/",
        corps={CORP.corp_id: CORP},
        policy=DeliveryPolicy(**made),
        metrics=SimulatorMetrics(),
        transport=httpx2.MockTransport(receive or answer),
    )
    deliverer.counts.planned = len(messages)
    for number, message in enumerate(messages):
        deliverer.submit(number, CORP.corp_id, message)
    async with asyncio.timeout(20):
        await deliverer.wait_idle()
    await deliverer.close()
    return deliverer, requests


async def test_every_length_of_message_arrives_whole():
    messages = ["<xml>张三</xml>".encode() + b"x" * n for n in range(70)]
    deliverer, requests = await delivered(messages, statuses=[200])
    assert sorted(opened(r) for r in requests) == sorted(messages)
    assert deliverer.counts.delivered == 70
    assert all(r.method == "POST" and r.url.path == f"/callback/wecom/{CORP.corp_id}" for r in requests)
    orders = {b"<AgentID>" in r.content.partition(b"<Encrypt>")[0] for r in requests}
    assert orders == {True, False}, "both element orders of the official samples are sent"


async def test_a_refused_callback_comes_again_with_the_same_plaintext_in_a_new_envelope():
    deliverer, requests = await delivered([b"<xml/>"], statuses=[500, 404, 200])
    assert [opened(r) for r in requests] == [b"<xml/>"] * 3
    assert len({r.url.params["nonce"] for r in requests}) == 3
    assert len({r.content for r in requests}) == 3
    counts = deliverer.counts
    assert (counts.delivered, counts.dropped, counts.attempts, counts.waiting) == (1, 0, 3, 0)


async def test_after_three_deliveries_a_callback_is_dropped_and_counted():
    deliverer, requests = await delivered([b"<xml/>"], statuses=[503])
    assert len(requests) == 3
    counts = deliverer.counts
    assert (counts.delivered, counts.dropped, counts.attempts, counts.waiting) == (0, 1, 3, 0)


async def test_only_200_is_success():
    for status in (201, 204, 302, 400):
        deliverer, requests = await delivered([b"<xml/>"], statuses=[status])
        assert (len(requests), deliverer.counts.dropped) == (3, 1)


async def test_a_receiver_that_does_not_answer_in_time_counts_as_refused():
    asked = 0

    async def hang(_: httpx2.Request) -> httpx2.Response:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        return httpx2.Response(200)

    deliverer, _ = await delivered([b"<xml/>"], statuses=[], receive=hang, timeout_s=0.02)
    assert (asked, deliverer.counts.attempts, deliverer.counts.dropped) == (3, 3, 1)


async def test_a_receiver_that_is_not_there_counts_as_refused():
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    deliverer, _ = await delivered([b"<xml/>"], statuses=[], receive=refuse)
    assert (deliverer.counts.attempts, deliverer.counts.dropped) == (3, 1)


async def test_a_duplicate_is_the_same_message_once_more():
    deliverer, requests = await delivered([b"<xml/>"], statuses=[200], duplicate_share=1.0)
    assert [opened(r) for r in requests] == [b"<xml/>"] * 2
    assert len({r.content for r in requests}) == 2
    assert (deliverer.counts.delivered, deliverer.counts.duplicates) == (1, 1)
