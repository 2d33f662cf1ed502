"""Customer groups: what people do is told, what can be read lags, and the codes of the two differ."""

import pytest

GET = "externalcontact/groupchat/get"
LIST = "externalcontact/groupchat/list"
WAY = "externalcontact/groupchat/"


async def shown(org, chat_id, **more):
    return (await org.ok(GET, {"chat_id": chat_id, **more}))["group_chat"]


@pytest.mark.covers("event:change_external_chat/create", "externalcontact/groupchat/get")
async def test_a_group_is_founded(org):
    """2.2: create names the chat; groupchat/get has owner, members, and names only with need_name."""
    chat = org.groups().create("s1", ["s2", "wmC1", "wmNobody"], org.now_s, name="会员群")
    (event,) = org.told
    assert (event["Event"], event["ChangeType"], event["ChatId"]) == ("change_external_chat", "create", chat)
    assert chat.startswith("wr")
    group = await shown(org, chat)
    assert (group["name"], group["owner"], group["create_time"]) == ("会员群", "s1", org.now_s)
    assert (group["notice"], group["admin_list"]) == ("", [])
    owner, colleague, customer = group["member_list"]
    assert (owner["userid"], owner["type"], owner["join_scene"]) == ("s1", 1, 1)
    assert "invitor" not in owner
    assert colleague["invitor"] == {"userid": "s1"}
    assert (customer["userid"], customer["type"], customer["unionid"]) == (
        "wmC1",
        2,
        org.corp.people.customer("wmC1").unionid,
    )
    assert not any("name" in member for member in group["member_list"])
    named = await shown(org, chat, need_name=1)
    assert named["member_list"][2]["name"] == org.corp.people.customer("wmC1").name


@pytest.mark.covers("event:change_external_chat/update", "fact:6.11")
async def test_joining_is_told_with_other_codes_than_are_read(org):
    """2.2: JoinScene is 0 for the invited and 3 for who scanned; groupchat/get says 1, 2 and 3."""
    groups = org.groups()
    chat = groups.create("s1", [], org.now_s)
    org.told.clear()
    assert groups.invite(chat, ["wmC1", "wmC3"], "s1", org.now_s) == ["wmC1", "wmC3"]
    assert groups.invite(chat, ["wmC4"], "wmC1", org.now_s, link=True) == ["wmC4"]
    assert groups.scan(chat, "wmC5", org.now_s)
    assert [(e["UpdateDetail"], e["JoinScene"], e["QuitScene"]) for e in org.told] == [
        ("add_member", "0", "0"),
        ("add_member", "0", "0"),
        ("add_member", "3", "0"),
    ]
    assert (org.told[0]["MemChangeCnt"], org.told[0]["MemChangeList"]) == ("2", "wmC1,wmC3")
    org.advance(2)
    members = (await shown(org, chat))["member_list"]
    assert [(m["userid"], m["join_scene"]) for m in members[1:]] == [("wmC1", 1), ("wmC3", 1), ("wmC4", 2), ("wmC5", 3)]
    assert members[3]["invitor"] == {"userid": "wmC1"}


async def test_member_versions_form_a_chain(org):
    """2.2: each LastMemVer is the CurMemVer before it, and the newest is what groupchat/get returns."""
    groups = org.groups()
    chat = groups.create("s1", [], org.now_s)
    first = (await shown(org, chat))["member_version"]
    org.told.clear()
    groups.invite(chat, ["wmC1"], "s1", org.now_s)
    groups.change_name(chat, "新名", org.now_s)
    groups.remove(chat, ["wmC1"], org.now_s)
    joined, renamed, left = org.told
    assert joined["LastMemVer"] == first
    assert left["LastMemVer"] == joined["CurMemVer"]
    assert "CurMemVer" not in renamed
    assert len({first, joined["CurMemVer"], left["CurMemVer"]}) == 3
    org.advance(2)
    assert (await shown(org, chat))["member_version"] == left["CurMemVer"]


@pytest.mark.covers("fact:6.11", "fact:6.12")
async def test_details_lag_two_seconds(org):
    """1.7: what an event told is readable about two seconds later."""
    groups = org.groups()
    chat = groups.create("s1", [], org.now_s)
    org.advance(10)
    groups.change_notice(chat, "一", org.now_s)
    org.advance(1)
    groups.change_notice(chat, "二", org.now_s)
    assert (await shown(org, chat))["notice"] == ""
    org.advance(1)
    assert (await shown(org, chat))["notice"] == "一"
    org.advance(1)
    assert (await shown(org, chat))["notice"] == "二"


