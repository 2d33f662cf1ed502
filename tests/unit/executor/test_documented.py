"""The executor's pages say what the executor is: a name that a page uses exists, and what exists is explained."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.executor.domain import DETAILS
from services.executor.metrics import ExecutorMetrics
from services.executor.settings import Settings
from services.executor.settle import SEARCHES
from siyu.events.types import LedgerState
from siyu.wecom.endpoints import ENDPOINTS

ROOT = Path(__file__).parents[3]
README = (ROOT / "services/executor/README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs/executor.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("services/*/README.md")),
]
METRIC = re.compile(r"siyu_executor_[a-z0-9_]+")
METRIC_WITH_LABELS = re.compile(r"`(siyu_executor_[a-z0-9_]+)(?:\{([a-z_,]+)\})?`")
SETTING = re.compile(r"SIYU_[A-Z_]+")
CODE = re.compile(r"`([^`\n]+)`")


def _metrics() -> dict[str, tuple[str, ...]]:
    """Name as it is scraped, and labels."""
    found = {}
    for metric in vars(ExecutorMetrics(CollectorRegistry())).values():
        name = metric._name + ("_total" if metric._type == "counter" else "")
        found[name] = tuple(metric._labelnames)
    return found


def _section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def _settings() -> set[str]:
    return {f"SIYU_{name.upper()}" for name in Settings.model_fields}


def _endings() -> set[str]:
    """What the table of ends calls a detail: code in its second column."""
    rows = [row.split(" | ", 1) for row in _section(GUIDE, "How actions end").splitlines() if row.startswith("| ")]
    named = {name for _, second in rows[1:] for name in CODE.findall(second)}
    return named - {"dlq.executor", "fail_list"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_metric_of_the_executor_that_a_page_names_exists(page: Path) -> None:
    assert set(METRIC.findall(page.read_text(encoding="utf-8"))) <= set(_metrics())


def test_every_metric_is_in_the_readme_with_its_labels() -> None:
    named = {
        name: tuple((labels or "").split(",")) if labels else ()
        for name, labels in METRIC_WITH_LABELS.findall(_section(README, "Metrics").split("Worth an alarm", 1)[0])
    }
    assert named == _metrics()


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    assert set(SETTING.findall(README)) == _settings()


def test_every_setting_has_a_meaning() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_guide_names_settings_that_exist() -> None:
    assert set(SETTING.findall(GUIDE)) <= _settings()


@pytest.mark.parametrize(
    ("setting", "default"),
    [("metrics_port", "9105"), ("session_timeout_ms", "6,000"), ("stop_grace_seconds", "10"), ("remember_days", "7")],
)
def test_defaults_in_the_readme_are_the_defaults(setting: str, default: str) -> None:
    assert f"{Settings.model_fields[setting].default:,g}".replace(",", "") == default.replace(",", "")
    assert f"`SIYU_{setting.upper()}` ({default})" in README


def test_every_detail_of_an_outcome_is_in_the_guide_and_no_other() -> None:
    assert _endings() == set(DETAILS)


def test_every_state_of_the_ledger_is_in_the_guide() -> None:
    told = _section(GUIDE, "The ledger")
    assert [state for state in get_args(LedgerState) if state not in told] == []


def test_the_guide_tells_of_every_call_that_creates_whether_an_endpoint_tells_what_became_of_it() -> None:
    rows = [row for row in _section(GUIDE, "In doubt").splitlines() if row.startswith("| `")]
    told = {endpoint: "nothing tells" not in row for row in rows for endpoint in CODE.findall(row.split(" | ", 1)[0])}
    creating = {path for path, endpoint in ENDPOINTS.items() if endpoint.repeat == "create"}
    assert told == {endpoint: endpoint in SEARCHES for endpoint in creating}


def test_the_topics_of_the_readme_exist() -> None:
    topics = yaml.safe_load((ROOT / "schemas/topics.yaml").read_text(encoding="utf-8"))["topics"]
    table = README.split("|---|---|\n", 1)[1].split("\n| calls", 1)[0]
    named = {code for code in CODE.findall(table) if re.fullmatch(r"[a-z]+(\.[a-z]+)?", code)}
    assert named == {name for name in topics if name in named}
    assert {"actions.welcome", "actions.urgent", "actions.bulk", "actions.sync", "action.outcomes"} <= named


def test_the_guide_has_a_diagram_for_admission_ledger_and_doubt() -> None:
    for title in ("Admission", "The ledger", "In doubt"):
        assert _section(GUIDE, title).count("```mermaid") == 1


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in (ROOT / "docs/executor.md", ROOT / "services/executor/README.md", ROOT / "docs/runbooks/README.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
