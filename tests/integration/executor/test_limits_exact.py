"""No limit is ever exceeded by one call, however many processes call and die: judged by when requests arrived.

The shipped limits with small amounts and windows of seconds; time itself is not compressed.
"""

import asyncio
import copy
import datetime as dt
import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml
from crew import (
    CORPS,
    REMARK,
    TAG,
    WELCOME,
    Crew,
    DatesAsText,
    Platform,
    SingleUseCodes,
    action,
    crew_on,
    limits_folder,
    most_in_a_window,
    now_ms,
    once_each,
    remark,
)
from executor_process import Topics, eventually
from fake_wecom import Call, Slow

from deploy.local.kafka import LocalKafka
from services.executor.membership import shard_of
from siyu.limits import load_registry
from siyu.limits.source import records_of
from siyu.wecom.endpoints import quota_scope

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
    actions = [action(f"most-{CALLED[n % 4]}-{n}", corp_id=CALLED[n % 4]) for n in range(3 * 4 * A_CORP)]
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
    actions = [remark(f"share-{n}", corp_id=CORPS[n % 8]) for n in range(4 * AN_ADDRESS)]
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


async def test_a_dated_change_takes_effect_at_its_time_in_every_process_and_a_bad_one_never(
    together: tuple[Platform, Crew, Path], topics: Topics
) -> None:
    platform, crew, limits = together
    platform.on(TAG, Slow(0.0, {"errcode": 0}))
    await crew.working()
    few, corps = 10, ("ww1", "ww2")
    assert len({shard_of(quota_scope(corp, TAG), 4) for corp in corps}) == 2
    changes_ms = now_ms() + 9_000
    base = yaml.load((limits / "base.yaml").read_text(), Loader=DatesAsText)
    newest = [limit for limit in base["limits"] if limit["id"] == "corp_api_minute"][-1]
    day = dt.datetime.fromtimestamp(changes_ms / 1000, dt.UTC).isoformat(timespec="milliseconds")
    base["limits"].append(copy.deepcopy(newest) | {"amount": few, "effective_from": day})
    (limits / "base.yaml").write_text(yaml.safe_dump(base, allow_unicode=True))
    registry = load_registry(limits)
    for record in records_of(registry, author="li", reason="a new page", written_at_ms=now_ms()):
        topics.send_event("config", f"{record.kind}|{record.id}", record)
    _, newest_record = records_of(registry, author="li", reason="a slip", written_at_ms=now_ms())
    bad = msgspec.structs.replace(newest_record, value=newest_record.value.replace(b'"amount":', b'"amount":-', 1))
    topics.send_event("config", f"{bad.kind}|{bad.id}", bad)
    # More than will be called before and after.
    topics.send(*(remark(f"dated-{corp}-{n}", corp_id=corp, endpoint=TAG) for corp in corps for n in range(250)))
    running = [member for member in crew.members.values() if member.ended_with() is None]
    refused = 'siyu_executor_config_refused_total{kind="limits"} 1.0'
    await eventually(lambda: all(refused in member.metrics() for member in running), crew.log)
    monotonic_zero_ms = now_ms() - time.monotonic() * 1000
    await asyncio.sleep((changes_ms - now_ms()) / 1000 + 3 * WINDOW_SECONDS)
    calls = platform.called(TAG)
    for corp in corps:
        mine = [call for call in calls if call.body and f"-{corp}-" in call.body["external_userid"]]
        # What was reserved before leaves within a second or never.
        after = [call for call in mine if monotonic_zero_ms + call.at * 1000 > changes_ms + 1_000]
        assert few < most_in_a_window(mine, WINDOW_SECONDS) <= A_CORP
        assert 0 < most_in_a_window(after, WINDOW_SECONDS) <= few
    callers = {platform.caller(call) for call in calls}
    assert len(callers) == 2
