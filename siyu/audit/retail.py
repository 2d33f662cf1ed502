"""A direct computation from the purchase history itself (UCI Online Retail), and its comparison with ClickHouse.

Rules: an invoice is the sum of its lines, each line quantity × unit price rounded half up to 0.01. A cancelled line is
a refund of the customer's latest earlier invoice that still holds something of that item, then of the next earlier one;
what is left, and every cancelled line of an unknown customer, is a refund without a known payment. Zero totals and
bad-debt adjustments are skipped and counted.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TextIO

from siyu.audit.compare import compare
from siyu.audit.errors import FileError
from siyu.audit.model import Key, Row, Rows
from siyu.audit.report import Section
from siyu.audit.warehouse import Found

_COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
_CUSTOMER_FIELDS = ("invoices", "gross_fen", "refunded_fen", "unmatched_refund_fen")
_STAFF_FIELDS = (
    "orders",
    "gross_fen",
    "refunded_fen",
    "unknown_customer_orders",
    "unknown_customer_gross_fen",
    "unmatched_refund_fen",
)


@dataclass
class Invoice:
    """One invoice with a positive total."""

    number: str
    customer: str
    date: str
    gross_fen: int = 0
    left_of_item: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Stock code → fen not yet refunded."""
    refunded_fen: int = 0


@dataclass(frozen=True)
class UnmatchedRefund:
    """A refund, or what is left of one, whose payment is not in the file."""

    number: str
    """Of the cancelling invoice."""
    customer: str
    amount_fen: int


