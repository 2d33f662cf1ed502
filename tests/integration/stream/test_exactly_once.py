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


def test_three_members_join_leave_and_return_under_load(stage: Stage) -> None:
    timeouts = {"session_timeout_ms": 1_000}
    stage.create_topics(partitions=6)
    with stage.load():
        one = stage.worker("1", **timeouts)
        stage.outputs(100)
        two, three = stage.worker("2", **timeouts), stage.worker("3", **timeouts)
        eventually(lambda: all(len(stage.owned_by(instance)) == 2 for instance in "123"), "all have a share")
        one.kill()
        two.terminate()
        assert two.wait(20) == 0
        eventually(lambda: len(stage.owned_by("3")) == 6, "the third has all")
        shutil.rmtree(stage.disk / "disk1")
        one, two = stage.worker("1", **timeouts), stage.worker("2", **timeouts)
        eventually(lambda: all(len(stage.owned_by(instance)) == 2 for instance in "123"), "all have a share again")
    stage.assert_exact()
    for worker in (one, two, three):
        worker.terminate()
    assert [worker.wait(20) for worker in (one, two, three)] == [0, 0, 0]


def test_rolling_restart_moves_no_partition(stage: Stage) -> None:
    stage.create_topics(partitions=6)
    workers = {instance: stage.worker(instance, session_timeout_ms=10_000) for instance in "123"}
    eventually(lambda: all(len(stage.owned_by(instance)) == 2 for instance in "123"), "all have a share")
    shares = {instance: stage.owned_by(instance) for instance in "123"}
    assert {number for share in shares.values() for number in share} == {0, 1, 2, 3, 4, 5}
    with stage.load():
        for instance, worker in workers.items():
            others = {other: stage.log(other) for other in "123" if other != instance}
            worker.terminate()
            assert worker.wait(20) == 0
            stage.worker(instance, session_timeout_ms=10_000)
            eventually(lambda: stage.owned_by(instance) == shares[instance], "back to its partitions")  # noqa: B023
            for other, log in others.items():
                since = stage.log(other).removeprefix(log)
                assert "partitions_revoked" not in since
                assert "partitions_assigned" not in since
    stage.assert_exact()


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
