"""The join of one customer's relationships and money: whatever the order and number of deliveries, the same end.

Every event that counts is kept, in the fewest bytes that still decide everything, and the touched relationship or
order is derived anew from all of its events; nothing is ever adjusted by what happened to arrive last. So a repeat
changes nothing, and a late event leaves the facts and the sums of the staff deltas as if it had come in time. The rules
are those of docs/definitions.md.

What leaves: absolute rows (facts) with a growing revision, and per staff member and day the difference between what the
touched parts contributed before and after.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal

import msgspec

from siyu.events import ContactEvent, OrderFact, PaymentEvent, RelationshipFact, RelationshipStatus, StaffDelta
from siyu.events.business_time import business_day

Fact = RelationshipFact | OrderFact
Output = Fact | StaffDelta
CreditRule = Literal["collector", "owner", "refunder", "none"]

# A stamp is `event time << 3 | rank`: the order of events in one comparison. Ranks order what the platform's clock,
# with its grain of a second, does not. They are part of the stored state: never renumber them.
_HALF_ADD, _ADD, _DELETE_BY_CUSTOMER, _DELETE_BY_STAFF, _DELETE_BY_TRANSFER = 0, 1, 3, 4, 5
_RANK_BITS = 3
_RANK_MASK = (1 << _RANK_BITS) - 1
_RANKS: dict[str, int] = {
    "add_half": _HALF_ADD,
    "add": _ADD,
    "delete_by_customer": _DELETE_BY_CUSTOMER,
    "delete_by_staff": _DELETE_BY_STAFF,
    "delete_by_transfer": _DELETE_BY_TRANSFER,
}
CHANGES_WITHOUT_EFFECT = frozenset({"edit", "transfer_fail", "archive_consent"})
_ENDED_BY = {_DELETE_BY_CUSTOMER: "customer", _DELETE_BY_STAFF: "staff", _DELETE_BY_TRANSFER: "transfer"}
_HOUR_MS = 3_600_000
_LAST_TIME_MS = 253_402_272_000_000
"""Begin of 10000-01-01 in Shanghai: a later time has no business day."""


class Relationship(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The events of one staff member with this customer.

    Event ids are not needed: a repeat has the same stamp. Of several events with one stamp only the smallest non-empty
    State can ever decide the channel, so one entry a stamp is enough.
    """

    revision: int
    stamps: tuple[int, ...]
    """Ascending, each once."""
    channels: tuple[str, ...]
    """State of each stamp's event, empty when it had none."""
    noted_ms: int
    """Time of the newest event without effect while there is no other, else 0."""


