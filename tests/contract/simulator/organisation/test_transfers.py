"""Inheritance of customers and groups: accepted now, done or failed 24 hours later."""

import asyncio

import pytest

from simulator.world.days import day_start
from simulator.world.relations import ContactChange

DAY_S = 86_400
ON_JOB = "externalcontact/transfer_customer"
ON_JOB_RESULT = "externalcontact/transfer_result"
RESIGNED = "externalcontact/resigned/transfer_customer"
RESIGNED_RESULT = "externalcontact/resigned/transfer_result"
UNASSIGNED = "externalcontact/get_unassigned_list"


def request(*customers, handover="s1", takeover="s2", **more):
    return {"handover_userid": handover, "takeover_userid": takeover, "external_userid": [*customers], **more}


def between(handover="s1", takeover="s2", **more):
    return {"handover_userid": handover, "takeover_userid": takeover, **more}


async def codes(org, body, path=ON_JOB):
    return {item["external_userid"]: item["errcode"] for item in (await org.ok(path, body))["customer"]}


@pytest.mark.covers("externalcontact/transfer_customer", "externalcontact/transfer_result", "fact:6.9")
async def test_a_transfer_waits_24_hours_and_says_when_it_will_be_done(org):
    """3.6: errcode 0 means accepted; the result is 2 with a take-over time in the future, then 1."""
    org.friends("s1", "wmC1")
    assert await codes(org, request("wmC1", transfer_success_msg="您好")) == {"wmC1": 0}
    asked_s = org.now_s
    waiting = await org.ok(ON_JOB_RESULT, between())
    assert waiting["customer"] == [{"external_userid": "wmC1", "status": 2, "takeover_time": asked_s + DAY_S}]
    assert waiting["next_cursor"] == ""
    org.advance(DAY_S - 1)
    assert (await org.ok(ON_JOB_RESULT, between()))["customer"][0]["status"] == 2
    assert not org.events("change_external_contact/del_external_contact")
    org.advance(1)
    done = await org.ok(ON_JOB_RESULT, between())
    assert done["customer"] == [{"external_userid": "wmC1", "status": 1, "takeover_time": asked_s + DAY_S}]
    follow = (await org.wecom.get("externalcontact/get", external_userid="wmC1"))["follow_user"]
    assert [(f["userid"], f["add_way"], f["oper_userid"]) for f in follow] == [("s2", 202, "s1")]


@pytest.mark.covers(
    "event:change_external_contact/del_external_contact", "event:change_external_contact/add_external_contact"
)
async def test_a_transfer_is_told_as_a_loss_by_transfer_and_an_addition(org):
    """2.1: del_external_contact with Source DELETE_BY_TRANSFER for the old owner, add_external_contact for the new."""
    org.friends("s1", "wmC1")
    org.told.clear()
    await org.ok(ON_JOB, request("wmC1"))
    assert org.told == []  # the call itself tells nobody (1.7)
    org.advance(DAY_S)
    (lost,) = org.events("change_external_contact/del_external_contact")
    assert (lost["UserID"], lost["ExternalUserID"], lost["Source"]) == ("s1", "wmC1", "DELETE_BY_TRANSFER")
    (added,) = org.events("change_external_contact/add_external_contact")
    assert (added["UserID"], added["ExternalUserID"]) == ("s2", "wmC1")
    assert "State" not in added
    assert "WelcomeCode" not in added
    assert int(added["CreateTime"]) == org.now_s


async def test_the_message_to_the_customer_is_a_touch_of_the_new_owner(org):
    """3.6: transfer_success_msg reaches the customer when the transfer is done."""
    org.friends("s1", "wmC1")
    await org.ok(ON_JOB, request("wmC1", transfer_success_msg="我是新的顾问"))
    org.advance(DAY_S)
    (touch,) = [t for t in org.corp.touches if t.kind == "transfer"]
    assert (touch.staff_id, touch.customer_id, touch.content) == ("s2", "wmC1", "我是新的顾问")


@pytest.mark.parametrize("known_since", ["friend", "former"])
async def test_no_addition_is_told_of_a_customer_the_new_owner_knew(org, known_since):
    """3.6: a take-over who is a friend already, or owned the customer before, gets no add_external_contact."""
    org.friends("s1", "wmC1")
    org.friends("s2", "wmC1")
    if known_since == "former":
        org.advance(5)
        org.friends("s2", "wmC1", change="delete_by_staff")
    org.told.clear()
    await org.ok(ON_JOB, request("wmC1"))
    org.advance(DAY_S)
    assert [e["ChangeType"] for e in org.told] == ["del_external_contact"]
    assert (await org.wecom.get("externalcontact/list", userid="s2"))["external_userid"] == ["wmC1"]
    assert (await org.ok(ON_JOB_RESULT, between()))["customer"][0]["status"] == 1


