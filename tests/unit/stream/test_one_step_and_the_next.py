"""What a step sees and leaves does not depend on the step before, on where a batch ends, or on what else is due."""

from pathlib import Path
from typing import Any

import lone_partition
import msgspec
from confluent_kafka import Message
from lone_partition import commit, message, process, processor

from siyu.stream import Context, Record, Timer
from siyu.stream.partition import Partition
from siyu.stream.tables import GlobalTable


class Kept(msgspec.Struct, frozen=True):
    fired: list[Any]


def partition(path: Path, step: Any, on_timer: Any = None, **settings: Any) -> Partition[Kept]:
    lone = processor(Kept, step, on_timer=on_timer, globals=("rules",))
    return lone_partition.partition(path, lone, **settings)


def set_timer(key: str, record: Record, state: Kept | None, ctx: Context) -> Kept:
    if record.value:
        ctx.set_timer("t", record.value)
    return state or Kept([])


def test_a_step_that_only_looks_at_a_table_does_not_mark_the_next_steps_outputs(tmp_path: Path) -> None:
    def step(key: str, record: Record, state: Kept | None, ctx: Context) -> Kept | None:
        if record.value == 1:
            assert ctx.globals
        else:
            ctx.emit("out", key, record.value)
        return state

    batch = process(partition(tmp_path, step), [message(0, 1), message(1, 2)], tables={"rules": GlobalTable(1)})
    assert [looked for *_, looked in batch.beside_globals] == [False]


def test_outputs_of_one_key_keep_their_order_whether_a_step_looked_at_a_table_or_not(tmp_path: Path) -> None:
    def step(key: str, record: Record, state: Kept | None, ctx: Context) -> Kept | None:
        if record.value % 2:
            assert ctx.globals
        ctx.emit("out", key, record.value)
        return state

    batch = process(partition(tmp_path, step), [message(n, n) for n in (1, 2, 3)], tables={"rules": GlobalTable(1)})
    produced = [record["value"] for _, record, _ in batch.beside_globals]
    assert produced == [b"1", b"2", b"3"]


def test_a_timer_that_a_timer_sets_fires_in_its_turn(tmp_path: Path) -> None:
    fired = []

    def on_timer(key: str, timer: Timer, state: Kept, ctx: Context) -> Kept:
        fired.append((timer.due_ms, key, ctx.now))
        if key == "a" and timer.due_ms < 130:
            ctx.set_timer("t", timer.due_ms + 10)
        return state

    one = partition(tmp_path, set_timer, on_timer)
    process(one, [message(0, 100, b"a", stamp=1), message(1, 115, b"b", stamp=1)])
    commit(one)
    process(one, [message(2, 0, b"c", stamp=200)])
    assert fired == [(100, "a", 100), (110, "a", 110), (115, "b", 115), (120, "a", 120), (130, "a", 130)]


def test_a_timer_set_again_to_the_time_it_just_fired_at_is_not_forgotten_until_a_restart(tmp_path: Path) -> None:
    def on_timer(key: str, timer: Timer, state: Kept, ctx: Context) -> Kept:
        if len(state.fired) < 2:
            ctx.set_timer("t", timer.due_ms)
        return Kept([*state.fired, timer.due_ms])

    one = partition(tmp_path, set_timer, on_timer)
    process(one, [message(0, 100, stamp=1), message(1, 0, b"other", stamp=200)])
    state, timers = one._hot.young[b"k"]
    assert state is not None
    assert (state.fired, timers) == ([100, 100, 100], {})  # at once, and not never


def test_a_timer_that_is_no_integer_is_a_dead_letter_not_a_poisoned_changelog(tmp_path: Path) -> None:
    one = partition(tmp_path, set_timer, lambda key, timer, state, ctx: state)
    batch = process(one, [message(0, 100.5, stamp=1)])
    assert [dead.stage for dead in batch.dead] == ["step"]
    commit(one)


def test_records_wait_behind_a_timer_due_in_the_same_millisecond(tmp_path: Path) -> None:
    """A batch is full after the first; its firing moved stream time to the record's, which then goes first."""
    order: list[Any] = []

    def step(key: str, record: Record, state: Kept | None, ctx: Context) -> Kept:
        order.append(record.offset)
        return set_timer(key, record, state, ctx)

    def on_timer(key: str, timer: Timer, state: Kept, ctx: Context) -> Kept:
        order.append(key)
        return state

    one = partition(tmp_path, step, on_timer, batch_records=1)
    waiting = [message(0, 50, b"a", stamp=1), message(1, 50, b"b", stamp=1), message(2, 0, b"c", stamp=50)]
    process(one, waiting, count=1)
    commit(one)
    while one.waiting:
        process(one, count=1)
        commit(one)
    assert order == [0, 1, "a", "b", 2]


def test_the_outcome_does_not_depend_on_where_a_batch_ends(tmp_path: Path) -> None:
    """A timer set to the past fires at the end of the batch: before the next record, or after all that came along."""

    def run(path: Path, *batches: list[Message]) -> list[Any]:
        order: list[Any] = []

        def step(key: str, record: Record, state: Kept | None, ctx: Context) -> Kept:
            order.append(record.offset)
            return set_timer(key, record, state, ctx)

        def on_timer(key: str, timer: Timer, state: Kept, ctx: Context) -> Kept:
            order.append("timer")
            return state

        one = partition(path, step, on_timer)
        for batch in batches:
            process(one, batch)
            commit(one)
        return order

    first, second = message(0, 50, stamp=100), message(1, 0, stamp=100)
    assert run(tmp_path / "one", [first, second]) == run(tmp_path / "two", [first], [second])


def test_records_behind_many_timers_do_not_become_one_huge_batch(tmp_path: Path) -> None:
    """As the loop does it: every turn fetches another batch's worth while the timers go on."""
    one = partition(tmp_path, set_timer, lambda key, timer, state, ctx: state, batch_records=10)
    process(one, [message(n, 50, b"k%d" % n, stamp=1) for n in range(100)], count=100)
    commit(one)
    offset, sizes = 100, []
    one.inbox.append(message(offset, 0, b"x", stamp=100))
    while one.waiting:
        fetched = 10 if len(sizes) < 10 else 0
        more = [message(offset + 1 + n, 0, b"x%d" % (offset + n), stamp=100) for n in range(fetched)]
        sizes.append(process(one, more, count=10).records)
        offset += fetched
        commit(one)
    assert sizes[:9] == [0] * 9  # ten timers a batch
    assert max(sizes) == 10
    assert sum(sizes) == 101
