"""Moments (客户朋友圈): the corp's, which staff publish or do not, and staff's own; who can see them, who likes them.

A call makes a job; when the job is done there is a moment, and a task for every sender. Publishing shows it to the
sender's customers within the moment's tags, up to a cap: four of the corp's a month, three of staff's own a day (fact
sheet 3.5, 5.4). Few of those who could see it do; each of these is a Touch.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import msgspec

from simulator.platform.throttle import Limits, Throttle
from simulator.world.caps import Caps
from simulator.world.corp import CorpWorld, Touch
from simulator.world.days import month_of
from simulator.world.mass import SHOWN_CHARS
from simulator.world.notes import Notes
from simulator.world.opaque import opaque_id
from simulator.world.people import ACTIVE
from simulator.world.roster import Roster
from simulator.world.scale import Scale
from simulator.world.tags import TagBook
from simulator.world.tasks import Packed, able, hand_out

_NO_LIMIT = 2**62
STARTED, RUNNING, DONE = 1, 2, 3
"""Status of a job."""


class MomentRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``moments`` of the rules: counts, seconds and shares."""

    enabled: bool = True
    """False: the corp has no moments (41211)."""
    creations_a_minute: int = 10
    creations_a_month: int = 100_000
    running_jobs: int = 20
    """Jobs at once (41078); the platform documents the code, not the number."""
    senders_a_call: int = 100_000
    job_s: int = 30
    job_life_s: int = 86_400
    dispatching_s: int = 10
    """After the job: until then the tasks cannot be read (41079)."""
    corp_a_month: int = 4
    personal_a_day: int = 3
    seen_share: float = 0.1
    """Of customers who could see a moment."""
    liked_share: float = 0.1
    """Of those who saw it."""
    commented_share: float = 0.02
    answered_share: float = 0.3
    """Of comments, which the publisher answers."""
    reaction_mean_s: int = 7_200


@dataclass(frozen=True, slots=True)
class Order:
    """What an app asks for."""

    text: str
    attachments: Sequence[Mapping[str, Any]]
    staff: Sequence[str]
    departments: Sequence[int]
    tags: Sequence[str]
    everybody: bool
    """No senders are named: all staff."""


@dataclass(slots=True)
class Job:
    """A creation under way."""

    jobid: str
    created_s: int
    moment_id: str = ""
    errcode: int = 0
    """When it is done: 0, or why there is no moment."""
    done: bool = False
    wrong_staff: Sequence[str] = ()
    wrong_departments: Sequence[int] = ()
    wrong_tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Reaction:
    """A like or a comment; ``who`` is a customer's or a staff member's id."""

    time_s: int
    who: str
    by_staff: bool = False


@dataclass(slots=True)
class Publication:
    """One staff member's part of a moment, once published."""

    published_s: int
    range: Collection[str]
    """Customers it was meant for."""
    visible: Collection[str]
    """Those among them who had not had their share already; mostly all of them, and then the same object."""
    likes: list[Reaction]
    comments: list[Reaction]


@dataclass(slots=True)
class Moment:
    """One moment. Times in epoch seconds."""

    moment_id: str
    created_s: int
    text: str
    attachments: Sequence[Mapping[str, Any]]
    tags: frozenset[str]
    """Shown to customers with one of these; empty: to all."""
    tasks: dict[str, Publication | None]
    """By userid; None: not published."""
    creator: str = ""
    """Who made it for themselves; empty: made by an app for the corp."""
    ready_s: int = 0
    cancelled: bool = False


@dataclass(slots=True)
class _Month:
    number: int = -1
    creations: int = 0


