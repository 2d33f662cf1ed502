"""Dead letters: what they carry, looking at them, and sending them back to where they came from.

A dead letter is the original record, byte for byte, with headers that name its origin. Replaying appends it to the
origin topic under its original key; every consumer is idempotent by id, so a replay of something that had been applied
changes nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message, Producer

from siyu.ops.scan import ScanError, Scanner

PREFIX = "dlq."
ORIGIN = "origin.topic"
ATTEMPT = "attempt"


def headers(
    topic: str | None,
    partition: int | None,
    offset: int | None,
    timestamp_ms: int,
    *,
    stage: str,
    error: BaseException,
    processor: str,
    earlier: Iterable[tuple[str, object]] = (),
) -> list[tuple[str, bytes]]:
    """Headers of a dead letter: where it came from and what went wrong, by class and place.

    Never by message: an error's text may hold a name or a phone number. ``earlier`` are the record's own headers;
    ``attempt`` counts on when a replayed dead letter dies again.
    """
    before = dict(earlier).get(ATTEMPT)
    fields: dict[str, object] = {
        ORIGIN: topic,
        "origin.partition": partition,
        "origin.offset": offset,
        "origin.timestamp_ms": timestamp_ms,
        "error.stage": stage,
        "error.class": type(error).__name__,
        "error.place": place(error),
        "processor": processor,
        ATTEMPT: int(before) + 1 if isinstance(before, bytes) and before.isdigit() else 1,
    }
    return [(name, str(value).encode()) for name, value in fields.items()]


def place(error: BaseException) -> str:
    """Where ``error`` was raised: file, line and function of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "unknown"
    last = frames[-1]
    return f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno} {last.name}"


class DeadLettersError(RuntimeError):
    """The cluster does not answer, or there is no such dead letter."""


@dataclass(frozen=True)
class DeadLetter:
    """One dead letter and where it came from."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    headers: dict[str, str]
    key: bytes | None
    value: bytes | None


def services(bootstrap: str) -> list[str]:
    """Services that have a dead letter topic."""
    with _scanner(bootstrap) as scanner:
        return sorted(name.removeprefix(PREFIX) for name in scanner.partitions if name.startswith(PREFIX))


def read(bootstrap: str, service: str) -> Iterator[DeadLetter]:
    """Every dead letter of a service that is there now, oldest first per partition."""
    topic = PREFIX + service
    with _scanner(bootstrap) as scanner:
        if not scanner.partitions.get(topic):
            raise DeadLettersError(f"no dead letters are kept for {service}: no topic {topic}")
        for message in scanner.read_topic(topic):
            yield _letter(message)


@contextmanager
def _scanner(bootstrap: str) -> Iterator[Scanner]:
    try:
        with Scanner(bootstrap) as scanner:
            yield scanner
    except ScanError as error:
        raise DeadLettersError(str(error)) from None


def headers_of(message: Message) -> dict[str, str]:
    """The headers of a record as text."""
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        for name, value in dict(message.headers() or []).items()
    }


def _letter(message: Message) -> DeadLetter:
    offset, partition = message.offset(), message.partition()
    assert offset is not None
    assert partition is not None
    return DeadLetter(
        topic=message.topic() or "",
        partition=partition,
        offset=offset,
        timestamp_ms=message.timestamp()[1],
        headers=headers_of(message),
        key=message.key(),
        value=message.value(),
    )


def replayable(letter: DeadLetter) -> bool:
    """Whether there is a record to send back. A timer has none: it is set anew by what set it."""
    return bool(letter.headers.get(ORIGIN))


def replay(bootstrap: str, letters: list[DeadLetter]) -> int:
    """Appends the letters to their origin topics; returns how many the brokers have taken. Raises when one was not.

    Raises before anything is sent when a letter has no origin record: that of a timer, see ``replayable``.

    The attempt travels along, so that a letter that dies again counts on.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "log_level": 0,
        }
    )
    homeless = next((letter for letter in letters if not replayable(letter)), None)
    if homeless is not None:
        place_of = f"{homeless.topic} {homeless.partition}:{homeless.offset}"
        raise DeadLettersError(f"{place_of} does not name its origin topic; nothing was sent")
    failed: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error.name())

    for letter in letters:
        attempt: list[tuple[str, str | bytes | None]] = [(ATTEMPT, letter.headers.get(ATTEMPT, "1"))]
        producer.produce(
            letter.headers[ORIGIN], key=letter.key, value=letter.value, headers=attempt, on_delivery=delivered
        )
        producer.poll(0)
    left = producer.flush(30)
    if left or failed:
        raise DeadLettersError(f"{left + len(failed)} of {len(letters)} were not taken: {sorted(set(failed))}")
    return len(letters)
