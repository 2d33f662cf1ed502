"""Fact sheet 6, point 21: time can be paused, sped up and moved, and everything of the platform follows it."""

import asyncio
import json

import pytest

from simulator.clock import NOTICE_MS, BadClock, ClockSetting, SharedClock, WorldClock
from siyu.ops.clock import ClockError, FileClock

START_S = 1_760_000_000
WELCOME = {"text": {"content": "hi"}}


@pytest.mark.covers("fact:6.21", "fact:6.4", "externalcontact/send_welcome_msg")
async def test_a_welcome_code_lives_twenty_seconds_of_the_clock_that_is_moved(sim):
    """3.4: a code is good for 20 s, whatever the wall clock says meanwhile."""
    first, second = sim.happen(at_s=0), sim.happen(staff="s2", at_s=0)
    sim.wall.ms += 3_600_000
    await sim.step(20)
    assert await sim.call("externalcontact/send_welcome_msg", {"welcome_code": first, **WELCOME}) == 0
    await sim.step(1)
    assert await sim.call("externalcontact/send_welcome_msg", {"welcome_code": second, **WELCOME}) == 41050


@pytest.mark.covers("fact:6.21", "fact:6.5", "gettoken")
async def test_a_token_ends_with_its_two_hours(sim):
    """3.1: 7,200 s of the platform's clock, then 42001; the next token is another one."""
    token = await sim.token()
    await sim.step(7_199)
    assert await sim.call("externalcontact/get_follow_user_list", token=token) == 0
    await sim.step(1)
    assert await sim.call("externalcontact/get_follow_user_list", token=token) == 42001
    assert await sim.token() != token


@pytest.mark.parametrize(
    ("sim_settings", "seconds"),
    [({"calls_per_minute": 2}, 60), ({"calls_per_hour": 2}, 3_600)],
    indirect=["sim_settings"],
)
@pytest.mark.covers("fact:6.21", "fact:6.6")
async def test_a_block_is_as_long_as_its_window(sim, seconds):
    """4.1: past the limit 45009 for a minute (an hour), then the API answers again."""
    token = await sim.token()

    async def ask() -> int:
        return await sim.call("externalcontact/get_follow_user_list", token=token)

    assert [await ask() for _ in range(3)] == [0, 0, 45009]
    sim.wall.ms += 7_200_000
    await sim.step(seconds - 1)
    assert await ask() == 45009
    await sim.step(1)
    assert [await ask() for _ in range(3)] == [0, 0, 45009]


@pytest.mark.parametrize("sim_settings", [{"calls_per_minute": 2}], indirect=True)
@pytest.mark.covers("fact:6.21", "fact:6.6")
async def test_a_window_that_has_passed_counts_no_more(sim):
    """4.1: the limit is one of a minute."""
    token = await sim.token()
    for _ in range(3):
        assert await sim.call("externalcontact/get_follow_user_list", token=token) == 0
        await sim.step(31)


@pytest.mark.covers("fact:6.21", "fact:6.10")
async def test_a_cursor_ends_with_its_four_hours(sim):
    """3.2: cursors live 4 h of the platform's clock, then 50100."""
    await sim.step(10)
    window = {"begin_time": START_S, "end_time": START_S + 100, "limit": 1}
    url = "/cgi-bin/externalpay/get_bill_list"
    answer = (await sim.client.post(url, params={"access_token": await sim.token()}, json=window)).json()
    cursor = answer["next_cursor"]
    await sim.step(4 * 3_600 - 1)
    assert await sim.call("externalpay/get_bill_list", {**window, "cursor": cursor}) == 0
    await sim.step(2)
    assert await sim.call("externalpay/get_bill_list", {**window, "cursor": cursor}) == 50100


@pytest.mark.parametrize("days", [1, 30, 90, 366])
@pytest.mark.covers("fact:6.21")
async def test_what_is_due_in_days_happens_at_its_second_when_the_clock_steps_over_it(sim, days):
    """6.21: 24 h, 72 h, 90 days are one step."""
    due_s = START_S + days * 86_400
    seen: list[tuple[int, int]] = []
    sim.world.schedule.at(due_s, lambda second: seen.append((second, sim.simulation.now_ms)))
    await sim.step(days * 86_400 - 1)
    assert seen == []
    await sim.step(1)
    assert seen == [(due_s, due_s * 1000)]


