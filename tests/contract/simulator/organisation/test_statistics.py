"""Numbers of days, counted from what really happened; yesterday's come in the morning."""

import pytest

from simulator.world.corp import Complaint, Said
from simulator.world.days import day_start
from simulator.world.relations import ContactChange

DAY_S = 86_400
BEHAVIOUR = "externalcontact/get_user_behavior_data"
BY_OWNER = "externalcontact/groupchat/statistic"
BY_DAY = "externalcontact/groupchat/statistic_group_by_day"


def say(org, staff, customer, *, by_customer, at_s=None):
    org.corp.say(Said(at_s or org.now_s, staff, customer, by_customer))


async def rows(org, first, last, userids=("s1",), **more):
    body = {"userid": list(userids), "start_time": first, "end_time": last, **more}
    return (await org.ok(BEHAVIOUR, body))["behavior_data"]


def noon_after_tomorrow(org, day):
    """Moves the clock to where a day's numbers can be read."""
    org.advance(day + DAY_S + 12 * 3_600 - org.now_s)


@pytest.mark.covers("externalcontact/get_user_behavior_data")
async def test_a_members_day(org):
    """3.8: contacts, applications, chats, messages, answers and negative feedback of one day."""
    day = day_start(org.now_s)
    org.friends("s1", "wmC3", "wmC4")
    event = ContactChange(org.now_s, org.corp.corp_id, "s1", "wmC5", "add", oper="s1")
    assert org.corp.happen(event)
    say(org, "s1", "wmC3", by_customer=True)
    say(org, "s1", "wmC3", by_customer=False, at_s=org.now_s + 240)
    say(org, "s1", "wmC3", by_customer=False, at_s=org.now_s + 250)
    say(org, "s1", "wmC4", by_customer=True)
    say(org, "s1", "wmC2", by_customer=True)
    say(org, "s1", "wmC2", by_customer=False, at_s=org.now_s + 120)
    say(org, "s1", "wmC5", by_customer=False)
    org.advance(300)
    org.friends("s1", "wmC4", change="delete_by_customer")
    org.corp.complain(Complaint(org.now_s, "s1", "wmC4"))
    org.corp.complain(Complaint(org.now_s, "s1", "wmC3"))
    noon_after_tomorrow(org, day)
    (row,) = await rows(org, day, day)
    assert row == {
        "stat_time": day,
        "new_contact_cnt": 4,  # with wmC2 of the rig's story
        "new_apply_cnt": 1,
        "chat_cnt": 3,
        "message_cnt": 4,
        "reply_percentage": 66.67,
        "avg_reply_time": 3,
        "negative_feedback_cnt": 2,
    }


async def test_shares_only_where_there_were_chats(org):
    """3.8: reply_percentage and avg_reply_time are absent on a day on which no customer began a chat."""
    day = day_start(org.now_s)
    say(org, "s1", "wmC2", by_customer=False)
    noon_after_tomorrow(org, day)
    (row,) = await rows(org, day, day)
    assert row["chat_cnt"] == 1
    assert not {"reply_percentage", "avg_reply_time"} & row.keys()


async def test_several_members_are_one_series(org):
    """3.8: several userids and parties are aggregated, everybody once."""
    day = day_start(org.now_s)
    org.friends("s4", "wmC3")
    org.friends("s5", "wmC3", "wmC4")
    noon_after_tomorrow(org, day)
    (row,) = await rows(org, day, day, ("s4", "s5"))
    assert row["new_contact_cnt"] == 3
    (row,) = await rows(org, day, day, ("s4",), partyid=[2])  # department 3, where s5 works, is below 2
    assert row["new_contact_cnt"] == 3


@pytest.mark.covers("fact:6.12")
@pytest.mark.parametrize("zero_share", [0.0, 1.0])
async def test_yesterdays_row_comes_in_the_morning(org, zero_share):
    """6.12: in the small hours yesterday is missing or zero, today is never there."""
    org.statistics(zero_share=zero_share)
    day = day_start(org.now_s)
    assert await rows(org, day, day) == []
    org.advance(day + DAY_S + 60 - org.now_s)
    early = await rows(org, day, day + DAY_S)
    assert [(r["stat_time"], r["new_contact_cnt"]) for r in early] == ([(day, 0)] if zero_share else [])
    org.advance(8 * 3_600)
    assert [(r["stat_time"], r["new_contact_cnt"]) for r in await rows(org, day, day + DAY_S)] == [(day, 1)]


