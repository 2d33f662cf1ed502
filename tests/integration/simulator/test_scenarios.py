"""Scenario files played by a process: over real sockets to the end, or refused in one line that names the line."""

import signal

import httpx2
import pytest

from deploy.local.ports import free_ports

SHORT = """
about: ten seconds of a small world
population: {staff: 20, customers: 3000, newcomers: 500, group_only: 60}
channels: [{kind: live_code, share: 1.0, state: "store-{store}", welcome: 1.0}]
story: {duration_s: 10, pace: 86400}
shopping:
  buyers_share: 0.2
  items: [{name: tea, share: 1, cycle_days: 10, price_fen: [1000, 5000]}]
bursts: [{kind: scans, at_s: 3, count: 50, state: poster}]
delivery: {duplicate_share: 0.2, shuffle_seconds: 0.5}
limits: {welcome_seconds: 1, bill_lag_seconds: 0.5}
"""


def test_a_living_world_plays_to_its_end_and_tells_its_truth(start, receiver, tmp_path):
    base, _ = receiver
    (port,) = free_ports(1)
    scenario = tmp_path / "short.yaml"
    scenario.write_text(SHORT)
    process = start(
        SIYU_PORT=str(port),
        SIYU_SIM_CALLBACK_BASE=base,
        SIYU_SIM_SCENARIO=str(scenario),
        SIYU_SIM_SCALE="0.5",
        SIYU_SIM_AUTOSTART="1",
    )
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        assert any('"scenario done"' in line for line in process.stdout)
        status, truth = client.get("/_sim/status").json(), client.get("/_sim/truth").json()
    assert status["scenario"] == "short"
    assert status["callbacks"]["delivered"] == status["callbacks"]["planned"] > 100
    assert status["callbacks"]["duplicates"] > 0
    assert status["bills"]["visible"] == status["bills"]["total"] > 50
    assert sum(r["channel"] == "poster" for r in truth["relationships"]) == 25
    assert truth["shopping"]["wwtest0000000001"]["sales"]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "population: {staff: 2, customers: 9}\nstory:\n  duration: 10\n",
            "mine.yaml:3: story: Object contains unknown",
        ),
        ("day: {}\nplatform:\n  scale: {verified: 7}\n", "mine.yaml:3: platform.scale.verified: Expected `bool`"),
        ("day: [", "mine.yaml:1: not YAML"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_in_one_line(start, tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    process = start(SIYU_PORT="0", SIYU_SIM_SCENARIO=str(tmp_path / "mine.yaml"))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_scenario_that_nobody_ships_is_refused_with_those_there_are(start):
    process = start(SIYU_PORT="0", SIYU_SIM_SCENARIO="netpune")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "neptune" in errors
