"""The platform of a run: its corps and limits, its world and its clock. It is no target: its record of calls is the
witness.

Business time runs ``RATE`` times as fast as wall time, so that what takes minutes (whether a call was carried out, who
has confirmed a message) is over within the run; when nothing is disturbed any more it may be hurried.
"""

from __future__ import annotations

import json
import time
import urllib.error
from pathlib import Path
from typing import Any

from chaos_actions import CORPS, LIMITS, faults_of_the_platform, staff_and_customers

from benchmarks.harness import backlog
from benchmarks.harness.executors import Site, write_corps, write_limits
from siyu.limits import LimitRegistry, load_registry
from siyu.ops.clock import FileClock, write_segments

RATE = 2.0
HURRIED = 60.0
_ADDS_A_SECOND = 1.0
_HABITS = {"never_share": 0.1, "median_s": 30, "spread": 0.6, "reminded_share": 0.5}
_LATENCY_MS = "60"


class Platform:
    """Files of the platform and of whoever calls it; talks to it once it runs."""

    def __init__(self, folder: Path, bootstrap: str, port: int, callbacks_port: int, seed: int, seconds: float) -> None:
        folder.mkdir()
        write_corps(folder / "corps.yaml", CORPS)
        write_limits(folder / "limits", LIMITS)
        now_ms = time.time_ns() // 1_000_000
        clock_file = folder / "clock.json"
        write_segments(clock_file, [{"wall_ms": now_ms, "business_ms": now_ms, "rate": RATE}])
        self._site = Site(folder, bootstrap, 0, CORPS, folder / "limits", clock_file, f"http://127.0.0.1:{port}")
        self._clock = FileClock(clock_file)
        self._callbacks_port = callbacks_port
        self._port = port
        self._seed = seed
        staff, self.customers = staff_and_customers(seconds)
        scenario = backlog.scenario(
            staff=staff, customers=self.customers, adds_per_second=_ADDS_A_SECOND, habits=_HABITS
        )
        scenario["story"]["duration_s"] = max(1, int(seconds * RATE))
        (folder / "scenario.yaml").write_text(json.dumps(scenario))  # JSON is YAML

    @property
    def environment(self) -> dict[str, str]:
        """Of the services around the platform."""
        return {**self._site.environment, "SIYU_EGRESS": "default", "SIYU_PORT": str(self._callbacks_port)}

    @property
    def own_environment(self) -> dict[str, str]:
        """Of the platform itself."""
        return {
            **self._site.environment,
            "SIYU_PORT": str(self._port),
            "SIYU_SIM_SEED": str(self._seed),
            "SIYU_SIM_SCENARIO": str(self._site.folder / "scenario.yaml"),
            "SIYU_SIM_CALLS_FILE": str(self.calls_file),
            "SIYU_SIM_CALLS_KEPT": "1000",
            "SIYU_SIM_CALLBACK_BASE": f"http://127.0.0.1:{self._callbacks_port}",
            "SIYU_SIM_LATENCY_MILLISECONDS": _LATENCY_MS,
            # It never gives a callback up: what nobody was told is nobody's fault.
            "SIYU_SIM_DELIVERY_TOTAL": "1000",
            "SIYU_SIM_RETRY_SECONDS": "[2.0]",
        }

    @property
    def calls_file(self) -> Path:
        """Every call there was, once the platform has ended in order."""
        return self._site.calls_file

    @property
    def limits(self) -> LimitRegistry:
        """Those that hold in this run."""
        return load_registry(self._site.limits)

    def now_ms(self) -> int:
        """Business time, epoch ms."""
        return self._clock.now_ms()

    def answers(self) -> bool:
        try:
            self._site.see("status")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def begin(self) -> backlog.People:
        """The story begins; who is there."""
        self._site.tell("start", {})
        for fault in faults_of_the_platform():
            self._site.tell("faults", fault)
        return backlog.people_of(self._site, self.customers)

    def at_rest(self) -> bool:
        """No callback is on its way and no welcome code is good any more."""
        found: dict[str, Any] = self._site.see("status")
        return bool(found["state"] == "done")

    def hurry(self) -> None:
        """No more loss and delay, and business time runs."""
        self._site.tell("faults", None, method="DELETE")
        self._site.tell("clock", {"rate": HURRIED})
