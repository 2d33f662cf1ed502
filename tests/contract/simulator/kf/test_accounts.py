"""Fact sheet 3.11: accounts, their links, who serves them, who may manage them."""

import pytest

from simulator.world.people import LEFT, NOT_ACTIVATED, Department
from simulator.world.roster import Roster

pytestmark = pytest.mark.covers("fact:6.16")


@pytest.mark.covers("kf/account/add", "kf/account/list", "kf/account/update", "kf/account/del")
async def test_an_account_is_opened_listed_renamed_and_deleted(kf):
    """3.11: what account/add makes, account/list shows, update changes and del ends."""
    kfid = await kf.open()
    assert kfid.startswith("wk")
    (row,) = (await kf.ok("account/list"))["account_list"]
    assert (row["open_kfid"], row["name"], row["manage_privilege"]) == (kfid, "客服", True)
    await kf.ok("account/update", open_kfid=kfid, name="售后", media_id=kf.media())
    (changed,) = (await kf.ok("account/list"))["account_list"]
    assert changed["name"] == "售后"
    assert changed["avatar"] != row["avatar"]
    await kf.ok("account/del", open_kfid=kfid)
    assert (await kf.ok("account/list"))["account_list"] == []
    assert (await kf.post("account/update", open_kfid=kfid, name="x"))["errcode"] == 95004


@pytest.mark.covers("kf/account/list")
async def test_accounts_are_paged_by_offset(kf):
    """3.11: account/list pages by offset and limit, at most 100."""
    ids = [await kf.open(name=str(number)) for number in range(5)]
    pages = [(await kf.ok("account/list", offset=at, limit=2))["account_list"] for at in (0, 2, 4)]
    assert [row["open_kfid"] for page in pages for row in page] == ids


@pytest.mark.covers("kf/account/list", "kf/account/add", "kf/account/update", "kf/account/del")
@pytest.mark.parametrize(
    ("path", "body", "errcode"),
    [
        ("account/add", {"media_id": "x"}, 40058),
        ("account/add", {"name": "客" * 17, "media_id": "x"}, 40035),
        ("account/add", {"name": "客服"}, 40058),
        ("account/add", {"name": "客服", "media_id": "unknown"}, 40007),
        ("account/add", {"name": 5, "media_id": "x"}, 40035),
        ("account/list", {"limit": 101}, 40035),
        ("account/list", {"offset": -1}, 40035),
        ("account/list", {"limit": "1"}, 40035),
        ("account/del", {}, 40058),
        ("account/del", {"open_kfid": "wkunknown"}, 95000),
        ("account/update", {"open_kfid": ["wk"]}, 40035),
    ],
)
async def test_wrong_account_requests_are_refused(kf, path, body, errcode):
    """3.11: what is missing, mistyped or unknown about an account gets its errcode."""
    assert (await kf.post(path, **body))["errcode"] == errcode


@pytest.mark.covers("kf/account/add")
async def test_a_corp_has_a_limit_of_accounts(kf):
    """4.3: an account too many is 45024; a deleted one makes room."""
    kf.rule(accounts=1)
    kfid = await kf.open()
    again = {"name": "b", "media_id": kf.media()}
    assert (await kf.post("account/add", **again))["errcode"] == 45024
    await kf.ok("account/del", open_kfid=kfid)
    assert (await kf.post("account/add", **again))["errcode"] == 0


@pytest.mark.covers("kf/add_contact_way", "event:kf/enter_session")
async def test_a_links_scene_comes_back_when_a_customer_enters(kf):
    """3.11: add_contact_way's scene and the caller's own scene_param arrive in enter_session."""
    kfid = await kf.open()
    url = (await kf.ok("add_contact_way", open_kfid=kfid, scene="store_7"))["url"]
    assert url == (await kf.ok("add_contact_way", open_kfid=kfid, scene="store_7"))["url"]
    assert url != (await kf.ok("add_contact_way", open_kfid=kfid))["url"]
    assert kf.desk.enter_by(url, "wmC1", kf.now_s, scene_param="a=1")
    (event,) = await kf.events(kfid, "enter_session")
    assert (event["scene"], event["scene_param"]) == ("store_7", "a=1")
    assert (event["open_kfid"], event["external_userid"]) == (kfid, "wmC1")


@pytest.mark.covers("kf/add_contact_way")
@pytest.mark.parametrize("scene", ["x" * 33, "a b", "号", 5])
async def test_a_scene_is_a_short_word(kf, scene):
    """3.11: a scene has at most 32 bytes of letters, digits, _ and -."""
    kfid = await kf.open()
    assert (await kf.post("add_contact_way", open_kfid=kfid, scene=scene))["errcode"] == 40035


