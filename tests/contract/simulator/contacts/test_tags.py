"""Tags and notes of customers: fact sheet 3.3, 2.1, 2.3, 6.18."""

import asyncio

import pytest

from simulator.platform.api.contacts import contact_rules
from simulator.world.media import MESSAGE, MOMENT, MediaBook
from simulator.world.notes import Notes
from simulator.world.tags import TagBook

FOREIGN_APP = "1000099"
MARK = "externalcontact/mark_tag"
LIST = "externalcontact/get_corp_tag_list"


async def add(crm, group, *names, **more):
    """Tags through the API; ids by name, the group's too."""
    answer = await crm.ok(
        "externalcontact/add_corp_tag", group_name=group, tag=[{"name": name} for name in names], **more
    )
    made = answer["tag_group"]
    return {made["group_name"]: made["group_id"], **{tag["name"]: tag["id"] for tag in made["tag"]}}


def foreign(crm, group, *names):
    """The same by another app."""
    made = crm.tags.add(crm.now_s, [(name, 0) for name in names], app=FOREIGN_APP, group_name=group)
    return {made[0].name: made[0].id, **{tag.name: tag.id for tag in made[1]}}


async def shown(crm, **asked):
    """Names as the tag list gives them: group → tags."""
    groups = (await crm.ok(LIST, **asked))["tag_group"]
    return {group["group_name"]: [tag["name"] for tag in group["tag"]] for group in groups}


@pytest.mark.covers("externalcontact/add_corp_tag", LIST)
async def test_what_is_added_is_listed(crm):
    """3.3: add_corp_tag makes group and tags with ids in et…; get_corp_tag_list shows them by order."""
    answer = await crm.ok(
        "externalcontact/add_corp_tag",
        group_name="等级",
        order=7,
        tag=[{"name": "银", "order": 1}, {"name": "金", "order": 9}],
    )
    made = answer["tag_group"]
    assert made["group_id"].startswith("et")
    assert all(tag["id"].startswith("et") and len(tag["id"]) == 32 for tag in made["tag"])
    assert (made["order"], made["create_time"]) == (7, crm.now_s)
    await add(crm, "门店", "一店", order=8)
    assert await shown(crm) == {"门店": ["一店"], "等级": ["金", "银"]}
    (listed,) = (await crm.ok(LIST, group_id=[made["group_id"]]))["tag_group"]
    assert listed["deleted"] is False
    assert {tag["name"]: tag["order"] for tag in listed["tag"]} == {"金": 9, "银": 1}
    assert crm.events("change_external_tag") == []


@pytest.mark.covers(LIST)
async def test_group_ids_win_over_tag_ids_and_deleted_ones_can_be_asked_for(crm):
    """3.3: group_id wins; both empty means all; what was deleted says so when asked for by id."""
    one, two = await add(crm, "A", "a1", "a2"), await add(crm, "B", "b1")
    assert await shown(crm, tag_id=[one["a2"]]) == {"A": ["a2"]}
    assert await shown(crm, tag_id=[one["a2"]], group_id=[two["B"]]) == {"B": ["b1"]}
    await crm.ok("externalcontact/del_corp_tag", tag_id=[one["a2"], two["b1"]])
    assert await shown(crm) == {"A": ["a1"]}
    (gone,) = (await crm.ok(LIST, tag_id=[two["b1"]]))["tag_group"]
    assert gone["deleted"] is gone["tag"][0]["deleted"] is True
    (half,) = (await crm.ok(LIST, group_id=[one["A"]]))["tag_group"]
    assert [(tag["name"], tag["deleted"]) for tag in half["tag"]] == [("a1", False), ("a2", True)]
    refused = await crm.post(LIST, tag_id=["etNone"])
    assert (refused["errcode"], refused["tag_group"]) == (40068, [])


@pytest.mark.covers("externalcontact/add_corp_tag")
async def test_a_known_group_name_takes_more_tags_and_repeated_names_collapse(crm):
    """3.3: an existing group_name gets the tags appended; duplicate names collapse."""
    first = await add(crm, "等级", "金")
    more = await add(crm, "等级", "银", "铜", "银")
    assert more["等级"] == first["等级"]
    assert set(more) == {"等级", "银", "铜"}
    assert await shown(crm) == {"等级": ["金", "银", "铜"]}
    assert await crm.code("externalcontact/add_corp_tag", group_id=first["等级"], tag=[{"name": "金"}]) == 40071


