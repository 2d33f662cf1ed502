"""Every metric of the processor runtime. Labels are processor, topic and partition, never a key."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_RECORDS = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 25_000)


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
        self._event_lag = gauge("event_lag_seconds", "Wall clock less stream time, at the last commit", "partition")
        self._keys = gauge("state_keys", "Keys in the local store, as RocksDB estimates them", "partition")
        self._bytes = gauge("state_bytes", "Bytes of the local store, on disk and in write buffers", "partition")
        self._timers_late = gauge("timers_overdue_seconds", "How long the first timer has been due", "partition")
        self._globals_refused = counter("globals_refused", "Records of global topics that do not decode")
        self.timers_fired = counter("timers_fired", "Timers whose effects were committed").labels(processor)
        self.batches = counter("batches", "Committed batches").labels(processor)
        self.aborts = counter("transaction_aborts", "Transactions aborted and repeated").labels(processor)
        self.cache_hits = counter("cache_hits", "Records whose state was found decoded in memory").labels(processor)
        self.cache_misses = counter("cache_misses", "States looked up on disk, a key and batch").labels(processor)
        self.restored = counter("restored_records", "Changelog records replayed into a store").labels(processor)
        self.rebuilt = counter("stores_rebuilt", "Stores started from scratch for a reason").labels(processor)
        self.restoring = gauge("restoring_partitions", "Partitions that wait for their changelog").labels(processor)
        self.restore_left = gauge("restore_left_records", "Changelog offsets still to replay").labels(processor)
        self.assigned = gauge("assigned_partitions", "Partitions this member owns").labels(processor)
        self.step_seconds = seconds("step_seconds", "Steps, encoding, and reading unless done ahead, a batch")
        self.commit_seconds = seconds("commit_seconds", "Flush, offsets and commit, a batch")
        self.store_seconds = seconds("store_seconds", "Write of committed states to disk")
        self.batch_records = Histogram(
            "siyu_stream_batch_records",
            "Input records of one transaction",
            ["processor"],
            registry=registry,
            buckets=_RECORDS,
        ).labels(processor)
        self.restore_seconds = seconds("restore_seconds", "From assignment to the first fetch")

    def records_in(self, topic: str, count: int) -> None:
        self._records_in.labels(self._processor, topic).inc(count)

    def records_out(self, topic: str, count: int) -> None:
        self._records_out.labels(self._processor, topic).inc(count)

    def dead_letter(self, stage: str) -> None:
        self._dead_letters.labels(self._processor, stage).inc()

    def lag(self, topic: str, partition: int, records: int) -> None:
        self._lag.labels(self._processor, topic, str(partition)).set(records)

    def event_lag(self, partition: int, seconds: float) -> None:
        self._event_lag.labels(self._processor, str(partition)).set(seconds)

    def state(self, partition: int, keys: int, size: int, timers_overdue_seconds: float) -> None:
        labels = self._processor, str(partition)
        self._keys.labels(*labels).set(keys)
        self._bytes.labels(*labels).set(size)
        self._timers_late.labels(*labels).set(timers_overdue_seconds)

    def global_refused(self) -> None:
        self._globals_refused.labels(self._processor).inc()

    def halted(self, partition: int, halted: bool) -> None:
        self._halted.labels(self._processor, str(partition)).set(halted)

    def released(self) -> None:
        """Partitions are gone: their gauges would go on showing the last value."""
        for gauge in (self._lag, self._halted, self._event_lag, self._keys, self._bytes, self._timers_late):
            gauge.clear()
