"""What the governor admits, when it says to ask again, how it follows refusals, what it leaves to the next owner."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.executor.governor import AFTER_FINISH, Claim, Governor, Path, StateError
from siyu.events.types import Lane
from siyu.limits import Calendar, Concurrent, Limit, LimitSet, Margins, Sliding

MIDNIGHT = 1_800_028_800_000  # 2027-01-16 00:00 in Shanghai
NOON = MIDNIGHT + 43_200_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
MARGINS = Margins(
    edge_ms=500,
    rate_after_error=0.5,
    rate_step=0.25,
    rate_step_ms=10_000,
    rate_floor=0.1,
    slow_once_per_ms=1_000,
    slow_recovery_ms=60_000,
)
HEADROOM: dict[Lane, float] = {"welcome": 1.0, "urgent": 0.95, "bulk": 0.8, "sync": 0.8}
CLAIM = Claim("c1", "1", "tag", "anna", "x", "m1")


def limit(id: str, amount: int, window: Any, **more: Any) -> Limit:
    values: dict[str, Any] = {
        "scope": "corp_api",
        "endpoints": (),
        "corps": (),
        "counts": "calls",
        "block": "window",
        "paced": False,
        "enforce": "admit",
        "ours": False,
        "source": "a test",
        "confidence": "certain",
        "note": "",
        "family": id,
    }
    return Limit(id=id, amount=amount, window=window, **{**values, **more})


def limit_set(*limits: Limit) -> LimitSet:
    return LimitSet(revision="test", as_of_ms=0, limits=limits, headroom=HEADROOM, margins=MARGINS)


def governor(
    *limits: Limit,
    load: Callable[[str], bytes | None] = lambda level: None,
    allowance: Callable[[str, str], int] = lambda corp, staff: 100,
) -> Governor:
    return Governor(limit_set(*limits), egress="10.0.0.1", corps=("c1", "c2"), load=load, allowance=allowance)


def admitted(g: Governor, path: Path, now: int, lane: Lane = "welcome", most: int = 100_000) -> int:
    """How many calls are admitted at once."""
    count = 0
    while count < most and g.reserve(path, lane, now) == 0:
        count += 1
    return count


def call(g: Governor, path: Path, now: int, count: int = 1, lane: Lane = "welcome") -> None:
    for _ in range(count):
        assert g.reserve(path, lane, now) == 0
        assert g.begin(path, lane, now)
        g.finish(path, now)


def test_a_call_that_one_level_refuses_takes_nothing_anywhere() -> None:
    g = governor(limit("corp", 10, Sliding(MINUTE)), limit("customer", 1, Sliding(MINUTE), scope="customer_api"))
    mine, other = g.path(CLAIM), g.path(replace(CLAIM, customer_id="y"))
    call(g, mine, NOON)
    assert g.reserve(mine, "welcome", NOON) > NOON
    assert g.narrow
    assert admitted(g, other, NOON, most=2) == 1
    assert [view.windows[0].used for view in g.usage(NOON)] == [2, 1, 1]


def test_a_lane_fills_only_its_share_whoever_used_it() -> None:
    g = governor(limit("corp", 100, Sliding(MINUTE)))
    path = g.path(CLAIM)
    assert admitted(g, path, NOON, "sync") == 80
    assert admitted(g, path, NOON, "bulk") == 0
    assert admitted(g, path, NOON, "urgent") == 15
    assert admitted(g, path, NOON, "welcome") == 5


def test_a_lane_always_gets_one_of_a_small_limit() -> None:
    g = governor(limit("corp", 1, Sliding(MINUTE)))
    assert admitted(g, g.path(CLAIM), NOON, "bulk") == 1


def test_calls_at_the_same_time_are_taken_when_a_call_begins() -> None:
    g = governor(limit("corp", 100, Sliding(MINUTE)), limit("at_once", 5, Concurrent()))
    path = g.path(CLAIM)
    assert admitted(g, path, NOON, "bulk", most=20) == 20
    assert [g.begin(path, "bulk", NOON) for _ in range(5)] == [True] * 4 + [False]
    assert g.begin(path, "welcome", NOON)
    g.finish(path, NOON)
    assert not g.begin(path, "bulk", NOON)
    assert g.begin(path, "welcome", NOON)


def test_who_is_refused_learns_when_asking_again_succeeds() -> None:
    g = governor(limit("minute", 4, Sliding(MINUTE)), limit("hour", 6, Sliding(HOUR)))
    path = g.path(CLAIM)
    call(g, path, NOON, 2)
    call(g, path, NOON + 20_000, 2)
    again = g.reserve(path, "welcome", NOON + 30_000)
    assert NOON + MINUTE < again <= NOON + MINUTE + 251
    assert g.reserve(path, "welcome", again - 1) == again
    call(g, path, again, 2)
    again = g.reserve(path, "welcome", again + MINUTE)
    assert NOON + HOUR < again <= NOON + HOUR + 15_000
    assert g.reserve(path, "welcome", again) == 0


def test_while_only_calls_under_way_stand_in_the_way_their_end_is_waited_for() -> None:
    g = governor(limit("minute", 2, Sliding(MINUTE)))
    path = g.path(CLAIM)
    assert admitted(g, path, NOON, most=2) == 2
    assert g.reserve(path, "welcome", NOON + HOUR) == AFTER_FINISH
    g.give_back(path, NOON + HOUR)
    assert g.reserve(path, "welcome", NOON + HOUR) == 0


def test_time_never_runs_backwards() -> None:
    g = governor(limit("minute", 2, Sliding(MINUTE)))
    path = g.path(CLAIM)
    call(g, path, NOON + 10_000)
    assert g.reserve(path, "welcome", NOON) == 0
    g.finish(path, NOON)  # by the clock of a moment ago
    assert g.reserve(path, "welcome", NOON + 65_000) > NOON + 65_000


def test_persons_are_counted_where_a_limit_counts_persons() -> None:
    g = governor(
        limit("corp", 100, Sliding(MINUTE)),
        limit("persons", 50, Calendar("day"), scope="app_api", counts="persons"),
    )
    path = g.path(replace(CLAIM, persons=20))
    assert admitted(g, path, NOON) == 2
    assert g.reserve(path, "welcome", NOON) == AFTER_FINISH or g.reserve(path, "welcome", NOON) > NOON
    assert admitted(g, g.path(replace(CLAIM, persons=10)), NOON) == 1


def test_a_days_quota_is_spread_for_who_can_wait_and_free_for_who_cannot() -> None:
    g = governor(limit("day", 8_640, Calendar("day"), paced=True))
    path = g.path(CLAIM)
    six = MIDNIGHT + DAY // 4
    count = admitted(g, path, six, "bulk")
    assert abs(count - 0.8 * 8_640 / 4) <= 1
    again = g.reserve(path, "bulk", six)
    assert six < again <= six + 12_500 + MARGINS.edge_ms
    assert g.reserve(path, "bulk", again) == 0
    assert admitted(g, path, again) == 8_640 - count - 1
    for _ in range(8_640):
        g.finish(path, again)
    assert g.reserve(path, "welcome", again) == MIDNIGHT + DAY + MARGINS.edge_ms


@given(st.integers(0, 1 << 30), st.sampled_from((Calendar("day"), Calendar("month"))))
@settings(max_examples=40, deadline=None)
def test_near_midnight_a_call_counts_on_both_sides(seed: int, window: Calendar) -> None:
    """Whichever moment the platform's midnight is, within ``edge_ms`` of ours: no period has too many calls."""
    pick = random.Random(seed)
    first = MIDNIGHT - 15 * DAY if window.unit == "month" else MIDNIGHT  # 2027-01-01
    amount = pick.choice((3, 5, 12))
    g = governor(limit("quota", amount, window))
    path, now = g.path(CLAIM), first - pick.choice((4_000, 900, 600, 520))
    running: list[int] = []
    calls: list[tuple[int, int]] = []
    while now < first + 4_000:
        now += pick.choice((1, 30, 130))
        if running and pick.random() < 0.5:
            started = running.pop(pick.randrange(len(running)))
            calls.append((started, now))
            g.finish(path, now)
        elif pick.random() < 0.7:
            if g.reserve(path, "welcome", now) == 0:
                running.append(now)
        else:
            for dirty in g.take_dirty(now, now + 1_000):
                # Its owner dies; its calls end at any time until the last moment.
                calls += [(started, now + pick.randrange(1_001)) for started in running]
                running = []
                g = governor(limit("quota", amount, window))
                g.restore(dirty.level, dirty.state, now)
                path = g.path(CLAIM)
    calls += [(started, now) for started in running]
    for edge in range(first - MARGINS.edge_ms + 1, first + MARGINS.edge_ms, 50):
        assert sum(start < edge for start, _ in calls) <= amount
        assert sum(end >= edge for _, end in calls) <= amount
    assert len(calls) >= amount


