from datetime import date, timedelta
from typing import Any, get_args

import msgspec
import pytest
from clickhouse_connect.datatypes.registry import get_from_name
from hypothesis import given
from hypothesis import strategies as st

from services.sink.domain import (
    ACTION,
    ACTION_OUTCOME,
    COMPACTED,
    ORDER_HISTORY,
    ORDERS,
    QUOTA_LEVEL,
    STAFF_DAY,
    TABLES,
    TOPICS,
    days_since_1970,
    ledger_revision,
)
from siyu.events import (
    ActionOutcome,
    LedgerEntry,
    LedgerState,
    OrderFact,
    QuotaState,
    StaffDaySnapshot,
    schemas_dir,
)
from siyu.ops.topics import load_topics

PERSONAL = {"request", "response", "memory"}
NOT_A_COLUMN = {"quota_level": {"state"}}
"""Only the next owner of the level can read it."""
COMPUTED = {"action": {"revision"}}


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
def test_every_field_of_a_fact_has_its_column_except_what_is_personal(table: Any) -> None:
    columns = {column.name for column in table.columns}
    fields = {name.removesuffix("_ms") for name in table.fact.__struct_fields__} - PERSONAL
    assert columns - COMPUTED.get(table.name, set()) == fields - NOT_A_COLUMN.get(table.name, set())


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


def entry(state: LedgerState, updated_at_ms: int = 1_700_000_000_000, action_id: str = "a1") -> LedgerEntry:
    return LedgerEntry(
        action_id=action_id,
        parent_id="",
        lane="bulk",
        corp_id="ww1",
        endpoint="externalcontact/add_msg_template",
        subject="ww1",
        staff_id="s1",
        customer_id="",
        campaign_id="c1",
        reason="r@1",
        caused_by="e1",
        state=state,
        status="done" if state == "ended" else "",
        detail="",
        errcode=0,
        calls=0,
        message_id="",
        created_ms=1,
        not_before_ms=0,
        deadline_ms=0,
        due_ms=0,
        updated_at_ms=updated_at_ms,
        admitted_at_ms=0,
        limits_revision="",
        admission=b'{"levels":[]}',
        memory=b"personal",
    )


def test_the_later_of_two_states_of_one_millisecond_stands() -> None:
    states = [state for state in get_args(LedgerState) if state != "body"]
    revisions = [ledger_revision(entry(state)) for state in states]
    assert revisions == sorted(set(revisions))
    assert [fact.state for fact in ACTION.newest([entry("ended"), entry("prepared")])] == ["ended"]  # type: ignore[attr-defined]


@given(st.integers(0, 4_102_444_800_000), st.integers(0, 4_102_444_800_000))
def test_an_action_that_has_ended_stays_so_whatever_the_clock_of_its_last_owner(before: int, end: int) -> None:
    assert ledger_revision(entry("ended", end)) > ledger_revision(entry("in_doubt", before))


@given(st.integers(0, 4_102_444_800_000), st.integers(1, 1_000_000))
def test_a_later_state_replaces_an_earlier_one(before: int, later: int) -> None:
    assert ledger_revision(entry("waiting", before + later)) > ledger_revision(entry("accepted", before))


def test_the_unchanging_part_of_an_action_is_no_row() -> None:
    assert not ACTION.is_row(entry("body"))
    assert not ACTION.is_row(msgspec.structs.replace(entry("ended"), status=""))
    assert ACTION.is_row(entry("ended"))
    assert ACTION.is_row(entry("waiting"))


def test_an_admission_that_is_no_text_is_refused_and_not_mended() -> None:
    broken = QuotaState("l", "ww1", "e", 0, b"", b"\xff", 1)
    with pytest.raises(UnicodeDecodeError):
        QUOTA_LEVEL.pivot([broken])


def test_only_compacted_topics_may_forget_a_key() -> None:
    declared = load_topics(schemas_dir() / "topics.yaml", "local")
    compacted = {name for name, topic in declared.items() if "compact" in topic.config["cleanup.policy"]}
    assert compacted & set(TOPICS) == COMPACTED
