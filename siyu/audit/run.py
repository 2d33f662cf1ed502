"""The audit from end to end: read what arrived, compute what must follow, compare it with what ClickHouse says.

It reads only, and may run at any time; while events are still on their way, what has not arrived in ClickHouse yet
is reported as lost or different, so let the system drain first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from siyu.audit.actions import busiest_second, check_ledger, check_parts, check_welcomes, in_parts, welcome_ends
from siyu.audit.bills import read_bills
from siyu.audit.callbacks import read_callbacks
from siyu.audit.compare import compare
from siyu.audit.errors import FileError
from siyu.audit.figures import orders, relationships, staff_days
from siyu.audit.kafka import read_topic
from siyu.audit.model import Key
from siyu.audit.report import Difference, Report, Section
from siyu.audit.retail import check_data, load_purchases
from siyu.audit.truth import check_truth, load_truth
from siyu.audit.warehouse import Found, Warehouse
from siyu.events.types import ActionOutcome, RawCallback

FRESHNESS_TARGET_S = 5.0


@dataclass(frozen=True)
class AuditConfig:
    """Where to look. ``truth`` and ``data`` are further sources to compare with."""

    kafka_bootstrap: str
    clickhouse_url: str
    clickhouse_user: str = "default"
    clickhouse_password: str = ""
    database: str = "siyu"
    callbacks_topic: str = "callbacks.raw"
    outcomes_topic: str = "action.outcomes"
    truth: Path | None = None
    data: Path | None = None


def run_audit(config: AuditConfig) -> Report:
    """Every figure from every source, compared. Raises AuditError when a source cannot be read."""
    if config.data is not None and config.truth is None:
        raise FileError("--data needs --truth: only the ground truth knows which customer stands for which in the file")
    truth = load_truth(config.truth) if config.truth is not None else None
    purchases = load_purchases(config.data) if config.data is not None else None
    if purchases is not None and (truth is None or truth.retail is None):
        raise FileError("the ground truth is not of a run with this data file: it has no part `retail`")

    began = time.time()
    callbacks = read_callbacks(read_topic(config.kafka_bootstrap, config.callbacks_topic, RawCallback))
    recorded = read_topic(config.kafka_bootstrap, config.outcomes_topic, ActionOutcome)
    bills = read_bills(recorded)
    contacts = callbacks.contacts

    warehouse = Warehouse(config.clickhouse_url, config.database, config.clickhouse_user, config.clickhouse_password)
    try:
        found_pairs, found_orders = warehouse.relationships(), warehouse.orders()
        found_days, found_outcomes = warehouse.staff_days(), warehouse.outcomes()
        (still_open, newest_ms), inner = warehouse.open_actions(), warehouse.contradictions()
        freshness, latency = warehouse.freshness(), warehouse.welcome_latency()
    finally:
        warehouse.close()

    pairs = relationships(contacts)
    expected_orders, refunds_of = orders(bills.payments, bills.refunds.values(), pairs)
    expected_days = staff_days(pairs, expected_orders, refunds_of)

    whole, parts = in_parts(found_outcomes)

    report = Report()
    report.sections = [
        compare("relationships", "raw", {key: pair.row() for key, pair in pairs.items()}, found_pairs),
        compare("orders", "raw", expected_orders, found_orders),
        compare("staff days", "raw", expected_days, found_days),
        check_welcomes(contacts, whole),
        check_parts(parts, found_outcomes, still_open),
        check_ledger(still_open, found_outcomes, newest_ms),
        _check_recorded_outcomes(recorded, found_outcomes, int((began - FRESHNESS_TARGET_S) * 1000)),
        _contradictions("events", "raw", [*callbacks.contradictions, *bills.contradictions]),
        _contradictions(
            "tables", "themselves", [(key[0], f"rows that contradict each other in {t}", *key[1:]) for t, key in inner]
        ),
    ]
    if truth is not None:
        tables = (found_pairs, found_orders, found_days, whole)
        report.sections += check_truth(truth, contacts, tables)
        if truth.dropped:
            report.warnings.append(
                f"the platform gave up on {truth.dropped} callbacks, among them {len(truth.untold)} of contacts: "
                f"{len(truth.told)} relationships are held against what did arrive, not against what is true"
            )
    if purchases is not None and truth is not None and truth.retail is not None:
        sections, report.totals = check_data(purchases, truth.retail, found_orders, found_days)
        report.sections += sections
        report.skipped = dict(purchases.skipped)

    if bills.no_bills:
        report.warnings.append(f"{len(bills.no_bills)} rows of the bill list are no complete bill and count nowhere")
    report.arrived = {
        "deliveries": callbacks.deliveries,
        "events": len(contacts),
        "repeats": callbacks.deliveries - callbacks.other - len(contacts),
        "other": callbacks.other,
        "pages": bills.pages,
        "payments": len(bills.payments),
        "refunds": len(bills.refunds),
    }
    report.freshness = freshness
    report.welcomes = {**latency, "ends": welcome_ends(whole)}
    report.same_second = busiest_second(contacts, {key for key, _ in found_pairs}, whole)
    if report.worst_freshness_p99_s >= FRESHNESS_TARGET_S:
        report.warnings.append(
            f"freshness p99 is {report.worst_freshness_p99_s:.1f} s; the target is below {FRESHNESS_TARGET_S:.0f} s"
        )
    return report


def _check_recorded_outcomes(recorded: list[ActionOutcome], rows: Found, until_ms: int) -> Section:
    """Every action ends exactly once: one record in the topic, one row in ClickHouse.

    Pages are read for ever, also during an audit: of those only what ended before ``until_ms`` (wall time) counts.
    """
    recorded = [o for o in recorded if o.lane != "sync" or o.finished_at_ms < until_ms]
    found = {key for key, row in rows if row["lane"] != "sync" or row["finished_at_ms"] < until_ms}
    section = Section("actions", "outcomes", found=len(found))
    first: dict[Key, ActionOutcome] = {}
    for outcome in recorded:
        key = (outcome.corp_id, outcome.action_id)
        if key not in first:
            first[key] = outcome
        else:
            section.add(Difference("double", "a second record of the end of one action", key))
    section.expected = len(first)
    for lost in first.keys() - found:
        section.add(Difference("lost", "the outcome is not in ClickHouse", lost))
    for unexplained in found - first.keys():
        section.add(Difference("double", "no recorded outcome explains this row", unexplained))
    return section


def _contradictions(name: str, source: str, found: list[tuple[str, ...]]) -> Section:
    section = Section(name, source)
    for corp_id, what, *rest in found:
        section.add(Difference("different", what, (corp_id, *rest)))
    return section
