"""The audit on the real broker and the real engine: clean when nothing was touched, and never when anything was."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.kafka import LocalKafka
from siyu.audit import AuditConfig, AuditError, Report, run_audit
from siyu.cli import app
from siyu.events import ActionOutcome, RawCallback, codec, schemas_dir
from siyu.warehouse import connect
from siyu.warehouse.migrations import migrate

pytestmark = pytest.mark.integration

T = 1_772_330_400  # 2026-03-01 10:00:00 in Shanghai
CORP = "ww1"
TABLES = ("relationship", "orders", "staff_day", "action_outcome")


def callback(event_id: str, change: str, staff: str, customer: str, seconds: int, **more: str) -> RawCallback:
    fields = {"Event": "change_external_contact", "ChangeType": change, "UserID": staff, "ExternalUserID": customer}
    fields |= {"CreateTime": str(seconds), **more}
    xml = "".join(f"<{name}><![CDATA[{text}]]></{name}>" for name, text in fields.items())
    return RawCallback(
        event_id=event_id,
        corp_id=CORP,
        agent_id="1",
        event="change_external_contact",
        change_type=change,
        event_time_ms=seconds * 1000,
        received_at_ms=seconds * 1000 + 100,
        known=True,
        personal=f"<xml>{xml}</xml>".encode(),
    )


def outcome(action_id: str, endpoint: str, **fields: object) -> ActionOutcome:
    values: dict[str, object] = dict.fromkeys(ActionOutcome.__struct_fields__, "") | dict.fromkeys(
        (name for name in ActionOutcome.__struct_fields__ if name.endswith("_ms") or name in ("errcode", "calls")), 0
    )
    values |= {"action_id": action_id, "corp_id": CORP, "endpoint": endpoint, "status": "done", "lane": "sync"}
    values |= {"request": b"", "response": b"", "finished_at_ms": (T + 2) * 1000, **fields}
    return ActionOutcome(**values)  # type: ignore[arg-type]


def payment(order: str, customer: str, staff: str, seconds: int, fen: int) -> dict[str, object]:
    bill = {"bill_type": 0, "out_trade_no": order, "external_userid": customer, "payee_userid": staff}
    return bill | {"pay_time": seconds, "total_fee": fen, "payment_type": 1, "trade_state": 1}


def refund(order: str, number: str, customer: str, staff: str, seconds: int, fen: int) -> dict[str, object]:
    bill = {"bill_type": 1, "out_trade_no": order, "out_refund_no": number, "external_userid": customer}
    return bill | {"payee_userid": staff, "pay_time": seconds, "total_refund_fee": fen, "payment_type": 1}


CALLBACKS = [
    callback("e1", "add_external_contact", "s1", "c1", T, State="poster", WelcomeCode="w1"),
    callback("e1", "add_external_contact", "s1", "c1", T, State="poster", WelcomeCode="w1"),
    callback("e2", "add_half_external_contact", "s1", "c2", T + 60, WelcomeCode="w2"),
    callback("e3", "del_follow_user", "s1", "c1", T + 7200),
    callback("e4", "add_external_contact", "s2", "c1", T + 3600),
]
PAGE = {
    "errcode": 0,
    "bill_list": [
        payment("o1", "c1", "s1", T + 100, 10_000),
        payment("o2", "c1", "", T + 7300, 5_000),
        payment("o3", "", "s2", T + 100, 300),
        refund("o1", "r1", "c1", "s1", T + 86_400, 2_000),
        refund("o9", "r2", "c4", "s2", T + 200, 700),
    ],
}
WELCOMED = {"lane": "welcome", "staff_id": "s1", "trigger_received_at_ms": T * 1000 + 100}
OUTCOMES = [
    outcome("b1", "externalpay/get_bill_list", response=json.dumps(PAGE).encode()),
    outcome("a1", "externalcontact/send_welcome_msg", customer_id="c1", caused_by="e1", **WELCOMED),
    outcome(
        "a2",
        "externalcontact/send_welcome_msg",
        customer_id="c2",
        caused_by="e2",
        **WELCOMED | {"status": "expired", "detail": "deadline_passed"},
    ),
]

# What a right system has written, by hand.
ROWS = """
INSERT INTO {db}.relationship (corp_id, staff_id, customer_id, revision, status, staff_side, customer_side, channel,
    first_added, episodes_started, episodes_ended, episodes_ended_by, event_time, received_at, caused_by, written_at)
