"""The HTTP side: ``/cgi-bin/…`` is the platform, ``/_sim/…`` controls and observes it. Never a 500 for bad input.

Every call of the platform is recorded with its time, endpoint, corp and errcode, unknown paths too.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.metrics import SimulatorMetrics
from simulator.platform.endpoints import Call
from simulator.platform.errors import TEXTS, ApiError, error_body
from simulator.platform.throttle import Limits, Throttle
from simulator.platform.tokens import Tokens
from simulator.scenario import CannotPlay
from simulator.settings import SimulatorSettings
from simulator.simulation import NotIdle, Simulation
from siyu.ops.clock import wall_ms
from siyu.ops.corps import Corp

_ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call as it was answered. ``time_ms``: wall time of the arrival."""

    time_ms: int
    endpoint: str
    corp_id: str
    errcode: int


class Platform:
    """Answers calls: who it is, whether it is too much, whether it is well-formed, then what the world says."""

    def __init__(
        self, settings: SimulatorSettings, corps: Mapping[str, Corp], simulation: Simulation, metrics: SimulatorMetrics
    ) -> None:
        self._settings = settings
        self._simulation = simulation
        self._metrics = metrics
        self._latency = random.Random(f"{settings.seed}|latency")
        self._serial = 0
        self.tokens = Tokens(corps, settings.token_seconds)
        self._throttle = Throttle(
            Limits(
                per_minute=settings.calls_per_minute,
                per_hour=settings.calls_per_hour,
                concurrency=settings.concurrent_calls,
                wrong_secrets_per_hour=settings.wrong_secrets_per_hour,
            )
        )
        self.calls: deque[RecordedCall] = deque(maxlen=settings.calls_kept)
        self.call_counts: Counter[tuple[str, int]] = Counter()

    async def answer(self, request: Request) -> Response:
        """One call of ``/cgi-bin/…``: always HTTP 200 with an errcode (fact sheet 3)."""
        arrived_ms = wall_ms()
        endpoint = request.path_params["path"]
        ip = request.client.host if request.client else "127.0.0.1"
        corp_id = ""
        try:
            if endpoint == "gettoken":
                corp_id = request.query_params.get("corpid", "")
                body = await self._gettoken(request, ip)
            else:
                corp_id, body = await self._authorised(request, endpoint, ip)
            errcode = 0
            body = {"errcode": 0, "errmsg": "ok", **body}
        except _Refusal as refusal:
            corp_id = refusal.corp_id
            errcode, body = refusal.error.errcode, self._error(refusal.error, ip)
        except ApiError as error:
            errcode, body = error.errcode, self._error(error, ip)
        known = endpoint == "gettoken" or endpoint in self._simulation.endpoints.table()
        # A path or corp id from outside must not become a name without end in a counter.
        self._record(
            RecordedCall(arrived_ms, endpoint if known else f"unknown:{endpoint[:100]}", corp_id[:64], errcode)
        )
        self._metrics.calls.labels(endpoint if known else "unknown", str(errcode)).inc()
        return Response(
            msgspec.json.encode(body),
            media_type="application/json; charset=UTF-8",
            headers={"error-code": str(errcode), "error-msg": TEXTS[errcode]},
        )

    async def _gettoken(self, request: Request, ip: str) -> dict[str, Any]:
        now = time.monotonic()
        corp_id = request.query_params.get("corpid", "")
        secret = request.query_params.get("corpsecret", "")
        self._throttle.count("ip:" + ip, "gettoken", now)
        self._throttle.check_banned(ip, now)
        if request.method != "GET":
            raise ApiError(43001)
        if not corp_id:
            raise ApiError(41002)
        if not secret:
            raise ApiError(41004)
        await self._work()
        try:
            token, seconds = self.tokens.issue(corp_id, secret, now)
        except ApiError as error:
            if error.errcode == 40001:
                self._throttle.wrong_secret(ip, now)
            raise
        self._throttle.count("corp:" + corp_id, "gettoken", now, debug=request.query_params.get("debug") == "1")
        return {"access_token": token, "expires_in": seconds}

    async def _authorised(self, request: Request, endpoint: str, ip: str) -> tuple[str, dict[str, Any]]:
        now = time.monotonic()
        table = self._simulation.endpoints.table()
        if endpoint not in table:
            raise ApiError(48002)
        method, handler = table[endpoint]
        self._throttle.count("ip:" + ip, endpoint, now)
        corp_id = self.tokens.corp_of(request.query_params.get("access_token"), now)
        try:
            self._throttle.count("corp:" + corp_id, endpoint, now, debug=request.query_params.get("debug") == "1")
            if request.method != method:
                raise ApiError(43001 if method == "GET" else 43002)
            self._throttle.enter("corp:" + corp_id, endpoint)
            try:
                body = await self._body(request) if method == "POST" else {}
                await self._work()
                call = Call(corp_id, request.query_params, body, self._simulation.now_ms, time.time())
                return corp_id, handler(call)
            finally:
                self._throttle.leave("corp:" + corp_id, endpoint)
        except ApiError as error:
            raise _Refusal(corp_id, error) from None

    async def _body(self, request: Request) -> dict[str, Any]:
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > self._settings.body_limit_bytes:
                raise ApiError(40206)
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise ApiError(40035, wrong_format=True) from None
        if not isinstance(body, dict):
            raise ApiError(40035, wrong_format=True)
        return body

    async def _work(self) -> None:
        """The time the platform takes."""
        if self._settings.latency_milliseconds:
            await asyncio.sleep(self._latency.uniform(0, self._settings.latency_milliseconds) / 1000)

    def _error(self, error: ApiError, ip: str) -> dict[str, Any]:
        self._serial += 1
        return error_body(error, serial=self._serial, time_s=wall_ms() // 1000, ip=ip)

    def _record(self, call: RecordedCall) -> None:
        self.calls.append(call)
        self.call_counts[call.endpoint if not call.endpoint.startswith("unknown:") else "unknown", call.errcode] += 1


class _Refusal(Exception):
    """An error of a call whose corp is known."""

    def __init__(self, corp_id: str, error: ApiError) -> None:
        super().__init__(str(error))
        self.corp_id = corp_id
        self.error = error


class Control:
    """``/_sim/…``: start, status, truth and the calls received."""

    def __init__(self, platform: Platform, simulation: Simulation) -> None:
        self._platform = platform
        self._simulation = simulation
        self.playing: asyncio.Task[None] | None = None
        self.begun = asyncio.Event()

    async def start(self, request: Request) -> Response:
        """Begins the scenario; 409 when it has begun already, or cannot at this time of the clock."""
        try:
            self.begin()
        except (NotIdle, CannotPlay) as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        return JSONResponse({"state": self._simulation.state})

    def begin(self) -> None:
        """Raises NotIdle or CannotPlay."""
        self._simulation.begin()
        self.playing = asyncio.create_task(self._simulation.play())
        self.begun.set()

    async def status(self, request: Request) -> Response:
        totals: Counter[str] = Counter()
        for (endpoint, _), count in self._platform.call_counts.items():
            totals[endpoint] += count
        return JSONResponse(self._simulation.status(totals))

    async def truth(self, request: Request) -> Response:
        """404 until the scenario has begun; whole from the begin on, final when it is done."""
        if self._simulation.state == "idle":
            return JSONResponse({"error": "the scenario has not begun: POST /_sim/start"}, status_code=404)
        return Response(msgspec.json.encode(self._simulation.truth()), media_type="application/json")

    async def calls(self, request: Request) -> Response:
        """Calls in order of arrival; ``endpoint``, ``errcode`` and ``since_ms`` (wall time) select."""
        wanted = request.query_params
        try:
            since_ms, errcode = int(wanted.get("since_ms", 0)), int(wanted["errcode"]) if "errcode" in wanted else None
        except ValueError:
            return JSONResponse({"error": "since_ms and errcode are whole numbers"}, status_code=400)
        chosen = [
            call
            for call in self._platform.calls
            if call.time_ms >= since_ms
            and wanted.get("endpoint", call.endpoint) == call.endpoint
            and (errcode is None or call.errcode == errcode)
        ]
        counts: dict[str, dict[str, int]] = {}
        for (endpoint, code), count in sorted(self._platform.call_counts.items()):
            counts.setdefault(endpoint, {})[str(code)] = count
        return Response(msgspec.json.encode({"counts": counts, "calls": chosen}), media_type="application/json")


def build_app(platform: Platform, control: Control) -> Starlette:
    """The routes."""

    async def platform_answer(request: Request) -> Response:
        try:
            return await platform.answer(request)
        except ClientDisconnect:
            # The caller left before its body was complete: nobody is there to be answered.
            return Response(status_code=400)

    return Starlette(
        routes=[
            Route("/_sim/start", control.start, methods=["POST"]),
            Route("/_sim/status", control.status),
            Route("/_sim/truth", control.truth),
            Route("/_sim/calls", control.calls),
            Route("/cgi-bin/{path:path}", platform_answer, methods=_ANY_METHOD),
        ]
    )
