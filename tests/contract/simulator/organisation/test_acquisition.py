"""Acquisition links: who comes through them, what the balance tells, and keys that live half an hour."""

import pytest

from simulator.world.corp import Said
from simulator.world.days import day_start

DAY_S = 86_400
AT = "externalcontact/customer_acquisition/"
QUOTA = "externalcontact/customer_acquisition_quota"


async def create(org, **more):
    body = {"link_name": "门店招新", "range": {"user_list": ["s1"]}, **more}
    return (await org.ok(AT + "create_link", body))["link"]


async def come(org, link, *customers, channel=""):
    """Customers come through a link and are added."""
    for customer in customers:
        assert org.book().visit(link["link_id"], customer, channel, org.now_s, requests=True)
    org.advance(120)


def kinds(org, start=0):
    return [e["ChangeType"] for e in org.told[start:]]


@pytest.mark.covers(
    "externalcontact/customer_acquisition/create_link",
    "externalcontact/customer_acquisition/get",
    "externalcontact/customer_acquisition/list_link",
    "externalcontact/customer_acquisition/update_link",
    "externalcontact/customer_acquisition/delete_link",
)
async def test_the_life_of_a_link(org):
    """3.13: created, listed, read, changed and deleted; by API nobody is told (1.7)."""
    link = await create(org, range={"user_list": ["s1"], "department_list": [3]}, skip_verify=False)
    assert link["link_name"] == "门店招新"
    assert link["url"].endswith(link["link_id"])
    assert (await org.ok(AT + "list_link", {}))["link_id_list"] == [link["link_id"]]
    key = {"link_id": link["link_id"]}
    shown = await org.ok(AT + "get", key)
    assert {name: shown["link"][name] for name in link} == link
    assert (shown["link"]["skip_verify"], shown["link"]["mark_source"]) == (False, True)
    assert shown["range"] == {"user_list": ["s1"], "department_list": [3]}
    assert "priority_option" not in shown
    option = {"priority_type": 2, "priority_userid_list": ["s2"]}
    await org.ok(AT + "update_link", {**key, "link_name": "新名", "range": {"user_list": ["s2"]}})
    await org.ok(AT + "update_link", {**key, "priority_option": option})
    shown = await org.ok(AT + "get", key)
    assert (shown["link"]["link_name"], shown["link"]["skip_verify"]) == ("新名", False)
    assert shown["range"] == {"user_list": ["s2"], "department_list": []}
    assert shown["priority_option"] == option
    await org.ok(AT + "delete_link", key)
    assert await org.code(AT + "get", key) == 40035
    assert (await org.ok(AT + "list_link", {}))["link_id_list"] == []
    assert org.told == []


async def test_links_are_paged_and_seen_by_their_maker_only(org):
    """3.13: at most 100 a page; another app's link is not there."""
    made = [(await create(org))["link_id"] for _ in range(3)]
    other = org.book().create("控制台", org.now_s, agent_id="1000099", user_list=["s1"])
    first = await org.ok(AT + "list_link", {"limit": 2})
    rest = await org.ok(AT + "list_link", {"limit": 200, "cursor": first["next_cursor"]})
    assert [*first["link_id_list"], *rest["link_id_list"]] == made
    assert rest["next_cursor"] == ""
    assert await org.code(AT + "get", {"link_id": other.link_id}) == 40035
    org.book(links=4)
    assert await org.code(AT + "create_link", {"link_name": "n", "range": {"user_list": ["s1"]}}) == 41095


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"link_name": None}, 40058),
        ({"link_name": "名" * 31}, 40035),
        ({"range": None}, 40058),
        ({"range": {}}, 40058),
        ({"range": {"user_list": ["nobody"]}}, 60111),
        ({"range": {"user_list": [f"s{n}" for n in range(501)]}}, 40032),
        ({"range": {"department_list": [77]}}, 60123),
        ({"range": {"department_list": ["1"]}}, 40035),
        ({"priority_option": {}}, 0),
        ({"priority_option": {"priority_type": 3}}, 40035),
        ({"priority_option": {"priority_type": 2}}, 40058),
        ({"priority_option": {"priority_type": 2, "priority_userid_list": ["nobody"]}}, 60111),
        ({"skip_verify": "yes"}, 40035),
    ],
)
async def test_what_a_link_refuses(org, change, errcode):
    """3.13: a name of 30 characters, 500 people that exist, priorities of two kinds."""
    body = {"link_name": "n", "range": {"user_list": ["s1"]}, **change}
    assert await org.code(AT + "create_link", body) == errcode