class Refund(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One refund; its number is the key it is kept under."""

    time_ms: int
    amount_fen: int
    staff_id: str


class Payment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The payment of an order."""

    time_ms: int
    amount_fen: int
    staff_id: str
    """Collector; empty when the payment names none."""
    payment_type: int


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The payment and refunds of one order number."""

    revision: int
    payment: Payment | None
    refunds: dict[str, Refund]
    owner: str
    """Who is credited for want of a collector: the friend at pay time; else empty."""


class Customer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """State of one key. Never mutated: a changed part is a new object."""

    relationships: dict[str, Relationship]
    """By staff id."""
    orders: dict[str, Order]
    """By order number."""


class _History(msgspec.Struct, frozen=True, gc=False):
    """What the events of one relationship come to: the columns of its row."""

    newest_ms: int
    started_ms: list[int]
    ended_ms: list[int]
    ended_by: list[str]
    status: RelationshipStatus
    staff_side: bool
    customer_side: bool
    channel: str


_Mark = tuple[int, str]
"""(time, counter) of one change that a staff member's day counts."""


class _Deltas:
    """Collects changes of counters; what adds up to nothing is not reported."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, str], dict[str, int]] = {}

    def add(self, staff_id: str, time_ms: int, *changes: tuple[str, int]) -> None:
        cell = staff_id, _day(time_ms // _HOUR_MS)
        counters = self._changes.get(cell)
        if counters is None:
            counters = self._changes[cell] = {}
        for counter, amount in changes:
            counters[counter] = counters.get(counter, 0) + amount

    def events(self, cause: ContactEvent | PaymentEvent) -> list[StaffDelta]:
        deltas = []
        for (staff_id, day), changes in sorted(self._changes.items()):
            counters = {name: amount for name, amount in changes.items() if amount}
            if counters:
                deltas.append(
                    StaffDelta(
                        corp_id=cause.corp_id,
                        staff_id=staff_id,
                        day=day,
                        counters=counters,
                        event_time_ms=cause.event_time_ms,
                        received_at_ms=cause.received_at_ms,
                        caused_by=cause.event_id,
                    )
                )
        return deltas


_NOTHING = Customer({}, {})
_NO_EVENTS = Relationship(0, (), (), 0)
_NO_ORDER = Order(0, None, {}, "")


def apply(state: Customer | None, event: ContactEvent | PaymentEvent) -> tuple[Customer, list[Output]]:
    """One event of this customer: facts first, then the staff deltas, by staff id and day.

    The same state object comes back when the event changes nothing (a repeat, or one without effect). Raises
    ValueError, without any of the event's data in it, for an event that cannot be counted.
    """
    if not 0 < event.event_time_ms < _LAST_TIME_MS:
        raise ValueError("event time out of range")
    customer = _NOTHING if state is None else state
    if isinstance(event, ContactEvent):
        return _apply_contact(customer, event)
    return _apply_payment(customer, event)


def _apply_contact(customer: Customer, event: ContactEvent) -> tuple[Customer, list[Output]]:
    if not event.staff_id or not event.customer_id:
        raise ValueError("contact event without staff or customer")
    before = customer.relationships.get(event.staff_id, _NO_EVENTS)
    after = _with_event(before, event)
    if after is before:
        return customer, []
    was, marks_before = _history(before)
    now, marks_after = _history(after)
    facts: list[Fact] = []
    if now != was:
        # An event that shows nowhere is kept all the same: one that is still to come before it may make it count.
        after = Relationship(before.revision + 1, after.stamps, after.channels, after.noted_ms)
        facts.append(_relationship_fact(after, now, event))
    customer = Customer({**customer.relationships, event.staff_id: after}, customer.orders)
    deltas = _Deltas()
    gone, come = _difference(marks_before, marks_after)
    for time_ms, counter in gone:
        deltas.add(event.staff_id, time_ms, (counter, -1))
    for time_ms, counter in come:
        deltas.add(event.staff_id, time_ms, (counter, 1))
    if gone or come:
        # Who was friend at an instant before the first difference stays as it was.
        changed_from_ms = min(marks[0] for marks in (gone, come) if marks)[0]
        recredited = _decide_owners(customer, changed_from_ms)
        for order_id in sorted(recredited):
            old, new = customer.orders[order_id], recredited[order_id]
            _contribute(old, event.customer_id, -1, deltas)
            _contribute(new, event.customer_id, 1, deltas)
            facts.append(_order_fact(order_id, new, event))
        if recredited:
            customer = Customer(customer.relationships, {**customer.orders, **recredited})
    return customer, [*facts, *deltas.events(event)]


def _apply_payment(customer: Customer, event: PaymentEvent) -> tuple[Customer, list[Output]]:
    if not event.order_id:
        raise ValueError("payment event without order number")
    if event.amount_fen <= 0:
        raise ValueError("payment event with an amount of zero or less")
    before = customer.orders.get(event.order_id, _NO_ORDER)
    payment, refunds, owner = before.payment, before.refunds, before.owner
    if event.change == "paid":
        if event.refund_id:
            raise ValueError("payment with a refund number")
        if payment is not None:
            return customer, []
        payment = Payment(event.event_time_ms, event.amount_fen, event.staff_id, event.payment_type)
        if not event.staff_id:
            owner = _owner_at(_friendships(customer.relationships), event.event_time_ms)
    elif event.change == "refunded":
        if not event.refund_id:
            raise ValueError("refund without a refund number")
        if event.refund_id in refunds:
            return customer, []
        refunds = {**refunds, event.refund_id: Refund(event.event_time_ms, event.amount_fen, event.staff_id)}
    else:
        raise ValueError("unknown change of a payment event")

    after = Order(before.revision + 1, payment, refunds, owner)
    deltas = _Deltas()
    if before is not _NO_ORDER:
        _contribute(before, event.customer_id, -1, deltas)
    _contribute(after, event.customer_id, 1, deltas)
    customer = Customer(customer.relationships, {**customer.orders, event.order_id: after})
    return customer, [_order_fact(event.order_id, after, event), *deltas.events(event)]


# Relationships


def _with_event(relationship: Relationship, event: ContactEvent) -> Relationship:
    """With the event in its place; the same object when it was there or cannot matter."""
    stamps, channels = relationship.stamps, relationship.channels
    rank = _RANKS.get(event.change)
    if rank is None:
        if event.change not in CHANGES_WITHOUT_EFFECT:
            raise ValueError("unknown change of a contact event")
        if stamps or event.event_time_ms <= relationship.noted_ms:
            return relationship
        return Relationship(relationship.revision, stamps, channels, event.event_time_ms)
    stamp = event.event_time_ms << _RANK_BITS | rank
    state = event.state if rank <= _ADD else ""
    at = bisect_left(stamps, stamp)
    if at == len(stamps) or stamps[at] != stamp:
        stamps = (*stamps[:at], stamp, *stamps[at:])
        channels = (*channels[:at], state, *channels[at:])
    elif state and (not channels[at] or state < channels[at]):
        channels = (*channels[:at], state, *channels[at + 1 :])
    else:
        return relationship
    return Relationship(relationship.revision, stamps, channels, 0)


def _history(relationship: Relationship) -> tuple[_History, list[_Mark]]:
    """Plays the events in order. Linear, as are the row it leads to and the bytes of the state."""
    started_ms: list[int] = []
    ended_ms: list[int] = []
    ended_by: list[str] = []
    marks: list[_Mark] = []
    friends = half = staff_side = customer_side = customer_gone = False
    staff_gone = channel = ""  # what took the staff side away; a side that has not been there yet is not gone
    episode_over = True
    for stamp, state in zip(relationship.stamps, relationship.channels, strict=True):
        time_ms, rank = stamp >> _RANK_BITS, stamp & _RANK_MASK
        if rank <= _ADD:
            customer_side, customer_gone = True, False
            if episode_over:
                channel, episode_over = state, False
            elif not channel:
                channel = state
            if rank == _ADD:
                staff_side, staff_gone, half = True, "", False
                if not friends:
                    friends = True
                    started_ms.append(time_ms)
                    ended_ms.append(0)
                    ended_by.append("")
                    marks.append((time_ms, "adds"))
            elif not friends and not half:
                half = True
                marks.append((time_ms, "half_adds"))
        else:
            by = _ENDED_BY[rank]
            half = False
            if rank == _DELETE_BY_CUSTOMER:
                customer_side, customer_gone = False, True
            else:
                staff_side, staff_gone = False, by
            if friends:
                friends, episode_over = False, True
                ended_ms[-1] = time_ms
                ended_by[-1] = by
                marks.append((time_ms, f"lost_by_{by}"))
    status: RelationshipStatus
    if friends:
        status = "friend"
    elif half:
        status = "half"
    elif customer_gone:
        status = "deleted_by_both" if staff_gone else "deleted_by_customer"
    elif staff_gone:
        status = "transferred" if staff_gone == "transfer" else "deleted_by_staff"
    else:
        status = "none"
    newest_ms = relationship.stamps[-1] >> _RANK_BITS if relationship.stamps else relationship.noted_ms
    return _History(newest_ms, started_ms, ended_ms, ended_by, status, staff_side, customer_side, channel), marks


def _relationship_fact(relationship: Relationship, history: _History, cause: ContactEvent) -> RelationshipFact:
    return RelationshipFact(
        corp_id=cause.corp_id,
        staff_id=cause.staff_id,
        customer_id=cause.customer_id,
        revision=relationship.revision,
        status=history.status,
        staff_side=history.staff_side,
        customer_side=history.customer_side,
        channel=history.channel,
        first_added_ms=history.started_ms[0] if history.started_ms else 0,
        episodes_started_ms=history.started_ms,
        episodes_ended_ms=history.ended_ms,
        episodes_ended_by=history.ended_by,
        event_time_ms=history.newest_ms,
        received_at_ms=cause.received_at_ms,
        caused_by=cause.event_id,
    )


def _difference(before: list[_Mark], after: list[_Mark]) -> tuple[list[_Mark], list[_Mark]]:
    """What is left of both without their common beginning and end: a late event changes a few marks, not a life's."""
    first, end_before, end_after = 0, len(before), len(after)
    while first < end_before and first < end_after and before[first] == after[first]:
        first += 1
    while end_before > first and end_after > first and before[end_before - 1] == after[end_after - 1]:
        end_before -= 1
        end_after -= 1
    return before[first:end_before], after[first:end_after]


# Orders


def _friendships(relationships: Mapping[str, Relationship]) -> list[tuple[int, int, str]]:
    """(start, end or 0, staff id) of every episode with anyone."""
    friendships: list[tuple[int, int, str]] = []
    for staff_id, relationship in relationships.items():
        history, _ = _history(relationship)
        friendships.extend(
            (start, end, staff_id) for start, end in zip(history.started_ms, history.ended_ms, strict=True)
        )
    return friendships


def _owner_at(friendships: Iterable[tuple[int, int, str]], time_ms: int) -> str:
    """Friend at the instant: who became it last, then the smallest staff id; empty when there is none."""
    best = min(
        ((-start, staff_id) for start, end, staff_id in friendships if start <= time_ms and (not end or end > time_ms)),
        default=(0, ""),
    )
    return best[1]


def _decide_owners(customer: Customer, from_ms: int) -> dict[str, Order]:
    """Orders paid at or after ``from_ms`` that nobody collected and whose owner is another one now."""
    open_to_owners = [
        (order_id, order, order.payment.time_ms)
        for order_id, order in customer.orders.items()
        if order.payment is not None and not order.payment.staff_id and order.payment.time_ms >= from_ms
    ]
    if not open_to_owners:
        return {}
    friendships = _friendships(customer.relationships)
    changed = {}
    for order_id, order, paid_ms in open_to_owners:
        owner = _owner_at(friendships, paid_ms)
        if owner != order.owner:
            changed[order_id] = Order(order.revision + 1, order.payment, order.refunds, owner)
    return changed


def _refunds_in_order(order: Order) -> list[tuple[str, Refund]]:
    if not order.refunds:
        return []  # nearly every order: not worth a sort
    return sorted(order.refunds.items(), key=lambda item: (item[1].time_ms, item[0]))


def _credit(order: Order) -> tuple[str, CreditRule]:
    """Who is credited, and by which rule. The order has a payment or a refund."""
    if order.payment is None:
        _, first = _refunds_in_order(order)[0]
        return (first.staff_id, "refunder") if first.staff_id else ("", "none")
    if order.payment.staff_id:
        return order.payment.staff_id, "collector"
    return (order.owner, "owner") if order.owner else ("", "none")


def _contribute(order: Order, customer_id: str, sign: int, deltas: _Deltas) -> None:
    """Adds (or takes away) all that the order puts into the days of staff members."""
    payment = order.payment
    if payment is None:
        for refund in order.refunds.values():
            changes = ("unmatched_refunds", sign), ("unmatched_refund_fen", sign * refund.amount_fen)
            deltas.add(refund.staff_id, refund.time_ms, *changes)
        return
    staff_id, _ = _credit(order)
    fen = sign * payment.amount_fen
    deltas.add(staff_id, payment.time_ms, ("orders", sign), ("gross_fen", fen))
    if not customer_id:
        changes = ("unknown_customer_orders", sign), ("unknown_customer_gross_fen", fen)
        deltas.add(staff_id, payment.time_ms, *changes)
    for refund in order.refunds.values():
        deltas.add(staff_id, refund.time_ms, ("refunds", sign), ("refunded_fen", sign * refund.amount_fen))


def _order_fact(order_id: str, order: Order, cause: ContactEvent | PaymentEvent) -> OrderFact:
    payment = order.payment
    refunds = _refunds_in_order(order)
    staff_id, rule = _credit(order)
    times = [refund.time_ms for _, refund in refunds]
    amounts = [refund.amount_fen for _, refund in refunds]
    pay_time_ms = payment.time_ms if payment else 0
    return OrderFact(
        corp_id=cause.corp_id,
        order_id=order_id,
        customer_id=cause.customer_id,
        revision=order.revision,
        staff_id=staff_id,
        credit_rule=rule,
        paid=payment is not None,
        pay_time_ms=pay_time_ms,
        gross_fen=payment.amount_fen if payment else 0,
        refunded_fen=sum(amounts),
        refund_ids=[refund_id for refund_id, _ in refunds],
        refund_times_ms=times,
        refund_amounts_fen=amounts,
        payment_type=payment.payment_type if payment else 0,
        event_time_ms=max(pay_time_ms, *times) if times else pay_time_ms,
        received_at_ms=cause.received_at_ms,
        caused_by=cause.event_id,
    )


@lru_cache(maxsize=32_768)
def _day(hour: int) -> str:
    """Business day of an hour since the epoch: formatting a date costs more than the rest of a step's arithmetic.

    Shanghai is whole hours from UTC, so an hour never lies in two of its days.
    """
    return business_day(hour * _HOUR_MS)
