"""Sync as a process on the real broker, with an executor of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import Consumer, TopicPartition
from executor import Bills, Executor, collection, outcome, refund
from service_process import ServiceProcess, eventually

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from siyu.events import Action, PaymentEvent, codec, schemas_dir
from siyu.events.ids import payment_event_id
from siyu.ops import dlq
from siyu.ops.clock import wall_ms, write_segments
from siyu.ops.topics import Cluster, load_topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

StartSync = Callable[..., ServiceProcess]
StartExecutor = Callable[..., Executor]
DAY_S = 86_400


def payments(kafka: LocalKafka, corp_id: str) -> list[tuple[str, PaymentEvent]]:
    """Key and event of every payment event of a corp, repeats included."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader", "enable.auto.commit": False})
    found = []
    for partition in consumer.list_topics("payment.events").topics["payment.events"].partitions:
        position = TopicPartition("payment.events", partition)
        _, end = consumer.get_watermark_offsets(position)
        consumer.assign([TopicPartition("payment.events", partition, 0)])
        read = 0
        while read < end:
            message = consumer.poll(5)
            assert message is not None
            assert message.error() is None
            read = (message.offset() or 0) + 1
            event = codec().decode_as(PaymentEvent, message.value())
            if event.corp_id == corp_id:
                found.append(((message.key() or b"").decode(), event))
    consumer.close()
    return found


def read_through(sync: ServiceProcess, corp_id: str) -> float:
    return sync.metric(f'siyu_sync_bills_read_through_ms{{corp_id="{corp_id}"}}')


def now_s() -> int:
    return wall_ms() // 1000


def since(seconds: int) -> dict[str, str]:
    return {"SIYU_SYNC_BILLS_SINCE": str(wall_ms() - seconds * 1000)}


def test_every_bill_of_every_page_becomes_its_event_and_new_ones_follow(
    kafka: LocalKafka, start_sync: StartSync, start_executor: StartExecutor, corp_id: str
) -> None:
    bills = Bills()
    bills.rows = [collection(f"o{n}", now_s() - DAY_S + n, fen=n + 1) for n in range(10)]
    bills.rows.append(refund("o3", "r1", now_s() - DAY_S + 100, 4))
    bills.rows.append(collection("o11", now_s() - DAY_S + 200, external_userid=""))
    start_executor({corp_id: bills.answer})
    sync = start_sync([corp_id], **since(2 * DAY_S))
    latest = bills.rows[-1]["pay_time"] * 1000
    eventually(lambda: read_through(sync, corp_id) >= latest, "the first window")
    sync.wait_ready()
    found = payments(kafka, corp_id)
    assert len(found) == 12
    by_id = {event.event_id: (key, event) for key, event in found}
    key, event = by_id[payment_event_id(corp_id, "refunded", "o3", "r1")]
    assert (key, event.amount_fen, event.staff_id) == (f"{corp_id}|wm-o3", 4, "s1")
    key, event = by_id[payment_event_id(corp_id, "paid", "o11", "")]
    assert (key, event.customer_id) == (f"{corp_id}|~o11", "")

    late = collection("late", now_s() - 20)
    fresh = collection("fresh", now_s())
    bills.rows += [late, fresh]
    eventually(lambda: read_through(sync, corp_id) >= fresh["pay_time"] * 1000, "the next windows")
    eventually(lambda: len(payments(kafka, corp_id)) == 14, "both, though one was listed late; nothing sent twice")
    assert "wm-o3" not in sync.log.read_text()
    assert sync.stop() == 0


