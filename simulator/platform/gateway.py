"""``/cgi-bin/…``: who calls, whether it is too much, whether it is well-formed, then what the world says.

An ASGI application. Always HTTP 200 with an errcode (fact sheet 3), never a 500: an error of ours is -1, logged, and
counted. Every call is recorded with its time, endpoint, corp and errcode, unknown paths too.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote

import msgspec

from simulator.apps import App
from simulator.metrics import SimulatorMetrics
from simulator.platform.calls import CallLog, RecordedCall, detail_of
from simulator.platform.endpoint import Call, Endpoint, File
from simulator.platform.endpoints import ENDPOINTS
from simulator.platform.errors import TEXTS, ApiError, error_body
from simulator.platform.faults import Faults
from simulator.platform.throttle import Limits, Throttle
from simulator.platform.tokens import Tokens
from simulator.settings import SimulatorSettings
from simulator.world.corp import CorpWorld
from siyu.ops.clock import wall_ms
from siyu.ops.logging import get_logger

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

PREFIX = "/cgi-bin/"
_GETTOKEN = "gettoken"
_SYSTEM_BUSY = -1


@dataclass(slots=True)
class _Caller:
    """What is known of a call when it is answered or refused."""

    ip: str
    corp_id: str = ""
    agent_id: str = ""
    empties: Mapping[str, Any] | None = None
    content_type: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Of the request, once it has been read."""
    answer: Mapping[str, Any] = field(default_factory=dict)


class _AnswerLostError(Exception):
    """The call has had its effect; its answer is not sent."""


