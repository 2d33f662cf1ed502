"""Whatever arrives at these endpoints, the answer is 200 with an errcode, and nothing of ours breaks."""

import random
import sys
from pathlib import Path

from simulator.platform.endpoints import ENDPOINTS

from .conftest import START_S

# What spoils requests is a module of the folder above, which is no package.
sys.path.append(str(Path(__file__).parents[1]))

from spoiling import written

LINK = {"msgtype": "link", "link": {"title": "t", "url": "u"}}
CONTENT = {"text": {"content": "hi"}, "attachments": [LINK, {"msgtype": "image", "image": {"media_id": "x"}}]}
WINDOW = {
    "start_time": START_S,
    "end_time": START_S + 100,
    "creator": "s1",
    "filter_type": 2,
    "limit": 10,
    "cursor": "",
}


def valid(msgid: str, moment_id: str, template_id: str) -> dict[str, dict]:
    message = {"msgid": msgid, "userid": "s1", "limit": 10, "cursor": ""}
    moment = {"moment_id": moment_id, "userid": "s1", "limit": 10, "cursor": ""}
    template = {"template_id": template_id, "agentid": 1000002, "notify": 1, **CONTENT, "link": LINK["link"]}
    visible = {
        "sender_list": {"user_list": ["s1"], "department_list": [1]},
        "external_contact_list": {"tag_list": ["et1"]},
    }
    return {
        "externalcontact/send_welcome_msg": {"welcome_code": "x", **CONTENT},
        "externalcontact/add_msg_template": {
            "chat_type": "single",
            "external_userid": ["wmC1"],
            "chat_id_list": ["wr1"],
            "sender": "s1",
            "allow_select": False,
            "tag_filter": {"group_list": [{"tag_list": ["et1"]}]},
            "text": {"content": "hi"},
            "attachments": [LINK],
        },
        "externalcontact/get_groupmsg_list_v2": {"chat_type": "single", **WINDOW},
        "externalcontact/get_groupmsg_task": message,
        "externalcontact/get_groupmsg_send_result": message,
        "externalcontact/remind_groupmsg_send": message,
        "externalcontact/add_moment_task": {**CONTENT, "attachments": [LINK], "visible_range": visible},
        "externalcontact/get_moment_list": WINDOW,
        "externalcontact/get_moment_task": moment,
        "externalcontact/get_moment_customer_list": moment,
        "externalcontact/get_moment_send_result": moment,
        "externalcontact/get_moment_comments": moment,
        "externalcontact/group_welcome_template/add": template,
        "externalcontact/group_welcome_template/edit": template,
        "externalcontact/group_welcome_template/get": template,
    }


async def test_mutations_of_valid_requests(shop):
    """4.3: every answer has an errcode; none is the platform's own fault."""
    msgid = await shop.send(sender="s1")
    await shop.call("add_moment_task", text={"content": "x"})
    template_id = (await shop.call("group_welcome_template/add", text={"content": "x"}))["template_id"]
    shop.advance(3_000)
    moments = await shop.call("get_moment_list", start_time=START_S, end_time=START_S + 4_000)
    bodies = valid(msgid, moments["moment_list"][0]["moment_id"], template_id)
    for path, body in bodies.items():
        assert (await shop.wecom.post(path, body))["errcode"] != 40035, path
    rng = random.Random(1)
    for number in range(3_000):
        path, body = rng.choice(list(bodies.items()))
        content = written(rng, body, broken=0.1)
        answer = await shop.wecom.post(path, content=content)
        assert isinstance(answer["errcode"], int), (number, path)
        assert answer["errcode"] != -1, (number, path, content)
        empties = ENDPOINTS[path].empties
        assert not answer["errcode"] or all(name in answer for name in empties)


async def test_mutations_of_valid_uploads(shop):
    """4.3: a broken multipart body, or a broken type of one, gets an errcode too."""
    boundary = "----b0undary"
    valid_body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="media"; filename="a.png"; filelength=3\r\n'
        f"Content-Type: image/png\r\n\r\nabc\r\n--{boundary}--\r\n"
    ).encode()
    valid_type = f"multipart/form-data; boundary={boundary}".encode()
    paths = {
        "media/upload": {"type": "image"},
        "media/uploadimg": {},
        "media/upload_attachment": {"media_type": "image", "attachment_type": "1"},
    }
    rng = random.Random(2)
    codes = set()
    for number in range(1_500):
        path, query = rng.choice(list(paths.items()))
        kind, body = bytearray(valid_type), bytearray(valid_body)
        for text, low in ((kind, 0x20), (body, 0)):
            for _ in range(rng.randrange(3)):
                text[rng.randrange(len(text))] = rng.randrange(low, 0x7F if low else 256)
        answer = await shop.wecom.client.post(
            f"/cgi-bin/{path}",
            params={"access_token": await shop.wecom.token(), **query},
            content=bytes(body),
            headers={"content-type": kind.decode("latin-1")},
        )
        codes.add(answer.json()["errcode"])
        assert answer.json()["errcode"] != -1, (number, bytes(kind), bytes(body))
    assert codes <= {0, 41005, 45009}
