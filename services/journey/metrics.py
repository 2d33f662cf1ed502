"""Every metric of journey beyond the runtime's own (``siyu_stream_…``).

Counted when a step runs: a batch that is repeated after an aborted transaction counts again.
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter

Result = Literal["applied", "duplicate", "no_effect"]
"""no_effect: an event of a kind that changes no row, e.g. an edit of a known pair."""


class JourneyMetrics:
    """Registered once in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "siyu_journey_events", "Events by change and what they did", ["change", "result"], registry=registry
        )
        self._recredited = Counter(
            "siyu_journey_recredited_orders",
            "Orders whose credit a contact event changed after the payment had arrived",
            registry=registry,
        )

    def event(self, change: str, result: Result) -> None:
        self._events.labels(change, result).inc()

    def recredited(self, orders: int) -> None:
        self._recredited.inc(orders)
