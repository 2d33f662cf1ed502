"""An action's way to its end against a real HTTP server that behaves as WeCom does, and worse."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from fake_wecom import Drop, FakeWecom, Hang, Raw, Slow
from prometheus_client import CollectorRegistry

from services.executor.metrics import ExecutorMetrics
from services.executor.performer import Abandoned, Patience, Performer, Ticket
from siyu.events import Action, ActionOutcome, schemas_dir
from siyu.ops.corps import Corp
from siyu.wecom.client import WecomClient
from siyu.wecom.errors import load_error_tables
from siyu.wecom.limits import Limiter, load_limits

WELCOME = "externalcontact/send_welcome_msg"
BILLS = "externalpay/get_bill_list"
START = 1_300_000_000_000


class Clock:
    """Business time somewhere else than wall time, at the same speed."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.jump_ms = 0

    def now_ms(self) -> int:
        return START + int((time.monotonic() - self._begin) * 1000) + self.jump_ms


@dataclass
class Bench:
    performer: Performer
    clock: Clock
    limiter: Limiter
    registry: CollectorRegistry
    patience: Patience

    def action(self, number: int = 0, **changes: object) -> Action:
        fields: dict[str, object] = {
            "action_id": f"a{number}",
            "lane": "welcome",
            "corp_id": "ww1",
            "endpoint": WELCOME,
            "subject": f"ww1|c{number}",
            "staff_id": "s1",
            "customer_id": f"c{number}",
            "payload": json.dumps({"welcome_code": f"w{number}"}).encode(),
            "reason": "r@1",
            "caused_by": "e1",
            "created_ms": self.clock.now_ms(),
            "not_before_ms": 0,
            "deadline_ms": self.clock.now_ms() + 20_000,
            "trigger_received_at_ms": 0,
        }
        return Action(**(fields | changes))  # type: ignore[arg-type]

    async def perform(self, action: Action, ticket: Ticket | None = None) -> ActionOutcome:
        return await self.performer.perform(action, self.patience, ticket or Ticket())


Build = Callable[..., Bench]
COMMON = "scope: corp_api, effective_from: 2020-01-01, source: s, confidence: c"
LIMITS = """
limits:
  - {{id: w, {common}, window_seconds: {seconds}, limit: {limit}}}
  - {{id: c, {common}, concurrency: {concurrency}}}
"""


@pytest.fixture
async def build(wecom: FakeWecom, tmp_path: Path) -> AsyncIterator[Build]:
    clients: list[WecomClient] = []
    benches: list[Bench] = []

    def make(
        *,
        base_url: str | None = None,
        seconds: int = 1,
        limit: int = 10_000,
        concurrency: int = 4,
        timeout: float = 5.0,
        hold: float = 60.0,
    ) -> Bench:
        folder = tmp_path / f"limits{len(benches)}"
        folder.mkdir()
        (folder / "x.yaml").write_text(
            LIMITS.format(common=COMMON, seconds=seconds, limit=limit, concurrency=concurrency)
        )
        corps = {
            name: Corp(corp_id=name, agent_id="1", secret="s", callback_token="t", callback_aes_key="k" * 43)
            for name in ("ww1", "ww2")
        }
        clients.append(WecomClient(base_url or wecom.base_url))
        clock, limiter, registry = Clock(), Limiter(load_limits(folder)), CollectorRegistry()
        table = load_error_tables(schemas_dir() / "rules" / "wecom-errors.yaml").at(2_000_000_000_000)
        performer = Performer(
            client=clients[-1],
            corps=corps,
            limiter=limiter,
            error_table=lambda: table,
            clock=clock,
            metrics=ExecutorMetrics(registry),
            random=Random(1),
        )
        benches.append(Bench(performer, clock, limiter, registry, Patience(timeout, hold)))
        return benches[-1]

    yield make
    for bench in benches:
        await bench.performer.tokens.close()
    for client in clients:
        await client.__aexit__(None, None, None)


def end(outcome: ActionOutcome) -> tuple[str, str, int, int]:
    return outcome.status, outcome.detail, outcome.errcode, outcome.calls


