"""What the simulator does in a second, and what a large world costs it: the measurements of benchmarks/simulator.py."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx2
import uvloop

from benchmarks.harness.processes import cpu_seconds, resident_mb
from simulator.apps import App
from simulator.delivery import Deliverer, DeliveryPolicy
from simulator.metrics import SimulatorMetrics
from simulator.recording import record, replay
from simulator.scenario import Plan
from simulator.sender import Sender, Target
from simulator.settings import SimulatorSettings
from simulator.world.corp import CorpWorld
from simulator.world.people import People
from simulator.world.relations import ContactChange, Relations
from simulator.world.schedule import Schedule
from siyu.ops.corps import load_corps

ROOT = Path(__file__).resolve().parents[2]
CORP_ID = "wwbenchmark000001"
START_S = 1_790_000_000
STAFF = 200
CONNECTIONS = 32
PROMISED = {"api_calls": 3_000, "live_callbacks": 3_000, "replayed_callbacks": 10_000}
PROMISED_OPENING = {"seconds": 120.0, "resident_gb": 6.0}

R = TypeVar("R")
Figures = dict[str, Any]


class WrongFigure(RuntimeError):
    """Something did not come out as it must, so that a figure would mean nothing."""


@contextmanager
def answering() -> Iterator[tuple[str, int]]:
    """A receiver that only answers, in a process of its own: base URL and process id."""
    script = Path(__file__).with_name("answering.py")
    process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid
    finally:
        process.stdin.close()
        process.wait(10)


def an_app(base: str) -> App:
    """An app with keys of this run."""
    return App(
        corp_id=CORP_ID,
        agent_id="1000002",
        secret=secrets.token_hex(16),
        callback_token=secrets.token_hex(8),
        callback_aes_key=(secrets.token_hex(22))[:43],
        callback_url=f"{base}/callback/wecom/{CORP_ID}",
    )


def adds(count: int) -> tuple[ContactChange, ...]:
    """So many customers who add somebody, fifty in each second."""
    return tuple(
        ContactChange(
            START_S + n // 50, CORP_ID, f"staff{n % STAFF:05d}", f"wmAJ2GCAAAXtWyujaWJH{n:08d}", "add", "store-1", True
        )
        for n in range(count)
    )


def people(count: int) -> tuple[tuple[str, ...], frozenset[str]]:
    """Staff and customers of :func:`adds`."""
    return (
        tuple(f"staff{n:05d}" for n in range(STAFF)),
        frozenset(f"wmAJ2GCAAAXtWyujaWJH{n:08d}" for n in range(count)),
    )


def in_a_loop(work: Callable[[], Awaitable[R]]) -> R:
    """As the simulator runs."""

    async def run() -> R:
        return await work()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def sending(count: int) -> Figures:
    """The same POSTs by the simulator's sender and by a general client, one after the other to one receiver."""
    body, query = b"x" * 1_000, "msg_signature=0123456789012345678901234567890123456789&timestamp=1790000000&nonce=1"
    found: Figures = {}
    with answering() as (base, _):
        url = f"{base}/callback/wecom/{CORP_ID}"

        async def lean() -> None:
            sender, target, left = Sender(concurrency=CONNECTIONS), Target(url), iter(range(count))

            async def work() -> None:
                for _ in left:
                    answer = await sender.post(target, query, body, timeout_s=5)
                    if answer.status != 200:
                        raise WrongFigure(f"a POST ended as {answer}")

            await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
            await sender.close()

        async def general() -> None:
            left = iter(range(count // 10))
            limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
            async with httpx2.AsyncClient(limits=limits, trust_env=False) as client:

                async def work() -> None:
                    for _ in left:
                        sent = await client.post(f"{url}?{query}", content=body, headers={"Content-Type": "text/xml"})
                        sent.raise_for_status()

                await asyncio.gather(*(work() for _ in range(CONNECTIONS)))

        for name, work, posts in (("sender", lean, count), ("httpx2", general, count // 10)):
            began, used = time.perf_counter(), time.process_time()
            in_a_loop(work)
            found[name] = {
                "posts": posts,
                "per_second": round(posts / (time.perf_counter() - began)),
                "cpu_us_each": round((time.process_time() - used) / posts * 1e6, 1),
            }
    found["ratio"] = round(found["sender"]["per_second"] / found["httpx2"]["per_second"], 1)
    return found


def live(count: int) -> Figures:
    """A world in which ``count`` customers add staff: state, welcome code, XML, sealing and sending, one process."""
    staff, customers = people(count)
    with answering() as (base, receiver):

        async def play() -> tuple[float, Deliverer]:
            deliverer = Deliverer(
                apps=[an_app(base)],
                policy=DeliveryPolicy(shuffle_s=0, duplicate_share=0, concurrency=CONNECTIONS),
                metrics=SimulatorMetrics(),
            )
            corp = CorpWorld(
                CORP_ID,
                seed=1,
                people=People.of_ids(1, staff, customers),
                relations=Relations(CORP_ID, None),
                schedule=Schedule(),
                send=deliverer.send,
            )
            changes = adds(count)
            began = time.perf_counter()
            for start in range(0, count, 100):
                for change in changes[start : start + 100]:
                    corp.happen(change)
                await asyncio.sleep(0)
            await deliverer.wait_idle()
            seconds = time.perf_counter() - began
            await deliverer.close()
            return seconds, deliverer

        used, receiver_used = time.process_time(), cpu_seconds(receiver)
        seconds, deliverer = in_a_loop(play)
        if deliverer.counts.delivered != count:
            raise WrongFigure(f"{deliverer.counts.delivered} of {count} callbacks were delivered")
        return {
            "callbacks": count,
            "per_second": round(count / seconds),
            "cpu_us_each": round((time.process_time() - used) / count * 1e6, 1),
            "receiver_cpu_us_each": round((cpu_seconds(receiver) - receiver_used) / count * 1e6, 1),
        }


def replayed(count: int, rate: int) -> Figures:
    """A recording of ``count`` callbacks: made, sent at ``rate`` a second, as fast as it goes, and sealed anew."""
    staff, customers = people(count)

    def plan(start_s: int) -> Plan:
        return Plan(
            scenario="benchmark",
            seed=1,
            corps=(CORP_ID,),
            staff={CORP_ID: staff},
            customers={CORP_ID: customers},
            contacts=adds(count),
            others=(),
            bills=(),
        )

    with tempfile.TemporaryDirectory(prefix="siyu-benchmark-") as folder, answering() as (base, _):
        file, app = Path(folder) / "callbacks", an_app(base)
        made = record(file, settings=SimulatorSettings(), plan=plan, apps=[app], start_s=START_S)
        found: Figures = {
            "recorded": made.deliveries,
            "recorded_per_second": round(made.deliveries / made.seconds),
            "bytes_each": round(made.file_bytes / made.deliveries),
        }
        runs: dict[str, dict[str, Any]] = {
            f"at_{rate}": {"rate": float(rate)},
            "at_most": {},
            "sealed_anew": {"fresh": [app]},
        }
        for name, asked in runs.items():
            result = replay(file, base, connections=CONNECTIONS, **asked)
            if result.results != {"200": count}:
                raise WrongFigure(f"replay: {result.results}")
            found[name] = {
                "per_second": round(result.per_second),
                "p50_ms": result.p50_ms,
                "p99_ms": result.p99_ms,
                "behind_ms": result.behind_ms,
            }
    return found


@contextmanager
def platform(folder: Path, callback_base: str, **settings: str) -> Iterator[tuple[str, int, float]]:
    """``python -m simulator``: base URL, process id, seconds until it listened."""
    corps = folder / "corps.yaml"
    app = an_app("")
    corps.write_text(
        f"corps:\n  - {{corp_id: {CORP_ID}, agent_id: '1000002', secret: {app.secret},\n"
        f"     callback_token: {app.callback_token}, callback_aes_key: {app.callback_aes_key}}}\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIYU_")}
    environment = {
        "SIYU_CORPS": str(corps),
        "SIYU_PORT": "0",
        "SIYU_METRICS_PORT": "0",
        "SIYU_SIM_CALLBACK_BASE": callback_base,
        **settings,
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "simulator"],
        env={**inherited, **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if '"simulator listens"' in line:
                break
        else:
            raise WrongFigure(f"the simulator ended with status {process.wait()}")
        seconds = time.perf_counter() - began
        yield f"http://127.0.0.1:{json.loads(line)['port']}", process.pid, seconds
    finally:
        process.terminate()
        process.communicate(timeout=20)


UNLIMITED = {
    "SIYU_SIM_LATENCY_MILLISECONDS": "0",
    "SIYU_SIM_CALLS_PER_MINUTE": str(10**9),
    "SIYU_SIM_CALLS_PER_HOUR": str(10**9),
    "SIYU_SIM_CONCURRENT_CALLS": str(10**9),
}


def calls(count: int) -> Figures:
    """Reads of a played world from a real server process, the way a client library asks them."""
    world = {"SIYU_SIM_CUSTOMERS": "2000", "SIYU_SIM_DURATION_SECONDS": "10", "SIYU_SIM_SHUFFLE_SECONDS": "0"}
    with (
        tempfile.TemporaryDirectory(prefix="siyu-benchmark-") as name,
        answering() as (receiver, _),
        platform(Path(name), receiver, **world, **UNLIMITED) as (base, server, _),
    ):
        play(base)
        return asked(base, server, Path(name), count)


def asked(base: str, server: int, folder: Path, count: int) -> Figures:
    """So many reads of whatever world the server has. Raises WrongFigure unless every one is answered with 0."""
    chosen = reads(base, load_corps(folder / "corps.yaml")[CORP_ID].secret)
    mix: Counter[str] = Counter()

    async def ask() -> float:
        sender, left = Sender(concurrency=CONNECTIONS), iter(range(count))

        async def work() -> None:
            for number in left:
                kind, target, message = chosen[number % len(chosen)]
                answer = await sender.exchange(target.origin, message, timeout_s=10)
                if answer.status != 200:
                    raise WrongFigure(f"{kind} ended as {answer}")
                mix[kind] += 1

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
        seconds = time.perf_counter() - began
        await sender.close()
        return seconds

    used, server_used = time.process_time(), cpu_seconds(server)
    seconds = in_a_loop(ask)
    codes = httpx2.get(f"{base}/_sim/calls", params={"since_ms": 10**15}, trust_env=False).json()["counts"]
    wrong = {name: found for name, found in codes.items() if set(found) != {"0"}}
    if wrong:
        raise WrongFigure(f"calls were refused: {wrong}")
    return {
        "calls": count,
        "per_second": round(count / seconds),
        "server_cpu_us_each": round((cpu_seconds(server) - server_used) / count * 1e6, 1),
        "client_cpu_us_each": round((time.process_time() - used) / count * 1e6, 1),
        "mix": dict(mix),
    }


def play(base: str) -> None:
    """Until the short scenario has been played."""
    with httpx2.Client(base_url=base, trust_env=False, timeout=30) as client:
        client.post("/_sim/start").raise_for_status()
        deadline = time.monotonic() + 15
        while client.get("/_sim/status").json()["state"] == "playing" and time.monotonic() < deadline:
            time.sleep(0.2)


def reads(base: str, secret: str) -> list[tuple[str, Target, bytes]]:
    """Requests to ask again and again: staff, customers, details and bills."""
    with httpx2.Client(base_url=base, trust_env=False, timeout=30) as client:
        query = {"corpid": CORP_ID, "corpsecret": secret}
        token = client.get("/cgi-bin/gettoken", params=query).json()["access_token"]

        def get(path: str, **query: str) -> Any:
            return client.get(f"/cgi-bin/{path}", params={"access_token": token, **query}).json()

        staff = get("externalcontact/get_follow_user_list")["follow_user"]
        known = {userid: get("externalcontact/list", userid=userid) for userid in staff[:40]}
    pairs = [(userid, person) for userid, found in known.items() for person in found.get("external_userid", [])[:3]]
    if not pairs:
        raise WrongFigure("nobody in this world has a customer")
    made: list[tuple[str, Target, bytes]] = []

    def add(path: str, body: Any = None, **query: str) -> None:
        target = Target(f"{base}/cgi-bin/{path}", content_type="application/json")
        asked = urlencode({"access_token": token, **query})
        message = target.get(asked) if body is None else target.post(asked, json.dumps(body).encode())
        made.append((path, target, message))

    for userid, person in pairs:
        add("externalcontact/get", external_userid=person)
        add("externalcontact/list", userid=userid)
        add("externalcontact/get", external_userid=person)
        window = {"begin_time": int(time.time()) - 86_400, "end_time": int(time.time()), "limit": 100}
        add("externalpay/get_bill_list", window)
    add("externalcontact/get_follow_user_list")
    return made


def opening(count: int, scenario: str = "neptune") -> Figures:
    """Time and memory until a large world lives, and how many reads a second it answers before its story begins."""
    with (
        tempfile.TemporaryDirectory(prefix="siyu-benchmark-") as name,
        platform(Path(name), "http://127.0.0.1:1", SIYU_SIM_SCENARIO=scenario, **UNLIMITED) as (base, server, seconds),
    ):
        read = asked(base, server, Path(name), count)
        began = time.perf_counter()
        # The world is opened once more for its real start.
        httpx2.post(f"{base}/_sim/start", trust_env=False, timeout=600).raise_for_status()
        seconds += time.perf_counter() - began
        memory = resident_mb(server)
        return {
            "scenario": scenario,
            "seconds": round(seconds, 1),
            "resident_gb": round(memory["now"] / 1024, 2),
            "peak_gb": round(memory["peak"] / 1024, 2),
            "calls": read,
        }