async def test_times_are_floored_and_the_interval_is_closed(org):
    """3.8: start and end are cut to midnight; 30 days at most, of the last 180."""
    today = day_start(org.now_s)
    found = await rows(org, today - 3 * DAY_S + 5, today - 2 * DAY_S + 7)
    assert [r["stat_time"] for r in found] == [today - 3 * DAY_S, today - 2 * DAY_S]
    assert len(await rows(org, today - 30 * DAY_S, today - DAY_S)) == 30
    assert len(await rows(org, today - 180 * DAY_S, today - 180 * DAY_S)) == 1


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"userid": []}, 40058),
        ({"userid": ["nobody"]}, 60111),
        ({"userid": [f"s{n}" for n in range(101)]}, 40032),
        ({"userid": "s1"}, 40035),
        ({"partyid": [77]}, 60123),
        ({"partyid": ["1"]}, 40035),
        ({"start_time": None}, 40058),
        ({"end_time": None}, 40058),
        ({"end_time": 1}, 40035),
        ({"start_time": -181}, 40035),
        ({"start_time": -30}, 40035),
    ],
)
async def test_what_the_statistics_refuse(org, change, errcode):
    """3.8: members or parties that exist, at most 100 each, and a window within the limits."""
    change = {name: org.now_s + value * DAY_S if value in (-181, -30) else value for name, value in change.items()}
    body = {"userid": ["s1"], "start_time": org.now_s, "end_time": org.now_s, **change}
    answer = await org.wecom.post(BEHAVIOUR, body)
    assert (answer["errcode"], answer["behavior_data"]) == (errcode, [])


async def busy_groups(org):
    """Two owners, three groups; the first one talks and grows, the last one ends the day after."""
    groups, day = org.groups(), day_start(org.now_s)
    first = groups.create("s1", ["wmC1", "s2"], org.now_s)
    groups.create("s1", ["wmC3"], org.now_s, migrated=True)
    last = groups.create("s2", ["wmC4"], org.now_s)
    for member in ("wmC1", "wmC1", "s1"):
        assert groups.say(first, member, org.now_s)
    assert not groups.say(first, "wmC9", org.now_s)
    org.advance(DAY_S)
    groups.scan(first, "wmC5", org.now_s)
    groups.dismiss(last, org.now_s)
    noon_after_tomorrow(org, day + DAY_S)
    return day


@pytest.mark.covers("externalcontact/groupchat/statistic")
async def test_groups_by_owner(org):
    """3.8: groups, members and messages of each owner over some days, in the order asked for."""
    day = await busy_groups(org)
    body = {"day_begin_time": day, "day_end_time": day + DAY_S, "owner_filter": {"userid_list": ["s2", "s1", "s3"]}}
    answer = await org.ok(BY_OWNER, body)
    assert (answer["total"], answer["next_offset"]) == (2, 2)
    assert [item["owner"] for item in answer["items"]] == ["s1", "s2"]
    assert answer["items"][0]["data"] == {
        "new_chat_cnt": 2,
        "chat_total": 2,
        "chat_has_msg": 1,
        "new_member_cnt": 6,
        "member_total": 6,
        "member_has_msg": 2,
        "msg_total": 3,
        "migrate_trainee_chat_cnt": 1,
    }
    assert answer["items"][1]["data"]["chat_total"] == 0
    ascending = await org.ok(BY_OWNER, {**body, "order_by": 4, "order_asc": 1, "limit": 1, "offset": 1})
    assert ([item["owner"] for item in ascending["items"]], ascending["next_offset"]) == (["s1"], 2)
    one_day = await org.ok(BY_OWNER, {"day_begin_time": day, "owner_filter": {"userid_list": ["s2"]}})
    assert one_day["items"][0]["data"]["chat_total"] == 1


@pytest.mark.covers("externalcontact/groupchat/statistic_group_by_day")
async def test_groups_by_day(org):
    """3.8: the same numbers of all owners together, a row a day, yesterday's in the morning."""
    day = await busy_groups(org)
    body = {
        "day_begin_time": day,
        "day_end_time": day + 3 * DAY_S,
        "owner_filter": {"userid_list": ["s1", "s2"]},
    }
    items = (await org.ok(BY_DAY, body))["items"]
    assert [(i["stat_time"], i["data"]["new_member_cnt"], i["data"]["chat_total"]) for i in items] == [
        (day, 7, 3),
        (day + DAY_S, 1, 2),
    ]


@pytest.mark.parametrize("path", [BY_OWNER, BY_DAY])
@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"owner_filter": None}, 40058),
        ({"owner_filter": {"userid_list": []}}, 40058),
        ({"owner_filter": {"userid_list": ["nobody"]}}, 60111),
        ({"owner_filter": {"userid_list": [f"s{n}" for n in range(101)]}}, 40032),
        ({"day_begin_time": None}, 40058),
        ({"day_begin_time": "x"}, 40035),
        ({"day_end_time": 1}, 40035),
    ],
)
async def test_what_group_statistics_refuse(org, path, change, errcode):
    """3.8: owner_filter is required, 1 to 100 of them."""
    body = {"day_begin_time": org.now_s, "owner_filter": {"userid_list": ["s1"]}, **change}
    answer = await org.wecom.post(path, body)
    assert (answer["errcode"], answer["items"]) == (errcode, [])
