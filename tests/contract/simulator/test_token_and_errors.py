"""Fact sheet 3, 3.1, 4.1–4.3: tokens, the shape of errors, limits, and paths that do not exist."""

import asyncio
import re

import pytest


@pytest.mark.covers("gettoken", "fact:6.5")
async def test_the_same_token_within_validity(wecom):
    """3.1: a token lives 7,200 s, and asking again within that gives the same one."""
    query = {"corpid": wecom.corp.corp_id, "corpsecret": wecom.corp.secret}
    answers = [(await wecom.client.get("/cgi-bin/gettoken", params=query)).json() for _ in range(2)]
    assert answers[0]["access_token"] == answers[1]["access_token"]
    assert answers[0]["errcode"] == 0
    assert answers[0]["errmsg"] == "ok"
    assert 7_190 <= answers[1]["expires_in"] <= 7_200


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({"corpid": "wwnobody", "corpsecret": "x"}, 40013),
        ({"corpid": "wwtest0000000001", "corpsecret": "x"}, 40001),
        ({"corpsecret": "x"}, 41002),
        ({"corpid": "wwtest0000000001"}, 41004),
    ],
)
@pytest.mark.covers("gettoken", "fact:6.5")
async def test_gettoken_refusals(wecom, query, errcode):
    """3.1: an unknown corp, a wrong secret and what is missing have codes of their own."""
    answer = (await wecom.client.get("/cgi-bin/gettoken", params=query)).json()
    assert answer["errcode"] == errcode
    assert "access_token" not in answer


@pytest.mark.parametrize("sim_settings", [{"wrong_secrets_per_hour": 2}], indirect=True)
@pytest.mark.covers("gettoken", "fact:6.5")
async def test_many_wrong_secrets_ban_the_address_even_with_the_right_one(wecom):
    """3.1: repeated wrong secrets get the source address banned for an hour."""

    async def ask(secret: str) -> int:
        query = {"corpid": wecom.corp.corp_id, "corpsecret": secret}
        return (await wecom.client.get("/cgi-bin/gettoken", params=query)).json()["errcode"]

    assert [await ask("x") for _ in range(3)] == [40001, 40001, 40001]
    assert await ask(wecom.corp.secret) == 45009


@pytest.mark.covers("fact:6.5")
async def test_a_call_without_or_with_a_wrong_token(wecom):
    """3.1: 41001 without a token, 40014 with an unknown one."""
    for query, errcode in (({}, 41001), ({"access_token": "guess"}, 40014)):
        answer = (await wecom.client.get("/cgi-bin/externalcontact/get_follow_user_list", params=query)).json()
        assert answer["errcode"] == errcode


@pytest.mark.covers("fact:6.5")
async def test_a_token_in_the_body_is_no_token(wecom):
    """0: the token stands in the query, never in the body (41001)."""
    body = {"access_token": await wecom.token(), "begin_time": 1, "end_time": 2}
    answer = (await wecom.client.post("/cgi-bin/externalpay/get_bill_list", json=body)).json()
    assert answer["errcode"] == 41001


@pytest.mark.covers("fact:6.5")
async def test_an_expired_token_is_told_apart_from_an_unknown_one(wecom):
    """3.1: after 7,200 s of the platform's clock 42001, which is not 40014."""
    token = await wecom.token()
    wecom.advance(7_201)
    assert (await wecom.get("externalcontact/get_follow_user_list", access_token=token))["errcode"] == 42001


@pytest.mark.covers("fact:6.5")
async def test_a_token_that_the_platform_withdrew_is_unknown(wecom):
    """3.1: the server may invalidate early; then 40014."""
    await wecom.token()
    wecom.platform.tokens.withdraw(wecom.corp.corp_id)
    assert (await wecom.get("externalcontact/get_follow_user_list"))["errcode"] == 40014


@pytest.mark.covers("fact:6.7")
async def test_errors_come_with_status_200_hint_address_link_headers_and_empty_arrays(wecom):
    """3: HTTP 200, errmsg with hint, address and link, headers, payload arrays present and empty."""
    query = {"access_token": await wecom.token(), "userid": "s3"}
    response = await wecom.client.get("/cgi-bin/externalcontact/list", params=query)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json; charset=UTF-8"
    assert response.headers["error-code"] == "84061"
    assert response.headers["error-msg"] == "not external contact"
    body = response.json()
    assert body["external_userid"] == []
    assert re.fullmatch(
        r"not external contact, hint: \[\d{20,25}\], from ip: 203\.0\.113\.9, "
        r"more info at https://open\.work\.weixin\.qq\.com/devtool/query\?e=84061",
        body["errmsg"],
    )


