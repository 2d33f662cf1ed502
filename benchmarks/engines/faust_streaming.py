"""(c) faust-streaming 0.15.3: at least once, one table in the memory store, changed states to its changelog.

The fastest way through the library that its documentation shows: raw bytes in and out with the codec called in the
agent (its models would decode once more), states kept as objects and encoded for the changelog only, ``send_soon``
instead of awaiting each record. Its own metrics stay on, as those of ``siyu.stream`` do.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import mode.loop

mode.loop.use("uvloop")  # its documentation's first advice for speed; before anything else makes a loop

import faust  # noqa: E402
import msgspec  # noqa: E402
from faust.serializers import codecs  # noqa: E402

from benchmarks.harness.broker import PARTITIONS  # noqa: E402
from benchmarks.harness.steps import STEPS  # noqa: E402
from benchmarks.harness.worker import Job, MarkingCodec, stop_event  # noqa: E402

_STATE = "state"
_COMMIT_CHECK_S = 0.05


class _StateCodec(codecs.Codec):
    """States as bytes for the changelog."""

    def __init__(self, state_type: type[msgspec.Struct]) -> None:
        super().__init__()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(state_type).decode

    def _dumps(self, obj: Any) -> bytes:
        return self._encode(obj)

    def _loads(self, s: bytes) -> Any:
        return self._decode(s)


def build(job: Job) -> faust.App:
    step, codec = STEPS[job.step], MarkingCodec(job)
    apply = step.build({name: job.output(name) for name in step.outputs})
    codecs.register(_STATE, _StateCodec(step.state_type))
    app = faust.App(
        job.run,
        broker=f"kafka://{job.bootstrap}",
        datadir=job.folder,
        store="memory://",
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        # Larger fetches, batches and buffers than the defaults, so that neither end waits for the network.
        consumer_max_fetch_size=8 << 20,
        broker_max_poll_records=5_000,
        broker_check_crcs=False,
        stream_buffer_maxsize=16_384,
        producer_compression_type="lz4",
        producer_linger=0.05,
        producer_max_batch_size=1 << 20,
        # Every 10,000 records or 2.8 s: the defaults.
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        topic_partitions=PARTITIONS,
        topic_replication_factor=1,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    raw = {"key_serializer": "raw", "value_serializer": "raw", "key_type": bytes, "value_type": bytes}
    inputs = app.topic(*job.inputs.values(), **raw)
    outputs = {job.output(name): app.topic(job.output(name), **raw) for name in step.outputs}
    states = app.Table("states", partitions=PARTITIONS, key_type=bytes)
    states.value_serializer = _STATE  # else it would be JSON
    left = job.records

    async def on_events(stream: Any) -> None:
        nonlocal left
        get, encode = states.get, codec.encode
        async for key, value in stream.items():
            old = get(key)
            new, emitted = apply(key.decode(), old, codec.decode(value))
            if new is not old:
                states[key] = new
            for topic, out_key, out_value in emitted:
                outputs[topic].send_soon(key=out_key.encode(), value=encode(out_value))
            left -= 1

    async def commit_the_rest() -> None:
        """What is open is committed at once, instead of at the end of the interval."""
        if not left:
            await app.consumer.commit()

    app.agent(inputs, name="events", concurrency=1)(on_events)
    app.timer(_COMMIT_CHECK_S, name="commit")(commit_the_rest)

    @app.on_worker_init.connect
    def _larger_buffer(*_: Any, **__: Any) -> None:
        # At its 100 the reader stops, again and again, until the producer's buffer has emptied.
        app.producer.buffer.max_messages = 10_000

    return app


def main() -> None:
    job = Job.load()
    stop = stop_event()

    def end() -> None:
        stop.wait()
        os._exit(0)  # an orderly end takes it seconds, and nothing is measured any more

    threading.Thread(target=end, daemon=True).start()
    app = build(job)
    app.finalize()
    faust.Worker(app, loglevel="warning").execute_from_commandline()


if __name__ == "__main__":
    main()
