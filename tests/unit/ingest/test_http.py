"""The callback URL's answers: right status, short reason, bounded memory, and never 200 without Kafka's word."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client import CollectorRegistry

from services.ingest.domain import STATUS, Endpoint
from services.ingest.http import MAX_BODY_BYTES, CallbackApp
from services.ingest.kafka import Appended, Unavailable
from services.ingest.metrics import IngestMetrics
from services.ingest.settings import MIB, Settings
from siyu.ops.clock import wall_ms
from siyu.wecom.callbacks import Callback
from siyu.wecom.crypto import CallbackCrypto

CORP = "wwcorp00000000001"
CRYPTO = CallbackCrypto("QDG6eK", "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C", CORP)
ADD = (
    b"<xml><CreateTime>1700000000</CreateTime><Event>change_external_contact</Event><UserID>zhangsan</UserID>"
    b"<ChangeType>add_external_contact</ChangeType><ExternalUserID>wm1</ExternalUserID></xml>"
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class FakeLog:
    """An EventLog that remembers, and acknowledges when it is told to."""

    def __init__(self) -> None:
        self.appended: list[Callback] = []
        self.asked: asyncio.Queue[Callback] = asyncio.Queue()
        self.let_through = asyncio.Event()
        self.let_through.set()
        self.refuse_with: str | None = None

    async def append(self, callback: Callback, *, deadline: float) -> Appended:
        self.asked.put_nowait(callback)
        try:
            async with asyncio.timeout_at(deadline):
                await self.let_through.wait()
        except TimeoutError:
            raise Unavailable("kafka_slow") from None
        if self.refuse_with is not None:
            raise Unavailable(self.refuse_with)
        self.appended.append(callback)
        return Appended({"callbacks.raw-0": len(self.appended)})


class Site:
    """The application with a fake log behind it."""

    def __init__(self, **settings: Any) -> None:
        self.log = FakeLog()
        self.registry = CollectorRegistry()
        endpoint = Endpoint(CORP, CRYPTO, 3600)
        self.app = CallbackApp(
            Settings(**({"log_events": False} | settings)),
            {CORP: endpoint},
            self.log,  # type: ignore[arg-type]
            IngestMetrics(self.registry),
        )

    async def request(
        self,
        method: str = "POST",
        *,
        path: str = f"/callback/wecom/{CORP}",
        query: bytes = b"",
        headers: dict[bytes, bytes] | None = None,
        receive: Receive | None = None,
        body: bytes = b"",
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": list((headers or {}).items()),
        }
        await self.app(scope, receive or one_piece(body), send)
        if not sent:
            return 0, {}, b""
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    async def deliver(self, message: bytes = ADD) -> tuple[int, dict[bytes, bytes], bytes]:
        query, body = sealed(message)
        return await self.request(query=query, body=body)

    def counted(self, outcome: str, reason: str = "") -> float:
        labels = {"outcome": outcome, "reason": reason}
        return self.registry.get_sample_value("siyu_ingest_callbacks_total", labels) or 0.0

    def gauge(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"siyu_ingest_{name}")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    yield site
    assert site.gauge("in_flight") in (None, 0.0)
    assert site.gauge("in_flight_bytes") in (None, 0.0)


def sealed(message: bytes) -> tuple[bytes, bytes]:
    envelope = CRYPTO.encrypt(message, timestamp=str(wall_ms() // 1000), nonce="n0nce")
    query = {"msg_signature": envelope.msg_signature, "timestamp": envelope.timestamp, "nonce": envelope.nonce}
    return urlencode(query).encode(), f"<xml><Encrypt>{envelope.encrypt}</Encrypt></xml>".encode()


def one_piece(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


class EndlessBody:
    """A client that never stops sending; counts what was taken from it."""

    def __init__(self, chunk: bytes) -> None:
        self.chunk = chunk
        self.taken = 0

    async def __call__(self) -> Message:
        self.taken += len(self.chunk)
        return {"type": "http.request", "body": self.chunk, "more_body": True}


async def test_200_with_an_empty_body_once_the_log_has_it(site: Site) -> None:
    assert await site.deliver() == (200, {b"content-length": b"0"}, b"")
    assert [callback.raw.personal for callback in site.log.appended] == [ADD]
    assert site.counted("accepted") == 1


async def test_no_answer_before_the_log_has_it(site: Site) -> None:
    site.log.let_through.clear()
    delivery = asyncio.create_task(site.deliver())
    await site.log.asked.get()
    assert not delivery.done()
    site.log.let_through.set()
    assert (await delivery)[0] == 200


async def test_a_body_in_pieces(site: Site) -> None:
    query, body = sealed(ADD)
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    assert (await site.request(query=query, receive=receive))[0] == 200


@pytest.mark.parametrize("reason", ["kafka_down", "kafka_slow", "kafka_failed"])
async def test_503_when_the_log_says_no(site: Site, reason: str) -> None:
    site.log.refuse_with = reason
    status, headers, body = await site.deliver()
    assert (status, body) == (503, reason.encode())
    assert headers[b"retry-after"] == b"1"
    assert site.counted("unavailable", reason) == 1


async def test_503_when_the_log_does_not_answer() -> None:
    site = Site(answer_within_seconds=0.05)
    site.log.let_through.clear()
    assert (await site.deliver())[::2] == (503, b"kafka_slow")


async def test_503_at_once_above_the_limit_of_deliveries_in_flight() -> None:
    site = Site(max_in_flight=2)
    site.log.let_through.clear()
    waiting = [asyncio.create_task(site.deliver()) for _ in range(2)]
    for _ in waiting:
        await site.log.asked.get()
    endless = EndlessBody(b"x")
    status, headers, body = await site.request(receive=endless)
    assert (status, body, headers[b"retry-after"]) == (503, b"overloaded", b"1")
    assert endless.taken == 0
    site.log.let_through.set()
    assert [(await task)[0] for task in waiting] == [200, 200]
    assert (await site.deliver())[0] == 200
    assert site.counted("unavailable", "overloaded") == 1


async def test_503_above_the_limit_of_bytes_in_flight() -> None:
    site = Site(max_in_flight_bytes=MIB)
    held, hold = asyncio.Event(), asyncio.Event()
    chunks = [{"type": "http.request", "body": b"x" * (MIB - 10), "more_body": True}]

    async def receive() -> Message:
        if chunks:
            return chunks.pop()
        held.set()
        await hold.wait()
        return {"type": "http.disconnect"}

    big = asyncio.create_task(site.request(receive=receive))
    await held.wait()
    assert (await site.deliver())[::2] == (503, b"overloaded")
    hold.set()
    await big
    assert (await site.deliver())[0] == 200


async def test_a_declared_length_above_1_mib_is_refused_without_reading(site: Site) -> None:
    endless = EndlessBody(b"x" * 1000)
    length = str(MAX_BODY_BYTES + 1).encode()
    status, _, body = await site.request(headers={b"content-length": length}, receive=endless)
    assert (status, body, endless.taken) == (413, b"body_too_large", 0)


async def test_an_endless_body_is_refused_at_1_mib(site: Site) -> None:
    endless = EndlessBody(b"x" * 50_000)
    status, _, body = await site.request(receive=endless)
    assert (status, body) == (413, b"body_too_large")
    assert endless.taken <= MAX_BODY_BYTES + len(endless.chunk)


async def test_a_body_of_exactly_1_mib_is_read(site: Site) -> None:
    query, body = sealed(ADD)
    padded = body.replace(b"<xml>", b"<xml>" + b" " * (MAX_BODY_BYTES - len(body)))
    assert len(padded) == MAX_BODY_BYTES
    assert (await site.request(query=query, body=padded))[0] == 200
    assert (await site.request(query=query, body=padded + b" "))[0] == 413


async def test_a_body_that_does_not_come_is_refused() -> None:
    site = Site(answer_within_seconds=0.05)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    assert (await site.request(receive=receive))[::2] == (408, b"body_too_slow")
    assert site.gauge("in_flight") == 0.0


async def test_a_client_that_hangs_up_gets_nothing(site: Site) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    assert (await site.request(receive=receive))[0] == 0
    assert site.counted("gone") == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "BREW"])
async def test_a_wrong_method(site: Site, method: str) -> None:
    status, headers, body = await site.request(method)
    assert (status, body, headers[b"allow"]) == (405, b"wrong_method", b"GET, POST")


@pytest.mark.parametrize(
    "path",
    ["/callback/wecom/wwother", "/callback/wecom/", f"/callback/wecom/{CORP}/", f"/callback/wecom/{CORP.upper()}"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_corp(site: Site, method: str, path: str) -> None:
    assert (await site.request(method, path=path))[::2] == (404, b"unknown_corp")


@pytest.mark.parametrize("path", ["/", "/callback/wecom", "/metrics", f"//callback/wecom/{CORP}", ""])
async def test_a_path_of_nobody(site: Site, path: str) -> None:
    assert (await site.request(path=path))[::2] == (404, b"no_such_path")


async def test_a_url_is_verified_with_nothing_but_the_plaintext(site: Site) -> None:
    envelope = CRYPTO.encrypt(b"1616140317555161061", timestamp=str(wall_ms() // 1000), nonce="n")
    query = urlencode(
        {
            "msg_signature": envelope.msg_signature,
            "timestamp": envelope.timestamp,
            "nonce": envelope.nonce,
            "echostr": envelope.encrypt,
        }
    ).encode()
    status, headers, body = await site.request("GET", query=query)
    assert (status, body, headers[b"content-length"]) == (200, b"1616140317555161061", b"19")
    assert site.log.appended == []


async def test_every_refusal_is_counted_by_its_reason_and_reaches_nothing(site: Site) -> None:
    query, body = sealed(ADD)
    requests = {
        "bad_query": {"body": body},
        "bad_envelope": {"query": query, "body": b"<html>"},
        "forbidden_markup": {"query": query, "body": b"<!DOCTYPE xml>" + body},
        "bad_signature": {"query": query.replace(b"n0nce", b"other"), "body": body},
    }
    for reason, request in requests.items():
        status, _, answer = await site.request(**request)  # type: ignore[arg-type]
        assert (status, answer) == (STATUS[reason], reason.encode())
        assert site.counted("refused", reason) == 1
    assert site.log.appended == []


async def test_unknown_event_names_share_one_label(site: Site) -> None:
    for number in range(5):
        assert (await site.deliver(f"<xml><Event>new_{number}</Event></xml>".encode()))[0] == 200
    labels = {"type": "other", "known": "false"}
    assert site.registry.get_sample_value("siyu_ingest_events_total", labels) == 5


async def test_no_line_of_the_log_holds_anything_of_a_person_or_of_the_query(
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = Site(log_events=True)
    query, body = sealed(ADD)
    await site.request(query=query, body=body)
    await site.request(query=query, body=body[:-30])
    site.log.refuse_with = "kafka_down"
    await site.deliver()
    printed = "".join(capsys.readouterr())
    assert site.log.appended[0].raw.event_id in printed
    assert "bad_" in printed
    assert "kafka_down" in printed
    for secret in "zhangsan", "wm1", "n0nce", "msg_signature", "QDG6eK":
        assert secret not in printed
