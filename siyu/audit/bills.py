"""Recorded pages of the bill list into distinct payments and refunds, by the bill's own numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from siyu.audit.errors import SourceError
from siyu.audit.model import Key, Payment, Refund
from siyu.events.types import ActionOutcome

BILL_LIST = "externalpay/get_bill_list"
_COLLECTION, _REFUND = 0, 1


@dataclass
class Bills:
    """What the pages of bills said, each payment and each refund once."""

    pages: int = 0
    without_amount: int = 0
    """Bill rows over nothing or less: no event, so part of no figure."""
    payments: dict[Key, Payment] = field(default_factory=dict)
    """By (corp, order)."""
    refunds: dict[Key, Refund] = field(default_factory=dict)
    """By (corp, order, refund)."""
    contradictions: list[tuple[str, str, str]] = field(default_factory=list)
    """(corp, what, number) where two pages say different things about one number."""


def read_bills(outcomes: Iterable[ActionOutcome]) -> Bills:
    """Every distinct payment and refund among the answers of the bill list. Raises SourceError for a broken answer."""
    bills = Bills()
    for outcome in outcomes:
        if outcome.endpoint != BILL_LIST or outcome.status != "done":
            continue
        bills.pages += 1
        try:
            for bill in json.loads(outcome.response).get("bill_list", []):
                _take(bills, outcome.corp_id, bill)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                f"action {outcome.action_id}: the recorded page of bills cannot be read ({type(error).__name__})"
            ) from None
    return bills


def _take(bills: Bills, corp_id: str, bill: dict[str, Any]) -> None:
    order_id = bill["out_trade_no"]
    if int(bill["total_refund_fee"] if bill["bill_type"] == _REFUND else bill["total_fee"]) <= 0:
        bills.without_amount += 1
        return
    if bill["bill_type"] == _COLLECTION:
        payment = Payment(
            corp_id=corp_id,
            order_id=order_id,
            customer_id=bill.get("external_userid", ""),
            collector_id=bill.get("payee_userid", ""),
            time_ms=int(bill["pay_time"]) * 1000,
            amount_fen=int(bill["total_fee"]),
            payment_type=int(bill.get("payment_type", 0)),
        )
        if bills.payments.setdefault((corp_id, order_id), payment) != payment:
            bills.contradictions.append((corp_id, "two pages disagree on a payment", order_id))
    elif bill["bill_type"] == _REFUND:
        refund = Refund(
            corp_id=corp_id,
            order_id=order_id,
            refund_id=bill["out_refund_no"],
            customer_id=bill.get("external_userid", ""),
            staff_id=bill.get("payee_userid", ""),
            time_ms=int(bill["pay_time"]) * 1000,
            amount_fen=int(bill["total_refund_fee"]),
        )
        if bills.refunds.setdefault((corp_id, order_id, refund.refund_id), refund) != refund:
            bills.contradictions.append((corp_id, "two pages disagree on a refund", refund.refund_id))
