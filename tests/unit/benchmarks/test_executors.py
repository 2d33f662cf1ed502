"""The harness of the executor's benchmarks: what a seed decides, and what is written for a site."""

from pathlib import Path

import pytest
import yaml

from benchmarks.harness.backlog import People, scenario, send_to, tagging
from benchmarks.harness.executors import LIMITS, UNLIMITED, deeds, platform_limits, strikes, write_corps, write_limits
from siyu.limits import load_registry
from siyu.ops.corps import load_corps

NOW = 1_790_000_000_000
PEOPLE = People({"ww1": [("s1", "c1"), ("s2", "c2")], "ww2": [("s3", "c3")]}, {"ww1": ["t1", "t2"], "ww2": ["t3"]})


def test_a_seed_decides_every_deed() -> None:
    assert deeds(7, 20, 600, 8) == deeds(7, 20, 600, 8)
    assert deeds(7, 20, 600, 8) != deeds(8, 20, 600, 8)
    assert {deed.kind for deed in deeds(7, 20, 600, 8)} == {"kill", "freeze", "stop"}


@pytest.mark.parametrize("executors", [1, 2, 5, 20])
def test_half_of_the_fleet_stays_and_nobody_is_away_twice_at_once(executors: int) -> None:
    plan = deeds(3, executors, 900, 2)
    assert plan
    for deed in plan:
        away = [other for other in plan if other.at_s <= deed.at_s < other.at_s + other.seconds]
        assert len({other.index for other in away}) == len(away)
        assert len(away) <= max(1, executors // 2)


def test_strikes_come_when_calls_are_under_way() -> None:
    plan = strikes(2, 2, rounds=3, seconds=60, each=9, within_s=6)
    assert plan == strikes(2, 2, rounds=3, seconds=60, each=9, within_s=6)
    for number in range(3):
        early = [deed for deed in plan if 0 <= deed.at_s - number * 60 < 6]
        assert len(early) >= 6
    assert [deed.at_s for deed in plan] == sorted(deed.at_s for deed in plan)


def test_no_deed_is_too_late_to_be_over() -> None:
    assert max(deed.at_s for deed in deeds(1, 20, 120, 1)) <= 90


def test_other_amounts_are_a_registry_like_the_one_in_force(tmp_path: Path) -> None:
    write_limits(tmp_path, {"corp_api_minute": 60, **dict.fromkeys(("corp_api_hour",), 900)})
    amounts = {limit.id: limit.amount for limit in load_registry(tmp_path).at(NOW).limits}
    assert (amounts["corp_api_minute"], amounts["corp_api_hour"]) == (60, 900)
    usual = {limit.id: limit.amount for limit in load_registry(LIMITS).at(NOW).limits}
    assert {limit for limit in usual if usual[limit] != amounts[limit]} == {"corp_api_minute", "corp_api_hour"}


def test_an_amount_of_no_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="corp_api_second"):
        write_limits(tmp_path, {"corp_api_second": 1})


def test_the_free_registry_holds_nothing_back(tmp_path: Path) -> None:
    write_limits(tmp_path, UNLIMITED)
    admitted = load_registry(tmp_path).at(NOW).of("ww1", "externalcontact/mark_tag")
    assert min(limit.amount for limit in admitted) >= 10**9
    assert platform_limits(UNLIMITED) == {
        "SIYU_SIM_CALLS_PER_MINUTE": "1000000000",
        "SIYU_SIM_CALLS_PER_HOUR": "1000000000",
        "SIYU_SIM_CONCURRENT_CALLS": "1000000000",
    }


def test_corps_have_secrets_of_their_own(tmp_path: Path) -> None:
    write_corps(tmp_path / "corps.yaml", ["ww1", "ww2"])
    corps = load_corps(tmp_path / "corps.yaml")
    assert set(corps) == {"ww1", "ww2"}
    assert corps["ww1"].secret != corps["ww2"].secret


def test_actions_are_the_same_for_a_seed_and_never_twice_the_same_id() -> None:
    made = list(tagging(PEOPLE, 100, now_ms=NOW, seed=5))
    assert made == list(tagging(PEOPLE, 100, now_ms=NOW, seed=5))
    more = list(tagging(PEOPLE, 100, now_ms=NOW, seed=5, first=100))
    assert len({action.action_id for action in made + more}) == 200
    for action in made:
        assert (action.staff_id, action.customer_id) in PEOPLE.pairs[action.corp_id]
        assert yaml.safe_load(action.payload)["add_tag"][0] in PEOPLE.tags[action.corp_id]


def test_a_send_names_everybody_once() -> None:
    made = send_to(1, "ww1", ["c1", "c2"], "text", now_ms=NOW, harvest_until_ms=NOW + 1)
    payload = yaml.safe_load(made.payload)
    assert payload["external_userid"] == ["c1", "c2"]
    assert payload["siyu"] == {"harvest_until_ms": NOW + 1}


@pytest.mark.parametrize("adds", [0.0, 5.0])
def test_the_world_of_a_benchmark_can_be_played(tmp_path: Path, adds: float) -> None:
    from simulator.scenario.file import load_scenario

    path = tmp_path / "scenario.yaml"
    path.write_text(yaml.safe_dump(scenario(staff=10, customers=100, adds_per_second=adds)))
    assert load_scenario(str(path)).day is None
