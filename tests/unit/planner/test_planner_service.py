"""The planner as a process: its topics exist, and a rule that cannot be used needs a person before anything is read."""

import json
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.planner import service
from services.planner.rules import RuleError
from services.planner.settings import Settings
from siyu.events import schemas_dir
from siyu.ops.processor import NEEDS_A_PERSON
from siyu.ops.topics import load_topics


def test_its_topics_are_declared() -> None:
    declared = load_topics(schemas_dir() / "topics.yaml", "local")
    p = service.processor(Settings(), CollectorRegistry())
    assert {*p.inputs, *p.outputs, p.changelog, p.dead_letters} <= declared.keys()


def test_a_rule_that_cannot_be_used_ends_it_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> None:
        raise RuleError(f"{path.name}: no version")

    monkeypatch.setattr(service, "load_welcome_rule", refuse)
    monkeypatch.setattr("siyu.ops.processor.stop_event", threading.Event)
    assert service.run(Settings()) == NEEDS_A_PERSON
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["event"], line["error_detail"]) == ("rule_refused", "welcome.yaml: no version")
