"""Where one event went: every committed record that it is or that it caused, and what is missing on its way.

Reads little: until the event is found all partitions of the inputs, then only those its keys lead to, and only for as
long as something can still come. It tells kinds, revisions and reasons of records, never whom they are about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from confluent_kafka import Message
from confluent_kafka.cimpl import murmur2

from siyu.events import (
    Action,
    ActionOutcome,
    CodecError,
    ContactEvent,
    Event,
    OrderFact,
    PaymentEvent,
    RawCallback,
    RelationshipFact,
    StaffDaySnapshot,
    StaffDelta,
    codec,
)
from siyu.events.business_time import SHANGHAI, iso_utc
from siyu.ops import dlq
from siyu.ops.scan import Place, Progress, Scanner
from siyu.wecom.callbacks import type_label

RAW, CONTACTS, PAYMENTS = "callbacks.raw", "contact.events", "payment.events"
RELATIONSHIPS, ORDERS = "relationship.facts", "order.facts"
DELTAS, SNAPSHOTS = "staff.deltas", "performance.snapshots"
ACTIONS = ("actions.welcome", "actions.urgent", "actions.bulk")
OUTCOMES = "action.outcomes"
FLOW = (RAW, CONTACTS, PAYMENTS, RELATIONSHIPS, ORDERS, DELTAS, SNAPSHOTS, *ACTIONS, OUTCOMES)
"""The topics an event passes, in order: what bears one timestamp is shown in it."""

# More than the clocks of two machines differ and than a transaction lasts: how much older the timestamp of a record
# may be than that of its cause, and how far apart those of one transaction.
_SLACK_MS = 60_000
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(rf"(\d+)([{''.join(_UNIT_MS)}])")
_CHANGES_WITHOUT_EFFECT = frozenset({"edit", "transfer_fail", "archive_consent"})

Why = Literal["waiting", "repeat", "no_effect", "retention", "unknown_type", "lost"]


@dataclass(frozen=True)
class Found:
    """One record of the event. ``record`` is None for a dead letter and for bytes that do not decode."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    record: Event | None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        if self.record is not None:
            return type(self.record).__name__
        return "dead letter" if self.topic.startswith(dlq.PREFIX) else "undecodable"


@dataclass(frozen=True)
class Absence:
    """Records one would expect and that are not there."""

    topics: tuple[str, ...]
    why: Why
    text: str


@dataclass(frozen=True)
class Trace:
    """What there is of one event, in order of time."""

    event_id: str
    since_ms: int
    records: list[Found]
    absent: list[Absence]

    @property
    def repeats(self) -> list[Found]:
        """Further copies of the event itself: it was delivered, or replayed, more than once."""
        return [
            copy for topic in (RAW, CONTACTS, PAYMENTS) for copy in [f for f in self.records if f.topic == topic][1:]
        ]

    def as_json(self) -> dict[str, Any]:
        first_ms = self.records[0].timestamp_ms if self.records else 0
        return {
            "event_id": self.event_id,
            "since": iso_utc(self.since_ms),
            "records": [
                {
                    "topic": found.topic,
                    "partition": found.partition,
                    "offset": found.offset,
                    "timestamp": iso_utc(found.timestamp_ms),
                    "after_ms": found.timestamp_ms - first_ms,
                    "type": found.kind,
                    "again": found in self.repeats,
                    "what": describe(found),
                }
                for found in self.records
            ],
            "absent": [{"topics": list(a.topics), "why": a.why, "text": a.text} for a in self.absent],
        }


