"""The relationship of one member and one customer, as callbacks tell it and as it can be read: fact sheet 2.1, 6.3."""

import pytest

HEAD = {"ToUserName", "FromUserName", "CreateTime", "MsgType", "Event", "ChangeType", "UserID", "ExternalUserID"}


async def readable(crm):
    return (await crm.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 0


@pytest.mark.covers("event:change_external_contact/add_half_external_contact", "fact:6.3")
async def test_a_half_add_is_told_at_once_and_readable_once_confirmed(crm):
    """2.1: add_half, then add; the relation is not real until then: 84061. The welcome code comes with the first."""
    crm.meet("s1", "wmC1", change="add_half", state="qr-1", welcome=True)
    (half,) = crm.events("change_external_contact")
    assert half["ChangeType"] == "add_half_external_contact"
    assert set(half) == HEAD | {"State", "WelcomeCode"}
    assert not await readable(crm)
    assert (
        await crm.code("externalcontact/send_welcome_msg", welcome_code=half["WelcomeCode"], text={"content": "好"})
        == 0
    )
    crm.meet("s1", "wmC1", welcome=True)
    _, whole = crm.events("change_external_contact")
    assert whole["ChangeType"] == "add_external_contact"
    assert "WelcomeCode" not in whole
    assert await readable(crm)


@pytest.mark.covers("event:change_external_contact/del_follow_user", "fact:6.3")
async def test_who_deletes_us_stays_in_every_list(crm):
    """2.1: after del_follow_user a one-way relation remains: list, get, batch and edits go on as before."""
    crm.meet("s1", "wmC1")
    crm.meet("s1", "wmC1", change="delete_by_customer")
    gone = crm.events("change_external_contact")[-1]
    assert gone["ChangeType"] == "del_follow_user"
    assert set(gone) == HEAD
    assert await readable(crm)
    assert (await crm.get("externalcontact/list", userid="s1"))["external_userid"] == ["wmC1"]
    assert len((await crm.ok("externalcontact/batch/get_by_user", userid_list=["s1"]))["external_contact_list"]) == 1
    assert await crm.code("externalcontact/remark", userid="s1", external_userid="wmC1", remark="走了") == 0
    crm.meet("s1", "wmC1", change="delete_by_staff")
    assert not await readable(crm)


@pytest.mark.covers("event:change_external_contact/del_external_contact", "fact:6.3")
async def test_who_is_deleted_by_the_member_is_gone_and_can_come_again(crm):
    """2.1: del_external_contact carries no Source when it was done by hand; a re-add is a new friendship."""
    crm.meet("s1", "wmC1", state="qr-1", welcome=True)
    crm.meet("s1", "wmC1", change="delete_by_staff")
    gone = crm.events("change_external_contact")[-1]
    assert gone["ChangeType"] == "del_external_contact"
    assert set(gone) == HEAD
    assert not await readable(crm)
    crm.meet("s1", "wmC1", state="qr-2", welcome=True)
    again = crm.events("change_external_contact")[-1]
    assert (again["ChangeType"], again["State"]) == ("add_external_contact", "qr-2")
    assert again["WelcomeCode"]
    follow = await crm.follow("wmC1")
    assert (follow["state"], follow["createtime"]) == ("qr-2", crm.now_s)


@pytest.mark.covers("event:change_external_contact/msg_audit_approved", "fact:6.3")
async def test_consent_to_the_archive_is_told_of_friends_only(crm):
    """2.1: msg_audit_approved names the member and the customer; there is none without a friendship."""
    crm.meet("s1", "wmC1")
    crm.meet("s1", "wmC1", change="archive_consent")
    assert crm.events("change_external_contact", "msg_audit_approved")[0]["ExternalUserID"] == "wmC1"
    with pytest.raises(AssertionError):
        crm.meet("s2", "wmC1", change="archive_consent")