@pytest.mark.covers(
    "event:customer_acquisition/open_profile",
    "event:customer_acquisition/friend_request",
    "externalcontact/customer_acquisition/customer",
    "fact:6.19",
)
async def test_a_visit_becomes_a_customer_with_the_channel(org):
    """2.4: open_profile, friend_request, then add_external_contact with State; add_way 16 and state when read."""
    link = await create(org)
    org.book().visit(link["link_id"], "wmC1", "livestream-7", org.now_s, requests=True)
    org.advance(120)
    opened, asked, added = org.told
    for event, change in ((opened, "open_profile"), (asked, "friend_request")):
        assert (event["Event"], event["ChangeType"]) == ("customer_acquisition", change)
        assert (event["LinkId"], event["State"], event["agent"]) == (link["link_id"], "livestream-7", "1000002")
    assert (added["ChangeType"], added["State"]) == ("add_external_contact", "livestream-7")
    assert added["WelcomeCode"]
    (follow,) = (await org.wecom.get("externalcontact/get", external_userid="wmC1"))["follow_user"]
    assert (follow["add_way"], follow["state"], follow["userid"]) == (16, "livestream-7", "s1")
    customers = await org.ok(AT + "customer", {"link_id": link["link_id"]})
    row = {"external_userid": "wmC1", "userid": "s1", "chat_status": 0, "state": "livestream-7"}
    assert (customers["customer_list"], customers["next_cursor"]) == ([row], "")


@pytest.mark.parametrize("channel", ["<b>1</b>", "a]]>b", "a&b;c", "中文 ✓"])
async def test_any_channel_survives_the_callback(org, channel):
    """2.4: whatever text a channel is, its callback stays well-formed and carries it."""
    link = await create(org)
    await come(org, link, "wmC1", channel=channel)
    assert [e["State"] for e in org.told] == [channel] * 3


async def test_a_channel_is_cut_to_64_bytes(org):
    """3.13: customer_channel beyond 64 bytes is truncated, never inside a character."""
    link = await create(org)
    await come(org, link, "wmC1", channel="频" * 30)
    assert org.told[-1]["State"] == "频" * 21


async def test_without_skip_verify_the_member_accepts_later(org):
    """3.13: where the link asks for verification the friend request waits for the member, who may never accept."""
    link = await create(org, skip_verify=False)
    org.book(accept_share=1.0)
    await come(org, link, "wmC1")
    org.advance(DAY_S)
    request, added = org.told[-2:]
    assert int(added["CreateTime"]) > int(request["CreateTime"]) + 1
    org.book(accept_share=0.0)
    await come(org, link, "wmC3")
    org.advance(DAY_S)
    assert kinds(org)[-1] == "friend_request"


async def test_a_customer_of_the_house_goes_to_who_has_them(org):
    """3.13: priority_type 1 leads a customer to a member who is their friend, so nothing is added."""
    link = await create(org, priority_option={"priority_type": 1})
    org.friends("s3", "wmC1")
    org.told.clear()
    await come(org, link, "wmC1", "wmC3")
    assert [e["UserID"] for e in org.events("change_external_contact")] == ["s1"]
    assert (await org.ok(AT + "customer", {"link_id": link["link_id"]}))["customer_list"][0]["userid"] == "s1"


@pytest.mark.parametrize(
    "platform_rules",
    [{"scale": {"prices": [{"since_s": 0, "free": 1, "tiers": []}], "buys_itself": False}}],
    indirect=True,
)
async def test_a_used_up_scale_takes_no_visitors(org):
    """5.1: beyond the scale there are no new friends, so no use is spent either."""
    link = await create(org)
    await come(org, link, "wmC1")
    assert kinds(org)[-1] == "friend_request"
    assert (await org.ok(AT + "customer", {"link_id": link["link_id"]}))["customer_list"] == []
    assert (await org.wecom.get(QUOTA))["balance"] == 1_000


