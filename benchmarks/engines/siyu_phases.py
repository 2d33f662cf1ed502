"""Where the time goes: the loop of ``siyu.stream`` taken apart, one phase after the other over a whole batch.

The same clients, settings, codecs, store and transactions, without what makes the runtime safe and general (takeover,
dead letters, timers, bounds), and with every state kept decoded. Each phase is timed on its own: wall time, and CPU
time of the one Python thread. What the runtime takes beyond the sum is its price. The outputs are checked like any
engine's.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from benchmarks.engines.siyu_stream import processor
from benchmarks.harness.steps import STEPS
from benchmarks.harness.worker import Job, MarkingCodec, stop_event
from siyu.stream import StreamSettings, clients
from siyu.stream.state import StateCodec
from siyu.stream.store import StateStore

_CALL_S = 30.0


class Laps:
    """Time since the last lap goes to the phase named."""

    def __init__(self) -> None:
        self.wall: defaultdict[str, float] = defaultdict(float)
        self.thread: defaultdict[str, float] = defaultdict(float)
        self._now = time.perf_counter(), time.thread_time()

    def lap(self, phase: str | None) -> None:
        """None: the time counts nowhere."""
        wall, thread = time.perf_counter(), time.thread_time()
        if phase is not None:
            self.wall[phase] += wall - self._now[0]
            self.thread[phase] += thread - self._now[1]
        self._now = wall, thread


def main() -> None:
    job = Job.load()
    stop, codec = stop_event(), MarkingCodec(job)
    declared = processor(job)
    settings = StreamSettings(bootstrap=job.bootstrap, state_dir=Path(job.folder), instance=str(job.instance))
    consumer = Consumer({**clients.consumer(declared, settings), "auto.offset.reset": "earliest"})
    producer = Producer(clients.producer(declared, settings))
    producer.init_transactions(_CALL_S)
    consumer.subscribe(list(declared.inputs))

    step = STEPS[job.step]
    apply = step.build({name: job.output(name) for name in step.outputs})
    state_codec = StateCodec(declared)
    stores: dict[int, StateStore] = {}
    states: dict[bytes, Any] = {}
    positions: dict[tuple[str, int], int] = {}
    laps, left = Laps(), job.records
    while left and not stop.is_set():
        messages = _valid(consumer.consume(settings.batch_records, settings.batch_ms / 1000))
        laps.lap("fetch" if left < job.records else None)
        if not messages:
            continue
        left -= len(messages)
        producer.begin_transaction()
        laps.lap("commit")

        decode = codec.decode
        records = [(m.partition() or 0, m.key() or b"", decode(m.value() or b"")) for m in messages]
        laps.lap("decode")

        missing: defaultdict[int, set[bytes]] = defaultdict(set)
        for number, key, _ in records:
            if key not in states:
                missing[number].add(key)
        for number, keys in missing.items():
            if number not in stores:
                stores[number] = StateStore(settings.state_dir / f"p{number}")
            asked = list(keys)
            for key, data in zip(asked, stores[number].get_many(asked), strict=True):
                states[key] = None if data is None else state_codec.decode(data)[0]
        laps.lap("load state")

        changed: defaultdict[int, dict[bytes, Any]] = defaultdict(dict)
        emitted: list[tuple[str, str, Any]] = []
        for number, key, event in records:
            old = states[key]
            new, out = apply(key.decode(), old, event)
            if new is not old:
                states[key] = changed[number][key] = new
            emitted.extend(out)
        laps.lap("step")

        outputs: defaultdict[str, list[Any]] = defaultdict(list)
        encode = codec.encode
        for topic, out_key, value in emitted:
            outputs[topic].append({"key": out_key.encode(), "value": encode(value)})
        laps.lap("encode output")
        encode_state = state_codec.encode
        encoded = {n: {key: encode_state(state) for key, state in of.items()} for n, of in changed.items()}
        laps.lap("encode state")

        for topic, produced in outputs.items():
            _produce(producer, topic, produced, -1)
        for number, of in encoded.items():
            _produce(producer, declared.changelog, [{"key": k, "value": v} for k, v in of.items()], number)
        laps.lap("produce")

        for message in messages:
            positions[message.topic() or "", message.partition() or 0] = (message.offset() or 0) + 1
        if producer.flush(_CALL_S):
            raise TimeoutError("flush")
        laps.lap("flush")
        offsets = [TopicPartition(topic, number, offset) for (topic, number), offset in positions.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), _CALL_S)
        producer.commit_transaction(_CALL_S)
        laps.lap("commit")
        for number, of in encoded.items():
            stores[number].write(of.items(), 1, 1)
        laps.lap("store")
    job.report({name: _per_event(found, job) for name, found in (("wall", laps.wall), ("thread", laps.thread))})
    stop.wait()
    consumer.close()


def _valid(messages: list[Message]) -> list[Message]:
    for message in messages:
        if (error := message.error()) is not None:
            raise KafkaException(error)
    return messages


def _produce(producer: Producer, topic: str, records: list[Any], partition: int) -> None:
    if producer.produce_batch(topic, records, partition=partition) != len(records):
        raise RuntimeError(f"{topic} refused records")


def _per_event(seconds: dict[str, float], job: Job) -> dict[str, float]:
    """µs."""
    return {phase: round(total / job.records * 1e6, 2) for phase, total in seconds.items()}


if __name__ == "__main__":
    main()
