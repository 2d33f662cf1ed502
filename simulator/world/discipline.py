"""What the platform does to members who add too fast or are complained about, and to their corp (fact sheet 5.6).

Bans stand in :class:`~simulator.world.people.Staff` (``banned_until_s``, ``banned``), where every family sees them
through ``may_reach``; here is why and when. A banned member makes no new contacts; who is banned for good may get the
whole corp banned (301007 for every call). Nobody is told by an event: the platform documents none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import msgspec

from simulator.world.corp import Complaint, CorpWorld
from simulator.world.people import LEFT
from simulator.world.relations import ContactChange
from simulator.world.roster import Roster

_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S
CORP_BANNED = 301007
_GIVEN = (201, 202)
"""Ways in which nobody added anybody: shared by a colleague, assigned by an administrator (fact sheet 3.2)."""


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """More than ``most`` adds within ``window_s`` are too many."""

    name: str
    who: Literal["new", "mature"]
    kind: Literal["passive", "active"]
    """Who began: the customer (passive) or the member (active)."""
    most: int
    window_s: int
    bans: bool = True
    """Else it is noted as a warning on the member's screen only."""


class DisciplineRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``discipline``. All of it from third parties: the platform publishes no number.

    The two paces of new accounts (60 a minute, 40 an hour) are told by two articles; the lengths of 24 h and 7 days,
    the daily paces (rules of thumb, so they only warn) and the ladder of complaints by one each; how many complaints
    make a ban, and what gets a corp banned, by none: they are this stand-in's.
    """

    new_account_s: int = 30 * _DAY_S
    paces: tuple[Pace, ...] = (
        Pace("new passive burst", "new", "passive", 60, 60),
        Pace("new active hour", "new", "active", 40, 3_600),
        Pace("new active day", "new", "active", 60, _DAY_S, bans=False),
        Pace("new passive day", "new", "passive", 200, _DAY_S, bans=False),
        Pace("mature active day", "mature", "active", 200, _DAY_S, bans=False),
    )
    pace_bans_s: tuple[int, ...] = (_DAY_S, _WEEK_S)
    """The first ban for pace, the second, and all later ones as long as the last."""
    complaints: int = 5
    """By so many different customers …"""
    complaints_within_s: int = _WEEK_S
    """… within so long, since the last ban: one step of the ladder."""
    ladder_s: tuple[int, ...] = (_DAY_S, _WEEK_S, 0)
    """Short with appeal, short without, for good (0), and for good from then on."""
    restored_within_s: int = _DAY_S
    """After the ban of a member's own WeChat is lifted, customer contact comes back within so long."""
    corp_bans: int = 10
    """The corp is banned when so many members are banned for good …"""
    corp_share: float = 0.05
    """… and they are at least so many of its members."""


@dataclass(slots=True)
class Ban:
    """One ban, for the truth. Epoch seconds; ``until_s`` 0: for good."""

    staff_id: str
    time_s: int
    until_s: int
    reason: str
    step: int = 0
    """On the ladder of complaints, from 1; 0: not of it."""
    lifted_s: int = 0


@dataclass(frozen=True, slots=True)
class PaceWarning:
    """A pace the client warns of."""

    staff_id: str
    time_s: int
    pace: str


