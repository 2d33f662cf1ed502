"""The command line: what it prints, and exit codes 0 (done), 1 (the answer is no), 2 (could not run)."""

from __future__ import annotations

import json
import uuid

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from siyu.cli import SERVICES, app

pytestmark = pytest.mark.integration

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def siyu():
    """Runs the command line."""
    runner = CliRunner()

    def run(*args: str):
        return runner.invoke(app, list(args))

    return run


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["topics", "apply"],
        ["migrate"],
        ["settings"],
        ["schemas"],
        ["audit"],
        ["demo"],
        ["dlq", "list"],
        ["dlq", "show"],
        ["dlq", "replay"],
        ["state", "get"],
        ["trace"],
    ],
)
def test_every_command_explains_itself(siyu, command: list[str]) -> None:
    result = siyu(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_an_unknown_service_is_named_with_those_there_are(siyu) -> None:
    result = siyu("run", "jurney")
    assert result.exit_code == 2
    assert "jurney" in result.output
    assert "journey" in result.output


def test_several_workers_are_for_services_that_divide_their_partitions(siyu, monkeypatch) -> None:
    refused = siyu("run", "sink", "--workers", "2")
    assert refused.exit_code == 2
    assert "sink runs as one process" in refused.output
    assert siyu("run", "journey", "--workers", "0").exit_code == 2
    monkeypatch.setenv("SIYU_INSTANCE", "x" * 64)
    too_long = siyu("run", "journey", "--workers", "2")
    assert too_long.exit_code == 2
    assert "SIYU_INSTANCE" in too_long.output
    assert "xxxx" not in too_long.output


@pytest.mark.parametrize("command", [["topics", "apply", "--yes"], ["dlq", "list"], ["dlq", "show", "sink"]])
def test_without_kafka_a_command_says_so_in_one_line_and_exits_with_2(siyu, command: list[str]) -> None:
    result = siyu(*command, "--kafka-bootstrap", NOWHERE)
    assert result.exit_code == 2
    assert "does not answer" in result.output
    assert "Traceback" not in result.output


def test_without_clickhouse_migrate_says_so_and_exits_with_2(siyu) -> None:
    result = siyu("migrate", "--clickhouse-url", f"http://{NOWHERE}")
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_topics_are_shown_then_applied_then_left_alone(siyu, kafka) -> None:
    to = ("--kafka-bootstrap", kafka.bootstrap)
    shown = siyu("topics", "apply", "--dry-run", *to)
    assert shown.exit_code == 0
    asked = siyu("topics", "apply", *to)
    done = siyu("topics", "apply", "--yes", *to)
    assert done.exit_code == 0
    again = siyu("topics", "apply", "--yes", *to)
    assert again.exit_code == 0
    assert "nothing to do" in again.output
    if "contact.events" in shown.output:
        # They were missing: showing them changed nothing, and without a terminal to ask on nothing was applied.
        assert asked.exit_code == 2
        assert "nothing applied" in asked.output
    assert "contact.events" in AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics
    refused = siyu("topics", "apply", "--yes", "--profile", "production", *to)
    assert refused.exit_code == 1
    assert "refused" in refused.output


def test_migrations_run_once(siyu, clickhouse) -> None:
    to = ("--clickhouse-url", clickhouse.url)
    assert siyu("migrate", "--dry-run", *to).exit_code == 0
    assert siyu("migrate", *to).exit_code == 0
    again = siyu("migrate", *to)
    assert again.exit_code == 0
    assert "nothing to do" in again.output


def test_dead_letters_are_listed_and_shown_without_their_content_and_replayed(siyu, kafka, topic_factory) -> None:
    to = ("--kafka-bootstrap", kafka.bootstrap)
    origin = topic_factory("origin", partitions=1)
    service = f"cli{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(f"dlq.{service}", num_partitions=1)])[f"dlq.{service}"].result(timeout=30)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    headers: list[tuple[str, str | bytes | None]] = [("origin.topic", origin), ("error.class", "KeyError")]
    producer.produce(f"dlq.{service}", key=b"k", value=b"13800000001", headers=headers)
    assert producer.flush(10) == 0

    listed = siyu("dlq", "list", *to)
    assert listed.exit_code == 0
    assert service in listed.output
    assert "KeyError" in listed.output
    shown = siyu("dlq", "show", service, *to)
    assert shown.exit_code == 0
    assert "bytes=11" in shown.output
    assert "13800000001" not in listed.output + shown.output
    assert siyu("dlq", "replay", service, *to).exit_code == 2
    assert siyu("dlq", "replay", service, "--offset", "0", *to).exit_code == 2
    none = siyu("dlq", "replay", service, "--partition", "0", "--offset", "99", "--yes", *to)
    assert none.exit_code == 0
    assert "no dead letters match" in none.output
    replayed = siyu("dlq", "replay", service, "--yes", *to)
    assert replayed.exit_code == 0
    assert "1 replayed" in replayed.output
    assert siyu("dlq", "show", "nobody", *to).exit_code == 2


def test_settings_of_every_service_are_printed_without_secrets(siyu, monkeypatch) -> None:
    monkeypatch.setenv("SIYU_CLICKHOUSE_PASSWORD", "hunter2hunter2")
    everything = siyu("settings")
    assert everything.exit_code == 0
    for service in SERVICES:
        assert service in everything.output
    assert "SIYU_KAFKA_BOOTSTRAP" in everything.output
    assert "hunter2" not in everything.output
    assert siyu("settings", "nobody").exit_code == 2


def test_schemas_that_cannot_read_each_other_are_refused(siyu, tmp_path) -> None:
    assert siyu("schemas").exit_code == 0
    (tmp_path / "avro").mkdir()
    (tmp_path / "ids.json").write_text(json.dumps({"r.v1": 1}))
    result = siyu("schemas", "--directory", str(tmp_path))
    assert result.exit_code == 1
    assert "no file" in result.output
