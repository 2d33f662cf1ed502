"""The guard on the real broker: a sign becomes a state that stops an executor, a kill changes nothing, and people's
words take effect through the command line."""

from __future__ import annotations

import contextlib
import json
import signal as signals
import time
import uuid
from typing import Any

import pytest
from confluent_kafka import Message
from typer.testing import CliRunner, Result

from deploy.local.kafka import LocalKafka
from services.executor.guard import GuardTable
from siyu.cli import app
from siyu.events import CodecError, GuardAudit, GuardSignal, GuardState, StaffDelta, codec, schemas_dir
from siyu.events.business_time import business_day
from siyu.guard.rules import load_rules

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SEND, READ = "externalcontact/add_msg_template", "externalcontact/get"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def sign(corp: str, staff: str, kind: str, *, at: int = 0, campaign: str = "", count: int = 1) -> GuardSignal:
    number = uuid.uuid4().hex
    return GuardSignal(number, corp, staff, kind, count, campaign, "", 0, "test", "", "", at or now_ms(), now_ms())


@pytest.fixture
def corp() -> str:
    """A corp no other test speaks of."""
    return f"ww{uuid.uuid4().hex[:12]}"


def table_of(messages: list[Message]) -> GuardTable:
    """What an executor that has read so far knows."""
    table = GuardTable(load_rules(schemas_dir() / "rules" / "guard.yaml"))
    for message in messages:
        if message.topic() == "guard.state":
            assert table.apply(message.key() or b"", message.value())
    return table


def values(messages: list[Message], topic: str, corp: str) -> list[Any]:
    """What can be read of a topic and is about the corp."""
    found: list[Any] = []
    for message in messages:
        if message.topic() == topic and (message.key() or b"").startswith(corp.encode()):
            with contextlib.suppress(CodecError):
                found.append(codec().decode(message.value() or b""))
    return found


def test_a_ban_stops_the_staff_member_and_nobody_else(guard: Any, reader: Any, send: Any, corp: str) -> None:
    send(("guard.signals", f"{corp}|mei", sign(corp, "mei", "ban")))

    def blocked(messages: list[Message]) -> bool:
        return table_of(messages).blocks(corp, "mei", "", SEND, "welcome", now_ms()) == "staff_cooling"

    reader.until(blocked, guard.text)
    table = table_of(reader.messages)
    assert table.allowance(corp, "mei", now_ms()) == 0
    assert table.blocks(corp, "li", "", SEND, "bulk", now_ms()) is None
    reader.until(lambda m: any(s.kind == "staff_banned" for s in values(m, "guard.signals", corp)), guard.text)
    assert guard.end() == 0
    log = guard.text()
    assert '"guard_decided"' in log
    assert "mei" not in log


def test_a_barred_corp_and_refused_content_stop_corp_and_campaign(
    guard: Any, reader: Any, send: Any, corp: str
) -> None:
    send(("guard.signals", f"{corp}|mei", sign(corp, "mei", "content", campaign="autumn")))
    reader.until(
        lambda m: table_of(m).blocks(corp, "li", "autumn", SEND, "bulk", now_ms()) == "campaign_stopped", guard.text
    )
    assert table_of(reader.messages).blocks(corp, "li", "winter", SEND, "bulk", now_ms()) is None
    send(("guard.signals", f"{corp}|", sign(corp, "", "barred")))
    reader.until(
        lambda m: table_of(m).blocks(corp, "li", "winter", READ, "sync", now_ms()) == "corp_stopped", guard.text
    )


