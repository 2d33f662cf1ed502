"""The join of contact and payment events in siyu.stream, quixstreams and faust; beside them the limit, which only
consumes and decodes, and a bare loop over the same libraries as siyu.stream.

One run: the same events, broker, machine and pure step function (``harness/steps.py``) for every engine; events lie in
two topics of 4 partitions before anything is measured, every engine runs in one process of its own and drains them.
``harness/measure.py`` says how the span is measured (first record decoded until the last commit is visible, for all
alike), ``engines/`` how each is set up, ``harness/check.py`` how its outputs are checked: a wrong one ends in status 1.

An engine with a steady low rate gets fewer events (``events`` in the result), drawn the same way. The first run, whose
figures are thrown away, warms the broker; the order of engines rotates from round to round, and medians count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.broker import Cluster
from benchmarks.harness.check import Checked, checker
from benchmarks.harness.claim import Figures, arguments, say, show
from benchmarks.harness.environment import interpreter
from benchmarks.harness.events import Data
from benchmarks.harness.measure import Measured
from benchmarks.harness.run import Engine, faust_states, preload, quix_states, run, siyu_states
from benchmarks.harness.steps import STEPS

SIYU, QUIX, FAUST, LIMIT, BARE = "siyu.stream", "quixstreams", "faust", "limit", "bare_loop"
_ENGINES = Path(__file__).with_name("engines")
ENGINES = {
    engine.name: engine
    for engine in (
        Engine(SIYU, "benchmarks.engines.siyu_stream", "exactly once", siyu_states),
        Engine(
            QUIX,
            "benchmarks.engines.quix_streams",
            "exactly once",
            quix_states,
            lambda: interpreter(_ENGINES / "quix_streams.txt"),
        ),
        Engine(FAUST, "benchmarks.engines.faust_streaming", "at least once", faust_states),
        Engine(LIMIT, "benchmarks.engines.limit", "none: consume and decode only", None),
        Engine(BARE, "benchmarks.engines.bare_loop", "exactly once until anything goes wrong", siyu_states),
    )
}
LARGEST = {FAUST: 100_000}
"""Events an engine gets at most: its rate is steady and low."""
WARM_UP = 50_000


def join(options: argparse.Namespace, cluster: Cluster, broker_pid: int) -> Figures:
    """All rounds of all engines. Raises EngineFailed and WrongOutput."""
    step = STEPS[options.step]
    names = [name for name in ENGINES if name == SIYU or name in options.engines]
    counts = {name: min(options.events, LARGEST.get(name, options.events)) for name in names}
    data = {
        count: Data(count, options.customers, options.seed) for count in {*counts.values(), options.events, WARM_UP}
    }
    inputs = {count: preload(cluster, data[count]) for count in data}
    checkers = {count: checker(step.name, data[count]) for count in {*counts.values(), options.events}}
    run(cluster, broker_pid, ENGINES[SIYU], step, inputs[WARM_UP], None, name="warm-up")

    measured: defaultdict[str, list[Measured]] = defaultdict(list)
    checked: dict[str, Checked] = {}
    for number in range(options.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            count = counts[name]
            say(f"round {number + 1}: {name}, {count} events")
            figures, outputs = run(
                cluster, broker_pid, ENGINES[name], step, inputs[count], checkers[count], name=f"{name}-{number}"
            )
            measured[name].append(figures)
            if outputs is not None:
                checked[name] = outputs
    return result(options, measured, checked)


def result(options: argparse.Namespace, measured: dict[str, list[Measured]], checked: dict[str, Checked]) -> Figures:
    def medians(figure: Any, digits: int = 0) -> dict[str, float]:
        return {name: round(statistics.median(map(figure, runs)), digits) for name, runs in measured.items()}

    def ratios(rates: dict[str, float]) -> dict[str, float]:
        return {f"vs_{name}": round(rates[SIYU] / rate, 3) for name, rate in rates.items() if name != SIYU}

    per_s = medians(lambda run: run.events / run.seconds)
    per_cpu_s = medians(lambda run: run.events / run.worker_cpu_s)
    return {
        "step": options.step,
        "events_per_s": per_s,
        "events_per_cpu_s": per_cpu_s,
        "ratios": ratios(per_s),
        "ratios_per_cpu_s": ratios(per_cpu_s),
        "broker_cpu_us_per_event": medians(lambda run: run.broker_cpu_s / run.events * 1e6, 2),
        "worker_cpu_us_per_event": medians(lambda run: run.worker_cpu_s / run.events * 1e6, 2),
        "peak_mb": medians(lambda run: run.peak_mb, 1),
        "events": {name: runs[0].events for name, runs in measured.items()},
        "rounds_events_per_s": {
            name: [round(run.events / run.seconds) for run in runs] for name, runs in measured.items()
        },
        "checked": {name: outputs._asdict() for name, outputs in checked.items()},
        "guarantees": {name: ENGINES[name].guarantee for name in measured},
        "customers": options.customers,
        "siyu_stream_us_per_event": time_of_the_runtime(measured[SIYU]),
    }


def time_of_the_runtime(runs: Sequence[Measured]) -> dict[str, float]:
    """Where the loop's time went, as the runtime's own metrics have it, µs an event."""
    return {
        part: round(
            statistics.median(
                run.reports[0]["metrics"][f"siyu_stream_{part}_seconds_sum"] / run.events * 1e6 for run in runs
            ),
            2,
        )
        for part in ("step", "commit", "store")
    }


def table(found: Figures) -> str:
    lines = [
        f"step {found['step']}, {found['customers']} customers",
        f"{'':14}{'events':>10}{'events/s':>12}{'per CPU s':>12}{'broker µs':>12}{'peak MB':>10}  guarantee",
    ]
    for name, rate in found["events_per_s"].items():
        lines.append(
            f"{name:14}{found['events'][name]:>10}{rate:>12,.0f}{found['events_per_cpu_s'][name]:>12,.0f}"
            f"{found['broker_cpu_us_per_event'][name]:>12.2f}{found['peak_mb'][name]:>10.0f}"
            f"  {found['guarantees'][name]}"
        )
    for title, ratios in (("events/s", found["ratios"]), ("per CPU s", found["ratios_per_cpu_s"])):
        lines.append(f"{SIYU} {title}: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    parts = found["siyu_stream_us_per_event"]
    lines.append("siyu.stream, µs an event: " + ", ".join(f"{part} {value}" for part, value in parts.items()))
    return "\n".join(lines)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="events to join (default: %(default)s)")
    parser.add_argument("--customers", type=int, default=200_000, help="drawn from so many (default: %(default)s)")
    parser.add_argument("--step", choices=list(STEPS), default="minimal")
    parser.add_argument(
        "--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES), help=f"{SIYU} always runs"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each engine, medians count")
    return show(parser, join, table)


if __name__ == "__main__":
    sys.exit(main())
