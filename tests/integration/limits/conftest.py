"""A broker of its own: limits that these tests apply must not be in force for anybody else's executor."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from siyu.cli import app
from siyu.events import schemas_dir
from siyu.ops.topics import load_topics

SHIPPED = schemas_dir() / "limits"


@pytest.fixture(scope="package")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    (port,) = free_ports(1)
    started = LocalKafka(tmp_path_factory.mktemp("kafka-of-limits"), port)
    started.start()
    try:
        started.wait_ready()
        yield started
    finally:
        started.stop()


@pytest.fixture
def topics(broker: LocalKafka) -> Iterator[None]:
    """Topics `config` and `action.ledger` as declared, empty."""
    declared = load_topics(schemas_dir() / "topics.yaml", "local")
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    names = ("config", "action.ledger")
    new = [NewTopic(n, declared[n].partitions, 1, config=declared[n].config) for n in names]
    for made in admin.create_topics(new).values():
        made.result(timeout=30)
    # Both are acknowledged before the broker shows them.
    _until(lambda: set(names) <= set(admin.list_topics(timeout=30).topics))
    yield
    for gone in admin.delete_topics(list(names), operation_timeout=30).values():
        gone.result(timeout=30)
    _until(lambda: not set(names) & set(admin.list_topics(timeout=30).topics))


def _until(reached: Callable[[], bool]) -> None:
    for _ in range(600):
        if reached():
            return
        time.sleep(0.05)
    raise AssertionError("the broker does not show what it acknowledged")


@pytest.fixture
def siyu_limits(broker: LocalKafka) -> Callable[..., Result]:
    """Runs `siyu limits <arguments>` against the broker."""
    runner = CliRunner()
    return lambda command, *arguments: runner.invoke(
        app, ["limits", command, *arguments, "--kafka-bootstrap", broker.bootstrap]
    )


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[str], Path]:
    """The shipped limits with one more file."""

    def write(more: str) -> Path:
        folder = tmp_path / "limits"
        folder.mkdir(exist_ok=True)
        for path in SHIPPED.glob("*.yaml"):
            (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        (folder / "more.yaml").write_text(more, encoding="utf-8")
        return folder

    return write
