"""An admission of the past, evaluated again."""

import json
from typing import Any

import msgspec
import pytest

from services.executor.governor import Claim, Governor
from siyu.events import LedgerEntry, schemas_dir
from siyu.limits import LimitRegistry, load_registry
from siyu.limits.explain import ExplainError, explain

ADMITTED = 1_795_233_600_000
TAG = "externalcontact/mark_tag"


@pytest.fixture(scope="module")
def registry() -> LimitRegistry:
    return load_registry(schemas_dir() / "limits")


def level(scope: str, registry: LimitRegistry, endpoint: str = TAG, *, who: str = "") -> dict[str, Any]:
    """What the governor writes of one level, by the limits in force then."""
    in_force = registry.at(ADMITTED)
    return {
        "level": "|".join(part for part in (scope, "ww1", who, endpoint) if part),
        "limits": [
            {
                "id": limit.id,
                "window": str(limit.window),
                "used": 7,
                "amount": limit.amount,
                "allowed": in_force.allowed(limit, "bulk", 50),
                "allowance_percent": 50,
            }
            for limit in in_force.of("ww1", endpoint)
            if limit.scope == scope
        ],
    }


def entry(*levels: dict[str, Any], lane: str = "bulk", endpoint: str = TAG) -> LedgerEntry:
    return LedgerEntry(
        action_id="a1",
        parent_id="",
        lane="bulk",
        corp_id="ww1",
        endpoint=endpoint,
        subject="ww1|zhang",
        staff_id="zhang",
        customer_id="",
        campaign_id="",
        reason="r",
        caused_by="c",
        state="ended",
        status="done",
        detail="",
        errcode=0,
        calls=1,
        message_id="",
        created_ms=1,
        not_before_ms=0,
        deadline_ms=0,
        due_ms=0,
        updated_at_ms=1,
        admitted_at_ms=ADMITTED,
        limits_revision="x",
        admission=json.dumps({"at_ms": ADMITTED, "lane": lane, "levels": levels}).encode(),
        memory=b"",
    )


def limit_of(level: dict[str, Any], name: str) -> dict[str, Any]:
    return next(limit for limit in level["limits"] if limit["id"] == name)


def test_the_same_limits_give_the_same_answer(registry: LimitRegistry) -> None:
    corp, staff = level("corp_api", registry), level("staff_api", registry, who="zhang")
    found = explain(entry(corp, staff), registry.at(ADMITTED))
    assert found.same
    assert {(x.scope, x.id, x.allowed, x.allowed_again) for x in found.limits} == {
        ("corp_api", "corp_api_concurrency", 4, 4),
        ("corp_api", "pace_concurrency", 1, 1),
        ("corp_api", "pace_corp_ten_seconds", 800, 800),
        ("corp_api", "corp_api_minute", 8_000, 8_000),
        ("corp_api", "corp_api_hour", 120_000, 120_000),
        ("staff_api", "pace_staff_mark_tag", 500, 500),
    }


def test_pacing_and_refusals_only_lower_what_was_allowed(registry: LimitRegistry) -> None:
    corp = level("corp_api", registry)
    minute = limit_of(corp, "corp_api_minute")
    minute["allowed"] -= 3_000
    assert explain(entry(corp), registry.at(ADMITTED)).same
    minute["allowed"] = 8_001
    assert not explain(entry(corp), registry.at(ADMITTED)).same


def test_another_amount_and_another_limit_are_seen(registry: LimitRegistry) -> None:
    corp = level("corp_api", registry)
    minute = limit_of(corp, "corp_api_minute")
    minute |= {"amount": 2_000, "allowed": 1_600}
    assert [x.id for x in explain(entry(corp), registry.at(ADMITTED)).limits if not x.same] == ["corp_api_minute"]
    minute |= {"id": "gone"}
    found = explain(entry(corp), registry.at(ADMITTED))
    assert [(x.id, x.amount_again) for x in found.limits if not x.same] == [("gone", None)]
    assert found.left_out == ("corp_api_minute",)


def test_a_limit_of_the_corp_that_nobody_looked_at_is_a_difference(registry: LimitRegistry) -> None:
    corp = level("corp_api", registry)
    corp["limits"].remove(limit_of(corp, "corp_api_hour"))
    found = explain(entry(corp), registry.at(ADMITTED))
    assert (found.same, found.left_out) == (False, ("corp_api_hour",))


def test_a_call_of_another_endpoint_is_evaluated_by_its_own_limits(registry: LimitRegistry) -> None:
    """What became of a send is asked elsewhere, and the newest admission is of that call."""
    asked = level("corp_api", registry, "externalcontact/get_groupmsg_task")
    found = explain(entry(asked, endpoint="externalcontact/add_msg_template"), registry.at(ADMITTED))
    assert found.same
    assert {x.endpoint for x in found.limits} == {"externalcontact/get_groupmsg_task"}


def test_a_level_that_counts_persons_is_of_the_same_endpoint(registry: LimitRegistry) -> None:
    sent = level("app_api", registry, "message/send", who="1000002")
    sent["level"] += "#persons"
    corp = level("corp_api", registry, "message/send")
    found = explain(entry(corp, sent, endpoint="message/send"), registry.at(ADMITTED))
    assert found.same
    assert ("app_api", "app_message_day") in {(x.scope, x.id) for x in found.limits}


@pytest.mark.parametrize("endpoint", ["externalcontact/mark_tag", "message/send", "externalcontact/add_moment_task"])
def test_what_the_governor_wrote_down_is_evaluated_to_the_same(registry: LimitRegistry, endpoint: str) -> None:
    in_force = registry.at(ADMITTED)
    governor = Governor(in_force, egress="out", corps=["ww1"], load=lambda _: None, allowance=lambda *_: 50)
    path = governor.path(Claim("ww1", "1000002", endpoint, staff_id="zhang", customer_id="customer-7"))
    assert governor.reserve(path, "bulk", ADMITTED) == 0
    written = msgspec.structs.replace(entry(endpoint=endpoint), admission=governor.explain(path, "bulk", ADMITTED))
    found = explain(written, in_force)
    assert found.same
    assert {x.id for x in found.limits} >= {x.id for x in in_force.of("ww1", endpoint) if x.scope == "corp_api"}
    assert "zhang" not in repr(found)


def test_nobody_is_named(registry: LimitRegistry) -> None:
    staff = level("staff_api", registry, who="zhang")
    assert "zhang" not in repr(explain(entry(level("corp_api", registry), staff), registry.at(ADMITTED)))


@pytest.mark.parametrize("admission", [b"", b"{}", b'{"at_ms": 1, "lane": "fast", "levels": []}'])
def test_an_admission_that_cannot_be_read_says_so(registry: LimitRegistry, admission: bytes) -> None:
    with pytest.raises(ExplainError, match="action a1: its admission cannot be read"):
        explain(msgspec.structs.replace(entry(), admission=admission), registry.at(ADMITTED))
    with pytest.raises(ExplainError, match="names no limit"):
        explain(entry(), registry.at(ADMITTED))
