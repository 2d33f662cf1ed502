"""Every metric of ingest. Labels come from closed sets; none is a corp's, staff member's or customer's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4)


class IngestMetrics:
    """The service's metrics, registered once in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.callbacks = Counter(
            "siyu_ingest_callbacks",
            "Requests by how they ended: accepted, verified (200), refused (4xx), unavailable (503), failed (500), "
            "gone (the client hung up)",
            ["outcome", "reason"],
            registry=registry,
        )
        self.events = Counter(
            "siyu_ingest_events",
            "Accepted callbacks by Event and ChangeType; known: typed, else kept raw only",
            ["type", "known"],
            registry=registry,
        )
        self.ack_seconds = Histogram(
            "siyu_ingest_ack_seconds",
            "From the decrypted callback to Kafka's acknowledgement of its last record",
            registry=registry,
            buckets=_SECONDS,
        )
        self.in_flight = Gauge("siyu_ingest_in_flight", "Deliveries in progress", registry=registry)
        self.in_flight_bytes = Gauge(
            "siyu_ingest_in_flight_bytes", "Bodies of deliveries in progress", registry=registry
        )
        self.kafka_connected = Gauge(
            "siyu_ingest_kafka_connected", "1 while Kafka answers and the topics are there", registry=registry
        )
        self.producers_replaced = Counter(
            "siyu_ingest_producers_replaced",
            "Producers given up and connected anew, by reason",
            ["reason"],
            registry=registry,
        )
