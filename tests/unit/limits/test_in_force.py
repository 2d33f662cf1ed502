"""What is in force is a step function of time, and the same as what a search through all versions finds."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from siyu.limits import LimitRegistry, parse_registry
from siyu.limits.loading import moment_text
from siyu.wecom.endpoints import ENDPOINTS

HOUR = 3_600_000
START = 1_800_000_000_000
SPAN = 400
"""Moments are hours after START."""
ENDPOINT_NAMES = ["externalcontact/get", "externalcontact/mark_tag", "message/send"]
CORPS = ["ww1", "ww2"]

COMMON: dict[str, Any] = {"source": "s", "confidence": "c"}
ALWAYS: dict[str, Any] = COMMON | {"effective_from": "1970-01-02"}
BASE: list[dict[str, Any]] = [
    ALWAYS | {"id": "at_once", "scope": "corp_api", "window": "concurrent", "amount": 5, "block": "none"},
    ALWAYS | {"id": "hour", "scope": "corp_api", "window": "sliding 1 h", "amount": 9_999, "block": "window"},
]
SHARES = {"welcome": 1.0, "urgent": 0.9, "bulk": 0.8, "sync": 0.7}
MARGINS = {
    "edge_ms": 1,
    "rate_after_error": 0.5,
    "rate_step": 0.1,
    "rate_step_ms": 1,
    "rate_floor": 0.1,
    "slow_once_per_ms": 1,
    "slow_recovery_ms": 1,
}


def registry_of(limits: list[dict[str, Any]], headroom: list[dict[str, Any]] | None = None) -> LimitRegistry:
    document = {
        "limits": BASE + limits,
        "headroom": [ALWAYS | SHARES, *(headroom or [])],
        "margins": [ALWAYS | MARGINS],
    }
    return parse_registry(json.dumps(document).encode())


def at_hour(hour: int) -> int:
    return START + hour * HOUR


HOURS = {moment_text(at_hour(hour)): at_hour(hour) for hour in range(-1, SPAN + 60)}


@st.composite
def versions(draw: st.DrawFn, name: str, **fields: Any) -> list[dict[str, Any]]:
    """Versions of one limit in any order: they begin at different hours, and the last may end."""
    begins = sorted(draw(st.sets(st.integers(0, SPAN), min_size=1, max_size=5)))
    made = [
        COMMON
        | {"id": name, "scope": "corp_api", "window": "sliding 1 min", "block": "window"}
        | fields
        | {"amount": draw(st.integers(1, 1000)), "effective_from": moment_text(at_hour(hour))}
        for hour in begins
    ]
    for entry, following in zip(made, begins[1:], strict=False):
        if draw(st.booleans()):
            entry["effective_until"] = moment_text(at_hour(following))
    if draw(st.booleans()):
        made[-1]["effective_until"] = moment_text(at_hour(begins[-1] + draw(st.integers(1, 50))))
    return draw(st.permutations(made))


@st.composite
def families(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A base limit and overrides of every rank, dated independently."""
    entries = draw(versions("base", but_not=draw(st.sampled_from([[], ["message/send"]]))))
    ranks: list[tuple[str, dict[str, Any]]] = [
        ("of_corp", {"corps": ["ww1"]}),
        ("of_endpoint", {"endpoints": ["externalcontact/mark_tag"]}),
        ("of_both", {"corps": ["ww1"], "endpoints": ["externalcontact/mark_tag"]}),
    ]
    for name, fields in ranks:
        if draw(st.booleans()):
            entries += draw(versions(name, overrides="base", **fields))
    return entries


def naive_version(entries: list[dict[str, Any]], name: str, moment: int) -> dict[str, Any] | None:
    """The version with the latest begin that has begun and not ended, by looking at all of them."""
    begun = [e for e in entries if e["id"] == name and HOURS[e["effective_from"]] <= moment]
    if not begun:
        return None
    newest = max(begun, key=lambda e: HOURS[e["effective_from"]])
    ends = newest.get("effective_until")
    return None if ends and HOURS[ends] <= moment else newest


