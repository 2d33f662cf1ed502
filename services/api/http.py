"""The API as an ASGI application: every request ends in one answer, in bounded memory and time.

A request is refused before any work is done for it: unknown path, too many at once, no token, role, size, form, in
this order. Handlers run in threads, as many as may be in flight. Every refusal has one form (ErrorAnswer). The log has
one line for each operator's word, with the token's name and without the reason's text or anything of a customer;
tokens and query strings are never logged.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from services.api import actions, limits, openapi
from services.api.metrics import ApiMetrics
from services.api.routes import Call, ErrorAnswer, Forbidden, Problem, Route, World
from siyu.actions.errors import ActionsError, Invalid, NotFound, Refused, Unavailable
from siyu.ops.api_tokens import Principal, TokenFile
from siyu.ops.logging import get_logger

MAX_BODY_BYTES = 64 * 1024
BODY_WITHIN_SECONDS = 10.0
ROUTES: tuple[Route, ...] = (*actions.ROUTES, *limits.ROUTES)
OPENAPI = "openapi"
_NOWHERE = "none"
_JSON = "application/json"

Endpoint = Callable[[Request], Awaitable[Response]]


class _Stop(Exception):
    """The request ends here with this status and problem."""

    def __init__(self, status: int, code: str, message: str, *, field: str | None = None, **headers: str) -> None:
        super().__init__(code)
        self.status = status
        self.problem = Problem(code=code, message=message, field=field)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Api:
    """Builds :attr:`app`."""

    def __init__(
        self,
        world: World,
        tokens: TokenFile,
        metrics: ApiMetrics,
        *,
        max_in_flight: int,
        routes: Sequence[Route] = ROUTES,
    ) -> None:
        self._world = world
        self._tokens = tokens
        self._metrics = metrics
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._threads: CapacityLimiter | None = None
        self._log = get_logger()
        self._document = json.dumps(openapi.document(routes), ensure_ascii=False).encode()
        self.app = Starlette(
            routes=[
                HttpRoute("/openapi.json", self._openapi, methods=["GET"]),
                *(HttpRoute(r.path, self._endpoint(r), methods=[r.method]) for r in _specific_first(routes)),
            ],
            exception_handlers={HTTPException: self._no_route},
        )

    async def _openapi(self, _: Request) -> Response:
        self._metrics.requests.labels(OPENAPI, "200").inc()
        return Response(self._document, media_type=_JSON)

    async def _no_route(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        code, message = {
            404: ("no_such_path", "no such path; /openapi.json has all there are"),
            405: ("wrong_method", "this path has other methods; /openapi.json has them"),
        }.get(status, ("refused", "the request cannot be served"))
        self._metrics.requests.labels(_NOWHERE, str(status)).inc()
        headers = dict(getattr(error, "headers", None) or {})
        return _refusal(_Stop(status, code, message), headers)

    def _endpoint(self, route: Route) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            began = time.monotonic()
            self._in_flight += 1
            self._metrics.in_flight.set(self._in_flight)
            try:
                response = await self._answer(route, request)
            finally:
                self._in_flight -= 1
                self._metrics.in_flight.set(self._in_flight)
            self._metrics.requests.labels(route.name, str(response.status_code)).inc()
            self._metrics.seconds.labels(route.name).observe(time.monotonic() - began)
            return response

        return endpoint

    async def _answer(self, route: Route, request: Request) -> Response:
        who: Principal | None = None
        try:
            if self._in_flight > self._max_in_flight:
                raise _Stop(503, "overloaded", "too many requests at once; try again", Retry_After="1")
            who = self._who(request)
            if not who.may(route.role):
                raise Forbidden(route.role)
            call = Call(
                self._world,
                who,
                {name: _path_id(name, str(value)) for name, value in request.path_params.items()},
                _query(route, request),
                await _body(route, request),
            )
            if self._threads is None:
                self._threads = CapacityLimiter(self._max_in_flight)
            answer = await to_thread.run_sync(route.handle, call, limiter=self._threads)
        except Exception as error:  # the rim: whatever it is becomes an answer
            stop = _stop_of(error)
            if stop.status == 500:
                self._log.error("defect", operation=route.name, exc_info=error)
            self._tell(route, who, request, stop.status, stop.problem.code)
            return _refusal(stop)
        self._tell(route, who, request, route.status, "")
        if route.writes:
            self._metrics.writes.labels(route.name).inc()
        return Response(
            msgspec.json.encode(answer), route.status, media_type=_JSON, headers={"Cache-Control": "no-store"}
        )

    def _who(self, request: Request) -> Principal:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        who = self._tokens.who(token.strip()) if scheme.lower() == "bearer" else None
        self._metrics.tokens.set(len(self._tokens))
        if who is None:
            raise _Stop(
                401,
                "no_token",
                "a token in force is needed: Authorization: Bearer …; `siyu api-token` makes one",
                WWW_Authenticate="Bearer",
            )
        return who

    def _tell(self, route: Route, who: Principal | None, request: Request, status: int, reason: str) -> None:
        """One line for each operator's word, taken or not, and for each customer's name somebody asked for."""
        people = request.query_params.get("people") == "true"
        if who is None or not (route.writes or people):
            return
        self._log.info(
            "operator_asked",
            operation=route.name,
            author=who.name,
            action_id=str(request.path_params.get("action_id", ""))[:64],
            status=status,
            reason=reason,
        )


def _specific_first(routes: Sequence[Route]) -> list[Route]:
    """A fixed path before one with a parameter in the same place."""
    return sorted(routes, key=lambda route: [("{" in part, part) for part in route.path.split("/")])


def _path_id(name: str, value: str) -> str:
    if not 0 < len(value) <= 200:
        raise Invalid(name, "an id has 1 to 200 characters")
    return value


def _query(route: Route, request: Request) -> Any:
    pairs = request.query_params.multi_items()
    known = set() if route.query is None else set(route.query.__struct_fields__)
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise Invalid(name[:64], "no such parameter")
        if name in given:
            raise Invalid(name, "given twice")
        given[name] = value
    if route.query is None:
        return None
    return _convert(lambda: msgspec.convert(given, route.query, strict=False))


async def _body(route: Route, request: Request) -> Any:
    if route.body is None:
        return None
    of = route.body
    content = bytearray()
    declared = request.headers.get("Content-Length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(BODY_WITHIN_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise _Stop(408, "body_too_slow", "the body did not arrive in time") from None
    except ClientDisconnect:
        raise _Stop(408, "body_incomplete", "the connection ended before the body") from None
    return _convert(lambda: msgspec.json.decode(content, type=of))


def _too_large() -> _Stop:
    return _Stop(413, "body_too_large", f"a body has at most {MAX_BODY_BYTES} bytes", Connection="close")


def _convert(parse: Callable[[], Any]) -> Any:
    """Raises Invalid with the field's name."""
    try:
        return parse()
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `")
        field = place.rstrip("`").removeprefix("$").lstrip(".")
        if not field and "field `" in text:
            # "Object missing required field `reason`", "… contains unknown field `x`"
            field = text.rsplit("`", 2)[1]
        raise Invalid(field[:64], text) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Invalid("", "the body is not JSON") from None


def _stop_of(error: Exception) -> _Stop:
    match error:
        case _Stop():
            return error
        case Forbidden(needed=needed):
            return _Stop(403, "role_too_low", f"this needs a token with the role {needed}")
        case Invalid(code=code, field=field):
            return _Stop(422, code, str(error), field=field or None)
        case NotFound(code=code):
            return _Stop(404, code, str(error))
        case Refused(code=code):
            return _Stop(409, code, str(error))
        case Unavailable(code=code, retry_after_s=seconds):
            return _Stop(503, code, str(error), Retry_After=str(seconds))
        case ActionsError(code=code):
            return _Stop(409, code, str(error))
        case _:
            return _Stop(500, "defect", "a defect of ours; the log says where")


def _refusal(stop: _Stop, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(ErrorAnswer(error=stop.problem)),
        stop.status,
        media_type=_JSON,
        headers={"Cache-Control": "no-store", **stop.headers, **(headers or {})},
    )
