"""An engine over preloaded events: topics made, workers run and measured, outputs checked, topics gone again."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from benchmarks.harness.broker import COMPACTED, KEPT, Cluster
from benchmarks.harness.check import Checked, Checker, WrongOutput
from benchmarks.harness.events import CONTACT_TOPIC, PAYMENT_TOPIC, Data
from benchmarks.harness.measure import Measured, Worker, measure
from benchmarks.harness.steps import Step
from benchmarks.harness.worker import Job
from siyu.events import codec
from siyu.stream import Processor
from siyu.stream.state import StateCodec

_SLOWEST_PER_S = 500
"""An engine slower than this is taken for stuck."""

StateReader = Callable[[Cluster, str, Step], Iterator[tuple[bytes, Any]]]
"""(cluster, run, step) → key and state or None of every changelog record, in order within a partition."""


class Engine(NamedTuple):
    name: str
    module: str
    guarantee: str
    states: StateReader | None
    """None: it keeps no states and writes nothing."""
    python: Callable[[], str] = lambda: sys.executable
    """Finds, or makes, the environment it runs in."""


class Inputs(NamedTuple):
    """Events that lie in their topics."""

    data: Data
    topics: dict[str, str]


def preload(cluster: Cluster, data: Data) -> Inputs:
    """Every event into its input topic, acknowledged."""
    topics = {name: f"in{data.count}.{name}" for name in (CONTACT_TOPIC, PAYMENT_TOPIC)}
    cluster.create(dict.fromkeys(topics.values(), KEPT))
    encode = codec().encode
    cluster.fill((topics[name], key.encode(), encode(event), event.event_time_ms) for name, key, event in data.events())
    return Inputs(data, topics)


def run(
    cluster: Cluster,
    broker_pid: int,
    engine: Engine,
    step: Step,
    inputs: Inputs,
    checker: Checker | None,
    *,
    name: str,
    workers: int = 1,
) -> tuple[Measured, Checked | None]:
    """One run named ``name``. Raises EngineFailed and WrongOutput."""
    if engine.states is not None:
        cluster.create({f"{name}.{output}": KEPT for output in (*step.outputs, "dead")})
    if engine.states is siyu_states:
        cluster.create({f"{name}.changelog": COMPACTED})
    with tempfile.TemporaryDirectory(prefix="siyu-benchmark-") as folder:
        started = [
            Worker(
                engine.module,
                Job(
                    run=name,
                    bootstrap=cluster.bootstrap,
                    step=step.name,
                    inputs=inputs.topics,
                    records=inputs.data.count,
                    folder=folder,
                    broker_pid=broker_pid,
                    instance=instance,
                ),
                engine.python(),
            )
            for instance in range(workers)
        ]
        measured = measure(cluster, started, 60 + inputs.data.count / _SLOWEST_PER_S)
    checked = None
    if engine.states is not None:
        if checker is not None:
            states = dict(engine.states(cluster, name, step))
            checked = checker.check(
                lambda output: cluster.read(f"{name}.{output}"),
                {key.decode(): state for key, state in states.items() if state is not None},
            )
        if dead := sum(1 for _ in cluster.read(f"{name}.dead")):
            raise WrongOutput(f"{dead} dead letters")
        cluster.delete(cluster.topics(name))
    return measured, checked


def siyu_states(cluster: Cluster, name: str, step: Step) -> Iterator[tuple[bytes, Any]]:
    """The changelog of ``siyu.stream``."""
    decode = StateCodec(
        Processor(
            name=name,
            inputs=(CONTACT_TOPIC,),
            outputs=frozenset(),
            codec=codec(),
            step=lambda key, record, state, ctx: state,
            state_type=step.state_type,
            state_version=1,
            dead_letters="dead",
        )
    ).decode
    for key, value in cluster.read(f"{name}.changelog"):
        yield key, None if value is None else decode(value)[0]


def quix_states(cluster: Cluster, name: str, step: Step) -> Iterator[tuple[bytes, Any]]:
    """The changelog of quixstreams: the key of a state comes after the record's key."""
    decode = msgspec.msgpack.Decoder(step.state_type).decode
    (topic,) = cluster.topics(f"changelog__{name}--")
    for key, value in cluster.read(topic):
        yield key.rpartition(b"|")[0], None if value is None else decode(value)


def faust_states(cluster: Cluster, name: str, step: Step) -> Iterator[tuple[bytes, Any]]:
    """The changelog of faust's table."""
    decode = msgspec.msgpack.Decoder(step.state_type).decode
    (topic,) = cluster.topics(f"{name}-states-changelog")
    for key, value in cluster.read(topic):
        yield key, None if value is None else decode(value)