class Gateway:
    """Answers calls."""

    def __init__(
        self,
        settings: SimulatorSettings,
        apps: tuple[App, ...],
        *,
        worlds: Callable[[], Mapping[str, CorpWorld]],
        now_ms: Callable[[], int],
        clock_s: Callable[[], float],
        metrics: SimulatorMetrics,
    ) -> None:
        """``worlds``: the corps as they are now; ``now_ms``: business time; ``clock_s``: the platform's own clock."""
        self._settings = self.settings = settings
        self.apps = apps
        self.broken = 0
        """Calls that ended in an error of our own, answered -1."""
        self._worlds = worlds
        self._now_ms = now_ms
        self._clock_s = clock_s
        self._metrics = metrics
        self._log = get_logger()
        self._latency = random.Random(f"{settings.seed}|latency")
        self._serial = 0
        self.tokens = Tokens(apps, settings.token_seconds)
        self.faults = Faults(settings.seed)
        self.throttle = Throttle(
            Limits(
                per_minute=settings.calls_per_minute,
                per_hour=settings.calls_per_hour,
                concurrency=settings.concurrent_calls,
                wrong_secrets_per_hour=settings.wrong_secrets_per_hour,
            )
        )
        self._writing: set[tuple[str, str]] = set()
        self.calls = CallLog(settings.calls_kept, settings.calls_file)
        self.call_counts: Counter[tuple[str, int]] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call."""
        arrived_ms, business_ms = wall_ms(), self._now_ms()
        path: str = scope["path"][len(PREFIX) :]
        client = scope.get("client")
        caller = _Caller(client[0] if client else "127.0.0.1")
        caller.content_type = dict(scope["headers"]).get(b"content-type", b"").decode("latin-1")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace"))
        errcode = 0
        lost = False
        kind = [(b"content-type", b"application/json; charset=UTF-8")]
        try:
            answer = await self._answer(path, scope["method"], query, caller, receive)
            if isinstance(answer, File):
                content, kind = answer.content, _headers_of(answer)
            else:
                content = msgspec.json.encode({"errcode": 0, "errmsg": "ok", **answer})
        except ApiError as error:
            errcode, content = error.errcode, self._error(error, caller)
        except _AnswerLostError:
            lost, content = True, b""
        except ConnectionError:
            return  # the caller left before its body was complete: nobody is there to be answered
        except Exception as error:
            # The platform never shows its own faults but as "system busy"; here they are to be found and mended.
            self._log.error("endpoint broke", endpoint=path[:100], exc_info=error)
            self._metrics.broken.inc()
            self.broken += 1
            errcode, content = _SYSTEM_BUSY, self._error(ApiError(_SYSTEM_BUSY), caller)
        known = path == _GETTOKEN or path in ENDPOINTS
        # A path or corp id from outside must not become a name without end in a counter.
        shown = path if known else f"unknown:{path[:100]}"
        detail = None
        if self.calls.detailed:
            asked = {**query, **caller.body}
            detail = detail_of(asked, caller.answer, ip=caller.ip, answered_ms=self._now_ms(), lost=lost)
        called = RecordedCall(arrived_ms, business_ms, shown, caller.corp_id[:64], caller.agent_id, errcode)
        self.calls.append(called, detail)
        self.call_counts[shown if known else "unknown", errcode] += 1
        self._metrics.calls.labels(shown if known else "unknown", str(errcode)).inc()
        if lost:
            # Begun and never finished: the server closes the connection, as one that dies half way does.
            headers = [(b"content-length", b"1")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            raise ConnectionResetError("the answer is lost on purpose")
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    *kind,
                    (b"content-length", str(len(content)).encode()),
                    (b"error-code", str(errcode).encode()),
                    (b"error-msg", TEXTS[errcode].encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    async def _answer(
        self, path: str, method: str, query: dict[str, str], caller: _Caller, receive: Receive
    ) -> Mapping[str, Any] | File:
        now = self._clock_s()
        debug = query.get("debug") == "1"
        if path == _GETTOKEN:
            return await self._gettoken(method, query, caller, now, debug)
        endpoint = ENDPOINTS.get(path)
        if endpoint is None:
            raise ApiError(48002)
        caller.empties = endpoint.empties
        self.throttle.count("ip:" + caller.ip, path, now)
        app = self.tokens.app_of(query.get("access_token"), now)
        caller.corp_id, caller.agent_id = app.corp_id, app.agent_id
        if app.trusted_ips and caller.ip not in app.trusted_ips:
            raise ApiError(60020)
        scope = "corp:" + app.corp_id
        self.throttle.count(scope, path, now, debug=debug)
        if method != endpoint.method:
            raise ApiError(43001 if endpoint.method == "GET" else 43002)
        self.throttle.enter(scope, path, endpoint.concurrency)
        try:
            body = await self._body(receive, endpoint, caller) if endpoint.method == "POST" else {}
            caller.body = body
            return await self._work(endpoint, app, query, body, caller)
        finally:
            self.throttle.leave(scope, path)

    async def _work(
        self, endpoint: Endpoint, app: App, query: dict[str, str], body: dict[str, Any], caller: _Caller
    ) -> Mapping[str, Any] | File:
        fault = self.faults.strike(endpoint.path, app.corp_id, self._clock_s())
        call = self._call(app, query, body)
        if errcode := call.corp.refuses(app.agent_id, endpoint.path, call.now_s):
            raise ApiError(errcode)
        record = (app.corp_id, endpoint.record(call)) if endpoint.record is not None else None
        if record is not None:
            if record in self._writing:
                raise ApiError(45035)
            self._writing.add(record)
        try:
            if delay_ms := self._delay_ms() + (fault.latency_ms if fault else 0):
                await asyncio.sleep(delay_ms / 1000)
                call = self._call(app, query, body)
            if fault is not None and fault.errcode:
                raise ApiError(fault.errcode)
            answer = endpoint.handler(call)
            if not isinstance(answer, File):
                caller.answer = answer
        finally:
            if record is not None:
                self._writing.discard(record)
        if fault is not None and fault.after_effect:
            raise _AnswerLostError
        return answer

    def _call(self, app: App, query: dict[str, str], body: dict[str, Any]) -> Call:
        corp = self._worlds()[app.corp_id]
        return Call(app, corp, query, body, self._now_ms(), self._clock_s(), self._settings.cursor_seconds)

    async def _gettoken(
        self, method: str, query: dict[str, str], caller: _Caller, now: float, debug: bool
    ) -> dict[str, Any]:
        caller.corp_id = corp_id = query.get("corpid", "")
        secret = query.get("corpsecret", "")
        self.throttle.count("ip:" + caller.ip, _GETTOKEN, now)
        self.throttle.check_banned(caller.ip, now)
        if method != "GET":
            raise ApiError(43001)
        if not corp_id:
            raise ApiError(41002)
        if not secret:
            raise ApiError(41004)
        fault = self.faults.strike(_GETTOKEN, corp_id, now)
        if delay_ms := self._delay_ms() + (fault.latency_ms if fault else 0):
            await asyncio.sleep(delay_ms / 1000)
        if fault is not None and fault.errcode:
            raise ApiError(fault.errcode)
        try:
            token, seconds = self.tokens.issue(corp_id, secret, now)
        except ApiError as error:
            if error.errcode == 40001:
                self.throttle.wrong_secret(caller.ip, now)
            raise
        self.throttle.count("corp:" + corp_id, _GETTOKEN, now, debug=debug)
        return {"access_token": token, "expires_in": seconds}

    async def _body(self, receive: Receive, endpoint: Endpoint, caller: _Caller) -> dict[str, Any]:
        most = endpoint.body_limit or self._settings.body_limit_bytes
        content = bytearray()
        while True:
            part = await receive()
            if part["type"] == "http.disconnect":
                raise ConnectionError
            content += part.get("body", b"")
            if len(content) > most:
                raise ApiError(40206)
            if not part.get("more_body"):
                break
        if endpoint.upload:
            return {"content_type": caller.content_type, "bytes": bytes(content)}
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise ApiError(40035, wrong_format=True) from None
        if not isinstance(body, dict):
            raise ApiError(40035, wrong_format=True)
        return body

    def _delay_ms(self) -> float:
        """The time the platform takes, wall time."""
        most = self._settings.latency_milliseconds
        return self._latency.uniform(0, most) if most else 0.0

    def _error(self, error: ApiError, caller: _Caller) -> bytes:
        self._serial += 1
        body = error_body(error, serial=self._serial, time_s=wall_ms() // 1000, ip=caller.ip)
        return msgspec.json.encode({**body, **(caller.empties or {}), **error.empties})


def _headers_of(file: File) -> list[tuple[bytes, bytes]]:
    """What a download says of itself. A name may be any text: in a header it is quoted as RFC 6266 has it."""
    name = quote(file.filename, errors="replace")
    return [
        (b"content-type", file.content_type.encode("latin-1", "replace")),
        (b"content-disposition", f"attachment; filename*=UTF-8''{name}".encode()),
    ]
