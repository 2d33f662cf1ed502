"""The OpenAPI document says what the API does: every operation is asked, every answer is as described."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest
from api_rig import TAG, Stores, known, outcome
from json_schema import Mismatch, check, resolve

from siyu.actions import control
from siyu.events import QuotaState, schemas_dir
from siyu.ops.clock import wall_ms

VIEW = {
    "windows": [
        {
            "id": "m",
            "window": "sliding 1 min",
            "used": 1,
            "amount": 10,
            "lanes": {"bulk": 8},
            "frozen_until_ms": 0,
            "rate_percent": 100,
        }
    ],
    "in_flight": 0,
}
PAUSE = control.pause_record(corp_id="ww1", reason="complaints", author="wang", wall_ms=wall_ms())
WHY = {"reason": "complaints of customers"}

# operationId → method, path, parameters, body
ASKED: dict[str, tuple[str, str, dict[str, Any], Any]] = {
    "listActions": ("GET", "/v1/actions", {"lane": "bulk", "limit": 1, "people": "true"}, None),
    "showAction": ("GET", "/v1/actions/failed", {}, None),
    "retryAction": ("POST", "/v1/actions/failed/retry", {}, WHY),
    "cancelAction": ("POST", "/v1/actions/waiting/cancel", {}, WHY),
    "settleAction": ("POST", "/v1/actions/doubtful/settle", {}, WHY | {"verdict": "done"}),
    "cancelScope": ("POST", "/v1/cancellations", {}, WHY | {"campaign_id": "c1"}),
    "listPauses": ("GET", "/v1/pauses", {}, None),
    "pause": ("POST", "/v1/pauses", {}, WHY | {"lane": "bulk", "for_seconds": 60}),
    "resume": ("DELETE", f"/v1/pauses/{PAUSE.id}", {"reason": "over"}, None),
    "showQuota": ("GET", "/v1/quota", {"corp_id": "ww1"}, None),
    "showLimits": ("GET", "/v1/limits", {"at": "2026-06-01T12:00"}, None),
}


@pytest.fixture
async def document(anonymous: httpx2.AsyncClient) -> dict[str, Any]:
    """As anybody may read it."""
    answer = await anonymous.get("/openapi.json")
    assert answer.status_code == 200
    read: dict[str, Any] = answer.json()
    return read


@pytest.fixture
def full(stores: Stores) -> Stores:
    """Something of everything."""
    stores.actions = {
        "failed": known("failed"),
        "waiting": known("waiting", state="waiting", status=None),
        "doubtful": known("doubtful", state="in_doubt", status=None),
    }
    stores.outcomes = {"failed": outcome("failed")}
    stores.words = {PAUSE.id: PAUSE}
    stores.quotas = [QuotaState(f"corp_api|ww1|{TAG}", "ww1", TAG, 1, b"", json.dumps(VIEW).encode(), wall_ms())]
    return stores


def operations(document: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """operationId → method, path, operation."""
    return {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def as_described(document: dict[str, Any], operation: dict[str, Any], answer: httpx2.Response) -> None:
    """The status is one of those described, and the body fits it."""
    described = operation["responses"][str(answer.status_code)]
    if "$ref" in described:
        described = resolve(described["$ref"], document)
    assert answer.headers["content-type"] == "application/json"
    check(answer.json(), described["content"]["application/json"]["schema"], document)


def test_every_operation_of_the_document_is_asked_below(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert operations(document).keys() == ASKED.keys()


@pytest.mark.parametrize("name", ASKED)
async def test_an_operation_answers_as_the_document_says(
    name: str, document: dict[str, Any], operator: httpx2.AsyncClient, full: Stores
) -> None:
    method, path, parameters, body = ASKED[name]
    described_method, _, operation = operations(document)[name]
    assert described_method == method
    answer = await operator.request(method, path, params=parameters, json=body)
    assert answer.is_success, answer.text
    as_described(document, operation, answer)
    assert {p["name"] for p in operation["parameters"] if p["in"] == "query"} >= parameters.keys()
    if body is not None:
        check(body, operation["requestBody"]["content"]["application/json"]["schema"], document)


@pytest.mark.parametrize("name", ASKED)
async def test_without_a_token_every_operation_refuses_as_the_document_says(
    name: str, document: dict[str, Any], anonymous: httpx2.AsyncClient, full: Stores
) -> None:
    method, path, parameters, body = ASKED[name]
    answer = await anonymous.request(method, path, params=parameters, json=body)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    as_described(document, operations(document)[name][2], answer)
    assert not full.appended


@pytest.mark.parametrize("name", ASKED)
async def test_a_parameter_nobody_declared_is_refused_as_the_document_says(
    name: str, document: dict[str, Any], operator: httpx2.AsyncClient, full: Stores
) -> None:
    method, path, parameters, body = ASKED[name]
    answer = await operator.request(method, path, params=parameters | {"colour": "red"}, json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "colour"
    as_described(document, operations(document)[name][2], answer)


@pytest.mark.parametrize("name", [name for name, (method, *_) in ASKED.items() if method != "GET"])
async def test_a_reader_writes_nothing(
    name: str, document: dict[str, Any], reader: httpx2.AsyncClient, full: Stores
) -> None:
    method, path, parameters, body = ASKED[name]
    answer = await reader.request(method, path, params=parameters, json=body)
    assert answer.status_code == 403
    as_described(document, operations(document)[name][2], answer)
    assert not full.appended


@pytest.mark.parametrize("name", [name for name, (method, *_) in ASKED.items() if method != "GET"])
@pytest.mark.parametrize("reason", [None, "", "   ", "r" * 501])
async def test_nothing_is_written_without_a_reason(
    name: str, reason: str | None, document: dict[str, Any], operator: httpx2.AsyncClient, full: Stores
) -> None:
    method, path, parameters, body = ASKED[name]
    given = {} if reason is None else {"reason": reason}
    if body is None:
        answer = await operator.request(method, path, params=given)
    else:
        rest = {key: value for key, value in body.items() if key != "reason"}
        answer = await operator.request(method, path, params=parameters, json=rest | given)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "reason"
    as_described(document, operations(document)[name][2], answer)
    assert not full.appended


def test_the_checker_of_these_tests_finds_what_does_not_fit() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    check({"a": None}, schema, {})
    for wrong in ({}, {"a": 0}, {"a": True}, {"a": "1"}, {"a": 1, "b": 2}):
        with pytest.raises(Mismatch):
            check(wrong, schema, {})


def test_the_page_about_the_api_names_every_operation_and_every_refusal(document: dict[str, Any]) -> None:
    page = (schemas_dir().parent / "docs/api.md").read_text()
    for method, path, operation in operations(document).values():
        row = next(line for line in page.splitlines() if line.startswith(f"| {method} | `{path}` |"))
        assert f"| {'operator' if 'operator' in operation['description'] else 'reader'} |" in row
        for parameter in operation["parameters"]:
            if parameter["in"] == "query" and parameter["name"] != "people" and method == "GET":
                assert parameter["name"] in row or path.endswith("{action_id}")
    code = "|".join((r'Refused\(\s*"(\w+)"', r'NotFound\(\s*"(\w+)"', r'_Stop\(\s*\d+, "(\w+)"'))
    for folder in ("siyu/actions", "services/api"):
        for file in (schemas_dir().parent / folder).glob("*.py"):
            for found in re.finditer(code, file.read_text()):
                assert f"`{next(filter(None, found.groups()))}`" in page