def test_a_limit_error_freezes_the_shortest_window_first_then_the_next_and_lowers_the_rate() -> None:
    g = governor(limit("minute", 100, Sliding(MINUTE)), limit("hour", 1_000, Sliding(HOUR)))
    path = g.path(CLAIM)
    end = g.freeze(path, NOON)
    assert end == NOON + MINUTE
    assert g.freeze(path, NOON + 10) == end  # calls in flight err together
    assert g.reserve(path, "welcome", NOON + 10) == end
    assert admitted(g, path, end) == 50
    later = g.freeze(path, end + 1_000)
    assert later == end + 1_000 + HOUR
    assert [view.windows[0].frozen_until_ms for view in g.usage(end + 1_000)] == [later]
    for _ in range(50):
        g.give_back(path, later)
    assert admitted(g, path, later) == 25
    assert admitted(g, path, later + 10_000) == 25  # a step of 25 % of the full rate
    assert admitted(g, path, later + 30_000) == 50
    assert g.freeze(path, later + 2 * HOUR) == later + 2 * HOUR + MINUTE  # long after: from the beginning


@pytest.mark.parametrize(
    ("block", "window", "end"),
    [
        ("day", Calendar("day"), MIDNIGHT + DAY + MARGINS.edge_ms),
        ("days_30", Calendar("month"), NOON + 30 * DAY),
        ("window", Sliding(5_000), NOON + 5_000),
    ],
)
def test_a_freeze_lasts_as_the_platform_blocks(block: str, window: Any, end: int) -> None:
    g = governor(limit("only", 100, window, block=block))
    path = g.path(CLAIM)
    assert g.freeze(path, NOON) == end
    assert g.reserve(path, "bulk", NOON) == end
    assert not g.begin(path, "bulk", NOON)


