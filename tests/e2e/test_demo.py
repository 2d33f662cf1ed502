"""The whole system, as `siyu demo` starts it: real broker, real engine, every service, the simulator and the audit."""

import asyncio
import csv
import gzip
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playing import demo, played, sections

from deploy.local.ports import answers
from deploy.local.runner import Runner
from deploy.local.stack import HOST, StackConfig

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

KILLED_IN_TURN = ("ingest", "journey", "performance", "sink", "guard", "executor")


async def test_a_short_day_loses_nothing_and_leaves_nothing_running(tmp_path: Path) -> None:
    used: list[StackConfig] = []

    async def remember(config: StackConfig, _: Runner) -> None:
        used.append(config)

    report = await played(demo(tmp_path, duration_s=12), disturb=remember)
    for source in ("raw", "truth"):
        found = sections(report, source)
        assert all(found[name] > 0 for name in ("relationships", "orders", "staff days", "actions")), found
    assert report["same_second"] == {"scans": 50, "relationships": 50, "welcomes": 50}
    assert report["arrived"]["repeats"] > 0
    ports = (used[0].kafka_port, used[0].clickhouse_port, used[0].ingest_port, *used[0].metrics_ports.values())
    assert not any(answers(HOST, port) for port in ports)


async def test_killing_each_service_in_turn_changes_nothing(tmp_path: Path) -> None:
    killed: list[str] = []

    async def kill_in_turn(config: StackConfig, runner: Runner) -> None:
        async with httpx2.AsyncClient(trust_env=False, timeout=10) as http:
            delivered = 0
            for name in KILLED_IN_TURN:
                status = await _flowing(http, config, beyond=delivered)
                assert status["state"] == "playing", f"the day ended before {name} was killed"
                delivered = status["callbacks"]["delivered"]
                await runner.kill(name)
                killed.append(name)
                await runner.wait_ready(name)
                assert runner.process(name).restarts == 1

    report = await played(demo(tmp_path, customers=400, duration_s=72), disturb=kill_in_turn)
    assert killed == list(KILLED_IN_TURN)
    assert sections(report, "truth")["orders"] > 0


async def _flowing(http: httpx2.AsyncClient, config: StackConfig, *, beyond: int) -> dict[str, Any]:
    """The simulator's status as soon as more callbacks than before have been delivered."""
    while True:
        status: dict[str, Any] = (await http.get(f"{config.simulator_url}/_sim/status")).json()
        if status["callbacks"]["delivered"] > beyond or status["state"] != "playing":
            return status
        await asyncio.sleep(0.05)


async def test_a_purchase_history_comes_out_to_the_cent(tmp_path: Path) -> None:
    history = write_history(tmp_path / "history.csv.gz")
    report = await played(demo(tmp_path, data=history, join_s=10, replay_s=10))
    totals = {total["figure"].split(" ", 1)[1]: (total["data"], total["clickhouse"]) for total in report["totals"]}
    assert totals == {
        "customers with a payment or refund": (30, 30),
        "invoices": (66, 66),
        "of unknown customers": (6, 6),
        "gross ¥": (93_804, 93_804),
        "refunded ¥": (17_500, 17_500),
        "net ¥": (76_304, 76_304),
        "refunds without a known payment ¥": (1_998, 1_998),
        "net less those ¥": (74_306, 74_306),
    }
    assert sections(report, "data").keys() == {"customers", "staff"}
    assert report["skipped"] == {"invoices of zero total": ["910000"], "bad debt lines": ["A920000"]}


def write_history(path: Path) -> Path:
    """30 customers, two invoices each, in two months of 2010/11; cancellations that fit, that do not, and oddities."""
    rows: list[tuple[str, str, int, str, str, str]] = []
    for number in range(30):
        customer, day = str(13_000 + number), 1 + number % 27
        rows.append((f"5{number:05d}", "A", 10, f"2010-12-{day:02d} 10:{number:02d}:00", "1.25", customer))
        rows.append((f"5{number:05d}", "B", 1, f"2010-12-{day:02d} 10:{number:02d}:00", "2.675", customer))
        rows.append((f"6{number:05d}", "A", 12, f"2011-01-{day:02d} 10:{number:02d}:00", "1.25", customer))
        if number % 3 == 0:
            # More than the second invoice holds: the rest falls on the first.
            refund = (f"C7{number:05d}", "A", -14, f"2011-01-{day + 1:02d} 09:00:00", "1.25", customer)
            rows.append(refund)
    rows.append(("C800000", "Z", -1, "2011-01-20 09:00:00", "9.99", "13001"))
    rows.append(("C800001", "A", -1, "2011-01-20 09:00:00", "9.99", ""))
    rows += [(f"90000{n}", "A", 1, f"2011-01-1{n} 12:00:00", "5.44", "") for n in range(6)]
    rows.append(("910000", "A", -5, "2011-01-11 12:00:00", "0.00", ""))
    rows.append(("A920000", "B", 1, "2011-01-12 12:00:00", "-11062.06", ""))
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
        )
        for invoice, item, quantity, date, price, customer in rows:
            writer.writerow([invoice, item, "thing", quantity, date, price, customer, "United Kingdom"])
    return path
