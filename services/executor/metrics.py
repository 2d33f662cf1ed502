"""Every metric of the executor. Labels are bounded: no staff, customer or action is ever one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_WELCOME_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)


class ExecutorMetrics:
    """Declared once per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.actions = Counter(
            "siyu_executor_actions_total",
            "Actions ended, by how; counted when the outcome is committed",
            ["lane", "status", "detail"],
            registry=registry,
        )
        self.calls = Histogram(
            "siyu_executor_call_seconds",
            "Calls to WeCom by endpoint and errcode (other: undocumented; without one: not_sent, unknown, too_large)",
            ["endpoint", "errcode"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self.welcome_seconds = Histogram(
            "siyu_executor_welcome_seconds",
            "From the callback's arrival to WeCom's acceptance of the welcome (wall time)",
            buckets=_WELCOME_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "siyu_executor_in_flight", "Actions taken and not yet ended", ["lane"], registry=registry
        )
        self.token_renewals = Counter(
            "siyu_executor_token_renewals_total",
            "gettoken calls by result: ok, refused or no_answer",
            ["corp_id", "result"],
            registry=registry,
        )
        self.quota_used = Gauge(
            "siyu_executor_quota_used",
            "Calls that count against a limit of WeCom now",
            ["corp_id", "endpoint", "window"],
            registry=registry,
        )
        self.quota_limit = Gauge(
            "siyu_executor_quota_limit",
            "The limit they count against",
            ["corp_id", "endpoint", "window"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "siyu_executor_dead_letters_total", "Records written to dlq.executor", ["lane"], registry=registry
        )
        self.commits = Histogram(
            "siyu_executor_commit_seconds",
            "Transactions: outcomes and offsets",
            ["lane"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self.commit_retries = Counter(
            "siyu_executor_commit_retries_total",
            "Transactions that had to be repeated because the broker failed",
            ["lane"],
            registry=registry,
        )
