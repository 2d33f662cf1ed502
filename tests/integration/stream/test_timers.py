"""Timers on the real broker: by stream time or the clock, once, and as durable as the states that hold them."""

import shutil
import signal
import time

import msgspec
import pytest
from stream_counting import processor
from stream_stage import Running, Stage, eventually
from typer.testing import CliRunner

from siyu.cli import app

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

NEVER_IDLE = 3_600_000


def run(stage: Stage, instance: str = "0", **changes: object) -> Running:
    return stage.run(instance, processor(stage.name, timers=True), **{"idle_ms": NEVER_IDLE, **changes}).ready()


def test_due_timers_fire_in_order_before_the_record_that_makes_them_due(stage: Stage) -> None:
    stage.create_topics(partitions=1)
    run(stage)
    for number, at in ((0, 300), (1, 100), (2, 200)):
        stage.put(number, "later", at, key=f"k{number}", stamp=50)
    stage.put(3, "later", 150, timer="3", stamp=50)
    stage.put(3, "later", 250, timer="3", stamp=50)  # moved
    stage.put(4, "later", 150, timer="4", stamp=50)
    stage.put(4, "cancel", timer="4", stamp=50)
    stage.put(5, "later", 150, key="k5", stamp=50)
    stage.put(5, "delete", key="k5", stamp=50)  # with its timers
    stage.put(10, key="other", stamp=220)
    assert [(out.id, out.now) for out in stage.outputs(3)] == [(1, 100), (2, 200), (10, 220)]
    stage.put(6, "later", 1, stamp=220)  # in the past: at once
    assert [(out.id, out.now) for out in stage.outputs(4)[3:]] == [(6, 220)]
    stage.put(11, key="other", stamp=400)
    assert [(out.id, out.now) for out in stage.outputs(7)[4:]] == [(3, 250), (0, 300), (11, 400)]
    stage.put(12, key="other", stamp=10_000)
    assert [out.id for out in stage.outputs(8)[7:]] == [12]


def test_more_due_timers_than_a_batch_takes_are_spread_and_records_wait_behind_them(stage: Stage) -> None:
    stage.create_topics(partitions=1)
    running = run(stage, batch_records=10)
    for number in range(60):
        stage.put(number, "later", 100 + number, key=f"k{number % 7}", stamp=50)
    eventually(lambda: running.metric("records_in_total") == 60, "all are set")
    before = running.metric("batches_total")
    for number in range(60, 100):
        stage.put(number, key="other", stamp=200)
    assert [out.id for out in stage.outputs(100)] == list(range(100))
    assert running.metric("batches_total") - before >= 6
    assert running.metric("timers_fired_total") == 60


def test_the_clock_fires_the_timers_of_a_silent_partition(stage: Stage) -> None:
    """And only of one that is read to its end, and only those that are due."""
    stage.create_topics(partitions=1)
    run(stage, idle_ms=200)
    now = time.time_ns() // 1_000_000
    stage.put(0, "later", now + 300, stamp=now)
    stage.put(1, "later", now + 3_600_000, stamp=now)
    stage.put(2, "later", now + 200, stamp=now)
    assert [(out.id, out.now) for out in stage.outputs(2)] == [(2, now + 200), (0, now + 300)]
    stage.put(3, stamp=now)
    assert [(out.id, out.now) for out in stage.outputs(3)[2:]] == [(3, now + 300)]


def test_timers_survive_a_lost_disk_and_move_to_another_member(stage: Stage) -> None:
    stage.create_topics(partitions=1)
    first = run(stage)
    for number in range(10):
        stage.put(number, "later", 100 + number, key=f"k{number}", stamp=50)
    stage.put(10, key="other", stamp=104)
    assert [out.id for out in stage.outputs(6)] == [0, 1, 2, 3, 4, 10]
    first.stop()
    shutil.rmtree(stage.disk / "disk")
    second = run(stage)
    assert second.metric("restored_records_total") >= 11
    stage.put(11, key="other", stamp=106)
    assert [out.id for out in stage.outputs(9)[6:]] == [5, 6, 11]
    second.stop()
    third = run(stage, "elsewhere", session_timeout_ms=1_000)
    stage.put(12, key="other", stamp=200)
    assert [out.id for out in stage.outputs(13)[9:]] == [7, 8, 9, 12]
    third.stop()
    assert first.error is second.error is third.error is None


def test_a_timer_that_fails_is_a_dead_letter_and_does_not_come_back(stage: Stage) -> None:
    stage.create_topics(partitions=1)
    running = run(stage)
    stage.put(0, "later", 100, timer="no number", stamp=50)
    stage.put(1, "later", 101, stamp=50)
    stage.put(2, key="other", stamp=200)
    assert [(out.id, out.count) for out in stage.outputs(2)] == [(1, 1), (2, 1)]
    (letter,) = stage.read(stage.dlq)
    assert (letter.key(), letter.value()) == (b"k0", None)
    told = {name: value.decode() for name, value in letter.headers()}
    assert (told["error.stage"], told["error.class"], told["origin.timestamp_ms"]) == ("timer", "ValueError", "100")
    assert running.metric("dead_letters_total") == 1
    running.stop()
    shutil.rmtree(stage.disk / "disk")
    run(stage, idle_ms=200)
    stage.put(3, stamp=1_000)
    assert [(out.id, out.count) for out in stage.outputs(3)[2:]] == [(3, 2)]
    assert len(stage.read(stage.dlq)) == 1
    # It has no record to send back.
    everything = [message for topic in stage.inputs for message in stage.read(topic)]
    replayed = CliRunner().invoke(app, ["dlq", "replay", stage.name, "--kafka-bootstrap", stage.bootstrap, "--yes"])
    assert "1 replayed" not in replayed.output
    assert len([message for topic in stage.inputs for message in stage.read(topic)]) == len(everything)


def test_the_clock_waits_for_records_that_came_while_the_member_was_frozen(stage: Stage) -> None:
    stage.create_topics(partitions=1)
    worker = stage.worker(timers=True, idle_ms=500, session_timeout_ms=30_000, transaction_timeout_ms=60_000)
    now = time.time_ns() // 1_000_000
    stage.put(0, "later", now + 6_000, timer="0", stamp=now)
    eventually(lambda: stage.committed() > 0, "set")
    time.sleep(1)  # silent, and read to its end
    worker.send_signal(signal.SIGSTOP)
    time.sleep(1.5)  # the fetch under way has been answered, with nothing
    stage.put(0, "cancel", timer="0", stamp=now + 1_000)
    stage.put(1, stamp=now + 2_000)
    eventually(lambda: time.time_ns() // 1_000_000 > now + 7_000, "due by the clock")
    worker.send_signal(signal.SIGCONT)
    stage.outputs(1)
    assert [msgspec.json.decode(m.value())["id"] for m in stage.read(stage.output)] == [1]


def test_a_processor_that_has_lost_its_on_timer_says_so(stage: Stage) -> None:
    stage.create_topics(partitions=1)
    worker = stage.worker(timers=True, idle_ms=NEVER_IDLE)
    stage.put(0, "later", 100, stamp=50)
    eventually(lambda: stage.committed() > 0, "set")
    worker.terminate()
    assert worker.wait(20) == 0
    assert "timers_without_on_timer" not in stage.log("0")
    stage.worker()
    stage.put(1, stamp=200)
    assert [out.id for out in stage.outputs(1)] == [1]
    assert "timers_without_on_timer" in stage.log("0")
