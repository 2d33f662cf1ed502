"""What `siyu limits` does without Kafka."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from siyu.cli import app
from siyu.events import schemas_dir

RUNNER = CliRunner()
NOBODY = ["--kafka-bootstrap", "127.0.0.1:1"]


def shipped(*arguments: str) -> dict[str, list[dict[str, object]]]:
    done = RUNNER.invoke(app, ["limits", "show", "--folder", str(schemas_dir() / "limits"), "--json", *arguments])
    assert done.exit_code == 0, done.output
    answer: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return answer


def test_show_names_the_limits_of_another_day() -> None:
    amounts = {
        day: {x["id"]: x["amount"] for x in shipped("--at", day)["limits"]}["corp_api_minute"]
        for day in ("2025-10-31T23:59:59", "2025-11-01", "2025-10-31T16:00:00+00:00")
    }
    assert amounts == {"2025-10-31T23:59:59": 2_000, "2025-11-01": 10_000, "2025-10-31T16:00:00+00:00": 10_000}


def test_show_of_an_endpoint_names_what_holds_for_it() -> None:
    ids = {x["id"] for x in shipped("--endpoint", "message/send", "--corp", "ww1")["limits"]}
    assert {"app_message_day", "app_message_members", "corp_api_concurrency"} <= ids
    assert "corp_api_minute" not in ids
    assert "jsapi_ticket_corp_hour" not in ids
    assert "kf_messages_48_hours" in {x["id"] for x in shipped("--endpoint", "kf/send_msg")["limits"]}


def test_show_of_a_corp_names_its_own_limits_only(folder: Callable[..., Path]) -> None:
    made = folder(
        "limits:\n  - {id: more, overrides: minute, corps: [ww1], scope: corp_api, window: sliding 1 min, "
        "amount: 500, block: window, effective_from: 2026-01-01, source: s, confidence: c}\n"
    )

    def ids(*arguments: str) -> list[str]:
        done = RUNNER.invoke(app, ["limits", "show", "--folder", str(made), "--json", "--at", "2026-06-01", *arguments])
        return [x["id"] for x in json.loads(done.stdout)["limits"]]

    endpoint = ["--endpoint", "externalcontact/get"]
    assert ids("--corp", "ww1", *endpoint) == ["at_once", "more"]
    assert ids("--corp", "ww2", *endpoint) == ["at_once", "minute"]
    assert ids(*endpoint) == ["at_once", "minute", "more"]
    assert ids("--corp", "ww2") == ["at_once", "minute"]


def test_show_as_a_table_names_amounts_and_lanes() -> None:
    done = RUNNER.invoke(app, ["limits", "show", "--folder", str(schemas_dir() / "limits"), "--at", "2026-11-22"])
    assert done.exit_code == 0
    assert "10,000" in done.stdout
    assert "bulk 80%" in done.stdout


def test_check_says_what_is_wrong_where(folder: Callable[..., Path]) -> None:
    made = folder("limits:\n  - id: mine\n    scope: nobody\n")
    done = RUNNER.invoke(app, ["limits", "check", str(made)])
    assert done.exit_code == 1
    assert f"{made / 'more.yaml'}:3: scope: " in done.stderr.replace("\n", "")
    assert RUNNER.invoke(app, ["limits", "check", str(folder())]).exit_code == 0
    assert RUNNER.invoke(app, ["limits", "check", str(made / "nothing")]).exit_code == 2


def test_without_kafka_it_says_so_and_what_works_without() -> None:
    done = RUNNER.invoke(app, ["limits", "show", *NOBODY])
    assert done.exit_code == 2
    assert "Kafka at 127.0.0.1:1 does not answer" in done.stderr
    assert "--folder" in done.stderr


def test_apply_needs_a_name_and_a_reason(folder: Callable[..., Path]) -> None:
    done = RUNNER.invoke(app, ["limits", "apply", str(folder()), "--author", "a", "--reason", " ", *NOBODY])
    assert done.exit_code == 2
    assert "must say something" in done.stderr


def test_a_time_that_is_none_is_refused() -> None:
    done = RUNNER.invoke(app, ["limits", "show", "--at", "noon", *NOBODY])
    assert done.exit_code == 2
    assert "'noon' is neither a day nor a time" in done.stderr
