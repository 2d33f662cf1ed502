"""Rule groups and their tags: fact sheet 3.3."""

import asyncio

import pytest

from simulator.world.strategies import BASE_RIGHTS, RIGHTS, Strategies
from simulator.world.tags import CONSOLE

BASE = "externalcontact/customer_strategy/"
ROOT = {"type": 2, "partyid": 1}


async def create(crm, name="规则", **more):
    body = {"strategy_name": name, "admin_list": ["s1"], "range": [ROOT], **more}
    return (await crm.ok(BASE + "create", **body))["strategy_id"]


async def nodes(crm, strategy_id):
    found = (await crm.ok(BASE + "get_range", strategy_id=strategy_id))["range"]
    return [node.get("userid", node.get("partyid")) for node in found]


@pytest.mark.covers(BASE + "create", BASE + "get", BASE + "get_range")
async def test_a_rule_group_is_read_back_as_it_was_made(crm):
    """3.3: customer_strategy has name, parent, administrators, 21 rights and a range of members and departments."""
    strategy_id = await create(
        crm,
        admin_list=["s1", "s2"],
        privilege={"share_customer": False, "contact_me": False},
        range=[ROOT, {"type": 1, "userid": "s4"}],
    )
    shown = (await crm.ok(BASE + "get", strategy_id=strategy_id))["strategy"]
    rights = shown.pop("privilege")
    assert shown == {
        "strategy_id": strategy_id,
        "parent_id": 0,
        "strategy_name": "规则",
        "create_time": crm.now_s,
        "admin_list": ["s1", "s2"],
    }
    assert len(rights) == len(RIGHTS) == 21
    assert [right for right, given in rights.items() if not given] == ["share_customer"]
    assert all(rights[right] for right in BASE_RIGHTS)
    assert (await crm.ok(BASE + "get_range", strategy_id=strategy_id))["range"] == [ROOT, {"type": 1, "userid": "s4"}]


@pytest.mark.covers(BASE + "list", BASE + "get_range", "fact:6.10")
async def test_the_last_page_has_no_next_cursor(crm):
    """6: next_cursor is absent at the end of strategy lists, not empty."""
    made = [await create(crm, f"规则{n}") for n in range(3)]
    first = await crm.ok(BASE + "list", limit=2)
    last = await crm.ok(BASE + "list", limit=2, cursor=first["next_cursor"])
    assert [s["strategy_id"] for s in first["strategy"] + last["strategy"]] == made
    assert "next_cursor" not in last
    assert "next_cursor" not in await crm.ok(BASE + "get_range", strategy_id=made[0])
    assert (await crm.post(BASE + "list", limit=1_001))["errcode"] == 40035
    assert (await crm.post(BASE + "list", cursor="x"))["errcode"] == 50100


@pytest.mark.covers(BASE + "list", BASE + "get")
async def test_an_app_sees_only_rule_groups_it_created(crm):
    """3.3: an app sees only rule groups it created."""
    strategies = crm.corp.of(Strategies)
    other = strategies.create(crm.now_s, "1000099", name="别人", parent=0, admins=["s1"], rights={}, nodes=[(2, 1)])
    own = await create(crm)
    assert (await crm.ok(BASE + "list"))["strategy"] == [{"strategy_id": own}]
    for path, body in {"get": {}, "get_range": {}, "edit": {"strategy_name": "x"}, "del": {}}.items():
        assert await crm.code(BASE + path, strategy_id=other.id, **body) == 40035
    assert (
        await crm.code(BASE + "create", strategy_name="x", admin_list=["s1"], range=[ROOT], parent_id=other.id) == 40035
    )


@pytest.mark.covers(BASE + "create")
@pytest.mark.parametrize(
    ("more", "errcode"),
    [
        ({"strategy_name": ""}, 40058),
        ({"strategy_name": "长" * 31}, 40035),
        ({"admin_list": []}, 40058),
        ({"admin_list": [f"u{n}" for n in range(21)]}, 40031),
        ({"admin_list": ["nobody"]}, 60111),
        ({"range": []}, 40058),
        ({"range": [{"type": 1, "userid": "s1"}] * 101}, 40032),
        ({"range": [{"type": 1, "userid": "nobody"}]}, 60111),
        ({"range": [{"type": 2, "partyid": 99}]}, 60123),
        ({"range": [{"type": 3}]}, 40035),
        ({"range": [{"type": 1}]}, 40058),
        ({"range": ["s1"]}, 40035),
        ({"privilege": {"share_customer": "no"}}, 40035),
        ({"privilege": []}, 40035),
        ({"parent_id": 77}, 40035),
        ({"parent_id": "1"}, 40035),
    ],
)
async def test_a_wrong_rule_group_is_refused(crm, more, errcode):
    """3.3: ≤ 20 administrators, ≤ 100 nodes per call, known members and departments."""
    body = {"strategy_name": "x", "admin_list": ["s1"], "range": [ROOT], **more}
    assert await crm.code(BASE + "create", **body) == errcode
    assert (await crm.ok(BASE + "list"))["strategy"] == []