@pytest.mark.covers("event:change_external_chat/update")
async def test_leaving_by_oneself_and_being_put_out(org):
    """2.2: QuitScene 0 left, 1 removed; the owner stays until the group is handed on."""
    groups = org.groups()
    chat = groups.create("s1", ["wmC1", "wmC3", "s2"], org.now_s)
    org.told.clear()
    assert groups.quit(chat, "wmC1", org.now_s)
    assert groups.remove(chat, ["wmC3", "wmC4"], org.now_s)
    assert not groups.quit(chat, "s1", org.now_s)
    assert [(e["QuitScene"], e["MemChangeCnt"], e["MemChangeList"]) for e in org.told] == [
        ("0", "1", "wmC1"),
        ("1", "1", "wmC3"),
    ]
    assert {e["UpdateDetail"] for e in org.told} == {"del_member"}


@pytest.mark.covers("event:change_external_chat/update")
async def test_owner_name_and_notice_change(org):
    """2.2: change_owner, change_name and change_notice are told; administrators are not."""
    groups = org.groups()
    chat = groups.create("s1", ["s2", "wmC1"], org.now_s)
    org.told.clear()
    assert groups.change_owner(chat, "s2", org.now_s)
    assert not groups.change_owner(chat, "s3", org.now_s)
    assert groups.change_name(chat, "老客群", org.now_s)
    assert groups.change_notice(chat, "周五上新", org.now_s)
    assert groups.appoint(chat, ["s1", "wmC1"], org.now_s)
    assert [e["UpdateDetail"] for e in org.told] == ["change_owner", "change_name", "change_notice"]
    org.advance(2)
    group = await shown(org, chat)
    assert (group["owner"], group["name"], group["notice"]) == ("s2", "老客群", "周五上新")
    assert group["admin_list"] == [{"userid": "s1"}]


@pytest.mark.covers("event:change_external_chat/dismiss")
async def test_a_dismissed_group_is_gone(org):
    """2.2: dismiss is told; then 49008, and the list does not have it any more."""
    groups = org.groups()
    chat = groups.create("s1", ["wmC1"], org.now_s)
    assert groups.dismiss(chat, org.now_s)
    assert org.told[-1]["ChangeType"] == "dismiss"
    assert await org.code(GET, {"chat_id": chat}) == 49008
    assert (await org.ok(LIST, {"limit": 10}))["group_chat_list"] == []
    assert not groups.scan(chat, "wmC3", org.now_s)
    assert await org.code("externalcontact/opengid_to_chatid", {"opengid": groups.opengid(chat)}) == 49008


@pytest.mark.parametrize(
    ("body", "errcode"),
    [({}, 40058), ({"chat_id": "wrNone"}, 90501), ({"chat_id": 1}, 40035), ({"chat_id": ""}, 40058)],
)
async def test_groups_that_are_none(org, body, errcode):
    """3.7: an unknown chat_id is not a customer group."""
    assert await org.code(GET, body) == errcode


async def test_sizes(org):
    """5.3: a group has a limit, and its code stops working earlier."""
    groups = org.groups(size=4, scannable_until=3)
    chat = groups.create("s1", ["wmC1"], org.now_s)
    assert groups.scan(chat, "wmC3", org.now_s)
    assert not groups.scan(chat, "wmC4", org.now_s)
    assert groups.invite(chat, ["wmC4", "wmC5"], "s1", org.now_s) == ["wmC4"]
    assert groups.invite(chat, ["wmC5"], "s1", org.now_s) == []