@pytest.mark.covers("fact:6.21")
async def test_a_long_step_plays_all_that_lies_between_in_its_order(sim):
    """6.21: a step over thousands of events leaves none of them behind."""
    seen: list[int] = []
    for second in range(START_S + 5_000, START_S, -1):
        sim.world.schedule.at(second, seen.append)
    await sim.step(86_400)
    assert seen == list(range(START_S + 1, START_S + 5_001))
    assert [change.customer_id for change in sim.world.changes] == ["wmC2"]


@pytest.mark.covers("fact:6.21")
async def test_callbacks_follow_the_clock_that_stands_still(sim):
    """6.21: nothing happens while time stands still; a step brings the day's callback, stamped with its own second."""
    await asyncio.sleep(0.1)
    assert sim.accepted == []
    await sim.step(86_400)
    async with asyncio.timeout(5):
        while not sim.accepted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    shown = await sim.ask("callbacks")
    assert (shown["delivered"], shown["recent"][0]["change_type"]) == (1, "add_external_contact")


@pytest.mark.covers("fact:6.21")
async def test_the_clock_shows_business_days_of_beijing(sim):
    """0: business days are Beijing time (UTC+8)."""
    before = await sim.ask("clock")
    assert before["beijing"] == "2025-10-09T16:53:20+08:00"
    await sim.step(7 * 3_600 + 400)
    assert (await sim.ask("clock"))["beijing"] == "2025-10-10T00:00:00+08:00"


@pytest.mark.covers("fact:6.21")
async def test_paused_real_and_compressed(sim):
    """6.21: time stands still, passes as on the wall, or N times as fast; a change of pace is no jump."""
    begin = (await sim.ask("clock"))["business_ms"]
    sim.wall.ms += 5_000
    assert await sim.tell("clock", {"rate": 60}) == {
        "business_ms": begin,
        "beijing": "2025-10-09T16:53:20+08:00",
        "platform_s": begin / 1000,
        "rate": 60.0,
        "mode": "compressed",
        "file": "",
        "caught_up": True,
    }
    sim.wall.ms += 1_000
    assert (await sim.ask("clock"))["business_ms"] == begin + 60_000
    assert (await sim.tell("clock", {"pause": True}))["mode"] == "stepped"
    sim.wall.ms += 9_000
    assert (await sim.tell("clock", {"rate": 1}))["business_ms"] == begin + 60_000
    sim.wall.ms += 1
    assert (await sim.ask("clock"))["business_ms"] == begin + 60_001
    assert (await sim.ask("status"))["clock"]["mode"] == "real"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "is needed"),
        ({"rate": 2, "advance_s": 3}, "is needed"),
        ({"pause": False}, "is needed"),
        ({"rate": -1}, "rate"),
        ({"rate": 1e9}, "rate"),
        ({"rate": "fast"}, "$.rate"),
        ({"advance_s": 0}, "advance_s"),
        ({"advance_s": -5}, "advance_s"),
        ({"advance_s": 1e30}, "advance_s"),
        ({"advance_s": 400_000_000}, "advance_s"),
        ({"speed": 3}, "speed"),
        ([], "array"),
    ],
)
async def test_a_clock_never_runs_backwards_and_says_what_it_did_not_understand(sim, body, said):
    before = sim.clock.now_ms()
    response = await sim.client.post("/_sim/clock", json=body)
    assert response.status_code == 400
    assert said in response.json()["error"]
    assert sim.clock.now_ms() == before


async def test_a_clock_of_somebody_else_can_only_be_read(wecom):
    assert (await wecom.client.get("/_sim/clock")).json()["mode"] == "fixed"
    assert (await wecom.client.post("/_sim/clock", json={"rate": 2})).status_code == 409


