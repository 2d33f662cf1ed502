from typing import TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.control import ControlError, ControlTable
from siyu.actions.control import KEPT_MS, cancel_record, pause_record, resume_record, settle_record
from siyu.events import CodecError, ControlRecord, codec

NOW_MS = 1_790_000_000_000


class Words(TypedDict):
    reason: str
    author: str


WORDS: Words = {"reason": "a wrong text", "author": "li"}


def give(table: ControlTable, *records: ControlRecord) -> None:
    for record in records:
        table.apply(record.id.encode(), codec().encode(record))


def pause(corp_id: str = "", lane: str = "", campaign_id: str = "", expires_ms: int = 0) -> ControlRecord:
    return pause_record(
        corp_id=corp_id, lane=lane, campaign_id=campaign_id, **WORDS, wall_ms=NOW_MS, expires_ms=expires_ms
    )


def cancel(wall_ms: int = NOW_MS, **scope: str) -> ControlRecord:
    return cancel_record(**scope, **WORDS, wall_ms=wall_ms)


def resume(record: ControlRecord) -> ControlRecord:
    return resume_record(record, **WORDS, wall_ms=NOW_MS + 1)


@pytest.fixture
def table() -> ControlTable:
    return ControlTable()


def test_nothing_is_paused_cancelled_or_settled_before_somebody_says_so(table: ControlTable) -> None:
    assert table.paused("ww1", "bulk", "summer", NOW_MS) is None
    assert table.cancelled("a1", corp_id="ww1", lane="bulk") is None
    assert table.settled("a1") is None
    assert table.subscribe().drain() == []


@pytest.mark.parametrize(
    ("record", "held"),
    [
        (pause(), {("ww1", "bulk", "summer"), ("ww1", "bulk", ""), ("ww1", "welcome", ""), ("ww2", "bulk", "summer")}),
        (pause(corp_id="ww1"), {("ww1", "bulk", "summer"), ("ww1", "bulk", ""), ("ww1", "welcome", "")}),
        (pause(lane="bulk"), {("ww1", "bulk", "summer"), ("ww1", "bulk", ""), ("ww2", "bulk", "summer")}),
        (pause(campaign_id="summer"), {("ww1", "bulk", "summer"), ("ww2", "bulk", "summer")}),
        (pause("ww1", "bulk", "summer"), {("ww1", "bulk", "summer")}),
        (pause("ww2", "welcome"), set()),
    ],
)
def test_a_pause_holds_what_fits_and_an_empty_field_fits_everything(
    table: ControlTable, record: ControlRecord, held: set[tuple[str, str, str]]
) -> None:
    give(table, record)
    actions = [("ww1", "bulk", "summer"), ("ww1", "bulk", ""), ("ww1", "welcome", ""), ("ww2", "bulk", "summer")]
    assert {
        (corp_id, lane, campaign_id)
        for corp_id, lane, campaign_id in actions
        if table.paused(corp_id, lane, campaign_id, NOW_MS) == record.id
    } == held


def test_a_pause_ends_at_its_time_and_when_it_is_taken_back(table: ControlTable) -> None:
    one, other = pause(corp_id="ww1", expires_ms=NOW_MS + 10), pause(lane="bulk")
    give(table, one, other)
    assert table.paused("ww1", "sync", "", NOW_MS + 9) == one.id
    assert table.paused("ww1", "sync", "", NOW_MS + 10) is None
    assert table.paused("ww1", "bulk", "", NOW_MS + 10) == other.id
    assert table.pauses(NOW_MS + 10) == [other]
    give(table, resume(other))
    assert table.paused("ww1", "bulk", "", NOW_MS + 10) is None


def test_pausing_twice_is_one_pause_and_the_newest_record_of_it_counts(table: ControlTable) -> None:
    give(table, pause(corp_id="ww1"), pause(corp_id="ww1", expires_ms=NOW_MS + 10))
    assert len(table) == 1
    assert table.paused("ww1", "bulk", "", NOW_MS + 10) is None


def test_the_cancel_of_an_action_is_about_that_action(table: ControlTable) -> None:
    record = cancel(action_id="a1", corp_id="ww1")
    give(table, record)
    assert table.cancelled("a1", corp_id="ww1", appended_ms=NOW_MS + 1) == record
    assert table.cancelled("a2", corp_id="ww1") is None


def test_the_cancel_of_a_corp_takes_back_what_there_was_and_that_of_a_campaign_whatever_comes(
    table: ControlTable,
) -> None:
    corp, campaign = cancel(corp_id="ww1", lane="bulk"), cancel(campaign_id="summer")
    give(table, corp, campaign)

    def cancelled(corp_id: str, lane: str, campaign_id: str, appended_ms: int) -> ControlRecord | None:
        return table.cancelled("a", corp_id=corp_id, lane=lane, campaign_id=campaign_id, appended_ms=appended_ms)

    assert cancelled("ww1", "bulk", "", NOW_MS) == corp
    assert cancelled("ww1", "bulk", "", NOW_MS + 1) is None
    assert cancelled("ww1", "sync", "", NOW_MS) is None
    assert cancelled("ww2", "bulk", "summer", NOW_MS + 1) == campaign
    assert cancelled("ww1", "bulk", "summer", NOW_MS + 1) == campaign