@pytest.mark.parametrize(
    "path", ["externalcontact/del_external_contact", "externalcontact/send_msg", "x", "", "../etc"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.covers("fact:6.22")
async def test_what_does_not_exist_answers_with_an_error_body_and_is_counted(wecom, path, method):
    """3.14: there is no delete-contact, add-friend or direct-message call; unknown paths fail loudly."""
    response = await wecom.client.request(method, f"/cgi-bin/{path}")
    if path == "../etc":
        assert response.status_code == 404, "outside of the platform's paths"
        return
    assert response.status_code == 200
    assert response.json()["errcode"] == 48002
    status = (await wecom.client.get("/_sim/status")).json()
    assert status["calls"]["unknown"] == 1


@pytest.mark.covers("fact:6.7")
async def test_wrong_methods(wecom):
    """4.3: a GET endpoint refuses a POST and the other way round."""
    assert (await wecom.post("externalcontact/list", {}))["errcode"] == 43001
    assert (await wecom.get("externalpay/get_bill_list"))["errcode"] == 43002


@pytest.mark.parametrize("sim_settings", [{"calls_per_minute": 3}], indirect=True)
@pytest.mark.covers("fact:6.6")
async def test_the_call_past_the_limit_gets_45009_and_so_do_all_in_the_block(wecom):
    """4.1: per corp and API a limit a minute; past it 45009 for as long."""
    codes = [(await wecom.get("externalcontact/get_follow_user_list"))["errcode"] for _ in range(5)]
    assert codes == [0, 0, 0, 45009, 45009]
    assert (await wecom.get("externalcontact/list", userid="s1"))["errcode"] == 84061, "another API goes on"


@pytest.mark.parametrize("sim_settings", [{"latency_milliseconds": 50}], indirect=True)
@pytest.mark.covers("fact:6.6")
async def test_the_sixth_call_in_flight_gets_45033(wecom):
    """4.2: at most five calls of a corp and API at once."""
    await wecom.token()
    answers = await asyncio.gather(*(wecom.get("externalcontact/get_follow_user_list") for _ in range(8)))
    codes = [answer["errcode"] for answer in answers]
    assert sorted(codes) == [0] * 5 + [45033] * 3
    assert (await wecom.get("externalcontact/get_follow_user_list"))["errcode"] == 0


@pytest.mark.covers("fact:6.6")
async def test_debug_allows_five_calls_a_minute(wecom):
    """3.1: debug=1 caps an API at five calls a minute."""
    codes = [(await wecom.get("externalcontact/get_follow_user_list", debug="1"))["errcode"] for _ in range(6)]
    assert codes == [0] * 5 + [45009]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"begin_time":', b"NaN"]
)
@pytest.mark.covers("fact:6.7")
async def test_malformed_json_gets_an_errcode_with_the_platforms_warning(wecom, content):
    """3: bad JSON gets the platform's warning in errmsg."""
    for path in ("externalpay/get_bill_list", "externalcontact/send_welcome_msg"):
        answer = await wecom.post(path, content=content)
        assert answer["errcode"] == 40035
        assert answer["errmsg"].startswith("Warning: wrong json format. ")


@pytest.mark.parametrize("sim_settings", [{"body_limit_bytes": 1_000}], indirect=True)
@pytest.mark.covers("fact:6.7")
async def test_a_body_past_the_limit(wecom):
    """4.3: a body too big is 40206."""
    answer = await wecom.post("externalcontact/send_welcome_msg", content=b" " * 1_001)
    assert answer["errcode"] == 40206


async def test_every_call_is_recorded_with_time_endpoint_corp_and_errcode(wecom):
    await wecom.get("externalcontact/list", userid="s1")
    await wecom.client.get("/cgi-bin/nothing")
    listed = (await wecom.client.get("/_sim/calls")).json()
    assert [(c["endpoint"], c["corp_id"], c["errcode"]) for c in listed["calls"]] == [
        ("gettoken", wecom.corp.corp_id, 0),
        ("externalcontact/list", wecom.corp.corp_id, 84061),
        ("unknown:nothing", "", 48002),
    ]
    assert all(c["time_ms"] > 1_600_000_000_000 for c in listed["calls"])
    assert listed["counts"]["externalcontact/list"] == {"84061": 1}
    some = (await wecom.client.get("/_sim/calls", params={"endpoint": "gettoken", "errcode": "0"})).json()
    assert len(some["calls"]) == 1
    assert (await wecom.client.get("/_sim/calls", params={"since_ms": "soon"})).status_code == 400
