"""No limit is ever exceeded by one call, however many processes call and die: judged by when requests arrived.

The shipped limits with small amounts and windows of seconds; time itself is not compressed.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from crew import (
    CORPS,
    REMARK,
    WELCOME,
    Crew,
    Platform,
    SingleUseCodes,
    action,
    crew_on,
    limits_folder,
    most_in_a_window,
    once_each,
    remark,
)
from executor_process import Topics
from fake_wecom import Call, Slow

from deploy.local.kafka import LocalKafka

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

WINDOW_SECONDS, A_CORP, AN_ADDRESS = 3, 40, 50
CALLED = CORPS[:4]


@pytest.fixture(scope="module")
def together(own_kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Crew, Path]]:
    folder = tmp_path_factory.mktemp("crew")
    window = f"sliding {WINDOW_SECONDS} s"
    limits = limits_folder(
        folder,
        corp_api_minute={"amount": A_CORP, "window": window},
        ip_api_minute={"amount": AN_ADDRESS, "window": window, "endpoints": [REMARK], "but_not": None},
    )
    with crew_on(own_kafka.bootstrap, folder, SIYU_LIMITS=str(limits)) as (platform, crew):
        yield platform, crew, limits


def corp_of(call: Call) -> str:
    assert call.body is not None
    return str(call.body["welcome_code"]).split("-")[2]


async def test_three_executors_that_are_killed_never_call_more_than_a_corp_may(
    together: tuple[Platform, Crew, Path], topics: Topics
) -> None:
    platform, crew, _ = together
    codes = SingleUseCodes(1, 0.0, 0.1)
    platform.on(WELCOME, codes)
    crew.start("e1", "e2", "e3")
    await crew.working()
    actions = [action(f"most-{CALLED[n % 4]}-{n}", corp_id=CALLED[n % 4]) for n in range(4 * 4 * A_CORP)]
    topics.send(*actions)
    dice = random.Random(4)
    for name in ("e1", "e2", "e3", "e2"):
        await platform.until_called(WELCOME, len(platform.called(WELCOME)) + dice.randint(20, 80), crew.log)
        crew.members[name].kill()
        crew.start(name)
    outcomes = await topics.until_outcomes("most", len(actions), crew.log)
    assert once_each(outcomes, actions)
    calls = platform.called(WELCOME)
    most = {corp: most_in_a_window([c for c in calls if corp_of(c) == corp], WINDOW_SECONDS) for corp in CALLED}
    assert max(most.values()) <= A_CORP, most
    assert max(most.values()) > A_CORP // 2, "the limit was what held them back"


async def test_corps_of_several_executors_share_what_their_address_may_call(
    together: tuple[Platform, Crew, Path], topics: Topics
) -> None:
    platform, crew, _ = together
    platform.on(REMARK, Slow(0.01, {"errcode": 0}))
    await crew.working()
    # Every shard has a corp that calls.
    actions = [remark(f"share-{n}", corp_id=CORPS[n % 8]) for n in range(5 * AN_ADDRESS)]
    topics.send(*actions)
    await platform.until_called(REMARK, 60, crew.log)
    crew.members["e1"].kill()
    crew.start("e1")
    outcomes = await topics.until_outcomes("share", len(actions), crew.log)
    assert once_each(outcomes, actions)
    assert {outcome.status for outcome in outcomes} == {"done"}
    calls = platform.called(REMARK)
    assert len({platform.caller(call) for call in calls}) > 1
    most = most_in_a_window(calls, WINDOW_SECONDS)
    assert AN_ADDRESS // 2 < most <= AN_ADDRESS
