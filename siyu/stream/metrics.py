"""Every metric of the processor runtime. Labels are processor, topic and partition, never a key."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class StreamMetrics:
    """The runtime's metrics, registered once in ``registry``."""

    def __init__(self, registry: CollectorRegistry, processor: str) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"siyu_stream_{name}", text, ["processor", *labels], registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"siyu_stream_{name}", text, ["processor", *labels], registry=registry)

        def seconds(name: str, text: str) -> Histogram:
            metric = Histogram(f"siyu_stream_{name}", text, ["processor"], registry=registry, buckets=_SECONDS)
            return metric.labels(processor)

        self._processor = processor
        self._records_in = counter("records_in", "Input records whose offset was committed", "topic")
        self._records_out = counter("records_out", "Records produced in committed transactions", "topic")
        self._dead_letters = counter("dead_letters", "Input records committed as dead letters", "stage")
        self._lag = gauge("consumer_lag_records", "Records not yet consumed", "topic", "partition")
        self._halted = gauge("partition_halted", "1 when past the dead-letter limit", "partition")
        self.event_lag = gauge("event_lag_seconds", "Wall clock less the newest consumed timestamp").labels(processor)
        self.batches = counter("batches", "Committed batches").labels(processor)
        self.aborts = counter("transaction_aborts", "Transactions aborted and repeated").labels(processor)
        self.cache_hits = counter("cache_hits", "States found decoded in memory, a key and batch").labels(processor)
        self.cache_misses = counter("cache_misses", "States looked up on disk, a key and batch").labels(processor)
        self.restored = counter("restored_records", "Changelog records replayed into a store").labels(processor)
        self.rebuilt = counter("stores_rebuilt", "Stores started from scratch for a reason").labels(processor)
        self.restoring = gauge("restoring_partitions", "Partitions that wait for their changelog").labels(processor)
        self.assigned = gauge("assigned_partitions", "Partitions this member owns").labels(processor)
        self.step_seconds = seconds("step_seconds", "Decode, load, step and encode, a batch")
        self.commit_seconds = seconds("commit_seconds", "Produce, flush, offsets and commit, a batch")
        self.store_seconds = seconds("store_seconds", "Write to disk after the commit, a batch")
        self.restore_seconds = seconds("restore_seconds", "From assignment to the first fetch")

    def records_in(self, topic: str, count: int) -> None:
        self._records_in.labels(self._processor, topic).inc(count)

    def records_out(self, topic: str, count: int) -> None:
        self._records_out.labels(self._processor, topic).inc(count)

    def dead_letter(self, stage: str) -> None:
        self._dead_letters.labels(self._processor, stage).inc()

    def lag(self, topic: str, partition: int, records: int) -> None:
        self._lag.labels(self._processor, topic, str(partition)).set(records)

    def halted(self, partition: int, halted: bool) -> None:
        self._halted.labels(self._processor, str(partition)).set(halted)

    def released(self) -> None:
        """Partitions are gone: their gauges would go on showing the last value."""
        self._lag.clear()
        self._halted.clear()