@pytest.mark.covers("event:change_external_contact/transfer_fail")
async def test_a_customer_may_refuse(org):
    """2.1: transfer_fail, customer_refused, names the take-over member; the result is 3, nobody changes hands."""
    org.transfers(refused_share=1.0)
    org.friends("s1", "wmC1")
    org.told.clear()
    await org.ok(ON_JOB, request("wmC1"))
    org.advance(DAY_S)
    (failed,) = org.told
    assert (failed["ChangeType"], failed["FailReason"]) == ("transfer_fail", "customer_refused")
    assert (failed["UserID"], failed["ExternalUserID"]) == ("s2", "wmC1")
    result = (await org.ok(ON_JOB_RESULT, between()))["customer"]
    assert result == [{"external_userid": "wmC1", "status": 3, "takeover_time": 0}]
    assert (await org.wecom.get("externalcontact/list", userid="s1"))["external_userid"] == ["wmC1", "wmC2"]


async def test_refusals_follow_the_share_and_the_seed(org):
    """6.9: a share of the customers refuses, the same ones every time."""
    org.transfers(refused_share=0.5)
    customers = [f"wmC{n}" for n in range(3, 13)]
    org.friends("s1", *customers)
    await org.ok(ON_JOB, request(*customers))
    org.advance(DAY_S)
    statuses = [item["status"] for item in (await org.ok(ON_JOB_RESULT, between()))["customer"]]
    assert set(statuses) == {1, 3}


async def test_a_take_over_that_fills_up_fails(org):
    """5.2: a member at the cap gets 40099 at once; who fills up meanwhile makes it status 4, customer_limit_exceed."""
    org.corp.people.staff["s2"].contact_cap = 1
    org.friends("s1", "wmC1", "wmC3", "wmC4")
    assert await codes(org, request("wmC1", "wmC3")) == {"wmC1": 0, "wmC3": 0}
    org.told.clear()
    org.advance(DAY_S)
    statuses = {i["external_userid"]: i["status"] for i in (await org.ok(ON_JOB_RESULT, between()))["customer"]}
    assert statuses == {"wmC1": 1, "wmC3": 4}
    (failed,) = org.events("change_external_contact/transfer_fail")
    assert (failed["FailReason"], failed["ExternalUserID"]) == ("customer_limit_exceed", "wmC3")
    assert await codes(org, request("wmC4")) == {"wmC4": 40099}


async def test_two_transfers_of_a_customer_in_90_natural_days(org):
    """3.6: the third transfer of a customer within 90 natural days is 40128; then the window opens again."""
    org.friends("s1", "wmC1")
    first_s = org.now_s
    for handover, takeover in (("s1", "s2"), ("s2", "s3")):
        assert await codes(org, request("wmC1", handover=handover, takeover=takeover)) == {"wmC1": 0}
        org.advance(DAY_S)
    third = request("wmC1", handover="s3", takeover="s1")
    assert await codes(org, third) == {"wmC1": 40128}
    last_day_s = day_start(first_s) + 89 * DAY_S
    org.advance(last_day_s + DAY_S - 1 - org.now_s)
    assert await codes(org, third) == {"wmC1": 40128}
    org.advance(1)
    assert await codes(org, third) == {"wmC1": 0}


async def test_a_refused_transfer_does_not_count_for_the_90_days(org):
    """3.6: only what was or will be transferred counts."""
    rules = org.transfers(refused_share=1.0)
    org.friends("s1", "wmC1")
    for _ in range(3):
        assert await codes(org, request("wmC1")) == {"wmC1": 0}
        org.advance(DAY_S)
    assert rules.results("on_job", "s1", "s2")[0].status == 3


async def test_the_errcodes_of_items(org):
    """3.6: each customer has a code: 40096 unknown, 40131 not the hand-over's, 40129 on the way already."""
    org.friends("s1", "wmC1", "wmC3")
    assert await codes(org, request("wmC3")) == {"wmC3": 0}
    answer = await codes(org, request("wmC1", "wmC3", "wmC5", "wmNobody"))
    assert answer == {"wmC1": 0, "wmC3": 40129, "wmC5": 40131, "wmNobody": 40096}
    assert await codes(org, request("wmC1", takeover="s1")) == {"wmC1": 40130}


