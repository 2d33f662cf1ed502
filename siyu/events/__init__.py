"""The typed events of every topic, their Avro codec, their ids, and the money and time types."""

from siyu.events.codec import Codec, CodecError, codec, schemas_dir
from siyu.events.types import (
    STAFF_COUNTERS,
    Action,
    ActionOutcome,
    ActionStatus,
    ContactChange,
    ContactEvent,
    Event,
    Lane,
    OrderFact,
    PaymentChange,
    PaymentEvent,
    RawCallback,
    RelationshipFact,
    RelationshipStatus,
    StaffDaySnapshot,
    StaffDelta,
)

__all__ = [
    "STAFF_COUNTERS",
    "Action",
    "ActionOutcome",
    "ActionStatus",
    "Codec",
    "CodecError",
    "ContactChange",
    "ContactEvent",
    "Event",
    "Lane",
    "OrderFact",
    "PaymentChange",
    "PaymentEvent",
    "RawCallback",
    "RelationshipFact",
    "RelationshipStatus",
    "StaffDaySnapshot",
    "StaffDelta",
    "codec",
    "schemas_dir",
]
