"""Fact sheet 3.12 and 2.8: template cards, the buttons on them, and what an update does."""

import copy

import pytest

HOUR_S = 3_600
SURE = {"never_share": 0.0, "median_s": 60, "spread": 0.0}
"""Habits of staff who all act after a minute."""
pytestmark = pytest.mark.covers("message/send", "fact:6.17")

TITLE = {"title": "标题", "desc": "说明"}
OPEN = {"type": 1, "url": "https://e/u"}
OPTIONS = [{"id": f"o{n}", "text": str(n)} for n in range(3)]
SUBMIT = {"text": "提交", "key": "submit"}
MENU = {"desc": "更多", "action_list": [{"text": "接受推送", "key": "accept"}, {"text": "不再推送", "key": "mute"}]}
CARDS = {
    "text_notice": {"main_title": TITLE, "card_action": OPEN, "sub_title_text": "下载"},
    "news_notice": {
        "main_title": TITLE,
        "card_action": OPEN,
        "card_image": {"url": "https://e/p", "aspect_ratio": 1.3},
    },
    "button_interaction": {
        "main_title": TITLE,
        "task_id": "t",
        "button_list": [{"text": "好", "key": "yes"}, {"text": "看", "type": 1, "url": "https://e/u"}],
        "button_selection": {"question_key": "q", "title": "原因", "option_list": OPTIONS, "selected_id": "o1"},
    },
    "vote_interaction": {
        "main_title": TITLE,
        "task_id": "t",
        "checkbox": {"question_key": "q", "option_list": OPTIONS, "mode": 1},
        "submit_button": SUBMIT,
    },
    "multiple_interaction": {
        "main_title": TITLE,
        "task_id": "t",
        "select_list": [{"question_key": f"q{n}", "title": "x", "option_list": OPTIONS} for n in range(3)],
        "submit_button": SUBMIT,
    },
}


async def send_card(office, kind: str, agent: str = "1000002", to: str = "s1", **fields):
    card = {"card_type": kind, **copy.deepcopy(CARDS[kind]), **fields}
    card = {name: value for name, value in card.items() if value is not None}
    return await office.send(agent, touser=to, msgtype="template_card", template_card=card)


@pytest.mark.parametrize("kind", list(CARDS))
async def test_the_five_kinds_of_card_are_sent(office, kind):
    """3.12: only the three interactive kinds answer a response_code."""
    answer = await send_card(office, kind)
    assert answer["errcode"] == 0, answer
    assert ("response_code" in answer) == kind.endswith("interaction")


