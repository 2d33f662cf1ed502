"""Each rule of reading the Online Retail file, on rows made for it, and all of them against a slow second reading."""

import csv
import gzip
from collections import Counter
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.retail_data import History, RetailDataError, read_history

HEADER = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
Row = tuple[str, str, int, str, str, str]


def row(number: str, item: str, quantity: int, time: str, price: str, customer: str = "17850") -> Row:
    """One line; ``time`` is ``HH:MM`` of 2010-12-01 or a whole date."""
    return number, item, quantity, time if " " in time else f"2010-12-01 {time}:00", price, customer


def write(path: Path, rows: list[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows([n, i, "a, b", q, t, p, c, "United Kingdom"] for n, i, q, t, p, c in rows)
    return path


@pytest.fixture
def read(tmp_path: Path):
    return lambda *rows: read_history(write(tmp_path / "retail.csv", list(rows)))


def refunds(history: History) -> list[tuple[str, str, int]]:
    return [(r.refund_id, r.invoice, r.amount_fen) for r in history.refunds]


def test_an_invoice_is_the_sum_of_its_lines_each_rounded_half_up(read):
    history = read(
        row("1", "A", 3, "08:00", "0.125"),  # 0.375 → 0.38
        row("1", "B", 1, "08:00", "0.004"),  # 0.00
        row("1", "A", 1, "08:00", "0.005"),  # 0.01
        row("1", "C", 2, "08:00", "2.55"),
    )
    (invoice,) = history.invoices
    assert (invoice.number, invoice.retail_id, invoice.amount_fen) == ("1", "17850", 38 + 0 + 1 + 510)
    assert history.lines == 4


def test_times_are_shanghai_wall_times_and_an_invoice_has_that_of_its_first_line(read):
    history = read(row("1", "A", 1, "08:26", "1"), row("1", "B", 1, "08:27", "1"))
    expected = datetime(2010, 12, 1, 8, 26, tzinfo=ZoneInfo("Asia/Shanghai"))
    assert [i.time_s for i in history.invoices] == [int(expected.timestamp())]
    assert history.first_s == history.last_s == int(expected.timestamp())


def test_a_cancelled_line_refunds_the_latest_earlier_invoice_that_holds_the_item(read):
    history = read(
        row("1", "A", 5, "08:00", "2.00"),
        row("2", "A", 5, "09:00", "2.00"),
        row("3", "B", 5, "10:00", "2.00"),
        row("C4", "A", -2, "11:00", "2.00"),
        row("5", "A", 5, "12:00", "2.00"),
    )
    assert refunds(history) == [("C4-1-1", "2", 400)]


def test_what_one_invoice_has_not_left_comes_from_the_next_earlier_one_and_then_from_nowhere(read):
    history = read(
        row("1", "A", 1, "08:00", "3.00"),
        row("2", "A", 1, "09:00", "2.00"),
        row("C3", "A", -1, "10:00", "6.00"),
        row("C4", "A", -1, "11:00", "1.00"),
    )
    assert refunds(history) == [
        ("C3-1-1", "2", 200),
        ("C3-1-2", "1", 300),
        ("C3-1-3", "", 100),
        ("C4-1-1", "", 100),
    ]


def test_only_the_item_counts_not_the_rest_of_the_invoice(read):
    history = read(
        row("1", "A", 1, "08:00", "3.00"),
        row("1", "B", 1, "08:00", "50.00"),
        row("C2", "A", -1, "09:00", "4.00"),
        row("C2", "a", -1, "09:00", "4.00"),
    )
    assert refunds(history) == [("C2-1-1", "1", 300), ("C2-1-2", "", 100), ("C2-2-1", "", 400)]


def test_the_same_item_on_several_lines_of_an_invoice_is_one_amount(read):
    history = read(
        row("1", "A", 1, "08:00", "3.00"),
        row("1", "A", 2, "08:00", "3.00"),
        row("C2", "A", -3, "09:00", "3.00"),
    )
    assert refunds(history) == [("C2-1-1", "1", 900)]


def test_a_cancellation_before_the_purchase_finds_nothing_even_in_the_same_minute(read):
    history = read(
        row("C1", "A", -1, "08:00", "3.00"),
        row("2", "A", 1, "08:00", "3.00"),
        row("C3", "A", -1, "08:00", "3.00"),
    )
    assert refunds(history) == [("C1-1-1", "", 300), ("C3-1-1", "2", 300)]


def test_customers_do_not_refund_each_other(read):
    history = read(
        row("1", "A", 1, "08:00", "3.00", "17850"),
        row("C2", "A", -1, "09:00", "3.00", "13047"),
    )
    assert refunds(history) == [("C2-1-1", "", 300)]


def test_lines_without_a_customer_are_payments_of_nobody_known_and_refunds_without_a_payment(read):
    history = read(row("1", "A", 1, "08:00", "3.00", ""), row("C2", "A", -1, "09:00", "3.00", ""))
    assert [(i.number, i.retail_id, i.amount_fen) for i in history.invoices] == [("1", "", 300)]
    assert refunds(history) == [("C2-1-1", "", 300)]
    assert history.retail_ids == []


def test_what_is_neither_payment_nor_refund_is_counted_and_listed_by_reason(read):
    history = read(
        row("1", "A", -10, "08:00", "0", ""),  # written off: negative quantity, no price
        row("2", "A", 10, "08:00", "0.0"),
        row("3", "A", -1, "08:00", "4.00"),
        row("A4", "B", 1, "08:00", "11062.06", ""),
        row("A5", "B", 1, "08:00", "-11062.06", ""),
        row("C6", "A", -1, "08:00", "0"),
        row("C6", "A", 1, "08:00", "4.00"),
        row("X7", "A", 1, "08:00", "4.00"),
        row("8", "A", 1, "08:00", "4.00"),
    )
    assert dict(history.skipped) == {
        "zero_total": ["1", "2"],
        "negative_total": ["3"],
        "bad_debt": ["A4", "A5"],
        "zero_cancellation": ["C6-1"],
        "positive_cancellation": ["C6-2"],
        "other_kind": ["X7"],
    }
    assert [i.number for i in history.invoices] == ["8"]
    assert history.refunds == []


def test_lines_that_cannot_be_read_are_listed_by_their_number(tmp_path):
    path = tmp_path / "retail.csv"
    path.write_text(
        ",".join(HEADER) + "\n"
        "1,A,d,1,2010-12-01 08:00:00,2.00,17850,UK\n"
        "2,A,d,many,2010-12-01 08:00:00,2.00,17850,UK\n"
        "3,A,d,1,yesterday,2.00,17850,UK\n"
        "4,A,d,1,2010-12-01 08:00:00,NaN,17850,UK\n"
        "5,A\n"
    )
    history = read_history(path)
    assert history.skipped["malformed"] == ["3", "4", "5", "6"]
    assert [i.number for i in history.invoices] == ["1"]


def test_both_spellings_in_circulation_are_read(tmp_path):
    path = tmp_path / "retail.csv.gz"
    text = ",".join(HEADER) + "\n1,A,caf\xe9,1,12/1/2010 8:26,2.00,17850.0,UK\n"
    path.write_bytes(gzip.compress(text.encode("latin-1")))
    (invoice,) = read_history(path).invoices
    assert invoice.retail_id == "17850"
    assert invoice.time_s == int(datetime(2010, 12, 1, 8, 26, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"a,b,c\n1,2,3\n", "no column InvoiceNo"),
        (b"", "no column"),
        (",".join(HEADER).encode() + b"\n", "no invoice"),
        (b"\x1f\x8bbroken", "cannot be read"),
    ],
)
def test_a_file_that_is_something_else_is_refused_with_a_reason(tmp_path, content, said):
    path = tmp_path / "retail.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RetailDataError, match=said):
        read_history(path)


def slow_reading(rows: list[Row]) -> tuple[dict[str, int], Counter[tuple[str, str, str]], int]:
    """Invoices, refunded fen by (invoice, cancellation, item) and unmatched fen: exact fractions, whole scans."""

    def fen(r: Row) -> int:
        exact = Fraction(r[4]) * abs(r[2]) * 100
        return (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)

    order = sorted(range(len(rows)), key=lambda n: rows[n][3])
    numbers: list[str] = list(dict.fromkeys(rows[n][0] for n in order))
    invoices = {n: sum(fen(r) for r in rows if r[0] == n) for n in numbers if n.isdigit()}
    invoices = {n: amount for n, amount in invoices.items() if amount}
    owner = {r[0]: r[5] for r in rows}
    back: Counter[tuple[str, str, str]] = Counter()
    unmatched = 0
    for place, number in enumerate(numbers):
        if not number.startswith("C"):
            continue
        for r in [r for r in rows if r[0] == number]:
            need = fen(r)
            for earlier in reversed(numbers[:place]):
                if r[5] and earlier in invoices and owner[earlier] == r[5]:
                    held = sum(fen(o) for o in rows if o[0] == earlier and o[1] == r[1])
                    taken = sum(amount for (i, _, item), amount in back.items() if (i, item) == (earlier, r[1]))
                    part = min(need, held - taken)
                    back[earlier, number, r[1]] += part
                    need -= part
            unmatched += need
    return invoices, +back, unmatched


@st.composite
def files(draw: st.DrawFn) -> list[Row]:
    rows: list[Row] = []
    for number in range(1, draw(st.integers(1, 9)) + 1):
        cancelled = draw(st.booleans())
        name = f"C{number}" if cancelled else str(number)
        customer = draw(st.sampled_from(["17850", "13047", ""]))
        for _ in range(draw(st.integers(1, 3))):
            quantity = draw(st.integers(1, 9))
            price = draw(st.sampled_from(["0", "0.001", "0.125", "1.00", "2.55"]))
            item = draw(st.sampled_from(["A", "B"]))
            # Two documents a minute: which is earlier is then a matter of place.
            rows.append(row(name, item, -quantity if cancelled else quantity, f"08:{number // 2:02d}", price, customer))
    return rows


@settings(max_examples=200, deadline=None)
@given(files())
def test_matching_is_what_a_slow_reading_of_the_rules_gives(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("retail") / "retail.csv"
    invoices, back, unmatched = slow_reading(rows)
    try:
        history = read_history(write(path, rows))
    except RetailDataError:
        assert not invoices
        assert not back
        assert not unmatched
        return
    item_of = {
        (r[0], n): r[1]
        for number in {r[0] for r in rows}
        for n, r in enumerate([r for r in rows if r[0] == number], start=1)
    }
    got: Counter[tuple[str, str, str]] = Counter()
    for refund in history.refunds:
        if refund.invoice:
            line = int(refund.refund_id.split("-")[1])
            got[refund.invoice, refund.cancellation, item_of[refund.cancellation, line]] += refund.amount_fen
    assert {i.number: i.amount_fen for i in history.invoices} == invoices
    assert got == back
    assert sum(r.amount_fen for r in history.refunds if not r.invoice) == unmatched
