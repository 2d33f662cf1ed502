"""Customer groups: who is in which, who leads them, and what is told of it (fact sheet 2.2, 3.7, 5.3).

People act here, so everything is called back, except what an API call does (a join way, an on-job transfer). A reader
sees a group as it was some seconds ago (``lag_s``, fact sheet 1.7): a change that was just told is not readable yet.
Scene codes differ by design: the callback says 0 invited or 3 scanned, ``groupchat/get`` says 1 invited, 2 by link, 3
scanned.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import msgspec

from simulator.world.corp import CorpWorld
from simulator.world.days import day_start
from simulator.world.people import ACTIVE, LEFT
from simulator.world.relations import ContactChange
from simulator.world.roster import Roster
from simulator.world.transfers import DAY_S, Kind, Transfers

INVITED, BY_LINK, SCANNED = 1, 2, 3
"""How a member came, as ``groupchat/get`` says it."""
_TOLD_SCENE = {INVITED: "0", BY_LINK: "0", SCANNED: "3"}
"""The same, as the callback says it."""

NORMAL, OWNER_LEFT, INHERITING, INHERITED = 0, 1, 2, 3
"""Status of a group in the list."""


class GroupRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``groups``."""

    size: int = 500
    scannable_until: int = 200
    """From this size on only an invitation gets in (fact sheet 5.3)."""
    lag_s: int = 2
    unfiltered_members: int = 1_000
    """With more visible members a list without an owner filter is 81017."""
    groups_per_way: int = 5
    ways: int = 50_000
    """Join ways of a corp; the platform documents a limit for contact ways only, which is taken for these too."""


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in a group."""

    joined_s: int
    scene: int
    invitor: str = ""
    state: str = ""
    """Of the join way they scanned."""
    nickname: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What there is to read of a group; every change makes a new one."""

    name: str
    owner: str
    notice: str
    admins: tuple[str, ...]
    members: Mapping[str, Member]
    """By userid or external_userid, in order of joining."""
    version: str


@dataclass(slots=True)
class GroupDay:
    """What happened in a group on one day."""

    joined: int = 0
    messages: int = 0
    writers: set[str] = field(default_factory=set)
    members: int = 0
    """At the end of the day."""


@dataclass(slots=True)
class Group:
    """One group. Seconds."""

    chat_id: str
    serial: int
    created_s: int
    views: list[tuple[int, View]]
    """(since, what there is to read), as many as readers may still see."""
    changes: int = 0
    dismissed_s: int = 0
    heir: str = ""
    """Who will lead it once the inheritance is complete."""
    inherited: bool = False
    migrated: bool = False
    """Was moved over from elsewhere by a trainee, which training institutions count."""
    passed_on_s: list[int] = field(default_factory=list)
    """When it was handed on by owners at work."""
    days: dict[int, GroupDay] = field(default_factory=dict)

    @property
    def now(self) -> View:
        """As it really is."""
        return self.views[-1][1]

    def read(self, now_s: int, lag_s: int) -> View:
        """As readers see it; a new group is there at once, as it was founded."""
        for since_s, view in reversed(self.views):
            if since_s <= now_s - lag_s:
                return view
        return self.views[0][1]

    def size_on(self, day_s: int) -> int:
        """Members at the end of a day."""
        return next((day.members for start_s, day in reversed(self.days.items()) if start_s <= day_s), 0)


