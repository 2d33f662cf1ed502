"""The HTTP side: ``/cgi-bin/…`` is the platform, ``/_sim/…`` controls and observes it. Never a 500 for bad input."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette

from simulator.control.routes import Control
from simulator.platform.gateway import PREFIX, Receive, Scope, Send

__all__ = ["Control", "build_app"]


def build_app(control: Control) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI application."""
    console = Starlette(routes=control.routes())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            # A framework's routing and request objects would cost more than the answer.
            await control.gateway(scope, receive, send)
        else:
            await console(scope, receive, send)  # type: ignore[arg-type]

    return app
