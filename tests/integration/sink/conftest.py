import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

# Modules of this folder, which is no package.
sys.path.append(str(Path(__file__).parent))

from service_process import ServiceProcess

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.kafka import LocalKafka
from siyu.events import schemas_dir
from siyu.ops.topics import Cluster, load_topics
from siyu.warehouse import connect
from siyu.warehouse.migrations import migrate


@pytest.fixture
def topics(kafka: LocalKafka) -> None:
    """Every topic as declared: the service has no other names for them."""
    wanted = load_topics(schemas_dir() / "topics.yaml", "local")
    cluster = Cluster(kafka.bootstrap)
    cluster.apply(cluster.difference(wanted), wanted)


@pytest.fixture
def warehouse(clickhouse: LocalClickHouse, database: str) -> Iterator[Client]:
    """A migrated database of the test's own."""
    client = connect(clickhouse.url, database=database)
    migrate(client, schemas_dir() / "clickhouse")
    yield client
    client.close()


@pytest.fixture
def start_sink(
    kafka: LocalKafka,
    clickhouse: LocalClickHouse,
    topics: None,
    database: str,
    tmp_path: Path,
) -> Iterator[Callable[..., ServiceProcess]]:
    """`start_sink(SIYU_…=…)` starts a sink that writes to the test's database; all are ended afterwards.

    They all bear one name, as a restarted instance does: each takes the partitions of the one before at once.
    """
    started: list[ServiceProcess] = []

    def start(**settings: str) -> ServiceProcess:
        environment = {
            "SIYU_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "SIYU_CLICKHOUSE_URL": clickhouse.url,
            "SIYU_CLICKHOUSE_DATABASE": database,
            **settings,
        }
        process = ServiceProcess("sink", environment, tmp_path / f"sink-{len(started)}.log")
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()
