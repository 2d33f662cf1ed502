"""Reads the UCI Online Retail file into invoices and refunds. Pure: the same file gives the same history.

Rules (they are what the audit of a replay computes again from the file):

* **Time**: the file's wall times are taken as Asia/Shanghai. An invoice's time is that of its first line, also when its
  lines span two minutes.
* **Line amount** = quantity × unit price, rounded half up (away from zero) to 0.01, in fen; decimal, never binary.
* **Invoice** (a number of digits only): its lines' sum. A sum of 0 is skipped as ``zero_total`` (goods written off at
  price 0, most with negative quantities, are among them), below 0 as ``negative_total``.
* **Cancellation** (number begins with ``C``): each line with a negative amount is money back for one item (StockCode,
  exactly as written). It is taken from the customer's latest earlier invoice that holds the item and has something of
  that item's amount left; then from the next earlier one; what remains is a refund without a known payment. *Earlier*
  is by (time, place in the file). A line of 0 is skipped as ``zero_cancellation``, one above 0 as
  ``positive_cancellation``.
* Cancellations without a customer id are refunds without a known payment.
* ``A…`` is a bad-debt adjustment: skipped as ``bad_debt``. Any other number: ``other_kind``. A line that cannot be
  read (missing field, bad number or date): ``malformed``, by its line number.

Both spellings that are in circulation are read: ISO dates or ``12/1/2010 8:26``, ``17850`` or ``17850.0``, UTF-8 or
Latin-1, plain or gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path

from siyu.events.business_time import SHANGHAI

COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
_DATES = ("%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M")
_FEN = Decimal("0.01")
_GZIP = b"\x1f\x8b"


class RetailDataError(ValueError):
    """A file that is not the Online Retail data."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a document. ``amount_fen`` has the sign of the quantity."""

    stock_code: str
    amount_fen: int


@dataclass(slots=True)
class Document:
    """All lines with one InvoiceNo. ``retail_id`` is the CustomerID, empty when unknown."""

    number: str
    time_s: int
    retail_id: str
    lines: list[Line] = field(default_factory=list)

    @property
    def amount_fen(self) -> int:
        return sum(line.amount_fen for line in self.lines)


@dataclass(frozen=True, slots=True)
class Invoice:
    """Money paid."""

    number: str
    time_s: int
    retail_id: str
    amount_fen: int


@dataclass(frozen=True, slots=True)
class Refund:
    """Money back; ``invoice`` is empty when its payment is not known."""

    refund_id: str
    """``<cancellation>-<line>-<part>``, line and part counted from 1."""
    cancellation: str
    time_s: int
    retail_id: str
    amount_fen: int
    invoice: str


