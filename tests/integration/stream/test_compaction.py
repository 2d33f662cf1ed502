"""A changelog that Kafka has compacted restores the same states, from its start or from a place that is gone."""

import time

import pytest
from stream_counting import processor
from stream_stage import Running, Stage, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

MINUTES = 60_000


def run(stage: Stage, disk: str) -> Running:
    timed = processor(stage.name, timers=True)
    return stage.run(processor=timed, batch_records=20, state_dir=stage.disk / disk).ready()


def test_restore_from_a_compacted_changelog(stage: Stage) -> None:
    stage.create_topics(partitions=1).compact_eagerly(stage.changelog)
    now = time.time_ns() // 1_000_000
    home = run(stage, "home")
    stage.put(9_999, "later", now + 20 * MINUTES, key="ghost", stamp=now)
    stage.send(400, keys=20)
    stage.outputs(400)
    home.stop()
    position = stage.end(stage.changelog, 0)
    elsewhere = run(stage, "elsewhere")
    stage.put(9_999, "delete", key="ghost", stamp=now)

    def is_compacted() -> bool:
        """Every key has changed since: home's position, and all it has read, lies in what is compacted away."""
        stage.send(20, keys=20)
        states = [message.offset() for message in stage.read(stage.changelog) if message.value() is not None]
        return min(states) > position + 100

    eventually(is_compacted, "compacted")
    elsewhere.stop()
    warm = run(stage, "home")
    assert warm.metric("restored_records_total") >= 20
    stage.send(100, keys=20)
    stage.outputs(stage.sent)
    warm.stop()
    cold = run(stage, "wiped")
    stage.send(100, keys=20)
    stage.outputs(stage.sent)
    cold.stop()
    # The tombstone may be gone as well: a disk that was away for longer than it is kept must not bring the key back.
    stage.configure(stage.changelog, "delete.retention.ms", "1")
    returned = run(stage, "home")
    assert returned.metric("stores_rebuilt_total") == 1
    stage.send(100, keys=20, timestamp=now + 40 * MINUTES)
    stage.assert_exact()
    assert home.error is elsewhere.error is warm.error is cold.error is None