class Discipline:
    """Watches one corp from its opening on."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("discipline", DisciplineRules)
        self.bans: list[Ban] = []
        self.warnings: list[PaceWarning] = []
        self.corp_banned_s = 0
        """When the corp was banned; 0: it is not."""
        self._corp = corp
        self._adds: dict[tuple[str, str], deque[int]] = {}
        """(staff, pace) → seconds of the last adds, one more than the pace allows."""
        self._complaints: dict[str, dict[str, int]] = {}
        """Staff → customer → second of their complaint, since the last ban."""
        self._paced: dict[str, int] = {}
        """Staff → bans for pace so far."""
        self._steps: dict[str, int] = {}
        """Staff → steps of the ladder so far."""
        corp.bars.append(self._bars)
        corp.happened.append(self._happened)
        corp.complained.append(self._complained)
        corp.refusals.append(self._refuses)

    def ban(self, staff_id: str, now_s: int, *, seconds: int = 0, reason: str = "", step: int = 0) -> Ban | None:
        """Takes customer contact away, 0: for good (plug-ins, batch adding). None when the member is not there."""
        member = self._corp.people.staff.get(staff_id)
        if member is None or member.status == LEFT:
            return None
        ban = Ban(staff_id, now_s, now_s + seconds if seconds else 0, reason, step)
        self.bans.append(ban)
        if seconds:
            member.banned_until_s = max(member.banned_until_s, ban.until_s)
        else:
            member.banned = True
            self._consider_corp(now_s)
        self._complaints.pop(staff_id, None)
        self._corp.of(Roster).unavailable(staff_id, now_s)
        return ban

    def lift(self, staff_id: str, now_s: int) -> bool:
        """Gives it back, whatever it was. False when nothing was taken."""
        member = self._corp.people.staff.get(staff_id)
        if member is None or not (member.banned or now_s < member.banned_until_s):
            return False
        member.banned, member.banned_until_s = False, 0
        for ban in self.bans:
            if ban.staff_id == staff_id and not ban.lifted_s and (not ban.until_s or now_s < ban.until_s):
                ban.lifted_s = now_s
        return True

    def appeal(self, staff_id: str, now_s: int) -> bool:
        """An administrator appeals: heard for the ladder's first step and nothing else."""
        standing = [
            b for b in self.bans if b.staff_id == staff_id and not b.lifted_s and now_s < (b.until_s or 1 << 62)
        ]
        return bool(standing) and all(ban.step == 1 for ban in standing) and self.lift(staff_id, now_s)

    def ban_wechat(self, staff_id: str, now_s: int) -> bool:
        """The member's own WeChat is banned: no customer contact until it is lifted."""
        return self.ban(staff_id, now_s, seconds=_FOR_EVER_S, reason="wechat") is not None

    def lift_wechat(self, staff_id: str, now_s: int) -> int:
        """Lifted there; here within a day. The second at which it is back."""
        back_s = now_s + self._corp.random("restored", staff_id, now_s).randint(1, self.rules.restored_within_s)
        self._corp.schedule.at(back_s, partial(self._restore, staff_id))
        return back_s

    def ban_corp(self, now_s: int) -> None:
        """Every call of the corp gets 301007."""
        self.corp_banned_s = self.corp_banned_s or now_s

    def lift_corp(self) -> bool:
        """The corp may call again; its members stay as they are. False when it was not banned."""
        banned, self.corp_banned_s = bool(self.corp_banned_s), 0
        return banned

    def pace_of(self, staff_id: str, kind: str, within_s: int, now_s: int) -> int:
        """How many adds of a kind this member made of late, as far as any pace of it counts them."""
        counted: Iterable[deque[int]] = (
            times
            for pace in self.rules.paces
            if pace.kind == kind and (times := self._adds.get((staff_id, pace.name))) is not None
        )
        return max((sum(now_s - time_s < within_s for time_s in times) for times in counted), default=0)

    def _restore(self, staff_id: str, due_s: int) -> None:
        """Ends what the WeChat ban took; bans of our own stay."""
        member = self._corp.people.staff[staff_id]
        for ban in self.bans:
            if ban.staff_id == staff_id and ban.reason == "wechat" and not ban.lifted_s:
                ban.lifted_s = due_s
        others = [b for b in self.bans if b.staff_id == staff_id and not b.lifted_s and b.until_s]
        member.banned_until_s = max((ban.until_s for ban in others), default=0)

    def _bars(self, event: ContactChange) -> bool:
        """A banned member neither adds nor accepts anybody."""
        if event.change not in ("add", "add_half"):
            return False
        member = self._corp.people.staff.get(event.staff_id)
        return member is not None and (member.banned or event.time_s < member.banned_until_s)

    def _happened(self, event: ContactChange) -> None:
        if event.change not in ("add", "add_half"):
            return
        member = self._corp.people.staff.get(event.staff_id)
        pair = self._corp.relations.get(event.staff_id, event.customer_id)
        if member is None or pair is None:
            return
        if event.change == "add" and pair.arriving:
            return  # counted when they came half way
        if event.add_way in _GIVEN:
            return
        new = bool(member.joined_s) and event.time_s - member.joined_s < self.rules.new_account_s
        who, kind = "new" if new else "mature", "active" if event.oper == event.staff_id else "passive"
        for pace in self.rules.paces:
            if (pace.who, pace.kind) == (who, kind) and self._too_fast(event, pace):
                self._strike(event, pace)

    def _too_fast(self, event: ContactChange, pace: Pace) -> bool:
        key = (event.staff_id, pace.name)
        times = self._adds.setdefault(key, deque(maxlen=pace.most + 1))
        times.append(event.time_s)
        if len(times) <= pace.most or event.time_s - times[0] >= pace.window_s:
            return False
        times.clear()
        return True

    def _strike(self, event: ContactChange, pace: Pace) -> None:
        staff_id = event.staff_id
        if not pace.bans:
            self.warnings.append(PaceWarning(staff_id, event.time_s, pace.name))
            return
        number = self._paced[staff_id] = self._paced.get(staff_id, 0) + 1
        lengths = self.rules.pace_bans_s
        self.ban(staff_id, event.time_s, seconds=lengths[min(number, len(lengths)) - 1], reason=pace.name)

    def _complained(self, complaint: Complaint) -> None:
        staff_id, now_s = complaint.staff_id, complaint.time_s
        heard = self._complaints.setdefault(staff_id, {})
        heard[complaint.customer_id] = now_s
        for customer_id in [who for who, at_s in heard.items() if now_s - at_s > self.rules.complaints_within_s]:
            del heard[customer_id]
        if len(heard) < self.rules.complaints:
            return
        step = self._steps[staff_id] = self._steps.get(staff_id, 0) + 1
        seconds = self.rules.ladder_s[min(step, len(self.rules.ladder_s)) - 1]
        self.ban(staff_id, now_s, seconds=seconds, reason="complaints", step=step)

    def _consider_corp(self, now_s: int) -> None:
        members = [member for member in self._corp.people.staff.values() if member.status != LEFT]
        banned = sum(member.banned for member in members)
        if banned >= max(self.rules.corp_bans, self.rules.corp_share * len(members)):
            self.ban_corp(now_s)

    def _refuses(self, _agent_id: str, _endpoint: str, _now_s: int) -> int:
        return CORP_BANNED if self.corp_banned_s else 0


_FOR_EVER_S = 100 * 365 * _DAY_S
