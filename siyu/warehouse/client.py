"""The one way to a ClickHouse client, with every setting that matters for correctness spelled out.

Statements return when ClickHouse has done the work, inserts when their rows are on disk; what a server's profile says
otherwise does not count here.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

import clickhouse_connect
from clickhouse_connect.driver import options
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

# The client looks for pandas and its kin at the first insert, and where they happen to be installed (chdb brings them)
# importing them keeps a service that has just been restarted from writing for seconds. We hand it plain columns only.
for _library in ("np", "pd", "pd_time_test", "arrow", "pl"):
    setattr(options, _library, None)

DATABASE = "siyu"

SETTINGS: dict[str, int | str] = {
    # An asynchronous insert is acknowledged from a buffer: rows could be lost after their offsets were committed.
    "async_insert": 0,
    # Repeats are harmless (ReplacingMergeTree, absolute rows). Block deduplication would add nothing, but on replicated
    # tables it would silently swallow a deliberate replay of rows that somebody has deleted.
    "insert_deduplicate": 0,
    # Errors come as an HTTP status instead of a broken body after a 200.
    "wait_end_of_query": 1,
    # DDL on a replicated database returns when every replica has it, and fails when one does not.
    "distributed_ddl_output_mode": "throw",
}

CONNECT_TIMEOUT_S = 5


class WarehouseError(RuntimeError):
    """ClickHouse cannot be used as asked; the message says what to change.

    WarehouseError
    ├── WarehouseUnavailable   ClickHouse does not answer: wait and try again
    └── MigrationError         files and database do not fit (siyu.warehouse.migrations)
    """


class WarehouseUnavailable(WarehouseError):
    """ClickHouse does not answer, or answers that it cannot serve now."""


def connect(
    url: str,
    *,
    user: str = "default",
    password: str = "",
    database: str = DATABASE,
    timeout_s: int = 60,
    compress: bool | str = "lz4",
) -> Client:
    """A client for ``http[s]://host:port[/proxy-path]``; ``database`` need not exist yet.

    For one thread at a time. Raises WarehouseError for a bad URL, WarehouseUnavailable when ClickHouse does not
    answer.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WarehouseError("SIYU_CLICKHOUSE_URL must look like http://host:8123")
    if parts.username is not None or parts.password is not None:
        # A URL is logged with the settings; SIYU_CLICKHOUSE_PASSWORD is redacted.
        raise WarehouseError(
            "SIYU_CLICKHOUSE_URL must not hold credentials: use SIYU_CLICKHOUSE_USER and SIYU_CLICKHOUSE_PASSWORD"
        )
    try:
        client = _client(parts, user, password, timeout_s, compress)
    except DatabaseError as error:
        raise WarehouseUnavailable(
            f"ClickHouse at {url} does not answer as {user!r} ({type(error).__name__}, code {error_code(error)}); "
            "is it running, and is SIYU_CLICKHOUSE_URL right?"
        ) from error
    client.database = database
    return client


def _client(parts: SplitResult, user: str, password: str, timeout_s: int, compress: bool | str) -> Client:
    return clickhouse_connect.get_client(
        interface=parts.scheme,
        host=parts.hostname or "",
        port=parts.port or (8443 if parts.scheme == "https" else 8123),
        proxy_path=parts.path,
        username=user,
        password=password,
        # Asked for below: the first queries of a client must work before the database exists.
        database="__default__",
        settings=dict(SETTINGS),
        compress=compress,
        connect_timeout=CONNECT_TIMEOUT_S,
        send_receive_timeout=timeout_s,
        # Retries are the caller's decision, with its own waiting and its own readiness.
        query_retries=0,
        # Sessions would make ClickHouse refuse a query while an earlier one of the same client still runs.
        autogenerate_session_id=False,
        # A client that failed must not leave half-open connections to others.
        dedicated_pool=True,
        # Dates as declared, so that Shanghai times compare as instants.
        tz_mode="schema",
        show_clickhouse_errors="scrub",
        client_name="siyu",
    )


def error_code(error: Exception) -> int | None:
    """ClickHouse's code of an error (``Code: 60.``), None when the error did not come from the server."""
    if not isinstance(error, ClickHouseError):
        return None
    code = getattr(error, "code", None)
    return code if isinstance(code, int) and code > 0 else None
