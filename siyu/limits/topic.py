"""Limits in the topic ``config``: what is in force, what has ever been, and a new one.

Key ``limits|registry`` holds the newest registry, ``limits|<revision>`` each one that was ever applied, whole. A
revision is in the history before it is in force, so that no decision can name one that cannot be read again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from siyu.events import CodecError, ConfigRecord, LedgerEntry, codec
from siyu.limits.model import LimitRegistry, LimitsError
from siyu.limits.source import KIND, NEWEST, records_of, registry_of
from siyu.ops.scan import Progress, ScanError, Scanner

CONFIG = "config"
LEDGER = "action.ledger"
_ACK_SECONDS = 30
_MOST_BYTES = 8 << 20


@dataclass(frozen=True)
class Published:
    """What the topic ``config`` holds about limits."""

    newest: ConfigRecord | None = None
    history: dict[str, ConfigRecord] = field(default_factory=dict)
    """By revision, in the order in which they were last applied."""

    def registry(self) -> LimitRegistry | None:
        """The one in force; None when none was ever applied. Raises LimitsError."""
        return None if self.newest is None else registry_of(self.newest)

    def revision(self, revision: str) -> LimitRegistry | None:
        """One that was applied; None when it never was. Raises LimitsError."""
        record = self.history.get(revision)
        return None if record is None else registry_of(record)


def read_published(bootstrap: str, *, topic: str = CONFIG) -> Published:
    """Raises ScanError when Kafka does not answer or the topic is missing, LimitsError when a record is none."""
    with Scanner(bootstrap) as scanner:
        if topic not in scanner.partitions:
            raise ScanError(f"Kafka at {bootstrap} has no topic {topic}; siyu topics apply makes it")
        records = {
            (message.key() or b"").decode(errors="replace"): message.value()
            for message in scanner.read_topic(topic)
            if (message.key() or b"").startswith(f"{KIND}|".encode())
        }
    newest: ConfigRecord | None = None
    history: list[ConfigRecord] = []
    for key, value in records.items():
        if value is None:
            continue
        try:
            record = codec().decode_as(ConfigRecord, value)
        except CodecError as error:
            raise LimitsError(f"topic {topic}, key {key}: {error}") from None
        if record.id == NEWEST:
            newest = record
        else:
            history.append(record)
    history.sort(key=lambda record: record.written_at_ms)
    return Published(newest, {record.revision: record for record in history})


def publish(
    bootstrap: str,
    registry: LimitRegistry,
    *,
    author: str,
    reason: str,
    written_at_ms: int,
    topic: str = CONFIG,
) -> None:
    """Puts a registry in force in every executor; returns when all in-sync replicas have it. ``written_at_ms``: wall
    time. Raises LimitsError."""
    # One after the other: a newest without its history must not be, whatever ends this process in between.
    for record in records_of(registry, author=author, reason=reason, written_at_ms=written_at_ms):
        _append(bootstrap, topic, record)


def remember(
    bootstrap: str,
    registry: LimitRegistry,
    *,
    author: str,
    reason: str,
    written_at_ms: int,
    topic: str = CONFIG,
) -> bool:
    """Keeps a registry in the history without putting it in force, for a process that admits by the limits it came
    with: after the next release nobody else would know them. False when it was there. Raises LimitsError, ScanError."""
    if registry.revision in read_published(bootstrap, topic=topic).history:
        return False
    history, _ = records_of(registry, author=author, reason=reason, written_at_ms=written_at_ms)
    _append(bootstrap, topic, history)
    return True


def _append(bootstrap: str, topic: str, record: ConfigRecord) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "message.max.bytes": _MOST_BYTES,
            "message.timeout.ms": _ACK_SECONDS * 1000,
            "log_level": 0,
        }
    )
    failed: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error.name())

    key = f"{record.kind}|{record.id}"
    try:
        producer.produce(topic, key=key.encode(), value=codec().encode(record), on_delivery=delivered)
        left = producer.flush(_ACK_SECONDS + 1)
    except (KafkaException, BufferError) as error:
        raise LimitsError(f"Kafka at {bootstrap} did not take {key}: {error}") from None
    if left or failed:
        raise LimitsError(f"Kafka at {bootstrap} did not take {key}: {failed[0] if failed else 'no answer'}")


def read_admission(
    bootstrap: str, action_id: str, progress: Progress = lambda *_: None, *, topic: str = LEDGER
) -> LedgerEntry | None:
    """The newest ledger entry of an action that has one; None when there is none. Reads partitions whole, for the
    ledger is compacted and its partition depends on the endpoint. Raises ScanError."""
    key = action_id.encode()
    with Scanner(bootstrap, progress) as scanner:
        if topic not in scanner.partitions:
            raise ScanError(f"Kafka at {bootstrap} has no topic {topic}; siyu topics apply makes it")
        for number in range(scanner.partitions[topic]):
            value: bytes | None = None
            found = False
            for message in scanner.read_from(f"{topic} partition {number}", (topic, number), 0):
                if message.key() == key:
                    found, value = True, message.value()
            if found and value is not None:
                try:
                    return codec().decode_as(LedgerEntry, value)
                except CodecError as error:
                    raise ScanError(f"{topic} partition {number}: the entry of the action: {error}") from None
    return None
