"""What ingest costs over a bare endpoint: accepted callbacks/s and time to the answer, side by side in one run.

    uv run python benchmarks/ingest.py --help

Both servers run as processes under the same HTTP server, event loop and settings, and get the same sealed callbacks
from the same closed-loop client. The bare one reads the body and answers 200; ingest verifies, decrypts, types, and
answers when a real broker has acknowledged both records (acks=all, idempotent). Rounds alternate, so that whatever
else the machine does hits both. Output: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
import uvloop
import yaml

from deploy.local.kafka import LocalKafka
from deploy.local.ports import answers, free_ports
from services.ingest.kafka import TOPICS
from siyu.events import schemas_dir
from siyu.ops.topics import Cluster, load_topics
from siyu.wecom.crypto import CallbackCrypto

CORP = "wwbench0000000001"
TOKEN = "benchtoken"
AES_KEY = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
POOL = 4000


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, answers 200."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def serve_bare(port: int) -> None:
    """The other side of the comparison: as ingest configures uvicorn, with nothing behind it."""
    config = uvicorn.Config(
        bare,
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve())


def sealed_requests(count: int) -> list[bytes]:
    """Whole HTTP requests, each a different customer's add."""
    crypto = CallbackCrypto(TOKEN, AES_KEY, CORP)
    stamp = str(int(time.time()))
    run = uuid.uuid4().hex[:8]
    requests = []
    for number in range(count):
        message = (
            f"<xml><ToUserName><![CDATA[{CORP}]]></ToUserName><FromUserName><![CDATA[sys]]></FromUserName>"
            f"<CreateTime>{stamp}</CreateTime><MsgType><![CDATA[event]]></MsgType>"
            "<Event><![CDATA[change_external_contact]]></Event><ChangeType><![CDATA[add_external_contact]]></ChangeType>"
            f"<UserID><![CDATA[staff{number % 200}]]></UserID>"
            f"<ExternalUserID><![CDATA[wm{run}{number:020}]]></ExternalUserID>"
            "<State><![CDATA[channel-1]]></State><WelcomeCode><![CDATA[CODE]]></WelcomeCode></xml>"
        ).encode()
        sealed = crypto.encrypt(message, timestamp=stamp, nonce=str(number))
        query = urlencode({"msg_signature": sealed.msg_signature, "timestamp": stamp, "nonce": sealed.nonce})
        body = (
            f"<xml><ToUserName><![CDATA[{CORP}]]></ToUserName><AgentID><![CDATA[1000002]]></AgentID>"
            f"<Encrypt><![CDATA[{sealed.encrypt}]]></Encrypt></xml>"
        ).encode()
        head = f"POST /callback/wecom/{CORP}?{query} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    return requests


async def drive(port: int, requests: list[bytes], connections: int, seconds: float) -> dict[str, float]:
    """A closed loop over keep-alive connections; only 200s count, anything else ends the run."""
    clock = time.perf_counter  # a uvloop's time stands still within one turn, at a grain of 1 ms
    ends = clock() + seconds
    turn = iter(range(sys.maxsize))
    latencies: list[float] = []

    async def lane() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while clock() < ends:
            began = clock()
            writer.write(requests[next(turn) % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"unexpected answer: {head.splitlines()[0].decode()}")
            latencies.append(clock() - began)
        writer.close()

    began = clock()
    await asyncio.gather(*(lane() for _ in range(connections)))
    took = clock() - began
    latencies.sort()
    return {
        "answered_per_second": round(len(latencies) / took, 1),
        "p50_ms": round(latencies[len(latencies) // 2] * 1000, 3),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1000, 3),
    }


@contextlib.contextmanager
def running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        while not answers("127.0.0.1", port):
            if process.poll() is not None:
                raise SystemExit(f"{command[-1]} ended with status {process.returncode}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """User and system time of the process so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(bootstrap: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    corps = folder / "corps.yaml"
    entry = {"corp_id": CORP, "agent_id": "1", "secret": "x", "callback_token": TOKEN, "callback_aes_key": AES_KEY}
    corps.write_text(yaml.safe_dump({"corps": [entry]}))
    ingest_port, metrics_port, bare_port = free_ports(3)
    environment = {
        "SIYU_KAFKA_BOOTSTRAP": bootstrap,
        "SIYU_CORPS": str(corps),
        "SIYU_PORT": str(ingest_port),
        "SIYU_METRICS_PORT": str(metrics_port),
        "SIYU_LOG_EVENTS": str(options.log_events).lower(),
    }
    rounds: dict[str, list[dict[str, float]]] = {"ingest": [], "bare": []}
    with (
        running([sys.executable, "-m", "services.ingest"], ingest_port, environment) as ingest,
        running([sys.executable, __file__, "--serve-bare", str(bare_port)], bare_port, {}) as other,
    ):
        wait_ready(metrics_port)
        requests = sealed_requests(POOL)
        for number in range(options.rounds + 1):
            for name, port, process in ("ingest", ingest_port, ingest), ("bare", bare_port, other):
                cpu = cpu_seconds(process)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    figures = runner.run(drive(port, requests, options.connections, options.seconds))
                cpu = cpu_seconds(process) - cpu
                answered = figures["answered_per_second"] * options.seconds
                figures["answered_per_cpu_second"] = round(answered / cpu, 1) if cpu else 0.0
                if number:  # the first round warms both up
                    rounds[name].append(figures)
    medians = {
        name: {key: round(statistics.median(figures[key] for figures in measured), 3) for key in measured[0]}
        for name, measured in rounds.items()
    }
    return {
        "benchmark": "ingest",
        "connections": options.connections,
        "seconds_a_round": options.seconds,
        "log_events": options.log_events,
        "median": medians,
        "ratio_answered_per_second": round(
            medians["ingest"]["answered_per_second"] / medians["bare"]["answered_per_second"], 3
        ),
        "rounds": rounds,
    }


def wait_ready(metrics_port: int) -> None:
    import urllib.error
    import urllib.request

    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/readyz", timeout=5):
                return
        except urllib.error.URLError:
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64, help="requests in flight at any time (default 64)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round for each side (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds after one to warm up (default 3)")
    parser.add_argument("--log-events", action="store_true", help="let ingest log a line per event, as by default")
    parser.add_argument("--kafka-bootstrap", help="a broker that has the topics; default: one is started for the run")
    parser.add_argument("--serve-bare", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_bare:
        serve_bare(options.serve_bare)
        return
    with tempfile.TemporaryDirectory(prefix="siyu-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        bootstrap = options.kafka_bootstrap
        if bootstrap is None:
            bootstrap = stack.enter_context(LocalKafka(folder / "kafka", free_ports(1)[0])).bootstrap
            cluster = Cluster(bootstrap)
            declared = load_topics(schemas_dir() / "topics.yaml", "local")
            wanted = {topic: declared[topic] for topic in TOPICS}
            cluster.apply(cluster.difference(wanted), wanted)
        print(json.dumps(measure(bootstrap, folder, options), indent=2))


if __name__ == "__main__":
    main()
