"""Contact ways and temporary chats: fact sheet 3.3."""

import pytest

from simulator.world.people import Department, Staff
from simulator.world.scale import Scale
from simulator.world.ways import Ways

ADD, GET = "externalcontact/add_contact_way", "externalcontact/get_contact_way"
UPDATE, DELETE = "externalcontact/update_contact_way", "externalcontact/del_contact_way"
LIST = "externalcontact/list_contact_way"
CODE = {"type": 1, "scene": 2, "user": ["s1"]}
TEMPORARY = {**CODE, "is_temp": True}
DAY_S = 86_400


async def way(crm, **more):
    return (await crm.ok(ADD, **{**CODE, **more}))["config_id"]


async def got(crm, config_id):
    return (await crm.ok(GET, config_id=config_id))["contact_way"]


@pytest.mark.covers(ADD, GET)
async def test_a_way_is_read_back_as_it_was_made(crm):
    """3.3: add_contact_way gives config_id, and for scene 2 a qr_code; get_contact_way has every field."""
    made = await crm.ok(ADD, **CODE, state="qr-9", remark="门口", skip_verify=False, is_exclusive=True)
    shown = await got(crm, made["config_id"])
    assert shown == {
        "config_id": made["config_id"],
        "type": 1,
        "scene": 2,
        "style": 0,
        "remark": "门口",
        "skip_verify": False,
        "state": "qr-9",
        "qr_code": made["qr_code"],
        "user": ["s1"],
        "party": [],
        "is_temp": False,
        "is_exclusive": True,
        "mark_source": True,
    }
    button = await crm.ok(ADD, type=2, scene=1, style=1, user=["s1", "s2"], party=[2])
    assert "qr_code" not in button
    shown = await got(crm, button["config_id"])
    assert (shown["skip_verify"], shown["user"], shown["party"], shown["style"]) == (True, ["s1", "s2"], [2], 1)


@pytest.mark.covers(ADD)
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"scene": 2, "user": ["s1"]}, 41037),
        ({**CODE, "type": 3}, 41037),
        ({**CODE, "type": "1"}, 40035),
        ({"type": 1, "user": ["s1"]}, 41038),
        ({**CODE, "scene": 0}, 41038),
        ({**CODE, "scene": 1, "style": 9}, 41040),
        ({**CODE, "remark": "长" * 31}, 41043),
        ({**CODE, "state": "s" * 31}, 41042),
        ({**CODE, "user": []}, 40058),
        ({**CODE, "user": ["s1", "s2"]}, 41041),
        ({**CODE, "user": ["nobody"]}, 60111),
        ({**CODE, "user": "s1"}, 40035),
        ({**CODE, "party": [2]}, 41044),
        ({**CODE, "type": 2, "party": [99]}, 41044),
        ({**CODE, "type": 2, "party": ["2"]}, 40035),
        ({**CODE, "type": 2, "user": [f"u{n}" for n in range(101)]}, 41041),
        ({**CODE, "skip_verify": "yes"}, 40035),
        (TEMPORARY, 48002),
    ],
)
async def test_a_wrong_way_is_refused(crm, body, errcode):
    """4.3: 41037–41044 for type, scene, style, members, state, remark and departments of a contact way."""
    assert await crm.code(ADD, **body) == errcode
    assert (await crm.ok(LIST))["contact_way"] == []


@pytest.mark.covers(ADD)
async def test_a_way_leads_to_a_hundred_members_departments_counted_in(crm):
    """3.3: 100 members each; those of a department and below it count."""
    people = crm.corp.people
    people.departments[7] = Department(7, "大部门", 1)
    people.departments[8] = Department(8, "其下", 7)
    for n in range(100):
        people.staff[f"m{n}"] = Staff(f"m{n}", "员", (7 if n % 2 else 8,))
    await crm.ok(ADD, type=2, scene=2, party=[7])
    assert await crm.code(ADD, type=2, scene=2, party=[7], user=["s1"]) == 41041
    assert await crm.code(ADD, type=2, scene=2, party=[8], user=["s1"]) == 0


@pytest.mark.covers(ADD)
async def test_a_corp_has_half_a_million_ways_those_of_groups_counted_in(crm):
    """3.3: 500,000 API-made ways per corp, shared with join ways, then 41045; a deleted one makes room."""
    assert crm.corp.of(Ways).rules.most == 500_000
    crm.rules(Ways, most=3)
    crm.groups.add_way([crm.groups.create("s1", ["wmC1"], crm.now_s)], scene=2)
    first, _ = await way(crm), await way(crm)
    assert await crm.code(ADD, **CODE) == 41045
    await crm.ok(DELETE, config_id=first)
    await way(crm)


