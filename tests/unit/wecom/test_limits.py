import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siyu.events import schemas_dir
from siyu.wecom.limits import (
    AFTER_FINISH,
    SECOND,
    Limiter,
    LimitsError,
    ScopeLimiter,
    ScopeLimits,
    Window,
    load_limits,
)

MINUTE, HOUR = 60 * SECOND, 3600 * SECOND


def limits(*windows: tuple[int, int], concurrency: int = 1000) -> ScopeLimits:
    return ScopeLimits(tuple(Window(f"w{i}", limit, length) for i, (limit, length) in enumerate(windows)), concurrency)


# -- the registry ---------------------------------------------------------------------------------------------------


def test_the_limits_in_force() -> None:
    registry = load_limits(schemas_dir() / "limits")
    now = registry.at(1_795_000_000_000)
    assert now.windows == (Window("minute", 10_000, MINUTE), Window("hour", 150_000, HOUR))
    assert now.concurrency == 4


def test_a_change_takes_effect_at_its_date_and_the_past_stays_what_it_was() -> None:
    registry = load_limits(schemas_dir() / "limits")
    change = registry.next_change_ms(1_700_000_000_000)
    assert change == 1_761_926_400_000  # 2025-11-01 00:00 in Shanghai
    assert [w.limit for w in registry.at(change - 1).windows] == [2_000, 30_000]
    assert [w.limit for w in registry.at(change).windows] == [10_000, 150_000]
    assert registry.next_change_ms(change) is None


ENTRY = "{{id: {id}, scope: corp_api, effective_from: 2026-01-01, source: s, confidence: c{rest}}}"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("a", ", window_seconds: 60")], "positive"),
        ([("a", ", window_seconds: 60, limit: 5, concurrency: 3")], "positive"),
        ([("a", ", concurrency: 3")], "at least one window"),
        ([("a", ", window_seconds: 60, limit: 5")], "at least one window and one concurrency"),
        ([("a", ", concurrency: 3"), ("a", ", concurrency: 4")], "two versions from"),
        ([("a", ", concurency: 3")], "unknown field"),
    ],
)
def test_an_inconsistent_registry_is_refused(tmp_path: Path, entries: list[tuple[str, str]], message: str) -> None:
    lines = [ENTRY.format(id=name, rest=rest) for name, rest in entries]
    (tmp_path / "x.yaml").write_text(f"limits: [{', '.join(lines)}]")
    with pytest.raises(LimitsError, match=message):
        load_limits(tmp_path)


# -- the limiter against brute force --------------------------------------------------------------------------------


@dataclass
class Call:
    start: int
    end: int | None = None


windows_of_two = st.tuples(
    st.integers(1, 6), st.integers(1, 20), st.integers(1, 12), st.integers(21, 90), st.integers(1, 8)
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.just(0)),
        st.tuples(st.just("end"), st.integers(0, 7)),
        st.tuples(st.just("time"), st.integers(0, 25)),
    ),
    max_size=120,
)


@settings(max_examples=400, deadline=None)
@given(windows_of_two, steps)
def test_never_above_in_any_window_whenever_the_platform_counted(
    shape: tuple[int, int, int, int, int], moves: list[tuple[str, int]]
) -> None:
    """The platform may have counted a call at any instant between its admission and its end."""
    small, small_length, large, large_length, concurrency = shape
    scope = ScopeLimiter(limits((small, small_length), (large, large_length), concurrency=concurrency))
    now, calls, flying = 0, [], []
    for move, number in moves:
        if move == "time":
            now += number
        elif move == "end" and flying:
            call = flying.pop(number % len(flying))
            call.end = now
            scope.finish(now)
        elif move == "call" and scope.try_admit(now) == 0:
            flying.append(Call(now))
            calls.append(flying[-1])
        assert scope.in_flight == len(flying) <= concurrency
    forever = now + 1000
    for limit, length in ((small, small_length), (large, large_length)):
        for edge in {c.start for c in calls} | {c.end if c.end is not None else forever for c in calls}:
            for begin in (edge, edge - length):
                # As many as could have been counted within the closed window [begin, begin + length].
                reach = [
                    c for c in calls if c.start <= begin + length and (c.end if c.end is not None else forever) >= begin
                ]
                assert len(reach) <= limit


