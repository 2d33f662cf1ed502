"""Every metric of sync. Labels are corps, reasons and topics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class SyncMetrics:
    """Sync's metrics, registered once in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"siyu_sync_{name}", text, labels, registry=registry)

        self.read_through = Gauge(
            "siyu_sync_bills_read_through_ms",
            "Business time (epoch ms) through which every bill has been read and its event is in Kafka",
            ["corp_id"],
            registry=registry,
        )
        self.behind = Gauge(
            "siyu_sync_bills_behind_seconds",
            "Business time between now and that point",
            ["corp_id"],
            registry=registry,
        )
        self.asked = counter("questions", "Pages asked for; put again counts again", "corp_id")
        self.pages = counter("pages", "Pages read", "corp_id")
        self.failures = counter("failures", "Answers without a page", "corp_id", "reason")
        self.events = counter("events", "Payment events that Kafka has acknowledged", "corp_id", "change")
        self.repeats = counter("repeats", "Bills listed again and not sent again", "corp_id")
        self.problems = counter("problems", "Rows of a page that are no event, kept in dlq.sync", "corp_id", "reason")
        self.dead_letters = counter("dead_letters", "Records kept in dlq.sync", "stage")
        self.send_retries = counter("send_retries", "Attempts that Kafka did not acknowledge", "topic")
