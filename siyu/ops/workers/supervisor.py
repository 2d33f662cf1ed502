"""Keeps several workers of one service running and answers for all of them.

A worker that ends is started again after a pause, except when it says that a person is needed (78): then all stop,
since the others would say the same at their next start. A signal stops all, in order and within a bound. A worker is
an instance of its own (``<instance>-<number>``), so it has its own stores and its own place in the consumer group, and
a restart within the group's session timeout moves no partition.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry

from siyu.ops.health import OpsServer
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.processor import NEEDS_A_PERSON
from siyu.ops.settings import ServiceSettings
from siyu.ops.workers.metrics import ACCEPT, SupervisorMetrics, WorkersCollector

STOP_SECONDS = 25.0
"""Kubernetes kills what has not ended 30 s after SIGTERM; a worker waits 10 s for an unreachable broker."""
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a worker that ended is started again; the last one repeats."""
# A worker that ran for so long had recovered: the next pause is the shortest again.
_STEADY_SECONDS = 60.0
# A process that has not answered yet is starting; it may take so long before that counts as standing still.
_START_SECONDS = 60.0
_ANSWER_SECONDS = 2.0
_HOST = "127.0.0.1"
_FENCED = 75


def run_workers(module: str, settings: ServiceSettings, count: int) -> int:
    """Runs ``python -m module`` ``count`` times until SIGTERM or SIGINT; returns the exit code.

    0 after a signal, 78 when a worker needs a person or the port is taken, 128 + n when a second signal n came.
    Call it from the main thread.
    """
    configure_logging(module.rpartition(".")[2], settings.log_level)
    return asyncio.run(_Supervisor(module, settings, count).run())


