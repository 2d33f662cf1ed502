"""Staff and customers, read: fact sheet 3.2."""

from dataclasses import replace

import pytest

from simulator.platform.api.contacts import contact_rules, read_lag
from simulator.world.people import LEFT, Staff
from simulator.world.relations import ContactChange
from simulator.world.scale import Scale


@pytest.mark.covers("externalcontact/get_follow_user_list")
async def test_staff_who_have_left_serve_nobody(crm):
    """3.2: get_follow_user_list names the staff with customer contact."""
    crm.corp.people.staff["s2"].status = LEFT
    assert (await crm.get("externalcontact/get_follow_user_list"))["follow_user"] == ["s1", "s3", "s4", "s5"]


@pytest.mark.covers("externalcontact/list")
async def test_the_list_is_not_paged_and_empty_is_84061(crm):
    """3.2: list gives all customers of a member at once, and 84061 with an empty list to who has none."""
    crm.meet("s1", *(f"wmC{n}" for n in range(1, 31)))
    assert len((await crm.get("externalcontact/list", userid="s1"))["external_userid"]) == 30
    nobody = await crm.get("externalcontact/list", userid="s2")
    assert (nobody["errcode"], nobody["external_userid"]) == (84061, [])
    crm.corp.people.staff["s1"].status = LEFT
    assert (await crm.get("externalcontact/list", userid="s1"))["errcode"] == 60111


@pytest.mark.covers("externalcontact/get")
async def test_a_wechat_user_has_a_unionid_and_a_wecom_user_a_firm(crm):
    """3.2: unionid for type 1 only; position, corp_name, corp_full_name and external_profile for type 2 only."""
    crm.meet("s1", "wmC1", "wmC40")
    wechat = (await crm.get("externalcontact/get", external_userid="wmC1"))["external_contact"]
    assert (wechat["type"], wechat["unionid"][:2]) == (1, "oz")
    assert "corp_name" not in wechat
    wecom = (await crm.get("externalcontact/get", external_userid="wmC40"))["external_contact"]
    assert (wecom["type"], wecom["corp_name"], wecom["corp_full_name"]) == (2, "远方贸易", "远方贸易有限公司")
    assert wecom["external_profile"]["external_attr"][0]["text"]["value"] == wecom["position"]
    assert "unionid" not in wecom


@pytest.mark.covers("externalcontact/get")
async def test_without_a_bound_open_platform_account_there_is_no_unionid(crm):
    """3.2: unionid only if the corp bound an open-platform account."""
    crm.rules(contact_rules, open_platform_bound=False)
    crm.meet("s1", "wmC1")
    answer = await crm.get("externalcontact/get", external_userid="wmC1")
    assert "unionid" not in answer["external_contact"]


@pytest.mark.covers("externalcontact/get")
async def test_who_came_how_is_told(crm):
    """3.2: add_way, oper_userid, state, and wechat_channels for who came by a video account."""
    crm.meet("s1", "wmC1", state="qr-7")
    crm.meet("s1", "wmC2", add_way=10)
    crm.meet("s1", "wmC3", add_way=2, oper="s1")
    scanned, watched, searched = [await crm.follow(f"wmC{n}") for n in (1, 2, 3)]
    assert (scanned["state"], scanned["add_way"], scanned["oper_userid"]) == ("qr-7", 1, "wmC1")
    assert set(watched["wechat_channels"]) == {"nickname", "source"}
    assert (searched["add_way"], searched["oper_userid"]) == (2, "s1")
    assert "state" not in searched
    assert "wechat_channels" not in searched


@pytest.mark.covers("externalcontact/get", "fact:6.10")
async def test_more_than_500_followers_need_the_cursor(crm):
    """3.2: get gives 500 followers a page, and next_cursor is empty on the last."""
    staff = [f"t{n:04}" for n in range(1_001)]
    for userid in staff:
        crm.corp.people.staff[userid] = Staff(userid, userid)
        crm.corp.happen(_add(crm, userid, "wmC1"))
    pages, cursor = [], ""
    while not pages or cursor:
        answer = await crm.get("externalcontact/get", external_userid="wmC1", cursor=cursor)
        pages.append([f["userid"] for f in answer["follow_user"]])
        assert answer["external_contact"]["external_userid"] == "wmC1"
        cursor = answer["next_cursor"]
        if len(pages) == 1:  # who goes meanwhile moves nobody to another page
            crm.wecom.advance(5)
            crm.corp.happen(replace(_add(crm, "t0001", "wmC1"), change="delete_by_staff"))
    assert [len(page) for page in pages] == [500, 500, 1]
    assert [userid for page in pages for userid in page] == staff
    other = await crm.get("externalcontact/get", external_userid="wmC2", cursor=cursor or "x")
    assert other["errcode"] == 50100


def _add(crm, staff, customer):
    return ContactChange(crm.now_s, crm.corp.corp_id, staff, customer, "add")


