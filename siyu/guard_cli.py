"""``siyu guard``: how far accounts are trusted, why, and what people may do about it: stop, and lift as two.

Exit codes as everywhere in ``siyu``: 0 done, 1 the answer is no (refused, nothing known), 2 could not run. 风控命令行。
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from siyu.events import GuardAudit, GuardSignal, GuardState, codec, schemas_dir
from siyu.events.business_time import iso_utc
from siyu.events.ids import staff_key
from siyu.guard.rules import CAMPAIGN_PREFIX, MANUAL_KINDS, campaign_member, level_of, load_rules

COULD_NOT_RUN = 2
SIGNALS, STATE, AUDIT = "guard.signals", "guard.state", "guard.audit"
REFUSED = ("stop_refused", "lift_refused")
_POLL_SECONDS = 0.2
_FLUSH_SECONDS = 10.0
_PLAIN_WIDTH = 200

E = TypeVar("E", GuardState, GuardAudit)

app = typer.Typer(no_args_is_help=True, help="The ban guard: show, stop, lift, audit. 封号风控。")
lift_app = typer.Typer(no_args_is_help=True, help="Lift a cool-down or a stop: one person asks, another approves. 解除")
app.add_typer(lift_app, name="lift")


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH)


console, errors = _console(stderr=False), _console(stderr=True)

Kafka = Annotated[str, typer.Option("--kafka-bootstrap", envvar="SIYU_KAFKA_BOOTSTRAP", help="Kafka brokers.")]
DEFAULT_KAFKA = "127.0.0.1:9092"
Corp = Annotated[str, typer.Option("--corp", help="Corp id. 企业")]
AnyCorp = Annotated[str, typer.Option("--corp", help="Only this corp. 企业")]
Staff = Annotated[str, typer.Option("--staff", help="A staff member of it; else the corp itself. 成员")]
Campaign = Annotated[str, typer.Option("--campaign", help="A campaign of it instead. 活动")]
Author = Annotated[str, typer.Option("--author", envvar="SIYU_AUTHOR", help="Who says so; kept in the audit. 操作人")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the audit. 原因")]
Clock = Annotated[
    Path | None, typer.Option("--clock-file", envvar="SIYU_CLOCK_FILE", help="Where business time moves.")
]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the guard's answer; 0: do not.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def fail(message: str, code: int = COULD_NOT_RUN) -> typer.Exit:
    """Prints one line to stderr and gives the exit to raise."""
    errors.print(f"[red]siyu guard:[/red] {escape(message)}")
    return typer.Exit(code)


@contextmanager
def _explained() -> Iterator[None]:
    """What keeps a command from running, as one line and exit code 2."""
    from confluent_kafka import KafkaException

    from siyu.guard.rules import RulesError
    from siyu.ops.clock import ClockError
    from siyu.ops.scan import ScanError

    try:
        yield
    except (ScanError, ClockError, RulesError) as error:
        raise fail(str(error)) from None
    except KafkaException as error:
        raise fail(f"Kafka: {error.args[0].str()}") from None


@app.command()
def show(
    corp: AnyCorp = "",
    staff: Staff = "",
    campaign: Campaign = "",
    all_accounts: Annotated[bool, typer.Option("--all", help="Also those that are clear.")] = False,
    as_json: AsJson = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Accounts that are watched, cooling or stopped; or one account. Who is not listed is trusted. 查看状态。"""
    member = _member(corp, staff, campaign)
    with _explained():
        newest = dict(_read(kafka_bootstrap, STATE, GuardState, staff_key(corp, member) if member else ""))
    listed = [
        state
        for key, state in sorted(newest.items())
        if (not corp or state.corp_id == corp)
        and (not member or state.staff_id == member)
        and (member or all_accounts or state.standing != "clear")
    ]
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(listed), indent=2))
    elif listed:
        table = Table()
        for heading in ("corp", "account", "standing", "step", "until", "allowance", "risk", "reason", "lift asked by"):
            table.add_column(heading, overflow="fold")
        for state in listed:
            table.add_row(
                escape(state.corp_id),
                escape(_account(state.staff_id)),
                state.standing,
                str(state.step or ""),
                iso_utc(state.until_ms) if state.until_ms else "",
                f"{state.allowance_percent} %",
                f"{state.risk_milli / 1000:.1f}",
                escape(state.reason),
                escape(state.lift_requested_by),
            )
        console.print(table)
    if member and not listed:
        raise fail("nothing is known of this account: it is trusted like its corp", 1)
    if not listed and not as_json:
        console.print("every account is clear")


