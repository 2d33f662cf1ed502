"""Mass messages (企业群发): a task for staff, who send it or do not, and what became of it for every customer.

Nothing reaches a customer before a staff member confirms. Then each of the task's customers gets status 1 (sent), 2
(not a friend any more) or 3 (has got as many mass messages as the corp's policy lets through); messages the corp makes
and those staff make themselves share that cap (fact sheet 3.4, 5.5).
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import msgspec

from simulator.world.caps import Caps, Period
from simulator.world.corp import CorpWorld, Said, Touch
from simulator.world.days import DAY_S
from simulator.world.groups import Groups
from simulator.world.habits import confirms_after_s, yields_to_reminder
from simulator.world.opaque import opaque_id
from simulator.world.people import ACTIVE
from simulator.world.scale import Scale
from simulator.world.tasks import Packed, able, hand_out

UNSENT, SENT, NOT_A_FRIEND, CAPPED = 0, 1, 2, 3
"""Status of a customer in a task."""

ChatType = Literal["single", "group"]


class MassRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``mass`` of the rules: counts, seconds and shares."""

    receive_period: Period = "month"
    receive_most: int = 0
    """Mass messages a customer or group lets through a period; 0: as many as the month has days, 7 a week, 1 a day."""
    customers_a_call: int = 10_000
    groups_a_call: int = 2_000
    tags_a_group: int = 100
    dispatching_s: int = 60
    """After creation: until then tasks are under way and cannot be read (41063)."""
    reminders: int = 3
    reminders_within_s: int = DAY_S
    reminded_median_s: int = 900
    """Half of those whom a reminder moves have confirmed by then."""
    deselected_share: float = 0.05
    """Of customers, where staff may choose (``allow_select``): not chosen, so never sent."""
    personal_most: int = 20_000
    """Customers that a staff member can choose at once in the client (fact sheet 5.5)."""


@dataclass(slots=True)
class Task:
    """One staff member's part of a message."""

    userid: str
    targets: Collection[str]
    """external_userids, or chat_ids."""
    sent_s: int = 0
    """0: not confirmed."""
    statuses: bytes = b""
    """One for each target, once confirmed."""


@dataclass(slots=True)
class MassMessage:
    """One message and its tasks by userid. Times in epoch seconds."""

    msgid: str
    chat_type: ChatType
    created_s: int
    text: str
    attachments: Sequence[Mapping[str, Any]]
    tasks: dict[str, Task]
    creator: str = ""
    """Userid of the staff member who made it for themselves; empty: made by an app for the corp."""
    allow_select: bool = False
    ready_s: int = 0
    """From when on staff have it."""
    cancelled: bool = False
    reminded_s: list[int] = field(default_factory=list)


