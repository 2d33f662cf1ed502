"""The ground truth as JSON, from the world's own state machine and the plan's bills; never from what anybody did with
them, except ``welcomes[].sent`` and the counts of deliveries, which only the run can know. Pure."""

from __future__ import annotations

from typing import Any

from simulator.bills import COLLECTION, REFUND_DONE
from simulator.delivery import DeliveryCounts
from simulator.platform.welcomes import Welcome
from simulator.scenario import Plan
from simulator.world import World, played


def truth(plan: Plan, welcomes: list[Welcome], counts: DeliveryCounts) -> dict[str, Any]:
    """The truth at the end of the plan. The same plan gives the same bytes once encoded."""
    document: dict[str, Any] = {
        "seed": plan.seed,
        "scenario": plan.scenario,
        "corps": list(plan.corps),
        "relationships": _relationships(played(plan.contacts)),
        "orders": _orders(plan),
        "welcomes": [welcome.truth() for welcome in welcomes],
        "callbacks": {
            "planned": counts.planned,
            "delivered": counts.delivered,
            "dropped": counts.dropped,
            "duplicates": counts.duplicates,
        },
    }
    if plan.retail:
        document["retail"] = dict(plan.retail)
    return document


def _relationships(world: World) -> list[dict[str, Any]]:
    return [
        {
            "corp_id": corp_id,
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
        for (corp_id, staff_id, customer_id), relationship in sorted(world.relationships.items())
    ]


def _orders(plan: Plan) -> list[dict[str, Any]]:
    orders: dict[tuple[str, str], dict[str, Any]] = {}
    for bill in sorted(plan.bills, key=lambda b: (b.corp_id, b.out_trade_no, b.bill_type, b.time_s, b.out_refund_no)):
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
