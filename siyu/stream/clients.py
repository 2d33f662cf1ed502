"""The Kafka clients of one member: how they are configured, and which of their errors mean wait, end or corruption."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError

from siyu.stream.errors import Fenced, StreamError
from siyu.stream.types import Processor, StreamSettings

QUEUE_RECORDS = 1_000_000

# Kafka's and librdkafka's ways to say "not now": the broker is away, moving, or still settling a transaction.
TRANSIENT = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError._MSG_TIMED_OUT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        # The admin client asks with the leader epoch it knows; after a broker's restart it is an old one.
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError._NOENT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.CONCURRENT_TRANSACTIONS,
    }
)
UNANSWERED = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
    }
)
"""Nobody has said anything: the brokers are away, or our client has lost them."""

FENCING = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
        # The coordinator has ended our transaction, or forgotten us, while it or we were away.
        KafkaError.INVALID_TXN_STATE,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)
# The broker sent something the client had to drop: going on would skip records.
CORRUPT = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG})

# By default a partition whose queue is full is not fetched again for a second, however soon the queue is empty.
_FETCH_ON = {"fetch.queue.backoff.ms": 5}


def member(processor: Processor[Any], settings: StreamSettings) -> str:
    """transactional.id and group.instance.id: stable across restarts, so that a successor fences its predecessor."""
    return f"{processor.name}-{settings.instance}"


def common(settings: StreamSettings) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.bootstrap,
        # With librdkafka's "rebootstrap" (2.16) a broker that went away takes its connection object along, and
        # send_offsets_to_transaction then waits for that for ever, past its timeout and the broker's return.
        "metadata.recovery.strategy": "none",
        # The default of 10 s is most of a transaction's time.
        "reconnect.backoff.max.ms": 1_000,
        **settings.kafka,
    }


def producer(processor: Processor[Any], settings: StreamSettings) -> dict[str, Any]:
    return {
        **common(settings),
        "transactional.id": member(processor, settings),
        "transaction.timeout.ms": settings.transaction_timeout_ms,
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": 5,
        "message.max.bytes": settings.max_record_bytes + 100_000,
        "queue.buffering.max.messages": QUEUE_RECORDS,
        "queue.buffering.max.kbytes": 2_000_000,
    }


def consumer(processor: Processor[Any], settings: StreamSettings) -> dict[str, Any]:
    return {
        **common(settings),
        "group.id": processor.name,
        "group.instance.id": member(processor, settings),
        # Per topic the same ranges to the same members: what keeps co-partitioned inputs together.
        "partition.assignment.strategy": "range",
        "session.timeout.ms": settings.session_timeout_ms,
        "heartbeat.interval.ms": max(100, settings.session_timeout_ms // 10),
        "max.poll.interval.ms": max(settings.max_poll_interval_ms, settings.session_timeout_ms),
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # An offset outside the log is an error, never a jump.
        "auto.offset.reset": "error",
        # A partition's timers run by the clock once its end was seen.
        "enable.partition.eof": processor.on_timer is not None,
        "fetch.wait.max.ms": settings.batch_ms,
        **_FETCH_ON,
        "queued.min.messages": settings.batch_records,
        "queued.max.messages.kbytes": 65_536,
    }


def restorer(processor: Processor[Any], settings: StreamSettings) -> dict[str, Any]:
    """Reads the changelog; assigned by hand, in no group."""
    return {
        **common(settings),
        "group.id": f"{processor.name}.restore",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 100,
        **_FETCH_ON,
    }


def ending(error: KafkaError, who: str) -> StreamError:
    """What a member ends with after a client's fatal error."""
    if error.code() in FENCING or "fenced" in error.str().lower():
        return Fenced(
            f"{who}: fenced ({error.name()}): a newer process runs under this instance's ids, or we were away for "
            "longer than a session or a transaction may last; a supervised restart is safe"
        )
    return StreamError(f"{who}: fatal client error {error}")
