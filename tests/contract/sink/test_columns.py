"""The sink's columns are the tables' columns: every one it writes exists with that type, and none is left out."""

from __future__ import annotations

import pytest

from deploy.local.clickhouse import LocalClickHouse
from services.sink.domain import TABLES, Table
from siyu.events import schemas_dir
from siyu.warehouse import connect
from siyu.warehouse.migrations import migrate

pytestmark = pytest.mark.integration

COMPUTED = {"written_at", "net_fen"}
"""Filled by ClickHouse."""


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_sink_writes_every_column_with_its_type(table: Table, clickhouse: LocalClickHouse, database: str) -> None:
    client = connect(clickhouse.url, database=database)
    migrate(client, schemas_dir() / "clickhouse")
    described = {row[0]: row for row in client.query(f"DESCRIBE TABLE {table.name}").result_rows}
    written = {column.name: column.type for column in table.columns}
    assert {name: described[name][1] for name in written} == written
    assert set(described) - set(written) <= COMPUTED
    assert all(described[name][2] == "DEFAULT" for name in set(described) - set(written))
    assert all(row[4] for row in described.values()), "every column has a comment"
    client.close()
