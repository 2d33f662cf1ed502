"""The real Kafka broker (KRaft, one node) as a plain Java process: what tests and a laptop run instead of a cluster."""

from deploy.local.kafka.broker import LocalKafka

__all__ = ["LocalKafka"]
