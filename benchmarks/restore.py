"""How fast a worker is back: with an empty disk from the changelog, and with its disk after a stop and after kill -9.

Meanwhile events keep coming at a small steady rate. A round is three starts of one worker, each timed from outside:

* *cold*: its disk was removed. Changelog records a second are those from ``partitions_assigned`` in its log (the group
  has settled) to ``partitions_taken_over`` (every state is on disk), CPU of worker and broker that of the same span.
* *stopped*: it ended in order, as after SIGTERM, and starts again on its disk.
* *killed*: it ended by SIGKILL and starts again on its disk, while the broker still has its open transaction.

For each the seconds until the first commit is visible, from the start of the process and from the group's assignment.
At the end states on disk are compared with those of a sequential program: a wrong one ends in status 1.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from typing import Any

from benchmarks.harness.broker import PARTITIONS, Cluster
from benchmarks.harness.check import WrongOutput
from benchmarks.harness.claim import Figures, arguments, say, show
from benchmarks.harness.lived import Lived, lived, wait
from benchmarks.harness.measure import Worker
from benchmarks.harness.population import Population
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.steady import Load, Steady, steady
from benchmarks.harness.steps import STEPS

COLD, STOPPED, KILLED = "cold", "stopped", "killed"
_LONGEST_S = 900
_WORK_S = 3.0
"""How long a worker works before it is ended."""


class Starts:
    """One worker after the other over the same processor."""

    def __init__(self, run: Lived) -> None:
        self._run = run
        self._partitions = [(topic, number) for topic in run.job.inputs.values() for number in range(PARTITIONS)]
        self.found: dict[str, list[dict[str, float]]] = {COLD: [], STOPPED: [], KILLED: []}

    def start(self, how: str) -> Worker:
        """A worker that has restored and committed."""
        began = time.monotonic()
        worker = self._run.start()
        try:
            self._time(how, worker, began)
        except BaseException:
            worker.kill()
            raise
        return worker

    def _time(self, how: str, worker: Worker, began: float) -> None:
        run = self._run
        settled = wait(worker, "assignment", lambda: run.said("partitions_assigned"))
        pids = worker.pid, run.job.broker_pid
        before = [cpu_seconds(pid) for pid in pids]
        restored = wait(worker, "restored states", lambda: run.said("partitions_taken_over"), _LONGEST_S)
        used = [cpu_seconds(pid) - so_far for pid, so_far in zip(pids, before, strict=True)]
        # What a predecessor left pending is decided by now: a takeover waits for it.
        so_far = self._committed()
        first = wait(worker, "commit", lambda: self._committed() > so_far)
        self.found[how].append(
            {
                "restore_s": restored - settled,
                "restore_worker_cpu_s": used[0],
                "restore_broker_cpu_s": used[1],
                "first_commit_after_start_s": first - began,
                "first_commit_after_settled_s": first - settled,
            }
        )

    def catch_up(self, worker: Worker) -> None:
        """Until everything sent so far is committed."""
        ends = sum(self._run.cluster.ends(self._run.job.inputs.values()).values())
        wait(worker, "progress", lambda: self._committed() >= ends, _LONGEST_S)

    def _committed(self) -> int:
        return sum(self._run.cluster.committed(self._run.job.run, self._partitions).values())


def restore(options: argparse.Namespace, cluster: Cluster, broker_pid: int) -> Figures:
    events = options.rate * _LONGEST_S
    say(f"laying down the states of {options.customers} customers")
    population = Population(options.customers, events, options.seed)
    with lived(cluster, broker_pid, "restore", options.step, population) as run:
        load = Load(
            bootstrap=cluster.bootstrap,
            inputs=run.job.inputs,
            customers=options.customers,
            events=events,
            seed=options.seed,
            per_second=options.rate,
        )
        starts = Starts(run)
        with steady(load) as sending:
            sent = rounds(options, run, starts, sending)
        run.check(sent)
    return {
        "step": options.step,
        "states": run.states,
        "mean_state_bytes": round(run.state_bytes / run.states, 1),
        "events_per_s_meanwhile": options.rate,
        "rounds": options.rounds,
        **{how: medians(found) for how, found in starts.found.items()},
    }


def rounds(options: argparse.Namespace, run: Lived, starts: Starts, sending: Steady) -> int:
    """Returns how many events were sent, all of them applied."""
    for number in range(options.rounds):
        say(f"round {number + 1}: an empty disk")
        shutil.rmtree(run.state_folder, ignore_errors=True)
        worker = starts.start(COLD)
        try:
            starts.catch_up(worker)
            restored = worker.stop()["metrics"]["siyu_stream_restored_records_total"]
            if restored < run.states:
                raise WrongOutput(f"{restored:.0f} records restored of {run.states}")
            cold = starts.found[COLD][-1]
            cold["records"] = restored
            cold["records_per_s"] = restored / cold["restore_s"]
            cold["worker_cpu_us_per_record"] = cold["restore_worker_cpu_s"] / restored * 1e6
            cold["broker_cpu_us_per_record"] = cold["restore_broker_cpu_s"] / restored * 1e6
            say(f"round {number + 1}: stopped and started")
            worker = starts.start(STOPPED)
            starts.catch_up(worker)
            time.sleep(_WORK_S)
            worker.kill()
            say(f"round {number + 1}: killed and started")
            worker = starts.start(KILLED)
            if number == options.rounds - 1:
                sent = sending.stop().events
            starts.catch_up(worker)
            worker.stop()
        finally:
            worker.kill()
    return sent


def medians(found: list[dict[str, float]]) -> dict[str, Any]:
    """Median of each figure, and the largest where a bound is promised."""
    result: dict[str, Any] = {
        name: round(statistics.median(start[name] for start in found), 3) for name in found[0] if found
    }
    result["largest_first_commit_after_settled_s"] = round(
        max(start["first_commit_after_settled_s"] for start in found), 3
    )
    return result


def table(found: Figures) -> str:
    cold = found[COLD]
    lines = [
        f"{found['step']}, {found['states']} states of {found['mean_state_bytes']:.0f} bytes, "
        f"{found['events_per_s_meanwhile']} events/s meanwhile",
        f"cold: {cold['records_per_s']:,.0f} records/s, worker {cold['worker_cpu_us_per_record']:.2f} µs, "
        f"broker {cold['broker_cpu_us_per_record']:.2f} µs a record",
        f"{'first commit after':20}{'start s':>10}{'settled s':>10}{'at most':>10}",
    ]
    for how in (COLD, STOPPED, KILLED):
        figures = found[how]
        lines.append(
            f"{how:20}{figures['first_commit_after_start_s']:>10.2f}{figures['first_commit_after_settled_s']:>10.2f}"
            f"{figures['largest_first_commit_after_settled_s']:>10.2f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--customers", type=int, default=1_000_000, help="with states (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=500, help="events a second meanwhile (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the three starts, medians count")
    parser.add_argument("--step", choices=list(STEPS), default="journey")
    return show(parser, restore, table)


if __name__ == "__main__":
    sys.exit(main())
