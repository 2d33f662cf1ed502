"""The disk never holds states without the position they belong to, nor another topology's states."""

from pathlib import Path

import msgspec
import pytest

from siyu.stream import ForeignStore, Processor
from siyu.stream.state import StateCodec
from siyu.stream.store import StateStore, StoreLocked, topology


class Total(msgspec.Struct):
    total: int


def processor(**changes: object) -> Processor[Total]:
    fields: dict[str, object] = {
        "name": "totals",
        "inputs": ("sales", "refunds"),
        "outputs": frozenset[str](),
        "codec": msgspec.json,
        "step": lambda key, record, state, ctx: state,
        "state_type": Total,
        "state_version": 2,
        "dead_letters": "dlq.totals",
        "upgrades": {1: lambda old: old},
    }
    return Processor(**{**fields, **changes})  # type: ignore[arg-type]


def timed(**timers: int) -> bytes:
    """A stored state with timers."""
    return StateCodec(processor()).encode(Total(1), timers)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "totals" / "0" / "p3"


def adopt(store: StateStore, changelog_id: str = "id-1", **changes: object) -> bool:
    return store.adopt(topology(processor(**changes), changelog_id), processor(**changes))


def test_states_and_position_survive_together(path: Path) -> None:
    store = StateStore(path)
    store.write([(b"a", b"1"), (b"b", b"2")], 10, 1_000)
    store.write([(b"a", None), (b"c", b"3")], 12, 2_000)
    store.close()
    store = StateStore(path)
    assert store.get_many([b"a", b"b", b"c"]) == [None, b"2", b"3"]
    assert (store.position, store.used_ms) == (12, 2_000)


def test_a_write_that_fails_changes_neither_states_nor_position(path: Path) -> None:
    store = StateStore(path)
    store.write([(b"a", b"1")], 10, 1_000)
    with pytest.raises(ValueError):
        store.write([(b"a", b"2"), (b"b", object())], 11, 2_000)  # type: ignore[list-item]
    assert store.get_many([b"a", b"b"]) == [b"1", None]
    assert store.position == 10


def test_a_process_killed_without_closing_leaves_the_last_write_behind(path: Path, tmp_path: Path) -> None:
    store = StateStore(path)
    store.write([(b"a", b"1")], 10, 1_000)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in path.iterdir():  # what the disk holds at this instant, nothing flushed
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "LOCK").unlink()
    survivor = StateStore(copy)
    assert survivor.get_many([b"a"]) == [b"1"]
    assert survivor.position == 10


def test_wiped_store_is_empty_and_still_ours(path: Path) -> None:
    store = StateStore(path)
    adopt(store)
    store.write([(b"a", b"1")], 10, 1_000)
    assert not store.is_empty()
    store.wipe()
    assert store.is_empty()
    assert store.position == 0
    store.close()
    assert adopt(StateStore(path))


def test_store_in_use_is_locked(path: Path) -> None:
    store = StateStore(path)
    with pytest.raises(StoreLocked):
        StateStore(path)
    store.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": ("sales",)}, "inputs"),
        ({"name": "sums"}, "processor"),
        ({"state_version": 1, "upgrades": {}}, "state_version"),
        ({"state_version": 4}, "state_version"),
    ],
)
def test_another_topologys_store_is_refused_and_untouched(path: Path, changes: dict[str, object], reason: str) -> None:
    store = StateStore(path)
    adopt(store)
    store.write([(b"a", b"1")], 10, 1_000)
    with pytest.raises(ForeignStore, match=reason):
        adopt(store, **changes)
    assert store.get_many([b"a"]) == [b"1"]
    assert adopt(store)


def test_order_of_inputs_is_no_difference(path: Path) -> None:
    store = StateStore(path)
    adopt(store)
    assert adopt(store, inputs=("refunds", "sales"))


def test_store_of_a_recreated_changelog_is_emptied(path: Path) -> None:
    store = StateStore(path)
    adopt(store)
    store.write([(b"a", b"1")], 10, 1_000)
    assert adopt(store, "id-2") is False
    assert store.is_empty()
    assert store.position == 0
    assert adopt(store, "id-2")


def test_older_state_version_with_its_upgrade_is_adopted(path: Path) -> None:
    store = StateStore(path)
    adopt(store, state_version=1, upgrades={})
    store.write([(b"a", b"1")], 10, 1_000)
    assert adopt(store)
    with pytest.raises(ForeignStore, match="state_version"):
        adopt(store, state_version=1, upgrades={})


def test_an_idle_store_notes_its_use_once_an_hour(path: Path) -> None:
    store = StateStore(path)
    store.keep(9_000_000)
    assert store.used_ms == 0  # nothing in it, nothing to keep
    store.write([(b"a", b"1")], 10, 1_000)
    store.keep(2_000_000)
    assert store.used_ms == 1_000
    store.keep(9_000_000)
    assert (store.used_ms, store.position) == (9_000_000, 10)


def test_timers_are_found_by_due_time_from_wherever_one_looks(path: Path) -> None:
    store = StateStore(path)
    changes = [(b"b", timed(x=7, y=300)), (b"a", timed(x=7)), (b"\xff-like key", timed(z=2**62)), (b"none", timed())]
    store.write(changes, 10, 1_000)
    found = [(7, b"a"), (7, b"b"), (300, b"b"), (2**62, b"\xff-like key")]
    assert list(store.timers(0)) == list(store.timers(7)) == found
    assert list(store.timers(8)) == found[2:]
    assert list(store.timers(2**62 + 1)) == []
    assert store.is_empty() is False
    store.close()
    assert list(StateStore(path).timers(0)) == found


def test_a_spent_timer_is_forgotten_unless_the_same_write_sets_it_again(path: Path) -> None:
    store = StateStore(path)
    store.write([(b"a", timed(x=7)), (b"b", timed(x=7)), (b"c", timed(x=7))], 10, 1_000)
    store.write([(b"a", timed(x=7)), (b"b", timed())], 11, 1_000, cleared=[(7, b"a"), (7, b"b")])
    assert list(store.timers(0)) == [(7, b"a"), (7, b"c")]
    store.wipe()
    assert list(store.timers(0)) == []
