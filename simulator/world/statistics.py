"""What a member's day looks like in numbers, counted from what really happened (fact sheet 3.8).

The counting begins with the world's opening: the days before are there and empty, as those of a corp that has just
switched customer contact on. Days are Shanghai's; a day can be read when its morning after has come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import msgspec

from simulator.world.corp import Complaint, CorpWorld, Said
from simulator.world.days import DAY_S, day_start
from simulator.world.relations import ContactChange


class StatisticsRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``statistics``."""

    ready_hour: int = 8
    """Hour of the next morning (Shanghai) from which a day's row can be read. Reports of empty rows name 00:01 and
    02:32, and the advice is to fetch after the morning."""
    zero_share: float = 0.5
    """Of the days: shown as zeros until then; the others are missing."""
    longest_days: int = 30
    oldest_days: int = 180


@dataclass(slots=True)
class StaffDay:
    """One member's day, or the sum of several members'. Replies in seconds."""

    applications: int = 0
    """Friend requests the member made that were accepted; nobody is told of the others."""
    contacts: int = 0
    chats: int = 0
    """With customers the member wrote to."""
    messages: int = 0
    """Of the member."""
    begun: int = 0
    """Chats that the customer began."""
    answered: int = 0
    """Of those, by the end of the day."""
    answer_s: int = 0
    """Sum of the times to the first answer."""
    negative: int = 0
    """Customers who deleted or reported the member."""

    def add(self, other: StaffDay) -> None:
        """Adds another member's day to this sum."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_COUNTS = tuple(field.name for field in fields(StaffDay))


@dataclass(slots=True)
class _Talk:
    """What was said between two people today."""

    wrote: bool = False
    """The member did."""
    waiting_s: int = 0
    """When the customer began and was not answered yet; 0: nobody waits."""


class Statistics:
    """The days of all members of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self.rules = corp.rules_of("statistics", StatisticsRules)
        self._days: dict[int, dict[str, StaffDay]] = {}
        """Start of the day → member → numbers."""
        self._today = 0
        self._talks: dict[tuple[str, str], _Talk] = {}
        self._angry: set[tuple[str, str]] = set()
        corp.happened.append(self._happened)
        corp.said.append(self._said)
        corp.complained.append(self._complained)

    def of_day(self, day_s: int, staff_ids: Iterable[str]) -> StaffDay:
        """The sum over members of one day."""
        total = StaffDay()
        members = self._days.get(day_s)
        if members:
            for staff_id in staff_ids:
                found = members.get(staff_id)
                if found is not None:
                    total.add(found)
        return total

    def ready(self, day_s: int, now_s: int) -> bool:
        """Whether a day's numbers have been worked out."""
        return now_s >= day_s + DAY_S + self.rules.ready_hour * 3_600

    def zero_until_ready(self, day_s: int, now_s: int) -> bool:
        """Whether a day that is over and not ready is shown as zeros, instead of being missing."""
        over = day_s + DAY_S <= now_s
        return over and self._corp.random("statistics", day_s).random() < self.rules.zero_share

    def _day(self, staff_id: str, time_s: int) -> StaffDay:
        day_s = day_start(time_s)
        if day_s > self._today:
            self._today = day_s
            self._talks.clear()
            self._angry.clear()
            for old in [day for day in self._days if day < day_s - (self.rules.oldest_days + 1) * DAY_S]:
                del self._days[old]
        members = self._days.setdefault(day_s, {})
        found = members.get(staff_id)
        if found is None:
            found = members[staff_id] = StaffDay()
        return found

    def _happened(self, change: ContactChange) -> None:
        if change.change == "add":
            day = self._day(change.staff_id, change.time_s)
            day.contacts += 1
            day.applications += change.oper == change.staff_id
        elif change.change == "delete_by_customer":
            self._anger(change.staff_id, change.customer_id, change.time_s)

    def _complained(self, complaint: Complaint) -> None:
        self._anger(complaint.staff_id, complaint.customer_id, complaint.time_s)

    def _anger(self, staff_id: str, customer_id: str, time_s: int) -> None:
        day = self._day(staff_id, time_s)
        if (staff_id, customer_id) not in self._angry:
            self._angry.add((staff_id, customer_id))
            day.negative += 1

    def _said(self, said: Said) -> None:
        day = self._day(said.staff_id, said.time_s)
        talk = self._talks.get((said.staff_id, said.customer_id))
        if talk is None:
            talk = self._talks[said.staff_id, said.customer_id] = _Talk()
            if said.by_customer:
                day.begun += 1
                talk.waiting_s = said.time_s
        if said.by_customer:
            return
        day.messages += 1
        if not talk.wrote:
            talk.wrote = True
            day.chats += 1
        if talk.waiting_s:
            day.answered += 1
            day.answer_s += said.time_s - talk.waiting_s
            talk.waiting_s = 0