@app.command()
def stop(
    corp: Corp,
    author: Author,
    reason: Reason,
    staff: Staff = "",
    campaign: Campaign = "",
    clock_file: Clock = None,
    wait: Wait = 15.0,
    as_json: AsJson = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Stop a staff member, a campaign, or a whole corp at once, until two people lift it. 立即停止。"""
    word = _signal("stop", corp, _member(corp, staff, campaign), clock_file, author=author, reason=reason)
    _say(kafka_bootstrap, word, wait, as_json)


@lift_app.command("request")
def lift_request(
    corp: Corp,
    author: Author,
    reason: Reason,
    staff: Staff = "",
    campaign: Campaign = "",
    clock_file: Clock = None,
    wait: Wait = 15.0,
    as_json: AsJson = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Ask for a lift; another person has to approve it within the time the rules give. 申请解除。"""
    word = _signal("lift_request", corp, _member(corp, staff, campaign), clock_file, author=author, reason=reason)
    _say(kafka_bootstrap, word, wait, as_json)


@lift_app.command("approve")
def lift_approve(
    corp: Corp,
    author: Author,
    staff: Staff = "",
    campaign: Campaign = "",
    request: Annotated[str, typer.Option("--request", help="Only this request (id that `request` printed).")] = "",
    clock_file: Clock = None,
    wait: Wait = 15.0,
    as_json: AsJson = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Approve somebody else's request: it takes effect at once. 批准解除（须为第二人）。"""
    member = _member(corp, staff, campaign)
    word = _signal("lift_approve", corp, member, clock_file, author=author, action_id=request)
    _say(kafka_bootstrap, word, wait, as_json)


@lift_app.command("reject")
def lift_reject(
    corp: Corp,
    author: Author,
    reason: Reason,
    staff: Staff = "",
    campaign: Campaign = "",
    clock_file: Clock = None,
    wait: Wait = 15.0,
    as_json: AsJson = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Turn a request down, or take back one's own. 拒绝解除。"""
    word = _signal("lift_reject", corp, _member(corp, staff, campaign), clock_file, author=author, reason=reason)
    _say(kafka_bootstrap, word, wait, as_json)


@app.command()
def audit(
    corp: AnyCorp = "",
    staff: Staff = "",
    campaign: Campaign = "",
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_json: AsJson = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Every decision, oldest first: what, by whom, why, before and after. 审计记录。"""
    member = _member(corp, staff, campaign)
    with _explained():
        found = [
            entry
            for _, entry in _read(kafka_bootstrap, AUDIT, GuardAudit, staff_key(corp, member) if member else "")
            if (not corp or entry.corp_id == corp) and (not member or entry.staff_id == member)
        ]
    found = sorted(found, key=lambda entry: entry.at_ms)[-limit:]
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return
    table = Table()
    for heading in ("UTC", "corp", "account", "what", "by", "second", "reason", "before", "after"):
        table.add_column(heading, overflow="fold")
    for entry in found:
        by = (iso_utc(entry.at_ms), entry.corp_id, _account(entry.staff_id), entry.what, entry.author)
        why = (entry.second_author, entry.reason, entry.before, entry.after)
        table.add_row(*map(escape, (*by, *why)))
    console.print(table if found else "no decisions")


@app.command()
def signal(
    kind: Annotated[str, typer.Argument(help="A kind of schemas/rules/guard.yaml, e.g. ban or complaint.")],
    corp: Corp,
    staff: Staff = "",
    campaign: Campaign = "",
    count: Annotated[int, typer.Option(min=1, help="How often.")] = 1,
    in_campaign: Annotated[str, typer.Option("--in-campaign", help="The campaign it happened in.")] = "",
    at_ms: Annotated[int, typer.Option(min=0, help="Business time, epoch ms; 0: now.")] = 0,
    signal_id: Annotated[
        str, typer.Option("--id", help="Its id: the same twice counts once. Default: a new one.")
    ] = "",
    author: Author = "",
    clock_file: Clock = None,
    as_json: AsJson = False,
    kafka_bootstrap: Kafka = DEFAULT_KAFKA,
) -> None:
    """Tell the guard of a sign: what a person has learned elsewhere, a test, or a drill. 上报风险信号。"""
    member = _member(corp, staff, campaign)
    with _explained():
        book = load_rules(schemas_dir() / "rules" / "guard.yaml")
        if kind in MANUAL_KINDS:
            raise fail(f"{kind} is a person's word: siyu guard {kind.replace('_', ' ')}")
        levels = {at for version in book.versions for known, at in version.signals if known == kind}
        levels |= {"staff"} if kind in ("touch", "active_adds", "account_created") else set()
        if not levels:
            raise fail(f"no kind {kind!r}; there are {', '.join(sorted(book.kinds - set(MANUAL_KINDS)))}")
        if level_of(member) not in levels:
            raise fail(f"{kind} is about a {' or a '.join(sorted(levels))}, not about a {level_of(member)}")
        word = _signal(kind, corp, member, clock_file, author=author, campaign_id=in_campaign, count=count)
        changes: dict[str, Any] = {"event_time_ms": at_ms} if at_ms else {}
        word = msgspec.structs.replace(word, **changes, **({"signal_id": signal_id} if signal_id else {}))
        _produce(kafka_bootstrap, word)
    typer.echo(msgspec.json.encode({"signal_id": word.signal_id}) if as_json else f"sent: signal {word.signal_id}")


def _member(corp: str, staff: str, campaign: str) -> str:
    if staff and campaign:
        raise fail("--staff and --campaign exclude each other")
    if (staff or campaign) and not corp:
        raise fail("--staff and --campaign need --corp")
    if staff.startswith(CAMPAIGN_PREFIX) or "|" in corp:
        raise fail("no such account: name a campaign with --campaign, and a corp without '|'")
    return campaign_member(campaign) if campaign else staff


def _account(member: str) -> str:
    """For people."""
    if level_of(member) == "campaign":
        return f"campaign {member.removeprefix(CAMPAIGN_PREFIX)}"
    return member or "(corp)"


def _signal(
    kind: str,
    corp: str,
    member: str,
    clock_file: Path | None,
    *,
    author: str = "",
    reason: str = "",
    action_id: str = "",
    campaign_id: str = "",
    count: int = 1,
) -> GuardSignal:
    from siyu.ops.clock import clock_from, wall_ms

    with _explained():
        now_ms = clock_from(clock_file).now_ms()
    return GuardSignal(
        signal_id=uuid.uuid4().hex,
        corp_id=corp,
        staff_id=member,
        kind=kind,
        count=count,
        campaign_id=campaign_id,
        action_id=action_id,
        errcode=0,
        source="siyu guard",
        author=author,
        reason=reason,
        event_time_ms=now_ms,
        written_at_ms=wall_ms(),
    )


def _produce(bootstrap: str, word: GuardSignal) -> None:
    """Raises Exit when the brokers have not taken it."""
    from confluent_kafka import KafkaError, Message, Producer

    failed: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error.name())

    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "partitioner": "murmur2_random", "log_level": 0}
    )
    producer.produce(SIGNALS, codec().encode(word), staff_key(word.corp_id, word.staff_id), on_delivery=delivered)
    if producer.flush(_FLUSH_SECONDS) or failed:
        # Not known to be written, and not known not to be: said again it is another signal.
        raise fail(f"Kafka at {bootstrap} has not taken it ({', '.join(failed) or 'no answer'}); look at the audit")


def _say(bootstrap: str, word: GuardSignal, wait: float, as_json: bool) -> None:
    """Sends a person's word and tells what became of it."""
    from siyu.ops.scan import Scanner

    with _explained():
        with Scanner(bootstrap) as scanner:
            place = _place(scanner, AUDIT, staff_key(word.corp_id, word.staff_id))
            _, position = scanner.bounds([place])[place]
        _produce(bootstrap, word)
        answer: GuardAudit | None = None
        deadline = time.monotonic() + wait
        while answer is None and time.monotonic() < deadline:
            with Scanner(bootstrap) as scanner:
                for message in scanner.read_from(AUDIT, place, position):
                    entry = codec().decode_as(GuardAudit, message.value())
                    if entry.signal_id == word.signal_id:
                        answer = entry
                position = scanner.bounds([place])[place][1]
            if answer is None:
                time.sleep(_POLL_SECONDS)
    if answer is None:
        if wait:
            raise fail(f"signal {word.signal_id} is sent, the guard has not answered within {wait:g} s: is it running?")
        typer.echo(msgspec.json.encode({"signal_id": word.signal_id}) if as_json else f"sent: signal {word.signal_id}")
        return
    refused = answer.what in REFUSED
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
    elif not refused:
        console.print(escape(f"{answer.what}: {answer.before} → {answer.after} (signal {word.signal_id})"))
    if refused:
        raise fail(f"refused: {answer.reason} ({answer.after})", 1)


def _place(scanner: Any, topic: str, key: str) -> tuple[str, int]:
    from confluent_kafka.cimpl import murmur2

    from siyu.ops.scan import ScanError

    partitions = scanner.partitions.get(topic)
    if not partitions:
        raise ScanError(f"there is no topic {topic}: siyu topics apply")
    return topic, murmur2(key.encode(), partitions)


def _read(bootstrap: str, topic: str, kind: type[E], key: str) -> Iterator[tuple[str, E]]:
    """Every record of the topic, or of one key, oldest first per partition. What cannot be read is passed over."""
    from siyu.events.codec import CodecError
    from siyu.ops.scan import ScanError, Scanner

    with Scanner(bootstrap) as scanner:
        if not scanner.partitions.get(topic):
            raise ScanError(f"there is no topic {topic}: siyu topics apply")
        messages: Iterable[Any] = (
            scanner.read_from(topic, _place(scanner, topic, key), 0) if key else scanner.read_topic(topic)
        )
        unreadable = 0
        for message in messages:
            raw_key = (message.key() or b"").decode(errors="replace")
            if message.value() is None or (key and raw_key != key):
                continue
            try:
                yield raw_key, codec().decode_as(kind, message.value())
            except CodecError:
                unreadable += 1
        if unreadable:
            errors.print(f"{unreadable} records of {topic} could not be read")
