"""The rules file: what is shipped holds together, and what contradicts itself is refused with line and field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from siyu.events import schemas_dir
from siyu.guard.rules import RulesError, level_of, load_rules, parse_rules
from siyu.ops.clock import wall_ms
from siyu.wecom.errors import load_error_tables

FILE = schemas_dir() / "rules" / "guard.yaml"
TEXT = FILE.read_text(encoding="utf-8")


def refused(text: str) -> str:
    with pytest.raises(RulesError) as error:
        parse_rules(text, "guard.yaml")
    return str(error.value)


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


WRONG = [
    ("steps_ms: [86400000, 604800000,", "steps_ms: [86400000, 86400000,", "steps_ms: [", "ladder.steps_ms"),
    ("trip_at: 100", "trip_at: 10", "watched_from: 20", "score.watched_from"),
    ("trip_at: 100", "trip_at: high", "trip_at", "score.trip_at"),
    ("trip_at: 100", "trip_at: 100\n      bonus: 5", "score:", "score"),
    ("{risk_from: 40, percent: 50}", "{risk_from: 40, percent: 80}", "percent: 80", "score.allowance[2]"),
    ("{risk_from: 40, percent: 50}", "{risk_from: 40, percent: 0}", "percent: 0", "score.allowance[2].percent"),
    ("kind: barred, at: corp, effect: stop", "kind: barred, at: corp, effect: ask", "effect: ask", "signals[7].effect"),
    ("kind: barred, at: corp, effect", "kind: lift_approve, at: corp, effect", "kind: lift_approve", "signals[7].kind"),
    ("effect: pause, pause_ms: 600000", "effect: pause", "kind: address_refused", "signals[8].pause_ms"),
    ("tells_corp: staff_banned", "tells_corp: nobody", "tells_corp: nobody", "signals[0].tells_corp"),
    (
        "codes: [48011], kind: inactive",
        "codes: [45036], kind: inactive",
        "kind: inactive, at: corp, tell",
        "errcodes[6].codes",
    ),
    ("codes: [48011], kind: inactive", "codes: [48011], kind: idle", "kind: idle", "errcodes[6].kind"),
    ("window_ms: 60000, above: 60", "window_ms: 60001, above: 60", "window_ms: 60001", "velocity[0].window_ms"),
    ("tolerated_percent: 2", "tolerated_percent: 200", "tolerated_percent: 200", "deletions.tolerated_percent"),
    ("{staff: 200, points: 50}", "{staff: 20, points: 50}", "steps:", "concerted.steps"),
    ("request_valid_ms: 86400000", "request_valid_ms: 0", "request_valid_ms: 0", "lift.request_valid_ms"),
    ("cancel_moment_task]", "del_contact]", "always_allowed", "always_allowed"),
    ("failure_percent: 50", "failure_percent: 0", "failure_percent: 0", "breaker.corp_api.failure_percent"),
    ("late_ms: 21600000", "late_ms: 21600000\n    late_ms: 1", "late_ms: 1", "late_ms"),
]


@pytest.mark.parametrize(("old", "new", "where", "field"), WRONG, ids=[f"{w[3]}-{n}" for n, w in enumerate(WRONG)])
def test_a_contradiction_is_refused_with_line_and_field(old: str, new: str, where: str, field: str) -> None:
    assert TEXT.count(old) == 1
    text = TEXT.replace(old, new)
    message = refused(text)
    found = re.match(r"guard\.yaml:(\d+): (.*?): ", message)
    assert found is not None, message
    lines = [number for number, line in enumerate(text.splitlines(), 1) if where in line]
    assert int(found[1]) in lines, message
    assert found[2].removeprefix("versions[0].") == field, message


def test_versions_must_ascend() -> None:
    head, versions = TEXT.split("versions:\n", 1)
    twice = f"{head}versions:\n{versions}{versions}"
    assert "versions[1].effective_from: versions must have ascending dates" in refused(twice)
    later = versions.replace("2000-01-01", "2027-01-01").replace('"2026-11"', '"2027-01"')
    book = parse_rules(f"{head}versions:\n{versions}{later.replace('trip_at: 100', 'trip_at: 90')}", "guard.yaml")
    midnight = 1_798_732_800_000  # 2027-01-01 00:00 in Shanghai
    assert book.at(midnight - 1).rules.score.trip_at == 100
    assert book.at(midnight).rules.score.trip_at == 90


@pytest.mark.parametrize("text", ["", "versions: []", "- 1", "versions: [", "a: \x00", "versions: 2026-13-45"])
def test_what_is_no_rules_file_is_refused(text: str) -> None:
    assert refused(text).startswith("guard.yaml:1: ")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="cannot be read"):
        load_rules(tmp_path / "none.yaml")


def test_every_code_the_rules_know_is_one_the_platform_documents() -> None:
    documented = load_error_tables(schemas_dir() / "rules" / "wecom-errors.yaml").at(wall_ms()).codes
    rules = load_rules(FILE).at(wall_ms())
    breaker = rules.rules.breaker
    assert set(rules.errcodes) | breaker.counts_corp_api | breaker.counts_staff <= documented


def test_nothing_in_the_rules_could_give_a_corp_a_bonus() -> None:
    rules = load_rules(FILE).at(wall_ms()).rules
    assert all(sign.points >= 0 for sign in rules.signals)
    assert all(step.percent <= 100 for step in rules.score.allowance)
    assert "certified" not in {field for part in (rules, rules.score) for field in part.__struct_fields__}


@pytest.mark.parametrize(("member", "level"), [("", "corp"), ("mei", "staff"), ("~autumn", "campaign")])
def test_what_stands_for_the_staff_member_says_whose_account_it_is(member: str, level: str) -> None:
    assert level_of(member) == level
