"""``siyu audit``. Exit status: 0 clean, 1 differences, 2 could not run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from siyu.audit.errors import AuditError
from siyu.audit.run import AuditConfig, run_audit

# Wide enough for the table when the output goes to a file.
_PLAIN_WIDTH = 120


def command(
    kafka_bootstrap: Annotated[str, typer.Option(envvar="SIYU_KAFKA_BOOTSTRAP", help="Kafka brokers.")] = (
        "127.0.0.1:9092"
    ),
    clickhouse_url: Annotated[str, typer.Option(envvar="SIYU_CLICKHOUSE_URL", help="ClickHouse over HTTP.")] = (
        "http://127.0.0.1:8123"
    ),
    clickhouse_user: Annotated[str, typer.Option(envvar="SIYU_CLICKHOUSE_USER", help="Its user.")] = "default",
    clickhouse_password: Annotated[
        str, typer.Option(envvar="SIYU_CLICKHOUSE_PASSWORD", help="Its password.", show_default=False)
    ] = "",
    truth: Annotated[Path | None, typer.Option(help="Ground truth of the simulator, to compare with as well.")] = None,
    data: Annotated[Path | None, typer.Option(help="online-retail.csv.gz that was played; needs --truth.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the whole report here.")] = None,
    show_keys: Annotated[bool, typer.Option("--show-keys", help="Show ids instead of short hashes.")] = False,
    max_freshness_p99: Annotated[
        float | None, typer.Option(help="Exit with 1 when p99 of arrival → queryable reaches so many seconds.")
    ] = None,
) -> None:
    """Recompute everything from what arrived and compare it with ClickHouse, row by row. 独立审计。"""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    config = AuditConfig(
        kafka_bootstrap,
        clickhouse_url,
        clickhouse_user=clickhouse_user,
        clickhouse_password=clickhouse_password,
        truth=truth,
        data=data,
    )
    try:
        report = run_audit(config)
        if json is not None:
            report.write_json(json, show_keys=show_keys)
    except (AuditError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"[red]siyu audit:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2) from None
    report.print(console, show_keys=show_keys)
    late = max_freshness_p99 is not None and report.worst_freshness_p99_s >= max_freshness_p99
    if late:
        console.print(f"[bold red]时效未达标 / freshness p99 is not below {max_freshness_p99} s[/]")
    if not report.clean or late:
        raise typer.Exit(1)