@pytest.mark.covers("externalcontact/get", "fact:6.12")
async def test_shortly_after_an_add_the_contact_is_not_readable_yet(crm):
    """1.7: externalcontact/get answers 84061 for a short time after an add; the list knows the contact already."""
    crm.rules(read_lag, contact_ms=3_000)
    crm.meet("s1", "wmC1")
    early = await crm.get("externalcontact/get", external_userid="wmC1")
    assert (early["errcode"], early["follow_user"]) == (84061, [])
    assert (await crm.get("externalcontact/list", userid="s1"))["external_userid"] == ["wmC1"]
    crm.advance(2.9)
    assert (await crm.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 84061
    crm.advance(0.1)
    crm.meet("s2", "wmC1")
    late = await crm.get("externalcontact/get", external_userid="wmC1")
    assert [f["userid"] for f in late["follow_user"]] == ["s1"]


@pytest.mark.covers("externalcontact/batch/get_by_user")
async def test_a_batch_has_a_row_for_each_pair(crm):
    """3.2: batch/get_by_user gives pairs with follow_info, whose tags are ids; a customer of two has two rows."""
    crm.meet("s1", "wmC1", "wmC2")
    crm.meet("s2", "wmC1", state="qr-2")
    answer = await crm.ok("externalcontact/batch/get_by_user", userid_list=["s1", "s2", "s3"])
    rows = [_ids(row) for row in answer["external_contact_list"]]
    assert rows == [("s1", "wmC1"), ("s1", "wmC2"), ("s2", "wmC1")]
    info = answer["external_contact_list"][2]["follow_info"]
    assert (info["state"], info["tag_id"], info["oper_userid"]) == ("qr-2", [], "wmC1")
    assert "tags" not in info
    assert answer["next_cursor"] == ""
    assert answer["fail_info"] == {"unlicensed_userid_list": []}


def _ids(row):
    return row["follow_info"]["userid"], row["external_contact"]["external_userid"]


@pytest.mark.covers("externalcontact/batch/get_by_user", "fact:6.10")
@pytest.mark.parametrize(("limit", "size"), [(7, 7), (None, 50), (0, 50), (5_000, 100)])
async def test_the_limit_of_a_batch_is_cut_not_refused(crm, limit, size):
    """3.2: default 50, at most 100; a larger limit is capped. Paging gives every pair once."""
    customers = [f"wmC{n}" for n in range(1, 41)]
    for staff in ("s1", "s2", "s3"):
        crm.meet(staff, *customers)
    seen, sizes, cursor = [], [], ""
    while not sizes or cursor:
        body = {"userid_list": ["s1", "s2", "s3"], "cursor": cursor, **({} if limit is None else {"limit": limit})}
        answer = await crm.ok("externalcontact/batch/get_by_user", **body)
        rows = answer["external_contact_list"]
        sizes.append(len(rows))
        seen += [_ids(row) for row in rows]
        cursor = answer["next_cursor"]
    assert set(sizes[:-1]) <= {size}
    assert sizes[0] == size
    assert len(seen) == len(set(seen)) == 120


@pytest.mark.covers("externalcontact/batch/get_by_user")
async def test_staff_without_a_licence_are_named_and_nobody_with_one_is_701008(crm):
    """3.2: fail_info.unlicensed_userid_list; 701008 if no member is licensed."""
    crm.rules(contact_rules, unlicensed=("s2",))
    crm.meet("s1", "wmC1")
    crm.meet("s2", "wmC2")
    answer = await crm.ok("externalcontact/batch/get_by_user", userid_list=["s2", "s1"])
    assert [r["external_contact"]["external_userid"] for r in answer["external_contact_list"]] == ["wmC1"]
    assert answer["fail_info"] == {"unlicensed_userid_list": ["s2"]}
    refused = await crm.post("externalcontact/batch/get_by_user", userid_list=["s2"])
    assert (refused["errcode"], refused["external_contact_list"]) == (701008, [])


@pytest.mark.covers("externalcontact/batch/get_by_user")
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, 40058),
        ({"userid_list": []}, 40058),
        ({"userid_list": "s1"}, 40035),
        ({"userid_list": [1]}, 40035),
        ({"userid_list": [f"u{n}" for n in range(101)]}, 40031),
        ({"userid_list": ["nobody"]}, 60111),
        ({"userid_list": ["s1"], "limit": "9"}, 40035),
        ({"userid_list": ["s1"], "cursor": "forged"}, 50100),
    ],
)
async def test_a_wrong_batch_is_refused(crm, body, errcode):
    """3.2: userid_list of 1 to 100 members; wrong types get the platform's warning."""
    assert await crm.code("externalcontact/batch/get_by_user", **body) == errcode


async def _everybody(crm, limit):
    rows, cursor = [], ""
    while True:
        answer = await crm.ok("externalcontact/contact_list", limit=limit, cursor=cursor)
        rows += answer["info_list"]
        cursor = answer["next_cursor"]
        if not cursor:
            return rows


