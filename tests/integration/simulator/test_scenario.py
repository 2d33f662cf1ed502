"""Whole scenarios in one process: the truth is the same twice, faults of the receiver, and the jump of the clock."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from simulator.apps import apps_of
from simulator.delivery import Deliverer, DeliveryPolicy
from simulator.metrics import SimulatorMetrics
from simulator.sender import Answer, Target
from simulator.server import planner
from simulator.settings import SimulatorSettings
from simulator.simulation import NotIdle, Simulation
from siyu.ops.clock import FileClock, wall_ms, write_segments
from siyu.ops.corps import Corp
from siyu.wecom.crypto import CallbackCrypto

START_MS = 1_760_000_000_000
CORPS = {
    corp_id: Corp(
        corp_id=corp_id,
        agent_id="1000002",
        secret="s",
        callback_token="QDG6eK",
        callback_aes_key="jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C",
    )
    for corp_id in ("wwtest0000000001", "wwtest0000000002")
}


class FastClock:
    """Business time that moves on a second each time somebody looks: a day passes as fast as it is played."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        self.ms += 1_000
        return self.ms


class Receiver:
    """Opens what arrives; ``answer`` decides the status by how often this callback came."""

    def __init__(self, answer: Callable[[int], int] = lambda _: 200) -> None:
        self.answer = answer
        self.copies: dict[bytes, int] = {}

    async def post(self, target: Target, query: str, body: bytes, *, timeout_s: float) -> Answer:
        corp_id = urlsplit(target.url).path.rpartition("/")[2]
        corp = CORPS[corp_id]
        encrypted = re.search(rb"<Encrypt><!\[CDATA\[(.*?)\]\]>", body)
        assert encrypted is not None
        given = {name: values[0] for name, values in parse_qs(query).items()}
        message = CallbackCrypto(corp.callback_token, corp.callback_aes_key, corp_id).decrypt(
            given["msg_signature"], given["timestamp"], given["nonce"], encrypted[1].decode()
        )
        self.copies[message] = self.copies.get(message, 0) + 1
        await asyncio.sleep(0)
        return Answer(self.answer(self.copies[message]))

    async def close(self) -> None:
        pass


def simulation(settings: SimulatorSettings, clock, receiver: Receiver, **policy: float) -> Simulation:
    make_plan, _ = planner(settings, tuple(CORPS))
    fast = {"shuffle_s": 0.05, "duplicate_within_s": 0.05, "retry_s": (0.01, 0.02), **policy}
    deliverer = Deliverer(
        apps=apps_of(CORPS.values(), "http://receiver"),
        policy=DeliveryPolicy(seed=settings.seed, **fast),
        metrics=SimulatorMetrics(),
        sender=receiver,
    )
    return Simulation(settings, plan=make_plan, clock=clock, deliverer=deliverer)


async def play(made: Simulation) -> dict:
    made.begin()
    async with asyncio.timeout(60):
        await made.play()
    return made.status({})


def small(tmp_path: Path, **fields) -> SimulatorSettings:
    made = {"staff": 12, "customers": 150, "duration_seconds": 60, "truth_file": tmp_path / "truth.json", **fields}
    return SimulatorSettings(**made)


async def test_the_same_seed_and_start_write_the_same_file_twice(tmp_path):
    written = []
    for run in ("a", "b"):
        settings = small(tmp_path / run)
        status = await play(simulation(settings, FastClock(), Receiver()))
        assert status["state"] == "done"
        assert status["bills"]["visible"] == status["bills"]["total"] > 0
        assert settings.truth_file is not None
        written.append(settings.truth_file.read_bytes())
    assert written[0] == written[1]
    truth = json.loads(written[0])
    assert truth["callbacks"]["delivered"] == truth["callbacks"]["planned"] > 150
    assert truth["callbacks"]["duplicates"] > 0
    assert truth["scenario"] == "day"


