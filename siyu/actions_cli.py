"""``siyu actions`` and ``siyu quota``: the operator's view of the executor, as commands.

Exit codes: 0 done, 1 refused (the answer is no), 2 not found, or could not run. No customer is named unless
``--show-people`` asks for it; else a customer is a short hash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from siyu.actions.control import check_verdict, pause_id
from siyu.actions.errors import ActionsError, Invalid, Refused
from siyu.actions.model import ActionDetail, ActionView, ControlView, QuotaList
from siyu.actions.operations import Operations
from siyu.actions.records import Records
from siyu.actions.store import ActionStore, Filter
from siyu.events.business_time import iso_utc
from siyu.ops.clock import ClockError, clock_from
from siyu.ops.trace import parse_since

REFUSED, NOT_FOUND = 1, 2
_PLAIN_WIDTH = 200
_WATCH_SECONDS = 2.0
_DAY_MS = 86_400_000

actions_app = typer.Typer(
    no_args_is_help=True, help="Actions: what became of them, repeat, cancel, settle, pause. 查看与干预动作。"
)

Kafka = Annotated[str, typer.Option("--kafka-bootstrap", envvar="SIYU_KAFKA_BOOTSTRAP", help="Kafka brokers.")]
Url = Annotated[str, typer.Option("--clickhouse-url", envvar="SIYU_CLICKHOUSE_URL", help="ClickHouse HTTP.")]
User = Annotated[str, typer.Option("--clickhouse-user", envvar="SIYU_CLICKHOUSE_USER", help="Its user.")]
Password = Annotated[
    str,
    typer.Option("--clickhouse-password", envvar="SIYU_CLICKHOUSE_PASSWORD", help="Its password.", show_default=False),
]
Database = Annotated[str, typer.Option("--clickhouse-database", envvar="SIYU_CLICKHOUSE_DATABASE", help="Database.")]
ClockFile = Annotated[
    Path | None, typer.Option("--clock-file", envvar="SIYU_CLOCK_FILE", help="Clock file of a demonstration.")
]
Id = Annotated[str, typer.Argument(help="Id of the action, as every log line names it.")]
Corp = Annotated[str, typer.Option("--corp", help="Corp id.")]
Lane = Annotated[str, typer.Option("--lane", help="welcome, urgent, bulk or sync.")]
Campaign = Annotated[str, typer.Option("--campaign", help="Campaign id.")]
Author = Annotated[str, typer.Option("--author", envvar="SIYU_AUTHOR", help="Who decides this: kept with the word.")]
Reason = Annotated[str, typer.Option("--reason", help="Why: kept with the word.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
ShowPeople = Annotated[bool, typer.Option("--show-people", help="Name customers instead of their hashes.")]
KAFKA, URL = "127.0.0.1:9092", "http://127.0.0.1:8123"


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH)


@contextmanager
def _explained() -> Iterator[None]:
    """Prints what went wrong in one line and leaves with its exit code."""
    try:
        yield
    except (ActionsError, ClockError) as error:
        field = f"{error.field}: " if isinstance(error, Invalid) else ""
        _console(stderr=True).print(f"[red]siyu:[/red] {escape(field + str(error))}", soft_wrap=True)
        raise typer.Exit(REFUSED if isinstance(error, Refused) else NOT_FOUND) from None


def _operations(
    kafka: str,
    url: str,
    user: str,
    password: str,
    database: str,
    clock_file: Path | None,
    look_back_ms: int = _DAY_MS,
) -> Operations:
    records = Records(kafka)
    return Operations(
        store=ActionStore(url, user=user, password=password, database=database),
        records=records,
        clock=clock_from(clock_file),
        controls=records.controls,
        quotas=records.quotas,
        look_back_ms=look_back_ms,
    )


def _print_json(value: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _duration_ms(option: str, text: str) -> int:
    """``2h`` in ms. Raises Invalid."""
    try:
        offset = parse_since(text, 0)
    except ValueError:
        offset = 0
    if offset >= 0:
        raise Invalid(option, f"{text!r} is no duration such as 90m, 2h, 7d")
    return -offset


def _moment_ms(option: str, text: str, now_ms: int, *, ahead: bool) -> int:
    """``2h`` before (or after) now, or a time (Asia/Shanghai unless it says otherwise). Raises Invalid."""
    try:
        offset = parse_since(text, 0)
    except ValueError as error:
        raise Invalid(option, str(error)) from None
    if offset >= 0:
        return offset
    return now_ms - offset if ahead else now_ms + offset


@actions_app.command("show")
def show(
    action_id: Id,
    corp: Corp = "",
    since: Annotated[
        str, typer.Option(help="How far back to look for it in the lanes, when nothing has been done about it yet.")
    ] = "24h",
    show_people: ShowPeople = False,
    as_json: Json = False,
    kafka_bootstrap: Kafka = KAFKA,
    clickhouse_url: Url = URL,
    clickhouse_user: User = "default",
    clickhouse_password: Password = "",
    clickhouse_database: Database = "siyu",
) -> None:
    """Everything about one action: state, outcome, admission, chunks, people, who intervened. 查看一个动作。"""
    with _explained():
        look_back_ms = _duration_ms("since", since)
        operations = _operations(
            kafka_bootstrap,
            clickhouse_url,
            clickhouse_user,
            clickhouse_password,
            clickhouse_database,
            None,
            look_back_ms,
        )
        detail = operations.show(action_id, corp_id=corp, people=show_people)
    if as_json:
        _print_json(detail)
    else:
        _print_detail(detail)


@actions_app.command("list")
def list_actions(
    corp: Corp = "",
    lane: Lane = "",
    endpoint: Annotated[str, typer.Option(help="Path below the base URL.")] = "",
    state: Annotated[str, typer.Option(help="open, waiting, prepared, in_doubt, accepted or ended.")] = "",
    status: Annotated[str, typer.Option(help="How it ended: done, expired, rejected, failed …")] = "",
    campaign: Campaign = "",
    staff: Annotated[str, typer.Option(help="Staff member.")] = "",
    since: Annotated[
        str, typer.Option(help="Asked for since then (business time): 90m, 24h, 7d, a time, or `ever`.")
    ] = "24h",
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    in_doubt: Annotated[
        bool, typer.Option("--in-doubt", help="Only what waits to be settled, of whatever age.")
    ] = False,
    parts: Annotated[bool, typer.Option("--parts", help="Parts of actions too: chunks and persons of a send.")] = False,
    cursor: Annotated[str, typer.Option(help="Of the page before.")] = "",
    show_people: ShowPeople = False,
    as_json: Json = False,
    clickhouse_url: Url = URL,
    clickhouse_user: User = "default",
    clickhouse_password: Password = "",
    clickhouse_database: Database = "siyu",
    clock_file: ClockFile = None,
) -> None:
    """The newest actions that fit, as the ledger and the outcomes know them. 列出动作。"""
    with _explained():
        operations = _operations(
            "", clickhouse_url, clickhouse_user, clickhouse_password, clickhouse_database, clock_file
        )
        ever = in_doubt or since == "ever"
        wanted = Filter(
            corp_id=corp,
            lane=lane,
            endpoint=endpoint,
            state="in_doubt" if in_doubt else state,
            status=status,
            campaign_id=campaign,
            staff_id=staff,
            parent_id=None if parts or in_doubt else "",
            since_ms=0 if ever else _moment_ms("since", since, operations.clock.now_ms(), ahead=False),
        )
        page = operations.page(wanted, limit=limit, cursor=cursor, people=show_people)
    if as_json:
        _print_json(page)
        return
    console = _console()
    console.print(_action_table(page.actions) if page.actions else "没有符合的动作 / no actions fit")
    if page.next_cursor:
        console.print(f"还有更多 / there are more: --cursor {page.next_cursor}", soft_wrap=True)


@actions_app.command("retry")
def retry(
    action_id: Id,
    reason: Reason,
    author: Author,
    corp: Corp = "",
    deadline: Annotated[
        str | None, typer.Option(help="When it must have started: 2h from now, or a time; else as long as before.")
    ] = None,
    not_done: Annotated[
        bool,
        typer.Option("--not-done", help="Nobody knew whether it had been carried out; I looked, and it was not."),
    ] = False,
    as_json: Json = False,
    kafka_bootstrap: Kafka = KAFKA,
    clickhouse_url: Url = URL,
    clickhouse_user: User = "default",
    clickhouse_password: Password = "",
    clickhouse_database: Database = "siyu",
    clock_file: ClockFile = None,
) -> None:
    """Repeat an action that ended without being done, as a new action. 重试。"""
    with _explained():
        operations = _operations(
            kafka_bootstrap, clickhouse_url, clickhouse_user, clickhouse_password, clickhouse_database, clock_file
        )
        now_ms = operations.clock.now_ms()
        view = operations.retry(
            action_id,
            corp_id=corp,
            author=author,
            reason=reason,
            deadline_ms=None if deadline is None else _moment_ms("deadline", deadline, now_ms, ahead=True),
            known_not_done=not_done,
        )
    if as_json:
        _print_json(view)
    else:
        _console().print(f"已重试 / repeated as {view.action_id}")


@actions_app.command("cancel")
def cancel(
    reason: Reason,
    author: Author,
    action_id: Annotated[str | None, typer.Argument(help="One action; else say a campaign, corp or lane.")] = None,
    corp: Corp = "",
    lane: Lane = "",
    campaign: Campaign = "",
    as_json: Json = False,
    kafka_bootstrap: Kafka = KAFKA,
    clickhouse_url: Url = URL,
    clickhouse_user: User = "default",
    clickhouse_password: Password = "",
    clickhouse_database: Database = "siyu",
) -> None:
    """Take back one action, all of a campaign, or what a corp or lane has waiting, before its call. 取消。"""
    with _explained():
        operations = _operations(
            kafka_bootstrap, clickhouse_url, clickhouse_user, clickhouse_password, clickhouse_database, None
        )
        if action_id:
            if lane or campaign:
                raise Invalid("action_id", "an action, or a campaign, corp or lane; not both")
            word = operations.cancel(action_id, corp_id=corp, author=author, reason=reason)
        else:
            word = operations.cancel_scope(corp_id=corp, lane=lane, campaign_id=campaign, author=author, reason=reason)
    _tell(word, as_json, f"已取消 / cancelled: {_scope(word)}")


@actions_app.command("settle")
def settle(
    action_id: Id,
    verdict: Annotated[str, typer.Option("--as", help="done or not_done.")],
    reason: Reason,
    author: Author,
    corp: Corp = "",
    as_json: Json = False,
    kafka_bootstrap: Kafka = KAFKA,
    clickhouse_url: Url = URL,
    clickhouse_user: User = "default",
    clickhouse_password: Password = "",
    clickhouse_database: Database = "siyu",
) -> None:
    """Say what became of an action in doubt, after looking in WeCom. 判定存疑动作。"""
    with _explained():
        said = check_verdict(verdict)
        word = _operations(
            kafka_bootstrap, clickhouse_url, clickhouse_user, clickhouse_password, clickhouse_database, None
        ).settle(action_id, said, corp_id=corp, author=author, reason=reason)
    _tell(word, as_json, f"已判定 / settled as {verdict}: {action_id}")


@actions_app.command("pause")
def pause(
    reason: Reason,
    author: Author,
    corp: Corp = "",
    lane: Lane = "",
    campaign: Campaign = "",
    everything: Annotated[bool, typer.Option("--everything", help="Every action of every corp.")] = False,
    for_: Annotated[str | None, typer.Option("--for", help="How long: 90m, 2h; else until it is resumed.")] = None,
    as_json: Json = False,
    kafka_bootstrap: Kafka = KAFKA,
) -> None:
    """Hold back a corp, a lane, a campaign or what is in all of those given. 暂停。"""
    with _explained():
        word = _operations(kafka_bootstrap, URL, "", "", "siyu", None).pause(
            corp_id=corp,
            lane=lane,
            campaign_id=campaign,
            everything=everything,
            author=author,
            reason=reason,
            for_ms=0 if for_ is None else _duration_ms("for", for_),
        )
    until = f", until {iso_utc(word.expires_ms)}" if word.expires_ms else ""
    _tell(word, as_json, f"已暂停 / paused: {_scope(word)}{until}")


@actions_app.command("resume")
def resume(
    reason: Reason,
    author: Author,
    corp: Corp = "",
    lane: Lane = "",
    campaign: Campaign = "",
    everything: Annotated[bool, typer.Option("--everything", help="The pause of everything.")] = False,
    as_json: Json = False,
    kafka_bootstrap: Kafka = KAFKA,
) -> None:
    """Take back the pause of exactly this corp, lane and campaign. 恢复。"""
    with _explained():
        if not (corp or lane or campaign or everything):
            raise Invalid("corp", "say what to resume: a corp, a lane, a campaign, or --everything")
        word = _operations(kafka_bootstrap, URL, "", "", "siyu", None).resume(
            pause_id(corp, lane, campaign), author=author, reason=reason
        )
    _tell(word, as_json, f"已恢复 / resumed: {_scope(word)}")


@actions_app.command("paused")
def paused(as_json: Json = False, kafka_bootstrap: Kafka = KAFKA) -> None:
    """The pauses in force. 当前暂停。"""
    with _explained():
        pauses = _operations(kafka_bootstrap, URL, "", "", "siyu", None).pauses()
    if as_json:
        _print_json(pauses)
    elif pauses.pauses:
        _console().print(_control_table(pauses.pauses))
    else:
        _console().print("没有暂停 / nothing is paused")


def quota(
    corp: Corp = "",
    endpoint: Annotated[str, typer.Option(help="Path below the base URL.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Single staff members, customers and messages too, frozen or not.")
    ] = False,
    show_people: ShowPeople = False,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every two seconds, until Ctrl-C.")] = False,
    kafka_bootstrap: Kafka = KAFKA,
    clock_file: ClockFile = None,
) -> None:
    """What has been used of the limits: by level and lane, what is frozen until when. 配额用量。"""
    operations = _operations(kafka_bootstrap, URL, "", "", "siyu", clock_file)

    def read() -> QuotaList:
        return operations.quota(corp_id=corp, endpoint=endpoint, everything=everything, people=show_people)

    with _explained():
        found = read()
        if as_json:
            _print_json(found)
        elif watch:
            _watch(read, operations.clock.now_ms, found)
        else:
            _console().print(_quota_table(found, operations.clock.now_ms()))


def _watch(read: Callable[[], QuotaList], business_ms: Callable[[], int], found: QuotaList) -> None:
    console = _console()
    # A file or another program gets one table after the other.
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with live or nullcontext():
        try:
            while True:
                table = _quota_table(found, business_ms())
                if live is not None:
                    live.update(table, refresh=True)
                else:
                    console.print(table)
                time.sleep(_WATCH_SECONDS)
                found = read()
        except KeyboardInterrupt:
            pass


# What is printed


def _tell(word: ControlView, as_json: bool, text: str) -> None:
    if as_json:
        _print_json(word)
    else:
        _console().print(escape(text))


def _scope(word: ControlView) -> str:
    if word.action_id:
        return word.action_id
    parts = (("corp", word.corp_id), ("lane", word.lane), ("campaign", word.campaign_id))
    return ", ".join(f"{name} {value}" for name, value in parts if value) or "全部 everything"


def _table(title: str, *headings: str, right: frozenset[str] = frozenset()) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in right else "left")
    return table


def _action_table(actions: list[ActionView]) -> Table:
    table = _table(
        "动作 Actions",
        "时间 created",
        "动作 action",
        "企业 corp",
        "通道 lane",
        "接口 endpoint",
        "状态 state",
        "原因 detail",
        "员工 staff",
        "客户 customer",
        "活动 campaign",
        "次数 calls",
        right=frozenset({"次数 calls"}),
    )
    for a in actions:
        row = (
            iso_utc(a.created_ms),
            a.action_id,
            a.corp_id,
            a.lane,
            a.endpoint.rpartition("/")[2],
            _state(a),
            _detail(a),
            a.staff_id,
            a.customer,
            a.campaign_id,
            str(a.calls),
        )
        table.add_row(*map(escape, row))
    return table


def _state(a: ActionView) -> str:
    return a.status if a.status is not None else a.state


def _detail(a: ActionView) -> str:
    return " ".join(part for part in (a.detail, f"errcode {a.errcode}" if a.errcode else "") if part)


def _print_detail(detail: ActionDetail) -> None:
    console, a = _console(), detail.action
    facts = _table(f"动作 Action {a.action_id}", "", " ")
    times = (
        ("创建 created", a.created_ms),
        ("最早 not before", a.not_before_ms),
        ("截止 deadline", a.deadline_ms),
        ("下次 looked at again", a.due_ms),
        ("更新 since", a.updated_at_ms),
    )
    for name, value in (
        ("状态 state", _state(a)),
        ("原因 detail", _detail(a)),
        ("企业 corp", a.corp_id),
        ("通道 lane", a.lane),
        ("接口 endpoint", a.endpoint),
        ("员工 staff", a.staff_id),
        ("客户 customer", a.customer),
        ("活动 campaign", a.campaign_id),
        ("规则 reason", a.reason),
        ("起因 caused by", a.caused_by),
        ("上级 part of", a.parent_id),
        ("消息 message id", a.message_id),
        ("调用 calls", str(a.calls)),
        *((name, iso_utc(ms)) for name, ms in times if ms is not None),
    ):
        if value:
            facts.add_row(name, escape(value))
    console.print(facts)
    if detail.admission is not None:
        console.print(_admission_table(detail))
    if detail.parts.people:
        people = _table("人数 People", "状态 state", "原因 detail", "人数 count", right=frozenset({"人数 count"}))
        for count in detail.parts.people:
            people.add_row(count.status, escape(count.detail), f"{count.count:,}")
        console.print(people)
    if detail.parts.chunks:
        console.print(f"分段 chunks: {detail.parts.chunk_count:,}")
        console.print(_action_table(detail.parts.chunks))
    if detail.parts.repeated_records:
        console.print(f"重复记录 records that brought it again, without effect: {detail.parts.repeated_records}")
    if detail.controls:
        console.print(_control_table(detail.controls))
    if detail.repeats:
        console.print("重试 repeated as")
        console.print(_action_table(detail.repeats))


def _admission_table(detail: ActionDetail) -> Table:
    admission = detail.admission
    assert admission is not None
    at = iso_utc(admission.at_ms) if admission.at_ms is not None else "?"
    table = _table(
        f"放行 Admission {at} · {admission.lane} · limits {admission.limits_revision}",
        "层级 level",
        "限制 limit",
        "窗口 window",
        "已用 used",
        "可用 allowed",
        "上限 amount",
        "额度 allowance",
        right=frozenset({"已用 used", "可用 allowed", "上限 amount", "额度 allowance"}),
    )
    for level in admission.levels:
        for limit in level.limits:
            table.add_row(
                escape(level.level),
                limit.id,
                limit.window,
                f"{limit.used:,}",
                f"{limit.allowed:,}",
                f"{limit.amount:,}",
                f"{limit.allowance_percent} %",
            )
    return table


def _control_table(words: list[ControlView]) -> Table:
    table = _table("干预 Controls", "时间 written", "类型 kind", "对象 about", "何人 author", "原因 reason", "至 until")
    for word in words:
        kind = f"{word.kind} as {word.verdict}" if word.verdict else word.kind
        until = iso_utc(word.expires_ms) if word.expires_ms and word.kind == "pause" else ""
        table.add_row(iso_utc(word.written_at_ms), kind, *map(escape, (_scope(word), word.author, word.reason)), until)
    return table


def _quota_table(found: QuotaList, business_ms: int) -> Table:
    lanes = ("welcome", "urgent", "bulk", "sync")
    numbers = ("已用 used", "上限 amount", *lanes, "速率 rate", "进行中 in flight", "数据龄 age")
    table = _table(
        "配额 Quotas"
        + (f" ({found.left_out:,} 个单人层级未列出 single levels left out: --all)" if found.left_out else ""),
        "层级 level",
        "限制 limit",
        "窗口 window",
        *numbers[:-3],
        "冻结至 frozen until",
        *numbers[-3:],
        right=frozenset(numbers),
    )
    for level in found.levels:
        age = f"{max(0, found.at_ms - level.updated_at_ms) / 1000:,.1f} s"
        for n, w in enumerate(level.windows):
            frozen = w.frozen_until_ms is not None and w.frozen_until_ms > business_ms
            table.add_row(
                escape(level.level) if n == 0 else "",
                w.id,
                w.window,
                f"{w.used:,}",
                f"{w.amount:,}",
                *(f"{w.lanes[lane]:,}" if lane in w.lanes else "" for lane in lanes),
                f"[bold red]{iso_utc(w.frozen_until_ms)}[/]" if frozen and w.frozen_until_ms else "",
                f"{w.rate_percent} %" if w.rate_percent == 100 else f"[yellow]{w.rate_percent} %[/]",
                str(level.in_flight) if n == 0 else "",
                age if n == 0 else "",
            )
    return table
