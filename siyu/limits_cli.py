"""``siyu limits``: what WeCom allows and what we allow ourselves: in force, checked, applied, and looked back at.

Exit codes as everywhere in ``siyu``: 0 done, 1 the answer is no, 2 could not run. 限额命令行。
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from siyu.events import schemas_dir
from siyu.events.business_time import SHANGHAI

if TYPE_CHECKING:
    from siyu.limits import Limit, LimitRegistry, LimitSet
    from siyu.limits.explain import Explanation

COULD_NOT_RUN = 2
PLAIN_WIDTH = 200
DEFAULT_KAFKA = "127.0.0.1:9092"

app = typer.Typer(no_args_is_help=True, help="Limits of the platform, as dated data: show, check, apply. 平台限额。")


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


console, errors = _console(stderr=False), _console(stderr=True)

Kafka = Annotated[str, typer.Option("--kafka-bootstrap", envvar="SIYU_KAFKA_BOOTSTRAP", help="Kafka brokers.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def fail(message: str, code: int = COULD_NOT_RUN) -> typer.Exit:
    """Prints one line to stderr and gives the exit to raise."""
    errors.print(f"[red]siyu limits:[/red] {escape(message)}", soft_wrap=True)
    return typer.Exit(code)


@app.command()
def show(
    at: Annotated[
        str, typer.Option("--at", help="A day or time, Asia/Shanghai unless it says otherwise; default: now. 时间")
    ] = "",
    corp: Annotated[str, typer.Option("--corp", help="Only what holds for this corp. 企业")] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="Only what holds for this endpoint, e.g. message/send. 接口")
    ] = "",
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Limits of this folder instead of those in force. 限额目录")
    ] = None,
    as_json: AsJson = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Show the limits in force at a time, with what they count and where they come from. 查看生效限额。"""
    at_ms = _time(at)
    registry, origin = _in_force(kafka_bootstrap) if folder is None else (_load(folder), str(folder))
    in_force = registry.at(at_ms)
    limits = _selected(in_force, corp, endpoint)
    next_ms = registry.next_change_ms(at_ms)
    if as_json:
        document = {
            "at_ms": at_ms,
            "since_ms": in_force.as_of_ms,
            "next_change_ms": next_ms,
            "revision": registry.revision,
            "origin": origin,
            "limits": [_limit_json(limit) for limit in limits],
            "headroom": dict(in_force.headroom),
            "margins": {name: getattr(in_force.margins, name) for name in in_force.margins.__dataclass_fields__},
        }
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    console.print(escape(f"{_shown(at_ms)}, revision {registry.revision} ({origin})"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("limit", "scope", "endpoints", "amount", "window", "past it", "how", "confidence"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "amount" else "left")
    for limit in limits:
        amount = f"{limit.amount:,}" + (" persons" if limit.counts == "persons" else "")
        table.add_row(
            limit.id,
            limit.scope,
            escape(_endpoints(limit)),
            amount,
            str(limit.window),
            limit.block,
            _how(limit),
            escape(limit.confidence),
        )
    console.print(table)
    shares = ", ".join(f"{lane} {share:.0%}" for lane, share in in_force.headroom.items())
    console.print(f"lanes may fill of a shared limit: {shares}")
    console.print(f"next change: {_shown(next_ms)}" if next_ms is not None else "no change is dated after this")


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of limit files (*.yaml). 限额目录")],
) -> None:
    """Check limit files; exit code 1 names file, line and field of what is wrong. 校验限额文件。"""
    registry = _load(folder, refused_code=1)
    versions = sum(len(versions) for versions in registry.limits.values())
    console.print(escape(f"{folder}: good, {len(registry.limits)} limits in {versions} versions, {registry.revision}"))


@app.command()
def apply(
    folder: Annotated[Path, typer.Argument(help="Folder of limit files (*.yaml). 限额目录")],
    author: Annotated[str, typer.Option("--author", help="Who answers for it. 责任人")],
    reason: Annotated[str, typer.Option("--reason", help="Why. 原因")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the difference. 仅显示差异")] = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Check limit files, show what they change, and put them in force in every executor. 发布限额。"""
    from siyu.limits import LimitsError
    from siyu.limits.difference import difference
    from siyu.limits.topic import publish, read_published
    from siyu.ops.clock import wall_ms
    from siyu.ops.scan import ScanError

    if not author.strip() or not reason.strip():
        raise fail("--author and --reason must say something")
    registry = _load(folder, refused_code=1)
    try:
        published = read_published(kafka_bootstrap)
        try:
            before = published.registry()
        except LimitsError as error:
            errors.print(escape(f"what is published cannot be used, so all of it is replaced: {error}"))
            before = None
        if before is not None and before.revision == registry.revision:
            console.print(f"revision {registry.revision} is in force; nothing to do")
            return
        compared = before if before is not None else _seed()
        console.print(
            f"{compared.revision} → {registry.revision}"
            + ("" if before is not None else "; none was ever applied, so this is against the limits of this checkout")
        )
        for change in difference(compared, registry):
            console.print(escape(str(change)))
        if dry_run:
            return
        publish(kafka_bootstrap, registry, author=author, reason=reason, written_at_ms=wall_ms())
    except (LimitsError, ScanError) as error:
        raise fail(str(error)) from None
    console.print(f"revision {registry.revision} is applied; each limit holds from its own date")


@app.command()
def history(as_json: AsJson = False, kafka_bootstrap: Kafka = DEFAULT_KAFKA) -> None:
    """Every revision that was ever applied or came with a release: when, by whom and why. 限额历史。"""
    from siyu.limits import LimitsError
    from siyu.limits.topic import read_published
    from siyu.ops.scan import ScanError

    try:
        published = read_published(kafka_bootstrap)
    except (LimitsError, ScanError) as error:
        raise fail(str(error)) from None
    newest = published.newest.revision if published.newest is not None else None
    if as_json:
        rows = [
            {
                "revision": record.revision,
                "written_at_ms": record.written_at_ms,
                "author": record.author,
                "reason": record.reason,
                "in_force": record.revision == newest,
            }
            for record in published.history.values()
        ]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not published.history:
        console.print("no limits were ever applied: the limits of the executors' own schemas/limits are in force")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("written", "revision", "author", "reason", ""):
        table.add_column(heading, overflow="fold")
    for record in published.history.values():
        table.add_row(
            _shown(record.written_at_ms),
            record.revision,
            escape(record.author),
            escape(record.reason),
            "in force" if record.revision == newest else "",
        )
    console.print(table)


@app.command()
def explain(
    action_id: Annotated[str, typer.Argument(help="Id of an action, as every log line names it. 动作编号")],
    as_json: AsJson = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Show by which limits an action was admitted, and evaluate them again: exit code 1 when the answer differs.

    Reads the ledger whole; names nobody. 解释放行决定。
    """
    from siyu.limits import LimitsError
    from siyu.limits.explain import ExplainError
    from siyu.limits.explain import explain as evaluate
    from siyu.limits.topic import read_admission, read_published
    from siyu.ops.scan import ScanError

    try:
        entry = read_admission(kafka_bootstrap, action_id)
        if entry is None:
            raise fail(f"the ledger has no action {action_id}")
        if not entry.admitted_at_ms:
            raise fail(f"action {action_id} was never admitted: {entry.state} {entry.status} {entry.detail}".rstrip())
        registry = read_published(kafka_bootstrap).revision(entry.limits_revision)
        if registry is None:
            registry = _seed()
        if registry.revision != entry.limits_revision:
            raise fail(
                f"action {action_id} was admitted by limits {entry.limits_revision}, which were never applied through "
                f"the topic config and are not those of this checkout ({registry.revision})"
            )
        found = evaluate(entry, registry.at(entry.admitted_at_ms))
    except (ExplainError, LimitsError, ScanError) as error:
        raise fail(str(error)) from None
    if as_json:
        typer.echo(json.dumps(_explained_json(found), indent=2, ensure_ascii=False))
    else:
        _print_explained(found)
    if not found.same:
        raise typer.Exit(1)


def _print_explained(found: Explanation) -> None:
    console.print(
        escape(
            f"action {found.action_id}: {found.endpoint} of {found.corp_id}, lane {found.lane}, admitted "
            f"{_shown(found.admitted_at_ms)} by revision {found.revision}"
        )
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("level", "limit", "window", "used", "allowed", "of", "guard", "evaluated again"):
        right = heading in ("used", "allowed", "of", "guard")
        table.add_column(heading, overflow="fold", justify="right" if right else "left")
    for limit in found.limits:
        if limit.amount_again is None or limit.allowed_again is None:
            again = "[red]no such limit[/red]"
        elif limit.same:
            lower = "" if limit.allowed == limit.allowed_again else f" (at most {limit.allowed_again:,})"
            again = f"same{lower}"
        else:
            again = f"[red]{limit.allowed_again:,} of {limit.amount_again:,}[/red]"
        table.add_row(
            escape(f"{limit.scope} {limit.endpoint}"),
            limit.id,
            limit.window,
            f"{limit.used:,}",
            f"{limit.allowed:,}",
            f"{limit.amount:,}",
            f"{limit.allowance_percent} %",
            again,
        )
    console.print(table)
    for name in found.left_out:
        console.print(f"[red]not looked at:[/red] {name}")
    console.print(
        "the limits of then give the same answer" if found.same else "[red]the limits of then answer differently[/red]"
    )


def _explained_json(found: Explanation) -> dict[str, Any]:
    return {
        "action_id": found.action_id,
        "endpoint": found.endpoint,
        "corp_id": found.corp_id,
        "lane": found.lane,
        "revision": found.revision,
        "admitted_at_ms": found.admitted_at_ms,
        "same": found.same,
        "left_out": list(found.left_out),
        "limits": [
            {
                "scope": limit.scope,
                "endpoint": limit.endpoint,
                "id": limit.id,
                "window": limit.window,
                "used": limit.used,
                "allowed": limit.allowed,
                "amount": limit.amount,
                "allowance_percent": limit.allowance_percent,
                "amount_again": limit.amount_again,
                "allowed_again": limit.allowed_again,
                "same": limit.same,
            }
            for limit in found.limits
        ],
    }


def _limit_json(limit: Limit) -> dict[str, Any]:
    fields = {name: getattr(limit, name) for name in limit.__dataclass_fields__}
    return fields | {"window": str(limit.window)}


def _load(folder: Path, *, refused_code: int = COULD_NOT_RUN) -> LimitRegistry:
    from siyu.limits import LimitsError, load_registry

    if not folder.is_dir():
        raise fail(f"{folder} is not a folder")
    try:
        return load_registry(folder)
    except LimitsError as error:
        raise fail(str(error), refused_code) from None


def _seed() -> LimitRegistry:
    """The limits that come with this checkout: in force where none were ever applied."""
    return _load(schemas_dir() / "limits")


def _in_force(kafka_bootstrap: str) -> tuple[LimitRegistry, str]:
    from siyu.limits import LimitsError
    from siyu.limits.topic import read_published
    from siyu.ops.scan import ScanError

    try:
        published = read_published(kafka_bootstrap)
        registry = published.registry()
    except ScanError as error:
        raise fail(f"{error}; --folder shows files without Kafka") from None
    except LimitsError as error:
        raise fail(f"what is published cannot be used, executors keep the last good one: {error}") from None
    if registry is None or published.newest is None:
        return _seed(), "of this checkout; none was ever applied"
    return registry, f"applied {_shown(published.newest.written_at_ms)}"


def _time(text: str) -> int:
    from siyu.ops.clock import wall_ms

    if not text:
        return wall_ms()
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        raise fail(f"--at {text!r} is neither a day nor a time; write 2026-01-01 or 2026-01-01T12:00") from None
    return int((at if at.tzinfo else at.replace(tzinfo=SHANGHAI)).timestamp() * 1000)


def _shown(time_ms: int) -> str:
    return dt.datetime.fromtimestamp(time_ms / 1000, SHANGHAI).isoformat(" ", timespec="seconds")


def _selected(in_force: LimitSet, corp: str, endpoint: str) -> list[Limit]:
    """What holds for the corp and the endpoint; for an endpoint of every corp, what corps have of their own as well."""
    limits = [limit for limit in in_force.limits if not corp or not limit.corps or corp in limit.corps]
    if not endpoint:
        return limits
    held = {limit.id for limit in in_force.documented(corp, endpoint)}
    return [
        limit
        for limit in limits
        if limit.id in held
        or (limit.outside and endpoint in limit.endpoints)
        or (not corp and limit.corps and not limit.outside and limit.covers(limit.corps[0], endpoint))
    ]


def _endpoints(limit: Limit) -> str:
    names = ", ".join(limit.endpoints) or ("not of this system" if limit.outside else "every")
    if limit.but_not:
        names += f" but {', '.join(limit.but_not)}"
    if limit.field:
        names += f": {limit.field}"
    if limit.corps:
        names += f" ({', '.join(limit.corps)})"
    return names


def _how(limit: Limit) -> str:
    words: list[str] = ["outside" if limit.outside else limit.enforce]
    words += [word for word, yes in (("ours", limit.ours), ("paced", limit.paced)) if yes]
    return ", ".join(words)
