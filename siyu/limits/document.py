"""Writes ``docs/limits.md`` from the registry: ``python -m siyu.limits.document [--check]``.

The page says nothing that the data does not say, and the same data gives the same page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from siyu.events import schemas_dir
from siyu.limits.loading import load_registry, moment_text
from siyu.limits.model import Limit, LimitRegistry, Scope, Version, window_order

_HEAD = """\
# What the platform allows / 平台限额

Made from `schemas/limits/*.yaml` by `python -m siyu.limits.document`; a test fails when this page is behind the data.
本页由限额数据生成，请勿手工修改。

A limit holds from its date until its next version, and decisions of the past can be evaluated again with the limits of
then (`siyu limits explain <action>`). Where nobody has published a date, 2020-01-01 stands. A new version is applied
without a deploy: write it into the files, `siyu limits check schemas/limits`, then
`siyu limits apply schemas/limits --author … --reason …`; every executor takes it over at its date. `siyu limits show
--at 2025-10-31` shows the limits of another day.

*Amounts* are calls unless they say persons. *Windows*: a sliding window is any stretch of that length; a calendar day
or month is one of Asia/Shanghai; concurrent means at the same time. *Past it* is what the platform does about the call
past the limit: refuses for as long as the window is (window), until the natural day ends (day), for 30 days (days_30),
drops it without a word (silent), or refuses that request alone (none).
*Counted together*: corp_api, a corp and one endpoint over all of the corp's apps; ip_api, a source address and one
endpoint over all corps; app_api, one app of a corp; staff_api, one staff member; customer_api, one customer or group
chat; message_api, one mass message. A limit without endpoints counts every endpoint by itself.
"""


def document(registry: LimitRegistry) -> str:
    """The page. Shows the newest version of each limit, and all versions of those that have several."""
    newest = [versions[-1] for versions in registry.limits.values()]
    newest.sort(key=lambda version: _order(version.value))

    def those(wanted: Callable[[Limit], bool]) -> list[Version[Limit]]:
        return [version for version in newest if wanted(version.value)]

    parts = [
        _HEAD,
        f"Revision `{registry.revision}`: {len(registry.limits)} limits, {len(registry.changes_ms)} dates of change.\n",
        "## What no call goes past / 强制执行\n",
        _table(those(lambda x: not x.outside and not x.ours and x.enforce == "admit" and x.scope != "request")),
        "## Our own paces / 自设节奏\n",
        "Design choices, not facts about the platform. The guard shrinks them with an account's risk. *Observed*\n"
        "paces are known rules of thumb: a note says what stands in their place, or no call of ours is counted.\n",
        _table(those(lambda x: x.ours)),
        "## What the platform applies afterwards / 平台事后生效\n",
        "No call errs for these: the platform drops or refuses single items later. They are shown, not admitted by.\n",
        _table(those(lambda x: not x.outside and not x.ours and x.enforce == "observe")),
        "## What one request may name / 单次请求上限\n",
        "A longer list is cut by the one marked *cut by* into several requests.\n",
        _request_table(those(lambda x: not x.outside and x.scope == "request")),
        "## How lanes share, and our margins / 车道与余量\n",
        _lanes(registry),
        "## Documented for calls this system does not make / 未使用的接口\n",
        _table(those(lambda x: x.outside and not x.ours)),
        "## Versions / 历史版本\n",
        _history(registry),
        "## Sources / 来源\n",
        _sources(newest),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _order(limit: Limit) -> tuple[int, str, int, str]:
    return (
        get_args(Scope).index(limit.scope),
        limit.endpoints[0] if limit.endpoints else "",
        window_order(limit.window),
        limit.id,
    )


def _table(versions: Sequence[Version[Limit]]) -> str:
    rows = []
    for version in versions:
        limit = version.value
        how = [
            word
            for word, yes in (
                ("Observed", limit.ours and limit.enforce == "observe"),
                ("Spread over its window", limit.paced),
                (f"Instead of {limit.family}", limit.family != limit.id),
            )
            if yes
        ]
        rows.append(
            (
                f"`{limit.id}`",
                limit.scope,
                _endpoints(limit),
                f"{limit.amount:,}" + (" persons" if limit.counts == "persons" else ""),
                str(limit.window) + (f" of `{limit.field}`" if limit.field else ""),
                limit.block,
                _dates(version),
                _sentences(*how, limit.note),
                limit.confidence,
            )
        )
    heads = ("limit", "counted together", "endpoints", "amount", "window", "past it", "since", "notes", "confidence")
    return _markdown(heads, rows)


def _request_table(versions: Sequence[Version[Limit]]) -> str:
    rows = [
        (
            _endpoints(version.value),
            f"`{version.value.field}`",
            f"{version.value.amount:,}",
            "cut by" if version.value.primary else "",
            f"`{version.value.id}`",
            version.value.note,
            version.value.confidence,
        )
        for version in sorted(versions, key=lambda v: (v.value.endpoints, not v.value.primary, v.value.id))
    ]
    return _markdown(("endpoints", "list", "at most", "", "limit", "notes", "confidence"), rows)


def _lanes(registry: LimitRegistry) -> str:
    shares = [
        (
            _dates(version),
            *(f"{share:.0%}" for share in version.value.values()),
        )
        for version in registry.headroom
    ]
    lanes = tuple(registry.headroom[-1].value)
    told = (
        "A lane fills a limit of scope corp_api, ip_api or app_api only up to its share, so that a storm of one lane\n"
        "leaves room for the more urgent ones. Limits of a person or a message are not shared.\n"
    )
    margins = [
        (
            _dates(version),
            f"{version.value.edge_ms:,} ms",
            f"x {version.value.rate_after_error:g}, not below {version.value.rate_floor:g}",
            f"+ {version.value.rate_step:g} each {version.value.rate_step_ms:,} ms",
            f"- 1, once in {version.value.slow_once_per_ms:,} ms",
            f"+ 1 each {version.value.slow_recovery_ms:,} ms",
        )
        for version in registry.margins
    ]
    heads = (
        "since",
        "a call so near a midnight counts on both sides",
        "rate after a limit error (45009)",
        "and back",
        "calls at the same time after 45033",
        "and back",
    )
    return "\n".join((told, _markdown(("since", *lanes), shares), _markdown(heads, margins)))


def _history(registry: LimitRegistry) -> str:
    rows = [
        (
            f"`{name}`",
            _dates(version),
            f"{version.value.amount:,}",
            version.value.source,
            version.value.confidence,
        )
        for name, versions in registry.limits.items()
        if len(versions) > 1
        for version in versions
    ]
    if not rows:
        return "Every limit has one version.\n"
    return "Limits with more than one version; the others have held since their date above.\n\n" + _markdown(
        ("limit", "since", "amount", "source", "confidence"), rows
    )


def _sources(versions: Iterable[Version[Limit]]) -> str:
    by_source: dict[str, list[str]] = {}
    for version in versions:
        by_source.setdefault(version.value.source, []).append(version.value.id)
    return _markdown(
        ("source", "limits"),
        [(source, ", ".join(f"`{name}`" for name in sorted(names))) for source, names in sorted(by_source.items())],
    )


def _endpoints(limit: Limit) -> str:
    if limit.endpoints:
        named = ", ".join(f"`{endpoint}`" for endpoint in limit.endpoints)
    else:
        named = "none of ours" if limit.outside else "every"
    if limit.but_not:
        named += " but " + ", ".join(f"`{endpoint}`" for endpoint in limit.but_not)
    if limit.corps:
        named += f" (of {len(limit.corps)} corps)"
    return named


def _dates(version: Version[Any]) -> str:
    since = moment_text(version.begins_ms)
    return since if version.ends_ms is None else f"{since} until {moment_text(version.ends_ms)}"


def _sentences(*parts: str) -> str:
    said = [part for part in parts if part]
    return " ".join(part if part.endswith(".") else f"{part}." for part in said)


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"

    return "\n".join((line(heads), "|" + "---|" * len(heads), *(line(row) for row in rows))) + "\n"


def page() -> Path:
    """Where it belongs."""
    return schemas_dir().parent / "docs" / "limits.md"


def main(arguments: Sequence[str]) -> int:
    """Writes the page, or with ``--check`` says by 1 that it is behind the data."""
    if set(arguments) - {"--check"}:
        sys.stderr.write("usage: python -m siyu.limits.document [--check]\n")
        return 2
    wanted = document(load_registry(schemas_dir() / "limits"))
    if "--check" in arguments:
        if page().exists() and page().read_text(encoding="utf-8") == wanted:
            return 0
        sys.stderr.write("docs/limits.md is behind schemas/limits: run python -m siyu.limits.document\n")
        return 1
    page().write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
