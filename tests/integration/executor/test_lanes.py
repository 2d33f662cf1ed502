"""Who goes first, how much a lane may fill, and what waits for its time: in memory, in the ledger, or until it is too
late. One executor; windows of seconds; a clock that jumps."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crew import REMARK, TAG, Crew, Platform, crew_on, limits_folder, most_in_a_window, once_each, remark
from executor_process import Topics
from fake_wecom import Call, Slow

from deploy.local.kafka import LocalKafka
from siyu.actions.control import TOPIC, cancel_record
from siyu.events import LedgerEntry, codec
from siyu.ops.clock import wall_ms, write_segments

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

WINDOW_SECONDS, AMOUNT = 4, 50
BULK_MAY, URGENT_MAY = 40, 47
DAY_MS = 86_400_000


class JumpingClock:
    """Business time: the wall's, plus the days it was told to jump."""

    def __init__(self, file: Path) -> None:
        self.file = file
        start = wall_ms()
        self._segments: list[dict[str, float]] = [{"wall_ms": start, "business_ms": start, "rate": 1}]
        write_segments(file, self._segments)

    def now_ms(self) -> int:
        last = self._segments[-1]
        return int(last["business_ms"] + wall_ms() - last["wall_ms"])

    def jump_to(self, business_ms: int) -> None:
        self._segments.append({"wall_ms": wall_ms(), "business_ms": business_ms, "rate": 1})
        write_segments(self.file, self._segments)


Together = tuple[Platform, Crew, JumpingClock]