@dataclass(slots=True)
class History:
    """What the file says, in order of time."""

    lines: int = 0
    invoices: list[Invoice] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Document numbers (``malformed``: line numbers) by reason; a cancelled line is ``<cancellation>-<line>``."""
    retail_ids: list[str] = field(default_factory=list)
    """Every customer of the file, sorted; also those all of whose documents were skipped."""

    def _times(self) -> list[int]:
        return [invoice.time_s for invoice in self.invoices] + [refund.time_s for refund in self.refunds]

    @property
    def first_s(self) -> int:
        """Time of the first payment or refund."""
        return min(self._times())

    @property
    def last_s(self) -> int:
        """Time of the last payment or refund."""
        return max(self._times())


def read_history(path: Path) -> History:
    """Raises RetailDataError when the file is missing, has other columns or holds nothing."""
    history = History()
    documents = _documents(path, history)
    _settle(documents, history)
    if not history.invoices and not history.refunds:
        raise RetailDataError(f"{path}: no invoice and no cancellation in it")
    return history


def _open(path: Path) -> io.StringIO:
    try:
        content = path.read_bytes()
        if content[:2] == _GZIP:
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise RetailDataError(f"{path}: cannot be read ({type(error).__name__})") from None
    try:
        return io.StringIO(content.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError:
        return io.StringIO(content.decode("latin-1"), newline="")


def _documents(path: Path, history: History) -> list[Document]:
    reader = csv.reader(_open(path))
    header = [name.strip() for name in next(reader, [])]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise RetailDataError(f"{path}: no column {', '.join(missing)}")
    places = [header.index(name) for name in COLUMNS]
    documents: dict[str, Document] = {}
    retail_ids: set[str] = set()
    times: dict[str, int] = {}
    prices: dict[str, Decimal] = {}
    for row in reader:
        history.lines += 1
        try:
            number, stock_code, quantity_text, date, price_text, retail_id = (row[place].strip() for place in places)
            time_s = times.get(date)
            if time_s is None:
                time_s = times[date] = _time_s(date)
            price = prices.get(price_text)
            if price is None:
                price = prices[price_text] = _price(price_text)
            amount_fen = _fen(int(quantity_text), price)
            if not number:
                raise ValueError("no invoice number")
        except (ValueError, IndexError, InvalidOperation):
            history.skipped["malformed"].append(str(reader.line_num))
            continue
        retail_id = retail_id.removesuffix(".0")
        if retail_id:
            retail_ids.add(retail_id)
        document = documents.get(number)
        if document is None:
            document = documents[number] = Document(number, time_s, retail_id)
        document.lines.append(Line(stock_code, amount_fen))
    history.retail_ids = sorted(retail_ids)
    # Python's sort is stable, so documents of one minute stay in the order of the file.
    return sorted(documents.values(), key=lambda d: d.time_s)


def _time_s(text: str) -> int:
    for form in _DATES:
        try:
            return int(datetime.strptime(text, form).replace(tzinfo=SHANGHAI).timestamp())
        except ValueError:
            continue
    raise ValueError("not a date")


def _price(text: str) -> Decimal:
    price = Decimal(text)
    if not price.is_finite():
        raise ValueError("not a price")
    return price


def _fen(quantity: int, price: Decimal) -> int:
    return int((quantity * price).quantize(_FEN, ROUND_HALF_UP).scaleb(2))


def _settle(documents: list[Document], history: History) -> None:
    """Sorts documents into payments, refunds and what is skipped."""
    left: dict[tuple[str, str], list[_Left]] = defaultdict(list)
    for document in documents:
        if document.number.isdecimal():
            if document.amount_fen > 0:
                history.invoices.append(
                    Invoice(document.number, document.time_s, document.retail_id, document.amount_fen)
                )
                if document.retail_id:
                    for stock_code, amount_fen in _by_item(document):
                        left[document.retail_id, stock_code].append(_Left(document.number, amount_fen))
            else:
                history.skipped["negative_total" if document.amount_fen else "zero_total"].append(document.number)
        elif document.number.startswith("C"):
            _cancel(document, left, history)
        else:
            history.skipped["bad_debt" if document.number.startswith("A") else "other_kind"].append(document.number)


@dataclass(slots=True)
class _Left:
    """What of one item of one invoice has not been refunded."""

    invoice: str
    amount_fen: int


def _by_item(document: Document) -> Iterator[tuple[str, int]]:
    amounts: dict[str, int] = defaultdict(int)
    for line in document.lines:
        amounts[line.stock_code] += line.amount_fen
    return ((stock_code, amount) for stock_code, amount in amounts.items() if amount > 0)


def _cancel(document: Document, left: dict[tuple[str, str], list[_Left]], history: History) -> None:
    for number, line in enumerate(document.lines, start=1):
        open_fen = -line.amount_fen
        if open_fen <= 0:
            reason = "positive_cancellation" if open_fen else "zero_cancellation"
            history.skipped[reason].append(f"{document.number}-{number}")
            continue
        parts: list[tuple[str, int]] = []
        invoices = left.get((document.retail_id, line.stock_code), []) if document.retail_id else []
        while open_fen and invoices:
            latest = invoices[-1]
            taken = min(open_fen, latest.amount_fen)
            parts.append((latest.invoice, taken))
            latest.amount_fen -= taken
            open_fen -= taken
            if not latest.amount_fen:
                invoices.pop()
        if open_fen:
            parts.append(("", open_fen))
        for part, (invoice, amount_fen) in enumerate(parts, start=1):
            refund_id = f"{document.number}-{number}-{part}"
            history.refunds.append(
                Refund(refund_id, document.number, document.time_s, document.retail_id, amount_fen, invoice)
            )
