"""The callback URL as an ASGI application: one answer for every request, in bounded memory and bounded time.

200 is sent only after :class:`EventLog` has every record acknowledged. A refusal is its reason as plain text. Neither
the query string (it holds signatures) nor anything of a body is ever logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.ingest import domain
from services.ingest.kafka import EventLog, Unavailable
from services.ingest.metrics import IngestMetrics
from services.ingest.settings import Settings
from siyu.ops.clock import wall_ms
from siyu.ops.logging import get_logger
from siyu.wecom.callbacks import type_label
from siyu.wecom.crypto import Refused

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/callback/wecom/"
MAX_BODY_BYTES = 1024 * 1024
MAX_HEAD_BYTES = 64 * 1024
_RETRY_AFTER = (b"retry-after", b"1")


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _Gone(Exception):
    """The client hung up before its body was complete."""


class _Rejected(Exception):
    """The request itself, before anybody looked into it, cannot be served."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CallbackApp:
    """GET verifies a URL, POST delivers an event, at ``/callback/wecom/{corp_id}`` for every configured corp."""

    def __init__(
        self,
        settings: Settings,
        endpoints: Mapping[str, domain.Endpoint],
        log: EventLog,
        metrics: IngestMetrics,
    ) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._event_log = log
        self._metrics = metrics
        self._log = get_logger()
        self._in_flight = 0
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(scope, receive)
        except _Gone:
            self._metrics.callbacks.labels("gone", "").inc()
            return
        except Exception:  # a defect: uvicorn logs where, and answers 500, which the platform retries
            self._metrics.callbacks.labels("failed", "").inc()
            raise
        headers = [(b"content-length", str(len(answer.body)).encode()), *answer.headers]
        if answer.body:
            headers.append((b"content-type", b"text/plain; charset=utf-8"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path: str = scope["path"]
        try:
            if not path.startswith(PREFIX):
                raise _Rejected("no_such_path")
            endpoint = self._endpoints.get(path.removeprefix(PREFIX))
            if endpoint is None:
                raise _Rejected("unknown_corp")
            if scope["method"] == "POST":
                return await self._deliver(endpoint, scope, receive)
            if scope["method"] == "GET":
                return self._verify(endpoint, scope)
            raise _Rejected("wrong_method")
        except (Refused, _Rejected) as refusal:
            return self._refuse(refusal.reason)
        except Unavailable as unavailable:
            return self._unavailable(unavailable.reason)

    def _verify(self, endpoint: domain.Endpoint, scope: Scope) -> Answer:
        echo = domain.verify_url(endpoint, scope["query_string"], wall_ms())
        self._metrics.callbacks.labels("verified", "").inc()
        self._log.info("callback_url_verified", corp_id=endpoint.corp_id)
        return Answer(200, echo)

    async def _deliver(self, endpoint: domain.Endpoint, scope: Scope, receive: Receive) -> Answer:
        if self._in_flight >= self._settings.max_in_flight:
            raise Unavailable("overloaded")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.answer_within_seconds
        received_at_ms = wall_ms()
        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        body = bytearray()
        try:
            await self._read(scope, receive, body, deadline)
            callback = domain.receive(endpoint, scope["query_string"], bytes(body), received_at_ms)
            decrypted_at = loop.time()
            appended = await self._event_log.append(callback, deadline=deadline)
        finally:
            self._in_flight -= 1
            self._held_bytes -= len(body)
            self._metrics.in_flight.set(self._in_flight)
            self._metrics.in_flight_bytes.set(self._held_bytes)
        self._metrics.ack_seconds.observe(loop.time() - decrypted_at)
        self._metrics.callbacks.labels("accepted", "").inc()
        label = type_label(callback.raw)
        self._metrics.events.labels(label, "true" if callback.raw.known else "false").inc()
        if self._settings.log_events:
            self._log.info(
                "callback_accepted",
                event_id=callback.raw.event_id,
                corp_id=endpoint.corp_id,
                event_type=label,
                known=callback.raw.known,
                offsets=appended.offsets,
            )
        return Answer(200)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray, deadline: float) -> None:
        """Reads the whole body into ``body``, which never holds more than the limit."""
        if _declared_length(scope) > MAX_BODY_BYTES:
            raise _Rejected("body_too_large")
        try:
            async with asyncio.timeout_at(deadline):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    chunk: bytes = message.get("body", b"")
                    if len(body) + len(chunk) > MAX_BODY_BYTES:
                        raise _Rejected("body_too_large")
                    if self._held_bytes + len(chunk) > self._settings.max_in_flight_bytes:
                        raise Unavailable("overloaded")
                    body += chunk
                    self._held_bytes += len(chunk)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise _Rejected("body_too_slow") from None
        self._metrics.in_flight_bytes.set(self._held_bytes)

    def _refuse(self, reason: str) -> Answer:
        self._metrics.callbacks.labels("refused", reason).inc()
        if self._settings.log_events:
            self._log.info("callback_refused", reason=reason)
        headers = ((b"allow", b"GET, POST"),) if reason == "wrong_method" else ()
        return Answer(domain.STATUS[reason], reason.encode(), headers)

    def _unavailable(self, reason: str) -> Answer:
        self._metrics.callbacks.labels("unavailable", reason).inc()
        if self._settings.log_events:
            self._log.warning("callback_unavailable", reason=reason)
        return Answer(503, reason.encode(), (_RETRY_AFTER,))


def _declared_length(scope: Scope) -> int:
    """Content-Length, which the HTTP parser has checked to be a number; 0 for a chunked body."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


class BoundedHeadProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which collects a request's head without a limit, with one."""

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Request head too large.")

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()
