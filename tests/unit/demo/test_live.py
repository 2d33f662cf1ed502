"""The live view's figures: what a restarted process counted before still counts."""

import io
import math
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from rich.console import Console

from deploy.local.live import LiveView, Totals
from deploy.local.stack import StackConfig
from services.executor.metrics import ExecutorMetrics


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


def test_the_limits_are_those_that_the_executor_tells(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metrics = ExecutorMetrics(registry)
    for limit, used, amount in (("corp_api_minute", 30, 10_000), ("corp_api_concurrency", 4, 5)):
        metrics.quota_used.labels("ww1", "externalcontact/mark_tag", limit).set(used)
        metrics.quota_limit.labels("ww1", "externalcontact/mark_tag", limit).set(amount)
    shown = io.StringIO()
    view = LiveView(StackConfig(base_dir=tmp_path), Console(file=shown, width=200), plain=True)
    view._totals["executor"].take(generate_latest(registry).decode())
    view._console.print(view._limit_table())
    rows = [line.split() for line in shown.getvalue().splitlines() if "mark_tag" in line]
    assert rows == [
        ["ww1", "externalcontact/mark_tag", "corp_api_concurrency", "4", "/", "5", "80.0%"],
        ["ww1", "externalcontact/mark_tag", "corp_api_minute", "30", "/", "10,000", "0.3%"],
    ]
