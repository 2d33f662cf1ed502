"""Every metric of the guard beside the runtime's own. Labels are levels, kinds and decisions from closed sets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from siyu.guard.rules import Level


class GuardMetrics:
    """Declared once per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.inputs = Counter(
            "siyu_guard_inputs_total",
            "Signals and staff deltas by kind and by what was made of them",
            ["kind", "result"],
            registry=registry,
        )
        self.decisions = Counter(
            "siyu_guard_decisions_total",
            "Decisions about accounts, as guard.audit names them",
            ["level", "what"],
            registry=registry,
        )
        self.tells = Counter(
            "siyu_guard_tells_total", "Signals passed on to the corp or a campaign", ["kind"], registry=registry
        )
        self.behind = Gauge(
            "siyu_guard_signal_age_seconds",
            "Business time between the newest signal's event and its evaluation",
            registry=registry,
        )

    def decided(self, level: Level, what: str) -> None:
        self.decisions.labels(level, what).inc()
