"""``siyu``: the command line. Every command is a thin door to a package that can be used without it.

Exit codes: 0 done, 1 the answer is no (differences, something refused), 2 could not run (bad input, no connection).
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import progress
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from siyu.actions_cli import actions_app, quota
from siyu.audit import command as audit_command
from siyu.content_cli import app as content_app
from siyu.events import schemas_dir
from siyu.guard_cli import app as guard_app
from siyu.limits_cli import app as limits_app
from siyu.sim_cli import app as sim_app
from siyu.suppress_cli import app as suppress_app

if TYPE_CHECKING:
    from siyu.ops.scan import Progress
    from siyu.ops.state import Source

SERVICES = ("ingest", "journey", "performance", "planner", "guard", "executor", "sync", "sink", "api")
PROCESSORS = ("journey", "performance", "planner", "guard")
COULD_NOT_RUN = 2
PROGRESS_LINE_SECONDS = 5.0
PLAIN_WIDTH = 200

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Siyu 私域: the WeCom side of a retail chain.")
topics_app = typer.Typer(no_args_is_help=True, help="Kafka topics as schemas/topics.yaml declares them.")
dlq_app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, replay.")
state_app = typer.Typer(no_args_is_help=True, help="States of the processors.")
app.add_typer(topics_app, name="topics")
app.add_typer(dlq_app, name="dlq")
app.add_typer(state_app, name="state")
app.add_typer(sim_app, name="sim")
app.add_typer(suppress_app, name="suppress")
app.add_typer(content_app, name="content")
app.add_typer(guard_app, name="guard")
app.add_typer(limits_app, name="limits")
app.add_typer(actions_app, name="actions")
app.command("quota")(quota)
app.command("audit")(audit_command)


def _console(*, stderr: bool) -> Console:
    """As wide as the terminal, and wide enough for a table when the output goes to a file or another program."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


console, errors = _console(stderr=False), _console(stderr=True)

Kafka = Annotated[str, typer.Option("--kafka-bootstrap", envvar="SIYU_KAFKA_BOOTSTRAP", help="Kafka brokers.")]
ClickHouse = Annotated[str, typer.Option("--clickhouse-url", envvar="SIYU_CLICKHOUSE_URL", help="ClickHouse HTTP.")]
DEFAULT_KAFKA = "127.0.0.1:9092"
DEFAULT_CLICKHOUSE = "http://127.0.0.1:8123"


def fail(message: str, code: int = COULD_NOT_RUN) -> typer.Exit:
    """Prints one line to stderr and gives the exit to raise."""
    errors.print(f"[red]siyu:[/red] {escape(message)}")
    return typer.Exit(code)


@app.command()
def run(
    service: Annotated[str, typer.Argument(help=f"One of {', '.join(SERVICES)}.")],
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            envvar="SIYU_WORKERS",
            help=f"So many processes that share the work, as one service ({', '.join(PROCESSORS)} only).",
        ),
    ] = 1,
) -> None:
    """Run one service in the foreground until SIGTERM or Ctrl-C. 启动一个服务。"""
    if service not in SERVICES:
        raise fail(f"no service {service!r}; there are {', '.join(SERVICES)}")
    if workers > 1:
        if service not in PROCESSORS:
            raise fail(
                f"{service} runs as one process: only {', '.join(PROCESSORS)} divide their partitions among workers; "
                "leave --workers and SIYU_WORKERS out"
            )
        from siyu.ops.workers.supervisor import run_workers

        in_force = _settings(service)
        _settings(service, instance=f"{in_force.instance}-{workers - 1}")  # the longest name a worker will have
        raise typer.Exit(run_workers(f"services.{service}", in_force, workers))
    sys.argv = [f"siyu run {service}"]
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)


