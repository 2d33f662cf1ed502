"""What one call to WeCom costs its caller: siyu.wecom.client beside other ways to make it, turn by turn in one run.

Every way POSTs the same tag change to a stub in a process of its own that answers at once (benchmarks/harness/stub.py),
so many calls in flight at once, and reads the answer into bytes under a deadline. ``aiohttp`` and ``httpx2`` are the
libraries as they are, the latter streaming the answer as the client did before; ``client`` is all of
``siyu.wecom.client.WecomClient``: the gate before the request, the bound on the answer, the parsed errcode. Each way
has its turn several times; the best of each counts. Prints JSON; times are of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import uvloop

from benchmarks.harness.processes import cpu_seconds, machine
from siyu.wecom.client import Answer, WecomClient
from siyu.wecom.endpoints import ENDPOINTS

_STUB = Path(__file__).with_name("harness") / "stub.py"
TAG = ENDPOINTS["externalcontact/mark_tag"]
TOKEN = "t" * 214
PAYLOAD = json.dumps(
    {"userid": "staff00001", "external_userid": "wmAJ2GCAAAXtWyujaWJHDDGi0mACH71w", "add_tag": ["etAJ2GCAAAXtWyujaWJ"]}
).encode()
DEADLINE_S = 10.0

Caller = Callable[[], Awaitable[None]]
Way = Callable[[str, int, Callable[[Caller], Awaitable[None]]], Coroutine[Any, Any, None]]


@contextmanager
def stub() -> Iterator[tuple[str, int]]:
    """The stub in a process of its own: base URL and process id."""
    process = subprocess.Popen([sys.executable, str(_STUB)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/cgi-bin", process.pid
    finally:
        process.stdin.close()
        process.wait(10)


def check(content: bytes, status: int = 200) -> None:
    if status != 200 or json.loads(content)["errcode"] != 0:
        raise RuntimeError("a call failed: the figures would mean nothing")


async def client(base: str, flights: int, use: Callable[[Caller], Awaitable[None]]) -> None:
    async with WecomClient(base, max_connections=flights) as wecom:

        async def call() -> None:
            result = await wecom.call(TAG, TOKEN, PAYLOAD, DEADLINE_S, lambda: True)
            if not isinstance(result, Answer) or result.errcode:
                raise RuntimeError(f"a call ended as {type(result).__name__}: the figures would mean nothing")

        await use(call)


async def bare_aiohttp(base: str, flights: int, use: Callable[[Caller], Awaitable[None]]) -> None:
    url, headers = f"{base}/{TAG.path}?access_token={TOKEN}", {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=flights)
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def call() -> None:
            async with session.post(url, data=PAYLOAD, headers=headers) as response:
                check(await response.read(), response.status)

        await use(call)


async def streaming_httpx2(base: str, flights: int, use: Callable[[Caller], Awaitable[None]]) -> None:
    url, headers = f"{base}/{TAG.path}?access_token={TOKEN}", {"Content-Type": "application/json"}
    limits = httpx2.Limits(max_connections=flights, max_keepalive_connections=flights)
    async with httpx2.AsyncClient(limits=limits, trust_env=False, timeout=DEADLINE_S) as session:

        async def call() -> None:
            async with session.stream("POST", url, content=PAYLOAD, headers=headers) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                check(bytes(body), response.status_code)

        await use(call)


WAYS: dict[str, Way] = {"client": client, "aiohttp": bare_aiohttp, "httpx2": streaming_httpx2}


def measure(way: Way, base: str, server: int, calls: int, flights: int) -> dict[str, Any]:
    """One turn: ``calls`` calls, ``flights`` of them at once, after a tenth as many that do not count."""
    found: dict[str, Any] = {}

    async def use(call: Caller) -> None:
        async def fly(left: Iterator[int]) -> None:
            for _ in left:
                await call()

        async def all_of(count: int) -> None:
            left = iter(range(count))
            await asyncio.gather(*(fly(left) for _ in range(flights)))

        await all_of(max(flights, calls // 10))
        began, used, server_used = time.perf_counter(), time.process_time(), cpu_seconds(server)
        await all_of(calls)
        seconds = time.perf_counter() - began
        found.update(
            per_second=round(calls / seconds),
            cpu_us_each=round((time.process_time() - used) / calls * 1e6, 1),
            stub_cpu_us_each=round((cpu_seconds(server) - server_used) / calls * 1e6, 1),
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(way(base, flights, use))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000, help="calls of a turn (default: %(default)s)")
    parser.add_argument("--flights", type=int, default=32, help="calls at once (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each way (default: %(default)s)")
    options = parser.parse_args()

    described = machine()
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    with stub() as (base, server):
        for _ in range(options.turns):
            for name, way in WAYS.items():
                turns[name].append(measure(way, base, server, options.calls, options.flights))
                print(name, turns[name][-1], file=sys.stderr, flush=True)
    best = {name: min(done, key=lambda turn: turn["cpu_us_each"]) for name, done in turns.items()}
    print(
        json.dumps(
            {
                "claim": "one process makes more than 1,500 calls a second, the gate before each of them included",
                "calls": options.calls,
                "flights": options.flights,
                "best": best,
                "cpu_ratio_httpx2_to_client": round(best["httpx2"]["cpu_us_each"] / best["client"]["cpu_us_each"], 1),
                "turns": turns,
                "machine": described,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
