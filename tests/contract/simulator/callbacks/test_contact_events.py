"""Changes of a relationship as a receiver hears of them: every event element by element, opened by wechatpy."""

import asyncio
import xml.etree.ElementTree as ElementTree

import pytest
from wechatpy.enterprise.crypto import WeChatCrypto

from simulator.world.relations import ContactChange

START_S = 1_760_000_000
EVENT = "event:change_external_contact/"
HEAD = ["ToUserName", "FromUserName", "CreateTime", "MsgType", "Event", "ChangeType"]


def happen(wecom, change: str, *, staff: str = "s1", at_s: int) -> str:
    """Somebody does something; returns the welcome code that goes with it. Only who adds comes by a channel."""
    comes = change in ("add", "add_half")
    event = ContactChange(
        START_S + at_s, wecom.corp.corp_id, staff, "wmC1", change, state="qr-1" if comes else "", welcome=comes
    )
    issued = len(wecom.world.welcomes.issued)
    assert wecom.world.happen(event)
    return wecom.world.welcomes.issued[-1].code if len(wecom.world.welcomes.issued) > issued else ""


async def heard(wecom) -> list[dict[str, str]]:
    """Everything delivered so far, in order of time."""
    async with asyncio.timeout(20):
        await wecom.simulation.deliverer.wait_idle()
    corp = wecom.corp
    library = WeChatCrypto(corp.callback_token, corp.callback_aes_key, corp.corp_id)
    events = []
    for request in wecom.accepted:
        query = request.url.params
        opened = library.decrypt_message(request.content, query["msg_signature"], query["timestamp"], query["nonce"])
        events.append({element.tag: element.text or "" for element in ElementTree.fromstring(opened)})
    return sorted(events, key=lambda event: int(event["CreateTime"]))


async def told(wecom) -> list[str]:
    return [event["ChangeType"] for event in await heard(wecom)]


@pytest.mark.covers(EVENT + "add_external_contact", "fact:6.3")
async def test_an_add_names_the_pair_the_channel_and_a_welcome_code(wecom):
    """2.1: add_external_contact carries UserID, ExternalUserID, State and WelcomeCode; FromUserName is sys."""
    code = happen(wecom, "add", at_s=7)
    (event,) = await heard(wecom)
    assert list(event) == [*HEAD, "UserID", "ExternalUserID", "State", "WelcomeCode"]
    assert event == {
        "ToUserName": wecom.corp.corp_id,
        "FromUserName": "sys",
        "CreateTime": str(START_S + 7),
        "MsgType": "event",
        "Event": "change_external_contact",
        "ChangeType": "add_external_contact",
        "UserID": "s1",
        "ExternalUserID": "wmC1",
        "State": "qr-1",
        "WelcomeCode": code,
    }


@pytest.mark.covers(EVENT + "add_half_external_contact", "fact:6.3")
async def test_half_an_add_is_told_and_not_readable_until_it_is_whole(wecom):
    """2.1: add_half_external_contact: the relation is not yet real, 84061 until the staff member has confirmed."""
    code = happen(wecom, "add_half", at_s=1)
    (event,) = await heard(wecom)
    assert list(event) == [*HEAD, "UserID", "ExternalUserID", "State", "WelcomeCode"]
    assert (event["ChangeType"], event["WelcomeCode"]) == ("add_half_external_contact", code)
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 84061
    happen(wecom, "add", at_s=20)
    assert await told(wecom) == ["add_half_external_contact", "add_external_contact"]
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 0


@pytest.mark.covers(EVENT + "add_half_external_contact", "fact:6.3", "fact:6.4")
async def test_whoever_was_welcomed_half_added_gets_no_second_code(wecom):
    """2.1: WelcomeCode is absent when a welcome was already sent through the half add's code."""
    code = happen(wecom, "add_half", at_s=1)
    sent = await wecom.post("externalcontact/send_welcome_msg", {"welcome_code": code, "text": {"content": "你好"}})
    assert sent["errcode"] == 0
    happen(wecom, "add", at_s=20)
    _, whole = await heard(wecom)
    assert list(whole) == [*HEAD, "UserID", "ExternalUserID", "State"]


@pytest.mark.covers(EVENT + "del_follow_user", "fact:6.3")
async def test_a_customer_who_deletes_us_is_told_once_and_stays_readable(wecom):
    """2.1: del_follow_user leaves a one-way relation: list and get still show the contact."""
    happen(wecom, "add", at_s=1)
    happen(wecom, "delete_by_customer", at_s=20)
    _, gone = await heard(wecom)
    assert list(gone) == [*HEAD, "UserID", "ExternalUserID"]
    assert gone["ChangeType"] == "del_follow_user"
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 0
    assert (await wecom.get("externalcontact/list", userid="s1"))["external_userid"] == ["wmC1"]


