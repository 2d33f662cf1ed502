"""What finance reads: the newest revision only, every row once, and cheaply by key."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from deploy.local.clickhouse import LocalClickHouse
from siyu.events import schemas_dir
from siyu.warehouse import connect
from siyu.warehouse.migrations import migrate

pytestmark = pytest.mark.integration


@pytest.fixture
def client(clickhouse: LocalClickHouse, database: str) -> Iterator[Client]:
    client = connect(clickhouse.url, database=database)
    migrate(client, schemas_dir() / "clickhouse")
    yield client
    client.close()


def insert(client: Client, table: str, *rows: dict[str, Any]) -> None:
    for row in rows:
        client.insert(table, [list(row.values())], column_names=list(row))


def day(staff_id: str, date: str, revision: int, **counters: int) -> dict[str, Any]:
    return {
        "corp_id": "ww1",
        "staff_id": staff_id,
        "day": datetime.date.fromisoformat(date),
        "revision": revision,
        **counters,
    }


def order(order_id: str, revision: int, staff_id: str, gross: int, refunded: int = 0) -> dict[str, Any]:
    return {
        "corp_id": "ww1",
        "order_id": order_id,
        "revision": revision,
        "staff_id": staff_id,
        "gross_fen": gross,
        "refunded_fen": refunded,
    }


def test_the_newest_revision_counts_whatever_the_order_and_number_of_the_writes(client: Client) -> None:
    rows = [order("o1", 1, "s1", 100), order("o1", 3, "s2", 100, 40), order("o1", 2, "s1", 100, 40)]
    insert(client, "orders", *rows, *rows)
    insert(client, "order_history", *rows, *rows)
    newest = client.query("SELECT revision, staff_id, net_fen FROM orders_now").result_rows
    assert newest == [(3, "s2", 60)]
    history = client.query("SELECT revision, net_fen FROM order_history_now ORDER BY revision").result_rows
    assert history == [(1, 100), (2, 60), (3, 60)]


def test_a_staff_member_s_total_adds_up_the_newest_state_of_every_day(client: Client) -> None:
    insert(
        client,
        "staff_day",
        day("s1", "2026-09-30", 1, adds=5, lost_by_customer=1, orders=2, gross_fen=300, refunded_fen=50, refunds=1),
        day("s1", "2026-10-01", 1, adds=9),
        day("s1", "2026-10-01", 2, adds=2, lost_by_staff=1, lost_by_transfer=1, gross_fen=70, orders=1),
        day("s2", "2026-10-01", 1, unmatched_refunds=1, unmatched_refund_fen=30),
    )
    columns = "staff_id, first_day, last_day, adds, net_customers, orders, gross_fen, refunded_fen, net_fen"
    rows = client.query(f"SELECT {columns}, unmatched_refund_fen FROM staff_total_now ORDER BY staff_id").result_rows
    assert [(row[0], str(row[1]), str(row[2]), *row[3:]) for row in rows] == [
        ("s1", "2026-09-30", "2026-10-01", 7, 4, 3, 370, 50, 320, 0),
        ("s2", "2026-10-01", "2026-10-01", 0, 0, 0, 0, 0, 0, 30),
    ]


def test_sales_that_nobody_is_credited_with_are_listed_until_somebody_is(client: Client) -> None:
    insert(client, "orders", order("o1", 1, "", 100), order("o2", 1, "", 200), order("o3", 1, "s1", 300))
    assert client.query("SELECT order_id FROM uncredited_orders_now ORDER BY order_id").result_rows == [
        ("o1",),
        ("o2",),
    ]
    insert(client, "orders", order("o1", 2, "s1", 100), order("o3", 2, "", 300))
    assert client.query("SELECT order_id FROM uncredited_orders_now ORDER BY order_id").result_rows == [
        ("o2",),
        ("o3",),
    ]


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("SELECT * FROM orders_now WHERE corp_id = 'ww1' AND order_id = 'o1'", "order_id"),
        ("SELECT * FROM relationship_now WHERE corp_id = 'ww1' AND staff_id = 's1'", "staff_id"),
        ("SELECT * FROM staff_day_now WHERE corp_id = 'ww1' AND staff_id = 's1'", "staff_id"),
        ("SELECT * FROM staff_total_now WHERE corp_id = 'ww1' AND staff_id = 's1'", "staff_id"),
        ("SELECT * FROM action_outcome_now WHERE corp_id = 'ww1' AND action_id = 'a1'", "action_id"),
    ],
)
def test_a_view_asked_by_key_reads_by_the_primary_key(client: Client, query: str, key: str) -> None:
    insert(client, "orders", order("o1", 1, "s1", 100))
    insert(client, "staff_day", day("s1", "2026-10-01", 1))
    client.insert("relationship", [["ww1", "s1", "c1"]], column_names=["corp_id", "staff_id", "customer_id"])
    client.insert("action_outcome", [["ww1", "a1"]], column_names=["corp_id", "action_id"])
    lines = [row[0].strip() for row in client.query(f"EXPLAIN indexes = 1 {query}").result_rows]
    # A partitioned table tells of its partitions first.
    keys = lines[lines.index("PrimaryKey") :]
    condition = next(line for line in keys if line.startswith("Condition:"))
    assert key in condition
    assert "corp_id" in condition
