"""The operator's view over the real broker and the real engine; rows are written as the sink writes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.kafka import LocalKafka
from services.sink.clickhouse import Warehouse
from services.sink.domain import ACTION, ACTION_OUTCOME
from siyu.actions.operations import Operations
from siyu.actions.records import Records
from siyu.actions.store import ActionStore
from siyu.events import Event, codec, schemas_dir
from siyu.ops.clock import SystemClock
from siyu.ops.topics import Cluster, load_topics
from siyu.warehouse import connect
from siyu.warehouse.migrations import migrate

# Modules of this folder, which is no package.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def topics(kafka: LocalKafka) -> None:
    """Every topic as declared."""
    wanted = load_topics(schemas_dir() / "topics.yaml", "local")
    cluster = Cluster(kafka.bootstrap)
    cluster.apply(cluster.difference(wanted), wanted)


@pytest.fixture
def corp_id(unique_name: Callable[[str], str]) -> str:
    """A corp nobody else has."""
    return unique_name("ww")


@pytest.fixture
def client(clickhouse: LocalClickHouse, database: str) -> Iterator[Client]:
    """A migrated database of the test's own."""
    client = connect(clickhouse.url, database=database)
    migrate(client, schemas_dir() / "clickhouse")
    yield client
    client.close()


@pytest.fixture
def store(clickhouse: LocalClickHouse, client: Client, database: str) -> Iterator[ActionStore]:
    """What is under test."""
    store = ActionStore(clickhouse.url, database=database)
    yield store
    store.close()


@pytest.fixture
def insert(clickhouse: LocalClickHouse, client: Client, database: str) -> Iterator[Callable[..., None]]:
    """Rows of ledger entries and outcomes."""
    warehouse = Warehouse(clickhouse.url, user="default", password="", database=database, timeout_s=30)

    def write(*facts: Event) -> None:
        for table in (ACTION, ACTION_OUTCOME):
            if rows := [fact for fact in facts if isinstance(fact, table.fact)]:
                warehouse.insert(table, rows)

    yield write
    warehouse.close()


@pytest.fixture
def send(kafka: LocalKafka, topics: None) -> Callable[..., None]:
    """Appends one event and waits for the broker: `send("actions.bulk", key, event)`."""

    def produce(topic: str, key: str, event: Event) -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random"})
        producer.produce(topic, key=key.encode(), value=codec().encode(event))
        assert producer.flush(30) == 0

    return produce


@pytest.fixture
def operations(kafka: LocalKafka, topics: None, store: ActionStore) -> Operations:
    """As the command line makes them."""
    records = Records(kafka.bootstrap)
    return Operations(store, records, SystemClock(), records.controls, records.quotas)
