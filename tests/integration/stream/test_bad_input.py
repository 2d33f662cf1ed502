"""Bad records leave the way free, a flood of them does not, and bad topics stop the start."""

import http.client
import re

import pytest
from stream_stage import Stage, eventually

from deploy.local.ports import free_ports
from siyu.stream import TopologyError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


def test_dead_letters_keep_the_record_and_the_partition_moves_on(stage: Stage) -> None:
    stage.create_topics(partitions=1).send(10, keys=1)
    running = stage.run().ready()
    stage.outputs(10)
    stage.send_raw(b"\xff not json", b"k0")
    stage.send_raw(b'{"id": 900, "do": "raise"}', b"k0", headers=[("attempt", b"2")])
    stage.send_raw(b'{"id": 901}', None)
    stage.send_raw(b'{"id": 902}', b"\xffposition")
    stage.send_raw(b'{"id": 903, "do": "stray"}', b"k0")
    stage.send(10, keys=1)
    outputs = stage.outputs(20)
    assert [out.count for out in outputs] == list(range(1, 21))  # states untouched, outputs of the failed step dropped
    dead = stage.read(stage.dlq)
    assert [(m.key(), m.value()) for m in dead] == [
        (b"k0", b"\xff not json"),
        (b"k0", b'{"id": 900, "do": "raise"}'),
        (None, b'{"id": 901}'),
        (b"\xffposition", b'{"id": 902}'),
        (b"k0", b'{"id": 903, "do": "stray"}'),
    ]
    headers = [{name: value.decode() for name, value in m.headers()} for m in dead]
    assert [(h["error.stage"], h["error.class"], h["attempt"]) for h in headers] == [
        ("decode", "DecodeError", "1"),
        ("step", "LookupError", "3"),
        ("decode", "NoKey", "1"),
        ("decode", "UnicodeDecodeError", "1"),
        ("encode", "UndeclaredOutput", "1"),
    ]
    assert headers[1]["origin.topic"] == stage.inputs[0]
    assert headers[1]["origin.partition"] == "0"
    assert headers[1]["origin.offset"] == "6"
    assert headers[1]["processor"] == stage.name
    assert headers[1]["error.place"].startswith("stream_counting.py:")
    assert "must not reach" not in str(headers)
    assert running.metric("dead_letters_total") == 5


def test_too_many_dead_letters_halt_their_partition_only(stage: Stage) -> None:
    stage.create_topics(partitions=2).send(100, keys=20)
    running = stage.run(dead_letter_run=5).ready()
    stage.outputs(100)
    bad = 0 if stage.partition_of("k0") == 0 else 1
    for _ in range(8):
        stage.send_raw(b"no json", b"k0")
    eventually(lambda: running.metric("partition_halted") == 1, "halted")
    assert not running.runtime.ready()
    assert running.runtime.halted() == {bad: "more than 5 dead letters in a row"}
    assert running.runtime.alive()
    stage.send(100, keys=20)
    others = [f"k{n}" for n in range(20) if stage.partition_of(f"k{n}") != bad]
    outputs = stage.outputs(100 + 5 * len(others))
    assert {out.key for out in outputs[100:]} == set(others)
    assert len(stage.read(stage.dlq)) == 5
    # A restart goes on where the partition halted: three more bad records, then the good ones.
    running.stop()
    again = stage.run(dead_letter_run=5).ready()
    stage.assert_exact()
    assert again.runtime.ready()
    assert len(stage.read(stage.dlq)) == 8


def test_a_halted_partition_is_seen_from_outside(stage: Stage) -> None:
    """Not ready, alive (a restart would not help), and a metric to alert on."""
    (port,) = free_ports(1)

    def ask(path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, "not there yet"
        finally:
            connection.close()

    stage.create_topics(partitions=1)
    stage.worker(service_port=port)
    eventually(lambda: ask("/readyz")[0] == 200, "ready")
    for _ in range(101):
        stage.send_raw(b"no json")
    eventually(lambda: ask("/readyz")[0] == 503, "not ready")
    assert ask("/readyz")[1] == "halted: partition 0: more than 100 dead letters in a row\n"
    assert ask("/livez")[0] == 200
    halted = re.compile(r'^siyu_stream_partition_halted\{.*partition="0".*} 1.0$', re.MULTILINE)
    eventually(lambda: bool(halted.search(ask("/metrics")[1])), "the metric tells")
    assert "partition_halted" in stage.log("0")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"in2": 3}, "same number of partitions"),
        ({"changelog": 5}, "same number of partitions"),
    ],
)
def test_topics_that_are_not_copartitioned_are_refused(stage: Stage, other: dict[str, int], reason: str) -> None:
    stage.create_topics(4, **other)
    refused = stage.run()
    eventually(refused.ended, "refused")
    assert isinstance(refused.error, TopologyError)
    assert reason in str(refused.error)


def test_missing_topics_and_a_changelog_that_forgets_are_refused(stage: Stage) -> None:
    refused = stage.run()
    eventually(refused.ended, "refused")
    assert isinstance(refused.error, TopologyError)
    assert stage.changelog in str(refused.error)
    stage.create_topics()
    stage.configure(stage.changelog, "cleanup.policy", "compact,delete")
    refused = stage.run()
    eventually(refused.ended, "refused")
    assert isinstance(refused.error, TopologyError)
    assert "cleanup.policy" in str(refused.error)
