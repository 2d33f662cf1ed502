"""Fact sheet 3.4: a welcome within 20 s, once; what is wrong with a body does not use the code up."""

import pytest

TEXT = {"content": "你好"}


async def send(wecom, code: str, **body) -> int:
    answer = await wecom.post("externalcontact/send_welcome_msg", {"welcome_code": code, **(body or {"text": TEXT})})
    return answer["errcode"]


async def test_a_code_works_once(wecom):
    code = wecom.happen("add")
    assert await send(wecom, code) == 0
    assert await send(wecom, code) == 41051


async def test_unknown_and_late_codes(wecom):
    code = wecom.happen("add", at_s=1)
    assert await send(wecom, "WELCOMECODE") == 41050
    wecom.clock.ms += 21_001
    assert await send(wecom, code) == 41050
    status = (await wecom.client.get("/_sim/status")).json()
    assert status["welcomes"] == {"issued": 1, "sent": 0, "late": 1}


async def test_at_twenty_seconds_it_still_works(wecom):
    code = wecom.happen("add", at_s=1)
    wecom.clock.ms += 21_000
    assert await send(wecom, code) == 0


async def test_an_api_write_causes_no_callback(wecom):
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
    ],
)
async def test_a_wrong_body_is_refused_and_leaves_the_code_good(wecom, body, errcode):
    code = wecom.happen("add")
    assert await send(wecom, code, **body) == errcode
    assert await send(wecom, code) == 0


@pytest.mark.parametrize("code", [None, "", 5, ["x"]])
async def test_a_missing_or_mistyped_code(wecom, code):
    answer = await wecom.post("externalcontact/send_welcome_msg", {"welcome_code": code, "text": TEXT})
    assert answer["errcode"] == (40058 if not code else 40035)


async def test_nine_attachments_and_the_longest_text_are_fine(wecom):
    code = wecom.happen("add")
    body = {"text": {"content": "你" * 1_333}, "attachments": [IMAGE, LINK, MINI] * 3}
    assert await send(wecom, code, **body) == 0


async def test_after_the_half_adds_welcome_there_is_nothing_left_to_send(wecom):
    half = wecom.happen("add_half", at_s=1)
    assert await send(wecom, half) == 0
    assert wecom.happen("add", at_s=7) == ""