@pytest.mark.covers(
    "event:customer_acquisition/customer_start_chat", "event:customer_acquisition/message_from_customer"
)
async def test_messages_are_told_at_the_3rd_5th_and_10th(org):
    """2.4: customer_start_chat with ids at the first message; then LinkId and ChatKey only."""
    link = await create(org)
    await come(org, link, "wmC1", channel="c")
    org.told.clear()
    for number in range(12):
        org.corp.say(Said(org.now_s, "s1", "wmC1", by_customer=True))
        org.corp.say(Said(org.now_s + number, "s1", "wmC1", by_customer=False))
    assert kinds(org) == ["customer_start_chat", *["message_from_customer"] * 3]
    start, third, *_ = org.told
    assert (start["UserID"], start["ExternalUserID"], start["LinkId"]) == ("s1", "wmC1", link["link_id"])
    assert third["LinkId"] == link["link_id"]
    assert not {"UserID", "ExternalUserID", "ChatSeq"} & third.keys()
    (row,) = (await org.ok(AT + "customer", {"link_id": link["link_id"]}))["customer_list"]
    assert row["chat_status"] == 1


@pytest.mark.covers("externalcontact/customer_acquisition/get_chat_info")
async def test_a_chat_key_lives_30_minutes(org):
    """2.4: get_chat_info resolves a ChatKey for 30 minutes, then 41201."""
    link = await create(org)
    await come(org, link, "wmC1", channel="c")
    for _ in range(5):
        org.corp.say(Said(org.now_s, "s1", "wmC1", by_customer=True))
    key = {"chat_key": org.told[-1]["ChatKey"]}
    org.advance(1_800)
    answer = await org.ok(AT + "get_chat_info", key)
    assert (answer["userid"], answer["external_userid"]) == ("s1", "wmC1")
    assert answer["chat_info"] == {"recv_msg_cnt": 5, "link_id": link["link_id"], "state": "c"}
    org.advance(1)
    assert await org.code(AT + "get_chat_info", key) == 41201
    assert await org.code(AT + "get_chat_info", {"chat_key": "none"}) == 41201
    assert await org.code(AT + "get_chat_info", {}) == 40058


@pytest.mark.covers(
    "externalcontact/customer_acquisition_quota",
    "event:customer_acquisition/balance_low",
    "event:customer_acquisition/balance_exhausted",
    "event:customer_acquisition/balance_increased",
)
async def test_the_balance_burns_down(org):
    """2.4: balance_low below 20, balance_exhausted at 0, balance_increased when it was 0; without it nobody comes."""
    book = org.book()
    before = await org.wecom.get(QUOTA)
    assert (before["total"], before["balance"]) == (1_000, 1_000)
    book.packages[0].balance = 22
    link = await create(org)
    await come(org, link, "wmC1", "wmC3")
    assert not org.events("customer_acquisition/balance_low")
    await come(org, link, "wmC4")
    assert len(org.events("customer_acquisition/balance_low")) == 1
    book.packages[0].balance = 1
    await come(org, link, "wmC5")
    assert len(org.events("customer_acquisition/balance_exhausted")) == 1
    assert not book.visit(link["link_id"], "wmC6", "", org.now_s, requests=True)
    book.buy(50, 30, org.now_s)
    assert kinds(org)[-1] == "balance_increased"
    quota = await org.wecom.get(QUOTA)
    assert (quota["total"], quota["balance"]) == (1_050, 50)
    assert [p["balance"] for p in quota["quota_list"]] == [50, 0]
    await come(org, link, "wmC6")
    assert (await org.wecom.get(QUOTA))["balance"] == 49


