"""Contact and payment events, shuffled and repeated, through both services on the real broker, each killed once:
the figures are what the generator knows to have happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from siyu.events import (
    STAFF_COUNTERS,
    ContactEvent,
    OrderFact,
    PaymentEvent,
    RelationshipFact,
    StaffDaySnapshot,
    StaffDelta,
    codec,
    schemas_dir,
)
from siyu.events.ids import contact_event_id, customer_key, payment_event_id, unknown_customer_key
from siyu.ops.topics import Cluster, load_topics

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

CORP = "ww1"
NEW_YEAR = 1_767_196_800_000
"""2026-01-01 00:00 in Shanghai."""
DAY = 86_400_000
OUTPUTS = ("relationship.facts", "order.facts", "staff.deltas", "performance.snapshots")


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker of this module's own: the services' topics have fixed names, and other tests run services too."""
    (port,) = free_ports(1)
    broker = LocalKafka(tmp_path_factory.mktemp("kafka"), port)
    broker.start()
    try:
        broker.wait_ready()
        cluster = Cluster(broker.bootstrap)
        topics = load_topics(schemas_dir() / "topics.yaml", "local")
        cluster.apply(cluster.difference(topics), topics)
        yield broker
    finally:
        broker.stop()


class Service:
    """One service process, started by its module name."""

    def __init__(self, name: str, bootstrap: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SIYU_")},
            "SIYU_KAFKA_BOOTSTRAP": bootstrap,
            "SIYU_STATE_DIR": str(folder / "state"),
            "SIYU_METRICS_PORT": "0",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_file(self) -> Path:
        return self._folder / f"{self.name}.log"

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"services.{self.name}"],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def end(self, number: int, timeout: float = 40) -> int:
        """Sends the signal and gives the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout)

    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def get(self, path: str) -> str:
        port = [line["port"] for line in self.lines() if line["event"] == "service_started"][-1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()

    def kill_if_running(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Reader:
    """Everything committed to some topics, read again and again."""

    def __init__(self, bootstrap: str, *topics: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        partitions = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign([TopicPartition(t, p, 0) for t in topics for p in partitions[t].partitions])
        self._at_end: set[tuple[str, int]] = set()
        self._partitions = len(self._consumer.assignment())
        self.messages: list[Any] = []
        self._events: list[Any] = []

    def read(self) -> None:
        for message in self._consumer.consume(5_000, 0.2):
            if message.error() is None:
                self.messages.append(message)
                self._at_end.discard((message.topic(), message.partition()))
                if not message.topic().startswith("dlq."):
                    self._events.append(codec().decode(message.value()))

            elif message.error().code() == KafkaError._PARTITION_EOF:
                self._at_end.add((message.topic(), message.partition()))

    def ended(self) -> bool:
        """All that was there when reading began has been read."""
        return len(self._at_end) == self._partitions

    def events(self, event_type: type) -> list[Any]:
        return [event for event in self._events if isinstance(event, event_type)]

    def until(self, done: Callable[[], bool], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not reached; {len(self.messages)} records read"
            self.read()

    def close(self) -> None:
        self._consumer.close()


@dataclass
class Year:
    """What happened, and what it comes to: counted where it is made up, by no rule of the services."""

    events: list[tuple[str, str, ContactEvent | PaymentEvent]] = field(default_factory=list)
    """(topic, key, event)"""
    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    status: dict[tuple[str, str], str] = field(default_factory=dict)
    credit: dict[str, tuple[str, str, int, int]] = field(default_factory=dict)
    """Order → (staff id, rule, gross, refunded)."""

    def count(self, staff_id: str, time_ms: int, counter: str, amount: int = 1) -> None:
        self.cells[staff_id, f"2026-01-{1 + (time_ms - NEW_YEAR) // DAY:02}", counter] += amount

    def contact(self, change: str, staff_id: str, customer_id: str, time_ms: int) -> None:
        event = ContactEvent(
            event_id=contact_event_id(CORP, change, staff_id, customer_id, time_ms, "door", ""),
            corp_id=CORP,
            change=change,
            staff_id=staff_id,
            customer_id=customer_id,
            event_time_ms=time_ms,
            received_at_ms=time_ms,
            state="door",
            welcome_code="",
            fail_reason="",
        )
        self.events.append(("contact.events", customer_key(CORP, customer_id), event))

    def payment(
        self, change: str, customer_id: str, order_id: str, refund_id: str, staff_id: str, amount: int, time_ms: int
    ) -> None:
        event = PaymentEvent(
            event_id=payment_event_id(CORP, change, order_id, refund_id),
            corp_id=CORP,
            change=change,
            customer_id=customer_id,
            order_id=order_id,
            refund_id=refund_id,
            staff_id=staff_id,
            amount_fen=amount,
            event_time_ms=time_ms,
            received_at_ms=time_ms,
            source="externalpay",
            payment_type=1,
            personal=b"",
        )
        key = customer_key(CORP, customer_id) if customer_id else unknown_customer_key(CORP, order_id)
        self.events.append(("payment.events", key, event))


def make_up(seed: int, customers: int, staff: int) -> Year:
    """Customers who join one staff member after another, leave, come back and buy."""
    rng, year = random.Random(seed), Year()

    def buy(customer_id: str, owner: str, time_ms: int) -> None:
        order_id = f"order-{len(year.credit):06}"
        collected = rng.random() < 0.6
        staff_id = f"staff-{rng.randrange(staff):03}" if collected else owner
        gross, refunded = rng.randrange(100, 90_000), 0
        year.payment("paid", customer_id, order_id, "", staff_id if collected else "", gross, time_ms)
        year.count(staff_id, time_ms, "orders")
        year.count(staff_id, time_ms, "gross_fen", gross)
        if not customer_id:
            year.count(staff_id, time_ms, "unknown_customer_orders")
            year.count(staff_id, time_ms, "unknown_customer_gross_fen", gross)
        for n in range(rng.choice([0, 0, 0, 1, 2])):
            back, at = rng.randrange(1, gross), time_ms + rng.randrange(3 * DAY)
            year.payment("refunded", customer_id, order_id, f"{order_id}-r{n}", "staff-back-office", back, at)
            year.count(staff_id, at, "refunds")
            year.count(staff_id, at, "refunded_fen", back)
            refunded += back
        rule = "collector" if collected else "owner" if owner else "none"
        year.credit[order_id] = (staff_id, rule, gross, refunded)

    for c in range(customers):
        customer_id, clock, owner = f"customer-{c:06}", NEW_YEAR + rng.randrange(DAY), ""
        for staff_number in rng.sample(range(staff), rng.randrange(1, 4)):
            staff_id = f"staff-{staff_number:03}"
            for _ in range(rng.randrange(1, 3)):
                buy(customer_id, owner, clock) if rng.random() < 0.5 else None
                clock += rng.randrange(2_000, DAY // 2)
                year.contact("add", staff_id, customer_id, clock)
                year.count(staff_id, clock, "adds")
                clock += rng.randrange(2_000, DAY // 2)
                buy(customer_id, staff_id, clock)
                clock += rng.randrange(2_000, DAY // 2)
                side = rng.choice(["customer", "staff", "transfer"])
                year.contact(f"delete_by_{side}", staff_id, customer_id, clock)
                year.count(staff_id, clock, f"lost_by_{side}")
                year.status[staff_id, customer_id] = {
                    "customer": "deleted_by_customer",
                    "staff": "deleted_by_staff",
                    "transfer": "transferred",
                }[side]
                clock += 2_000
        if rng.random() < 0.5:
            year.contact("add", staff_id, customer_id, clock)
            year.count(staff_id, clock, "adds")
            year.status[staff_id, customer_id] = "friend"
            buy(customer_id, staff_id, clock + 1)
    for _ in range(customers // 5):
        buy("", "", NEW_YEAR + rng.randrange(9 * DAY))
    return year


def send(bootstrap: str, records: list[tuple[str, str, bytes]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "acks": "all"})
    for topic, key, value in records:
        producer.produce(topic, value, key.encode())
        producer.poll(0)
    assert producer.flush(30) == 0


def test_figures_are_exact_whatever_the_order_and_whoever_dies(own_kafka: LocalKafka, tmp_path: Path) -> None:
    year = make_up(seed=7, customers=150, staff=12)
    rng = random.Random(7)
    deliveries = [*year.events, *rng.sample(year.events, len(year.events) // 5)]
    rng.shuffle(deliveries)
    records = [(topic, key, codec().encode(event)) for topic, key, event in deliveries]
    third = len(records) // 3
    cells = {cell: amount for cell, amount in year.cells.items() if amount}

    journey = Service("journey", own_kafka.bootstrap, tmp_path)
    performance = Service("performance", own_kafka.bootstrap, tmp_path)
    figures = Reader(own_kafka.bootstrap, *OUTPUTS)
    dead = Reader(own_kafka.bootstrap, "dlq.journey", "dlq.performance")

    def last_snapshots(figures: Reader) -> dict[tuple[str, str, str], int]:
        newest: dict[tuple[str, str], StaffDaySnapshot] = {}
        for snapshot in figures.events(StaffDaySnapshot):
            before = newest.get((snapshot.staff_id, snapshot.day))
            if before is None or before.revision < snapshot.revision:
                newest[snapshot.staff_id, snapshot.day] = snapshot
        return {
            (staff_id, day, name): amount
            for (staff_id, day), snapshot in newest.items()
            for name in STAFF_COUNTERS
            if (amount := getattr(snapshot, name))
        }

    try:
        journey.start()
        performance.start()
        send(own_kafka.bootstrap, records[:third])
        figures.until(lambda: bool(figures.events(StaffDaySnapshot)))
        poison = [
            ("contact.events", "ww1|somebody", b"not avro"),
            ("payment.events", "ww1|somebody", records[0][2]),  # a good event under a foreign key
        ]
        send(own_kafka.bootstrap, [*records[third : 2 * third], *poison])
        assert journey.end(signal.SIGKILL) == -signal.SIGKILL  # with work in its hands
        journey.start()
        snapshots = len(figures.events(StaffDaySnapshot))
        figures.until(lambda: len(figures.events(StaffDaySnapshot)) > snapshots)
        send(own_kafka.bootstrap, records[2 * third :])
        assert performance.end(signal.SIGKILL) == -signal.SIGKILL
        performance.start()

        figures.until(lambda: last_snapshots(figures) == cells)
        dead.until(lambda: len(dead.messages) >= len(poison))
        for service in (journey, performance):
            assert service.get("/readyz") == service.get("/livez") == "ok\n"
        assert 'siyu_journey_events_total{change="add",result="duplicate"}' in journey.get("/metrics")
        assert [journey.end(signal.SIGTERM), performance.end(signal.SIGTERM)] == [0, 0]

        # Nothing came after the figures were right, and everything on the way adds up too.
        figures.close()
        figures = Reader(own_kafka.bootstrap, *OUTPUTS)
        figures.until(figures.ended)
        assert last_snapshots(figures) == cells
        sums: Counter[tuple[str, str, str]] = Counter()
        for delta in figures.events(StaffDelta):
            for name, amount in delta.counters.items():
                sums[delta.staff_id, delta.day, name] += amount
        assert {cell: amount for cell, amount in sums.items() if amount} == cells
        relationships = {(f.staff_id, f.customer_id): f.status for f in figures.events(RelationshipFact)}
        assert relationships == year.status
        orders = {f.order_id: f for f in figures.events(OrderFact)}
        assert {
            order_id: (f.staff_id, f.credit_rule, f.gross_fen, f.refunded_fen) for order_id, f in orders.items()
        } == year.credit
        revisions: dict[tuple[str, str], list[int]] = defaultdict(list)
        for fact in figures.events(RelationshipFact):
            revisions[fact.staff_id, fact.customer_id].append(fact.revision)
        assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in revisions.values())
        assert len(dead.messages) == len(poison)
        for log in (journey.log_file, performance.log_file):
            text = log.read_text()
            assert '"event_id"' in text
            assert "customer-0" not in text
            assert "staff-0" not in text
    finally:
        journey.kill_if_running()
        performance.kill_if_running()
        figures.close()
        dead.close()


@pytest.mark.parametrize("name", ["journey", "performance"])
def test_the_older_of_two_processes_with_one_name_ends_as_fenced(
    own_kafka: LocalKafka, tmp_path: Path, name: str
) -> None:
    older = Service(name, own_kafka.bootstrap, tmp_path / "older")
    newer = Service(name, own_kafka.bootstrap, tmp_path / "newer")

    def until(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    try:
        older.start()
        until(lambda: any(line["event"] == "partitions_taken_over" for line in older.lines()))
        newer.start()
        until(lambda: older.exit_code() is not None)
        assert older.exit_code() == 75
        assert [line["error"] for line in older.lines() if line["event"] == "service_failed"] == ["Fenced"]
        until(lambda: any(line["event"] == "partitions_taken_over" for line in newer.lines()))
        assert newer.end(signal.SIGTERM) == 0
    finally:
        older.kill_if_running()
        newer.kill_if_running()
