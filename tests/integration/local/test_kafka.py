"""The local broker: keeps its data whatever ends it, dies with its starter, and says clearly why it cannot start."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.local.errors import DataFolderInUse, MissingPrerequisite, PortTaken, StartFailed
from deploy.local.kafka import LocalKafka
from deploy.local.kafka.jars import kafka_version, require_java, resolve_jars
from deploy.local.ports import answers, free_ports

pytestmark = pytest.mark.integration

QUIET = {"log_level": 0}


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalKafka]:
    """For tests that end it."""
    (port,) = free_ports(1)
    with LocalKafka(tmp_path / "kafka", port) as broker:
        yield broker


def write(broker: LocalKafka, topic: str, values: list[bytes]) -> None:
    settings = {"bootstrap.servers": broker.bootstrap, "acks": "all", "transactional.id": "writer", **QUIET}
    producer = Producer(settings)
    producer.init_transactions()
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, key=value)
    producer.commit_transaction()


def read(broker: LocalKafka, topic: str, count: int) -> set[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": f"reader-{time.monotonic_ns()}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            **QUIET,
        }
    )
    consumer.subscribe([topic])
    found: set[bytes] = set()
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        found |= {message.value() for message in consumer.consume(100, 0.2) if not message.error()}
    consumer.close()
    return found


def gone(pid: int) -> bool:
    """True when the process is dead (a zombie is)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_records_outlive_a_kill_and_a_stop(own_broker: LocalKafka) -> None:
    admin = AdminClient({"bootstrap.servers": own_broker.bootstrap, **QUIET})
    admin.create_topics([NewTopic("kept", num_partitions=4)])["kept"].result(timeout=30)
    values = [str(i).encode() for i in range(100)]
    write(own_broker, "kept", values)
    # A kill between the decision to commit and its markers may hold readers back until the producer's next transaction
    # (README, "Known limits"): what is claimed is that what could be read before can be read after.
    assert read(own_broker, "kept", 100) == set(values)
    for end in (own_broker.kill, own_broker.stop):
        end()
        assert own_broker.exit_status is not None
        own_broker.start()
        own_broker.wait_ready()
        assert read(own_broker, "kept", 100) == set(values)


def test_topics_are_never_made_by_accident(kafka: LocalKafka) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, **QUIET})
    assert "undeclared" not in admin.list_topics("undeclared", timeout=10).topics or (
        admin.list_topics("undeclared", timeout=10).topics["undeclared"].error is not None
    )
    assert "undeclared" not in admin.list_topics(timeout=10).topics


def test_a_taken_port_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is already in use.*SIYU_KAFKA_BOOTSTRAP"):
            LocalKafka(tmp_path, port).start()


def test_a_folder_is_served_once(kafka: LocalKafka) -> None:
    (port,) = free_ports(1)
    second = LocalKafka(kafka.data_dir, port)
    with pytest.raises(DataFolderInUse, match="another process already serves"):
        second.start()
    with pytest.raises(StartFailed, match="already runs"):
        kafka.start()


@pytest.mark.parametrize(("program", "package"), [("java", "openjdk-17-jre-headless"), ("mvn", "maven")])
def test_a_missing_program_names_its_package_and_the_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPrerequisite) as missing:
        _ = require_java() if program == "java" else resolve_jars(tmp_path / "cache")
    assert f"apt-get install {package}" in str(missing.value)
    assert "docker compose up" in str(missing.value)
    assert len(str(missing.value).splitlines()) == 1


def test_an_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(MissingPrerequisite, match=r"version 11.*openjdk-17-jre-headless"):
        require_java()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_in_the_foreground_it_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "deploy.local.kafka", "--data-dir", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as foreground:
        assert foreground.stdout is not None
        assert foreground.stdout.readline().startswith(f"Kafka {kafka_version()} ready on 127.0.0.1:{port}")
        (java,) = (
            int(pid) for pid in Path(f"/proc/{foreground.pid}/task/{foreground.pid}/children").read_text().split()
        )
        os.kill(foreground.pid, number)
        assert foreground.wait(30) == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    deadline = time.monotonic() + 30
    # A process shows as dead while its last threads still hold the port.
    while not (gone(java) and not answers("127.0.0.1", port)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(java)
    assert not answers("127.0.0.1", port)
