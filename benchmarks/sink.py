"""Facts a second into ClickHouse: the sink, from Kafka to acknowledged rows, beside the same rows by the client.

The client inserts them without Kafka, in the same batches (what Kafka, decoding and bookkeeping cost), and row by row
(what batching gains). One run on one machine, with the real broker and the real engine, which it starts. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import structlog
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer
from prometheus_client import CollectorRegistry

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from services.sink.clickhouse import Warehouse
from services.sink.domain import ORDER_HISTORY, ORDERS, TOPICS
from services.sink.metrics import SinkMetrics
from services.sink.service import Sink
from services.sink.settings import Settings
from siyu.events import OrderFact, codec, schemas_dir
from siyu.ops.clock import wall_ms
from siyu.ops.topics import Cluster, load_topics
from siyu.warehouse import connect
from siyu.warehouse.migrations import migrate

TOPIC = "order.facts"
PAY_TIME = 1_790_913_600_000


def orders(count: int, revisions: int) -> Iterator[OrderFact]:
    """``count`` facts over ``count / revisions`` orders, revision by revision as they would arrive."""
    for number in range(count):
        order, revision = number // revisions, number % revisions + 1
        yield OrderFact(
            corp_id="wwbenchmark",
            order_id=f"4200002026{order:012d}",
            customer_id=f"wmAAAAAAAAAAAAAAAAAAAA{order % 100_000:08d}",
            revision=revision,
            staff_id=f"staff{order % 20_000:06d}",
            credit_rule="collector",
            paid=True,
            pay_time_ms=PAY_TIME + order * 100,
            gross_fen=1_000 + order % 9_000,
            refunded_fen=100 if revision > 1 else 0,
            refund_ids=["5000001"] if revision > 1 else [],
            refund_times_ms=[PAY_TIME] if revision > 1 else [],
            refund_amounts_fen=[100] if revision > 1 else [],
            payment_type=1,
            event_time_ms=PAY_TIME + order * 100,
            received_at_ms=wall_ms(),
            caused_by="0123456789abcdef0123456789abcdef",
        )


def fill(bootstrap: str, facts: list[OrderFact]) -> None:
    """Puts the facts into the topic, before anything is measured."""
    wanted = load_topics(schemas_dir() / "topics.yaml", "local")
    cluster = Cluster(bootstrap)
    cluster.apply(cluster.difference(wanted), wanted)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 50,
            "queue.buffering.max.messages": len(facts) + 1,
        }
    )
    for fact in facts:
        producer.produce(TOPIC, key=f"{fact.corp_id}|{fact.customer_id}".encode(), value=codec().encode(fact))
        producer.poll(0)
    producer.flush()


def through_the_sink(bootstrap: str, url: str, client: Client, rows: int, batch: int) -> float:
    """Seconds from the start of the loop, joining the group included, until every revision can be queried."""
    settings = Settings(
        kafka_bootstrap=bootstrap, clickhouse_url=url, sink_batch_rows=batch, log_events=False, log_level="error"
    )
    stop = threading.Event()
    sink = Sink(settings, SinkMetrics(CollectorRegistry()), stop)
    loop = threading.Thread(target=sink.run)
    began = time.perf_counter()
    loop.start()
    while int(client.query("SELECT count() FROM order_history").result_rows[0][0]) < rows:
        time.sleep(0.05)
    took = time.perf_counter() - began
    stop.set()
    loop.join()
    return took


def by_the_client(warehouse: Warehouse, facts: list[OrderFact], batch: int, *, newest: bool) -> float:
    """Seconds for the same rows into the same two tables, without Kafka; ``newest``: as the sink does."""
    began = time.perf_counter()
    for start in range(0, len(facts), batch):
        part = facts[start : start + batch]
        for table in TOPICS[TOPIC]:
            warehouse.insert(table, table.newest(part) if newest else part)
    return time.perf_counter() - began


def row_by_row(warehouse: Warehouse, facts: list[OrderFact]) -> float:
    """Seconds for one insert a row and table."""
    began = time.perf_counter()
    for fact in facts:
        for table in TOPICS[TOPIC]:
            warehouse.insert(table, [fact])
    return time.perf_counter() - began


def main() -> None:
    # Standard output is for the JSON alone.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=100_000, help="order facts; each is a row in two tables")
    parser.add_argument("--revisions", type=int, default=2, help="facts an order")
    parser.add_argument("--batch", type=int, default=20_000, help="facts a batch")
    parser.add_argument("--single", type=int, default=300, help="facts for the row-by-row comparison")
    asked = parser.parse_args()
    facts = list(orders(asked.facts, asked.revisions))
    kafka_port, clickhouse_port = free_ports(2)
    with (
        tempfile.TemporaryDirectory(prefix="siyu-benchmark-") as folder,
        LocalKafka(Path(folder) / "kafka", kafka_port) as kafka,
        LocalClickHouse(Path(folder) / "clickhouse", clickhouse_port) as clickhouse,
    ):
        client = connect(clickhouse.url)
        migrate(client, schemas_dir() / "clickhouse")
        fill(kafka.bootstrap, facts)
        warehouse = Warehouse(clickhouse.url, user="default", password="", database="siyu", timeout_s=60)
        by_the_client(warehouse, facts[:1000], asked.batch, newest=True)  # connections, caches, first parts
        for table in (ORDERS, ORDER_HISTORY):
            client.command(f"TRUNCATE TABLE {table.name}")
        seconds = {
            "sink": through_the_sink(kafka.bootstrap, clickhouse.url, client, len(facts), asked.batch),
            "client": by_the_client(warehouse, facts, asked.batch, newest=True),
            "client_without_newest_per_key": by_the_client(warehouse, facts, asked.batch, newest=False),
        }
        per_second = {name: len(facts) / took for name, took in seconds.items()}
        single = facts[: asked.single]
        per_second["row_by_row"] = len(single) / row_by_row(warehouse, single)
    print(
        json.dumps(
            {
                "facts": len(facts),
                "revisions": asked.revisions,
                "batch": asked.batch,
                "tables": [table.name for table in TOPICS[TOPIC]],
                "facts_per_second": {name: round(rate, 1) for name, rate in per_second.items()},
                "ratios": {
                    "sink_to_client": round(per_second["sink"] / per_second["client"], 2),
                    "sink_to_row_by_row": round(per_second["sink"] / per_second["row_by_row"], 1),
                    "newest_per_key_gain": round(per_second["client"] / per_second["client_without_newest_per_key"], 2),
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