@topics_app.command("apply")
def topics_apply(
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
    profile: Annotated[str, typer.Option(help="local or production: partition counts and replication.")] = "local",
    yes: Annotated[bool, typer.Option("--yes", help="Apply without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the difference.")] = False,
) -> None:
    """Show how the cluster differs from schemas/topics.yaml, then apply what cannot lose data. 应用主题声明。"""
    from siyu.ops.topics import Cluster, TopicsError, load_topics

    if profile not in ("local", "production"):
        raise fail(f"no profile {profile!r}; there are local and production")
    try:
        wanted = load_topics(schemas_dir() / "topics.yaml", "local" if profile == "local" else "production")
        cluster = Cluster(kafka_bootstrap)
        changes = cluster.difference(wanted)
        refused = [change for change in changes if change.kind == "refused"]
        for change in changes:
            console.print(escape(str(change)))
        if not changes:
            console.print(f"{len(wanted)} topics as declared; nothing to do")
        elif not dry_run and len(refused) < len(changes):
            if not yes and not (sys.stdin.isatty() and typer.confirm("Apply?")):
                raise fail("nothing applied; say --yes to apply without asking")
            cluster.apply(changes, wanted)
            console.print(f"{len(changes) - len(refused)} changes applied")
    except TopicsError as error:
        raise fail(str(error)) from None
    if refused:
        raise fail(f"{len(refused)} differences refused: they need a migration", 1)


@app.command()
def migrate(
    clickhouse_url: ClickHouse = DEFAULT_CLICKHOUSE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would run.")] = False,
) -> None:
    """Bring ClickHouse to the newest schema: schemas/clickhouse, in order, each once. 执行数据库迁移。"""
    from siyu.warehouse import WarehouseError, connect, migrations

    try:
        client = connect(clickhouse_url)
        done = migrations.migrate(client, schemas_dir() / "clickhouse", dry_run=dry_run)
    except WarehouseError as error:
        raise fail(str(error)) from None
    for migration in done:
        console.print(f"{'would run' if dry_run else 'ran'} {migration.name}")
    if not done:
        console.print("schema is up to date; nothing to do")


@app.command("api-token")
def api_token(
    name: Annotated[str, typer.Argument(help="Whose it is: the author of what is written with it.")],
    file: Annotated[Path, typer.Option("--file", envvar="SIYU_API_TOKENS", help="The tokens file; made if need be.")],
    role: Annotated[
        str, typer.Option(help="reader: sees all but names of customers; operator: writes too.")
    ] = "reader",
) -> None:
    """Make a token of the API: shown once, kept as a hash. The API takes it over by itself. 新建接口令牌。"""
    from siyu.ops.api_tokens import TokensError, make_token

    try:
        token = make_token(file, name, role)
    except TokensError as error:
        raise fail(str(error)) from None
    errors.print(f"{escape(name)} ({role}) 令牌仅显示一次 / shown this once:")
    typer.echo(token)


def _settings(service: str, **instead: str) -> Any:
    """The service's settings as they are in force, but for what ``instead`` gives."""
    import importlib

    from pydantic import ValidationError

    try:
        return importlib.import_module(f"services.{service}.settings").Settings(**instead)
    except ValidationError as error:
        # Not its own text, which quotes the values.
        wrong = (f"SIYU_{'.'.join(map(str, e['loc']))}".upper() + f": {e['msg']}" for e in error.errors())
        raise fail("; ".join(wrong)) from None


@app.command()
def settings(
    service: Annotated[str | None, typer.Argument(help="A service; all when left out.")] = None,
) -> None:
    """Every setting of the services: environment variable, value in force, default, meaning. 查看配置。"""
    names = SERVICES if service is None else (service,)
    for name in names:
        if name not in SERVICES:
            raise fail(f"no service {name!r}; there are {', '.join(SERVICES)}")
        in_force = _settings(name)
        values = in_force.redacted()
        table = Table(title=name, title_justify="left")
        for heading in ("variable", "value", "default", "meaning"):
            table.add_column(heading, overflow="fold")
        for field_name, field in type(in_force).model_fields.items():
            variable = f"{type(in_force).model_config.get('env_prefix', '')}{field_name}".upper()
            table.add_row(variable, str(values[field_name]), str(field.default), escape(field.description or ""))
        console.print(table)