@pytest.mark.covers("externalcontact/add_corp_tag")
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"tag": [{"name": "x"}]}, 40058),
        ({"group_name": "g"}, 40058),
        ({"group_name": "g", "tag": []}, 40058),
        ({"group_name": "g", "tag": [{"name": ""}]}, 40072),
        ({"group_name": "g", "tag": [{}]}, 40072),
        ({"group_name": "g", "tag": [{"name": "长" * 31}]}, 40072),
        ({"group_name": "长" * 31, "tag": [{"name": "x"}]}, 40072),
        ({"group_id": "etNone", "tag": [{"name": "x"}]}, 40068),
        ({"group_name": "g", "tag": {"name": "x"}}, 40035),
        ({"group_name": "g", "tag": ["x"]}, 40035),
        ({"group_name": 1, "tag": [{"name": "x"}]}, 40035),
        ({"group_name": "g", "tag": [{"name": "x", "order": -1}]}, 40035),
        ({"group_name": "g", "tag": [{"name": "x", "order": "1"}]}, 40035),
        ({"group_name": "g", "tag": [{"name": "x"}], "agentid": 1}, 301002),
        ({"group_name": "g", "tag": [{"name": "x"}], "agentid": -1}, 40056),
    ],
)
async def test_wrong_tags_are_refused_and_nothing_is_made(crm, body, errcode):
    """3.3: names of 1 to 30 characters, no empty groups, the app's own agentid."""
    assert await crm.code("externalcontact/add_corp_tag", **body) == errcode
    assert await shown(crm) == {}


@pytest.mark.covers("externalcontact/add_corp_tag")
async def test_the_own_agentid_may_be_named(crm):
    """3.3: agentid names the app for which the tag is made."""
    assert set(await add(crm, "g", "x", agentid=1000002)) == {"g", "x"}


@pytest.mark.covers("externalcontact/add_corp_tag", "fact:6.18")
async def test_a_corp_has_ten_thousand_tags_at_most(crm):
    """3.3: 10,000 tags per corp, then 40126; a deleted tag makes room."""
    assert crm.tags.rules.most_tags == 10_000
    crm.rules(TagBook, most_tags=3)
    made = await add(crm, "g", "1", "2")
    assert await crm.code("externalcontact/add_corp_tag", group_name="h", tag=[{"name": "3"}, {"name": "4"}]) == 40126
    assert await shown(crm) == {"g": ["1", "2"]}
    await crm.ok("externalcontact/del_corp_tag", tag_id=[made["1"]])
    await add(crm, "h", "3", "4")


@pytest.mark.covers("externalcontact/edit_corp_tag", "fact:6.18")
async def test_names_are_unique_in_the_group_and_group_names_in_the_corp(crm):
    """3.3: edit_corp_tag changes name and order of a tag or group; a name that is there already is 40071."""
    a, b = await add(crm, "A", "x", "y"), await add(crm, "B", "x")
    edit = "externalcontact/edit_corp_tag"
    await crm.ok(edit, id=a["x"], name="z")
    await crm.ok(edit, id=a["y"], order=5)
    await crm.ok(edit, id=b["B"], name="C", order=9)
    assert await shown(crm) == {"C": ["x"], "A": ["y", "z"]}
    assert await crm.code(edit, id=a["y"], name="z") == 40071
    assert await crm.code(edit, id=b["B"], name="A") == 40071
    assert await crm.code(edit, id=a["y"], name="长" * 31) == 40072
    assert await crm.code(edit, id=a["y"], name="y") == 0
    assert await crm.code(edit, id="etNone", name="q") == 40068
    assert await crm.code(edit, name="q") == 40058


