"""What is shown of the quotas: every corp-wide figure, of single persons only what says something, and no customer."""

from __future__ import annotations

import json

import pytest

from siyu.actions import quota
from siyu.actions.model import hashed
from siyu.events import QuotaState, schemas_dir
from siyu.limits import load_registry

NOW = 1_790_913_600_000
ENDPOINT = "externalcontact/mark_tag"


def state(level: str, corp_id: str = "ww1", frozen_until_ms: int = 0, view: bytes | None = None) -> QuotaState:
    shown = {
        "windows": [
            {
                "id": "corp_api_minute",
                "window": "sliding 1 min",
                "used": 7,
                "amount": 10_000,
                "lanes": {"welcome": 10_000, "urgent": 9_500, "bulk": 8_000, "sync": 8_000},
                "frozen_until_ms": frozen_until_ms,
                "rate_percent": 50,
            }
        ],
        "in_flight": 2,
    }
    return QuotaState(level, corp_id, ENDPOINT, 3, b"\x00", json.dumps(shown).encode() if view is None else view, NOW)


CORP, STAFF, CUSTOMER = (
    state(f"corp_api|ww1|{ENDPOINT}"),
    state(f"staff_api|ww1|s1|{ENDPOINT}"),
    state(f"customer_api|ww1|wmSecret|{ENDPOINT}", frozen_until_ms=NOW + 1),
)


def test_a_level_tells_use_shares_freeze_and_rate() -> None:
    level = quota.read_level(CUSTOMER)
    (window,) = level.windows
    assert (window.used, window.amount, window.lanes["bulk"], window.rate_percent) == (7, 10_000, 8_000, 50)
    assert window.frozen_until_ms == NOW + 1
    assert quota.read_level(CORP).windows[0].frozen_until_ms is None
    assert (level.in_flight, level.shard, level.updated_at_ms) == (2, 3, NOW)


def test_single_levels_are_left_out_unless_frozen_or_asked_for() -> None:
    states = [CUSTOMER, STAFF, CORP]
    found = quota.select(states, at_ms=NOW, business_ms=NOW)
    assert [quota.scope_of(level.level) for level in found.levels] == ["corp_api", "customer_api"]
    assert found.left_out == 1
    assert len(quota.select(states, at_ms=NOW, business_ms=NOW, everything=True).levels) == 3
    thawed = quota.select(states, at_ms=NOW, business_ms=NOW + 1)
    assert [quota.scope_of(level.level) for level in thawed.levels] == ["corp_api"]


def test_a_customer_is_named_only_when_people_were_asked_for() -> None:
    (hidden,) = quota.select([CUSTOMER], at_ms=NOW, business_ms=NOW).levels
    assert "wmSecret" not in hidden.level
    assert hidden.level == f"customer_api|ww1|{hashed('wmSecret')}|{ENDPOINT}"
    assert "wmSecret" not in quota.masked("customer_api|wmSecret")
    (shown,) = quota.select([CUSTOMER], at_ms=NOW, business_ms=NOW, people=True).levels
    assert shown.level == CUSTOMER.level


def test_a_corp_sees_its_own_levels_and_those_that_all_share() -> None:
    shared, other = state("ip_api|10.0.0.1|x", corp_id=""), state("corp_api|ww2|x", corp_id="ww2")
    found = quota.select([CORP, shared, other], at_ms=NOW, business_ms=NOW, corp_id="ww1")
    assert {level.corp_id for level in found.levels} == {"ww1", ""}
    assert quota.select([CORP], at_ms=NOW, business_ms=NOW, endpoint="message/send").levels == []


@pytest.mark.parametrize("view", [b"", b"{}", b'{"windows": 1}', b"\xff"])
def test_a_view_that_is_none_is_an_error_that_quotes_nothing(view: bytes) -> None:
    with pytest.raises(ValueError, match="not readable"):
        quota.read_level(state("corp_api|ww1|x", view=view))


def test_what_the_governor_writes_can_be_read() -> None:
    """They meet in the topic only; what one writes the other must understand."""
    from services.executor.governor import Claim, Governor
    from siyu.actions.store import read_admission

    limits = load_registry(schemas_dir() / "limits").at(NOW)
    governor = Governor(limits, egress="10.0.0.1", corps=["ww1"], load=lambda _: None, allowance=lambda *_: 100)
    path = governor.path(Claim("ww1", "1000002", ENDPOINT, "s1", "wmSecret"))
    assert governor.reserve(path, "bulk", NOW) == 0
    assert governor.begin(path, "bulk", NOW)
    admission = read_admission(governor.explain(path, "bulk", NOW), "r1")
    assert (admission.lane, admission.at_ms) == ("bulk", NOW)
    assert any(limit.used == 1 for level in admission.levels for limit in level.limits)
    levels = [
        quota.read_level(QuotaState(d.level, d.corp_id, d.endpoint, 0, d.state, d.view, NOW))
        for d in governor.take_dirty(NOW, NOW + 10_000)
        if d.view
    ]
    assert {level.level.partition("|")[0] for level in levels} >= {"corp_api"}
    assert all(0 <= window.used <= window.amount for level in levels for window in level.windows)
    assert any(window.used == 1 for level in levels for window in level.windows)