def test_a_wait_that_is_told_holds_the_message_and_not_its_corp() -> None:
    g = governor(limit("corp", 100, Sliding(MINUTE)), limit("message", 3, Sliding(DAY), scope="message_api"))
    path = g.path(CLAIM)
    assert g.freeze(path, NOON, DAY) == NOON + DAY
    assert g.reserve(path, "bulk", NOON) == NOON + DAY
    assert g.reserve(g.path(replace(CLAIM, message_id="m2")), "bulk", NOON) == 0
    assert admitted(g, path, NOON + DAY) == 3


def test_a_concurrency_error_takes_one_away_once_a_second_and_a_minute_brings_it_back() -> None:
    g = governor(limit("corp", 100, Sliding(MINUTE)), limit("at_once", 4, Concurrent()))
    path = g.path(CLAIM)

    def together(now: int) -> int:
        assert admitted(g, path, now, most=6) == 6
        began = sum(g.begin(path, "welcome", now) for _ in range(6))
        for index in range(6):
            g.give_back(path, now, began=index < began)
        return began

    for at in (0, 5, 900):
        g.slow(path, NOON + at)
    assert together(NOON + 900) == 3
    for at in (1_000, 2_000, 3_000, 4_000):
        g.slow(path, NOON + at)
    assert together(NOON + 4_000) == 1
    assert together(NOON + 4_000 + 60_000) == 2
    assert together(NOON + 4_000 + 200_000) == 4


def test_the_guard_shrinks_our_paces_and_stops_them_at_zero() -> None:
    allowed = {"": 100, "anna": 100}
    g = governor(
        limit("theirs", 100, Sliding(MINUTE)),
        limit("pace", 10, Sliding(MINUTE), scope="staff_api", ours=True),
        allowance=lambda corp, staff: allowed[staff],
    )
    path = g.path(CLAIM)
    allowed["anna"] = 30
    assert admitted(g, path, NOON) == 3
    allowed["anna"] = 100
    assert admitted(g, path, NOON + 1_000) == 7
    allowed[""] = 0
    assert admitted(g, path, NOON + 2 * HOUR) == 0
    assert json.loads(g.explain(path, "bulk", NOON + 2 * HOUR))["levels"][1]["limits"][0]["allowance_percent"] == 0


