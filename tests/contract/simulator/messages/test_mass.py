"""Mass messages: tasks for staff, what becomes of them, and how much a customer lets through."""

import pytest

from simulator.world.corp import Said
from simulator.world.groups import Groups
from simulator.world.mass import MassBook
from simulator.world.people import LEFT, NOT_ACTIVATED

from .conftest import CUSTOMERS, IDLE, OVER_SCALE, PROMPT, START_S

TEXT = {"content": "新品到店"}
DAY_S = 86_400
prompt = pytest.mark.parametrize("platform_rules", [PROMPT], indirect=True)
idle = pytest.mark.parametrize("platform_rules", [IDLE], indirect=True)


@prompt
@pytest.mark.covers("externalcontact/add_msg_template", "externalcontact/get_groupmsg_send_result", "fact:6.8")
async def test_nothing_reaches_a_customer_before_the_staff_member_confirms(shop):
    """3.4: it only creates a task; nothing reaches customers until staff confirm in the client."""
    msgid = await shop.send(sender="s1", external_userid=["wmC1", "wmC2"])
    assert await shop.results(msgid, "s1") == {"wmC1": 0, "wmC2": 0}
    assert shop.touches("mass") == []
    shop.advance(600)
    assert await shop.results(msgid, "s1") == {"wmC1": 1, "wmC2": 1}
    assert [(t.customer_id, t.staff_id, t.ref, t.content) for t in shop.touches("mass")] == [
        ("wmC1", "s1", msgid, "新品到店"),
        ("wmC2", "s1", msgid, "新品到店"),
    ]


@prompt
@pytest.mark.covers("externalcontact/add_msg_template", "fact:6.8")
async def test_a_mass_message_causes_no_callback(shop):
    """1.7: what is done through the API is told to nobody."""
    told = sum(shop.world.emitted.values())
    await shop.send(sender="s1", external_userid=["wmC1"])
    shop.advance(600)
    assert sum(shop.world.emitted.values()) == told


@pytest.mark.covers("externalcontact/get_groupmsg_task")
async def test_the_tasks_of_a_new_message_are_still_under_way(shop):
    """3.4: get_groupmsg_task right after creation may give 41063."""
    msgid = (await shop.call("add_msg_template", sender="s1", text=TEXT))["msgid"]
    for name in ("get_groupmsg_task", "get_groupmsg_send_result", "remind_groupmsg_send"):
        assert await shop.code(name, msgid=msgid, userid="s1") == 41063
    shop.advance(60)
    assert await shop.code("get_groupmsg_task", msgid=msgid) == 0


@prompt
@pytest.mark.covers("externalcontact/get_groupmsg_task", "fact:6.8")
async def test_a_task_tells_who_has_confirmed_and_when(shop):
    """3.4: task_list with status 0 unsent or 2 sent; send_time only with the latter."""
    msgid = await shop.send(external_userid=CUSTOMERS)
    created = shop.now_s
    tasks = (await shop.call("get_groupmsg_task", msgid=msgid))["task_list"]
    assert tasks == [{"userid": "s1", "status": 0}, {"userid": "s2", "status": 0}]
    shop.advance(600)
    tasks = (await shop.call("get_groupmsg_task", msgid=msgid))["task_list"]
    assert tasks == [{"userid": u, "status": 2, "send_time": created + 600} for u in ("s1", "s2")]


@idle
async def test_some_staff_never_confirm(shop):
    """3.4: nothing reaches customers until staff confirm, who may never do it."""
    msgid = await shop.send(sender="s1")
    shop.advance(30 * DAY_S)
    assert (await shop.call("get_groupmsg_task", msgid=msgid))["task_list"] == [{"userid": "s1", "status": 0}]


@pytest.mark.covers("externalcontact/add_msg_template")
async def test_without_a_sender_the_task_goes_to_whoever_interacted_last(shop):
    """3.4: without sender the task goes to the staff member who last interacted with each customer."""
    shop.world.say(Said(shop.now_s, "s1", "wmC21", by_customer=True))
    msgid = await shop.send(external_userid=["wmC1", "wmC11", "wmC21", "wmC22"])
    assert set(await shop.results(msgid, "s1")) == {"wmC1", "wmC21"}
    assert set(await shop.results(msgid, "s2")) == {"wmC11", "wmC22"}, "s2 added wmC22 last"


