"""TCP ports on this machine: refuse a taken one before anything starts, find free ones, see whether one answers."""

import socket
from contextlib import ExitStack

from deploy.local.errors import PortTaken

__all__ = ["answers", "check_free", "free_ports"]


def check_free(what: str, host: str, port: int, setting: str) -> None:
    """Raise PortTaken when `port` cannot be listened on; `setting` is what the operator changes to move it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a port whose last connections are still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as refused:
            raise PortTaken(what, host, port, setting) from refused


def free_ports(count: int, host: str = "127.0.0.1") -> tuple[int, ...]:
    """Ports nobody listens on now. All are held until the last is found, so that no two are the same."""
    with ExitStack() as held:
        found = []
        for _ in range(count):
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, 0))
            found.append(int(probe.getsockname()[1]))
        return tuple(found)


def answers(host: str, port: int, timeout_s: float = 0.5) -> bool:
    """True when something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            # Where nobody listens, the kernel may give a caller the very port it calls: it then talks to itself.
            return bool(connection.getsockname() != connection.getpeername())
    except OSError:
        return False