async def test_members_who_cannot_take_part(org):
    """3.6: banned 40143, a year without login 40205, not activated 41054, no real name 40098, unknown or gone 60111."""
    org.friends("s1", "wmC1")
    staff = org.corp.people.staff
    staff["s3"].banned_until_s = org.now_s + 10
    assert await codes(org, request("wmC1", takeover="s3")) == {"wmC1": 40143}
    staff["s4"].last_login_s = org.now_s - 366 * DAY_S
    assert await codes(org, request("wmC1", takeover="s4")) == {"wmC1": 40205}
    org.roster().activate("s5", on=False)
    assert await org.code(ON_JOB, request("wmC1", takeover="s5")) == 41054
    assert await org.code(ON_JOB, request("wmC1", takeover="nobody")) == 60111
    assert await org.code(ON_JOB, request("wmC1", handover="nobody")) == 60111
    org.roster().leave("s5", org.now_s)
    assert await org.code(ON_JOB, request("wmC1", takeover="s5")) == 60111
    assert await org.code(ON_JOB, request("wmC1", handover="s5")) == 60111
    org.roster(without_real_name_share=1.0)
    assert await org.code(ON_JOB, request("wmC1")) == 40098


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, 40058),
        (between(), 41035),
        (request(), 41035),
        (request(*(f"wm{n}" for n in range(101))), 40032),
        (request("wmC1", transfer_success_msg="字" * 201), 40035),
        (request("wmC1", handover=5), 40035),
        ({**between(), "external_userid": "wmC1"}, 40035),
        ({**between(), "external_userid": [1]}, 40035),
    ],
)
async def test_what_a_transfer_has_to_say(org, body, errcode):
    """3.6: at most 100 customers and 200 characters; missing and mistyped fields are refused."""
    answer = await org.wecom.post(ON_JOB, body)
    assert (answer["errcode"], answer["customer"]) == (errcode, [])


@pytest.mark.parametrize("sim_settings", [{"latency_milliseconds": 100}], indirect=True)
async def test_two_writers_on_one_members_inheritance(org):
    """4.2: a second call for the same hand-over member while one runs is 45035."""
    org.friends("s1", "wmC1", "wmC3")
    await org.wecom.token()
    answers = await asyncio.gather(
        org.wecom.post(ON_JOB, request("wmC1")), org.wecom.post(ON_JOB, request("wmC3", takeover="s3"))
    )
    assert sorted(answer["errcode"] for answer in answers) == [0, 45035]


async def test_results_are_paged_by_1000(org):
    """3.6: at most 1000 a page, with a cursor for the next."""
    transfers = org.transfers()
    for number in range(1_001):
        transfers.ask("on_job", "s1", "s2", f"wmX{number:04d}", org.now_s)
    first = await org.ok(ON_JOB_RESULT, between())
    rest = await org.ok(ON_JOB_RESULT, between(cursor=first["next_cursor"]))
    assert (len(first["customer"]), len(rest["customer"]), rest["next_cursor"]) == (1_000, 1, "")
    assert await org.code(ON_JOB_RESULT, between("s1", "s3", cursor=first["next_cursor"])) == 50100
    assert (await org.ok(ON_JOB_RESULT, between("s1", "s3")))["customer"] == []
    assert await org.code(ON_JOB_RESULT, between("nobody")) == 60111


@pytest.mark.covers(
    "externalcontact/get_unassigned_list",
    "externalcontact/resigned/transfer_customer",
    "externalcontact/resigned/transfer_result",
)
async def test_the_customers_of_a_leaver_find_a_new_owner(org):
    """3.6: unassigned until asked for, taken over after 24 hours, the add told and no loss: the old owner is gone."""
    org.friends("s1", "wmC1", "wmC3")
    assert await org.code(RESIGNED, request("wmC1")) == 40097
    org.roster().leave("s1", org.now_s)
    left_s = org.now_s
    org.advance(10)
    listed = await org.ok(UNASSIGNED, {"page_size": 1})
    row = {"handover_userid": "s1", "external_userid": "wmC1", "dimission_time": left_s}
    assert (listed["info"], listed["is_last"]) == ([row], False)
    rest = await org.ok(UNASSIGNED, {"page_size": 1, "cursor": listed["next_cursor"]})
    assert [r["external_userid"] for r in rest["info"]] == ["wmC2"]
    everything = await org.ok(UNASSIGNED, {})
    assert [r["external_userid"] for r in everything["info"]] == ["wmC1", "wmC2", "wmC3"]
    assert (everything["is_last"], everything["next_cursor"]) == (True, "")
    org.told.clear()
    assert await codes(org, request("wmC1", "wmC1"), RESIGNED) == {"wmC1": 0}
    assert await codes(org, request("wmC1", takeover="s3"), RESIGNED) == {"wmC1": 40100}
    assert len((await org.ok(UNASSIGNED, {}))["info"]) == 2
    assert (await org.ok(RESIGNED_RESULT, between()))["customer"][0]["status"] == 2
    assert (await org.ok(ON_JOB_RESULT, between()))["customer"] == []
    org.advance(DAY_S)
    assert (await org.ok(RESIGNED_RESULT, between()))["customer"][0]["status"] == 1
    assert [(e["ChangeType"], e["UserID"]) for e in org.told] == [("add_external_contact", "s2")]
    follow = (await org.wecom.get("externalcontact/get", external_userid="wmC1"))["follow_user"]
    assert [f["userid"] for f in follow] == ["s2"]
    assert len((await org.ok(UNASSIGNED, {}))["info"]) == 2