@pytest.mark.covers("externalcontact/edit_corp_tag", "externalcontact/del_corp_tag", "fact:6.18")
async def test_an_app_changes_only_what_it_made(crm):
    """3.3: tags of the console or of another app can be used, but neither edited nor deleted."""
    other = foreign(crm, "门店", "一店")
    own = await add(crm, "门店", "二店", order=9)
    assert own["门店"] == other["门店"]
    assert crm.tags.groups[own["门店"]].order == 0
    edit, delete = "externalcontact/edit_corp_tag", "externalcontact/del_corp_tag"
    assert await crm.code(edit, id=other["一店"], name="q") == 92000
    assert await crm.code(edit, id=other["门店"], name="q") == 92000
    assert await crm.code(delete, tag_id=[own["二店"], other["一店"]]) == 92000
    assert await crm.code(delete, group_id=[other["门店"]]) == 92000
    assert await shown(crm) == {"门店": ["一店", "二店"]}
    mine = await add(crm, "等级", "金")
    foreign(crm, "等级", "银")
    assert await crm.code(delete, group_id=[mine["等级"]]) == 92000
    await crm.ok(delete, tag_id=[own["二店"]])
    assert await shown(crm) == {"门店": ["一店"], "等级": ["金", "银"]}


@pytest.mark.covers("externalcontact/del_corp_tag", "fact:6.18")
async def test_the_last_tag_deleted_takes_its_group_along(crm):
    """3.3: last tag deleted ⇒ group vanishes; a deleted group takes its tags along; both leave the customers."""
    a, b = await add(crm, "A", "1", "2"), await add(crm, "B", "3")
    crm.meet("s1", "wmC1")
    await crm.ok(MARK, userid="s1", external_userid="wmC1", add_tag=[a["1"], a["2"], b["3"]])
    delete = "externalcontact/del_corp_tag"
    await crm.ok(delete, tag_id=[a["1"]])
    assert await shown(crm) == {"A": ["2"], "B": ["3"]}
    await crm.ok(delete, tag_id=[a["2"]])
    assert await shown(crm) == {"B": ["3"]}
    assert [tag["tag_name"] for tag in (await crm.follow("wmC1"))["tags"]] == ["3"]
    await crm.ok(delete, group_id=[b["B"]])
    assert await shown(crm) == {}
    assert (await crm.follow("wmC1"))["tags"] == []
    assert await crm.code(delete, tag_id=[a["1"]]) == 40068
    assert await crm.code(delete) == 41111


@pytest.mark.covers(MARK, "externalcontact/get", "externalcontact/batch/get_by_user")
async def test_marks_are_read_back_and_belong_to_one_member(crm):
    """3.3: mark_tag adds and removes, several tags of one group too; every reader shows them, no callback does."""
    tags = await add(crm, "等级", "金", "银", "铜")
    crm.meet("s1", "wmC1")
    crm.meet("s2", "wmC1")
    await crm.ok(MARK, userid="s1", external_userid="wmC1", add_tag=[tags["金"], tags["银"]])
    await crm.ok(MARK, userid="s1", external_userid="wmC1", add_tag=[tags["铜"]], remove_tag=[tags["金"]])
    follow = await crm.follow("wmC1")
    assert follow["tags"] == [
        {"group_name": "等级", "tag_name": "银", "tag_id": tags["银"], "type": 1},
        {"group_name": "等级", "tag_name": "铜", "tag_id": tags["铜"], "type": 1},
    ]
    assert (await crm.follow("wmC1", "s2"))["tags"] == []
    (row,) = (await crm.ok("externalcontact/batch/get_by_user", userid_list=["s1"]))["external_contact_list"]
    assert row["follow_info"]["tag_id"] == [tags["银"], tags["铜"]]
    assert crm.events("change_external_contact", "edit_external_contact") == []


