"""(d) The limit: fetch and decode in one process, nothing else. No engine that decodes in Python can be faster.

The same client, settings and codec as ``siyu.stream``; offsets are committed once, after the last record.
"""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaException

from benchmarks.harness.worker import Job, MarkingCodec, stop_event

_BATCH = 10_000


def main() -> None:
    job = Job.load()
    stop = stop_event()
    codec = MarkingCodec(job)
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": job.run,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "queued.min.messages": _BATCH,
            "queued.max.messages.kbytes": 65_536,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.subscribe(list(job.inputs.values()))
    left = job.records
    while left and not stop.is_set():
        decode = codec.decode
        for message in consumer.consume(_BATCH, 0.1):
            if (error := message.error()) is not None:
                raise KafkaException(error)
            decode(message.value() or b"")
            left -= 1
    consumer.commit(asynchronous=False)
    stop.wait()
    consumer.close()


if __name__ == "__main__":
    main()
