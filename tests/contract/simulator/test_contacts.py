"""Fact sheet 3.2 and 2.1: who can be read when. 84061 for half-added and for deleted by staff, not for one-way."""

import pytest


async def test_staff_with_customer_contact(wecom):
    assert (await wecom.get("externalcontact/get_follow_user_list"))["follow_user"] == ["s1", "s2", "s3"]


async def test_list_and_get_of_a_friend(wecom):
    wecom.happen("add", at_s=5)
    assert (await wecom.get("externalcontact/list", userid="s1"))["external_userid"] == ["wmC1"]
    answer = await wecom.get("externalcontact/get", external_userid="wmC1")
    assert answer["errcode"] == 0
    assert answer["next_cursor"] == ""
    assert answer["external_contact"]["external_userid"] == "wmC1"
    assert answer["external_contact"]["type"] == 1
    (follow,) = answer["follow_user"]
    assert follow["userid"] == "s1"
    assert follow["createtime"] == 1_760_000_005
    assert follow["state"] == "qr-1"
    assert follow["oper_userid"] == "wmC1"


async def test_a_half_add_is_not_readable_until_confirmed(wecom):
    wecom.happen("add_half", at_s=1)
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 84061
    wecom.happen("add", at_s=7)
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 0


async def test_a_customer_who_deleted_us_stays_readable(wecom):
    wecom.happen("add", at_s=1)
    wecom.happen("delete_by_customer", at_s=9)
    assert (await wecom.get("externalcontact/list", userid="s1"))["external_userid"] == ["wmC1"]
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 0


@pytest.mark.parametrize("how", ["delete_by_staff", "delete_by_transfer"])
async def test_a_customer_the_staff_side_lost_is_gone(wecom, how):
    wecom.happen("add", at_s=1)
    wecom.happen(how, at_s=9)
    listed = await wecom.get("externalcontact/list", userid="s1")
    assert (listed["errcode"], listed["external_userid"]) == (84061, [])
    got = await wecom.get("externalcontact/get", external_userid="wmC1")
    assert (got["errcode"], got["follow_user"]) == (84061, [])


async def test_all_who_follow_are_listed(wecom):
    wecom.happen("add", at_s=1)
    wecom.happen("add", staff="s2", at_s=2)
    answer = await wecom.get("externalcontact/get", external_userid="wmC1")
    assert [f["userid"] for f in answer["follow_user"]] == ["s1", "s2"]


@pytest.mark.parametrize(
    ("path", "query", "errcode"),
    [
        ("externalcontact/list", {}, 40058),
        ("externalcontact/list", {"userid": "nobody"}, 60111),
        ("externalcontact/get", {}, 41035),
        ("externalcontact/get", {"external_userid": "wmNobody"}, 40096),
        ("externalcontact/get", {"external_userid": "wmC1", "cursor": "x"}, 50100),
    ],
)
async def test_missing_and_unknown_ids(wecom, path, query, errcode):
    assert (await wecom.get(path, **query))["errcode"] == errcode