@pytest.mark.covers(MARK)
async def test_wrong_marks_are_refused(crm):
    """3.3: not both lists empty, known tags, a customer of the member's; half-added ones are none."""
    tags = await add(crm, "等级", "金")
    crm.meet("s1", "wmC1")
    crm.meet("s1", "wmC2", change="add_half")
    pair = {"userid": "s1", "external_userid": "wmC1"}
    good = {**pair, "add_tag": [tags["金"]]}
    for body, errcode in [
        (pair, 41111),
        ({**pair, "add_tag": [], "remove_tag": []}, 41111),
        ({**pair, "add_tag": [f"et{n}" for n in range(1_001)]}, 41111),
        ({**pair, "add_tag": ["etNone"]}, 40068),
        ({**pair, "remove_tag": ["etNone"]}, 40068),
        ({**pair, "add_tag": tags["金"]}, 40035),
        ({**good, "userid": 7}, 40035),
        ({**good, "external_userid": "wmC2"}, 84061),
        ({**good, "external_userid": "wmC3"}, 84061),
        ({**good, "external_userid": "wmNobody"}, 40096),
        ({**good, "external_userid": ""}, 41035),
        ({**good, "userid": "nobody"}, 60111),
    ]:
        assert await crm.code(MARK, **body) == errcode, body
    assert (await crm.follow("wmC1"))["tags"] == []


@pytest.mark.covers(MARK, "fact:6.18")
async def test_a_customer_carries_three_thousand_tags_of_a_member_at_most(crm):
    """3.3: ≤ 3000 tags per (staff, customer), then 40144 and nothing is marked; another member has their own 3000."""
    assert crm.tags.rules.marks_a_pair == 3_000
    crm.rules(TagBook, marks_a_pair=2)
    tags = await add(crm, "g", "1", "2", "3")
    crm.meet("s1", "wmC1")
    crm.meet("s2", "wmC1")
    pair = {"userid": "s1", "external_userid": "wmC1"}
    await crm.ok(MARK, **pair, add_tag=[tags["1"]])
    assert await crm.code(MARK, **pair, add_tag=[tags["2"], tags["3"]]) == 40144
    assert [tag["tag_name"] for tag in (await crm.follow("wmC1"))["tags"]] == ["1"]
    await crm.ok(MARK, **pair, add_tag=[tags["2"], tags["3"]], remove_tag=[tags["1"]])
    await crm.ok(MARK, userid="s2", external_userid="wmC1", add_tag=[tags["1"]])


@pytest.mark.covers(MARK, "fact:6.6")
@pytest.mark.parametrize("sim_settings", [{"latency_milliseconds": 40}], indirect=True)
async def test_a_second_writer_of_the_same_pair_gets_45035(crm):
    """4.2: two writers on one record → 45035; other pairs are not touched by it."""
    tags = await add(crm, "g", "1")
    crm.meet("s1", "wmC1", "wmC2")
    codes = await asyncio.gather(
        *(
            crm.code(MARK, userid="s1", external_userid=customer, add_tag=[tags["1"]])
            for customer in ("wmC1", "wmC1", "wmC2")
        )
    )
    assert sorted(codes[:2]) == [0, 45035]
    assert codes[2] == 0


@pytest.mark.covers("externalcontact/remark", "externalcontact/get", "externalcontact/batch/get_by_user")
async def test_a_remark_is_read_back_and_not_called_back(crm):
    """3.3: remark writes what is given and leaves the rest; mobiles overwrite, [""] clears them."""
    crm.meet("s1", "wmC1")
    pair = {"userid": "s1", "external_userid": "wmC1"}
    await crm.ok(
        "externalcontact/remark",
        **pair,
        remark="李部长",
        description="常客",
        remark_company="腾讯科技",
        remark_mobiles=["13800000001", "13800000002"],
    )
    await crm.ok("externalcontact/remark", **pair, remark="李总", remark_mobiles=["13800000003"])
    follow = await crm.follow("wmC1")
    noted = (follow["remark"], follow["description"], follow["remark_corp_name"], follow["remark_mobiles"])
    assert noted == ("李总", "常客", "腾讯科技", ["13800000003"])
    await crm.ok("externalcontact/remark", **pair, remark_mobiles=[""])
    (row,) = (await crm.ok("externalcontact/batch/get_by_user", userid_list=["s1"]))["external_contact_list"]
    assert (row["follow_info"]["remark"], row["follow_info"]["remark_mobiles"]) == ("李总", [])
    assert crm.events("change_external_contact", "edit_external_contact") == []


@pytest.mark.covers("externalcontact/remark")
async def test_the_company_is_for_wechat_users_only(crm):
    """3.3: remark_company (WeChat users only): of a WeCom user it is not kept."""
    crm.meet("s1", "wmC40")
    await crm.ok("externalcontact/remark", userid="s1", external_userid="wmC40", remark="王", remark_company="某某")
    assert "remark_corp_name" not in await crm.follow("wmC40")


