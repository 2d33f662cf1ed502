"""What lies in Kafka and nowhere else: the request of an action that ended, an action still in its lane, the controls
and the quotas. Joins no group and commits nothing (``siyu.ops.scan``). Every method raises Unavailable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from confluent_kafka import Message
from confluent_kafka.cimpl import murmur2

from siyu.actions.control import LANES, TOPIC, send
from siyu.actions.errors import Unavailable
from siyu.actions.quota import TOPIC as QUOTA
from siyu.events import Action, ActionOutcome, CodecError, ControlRecord, Event, QuotaState, codec
from siyu.ops.scan import Progress, ScanError, Scanner

T = TypeVar("T", bound=Event)

OUTCOMES = "action.outcomes"
LANE_TOPICS = tuple(f"actions.{lane}" for lane in LANES)
_SLACK_MS = 60_000
"""More than a transaction lasts and two machines' clocks differ: how much older than its end the record may be."""


class Records:
    """The topics of one cluster. Any number of threads may ask at the same time."""

    def __init__(self, bootstrap: str, progress: Progress = lambda *_: None) -> None:
        self._bootstrap = bootstrap
        self._progress = progress

    def outcome(self, *, action_id: str, subject: str, finished_at_ms: int) -> ActionOutcome | None:
        """How an action ended, with its request. ``finished_at_ms``: wall time. None: retention has removed it."""
        key = subject.encode()
        with self._scanner() as scanner:
            place = (OUTCOMES, _partition(scanner, OUTCOMES, key))
            for message in scanner.read_since("outcomes", {place: max(0, finished_at_ms - _SLACK_MS)}):
                value = message.value()
                if value is None or message.key() != key or action_id.encode() not in value:
                    continue
                outcome = _decoded(ActionOutcome, message)
                if outcome is not None and outcome.action_id == action_id:
                    return outcome
        return None

    def queued(self, action_id: str, *, since_ms: int) -> tuple[Action, int] | None:
        """An action in its lane, and when Kafka got it (wall time); None: not there since ``since_ms`` (wall time).

        Reads all lanes: some 100,000 records a second.
        """
        wanted = action_id.encode()
        with self._scanner() as scanner:
            places = {
                (topic, partition): since_ms
                for topic in LANE_TOPICS
                for partition in range(scanner.partitions.get(topic, 0))
            }
            for message in scanner.read_since("lanes", places):
                value = message.value()
                # Decoding a record costs ten times as much as looking for the id in it.
                if value is not None and wanted in value:
                    action = _decoded(Action, message)
                    if action is not None and action.action_id == action_id:
                        return action, message.timestamp()[1]
        return None

    def controls(self) -> list[ControlRecord]:
        """The newest word about each thing, taken back ones included, oldest first."""
        return self._newest(TOPIC, ControlRecord)

    def quotas(self) -> list[QuotaState]:
        """The newest figures of each level."""
        return self._newest(QUOTA, QuotaState)

    def append(self, messages: Iterable[tuple[str, str, bytes, dict[str, str]]]) -> None:
        """(topic, key, value, headers); returns when all are on all in-sync replicas."""
        send(self._bootstrap, messages)

    def _newest(self, topic: str, of: type[T]) -> list[T]:
        newest: dict[bytes, T] = {}
        with self._scanner() as scanner:
            if topic not in scanner.partitions:
                raise Unavailable("kafka_unavailable", f"Kafka has no topic {topic}: siyu topics apply")
            for message in scanner.read_topic(topic):
                key = message.key() or b""
                newest.pop(key, None)
                record = _decoded(of, message)
                if record is not None:
                    newest[key] = record
        return list(newest.values())

    @contextmanager
    def _scanner(self) -> Iterator[Scanner]:
        try:
            with Scanner(self._bootstrap, self._progress) as scanner:
                yield scanner
        except ScanError as error:
            raise Unavailable("kafka_unavailable", str(error)) from None


def _partition(scanner: Scanner, topic: str, key: bytes) -> int:
    if topic not in scanner.partitions:
        raise Unavailable("kafka_unavailable", f"Kafka has no topic {topic}: siyu topics apply")
    return int(murmur2(key, scanner.partitions[topic]))


def _decoded(of: type[T], message: Message) -> T | None:
    """None for a deletion, and for bytes that are none of ours: whoever owns the topic buries those."""
    try:
        return codec().decode_as(of, message.value())
    except CodecError:
        return None
