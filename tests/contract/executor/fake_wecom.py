"""A scripted WeCom on loopback, over real HTTP: what each endpoint answers is said call by call."""

import asyncio
import json
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Raw:
    """An answer that is not WeCom's."""

    body: bytes
    status: int = 200
    content_type: str = "text/html"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wire:
    """These bytes and nothing else, then the connection is closed."""

    content: bytes


@dataclass(frozen=True)
class Twice:
    """An answer, and a while later another one that nobody asked for."""

    body: dict[str, Any]
    unasked: dict[str, Any]
    seconds: float = 0.02


@dataclass(frozen=True)
class Drip:
    """The head of an answer, then a byte of its body now and then, for ever."""

    seconds: float


@dataclass(frozen=True)
class Drop:
    """Reads the request and closes the connection."""


@dataclass
class Hang:
    """Reads the request and answers only when released."""

    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Slow:
    """Answers after a while."""

    seconds: float
    body: dict[str, Any]


Scripted = dict[str, Any] | Raw | Wire | Twice | Drip | Drop | Hang | Slow
Reply = Scripted | Callable[["Call"], Scripted]


@dataclass
class Call:
    """One request as it arrived."""

    path: str
    method: str
    query: dict[str, str]
    body: dict[str, Any] | None
    headers: dict[str, str]
    at: float


class FakeWecom:
    """`on(path, reply, …)`: replies in turn, the last one for ever. Tokens are checked unless a path is scripted
    to answer for itself."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.most_at_once: dict[str, int] = defaultdict(int)
        self.arrived = asyncio.Condition()
        self.tokens = 0
        self.valid: set[str] = set()
        self.expires_in = 7200
        self.base_url = ""
        self._script: dict[str, deque[Reply]] = {}
        self._at_once: dict[str, int] = defaultdict(int)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def on(self, path: str, *replies: Reply) -> None:
        self._script[path] = deque(replies)

    def called(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]

    async def wait_for_calls(self, path: str, count: int) -> None:
        async with self.arrived:
            await asyncio.wait_for(self.arrived.wait_for(lambda: len(self.called(path)) >= count), 30)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/cgi-bin"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n", 1)[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:])}
        length = int(headers.get("content-length", 0))
        content = await reader.readexactly(length) if length else b""
        parts = urlsplit(target)
        path = parts.path.removeprefix("/cgi-bin/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        call = Call(path, method, query, json.loads(content) if content else None, headers, time.monotonic())
        self._at_once[path] += 1
        self.most_at_once[path] = max(self.most_at_once[path], self._at_once[path])
        try:
            async with self.arrived:
                self.calls.append(call)
                self.arrived.notify_all()
            reply = await self._reply(call)
        finally:
            self._at_once[path] -= 1
        match reply:
            case Drop():
                return False
            case Wire(content):
                writer.write(content)
                await writer.drain()
                return False
            case Drip(seconds):
                writer.write(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
                while True:
                    await asyncio.sleep(seconds)
                    writer.write(b" ")
                    await writer.drain()
            case Twice(body, unasked, seconds):
                writer.write(_answer(body))
                await asyncio.sleep(seconds)
                writer.write(_answer(unasked))
            case _:
                writer.write(_answer(reply))
        await writer.drain()
        return True

    async def _reply(self, call: Call) -> dict[str, Any] | Raw | Wire | Twice | Drip | Drop:
        script = self._script.get(call.path)
        if call.path == "gettoken" and script is None:
            return self._issue()
        if call.path != "gettoken" and call.query.get("access_token") not in self.valid:
            return {"errcode": 40014, "errmsg": "invalid access_token"}
        if script is None:
            return {"errcode": 0, "errmsg": "ok"}
        reply = script.popleft() if len(script) > 1 else script[0]
        if callable(reply):
            reply = reply(call)
        if isinstance(reply, Hang):
            await reply.released.wait()
            return {"errcode": 0, "errmsg": "ok"}
        if isinstance(reply, Slow):
            await asyncio.sleep(reply.seconds)
            return reply.body
        return reply

    def _issue(self) -> dict[str, Any]:
        self.tokens += 1
        token = f"token-{self.tokens}"
        self.valid.add(token)
        return {"errcode": 0, "errmsg": "ok", "access_token": token, "expires_in": self.expires_in}


def _answer(reply: dict[str, Any] | Raw) -> bytes:
    if not isinstance(reply, Raw):
        reply = Raw(json.dumps(reply).encode(), content_type="application/json; charset=UTF-8")
    head = [
        f"HTTP/1.1 {reply.status} X",
        f"Content-Type: {reply.content_type}",
        f"Content-Length: {len(reply.body)}",
        *reply.headers,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + reply.body
