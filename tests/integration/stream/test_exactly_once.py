"""Whatever dies, freezes or moves: every record counts once, and no state is lost."""

import random
import shutil

import pytest
from stream_stage import Stage, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]


def test_two_inputs_and_a_restart(stage: Stage) -> None:
    stage.create_topics().send(500)
    first = stage.run().ready()
    stage.outputs(500)
    first.stop()
    stage.send(300)
    second = stage.run()
    stage.assert_exact(800)
    second.stop()
    assert first.error is second.error is None


@pytest.mark.parametrize("seed", [1])
def test_killed_again_and_again(stage: Stage, seed: int) -> None:
    chance = random.Random(seed)
    stage.create_topics().send(6_000)
    worker = stage.worker()
    for kill in range(1, 4):
        stage.outputs(1_300 * kill + chance.randrange(500))
        worker.kill()
        worker.wait()
        if kill % 2 == 0:
            shutil.rmtree(stage.disk / "disk0")
        worker = stage.worker()
    stage.assert_exact()


def test_members_join_die_and_return(stage: Stage) -> None:
    stage.create_topics().send(3_000)
    one = stage.worker("1")
    stage.outputs(1_000)
    two = stage.worker("2")
    stage.send(3_000)
    eventually(lambda: '"2"' not in stage.log("2") and "partitions_taken_over" in stage.log("2"), "2 owns partitions")
    stage.outputs(3_500)
    one.kill()
    one.wait()
    stage.send(3_000)
    stage.outputs(9_000)  # 2 takes over when the session of 1 has ended
    shutil.rmtree(stage.disk / "disk1")
    one = stage.worker("1")
    stage.send(3_000)
    stage.assert_exact()
    one.terminate()
    two.terminate()
    assert (one.wait(20), two.wait(20)) == (0, 0)


def test_graceful_stop_commits_what_it_began(stage: Stage) -> None:
    stage.create_topics().send(5_000)
    running = stage.run(batch_records=200)
    stage.outputs(1_000)
    running.stop()
    assert running.error is None
    assert stage.committed() == len(stage.read(stage.output)) < 5_000
    restarted = stage.run().ready()
    assert restarted.metric("restored_records_total") == 0  # the disk was exact: nothing to replay
    stage.assert_exact()


def test_second_process_under_the_same_ids_stops_the_first(stage: Stage) -> None:
    stage.create_topics().send(1_000)
    first = stage.run().ready()
    stage.outputs(1_000)
    second = stage.run(state_dir=stage.disk / "elsewhere").ready()
    stage.send(1_000)
    eventually(first.ended, "the first has stopped")
    assert type(first.error).__name__ == "Fenced"
    stage.assert_exact()
    assert second.error is None


def test_refused_batch_is_repeated_until_it_fits(stage: Stage) -> None:
    """The broker refuses the outputs: the transaction aborts, and nothing of it is kept."""
    stage.create_topics()
    stage.configure(stage.output, "max.message.bytes", "150")
    stage.send(500)
    running = stage.run(batch_records=500)
    eventually(lambda: running.metric("transaction_aborts_total") >= 2, "aborted twice")
    assert not stage.read(stage.output)
    stage.configure(stage.output, "max.message.bytes", "1000000")
    stage.assert_exact()
    assert stage.states() == {f"k{n}": 10 for n in range(50)}
