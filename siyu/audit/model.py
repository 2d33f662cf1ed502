"""Plain values of the recomputation: what happened, and what follows from it. Times are epoch ms UTC, money is fen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Key = tuple[str, ...]
"""Identity of a row, the corp id first."""
Row = dict[str, Any]
"""What is compared of a row, by name."""
Rows = dict[Key, Row]

COUNTERS = (
    "adds",
    "half_adds",
    "lost_by_customer",
    "lost_by_staff",
    "lost_by_transfer",
    "orders",
    "gross_fen",
    "refunds",
    "refunded_fen",
    "unknown_customer_orders",
    "unknown_customer_gross_fen",
    "unmatched_refunds",
    "unmatched_refund_fen",
)


@dataclass(frozen=True)
class Contact:
    """One distinct change of one relationship, as a callback told it."""

    corp_id: str
    staff_id: str
    customer_id: str
    change: str
    time_ms: int
    state: str
    welcome_code: str
    event_id: str


@dataclass(frozen=True)
class Payment:
    """One collection."""

    corp_id: str
    order_id: str
    customer_id: str
    collector_id: str
    time_ms: int
    amount_fen: int
    payment_type: int


@dataclass(frozen=True)
class Refund:
    """One refund of one order."""

    corp_id: str
    order_id: str
    refund_id: str
    customer_id: str
    staff_id: str
    time_ms: int
    amount_fen: int


@dataclass(frozen=True)
class Episode:
    """One time as friends; ``ended_ms`` is 0 and ``ended_by`` empty while it lasts."""

    started_ms: int
    ended_ms: int
    ended_by: str

    def covers(self, time_ms: int) -> bool:
        """Whether the two were friends at that instant: start included, end not."""
        return self.started_ms <= time_ms and (self.ended_ms == 0 or self.ended_ms > time_ms)


@dataclass(frozen=True)
class Relationship:
    """One staff member and one customer."""

    status: str
    staff_side: bool
    customer_side: bool
    channel: str
    episodes: tuple[Episode, ...]
    half_adds_ms: tuple[int, ...]
    """When the pair became half."""
    event_time_ms: int
    """Of the newest event that the row rests on."""

    def row(self) -> Row:
        """What ClickHouse must say."""
        return {
            "status": self.status,
            "staff_side": self.staff_side,
            "customer_side": self.customer_side,
            "channel": self.channel,
            "first_added_ms": self.episodes[0].started_ms if self.episodes else 0,
            "episodes": [[e.started_ms, e.ended_ms, e.ended_by] for e in self.episodes],
            "event_time_ms": self.event_time_ms,
        }


def business_day(time_ms: int) -> str:
    """The calendar day in Asia/Shanghai, which is UTC+8 all year."""
    return (datetime.fromtimestamp(time_ms // 1000, UTC) + timedelta(hours=8)).strftime("%Y-%m-%d")
