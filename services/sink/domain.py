"""From fact to row: the one place that says which topic fills which table and which field which column. Pure.

A row is absolute and carries its revision, so writing it again, late or out of order changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from operator import attrgetter
from typing import Any

from siyu.events import (
    STAFF_COUNTERS,
    ActionOutcome,
    Event,
    LedgerEntry,
    OrderFact,
    QuotaState,
    RelationshipFact,
    StaffDaySnapshot,
)

_EPOCH = date(1970, 1, 1).toordinal()
_DATE_LIMIT = 1 << 16
"""ClickHouse's Date: days since 1970 in 16 bits, that is until 2149."""

TIME = "DateTime64(3, 'Asia/Shanghai')"
NAME = "LowCardinality(String)"


@dataclass(frozen=True)
class Column:
    """A column and where its value comes from. Times travel as epoch ms, days as days since 1970."""

    name: str
    type: str
    value: Callable[[Any], Any]


@dataclass(frozen=True)
class Table:
    """A table and the facts it is made of."""

    name: str
    fact: type[Event]
    columns: tuple[Column, ...]
    key: Callable[[Any], Any] | None
    """What a row is replaced by; None: every row is kept."""
    version: Callable[[Any], int]
    """The higher one replaces the lower."""
    arrived_ms: Callable[[Any], int]
    """Wall time from which freshness counts."""
    is_row: Callable[[Any], bool] = lambda _: True
    """Whether a fact stands for a row at all."""
    told: bool = True
    """A log line for every row, as far as the settings want any; False: there are thousands a second."""

    def pivot(self, facts: Sequence[Event]) -> list[list[Any]]:
        """The facts as columns, in the order of :attr:`columns`."""
        return [list(map(column.value, facts)) for column in self.columns]

    def newest(self, facts: Sequence[Event]) -> Sequence[Event]:
        """The facts that no other of them replaces, in order. ClickHouse would come to the same, a merge later."""
        if self.key is None:
            return facts
        newest: dict[Any, Event] = {}
        key, version = self.key, self.version
        for fact in facts:
            identity = key(fact)
            other = newest.get(identity)
            if other is None or version(fact) >= version(other):
                newest[identity] = fact
        return list(newest.values()) if len(newest) < len(facts) else facts


def days_since_1970(day: str) -> int:
    """``YYYY-MM-DD`` as ClickHouse's Date. Raises ValueError outside 1970 to 2149, which Date cannot hold."""
    days = date.fromisoformat(day).toordinal() - _EPOCH
    if not 0 <= days < _DATE_LIMIT:
        raise ValueError("day outside of what Date can hold")
    return days


def _field(name: str, column_type: str, column: str | None = None) -> Column:
    return Column(column or name, column_type, attrgetter(name))


def _texts(*names: str) -> tuple[Column, ...]:
    return tuple(_field(name, "String") for name in names)


def _names(*names: str) -> tuple[Column, ...]:
    return tuple(_field(name, NAME) for name in names)


def _integers(*names: str) -> tuple[Column, ...]:
    return tuple(_field(name, "Int64") for name in names)


def _times(*names: str) -> tuple[Column, ...]:
    """``pay_time_ms`` → column ``pay_time``."""
    return tuple(_field(name, TIME, name.removesuffix("_ms")) for name in names)


_REVISION = _field("revision", "UInt64")
_ORIGIN = (*_times("event_time_ms", "received_at_ms"), *_texts("caused_by"))

RELATIONSHIP = Table(
    "relationship",
    RelationshipFact,
    (
        *_names("corp_id"),
        *_texts("staff_id", "customer_id"),
        _REVISION,
        *_names("status"),
        _field("staff_side", "Bool"),
        _field("customer_side", "Bool"),
        *_texts("channel"),
        *_times("first_added_ms"),
        _field("episodes_started_ms", f"Array({TIME})", "episodes_started"),
        _field("episodes_ended_ms", f"Array({TIME})", "episodes_ended"),
        _field("episodes_ended_by", f"Array({NAME})"),
        *_ORIGIN,
    ),
    key=attrgetter("corp_id", "staff_id", "customer_id"),
    version=attrgetter("revision"),
    arrived_ms=attrgetter("received_at_ms"),
)

_ORDER_COLUMNS = (
    *_names("corp_id"),
    *_texts("order_id", "customer_id", "staff_id"),
    _REVISION,
    *_names("credit_rule"),
    _field("paid", "Bool"),
    *_times("pay_time_ms"),
    *_integers("gross_fen", "refunded_fen"),
    _field("refund_ids", "Array(String)"),
    _field("refund_times_ms", f"Array({TIME})", "refund_times"),
    _field("refund_amounts_fen", "Array(Int64)"),
    _field("payment_type", "Int32"),
    *_ORIGIN,
)

