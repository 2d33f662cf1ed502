"""The metrics of several workers become one exposition that Prometheus reads, with nothing lost on the way."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from siyu.ops.workers.metrics import SupervisorMetrics, WorkersCollector


def worker_registry(number: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("applied", 'Events "applied"\nso far', ["topic"], registry=registry).labels('a"b\\c\nd').inc(number + 1)
    Gauge("lag", "Records", registry=registry).set(0.1 + number)
    Histogram("seconds", "Time", registry=registry, buckets=(0.5, 1)).observe(number)
    if number == 1:
        Gauge("only_here", "One has it", registry=registry).set(7)
    return registry


@pytest.fixture
def merged() -> CollectorRegistry:
    """Workers 0 and 1 of three: the last one does not answer."""
    registry = CollectorRegistry()
    SupervisorMetrics(registry, 3).restarted(2, "crashed")
    texts = [(number, openmetrics(worker_registry(number)).decode()) for number in (0, 1)]
    registry.register(WorkersCollector(lambda: texts))
    return registry


def test_every_sample_of_a_worker_is_there_with_its_number(merged: CollectorRegistry) -> None:
    for number in (0, 1):
        for family in worker_registry(number).collect():
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    assert (
                        merged.get_sample_value(sample.name, {**sample.labels, "worker": str(number)}) == sample.value
                    )


def test_what_the_parent_knows_is_there_for_all_workers(merged: CollectorRegistry) -> None:
    assert merged.get_sample_value("siyu_worker_up", {"worker": "2"}) == 0
    assert merged.get_sample_value("siyu_worker_restarts_total", {"worker": "2", "reason": "crashed"}) == 1


@pytest.mark.parametrize("form", [generate_latest, openmetrics])
def test_a_family_stands_once_and_has_its_type(merged: CollectorRegistry, form) -> None:
    text = form(merged).decode()
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert "# TYPE seconds histogram" in types
    if form is generate_latest:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        assert len(samples) == len({(sample.name, *sorted(sample.labels.items())) for sample in samples})