def test_a_corp_at_zero_reserves_nothing() -> None:
    g = governor(
        limit("corp", 100, Sliding(MINUTE)), limit("at_once", 4, Concurrent(), ours=True), allowance=lambda *_: 0
    )
    path = g.path(CLAIM)
    assert g.reserve(path, "welcome", NOON) == NOON + 5_000


def test_a_dated_change_applies_at_once_and_what_was_used_stays_used() -> None:
    wide, tight = limit("minute", 10, Sliding(MINUTE)), limit("minute", 4, Sliding(MINUTE))
    g = governor(wide)
    path = g.path(CLAIM)
    call(g, path, NOON, 8)
    g.change(limit_set(tight), NOON + 1)
    assert g.reserve(path, "welcome", NOON + 1) > NOON + 1
    g.change(limit_set(wide), NOON + 2)
    assert admitted(g, path, NOON + 2) == 2


def test_a_window_that_is_new_knows_what_longer_ones_remember() -> None:
    hour = limit("hour", 100, Sliding(HOUR))
    g = governor(hour)
    path = g.path(CLAIM)
    call(g, path, NOON, 6)
    g.change(limit_set(limit("minute", 10, Sliding(MINUTE)), hour), NOON + 1_000)
    assert admitted(g, path, NOON + 1_000) == 4


def test_calls_under_way_count_at_a_level_that_a_change_begins() -> None:
    corp = limit("corp", 10, Sliding(MINUTE))
    g = governor(corp)
    path = g.path(CLAIM)
    assert admitted(g, path, NOON, most=2) == 2
    g.change(limit_set(corp, limit("staff", 3, Sliding(MINUTE), scope="staff_api")), NOON)
    assert admitted(g, path, NOON) == 1
    for _ in range(3):
        g.finish(path, NOON)
    g.change(limit_set(corp), NOON)
    assert admitted(g, path, NOON) == 7


def test_endpoints_that_are_named_together_are_counted_together() -> None:
    g = governor(limit("both", 3, Sliding(MINUTE), endpoints=("list", "get")))
    call(g, g.path(replace(CLAIM, endpoint="list")), NOON, 2)
    assert admitted(g, g.path(replace(CLAIM, endpoint="get")), NOON) == 1


def test_an_egress_that_its_corps_cannot_fill_is_not_counted() -> None:
    corp = limit("corp", 10, Sliding(MINUTE))
    assert len(governor(corp, limit("ip", 20, Sliding(MINUTE), scope="ip_api")).path(CLAIM).steps) == 1
    assert len(governor(corp, limit("ip", 19, Sliding(MINUTE), scope="ip_api")).path(CLAIM).steps) == 2


def test_the_next_owner_counts_what_was_reserved_to_the_last_possible_moment() -> None:
    limits = (limit("minute", 5, Sliding(MINUTE)), limit("at_once", 4, Concurrent()))
    g = governor(*limits)
    path = g.path(CLAIM)
    call(g, path, NOON, 2)
    assert admitted(g, path, NOON, most=2) == 2
    (dirty,) = g.take_dirty(NOON, NOON + 7_000)
    heir = governor(*limits)
    heir.restore(dirty.level, dirty.state, NOON + 100)
    taken = heir.path(CLAIM)
    assert admitted(heir, taken, NOON + 100) == 1
    assert [view.windows[1].used for view in heir.usage(NOON + 100)] == [5]
    heir.give_back(taken, NOON + 100)
    assert admitted(heir, taken, NOON + 7_000 + MINUTE) == 3
    assert admitted(heir, taken, NOON + 7_000 + MINUTE + 251) == 2


def test_the_next_owner_keeps_freezes_rates_and_steps() -> None:
    limits = (
        limit("minute", 100, Sliding(MINUTE)),
        limit("hour", 1_000, Sliding(HOUR)),
        limit("once", 4, Concurrent()),
    )
    g = governor(*limits)
    path = g.path(CLAIM)
    g.slow(path, NOON)
    g.freeze(path, NOON)
    end = g.freeze(path, NOON + MINUTE + 5)
    (dirty,) = g.take_dirty(NOON + MINUTE + 10, NOON + MINUTE + 20)
    heir = governor(*limits, load={dirty.level: dirty.state}.get)
    assert heir.reserve(heir.path(CLAIM), "bulk", NOON + 2 * MINUTE) == end
    assert [heir.usage(end)[0].windows[index].rate_percent for index in (1, 2)] == [25, 25]
    assert heir.usage(NOON + 2 * MINUTE)[0].windows[0].lanes["welcome"] == 4  # the step down is over by then


