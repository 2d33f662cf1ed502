"""What one turn of the loop takes up, and what it leaves behind when a commit fails."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lone_partition
import msgspec
import pytest
from confluent_kafka import Consumer
from lone_partition import commit, message, process, processor
from prometheus_client import CollectorRegistry

from siyu.stream import Context, Record, Runtime, StreamSettings, Timer
from siyu.stream.partition import Partition
from siyu.stream.runtime import _AbortTransactionError


class Kept(msgspec.Struct, frozen=True):
    n: int


def step(key: str, record: Record, state: Kept | None, ctx: Context) -> Kept:
    if record.value is None:
        raise LookupError
    ctx.set_timer("t", record.value)
    return Kept(1)


def keep(key: str, timer: Timer, state: Kept, ctx: Context) -> Kept:
    return state


def runtime_of(one: Partition[Any], path: Path, kind: type[Runtime[Any]] = Runtime, **settings: Any) -> Runtime[Any]:
    made = kind(one._processor, StreamSettings(bootstrap="", state_dir=path, **settings), registry=CollectorRegistry())
    made._partitions = {0: one}
    made._consumer = Consumer({"group.id": "none"})
    return made


def test_a_halted_partition_is_no_work_even_when_its_timers_are_due_by_the_clock(tmp_path: Path) -> None:
    one = lone_partition.partition(tmp_path / "p", processor(Kept, step, on_timer=keep), dead_letter_run=2, idle_ms=1)
    process(one, [message(n, 3_600_000, b"k%d" % n, stamp=1) for n in range(3)])
    commit(one)
    runtime = runtime_of(one, tmp_path)
    one.ends["in"] = 3
    time.sleep(0.01)
    assert runtime._work() == {0: 0}
    process(one, [message(n, None, stamp=2) for n in range(3, 10)])
    commit(one)
    one.ends["in"] = 10
    time.sleep(0.01)
    assert one.halted
    assert runtime._work() == {}


def test_a_batch_takes_its_share_of_every_partition(tmp_path: Path) -> None:
    one, other = (lone_partition.partition(tmp_path / name, processor(Kept, step, on_timer=keep)) for name in "ab")
    runtime = runtime_of(one, tmp_path, batch_records=10)
    runtime._partitions[1] = other
    for n in range(15):
        one.inbox.append(message(n, 1))
    other.inbox.append(message(0, 1))
    assert runtime._work() == {0: 10, 1: 1}


def test_timers_that_one_batch_could_not_fire_go_on_in_the_next(tmp_path: Path) -> None:
    one = lone_partition.partition(tmp_path / "p", processor(Kept, step, on_timer=keep), batch_records=10)
    runtime = runtime_of(one, tmp_path)
    process(one, [message(n, 50, b"k%d" % n, stamp=1) for n in range(25)])
    commit(one)
    fired = [process(one, [message(25, 1_000, stamp=100)]).timers]
    commit(one)
    while runtime._work():
        fired.append(process(one).timers)
        commit(one)
    assert fired == [10, 10, 5]


def test_a_state_that_should_be_in_memory_and_is_not_ends_the_loop_and_is_no_dead_letter(tmp_path: Path) -> None:
    one = lone_partition.partition(tmp_path, processor(Kept, step, on_timer=keep))
    one.inbox.append(message(0, 1))
    one.read()
    one._hot.young.clear()
    with pytest.raises(KeyError):
        one.process(1)


class Broken(Runtime[Any]):
    """Its broker does not answer."""

    began: threading.Event

    def _conclude(self, _batches: Any) -> float:
        self.began.set()
        while not self._stop.wait(0.01):
            pass
        raise _AbortTransactionError("stopped")


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_what_a_failed_commit_leaves_goes_at_once_and_not_with_some_later_collection(tmp_path: Path) -> None:
    one = lone_partition.partition(tmp_path / "p", processor(Kept, step, on_timer=keep))
    runtime = runtime_of(one, tmp_path, Broken)
    assert isinstance(runtime, Broken)
    runtime.began = threading.Event()
    runtime._stop.set()
    one.inbox.append(message(0, 1))
    with pytest.raises(_AbortTransactionError):
        runtime._commit_while_reading({})
    gone = weakref.ref(one)
    runtime._partitions = {}
    runtime._committer.shutdown()
    del one
    assert gone() is None


def test_what_interrupts_the_reading_does_not_wait_for_a_broker_that_is_away(tmp_path: Path) -> None:
    one = lone_partition.partition(tmp_path / "p", processor(Kept, step, on_timer=keep))
    runtime = runtime_of(one, tmp_path, Broken)
    assert isinstance(runtime, Broken)
    runtime.began = threading.Event()
    one.inbox.append(message(0, 1))

    def interrupted() -> bool:
        runtime.began.wait()
        raise KeyboardInterrupt

    one.read = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        runtime._commit_while_reading({})
    runtime._close()
