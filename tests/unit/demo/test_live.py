"""The live view's figures: what a restarted process counted before still counts."""

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deploy.local.live import Totals


def exposed(*, events: int, in_flight: int, seconds: tuple[float, ...] = ()) -> str:
    """What /metrics of a fresh process says after so much."""
    registry = CollectorRegistry()
    Counter("demo_events", "Events", ["change"], registry=registry).labels("add").inc(events)
    Gauge("demo_in_flight", "Now", registry=registry).set(in_flight)
    histogram = Histogram("demo_seconds", "Durations", registry=registry, buckets=(0.1, 1.0, 10.0))
    for value in seconds:
        histogram.observe(value)
    return generate_latest(registry).decode()


def test_a_restart_loses_no_count():
    totals = Totals()
    for events in (5, 9, 2, 4):
        totals.take(exposed(events=events, in_flight=0))
    assert totals.sum("demo_events_total") == 13
    assert totals.sum("demo_events_total", change="add") == 13
    assert totals.sum("demo_events_total", change="delete") == 0


def test_gauges_are_what_they_are_now():
    totals = Totals()
    totals.take(exposed(events=1, in_flight=7))
    totals.take(exposed(events=1, in_flight=2))
    assert totals.gauges["demo_in_flight", ()] == 2


def test_quantiles_are_the_bucket_that_holds_them():
    totals = Totals()
    assert math.isnan(totals.quantile("demo_seconds", 0.5))
    totals.take(exposed(events=0, in_flight=0, seconds=(0.05, 0.05, 0.5, 5.0)))
    assert totals.quantile("demo_seconds", 0.5) == 0.1
    assert totals.quantile("demo_seconds", 0.75) == 1.0
    totals.take(exposed(events=0, in_flight=0, seconds=(50.0,)))
    assert totals.quantile("demo_seconds", 0.99) == math.inf