@pytest.mark.parametrize(
    ("kind", "fields", "errcode"),
    [
        ("text_notice", {"card_type": "x"}, 40035),
        ("text_notice", {"card_type": None}, 40058),
        ("text_notice", {"main_title": {}, "sub_title_text": ""}, 40058),
        ("text_notice", {"card_action": None}, 40058),
        ("text_notice", {"card_action": {"type": 0}}, 40035),
        ("text_notice", {"card_action": {"type": 1}}, 40058),
        ("text_notice", {"card_action": {"type": 2}}, 40058),
        ("text_notice", {"horizontal_content_list": [{"keyname": "k"}] * 7}, 40032),
        ("text_notice", {"horizontal_content_list": [{"value": "v"}]}, 40058),
        ("text_notice", {"horizontal_content_list": [{"keyname": "k", "type": 1}]}, 40058),
        ("text_notice", {"horizontal_content_list": [{"keyname": "k", "type": 2, "media_id": "x"}]}, 40007),
        ("text_notice", {"jump_list": [{"title": "j"}] * 4}, 40032),
        ("text_notice", {"jump_list": [{"title": "j", "type": 1}]}, 40058),
        ("text_notice", {"action_menu": {"action_list": []}, "task_id": "t"}, 40058),
        ("text_notice", {"action_menu": {"action_list": MENU["action_list"] * 2}, "task_id": "t"}, 40032),
        ("text_notice", {"action_menu": MENU}, 42016),
        ("text_notice", {"source": "x"}, 40035),
        ("news_notice", {"card_image": None}, 40058),
        ("news_notice", {"main_title": {"desc": "x"}}, 40058),
        ("button_interaction", {"task_id": None}, 42016),
        ("button_interaction", {"task_id": "a b"}, 42014),
        ("button_interaction", {"task_id": "x" * 129}, 42014),
        ("button_interaction", {"task_id": 5}, 40035),
        ("button_interaction", {"button_list": []}, 40058),
        ("button_interaction", {"button_list": [{"text": "x", "key": "k"}] * 7}, 40032),
        ("button_interaction", {"button_list": [{"text": "x"}]}, 40058),
        ("button_interaction", {"button_list": [{"text": "x", "type": 1}]}, 40058),
        ("button_interaction", {"button_list": [{"text": "x", "key": "k" * 1_025}]}, 40035),
        ("button_interaction", {"button_selection": {"question_key": "q", "option_list": OPTIONS * 2}}, 40035),
        (
            "button_interaction",
            {
                "button_selection": {
                    "question_key": "q",
                    "option_list": [{"id": str(n), "text": "x"} for n in range(11)],
                }
            },
            40032,
        ),
        ("vote_interaction", {"checkbox": None}, 40058),
        ("vote_interaction", {"checkbox": {"question_key": "q", "option_list": OPTIONS, "mode": 2}}, 40035),
        (
            "vote_interaction",
            {"checkbox": {"question_key": "q", "option_list": [{"id": str(n), "text": "x"} for n in range(21)]}},
            40032,
        ),
        ("vote_interaction", {"submit_button": {"text": "x"}}, 40058),
        ("multiple_interaction", {"select_list": []}, 40058),
        ("multiple_interaction", {"select_list": [{"question_key": "q", "option_list": OPTIONS}] * 4}, 40032),
        ("multiple_interaction", {"select_list": [{"question_key": "q", "option_list": OPTIONS}] * 2}, 40035),
    ],
)
async def test_wrong_cards_are_refused(office, kind, fields, errcode):
    """3.12: a card past the limits of its fields gets its errcode, and its task_id stays free."""
    assert (await send_card(office, kind, **fields))["errcode"] == errcode
    assert (await send_card(office, "button_interaction"))["errcode"] == 0


async def test_a_task_id_is_used_once_per_app(office):
    """4.3: the same task_id again is 42014; another app may use it too."""
    assert (await office.card())["errcode"] == 0
    assert (await office.card())["errcode"] == 42014
    assert (await office.card("1000003"))["errcode"] == 0
    assert (await office.card(task_id="task-2@_-"))["errcode"] == 0


@pytest.mark.parametrize(("kind", "errcode"), [(kind, 43012 if "inter" in kind else 0) for kind in CARDS])
async def test_interactive_cards_need_a_callback_url(office, kind, errcode):
    """4.3: an app without callback URL gets 43012 for interactive cards; notices it may send."""
    assert (await send_card(office, kind, "1000004"))["errcode"] == errcode


@pytest.mark.covers("event:template_card_event")
async def test_a_pressed_button_is_told_to_the_sending_app(office):
    """2.8: template_card_event comes from the member, with key, task, kind and a response code of its own."""
    answer = await office.card("1000003")
    code = office.book.cards.press(answer["msgid"], "s1", "skip", office.now_s)
    ((callback, event),) = office.told
    assert (callback.event, callback.only_agent) == ("template_card_event", "1000003")
    shown = {name: event.findtext(name) for name in ("FromUserName", "EventKey", "TaskId", "CardType", "AgentID")}
    assert shown == {
        "FromUserName": "s1",
        "EventKey": "skip",
        "TaskId": "task-1",
        "CardType": "button_interaction",
        "AgentID": "1000003",
    }
    assert event.findtext("ResponseCode") == code != answer["response_code"]
    assert event.find("SelectedItems") is None


