"""Two workers beside one: the same preloaded events, broker and step, in alternating rounds of one run.

A worker is one process; two share the partitions. Where the broker has cores of its own, what counts is how much more
two processes do than one (``ratio_of_capacity``: the events a second of CPU gives them, times two). On one machine all
of them share its cores: ``ratio`` is of the events a second really seen, and ``cores_busy`` says whether the machine
had any core left to give. CPU microseconds an event are those of the workers together and of the broker, apart.

With two workers the span begins when both have their partitions (``harness/measure.py``): the first one learns of the
second with its next heartbeat, up to 3 s later, and what it has committed until then does not count. *journey* gets
half of the events. Outputs and states of every run are checked (``harness/check.py``): a wrong one ends in status 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from benchmarks.harness.broker import Cluster
from benchmarks.harness.check import checker
from benchmarks.harness.claim import Figures, arguments, say, show
from benchmarks.harness.events import Data
from benchmarks.harness.lived import ENGINE
from benchmarks.harness.measure import Measured
from benchmarks.harness.run import Engine, preload, run, siyu_states
from benchmarks.harness.steps import STEPS

COUNTS = (1, 2)
WARM_UP = 50_000
SIYU = Engine("siyu.stream", ENGINE, "exactly once", siyu_states)


def workers(options: argparse.Namespace, cluster: Cluster, broker_pid: int) -> Figures:
    warm_up = Data(WARM_UP, options.customers, options.seed)
    events = {
        name: Data(options.events // (2 if name == "journey" else 1), options.customers, options.seed)
        for name in options.steps
    }
    say("laying down events")
    inputs = {data: preload(cluster, data) for data in {warm_up, *events.values()}}
    found: Figures = {"customers": options.customers, "rounds": options.rounds}
    for name in options.steps:
        step, data = STEPS[name], events[name]
        right = checker(name, data)
        run(cluster, broker_pid, SIYU, step, inputs[warm_up], None, name=f"{name}-warm-up")
        runs: dict[int, list[Measured]] = {count: [] for count in COUNTS}
        for number in range(options.rounds):
            for count in COUNTS if number % 2 else reversed(COUNTS):
                say(f"{name}, round {number + 1}: {count} worker{'s' * (count > 1)}")
                measured, _ = run(
                    cluster,
                    broker_pid,
                    SIYU,
                    step,
                    inputs[data],
                    right,
                    name=f"{name}-{number}-{count}",
                    workers=count,
                )
                runs[count].append(measured)
        found[name] = {"events": data.count, **compared(runs)}
    return found


def compared(runs: dict[int, list[Measured]]) -> dict[str, Any]:
    def medians(figure: Any, digits: int) -> dict[str, float]:
        return {str(count): round(statistics.median(map(figure, of)), digits) for count, of in runs.items()}

    rates = medians(lambda run: run.events / run.seconds, 0)
    capacities = {
        str(count): count * statistics.median(run.events / run.worker_cpu_s for run in of) for count, of in runs.items()
    }
    return {
        "events_per_s": rates,
        "ratio": round(rates["2"] / rates["1"], 3),
        "ratio_of_capacity": round(capacities["2"] / capacities["1"], 3),
        "capacity_events_per_s": {count: round(capacity) for count, capacity in capacities.items()},
        "worker_cpu_us_per_event": medians(lambda run: run.worker_cpu_s / run.events * 1e6, 2),
        "broker_cpu_us_per_event": medians(lambda run: run.broker_cpu_s / run.events * 1e6, 2),
        "cores_busy": medians(lambda run: (run.worker_cpu_s + run.broker_cpu_s) / run.seconds, 2),
        "measured_events": medians(lambda run: run.events, 0),
    }


def table(found: Figures) -> str:
    lines = []
    for step in STEPS:
        if step not in found:
            continue
        figures = found[step]
        lines.append(f"{step}: {figures['events']} events, {found['customers']} customers")
        lines.append(f"{'workers':>10}{'events/s':>12}{'worker µs':>12}{'broker µs':>12}{'cores busy':>12}")
        lines += [
            f"{count:>10}{figures['events_per_s'][count]:>12,.0f}{figures['worker_cpu_us_per_event'][count]:>12.2f}"
            f"{figures['broker_cpu_us_per_event'][count]:>12.2f}{figures['cores_busy'][count]:>12.2f}"
            for count in map(str, COUNTS)
        ]
        lines.append(
            f"two over one: {figures['ratio']:.2f} seen, {figures['ratio_of_capacity']:.2f} by the workers' CPU"
        )
    return "\n".join(lines)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--events", type=int, default=600_000, help="for minimal (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=200_000, help="drawn from so many (default: %(default)s)")
    parser.add_argument("--step", dest="steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=2, help="of one and of two workers (default: %(default)s)")
    return show(parser, workers, table)


if __name__ == "__main__":
    sys.exit(main())
