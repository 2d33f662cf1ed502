"""What ClickHouse documents about its HTTP interface, and what clickhouse-connect, curl and Grafana rely on.

Every statement here holds for a ClickHouse server too; only the last section is about what the local one leaves out.
"""

import gzip
import json
import os
import socket
import string
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clickhouse_connect
import httpx2
import lz4.frame
import pytest
from backports import zstd
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.errors import PortTaken, StartFailed
from deploy.local.ports import free_ports

pytestmark = pytest.mark.integration

PACK: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.decompress,
    "zstd": zstd.decompress,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


@pytest.fixture
def http(clickhouse: LocalClickHouse) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=clickhouse.url, timeout=30) as client:
        yield client


@pytest.fixture
def client(clickhouse: LocalClickHouse, database: str) -> Iterator[Client]:
    with connect(clickhouse, database) as opened:
        yield opened


@pytest.fixture
def table(clickhouse: LocalClickHouse, database: str) -> str:
    name = f"{database}.sale"
    clickhouse.execute(f"CREATE TABLE {name} (id UInt64, staff String, fen Int64) ENGINE = MergeTree ORDER BY id")
    return name


def connect(server: LocalClickHouse, database: str = "default", **options: object) -> Client:
    return clickhouse_connect.get_client(
        host=server.host, port=server.port, database=database, autogenerate_session_id=False, **options
    )


def raw(http: httpx2.Client, path: str, packed: str, **options: object) -> httpx2.Response:
    """An answer whose body is left as it came over the wire."""
    return http.send(http.build_request("POST", path, headers={"Accept-Encoding": packed}, **options), stream=True)


# ── Where the query may stand ──────────────────────────────────────────────────────────────────────────────────────


def test_a_query_stands_in_the_url_or_in_the_body_or_in_both(http: httpx2.Client) -> None:
    assert http.get("/", params={"query": "SELECT 1"}).text == "1\n"
    assert http.post("/", params={"query": "SELECT 2"}).text == "2\n"
    assert http.post("/", content="SELECT 3").text == "3\n"
    assert http.post("/", params={"query": "SELECT"}, content="4").text == "4\n"


def test_an_insert_may_have_its_head_in_the_url_and_its_rows_in_the_body(http: httpx2.Client, table: str) -> None:
    head = {"query": f"INSERT INTO {table} (id, fen) FORMAT JSONEachRow"}
    assert http.post("/", params=head, content='{"id":1,"fen":10}\n{"id":2,"fen":20}').status_code == 200
    everything = f"INSERT INTO {table} (id, fen) VALUES (3, 30), ({{id:UInt64}}, 40)"
    assert http.post("/", params={"param_id": "4"}, content=everything).status_code == 200
    assert http.post("/", content=f"SELECT id, fen FROM {table} ORDER BY id").text == "1\t10\n2\t20\n3\t30\n4\t40\n"


def test_rows_may_hold_words_and_signs_of_sql(http: httpx2.Client, table: str) -> None:
    staff = "FORMAT CSV; DROP TABLE 'x' -- /* \\"
    rows = json.dumps({"id": 1, "staff": staff})
    http.post("/", content=f"INSERT INTO {table} /* FORMAT Null */ FORMAT JSONEachRow\n{rows}").raise_for_status()
    answer = http.post("/", content=f"SELECT staff FROM {table} FORMAT JSONEachRow")
    assert json.loads(answer.text) == {"staff": staff}


def test_a_get_changes_nothing(http: httpx2.Client, table: str) -> None:
    for query in (f"INSERT INTO {table} (id) VALUES (1)", f"DROP TABLE {table}", f"TRUNCATE TABLE {table}"):
        answer = http.get("/", params={"query": query})
        assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (500, "164")
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "0\n"


def test_several_statements_in_one_request_are_refused(http: httpx2.Client) -> None:
    answer = http.post("/", content="SELECT 1; SELECT 2")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "62"
    assert http.post("/", content="SELECT ';' ;").text == ";\n"


# ── Health ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/ping", "/replicas_status"])
def test_health_addresses_say_ok(http: httpx2.Client, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.text) == (200, "Ok.\n")


def test_an_unknown_path_is_not_found(http: httpx2.Client) -> None:
    answer = http.post("/nowhere", content="SELECT 1")
    assert answer.status_code == 404
    assert answer.text.startswith("There is no handle /nowhere")