@dlq_app.command("list")
def dlq_list(kafka_bootstrap: Kafka = DEFAULT_KAFKA) -> None:
    """How many dead letters there are, by service, origin and error. 死信统计。"""
    from collections import Counter

    from siyu.ops import dlq

    table = Table()
    for heading in ("service", "origin", "error", "count"):
        table.add_column(heading)
    try:
        for service in dlq.services(kafka_bootstrap):
            counts = Counter(
                (letter.headers.get("origin.topic", "?"), letter.headers.get("error.class", "?"))
                for letter in dlq.read(kafka_bootstrap, service)
            )
            for (origin, error), count in sorted(counts.items()):
                table.add_row(service, origin, error, str(count))
    except dlq.DeadLettersError as error:
        raise fail(str(error)) from None
    console.print(table if table.row_count else "no dead letters")


@dlq_app.command("show")
def dlq_show(
    service: Annotated[str, typer.Argument(help="Service whose dead letters to show.")],
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
    limit: Annotated[int, typer.Option(help="At most so many, oldest first.")] = 20,
) -> None:
    """Where dead letters came from and why; never their content, which may be personal. 死信来源与原因。"""
    from itertools import islice

    from siyu.ops import dlq

    try:
        for letter in islice(dlq.read(kafka_bootstrap, service), limit):
            place = f"{letter.topic} {letter.partition}:{letter.offset}"
            headers = " ".join(f"{name}={value}" for name, value in letter.headers.items())
            console.print(escape(f"{place} bytes={len(letter.value or b'')} {headers}"))
    except dlq.DeadLettersError as error:
        raise fail(str(error)) from None


