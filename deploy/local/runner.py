"""Several processes as one: started as their dependencies allow, kept alive, stopped in order, none ever left behind.

A process starts when everything it depends on is ready (a step: is done). One that ends although nobody asked is
started again after a backoff of 0.5 to 5 s. `stop()` ends dependants before what they depend on: SIGTERM, a grace,
SIGKILL. Each process leads a process group of its own, and dies with the runner even when that is killed with SIGKILL
(see launch.py). Run everything here from one event loop.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deploy.local import launch
from deploy.local.errors import StartFailed
from deploy.local.ports import check_free
from deploy.local.probes import is_ready

__all__ = ["Event", "Port", "Process", "Runner", "print_event"]

BACKOFF_S = (0.5, 1.0, 2.0, 5.0)
# A process that ran this long has recovered: the next backoff begins anew.
STEADY_S = 30.0
PROBE_EVERY_S = 0.05

EventKind = Literal["started", "ready", "done", "died", "stopped"]


@dataclass(frozen=True)
class Port:
    """A port a process listens on, and the setting that moves it."""

    number: int
    setting: str
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Process:
    """One process, as declared. A step (`one_shot`) runs to its end, and is done when it ended with status 0."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: str | None = None
    """`tcp://…`, `kafka://…` or `http://…` (probes.py); None: ready once started."""
    depends_on: Sequence[str] = ()
    ports: Sequence[Port] = ()
    restart: bool = True
    one_shot: bool = False
    ready_timeout_s: float = 60.0
    stop_grace_s: float = 20.0


@dataclass(frozen=True)
class Event:
    """Something worth a line."""

    process: str
    kind: EventKind
    text: str


def print_event(event: Event) -> None:
    print(f"{time.strftime('%H:%M:%S')} {event.process:<12} {event.text}", flush=True)


class Running:
    """One process, as it is now."""

    def __init__(self, declared: Process) -> None:
        self.declared = declared
        self.restarts = 0
        self._current: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._late = False
        self._stopping = asyncio.Event()
        # Set while there is no process, not even one about to be born.
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._current.pid if self._current is not None and self._current.returncode is None else None

    @property
    def ready(self) -> bool:
        return self._ready.is_set()


