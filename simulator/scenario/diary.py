"""The changes of one pair while they are planned: only what can happen on the platform, far enough apart. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from simulator.world.relations import MIN_GAP_S, Change, ContactChange, Relationship

SAME_SECOND = 50
"""So many customers scan one code in the same second."""
HALF_TO_CONFIRMED_S = 6
"""A staff member needs a while to confirm; by then a prompt system has used the half add's welcome code."""


@dataclass(slots=True)
class Diary:
    """The changes of one pair while they are planned; knows what can happen next."""

    corp_id: str
    staff_id: str
    customer_id: str
    end_s: int
    relationship: Relationship = field(default_factory=Relationship)
    changes: list[ContactChange] = field(default_factory=list)

    def write(
        self, time_s: int, change: Change, *, state: str = "", welcome: bool = False, fail_reason: str = ""
    ) -> bool:
        """Notes a change; False when it cannot happen then or the day is over."""
        last = self.relationship.changed_s
        if time_s > self.end_s or not self.relationship.possible(change) or (last and time_s - last < MIN_GAP_S):
            return False
        event = ContactChange(
            time_s, self.corp_id, self.staff_id, self.customer_id, change, state, welcome, fail_reason
        )
        self.relationship.apply(event)
        self.changes.append(event)
        return True

    def later(self, rng: random.Random, least_s: int = MIN_GAP_S) -> int:
        """Some second after the last change; past the end when no time is left."""
        first = self.relationship.changed_s + least_s
        return rng.randint(first, self.end_s) if first <= self.end_s else self.end_s + 1
