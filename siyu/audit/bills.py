"""Recorded pages of the bill list into distinct payments and refunds, by the bill's own numbers.

A page must be readable, or nothing is sure; a single row that is no complete bill is no event, and is counted.
"""

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
_FINISHED = (1, 3)


class _NoBill(Exception):
    """A row that says too little, or nothing that moved money."""


@dataclass
class Bills:
    """What the pages of bills said, each payment and each refund once."""

    pages: int = 0
    payments: dict[Key, Payment] = field(default_factory=dict)
    """By (corp, order)."""
    refunds: dict[Key, Refund] = field(default_factory=dict)
    """By (corp, order, refund)."""
    no_bills: set[str] = field(default_factory=set)
    """Rows that are no event and part of no figure, each once."""
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
            rows = list(json.loads(outcome.response).get("bill_list") or [])
        except (ValueError, TypeError, AttributeError) as error:
            raise SourceError(
                f"action {outcome.action_id}: the recorded page of bills cannot be read ({type(error).__name__})"
            ) from None
        for row in rows:
            try:
                _take(bills, outcome.corp_id, row)
            except (_NoBill, KeyError, TypeError, ValueError, AttributeError):
                bills.no_bills.add(json.dumps([outcome.corp_id, row], sort_keys=True))
    return bills


def _take(bills: Bills, corp_id: str, bill: dict[str, Any]) -> None:
    order_id, customer_id, staff_id = (
        _number(bill["out_trade_no"]),
        bill.get("external_userid"),
        bill.get("payee_userid"),
    )
    time_ms = _positive(bill["pay_time"]) * 1000
    if bill["bill_type"] == _COLLECTION and bill["trade_state"] in _FINISHED:
        payment = Payment(
            corp_id=corp_id,
            order_id=order_id,
            customer_id=customer_id or "",
            collector_id=staff_id or "",
            time_ms=time_ms,
            amount_fen=_positive(bill["total_fee"]),
            # -1: the platform does not say.
            payment_type=bill.get("payment_type", -1),
        )
        if bills.payments.setdefault((corp_id, order_id), payment) != payment:
            bills.contradictions.append((corp_id, "two pages disagree on a payment", order_id))
    elif bill["bill_type"] == _REFUND:
        refund_id = _number(bill["out_refund_no"])
        # A refund row may bring the details of its refund; else it has one amount that is its own.
        own = [r["refund_fee"] for r in bill.get("refund_list") or [] if r.get("out_refund_no") == refund_id]
        refund = Refund(
            corp_id=corp_id,
            order_id=order_id,
            refund_id=refund_id,
            customer_id=customer_id or "",
            staff_id=staff_id or "",
            time_ms=time_ms,
            amount_fen=_positive(own[0] if own else bill["total_refund_fee"]),
        )
        if bills.refunds.setdefault((corp_id, order_id, refund.refund_id), refund) != refund:
            bills.contradictions.append((corp_id, "two pages disagree on a refund", refund.refund_id))
    else:
        raise _NoBill


def _number(text: str) -> str:
    if not text:
        raise _NoBill
    return text


def _positive(number: int) -> int:
    if number <= 0:
        raise _NoBill
    return number
