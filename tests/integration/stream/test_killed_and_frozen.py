"""Killed or frozen between any two steps of the loop or of a takeover, a member changes no result."""

import shutil
import signal
import time

import pytest
from stream_counting import LOOP, TAKEOVER
from stream_stage import Stage, await_frozen

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.mark.parametrize("write_back_ms", [0, 60_000])
def test_killed_between_any_two_steps(stage: Stage, write_back_ms: int) -> None:
    """Each start dies at the next point, every third also loses its disk, which follows the commits or lags behind.

    Half of the records count by timers, which stream time fires or, at the end, the clock.
    """
    options = {"timers": True, "idle_ms": 100, "write_back_ms": write_back_ms}
    stage.create_topics()
    for start, point in enumerate((*LOOP, *TAKEOVER)):
        stage.send(150)
        stage.send(150, do="later", at=time.time_ns() // 1_000_000 + 100)
        after = [(0, "assigned", 1)] if point in LOOP else []
        worker = stage.worker(faults=[*after, (signal.SIGKILL, point, 3 if point in LOOP else 1)], **options)
        assert worker.wait(40) == -signal.SIGKILL, point
        if start % 3 == 2:
            shutil.rmtree(stage.disk / "disk0")
    stage.worker(**options)
    stage.assert_exact()


@pytest.mark.parametrize("point", ["produced", "flushed", "offsets sent"])
def test_frozen_for_longer_than_its_session_and_its_transaction(stage: Stage, point: str) -> None:
    """Another member takes its partitions over; it wakes as a zombie."""
    timeouts = {"session_timeout_ms": 1_000, "transaction_timeout_ms": 1_500}
    stage.create_topics(partitions=2).send(1_000)
    zombie = stage.worker("1", faults=[(signal.SIGSTOP, point, 3)], **timeouts)
    await_frozen(zombie)
    stage.send(1_000)
    stage.worker("2", **timeouts)
    stage.assert_exact()
    zombie.send_signal(signal.SIGCONT)
    stage.send(1_000)
    stage.assert_exact()


@pytest.mark.parametrize("point", ["offsets asked", "end asked", "restoring"])
def test_frozen_and_awake_again_while_its_successor_restores(stage: Stage, point: str) -> None:
    """It has lost its session but not its transaction: its offsets are refused, it aborts and joins again."""
    timeouts = {"session_timeout_ms": 1_000, "transaction_timeout_ms": 60_000}
    stage.create_topics(partitions=2).send(1_000)
    sleeper = stage.worker("1", faults=[(signal.SIGSTOP, "flushed", 3)], **timeouts)
    await_frozen(sleeper)
    successor = stage.worker("2", faults=[(signal.SIGSTOP, point, 1)], **timeouts)
    await_frozen(successor)
    sleeper.send_signal(signal.SIGCONT)
    stage.await_log("1", "transaction_aborted")
    successor.send_signal(signal.SIGCONT)
    stage.send(1_000)
    stage.assert_exact()
    assert sleeper.poll() is None
    assert successor.poll() is None