async def test_who_wrote_last_but_lost_the_customer_does_not_get_the_task(shop):
    """3.4: the staff member who last interacted, of those who have the customer."""
    shop.world.say(Said(shop.now_s, "s1", "wmC22", by_customer=False))
    shop.wecom.happen("delete_by_staff", staff="s1", customer="wmC22", at_s=90)
    msgid = await shop.send(external_userid=["wmC22"])
    assert set(await shop.results(msgid, "s2")) == {"wmC22"}


@pytest.mark.covers("externalcontact/add_msg_template")
async def test_a_sender_alone_means_all_customers_of_that_member(shop):
    """3.4: sender alone = all customers of that member."""
    msgid = await shop.send(sender="s2")
    assert list(await shop.results(msgid, "s2")) == sorted(CUSTOMERS[10:])


@pytest.mark.covers("externalcontact/add_msg_template")
async def test_customers_who_cannot_be_sent_to_are_in_the_fail_list(shop):
    """3.4: fail_list has the ids that cannot be sent; when that is all of them, 41048."""
    answer = await shop.call("add_msg_template", sender="s1", external_userid=["wmC1", "wmC11", "wmNobody"], text=TEXT)
    assert (answer["errcode"], answer["fail_list"]) == (0, ["wmC11", "wmNobody"])
    answer = await shop.call("add_msg_template", sender="s1", external_userid=["wmC11", "wmNobody"], text=TEXT)
    assert (answer["errcode"], answer["fail_list"], answer["msgid"]) == (41048, ["wmC11", "wmNobody"], "")
    assert await shop.code("add_msg_template", sender="s3", text=TEXT) == 41048, "s3 has no customer"


@pytest.mark.covers("externalcontact/add_msg_template")
async def test_tags_are_or_inside_a_group_and_and_across_groups(shop):
    """3.4: tag_filter: OR inside a group, AND across groups; ignored if external_userid is given."""
    taste = shop.tag(["猫", "狗"], {"wmC1": ["猫"], "wmC2": ["狗"], "wmC3": ["猫"]})
    level = shop.tag(["金"], {"wmC1": ["金"], "wmC2": ["金"], "wmC4": ["金"]}, group="等级")
    either = {"group_list": [{"tag_list": list(taste.values())}, {"tag_list": [level["金"]]}]}
    msgid = await shop.send(sender="s1", tag_filter=either)
    assert set(await shop.results(msgid, "s1")) == {"wmC1", "wmC2"}
    msgid = await shop.send(sender="s1", tag_filter=either, external_userid=["wmC9"])
    assert set(await shop.results(msgid, "s1")) == {"wmC9"}
    nobody = {"group_list": [{"tag_list": [taste["狗"]]}, {"tag_list": [taste["猫"]]}]}
    assert await shop.code("add_msg_template", sender="s1", tag_filter=nobody, text=TEXT) == 41048


@prompt
async def test_who_is_no_friend_any_more_ends_as_status_2(shop):
    """3.4: send_list status 2: failed, not a friend; whichever side ended it, before or after the task."""
    msgid = await shop.send(sender="s1", external_userid=["wmC1", "wmC2", "wmC3", "wmC30"])
    shop.wecom.happen("delete_by_customer", customer="wmC1", at_s=200)
    shop.wecom.happen("delete_by_staff", customer="wmC2", at_s=201)
    shop.advance(600)
    assert await shop.results(msgid, "s1") == {"wmC1": 2, "wmC2": 2, "wmC3": 1, "wmC30": 2}
    rows = (await shop.call("get_groupmsg_send_result", msgid=msgid, userid="s1"))["send_list"]
    assert [row["external_userid"] for row in rows if "send_time" in row] == ["wmC3"]
    assert [t.customer_id for t in shop.touches("mass")] == ["wmC3"]


async def sent_until_capped(shop, days: list[int]) -> list[int]:
    """Sends to wmC1 on each of these days after today, tells each message's status."""
    found, start = [], shop.now_s
    for day in days:
        shop.advance(max(0, start + day * DAY_S - shop.now_s))
        msgid = await shop.send(sender="s1", external_userid=["wmC1"])
        shop.advance(600)
        found.append((await shop.results(msgid, "s1"))["wmC1"])
    return found


@pytest.mark.parametrize("platform_rules", [PROMPT], indirect=True)
@pytest.mark.covers("fact:6.8")
async def test_a_customer_gets_as_many_a_month_as_it_has_days(shop):
    """3.4: receive cap by default: per month as many as the month has days; over it status 3, no error at creation."""
    assert await sent_until_capped(shop, [0] * 31 + [1, 22, 23]) == [1] * 31 + [3, 3, 1], "1 November is day 23"


