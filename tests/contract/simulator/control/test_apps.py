"""Fact sheet 3.1, 4.1, 4.2: several apps of one corp, source addresses, and whose a counter is."""

import asyncio
from dataclasses import replace

import httpx2
import pytest

from simulator.app import Control, build_app

LIST = "externalcontact/get_follow_user_list"
OTHER = "another app's secret"


@pytest.fixture
def apps(apps):
    """A second app of the same corp, which may be called from one address only."""
    (first,) = apps
    return (first, replace(first, agent_id="1000003", secret=OTHER, trusted_ips=frozenset({"203.0.113.77"})))


@pytest.mark.covers("fact:6.5", "gettoken")
async def test_every_app_has_a_token_of_its_own(sim):
    """3.1: one token per corp and app; what withdraws one leaves the other."""
    own, other = await sim.token(), await sim.token(OTHER)
    assert own != other
    await sim.tell("tokens/withdraw", {"corp_id": sim.corp.corp_id, "agent_id": "1000003"})
    assert await sim.call(LIST, token=own) == 0
    assert await sim.call(LIST, token=other) == 40014


@pytest.mark.covers("fact:6.5")
async def test_an_address_that_is_not_trusted(sim):
    """3.1: an app with trusted addresses gets 60020 from any other; its token is issued all the same."""
    other = await sim.token(OTHER)
    assert await sim.call(LIST, token=other) == 60020
    assert await sim.call(LIST) == 0


@pytest.mark.parametrize("sim_settings", [{"calls_per_minute": 3}], indirect=True)
@pytest.mark.covers("fact:6.6")
async def test_a_corps_apps_share_its_limit(sim):
    """4.1: the limit is the corp's for one API, whichever app calls; the call with a bad token is not the corp's."""
    token = await sim.token()
    assert [await sim.call(LIST, token="guess") for _ in range(5)] == [40014] * 5
    assert [await sim.call(LIST, token=token) for _ in range(2)] == [0, 0]
    assert await sim.call(LIST, token=await sim.token(OTHER)) == 60020
    quotas = {q["endpoint"]: q["minute_used"] for q in (await sim.ask("quotas"))["quotas"]}
    assert quotas[LIST] == 2
    assert [await sim.call(LIST, token=token) for _ in range(2)] == [0, 45009]


@pytest.mark.covers("fact:6.6")
async def test_an_address_has_a_limit_of_its_own(sim, monkeypatch):
    """4.1: per source address and API 20,000 a minute and 600,000 an hour; another address goes on."""
    limits = replace(sim.gateway.throttle.limits, ip_per_minute=2)
    assert (sim.gateway.throttle.limits.ip_per_minute, sim.gateway.throttle.limits.ip_per_hour) == (20_000, 600_000)
    sim.gateway.throttle.limits = limits
    token = await sim.token()
    assert [await sim.call(LIST, token=token) for _ in range(3)] == [0, 0, 45009]
    elsewhere = httpx2.ASGITransport(app=build_app(Control(sim.gateway, sim.simulation)), client=("203.0.113.5", 1))
    async with httpx2.AsyncClient(transport=elsewhere, base_url="http://wecom") as client:
        answer = await client.get(f"/cgi-bin/{LIST}", params={"access_token": token})
    assert answer.json()["errcode"] == 0


@pytest.mark.parametrize("sim_settings", [{"wrong_secrets_per_hour": 1}], indirect=True)
@pytest.mark.covers("fact:6.5", "fact:6.21", "gettoken")
async def test_a_ban_for_wrong_secrets_ends_after_an_hour(sim):
    """3.1: repeated wrong secrets get the source address banned for 1 h."""

    async def ask(secret: str) -> int:
        query = {"corpid": sim.corp.corp_id, "corpsecret": secret}
        return (await sim.client.get("/cgi-bin/gettoken", params=query)).json()["errcode"]

    assert [await ask("x"), await ask("y"), await ask(sim.corp.secret)] == [40001, 40001, 45009]
    await sim.step(3_599)
    assert await ask(sim.corp.secret) == 45009
    await sim.step(1)
    assert await ask(sim.corp.secret) == 0


@pytest.mark.parametrize("sim_settings", [{"latency_milliseconds": 40}], indirect=True)
@pytest.mark.covers("fact:6.6", "externalcontact/mark_tag", "externalcontact/remark")
async def test_two_writers_on_one_record(sim):
    """4.2: a second writer of the same pair gets 45035; another pair does not mind."""
    sim.happen(customer="wmC1", at_s=0)
    sim.happen(customer="wmC2", at_s=0)
    token = await sim.token()

    async def remark(customer: str) -> int:
        body = {"userid": "s1", "external_userid": customer, "remark": "x"}
        return await sim.call("externalcontact/remark", body, token=token)

    codes = await asyncio.gather(remark("wmC1"), remark("wmC1"), remark("wmC2"))
    assert sorted(codes) == [0, 0, 45035]
    assert codes[2] == 0


@pytest.mark.covers("fact:6.7")
async def test_gettoken_itself_can_be_blocked_and_counted(sim):
    """4.1: the token call is an API like any other."""
    await sim.token()
    counts = (await sim.ask("calls"))["counts"]
    assert counts["gettoken"] == {"0": 1}
    assert [q["minute_used"] for q in (await sim.ask("quotas"))["quotas"] if q["endpoint"] == "gettoken"] == [1]
