"""Migrations on the real engine: twice, at the same time, after a crash, and with files that do not fit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from deploy.local import launch
from deploy.local.clickhouse import LocalClickHouse
from deploy.local.ports import free_ports
from siyu.events import schemas_dir
from siyu.warehouse import MigrationError, WarehouseUnavailable, connect, error_code
from siyu.warehouse.migrations import LEASE_S, LEDGER, LOCK, migrate, plan

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

SHIPPED = schemas_dir() / "clickhouse"
NAMES = [path.stem for path in sorted(SHIPPED.glob("*.sql"))]


@pytest.fixture
def client(clickhouse: LocalClickHouse, database: str) -> Iterator[Client]:
    client = connect(clickhouse.url, database=database)
    yield client
    client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped files that a test may change."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "clickhouse"))


def names(found: list[Any]) -> list[str]:
    return [migration.name for migration in found]


def tables(client: Client) -> set[str]:
    return {row[0] for row in client.query("SHOW TABLES").result_rows}


def ledger(client: Client) -> list[Any]:
    return list(client.query(f"SELECT version, count() FROM {LEDGER} GROUP BY version ORDER BY version").result_rows)


def test_everything_is_applied_in_order_once(client: Client) -> None:
    assert names(migrate(client, SHIPPED)) == NAMES
    assert migrate(client, SHIPPED) == []
    assert {"relationship", "orders", "order_history", "staff_day", "action_outcome"} <= tables(client)
    assert {
        f"{name}_now" for name in ("relationship", "orders", "staff_day", "action_outcome", "staff_total")
    } <= tables(client)
    assert ledger(client) == [(number + 1, 1) for number in range(len(NAMES))]


def test_the_database_is_created_when_missing(clickhouse: LocalClickHouse, unique_name: Any) -> None:
    client = connect(clickhouse.url, database=unique_name("new"))
    try:
        assert names(migrate(client, SHIPPED, dry_run=True)) == NAMES
        with pytest.raises(DatabaseError) as absent:
            client.query("SHOW TABLES")
        assert error_code(absent.value) == 81
        assert names(migrate(client, SHIPPED)) == NAMES
    finally:
        client.command(f"DROP DATABASE IF EXISTS {client.database}", use_database=False)
        client.close()


def test_a_dry_run_shows_what_is_pending_and_changes_nothing(client: Client, folder: Path) -> None:
    assert names(migrate(client, folder, dry_run=True)) == NAMES
    assert tables(client) == set()
    migrate(client, folder)
    (folder / f"{len(NAMES) + 1:04d}_more.sql").write_text("ALTER TABLE orders ADD COLUMN IF NOT EXISTS note String;\n")
    assert names(migrate(client, folder, dry_run=True)) == [f"{len(NAMES) + 1:04d}_more"]
    assert [step.state for step in plan(client, folder)] == ["applied"] * len(NAMES) + ["pending"]
    assert names(migrate(client, folder)) == [f"{len(NAMES) + 1:04d}_more"]


def test_a_file_that_changed_after_it_was_applied_is_refused_by_name(client: Client, folder: Path) -> None:
    migrate(client, folder)
    changed = folder / f"{NAMES[1]}.sql"
    changed.write_text(changed.read_text() + "\n")
    for dry_run in (True, False):
        with pytest.raises(MigrationError, match=f"{NAMES[1]}.sql changed"):
            migrate(client, folder, dry_run)


def test_an_older_release_beside_a_newer_one_changes_nothing(client: Client, folder: Path) -> None:
    migrate(client, SHIPPED)
    (folder / f"{NAMES[-1]}.sql").unlink()
    assert migrate(client, folder) == []


def test_files_of_another_database_are_refused(client: Client, folder: Path) -> None:
    migrate(client, SHIPPED)
    client.command(f"DELETE FROM {LEDGER} WHERE version = 1")
    with pytest.raises(MigrationError, match="belong to another database"):
        migrate(client, folder)


def test_a_refused_statement_names_its_file_and_the_next_run_begins_there(client: Client, folder: Path) -> None:
    broken = folder / f"{len(NAMES) + 1:04d}_broken.sql"
    broken.write_text(
        "ALTER TABLE orders ADD COLUMN IF NOT EXISTS note String;\n"
        "ALTER TABLE nothing ADD COLUMN IF NOT EXISTS x Int8;\n"
    )
    with pytest.raises(MigrationError, match=r"_broken\.sql: ClickHouse refused statement 2"):
        migrate(client, folder)
    assert ledger(client) == [(number + 1, 1) for number in range(len(NAMES))]
    broken.write_text("ALTER TABLE orders ADD COLUMN IF NOT EXISTS note String;\n")
    assert names(migrate(client, folder)) == [broken.stem]


PROCESS = """
import sys
from pathlib import Path
from siyu.warehouse import connect
from siyu.warehouse.migrations import migrate
client = connect(sys.argv[1], database=sys.argv[2])
sys.stdin.read()
print(len(migrate(client, Path(sys.argv[3]))))
"""


def processes(clickhouse: LocalClickHouse, database: str, folder: Path, count: int) -> list[subprocess.Popen[str]]:
    """Processes that have connected and wait for their standard input to end."""
    argv = [sys.executable, "-c", PROCESS, clickhouse.url, database, str(folder)]
    return [
        subprocess.Popen(
            launch.command(*argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]


def test_several_processes_at_the_same_time_apply_everything_once(
    clickhouse: LocalClickHouse, client: Client, database: str
) -> None:
    running = processes(clickhouse, database, SHIPPED, 4)
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    answers = []
    for process in running:
        assert process.stdout is not None
        assert process.stderr is not None
        answers.append(process.stdout.read().strip())
        assert process.wait(60) == 0, process.stderr.read()
    assert sorted(answers, key=int) == ["0", "0", "0", str(len(NAMES))]
    assert ledger(client) == [(number + 1, 1) for number in range(len(NAMES))]
    assert len([name for name in tables(client) if name.startswith(LOCK)]) == 1


def test_two_different_files_under_one_number_are_both_on_record_and_refused(client: Client, folder: Path) -> None:
    migrate(client, SHIPPED)
    checksum = "0" * 64
    client.insert(LEDGER, [[2, "0002_other", checksum, "somebody"]], ["version", "name", "checksum", "applied_by"])
    with pytest.raises(MigrationError, match=r"0002_orders.sql changed after it was applied"):
        migrate(client, folder)


def hold(client: Client, number: int, silent_s: int) -> None:
    client.command(f"CREATE DATABASE IF NOT EXISTS {client.database}", use_database=False)
    since = int(str(client.command("SELECT toUnixTimestamp(now())"))) - silent_s
    client.command(f"CREATE TABLE {LOCK}{number} (nothing UInt8) ENGINE = Null COMMENT 'held|elsewhere:1:abc|{since}'")


def test_a_lock_that_somebody_holds_is_waited_for_and_named(client: Client) -> None:
    hold(client, 7, silent_s=1)
    with pytest.raises(MigrationError, match="another process migrates"):
        migrate(client, SHIPPED, wait_s=0.3)
    assert "relationship" not in tables(client)


def test_a_lock_whose_holder_is_dead_is_taken_over_with_the_next_number(client: Client) -> None:
    hold(client, 7, silent_s=LEASE_S + 1)
    assert names(migrate(client, SHIPPED)) == NAMES
    assert {name for name in tables(client) if name.startswith(LOCK)} == {f"{LOCK}8"}


def test_a_holder_that_lost_its_lease_stops_before_the_next_statement(client: Client, folder: Path) -> None:
    """Another process takes over between two statements: the first ends with an error, and what it did stays right."""
    asked = client.command
    taken = False

    def interrupted(sql: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal taken
        answer = asked(sql, *args, **kwargs)
        if "CREATE TABLE IF NOT EXISTS orders" in str(sql) and not taken:
            taken = True
            hold(client, 2, silent_s=0)
        return answer

    client.command = interrupted  # type: ignore[method-assign]
    with pytest.raises(MigrationError, match="another process took over"):
        migrate(client, folder)
    client.command = asked  # type: ignore[method-assign]
    assert "order_history" not in tables(client)
    asked(f"ALTER TABLE {LOCK}2 MODIFY COMMENT 'free|elsewhere:1:abc|1'")
    assert names(migrate(client, folder)) == NAMES[1:]


def test_a_server_that_does_not_answer_is_named(unique_name: Any) -> None:
    (nobody,) = free_ports(1)
    with pytest.raises(WarehouseUnavailable, match="SIYU_CLICKHOUSE_URL"):
        connect(f"http://127.0.0.1:{nobody}", database=unique_name("none"))