def test_how_a_clock_begins():
    assert ClockSetting.read("real") == ClockSetting(1.0, 0)
    assert ClockSetting.read("x60") == ClockSetting.read("×60") == ClockSetting.read("60") == ClockSetting(60.0, 0)
    assert ClockSetting.read("Stepped", "2026-01-01T00:00:00") == ClockSetting(0.0, 1_767_196_800_000)
    assert ClockSetting.read("real", "2026-01-01T00:00:00+00:00").start_ms == 1_767_225_600_000
    for mode, start in (
        ("fast", ""),
        ("x", ""),
        ("-1", ""),
        ("inf", ""),
        ("nan", ""),
        ("real", "soon"),
        ("real", "1200-01-01"),
    ):
        with pytest.raises(BadClock):
            ClockSetting.read(mode, start)


def test_time_in_memory_never_runs_backwards_through_many_changes():
    wall = [1_000_000]
    clock = WorldClock(ClockSetting(1.0, 5_000_000), wall=lambda: wall[0])
    last = clock.now_ms()
    for number in range(1, 200):
        wall[0] += number % 7
        if number % 3:
            clock.set_rate((number * 37) % 101 / 10)
        else:
            clock.advance(number)
        assert clock.now_ms() >= last
        last = clock.now_ms()


class TestSharedClock:
    """Services that name the same file see the same time."""

    @pytest.fixture
    def wall(self):
        return [2_000_000]

    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "var" / "clock.json"

    def test_a_service_that_reads_the_file_sees_every_change_at_the_same_time(self, path, wall):
        """6.21: deadlines, retries and quota windows of platform and services follow one clock."""
        clock = SharedClock(path, ClockSetting(1.0, 9_000_000), wall=lambda: wall[0])
        service = FileClock(path, wall=lambda: wall[0])
        assert clock.now_ms() == service.now_ms() == 9_000_000
        wall[0] += 1_000
        assert clock.advance(86_400_000) == wall[0] + NOTICE_MS
        wall[0] += NOTICE_MS - 1
        assert clock.now_ms() == service.now_ms() == 9_000_000 + 1_000 + NOTICE_MS - 1, "not before its notice"
        wall[0] += 1
        assert clock.now_ms() == service.now_ms() == 9_000_000 + 1_000 + NOTICE_MS + 86_400_000
        clock.set_rate(0)
        wall[0] += NOTICE_MS + 100_000
        assert clock.now_ms() == service.now_ms()
        assert clock.rate == 0
        stood = clock.now_ms()
        wall[0] += 50_000
        assert clock.now_ms() == stood

    def test_a_second_change_waits_for_the_first(self, path, wall):
        clock = SharedClock(path, wall=lambda: wall[0])
        clock.set_rate(60)
        with pytest.raises(BadClock, match="being moved"):
            clock.set_rate(1)
        wall[0] += NOTICE_MS
        clock.set_rate(1)

    def test_a_file_that_is_there_is_in_force(self, path, wall):
        path.parent.mkdir()
        path.write_text('[{"wall_ms": 2000000, "business_ms": 7000000, "rate": 10.0}]')
        clock = SharedClock(path, ClockSetting(1.0, 9_000_000), wall=lambda: wall[0])
        wall[0] += 200
        assert (clock.now_ms(), clock.rate) == (7_002_000, 10.0)

    def test_a_long_soak_of_steps_keeps_the_file_small(self, path, wall):
        clock = SharedClock(path, ClockSetting(0.0, 9_000_000), wall=lambda: wall[0])
        for _ in range(250):
            clock.advance(1_000)
            wall[0] += NOTICE_MS
        wall[0] += 200
        assert clock.now_ms() == 9_000_000 + 250_000
        assert len(json.loads(path.read_text())) <= 201

    @pytest.mark.parametrize("content", ["", "[]", "{}", '[{"wall_ms": 1}]'])
    def test_a_file_that_is_none_is_refused(self, path, wall, content):
        path.parent.mkdir()
        path.write_text(content)
        with pytest.raises(ClockError):
            SharedClock(path, wall=lambda: wall[0])