@dlq_app.command("replay")
def dlq_replay(
    service: Annotated[str, typer.Argument(help="Service whose dead letters to send back.")],
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
    partition: Annotated[int | None, typer.Option(help="Only this partition of the dead letter topic.")] = None,
    offset: Annotated[int | None, typer.Option(help="Only this offset (with --partition).")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Append dead letters to the topics they came from; consumers drop what they had applied. 重放死信。"""
    from siyu.ops import dlq

    if offset is not None and partition is None:
        raise fail("--offset needs --partition")
    try:
        letters = [
            letter
            for letter in dlq.read(kafka_bootstrap, service)
            if (partition is None or letter.partition == partition) and (offset is None or letter.offset == offset)
        ]
        if kept := [letter for letter in letters if not dlq.replayable(letter)]:
            console.print(
                f"{len(kept)} left alone: timers have no record to send back; what set them can set them anew"
            )
            letters = [letter for letter in letters if dlq.replayable(letter)]
        if not letters:
            console.print("no dead letters match")
            return
        if not yes and not (sys.stdin.isatty() and typer.confirm(f"Replay {len(letters)} dead letters?")):
            raise fail("nothing replayed; say --yes to replay without asking")
        console.print(f"{dlq.replay(kafka_bootstrap, letters)} replayed")
    except dlq.DeadLettersError as error:
        raise fail(str(error)) from None


@contextmanager
def _progress() -> Iterator[Progress]:
    """Shows on stderr how far a long read has come: a bar in a terminal, else a line now and then."""
    if errors.is_terminal:
        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
        with progress.Progress(*columns, console=errors, transient=True) as bars:
            task = bars.add_task("", visible=False)
            yield lambda what, done, total: bars.update(
                task, description=what, completed=done, total=total, visible=True
            )
        return
    due = time.monotonic() + PROGRESS_LINE_SECONDS

    def line(what: str, done: int, total: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + PROGRESS_LINE_SECONDS
            errors.print(escape(f"{what}: {done:,} of {total:,} records"))

    yield line


@state_app.command("get")
def state_get(
    processor: Annotated[str, typer.Argument(help=f"One of {', '.join(PROCESSORS)}.")],
    key: Annotated[
        str, typer.Argument(help="corp|customer, corp|~order (no known payer), or corp|staff (performance, guard).")
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="newest: the store on this machine and what the changelog has behind it; store: only that, without "
            "Kafka; changelog: all of the key's partition.",
        ),
    ] = "newest",
    state_dir: Annotated[Path, typer.Option(envvar="SIYU_STATE_DIR", help="Folder of the local state stores.")] = Path(
        "var/state"
    ),
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Show one key's state and where it was read; the service may run meanwhile. May be personal data. 查看状态。"""
    from siyu.ops.state import StateReadError, as_json, find_state, processor_of

    if processor not in PROCESSORS:
        raise fail(f"no processor {processor!r}; there are {', '.join(PROCESSORS)}")
    sources: dict[str, Source] = {"newest": "newest", "store": "store", "changelog": "changelog"}
    if source not in sources:
        raise fail(f"--from {source}: there are {', '.join(sources)}")
    definition = processor_of(processor)
    try:
        with _progress() as report:
            found = find_state(
                definition,
                key,
                bootstrap=kafka_bootstrap,
                state_dir=state_dir,
                source=sources[source],
                progress=report,
            )
        if found.stored is not None:
            typer.echo(as_json(definition, key, found))
            return
    except StateReadError as error:
        raise fail(str(error)) from None
    partition = "" if found.partition is None else f", partition {found.partition}"
    end = found.store_position if found.changelog_end is None else found.changelog_end
    upto = "" if end is None else f", up to changelog offset {end:,}"
    deleted = "" if found.changelog_offset is None else f"; deleted at offset {found.changelog_offset:,}"
    hint = "" if "|" in key else "; a key is corp|customer, or corp|staff for performance and guard"
    raise fail(f"{processor} has no state for this key (read {found.read_from}{partition}{upto}{deleted}){hint}", 1)


@app.command()
def trace(
    event_id: Annotated[str, typer.Argument(help="Id of a contact or payment event, as every log line names it.")],
    since: Annotated[str, typer.Option(help="How far to look back: 90m, 24h, 7d, or a time.")] = "24h",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Follow one event through the topics, and say what is missing. Names nobody, no amounts. 追踪事件。"""
    import json

    from siyu.events.business_time import iso_utc
    from siyu.ops import trace as tracing
    from siyu.ops.clock import wall_ms
    from siyu.ops.scan import ScanError

    try:
        since_ms = tracing.parse_since(since, wall_ms())
    except ValueError as error:
        raise fail(f"--since {error}") from None
    try:
        with _progress() as report:
            found = tracing.trace(kafka_bootstrap, event_id, since_ms, report)
    except ScanError as error:
        raise fail(str(error)) from None
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    elif found.records:
        first_ms = found.records[0].timestamp_ms
        console.print(f"first written {iso_utc(first_ms)}")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("UTC", "+ms", "topic", "place", "type", "what"):
            table.add_column(heading, overflow="fold", justify="right" if heading == "+ms" else "left")
        for record in found.records:
            table.add_row(
                iso_utc(record.timestamp_ms)[11:-1],
                f"{record.timestamp_ms - first_ms:,}",
                record.topic,
                f"{record.partition}:{record.offset}",
                record.kind,
                escape(_in_words(tracing.describe(record)))
                + ("" if record not in found.repeats else ", [dim]again[/]"),
            )
        console.print(table)
        for absence in found.absent:
            console.print(f"[yellow]not there:[/yellow] {escape(', '.join(absence.topics))} – {escape(absence.text)}")
    if not found.records:
        raise fail(f"nothing since {iso_utc(since_ms)} is or was caused by this event; look further back: --since", 1)


def _in_words(what: dict[str, object]) -> str:
    """``{"change": "add", "revision": 2, "paid": True, "detail": ""}`` → ``add, revision 2, paid``."""
    words = []
    for name, value in what.items():
        label = name.replace("_", " ")
        if value is True:
            words.append(label)
        elif value not in (False, "", None):
            shown = " ".join(value) if isinstance(value, list) else str(value)
            words.append(shown if name in ("callback", "change") else f"{label} {shown}")
    return ", ".join(words)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def demo(context: typer.Context) -> None:
    """Play a day, or a year of real purchases, through the whole system and audit it. 一键演示。"""
    from deploy.local.demo import app as demo_app

    demo_app(args=context.args, prog_name="siyu demo")


@app.command("schemas")
def schemas_check(
    directory: Annotated[Path, typer.Option(help="Folder with ids.json and avro/.")] = schemas_dir(),  # noqa: B008
) -> None:
    """Check that every schema version reads every other version of its type. 校验 Avro 兼容性。"""
    from siyu.events.compatibility import incompatibilities

    found = incompatibilities(directory)
    for line in found:
        console.print(escape(line))
    if found:
        raise fail(f"{len(found)} incompatibilities", 1)
    console.print("schemas are compatible in both directions")