async def test_every_callback_arrives_and_some_twice(tmp_path):
    receiver = Receiver()
    made = simulation(small(tmp_path), FastClock(), receiver)
    status = await play(made)
    counts = status["callbacks"]
    assert len(receiver.copies) == counts["planned"] == counts["delivered"]
    assert sum(receiver.copies.values()) == counts["attempts"] == counts["planned"] + counts["duplicates"]
    assert set(receiver.copies.values()) == {1, 2}


async def test_a_receiver_that_refuses_first_gets_everything_in_the_end(tmp_path):
    receiver = Receiver(answer=lambda copy: 503 if copy == 1 else 200)
    status = await play(simulation(small(tmp_path), FastClock(), receiver, duplicate_share=0.0))
    assert status["callbacks"]["delivered"] == status["callbacks"]["planned"]
    assert set(receiver.copies.values()) == {2}


async def test_a_receiver_that_always_refuses_loses_every_callback_after_three(tmp_path):
    receiver = Receiver(answer=lambda _: 500)
    made = simulation(small(tmp_path), FastClock(), receiver, duplicate_share=0.0)
    status = await play(made)
    counts = status["callbacks"]
    assert (counts["delivered"], counts["dropped"]) == (0, counts["planned"])
    assert set(receiver.copies.values()) == {3}
    assert status["state"] == "done", "loss ends the scenario too"


async def test_a_scenario_begins_once(tmp_path):
    made = simulation(small(tmp_path), FastClock(), Receiver())
    made.begin()
    with pytest.raises(NotIdle):
        made.begin()


async def test_the_truth_does_not_depend_on_what_the_receiver_did(tmp_path):
    good = simulation(small(tmp_path / "a"), FastClock(), Receiver())
    bad = simulation(small(tmp_path / "b"), FastClock(), Receiver(answer=lambda _: 500))
    await play(good)
    await play(bad)
    for part in ("relationships", "orders"):
        assert msgspec.json.encode(good.truth()[part]) == msgspec.json.encode(bad.truth()[part])


async def test_a_replay_waits_for_the_joins_then_jumps_and_slows_down_again(tmp_path):
    data = tmp_path / "retail.csv"
    lines = ["InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"]
    lines += [f"{500_000 + n},A,d,2,2011-01-{1 + n % 28:02d} 10:00:00,5.00,{10_000 + n % 120},UK" for n in range(200)]
    lines.append("C600000,A,d,-1,2011-02-01 10:00:00,5.00,10001,UK")
    data.write_text("\n".join(lines) + "\n")
    clock_file = tmp_path / "clock.json"
    settings = small(tmp_path, data=data, clock_file=clock_file, join_seconds=10, replay_seconds=2)
    _, begins_ms = planner(settings, tuple(CORPS))
    # Joins at twenty times the pace of a demonstration, so that codes grow old in a second.
    write_segments(clock_file, [{"wall_ms": wall_ms(), "business_ms": begins_ms, "rate": 20.0}])
    receiver = Receiver()
    made = simulation(settings, FileClock(clock_file), receiver)
    status = await play(made)
    assert status["state"] == "done"
    assert status["bills"] == {"total": 201, "visible": 201}
    first, fast, slow = json.loads(clock_file.read_text())
    assert first["business_ms"] == begins_ms, "old segments stay"
    assert fast["business_ms"] == made.plan.replay_from_s * 1000
    assert fast["rate"] > 1_000_000
    assert slow["rate"] == 1.0
    assert slow["business_ms"] >= made.plan.end_s * 1000
    assert slow["wall_ms"] - fast["wall_ms"] == 2_000
    later = [m for m in receiver.copies if b"WelcomeCode" in m and _time_s(m) >= made.plan.replay_from_s]
    assert later == []
    assert len(made.truth()["retail"]["customers"]) == 120


def _time_s(message: bytes) -> int:
    found = re.search(rb"<CreateTime>(\d+)<", message)
    assert found is not None
    return int(found[1])
