"""Fact sheet 3.2 and 2.1: who can be read when. 84061 for half-added and for deleted by staff, not for one-way."""

import pytest


@pytest.mark.covers("externalcontact/get_follow_user_list")
async def test_staff_with_customer_contact(wecom):
    """3.2: get_follow_user_list names staff with customer contact."""
    assert (await wecom.get("externalcontact/get_follow_user_list"))["follow_user"] == ["s1", "s2", "s3"]


@pytest.mark.covers("externalcontact/list", "externalcontact/get")
async def test_list_and_get_of_a_friend(wecom):
    """3.2: a friend is in the list, and get shows who follows, since when and by which code."""
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


@pytest.mark.covers("externalcontact/get")
async def test_a_half_add_is_not_readable_until_confirmed(wecom):
    """2.1: half-added is 84061 until the member confirms."""
    wecom.happen("add_half", at_s=1)
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 84061
    wecom.happen("add", at_s=7)
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 0


@pytest.mark.covers("externalcontact/list", "externalcontact/get")
async def test_a_customer_who_deleted_us_stays_readable(wecom):
    """2.1: after del_follow_user the contact stays in list and get."""
    wecom.happen("add", at_s=1)
    wecom.happen("delete_by_customer", at_s=9)
    assert (await wecom.get("externalcontact/list", userid="s1"))["external_userid"] == ["wmC1"]
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 0


@pytest.mark.covers("externalcontact/list", "externalcontact/get", "fact:6.7")
@pytest.mark.parametrize("how", ["delete_by_staff", "delete_by_transfer"])
async def test_a_customer_the_staff_side_lost_is_gone(wecom, how):
    """2.1: after the staff side ends, list and get are 84061 with empty arrays."""
    wecom.happen("add", at_s=1)
    wecom.happen(how, at_s=9)
    listed = await wecom.get("externalcontact/list", userid="s1")
    assert (listed["errcode"], listed["external_userid"]) == (84061, [])
    got = await wecom.get("externalcontact/get", external_userid="wmC1")
    assert (got["errcode"], got["follow_user"]) == (84061, [])


@pytest.mark.covers("externalcontact/get")
async def test_all_who_follow_are_listed(wecom):
    """3.2: follow_user has everybody who has the customer."""
    wecom.happen("add", at_s=1)
    wecom.happen("add", staff="s2", at_s=2)
    answer = await wecom.get("externalcontact/get", external_userid="wmC1")
    assert [f["userid"] for f in answer["follow_user"]] == ["s1", "s2"]


@pytest.mark.covers("externalcontact/list", "externalcontact/get")
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
    """4.3: 40058, 60111, 41035, 40096 and 50100 for ids that are missing, unknown or forged."""
    assert (await wecom.get(path, **query))["errcode"] == errcode
