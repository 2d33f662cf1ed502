"""Where the time of an event goes in ``siyu.stream``: fetch, decode, state, step, encode, produce, commit, disk.

The first engine of ``benchmarks/join.py`` with a stopwatch at the seams of its loop (``engines/siyu_timed.py``), over
the same preloaded events: CPU microseconds an event of the loop's one thread. *loop* is what the loop over the records
costs, *bookkeeping* what a transaction does besides (metrics, cache); *waiting* is for the broker, for librdkafka and,
on a machine that is not idle, for a core. librdkafka and RocksDB have threads of their own beside the loop: the whole
process's CPU is ``worker_cpu_us_per_event``, stopwatch included. Outputs are checked: a wrong one ends in status 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable

from benchmarks.harness.broker import Cluster
from benchmarks.harness.check import checker
from benchmarks.harness.claim import Figures, arguments, say, show
from benchmarks.harness.events import Data
from benchmarks.harness.measure import Measured
from benchmarks.harness.run import Engine, preload, run, siyu_states
from benchmarks.harness.steps import STEPS

WARM_UP = 50_000
TIMED = Engine("siyu.stream, timed", "benchmarks.engines.siyu_timed", "exactly once", siyu_states)
PHASES = {
    "fetch": ("fetch",),
    "decode": ("decode",),
    "state read": ("state read",),
    "step": ("step",),
    "state encode": ("state encode",),
    "output encode": ("output encode",),
    "loop": ("read", "process"),
    "produce": ("produce",),
    "commit": ("flush", "offsets", "commit"),
    "disk write": ("disk write",),
    "bookkeeping": ("transaction",),
}


def phases(options: argparse.Namespace, cluster: Cluster, broker_pid: int) -> Figures:
    data, warm_up = (Data(count, options.customers, options.seed) for count in (options.events, WARM_UP))
    say("laying down events")
    inputs = {events: preload(cluster, events) for events in {data, warm_up}}
    found: Figures = {"events": options.events, "customers": options.customers, "rounds": options.rounds}
    for name in options.steps:
        step, right = STEPS[name], checker(name, data)
        run(cluster, broker_pid, TIMED, step, inputs[warm_up], None, name=f"{name}-warm-up")
        runs = []
        for number in range(options.rounds):
            say(f"{name}, round {number + 1}")
            runs.append(run(cluster, broker_pid, TIMED, step, inputs[data], right, name=f"{name}-{number}")[0])
        found[name] = taken(runs)
    return found


def taken(runs: list[Measured]) -> Figures:
    def median(figure: Callable[[Measured], float]) -> float:
        return round(statistics.median(map(figure, runs)), 2)

    def us(phase: str) -> float:
        return median(lambda run: sum(run.reports[0]["seconds"][part] for part in PHASES[phase]) / run.events * 1e6)

    us_per_event = {phase: us(phase) for phase in PHASES}
    return {
        "us_per_event": us_per_event,
        "sum_us_per_event": round(sum(us_per_event.values()), 2),
        "waiting_us_per_event": median(lambda run: run.reports[0]["waited"] / run.events * 1e6),
        "worker_cpu_us_per_event": median(lambda run: run.worker_cpu_s / run.events * 1e6),
    }


def table(found: Figures) -> str:
    steps = [name for name in STEPS if name in found]
    lines = [f"{'µs an event':16}" + "".join(f"{name:>10}" for name in steps)]
    lines += [
        f"{phase:16}" + "".join(f"{found[name]['us_per_event'][phase]:>10.2f}" for name in steps) for phase in PHASES
    ]
    lines += [
        f"{title:16}" + "".join(f"{found[name][figure]:>10.2f}" for name in steps)
        for title, figure in (
            ("sum", "sum_us_per_event"),
            ("waiting", "waiting_us_per_event"),
            ("CPU, all threads", "worker_cpu_us_per_event"),
        )
    ]
    return "\n".join(lines)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--events", type=int, default=400_000, help="events to drain (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=200_000, help="drawn from so many (default: %(default)s)")
    parser.add_argument("--step", dest="steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=3, help="medians count (default: %(default)s)")
    return show(parser, phases, table)


if __name__ == "__main__":
    sys.exit(main())
