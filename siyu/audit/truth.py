"""The simulator's ground truth: what really happened in its world, whatever arrived here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siyu.audit.actions import SENT
from siyu.audit.compare import compare
from siyu.audit.errors import FileError
from siyu.audit.figures import orders, staff_days
from siyu.audit.model import COUNTERS, Contact, Episode, Key, Payment, Refund, Relationship, Rows
from siyu.audit.report import Difference, Section
from siyu.audit.warehouse import Found

# The truth keeps the episodes of a pair and where it stands now, not how often it was half.
_TOLD_COUNTERS = tuple(name for name in COUNTERS if name != "half_adds")
# It does not keep events without effect (edits), which are part of a row's event time only.
_TOLD_FIELDS = ("status", "staff_side", "customer_side", "channel", "first_added_ms", "episodes")


@dataclass(frozen=True)
class Truth:
    """The truth file, read once."""

    relationships: dict[Key, Relationship]
    payments: dict[Key, Payment]
    refunds: list[Refund]
    welcomes: dict[tuple[str, str, str, int], bool]
    """(corp, staff, customer, event time) → whether the platform took a welcome for its code in time."""
    refusals: dict[tuple[str, str, str, int], frozenset[int]]
    """What calls for those codes were answered with that delivered nothing."""
    dropped: int
    """Callbacks that the platform gave up on: no system can know of them from callbacks alone."""
    told: dict[Key, Relationship | None]
    """The pairs concerned by those, as the callbacks that did arrive tell them; None: none of theirs did."""
    untold: set[tuple[str, str, str, int]]
    """(corp, staff, customer, event time) of contact changes whose callbacks did not arrive."""
    retail: dict[str, Any] | None


def load_truth(path: Path) -> Truth:
    """Raises FileError when the file is not there or not a ground truth."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"truth file {path}: {error.strerror}") from None
    except ValueError:
        raise FileError(f"truth file {path}: not JSON") from None
    try:
        untold = {(c["corp_id"], c["staff_id"], c["customer_id"], c["time_ms"]) for c in raw["untold"]["callbacks"]}
        return Truth(
            relationships=_pairs(raw["relationships"]),
            payments={
                (o["corp_id"], o["order_id"]): Payment(
                    o["corp_id"],
                    o["order_id"],
                    o["customer_id"],
                    o["collector_id"],
                    o["pay_time_ms"],
                    o["gross_fen"],
                    o["payment_type"],
                )
                for o in raw["orders"]
                if o["pay_time_ms"]
            },
            refunds=[
                Refund(
                    o["corp_id"],
                    o["order_id"],
                    r["refund_id"],
                    o["customer_id"],
                    r["staff_id"],
                    r["time_ms"],
                    r["amount_fen"],
                )
                for o in raw["orders"]
                for r in o["refunds"]
            ],
            welcomes={
                (w["corp_id"], w["staff_id"], w["customer_id"], w["event_time_ms"]): w["sent"] for w in raw["welcomes"]
            },
            refusals={
                (w["corp_id"], w["staff_id"], w["customer_id"], w["event_time_ms"]): frozenset(w["refused"])
                for w in raw["welcomes"]
            },
            dropped=raw["callbacks"]["dropped"],
            told={
                **dict.fromkeys((key[:3] for key in untold), None),
                **_pairs(raw["untold"]["relationships"]),
            },
            untold=untold,
            retail=raw.get("retail"),
        )
    except (KeyError, TypeError) as error:
        raise FileError(f"truth file {path}: not a ground truth ({type(error).__name__}: {error})") from None


def _pairs(rows: list[dict[str, Any]]) -> dict[Key, Relationship]:
    return {
        (r["corp_id"], r["staff_id"], r["customer_id"]): Relationship(
            r["status"],
            r["staff_side"],
            r["customer_side"],
            r["channel"],
            tuple(Episode(e["started_ms"], e["ended_ms"], e["ended_by"]) for e in r["episodes"]),
            (),
            0,
        )
        for r in rows
    }


def check_truth(truth: Truth, contacts: list[Contact], tables: tuple[Found, Found, Found, Found]) -> list[Section]:
    """Relationships, orders, staff days and welcomes of the truth against ClickHouse.

    Pairs of which callbacks never arrived are held against what did arrive.
    """
    relationship_rows, order_rows, staff_day_rows, outcomes = tables
    known = {key: pair for key, pair in (truth.relationships | truth.told).items() if pair is not None}
    expected_orders, refunds_of = orders(truth.payments, truth.refunds, known)
    days = staff_days(known, expected_orders, refunds_of)
    found_days: Found = [(key, row) for key, row in staff_day_rows if any(row[name] for name in _TOLD_COUNTERS)]
    pairs: Rows = {key: pair.row() for key, pair in known.items()}
    return [
        compare("relationships", "truth", pairs, relationship_rows, only=_TOLD_FIELDS),
        compare("orders", "truth", expected_orders, order_rows),
        compare("staff days", "truth", days, found_days, only=_TOLD_COUNTERS),
        _check_welcomes(truth, contacts, outcomes),
    ]


def _check_welcomes(truth: Truth, contacts: list[Contact], outcomes: Found) -> Section:
    """Sent in truth if and only if recorded as done; else as expired, or as refused with a code the platform gave.

    `already_done` is right for a code that was used before, and for the second code of an acquaintance (its half add
    had one too) whose welcome went out with the first.
    """
    welcomes = {key: sent for key, sent in truth.welcomes.items() if key not in truth.untold}
    section = Section("actions", "truth", expected=len(welcomes))
    greeted = {key[:3] for key, sent in welcomes.items() if sent}
    times = {(c.corp_id, c.event_id): c.time_ms for c in contacts}
    seen: set[tuple[str, str, str, int]] = set()
    for (corp_id, action_id), row in outcomes:
        if row["lane"] != "welcome":
            continue
        section.found += 1
        key = (corp_id, row["staff_id"], row["customer_id"], times.get((corp_id, row["caused_by"]), -1))
        if key not in welcomes:
            section.add(Difference("double", "a welcome for a code the platform never gave", (corp_id, action_id)))
        elif key in seen:
            section.add(Difference("double", "a second welcome for one code", (corp_id, action_id)))
        elif row["status"] == "already_done" and key[:3] in greeted:
            pass
        elif (row["status"] in SENT) != welcomes[key]:
            sent = {"sent": (welcomes[key], row["status"] in SENT)}
            section.add(Difference("different", "sent or not is told wrongly", (corp_id, action_id), sent))
        elif row["status"] not in (*SENT, "expired") and row["errcode"] not in truth.refusals.get(key, ()):
            section.add(Difference("different", "neither sent, expired nor refused", (corp_id, action_id)))
        seen.add(key)
    for corp_id, staff_id, customer_id, time_ms in welcomes.keys() - seen:
        key_shown = (corp_id, staff_id, customer_id, str(time_ms))
        section.add(Difference("lost", "no outcome for this welcome code", key_shown))
    return section