@pytest.mark.covers("event:customer_acquisition/quota_expire_soon")
async def test_a_package_is_warned_of_and_expires(org):
    """2.4: quota_expire_soon 14, 7, 3, 2 and 1 days before, with what would be lost; then it is gone."""
    book = org.book()
    book.open(org.now_s)
    book.packages.clear()
    book.buy(100, 20, org.now_s)
    expires = day_start(org.now_s) + 20 * DAY_S
    org.told.clear()
    org.advance(21 * DAY_S)
    warned = org.events("customer_acquisition/quota_expire_soon")
    assert [(expires - int(e["CreateTime"])) // DAY_S for e in warned] == [14, 7, 3, 2, 1]
    assert {(e["ExpireTime"], e["ExpireQuotaNum"]) for e in warned} == {(str(expires), "100")}
    assert kinds(org)[-1] == "balance_exhausted"
    quota = await org.wecom.get(QUOTA)
    assert (quota["total"], quota["balance"], quota["quota_list"]) == (0, 0, [])


@pytest.mark.covers("event:customer_acquisition/link_unavailable")
async def test_a_link_whose_members_cannot_add(org):
    """2.4: link_unavailable when all its members cannot take customers: left, banned or full; told once."""
    link = await create(org, range={"user_list": ["s1", "s2"]})
    org.roster().leave("s1", org.now_s)
    assert not org.events("customer_acquisition")
    org.roster().leave("s2", org.now_s)
    (event,) = org.events("customer_acquisition")
    assert (event["ChangeType"], event["LinkId"]) == ("link_unavailable", link["link_id"])
    assert not org.book().visit(link["link_id"], "wmC1", "", org.now_s)
    assert len(org.events("customer_acquisition/link_unavailable")) == 1
    await org.ok(AT + "update_link", {"link_id": link["link_id"], "range": {"user_list": ["s3"]}})
    org.corp.people.staff["s3"].contact_cap = 1
    await come(org, link, "wmC1")
    assert len(org.events("customer_acquisition/link_unavailable")) == 2
    assert not org.book().visit(link["link_id"], "wmC3", "", org.now_s)
    assert len(org.events("customer_acquisition/link_unavailable")) == 2


@pytest.mark.covers("event:customer_acquisition/delete_link")
async def test_a_link_deleted_in_the_console_is_told(org):
    """2.4: delete_link is told when the console deleted it, not the API."""
    link = await create(org)
    assert org.book().delete(link["link_id"], org.now_s)
    (event,) = org.told
    assert (event["ChangeType"], event["LinkId"]) == ("delete_link", link["link_id"])
    assert not org.book().visit(link["link_id"], "wmC1", "", org.now_s)


@pytest.mark.covers("externalcontact/customer_acquisition/statistic")
async def test_visitors_and_new_customers_of_a_link(org):
    """3.13: people who clicked, each once, and new customers, over at most 30 of the last 180 days."""
    link, book = await create(org), org.book()
    day = org.now_s
    for customer in ("wmC1", "wmC1", "wmC3"):
        assert book.visit(link["link_id"], customer, "", org.now_s, requests=False)
    await come(org, link, "wmC4")
    org.advance(DAY_S)
    await come(org, link, "wmC1")
    body = {"link_id": link["link_id"], "start_time": day, "end_time": org.now_s}
    answer = await org.ok(AT + "statistic", body)
    assert (answer["click_link_customer_cnt"], answer["new_customer_cnt"]) == (3, 2)
    first = await org.ok(AT + "statistic", {**body, "end_time": day})
    assert (first["click_link_customer_cnt"], first["new_customer_cnt"]) == (3, 1)
    assert await org.code(AT + "statistic", {**body, "start_time": day - 30 * DAY_S}) == 40035
    assert await org.code(AT + "statistic", {"link_id": link["link_id"]}) == 40058
    assert await org.code(AT + "statistic", {**body, "link_id": "none"}) == 40035


async def test_customers_of_a_link_are_paged(org):
    """3.13: at most 1000 a page; who was lost before a word is of unknown chat_status."""
    link = await create(org)
    await come(org, link, "wmC1", "wmC3", "wmC4")
    org.friends("s1", "wmC3", change="delete_by_staff")
    body = {"link_id": link["link_id"], "limit": 2}
    first = await org.ok(AT + "customer", body)
    rest = await org.ok(AT + "customer", {**body, "cursor": first["next_cursor"]})
    assert len(first["customer_list"]) == 2
    assert {c["external_userid"]: c["chat_status"] for c in [*first["customer_list"], *rest["customer_list"]]} == {
        "wmC1": 0,
        "wmC3": 2,
        "wmC4": 0,
    }
    assert await org.code(AT + "customer", {"link_id": "none"}) == 40035


async def test_a_share_of_the_visitors_asks_to_be_a_friend(org):
    """6.19: who opens the profile need not go on; the seed decides where the story does not."""
    link, book = await create(org), org.book()
    for number in range(3, 13):
        book.visit(link["link_id"], f"wmC{number}", "", org.now_s)
    org.advance(200)
    assert len(org.events("customer_acquisition/open_profile")) == 10
    assert 0 < len(org.events("customer_acquisition/friend_request")) < 10
