"""The pure steps every engine runs: state and event in, new state and outputs out, the same function object for all.

*minimal*: a customer's last staff member is the state; each payment or refund leaves as a small record with that staff
member. *journey*: the real join of ``services/journey``, with its real facts and deltas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from benchmarks.harness.events import Event
from services.journey.domain import Customer, apply
from siyu.events import ContactEvent, OrderFact, RelationshipFact, avro, codec
from siyu.events.ids import staff_key

CREDITED = "credited"
RELATIONSHIP_FACTS, ORDER_FACTS, STAFF_DELTAS = "relationship.facts", "order.facts", "staff.deltas"

Emitted = tuple[str, str, Any]
"""(topic, key, value)"""
StepFunction = Callable[[str, Any, Event], tuple[Any, Sequence[Emitted]]]
"""(key, state or None, event) → new state, or the same object when nothing changed, and what leaves."""


class Step(NamedTuple):
    """A step, before it knows the names of its topics."""

    name: str
    state_type: type[msgspec.Struct]
    outputs: tuple[str, ...]
    build: Callable[[Mapping[str, str]], StepFunction]
    """Name of an output → topic."""
    encode: Callable[[Any], bytes]
    """An output as Avro."""


class LastStaff(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """State of *minimal*."""

    staff_id: str


class Credited(msgspec.Struct, frozen=True, gc=False):
    """Output of *minimal*."""

    order_id: str
    staff_id: str
    """Empty for a customer nobody has met yet."""
    amount_fen: int
    """Negative for a refund."""


_CREDITED = {
    "type": "record",
    "name": "Credited",
    "fields": [
        {"name": "order_id", "type": "string"},
        {"name": "staff_id", "type": "string"},
        {"name": "amount_fen", "type": "long"},
    ],
}
_HEADER = b"\x00\x00\x00\xff\xff"
"""An id that no schema of the product has."""
_encode_credited = avro.writer(_CREDITED, _HEADER)
decode_credited: Callable[[bytes], Credited] = avro.reader(_CREDITED, _CREDITED, len(_HEADER), Credited)


def _minimal(topics: Mapping[str, str]) -> StepFunction:
    credited = topics[CREDITED]

    def step(key: str, state: LastStaff | None, event: Event) -> tuple[LastStaff | None, Sequence[Emitted]]:
        if isinstance(event, ContactEvent):
            if state is not None and state.staff_id == event.staff_id:
                return state, ()
            return LastStaff(event.staff_id), ()
        fen = event.amount_fen if event.change == "paid" else -event.amount_fen
        return state, ((credited, key, Credited(event.order_id, "" if state is None else state.staff_id, fen)),)

    return step


def _journey(topics: Mapping[str, str]) -> StepFunction:
    relationships, orders, deltas = (topics[name] for name in (RELATIONSHIP_FACTS, ORDER_FACTS, STAFF_DELTAS))

    def step(key: str, state: Customer | None, event: Event) -> tuple[Customer, Sequence[Emitted]]:
        new, outputs = apply(state, event)
        emitted: list[Emitted] = []
        for output in outputs:
            if isinstance(output, RelationshipFact):
                emitted.append((relationships, key, output))
            elif isinstance(output, OrderFact):
                emitted.append((orders, key, output))
            else:
                emitted.append((deltas, staff_key(output.corp_id, output.staff_id), output))
        return new, emitted

    return step


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step("minimal", LastStaff, (CREDITED,), _minimal, _encode_credited),
        Step("journey", Customer, (RELATIONSHIP_FACTS, ORDER_FACTS, STAFF_DELTAS), _journey, codec().encode),
    )
}
