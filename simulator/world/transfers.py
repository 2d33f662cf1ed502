"""Inheritance: customers pass from one member to another, 24 hours after somebody asked for it (fact sheet 3.6).

Asking is an API write and tells nobody; what comes of it is told later: the old owner loses the customer
(``DELETE_BY_TRANSFER``, on-job only: who has left cannot lose anybody), the new one is added unless they were friends
or the customer was theirs before, and a failure is told with its reason (fact sheet 1.7, 2.1).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import msgspec

from simulator.world.corp import CorpWorld, Touch
from simulator.world.days import day_start
from simulator.world.people import ACTIVE, LEFT
from simulator.world.relations import MIN_GAP_S, ContactChange
from simulator.world.roster import Roster

Kind = Literal["on_job", "resigned"]
DONE, WAITING, REFUSED, FULL = 1, 2, 3, 4
"""Status of a transfer as the platform lists it."""
ASSIGNED = 202
"""add_way of a customer who was assigned (fact sheet 3.2)."""
DAY_S = 86_400


class TransferRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``transfers``. Days are natural days of Shanghai unless they count an age."""

    after_s: int = 86_400
    """From the request to the take-over."""
    refused_share: float = 0.05
    """Of the customers: refuse the new owner, some time before the take-over."""
    window_days: int = 90
    per_window: int = 2
    """On-job transfers of one customer (40128), and of one group, within the window."""
    resigned_within_days: int = 365
    """Who left longer ago can hand nothing over any more."""
    groups_per_day: int = 300
    """Groups of one owner (fact sheet 4.1)."""
    groups_after_s: int = 86_400
    """From the request to the new owner of a resigned member's group."""


@dataclass(slots=True)
class Transfer:
    """One customer on the way. Seconds."""

    kind: Kind
    handover: str
    takeover: str
    customer: str
    asked_s: int
    due_s: int
    message: str = ""
    status: int = WAITING
    done_s: int = 0


