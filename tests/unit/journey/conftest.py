"""The definitions page once more, as plainly as it can be written: from scratch, over the whole set of events, with no
thought of speed and nothing shared with the service. What the service says step by step must come to the same."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from siyu.events import ContactEvent, OrderFact, PaymentEvent, RelationshipFact

RANK = {
    "add_half": 0,
    "add": 1,
    "edit": 2,
    "transfer_fail": 2,
    "archive_consent": 2,
    "delete_by_customer": 3,
    "delete_by_staff": 4,
    "delete_by_transfer": 5,
}
DELETIONS = {"delete_by_customer": "customer", "delete_by_staff": "staff", "delete_by_transfer": "transfer"}
DEPENDS_ON_ARRIVAL = ("revision", "received_at_ms", "caused_by")

Cells = dict[tuple[str, str, str], int]
"""(staff id, day, counter) → amount, zeros left out."""


def day(time_ms: int) -> str:
    return (datetime.fromtimestamp(time_ms / 1000, UTC) + timedelta(hours=8)).date().isoformat()


def distinct(events: Iterable[Any]) -> list[Any]:
    return list({event.event_id: event for event in events}.values())


def in_order(events: list[ContactEvent]) -> list[ContactEvent]:
    return sorted(events, key=lambda e: (e.event_time_ms, RANK[e.change], e.state))


def relationship(events: list[ContactEvent]) -> dict[str, Any]:
    """The row of one pair, by the columns of the fact, and the counters it makes."""
    events = in_order(events)
    episodes: list[list[Any]] = []
    counts: list[tuple[int, str]] = []
    half = False
    for e in events:
        friends = bool(episodes) and episodes[-1][1] == 0
        if e.change == "add" and not friends:
            episodes.append([e.event_time_ms, 0, ""])
            counts.append((e.event_time_ms, "adds"))
        if e.change in DELETIONS and friends:
            episodes[-1][1:] = [e.event_time_ms, DELETIONS[e.change]]
            counts.append((e.event_time_ms, "lost_by_" + DELETIONS[e.change]))
        if e.change == "add_half" and not friends and not half:
            half = True
            counts.append((e.event_time_ms, "half_adds"))
        if e.change == "add" or e.change in DELETIONS:
            half = False

    staff_side = [e.change for e in events if e.change in ("add", "delete_by_staff", "delete_by_transfer")]
    customer_side = [e.change for e in events if e.change in ("add", "add_half", "delete_by_customer")]
    staff_has, staff_gone = staff_side[-1:] == ["add"], bool(staff_side) and staff_side[-1] != "add"
    customer_gone = customer_side[-1:] == ["delete_by_customer"]
    if episodes and episodes[-1][1] == 0:
        status = "friend"
    elif half:
        status = "half"
    elif staff_gone and customer_gone:
        status = "deleted_by_both"
    elif customer_gone:
        status = "deleted_by_customer"
    elif staff_gone:
        status = "transferred" if staff_side[-1] == "delete_by_transfer" else "deleted_by_staff"
    else:
        status = "none"

    counting = [e for e in events if RANK[e.change] != 2]
    return {
        "status": status,
        "staff_side": staff_has,
        "customer_side": bool(customer_side) and not customer_gone,
        "channel": channel(events),
        "first_added_ms": episodes[0][0] if episodes else 0,
        "episodes_started_ms": [e[0] for e in episodes],
        "episodes_ended_ms": [e[1] for e in episodes],
        "episodes_ended_by": [e[2] for e in episodes],
        "event_time_ms": max(e.event_time_ms for e in counting or events),
        "counts": counts,
    }


def channel(events: list[ContactEvent]) -> str:
    """Cut the life into stretches that each end with the end of an episode; the last stretch with an add decides."""
    stretches: list[list[ContactEvent]] = [[]]
    friends = False
    for e in events:
        if e.change in ("add", "add_half"):
            stretches[-1].append(e)
            friends = friends or e.change == "add"
        if e.change in DELETIONS and friends:
            stretches.append([])
            friends = False
    with_adds = [stretch for stretch in stretches if stretch]
    return next((e.state for e in with_adds[-1] if e.state), "") if with_adds else ""


def owner(pairs: dict[str, dict[str, Any]], time_ms: int) -> str:
    best: tuple[int, str] | None = None
    for staff_id in sorted(pairs):
        row = pairs[staff_id]
        for start, end in zip(row["episodes_started_ms"], row["episodes_ended_ms"], strict=True):
            if start <= time_ms and (end == 0 or end > time_ms) and (best is None or start > best[0]):
                best = (start, staff_id)
    return best[1] if best else ""


def order(events: list[PaymentEvent], pairs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The row of one order and the counters it makes, as (staff id, time, counter, amount)."""
    payment = next((e for e in events if e.change == "paid"), None)
    refunds = sorted((e for e in events if e.change == "refunded"), key=lambda e: (e.event_time_ms, e.refund_id))
    if payment is None:
        staff_id, rule = refunds[0].staff_id, "refunder"
    elif payment.staff_id:
        staff_id, rule = payment.staff_id, "collector"
    else:
        staff_id, rule = owner(pairs, payment.event_time_ms), "owner"
    counts: list[tuple[str, int, str, int]] = []
    if payment:
        at = payment.event_time_ms
        counts += [(staff_id, at, "orders", 1), (staff_id, at, "gross_fen", payment.amount_fen)]
        if payment.customer_id == "":
            counts += [
                (staff_id, at, "unknown_customer_orders", 1),
                (staff_id, at, "unknown_customer_gross_fen", payment.amount_fen),
            ]
    for r in refunds:
        if payment:
            counts += [
                (staff_id, r.event_time_ms, "refunds", 1),
                (staff_id, r.event_time_ms, "refunded_fen", r.amount_fen),
            ]
        else:
            counts += [
                (r.staff_id, r.event_time_ms, "unmatched_refunds", 1),
                (r.staff_id, r.event_time_ms, "unmatched_refund_fen", r.amount_fen),
            ]
    return {
        "staff_id": staff_id,
        "credit_rule": rule if staff_id else "none",
        "paid": payment is not None,
        "pay_time_ms": payment.event_time_ms if payment else 0,
        "gross_fen": payment.amount_fen if payment else 0,
        "refunded_fen": sum(r.amount_fen for r in refunds),
        "refund_ids": [r.refund_id for r in refunds],
        "refund_times_ms": [r.event_time_ms for r in refunds],
        "refund_amounts_fen": [r.amount_fen for r in refunds],
        "payment_type": payment.payment_type if payment else 0,
        "event_time_ms": max(e.event_time_ms for e in events),
        "counts": counts,
    }


