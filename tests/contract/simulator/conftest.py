"""A platform in a small world with a clock that tests move, asked through HTTP without a socket."""

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from simulator.app import Control, build_app
from simulator.apps import apps_of
from simulator.delivery import Deliverer, DeliveryPolicy
from simulator.metrics import SimulatorMetrics
from simulator.platform.gateway import Gateway
from simulator.scenario import Plan
from simulator.sender import Answer, Target
from simulator.settings import SimulatorSettings
from simulator.simulation import Simulation
from simulator.world.bills import COLLECTION, REFUND, Bill
from simulator.world.corp import CorpWorld
from simulator.world.relations import Change, ContactChange
from siyu.ops.corps import Corp

START_S = 1_760_000_000
CORP_ID = "wwtest0000000001"


@dataclass
class HandClock:
    """Business time that stands still until a test moves it."""

    ms: int = START_S * 1000

    def now_ms(self) -> int:
        return self.ms


def bill(number: int, at_s: int, **fields: Any) -> Bill:
    made: dict[str, Any] = {
        "corp_id": CORP_ID,
        "bill_type": COLLECTION,
        "transaction_id": f"42{number:06d}",
        "time_s": START_S + at_s,
        "visible_ms": (START_S + at_s) * 1000,
        "out_trade_no": f"T{number}",
        "amount_fen": 1_000 + number,
        "payment_type": 1,
        "customer_id": "wmC1",
        "staff_id": "s1",
    }
    return Bill(**{**made, **fields})


def bills() -> tuple[Bill, ...]:
    collections = [bill(n, n, staff_id="s2" if n >= 6 else "s1") for n in range(8)]
    back = bill(
        100, 50, bill_type=REFUND, out_trade_no="T0", out_refund_no="R1", amount_fen=400, paid_fen=1_000, staff_id="s2"
    )
    late = bill(200, 3, visible_ms=(START_S + 30) * 1000)
    return (*collections, back, late)


@dataclass
class Wecom:
    """What a test talks to."""

    client: httpx2.AsyncClient
    clock: HandClock
    simulation: Simulation
    platform: Gateway
    corp: Corp
    accepted: list[httpx2.Request] = field(default_factory=list)
    _token: str = field(default="", repr=False)

    async def token(self) -> str:
        if not self._token:
            query = {"corpid": self.corp.corp_id, "corpsecret": self.corp.secret}
            self._token = (await self.client.get("/cgi-bin/gettoken", params=query)).json()["access_token"]
        return self._token

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        query = {"access_token": await self.token(), **query}
        return (await self.client.get(f"/cgi-bin/{path}", params=query)).json()

    async def post(self, path: str, body: Any = None, *, content: bytes | None = None, **query: str) -> dict[str, Any]:
        query = {"access_token": await self.token(), **query}
        sent = json.dumps(body).encode() if content is None else content
        response = await self.client.post(f"/cgi-bin/{path}", params=query, content=sent)
        assert response.status_code == 200
        return response.json()

    def happen(self, change: Change, *, staff: str = "s1", customer: str = "wmC1", at_s: int = 1) -> str:
        """Moves the world; returns the welcome code that goes with it."""
        event = ContactChange(START_S + at_s, self.corp.corp_id, staff, customer, change, "qr-1", True)
        issued = len(self.world.welcomes.issued)
        assert self.world.happen(event)
        return self.world.welcomes.issued[-1].code if len(self.world.welcomes.issued) > issued else ""

    @property
    def world(self) -> CorpWorld:
        return self.simulation.corps[self.corp.corp_id]

    def advance(self, seconds: float) -> None:
        """Moves the clock, and with it whatever becomes due."""
        self.clock.ms += round(seconds * 1000)
        while not self.simulation.advance(self.clock.ms // 1000):
            pass


@pytest.fixture
def sim_settings(request: pytest.FixtureRequest) -> SimulatorSettings:
    """Settings of the test's platform; parametrise indirectly with a dict to change some."""
    return SimulatorSettings(**{"latency_milliseconds": 0, "seed": 1, **getattr(request, "param", {})})


@pytest.fixture
def platform_rules(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Rules of the test's platform by section; parametrise indirectly to change some."""
    return getattr(request, "param", {})


@pytest.fixture
async def wecom(sim_settings: SimulatorSettings, platform_rules: dict[str, Any]) -> AsyncIterator[Wecom]:
    corp = Corp(
        corp_id=CORP_ID,
        agent_id="1000002",
        secret=secrets.token_hex(16),
        callback_token="QDG6eK",
        callback_aes_key="jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C",
    )
    accepted: list[httpx2.Request] = []

    class Receiver:
        async def post(self, target: Target, query: str, body: bytes, *, timeout_s: float) -> Answer:
            accepted.append(httpx2.Request("POST", f"{target.url}?{query}", content=body))
            return Answer(200)

        async def close(self) -> None:
            pass

    clock, metrics, apps = HandClock(), SimulatorMetrics(), apps_of([corp], "http://receiver")
    deliverer = Deliverer(
        apps=apps,
        policy=DeliveryPolicy(shuffle_s=0, duplicate_share=0),
        metrics=metrics,
        sender=Receiver(),
    )

    def plan(start_s: int) -> Plan:
        return Plan(
            scenario="test",
            seed=1,
            corps=(CORP_ID,),
            staff={CORP_ID: ("s1", "s2", "s3")},
            customers={CORP_ID: frozenset({"wmC1", "wmC2"})},
            contacts=(ContactChange(START_S + 60, CORP_ID, "s1", "wmC2", "add", "qr-2", True),),
            others=(),
            bills=bills(),
            rules=platform_rules,
        )

    simulation = Simulation(sim_settings, plan=plan, clock=clock, deliverer=deliverer)
    platform = Gateway(
        sim_settings,
        apps,
        worlds=lambda: simulation.corps,
        now_ms=clock.now_ms,
        clock_s=simulation.clock_s,
        metrics=metrics,
    )
    control = Control(platform, simulation)
    transport = httpx2.ASGITransport(app=build_app(control), client=("203.0.113.9", 40_000))
    async with httpx2.AsyncClient(transport=transport, base_url="http://wecom") as client:
        started = await client.post("/_sim/start")
        assert started.json() == {"state": "playing"}
        yield Wecom(client, clock, simulation, platform, corp, accepted)
    if control.playing is not None:
        control.playing.cancel()
    await deliverer.close()
