"""What ClickHouse is asked: one view of each action, whichever of the two topics is ahead."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from made import SEND, TAG, entry, ids, outcome

from deploy.local.clickhouse import LocalClickHouse
from deploy.local.ports import free_ports
from siyu.actions.errors import Invalid, Unavailable
from siyu.actions.model import hashed
from siyu.actions.store import MOST, ActionStore, Filter

pytestmark = pytest.mark.integration

Insert = Callable[..., None]
NOW = 1_790_913_600_000


def test_an_action_that_ended_shows_its_end_and_why_it_was_admitted(
    store: ActionStore, insert: Insert, corp_id: str
) -> None:
    limit = {"id": "corp_api_minute", "window": "sliding 1 min", "used": 3, "amount": 10, "allowed": 8}
    admission = {
        "at_ms": NOW,
        "lane": "bulk",
        "levels": [{"level": f"customer_api|{corp_id}|wmPerson|{TAG}", "limits": [limit | {"allowance_percent": 50}]}],
    }
    insert(
        entry(
            corp_id,
            "a1",
            "prepared",
            endpoint=TAG,
            not_before_ms=NOW + 5,
            admitted_at_ms=NOW,
            limits_revision="r1",
            admission=json.dumps(admission).encode(),
        ),
        outcome(corp_id, "a1", "rejected", errcode=60011),
    )
    known = store.find("a1")
    assert known is not None
    view = known.view
    assert (view.state, view.status, view.errcode, view.not_before_ms) == ("ended", "rejected", 60011, NOW + 5)
    assert view.customer == hashed("wmPerson")
    assert (known.subject, known.finished_at_ms) == (f"{corp_id}|wmPerson", view.updated_at_ms)
    assert known.admission is not None
    (level,) = known.admission.levels
    assert (known.admission.limits_revision, level.limits[0].used, level.limits[0].allowance_percent) == ("r1", 3, 50)
    assert "wmPerson" not in level.level
    named = store.find("a1", people=True)
    assert named is not None
    assert named.view.customer == "wmPerson"
    assert named.admission is not None
    assert "wmPerson" in named.admission.levels[0].level


def test_an_action_under_way_has_no_end(store: ActionStore, insert: Insert, corp_id: str) -> None:
    insert(entry(corp_id, "a1", "in_doubt", due_ms=NOW, calls=1))
    known = store.find("a1")
    assert known is not None
    assert (known.view.state, known.view.status, known.view.due_ms, known.finished_at_ms) == ("in_doubt", None, NOW, 0)
    assert known.admission is None
    assert store.find("a2") is None
    assert store.find("a1", corp_id="other") is None


def test_an_id_that_two_corps_have_needs_the_corp(store: ActionStore, insert: Insert, corp_id: str) -> None:
    insert(outcome(corp_id, "a1"), entry(corp_id + "b", "a1"))
    with pytest.raises(Invalid):
        store.find("a1")
    known = store.find("a1", corp_id=corp_id)
    assert known is not None
    assert known.view.status == "failed"


def test_pages_hold_every_action_once_newest_first(store: ActionStore, insert: Insert, corp_id: str) -> None:
    # Several of one moment; some only in the ledger, some only among the outcomes, some in both.
    insert(*(outcome(corp_id, f"o{n}", created_ms=NOW + n // 3) for n in range(20)))
    insert(*(entry(corp_id, f"l{n}", created_ms=NOW + n // 2) for n in range(10)))
    insert(*(entry(corp_id, f"o{n}", "prepared", created_ms=NOW + n // 3) for n in range(0, 20, 2)))
    whole: list[str] = []
    pages, cursor = 0, ""
    created: list[int] = []
    while True:
        page, following = store.page(Filter(corp_id=corp_id), limit=4, cursor=cursor)
        assert len(page) <= 4
        whole += ids(page)
        created += [view.created_ms for view in page]
        pages += 1
        if following is None:
            break
        cursor = following
    assert sorted(whole) == sorted([f"o{n}" for n in range(20)] + [f"l{n}" for n in range(10)])
    assert created == sorted(created, reverse=True)
    assert pages <= 12


def test_the_longest_page_can_be_asked_for(store: ActionStore, insert: Insert, corp_id: str) -> None:
    strange = "it's a \\ 'strange\\' id %s {corp:String}"
    insert(
        *(entry(corp_id, f"{n:064d}", created_ms=NOW) for n in range(MOST)), entry(corp_id, strange, created_ms=NOW + 1)
    )
    page, following = store.page(Filter(corp_id=corp_id), limit=MOST)
    assert len(page) == MOST
    assert page[0].action_id == strange
    assert following is not None
    insert(outcome(corp_id, strange, created_ms=NOW + 1))
    page, following = store.page(Filter(corp_id=corp_id, state="open"), limit=MOST)
    assert (len(page), following) == (MOST, None)


def test_an_outcome_ends_an_action_even_while_the_ledger_says_otherwise(
    store: ActionStore, insert: Insert, corp_id: str
) -> None:
    insert(entry(corp_id, "a1", "prepared", created_ms=NOW), outcome(corp_id, "a1", "done", created_ms=NOW))
    insert(entry(corp_id, "a2", "prepared", created_ms=NOW))
    open_ones, _ = store.page(Filter(corp_id=corp_id, state="open"), limit=10)
    assert ids(open_ones) == ["a2"]
    (ended,), _ = store.page(Filter(corp_id=corp_id, state="ended"), limit=10)
    assert (ended.action_id, ended.status) == ("a1", "done")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, {"a", "b", "c", "d"}),
        ({"lane": "urgent"}, {"b"}),
        ({"status": "done"}, {"b"}),
        ({"state": "in_doubt"}, {"d"}),
        ({"state": "open"}, {"c", "d"}),
        ({"state": "ended"}, {"a", "b"}),
        ({"state": "open", "status": "done"}, set()),
        ({"campaign_id": "autumn"}, {"a", "c"}),
        ({"staff_id": "s2"}, {"c"}),
        ({"endpoint": SEND}, {"c", "d"}),
        ({"since_ms": NOW + 2}, {"b", "c"}),
        ({"parent_id": None}, {"a", "b", "c", "d", "part"}),
        ({"parent_id": "a"}, {"part"}),
    ],
)
def test_a_list_holds_what_fits(
    wanted: dict[str, object], found: set[str], store: ActionStore, insert: Insert, corp_id: str
) -> None:
    insert(
        outcome(corp_id, "a", created_ms=NOW, campaign_id="autumn"),
        outcome(corp_id, "b", "done", created_ms=NOW + 2, lane="urgent"),
        entry(corp_id, "c", created_ms=NOW + 3, campaign_id="autumn", staff_id="s2"),
        entry(corp_id, "d", "in_doubt", created_ms=NOW + 1),
        outcome(corp_id, "part", created_ms=NOW, parent_id="a"),
    )
    page, following = store.page(Filter(corp_id=corp_id, **wanted), limit=50)  # type: ignore[arg-type]
    assert set(ids(page)) == found
    assert following is None


def test_a_list_of_something_that_is_none_is_refused(store: ActionStore) -> None:
    for wanted, limit, cursor in ((Filter(state="lost"), 1, ""), (Filter(), 0, ""), (Filter(), 501, "")):
        with pytest.raises(Invalid):
            store.page(wanted, limit=limit, cursor=cursor)
    for cursor in ("x", "e30", "W10", "WzEsMiwzXQ", "é"):
        with pytest.raises(Invalid) as refused:
            store.page(Filter(), limit=1, cursor=cursor)
        assert refused.value.field == "cursor"


def test_a_send_shows_its_chunks_and_counts_its_people_by_status(
    store: ActionStore, insert: Insert, corp_id: str
) -> None:
    insert(entry(corp_id, "send", "accepted"))
    insert(
        outcome(corp_id, "chunk0", "done", parent_id="send", customer_id="", endpoint=SEND, message_id="msg0"),
        entry(corp_id, "chunk0", "accepted", parent_id="send", message_id="msg0"),
        entry(corp_id, "chunk1", "in_doubt", parent_id="send"),
        *(outcome(corp_id, f"p{n}", "done", parent_id="chunk0", customer_id=f"wm{n}") for n in range(7)),
        outcome(corp_id, "p7", "rejected", parent_id="chunk0", customer_id="wm7", detail="not_friend"),
        outcome(corp_id, "p8", "suppressed", parent_id="send", customer_id="wm8", detail="suppressed"),
        # A group chat is no customer.
        outcome(corp_id, "p9", "done", parent_id="chunk0", customer_id=""),
        # A second record of the same action has an end of its own.
        entry(corp_id, "again", "ended", parent_id="send", status="rejected", detail="duplicate"),
        outcome(corp_id, "again", "rejected", parent_id="send", detail="duplicate"),
        outcome(corp_id, "elsewhere", "done", parent_id="other"),
    )
    parts = store.parts(corp_id, "send")
    assert {chunk.action_id: chunk.status or chunk.state for chunk in parts.chunks} == {
        "chunk0": "done",
        "chunk1": "in_doubt",
    }
    assert (parts.chunk_count, parts.repeated_records) == (2, 1)
    assert {(count.status, count.detail): count.count for count in parts.people} == {
        ("done", "ok"): 8,
        ("rejected", "not_friend"): 1,
        ("suppressed", "suppressed"): 1,
    }
    assert store.accepted_parts(corp_id, "send") == 8 + 1 + 1
    assert store.doubtful_parts(corp_id, "send") == 1
    assert store.doubtful_parts(corp_id, "chunk0") == 0
    assert store.accepted_parts(corp_id, "other") == 1
    assert store.accepted_parts(corp_id, "p7") == 0
    assert store.parts(corp_id, "p7").chunks == []


def test_an_id_is_never_read_as_sql(store: ActionStore, insert: Insert, corp_id: str) -> None:
    insert(outcome(corp_id, "a1"))
    for text in ("' OR 1 --", "a1' OR '1'='1", "\\' OR 1 --", "{corp:String}", "a1\\", "\x00", "🙂"):
        assert store.find(text) is None
        assert store.page(Filter(corp_id=text), limit=1) == ([], None)


def test_a_store_that_is_away_says_so_and_serves_again_when_it_is_back(
    clickhouse: LocalClickHouse, store: ActionStore, database: str
) -> None:
    (nobody,) = free_ports(1)
    away = ActionStore(f"http://127.0.0.1:{nobody}", database=database)
    with pytest.raises(Unavailable):
        away.find("a1")
    with pytest.raises(Unavailable):
        ActionStore(clickhouse.url, database="nowhere").check()
    store.check()
    assert store.find("a1") is None