@settings(max_examples=300, deadline=None)
@given(windows_of_two, st.lists(st.integers(0, 12), max_size=80))
def test_with_instant_calls_it_decides_exactly_as_counting_does(
    shape: tuple[int, int, int, int, int], gaps: list[int]
) -> None:
    small, small_length, large, large_length, _ = shape
    scope = ScopeLimiter(limits((small, small_length), (large, large_length)))
    now, admitted = 0, []
    for gap in gaps:
        now += gap
        free = all(
            sum(at >= now - length for at in admitted) < limit
            for limit, length in ((small, small_length), (large, large_length))
        )
        again = scope.try_admit(now)
        assert (again == 0) == free
        if again == 0:
            admitted.append(now)
            scope.finish(now)
        else:
            assert again > now
        assert [used for _, used in scope.usage(now)] == [
            sum(at >= now - small_length for at in admitted),
            # Only as many as can matter are remembered.
            min(sum(at >= now - large_length for at in admitted), max(small, large)),
        ]


@settings(max_examples=200, deadline=None)
@given(windows_of_two, st.lists(st.integers(0, 12), max_size=80))
def test_asking_again_at_the_named_time_succeeds_and_not_before(
    shape: tuple[int, int, int, int, int], gaps: list[int]
) -> None:
    small, small_length, large, large_length, _ = shape
    scope = ScopeLimiter(limits((small, small_length), (large, large_length)))
    now = 0
    for gap in gaps:
        now += gap
        again = scope.try_admit(now)
        if again:
            assert scope.try_admit(again - 1) != 0
            now = again
            assert scope.try_admit(now) == 0
        scope.finish(now)


def test_a_changed_limit_counts_what_was_used() -> None:
    scope = ScopeLimiter(limits((5, MINUTE)))
    for at in range(5):
        assert scope.try_admit(at) == 0
        scope.finish(at)
    scope.change(limits((3, MINUTE)))
    assert scope.try_admit(10) == 2 + MINUTE + 1
    scope.change(limits((7, MINUTE)))
    # A lowered limit forgets nothing: five are used, two are left.
    assert [scope.try_admit(20) for _ in range(3)] == [0, 0, 0 + MINUTE + 1]


def test_a_frozen_scope_waits_for_the_shortest_window_and_then_for_the_next() -> None:
    scope = ScopeLimiter(limits((100, MINUTE), (1000, HOUR)))
    thaw = scope.freeze(SECOND)
    assert thaw == SECOND + MINUTE
    assert scope.freeze(2 * SECOND) == thaw, "calls in flight report the same block"
    assert scope.try_admit(thaw - 1) == thaw
    assert scope.try_admit(thaw) == 0
    assert scope.freeze(thaw + SECOND) == thaw + SECOND + HOUR
    later = thaw + 3 * HOUR
    assert scope.freeze(later) == later + MINUTE


def test_slow_lowers_the_concurrency_once_a_second_and_recovers_by_steps() -> None:
    scope = ScopeLimiter(limits((100, MINUTE), concurrency=4))
    now = 10 * SECOND
    scope.slow(now)
    scope.slow(now + 1)
    assert scope.concurrency == 3
    for second in range(1, 10):
        scope.slow(now + second * 2 * SECOND)
    assert scope.concurrency == 1
    assert scope.try_admit(now + 20 * SECOND) == 0
    assert scope.try_admit(now + 20 * SECOND) == AFTER_FINISH
    assert scope.try_admit(now + 120 * SECOND) == 0
    assert scope.concurrency == 2
    for minute in range(3, 10):
        scope.try_admit(now + minute * MINUTE)
    assert scope.concurrency == 4


