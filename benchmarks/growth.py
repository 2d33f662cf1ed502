"""The same events over more and more customers: what an event costs, memory and disk, as the states outgrow the caches.

For every number of customers the same: their states (``harness/population.py``) are laid down in the changelog, a
worker restores them into an empty disk and is stopped when RocksDB has nothing left to compact; then as many events as
at every other size are laid down, spread evenly over all customers, and a worker starts on that disk and drains them.
So every event meets a state that exists, and the more customers there are, the rarer is it in memory. Few customers get
several of the events each, and their states grow by them: 300,000 events make the states of 100,000 customers half as
large again and leave those of 5,000,000 as they were. That is part of what the smallest size costs.

The span is that of ``harness/measure.py``: from the first record to the last commit. States on disk are compared with
those of a sequential program: a wrong one ends in status 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

from benchmarks.harness.broker import Cluster
from benchmarks.harness.claim import Figures, arguments, say, show
from benchmarks.harness.lived import lived, wait
from benchmarks.harness.measure import Worker, measure
from benchmarks.harness.memory import watching
from benchmarks.harness.population import Population, disk_bytes
from benchmarks.harness.processes import cpu_seconds
from benchmarks.harness.steps import STEPS

_WARM_UP = 20_000, 50_000
"""Customers and events of the first run, which is thrown away: it warms the broker."""
_RESTORE_S = 1_800
_SLOWEST_PER_S = 500
_IDLE_CPU = 0.1
"""Seconds in a second: more is RocksDB's compaction."""


def growth(options: argparse.Namespace, cluster: Cluster, broker_pid: int) -> Figures:
    one(options, cluster, broker_pid, *_WARM_UP)
    return {
        "step": options.step,
        "curve": [one(options, cluster, broker_pid, customers, options.events) for customers in options.customers],
    }


def one(options: argparse.Namespace, cluster: Cluster, broker_pid: int, customers: int, events: int) -> dict[str, Any]:
    say(f"{customers} customers: laying down states, {events} events")
    population = Population(customers, events, options.seed)
    with lived(cluster, broker_pid, f"growth-{customers}-{events}", options.step, population) as run:
        say(f"{customers} customers: restoring")
        worker = run.start()
        try:
            wait(worker, "restored states", lambda: run.said("partitions_taken_over"), _RESTORE_S)
            rest(worker)
            restored = worker.stop()["metrics"]
            run.add_events()
            say(f"{customers} customers: processing")
            worker = run.start()
            with watching(worker.pid) as memory:
                drained = measure(cluster, [worker], 60 + events / _SLOWEST_PER_S)
        finally:
            worker.kill()
        disk = disk_bytes(run.state_folder)
        say(f"{customers} customers: checking")
        run.check()
    metrics = drained.reports[0]["metrics"]
    hits, misses = (metrics[f"siyu_stream_cache_{kind}_total"] for kind in ("hits", "misses"))
    return {
        "customers": customers,
        "states": run.states,
        "mean_state_bytes": round(run.state_bytes / run.states, 1),
        "events": drained.events,
        "events_per_s": round(drained.events / drained.seconds),
        "worker_cpu_us_per_event": round(drained.worker_cpu_s / drained.events * 1e6, 2),
        "broker_cpu_us_per_event": round(drained.broker_cpu_s / drained.events * 1e6, 2),
        "cache_hit_rate": round(hits / (hits + misses), 3),
        "resident_mb": {"median": statistics.median(memory.resident), "largest": drained.peak_mb},
        "disk_mb": round(disk / 1e6, 1),
        "changelog_records_per_s": round(
            restored["siyu_stream_restored_records_total"] / restored["siyu_stream_restore_seconds_sum"]
        ),
    }


def rest(worker: Worker) -> None:
    """Until the worker, which has nothing to do, has used next to no CPU for a second."""
    while True:
        before = cpu_seconds(worker.pid)
        time.sleep(1.0)
        worker.check_alive()
        if cpu_seconds(worker.pid) - before < _IDLE_CPU:
            return


def table(found: Figures) -> str:
    lines = [
        f"{found['step']}, {found['curve'][0]['events']} events each",
        f"{'customers':>10}{'events/s':>12}{'worker µs':>12}{'broker µs':>12}{'hits':>8}{'median MB':>11}"
        f"{'largest MB':>12}{'disk MB':>10}{'restored/s':>12}",
    ]
    lines += [
        f"{run['customers']:>10}{run['events_per_s']:>12,}{run['worker_cpu_us_per_event']:>12.2f}"
        f"{run['broker_cpu_us_per_event']:>12.2f}{run['cache_hit_rate']:>8.2f}{run['resident_mb']['median']:>11.0f}"
        f"{run['resident_mb']['largest']:>12.0f}{run['disk_mb']:>10.0f}{run['changelog_records_per_s']:>12,}"
        for run in found["curve"]
    ]
    return "\n".join(lines)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument(
        "--customers", type=int, nargs="+", default=[100_000, 1_000_000, 5_000_000], help="sizes, one after the other"
    )
    parser.add_argument("--events", type=int, default=300_000, help="at each size (default: %(default)s)")
    parser.add_argument("--step", choices=list(STEPS), default="journey")
    return show(parser, growth, table)


if __name__ == "__main__":
    sys.exit(main())