def naive_amount(entries: list[dict[str, Any]], corp: str, endpoint: str, moment: int) -> int | None:
    """Of the family `base`: the endpoint's and corp's own, else the endpoint's, else the corp's, else the base's."""
    for name in ("of_both", "of_endpoint", "of_corp", "base"):
        found = naive_version(entries, name, moment)
        if (
            found is not None
            and corp in found.get("corps", [corp])
            and endpoint in found.get("endpoints", [endpoint])
            and endpoint not in found.get("but_not", [])
        ):
            amount: int = found["amount"]
            return amount
    return None


moments = st.integers(at_hour(-1), at_hour(SPAN + 59)) | st.integers(-1, SPAN + 59).map(at_hour)
near_moments = moments.flatmap(lambda moment: st.sampled_from([moment - 1, moment, moment + 1]))


@given(families(), st.lists(near_moments, min_size=1, max_size=10), st.sampled_from(CORPS))
@settings(max_examples=150)
def test_what_holds_is_what_a_search_through_all_versions_finds(
    entries: list[dict[str, Any]], asked: list[int], corp: str
) -> None:
    registry = registry_of(entries)
    for moment in asked:
        moment = max(at_hour(-1), moment)
        in_force = registry.at(moment)
        for endpoint in ENDPOINT_NAMES:
            held = [x.amount for x in in_force.of(corp, endpoint) if x.family == "base"]
            wanted = naive_amount(entries, corp, endpoint, moment)
            assert held == ([] if wanted is None else [wanted])


@given(families(), near_moments)
@settings(max_examples=100)
def test_nothing_changes_between_changes_and_something_does_at_each(entries: list[dict[str, Any]], moment: int) -> None:
    registry = registry_of(entries)
    in_force = registry.at(moment)
    assert in_force.as_of_ms <= moment
    assert registry.at(in_force.as_of_ms) == in_force
    coming = registry.next_change_ms(moment)
    if coming is None:
        assert registry.at(at_hour(10 * SPAN)) == in_force
    else:
        assert moment < coming
        assert registry.at(coming - 1) == in_force
        assert registry.at(coming).as_of_ms == coming


@given(families())
@settings(max_examples=50)
def test_the_order_of_entries_means_nothing(entries: list[dict[str, Any]]) -> None:
    registry, backwards = registry_of(entries), registry_of(entries[::-1])
    assert registry == backwards
    assert parse_registry(registry.to_json()) == registry
    assert registry.revision == backwards.revision


def test_a_change_at_noon_holds_from_noon_to_the_millisecond() -> None:
    noon = 1_795_233_600_000  # 2026-11-21 12:00 in Shanghai
    entry = COMMON | {"id": "minute", "scope": "corp_api", "window": "sliding 1 min", "block": "window"}
    registry = registry_of(
        [
            entry | {"amount": 10, "effective_from": "2026-01-01"},
            entry | {"amount": 20, "effective_from": "2026-11-21T12:00:00+08:00"},
        ]
    )

    def amounts(moment: int) -> list[int]:
        return [x.amount for x in registry.at(moment).of("ww1", "externalcontact/get") if x.id == "minute"]

    assert registry.next_change_ms(noon - 1) == noon
    assert (amounts(noon - 1), amounts(noon)) == ([10], [20])


def test_headroom_and_margins_before_their_first_version_are_the_first() -> None:
    registry = registry_of([], [COMMON | SHARES | {"bulk": 0.5, "effective_from": "2026-01-01"}])
    assert registry.at(0).headroom["bulk"] == 0.8
    assert registry.at(at_hour(0)).headroom["bulk"] == 0.5
    assert registry.at(0).margins == registry.at(at_hour(0)).margins


def test_an_endpoint_nobody_knows_has_the_base_limits() -> None:
    in_force = registry_of([]).at(START)
    assert [x.id for x in in_force.of("ww1", "externalcontact/nothing")] == ["at_once", "hour"]
    assert "externalcontact/nothing" not in ENDPOINTS