VALUES
('ww1', 's1', 'c1', 1, 'friend', true, true, 'poster', {t}, [{t}], [0], [''], {t}, {t} + 0.1, 'e1', {t} + 1),
('ww1', 's1', 'c1', 2, 'deleted_by_customer', true, false, 'poster', {t}, [{t}], [{t} + 7200], ['customer'], {t} + 7200,
    {t} + 7200.1, 'e3', {t} + 7201),
('ww1', 's1', 'c2', 1, 'half', false, true, '', 0, [], [], [], {t} + 60, {t} + 60.1, 'e2', {t} + 61),
('ww1', 's2', 'c1', 1, 'friend', true, true, '', {t} + 3600, [{t} + 3600], [0], [''], {t} + 3600, {t} + 3600.1, 'e4',
    {t} + 3601);
INSERT INTO {db}.orders (corp_id, order_id, revision, customer_id, staff_id, credit_rule, paid, pay_time, gross_fen,
    refunded_fen, refund_ids, refund_times, refund_amounts_fen, payment_type, event_time, received_at, caused_by,
    written_at) VALUES
('ww1', 'o1', 2, 'c1', 's1', 'collector', true, {t} + 100, 10000, 2000, ['r1'], [{t} + 86400], [2000], 1, {t} + 86400,
    {t} + 86500, 'p1', {t} + 86501),
('ww1', 'o2', 1, 'c1', 's2', 'owner', true, {t} + 7300, 5000, 0, [], [], [], 1, {t} + 7300, {t} + 7400, 'p2',
    {t} + 7401),
('ww1', 'o3', 1, '', 's2', 'collector', true, {t} + 100, 300, 0, [], [], [], 1, {t} + 100, {t} + 200, 'p3', {t} + 201),
('ww1', 'o9', 1, 'c4', 's2', 'refunder', false, 0, 0, 700, ['r2'], [{t} + 200], [700], 0, {t} + 200, {t} + 300, 'p4',
    {t} + 301);
INSERT INTO {db}.staff_day (corp_id, staff_id, day, revision, adds, half_adds, lost_by_customer, orders, gross_fen,
    refunds, refunded_fen, unknown_customer_orders, unknown_customer_gross_fen, unmatched_refunds, unmatched_refund_fen,
    event_time, received_at, caused_by, written_at) VALUES
('ww1', 's1', '2026-03-01', 4, 1, 1, 1, 1, 10000, 0, 0, 0, 0, 0, 0, {t}, {t}, 'x', {t} + 1),
('ww1', 's1', '2026-03-02', 1, 0, 0, 0, 0, 0, 1, 2000, 0, 0, 0, 0, {t}, {t}, 'x', {t} + 1),
('ww1', 's2', '2026-03-01', 4, 1, 0, 0, 2, 5300, 0, 0, 1, 300, 1, 700, {t}, {t}, 'x', {t} + 1),
('ww1', 's1', '2026-03-07', 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {t}, {t}, 'x', {t} + 1);
INSERT INTO {db}.action_outcome (corp_id, action_id, lane, endpoint, staff_id, customer_id, status, detail, caused_by,
    trigger_received_at, finished_at, written_at) VALUES
('ww1', 'a1', 'welcome', 'externalcontact/send_welcome_msg', 's1', 'c1', 'done', '', 'e1', {t} + 0.1, {t} + 2, {t} + 3),
('ww1', 'a2', 'welcome', 'externalcontact/send_welcome_msg', 's1', 'c2', 'expired', 'deadline_passed', 'e2', {t} + 0.1,
    {t} + 2, {t} + 3),
