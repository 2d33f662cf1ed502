"""Whatever arrives, the answer is 200 with an errcode: never a 500."""

import copy
import json
import random

START_S = 1_760_000_000
VALID = {
    "externalpay/get_bill_list": {
        "begin_time": START_S,
        "end_time": START_S + 100,
        "payee_userid": "s1",
        "cursor": "",
        "limit": 10,
    },
    "externalcontact/send_welcome_msg": {
        "welcome_code": "x",
        "text": {"content": "hi"},
        "attachments": [{"msgtype": "link", "link": {"title": "t", "url": "u"}}],
    },
}
ODD = [None, True, 0, -1, 1.5, 10**30, "", "x" * 5_000, "\ud800", [], [[]], {}, {"a": {}}, float("nan"), float("inf")]


def mutated(rng: random.Random, body: object) -> object:
    body = copy.deepcopy(body)
    for _ in range(rng.randint(1, 3)):
        place, key = None, None
        node = body
        while isinstance(node, (dict, list)) and node and (place is None or rng.random() < 0.6):
            place = node
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            node = place[key]
        if place is None:
            return copy.deepcopy(rng.choice(ODD))
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = copy.deepcopy(rng.choice(ODD))
    return body


async def test_mutations_of_valid_requests(wecom):
    rng = random.Random(1)
    for number in range(600):
        path, body = rng.choice(list(VALID.items()))
        content = json.dumps(mutated(rng, body)).encode()
        if rng.random() < 0.2:
            place = rng.randrange(len(content))
            content = content[:place] + rng.randbytes(3) + content[place + 1 :]
        answer = await wecom.post(path, content=content)
        assert isinstance(answer["errcode"], int), number
