"""Whatever is done to a table, the comparison sees it; and its output names rows without showing ids."""

import io
import json

from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from siyu.audit.actions import busiest_second, check_parts, check_welcomes, in_parts, welcome_ends
from siyu.audit.compare import compare
from siyu.audit.model import Contact
from siyu.audit.report import Report, Section

keys = st.tuples(st.just("ww1"), st.text("abc", min_size=1, max_size=3))
rows = st.fixed_dictionaries({"gross_fen": st.integers(-5, 5), "staff_id": st.sampled_from(["", "s1", "s2"])})
tables = st.dictionaries(keys, rows, min_size=1, max_size=8)


def counts(section: Section) -> tuple[int, int, int]:
    return section.lost, section.double, section.different


@given(tables)
def test_a_table_equals_itself(table):
    section = compare("orders", "raw", table, list(table.items()))
    assert section.clean
    assert section.expected == section.found == len(table)


@given(tables, st.data())
def test_a_removed_row_is_lost_and_named(table, data):
    key = data.draw(st.sampled_from(sorted(table)))
    section = compare("orders", "raw", table, [item for item in table.items() if item[0] != key])
    assert counts(section) == (1, 0, 0)
    assert section.differences[0].key == key


@given(tables, st.data())
def test_a_repeated_row_is_double_and_named(table, data):
    key = data.draw(st.sampled_from(sorted(table)))
    section = compare("orders", "raw", table, [*table.items(), (key, table[key])])
    assert counts(section) == (0, 1, 0)
    assert section.differences[0].key == key


@given(tables, keys, rows)
def test_an_invented_row_is_double_and_named(table, key, row):
    assume(key not in table)
    section = compare("orders", "raw", table, [*table.items(), (key, row)])
    assert counts(section) == (0, 1, 0)
    assert section.differences[0].key == key


@given(tables, rows, st.data())
def test_an_altered_row_is_different_and_its_fields_are_named(table, row, data):
    key = data.draw(st.sampled_from(sorted(table)))
    assume(table[key] != row)
    section = compare("orders", "raw", table, list({**table, key: row}.items()))
    assert counts(section) == (0, 0, 1)
    assert set(section.differences[0].fields) == {name for name in row if row[name] != table[key][name]}


def printed(report: Report, show_keys: bool = False) -> str:
    out = io.StringIO()
    report.print(Console(file=out, width=200), show_keys=show_keys)
    return out.getvalue()


def test_no_id_is_shown_unless_asked_for(tmp_path):
    expected = {("ww1", "T-secret"): {"staff_id": "zhangsan", "gross_fen": 100}}
    found = [(("ww1", "T-secret"), {"staff_id": "lisi", "gross_fen": 200})]
    report = Report(sections=[compare("orders", "raw", expected, found)])
    report.write_json(tmp_path / "hidden.json")
    report.write_json(tmp_path / "shown.json", show_keys=True)
    hidden = printed(report) + (tmp_path / "hidden.json").read_text()
    for text in ("T-secret", "zhangsan", "lisi"):
        assert text not in hidden
        assert text in (tmp_path / "shown.json").read_text()
        assert text in printed(report, show_keys=True)
    assert "ww1 #" in hidden
    assert "'expected': 100, 'found': 200" in hidden
    written = json.loads((tmp_path / "hidden.json").read_text())
    assert written["clean"] is False
    assert written["sections"][0]["different"] == 1


def test_totals_that_differ_are_not_clean():
    assert Report(totals=[("gross ¥", 100, 100)]).clean
    report = Report(totals=[("gross ¥", 100, 101)])
    assert not report.clean
    assert "≠" in printed(report)


def welcome(action: str, event_id: str = "e1", status: str = "done", **fields):
    row = {"lane": "welcome", "staff_id": "s1", "customer_id": "c1", "caused_by": event_id, "status": status}
    return (("ww1", action), {**row, "endpoint": "x", "errcode": 0, "detail": "", "parent_id": "", **fields})


SCAN = Contact("ww1", "s1", "c1", "add", 1_772_330_400_000, "poster", "CODE", "e1")


def test_every_welcome_code_has_one_end():
    assert check_welcomes([SCAN], [welcome("a1")]).clean
    assert counts(check_welcomes([SCAN], [])) == (1, 0, 0)
    assert counts(check_welcomes([SCAN], [welcome("a1"), welcome("a2")])) == (0, 1, 0)
    assert counts(check_welcomes([], [welcome("a1")])) == (0, 1, 0)
    assert counts(check_welcomes([SCAN], [welcome("a1", customer_id="c2")])) == (1, 1, 0)


def test_an_end_is_of_the_closed_set_and_has_a_reason():
    assert counts(check_welcomes([SCAN], [welcome("a1", status="lost")])) == (0, 0, 1)
    assert counts(check_welcomes([SCAN], [welcome("a1", status="expired")])) == (0, 0, 1)
    ended = [welcome("a1", status="expired", detail="deadline_passed")]
    assert check_welcomes([SCAN], ended).clean
    assert welcome_ends(ended) == {"expired (deadline_passed)": 1}


def test_a_repeated_record_of_a_welcome_is_no_second_welcome():
    ends = [welcome("a1"), welcome("r1", status="rejected", detail="duplicate", parent_id="a1")]
    whole, parts = in_parts(ends)
    assert check_welcomes([SCAN], whole).clean
    assert welcome_ends(whole) == {"done": 1}
    assert check_parts(parts, ends, []).clean


def test_parts_belong_to_what_has_ended_or_is_under_way():
    send = (("ww1", "send"), {"state": "accepted", "deadline_ms": 0})
    chunk = welcome("chunk", lane="bulk", parent_id="send")
    person = welcome("person", lane="bulk", parent_id="chunk")
    _, parts = in_parts([chunk, person])
    assert check_parts(parts, [chunk, person], [send]).clean
    assert counts(check_parts(parts, [chunk, person], [])) == (0, 1, 0)
    assert counts(check_parts([person], [person], [send])) == (0, 1, 0)
    unknown = welcome("person", lane="bulk", parent_id="chunk", status="expired")
    assert counts(check_parts([unknown], [chunk], [])) == (0, 0, 1)
    elsewhere = (("ww2", "send"), {"state": "accepted", "deadline_ms": 0})
    assert counts(check_parts([chunk], [chunk], [elsewhere])) == (0, 1, 0)


def test_the_busiest_second_of_one_code_is_told():
    scans = [
        Contact("ww1", "s1", f"c{n}", "add", SCAN.time_ms + (1000 if n == 9 else 0), "poster", "CODE", f"e{n}")
        for n in range(10)
    ]
    outcomes = [welcome(f"a{n}", f"e{n}", customer_id=f"c{n}") for n in range(8)]
    pairs = {("ww1", "s1", f"c{n}") for n in range(10)}
    assert busiest_second(scans, pairs, outcomes) == {"scans": 9, "relationships": 9, "welcomes": 8}
