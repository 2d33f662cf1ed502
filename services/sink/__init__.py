"""Kafka to ClickHouse in large idempotent batches."""
