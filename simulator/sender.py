"""Many small HTTP/1.1 requests to few origins, over connections that are kept: what callbacks and load are sent with.

A request is one write, an answer goes straight into a parser; no redirects, cookies, proxies, compression or retries of
what was answered. Only one thing is tried twice: a request on a kept connection that the peer had closed meanwhile,
when not one byte of an answer was read (a server may close an idle connection at any time). Nothing is raised for
what the network or the peer does: an :class:`Answer` has a status or a reason.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Literal, NamedTuple, Protocol, cast
from urllib.parse import quote, urlsplit

import httptools

Failure = Literal["", "timeout", "unreachable", "broken"]
"""No failure; not answered in time; no connection; a connection that ended early or did not speak HTTP."""

# Overdue requests are looked for this often, not timed one by one: a timer each would cost as much as the parser.
_SWEEP_S = 0.05
_BODY_KEPT = 64 * 1024


class BadUrl(ValueError):
    """A URL nothing can be sent to; says why."""


class Answer(NamedTuple):
    """``status`` 0 means none came, for the reason in ``failure``. ``body``: only where it was asked for."""

    status: int
    body: bytes = b""
    failure: Failure = ""


class Origin(NamedTuple):
    """Where connections lead."""

    secure: bool
    host: str
    port: int


class Target:
    """A URL taken apart once. Its own query parameters stay in front of those of each request (fact sheet 1.1)."""

    __slots__ = ("_get", "_lines", "_post", "origin", "url")

    def __init__(self, url: str, *, content_type: str = "text/xml") -> None:
        """Raises BadUrl."""
        try:
            parts = urlsplit(url)
            port, host = parts.port, (parts.hostname or "").encode("idna").decode()
        except (ValueError, UnicodeError):
            raise BadUrl(f"{url!r} is no URL") from None
        if parts.scheme not in ("http", "https") or not host:
            raise BadUrl(f"{url!r}: http:// or https:// and a host are needed")
        if parts.username is not None:
            raise BadUrl(f"a URL for {host} has a user name in it: that is not sent")
        secure = parts.scheme == "https"
        self.url = url
        self.origin = Origin(secure, host, port or (443 if secure else 80))
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
        name = f"[{host}]" if ":" in host else host
        shown = name if port is None else f"{name}:{port}"
        mark = f"{path}?{query}&" if query else f"{path}?"
        self._get, self._post = f"GET {mark}", f"POST {mark}"
        self._lines = f" HTTP/1.1\r\nHost: {shown}\r\nContent-Type: {content_type}\r\nContent-Length: "

    def post(self, query: str, body: bytes) -> bytes:
        """A POST as it goes out. ``query`` is encoded already."""
        return f"{self._post}{query}{self._lines}{len(body)}\r\n\r\n".encode("ascii") + body

    def get(self, query: str) -> bytes:
        """A GET as it goes out."""
        host = self._lines.partition("\r\nContent-Type")[0]
        return f"{self._get}{query}{host}\r\n\r\n".encode("ascii")


class Posts(Protocol):
    """What a deliverer needs of a sender."""

    async def post(self, target: Target, query: str, body: bytes, *, timeout_s: float) -> Answer:
        """One request and what became of it; never raises for the peer's or the network's doing."""
        ...

    async def close(self) -> None:
        """Ends every connection."""
        ...


class Sender:
    """A pool of connections; at most ``concurrency`` requests are under way, more wait in line. One event loop."""

    def __init__(self, *, concurrency: int = 32, tls: ssl.SSLContext | None = None) -> None:
        """``tls``: for https with certificates that the machine does not trust by itself."""
        self._concurrency = concurrency
        self._tls = tls
        self._slots = asyncio.Semaphore(concurrency)
        self._idle: dict[Origin, list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._busy: set[_Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def post(self, target: Target, query: str, body: bytes, *, timeout_s: float) -> Answer:
        """POSTs; the answer's body is read and forgotten."""
        return await self.exchange(target.origin, target.post(query, body), timeout_s=timeout_s)

    async def get(self, target: Target, query: str, *, timeout_s: float) -> Answer:
        """GETs; the answer's body is kept, 64 KiB of it at most."""
        return await self.exchange(target.origin, target.get(query), timeout_s=timeout_s, keep_body=True)

    async def exchange(self, origin: Origin, message: bytes, *, timeout_s: float, keep_body: bool = False) -> Answer:
        """One request as it is, and its answer. ``timeout_s``: wall time from connecting to the answer's last byte."""
        async with self._slots:
            if self._closed:
                return Answer(0, failure="broken")
            loop = asyncio.get_running_loop()
            deadline = loop.time() + timeout_s
            connection = self._kept(origin)
            if connection is not None:
                answer = await connection.exchange(message, deadline, keep_body)
                if answer is not _STALE:
                    return answer
            try:
                async with asyncio.timeout_at(deadline):
                    connection = await self._connect(origin)
            except TimeoutError:
                return Answer(0, failure="timeout")
            except (OSError, UnicodeError):
                return Answer(0, failure="unreachable")
            return await connection.exchange(message, deadline, keep_body)

    async def close(self) -> None:
        """Ends every connection at once; requests under way end as broken."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.abort("broken")
        # Transports tell their protocols one turn of the loop later.
        await asyncio.sleep(0)

    def _kept(self, origin: Origin) -> _Connection | None:
        """The connection used last: those that are not needed grow old and are closed by the peer."""
        kept = self._idle.get(origin)
        while kept:
            connection = kept.pop()
            if not connection.closing:
                return connection
        return None

    async def _connect(self, origin: Origin) -> _Connection:
        if len(self._open) >= self._concurrency:
            oldest = next((kept[0] for kept in self._idle.values() if kept), None)
            if oldest is not None:
                oldest.abort("broken")
        tls = (self._tls or _default_tls()) if origin.secure else None
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self),
            origin.host,
            origin.port,
            ssl=tls,
            server_hostname=origin.host if origin.secure else None,
        )
        connection.origin = origin
        return connection

    # What connections tell their pool.

    def opened(self, connection: _Connection) -> None:
        """A connection is there."""
        self._open.add(connection)

    def began(self, connection: _Connection) -> None:
        """A request is under way: from now on somebody looks whether it is overdue."""
        self._busy.add(connection)
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            wait = min(_SWEEP_S, max(connection.deadline - loop.time(), 0.001))
            self._sweeper = loop.call_later(wait, self._sweep)

    def ended(self, connection: _Connection, *, reusable: bool) -> None:
        """A request is over."""
        self._busy.discard(connection)
        if reusable and not self._closed:
            self._idle.setdefault(connection.origin, []).append(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        self._busy.discard(connection)
        kept = self._idle.get(connection.origin)
        if kept is not None and connection in kept:
            kept.remove(connection)

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [c for c in self._busy if c.deadline <= now]:
            connection.abort("timeout")
        if self._busy:
            # A request may be allowed less time than lies between two looks.
            first = min(connection.deadline for connection in self._busy)
            self._sweeper = loop.call_later(min(_SWEEP_S, max(first - now, 0.001)), self._sweep)


_STALE = Answer(0, b"stale", "broken")
_NOWHERE = Origin(False, "", 0)


def _default_tls() -> ssl.SSLContext:
    global _tls
    if _tls is None:
        _tls = ssl.create_default_context()
    return _tls


_tls: ssl.SSLContext | None = None


class _Connection(asyncio.Protocol):
    """One connection and at most one request on it. The parser calls the ``on_…`` methods."""

    __slots__ = (
        "_answer",
        "_body",
        "_framed",
        "_keep_body",
        "_parser",
        "_pool",
        "_reused",
        "_status",
        "_touched",
        "_transport",
        "deadline",
        "origin",
    )

    def __init__(self, pool: Sender) -> None:
        self.origin = _NOWHERE
        self.deadline = 0.0
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._reused = False
        self._touched = False
        self._status = 0
        self._framed = False
        self._keep_body = False
        self._body = b""

    @property
    def closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def exchange(self, message: bytes, deadline: float, keep_body: bool) -> Answer:
        """The answer, or ``_STALE`` when the peer had closed a kept connection before it read anything."""
        if self._transport is None:
            return _STALE if self._reused else Answer(0, failure="broken")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self.deadline = deadline
        self._keep_body = keep_body
        self._body = b""
        self._touched = False
        self._status = 0
        self._pool.began(self)
        self._transport.write(message)
        try:
            return await answer
        except asyncio.CancelledError:
            self.abort("broken")
            raise

    def abort(self, failure: Failure) -> None:
        """Ends the connection and whatever is under way on it."""
        self._end(Answer(0, failure=failure), reusable=False)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
            self._pool.lost(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of the kind without inheriting from it.
        self._transport = cast(asyncio.Transport, transport)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            # Nobody asked: a server's farewell (408) or noise.
            self.abort("broken")
            return
        self._touched = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort("broken")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._answer is not None:
            if self._reused and not self._touched:
                self._end(_STALE, reusable=False)
            elif self._status >= 200 and not self._framed and error is None:
                # Neither a length nor chunks: such a body ends with the connection.
                self._end(Answer(self._status, self._body), reusable=False)
            else:
                self._end(Answer(0, failure="broken"), reusable=False)
        self._pool.lost(self)

    def on_message_begin(self) -> None:
        self._status = 0
        self._framed = False
        if self._answer is None:
            self.abort("broken")  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._keep_body and len(self._body) < _BODY_KEPT:
            self._body = (self._body + body)[:_BODY_KEPT]

    def on_message_complete(self) -> None:
        if self._status < 200:
            return  # 100 Continue and the like: the answer is still to come
        reusable = self._parser.should_keep_alive() and not self.closing
        self._reused = True
        self._end(Answer(self._status, self._body), reusable=reusable)
        if not reusable and self._transport is not None:
            self._transport.close()

    def _end(self, result: Answer, *, reusable: bool) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            return
        self._pool.ended(self, reusable=reusable)
        if not answer.done():
            answer.set_result(result)
