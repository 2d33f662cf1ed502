"""Contact ways: codes and buttons that lead a customer to a staff member, and the temporary chats some of them open
(fact sheet 3.3)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld
from simulator.world.days import day_of
from simulator.world.groups import Groups
from simulator.world.opaque import opaque_id
from simulator.world.people import LEFT
from simulator.world.relations import ContactChange
from simulator.world.roster import Roster
from simulator.world.scale import Scale

SINGLE, MULTI = 1, 2
"""Type of a contact way."""
MINI_PROGRAM, QR_CODE = 1, 2
"""Its scene."""
_SCANNED = 1
"""add_way of who came by a code."""


class WayRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``contact_ways`` of the rules (fact sheet 3.3). Times in seconds."""

    most: int = 500_000
    """Of a corp, those of groups counted in."""
    members: int = 100
    remark_chars: int = 30
    state_chars: int = 30
    styles: int = 3
    """Looks of a mini-program button; the platform documents no other."""
    temporary: bool = False
    """Whether the corp is of the medical trade: others have no temporary ways (48002)."""
    temporary_a_day: int = 100_000
    expires_s: int = 7 * 86_400
    chat_expires_s: int = 86_400
    longest_s: int = 14 * 86_400
    """Of both."""
    page: int = 100
    longest_page: int = 1_000
    window_s: int = 90 * 86_400
    listed_from_s: int = 1_625_846_400
    """Ways made before 2021-07-10 (Beijing) are not listed."""


@dataclass(slots=True)
class Way:
    """One contact way. Times are epoch seconds, lives in seconds."""

    config_id: str
    created_s: int
    type: int
    scene: int
    style: int = 0
    remark: str = ""
    skip_verify: bool = True
    state: str = ""
    users: list[str] = field(default_factory=list)
    parties: list[int] = field(default_factory=list)
    temporary: bool = False
    expires_in: int = 0
    chat_expires_in: int = 0
    unionid: str = ""
    exclusive: bool = False
    mark_source: bool = True
    conclusions: dict[str, Any] = field(default_factory=dict)
    scans: int = 0

    @property
    def qr_code(self) -> str:
        """Address of the picture; empty for a mini-program button."""
        return f"https://wework.qpic.example/wwpic/{self.config_id}/0" if self.scene == QR_CODE else ""

    def alive(self, now_s: int) -> bool:
        """Whether it still leads anywhere: a temporary one ends with its time."""
        return not self.temporary or now_s < self.created_s + self.expires_in


class Ways:
    """All contact ways of a corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("contact_ways", WayRules)
        self._corp = corp
        self._by_id: dict[str, Way] = {}
        self._listed: list[tuple[int, str]] = []
        """(created_s, config_id), sorted: those that are listed."""
        self._chats: dict[tuple[str, str], int] = {}
        """(staff_id, customer_id) → when the temporary chat ends."""
        self._made = 0
        self._temporary_of: tuple[int, int] = (0, 0)
        """Business day, temporary ways made on it."""

    def get(self, config_id: str, now_s: int) -> Way:
        """Raises ApiError 41039 for one that is not there, or a temporary one past its time."""
        way = self._by_id.get(config_id)
        if way is None or not way.alive(now_s):
            raise ApiError(41039)
        return way

    def add(self, way_of: Callable[[str], Way], now_s: int) -> Way:
        """Keeps ``way_of(config_id)``. Raises ApiError 41045 when the corp, or its day for temporary ones, is full."""
        if len(self._by_id) + len(self._corp.of(Groups).ways) >= self.rules.most:
            raise ApiError(41045)
        way = way_of(opaque_id(self._corp, "", "way", self._made))
        if way.temporary:
            day = day_of(now_s)
            made = self._temporary_of[1] if self._temporary_of[0] == day else 0
            if made >= self.rules.temporary_a_day:
                raise ApiError(41045)
            self._temporary_of = (day, made + 1)
        self._made += 1
        self._by_id[way.config_id] = way
        if not way.temporary:
            at = (way.created_s, way.config_id)
            self._listed.insert(bisect_left(self._listed, at), at)
        return way

    def delete(self, way: Way) -> None:
        """Nobody comes by it any more; temporary chats that it opened go on."""
        del self._by_id[way.config_id]
        if not way.temporary:
            del self._listed[bisect_left(self._listed, (way.created_s, way.config_id))]

    def listed(
        self, begin_s: int, end_s: int, after: tuple[int, str] | None, limit: int
    ) -> tuple[list[str], tuple[int, str] | None]:
        """config_ids made in the window (both ends included), oldest first, and where to go on; None at the end."""
        first = bisect_left(self._listed, (max(begin_s, self.rules.listed_from_s), ""))
        if after is not None:
            first = max(first, bisect_left(self._listed, (*after, "")))  # behind ``after``: a longer tuple is greater
        last = bisect_left(self._listed, (end_s + 1, ""))
        page = self._listed[first : min(first + limit, last)]
        return [config_id for _, config_id in page], page[-1] if first + limit < last else None

    def members(self, users: list[str], parties: list[int]) -> list[str]:
        """Staff members that these and the departments (with those below) are together, who have not left."""
        staff = self._corp.people.staff
        own = [userid for userid in users if userid in staff and staff[userid].status != LEFT]
        return list(dict.fromkeys([*own, *self._corp.of(Roster).members_of(parties)]))

    def scan(self, config_id: str, customer_id: str, now_s: int) -> ContactChange | None:
        """What follows when a customer uses the way: the change that can be told to ``CorpWorld.happen``.

        None: the code leads nowhere, nobody serves it, the customer has the staff member (with an exclusive way: any
        of them) already, or the corp's scale is full. A temporary way opens a chat and makes nobody a friend.
        """
        way = self._by_id.get(config_id)
        if way is None or not way.alive(now_s):
            return None
        if way.unionid and self._corp.people.customer(customer_id).unionid != way.unionid:
            return None
        members = [m for m in self.members(way.users, way.parties) if self._corp.people.staff[m].may_reach(now_s)]
        if not members:
            return None
        way.scans += 1
        staff_id = members[self._corp.random("scan", config_id, customer_id, way.scans).randrange(len(members))]
        if way.temporary:
            self._chats[staff_id, customer_id] = now_s + way.chat_expires_in
            return None
        relations = self._corp.relations
        if way.exclusive:
            standing = {follower for follower, pair in relations.followers_of(customer_id) if pair.friend}
            if not standing.isdisjoint(members):
                return None
        change = ContactChange(
            now_s,
            self._corp.corp_id,
            staff_id,
            customer_id,
            "add" if way.skip_verify else "add_half",
            state=way.state,
            welcome=True,
            add_way=_SCANNED,
        )
        if not relations.can(change) or not self._corp.of(Scale).may_add(customer_id, now_s):
            return None
        return change

    def chatting(self, staff_id: str, customer_id: str, now_s: int) -> bool:
        """Whether a temporary chat of the two is open."""
        return now_s < self._chats.get((staff_id, customer_id), 0)

    def close_chat(self, staff_id: str, customer_id: str) -> None:
        """Ends it."""
        self._chats.pop((staff_id, customer_id), None)
