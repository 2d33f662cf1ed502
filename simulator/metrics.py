"""Every metric of the simulator, with its help text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class SimulatorMetrics:
    """One set per process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter(
            "siyu_simulator_calls",
            "Calls of the platform's endpoints by errcode; unknown paths under endpoint=unknown",
            ["endpoint", "errcode"],
            registry=self.registry,
        )
        self.broken = Counter(
            "siyu_simulator_calls_broken",
            "Calls that ended in an error of the simulator's own, answered -1",
            registry=self.registry,
        )
        self.deliveries = Counter(
            "siyu_simulator_deliveries",
            "Attempts to deliver a callback: accepted, refused (status other than 200), timeout, unreachable",
            ["result"],
            registry=self.registry,
        )
        self.dropped = Counter(
            "siyu_simulator_callbacks_dropped",
            "Callbacks given up after the last delivery",
            registry=self.registry,
        )
        self.waiting = Gauge(
            "siyu_simulator_callbacks_waiting", "Callbacks not yet accepted or dropped", registry=self.registry
        )