@pytest.mark.covers(BASE + "create", BASE + "edit")
async def test_a_group_below_manages_a_part_and_has_the_rights_of_the_upper_one(crm):
    """3.3: with a parent the range is a part of the parent's, and the rights are the parent's."""
    top = await create(crm, range=[{"type": 2, "partyid": 2}], privilege={"rapid_reply": False})
    body = {"strategy_name": "x", "admin_list": ["s1"], "parent_id": top}
    assert await crm.code(BASE + "create", **body, range=[{"type": 2, "partyid": 4}]) == 40035
    assert await crm.code(BASE + "create", **body, range=[{"type": 1, "userid": "s1"}]) == 40035
    below = await create(
        crm, parent_id=top, range=[{"type": 2, "partyid": 3}, {"type": 1, "userid": "s4"}], privilege={}
    )
    shown = (await crm.ok(BASE + "get", strategy_id=below))["strategy"]
    assert shown["parent_id"] == top
    assert shown["privilege"]["rapid_reply"] is False
    assert await crm.code(BASE + "edit", strategy_id=below, range_add=[{"type": 2, "partyid": 4}]) == 40035
    shrink = {"range_add": [{"type": 2, "partyid": 3}], "range_del": [{"type": 2, "partyid": 2}]}
    assert await crm.code(BASE + "edit", strategy_id=top, **shrink) == 40035


@pytest.mark.covers(BASE + "create")
async def test_rule_groups_are_five_deep_at_most(crm):
    """3.3: depth ≤ 5."""
    parent = 0
    for _ in range(5):
        parent = await create(crm, parent_id=parent)
    body = {"strategy_name": "x", "admin_list": ["s1"], "range": [ROOT], "parent_id": parent}
    assert await crm.code(BASE + "create", **body) == 40035


@pytest.mark.covers(BASE + "edit")
async def test_an_edit_replaces_what_is_given_and_moves_the_range(crm):
    """3.3: edit overwrites name, administrators, rights; range_add and range_del change the range; ≤ 3000 nodes."""
    strategy_id = await create(crm)
    await crm.ok(BASE + "edit", strategy_id=strategy_id, strategy_name="新", privilege={"rapid_reply": False})
    await crm.ok(BASE + "edit", strategy_id=strategy_id, admin_list=["s2"])
    change = {"range_add": [{"type": 1, "userid": "s1"}], "range_del": [ROOT]}
    await crm.ok(BASE + "edit", strategy_id=strategy_id, **change)
    shown = (await crm.ok(BASE + "get", strategy_id=strategy_id))["strategy"]
    assert (shown["strategy_name"], shown["admin_list"], shown["privilege"]["rapid_reply"]) == ("新", ["s2"], False)
    assert await nodes(crm, strategy_id) == ["s1"]
    assert await crm.code(BASE + "edit", strategy_id=strategy_id, range_del=[{"type": 1, "userid": "s1"}]) == 40035
    crm.rules(Strategies, nodes=2)
    add = [{"type": 1, "userid": "s2"}, {"type": 1, "userid": "s3"}]
    assert await crm.code(BASE + "edit", strategy_id=strategy_id, range_add=add) == 40035
    assert await nodes(crm, strategy_id) == ["s1"]


@pytest.mark.covers(BASE + "del")
async def test_a_deleted_rule_group_takes_those_below_and_its_tags_along(crm):
    """3.3: after del the rule group is unknown; the platform documents nothing of what hangs on it."""
    top = await create(crm)
    below = await create(crm, parent_id=top)
    await crm.ok("externalcontact/add_strategy_tag", strategy_id=below, group_name="g", tag=[{"name": "x"}])
    await crm.ok(BASE + "del", strategy_id=top)
    assert (await crm.ok(BASE + "list"))["strategy"] == []
    assert await crm.code(BASE + "get", strategy_id=below) == 40035
    assert (await crm.ok("externalcontact/get_strategy_tag_list"))["tag_group"] == []
    assert crm.tags.tags == {}


@pytest.mark.covers(BASE + "create", BASE + "edit", "fact:6.6")
@pytest.mark.parametrize("sim_settings", [{"latency_milliseconds": 40}], indirect=True)
async def test_rule_groups_are_written_one_call_at_a_time(crm):
    """4.2: customer_strategy create and edit must be serial: a second call at once gets 45033."""
    body = {"strategy_name": "x", "admin_list": ["s1"], "range": [ROOT]}
    await crm.ok(BASE + "list")
    codes = await asyncio.gather(*(crm.code(BASE + "create", **body) for _ in range(2)))
    assert sorted(codes) == [0, 45033]


