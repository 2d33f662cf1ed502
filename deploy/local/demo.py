"""`siyu demo`: starts the whole system, plays a scenario through it, lets it drain, and audits it.

Exit status: the audit's (0 clean, 1 differences, 2 could not run); 1 also when the system could not start or did not
drain; 130 after Ctrl-C. Nothing is left running in any of these cases. Each run begins with an empty data folder.
"""

import asyncio
import fcntl
import random
import shutil
import signal
import string
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
import yaml
from rich.console import Console
from rich.markup import escape

from deploy.local import launch, stack
from deploy.local.drain import Stopped, drain
from deploy.local.errors import DataFolderInUse, LocalStackError, StartFailed
from deploy.local.live import LiveView
from deploy.local.runner import Runner
from deploy.local.stack import StackConfig
from siyu.ops.clock import wall_ms, write_segments

__all__ = ["CORPS", "Demo", "Disturbance", "app", "play"]

CORPS = ("wwdemo0000000001", "wwdemo0000000002")
AGENT_ID = "1000002"
INTERRUPTED = 130
# Of our own making: only a folder with this file in it is ever emptied.
MARKER = ".siyu-demo"
STATUS_EVERY_S = 0.5
REQUEST_S = 10.0
# A simulator that answers nothing for so long has gone, and its scenario with it.
SILENT_S = 30.0
PLAIN_WIDTH = 140


@dataclass(frozen=True)
class Demo:
    """What is played, and how."""

    base_dir: Path = Path("var/demo")
    scenario: str = "demo"
    """Name of a shipped scenario, or a file."""
    scale: float = 1.0
    """Share of the scenario's population."""
    rate: float = 1.0
    """Business seconds a second, for every process: a soak test of a day in an hour has 24."""
    seed: int = 1
    staff: int = 200
    customers: int = 5_000
    duration_s: int = 100
    join_s: int = 45
    replay_s: int = 90
    data: Path | None = None
    keep: bool = False
    plain: bool = False
    free_ports: bool = False
    drain_timeout_s: float = 180.0
    max_freshness_p99_s: float | None = None

    def config(self) -> StackConfig:
        """The stack that plays it."""
        base = self.base_dir.resolve()
        simulator = {
            "SIYU_SIM_SCENARIO": self.scenario,
            "SIYU_SIM_SCALE": str(self.scale),
            "SIYU_SIM_SEED": str(self.seed),
            "SIYU_SIM_STAFF": str(self.staff),
            "SIYU_SIM_CUSTOMERS": str(self.customers),
            "SIYU_SIM_DURATION_SECONDS": str(self.duration_s),
            "SIYU_SIM_TRUTH_FILE": str(base / "truth.json"),
        }
        if self.data is not None:
            simulator["SIYU_SIM_DATA"] = str(self.data.resolve())
            simulator["SIYU_SIM_JOIN_SECONDS"] = str(self.join_s)
            simulator["SIYU_SIM_REPLAY_SECONDS"] = str(self.replay_s)
        config = StackConfig.free_ports(base) if self.free_ports else StackConfig(base_dir=base)
        return replace(
            config,
            corps=base / "corps.yaml",
            clock_file=base / "clock.json" if self.data is not None or self.rate != 1 else None,
            extra_env={"simulator": simulator},
        )


@contextmanager
def fresh_folder(folder: Path) -> Iterator[None]:
    """An empty folder that is ours alone meanwhile. Raises DataFolderInUse or StartFailed; deletes nobody else's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataFolderInUse("demo", folder) from None
        if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
            raise StartFailed(f"{folder} holds something that is not a demo's: choose another --base-dir")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / MARKER).touch()
        yield


def write_corps(path: Path, seed: int) -> None:
    """Two corps with throw-away secrets: they open nothing but this run's simulator."""
    rng = random.Random(f"{seed}|corps")  # noqa: S311 nothing to protect, and a seed must give the same run again

    def letters(count: int) -> str:
        return "".join(rng.choices(string.ascii_letters + string.digits, k=count))

    corps = [
        {
            "corp_id": corp_id,
            "agent_id": AGENT_ID,
            "secret": letters(43),
            "callback_token": letters(16),
            # The last character of 43 carries two bits that no key may need; any is right here.
            "callback_aes_key": letters(43),
        }
        for corp_id in CORPS
    ]
    path.write_text(yaml.safe_dump({"corps": corps}, sort_keys=False), encoding="utf-8")
    path.chmod(0o600)


