import datetime
from pathlib import Path

import msgspec
import pytest

from siyu.ops.dated import ByDate, beijing_midnight_ms, by_date, load_yaml

HOUR_MS = 3_600_000
FIRST, SECOND = datetime.date(2026, 1, 1), datetime.date(2026, 6, 1)


class Refused(ValueError):
    pass


class File(msgspec.Struct, forbid_unknown_fields=True):
    amount: int


def test_a_day_of_the_platform_begins_eight_hours_before_that_of_utc() -> None:
    utc = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp() * 1000
    assert beijing_midnight_ms(FIRST) == utc - 8 * HOUR_MS


def test_a_version_holds_from_its_first_moment_to_that_of_the_next() -> None:
    versions = by_date("rules", [(FIRST, "first"), (SECOND, "second")], Refused)
    change_ms = beijing_midnight_ms(SECOND)
    assert [versions.at(at) for at in (0, change_ms - 1, change_ms, change_ms * 2)] == [
        "first",
        "first",
        "second",
        "second",
    ]


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ([], "rules x: no version"),
        ([(FIRST, "a"), (FIRST, "b")], "rules x: versions must have ascending effective_from"),
        ([(SECOND, "a"), (FIRST, "b")], "rules x: versions must have ascending effective_from"),
    ],
)
def test_versions_without_a_clear_order_are_refused(versions: list[tuple[datetime.date, str]], message: str) -> None:
    with pytest.raises(Refused, match=f"^{message}$"):
        by_date("rules x", versions, Refused)


def test_one_version_holds_for_ever() -> None:
    assert ByDate([(5, "only")]).at(0) == "only"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"amount: [", "not YAML"),
        (b"amount: \xff", "not YAML"),
        (b"amount: many", "Expected `int`"),
        (b"amount: 1\nmore: 2", "unknown field `more`"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "rules.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused, match=f"^limits {path}: .*{message}"):
        load_yaml(path, "limits", File, Refused)


def test_a_file_of_the_right_form_is_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("amount: 3")
    assert load_yaml(path, "limits", File, Refused).amount == 3
