"""How much the simulator serves and sends, on this machine alone: it must never be what a load test measures.

Calls: a server process answers reads of a played world. Live callbacks: a world moves and every change is sealed and
sent, by the simulator's own process. Replayed callbacks: sealed beforehand. Callbacks go to a receiver that only
answers, in a process of its own. The sender beside a general client, both POSTing the same. What the largest world
costs to open. What is promised stands beside what was found; `--json` has everything.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import structlog

# This file is called what the package is called, and a script's own folder comes first.
sys.path[:] = [path for path in sys.path if not path or Path(path).resolve() != Path(__file__).resolve().parent]


def table(found: dict[str, Any]) -> str:
    """What was found, one line a figure."""
    from benchmarks.harness.simulated import PROMISED, PROMISED_OPENING

    calls, live, replayed, sending = found["calls"], found["live"], found["replayed"], found["sending"]
    at_rate = next(value for name, value in replayed.items() if name.startswith("at_") and name != "at_most")
    rows = [
        ("API calls", calls["per_second"], PROMISED["api_calls"], f"server {calls['server_cpu_us_each']:.0f} µs each"),
        ("live callbacks", live["per_second"], PROMISED["live_callbacks"], f"sender {live['cpu_us_each']:.0f} µs each"),
        (
            "replayed, open loop",
            at_rate["per_second"],
            PROMISED["replayed_callbacks"],
            f"p50 {at_rate['p50_ms']:.1f} ms, p99 {at_rate['p99_ms']:.1f} ms, {at_rate['behind_ms']:.0f} ms behind",
        ),
        ("replayed at most", replayed["at_most"]["per_second"], PROMISED["replayed_callbacks"], ""),
        ("replayed, sealed anew", replayed["sealed_anew"]["per_second"], 0, ""),
        ("recorded", replayed["recorded_per_second"], 0, f"{replayed['bytes_each']} bytes each"),
        ("sender", sending["sender"]["per_second"], 0, f"{sending['sender']['cpu_us_each']:.0f} µs each"),
        ("httpx2", sending["httpx2"]["per_second"], 0, f"{sending['httpx2']['cpu_us_each']:.0f} µs each"),
    ]
    lines = [f"{'':24}{'a second':>10}{'promised':>10}"]
    lines += [
        f"{name:24}{figure:>10,}{f'{promised:,}' if promised else '':>10}  {note}"
        for name, figure, promised, note in rows
    ]
    opened = found["opening"]
    if opened is not None:
        limits = PROMISED_OPENING
        lines.append(
            f"{opened['scenario']} opens in {opened['seconds']:.0f} s (promised {limits['seconds']:.0f}), "
            f"{opened['resident_gb']:.1f} GB resident (promised {limits['resident_gb']:.0f}), "
            f"{opened['calls']['per_second']:,} calls/s (promised {PROMISED['api_calls']:,})"
        )
    return "\n".join(lines)


def main() -> int:
    from benchmarks.harness import simulated
    from benchmarks.harness.processes import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=40_000, help="API calls (default: %(default)s)")
    parser.add_argument("--callbacks", type=int, default=60_000, help="callbacks of each kind (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=12_000, help="replayed callbacks a second (default: %(default)s)")
    parser.add_argument("--without-opening", action="store_true", help="leaves the largest world out")
    parser.add_argument("--json", action="store_true", help="the result as JSON instead of a table")
    options = parser.parse_args()
    # Standard output is for the result alone.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    described = machine()
    try:
        found: dict[str, Any] = {
            "sending": simulated.sending(options.callbacks),
            "live": simulated.live(options.callbacks),
            "replayed": simulated.replayed(options.callbacks, options.rate),
            "calls": simulated.calls(options.calls),
            "opening": None if options.without_opening else simulated.opening(options.calls),
            "machine": described,
        }
    except simulated.WrongFigure as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
