"""Secrets and personal data stay out of messages; wrong files are named by corp and field."""

from __future__ import annotations

import json
import logging

import pytest
from pydantic import ValidationError

from siyu.ops.corps import CorpsError, load_corps
from siyu.ops.logging import configure_logging, get_logger, in_every_line
from siyu.ops.settings import REDACTED, ServiceSettings

CORP = {
    "corp_id": "ww1",
    "agent_id": "1000002",
    "secret": "verysecretvalue",
    "callback_token": "QDG6eK",
    "callback_aes_key": "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C",
}


def test_corps_are_read_by_id_and_show_no_secret(tmp_path) -> None:
    path = tmp_path / "corps.yaml"
    path.write_text(json.dumps({"corps": [CORP, {**CORP, "corp_id": "ww2"}]}))
    corps = load_corps(path)
    assert list(corps) == ["ww1", "ww2"]
    for value in ("secret", "callback_token", "callback_aes_key"):
        assert CORP[value] not in repr(corps)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"callback_aes_key": "tooshort1"}, "callback_aes_key"),
        ({"callback_token": "with space9"}, "callback_token"),
        ({"corp_id": "a|b"}, "corp_id"),
        ({"secret": ""}, "secret"),
        ({"agent_id": 7}, "agent_id"),
        ({"surplus": "x9x9x9"}, "surplus"),
    ],
)
def test_a_wrong_corp_is_refused_by_field_and_never_by_value(tmp_path, change: dict[str, object], names: str) -> None:
    path = tmp_path / "corps.yaml"
    path.write_text(json.dumps({"corps": [CORP | change]}))
    with pytest.raises(CorpsError) as caught:
        load_corps(path)
    assert names in str(caught.value)
    for value in [*change.values(), "verysecretvalue"]:
        assert not value or str(value) == "7" or str(value) not in str(caught.value)


@pytest.mark.parametrize("content", ["corps: []", "corps: [", "", "just text"])
def test_a_corps_file_without_corps_is_refused(tmp_path, content: str) -> None:
    path = tmp_path / "corps.yaml"
    path.write_text(content)
    with pytest.raises(CorpsError):
        load_corps(path)
    with pytest.raises(CorpsError, match="SIYU_CORPS"):
        load_corps(tmp_path / "missing.yaml")


def test_a_corp_stands_once(tmp_path) -> None:
    path = tmp_path / "corps.yaml"
    path.write_text(json.dumps({"corps": [CORP, CORP]}))
    with pytest.raises(CorpsError, match="twice"):
        load_corps(path)


class Settings(ServiceSettings):
    clickhouse_password: str = "hunter2"


def test_settings_come_from_the_environment_are_frozen_and_print_without_secrets(monkeypatch) -> None:
    monkeypatch.setenv("SIYU_METRICS_PORT", "9105")
    settings = Settings()
    assert settings.metrics_port == 9105
    assert settings.redacted()["clickhouse_password"] == REDACTED
    with pytest.raises(ValidationError):
        settings.metrics_port = 1  # type: ignore[misc]
    monkeypatch.setenv("SIYU_METRICS_PORT", "70000")
    with pytest.raises(ValidationError):
        Settings()


def _lines(capsys) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_log_line_is_json_with_declared_fields_only(capsys) -> None:
    configure_logging("test")
    get_logger().info("applied", event_id="e1", customer="wm123", name="李四")
    (line,) = _lines(capsys)
    assert line["event_id"] == "e1"
    assert line["service"] == "test"
    assert line["undeclared"] == ["customer", "name"]
    assert "wm123" not in json.dumps(line)
    assert "李四" not in json.dumps(line, ensure_ascii=False)


def test_an_exception_is_logged_by_class_and_place_without_its_text(capsys) -> None:
    configure_logging("test")
    try:
        raise ValueError("phone 13800000001")
    except ValueError:
        get_logger().error("stopped", exc_info=True)
    (line,) = _lines(capsys)
    assert line["error"] == "ValueError"
    assert line["stack"]
    assert "13800000001" not in json.dumps(line)


def test_libraries_log_their_format_string_without_arguments(capsys) -> None:
    configure_logging("test")
    logging.getLogger("somelibrary").warning("rejected %s", "13800000001")
    logging.getLogger("somelibrary").info("chatter")
    (line,) = _lines(capsys)
    assert line["message"] == "rejected %s"
    assert "13800000001" not in json.dumps(line)


def test_fields_of_the_process_are_in_every_line(capsys, monkeypatch) -> None:
    monkeypatch.setattr("siyu.ops.logging._of_this_process", {})
    in_every_line(worker=1)
    configure_logging("test")
    get_logger().info("applied")
    logging.getLogger("somelibrary").warning("rejected")
    assert [line["worker"] for line in _lines(capsys)] == [1, 1]
