"""Relationships as they really are: a pure state machine that refuses what cannot happen on the platform.

It is the ground truth of contacts, so it is written from the platform's rules (docs/definitions.md for the words) and
shares no code with the services. Times are whole epoch seconds: the platform's grain. Two changes of one
(staff, customer) pair are at least two seconds apart, because closer ones cannot be ordered by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Change = Literal[
    "add",
    "add_half",
    "edit",
    "delete_by_customer",
    "delete_by_staff",
    "delete_by_transfer",
    "transfer_fail",
    "archive_consent",
]
MIN_GAP_S = 2
"""Least distance between two changes of one pair, seconds."""

Pair = tuple[str, str, str]
"""(corp_id, staff_id, customer_id)"""

_ENDED_BY: dict[str, str] = {
    "delete_by_customer": "customer",
    "delete_by_staff": "staff",
    "delete_by_transfer": "transfer",
}


class ImpossibleChange(ValueError):
    """A planned change the platform could never report. Names the change and the state, never the people."""


@dataclass(frozen=True, slots=True)
class ContactChange:
    """One thing that happens to one relationship, before it becomes a callback."""

    time_s: int
    corp_id: str
    staff_id: str
    customer_id: str
    change: Change
    state: str = ""
    """Channel: ``State`` of the contact way, for ``add`` and ``add_half``."""
    welcome: bool = False
    """The platform would give a welcome code, unless one was used already for this acquaintance."""
    fail_reason: str = ""
    add_way: int = 0
    """How they came to know each other (fact sheet 3.2); 0: 1 (scanned a code) with a channel, else unknown."""
    oper: str = ""
    """Who began it; empty: the customer."""

    @property
    def pair(self) -> Pair:
        return (self.corp_id, self.staff_id, self.customer_id)


@dataclass(slots=True)
class Episode:
    """A period as friends. ``ended_s`` is 0 while it lasts."""

    started_s: int
    channel: str
    ended_s: int = 0
    ended_by: str = ""
    add_way: int = 0
    oper: str = ""


@dataclass(slots=True)
class Relationship:
    """One pair: two independent sides, and the episodes in which both were friends."""

    staff_side: bool = False
    customer_side: bool = False
    staff_gone: Literal["", "staff", "transfer"] = ""
    customer_gone: bool = False
    half: bool = False
    episodes: list[Episode] = field(default_factory=list)
    arriving_channel: str = ""
    """First channel named since the last episode ended."""
    arriving: bool = False
    """Whether the customer has come (again) since the last episode ended."""
    changed_s: int = 0

    @property
    def friend(self) -> bool:
        return bool(self.episodes) and not self.episodes[-1].ended_s

    @property
    def status(self) -> str:
        if self.friend:
            return "friend"
        if self.half:
            return "half"
        if self.staff_gone and self.customer_gone:
            return "deleted_by_both"
        if self.customer_gone:
            return "deleted_by_customer"
        if self.staff_gone:
            return "transferred" if self.staff_gone == "transfer" else "deleted_by_staff"
        return "none"

    @property
    def channel(self) -> str:
        if not self.friend and self.arriving:
            return self.arriving_channel
        return self.episodes[-1].channel if self.episodes else ""

    def possible(self, change: Change) -> bool:
        """Whether the platform could report this change now."""
        if change in ("add", "add_half", "transfer_fail"):
            return not self.friend and not (change == "add_half" and self.half)
        if change == "delete_by_customer":
            return self.customer_side
        if change in ("delete_by_staff", "edit"):
            return self.staff_side
        return self.friend  # delete_by_transfer, archive_consent

    def apply(self, event: ContactChange) -> None:
        """Raises ImpossibleChange for what cannot happen or comes too close after the last change."""
        if not self.possible(event.change):
            raise ImpossibleChange(f"{event.change} while {self.status}")
        if self.changed_s and event.time_s - self.changed_s < MIN_GAP_S:
            raise ImpossibleChange(f"{event.change} {event.time_s - self.changed_s} s after the last change")
        self.hear(event)

    def hear(self, event: ContactChange) -> None:
        """Takes a change as somebody does who was told of it and cannot know what went before."""
        self.changed_s = event.time_s
        match event.change:
            case "add":
                self.staff_side = self.customer_side = True
                self.staff_gone, self.customer_gone, self.half = "", False, False
                self.arriving_channel = self.arriving_channel or event.state
                way = event.add_way or (1 if self.arriving_channel else 0)
                self.episodes.append(Episode(event.time_s, self.arriving_channel, add_way=way, oper=event.oper))
            case "add_half":
                self.customer_side, self.customer_gone = True, False
                self.half = self.arriving = True
                self.arriving_channel = self.arriving_channel or event.state
            case "delete_by_customer":
                self.customer_side, self.customer_gone, self.half = False, True, False
                self._end(event)
            case "delete_by_staff" | "delete_by_transfer":
                self.staff_side, self.half = False, False
                self.staff_gone = "staff" if event.change == "delete_by_staff" else "transfer"
                self._end(event)
            case "edit" | "transfer_fail" | "archive_consent":
                pass

    def _end(self, event: ContactChange) -> None:
        if self.friend:
            self.episodes[-1].ended_s = event.time_s
            self.episodes[-1].ended_by = _ENDED_BY[event.change]
            self.arriving_channel, self.arriving = "", False


class Opening(Protocol):
    """The relationships that existed before the story begins: all friends, none changed since (``opening.py``)."""

    def customers_of(self, staff_id: str) -> Sequence[str]:
        """Sorted."""
        ...

    def followers_of(self, customer_id: str) -> Sequence[str]:
        """Sorted."""
        ...

    def relationship(self, staff_id: str, customer_id: str) -> Relationship | None:
        """A new object each time."""
        ...

    def pairs(self, start: int, count: int) -> Sequence[tuple[str, str]]:
        """(staff_id, customer_id) from position ``start`` on, in an order that never changes."""
        ...

    def __len__(self) -> int: ...


class Relations:
    """Every relationship of one corp: those of its opening, and what has become of them since."""

    def __init__(self, corp_id: str, opening: Opening | None = None) -> None:
        self.corp_id = corp_id
        self.opening = opening
        self.changed: dict[tuple[str, str], Relationship] = {}
        """(staff_id, customer_id) → every pair that anything has happened to since the opening."""
        self._came: dict[str, set[str]] = {}
        """Staff member → customers gained since the opening."""
        self._went: dict[str, set[str]] = {}
        """Staff member → customers of the opening, lost since."""
        self._followers_came: dict[str, set[str]] = {}
        self._followers_went: dict[str, set[str]] = {}

    def get(self, staff_id: str, customer_id: str) -> Relationship | None:
        """The pair as it stands, not to be changed by the caller; None when they never met."""
        known = self.changed.get((staff_id, customer_id))
        if known is None and self.opening is not None:
            return self.opening.relationship(staff_id, customer_id)
        return known

    def can(self, event: ContactChange) -> bool:
        """Whether :meth:`apply` would take it."""
        pair = self.get(event.staff_id, event.customer_id) or Relationship()
        return pair.possible(event.change) and not (pair.changed_s and event.time_s - pair.changed_s < MIN_GAP_S)

    def apply(self, event: ContactChange) -> Relationship:
        """Moves one pair; returns it. Raises ImpossibleChange."""
        staff_id, customer_id = event.staff_id, event.customer_id
        before = self.get(staff_id, customer_id)
        was_there = before is not None and before.staff_side
        pair = before or Relationship()
        pair.apply(event)
        self.changed[staff_id, customer_id] = pair
        if pair.staff_side != was_there:
            came, went = (self._came, self._went) if pair.staff_side else (self._went, self._came)
            f_came, f_went = (
                (self._followers_came, self._followers_went)
                if pair.staff_side
                else (self._followers_went, self._followers_came)
            )
            _move(came, went, staff_id, customer_id)
            _move(f_came, f_went, customer_id, staff_id)
        return pair

    def customers_of(self, staff_id: str) -> list[str]:
        """Who this staff member has, sorted: friends, and those who deleted us one-way (fact sheet 2.1)."""
        before = self.opening.customers_of(staff_id) if self.opening is not None else ()
        return _now(before, self._came.get(staff_id), self._went.get(staff_id))

    def count_of(self, staff_id: str) -> int:
        """How many :meth:`customers_of` has."""
        before = len(self.opening.customers_of(staff_id)) if self.opening is not None else 0
        return before + len(self._came.get(staff_id, ())) - len(self._went.get(staff_id, ()))

    @property
    def count(self) -> int:
        """How many pairs :meth:`standing` has."""
        opening = len(self.opening) if self.opening is not None else 0
        return opening + sum(map(len, self._came.values())) - sum(map(len, self._went.values()))

    def followers_of(self, customer_id: str) -> list[tuple[str, Relationship]]:
        """Staff members who have this customer, sorted, with the relationship."""
        before = self.opening.followers_of(customer_id) if self.opening is not None else ()
        staff = _now(before, self._followers_came.get(customer_id), self._followers_went.get(customer_id))
        found = ((staff_id, self.get(staff_id, customer_id)) for staff_id in staff)
        return [(staff_id, pair) for staff_id, pair in found if pair is not None]

    def standing(self) -> Iterator[tuple[str, str]]:
        """(staff_id, customer_id) of every pair the staff member has, in an order that changes only by coming and
        going."""
        if self.opening is not None:
            for start in range(0, len(self.opening), _PAGE):
                for staff_id, customer_id in self.opening.pairs(start, _PAGE):
                    if customer_id not in self._went.get(staff_id, ()):
                        yield staff_id, customer_id
        for staff_id in sorted(self._came):
            for customer_id in sorted(self._came[staff_id]):
                yield staff_id, customer_id


_PAGE = 10_000


def _move(gains: dict[str, set[str]], losses: dict[str, set[str]], key: str, member: str) -> None:
    """Notes that ``member`` is on the gaining side now: either undoes the opposite, or adds."""
    undone = losses.get(key)
    if undone is not None and member in undone:
        undone.discard(member)
    else:
        gains.setdefault(key, set()).add(member)


def _now(before: Sequence[str], came: set[str] | None, went: set[str] | None) -> list[str]:
    if not came and not went:
        return list(before)
    return sorted((set(before) - (went or set())) | (came or set()))


def played(changes: Iterable[ContactChange]) -> dict[Pair, Relationship]:
    """Every pair after all the changes, in order of time. Raises ImpossibleChange for a plan that cannot happen."""
    world: dict[Pair, Relationship] = {}
    for change in sorted(changes, key=lambda c: c.time_s):
        world.setdefault(change.pair, Relationship()).apply(change)
    return world
