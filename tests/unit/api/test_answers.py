"""What the API answers: to people who may, to people who may not, and when a store is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_rig import BUSINESS_MS, TAG, Stores, known, outcome
from prometheus_client import CollectorRegistry

from services.api.http import MAX_BODY_BYTES, Api
from siyu.actions import control, retry
from siyu.actions.errors import Unavailable
from siyu.events import Action, codec
from siyu.ops.api_tokens import make_token
from siyu.ops.clock import wall_ms
from siyu.ops.logging import configure_logging
from siyu.wecom.endpoints import quota_scope

WHY = {"reason": "complaints of customers"}


def error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# Who may


async def test_a_token_that_is_not_in_force_opens_nothing(
    anonymous: httpx2.AsyncClient, secrets: dict[str, str]
) -> None:
    for header in ("", "Bearer", "Bearer ", "Bearer siyu_wrong", f"Basic {secrets['operator']}"):
        answer = await anonymous.get("/v1/pauses", headers={"Authorization": header})
        assert error(answer) == (401, "no_token")


async def test_a_token_works_and_ends_without_a_restart(
    anonymous: httpx2.AsyncClient, tokens: Path, stores: Stores
) -> None:
    new = {"Authorization": f"Bearer {make_token(tokens, 'new', 'reader')}"}
    assert (await anonymous.get("/v1/pauses", headers=new)).status_code == 200
    tokens.write_text("tokens: []\n")  # noqa: ASYNC240 a small file
    assert (await anonymous.get("/v1/pauses", headers=new)).status_code == 401


async def test_only_an_operator_sees_customers_and_the_log_says_that_one_did(
    reader: httpx2.AsyncClient, operator: httpx2.AsyncClient, stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("api")
    stores.actions = {"a1": known("a1")}
    for path in ("/v1/actions", "/v1/actions/a1", "/v1/quota"):
        assert error(await reader.get(path, params={"people": "true"})) == (403, "role_too_low")
    capsys.readouterr()
    assert (await operator.get("/v1/actions/a1", params={"people": "true"})).status_code == 200
    assert stores.people
    log = capsys.readouterr().out
    assert '"author":"li.wei"' in log
    assert '"action_id":"a1"' in log
    await reader.get("/v1/actions/a1")
    assert not stores.people


# Operators' words


async def test_a_repeat_goes_to_the_lane_of_the_first_with_its_author_and_reason(
    operator: httpx2.AsyncClient, stores: Stores
) -> None:
    stores.actions = {"a1": known("a1")}
    stores.outcomes = {"a1": outcome("a1")}
    answer = await operator.post("/v1/actions/a1/retry", json=WHY)
    assert answer.status_code == 202
    ((topic, key, value, headers),) = stores.appended
    assert (topic, key) == ("actions.bulk", quota_scope("ww1", TAG))
    action = codec().decode_as(Action, value)
    assert action.caused_by == "a1"
    assert answer.json()["action_id"] == action.action_id == retry.repeat_id("a1", 1)
    assert headers == {"operator": "li.wei", "operator.reason": WHY["reason"]}
    assert "wmPerson" not in answer.text
    again = await operator.post("/v1/actions/a1/retry", json=WHY)
    assert again.json()["action_id"] == action.action_id


async def test_a_send_that_was_accepted_in_part_is_not_repeated_as_a_whole(
    operator: httpx2.AsyncClient, stores: Stores
) -> None:
    stores.actions = {"a1": known("a1")}
    stores.outcomes = {"a1": outcome("a1")}
    stores.accepted = 3
    assert error(await operator.post("/v1/actions/a1/retry", json=WHY)) == (409, "parts_accepted")
    assert not stores.appended


async def test_a_repeat_needs_the_request_that_only_kafka_has(operator: httpx2.AsyncClient, stores: Stores) -> None:
    stores.actions = {"a1": known("a1")}
    assert error(await operator.post("/v1/actions/a1/retry", json=WHY)) == (409, "request_gone")


@pytest.mark.parametrize(
    ("state", "parent_id", "code"),
    [
        ("ended", "", "already_ended"),
        ("prepared", "p1", "part_of_another"),
        ("accepted", "", ""),
        ("in_doubt", "", ""),
        ("waiting", "", ""),
        ("prepared", "", ""),
    ],
)
async def test_an_action_is_cancelled_while_that_can_still_mean_something(
    state: str, parent_id: str, code: str, operator: httpx2.AsyncClient, stores: Stores
) -> None:
    stores.actions = {"a1": known("a1", state=state, status="done" if state == "ended" else None, parent_id=parent_id)}
    answer = await operator.post("/v1/actions/a1/cancel", json=WHY)
    if code:
        assert error(answer) == (409, code)
        assert not stores.appended
    else:
        (word,) = stores.words.values()
        assert (word.kind, word.action_id, word.corp_id, word.author) == ("cancel", "a1", "ww1", "li.wei")
        assert answer.json()["id"] == word.id


async def test_an_action_that_still_lies_in_its_lane_is_shown_and_cancelled(
    operator: httpx2.AsyncClient, stores: Stores
) -> None:
    stores.lanes = {"q1": retry.make_repeat(outcome("q1"), 1, now_ms=wall_ms())}
    shown = (await operator.get("/v1/actions/q1")).json()
    assert shown["action"]["state"] == "queued"
    assert shown["action"]["customer"].startswith("#")
    assert (await operator.post("/v1/actions/q1/cancel", json=WHY)).status_code == 202
    assert error(await operator.post("/v1/actions/q1/retry", json=WHY)) == (409, "not_ended")
    assert error(await operator.post("/v1/actions/q1/cancel", json=WHY, params={"corp_id": "ww2"}))[0] == 404


async def test_only_what_is_in_doubt_is_settled(operator: httpx2.AsyncClient, stores: Stores) -> None:
    stores.actions = {"d1": known("d1", state="in_doubt", status=None), "a1": known("a1")}
    verdict = WHY | {"verdict": "not_done"}
    assert (await operator.post("/v1/actions/d1/settle", json=verdict)).status_code == 202
    (word,) = stores.words.values()
    assert (word.kind, word.verdict) == ("settle", "not_done")
    assert error(await operator.post("/v1/actions/a1/settle", json=verdict)) == (409, "not_in_doubt")
    stores.doubtful = 1
    assert (await operator.post("/v1/actions/a1/settle", json=verdict)).status_code == 202
    assert error(await operator.post("/v1/actions/nope/settle", json=verdict)) == (404, "action_not_found")
    assert error(await operator.post("/v1/actions/d1/settle", json=WHY | {"verdict": "perhaps"}))[0] == 422


async def test_a_pause_is_listed_explains_its_actions_and_is_taken_back(
    operator: httpx2.AsyncClient, reader: httpx2.AsyncClient, stores: Stores
) -> None:
    stores.actions = {
        "held": known("held", state="waiting", status=None),
        "other": known("other", state="waiting", status=None, corp_id="ww2"),
    }
    made = await operator.post("/v1/pauses", json=WHY | {"corp_id": "ww1", "lane": "bulk"})
    assert made.status_code == 201
    pause_id = made.json()["id"]
    assert [p["id"] for p in (await reader.get("/v1/pauses")).json()["pauses"]] == [pause_id]
    assert [c["author"] for c in (await reader.get("/v1/actions/held")).json()["controls"]] == ["li.wei"]
    assert (await reader.get("/v1/actions/other")).json()["controls"] == []
    gone = f"/v1/pauses/{pause_id}"
    assert (await operator.delete(gone, params={"reason": "over"})).status_code == 200
    assert (await reader.get("/v1/pauses")).json()["pauses"] == []
    assert (await reader.get("/v1/actions/held")).json()["controls"] == []
    assert error(await operator.delete(gone, params={"reason": "over"})) == (404, "pause_not_found")


async def test_everything_is_paused_only_by_saying_so(operator: httpx2.AsyncClient, stores: Stores) -> None:
    assert error(await operator.post("/v1/pauses", json=WHY)) == (422, "invalid")
    assert error(await operator.post("/v1/pauses", json=WHY | {"everything": True, "lane": "bulk"}))[0] == 422
    assert (await operator.post("/v1/pauses", json=WHY | {"everything": True})).status_code == 201
    assert error(await operator.post("/v1/cancellations", json=WHY)) == (422, "invalid")


async def test_a_cancelled_campaign_explains_the_end_of_its_actions(
    operator: httpx2.AsyncClient, stores: Stores
) -> None:
    stores.actions = {"a1": known("a1", status="cancelled"), "a2": known("a2", status="cancelled", campaign_id="c2")}
    await operator.post("/v1/cancellations", json=WHY | {"campaign_id": "c1"})
    assert len((await operator.get("/v1/actions/a1")).json()["controls"]) == 1
    assert (await operator.get("/v1/actions/a2")).json()["controls"] == []


# Lists and limits


async def test_a_list_is_of_whole_actions_of_a_day_unless_more_is_asked_for(
    reader: httpx2.AsyncClient, stores: Stores
) -> None:
    await reader.get("/v1/actions")
    assert stores.asked is not None
    assert stores.asked.parent_id == ""
    assert stores.asked.since_ms == BUSINESS_MS - 86_400_000
    await reader.get("/v1/actions", params={"state": "in_doubt"})
    assert (stores.asked.parent_id, stores.asked.since_ms) == (None, 0)
    await reader.get("/v1/actions", params={"parent_id": "p1"})
    assert (stores.asked.parent_id, stores.asked.since_ms) == ("p1", 0)
    await reader.get("/v1/actions", params={"status": "blocked", "since_ms": "5", "staff_id": "s1"})
    assert (stores.asked.status, stores.asked.since_ms, stores.asked.staff_id) == ("blocked", 5, "s1")


@pytest.mark.parametrize(
    "parameters",
    [{"limit": "0"}, {"limit": "501"}, {"limit": "many"}, {"state": "lost"}, {"lane": "slow"}, {"people": "maybe"}],
)
async def test_a_list_of_something_else_is_refused_by_its_field(
    parameters: dict[str, str], reader: httpx2.AsyncClient
) -> None:
    answer = await reader.get("/v1/actions", params=parameters)
    assert error(answer) == (422, "invalid")
    assert answer.json()["error"]["field"] == next(iter(parameters))


async def test_a_parameter_given_twice_is_refused(reader: httpx2.AsyncClient) -> None:
    assert (await reader.get("/v1/actions?limit=1&limit=2")).json()["error"]["field"] == "limit"


async def test_limits_are_those_of_the_moment_asked_for(reader: httpx2.AsyncClient) -> None:
    def amount(answer: httpx2.Response) -> int:
        found = [x["amount"] for x in answer.json()["limits"] if x["id"] == "corp_api_minute"]
        assert len(found) == 1
        return int(found[0])

    now = await reader.get("/v1/limits")
    before = await reader.get("/v1/limits", params={"at": "2024-01-01"})
    assert amount(before) != amount(now)
    assert before.json()["next_change_ms"] is not None
    assert before.json()["since_ms"] <= before.json()["at_ms"] < before.json()["next_change_ms"]
    same = await reader.get("/v1/limits", params={"at": str(before.json()["at_ms"])})
    assert same.json() == before.json()
    assert all(limit["source"] for limit in now.json()["limits"])
    assert error(await reader.get("/v1/limits", params={"at": "noon"})) == (422, "invalid")


# Requests that are none, and stores that are away


async def test_a_path_or_method_there_is_not_has_the_form_of_every_refusal(operator: httpx2.AsyncClient) -> None:
    assert error(await operator.get("/v1/nothing")) == (404, "no_such_path")
    assert error(await operator.put("/v1/pauses")) == (405, "wrong_method")
    assert error(await operator.get("/v1/actions/nope")) == (404, "action_not_found")
    assert error(await operator.get(f"/v1/actions/{'a' * 201}")) == (422, "invalid")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", ""),
        (b"{", ""),
        (b"\xff", ""),
        (b"[]", ""),
        (b'{"reason": 7}', "reason"),
        (b'{"reason": "x", "colour": "red"}', "colour"),
        (b'{"reason": "x", "reason": "x", "lane": "slow"}', "lane"),
        (b'{"reason": "x", "lane": "bulk", "for_seconds": 0}', "for_seconds"),
    ],
)
async def test_a_body_that_is_none_is_refused_by_its_field(
    content: bytes, field: str, operator: httpx2.AsyncClient, stores: Stores
) -> None:
    answer = await operator.post("/v1/pauses", content=content)
    assert error(answer) == (422, "invalid")
    assert (answer.json()["error"]["field"] or "") == field
    assert not stores.appended


async def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(operator: httpx2.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 10_000

    assert error(await operator.post("/v1/pauses", content=b" " * (MAX_BODY_BYTES + 1))) == (413, "body_too_large")
    assert error(await operator.post("/v1/pauses", content=endless())) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/actions", None),
        ("GET", "/v1/actions/a1", None),
        ("POST", "/v1/actions/a1/retry", WHY),
        ("POST", "/v1/pauses", WHY | {"lane": "bulk"}),
    ],
)
async def test_while_a_store_is_away_one_is_told_when_to_ask_again(
    method: str, path: str, body: Any, operator: httpx2.AsyncClient, stores: Stores
) -> None:
    stores.broken = Unavailable("clickhouse_unavailable", "ClickHouse does not answer", 7)
    answer = await operator.request(method, path, json=body)
    assert error(answer) == (503, "clickhouse_unavailable")
    assert answer.headers["retry-after"] == "7"


async def test_a_defect_of_ours_is_an_answer_that_quotes_nothing_and_a_log_line_that_says_where(
    reader: httpx2.AsyncClient, stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("api")
    stores.page = lambda *_, **__: 1 / 0  # type: ignore[assignment,return-value]
    answer = await reader.get("/v1/actions")
    assert error(answer) == (500, "defect")
    assert "division" not in answer.text
    assert "ZeroDivisionError" in capsys.readouterr().out


async def test_more_requests_than_fit_are_told_to_come_again_and_the_others_are_served(
    reader: httpx2.AsyncClient, stores: Stores
) -> None:
    gate, inside = threading.Event(), threading.Semaphore(0)

    def wait(*_: Any, **__: Any) -> tuple[list[Any], None]:
        inside.release()
        assert gate.wait(30)
        return [], None

    stores.page = wait  # type: ignore[method-assign]
    served = [asyncio.create_task(reader.get("/v1/actions")) for _ in range(4)]
    for _ in served:
        assert await asyncio.to_thread(inside.acquire, timeout=30)
    refused = await reader.get("/v1/actions")
    assert error(refused) == (503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    gate.set()
    assert [answer.status_code for answer in await asyncio.gather(*served)] == [200] * 4


async def test_the_log_of_a_word_has_its_author_and_neither_the_reason_nor_a_customer(
    operator: httpx2.AsyncClient, stores: Stores, capsys: pytest.CaptureFixture[str], secrets: dict[str, str]
) -> None:
    configure_logging("api")
    stores.actions = {"a1": known("a1")}
    stores.outcomes = {"a1": outcome("a1")}
    await operator.post("/v1/actions/a1/retry", json=WHY)
    await operator.post("/v1/actions/nope/cancel", json=WHY)
    log = capsys.readouterr().out
    assert log.count('"event":"operator_asked"') == 2
    assert '"operation":"retryAction"' in log
    assert '"reason":"action_not_found"' in log
    assert '"author":"li.wei"' in log
    assert "undeclared" not in log
    for hidden in (WHY["reason"], "wmPerson", *secrets.values()):
        assert hidden not in log


async def test_every_request_is_counted_by_operation_and_status(
    reader: httpx2.AsyncClient, operator: httpx2.AsyncClient, stores: Stores, registry: CollectorRegistry, api: Api
) -> None:
    await reader.get("/v1/pauses")
    await reader.get("/v1/actions/nope")
    await reader.get("/elsewhere")
    await operator.post("/v1/pauses", json=WHY | {"lane": "bulk"})

    def requests(operation: str, status: str) -> float | None:
        return registry.get_sample_value("siyu_api_requests_total", {"operation": operation, "status": status})

    assert requests("listPauses", "200") == 1
    assert requests("showAction", "404") == 1
    assert requests("none", "404") == 1
    assert registry.get_sample_value("siyu_api_writes_total", {"operation": "pause"}) == 1
    assert registry.get_sample_value("siyu_api_in_flight") == 0
    assert registry.get_sample_value("siyu_api_tokens") == 2


def test_a_pause_made_here_and_one_made_by_the_command_line_are_one() -> None:
    made = control.pause_record(corp_id="ww1", reason="r", author="a", wall_ms=1)
    assert made.id == control.pause_id("ww1", "", "")
