"""What the running system says about itself, once a second: a live screen on a terminal, a plain line elsewhere.

It reads /metrics of every process, the simulator's status, and two small queries; everything is shown as counted by the
system itself. What does not answer at the moment (a process that is being restarted) keeps its last value.
"""

import asyncio
import json
import math
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.local.runner import Event, Runner
from deploy.local.stack import SERVICES, StackConfig

__all__ = ["LiveView"]

METRICS_EVERY_S = 1.0
QUERIES_EVERY_S = 2.0
PLAIN_EVERY_S = 5.0
# Over so many seconds the shown rates are averaged.
RATE_WINDOW_S = 5.0
REQUEST_S = 2.0
MONEY = ("paid", "refunded")
PROCESSES = ("simulator", *SERVICES)

# All figures are additive over days, so a sum over the latest rows is the total.
TOP_STAFF = """
SELECT corp_id, staff_id, sum(adds), sum(lost_by_customer + lost_by_staff + lost_by_transfer), sum(orders),
       sum(gross_fen), sum(refunded_fen), sum(net_fen)
FROM staff_day_now WHERE staff_id != '' GROUP BY corp_id, staff_id
ORDER BY sum(net_fen) DESC, corp_id, staff_id LIMIT 10"""
CHURN = """
SELECT sum(adds), sum(lost_by_customer), sum(lost_by_staff), sum(lost_by_transfer), sum(orders), sum(gross_fen),
       sum(refunded_fen + unmatched_refund_fen) FROM staff_day_now"""


Labels = tuple[tuple[str, str], ...]


