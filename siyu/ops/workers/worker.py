"""One of several worker processes: it says in every log line which one it is, and it never outlives its parent."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import NamedTuple

from siyu.ops.logging import in_every_line

_PR_SET_PDEATHSIG = 1


class Worker(NamedTuple):
    """What the parent gave this process."""

    number: int
    """From 0."""
    listener: socket.socket
    """Where it answers /livez, /readyz and /metrics. The parent bound it, so it knows the port before there is a
    worker, nobody else can take it, and a worker that is started again answers at the same place."""


_this: Worker | None = None


def this_worker() -> Worker | None:
    """None in a process that is not one of several."""
    return _this


def become_worker(number: int, listener_fd: int, parent_pid: int) -> None:
    """Makes this process a worker; before anything else of the service runs. Exits when the parent is gone already."""
    global _this
    _die_with(parent_pid)
    _this = Worker(number, socket.socket(fileno=listener_fd))
    in_every_line(worker=number)


def _die_with(parent_pid: int) -> None:
    """Asks the kernel for SIGKILL at the parent's death (Linux): nobody would restart or stop an orphan.

    Elsewhere an orphan lives on until its successor fences it. The kernel watches the thread that forked: the parent
    starts workers from its main thread.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # It may have died before the request was made; then nobody would ever send the signal.
        if os.getppid() != parent_pid:
            sys.exit(f"parent {parent_pid} is gone")