@pytest.mark.parametrize("platform_rules", [{**PROMPT, "mass": {"receive_period": "week"}}], indirect=True)
@pytest.mark.covers("fact:6.8")
async def test_a_corp_may_let_seven_a_week_through(shop):
    """3.4: the admin may switch to 7 per week; a week begins on Monday, here day 4."""
    assert await sent_until_capped(shop, [0] * 7 + [1, 3, 4]) == [1] * 7 + [3, 3, 1]


@pytest.mark.parametrize("platform_rules", [{**PROMPT, "mass": {"receive_period": "day"}}], indirect=True)
@pytest.mark.covers("fact:6.8")
async def test_a_corp_may_let_one_a_day_through(shop):
    """3.4: the admin may switch to 1 per day; days are Beijing's."""
    assert await sent_until_capped(shop, [0, 0, 1]) == [1, 3, 1]


@pytest.mark.parametrize("platform_rules", [{**PROMPT, "mass": {"receive_most": 4}}], indirect=True)
@pytest.mark.covers("fact:6.8")
async def test_older_corps_let_four_a_month_through(shop):
    """3.4: older texts say 4 per natural month; the policy is configuration."""
    assert await sent_until_capped(shop, [0] * 5) == [1, 1, 1, 1, 3]


@pytest.mark.parametrize("platform_rules", [{**PROMPT, "mass": {"receive_period": "day"}}], indirect=True)
async def test_what_staff_send_by_themselves_counts_for_the_same_cap(shop):
    """5.5: the cap is shared by corp-created and staff-created messages."""
    own = shop.world.of(MassBook).personal("s2", ["wmC21", "wmC1"], "自己发的", shop.now_s)
    msgid = await shop.send(sender="s1", external_userid=["wmC21", "wmC1"])
    shop.advance(600)
    assert await shop.results(own, "s2") == {"wmC21": 1}, "wmC1 is no customer of s2"
    assert await shop.results(msgid, "s1") == {"wmC21": 3, "wmC1": 1}


async def test_a_banned_member_sends_when_the_ban_is_over(shop):
    """5.6: mass sending is disabled for who is banned; who has left never sends."""
    shop.world.people.staff["s1"].banned_until_s = shop.now_s + 10 * DAY_S
    shop.world.people.staff["s2"].status = LEFT
    book = shop.world.of(MassBook)
    assert book.personal("s1", ["wmC1"], "x", shop.now_s) == ""
    assert book.personal("s2", ["wmC11"], "x", shop.now_s) == ""
    with pytest.raises(ValueError, match="20001 chosen"):
        book.personal("s3", ["wmC1"] * 20_001, "x", shop.now_s)


@prompt
async def test_a_task_waits_for_the_end_of_a_ban(shop):
    """5.6: bans of 24 hours disable mass sending."""
    msgid = await shop.send(sender="s1", external_userid=["wmC1"])
    shop.world.people.staff["s1"].banned_until_s = until = shop.now_s + DAY_S
    shop.advance(DAY_S - 1)
    assert await shop.results(msgid, "s1") == {"wmC1": 0}
    shop.advance(1)
    rows = (await shop.call("get_groupmsg_send_result", msgid=msgid, userid="s1"))["send_list"]
    assert rows == [{"external_userid": "wmC1", "userid": "s1", "status": 1, "send_time": until}]


@idle
@pytest.mark.covers("externalcontact/remind_groupmsg_send", "fact:6.8")
async def test_a_reminder_makes_some_confirm(shop):
    """3.4: remind_groupmsg_send reminds whoever has not confirmed."""
    msgid = await shop.send(sender="s1", external_userid=["wmC1"])
    assert await shop.code("remind_groupmsg_send", msgid=msgid) == 0
    shop.advance(DAY_S)
    assert await shop.results(msgid, "s1") == {"wmC1": 1}


@pytest.mark.covers("externalcontact/remind_groupmsg_send", "fact:6.8")
async def test_three_reminders_in_24_hours(shop):
    """3.4: at most 3 reminders per message per 24 h, else 41094."""
    msgid, other = await shop.send(sender="s1"), await shop.send(sender="s2")
    assert [await shop.code("remind_groupmsg_send", msgid=msgid) for _ in range(4)] == [0, 0, 0, 41094]
    assert await shop.code("remind_groupmsg_send", msgid=other) == 0
    shop.advance(DAY_S - 1)
    assert await shop.code("remind_groupmsg_send", msgid=msgid) == 41094
    shop.advance(1)
    assert await shop.code("remind_groupmsg_send", msgid=msgid) == 0


