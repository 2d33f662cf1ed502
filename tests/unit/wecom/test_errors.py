from pathlib import Path

import pytest

from siyu.events import schemas_dir
from siyu.wecom.endpoints import GETTOKEN
from siyu.wecom.errors import ErrorTable, ErrorTableError, load_error_tables

WELCOME = "externalcontact/send_welcome_msg"
BILLS = "externalpay/get_bill_list"
FILE = schemas_dir() / "rules" / "wecom-errors.yaml"

# Every code of the platform's table (edition 2026-07) that has a row in ours.
DOCUMENTED = """
0 -1 6000 40001 40003 60111 46004 40007 40145 40013 40014 41001 42001 40031 40032 40035 40058 40063 40206 40056 301002
40068 41110 41111 40071 40072 40096 40097 40098 40099 40100 40129 40126 40128 40130 40131 40143 40144 40201 40204 40205
41035 41037-41045 41046 41047 41048 41050 41051 41053 41054 41055 41058 41059-41062 41067 41063 41064 41065 41072
41080-41082 41078 41079 41088 41089 41093 41094 41095 41096 41200 41305 41201 41210 41211 41300-41304 42014 42016 60140
42052 43009 43012 45002 45008 45009 45024 45033 45035 45036 48001 48002 48005 48006 48007 48010 48011 49008 50001 50002
50003 50006 50100 60268 60011 60021 60030 92000 60020 301042 60031 60235-60243 660001-660014 81013 81017 82001 84061
84074 84083 84084 90500-90511 90514 90600 95000-95033 301007 301021 301048 301052 301053 301058 301060 610003 610004
610014-610018 610023 610024 701008 701016 701099 845001-845003 2400007
"""


def codes(text: str) -> set[int]:
    found: set[int] = set()
    for item in text.split():
        first, dash, last = item.partition("-") if not item.startswith("-") else (item, "", "")
        found |= set(range(int(first), int(last) + 1)) if dash else {int(first)}
    return found


@pytest.fixture(scope="module")
def table() -> ErrorTable:
    return load_error_tables(FILE).at(2_000_000_000_000)


def test_every_documented_code_has_a_rule_and_no_other(table: ErrorTable) -> None:
    assert table.codes == codes(DOCUMENTED)


def test_a_code_nobody_documented_is_never_retried(table: ErrorTable) -> None:
    rule = table.rule(123456, BILLS)
    assert (rule.action, rule.status, rule.detail) == ("fix", "failed", "unknown_errcode")


@pytest.mark.parametrize(
    ("code", "endpoint", "action", "status", "detail"),
    [
        (0, BILLS, "ok", "failed", ""),
        (-1, BILLS, "retry", "failed", "retries_used_up"),
        (40001, GETTOKEN, "fix", "failed", "fix_needed"),
        (40001, BILLS, "token", "failed", "token_refused"),
        (40014, BILLS, "token", "failed", "token_refused"),
        (45009, BILLS, "wait", "failed", ""),
        (45033, BILLS, "slow", "failed", "retries_used_up"),
        (45036, BILLS, "slow", "failed", "human_needed"),
        (41050, WELCOME, "state", "expired", "code_expired"),
        (41051, WELCOME, "state", "already_done", "already_welcomed"),
        (84061, BILLS, "state", "rejected", "not_a_customer"),
        (60020, BILLS, "human", "failed", "human_needed"),
        (40096, BILLS, "state", "rejected", "refused"),
    ],
)
def test_what_a_code_gets(table: ErrorTable, code: int, endpoint: str, action: str, status: str, detail: str) -> None:
    rule = table.rule(code, endpoint)
    assert (rule.action, rule.status, rule.detail) == (action, status, detail)


def test_times_of_the_rules(table: ErrorTable) -> None:
    assert (table.rule(-1, BILLS).tries, table.rule(-1, BILLS).delay_ms) == (3, 1000)
    assert table.rule(41096, WELCOME).until_deadline
    assert table.rule(41063, BILLS).delay_ms == 60_000
    slow = table.rule(45033, BILLS)
    assert (slow.delay_ms, slow.delay_max_ms) == (500, 3000)
    young = table.rule(84061, BILLS)
    assert young.young_ms == 60_000
    assert 2000 <= young.delay_ms <= 5000


VERSION = """
  - version: "{version}"
    effective_from: {day}
    source: s
    confidence: c
    defaults: {{retry: {{tries: 3, delay_ms: 1000}}}}
    codes: [{{codes: [0], action: ok, meaning: m}}, {codes}]
    overrides: [{overrides}]
"""
FINE = "{codes: [5], action: fix, meaning: m}"


def write(path: Path, codes: str = FINE, overrides: str = "", **versions: str) -> Path:
    versions = versions or {"a": "2026-01-01"}
    path.write_text(
        "versions:"
        + "".join(
            VERSION.format(version=name, day=day, codes=codes, overrides=overrides) for name, day in versions.items()
        )
    )
    return path


def test_the_version_of_the_time_is_used(tmp_path: Path) -> None:
    tables = load_error_tables(write(tmp_path / "t.yaml", a="2026-01-01", b="2026-06-01"))
    begin_of_b = 1_780_243_200_000  # 2026-06-01 00:00 in Shanghai
    assert [tables.at(t).version for t in (0, begin_of_b - 1, begin_of_b)] == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("codes", "overrides", "message"),
    [
        ("{codes: [5, 5], action: fix, meaning: m}", "", "stands twice"),
        ('{codes: ["9-5"], action: fix, meaning: m}', "", "no range"),
        ("{codes: [5], action: ok, meaning: m}", "", "only 0 is ok"),
        ("{codes: [5], action: slow, meaning: m}", "", "no defaults for slow"),
        ("{codes: [5], action: nap, meaning: m}", "", "Invalid enum value"),
        ("{codes: [5], action: fix, meaning: m, retires: 3}", "", "unknown field"),
        ("{codes: [5], action: fix, meaning: m, wait_ms: 3}", "", "needs action wait"),
        ("{codes: [5], action: state, meaning: m, young_ms: 3}", "", "needs action state and a delay_ms"),
        ("{codes: [5], action: fix, meaning: m, endpoint: gettoken}", "", "belongs under overrides"),
        (FINE, "{codes: [5], action: fix, meaning: m, endpoint: nowhere}", "unknown endpoint"),
        (FINE, "{codes: [6], action: fix, meaning: m, endpoint: gettoken}", "has no code"),
    ],
)
def test_an_inconsistent_table_is_refused(tmp_path: Path, codes: str, overrides: str, message: str) -> None:
    with pytest.raises(ErrorTableError, match=message):
        load_error_tables(write(tmp_path / "t.yaml", codes, overrides))


def test_a_missing_file_and_wrong_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ErrorTableError, match="No such file"):
        load_error_tables(tmp_path / "none.yaml")
    with pytest.raises(ErrorTableError, match="ascending"):
        load_error_tables(write(tmp_path / "t.yaml", a="2026-06-01", b="2026-01-01"))