# ── Parameters and headers ─────────────────────────────────────────────────────────────────────────────────────────


def test_bound_parameters_are_values_never_text_of_the_query(http: httpx2.Client) -> None:
    answer = http.post(
        "/",
        params={"param_name": "it's; DROP\\ttab", "param_ids": "[1,2]", "param_table": "one"},
        content="SELECT {name:String} AS name, {ids:Array(UInt8)} AS ids FROM system.{table:Identifier} FORMAT JSON",
    )
    assert answer.json()["data"] == [{"name": "it's; DROP\ttab", "ids": [1, 2]}]


def test_database_and_format_come_from_parameters_or_headers(http: httpx2.Client, database: str) -> None:
    query = "SELECT currentDatabase() AS db"
    by_parameter = http.post("/", params={"database": database, "default_format": "JSONEachRow"}, content=query)
    headers = {"X-ClickHouse-Database": database, "X-ClickHouse-Format": "JSONEachRow"}
    by_header = http.post("/", headers=headers, content=query)
    assert by_parameter.json() == by_header.json() == {"db": database}
    assert by_header.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert http.post("/", headers=headers, content=f"{query} FORMAT TSV").text == f"{database}\n"


def test_settings_of_a_request_hold_for_that_request_only(http: httpx2.Client) -> None:
    query = "SELECT getSetting('max_threads') = 1"
    assert http.post("/", params={"max_threads": "1"}, content=query).text == "1\n"
    assert http.post("/", params={"max_threads": "2"}, content=query).text == "0\n"


def test_inserts_are_synchronous_and_deduplication_is_as_stated(http: httpx2.Client) -> None:
    names = "async_insert", "insert_deduplicate", "deduplicate_blocks_in_dependent_materialized_views"
    values = ", ".join(f"toUInt8(getSetting('{name}'))" for name in names)
    assert http.post("/", content=f"SELECT {values}").text == "0\t1\t0\n"


@pytest.mark.parametrize(
    ("auth", "status"),
    [
        ({"params": {"user": "default", "password": ""}}, 200),
        ({"headers": {"X-ClickHouse-User": "default", "X-ClickHouse-Key": ""}}, 200),
        ({"auth": ("default", "")}, 200),
        ({"params": {"user": "somebody"}}, 403),
        ({"headers": {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "wrong"}}, 403),
        ({"auth": ("default", "wrong")}, 403),
    ],
)
def test_wrong_credentials_are_forbidden(http: httpx2.Client, auth: dict[str, object], status: int) -> None:
    answer = http.post("/", content="SELECT 1", **auth)
    assert answer.status_code == status
    assert answer.headers.get("X-ClickHouse-Exception-Code") == (None if status == 200 else "516")


