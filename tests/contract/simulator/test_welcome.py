"""Fact sheet 3.4: a welcome within 20 s, once; what is wrong with a body does not use the code up."""

from dataclasses import replace

import pytest

from simulator.world.media import MESSAGE, MediaBook
from simulator.world.people import NOT_ACTIVATED

COVERS = "externalcontact/send_welcome_msg"
TEXT = {"content": "你好"}


async def send(wecom, code: str, **body) -> int:
    answer = await wecom.post("externalcontact/send_welcome_msg", {"welcome_code": code, **(body or {"text": TEXT})})
    return answer["errcode"]


@pytest.mark.covers(COVERS, "fact:6.4")
async def test_a_code_works_once(wecom):
    """3.4: within 20 s of the event, once; already delivered: 41051."""
    code = wecom.happen("add")
    assert await send(wecom, code) == 0
    assert await send(wecom, code) == 41051


@pytest.mark.covers(COVERS, "fact:6.4")
async def test_unknown_and_late_codes(wecom):
    """3.4: late or invalid: 41050."""
    code = wecom.happen("add", at_s=1)
    assert await send(wecom, "WELCOMECODE") == 41050
    wecom.clock.ms += 21_001
    assert await send(wecom, code) == 41050
    status = (await wecom.client.get("/_sim/status")).json()
    assert status["welcomes"] == {"issued": 1, "sent": 0, "late": 1}


@pytest.mark.covers(COVERS, "fact:6.4")
async def test_at_twenty_seconds_it_still_works(wecom):
    """3.4: within 20 s of the event."""
    code = wecom.happen("add", at_s=1)
    wecom.clock.ms += 21_000
    assert await send(wecom, code) == 0


@pytest.mark.covers(COVERS)
async def test_an_api_write_causes_no_callback(wecom):
    """1.7: what is done through the API is told to nobody."""
    code = wecom.happen("add")
    assert await send(wecom, code) == 0
    assert wecom.accepted == []


LINK = {"msgtype": "link", "link": {"title": "t", "url": "https://e/u", "picurl": "https://e/p", "desc": "d"}}
MINI = {"msgtype": "miniprogram", "miniprogram": {"title": "t", "pic_media_id": "M", "appid": "wx1", "page": "/p"}}
IMAGE = {"msgtype": "image", "image": {"media_id": "M"}}


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"text": {"content": "你" * 1_334}}, 45002),  # 4,002 bytes
        ({"text": {"content": ""}}, 40058),
        ({"text": {}}, 40058),
        ({"text": {"content": 5}}, 40035),
        ({"text": {"content": "\ud800"}}, 40035),
        ({"text": "hi"}, 40035),
        ({"attachments": []}, 41088),
        ({"attachments": {}}, 40035),
        ({"attachments": [IMAGE] * 10}, 41064),
        ({"attachments": [{"msgtype": "voice"}]}, 41065),
        ({"attachments": ["image"]}, 40035),
        ({"attachments": [{"msgtype": "image", "image": {}}]}, 40058),
        ({"attachments": [{"msgtype": "video"}]}, 40058),
        ({"attachments": [{"msgtype": "file", "file": {"media_id": 7}}]}, 40035),
        ({"attachments": [{**LINK, "link": {"title": "t"}}]}, 40058),
        ({"attachments": [{**LINK, "link": {**LINK["link"], "title": "x" * 129}}]}, 45002),
        ({"attachments": [{**LINK, "link": {**LINK["link"], "desc": "x" * 513}}]}, 45002),
        ({"attachments": [{**MINI, "miniprogram": {**MINI["miniprogram"], "title": "x" * 65}}]}, 45002),
        ({"nothing": 1}, 41089),
        ({"attachments": [IMAGE]}, 40007),
        ({"attachments": [MINI]}, 40007),
        ({"text": {"content": "加我办假证"}}, 40201),
        ({"attachments": [{**LINK, "link": {**LINK["link"], "desc": "高利贷"}}]}, 40201),
    ],
)
@pytest.mark.covers(COVERS)
async def test_a_wrong_body_is_refused_and_leaves_the_code_good(wecom, body, errcode):
    """3.4: text at most 4000 bytes, at most 9 attachments with their fields; 4.3: what each code means."""
    code = wecom.happen("add")
    assert await send(wecom, code, **body) == errcode
    assert await send(wecom, code) == 0