def test_a_verdict_is_the_newest_one(table: ControlTable) -> None:
    first = settle_record(action_id="a1", verdict="done", **WORDS, wall_ms=NOW_MS)
    second = settle_record(action_id="a1", verdict="not_done", **WORDS, wall_ms=NOW_MS)
    give(table, first, second)
    assert table.settled("a1") == second
    assert table.settled("a2") is None
    assert table.cancelled("a1") is None


def test_a_shard_learns_of_what_holds_and_then_of_every_change_once(table: ControlTable) -> None:
    before, after = pause(corp_id="ww1"), cancel(action_id="a1")
    give(table, before)
    changes = table.subscribe()
    assert changes.drain() == [before]
    assert changes.drain() == []
    give(table, after, resume(before))
    assert changes.drain() == [after, resume(before)]
    give(table, before, after, resume(before))
    assert changes.drain() == [after, resume(before)]


def test_what_a_shard_did_not_look_at_is_bounded_by_what_there_is(table: ControlTable) -> None:
    changes = table.subscribe()
    for number in range(1000):
        give(table, pause(corp_id="ww1", expires_ms=NOW_MS + 1 + number))
    (newest,) = changes.drain()
    assert newest.expires_ms == NOW_MS + 1000


def test_a_shard_that_left_is_told_no_more(table: ControlTable) -> None:
    changes = table.subscribe()
    table.unsubscribe(changes)
    give(table, pause())
    assert changes.drain() == []


def test_a_tombstone_takes_back_whatever_it_was(table: ControlTable) -> None:
    records = [
        pause(corp_id="ww1"),
        cancel(action_id="a1"),
        cancel(campaign_id="summer"),
        settle_record(action_id="a1", verdict="done", **WORDS, wall_ms=NOW_MS),
    ]
    give(table, *records)
    changes = table.subscribe()
    changes.drain()
    for record in records:
        table.apply(record.id.encode(), None)
    table.apply(b"never heard of", None)
    assert len(table) == 0
    assert changes.drain() == [msgspec.structs.replace(record, active=0) for record in records]


def test_what_has_expired_is_forgotten_and_what_has_not_is_kept(table: ControlTable) -> None:
    for number in range(100):
        give(table, cancel(action_id=f"a{number}"))
    give(table, pause(corp_id="ww1", expires_ms=NOW_MS + 1), pause(corp_id="ww2"), cancel(campaign_id="summer"))
    assert table.forget(NOW_MS + 1) == 1
    assert table.forget(NOW_MS + KEPT_MS - 1) == 0
    assert table.cancelled("a1") is not None
    assert table.forget(NOW_MS + KEPT_MS + 60_000) == 100
    assert table.cancelled("a1") is None
    assert table.paused("ww2", "bulk", "", NOW_MS + KEPT_MS + 60_000) is not None
    assert table.cancelled("a1", campaign_id="summer") is not None
    assert len(table) == 2


@pytest.mark.parametrize(
    ("record", "change", "says"),
    [
        (pause(), {"id": ""}, "id is empty"),
        (pause(), {"active": 2}, "active"),
        (pause(), {"expires_ms": -1}, "expires_ms"),
        (pause(), {"lane": "fast"}, "lane"),
        (pause(), {"action_id": "a1"}, "action_id"),
        (cancel(action_id="a1"), {"action_id": ""}, "names nothing"),
        (settle_record(action_id="a1", verdict="done", **WORDS, wall_ms=0), {"action_id": ""}, "action_id"),
        (settle_record(action_id="a1", verdict="done", **WORDS, wall_ms=0), {"verdict": "perhaps"}, "verdict"),
    ],
)
def test_a_record_that_says_nothing_an_executor_could_do_is_refused(
    table: ControlTable, record: ControlRecord, change: dict[str, object], says: str
) -> None:
    give(table, pause(corp_id="ww9"))
    changes = table.subscribe()
    changes.drain()
    with pytest.raises(ControlError, match=says):
        give(table, msgspec.structs.replace(record, **change))
    assert len(table) == 1
    assert changes.drain() == []


def test_a_record_under_another_key_and_bytes_that_are_none_are_refused(table: ControlTable) -> None:
    with pytest.raises(ControlError, match="key"):
        table.apply(b"another", codec().encode(pause()))
    with pytest.raises(CodecError):
        table.apply(b"another", b"no record")
    assert len(table) == 0


RECORDS = st.lists(
    st.one_of(
        st.builds(pause, corp_id=st.sampled_from(["", "ww1"]), lane=st.sampled_from(["", "bulk"])),
        st.builds(pause, corp_id=st.sampled_from(["", "ww1"])).map(resume),
        st.builds(cancel, action_id=st.sampled_from(["a1", "a2"])),
        st.builds(cancel, action_id=st.sampled_from(["a1", "a2"])).map(resume),
        st.builds(cancel, campaign_id=st.sampled_from(["summer", "winter"])),
    ),
    max_size=20,
)


@given(records=RECORDS)
def test_a_process_that_begins_after_the_topic_was_compacted_comes_to_the_same_answer(
    records: list[ControlRecord],
) -> None:
    whole, compacted = ControlTable(), ControlTable()
    give(whole, *records)
    give(compacted, *{record.id: record for record in records}.values())
    assert len(whole) == len(compacted)
    for action in ("a1", "a2"):
        assert whole.cancelled(action) == compacted.cancelled(action)
    for lane in ("bulk", "sync"):
        assert (whole.paused("ww1", lane, "", NOW_MS) is None) == (compacted.paused("ww1", lane, "", NOW_MS) is None)