('ww1', 'b1', 'sync', 'externalpay/get_bill_list', '', '', 'done', '', '', 0, {t} + 2, {t} + 3)
"""


@dataclass
class System:
    """A finished run: its topics, its tables, and a way to tamper with them."""

    config: AuditConfig
    clickhouse: LocalClickHouse

    def tamper(self, sql: str) -> None:
        self.clickhouse.execute(sql.replace("TABLE.", f"{self.config.database}."))

    def audit(self) -> Report:
        return run_audit(self.config)


@pytest.fixture(scope="module")
def topics(kafka: LocalKafka) -> tuple[str, str]:
    names = (f"audit.raw.{uuid.uuid4().hex[:8]}", f"audit.outcomes.{uuid.uuid4().hex[:8]}")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for made in admin.create_topics([NewTopic(name, 2, 1) for name in names]).values():
        made.result(timeout=30)
    # Through a transaction that is aborted and one that is committed: the first must not be read.
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": f"audit-{uuid.uuid4().hex}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    never = callback("e9", "add_external_contact", "s9", "c9", T, WelcomeCode="w9")
    producer.produce(names[0], codec().encode(never), key="k9")
    producer.flush(30)
    producer.abort_transaction(30)
    producer.begin_transaction()
    for topic, records in zip(names, (CALLBACKS, OUTCOMES), strict=True):
        for record in records:
            producer.produce(topic, codec().encode(record), key=record.corp_id)
    producer.commit_transaction(30)
    return names


@pytest.fixture(scope="module")
def migrated(clickhouse: LocalClickHouse) -> Iterator[str]:
    name = f"audit_{uuid.uuid4().hex[:8]}"
    client = connect(clickhouse.url, database=name)
    migrate(client, schemas_dir() / "clickhouse")
    client.close()
    yield name
    clickhouse.execute(f"DROP DATABASE {name} SYNC")


@pytest.fixture
def system(kafka: LocalKafka, clickhouse: LocalClickHouse, topics: tuple[str, str], migrated: str) -> System:
    for table in (*TABLES, "action"):
        clickhouse.execute(f"TRUNCATE TABLE {migrated}.{table}")
    for statement in ROWS.format(db=migrated, t=T).split(";\n"):
        clickhouse.execute(statement)
    config = AuditConfig(
        kafka.bootstrap,
        clickhouse.url,
        database=migrated,
        callbacks_topic=topics[0],
        outcomes_topic=topics[1],
    )
    return System(config, clickhouse)


def test_a_right_system_is_clean(system: System) -> None:
    report = system.audit()
    assert [d for s in report.sections for d in s.differences] == []
    counts = {(s.name, s.source): (s.expected, s.found) for s in report.sections}
    assert counts["relationships", "raw"] == (3, 3)
    assert counts["orders", "raw"] == (4, 4)
    assert counts["staff days", "raw"] == (3, 3)
    assert counts["actions", "raw"] == (2, 2)
    assert report.arrived == {
        "deliveries": 5,
        "events": 4,
        "repeats": 1,
        "other": 0,
        "pages": 1,
        "payments": 3,
        "refunds": 2,
    }
    assert report.clean
    assert report.welcomes["ends"] == {"done": 1, "expired (deadline_passed)": 1}
    assert report.freshness["orders"]["rows"] == 4
    assert report.freshness["orders"]["p50_s"] == 1.0


LATER = "toDateTime64('2030-01-01 00:00:00', 3, 'Asia/Shanghai')"
COPY = "INSERT INTO TABLE.{0} SELECT * REPLACE ({1}) FROM (SELECT * FROM TABLE.{0}_now WHERE {2})"
REMOVE = "ALTER TABLE TABLE.{0} DELETE WHERE {1} SETTINGS mutations_sync = 2"
STUCK = (
    "INSERT INTO TABLE.action (corp_id, action_id, state, created, deadline) "
    f"VALUES ('{CORP}', 'a9', 'waiting', '2026-03-02 00:00:00', '2026-03-01 00:00:00')"
)
ALTER = "ALTER TABLE TABLE.{0} UPDATE {1} WHERE {2} SETTINGS mutations_sync = 2"


@pytest.mark.parametrize(
    ("what", "sql", "section", "counts"),
    [
        ("removed", REMOVE.format("relationship", "customer_id = 'c2'"), "relationships", (1, 0, 0)),
        ("removed", REMOVE.format("orders", "order_id = 'o3'"), "orders", (1, 0, 0)),
        ("removed", REMOVE.format("staff_day", "day = '2026-03-02'"), "staff days", (1, 0, 0)),
        ("removed", REMOVE.format("action_outcome", "action_id = 'a2'"), "actions", (1, 0, 0)),
        ("altered", ALTER.format("relationship", "status = 'none'", "customer_id = 'c2'"), "relationships", (0, 0, 1)),
        ("altered", ALTER.format("orders", "gross_fen = 10001", "order_id = 'o1'"), "orders", (0, 0, 1)),
        ("altered", ALTER.format("orders", "staff_id = 's1'", "order_id = 'o2'"), "orders", (0, 0, 1)),
        ("altered", ALTER.format("action_outcome", "detail = ''", "action_id = 'a2'"), "actions", (0, 0, 1)),
        (
            "counted twice",
            COPY.format("staff_day", "revision + 1 AS revision, orders * 2 AS orders", "staff_id = 's2'"),
            "staff days",
            (0, 0, 1),
        ),
        ("added", COPY.format("orders", "'o77' AS order_id", "order_id = 'o3'"), "orders", (0, 1, 0)),
        ("added", COPY.format("action_outcome", "'a3' AS action_id", "action_id = 'a1'"), "actions", (0, 1, 0)),
        (
            "a part of nothing",
            COPY.format("action_outcome", "'p1' AS action_id, 'nobody' AS parent_id", "action_id = 'a1'"),
            "actions",
            (0, 1, 0),
        ),
        ("stuck", STUCK, "actions", (0, 0, 1)),
        (
            "stale",
            COPY.format("relationship", "'friend' AS status, revision + 1 AS revision", "status LIKE 'del%'"),
            "relationships",
            (0, 0, 1),
        ),
        (
            "contradicting itself",
            COPY.format("orders", "42 AS payment_type", "order_id = 'o3'"),
            "tables",
            (0, 0, 1),
        ),
    ],
)  # fmt: skip
def test_one_touched_row_fails_the_audit_and_is_named(
    system: System, what: str, sql: str, section: str, counts: tuple[int, int, int]
) -> None:
    # Merges would settle a contradiction before it can be seen.
    if what == "contradicting itself":
        system.tamper("SYSTEM STOP MERGES TABLE.orders")
    system.tamper(sql)
    report = system.audit()
    assert not report.clean
    touched = [s for s in report.sections if s.name == section and not s.clean]
    assert [(s.lost, s.double, s.different) for s in touched[:1]] == [counts]
    assert touched[0].differences[0].key[0] == CORP


def test_the_same_row_written_twice_changes_nothing(system: System) -> None:
    for table in TABLES:
        system.tamper(f"INSERT INTO TABLE.{table} SELECT * REPLACE ({LATER} AS written_at) FROM TABLE.{table}_now")
    report = system.audit()
    assert report.clean
    assert report.freshness["orders"]["p99_s"] == 1.0


def test_the_command_tells_by_its_exit_status(kafka: LocalKafka, tmp_path: Path) -> None:
    nowhere = ["--kafka-bootstrap", kafka.bootstrap, "--clickhouse-url", "http://127.0.0.1:1"]
    no_broker_topic = CliRunner().invoke(app, ["audit", *nowhere])
    assert no_broker_topic.exit_code == 2
    missing = CliRunner().invoke(app, ["audit", *nowhere, "--truth", str(tmp_path / "none.json")])
    assert missing.exit_code == 2


def test_a_source_that_cannot_be_read_is_an_error_and_no_result(system: System) -> None:
    with pytest.raises(AuditError, match="SIYU_CLICKHOUSE_URL"):
        run_audit(replace(system.config, clickhouse_url="http://127.0.0.1:1"))
    with pytest.raises(AuditError, match="topic"):
        run_audit(replace(system.config, callbacks_topic="no.such.topic"))
    with pytest.raises(AuditError, match="ClickHouse refused"):
        run_audit(replace(system.config, database="no_such_database"))
