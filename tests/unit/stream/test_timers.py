"""Timers fire once, in order of due time, whatever is in memory, on disk, crashed, aborted or behind a full batch.

The engine's due times live in a window over an index on disk; the model beside it is a dictionary and ``min``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from lone_partition import commit, message, partition, process, processor

from siyu.stream import Context, Record, Timer, timers
from siyu.stream.partition import Batch
from siyu.stream.state import StateCodec
from siyu.stream.store import StateStore

END_OF_TIME = 60


class Kept(msgspec.Struct, frozen=True):
    steps: int


def step(key: str, record: Record, state: Kept | None, ctx: Context) -> Kept | None:
    do, name, at = record.value
    if do == "set":
        ctx.set_timer(name, at)
        return state or Kept(0)
    if do == "cancel":
        ctx.cancel_timer(name)
        return state
    return None if do == "delete" else Kept(state.steps + 1 if state else 1)


def on_timer(key: str, timer: Timer, state: Kept, ctx: Context) -> Kept | None:
    """``again`` comes back a little later, ``last`` takes the state along."""
    ctx.emit("out", key, [timer.due_ms, key, timer.name, ctx.now])
    if timer.name == "again" and timer.due_ms < END_OF_TIME:
        ctx.set_timer("again", timer.due_ms + 7)
    return None if timer.name == "last" else state


PROCESSOR = processor(Kept, step, on_timer=on_timer)


class Member:
    """A partition with its changelog, and what happens to both."""

    def __init__(self, path: Path, batch_records: int = 5_000) -> None:
        self._path = path
        self._batch_records = batch_records
        self._changelog: list[tuple[bytes, bytes | None]] = []
        self._stream_time = 0
        self.fired: list[Any] = []
        self.transactions = 0
        self._open()

    def _open(self) -> None:
        store = StateStore(self._path)
        if store.position < len(self._changelog):
            store.write(self._changelog[store.position :], len(self._changelog), 0)
        self.partition = partition(self._path, PROCESSOR, store, batch_records=self._batch_records)
        self.partition.stream_time = self._stream_time

    def process(self, messages: list[Message], *, write: bool = True, tick_ms: int = 0) -> None:
        """Runs transactions until no record waits and no timer is due."""
        while True:
            self._commit(process(self.partition, messages, self._batch_records, tick_ms=tick_ms), write)
            messages = []
            if not self.partition.waiting and not self.partition.due(max(self.partition.stream_time, tick_ms)):
                break

    def _commit(self, batch: Batch, write: bool) -> None:
        self._changelog += commit(self.partition, len(self._changelog), write=write).items()
        self._stream_time = self.partition.stream_time
        self.fired += [msgspec.json.decode(out["value"] or b"") for out in batch.outputs.get("out", [])]
        assert not batch.dead
        self.transactions += 1

    def abort(self, messages: list[Message]) -> None:
        process(self.partition, messages, self._batch_records)
        self.partition.close()
        self._open()

    def crash(self) -> None:
        self.partition.store.close()
        self._open()

    def standing(self) -> dict[bytes, dict[str, int]]:
        """Every key's timers, from the disk."""
        self.partition.close()
        self._open()
        stored = zip(KEYS, self.partition.store.get_many(KEYS), strict=True)
        found = {key: dict(StateCodec(PROCESSOR).decode(data)[1]) for key, data in stored if data}
        return {key: timers for key, timers in found.items() if timers}


