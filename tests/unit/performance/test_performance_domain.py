"""A staff member's days are the sums of their deltas, in whatever order the deltas came."""

from collections import defaultdict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.performance.domain import COUNTERS, StaffMember, apply
from siyu.events import STAFF_COUNTERS, StaffDaySnapshot, StaffDelta, codec

DAYS = ("2025-12-31", "2026-01-01", "2026-01-02")


def delta(day: str, counters: dict[str, int], time_ms: int = 1_000, number: int = 0) -> StaffDelta:
    return StaffDelta(
        corp_id="ww1",
        staff_id="s1",
        day=day,
        counters=counters,
        event_time_ms=time_ms,
        received_at_ms=time_ms + 500,
        caused_by=f"event-{number}",
    )


changes = st.dictionaries(st.sampled_from(STAFF_COUNTERS), st.integers(-(10**12), 10**12), min_size=1)
deltas = st.lists(
    st.builds(delta, st.sampled_from(DAYS), changes, st.integers(1, 10**13), st.integers(0, 99)),
    min_size=1,
    max_size=25,
)


def play(events: list[StaffDelta]) -> tuple[StaffMember, list[StaffDaySnapshot]]:
    state: StaffMember | None = None
    snapshots = []
    for event in events:
        before = msgspec.msgpack.encode(state)
        new, snapshot = apply(state, event)
        assert msgspec.msgpack.encode(state) == before, "the state given is never touched"
        assert (snapshot.received_at_ms, snapshot.caused_by) == (event.received_at_ms, event.caused_by)
        assert codec().decode(codec().encode(snapshot)) == snapshot
        snapshots.append(snapshot)
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=StaffMember)
        assert state == new, "what the store keeps is all there is"
    assert state is not None
    return state, snapshots


@given(deltas)
@settings(max_examples=300, deadline=None)
def test_the_last_snapshot_of_a_day_is_the_sum_of_its_deltas(events: list[StaffDelta]) -> None:
    _, snapshots = play(events)
    last = {s.day: s for s in snapshots}
    sums: dict[str, dict[str, int]] = {e.day: defaultdict(int) for e in events}
    for event in events:
        for name, amount in event.counters.items():
            sums[event.day][name] += amount
    assert {d: {n: getattr(s, n) for n in STAFF_COUNTERS} for d, s in last.items()} == {
        d: {n: amounts[n] for n in STAFF_COUNTERS} for d, amounts in sums.items()
    }
    for d, snapshot in last.items():
        assert snapshot.event_time_ms == max(e.event_time_ms for e in events if e.day == d)


@given(deltas)
@settings(max_examples=200, deadline=None)
def test_each_delta_raises_the_revision_of_its_own_day_by_one(events: list[StaffDelta]) -> None:
    _, snapshots = play(events)
    for day in DAYS:
        revisions = [s.revision for s in snapshots if s.day == day]
        assert revisions == list(range(1, len(revisions) + 1))


@given(deltas, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_of_deltas_does_not_matter(events: list[StaffDelta], rng) -> None:
    shuffled = list(events)
    rng.shuffle(shuffled)

    def content(events: list[StaffDelta]) -> dict[str, StaffDaySnapshot]:
        last = {s.day: s for s in play(events)[1]}
        return {day: msgspec.structs.replace(s, received_at_ms=0, caused_by="") for day, s in last.items()}

    assert content(events) == content(shuffled)


def test_a_day_that_came_to_nothing_stays_with_zeros() -> None:
    _, snapshots = play(
        [delta(DAYS[0], {"orders": 1, "gross_fen": 500}), delta(DAYS[0], {"orders": -1, "gross_fen": -500})]
    )
    assert snapshots[-1].revision == 2
    assert all(getattr(snapshots[-1], name) == 0 for name in STAFF_COUNTERS)


@pytest.mark.parametrize(
    "event",
    [
        delta(DAYS[0], {"orders": 1, "likes": 1}),
        delta(DAYS[0], {}),
        delta("20260101", {"orders": 1}),
        delta("2026-02-30", {"orders": 1}),
        delta("", {"orders": 1}),
    ],
)
def test_a_delta_that_cannot_count_is_refused_without_a_word_of_its_data(event: StaffDelta) -> None:
    with pytest.raises(ValueError) as refused:
        apply(None, event)
    for value in ("likes", "20260101", "2026-02-30", "s1"):
        assert value not in str(refused.value)


def test_stored_positions_of_counters_stay_what_they_are() -> None:
    # A state written today must read the same after any upgrade: this list may only grow at its end.
    assert COUNTERS[:13] == (
        "adds",
        "half_adds",
        "lost_by_customer",
        "lost_by_staff",
        "lost_by_transfer",
        "orders",
        "gross_fen",
        "refunds",
        "refunded_fen",
        "unknown_customer_orders",
        "unknown_customer_gross_fen",
        "unmatched_refunds",
        "unmatched_refund_fen",
    )