def write_clock(path: Path, demo: Demo) -> None:
    """Business time begins now; or the day before the data does, to jump later. Raises StartFailed."""
    if demo.data is None:
        write_segments(path, [{"wall_ms": wall_ms(), "business_ms": wall_ms(), "rate": demo.rate}])
        return
    from simulator.retail_data import RetailDataError, read_history
    from simulator.scenario.retail import opening_s

    try:
        begin_ms = opening_s(read_history(demo.data)) * 1000
    except RetailDataError as error:
        raise StartFailed(str(error)) from None
    write_segments(path, [{"wall_ms": wall_ms(), "business_ms": begin_ms, "rate": 1.0}])


Disturbance = Callable[[StackConfig, Runner], Coroutine[Any, Any, None]]
"""What is done to the running system beside the scenario, e.g. killing processes."""


async def play(
    demo: Demo, console: Console, *, stop: asyncio.Event | None = None, disturb: Disturbance | None = None
) -> int:
    """Everything from the empty folder to the audit; returns the exit status. ``stop`` ends it early, in order.

    Raises LocalStackError when it could not be played.
    """
    config = demo.config()
    stop = stop or asyncio.Event()
    plain = demo.plain or not console.is_terminal
    with fresh_folder(config.base_dir):
        write_corps(config.corps, demo.seed)
        if config.clock_file is not None:
            write_clock(config.clock_file, demo)
        view = LiveView(config, console, plain=plain)
        view.say(f"数据与日志 data and logs: {config.base_dir} (log/<process>.log)")
        runner = stack.runner(config, on_event=view.event)
        view.watch(runner)
        try:
            if await _unless(stop, runner.start()):
                return INTERRUPTED
            if await _unless(stop, _play_scenario(demo, config, view, runner, disturb)):
                return INTERRUPTED
            audit = asyncio.create_task(run_audit(demo, config))
            if await _unless(stop, audit):
                return INTERRUPTED
            if demo.keep:
                _print_addresses(console, config)
                await stop.wait()
            return audit.result()
        finally:
            await runner.stop()


async def _unless(stop: asyncio.Event, work: "Coroutine[Any, Any, Any] | asyncio.Task[Any]") -> bool:
    """Does the work; True when ``stop`` came first and the work was cancelled."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return True
        doing.result()
        return False
    finally:
        stopping.cancel()
        doing.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)


async def _play_scenario(
    demo: Demo, config: StackConfig, view: LiveView, runner: Runner, disturb: Disturbance | None
) -> None:
    async with httpx2.AsyncClient(timeout=REQUEST_S, trust_env=False) as http, _shown(view):
        view.phase = "播放 playing"
        (await http.post(f"{config.simulator_url}/_sim/start")).raise_for_status()
        async with asyncio.TaskGroup() as group:
            if disturb is not None:
                group.create_task(disturb(config, runner))
            done = group.create_task(_until_done(http, config.simulator_url))
        status = done.result()
        view.phase = "排空 draining"
        # Bills are read up to an instant: one at which the last of them could be read already.
        through_ms = max(int(status["last_bill_time_ms"]), int(status["clock_ms"]))
        await drained(config, bills_through_ms=through_ms, timeout_s=demo.drain_timeout_s, view=view)


@asynccontextmanager
async def _shown(view: LiveView) -> AsyncIterator[None]:
    showing = asyncio.create_task(view.run())
    try:
        yield
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing


async def _until_done(http: httpx2.AsyncClient, simulator_url: str) -> dict[str, Any]:
    """The simulator's status at the end of the scenario. Raises StartFailed when it has gone."""
    answered = time.monotonic()
    while True:
        try:
            status: dict[str, Any] = (await http.get(f"{simulator_url}/_sim/status")).raise_for_status().json()
            answered = time.monotonic()
        except httpx2.HTTPError:
            if time.monotonic() - answered > SILENT_S:
                raise StartFailed(f"the simulator has not answered for {SILENT_S:.0f} s") from None
        else:
            if status["state"] == "done":
                return status
            if status["state"] == "idle":
                raise StartFailed("the simulator was restarted and has lost its world; see log/simulator.log")
        await asyncio.sleep(STATUS_EVERY_S)


async def drained(config: StackConfig, *, bills_through_ms: int, timeout_s: float, view: LiveView) -> None:
    """Until all that arrived is in ClickHouse. Raises DrainTimeout."""
    stop, loop = threading.Event(), asyncio.get_running_loop()

    def report(text: str) -> None:
        loop.call_soon_threadsafe(view.say, text)

    def wait() -> None:
        with suppress(Stopped):
            drain(
                config,
                corps=CORPS,
                bills_through_ms=bills_through_ms,
                timeout_s=timeout_s,
                stop=stop,
                report=report,
            )

    try:
        await asyncio.to_thread(wait)
    finally:
        stop.set()