@prompt
@pytest.mark.covers("externalcontact/cancel_groupmsg_send", "fact:6.8")
async def test_cancelling_stops_the_unsent_only(shop):
    """3.4: cancel stops unsent only, cannot recall; later operations 41093."""
    msgid = await shop.send(sender="s1", external_userid=["wmC1"])
    shop.advance(600)
    late = await shop.send(sender="s1", external_userid=["wmC2"])
    for one in (msgid, late):
        assert await shop.code("cancel_groupmsg_send", msgid=one) == 0
        assert await shop.code("cancel_groupmsg_send", msgid=one) == 41093
        assert await shop.code("remind_groupmsg_send", msgid=one) == 41093
    shop.advance(DAY_S)
    assert await shop.results(msgid, "s1") == {"wmC1": 1}
    assert await shop.results(late, "s1") == {"wmC2": 0}


@pytest.mark.covers("externalcontact/get_groupmsg_list_v2")
async def test_the_list_tells_the_corps_messages_from_those_of_staff(shop):
    """3.4: filter_type 0 corp, 1 personal, 2 all; creator is absent for API-made ones; create_type 0 or 1."""
    media = [{"msgtype": "image", "image": {"media_id": await shop.media_id()}}]
    made = shop.now_s
    msgid = await shop.send(sender="s1", attachments=media)
    own = shop.world.of(MassBook).personal("s2", ["wmC11"], "自己发的", shop.now_s)

    async def listed(**more) -> list[dict]:
        window = {"start_time": START_S, "end_time": START_S + DAY_S}
        return (await shop.call("get_groupmsg_list_v2", chat_type="single", **window, **more))["group_msg_list"]

    by_corp = {"msgid": msgid, "create_time": made, "create_type": 0, "text": TEXT, "attachments": media}
    assert await listed(filter_type=0) == [by_corp]
    [by_staff] = await listed(filter_type=1)
    assert (by_staff["msgid"], by_staff["creator"], by_staff["create_type"]) == (own, "s2", 1)
    assert await listed() == [by_corp, by_staff]
    assert await listed(creator="s2") == [by_staff]
    assert await listed(creator="s1") == []
    assert await shop.code("remind_groupmsg_send", msgid=own) == 41047, "a message of one's own is no task"


@pytest.mark.covers("externalcontact/get_groupmsg_list_v2", "fact:6.10")
async def test_the_list_comes_in_pages(shop):
    """3.4: limit at most 100, 50 if not said; next_cursor is empty at the end."""
    for _ in range(60):
        await shop.call("add_msg_template", sender="s1", text=TEXT)
    window = {"chat_type": "single", "start_time": START_S, "end_time": START_S + DAY_S}
    first = await shop.call("get_groupmsg_list_v2", **window)
    second = await shop.call("get_groupmsg_list_v2", **window, cursor=first["next_cursor"])
    assert [len(page["group_msg_list"]) for page in (first, second)] == [50, 10]
    assert second["next_cursor"] == ""
    assert len((await shop.call("get_groupmsg_list_v2", **window, limit=1_000))["group_msg_list"]) == 60
    assert (
        await shop.code("get_groupmsg_list_v2", **{**window, "chat_type": "group"}, cursor=first["next_cursor"])
        == 50100
    )


