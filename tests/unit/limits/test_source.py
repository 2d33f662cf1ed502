"""Limits change without a deploy, at their date, and never to something that cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from siyu.events import ConfigRecord, codec
from siyu.limits import LimitRegistry, LimitSource, load_registry
from siyu.limits.source import NEWEST, records_of

NOON = 1_795_233_600_000  # 2026-11-21 12:00 in Shanghai


@pytest.fixture
def refused() -> list[str]:
    return []


@pytest.fixture
def seed(folder: Callable[..., Path]) -> LimitRegistry:
    return load_registry(folder())


@pytest.fixture
def changed(folder: Callable[..., Path], seed: LimitRegistry) -> LimitRegistry:
    """50 a minute from noon on."""
    return load_registry(
        folder(
            "limits:\n  - {id: minute, scope: corp_api, window: sliding 1 min, amount: 50, block: window, "
            "effective_from: 2026-11-21T12:00:00+08:00, source: s, confidence: c}\n"
        )
    )


def records(registry: LimitRegistry) -> tuple[ConfigRecord, ConfigRecord]:
    return records_of(registry, author="a", reason="r", written_at_ms=1)


def minute(source: LimitSource, now_ms: int) -> int:
    return next(x.amount for x in source.current(now_ms).of("ww1", "externalcontact/get") if x.id == "minute")


def test_the_seed_holds_until_something_is_offered(seed: LimitRegistry, refused: list[str]) -> None:
    source = LimitSource(seed, refused.append)
    assert source.current(NOON).revision == seed.revision
    assert refused == []


def test_a_change_dated_noon_is_taken_over_before_and_holds_from_noon(
    seed: LimitRegistry, changed: LimitRegistry, refused: list[str]
) -> None:
    source = LimitSource(seed, refused.append)
    for record in records(changed):
        source.offer(record)
    assert [minute(source, NOON + by) for by in (-1, 0, 1, -1)] == [100, 50, 50, 100]
    assert source.registry == changed
    assert refused == []


def test_between_changes_it_is_the_same_object(seed: LimitRegistry, changed: LimitRegistry, refused: list[str]) -> None:
    source = LimitSource(seed, refused.append)
    source.offer(records(changed)[1])
    assert source.current(NOON) is source.current(NOON + 10**9)
    assert source.current(NOON) is not source.current(NOON - 1)


def test_history_alone_puts_nothing_in_force(seed: LimitRegistry, changed: LimitRegistry, refused: list[str]) -> None:
    source = LimitSource(seed, refused.append)
    source.offer(records(changed)[0])
    assert source.registry == seed
    assert refused == []


def test_decisions_of_older_revisions_are_evaluated_with_what_they_were_made_with(
    seed: LimitRegistry, changed: LimitRegistry, refused: list[str]
) -> None:
    source = LimitSource(seed, refused.append)
    then = source.current(NOON)
    source.offer(records(changed)[1])
    assert source.at(seed.revision, NOON) == then
    assert source.at(changed.revision, NOON) == source.current(NOON) != then
    assert source.at("never", NOON) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": b"{}"}, "headroom: no version"),
        ({"value": b"\xff"}, "not JSON"),
        ({"revision": "0123456789abcdef"}, "says revision 0123456789abcdef, its content is"),
        ({"id": "another"}, "its id is neither registry nor its revision"),
    ],
)
def test_what_cannot_be_used_leaves_the_last_good_one(
    seed: LimitRegistry, changed: LimitRegistry, refused: list[str], change: dict[str, object], message: str
) -> None:
    source = LimitSource(seed, refused.append)
    source.offer(records(changed)[1])
    source.offer(msgspec.structs.replace(records(seed)[1], **change))
    assert source.registry == changed
    assert len(refused) == 1
    assert message in refused[0]


def test_an_inconsistent_registry_is_refused_by_its_field(
    seed: LimitRegistry, changed: LimitRegistry, refused: list[str]
) -> None:
    document = json.loads(changed.to_json())
    document["limits"].append(document["limits"][0])
    source = LimitSource(seed, refused.append)
    source.offer(msgspec.structs.replace(records(changed)[1], value=json.dumps(document).encode()))
    assert source.registry == seed
    assert refused == [
        f"limits JSON $.limits[{len(document['limits']) - 1}].effective_from: effective_from: at_once has two versions "
        "from 2020-01-01"
    ]


def test_a_deleted_key_and_other_kinds_change_nothing(
    seed: LimitRegistry, changed: LimitRegistry, refused: list[str]
) -> None:
    source = LimitSource(seed, refused.append)
    source.offer(records(changed)[1])
    source.offer(msgspec.structs.replace(records(seed)[1], kind="rules"))
    assert refused == []
    source.offer(None)
    assert source.registry == changed
    assert refused == ["the limits in force were deleted from the topic config; the last good ones stay"]


def test_records_travel_as_events(changed: LimitRegistry) -> None:
    history, newest = records(changed)
    assert (history.id, newest.id) == (changed.revision, NEWEST)
    assert codec().decode_as(ConfigRecord, codec().encode(newest)) == newest