@pytest.mark.parametrize("code", [None, "", 5, ["x"]])
@pytest.mark.covers(COVERS)
async def test_a_missing_or_mistyped_code(wecom, code):
    """4.3: 40058 required parameter missing, 40035 of a wrong type."""
    answer = await wecom.post("externalcontact/send_welcome_msg", {"welcome_code": code, "text": TEXT})
    assert answer["errcode"] == (40058 if not code else 40035)


@pytest.mark.covers(COVERS)
async def test_nine_attachments_and_the_longest_text_are_fine(wecom):
    """3.4: text at most 4000 bytes, at most 9 attachments: image, link, miniprogram, video, file."""
    ids = {
        kind: wecom.world.of(MediaBook).add(kind, MESSAGE, b"x", "", "x", wecom.clock.ms // 1000).media_id
        for kind in ("image", "video", "file")
    }
    image = {"msgtype": "image", "image": {"media_id": ids["image"]}}
    mini = {**MINI, "miniprogram": {**MINI["miniprogram"], "pic_media_id": ids["image"]}}
    others = [{"msgtype": kind, kind: {"media_id": ids[kind]}} for kind in ("video", "file")]
    code = wecom.happen("add")
    body = {"text": {"content": "你" * 1_333}, "attachments": [image, LINK, mini] * 2 + others + [image]}
    assert await send(wecom, code, **body) == 0


@pytest.mark.covers(COVERS, "fact:6.4")
async def test_after_the_half_adds_welcome_there_is_nothing_left_to_send(wecom):
    """2.1: the code comes once, with the half add or with the add."""
    half = wecom.happen("add_half", at_s=1)
    assert await send(wecom, half) == 0
    assert wecom.happen("add", at_s=7) == ""


@pytest.mark.covers(COVERS)
async def test_a_welcome_touches_the_customer(wecom):
    """3.4: what is delivered is seen by the customer, once."""
    code = wecom.happen("add")
    assert await send(wecom, code) == 0
    assert await send(wecom, code) == 41051
    [touch] = wecom.world.touches
    assert (touch.kind, touch.staff_id, touch.customer_id, touch.ref) == ("welcome", "s1", "wmC1", code)
    assert touch.content == TEXT["content"]


@pytest.mark.parametrize("platform_rules", [{"welcome": {"archive_staff": ["s1"]}}], indirect=True)
@pytest.mark.covers(COVERS, "event:change_external_contact/msg_audit_approved")
async def test_an_archived_member_welcomes_who_has_agreed(wecom):
    """3.4: with archive consent missing: 41053; the code stays good."""
    code = wecom.happen("add")
    assert await send(wecom, code) == 41053
    wecom.happen("archive_consent", at_s=4)
    assert await send(wecom, code) == 0


@pytest.mark.covers(COVERS)
async def test_a_member_who_cannot_send(wecom):
    """4.3: 41054 member not activated; 40205 no login within a year."""
    code = wecom.happen("add")
    member = wecom.world.people.staff["s1"]
    member.status = NOT_ACTIVATED
    assert await send(wecom, code) == 41054
    member.status, member.last_login_s = 1, wecom.clock.ms // 1000 - 366 * 86_400
    assert await send(wecom, code) == 40205
    member.last_login_s = 0
    assert await send(wecom, code) == 0


@pytest.mark.covers(COVERS, "fact:6.4")
async def test_two_apps_compete_for_a_code(wecom):
    """3.4: for another app 41096 while the first one's welcome is being distributed, which is then 41051."""
    apps = wecom.platform.tokens._apps[wecom.corp.corp_id]
    apps.append(replace(apps[0], agent_id="1000003", secret="another", callback_url=""))
    query = {"corpid": wecom.corp.corp_id, "corpsecret": "another"}
    first = await wecom.token()
    other = (await wecom.client.get("/cgi-bin/gettoken", params=query)).json()["access_token"]
    code = wecom.happen("add")
    assert await send(wecom, code) == 0
    wecom._token = other
    assert await send(wecom, code) == 41096
    wecom.clock.ms += 2_000
    assert await send(wecom, code) == 41051
    wecom._token = first
    assert await send(wecom, code) == 41051
    assert len(wecom.world.touches) == 1
