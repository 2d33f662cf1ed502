"""The guard as a process on a broker of its own, and a reader of everything it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from siyu.events import Event, codec, schemas_dir
from siyu.ops.topics import Cluster, load_topics


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker of this module's own: the services' topics have fixed names, and other tests run services too."""
    (port,) = free_ports(1)
    broker = LocalKafka(tmp_path_factory.mktemp("kafka"), port)
    broker.start()
    try:
        broker.wait_ready()
        cluster = Cluster(broker.bootstrap)
        topics = load_topics(schemas_dir() / "topics.yaml", "local")
        cluster.apply(cluster.difference(topics), topics)
        yield broker
    finally:
        broker.stop()


class GuardProcess:
    """``python -m services.guard``, as often as it is started; its log outlives it."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SIYU_")},
            "SIYU_KAFKA_BOOTSTRAP": bootstrap,
            "SIYU_STATE_DIR": str(folder / "state"),
            "SIYU_METRICS_PORT": "0",
            "PYTHONUNBUFFERED": "1",
        }
        self._log = folder / "guard.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.guard"],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(40)

    def text(self) -> str:
        return self._log.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def kill_if_running(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def guard(own_kafka: LocalKafka, tmp_path: Path) -> Iterator[GuardProcess]:
    process = GuardProcess(own_kafka.bootstrap, tmp_path)
    process.start()
    try:
        yield process
    finally:
        process.kill_if_running()


class Reader:
    """Every committed record of some topics, from their beginning."""

    def __init__(self, bootstrap: str, *topics: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
            }
        )
        known = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign([TopicPartition(t, p, 0) for t in topics for p in known[t].partitions])
        self.messages: list[Message] = []

    def until(self, done: Callable[[list[Message]], bool], what: Callable[[], str] = str) -> None:
        """Reads on until it is so. How long that takes is nothing a test decides: only never is a failure."""
        deadline = time.monotonic() + 90
        while not done(self.messages):
            assert time.monotonic() < deadline, what()
            self.messages += [m for m in self._consumer.consume(500, 0.2) if m.error() is None]

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def reader(own_kafka: LocalKafka) -> Iterator[Reader]:
    """Of guard.state, guard.audit, guard.signals and the dead letters."""
    reader = Reader(own_kafka.bootstrap, "guard.state", "guard.audit", "guard.signals", "dlq.guard")
    try:
        yield reader
    finally:
        reader.close()


@pytest.fixture
def send(own_kafka: LocalKafka) -> Callable[..., None]:
    """``send(topic, key, event or bytes)``"""

    def produce(*records: tuple[str, str, Event | bytes]) -> None:
        producer = Producer({"bootstrap.servers": own_kafka.bootstrap, "partitioner": "murmur2_random", "acks": "all"})
        for topic, key, value in records:
            producer.produce(topic, value if isinstance(value, bytes) else codec().encode(value), key.encode())
        assert producer.flush(30) == 0

    return produce
