"""``siyu content``: lint a text or a payload, see the rules in force, measure them on labelled sentences.

Exit codes: 0 nothing found, 1 something that may not go out (``block``), 3 warnings only, 2 could not run. 内容检查。
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from siyu.content import Channel, Finding, RuleSet
    from siyu.content.measure import Measurement

COULD_NOT_RUN = 2
BLOCKED = 1
WARNED = 3
PLAIN_WIDTH = 200
MOST_BYTES = 4_000_000
"""More than any call's body; a larger file was not meant."""

app = typer.Typer(no_args_is_help=True, help="Content rules: what may not be written to customers. 内容规则。")
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Rules = Annotated[Path | None, typer.Option("--rules", help="Folder of content rules. Default: the shipped ones.")]
At = Annotated[
    str | None, typer.Option("--at", help="Rules in force then: 2026-11-11 or 2026-11-11T12:00, Asia/Shanghai.")
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def fail(message: str, code: int = COULD_NOT_RUN) -> typer.Exit:
    """Prints one line to stderr and gives the exit to raise."""
    errors.print(f"[red]siyu content:[/red] {escape(message)}")
    return typer.Exit(code)


def _rules(folder: Path | None, at: str | None) -> RuleSet:
    from siyu.content import ContentError, default_folder, load_rules
    from siyu.events.business_time import SHANGHAI
    from siyu.ops.clock import wall_ms

    try:
        as_of_ms = wall_ms()
        if at is not None:
            moment = dt.datetime.fromisoformat(at)
            as_of_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=SHANGHAI)).timestamp() * 1000)
        return load_rules(folder or default_folder()).at(as_of_ms)
    except ContentError as error:
        raise fail(str(error)) from None
    except ValueError:
        raise fail(f"--at {at}: not a time like 2026-11-11 or 2026-11-11T12:00") from None


def _channel(name: str) -> Channel:
    from siyu.content import CHANNELS

    for channel in CHANNELS:
        if channel == name:
            return channel
    raise fail(f"--channel {name}: there are {', '.join(CHANNELS)}")


@app.command()
def lint(
    text: Annotated[str | None, typer.Argument(help="The text; - reads it from standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="A call's body (JSON) instead of a text.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Whose body: externalcontact/send_welcome_msg …")] = None,
    channel: Annotated[str, typer.Option(help="Where a text will be read; any applies every rule.")] = "any",
    as_json: Json = False,
    rules: Rules = None,
    at: At = None,
) -> None:
    """Say what the rules object to, and where. 检查一段文字或一次调用的内容。"""
    from siyu.content import lint as lint_text
    from siyu.content import lint_payload

    if (text is None) == (file is None):
        raise fail("one of TEXT and --file is needed")
    if (file is None) != (endpoint is None):
        raise fail("--file and --endpoint go together")
    in_force = _rules(rules, at)
    if file is not None and endpoint is not None:
        if endpoint not in in_force.payloads:
            raise fail(f"--endpoint {endpoint}: shows nobody a text; there are {', '.join(sorted(in_force.payloads))}")
        try:
            with file.open("rb") as body:
                payload = body.read(MOST_BYTES + 1)
        except OSError as error:
            raise fail(f"{file}: {error.strerror}") from None
        if len(payload) > MOST_BYTES:
            raise fail(f"{file}: more than {MOST_BYTES:,} bytes")
        found = lint_payload(endpoint, payload, in_force)
    else:
        assert text is not None
        if text == "-":
            text = sys.stdin.buffer.read(MOST_BYTES).decode("utf-8", errors="replace")
        found = lint_text(text, in_force, _channel(channel))
    _print(found, as_json)
    severities = {finding.severity for finding in found}
    raise typer.Exit(BLOCKED if "block" in severities else WARNED if severities else 0)


def _print(found: list[Finding], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], ensure_ascii=False, indent=2))
        return
    for finding in found:
        colour = "red" if finding.severity == "block" else "yellow"
        place = f"{finding.path} " if finding.path else ""
        console.print(
            f"[{colour}]{finding.severity}[/] {escape(finding.rule_id)}  {escape(place)}"
            f"{finding.span[0]}-{finding.span[1]} “{escape(finding.matched)}”"
        )
        console.print(f"      {escape(finding.message_zh)}\n      {escape(finding.message_en)}")
    if not found:
        console.print("nothing found 未发现问题")