class MassBook:
    """All mass messages of one corp, and who talked to whom last."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("mass", MassRules)
        self.messages: dict[str, MassMessage] = {}
        self.by_time: list[MassMessage] = []
        """In order of creation."""
        self._corp = corp
        self._caps = Caps(self.rules.receive_period, self.rules.receive_most)
        self._talked_to: dict[str, str] = {}
        corp.said.append(self._said)

    def create(
        self,
        chat_type: ChatType,
        targets: Mapping[str, Sequence[str]],
        *,
        text: str,
        attachments: Sequence[Mapping[str, Any]],
        allow_select: bool,
        now_s: int,
    ) -> MassMessage:
        """A task for each staff member in ``targets`` (userid → customers or groups)."""
        tasks = {userid: Task(userid, Packed(ids)) for userid, ids in targets.items()}
        message = self._keep(chat_type, tasks, text, attachments, now_s)
        message.allow_select = allow_select
        message.ready_s = now_s + self.rules.dispatching_s
        hand_out(self._corp, message.msgid, tasks, message.ready_s, partial(self.confirm, message.msgid))
        return message

    def personal(
        self,
        staff_id: str,
        targets: Sequence[str],
        text: str,
        time_s: int,
        *,
        chat_type: ChatType = "single",
        attachments: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """A staff member sends a mass message of their own in the client; its msgid, empty when they cannot.

        Raises ValueError for more customers than the client lets them choose.
        """
        if len(targets) > self.rules.personal_most:
            raise ValueError(f"{len(targets)} chosen for a mass message, at most {self.rules.personal_most} can be")
        member = self._corp.people.staff.get(staff_id)
        if member is None or not member.may_reach(time_s) or self._corp.of(Scale).over(time_s):
            return ""
        if chat_type == "single":
            relations = self._corp.relations
            pairs = ((target, relations.get(staff_id, target)) for target in targets)
            targets = [target for target, pair in pairs if pair is not None and pair.staff_side]
        if not targets:
            return ""
        task = Task(staff_id, Packed(targets))
        message = self._keep(chat_type, {staff_id: task}, text, attachments, time_s)
        message.creator, message.ready_s = staff_id, time_s
        self._send(message, task, time_s)
        return message.msgid

    def confirm(self, msgid: str, userid: str, time_s: int) -> None:
        """The staff member presses "send", if there is something (more) to send and they may."""
        message = self.messages[msgid]
        task = message.tasks[userid]
        if message.cancelled or task.sent_s:
            return
        if able(self._corp, userid, time_s, partial(self.confirm, msgid)):
            self._send(message, task, time_s)

    def remind(self, message: MassMessage, now_s: int) -> bool:
        """Reminds whoever has not confirmed; False past the limit."""
        recent = [at_s for at_s in message.reminded_s if now_s - at_s < self.rules.reminders_within_s]
        if len(recent) >= self.rules.reminders:
            return False
        message.reminded_s.append(now_s)
        number = len(message.reminded_s)
        corp, rate = self._corp, 1 / max(1, self.rules.reminded_median_s)
        for task in message.tasks.values():
            if task.sent_s or confirms_after_s(corp, task.userid, message.msgid) is not None:
                continue
            if yields_to_reminder(corp, task.userid, message.msgid, number):
                delay = corp.random("after reminder", task.userid, message.msgid, number).expovariate(rate * _LN_2)
                confirm = partial(self.confirm, message.msgid, task.userid)
                corp.schedule.at(now_s + 1 + round(delay), confirm)
        return True

    def between(self, start_s: int, end_s: int) -> list[MassMessage]:
        """Messages created from ``start_s`` to ``end_s``, both included."""
        first = bisect.bisect_left(self.by_time, start_s, key=_created)
        return self.by_time[first : bisect.bisect_right(self.by_time, end_s, key=_created)]

    def chats_of(self, userid: str) -> dict[str, None]:
        """chat_ids of the groups that somebody leads, in order of their founding."""
        return {group.chat_id: None for group in self._corp.of(Groups).owned_by(userid) if not group.dismissed_s}

    def last_talked(self, customer_id: str) -> str:
        """The staff member who interacted with a customer last: wrote or was written to, else became a friend last.

        Empty when no active staff member has the customer.
        """
        staff = self._corp.people.staff
        followers = [
            (pair.episodes[-1].started_s if pair.episodes else 0, staff_id)
            for staff_id, pair in self._corp.relations.followers_of(customer_id)
            if staff_id in staff and staff[staff_id].status == ACTIVE
        ]
        talked = self._talked_to.get(customer_id, "")
        if any(staff_id == talked for _, staff_id in followers):
            return talked
        return max(followers, default=(0, ""))[1]

    def _keep(
        self,
        chat_type: ChatType,
        tasks: dict[str, Task],
        text: str,
        attachments: Sequence[Mapping[str, Any]],
        now_s: int,
    ) -> MassMessage:
        msgid = opaque_id(self._corp, "msg", len(self.messages))
        message = self.messages[msgid] = MassMessage(msgid, chat_type, now_s, text, attachments, tasks)
        bisect.insort(self.by_time, message, key=_created)
        return message

    def _send(self, message: MassMessage, task: Task, time_s: int) -> None:
        task.sent_s = time_s
        share = self.rules.deselected_share if message.allow_select else 0.0
        chance = self._corp.random("deselects", task.userid, message.msgid)
        statuses = bytearray()
        sent: list[str] = []
        fit: Container[str] = (
            _Friends(self._corp, task.userid) if message.chat_type == "single" else self.chats_of(task.userid)
        )
        for target in task.targets:
            if share and chance.random() < share:
                statuses.append(UNSENT)
            elif target not in fit:
                statuses.append(NOT_A_FRIEND)
            elif not self._caps.take(target, time_s):
                statuses.append(CAPPED)
            else:
                statuses.append(SENT)
                sent.append(target)
        task.statuses = bytes(statuses)
        self._touch(message, task.userid, sent, time_s)

    def _touch(self, message: MassMessage, userid: str, sent: Iterable[str], time_s: int) -> None:
        content = (message.text or _title(message.attachments))[:SHOWN_CHARS]
        for target in sent:
            if message.chat_type == "single":
                self._corp.touch(Touch(time_s, "mass", userid, target, message.msgid, content))
            else:
                group = self._corp.of(Groups).get(target)
                for member_id in group.now.members if group is not None else ():
                    if member_id not in self._corp.people.staff:
                        self._corp.touch(Touch(time_s, "group", userid, member_id, message.msgid, content))

    def _said(self, said: Said) -> None:
        self._talked_to[said.customer_id] = said.staff_id


class _Friends(Container[str]):
    """Who of a task's customers are friends: they were the member's when it was made, so those to whom nothing has
    happened since the opening still are, and need no look into it."""

    def __init__(self, corp: CorpWorld, userid: str) -> None:
        self._changed = corp.relations.changed
        self._userid = userid

    def __contains__(self, customer_id: object) -> bool:
        pair = self._changed.get((self._userid, customer_id))  # type: ignore[arg-type]
        return pair is None or pair.friend


_LN_2 = 0.693_147
SHOWN_CHARS = 40
"""How much of a text a Touch remembers."""


def _created(message: MassMessage) -> int:
    return message.created_s


def _title(attachments: Sequence[Mapping[str, Any]]) -> str:
    for attachment in attachments:
        content = attachment.get(str(attachment.get("msgtype")))
        if isinstance(content, dict) and isinstance(content.get("title"), str):
            return str(content["title"])
    return ""
