"""The real broker and the real engine for every test that asks for them: started once a session, at first use.

Names and ports are never shared: tests of several sessions may run on one machine at the same time.
"""

import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import settings

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports

# A timing is never asserted: a busy machine must not fail a property.
settings.register_profile("siyu", deadline=None)
settings.load_profile("siyu")

KEPT_LOGS = pytest.StashKey[list[Path]]()


@pytest.fixture(autouse=True)
def _logs_of_one_test() -> Iterator[None]:
    """A test that sets up logging binds it to its own captured output, which is gone afterwards."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """The session's broker: `.bootstrap`. Use `topic_factory` for topics nobody else writes to."""
    (port,) = free_ports(1)
    broker = LocalKafka(tmp_path_factory.mktemp("kafka"), port)
    broker.start()
    try:
        broker.wait_ready()
        yield broker
    finally:
        broker.stop()
        _keep_or_remove(request, broker.data_dir)


@pytest.fixture(scope="session")
def clickhouse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalClickHouse]:
    """The session's ClickHouse: `.url`. Use `database` for tables nobody else writes to."""
    (port,) = free_ports(1)
    server = LocalClickHouse(tmp_path_factory.mktemp("clickhouse"), port)
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()
        _keep_or_remove(request, server.data_dir)


@pytest.fixture
def unique_name() -> Callable[[str], str]:
    """A name no other test of any session has: `unique_name("orders")` → `orders_3f9a…`."""
    return lambda stem: f"{stem}_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def topic_factory(kafka: LocalKafka, unique_name: Callable[[str], str]) -> Callable[..., str]:
    """Create a topic with a name of its own: `topic_factory("orders", partitions=4, config={…})` → its name."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})

    def create(stem: str = "topic", partitions: int = 4, config: dict[str, str] | None = None) -> str:
        name = unique_name(stem)
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config or {})
        admin.create_topics([topic])[name].result(timeout=30)
        return name

    return create


@pytest.fixture
def database(clickhouse: LocalClickHouse, unique_name: Callable[[str], str]) -> Iterator[str]:
    """An empty ClickHouse database with a name of its own, dropped afterwards."""
    name = unique_name("test")
    clickhouse.execute(f"CREATE DATABASE {name}")
    yield name
    clickhouse.execute(f"DROP DATABASE {name} SYNC")


def _keep_or_remove(request: pytest.FixtureRequest, folder: Path) -> None:
    if request.session.testsfailed:
        request.config.stash.setdefault(KEPT_LOGS, []).append(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for folder in config.stash.get(KEPT_LOGS, []):
        terminalreporter.write_line(f"kept for the failures above: {folder}")
