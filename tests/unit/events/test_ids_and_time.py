"""Ids hash the meaning and nothing else; business days are Shanghai's."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from siyu.events import business_time, ids


@given(st.lists(st.text(max_size=6), max_size=4), st.lists(st.text(max_size=6), max_size=4))
def test_two_lists_of_parts_share_an_id_only_when_they_are_equal(left: list[str], right: list[str]) -> None:
    assert (ids.stable_id(*left) == ids.stable_id(*right)) is (left == right)


def test_customers_who_scan_one_code_in_the_same_second_are_different_events() -> None:
    event_ids = {
        ids.contact_event_id("c", "add", "s", f"wm{n}", 1_700_000_000_000, "poster", f"code{n}") for n in range(50)
    }
    assert len(event_ids) == 50


def test_an_id_is_the_same_for_ever() -> None:
    """Ids are stored: a change of the function would make every event new. This value was computed once."""
    assert ids.stable_id("a", 1, "") == "5f3216a823309cb8cb2fcac4025c1806"


@given(st.integers(700_000_000_000, 4_000_000_000_000))
def test_the_business_day_is_the_shanghai_date(time_ms: int) -> None:
    shanghai = datetime.fromtimestamp(time_ms / 1000, ZoneInfo("Asia/Shanghai"))
    assert business_time.business_day(time_ms) == shanghai.date().isoformat()
    start = business_time.business_day_start_ms(time_ms)
    assert start <= time_ms < start + 86_400_000
    assert business_time.business_day(start) == business_time.business_day(time_ms)
    assert business_time.business_day(start - 1) != business_time.business_day(time_ms)