@pytest.mark.covers("externalcontact/get_groupmsg_send_result", "externalcontact/get_groupmsg_task", "fact:6.10")
async def test_tasks_and_results_come_in_pages(shop):
    """3.4: limit and cursor of get_groupmsg_task and get_groupmsg_send_result."""
    msgid = await shop.send(external_userid=CUSTOMERS)
    seen, cursor = [], ""
    for expected in (7, 7, 6):
        page = await shop.call("get_groupmsg_send_result", msgid=msgid, userid="s2", limit=7, cursor=cursor)
        assert len(page["send_list"]) == expected
        seen += [row["external_userid"] for row in page["send_list"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == (CUSTOMERS[10:], "")
    first = await shop.call("get_groupmsg_task", msgid=msgid, limit=1)
    assert [row["userid"] for row in first["task_list"]] == ["s1"]
    second = await shop.call("get_groupmsg_task", msgid=msgid, limit=1, cursor=first["next_cursor"])
    assert ([row["userid"] for row in second["task_list"]], second["next_cursor"]) == (["s2"], "")


@prompt
@pytest.mark.covers("externalcontact/add_msg_template", "externalcontact/get_groupmsg_send_result", "fact:6.8")
async def test_a_message_to_groups_goes_to_those_the_sender_leads(shop):
    """3.4: chat_type group: sender required, chat_id_list; group mode lists only sent rows."""
    mine, other, theirs = shop.group(), shop.group(customers=["wmC3"]), shop.group("s2", ["wmC11"])
    answer = await shop.call("add_msg_template", chat_type="group", sender="s1", chat_id_list=[mine, theirs], text=TEXT)
    assert (answer["errcode"], answer["fail_list"]) == (0, [theirs])
    everything = await shop.send(chat_type="group", sender="s1")
    assert await shop.results(answer["msgid"], "s1") == {}
    shop.advance(660)
    assert await shop.results(answer["msgid"], "s1") == {mine: 1}
    assert await shop.results(everything, "s1") == {mine: 1, other: 1}
    assert [t.customer_id for t in shop.touches("group")] == ["wmC1", "wmC2", "wmC1", "wmC2", "wmC3"]
    window = {"start_time": START_S, "end_time": START_S + DAY_S}
    listed = await shop.call("get_groupmsg_list_v2", chat_type="group", **window)
    assert [row["msgid"] for row in listed["group_msg_list"]] == [answer["msgid"], everything]


@prompt
async def test_a_group_that_is_gone_gets_nothing(shop):
    """3.4: group mode lists only sent rows."""
    kept, gone = shop.group(), shop.group(customers=["wmC3"])
    msgid = await shop.send(chat_type="group", sender="s1")
    assert shop.world.of(Groups).dismiss(gone, shop.now_s)
    shop.advance(600)
    assert await shop.results(msgid, "s1") == {kept: 1}
    assert "wmC3" not in {touch.customer_id for touch in shop.touches("group")}


@pytest.mark.parametrize("platform_rules", [{**PROMPT, "mass": {"deselected_share": 1.0}}], indirect=True)
async def test_staff_may_leave_customers_out_where_that_is_allowed(shop):
    """3.4: allow_select: staff choose among the customers; who is not chosen stays unsent."""
    chosen = await shop.send(sender="s1", external_userid=["wmC1"], allow_select=True)
    all_of_them = await shop.send(sender="s1", external_userid=["wmC1"], allow_select=False)
    shop.advance(600)
    assert await shop.results(chosen, "s1") == {"wmC1": 0}
    assert await shop.results(all_of_them, "s1") == {"wmC1": 1}


@pytest.mark.covers("externalcontact/add_msg_template")
async def test_a_call_takes_ten_thousand_customers_and_two_thousand_groups(shop):
    """3.4: external_userid at most 10,000, chat_id_list at most 2000."""
    many = [f"wmX{number}" for number in range(10_000)]
    assert await shop.code("add_msg_template", sender="s1", external_userid=["wmC1", *many[1:]], text=TEXT) == 0
    assert await shop.code("add_msg_template", sender="s1", external_userid=["wmC1", *many], text=TEXT) == 40032
    chats = [shop.group(), *(f"wr{number}" for number in range(1_999))]
    group = {"chat_type": "group", "sender": "s1", "text": TEXT}
    assert await shop.code("add_msg_template", **group, chat_id_list=chats) == 0
    assert await shop.code("add_msg_template", **group, chat_id_list=[*chats, "wrX"]) == 40032


@pytest.mark.covers("externalcontact/add_msg_template")
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, 40058),
        ({"sender": "s1", "text": None}, 41089),
        ({"sender": "s1", "text": {"content": "你" * 1_334}}, 45002),
        ({"sender": "s1", "attachments": [{"msgtype": "image", "image": {"media_id": "x"}}]}, 40007),
        ({"sender": "s1", "attachments": [{"msgtype": "link", "link": {"title": "t", "url": "u"}}] * 10}, 41064),
        ({"sender": "s1", "attachments": [{"msgtype": "voice"}]}, 41065),
        ({"sender": "s1", "text": {"content": "可代开发票"}}, 40201),
        ({"sender": "nobody"}, 40003),
        ({"sender": 7}, 40035),
        ({"chat_type": "both", "sender": "s1"}, 40035),
        ({"chat_type": "group"}, 40058),
        ({"chat_type": "group", "sender": "s3"}, 41048),
        ({"external_userid": "wmC1"}, 40035),
        ({"external_userid": [1]}, 40035),
        ({"sender": "s1", "allow_select": "yes"}, 40035),
        ({"sender": "s1", "tag_filter": []}, 40035),
        ({"sender": "s1", "tag_filter": {"group_list": [{}]}}, 40058),
        ({"sender": "s1", "tag_filter": {"group_list": [{"tag_list": ["etNone"]}]}}, 40068),
        ({"sender": "s1", "tag_filter": {"group_list": [{"tag_list": [f"et{n}" for n in range(101)]}]}}, 40032),
    ],
)
async def test_a_wrong_message_makes_no_task(shop, body, errcode):
    """3.4: requests are checked; 4.3: what each code means."""
    answer = await shop.call("add_msg_template", **{"text": TEXT, **body})
    assert (answer["errcode"], answer["fail_list"], answer["msgid"]) == (errcode, [], "")
    assert shop.world.of(MassBook).messages == {}