@pytest.fixture(scope="module")
def together(own_kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    folder = tmp_path_factory.mktemp("crew")
    clock = JumpingClock(folder / "clock.json")
    limits = limits_folder(folder, corp_api_minute={"amount": AMOUNT, "window": f"sliding {WINDOW_SECONDS} s"})
    settings = {"SIYU_LIMITS": str(limits), "SIYU_CLOCK_FILE": str(clock.file)}
    with crew_on(own_kafka.bootstrap, folder, **settings) as (platform, crew):
        crew.start("e1")
        yield platform, crew, clock


async def test_urgent_goes_before_a_backlog_that_fills_no_more_than_its_part(
    together: Together, topics: Topics
) -> None:
    platform, crew, _ = together
    await crew.working()
    platform.on(REMARK, Slow(0.005, {"errcode": 0}))
    bulk = [remark(f"lane-b{n}", lane="bulk", campaign_id="c", staff_id=f"s{n % 7}") for n in range(2000)]
    urgent = [remark(f"lane-u{n}") for n in range(20)]
    topics.send(*bulk)
    await platform.until_called(REMARK, BULK_MAY + 5, crew.log)  # into the second window: the backlog is held back
    before = len(platform.called(REMARK))
    topics.send(*urgent)
    await topics.until_outcomes("lane-u", len(urgent), crew.log)
    calls = platform.called(REMARK)
    names = platform.customers(REMARK)
    last_urgent = max(place for place, name in enumerate(names) if name.startswith("customer-lane-u"))
    assert last_urgent - before < 3 * AMOUNT, "not behind two thousand"
    assert len(topics.outcomes("lane-b")) < 1_000
    topics.send_event(
        TOPIC,
        (word := cancel_record(campaign_id="c", reason="enough", author="li", wall_ms=wall_ms())).id,
        word,
    )
    outcomes = await topics.until_outcomes("lane-", len(bulk) + len(urgent), crew.log)
    assert once_each(outcomes, bulk + urgent)
    assert {outcome.status for outcome in outcomes if outcome.lane == "urgent"} == {"done"}
    assert {outcome.status for outcome in outcomes} == {"done", "cancelled"}
    calls, names = platform.called(REMARK), platform.customers(REMARK)
    of_bulk = [call for call, name in zip(calls, names, strict=True) if name.startswith("customer-lane-b")]
    assert BULK_MAY // 2 < most_in_a_window(of_bulk, WINDOW_SECONDS) <= BULK_MAY
    assert most_in_a_window(calls, WINDOW_SECONDS) <= URGENT_MAY


async def test_nothing_is_called_before_its_time(together: Together, topics: Topics) -> None:
    platform, crew, clock = together
    await crew.working()
    platform.on(TAG, Slow(0.0, {"errcode": 0}))
    monotonic_zero_ms = clock.now_ms() - time.monotonic() * 1000
    due = {f"soon-{n}": clock.now_ms() + n * 1000 for n in range(4)}
    actions = [remark(name, endpoint=TAG, not_before_ms=at) for name, at in due.items()]
    topics.send(*actions)
    outcomes = await topics.until_outcomes("soon", len(actions), crew.log)
    assert once_each(outcomes, actions)
    assert {outcome.status for outcome in outcomes} == {"done"}
    called = {
        call.body["external_userid"]: monotonic_zero_ms + call.at * 1000 for call in platform.called(TAG) if call.body
    }
    assert all(called[f"customer-{name}"] >= at for name, at in due.items())


async def test_what_waits_in_a_frozen_scope_past_its_deadline_ends_without_a_call(
    together: Together, topics: Topics
) -> None:
    platform, crew, clock = together
    await crew.working()
    frozen = True

    def answer(call: Call) -> dict[str, object]:
        return {"errcode": 45009 if frozen else 0}

    platform.on(TAG, answer)
    first = remark("ice-first", corp_id="ww2", endpoint=TAG)
    topics.send(first)
    await platform.until_called(TAG, len(platform.called(TAG)) + 1, crew.log)
    await asyncio.sleep(0.5)  # its answer is taken to heart
    calls = len(platform.called(TAG))
    late = [
        remark(f"ice-late{n}", corp_id="ww2", endpoint=TAG, lane=lane, deadline_ms=clock.now_ms() + 1500)
        for n, lane in enumerate(("urgent", "bulk", "sync"))
    ]
    topics.send(*late)
    outcomes = await topics.until_outcomes("ice-late", len(late), crew.log)
    assert len(platform.called(TAG)) == calls
    assert {(o.status, o.detail, o.calls) for o in outcomes} == {("expired", "deadline_passed", 0)}
    frozen = False
    (outcome,) = await topics.until_outcomes("ice-first", 1, crew.log)
    assert (outcome.status, outcome.calls) == ("done", 2)


async def test_what_waits_for_days_waits_in_the_ledger_through_a_restart(together: Together, topics: Topics) -> None:
    platform, crew, clock = together
    await crew.working()
    platform.on(TAG, {"errcode": 0})
    due_ms = clock.now_ms() + 2 * DAY_MS
    tomorrow = [remark(f"days-{n}", corp_id="ww4", endpoint=TAG, not_before_ms=due_ms + n) for n in range(3)]
    sooner = remark("days-sooner", corp_id="ww4", endpoint=TAG)
    # Found at its time to be too late.
    missed = remark("days-missed", corp_id="ww4", endpoint=TAG, not_before_ms=due_ms, deadline_ms=due_ms + 60_000)
    topics.send(*tomorrow, missed, sooner)
    await topics.until_outcomes("days-sooner", 1, crew.log)

    def states() -> dict[str, str]:
        entries = [codec().decode_as(LedgerEntry, m.value()) for m in topics.read("action.ledger") if m.value()]
        return {entry.action_id: entry.state for entry in entries if entry.action_id.startswith("days-")}

    deadline = time.monotonic() + 30
    while list((await asyncio.to_thread(states)).values()).count("waiting") < 4:
        assert time.monotonic() < deadline, crew.log()
    (executor,) = crew.members.values()
    executor.kill()
    clock.jump_to(due_ms - 3_600_000)
    crew.start("e1")
    again = remark("days-again", corp_id="ww4", endpoint=TAG)
    topics.send(again)
    await topics.until_outcomes("days-again", 1, crew.log)
    assert not [name for name in platform.customers(TAG) if name.startswith("customer-days-") and name[14].isdigit()]
    assert executor.metric("siyu_executor_waiting") == 0, "days are waited for in the ledger"
    clock.jump_to(due_ms + 3_600_000)
    outcomes = await topics.until_outcomes("days-", 6, crew.log)
    assert once_each(outcomes, [*tomorrow, missed, sooner, again])
    assert {o.action_id: o.status for o in outcomes if o.status != "done"} == {"days-missed": "expired"}
    assert "customer-days-missed" not in platform.customers(TAG)