@pytest.mark.covers("externalcontact/contact_list", "fact:6.13")
@pytest.mark.parametrize("limit", [1, 2, 3, 1_000])
async def test_everybody_served_is_listed_with_one_openid_a_person(crm, limit):
    """3.2: contact_list has friends and people in groups only; distinct tmp_openids are the billed scale."""
    crm.meet("s1", "wmC1", "wmC2")
    crm.meet("s2", "wmC1")
    crm.meet("s1", "wmC2", change="delete_by_customer")
    chat_id = crm.groups.create("s3", ["s1", "wmC1", "wmC3", "wmC4"], crm.now_s, name="会员群")
    rows = await _everybody(crm, limit)
    assert [(r["follow_userid"], r.get("external_userid")) for r in rows] == [
        ("s1", "wmC1"),
        ("s1", "wmC2"),
        ("s2", "wmC1"),
        ("s3", None),
        ("s3", None),
    ]
    assert rows[0]["tmp_openid"] == rows[2]["tmp_openid"]
    assert [r["is_customer"] for r in rows] == [True, True, True, False, False]
    stranger = rows[3]
    assert (stranger["chat_id"], stranger["chat_name"], stranger["add_time"]) == (chat_id, "会员群", crm.now_s)
    assert stranger["name"] == "***" + crm.corp.people.customer("wmC3").name[-1]
    assert len({r["tmp_openid"] for r in rows}) == crm.corp.of(Scale).used == 4


@pytest.mark.covers("externalcontact/contact_list")
async def test_a_tmp_openid_lives_for_one_traversal(crm):
    """3.2: tmp_openid is unique only within one traversal; the next one gives another."""
    crm.meet("s1", "wmC1")
    first, second = [(await crm.ok("externalcontact/contact_list"))["info_list"][0] for _ in range(2)]
    assert first["external_userid"] == second["external_userid"]
    assert first["tmp_openid"] != second["tmp_openid"]


@pytest.mark.covers("externalcontact/contact_list")
async def test_who_comes_and_goes_during_a_traversal_shifts_no_page(crm):
    """3.2: a row that is there all the time is read exactly once, whatever happens around it."""
    crm.meet("s1", "wmC1", "wmC2", "wmC3")
    crm.groups.create("s3", ["wmC5", "wmC6", "wmC7"], crm.now_s)
    begun = await crm.ok("externalcontact/contact_list", limit=2)
    crm.meet("s1", "wmC1", change="delete_by_staff")
    rest = await crm.ok("externalcontact/contact_list", limit=2, cursor=begun["next_cursor"])
    chat_id = crm.groups.all[0].chat_id
    crm.groups.remove(chat_id, ["wmC5"], crm.now_s)
    last = await crm.ok("externalcontact/contact_list", limit=9, cursor=rest["next_cursor"])
    assert [r["external_userid"] for r in begun["info_list"]] == ["wmC1", "wmC2"]
    assert rest["info_list"][0]["external_userid"] == "wmC3"
    still_there = [crm.corp.people.customer(customer).name[-1] for customer in ("wmC6", "wmC7")]
    assert [r["name"][-1] for r in last["info_list"]] == still_there


@pytest.mark.covers("externalcontact/contact_list")
async def test_the_cursor_of_a_traversal_lives_four_hours(crm, monkeypatch):
    """3.2: ids and cursor live 4 h; then 50100 and the reader begins again."""
    clock = [100_000.0]
    monkeypatch.setattr(crm.wecom.platform, "_clock_s", lambda: clock[0])
    crm.wecom._token = ""
    crm.meet("s1", "wmC1", "wmC2", "wmC3")
    cursor = (await crm.ok("externalcontact/contact_list", limit=1))["next_cursor"]
    clock[0] += 14_400
    crm.wecom._token = ""
    await crm.ok("externalcontact/contact_list", limit=1, cursor=cursor)
    clock[0] += 2
    refused = await crm.post("externalcontact/contact_list", limit=1, cursor=cursor)
    assert (refused["errcode"], refused["info_list"]) == (50100, [])


@pytest.mark.covers("externalcontact/convert_to_openid")
async def test_a_customer_has_one_openid_at_the_corps_account(crm):
    """3.2: convert_to_openid gives the openid for payments; 84061 for who is no customer, 40096 for who has none."""
    crm.meet("s1", "wmC1", "wmC2", "wmC40")
    first, again, other = [
        (await crm.ok("externalcontact/convert_to_openid", external_userid=c))["openid"]
        for c in ("wmC1", "wmC1", "wmC2")
    ]
    assert first == again != other
    for customer, errcode in {"wmC3": 84061, "wmC40": 40096, "wmX": 40096, "": 41035, None: 41035, 5: 40035}.items():
        assert await crm.code("externalcontact/convert_to_openid", external_userid=customer) == errcode