class Runner:
    """`await start()`, then `stop()`; between them `process`, `kill` and `wait_ready`."""

    def __init__(
        self,
        processes: Sequence[Process],
        log_dir: Path,
        *,
        base_env: Mapping[str, str] | None = None,
        on_event: Callable[[Event], None] = print_event,
    ) -> None:
        """`base_env` is the environment every process gets besides its own; None: this process's.

        Raises ValueError when a dependency is unknown or circular.
        """
        self._running = {declared.name: Running(declared) for declared in processes}
        self._order = _in_order(processes)
        self._log_dir = log_dir
        # Passed on, not read: PATH, HOME and what the operator set for the services.
        self._base_env = dict(os.environ if base_env is None else base_env)
        self._on_event = on_event
        self._supervisors: dict[str, asyncio.Task[None]] = {}

    def process(self, name: str) -> Running:
        return self._running[name]

    def log_file(self, name: str) -> Path:
        return self._log_dir / f"{name}.log"

    async def start(self) -> None:
        """Return when everything is ready. Raises PortTaken or StartFailed, with everything stopped again."""
        for running in self._running.values():
            for port in running.declared.ports:
                check_free(running.name, port.host, port.number, port.setting)
        self._log_dir.mkdir(parents=True, exist_ok=True)
        for name in self._order:
            self._supervisors[name] = asyncio.create_task(self._supervise(self._running[name]), name=f"runner:{name}")
        everything_ready = asyncio.ensure_future(
            asyncio.gather(*(running._ready.wait() for running in self._running.values()))
        )
        try:
            # A supervisor ends before `stop()` only by failing, or because its process is a step that is done.
            waiting: set[asyncio.Future[Any]] = {everything_ready, *self._supervisors.values()}
            while not everything_ready.done():
                finished, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in finished - {everything_ready}:
                    task.result()
        except BaseException:
            everything_ready.cancel()
            # Its end is looked at, or asyncio would report it as forgotten.
            await asyncio.gather(everything_ready, return_exceptions=True)
            await self.stop()
            raise

    async def wait_ready(self, name: str, timeout_s: float = 60.0) -> None:
        """Return once the process is ready (again). Raises StartFailed when it takes longer."""
        try:
            await asyncio.wait_for(self._running[name]._ready.wait(), timeout_s)
        except TimeoutError:
            raise StartFailed(f"{name} not ready within {timeout_s:.0f} s; see {self.log_file(name)}") from None

    async def kill(self, name: str) -> None:
        """SIGKILL, as a lost machine would; returns when it is dead. The runner then starts it again."""
        running = self._running[name]
        running._ready.clear()
        _signal_group(running, signal.SIGKILL)
        await running._ended.wait()

    async def stop(self) -> None:
        """End everything, dependants first. Returns when nothing is left; a second call changes nothing."""
        for running in self._running.values():
            running._stopping.set()
        stops: dict[str, asyncio.Task[None]] = {}
        for name in reversed(self._order):
            dependants = [stops[other] for other in stops if name in self._running[other].declared.depends_on]
            stops[name] = asyncio.create_task(self._stop_one(name, dependants))
        await asyncio.gather(*stops.values())
        for task in self._supervisors.values():
            task.cancel()
        await asyncio.gather(*self._supervisors.values(), return_exceptions=True)

    async def run(self) -> None:
        """Start, stay until SIGTERM or Ctrl-C, stop. A second signal does not wait for the grace."""
        loop = asyncio.get_running_loop()
        asked_to_stop = asyncio.Event()

        def on_signal() -> None:
            if asked_to_stop.is_set():
                for running in self._running.values():
                    _signal_group(running, signal.SIGKILL)
            asked_to_stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        starting = asyncio.create_task(self.start())
        stopping = asyncio.create_task(asked_to_stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await stopping
        finally:
            starting.cancel()
            stopping.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            await self.stop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _supervise(self, running: Running) -> None:
        declared = running.declared
        for name in declared.depends_on:
            await self._running[name]._ready.wait()
        backoff = iter(BACKOFF_S)
        while not running._stopping.is_set():
            began = time.monotonic()
            process = await self._spawn(running)
            watching = asyncio.create_task(self._watch(running, began))
            status = await process.wait()
            was_ready = running._ready.is_set()
            watching.cancel()
            # What the process itself started and left behind goes with it.
            _signal_group(running, signal.SIGKILL)
            running._current = None
            running._ended.set()
            if running._stopping.is_set():
                return
            if declared.one_shot and status == 0:
                running._ready.set()
                self._tell(running, "done", f"done in {time.monotonic() - began:.1f} s")
                return
            running._ready.clear()
            ended = f"ended with status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
            if running._late:
                ended = f"was not ready within {declared.ready_timeout_s:.0f} s"
            # A process that never came up has a reason the operator must see; killed from outside it may yet.
            never_came_up = running.restarts == 0 and not was_ready and (status > 0 or running._late)
            if declared.one_shot or never_came_up or not declared.restart:
                self._tell(running, "died", f"{ended}; see {self.log_file(running.name)}")
                raise StartFailed(f"{running.name} {ended}: {self._last_line(running.name)}")
            if time.monotonic() - began > STEADY_S:
                backoff = iter(BACKOFF_S)
            pause = next(backoff, BACKOFF_S[-1])
            self._tell(running, "died", f"{ended}; starting again in {pause:g} s")
            await asyncio.sleep(pause)
            running.restarts += 1

    async def _spawn(self, running: Running) -> asyncio.subprocess.Process:
        declared = running.declared
        running._ended.clear()
        running._late = False
        with self.log_file(running.name).open("ab") as output:
            # From the event loop's thread: the kernel ties the child to the thread that forks (launch.py).
            process = await asyncio.create_subprocess_exec(
                *launch.command(*declared.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**self._base_env, **declared.env},
                start_new_session=True,
            )
        running._current = process
        again = f" again ({running.restarts})" if running.restarts else ""
        self._tell(running, "started", f"started{again}, pid {process.pid}")
        if running._stopping.is_set():
            _signal_group(running, signal.SIGTERM)
        return process

    async def _watch(self, running: Running, began: float) -> None:
        declared = running.declared
        if declared.one_shot:
            return
        while declared.ready is not None and not await is_ready(declared.ready):
            if not running._late and time.monotonic() - began > declared.ready_timeout_s:
                running._late = True
                _signal_group(running, signal.SIGKILL)
            await asyncio.sleep(PROBE_EVERY_S)
        running._ready.set()
        self._tell(running, "ready", f"ready in {time.monotonic() - began:.1f} s")

    async def _stop_one(self, name: str, dependants: Sequence[asyncio.Task[None]]) -> None:
        running = self._running[name]
        await asyncio.gather(*dependants)
        if running._ended.is_set():
            return
        _signal_group(running, signal.SIGTERM)
        try:
            await asyncio.wait_for(running._ended.wait(), running.declared.stop_grace_s)
            self._tell(running, "stopped", "stopped")
        except TimeoutError:
            _signal_group(running, signal.SIGKILL)
            await running._ended.wait()
            self._tell(running, "stopped", f"did not stop within {running.declared.stop_grace_s:.0f} s: killed")

    def _tell(self, running: Running, kind: EventKind, text: str) -> None:
        self._on_event(Event(running.name, kind, text))

    def _last_line(self, name: str) -> str:
        lines = [line for line in self.log_file(name).read_text(errors="replace").splitlines() if line.strip()]
        return f"{lines[-1].strip() if lines else 'it said nothing'} (see {self.log_file(name)})"


def _signal_group(running: Running, number: signal.Signals) -> None:
    if running._current is None:
        return
    try:
        os.killpg(running._current.pid, number)
    except ProcessLookupError:
        pass


def _in_order(processes: Sequence[Process]) -> list[str]:
    waiting = {declared.name: set(declared.depends_on) for declared in processes}
    if len(waiting) != len(processes):
        raise ValueError("two processes have the same name")
    unknown = set().union(*waiting.values()) - waiting.keys()
    if unknown:
        raise ValueError(f"processes depend on {sorted(unknown)}, which nobody declares")
    order: list[str] = []
    while waiting:
        free = [name for name, needed in waiting.items() if not needed - set(order)]
        if not free:
            raise ValueError(f"processes depend on each other in a circle: {sorted(waiting)}")
        order += free
        for name in free:
            del waiting[name]
    return order
