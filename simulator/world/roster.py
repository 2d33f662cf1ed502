"""The address book as people change it: who joins, moves and leaves, departments, labels; told as since 2022-08-15.

Administrators act here, so their changes are called back (fact sheet 2.7): joining and leaving, changes of department
and of userid, but no longer those of names. The events carry ids and departments alone, nothing personal. An app has to
take ``change_contact`` to be told: the address-book assistant does, an ordinary self-built app does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from simulator.world.corp import CorpWorld
from simulator.world.people import ACTIVE, DISABLED, LEFT, NOT_ACTIVATED, Department, Staff

ROOT = 1
"""Id of the department that is the whole corp."""


class StaffRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``staff``: what a member may have and has to show."""

    customers_per_member: int = 20_000
    """Where a member has no cap of their own. Sources name 5,000 to 250,000 (fact sheet 5.2)."""
    login_within_days: int = 365
    """Longer without logging in: 40205 (fact sheet 3.6)."""
    without_real_name_share: float = 0.0
    """Of the members: not verified with their real name, so that they cannot take customers over (40098)."""


@dataclass(slots=True)
class Label:
    """A tag of the address book: members and departments that carry it."""

    staff: set[str] = field(default_factory=set)
    departments: set[int] = field(default_factory=set)


class Roster:
    """Changes of one corp's address book. What cannot be done is refused with False and tells nobody."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self.rules = corp.rules_of("staff", StaffRules)
        self.labels: dict[int, Label] = {}
        """Tags of the address book by TagId."""
        self.left: list[Callable[[str, int], None]] = []
        """Told of everybody who leaves or is taken away their functions: (userid, second)."""

    def join(
        self, userid: str, name: str, time_s: int, *, departments: Sequence[int] = (ROOT,), active: bool = True
    ) -> bool:
        """Somebody is employed. Who left under this userid comes back, without the customers that went elsewhere."""
        people = self._corp.people
        known = people.staff.get(userid)
        if (known is not None and known.status != LEFT) or not self._exist(departments):
            return False
        status = ACTIVE if active else NOT_ACTIVATED
        people.staff[userid] = Staff(userid, name, tuple(departments), status, joined_s=time_s)
        self._tell(time_s, "create_user", UserID=userid, Department=_joined(departments))
        return True

    def leave(self, userid: str, time_s: int) -> bool:
        """Somebody leaves. Their customers stay theirs until they are assigned to somebody (fact sheet 3.6)."""
        member = self._corp.people.staff.get(userid)
        if member is None or member.status == LEFT:
            return False
        member.status, member.left_s = LEFT, time_s
        for label in self.labels.values():
            label.staff.discard(userid)
        self._tell(time_s, "delete_user", UserID=userid)
        self.unavailable(userid, time_s)
        return True

    def move(self, userid: str, departments: Sequence[int], time_s: int) -> bool:
        """Somebody works in other departments from now on."""
        member = self._here(userid)
        if member is None or not self._exist(departments) or member.departments == tuple(departments):
            return False
        member.departments = tuple(departments)
        self._tell(time_s, "update_user", UserID=userid, Department=_joined(departments))
        return True

    def rename(self, userid: str, name: str) -> bool:
        """Somebody has another name: nobody is told any more (fact sheet 2.7)."""
        member = self._here(userid)
        if member is None:
            return False
        member.name = name
        return True

    def change_userid(self, userid: str, new_userid: str, time_s: int) -> bool:
        """A userid is replaced, which works until the member logs in for the first time.

        The platform allows it once, for ids it made itself, and says no more; a corp gives its newcomers their lasting
        ids before they begin.
        """
        people = self._corp.people
        member = self._here(userid)
        if member is None or member.status != NOT_ACTIVATED or not new_userid or new_userid in people.staff:
            return False
        del people.staff[userid]
        member.userid = new_userid
        people.staff[new_userid] = member
        for label in self.labels.values():
            if userid in label.staff:
                label.staff.remove(userid)
                label.staff.add(new_userid)
        departments = _joined(member.departments)
        self._tell(time_s, "update_user", UserID=userid, NewUserID=new_userid, Department=departments)
        return True

    def activate(self, userid: str, *, on: bool = True) -> bool:
        """Somebody logs in for the first time or again, or is disabled; changes of status are no longer told."""
        member = self._here(userid)
        if member is None:
            return False
        member.status = ACTIVE if on else DISABLED
        return True

    def unavailable(self, userid: str, time_s: int) -> None:
        """Tells whoever counts on this member that they are away: who bans a member calls it as well."""
        for told in self.left:
            told(userid, time_s)

    def found_department(self, department: int, name: str, parent: int, time_s: int) -> bool:
        """A department comes into being."""
        departments = self._corp.people.departments
        if department in departments or parent not in departments:
            return False
        departments[department] = Department(department, name, parent)
        self._tell(time_s, "create_party", Id=str(department), ParentId=str(parent))
        return True

    def rename_department(self, department: int, name: str) -> bool:
        """A department has another name: nobody is told any more."""
        departments = self._corp.people.departments
        if department not in departments:
            return False
        departments[department] = replace(departments[department], name=name)
        return True

    def move_department(self, department: int, parent: int, time_s: int) -> bool:
        """A department goes below another one, never below itself."""
        departments = self._corp.people.departments
        if department not in departments or parent not in departments or department == ROOT:
            return False
        if departments[department].parent == parent or parent in self.below(department):
            return False
        departments[department] = replace(departments[department], parent=parent)
        self._tell(time_s, "update_party", Id=str(department), ParentId=str(parent))
        return True

    def close_department(self, department: int, time_s: int) -> bool:
        """An empty department goes; one with members or departments below it cannot."""
        people = self._corp.people
        if department not in people.departments or department == ROOT:
            return False
        if any(d.parent == department for d in people.departments.values()):
            return False
        if any(department in member.departments for member in people.staff.values() if member.status != LEFT):
            return False
        del people.departments[department]
        for label in self.labels.values():
            label.departments.discard(department)
        self._tell(time_s, "delete_party", Id=str(department))
        return True

    def label(
        self,
        tag_id: int,
        time_s: int,
        *,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
        add_departments: Iterable[int] = (),
        remove_departments: Iterable[int] = (),
    ) -> bool:
        """A tag of the address book is put on or taken off; only what changes is told."""
        label = self.labels.setdefault(tag_id, Label())
        staff, departments = self._corp.people.staff, self._corp.people.departments
        added = [u for u in dict.fromkeys(add) if u in staff and u not in label.staff]
        removed = [u for u in dict.fromkeys(remove) if u in label.staff]
        added_departments = [d for d in dict.fromkeys(add_departments) if d in departments.keys() - label.departments]
        removed_departments = [d for d in dict.fromkeys(remove_departments) if d in label.departments]
        if not (added or removed or added_departments or removed_departments):
            return False
        label.staff = (label.staff | set(added)) - set(removed)
        label.departments = (label.departments | set(added_departments)) - set(removed_departments)
        items = {
            "AddUserItems": _joined(added),
            "DelUserItems": _joined(removed),
            "AddPartyItems": _joined(added_departments),
            "DelPartyItems": _joined(removed_departments),
        }
        self._tell(time_s, "update_tag", TagId=str(tag_id), **{name: value for name, value in items.items() if value})
        return True

    def below(self, department: int) -> set[int]:
        """A department and all departments under it."""
        children: dict[int, list[int]] = {}
        for found in self._corp.people.departments.values():
            children.setdefault(found.parent, []).append(found.id)
        reached, waiting = {department}, [department]
        while waiting:
            for child in children.get(waiting.pop(), ()):
                if child not in reached:
                    reached.add(child)
                    waiting.append(child)
        return reached

    def members_of(self, departments: Iterable[int]) -> list[str]:
        """Who is here and works in one of the departments or below it."""
        wanted = set().union(*(self.below(department) for department in departments))
        return [
            userid
            for userid, member in self._corp.people.staff.items()
            if member.status != LEFT and not wanted.isdisjoint(member.departments)
        ]

    def room(self, userid: str) -> int:
        """How many more customers this member may have; 0 or less: none (40099)."""
        cap = self._corp.people.staff[userid].contact_cap or self.rules.customers_per_member
        return cap - self._corp.relations.count_of(userid)

    def verified(self, userid: str) -> bool:
        """Whether the member has shown who they are."""
        share = self.rules.without_real_name_share
        return not share or self._corp.random("real name", userid).random() >= share

    def logged_in(self, userid: str, now_s: int) -> bool:
        """Whether the member has logged in within the year."""
        last_s = self._corp.people.staff[userid].last_login_s
        return not last_s or now_s - last_s <= self.rules.login_within_days * 86_400

    def _here(self, userid: str) -> Staff | None:
        member = self._corp.people.staff.get(userid)
        return None if member is None or member.status == LEFT else member

    def _exist(self, departments: Sequence[int]) -> bool:
        return bool(departments) and all(department in self._corp.people.departments for department in departments)

    def _tell(self, time_s: int, change: str, **fields: str) -> None:
        self._corp.emit(time_s, [("Event", "change_contact"), ("ChangeType", change), *fields.items()])


def _joined(items: Iterable[object]) -> str:
    return ",".join(map(str, items))
