"""The ground truth of a run against ClickHouse."""

import json

import pytest

from siyu.audit.errors import FileError
from siyu.audit.model import COUNTERS, Contact
from siyu.audit.truth import check_truth, load_truth

T = 1_772_330_400_000
TRUTH = {
    "relationships": [
        {
            "corp_id": "ww1",
            "staff_id": "s1",
            "customer_id": "c1",
            "status": "friend",
            "staff_side": True,
            "customer_side": True,
            "channel": "poster",
            "episodes": [{"started_ms": T, "ended_ms": 0, "ended_by": ""}],
        }
    ],
    "orders": [
        {
            "corp_id": "ww1",
            "order_id": "T1",
            "customer_id": "c1",
            "collector_id": "",
            "pay_time_ms": T + 1000,
            "gross_fen": 500,
            "payment_type": 1,
            "refunds": [{"refund_id": "R1", "time_ms": T + 2000, "amount_fen": 200, "staff_id": "s1"}],
        }
    ],
    "welcomes": [
        {"corp_id": "ww1", "staff_id": "s1", "customer_id": "c1", "event_time_ms": T, "sent": True, "refused": []}
    ],
    "callbacks": {"planned": 1, "delivered": 1, "dropped": 0, "duplicates": 0},
    "untold": {"callbacks": [], "relationships": []},
}
CONTACTS = [Contact("ww1", "s1", "c1", "add", T, "poster", "CODE", "e1")]


def relationships():
    row = {"status": "friend", "staff_side": True, "customer_side": True, "channel": "poster"}
    return [(("ww1", "s1", "c1"), {**row, "first_added_ms": T, "episodes": [[T, 0, ""]], "event_time_ms": T})]


def orders():
    row = {"customer_id": "c1", "staff_id": "s1", "credit_rule": "owner", "paid": True, "pay_time_ms": T + 1000}
    money = {"gross_fen": 500, "refunded_fen": 200, "net_fen": 300, "payment_type": 1, "event_time_ms": T + 2000}
    return [(("ww1", "T1"), {**row, **money, "refunds": [["R1", T + 2000, 200]]})]


def staff_days():
    counts = {"adds": 1, "orders": 1, "gross_fen": 500, "refunds": 1, "refunded_fen": 200, "half_adds": 3}
    only_half = {**dict.fromkeys(COUNTERS, 0), "half_adds": 1}
    return [
        (("ww1", "s1", "2026-03-01"), {**dict.fromkeys(COUNTERS, 0), **counts}),
        (("ww1", "s2", "2026-03-01"), only_half),
    ]


def outcomes(status: str = "done"):
    row = {"lane": "welcome", "endpoint": "x", "staff_id": "s1", "customer_id": "c1", "caused_by": "e1"}
    return [(("ww1", "a1"), {**row, "status": status, "errcode": 0, "detail": "deadline_passed"})]


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(TRUTH))
    return load_truth(path)


def check(truth, pairs=None, order_rows=None, days=None, ends=None):
    tables = (pairs or relationships(), order_rows or orders(), days or staff_days(), ends or outcomes())
    return {s.name: (s.lost, s.double, s.different) for s in check_truth(truth, CONTACTS, tables)}


def test_what_agrees_is_clean_and_half_adds_are_not_the_truths_to_tell(truth):
    assert check(truth) == dict.fromkeys(("relationships", "orders", "staff days", "actions"), (0, 0, 0))


def test_sent_in_truth_means_recorded_as_sent(truth):
    assert check(truth, ends=outcomes("already_done"))["actions"] == (0, 0, 0)
    assert check(truth, ends=outcomes("expired"))["actions"] == (0, 0, 1)


@pytest.mark.parametrize(("status", "differences"), [("already_done", 0), ("expired", 0), ("done", 1), ("failed", 1)])
def test_the_second_code_of_an_acquaintance_that_was_welcomed_needs_no_second_welcome(truth, status, differences):
    truth.welcomes["ww1", "s1", "c1", T + 5000] = False
    contacts = [*CONTACTS, Contact("ww1", "s1", "c1", "add", T + 5000, "poster", "CODE2", "e2")]
    ((_, row),) = outcomes(status)
    tables = (relationships(), orders(), staff_days(), [*outcomes(), (("ww1", "a2"), {**row, "caused_by": "e2"})])
    actions = check_truth(truth, contacts, tables)[-1]
    assert (actions.lost, actions.double, actions.different) == (0, 0, differences)


def test_a_wrong_episode_is_different(truth):
    ((key, row),) = relationships()
    wrong = [(key, {**row, "episodes": [[T, T + 1, "staff"]]})]
    assert check(truth, pairs=wrong)["relationships"] == (0, 0, 1)


@pytest.mark.parametrize("content", ["no json", "[]", '{"relationships": [{}]}'])
def test_a_file_that_is_no_truth_is_refused(tmp_path, content):
    path = tmp_path / "truth.json"
    path.write_text(content)
    with pytest.raises(FileError, match=r"truth\.json"):
        load_truth(path)


def test_a_welcome_the_platform_refused_is_no_difference_if_it_did(tmp_path):
    refused = outcomes("failed")
    refused[0][1]["errcode"] = 41054
    for codes, different in (([41054], 0), ([], 1), ([41053], 1)):
        path = tmp_path / "truth.json"
        path.write_text(json.dumps({**TRUTH, "welcomes": [{**TRUTH["welcomes"][0], "sent": False, "refused": codes}]}))
        assert check(load_truth(path), ends=refused)["actions"] == (0, 0, different)


def test_what_no_callback_has_told_is_not_expected_of_us(tmp_path):
    gone = {**TRUTH["relationships"][0], "customer_id": "c2", "status": "deleted_by_customer", "customer_side": False}
    gone["episodes"] = [{"started_ms": T, "ended_ms": T + 9000, "ended_by": "customer"}]
    friend = {**gone, "status": "friend", "customer_side": True, "episodes": TRUTH["relationships"][0]["episodes"]}
    never = {**gone, "customer_id": "c3"}
    lost = {"corp_id": "ww1", "staff_id": "s1", "change": "delete_by_customer", "time_ms": T + 9000}
    untold = {
        "callbacks": [{**lost, "customer_id": "c2"}, {**lost, "customer_id": "c3", "change": "add", "time_ms": T}],
        "relationships": [friend],
    }
    code = {**TRUTH["welcomes"][0], "customer_id": "c3", "sent": False}
    document = {
        **TRUTH,
        "relationships": [*TRUTH["relationships"], gone, never],
        "welcomes": [*TRUTH["welcomes"], code],
        "untold": untold,
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document))
    truth = load_truth(path)
    (key, row), *_ = relationships()
    known = [(key, row), (("ww1", "s1", "c2"), row)]
    days = staff_days()
    days[0][1]["adds"] = 2
    assert check(truth, pairs=known, days=days) == dict.fromkeys(
        ("relationships", "orders", "staff days", "actions"), (0, 0, 0)
    )
    document["untold"] = TRUTH["untold"]
    path.write_text(json.dumps(document))
    assert check(load_truth(path), pairs=known, days=days)["relationships"] == (1, 0, 1)