@dataclass(slots=True)
class JoinWay:
    """A code that leads into groups."""

    config_id: str
    scene: int
    remark: str
    auto_create_room: bool
    room_base_name: str
    room_base_id: int
    chat_ids: list[str]
    state: str
    mark_source: bool


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Numbers of several groups over several days."""

    new_groups: int
    groups: int
    groups_with_messages: int
    new_members: int
    members: int
    writers: int
    messages: int
    migrated: int


class Groups:
    """All customer groups of one corp. What cannot happen is refused (False, nobody, "") and tells nobody."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self.rules = corp.rules_of("groups", GroupRules)
        self.all: list[Group] = []
        """In order of creation, dismissed ones too."""
        self.ways: dict[str, JoinWay] = {}
        """Join ways by config_id."""
        self._ways_made = 0
        self._by_id: dict[str, Group] = {}
        self._by_opengid: dict[str, Group] = {}
        self._by_owner: dict[str, dict[str, Group]] = {}
        self._external: dict[str, tuple[str, ...]] = {}
        """External member → their groups: a tuple, because nearly everybody is in one and there are millions."""
        self._outside: dict[str, None] = {}
        self.bars: list[Callable[[str, int], bool]] = []
        """Asked before an external person comes in, with the second: whether something keeps them out (the scale)."""
        self._handed_on: Counter[tuple[Kind, str, int]] = Counter()
        """(kind, former owner, day) → groups."""
        corp.happened.append(self._relationship_changed)

    def get(self, chat_id: str) -> Group | None:
        """A group by its id, also after it was dismissed."""
        return self._by_id.get(chat_id)

    def owned_by(self, staff_id: str) -> list[Group]:
        """Groups that somebody leads, or led when they left the corp."""
        return [group for group in self.ever_owned_by(staff_id) if not group.dismissed_s]

    def ever_owned_by(self, staff_id: str) -> list[Group]:
        """The same with the groups they dismissed: days past keep their numbers."""
        return list(self._by_owner.get(staff_id, {}).values())

    def groups_of(self, customer_id: str) -> list[Group]:
        """Groups that an external person is in, in order of joining."""
        return [self._by_id[chat_id] for chat_id in self._external.get(customer_id, ())]

    def outside_members(self) -> KeysView[str]:
        """External people who are in groups and no member's customers, in the order they became that; not a copy."""
        return self._outside.keys()

    def opengid(self, chat_id: str) -> str:
        """What a mini program opened in the group is told instead of the chat_id."""
        return "o" + hashlib.blake2b(f"{self._corp.seed}|opengid|{chat_id}".encode(), digest_size=13).hexdigest()

    def by_opengid(self, opengid: str) -> Group | None:
        """The group behind an opengid."""
        return self._by_opengid.get(opengid)

    def status(self, group: Group) -> int:
        """As the list says it."""
        if group.heir:
            return INHERITING
        if self._corp.people.staff[group.now.owner].status == LEFT:
            return OWNER_LEFT
        return INHERITED if group.inherited else NORMAL

    def create(
        self,
        owner: str,
        members: Iterable[str],
        time_s: int,
        *,
        name: str = "",
        tell: bool = True,
        migrated: bool = False,
    ) -> str:
        """A member founds a group with colleagues and customers; returns its chat_id.

        ``tell`` False: it existed before the story began.
        """
        if not self._is_staff(owner):
            return ""
        serial = len(self.all)
        seed = f"{self._corp.seed}|{self._corp.corp_id}|group|{serial}"
        chat_id = "wr" + hashlib.blake2b(seed.encode(), digest_size=15).hexdigest()
        invited = [m for m in dict.fromkeys(members) if m != owner and self._exists(m)][: self.rules.size - 1]
        people = [owner, *self._admitted(chat_id, invited, time_s, tell)]
        joined = dict.fromkeys(people, Member(time_s, INVITED, owner))  # one for all: there may be millions
        joined[owner] = Member(time_s, INVITED)
        view = View(name, owner, "", (), MappingProxyType(joined), self._version(chat_id, 0))
        group = Group(chat_id, serial, time_s, [(time_s, view)], migrated=migrated)
        self.all.append(group)
        self._by_id[chat_id] = self._by_opengid[self.opengid(chat_id)] = group
        self._by_owner.setdefault(owner, {})[chat_id] = group
        self._count(group, time_s).joined += len(people)
        if tell:
            self._tell(time_s, group, "create")
        return chat_id

    def invite(
        self, chat_id: str, people: Iterable[str], by: str, time_s: int, *, link: bool = False, tell: bool = True
    ) -> list[str]:
        """A member of the group brings others in, directly or by a link; returns who came."""
        group = self._open(chat_id)
        if group is None or by not in group.now.members:
            return []
        return self._join(group, people, Member(time_s, BY_LINK if link else INVITED, by), self.rules.size, tell)

    def scan(self, chat_id: str, customer_id: str, time_s: int, *, state: str = "", tell: bool = True) -> bool:
        """Somebody scans the group's code, which works while the group is small enough."""
        group = self._open(chat_id)
        if group is None:
            return False
        member = Member(time_s, SCANNED, state=state)
        return bool(self._join(group, [customer_id], member, self.rules.scannable_until, tell))

    def scan_way(self, config_id: str, customer_id: str, time_s: int) -> str:
        """Somebody scans a join way: the first of its groups with room takes them, or a new one; returns its chat_id.

        A new group is led by the owner of the way's last one and takes a full one's place in the list when there are
        five already.
        """
        way = self.ways.get(config_id)
        if way is None or not self._exists(customer_id):
            return ""
        for chat_id in way.chat_ids:
            group = self._open(chat_id)
            if group is not None and customer_id in group.now.members:
                return chat_id
        for chat_id in way.chat_ids:
            if self.scan(chat_id, customer_id, time_s, state=way.state):
                return chat_id
        last = self._by_id[way.chat_ids[-1]].now if way.chat_ids else None
        if not way.auto_create_room or last is None:
            return ""
        name = f"{way.room_base_name}{way.room_base_id}" if way.room_base_name else last.name
        made = self.create(last.owner, (), time_s, name=name)
        if not made:
            return ""
        way.room_base_id += 1
        way.chat_ids = [*way.chat_ids[-(self.rules.groups_per_way - 1) :], made]
        return made if self.scan(made, customer_id, time_s, state=way.state) else ""

    def quit(self, chat_id: str, member: str, time_s: int) -> bool:
        """A member leaves. An owner has to hand the group on first."""
        return self._leave(chat_id, [member], time_s, "0")

    def remove(self, chat_id: str, members: Sequence[str], time_s: int) -> bool:
        """The owner or an administrator puts members out."""
        return self._leave(chat_id, members, time_s, "1")

    def change_owner(self, chat_id: str, owner: str, time_s: int) -> bool:
        """The owner hands the group to a colleague who is in it."""
        group = self._open(chat_id)
        if group is None or owner == group.now.owner or owner not in group.now.members or not self._is_staff(owner):
            return False
        self._give(group, owner, time_s)
        self._tell(time_s, group, "update", UpdateDetail="change_owner")
        return True

    def change_name(self, chat_id: str, name: str, time_s: int) -> bool:
        """The group has another name."""
        group = self._open(chat_id)
        if group is None or group.now.name == name:
            return False
        self._show(group, time_s, replace(group.now, name=name))
        self._tell(time_s, group, "update", UpdateDetail="change_name")
        return True

    def change_notice(self, chat_id: str, notice: str, time_s: int) -> bool:
        """The group has another notice."""
        group = self._open(chat_id)
        if group is None or group.now.notice == notice:
            return False
        self._show(group, time_s, replace(group.now, notice=notice))
        self._tell(time_s, group, "update", UpdateDetail="change_notice")
        return True

    def appoint(self, chat_id: str, admins: Iterable[str], time_s: int) -> bool:
        """Colleagues in the group become its administrators, of which nobody is told."""
        group = self._open(chat_id)
        if group is None:
            return False
        chosen = tuple(a for a in dict.fromkeys(admins) if a in group.now.members and self._is_staff(a))
        self._show(group, time_s, replace(group.now, admins=chosen))
        return True

    def dismiss(self, chat_id: str, time_s: int) -> bool:
        """The owner ends the group."""
        group = self._open(chat_id)
        if group is None:
            return False
        group.dismissed_s = time_s
        group.heir = ""
        for member in group.now.members:
            self._went(group, member)
        self._count(group, time_s).members = 0
        self._tell(time_s, group, "dismiss")
        return True

    def say(self, chat_id: str, member: str, time_s: int) -> bool:
        """Somebody writes in the group, of which apps are told nothing."""
        group = self._open(chat_id)
        if group is None or member not in group.now.members:
            return False
        day = self._count(group, time_s)
        day.messages += 1
        day.writers.add(member)
        return True

    def inherit(self, kind: Kind, chat_id: str, heir: str, now_s: int) -> int:
        """A call hands a group on; the errcode of one that cannot be, else 0.

        Of an owner at work the group passes at once and nobody is told, as of any API write. Of one who has left it
        passes later, and is told then. The platform documents neither the delay nor what the item of a group past the
        limits says: 45009 for the day's, 40128 for the window's, as elsewhere.
        """
        group = self._by_id.get(chat_id)
        if group is None:
            return 90501
        if group.dismissed_s:
            return 49008
        transfers, roster, owner = self._corp.of(Transfers), self._corp.of(Roster), group.now.owner
        errcode = self._objection(group, kind, heir)
        if errcode:
            return errcode
        if not self._corp.people.staff[heir].may_reach(now_s):
            return 40143
        if not roster.logged_in(heir, now_s):
            return 40205
        if kind == "on_job":
            start_s = transfers.window_start_s(now_s)
            group.passed_on_s = [time_s for time_s in group.passed_on_s if time_s >= start_s]
            if len(group.passed_on_s) >= transfers.rules.per_window:
                return 40128
        day = (kind, owner, day_start(now_s))
        if self._handed_on[day] >= transfers.rules.groups_per_day:
            return 45009
        self._handed_on[day] += 1
        if kind == "on_job":
            group.passed_on_s.append(now_s)
            self._join(group, [heir], Member(now_s, INVITED, owner), self.rules.size, tell=False)
            self._give(group, heir, now_s)
        else:
            group.heir = heir
            self._corp.schedule.at(now_s + transfers.rules.groups_after_s, lambda due_s: self._inherited(group, due_s))
        return 0

    def add_way(
        self,
        chat_ids: Sequence[str],
        *,
        scene: int,
        remark: str = "",
        auto_create_room: bool = True,
        room_base_name: str = "",
        room_base_id: int = 1,
        state: str = "",
        mark_source: bool = True,
    ) -> JoinWay | None:
        """A new code into groups; None when the corp has as many as it may."""
        if len(self.ways) >= self.rules.ways:
            return None
        self._ways_made += 1
        seed = f"{self._corp.seed}|{self._corp.corp_id}|join way|{self._ways_made}"
        config_id = hashlib.blake2b(seed.encode(), digest_size=16).hexdigest()
        way = self.ways[config_id] = JoinWay(
            config_id, scene, remark, auto_create_room, room_base_name, room_base_id, [*chat_ids], state, mark_source
        )
        return way

    def figures(self, groups: Iterable[Group], first_day_s: int, last_day_s: int) -> GroupFigures:
        """Numbers over the days from first to last; totals as of the end of the last."""
        end_s = last_day_s + DAY_S
        new = total = talked = joined = members = writers = messages = migrated = 0
        for group in groups:
            if group.created_s >= end_s:
                continue
            if not group.dismissed_s or group.dismissed_s >= end_s:
                total += 1
                members += group.size_on(last_day_s)
            begun = group.created_s >= first_day_s
            new += begun
            migrated += begun and group.migrated
            days = [day for start_s, day in group.days.items() if first_day_s <= start_s <= last_day_s]
            joined += sum(day.joined for day in days)
            sent = sum(day.messages for day in days)
            messages += sent
            talked += sent > 0
            writers += len(set().union(*(day.writers for day in days)))
        return GroupFigures(new, total, talked, joined, members, writers, messages, migrated)

    def _objection(self, group: Group, kind: Kind, heir: str) -> int:
        owner_left = self._corp.people.staff[group.now.owner].status == LEFT
        if group.heir:
            return 90507
        if kind == "on_job" and owner_left:
            return 90502
        if kind == "resigned" and not owner_left:
            return 90508 if group.inherited else 90500
        if heir == group.now.owner:
            return 90504
        if heir not in group.now.members and len(group.now.members) >= self.rules.size:
            return 90503
        return 0

    def _inherited(self, group: Group, due_s: int) -> None:
        heir, group.heir = group.heir, ""
        if not heir or self._corp.people.staff[heir].status == LEFT:
            return  # dismissed meanwhile, or the new owner has left as well: it waits for another one
        owner = group.now.owner
        comer = Member(due_s, INVITED, owner)
        if heir not in group.now.members and not self._join(group, [heir], comer, self.rules.size, tell=True):
            return  # it has filled up meanwhile
        self._give(group, heir, due_s)
        group.inherited = True
        self._tell(due_s, group, "update", UpdateDetail="change_owner")

    def _open(self, chat_id: str) -> Group | None:
        group = self._by_id.get(chat_id)
        return None if group is None or group.dismissed_s else group

    def _is_staff(self, userid: str) -> bool:
        member = self._corp.people.staff.get(userid)
        return member is not None and member.status == ACTIVE

    def _exists(self, person: str) -> bool:
        return self._is_staff(person) or (person not in self._corp.people.staff and person in self._corp.people.known)

    def _join(self, group: Group, people: Iterable[str], member: Member, most: int, tell: bool) -> list[str]:
        view = group.now
        came = [p for p in dict.fromkeys(people) if p not in view.members and self._exists(p)]
        came = self._admitted(group.chat_id, came[: max(0, most - len(view.members))], member.joined_s, tell)
        if not came:
            return []
        members = dict(view.members)
        members.update((person, member) for person in came)
        self._members_changed(group, member.joined_s, members)
        self._count(group, member.joined_s).joined += len(came)
        if tell:
            self._tell_members(
                member.joined_s, group, view.version, came, detail="add_member", join=_TOLD_SCENE[member.scene]
            )
        return came

    def _admitted(self, chat_id: str, people: Sequence[str], time_s: int, ask: bool) -> list[str]:
        """Who of them comes in; counted one by one, so that a scale is used up to its last place and no further."""
        came, alone = [], (chat_id,)
        for person in people:
            if person not in self._corp.people.staff:
                if ask and any(barred(person, time_s) for barred in self.bars):
                    continue
                before = self._external.get(person)
                self._external[person] = alone if before is None else before + alone
                if before is None and not self._corp.relations.followers_of(person):
                    self._outside[person] = None
            came.append(person)
        return came

    def _leave(self, chat_id: str, people: Iterable[str], time_s: int, scene: str) -> bool:
        group = self._open(chat_id)
        if group is None:
            return False
        view = group.now
        gone = [person for person in dict.fromkeys(people) if person in view.members and person != view.owner]
        if not gone:
            return False
        members = {person: member for person, member in view.members.items() if person not in gone}
        self._members_changed(group, time_s, members)
        self._count(group, time_s)
        for person in gone:
            self._went(group, person)
        self._tell_members(time_s, group, view.version, gone, detail="del_member", quit_scene=scene)
        return True

    def _members_changed(self, group: Group, time_s: int, members: dict[str, Member]) -> None:
        group.changes += 1
        admins = tuple(admin for admin in group.now.admins if admin in members)
        version = self._version(group.chat_id, group.changes)
        shown = MappingProxyType(members)
        self._show(group, time_s, replace(group.now, members=shown, admins=admins, version=version))

    def _give(self, group: Group, owner: str, time_s: int) -> None:
        del self._by_owner[group.now.owner][group.chat_id]
        self._by_owner.setdefault(owner, {})[group.chat_id] = group
        self._show(group, time_s, replace(group.now, owner=owner))

    def _show(self, group: Group, time_s: int, view: View) -> None:
        while len(group.views) > 1 and group.views[1][0] <= time_s - self.rules.lag_s:
            del group.views[0]
        group.views.append((time_s, view))

    def _count(self, group: Group, time_s: int) -> GroupDay:
        day = group.days.setdefault(day_start(time_s), GroupDay())
        day.members = len(group.now.members)
        return day

    def _version(self, chat_id: str, number: int) -> str:
        return hashlib.blake2b(f"{self._corp.seed}|{chat_id}|{number}".encode(), digest_size=16).hexdigest()

    def _went(self, group: Group, person: str) -> None:
        if person in self._corp.people.staff:
            return
        left = tuple(chat_id for chat_id in self._external[person] if chat_id != group.chat_id)
        if left:
            self._external[person] = left
        else:
            del self._external[person]
            self._outside.pop(person, None)

    def _relationship_changed(self, change: ContactChange) -> None:
        customer_id = change.customer_id
        if customer_id not in self._external:
            return
        if self._corp.relations.followers_of(customer_id):
            self._outside.pop(customer_id, None)
        else:
            self._outside[customer_id] = None

    def _tell_members(
        self,
        time_s: int,
        group: Group,
        version_before: str,
        people: Sequence[str],
        *,
        detail: str,
        join: str = "0",
        quit_scene: str = "0",
    ) -> None:
        self._tell(
            time_s,
            group,
            "update",
            UpdateDetail=detail,
            JoinScene=join,
            QuitScene=quit_scene,
            MemChangeCnt=str(len(people)),
            MemChangeList="".join(f"<Item>{person}</Item>" for person in people),
            LastMemVer=version_before,
            CurMemVer=group.now.version,
        )

    def _tell(self, time_s: int, group: Group, change: str, **more: str) -> None:
        fields = [("Event", "change_external_chat"), ("ChatId", group.chat_id), ("ChangeType", change), *more.items()]
        self._corp.emit(time_s, fields)
