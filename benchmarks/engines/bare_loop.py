"""(e) The same libraries in the shortest loop that is exactly once as long as nothing goes wrong.

One pass over a batch, states in a dictionary and in RocksDB, changed ones to the changelog, one transaction.

No takeover, restore, dead letters, timers, budget of memory or metrics: what ``siyu.stream`` takes beyond it is the
price of those, and what both take is the price of the clients, the codec and the interpreter.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks.engines.siyu_stream import processor
from benchmarks.harness.steps import STEPS
from benchmarks.harness.worker import Job, MarkingCodec, stop_event
from siyu.stream import StreamSettings, clients
from siyu.stream.state import StateCodec
from siyu.stream.store import StateStore

_CALL_S = 30.0


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
    encode, encode_state = codec.encode, StateCodec(declared).encode
    stores: dict[int, StateStore] = {}
    states: dict[bytes, Any] = {}
    positions: dict[tuple[str, int], int] = {}
    left = job.records
    while left and not stop.is_set():
        messages = consumer.consume(settings.batch_records, settings.batch_ms / 1000)
        if not messages:
            continue
        left -= len(messages)
        decode = codec.decode
        changed: defaultdict[int, dict[bytes, Any]] = defaultdict(dict)
        outputs: defaultdict[str, list[Any]] = defaultdict(list)
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            number, key = message.partition() or 0, message.key() or b""
            old = states.get(key)
            new, emitted = apply(key.decode(), old, decode(message.value() or b""))
            if new is not old:
                states[key] = changed[number][key] = new
            for topic, out_key, value in emitted:
                outputs[topic].append({"key": out_key.encode(), "value": encode(value)})
            positions[message.topic() or "", number] = (message.offset() or 0) + 1
        encoded = {n: {key: encode_state(state) for key, state in of.items()} for n, of in changed.items()}

        producer.begin_transaction()
        for topic, produced in outputs.items():
            _produce(producer, topic, produced, -1)
        for number, of in encoded.items():
            _produce(producer, declared.changelog, [{"key": k, "value": v} for k, v in of.items()], number)
        if producer.flush(_CALL_S):
            raise TimeoutError("flush")
        offsets = [TopicPartition(topic, number, offset) for (topic, number), offset in positions.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), _CALL_S)
        producer.commit_transaction(_CALL_S)
        for number, of in encoded.items():
            if number not in stores:
                stores[number] = StateStore(settings.state_dir / f"p{number}")
            stores[number].write(of.items(), 1, 1)
    job.report({})
    stop.wait()
    consumer.close()


def _produce(producer: Producer, topic: str, records: list[Any], partition: int) -> None:
    if producer.produce_batch(topic, records, partition=partition) != len(records):
        raise RuntimeError(f"{topic} refused records")


if __name__ == "__main__":
    main()
