"""Whatever arrives, the answer is 200 with a known errcode, and never one for an error of the simulator's own."""

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from simulator.platform.endpoints import ENDPOINTS
from simulator.platform.errors import TEXTS

# The table of requests and what spoils them are modules of this folder, which is no package.
sys.path.append(str(Path(__file__).parent))

from spoiling import ODD, garbled, mutated
from valid_requests import ENDS, FORM, REQUESTS, Valid, filled, form, kept, prepared

MUTATIONS = 12_000
NO_LIMITS = {"calls_per_minute": 10**9, "calls_per_hour": 10**9, "calls_kept": 100}


class Caller:
    """Sends requests and counts what came back."""

    def __init__(self, wecom: Any) -> None:
        self.wecom = wecom
        self.names: dict[str, Any] = prepared(wecom)
        self.codes: Counter[int] = Counter()

    async def send(self, method: str, path: str, query: dict[str, str], content: bytes, content_type: str = "") -> Any:
        """The answer; what every answer has to be is checked here."""
        text = "&".join(
            f"{quote(key, safe='')}={quote(value, safe='', errors='replace')}" for key, value in query.items()
        )
        # Straight into the application: a client library would take longer than ten thousand answers.
        scope = {
            "type": "http",
            "method": method,
            "path": f"/cgi-bin/{path}",
            "query_string": text.encode(),
            "headers": [(b"content-type", content_type.encode("latin-1"))] if content_type else [],
            "client": ("203.0.113.9", 40_000),
        }
        parts: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content}

        async def respond(part: dict[str, Any]) -> None:
            parts.append(part)

        await self.wecom.platform(scope, receive, respond)
        start, body = parts
        assert start["status"] == 200
        head = dict(start["headers"])
        code = int(head[b"error-code"])
        self.codes[code] += 1
        assert code != -1, (method, path, query, content[:2_000])
        assert code in TEXTS
        if head[b"content-type"].startswith(b"application/json"):
            answer = json.loads(body["body"])
            assert answer["errcode"] == code
            assert answer["errmsg"]
            return answer
        assert code == 0
        assert method == "GET"
        return {"errcode": 0}

    async def valid(self, request: Valid) -> Any:
        method, query, content, content_type = await self.parts(request)
        answer = await self.send(method, request.path, query, content, content_type)
        for name, path in request.keeps.items():
            self.names[name] = kept(answer, path)
        return answer

    async def parts(self, request: Valid) -> tuple[str, dict[str, str], bytes, str]:
        query = {"access_token": await self.wecom.token(), **filled(request.query, self.names)}
        if request.upload is not None:
            return "POST", query, form(request.upload), FORM
        if request.body is None:
            return "GET", query, b"", ""
        return "POST", query, json.dumps(filled(request.body, self.names)).encode(), ""


@pytest.fixture
async def caller(wecom):
    return Caller(wecom)


def test_there_is_a_request_for_every_endpoint():
    """Whoever adds an endpoint adds a request to ``valid_requests.py``."""
    assert set(ENDPOINTS) == {request.path for request in [*REQUESTS, *ENDS]}


@pytest.mark.parametrize("sim_settings", [NO_LIMITS], indirect=True)
async def test_the_requests_that_are_mutated_are_valid(caller):
    wrong = {}
    for request in [*REQUESTS, *ENDS]:
        answer = await caller.valid(request)
        if answer["errcode"] not in request.codes:
            wrong[request.path] = answer["errmsg"]
    assert wrong == {}


@pytest.mark.covers("fact:6.7")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("sim_settings", [NO_LIMITS], indirect=True)
async def test_ten_thousand_mutations_of_valid_requests(caller):
    """4.3: malformed JSON, wrong types, unknown ids, oversized lists: an errcode of the platform, never a 500."""
    rng = random.Random(1)
    for request in REQUESTS:
        await caller.valid(request)
    sent = 0
    before = caller.codes.copy()
    while sent < MUTATIONS:
        request = rng.choice(REQUESTS if rng.random() < 0.97 else ENDS)
        method, query, content, content_type = await caller.parts(request)
        if request.upload is not None:
            content = garbled(rng, content)
            content_type = rng.choice([content_type, "", "multipart/form-data", "text/plain", content_type[:-2]])
        elif request.body is not None:
            body = mutated(rng, filled(request.body, caller.names))
            content = json.dumps(body, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
            if rng.random() < 0.1:
                content = garbled(rng, content)
        if request.query and rng.random() < (0.9 if request.body is None else 0.3):
            key = rng.choice(list(request.query))
            query[key] = rng.choice([str(value)[:3_000] for value in ODD] + [query[key] * 2, "-1", "1e9", "%00"])
            if rng.random() < 0.2:
                del query[key]
        if rng.random() < 0.03:
            method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
            if method == "HEAD":
                continue
        if rng.random() < 0.02:
            query["access_token"] = rng.choice(["", "x", "\ud800", query["access_token"][:-1]])
        path = (
            request.path if rng.random() > 0.02 else rng.choice([request.path + "/", request.path[:-1], "", "a/../b"])
        )
        await caller.send(method, path, query, content, content_type)
        sent += 1
        if rng.random() < 0.01:
            caller.wecom.advance(rng.choice([1, 60, 3_600]))
            caller.wecom._token = ""
    assert caller.wecom.platform.broken == 0
    assert (caller.codes - before).total() == sent
    assert len(caller.codes) > 25, "too few ways to be wrong"
    assert caller.codes[40035] < sent * 0.75, "most never get past the types"


async def test_query_strings_that_are_no_text(caller):
    token = await caller.wecom.token()
    for raw in ("%ff%fe", "a=%zz", "&&&=&", "access_token=%00", f"access_token={token}&userid=%ed%a0%80", "x" * 20_000):
        response = await caller.wecom.client.get(f"/cgi-bin/externalcontact/list?{raw}")
        assert response.status_code == 200
        assert response.json()["errcode"] in TEXTS
    assert caller.wecom.platform.broken == 0
