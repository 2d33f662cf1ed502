"""Fact sheet 2.1: msgaudit_notify says that archived chats have something new, and nothing else."""

import asyncio
import xml.etree.ElementTree as ElementTree

import pytest

from simulator.world.corp import Said
from simulator.world.relations import ContactChange
from siyu.wecom.crypto import CallbackCrypto

START_S = 1_760_000_000


async def notices(wecom) -> list[dict[str, str]]:
    async with asyncio.timeout(10):
        await wecom.simulation.deliverer.wait_idle()
    corp, found = wecom.corp, []
    crypto = CallbackCrypto(corp.callback_token, corp.callback_aes_key, corp.corp_id)
    for request in wecom.accepted:
        encrypt = ElementTree.fromstring(request.content).findtext("Encrypt") or ""
        query = request.url.params
        opened = crypto.decrypt(query["msg_signature"], query["timestamp"], query["nonce"], encrypt)
        xml = ElementTree.fromstring(opened)
        found.append({element.tag: element.text or "" for element in xml})
    return [event for event in found if event["Event"] == "msgaudit_notify"]


@pytest.mark.parametrize("platform_rules", [{"welcome": {"archive_staff": ["s1"]}}], indirect=True)
@pytest.mark.covers("event:msgaudit_notify")
async def test_new_messages_of_archived_chats_are_announced_once_for_all_that_came(wecom):
    """2.1: msgaudit_notify carries the head and the archive's AgentID; one word for many messages."""
    for staff in ("s1", "s2"):
        wecom.happen("add", staff=staff, at_s=1)

    def say(staff: str, at_s: int) -> None:
        wecom.world.say(Said(START_S + at_s, staff, "wmC1", True))

    say("s1", 5)
    wecom.advance(30)
    assert await notices(wecom) == [], "the customer has not agreed"
    agreed = ContactChange(START_S + 31, wecom.corp.corp_id, "s1", "wmC1", "archive_consent")
    assert wecom.world.happen(agreed)
    for second in (32, 33, 40):
        say("s1", second)
    say("s2", 41)
    wecom.advance(20)
    assert await notices(wecom) == [
        {
            "ToUserName": wecom.corp.corp_id,
            "FromUserName": "sys",
            "CreateTime": str(START_S + 47),
            "MsgType": "event",
            "Event": "msgaudit_notify",
            "AgentID": "2000004",
        }
    ]
    say("s1", 60)
    wecom.advance(60)
    assert len(await notices(wecom)) == 2
