"""A governed site of its own: a broker, topics with as many shards as asked for, the platform, and executor processes
that are killed, frozen and started again by a plan that a seed decides. Everything of it is gone afterwards.

All processes call from this machine, so they share one source address, and one clock file, so they share business time.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Literal, Self
from urllib.parse import urlencode

import yaml

from benchmarks.harness.broker import broker
from benchmarks.harness.claim import say
from benchmarks.harness.processes import cpu_seconds, resident_mb
from deploy.local import launch
from deploy.local.ports import free_ports
from siyu.events import schemas_dir
from siyu.ops.clock import write_segments
from siyu.ops.topics import Cluster, Profile, load_topics

ROOT = Path(__file__).resolve().parents[2]
LIMITS = ROOT / "schemas" / "limits"
SHARDED = {f"actions.{lane}" for lane in ("welcome", "urgent", "bulk", "sync")} | {
    "action.ledger",
    "quota.state",
    "quota.leases",
}
"""Topics that have one partition a shard."""
_PROFILE: Profile = "local"
_START_S = 120.0
_STOP_S = 30.0
_REQUEST_S = 30.0
_FREE = 10**9


class SiteFailed(RuntimeError):
    """A process ended, or something took too long: the message has the end of its log."""


def ask(url: str, body: Any = None, *, method: str = "", **query: Any) -> Any:
    """JSON of a GET, or of a POST of ``body``. No proxy of the environment is used."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    whole = f"{url}?{urlencode(query)}" if query else url
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(whole, data, {"Content-Type": "application/json"}, method=method or None)
    with opener.open(request, timeout=_REQUEST_S) as response:
        return json.loads(response.read())


def until(
    condition: Callable[[], bool], what: str, seconds: float, *, check: Callable[[], None] = lambda: None
) -> None:
    """Waits for it. Raises SiteFailed."""
    deadline = time.monotonic() + seconds
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise SiteFailed(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)


