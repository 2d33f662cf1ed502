"""Several executors on one broker against one scripted WeCom, and what a test asks about them."""

import asyncio
import json
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml
from executor_process import Worker
from fake_wecom import Call, FakeWecom, Slow

from siyu.events import Action, ActionOutcome, schemas_dir

WELCOME = "externalcontact/send_welcome_msg"
BILLS = "externalpay/get_bill_list"
REMARK = "externalcontact/remark"
TAG = "externalcontact/mark_tag"
MASS = "externalcontact/add_msg_template"
APP_MESSAGE = "message/send"

CORPS = tuple(f"ww{number}" for number in range(1, 9))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def action(action_id: str, **changes: object) -> Action:
    """A welcome of ww1 with a code of its own, unless said otherwise."""
    fields: dict[str, object] = {
        "action_id": action_id,
        "lane": "welcome",
        "corp_id": "ww1",
        "endpoint": WELCOME,
        "subject": f"ww1|customer-{action_id}",
        "staff_id": "s1",
        "customer_id": f"customer-{action_id}",
        "payload": json.dumps({"welcome_code": f"code-{action_id}", "text": {"content": "hello"}}).encode(),
        "reason": "r@1",
        "caused_by": f"event-{action_id}",
        "created_ms": now_ms(),
        "not_before_ms": 0,
        "deadline_ms": 0,
        "trigger_received_at_ms": 0,
    }
    return Action(**(fields | changes))  # type: ignore[arg-type]


def remark(action_id: str, **changes: object) -> Action:
    """A call that may be repeated, of the urgent lane; its customer tells it apart in WeCom's record."""
    body = {"userid": "s1", "external_userid": f"customer-{action_id}", "remark": "x"}
    return action(action_id, **({"lane": "urgent", "endpoint": REMARK, "payload": json.dumps(body).encode()} | changes))


def once_each(outcomes: list[ActionOutcome], actions: list[Action]) -> bool:
    """Every action has one outcome, and nothing else has any."""
    found = Counter(outcome.action_id for outcome in outcomes)
    assert found == Counter({given.action_id: 1 for given in actions}), found - Counter(a.action_id for a in actions)
    return True


class SingleUseCodes:
    """send_welcome_msg as it is: a code works once. Answers come after a while."""

    def __init__(self, seed: int, shortest: float = 0.0, longest: float = 0.03) -> None:
        self._random = random.Random(seed)
        self._seconds = (shortest, longest)
        self.used: Counter[str] = Counter()

    def __call__(self, call: Call) -> Slow:
        assert call.body is not None
        code = call.body["welcome_code"]
        self.used[code] += 1
        return Slow(self._random.uniform(*self._seconds), {"errcode": 0 if self.used[code] == 1 else 41051})


