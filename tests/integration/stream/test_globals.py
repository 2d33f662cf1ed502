"""Global tables: whole before the first step, then followed, and the version that was used goes with what it led to."""

import msgspec
import pytest
from stream_counting import Count, Counted, Event, processor
from stream_stage import Running, Stage, eventually

from siyu.stream import Context, Processor, Record, TopologyError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


def table(stage: Stage) -> str:
    return f"{stage.name}.rules"


def reading(stage: Stage) -> Processor[Count]:
    """Emits how many entries the table has and the id in that of its key; a ``blind`` record does not look."""
    topic = table(stage)

    def step(key: str, record: Record, state: Count | None, ctx: Context) -> Count | None:
        event: Event = record.value
        entries = {} if event.do == "blind" else ctx.globals[topic]
        found = entries.get(key)
        ctx.emit(f"{stage.name}.out", key, Counted(found.id if found else -1, key, len(entries), event.id))
        return state

    return processor(stage.name, step=step, globals=(topic,))


def run(stage: Stage) -> Running:
    return stage.run(processor=reading(stage)).ready()


def define(stage: Stage, number: int, key: str) -> None:
    stage.send_raw(msgspec.json.encode(Event(number)), key.encode(), topic=table(stage))


def ask(stage: Stage, key: str = "k0", do: str = "count") -> tuple[int, int]:
    """(id under the key, number of entries) as a step sees them now."""
    number = len(stage.seen)
    stage.put(number, do, key=key, stamp=1)
    answer = stage.outputs(number + 1)[number]
    return answer.id, answer.count


def test_loaded_before_the_first_step_and_followed_afterwards(stage: Stage) -> None:
    stage.create_topics(partitions=1).create_table(table(stage), partitions=2)
    for number in range(500):
        define(stage, number, f"k{number % 300}")
    for number in range(20):
        stage.put(number, key=f"k{number}", stamp=1)
    running = run(stage)
    outputs = stage.outputs(20)
    assert [(out.id, out.count) for out in outputs] == [(300 + number, 300) for number in range(20)]
    define(stage, 1_000, "k0")
    eventually(lambda: ask(stage) == (1_000, 300), "an entry has changed")
    stage.send_raw(None, b"k0", topic=table(stage))
    eventually(lambda: ask(stage) == (-1, 299), "an entry is gone")
    stage.send_raw(b"\xff no json", b"k1", topic=table(stage))
    eventually(lambda: bool(ask(stage)) and running.metric("globals_refused_total") == 1, "refused")
    assert ask(stage, "k1") == (301, 299)  # the last good value


def test_outputs_carry_the_version_only_when_the_step_looked(stage: Stage) -> None:
    stage.create_topics(partitions=1).create_table(table(stage), partitions=2)
    for number in range(10):
        define(stage, number, f"k{number}")
    run(stage)
    assert [ask(stage), ask(stage, do="blind")] == [(0, 10), (-1, 0)]
    looked, blind = stage.read(stage.output)
    ends = [stage.end(table(stage), partition) for partition in (0, 1)]
    assert looked.headers() == [(f"globals.{table(stage)}", f"{ends[0]},{ends[1]}".encode())]
    assert blind.headers() is None


def test_a_table_whose_topic_forgets_is_refused(stage: Stage) -> None:
    stage.create_topics(partitions=1).create_table(table(stage), partitions=1)
    stage.configure(table(stage), "cleanup.policy", "delete")
    refused = stage.run(processor=reading(stage))
    eventually(refused.ended, "refused")
    assert isinstance(refused.error, TopologyError)
    assert table(stage) in str(refused.error)