@pytest.mark.covers("kf/servicer/add", "kf/servicer/list", "kf/servicer/del")
async def test_servicers_are_added_listed_and_taken_off(kf):
    """3.11: servicers come by name and by department, each with a result of its own."""
    kf.wecom.world.people.departments[2] = Department(2, "售后", 1)
    kf.wecom.world.people.staff["s3"].status = LEFT
    kfid = await kf.open()
    asked = {"userid_list": ["s1", "nobody", "s3"], "department_id_list": [2, 99]}
    results = (await kf.ok("servicer/add", open_kfid=kfid, **asked))["result_list"]
    assert [row["errcode"] for row in results] == [0, 60111, 60111, 0, 60123]
    assert [row.get("userid", row.get("department_id")) for row in results] == ["s1", "nobody", "s3", 2, 99]
    listed = (await kf.wecom.get("kf/servicer/list", open_kfid=kfid))["servicer_list"]
    assert listed == [{"userid": "s1", "status": 0}, {"department_id": 2}]
    results = await kf.ok("servicer/del", open_kfid=kfid, userid_list=["s1", "s2"], department_id_list=[2])
    assert [row["errcode"] for row in results["result_list"]] == [0, 95014, 0]
    assert (await kf.wecom.get("kf/servicer/list", open_kfid=kfid))["servicer_list"] == []


@pytest.mark.covers("kf/servicer/list", "kf/servicer/add")
async def test_wrong_servicer_requests_are_refused(kf):
    """3.11: a list too long, none at all, or no account is refused."""
    kfid = await kf.open()
    assert (await kf.post("servicer/add", open_kfid=kfid))["errcode"] == 40058
    assert (await kf.post("servicer/add", open_kfid=kfid, userid_list=[str(n) for n in range(101)]))["errcode"] == 40032
    assert (await kf.post("servicer/add", open_kfid=kfid, department_id_list=["2"]))["errcode"] == 40035
    assert (await kf.wecom.get("kf/servicer/list"))["errcode"] == 40058
    assert (await kf.wecom.get("kf/servicer/list", open_kfid="wkx"))["errcode"] == 95000


@pytest.mark.covers("event:kf/servicer_status_change", "kf/servicer/list")
async def test_servicers_go_on_and_off_duty(kf):
    """3.11: going off duty is an event with status 2 and a stop_type, coming back one with status 1."""
    kfid = await kf.open("s1")
    assert kf.desk.duty(kfid, "s1", on=False, now_s=kf.now_s, stop_type=1)
    assert not kf.desk.duty(kfid, "s1", on=False, now_s=kf.now_s)
    listed = (await kf.wecom.get("kf/servicer/list", open_kfid=kfid))["servicer_list"]
    assert listed == [{"userid": "s1", "status": 1, "stop_type": 1}]
    assert kf.desk.duty(kfid, "s1", on=True, now_s=kf.now_s)
    off, on = await kf.events(kfid, "servicer_status_change")
    assert (off["servicer_userid"], off["status"], off["stop_type"]) == ("s1", 2, 1)
    assert (on["status"], "stop_type" in on) == (1, False)


async def test_a_department_serves_with_everybody_below_it(kf):
    """3.11: who belongs to a department below a serving one may be given a customer; inactive members may not."""
    people = kf.wecom.world.people
    people.departments[2] = Department(2, "门店", 1)
    people.staff["s2"].departments = (2,)
    people.staff["s3"].status = NOT_ACTIVATED
    kfid = await kf.open()
    await kf.ok("servicer/add", open_kfid=kfid, department_id_list=[1])
    kf.write(kfid)
    human = {"open_kfid": kfid, "external_userid": "wmC1", "service_state": 3}
    assert (await kf.post("service_state/trans", **human, servicer_userid="s3"))["errcode"] == 95014
    await kf.ok("service_state/trans", **human, servicer_userid="s2")
    await kf.ok("servicer/del", open_kfid=kfid, department_id_list=[1])
    assert await kf.state(kfid) == (2, "")


@pytest.mark.covers("event:kf_account_auth_change")
async def test_accounts_are_given_to_the_api_and_taken_away(kf):
    """2.5: kf_account_auth_change names accounts given and taken; one that was taken is 48007 and silent."""
    first, second = await kf.open(), await kf.open()
    kf.desk.authorise(kf.now_s, remove=[first, second])
    kf.desk.authorise(kf.now_s, add=[second])
    both, back = kf.told
    assert (both["Event"], both["FromUserName"]) == (["kf_account_auth_change"], ["sys"])
    assert both["AuthDelOpenKfId"] == [first, second]
    assert back["AuthAddOpenKfId"] == [second]
    kf.write(first)
    assert len(kf.told) == 2
    assert (await kf.post("sync_msg", open_kfid=first))["errcode"] == 48007
    shown = {row["open_kfid"]: row["manage_privilege"] for row in (await kf.ok("account/list"))["account_list"]}
    assert shown == {first: False, second: True}


async def test_who_leaves_the_corp_serves_no_more(kf):
    """3.11: a servicer who leaves disappears from the list, and their customers wait for somebody else."""
    kfid = await kf.open("s1", "s2")
    kf.write(kfid)
    human = {"open_kfid": kfid, "external_userid": "wmC1", "service_state": 3, "servicer_userid": "s1"}
    await kf.ok("service_state/trans", **human)
    assert kf.wecom.world.of(Roster).leave("s1", kf.now_s)
    listed = (await kf.wecom.get("kf/servicer/list", open_kfid=kfid))["servicer_list"]
    assert listed == [{"userid": "s2", "status": 0}]
    assert await kf.state(kfid) == (2, "")