class MomentBook:
    """All moments of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = rules = corp.rules_of("moments", MomentRules)
        self.moments: dict[str, Moment] = {}
        self.by_time: list[Moment] = []
        self.jobs: dict[str, Job] = {}
        self._corp = corp
        self._running = self._made = 0
        self._month = _Month()
        self._pace = Throttle(Limits(per_minute=rules.creations_a_minute, per_hour=_NO_LIMIT))
        self._of_corp = Caps("month", rules.corp_a_month)
        self._of_staff = Caps("day", rules.personal_a_day)

    def objection(self, now_s: int, clock_s: float) -> int:
        """Counts a creation; the errcode of what is against it, else 0.

        Too many a minute block for a minute (ApiError 45009, the platform's clock); months are Beijing's.
        """
        self._pace.count("corp:", "add_moment_task", clock_s)
        if not self.rules.enabled:
            return 41211
        if self._corp.of(Scale).over(now_s):
            return 610023
        if self._running >= self.rules.running_jobs:
            return 41078
        if month_of(now_s) != self._month.number:
            self._month = _Month(month_of(now_s))
        return 41210 if self._month.creations >= self.rules.creations_a_month else 0

    def order(self, order: Order, now_s: int) -> Job:
        """Begins a job, which is done after a while, and known for a day."""
        job = Job(opaque_id(self._corp, "job", self._made), now_s)
        self._made += 1
        self.jobs[job.jobid] = job
        self._running += 1
        self._month.creations += 1
        self._corp.schedule.at(now_s + self.rules.job_s, partial(self._finish, job, order))
        self._corp.schedule.at(now_s + self.rules.job_life_s, partial(self._forget, job.jobid))
        return job

    def job_status(self, job: Job, now_s: int) -> int:
        """How far a job is."""
        if job.done:
            return DONE
        return STARTED if now_s < job.created_s + self.rules.job_s / 3 else RUNNING

    def publish(self, moment_id: str, userid: str, time_s: int) -> None:
        """The staff member presses "publish", if that is (still) to be done and they may."""
        moment = self.moments[moment_id]
        if moment.cancelled or moment.tasks[userid] is not None:
            return
        if able(self._corp, userid, time_s, partial(self.publish, moment_id)):
            self._show(moment, userid, time_s)

    def personal(self, staff_id: str, text: str, time_s: int, *, attachments: Sequence[Mapping[str, Any]] = ()) -> str:
        """A staff member publishes a moment of their own for all their customers; its id, empty when they cannot."""
        member = self._corp.people.staff.get(staff_id)
        if member is None or not member.may_reach(time_s) or self._corp.of(Scale).over(time_s):
            return ""
        moment = self._keep(text, attachments, frozenset(), [staff_id], time_s)
        moment.creator, moment.ready_s = staff_id, time_s
        self._show(moment, staff_id, time_s)
        return moment.moment_id

    def between(self, start_s: int, end_s: int) -> list[Moment]:
        """Moments created from ``start_s`` to ``end_s``, both included."""
        first = bisect.bisect_left(self.by_time, start_s, key=_created)
        return self.by_time[first : bisect.bisect_right(self.by_time, end_s, key=_created)]

    def _forget(self, jobid: str, _due_s: int) -> None:
        del self.jobs[jobid]

    def _finish(self, job: Job, order: Order, time_s: int) -> None:
        """Finds out who sends and to whom. Without a sender or, where tags are named, a tag there is no moment."""
        self._running -= 1
        job.done = True
        people, roster, tags = self._corp.people, self._corp.of(Roster), self._corp.of(TagBook)
        senders = {userid: None for userid in order.staff if self._can_send(userid)}
        departments = [number for number in order.departments if number in people.departments]
        if order.everybody:
            departments = []
            senders = {userid: None for userid in people.serving if self._can_send(userid)}
        if departments:
            senders.update((userid, None) for userid in roster.members_of(departments) if self._can_send(userid))
        wanted = [
            tag_id for tag_id in order.tags if (tag := tags.tag(tag_id)) is not None and not tag.group.strategy_id
        ]
        job.wrong_staff = [userid for userid in order.staff if userid not in senders]
        job.wrong_departments = [number for number in order.departments if number not in people.departments]
        job.wrong_tags = [tag_id for tag_id in order.tags if tag_id not in wanted]
        if not senders:
            job.errcode = 40031
        elif order.tags and not wanted:
            job.errcode = 40068
        else:
            moment = self._keep(order.text, order.attachments, frozenset(wanted), list(senders), time_s)
            moment.ready_s = time_s + self.rules.dispatching_s
            job.moment_id = moment.moment_id
            hand_out(
                self._corp, moment.moment_id, moment.tasks, moment.ready_s, partial(self.publish, moment.moment_id)
            )

    def _can_send(self, userid: str) -> bool:
        member = self._corp.people.staff.get(userid)
        return member is not None and member.status == ACTIVE

    def _keep(
        self, text: str, attachments: Sequence[Mapping[str, Any]], tags: frozenset[str], staff: list[str], now_s: int
    ) -> Moment:
        moment_id = opaque_id(self._corp, "mom", len(self.moments))
        moment = Moment(moment_id, now_s, text, attachments, tags, dict.fromkeys(staff))
        self.moments[moment_id] = moment
        bisect.insort(self.by_time, moment, key=_created)
        return moment

    def _show(self, moment: Moment, userid: str, time_s: int) -> None:
        """Publishes to the sender's customers who are friends, and lets some of them see it, like it, comment on it."""
        corp, rules = self._corp, self.rules
        changed, notes = corp.relations.changed, corp.of(Notes)
        chance = corp.random("moment", moment.moment_id, userid)
        caps = self._of_staff if moment.creator else self._of_corp
        publication = Publication(time_s, (), (), [], [])
        meant, visible = [], []
        content = moment.text[:SHOWN_CHARS]
        for customer_id in corp.relations.customers_of(userid):
            pair = changed.get((userid, customer_id))
            if pair is not None and not pair.friend:
                continue
            if moment.tags and moment.tags.isdisjoint(notes.get(userid, customer_id).tags):
                continue
            meant.append(customer_id)
            if not caps.take(customer_id, time_s):
                continue
            visible.append(customer_id)
            if chance.random() < rules.seen_share:
                corp.touch(Touch(time_s, "moment", userid, customer_id, moment.moment_id, content))
                if chance.random() < rules.liked_share:
                    publication.likes.append(Reaction(self._later(chance, time_s), customer_id))
                if chance.random() < rules.commented_share:
                    comment = Reaction(self._later(chance, time_s), customer_id)
                    publication.comments.append(comment)
                    if chance.random() < rules.answered_share:
                        publication.comments.append(Reaction(self._later(chance, comment.time_s), userid, True))
        publication.range = publication.visible = Packed(meant)
        if len(visible) < len(meant):
            publication.visible = Packed(visible)
        publication.likes.sort(key=_when)
        publication.comments.sort(key=_when)
        moment.tasks[userid] = publication

    def _later(self, chance: Random, time_s: int) -> int:
        return time_s + 1 + round(chance.expovariate(1 / max(1, self.rules.reaction_mean_s)))


def _created(moment: Moment) -> int:
    return moment.created_s


def _when(reaction: Reaction) -> tuple[int, str]:
    return reaction.time_s, reaction.who
