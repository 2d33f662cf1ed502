"""The HTTP side of WeCom: documented endpoints only, and every call ends in a typed result that says what may have
happened.

    Answer     WeCom answered; ``errcode`` says how (fact: HTTP status is 200 even on business errors)
    TooLarge   WeCom answered, with more than we are willing to hold
    NotSent    no byte of the request left this process: repeating it is safe for every endpoint
    Unknown    the request may have been carried out: repeat it only where a repeat is harmless

Nothing here raises for a remote failure, retries, follows a redirect, keeps a cookie, takes a proxy from the
environment or logs. A request is written at most once, and only if its caller still wants it in that moment. The
access token travels in the query string, as WeCom wants it, so no URL and no exception of the HTTP library may be
logged or passed on: their texts hold it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError

from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN, Endpoint

MAX_RESPONSE_BYTES = 7 << 20
"""An answer travels in an outcome, whose topic takes 8 MiB; a page of 1000 bills is about 1 MiB."""
_KEPT_IDLE_S = 5.0
"""An idle connection is given up before the other side may: a request on one that is just being closed ends as
Unknown, and what creates something is then in doubt."""
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """WeCom's answer. ``body`` is its JSON, byte for byte. ``seconds``: wall time of the call, as in every result."""

    errcode: int
    body: bytes
    seconds: float


@dataclass(frozen=True)
class TooLarge:
    """An answer above the size we hold; asking again would bring the same."""

    seconds: float


@dataclass(frozen=True)
class NotSent:
    """No byte of the request left. ``reason``: too_late (``may_start`` said no), no_free_connection, connect_timeout,
    connection_refused (name unknown and TLS failures too), connection_broken."""

    reason: str
    seconds: float


@dataclass(frozen=True)
class Unknown:
    """No usable answer, but the request may have been carried out. ``reason``: timeout, connection_broken, not_wecom or
    ``http_<status>``."""

    reason: str
    seconds: float


Result = Answer | TooLarge | NotSent | Unknown


class _Head(msgspec.Struct):
    """What every answer has. Absent errcode means success."""

    errcode: int = 0


_head = msgspec.json.Decoder(_Head)


def _always() -> bool:
    return True