ORDERS = Table(
    "orders",
    OrderFact,
    _ORDER_COLUMNS,
    key=attrgetter("corp_id", "order_id"),
    version=attrgetter("revision"),
    arrived_ms=attrgetter("received_at_ms"),
)

ORDER_HISTORY = Table(
    "order_history",
    OrderFact,
    _ORDER_COLUMNS,
    key=None,
    version=attrgetter("revision"),
    arrived_ms=attrgetter("received_at_ms"),
)

STAFF_DAY = Table(
    "staff_day",
    StaffDaySnapshot,
    (
        *_names("corp_id"),
        *_texts("staff_id"),
        Column("day", "Date", lambda fact: days_since_1970(fact.day)),
        _REVISION,
        *_integers(*STAFF_COUNTERS),
        *_ORIGIN,
    ),
    key=attrgetter("corp_id", "staff_id", "day"),
    version=attrgetter("revision"),
    arrived_ms=attrgetter("received_at_ms"),
)

# Without request and response: they may hold personal data and are of no use in a table.
ACTION_OUTCOME = Table(
    "action_outcome",
    ActionOutcome,
    (
        *_names("corp_id"),
        *_texts("action_id"),
        *_names("lane", "endpoint"),
        *_texts("subject", "staff_id", "customer_id"),
        *_names("status"),
        _field("errcode", "Int32"),
        *_names("detail"),
        _field("calls", "Int32"),
        *_names("reason"),
        *_texts("caused_by"),
        *_times("created_ms", "deadline_ms", "trigger_received_at_ms", "finished_at_ms"),
        *_names("campaign_id"),
        *_texts("parent_id", "message_id"),
    ),
    key=attrgetter("corp_id", "action_id"),
    version=attrgetter("finished_at_ms"),
    arrived_ms=attrgetter("finished_at_ms"),
)

_STATES = {"waiting": 0, "prepared": 1, "in_doubt": 2, "accepted": 3, "ended": 4}
_END = 1 << 62


def ledger_revision(entry: LedgerEntry) -> int:
    """What lets a state of an action replace another. An end wins over all: an action that ended stays so, and the
    executor that wrote the state before may have had a faster clock. Of one millisecond the later state wins."""
    return (_END if entry.state == "ended" else 0) + entry.updated_at_ms * 8 + _STATES[entry.state]


# Without the machine's memory: it may hold personal data and is of no use in a table.
ACTION = Table(
    "action",
    LedgerEntry,
    (
        *_names("corp_id"),
        *_texts("action_id"),
        Column("revision", "UInt64", ledger_revision),
        *_texts("parent_id"),
        *_names("lane", "endpoint"),
        *_texts("subject", "staff_id", "customer_id"),
        *_names("campaign_id", "reason"),
        *_texts("caused_by"),
        *_names("state", "status", "detail"),
        _field("errcode", "Int32"),
        _field("calls", "Int32"),
        *_texts("message_id"),
        *_times("created_ms", "not_before_ms", "deadline_ms", "due_ms", "updated_at_ms", "admitted_at_ms"),
        *_names("limits_revision"),
        Column("admission", "String", lambda fact: fact.admission.decode()),
        *_texts("origin"),
    ),
    key=attrgetter("corp_id", "action_id"),
    version=ledger_revision,
    arrived_ms=attrgetter("updated_at_ms"),
    # The unchanging part of a large action, kept beside it, is none; nor is its end, which alone has no status.
    is_row=lambda fact: fact.state != "body" and (fact.state != "ended" or bool(fact.status)),
)

# Without the state, which only the next owner can read.
QUOTA_LEVEL = Table(
    "quota_level",
    QuotaState,
    (
        *_names("corp_id", "endpoint"),
        *_texts("level"),
        _field("shard", "UInt32"),
        Column("view", "String", lambda fact: fact.view.decode()),
        *_times("updated_at_ms"),
    ),
    key=attrgetter("corp_id", "endpoint", "level"),
    version=attrgetter("updated_at_ms"),
    arrived_ms=attrgetter("updated_at_ms"),
    # Markers of an owner, and levels of one person that nothing holds back, show nothing to people.
    is_row=lambda fact: bool(fact.view),
    told=False,
)

TABLES: tuple[Table, ...] = (RELATIONSHIP, ORDERS, ORDER_HISTORY, STAFF_DAY, ACTION_OUTCOME, ACTION, QUOTA_LEVEL)

TOPICS: dict[str, tuple[Table, ...]] = {
    "relationship.facts": (RELATIONSHIP,),
    "order.facts": (ORDERS, ORDER_HISTORY),
    "performance.snapshots": (STAFF_DAY,),
    "action.outcomes": (ACTION_OUTCOME,),
    "action.ledger": (ACTION,),
    "quota.state": (QUOTA_LEVEL,),
}

COMPACTED = frozenset({"action.ledger", "quota.state"})
"""Topics in which a record without a value says that its key is forgotten: the row stays, as history."""
