"""The HTTP side: ``/cgi-bin/…`` is the platform, ``/_sim/…`` controls and observes it. Never a 500 for bad input."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulator.platform.gateway import PREFIX, Gateway, Receive, Scope, Send
from simulator.scenario import CannotPlay
from simulator.simulation import NotIdle, Simulation


class Control:
    """``/_sim/…``: start, status, truth and the calls received."""

    def __init__(self, gateway: Gateway, simulation: Simulation) -> None:
        self.gateway = gateway
        self.simulation = simulation
        self.playing: asyncio.Task[None] | None = None
        self.begun = asyncio.Event()

    async def start(self, request: Request) -> Response:
        """Begins the scenario; 409 when it has begun already, or cannot at this time of the clock."""
        try:
            self.begin()
        except (NotIdle, CannotPlay) as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        return JSONResponse({"state": self.simulation.state})

    def begin(self) -> None:
        """Raises NotIdle or CannotPlay."""
        self.simulation.begin()
        self.playing = asyncio.create_task(self.simulation.play())
        self.begun.set()

    async def status(self, request: Request) -> Response:
        totals: Counter[str] = Counter()
        for (endpoint, _), count in self.gateway.call_counts.items():
            totals[endpoint] += count
        return JSONResponse(self.simulation.status(totals))

    async def truth(self, request: Request) -> Response:
        """404 until the scenario has begun; then what has happened so far, final when it is done."""
        if self.simulation.state == "idle":
            return JSONResponse({"error": "the scenario has not begun: POST /_sim/start"}, status_code=404)
        return Response(msgspec.json.encode(self.simulation.truth()), media_type="application/json")

    async def calls(self, request: Request) -> Response:
        """Calls in order of arrival; ``endpoint``, ``errcode`` and ``since_ms`` (wall time) select."""
        wanted = request.query_params
        try:
            since_ms, errcode = int(wanted.get("since_ms", 0)), int(wanted["errcode"]) if "errcode" in wanted else None
        except ValueError:
            return JSONResponse({"error": "since_ms and errcode are whole numbers"}, status_code=400)
        chosen = [
            call
            for call in self.gateway.calls
            if call.time_ms >= since_ms
            and wanted.get("endpoint", call.endpoint) == call.endpoint
            and (errcode is None or call.errcode == errcode)
        ]
        counts: dict[str, dict[str, int]] = {}
        for (endpoint, code), count in sorted(self.gateway.call_counts.items()):
            counts.setdefault(endpoint, {})[str(code)] = count
        return Response(msgspec.json.encode({"counts": counts, "calls": chosen}), media_type="application/json")


def build_app(control: Control) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI application."""
    console = Starlette(
        routes=[
            Route("/_sim/start", control.start, methods=["POST"]),
            Route("/_sim/status", control.status),
            Route("/_sim/truth", control.truth),
            Route("/_sim/calls", control.calls),
        ]
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            # A framework's routing and request objects would cost more than the answer.
            await control.gateway(scope, receive, send)
        else:
            await console(scope, receive, send)  # type: ignore[arg-type]

    return app
