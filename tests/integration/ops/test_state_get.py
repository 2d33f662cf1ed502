"""`siyu state get` on the real broker: the newest state, whatever the disk lags behind, while the processor runs."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.cimpl import murmur2
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from deploy.local.kafka import LocalKafka
from siyu.cli import app
from siyu.events import schemas_dir
from siyu.ops.state import KeyState, Source, StateReadError, find_state, processor_of
from siyu.ops.topics import Cluster, load_topics
from siyu.stream import Context, Processor, Record, Runtime, StreamSettings
from siyu.stream.state import StateCodec

pytestmark = pytest.mark.integration

PARTITIONS = 4
FAR_AWAY = 4_102_444_800_000
"""2100-01-01: not due while the test runs."""


class Sum(msgspec.Struct, array_like=True):
    total: int


def summing(name: str) -> Processor[Sum]:
    """Adds up the numbers it reads; zero deletes the sum."""

    def step(key: str, record: Record, state: Sum | None, ctx: Context) -> Sum | None:
        if record.value == 0:
            return None
        ctx.set_timer("forget", FAR_AWAY)
        return Sum((state.total if state else 0) + record.value)

    return Processor(
        name=name,
        inputs=(f"{name}.numbers",),
        outputs=frozenset(),
        codec=SimpleNamespace(decode=msgspec.json.decode, encode=msgspec.json.encode),
        step=step,
        on_timer=lambda key, timer, state, ctx: state,
        state_type=Sum,
        state_version=1,
        dead_letters=f"dlq.{name}",
    )


class Running:
    """The processor as a member in this process, and the numbers it is given."""

    def __init__(self, bootstrap: str, name: str, folder: Path) -> None:
        self.processor = summing(name)
        self.folder = folder
        self._bootstrap = bootstrap
        admin = AdminClient({"bootstrap.servers": bootstrap})
        new = [NewTopic(topic, PARTITIONS, 1) for topic in (*self.processor.inputs, f"dlq.{name}")]
        new.append(NewTopic(self.processor.changelog, PARTITIONS, 1, config={"cleanup.policy": "compact"}))
        for made in admin.create_topics(new).values():
            made.result(timeout=30)
        self._producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
        # The disk follows only when it is closed: what a reader finds there is old on purpose.
        settings = StreamSettings(bootstrap, folder, batch_ms=20, write_back_ms=3_600_000, session_timeout_ms=6_000)
        self._runtime = Runtime(self.processor, settings, registry=CollectorRegistry())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._runtime.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def send(self, key: str, *numbers: int) -> None:
        for number in numbers:
            self._producer.produce(self.processor.inputs[0], str(number), key)
        assert self._producer.flush(30) == 0

    def find(self, key: str, source: Source = "newest") -> KeyState:
        return find_state(
            self.processor,
            key,
            bootstrap=self._bootstrap,
            state_dir=self.folder,
            source=source,
            progress=lambda *_: None,
        )

    def total(self, key: str, source: Source = "newest") -> int | None:
        stored = self.find(key, source).stored
        return None if stored is None else StateCodec(self.processor).decode(stored)[0].total

    def until(self, key: str, total: int | None) -> None:
        deadline = time.monotonic() + 60
        while self.total(key, "changelog") != total:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def running(kafka: LocalKafka, unique_name: Callable[[str], str], tmp_path: Path) -> Iterator[Running]:
    running = Running(kafka.bootstrap, unique_name("sums"), tmp_path)
    yield running
    running.stop()


def test_the_newest_state_is_found_while_the_processor_runs(running: Running) -> None:
    for key in ("k1", "k2", "k3"):
        running.send(key, 1, 2)
    running.until("k1", 3)
    running.until("k3", 3)
    newest = running.find("k1")
    assert newest.read_from == running.processor.changelog  # the disk does not have it yet
    assert newest.changelog_offset is not None
    assert newest.partition == murmur2(b"k1", PARTITIONS)
    assert newest.stored is not None
    assert StateCodec(running.processor).decode(newest.stored)[1] == {"forget": FAR_AWAY}
    assert running.total("k1") == 3
    assert running.total("k1", "store") is None
    assert running.find("nobody").stored is None

    running.send("k1", 10)
    running.send("k3", 0)
    running.until("k1", 13)
    running.until("k3", None)
    deleted = running.find("k3")
    assert deleted.stored is None
    assert deleted.changelog_offset is not None

    running.stop()
    stored = running.find("k1")
    assert stored.read_from == str(running.folder / running.processor.name / "0" / f"p{stored.partition}")
    assert stored.changelog_end is not None
    assert [running.total("k1", source) for source in ("newest", "store", "changelog")] == [13, 13, 13]

    shutil.rmtree(running.folder / running.processor.name)
    assert running.total("k1") == 13
    with pytest.raises(StateReadError, match="no store"):
        running.find("k1", "store")


@pytest.fixture
def siyu(kafka: LocalKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """The command line, pointed at the session's broker."""
    monkeypatch.setenv("SIYU_KAFKA_BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("SIYU_STATE_DIR", str(tmp_path))
    wanted = load_topics(schemas_dir() / "topics.yaml", "local")
    cluster = Cluster(kafka.bootstrap)
    cluster.apply(cluster.difference(wanted), wanted)
    runner = CliRunner()
    return lambda *args: runner.invoke(app, ["state", "get", *args])


def test_the_command_prints_json_and_says_no_with_1_and_cannot_with_2(siyu, kafka, unique_name) -> None:
    key = f"{unique_name('ww')}|li"
    nothing = siyu("planner", key)
    assert nothing.exit_code == 1
    assert "no state for this key" in nothing.output
    assert key not in nothing.output

    planner = processor_of("planner")
    state = msgspec.convert(([(5, "action-1")], 7), planner.state_type)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random"})
    producer.produce("planner.changelog", StateCodec(planner).encode(state), key)
    assert producer.flush(30) == 0
    shown = siyu("planner", key)
    assert shown.exit_code == 0
    found = json.loads(shown.stdout)
    assert found["state"] == {"recent": [{"event_time_ms": 5, "action_id": "action-1"}], "forgotten_ms": 7}
    assert (found["read_from"], found["key"]) == ("planner.changelog", key)

    assert siyu("plannr", key).exit_code == 2
    assert siyu("planner", key, "--from", "memory").exit_code == 2
    assert siyu("planner", key, "--from", "store").exit_code == 2
    away = siyu("planner", key, "--kafka-bootstrap", "127.0.0.1:1")
    assert away.exit_code == 2
    assert "does not answer" in away.stderr
    assert "Traceback" not in away.output
