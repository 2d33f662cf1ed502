"""A page of staff-collection bills (externalpay/get_bill_list, fact sheet 3.10) as payment events; no row is dropped.

A row becomes an event, or a :class:`BillProblem` that names the field at fault (never its value), so that whoever reads
pages can keep the page as a dead letter. The same bill has the same event id however often it is listed.

Rules of the platform:

* ``bill_type`` 0 is a collection: ``trade_state`` 1 (finished) and 3 (finished with refund) both mean paid in full, the
  refund is a row of its own.
* ``bill_type`` 1 is a refund, at its own ``pay_time``, with the order number of its payment. Which amounts such a row
  carries is not spelled out. Ours: ``refund_fee`` of the entry of ``refund_list`` that has the row's own
  ``out_refund_no`` if there is one, else ``total_refund_fee``; never ``total_fee``, which is the order's.
* Only a missing ``next_cursor`` ends the list. A page may be short or empty before that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from siyu.events import PaymentEvent
from siyu.events.ids import customer_key, payment_event_id, unknown_customer_key

SOURCE = "externalpay"
UNKNOWN_PAYMENT_TYPE = -1
"""The row does not say how it was paid."""

_LARGEST_FEN = 1 << 53
"""Beyond it a JSON number is not exact for every sender."""
_LATEST_SECOND = 1 << 33
"""The year 2242: a larger ``pay_time`` is milliseconds by mistake."""

Reason = Literal[
    "not_a_bill",  # no JSON object, or a field of a wrong type
    "missing_field",
    "out_of_range",  # an amount or a time of zero or less, or absurdly large
    "unknown_bill_type",
    "unknown_trade_state",
]


class BillPageError(ValueError):
    """An answer that is no page of bills. The message never quotes it."""


class BillsRefused(BillPageError):
    """WeCom answered with an error code."""

    def __init__(self, errcode: int) -> None:
        super().__init__(f"errcode {errcode}")
        self.errcode = errcode


@dataclass(frozen=True)
class BillProblem:
    """A row that cannot be an event."""

    reason: Reason
    field: str
    identity: str
    """The same for the same row: a hash of its bytes."""


@dataclass(frozen=True)
class BillPage:
    """What one answer holds."""

    events: tuple[PaymentEvent, ...]
    problems: tuple[BillProblem, ...]
    next_cursor: str
    """Empty: this was the last page."""


class _Refund(msgspec.Struct, frozen=True):
    out_refund_no: str = ""
    refund_fee: int | None = None


class _Bill(msgspec.Struct, frozen=True):
    bill_type: int | None = None
    trade_state: int | None = None
    pay_time: int | None = None
    out_trade_no: str = ""
    out_refund_no: str = ""
    external_userid: str | None = None
    total_fee: int | None = None
    total_refund_fee: int | None = None
    payee_userid: str | None = None
    payment_type: int = UNKNOWN_PAYMENT_TYPE
    refund_list: list[_Refund] | None = None
    remark: str | None = None
    contact_info: msgspec.Raw = msgspec.Raw()
    commodity_list: msgspec.Raw = msgspec.Raw()


class _Page(msgspec.Struct, frozen=True):
    errcode: int
    next_cursor: str | None = None
    # Left out by some of the platform's services when it would be empty.
    bill_list: list[msgspec.Raw] | None = None


class _RowError(Exception):
    def __init__(self, reason: Reason, field: str = "") -> None:
        super().__init__(reason, field)
        self.reason: Reason = reason
        self.field = field


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_bill = msgspec.json.Decoder(_Bill).decode


def parse_page(body: bytes, *, corp_id: str, received_at_ms: int) -> BillPage:
    """The page behind a JSON body. Raises BillsRefused for an errcode, BillPageError for anything that is no page."""
    try:
        page = _decode_page(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BillPageError("not a page of bills") from None
    if page.errcode != 0:
        raise BillsRefused(page.errcode)
    events: list[PaymentEvent] = []
    problems: list[BillProblem] = []
    for row in page.bill_list or ():
        try:
            events.append(_event(bytes(row), corp_id, received_at_ms))
        except _RowError as error:
            identity = hashlib.sha256(b"%s:%s" % (corp_id.encode(), bytes(row))).hexdigest()[:32]
            problems.append(BillProblem(error.reason, error.field, identity))
    return BillPage(tuple(events), tuple(problems), page.next_cursor or "")


def event_key(event: PaymentEvent) -> str:
    """Kafka key: the customer, or the order itself when nobody knows who paid."""
    if event.customer_id:
        return customer_key(event.corp_id, event.customer_id)
    return unknown_customer_key(event.corp_id, event.order_id)


def _event(row: bytes, corp_id: str, received_at_ms: int) -> PaymentEvent:
    try:
        bill = _decode_bill(row)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _RowError("not_a_bill") from None
    change: Literal["paid", "refunded"]
    if bill.bill_type is None:
        raise _RowError("missing_field", "bill_type")
    if bill.bill_type == 0:
        change, refund_id = "paid", ""
        if bill.trade_state is None:
            raise _RowError("missing_field", "trade_state")
        if bill.trade_state not in (1, 3):
            raise _RowError("unknown_trade_state", "trade_state")
        amount = _positive("total_fee", bill.total_fee)
    elif bill.bill_type == 1:
        change, refund_id = "refunded", _present("out_refund_no", bill.out_refund_no)
        amount = _refund_amount(bill)
    else:
        raise _RowError("unknown_bill_type", "bill_type")
    order_id = _present("out_trade_no", bill.out_trade_no)
    return PaymentEvent(
        event_id=payment_event_id(corp_id, change, order_id, refund_id),
        corp_id=corp_id,
        change=change,
        customer_id=bill.external_userid or "",
        order_id=order_id,
        refund_id=refund_id,
        staff_id=bill.payee_userid or "",
        amount_fen=amount,
        event_time_ms=_positive("pay_time", bill.pay_time, _LATEST_SECOND) * 1000,
        received_at_ms=received_at_ms,
        source=SOURCE,
        payment_type=bill.payment_type,
        personal=_personal(bill),
    )


def _refund_amount(bill: _Bill) -> int:
    own: Sequence[int | None] = [r.refund_fee for r in bill.refund_list or () if r.out_refund_no == bill.out_refund_no]
    if own:
        return _positive("refund_list.refund_fee", own[0])
    return _positive("total_refund_fee", bill.total_refund_fee)


def _present(field: str, value: str) -> str:
    if not value:
        raise _RowError("missing_field", field)
    return value


def _positive(field: str, value: int | None, limit: int = _LARGEST_FEN) -> int:
    if value is None:
        raise _RowError("missing_field", field)
    if not 0 < value < limit:
        raise _RowError("out_of_range", field)
    return value


def _personal(bill: _Bill) -> bytes:
    told = {"contact_info": bill.contact_info, "commodity_list": bill.commodity_list}
    found: dict[str, Any] = {name: raw for name, raw in told.items() if bytes(raw) not in (b"", b"null", b"[]", b"{}")}
    if bill.remark:
        found["remark"] = bill.remark
    return msgspec.json.encode(found) if found else b""