async def test_a_card_is_pressed_once_by_those_who_got_it(office):
    """3.12: a second press, a key the card has not, and somebody else's press do nothing."""
    msgid = (await office.card(to="s1|s2"))["msgid"]
    cards = office.book.cards
    assert cards.press(msgid, "s1", "nothing", office.now_s) == ""
    assert cards.press(msgid, "s3", "done", office.now_s) == ""
    assert cards.press(msgid, "s1", "done", office.now_s)
    assert cards.press(msgid, "s1", "skip", office.now_s) == ""
    assert cards.press(msgid, "s2", "skip", office.now_s)
    assert [press.key for press in cards.presses] == ["done", "skip"]


@pytest.mark.covers("event:template_card_event")
async def test_selected_options_come_with_the_event(office):
    """2.8: a submitted card names its questions and the options chosen."""
    msgid = (await send_card(office, "multiple_interaction"))["msgid"]
    office.book.cards.press(msgid, "s1", "submit", office.now_s, [("q0", ["o1"]), ("q1", ["o2"])])
    (event,) = office.events("template_card_event")
    items = event.findall("SelectedItems/SelectedItem")
    found = [(i.findtext("QuestionKey"), [o.text for o in i.findall("OptionIds/OptionId")]) for i in items]
    assert found == [("q0", ["o1"]), ("q1", ["o2"])]


async def test_keys_may_hold_whatever_xml_means_something_by(office):
    """2.8: a key with markup in it arrives as it was."""
    key = "<a>]]>&'\"</a>"
    msgid = (await office.card(button_list=[{"text": "x", "key": key}]))["msgid"]
    office.book.cards.press(msgid, "s1", key, office.now_s)
    (event,) = office.events("template_card_event")
    assert event.findtext("EventKey") == key


@pytest.mark.covers("event:template_card_event")
@pytest.mark.parametrize("kind", ["button_interaction", "vote_interaction", "multiple_interaction"])
async def test_staff_press_by_habit(office, kind):
    """6: everybody who got a card presses it some time later, with options that it has."""
    office.rule(habits=SURE, card_habits={"menu_share": 0.0})
    await send_card(office, kind, to="@all")
    office.wecom.advance(59)
    assert office.events("template_card_event") == []
    office.wecom.advance(1)
    events = office.events("template_card_event")
    assert sorted(event.findtext("FromUserName") for event in events) == ["s1", "s2", "s3"]
    ids = {option["id"] for option in OPTIONS}
    for event in events:
        chosen = [option.text for option in event.findall("SelectedItems/SelectedItem/OptionIds/OptionId")]
        assert chosen
        assert ids >= set(chosen)


@pytest.mark.covers("event:template_card_menu_event")
async def test_staff_use_the_menu_of_a_card(office):
    """2.8: template_card_menu_event is told like a press, without SelectedItems."""
    office.rule(habits=SURE, card_habits={"menu_share": 1.0})
    await send_card(office, "text_notice", action_menu=MENU, task_id="m1")
    office.wecom.advance(60)
    ((callback, event),) = [told for told in office.told if told[0].event == "template_card_menu_event"]
    assert callback.only_agent == "1000002"
    assert event.findtext("EventKey") in ("accept", "mute")
    assert (event.findtext("TaskId"), event.findtext("CardType")) == ("m1", "text_notice")
    assert event.findtext("ResponseCode")
    assert event.find("SelectedItems") is None


@pytest.mark.covers("message/recall")
async def test_a_recalled_card_is_not_pressed(office):
    """3.12: after a recall nobody can press the card any more."""
    office.rule(habits=SURE)
    msgid = (await office.card())["msgid"]
    assert (await office.post("message/recall", msgid=msgid))["errcode"] == 0
    office.wecom.advance(3_600)
    assert office.events("template_card_event") == []


def update(office, code, agent: str = "1000002", **body):
    body = {"agentid": int(agent), "response_code": code, "atall": 1, "button": {"replace_name": "已处理"}, **body}
    return office.post("message/update_template_card", agent, **{k: v for k, v in body.items() if v is not None})


@pytest.mark.covers("message/update_template_card")
async def test_an_update_closes_the_buttons_and_uses_the_code_up(office):
    """3.12: after replace_name nobody can press; the response code works once, then it is 60140."""
    answer = await office.card(to="s1|s2")
    assert (await update(office, answer["response_code"]))["errcode"] == 0
    assert office.book.cards.press(answer["msgid"], "s2", "done", office.now_s) == ""
    assert office.book.messages[answer["msgid"]].view("s2").closed_with == "已处理"
    assert (await update(office, answer["response_code"]))["errcode"] == 60140


