"""``siyu suppress``: who must not be contacted, by a person's word.

What it writes is durable when it says so, and stops calls that are already queued within seconds: executors ask at the
last gate. No customer id is printed but the one that ``show`` was asked about.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import progress
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from services.executor.suppression import SuppressionTable
    from siyu.events import Suppression

COULD_NOT_RUN = 2
_PROGRESS_LINE_SECONDS = 5.0
_LONGEST_ID = 128
_LONGEST_TEXT = 200

app = typer.Typer(no_args_is_help=True, help="Who must not be contacted: add, remove, show. 禁止触达名单。")
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Report = Callable[[str, int, int], None]

Kafka = Annotated[str, typer.Option("--kafka-bootstrap", envvar="SIYU_KAFKA_BOOTSTRAP", help="Kafka brokers.")]
Corp = Annotated[str, typer.Option("--corp", help="The corp's id. 企业ID")]
Customer = Annotated[str, typer.Option("--customer", help="One person: external_userid. 客户ID")]
File = Annotated[
    Path | None, typer.Option("--file", help="Many people: one external_userid a line; - is the standard input. 文件")
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for whoever asks later; no personal data. 原因")]
Source = Annotated[str, typer.Option("--source", help="Who says so: a system or a ticket. 来源")]
DEFAULT_KAFKA = "127.0.0.1:9092"


class BadPeople(ValueError):
    """A list of people that cannot be used; names the line, never the id."""


@app.command()
def add(
    corp: Corp,
    reason: Reason,
    source: Source,
    customer: Customer = "",
    file: File = None,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """People who must not be contacted from now on. 加入禁止触达名单。"""
    _write(corp, customer, file, reason, source, kafka_bootstrap, active=True)


@app.command()
def remove(
    corp: Corp,
    reason: Reason,
    source: Source,
    customer: Customer = "",
    file: File = None,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """People who may be contacted again. 移出禁止触达名单。"""
    _write(corp, customer, file, reason, source, kafka_bootstrap, active=False)


@app.command()
def show(corp: Corp, customer: Customer, kafka_bootstrap: Kafka = DEFAULT_KAFKA) -> None:
    """Whether a person must not be contacted, since when and by whose word. Exit status 1: nothing forbids. 查询。"""
    from services.executor.suppression import SuppressionTable
    from siyu.events.business_time import iso_utc

    _people(corp, customer, None)
    table = SuppressionTable()
    said: list[Suppression] = []

    def look(record: Suppression) -> None:
        if (record.corp_id, record.customer_id) == (corp, customer):
            table.put(record)
            said.append(record)

    _read(kafka_bootstrap, look)
    for record in sorted(said, key=lambda record: (record.event_time_ms, record.active)):
        word = "must not be contacted" if record.active else "may be contacted"
        console.print(escape(f"{iso_utc(record.event_time_ms)}  {word}: {record.reason} ({record.source})"))
    if table.suppressed(corp, customer):
        console.print(escape(f"{customer} must not be contacted 禁止触达"))
        return
    console.print(escape(f"nothing forbids to contact {customer} 未被禁止"))
    raise typer.Exit(1)


def _write(
    corp: str, customer: str, file: Path | None, reason: str, source: str, bootstrap: str, *, active: bool
) -> None:
    from services.executor.suppression import TOPIC, SuppressionTable, suppression_key
    from siyu.events import codec
    from siyu.ops.clock import wall_ms
    from siyu.ops.tables import NotWritten, append

    for name, text in (("reason", reason), ("source", source)):
        if not text.strip() or len(text) > _LONGEST_TEXT or "|" in text:
            raise _fail(f"--{name} needs 1 to {_LONGEST_TEXT} characters and no |")
    people = _people(corp, customer, file)
    wanted = set(people)
    table = SuppressionTable()

    def look(record: Suppression) -> None:
        if record.corp_id == corp and record.customer_id in wanted:
            table.put(record)

    _read(bootstrap, look)
    changed = [person for person in people if table.suppressed(corp, person) is not active]
    now_ms = wall_ms()
    records = (_record(table, corp, person, reason, source, now_ms, active=active) for person in changed)
    pairs = ((suppression_key(record), codec().encode(record)) for record in records)
    try:
        with _progress() as report:
            written = asyncio.run(
                append(
                    bootstrap,
                    TOPIC,
                    pairs,
                    total=len(changed),
                    progress=lambda done: report("written", done, len(changed)),
                )
            )
    except NotWritten as error:
        raise _fail(str(error)) from None
    rest = len(people) - len(changed)
    console.print(
        f"{written:,} added; {rest:,} stood there already"
        if active
        else f"{written:,} removed; {rest:,} did not stand there"
    )


def _record(
    table: SuppressionTable, corp: str, person: str, reason: str, source: str, now_ms: int, *, active: bool
) -> Suppression:
    from siyu.events import Suppression

    # Later than what it replaces, even if that was written by a machine whose clock is ahead.
    newest_ms = table.newest_ms(corp, person)
    return Suppression(
        corp_id=corp,
        customer_id=person,
        active=int(active),
        reason=reason,
        source=source,
        event_time_ms=now_ms if newest_ms is None else max(now_ms, newest_ms + 1),
        written_at_ms=now_ms,
    )


def _people(corp: str, customer: str, file: Path | None) -> list[str]:
    """Who is meant, each once, in the order given."""
    if not corp or "|" in corp:
        raise _fail("--corp is empty or holds |")
    if bool(customer) == (file is not None):
        raise _fail("say who: either --customer or --file")
    try:
        lines = [customer] if file is None else _lines(file)
        return parse_people(lines, "--customer" if file is None else "line {}")
    except (BadPeople, OSError, UnicodeDecodeError) as error:
        what = error if isinstance(error, BadPeople) else getattr(error, "strerror", None) or "not UTF-8"
        raise _fail(f"{file}: {what}" if file is not None else str(what)) from None


def _lines(file: Path) -> list[str]:
    if str(file) == "-":
        return sys.stdin.read().splitlines()
    return file.read_text(encoding="utf-8-sig").splitlines()


def parse_people(lines: Sequence[str], place: str) -> list[str]:
    """Ids of people, each once, in their order; empty lines and lines that begin with # are left out. ``place`` names a
    line (``{}``: its number). Raises BadPeople."""
    people: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        person = line.strip()
        if not person or person.startswith("#"):
            continue
        if len(person) > _LONGEST_ID or not person.isprintable() or any(c in "|, \t" for c in person):
            raise BadPeople(f"{place.format(number)}: no id of a person (one a line, at most {_LONGEST_ID} characters)")
        people[person] = None
    if not people:
        raise BadPeople("names nobody")
    return list(people)


def _read(bootstrap: str, look: Callable[[Suppression], None]) -> None:
    """Hands over every record of the topic."""
    from services.executor.suppression import TOPIC, SuppressionError, check
    from siyu.events import CodecError, Suppression, codec
    from siyu.ops.scan import ScanError, Scanner

    try:
        with _progress() as report, Scanner(bootstrap, report) as scanner:
            if TOPIC not in scanner.partitions:
                raise _fail(f"Kafka at {bootstrap} has no topic {TOPIC}: siyu topics apply")
            for message in scanner.read_topic(TOPIC):
                try:
                    record = codec().decode_as(Suppression, message.value())
                    check(record)
                except (CodecError, SuppressionError):
                    continue  # an executor refuses it too, and says so
                look(record)
    except ScanError as error:
        raise _fail(str(error)) from None


@contextmanager
def _progress() -> Iterator[Report]:
    """Shows on stderr how far it has come: a bar in a terminal, else a line now and then."""
    if errors.is_terminal:
        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
        with progress.Progress(*columns, console=errors, transient=True) as bars:
            task = bars.add_task("", visible=False)
            yield lambda what, done, total: bars.update(
                task, description=what, completed=done, total=total, visible=True
            )
        return
    due = time.monotonic() + _PROGRESS_LINE_SECONDS

    def line(what: str, done: int, total: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _PROGRESS_LINE_SECONDS
            errors.print(escape(f"{what}: {done:,} of {total:,}"))

    yield line


def _fail(message: str) -> typer.Exit:
    """Prints one line to stderr and gives the exit to raise."""
    errors.print(f"[red]siyu suppress:[/red] {escape(message)}")
    return typer.Exit(COULD_NOT_RUN)
