"""TCP ports on this machine: refuse a taken one before anything starts, find free ones, see whether one answers."""

import random
import socket
from contextlib import ExitStack
from pathlib import Path

from deploy.local.errors import PortTaken

__all__ = ["answers", "check_free", "free_ports"]

# Above what services of this system and of others usually listen on.
_FIRST_PORT = 11_000
_USUAL_FIRST_EPHEMERAL_PORT = 32_768


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
    """Ports nobody listens on now. All are held until the last is found, so that no two are the same.

    From below the range the kernel hands to callers: a port out of that range can be given to somebody's connection
    between our choice and the server's bind. Each call starts elsewhere, so that processes choosing at the same time
    rarely try the same one.
    """
    lowest_for_callers = _first_ephemeral_port()
    candidates = random.SystemRandom().sample(range(_FIRST_PORT, lowest_for_callers), lowest_for_callers - _FIRST_PORT)
    with ExitStack() as held:
        found: list[int] = []
        for port in candidates:
            if len(found) == count:
                break
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            try:
                probe.bind((host, port))
            except OSError:
                continue
            found.append(port)
        return tuple(found)


def _first_ephemeral_port() -> int:
    try:
        return max(_FIRST_PORT + 1_000, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
    except (OSError, ValueError):
        return _USUAL_FIRST_EPHEMERAL_PORT


def answers(host: str, port: int, timeout_s: float = 0.5) -> bool:
    """True when something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            # Where nobody listens, the kernel may give a caller the very port it calls: it then talks to itself.
            return bool(connection.getsockname() != connection.getpeername())
    except OSError:
        return False
