"""Memory of a running process over time, sampled from /proc (Linux)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.processes import resident_mb

_EVERY_S = 0.25


class Memory:
    """Megabytes resident (RSS) and, of the same samples, the process's share of them (PSS: shared pages divided)."""

    def __init__(self) -> None:
        self.resident: list[float] = []
        self.share: list[float] = []

    def sample(self, pid: int) -> bool:
        """False when the process is gone."""
        try:
            resident = resident_mb(pid)["now"]
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (OSError, KeyError):  # a process that has ended keeps its name for a moment, without memory
            return False
        share = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
        self.resident.append(resident)
        self.share.append(round(int(share.split()[1]) / 1024, 1))
        return True


@contextmanager
def watching(pid: int) -> Iterator[Memory]:
    """Samples until the end of the block, or of the process."""
    memory, ended = Memory(), threading.Event()

    def watch() -> None:
        while memory.sample(pid) and not ended.wait(_EVERY_S):
            pass

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()
