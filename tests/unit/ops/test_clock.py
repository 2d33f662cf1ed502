"""Business time: the wall clock, or a file that moves it, never backwards."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.ops.clock import ClockError, FileClock, SystemClock, clock_from, wall_ms, write_segments


class Wall:
    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def test_without_a_file_business_time_is_wall_time() -> None:
    before = wall_ms()
    assert before <= clock_from(None).now_ms() <= SystemClock().now_ms()


def test_a_segment_moves_and_stretches_time_and_a_later_one_takes_over(tmp_path) -> None:
    path = tmp_path / "clock.json"
    write_segments(path, [{"wall_ms": 1_000, "business_ms": 500_000, "rate": 1}])
    wall = Wall(1_000)
    clock = FileClock(path, wall=wall)
    wall.now = 1_050
    assert clock.now_ms() == 500_050
    write_segments(
        path,
        [
            {"wall_ms": 1_000, "business_ms": 500_000, "rate": 1},
            {"wall_ms": 2_000, "business_ms": 600_000, "rate": 1000},
        ],
    )
    wall.now = 1_999
    assert clock.now_ms() == 500_999
    wall.now = 2_010
    assert clock.now_ms() == 610_000


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '[{"wall_ms": 1}]',
        '[{"wall_ms": 0, "business_ms": 0, "rate": -1}]',
        '[{"wall_ms": 0, "business_ms": 0, "rate": 1}, {"wall_ms": 10, "business_ms": 9, "rate": 1}]',
    ],
)
def test_a_clock_file_that_is_wrong_or_runs_backwards_is_refused(tmp_path, content: str) -> None:
    path = tmp_path / "clock.json"
    path.write_text(content)
    with pytest.raises(ClockError):
        FileClock(path)


def test_a_missing_clock_file_is_refused(tmp_path) -> None:
    with pytest.raises(ClockError):
        FileClock(tmp_path / "none.json")


@given(
    st.lists(st.tuples(st.integers(1, 5_000), st.integers(0, 10**9), st.sampled_from([0, 1, 60, 270_000])), max_size=4)
)
def test_time_never_runs_backwards(tmp_path_factory, steps: list[tuple[int, int, int]]) -> None:
    segments = [{"wall_ms": 0.0, "business_ms": 0.0, "rate": 1.0}]
    for wall_gap, jump, rate in steps:
        last = segments[-1]
        business = last["business_ms"] + int(wall_gap * last["rate"]) + jump
        segments.append({"wall_ms": last["wall_ms"] + wall_gap, "business_ms": business, "rate": float(rate)})
    path = tmp_path_factory.mktemp("clock") / "clock.json"
    path.write_text(json.dumps(segments))
    wall = Wall(0)
    clock = FileClock(path, wall=wall)
    seen = []
    for wall.now in range(0, 20_000, 137):
        seen.append(clock.now_ms())
    assert seen == sorted(seen)