def test_an_answer_carries_clickhouse_headers(http: httpx2.Client, table: str) -> None:
    answer = http.post("/", params={"query_id": "q-1"}, content="SELECT number FROM numbers(5) FORMAT JSON")
    assert answer.headers["X-ClickHouse-Query-Id"] == "q-1"
    assert answer.headers["X-ClickHouse-Format"] == "JSON"
    assert answer.headers["X-ClickHouse-Timezone"] == "UTC"
    assert answer.headers["X-ClickHouse-Server-Display-Name"]
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    summary = json.loads(answer.headers["X-ClickHouse-Summary"])
    assert (summary["read_rows"], summary["result_rows"]) == ("5", "5")
    written = http.post("/", content=f"INSERT INTO {table} (id) VALUES (1), (2)")
    assert json.loads(written.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    assert written.headers["X-ClickHouse-Query-Id"]


def test_grafana_reads_json_with_its_types(http: httpx2.Client) -> None:
    query = "SELECT toDateTime('2026-01-01 00:00:00', 'UTC') AS time, 'a' AS series, toInt64(7) AS value FORMAT JSON"
    answer = http.post("/", headers={"X-ClickHouse-User": "default"}, content=query).json()
    assert answer["meta"][0] == {"name": "time", "type": "DateTime('UTC')"}
    assert answer["data"] == [{"time": "2026-01-01 00:00:00", "series": "a", "value": 7}]
    assert answer["rows"] == 1


EVERY_KIND = (
    "number::UInt8", "-number::Int64", "number / 3", "toString(number)", "number % 2 = 0", "number::UInt256",
    "toDate('2026-01-01') + number", "toDateTime64('2026-01-01 00:00:00.5', 3, 'UTC') + number", "toDateTime(number)",
    "toLowCardinality(toString(number % 3))", "toLowCardinality(if(number = 1, NULL, toString(number)))",
    "[toLowCardinality('a'), 'b']", "(number, [toLowCardinality('a')], toLowCardinality('c'))",
    "if(number % 2 = 0, NULL, hex(number))", "[number, 1]", "NULL",
    "map('k', number, 'l', 1)", "(number, toString(number))", "toDecimal64(number, 2)", "toDecimal128(number, 30)",
    "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')", "CAST(number % 2 AS Enum8('x,(' = 0, 'y' = 1))",
    "toFixedString('ab', 3)", "[[toString(number)], []]", "emptyArrayString()", "toIPv4('127.0.0.1')", "[]",
    "CAST(([number], 'x'), 'Tuple(ids Array(UInt8), name String)')",
)  # fmt: skip
BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"


def test_go_clients_read_native_of_their_protocol_version(http: httpx2.Client) -> None:
    """Go's driver, and Grafana's plugin with it, read a block info, and a zero byte after every column's type."""
    params = {"default_format": "Native", "client_protocol_version": "54483"}
    hello = http.post("/", params=params, content="SELECT displayName(), version(), revision(), timezone()").content
    assert hello.startswith(BLOCK_INFO + b"\x04\x01\x0ddisplayName()\x06String\x00")
    assert hello.endswith(b"\x0atimezone()\x06String\x00\x03UTC")

    expected = BLOCK_INFO + bytes([len(EVERY_KIND), 5])
    for name, kind in zip(string.ascii_letters, EVERY_KIND, strict=False):
        plain = http.post("/", content=f"SELECT {kind} AS v FROM numbers(5) FORMAT Native").content
        head = len(b"\x01\x05\x01v\x00") + plain[4]
        expected += b"\x01" + name.encode() + plain[4:head] + b"\x00" + plain[head:]
        told = http.post("/", params=params, content=f"SELECT {kind} AS v FROM numbers(5)")
        assert told.content == BLOCK_INFO + plain[:head] + b"\x00" + plain[head:], (kind, told.text)
    together = ", ".join(f"{kind} AS {name}" for name, kind in zip(string.ascii_letters, EVERY_KIND, strict=False))
    assert http.post("/", params=params, content=f"SELECT {together} FROM numbers(5)").content == expected


def test_totals_and_empty_answers_are_complete(http: httpx2.Client) -> None:
    query = "SELECT number % 2 AS odd, count() FROM numbers(10) GROUP BY odd WITH TOTALS ORDER BY odd"
    assert http.post("/", content=query).text == "0\t5\n1\t5\n\n0\t10\n"
    assert http.post("/", content="SELECT 1 WHERE 0").text == ""
    assert http.post("/", content="SELECT 1 AS x WHERE 0 FORMAT JSON").json()["data"] == []


# ── Errors ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "code", "status"),
    [
        ("SELECT * FROM no_such_table", 60, 404),
        ("INSERT INTO no_such_table FORMAT JSONEachRow {}", 60, 404),
        ("SELEC 1", 62, 400),
        ("", 62, 400),
        ("SELECT no_such_function(1)", 46, 404),
        ("SELECT no_such_column FROM system.one", 47, 404),
        ("SELECT 1 FORMAT NoSuchFormat", 73, 404),
        ("SELECT throwIf(1)", 395, 500),
        ("SELECT 1 INTO OUTFILE 'here.txt'", 358, 500),
        ("SELECT '" + "x" * 300_000 + "'", 62, 400),
    ],
)
def test_an_exception_has_its_code_and_status(http: httpx2.Client, query: str, code: int, status: int) -> None:
    answer = http.post("/", content=query)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")


@pytest.mark.parametrize(
    ("params", "code", "status"),
    [
        ({"database": "no_such_database"}, 81, 404),
        ({"no_such_setting": "1"}, 115, 404),
        ({"max_execution_time": "1", "query": "SELECT sleep(3)"}, 159, 408),
        ({"query": "SELECT {missing:UInt8}"}, 456, 500),
    ],
)
def test_a_wrong_parameter_has_its_code(http: httpx2.Client, params: dict[str, str], code: int, status: int) -> None:
    answer = http.post("/", params={"query": "SELECT 1", **params})
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))


