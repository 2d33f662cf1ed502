"""A platform that answers every call at once with success and counts them: what a caller costs is then its own.

Run as a process of its own: ``python benchmarks/harness/stub.py``. Prints its port, ends when its input does.
``GET /_stub`` tells the calls so far by path.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import cast

import httptools
import uvloop

_COUNTS = "/_stub"
_TOKEN = {"errcode": 0, "errmsg": "ok", "access_token": "t" * 160, "expires_in": 7_200}


def _answer(body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


_OK = _answer({"errcode": 0, "errmsg": "ok"})
_GIVEN = _answer(_TOKEN)

calls: Counter[str] = Counter()


class Stub(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.partition(b"?")[0].decode()

    def on_message_complete(self) -> None:
        path = self._path
        if path == _COUNTS:
            self._transport.write(_answer(calls))
            return
        calls[path] += 1
        self._transport.write(_GIVEN if path.endswith("/gettoken") else _OK)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Stub, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
