"""A steady load: a process that sends event *n* at ``begin + n / rate``, however the reader fares (an open loop).

Whoever measures a delay takes it from that planned time, so a sender that is held up counts as delay and is never left
out of it. ``python -m benchmarks.harness.steady`` is the process; ``steady`` runs it.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from confluent_kafka import Producer

from benchmarks.harness.measure import EngineFailed
from benchmarks.harness.population import Population
from deploy.local import launch
from siyu.events import codec

_REPOSITORY = Path(__file__).resolve().parents[2]
_LEAD_S = 0.1
_STOP_S = 30.0


class Load(msgspec.Struct):
    """The events of a population, at a rate."""

    bootstrap: str
    inputs: dict[str, str]
    """Name of an input → topic."""
    customers: int
    events: int
    seed: int
    per_second: float

    def population(self) -> Population:
        return Population(self.customers, self.events, self.seed)


class Begun(msgspec.Struct):
    begin: float
    """On the monotonic clock, the same in every process of the machine."""


class Sent(msgspec.Struct):
    """What was sent, each event acknowledged."""

    events: int
    late_ms_p99: float
    """Handed to the client after the planned time."""
    late_ms_max: float


class Steady:
    """The running process, from its first event on."""

    def __init__(self, load: Load) -> None:
        self._process = subprocess.Popen(
            launch.command(sys.executable, "-m", "benchmarks.harness.steady", msgspec.json.encode(load).decode()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EngineFailed("the steady load did not start")
        self._begin = msgspec.json.decode(line, type=Begun).begin
        self._per_second = load.per_second

    def planned(self, number: int) -> float:
        """When event ``number`` is due, on the monotonic clock."""
        return self._begin + number / self._per_second

    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> Sent:
        """Ends it, before its last event if that is still to come."""
        output, _ = self._process.communicate(timeout=_STOP_S)
        if self._process.returncode:
            raise EngineFailed(f"the steady load ended with status {self._process.returncode}")
        return msgspec.json.decode(output, type=Sent)

    def kill(self) -> None:
        if self.running():
            self._process.kill()
            self._process.wait()


@contextmanager
def steady(load: Load) -> Iterator[Steady]:
    """Sends meanwhile, unless stopped before."""
    running = Steady(load)
    try:
        yield running
    finally:
        running.kill()


def _wait(until: float) -> bool:
    """False when standard input was closed: the load shall end."""
    while True:
        left = until - time.monotonic()
        if select.select([sys.stdin], [], [], max(0.0, left))[0]:
            return False
        if left <= 0:
            return True


def main() -> None:
    load = msgspec.json.decode(sys.argv[1], type=Load)
    producer = Producer(
        {"bootstrap.servers": load.bootstrap, "partitioner": "murmur2_random", "enable.idempotence": True}
    )
    producer.list_topics(timeout=_STOP_S)
    encode = codec().encode
    late: list[float] = []
    begin = 0.0
    for number, (name, key, event) in enumerate(load.population().events()):
        if not number:
            begin = time.monotonic() + _LEAD_S
            print(msgspec.json.encode(Begun(begin)).decode(), flush=True)
        planned = begin + number / load.per_second
        topic, data = load.inputs[name], encode(event)
        if not _wait(planned):
            break
        late.append(time.monotonic() - planned)
        # No time given: records carry that of their sending, as ingest's do.
        producer.produce(topic, data, key.encode())
        producer.poll(0)
    if producer.flush(_STOP_S):
        sys.exit("records not acknowledged")
    late.sort()
    sent = Sent(len(late), round(late[len(late) * 99 // 100] * 1000, 2), round(late[-1] * 1000, 2))
    print(msgspec.json.encode(sent).decode())


if __name__ == "__main__":
    main()
