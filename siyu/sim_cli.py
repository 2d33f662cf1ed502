"""``siyu sim``: the simulator by itself, its scenarios, and recordings of callbacks for load tests.

Exit codes as everywhere in ``siyu``: 0 done, 1 the answer is no, 2 could not run. 模拟器命令行。
"""

from __future__ import annotations

import datetime as dt
import secrets
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from simulator.settings import SimulatorSettings

COULD_NOT_RUN = 2
DEFAULT_CORPS = Path("corps.yaml")
DEFAULT_CALLBACKS = "http://127.0.0.1:8080"

app = typer.Typer(no_args_is_help=True, help="A WeCom to test against: run it, record and replay callbacks. 模拟器。")
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Scenario = Annotated[
    str, typer.Option("--scenario", help="A shipped scenario (siyu sim scenarios) or a YAML file. 场景")
]
Scale = Annotated[float, typer.Option("--scale", help="Share of the scenario's people, 0.01 to 100. 规模")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed is the same world. 随机种子")]
Corps = Annotated[
    Path | None,
    typer.Option(
        "--corps", envvar="SIYU_CORPS", help="File of the corps and their keys. Default: corps.yaml. 企业配置"
    ),
]
CallbackBase = Annotated[
    str, typer.Option("--callback-base", help="Callbacks go to <base>/callback/wecom/<corp_id>. 回调地址")
]


def fail(message: str, code: int = COULD_NOT_RUN) -> typer.Exit:
    """Prints one line to stderr and gives the exit to raise."""
    errors.print(f"[red]siyu sim:[/red] {escape(message)}")
    return typer.Exit(code)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the simulator refuses, as one line and exit code 2."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise fail(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, OSError) as error:
        # Every refusal of ours is a ValueError with a message for people (CannotPlay, CorpsError, BadClock, BadUrl …).
        raise fail(str(error)) from None


def sample_corps() -> str:
    """A corps file with one corp of fresh keys."""
    letters = string.ascii_letters + string.digits

    def drawn(length: int) -> str:
        return "".join(secrets.choice(letters) for _ in range(length))

    return (
        "# Keys of a simulated corp, made by siyu sim: they open nothing but the simulator. 模拟企业的密钥\n"
        "corps:\n"
        f"  - corp_id: ww{drawn(16).lower()}\n"
        '    agent_id: "1000002"\n'
        f"    secret: {drawn(43)}\n"
        f"    callback_token: {drawn(24)}\n"
        f"    callback_aes_key: {drawn(43)}\n"
    )


def _corps_file(named: Path | None) -> Path:
    """The corps file there is; a fresh one when none was named and none is there."""
    if named is not None or DEFAULT_CORPS.exists():
        return named or DEFAULT_CORPS
    content = sample_corps()
    try:
        DEFAULT_CORPS.write_text(content, encoding="utf-8")
    except OSError as error:
        raise fail(f"{DEFAULT_CORPS} cannot be written ({error.strerror}): name a corps file with --corps") from None
    console.print(f"made {DEFAULT_CORPS} with one corp; put the same values into your system 已生成示例企业:\n")
    console.print(escape(content))
    return DEFAULT_CORPS


def _settings(**wanted: Any) -> SimulatorSettings:
    """The environment's settings with what the command line says."""
    from simulator.settings import SimulatorSettings

    return SimulatorSettings(**{name: value for name, value in wanted.items() if value is not None})


@app.command()
def run(
    scenario: Scenario = "demo",
    port: Annotated[int, typer.Option(help="Port of the API and of the page at /_sim. 端口")] = 8070,
    host: Annotated[str, typer.Option(help="Address to listen on; who reaches it controls it. 地址")] = "127.0.0.1",
    scale: Scale = 1.0,
    seed: Seed = 1,
    clock: Annotated[
        str | None, typer.Option(help="real, xN (x60: an hour a minute) or stepped; default: the scenario's. 时钟")
    ] = None,
    clock_start: Annotated[
        str | None, typer.Option(help="Where business time begins, ISO 8601; default: the scenario's, or now. 起始时间")
    ] = None,
    clock_file: Annotated[
        Path | None,
        typer.Option(envvar="SIYU_CLOCK_FILE", help="Clock file that the system under test reads too. 共享时钟文件"),
    ] = None,
    callback_base: CallbackBase = DEFAULT_CALLBACKS,
    corps: Corps = None,
    merchants: Annotated[
        Path | None,
        typer.Option(help="WeChat Pay merchants' file, made when missing; without it no WeChat Pay. 商户配置"),
    ] = None,
    pay_notify: Annotated[
        str | None, typer.Option(help="Payment notices go to <base>/pay/wechat/<corp_id>. 支付通知地址")
    ] = None,
    calls_file: Annotated[
        Path | None, typer.Option(help="Append every call received to this file, JSON lines. 调用日志")
    ] = None,
    truth_file: Annotated[
        Path | None, typer.Option(help="Write the ground truth here when the scenario is done. 真值文件")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Begin at POST /_sim/start, not at once. 等待启动")] = False,
) -> None:
    """Run the simulator until Ctrl-C: the API, the callbacks, and a page at /_sim. 启动模拟器。

    Other settings are environment variables: python -m simulator --help lists them.
    """
    from simulator.__main__ import play

    file = _corps_file(corps)
    with _refusals():
        settings = _settings(
            scenario=scenario,
            port=port,
            host=host,
            scale=scale,
            seed=seed,
            clock=clock,
            clock_start=clock_start,
            clock_file=clock_file,
            callback_base=callback_base,
            corps=file,
            merchants=merchants,
            pay_notify=pay_notify,
            calls_file=calls_file,
            truth_file=truth_file,
            autostart=not wait,
        )
    shown = f"http://{host}:{port}" if port else f"http://{host}:<port in the log>"
    console.print(f"API   {shown}/cgi-bin\npage  {shown}/_sim\ncallbacks to  {escape(callback_base)}/callback/wecom/…")
    if status := play(settings):
        raise typer.Exit(COULD_NOT_RUN if status == 1 else status)


@app.command()
def scenarios(
    check: Annotated[
        list[Path] | None, typer.Option("--check", help="Check this file instead; may be repeated. 校验场景文件")
    ] = None,
) -> None:
    """List the scenarios that come with the simulator, or check files of your own. 场景列表。"""
    from simulator.scenario.file import ScenarioError, load_scenario, shipped

    if check:
        wrong = 0
        for path in check:
            try:
                load_scenario(str(path) if path.suffix in (".yaml", ".yml") else f"./{path}")
                console.print(f"{escape(str(path))}: good")
            except ScenarioError as error:
                wrong += 1
                errors.print(escape(str(error)))
        if wrong:
            raise typer.Exit(1)
        return
    with _refusals():
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for name, about in shipped().items():
            table.add_row(name, escape(" ".join(about.split())))
        console.print(table)


@app.command()
def record(
    out: Annotated[Path, typer.Argument(help="File to write. 输出文件")],
    scenario: Scenario = "demo",
    scale: Scale = 1.0,
    seed: Seed = 1,
    start: Annotated[
        str, typer.Option(help="Where business time begins, ISO 8601; default: the scenario's, or now. 起始时间")
    ] = "",
    seconds: Annotated[int, typer.Option(min=0, help="So much business time; 0: to its end. 业务时长(秒)")] = 0,
    at_most: Annotated[int, typer.Option(min=0, help="So many callbacks at most; 0: all. 回调数上限")] = 0,
    callback_base: CallbackBase = DEFAULT_CALLBACKS,
    corps: Corps = None,
) -> None:
    """Write a scenario's callbacks, sealed, into a file, as fast as they can be made. 录制回调。"""
    from simulator.apps import apps_of
    from simulator.clock import ClockSetting
    from simulator.recording import record as make
    from simulator.scenario.file import load_scenario
    from simulator.server import planner
    from siyu.ops.corps import load_corps
    from siyu.ops.logging import configure_logging

    file = _corps_file(corps)
    configure_logging("simulator", "warning")
    with _refusals():
        settings = _settings(scenario=scenario, scale=scale, seed=seed, corps=file, callback_base=callback_base)
        told = load_scenario(settings.scenario)
        settings, known = told.settings(settings), load_corps(file)
        plan, _ = planner(settings, tuple(known))
        start_ms = ClockSetting.read("real", start or settings.clock_start).start_ms
        start_s = start_ms // 1000 if start_ms else int(dt.datetime.now(dt.UTC).timestamp())
        done = make(
            out,
            settings=settings,
            plan=plan,
            apps=told.with_rules(apps_of(known.values(), callback_base)),
            start_s=start_s,
            seconds=seconds,
            at_most=at_most,
        )
    console.print(
        f"{done.deliveries:,} callbacks, {done.file_bytes:,} bytes in {done.seconds:.1f} s: {escape(str(out))}"
    )


@app.command()
def replay(
    recording: Annotated[Path, typer.Argument(help="A file made by siyu sim record. 录制文件")],
    to: Annotated[str, typer.Option(help="Base URL of the receiver. 接收方地址")] = DEFAULT_CALLBACKS,
    rate: Annotated[float, typer.Option(min=0, help="Callbacks a second; 0: as fast as it goes. 每秒回调数")] = 0.0,
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="Connections kept open. 连接数")] = 64,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a delivery counts as failed. 超时(秒)")] = 5.0,
    at_most: Annotated[int, typer.Option(min=0, help="So many callbacks at most; 0: all. 回调数上限")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Seal anew with the corps' keys, so that timestamps are of now. 重新加密")
    ] = False,
    corps: Corps = None,
) -> None:
    """Send a recording at a steady rate; exit code 1 when any answer was not 200. 回放回调。"""
    from simulator.apps import apps_of
    from simulator.recording import replay as send
    from siyu.ops.corps import load_corps

    with _refusals():
        keys = apps_of(load_corps(corps or DEFAULT_CORPS).values(), to) if fresh else ()
        done = send(recording, to, rate=rate, connections=connections, timeout_s=timeout, at_most=at_most, fresh=keys)
    console.print(f"{done.sent:,} sent in {done.seconds:.1f} s: {done.per_second:,.0f} a second")
    console.print(f"p50 {done.p50_ms:,} ms, p99 {done.p99_ms:,} ms, slowest {done.slowest_ms:,} ms")
    console.print(f"latest delivery sent {done.behind_ms:,} ms late")
    for result, count in sorted(done.results.items()):
        console.print(f"  {escape(str(result))}: {count:,}")
    if set(done.results) - {"200"}:
        raise typer.Exit(1)


@app.command()
def verify(corps: Corps = None, callback_base: CallbackBase = DEFAULT_CALLBACKS) -> None:
    """Ask the callback URLs what WeCom asks before it saves them; exit code 1 when it would not. 校验回调URL。"""
    from simulator.apps import apps_of
    from simulator.echo import verify_urls
    from siyu.ops.corps import load_corps

    with _refusals():
        found = verify_urls(apps_of(load_corps(corps or DEFAULT_CORPS).values(), callback_base))
    for one in found:
        told = f"good, {one.took_ms} ms" if one.saved else one.problem
        console.print(f"{escape(one.url)}: {escape(told)}")
    if not all(one.saved for one in found):
        raise typer.Exit(1)
