"""Fact sheet 3.12 and 4.1: messages of an app to staff, who gets them, and what is dropped."""

import pytest

from simulator.world.media import MediaBook
from simulator.world.people import DISABLED, LEFT
from simulator.world.roster import Label, Roster

DAY_S = 86_400
pytestmark = pytest.mark.covers("message/send", "fact:6.17")


async def test_unknown_recipients_are_named_in_lower_case(office):
    """3.12: partial failure is 0, and the ids that do not exist come back lower-cased."""
    answer = await office.send(touser="s1|NoBody|s2", toparty="2|99|x", totag="7")
    assert answer["errcode"] == 0
    assert (answer["invaliduser"], answer["invalidparty"], answer["invalidtag"]) == ("nobody", "99|x", "7")
    assert answer["unlicenseduser"] == ""
    assert list(office.book.messages[answer["msgid"]].received) == ["s1", "s2", "s3"]


async def test_all_recipients_invalid(office):
    """3.12: nobody left is 81013, with the ids in the error body."""
    answer = await office.send(touser="NoBody", toparty="99")
    assert (answer["errcode"], answer["invaliduser"], answer["invalidparty"]) == (81013, "nobody", "99")
    assert office.book.messages == {}


@pytest.mark.parametrize("recipients", [{"touser": None}, {"touser": ""}, {"touser": "|"}])
async def test_no_recipients_given(office, recipients):
    """4.3: 82001 without recipients."""
    assert (await office.send(**recipients))["errcode"] == 82001


async def test_everybody_is_everybody_in_sight(office):
    """3.12: @all reaches all members the app is visible to, and makes the other fields void."""
    office.world.people.staff["s3"].status = LEFT
    answer = await office.send(touser="@all", toparty="99")
    assert answer["invalidparty"] == ""
    assert list(office.book.messages[answer["msgid"]].received) == ["s1", "s2"]


async def test_departments_reach_everybody_below_and_nobody_twice(office):
    """3.12: a department's message reaches those of its sub-departments, each member once."""
    answer = await office.send(touser="s3|s3", toparty="2|3")
    assert list(office.book.messages[answer["msgid"]].received) == ["s3", "s2"]


async def test_address_book_tags_reach_members_and_departments(office):
    """3.12: totag reaches the members and departments of a tag of the address book."""
    office.world.of(Roster).labels[5] = Label({"s1"}, {3})
    answer = await office.send(touser=None, totag="5")
    assert set(office.book.messages[answer["msgid"]].received) == {"s1", "s3"}


async def test_disabled_members_get_nothing(office):
    """3.12: a member who is disabled or has left is an invalid recipient."""
    office.world.people.staff["s1"].status = DISABLED
    assert (await office.send())["errcode"] == 81013


@pytest.mark.covers("event:subscribe", "event:unsubscribe")
async def test_members_leave_and_enter_the_apps_sight(office):
    """2.8: unsubscribe and subscribe go to the app alone, from the member; in between they cannot be reached."""
    assert office.book.unsubscribe("1000002", "s1", office.now_s)
    assert not office.book.unsubscribe("1000002", "s1", office.now_s)
    assert (await office.send())["errcode"] == 81013
    assert (await office.send("1000003"))["errcode"] == 0
    assert office.book.subscribe("1000002", "s1", office.now_s)
    assert (await office.send())["errcode"] == 0
    for (callback, event), name in zip(office.told, ["unsubscribe", "subscribe"], strict=True):
        assert callback.only_agent == event.findtext("AgentID") == "1000002"
        assert (event.findtext("Event"), event.findtext("FromUserName")) == (name, "s1")


async def test_the_right_app_has_to_be_named(office):
    """4.3: no agentid is 40056, another app's 301002."""
    assert (await office.send(agentid=None))["errcode"] == 40056
    assert (await office.send(agentid=1000003))["errcode"] == 301002
    assert (await office.send(agentid="1000002"))["errcode"] == 40035


def article(**fields):
    return {"title": "t", "description": "d", "url": "https://e/u", "picurl": "https://e/p", **fields}


NOTICE = {
    "appid": "wx1",
    "page": "p",
    "title": "会议",
    "description": "今天",
    "content_item": [{"key": "k", "value": "v"}],
}


