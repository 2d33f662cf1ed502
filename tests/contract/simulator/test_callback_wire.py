"""Fact sheet 1.3–1.5: what arrives at the receiver, opened by a second implementation that shares nothing with ours."""

import asyncio
import base64
import hashlib
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from simulator.apps import App
from simulator.delivery import Deliverer, DeliveryPolicy
from simulator.metrics import SimulatorMetrics
from simulator.sender import Answer, Target
from simulator.world.corp import Callback

APP = App(
    corp_id="wx5823bf96d3bd56c7",
    agent_id="1000002",
    secret="s",
    callback_token="QDG6eK",
    callback_aes_key="jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C",
    callback_url="http://receiver/callback/wecom/wx5823bf96d3bd56c7",
)


class Post:
    """One delivery as it left the deliverer."""

    def __init__(self, target: Target, query: str, body: bytes) -> None:
        self.url = urlsplit(f"{target.url}?{query}")
        self.query = {name: values[0] for name, values in parse_qs(self.url.query).items()}
        self.body = body


class Receiver:
    """Stands in for the network: notes what is posted and answers as it is told."""

    def __init__(self, answer: Callable[[int], Answer | Awaitable[Answer]]) -> None:
        self.posts: list[Post] = []
        self._answer = answer

    async def post(self, target: Target, query: str, body: bytes, *, timeout_s: float) -> Answer:
        self.posts.append(Post(target, query, body))
        answer = self._answer(len(self.posts))
        return answer if isinstance(answer, Answer) else await answer

    async def close(self) -> None:
        pass


def opened(post: Post) -> bytes:
    """The message, after every check a receiver has to make."""
    outer = ElementTree.fromstring(post.body)
    assert outer.findtext("ToUserName") == APP.corp_id
    assert outer.findtext("AgentID") == "1000002"
    encrypted = outer.findtext("Encrypt") or ""
    signed = "".join(sorted([APP.callback_token, post.query["timestamp"], post.query["nonce"], encrypted]))
    assert hashlib.sha1(signed.encode()).hexdigest() == post.query["msg_signature"]
    key = base64.b64decode(APP.callback_aes_key + "=")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    padded = decryptor.update(base64.b64decode(encrypted)) + decryptor.finalize()
    assert len(padded) % 32 == 0
    assert 1 <= padded[-1] <= 32
    plain = padded[: -padded[-1]]
    (length,) = struct.unpack(">I", plain[16:20])
    assert plain[20 + length :] == APP.corp_id.encode()
    return plain[20 : 20 + length]


async def delivered(
    messages: list[bytes], *, statuses: list[int] | None = None, failure: str = "", **policy: Any
) -> tuple[Deliverer, list[Post]]:
    def answer(number: int) -> Answer:
        if statuses is None:
            return Answer(0, failure=failure)
        return Answer(statuses[min(number, len(statuses)) - 1])

    receiver = Receiver(answer)
    made = {"shuffle_s": 0.0, "duplicate_share": 0.0, "retry_s": (0.01, 0.01), "duplicate_within_s": 0.01, **policy}
    deliverer = Deliverer(apps=[APP], policy=DeliveryPolicy(**made), metrics=SimulatorMetrics(), sender=receiver)
    for message in messages:
        deliverer.send(Callback(APP.corp_id, "change_external_contact", message))
    async with asyncio.timeout(20):
        await deliverer.wait_idle()
    await deliverer.close()
    return deliverer, receiver.posts


@pytest.mark.covers("fact:6.1")
async def test_every_length_of_message_arrives_whole():
    """1.5: the length counts bytes, the padding is of 1 to 32, the receive id is the corp's."""
    messages = ["<xml>张三</xml>".encode() + b"x" * n for n in range(70)]
    deliverer, posts = await delivered(messages, statuses=[200])
    assert sorted(opened(post) for post in posts) == sorted(messages)
    assert deliverer.counts.delivered == 70
    assert all(post.url.path == f"/callback/wecom/{APP.corp_id}" for post in posts)


@pytest.mark.covers("fact:6.1")
async def test_both_element_orders_of_the_official_samples_are_sent():
    """1.3: AgentID stands before Encrypt and after it, so that nobody gets away with parsing by position."""
    _, posts = await delivered([b"<xml>%d</xml>" % n for n in range(40)], statuses=[200])
    assert {b"<AgentID>" in post.body.partition(b"<Encrypt>")[0] for post in posts} == {True, False}


@pytest.mark.covers("fact:6.2")
async def test_a_refused_callback_comes_again_with_the_same_plaintext_in_a_new_envelope():
    """1.7: every status but 200 counts as a failure and is tried again (D90238)."""
    deliverer, posts = await delivered([b"<xml/>"], statuses=[500, 404, 200])
    assert [opened(post) for post in posts] == [b"<xml/>"] * 3
    assert len({post.query["nonce"] for post in posts}) == 3
    assert len({post.body for post in posts}) == 3
    counts = deliverer.counts
    assert (counts.delivered, counts.dropped, counts.attempts, counts.waiting) == (1, 0, 3, 0)


@pytest.mark.covers("fact:6.2")
@pytest.mark.parametrize("total", [3, 4])
async def test_after_the_last_delivery_a_callback_is_dropped_and_counted(total):
    """1.7: three times in total, or four: the sentence may be read as 1 + 3."""
    deliverer, posts = await delivered([b"<xml/>"], statuses=[503], total=total)
    assert len(posts) == total
    counts = deliverer.counts
    assert (counts.delivered, counts.dropped, counts.attempts, counts.waiting) == (0, 1, total, 0)
    assert (counts.lost, counts.muted) == (0, 0)


@pytest.mark.covers("fact:6.2")
async def test_only_200_is_success():
    """1.6: HTTP 200 is success, whatever the body; no other status is."""
    for status in (201, 204, 302, 400):
        deliverer, posts = await delivered([b"<xml/>"], statuses=[status])
        assert (len(posts), deliverer.counts.dropped) == (3, 1)


@pytest.mark.covers("fact:6.2")
@pytest.mark.parametrize("failure", ["timeout", "unreachable", "broken"])
async def test_no_answer_in_time_and_no_connection_are_tried_again(failure):
    """1.7: connect failures and timeouts are retried by both official pages."""
    for retry_refused in (True, False):
        deliverer, posts = await delivered([b"<xml/>"], failure=failure, retry_refused=retry_refused)
        assert (len(posts), deliverer.counts.attempts, deliverer.counts.dropped) == (3, 3, 1)


@pytest.mark.covers("fact:6.2")
async def test_a_status_other_than_200_is_final_by_the_other_page():
    """1.7: D90930 retries only what was not answered; a setting decides between the pages."""
    deliverer, posts = await delivered([b"<xml/>"], statuses=[500], retry_refused=False)
    assert (len(posts), deliverer.counts.delivered, deliverer.counts.dropped) == (1, 0, 1)


@pytest.mark.covers("fact:6.2")
async def test_a_duplicate_is_the_same_message_once_more():
    """1.8: a second copy has the same plaintext in another envelope, so only the message tells it apart."""
    deliverer, posts = await delivered([b"<xml/>"], statuses=[200], duplicate_share=1.0)
    assert [opened(post) for post in posts] == [b"<xml/>"] * 2
    assert len({post.body for post in posts}) == 2
    assert (deliverer.counts.delivered, deliverer.counts.duplicates) == (1, 1)