@pytest.mark.covers("message/update_template_card")
async def test_a_response_code_lives_72_hours(office):
    """3.12: a response code is good for 72 h, and for the app it was given to."""
    first, second = (await office.card(task_id="a")), (await office.card(task_id="b"))
    assert (await update(office, first["response_code"], "1000003"))["errcode"] == 60140
    assert (await update(office, "invented"))["errcode"] == 60140
    office.wecom.advance(72 * HOUR_S)
    assert (await update(office, first["response_code"]))["errcode"] == 0
    office.wecom.advance(1)
    assert (await update(office, second["response_code"]))["errcode"] == 60140


@pytest.mark.covers("message/update_template_card", "event:template_card_event")
async def test_an_update_reaches_some_and_names_the_others(office):
    """3.12: an update by userids leaves other recipients' cards alone; who has no card is in invaliduser."""
    answer = await office.card(to="s1|s2")
    code = office.book.cards.press(answer["msgid"], "s1", "done", office.now_s)
    updated = await update(office, code, atall=None, userids=["s1", "S3"])
    assert (updated["errcode"], updated["invaliduser"]) == (0, ["s3"])
    assert office.book.cards.press(answer["msgid"], "s2", "done", office.now_s)
    refused = await update(office, answer["response_code"], atall=None, userids=["s3"])
    assert (refused["errcode"], refused["invaliduser"]) == (81013, ["s3"])
    assert (await update(office, answer["response_code"], atall=None, partyids=[2]))["errcode"] == 0
    assert office.book.messages[answer["msgid"]].view("s2").closed_with


@pytest.mark.covers("message/update_template_card")
async def test_another_card_can_take_its_place(office):
    """3.12: a card put in place of another is pressed anew, under its own task_id or the old one."""
    office.rule(habits=SURE, card_habits={"menu_share": 0.0})
    answer = await office.card()
    office.wecom.advance(60)
    (first,) = office.events("template_card_event")
    card = {"card_type": "vote_interaction", **copy.deepcopy(CARDS["vote_interaction"]), "task_id": None}
    code = first.findtext("ResponseCode")
    assert (await update(office, code, button=None, template_card=card))["errcode"] == 0
    office.wecom.advance(60)
    _, second = office.events("template_card_event")
    assert (second.findtext("CardType"), second.findtext("TaskId")) == ("vote_interaction", "task-1")
    assert office.book.messages[answer["msgid"]].view("s1").pressed


@pytest.mark.covers("message/update_template_card")
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"agentid": None}, 40056),
        ({"agentid": 1000003}, 301002),
        ({"response_code": ""}, 40058),
        ({"response_code": 5}, 40035),
        ({"atall": None}, 82001),
        ({"button": None}, 40058),
        ({"button": {}}, 40058),
        ({"userids": "s1"}, 40035),
        ({"partyids": ["2"]}, 40035),
        ({"button": None, "template_card": {"card_type": "x"}}, 40035),
    ],
)
async def test_wrong_updates_leave_the_code_good(office, body, errcode):
    """3.12: a refused update has its errcode and an empty list, and does not use the code up."""
    code = (await office.card())["response_code"]
    answer = (
        await update(office, **{"code": code, **{k: v for k, v in body.items() if k != "response_code"}})
        if ("response_code" not in body)
        else await update(office, body["response_code"])
    )
    assert (answer["errcode"], answer["invaliduser"]) == (errcode, [])
    assert (await update(office, code))["errcode"] == 0


async def test_the_duplicate_check_answers_the_same_card(office):
    """3.12: a checked card sent twice keeps its response code and is no second use of its task_id."""
    body = {"touser": "s1", "msgtype": "template_card", "enable_duplicate_check": 1}
    card = {"card_type": "button_interaction", **CARDS["button_interaction"]}
    first = await office.send(**body, template_card=card)
    assert first["errcode"] == 0
    assert await office.send(**body, template_card=card) == first
