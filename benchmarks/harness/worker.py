"""A worker's side of a run: its job, the mark it leaves at the first record, its report at the end.

An engine's process reads its job with ``Job.load()``, calls ``first_record`` when the first record reaches its decoder
(``MarkingCodec`` does it), lives until its standard input is closed and then leaves ``report``. Imports nothing but the
events: engines run in environments of their own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.steps import STEPS
from siyu.events import codec


class Mark(msgspec.Struct):
    """The moment of the first record. ``monotonic`` is the same clock in every process of the machine."""

    monotonic: float
    cpu_seconds: float
    broker_cpu_seconds: float


class Job(msgspec.Struct):
    """What one worker process does in one run."""

    run: str
    """Name of the run: the consumer group, and the beginning of every topic the run writes."""
    bootstrap: str
    step: str
    inputs: dict[str, str]
    """Name of an input → topic."""
    records: int
    """Over all inputs and workers."""
    folder: str
    """Where its states, its mark and its report go."""
    broker_pid: int
    instance: int = 0

    @classmethod
    def load(cls) -> Job:
        return msgspec.json.decode(sys.argv[1], type=cls)

    def output(self, name: str) -> str:
        return f"{self.run}.{name}"

    @property
    def mark_file(self) -> Path:
        return Path(self.folder) / f"mark-{self.instance}.json"

    @property
    def report_file(self) -> Path:
        return Path(self.folder) / f"report-{self.instance}.json"

    def first_record(self) -> None:
        """Leaves the mark; later calls change nothing."""
        if self.mark_file.exists():
            return
        mark = Mark(time.monotonic(), cpu_seconds(os.getpid()), cpu_seconds(self.broker_pid))
        _write(self.mark_file, msgspec.json.encode(mark))

    def report(self, report: dict[str, Any]) -> None:
        _write(self.report_file, msgspec.json.encode(report))


class MarkingCodec:
    """The events' codec and the step's outputs', which marks the first record and from then on is the codec itself."""

    def __init__(self, job: Job) -> None:
        shared = codec()
        self.encode = STEPS[job.step].encode
        self.decode: Callable[[bytes], Any]

        def first(data: bytes) -> Any:
            if self.decode is first:
                job.first_record()
                self.decode = shared.decode
            return shared.decode(data)

        self.decode = first


def stop_event() -> threading.Event:
    """Set when the parent closes our standard input, or is gone. No signal: engines have handlers of their own."""
    stop = threading.Event()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    return stop


def _write(path: Path, data: bytes) -> None:
    """Readers see all of it or nothing."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.rename(path)
