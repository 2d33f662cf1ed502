"""The changelog is the truth, the disk its cache: what is restored, from where, and what is refused."""

import shutil

import pytest
from stream_counting import processor
from stream_stage import Stage, eventually

from siyu.stream import ForeignStore, InputLost, StateError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


def test_restore_reads_only_what_the_disk_lacks(stage: Stage) -> None:
    stage.create_topics().send(300, keys=100)
    home = stage.run().ready()
    stage.outputs(300)
    home.stop()
    stage.send(20, keys=10)
    elsewhere = stage.run(state_dir=stage.disk / "elsewhere").ready()
    stage.outputs(320)
    elsewhere.stop()
    assert elsewhere.metric("restored_records_total") >= 100
    back = stage.run().ready()
    assert 1 <= back.metric("restored_records_total") <= 20
    stage.send(100, keys=100)
    stage.assert_exact()
    back.stop()


def test_deleted_state_is_a_tombstone_and_stays_deleted(stage: Stage) -> None:
    stage.create_topics().send(10, keys=5)
    running = stage.run().ready()
    stage.outputs(10)
    stage.send_raw(b'{"id": 100, "do": "delete"}', b"k3")
    eventually(lambda: "k3" not in stage.states(), "tombstone in the changelog")
    running.stop()
    shutil.rmtree(stage.disk / "disk")
    stage.run().ready()
    stage.send_raw(b'{"id": 101}', b"k3")
    assert stage.outputs(11)[-1].count == 1


def test_unchanged_state_writes_nothing(stage: Stage) -> None:
    stage.create_topics().send(10, keys=5)
    stage.run().ready()
    stage.outputs(10)
    before = len(stage.read(stage.changelog))
    stage.send_raw(b'{"id": 100, "do": "ignore"}', b"k1")
    eventually(lambda: stage.committed() > 0 and stage.lag() == 0, "the record was consumed")
    assert len(stage.read(stage.changelog)) == before


def test_foreign_store_is_refused_and_left_alone(stage: Stage) -> None:
    stage.create_topics().send(50)
    home = stage.run().ready()
    stage.outputs(50)
    home.stop()
    other = processor(stage.name, inputs=(stage.inputs[0],))
    refused = stage.run(processor=other)
    eventually(refused.ended, "refused")
    assert isinstance(refused.error, ForeignStore)
    assert "inputs" in str(refused.error)
    assert "remove" in str(refused.error)
    stage.send(50)
    stage.run()
    stage.assert_exact()


def test_states_of_an_older_version_are_upgraded_and_of_a_newer_refused(stage: Stage) -> None:
    stage.create_topics().send(50)
    old = stage.run().ready()
    stage.outputs(50)
    old.stop()
    newer = processor(stage.name, state_version=2, upgrades={1: lambda old: [old[0] + 1000]})
    shutil.rmtree(stage.disk / "disk")
    upgraded = stage.run(processor=newer)
    stage.send(50)
    assert {out.count for out in stage.outputs(100)[50:]} == {1002}
    upgraded.stop()
    stage.send(1)
    for disk in ("disk", "wiped"):
        back = stage.run(state_dir=stage.disk / disk)
        eventually(back.ended, "refused")
        assert isinstance(back.error, ForeignStore | StateError)


def test_states_without_committed_offsets_are_never_counted_on(stage: Stage) -> None:
    stage.create_topics().send(50)
    running = stage.run().ready()
    stage.outputs(50)
    running.stop()
    eventually(stage.forget_offsets, "the group is empty and was deleted")
    again = stage.run()
    eventually(again.ended, "refused")
    assert isinstance(again.error, InputLost)


def test_input_that_lost_the_committed_offset_is_refused(stage: Stage) -> None:
    stage.create_topics(partitions=1).send(100)
    running = stage.run().ready()
    stage.outputs(100)
    running.stop()
    stage.send(100)
    stage.truncate(stage.inputs[0], 80)
    again = stage.run()
    eventually(again.ended, "refused")
    assert isinstance(again.error, InputLost)
    assert stage.inputs[0] in str(again.error)


def test_recreated_changelog_empties_the_store(stage: Stage) -> None:
    """Else a store of the old changelog would be taken for a prefix of the new one."""
    stage.create_topics().send(50)
    running = stage.run().ready()
    stage.outputs(50)
    running.stop()
    stage.recreate_changelog()
    again = stage.run().ready()
    assert again.metric("stores_rebuilt_total") == 4


def test_stream_time_survives_a_lost_disk_and_never_runs_back(stage: Stage) -> None:
    stage.create_topics(partitions=1)
    stage.send(1, timestamp=5_000_000)
    running = stage.run().ready()
    assert stage.outputs(1)[-1].now == 5_000_000
    running.stop()
    shutil.rmtree(stage.disk / "disk")
    stage.run().ready()
    stage.send(1, timestamp=4_000_000)
    assert stage.outputs(2)[-1].now == 5_000_000
