"""The HTTP side: ``/cgi-bin/…`` is the platform, ``/v3/…`` WeChat Pay, ``/_sim/…`` controls and observes both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette

from simulator.control.routes import Control
from simulator.pay.app import PREFIX as PAY_PREFIX
from simulator.platform.gateway import PREFIX, Receive, Scope, Send

__all__ = ["Control", "build_app"]


Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def build_app(control: Control) -> Application:
    """The ASGI application."""
    console = Starlette(routes=control.routes())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            # A framework's routing and request objects would cost more than the answer.
            await control.gateway(scope, receive, send)
        elif control.pay is not None and scope["type"] == "http" and scope["path"].startswith(PAY_PREFIX):
            await control.pay(scope, receive, send)
        else:
            await console(scope, receive, send)  # type: ignore[arg-type]

    return app
