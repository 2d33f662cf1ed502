from datetime import date, timedelta
from typing import Any

import pytest
from clickhouse_connect.datatypes.registry import get_from_name
from hypothesis import given
from hypothesis import strategies as st

from services.sink.domain import ACTION_OUTCOME, ORDER_HISTORY, ORDERS, STAFF_DAY, TABLES, TOPICS, days_since_1970
from siyu.events import ActionOutcome, OrderFact, StaffDaySnapshot

PERSONAL = {"request", "response"}


def order(order_id: str, revision: int, **fields: Any) -> OrderFact:
    return OrderFact(
        corp_id="ww1",
        order_id=order_id,
        customer_id="wm1",
        revision=revision,
        staff_id="s1",
        credit_rule="collector",
        paid=True,
        pay_time_ms=1_700_000_000_000,
        gross_fen=100,
        refunded_fen=0,
        refund_ids=[],
        refund_times_ms=[],
        refund_amounts_fen=[],
        payment_type=1,
        event_time_ms=1_700_000_000_000,
        received_at_ms=1_700_000_000_001,
        caused_by="e1",
        **fields,
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_field_of_a_fact_has_its_column_except_the_bodies_of_an_outcome(table: Any) -> None:
    columns = {column.name for column in table.columns}
    fields = {name.removesuffix("_ms") for name in table.fact.__struct_fields__} - PERSONAL
    assert columns == fields


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_type_is_one_that_the_client_can_write(table: Any) -> None:
    assert all(get_from_name(column.type) is not None for column in table.columns)


def test_every_table_is_fed_by_the_topic_of_its_fact() -> None:
    assert {table for tables in TOPICS.values() for table in tables} == set(TABLES)
    assert all(len({table.fact for table in tables}) == 1 for tables in TOPICS.values())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), max_size=30))
def test_the_newest_revision_of_each_order_is_kept(seen: list[tuple[str, int]]) -> None:
    facts = [order(order_id, revision) for order_id, revision in seen]
    kept = {fact.order_id: fact.revision for fact in ORDERS.newest(facts)}  # type: ignore[attr-defined]
    assert kept == {order_id: max(r for o, r in seen if o == order_id) for order_id, _ in seen}
    assert len(ORDERS.newest(facts)) == len(kept)


def test_the_history_keeps_every_revision() -> None:
    facts = [order("a", 1), order("a", 2)]
    assert ORDER_HISTORY.newest(facts) == facts


def test_times_stay_milliseconds_and_money_stays_fen() -> None:
    columns = dict(zip((column.name for column in ORDERS.columns), ORDERS.pivot([order("a", 1)]), strict=True))
    assert columns["pay_time"] == [1_700_000_000_000]
    assert columns["gross_fen"] == [100]


@given(st.dates(date(1970, 1, 1), date(2149, 6, 6)))
def test_a_day_is_counted_from_1970(day: date) -> None:
    assert date(1970, 1, 1) + timedelta(days_since_1970(day.isoformat())) == day


@pytest.mark.parametrize("day", ["", "2026-13-01", "1969-12-31", "2149-06-07", "yesterday"])
def test_a_day_that_clickhouse_cannot_hold_is_an_error(day: str) -> None:
    with pytest.raises(ValueError):
        days_since_1970(day)


def test_rows_of_staff_days_and_outcomes_are_replaced_by_their_keys() -> None:
    assert STAFF_DAY.fact is StaffDaySnapshot
    assert ACTION_OUTCOME.fact is ActionOutcome
    assert not PERSONAL & {column.name for column in ACTION_OUTCOME.columns}
