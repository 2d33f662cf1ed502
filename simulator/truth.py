"""The ground truth as JSON: what has happened in the worlds, never what a system under test makes of it. Pure.

``relationships`` says what follows from the events since the scenario began: a pair of the opening, of which nobody was
told, appears when something happens to it, and then as its events alone tell it, with what it really is beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from simulator.delivery import DeliveryCounts
from simulator.scenario import Plan
from simulator.world.bills import COLLECTION, REFUND_DONE, Bill, BillBook
from simulator.world.corp import Callback, CorpWorld
from simulator.world.relations import ContactChange, Relationship


def truth(
    plan: Plan, corps: Mapping[str, CorpWorld], counts: DeliveryCounts, undelivered: Iterable[Callback] = ()
) -> dict[str, Any]:
    """The truth so far. The same story gives the same bytes once encoded.

    ``undelivered``: callbacks nobody accepted. What they were about stands under ``untold``, with each pair as those
    callbacks that did arrive tell it: more than that no system can know from callbacks alone.
    """
    missing = [callback.change for callback in undelivered if callback.change is not None]
    document: dict[str, Any] = {
        "seed": plan.seed,
        "scenario": plan.scenario,
        "corps": list(plan.corps),
        "relationships": [row for corp_id in sorted(corps) for row in _relationships(corps[corp_id])],
        "orders": _orders(bill for corp in corps.values() for bill in corp.of(BillBook).everything),
        "welcomes": [welcome.truth() for corp in corps.values() for welcome in corp.welcomes.issued],
        "callbacks": {
            "planned": counts.submitted,
            "delivered": counts.delivered,
            "dropped": counts.dropped,
            "lost": counts.lost,
            "muted": counts.muted,
            "duplicates": counts.duplicates,
        },
    }
    document["untold"] = {
        "callbacks": [
            {
                "corp_id": change.corp_id,
                "staff_id": change.staff_id,
                "customer_id": change.customer_id,
                "change": change.change,
                "time_ms": change.time_s * 1000,
            }
            for change in sorted(missing, key=lambda c: (c.time_s, c.pair))
        ],
        "relationships": [
            row
            for corp_id in sorted({change.corp_id for change in missing})
            for row in _relationships(corps[corp_id], frozenset(missing))
        ],
    }
    if plan.retail:
        document["retail"] = dict(plan.retail)
    document.update(plan.tells())
    return document


def _relationships(corp: CorpWorld, untold: frozenset[ContactChange] = frozenset()) -> list[dict[str, Any]]:
    """Every pair of which something was heard; with ``untold``, the pairs concerned, as they look without those."""
    concerned = {(change.staff_id, change.customer_id) for change in untold}
    told: dict[tuple[str, str], Relationship] = {}
    for change in corp.changes:
        pair = (change.staff_id, change.customer_id)
        if change not in untold and (not untold or pair in concerned):
            told.setdefault(pair, Relationship()).hear(change)
    rows = []
    for (staff_id, customer_id), relationship in sorted(told.items()):
        row = {
            "corp_id": corp.corp_id,
            "staff_id": staff_id,
            "customer_id": customer_id,
            "status": relationship.status,
            "staff_side": relationship.staff_side,
            "customer_side": relationship.customer_side,
            "channel": relationship.channel,
            "episodes": [
                {"started_ms": e.started_s * 1000, "ended_ms": e.ended_s * 1000, "ended_by": e.ended_by}
                for e in relationship.episodes
            ],
        }
        really = corp.relations.changed[staff_id, customer_id]
        if len(really.episodes) > len(relationship.episodes):
            row["opening"] = {"since_ms": really.episodes[0].started_s * 1000, "status": really.status}
        rows.append(row)
    return rows


def _orders(bills: Iterable[Bill]) -> list[dict[str, Any]]:
    orders: dict[tuple[str, str], dict[str, Any]] = {}
    for bill in sorted(bills, key=lambda b: (b.corp_id, b.out_trade_no, b.bill_type, b.time_s, b.out_refund_no)):
        if bill.hidden:
            continue
        order = orders.get((bill.corp_id, bill.out_trade_no))
        if order is None:
            order = orders[bill.corp_id, bill.out_trade_no] = {
                "corp_id": bill.corp_id,
                "order_id": bill.out_trade_no,
                "customer_id": bill.customer_id,
                "collector_id": "",
                "pay_time_ms": 0,
                "gross_fen": 0,
                "payment_type": bill.payment_type,
                "refunds": [],
            }
        if bill.bill_type == COLLECTION:
            order["collector_id"] = bill.staff_id
            order["pay_time_ms"] = bill.time_s * 1000
            order["gross_fen"] = bill.amount_fen
        elif bill.refund_status == REFUND_DONE:
            order["refunds"].append(
                {
                    "refund_id": bill.out_refund_no,
                    "time_ms": bill.time_s * 1000,
                    "amount_fen": bill.amount_fen,
                    "staff_id": bill.staff_id,
                }
            )
    return list(orders.values())