async def test_every_type_can_be_sent(office):
    """3.12: text, media, textcard, news, mpnews, markdown and miniprogram_notice are taken."""
    media = office.world.of(MediaBook)
    ids = {
        kind: media.add(kind, "message", b"x", "x/x", "x", office.now_s).media_id
        for kind in ("image", "voice", "video", "file")
    }
    contents = {
        **{kind: {"media_id": media_id} for kind, media_id in ids.items()},
        "text": {"content": "hi"},
        "textcard": {"title": "t", "description": "d", "url": "https://e/u", "btntxt": "更多"},
        "news": {"articles": [article()] * 8},
        "mpnews": {"articles": [{"title": "t", "thumb_media_id": ids["image"], "content": "<b>x</b>"}]},
        "markdown": {"content": "**x**"},
        "miniprogram_notice": NOTICE,
    }
    for kind, content in contents.items():
        answer = await office.send(msgtype=kind, **{kind: content})
        assert answer["errcode"] == 0, (kind, answer)
        assert "response_code" not in answer
        assert office.book.messages[answer["msgid"]].msgtype == kind


async def test_long_texts_are_cut_between_characters(office):
    """3.12: a text over 2048 bytes is cut, as are a card's title at 128 and description at 512."""
    msgid = (await office.send(text={"content": "你" * 700}))["msgid"]
    assert office.book.messages[msgid].content == {"content": "你" * 682}
    card = {"title": "题" * 50, "description": "文" * 200, "url": "https://e/u"}
    msgid = (await office.send(msgtype="textcard", textcard=card))["msgid"]
    cut = office.book.messages[msgid].content
    assert (cut["title"], cut["description"]) == ("题" * 42, "文" * 170)


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"msgtype": None}, 40058),
        ({"msgtype": "taskcard", "taskcard": {}}, 40035),
        ({"msgtype": 5}, 40035),
        ({"text": None}, 40058),
        ({"text": {"content": ""}}, 40058),
        ({"text": {"content": 5}}, 40035),
        ({"text": "hi"}, 40035),
        ({"touser": ["s1"]}, 40035),
        ({"touser": "|".join(f"u{n}" for n in range(1_001))}, 40032),
        ({"toparty": "|".join(str(n) for n in range(101))}, 40032),
        ({"safe": 3}, 40035),
        ({"enable_id_trans": "1"}, 40035),
        ({"duplicate_check_interval": 14_401}, 40035),
        ({"msgtype": "image", "image": {"media_id": "unknown"}}, 40007),
        ({"msgtype": "markdown", "markdown": {"content": "x" * 2_049}}, 45002),
        ({"msgtype": "textcard", "textcard": {"title": "t", "description": "d"}}, 40058),
        ({"msgtype": "news", "news": {"articles": []}}, 40058),
        ({"msgtype": "news", "news": {"articles": [article()] * 9}}, 45008),
        ({"msgtype": "news", "news": {"articles": [article(url="")]}}, 40058),
        ({"msgtype": "mpnews", "mpnews": {"articles": [{"title": "t", "content": "x"}]}}, 40058),
        ({"msgtype": "miniprogram_notice", "miniprogram_notice": {"title": "t"}}, 40058),
    ],
)
async def test_wrong_messages_are_refused(office, body, errcode):
    """3.12: what is missing, mistyped or too much gets its errcode, with the empty fields of the answer."""
    answer = await office.send(**body)
    assert (answer["errcode"], answer["invaliduser"]) == (errcode, "")
    assert office.book.messages == {}


async def test_past_thirty_a_minute_a_member_gets_nothing_and_nobody_is_told(office):
    """4.1: the 31st message of a minute from one app to one member is dropped without an error."""
    for _ in range(31):
        answer = await office.send(touser="s1|s2" if not office.book.messages else "s1")
        assert (answer["errcode"], answer["invaliduser"]) == (0, "")
    assert office.book.messages[answer["msgid"]].dropped == ("s1",)
    assert office.book.dropped == 1
    assert list(office.book.messages[(await office.send(touser="s2"))["msgid"]].received) == [
        "s2",
    ]
    assert list(office.book.messages[(await office.send("1000003"))["msgid"]].received) == [
        "s1",
    ]
    office.wecom.advance(60)
    assert list(office.book.messages[(await office.send())["msgid"]].received) == [
        "s1",
    ]


