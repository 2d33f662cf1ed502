"""The metrics of all workers as one exposition: each sample of a worker with its number, and the supervisor's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

ACCEPT = "application/openmetrics-text; version=1.0.0"
"""What a worker is asked for: the form that loses nothing on the way."""


class SupervisorMetrics:
    """What only the parent of the workers knows."""

    def __init__(self, registry: CollectorRegistry, workers: int) -> None:
        self._up = Gauge("siyu_worker_up", "1 while the worker's process runs", ["worker"], registry=registry)
        self._restarts = Counter(
            "siyu_worker_restarts",
            "Workers started again after they ended without being asked (fenced, crashed, killed, ended)",
            ["worker", "reason"],
            registry=registry,
        )
        for number in range(workers):
            self.up(number, False)

    def up(self, worker: int, up: bool) -> None:
        self._up.labels(str(worker)).set(up)

    def restarted(self, worker: int, reason: str) -> None:
        self._restarts.labels(str(worker), reason).inc()


class WorkersCollector(Collector):
    """Asks the workers at each scrape. One that does not answer is left out; ``siyu_worker_up`` stays."""

    def __init__(self, expositions: Callable[[], Iterable[tuple[int, str]]]) -> None:
        """``expositions`` gives each answering worker's number and OpenMetrics text."""
        self._expositions = expositions

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for number, text in self._expositions():
            for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(sample._replace(labels={"worker": str(number), **sample.labels}))
        yield from families.values()
