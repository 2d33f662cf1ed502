"""Customers with a past: millions of states as the real step would have left them, and the events that come next.

A past is played for 20,000 customers (5.3 events each); customer *n* has the past of customer *n* mod 20,000 with order
and refund numbers of their own. Staff members repeat with the same period (``events.STAFF``), so these are exactly the
states of the same events told of customer *n*: ``check`` plays them from the first event on and compares. Whoever has
had no event yet (0.5 %) has no state.
"""

from __future__ import annotations

import random
from array import array
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness.check import WrongOutput, without_revisions
from benchmarks.harness.events import CORP, EVENTS_PER_CUSTOMER, STAFF, Data, Event
from benchmarks.harness.steps import STEPS
from services.journey.domain import Customer
from siyu.events import ContactEvent
from siyu.events.ids import contact_event_id, customer_key, payment_event_id
from siyu.stream.state import StateCodec
from siyu.stream.store import StateStore

_CHECKED = 20_000
"""Customers whose states are compared, drawn at random."""
_DIGITS = 12
"""Of a customer's number, in every id that has it."""


class Population:
    """``customers`` with a past, and ``events`` that follow; the same for the same seed."""

    def __init__(self, customers: int, events: int, seed: int = 1) -> None:
        self.customers = customers
        self._seed = seed
        self._pasts = min(customers, STAFF)
        self._past_events = round(EVENTS_PER_CUSTOMER * self._pasts)
        self._data = Data(self._past_events + events, self._pasts, seed)

    def states(self, step: str, codec: StateCodec[Any]) -> Iterator[tuple[bytes, bytes]]:
        """(key, stored state) of everyone who has one, keys all over the place as in a real changelog."""
        apply = _step(step)
        states: dict[str, Any] = {}
        for event in self._past():
            states[event.customer_id], _ = apply("", states.get(event.customer_id), event)
        for customer_id, state in states.items():
            if state is None:
                continue
            name, number = customer_id[:-_DIGITS], customer_id[-_DIGITS:]
            stored, order, refund = codec.encode(state), f"4200{number}".encode(), f"5000{number}".encode()
            # The numbers of orders and refunds: nothing else in a state is the customer's own.
            for customer in range(int(number), self.customers, self._pasts):
                own = f"{customer:0{_DIGITS}}"
                yield (
                    customer_key(CORP, name + own).encode(),
                    stored.replace(order, b"4200" + own.encode()).replace(refund, b"5000" + own.encode()),
                )

    def events(self) -> Iterator[tuple[str, str, Event]]:
        """(input, key, event) of what comes next, ascending by event time.

        Each falls to one of the customers who share its past, drawn evenly. What only makes sense after another one
        (a refund, an add after a loss) falls to the same customer.
        """
        draw = random.Random(self._seed).random
        contacts, payments = (
            array("Q", (self._sharing(number, draw()) for number in range(self._pasts))) for _ in range(2)
        )
        for name, _, event in islice(self._data.events(), self._past_events, None):
            last, number = contacts if isinstance(event, ContactEvent) else payments, _number(event)
            if event.change not in ("add", "refunded"):
                last[number] = self._sharing(number, draw())
            event = _told_of(event, last[number])
            yield name, customer_key(CORP, event.customer_id), event

    def check(self, step: str, codec: StateCodec[Any], folder: Path, sent: int | None = None) -> None:
        """Compares states on disk, in the stores below ``folder``, with those of a plain sequential program.

        The first ``sent`` events, or all, must be applied and the stores closed. Raises WrongOutput.
        """
        chosen = set(random.Random(self._seed + 1).sample(range(self.customers), min(_CHECKED, self.customers)))
        sharing: defaultdict[int, list[int]] = defaultdict(list)
        for customer in chosen:
            sharing[customer % self._pasts].append(customer)
        apply = _step(step)
        expected: dict[str, Any] = {}

        def play(event: Event) -> None:
            key = customer_key(CORP, event.customer_id)
            expected[key], _ = apply(key, expected.get(key), event)

        for event in self._past():
            for customer in sharing.get(_number(event), ()):
                play(_told_of(event, customer))
        for _, _, event in islice(self.events(), sent):
            if _number(event) in chosen:
                play(event)
        found = {key: codec.decode(data)[0] for key, data in _stored(folder, list(expected))}
        wrong = sum(_comparable(found.get(key)) != _comparable(state) for key, state in expected.items())
        if wrong:
            raise WrongOutput(f"{wrong} of {len(expected)} states compared are wrong")

    def _past(self) -> Iterator[Event]:
        return (event for _, _, event in islice(self._data.events(), self._past_events))

    def _sharing(self, number: int, drawn: float) -> int:
        """One of the customers who share the past of this one."""
        return number + int(drawn * ((self.customers - 1 - number) // self._pasts + 1)) * self._pasts


def _step(name: str) -> Any:
    step = STEPS[name]
    return step.build({output: output for output in step.outputs})


def _number(event: Event) -> int:
    return int(event.customer_id[-_DIGITS:])


def _told_of(event: Event, customer: int) -> Event:
    """The same event as this customer's."""
    own, replace = f"{customer:0{_DIGITS}}", msgspec.structs.replace
    customer_id = event.customer_id[:-_DIGITS] + own
    if isinstance(event, ContactEvent):
        event_id = contact_event_id(
            CORP, event.change, event.staff_id, customer_id, event.event_time_ms, event.state, event.welcome_code
        )
        return replace(event, event_id=event_id, customer_id=customer_id)
    order_id, refund_id = (
        number and number[:4] + own + number[4 + _DIGITS :] for number in (event.order_id, event.refund_id)
    )
    event_id = payment_event_id(CORP, event.change, order_id, refund_id)
    return replace(event, event_id=event_id, customer_id=customer_id, order_id=order_id, refund_id=refund_id)


def _comparable(state: Any) -> bytes:
    return without_revisions(state) if isinstance(state, Customer) else msgspec.msgpack.encode(state)


def _stored(folder: Path, keys: list[str]) -> Iterator[tuple[str, bytes]]:
    """What the stores have under these keys."""
    for path in stores(folder):
        store = StateStore(path)
        try:
            for key, data in zip(keys, store.get_many([key.encode() for key in keys]), strict=True):
                if data is not None:
                    yield key, data
        finally:
            store.close()


def stores(folder: Path) -> list[Path]:
    """Every store below, one a partition."""
    return sorted(current.parent for current in folder.rglob("CURRENT"))


def disk_bytes(folder: Path) -> int:
    """Size of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