class Platform(FakeWecom):
    """FakeWecom in a thread of its own, so that it answers whatever the test is waiting for; with a door for every
    process, so that its record tells who called. ``Call.at`` is when a request was read: never before it left, never
    after its answer."""

    def __init__(self) -> None:
        super().__init__()
        self._doors: dict[str, str] = {}
        self._more: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def open(self) -> None:
        self._thread.start()
        self._run(self.start())

    def close(self) -> None:
        for server in self._more:
            self._loop.call_soon_threadsafe(server.close)
        self._run(self.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def door(self, name: str) -> str:
        """A base URL of its own for this process."""

        async def listen() -> str:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
            self._more.append(server)
            host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._doors[host] = name
            return f"http://{host}/cgi-bin"

        base_url: str = self._run(listen())
        return base_url

    def caller(self, call: Call) -> str:
        """The process a call came from."""
        return self._doors[call.headers["host"]]

    def release(self, event: asyncio.Event) -> None:
        self._loop.call_soon_threadsafe(event.set)

    def customers(self, path: str) -> list[str]:
        """Whom the calls of an endpoint named, in their order."""
        return [call.body["external_userid"] for call in self.called(path) if call.body]

    async def until_called(self, path: str, count: int, explain: Callable[[], str]) -> None:
        deadline = time.monotonic() + 60
        while len(self.called(path)) < count:
            assert time.monotonic() < deadline, f"{len(self.called(path))} of {count} calls\n{explain()[-4000:]}"
            await asyncio.sleep(0.01)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


class Executor(Worker):
    """One executor process under its lasting name."""

    def __init__(self, name: str, log_file: Path, environment: dict[str, str]) -> None:
        super().__init__("services.executor", log_file, environment)
        self.name = name

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def ended_with(self) -> int | None:
        """Its exit status; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def shards(self) -> list[int]:
        """Those it was given last."""
        given = self.lines("partitions_assigned")
        return list(given[-1]["partitions"]) if given else []

    def metrics(self) -> str:
        port = self.lines("service_started")[-1]["port"]
        return httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text

    def metric(self, name: str) -> float:
        """The sum over a metric's labels."""
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", self.metrics(), re.MULTILINE)
        return sum(map(float, found))

    def _signal(self, number: signal.Signals) -> None:
        process: subprocess.Popen[bytes] | None = self._process
        assert process is not None
        process.send_signal(number)


class Crew:
    """Executors that share a broker, a platform and a corps file."""

    def __init__(self, bootstrap: str, folder: Path, platform: Platform, **settings: str) -> None:
        self._folder = folder
        self._platform = platform
        key = "k" * 43
        corps = [
            {"corp_id": corp, "agent_id": "1", "secret": "s", "callback_token": "t", "callback_aes_key": key}
            for corp in CORPS
        ]
        (folder / "corps.yaml").write_text(yaml.safe_dump({"corps": corps}))
        self._settings = {
            "SIYU_KAFKA_BOOTSTRAP": bootstrap,
            "SIYU_CORPS": str(folder / "corps.yaml"),
            "SIYU_STATE_DIR": str(folder / "state"),
            "SIYU_METRICS_PORT": "0",
            "SIYU_SESSION_TIMEOUT_MS": "6000",
        } | settings
        self.members: dict[str, Executor] = {}

    def start(self, *names: str, **settings: str) -> list[Executor]:
        """Starts these, anew those that ran before."""
        for name in names:
            if name not in self.members:
                own = {"SIYU_INSTANCE": name, "SIYU_WECOM_BASE_URL": self._platform.door(name)}
                self.members[name] = Executor(name, self._folder / f"{name}.log", self._settings | own | settings)
            self.members[name].start()
        return [self.members[name] for name in names]

    def log(self) -> str:
        """The end of everybody's."""
        return "\n".join(f"--- {name}\n{member.log()[-1500:]}" for name, member in self.members.items())

    async def working(self, shards: int = 4) -> None:
        """Until every shard is owned and open."""
        deadline = time.monotonic() + 60
        while True:
            running = [member for member in self.members.values() if member.ended_with() is None]
            opened = Counter(line["shard"] for member in running for line in member.lines("shard_opened"))
            owned = sorted(shard for member in running for shard in member.shards())
            if owned == list(range(shards)) and len(opened) == shards:
                return
            assert time.monotonic() < deadline, self.log()
            await asyncio.sleep(0.05)

    def end(self) -> None:
        for member in self.members.values():
            member.kill()


@contextmanager
def crew_on(bootstrap: str, folder: Path, **settings: str) -> Iterator[tuple[Platform, Crew]]:
    """A platform and a crew, both gone afterwards."""
    platform = Platform()
    platform.open()
    crew = Crew(bootstrap, folder, platform, **settings)
    try:
        yield platform, crew
    finally:
        crew.end()
        platform.close()


class DatesAsText(yaml.SafeLoader):
    """So that a date is written as it was read."""


DatesAsText.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def limits_folder(folder: Path, **changes: Mapping[str, object]) -> Path:
    """The registry as it is shipped, but for some limits: ``corp_api_minute={"amount": 60, "window": "sliding 3 s"}``;
    None takes a field away."""
    made = folder / "limits"
    made.mkdir()
    left = set(changes)
    for file in sorted((schemas_dir() / "limits").glob("*.yaml")):
        content = yaml.load(file.read_text(), Loader=DatesAsText)
        for limit in content.get("limits", []):
            if limit["id"] in changes:
                limit.update(changes[limit["id"]])
                for name in [name for name, value in limit.items() if value is None]:
                    del limit[name]
                left.discard(limit["id"])
        (made / file.name).write_text(yaml.safe_dump(content, allow_unicode=True))
    assert not left, f"no such limits: {left}"
    return made


def most_in_a_window(calls: list[Call], seconds: float) -> int:
    """The most calls that arrived within any stretch of this length."""
    times = sorted(call.at for call in calls)
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
