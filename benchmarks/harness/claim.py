"""The frame of a benchmark of the engine: its own broker, JSON or a table, status 1 when something came out wrong."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.harness.broker import Cluster, broker
from benchmarks.harness.check import WrongOutput
from benchmarks.harness.measure import EngineFailed
from benchmarks.harness.processes import machine

Figures = dict[str, Any]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark can be asked."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="seed of the events (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the result as JSON instead of a table")
    return parser


def show(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace, Cluster, int], Figures],
    table: Callable[[Figures], str],
) -> int:
    """Runs ``measure`` with the options, the cluster and the broker's pid; returns the exit status."""
    options = parser.parse_args()
    described = machine()
    try:
        with broker() as kafka:
            assert kafka.pid is not None
            found = {**measure(options, Cluster(kafka.bootstrap), kafka.pid), "machine": described}
    except (EngineFailed, WrongOutput) as failed:
        print(failed, file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else table(found))
    return 0


def say(text: str) -> None:
    """Progress, away from the result."""
    print(text, file=sys.stderr, flush=True)
