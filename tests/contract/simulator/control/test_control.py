"""``/_sim/…``: what a tester can see and do; never on the platform's paths, never a 500, nobody named."""

import asyncio
import json
import random

import pytest

from simulator.platform.endpoints import ENDPOINTS
from simulator.settings import SimulatorSettings

CORP_ID = "wwtest0000000001"
LIST = "externalcontact/get_follow_user_list"


# ---------------------------------------------------------------- the scenario


async def test_a_scenario_begins_once(idle_sim):
    assert (await idle_sim.ask("status"))["state"] == "idle"
    assert (await idle_sim.client.get("/_sim/truth")).status_code == 404
    assert await idle_sim.tell("start", {}) == {"state": "playing"}
    assert (await idle_sim.client.post("/_sim/start")).status_code == 409


async def test_status_counts_the_world(sim):
    sim.happen(at_s=0)
    status = await sim.ask("status")
    assert status["state"] == "playing"
    assert status["seed"] == 1
    assert status["errors"] == 0
    (corp,) = status["world"]
    assert {key: corp[key] for key in ("corp_id", "staff", "customers", "relationships", "changes", "bills")} == {
        "corp_id": CORP_ID,
        "staff": 3,
        "customers": 1,
        "relationships": 1,
        "changes": 1,
        "bills": 5,
    }


async def test_the_scenario_tells_its_parameters_and_no_secret(sim):
    response = await sim.client.get("/_sim/scenario")
    assert response.json()["settings"]["calls_per_minute"] == 10_000
    assert set(response.json()["endpoints"]) == set(ENDPOINTS)
    assert sim.corp.secret not in response.text
    assert sim.corp.callback_aes_key not in response.text


# ---------------------------------------------------------------- truth


async def test_truth_by_parts_and_pages(sim):
    for number, (staff, customer) in enumerate([("s1", "wmC1"), ("s2", "wmC1"), ("s1", "wmC2")]):
        sim.happen(staff=staff, customer=customer, at_s=number)
    first = await sim.ask("truth/standing", limit=2)
    rest = await sim.ask("truth/standing", limit=2, offset=first["next_offset"])
    pairs = [(row["staff_id"], row["customer_id"]) for row in first["rows"] + rest["rows"]]
    assert pairs == [("s1", "wmC1"), ("s1", "wmC2"), ("s2", "wmC1")]
    assert rest["next_offset"] is None
    assert [row["staff_id"] for row in (await sim.ask("truth/changes", customer="wmC1"))["rows"]] == ["s1", "s2"]
    assert len((await sim.ask("truth/relationships", staff="s1"))["rows"]) == 2
    assert len((await sim.ask("truth/bills", corp=CORP_ID))["rows"]) == 5
    assert len((await sim.ask("truth/orders"))["rows"]) == 5
    assert (await sim.ask("truth/callbacks"))["rows"]["planned"] == 3
    assert (await sim.ask("truth/changed"))["rows"][0]["episodes"][0]["channel"] == "qr-1"
    assert [row["userid"] for row in (await sim.ask("truth/staff"))["rows"]] == ["s1", "s2", "s3"]
    assert (await sim.ask("truth/sends"))["rows"] == (await sim.ask("truth/complaints"))["rows"] == []


async def test_truth_of_something_else(sim):
    response = await sim.client.get("/_sim/truth/feelings")
    assert response.status_code == 404
    assert "relationships" in response.json()["error"]
    assert (await sim.client.get("/_sim/truth/bills?corp=wwother")).status_code == 404
    for query in (
        "limit=0",
        "limit=x",
        "offset=-1",
        "offset=1e3",
        "limit=10001",
        "crop=ww",
        "offset=99999999999999999999",
    ):
        response = await sim.client.get(f"/_sim/truth/bills?{query}")
        assert response.status_code == 400, query
        assert query.split("=")[0] in response.json()["error"]


# ---------------------------------------------------------------- faults


