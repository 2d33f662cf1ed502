"""A partition whose record waits in the client behind another partition's is not silent."""

import time
from pathlib import Path
from typing import Any

import lone_partition
import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from lone_partition import processor
from prometheus_client import CollectorRegistry

from siyu.stream import Context, Record, Runtime, StreamSettings, Timer, clients
from siyu.stream.partition import wall_ms

IDLE_MS = 400
BUSY_RECORDS = 40_000


class Kept(msgspec.Struct, frozen=True):
    n: int


class Unhurried(Runtime[Any]):
    """Its batches take a while and have no transaction: librdkafka's own stand-in for a broker knows none."""

    def _transact(self, work: dict[int, int]) -> None:
        for number, count in work.items():
            one = self._partitions[number]
            one.process(count, None, 0 if count else self._tick_ms(one))
            one.changelog_records()
            one._changed.clear()
        time.sleep(0.08)


@pytest.mark.timeout(60)
def test_the_clock_waits_for_a_record_behind_another_partitions(tmp_path: Path) -> None:
    order: list[Any] = []

    def step(key: str, record: Record, state: Kept | None, ctx: Context) -> Kept:
        if record.partition == 1:
            order.append(record.value)
            if record.value == "first":
                ctx.set_timer("t", wall_ms() + 500)
            else:
                ctx.cancel_timer("t")
        return Kept(1)

    def on_timer(key: str, timer: Timer, state: Kept, ctx: Context) -> Kept:
        order.append("timer")
        return state

    lone = processor(Kept, step, on_timer=on_timer)
    broker = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": 0})
    (node,) = broker.list_topics(timeout=5).brokers.values()
    settings = StreamSettings(
        bootstrap=f"{node.host}:{node.port}",
        state_dir=tmp_path,
        idle_ms=IDLE_MS,
        batch_records=1_000,
        kafka={"log_level": "0"},
    )
    producer = Producer({"bootstrap.servers": settings.bootstrap, "log_level": 0})
    producer.list_topics("in", timeout=5)
    # The client's queue of a member with larger batches, worked off in smaller ones.
    consumer = Consumer({**clients.consumer(lone, settings), "queued.min.messages": 20_000})
    runtime = Unhurried(lone, settings, registry=CollectorRegistry())
    runtime._consumer, runtime._connected, runtime._housekeeping_due = consumer, True, float("inf")
    for number in (0, 1):
        one = lone_partition.partition(tmp_path / f"p{number}", lone, idle_ms=IDLE_MS)
        one.number, one.positions["in"] = number, 0
        runtime._partitions[number] = one
    producer.produce("in", b'"first"', b"k", partition=1)
    producer.flush(5)
    for _ in range(BUSY_RECORDS):
        producer.produce("in", b"0", b"busy", partition=0)
    producer.flush(20)
    consumer.assign([TopicPartition("in", number, 0) for number in (0, 1)])
    deadline, sent = time.monotonic() + 30, False
    while "second" not in order and time.monotonic() < deadline:
        runtime._turn()
        if not sent and order and runtime._partitions[1].ends.get("in", -1) >= 1:
            producer.produce("in", b'"second"', b"k", partition=1)
            producer.flush(5)
            sent = True
    consumer.close()
    assert order == ["first", "second"]