def test_a_state_is_written_before_its_calls_start_and_ends_are_written_in_time() -> None:
    g = governor(limit("minute", 5, Sliding(MINUTE)), limit("staff", 5, Sliding(MINUTE), scope="staff_api"))
    path = g.path(CLAIM)
    assert g.take_dirty(NOON, NOON) == []
    assert g.reserve(path, "welcome", NOON) == 0
    assert len(g.take_dirty(NOON + 1_000, NOON + 9_000)) == 2
    g.finish(path, NOON + 1_100)
    assert g.take_dirty(NOON + 1_200, NOON + 9_000) == []
    assert g.due_ms() == NOON + 2_000
    assert len(g.take_dirty(NOON + 2_000, NOON + 9_000)) == 2
    assert g.take_dirty(NOON + 9_000, NOON + 9_000) == []


def test_who_gives_a_shard_away_writes_every_end_so_that_the_next_owner_counts_none_as_under_way() -> None:
    g = governor(limit("places", 1, Concurrent()), limit("minute", 5, Sliding(MINUTE)))
    path = g.path(CLAIM)
    assert g.reserve(path, "welcome", NOON) == 0
    g.take_dirty(NOON, NOON + 9_000)
    assert g.begin(path, "welcome", NOON)
    g.finish(path, NOON + 100)
    assert g.take_dirty(NOON + 110, NOON + 9_000) == [], "it waits for company"
    dirty = g.take_dirty(NOON + 120, NOON + 9_000, every_end=True)
    heir = governor(limit("places", 1, Concurrent()), limit("minute", 5, Sliding(MINUTE)))
    for level in dirty:
        heir.restore(level.level, level.state, NOON + 130)
    path = heir.path(CLAIM)
    assert heir.reserve(path, "welcome", NOON + 130) == 0
    assert heir.begin(path, "welcome", NOON + 130)


@pytest.mark.parametrize(
    "damage",
    [lambda s: b"", lambda s: s[:-5], lambda s: s[:20] + b"\x01" + s[21:], lambda s: b"QS\x63" + s[3:]],
)
def test_a_damaged_state_is_refused_and_says_of_which_level(damage: Callable[[bytes], bytes]) -> None:
    g = governor(limit("minute", 5, Sliding(MINUTE)))
    g.reserve(g.path(CLAIM), "bulk", NOON)
    (dirty,) = g.take_dirty(NOON, NOON + 1)
    with pytest.raises(StateError, match="corp_api tag"):
        governor(limit("minute", 5, Sliding(MINUTE))).restore(dirty.level, damage(dirty.state), NOON)


def test_a_level_whose_state_cannot_be_read_waits_for_its_longest_window() -> None:
    g = governor(limit("minute", 5, Sliding(MINUTE)), limit("hour", 9, Sliding(HOUR)))
    g.mistrust("corp_api|c1|tag", NOON)
    path = g.path(CLAIM)
    assert g.reserve(path, "welcome", NOON + HOUR - 1) == NOON + HOUR
    assert g.reserve(path, "welcome", NOON + HOUR) == 0


def test_a_key_that_is_no_level_is_refused() -> None:
    with pytest.raises(StateError, match="scope"):
        governor().restore("corp-c1", b"", NOON)


def test_ending_what_was_not_admitted_is_a_bug() -> None:
    g = governor(limit("minute", 5, Sliding(MINUTE)))
    path = g.path(CLAIM)
    for end in (g.finish, g.give_back):
        with pytest.raises(ValueError, match="not admitted"):
            end(path, NOON)