class Model:
    def __init__(self) -> None:
        self.now = 0
        self.fired: list[Any] = []
        self.timers: dict[bytes, dict[str, int]] = {}

    def process(self, records: list[tuple[bytes, int, list[Any]]]) -> None:
        for key, stamp, (do, name, at) in records:
            self._fire(max(stamp, self.now))
            self.now = max(stamp, self.now)
            if do == "set":
                self.timers.setdefault(key, {})[name] = at
            elif do == "cancel":
                self.timers.get(key, {}).pop(name, None)
            elif do == "delete":
                self.timers.pop(key, None)
        self._fire(self.now)

    def _fire(self, until: int) -> None:
        while due := self._due(until):
            at, key, name = due
            self.now = max(self.now, at)
            del self.timers[key][name]
            self.fired.append([at, key.decode(), name, self.now])
            if name == "again" and at < END_OF_TIME:
                self.timers[key]["again"] = at + 7
            elif name == "last":
                del self.timers[key]

    def _due(self, until: int) -> tuple[int, bytes, str] | None:
        standing = ((at, key, name) for key, timers in self.timers.items() for name, at in timers.items())
        return min((timer for timer in standing if timer[0] <= until), default=None)


KEYS = [b"a", b"b", b"c"]
RECORD = st.tuples(
    st.sampled_from(KEYS),
    st.integers(0, END_OF_TIME),
    st.tuples(
        st.sampled_from(["set", "set", "set", "cancel", "delete", "count"]),
        st.sampled_from(["one", "two", "again", "last"]),
        st.integers(0, END_OF_TIME),
    ).map(list),
)


def messages(records: list[tuple[bytes, int, list[Any]]]) -> list[Message]:
    return [message(n, value, key, stamp) for n, (key, stamp, value) in enumerate(records)]


@pytest.fixture(scope="module", params=[1, 3, 10_000])
def window(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many entries of the index are in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timers, "_WINDOW", request.param)
        yield request.param


@pytest.mark.timeout(180)
@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.tuples(st.lists(RECORD, max_size=8), st.booleans(), st.booleans(), st.booleans()), max_size=6),
    batch_records=st.sampled_from([1, 2, 3, 5_000]),
)
def test_timers_do_what_a_sorted_list_would_do(
    tmp_path_factory: pytest.TempPathFactory,
    window: int,
    batches: list[tuple[list[tuple[bytes, int, list[Any]]], bool, bool, bool]],
    batch_records: int,
) -> None:
    member, model = Member(tmp_path_factory.mktemp("kept"), batch_records), Model()
    for records, aborted, write, crashes in batches:
        if aborted:
            member.abort(messages(records))
        member.process(messages(records), write=write)
        if crashes:
            member.crash()
        model.process(records)
    assert member.fired == model.fired
    assert member.standing() == {key: timers for key, timers in model.timers.items() if timers}
    member.partition.close()


def test_timers_of_one_millisecond_fire_in_one_order_wherever_a_batch_ends(tmp_path: Path) -> None:
    """``again`` of the first key comes due together with that of the second, which is already next in line."""
    records = [(b"a", 0, ["set", "again", 53]), (b"b", 0, ["set", "one", 60]), (b"c", 60, ["count", "", 0])]
    fired = []
    for batch_records in (1, 5_000):
        member = Member(tmp_path / str(batch_records), batch_records)
        member.process(messages(records))
        fired.append(member.fired)
    assert fired[0] == fired[1]


def test_only_a_window_of_the_nearest_timers_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when all that was there at first lay within one window."""
    monkeypatch.setattr(timers, "_WINDOW", 10)
    member = Member(tmp_path)
    for start in range(0, 500, 10):
        keys = [b"key%d" % n for n in range(start, start + 10)]
        member.process(messages([(key, 0, ["set", "one", 9_000 - start - n]) for n, key in enumerate(keys)]))
    assert len(member.partition._timers) <= 30


def test_a_timer_that_moves_leaves_nothing_behind(tmp_path: Path) -> None:
    """A timer moved by every event: one entry an event in memory and on disk, until the old times have come."""
    member = Member(tmp_path)
    for turn in range(100):
        member.process(messages([(b"a", 0, ["set", "one", 1_000 + turn])]))
    assert len(list(member.partition.store.timers(0))) == 1
    member.process(messages([(b"a", 0, ["cancel", "one", 0])]))
    assert not list(member.partition.store.timers(0))
    member.process(messages([(b"a", 0, ["set", "one", 2_000]), (b"a", 0, ["delete", "", 0])]))
    assert not list(member.partition.store.timers(0))
