"""Kafka away, frozen, killed, late or refusing: an honest 503 in time, bounded memory, and recovery by itself."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from services.ingest import kafka as ingest_kafka
from services.ingest.service import CannotStart, IngestService
from services.ingest.settings import Settings

pytestmark = pytest.mark.integration

# What the product promises its senders; the budget inside it is 3 s.
PROMISED_SECONDS = 4.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker of our own: these tests stop it."""
    broker = LocalKafka(tmp_path_factory.mktemp("own-kafka"), free_ports(1)[0])
    broker.start()
    try:
        broker.wait_ready()
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def own(broker: LocalKafka, create_topics: Callable[[str], None]) -> LocalKafka:
    create_topics(broker.bootstrap)
    return broker


@asynccontextmanager
async def frozen(broker: LocalKafka) -> AsyncIterator[None]:
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


@asynccontextmanager
async def killed(broker: LocalKafka) -> AsyncIterator[None]:
    await asyncio.to_thread(broker.kill)
    try:
        yield
    finally:
        broker.start()
        await asyncio.to_thread(broker.wait_ready)


async def answers_in_time(ingest: Any, platform: Any, count: int) -> set[str]:
    """Delivers some callbacks at once, each of which must be told 503 within the promise; returns the reasons."""

    async def one(number: int) -> str:
        began = time.monotonic()
        answer = await ingest.deliver(platform, platform.event(ExternalUserID=f"lost{number}"))
        took = time.monotonic() - began
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert took <= PROMISED_SECONDS
        return str(answer.text)

    return set(await asyncio.gather(*(one(number) for number in range(count))))


@pytest.mark.parametrize("outage", [frozen, killed])
async def test_503_in_time_while_the_broker_is_away_and_recovery_without_a_restart(
    own: LocalKafka, start_ingest: Any, new_platform: Any, read_topics: Any, outage: Any
) -> None:
    platform = new_platform()
    ingest = await start_ingest(own.bootstrap, platform)
    assert (await ingest.deliver(platform, platform.event(ExternalUserID="before"))).status_code == 200
    async with outage(own):
        assert await answers_in_time(ingest, platform, 5) <= {"kafka_slow", "kafka_down", "kafka_failed"}
        await ingest.becomes(503)
        assert (await ingest.ops("/livez")).status_code == 200
        await answers_in_time(ingest, platform, 5)
    await ingest.becomes(200)
    for number in range(5):
        await ingest.accepts(platform, platform.event(ExternalUserID=f"lost{number}"))
    stored = read_topics(own.bootstrap)
    expected = {f"{platform.corp_id}|{name}".encode() for name in ("before", *(f"lost{n}" for n in range(5)))}
    assert {record.key for record in stored.raw(platform)} == expected
    assert {record.key for record in stored.contact(platform)} == expected
    assert len({record.event.event_id for record in stored.contact(platform)}) == 6


