"""A folder of limits that is complete and small, and what tests put beside it."""

from collections.abc import Callable
from pathlib import Path

import pytest

BASE = """\
limits:
  - id: minute
    scope: corp_api
    window: sliding 1 min
    amount: 100
    block: window
    effective_from: 2020-01-01
    source: a page
    confidence: seen
  - id: at_once
    scope: corp_api
    window: concurrent
    amount: 5
    block: none
    effective_from: 2020-01-01
    source: a page
    confidence: seen
headroom:
  - {effective_from: 2020-01-01, welcome: 1.0, urgent: 0.95, bulk: 0.8, sync: 0.8, source: s, confidence: c}
margins:
  - effective_from: 2020-01-01
    edge_ms: 5000
    rate_after_error: 0.5
    rate_step: 0.1
    rate_step_ms: 60000
    rate_floor: 0.1
    slow_once_per_ms: 1000
    slow_recovery_ms: 60000
    source: s
    confidence: c
"""


@pytest.fixture
def base_text() -> str:
    return BASE


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder("limits: …")` → a folder of the base limits and, beside them, this file `more.yaml`."""

    def write(more: str = "", *, base: str = BASE) -> Path:
        made = tmp_path / "limits"
        made.mkdir(exist_ok=True)
        (made / "base.yaml").write_text(base, encoding="utf-8")
        (made / "more.yaml").write_text(more, encoding="utf-8")
        return made

    return write