@pytest.mark.covers("fact:6.2")
async def test_an_errcode_for_some_calls(sim):
    """6.2: the platform has a bad day, on purpose: an errcode for so many calls of matching endpoints."""
    number = (await sim.tell("faults", {"endpoint": "externalcontact/get_*", "errcode": -1, "calls": 2}))["number"]
    assert [await sim.call(LIST) for _ in range(3)] == [-1, -1, 0]
    assert await sim.call("externalcontact/list", userid="s1") == 84061
    assert (await sim.ask("faults"))["faults"] == []
    assert (await sim.ask("status"))["errors"] == 0, "a fault that was asked for is none of the simulator's"
    assert (await sim.client.delete(f"/_sim/faults/{number}")).status_code == 404


async def test_a_share_of_the_calls_the_same_ones_for_the_same_seed(sim):
    await sim.tell("faults", {"errcode": 45033, "share": 0.5, "endpoint": LIST})
    token = await sim.token()
    codes = [await sim.call(LIST, token=token) for _ in range(200)]
    assert 70 < codes.count(45033) < 130
    (fault,) = (await sim.ask("faults"))["faults"]
    assert fault["hits"] == codes.count(45033)
    assert await sim.tell("faults", None, "DELETE") == {"ended": 1}
    assert await sim.call(LIST, token=token) == 0


async def test_a_fault_ends_with_its_time_by_the_platforms_clock(sim):
    await sim.tell("faults", {"errcode": 50003, "seconds": 60})
    (fault,) = (await sim.ask("faults"))["faults"]
    assert fault["ends_in_s"] == 60
    token_refused = await sim.call("gettoken", corpid=CORP_ID, corpsecret=sim.corp.secret, token="x")
    assert token_refused == 50003
    await sim.step(60)
    assert await sim.call(LIST) == 0


async def test_an_answer_can_be_lost_after_its_effect(sim):
    """6.2: the call has done its work, the caller sees a closed connection."""
    code, token = sim.happen(at_s=0), await sim.token()
    await sim.tell("faults", {"endpoint": "externalcontact/send_welcome_msg", "after_effect": True, "calls": 1})
    body = {"welcome_code": code, "text": {"content": "hi"}}
    with pytest.raises(ConnectionResetError):
        await sim.call("externalcontact/send_welcome_msg", body, token=token)
    assert await sim.call("externalcontact/send_welcome_msg", body, token=token) == 41051


async def test_a_corp_is_hit_and_others_are_not(sim):
    await sim.tell("faults", {"corp_id": CORP_ID, "errcode": 48006})
    assert await sim.call(LIST, token="wrong") == 40014
    assert (await sim.client.post("/_sim/faults", json={"corp_id": "wwother", "errcode": 48006})).status_code == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "one of errcode"),
        ({"errcode": 1}, "errcode"),
        ({"errcode": "x"}, "$.errcode"),
        ({"errcode": 40001, "share": 0}, "share"),
        ({"errcode": 40001, "share": 2}, "share"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_ms": 1e12}, "latency_ms"),
        ({"errcode": 40001, "calls": -1}, "calls"),
        ({"errcode": 40001, "seconds": -1}, "seconds"),
        ({"errcode": 40001, "endpoint": ""}, "endpoint"),
        ({"errcode": 40001, "sahre": 1}, "sahre"),
        (5, "object"),
    ],
)
async def test_a_fault_that_makes_no_sense(sim, body, said):
    response = await sim.client.post("/_sim/faults", json=body)
    assert response.status_code == 400
    assert said in response.json()["error"]
    assert (await sim.ask("faults"))["faults"] == []