async def test_past_the_hours_limit_too(office):
    """4.1: the limit of an hour drops silently as well, until the hour is over."""
    office.rule(messages={"member_per_hour": 3})
    for _ in range(4):
        office.wecom.advance(61)
        msgid = (await office.send())["msgid"]
    assert office.book.messages[msgid].dropped == ("s1",)
    office.wecom.advance(3_600)
    assert list(office.book.messages[(await office.send())["msgid"]].received) == [
        "s1",
    ]


async def test_an_app_has_the_accounts_limit_times_200_a_day(office):
    """4.1: person-times past account limit × 200 of a business day are 45009 until midnight, for this app alone."""
    office.rule(messages={"day_per_account": 2})
    assert [(await office.send(touser="@all"))["errcode"] for _ in range(3)] == [0, 0, 45009]
    assert (await office.send())["errcode"] == 45009
    assert (await office.send("1000003"))["errcode"] == 0
    office.wecom.advance(DAY_S)
    assert (await office.send())["errcode"] == 0


async def test_the_duplicate_check_sends_once(office):
    """3.12: with enable_duplicate_check the same message within the interval is answered alike and not sent again."""
    checked = {"enable_duplicate_check": 1, "duplicate_check_interval": 100}
    first = await office.send(**checked)
    assert await office.send(**checked) == first
    assert office.book.messages[first["msgid"]].repeats == 1
    assert (await office.send(**checked, text={"content": "other"}))["msgid"] != first["msgid"]
    assert (await office.send(**checked, touser="s2"))["msgid"] != first["msgid"]
    assert (await office.send("1000003", **checked))["msgid"] != first["msgid"]
    office.wecom.advance(100)
    assert (await office.send(**checked))["msgid"] != first["msgid"]
    assert (await office.send())["msgid"] != (await office.send())["msgid"]


async def test_the_duplicate_interval_is_half_an_hour_by_itself(office):
    """3.12: duplicate_check_interval is 1800 s when it is not given."""
    first = await office.send(enable_duplicate_check=1)
    office.wecom.advance(1_799)
    assert (await office.send(enable_duplicate_check=1))["msgid"] == first["msgid"]
    office.wecom.advance(1)
    assert (await office.send(enable_duplicate_check=1))["msgid"] != first["msgid"]


@pytest.mark.covers("message/recall")
async def test_a_message_can_be_recalled_for_a_day(office):
    """3.12: recall within 24 h, later 42052; only by the app that sent it."""
    msgid = (await office.send())["msgid"]
    assert (await office.post("message/recall", "1000003", msgid=msgid))["errcode"] == 40035
    assert (await office.post("message/recall"))["errcode"] == 40058
    assert (await office.post("message/recall", msgid=5))["errcode"] == 40035
    assert (await office.post("message/recall", msgid="unknown"))["errcode"] == 40035
    office.wecom.advance(DAY_S)
    assert (await office.post("message/recall", msgid=msgid))["errcode"] == 0
    assert office.book.messages[msgid].recalled_s == office.now_s
    office.wecom.advance(1)
    assert (await office.post("message/recall", msgid=msgid))["errcode"] == 42052


async def test_sending_causes_no_callback(office):
    """1.7: what is done through the API produces no callback."""
    await office.send(touser="@all")
    office.wecom.advance(30)
    assert office.told == []


@pytest.mark.covers("fact:6.6")
async def test_what_was_dropped_is_in_the_truth_alone(office):
    """4.1: who was past the limit of a minute stands in the truth and in no answer."""
    office.rule(messages={"member_per_minute": 1})
    answers = [await office.send(touser="s1|s2") for _ in range(2)]
    assert [answer["errcode"] for answer in answers] == [0, 0]
    rows = (await office.wecom.client.get("/_sim/truth/app_messages")).json()["rows"]
    assert [(row["received"], row["dropped"]) for row in rows] == [(["s1", "s2"], []), ([], ["s1", "s2"])]
