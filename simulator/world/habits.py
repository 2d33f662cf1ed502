"""How staff behave at their phones: who presses "send", and after how long. Section ``habits`` of the rules."""

from __future__ import annotations

import math

import msgspec

from simulator.world.corp import CorpWorld


class Habits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds and shares."""

    never_share: float = 0.1
    """Of staff × task that nobody ever confirms."""
    median_s: int = 1_800
    """Half of the others have confirmed by then."""
    spread: float = 1.0
    """Of the logarithm of the time (a normal distribution's sigma)."""
    reminded_share: float = 0.5
    """Of those who would never confirm, who do after a reminder."""


def confirms_after_s(corp: CorpWorld, staff_id: str, ref: str) -> int | None:
    """Seconds from a task's arrival until this staff member confirms it; None: never."""
    habits = corp.rules_of("habits", Habits)
    chance = corp.random("confirms", staff_id, ref)
    if chance.random() < habits.never_share:
        return None
    return max(1, round(habits.median_s * math.exp(chance.gauss(0.0, habits.spread))))


def yields_to_reminder(corp: CorpWorld, staff_id: str, ref: str, number: int) -> bool:
    """Whether reminder ``number`` (from 1) makes somebody confirm who would not have."""
    habits = corp.rules_of("habits", Habits)
    return corp.random("reminded", staff_id, ref, number).random() < habits.reminded_share
