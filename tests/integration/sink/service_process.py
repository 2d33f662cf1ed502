"""A service as a process of its own: what a supervisor would start, watch, stop and lose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2

from deploy.local import launch
from deploy.local.ports import free_ports

PATIENCE_S = 60.0


def eventually(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Returns as soon as the condition holds."""
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, f"did not happen within {patience_s:.0f} s: {what}"
        time.sleep(0.05)


class ServiceProcess:
    """``python -m services.<name>`` with settings of its own."""

    def __init__(self, name: str, settings: dict[str, str], log: Path) -> None:
        (self.port,) = free_ports(1)
        self.log = log
        self._argv = [sys.executable, "-m", f"services.{name}"]
        own = {key: value for key, value in os.environ.items() if not key.startswith("SIYU_")}
        self._environment = own | settings | {"SIYU_METRICS_PORT": str(self.port)}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                launch.command(*self._argv), env=self._environment, stdout=output, stderr=output
            )

    def wait_ready(self) -> None:
        eventually(lambda: self.get("/readyz") == (200, "ok\n"), f"ready; see {self.log}")

    def get(self, path: str) -> tuple[int, str]:
        """Status and text; (0, "") while nothing listens."""
        try:
            answer = httpx2.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)
        except httpx2.TransportError:
            return 0, ""
        return answer.status_code, answer.text

    def metric(self, sample: str) -> float:
        """Value of a sample as it stands in the exposition, 0 when it is not there."""
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(sample + " "):
                return float(line.split(" ")[1])
        return 0.0

    @property
    def exit_status(self) -> int | None:
        return self._process.poll() if self._process else None

    def wait_exit(self) -> int:
        assert self._process is not None
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait_exit()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