async def test_a_sender_has_to_be_there_and_activated(shop):
    """4.3: 40003 has left the corp, 41054 member not activated."""
    shop.world.people.staff["s1"].status = NOT_ACTIVATED
    shop.world.people.staff["s2"].status = LEFT
    assert await shop.code("add_msg_template", sender="s1", text=TEXT) == 41054
    assert await shop.code("add_msg_template", sender="s2", text=TEXT) == 40003


@pytest.mark.parametrize("platform_rules", [OVER_SCALE], indirect=True)
async def test_over_the_paid_scale_nothing_is_sent(shop):
    """5.1: over scale there is no proactive reach: 610023."""
    assert await shop.code("add_msg_template", sender="s1", text=TEXT) == 610023
    assert shop.world.of(MassBook).personal("s1", ["wmC1"], "x", shop.now_s) == ""


@pytest.mark.covers(
    "externalcontact/get_groupmsg_task",
    "externalcontact/get_groupmsg_send_result",
    "externalcontact/remind_groupmsg_send",
    "externalcontact/cancel_groupmsg_send",
)
@pytest.mark.parametrize(
    "name", ["get_groupmsg_task", "get_groupmsg_send_result", "remind_groupmsg_send", "cancel_groupmsg_send"]
)
async def test_a_missing_or_unknown_msgid(shop, name):
    """4.3: 41046 group-message id missing, 41047 invalid."""
    assert await shop.code(name, userid="s1") == 41046
    assert await shop.code(name, userid="s1", msgid="msgNone") == 41047
    assert await shop.code(name, userid="s1", msgid=["x"]) == 40035


@pytest.mark.parametrize(
    ("name", "body", "errcode"),
    [
        ("get_groupmsg_list_v2", {}, 40058),
        ("get_groupmsg_list_v2", {"chat_type": "single"}, 40058),
        ("get_groupmsg_list_v2", {"chat_type": "x", "start_time": 1, "end_time": 2}, 40035),
        ("get_groupmsg_list_v2", {"chat_type": "single", "start_time": 2, "end_time": 1}, 40035),
        ("get_groupmsg_list_v2", {"chat_type": "single", "start_time": 0, "end_time": 32 * DAY_S}, 40035),
        ("get_groupmsg_list_v2", {"chat_type": "single", "start_time": "0", "end_time": 1}, 40035),
        ("get_groupmsg_list_v2", {"chat_type": "single", "start_time": 0, "end_time": 1, "filter_type": 3}, 40035),
        ("get_groupmsg_list_v2", {"chat_type": "single", "start_time": 0, "end_time": 1, "creator": "no"}, 40003),
        ("get_groupmsg_list_v2", {"chat_type": "single", "start_time": 0, "end_time": 1, "cursor": "no"}, 50100),
        ("get_groupmsg_task", {"limit": "1"}, 40035),
        ("get_groupmsg_task", {"cursor": "no"}, 50100),
        ("get_groupmsg_send_result", {}, 40058),
        ("get_groupmsg_send_result", {"userid": "s2"}, 40003),
        ("get_groupmsg_send_result", {"userid": "s1", "cursor": 5}, 40035),
    ],
)
async def test_wrong_questions(shop, name, body, errcode):
    """4.3: 40003, 40035, 40058 and 50100."""
    msgid = await shop.send(sender="s1", external_userid=["wmC1"])
    assert await shop.code(name, **{"msgid": msgid, **body}) == errcode
