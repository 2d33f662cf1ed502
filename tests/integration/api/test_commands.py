"""`siyu actions` and `siyu quota` over the real broker and the real engine: what they say, do, and exit with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from made import TAG, action, entry, outcome, scope
from typer.testing import CliRunner, Result

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.kafka import LocalKafka
from siyu.actions import retry
from siyu.actions.store import ActionStore
from siyu.cli import app
from siyu.events import Action, ControlRecord, QuotaState, codec
from siyu.events.business_time import iso_utc
from siyu.ops.api_tokens import hash_of, read_tokens
from siyu.ops.clock import wall_ms

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

DONE, NO, NOT_FOUND = 0, 1, 2
WHY = ("--author", "li.wei", "--reason", "complaints of customers")


@pytest.fixture
def siyu(kafka: LocalKafka, clickhouse: LocalClickHouse, topics: None, store: ActionStore, database: str) -> Any:
    """Runs a command over the test's stores."""
    runner = CliRunner()
    environment = {
        "SIYU_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "SIYU_CLICKHOUSE_URL": clickhouse.url,
        "SIYU_CLICKHOUSE_DATABASE": database,
    }

    def run(*args: str) -> Result:
        return runner.invoke(app, list(args), env=environment)

    return run


@pytest.fixture
def appended(kafka: LocalKafka, topics: None) -> Iterator[Callable[[str], list[Message]]]:
    """What a topic got since the test began, all partitions."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "test", "isolation.level": "read_committed"})
    ends: dict[tuple[str, int], int] = {}
    for topic in ("actions.bulk", "executor.control"):
        for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
            ends[topic, number] = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]

    def read(topic: str) -> list[Message]:
        found: list[Message] = []
        for (name, number), begin in ends.items():
            end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1] if name == topic else 0
            if name == topic and end > begin:
                consumer.assign([TopicPartition(topic, number, begin)])
                messages = consumer.consume(end - begin, timeout=20)
                assert len(messages) == end - begin
                found += messages
        return found

    yield read
    consumer.close()


def of_corp(messages: list[Message], corp_id: str) -> list[ControlRecord]:
    words = [codec().decode_as(ControlRecord, message.value()) for message in messages]
    return [word for word in words if word.corp_id == corp_id]


def test_an_action_is_shown_with_its_end_its_parts_and_who_intervened(
    siyu: Any, insert: Any, corp_id: str, unique_name: Any
) -> None:
    one = unique_name("a")
    insert(
        entry(corp_id, one, "accepted", message_id="msg1"),
        entry(corp_id, f"{one}c", "accepted", parent_id=one),
        outcome(corp_id, f"{one}p", "done", parent_id=f"{one}c"),
        outcome(corp_id, f"{one}q", "rejected", parent_id=f"{one}c", detail="not_friend"),
    )
    assert siyu("actions", "pause", "--corp", corp_id, *WHY).exit_code == DONE
    shown = siyu("actions", "show", one)
    assert shown.exit_code == DONE
    for text in ("accepted", "msg1", "not_friend", "li.wei", "complaints of customers", f"{one}c", "人数 People"):
        assert text in shown.output
    assert "wmPerson" not in shown.output
    read = json.loads(siyu("actions", "show", one, "--json").output)
    assert {count["status"]: count["count"] for count in read["parts"]["people"]} == {"done": 1, "rejected": 1}
    assert [word["kind"] for word in read["controls"]] == ["pause"]
    assert siyu("actions", "resume", "--corp", corp_id, *WHY).exit_code == DONE


def test_customers_are_named_only_when_asked_for(siyu: Any, insert: Any, corp_id: str, unique_name: Any) -> None:
    one = unique_name("a")
    insert(outcome(corp_id, one))
    for command in (["show", one], ["show", one, "--json"], ["list", "--corp", corp_id]):
        assert "wmPerson" not in siyu("actions", *command).output
        assert "wmPerson" in siyu("actions", *command, "--show-people").output


def test_an_action_still_in_its_lane_is_found_there(
    siyu: Any, send: Any, corp_id: str, unique_name: Any, appended: Callable[[str], list[Message]]
) -> None:
    waiting = action(corp_id, unique_name("q"))
    send("actions.bulk", scope(waiting), waiting)
    read = json.loads(siyu("actions", "show", waiting.action_id, "--json").output)
    assert (read["action"]["state"], read["action"]["endpoint"]) == ("queued", TAG)
    assert siyu("actions", "retry", waiting.action_id, *WHY).exit_code == NO
    assert siyu("actions", "cancel", waiting.action_id, *WHY).exit_code == DONE
    (word,) = of_corp(appended("executor.control"), corp_id)
    assert (word.kind, word.action_id, word.author) == ("cancel", waiting.action_id, "li.wei")


def test_what_is_not_there_is_not_found(siyu: Any) -> None:
    for command in (
        ["show", "nothing"],
        ["retry", "nothing", *WHY],
        ["cancel", "nothing", *WHY],
        ["settle", "nothing", "--as", "done", *WHY],
        ["resume", "--campaign", "nothing", *WHY],
    ):
        result = siyu("actions", *command)
        assert result.exit_code == NOT_FOUND, result.output
        assert "Traceback" not in result.output


def test_a_failed_action_is_repeated_with_its_own_request_and_only_once(
    siyu: Any, insert: Any, send: Any, corp_id: str, unique_name: Any, appended: Callable[[str], list[Message]]
) -> None:
    failed = outcome(corp_id, unique_name("a"))
    # Others of the same customer before and behind it.
    for number in range(3):
        send("action.outcomes", failed.subject, outcome(corp_id, unique_name(f"other{number}")))
    send("action.outcomes", failed.subject, failed)
    insert(failed)
    for _ in range(2):
        result = siyu("actions", "retry", failed.action_id, *WHY, "--deadline", "2099-01-01", "--json")
        assert result.exit_code == DONE, result.output
    messages = [m for m in appended("actions.bulk") if failed.action_id.encode() in (m.value() or b"")]
    repeats = [codec().decode_as(Action, message.value()) for message in messages]
    assert {repeat.action_id for repeat in repeats} == {retry.repeat_id(failed.action_id, 1)}
    assert {repeat.payload for repeat in repeats} == {failed.request}
    assert all(repeat.caused_by == failed.action_id for repeat in repeats)
    assert {iso_utc(repeat.deadline_ms) for repeat in repeats} == {"2098-12-31T16:00:00.000Z"}
    assert {message.key() for message in messages} == {scope(repeats[0]).encode()}
    assert dict(messages[0].headers() or []) == {"operator": b"li.wei", "operator.reason": WHY[3].encode()}

    insert(outcome(corp_id, repeats[0].action_id, "failed", caused_by=failed.action_id))
    again = json.loads(siyu("actions", "retry", failed.action_id, *WHY, "--json").output)
    assert again["action_id"] == retry.repeat_id(failed.action_id, 2)
    insert(outcome(corp_id, again["action_id"], "done", caused_by=failed.action_id))
    assert siyu("actions", "retry", failed.action_id, *WHY).exit_code == NO
    shown = json.loads(siyu("actions", "show", failed.action_id, "--json").output)
    assert [repeat["status"] for repeat in shown["repeats"]] == ["failed", "done"]


def test_a_welcome_past_its_code_and_an_action_that_was_done_are_not_repeated(
    siyu: Any, insert: Any, send: Any, corp_id: str, unique_name: Any, appended: Callable[[str], list[Message]]
) -> None:
    late = outcome(
        corp_id,
        unique_name("w"),
        "expired",
        lane="welcome",
        endpoint="externalcontact/send_welcome_msg",
        deadline_ms=wall_ms() - 1,
    )
    done = outcome(corp_id, unique_name("d"), "done")
    send("action.outcomes", late.subject, late)
    insert(late, done)
    for one in (late, done):
        assert siyu("actions", "retry", one.action_id, *WHY).exit_code == NO
    assert not [m for m in appended("actions.bulk") if corp_id.encode() in (m.value() or b"")]


def test_what_is_in_doubt_is_listed_and_settled(
    siyu: Any, insert: Any, corp_id: str, unique_name: Any, appended: Callable[[str], list[Message]]
) -> None:
    one = unique_name("a")
    insert(entry(corp_id, one, "in_doubt", created_ms=1), outcome(corp_id, unique_name("b"), "done"))
    listed = json.loads(siyu("actions", "list", "--corp", corp_id, "--in-doubt", "--json").output)
    assert [found["action_id"] for found in listed["actions"]] == [one]
    assert siyu("actions", "settle", one, "--as", "perhaps", *WHY).exit_code == NOT_FOUND
    assert siyu("actions", "settle", one, "--as", "not_done", *WHY).exit_code == DONE
    (word,) = of_corp(appended("executor.control"), corp_id)
    assert (word.kind, word.verdict, word.action_id) == ("settle", "not_done", one)
    insert(outcome(corp_id, one, "done"))
    assert siyu("actions", "settle", one, "--as", "done", *WHY).exit_code == NO


def test_a_list_is_read_page_by_page(siyu: Any, insert: Any, corp_id: str) -> None:
    now = wall_ms()
    insert(*(outcome(corp_id, f"a{number}", created_ms=now - number) for number in range(5)))
    first = json.loads(siyu("actions", "list", "--corp", corp_id, "--limit", "3", "--json").output)
    cursor = first["next_cursor"]
    rest = json.loads(siyu("actions", "list", "--corp", corp_id, "--limit", "3", "--cursor", cursor, "--json").output)
    found = [one["action_id"] for page in (first, rest) for one in page["actions"]]
    assert found == [f"a{number}" for number in range(5)]
    assert siyu("actions", "list", "--since", "soon").exit_code == NOT_FOUND
    assert siyu("actions", "list", "--cursor", "x").exit_code == NOT_FOUND


def test_a_pause_is_listed_until_it_is_taken_back_by_the_same_words(siyu: Any, corp_id: str) -> None:
    paused = siyu("actions", "pause", "--corp", corp_id, "--lane", "bulk", "--for", "2h", *WHY, "--json")
    word = json.loads(paused.output)
    assert word["expires_ms"] - word["written_at_ms"] == 7_200_000
    listed = json.loads(siyu("actions", "paused", "--json").output)["pauses"]
    assert word["id"] in [pause["id"] for pause in listed]
    assert siyu("actions", "resume", "--corp", corp_id, *WHY).exit_code == NOT_FOUND
    assert siyu("actions", "resume", "--corp", corp_id, "--lane", "bulk", *WHY).exit_code == DONE
    listed = json.loads(siyu("actions", "paused", "--json").output)["pauses"]
    assert word["id"] not in [pause["id"] for pause in listed]


@pytest.mark.parametrize(
    "command",
    [
        ["pause", *WHY],
        ["pause", "--everything", "--lane", "bulk", *WHY],
        ["pause", "--lane", "slow", *WHY],
        ["pause", "--lane", "bulk", "--for", "soon", *WHY],
        ["cancel", *WHY],
        ["cancel", "a1", "--lane", "bulk", *WHY],
        ["resume", *WHY],
        ["pause", "--lane", "bulk", "--author", "li", "--reason", " "],
        ["pause", "--lane", "bulk"],
    ],
)
def test_a_word_that_says_too_little_or_too_much_is_not_written(
    command: list[str], siyu: Any, appended: Callable[[str], list[Message]]
) -> None:
    assert siyu("actions", *command).exit_code == 2
    assert appended("executor.control") == []


def test_a_campaign_is_cancelled_as_a_whole(siyu: Any, corp_id: str, appended: Callable[[str], list[Message]]) -> None:
    assert siyu("actions", "cancel", "--corp", corp_id, "--campaign", "spring", *WHY).exit_code == DONE
    (word,) = of_corp(appended("executor.control"), corp_id)
    assert (word.kind, word.campaign_id, word.action_id, word.expires_ms) == ("cancel", "spring", "", 0)


def test_quotas_tell_what_was_used_by_lane_and_what_is_frozen(siyu: Any, send: Any, corp_id: str) -> None:
    window = {
        "id": "corp_api_minute",
        "window": "sliding 1 min",
        "used": 7_777,
        "amount": 10_000,
        "lanes": {"welcome": 10_000, "urgent": 9_500, "bulk": 8_000, "sync": 8_000},
        "frozen_until_ms": wall_ms() + 60_000,
        "rate_percent": 50,
    }

    def state(level: str, used: int) -> QuotaState:
        view = {"windows": [window | {"used": used}], "in_flight": 2}
        return QuotaState(level, corp_id, TAG, 1, b"", json.dumps(view).encode(), wall_ms())

    level = f"corp_api|{corp_id}|{TAG}"
    for used in (1, 7_777):
        send("quota.state", level, state(level, used))
    send("quota.state", f"customer_api|{corp_id}|wmPerson|{TAG}", state(f"customer_api|{corp_id}|wmPerson|{TAG}", 1))
    read = json.loads(siyu("quota", "--corp", corp_id, "--json").output)
    used = {found["level"].partition("|")[0]: found["windows"][0]["used"] for found in read["levels"]}
    assert used == {"corp_api": 7_777, "customer_api": 1}
    shown = siyu("quota", "--corp", corp_id).output
    for text in ("7,777", "9,500", "50 %", "冻结至"):
        assert text in shown
    assert "wmPerson" not in shown + json.dumps(read)
    assert "wmPerson" in siyu("quota", "--corp", corp_id, "--show-people", "--json").output


@pytest.mark.parametrize(
    "command",
    [
        ["actions", "show", "a1"],
        ["actions", "list"],
        ["actions", "paused"],
        ["quota"],
        ["actions", "pause", "--lane", "bulk", *WHY],
    ],
)
def test_without_its_stores_a_command_says_so_in_one_line(command: list[str]) -> None:
    nowhere = {"SIYU_KAFKA_BOOTSTRAP": "127.0.0.1:1", "SIYU_CLICKHOUSE_URL": "http://127.0.0.1:1"}
    result = CliRunner().invoke(app, command, env=nowhere)
    assert result.exit_code == 2
    assert "siyu:" in result.output
    assert "Traceback" not in result.output


@pytest.mark.timeout(90)
def test_watched_quotas_are_shown_again_until_one_has_seen_enough(
    kafka: LocalKafka, topics: None, send: Any, corp_id: str
) -> None:
    level = f"corp_api|{corp_id}|{TAG}"
    window = '{"id":"m","window":"sliding 1 min","used":1,"amount":10}'
    view = f'{{"windows":[{window}],"in_flight":0}}'.encode()
    send("quota.state", level, QuotaState(level, corp_id, TAG, 1, b"", view, wall_ms()))
    process = subprocess.Popen(
        [sys.executable, "-m", "siyu", "quota", "--corp", corp_id, "--watch"],
        env=os.environ | {"SIYU_KAFKA_BOOTSTRAP": kafka.bootstrap, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Whoever runs the tests in the background has Ctrl-C ignored, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    seen = b""
    while seen.count(b"Quotas") < 2:
        some = process.stdout.read1(4096)
        assert some, seen.decode()
        seen += some
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == DONE, rest.decode()
    assert b"Traceback" not in rest


@pytest.mark.parametrize(
    "command",
    [
        ["actions"],
        *(["actions", name] for name in ("show", "list", "retry", "cancel", "settle", "pause", "resume", "paused")),
        ["quota"],
        ["api-token"],
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == DONE
    assert "Usage" in result.output


def test_a_token_is_printed_once_and_a_name_has_one(tmp_path: Path) -> None:
    path = tmp_path / "tokens.yaml"
    made = CliRunner().invoke(app, ["api-token", "li.wei", "--role", "operator", "--file", str(path)])
    assert made.exit_code == DONE
    token = made.stdout.strip()
    assert read_tokens(path)[hash_of(token)].name == "li.wei"
    again = CliRunner().invoke(app, ["api-token", "li.wei", "--file", str(path)])
    assert again.exit_code == 2
    assert token not in again.output
    assert len(read_tokens(path)) == 1
