"""Fact sheet 3.11: what may be sent to a customer, when, how often, and what becomes of it."""

import pytest

from simulator.world.people import NOT_ACTIVATED

HOUR_S = 3_600
pytestmark = pytest.mark.covers("kf/send_msg", "fact:6.16")


async def to_state(kf, kfid: str, state: int, servicer: str = "", customer: str = "wmC1") -> dict:
    body = {"open_kfid": kfid, "external_userid": customer, "service_state": state, "servicer_userid": servicer}
    return await kf.post("service_state/trans", **body)


async def test_five_messages_until_the_customer_writes_again(kf):
    """3.11: the sixth message is 95001; when the customer writes again there are five more."""
    kfid = await kf.open()
    kf.write(kfid)
    assert [(await kf.text(kfid))["errcode"] for _ in range(6)] == [0, 0, 0, 0, 0, 95001]
    kf.write(kfid)
    assert [(await kf.text(kfid))["errcode"] for _ in range(6)] == [0, 0, 0, 0, 0, 95001]


async def test_within_48_hours_of_the_customers_last_message(kf):
    """3.11: 48 h after the customer's last message sending still works, a second later it is 95002."""
    kfid = await kf.open()
    kf.write(kfid)
    kf.wecom.advance(48 * HOUR_S)
    assert (await kf.text(kfid))["errcode"] == 0
    kf.wecom.advance(1)
    assert (await kf.text(kfid))["errcode"] == 95002


async def test_a_customer_who_never_wrote_cannot_be_written_to(kf):
    """4.3: 95031 for a customer who has not written, also when they entered; 40096 for one who does not exist."""
    kfid = await kf.open()
    assert (await kf.text(kfid))["errcode"] == 95031
    kf.desk.enter(kfid, "wmC1", kf.now_s)
    assert (await kf.text(kfid))["errcode"] == 95031
    assert (await kf.text(kfid, "wmNobody"))["errcode"] == 40096


async def test_only_new_and_bot_conversations_take_messages(kf):
    """3.11: states 0 and 1 take messages; queue and human are 95018, an ended one is 95013."""
    kfid = await kf.open("s1")
    kf.write(kfid)
    codes = [(await kf.text(kfid))["errcode"]]
    for state in (1, 2, 3, 4):
        assert (await to_state(kf, kfid, state, "s1"))["errcode"] == 0
        codes.append((await kf.text(kfid))["errcode"])
    assert codes == [0, 0, 95018, 95018, 95013]


async def test_an_own_msgid_is_used_once(kf):
    """3.11: a msgid of one's own comes back, and is 95033 the second time; a refused send does not use it up."""
    kfid = await kf.open()
    kf.write(kfid)
    assert (await kf.text(kfid, msgid="a-1_Z", text={"content": ""}))["errcode"] == 40058
    assert (await kf.text(kfid, msgid="a-1_Z"))["msgid"] == "a-1_Z"
    assert (await kf.text(kfid, msgid="a-1_Z"))["errcode"] == 95033
    made = [(await kf.text(kfid))["msgid"] for _ in range(2)]
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"msgid": "x" * 33}, 40035),
        ({"msgid": "a b"}, 40035),
        ({"msgid": 7}, 40035),
        ({"msgtype": None}, 40058),
        ({"msgtype": "business_card"}, 40035),
        ({"msgtype": "text", "text": None}, 40058),
        ({"text": {"content": "你" * 683}}, 45002),  # 2,049 bytes
        ({"text": {"content": "办假证"}}, 40201),
        ({"touser": None}, 40058),
        ({"open_kfid": None}, 40058),
        ({"open_kfid": "wkx"}, 95000),
        ({"msgtype": "image", "image": {"media_id": "unknown"}}, 40007),
        ({"msgtype": "image", "image": {}}, 40058),
        ({"msgtype": "link", "link": {"title": "t", "url": "u"}}, 40058),
        ({"msgtype": "link", "link": {"title": "t" * 129, "url": "u"}}, 45002),
        ({"msgtype": "miniprogram", "miniprogram": {"appid": "wx", "thumb_media_id": "x"}}, 40058),
        ({"msgtype": "location", "location": {"latitude": 91, "longitude": 0}}, 40035),
        ({"msgtype": "location", "location": {"latitude": "1", "longitude": 0}}, 40035),
        ({"msgtype": "location", "location": {"latitude": 1}}, 40058),
        ({"msgtype": "ca_link", "ca_link": {}}, 40058),
        ({"msgtype": "msgmenu", "msgmenu": {"list": [{"type": "click", "click": {"id": "1"}}]}}, 40058),
        ({"msgtype": "msgmenu", "msgmenu": {"list": [{"type": "dance", "dance": {}}]}}, 40035),
        ({"msgtype": "msgmenu", "msgmenu": {"list": [{"type": "text", "text": {"content": "x"}}] * 11}}, 40032),
    ],
)
async def test_wrong_messages_are_refused_and_count_for_nothing(kf, body, errcode):
    """3.11: what is wrong with a message gets its errcode and leaves the five messages untouched."""
    kfid = await kf.open()
    kf.write(kfid)
    assert (await kf.text(kfid, **body))["errcode"] == errcode
    assert [(await kf.text(kfid))["errcode"] for _ in range(6)] == [0, 0, 0, 0, 0, 95001]


