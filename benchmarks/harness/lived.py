"""A processor of ``siyu.stream`` that has lived: states in its changelog, offsets in its group, nothing on disk.

The changelog is compacted and holds one record a customer, in the runtime's own format and compression, laid down in
bulk; the group stands at the start of its inputs, where the events to come are. Compaction rests meanwhile: in
production it costs the brokers, which here would take it from the same two cores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks.engines.siyu_stream import processor
from benchmarks.harness.broker import COMPACTED, KEPT, PARTITIONS, Cluster
from benchmarks.harness.check import WrongOutput
from benchmarks.harness.events import CONTACT_TOPIC, PAYMENT_TOPIC
from benchmarks.harness.measure import EngineFailed, Worker
from benchmarks.harness.population import Population
from benchmarks.harness.steps import STEPS
from benchmarks.harness.worker import Job
from siyu.events import codec
from siyu.stream.clients import TRANSIENT
from siyu.stream.state import StateCodec

ENGINE = "benchmarks.engines.siyu_stream"
INPUTS = (CONTACT_TOPIC, PAYMENT_TOPIC)
_POLL_S = 0.005
_COORDINATOR_S = 30.0
_UNTOUCHED = {**COMPACTED, "min.compaction.lag.ms": "86400000"}


class Lived:
    """One such processor, under ``job.run``."""

    def __init__(self, cluster: Cluster, job: Job, population: Population) -> None:
        self.cluster = cluster
        self.job = job
        self.population = population
        self.codec: StateCodec[Any] = StateCodec(processor(job))
        self.states = 0
        """Records laid down in the changelog."""
        self.state_bytes = 0
        """Of their values."""

    @property
    def state_folder(self) -> Path:
        return Path(self.job.folder) / "state"

    def lay_down(self) -> None:
        job, step = self.job, STEPS[self.job.step]
        self.cluster.create(dict.fromkeys([*job.inputs.values(), *map(job.output, (*step.outputs, "dead"))], KEPT))
        self.cluster.create({job.output("changelog"): _UNTOUCHED})
        self.cluster.fill(self._changelog())
        group = Consumer({"bootstrap.servers": self.cluster.bootstrap, "group.id": job.run})
        starts = [TopicPartition(topic, number, 0) for topic in job.inputs.values() for number in range(PARTITIONS)]
        deadline = time.monotonic() + _COORDINATOR_S
        while True:
            try:
                group.commit(offsets=starts, asynchronous=False)
                break
            except KafkaException as error:
                # The first group a broker hears of waits until it has made the topic of the offsets.
                if error.args[0].code() not in TRANSIENT or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
        group.close()

    def _changelog(self) -> Iterator[tuple[str, bytes, bytes, int]]:
        topic, now_ms = self.job.output("changelog"), time.time_ns() // 1_000_000
        for key, state in self.population.states(self.job.step, self.codec):
            self.states += 1
            self.state_bytes += len(state)
            yield topic, key, state, now_ms

    def add_events(self) -> None:
        """All of the population's events into the inputs, at once."""
        inputs, encode = self.job.inputs, codec().encode
        self.cluster.fill(
            (inputs[name], key.encode(), encode(event), event.event_time_ms)
            for name, key, event in self.population.events()
        )

    def start(self) -> Worker:
        """A worker; its mark is that of this start."""
        self.job.mark_file.unlink(missing_ok=True)
        return Worker(ENGINE, self.job)

    def said(self, event: str) -> bool:
        """Whether the worker started last has logged this event."""
        return event in (Path(self.job.folder) / f"output-{self.job.instance}.txt").read_text(errors="replace")

    def check(self, sent: int | None = None) -> None:
        """Dead letters and states; the worker has stopped, ``sent`` or all events are applied. Raises WrongOutput."""
        if dead := sum(1 for _ in self.cluster.read(self.job.output("dead"))):
            raise WrongOutput(f"{dead} dead letters")
        self.population.check(self.job.step, self.codec, self.state_folder, sent)


@contextmanager
def lived(cluster: Cluster, broker_pid: int, name: str, step: str, population: Population) -> Iterator[Lived]:
    """Laid down, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="siyu-benchmark-") as folder:
        job = Job(
            run=name,
            bootstrap=cluster.bootstrap,
            step=step,
            inputs={topic: f"{name}.in.{topic}" for topic in INPUTS},
            records=0,
            folder=folder,
            broker_pid=broker_pid,
        )
        made = Lived(cluster, job, population)
        made.lay_down()
        yield made
    cluster.delete(cluster.topics(f"{name}."))


def wait(worker: Worker, what: str, condition: Callable[[], bool], timeout_s: float = 120.0) -> float:
    """Until ``condition`` holds; the monotonic time when it was first seen to. Raises EngineFailed."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        worker.check_alive()
        if time.monotonic() > deadline:
            raise EngineFailed(f"{worker.job.run}: no {what} within {timeout_s:.0f} s")
        time.sleep(_POLL_S)
    return time.monotonic()
