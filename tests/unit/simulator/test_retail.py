"""The replayed history as a plan: every document a bill, every customer with one staff member, two phases."""

from pathlib import Path

import pytest
from worlds_of_plans import Played

from simulator.retail_data import History, read_history
from simulator.scenario import CannotPlay, Plan
from simulator.scenario.retail import opening_s, plan_retail, replay_from_s
from simulator.world.relations import played

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> History:
    lines = []
    for number in range(400):
        day, customer = 1 + number % 28, 10_000 + number % 300
        lines.append(f"{500_000 + number},A,d,2,2011-01-{day:02d} 10:00:00,5.00,{customer},UK")
        if number % 5 == 0:
            lines.append(f"C{600_000 + number},A,d,-1,2011-02-{day:02d} 10:00:00,5.00,{customer},UK")
    lines += ["700001,A,d,1,2011-01-05 10:00:00,7.00,,UK", "C700002,A,d,-1,2011-01-06 10:00:00,7.00,,UK"]
    lines += ["700003,A,d,1,2011-01-06 10:00:00,0,10001,UK", "A700004,B,d,1,2011-01-06 10:00:00,9.00,,UK"]
    path: Path = tmp_path_factory.mktemp("retail") / "retail.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return read_history(path)


def retail(history: History, seed: int = 1, start_s: int | None = None) -> Plan:
    return plan_retail(
        history,
        seed=seed,
        corps=("ww1", "ww2"),
        staff_count=30,
        join_s=45,
        start_s=opening_s(history) + 1 if start_s is None else start_s,
        bill_lag_ms=3_000,
    )


@pytest.fixture(scope="module")
def plan(history) -> Plan:
    return retail(history)


def test_every_document_is_a_bill_of_the_customers_own_staff_member(history, plan):
    document = Played(plan).to_the_end().truth()
    people = {c["retail_id"]: c for c in document["retail"]["customers"]}
    strangers = {u["invoice"]: u for u in document["retail"]["unknown_invoices"]}
    orders = {o["order_id"]: o for o in document["orders"]}
    assert len(people) == 300
    for invoice in history.invoices:
        order = orders[invoice.number]
        assert (order["gross_fen"], order["pay_time_ms"]) == (invoice.amount_fen, invoice.time_s * 1000)
        who = people[invoice.retail_id] if invoice.retail_id else strangers[invoice.number]
        assert (order["corp_id"], order["collector_id"]) == (who["corp_id"], who["staff_id"])
        assert order["customer_id"] == (who["customer_id"] if invoice.retail_id else "")
    for refund in history.refunds:
        order = orders[refund.invoice or refund.cancellation]
        (back,) = [r for r in order["refunds"] if r["refund_id"] == refund.refund_id]
        assert (back["amount_fen"], back["time_ms"]) == (refund.amount_fen, refund.time_s * 1000)
    assert sum(len(o["refunds"]) for o in orders.values()) == len(history.refunds)
    assert {u["invoice"] for u in strangers.values()} == {"700001", "C700002"}


def test_what_was_skipped_is_counted_and_listed(plan):
    assert plan.retail["skipped"] == {"bad_debt": 1, "zero_total": 1}
    assert plan.retail["skipped_numbers"] == {"bad_debt": ["A700004"], "zero_total": ["700003"]}


def test_everybody_comes_before_the_file_begins_and_codes_are_given_only_then(history, plan):
    first = {}
    for change in plan.contacts:
        first.setdefault(change.customer_id, change.time_s)
        assert not (change.welcome and change.time_s >= plan.replay_from_s)
    assert len(first) == 300
    assert all(opening_s(history) < time_s <= opening_s(history) + 46 for time_s in first.values())
    assert plan.replay_from_s == replay_from_s(history)
    assert any(c.time_s >= plan.replay_from_s and c.change == "add" for c in plan.contacts)
    assert any(c.time_s >= plan.replay_from_s and c.change == "delete_by_customer" for c in plan.contacts)
    assert all(c.time_s <= history.last_s for c in plan.contacts)


def test_fifty_of_them_come_in_one_second(plan):
    at_poster = {(c.time_s, c.staff_id) for c in plan.contacts if c.state == "poster-entrance"}
    assert len(at_poster) == 1
    assert sum(c.state == "poster-entrance" for c in plan.contacts) == 50


def test_the_plan_can_happen_and_is_the_same_for_the_same_seed(history, plan):
    played(plan.contacts)
    same, other = retail(history), retail(history, seed=2)
    told = Played(plan).to_the_end().truth_bytes()
    assert Played(same).to_the_end().truth_bytes() == told
    assert Played(other).to_the_end().truth_bytes() != told


def test_a_clock_that_is_past_the_opening_day_is_refused(history):
    with pytest.raises(CannotPlay, match="remove the old clock file"):
        retail(history, start_s=replay_from_s(history) - 30)
