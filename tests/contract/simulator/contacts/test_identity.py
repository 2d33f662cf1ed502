"""Identity conversion, fact sheet 3.9; the address book and the platform's addresses, 1.9 and 2.7."""

import pytest

from simulator.platform.api.directory import network_rules
from simulator.world.people import LEFT
from simulator.world.unionids import Quota, Unionids

OLD = "externalcontact/unionid_to_external_userid"
NEW = "idconvert/unionid_to_external_userid"
THIRD = "service/externalcontact/unionid_to_external_userid_3rd"
UPSTREAM = "corpgroup/unionid_to_external_userid"
PENDING = "corpgroup/unionid_to_pending_id"
BATCH = "corpgroup/batch/external_userid_to_pending_id"
OWN_ACCOUNT, PROVIDER_ACCOUNT = "wx0000000000000001", "wx0000000000000002"
STRANGER = {"unionid": "ozSomebodyElse", "openid": "oSomebody"}


def signs(crm, customer, appid=OWN_ACCOUNT):
    people = crm.corp.people
    return {"unionid": people.customer(customer).unionid, "openid": people.openid(customer, appid)}


@pytest.mark.covers(OLD)
async def test_a_customer_is_found_by_unionid_and_openid(crm):
    """3.9: unionid_to_external_userid gives the customer; 84061 for who is none; an openid of others is 845001."""
    crm.meet("s1", "wmC1")
    assert (await crm.ok(OLD, **signs(crm, "wmC1")))["external_userid"] == "wmC1"
    crm.meet("s2", "wmC2")  # after the first question
    assert (await crm.ok(OLD, **signs(crm, "wmC2")))["external_userid"] == "wmC2"
    assert await crm.code(OLD, **STRANGER) == 84061
    assert await crm.code(OLD, **{**signs(crm, "wmC1"), "openid": "oOther"}) == 845001
    assert await crm.code(OLD, **signs(crm, "wmC1", "wxOther")) == 845001
    crm.meet("s1", "wmC1", change="delete_by_staff")
    assert await crm.code(OLD, **signs(crm, "wmC1")) == 84061


@pytest.mark.covers(OLD, NEW, THIRD, UPSTREAM, PENDING)
@pytest.mark.parametrize("path", [OLD, NEW, UPSTREAM, PENDING])
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"openid": "o"}, 40058),
        ({"unionid": "ozSomebodyElse"}, 40058),
        ({"unionid": "x", "openid": "o"}, 610014),
        ({"unionid": 5, "openid": "o"}, 40035),
        ({"unionid": "ozSomebodyElse", "openid": ["o"]}, 40035),
    ],
)
async def test_a_conversion_names_both_ids(crm, path, body, errcode):
    """3.9: unionid and openid are asked for together; a unionid that cannot be one is 610014."""
    assert await crm.code(path, **body) == errcode


@pytest.mark.covers(NEW)
async def test_who_is_no_customer_yet_has_a_pending_id_for_ninety_days(crm):
    """3.9: idconvert gives external_userid, or a pending_id that is the same for 90 days."""
    crm.meet("s1", "wmC1")
    assert await crm.ok(NEW, **signs(crm, "wmC1")) == {"errcode": 0, "errmsg": "ok", "external_userid": "wmC1"}
    provider = signs(crm, "wmC1", PROVIDER_ACCOUNT)
    assert (await crm.ok(NEW, **provider, subject_type=1))["external_userid"] == "wmC1"
    assert await crm.code(NEW, **provider) == 610015
    assert await crm.code(NEW, **provider, subject_type=2) == 40035
    first = await crm.ok(NEW, **STRANGER)
    assert "external_userid" not in first
    crm.advance(90 * 86_400 - 10)
    assert (await crm.ok(NEW, **STRANGER))["pending_id"] == first["pending_id"]
    crm.advance(20)
    assert (await crm.ok(NEW, **STRANGER))["pending_id"] != first["pending_id"]