@dataclass
class Purchases:
    """The file's content in money."""

    invoices: list[Invoice] = field(default_factory=list)
    unmatched: list[UnmatchedRefund] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Numbers of what is neither payment nor refund, by reason."""


def load_purchases(path: Path) -> Purchases:
    """Raises FileError when the file cannot be read as Online Retail."""
    try:
        with _open(path) as lines:
            reader = csv.DictReader(lines)
            missing = set(_COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise FileError(f"data file {path}: no column {', '.join(sorted(missing))}")
            return _purchases(list(reader))
    except OSError as error:
        raise FileError(f"data file {path}: {error.strerror or error}") from None
    except (ValueError, InvalidOperation, csv.Error) as error:
        raise FileError(f"data file {path}: not Online Retail ({type(error).__name__})") from None


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _fen(line: dict[str, str]) -> int:
    """Of one line; negative for what goes back."""
    exact = int(line["Quantity"]) * Decimal(line["UnitPrice"])
    return int(exact.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP) * 100)


def _purchases(lines: list[dict[str, str]]) -> Purchases:
    purchases = Purchases()
    by_number: dict[str, Invoice] = {}
    cancelled: list[dict[str, str]] = []
    for line in lines:
        number, date = line["InvoiceNo"], line["InvoiceDate"]
        if number.startswith("C"):
            cancelled.append(line)
        elif number.isdecimal():
            invoice = by_number.setdefault(number, Invoice(number, line["CustomerID"], date))
            # Some invoices were typed over two minutes: the first is when it was.
            invoice.date = min(invoice.date, date)
            amount = _fen(line)
            invoice.gross_fen += amount
            invoice.left_of_item[line["StockCode"]] += amount
        else:
            purchases.skipped["bad debt lines"].append(number)

    of_customer: dict[str, list[Invoice]] = defaultdict(list)
    for invoice in sorted(by_number.values(), key=lambda i: (i.date, i.number)):
        if invoice.gross_fen <= 0:
            purchases.skipped["invoices of zero total"].append(invoice.number)
            continue
        purchases.invoices.append(invoice)
        if invoice.customer:
            of_customer[invoice.customer].append(invoice)

    cancelled.sort(key=lambda line: (line["InvoiceDate"], line["InvoiceNo"]))
    for line in cancelled:
        left = -_fen(line)
        if left <= 0:
            purchases.skipped["cancelled lines of zero amount"].append(line["InvoiceNo"])
            continue
        for invoice in reversed(of_customer.get(line["CustomerID"], [])):
            if invoice.date > line["InvoiceDate"]:
                continue
            part = min(left, invoice.left_of_item.get(line["StockCode"], 0))
            if part > 0:
                invoice.left_of_item[line["StockCode"]] -= part
                invoice.refunded_fen += part
                left -= part
        if left:
            purchases.unmatched.append(UnmatchedRefund(line["InvoiceNo"], line["CustomerID"], left))
    return purchases


def check_data(
    purchases: Purchases, retail: dict[str, Any], order_rows: Found, staff_day_rows: Found
) -> tuple[list[Section], list[tuple[str, int, int]]]:
    """Per customer, per staff member and in total. ``retail``: who is who, from the ground truth. Raises FileError."""
    try:
        people: dict[str, Key] = {c["retail_id"]: (c["corp_id"], c["customer_id"]) for c in retail["customers"]}
        staff: dict[str, Key] = {c["retail_id"]: (c["corp_id"], c["staff_id"]) for c in retail["customers"]}
        collectors: dict[str, Key] = {i["invoice"]: (i["corp_id"], i["staff_id"]) for i in retail["unknown_invoices"]}
        customers, staff_totals = _expected(purchases, people, staff, collectors)
    except KeyError as error:
        raise FileError(f"the ground truth does not say who stands for {error} of the data file") from None
    found_customers, found_staff = _found(order_rows, staff_day_rows)
    sections = [
        compare("customers", "data", customers, list(found_customers.items())),
        compare("staff", "data", staff_totals, list(found_staff.items())),
    ]
    return sections, _totals(purchases, order_rows, found_customers)


def _expected(
    purchases: Purchases, people: dict[str, Key], staff: dict[str, Key], collectors: dict[str, Key]
) -> tuple[Rows, Rows]:
    customers: dict[Key, Row] = defaultdict(lambda: dict.fromkeys(_CUSTOMER_FIELDS, 0))
    totals: dict[Key, Row] = defaultdict(lambda: dict.fromkeys(_STAFF_FIELDS, 0))
    for invoice in purchases.invoices:
        if invoice.customer:
            row = customers[people[invoice.customer]]
            row["invoices"] += 1
            row["gross_fen"] += invoice.gross_fen
            row["refunded_fen"] += invoice.refunded_fen
            total = totals[staff[invoice.customer]]
        else:
            total = totals[collectors[invoice.number]]
            total["unknown_customer_orders"] += 1
            total["unknown_customer_gross_fen"] += invoice.gross_fen
        total["orders"] += 1
        total["gross_fen"] += invoice.gross_fen
        total["refunded_fen"] += invoice.refunded_fen
    for refund in purchases.unmatched:
        if refund.customer:
            customers[people[refund.customer]]["unmatched_refund_fen"] += refund.amount_fen
            total = totals[staff[refund.customer]]
        else:
            total = totals[collectors[refund.number]]
        total["unmatched_refund_fen"] += refund.amount_fen
    return dict(customers), dict(totals)


def _found(order_rows: Found, staff_day_rows: Found) -> tuple[Rows, Rows]:
    customers: dict[Key, Row] = defaultdict(lambda: dict.fromkeys(_CUSTOMER_FIELDS, 0))
    for (corp_id, _), order in order_rows:
        if not order["customer_id"]:
            continue
        row = customers[corp_id, order["customer_id"]]
        if order["paid"]:
            row["invoices"] += 1
            row["gross_fen"] += order["gross_fen"]
            row["refunded_fen"] += order["refunded_fen"]
        else:
            row["unmatched_refund_fen"] += order["refunded_fen"]
    staff: dict[Key, Row] = defaultdict(lambda: dict.fromkeys(_STAFF_FIELDS, 0))
    for (corp_id, staff_id, _), day in staff_day_rows:
        for name in _STAFF_FIELDS:
            staff[corp_id, staff_id][name] += day[name]
    # Staff members with additions but no money are no part of the file.
    return dict(customers), {key: row for key, row in staff.items() if any(row.values())}


def _totals(purchases: Purchases, order_rows: Found, found_customers: Rows) -> list[tuple[str, int, int]]:
    invoices, unmatched = purchases.invoices, purchases.unmatched
    paid = [order for _, order in order_rows if order["paid"]]
    gross, refunded = sum(i.gross_fen for i in invoices), sum(i.refunded_fen for i in invoices)
    found_gross, found_refunded = sum(o["gross_fen"] for o in paid), sum(o["refunded_fen"] for o in paid)
    without = sum(r.amount_fen for r in unmatched)
    found_without = sum(o["refunded_fen"] for _, o in order_rows if not o["paid"])
    customers = {i.customer for i in invoices} | {r.customer for r in unmatched}
    unknown = [i for i in invoices if not i.customer]
    found_unknown = [o for o in paid if not o["customer_id"]]
    return [
        ("有收退款的客户 customers with a payment or refund", len(customers - {""}), len(found_customers)),
        ("发票 invoices", len(invoices), len(paid)),
        ("其中客户未知 of unknown customers", len(unknown), len(found_unknown)),
        ("销售额 gross ¥", gross, found_gross),
        ("退款 refunded ¥", refunded, found_refunded),
        ("净额 net ¥", gross - refunded, found_gross - found_refunded),
        ("无对应付款的退款 refunds without a known payment ¥", without, found_without),
        ("合计 net less those ¥", gross - refunded - without, found_gross - found_refunded - found_without),
    ]