async def test_people_who_are_in_groups_only(org):
    """5.1: external people in groups and nobody's customers, kept as people come and go."""
    groups = org.groups()
    org.friends("s1", "wmC1")
    chat = groups.create("s1", ["wmC1", "wmC3", "wmC4"], org.now_s)
    other = groups.create("s2", ["wmC3"], org.now_s)
    assert list(groups.outside_members()) == ["wmC3", "wmC4"]
    assert [group.chat_id for group in groups.groups_of("wmC3")] == [chat, other]
    org.friends("s2", "wmC3")
    assert list(groups.outside_members()) == ["wmC4"]
    org.advance(5)
    org.friends("s1", "wmC1", change="delete_by_customer")  # one-way: still the member's
    assert list(groups.outside_members()) == ["wmC4"]
    org.advance(5)
    org.friends("s1", "wmC1", change="delete_by_staff")
    assert list(groups.outside_members()) == ["wmC4", "wmC1"]
    groups.quit(chat, "wmC4", org.now_s)
    assert list(groups.outside_members()) == ["wmC1"]
    groups.dismiss(chat, org.now_s)
    assert list(groups.outside_members()) == []


@pytest.mark.parametrize(
    "platform_rules",
    [{"scale": {"prices": [{"since_s": 0, "free": 3, "tiers": []}], "buys_itself": False}}],
    indirect=True,
)
async def test_no_invitations_beyond_the_scale(org):
    """5.1: when the corp's scale is used up nobody new gets into its groups; colleagues and customers do."""
    groups = org.groups()
    org.friends("s1", "wmC1")  # the second one, with the story's wmC2
    chat = groups.create("s1", ["s2", "wmC1", "wmC3", "wmC4"], org.now_s)
    assert list(groups.get(chat).now.members) == ["s1", "s2", "wmC1", "wmC3"]
    assert groups.invite(chat, ["s3", "wmC4", "wmC2"], "s1", org.now_s) == ["s3", "wmC2"]
    assert not groups.scan(chat, "wmC5", org.now_s)


@pytest.mark.covers("externalcontact/groupchat/list", "fact:6.10")
async def test_the_list_is_paged_and_filtered(org):
    """3.7: by status and owner; groups of who left are listed when the owner is named."""
    groups = org.groups()
    chats = [groups.create(f"s{1 + n % 2}", [], org.now_s) for n in range(5)]
    first = await org.ok(LIST, {"limit": 2})
    assert [g["chat_id"] for g in first["group_chat_list"]] == chats[:2]
    second = await org.ok(LIST, {"limit": 3, "cursor": first["next_cursor"]})
    assert [g["chat_id"] for g in second["group_chat_list"]] == chats[2:]
    assert second["next_cursor"] == ""
    owned = await org.ok(LIST, {"limit": 2, "owner_filter": {"userid_list": ["s1"]}})
    assert [g["chat_id"] for g in owned["group_chat_list"]] == [chats[0], chats[2]]
    more = {"limit": 2, "owner_filter": {"userid_list": ["s1"]}, "cursor": owned["next_cursor"]}
    assert [g["chat_id"] for g in (await org.ok(LIST, more))["group_chat_list"]] == [chats[4]]
    org.roster().leave("s1", org.now_s)
    assert [g["chat_id"] for g in (await org.ok(LIST, {"limit": 9}))["group_chat_list"]] == [chats[1], chats[3]]
    left = {"limit": 9, "status_filter": 1, "owner_filter": {"userid_list": ["s1", "s2"]}}
    assert {g["chat_id"]: g["status"] for g in (await org.ok(LIST, left))["group_chat_list"]} == {
        chats[0]: 1,
        chats[2]: 1,
        chats[4]: 1,
    }


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, 40058),
        ({"limit": 0}, 40035),
        ({"limit": 1001}, 40035),
        ({"limit": 1, "status_filter": 4}, 40035),
        ({"limit": 1, "owner_filter": []}, 40035),
        ({"limit": 1, "owner_filter": {"userid_list": ["nobody"]}}, 60111),
        ({"limit": 1, "owner_filter": {"userid_list": [f"s{n}" for n in range(101)]}}, 40032),
        ({"limit": 1, "cursor": "x"}, 50100),
    ],
)
async def test_what_the_list_refuses(org, body, errcode):
    """3.7: limit 1 to 1000, at most 100 owners, four states."""
    answer = await org.wecom.post(LIST, body)
    assert (answer["errcode"], answer["group_chat_list"]) == (errcode, [])


async def test_too_many_members_need_an_owner_filter(org):
    """3.7: with more than 1000 visible members a list without owner_filter is 81017."""
    org.groups(unfiltered_members=4)
    assert await org.code(LIST, {"limit": 1}) == 81017
    assert await org.code(LIST, {"limit": 1, "owner_filter": {"userid_list": ["s1"]}}) == 0