async def test_a_broker_away_for_long_is_given_up_and_senders_are_told_at_once(
    own: LocalKafka, start_ingest: Any, new_platform: Any, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    monkeypatch.setattr(ingest_kafka, "_GIVE_UP_SECONDS", 0.5)
    monkeypatch.setattr(ingest_kafka, "_PROBE_EVERY_SECONDS", 0.2)
    monkeypatch.setattr(ingest_kafka, "_FLUSH_SECONDS", 0.5)
    platform = new_platform()
    ingest = await start_ingest(own.bootstrap, platform)

    async def told_at_once() -> bool:
        return await answers_in_time(ingest, platform, 1) == {"kafka_down"}

    async with frozen(own):
        await until(told_at_once)
    await ingest.becomes(200)
    assert (await ingest.deliver(platform)).status_code == 200
    assert 'siyu_ingest_producers_replaced_total{reason="' in (await ingest.ops("/metrics")).text


async def test_what_waits_for_a_frozen_broker_is_bounded(own: LocalKafka, start_ingest: Any, new_platform: Any) -> None:
    platform = new_platform()
    ingest = await start_ingest(own.bootstrap, platform, max_in_flight=8)
    async with frozen(own):
        reasons = await answers_in_time(ingest, platform, 40)
    assert reasons == {"kafka_slow", "overloaded"}
    await ingest.becomes(200)
    metrics = (await ingest.ops("/metrics")).text
    assert 'siyu_ingest_callbacks_total{outcome="unavailable",reason="overloaded"} 32.0' in metrics
    assert 'siyu_ingest_callbacks_total{outcome="unavailable",reason="kafka_slow"} 8.0' in metrics
    assert "siyu_ingest_in_flight 0.0" in metrics


async def test_a_record_the_broker_refuses_for_good_does_not_spoil_the_ones_after_it(
    own: LocalKafka, start_ingest: Any, new_platform: Any, read_topics: Any
) -> None:
    """It leaves a gap in the producer's sequence, after which that producer would never be accepted again."""
    platform = new_platform()
    ingest = await start_ingest(own.bootstrap, platform)
    assert (await ingest.deliver(platform)).status_code == 200
    set_limit(own.bootstrap, ingest_kafka.RAW_TOPIC, "2000")
    try:
        huge = platform.event(Padding=os.urandom(4000).hex())
        answer = await ingest.deliver(platform, huge)
        assert (answer.status_code, answer.text) == (503, "kafka_failed")
    finally:
        set_limit(own.bootstrap, ingest_kafka.RAW_TOPIC, "1048576")
    await ingest.accepts(platform)
    for _ in range(3):
        assert (await ingest.deliver(platform)).status_code == 200
    assert 'reason="MessageSizeTooLargeError"} 1.0' in (await ingest.ops("/metrics")).text
    stored = read_topics(own.bootstrap)
    assert len(stored.contact(platform)) == 5
    assert huge not in {record.event.personal for record in stored.raw(platform)}


async def test_a_start_without_kafka_lives_and_recovers(
    tmp_path: Path, start_ingest: Any, new_platform: Any, create_topics: Callable[[str], None]
) -> None:
    late = LocalKafka(tmp_path / "late", free_ports(1)[0])
    platform = new_platform()
    ingest = await start_ingest(late.bootstrap, platform, ready=False)
    assert (await ingest.ops("/livez")).status_code == 200
    assert (await ingest.ops("/readyz")).status_code == 503
    assert await answers_in_time(ingest, platform, 3) == {"kafka_down"}
    # Refusals need no Kafka.
    assert (await ingest.post(platform, content=b"")).status_code == 400
    late.start()
    try:
        await asyncio.to_thread(late.wait_ready)
        # The broker is there, the topics are not.
        assert await answers_in_time(ingest, platform, 1) == {"kafka_down"}
        assert (await ingest.ops("/readyz")).status_code == 503
        create_topics(late.bootstrap)
        await ingest.becomes(200)
        assert (await ingest.deliver(platform)).status_code == 200
    finally:
        late.stop()


async def test_a_process_stops_on_sigterm_after_answering_what_it_had_taken(
    own: LocalKafka, new_platform: Any, corps_file: Any, read_topics: Any, until: Any
) -> None:
    platform = new_platform()
    port, metrics_port = free_ports(2)
    process = start_process(own.bootstrap, corps_file(platform), port, metrics_port)
    url = f"http://127.0.0.1:{port}/callback/wecom/{platform.corp_id}"
    try:
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as client:
            await until(lambda: ready(client, metrics_port))
            async with frozen(own):
                waiting = [
                    asyncio.create_task(
                        client.post(url, **platform.request(platform.event(ExternalUserID=f"wm{number}")))
                    )
                    for number in range(4)
                ]
                await until(lambda: shows(client, metrics_port, "siyu_ingest_in_flight 4.0"))
                process.send_signal(signal.SIGTERM)
            assert {(await answer).status_code for answer in waiting} == {200}
        output, _ = await asyncio.to_thread(process.communicate, None, 30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert {record.key for record in read_topics(own.bootstrap).contact(platform)} == {
        f"{platform.corp_id}|wm{number}".encode() for number in range(4)
    }
    assert '"event":"stopped"' in output
    for secret in platform.entry["callback_token"], platform.entry["callback_aes_key"], "wm1", "zhangsan", "nonce":
        assert secret not in output


async def test_a_process_that_is_killed_loses_nothing_it_said_yes_to(
    own: LocalKafka, new_platform: Any, corps_file: Any, read_topics: Any, until: Any
) -> None:
    platform = new_platform()
    port, metrics_port = free_ports(2)
    url = f"http://127.0.0.1:{port}/callback/wecom/{platform.corp_id}"
    accepted: set[bytes] = set()
    enough = asyncio.Event()
    process = start_process(own.bootstrap, corps_file(platform), port, metrics_port)

    async def send(client: httpx2.AsyncClient, lane: int) -> None:
        number = 0
        while True:
            customer = f"wm{lane}-{number}"
            try:
                answer = await client.post(url, **platform.request(platform.event(ExternalUserID=customer)))
            except httpx2.TransportError:
                return
            assert answer.status_code == 200
            accepted.add(f"{platform.corp_id}|{customer}".encode())
            number += 1
            if len(accepted) > 100:
                enough.set()

    try:
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as client:
            await until(lambda: ready(client, metrics_port))
            senders = [asyncio.create_task(send(client, lane)) for lane in range(4)]
            await enough.wait()
            process.kill()
            await asyncio.gather(*senders)
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)
    stored = read_topics(own.bootstrap)
    raw = {record.key for record in stored.raw(platform)}
    contact = {record.key for record in stored.contact(platform)}
    assert accepted <= contact <= raw


def test_a_wrong_setting_ends_the_process_with_its_name(tmp_path: Path) -> None:
    process = start_process("127.0.0.1:1", tmp_path / "no-such-file.yaml", 0, 0)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "SIYU_CORPS" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", ["port", "metrics_port"])
def test_a_taken_port_is_named(new_platform: Any, corps_file: Any, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"port": 0, "metrics_port": 0} | {name: taken.getsockname()[1]}
        with pytest.raises(CannotStart, match=f"SIYU_{name.upper()}"):
            IngestService(Settings(corps=corps_file(new_platform()), **ports))


def set_limit(bootstrap: str, topic: str, max_message_bytes: str) -> None:
    entry = ConfigEntry("max.message.bytes", max_message_bytes, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(20)


def start_process(bootstrap: str, corps: Path, port: int, metrics_port: int) -> subprocess.Popen[str]:
    environment = os.environ | {
        "SIYU_KAFKA_BOOTSTRAP": bootstrap,
        "SIYU_CORPS": str(corps),
        "SIYU_PORT": str(port),
        "SIYU_METRICS_PORT": str(metrics_port),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "services.ingest"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def shows(client: httpx2.AsyncClient, metrics_port: int, line: str) -> bool:
    return line in (await client.get(f"http://127.0.0.1:{metrics_port}/metrics")).text


async def ready(client: httpx2.AsyncClient, metrics_port: int) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{metrics_port}/readyz")).status_code == 200
    except httpx2.TransportError:
        return False
