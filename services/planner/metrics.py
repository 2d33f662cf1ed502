"""Every metric of the planner beside the runtime's own."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter

Result = Literal[
    "planned",  # an action was made
    "no_rule",  # nothing is to be done about this event
    "duplicate",  # its action had been made, or it is too old to tell
]


class PlannerMetrics:
    """Declared once per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "siyu_planner_events_total", "Contact events by what was made of them", ["result"], registry=registry
        )

    def event(self, result: Result) -> None:
        self._events.labels(result).inc()