async def test_a_welcome_is_sent_once(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    action = bench.action(7)
    outcome = await bench.perform(action)
    assert end(outcome) == ("done", "ok", 0, 1)
    assert (outcome.action_id, outcome.subject, outcome.request, outcome.response) == (
        action.action_id,
        action.subject,
        action.payload,
        b"",
    )
    (call,) = wecom.called(WELCOME)
    assert call.body == {"welcome_code": "w7"}


async def test_the_answer_to_a_read_travels_in_the_outcome(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    page = {"errcode": 0, "errmsg": "ok", "bill_list": [{"out_trade_no": "T1"}], "next_cursor": "C2"}
    wecom.on(BILLS, page)
    outcome = await bench.perform(bench.action(endpoint=BILLS, lane="sync"))
    assert json.loads(outcome.response) == page


@pytest.mark.parametrize(
    ("errcode", "expected"),
    [
        (41050, ("expired", "code_expired", 41050, 1)),
        (41051, ("already_done", "already_welcomed", 41051, 1)),
        (40096, ("rejected", "refused", 40096, 1)),
        (48002, ("failed", "human_needed", 48002, 1)),
        (40035, ("failed", "fix_needed", 40035, 1)),
        (987654, ("failed", "unknown_errcode", 987654, 1)),
    ],
)
async def test_codes_that_end_an_action_at_once(
    wecom: FakeWecom, build: Build, errcode: int, expected: tuple[str, str, int, int]
) -> None:
    bench = build()
    wecom.on(WELCOME, {"errcode": errcode, "errmsg": "…"})
    assert end(await bench.perform(bench.action())) == expected


async def test_busy_is_tried_three_times(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    wecom.on(WELCOME, {"errcode": -1}, {"errcode": -1}, {"errcode": 0})
    assert end(await bench.perform(bench.action())) == ("done", "ok", 0, 3)
    first, second, third = (call.at for call in wecom.called(WELCOME))
    assert second - first >= 1.0
    assert third - second >= 2.0


async def test_busy_for_ever_ends_and_busy_past_the_deadline_expires(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    wecom.on(WELCOME, {"errcode": -1})
    patient = bench.action(1)
    hurried = bench.action(2, deadline_ms=bench.clock.now_ms() + 300)
    outcomes = await asyncio.gather(bench.perform(patient), bench.perform(hurried))
    assert end(outcomes[0]) == ("failed", "retries_used_up", -1, 3)
    assert end(outcomes[1]) == ("expired", "deadline_passed", -1, 1)


async def test_another_apps_welcome_is_retried_only_within_the_deadline(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    wecom.on(WELCOME, {"errcode": 41096}, {"errcode": 41096}, {"errcode": 41051})
    assert end(await bench.perform(bench.action())) == ("already_done", "already_welcomed", 41051, 3)


@pytest.mark.parametrize("errcode", [40014, 42001])
async def test_fifty_actions_with_a_dead_token_renew_it_once(wecom: FakeWecom, build: Build, errcode: int) -> None:
    bench = build(concurrency=50)
    await bench.perform(bench.action(99))
    wecom.valid.clear()
    await asyncio.sleep(1.0)  # a token refused within a second of its renewal is a different story
    outcomes = await asyncio.gather(*(bench.perform(bench.action(n)) for n in range(50)))
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert wecom.tokens == 2


async def test_a_token_refused_after_its_renewal_ends_the_action(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    wecom.on(WELCOME, {"errcode": 42001})
    assert end(await bench.perform(bench.action())) == ("failed", "token_refused", 42001, 2)


async def test_a_wrong_secret_ends_actions_without_hammering(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    wecom.on("gettoken", {"errcode": 40001, "errmsg": "invalid credential"})
    outcomes = await asyncio.gather(*(bench.perform(bench.action(n)) for n in range(30)))
    assert {end(outcome) for outcome in outcomes} == {("failed", "token_unavailable", 40001, 0)}
    assert len(wecom.called("gettoken")) == 1


async def test_a_frequency_limit_stops_the_scope_until_its_window_ends(wecom: FakeWecom, build: Build) -> None:
    bench = build(concurrency=1, seconds=1)
    wecom.on(WELCOME, {"errcode": 45009}, {"errcode": 0})
    limited = asyncio.create_task(bench.perform(bench.action(1)))
    await wecom.wait_for_calls(WELCOME, 1)
    others = [asyncio.create_task(bench.perform(bench.action(n))) for n in range(2, 5)]
    elsewhere = await bench.perform(bench.action(9, endpoint=BILLS))
    assert elsewhere.status == "done"
    assert len(wecom.called(WELCOME)) == 1, "nobody calls a frozen scope"
    assert {outcome.status for outcome in await asyncio.gather(limited, *others)} == {"done"}
    first, *later = (call.at for call in wecom.called(WELCOME))
    assert min(later) - first >= 1.0


async def test_a_frozen_action_expires_at_its_deadline_without_another_call(wecom: FakeWecom, build: Build) -> None:
    bench = build(seconds=3600)
    wecom.on(WELCOME, {"errcode": 45009})
    outcome = await bench.perform(bench.action(deadline_ms=bench.clock.now_ms() + 500))
    assert end(outcome) == ("expired", "deadline_passed", 45009, 1)


async def test_a_concurrency_limit_lowers_the_concurrency(wecom: FakeWecom, build: Build) -> None:
    bench = build(concurrency=4)
    wecom.on(WELCOME, {"errcode": 45033}, {"errcode": 0})
    assert end(await bench.perform(bench.action())) == ("done", "ok", 0, 2)
    wecom.most_at_once.clear()
    wecom.on(WELCOME, Slow(0.03, {"errcode": 0}))
    await asyncio.gather(*(bench.perform(bench.action(n)) for n in range(12)))
    assert wecom.most_at_once[WELCOME] == 3


async def test_never_more_at_once_than_allowed_and_never_above_the_limit(wecom: FakeWecom, build: Build) -> None:
    bench = build(concurrency=4, limit=20, seconds=1)
    wecom.on(WELCOME, Slow(0.005, {"errcode": 0}))
    await asyncio.gather(*(bench.perform(bench.action(n)) for n in range(60)))
    assert wecom.most_at_once[WELCOME] <= 4
    arrivals = [call.at for call in wecom.called(WELCOME)]
    assert len(arrivals) == 60
    assert max(sum(a <= at <= a + 1.0 for at in arrivals) for a in arrivals) <= 20


async def test_the_most_urgent_goes_first(wecom: FakeWecom, build: Build) -> None:
    bench = build(concurrency=1)
    gate = Hang()
    wecom.on(WELCOME, gate, {"errcode": 0})
    tasks = [asyncio.create_task(bench.perform(bench.action(0)))]
    await wecom.wait_for_calls(WELCOME, 1)
    now = bench.clock.now_ms()
    tasks += [asyncio.create_task(bench.perform(bench.action(n, deadline_ms=now + 10_000 - n))) for n in range(1, 6)]
    await asyncio.sleep(0)
    gate.released.set()
    await asyncio.gather(*tasks)
    assert [c.body["welcome_code"] for c in wecom.called(WELCOME) if c.body] == ["w0", "w5", "w4", "w3", "w2", "w1"]


@pytest.mark.parametrize("trouble", [Drop(), Raw(b"<html>Bad Gateway</html>", status=502), Raw(b"<html>", status=200)])
async def test_no_usable_answer_is_followed_by_a_repeat(wecom: FakeWecom, build: Build, trouble: object) -> None:
    """The code is single-use: if the first call was carried out, WeCom says so to the second."""
    bench = build()
    wecom.on(WELCOME, trouble, {"errcode": 41051})  # type: ignore[arg-type]
    assert end(await bench.perform(bench.action())) == ("already_done", "already_welcomed", 41051, 2)


async def test_silence_until_the_deadline_leaves_a_write_in_doubt_and_a_read_expired(
    wecom: FakeWecom, build: Build
) -> None:
    bench = build(timeout=0.2)
    wecom.on(WELCOME, Hang())
    wecom.on(BILLS, Hang())
    soon = bench.clock.now_ms() + 700
    welcome, bills = await asyncio.gather(
        bench.perform(bench.action(deadline_ms=soon)), bench.perform(bench.action(endpoint=BILLS, deadline_ms=soon))
    )
    assert (welcome.status, welcome.detail) == ("failed", "outcome_unknown")
    assert (bills.status, bills.detail) == ("expired", "deadline_passed")


async def test_a_refused_connection_is_retried_within_the_deadline_and_is_no_call(build: Build) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        bench = build(base_url=f"http://127.0.0.1:{unused.getsockname()[1]}/cgi-bin")
        outcome = await bench.perform(bench.action(deadline_ms=bench.clock.now_ms() + 1500))
    assert end(outcome) == ("expired", "deadline_passed", 0, 0)


async def test_wecom_coming_back_in_time_is_in_time(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    wecom.on("gettoken", Drop(), {"errcode": 0, "access_token": "t", "expires_in": 7200})
    wecom.valid.add("t")
    assert end(await bench.perform(bench.action())) == ("done", "ok", 0, 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"deadline_ms": START - 1}, ("expired", "deadline_passed", 0, 0)),
        ({"endpoint": "externalcontact/del_external_contact"}, ("rejected", "endpoint_not_allowed", 0, 0)),
        ({"endpoint": "externalcontact/add_msg_template"}, ("failed", "needs_ledger", 0, 0)),
        ({"endpoint": "message/send"}, ("failed", "needs_ledger", 0, 0)),
        ({"payload": b"no json"}, ("rejected", "payload_malformed", 0, 0)),
        ({"corp_id": "ww404"}, ("rejected", "corp_unknown", 0, 0)),
    ],
)
async def test_what_ends_without_any_call(
    wecom: FakeWecom, build: Build, changes: dict[str, object], expected: tuple[str, str, int, int]
) -> None:
    bench = build()
    assert end(await bench.perform(bench.action(**changes))) == expected  # type: ignore[arg-type]
    assert wecom.calls == []


async def test_not_before_is_waited_for_in_business_time(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    task = asyncio.create_task(bench.perform(bench.action(not_before_ms=START + 30_000, deadline_ms=START + 60_000)))
    await asyncio.sleep(0.05)
    assert wecom.called(WELCOME) == []
    bench.clock.jump_ms = 30_000
    assert end(await asyncio.wait_for(task, 10)) == ("done", "ok", 0, 1)


async def test_an_action_without_a_deadline_is_held_no_longer_than_its_lane_says(
    wecom: FakeWecom, build: Build
) -> None:
    bench = build(seconds=3600, hold=0.4)
    wecom.on(WELCOME, {"errcode": 45009})
    assert end(await bench.perform(bench.action(deadline_ms=0))) == ("expired", "held_too_long", 45009, 1)


async def test_one_corps_trouble_is_not_anothers(wecom: FakeWecom, build: Build) -> None:
    bench = build(seconds=3600)
    wecom.on(WELCOME, {"errcode": 45009}, {"errcode": 0})
    stuck = asyncio.create_task(bench.perform(bench.action(1)))
    await wecom.wait_for_calls(WELCOME, 1)
    outcome = await asyncio.wait_for(bench.perform(bench.action(2, corp_id="ww2", subject="ww2|c2")), 10)
    assert outcome.status == "done"
    stuck.cancel()


async def test_a_stop_ends_a_call_under_way_properly_and_begins_no_other(wecom: FakeWecom, build: Build) -> None:
    bench = build(concurrency=2)
    gate = Hang()
    wecom.on(WELCOME, gate, {"errcode": -1}, {"errcode": 0})
    answered, retrying = Ticket(), Ticket()
    first = asyncio.create_task(bench.perform(bench.action(1), answered))
    await wecom.wait_for_calls(WELCOME, 1)
    second = asyncio.create_task(bench.perform(bench.action(2), retrying))
    await wecom.wait_for_calls(WELCOME, 2)
    assert answered.calling
    answered.stopping = retrying.stopping = True
    gate.released.set()
    assert (await first).status == "done"
    with pytest.raises(Abandoned):
        await second
    assert len(wecom.called(WELCOME)) == 2


async def test_calls_are_measured_by_endpoint_and_code(wecom: FakeWecom, build: Build) -> None:
    bench = build()
    wecom.on(WELCOME, {"errcode": 41050}, {"errcode": 777777}, Drop(), {"errcode": 0})
    for number in range(3):
        await bench.perform(bench.action(number))

    def count(errcode: str) -> float | None:
        return bench.registry.get_sample_value(
            "siyu_executor_call_seconds_count", {"endpoint": WELCOME, "errcode": errcode}
        )

    assert [count(code) for code in ("41050", "other", "unknown", "0", "777777")] == [1, 1, 1, 1, None]
    assert [used for _, used in bench.limiter.usage()[f"ww1|{WELCOME}"]] == [4]