def test_a_year_of_business_time_in_seconds_is_read_window_by_window(
    kafka: LocalKafka, start_sync: StartSync, start_executor: StartExecutor, corp_id: str, tmp_path: Path
) -> None:
    begin_ms = 1_291_046_400_000
    clock = tmp_path / "clock.json"
    wall = wall_ms()
    write_segments(
        clock,
        [
            {"wall_ms": wall, "business_ms": begin_ms, "rate": 1},
            {"wall_ms": wall + 4_000, "business_ms": begin_ms + 4_000, "rate": 365 * DAY_S / 8},
            {"wall_ms": wall + 12_000, "business_ms": begin_ms + 4_000 + 365 * DAY_S * 1000, "rate": 1},
        ],
    )
    bills = Bills(page=40)
    bills.rows = [collection(f"o{n}", begin_ms // 1000 + 10 + n * (DAY_S - 7)) for n in range(365)]
    start_executor({corp_id: bills.answer})
    sync = start_sync([corp_id], SIYU_CLOCK_FILE=str(clock), SIYU_SYNC_BILLS_SINCE=str(begin_ms))
    eventually(lambda: read_through(sync, corp_id) >= bills.rows[-1]["pay_time"] * 1000, "the last bill of the year")
    orders = {event.order_id for _, event in payments(kafka, corp_id)}
    assert orders == {f"o{n}" for n in range(365)}
    assert len(bills.spans) >= 13
    assert sync.stop() == 0


def test_killed_again_and_again_it_misses_no_bill(
    kafka: LocalKafka, start_sync: StartSync, start_executor: StartExecutor, corp_id: str
) -> None:
    bills = Bills(page=2)
    executor = start_executor({corp_id: bills.answer})
    orders: set[str] = set()

    def pay(name: str) -> None:
        for n in range(12):
            bills.rows.append(collection(f"{name}{n}", now_s() - n))
            orders.add(f"{name}{n}")

    settings = since(3600)
    for name in "abcd":
        pay(name)
        sync = start_sync([corp_id], **settings)
        pages = len(executor.asked)
        # In the middle of a window, once with its first page and once with its last.
        wanted = pages + (2 if name in "ac" else 7)
        eventually(lambda n=wanted: len(executor.asked) >= n, "some pages")
        sync.kill()
    pay("e")
    sync = start_sync([corp_id], **settings)
    latest = max(row["pay_time"] for row in bills.rows) * 1000
    eventually(lambda: read_through(sync, corp_id) >= latest, "everything")
    assert {event.order_id for _, event in payments(kafka, corp_id)} == orders
    through = read_through(sync, corp_id)
    assert sync.stop() == 0

    # What was read through is remembered: the next start begins there, less the overlap.
    bills.spans.clear()
    sync = start_sync([corp_id], **settings)
    eventually(lambda: read_through(sync, corp_id) > through, "the next window")
    assert bills.spans[0][0] * 1000 >= through - 600_000 - 1_000


def test_lost_and_failed_answers_are_asked_for_again_and_the_watermark_waits(
    kafka: LocalKafka, start_sync: StartSync, start_executor: StartExecutor, corp_id: str
) -> None:
    bills = Bills(page=2)
    bills.rows = [collection(f"o{n}", now_s() - 600 + n) for n in range(7)]
    executor = start_executor({corp_id: bills.answer})
    troubles: list[Callable[[Action], Any]] = [
        lambda action: outcome(action, b"", status="expired"),
        lambda action: False,
        lambda action: outcome(action, b"", status="failed", errcode=48002),
        lambda action: outcome(action, b"", status="rejected", errcode=50100),
        lambda action: outcome(action, {"errcode": 60268, "errmsg": "invalid cursor"}),
        lambda action: outcome(action, b"<html>busy</html>"),
    ]
    watermarks: list[float] = []

    def interfere(action: Action) -> Any:
        if troubles and b"cursor" in action.payload:
            watermarks.append(read_through(sync, corp_id))
            return troubles.pop(0)(action)
        return True

    executor.interfere = interfere
    sync = start_sync([corp_id], **since(3600), SIYU_SYNC_ASKS="2", SIYU_SYNC_ASK_AGAIN_SECONDS="0.5")
    eventually(lambda: read_through(sync, corp_id) >= bills.rows[-1]["pay_time"] * 1000, "the whole window at last")
    assert not troubles
    assert all(mark < bills.rows[0]["pay_time"] * 1000 for mark in watermarks)
    assert {event.order_id for _, event in payments(kafka, corp_id)} == {f"o{n}" for n in range(7)}
    html = [x for x in dlq.read(kafka.bootstrap, "sync") if x.key == corp_id.encode()]
    assert [(x.headers["origin.topic"], x.headers["error.stage"]) for x in html] == [("action.outcomes", "page")]
    assert sync.stop() == 0


def test_a_row_that_is_no_event_is_kept_once_and_the_others_are_read(
    kafka: LocalKafka, start_sync: StartSync, start_executor: StartExecutor, corp_id: str
) -> None:
    bills = Bills()
    bills.rows = [collection(f"o{n}", now_s() - 60) for n in range(2)]
    bills.rows.append(collection("strange", now_s() - 60, bill_type=9))
    start_executor({corp_id: bills.answer})
    sync = start_sync([corp_id], **since(3600))
    eventually(lambda: len(bills.spans) > 4, "the same rows listed again and again")
    assert {event.order_id for _, event in payments(kafka, corp_id)} == {"o0", "o1"}
    (letter,) = [x for x in dlq.read(kafka.bootstrap, "sync") if x.key == corp_id.encode()]
    assert letter.headers["error.stage"] == "row"
    assert letter.headers["reasons"] == "unknown_bill_type:bill_type"
    assert letter.headers["rows"] == "1"
    assert sync.metric(f'siyu_sync_problems_total{{corp_id="{corp_id}",reason="unknown_bill_type"}}') == 1
    assert sync.stop() == 0


def test_two_instances_share_the_corps_and_one_takes_over_from_the_other(
    kafka: LocalKafka, start_sync: StartSync, start_executor: StartExecutor, unique_name: Callable[[str], str]
) -> None:
    # One corp a partition, so that whoever has a partition has a corp to read for.
    by_partition: dict[int, str] = {}
    while len(by_partition) < 4:
        corp_id = unique_name("ww")
        by_partition[DefaultPartitioner()(corp_id.encode(), range(4), range(4))] = corp_id
    lists = {corp_id: Bills() for corp_id in by_partition.values()}
    for bills in lists.values():
        bills.rows = [collection("o1", now_s() - 60)]
    start_executor({corp_id: bills.answer for corp_id, bills in lists.items()})
    one = start_sync(list(lists), **since(3600))
    eventually(lambda: all(read_through(one, corp) > 0 for corp in lists), "one reads for all")
    two = start_sync(list(lists), **since(3600), SIYU_INSTANCE="1")
    two.wait_ready()
    eventually(lambda: any(read_through(two, corp) > 0 for corp in lists), "two has taken some over")
    assert one.stop() == 0
    for bills in lists.values():
        bills.rows.append(collection("o2", now_s()))
    eventually(
        lambda: all({e.order_id for _, e in payments(kafka, corp)} == {"o1", "o2"} for corp in lists), "two reads all"
    )
    assert two.stop() == 0


def test_without_kafka_it_waits_unready_and_stops_when_asked(
    start_sync: StartSync, tmp_path: Path, start_executor: StartExecutor, corp_id: str
) -> None:
    (port,) = free_ports(1)
    broker = LocalKafka(tmp_path / "kafka", port)
    sync = start_sync([corp_id], SIYU_KAFKA_BOOTSTRAP=broker.bootstrap)
    eventually(lambda: "no broker" in sync.get("/readyz")[1], "unready")
    assert sync.get("/livez")[0] == 200
    assert sync.stop() == 0
    sync = start_sync([corp_id], SIYU_KAFKA_BOOTSTRAP=broker.bootstrap)
    with broker:
        eventually(lambda: "no topic" in sync.get("/readyz")[1], "unready: a broker without topics")
        wanted = load_topics(schemas_dir() / "topics.yaml", "local")
        cluster = Cluster(broker.bootstrap)
        cluster.apply(cluster.difference(wanted), wanted)
        sync.wait_ready()
        assert sync.stop() == 0


def test_the_log_says_what_was_read_and_nothing_personal(
    start_sync: StartSync, start_executor: StartExecutor, corp_id: str
) -> None:
    bills = Bills()
    bills.rows = [collection("o1", now_s() - 60, remark="call me", contact_info={"phone": "13800000001"})]
    start_executor({corp_id: bills.answer})
    sync = start_sync([corp_id], **since(3600))
    eventually(lambda: read_through(sync, corp_id) >= bills.rows[0]["pay_time"] * 1000, "the bill")
    assert sync.stop() == 0
    lines = [json.loads(line) for line in sync.log.read_text().splitlines()]
    (line,) = [line for line in lines if line["event"] == "payment"]
    assert line["event_id"] == payment_event_id(corp_id, "paid", "o1", "")
    assert not [line for line in lines if "undeclared" in line]
    for secret in ("call me", "13800000001", "wm-o1", "not-used-here"):
        assert secret not in sync.log.read_text()
