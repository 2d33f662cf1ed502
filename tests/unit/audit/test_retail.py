"""The direct computation from a purchase history, in fen."""

import csv
import gzip

import pytest

from siyu.audit.errors import AuditError, FileError
from siyu.audit.model import COUNTERS
from siyu.audit.retail import check_data, load_purchases
from siyu.audit.run import AuditConfig, run_audit

HEADER = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]


def write(path, *lines):
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for number, item, quantity, date, price, customer in lines:
            writer.writerow([number, item, "thing", quantity, f"2011-{date}:00", price, customer, "United Kingdom"])
    return path


@pytest.fixture
def load(tmp_path):
    return lambda *lines: load_purchases(write(tmp_path / "retail.csv.gz", *lines))


def test_each_line_is_rounded_half_up_before_it_is_added(load):
    purchases = load(("1", "A", 1, "01-01 10:00", "0.005", "7"), ("1", "B", 1, "01-01 10:00", "0.005", "7"))
    assert [i.gross_fen for i in purchases.invoices] == [2]


def test_a_cancelled_line_refunds_the_latest_earlier_invoice_then_the_next_earlier_one(load):
    purchases = load(
        ("1", "A", 10, "01-01 10:00", "1.00", "7"),
        ("2", "A", 2, "01-02 10:00", "1.00", "7"),
        ("3", "A", 9, "01-04 10:00", "1.00", "7"),
        ("C4", "A", -5, "01-03 10:00", "1.00", "7"),
    )
    assert [(i.number, i.refunded_fen) for i in purchases.invoices] == [("1", 300), ("2", 200), ("3", 0)]
    assert purchases.unmatched == []


def test_an_item_is_never_refunded_twice_and_the_rest_has_no_known_payment(load):
    purchases = load(
        ("1", "A", 2, "01-01 10:00", "1.00", "7"),
        ("1", "B", 5, "01-01 10:00", "1.00", "7"),
        ("C2", "A", -2, "01-02 10:00", "1.00", "7"),
        ("C3", "A", -2, "01-03 10:00", "1.00", "7"),
        ("C4", "B", -1, "01-03 10:00", "1.00", ""),
    )
    assert [i.refunded_fen for i in purchases.invoices] == [200]
    assert [(r.number, r.amount_fen) for r in purchases.unmatched] == [("C3", 200), ("C4", 100)]


def test_zero_totals_and_bad_debt_are_skipped_and_counted(load):
    purchases = load(
        ("1", "A", -3, "01-01 10:00", "0.00", ""),
        ("A2", "B", 1, "01-01 10:00", "-11062.06", ""),
        ("C3", "A", -1, "01-01 10:00", "0", "7"),
    )
    assert (purchases.invoices, purchases.unmatched) == ([], [])
    assert purchases.skipped == {
        "invoices of zero total": ["1"],
        "bad debt lines": ["A2"],
        "cancelled lines of zero amount": ["C3"],
    }


def test_per_customer_per_staff_and_in_total(load):
    purchases = load(
        ("1", "A", 2, "01-01 10:00", "1.00", "7"),
        ("2", "A", 1, "01-01 11:00", "5.00", ""),
        ("C3", "A", -1, "01-02 10:00", "1.00", "7"),
    )
    retail = {
        "customers": [{"retail_id": "7", "corp_id": "ww1", "customer_id": "c7", "staff_id": "s1"}],
        "unknown_invoices": [{"invoice": "2", "corp_id": "ww1", "staff_id": "s2"}],
    }
    orders = [
        (("ww1", "T1"), {"customer_id": "c7", "paid": True, "gross_fen": 200, "refunded_fen": 100}),
        (("ww1", "T2"), {"customer_id": "", "paid": True, "gross_fen": 500, "refunded_fen": 0}),
    ]
    nothing = dict.fromkeys(COUNTERS, 0)
    unknown = {"unknown_customer_orders": 1, "unknown_customer_gross_fen": 500}
    days = [
        (("ww1", "s1", "2011-01-01"), {**nothing, "orders": 1, "gross_fen": 200}),
        (("ww1", "s1", "2011-01-02"), {**nothing, "refunds": 1, "refunded_fen": 100}),
        (("ww1", "s2", "2011-01-01"), {**nothing, "orders": 1, "gross_fen": 500, **unknown}),
        (("ww1", "s3", "2011-01-01"), {**nothing, "adds": 1}),
    ]
    sections, totals = check_data(purchases, retail, orders, days)
    assert all(section.clean for section in sections)
    assert all(wanted == found for _, wanted, found in totals)
    orders[0][1]["refunded_fen"] = 99
    sections, totals = check_data(purchases, retail, orders, days)
    assert [section.different for section in sections] == [1, 0]
    assert any(wanted != found for _, wanted, found in totals)


def test_a_truth_that_does_not_know_a_customer_is_refused(load):
    purchases = load(("1", "A", 2, "01-01 10:00", "1.00", "7"))
    with pytest.raises(FileError):
        check_data(purchases, {"customers": [], "unknown_invoices": []}, [], [])


def test_a_file_that_is_something_else_is_refused(tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(FileError, match="no column"):
        load_purchases(other)
    with pytest.raises(FileError, match="No such file"):
        load_purchases(tmp_path / "missing.csv.gz")
    (tmp_path / "broken.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(FileError):
        load_purchases(tmp_path / "broken.csv.gz")


def test_data_without_the_truth_that_names_its_people_cannot_be_audited(tmp_path):
    config = AuditConfig("127.0.0.1:1", "http://127.0.0.1:1", data=tmp_path / "x.csv.gz")
    with pytest.raises(AuditError, match="--truth"):
        run_audit(config)
