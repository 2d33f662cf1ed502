"""A line of the calls file says all that a proof of limits needs, and never a token or what a message says."""

import json

import pytest

from simulator.platform.calls import CallLog

MASS = "externalcontact/add_msg_template"
TAG = "externalcontact/mark_tag"
TEXT = {"content": "words of a message"}


@pytest.fixture
async def lines(sim, tmp_path):
    """The lines of all calls so far."""
    path = tmp_path / "calls.jsonl"
    sim.gateway.calls = CallLog(10, path)

    def read():
        sim.gateway.calls.close()
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


async def test_a_call_names_its_caller_whom_it_reaches_and_when_it_was_answered(sim, lines):
    sim.happen("add", staff="s1", customer="wmC1")
    await sim.step(5)
    body = {"chat_type": "single", "external_userid": ["wmC1"], "sender": "s1", "text": TEXT}
    assert await sim.call(MASS, body) == 0
    call = lines()[-1]
    assert (call["ip"], call["staff_id"], call["persons"]) == ("203.0.113.9", "s1", ["wmC1"])
    assert call["answered_ms"] >= call["business_ms"]
    assert call["message_id"]
    assert "words" not in json.dumps(call)


async def test_a_get_names_its_people_in_its_parameters(sim, lines):
    await sim.call("externalcontact/get", external_userid="wmC1")
    assert lines()[-1]["persons"] == ["wmC1"]


async def test_the_digest_tells_the_same_request_from_another_whatever_its_token(sim, lines):
    def body(customer: str) -> dict[str, str]:
        return {"userid": "s1", "external_userid": customer}

    token = await sim.token()
    await sim.call(TAG, body("wmC1"), token=token)
    await sim.call(TAG, body("wmC1"), token="another")
    await sim.call(TAG, body("wmC2"), token=token)
    first, second, third = [call for call in lines() if call["endpoint"] == TAG]
    assert "digest" in first
    assert third["digest"] != first["digest"]
    # A caller without a token is refused before anybody reads what it asks for.
    assert second["corp_id"] == ""
    assert "persons" not in second


async def test_an_answer_that_was_lost_is_marked(sim, lines):
    sim.happen("add")
    await sim.step(5)
    token = await sim.token()
    await sim.tell("faults", {"endpoint": MASS, "after_effect": True})
    body = {"chat_type": "single", "external_userid": ["wmC1"], "sender": "s1", "text": TEXT}
    with pytest.raises(ConnectionResetError):
        await sim.call(MASS, body, token=token)
    call = lines()[-1]
    assert (call["errcode"], call["lost"]) == (0, True)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"sender": "\ud800", "external_userid": ["\udfff", 3, null]}',
        b'{"sender": 10000000000000000000000000000000000000000}',
        b'{"external_userid": {}, "touser": 7}',
    ],
)
async def test_whatever_a_caller_sends_its_line_can_be_written(sim, lines, body):
    query = {"access_token": await sim.token()}
    answer = await sim.client.post(f"/cgi-bin/{MASS}", params=query, content=body)
    assert answer.json()["errcode"] > 0
    assert lines()[-1]["endpoint"] == MASS
