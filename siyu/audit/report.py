"""What an audit found, as a table for people and as JSON for programs.

By default no key is shown, only its corp and a short hash: enough to see whether two reports speak of the same row.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from siyu.audit.model import Key, Row

Kind = Literal["lost", "double", "different"]

_SHOWN_PER_SECTION = 10
_WRITTEN_PER_SECTION = 1000

_HEADINGS = {
    "relationships": "好友关系 relationships",
    "orders": "订单 orders",
    "staff days": "员工日报 staff days",
    "actions": "动作 actions",
    "customers": "客户合计 customers",
    "staff": "员工合计 staff",
    "tables": "数据表 tables",
    "events": "事件 events",
}


@dataclass(frozen=True)
class Difference:
    """One row that is not as it must be. ``fields``: name → (expected, found)."""

    kind: Kind
    what: str
    key: Key
    fields: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def shown(self, show_keys: bool) -> dict[str, Any]:
        """For output: without ids unless asked for."""
        fields = {
            name: ({"expected": wanted, "found": found} if show_keys or not _may_hold_ids(wanted, found) else "differs")
            for name, (wanted, found) in self.fields.items()
        }
        return {"kind": self.kind, "what": self.what, "key": _key(self.key, show_keys), "fields": fields}


def _may_hold_ids(*values: Any) -> bool:
    return any(isinstance(value, str | list) and value for value in values)


def _key(key: Key, show_keys: bool) -> str:
    if show_keys:
        return " ".join(key)
    return f"{key[0]} #{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}"


@dataclass
class Section:
    """One line of the table: one kind of row against one source."""

    name: str
    source: str
    expected: int = 0
    found: int = 0
    lost: int = 0
    double: int = 0
    different: int = 0
    differences: list[Difference] = field(default_factory=list)

    def add(self, difference: Difference) -> None:
        """Counts it and keeps it."""
        self.differences.append(difference)
        if difference.kind == "lost":
            self.lost += 1
        elif difference.kind == "double":
            self.double += 1
        else:
            self.different += 1

    @property
    def clean(self) -> bool:
        """No difference of any kind."""
        return not self.differences


@dataclass
class Report:
    """The audit's result. ``clean`` is the proof; everything else explains it."""

    sections: list[Section] = field(default_factory=list)
    arrived: Row = field(default_factory=dict)
    """What the recomputation rests on: deliveries, distinct events, pages, payments, refunds."""
    totals: list[tuple[str, int, int]] = field(default_factory=list)
    """(figure, from the data file, from ClickHouse), money in fen."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Numbers of the data file's documents that are neither payment nor refund, by reason."""
    freshness: dict[str, Row] = field(default_factory=dict)
    welcomes: Row = field(default_factory=dict)
    same_second: Row = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing double, nothing different, all totals equal."""
        return all(section.clean for section in self.sections) and all(a == b for _, a, b in self.totals)

    @property
    def worst_freshness_p99_s(self) -> float:
        """The largest p99 of any table, in seconds; 0 without rows."""
        return max((float(row["p99_s"]) for row in self.freshness.values()), default=0.0)

    def write_json(self, path: Path, *, show_keys: bool = False) -> None:
        """Everything, with at most 1,000 differences a section (the counts are always whole)."""
        sections = [
            {
                "name": s.name,
                "source": s.source,
                "expected": s.expected,
                "found": s.found,
                "lost": s.lost,
                "double": s.double,
                "different": s.different,
                "differences": [d.shown(show_keys) for d in s.differences[:_WRITTEN_PER_SECTION]],
            }
            for s in self.sections
        ]
        path.write_text(
            json.dumps(
                {
                    "clean": self.clean,
                    "sections": sections,
                    "arrived": self.arrived,
                    "totals": [{"figure": n, "data": a, "clickhouse": b} for n, a, b in self.totals],
                    "skipped": self.skipped,
                    "freshness": self.freshness,
                    "welcomes": self.welcomes,
                    "same_second": self.same_second,
                    "warnings": self.warnings,
                },
                ensure_ascii=False,
                indent=2,
            )
            + "\n",
            encoding="utf-8",
        )

    def print(self, console: Console, *, show_keys: bool = False) -> None:
        """The table, the measurements beside it, and the first differences of each section."""
        table = Table(title="审计 Audit", title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("对象 rows")
        table.add_column("对照 against")
        for heading in ("应有 expected", "实有 found", "丢失 lost", "重复 double", "不符 different"):
            table.add_column(heading, justify="right")
        for s in self.sections:
            counts = [str(n) if n == 0 else f"[bold red]{n:,}[/]" for n in (s.lost, s.double, s.different)]
            heading = _HEADINGS.get(s.name, s.name)
            table.add_row(heading, s.source, f"{s.expected:,}", f"{s.found:,}", *counts)
        console.print(table)
        if self.totals:
            self._print_totals(console)
        self._print_measurements(console)
        for s in self.sections:
            for difference in s.differences[:_SHOWN_PER_SECTION]:
                shown = difference.shown(show_keys)
                fields = " ".join(f"{name}={value}" for name, value in shown["fields"].items())
                line = f"{s.name} / {s.source}: {shown['kind']}: {shown['key']}: {shown['what']} {fields}"
                console.print(f"[red]{escape(line.rstrip())}[/]", soft_wrap=True)
            if len(s.differences) > _SHOWN_PER_SECTION:
                console.print(f"[red]{s.name} / {s.source}: and {len(s.differences) - _SHOWN_PER_SECTION:,} more[/]")
        for warning in self.warnings:
            console.print(f"[yellow]注意 warning: {escape(warning)}[/]", soft_wrap=True)
        if self.clean:
            console.print("[bold green]审计通过 / clean: 0 lost, 0 double, 0 different[/]")
        else:
            console.print("[bold red]审计未通过 / not clean: see the differences above[/]")

    def _print_totals(self, console: Console) -> None:
        table = Table(title="真实数据合计 Totals of the data file", title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("")
        for heading in ("文件 file", "ClickHouse"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for name, wanted, found in self.totals:
            shown = [f"{n / 100:,.2f}" if name.endswith("¥") else f"{n:,}" for n in (wanted, found)]
            table.add_row(name, *shown, "[green]=[/]" if wanted == found else "[bold red]≠[/]")
        console.print(table)
        if self.skipped:
            for reason, numbers in self.skipped.items():
                first = ", ".join(numbers[:_SHOWN_PER_SECTION])
                more = f", and {len(numbers) - _SHOWN_PER_SECTION:,} more" if len(numbers) > _SHOWN_PER_SECTION else ""
                console.print(f"跳过 skipped: {len(numbers):,} {reason}: {first}{more}", soft_wrap=True)
            console.print("全部列表见 --json / the whole list is in the --json file")

    def _print_measurements(self, console: Console) -> None:
        if self.arrived:
            a = self.arrived
            console.print(
                f"收到 arrived: {a['deliveries']:,} callbacks = {a['events']:,} distinct contact events "
                f"+ {a['repeats']:,} repeats + {a['other']:,} other; {a['pages']:,} pages of bills = "
                f"{a['payments']:,} payments + {a['refunds']:,} refunds"
            )
        if self.freshness:
            parts = [f"{t} p50 {r['p50_s']:.2f} s p99 {r['p99_s']:.2f} s" for t, r in self.freshness.items()]
            console.print("时效 freshness (arrival → queryable): " + ", ".join(parts))
        if self.welcomes:
            w = self.welcomes
            latency = f", p50 {w['p50_s']:.2f} s p99 {w['p99_s']:.2f} s" if w["sent"] else ""
            ends = ", ".join(f"{end} {count:,}" for end, count in w["ends"].items())
            console.print(f"欢迎语 welcomes: {w['sent']:,} sent{latency}; {ends}")
        if self.same_second:
            s = self.same_second
            console.print(
                f"同秒扫码 same-second scans: {s['scans']:,} of one code → "
                f"{s['relationships']:,} relationships, {s['welcomes']:,} welcomes"
            )