@pytest.mark.covers(
    "externalcontact/add_strategy_tag",
    "externalcontact/get_strategy_tag_list",
    "externalcontact/edit_strategy_tag",
    "externalcontact/del_strategy_tag",
)
async def test_tags_of_a_rule_group_are_its_own(crm):
    """3.3: strategy tags have ids in st…, belong to one rule group, and are no corp tags."""
    one, two = await create(crm, "一"), await create(crm, "二")
    answer = await crm.ok("externalcontact/add_strategy_tag", strategy_id=one, group_name="级", tag=[{"name": "A"}])
    made = answer["tag_group"]
    tag_id = made["tag"][0]["id"]
    assert tag_id.startswith("st")
    assert made["strategy_id"] == one
    await crm.ok("externalcontact/add_strategy_tag", strategy_id=two, group_name="级", tag=[{"name": "A"}])
    listed = (await crm.ok("externalcontact/get_strategy_tag_list", strategy_id=one))["tag_group"]
    assert [group["group_id"] for group in listed] == [made["group_id"]]
    assert len((await crm.ok("externalcontact/get_strategy_tag_list"))["tag_group"]) == 2
    assert (await crm.ok("externalcontact/get_corp_tag_list"))["tag_group"] == []
    assert await crm.code("externalcontact/get_corp_tag_list", tag_id=[tag_id]) == 40068
    assert await crm.code("externalcontact/get_strategy_tag_list", strategy_id=two, tag_id=[tag_id]) == 40068
    assert await crm.code("externalcontact/edit_corp_tag", id=tag_id, name="B") == 40068
    await crm.ok("externalcontact/edit_strategy_tag", id=tag_id, name="B", order=3)
    (group,) = (await crm.ok("externalcontact/get_strategy_tag_list", tag_id=[tag_id]))["tag_group"]
    assert (group["tag"][0]["name"], group["tag"][0]["order"]) == ("B", 3)
    assert await crm.code("externalcontact/del_corp_tag", tag_id=[tag_id]) == 40068
    await crm.ok("externalcontact/del_strategy_tag", tag_id=[tag_id])
    assert (await crm.ok("externalcontact/get_strategy_tag_list", strategy_id=one))["tag_group"] == []
    wrong = {"group_name": "g", "tag": [{"name": "x"}]}
    assert await crm.code("externalcontact/add_strategy_tag", **wrong) == 40058
    assert await crm.code("externalcontact/add_strategy_tag", strategy_id=99, **wrong) == 40035
    assert await crm.code("externalcontact/get_strategy_tag_list", strategy_id="1") == 40035
    assert await crm.code("externalcontact/edit_strategy_tag", name="x") == 40058
    assert await crm.code("externalcontact/del_strategy_tag") == 41111


@pytest.mark.covers("externalcontact/mark_tag", "externalcontact/get", "externalcontact/batch/get_by_user")
async def test_strategy_tags_mark_customers_of_the_staff_they_are_for(crm):
    """3.2: a strategy tag is shown with type 3, and its id in tag_id; outside the range it is out of scope."""
    strategy_id = await create(crm, range=[{"type": 2, "partyid": 2}])
    answer = await crm.ok(
        "externalcontact/add_strategy_tag", strategy_id=strategy_id, group_name="级", tag=[{"name": "A"}]
    )
    tag_id = answer["tag_group"]["tag"][0]["id"]
    crm.meet("s5", "wmC1")
    crm.meet("s1", "wmC1")
    await crm.ok("externalcontact/mark_tag", userid="s5", external_userid="wmC1", add_tag=[tag_id])
    refused = await crm.code("externalcontact/mark_tag", userid="s1", external_userid="wmC1", add_tag=[tag_id])
    assert refused == 92000
    shown = {"group_name": "级", "tag_name": "A", "tag_id": tag_id, "type": 3}
    assert (await crm.follow("wmC1", "s5"))["tags"] == [shown]
    (row,) = (await crm.ok("externalcontact/batch/get_by_user", userid_list=["s5"]))["external_contact_list"]
    assert row["follow_info"]["tag_id"] == [tag_id]


@pytest.mark.covers("event:change_external_tag/create")
async def test_strategy_tags_of_the_console_are_told_without_their_strategy(crm):
    """2.3: StrategyId is only sent to the platform's own customer-contact app."""
    strategy_id = await create(crm)
    group, (tag,) = crm.tags.create_in_console(crm.now_s, "级", ["A"], strategy_id=strategy_id)
    assert group.app == tag.app == CONSOLE
    assert [event["Id"] for event in crm.events("change_external_tag", "create")] == [group.id, tag.id]
    assert not any("StrategyId" in event for event in crm.told)
    assert await crm.code("externalcontact/edit_strategy_tag", id=tag.id, name="B") == 92000