def parse_since(text: str, now_ms: int) -> int:
    """Epoch ms of so long ago (``90m``, ``24h``, ``7d``) or of an ISO time (Asia/Shanghai unless it says otherwise).

    Raises ValueError.
    """
    if duration := _DURATION.fullmatch(text):
        return now_ms - int(duration[1]) * _UNIT_MS[duration[2]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a duration (90m, 24h, 7d) nor a time (2026-03-01T10:00)") from None
    return int((at if at.tzinfo else at.replace(tzinfo=SHANGHAI)).timestamp() * 1000)


def trace(bootstrap: str, event_id: str, since_ms: int, progress: Progress) -> Trace:
    """Follows the event through what was written since ``since_ms`` (Kafka's timestamps). Raises ScanError."""
    with Scanner(bootstrap, progress) as scanner:
        records = _Search(scanner, event_id).everything(since_ms)
        absent = absences(records, _to_go(scanner, records), scanner.cut)
        return Trace(event_id, since_ms, records, absent)


# What a record is


def describe(found: Found) -> dict[str, object]:
    """What a record says, without whom it is about and without amounts."""
    match found.record:
        case RawCallback() as raw:
            return {"callback": type_label(raw), "unknown_type": not raw.known}
        case ContactEvent() as contact:
            return {"change": contact.change, "welcome_code": bool(contact.welcome_code)}
        case PaymentEvent() as payment:
            return {"change": payment.change, "source": payment.source, "known_payer": bool(payment.customer_id)}
        case RelationshipFact() as fact:
            return {"revision": fact.revision, "status": fact.status, "episodes": len(fact.episodes_started_ms)}
        case OrderFact() as order:
            return {
                "revision": order.revision,
                "credit": order.credit_rule,
                "paid": order.paid,
                "refunds": len(order.refund_ids),
            }
        case StaffDelta() as delta:
            signed = [("+" if amount > 0 else "-") + name for name, amount in delta.counters.items()]
            return {"day": delta.day, "counters": sorted(signed, key=lambda name: name[1:])}
        case StaffDaySnapshot() as snapshot:
            return {"day": snapshot.day, "revision": snapshot.revision}
        case Action() as action:
            return {"lane": action.lane, "endpoint": action.endpoint, "reason": action.reason}
        case ActionOutcome() as outcome:
            return {
                "status": outcome.status,
                "detail": outcome.detail,
                "errcode": outcome.errcode,
                "calls": outcome.calls,
            }
        case _:
            names = (dlq.ORIGIN, "origin.partition", "origin.offset", "error.stage", "error.class", "error.place")
            return {name: found.headers[name] for name in (*names, dlq.ATTEMPT) if name in found.headers}


# What is missing


def absences(records: Sequence[Found], to_go: Mapping[str, int], cut: AbstractSet[str]) -> list[Absence]:
    """What one would expect beside ``records``, and why it is not there.

    ``to_go``: service → records it has to take before it has taken all of these; ``cut``: topics whose records of that
    time retention may have removed.
    """
    by_topic: dict[str, list[Found]] = {}
    for found in records:
        by_topic.setdefault(found.topic, []).append(found)
    absent: list[Absence] = []

    def missing(topics: tuple[str, ...], service: str, otherwise: Why, text: str) -> None:
        if dlq.PREFIX + service in by_topic:
            return  # the dead letter itself says why
        if to_go.get(service):
            waiting = f"{service} has not come to it: {to_go[service]:,} records to go"
            absent.append(Absence(topics, "waiting", waiting))
        elif cut >= set(topics):
            absent.append(Absence(topics, "retention", "older than what the topic still holds"))
        else:
            absent.append(Absence(topics, otherwise, text))

    raw, inputs = by_topic.get(RAW, []), [*by_topic.get(CONTACTS, []), *by_topic.get(PAYMENTS, [])]
    if raw and not inputs:
        unknown = isinstance(raw[0].record, RawCallback) and not raw[0].record.known
        if unknown:
            text = "a callback of a type that nothing is made of yet: it is kept raw"
            absent.append(Absence((CONTACTS,), "unknown_type", text))
        else:
            text = "ingest ended between the two: the sender delivers again, or replay the raw callback"
            absent.append(Absence((CONTACTS,), "lost", text))
    if not inputs:
        return absent

    event = inputs[0].record
    if isinstance(event, ContactEvent) and not raw:
        text = "not since the time asked for: look further back with --since"
        absent.append(Absence((RAW,), "retention", text))
    if not by_topic.keys() & {RELATIONSHIPS, ORDERS}:
        topics = (RELATIONSHIPS, ORDERS, DELTAS) if isinstance(event, ContactEvent) else (ORDERS, DELTAS)
        if isinstance(event, ContactEvent) and event.change in _CHANGES_WITHOUT_EFFECT:
            missing(topics, "journey", "no_effect", f"journey changed nothing: {event.change} counts nowhere")
        else:
            text = "journey changed nothing: it knew the event, or it shows nowhere beside what it knew"
            missing(topics, "journey", "repeat", text)
    deltas, snapshots = len(by_topic.get(DELTAS, [])), len(by_topic.get(SNAPSHOTS, []))
    if snapshots < deltas:
        text = f"{deltas - snapshots} of {deltas} deltas were taken by performance and led to none: run siyu audit"
        missing((SNAPSHOTS,), "performance", "lost", text)

    actions = [found for topic in ACTIONS for found in by_topic.get(topic, [])]
    if isinstance(event, ContactEvent) and event.change in ("add", "add_half") and event.welcome_code and not actions:
        text = "planner made no action: it knew the welcome code, or the event is older than the codes it remembers"
        missing((ACTIONS[0],), "planner", "repeat", text)
    ended = len(by_topic.get(OUTCOMES, []))
    if ended < len(actions):
        text = f"{len(actions) - ended} of {len(actions)} actions were taken by executor and have no outcome"
        missing((OUTCOMES,), "executor", "lost", text)
    return absent


def _to_go(scanner: Scanner, records: Sequence[Found]) -> dict[str, int]:
    """Service → how many records it has to take until it has taken the first copy of what it reads of these."""
    readers: list[tuple[str, str, Found]] = []
    first = next((found for found in records if found.topic in (CONTACTS, PAYMENTS)), None)
    if first is not None:
        readers.append(("journey", "journey", first))
        if first.topic == CONTACTS:
            readers.append(("planner", "planner", first))
    readers += [("performance", "performance", found) for found in records if found.topic == DELTAS]
    readers += [("executor", "executor", a) for a in records if a.topic in ACTIONS]
    to_go: dict[str, int] = {}
    for service, group, found in readers:
        left = found.offset + 1 - scanner.committed(group, (found.topic, found.partition))
        to_go[service] = max(0, left, to_go.get(service, 0))
    return to_go


# Looking for it


@dataclass
class _Where:
    """Partitions to look through, and when to stop before their end."""

    places: list[Place]
    from_ms: int
    until_ms: int | None = None
    alone: bool = False
    """All of it lies in one partition: the first hit ends the others."""
    together: bool = False
    """It was written in one transaction: some time behind the first hit there is no more."""
    enough: int | None = None
    """There are no more than so many."""


class _Search:
    """The search for one event on one cluster."""

    def __init__(self, scanner: Scanner, event_id: str) -> None:
        self._scanner = scanner
        self._event_id = event_id
        self._needle = event_id.encode()
        self._inputs: list[Found] = []

    def everything(self, since_ms: int) -> list[Found]:
        """All records of the event, in order of time."""
        self._inputs = self._look("events", _Where(self._all(CONTACTS, PAYMENTS), since_ms, alone=True))
        if not self._inputs:
            return self._look("raw callbacks", _Where(self._all(RAW), since_ms, alone=True))
        first = self._inputs[0]
        begun_ms = first.timestamp_ms - _SLACK_MS
        facts = (RELATIONSHIPS, ORDERS) if first.topic == CONTACTS else (ORDERS,)
        wheres = [
            _Where(self._of_key(first.key, *facts), begun_ms, together=True),
            _Where(self._all(*(t for t in self._scanner.partitions if t.startswith(dlq.PREFIX))), begun_ms),
        ]
        if first.topic == CONTACTS:
            wheres.append(_Where(self._of_key(first.key, RAW), since_ms))
            wheres.append(_Where(self._all(*ACTIONS), begun_ms, together=True))
        caused = self._look("facts, actions, dead letters", *wheres)

        wheres = []
        if stamps := [found.timestamp_ms for found in caused if found.topic in facts]:
            # Several staff members may be concerned, and nothing says which: all partitions, but only for a moment.
            wheres.append(_Where(self._all(DELTAS), min(stamps) - _SLACK_MS, until_ms=max(stamps) + _SLACK_MS))
        if actions := [found for found in caused if isinstance(found.record, Action)]:
            subjects = {place for a in actions for place in self._of_key(_subject(a), OUTCOMES)}
            begun_ms = min(found.timestamp_ms for found in actions) - _SLACK_MS
            wheres.append(_Where(sorted(subjects), begun_ms, enough=len(actions)))
        followed = self._look("deltas, outcomes", *wheres)

        snapshots: list[Found] = []
        if deltas := [found for found in followed if found.topic == DELTAS]:
            places = {place for delta in deltas for place in self._of_key(delta.key, SNAPSHOTS)}
            begun_ms = min(delta.timestamp_ms for delta in deltas) - _SLACK_MS
            snapshots = self._look("snapshots", _Where(sorted(places), begun_ms, enough=len(deltas)))
        return sorted([*self._inputs, *caused, *followed, *snapshots], key=_in_time)

    def _all(self, *topics: str) -> list[Place]:
        partitions = self._scanner.partitions
        return [(topic, number) for topic in topics for number in range(partitions.get(topic, 0))]

    def _of_key(self, key: bytes, *topics: str) -> list[Place]:
        counts = self._scanner.partitions
        return [(topic, murmur2(key, counts[topic])) for topic in topics if topic in counts]

    def _look(self, what: str, *wheres: _Where) -> list[Found]:
        where_of = {place: where for where in wheres for place in where.places}
        if not where_of:
            return []
        hits: list[Found] = []
        hits_of: dict[int, int] = {}
        since = {place: where.from_ms for place, where in where_of.items()}
        for message in self._scanner.read_since(what, since):
            place: Any = message.topic(), message.partition()
            where = where_of[place]
            if where.until_ms is not None and message.timestamp()[1] > where.until_ms:
                self._scanner.leave(place)
                continue
            found = self._match(message)
            if found is None:
                continue
            hits.append(found)
            hits_of[id(where)] = hits_of.get(id(where), 0) + 1
            if where.together and where.until_ms is None:
                where.until_ms = found.timestamp_ms + _SLACK_MS
            if where.alone or hits_of[id(where)] == where.enough:
                for other in where.places:
                    if other != place or not where.alone:
                        self._scanner.leave(other)
        return sorted(hits, key=_in_time)

    def _match(self, message: Message) -> Found | None:
        """The record if it is the event or says that the event caused it."""
        topic, value = message.topic() or "", message.value()
        if topic.startswith(dlq.PREFIX):
            headers = dlq.headers_of(message)
            origin = tuple(headers.get(name) for name in (dlq.ORIGIN, "origin.partition", "origin.offset"))
            ours = {(found.topic, str(found.partition), str(found.offset)) for found in self._inputs}
            if origin not in ours and (value is None or self._needle not in value):
                return None
            return _found(message, None, headers)
        # One look at the bytes instead of a decode, and right for nearly all.
        if value is None or self._needle not in value:
            return None
        try:
            record = codec().decode(value)
        except CodecError:
            return _found(message, None, {})
        named = getattr(record, "event_id", None), getattr(record, "caused_by", None)
        return _found(message, record, {}) if self._event_id in named else None


def _found(message: Message, record: Event | None, headers: Mapping[str, str]) -> Found:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return Found(
        message.topic() or "", partition, offset, message.timestamp()[1], message.key() or b"", record, headers
    )


def _subject(found: Found) -> bytes:
    assert isinstance(found.record, Action)
    return (found.record.subject or found.record.corp_id).encode()


def _in_time(found: Found) -> tuple[int, int, str, int, int]:
    order = FLOW.index(found.topic) if found.topic in FLOW else len(FLOW)
    return found.timestamp_ms, order, found.topic, found.partition, found.offset