def from_scratch(events: Iterable[Any]) -> SimpleNamespace:
    """Every row and every counter of one customer's events."""
    events = distinct(events)
    by_staff: dict[str, list[ContactEvent]] = {}
    by_order: dict[str, list[PaymentEvent]] = {}
    for e in events:
        if isinstance(e, ContactEvent):
            by_staff.setdefault(e.staff_id, []).append(e)
        else:
            by_order.setdefault(e.order_id, []).append(e)
    relationships = {staff_id: relationship(pair) for staff_id, pair in by_staff.items()}
    orders = {order_id: order(of_order, relationships) for order_id, of_order in by_order.items()}
    cells: Counter[tuple[str, str, str]] = Counter()
    for staff_id, row in relationships.items():
        for time_ms, counter in row.pop("counts"):
            cells[staff_id, day(time_ms), counter] += 1
    for row in orders.values():
        for staff_id, time_ms, counter, amount in row.pop("counts"):
            cells[staff_id, day(time_ms), counter] += amount
    return SimpleNamespace(
        relationships=relationships, orders=orders, cells={cell: amount for cell, amount in cells.items() if amount}
    )


def rows(facts: Iterable[RelationshipFact | OrderFact]) -> SimpleNamespace:
    """The last revision of every fact, by the columns that must not depend on the order of arrival."""
    last: dict[tuple[type, str], RelationshipFact | OrderFact] = {}
    for fact in facts:
        key = (type(fact), fact.staff_id if isinstance(fact, RelationshipFact) else fact.order_id)
        if key in last:
            assert fact.revision == last[key].revision + 1
        else:
            assert fact.revision == 1
        last[key] = fact

    def columns(fact: RelationshipFact | OrderFact, *keys: str) -> dict[str, Any]:
        return {
            name: getattr(fact, name)
            for name in fact.__struct_fields__
            if name not in {"corp_id", "customer_id", *DEPENDS_ON_ARRIVAL, *keys}
        }

    return SimpleNamespace(
        relationships={key: columns(f, "staff_id") for (kind, key), f in last.items() if kind is RelationshipFact},
        orders={key: columns(f, "order_id") for (kind, key), f in last.items() if kind is OrderFact},
    )


@pytest.fixture(scope="session")
def definitions() -> SimpleNamespace:
    """`from_scratch(events)` → the rows and cells the page demands; `rows(facts)` → what the service said last."""
    return SimpleNamespace(from_scratch=from_scratch, rows=rows)