class Service:
    """One service of the system as a process; it can be killed, frozen and started again. Dies with this process."""

    def __init__(self, module: str, log: Path, environment: Mapping[str, str]) -> None:
        self._module = module
        self._log = log
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SIYU_")}
        self._environment = {**inherited, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self.frozen = False

    def start(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                launch.command(sys.executable, "-P", "-m", self._module),
                env=self._environment,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.frozen = False
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: what a lost machine looks like."""
        if self.running:
            assert self._process is not None
            self._process.kill()
            self._process.wait()
        self.frozen = False

    def freeze(self) -> None:
        """Stands still until thawed, and does not know it."""
        if self.running:
            os.kill(self.pid, signal.SIGSTOP)
            self.frozen = True

    def thaw(self) -> None:
        if self.running and self.frozen:
            os.kill(self.pid, signal.SIGCONT)
        self.frozen = False

    def terminate(self) -> None:
        """Begins to stop in order."""
        if self.running:
            self.thaw()
            assert self._process is not None
            self._process.terminate()

    def stop(self) -> int:
        """Stops in order, or after a while not in order; returns the exit status."""
        self.terminate()
        if self._process is None:
            return 0
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def check_alive(self) -> None:
        """Raises SiteFailed with the end of the log when the process has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            tail = "\n".join(self.log().splitlines()[-20:])
            raise SiteFailed(f"{self._module} ended with status {self._process.returncode}\n{tail}")


@dataclass(frozen=True)
class Deed:
    """Something that is done to an executor. ``at_s``: seconds after the beginning; ``seconds``: until it is back."""

    at_s: float
    index: int
    kind: Literal["kill", "freeze", "stop"]
    seconds: float


def deeds(seed: int, executors: int, seconds: float, every_s: float) -> list[Deed]:
    """What happens to which executor when: one deed every so often in the mean, frozen ones for longer and for shorter
    than a session lasts, none so late that it could not be over. The same seed, the same deeds."""
    chance = random.Random(f"{seed}|deeds")
    found: list[Deed] = []
    at, busy = 0.0, [0.0] * executors
    while True:
        at += chance.expovariate(1 / every_s)
        if at > seconds - 30:
            return found
        free = [index for index, until_s in enumerate(busy) if until_s < at]
        # Never more than half of them, unless there is but one: a fleet of none proves nothing.
        if executors - len(free) >= max(1, executors // 2):
            continue
        index = chance.choice(free)
        kind: Literal["kill", "freeze", "stop"] = chance.choice(["kill", "kill", "freeze", "stop"])
        lasts = chance.choice([0.5, 3.0, 20.0]) if kind == "freeze" else chance.uniform(0.0, 5.0)
        found.append(Deed(at, index, kind, lasts))
        busy[index] = at + lasts


def strikes(seed: int, executors: int, rounds: int, seconds: float, each: int, within_s: float) -> list[Deed]:
    """So many deeds in every round of so many seconds: two of three in its first ``within_s``, while calls are made,
    the others anywhere. Everybody may be hit, also all at once. The same seed, the same deeds."""
    chance = random.Random(f"{seed}|strikes")
    found: list[Deed] = []
    for number in range(rounds):
        for strike in range(each):
            at = number * seconds + chance.uniform(0, seconds if strike % 3 == 2 else within_s)
            kind: Literal["kill", "freeze", "stop"] = chance.choice(["kill", "kill", "kill", "freeze"])
            lasts = chance.choice([0.3, 3.0, 15.0]) if kind == "freeze" else chance.uniform(0.0, 1.0)
            found.append(Deed(at, chance.randrange(executors), kind, lasts))
    return sorted(found, key=lambda deed: deed.at_s)


SESSION_MS = "2000"
"""As operators who send welcomes should have it; brokers allow 6,000 unless told otherwise."""


class Executors:
    """So many executor processes of one site."""

    def __init__(self, site: Site, count: int, **settings: str) -> None:
        self._ports = free_ports(count)
        self.all = [
            Service(
                "services.executor",
                site.folder / f"executor-{index}.log",
                {
                    **site.environment,
                    "SIYU_INSTANCE": f"bench-{index}",
                    "SIYU_STATE_DIR": str(site.folder / f"state-{index}"),
                    "SIYU_METRICS_PORT": str(port),
                    "SIYU_SESSION_TIMEOUT_MS": SESSION_MS,
                    **settings,
                },
            )
            for index, port in enumerate(self._ports)
        ]
        self._back: list[tuple[float, Deed]] = []
        self.done: list[Deed] = []

    def start(self) -> Self:
        for service in self.all:
            service.start()
        return self

    def ready(self, seconds: float = _START_S) -> None:
        """Returns once every one of them says so. Raises SiteFailed."""
        for service, port in zip(self.all, self._ports, strict=True):
            until(lambda port=port: _ready(port), "executor ready", seconds, check=service.check_alive)  # type: ignore[misc]

    def metrics(self, index: int) -> dict[str, float]:
        """Name and labels, as they are exposed, to value."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self._ports[index]}/metrics", timeout=_REQUEST_S) as response:
            lines = response.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def total(self, metric: str) -> float:
        """Sum over processes and labels; those that do not answer have none."""
        found = 0.0
        for index, service in enumerate(self.all):
            if service.running and not service.frozen:
                try:
                    samples = self.metrics(index)
                except OSError:
                    continue
                found += sum(value for name, value in samples.items() if name.partition("{")[0] == metric)
        return found

    def play(
        self, plan: Sequence[Deed], began: float, until_s: float, *, watch: Callable[[], None] = lambda: None
    ) -> None:
        """Does what is planned until so many seconds after ``began`` (monotonic), and brings everybody back."""
        waiting = [deed for deed in plan if deed not in self.done]
        while (now := time.monotonic() - began) < until_s:
            while waiting and waiting[0].at_s <= now:
                self._do(waiting.pop(0), now)
            self._bring_back(now)
            watch()
            time.sleep(0.05)
        self._bring_back(float("inf"))

    def _do(self, deed: Deed, now: float) -> None:
        service = self.all[deed.index]
        if any(other.index == deed.index for _, other in self._back):
            return  # still away from what was done to it before
        {"kill": service.kill, "freeze": service.freeze, "stop": service.terminate}[deed.kind]()
        say(f"{now:7.1f} s: {deed.kind} executor {deed.index} for {deed.seconds:.1f} s")
        self._back.append((now + deed.seconds, deed))
        self.done.append(deed)

    def _bring_back(self, now: float) -> None:
        for due in [entry for entry in self._back if entry[0] <= now]:
            self._back.remove(due)
            service = self.all[due[1].index]
            if due[1].kind == "freeze":
                service.thaw()
            elif due[1].kind == "stop":
                service.stop()
            if not service.running:
                service.start()
        # One that was frozen for too long ends by itself (another one has its shards) and is started again, as a
        # supervisor would.
        held = {deed.index for _, deed in self._back}
        for index, service in enumerate(self.all):
            if index not in held and not service.running:
                service.start()

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(service.pid) for service in self.all if service.running)

    def resident_mb(self) -> list[float]:
        return [resident_mb(service.pid)["now"] for service in self.all if service.running]

    def stop(self) -> None:
        """All at once, in order."""
        for service in self.all:
            service.terminate()
        for service in self.all:
            service.stop()


def _ready(port: int) -> bool:
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


@dataclass
class Site:
    """What there is beside the executors."""

    folder: Path
    bootstrap: str
    broker_pid: int
    corps: tuple[str, ...]
    limits: Path
    clock_file: Path
    base_url: str = ""
    """Of the platform, without ``/cgi-bin``."""
    platform_pid: int = 0
    services: list[Service] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Of every service."""
        return {
            "SIYU_KAFKA_BOOTSTRAP": self.bootstrap,
            "SIYU_WECOM_BASE_URL": f"{self.base_url}/cgi-bin",
            "SIYU_CORPS": str(self.folder / "corps.yaml"),
            "SIYU_LIMITS": str(self.limits),
            "SIYU_CLOCK_FILE": str(self.clock_file),
            "SIYU_EGRESS": "default",
            "SIYU_LOG_EVENTS": "false",
        }

    @property
    def calls_file(self) -> Path:
        """The platform's record of calls."""
        return self.folder / "calls.jsonl"

    def service(self, module: str, **settings: str) -> Service:
        """Another service of the system, started, and stopped with the site."""
        name = module.replace(".", "-")
        environment = {
            **self.environment,
            "SIYU_STATE_DIR": str(self.folder / f"state-{name}"),
            "SIYU_METRICS_PORT": "0",
            **settings,
        }
        self.services.append(Service(module, self.folder / f"{name}.log", environment).start())
        return self.services[-1]

    def tell(self, path: str, body: Any, method: str = "POST") -> Any:
        """A wish of ``/_sim/…``."""
        return ask(f"{self.base_url}/_sim/{path}", body, method=method)

    def see(self, path: str, **query: Any) -> Any:
        return ask(f"{self.base_url}/_sim/{path}", **query)

    def simulate(self, scenario: Mapping[str, Any], callback_base: str = "", **settings: str) -> Service:
        """The platform as a process; its calls are recorded."""
        path = self.folder / "scenario.yaml"
        path.write_text(json.dumps(scenario))  # JSON is YAML
        (port,) = free_ports(1)
        self.base_url = f"http://127.0.0.1:{port}"
        simulator = self.service(
            "simulator",
            SIYU_PORT=str(port),
            SIYU_SIM_SCENARIO=str(path),
            SIYU_SIM_CALLS_FILE=str(self.calls_file),
            SIYU_SIM_CALLBACK_BASE=callback_base or "http://127.0.0.1:1",
            SIYU_SIM_DUPLICATE_SHARE="0",
            SIYU_SIM_SHUFFLE_SECONDS="0",
            **settings,
        )
        until(lambda: _answers(f"{self.base_url}/_sim/status"), "simulator", _START_S, check=simulator.check_alive)
        self.platform_pid = simulator.pid
        return simulator

    def recorded(self) -> Path:
        """The record of calls, whole: the platform is stopped for it."""
        for service in self.services:
            if service.running and service.pid == self.platform_pid:
                service.stop()
        return self.calls_file

    @contextmanager
    def stubbed(self) -> Iterator[None]:
        """A platform that only answers, instead of the simulator."""
        script = Path(__file__).with_name("stub.py")
        command = launch.command(sys.executable, str(script))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            self.base_url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            self.platform_pid = process.pid
            yield
        finally:
            process.stdin.close()
            process.wait(10)

    def check_alive(self) -> None:
        """Raises SiteFailed when a service has ended by itself."""
        for service in self.services:
            service.check_alive()


def _answers(url: str) -> bool:
    try:
        ask(url)
    except (urllib.error.URLError, OSError):
        return False
    return True


@contextmanager
def site(
    *, shards: int, corps: int = 1, limits: Mapping[str, int] | None = None, rate: float = 1.0, keep: Path | None = None
) -> Iterator[Site]:
    """A site without a platform yet. ``limits``: amounts by limit id that differ from those of the registry in force;
    ``rate``: business seconds a second of wall time; ``keep``: a folder that stays, for looking at logs."""
    with TemporaryDirectory(prefix="siyu-executor-") as temporary, broker() as kafka:
        assert kafka.pid is not None
        folder = Path(temporary)
        if keep is not None:
            # A folder of its own for each site: a record of calls is only ever appended to.
            keep.mkdir(parents=True, exist_ok=True)
            folder = Path(mkdtemp(prefix="site-", dir=keep))
        names = tuple(f"wwbenchmark{number:06d}" for number in range(corps))
        write_corps(folder / "corps.yaml", names)
        create_topics(kafka.bootstrap, shards)
        write_limits(folder / "limits", limits or {})
        now_ms = time.time_ns() // 1_000_000
        write_segments(folder / "clock.json", [{"wall_ms": now_ms, "business_ms": now_ms, "rate": rate}])
        made = Site(folder, kafka.bootstrap, kafka.pid, names, folder / "limits", folder / "clock.json")
        try:
            yield made
        finally:
            for service in reversed(made.services):
                service.stop()


def write_corps(path: Path, names: Sequence[str]) -> None:
    """A corps file with secrets of this run."""
    corps = [
        {
            "corp_id": name,
            "agent_id": "1000002",
            "secret": secrets.token_hex(16),
            "callback_token": secrets.token_hex(8),
            "callback_aes_key": secrets.token_hex(22)[:43],
        }
        for name in names
    ]
    path.write_text(json.dumps({"corps": corps}))


def create_topics(bootstrap: str, shards: int) -> None:
    """Every declared topic, with so many partitions where a partition is a shard."""
    declared = load_topics(schemas_dir() / "topics.yaml", _PROFILE)
    wanted = {name: replace(topic, partitions=shards) if name in SHARDED else topic for name, topic in declared.items()}
    cluster = Cluster(bootstrap)
    cluster.apply(cluster.difference(wanted), wanted)


def write_limits(folder: Path, amounts: Mapping[str, int]) -> None:
    """The registry's files with other amounts in every version of some limits. Raises KeyError for an unknown id."""
    folder.mkdir(parents=True, exist_ok=True)
    unknown = set(amounts)
    for path in sorted(LIMITS.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for entry in content.get("limits", []):
            if entry["id"] in amounts:
                entry["amount"] = amounts[entry["id"]]
                unknown.discard(entry["id"])
        (folder / path.name).write_text(json.dumps(content, default=str), encoding="utf-8")
    if unknown:
        raise KeyError(f"no limit {', '.join(sorted(unknown))} in {LIMITS}")


UNLIMITED = {
    "corp_api_minute": _FREE,
    "corp_api_hour": _FREE,
    "ip_api_minute": _FREE,
    "ip_api_hour": _FREE,
    "corp_api_concurrency": _FREE,
    "pace_concurrency": _FREE,
    "pace_corp_ten_seconds": _FREE,
    "pace_staff_mark_tag": _FREE,
    "pace_staff_remark": _FREE,
    "pace_staff_mass_messages": _FREE,
}
"""For figures of the executor itself: nothing is held back."""


def platform_limits(amounts: Mapping[str, int]) -> dict[str, str]:
    """Settings of the simulator for the same amounts: it blocks what goes past them, by windows of its own."""
    names = {
        "corp_api_minute": "SIYU_SIM_CALLS_PER_MINUTE",
        "corp_api_hour": "SIYU_SIM_CALLS_PER_HOUR",
        "corp_api_concurrency": "SIYU_SIM_CONCURRENT_CALLS",
    }
    return {setting: str(amounts[limit]) for limit, setting in names.items() if limit in amounts}