@pytest.mark.covers("fact:6.6")
async def test_a_block_that_was_asked_for_is_one(sim):
    """4.1: a blocked API answers 45009 until the block's end; another API and, lifted, the same one go on."""
    await sim.tell("blocks", {"corp_id": CORP_ID, "endpoint": LIST, "seconds": 90})
    assert await sim.call(LIST) == 45009
    assert await sim.call("externalcontact/list", userid="s1") == 84061
    (quota,) = [q for q in (await sim.ask("quotas"))["quotas"] if q["endpoint"] == LIST]
    assert quota["blocked_s"] == 90
    await sim.step(90)
    assert await sim.call(LIST) == 0
    await sim.tell("blocks", {"corp_id": CORP_ID, "endpoint": "*", "seconds": 1e6})
    assert await sim.call(LIST, token="x") == 40014
    token_blocked = await sim.client.get("/cgi-bin/gettoken", params={"corpid": CORP_ID, "corpsecret": sim.corp.secret})
    assert token_blocked.json()["errcode"] == 45009
    lifted = await sim.tell("blocks", {"corp_id": CORP_ID, "endpoint": "*"}, "DELETE")
    assert lifted["lifted"] == len(ENDPOINTS) + 1
    assert await sim.call(LIST) == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"corp_id": "wwother", "endpoint": LIST}, 404),
        ({"corp_id": CORP_ID, "endpoint": "externalcontact/del_external_contact"}, 404),
        ({"corp_id": CORP_ID, "endpoint": LIST, "seconds": 0}, 400),
        ({"corp_id": CORP_ID}, 400),
    ],
)
async def test_a_block_of_nothing(sim, body, status):
    for method in ("POST", "DELETE"):
        assert (await sim.client.request(method, "/_sim/blocks", json=body)).status_code == status


@pytest.mark.covers("fact:6.5", "gettoken")
async def test_tokens_are_withdrawn_early(sim):
    """3.1: the server may invalidate early: 40014, and the next token is another one."""
    token = await sim.token()
    await sim.tell("tokens/withdraw", {"corp_id": CORP_ID, "agent_id": "1000002"})
    assert await sim.call(LIST, token=token) == 40014
    assert await sim.token() != token
    assert (await sim.client.post("/_sim/tokens/withdraw", json={"corp_id": "wwother"})).status_code == 404


