"""An executor that dies, or stands still and comes back: its shards go on elsewhere, and no action is called twice or
told twice."""

import asyncio
from collections.abc import Iterator

import pytest
from crew import CORPS, WELCOME, Crew, Platform, SingleUseCodes, action, crew_on, once_each
from executor_process import Topics, eventually

from deploy.local.kafka import LocalKafka

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def together(own_kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Crew]]:
    with crew_on(own_kafka.bootstrap, tmp_path_factory.mktemp("crew")) as both:
        yield both


async def test_what_a_killed_executor_was_calling_and_had_waiting_is_finished_by_the_others(
    together: tuple[Platform, Crew], topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    platform, crew = together
    codes = SingleUseCodes(5, 0.05, 0.3)
    platform.on(WELCOME, codes)
    crew.start("e1", "e2", "e3")
    await crew.working()
    actions = [action(f"kill-{n}", corp_id=CORPS[n % 6], subject=f"{CORPS[n % 6]}|c{n}") for n in range(240)]
    topics.send(*actions)
    for name in ("e2", "e1"):
        await platform.until_called(WELCOME, len(platform.called(WELCOME)) + 30, crew.log)
        crew.members[name].kill()
    survivor = crew.members["e3"]
    outcomes = await topics.until_outcomes("kill", len(actions), crew.log)
    assert sorted(survivor.shards()) == [0, 1, 2, 3]
    assert once_each(outcomes, actions)
    assert {outcome.status for outcome in outcomes} <= {"done", "already_done"}
    assert set(codes.used) == {f"code-kill-{n}" for n in range(240)}
    # What was called twice is what the kills interrupted: at most four calls at a time of a corp.
    repeated = sum(count > 1 for count in codes.used.values())
    assert sum(outcome.status == "already_done" for outcome in outcomes) <= repeated <= 2 * 4 * 6
    takeovers = survivor.metric("siyu_executor_takeover_seconds_count")
    assert takeovers >= 4
    with capsys.disabled():
        seconds = survivor.metric("siyu_executor_takeover_seconds_sum") / takeovers
        print(
            f"\n{takeovers:.0f} shards opened, each from being given to its first cycle in {seconds:.2f} s on average"
        )


async def test_an_executor_that_was_frozen_past_its_session_calls_nothing_of_what_it_had_reserved(
    together: tuple[Platform, Crew], topics: Topics
) -> None:
    platform, crew = together
    codes = SingleUseCodes(6, 0.02, 0.2)
    platform.on(WELCOME, codes)
    crew.start("e1", "e2")
    await crew.working()
    actions = [action(f"cold-{n}", corp_id=CORPS[n % 6], subject=f"{CORPS[n % 6]}|c{n}") for n in range(300)]
    frozen = crew.members["e2"]
    mine = set(frozen.shards())
    assert mine
    before = len(platform.called(WELCOME))
    topics.send(*actions)

    def calls_of_the_frozen() -> list[float]:
        return [call.at for call in platform.called(WELCOME)[before:] if platform.caller(call) == "e2"]

    await eventually(lambda: len(calls_of_the_frozen()) >= 20, crew.log)
    frozen.freeze()
    await asyncio.sleep(0.5)  # what was on its way has arrived
    made = len(calls_of_the_frozen())
    outcomes = await topics.until_outcomes("cold", len(actions), crew.log)
    assert len(calls_of_the_frozen()) == made
    frozen.thaw()
    await eventually(lambda: len(frozen.lines("partitions_assigned")) > 1, crew.log)
    await asyncio.sleep(3)
    assert len(calls_of_the_frozen()) == made, "nothing it had reserved left afterwards"
    assert frozen.ended_with() is None, "it began anew from what is durable"
    assert once_each(topics.outcomes("cold"), actions)
    assert {outcome.status for outcome in outcomes} <= {"done", "already_done"}
    assert set(codes.used) == {f"code-cold-{n}" for n in range(300)}