def test_kills_and_repeats_change_no_judgement(guard: Any, reader: Any, send: Any, corp: str) -> None:
    complaints = [sign(corp, "mei", "complaint", at=now_ms() - n) for n in range(8)]
    touch = sign(corp, "mei", "touch", count=1_000, campaign="autumn")
    losses = [
        StaffDelta(corp, "mei", business_day(now_ms()), {"lost_by_customer": 1}, now_ms(), now_ms(), f"e{n}")
        for n in range(5)
    ]
    records: list[tuple[str, str, Any]] = [("guard.signals", f"{corp}|mei", s) for s in (*complaints, touch)]
    send(*records[:4], ("guard.signals", f"{corp}|mei", b"not avro"), ("guard.signals", "ww9|x", complaints[0]))
    reader.until(lambda m: values(m, "guard.state", corp) != [], guard.text)
    assert guard.end(signals.SIGKILL) == -signals.SIGKILL
    send(*records[2:], *[("staff.deltas", f"{corp}|mei", loss) for loss in losses])
    guard.start()

    def newest(messages: list[Message]) -> GuardState | None:
        mine = [s for s in values(messages, "guard.state", corp) if s.staff_id == "mei"]
        return mine[-1] if mine else None

    def judged(messages: list[Message]) -> bool:
        state = newest(messages)
        return state is not None and state.allowance_percent == 25

    reader.until(judged, guard.text)
    reader.until(lambda m: sum(x.topic() == "dlq.guard" for x in m) >= 2, guard.text)
    state = newest(reader.messages)
    assert state is not None
    # Eight complaints, each once, less the little that has worn off since.
    assert 63_900 < state.risk_milli <= 64_000
    assert (state.standing, state.reason) == ("watched", "complaint")

    def told(messages: list[Message]) -> list[str]:
        return [s.signal_id for s in values(messages, "guard.signals", corp) if s.kind.startswith("staff_")]

    reader.until(lambda m: len(told(m)) >= 9, guard.text)
    assert len(told(reader.messages)) == len(set(told(reader.messages))) == 9
    assert guard.end() == 0


def test_people_stop_and_lift_through_the_command_line(
    guard: Any, reader: Any, own_kafka: LocalKafka, corp: str
) -> None:
    def siyu(*arguments: str) -> Result:
        account = ("--corp", corp, "--staff", "mei", "--kafka-bootstrap", own_kafka.bootstrap)
        return CliRunner().invoke(app, ["guard", *arguments, *account])

    def says(result: Result, code: int) -> Any:
        assert result.exit_code == code, result.output + guard.text()
        return json.loads(result.stdout)

    assert siyu("show").exit_code == 1
    waited = ("--wait", "90", "--json")
    stopped = says(siyu("stop", "--author", "Ann", "--reason", "a call from legal", *waited), 0)
    assert (stopped["what"], stopped["author"], stopped["reason"]) == ("stopped", "Ann", "a call from legal")
    (state,) = says(siyu("show", "--json"), 0)
    assert (state["standing"], state["allowance_percent"]) == ("stopped", 0)
    early = says(siyu("lift", "approve", "--author", "Bob", *waited), 1)
    assert (early["what"], early["reason"]) == ("lift_refused", "nothing_requested")
    asked = says(siyu("lift", "request", "--author", "Ann", "--reason", "it is settled", *waited), 0)
    same = says(siyu("lift", "approve", "--author", " ann", *waited), 1)
    assert same["reason"] == "same_person"
    approved = says(siyu("lift", "approve", "--author", "Bob", "--request", asked["signal_id"], *waited), 0)
    assert (approved["what"], approved["author"], approved["second_author"]) == ("lift_approved", "Ann", "Bob")
    (state,) = says(siyu("show", "--json"), 0)
    assert state["standing"] == "clear"
    audit = says(siyu("audit", "--json"), 0)
    assert [entry["what"] for entry in audit] == [
        "stopped",
        "lift_refused",
        "lift_requested",
        "lift_refused",
        "lift_approved",
    ]
    drill = says(siyu("signal", "ban", "--json", "--id", "drill-1"), 0)
    assert drill == {"signal_id": "drill-1"}
    reader.until(lambda m: table_of(m).blocks(corp, "mei", "", SEND, "bulk", now_ms()) == "staff_cooling", guard.text)
    entries = values(reader.messages, "guard.audit", corp)
    assert all(isinstance(entry, GuardAudit) for entry in entries)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("signal", "nonsense", "--corp", "ww1"), "no kind"),
        (("signal", "barred", "--corp", "ww1", "--staff", "mei"), "barred is about a corp"),
        (("signal", "lift_approve", "--corp", "ww1"), "a person's word"),
        (("show", "--staff", "mei"), "need --corp"),
        (("stop", "--corp", "ww1", "--author", "A", "--reason", "r", "--staff", "m", "--campaign", "c"), "exclude"),
        (("show", "--kafka-bootstrap", "127.0.0.1:1"), "does not answer"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIYU_KAFKA_BOOTSTRAP", raising=False)
    result = CliRunner().invoke(app, ["guard", *arguments])
    assert result.exit_code == 2
    assert told in result.output
