"""The engine in this process: each request runs on a connection of its own, so nothing of one reaches another.

A connection costs 0.15 ms and carries the request's settings, database and parameters. An insert is parsed by the
engine from a stream of bytes; up to a part (1 M rows or 64 MiB) it is written wholly or not at all.
Everything here blocks: call it from threads.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chdb import ChdbError
from chdb.state.sqlitelike import Connection

from deploy.local.clickhouse.exceptions import ClickHouseException, Code
from deploy.local.clickhouse.statement import Statement

__all__ = ["Answer", "Engine", "Progress"]

# Explicit, because their defaults differ between versions of ClickHouse and decide what a repeated or failed insert
# leaves behind. A request may say otherwise.
DEFAULTS = {
    # The answer means written: an asynchronous insert would be acknowledged from memory in some configurations.
    "async_insert": "0",
    "insert_deduplicate": "1",
    "deduplicate_blocks_in_dependent_materialized_views": "0",
    # Rows are parsed in small blocks and gathered into parts of 64 MiB: an insert of 265 MiB then needs 1.3 times its
    # size in memory, with ClickHouse's own numbers (1 M rows, 256 MiB) 3 times.
    "max_insert_block_size": "65409",
    "min_insert_block_size_rows": "1048449",
    "min_insert_block_size_bytes": "67108864",
}
# What the wheel raises when the engine refuses: the same text arrives as either.
_REFUSED = (ChdbError, RuntimeError)
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Progress:
    """What X-ClickHouse-Summary tells."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0


@dataclass(frozen=True)
class Answer:
    body: bytes
    progress: Progress


class Engine:
    """One data folder, opened once in this process and by no other process."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        # Keeps the folder open between requests; the last connection to close shuts the engine down.
        self._root = Connection(self._folder)
        facts = self._root.query("SELECT version(), timezone(), displayName()", "TabSeparated").bytes().decode()
        self.version, self.timezone, self.display_name = facts.rstrip("\n").split("\t")

    def close(self) -> None:
        self._root.close()

    def connect(self, database: str | None, settings: Mapping[str, str]) -> "Request":
        """A connection for one request. Raises ClickHouseException for an unknown database or setting."""
        request = Request(self._folder)
        try:
            if database:
                request.run("USE `" + database.replace("\\", "\\\\").replace("`", "\\`") + "`")
            request.run("SET " + ", ".join(_assignment(*pair) for pair in {**DEFAULTS, **settings}.items()))
        except ClickHouseException:
            request.close()
            raise
        return request


class Request:
    def __init__(self, folder: str) -> None:
        self._connection: Any = Connection(folder)  # the wheel is only partly typed

    def close(self) -> None:
        self._connection.close()

    def run(self, sql: str | bytes, output_format: str = "TabSeparated") -> Answer:
        """Run one statement to its end."""
        try:
            result = self._connection.query(sql, output_format)
        except _REFUSED as raised:
            raise ClickHouseException.from_engine(raised) from raised
        progress = Progress(
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            result_rows=result.rows_read(),
            result_bytes=result.bytes_read(),
        )
        return Answer(result.bytes(), progress)

    def stream(self, sql: bytes, output_format: str) -> Iterator[bytes]:
        """A SELECT's answer block by block; closing the iterator cancels the query."""
        try:
            result = self._connection.send_query(sql.decode(), output_format)
            try:
                for block in result:
                    yield block.bytes()
            finally:
                result.cancel()
        except _REFUSED as raised:
            raise ClickHouseException.from_engine(raised) from raised

    def insert(self, statement: Statement, data: Iterable[bytes]) -> Progress:
        """Write the rows in `data`; when `data` raises, nothing of the last part is written."""
        failures = self._failures()
        try:
            inserter = self._connection.send_insert(statement.head.decode(), statement.format)
        except _REFUSED as raised:
            raise ClickHouseException.from_engine(raised) from raised
        try:
            for piece in data:
                if piece:
                    inserter.append(piece)
            done = inserter.finish()
        except ClickHouseException:
            inserter.cancel()
            raise
        except _REFUSED as raised:
            raise ClickHouseException.from_engine(raised) from raised
        # The wheel keeps to itself what goes wrong while the last part is written (a violated constraint, a full disk)
        # and reports success; the engine counts it all the same. There is one writer at a time, so a new failure is
        # this insert's, or at worst a failing query's beside it: then the client writes the same rows once more.
        for code, (count, text) in self._failures().items():
            if count > failures.get(code, (0, ""))[0]:
                raise ClickHouseException.from_engine(RuntimeError(f"Code: {code}. DB::Exception: {text}"))
        return Progress(written_rows=done.rows_written, written_bytes=done.bytes_written)

    def _failures(self) -> dict[str, tuple[int, str]]:
        """How often each code was raised so far, and the latest text."""
        answer = self.run("SELECT toString(code), value, last_error_message FROM system.errors", "JSONCompactEachRow")
        rows = (json.loads(line) for line in answer.body.splitlines())
        return {code: (int(count), text) for code, count, text in rows}


def _assignment(name: str, value: str) -> str:
    if not _SETTING.fullmatch(name):
        raise ClickHouseException(Code.UNKNOWN_SETTING, f"Unknown setting {name!r}")
    return f"{name} = '" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