class _Process:
    """One worker, whichever process it is just now."""

    def __init__(self, module: str, settings: ServiceSettings, number: int, metrics: SupervisorMetrics) -> None:
        self.number = number
        self.instance = f"{settings.instance}-{number}"
        self._module = module
        self._metrics = metrics
        self._log = get_logger().bind(worker=number, instance=self.instance)
        self._listener = socket.create_server((_HOST, 0))
        self._port: int = self._listener.getsockname()[1]
        self._process: asyncio.subprocess.Process | None = None
        self._started = 0.0
        self._answered = False
        self._ended = "not started yet"

    async def keep(self) -> None:
        """Runs it again and again until cancelled; returns only when a person is needed."""
        pauses = iter(PAUSES)
        while True:
            status = await self._run_once()
            if status == NEEDS_A_PERSON:
                self._log.error("worker_needs_a_person", status=status)
                return
            if time.monotonic() - self._started > _STEADY_SECONDS:
                pauses = iter(PAUSES)
            pause = next(pauses, PAUSES[-1])
            how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            self._ended = f"{how}, starts again after {pause:g} s"
            self._log.warning("worker_ended", reason=_reason(status), status=status, retry_in_seconds=pause)
            await asyncio.sleep(pause)
            self._metrics.restarted(self.number, _reason(status))

    async def _run_once(self) -> int:
        """One life of the worker. When cancelled it ends the process, in order if it can."""
        environment = {
            **os.environ,  # passed on, not read
            "SIYU_INSTANCE": self.instance,
            "SIYU_METRICS_HOST": _HOST,
            "SIYU_METRICS_PORT": str(self._port),
        }
        descriptor = self._listener.fileno()
        self._started, self._answered = time.monotonic(), False
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "siyu.ops.workers"),
            *(self._module, str(self.number), str(descriptor), str(os.getpid())),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(descriptor,),
            env=environment,
            # Ctrl-C reaches the whole group of the terminal: a worker would see it and our SIGTERM, two signals.
            start_new_session=True,
        )
        self._process = process
        self._metrics.up(self.number, True)
        self._log.info("worker_started", pid=process.pid, port=self._port)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            await self._end(process)
            raise
        finally:
            self._process = None
            self._metrics.up(self.number, False)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._log.error("worker_killed", limit=STOP_SECONDS)
            self.signal(signal.SIGKILL)
            await process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens when it does not run."""
        if self._process is not None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                pass  # it has ended by itself just now

    def close(self) -> None:
        self._listener.close()

    # -- called from the threads of the HTTP server

    def live(self) -> str | None:
        """Why it stands still. One that has ended does not: it is being started again, and nobody need do more."""
        if self._process is None:
            return None
        reason = self._check("/livez")
        starting = not self._answered and time.monotonic() - self._started < _START_SECONDS
        return None if starting else reason

    def ready(self) -> str | None:
        if self._process is None:
            return self._ended
        return self._check("/readyz")

    def exposition(self) -> str | None:
        """Its metrics as OpenMetrics text; None when it does not answer."""
        if self._process is None:
            return None
        try:
            status, text = self._get("/metrics")
        except (OSError, http.client.HTTPException):
            return None
        return text if status == http.client.OK else None

    def _check(self, path: str) -> str | None:
        try:
            status, text = self._get(path)
        except (OSError, http.client.HTTPException):
            return "does not answer" if self._answered else "starting"
        return None if status == http.client.OK else text.strip()

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", path, headers={"Accept": ACCEPT})
            answer = connection.getresponse()
            status, text = answer.status, answer.read().decode()
        finally:
            connection.close()
        self._answered = True
        return status, text


class _Supervisor:
    """All workers of one service."""

    def __init__(self, module: str, settings: ServiceSettings, count: int) -> None:
        self._settings = settings
        self._log = get_logger()
        self._registry = CollectorRegistry()
        metrics = SupervisorMetrics(self._registry, count)
        self._workers = [_Process(module, settings, number, metrics) for number in range(count)]
        self._registry.register(WorkersCollector(self._expositions))
        self._threads = ThreadPoolExecutor(max_workers=4 * count, thread_name_prefix="ask-workers")
        self._signals: list[signal.Signals] = []
        self._asked = asyncio.Event()

    async def run(self) -> int:
        settings = self._settings
        try:
            ops = OpsServer(
                settings.metrics_host,
                settings.metrics_port,
                registry=self._registry,
                live=lambda: self._all([worker.live for worker in self._workers]),
                ready=lambda: self._all([worker.ready for worker in self._workers]),
            )
        except OSError:
            self._log.error("port_taken", port=settings.metrics_port, detail="set SIYU_METRICS_PORT to a free port")
            return NEEDS_A_PERSON
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        self._log.info("workers_started", count=len(self._workers), port=ops.port, settings=settings.redacted())
        try:
            return await self._keep_all()
        finally:
            ops.close()
            self._threads.shutdown()
            for worker in self._workers:
                worker.close()

    async def _keep_all(self) -> int:
        asked = asyncio.create_task(self._asked.wait())
        keepers = [asyncio.create_task(worker.keep()) for worker in self._workers]
        await asyncio.wait([asked, *keepers], return_when=asyncio.FIRST_COMPLETED)
        exit_code = 0 if asked.done() else NEEDS_A_PERSON
        for task in (asked, *keepers):
            task.cancel()
        await asyncio.wait([asked, *keepers])
        for keeper in keepers:
            if not keeper.cancelled():
                keeper.result()  # raises what a keeper failed with: a defect of ours
        if len(self._signals) > 1:
            exit_code = 128 + self._signals[-1]
        self._log.info("workers_stopped", status=exit_code)
        return exit_code

    def _on_signal(self, number: signal.Signals) -> None:
        """The first stops all in order; another one does not wait for it."""
        if self._signals:
            for worker in self._workers:
                worker.signal(signal.SIGKILL)
        self._signals.append(number)
        self._asked.set()

    def _all(self, checks: list[Callable[[], str | None]]) -> str | None:
        """None when every check is None, else each reason with its worker's number."""
        reasons = self._threads.map(lambda check: check(), checks)
        wrong = [f"worker {number}: {reason}" for number, reason in enumerate(reasons) if reason is not None]
        return "; ".join(wrong) or None

    def _expositions(self) -> Iterator[tuple[int, str]]:
        texts = self._threads.map(lambda worker: worker.exposition(), self._workers)
        return ((number, text) for number, text in enumerate(texts) if text is not None)


def _reason(status: int) -> str:
    """Why a worker ended, from a closed set."""
    if status < 0:
        return "killed"
    return {0: "ended", _FENCED: "fenced"}.get(status, "crashed")
