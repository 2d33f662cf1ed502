"""Relationships as they really are: a pure state machine that refuses what cannot happen on the platform.

It is the ground truth of contacts, so it is written from the platform's rules (docs/definitions.md for the words) and
shares no code with the services. Times are whole epoch seconds: the platform's grain. Two changes of one
(staff, customer) pair are at least two seconds apart, because closer ones cannot be ordered by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

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
        self.changed_s = event.time_s
        match event.change:
            case "add":
                self.staff_side = self.customer_side = True
                self.staff_gone, self.customer_gone, self.half = "", False, False
                self.arriving_channel = self.arriving_channel or event.state
                self.episodes.append(Episode(event.time_s, self.arriving_channel))
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


class World:
    """Every relationship, moved forward by :meth:`apply` in order of time."""

    def __init__(self) -> None:
        self.relationships: dict[Pair, Relationship] = {}
        self._followers: dict[tuple[str, str], set[str]] = {}
        self._customers: dict[tuple[str, str], set[str]] = {}

    def apply(self, event: ContactChange) -> Relationship:
        """Moves one pair; returns it. Raises ImpossibleChange."""
        relationship = self.relationships.setdefault(event.pair, Relationship())
        relationship.apply(event)
        followers = self._followers.setdefault((event.corp_id, event.customer_id), set())
        customers = self._customers.setdefault((event.corp_id, event.staff_id), set())
        if relationship.staff_side:
            followers.add(event.staff_id)
            customers.add(event.customer_id)
        else:
            followers.discard(event.staff_id)
            customers.discard(event.customer_id)
        return relationship

    def customers_of(self, corp_id: str, staff_id: str) -> list[str]:
        """Who this staff member has: friends, and those who deleted us one-way (fact sheet 2.1)."""
        return sorted(self._customers.get((corp_id, staff_id), ()))

    def followers_of(self, corp_id: str, customer_id: str) -> list[tuple[str, Relationship]]:
        """Staff members who have this customer, with the relationship."""
        staff = sorted(self._followers.get((corp_id, customer_id), ()))
        return [(staff_id, self.relationships[corp_id, staff_id, customer_id]) for staff_id in staff]


def played(changes: Iterable[ContactChange]) -> World:
    """The world after all the changes, in order of time. Raises ImpossibleChange for a plan that cannot happen."""
    world = World()
    for change in sorted(changes, key=lambda c: c.time_s):
        world.apply(change)
    return world
