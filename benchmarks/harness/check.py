"""Whether an engine's outputs are right: compared with a plain sequential program, never only counted.

Kafka orders the records of one key within a topic, not between two, so several answers can be right:

* *minimal*: each payment leaves once, in the order of its topic, with a staff member that some interleaving of the
  customer's contact events and payments explains; the last state in the changelog is the last contact event's.
* *journey* does not depend on the order of arrival (design §1): the last revision of every fact, the sums of all deltas
  and the last states must be exactly those of the events in order, and every revision must be there once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from benchmarks.harness.events import Data
from benchmarks.harness.steps import (
    CREDITED,
    ORDER_FACTS,
    RELATIONSHIP_FACTS,
    STAFF_DELTAS,
    STEPS,
    Credited,
    decode_credited,
)
from services.journey.domain import Customer
from siyu.events import ContactEvent, OrderFact, RelationshipFact, StaffDelta, codec

Read = Callable[[str], Iterable[tuple[bytes, bytes | None]]]
"""Name of an output → its committed records, in order within a partition."""
States = dict[str, Any]
"""Key → last state in the changelog."""


class WrongOutput(Exception):
    """An engine's outputs are not right. The message counts and never quotes them."""


class Checked(NamedTuple):
    outputs: int
    """Records that left, changelog apart."""
    matched: float
    """Minimal: share of payments that met a contact event. Were it 0, the check would show nothing."""


class _Minimal:
    def __init__(self, data: Data) -> None:
        self._staff: defaultdict[str, list[str]] = defaultdict(list)
        self._payments: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for _, key, event in data.events():
            if isinstance(event, ContactEvent):
                self._staff[key].append(event.staff_id)
            else:
                self._payments[key].append((event.order_id, event.amount_fen * (1 if event.change == "paid" else -1)))

    def check(self, read: Read, states: States) -> Checked:
        credited: defaultdict[str, list[Credited]] = defaultdict(list)
        for key, value in read(CREDITED):
            credited[key.decode()].append(decode_credited(value or b""))
        problems = _Problems()
        problems.count(
            "customers whose payments did not leave exactly once and in order",
            _differing(
                {key: [(one.order_id, one.amount_fen) for one in found] for key, found in credited.items()},
                self._payments,
            ),
        )
        problems.count(
            "customers whose credited staff no interleaving explains",
            sum(
                not _explained([one.staff_id for one in found], self._staff.get(key, []))
                for key, found in credited.items()
            ),
        )
        last = {key: staff[-1] for key, staff in self._staff.items()}
        problems.count(
            "last states that are not the last contact event's",
            _differing({key: state.staff_id for key, state in states.items()}, last),
        )
        outputs = sum(map(len, credited.values()))
        matched = sum(one.staff_id != "" for found in credited.values() for one in found)
        problems.count("no payment met a contact event: take more events", int(not matched))
        problems.raise_any()
        return Checked(outputs, matched / outputs)


def _explained(credited: list[str], contacts: list[str]) -> bool:
    """Whether payments could have seen these staff members while ``contacts`` were applied in order.

    Each takes the earliest contact event that fits, at or after its predecessor's: if any choice fits, this one does.
    """
    at = -1
    for staff_id in credited:
        if staff_id == "":
            if at >= 0:
                return False
            continue
        at = max(at, 0)
        while at < len(contacts) and contacts[at] != staff_id:
            at += 1
        if at == len(contacts):
            return False
    return True


_ARRIVAL = ("revision", "received_at_ms", "caused_by")
"""Columns of a fact that say when it was written, not what is true."""


class _Journey:
    def __init__(self, data: Data) -> None:
        topics = {name: name for name in STEPS["journey"].outputs}
        step = STEPS["journey"].build(topics)
        self._states: States = {}
        self._result = _JourneyResult()
        for _, key, event in data.events():
            self._states[key], emitted = step(key, self._states.get(key), event)
            for _, _, value in emitted:
                self._result.add(value)
        self._states = {key: without_revisions(state) for key, state in self._states.items()}

    def check(self, read: Read, states: States) -> Checked:
        result, outputs = _JourneyResult(), 0
        for topic in (RELATIONSHIP_FACTS, ORDER_FACTS, STAFF_DELTAS):
            for _, value in read(topic):
                result.add(codec().decode(value))
                outputs += 1
        problems = _Problems()
        expected = self._result
        problems.count("facts whose last revision is wrong", _differing(result.facts(), expected.facts()))
        problems.count("facts with a revision missing or repeated", result.gaps())
        problems.count("sums of deltas that are wrong", _differing(result.sums(), expected.sums()))
        problems.count(
            "last states that are wrong",
            _differing({key: without_revisions(state) for key, state in states.items()}, self._states),
        )
        problems.raise_any()
        return Checked(outputs, 1.0)


class _JourneyResult:
    """What the outputs of journey come to."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, str], tuple[int, int, bytes]] = {}
        self._sums: defaultdict[tuple[str, str, str], int] = defaultdict(int)

    def add(self, value: Any) -> None:
        if isinstance(value, StaffDelta):
            for counter, amount in value.counters.items():
                self._sums[value.staff_id, value.day, counter] += amount
            return
        assert isinstance(value, RelationshipFact | OrderFact)
        identity = value.order_id if isinstance(value, OrderFact) else value.staff_id
        seen, last, content = self._facts.get((value.customer_id, identity), (0, 0, b""))
        if value.revision > last:
            fields = msgspec.structs.asdict(value)
            for name in _ARRIVAL:
                del fields[name]
            last, content = value.revision, msgspec.msgpack.encode(fields)
        self._facts[value.customer_id, identity] = seen + 1, last, content

    def facts(self) -> dict[tuple[str, str], bytes]:
        return {key: content for key, (_, _, content) in self._facts.items()}

    def gaps(self) -> int:
        return sum(seen != last for seen, last, _ in self._facts.values())

    def sums(self) -> dict[tuple[str, str, str], int]:
        return {cell: amount for cell, amount in self._sums.items() if amount}


def without_revisions(state: Customer) -> bytes:
    """A revision counts what changed something on arrival, which depends on the order."""
    replace = msgspec.structs.replace
    plain = Customer(
        {key: replace(part, revision=0) for key, part in sorted(state.relationships.items())},
        {key: replace(part, revision=0) for key, part in sorted(state.orders.items())},
    )
    return msgspec.msgpack.encode(plain)


def _differing(found: dict[Any, Any], expected: dict[Any, Any]) -> int:
    missing = object()
    return sum(found.get(key, missing) != expected.get(key, missing) for key in found.keys() | expected.keys())


class _Problems:
    def __init__(self) -> None:
        self._found: list[str] = []

    def count(self, what: str, number: int) -> None:
        if number:
            self._found.append(f"{number} {what}")

    def raise_any(self) -> None:
        if self._found:
            raise WrongOutput("; ".join(self._found))


Checker = _Minimal | _Journey


def checker(step: str, data: Data) -> Checker:
    """The right answers to ``data``; worth keeping, they cost a pass over all events."""
    return _Minimal(data) if step == "minimal" else _Journey(data)