async def run_audit(demo: Demo, config: StackConfig) -> int:
    """`siyu audit` as a process of its own, as anybody else would run it; returns its exit status."""
    base = config.base_dir
    command = [sys.executable, "-m", "siyu", "audit", "--truth", str(base / "truth.json")]
    command += ["--kafka-bootstrap", config.kafka_bootstrap, "--clickhouse-url", config.clickhouse_url]
    command += ["--json", str(base / "audit.json")]
    if demo.data is not None:
        command += ["--data", str(demo.data.resolve())]
    if demo.max_freshness_p99_s is not None:
        command += ["--max-freshness-p99", str(demo.max_freshness_p99_s)]
    process = await asyncio.create_subprocess_exec(*launch.command(*command))
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _print_addresses(console: Console, config: StackConfig) -> None:
    console.print("[bold]保持运行，Ctrl-C 结束 / stays up until Ctrl-C[/]")
    addresses = {
        "Kafka": config.kafka_bootstrap,
        "ClickHouse": f"{config.clickhouse_url} (database siyu)",
        "ingest": f"{config.ingest_url}/callback/wecom/{CORPS[0]}",
        "simulator": f"{config.simulator_url}/_sim/status",
        **{f"{name} metrics": f"{config.metrics_url(name)}/metrics" for name in config.metrics_ports},
        "logs": str(config.log_dir),
    }
    for name, address in addresses.items():
        console.print(f"  {name:<20} {address}", highlight=False, soft_wrap=True)


app = typer.Typer(add_completion=False)


@app.command()
def command(
    scenario: Annotated[
        str, typer.Option(help="What is played: `siyu sim scenarios` lists them; or a file.")
    ] = Demo.scenario,
    scale: Annotated[float, typer.Option(min=0.0001, help="Share of the scenario's population.")] = Demo.scale,
    rate: Annotated[
        float, typer.Option(min=1, max=1000, help="Business seconds a second, for every process; not with data.")
    ] = Demo.rate,
    seed: Annotated[int, typer.Option(help="Decides everything that happens.")] = Demo.seed,
    staff: Annotated[int, typer.Option(min=1, help="Staff members.")] = Demo.staff,
    customers: Annotated[int, typer.Option(min=1, help="Customers of the invented day.")] = Demo.customers,
    duration: Annotated[int, typer.Option(min=10, help="Seconds of the invented day.")] = Demo.duration_s,
    data: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="online-retail.csv.gz: real purchases instead.")
    ] = None,
    join_seconds: Annotated[int, typer.Option(min=10, help="With data: seconds of joining.")] = Demo.join_s,
    replay_seconds: Annotated[int, typer.Option(min=5, help="With data: seconds of its replay.")] = Demo.replay_s,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards until Ctrl-C.")] = False,
    base_dir: Annotated[Path, typer.Option(help="Data, state and logs; emptied at the start.")] = Demo.base_dir,
    plain: Annotated[bool, typer.Option("--plain", help="A line every few seconds instead of a live screen.")] = False,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Any free ports instead of the usual.")] = False,
    drain_timeout: Annotated[float, typer.Option(help="Seconds each stage may take to drain.")] = Demo.drain_timeout_s,
    max_freshness_p99: Annotated[
        float | None, typer.Option(help="Exit with 1 when p99 of arrival → queryable reaches so many seconds.")
    ] = None,
) -> None:
    """Play a day, or a year of real purchases, through the whole system and audit it. 一键演示。"""
    if data is not None and rate != 1:
        raise typer.BadParameter("a replay has its own pace: --replay-seconds", param_hint="--rate")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    demo = Demo(
        base_dir=base_dir,
        scenario=scenario,
        scale=scale,
        rate=rate,
        seed=seed,
        staff=staff,
        customers=customers,
        duration_s=duration,
        join_s=join_seconds,
        replay_s=replay_seconds,
        data=data,
        keep=keep,
        plain=plain,
        free_ports=free_ports,
        drain_timeout_s=drain_timeout,
        max_freshness_p99_s=max_freshness_p99,
    )
    try:
        status = asyncio.run(_until_signal(demo, console))
    except LocalStackError as error:
        Console(stderr=True, highlight=False).print(f"[red]siyu demo:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    raise typer.Exit(status)


async def _until_signal(demo: Demo, console: Console) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await play(demo, console, stop=stop)