class Transfers:
    """All transfers of one corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self._roster = corp.of(Roster)
        self.rules = corp.rules_of("transfers", TransferRules)
        self._listed: dict[tuple[Kind, str, str], dict[str, Transfer]] = {}
        """(kind, hand-over, take-over) → customer → the newest transfer, in the order of the first one."""
        self._waiting: dict[str, Transfer] = {}
        """By customer."""
        self._asked: dict[str, deque[Transfer]] = {}
        """Customer → on-job transfers of the last window that were not refused."""

    def objection(self, kind: Kind, handover: str, takeover: str, customer: str, now_s: int) -> int:
        """The errcode of an item that cannot be transferred; 0: it can. Both members exist."""
        if handover == takeover:
            return 40130
        staff = self._corp.people.staff
        givers = () if kind == "resigned" else (handover,)
        if any(staff[userid].banned or now_s < staff[userid].banned_until_s for userid in (*givers, takeover)):
            return 40143
        if not all(self._roster.logged_in(userid, now_s) for userid in (*givers, takeover)):
            return 40205
        if customer not in self._corp.people.known:
            return 40096
        pair = self._corp.relations.get(handover, customer)
        if pair is None or not pair.staff_side:
            return 40131
        waiting = self._waiting.get(customer)
        if waiting is not None:
            return 40129 if waiting.kind == "on_job" else 40100
        if kind == "on_job" and self._within_window(customer, now_s) >= self.rules.per_window:
            return 40128
        if self._roster.room(takeover) <= 0 and not self._friends(takeover, customer):
            return 40099
        return 0

    def ask(self, kind: Kind, handover: str, takeover: str, customer: str, now_s: int, message: str = "") -> Transfer:
        """Begins a transfer that nothing objects to."""
        transfer = Transfer(kind, handover, takeover, customer, now_s, now_s + self.rules.after_s, message)
        listed = self._listed.setdefault((kind, handover, takeover), {})
        listed[customer] = self._waiting[customer] = transfer
        if kind == "on_job":
            self._asked.setdefault(customer, deque()).append(transfer)
        chance = self._corp.random("transfer", handover, takeover, customer, now_s)
        refuses = chance.random() < self.rules.refused_share
        refuses_s = now_s + chance.randint(1, max(1, self.rules.after_s - 1))
        if refuses and not self._friends(takeover, customer):
            self._corp.schedule.at(refuses_s, lambda due_s: self._refuse(transfer, due_s))
        self._corp.schedule.at(transfer.due_s, lambda due_s: self._take_over(transfer, due_s))
        return transfer

    def results(self, kind: Kind, handover: str, takeover: str) -> list[Transfer]:
        """The newest transfer of every customer between the two."""
        return list(self._listed.get((kind, handover, takeover), {}).values())

    def unassigned(self, now_s: int, after: tuple[int, str, str] | None, limit: int) -> list[tuple[int, str, str]]:
        """(-second they left, who left, customer) of customers nobody has taken over, newest leavers first.

        At most ``limit`` behind ``after``. Customers on their way are left out, those who refused are back.
        """
        found: list[tuple[int, str, str]] = []
        for negative_s, userid in self._leavers(now_s):
            if after is not None and (negative_s, userid) < after[:2]:
                continue
            for customer in self._corp.relations.customers_of(userid):
                row = (negative_s, userid, customer)
                if (after is None or row > after) and customer not in self._waiting:
                    found.append(row)
                    if len(found) == limit:
                        return found
        return found

    def resigned_in_time(self, userid: str, now_s: int) -> bool:
        """Whether this member has left, and not too long ago."""
        member = self._corp.people.staff[userid]
        return member.status == LEFT and now_s - member.left_s <= self.rules.resigned_within_days * DAY_S

    def window_start_s(self, now_s: int) -> int:
        """The first second of the natural days that count, today being the last of them."""
        return day_start(now_s) - (self.rules.window_days - 1) * DAY_S

    def _leavers(self, now_s: int) -> list[tuple[int, str]]:
        oldest_s = now_s - self.rules.resigned_within_days * DAY_S
        return sorted(
            (-member.left_s, userid)
            for userid, member in self._corp.people.staff.items()
            if member.status == LEFT and member.left_s >= oldest_s
        )

    def _within_window(self, customer: str, now_s: int) -> int:
        asked = self._asked.get(customer)
        if asked is None:
            return 0
        start_s = self.window_start_s(now_s)
        while asked and asked[0].asked_s < start_s:
            asked.popleft()
        return sum(transfer.status in (DONE, WAITING) for transfer in asked)

    def _friends(self, staff_id: str, customer: str) -> bool:
        pair = self._corp.relations.get(staff_id, customer)
        return pair is not None and pair.friend

    def _refuse(self, transfer: Transfer, due_s: int) -> None:
        if transfer.status == WAITING and not self._friends(transfer.takeover, transfer.customer):
            self._fail(transfer, REFUSED, "customer_refused", due_s)

    def _take_over(self, transfer: Transfer, due_s: int) -> None:
        """The 24 hours are over.

        Nothing is documented of a customer who has gone from the old owner meanwhile, or had before, nor of a new owner
        who has left: the customer cannot be asked, which is listed as a refusal. A new owner who may not take anybody
        at the moment (a ban) counts as full.
        """
        if transfer.status != WAITING:
            return
        corp, takeover, customer = self._corp, transfer.takeover, transfer.customer
        if not self._friends(transfer.handover, customer) or corp.people.staff[takeover].status != ACTIVE:
            self._fail(transfer, REFUSED, "customer_refused", due_s)
            return
        before = corp.relations.get(takeover, customer)
        known = before is not None and bool(before.episodes)
        if not self._friends(takeover, customer) and self._roster.room(takeover) <= 0:
            self._fail(transfer, FULL, "customer_limit_exceed", due_s)
            return
        goes = self._change(due_s, transfer.handover, customer, "delete_by_transfer")
        comes = self._change(due_s, takeover, customer, "add", transfer.handover)
        friends = self._friends(takeover, customer)
        if not friends and self._barred(comes):
            self._fail(transfer, FULL, "customer_limit_exceed", due_s)
            return
        if not corp.relations.can(goes) or not (friends or corp.relations.can(comes)):
            # Something else happened to the pair in this second.
            corp.schedule.at(due_s + MIN_GAP_S, lambda later_s: self._take_over(transfer, later_s))
            return
        transfer.status, transfer.done_s = DONE, due_s
        del self._waiting[customer]
        if transfer.kind == "on_job":
            corp.happen(goes)
        else:
            self._unsaid(goes)
        if not friends:
            if known:
                self._unsaid(comes)
            else:
                corp.happen(comes)
        if transfer.kind == "on_job":
            text = transfer.message or _SUCCESS.format(corp.people.staff[takeover].name)
            corp.touch(Touch(due_s, "transfer", takeover, customer, f"{transfer.handover}|{transfer.asked_s}", text))

    def _fail(self, transfer: Transfer, status: int, reason: str, due_s: int) -> None:
        failed = self._change(due_s, transfer.takeover, transfer.customer, "transfer_fail", reason=reason)
        # Nothing is told of a customer the new owner has anyway.
        silent = self._friends(transfer.takeover, transfer.customer) or self._barred(failed)
        if silent or self._corp.happen(failed):
            transfer.status = status
            del self._waiting[transfer.customer]
        else:
            again = due_s + MIN_GAP_S
            self._corp.schedule.at(again, lambda later_s: self._fail(transfer, status, reason, later_s))

    def _barred(self, change: ContactChange) -> bool:
        return any(barred(change) for barred in self._corp.bars)

    def _unsaid(self, change: ContactChange) -> None:
        """A change that no callback tells of; the families of endpoints hear of it all the same."""
        relationship = self._corp.relations.apply(change)
        if not relationship.friend:
            self._corp.welcomes.parted(change.pair)
        for told in self._corp.happened:
            told(change)

    def _change(
        self,
        time_s: int,
        staff_id: str,
        customer: str,
        change: Literal["add", "delete_by_transfer", "transfer_fail"],
        oper: str = "",
        *,
        reason: str = "",
    ) -> ContactChange:
        way = ASSIGNED if change == "add" else 0
        return ContactChange(
            time_s,
            self._corp.corp_id,
            staff_id,
            customer,
            change,
            fail_reason=reason,
            add_way=way,
            oper=oper,
        )


_SUCCESS = "您好，您的服务已升级，后续由同事{}为您服务。"
"""What customers read when the caller wrote nothing."""
