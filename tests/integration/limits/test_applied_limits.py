"""From files to what is in force in a process, through the real broker; and back to a decision of the past."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from confluent_kafka import Producer

from deploy.local.kafka import LocalKafka
from siyu.events import ConfigRecord, LedgerEntry, codec, schemas_dir
from siyu.limits import LimitRegistry, LimitSource, load_registry
from siyu.limits.source import NEWEST
from siyu.limits.topic import publish, read_published, remember
from siyu.ops.scan import ScanError, Scanner

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("topics")]

Siyu = Callable[..., Result]
NOON = 1_795_233_600_000  # 2026-11-21 12:00 in Shanghai
TAG = "externalcontact/mark_tag"
BY = ("--author", "zhao", "--reason", "the platform wrote to us")
CHANGED = """\
limits:
  - id: corp_api_minute
    scope: corp_api
    window: sliding 1 min
    amount: 500
    block: window
    but_not: [message/send]
    effective_from: 2026-11-21T12:00:00+08:00
    source: a letter
    confidence: theirs
"""


@pytest.fixture
def shipped() -> LimitRegistry:
    return load_registry(schemas_dir() / "limits")


def everything(broker: LocalKafka) -> list[tuple[str, ConfigRecord]]:
    """The topic `config` in its order."""
    with Scanner(broker.bootstrap) as scanner:
        return [
            ((message.key() or b"").decode(), codec().decode_as(ConfigRecord, message.value() or b""))
            for message in scanner.read_topic("config")
        ]


def minute(source: LimitSource, now_ms: int) -> int:
    return next(x.amount for x in source.current(now_ms).of("ww1", TAG) if x.id == "corp_api_minute")


def test_an_applied_change_reaches_a_process_and_holds_at_its_date(
    broker: LocalKafka, siyu_limits: Siyu, edited: Callable[[str], Path], shipped: LimitRegistry
) -> None:
    done = siyu_limits("apply", str(edited(CHANGED)), *BY)
    assert done.exit_code == 0, done.output
    assert "+ corp_api_minute from 2026-11-21T12:00:00+08:00" in done.stdout
    refused: list[str] = []
    source = LimitSource(shipped, refused.append)
    records = everything(broker)
    for _, record in records:
        source.offer(record)
    revision = source.registry.revision
    assert refused == []
    assert [key for key, _ in records] == [f"limits|{revision}", f"limits|{NEWEST}"]
    assert {(record.author, record.reason) for _, record in records} == {("zhao", "the platform wrote to us")}
    assert [minute(source, NOON - 1), minute(source, NOON)] == [10_000, 500]
    assert source.at(shipped.revision, NOON) == shipped.at(NOON)


def test_a_refused_folder_changes_nothing(broker: LocalKafka, siyu_limits: Siyu, edited: Callable[[str], Path]) -> None:
    folder = edited(CHANGED.replace("amount: 500", "amount: 0"))
    done = siyu_limits("apply", str(folder), *BY)
    assert done.exit_code == 1
    assert f"{folder / 'more.yaml'}:5: amount: must be positive, not 0" in done.stderr.replace("\n", "")
    assert read_published(broker.bootstrap).newest is None


def test_a_dry_run_shows_and_changes_nothing(
    broker: LocalKafka, siyu_limits: Siyu, edited: Callable[[str], Path]
) -> None:
    done = siyu_limits("apply", str(edited(CHANGED)), *BY, "--dry-run")
    assert done.exit_code == 0
    assert "corp_api_minute" in done.stdout
    assert read_published(broker.bootstrap).newest is None


def test_the_history_keeps_every_revision_and_says_which_is_newest(
    broker: LocalKafka, siyu_limits: Siyu, edited: Callable[[str], Path], shipped: LimitRegistry
) -> None:
    assert "no limits were ever applied" in siyu_limits("history").stdout
    assert siyu_limits("apply", str(schemas_dir() / "limits"), *BY).exit_code == 0
    changed = edited(CHANGED)
    assert siyu_limits("apply", str(changed), *BY).exit_code == 0
    assert "nothing to do" in siyu_limits("apply", str(changed), *BY).stdout
    rows = json.loads(siyu_limits("history", "--json").stdout)
    assert [(row["revision"], row["in_force"]) for row in rows] == [
        (shipped.revision, False),
        (load_registry(changed).revision, True),
    ]
    published = read_published(broker.bootstrap)
    assert published.revision(shipped.revision) == shipped
    assert published.revision("never") is None


def test_limits_a_process_came_with_are_remembered_and_put_nothing_in_force(
    broker: LocalKafka, siyu_limits: Siyu, edited: Callable[[str], Path], shipped: LimitRegistry
) -> None:
    """After the next release its decisions can still be evaluated."""
    older = load_registry(edited(CHANGED))
    words = {"author": "executor", "reason": "came with a release"}
    assert remember(broker.bootstrap, older, **words, written_at_ms=1)
    assert not remember(broker.bootstrap, older, **words, written_at_ms=2)
    append(broker, admitted(older))
    assert siyu_limits("explain", "a1").exit_code == 0
    published = read_published(broker.bootstrap)
    assert (published.newest, published.history[older.revision].written_at_ms) == (None, 1)
    assert shipped.revision in siyu_limits("show").stdout


def test_show_says_what_was_applied(siyu_limits: Siyu, edited: Callable[[str], Path]) -> None:
    def amount(at: str) -> int:
        shown = json.loads(siyu_limits("show", "--json", "--at", at).stdout)
        return next(x["amount"] for x in shown["limits"] if x["id"] == "corp_api_minute")

    assert amount("2026-11-21T12:00") == 10_000
    siyu_limits("apply", str(edited(CHANGED)), *BY)
    assert (amount("2026-11-21T11:59:59"), amount("2026-11-21T12:00")) == (10_000, 500)


# -- explain ----------------------------------------------------------------------------------------------------------


def append(broker: LocalKafka, *entries: LedgerEntry, partition: int = 2) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for entry in entries:
        producer.produce("action.ledger", codec().encode(entry), entry.action_id.encode(), partition)
    assert producer.flush(30) == 0


def admitted(registry: LimitRegistry, *, at_ms: int = NOON, **changed: Any) -> LedgerEntry:
    """An entry as the executor writes it after an admission."""
    in_force = registry.at(at_ms)
    limits = [
        {
            "id": limit.id,
            "window": str(limit.window),
            "used": 1,
            "amount": limit.amount,
            "allowed": in_force.allowed(limit, "bulk", 100),
            "allowance_percent": 100,
        }
        for limit in in_force.of("ww1", TAG)
        if limit.scope == "corp_api"
    ]
    fields: dict[str, Any] = {
        "action_id": "a1",
        "parent_id": "",
        "lane": "bulk",
        "corp_id": "ww1",
        "endpoint": TAG,
        "subject": "ww1|customer-7",
        "staff_id": "staff-7",
        "customer_id": "customer-7",
        "campaign_id": "",
        "reason": "r",
        "caused_by": "c",
        "state": "ended",
        "status": "done",
        "detail": "",
        "errcode": 0,
        "calls": 1,
        "message_id": "",
        "created_ms": 1,
        "not_before_ms": 0,
        "deadline_ms": 0,
        "due_ms": 0,
        "updated_at_ms": 1,
        "admitted_at_ms": at_ms,
        "limits_revision": registry.revision,
        "admission": json.dumps(
            {"at_ms": at_ms, "lane": "bulk", "levels": [{"level": f"corp_api|ww1|{TAG}", "limits": limits}]}
        ).encode(),
        "memory": b"",
    }
    return LedgerEntry(**(fields | changed))


def test_a_decision_of_an_older_revision_is_evaluated_by_that_revision(
    broker: LocalKafka, siyu_limits: Siyu, edited: Callable[[str], Path]
) -> None:
    older = load_registry(edited(CHANGED))
    publish(broker.bootstrap, older, author="a", reason="r", written_at_ms=1)
    append(broker, admitted(older))
    newer = load_registry(edited(CHANGED.replace("500", "700")))
    publish(broker.bootstrap, newer, author="a", reason="r", written_at_ms=2)
    done = siyu_limits("explain", "a1", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["same"], found["revision"]) == (True, older.revision)
    assert {x["id"]: (x["amount"], x["allowed"], x["allowed_again"]) for x in found["limits"]}["corp_api_minute"] == (
        500,
        400,
        400,
    )
    assert "staff-7" not in done.stdout
    assert "customer-7" not in done.stdout


def test_limits_that_answer_differently_are_told_by_the_exit_code(
    broker: LocalKafka, siyu_limits: Siyu, edited: Callable[[str], Path], shipped: LimitRegistry
) -> None:
    changed = load_registry(edited(CHANGED))
    publish(broker.bootstrap, changed, author="a", reason="r", written_at_ms=1)
    append(broker, admitted(shipped, limits_revision=changed.revision))
    done = siyu_limits("explain", "a1")
    assert done.exit_code == 1
    assert "answer differently" in done.stdout


def test_the_newest_entry_counts_and_limits_of_the_checkout_need_no_history(
    broker: LocalKafka, siyu_limits: Siyu, shipped: LimitRegistry
) -> None:
    append(broker, admitted(shipped, admission=b"{}"), admitted(shipped), admitted(shipped, action_id="a2"))
    assert siyu_limits("explain", "a1").exit_code == 0


def test_what_cannot_be_explained_says_why(broker: LocalKafka, siyu_limits: Siyu, shipped: LimitRegistry) -> None:
    append(
        broker,
        admitted(shipped, action_id="waits", admitted_at_ms=0, admission=b"", state="waiting", status=""),
        admitted(shipped, action_id="unknown", limits_revision="0123456789abcdef"),
        admitted(shipped, action_id="garbled", admission=b"{}"),
    )
    for action_id, message in (
        ("nobody", "the ledger has no action nobody"),
        ("waits", "action waits was never admitted: waiting"),
        ("unknown", "limits 0123456789abcdef, which were never applied"),
        ("garbled", "its admission cannot be read"),
    ):
        done = siyu_limits("explain", action_id)
        assert done.exit_code == 2
        assert message in done.stderr


def test_a_missing_topic_is_named(broker: LocalKafka, shipped: LimitRegistry) -> None:
    with pytest.raises(ScanError, match="has no topic nowhere; siyu topics apply makes it"):
        read_published(broker.bootstrap, topic="nowhere")