def test_rows_that_cannot_be_read_are_refused_as_a_whole(http: httpx2.Client, table: str) -> None:
    rows = "".join(f'{{"id":{i}}}\n' for i in range(50_000)) + '{"id":wrong}\n'
    answer = http.post("/", params={"query": f"INSERT INTO {table} FORMAT JSONEachRow"}, content=rows)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "27")
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "0\n"


def test_an_error_in_the_middle_of_an_answer_is_marked_and_the_transfer_broken(http: httpx2.Client) -> None:
    query = (
        "SELECT throwIf(number = 900000), number FROM numbers(1000000) SETTINGS max_block_size = 10000, max_threads = 1"
    )
    received, broken = b"", None
    with http.stream("POST", "/", content=query, headers={"Accept-Encoding": "identity"}) as answer:
        assert answer.status_code == 200
        try:
            for piece in answer.iter_bytes():
                received += piece
        except httpx2.RemoteProtocolError as error:
            broken = error
    assert "incomplete" in str(broken)
    tag = answer.headers["X-ClickHouse-Exception-Tag"].encode()
    assert b"\r\n__exception__\r\n" + tag + b"\r\nCode: 395. DB::Exception: " in received
    assert received.endswith(tag + b"\r\n__exception__\r\n")


def test_a_post_without_any_length_is_refused(clickhouse: LocalClickHouse) -> None:
    with socket.create_connection((clickhouse.host, clickhouse.port), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert b"x-clickhouse-exception-code: 381" in answer.lower()


# ── Compression ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encoding", PACK)
def test_rows_come_compressed_in_every_encoding(http: httpx2.Client, table: str, encoding: str) -> None:
    rows = "".join(f'{{"id":{i},"fen":{i}}}\n' for i in range(20_000)).encode()
    half = len(rows) // 2
    for body in (PACK[encoding](rows), PACK[encoding](rows[:half]) + PACK[encoding](rows[half:])):
        http.post("/", content=f"TRUNCATE TABLE {table}").raise_for_status()
        answer = http.post(
            "/",
            params={"query": f"INSERT INTO {table} (id, fen) FORMAT JSONEachRow"},
            headers={"Content-Encoding": encoding},
            content=body,
        )
        assert answer.status_code == 200, answer.text
        assert http.post("/", content=f"SELECT count(), sum(fen) FROM {table}").text == "20000\t199990000\n"


@pytest.mark.parametrize("encoding", PACK)
def test_a_cut_body_writes_nothing(http: httpx2.Client, table: str, encoding: str) -> None:
    rows = "".join(f'{{"id":{i}}}\n' for i in range(20_000)).encode()
    answer = http.post(
        "/",
        params={"query": f"INSERT INTO {table} (id) FORMAT JSONEachRow"},
        headers={"Content-Encoding": encoding},
        content=PACK[encoding](rows)[:-9],
    )
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "117")
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "0\n"


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("output_format", ["TSV", "JSONCompact"])
def test_answers_come_compressed_when_accepted(http: httpx2.Client, encoding: str, output_format: str) -> None:
    query = f"SELECT number FROM numbers(200000) FORMAT {output_format}"
    plain = http.post("/", params={"enable_http_compression": "0"}, content=query)
    assert "Content-Encoding" not in plain.headers
    packed = raw(http, "/?enable_http_compression=1", encoding, content=query)
    assert packed.headers["Content-Encoding"] == encoding
    unpacked = UNPACK[encoding](b"".join(packed.iter_raw()))
    if output_format == "TSV":
        assert unpacked == plain.content
    else:
        assert json.loads(unpacked)["data"] == plain.json()["data"]


def test_an_unknown_encoding_is_refused(http: httpx2.Client) -> None:
    answer = http.post("/", headers={"Content-Encoding": "br"}, content=b"SELECT 1")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (501, "48")


# ── clickhouse-connect ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_clickhouse_connect_writes_and_reads(clickhouse: LocalClickHouse, table: str, compress: str | bool) -> None:
    with connect(clickhouse, compress=compress) as client:
        columns = ["id", "staff", "fen"]
        rows = [(i, f"staff-{i % 7}", -i) for i in range(10_000)]
        assert client.insert(table, rows, column_names=columns).written_rows == 10_000
        by_columns = [[20_000, 20_001], ["a", "b"], [1, 2]]
        client.insert(table, by_columns, column_names=columns, column_oriented=True)
        query = f"SELECT count(), sum(fen) FROM {table} WHERE staff IN {{staff:Array(String)}}"
        assert client.query(query, parameters={"staff": ["a", "b"]}).result_rows == [(2, 3)]
        with client.query_row_block_stream(f"SELECT * FROM {table} WHERE id < 10000 ORDER BY id") as blocks:
            assert [row for block in blocks for row in block] == rows


