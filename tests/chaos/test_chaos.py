"""Faults at random, under load, change no figure; and the same run without transactions says that they would.

Played as `make chaos` plays it, with a broker of its own each: the broker is one of the targets.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import chaos
import pytest
from chaos_plan import Kind

from deploy.local import launch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def play(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status and the summary, its last line. What it said is shown when the test fails."""
    command = [sys.executable, chaos.__file__, "--base-dir", str(folder), *arguments]
    played = subprocess.run(launch.command(*command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(played.stdout)
    assert played.returncode in (0, 1), "the run has no result"
    return played.returncode, json.loads(played.stdout.splitlines()[-1])


def test_a_minute_of_faults_changes_nothing(tmp_path: Path) -> None:
    status, summary = play(tmp_path, "--seed", "1", "--short")
    assert (status, summary["problems"]) == (0, [])
    assert {summary["audit"][kind] for kind in ("lost", "double", "different")} == {0}
    assert summary["faults"].keys() == set(get_args(Kind)), "the seed stands for faults of every kind"
    assert summary["events_sent"] > 60 * 300
    acts = summary["acts"]
    assert {acts[kind] for kind in ("reached_not_once", "outcomes_repeated", "without_outcome", "over")} == {0}
    assert all(acts[kind] > 0 for kind in ("sends", "people", "tags", "welcomes", "in_doubt")), acts
    assert list(tmp_path.iterdir()) == [], "a clean run leaves nothing behind"


def test_without_transactions_the_same_faults_do_change_figures(tmp_path: Path) -> None:
    status, summary = play(tmp_path, "--seed", "523", "--seconds", "12", "--without-transactions")
    assert (status, summary["clean"]) == (1, False)
    assert summary["problems"] == ["the audit found differences", "the topics show differences"]
    assert sum(summary["audit"][kind] for kind in ("lost", "double", "different")) > 0
    assert summary["topics"]["days_not_their_sum"] > 0
    (kept,) = tmp_path.iterdir()
    assert {"plan.txt", "audit.json", "log"} <= {path.name for path in kept.iterdir()}
