"""Fact sheet 2.8 and 6.20: apps that nobody opens are warned, shut and opened again."""

import pytest

from simulator.world.suspension import Suspension

WEEK_S = 7 * 86_400
AGENT = "1000002"
pytestmark = pytest.mark.covers("fact:6.20")


def told(office) -> list[tuple[str, str | None]]:
    return [(callback.event, event.findtext("EffectTime")) for callback, event in office.told if callback.only_agent]


async def list_staff(office, agent: str = AGENT) -> int:
    """An ordinary call of an app."""
    return (await office.post("kf/account/list", agent))["errcode"]


async def read_customers(office, agent: str = AGENT) -> int:
    await office.post("kf/account/list", agent)  # fetches the token
    return (await office.wecom.get("externalcontact/list", userid="s3"))["errcode"]


@pytest.mark.covers("event:inactive_alert", "event:close_inactive_agent", "event:reopen_inactive_agent")
async def test_an_unused_app_is_warned_closed_and_reopened(office):
    """2.8: inactive_alert names when it takes effect; then close_inactive_agent and 48006, until it is reopened."""
    suspension = office.world.of(Suspension)
    assert suspension.warn_inactive(AGENT, office.now_s)
    assert not suspension.warn_inactive(AGENT, office.now_s)
    effect = str(office.now_s + WEEK_S)
    assert told(office) == [("inactive_alert", effect)]
    ((callback, event),) = office.told
    assert (callback.only_agent, event.findtext("AgentID")) == (AGENT, AGENT)
    office.wecom.advance(WEEK_S - 1)
    assert await list_staff(office) == 0
    office.wecom.advance(1)
    assert told(office)[1:] == [("close_inactive_agent", None)]
    assert await list_staff(office) == 48006
    assert await list_staff(office, "1000003") == 0
    assert suspension.reopen(AGENT, office.now_s)
    assert told(office)[2:] == [("reopen_inactive_agent", None)]
    assert await list_staff(office) == 0


async def test_staff_who_open_the_app_in_time_undo_the_warning(office):
    """2.8: an app that is used again is not closed; a later warning counts from anew."""
    suspension = office.world.of(Suspension)
    suspension.warn_inactive(AGENT, office.now_s)
    suspension.warn_low(AGENT, office.now_s)
    office.wecom.advance(WEEK_S - 10)
    suspension.used(AGENT, office.now_s)
    assert suspension.warn_inactive(AGENT, office.now_s)
    office.wecom.advance(10)
    assert (await list_staff(office), await read_customers(office)) == (0, 84061)
    office.wecom.advance(WEEK_S - 10)
    assert await list_staff(office) == 48006


@pytest.mark.covers("event:low_active_alert", "event:low_active", "event:active_restored")
async def test_customer_data_is_withheld_from_an_app_of_low_activity(office):
    """2.8: low_active_alert, then low_active with 48011 for reads of customers alone, until active_restored."""
    suspension = office.world.of(Suspension)
    assert suspension.warn_low(AGENT, office.now_s)
    assert told(office) == [("low_active_alert", str(office.now_s + WEEK_S))]
    assert await read_customers(office) == 84061
    office.wecom.advance(WEEK_S)
    assert told(office)[1:] == [("low_active", None)]
    assert await read_customers(office) == 48011
    assert await read_customers(office, "1000003") == 84061
    assert await list_staff(office) == 0
    suspension.used(AGENT, office.now_s)
    assert told(office)[2:] == [("active_restored", None)]
    assert await read_customers(office) == 84061


async def test_an_error_body_of_a_closed_app_has_its_empty_arrays(office):
    """3: 48006 comes in the ordinary error body."""
    office.world.of(Suspension).close(AGENT, office.now_s)
    answer = await office.post("kf/account/list")
    assert (answer["errcode"], answer["account_list"]) == (48006, [])
    assert "devtool/query?e=48006" in answer["errmsg"]