@pytest.mark.covers(NEW, "fact:6.6")
async def test_idconvert_has_quotas_of_its_own(crm, monkeypatch):
    """3.9: 100,000 an hour, 480,000 a day, 7.5 million a month; past it 45009 for as long as the window."""
    quotas = crm.corp.of(Unionids).rules.idconvert
    assert [quota.calls for quota in quotas] == [100_000, 480_000, 7_500_000]
    crm.rules(Unionids, idconvert=(Quota(3_600, 2), Quota(86_400, 3)))
    clock = [1_000.0]
    monkeypatch.setattr(crm.wecom.platform, "_clock_s", lambda: clock[0])

    async def call():
        crm.wecom._token = ""
        return await crm.code(NEW, **STRANGER)

    assert [await call() for _ in range(3)] == [0, 0, 45009]
    clock[0] += 3_599
    assert await call() == 45009
    clock[0] += 2
    assert [await call() for _ in range(2)] == [45009, 45009]  # the third of the day has begun the day's block
    clock[0] += 86_401
    assert await call() == 0


@pytest.mark.covers(THIRD)
async def test_only_a_providers_app_converts_for_a_provider(crm):
    """3.9: service/externalcontact/unionid_to_external_userid_3rd is for service providers; others get 48002."""
    crm.meet("s1", "wmC1")
    body = signs(crm, "wmC1", PROVIDER_ACCOUNT)
    refused = await crm.post(THIRD, **body)
    assert (refused["errcode"], refused["external_userid_info"]) == (48002, [])
    crm.rules(Unionids, provider_agents=(crm.wecom.corp.agent_id,))
    found = {"corpid": crm.corp.corp_id, "external_userid": "wmC1"}
    assert (await crm.ok(THIRD, **body))["external_userid_info"] == [found]
    assert await crm.code(THIRD, **signs(crm, "wmC1")) == 610015


@pytest.mark.covers(UPSTREAM)
async def test_an_upstream_corp_is_told_by_corp(crm):
    """3.9: corpgroup/unionid_to_external_userid gives corpid and external_userid; corpid narrows it."""
    crm.meet("s1", "wmC1")
    found = [{"corpid": crm.corp.corp_id, "external_userid": "wmC1"}]
    assert (await crm.ok(UPSTREAM, **signs(crm, "wmC1")))["external_userid_info"] == found
    own = {**signs(crm, "wmC1"), "corpid": crm.corp.corp_id}
    assert (await crm.ok(UPSTREAM, **own))["external_userid_info"] == found
    assert (await crm.ok(UPSTREAM, **{**own, "corpid": "wwOther"}))["external_userid_info"] == []
    assert (await crm.ok(UPSTREAM, **STRANGER))["external_userid_info"] == []
    assert await crm.code(UPSTREAM, **{**own, "openid": "oOther"}) == 610015


@pytest.mark.covers(PENDING, BATCH)
async def test_one_person_has_one_pending_id_whichever_way_it_is_asked_for(crm):
    """3.9: unionid_to_pending_id and external_userid_to_pending_id meet in the same pending_id."""
    crm.meet("s1", "wmC1", "wmC2", "wmC40")
    by_unionid = (await crm.ok(PENDING, **signs(crm, "wmC1")))["pending_id"]
    result = (await crm.ok(BATCH, external_userid=["wmC1", "wmC2", "wmC3", "wmC40"]))["result"]
    by_id = {row["external_userid"]: row["pending_id"] for row in result}
    assert set(by_id) == {"wmC1", "wmC2", "wmC40"}  # wmC3 is nobody's customer
    assert by_id["wmC1"] == by_unionid
    assert len(set(by_id.values())) == 3
    assert await crm.code(PENDING, **{**signs(crm, "wmC1"), "openid": "oOther"}) == 610015


