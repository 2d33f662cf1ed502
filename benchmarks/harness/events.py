"""The same events for the same seed, on every machine: real contact and payment events of customers drawn at random.

The mix does not depend on how many events a customer has: 32 % contact events (two staff members, lost and won back),
60 % payments (one in ten without a collector), 8 % partial refunds. Customers are drawn evenly, the worst case for a
cache of states.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from siyu.events import ContactEvent, PaymentEvent
from siyu.events.ids import contact_event_id, customer_key, payment_event_id

CORP = "ww1"
START_MS = 1_767_196_800_000
SPAN_MS = 300 * 86_400_000
STAFF = 20_000
EVENTS_PER_CUSTOMER = 5.3
"""On average, when a benchmark gives customers a past."""
CONTACT_TOPIC, PAYMENT_TOPIC = "contact.events", "payment.events"

Event = ContactEvent | PaymentEvent

_CONTACTS, _REFUNDS = 0.32, 0.08
_ADD, _LOSE = "add", "delete_by_customer"
# Both staff members are added, then each in turn is lost and won back.
_FIRST, _SECOND = 0, 1
_BEGIN = ((_ADD, _FIRST), (_ADD, _SECOND))
_CYCLE = ((_LOSE, _FIRST), (_ADD, _FIRST), (_LOSE, _SECOND), (_ADD, _SECOND))


class Data(NamedTuple):
    """Which events: everything that depends on them can be made again from this."""

    count: int
    customers: int
    seed: int = 1

    def events(self) -> Iterator[tuple[str, str, Event]]:
        """(input, key, event), ascending by event time."""
        rng = random.Random(self.seed).random
        contacts, orders = array("H", bytes(2 * self.customers)), array("H", bytes(2 * self.customers))
        refundable = bytearray(self.customers)
        for number in range(self.count):
            customer, kind = int(rng() * self.customers), rng()
            time_ms = START_MS + number * SPAN_MS // self.count
            customer_id = f"wmAJ2GCAAAXtWyujaWJH{customer:012}"
            event: Event
            if kind < _CONTACTS:
                event = _contact(customer, customer_id, contacts[customer], time_ms)
                contacts[customer] += 1
            elif kind < _CONTACTS + _REFUNDS and refundable[customer]:
                event = _refund(customer, customer_id, orders[customer] - 1, time_ms)
                refundable[customer] = False
            else:
                event = _payment(customer, customer_id, orders[customer], int(rng() * 90_000) + 500, time_ms)
                orders[customer] += 1
                refundable[customer] = True
            name = CONTACT_TOPIC if isinstance(event, ContactEvent) else PAYMENT_TOPIC
            yield name, customer_key(CORP, customer_id), event


def _staff(customer: int, which: int) -> str:
    return f"staff{(customer * 7_919 + which * 10_007) % STAFF:05}"


def _contact(customer: int, customer_id: str, number: int, time_ms: int) -> ContactEvent:
    change, which = _BEGIN[number] if number < len(_BEGIN) else _CYCLE[(number - len(_BEGIN)) % len(_CYCLE)]
    staff_id, state = _staff(customer, which), "store-0420-door" if change == _ADD else ""
    return ContactEvent(
        event_id=contact_event_id(CORP, change, staff_id, customer_id, time_ms, state, ""),
        corp_id=CORP,
        change=change,  # type: ignore[arg-type]
        staff_id=staff_id,
        customer_id=customer_id,
        event_time_ms=time_ms,
        received_at_ms=time_ms,
        state=state,
        welcome_code="",
        fail_reason="",
    )


def _payment(customer: int, customer_id: str, number: int, amount_fen: int, time_ms: int) -> PaymentEvent:
    collector = "" if amount_fen % 10 == 0 else _staff(customer, _FIRST)
    return _money("paid", customer, customer_id, number, "", collector, amount_fen, time_ms)


def _refund(customer: int, customer_id: str, number: int, time_ms: int) -> PaymentEvent:
    refund_id = f"5000{customer:012}{number:06}20260101"
    return _money("refunded", customer, customer_id, number, refund_id, _staff(customer, _FIRST), 300, time_ms)


def _money(
    change: str, customer: int, customer_id: str, number: int, refund_id: str, staff_id: str, fen: int, time_ms: int
) -> PaymentEvent:
    order_id = f"4200{customer:012}{number:06}20260101"
    return PaymentEvent(
        event_id=payment_event_id(CORP, change, order_id, refund_id),
        corp_id=CORP,
        change=change,  # type: ignore[arg-type]
        customer_id=customer_id,
        order_id=order_id,
        refund_id=refund_id,
        staff_id=staff_id,
        amount_fen=fen,
        event_time_ms=time_ms,
        received_at_ms=time_ms,
        source="externalpay",
        payment_type=1,
        personal=b"",
    )