async def test_who_left_more_than_a_year_ago_hands_nothing_over(org):
    """3.6: a leaver of more than a year ago is unknown; their customers are not listed any more."""
    org.friends("s1", "wmC1")
    org.roster().leave("s1", org.now_s)
    org.advance(365 * DAY_S + 1)
    assert await org.code(RESIGNED, request("wmC1")) == 60111
    assert (await org.ok(UNASSIGNED, {}))["info"] == []


@pytest.mark.parametrize(
    "platform_rules",
    [{"scale": {"prices": [{"since_s": 0, "free": 2, "tiers": []}], "buys_itself": False}}],
    indirect=True,
)
async def test_no_assignment_beyond_the_scale(org):
    """5.1: a corp with more contacts than it paid for assigns no leaver's customers (610023)."""
    org.friends("s1", "wmC1")
    org.groups().create("s3", ["wmC3"], org.now_s, tell=False)
    org.roster().leave("s1", org.now_s)
    answer = await org.wecom.post(RESIGNED, request("wmC1"))
    assert (answer["errcode"], answer["customer"]) == (610023, [])


async def test_a_take_over_who_is_banned_meanwhile_gets_nobody(org):
    """5.6: who may not add anybody when the 24 hours are over counts as full; the old owner keeps the customer."""
    org.friends("s1", "wmC1")
    await org.ok(ON_JOB, request("wmC1"))
    org.corp.people.staff["s2"].banned = True
    org.corp.bars.append(lambda event: event.change == "add" and event.staff_id == "s2")
    org.advance(DAY_S + 60)
    assert (await org.ok(ON_JOB_RESULT, between()))["customer"][0]["status"] == 4
    assert org.events("change_external_contact/transfer_fail")
    assert not org.events("change_external_contact/del_external_contact")


async def test_a_customer_who_went_meanwhile_cannot_be_taken_over(org):
    """3.6: who deletes the old owner before the 24 hours are over is listed as a refusal."""
    org.friends("s1", "wmC1")
    await org.ok(ON_JOB, request("wmC1"))
    org.advance(100)
    event = ContactChange(org.now_s, org.corp.corp_id, "s1", "wmC1", "delete_by_customer")
    assert org.corp.happen(event)
    org.advance(DAY_S)
    assert (await org.ok(ON_JOB_RESULT, between()))["customer"][0]["status"] == 3


async def test_a_change_in_the_very_second_delays_the_take_over(org):
    """6.9: two changes of one pair cannot be told apart within a second, so the later one waits."""
    org.friends("s1", "wmC1")
    await org.ok(ON_JOB, request("wmC1"))
    due_s = org.now_s + DAY_S
    edit = ContactChange(due_s - 1, org.corp.corp_id, "s1", "wmC1", "edit")
    org.corp.schedule.at(due_s - 1, lambda _: org.corp.happen(edit))
    org.advance(DAY_S + 10)
    (item,) = (await org.ok(ON_JOB_RESULT, between()))["customer"]
    assert (item["status"], item["takeover_time"]) == (1, due_s + 2)


@pytest.mark.covers("externalcontact/groupchat/onjob_transfer")
async def test_groups_of_an_owner_at_work_pass_at_once(org):
    """3.6: a present owner's group has its new owner at once, and the call tells nobody (1.7)."""
    groups = org.groups()
    chat = groups.create("s1", ["wmC1"], org.now_s)
    org.told.clear()
    body = {"chat_id_list": [chat], "new_owner": "s3"}
    assert (await org.ok("externalcontact/groupchat/onjob_transfer", body))["failed_chat_list"] == []
    assert org.told == []
    org.advance(3)
    shown = (await org.ok("externalcontact/groupchat/get", {"chat_id": chat}))["group_chat"]
    assert shown["owner"] == "s3"
    assert [m["userid"] for m in shown["member_list"]] == ["s1", "wmC1", "s3"]
    failed = (await org.ok("externalcontact/groupchat/onjob_transfer", body))["failed_chat_list"]
    assert [(f["chat_id"], f["errcode"], f["errmsg"] != "") for f in failed] == [(chat, 90504, True)]


