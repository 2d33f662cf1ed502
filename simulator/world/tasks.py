"""Tasks on staff members' phones, of a message or a moment: who gets round to pressing "send", and when.

A task goes to up to 20,000 people, so it is handed out a few at a time, each lot an action of its own: a call that
makes a task stays short, and the world takes turns with whoever else wants the processor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from itertools import islice

from simulator.world.corp import CorpWorld
from simulator.world.days import DAY_S
from simulator.world.habits import confirms_after_s
from simulator.world.people import ACTIVE
from simulator.world.scale import Scale

Confirm = Callable[[str, int], None]
"""Called with a userid and the second at which they press the button."""

_LOT = 50


def hand_out(corp: CorpWorld, ref: str, staff: Iterable[str], at_s: int, confirm: Confirm) -> None:
    """At ``at_s`` the task arrives; everybody confirms it after their own while (habits), or never."""
    waiting = iter(staff)

    def next_lot(due_s: int) -> None:
        lot = list(islice(waiting, _LOT))
        for userid in lot:
            after_s = confirms_after_s(corp, userid, ref)
            if after_s is not None:
                corp.schedule.at(due_s + after_s, partial(confirm, userid))
        if len(lot) == _LOT:
            corp.schedule.at(due_s, next_lot)

    corp.schedule.at(at_s, next_lot)


def able(corp: CorpWorld, userid: str, time_s: int, confirm: Confirm) -> bool:
    """Whether somebody may press the button now.

    Who is banned for a time presses it when that is over; where the corp's scale is used up (fact sheet 5.1) everybody
    tries again a day later.
    """
    member = corp.people.staff.get(userid)
    if member is None or member.status != ACTIVE or member.banned:
        return False
    if time_s < member.banned_until_s:
        corp.schedule.at(member.banned_until_s, partial(confirm, userid))
        return False
    if corp.of(Scale).over(time_s):
        corp.schedule.at(time_s + DAY_S, partial(confirm, userid))
        return False
    return True


class Packed(Collection[str]):
    """Ids in a third of the memory that strings would take; a task keeps its customers as long as the world exists."""

    __slots__ = ("_joined", "_length")

    def __init__(self, ids: Collection[str]) -> None:
        """No id contains a line break: they are the platform's own."""
        self._joined = "\n".join(ids).encode()
        self._length = len(ids)

    def __contains__(self, one: object) -> bool:
        return any(one == here for here in self)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        return iter(self._joined.decode().split("\n")) if self._length else iter(())
