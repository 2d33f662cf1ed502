"""The sink as a process between the real broker and the real engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer
from service_process import ServiceProcess, eventually

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from siyu.events import (
    STAFF_COUNTERS,
    ActionOutcome,
    Event,
    LedgerEntry,
    LedgerState,
    OrderFact,
    QuotaState,
    RelationshipFact,
    StaffDaySnapshot,
    codec,
    schemas_dir,
)
from siyu.ops import dlq
from siyu.ops.clock import wall_ms
from siyu.warehouse import connect
from siyu.warehouse.migrations import migrate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NOON = 1_790_913_600_000
StartSink = Callable[..., ServiceProcess]


def order(corp_id: str, number: int, revision: int = 1, gross_fen: int = 100) -> OrderFact:
    return OrderFact(
        corp_id=corp_id,
        order_id=f"o{number}",
        customer_id=f"wm{number}",
        revision=revision,
        staff_id=f"s{number % 7}",
        credit_rule="collector",
        paid=True,
        pay_time_ms=NOON,
        gross_fen=gross_fen,
        refunded_fen=40 if revision > 1 else 0,
        refund_ids=["r1"] if revision > 1 else [],
        refund_times_ms=[NOON + 1] if revision > 1 else [],
        refund_amounts_fen=[40] if revision > 1 else [],
        payment_type=1,
        event_time_ms=NOON,
        received_at_ms=wall_ms(),
        caused_by="e" * 32,
    )


def staff_day(corp_id: str, day: str, revision: int) -> StaffDaySnapshot:
    counters = dict.fromkeys(STAFF_COUNTERS, 0) | {"adds": revision}
    return StaffDaySnapshot(
        corp_id=corp_id,
        staff_id="s1",
        day=day,
        revision=revision,
        event_time_ms=NOON,
        received_at_ms=wall_ms(),
        caused_by="e" * 32,
        **counters,
    )


def relationship(corp_id: str) -> RelationshipFact:
    return RelationshipFact(
        corp_id=corp_id,
        staff_id="s1",
        customer_id="wm1",
        revision=3,
        status="deleted_by_customer",
        staff_side=True,
        customer_side=False,
        channel="door",
        first_added_ms=NOON,
        episodes_started_ms=[NOON],
        episodes_ended_ms=[NOON + 5_000],
        episodes_ended_by=["customer"],
        event_time_ms=NOON + 5_000,
        received_at_ms=wall_ms(),
        caused_by="e" * 32,
    )


def outcome(corp_id: str) -> ActionOutcome:
    return ActionOutcome(
        action_id="a1",
        lane="welcome",
        corp_id=corp_id,
        endpoint="externalcontact/send_welcome_msg",
        subject=f"{corp_id}|wm1",
        staff_id="s1",
        customer_id="wm1",
        status="done",
        errcode=0,
        detail="",
        calls=1,
        reason="welcome.default@1",
        caused_by="e" * 32,
        created_ms=NOON,
        deadline_ms=NOON + 20_000,
        trigger_received_at_ms=wall_ms(),
        finished_at_ms=wall_ms(),
        request=b'{"welcome_code":"secret"}',
        response=b"",
        campaign_id="spring",
        parent_id="p1",
        message_id="msg1",
    )


def entry(corp_id: str, state: LedgerState, updated_at_ms: int, memory: bytes = b"") -> LedgerEntry:
    return LedgerEntry(
        action_id="a1",
        parent_id="",
        lane="bulk",
        corp_id=corp_id,
        endpoint="externalcontact/add_msg_template",
        subject=corp_id,
        staff_id="s1",
        customer_id="",
        campaign_id="c1",
        reason="spring@1",
        caused_by="e" * 32,
        state=state,
        status="done" if state == "ended" else "",
        detail="",
        errcode=0,
        calls=1,
        message_id="msg1",
        created_ms=NOON,
        not_before_ms=0,
        deadline_ms=0,
        due_ms=0,
        updated_at_ms=updated_at_ms,
        admitted_at_ms=NOON,
        limits_revision="r1",
        admission=b'{"at_ms":1,"lane":"bulk","levels":[]}',
        memory=memory,
        origin="actions.bulk/0/7",
    )


@pytest.fixture
def corp_id(unique_name: Callable[[str], str]) -> str:
    return unique_name("ww")


@pytest.fixture
def send(kafka: LocalKafka) -> Callable[[str, Iterable[Event | bytes | None]], None]:
    """Appends facts, raw bytes, or a deletion, and waits for the broker."""

    def produce(topic: str, values: Iterable[Event | bytes | None]) -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random", "linger.ms": 20})
        for value in values:
            data = value if value is None or isinstance(value, bytes) else codec().encode(value)
            key = b"garbage" if value is None or isinstance(value, bytes) else value.corp_id.encode()  # type: ignore[attr-defined]
            producer.produce(topic, key=key, value=data)
            producer.poll(0)
        assert producer.flush(30) == 0

    return produce


def count(warehouse: Client, table: str, corp_id: str) -> int:
    return int(
        warehouse.query(
            f"SELECT count() FROM {table} WHERE corp_id = {{corp:String}}", parameters={"corp": corp_id}
        ).result_rows[0][0]
    )


def one(warehouse: Client, table: str, corp_id: str) -> dict[str, Any]:
    (row,) = warehouse.query(
        f"SELECT * FROM {table} WHERE corp_id = {{corp:String}}", parameters={"corp": corp_id}
    ).named_results()
    return dict(row)


def dead_letters(kafka: LocalKafka, value: bytes) -> list[dlq.DeadLetter]:
    return [letter for letter in dlq.read(kafka.bootstrap, "sink") if letter.value == value]


def test_every_fact_arrives_in_its_table_with_its_values(
    start_sink: StartSink, warehouse: Client, send: Any, corp_id: str
) -> None:
    sink = start_sink()
    send("relationship.facts", [relationship(corp_id)])
    send("order.facts", [order(corp_id, 1), order(corp_id, 1, revision=2)])
    send("performance.snapshots", [staff_day(corp_id, "2026-10-02", 1), staff_day(corp_id, "2026-10-02", 2)])
    send("action.outcomes", [outcome(corp_id)])
    for table, rows in {
        "relationship_now": 1,
        "orders_now": 1,
        "order_history_now": 2,
        "staff_day_now": 1,
        "action_outcome_now": 1,
    }.items():
        eventually(lambda t=table, n=rows: count(warehouse, t, corp_id) == n, f"{rows} rows in {table}")
    sink.wait_ready()

    row = one(warehouse, "relationship_now", corp_id)
    assert (row["status"], row["staff_side"], row["customer_side"]) == ("deleted_by_customer", True, False)
    assert [moment.timestamp() * 1000 for moment in row["episodes_started"]] == [NOON]
    assert row["first_added"].timestamp() * 1000 == NOON
    row = one(warehouse, "orders_now", corp_id)
    assert (row["revision"], row["gross_fen"], row["refunded_fen"], row["net_fen"]) == (2, 100, 40, 60)
    assert (row["refund_ids"], row["refund_amounts_fen"]) == (["r1"], [40])
    row = one(warehouse, "staff_day_now", corp_id)
    assert (str(row["day"]), row["revision"], row["adds"]) == ("2026-10-02", 2, 2)
    row = one(warehouse, "action_outcome_now", corp_id)
    assert (row["status"], row["lane"]) == ("done", "welcome")
    assert (row["campaign_id"], row["parent_id"], row["message_id"]) == ("spring", "p1", "msg1")
    assert sink.metric('siyu_sink_rows_total{table="relationship"}') >= 1
    assert 'siyu_sink_freshness_seconds_count{table="orders"}' in sink.get("/metrics")[1]
    assert "wm1" not in sink.log.read_text()
    assert sink.stop() == 0


def test_the_ledger_comes_without_its_memory_its_bodies_and_its_deletions(
    start_sink: StartSink, warehouse: Client, send: Any, corp_id: str
) -> None:
    now = wall_ms()
    sink = start_sink()
    personal = f"{corp_id}-secret".encode()
    send(
        "action.ledger",
        [
            entry(corp_id, "prepared", now, personal),
            entry(corp_id, "body", now, personal),
            entry(corp_id, "ended", now),
            # Of the owner before, whose clock was ahead.
            entry(corp_id, "in_doubt", now + 5_000, personal),
            None,
        ],
    )
    view = b'{"windows":[],"in_flight":2}'
    send("quota.state", [QuotaState(f"corp_api|{corp_id}|e", corp_id, "e", 3, b"\x00\xff", view, now), None])
    eventually(lambda: count(warehouse, "quota_level_now", corp_id) == 1, "the level")
    eventually(lambda: count(warehouse, "action_now", corp_id) == 1, "the action")
    eventually(lambda: sink.metric('siyu_sink_skipped_records_total{topic="action.ledger"}') == 2, "passed over")
    row = one(warehouse, "action_now", corp_id)
    assert (row["state"], row["status"], row["message_id"], row["campaign_id"]) == ("ended", "done", "msg1", "c1")
    assert row["origin"] == "actions.bulk/0/7"
    assert personal.decode() not in str(warehouse.query("SELECT * FROM action").result_rows)
    row = one(warehouse, "quota_level_now", corp_id)
    assert (row["shard"], row["view"]) == (3, view.decode())
    assert sink.metric('siyu_sink_dead_letters_total{topic="action.ledger",stage="decode"}') == 0
    assert sink.stop() == 0


def test_killed_at_any_moment_the_sink_neither_loses_nor_doubles_a_row(
    start_sink: StartSink, warehouse: Client, send: Any, corp_id: str
) -> None:
    settings = {"SIYU_SINK_BATCH_ROWS": "300", "SIYU_LOG_EVENTS": "false"}
    send("order.facts", (order(corp_id, number) for number in range(6_000)))
    for rows in (300, 1_500, 3_000):
        sink = start_sink(**settings)
        # Killed as soon as ClickHouse has more: between an insert and the commit of its offsets as likely as not.
        eventually(lambda n=rows: count(warehouse, "order_history", corp_id) >= n, f"{rows} rows")
        sink.kill()
    send("order.facts", (order(corp_id, number, revision=2) for number in range(0, 6_000, 3)))
    sink = start_sink(**settings)
    eventually(lambda: count(warehouse, "order_history_now", corp_id) == 8_000, "every revision")
    totals = warehouse.query(
        "SELECT count(), sum(gross_fen), sum(refunded_fen), sum(net_fen) FROM orders_now WHERE corp_id = {corp:String}",
        parameters={"corp": corp_id},
    ).result_rows[0]
    assert totals == (6_000, 600_000, 80_000, 520_000)
    assert sink.stop() == 0


def test_an_idle_sink_ends_when_another_of_its_name_takes_over(
    start_sink: StartSink, warehouse: Client, send: Any, corp_id: str
) -> None:
    """It has no batch to commit, so a fetch must tell it; one that stays and reads nothing would be a silent loss."""
    first = start_sink()
    send("order.facts", [order(corp_id, 1)])
    eventually(lambda: count(warehouse, "orders", corp_id) == 1, "the first sink works")
    second = start_sink()
    assert first.wait_exit() == 75
    send("order.facts", [order(corp_id, 2)])
    eventually(lambda: count(warehouse, "orders", corp_id) == 2, "the second sink works")
    assert second.stop() == 0


def test_what_cannot_be_read_or_packed_becomes_a_dead_letter_and_the_rest_goes_on(
    kafka: LocalKafka, start_sink: StartSink, warehouse: Client, send: Any, corp_id: str
) -> None:
    garbage = b"\x00\x00\x00\x00\x63" + corp_id.encode()
    negative = order(corp_id, 51, revision=-1)
    no_day = staff_day(corp_id, "2026-02-30", 1)
    send("order.facts", [*(order(corp_id, n) for n in range(100)), garbage, negative])
    send("performance.snapshots", [staff_day(corp_id, "2026-03-01", 1), no_day])
    sink = start_sink()
    eventually(lambda: count(warehouse, "orders_now", corp_id) == 100, "the good orders")
    eventually(lambda: count(warehouse, "staff_day_now", corp_id) == 1, "the good day")
    for value, topic, stage in (
        (garbage, "order.facts", "decode"),
        (codec().encode(negative), "order.facts", "insert"),
        (codec().encode(no_day), "performance.snapshots", "insert"),
    ):
        eventually(lambda v=value: len(dead_letters(kafka, v)) == 1, f"dead letter of {topic}")
        (letter,) = dead_letters(kafka, value)
        assert letter.headers["origin.topic"] == topic
        assert letter.headers["error.stage"] == stage
    assert corp_id + "|" not in sink.log.read_text()
    assert sink.stop() == 0


def test_a_row_that_clickhouse_refuses_becomes_a_dead_letter_and_the_revision_before_it_counts(
    kafka: LocalKafka, start_sink: StartSink, warehouse: Client, send: Any, corp_id: str
) -> None:
    warehouse.command("ALTER TABLE orders ADD CONSTRAINT sane CHECK gross_fen < 1000000")
    absurd = order(corp_id, 50, revision=2, gross_fen=9_999_999)
    send("order.facts", [*(order(corp_id, n) for n in range(100)), absurd])
    sink = start_sink()
    eventually(lambda: len(dead_letters(kafka, codec().encode(absurd))) == 1, "the dead letter")
    (letter,) = dead_letters(kafka, codec().encode(absurd))
    assert letter.headers["error.stage"] == "insert"
    eventually(lambda: count(warehouse, "orders_now", corp_id) == 100, "the good orders")
    gross = warehouse.query(
        "SELECT gross_fen FROM orders_now WHERE order_id = 'o50' AND corp_id = {corp:String}",
        parameters={"corp": corp_id},
    ).result_rows
    assert gross == [(100,)]
    assert sink.stop() == 0


def test_too_many_dead_letters_stop_the_sink_instead_of_emptying_the_topic_into_them(
    kafka: LocalKafka, start_sink: StartSink, warehouse: Client, send: Any, corp_id: str
) -> None:
    garbage = [f"{corp_id} {number}".encode() for number in range(30)]
    send("order.facts", [order(corp_id, number) for number in range(30)])
    send("order.facts", garbage)
    assert start_sink(SIYU_SINK_DEAD_LETTER_LIMIT="10").wait_exit() == 78
    assert not [letter for letter in dlq.read(kafka.bootstrap, "sink") if letter.value in garbage]
    # A release that can read them, or an operator who knows that they are worthless, goes on from the same offset.
    start_sink(SIYU_SINK_DEAD_LETTER_LIMIT="100")
    eventually(lambda: count(warehouse, "orders_now", corp_id) == 30, "the good orders")
    eventually(lambda: len([x for x in dlq.read(kafka.bootstrap, "sink") if x.value in garbage]) == 30, "the rest")


def test_while_clickhouse_is_away_the_sink_waits_unready_and_skips_nothing(
    start_sink: StartSink, send: Any, corp_id: str, tmp_path: Any, topics: None
) -> None:
    (port,) = free_ports(1)
    server = LocalClickHouse(tmp_path / "clickhouse", port)
    sink = start_sink(SIYU_CLICKHOUSE_URL=server.url, SIYU_CLICKHOUSE_DATABASE="siyu", SIYU_LOG_EVENTS="false")
    eventually(lambda: "no_answer" in sink.get("/readyz")[1], "unready: no ClickHouse yet")
    assert sink.get("/livez")[0] == 200
    send("order.facts", [order(corp_id, number) for number in range(100)])
    eventually(lambda: sink.metric("siyu_sink_waiting") == 1, "a batch waits")
    with server:
        # The engine answers before its tables exist: that is no fault of the rows either.
        eventually(lambda: "clickhouse_" in sink.get("/readyz")[1], "unready: no table yet")
        warehouse = connect(server.url)
        migrate(warehouse, schemas_dir() / "clickhouse")
        eventually(lambda: count(warehouse, "orders_now", corp_id) == 100, "rows written after the migration")
        sink.wait_ready()
        server.kill()
        send("order.facts", [order(corp_id, number) for number in range(100, 200)])
        eventually(lambda: sink.get("/readyz")[0] == 503, "unready: ClickHouse is gone")
        assert sink.get("/livez")[0] == 200
        server.start()
        server.wait_ready()
        eventually(lambda: count(connect(server.url), "orders_now", corp_id) == 200, "rows written after the return")
        sink.wait_ready()
        assert sink.stop() == 0


def test_asked_to_stop_while_clickhouse_is_away_it_stops_and_the_next_one_goes_on(
    start_sink: StartSink, warehouse: Client, send: Any, corp_id: str
) -> None:
    (nobody,) = free_ports(1)
    send("order.facts", [order(corp_id, number) for number in range(10)])
    sink = start_sink(SIYU_CLICKHOUSE_URL=f"http://127.0.0.1:{nobody}")
    eventually(lambda: sink.metric("siyu_sink_waiting") == 1, "a batch waits")
    assert sink.stop() == 0
    start_sink()
    eventually(lambda: count(warehouse, "orders_now", corp_id) == 10, "the batch of the one before")
