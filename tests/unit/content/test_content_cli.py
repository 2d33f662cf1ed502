"""``siyu content``: the exit status says whether a message may go out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from siyu.cli import app

AT = ("--at", "2026-11-22T12:00")


@pytest.fixture
def run() -> CliRunner:
    return CliRunner()


@pytest.mark.parametrize(
    ("text", "status"),
    [("您好，有新品到店", 0), ("转发到朋友圈领红包", 1), ("看 http://shop.example.com/a", 3), ("", 0)],
)
def test_the_exit_status_says_clean_block_or_warn(run: CliRunner, text: str, status: int) -> None:
    assert run.invoke(app, ["content", "lint", text, *AT]).exit_code == status


def test_a_text_comes_from_standard_input_too(run: CliRunner) -> None:
    result = run.invoke(app, ["content", "lint", "-", *AT], input="转发到朋友圈领红包")

    assert result.exit_code == 1
    assert "induced_sharing.reward_for_share" in result.stdout


def test_findings_for_programs(run: CliRunner) -> None:
    result = run.invoke(app, ["content", "lint", "震惊！", "--json", *AT])

    (finding,) = json.loads(result.stdout)
    assert finding["rule_id"] == "clickbait.shock"
    assert finding["span"] == [0, 2]
    assert finding["matched"] == "震惊"


def test_a_payload_of_an_endpoint(run: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"transfer_success_msg": "加薇信"}', encoding="utf-8")
    result = run.invoke(
        app,
        ["content", "lint", "--file", str(tmp_path / "p.json"), "--endpoint", "externalcontact/transfer_customer", *AT],
    )

    assert result.exit_code == 1
    assert "$.transfer_success_msg" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["lint"],
        ["lint", "a", "--channel", "post"],
        ["lint", "a", "--at", "soon"],
        ["lint", "--file", "nowhere.json"],
        ["lint", "--file", "nowhere.json", "--endpoint", "message/send"],
        ["lint", "--file", "nowhere.json", "--endpoint", "externalcontact/mark_tag"],
        ["lint", "a", "--rules", "nowhere"],
        ["measure", "--corpus", "nowhere"],
    ],
)
def test_what_cannot_run_says_so(run: CliRunner, arguments: list[str]) -> None:
    assert run.invoke(app, ["content", *arguments]).exit_code == 2


def test_the_rules_in_force(run: CliRunner) -> None:
    result = run.invoke(app, ["content", "rules", "--json", *AT])

    listed = json.loads(result.stdout)
    assert {"id", "family", "severity", "effective_from", "source"} <= listed["rules"][0].keys()
    assert run.invoke(app, ["content", "rules", *AT]).stdout.count("\n") > len(listed["rules"])


def test_the_measurement(run: CliRunner) -> None:
    figures = json.loads(run.invoke(app, ["content", "measure", "--json", *AT]).stdout)

    assert figures["all"]["recall"] >= 0.95
    assert "false alarms" in run.invoke(app, ["content", "measure", *AT]).stdout