async def test_a_group_passes_twice_in_90_days(org):
    """3.6: two on-job transfers of a group within 90 days, then its item fails."""
    chat = org.groups().create("s1", [], org.now_s)
    path = "externalcontact/groupchat/onjob_transfer"
    for owner in ("s2", "s3"):
        assert (await org.ok(path, {"chat_id_list": [chat], "new_owner": owner}))["failed_chat_list"] == []
    third = {"chat_id_list": [chat], "new_owner": "s1"}
    assert (await org.ok(path, third))["failed_chat_list"][0]["errcode"] == 40128
    org.advance(90 * DAY_S)
    assert (await org.ok(path, third))["failed_chat_list"] == []


@pytest.mark.covers("externalcontact/groupchat/transfer", "event:change_external_chat/update")
async def test_groups_of_a_leaver_pass_later(org):
    """3.6: of an owner who has not left it is 90500; else the list says 2 and then 3, and the change is told."""
    groups = org.groups()
    chat = groups.create("s1", ["wmC1"], org.now_s)
    path, body = "externalcontact/groupchat/transfer", {"chat_id_list": [chat], "new_owner": "s2"}
    listing = {"limit": 10, "owner_filter": {"userid_list": ["s1", "s2"]}}
    assert (await org.ok(path, body))["failed_chat_list"][0]["errcode"] == 90500
    org.roster().leave("s1", org.now_s)
    on_job = await org.ok("externalcontact/groupchat/onjob_transfer", body)
    assert on_job["failed_chat_list"][0]["errcode"] == 90502
    listed = (await org.ok("externalcontact/groupchat/list", listing))["group_chat_list"]
    assert listed == [{"chat_id": chat, "status": 1}]
    assert (await org.ok(path, body))["failed_chat_list"] == []
    assert (await org.ok(path, body))["failed_chat_list"][0]["errcode"] == 90507
    assert (await org.ok("externalcontact/groupchat/list", listing))["group_chat_list"][0]["status"] == 2
    org.told.clear()
    org.advance(DAY_S)
    assert (await org.ok("externalcontact/groupchat/list", listing))["group_chat_list"][0]["status"] == 3
    assert [e["UpdateDetail"] for e in org.told] == ["add_member", "change_owner"]
    assert (await org.ok(path, body))["failed_chat_list"][0]["errcode"] == 90508


async def test_300_groups_of_an_owner_a_day(org):
    """4.1: past the day's limit of one former owner a group's item is 45009, until the next day."""
    groups = org.groups()
    org.transfers(groups_per_day=2)
    chats = [groups.create("s1", [], org.now_s) for _ in range(3)]
    path = "externalcontact/groupchat/onjob_transfer"
    failed = (await org.ok(path, {"chat_id_list": chats, "new_owner": "s2"}))["failed_chat_list"]
    assert [(f["chat_id"], f["errcode"]) for f in failed] == [(chats[2], 45009)]
    org.advance(DAY_S)
    again = await org.ok(path, {"chat_id_list": chats[2:], "new_owner": "s2"})
    assert again["failed_chat_list"] == []


@pytest.mark.parametrize("path", ["externalcontact/groupchat/onjob_transfer", "externalcontact/groupchat/transfer"])
async def test_what_a_group_transfer_has_to_say(org, path):
    """3.6: 1 to 100 groups and a member who is here; groups that are none, or no more, fail by themselves."""
    groups = org.groups(size=2)
    gone, full = groups.create("s1", [], org.now_s), groups.create("s1", ["wmC1"], org.now_s)
    groups.dismiss(gone, org.now_s)
    assert await org.code(path, {"new_owner": "s2"}) == 40058
    assert await org.code(path, {"chat_id_list": [f"wr{n}" for n in range(101)], "new_owner": "s2"}) == 40032
    assert await org.code(path, {"chat_id_list": [gone]}) == 40058
    assert await org.code(path, {"chat_id_list": [gone], "new_owner": "nobody"}) == 60111
    if path.endswith("/transfer"):
        org.roster().leave("s1", org.now_s)
    failed = (await org.ok(path, {"chat_id_list": ["wrNone", gone, full], "new_owner": "s2"}))["failed_chat_list"]
    assert [f["errcode"] for f in failed] == [90501, 49008, 90503]
