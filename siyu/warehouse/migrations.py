"""Brings a ClickHouse database to the schema in ``schemas/clickhouse/NNNN_*.sql``: each file once, in order, unchanged.

May run twice, after a crash half way, and in several processes at the same time. ClickHouse has no transactions over
DDL and we ask for no Keeper, so that rests on three things:

1. *A lock made of table names.* On one server, and on a replicated database, ``CREATE TABLE`` without ``IF NOT EXISTS``
   succeeds for exactly one of several callers. The newest table ``schema_lock_<n>`` is the lock, its comment says who
   holds it and since when (server time). Whoever finds it free, or silent for longer than any statement may take,
   creates ``<n+1>`` and thereby holds the lock, then drops the older ones. Numbers only grow. A process that slept
   between looking and creating may create a number that was used and dropped meanwhile, but then a higher one exists
   (``n`` is dropped only once ``n+1`` is there), so each looks again after creating and yields to a higher number.
2. *Statements that may be repeated.* Only forms that change nothing the second time are accepted. A holder that was
   frozen for longer than its lease can at worst repeat one statement; it notices before the next one and stops.
3. *A ledger that shows disagreement.* ``schema_migration`` is keyed by version *and* checksum, so two different files
   under one number stand side by side in it instead of replacing each other, and every later run refuses them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from siyu.warehouse.client import WarehouseError, error_code

LEDGER = "schema_migration"
LOCK = "schema_lock_"
LEASE_S = 90
"""A holder renews before every statement; longer than the client waits for one (60 s)."""

_TABLE_ALREADY_EXISTS = 57
_UNKNOWN_TABLE = 60
_UNKNOWN_DATABASE = 81
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_DATABASE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REPEATABLE = re.compile(
    r"CREATE (TABLE|MATERIALIZED VIEW|DICTIONARY) IF NOT EXISTS\s"
    r"|CREATE OR REPLACE (VIEW|DICTIONARY|FUNCTION)\s"
    r"|ALTER TABLE \w+\s+(ADD (COLUMN|INDEX|PROJECTION) IF NOT EXISTS|DROP (COLUMN|INDEX|PROJECTION) IF EXISTS"
    r"|MODIFY (COLUMN|COMMENT|TTL|SETTING|QUERY)|COMMENT COLUMN)\s"
    r"|DROP (TABLE|VIEW|DICTIONARY) IF EXISTS\s"
)


class MigrationError(WarehouseError):
    """The files and the database do not fit; nothing was skipped. The message names the file and what to do."""


@dataclass(frozen=True)
class Migration:
    """One file."""

    version: int
    name: str
    """File name without ``.sql``."""
    checksum: str
    """SHA-256 of the file's bytes, hex."""
    statements: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What a migration means for one database."""

    migration: Migration
    state: Literal["applied", "pending"]


def load(directory: Path) -> list[Migration]:
    """The files in order. Raises MigrationError for a bad name, a gap or repeat in the numbers, a statement that cannot
    be repeated."""
    migrations: list[Migration] = []
    for path in sorted(directory.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name}: migrations are named NNNN_what_it_does.sql")
        version = int(match[1])
        if version != len(migrations) + 1:
            raise MigrationError(f"{path.name}: expected number {len(migrations) + 1:04d}; numbers run without gaps")
        content = path.read_bytes()
        statements = split_statements(content.decode("utf-8"))
        if not statements:
            raise MigrationError(f"{path.name}: holds no statement")
        for number, statement in enumerate(statements, 1):
            if not _REPEATABLE.match(_without_comments(statement)):
                raise MigrationError(
                    f"{path.name}: statement {number} could not be repeated after a crash; "
                    "use IF [NOT] EXISTS, OR REPLACE or MODIFY"
                )
        migrations.append(Migration(version, path.stem, hashlib.sha256(content).hexdigest(), statements))
    if not migrations:
        raise MigrationError(f"{directory}: holds no migrations")
    return migrations


def split_statements(text: str) -> tuple[str, ...]:
    """The statements of a file: each ends with a ``;`` at the end of a line that is not a comment."""
    statements: list[str] = []
    lines: list[str] = []
    for line in text.splitlines():
        lines.append(line)
        if line.rstrip().endswith(";") and not line.lstrip().startswith("--"):
            statements.append("\n".join(lines).strip().removesuffix(";").strip())
            lines.clear()
    rest = "\n".join(lines).strip()
    if _without_comments(rest):
        raise MigrationError("the last statement of a migration does not end with ;")
    return tuple(statements)


def plan(client: Client, directory: Path) -> list[Step]:
    """What :func:`migrate` would do; changes nothing. Raises MigrationError when files and ledger disagree."""
    return _compare(load(directory), _ledger(client))


def migrate(
    client: Client,
    directory: Path,
    dry_run: bool = False,
    *,
    wait_s: float = 120,
) -> list[Migration]:
    """Applies what is pending to the client's database, which is created when missing, and returns what it applied.

    ``dry_run`` changes nothing and returns what would be applied. Waits up to ``wait_s`` for another process that
    migrates the same database. Raises MigrationError; a file whose statement was refused is not recorded, and the next
    run begins with it again.
    """
    pending = [step.migration for step in plan(client, directory) if step.state == "pending"]
    if dry_run or not pending:
        return pending
    database = _database(client)
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}", use_database=False)
    client.command(
        f"CREATE TABLE IF NOT EXISTS {LEDGER} (version UInt32, name String, checksum String, "
        "applied_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3), applied_by String) "
        "ENGINE = ReplacingMergeTree(applied_at) ORDER BY (version, checksum) "
        "COMMENT 'Which migration files have been applied, see siyu migrate'"
    )
    lock = _Lock(client, database)
    lock.acquire(wait_s)
    try:
        # Looked at again: another process may have been here while we waited for the lock.
        pending = [step.migration for step in plan(client, directory) if step.state == "pending"]
        for migration in pending:
            _apply(client, lock, migration)
    except BaseException:
        # The first error is the one to report; a lock that cannot be freed now is free when its lease has run out.
        with contextlib.suppress(DatabaseError, MigrationError):
            lock.release()
        raise
    lock.release()
    plan(client, directory)
    return pending


def _apply(client: Client, lock: _Lock, migration: Migration) -> None:
    for number, statement in enumerate(migration.statements, 1):
        lock.renew()
        try:
            client.command(statement)
        except DatabaseError as error:
            raise MigrationError(f"{migration.name}.sql: ClickHouse refused statement {number}: {error}") from error
    lock.renew()
    client.insert(
        LEDGER,
        [[migration.version, migration.name, migration.checksum, lock.owner]],
        column_names=["version", "name", "checksum", "applied_by"],
        column_type_names=["UInt32", "String", "String", "String"],
    )


def _without_comments(statement: str) -> str:
    return re.sub(r"^\s*--.*$", "", statement, flags=re.MULTILINE).strip()


def _database(client: Client) -> str:
    database = client.database or ""
    if not _DATABASE_NAME.fullmatch(database):
        raise MigrationError("the database's name must consist of letters, digits and _")
    return database


def _ledger(client: Client) -> list[tuple[int, str, str]]:
    """(version, name, checksum) of every applied file; empty for a database or a ledger that is not there."""
    _database(client)
    try:
        rows = client.query(f"SELECT DISTINCT version, name, checksum FROM {LEDGER} ORDER BY version").result_rows  # noqa: S608
    except DatabaseError as error:
        if error_code(error) in (_UNKNOWN_DATABASE, _UNKNOWN_TABLE):
            return []
        raise
    return [(int(version), str(name), str(checksum)) for version, name, checksum in rows]


def _compare(migrations: list[Migration], ledger: Iterable[tuple[int, str, str]]) -> list[Step]:
    applied: dict[int, set[str]] = {}
    names: dict[int, str] = {}
    for version, name, checksum in ledger:
        applied.setdefault(version, set()).add(checksum)
        names[version] = name
    steps: list[Step] = []
    for migration in migrations:
        checksums = applied.get(migration.version)
        if checksums is None:
            steps.append(Step(migration, "pending"))
        elif checksums == {migration.checksum}:
            steps.append(Step(migration, "applied"))
        else:
            raise MigrationError(
                f"{migration.name}.sql changed after it was applied (as {names[migration.version]}); "
                "restore the file and put the change into a new migration"
            )
    pending = [step.migration.version for step in steps if step.state == "pending"]
    later = [version for version in applied if pending and version > pending[0]]
    if later:
        raise MigrationError(
            f"migration {pending[0]:04d} is not applied but {min(later):04d} is: these files belong to another database"
        )
    # Numbers above ours are a newer release's: an old process beside a new one is an ordinary rolling update.
    return steps


class _Lock:
    """See the module's first point."""

    def __init__(self, client: Client, database: str) -> None:
        self._client = client
        self._database = database
        self._number = 0
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def acquire(self, wait_s: float) -> None:
        """Raises MigrationError when somebody else still holds it after ``wait_s``."""
        give_up = time.monotonic() + wait_s
        while True:
            number, holder, silent_s = self._newest()
            if (holder is None or silent_s > LEASE_S) and self._take(number + 1):
                return
            if time.monotonic() > give_up:
                raise MigrationError(
                    f"another process migrates this database (seen {silent_s} s ago); "
                    f"try again, or if it is dead wait until {LEASE_S} s have passed"
                )
            time.sleep(0.1)

    def renew(self) -> None:
        """Raises MigrationError when the lease was lost: somebody else may be migrating by now."""
        number, holder, _ = self._newest()
        if number != self._number or holder != self.owner:
            raise MigrationError(
                "this migration stood still for too long and another process took over; nothing is lost"
            )
        self._comment("held")

    def release(self) -> None:
        """Leaves the table behind, free: its number is what keeps latecomers from taking an old one."""
        number, holder, _ = self._newest()
        if number == self._number and holder == self.owner:
            self._comment("free")

    def _take(self, number: int) -> bool:
        try:
            self._client.command(
                f"CREATE TABLE {LOCK}{number} (nothing UInt8) ENGINE = Null COMMENT '{self._state('held')}'"
            )
        except DatabaseError as error:
            if error_code(error) == _TABLE_ALREADY_EXISTS:
                return False
            raise
        numbers = self._numbers()
        if max(numbers) > number:
            self._client.command(f"DROP TABLE IF EXISTS {LOCK}{number}")
            return False
        for older in numbers:
            if older < number:
                self._client.command(f"DROP TABLE IF EXISTS {LOCK}{older}")
        self._number = number
        return True

    def _newest(self) -> tuple[int, str | None, int]:
        """Number, holder (None: free) and seconds since its last sign of life."""
        numbers = self._numbers()
        if not numbers:
            return 0, None, 0
        newest = max(numbers)
        state, owner, renewed = numbers[newest].split("|")
        return newest, owner if state == "held" else None, self._server_time() - int(renewed)

    def _numbers(self) -> dict[int, str]:
        rows = self._client.query(
            "SELECT name, comment FROM system.tables "
            "WHERE database = {database:String} AND startsWith(name, {lock:String})",
            parameters={"database": self._database, "lock": LOCK},
        ).result_rows
        return {int(name.removeprefix(LOCK)): comment for name, comment in rows}

    def _comment(self, state: str) -> None:
        self._client.command(f"ALTER TABLE {LOCK}{self._number} MODIFY COMMENT '{self._state(state)}'")

    def _state(self, state: str) -> str:
        return f"{state}|{self.owner}|{self._server_time()}"

    def _server_time(self) -> int:
        # The server's clock: two hosts that migrate need not agree on the time.
        return int(str(self._client.command("SELECT toUnixTimestamp(now())")))
