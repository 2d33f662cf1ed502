"""Scenario files: the shipped ones can be read, and whatever is wrong with another is told by line and field."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.apps import App
from simulator.scenario.file import ScenarioError, load_scenario, parse_scenario, shipped
from simulator.scenario.sections import SECTIONS, rules_of_section
from simulator.server import planner
from simulator.settings import SimulatorSettings

SHIPPED = {"demo", "neptune", "livestream-burst", "tag-storm", "lossy", "ban", "poster"}
WORLD = "population: {staff: 3, customers: 10}\nshopping: {buyers_share: 0}\n"


def test_every_shipped_scenario_can_be_read_and_says_what_it_is_about():
    found = shipped()
    assert set(found) >= SHIPPED
    assert all(about for about in found.values())


def test_neptune_is_the_reference_size_and_earns_thirty_million_a_month():
    neptune = load_scenario("neptune")
    assert neptune.population is not None
    assert (neptune.population.staff, neptune.population.customers) == (20_000, 8_000_000)
    buyers = neptune.population.customers * neptune.shopping.buyers_share
    daily = 0.0
    for item in neptune.shopping.items:
        low, high = item.price_fen
        mean_fen = (high - low) / math.log(high / low)
        daily += buyers * item.share / item.cycle_days * mean_fen
    assert 28e6 < daily / 100 * 30 < 32e6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day:\n  staff: many\n", "f.yaml:2: day.staff: Expected `int`, got `str`"),
        ("day:\n  staff: 0\n", "f.yaml:2: day.staff: Expected `int` >= 1"),
        ("day: {}\n\nstorey: {}\n", "f.yaml:3: Object contains unknown field `storey`"),
        (
            "population:\n  staff: 3\n  customers: 1\n\n  wrong: 3\n",
            "f.yaml:5: population: Object contains unknown field `wrong`",
        ),
        ("population:\n  staff: 3\n", "f.yaml:1: population: Object missing required field `customers`"),
        ("day: {}\nchannels:\n - {kind: counter, share: 2}\n", "f.yaml:3: channels[0].share: Expected `float` <= 1.0"),
        (
            "day: {}\nchannels:\n - {kind: counter, share: 1}\n - kind: countr\n   share: 1\n",
            "f.yaml:4: channels[1].kind: Invalid enum value 'countr'",
        ),
        (
            "day: {}\nchannels:\n - kind: counter\n   share: 1\n   state: '{x}'\n",
            "f.yaml:5: channels[0]: state: only {number} and {store} are filled in",
        ),
        (
            "day: {}\neffects:\n  timing:\n    late_days: [9, 1]\n",
            "f.yaml:4: effects.timing: late_days: from and to, ascending, within a year",
        ),
        ("day: {}\neffects:\n  kinds:\n    mass: x\n", "f.yaml:3: effects.kinds: Expected `float`, got `str`"),
        ("day: {}\nday: {}\n", "f.yaml:2: day: stands in line 1 already"),
        ("day: {a\n", "f.yaml:2: not YAML: expected ',' or '}', but got '<stream end>'"),
        ("about: \x07\n", "f.yaml:1: not YAML: special characters are not allowed"),
        ("", "f.yaml:1: the file is empty"),
        ("- 1\n", "f.yaml:1: Expected `object`, got `array`"),
        ("3: {}\n", "f.yaml:1: Expected `str`"),
        ("about: x\n", "f.yaml:1: a scenario has either a day or a population"),
        ("day: {}\npopulation: {staff: 1, customers: 1}\n", "f.yaml:1: a scenario has either a day or a population"),
        (
            "day: {}\nplatform:\n  scale: {}\n  mas: {}\n",
            "f.yaml:4: platform.mas: no such section",
        ),
        (
            "day: {}\nplatform:\n  scale:\n    prices:\n    - {since_s: 0, free: x, tiers: []}\n",
            "f.yaml:5: platform.scale.prices[0].free: Expected `int`, got `str`",
        ),
        ("day: {}\nclock: {mode: fast}\n", "f.yaml:2: clock.mode: Expected `str` matching regex"),
        (
            WORLD + "bursts:\n- {kind: scans, at_s: 1, count: 1}\n- {kind: rain, at_s: 1, count: 1}\n",
            "f.yaml:5: bursts[1].kind: Invalid enum value 'rain'",
        ),
    ],
)
def test_what_is_wrong_is_told_by_line_and_field(text, message):
    with pytest.raises(ScenarioError) as wrong:
        parse_scenario(text, "f.yaml")
    assert str(wrong.value).startswith(message)


def problem_of(text: str) -> str:
    """What is wrong with a text; empty when it is a scenario."""
    try:
        parse_scenario(text, "f.yaml")
    except ScenarioError as error:
        return str(error)
    return ""


@given(st.text(max_size=200))
def test_no_text_makes_anything_but_a_scenario_or_its_error(text):
    assert re.match(r"f\.yaml:\d+: |$", problem_of(text))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_damaged_scenario_is_told_or_is_another_scenario(data):
    text = (Path(__file__).parents[3] / "simulator/scenarios/neptune.yaml").read_text(encoding="utf-8")
    at = data.draw(st.integers(0, len(text) - 1))
    with_junk = text[:at] + data.draw(st.text(max_size=4)) + text[at + data.draw(st.integers(0, 6)) :]
    assert re.match(r"f\.yaml:\d+: |$", problem_of(with_junk))


def test_a_name_that_is_not_shipped_is_told_with_those_that_are():
    with pytest.raises(ScenarioError, match=r"not shipped.*demo.*neptune"):
        load_scenario("neptun")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario("nowhere/x.yaml")


def test_a_file_of_ones_own_is_named_after_itself(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(WORLD)
    assert load_scenario(str(path)).name == "mine"


def test_every_section_of_rules_that_is_read_can_be_written():
    read = set()
    for path in (Path(__file__).parents[3] / "simulator").rglob("*.py"):
        read |= set(re.findall(r'rules_of\(\s*"(\w+)"', path.read_text(encoding="utf-8")))
    assert read == set(SECTIONS)
    for name in SECTIONS:
        assert rules_of_section(name).__struct_fields__


def test_what_a_file_says_of_deliveries_and_clock_yields_to_explicit_settings():
    scenario = parse_scenario(
        WORLD + "delivery: {lost_share: 0.01, timeout_seconds: 2}\nclock: {mode: x60}\nlimits: {welcome_seconds: 30}\n",
        "f.yaml",
    )
    assert scenario.settings(SimulatorSettings()).lost_share == 0.01
    assert scenario.settings(SimulatorSettings()).delivery_timeout_seconds == 2
    assert scenario.settings(SimulatorSettings()).clock == "x60"
    assert scenario.settings(SimulatorSettings()).welcome_seconds == 30
    assert scenario.settings(SimulatorSettings(lost_share=0.5)).lost_share == 0.5
    assert scenario.settings(SimulatorSettings()).duplicate_share == SimulatorSettings().duplicate_share


def test_every_field_of_deliveries_and_limits_is_a_setting():
    told = parse_scenario(
        WORLD
        + "delivery: {duplicate_share: 0.2, shuffle_seconds: 1, lost_share: 0.1, burst_seconds: 1, timeout_seconds: 1,"
        " total: 4, retry_seconds: [1], retry_refused: false, concurrency: 9, mute_after: 3, mute_window_seconds: 5,"
        " mute_seconds: 7}\n"
        "limits: {bill_lag_seconds: 1, welcome_seconds: 9, token_seconds: 8, cursor_seconds: 7,"
        " latency_milliseconds: 6, calls_per_minute: 5, calls_per_hour: 50, concurrent_calls: 4}\n",
        "f.yaml",
    ).settings(SimulatorSettings())
    plain = SimulatorSettings()
    assert sum(getattr(told, name) != getattr(plain, name) for name in SimulatorSettings.model_fields) == 20


def test_an_app_takes_the_events_its_rules_name():
    app = App("ww1", "7", "s", "t", "k", "http://x")
    other = App("ww1", "8", "s", "t", "k", "http://x")
    scenario = parse_scenario(WORLD + "apps: [{agent_id: '7', events: [change_contact]}]\n", "f.yaml")
    first, second = scenario.with_rules([app, other])
    assert first.events == {"change_contact"}
    assert second == other


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_scenario_can_be_planned_at_a_small_scale(name):
    plan, _ = planner(SimulatorSettings(scenario=name, scale=0.001 if name == "neptune" else 0.05), ("ww1", "ww2"))
    made = plan(1_760_000_000)
    assert made.corps == ("ww1", "ww2")
    assert made.ends_s or made.end_s


def test_the_demo_is_the_day_that_was_always_played():
    explicit = SimulatorSettings(staff=30, customers=200, duration_seconds=60)
    plan, _ = planner(explicit, ("ww1", "ww2"))
    made = plan(1_760_000_000)
    assert sum(len(staff) for staff in made.staff.values()) == 30
    assert sum(len(people) for people in made.customers.values()) == 200
    assert made.end_s <= 1_760_000_000 + 60 + 3
