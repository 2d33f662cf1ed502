"""Every metric of the API. Labels are operations of the OpenAPI document and statuses; none is a corp, a token's name
or an action."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ApiMetrics:
    """The service's metrics, registered once in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "siyu_api_requests", "Requests by operation and HTTP status", ["operation", "status"], registry=registry
        )
        self.seconds = Histogram(
            "siyu_api_request_seconds",
            "From a request's head to its answer",
            ["operation"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.in_flight = Gauge("siyu_api_in_flight", "Requests in progress", registry=registry)
        self.writes = Counter(
            "siyu_api_writes", "Operators' words that Kafka has acknowledged", ["operation"], registry=registry
        )
        self.refused_records = Counter(
            "siyu_api_refused_records", "Records of a topic that could not be read", ["topic"], registry=registry
        )
        self.tokens = Gauge("siyu_api_tokens", "Tokens in force", registry=registry)