class WecomClient:
    """Calls WeCom. One instance per process, made inside a running loop; close it with ``async with``."""

    def __init__(
        self, base_url: str, *, max_connections: int = 200, max_response_bytes: int = MAX_RESPONSE_BYTES
    ) -> None:
        """``base_url`` ends in ``/cgi-bin``. Raises ValueError if it is no http(s) URL of a host."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not the http(s) URL of a host: {base_url}")
        self._base_url = base_url.rstrip("/")
        self._max_response_bytes = max_response_bytes
        # Ours and not the connector's: a call that waits for a connection must be told from one that connects.
        self._connections = asyncio.Semaphore(max_connections)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_IDLE_S),
            # The deadline of a call is set in _request: aiohttp rounds its own up to a whole second.
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def call(
        self,
        endpoint: Endpoint,
        access_token: str,
        payload: bytes,
        timeout_seconds: float,
        may_start: Callable[[], bool] = _always,
    ) -> Result:
        """One call. ``payload`` is a JSON object: the body of a POST, the parameters of a GET. ``timeout_seconds``:
        wall time for all of it, from here to the answer's last byte. Raises ValueError for an endpoint that is not one
        of :data:`siyu.wecom.endpoints.ENDPOINTS`: nobody makes up a call of his own.

        ``may_start`` is asked once, with a connection in hand and right before the request is written to it; if it says
        no, the result is ``NotSent("too_late")``. A process that stood still while its request waited for a connection
        learns there that its reservation has run out.
        """
        if ENDPOINTS.get(endpoint.path) is not endpoint:
            raise ValueError(f"not a documented endpoint: {endpoint.path}")
        query = f"access_token={quote(access_token, safe='')}"
        if endpoint.method == "GET":
            fields: dict[str, object] = msgspec.json.decode(payload, type=dict[str, object])
            query += "".join(
                f"&{quote(name, safe='')}={quote(str(value), safe='')}"
                for name, value in fields.items()
                if value is not None
            )
            return await self._request("GET", endpoint.path, query, None, timeout_seconds, may_start)
        return await self._request("POST", endpoint.path, query, payload, timeout_seconds, may_start)

    async def get_token(
        self, corp_id: str, secret: str, timeout_seconds: float, may_start: Callable[[], bool] = _always
    ) -> Result:
        """``gettoken``: for the owner of the tokens only. ``may_start`` as in :meth:`call`."""
        query = f"corpid={quote(corp_id, safe='')}&corpsecret={quote(secret, safe='')}"
        return await self._request("GET", GETTOKEN, query, None, timeout_seconds, may_start)

    async def _request(
        self,
        method: str,
        path: str,
        query: str,
        content: bytes | None,
        timeout_seconds: float,
        may_start: Callable[[], bool],
    ) -> Result:
        started = time.monotonic()
        gate = _Gate(may_start)
        url = f"{self._base_url}/{path}?{query}"
        connecting = False
        asked = _gate.set(gate)
        try:
            # The sum over all reads counts, not the pause between two of them: a drip-feeding server must not hold
            # a slot.
            async with asyncio.timeout(timeout_seconds), self._connections:
                connecting = True
                async with self._http.request(
                    method, url, data=content, headers=_JSON if content is not None else None, allow_redirects=False
                ) as response:
                    if response.status != 200:
                        return Unknown(f"http_{response.status}", time.monotonic() - started)
                    body = bytearray()
                    async for chunk in response.content.iter_any():
                        body += chunk
                        if len(body) > self._max_response_bytes:
                            return TooLarge(time.monotonic() - started)
        except TimeoutError:
            if gate.opened:
                return Unknown("timeout", time.monotonic() - started)
            return NotSent("connect_timeout" if connecting else "no_free_connection", time.monotonic() - started)
        except (aiohttp.ClientError, HttpProcessingError, OSError, _NotNowError) as error:
            seconds = time.monotonic() - started
            if gate.opened:
                return Unknown("connection_broken", seconds)
            if gate.refused:
                return NotSent("too_late", seconds)
            refused = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerFingerprintMismatch)
            return NotSent("connection_refused" if refused else "connection_broken", seconds)
        finally:
            _gate.reset(asked)
        seconds = time.monotonic() - started
        try:
            head = _head.decode(body)
        except msgspec.MsgspecError:
            return Unknown("not_wecom", seconds)
        return Answer(head.errcode, bytes(body), seconds)


class _NotNowError(Exception):
    """The request is not to be written: to no connection, or not to this one."""


class _Gate:
    """What one call's request passes right before it is written: once at most, whatever the library repeats."""

    __slots__ = ("_may_start", "opened", "refused")

    def __init__(self, may_start: Callable[[], bool]) -> None:
        self._may_start = may_start
        self.opened = False
        """The request may have left, if only in part."""
        self.refused = False

    def open(self) -> None:
        """Raises _NotNowError if the request was written before or is not wanted any more."""
        # aiohttp repeats a GET by itself when a connection it had used before turns out to be closed.
        if self.opened or self.refused:
            raise _NotNowError
        if not self._may_start():
            self.refused = True
            raise _NotNowError
        self.opened = True


_gate: ContextVar[_Gate] = ContextVar("gate")
"""The gate of the call under way, for the request that aiohttp makes of it."""


class _Request(aiohttp.ClientRequest):
    """Asks the gate between having a connection and writing to it: no earlier hook of aiohttp comes after the wait for
    a connection for both new and used ones."""

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Writes a request without a body at once; one with a body is written by ``write_bytes``."""
        protocol = conn.protocol
        # A used connection may hold bytes that came unasked: they would be taken for the answer to this request.
        if protocol is None or protocol.should_close:
            raise _NotNowError
        if not self.body and not protocol.writing_paused:
            _gate.get().open()
        return await super().send(conn)

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: aiohttp.connector.Connection, content_length: int | None = None
    ) -> None:
        """Writes head and body together, in a task of its own: aiohttp holds the head back until here."""
        try:
            _gate.get().open()
        except _NotNowError as error:
            if conn.protocol is not None:
                conn.protocol.set_exception(error)  # what the call waits on
            return
        await super().write_bytes(writer, conn, content_length)
