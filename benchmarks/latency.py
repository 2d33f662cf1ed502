"""From an event's planned sending to its last output in the hands of a reader of committed records, at a steady rate.

The whole way through one processor: producer, broker, the runtime's batch, its transaction with flush, offsets and
commit, and the fetch of the reader. An open loop (``harness/steady.py``): event *n* is due at begin + *n* / rate and
its delay counts from there, so a worker that stands still, or a sender that is late, shows in every event behind it.
The processor has a past (``harness/population.py``). The events of the warm-up do not count.

Every event must come out, no output may come out twice, and states on disk must be right: else status 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from array import array
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks.harness.broker import PARTITIONS, READER, Cluster
from benchmarks.harness.check import WrongOutput
from benchmarks.harness.claim import Figures, arguments, say, show
from benchmarks.harness.lived import Lived, lived, wait
from benchmarks.harness.measure import EngineFailed, Worker
from benchmarks.harness.population import Population
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.steady import Load, steady
from benchmarks.harness.steps import STEPS
from siyu.events import ContactEvent, OrderFact, RelationshipFact, StaffDelta, codec

_FETCH = 5_000
_LEFT_S = 30.0
"""How long the last outputs may take before they count as lost."""


class Reader:
    """Reads outputs as they become visible and knows when each event's last one did."""

    def __init__(self, run: Lived, population: Population) -> None:
        topics = [run.job.output(name) for name in STEPS[run.job.step].outputs]
        # Without limits of its own on waiting: the broker answers as soon as there is something.
        self._consumer = Consumer(
            {"bootstrap.servers": run.cluster.bootstrap, "group.id": f"{run.job.run}.reader", **READER}
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for topic in topics for number in range(PARTITIONS)])
        silent = run.job.step == "minimal"
        self._numbers: dict[str, int] = {}
        self.missing: set[int] = set()
        """Events whose first output is still to come."""
        for number, (_, _, event) in enumerate(population.events()):
            self._numbers[event.event_id] = number
            # The minimal step keeps contact events to itself.
            if not (silent and isinstance(event, ContactEvent)):
                self.missing.add(number)
        self.visible = array("d", bytes(8 * len(self._numbers)))
        """Event → monotonic time of its last output; 0 without."""
        self.outputs = 0
        self._seen: set[int] = set()

    def read(self, seconds: float) -> None:
        """Waits so long for the first output, and takes those that are there with it."""
        first = self._consumer.poll(seconds)
        if first is None:
            return
        messages = [first, *self._consumer.consume(_FETCH, 0)]
        now, decode = time.monotonic(), codec().decode
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            value = message.value() or b""
            output = decode(value)
            assert isinstance(output, RelationshipFact | OrderFact | StaffDelta)
            number = self._numbers[output.caused_by]
            self.visible[number] = now
            self.missing.discard(number)
            # Revision, or event, day and staff member: no two outputs of a run are alike.
            self._seen.add(hash((message.topic(), message.key(), value)))
            self.outputs += 1

    def close(self) -> None:
        self._consumer.close()

    @property
    def repeated(self) -> int:
        return self.outputs - len(self._seen)


def latency(options: argparse.Namespace, cluster: Cluster, broker_pid: int) -> Figures:
    events = round(options.rate * (options.warm_up + options.seconds))
    population = Population(options.customers, events, options.seed)
    say(f"laying down the states of {options.customers} customers")
    with lived(cluster, broker_pid, "latency", options.step, population) as run:
        reader = Reader(run, population)
        worker = run.start()
        try:
            found = through(options, run, reader, worker)
            worker.stop()
        finally:
            worker.kill()
            reader.close()
        if reader.repeated:
            raise WrongOutput(f"{reader.repeated} outputs came out twice")
        run.check()
    return found


def through(options: argparse.Namespace, run: Lived, reader: Reader, worker: Worker) -> Figures:
    """The run itself, from an idle worker to the last output."""
    wait(worker, "partitions", lambda: run.said("partitions_taken_over"))
    load = Load(
        bootstrap=run.cluster.bootstrap,
        inputs=run.job.inputs,
        customers=options.customers,
        events=len(reader.visible),
        seed=options.seed,
        per_second=options.rate,
    )
    say(f"{options.rate} events/s for {options.warm_up} + {options.seconds} s")
    with steady(load) as sending:
        counted = round(options.rate * options.warm_up)
        # Waits are short, so that what the processes have used is read near the moments it is asked for.
        while time.monotonic() < sending.planned(counted):
            reader.read(0.05)
        began, before = time.monotonic(), [cpu_seconds(pid) for pid in (worker.pid, run.job.broker_pid)]
        while time.monotonic() < sending.planned(len(reader.visible)):
            reader.read(0.05)
            worker.check_alive()
        seconds = time.monotonic() - began
        used = [cpu_seconds(pid) - so_far for pid, so_far in zip((worker.pid, run.job.broker_pid), before, strict=True)]
        deadline = time.monotonic() + _LEFT_S
        while reader.missing or sending.running():
            reader.read(0.05)
            worker.check_alive()
            if time.monotonic() > deadline:
                raise EngineFailed(f"{len(reader.missing)} events without an output after {_LEFT_S:.0f} s")
        # The last event's further outputs come with the same commit.
        reader.read(1.0)
        sent = sending.stop()
        delays = sorted(
            (visible - sending.planned(number)) * 1000
            for number, visible in enumerate(reader.visible)
            if visible and number >= counted
        )
    return {
        "step": options.step,
        "rate": options.rate,
        "customers": options.customers,
        "seconds": options.seconds,
        "events_measured": len(delays),
        "outputs": reader.outputs,
        "latency_ms": {
            "p50": quantile(delays, 0.5),
            "p90": quantile(delays, 0.9),
            "p99": quantile(delays, 0.99),
            "p99.9": quantile(delays, 0.999),
            "max": round(delays[-1], 1),
        },
        "sender_late_ms": {"p99": sent.late_ms_p99, "max": sent.late_ms_max},
        "cores_used": {name: round(cpu / seconds, 3) for name, cpu in zip(("worker", "broker"), used, strict=True)},
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1)


def table(found: Figures) -> str:
    delays = "  ".join(f"{name} {value:.0f} ms" for name, value in found["latency_ms"].items())
    used = ", ".join(f"{name} {cores:.2f}" for name, cores in found["cores_used"].items())
    return (
        f"{found['step']}, {found['rate']} events/s, {found['events_measured']} events\n{delays}\n"
        f"sender late: p99 {found['sender_late_ms']['p99']:.1f} ms, max {found['sender_late_ms']['max']:.1f} ms; "
        f"cores used: {used}"
    )


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=30, help="measured (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=15, help="seconds before that (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=200_000, help="with states (default: %(default)s)")
    parser.add_argument("--step", choices=list(STEPS), default="journey")
    return show(parser, latency, table)


if __name__ == "__main__":
    sys.exit(main())