def test_an_admission_is_explained_for_the_ledger() -> None:
    g = governor(limit("minute", 10, Sliding(MINUTE)), limit("odd", 20, Sliding(7_000)), limit("once", 5, Concurrent()))
    path = g.path(CLAIM)
    assert g.reserve(path, "bulk", NOON) == 0
    assert json.loads(g.explain(path, "bulk", NOON)) == {
        "at_ms": NOON,
        "lane": "bulk",
        "levels": [
            {
                "level": "corp_api|c1|tag",
                "limits": [
                    {
                        "id": "once",
                        "window": "concurrency",
                        "used": 0,
                        "amount": 5,
                        "allowed": 4,
                        "allowance_percent": 100,
                    },
                    {"id": "odd", "window": "7000", "used": 1, "amount": 20, "allowed": 16, "allowance_percent": 100},
                    {
                        "id": "minute",
                        "window": "minute",
                        "used": 1,
                        "amount": 10,
                        "allowed": 8,
                        "allowance_percent": 100,
                    },
                ],
            }
        ],
    }


def test_people_see_what_is_used_frozen_and_left_to_each_lane() -> None:
    g = governor(limit("minute", 10, Sliding(MINUTE)))
    path = g.path(CLAIM)
    call(g, path, NOON, 3)
    assert g.reserve(path, "bulk", NOON) == 0
    (dirty,) = g.take_dirty(NOON, NOON)
    assert json.loads(dirty.view) == {
        "windows": [
            {
                "id": "minute",
                "window": "minute",
                "used": 4,
                "amount": 10,
                "lanes": {"welcome": 10, "urgent": 9, "bulk": 8, "sync": 8},
                "frozen_until_ms": 0,
                "rate_percent": 100,
            }
        ],
        "in_flight": 1,
    }


def test_a_level_in_which_nothing_is_used_is_forgotten_and_a_kept_path_still_counts() -> None:
    g = governor(limit("corp", 5, Sliding(MINUTE)), limit("staff", 2, Sliding(MINUTE), scope="staff_api"))
    path, twin = g.path(CLAIM), g.path(CLAIM)
    call(g, path, NOON, 2)
    g.take_dirty(NOON, NOON)
    for at in range(4):
        g.take_dirty(NOON + 2 * MINUTE + at * MINUTE, NOON + 2 * MINUTE)
    assert len(g) == 0
    later = NOON + HOUR
    assert admitted(g, twin, later) + admitted(g, path, later) == 2


def test_a_small_level_costs_less_than_500_bytes() -> None:
    g = governor(
        limit("minute", 30, Sliding(MINUTE), scope="staff_api"), limit("hour", 1_000, Sliding(HOUR), scope="staff_api")
    )
    claims = [replace(CLAIM, staff_id=f"member-{index:08}") for index in range(4_000)]
    tracemalloc.start()
    for claim in claims:
        call(g, g.path(claim), NOON)
    g.take_dirty(NOON, NOON)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / len(claims) < 500


@pytest.mark.parametrize("takeovers", [(), (170_000, 390_000)])
def test_a_backlog_uses_98_percent_of_what_the_limits_admit(takeovers: tuple[int, ...]) -> None:
    """Ten minutes, calls of 30 ms, a transaction every 20 ms; a takeover takes over at once, in the middle of calls."""
    limits = (
        limit("minute", 1_000, Sliding(MINUTE)),
        limit("hour", 150_000, Sliding(HOUR)),
        limit("once", 4, Concurrent()),
    )
    store: dict[str, bytes] = {}
    g = governor(*limits)
    path = g.path(CLAIM)
    calls: list[tuple[int, int]] = []
    running: list[int] = []
    ready = 0
    for at in range(0, 600_000, 10):
        now = NOON + at
        if at in takeovers:
            calls += [(started, now) for started in running]
            g, ready, running = governor(*limits, load=store.get), 0, []
            path = g.path(CLAIM)
        while running and running[0] + 30 <= now:
            calls.append((running.pop(0), now))
            g.finish(path, now)
        if at % 20 == 0:
            ready += admitted(g, path, now, most=8 - ready)
            for dirty in g.take_dirty(now, now + 3_000):
                store[dirty.level] = dirty.state
        while ready and g.begin(path, "welcome", now):
            ready -= 1
            running.append(now)
    assert len(calls) >= 0.98 * 1_000 * 10
    starts, ends = sorted(start for start, _ in calls), sorted(end for _, end in calls)
    begun = 0
    for ended, end in enumerate(ends):
        while begun < len(starts) and starts[begun] <= end + MINUTE:
            begun += 1
        assert begun - ended <= 1_000
