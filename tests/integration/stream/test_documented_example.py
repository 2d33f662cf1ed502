"""The processor of docs/engine.md runs as it is printed there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from stream_stage import Stage, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

ENGINE = Path(__file__).parents[3] / "docs" / "engine.md"
HALF_AN_HOUR_MS = 30 * 60_000


def test_the_processor_of_the_guide(stage: Stage) -> None:
    printed = re.search(r"```python\n(.*?)```", ENGINE.read_text(encoding="utf-8"), re.DOTALL)
    assert printed is not None
    # Names of our own, since others share the broker.
    code = printed[1].replace('"visits', f'"{stage.name}').replace('"dlq.visits', f'"dlq.{stage.name}')
    code = code.replace('"purchases"', f'"{stage.inputs[0]}"')
    code = code.replace(f'outputs=frozenset({{"{stage.name}"}})', f'outputs=frozenset({{"{stage.output}"}})')
    code = code.replace(f'ctx.emit("{stage.name}"', f'ctx.emit("{stage.output}"')
    program = stage.disk / "visits.py"
    program.write_text(code, encoding="utf-8")
    stage.create_topics()
    producer = Producer({"bootstrap.servers": stage.bootstrap, "partitioner": "murmur2_random"})
    first_ms = 1_700_000_000_000
    for stamp_ms, fen in ((first_ms, 100), (first_ms + 1_000, 250), (first_ms + 2 * HALF_AN_HOUR_MS, 7)):
        producer.produce(stage.inputs[0], msgspec.json.encode({"fen": fen}), "k", timestamp=stamp_ms)
    assert producer.flush(30) == 0
    with (stage.disk / "visits.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, str(program), stage.bootstrap, str(stage.disk / "state")],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ENGINE.parents[1])},
        )
    try:
        # The second visit lies in the past as well: its partition falls silent, and the clock ends it.
        eventually(lambda: len(stage.read(stage.output)) == 2, "both visits have ended")
        found = [(m.key(), msgspec.json.decode(m.value())) for m in stage.read(stage.output)]
        assert found == [
            (b"k", {"fen": 350, "ended_ms": first_ms + 1_000 + HALF_AN_HOUR_MS}),
            (b"k", {"fen": 7, "ended_ms": first_ms + 3 * HALF_AN_HOUR_MS}),
        ]
        assert not stage.read(stage.dlq)
    finally:
        running.kill()
        running.wait()