@app.command("rules")
def rules_command(as_json: Json = False, rules: Rules = None, at: At = None) -> None:
    """The rules in force. 查看生效的规则。"""
    from siyu.events.business_time import business_day

    in_force = _rules(rules, at)
    rows = [
        {
            "id": rule.id,
            "family": rule.family,
            "severity": rule.severity,
            "effective_from": business_day(rule.effective_from_ms),
            "until": business_day(rule.until_ms) if rule.until_ms else None,
            "catches": rule.catches,
            "source": rule.source,
            "message_zh": rule.message_zh,
            "message_en": rule.message_en,
        }
        for rule in in_force.rules
    ]
    if as_json:
        typer.echo(json.dumps({"revision": in_force.revision, "rules": rows}, ensure_ascii=False, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("id", "severity", "effective_from", "catches"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(str(row[name]) for name in ("id", "severity", "effective_from", "catches")))
    wide = console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)
    wide.print(table)
    wide.print(f"{len(rows)} rules, revision {in_force.revision}")


Corpus = Annotated[Path | None, typer.Option("--corpus", help="Folder of labelled sentences. Default: the tests'.")]


@app.command()
def measure(corpus: Corpus = None, as_json: Json = False, rules: Rules = None, at: At = None) -> None:
    """Recall, precision and false alarms on labelled sentences. 在标注语料上评估规则。"""
    measured = _measured(corpus, _rules(rules, at))
    if as_json:
        typer.echo(json.dumps({name: _as_json(m) for name, m in measured.items()}, indent=2))
        return
    wide = console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name, m in measured.items():
        table.add_column(f"{name} ({m.sentences})", justify="right")
    for title, cells in (
        ("recall", [f"{m.recall:.1%}" for m in measured.values()]),
        ("precision", [f"{m.precision:.1%}" for m in measured.values()]),
        ("false alarms", [f"{m.clean_objected}/{m.clean} = {m.false_alarms:.1%}" for m in measured.values()]),
    ):
        table.add_row(title, *cells)
    for kind in ("families", "rules"):
        table.add_row(f"[dim]{kind}: recall, precision[/]")
        for rows in zip(*(getattr(m, kind) for m in measured.values()), strict=True):
            table.add_row(rows[0].name, *(f"{s.recall:.1%} {s.precision:.1%} ({s.found}+{s.wrong})" for s in rows))
    wide.print(table)


@app.command()
def docs(corpus: Corpus = None, rules: Rules = None, at: At = None) -> None:
    """The page docs/content-rules.md, on standard output. 生成规则文档。"""
    from siyu.content.page import page

    in_force = _rules(rules, at)
    typer.echo(page(in_force, _measured(corpus, in_force)), nl=False)


def _measured(corpus: Path | None, in_force: RuleSet) -> dict[str, Measurement]:
    from siyu.content import ContentError
    from siyu.content.measure import default_corpus, measure_folder

    try:
        return measure_folder(corpus or default_corpus(), in_force)
    except ContentError as error:
        raise fail(str(error)) from None


def _as_json(measured: Measurement) -> dict[str, object]:
    return {
        "sentences": measured.sentences,
        "clean": measured.clean,
        "recall": measured.recall,
        "precision": measured.precision,
        "false_alarms": measured.false_alarms,
        **{
            kind: {
                s.name: {"labelled": s.labelled, "found": s.found, "wrong": s.wrong} for s in getattr(measured, kind)
            }
            for kind in ("families", "rules")
        },
    }