def test_clickhouse_connect_runs_commands_and_sees_types(client: Client) -> None:
    columns = "d Date, t DateTime64(3, 'UTC'), l LowCardinality(String), n Nullable(Int64), a Array(UInt8)"
    client.command(f"CREATE TABLE kinds ({columns}, m Map(String, Int64)) ENGINE = Memory")
    client.command("INSERT INTO kinds VALUES ('2026-01-02', '2026-01-02 03:04:05.678', 'x', NULL, [1,2], {'k': 1})")
    (row,) = client.query("SELECT * FROM kinds").result_rows
    assert (str(row[0]), row[1].microsecond, row[2:]) == ("2026-01-02", 678000, ("x", None, [1, 2], {"k": 1}))
    assert client.command("SELECT count() FROM kinds") == 1
    assert client.query("SELECT * FROM kinds LIMIT 0").column_names == ("d", "t", "l", "n", "a", "m")
    assert client.ping()


def test_clickhouse_connect_sees_exceptions(client: Client) -> None:
    with pytest.raises(DatabaseError, match="code: 60"):
        client.query("SELECT * FROM no_such_table")
    query = "SELECT throwIf(number = 900000) FROM numbers(1000000) SETTINGS max_block_size = 10000, max_threads = 1"
    with (
        pytest.raises((StreamFailureError, DatabaseError), match="395"),
        client.query_row_block_stream(query) as blocks,
    ):
        for _ in blocks:
            pass


# ── Many at once ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_concurrent_inserts_are_all_kept(http: httpx2.Client, table: str) -> None:
    def insert(batch: int) -> int:
        rows = "".join(f'{{"id":{batch * 100 + i}}}\n' for i in range(100))
        return http.post("/", params={"query": f"INSERT INTO {table} FORMAT JSONEachRow"}, content=rows).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(insert, range(64))) == {200}
    assert http.post("/", content=f"SELECT count(), uniqExact(id) FROM {table}").text == "6400\t6400\n"


def test_reads_go_on_beside_a_slow_write(http: httpx2.Client, table: str) -> None:
    slow = f"INSERT INTO {table} (id) SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_block_size = 1"
    writing = threading.Thread(target=http.post, args=("/",), kwargs={"content": slow, "timeout": 30})
    writing.start()
    while http.post("/", content="SELECT count() FROM system.processes WHERE query LIKE 'INSERT%'").text == "0\n":
        pass
    assert http.post("/", content="SELECT 1").text == "1\n"
    assert writing.is_alive()
    writing.join()


# ── Life and death ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[LocalClickHouse]:
    (port,) = free_ports(1)
    with LocalClickHouse(tmp_path / "data", port, options=("--queued-writes", "2")) as server:
        yield server


def test_data_survives_a_restart_and_a_kill(own_server: LocalClickHouse) -> None:
    own_server.execute("CREATE DATABASE d")
    own_server.execute("CREATE TABLE d.t (id UInt64) ENGINE = MergeTree ORDER BY id")
    for round_number, end in enumerate((own_server.stop, own_server.kill, own_server.kill)):
        own_server.execute(f"INSERT INTO d.t SELECT number + {round_number * 1000} FROM numbers(1000)")
        end()
        own_server.start()
        own_server.wait_ready()
        expected = f"{(round_number + 1) * 1000}\t{round_number * 1000 + 999}\n"
        assert own_server.execute("SELECT count(), max(id) FROM d.t") == expected


