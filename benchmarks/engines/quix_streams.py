"""(b) quixstreams 3.28 exactly once, set up as its documentation recommends.

Two topics that share their states are a concatenated dataframe, which also makes the library read them in the order of
their timestamps. The step gets and returns objects, states are stored as bytes: its own JSON would be slower. It runs
in an environment of its own (``quix_streams.txt``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from quixstreams import Application
from quixstreams.models import Deserializer, Serializer

from benchmarks.harness.steps import STEPS, Emitted
from benchmarks.harness.worker import Job, MarkingCodec, stop_event

_STATE = b"state"


class _Decode(Deserializer):
    def __init__(self, codec: MarkingCodec) -> None:
        super().__init__()
        self._codec = codec

    def __call__(self, value: bytes, ctx: Any) -> Any:
        return self._codec.decode(value)


class _Encode(Serializer):
    def __init__(self, codec: MarkingCodec) -> None:
        super().__init__()
        self._encode = codec.encode

    def __call__(self, value: Emitted, ctx: Any) -> bytes:
        return self._encode(value[2])


def main() -> None:
    job = Job.load()
    step, codec = STEPS[job.step], MarkingCodec(job)
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=job.run,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        state_dir=job.folder,
        loglevel="WARNING",
        # The default. Changed keys are held in memory until then, so that a long interval is the fast one.
        commit_interval=5.0,
        # As in siyu.stream: by default a full queue stops fetching for a second.
        consumer_extra_config={"fetch.queue.backoff.ms": 5},
        # As in siyu.stream; the library sends uncompressed otherwise.
        producer_extra_config={"compression.type": "lz4", "queue.buffering.max.messages": 1_000_000},
    )
    inputs = [
        app.topic(topic, key_deserializer="bytes", value_deserializer=_Decode(codec)) for topic in job.inputs.values()
    ]
    outputs = {
        job.output(name): app.topic(job.output(name), key_serializer="str", value_serializer=_Encode(codec))
        for name in step.outputs
    }
    apply = step.build({name: job.output(name) for name in step.outputs})
    encode_state = msgspec.msgpack.Encoder().encode
    decode_state = msgspec.msgpack.Decoder(step.state_type).decode
    left = job.records

    def on_event(event: Any, key: bytes, timestamp: int, headers: Any, state: Any) -> Sequence[Emitted]:
        nonlocal left
        data = state.get_bytes(_STATE)
        old = None if data is None else decode_state(data)
        new, emitted = apply(key.decode(), old, event)
        if new is not old:
            state.set_bytes(_STATE, encode_state(new))
        left -= 1
        if not left:
            app.stop()  # commits what is open, instead of waiting for the interval to end
        return emitted

    first, second = (app.dataframe(topic) for topic in inputs)
    joined = first.concat(second).apply(on_event, stateful=True, expand=True, metadata=True)
    joined.to_topic(lambda emitted, key, timestamp, headers: outputs[emitted[0]], key=lambda emitted: emitted[1])
    app.run()
    stop_event().wait()


if __name__ == "__main__":
    main()
