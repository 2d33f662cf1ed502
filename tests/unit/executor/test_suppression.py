import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor import suppression
from services.executor.suppression import SuppressionError, SuppressionTable, suppression_key
from siyu.events import CodecError, Suppression, codec

PEOPLE = ("c1", "c2", "c3")
SOURCES = ("shop", "consent")


def record(customer_id: str = "c1", active: int = 1, at_ms: int = 1000, source: str = "shop") -> Suppression:
    return Suppression(
        corp_id="ww1",
        customer_id=customer_id,
        active=active,
        reason="asked",
        source=source,
        event_time_ms=at_ms,
        written_at_ms=0,
    )


def table_of(*records: Suppression) -> SuppressionTable:
    table = SuppressionTable()
    for said in records:
        table.apply(suppression_key(said), codec().encode(said))
    return table


def verdicts(table: SuppressionTable) -> dict[str, bool]:
    return {person: table.suppressed("ww1", person) for person in PEOPLE}


RECORDS = st.lists(
    st.builds(
        record,
        customer_id=st.sampled_from(PEOPLE),
        active=st.integers(0, 1),
        at_ms=st.integers(0, 5),
        source=st.sampled_from(SOURCES),
    ),
    max_size=12,
)


def test_nobody_is_suppressed_before_somebody_says_so() -> None:
    assert not table_of().suppressed("ww1", "c1")
    assert table_of(record("c1")).suppressed("ww1", "c1")
    assert not table_of(record("c1")).suppressed("ww1", "c2")
    assert not table_of(record("c1")).suppressed("ww2", "c1")


def test_the_newest_word_counts_and_of_two_at_the_same_time_the_one_that_forbids() -> None:
    assert not table_of(record(active=1, at_ms=1), record(active=0, at_ms=2)).suppressed("ww1", "c1")
    assert table_of(record(active=0, at_ms=1), record(active=1, at_ms=2)).suppressed("ww1", "c1")
    assert table_of(record(active=1, at_ms=2), record(active=0, at_ms=1)).suppressed("ww1", "c1")
    assert table_of(record(active=1, at_ms=2), record(active=0, at_ms=2)).suppressed("ww1", "c1")
    assert table_of(record(active=0, at_ms=2), record(active=1, at_ms=2)).suppressed("ww1", "c1")


@given(records=RECORDS, data=st.data())
def test_neither_order_nor_repeats_change_the_answer(records: list[Suppression], data: st.DataObject) -> None:
    expected: dict[str, bool] = {}
    for person in PEOPLE:
        said = [r for r in records if r.customer_id == person]
        newest = max(said, key=lambda r: (r.event_time_ms, r.active), default=None)
        expected[person] = newest is not None and newest.active == 1
    table = table_of(*records)
    assert verdicts(table) == expected
    assert len(table) == sum(expected.values())
    assert verdicts(table_of(*data.draw(st.permutations(records + records[:3])))) == expected


@given(records=RECORDS, data=st.data())
def test_compaction_of_the_topic_changes_no_answer(records: list[Suppression], data: st.DataObject) -> None:
    """Each source writes in the order of its own times, and between them any order is possible."""
    log: list[Suppression] = []
    waiting = {source: sorted((r for r in records if r.source == source), key=_time) for source in SOURCES}
    while any(waiting.values()):
        log.append(waiting[data.draw(st.sampled_from([s for s in SOURCES if waiting[s]]))].pop(0))
    compacted = {suppression_key(said): said for said in log}
    assert verdicts(table_of(*compacted.values())) == verdicts(table_of(*log))


def _time(said: Suppression) -> int:
    return said.event_time_ms


def test_people_who_share_a_place_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "_hash", lambda corp_id, customer_id: (int(customer_id), int(customer_id) % 3))
    table = SuppressionTable()
    for person in range(900):
        table.put(record(str(person), active=person % 2))
    assert all(table.suppressed("ww1", str(person)) == bool(person % 2) for person in range(900))
    assert not table.suppressed("ww1", "901")


def test_a_million_people_fit_in_a_tenth_of_a_gigabyte_even_while_the_table_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    most = 0
    grow: Callable[[SuppressionTable], None] = SuppressionTable._grow

    def growing(table: SuppressionTable) -> None:
        nonlocal most
        before = table.bytes_held
        grow(table)
        most = max(most, before + table.bytes_held)

    numbers = itertools.count()
    monkeypatch.setattr(SuppressionTable, "_grow", growing)
    monkeypatch.setattr(suppression, "_hash", lambda corp_id, customer_id: (1, next(numbers) * 7))
    table, anybody = SuppressionTable(), record()
    for _ in range(1_000_000):
        table.put(anybody)
    assert len(table) == 1_000_000
    assert table.bytes_held < 60_000_000
    assert most < 100_000_000


def test_when_the_word_that_counts_was_said() -> None:
    table = table_of(record(active=1, at_ms=7), record(active=0, at_ms=3))
    assert table.newest_ms("ww1", "c1") == 7
    assert table.newest_ms("ww1", "c2") is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"customer_id": ""}, "empty"),
        ({"customer_id": "a|b"}, "holds |"),
        ({"active": 2}, "active"),
        ({"at_ms": -1}, "no time"),
        ({"at_ms": 1 << 61}, "no time"),
    ],
)
def test_a_record_that_does_not_say_who_or_when_is_refused_without_naming_anybody(
    change: dict[str, object], says: str
) -> None:
    table = table_of(record("c1"))
    bad = record(**change)  # type: ignore[arg-type]
    with pytest.raises(SuppressionError) as caught:
        table.apply(b"k", codec().encode(bad))
    assert says in str(caught.value)
    assert "a|b" not in str(caught.value)
    assert len(table) == 1


def test_a_tombstone_and_a_broken_record_lift_nothing() -> None:
    table = table_of(record("c1"))
    with pytest.raises(SuppressionError, match="tombstone"):
        table.apply(suppression_key(record("c1")), None)
    with pytest.raises(CodecError):
        table.apply(suppression_key(record("c1")), b"broken")
    assert table.suppressed("ww1", "c1")


def test_the_latest_time_a_record_can_have_fits() -> None:
    latest = (1 << 61) - 1
    table = table_of(record(active=1, at_ms=latest))
    assert table.suppressed("ww1", "c1")
    assert table.newest_ms("ww1", "c1") == latest
