from __future__ import annotations

from pathlib import Path

import pytest

from siyu.events import schemas_dir
from siyu.warehouse import MigrationError, WarehouseError, connect
from siyu.warehouse.migrations import load, split_statements

CREATE = "CREATE TABLE IF NOT EXISTS t (x Int8) ENGINE = Null;\n"


def files(folder: Path, **contents: str) -> Path:
    for name, content in contents.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(content)
    return folder


def test_the_shipped_migrations_are_in_order_and_repeatable() -> None:
    migrations = load(schemas_dir() / "clickhouse")
    assert [m.version for m in migrations] == list(range(1, len(migrations) + 1))


def test_a_checksum_changes_with_the_file(tmp_path: Path) -> None:
    before = load(files(tmp_path, m0001_a=CREATE))[0].checksum
    assert load(files(tmp_path, m0001_a=CREATE + "-- more\n"))[0].checksum != before


def test_a_statement_ends_with_a_semicolon_at_the_end_of_a_line_that_is_no_comment() -> None:
    text = "-- first; of two;\nSELECT ';' AS a,\n  1;\n\n-- second\nSELECT 2;\n-- the end\n"
    assert split_statements(text) == ("-- first; of two;\nSELECT ';' AS a,\n  1", "-- second\nSELECT 2")


def test_a_statement_that_does_not_end_is_an_error() -> None:
    with pytest.raises(MigrationError, match="does not end"):
        split_statements("SELECT 1")


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        ({}, "holds no migrations"),
        ({"m0001_a": CREATE, "m0003_c": CREATE}, "0003_c.sql: expected number 0002"),
        ({"m0001_a": CREATE, "m0001_b": CREATE}, "0001_b.sql: expected number 0002"),
        ({"first": CREATE}, "first.sql: migrations are named"),
        ({"m0001_a": "-- nothing\n"}, "0001_a.sql: holds no statement"),
        ({"m0001_a": "CREATE TABLE t (x Int8) ENGINE = Null;\n"}, "statement 1 could not be repeated"),
        ({"m0001_a": CREATE + "INSERT INTO t VALUES (1);\n"}, "statement 2 could not be repeated"),
        ({"m0001_a": "ALTER TABLE t ADD COLUMN y Int8;\n"}, "statement 1 could not be repeated"),
        ({"m0001_a": "DROP TABLE t;\n"}, "statement 1 could not be repeated"),
    ],
)
def test_files_that_could_not_be_run_safely_are_refused_by_name(
    tmp_path: Path, contents: dict[str, str], complaint: str
) -> None:
    with pytest.raises(MigrationError, match=complaint):
        load(files(tmp_path, **contents))


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("127.0.0.1:8123", "must look like"),
        ("clickhouse://127.0.0.1", "must look like"),
        ("http://siyu:hidden@127.0.0.1:8123", "must not hold credentials"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_quoted(url: str, complaint: str) -> None:
    with pytest.raises(WarehouseError, match=complaint) as refused:
        connect(url)
    assert "hidden" not in str(refused.value)
