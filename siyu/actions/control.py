"""Control records: the one place that makes them, so that every executor reads the same word the same way.

* A **pause** holds every action it covers back, and nothing else: what waits keeps its place and its deadline. It is
  taken back by the same record with ``active`` 0, and ends by itself at ``expires_ms`` when that is not 0.
* A **cancel** ends what it covers before a call as ``cancelled``. One of an action or a campaign holds for good (a
  campaign is one thing; what still comes of it is not wanted either). One of a corp or a lane takes back only what had
  been appended by ``written_at_ms``: both are wall time, the broker's timestamp of the action and the operator's word.
* A **settle** says what became of an action in doubt, where no endpoint can tell.

The id is made of what the record is about, so the newest word about one thing replaces the one before in the compacted
topic, and the same word twice is once. A cancel of an action and a verdict are forgotten after :data:`KEPT_MS`, when no
topic holds the action any more. A record covers an action when each of its corp, lane and campaign is empty or
the action's. All times are wall time, epoch ms UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast, get_args

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from siyu.actions.errors import Invalid, Unavailable
from siyu.events import ControlRecord, Lane, codec
from siyu.events.ids import stable_id

TOPIC = "executor.control"
Verdict = Literal["done", "not_done"]
LANES: tuple[str, ...] = get_args(Lane)
ID_LENGTH = 200
"""No corp, campaign or action id of the platform or of ours comes near it."""
REASON_LENGTH = 500
AUTHOR_LENGTH = 64
KEPT_MS = 31 * 86_400_000
"""Longer than ``actions.bulk`` keeps an action (30 days)."""
_FLUSH_SECONDS = 10.0


def pause_id(corp_id: str, lane: str, campaign_id: str) -> str:
    """Id of the pause of exactly these."""
    return stable_id("pause", corp_id, lane, campaign_id)


def pause_record(
    *,
    corp_id: str = "",
    lane: str = "",
    campaign_id: str = "",
    reason: str,
    author: str,
    wall_ms: int,
    expires_ms: int = 0,
) -> ControlRecord:
    """Holds back what it covers; all three empty: everything. ``expires_ms`` 0: until it is taken back.

    Raises Invalid.
    """
    if expires_ms and expires_ms <= wall_ms:
        raise Invalid("expires", "a pause must end later than now")
    return _record(
        "pause",
        pause_id(corp_id, lane, campaign_id),
        corp_id=corp_id,
        lane=lane,
        campaign_id=campaign_id,
        reason=reason,
        author=author,
        expires_ms=expires_ms,
        wall_ms=wall_ms,
    )


def resume_record(pause: ControlRecord, *, reason: str, author: str, wall_ms: int) -> ControlRecord:
    """Takes a pause back. Raises Invalid."""
    check_words(reason, author)
    return msgspec.structs.replace(pause, active=0, reason=reason, author=author, expires_ms=0, written_at_ms=wall_ms)


def cancel_record(
    *,
    action_id: str = "",
    corp_id: str = "",
    lane: str = "",
    campaign_id: str = "",
    reason: str,
    author: str,
    wall_ms: int,
) -> ControlRecord:
    """Takes back one action, or what a corp, a lane, a campaign (or several of these together) have waiting.

    With ``action_id`` the others only describe it. Raises Invalid when all are empty: to stop everything, pause it.
    """
    if not (action_id or corp_id or lane or campaign_id):
        raise Invalid("action_id", "say what to cancel: an action, a campaign, a corp or a lane")
    about = (action_id,) if action_id else (corp_id, lane, campaign_id)
    return _record(
        "cancel",
        stable_id("cancel", *about),
        action_id=action_id,
        # Of a campaign for good; of a corp or a lane it covers only what is older than itself, so it may be forgotten.
        expires_ms=0 if campaign_id and not action_id else wall_ms + KEPT_MS,
        corp_id=corp_id,
        lane=lane,
        campaign_id=campaign_id,
        reason=reason,
        author=author,
        wall_ms=wall_ms,
    )


def settle_record(
    *, action_id: str, corp_id: str = "", verdict: Verdict, reason: str, author: str, wall_ms: int
) -> ControlRecord:
    """What became of an action in doubt, by a person who looked. Raises Invalid."""
    if not action_id:
        raise Invalid("action_id", "say which action to settle")
    check_verdict(verdict)
    return _record(
        "settle",
        stable_id("settle", action_id),
        action_id=action_id,
        corp_id=corp_id,
        verdict=verdict,
        expires_ms=wall_ms + KEPT_MS,
        reason=reason,
        author=author,
        wall_ms=wall_ms,
    )


def check_verdict(text: str) -> Verdict:
    """The same text, known to be a verdict. Raises Invalid."""
    for verdict in get_args(Verdict):
        if text == verdict:
            return cast(Verdict, verdict)
    raise Invalid("as", f"a verdict is one of {', '.join(get_args(Verdict))}")


def covers(record: ControlRecord, *, corp_id: str, lane: str, campaign_id: str) -> bool:
    """Whether a pause, or a cancel without an action, is about an action of this corp, lane and campaign."""
    return record.corp_id in ("", corp_id) and record.lane in ("", lane) and record.campaign_id in ("", campaign_id)


def takes_back(record: ControlRecord, *, corp_id: str, lane: str, campaign_id: str, appended_ms: int) -> bool:
    """Whether a cancel without an action ends an action that was appended at ``appended_ms`` (the broker's time)."""
    return covers(record, corp_id=corp_id, lane=lane, campaign_id=campaign_id) and (
        bool(record.campaign_id) or appended_ms <= record.written_at_ms
    )


def holds(record: ControlRecord, wall_ms: int) -> bool:
    """Whether it has neither been taken back nor ended by itself."""
    return bool(record.active) and (record.expires_ms == 0 or wall_ms < record.expires_ms)


def publish(bootstrap: str, records: Iterable[ControlRecord]) -> None:
    """Returns when Kafka has every record on all in-sync replicas. Raises Unavailable; then some may be there."""
    send(bootstrap, map(message_of, records))


def message_of(record: ControlRecord) -> tuple[str, str, bytes, dict[str, str]]:
    """Topic, key, value and headers of a word."""
    return TOPIC, record.id, codec().encode(record), {}


def send(bootstrap: str, messages: Iterable[tuple[str, str, bytes, dict[str, str]]]) -> None:
    """Appends (topic, key, value, headers); returns when all are acknowledged. Raises Unavailable."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "message.max.bytes": 8 << 20,
            "message.timeout.ms": int(_FLUSH_SECONDS * 1000),
            "log_level": 0,
        }
    )
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    try:
        for topic, key, value, headers in messages:
            producer.produce(
                topic,
                key=key.encode(),
                value=value,
                headers={name: text.encode() for name, text in headers.items()},
                on_delivery=delivered,
            )
        left = producer.flush(_FLUSH_SECONDS + 1)
    except (KafkaException, BufferError) as error:
        raise Unavailable("kafka_unavailable", f"Kafka did not take the record ({type(error).__name__})") from None
    if left or failed:
        names = ", ".join(sorted({error.name() for error in failed})) or "no answer"
        raise Unavailable("kafka_unavailable", f"Kafka at {bootstrap} did not take the record: {names}")


def _record(
    kind: Literal["pause", "cancel", "settle"],
    record_id: str,
    *,
    reason: str,
    author: str,
    wall_ms: int,
    corp_id: str = "",
    lane: str = "",
    campaign_id: str = "",
    action_id: str = "",
    verdict: str = "",
    expires_ms: int = 0,
) -> ControlRecord:
    check_words(reason, author)
    if lane and lane not in LANES:
        raise Invalid("lane", f"a lane is one of {', '.join(LANES)}")
    for field, value in (("corp_id", corp_id), ("campaign_id", campaign_id), ("action_id", action_id)):
        if len(value) > ID_LENGTH:
            raise Invalid(field, f"an id has at most {ID_LENGTH} characters")
    return ControlRecord(
        record_id,
        kind,
        corp_id,
        lane,
        campaign_id,
        action_id,
        verdict,
        reason,
        author,
        1,
        expires_ms,
        wall_ms,
    )


def check_words(reason: str, author: str) -> None:
    """Every word of an operator bears a name and a reason: who comes after must understand it. Raises Invalid."""
    for field, value, longest in (("reason", reason, REASON_LENGTH), ("author", author, AUTHOR_LENGTH)):
        if not value.strip():
            raise Invalid(field, f"a {field} is needed")
        if len(value) > longest:
            raise Invalid(field, f"a {field} has at most {longest} characters")
