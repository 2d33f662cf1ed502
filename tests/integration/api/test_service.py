"""The API as it runs: between the real broker and the real engine, and while one of them is away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from made import TAG, action, entry, outcome, scope

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from services.api.service import ApiService
from services.api.settings import Settings
from siyu.actions import retry
from siyu.actions.store import ActionStore
from siyu.events import ConfigRecord, QuotaState, schemas_dir
from siyu.limits import load_registry
from siyu.limits.source import records_of
from siyu.ops.api_tokens import make_token
from siyu.ops.clock import wall_ms
from siyu.warehouse import connect
from siyu.warehouse.migrations import migrate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

WHY = {"reason": "complaints of customers"}
PATIENCE_S = 60.0


@asynccontextmanager
async def running(settings: Settings, token: str) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
    """A service, a client that may everything, and the address of its health."""
    service = ApiService(settings)
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{service.port}", headers={"Authorization": f"Bearer {token}"}, timeout=60
        ) as client:
            yield client, f"http://127.0.0.1:{service.metrics_port}"
    finally:
        stop.set()
        await task


async def eventually(condition: Callable[[], Any], what: str) -> Any:
    """What the condition comes to, as soon as it is true."""
    until = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        found = await condition()
        if found:
            return found
        assert asyncio.get_running_loop().time() < until, f"did not happen within {PATIENCE_S:.0f} s: {what}"
        await asyncio.sleep(0.05)


@pytest.fixture
def settings(
    kafka: LocalKafka, clickhouse: LocalClickHouse, topics: None, store: ActionStore, database: str, tmp_path: Path
) -> Settings:
    """Of a service over the test's stores."""
    return Settings(
        kafka_bootstrap=kafka.bootstrap,
        clickhouse_url=clickhouse.url,
        clickhouse_database=database,
        api_port=0,
        metrics_port=0,
        api_tokens=tmp_path / "tokens.yaml",
    )


@pytest.fixture
def token(tmp_path: Path) -> str:
    """Of an operator."""
    return make_token(tmp_path / "tokens.yaml", "li.wei", "operator")


async def test_an_operator_sees_what_there_is_and_what_he_says_is_seen_at_once(
    token: str, settings: Settings, insert: Any, send: Any, corp_id: str, unique_name: Any
) -> None:
    failed, waiting = outcome(corp_id, unique_name("f")), action(corp_id, unique_name("q"))
    send("action.outcomes", failed.subject, failed)
    send("actions.bulk", scope(waiting), waiting)
    insert(failed, entry(corp_id, unique_name("d"), "in_doubt"))
    level = f"corp_api|{corp_id}|{TAG}"
    send("quota.state", level, QuotaState(level, corp_id, TAG, 0, b"", b'{"windows":[],"in_flight":3}', wall_ms()))
    async with running(settings, token) as (client, ops):

        async def ready() -> bool:
            async with httpx2.AsyncClient() as prober:
                return (await prober.get(f"{ops}/readyz")).status_code == 200

        await eventually(ready, "ready")
        page = (await client.get("/v1/actions", params={"corp_id": corp_id})).json()
        assert {one["state"] for one in page["actions"]} == {"ended", "in_doubt"}
        shown = await client.get(f"/v1/actions/{waiting.action_id}")
        assert shown.json()["action"]["state"] == "queued"
        repeated = await client.post(f"/v1/actions/{failed.action_id}/retry", json=WHY)
        assert repeated.status_code == 202
        assert repeated.json()["action_id"] == retry.repeat_id(failed.action_id, 1)
        in_its_lane = await client.get(f"/v1/actions/{repeated.json()['action_id']}")
        assert in_its_lane.json()["action"]["caused_by"] == failed.action_id

        made = await client.post("/v1/pauses", json=WHY | {"corp_id": corp_id})
        pauses = (await client.get("/v1/pauses")).json()["pauses"]
        assert made.json() in pauses
        gone = await client.delete(f"/v1/pauses/{made.json()['id']}", params={"reason": "over"})
        assert gone.status_code == 200
        assert made.json()["id"] not in [p["id"] for p in (await client.get("/v1/pauses")).json()["pauses"]]

        (found,) = (await client.get("/v1/quota", params={"corp_id": corp_id})).json()["levels"]
        assert found["in_flight"] == 3
        async with httpx2.AsyncClient() as prober:
            metrics = (await prober.get(f"{ops}/metrics")).text
        assert 'siyu_api_requests_total{operation="retryAction",status="202"} 1.0' in metrics
        assert corp_id not in metrics


