"""A broker that is made to go away and come back, beside a controller that stays.

A Kafka coordinator (4.3.1) that ends a transaction whose partitions have no leader takes them for deleted: it forgets
the markers, and readers of committed records wait at that transaction for ever. With more brokers another one leads at
once; a single one has three ways into it, and here each is closed:

* a node that is broker and controller comes back from ``kill -9`` as the leader it was, loads its transactions, and is
  then deposed for its old session: so the controller is a process of its own, as in production;
* the same happens to a broker that is back before its controller has missed it: so it is away for longer (``AWAY_S``);
* a controlled shutdown gives the leadership away while the coordinator still lives: so SIGTERM ends it without one.

``forgot_markers`` says whether it happened all the same: then the run says nothing about the workers.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

from deploy.local.errors import PortTaken
from deploy.local.kafka import LocalKafka
from deploy.local.ports import answers

# What a stopping worker may still wait for a broker that has only just come back (stop_grace_ms, and its start).
SETTLES_S = 20.0
FORGOTTEN = "Couldn't find leader endpoint for partitions"


class _Node(LocalKafka):
    """One of the two, told apart by what its settings add: the last line of a setting counts."""

    properties: dict[str, str]

    def _write_properties(self) -> Path:
        path = super()._write_properties()
        with path.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in self.properties.items())
        return path


class Cluster:
    """Controller and broker. Nothing blocks for long: ``tend`` does what is due."""

    def __init__(self, folder: Path, broker_port: int, controller_port: int, say: Callable[[str], None]) -> None:
        self._controller = _Node(folder / "controller", broker_port, controller_port)
        address = f"CONTROLLER://{self._controller.host}:{controller_port}"
        self._controller.properties = {
            "process.roles": "controller",
            "listeners": address,
            "advertised.listeners": address,
        }
        self._broker = _Node(folder / "broker", broker_port, controller_port)
        self._broker.properties = {
            "process.roles": "broker",
            "node.id": "2",
            "listeners": f"PLAINTEXT://{self._broker.bootstrap}",
            "controlled.shutdown.enable": "false",
        }
        self._say = say
        self._start_at: float | None = None
        self._settled_at: float | None = 0.0
        """None from its start until it can be spoken to."""

    @property
    def bootstrap(self) -> str:
        return self._broker.bootstrap

    def start(self) -> None:
        """Returns when the broker serves. Raises LocalStackError."""
        self._controller.start()
        self._join_cluster()
        self._broker.start()
        self._broker.wait_ready()

    def _join_cluster(self) -> None:
        """A formatted folder for the broker: the controller's cluster, its own name."""
        theirs = (self._controller.data_dir / "log" / "meta.properties").read_text()
        own = {"node.id": "2", "directory.id": urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")}
        log = self._broker.data_dir / "log"
        log.mkdir(parents=True)
        kept = [line for line in theirs.splitlines() if line.partition("=")[0] not in own]
        (log / "meta.properties").write_text("\n".join([*kept, *(f"{k}={v}" for k, v in own.items()), ""]))

    def bounce(self, seconds: float, *, hard: bool) -> bool:
        """Ends the broker, by SIGKILL or SIGTERM; it starts again after so many seconds. False: it is away already."""
        if self._start_at is not None or self._broker.pid is None:
            return False
        os.kill(self._broker.pid, signal.SIGKILL if hard else signal.SIGTERM)
        self._start_at = time.monotonic() + seconds
        return True

    def tend(self) -> None:
        """Starts the broker when its time has come, and notices when it can be spoken to."""
        if self._settled_at is None and self.serves():
            self._settled_at = time.monotonic() + SETTLES_S
        if self._start_at is None or time.monotonic() < self._start_at or self._broker.exit_status is None:
            return
        try:
            self._broker.start()
        except PortTaken:
            # On loopback a client that tries to connect may for a moment be given the very port it tries.
            return
        self._say("the broker is started again")
        self._start_at = self._settled_at = None

    def serves(self) -> bool:
        """Started, and on its way far enough to be spoken to."""
        return self._start_at is None and answers(self._broker.host, self._broker.port)

    def troubled(self) -> bool:
        """Away, or back for so short a time that a worker may not have noticed."""
        return self._start_at is not None or self._settled_at is None or time.monotonic() < self._settled_at

    def forgot_markers(self) -> bool:
        """The broker has ended a transaction without telling all its partitions."""
        return FORGOTTEN in self._broker.log_file.read_text(errors="replace")

    def end(self) -> None:
        """For good, and at once."""
        self._broker.kill()
        self._controller.kill()