@pytest.mark.covers("externalcontact/remark")
async def test_wrong_remarks_are_refused(crm):
    """3.3: at least one field; remark ≤ 20, description ≤ 150, remark_company ≤ 20 characters."""
    rules = crm.corp.of(contact_rules)
    assert (rules.remark_chars, rules.description_chars, rules.company_chars) == (20, 150, 20)
    crm.meet("s1", "wmC1")
    pair = {"userid": "s1", "external_userid": "wmC1"}
    for body, errcode in [
        (pair, 40058),
        ({**pair, "remark": "", "remark_mobiles": []}, 40058),
        ({**pair, "remark": "长" * 21}, 40035),
        ({**pair, "description": "长" * 151}, 40035),
        ({**pair, "remark_company": "长" * 21}, 40035),
        ({**pair, "remark": 5}, 40035),
        ({**pair, "remark_mobiles": "138"}, 40035),
        ({**pair, "remark_mobiles": [138]}, 40035),
        ({**pair, "remark_pic_mediaid": "none"}, 40007),
        ({**pair, "external_userid": "wmC2", "remark": "x"}, 84061),
        ({**pair, "userid": "nobody", "remark": "x"}, 60111),
    ]:
        assert await crm.code("externalcontact/remark", **body) == errcode, body
    assert await crm.code("externalcontact/remark", **pair, remark="长" * 20, description="长" * 150) == 0


@pytest.mark.covers("externalcontact/remark")
async def test_a_remarks_picture_is_an_uploaded_one_of_the_right_scene(crm):
    """3.4: media_ids live three days, and those of another scene are refused."""
    crm.meet("s1", "wmC1")
    media = crm.corp.of(MediaBook)
    good, moment = [media.add("image", scene, b"x", "image/png", "x.png", crm.now_s) for scene in (MESSAGE, MOMENT)]
    pair = {"userid": "s1", "external_userid": "wmC1"}
    assert await crm.code("externalcontact/remark", **pair, remark_pic_mediaid=good.media_id) == 0
    assert await crm.code("externalcontact/remark", **pair, remark_pic_mediaid=moment.media_id) == 40145
    assert crm.corp.of(Notes).get("s1", "wmC1").picture == good.media_id


@pytest.mark.covers("event:change_external_contact/edit_external_contact")
async def test_an_edit_in_the_client_is_called_back_without_a_diff(crm):
    """2.1: staff change remark, phone or tags in the client: edit_external_contact, to be read again."""
    tags = await add(crm, "g", "1", "2")
    crm.meet("s1", "wmC1")
    notes = crm.corp.of(Notes)
    crm.advance(5)
    edited = notes.edit_in_client(
        crm.now_s, "s1", "wmC1", remark="老王", mobiles=["139"], add_tags=[tags["1"]], personal=["跟进"]
    )
    assert edited
    (event,) = crm.events("change_external_contact", "edit_external_contact")
    assert (event["UserID"], event["ExternalUserID"]) == ("s1", "wmC1")
    assert set(event) == {"ToUserName", "FromUserName", "CreateTime", "MsgType", "Event", "ChangeType"} | {
        "UserID",
        "ExternalUserID",
    }
    follow = await crm.follow("wmC1")
    assert (follow["remark"], follow["remark_mobiles"]) == ("老王", ["139"])
    assert [(tag["tag_name"], tag["type"], "tag_id" in tag) for tag in follow["tags"]] == [
        ("1", 1, True),
        ("跟进", 2, False),
    ]
    (row,) = (await crm.ok("externalcontact/batch/get_by_user", userid_list=["s1"]))["external_contact_list"]
    assert row["follow_info"]["tag_id"] == [tags["1"]]
    assert not notes.edit_in_client(crm.now_s + 9, "s2", "wmC1", remark="x")


