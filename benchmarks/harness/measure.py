"""One run: worker processes drain preloaded topics; how long it took and what it cost, the same way for every engine.

The clock starts when the first record reaches the engine's decoder and stops when the broker shows the group's
committed offsets at the end of every input partition (offsets of an open transaction do not count). So start-up,
joining the group and restoring are excluded, the last commit is included. CPU seconds are those of the same span, of
the broker and of the workers apart. With several workers the span starts when the last of them has its first record,
and only what was not committed by then counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.harness.broker import Cluster
from benchmarks.harness.processes import cpu_seconds, resident_mb
from benchmarks.harness.worker import Job, Mark
from deploy.local import launch

_REPOSITORY = Path(__file__).resolve().parents[2]
_POLL_S = 0.02
_START_S = 120.0
_STOP_S = 30.0


class EngineFailed(Exception):
    """A worker ended or made no progress; the message says where its output is."""


class Measured(NamedTuple):
    events: int
    seconds: float
    worker_cpu_s: float
    broker_cpu_s: float
    peak_mb: float
    reports: list[dict[str, Any]]
    """What the workers say about themselves."""


class Worker:
    """One process of an engine."""

    def __init__(self, module: str, job: Job, python: str = sys.executable) -> None:
        self.job = job
        self._output = Path(job.folder) / f"output-{job.instance}.txt"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                launch.command(python, "-m", module, msgspec.json.encode(job).decode()),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
            )

    def mark(self) -> Mark | None:
        """None before its first record."""
        path = self.job.mark_file
        return msgspec.json.decode(path.read_bytes(), type=Mark) if path.exists() else None

    def check_alive(self) -> None:
        if self._process.poll() is not None:
            lines = self._output.read_text(errors="replace").splitlines()
            raise EngineFailed(
                f"{self.job.run}: worker ended with status {self._process.returncode}\n" + "\n".join(lines[-20:])
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> dict[str, Any]:
        """Lets it end in order, then its report."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            raise EngineFailed(f"{self.job.run}: worker did not stop within {_STOP_S:.0f} s") from None
        path = self.job.report_file
        return msgspec.json.decode(path.read_bytes()) if path.exists() else {}

    def kill(self) -> None:
        """Nothing may be left running, however a benchmark ends."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def measure(cluster: Cluster, workers: Sequence[Worker], timeout_s: float) -> Measured:
    """Waits until the inputs are drained and stops the workers. Raises EngineFailed."""
    try:
        return _measure(cluster, workers, timeout_s)
    finally:
        for worker in workers:
            worker.kill()


def _measure(cluster: Cluster, workers: Sequence[Worker], timeout_s: float) -> Measured:
    job = workers[0].job
    ends = {partition: end for partition, end in cluster.ends(job.inputs.values()).items() if end}
    marks = _first_records(workers)
    began, broker_began, events = marks[0].monotonic, marks[0].broker_cpu_seconds, sum(ends.values())
    workers_began = [mark.cpu_seconds for mark in marks]
    if len(workers) > 1:
        began, broker_began = time.monotonic(), cpu_seconds(job.broker_pid)
        workers_began = [cpu_seconds(worker.pid) for worker in workers]
        events -= sum(cluster.committed(job.run, ends).values())

    deadline = time.monotonic() + timeout_s
    missing = dict(ends)
    while missing:
        committed = cluster.committed(job.run, missing)
        missing = {partition: end for partition, end in missing.items() if committed.get(partition, 0) < end}
        for worker in workers:
            worker.check_alive()
        if time.monotonic() > deadline:
            left = sum(end - committed.get(partition, 0) for partition, end in missing.items())
            raise EngineFailed(f"{job.run}: {left} records left after {timeout_s:.0f} s; see {job.folder}")
        time.sleep(_POLL_S)
    seconds = time.monotonic() - began
    worker_cpu = sum(cpu_seconds(worker.pid) - before for worker, before in zip(workers, workers_began, strict=True))
    broker_cpu = cpu_seconds(job.broker_pid) - broker_began
    peak_mb = sum(resident_mb(worker.pid)["peak"] for worker in workers)
    return Measured(events, seconds, worker_cpu, broker_cpu, peak_mb, [worker.stop() for worker in workers])


def _first_records(workers: Sequence[Worker]) -> list[Mark]:
    deadline = time.monotonic() + _START_S
    while True:
        marks = [mark for worker in workers if (mark := worker.mark()) is not None]
        if len(marks) == len(workers):
            return marks
        for worker in workers:
            worker.check_alive()
        if time.monotonic() > deadline:
            raise EngineFailed(f"{workers[0].job.run}: no first record within {_START_S:.0f} s")
        time.sleep(_POLL_S)