@pytest.mark.covers(UPDATE)
async def test_an_update_overwrites_what_is_given_lists_as_a_whole(crm):
    """3.3: update_contact_way changes the given fields only; lists overwrite; a refused one changes nothing."""
    config_id = await way(crm, type=2, user=["s1", "s2"], state="a", remark="r")
    await crm.ok(UPDATE, config_id=config_id, user=["s3"], state="b")
    shown = await got(crm, config_id)
    assert (shown["user"], shown["state"], shown["remark"], shown["type"]) == (["s3"], "b", "r", 2)
    assert await crm.code(UPDATE, config_id=config_id, state="c", user=["nobody"]) == 60111
    assert await crm.code(UPDATE, config_id=config_id, user=[]) == 40058
    assert await crm.code(UPDATE, config_id=config_id, remark="长" * 31, state="c") == 41043
    assert (await got(crm, config_id)) == shown
    assert await crm.code(UPDATE, config_id="none", state="x") == 41039
    assert await crm.code(UPDATE, state="x") == 41039


@pytest.mark.covers(DELETE)
async def test_a_deleted_way_is_gone_everywhere(crm):
    """3.3: after del_contact_way the config_id is unknown (41039) and not listed."""
    config_id = await way(crm)
    await crm.ok(DELETE, config_id=config_id)
    assert await crm.code(GET, config_id=config_id) == 41039
    assert await crm.code(DELETE, config_id=config_id) == 41039
    assert (await crm.ok(LIST))["contact_way"] == []
    assert crm.corp.of(Ways).scan(config_id, "wmC1", crm.now_s) is None


@pytest.mark.covers(LIST, "fact:6.10")
async def test_ways_are_listed_by_window_and_page(crm):
    """3.3: list_contact_way: window default 90 days, 100 a page, at most 1000; next_cursor "" at the end."""
    old = await way(crm)
    crm.advance(91 * DAY_S)
    made = [await way(crm) for _ in range(5)]
    pages, cursor = [], ""
    while not pages or cursor:
        answer = await crm.ok(LIST, limit=2, cursor=cursor)
        pages.append([row["config_id"] for row in answer["contact_way"]])
        cursor = answer["next_cursor"]
        crm.advance(1)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert sorted(config_id for page in pages for config_id in page) == sorted(made)
    begin, now = crm.now_s - 120 * DAY_S, crm.now_s
    everything = (await crm.ok(LIST, start_time=begin, end_time=now))["contact_way"]
    assert everything[0] == {"config_id": old}
    assert len(everything) == 6
    assert (await crm.ok(LIST, start_time=begin, end_time=now - 100 * DAY_S))["contact_way"] == []


@pytest.mark.covers(LIST)
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"limit": 1_001}, 40035),
        ({"limit": 0}, 40035),
        ({"start_time": 10, "end_time": 9}, 40035),
        ({"start_time": "10"}, 40035),
        ({"cursor": "forged"}, 50100),
    ],
)
async def test_a_wrong_listing_is_refused(crm, body, errcode):
    """3.3: limit ≤ 1000, a window that begins before it ends."""
    answer = await crm.post(LIST, **body)
    assert (answer["errcode"], answer["contact_way"]) == (errcode, [])


@pytest.mark.covers(LIST)
async def test_ways_made_before_july_2021_are_not_listed(crm):
    """3.3: only ways created after 2021-07-10 are listed."""
    crm.rules(Ways, listed_from_s=crm.now_s + 10)
    await way(crm)
    crm.advance(10)
    later = await way(crm)
    assert (await crm.ok(LIST))["contact_way"] == [{"config_id": later}]


@pytest.mark.covers(ADD, "event:change_external_contact/add_external_contact")
async def test_who_scans_becomes_the_friend_of_a_member_with_the_ways_state(crm):
    """2.1: State is the contact way's; with skip_verify off the customer is half added until the member confirms."""
    ways = crm.corp.of(Ways)
    config_id = await way(crm, type=2, user=["s1", "s2"], state="qr-9")
    crm.wecom.advance(5)
    change = ways.scan(config_id, "wmC1", crm.now_s)
    assert crm.corp.happen(change)
    (event,) = crm.events("change_external_contact", "add_external_contact")
    assert (event["State"], event["ExternalUserID"]) == ("qr-9", "wmC1")
    assert event["UserID"] in ("s1", "s2")
    assert event["WelcomeCode"]
    follow = await crm.follow("wmC1", event["UserID"])
    assert (follow["state"], follow["add_way"]) == ("qr-9", 1)
    half = await way(crm, skip_verify=False)
    assert ways.scan(half, "wmC2", crm.now_s).change == "add_half"
    crm.corp.people.staff["s1"].banned = True
    assert ways.scan(half, "wmC2", crm.now_s) is None


