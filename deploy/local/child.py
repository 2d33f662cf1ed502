"""A server as a child process: stopped in order, killed when asked, gone when its starter is gone."""

import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

__all__ = ["ChildServer"]

STOP_GRACE_S = 20.0


class ChildServer(ABC):
    """What the broker and the engine have in common: one process, and the ways in which it ends.

    A subclass sets ``_process`` in ``start`` and returns from ``wait_ready`` once the server answers.
    """

    def __init__(self, data_dir: Path, port: int, host: str) -> None:
        self.data_dir = data_dir.resolve()
        self.host = host
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Start the process; ``wait_ready`` then waits for it."""

    @abstractmethod
    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once it answers. Raises StartFailed when it ended or took longer."""

    @property
    def pid(self) -> int | None:
        """The server's process, also after its death; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def exit_status(self) -> int | None:
        """None while the server runs."""
        return self._process.poll() if self._process else None

    def stop(self) -> None:
        """Stop in order (SIGTERM); SIGKILL after a grace of 20 s. Stopping a stopped server changes nothing."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: what a lost machine looks like."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
