"""Steps over one partition: what they see, what is kept when they fail, and that the cache changes nothing."""

from pathlib import Path
from typing import Any

import lone_partition
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lone_partition import commit, message, process, processor

from siyu.stream import Context, Record
from siyu.stream.cache import HotStates
from siyu.stream.partition import Partition
from siyu.stream.state import StateCodec


class Seen(msgspec.Struct, frozen=True):
    values: list[int]


def append(key: str, record: Record, state: Seen | None, ctx: Context) -> Seen | None:
    """Negative values raise after having emitted, 0 deletes, 1 leaves the state alone."""
    value: int = record.value
    ctx.emit("out", key, [value, ctx.now])
    if value < 0:
        raise RuntimeError
    if value == 0:
        return None
    if value == 1:
        return state
    return Seen([*(state.values if state else []), value])


def partition(path: Path, cache_bytes: int = 100_000, **settings: Any) -> Partition[Seen]:
    return lone_partition.partition(path, processor(Seen, append), cache_bytes=cache_bytes, **settings)


def test_states_and_outputs_follow_the_records(tmp_path: Path) -> None:
    one = partition(tmp_path)
    batch = process(one, [message(5, 7, stamp=10), message(6, 8, stamp=4), message(8, 9, b"other", stamp=30)])
    assert [msgspec.json.decode(out["value"] or b"") for out in batch.outputs["out"]] == [[7, 10], [8, 10], [9, 30]]
    assert one.positions == {"in": 9}
    assert one.stream_time == 30
    changelog = commit(one, 100)
    assert list(changelog) == [b"k", b"other"]  # one record a key and batch
    assert one.store.get_many([b"k"]) == [changelog[b"k"]]
    assert one.store.position == 102


def test_failed_step_leaves_state_and_outputs_alone(tmp_path: Path) -> None:
    one = partition(tmp_path)
    batch = process(one, [message(0, 2), message(1, -1), message(2, b"no json"), message(3, 3)])
    assert len(batch.outputs["out"]) == 2
    assert [dead.stage for dead in batch.dead] == ["step", "decode"]
    assert StateCodec[Seen].decode(one._states, commit(one)[b"k"] or b"")[0] == Seen([2, 3])


def test_unchanged_state_writes_nothing_and_none_deletes(tmp_path: Path) -> None:
    one = partition(tmp_path)
    process(one, [message(0, 2)])
    commit(one)
    process(one, [message(1, 1), message(2, 1, b"unknown")])
    assert commit(one) == {}
    process(one, [message(3, 0), message(4, 0, b"unknown")])
    assert commit(one) == {b"k": None}
    assert one.store.is_empty()


def test_too_large_an_output_is_a_dead_letter(tmp_path: Path) -> None:
    one = partition(tmp_path, max_record_bytes=15)
    batch = process(one, [message(0, 2), message(1, 123456789012), message(2, 3)])
    assert [dead.headers[5] for dead in batch.dead] == [("error.class", b"TooLarge")]
    assert one.positions == {"in": 3}


def test_past_the_limit_nothing_more_is_consumed(tmp_path: Path) -> None:
    one = partition(tmp_path, dead_letter_run=1)
    messages = [message(0, 2), message(1, -1), message(2, -1), message(3, 4)]
    batch = process(one, messages)
    assert one.halted
    assert one.positions == {"in": 2}
    assert batch.records == 2
    assert not one.waiting
    assert len(batch.dead) == 1


def test_reserved_and_missing_keys_are_dead_letters(tmp_path: Path) -> None:
    one = partition(tmp_path)
    process(one, [message(0, 2)])
    commit(one, 49)
    batch = process(one, [message(1, 2, None), message(2, 2, b"\xffposition")])
    assert len(batch.dead) == 2
    assert one.store.position == 50


@pytest.mark.timeout(120)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(-1, 4)), max_size=8), max_size=8
    ),
    st.sampled_from([1, 1_000, 100_000]),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.booleans(),
)
def test_cache_and_batching_change_no_result(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[bytes, int]]],
    cache_bytes: int,
    written: list[bool],
    ahead: bool,
) -> None:
    """``ahead``: as the loop does it when there is more, a batch is read before the last one is committed."""
    one = partition(tmp_path_factory.mktemp("seen"), cache_bytes)
    expected: dict[bytes, list[int]] = {}
    offset = 0
    for batch, write in zip(batches, written, strict=False):
        for i, (key, value) in enumerate(batch):
            one.inbox.append(message(offset + i, value, key))
        offset += len(batch)
        if ahead:
            one.read()
            commit(one, offset - len(batch), write=write)
            one.process(len(batch))
        else:
            process(one, count=len(batch))
            commit(one, offset, write=write)
        for key, value in batch:
            if value == 0:
                expected.pop(key, None)
            elif value > 1:
                expected[key] = [*expected.get(key, []), value]
    commit(one, offset)
    stored = dict(zip([b"a", b"b", b"c", b"d"], one.store.get_many([b"a", b"b", b"c", b"d"]), strict=True))
    one.close()
    found = {key: one._states.decode(data)[0].values for key, data in stored.items() if data}
    assert found == expected


def test_hot_states_keep_what_is_used_within_the_budget() -> None:
    hot: HotStates[Seen] = HotStates(4_000)
    state = Seen([1])
    for n in range(100):
        keys = {b"hot", b"cold%d" % n}
        missing = hot.promote(keys)
        assert (b"hot" in missing) == (n == 0)
        hot.young.update(dict.fromkeys(missing, (state, {})))
        hot.weigh(b"hot")
        hot.age()
    assert hot.promote({b"cold1"}) == [b"cold1"]
    kept = hot.promote({b"hot", *(b"cold%d" % n for n in range(100))})
    assert 80 < len(kept) < 100  # 4 kB hold a few of these, not one and not twenty
