"""What members did, day by day (fact sheet 3.8)."""

from __future__ import annotations

from typing import Any

from simulator.platform import fields
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.days import DAY_S, day_start
from simulator.world.roster import Roster
from simulator.world.statistics import StaffDay, Statistics

API = Api()
ALWAYS = (Statistics,)

_MOST = 100


@API.post("externalcontact/get_user_behavior_data", behavior_data=[])
def get_user_behavior_data(call: Call) -> Answer:
    """The days of one member, or of several together. Yesterday's row comes in the morning."""
    staff_ids = fields.texts(call.body, "userid", most=_MOST)
    parties = fields.wholes(call.body, "partyid", most=_MOST)
    if not staff_ids and not parties:
        raise ApiError(40058)
    people = call.corp.people
    if any(staff_id not in people.staff for staff_id in staff_ids):
        raise ApiError(60111)
    if any(party not in people.departments for party in parties):
        raise ApiError(60123)
    first, last = window(call, "start_time", "end_time")
    members = dict.fromkeys([*staff_ids, *(call.corp.of(Roster).members_of(parties) if parties else ())])
    return {"behavior_data": [_row(day_s, day) for day_s, day in _days(call, first, last, members)]}


def _days(call: Call, first: int, last: int, members: dict[str, None]) -> list[tuple[int, StaffDay]]:
    statistics = call.corp.of(Statistics)
    found = []
    for day_s in range(first, last + 1, DAY_S):
        if statistics.ready(day_s, call.now_s):
            found.append((day_s, statistics.of_day(day_s, members)))
        elif statistics.zero_until_ready(day_s, call.now_s):
            found.append((day_s, StaffDay()))
    return found


def _row(day_s: int, day: StaffDay) -> dict[str, Any]:
    """Shares and times only where there is something to divide by."""
    row: dict[str, Any] = {
        "stat_time": day_s,
        "chat_cnt": day.chats,
        "message_cnt": day.messages,
        "negative_feedback_cnt": day.negative,
        "new_apply_cnt": day.applications,
        "new_contact_cnt": day.contacts,
    }
    if day.begun:
        row["reply_percentage"] = round(100 * day.answered / day.begun, 2)
        row["avg_reply_time"] = round(day.answer_s / day.answered / 60) if day.answered else 0
    return row


def window(call: Call, start: str, end: str, *, end_missing_is_start: bool = False) -> tuple[int, int]:
    """First and last day of a closed interval as midnights: at most 30 days, of the last 180. Raises ApiError 40035."""
    start_s = fields.whole(call.body, start, least=0)
    end_s = fields.whole(call.body, end, default=start_s if end_missing_is_start else None, least=0)
    rules = call.corp.of(Statistics).rules
    first, last = day_start(start_s), day_start(end_s)
    oldest = day_start(call.now_s) - rules.oldest_days * DAY_S
    if end_s < start_s or (last - first) // DAY_S >= rules.longest_days or first < oldest:
        raise ApiError(40035)
    return first, last
