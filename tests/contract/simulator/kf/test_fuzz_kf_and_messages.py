"""Whatever arrives at customer service and app messages, the answer is an errcode of the platform's: never -1."""

import copy
import random
import sys
from pathlib import Path

import pytest

# What spoils requests is a module of the folder above, which is no package.
sys.path.append(str(Path(__file__).parents[1]))

from spoiling import written

START_S = 1_760_000_000


def bodies(kfid: str, code: str, response_code: str) -> dict:
    """A valid request of every endpoint."""
    options = [{"id": "a", "text": "x", "is_checked": True}, {"id": "b", "text": "y"}]
    card = {
        "card_type": "multiple_interaction",
        "source": {"icon_url": "https://e/i", "desc": "d"},
        "main_title": {"title": "t", "desc": "d"},
        "quote_area": {"type": 1, "url": "https://e/u", "title": "t"},
        "horizontal_content_list": [{"keyname": "k", "value": "v", "type": 1, "url": "https://e/u"}],
        "jump_list": [{"type": 1, "title": "t", "url": "https://e/u"}],
        "card_action": {"type": 1, "url": "https://e/u"},
        "action_menu": {"desc": "d", "action_list": [{"text": "t", "key": "k"}]},
        "select_list": [{"question_key": "q", "title": "t", "option_list": options}],
        "checkbox": {"question_key": "q", "option_list": options, "mode": 1},
        "button_list": [{"text": "t", "key": "k", "style": 1}],
        "button_selection": {"question_key": "q", "option_list": options},
        "submit_button": {"text": "t", "key": "k"},
    }
    menu = {"head_content": "h", "list": [{"type": "click", "click": {"id": "1", "content": "c"}}], "tail_content": "t"}
    about = {"open_kfid": kfid, "external_userid": "wmC1"}
    span = {"open_kfid": kfid, "start_time": START_S - 86_400, "end_time": START_S}
    send = {"touser": "s1|s2", "toparty": "1", "totag": "1", "agentid": 1000002, "enable_duplicate_check": 1, "safe": 0}
    return {
        "kf/account/add": {"name": "n", "media_id": "m"},
        "kf/account/update": {"open_kfid": kfid, "name": "n", "media_id": "m"},
        "kf/account/list": {"offset": 0, "limit": 10},
        "kf/add_contact_way": {"open_kfid": kfid, "scene": "s"},
        "kf/servicer/add": {"open_kfid": kfid, "userid_list": ["s1"], "department_id_list": [1]},
        "kf/servicer/del": {"open_kfid": kfid, "userid_list": ["s1"], "department_id_list": [1]},
        "kf/service_state/get": about,
        "kf/service_state/trans": {**about, "service_state": 3, "servicer_userid": "s1"},
        "kf/sync_msg": {"open_kfid": kfid, "cursor": "", "token": "", "limit": 10, "voice_format": 0},
        "kf/send_msg": {"touser": "wmC1", "open_kfid": kfid, "msgid": "m", "msgtype": "msgmenu", "msgmenu": menu},
        "kf/send_msg_on_event": {"code": code, "msgid": "m", "msgtype": "text", "text": {"content": "x"}},
        "kf/customer/batchget": {"external_userid_list": ["wmC1"], "need_enter_session_context": 1},
        "kf/get_corp_statistic": span,
        "kf/get_servicer_statistic": {**span, "servicer_userid": "s1"},
        "message/send": {**send, "msgtype": "template_card", "template_card": card},
        "message/update_template_card": {
            "userids": ["s1"],
            "partyids": [1],
            "tagids": [1],
            "atall": 1,
            "agentid": 1000002,
            "response_code": response_code,
            "template_card": card,
        },
        "message/recall": {"msgid": "m"},
    }


@pytest.mark.parametrize("seed", range(4))
async def test_mutations_of_valid_requests(kf, seed):
    """3: malformed bodies get an errcode, never a fault of our own."""
    kf.rule(untokened_per_minute=10**6, untokened_per_hour=10**6)
    rng = random.Random(seed)
    kfid = await kf.open("s1")
    kf.write(kfid)
    code = kf.desk.enter(kfid, "wmC2", kf.now_s)
    card = bodies(kfid, code, "")["message/send"]
    response_code = (await kf.wecom.post("message/send", {**card, "template_card": _pressable()}))["response_code"]
    valid = bodies(kfid, code, response_code)
    cards = ("text_notice", "news_notice", "button_interaction", "vote_interaction", "multiple_interaction")
    for number in range(800):
        path = rng.choice(list(valid))
        body = copy.deepcopy(valid[path])
        if "template_card" in body:
            body["template_card"] |= {"card_type": rng.choice(cards), "task_id": f"t{number}"}
        answer = await kf.wecom.post(path, content=written(rng, body))
        assert answer["errcode"] != -1, (number, path)
        if number % 100 == 0:
            kf.write(kfid)
            kf.wecom.advance(60)
    assert kf.wecom.platform.broken == 0


def _pressable() -> dict:
    return {
        "card_type": "button_interaction",
        "main_title": {"title": "t"},
        "task_id": "first",
        "button_list": [{"text": "t", "key": "k"}],
    }