def test_a_kill_keeps_what_was_acknowledged_and_nothing_twice(own_server: LocalClickHouse) -> None:
    own_server.execute("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
    acknowledged: list[int] = []
    enough = threading.Event()

    def insert() -> None:
        for batch in range(100_000):
            try:
                own_server.execute(f"INSERT INTO t VALUES ({batch})")
            except httpx2.TransportError:
                return
            acknowledged.append(batch)
            if len(acknowledged) == 30:
                enough.set()

    writer = threading.Thread(target=insert)
    writer.start()
    assert enough.wait(60)
    own_server.kill()
    writer.join()
    own_server.start()
    own_server.wait_ready()
    stored = [int(line) for line in own_server.execute("SELECT id FROM t ORDER BY id").split()]
    # One more may be there: written, but the answer did not get out.
    assert stored[: len(acknowledged)] == acknowledged
    assert len(stored) <= len(acknowledged) + 1


def test_too_many_waiting_writers_are_refused_and_the_rest_served(own_server: LocalClickHouse) -> None:
    own_server.execute("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
    slow = "INSERT INTO t SELECT sleepEachRow(1) FROM numbers(2) SETTINGS max_block_size = 1"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: httpx2.post(own_server.url, content=slow, timeout=60), range(8)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {(answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) for answer in refused} == {(503, "202")}
    assert len(refused) == 5  # one writes, two wait
    assert own_server.execute("SELECT count() FROM t") == "6\n"


def test_a_second_server_on_the_same_folder_is_refused(own_server: LocalClickHouse) -> None:
    (port,) = free_ports(1)
    command = [
        sys.executable,
        "-m",
        "deploy.local.clickhouse",
        "--data-dir",
        str(own_server.data_dir),
        "--port",
        str(port),
    ]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert len(second.stderr.splitlines()) == 1
    assert f"another process already serves {own_server.data_dir}" in second.stderr
    assert own_server.execute("SELECT 1") == "1\n"


def test_a_taken_port_names_the_setting(own_server: LocalClickHouse, tmp_path: Path) -> None:
    with pytest.raises(PortTaken, match=f"{own_server.port} on 127.0.0.1 is already in use.*SIYU_CLICKHOUSE_URL"):
        LocalClickHouse(tmp_path / "other", own_server.port).start()


def test_a_failed_start_quotes_the_server(own_server: LocalClickHouse) -> None:
    (port,) = free_ports(1)
    second = LocalClickHouse(own_server.data_dir, port)
    second.start()
    with pytest.raises(StartFailed, match="another process already serves"):
        second.wait_ready()


def test_a_large_insert_needs_no_multiple_of_its_size(own_server: LocalClickHouse) -> None:
    own_server.execute("CREATE TABLE t (id UInt64, noise String) ENGINE = MergeTree ORDER BY id")
    before = _peak_memory(own_server)
    size = 0

    def body() -> Iterator[bytes]:
        nonlocal size
        for batch in range(270):
            rows = b"".join(b"%d\t%s\n" % (batch * 1000 + i, os.urandom(512).hex().encode()) for i in range(1000))
            size += len(rows)
            yield rows

    query = {"query": "INSERT INTO t FORMAT TSV"}
    httpx2.post(own_server.url, params=query, content=body(), timeout=100).raise_for_status()
    assert own_server.execute("SELECT count() FROM t") == "270000\n"
    assert size > 256 * 1024**2
    assert _peak_memory(own_server) - before < 2 * size


def _peak_memory(server: LocalClickHouse) -> int:
    for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no peak memory in /proc")


# ── What the local server leaves out, and says so ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "params",
    [{"session_id": "s"}, {"role": "r"}, {"compress": "1"}, {"decompress": "1"}],
    ids=lambda params: next(iter(params)),
)
def test_what_is_not_supported_is_refused_with_a_reason(http: httpx2.Client, params: dict[str, str]) -> None:
    answer = http.post("/", params=params, content="SELECT 1")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (501, "48")
    assert f"{next(iter(params))}" in answer.text
    assert "local server" in answer.text


def test_the_log_holds_no_text_of_queries(http: httpx2.Client, clickhouse: LocalClickHouse) -> None:
    http.post("/", params={"param_who": "secret-parameter"}, content="SELECT 'secret-literal', {who:String}")
    http.post("/", content="SELECT * FROM secret_table")
    logged = clickhouse.log_file.read_text()
    assert "secret" not in logged
    assert "code 60" in logged


def test_an_insert_that_fails_while_it_is_written_says_so(http: httpx2.Client, table: str) -> None:
    http.post("/", content=f"ALTER TABLE {table} ADD CONSTRAINT small CHECK id < 10").raise_for_status()
    head = {"query": f"INSERT INTO {table} (id) FORMAT JSONEachRow"}
    refused = http.post("/", params=head, content='{"id": 50}')
    assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (500, "469")
    assert "Constraint `small`" in refused.text
    http.post("/", params=head, content='{"id": 5}').raise_for_status()
    assert http.post("/", content=f"SELECT id FROM {table}").text == "5\n"
