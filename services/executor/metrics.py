"""Every metric of the executor. Labels are bounded: no staff, customer or action is ever one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from siyu.events import ActionOutcome
from siyu.ops.logging import get_logger

_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_WELCOME_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)


class ExecutorMetrics:
    """Declared once per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.actions = Counter(
            "siyu_executor_actions_total",
            "Outcomes by how they ended; counted when committed",
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
        self.waiting = Gauge(
            "siyu_executor_waiting", "Actions taken in and not yet called", ["lane"], registry=registry
        )
        self.under_way = Gauge(
            "siyu_executor_under_way", "Actions with a call, a result or a time still to come", registry=registry
        )
        self.in_doubt = Gauge(
            "siyu_executor_in_doubt", "Actions of which nobody knows yet whether WeCom did them", registry=registry
        )
        self.in_flight = Gauge("siyu_executor_in_flight", "Calls under way", registry=registry)
        self.shards = Gauge("siyu_executor_shards", "Shards this process works on", registry=registry)
        self.lost = Counter(
            "siyu_executor_shards_lost_total", "Shards that another process took over unannounced", registry=registry
        )
        self.takeover_seconds = Histogram(
            "siyu_executor_takeover_seconds",
            "From being given a shard to its first cycle",
            buckets=(0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0),
            registry=registry,
        )
        self.token_renewals = Counter(
            "siyu_executor_token_renewals_total",
            "gettoken calls by result: ok, refused or no_answer",
            ["corp_id", "result"],
            registry=registry,
        )
        self.quota_used = Gauge(
            "siyu_executor_quota_used",
            "What counts against a limit of WeCom now, of corp, app and address levels",
            ["corp_id", "endpoint", "limit"],
            registry=registry,
        )
        self.quota_limit = Gauge(
            "siyu_executor_quota_limit",
            "The limit it counts against",
            ["corp_id", "endpoint", "limit"],
            registry=registry,
        )
        self.frozen_until = Gauge(
            "siyu_executor_frozen_until_seconds",
            "Business time until which a scope is frozen after a limit error; 0: it is not",
            ["corp_id", "endpoint"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "siyu_executor_dead_letters_total", "Records written to dlq.executor", ["lane"], registry=registry
        )
        self.rerouted = Counter(
            "siyu_executor_rerouted_total", "Actions that lay in another scope's partition", ["lane"], registry=registry
        )
        self.damaged = Counter(
            "siyu_executor_damaged_total", "Ledger entries that could not be read at a takeover", registry=registry
        )
        self.content_stopped = Counter(
            "siyu_executor_content_stopped_total", "Texts the linter stopped, by rule", ["rule"], registry=registry
        )
        self.config_refused = Counter(
            "siyu_executor_config_refused_total",
            "Configuration that could not be used; the last good one stays",
            ["kind"],
            registry=registry,
        )
        self.commits = Histogram(
            "siyu_executor_commit_seconds",
            "Transactions: reservations, ledger, outcomes and offsets",
            buckets=_CALL_BUCKETS,
            registry=registry,
        )

    def ended(self, outcome: ActionOutcome, log_events: bool) -> None:
        """Counts one committed outcome."""
        self.actions.labels(outcome.lane, outcome.status, outcome.detail).inc()
        if outcome.lane == "welcome" and outcome.status == "done" and outcome.trigger_received_at_ms:
            waited_ms = outcome.finished_at_ms - outcome.trigger_received_at_ms
            self.welcome_seconds.observe(max(0, waited_ms) / 1000)
        if log_events or outcome.status == "failed":
            get_logger().info(
                "action_ended",
                action_id=outcome.action_id,
                event_id=outcome.caused_by,
                corp_id=outcome.corp_id,
                endpoint=outcome.endpoint,
                lane=outcome.lane,
                status=outcome.status,
                detail=outcome.detail,
                errcode=outcome.errcode,
                calls=outcome.calls,
            )
