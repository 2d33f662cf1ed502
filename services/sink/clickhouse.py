"""Inserts into ClickHouse: a row is acknowledged, refused for what it holds, or its table is not available just now.

The difference matters: what is not available is waited for, and only a row that ClickHouse would refuse again and
again is taken out of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DataError

from services.sink.domain import Table
from siyu.events import Event
from siyu.warehouse import WarehouseUnavailable, connect, error_code

# What ClickHouse answers when a value does not fit its column. Everything else (no such table, too many parts, memory,
# read-only replica, …) has nothing to do with the rows.
_REFUSED = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        33,  # CANNOT_READ_ALL_DATA
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        128,  # TOO_LARGE_ARRAY_SIZE
        131,  # TOO_LARGE_STRING_SIZE
        190,  # SIZES_OF_ARRAYS_DONT_MATCH
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        469,  # VIOLATED_CONSTRAINT
    }
)

_INSERT_SETTINGS = {
    # Months are partitions of staff_day; a replay of ten years is no error.
    "max_partitions_per_insert_block": 0,
}


class RowsRefused(Exception):
    """ClickHouse will not take at least one of these rows, whenever it is asked."""


class NotAvailable(Exception):
    """Nothing is wrong with the rows. ``reason``: ClickHouse's error code, or ``no_answer``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Warehouse:
    """One connection, made when first needed and anew after a failure."""

    def __init__(self, url: str, *, user: str, password: str, database: str, timeout_s: int) -> None:
        self._url = url
        self._user = user
        self._password = password
        self._database = database
        self._timeout_s = timeout_s
        self._client: Client | None = None

    def insert(self, table: Table, facts: Sequence[Event]) -> None:
        """Returns when ClickHouse has the rows on disk. Raises RowsRefused or NotAvailable; then some may be in."""
        try:
            columns = table.pivot(facts)
        except (ValueError, OverflowError) as error:
            # A field that its column has no value for, for instance a day that is none.
            raise RowsRefused from error
        client = self._connected()
        try:
            client.insert(
                table.name,
                columns,
                column_names=[column.name for column in table.columns],
                column_type_names=[column.type for column in table.columns],
                column_oriented=True,
                settings=_INSERT_SETTINGS,
            )
        except DataError as error:
            # Found while the rows were being packed, for instance a negative revision.
            raise RowsRefused from error
        except ClickHouseError as error:
            code = error_code(error)
            if code in _REFUSED:
                raise RowsRefused from error
            self.close()
            raise NotAvailable("no_answer" if code is None else f"clickhouse_{code}") from error

    def check(self) -> None:
        """Raises NotAvailable when ClickHouse does not answer."""
        if not self._connected().ping():
            self.close()
            raise NotAvailable("no_answer")

    def close(self) -> None:
        """Lets go of the connection; the next call makes another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> Client:
        if self._client is None:
            try:
                self._client = connect(
                    self._url,
                    user=self._user,
                    password=self._password,
                    database=self._database,
                    timeout_s=self._timeout_s,
                )
            except WarehouseUnavailable as error:
                raise NotAvailable("no_answer") from error
        return self._client
