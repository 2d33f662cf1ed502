"""The days of one staff member as running totals: each delta added once gives the day as it stands.

Counting every delta exactly once is the transaction's part; adding is all that happens here, so the order in which the
deltas of different customers arrive does not matter.
"""

from __future__ import annotations

from datetime import date

import msgspec

from siyu.events import STAFF_COUNTERS, StaffDaySnapshot, StaffDelta

# Positions are the names of the counters in the stored state: new ones go to the end, none is ever moved or removed.
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
_POSITIONS = {name: position for position, name in enumerate(COUNTERS)}
assert set(COUNTERS) == set(STAFF_COUNTERS), "every counter of the snapshot has its place in the state"


class Day(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Totals of one day."""

    revision: int
    event_time_ms: int
    """Of the newest event that changed the day."""
    totals: dict[int, int]
    """By position in COUNTERS; zeros are left out."""


class StaffMember(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """State of one key. Never mutated: a changed part is a new object."""

    days: dict[str, bytes]
    """Day → encoded Day. Only the touched one is decoded: a state is written whole with every delta, and years of days
    as objects would cost more than the delta itself."""


_NOTHING = StaffMember({})
_NEW_DAY = Day(0, 0, {})
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Day).decode


def apply(state: StaffMember | None, delta: StaffDelta) -> tuple[StaffMember, StaffDaySnapshot]:
    """The delta's day as it stands afterwards. Raises ValueError, without any of its data, for one that is wrong."""
    if not delta.counters:
        raise ValueError("delta without counters")
    staff_member = _NOTHING if state is None else state
    stored = staff_member.days.get(delta.day)
    if stored is None:
        _check_day(delta.day)
        day = _NEW_DAY
    else:
        day = _decode(stored)
    totals = dict(day.totals)
    for name, amount in delta.counters.items():
        position = _POSITIONS.get(name)
        if position is None:
            raise ValueError("delta of an unknown counter")
        total = totals.pop(position, 0) + amount
        if total:
            totals[position] = total
    day = Day(day.revision + 1, max(day.event_time_ms, delta.event_time_ms), totals)
    staff_member = StaffMember(staff_member.days | {delta.day: _encode(day)})
    return staff_member, _snapshot(day, delta)


def _check_day(day: str) -> None:
    try:
        canonical = date.fromisoformat(day).isoformat()
    except ValueError:
        # Not chained: its text would quote the value.
        raise ValueError("delta of something that is not a day") from None
    if canonical != day:
        raise ValueError("delta of a day that is not written YYYY-MM-DD")


def _snapshot(day: Day, cause: StaffDelta) -> StaffDaySnapshot:
    totals = day.totals
    return StaffDaySnapshot(
        corp_id=cause.corp_id,
        staff_id=cause.staff_id,
        day=cause.day,
        revision=day.revision,
        event_time_ms=day.event_time_ms,
        received_at_ms=cause.received_at_ms,
        caused_by=cause.caused_by,
        **{name: totals.get(position, 0) for position, name in enumerate(COUNTERS)},
    )
