"""A whole simulator with the clock of its own, whose wall time the tests move, asked through HTTP without a socket."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from simulator.app import Control, build_app
from simulator.apps import App, apps_of
from simulator.clock import ClockSetting, WorldClock
from simulator.delivery import Deliverer, DeliveryPolicy
from simulator.metrics import SimulatorMetrics
from simulator.platform.gateway import Gateway
from simulator.scenario import Plan
from simulator.sender import Answer, Target
from simulator.settings import SimulatorSettings
from simulator.simulation import Simulation
from simulator.world.bills import COLLECTION, Bill
from simulator.world.corp import CorpWorld
from simulator.world.relations import ContactChange
from siyu.ops.corps import Corp

START_S = 1_760_000_000
CORP_ID = "wwtest0000000001"


@dataclass
class Wall:
    """Wall time that passes when a test says so."""

    ms: int = START_S * 1000

    def __call__(self) -> int:
        return self.ms


@dataclass
class Rig:
    """What a test of the control side talks to."""

    client: httpx2.AsyncClient
    wall: Wall
    clock: WorldClock
    simulation: Simulation
    gateway: Gateway
    corp: Corp
    accepted: list[httpx2.Request] = field(default_factory=list)

    @property
    def world(self) -> CorpWorld:
        return self.simulation.corps[self.corp.corp_id]

    async def ask(self, path: str, **query: Any) -> dict[str, Any]:
        response = await self.client.get(f"/_sim/{path}", params=query)
        assert response.status_code == 200, response.text
        return response.json()

    async def tell(self, path: str, body: Any, method: str = "POST") -> dict[str, Any]:
        response = await self.client.request(method, f"/_sim/{path}", json=body)
        assert response.status_code in (200, 201), response.text
        return response.json()

    async def step(self, seconds: float) -> None:
        assert (await self.tell("clock", {"advance_s": seconds}))["caught_up"]

    async def token(self, secret: str = "") -> str:
        query = {"corpid": self.corp.corp_id, "corpsecret": secret or self.corp.secret}
        return (await self.client.get("/cgi-bin/gettoken", params=query)).json()["access_token"]

    async def call(self, path: str, body: Any = None, *, token: str = "", **query: Any) -> int:
        """The errcode of a GET, or of a POST of ``body``."""
        query = {"access_token": token or await self.token(), **query}
        url = f"/cgi-bin/{path}"
        response = await (
            self.client.get(url, params=query) if body is None else self.client.post(url, params=query, json=body)
        )
        return response.json()["errcode"]

    def happen(self, change: str = "add", *, staff: str = "s1", customer: str = "wmC1", at_s: int = 1) -> str:
        """Moves the world; returns the welcome code that goes with it."""
        event = ContactChange(START_S + at_s, self.corp.corp_id, staff, customer, change, "qr-1", True)
        assert self.world.happen(event)
        return self.world.welcomes.issued[-1].code


def plan_of(start_s: int) -> Plan:
    bills = tuple(
        Bill(
            corp_id=CORP_ID,
            bill_type=COLLECTION,
            transaction_id=f"42{n:06d}",
            time_s=START_S + n,
            visible_ms=(START_S + n) * 1000,
            out_trade_no=f"T{n}",
            amount_fen=1_000 + n,
            payment_type=1,
            customer_id="wmC1",
            staff_id="s1",
        )
        for n in range(5)
    )
    story = (ContactChange(START_S + 86_400, CORP_ID, "s2", "wmC2", "add", "qr-2", True),)
    return Plan(
        scenario="test",
        seed=1,
        corps=(CORP_ID,),
        staff={CORP_ID: ("s1", "s2", "s3")},
        customers={CORP_ID: frozenset({"wmC1", "wmC2"})},
        contacts=story,
        others=(),
        bills=bills,
    )


@pytest.fixture
def sim_settings(request: pytest.FixtureRequest) -> SimulatorSettings:
    """Settings of the test's simulator; parametrise indirectly with a dict to change some."""
    return SimulatorSettings(**{"latency_milliseconds": 0, "seed": 1, **getattr(request, "param", {})})


@pytest.fixture
def corp() -> Corp:
    return Corp(
        corp_id=CORP_ID,
        agent_id="1000002",
        secret=secrets.token_hex(16),
        callback_token="QDG6eK",
        callback_aes_key="jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C",
    )


@pytest.fixture
def apps(corp: Corp) -> tuple[App, ...]:
    """The apps of the corp; a test module may have more of them."""
    return apps_of([corp], "http://receiver")


@pytest.fixture
async def idle_sim(sim_settings: SimulatorSettings, corp: Corp, apps: tuple[App, ...]) -> AsyncIterator[Rig]:
    """A simulator whose scenario has not begun and whose clock stands still."""
    accepted: list[httpx2.Request] = []

    class Receiver:
        async def post(self, target: Target, query: str, body: bytes, *, timeout_s: float) -> Answer:
            accepted.append(httpx2.Request("POST", f"{target.url}?{query}", content=body))
            return Answer(200)

        async def close(self) -> None:
            pass

    wall = Wall()
    clock = WorldClock(ClockSetting(rate=0.0), wall=wall)
    metrics = SimulatorMetrics()
    deliverer = Deliverer(
        apps=apps,
        policy=DeliveryPolicy(shuffle_s=0, duplicate_share=0),
        metrics=metrics,
        sender=Receiver(),
        clock_s=lambda: simulation.clock_s(),
    )
    simulation = Simulation(sim_settings, plan=plan_of, clock=clock, deliverer=deliverer)
    gateway = Gateway(
        sim_settings,
        apps,
        worlds=lambda: simulation.corps,
        now_ms=clock.now_ms,
        clock_s=simulation.clock_s,
        metrics=metrics,
    )
    control = Control(gateway, simulation, clock=clock)
    transport = httpx2.ASGITransport(app=build_app(control), client=("203.0.113.9", 40_000))
    async with httpx2.AsyncClient(transport=transport, base_url="http://wecom") as client:
        yield Rig(client, wall, clock, simulation, gateway, corp, accepted)
    if control.playing is not None:
        control.playing.cancel()
    await deliverer.close()


@pytest.fixture
async def sim(idle_sim: Rig) -> Rig:
    """A simulator whose scenario has begun; its clock stands still until it is moved."""
    await idle_sim.tell("start", {})
    return idle_sim