async def test_every_type_can_be_sent(kf):
    """3.11: text, image, voice, video, file, link, miniprogram, msgmenu, location and ca_link are taken."""
    kfid = await kf.open()
    menu = [
        {"type": "click", "click": {"id": "101", "content": "满意"}},
        {"type": "view", "view": {"url": "https://e/u", "content": "看"}},
        {"type": "miniprogram", "miniprogram": {"appid": "wx1", "pagepath": "/p", "content": "小程序"}},
        {"type": "text", "text": {"content": "文字"}},
    ]
    contents = {
        "text": {"content": "你" * 682},  # 2,046 bytes
        **{kind: {"media_id": kf.media(kind)} for kind in ("image", "voice", "video", "file")},
        "link": {"title": "t", "url": "https://e/u", "thumb_media_id": kf.media()},
        "miniprogram": {"appid": "wx1", "title": "t", "pagepath": "/p", "thumb_media_id": kf.media()},
        "msgmenu": {"head_content": "请选择", "list": menu, "tail_content": "谢谢"},
        "location": {"name": "店", "address": "路", "latitude": 23.1, "longitude": 113},
        "ca_link": {"link_url": "https://work.weixin.qq.com/ca/x"},
    }
    for kind, content in contents.items():
        kf.write(kfid)
        assert (await kf.text(kfid, msgtype=kind, **{kind: content}))["errcode"] == 0, kind


@pytest.mark.covers("event:kf/msg_send_fail")
async def test_success_is_no_delivery(kf):
    """3.11: a send that was taken fails later with msg_send_fail when the customer refuses (type 10)."""
    kfid = await kf.open()
    kf.write(kfid)
    kf.desk.refuse(kfid, "wmC1")
    msgid = (await kf.text(kfid))["msgid"]
    assert await kf.events(kfid, "msg_send_fail") == []
    kf.wecom.advance(1)
    (event,) = await kf.events(kfid, "msg_send_fail")
    assert (event["fail_msgid"], event["fail_type"], event["external_userid"]) == (msgid, 10, "wmC1")
    assert kf.desk.sent[msgid].fate == "failed"


@pytest.mark.covers("event:kf/msg_send_fail")
@pytest.mark.parametrize(
    ("rules", "between", "fail_type"),
    [
        ({"unsafe_share": 1.0}, None, 13),
        ({"verified": False}, None, 8),
        ({}, "ended", 5),
        ({}, "deleted", 1),
        ({}, "nobody", 11),
    ],
)
async def test_a_taken_message_fails_for_what_happens_after(kf, rules, between, fail_type):
    """3.11: safety, no verification, an ended session, a deleted account, nobody logged in: each has its fail_type."""
    kf.rule(**rules)
    kfid = await kf.open()
    kf.write(kfid)
    assert (await kf.text(kfid))["errcode"] == 0
    if between == "ended":
        await to_state(kf, kfid, 4)
    elif between == "deleted":
        await kf.ok("account/del", open_kfid=kfid)
    elif between == "nobody":
        for member in kf.wecom.world.people.staff.values():
            member.status = NOT_ACTIVATED
    kf.wecom.advance(1)
    (event,) = await kf.events(kfid, "msg_send_fail")
    assert event["fail_type"] == fail_type


