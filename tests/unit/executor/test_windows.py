"""A series of buckets never counts less than the calls, and hardly more; calendar periods are those of Shanghai."""

from __future__ import annotations

import random
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.windows import BUCKETS, UNITS_MASK, History, next_period, period_start, periods_at, span_of
from siyu.events.business_time import SHANGHAI

NOW = 1_800_050_000_000


@given(st.integers(0, 1 << 40), st.sampled_from(((700,), (2_000, 9_000), (500, 5_000, 60_000))), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_window_counts_what_ended_in_it_and_at_most_a_bucket_more(
    seed: int, lengths: tuple[int, ...], ahead: bool
) -> None:
    pick = random.Random(seed)
    spans = tuple(span_of(length) for length in lengths)
    history, ends, now = History(), [], NOW
    for _ in range(1_500):
        now += pick.choice((0, 0, 1, 3, 20, 200))
        ended = now + (pick.choice((-150, 0, 40, 400)) if ahead and pick.random() < 0.1 else 0)
        units = pick.choice((1, 1, 1, 5))
        history.add(ended, units, spans[0][1])
        ends.append((ended, units))
        if pick.random() < 0.3:
            for counted, (length, bucket) in zip(history.used(now, spans), spans, strict=True):
                truth = sum(u for end, u in ends if end + length >= now)
                at_most = sum(u for end, u in ends if end + length + bucket + spans[0][1] >= now)
                assert truth <= counted <= at_most


def test_memory_is_bounded_by_buckets_whatever_was_called() -> None:
    spans = (span_of(60_000), span_of(3_600_000))
    history = History()
    for at in range(0, 2 * 3_600_000, 120):
        history.add(NOW + at, 5, spans[0][1])
        if at % 2_400 == 0:
            history.used(NOW + at, spans)
    assert 150_000 <= history.used(NOW + at, spans)[1] <= 150_000 * 1.005
    assert len(history.entries) <= 2 * (BUCKETS + 2)
    assert len(history.pack()) < 6_000


@pytest.mark.parametrize("length", [60_000, 3_600_000])
def test_rounding_takes_less_than_half_a_percent_of_a_window(length: int) -> None:
    assert span_of(length)[1] <= 0.005 * length


def test_it_says_when_units_will_have_left_a_window() -> None:
    spans = (span_of(2_400),)  # buckets of 10 ms
    history = History()
    for at in (0, 100, 200):
        history.add(NOW + at, 2, 10)
    assert history.freed_at(1, 0, spans, NOW + 300) == NOW + 10 + 2_400
    assert history.freed_at(3, 0, spans, NOW + 300) == NOW + 110 + 2_400
    assert history.freed_at(7, 0, spans, NOW + 300) == 0
    assert history.freed_at(1, 0, spans, NOW + 10 + 2_400) == NOW + 110 + 2_400
    assert history.used(NOW + 110 + 2_399, spans) == [4]
    assert history.used(NOW + 110 + 2_400, spans) == [2]


def test_more_units_than_an_entry_holds_take_several() -> None:
    spans = (span_of(1_000),)
    history = History()
    history.add(NOW, 2 * UNITS_MASK + 5, spans[0][1])
    assert history.used(NOW, spans) == [2 * UNITS_MASK + 5]


def test_other_spans_see_the_same_calls() -> None:
    history = History()
    for at in range(100):
        history.add(NOW + 50 * at, 1, span_of(1_000)[1])
    assert history.used(NOW + 5_000, (span_of(1_000), span_of(6_000)))[1] == 100
    history.rebuild()
    assert history.used(NOW + 5_000, (span_of(3_000), span_of(6_000))) == [60, 100]


def test_what_was_packed_is_read_again_and_nothing_else() -> None:
    spans = (span_of(1_000), span_of(6_000))
    history, again = History(), History()
    for at in range(30):
        history.add(NOW + 37 * at, 3, spans[0][1])
    again.unpack(history.pack())
    assert again.used(NOW + 1_200, spans) == history.used(NOW + 1_200, spans)
    with pytest.raises(ValueError):
        again.unpack(history.pack()[:-3])
    with pytest.raises(ValueError, match="order"):
        again.unpack(history.pack()[-8:] + history.pack()[:8])


@given(st.integers(0, 16 * 366 * 86_400).map(lambda after: datetime.fromtimestamp(1_577_836_800 + after, SHANGHAI)))
def test_periods_are_natural_days_and_months_of_shanghai(at: datetime) -> None:
    at_ms = int(at.timestamp() * 1_000)
    day = datetime.fromtimestamp(period_start("day", at_ms) / 1_000, SHANGHAI)
    month = datetime.fromtimestamp(period_start("month", at_ms) / 1_000, SHANGHAI)
    following = datetime.fromtimestamp(next_period("month", period_start("month", at_ms)) / 1_000, SHANGHAI)
    assert day == at.replace(hour=0, minute=0, second=0)
    assert month == day.replace(day=1)
    assert (following.year, following.month, following.day) == (
        (at.year + 1, 1, 1) if at.month == 12 else (at.year, at.month + 1, 1)
    )


def test_near_midnight_a_call_counts_on_both_sides() -> None:
    midnight = 1_800_028_800_000
    yesterday, tomorrow = (midnight - 86_400_000,), (midnight,)
    assert periods_at("day", midnight - 501, 500) == (yesterday, midnight - 500)
    assert periods_at("day", midnight - 500, 500) == (yesterday + tomorrow, midnight + 500)
    assert periods_at("day", midnight + 499, 500) == (yesterday + tomorrow, midnight + 500)
    assert periods_at("day", midnight + 500, 500) == (tomorrow, midnight + 86_399_500)