@pytest.mark.covers("externalcontact/get")
async def test_notes_outlive_the_customers_parting_and_not_the_members(crm):
    """2.1: after del_follow_user the contact stays readable with its notes; who is added again after a deletion by the
    staff member begins with an empty page."""
    tags = await add(crm, "g", "1")
    crm.meet("s1", "wmC1")
    pair = {"userid": "s1", "external_userid": "wmC1"}
    await crm.ok(MARK, **pair, add_tag=[tags["1"]])
    await crm.ok("externalcontact/remark", **pair, remark="老王")
    crm.meet("s1", "wmC1", change="delete_by_customer")
    assert await crm.code("externalcontact/remark", **pair, description="走了") == 0
    crm.meet("s1", "wmC1")
    follow = await crm.follow("wmC1")
    assert (follow["remark"], follow["description"], len(follow["tags"])) == ("老王", "走了", 1)
    crm.meet("s1", "wmC1", change="delete_by_staff")
    assert await crm.code("externalcontact/remark", **pair, remark="x") == 84061
    crm.meet("s1", "wmC1")
    follow = await crm.follow("wmC1")
    assert (follow["remark"], follow["tags"]) == ("", [])


@pytest.mark.covers("event:change_external_tag/create")
async def test_tags_made_in_the_console_are_called_back(crm):
    """2.3: create for the new group and for each tag, with Id, TagType; no StrategyId for a self-built app."""
    group, (gold, silver) = crm.tags.create_in_console(crm.now_s, "等级", ["金", "银"])
    crm.tags.create_in_console(crm.now_s, "等级", ["铜"])
    told = [(event["Id"], event["TagType"]) for event in crm.events("change_external_tag", "create")]
    assert told[:3] == [(group.id, "tag_group"), (gold.id, "tag"), (silver.id, "tag")]
    assert [kind for _, kind in told[3:]] == ["tag"]
    assert not any("StrategyId" in event for event in crm.told)
    assert await shown(crm) == {"等级": ["金", "银", "铜"]}
    assert await crm.code("externalcontact/edit_corp_tag", id=gold.id, name="钻") == 92000


@pytest.mark.covers("event:change_external_tag/update")
async def test_a_rename_in_the_console_is_called_back(crm):
    """2.3: update is the same event as create but for ChangeType."""
    group, (gold,) = crm.tags.create_in_console(crm.now_s, "等级", ["金"])
    crm.tags.edit_in_console(crm.now_s, gold, "钻")
    crm.tags.edit_in_console(crm.now_s, group, "级别")
    told = [(event["Id"], event["TagType"]) for event in crm.events("change_external_tag", "update")]
    assert told == [(gold.id, "tag"), (group.id, "tag_group")]
    assert await shown(crm) == {"级别": ["钻"]}


@pytest.mark.covers("event:change_external_tag/delete")
async def test_deleting_a_group_fires_one_event_and_none_for_its_tags(crm):
    """2.3: one event for the group; a last tag's own deletion is followed by its group's."""
    group, _ = crm.tags.create_in_console(crm.now_s, "等级", ["金", "银"])
    lonely, (only,) = crm.tags.create_in_console(crm.now_s, "门店", ["一店"])
    crm.tags.delete_in_console(crm.now_s, group)
    crm.tags.delete_in_console(crm.now_s, only)
    told = [(event["Id"], event["TagType"]) for event in crm.events("change_external_tag", "delete")]
    assert told == [(group.id, "tag_group"), (only.id, "tag"), (lonely.id, "tag_group")]
    assert await shown(crm) == {}


@pytest.mark.covers("event:change_external_tag/shuffle", "fact:6.18")
async def test_another_order_is_told_by_group_or_for_all_groups(crm):
    """2.3: shuffle carries the group's id, empty when the groups themselves were re-ordered; order values change."""
    a, (one, two) = crm.tags.create_in_console(crm.now_s, "A", ["1", "2"])
    b, _ = crm.tags.create_in_console(crm.now_s, "B", ["3"])
    crm.tags.shuffle_in_console(crm.now_s, [two.id, one.id], group=a)
    crm.tags.shuffle_in_console(crm.now_s, [b.id, a.id])
    events = crm.events("change_external_tag", "shuffle")
    assert [event["Id"] for event in events] == [a.id, ""]
    assert all("TagType" not in event for event in events)
    assert await shown(crm) == {"B": ["3"], "A": ["2", "1"]}