def test_memory_is_bounded_by_the_largest_limit() -> None:
    scope = ScopeLimiter(limits((10, 5), (50, 20)))
    for at in range(0, 10_000, 30):
        assert scope.try_admit(at) == 0
        scope.finish(at)
    assert len(scope._finishes._times) == 50


# -- waiting --------------------------------------------------------------------------------------------------------


class Steady:
    """A registry with one set of limits."""

    def __init__(self, now: ScopeLimits) -> None:
        self.now = now
        self.change_ms: int | None = None
        self.then = now

    def at(self, as_of_ms: int) -> ScopeLimits:
        return self.then if self.change_ms is not None and as_of_ms >= self.change_ms else self.now

    def next_change_ms(self, as_of_ms: int) -> int | None:
        return self.change_ms if self.change_ms is not None and as_of_ms < self.change_ms else None


async def test_who_must_be_served_soonest_goes_first() -> None:
    limiter = Limiter(Steady(limits((1000, MINUTE), concurrency=1)))  # type: ignore[arg-type]
    assert await limiter.enter("s", 0, lambda: True)
    served: list[int] = []

    async def caller(order: int) -> None:
        assert await limiter.enter("s", order, lambda: True)
        served.append(order)
        limiter.leave("s")

    callers = [asyncio.create_task(caller(order)) for order in (5, 1, 4, 2, 3)]
    await asyncio.sleep(0)
    limiter.leave("s")
    await asyncio.gather(*callers)
    assert served == [1, 2, 3, 4, 5]


async def test_who_no_longer_wants_in_is_told_so_while_the_scope_is_full() -> None:
    limiter = Limiter(Steady(limits((1000, MINUTE), concurrency=1)))  # type: ignore[arg-type]
    assert await limiter.enter("s", 0, lambda: True)
    wanted = True
    caller = asyncio.create_task(limiter.enter("s", 9, lambda: wanted))
    await asyncio.sleep(0)
    wanted = False
    assert await asyncio.wait_for(caller, 5) is False
    limiter.leave("s")


async def test_a_cancelled_caller_leaves_no_slot_taken() -> None:
    limiter = Limiter(Steady(limits((1000, MINUTE), concurrency=1)))  # type: ignore[arg-type]
    for spins in range(6):
        assert await limiter.enter("s", 0, lambda: True)
        caller = asyncio.create_task(limiter.enter("s", 1, lambda: True))
        await asyncio.sleep(0)
        limiter.leave("s")
        for _ in range(spins):
            await asyncio.sleep(0)
        caller.cancel()
        if await asyncio.gather(caller, return_exceptions=True) == [True]:
            limiter.leave("s")
        assert await asyncio.wait_for(limiter.enter("s", 0, lambda: True), 5)
        limiter.leave("s")


async def test_scopes_do_not_share_limits() -> None:
    limiter = Limiter(Steady(limits((1, HOUR), concurrency=1)))  # type: ignore[arg-type]
    assert await limiter.enter("ww1|a", 0, lambda: True)
    assert await limiter.enter("ww1|b", 0, lambda: True)
    assert await limiter.enter("ww2|a", 0, lambda: True)
    assert {scope: [used for _, used in usage] for scope, usage in limiter.usage().items()} == {
        "ww1|a": [1],
        "ww1|b": [1],
        "ww2|a": [1],
    }


async def test_a_limit_that_changes_at_a_time_changes_then() -> None:
    wall = 1000
    registry = Steady(limits((1, HOUR)))
    registry.then, registry.change_ms = limits((2, HOUR)), 2000
    limiter = Limiter(registry, wall=lambda: wall)  # type: ignore[arg-type]
    assert await limiter.enter("s", 0, lambda: True)
    limiter.leave("s")
    waiting = asyncio.create_task(limiter.enter("s", 0, lambda: True))
    await asyncio.sleep(0)
    assert not waiting.done()
    wall = 2000
    assert await asyncio.wait_for(waiting, 5)