@pytest.mark.covers(ADD)
async def test_an_exclusive_way_gives_nobody_a_second_member(crm):
    """3.3: is_exclusive: a customer of one of its members does not become another one's."""
    ways = crm.corp.of(Ways)
    crm.meet("s1", "wmC1")
    open_way = await way(crm, type=2, user=["s2"])
    exclusive = await way(crm, type=2, user=["s1", "s2"], is_exclusive=True)
    assert ways.scan(open_way, "wmC1", crm.now_s) is not None
    assert ways.scan(exclusive, "wmC1", crm.now_s) is None
    assert ways.scan(exclusive, "wmC2", crm.now_s) is not None


@pytest.mark.covers(ADD, "externalcontact/close_temp_chat")
async def test_a_temporary_way_opens_a_chat_that_can_be_closed(crm):
    """3.3: is_temp (medical trade): a chat of chat_expires_in, no friendship; close_temp_chat ends it."""
    crm.rules(Ways, temporary=True)
    ways = crm.corp.of(Ways)
    config_id = await way(
        crm, is_temp=True, expires_in=DAY_S, chat_expires_in=600, conclusions={"text": {"content": "再见"}}
    )
    shown = await got(crm, config_id)
    assert (shown["expires_in"], shown["chat_expires_in"]) == (DAY_S, 600)
    assert shown["conclusions"] == {"text": {"content": "再见"}}
    assert (await crm.ok(LIST))["contact_way"] == []
    close = {"userid": "s1", "external_userid": "wmC1"}
    assert await crm.code("externalcontact/close_temp_chat", **close) == 84061
    assert ways.scan(config_id, "wmC1", crm.now_s) is None
    assert ways.chatting("s1", "wmC1", crm.now_s)
    assert (await crm.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 84061
    await crm.ok("externalcontact/close_temp_chat", **close)
    assert not ways.chatting("s1", "wmC1", crm.now_s)
    assert await crm.code("externalcontact/close_temp_chat", **close) == 84061
    ways.scan(config_id, "wmC1", crm.now_s)
    crm.advance(600)
    assert await crm.code("externalcontact/close_temp_chat", **close) == 84061
    crm.advance(DAY_S)
    assert await crm.code(GET, config_id=config_id) == 41039


@pytest.mark.covers("externalcontact/close_temp_chat")
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, 40058),
        ({"userid": "s1"}, 41035),
        ({"userid": "nobody", "external_userid": "wmC1"}, 60111),
        ({"userid": "s1", "external_userid": "wmX"}, 40096),
        ({"userid": 1, "external_userid": "wmC1"}, 40035),
    ],
)
async def test_closing_a_chat_names_both(crm, body, errcode):
    """3.3: close_temp_chat takes userid and external_userid."""
    assert await crm.code("externalcontact/close_temp_chat", **body) == errcode


@pytest.mark.covers(ADD)
async def test_lives_and_endings_of_temporary_ways_are_checked(crm):
    """3.3: expires_in and chat_expires_in ≤ 14 days, default 7 days and 24 h; conclusions by kind; a cap a day."""
    crm.rules(Ways, temporary=True, temporary_a_day=2)
    default = await got(crm, await way(crm, is_temp=True))
    assert (default["expires_in"], default["chat_expires_in"]) == (7 * DAY_S, DAY_S)
    for more, errcode in [
        ({"expires_in": 14 * DAY_S + 1}, 40035),
        ({"chat_expires_in": 0}, 40035),
        ({"conclusions": {"text": {"content": "长" * 1_334}}}, 45002),
        ({"conclusions": {"image": {"media_id": "none"}}}, 40007),
        ({"conclusions": {"link": {"title": "t"}}}, 40058),
        ({"conclusions": {"link": {"title": "t", "url": "u"}, "image": {"media_id": "m"}}}, 41064),
        ({"conclusions": ["x"]}, 40035),
    ]:
        assert await crm.code(ADD, **TEMPORARY, **more) == errcode, more
    link = {"title": "t", "url": "u", "picurl": "", "desc": "d"}
    config_id = await way(crm, is_temp=True, conclusions={"link": {"title": "t", "url": "u", "desc": "d"}})
    assert (await got(crm, config_id))["conclusions"] == {"link": link}
    assert await crm.code(ADD, **TEMPORARY) == 41045
    crm.advance(DAY_S)
    assert await crm.code(ADD, **TEMPORARY) == 0


@pytest.mark.covers(ADD, "fact:6.13")
async def test_a_corp_whose_scale_is_used_up_makes_no_more_ways(crm):
    """5.1: 610023 once the scale is exhausted; codes that exist bring nobody new."""
    ways = crm.corp.of(Ways)
    config_id = await way(crm)
    scale = crm.rules(Scale, verified=False, unverified_cap=1)
    crm.meet("s2", "wmC1")
    assert scale.full(crm.now_s)
    assert await crm.code(ADD, **CODE) == 610023
    assert ways.scan(config_id, "wmC2", crm.now_s) is None
    assert ways.scan(config_id, "wmC1", crm.now_s) is not None  # counts already
