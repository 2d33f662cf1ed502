"""Callbacks of the simulated platform through ingest, planner and executor and back to it: each customer who may be
welcomed is, once, though the executor is killed in between; and the platform never saw a limit crossed."""

from collections import Counter
from collections.abc import Callable

import httpx2
import pytest
from executor_process import Topics, Worker, eventually

from deploy.local.ports import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


async def test_everybody_is_welcomed_once(worker: Callable[..., Worker], topics: Topics) -> None:
    platform_port, ingest_port = free_ports(2)
    base = f"http://127.0.0.1:{platform_port}"
    simulator = worker(
        "simulator",
        SIYU_PORT=str(platform_port),
        SIYU_SIM_CALLBACK_BASE=f"http://127.0.0.1:{ingest_port}",
        SIYU_SIM_STAFF="6",
        SIYU_SIM_CUSTOMERS="120",
        SIYU_SIM_DURATION_SECONDS="15",
        SIYU_SIM_SHUFFLE_SECONDS="0.5",
    )
    ingest = worker("services.ingest", SIYU_PORT=str(ingest_port))
    planner, executor = worker("services.planner"), worker("services.executor", f"{base}/cgi-bin")
    for process in (simulator, ingest, planner, executor):
        process.start()
    await executor.until_log("shard_opened", 4)
    async with httpx2.AsyncClient(base_url=base, trust_env=False) as platform:
        await _until_answers(platform, "/_sim/status", simulator)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{ingest_port}", trust_env=False) as edge:
            await _until_answers(edge, "/callback/wecom/ww1", ingest)
        await platform.post("/_sim/start")
        await executor.until_log("action_ended", 10)
        executor.kill()
        executor.start()

        status: dict[str, object] = {}

        def done() -> bool:
            nonlocal status
            status = httpx2.get(f"{base}/_sim/status", trust_env=False).json()
            return status["state"] == "done"

        await eventually(done, simulator.log, 120)
        issued = status["welcomes"]["issued"]  # type: ignore[index]
        assert issued > 50
        outcomes = await topics.until_outcomes("", issued, executor.log)
        truth = (await platform.get("/_sim/truth")).json()
        calls = (await platform.get("/_sim/status")).json()["calls"]
    for process in (planner, executor, ingest):
        assert await process.stop() == 0

    assert Counter(outcome.action_id for outcome in outcomes).most_common(1)[0][1] == 1
    welcomed = Counter(
        (o.corp_id, o.staff_id, o.customer_id, o.created_ms) for o in outcomes if o.status in ("done", "already_done")
    )
    sent = Counter(
        (w["corp_id"], w["staff_id"], w["customer_id"], w["event_time_ms"]) for w in truth["welcomes"] if w["sent"]
    )
    assert welcomed == sent
    assert len(outcomes) == issued == len(truth["welcomes"])
    assert {o.errcode for o in outcomes} <= {0, 41051}, "no limit error, no late code"
    # What the kill interrupted was called again; nothing else was.
    again = sum(o.status == "already_done" for o in outcomes)
    assert calls["externalcontact/send_welcome_msg"] <= issued + again + 8


async def _until_answers(client: httpx2.AsyncClient, path: str, process: Worker) -> None:
    def answers() -> bool:
        try:
            httpx2.get(f"{client.base_url}{path}", trust_env=False)
        except httpx2.TransportError:
            return False
        return True

    await eventually(answers, process.log)
