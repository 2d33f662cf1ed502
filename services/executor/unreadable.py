"""Records of a lane that are no action: kept with their origin, and told as an outcome under their place."""

from __future__ import annotations

from collections.abc import Container

from aiokafka.structs import ConsumerRecord

from services.executor.journal import Message
from services.executor.pending import LARGEST_BYTES
from siyu.events import Action, CodecError, Lane
from siyu.events.ids import stable_id
from siyu.ops import dlq

DEAD_LETTERS = "dlq.executor"
LARGEST_FIELDS_BYTES = 64 << 10
"""Of an action without its payload: its ids stand in several places of what is written about it."""


def dead_letter(record: ConsumerRecord, error: CodecError) -> Message:
    """The record with its origin; of one that would fit into no record any more, the beginning."""
    headers = dlq.headers(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        stage="decode",
        error=error,
        processor="executor",
        earlier=record.headers or (),
    )
    key, value = record.key, record.value
    if len(key or b"") + len(value or b"") > LARGEST_BYTES:
        # Its beginning says what it was; the headers say where the whole of it lies.
        key, value = (key or b"")[:LARGEST_FIELDS_BYTES], (value or b"")[: LARGEST_BYTES // 8]
    return Message(DEAD_LETTERS, key, value, None, headers)


def in_its_place(record: ConsumerRecord, lane: Lane, corps: Container[str]) -> Action:
    """What the outcome is about: nothing is known but where it lay and, if its key names one, the corp."""
    corp_id = bytes(record.key or b"").decode(errors="replace").partition("|")[0]
    known = corp_id if corp_id in corps else ""
    return Action(
        action_id=stable_id("record", record.topic, record.partition, record.offset),
        lane=lane,
        corp_id=known,
        endpoint="",
        subject=known,
        staff_id="",
        customer_id="",
        payload=b"",
        reason="",
        caused_by="",
        created_ms=record.timestamp,
        not_before_ms=0,
        deadline_ms=0,
        trigger_received_at_ms=0,
    )