async def test_an_api_message_causes_no_callback(kf):
    """1.7: what is done through the API produces no callback."""
    kfid = await kf.open()
    kf.write(kfid)
    told = len(kf.told)
    await kf.text(kfid)
    await to_state(kf, kfid, 1)
    kf.wecom.advance(30)
    assert len(kf.told) == told


def on_event(kf, code, **body):
    return kf.post("send_msg_on_event", **{"code": code, "msgtype": "text", "text": {"content": "欢迎"}, **body})


@pytest.mark.covers("kf/send_msg_on_event", "event:kf/enter_session")
async def test_a_welcome_code_lives_twenty_seconds_and_works_once(kf):
    """3.11: the code of enter_session is good for one message within 20 s, before the customer has written."""
    kfid = await kf.open()
    kf.desk.enter(kfid, "wmC1", kf.now_s)
    kf.desk.enter(kfid, "wmC2", kf.now_s)
    first, second = (event["welcome_code"] for event in await kf.events(kfid, "enter_session"))
    kf.wecom.advance(20)
    assert (await on_event(kf, first))["errcode"] == 0
    assert (await on_event(kf, first))["errcode"] == 40035
    kf.wecom.advance(1)
    assert (await on_event(kf, second))["errcode"] == 95002
    assert (await on_event(kf, "invented"))["errcode"] == 40035


@pytest.mark.covers("event:kf/enter_session")
async def test_a_welcome_code_is_given_once_in_48_hours(kf):
    """2.5: enter_session has no welcome_code for whoever was greeted or wrote within 48 h."""
    kfid = await kf.open()
    assert kf.desk.enter(kfid, "wmC1", kf.now_s)
    assert not kf.desk.enter(kfid, "wmC1", kf.now_s + 60)
    kf.write(kfid, "wmC2")
    assert not kf.desk.enter(kfid, "wmC2", kf.now_s + 60)
    assert "welcome_code" not in (await kf.events(kfid, "enter_session"))[-1]
    assert kf.desk.enter(kfid, "wmC1", kf.now_s + 48 * HOUR_S + 61)


@pytest.mark.covers("kf/send_msg_on_event")
async def test_messages_on_events_take_text_and_menus_and_own_msgids(kf):
    """3.11: send_msg_on_event takes text and msgmenu only; a wrong body leaves the code good."""
    kfid = await kf.open()
    code = kf.desk.enter(kfid, "wmC1", kf.now_s)
    assert (await on_event(kf, code, msgtype="image", image={"media_id": kf.media()}))["errcode"] == 40035
    assert (await on_event(kf, code, text={"content": 5}))["errcode"] == 40035
    assert (await on_event(kf, None))["errcode"] == 40058
    menu = {"head_content": "您好", "list": [{"type": "click", "click": {"id": "1", "content": "人工"}}]}
    assert (await on_event(kf, code, msgtype="msgmenu", msgmenu=menu, msgid="w1"))["msgid"] == "w1"
    kf.write(kfid)
    assert (await kf.text(kfid, msgid="w1"))["errcode"] == 95033


@pytest.mark.covers("kf/send_msg_on_event", "kf/service_state/trans")
async def test_codes_of_the_queue_live_48_hours_and_of_an_end_20_seconds(kf):
    """3.11: trans to the queue answers a code of 48 h, an end one of 20 s; neither counts among the five."""
    kfid = await kf.open("s1")
    kf.write(kfid)
    queued = (await to_state(kf, kfid, 2))["msg_code"]
    kf.wecom.advance(47 * HOUR_S)
    assert (await on_event(kf, queued))["errcode"] == 0
    ended = (await to_state(kf, kfid, 4))["msg_code"]
    late = kf.desk.code(ended, kf.now_s)
    kf.wecom.advance(20)
    assert (await on_event(kf, ended))["errcode"] == 0
    assert late.used