async def test_limits_that_were_applied_are_those_that_are_shown(token: str, settings: Settings, send: Any) -> None:
    registry = load_registry(schemas_dir() / "limits")

    def put(record: ConfigRecord) -> None:
        send("config", f"{record.kind}|{record.id}", record)

    for record in records_of(registry, author="li", reason="test", written_at_ms=wall_ms()):
        put(record)
    async with running(settings, token) as (client, _):

        async def shown() -> bool:
            answer = await client.get("/v1/limits")
            return answer.status_code == 200 and bool(answer.json()["revision"] == registry.revision)

        await eventually(shown, "the limits of the topic")


async def test_while_the_stores_are_away_the_process_lives_says_so_and_serves_when_they_are_back(
    token: str, settings: Settings, tmp_path: Path
) -> None:
    (nobody, port) = free_ports(2)
    engine = LocalClickHouse(tmp_path / "clickhouse", port)
    away = settings.model_copy(
        update={"kafka_bootstrap": f"127.0.0.1:{nobody}", "clickhouse_url": engine.url, "clickhouse_database": "x"}
    )
    async with running(away, token) as (client, ops):
        async with httpx2.AsyncClient() as prober:
            assert (await prober.get(f"{ops}/readyz")).status_code == 503
            assert (await prober.get(f"{ops}/livez")).status_code == 200
        for path, code in (
            ("/v1/actions", "clickhouse_unavailable"),
            ("/v1/quota", "kafka_unavailable"),
            ("/v1/pauses", "kafka_unavailable"),
        ):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, code)
            assert int(answer.headers["retry-after"]) > 0
        word = await client.post("/v1/pauses", json=WHY | {"lane": "bulk"})
        assert (word.status_code, word.json()["error"]["code"]) == (503, "kafka_unavailable")
        assert (await client.get("/v1/limits")).status_code == 200

    back = settings.model_copy(update={"clickhouse_url": engine.url, "clickhouse_database": "default"})
    async with running(back, token) as (client, _):
        assert (await client.get("/v1/actions")).status_code == 503
        with engine:
            connection = await asyncio.to_thread(connect, engine.url, database="default")
            await asyncio.to_thread(migrate, connection, schemas_dir() / "clickhouse")
            connection.close()

            async def served() -> bool:
                return (await client.get("/v1/actions")).status_code == 200

            await eventually(served, "actions are listed again")


async def test_a_head_without_end_is_cut_off(token: str, settings: Settings) -> None:
    async with running(settings, token) as (client, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"GET /v1/pauses HTTP/1.1\r\nX-Long: ")
        answering = asyncio.create_task(reader.read(100))
        with contextlib.suppress(ConnectionError):
            while not answering.done():
                writer.write(b"x" * 10_000)
                await writer.drain()
                await asyncio.sleep(0)
        answer = await answering
        assert answer.startswith(b"HTTP/1.1 400")
        writer.close()


@pytest.mark.parametrize(
    ("content", "told"),
    [("tokens: 7", "a list `tokens`"), (None, "siyu api-token")],
)
def test_a_tokens_file_that_cannot_be_used_keeps_the_process_from_starting(
    content: str | None, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.yaml"
    if content is not None:
        path.write_text(content)
    own = {key: value for key, value in os.environ.items() if not key.startswith("SIYU_")}
    ended = subprocess.run(
        [sys.executable, "-m", "services.api"],
        env=own | {"SIYU_API_TOKENS": str(path), "SIYU_API_PORT": "0", "SIYU_METRICS_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    last = json.loads(ended.stdout.splitlines()[-1])
    assert last["event"] == "cannot_start"
    assert told in last["error_detail"]