class Totals:
    """Counters of one process that only grow, although the process may have been restarted and count from zero."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, Labels], float] = defaultdict(float)
        self._now: dict[tuple[str, Labels], float] = {}
        self.gauges: dict[tuple[str, Labels], float] = {}

    def take(self, text: str) -> None:
        """The text of /metrics."""
        self.gauges = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                if family.type == "gauge":
                    self.gauges[key] = sample.value
                elif not sample.name.endswith("_created"):
                    last = self._now.get(key, 0.0)
                    if sample.value < last:
                        self._before[key] += last
                    self._now[key] = sample.value

    def samples(self, name: str) -> Iterable[tuple[dict[str, str], float]]:
        """Every series of that name with its total."""
        return (
            (dict(labels), value + self._before[sample, labels])
            for (sample, labels), value in list(self._now.items())
            if sample == name
        )

    def sum(self, name: str, **labels: str) -> int:
        """Over all series with these labels."""
        return int(sum(value for found, value in self.samples(name) if labels.items() <= found.items()))

    def quantile(self, name: str, q: float) -> float:
        """Upper bound of the bucket that holds the quantile, over all series; NaN while there is nothing."""
        buckets: dict[float, float] = defaultdict(float)
        for labels, value in self.samples(f"{name}_bucket"):
            buckets[float(labels["le"])] += value
        total = buckets.get(math.inf, 0.0)
        return next((le for le, count in sorted(buckets.items()) if total and count >= q * total), math.nan)


@dataclass
class Seen:
    """What was read last."""

    simulator: dict[str, Any] = field(default_factory=dict)
    top: list[list[Any]] = field(default_factory=list)
    churn: list[int] = field(default_factory=list)


class LiveView:
    """Reads and shows until cancelled. ``phase`` is set from outside and shown."""

    def __init__(self, config: StackConfig, console: Console, *, plain: bool) -> None:
        self.phase = ""
        self._config = config
        self._console = console
        self._plain = plain
        self._runner: Runner | None = None
        self._live: Live | None = None
        self._seen = Seen()
        self._totals = {name: Totals() for name in PROCESSES}
        self._began = time.monotonic()
        self._history: deque[tuple[float, int, int]] = deque()

    def watch(self, runner: Runner) -> None:
        """Whose processes to show."""
        self._runner = runner

    def say(self, text: str) -> None:
        """One line above the screen."""
        self._console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {text}", highlight=False, soft_wrap=True)

    def event(self, event: Event) -> None:
        """A process started, died …"""
        colour = {"died": "red", "ready": "green", "done": "green"}.get(event.kind, "default")
        self.say(f"[{colour}]{event.process:<12}[/] {event.text}")

    async def run(self) -> None:
        """Until cancelled."""
        async with httpx2.AsyncClient(timeout=REQUEST_S, trust_env=False) as http:
            if self._plain:
                await self._run_plain(http)
            else:
                with Live(self._screen(), console=self._console, auto_refresh=False) as live:
                    self._live = live
                    await self._run_screen(http, live)

    async def _run_plain(self, http: httpx2.AsyncClient) -> None:
        shown = -math.inf
        while True:
            await self._read_metrics(http)
            if time.monotonic() - shown >= PLAIN_EVERY_S:
                shown = time.monotonic()
                await self._read_queries(http)
                self.say(self._line())
            await asyncio.sleep(METRICS_EVERY_S)

    async def _run_screen(self, http: httpx2.AsyncClient, live: Live) -> None:
        queried = -math.inf
        while True:
            await self._read_metrics(http)
            if time.monotonic() - queried >= QUERIES_EVERY_S:
                queried = time.monotonic()
                await self._read_queries(http)
            live.update(self._screen(), refresh=True)
            await asyncio.sleep(METRICS_EVERY_S)

    async def _read_metrics(self, http: httpx2.AsyncClient) -> None:
        async def read(name: str) -> None:
            text = await _get(http, f"{self._config.metrics_url(name)}/metrics")
            if text is not None:
                self._totals[name].take(text)

        async def status() -> None:
            text = await _get(http, f"{self._config.simulator_url}/_sim/status")
            if text is not None:
                self._seen.simulator = json.loads(text)

        await asyncio.gather(status(), *(read(name) for name in PROCESSES))
        self._history.append((time.monotonic(), self._events_in, self._facts_written))
        while self._history[-1][0] - self._history[0][0] > RATE_WINDOW_S:
            self._history.popleft()

    async def _read_queries(self, http: httpx2.AsyncClient) -> None:
        top = await self._query(http, TOP_STAFF)
        churn = await self._query(http, CHURN)
        self._seen.top = self._seen.top if top is None else top
        self._seen.churn = self._seen.churn if not churn else churn[0]

    async def _query(self, http: httpx2.AsyncClient, sql: str) -> list[list[Any]] | None:
        params = {"database": "siyu", "output_format_json_quote_64bit_integers": "0"}
        body = f"{sql}\nFORMAT JSONCompactEachRow".encode()
        try:
            answer = await http.post(self._config.clickhouse_url, params=params, content=body)
        except httpx2.TransportError:
            return None
        return [json.loads(line) for line in answer.text.splitlines()] if answer.status_code == 200 else None

    # Figures

    @property
    def _events_in(self) -> int:
        return self._totals["ingest"].sum("siyu_ingest_callbacks_total", outcome="accepted") + self._payments

    @property
    def _payments(self) -> int:
        return sum(self._applied(change, "applied") for change in MONEY)

    @property
    def _duplicates(self) -> int:
        # Pages of bills overlap on purpose; only what senders repeated is of interest.
        everything = self._totals["journey"].sum("siyu_journey_events_total", result="duplicate")
        return everything - sum(self._applied(change, "duplicate") for change in MONEY)

    def _applied(self, change: str, result: str) -> int:
        return self._totals["journey"].sum("siyu_journey_events_total", change=change, result=result)

    @property
    def _facts_written(self) -> int:
        return self._totals["sink"].sum("siyu_sink_rows_total")

    def _rates(self) -> tuple[float, float]:
        (began, events_then, facts_then), (now, events_now, facts_now) = self._history[0], self._history[-1]
        seconds = max(now - began, METRICS_EVERY_S)
        return (events_now - events_then) / seconds, (facts_now - facts_then) / seconds

    def _welcomes(self) -> dict[str, int]:
        ends: dict[str, int] = defaultdict(int)
        for labels, count in self._totals["executor"].samples("siyu_executor_actions_total"):
            if labels.get("lane") == "welcome":
                ends["sent" if labels["status"] in ("done", "already_done") else labels["status"]] += int(count)
        return ends

    def _limits(self) -> list[tuple[str, str, str, float, float]]:
        gauges = self._totals["executor"].gauges
        used = {labels: value for (name, labels), value in gauges.items() if name == "siyu_executor_quota_used"}
        limits = {labels: value for (name, labels), value in gauges.items() if name == "siyu_executor_quota_limit"}
        return [
            (named["corp_id"], named["endpoint"], named["limit"], used[labels], limit)
            for labels, limit in limits.items()
            if limit and labels in used
            for named in [dict(labels)]
        ]

    def _progress(self) -> tuple[int, int]:
        callbacks, bills = self._seen.simulator.get("callbacks", {}), self._seen.simulator.get("bills", {})
        done = callbacks.get("delivered", 0) + callbacks.get("dropped", 0) + bills.get("visible", 0)
        return done, callbacks.get("planned", 0) + bills.get("total", 0)

    # Showing

    def _line(self) -> str:
        done, planned = self._progress()
        events_per_s, _ = self._rates()
        ends, executor, sink = self._welcomes(), self._totals["executor"], self._totals["sink"]
        down = [name for name in PROCESSES if self._state(name) != "ready"]
        return (
            f"{self.phase} | 进度 {done:,}/{planned:,} | 事件 events {self._events_in:,} ({events_per_s:,.0f}/s, "
            f"重复 repeats {self._duplicates:,}) | 入库 rows {self._facts_written:,} | "
            f"欢迎语 welcomes {ends.get('sent', 0):,} sent {ends.get('expired', 0):,} expired "
            f"p50 {_seconds(executor.quantile('siyu_executor_welcome_seconds', 0.5))} "
            f"p99 {_seconds(executor.quantile('siyu_executor_welcome_seconds', 0.99))} | "
            f"时效 freshness p50 {_seconds(sink.quantile('siyu_sink_freshness_seconds', 0.5))} "
            f"p99 {_seconds(sink.quantile('siyu_sink_freshness_seconds', 0.99))}"
            + (f" | [red]重启中 down: {', '.join(down)}[/]" if down else "")
        )

    def _screen(self) -> RenderableType:
        columns = Columns([self._flow(), self._churn(), self._speed()], padding=1)
        parts: list[RenderableType] = [self._head(), columns, self._process_line()]
        # A small screen still shows what matters: the rest only where there is room.
        room = self._console.size.height - 1 - sum(map(self._lines, parts))
        for part in (self._top(), self._limit_table()):
            if self._lines(part) > room:
                break
            room -= self._lines(part)
            parts.insert(-1, part)
        return Group(*parts)

    def _lines(self, part: RenderableType) -> int:
        return len(self._console.render_lines(part, pad=False))

    def _head(self) -> RenderableType:
        done, planned = self._progress()
        head = Table.grid(padding=(0, 2))
        clock = self._seen.simulator.get("clock_ms", 0) / 1000
        business = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(clock + 8 * 3600)) if clock else ""
        head.add_row(
            Text("私域 Siyu", style="bold"),
            Text(self.phase, style="cyan"),
            ProgressBar(total=max(planned, 1), completed=done, width=30),
            Text(f"{done:,} / {planned:,}"),
            Text(f"业务时间 {business}", style="dim"),
            Text(f"{time.monotonic() - self._began:.0f} s", style="dim"),
        )
        return head

    def _flow(self) -> RenderableType:
        events_per_s, facts_per_s = self._rates() if self._history else (0.0, 0.0)
        table = _grid("事件流 Flow")
        table.add_row("事件 events in", f"{self._events_in:,}", f"{events_per_s:,.0f}/s")
        table.add_row("重复 repeats dropped", f"{self._duplicates:,}", "")
        table.add_row("付款退款 payments, refunds", f"{self._payments:,}", "")
        table.add_row("入库行 rows written", f"{self._facts_written:,}", f"{facts_per_s:,.0f}/s")
        return table

    def _churn(self) -> RenderableType:
        table = _grid("客户与销售 Customers and sales")
        if self._seen.churn:
            adds, by_customer, by_staff, by_transfer, orders, gross, refunded = self._seen.churn
            table.add_row("新增 added", f"{adds:,}", "")
            table.add_row("客户删除 lost by customer", f"{by_customer:,}", _share(by_customer, adds))
            table.add_row("员工删除 lost by staff", f"{by_staff:,}", _share(by_staff, adds))
            table.add_row("转接 transferred", f"{by_transfer:,}", _share(by_transfer, adds))
            table.add_row("订单 orders", f"{orders:,}", f"¥{gross / 100:,.2f}")
            table.add_row("退款 refunds", "", f"¥{refunded / 100:,.2f}")
        return table

    def _speed(self) -> RenderableType:
        executor, sink, ends = self._totals["executor"], self._totals["sink"], self._welcomes()
        table = _grid("速度 Speed")
        welcome, fresh = "siyu_executor_welcome_seconds", "siyu_sink_freshness_seconds"
        table.add_row("欢迎语已发 welcomes sent", f"{ends.get('sent', 0):,}", "")
        table.add_row("过期 expired", f"{ends.get('expired', 0):,}", "")
        for heading, totals, name in (("欢迎语 welcome", executor, welcome), ("时效 freshness", sink, fresh)):
            table.add_row(f"{heading} p50", _seconds(totals.quantile(name, 0.5)), "")
            table.add_row(f"{heading} p99", _seconds(totals.quantile(name, 0.99)), "")
        return table

    def _top(self) -> RenderableType:
        table = Table(title="员工榜（净额）Top staff by net", box=box.SIMPLE_HEAD, title_justify="left")
        for heading in ("", "企业 corp", "员工 staff"):
            table.add_column(heading)
        for heading in ("新增 adds", "流失 lost", "订单 orders", "销售 gross ¥", "退款 refunds ¥", "净额 net ¥"):
            table.add_column(heading, justify="right")
        for place, (corp, staff, adds, lost, orders, gross, refunded, net) in enumerate(self._seen.top, 1):
            money = [f"{fen / 100:,.2f}" for fen in (gross, refunded, net)]
            table.add_row(str(place), corp, staff, f"{adds:,}", f"{lost:,}", f"{orders:,}", *money)
        return table

    def _limit_table(self) -> RenderableType:
        table = Table(title="接口限额 Limits used", box=box.SIMPLE_HEAD, title_justify="left")
        table.add_column("企业 corp")
        table.add_column("接口 endpoint")
        table.add_column("限额 limit")
        table.add_column("已用 / 上限 used / limit", justify="right")
        busiest = sorted(self._limits(), key=lambda row: -row[3] / row[4])[:5]
        for corp_id, endpoint, name, used, limit in busiest:
            table.add_row(corp_id, endpoint, name, f"{used:,.0f} / {limit:,.0f}  {used / limit:.1%}")
        return table

    def _state(self, name: str) -> str:
        if self._runner is None:
            return "?"
        running = self._runner.process(name)
        return "ready" if running.ready else "starting" if running.pid is not None else "down"

    def _process_line(self) -> RenderableType:
        line = Text("进程 processes: ")
        for name in ("kafka", "clickhouse", *PROCESSES):
            state = self._state(name)
            restarts = self._runner.process(name).restarts if self._runner is not None else 0
            style = {"ready": "green", "starting": "yellow"}.get(state, "red")
            line.append(f"{name}{f' ↻{restarts}' if restarts else ''} ", style=style)
        return line


def _grid(title: str) -> Table:
    table = Table(title=title, box=None, title_justify="left", title_style="bold", show_header=False, padding=(0, 1))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    return table


def _seconds(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "> 20 s" if math.isinf(value) else f"≤ {value:g} s"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


async def _get(http: httpx2.AsyncClient, url: str) -> str | None:
    try:
        answer = await http.get(url)
    except httpx2.TransportError:
        return None
    return answer.text if answer.status_code == 200 else None
