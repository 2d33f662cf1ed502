"""The shipped rules, loaded once."""

from __future__ import annotations

import pytest

from siyu.content import ContentRules, RuleSet, default_folder, load_rules

NOVEMBER_22 = 1_795_276_800_000
"""2026-11-22 00:00 in Asia/Shanghai."""


@pytest.fixture(scope="session")
def shipped() -> ContentRules:
    return load_rules(default_folder())


@pytest.fixture(scope="session")
def rules(shipped: ContentRules) -> RuleSet:
    return shipped.at(NOVEMBER_22)