@pytest.mark.covers("externalcontact/opengid_to_chatid")
async def test_an_opengid_leads_to_its_group(org):
    """3.7: opengid_to_chatid; 90511 for one that is none."""
    groups = org.groups()
    chat = groups.create("s1", [], org.now_s)
    found = await org.ok("externalcontact/opengid_to_chatid", {"opengid": groups.opengid(chat)})
    assert found["chat_id"] == chat
    assert await org.code("externalcontact/opengid_to_chatid", {"opengid": "oNone"}) == 90511
    assert await org.code("externalcontact/opengid_to_chatid", {}) == 40058


@pytest.mark.covers(
    "externalcontact/groupchat/add_join_way",
    "externalcontact/groupchat/get_join_way",
    "externalcontact/groupchat/update_join_way",
    "externalcontact/groupchat/del_join_way",
)
async def test_the_life_of_a_join_way(org):
    """3.7: what is added can be read, is replaced by an update, and is gone after it was deleted."""
    chat = org.groups().create("s1", [], org.now_s)
    sent = {"scene": 2, "remark": "门店", "room_base_name": "会员群", "room_base_id": 7, "state": "store-1"}
    made = await org.ok(WAY + "add_join_way", {**sent, "chat_id_list": [chat], "mark_source": False})
    key = {"config_id": made["config_id"]}
    way = (await org.ok(WAY + "get_join_way", key))["join_way"]
    assert {name: way[name] for name in sent} == sent
    assert (way["auto_create_room"], way["chat_id_list"], way["mark_source"]) == (1, [chat], False)
    assert way["qr_code"].startswith("https://")
    await org.ok(WAY + "update_join_way", {**key, "scene": 1, "chat_id_list": [chat], "auto_create_room": 0})
    way = (await org.ok(WAY + "get_join_way", key))["join_way"]
    assert (way["scene"], way["auto_create_room"], way["remark"], way["state"]) == (1, 0, "", "")
    await org.ok(WAY + "del_join_way", key)
    assert await org.code(WAY + "get_join_way", key) == 41039
    assert org.told == org.events("change_external_chat/create")


async def test_who_scans_a_join_way_comes_with_its_state(org):
    """3.7: the group's member list carries the way's state; a full group is followed by a new one of the base name."""
    groups = org.groups(scannable_until=2)
    chat = groups.create("s1", [], org.now_s)
    body = {"scene": 2, "chat_id_list": [chat], "state": "st", "room_base_name": "会员群", "room_base_id": 3}
    config_id = (await org.ok(WAY + "add_join_way", body))["config_id"]
    assert groups.scan_way(config_id, "wmC1", org.now_s) == chat
    assert groups.scan_way(config_id, "wmC1", org.now_s) == chat
    org.told.clear()
    new = groups.scan_way(config_id, "wmC3", org.now_s)
    assert [e["ChangeType"] for e in org.told] == ["create", "update"]
    org.advance(2)
    assert (await shown(org, chat))["member_list"][1]["state"] == "st"
    group = await shown(org, new)
    assert (group["name"], group["owner"], group["member_list"][1]["userid"]) == ("会员群3", "s1", "wmC3")
    way = (await org.ok(WAY + "get_join_way", {"config_id": config_id}))["join_way"]
    assert (way["chat_id_list"], way["room_base_id"]) == ([chat, new], 4)
    groups.ways[config_id].auto_create_room = False
    assert groups.scan_way(config_id, "wmC4", org.now_s) == ""


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"scene": None}, 40058),
        ({"scene": 3}, 41038),
        ({"chat_id_list": []}, 40058),
        ({"chat_id_list": [f"wr{n}" for n in range(6)]}, 40032),
        ({"chat_id_list": ["wrNone"]}, 90501),
        ({"state": "s" * 31}, 41042),
        ({"remark": "r" * 31}, 41043),
        ({"room_base_name": "n" * 41}, 40035),
        ({"auto_create_room": "yes"}, 40035),
    ],
)
async def test_what_a_join_way_refuses(org, change, errcode):
    """3.7: scenes 1 and 2, at most 5 groups that exist, state and remark of 30 characters, base name of 40."""
    chat = org.groups().create("s1", [], org.now_s)
    assert await org.code(WAY + "add_join_way", {"scene": 2, "chat_id_list": [chat], **change}) == errcode