@pytest.mark.covers(BATCH)
@pytest.mark.parametrize(
    ("ids", "errcode"),
    [(None, 41035), ([], 41035), (["wmX"], 40096), ([f"wm{n}" for n in range(101)], 40032), ("wmC1", 40035)],
)
async def test_a_batch_is_of_one_to_a_hundred_customers(crm, ids, errcode):
    """3.9: corpgroup/batch/external_userid_to_pending_id takes up to 100 ids."""
    refused = await crm.post(BATCH, external_userid=ids)
    assert (refused["errcode"], refused["result"]) == (errcode, [])


@pytest.mark.covers("getcallbackip", "get_api_domain_ip")
async def test_the_platforms_addresses_can_be_asked_for(crm):
    """1.9: getcallbackip and get_api_domain_ip give ip_list; entries may end in a star."""
    assert "198.51.100.*" in (await crm.get("getcallbackip"))["ip_list"]
    crm.rules(network_rules, callback_ips=("192.0.2.99",))
    assert (await crm.get("getcallbackip"))["ip_list"] == ["192.0.2.99"]
    assert (await crm.get("get_api_domain_ip"))["ip_list"]


@pytest.mark.covers("user/get")
async def test_a_member_is_shown_without_private_fields(crm):
    """2.7: a member has userid, name, departments and status; who has left is unknown (60111)."""
    shown = await crm.get("user/get", userid="s5")
    assert (shown["name"], shown["department"], shown["main_department"], shown["status"]) == ("店员s5", [3], 3, 1)
    assert {"mobile", "email", "avatar", "gender"}.isdisjoint(shown)
    assert (await crm.get("user/get", userid="nobody"))["errcode"] == 60111
    assert (await crm.get("user/get"))["errcode"] == 40058
    crm.corp.people.staff["s5"].status = LEFT
    assert (await crm.get("user/get", userid="s5"))["errcode"] == 60111


@pytest.mark.covers("user/simplelist", "user/list", "user/list_id")
async def test_members_are_listed_by_department(crm):
    """2.7: members of a department, with fetch_child of those below it too; leavers are not listed."""
    for path in ("user/simplelist", "user/list"):
        assert [m["userid"] for m in (await crm.get(path, department_id="2"))["userlist"]] == ["s4"]
        below = (await crm.get(path, department_id="2", fetch_child="1"))["userlist"]
        assert [m["userid"] for m in below] == ["s4", "s5"]
        for department, errcode in {"": 40058, "x": 40035, "²": 40035, "99": 60123}.items():
            assert (await crm.get(path, department_id=department))["errcode"] == errcode
    assert "status" in below[0]
    crm.corp.people.staff["s5"].status = LEFT
    assert (await crm.get("user/simplelist", department_id="3"))["userlist"] == []
    first = await crm.ok("user/list_id", limit=3)
    last = await crm.ok("user/list_id", limit=3, cursor=first["next_cursor"])
    found = [(row["userid"], row["department"]) for row in first["dept_user"] + last["dept_user"]]
    assert found == [("s1", 1), ("s2", 1), ("s3", 1), ("s4", 2)]
    assert last["next_cursor"] == ""
    assert await crm.code("user/list_id", limit=10_001) == 40035


@pytest.mark.covers("department/list", "department/simplelist", "department/get")
async def test_departments_are_a_tree(crm):
    """2.7: departments have id, name and parentid; a list begins at the one asked for."""
    whole = (await crm.get("department/list"))["department"]
    assert [(d["id"], d["parentid"]) for d in whole] == [(1, 0), (2, 1), (3, 2), (4, 1)]
    part = (await crm.get("department/simplelist", id="2"))["department_id"]
    assert [(d["id"], d["parentid"]) for d in part] == [(2, 1), (3, 2)]
    assert (await crm.get("department/get", id="3"))["department"]["name"] == "一组"
    for path in ("department/list", "department/simplelist", "department/get"):
        assert (await crm.get(path, id="99"))["errcode"] == 60123
        assert (await crm.get(path, id="-1"))["errcode"] == 40035