@pytest.mark.covers(EVENT + "del_external_contact", "fact:6.3")
async def test_a_staff_member_who_deletes_makes_the_customer_unreadable(wecom):
    """2.1: del_external_contact has no Source when the staff member deleted by hand; 84061 from then on."""
    happen(wecom, "add", at_s=1)
    happen(wecom, "delete_by_staff", at_s=20)
    _, gone = await heard(wecom)
    assert list(gone) == [*HEAD, "UserID", "ExternalUserID"]
    assert gone["ChangeType"] == "del_external_contact"
    assert (await wecom.get("externalcontact/get", external_userid="wmC1"))["errcode"] == 84061


@pytest.mark.covers(EVENT + "del_external_contact", "fact:6.3")
async def test_a_customer_handed_over_says_so(wecom):
    """2.1: Source is there only as DELETE_BY_TRANSFER, for the member who handed over."""
    happen(wecom, "add", at_s=1)
    happen(wecom, "delete_by_transfer", at_s=20)
    _, gone = await heard(wecom)
    assert gone["Source"] == "DELETE_BY_TRANSFER"


@pytest.mark.covers(EVENT + "edit_external_contact")
async def test_an_edit_says_that_and_not_what(wecom):
    """2.1: edit_external_contact includes no difference: read the customer again."""
    happen(wecom, "add", at_s=1)
    happen(wecom, "edit", at_s=20)
    _, edit = await heard(wecom)
    assert list(edit) == [*HEAD, "UserID", "ExternalUserID"]
    assert edit["ChangeType"] == "edit_external_contact"


@pytest.mark.covers("fact:6.3")
async def test_all_the_way_there_and_back_and_there_again(wecom):
    """6.3: half added, friend, deleted by the customer, added again, deleted by staff, added again: each is told."""
    changes = ["add_half", "add", "delete_by_customer", "add", "delete_by_staff", "add"]
    codes = [happen(wecom, change, at_s=20 * (n + 1)) for n, change in enumerate(changes)]
    assert await told(wecom) == [
        "add_half_external_contact",
        "add_external_contact",
        "del_follow_user",
        "add_external_contact",
        "del_external_contact",
        "add_external_contact",
    ]
    assert codes[3]
    assert codes[5], "a new acquaintance is welcomed anew"
    assert len({code for code in codes if code}) == len([code for code in codes if code])
    answer = await wecom.get("externalcontact/get", external_userid="wmC1")
    assert answer["follow_user"][0]["createtime"] == START_S + 120, "the latest add counts"


@pytest.mark.covers("fact:6.3")
@pytest.mark.parametrize(
    ("before", "change"),
    [
        ([], "delete_by_customer"),
        ([], "delete_by_staff"),
        ([], "edit"),
        (["add"], "add"),
        (["add"], "add_half"),
        (["add_half"], "add_half"),
        (["add_half"], "edit"),
        (["add", "delete_by_customer"], "delete_by_customer"),
        (["add", "delete_by_staff"], "delete_by_staff"),
    ],
)
async def test_what_cannot_happen_is_told_to_nobody(wecom, before, change):
    """6.3: the platform reports a transition only from where it can begin."""
    for n, earlier in enumerate(before):
        happen(wecom, earlier, at_s=20 * (n + 1))
    with pytest.raises(AssertionError):
        happen(wecom, change, at_s=200)
    assert len(await heard(wecom)) == len(before)


@pytest.mark.covers("fact:6.3")
async def test_two_pairs_of_one_customer_live_apart(wecom):
    """6.3: the state is one of each pair of staff member and customer."""
    happen(wecom, "add", at_s=1)
    happen(wecom, "add", staff="s2", at_s=2)
    happen(wecom, "delete_by_staff", at_s=20)
    answer = await wecom.get("externalcontact/get", external_userid="wmC1")
    assert [follow["userid"] for follow in answer["follow_user"]] == ["s2"]
    assert [(e["UserID"], e["ChangeType"]) for e in await heard(wecom)] == [
        ("s1", "add_external_contact"),
        ("s2", "add_external_contact"),
        ("s1", "del_external_contact"),
    ]


@pytest.mark.covers("fact:6.3")
async def test_what_the_api_writes_is_told_to_nobody(wecom):
    """1.7: operations performed through the API produce no callback."""
    happen(wecom, "add", at_s=1)
    remark = {"userid": "s1", "external_userid": "wmC1", "remark": "常客"}
    assert (await wecom.post("externalcontact/remark", remark))["errcode"] == 0
    assert await told(wecom) == ["add_external_contact"]