async def test_a_staff_member_is_banned_for_a_time_or_for_good_and_pardoned(sim):
    member = sim.world.people.staff["s1"]
    await sim.tell("staff/ban", {"corp_id": CORP_ID, "staff_id": "s1", "seconds": 86_400})
    assert not member.may_reach(sim.simulation.now_ms // 1000)
    assert (await sim.ask("status"))["world"][0]["staff_banned"] == 1
    await sim.step(86_400)
    assert member.may_reach(sim.simulation.now_ms // 1000)
    await sim.tell("staff/ban", {"corp_id": CORP_ID, "staff_id": "s1"})
    await sim.step(1e8)
    assert not member.may_reach(sim.simulation.now_ms // 1000)
    await sim.tell("staff/pardon", {"corp_id": CORP_ID, "staff_id": "s1"})
    assert member.may_reach(sim.simulation.now_ms // 1000)


async def test_a_complaint_reaches_whoever_listens_in_the_world(sim):
    heard = []
    sim.world.complained.append(heard.append)
    wish = {"corp_id": CORP_ID, "staff_id": "s1", "customer_id": "wmC1", "ref": "msg1"}
    assert await sim.tell("complaints", wish) == {"complaints": 1}
    assert [(c.staff_id, c.customer_id, c.ref) for c in heard] == [("s1", "wmC1", "msg1")]
    assert (await sim.ask("truth/complaints"))["rows"][0]["staff_id"] == "s1"
    for wrong in ({"staff_id": "s9"}, {"customer_id": "wmNobody"}, {"corp_id": "wwother"}):
        response = await sim.client.post("/_sim/complaints", json={**wish, **wrong})
        assert response.status_code == 404


async def test_what_is_done_to_a_world_that_has_not_begun_is_refused(idle_sim):
    """The worlds are made anew at the start: it would be forgotten without a word."""
    wish = {"corp_id": CORP_ID, "staff_id": "s1", "customer_id": "wmC1"}
    assert (await idle_sim.client.post("/_sim/complaints", json=wish)).status_code == 404
    assert (
        await idle_sim.client.post("/_sim/staff/ban", json={"corp_id": CORP_ID, "staff_id": "s1"})
    ).status_code == 404


@pytest.mark.covers("fact:6.2")
async def test_callbacks_are_lost_without_a_trace(sim):
    """1.7: delivery is not guaranteed; what is lost is never sent, and counted here only."""
    await sim.tell("callbacks/loss", {"share": 1})
    sim.happen(at_s=0)
    shown = await sim.ask("callbacks")
    assert (shown["submitted"], shown["lost"], shown["dropped"], shown["lost_share"]) == (1, 1, 1, 1.0)
    assert shown["recent"][0]["result"] == "lost"
    assert sim.accepted == []
    for share in (-0.1, 1.1, "x", None):
        assert (await sim.client.post("/_sim/callbacks/loss", json={"share": share})).status_code == 400


# ---------------------------------------------------------------- what was seen


async def test_the_list_of_callbacks_names_events_and_nobody(sim):
    sim.happen(staff="s1", customer="wmC1", at_s=0)
    response = await sim.client.get("/_sim/callbacks?limit=1")
    (entry,) = response.json()["recent"]
    assert entry["event"] == "change_external_contact"
    assert entry["change_type"] == "add_external_contact"
    assert entry["agent_id"] == "1000002"
    assert "wmC1" not in response.text
    assert "s1" not in json.dumps(response.json()["recent"])
    assert response.json()["events"] == [
        {"event": "change_external_contact", "change_type": "add_external_contact", "count": 1}
    ]


async def test_calls_are_paged_by_their_number(sim):
    token = await sim.token()
    for userid in ("s1", "nobody", "s1"):
        await sim.call("externalcontact/list", token=token, userid=userid)
    first = await sim.ask("calls", limit=2)
    assert [call["number"] for call in first["calls"]] == [0, 1]
    assert first["next"] == 2
    rest = await sim.ask("calls", since=first["next"])
    assert [(call["number"], call["errcode"]) for call in rest["calls"]] == [(2, 60111), (3, 84061)]
    assert rest["next"] == rest["total"] == 4
    assert (await sim.ask("calls", since=rest["next"]))["calls"] == []
    chosen = await sim.ask("calls", endpoint="externalcontact/list", corp=CORP_ID, errcode=84061)
    assert [call["number"] for call in chosen["calls"]] == [1, 3]
    assert (await sim.ask("calls", corp="wwother"))["calls"] == []


async def test_calls_are_downloaded_as_lines(sim):
    token = await sim.token()
    for _ in range(3):
        await sim.call(LIST, token=token)
    response = await sim.client.get("/_sim/calls", params={"format": "jsonl", "endpoint": LIST})
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [(line["endpoint"], line["errcode"]) for line in lines] == [(LIST, 0)] * 3
    response = await sim.client.get("/_sim/calls", params={"format": "jsonl", "limit": "2"})
    assert len(response.text.splitlines()) == 2
    assert (await sim.client.get("/_sim/calls?format=csv")).status_code == 400
    assert (await sim.client.get("/_sim/calls?since=-1")).status_code == 400


@pytest.mark.parametrize("sim_settings", [{"calls_kept": 2}], indirect=True)
async def test_memory_keeps_the_newest_calls_and_the_file_every_one(sim, tmp_path):
    token = await sim.token()
    for _ in range(4):
        await sim.call(LIST, token=token)
    shown = await sim.ask("calls")
    assert [call["number"] for call in shown["calls"]] == [3, 4]
    assert (shown["total"], shown["kept_from"]) == (5, 3)


def test_a_calls_file_holds_every_call_once(tmp_path):
    from simulator.platform.calls import CallLog, RecordedCall

    path = tmp_path / "deep" / "calls.jsonl"
    for run in range(2):
        log = CallLog(3, path)
        for number in range(1_000):
            log.append(RecordedCall(1_000_000 + number, 5, f"e{run}", "ww", "1", number))
        assert len(log) == 3
        log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["errcode"] for line in lines] == [*range(1_000), *range(1_000)]
    assert lines[0] == {
        "time_ms": 1_000_000,
        "business_ms": 5,
        "endpoint": "e0",
        "corp_id": "ww",
        "agent_id": "1",
        "errcode": 0,
    }


def test_settings_name_the_calls_file(monkeypatch, tmp_path):
    monkeypatch.setenv("SIYU_SIM_CALLS_FILE", str(tmp_path / "c.jsonl"))
    assert SimulatorSettings().calls_file == tmp_path / "c.jsonl"


@pytest.mark.covers("fact:6.6")
async def test_quotas_show_what_is_used_by_minute_and_hour(sim):
    """4.1: per corp and single API, a minute's and an hour's count."""
    token = await sim.token()
    for _ in range(3):
        await sim.call(LIST, token=token)
    await sim.step(61)
    await sim.call(LIST, token=token)
    (quota,) = [q for q in (await sim.ask("quotas"))["quotas"] if q["endpoint"] == LIST]
    assert quota == {
        "corp_id": CORP_ID,
        "endpoint": LIST,
        "minute_used": 1,
        "minute_limit": 10_000,
        "hour_used": 4,
        "hour_limit": 150_000,
        "in_flight": 0,
        "blocked_s": 0.0,
    }


# ---------------------------------------------------------------- what arrives wrong


PATHS = [
    ("POST", "clock"),
    ("POST", "faults"),
    ("POST", "blocks"),
    ("DELETE", "blocks"),
    ("POST", "tokens/withdraw"),
    ("POST", "staff/ban"),
    ("POST", "staff/pardon"),
    ("POST", "complaints"),
    ("POST", "callbacks/loss"),
]
ODD = [None, True, -1, 10**30, 1e308, "", "x" * 3_000, "\ud800", [], [[1]], {}, {"a": 1}, float("nan"), float("inf")]
FIELDS = ["rate", "advance_s", "pause", "endpoint", "corp_id", "staff_id", "customer_id", "errcode", "share", "seconds"]


async def test_nonsense_gets_a_400_that_says_what_never_a_500(sim):
    rng = random.Random(1)
    for _ in range(1_500):
        method, path = rng.choice(PATHS)
        body = {rng.choice(FIELDS): rng.choice(ODD) for _ in range(rng.randint(0, 4))}
        content = json.dumps(rng.choice([body, body, rng.choice(ODD)])).encode()
        if rng.random() < 0.2:
            content = content[: rng.randrange(len(content) + 1)] + rng.randbytes(3)
        response = await sim.client.request(method, f"/_sim/{path}", content=content)
        assert response.status_code in (200, 201, 400, 404), (path, content)
        if response.status_code >= 400:
            assert response.json()["error"]


async def test_a_body_past_the_limit(sim):
    response = await sim.client.post("/_sim/clock", content=b" " * 70_000)
    assert response.status_code == 400


async def test_without_merchants_there_is_no_wechat_pay(sim):
    assert (await sim.client.get("/_sim/pay")).status_code == 404
    assert (await sim.client.get("/v3/certificates")).status_code == 404


@pytest.mark.covers("fact:6.22")
async def test_the_control_side_is_not_among_the_platforms_paths(sim):
    """6.22: what steers the simulator is no path of the platform, and the platform's paths do not steer it."""
    assert (await sim.client.post("/cgi-bin/_sim/clock", json={"rate": 2})).json()["errcode"] == 48002
    assert (await sim.client.get("/_sim/nothing")).status_code == 404
    assert (await sim.client.get("/_sim/clock/")).status_code in (307, 404)
    assert (await sim.client.put("/_sim/clock")).status_code == 405
    assert not [path for path in ENDPOINTS if path.startswith("_")]


@pytest.mark.covers("fact:6.21")
async def test_after_the_scenario_the_world_lives_on_and_its_truth_stays(sim):
    """6.21: what calls have begun ends in its time, long after the story; the story's truth is final."""
    await sim.step(90_000)
    async with asyncio.timeout(10):
        while (await sim.ask("status"))["state"] != "done":
            await sim.step(60)
            await asyncio.sleep(0.05)
    final = (await sim.client.get("/_sim/truth")).content
    seen = []
    sim.world.schedule.at(sim.simulation.now_ms // 1000 + 50, seen.append)
    sim.happen(staff="s3", at_s=200_000)
    await sim.tell("clock", {"rate": 100})
    sim.wall.ms += 1_000
    async with asyncio.timeout(5):
        while not seen:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await sim.client.get("/_sim/truth")).content == final
    assert (await sim.ask("truth/standing", staff="s3"))["rows"]
